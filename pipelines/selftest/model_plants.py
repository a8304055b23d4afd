"""Plants in the model: a loss that is not a number, and a generator that copies patients."""

from medisynth.metrics.controls import control_images
from pipelines.selftest.bench import (
    INTEGRITY,
    LEAKAGE,
    N_SYNTHETIC,
    PATIENTS,
    TRAINS,
    Answers,
    Bench,
    Plant,
    stopped_by,
)

_NOT_FINITE = "T000"  # code of a training that produced numbers that are not finite


def nan_loss(bench: Bench, is_planted: bool) -> Answers:
    """Plant: the loss of one step is not a number."""
    if not is_planted:
        return stopped_by(_NOT_FINITE, lambda: bench.trained_control)
    run = bench.new_run(model__settings={"nan_at_step": 3})
    run.prepare()
    return stopped_by(_NOT_FINITE, run.train)


def copycat(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a generator that draws training images; as control, random pixels."""
    run = bench.new_run(bench.data_of_many)
    training = run.prepare().training
    bench.lend_isolation(run)
    name = "copycat" if is_planted else "noise"
    run.evaluate(control_images(name, training.pixels, N_SYNTHETIC, PATIENTS.seed))
    return run.judge("P6-04")


MODEL_PLANTS = (
    Plant(
        "nan-loss",
        "training",
        "a loss that is not a number in the fourth step of training",
        (_NOT_FINITE,),
        INTEGRITY,
        nan_loss,
        TRAINS,
    ),
    Plant(
        "copycat",
        "memorisation",
        "a generator whose images are copies of training images",
        ("P6-04",),
        LEAKAGE,
        copycat,
        "every evaluation tries it on the run's own images, see the controls of the metrics",
    ),
)
