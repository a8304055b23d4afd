"""What lies in a data folder and is not read is said once a kind, with a count."""

from pathlib import Path

import pandas as pd

from medisynth.data.adapters.fetal_planes_db import FetalPlanesDb
from medisynth.data.adapters.hc18 import Hc18
from medisynth.data.adapters.unread import find_unread
from medisynth.data.audit.coverage import classes_not_trained, coverage
from tests.medisynth.data.adapters.test_layout import picture, planes
from tests.medisynth.data.image_tables import sound


def test_unlisted_images_stray_files_and_unknown_columns_are_one_line_each_with_a_count(
    tmp_path: Path,
):
    root = planes(tmp_path / "data", "a", "b")
    table = root / "FETAL_PLANES_DB_data.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{lines[0]};Ward;Bed", *(f"{x};1;2" for x in lines[1:])]) + "\n")
    picture(root / "Images" / "c.png")
    (root / "stray").mkdir()
    for k in range(2000):
        (root / "stray" / f"{k:04d}.png").touch()
    for usual in ("README.md", ".DS_Store", "fetched.json"):
        (root / usual).touch()
    adapter = FetalPlanesDb()

    found = find_unread(
        root, adapter.list_images(root), adapter, files=["fetched.json"], columns=["Bed"]
    )

    assert found.sentences("t.csv") == (
        "1 image that t.csv does not list: 'Images/c.png'",
        "2,000 files that nothing reads: 'stray/0000.png', 'stray/0001.png', 'stray/0002.png', …",
        "1 column of t.csv that nothing reads: 'Ward'",
    )


def test_masks_that_the_publisher_puts_beside_the_images_are_no_stray_files(tmp_path: Path):
    picture(tmp_path / "training_set" / "010_HC.png")
    picture(tmp_path / "training_set" / "010_HC_Annotation.png")
    (tmp_path / "training_set_pixel_size_and_HC.csv").write_text(
        "filename,pixel size(mm),head circumference (mm)\n010_HC.png,0.1,200\n"
    )

    found = find_unread(tmp_path, Hc18().list_images(tmp_path), Hc18())

    assert found.sentences("t.csv") == ()


def test_a_class_without_an_image_in_training_is_said_with_its_count():
    table = sound(6)  # planes Other and Fetal brain by turns
    partition = pd.Series(
        ["training" if plane == "Other" else "tuning" for plane in table["plane"]],
        index=table.index,
    )

    told = classes_not_trained(coverage(table, partition))

    assert told == (
        "plane Fetal brain: none of its 3 images is in training",
        "brain_plane Trans-thalamic: none of its 3 images is in training",
    )
    assert classes_not_trained(coverage(table, None)) == ()
