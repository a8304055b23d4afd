"""Where no data set is found, or its files are not, the sentence says what lies there instead."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from governance.records.errors import DataError
from medisynth.data.adapters import Listing, locate_data_set
from medisynth.data.adapters.selection import missing_images, missing_images_error

HEADER = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
TABLE = "FETAL_PLANES_DB_data.csv"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40), 90, dtype=np.uint8)).save(path, format="PNG")


def planes(root: Path, *names: str, images: str = "Images") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = [f"{name};{k};Fetal brain;Other;Op. 1;Aloka;1 " for k, name in enumerate(names, 1)]
    (root / TABLE).write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    for name in names:
        picture(root / images / f"{name}.png")
    return root


def listing(root: Path) -> Listing:
    adapter, found = locate_data_set(root)
    return adapter.list_images(found)


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        locate_data_set(root)
    assert caught.value.exit_code == 3
    return str(caught.value)


def absence(root: Path) -> str:
    """The sentence about the missing images of a folder."""
    table = listing(root).table
    missing = missing_images(root, table)
    assert missing.all()
    error = missing_images_error(root, table, missing, metadata_file=TABLE)
    assert len(error.findings) == len(table)
    return str(error)


@pytest.mark.malformed("csv")
def test_a_table_that_is_a_pipe_a_folder_or_a_broken_link_is_named_with_what_it_is(tmp_path):
    os.mkfifo(tmp_path / TABLE)
    assert f"{TABLE} is a named pipe, expected the file of fetal-planes-db" in refusal(tmp_path)
    (tmp_path / TABLE).unlink()
    (tmp_path / TABLE).mkdir()
    assert f"{TABLE} is a folder" in refusal(tmp_path)
    (tmp_path / TABLE).rmdir()
    (tmp_path / "metadata.csv").symlink_to("nowhere.csv")
    assert "metadata.csv is a symbolic link whose file is not there" in refusal(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    os.mkfifo(tmp_path / "metadata.csv")  # its header is looked at, which must not wait for ever
    assert "metadata.csv is a named pipe" in refusal(tmp_path)


@pytest.mark.malformed("csv")
def test_a_missing_table_is_said_with_every_file_expected_and_what_lies_there(tmp_path):
    picture(tmp_path / "a.png")

    said = refusal(tmp_path)

    for expected in (TABLE, "training_set_pixel_size_and_HC.csv", "African_planes_database.csv"):
        assert expected in said
    assert "found a.png" in said


@pytest.mark.malformed("csv")
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("fetal_planes_db_data.csv", HEADER, f"nearly the name of {TABLE}; rename it"),
        ("FETAL_PLANES_DB_data.xlsx", "PK", "save it as text (CSV, UTF-8)"),
        ("planes.csv", HEADER.replace(";", ","), "with fields separated by ';'"),
        ("planes.csv", "Image_name;Patient_num;Plane;Brain_plane;x", "it lacks 'Operator'"),
        ("FETAL_PLANES_ZENODO.zip", "PK", "is an archive; unpack it there"),
        (f"{TABLE}.dvc", "outs:\n- md5: 0", "is a DVC pointer; run `dvc pull`"),
        ("images.dvc", "outs:\n- md5: 0", "is a DVC pointer; run `dvc pull`"),
    ],
)
def test_a_file_that_is_nearly_a_known_table_is_named_with_what_to_do(
    tmp_path, name, content, expected
):
    (tmp_path / name).write_text(f"{content}\n", encoding="utf-8")

    said = refusal(tmp_path)

    assert f"'{name}'" in said
    assert expected in said


def test_the_published_archives_are_read_as_they_unpack(tmp_path):
    planes(tmp_path / "planes" / "FETAL_PLANES_ZENODO", "Patient00001_Plane3_1_of_1")
    heads = tmp_path / "heads"
    picture(heads / "training_set" / "training_set" / "010_HC.png")
    picture(heads / "training_set" / "training_set" / "010_HC_Annotation.png")
    (heads / "training_set_pixel_size_and_HC.csv").write_text(
        "filename,pixel size(mm),head circumference (mm)\n010_HC.png,0.1,200\n"
    )
    africa = tmp_path / "africa" / "Zenodo_dataset"
    picture(africa / "Algeria" / "patient001_DZA_plane1.png")
    (africa / "African_planes_database.csv").write_text(
        "Patient_num,Plane,Train,Center,Filename\n1,Fetal brain,1,Algeria,patient001_DZA_plane1\n"
    )

    for name, adapter in (
        ("planes", "fetal-planes-db"),
        ("heads", "hc18"),
        ("africa", "african-planes"),
    ):
        found, folder = locate_data_set(tmp_path / name)
        table = found.list_images(folder).table
        assert found.name == adapter
        assert len(table) == 1
        assert not missing_images(folder, table).any()
    assert table["patient_id"][0] == "Algeria-1"
    assert table["site"][0] == "Algeria"


@pytest.mark.malformed("archive")
def test_an_archive_given_instead_of_a_folder_is_named_with_what_to_do(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04 and so on")

    assert "is a ZIP archive, expected a folder; unpack it" in refusal(tmp_path / "set.zip")


def test_two_data_sets_below_a_folder_are_both_named(tmp_path):
    planes(tmp_path / "one", "a")
    planes(tmp_path / "two", "b")

    assert "2 below it (one/, two/)" in refusal(tmp_path)


@pytest.mark.malformed("csv")
def test_images_missing_for_one_reason_are_counted_with_it_and_what_to_do(tmp_path):
    upper = planes(tmp_path / "upper", "a", "b")
    for path in (upper / "Images").iterdir():
        path.rename(path.with_suffix(".PNG"))
    assert "2 of them: the ending is written '.PNG', expected '.png'; rename" in absence(upper)
    folder = planes(tmp_path / "folder", "a", "b", images="images")
    assert "2 of them: the folder is named 'images', expected 'Images'" in absence(folder)
    ending = planes(tmp_path / "ending", "a", "b")
    for path in (ending / "Images").iterdir():
        path.rename(path.with_suffix(".jpg"))
    assert "2 of them: a file ending in '.jpg' lies there" in absence(ending)
    doubled = planes(tmp_path / "doubled", "a.png", "b.png")
    for path in (doubled / "Images").iterdir():
        path.rename(path.with_suffix(""))
    assert "2 of them: the names in the table end in '.png' already" in absence(doubled)
    case = planes(tmp_path / "case", "a", "b")
    for path in (case / "Images").iterdir():
        path.rename(path.with_name(path.name.upper().replace(".PNG", ".png")))
    assert "2 of them: the name lies there in another letter case" in absence(case)
    form = planes(tmp_path / "form", "pacient\u00e9")
    for path in (form / "Images").iterdir():
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    assert "1 of them: the same name in another Unicode form" in absence(form)
    kept = planes(tmp_path / "kept", "a", images="elsewhere")
    (kept / "Images.dvc").write_text("outs:\n- md5: 0\n")
    assert "1 of them: DVC keeps them" in absence(kept)
    deeper = planes(tmp_path / "deeper", "a")
    picture(deeper / "Images" / "part 2" / "b.png")
    (deeper / "Images" / "a.png").rename(deeper / "Images" / "part 2" / "a.png")
    picture(deeper / "Images" / "other.png")
    assert "one folder deeper, in 'Images/part 2'" in absence(deeper)


@pytest.mark.malformed("csv")
def test_an_image_listed_twice_with_two_labels_is_named_with_both_but_no_foreign_column(tmp_path):
    tmp_path.joinpath(TABLE).write_text(
        f"{HEADER};Name\n"
        "a;1;Fetal brain;Other;Op. 1;Aloka;1 ;Ada\n"
        "a;1;Fetal femur;Other;Op. 1;Aloka;1 ;Eve\n"
    )

    with pytest.raises(DataError) as caught:
        listing(tmp_path)

    said = str(caught.value.findings[0])
    assert "Plane 'Fetal brain' there and 'Fetal femur' here" in said
    assert "1 other column differing" in said
    assert "Ada" not in said
