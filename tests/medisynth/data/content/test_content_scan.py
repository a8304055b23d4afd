"""The content scan reports what it looked at, what it found and what it could not see."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFont
from PIL.ExifTags import Base
from PIL.PngImagePlugin import PngInfo

from governance.records.errors import SettingsError
from medisynth.data.content.scan import drawn_images, scan_content, turned
from medisynth.data.content.text import tesseract_version
from medisynth.data.reading.ingest import ingest_images

needs_tesseract = pytest.mark.skipif(
    tesseract_version() is None, reason="tesseract is not installed"
)
NO_COLUMNS = pd.DataFrame()


def write(path, text="", chunk=None):
    picture = Image.new("L", (600, 400))
    ImageDraw.Draw(picture).text((300, 40), text, fill=220, font=ImageFont.load_default(size=16))
    info = PngInfo()
    if chunk:
        info.add_text(*chunk)
    picture.save(path, pnginfo=info)


def table_of(names, **columns):
    table = pd.DataFrame(
        {
            "image_id": names,
            "path": [f"{name}.png" for name in names],
            "machine": "Voluson E6",
            "overlay_fraction": [0.0] * len(names),
        }
    )
    return table.assign(**columns)


def scan(root, table, metadata=NO_COLUMNS, n="all", reviewed=None):
    return scan_content(
        root, table, metadata, n_text_images=n, reviewed=reviewed or {}, seed=0, n_workers=2
    )


@pytest.fixture
def without_tesseract(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


@needs_tesseract
def test_a_burned_in_name_is_marked_masked_and_can_be_reviewed(tmp_path):
    write(tmp_path / "a.png", "SMITH ANNA")
    write(tmp_path / "b.png", "Voluson")
    found = scan(tmp_path, table_of(["a", "b"]))
    assert found.engine == f"tesseract {tesseract_version()}"
    assert found.reads_text
    assert (found.n_images, found.n_scanned, found.n_with_text) == (2, 2, 2)
    assert [(m.image_id, m.kind, m.text) for m in found.marks] == [("a", "name", "AAAAA AAAA")]
    assert found.n_images_with_marks == 1
    assert "SMITH" not in str(found)
    again = scan(tmp_path, table_of(["a", "b"]), reviewed={"a": "name of a test", "z": "gone"})
    assert (again.marks, again.n_images_with_marks) == ((), 0)
    assert again.reviewed == ("a: name of a test",)
    assert "1 reviewed name fits no column and no image" in again.limitations


def test_without_a_reader_overlays_are_found_and_nothing_is_read(tmp_path, without_tesseract):
    write(tmp_path / "a.png", "SMITH ANNA")
    write(tmp_path / "b.png")
    found = scan(tmp_path, table_of(["a", "b"]))
    assert (found.engine, found.reads_text) == ("overlay detector", False)
    assert (found.n_scanned, found.n_with_text, found.marks) == (2, 1, ())
    assert "what they say is unknown" in found.limitations


def test_overlays_are_counted_over_the_whole_table(tmp_path, without_tesseract):
    table = table_of(["a", "b", "c"], overlay_fraction=[0.0, 5.9e-5, 6e-5])
    found = scan(tmp_path, table, n=0)
    assert (found.n_images, found.n_scanned, found.n_with_overlay) == (3, 0, 1)
    assert "3 of 3 images were not looked at for text" in found.limitations


def test_files_that_are_gone_changed_or_outside_are_not_scanned(tmp_path, without_tesseract):
    root = tmp_path / "data"
    root.mkdir()
    write(tmp_path / "outside.png")
    for name in ("good", "changed", "cut"):
        write(root / f"{name}.png")
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:60])
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    table = table_of(["good", "changed", "cut", "gone", "link", "../outside"])
    table["file_sha256"] = [None, "0" * 64, None, None, None, None]
    found = scan(root, table)
    assert found.n_scanned == 1
    assert "4 drawn images were not scanned: the file could not be read again" in found.limitations
    assert "1 drawn image was not scanned: the file changed" in found.limitations


def test_a_crash_of_the_reader_is_not_scanned_rather_than_without_text(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "tesseract"
    program.write_text(
        "#!/bin/sh\ncase $1 in --version) echo tesseract 9.9;; --list-langs) echo eng;; "
        "*) exit 3;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/bin:/usr/bin")
    write(tmp_path / "a.png", "SMITH ANNA")
    write(tmp_path / "b.png")
    found = scan(tmp_path, table_of(["a", "b"]))
    assert (found.engine, found.n_scanned, found.n_with_text) == ("tesseract 9.9", 1, 0)
    assert "1 drawn image was not scanned: tesseract ended with status 3" in found.limitations


def test_png_texts_are_counted_by_keyword_and_values_never_repeated(tmp_path, without_tesseract):
    write(tmp_path / "a.png", chunk=("Comment", "Name: Anna Smith"))
    write(tmp_path / "b.png", chunk=("Software", "Name: Anna Smith"))
    write(tmp_path / "c.png", chunk=("Smith^Anna", "x"))
    write(tmp_path / "d.png", chunk=("Software", "ImageMagick 6.9.10"))
    table = table_of(
        ["a", "b", "c", "d"],
        png_text_keywords=["Comment", "Software", "Smith^Anna", "Software"],
    )
    found = scan(tmp_path, table)
    assert found.text_chunks == {"Aaaaa^Aaaa": 1, "Comment": 1, "Software": 2}
    assert (found.marks, found.columns) == ((), ())
    assert [(m.kind, m.image_ids) for m in found.file_metadata] == [
        ("Aaaaa^Aaaa", ("c",)),
        ("Comment", ("a",)),
        ("Software", ("b",)),
    ]
    assert found.n_images_with_metadata == 3
    assert "Anna" not in str(found)


NAME = "Patient: DOE^JANE 1980-02-01 MRN 12345678"


def png_with(**made):
    data = io.BytesIO()
    Image.new("L", (64, 64), 7).save(data, "PNG", **made)
    return data.getvalue()


def text(keyword, kind="add_itxt"):
    made = PngInfo()
    getattr(made, kind)(keyword, NAME)
    return png_with(pnginfo=made)


def chunk(kind, body):
    made = PngInfo()
    made.add(kind, body)
    return png_with(pnginfo=made)


def exif(**tags):
    made = Image.Exif()
    made.update({getattr(Base, tag): value for tag, value in tags.items()})
    return png_with(exif=made.tobytes())


METADATA = {
    "Description": text("Description"),
    "Title": text("Title", "add_text"),
    "Software": text("Software"),
    "Note": text("Note"),
    "date create": text("date:create"),
    "XMP": text("XML:com.adobe.xmp"),
    "EXIF": exif(ImageDescription=NAME),
    "tIME": chunk(b"tIME", bytes([7, 228, 2, 1, 9, 30, 0])),
    "ICC profile": png_with(icc_profile=NAME.encode()),
    "sPLT": chunk(b"sPLT", b"Jane Doe\0\x08"),
    "chunk prVt": chunk(b"prVt", NAME.encode()),
}


@pytest.mark.parametrize("kind", METADATA)
def test_every_kind_of_metadata_in_a_file_is_found_named_and_never_repeated(
    kind, tmp_path, without_tesseract
):
    (tmp_path / "a.png").write_bytes(METADATA[kind])
    (tmp_path / "b.png").write_bytes(png_with(dpi=(72, 72)))
    table = ingest_images(
        tmp_path, table_of(["a", "b"])[["image_id", "path", "machine"]], size_px=8
    )

    found = scan(tmp_path, table.table, n=0)

    assert table.findings == ()
    assert [(m.kind, m.n_images, m.image_ids) for m in found.file_metadata] == [(kind, 1, ("a",))]
    assert found.n_images_with_metadata == 1
    assert not re.search("doe|jane|1980|1234", f"{found} {table.table.to_csv()}", re.IGNORECASE)
    for reviewed in ({kind: "looked at"}, {"a": "looked at"}):
        again = scan(tmp_path, table.table, n=0, reviewed=reviewed)
        assert (again.file_metadata, again.n_images_with_metadata) == ((), 0)
        assert len(again.reviewed) == 1


def test_a_rotation_by_exif_is_said_to_be_left_undone(tmp_path, without_tesseract):
    (tmp_path / "a.png").write_bytes(exif(Orientation=6))
    (tmp_path / "b.png").write_bytes(exif(Orientation=1, XResolution=72.0))
    table = ingest_images(
        tmp_path, table_of(["a", "b"])[["image_id", "path", "machine"]], size_px=8
    )

    assert turned(table.table) == ["a"]
    found = scan(tmp_path, table.table, n=0)
    assert "1 image asks by EXIF to be turned" in found.limitations
    assert found.file_metadata == ()


def test_columns_are_flagged_unless_reviewed(tmp_path, without_tesseract):
    metadata = pd.DataFrame({"Patient_name": ["x"], "Plane": ["Fetal brain"]})
    found = scan(tmp_path, table_of(["a"]), metadata, n=0)
    assert (found.n_columns, [c.column for c in found.columns]) == (2, ["Patient_name"])
    reviewed = scan(tmp_path, table_of(["a"]), metadata, n=0, reviewed={"Patient_name": "made up"})
    assert (reviewed.columns, reviewed.reviewed) == ((), ("Patient_name: made up",))


def test_images_are_drawn_evenly_over_machines_whatever_their_order():
    names = [f"i{k}" for k in range(100)]
    machines = ["common"] * 90 + ["rare"] * 2 + [None] * 8
    table = table_of(names, machine=machines, site=["x"] * 100)
    drawn = drawn_images(table, 12, seed=1)
    assert drawn["machine"].fillna("none").value_counts().to_dict() == {
        "common": 5,
        "none": 5,
        "rare": 2,
    }
    again = drawn_images(table.sample(frac=1, random_state=0), 12, seed=1)
    assert set(again["image_id"]) == set(drawn["image_id"])
    assert set(drawn_images(table, 12, seed=2)["image_id"]) != set(drawn["image_id"])
    assert len(drawn_images(table, "all", seed=1)) == len(drawn_images(table, 500, seed=1)) == 100


def test_progress_counts_to_the_end_and_settings_are_checked(tmp_path, without_tesseract):
    write(tmp_path / "a.png")
    write(tmp_path / "b.png")
    seen = []
    scan_content(
        tmp_path,
        table_of(["a", "b"]),
        NO_COLUMNS,
        n_text_images="all",
        reviewed={},
        seed=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    with pytest.raises(SettingsError, match="n_text_images"):
        scan(tmp_path, table_of(["a"]), n=-1)


def test_an_empty_table_is_scanned_without_fault(tmp_path, without_tesseract):
    found = scan(tmp_path, table_of([]).astype({"overlay_fraction": "float64"}))
    assert (found.n_images, found.n_scanned, found.n_with_overlay) == (0, 0, 0)


def test_the_result_has_the_fields_of_one_scan_and_pixels_are_left_alone(
    tmp_path, without_tesseract
):
    write(tmp_path / "a.png", "text")
    before = np.asarray(Image.open(tmp_path / "a.png")).copy()
    scan(tmp_path, table_of(["a"]))
    assert np.array_equal(before, np.asarray(Image.open(tmp_path / "a.png")))
