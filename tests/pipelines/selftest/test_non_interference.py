"""The proof that test pixels have no influence, and what must make it fail."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from governance.sealing.seal import Leaf
from medisynth.data.phantom import PhantomSettings
from pipelines.cli.app import app
from pipelines.current_run.console import Console
from pipelines.selftest import non_interference
from pipelines.selftest.non_interference import (
    Comparison,
    NonInterference,
    compare,
    prove,
    replace_by_noise,
)
from pipelines.steps import s4_split, s5_train

PCA = "tests.plugins.pca_gaussian:PcaGaussian"
FEW = PhantomSettings(
    n_patients=12, machines=("Voluson E6",), max_images_per_patient=2, image_height_px=64
)
SAME = {"training view": "a", "checkpoint": "b", "sealed test set": "c"}


def leaf(name: str, pixels: np.ndarray, content: int) -> Leaf:
    none = dict.fromkeys(("patient", "plane", "brain_plane", "operator", "machine"))
    height, width = pixels.shape[:2]
    return Leaf(
        id=name,
        path=f"{name}.png",
        file_sha256="0" * 64,
        pixel_sha256=f"{content:064x}",
        width=width,
        height=height,
        **none,
    )


def unequal(proof: NonInterference) -> set[str]:
    return {row.what for one in proof.comparisons for row in one.rows if not row.holds}


def test_all_must_be_equal_but_the_sealed_test_set():
    def holds(**noise: str) -> bool:
        rows = compare(SAME, {**SAME, **{k.replace("_", " "): v for k, v in noise.items()}})
        return Comparison(0, "m", 3, rows, "", 1.0).holds

    assert holds(sealed_test_set="x")
    assert not holds()  # the test set is the same: nothing was replaced
    assert not holds(sealed_test_set="x", training_view="y")
    assert not holds(sealed_test_set="x", checkpoint="y")


def test_nothing_compared_and_a_fault_prove_nothing():
    rows = compare(SAME, {**SAME, "sealed test set": "x"})
    sound = Comparison(0, "m", 3, rows, "", 1.0)

    assert NonInterference((sound,)).exit_code == 0
    assert NonInterference(()).exit_code == 4
    assert NonInterference((sound, replace(sound, rows=()))).exit_code == 4
    assert NonInterference((sound, replace(sound, fault="it stopped"))).exit_code == 4
    assert "1 of 2 comparisons hold" in NonInterference((sound, replace(sound, rows=()))).text


def test_noise_keeps_name_size_and_mode_and_equal_images_stay_equal(tmp_path):
    frames = {"a": (5, 7), "b": (5, 7), "c": (4, 4, 3)}
    for name, shape in frames.items():
        Image.fromarray(np.full(shape, 9, np.uint8)).save(tmp_path / f"{name}.png")
    content = {"a": 1, "b": 1, "c": 2}
    leaves = [leaf(n, np.zeros(shape), content[n]) for n, shape in frames.items()]

    replace_by_noise(tmp_path, leaves, seed=3)

    found = {name: np.asarray(Image.open(tmp_path / f"{name}.png")) for name in frames}
    assert {name: pixels.shape for name, pixels in found.items()} == frames
    assert all(pixels.std() > 40 for pixels in found.values())
    np.testing.assert_array_equal(found["a"], found["b"])
    assert (found["c"][..., 0] == found["c"][..., 2]).all()  # grey stays grey
    assert not (found["c"][..., 0] == found["a"][:4, :4]).all()


def test_a_seed_that_comes_from_a_test_pixel_is_found_and_ends_with_exit_4(tmp_path, monkeypatch):
    """The views are the same; what is learnt and drawn is not."""
    honest = s5_train._job

    def leaking(must_refuse, context):
        sealed = Path(must_refuse["sealed image"]).read_bytes()
        return honest(must_refuse, context).model_copy(update={"seed": sum(sealed)})

    monkeypatch.setattr(s5_train, "_job", leaking)
    monkeypatch.setattr(non_interference, "_PATIENTS", FEW)
    options = ["--non-interference", "--seeds", "1", "--model", PCA, "--out", str(tmp_path)]

    result = CliRunner().invoke(app, ["selftest", *options, "--json"])

    assert result.exit_code == 4, result.output
    facts = json.loads(result.stdout)
    assert facts == json.loads((tmp_path / "non_interference.json").read_bytes())
    (one,) = facts["comparisons"]
    assert [row["what"] for row in one["rows"] if not row["holds"]] == ["synthetic images"]
    assert not facts["holds"]
    assert one["fault"] == ""  # training itself is repeatable, so it was the test pixels


def with_leak(monkeypatch: pytest.MonkeyPatch, change: Callable) -> None:
    honest = s4_split._view

    def leaking(images, partition, name):
        view = honest(images, partition, name)
        return replace(view, pixels=change(images, partition, view))

    monkeypatch.setattr(s4_split, "_view", leaking)


@pytest.mark.slow
def test_pixels_scaled_by_a_statistic_of_all_images_are_found(monkeypatch):
    with_leak(
        monkeypatch,
        lambda images, partition, view: (view.pixels * (100 / images.pixels.mean())).astype("u1"),
    )

    proof = prove(Console(), seeds=[0], models=[PCA], patients=FEW)

    assert {"training view", "tuning view", "fitted statistics", "checkpoint"} <= unequal(proof)
    assert proof.exit_code == 4


@pytest.mark.slow
def test_one_test_pixel_in_the_tuning_view_is_found(monkeypatch):
    def change(images, partition, view):
        pixels = view.pixels.copy()
        if view.partition == "tuning":
            test = partition.index[partition == "held-out test set"]
            pixels[0, 0, 0] = images.pixels[images.table.index.get_indexer(test)[0], 16, 16]
        return pixels

    with_leak(monkeypatch, change)

    proof = prove(Console(), seeds=[0], models=[PCA], patients=FEW)

    assert "tuning view" in unequal(proof)
    assert "training view" not in unequal(proof)


@pytest.mark.slow
def test_noise_that_changes_nothing_proves_nothing(monkeypatch):
    monkeypatch.setattr(non_interference, "replace_by_noise", lambda *_: None)

    proof = prove(Console(), seeds=[0], models=[PCA], patients=FEW)

    assert proof.exit_code == 4
    assert unequal(proof) == {"sealed test set"}
    assert "kept their pixels, so nothing is proved" in proof.comparisons[0].fault


@pytest.mark.slow
def test_exact_copies_in_the_test_set_tie_the_same_patients_under_noise():
    patients = replace(FEW, n_patients=16, leaks=("duplicate-other-patient",))

    proof = prove(Console(), seeds=[0, 1], models=[PCA], patients=patients)

    assert proof.holds, proof.text


@pytest.mark.slow
def test_a_generator_of_somebody_elses_has_no_influence_either():
    proof = prove(Console(), seeds=[0], models=[PCA], patients=FEW)

    assert proof.holds, proof.text
    assert proof.comparisons[0].n_test_images > 0
