"""Adapters list what a metadata file says and refuse what it cannot mean."""

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pandas as pd
import pytest

from governance.records.errors import DataError, SettingsError
from medisynth.data.adapters import (
    LISTING_COLUMNS,
    Listing,
    adapter_names,
    load_adapter,
    locate_data_set,
)
from medisynth.data.adapters.african_planes import AfricanPlanes
from medisynth.data.adapters.fetal_planes_db import FetalPlanesDb
from medisynth.data.adapters.hc18 import Hc18
from medisynth.data.adapters.phantom import Phantom
from medisynth.data.reading.csv_table import MAX_FINDINGS, canonical_number, read_strict
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")

HEADER = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
BRAIN = "Patient00001_Plane3_1_of_2;0001;Fetal brain;Trans-thalamic;Op. 1;Voluson E6;1 "
FEMUR = "Patient00002_Plane5_1_of_1;2;Fetal femur;Not A Brain;Other;Aloka;0 "


def planes_db(root: Path, *lines: str, header: str = HEADER) -> Path:
    root.mkdir(exist_ok=True)
    text = "\n".join((header, *lines)) + "\n"
    (root / "FETAL_PLANES_DB_data.csv").write_text(text, encoding="utf-8")
    return root


def hc18_published(root: Path, *lines: str) -> Path:
    header = "filename,pixel size(mm),head circumference (mm)"
    text = "\n".join((header, *lines)) + "\n"
    (root / "training_set_pixel_size_and_HC.csv").write_text(text)
    return root


def faults(root: Path) -> list[tuple[str, int | None, str | None]]:
    with pytest.raises(DataError) as caught:
        locate_data_set(root)[0].list_images(root)
    assert caught.value.exit_code == 3
    assert caught.value.code == caught.value.findings[0].code
    assert "\n" not in str(caught.value)
    return [(f.code, f.row, f.column) for f in caught.value.findings]


def test_the_published_table_is_read_with_its_trailing_blanks(tmp_path):
    listing = FetalPlanesDb().list_images(planes_db(tmp_path, BRAIN, FEMUR))

    table = listing.table
    assert tuple(table.columns) == LISTING_COLUMNS
    assert table["patient_id"].tolist() == ["1", "2"]
    assert table["official_partition"].tolist() == ["training", "held-out test set"]
    assert table["path"][0] == "Images/Patient00001_Plane3_1_of_2.png"
    assert table["row"].tolist() == [2, 3]
    assert table["brain_plane"][0] == "Trans-thalamic"
    assert table["brain_plane"][1] is pd.NA
    assert table["site"].isna().all()
    assert str(table["row"].dtype) == "int64"


def test_a_patient_number_is_the_same_with_and_without_leading_zeros():
    assert canonical_number("0001") == canonical_number("1") == "1"
    assert canonical_number("000") == "0"
    assert canonical_number("A01") == "A01"


@pytest.mark.malformed("csv")
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", ("D012", None, None), id="empty file"),
        pytest.param(b"\n \n", ("D012", None, None), id="blank file"),
        pytest.param(b"<!DOCTYPE html><html>", ("D017", None, None), id="web page"),
        pytest.param(f"{HEADER}\n{BRAIN}\0\n".encode(), ("D015", 2, None), id="NUL byte"),
        pytest.param(f"{HEADER}\n{BRAIN}\n".encode("utf-16"), ("D013", None, None), id="UTF-16"),
        pytest.param(f"{HEADER}\n".encode() + b"\xe9;\n", ("D013", 2, None), id="Latin-1"),
        pytest.param(f"\ufeff{HEADER}\n{BRAIN}\n".encode(), ("D014", 1, None), id="BOM"),
        pytest.param(f"{HEADER}\n".encode(), ("D024", None, None), id="no rows"),
        pytest.param(f"{HEADER};Plane\n{BRAIN};x\n".encode(), ("D018", 1, None), id="doubled"),
        pytest.param(f"{HEADER}\nPatient;1\n".encode(), ("D016", 2, None), id="short row"),
        pytest.param(f"{HEADER}\n{BRAIN};x\n".encode(), ("D016", 2, None), id="long row"),
        pytest.param(f"{HEADER}\n{BRAIN}\n\n".encode(), ("D016", 3, None), id="empty line"),
        pytest.param(f'{HEADER}\n"{BRAIN}\n'.encode(), ("D016", 2, None), id="open quote"),
    ],
)
def test_a_file_that_a_lenient_reader_accepts_is_refused(tmp_path, content, expected):
    (tmp_path / "FETAL_PLANES_DB_data.csv").write_bytes(content)

    assert faults(tmp_path)[0] == expected


