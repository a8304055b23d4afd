"""A selection names planes that exist, and a missing image is never passed over."""

from pathlib import Path

import pytest

from governance.records.errors import DataError, SettingsError
from medisynth.data.adapters import DatasetInfo, Listing
from medisynth.data.adapters.fetal_planes_db import FetalPlanesDb
from medisynth.data.adapters.listing_table import listing_table
from medisynth.data.adapters.selection import missing_images, missing_images_error, select_planes
from tests.places import KIT

needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real images are not beside this copy")

ROWS = (
    ("a", "Fetal brain", "Trans-thalamic"),
    ("b", "Fetal brain", "Other"),
    ("c", "Other", None),
    ("d", "Fetal femur", None),
)


def listing(rows: tuple[tuple[str, str, str | None], ...] = ROWS) -> Listing:
    info = DatasetInfo("test", "Test", "", "", "", "")
    table = listing_table(
        {
            "image_id": [row[0] for row in rows],
            "path": [f"Images/{row[0]}.png" for row in rows],
            "patient_id": [row[0] for row in rows],
            "plane": [row[1] for row in rows],
            "brain_plane": [row[2] for row in rows],
            "row": list(range(2, len(rows) + 2)),
        }
    )
    return Listing(info, table, "table.csv", "0" * 64)


@pytest.mark.parametrize(
    ("planes", "expected"),
    [
        ("default", "ab"),
        ("all", "abcd"),
        ("fetal BRAIN", "ab"),
        ("trans-thalamic", "a"),
        (["Trans-thalamic", "Fetal femur"], "ad"),
        ("Other", "c"),  # a plane goes before a brain plane of the same name
    ],
)
def test_planes_are_chosen_by_name_whatever_the_case(planes, expected):
    chosen = select_planes(listing(), planes)

    assert "".join(chosen["image_id"]) == expected
    assert chosen.index.tolist() == list(range(len(expected)))


def test_an_unknown_plane_lists_the_known_ones_with_their_counts():
    with pytest.raises(SettingsError) as caught:
        select_planes(listing(), ["Fetal brain", "brain"])

    assert "unknown plane 'brain'" in str(caught.value)
    assert "Fetal brain (2), Fetal femur (1), Other (1)" in str(caught.value)
    assert "Trans-thalamic (1)" in str(caught.value)


def test_a_data_set_without_its_default_planes_is_an_error_not_an_empty_run():
    with pytest.raises(DataError, match="no image of the default planes"):
        select_planes(listing(ROWS[2:]), "default")
    with pytest.raises(SettingsError, match="no plane is named"):
        select_planes(listing(), [])


def folder(root: Path, names: str) -> Path:
    (root / "Images").mkdir()
    for name in names:
        (root / "Images" / f"{name}.png").touch()
    return root


def test_missing_images_are_told_by_name_on_the_tables_own_index(tmp_path):
    table = listing().table.iloc[[3, 0, 1]]

    missing = missing_images(folder(tmp_path, "ab"), table)

    assert missing.to_dict() == {3: True, 0: False, 1: False}
    assert missing_images(tmp_path / "none", table).all()


def test_the_error_counts_over_the_whole_listing_and_names_each_line(tmp_path):
    table = listing().table
    missing = missing_images(folder(tmp_path, "ad"), table)

    error = missing_images_error(tmp_path, table, missing, metadata_file="table.csv")

    assert "2 of 4 listed images are missing" in str(error)
    assert [(f.where, f.row) for f in error.findings] == [("table.csv", 3), ("table.csv", 4)]


@needs_kit
def test_the_partial_real_folder_names_12_280_missing_images():
    root = KIT / "fetal_planes_db"
    whole = FetalPlanesDb().list_images(root)
    missing = missing_images(root, whole.table)

    error = missing_images_error(root, whole.table, missing, metadata_file=whole.metadata_file)

    assert "12,280 of 12,400 listed images are missing" in str(error)
    assert len(error.findings) == 12_280
    assert len(select_planes(whole, "default")) == 3_092
