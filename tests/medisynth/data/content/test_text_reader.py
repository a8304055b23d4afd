"""Burned-in text is read where tesseract is installed, and its faults never pass for "no text"."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from medisynth.data.content import text as text_reader
from medisynth.data.content.marks import text_lines
from medisynth.data.content.text import (
    TextReaderError,
    find_tesseract,
    lines_of,
    read_texts,
    tesseract_version,
)
from tests.places import KIT

TESSERACT = find_tesseract() if tesseract_version() else None
needs_tesseract = pytest.mark.skipif(TESSERACT is None, reason="tesseract is not installed")
needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real data kit is not here")


def frame(text, at=(300, 40)):
    picture = Image.new("L", (600, 400))
    pen = ImageDraw.Draw(picture)
    pen.text(at, text, fill=220, font=ImageFont.load_default(size=16))
    return np.asarray(picture)


def program(folder, body):
    path = folder / "tesseract"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def words_of(grey, tesseract):
    answer = read_texts([(grey, text_lines(grey))], tesseract)[0]
    if isinstance(answer, TextReaderError):
        raise answer
    return answer


def read(grey):
    return dict(lines_of(words_of(grey, TESSERACT)))


@needs_tesseract
def test_a_name_is_read_where_it_stands():
    image = frame("SMITH ANNA")
    words = words_of(image, TESSERACT)
    assert [word.text for word in words] == ["SMITH", "ANNA"]
    assert all(0.5 < word.confidence <= 1 for word in words)
    rows, columns = np.nonzero(image)
    assert abs(words[0].box[0] - columns.min()) <= 4
    assert abs(words[1].box[2] - columns.max()) <= 4
    assert all(abs(word.box[1] - rows.min()) <= 4 for word in words)


@needs_tesseract
def test_dark_text_on_a_light_bar_is_read():
    image = frame("")
    image = image.copy()
    image[30:70, 280:500] = 210
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).text((300, 40), "General", fill=0, font=ImageFont.load_default(size=16))
    assert "General" in "".join(read(np.asarray(picture)))


def test_an_image_without_overlay_starts_no_program():
    assert words_of(np.zeros((200, 300), dtype=np.uint8), "/no/such/program") == ()


@needs_tesseract
@needs_kit
def test_texts_known_from_real_frames_are_read():
    known = {
        "trans_ventricular_480/images/Patient00786_Plane3_2_of_3": "Har-intermedia",
        "trans_ventricular_480/images/Patient00799_Plane3_1_of_3": "Har-mid",
        "Images/Patient00036_Plane1_13_of_39": "09:13:15",
        "Images/Patient00041_Plane1_13_of_45": "07:49:24",
    }
    for name, text in known.items():
        image = np.asarray(Image.open(KIT / "fetal_planes_db" / f"{name}.png").convert("L"))
        assert text in read(image), name


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("cat > /dev/null; exit 3", "status 3"),
        ("cat > /dev/null; kill -SEGV $$", "status"),
        ("cat > /dev/null; printf 'head\\nnonsense'", "table of words"),
        (
            "cat > /dev/null; printf 'h\\n5\\t1\\t1\\t1\\t1\\t1\\tx\\t1\\t1\\t1\\t90\\tword'",
            "no numbers",
        ),
        ("cat > /dev/null; printf '\\377\\376'", "cannot be used"),
    ],
)
def test_a_faulty_program_is_an_error_not_an_empty_answer(tmp_path, body, message):
    with pytest.raises(TextReaderError, match=message):
        words_of(frame("SMITH ANNA"), program(tmp_path, body))


def test_a_program_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(text_reader, "TIMEOUT_S", 0.3)
    with pytest.raises(TextReaderError, match="longer than"):
        words_of(frame("SMITH ANNA"), program(tmp_path, "exec sleep 20"))


def test_a_missing_program_is_an_error_when_it_is_needed():
    with pytest.raises(TextReaderError, match="cannot be used"):
        words_of(frame("SMITH ANNA"), "/no/such/program")


def test_without_a_program_there_is_no_version(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tesseract() is None
    assert tesseract_version() is None


def test_a_program_without_english_counts_as_absent(monkeypatch, tmp_path):
    program(tmp_path, "echo tesseract 5.3.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert tesseract_version() is None


@needs_tesseract
def test_several_images_read_together_give_what_each_gives_alone():
    frames = [frame("SMITH ANNA"), frame(""), frame("12:30:55"), frame("General", at=(40, 300))]
    together = read_texts([(grey, text_lines(grey)) for grey in frames], TESSERACT)
    assert together == [words_of(grey, TESSERACT) for grey in frames]
    assert together[1] == ()


def test_one_unreadable_sheet_does_not_take_the_others_with_it(tmp_path):
    """The program fails on both together, then reads the first, then fails on the second."""
    body = (
        f"cd {tmp_path}; cat > page.tif; echo >> calls; n=$(wc -l < calls); "
        "if [ $n -ne 2 ]; then exit 1; fi; "
        "printf 'h\\n5\\t1\\t1\\t1\\t1\\t1\\t30\\t30\\t9\\t9\\t90\\tword\\n'"
    )
    frames = [frame("SMITH ANNA"), frame("JONES MARY")]
    answers = read_texts([(grey, text_lines(grey)) for grey in frames], program(tmp_path, body))
    assert [word.text for word in answers[0]] == ["word"]
    assert isinstance(answers[1], TextReaderError)
