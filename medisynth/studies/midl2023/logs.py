"""Findings from the loss and FID logs: averages, choice of checkpoints, constant losses."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from medisynth.studies.midl2023.findings import CODE, PAPER, Finding, Value, Verdict, count, number
from medisynth.studies.midl2023.log_files import (
    FID_FILE,
    LOSS_FILE,
    TB_D_FILE,
    TB_FID_FILE,
    Logs,
    Series,
)
from medisynth.studies.midl2023.table import (
    CEREBELLUM,
    CLAIMED_TRAINING,
    MACHINE,
    TRAINING_SHARE,
    Table,
)

CLAIMED_FID = {"DSR-GAN": (7.04, 5.09, 10), "TB-GAN": (36.02, 28.93, 60)}
"""Mean, lowest value and epoch of the lowest, as the abstract prints them."""

ROWS_KEPT = 256
BATCH, APA_SPEED, APA_EVERY_EPOCHS, APA_FIRST_EPOCH, APA_HIGHEST = 24, 1e-6, 4, 20, 0.6
APA_THRESHOLD = 0.95
"""Read in the published code, like the constants above it; nothing in the logs shows them."""

_GRID_BITS = 36
_LARGEST_DIVISOR = 5_000
_LAYERS_COMPARED = (
    "On one and the same pair of sets the two layers give values of different size (last lines), "
    "so the two numbers are of two metrics."
)
_LAYERS_NOT_COMPARED = "Without images and weights the two layers were not compared here."
_DSR_NOTEBOOK = f"{CODE}, notebooks/difussion-super-resolution-gan/DSRGAN.ipynb"
# The notebooks for both planes share their code; this is the copy without training output.
_TB_NOTEBOOK = "github.com/budai4medtech/xfetus, examples/style-swin-gan/styleswin_tt.ipynb"


def logged_fids(logs: Logs) -> Finding:
    """Check means, minima and epochs of the abstract against the logs."""
    tb_epochs = logs.tb_epochs_a_fid * (1 + np.arange(len(logs.tb_fid)))
    found = {
        "DSR-GAN": _summary(logs.fid, logs.fid_epochs),
        "TB-GAN": _summary(logs.tb_fid, tb_epochs),
    }
    sources = {
        "DSR-GAN": f"{FID_FILE}: all {len(logs.fid)} values",
        "TB-GAN": f"{TB_FID_FILE}: all {len(logs.tb_fid)} values; value i is of epoch "
        f"{logs.tb_epochs_a_fid} x (i + 1), as there are {len(logs.tb_discriminator)} losses",
    }
    values: list[Value] = []
    for model, (mean, lowest, epoch) in found.items():
        values += [
            number(f"{model}, mean FID", mean, f"mean of {sources[model]}"),
            number(f"{model}, lowest FID", lowest, "smallest of these"),
            count(f"{model}, epoch of the lowest", epoch, "its place"),
        ]
    same = all(
        (round(mean, 2), round(lowest, 2), epoch) == CLAIMED_FID[model]
        for model, (mean, lowest, epoch) in found.items()
    )
    return Finding(
        "2.1",
        "FIDs of the abstract",
        '"lower FID values for diffusion-super-resolution-GAN (average 7.04 and lower FID 5.09 at '
        "epoch 10) than the FID values of transformer-based-GAN (average 36.02 and lower 28.93 at "
        'epoch 60)"',
        f"{PAPER}, abstract",
        tuple(values),
        Verdict.REPRODUCED if same else Verdict.NOT_AS_STATED,
        "The six numbers are those of the logs."
        if same
        else "At least one of the six numbers is not that of the logs.",
        f"{FID_FILE}, {TB_FID_FILE}",
    )


def _summary(
    fid: Series, epochs: Sequence[int] | np.typing.NDArray[np.int64]
) -> tuple[float, float, int]:
    place = int(fid.argmin())
    return float(fid.mean()), float(fid[place]), int(epochs[place])


def two_different_fids(table: Table, logs: Logs, scales: Sequence[Value]) -> Finding:
    """Check whether the FIDs of the two generators can be compared.

    Args:
        table: Gives the number of images that TB-GAN's FID was computed with.
        logs: Give the numbers of logged FIDs.
        scales: FID of one pair of sets at each layer, where images were given.
    """
    n = len(table.of(CEREBELLUM))
    n_training = int(TRAINING_SHARE * n)
    values = (
        count("values in DSR-GAN's log", len(logs.fid), f"rows of {FID_FILE}"),
        count("values in TB-GAN's log", len(logs.tb_fid), f"length of {TB_FID_FILE}"),
        count(
            "real images in TB-GAN's FID",
            n - n_training,
            f"{n} - integer part of 0.8 x {n}; equals the first dimension of the reference tensor "
            "that the notebook prints",
        ),
        *scales,
    )
    return Finding(
        "2.2",
        "Comparison of the two FIDs",
        "FID of DSR-GAN is lower than FID of TB-GAN",
        f"{PAPER}, abstract and section 4 Conclusions",
        values,
        Verdict.UNDECIDED,
        "The logs hold bare numbers: neither the feature layer nor the number of images is in "
        f"them. {_LAYERS_COMPARED if scales else _LAYERS_NOT_COMPARED}",
        f"{table.file}, {FID_FILE}, {TB_FID_FILE}" + (", the images" if scales else ""),
        "feature=192 with 64 synthetic and 64 real images for DSR-GAN "
        f"({_DSR_NOTEBOOK}); feature=64 with as many synthetic as real images for TB-GAN "
        f"({_TB_NOTEBOOK}); neither is the FID on 2,048 features",
    )


def smallest_of_many(logs: Logs) -> Finding:
    """Rank the reported FID of DSR-GAN among its checkpoints."""
    place = int(logs.fid.argmin())
    others = np.delete(logs.fid, place)
    spread = float(others.std(ddof=1))
    beside = logs.fid_beside_losses
    inside = logs.fid_epochs < len(beside)
    agree = np.isclose(beside[logs.fid_epochs[inside]], logs.fid[inside], rtol=0, atol=1e-9)
    same = round(float(logs.fid[place]), 2) == CLAIMED_FID["DSR-GAN"][1]
    values = (
        count("checkpoints", len(logs.fid), f"rows of {FID_FILE}"),
        number("lowest FID", logs.fid[place], "smallest of these"),
        Value("its place in the log", place + 1, f"{place + 1} of {len(logs.fid)}", "from 1"),
        number("second lowest", np.sort(logs.fid)[1], "smallest of the others"),
        number("mean of the others", others.mean(), "mean without the lowest"),
        number("standard deviation of the others", spread, "divided by n - 1"),
        _distance(logs.fid[place], others.mean(), spread),
        count(
            f"rows that agree with the FID column of {LOSS_FILE}",
            int(agree.sum()),
            "differences below 1e-9 at the same epoch",
            of=len(logs.fid),
        ),
    )
    return Finding(
        "4",
        "The reported FID is the smallest of many",
        '"lower FID 5.09 at epoch 10"',
        f"{PAPER}, abstract and section 4 Conclusions",
        values,
        Verdict.REPRODUCED if same else Verdict.NOT_AS_STATED,
        "The number is in the log, as the smallest of all checkpoints of one run: it says how low "
        "one of many draws was, not what to expect of the next.",
        f"{FID_FILE}, {LOSS_FILE}",
        "only the upscaler changes between checkpoints; every FID uses the same 64 real images and "
        f"the same noise, after matching all samples to one average histogram ({_DSR_NOTEBOOK})",
    )


def _distance(lowest: float, mean: float, spread: float) -> Value:
    apart = (mean - lowest) / spread if spread > 0 else None
    return Value(
        "distance of the lowest from that mean, in standard deviations",
        None if apart is None else float(apart),
        str(Verdict.NOT_EVALUATED) if apart is None else f"{apart:.1f}",
        "(mean of the others - lowest) / standard deviation of the others",
    )


def still_discriminator(logs: Logs) -> Finding:
    """Count the epochs in which the logged discriminator loss is exactly 1."""
    ones = logs.discriminator == 1.0
    moving = np.flatnonzero(~ones)
    first = int(moving.max()) + 1 if moving.size else 0
    n = len(ones)
    chance = 2 * math.log(2)
    tb = logs.tb_discriminator
    values = (
        count("epochs with a logged loss of exactly 1", int(ones.sum()), "value = 1.0", of=n),
        count(
            "epoch from which it never changes again", first, "1 + last epoch with another value"
        ),
        number(
            "TB-GAN, mean discriminator loss",
            tb.mean(),
            f"mean of {len(tb)} values of {TB_D_FILE}; a discriminator that always answers 0 "
            f"has 2 ln 2 = {chance:.3f}",
            digits=3,
        ),
    )
    mostly = 2 * int(ones.sum()) > n
    return Finding(
        "5.1",
        "Losses of the upscaler",
        '"stable training losses"',
        f"{PAPER}, abstract",
        values,
        Verdict.NOT_AS_STATED if mostly else Verdict.REPRODUCED,
        "The upscaler's loss is constant rather than stable: with the formula 1 - D(real) + "
        "D(synthetic), exactly 1 to the last bit in every epoch means that the discriminator gives "
        "both the same answer, so there was nothing left to train against."
        if mostly
        else "The logged loss changes in most epochs.",
        f"{LOSS_FILE} column Disciminator_Loss, {TB_D_FILE}",
        f"the formula of the loss ({_DSR_NOTEBOOK})",
    )


def possible_divisors(means: Series, largest: int) -> tuple[int, ...]:
    """Find the whole numbers by which the logged means can have been divided.

    A logged mean is a sum of single-precision losses, divided once. Losses of 2^-13 and above are
    multiples of 2^-36 in single precision, so the sum is one too, and mean x divisor must be within
    the rounding of that one division of such a multiple. A wrong divisor passes this for one value
    with a chance below 1 in 1,000, and must pass it for all.

    Args:
        means: Logged means, shape (n,), above 0.
        largest: Largest divisor to try.

    Returns:
        Divisors from 1 that fit every value, ascending.
    """
    exact = [Fraction(float(mean)) * 2**_GRID_BITS for mean in means]
    slack = [Fraction(float(np.spacing(mean))) * 2**_GRID_BITS / 2 for mean in means]
    return tuple(
        n
        for n in range(1, largest + 1)
        if all(
            abs(mean * n - round(mean * n)) <= n * half
            for mean, half in zip(exact, slack, strict=True)
        )
    )


def images_an_epoch(table: Table, logs: Logs) -> Finding:
    """Infer the images of an epoch of the upscaler from the divisor of its logged means."""
    n = len(table.of(CEREBELLUM))
    divisors = possible_divisors(logs.generator, min(n, _LARGEST_DIVISOR))
    excluded = bool(divisors) and CLAIMED_TRAINING not in divisors
    return Finding(
        "5.2",
        "Images an epoch of the upscaler",
        f"trained on {CLAIMED_TRAINING} images",
        f"{PAPER}, section 2.4 Datasets",
        _epoch_values(logs, n, divisors),
        Verdict.NOT_AS_STATED if excluded else Verdict.UNDECIDED,
        f"With one image an update, an epoch of {CLAIMED_TRAINING} images does not fit the log; "
        "the values say which sizes do. Which images they were cannot be seen."
        if excluded
        else "The logged means do not exclude the paper's number.",
        f"{LOSS_FILE} columns Generator_Loss and Disciminator_Loss, {table.file}",
        f"one image an update; the first {ROWS_KEPT} rows of the plane and machine are for "
        f"training, the others held out; the divisor is written as 236 ({_DSR_NOTEBOOK})",
    )


def _epoch_values(logs: Logs, n: int, divisors: Sequence[int]) -> tuple[Value, ...]:
    listed = ", ".join(map(str, divisors)) or "none"
    n_held_out = max(n - ROWS_KEPT, 0)
    tried = {"the paper's number": CLAIMED_TRAINING, "the first rows, for training": ROWS_KEPT}
    tried |= {"the rows after these, held out": n_held_out, "all rows": n}
    still = "median of Disciminator_Loss"
    if n_held_out:
        still += (
            "; a discriminator that gives both the same answer adds exactly 1 an update, so "
            f"{ROWS_KEPT} updates divided by {n_held_out} would give {ROWS_KEPT / n_held_out:.3f}"
        )
    return (
        Value(
            "numbers by which the logged means can have been divided",
            listed,
            listed,
            f"every n up to {min(n, _LARGEST_DIVISOR)} for which each of the "
            f"{len(logs.generator)} values of Generator_Loss x n is a multiple of 2^-36, up to the "
            "rounding of one division",
        ),
        *(
            Value(
                f"{what}, {size}",
                size,
                "fits" if size in divisors else "does not fit",
                f"is or is not among these; rows are of {CEREBELLUM}, {MACHINE}",
            )
            for what, size in tried.items()
        ),
        number("updates an epoch / divisor", float(np.median(logs.discriminator)), still, digits=3),
    )


def largest_pseudo_probability(n_epochs: int, n_training: int) -> tuple[int, int, float]:
    """Compute how far the probability of adaptive pseudo augmentation can rise.

    Args:
        n_epochs: Epochs, numbered from 0.
        n_training: Training images; the last incomplete batch of an epoch is dropped.

    Returns:
        Epochs in which it may move, updates in each, and the probability if every one of these
        updates raises it.
    """
    moving = sum((epoch + 1) % APA_EVERY_EPOCHS == 0 for epoch in range(APA_FIRST_EPOCH, n_epochs))
    updates = n_training // BATCH
    rise = moving * updates * APA_SPEED * BATCH * APA_EVERY_EPOCHS
    return moving, updates, min(rise, APA_HIGHEST)


def pseudo_augmentation(table: Table, logs: Logs) -> Finding:
    """Check whether adaptive pseudo augmentation can have had an effect."""
    n_training = int(TRAINING_SHARE * len(table.of(CEREBELLUM)))
    moving, updates, largest = largest_pseudo_probability(len(logs.tb_discriminator), n_training)
    values = _pseudo_values(len(logs.tb_discriminator), n_training, moving, updates, largest)
    return Finding(
        "6.1",
        "Adaptive pseudo augmentation",
        '"Differentiable data augmentation (DiffAug) and adaptive pseudo augmentation (APA) are '
        'implemented to combat discriminator over-fitting"',
        f"{PAPER}, section 2.2 Transformer-based-GAN",
        values,
        Verdict.UNDECIDED,
        f"p itself was not logged. At the end of training it is at most {largest:.3f}, and it "
        "rises only in updates whose real images the discriminator recognises without exception.",
        f"{TB_D_FILE}, {table.file}",
        f"threshold {APA_THRESHOLD} (its authors: 0.6), speed {APA_SPEED:g} an image, batch "
        f"{BATCH} without an incomplete one, every {APA_EVERY_EPOCHS} epochs from epoch "
        f"{APA_FIRST_EPOCH} ({_TB_NOTEBOOK})",
    )


def _pseudo_values(
    n_epochs: int, n_training: int, moving: int, updates: int, largest: float
) -> tuple[Value, ...]:
    n_wrong = max(w for w in range(BATCH) if (BATCH - 2 * w) / BATCH > APA_THRESHOLD)
    return (
        count("epochs", n_epochs, f"length of {TB_D_FILE}"),
        count("updates an epoch", updates, f"integer part of {n_training} / {BATCH}"),
        count(
            "epochs in which p may move",
            moving,
            f"epoch ≥ {APA_FIRST_EPOCH} and (epoch + 1) divisible by {APA_EVERY_EPOCHS}",
            of=n_epochs,
        ),
        number(
            "largest p that can be reached",
            largest,
            f"{moving} x {updates} x {APA_SPEED:g} x {BATCH} x {APA_EVERY_EPOCHS}, if every one "
            "of these updates raises it",
            digits=3,
        ),
        count(
            f"real images of {BATCH} that may be taken for synthetic if p is to rise",
            n_wrong,
            f"largest w with ({BATCH} - 2 w) / {BATCH} > {APA_THRESHOLD}",
        ),
    )
