"""Folders of an assessment: what is laid out, and what is refused before anything is written."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from governance.records.errors import ConfigError, DataError
from medisynth.data.adapters.assessed import FACTS, TABLE, Assessed
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.assess import Asked, assessment_config
from pipelines.cli.app import app


def images(folder: Path, n: int, seed: int, size=(40, 40), ending="png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for k in range(n):
        pixels = random.integers(0, 255, (size[1], size[0]), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:03d}.{ending}")
    return folder


@pytest.fixture
def folders(tmp_path):
    return {
        "real": images(tmp_path / "real", 20, 1),
        "synthetic": images(tmp_path / "synthetic", 20, 2),
        "training": images(tmp_path / "training", 20, 3),
    }


def config(tmp_path, **asked):
    return assessment_config(Asked(workspace=str(tmp_path / "ws"), **asked))


def listed(found):
    return Assessed().list_images(found.data.folder)


def test_plain_folders_become_one_table_with_training_and_held_out_images(tmp_path, folders):
    found = config(tmp_path, **folders)

    table = listed(found).table
    assert table["official_partition"].value_counts().to_dict() == {
        "training": 20,
        "held-out test set": 20,
    }
    assert table["patient_id"].is_unique
    assert (found.split.source, found.split.tuning_from) == ("official", "held-out")
    assert found.model.settings["size"] == 40
    assert found.evaluation.n_synthetic == 20
    facts = json.loads((found.data.folder / FACTS).read_bytes())
    assert facts["split_unit"] == "image"
    assert "No patient is recorded" in facts["split_unit_note"]


def test_without_training_images_the_real_ones_are_halved_by_patient(tmp_path, folders):
    found = config(tmp_path, real=folders["real"], synthetic=folders["synthetic"])

    assert listed(found).table["official_partition"].isna().all()
    assert (found.split.source, found.split.test_fraction) == ("computed", 0.5)
    assert not found.model.settings["has_training"]


def test_a_known_data_set_keeps_patients_planes_and_facts(tmp_path, folders):
    write_phantoms(tmp_path / "phantoms", PhantomSettings(n_patients=6, image_height_px=64))
    found = config(tmp_path, real=tmp_path / "phantoms", synthetic=folders["synthetic"])

    table = listed(found).table
    assert table["patient_id"].nunique() == 6
    assert table["brain_plane"].notna().all()
    assert json.loads((found.data.folder / FACTS).read_bytes())["is_simulated"]


def test_numbers_of_two_data_sets_are_of_two_patients_and_an_unknown_patient_stays_unknown(
    tmp_path, folders
):
    write_phantoms(tmp_path / "phantoms", PhantomSettings(n_patients=6, image_height_px=64))
    found = config(tmp_path, **folders | {"real": tmp_path / "phantoms"})

    table = listed(found).table
    sides = table.groupby("patient_id")["official_partition"].nunique()
    assert (sides == 1).all()
    assert json.loads((found.data.folder / FACTS).read_bytes())["split_unit"] == "image"


def test_the_same_images_are_laid_out_once_and_nothing_is_written_to_what_was_given(
    tmp_path, folders
):
    before = {p: p.stat().st_mtime_ns for f in folders.values() for p in (f, *f.iterdir())}
    one = config(tmp_path, **folders).data.folder
    written = (one / TABLE).stat().st_mtime_ns
    other = config(tmp_path, **folders).data.folder

    assert one == other
    assert (one / TABLE).stat().st_mtime_ns == written
    assert before == {p: p.stat().st_mtime_ns for f in folders.values() for p in (f, *f.iterdir())}


@pytest.mark.parametrize(
    ("key", "make", "error", "said"),
    [
        ("real", lambda p: p / "absent", DataError, "--real: .*absent: no such folder"),
        ("real", lambda p: (p / "e").mkdir() or p / "e", DataError, "the folder is empty"),
        ("synthetic", lambda p: images(p / "few", 3, 5), DataError, "found 3 images, .* 16"),
        (
            "synthetic",
            lambda p: images(p / "jpegs", 20, 5, ending="jpg"),
            DataError,
            "20 files are no PNG image, first 000.jpg .a JPEG image",
        ),
        (
            "real",
            lambda p: images(p / "jpegs", 20, 5, ending="jpg"),
            DataError,
            "20 files are no PNG image",
        ),
        (
            "synthetic",
            lambda p: images(images(p / "mixed", 20, 5), 10, 6, size=(50, 40)),
            ConfigError,
            "images of 2 sizes .*give --size",
        ),
        ("synthetic", lambda p: p / "real", ConfigError, "is the same folder as"),
        ("training", lambda p: p / "real", ConfigError, "is the same folder as"),
    ],
)
def test_folders_that_cannot_be_assessed_are_refused_in_one_sentence(
    tmp_path, folders, key, make, error, said
):
    with pytest.raises(error, match=said):
        config(tmp_path, **folders | {key: make(tmp_path)})
    assert not (tmp_path / "ws").exists()


def test_images_of_two_sizes_are_brought_to_the_size_asked_for(tmp_path, folders):
    mixed = images(images(tmp_path / "mixed", 20, 5), 10, 6, size=(50, 40))

    found = config(tmp_path, **folders | {"synthetic": mixed}, size=32)

    assert found.model.settings["size"] == 32


def test_a_file_that_is_no_image_is_named(tmp_path, folders):
    (folders["synthetic"] / "007.png").write_bytes(b"no image")

    with pytest.raises(DataError, match=r"007\.png: cannot be read as PNG"):
        config(tmp_path, **folders)


def test_the_workspace_may_not_lie_in_a_folder_that_was_given(tmp_path, folders):
    with pytest.raises(ConfigError, match="nothing is written to"):
        assessment_config(Asked(workspace=str(folders["real"] / "ws"), **folders))


def test_the_command_prints_one_line_and_its_code(tmp_path, folders):
    result = CliRunner().invoke(
        app,
        ["assess", "--real", str(tmp_path / "absent"), "--synthetic", str(folders["synthetic"])],
    )

    assert result.exit_code == 3
    assert result.stderr.startswith("error[D001] --real:")
    assert "Traceback" not in result.output


def test_real_images_of_a_dataset_yaml_are_read_by_its_conversions(tmp_path):
    from medisynth.data.adapters.propose import begin

    real, synthetic = tmp_path / "real", tmp_path / "synthetic"
    for folder, ending in ((real, "jpg"), (synthetic, "png")):
        folder.mkdir()
        for number in range(16):
            pixels = np.full((64, 64), number, np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.{ending}")
    rows = "".join(f"{number}.jpg,{number}\n" for number in range(16))
    (real / "t.csv").write_text(f"file,patient\n{rows}")
    begin(real)

    asked = Asked(real=real, synthetic=synthetic, workspace=str(tmp_path / "w"))
    config = assessment_config(asked)

    assert config.data.convert.read == ("jpeg",)