@pytest.mark.malformed("csv")
def test_a_missing_column_is_named_with_what_was_found(tmp_path):
    root = planes_db(tmp_path, "a;1", header="Image_name;Patient_num")

    with pytest.raises(DataError, match="column 'Plane' is missing") as caught:
        FetalPlanesDb().list_images(root)
    assert [f.code for f in caught.value.findings] == ["D019"] * 5
    assert "'Image_name', 'Patient_num'" in caught.value.findings[0].message


@pytest.mark.malformed("csv")
def test_all_faults_of_a_file_are_collected_not_only_the_first(tmp_path):
    root = planes_db(
        tmp_path,
        BRAIN,
        BRAIN,
        "../etc;1;Fetal brain;Other;Op. 1;Aloka;1 ",
        ".hidden;x;Fetal brain;Other;Op. 1;Aloka;yes ",
        "Patient00009_Plane3_1_of_1;8;;Other;Op. 1;Aloka;1 ",
    )

    assert sorted(faults(root), key=str) == sorted(
        [
            ("D020", 3, "Image_name"),
            ("D021", 4, "Image_name"),
            ("D021", 5, "Image_name"),
            ("D022", 5, "Patient_num"),
            ("D022", 5, "Train"),
            ("D025", 6, "Patient_num"),
            ("D022", 6, "Plane"),
        ],
        key=str,
    )


@pytest.mark.malformed("csv")
@pytest.mark.parametrize("name", ["a/b", "a\\b", "..", ".x", "", "a\u202eb", "C:x", "x" * 201])
def test_a_name_that_could_leave_the_folder_or_mislead_is_refused(tmp_path, name):
    root = planes_db(tmp_path, f"{name};1;Fetal brain;Other;Op. 1;Aloka;1 ")

    found = faults(root)

    assert {row for _, row, _ in found} == {2}
    assert found[-1][2] == "Image_name"
    assert {code for code, _, _ in found} <= {"D021", "D023"}


@pytest.mark.malformed("csv")
def test_a_message_never_carries_control_characters_of_the_file(tmp_path):
    root = planes_db(tmp_path, "a\x1b[31mred;1;Fetal brain;Other;Op. 1;Aloka;1 ")

    with pytest.raises(DataError) as caught:
        FetalPlanesDb().list_images(root)
    assert str(caught.value).isprintable()
    assert "\\x1b" in str(caught.value)


@pytest.mark.malformed("csv")
def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "big.csv"
    path.write_bytes(b"a,b\n" + b"1,2\n" * 100)

    with pytest.raises(DataError, match="larger than 50 bytes"):
        read_strict(path, delimiter=",", required=("a",), max_bytes=50)


@pytest.mark.malformed("csv")
def test_a_hopeless_file_stops_at_the_limit_of_findings(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"a,b\n" + b"1\n" * (MAX_FINDINGS + 5))

    with pytest.raises(DataError) as caught:
        read_strict(path, delimiter=",", required=("a",))
    assert len(caught.value.findings) == MAX_FINDINGS


def test_line_numbers_count_lines_of_the_file_also_after_a_quoted_break(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'a,b\r\n"x\r\ny",1\r\n2\r\n')

    with pytest.raises(DataError) as caught:
        read_strict(path, delimiter=",", required=("a",))
    assert [(f.code, f.row) for f in caught.value.findings] == [("D023", 2), ("D016", 4)]


