"""Further extractors from the training process to the record: digest, order, and faults of code."""

import io

import numpy as np
import pytest
import torch

from governance.records.base import ItemStatus
from governance.records.errors import EvidenceTamperedError
from medisynth.metrics.extractors import PixelPca
from pipelines.current_run.console import Console
from pipelines.current_run.context import TrainedGenerator
from pipelines.selftest.bench import Bench
from pipelines.steps import further_extractors
from pipelines.steps.fidelity import TestImages
from pipelines.training.extractors import fit_extractors
from pipelines.training.parent import EXTRACTOR


class Context:
    seed = 0

    @staticmethod
    def should_stop():
        return False

    @staticmethod
    def progress(*_):
        return None


class FailsToFit(PixelPca):
    def fit(self, *_):
        raise RuntimeError("no such layer")


class Infinite(PixelPca):
    training_data, overlap = "everything", "unknown"

    def extract(self, pixels):
        return np.full((len(pixels), self.n_features), np.inf)


@pytest.fixture
def run(tmp_path):
    bench = Bench(tmp_path, Console(stream=io.StringIO()))
    settings = {"evaluation__extractor": "inception", "evaluation__n_bootstrap": 50}
    run = bench.new_run(bench.data_of_many, **settings)
    run.prepare()
    return run


def measured(run, *, spoil=None, is_apart=True):
    """Fit as the training process does, then measure tuning images as the opened test set."""
    context, split = run.context, run.split
    work = context.scratch / "work"
    work.mkdir(exist_ok=True)
    fit_extractors(further_extractors.wanted(context), work, split.training, split.tuning, Context)
    further_extractors.put_on_record(context)
    if spoil is not None:
        spoil(work)
    tuning = split.tuning
    test = Stand(tuning)
    synthetic = np.asarray(split.training.pixels)[::-1].copy()
    trained = TrainedGenerator("", "", synthetic, ())
    found = further_extractors.measure(trained, split, test, is_apart, context)
    return {one.name: one for one in found}


class Stand(TestImages):
    """Tuning images in place of the opened test set."""

    __test__ = False

    def __init__(self, view):
        names = tuple(zip(view.image_ids, view.patient_ids, strict=True))
        object.__setattr__(self, "leaves", tuple(Leaf(*name) for name in names))
        object.__setattr__(self, "pixels", np.asarray(view.pixels))
        object.__setattr__(self, "has_mark", (False,) * len(names))


class Leaf:
    def __init__(self, name, patient):
        self.id, self.patient = name, patient


def test_every_extractor_has_its_digest_kid_floor_and_controls(run):
    found = measured(run)

    assert set(found) == {"domain", "pixel-pca"}
    for one in found.values():
        assert one.title, one.metric.reason
        assert len(one.sha256) == 64
        assert one.overlap == "none known"
        assert one.trained_on == "this run's training images"
        assert {c.name for c in one.controls} >= {"pca", "blur", "copycat", "black"}
        assert one.metric.extractor_sha256 == one.sha256
        assert one.metric.status is ItemStatus.RECORDED or "misbehave" in one.metric.reason


def test_an_extractor_fitted_to_test_images_says_so(run):
    assert {one.overlap for one in measured(run, is_apart=False).values()} == {"known"}


def test_a_changed_extractor_stops_the_evaluation(run):
    def spoil(work):
        file = work / EXTRACTOR.format("pixel-pca")
        file.write_bytes(file.read_bytes()[:-1] + b"\x00")

    with pytest.raises(EvidenceTamperedError):
        measured(run, spoil=spoil)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (FailsToFit, "fitting failed with RuntimeError: no such layer"),
        (Infinite, "a feature is not finite"),
    ],
)
def test_a_faulty_extractor_leaves_its_kid_not_evaluated(run, monkeypatch, kind, reason):
    for place in ("pipelines.training.extractors", "pipelines.steps.further_extractors"):
        monkeypatch.setattr(f"{place}.load_extractor", lambda _: kind())
    found = measured(run)["domain"]

    assert found.metric.value is None
    assert found.metric.status is ItemStatus.NOT_EVALUATED
    assert reason in found.metric.reason


def test_nothing_is_fitted_where_fidelity_is_turned_off(tmp_path):
    bench = Bench(tmp_path, Console(stream=io.StringIO()))
    assert further_extractors.wanted(bench.new_run(bench.data_of_many).context) == ()


def test_torch_global_randomness_is_left_alone(run):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    fit_extractors(
        ("domain",),
        run.context.scratch,
        run.split.training,
        run.split.tuning,
        Context,
    )
    assert torch.equal(torch.rand(1), expected)
