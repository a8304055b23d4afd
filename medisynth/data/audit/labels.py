"""Suspected label errors, found by comparing each label with images of other patients.

A model is cross-validated by patient on cheap features, and confident learning names the images
whose recorded label it speaks against. A suspicion is a question to whoever labelled the image, not
an error: most suspicions of a middling model are wrong (docs/labels.md gives measured shares).
"""

import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from governance.records.audit import LabelAudit, SuspectedLabel
from governance.records.errors import DataError, SettingsError
from medisynth.data.reading.views import Pixels
from medisynth.intervals import patient_counts, share_interval

SUSPECT_BELOW = 0.05
"""Recorded labels less probable than this may be suspected; above it most suspicions are wrong."""

MAX_SUSPECTS = 200  # listed; all are counted
_LABELS = ("brain_plane", "plane")  # in order of preference
_N_COMPONENTS = 400
_CELL_PX, _N_DIRECTIONS = 8, 8
_CHUNK = 128  # images whose gradients one thread holds at once
_MOST_THREADS = 8
_N_RESAMPLES = 500
_QUESTION = "A suspicion is a question to whoever labelled the image, not an error."

Progress = Callable[[int, int], None]
Features = NDArray[np.float32]
Probabilities = NDArray[np.float64]
Strings = NDArray[np.str_]


def audit_labels(
    table: pd.DataFrame,
    thumbnails: Pixels,
    *,
    label: str | None = None,
    n_folds: int = 5,
    seed: int,
    progress: Progress | None = None,
) -> LabelAudit:
    """Find training images whose recorded label disagrees with a model of other patients' images.

    Args:
        table: Training images only, with image_id, patient_id, plane and brain_plane; NA where a
            label is not recorded.
        thumbnails: Grey images in table order, shape (n, 64, 64), uint8.
        label: Column to audit; None takes brain_plane where it has two classes, else plane.
        n_folds: Folds of patients, at least 2. A class of fewer patients is left out.
        seed: Decides folds and components: equal input and seed give an equal answer.
        progress: Called after each fold with folds done and folds in all.

    Returns:
        The audit. Where no label can be judged, `reason` says why and no image is suspected.

    Raises:
        SettingsError: `label` is no column of the table, or n_folds is below 2.
        DataError: Table and thumbnails do not fit each other.

    Source:
        Northcutt et al. 2021, doi:10.1613/jair.1.12125 (confident learning); Dalal and Triggs 2005,
        doi:10.1109/CVPR.2005.177 (features).
    """
    _check(table, thumbnails, label, n_folds)
    chosen = label or _choose_label(table)
    audit = _nothing(table, chosen)
    if len(audit.classes) < 2:
        return audit.model_copy(update={"label": "", "reason": _too_few_classes(table, chosen)})
    patients_of = table.groupby(chosen, observed=True)["patient_id"].nunique()
    kept = [name for name in audit.classes if patients_of[name] >= n_folds]
    left_out = [name for name in audit.classes if name not in kept]
    audit = audit.model_copy(update={"method": _method(n_folds, left_out)})
    if len(kept) < 2:
        reason = f"fewer than two classes have {n_folds} patients or more"
        return audit.model_copy(update={"reason": reason})
    rows = table[chosen].isin(kept).to_numpy(dtype=bool)
    judged = table[rows]
    given = _text(judged[chosen])
    patients = _text(judged["patient_id"])
    probability = _cross_validate(
        thumbnails[rows], given, patients, n_folds=n_folds, seed=seed, progress=progress
    )
    if probability is None:
        reason = "a class has patients in too few of the folds to be learnt"
        return audit.model_copy(update={"reason": reason})
    return _judge(audit, _text(judged["image_id"]), given, patients, probability, seed)


