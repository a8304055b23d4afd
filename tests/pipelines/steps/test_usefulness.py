"""Classifiers from the training process to the record: digest, labels, and why there are none."""

import io

import numpy as np
import pytest

from governance.records.errors import EvidenceTamperedError
from governance.records.utility import ADDED, MACRO_F1, REAL
from pipelines.current_run.console import Console
from pipelines.selftest.bench import Bench
from pipelines.steps import usefulness
from pipelines.training import child
from pipelines.training.messages import TrainingJob
from pipelines.training.parent import CLASSIFIERS


class Brightness:
    """Features of a few pixels in place of a network's."""

    name, weights_sha256 = "brightness", "0" * 64

    def __init__(self, inception: object) -> None: ...

    def __call__(self, pixels):
        return pixels[:, ::4, ::4].reshape(len(pixels), -1).astype(np.float32)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A prepared run on phantoms of three brain planes, whose work folder holds classifiers."""
    for place in ("medisynth.utility.fitting", "pipelines.steps.usefulness"):
        monkeypatch.setattr(f"{place}.TaskFeatures", Brightness)
    monkeypatch.setattr("pipelines.steps.usefulness.find_weights", lambda: tmp_path / "weights")
    bench = Bench(tmp_path, Console(stream=io.StringIO()))
    settings = {"evaluation__extractor": "inception", "evaluation__utility": True}
    run = bench.new_run(bench.data_of_many, **settings)
    run.prepare()
    return run


def fitted(run, images):
    """Do what the training process does after it drew its images."""
    context, split = run.context, run.split
    work = context.scratch / "work"
    work.mkdir(exist_ok=True)
    job = TrainingJob.model_validate_json(
        TrainingJob(
            generator="none",
            settings={},
            seed=0,
            compute_device="cpu",
            views="",
            checkpoints="",
            work=str(work),
            n_synthetic=len(images),
            must_refuse={},
            forbidden=(),
            commit_every=1,
            preview_every=0,
            processes=1,
            repeat_steps=0,
            task_images=usefulness.wanted(context),
        ).model_dump_json()
    )

    class Context:
        compute_device = "cpu"

        @staticmethod
        def should_stop():
            return False

        @staticmethod
        def progress(*_):
            return None

    child._fit_classifiers(job, split.training, split.tuning, {}, images, object(), Context)
    usefulness.put_on_record(context)


def judged(run):
    """Judge on all images of the run that neither view holds."""
    images, split = run.images, run.split
    seen = {*split.training.image_ids, *split.tuning.image_ids}
    rows = [k for k, name in enumerate(images.table["image_id"]) if name not in seen]
    names = images.table["image_id"].iloc[rows]
    levels = {
        attribute: [by_image.get(name, "") for name in names]
        for attribute, by_image in split.levels.items()
    }
    patients = [str(x) for x in images.table["patient_id"].iloc[rows]]
    return usefulness.judge(images.pixels[rows], patients, levels, run.context, extractor=object())


def test_classifiers_of_the_training_process_are_judged_on_held_out_patients(run):
    fitted(run, np.asarray(run.split.training.pixels[:20]))

    record = judged(run)

    assert record.attribute == "brain_plane"
    assert record.arm(REAL).n_real > 0
    assert record.arm(ADDED).measure(MACRO_F1).difference is not None
    assert record.extractor == "brightness"
    assert "given by the classifier of real images" in record.labels_from


def test_classifiers_that_were_changed_are_found(run):
    fitted(run, np.asarray(run.split.training.pixels[:20]))
    path = run.context.scratch / "work" / CLASSIFIERS
    path.write_bytes(path.read_bytes() + b"\0")

    with pytest.raises(EvidenceTamperedError, match="classifiers"):
        judged(run)


def test_without_classifiers_the_reason_is_on_record_or_nothing_where_none_was_wanted(run):
    assert "training.selection" in judged(run).reason
    off = run.context.config.model_copy(
        update={"evaluation": run.context.config.evaluation.model_copy(update={"utility": False})}
    )
    object.__setattr__(run.context, "config", off)
    assert judged(run) is None