def test_the_published_hc18_layout_takes_the_examination_from_the_name(tmp_path):
    (tmp_path / "training_set").mkdir()
    root = hc18_published(tmp_path, "010_HC.png,0.1,200.5", "010_2HC.png,0.1,201")

    adapter = locate_data_set(root)[0]
    table = adapter.list_images(root).table

    assert adapter.name == "hc18"
    assert table["patient_id"].tolist() == ["10", "10"]
    assert table["path"].tolist() == ["training_set/010_HC.png", "training_set/010_2HC.png"]
    assert table["head_circumference_mm"].tolist() == [200.5, 201.0]
    assert table["plane"].tolist() == ["Fetal brain"] * 2
    assert table["brain_plane"].isna().all()
    assert table["official_partition"].isna().all()


def test_hc18_images_may_lie_beside_the_table(tmp_path):
    root = hc18_published(tmp_path, "010_HC.png,0.1,200.5")

    assert Hc18().list_images(root).table["path"].tolist() == ["010_HC.png"]


@pytest.mark.malformed("csv")
@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("010_HC_Annotation.png,0.1,200", "filename"),
        ("010_HC.png,nan,200", "pixel size(mm)"),
        ("010_HC.png,0,200", "pixel size(mm)"),
        ("010_HC.png,0.1,1_000", "head circumference (mm)"),
    ],
)
def test_an_hc18_value_that_is_no_measurement_is_refused(tmp_path, line, column):
    assert faults(hc18_published(tmp_path, line))[0][1:] == (2, column)


def african(root: Path, *lines: str) -> Path:
    header = "image_name,center,patient_num,plane,train,in_kit"
    (root / "metadata.csv").write_text("\n".join((header, *lines)) + "\n")
    return root


def test_the_same_number_in_two_centres_is_two_patients(tmp_path):
    root = african(tmp_path, "a,Algeria,01,Fetal brain,1,1", "b,Egypt,1,Fetal brain,0,0")

    table = AfricanPlanes().list_images(root).table

    assert table["patient_id"].tolist() == ["Algeria-1", "Egypt-1"]
    assert table["site"].tolist() == ["Algeria", "Egypt"]
    assert table["in_kit"].tolist() == [True, False]


def test_a_folder_marked_as_simulated_is_never_taken_for_patients(tmp_path):
    root = planes_db(tmp_path, BRAIN)
    (root / "phantom.json").write_text(json.dumps({"seed": 1}))

    adapter = locate_data_set(root)[0]

    assert isinstance(adapter, Phantom)
    assert not FetalPlanesDb().detects(root)
    assert adapter.info(root).is_simulated
    assert not FetalPlanesDb().list_images(root).info.is_simulated


@pytest.mark.parametrize("adapter", [FetalPlanesDb(), Hc18(), AfricanPlanes(), Phantom()])
def test_an_adapter_claims_no_empty_folder(tmp_path, adapter):
    assert not adapter.detects(tmp_path)