def _judge(
    audit: LabelAudit,
    image_ids: Strings,
    given: Strings,
    patients: Strings,
    probability: Probabilities,
    seed: int,
) -> LabelAudit:
    """Return the audit with suspects, unless the model does no better than chance."""
    classes = np.unique(given)
    accuracy, low = _balanced_accuracy(given, classes[probability.argmax(1)], patients, seed)
    if low <= 1 / len(classes):
        reason = (
            f"the model cannot judge these labels: balanced accuracy {accuracy:.2f}, interval by "
            f"patient from {low:.2f}, chance {1 / len(classes):.2f}"
        )
        return audit.model_copy(update={"balanced_accuracy": accuracy, "reason": reason})
    codes = np.searchsorted(classes, given)
    of_given = probability[np.arange(len(codes)), codes]
    suspected = np.flatnonzero(_label_issues(codes, probability) & (of_given < SUSPECT_BELOW))
    order = sorted(suspected.tolist(), key=lambda row: (of_given[row], image_ids[row]))
    suspects = tuple(
        SuspectedLabel(
            image_id=str(image_ids[row]),
            given=str(given[row]),
            suggested=str(classes[probability[row].argmax()]),
            probability_of_given=float(of_given[row]),
        )
        for row in order
    )
    marks = np.isin(np.arange(len(given)), suspected).astype(np.float64)
    interval, _ = share_interval(marks, patients.tolist())
    return audit.model_copy(
        update={
            "balanced_accuracy": accuracy,
            "n_suspected": len(suspects),
            "rate_ci95": interval,
            "suspects": suspects[:MAX_SUSPECTS],
            "effect": _effect(audit, suspects, len(given)),
        }
    )


def _check(table: pd.DataFrame, thumbnails: Pixels, label: str | None, n_folds: int) -> None:
    if n_folds < 2:
        raise SettingsError(f"n_folds: found {n_folds}, expected at least 2")
    if label is not None and label not in table.columns:
        raise SettingsError(
            f"label: the table has no column {label!r}; choose plane or brain_plane"
        )
    if thumbnails.shape != (len(table), 64, 64):
        raise DataError(
            f"label audit: {len(table)} images but thumbnails of shape {thumbnails.shape}, "
            f"expected ({len(table)}, 64, 64)"
        )


def _choose_label(table: pd.DataFrame) -> str:
    columns = [name for name in _LABELS if name in table.columns]
    return next((name for name in columns if table[name].nunique() >= 2), "")


def _nothing(table: pd.DataFrame, label: str) -> LabelAudit:
    """Return an audit without results, to be filled in."""
    labelled = table[table[label].notna()] if label else table.iloc[:0]
    counts = labelled[label].astype(str).value_counts() if label else pd.Series(dtype="int64")
    return LabelAudit(
        label=label,
        method="",
        n_images=len(labelled),
        n_patients=int(labelled["patient_id"].nunique()),
        classes={str(name): int(counts[name]) for name in sorted(counts.index)},
        balanced_accuracy=None,
        n_suspected=0,
        rate_ci95=None,
        suspects=(),
    )


def _too_few_classes(table: pd.DataFrame, label: str) -> str:
    names = (label,) if label else tuple(name for name in _LABELS if name in table.columns)
    found = ", ".join(f"{name} has {table[name].nunique()}" for name in names) or "no label column"
    return f"no label with two classes among the training images ({found}): nothing to confuse"


def _method(n_folds: int, left_out: list[str]) -> str:
    from importlib.metadata import version

    text = (
        f"histograms of oriented gradients ({64 // _CELL_PX} by {64 // _CELL_PX} cells, "
        f"{_N_DIRECTIONS} directions) of 64 by 64 thumbnails and of their mirror images; "
        f"Gaussian kernel by Nyström, linear discriminant analysis with shrinkage (scikit-learn "
        f"{version('scikit-learn')}), tempered; {n_folds} folds, no patient in two; confident "
        f"learning (cleanlab {version('cleanlab')}) and a probability of the recorded label "
        f"below {SUSPECT_BELOW}"
    )
    if left_out:
        text += f"; left out for fewer than {n_folds} patients: {', '.join(left_out)}"
    return text


def _text(column: pd.Series) -> Strings:
    return column.to_numpy(dtype=object).astype(str)


def _cross_validate(
    thumbnails: Pixels,
    given: Strings,
    patients: Strings,
    *,
    n_folds: int,
    seed: int,
    progress: Progress | None,
) -> Probabilities | None:
    """Probability of each class for each image by a model that saw no image of its patient.

    Returns:
        Shape (n, classes in alphabetical order); None when a fold's model lacks a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    n_classes = len(np.unique(given))
    views = [_gradient_histograms(thumbnails), _gradient_histograms(thumbnails[:, :, ::-1])]
    probability = np.zeros((len(given), n_classes))
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for k, (train, test) in enumerate(folds.split(given, given, patients), start=1):
        if len(np.unique(given[train])) < n_classes:
            return None
        model = _model(len(train), seed)
        model.fit(np.concatenate([view[train] for view in views]), np.tile(given[train], 2))
        probability[test] = np.mean([model.predict_proba(view[test]) for view in views], axis=0)
        if progress is not None:
            progress(k, n_folds)
    return _calibrated(probability, np.unique(given, return_inverse=True)[1])


def _calibrated(probability: Probabilities, codes: NDArray[np.intp]) -> Probabilities:
    """Calibrate probabilities by the temperature that fits the labels best.

    Models of few images are overconfident. One temperature for all images cannot fit single labels.

    Source:
        Guo et al. 2017, arXiv:1706.04599 (temperature scaling).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    logits = np.log(np.clip(probability, 1e-12, 1.0))
    rows = np.arange(len(codes))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scaled[rows, codes].mean())

    best = minimize_scalar(loss, bounds=(np.log(0.5), np.log(20.0)), method="bounded")
    tempered: Probabilities = np.exp(log_softmax(logits / np.exp(best.x), axis=1))
    return tempered


