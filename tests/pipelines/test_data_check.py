import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.cli import app

KIT = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_kit = pytest.mark.skipif(not KIT.is_dir(), reason="the real data kit is not here")
runner = CliRunner()


def test_a_sound_data_set_is_exit_0_with_its_digest(tmp_path):
    write_phantoms(tmp_path / "data", PhantomSettings(n_patients=12, image_height_px=80))

    result = runner.invoke(app, ["data", "check", str(tmp_path / "data"), "--json"])

    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["listing"]["n_patients"] == 12
    assert len(facts["dataset"]["content_sha256"]) == 64
    assert facts["duplicates"]["n_pairs"] == 0


def test_a_planted_duplicate_across_the_split_is_exit_4_and_named(tmp_path):
    settings = PhantomSettings(
        n_patients=12, image_height_px=80, leaks=("duplicate-other-patient",)
    )
    report = write_phantoms(tmp_path / "data", settings)

    result = runner.invoke(app, ["data", "check", str(tmp_path / "data")])

    assert result.exit_code == 4, result.output
    for name in report.leaks[0].images:
        assert name in result.stdout


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    write_phantoms(tmp_path / "data", PhantomSettings(n_patients=10, image_height_px=80))
    before = sorted((tmp_path / "data").rglob("*"))
    monkeypatch.chdir(tmp_path)

    runner.invoke(app, ["data", "check", "data"])

    assert sorted((tmp_path / "data").rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@needs_kit
def test_the_real_table_alone_gives_the_published_numbers(tmp_path):
    table = KIT / "fetal_planes_db" / "FETAL_PLANES_DB_data.csv"
    (tmp_path / table.name).write_bytes(table.read_bytes())

    result = runner.invoke(app, ["data", "check", str(tmp_path)])

    assert result.exit_code == 3  # no image is there
    assert "12,400 rows, 1,792 patients" in result.stdout
    assert "official training: 7,129 images, 896 patients" in result.stdout
    assert "official held-out test set: 5,271 images, 896 patients" in result.stdout
    line = next(t for t in result.stdout.splitlines() if "Voluson S10" in t)
    assert "1,071 (90)" in line
    assert "11 (1)" in line


@needs_kit
def test_the_african_set_has_ten_exact_pairs_five_across_the_split():
    result = runner.invoke(app, ["data", "check", str(KIT / "african_planes")])

    assert result.exit_code == 4
    assert "pairs of identical images: 10, 10 under different patients, 5 across" in result.stdout
