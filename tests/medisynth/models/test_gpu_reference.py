"""The prepared measurement of both generators: on a CPU, by two updates, and when time runs out."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medisynth.data.reading.views import ImageView
from medisynth.metrics.features import InceptionPool3
from tests.benchmarks import gpu_reference
from tests.benchmarks.gpu_reference import (
    GENERATORS,
    Training,
    main,
    preset_settings,
    stage_lengths,
    with_steps,
)


class MeanAndSpread:
    """Two features that cost nothing, in place of the FID network's."""

    name, n_features, weights_sha256, resize = "mean_and_spread", 2, "a" * 64, "none"

    def extract(self, pixels, progress=None):
        flat = np.asarray(pixels, np.float64).reshape(len(pixels), -1)
        return np.stack([flat.mean(axis=1), flat.std(axis=1)], axis=1)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    asked = ["--preset", "smoke", "--steps", "2", "--patients", "16", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_reference, "find_weights", lambda: Path("weights.safetensors"))
        patch.setattr(InceptionPool3, "load", lambda *args, **more: MeanAndSpread())
        assert main([*asked, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def view():
    def make(partition: str, n: int, size: int = 32) -> ImageView:
        pixels = np.random.default_rng(n).integers(0, 256, (n, size, size), dtype=np.uint8)
        names = tuple(f"{partition}{k}" for k in range(n))
        return ImageView(partition, pixels, names, names, ("",) * n, ("",) * n)

    return make


def test_both_generators_are_trained_measured_and_drawn(out):
    found = json.loads((out / "gpu_reference.json").read_text("utf-8"))

    assert [figures["generator"] for figures in found["generators"]] == list(GENERATORS)
    for figures in found["generators"]:
        full = stage_lengths(preset_settings("smoke", figures["generator"]))
        assert [stage["updates"] for stage in figures["stages"]] == [2] * len(full)
        assert [stage["full_updates"] for stage in figures["stages"]] == list(full)
        for stage in figures["stages"]:
            hours = stage["full_updates"] / stage["updates_per_s"] / 3600
            assert stage["projected_hours"] == pytest.approx(hours)
            assert stage["losses"]
        compared = figures["comparison"]
        assert [control["name"] for control in compared["controls"]] == ["pca", "blur"]
        assert compared["value"] is not None
        with Image.open(out / figures["sheet"]) as sheet:
            assert sheet.size[0] > 8 * 128


def test_the_table_has_a_row_for_every_stage(out):
    text = (out / "gpu_reference.md").read_text("utf-8")

    for name in GENERATORS:
        n_stages = len(stage_lengths(preset_settings("smoke", name)))
        assert text.count(f"| {name} |") == n_stages
        assert f"samples in {name}.png" in text


@pytest.mark.parametrize("name", GENERATORS)
def test_a_stage_whose_time_is_over_ends_after_one_more_update(name, view):
    values = preset_settings("smoke", name)
    n_stages = len(stage_lengths(values))
    reads = iter(range(1_000_000))  # a clock that goes on by one with every look
    ends = tuple(4.5 * (place + 1) for place in range(n_stages))
    work = Training(name, values, "cpu", ends, now=lambda: float(next(reads)))

    generator, report = work.fit(view("training", 20), view("tuning", 8))

    full = stage_lengths(values)
    assert all(stage.n_steps < n for stage, n in zip(report.stages, full, strict=True))
    assert len(report.stages) == n_stages
    assert generator.state()


def test_stages_that_share_a_section_make_as_many_updates(view):
    values = preset_settings("smoke", "dsr-gan")
    values["super_resolution"]["to"] = 4 * values["diffusion"]["size"]
    reads = iter(range(1_000_000))
    work = Training("dsr-gan", values, "cpu", (4.5, 9.5), now=lambda: float(next(reads)))

    _, report = work.fit(view("training", 20, 64), view("tuning", 8, 64))

    first, *doublings = report.stages
    assert first.n_steps < values["diffusion"]["steps"]
    assert len({stage.n_steps for stage in doublings}) == 1
    assert doublings[0].n_steps < values["super_resolution"]["steps"]


def test_fewer_updates_bring_a_warm_up_that_fits():
    values = {"a": {"steps": 9, "warm_up_steps": 5}, "parts": [{"steps": 7}, {"steps": 8}]}

    assert stage_lengths(values) == (9, 7, 8)
    changed = with_steps(values, 0, 3)
    assert changed["a"] == {"steps": 3, "warm_up_steps": 2}
    assert stage_lengths(with_steps(changed, 2, 1)) == (3, 7, 1)
    assert values["a"]["steps"] == 9