def test_an_unknown_folder_and_an_unknown_name_are_errors(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        locate_data_set(tmp_path / "none")[0]
    with pytest.raises(DataError, match="the folder is empty"):
        locate_data_set(tmp_path)[0]
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no known data set layout"):
        locate_data_set(tmp_path)[0]
    assert {"african-planes", "fetal-planes-db", "hc18", "phantom"} <= set(adapter_names())


def test_every_data_set_says_what_it_does_not_record_and_what_that_prevents(tmp_path):
    infos = [FetalPlanesDb().info(tmp_path), Phantom().info(tmp_path)]
    infos.append(Hc18().list_images(hc18_published(tmp_path, "010_HC.png,0.1,200.5")).info)
    infos.append(AfricanPlanes().list_images(african(tmp_path, "a,Egypt,1,Fetal brain,1,1")).info)

    for info in infos:
        wanted = {"parity", "date"}
        if not info.is_simulated:  # simulated patients have the others
            wanted |= {"gestational age", "maternal age", "ethnicity", "fetal sex"}
        assert wanted <= set(info.absent_attributes)
        assert all(len(why) > 20 for why in info.absent_attributes.values())
        assert info.licence
        assert info.split_unit_note


def kit(name: str) -> Listing:
    adapter = locate_data_set(KIT / name)[0]
    assert adapter.name == name.replace("_", "-")
    return adapter.list_images(KIT / name)


@needs_kit
def test_the_real_kits_are_detected_and_listed_whole():
    planes, heads, african_planes = kit("fetal_planes_db"), kit("hc18"), kit("african_planes")

    assert planes.metadata_sha256.startswith("18f8250244dd7ee3")
    assert (len(planes.table), planes.table["patient_id"].nunique()) == (12_400, 1_792)
    assert (len(heads.table), heads.table["patient_id"].nunique()) == (999, 806)
    assert heads.metadata_file == "metadata.csv"
    assert heads.info.split_unit == "examination"
    assert len(african_planes.table) == 450
    assert int(african_planes.table["in_kit"].sum()) == 125
    assert african_planes.table["official_partition"].value_counts().to_dict() == {
        "held-out test set": 233,
        "training": 217,
    }


@needs_kit
def test_the_resized_kit_and_the_published_table_list_the_same_heads(tmp_path):
    published = (KIT / "hc18" / "training_set_pixel_size_and_HC.csv").read_bytes()
    (tmp_path / "training_set_pixel_size_and_HC.csv").write_bytes(published)

    ours, theirs = kit("hc18").table, Hc18().list_images(tmp_path).table

    columns = ["image_id", "patient_id", "head_circumference_mm"]
    assert ours[columns].equals(theirs[columns])
    # 800 pixels became 320: each stored pixel covers 2.5 of the original's
    assert ours["pixel_size_mm"][0] == pytest.approx(theirs["pixel_size_mm"][0] * 2.5)


def test_an_unknown_adapter_name_lists_the_known_ones():

    with pytest.raises(SettingsError, match="unknown adapter 'hc19'; known are african-planes"):
        load_adapter("hc19")


def test_the_metadata_is_kept_whole_with_columns_that_no_adapter_knows(tmp_path):
    root = planes_db(tmp_path, BRAIN + ";  Black ;", FEMUR + ";;35", header=HEADER + ";Group;Age")

    listing = FetalPlanesDb().list_images(root)

    metadata = listing.metadata
    assert list(metadata.columns) == [*HEADER.strip().split(";"), "Group", "Age"]
    assert metadata["Train"].tolist() == ["1", "0"]
    assert metadata["Patient_num"].tolist() == ["0001", "2"]  # as written, not canonical
    assert metadata["Group"].tolist() == ["Black", ""]
    assert metadata["Age"].tolist() == ["", "35"]
    assert metadata["Image_name"].tolist() == listing.table["image_id"].tolist()
    assert tuple(listing.table.columns) == LISTING_COLUMNS


def test_both_hc18_layouts_and_the_african_set_give_their_metadata(tmp_path):
    published = Hc18().list_images(hc18_published(tmp_path, "010_HC.png,0.1,200.50"))
    planes = AfricanPlanes().list_images(african(tmp_path, "a,Egypt,01,Fetal brain,1,1"))

    assert published.metadata["head circumference (mm)"].tolist() == ["200.50"]
    assert planes.metadata["patient_num"].tolist() == ["01"]


@pytest.mark.malformed("csv")
def test_an_extra_column_may_not_be_named_like_another(tmp_path):
    root = planes_db(tmp_path, BRAIN + ";x", header=HEADER + "; Plane ")

    assert faults(root) == [("D018", 1, None)]


def test_a_registered_adapter_that_cannot_be_imported_is_one_sentence(monkeypatch):
    gone = EntryPoint("gone", "no_such_package.adapter:Adapter", "medisynth.data")
    monkeypatch.setattr("medisynth.data.adapters.entry_points", lambda **_: [gone])

    with pytest.raises(SettingsError, match=r"'gone' cannot be imported .*no_such_package"):
        load_adapter("gone")
