"""Runs the searches for copies on synthetic images and, for comparison, on images that copy nobody."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError
from governance.records.evaluation import (
    AuthenticityRecord,
    CopiedPartsRecord,
    DataCopyingRecord,
    NearestPair,
    PlantedRecall,
)
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.intervals import share_interval
from medisynth.metrics.altered_copies import KINDS, altered_copies
from medisynth.metrics.copied_parts import PartSearch
from medisynth.metrics.memorisation import (
    N_CLOSEST,
    SIDE,
    at_most,
    mirrored_alike,
    nearest_training,
)
from medisynth.metrics.tuning_distance import evenly

LEAST_NULL = 20  # training images that the threshold needs
N_SEARCHED = 200  # synthetic images searched for parts, at most
_N_NULL, _N_UNSEEN, _N_PLANTED = 80, 48, 6  # the last of each kind
_MARGIN = 0.1  # of the way from the highest agreement of different patients to 1
_LEAST_IN_CELL = 10
_MOST_CELLS = 5


def copied_parts(
    synthetic: Pixels,
    names: Sequence[str],
    training: ImageView,
    tuning: ImageView,
    *,
    memorised_below: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> CopiedPartsRecord:
    """Search synthetic images for training images, or parts of them, and try the search itself.

    The threshold lies above every agreement between training images of different patients. It is
    tried on tuning images, which copy nobody, and on training images that are copied and altered.

    Args:
        synthetic: Images, shape (n, size, size), uint8; 200 of them are searched if there are more.
        names: Name of each, length n.
        training: Training images.
        tuning: Tuning images of other patients.
        memorised_below: Threshold of the search by whole images: images at or below it are counted
            as flagged too.
        seed: Seed of the choice of images and of their alteration.
        progress: Called as progress(done, all) with images searched, planted ones included.

    Raises:
        MetricUndefinedError: No synthetic or tuning image, fewer than 20 training images or two
            training patients, or images too small.
    """
    if len(synthetic) == 0 or len(tuning) == 0 or len(training) < LEAST_NULL:
        raise MetricUndefinedError(
            f"a search for copied parts needs synthetic and tuning images and {LEAST_NULL} training "
            f"images, got {len(synthetic)}, {len(tuning)} and {len(training)}"
        )
    if len(set(training.patient_ids)) < 2:
        raise MetricUndefinedError("a search for copied parts needs two training patients, got 1")
    null_rows, unseen_rows = evenly(len(training), _N_NULL), evenly(len(tuning), _N_UNSEEN)
    searched = evenly(len(synthetic), N_SEARCHED)
    n_planted = len(KINDS) * min(_N_PLANTED, len(training))
    total = len(null_rows) + len(unseen_rows) + len(searched) + n_planted
    search = PartSearch(training.pixels, training.patient_ids, lambda done: progress(done, total))
    own = [training.patient_ids[row] for row in null_rows]
    null = search.find(training.pixels[null_rows], not_of=own).agreement
    highest = float(null.max())
    threshold = highest + _MARGIN * (1 - highest)
    unseen = search.find(tuning.pixels[unseen_rows]).agreement >= threshold
    unseen_of = [tuning.patient_ids[row] for row in unseen_rows]
    images = synthetic[searched]
    found = search.find(images)
    flagged = found.agreement >= threshold
    _, distance = nearest_training(images, training.pixels)
    either = (flagged | (distance <= memorised_below)).astype(np.float64)
    ci95, interval_method = share_interval(either, [str(row) for row in searched])
    confirmed_from = (1 + threshold) / 2
    copied = Counter(training.patient_ids[found.source[place]] for place in np.flatnonzero(flagged))
    order = np.argsort(-found.agreement, kind="stable")[:N_CLOSEST]
    return CopiedPartsRecord(
        method=_METHOD,
        threshold=threshold,
        confirmed_from=confirmed_from,
        null_median=float(np.median(null)),
        synthetic_median=float(np.median(found.agreement)),
        n_null=len(null),
        n_synthetic=len(images),
        n_flagged=int(flagged.sum()),
        n_confirmed=int((found.agreement >= confirmed_from).sum()),
        n_flagged_either=int(either.sum()),
        share_ci95=ci95,
        interval_method=interval_method,
        n_of_one_patient=max(copied.values(), default=0),
        n_unseen=len(unseen),
        n_unseen_flagged=int(unseen.sum()),
        unseen_ci95=share_interval(unseen.astype(np.float64), unseen_of)[0],
        planted=_planted(search, training, tuning, threshold, seed),
        null_agreements=at_most(null),
        synthetic_agreements=at_most(found.agreement),
        closest=tuple(
            NearestPair(
                synthetic=names[searched[place]],
                training_id=training.image_ids[found.source[place]],
                distance=1 - float(found.agreement[place]),
            )
            for place in order
        ),
    )


_METHOD = (
    "correlation of speckle, window by window, after coarse and close registration; images as they "
    "are, mirrored, moved, and enlarged or reduced by up to a fifth; flagged where 15 % of the "
    "windows with picture agree more than in any training image with those of other patients, by a "
    "tenth of the way to 1"
)


def _planted(
    search: PartSearch, training: ImageView, tuning: ImageView, threshold: float, seed: int
) -> tuple[PlantedRecall, ...]:
    """Return how many altered copies of training images the search finds, kind by kind."""
    rng = np.random.default_rng(seed)
    found = []
    for kind in KINDS:
        n = min(_N_PLANTED, len(training))
        images = training.pixels[rng.choice(len(training), n, replace=False)]
        others = tuning.pixels[rng.choice(len(tuning), n)]
        agreement = search.find(altered_copies(kind, images, others, rng)).agreement
        found.append(PlantedRecall(kind=kind, n=n, n_found=int((agreement >= threshold).sum())))
    return tuple(found)


def authenticity(synthetic: Pixels, training: ImageView, tuning: ImageView) -> AuthenticityRecord:
    """Share of images nearer to a training image than its own nearest of another patient is.

    Distances are those of the search by whole images, before they are divided. Images that are
    smoother than real ones lie nearer to all: read the share beside that of tuning images.

    Args:
        synthetic: Images, shape (n, height, width), uint8, n at least 1.
        training: Training images.
        tuning: Tuning images, which no generator was fitted to, as the control.

    Raises:
        MetricUndefinedError: No image to compare, or fewer than two training patients.

    Source:
        Alaa et al. 2022, arXiv:2102.08921; theirs is one minus this share, without patients.
    """
    patients = np.asarray(training.patient_ids, dtype=str)
    if min(len(synthetic), len(tuning)) == 0 or len(np.unique(patients)) < 2:
        raise MetricUndefinedError(
            f"authenticity needs images and two training patients, got {len(synthetic)} synthetic, "
            f"{len(tuning)} tuning images and {len(np.unique(patients))}"
        )
    among = mirrored_alike(training.pixels, training.pixels)
    among[patients[:, None] == patients[None, :]] = -1.0
    own_nearest = among.max(axis=1)

    def nearer(images: Pixels) -> NDArray[np.float64]:
        alike = mirrored_alike(images, training.pixels)
        nearest = alike.argmax(axis=1)
        marks = alike[np.arange(len(images)), nearest] > own_nearest[nearest]
        return np.asarray(marks, np.float64)

    marks, control = nearer(synthetic), nearer(tuning.pixels)
    ci95, method = share_interval(marks, [str(number) for number in range(len(marks))])
    control_ci95, _ = share_interval(control, tuning.patient_ids)
    return AuthenticityRecord(
        method=f"images reduced to {SIDE} x {SIDE}, mean training image removed, unit length, mirror "
        "images included; nearest training image of another patient",
        share_nearer=float(marks.mean()),
        ci95=ci95,
        interval_method=method,
        control_share=float(control.mean()),
        control_ci95=control_ci95,
        n_synthetic=len(marks),
        n_control=len(control),
    )


def data_copying(
    synthetic: Pixels, training: ImageView, tuning: ImageView, *, seed: int
) -> DataCopyingRecord:
    """Test whether synthetic images lie nearer to training images than unseen images do (C_T).

    The images are divided into cells of similar training images. In each cell the relative
    distances of synthetic and of tuning images to their nearest training image are ranked
    (Mann-Whitney); the z-scores are averaged over cells by their share of tuning images. One image
    of each tuning patient is used, since those of one patient are alike.

    Args:
        synthetic: Images, shape (n, height, width), uint8.
        training: Training images.
        tuning: Tuning images of other patients.
        seed: Seed of cells and of the choice of images.

    Returns:
        C_T: far below 0 where synthetic images copy, far above where they lie away from all
        training images, within about 3 otherwise.

    Raises:
        MetricUndefinedError: Fewer than 10 synthetic images or tuning patients, or two training
            images.

    Source:
        Meehan, Chaudhuri, Dasgupta 2020, arXiv:2004.05675.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(tuning))
    _, first = np.unique(np.asarray(tuning.patient_ids, dtype=str)[order], return_index=True)
    unseen = tuning.pixels[np.sort(order[first])]
    if min(len(synthetic), len(unseen)) < _LEAST_IN_CELL:
        raise MetricUndefinedError(
            f"C_T needs {_LEAST_IN_CELL} synthetic images and tuning patients, got "
            f"{len(synthetic)} and {len(unseen)}"
        )
    n_cells = int(np.clip(len(unseen) // (2 * _LEAST_IN_CELL), 1, _MOST_CELLS))
    cells = _cells(training.pixels, n_cells, seed)
    drawn_nearest, drawn = nearest_training(synthetic, training.pixels)
    unseen_nearest, held_out = nearest_training(unseen, training.pixels)
    weights, scores = [], []
    for cell in range(n_cells):
        one, other = drawn[cells[drawn_nearest] == cell], held_out[cells[unseen_nearest] == cell]
        if min(len(one), len(other)) >= _LEAST_IN_CELL:
            weights.append(len(other))
            scores.append(_rank_score(one, other))
    if not scores:  # no cell holds enough of both
        weights, scores = [len(unseen)], [_rank_score(drawn, held_out)]
    return DataCopyingRecord(
        method=f"C_T of Meehan et al. 2020 on relative distances at {SIDE} x {SIDE}; cells by k-means "
        "of the training images, one image of each tuning patient",
        value=float(np.average(scores, weights=weights)),
        n_cells=len(scores),
        n_synthetic=len(synthetic),
        n_tuning=len(unseen),
    )


def _cells(training: Pixels, n_cells: int, seed: int) -> NDArray[np.intp]:
    """Return the cell of each training image."""
    if n_cells == 1:
        return np.zeros(len(training), np.intp)
    from scipy.cluster.vq import kmeans2

    alike = mirrored_alike(training, training)
    # Rows of similarities place images as their pixels do, mirror images included.
    _, labels = kmeans2(alike, n_cells, minit="++", rng=np.random.default_rng(seed))
    return np.asarray(labels, np.intp)


def _rank_score(drawn: NDArray[np.float64], unseen: NDArray[np.float64]) -> float:
    """Mann-Whitney's U of one set over the other as a z-score: below 0 where drawn ones are less."""
    m, n = len(drawn), len(unseen)
    above = (drawn[:, None] > unseen[None, :]) + 0.5 * (drawn[:, None] == unseen[None, :])
    return float((above.sum() - m * n / 2) / np.sqrt(m * n * (m + n + 1) / 12))