def _model(n_train: int, seed: int) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.kernel_approximation import Nystroem
    from sklearn.pipeline import make_pipeline

    n_components = min(_N_COMPONENTS, n_train)
    return make_pipeline(
        Nystroem(gamma=1.0, n_components=n_components, random_state=seed),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    )


def _gradient_histograms(thumbnails: Pixels) -> Features:
    """Histograms of oriented gradients, vectors of length 1.

    Directions are unsigned: a bright wall counts the same from both sides. scikit-image has the
    same features, image by image, which takes twenty times as long.

    Args:
        thumbnails: Shape (n, size, size), uint8; size a multiple of 8.

    Returns:
        Shape (n, 8 * (size / 8) ** 2), float32.
    """
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        return np.concatenate(list(pool.map(_histograms_of, _chunks(thumbnails))))


def _chunks(thumbnails: Pixels) -> Iterator[Pixels]:
    for start in range(0, len(thumbnails), _CHUNK):
        yield thumbnails[start : start + _CHUNK]


def _histograms_of(thumbnails: Pixels) -> Features:
    images = thumbnails.astype(np.float32)
    n, height, width = images.shape
    down, across = np.zeros_like(images), np.zeros_like(images)
    down[:, 1:-1] = images[:, 2:] - images[:, :-2]
    across[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    strength = np.hypot(down, across)
    turn = np.arctan2(down, across) % np.pi / np.pi  # 0 to 1
    direction = np.minimum((turn * _N_DIRECTIONS).astype(np.int8), _N_DIRECTIONS - 1)
    cells = (n, height // _CELL_PX, _CELL_PX, width // _CELL_PX, _CELL_PX)
    sums = [
        np.where(direction == k, strength, 0).reshape(cells).sum((2, 4))
        for k in range(_N_DIRECTIONS)
    ]
    features = np.sqrt(np.stack(sums, axis=1).reshape(n, -1))
    length = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: Features = (features / np.maximum(length, 1e-6)).astype(np.float32)
    return scaled


def _label_issues(codes: NDArray[np.intp], probability: Probabilities) -> NDArray[np.bool_]:
    """Mark the images that both rules of confident learning suspect."""
    from cleanlab.filter import find_label_issues

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on settings of its own: none changes the answer
        issues: NDArray[np.bool_] = find_label_issues(
            codes, probability, filter_by="both", n_jobs=1
        )
    return issues


def _balanced_accuracy(
    given: Strings, predicted: Strings, patients: Strings, seed: int
) -> tuple[float, float]:
    """Mean recall of the classes, and the lower end of its 95 % interval by patient bootstrap."""
    correct = (given == predicted).astype(np.float64)
    of_class = (given[:, None] == np.unique(given)).astype(np.float64)
    right = of_class * correct[:, None]
    value = float((right.sum(0) / of_class.sum(0)).mean())
    counts = patient_counts(patients.tolist(), _N_RESAMPLES, np.random.default_rng(seed))
    drawn = counts @ of_class
    recalls = np.divide(counts @ right, drawn, out=np.zeros_like(drawn), where=drawn > 0)
    return value, float(np.percentile(recalls.mean(1), 2.5))


def _effect(audit: LabelAudit, suspects: tuple[SuspectedLabel, ...], n_judged: int) -> str:
    unaffected = (
        "KID, FID, coverage and memorisation over all images use no label and do not change"
    )
    if not suspects:
        return f"No label is suspected. {unaffected}."
    given = [suspect.given for suspect in suspects]
    widest = max(sorted(set(given)), key=lambda name: given.count(name) / audit.classes[name])
    return (
        f"{unaffected}. Results by {audit.label} and a selection by it can: if every suspicion were "
        f"right, {len(suspects)} of {n_judged} images ({len(suspects) / n_judged:.1%}) would stand "
        f"under another class, most of all in {widest} ({given.count(widest)} of "
        f"{audit.classes[widest]}). {_QUESTION}"
    )
