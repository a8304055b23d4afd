"""Plants against isolation: early reads of the test set, and test images in training."""

from dataclasses import replace

import numpy as np

from governance.confinement.confine import attempt_read
from governance.records.base import TEST
from governance.records.partition import IsolationRecord
from governance.records.selftest import GuardAnswer
from medisynth.data.reading.views import ImageView, save_view
from pipelines.selftest.bench import (
    LEAKAGE,
    LONGER,
    TRAINS,
    Answers,
    Bench,
    Plant,
    SmallRun,
    silent,
    stopped_by,
)
from pipelines.selftest.generator import TEST_VIEW, joined

CONFINEMENT = "confinement"
_BROKEN_ISOLATION = "G020"  # code of an isolation that is broken or not shown
# A file that every confined process may read; stands for a hole in the confinement.
_LET_THROUGH = {"device that may be read": "/dev/zero"}


def early_read(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a training process tries to read sealed image, vault and key."""
    if is_planted:
        return (_confinement(bench.control),)
    # Control: a file that may be read. That this stops the run is tested by the next plant.
    stopped_by(_BROKEN_ISOLATION, lambda: bench.prepared.prove_isolation(_LET_THROUGH))
    return (_confinement(bench.prepared),)


def open_confinement(bench: Bench, is_planted: bool) -> Answers:
    """Plant: list a readable device as forbidden, so that the isolation proof must fail."""
    if not is_planted:
        return stopped_by(_BROKEN_ISOLATION, lambda: bench.control)
    return stopped_by(_BROKEN_ISOLATION, lambda: bench.prepared.prove_isolation(_LET_THROUGH))


def _confinement(run: SmallRun) -> GuardAnswer:
    """Return the confinement's answer: an alarm when every attempt was refused."""
    isolation = run.folder.need(IsolationRecord)
    words = ", ".join(
        f"{attempt.target}: {attempt.error or 'read'}" for attempt in isolation.attempts
    )
    if not isolation.attempts or not all(attempt.refused for attempt in isolation.attempts):
        return silent(CONFINEMENT, "let it read", words)
    return GuardAnswer(
        guard=CONFINEMENT,
        status="refused",
        is_alarm=True,
        exit_code=None,
        sentence=f"{isolation.mechanism}; {words}",
    )


def early_read_by_run(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the run's own process reads a sealed file before the opening."""
    if not is_planted:
        return bench.of_control("P4-05")
    run = bench.new_run()
    sealed = run.prepare().sealed_test
    attempt_read(bench.clean_data / sealed.leaves[0].path, "sealed image")
    _go_on_to_the_end(bench, run)
    return run.judge("P4-05")


def test_image_in_training(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a test image, with its patient, among the training images."""
    if not is_planted:
        return bench.of_control("P4-11")
    run = bench.new_run()
    run.prepare()
    _go_on_to_the_end(bench, run, joined(run.split.training, _test_view(run, 1)))
    return run.judge("P4-11")


def test_pixels_in_training(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a test image's pixels under a training image's name and patient."""
    if not is_planted:
        return bench.of_control("P4-11")
    run = bench.new_run()
    training = run.prepare().training
    pixels = np.concatenate([_test_view(run, 1).pixels, training.pixels[1:]])
    _go_on_to_the_end(bench, run, replace(training, pixels=pixels))
    return run.judge("P4-11")


def _go_on_to_the_end(bench: Bench, run: SmallRun, training: ImageView | None = None) -> None:
    """Evaluate a run with the control's isolation record, without a training process."""
    bench.lend_isolation(run)
    run.evaluate(run.honest_images(), training)


def _test_view(run: SmallRun, n: int) -> ImageView:
    """Pack the first n test images as a view, which is forbidden before the opening."""
    images, names = run.images, {leaf.id for leaf in run.split.sealed_test.leaves[:n]}
    rows = np.flatnonzero(images.table["image_id"].isin(names).to_numpy(dtype=bool))
    table = images.table.iloc[rows]
    blank = ("",) * len(rows)
    ids, patients = tuple(table["image_id"]), tuple(table["patient_id"])
    return ImageView(TEST, images.pixels[rows], ids, patients, blank, blank)


def packed_view_changed(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a test image added to the packed training images before training starts."""
    run = bench.new_run()
    training = run.prepare().training
    if is_planted:
        views = run.context.scratch / "views"
        save_view(joined(training, _test_view(run, 1)), views)
    return stopped_by(_BROKEN_ISOLATION, run.train)


def statistics_on_test(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a generator fits its mean image on a copy of the test images too."""
    if not is_planted:
        return bench.trained_control.judge("P4-07")
    folder = bench.new_folder()
    run = bench.new_run(model__settings={"statistics_from": str(folder)})
    run.prepare()
    n_test = len(run.split.sealed_test.leaves)
    save_view(replace(_test_view(run, n_test), partition=TEST_VIEW), folder)
    run.train()
    return run.judge("P4-07")


ISOLATION_PLANTS = (
    Plant(
        "early-read",
        "early read",
        "a training process that tries to read a sealed image, the vault and its key",
        (CONFINEMENT,),
        LEAKAGE,
        early_read,
    ),
    Plant(
        "open-confinement",
        "early read",
        "a training process that can read a file which it must not read",
        (_BROKEN_ISOLATION,),
        LEAKAGE,
        open_confinement,
    ),
    Plant(
        "early-read-by-run",
        "early read",
        "a sealed file opened by the run itself before the evaluation",
        ("P4-05",),
        LEAKAGE,
        early_read_by_run,
    ),
    Plant(
        "test-image-in-training",
        "training view",
        "a test image with its patient among the training images",
        ("P4-11",),
        LEAKAGE,
        test_image_in_training,
        LONGER,
    ),
    Plant(
        "test-pixels-in-training",
        "training view",
        "a test image's pixels under the name and patient of a training image",
        ("P4-11",),
        LEAKAGE,
        test_pixels_in_training,
        LONGER,
    ),
    Plant(
        "packed-view-changed",
        "training view",
        "a test image added to the packed training images after the split",
        (_BROKEN_ISOLATION,),
        LEAKAGE,
        packed_view_changed,
        TRAINS,
    ),
    Plant(
        "statistics-on-test",
        "fitting",
        "a mean image fitted on training and test images together",
        ("P4-07",),
        LEAKAGE,
        statistics_on_test,
        TRAINS,
    ),
)
