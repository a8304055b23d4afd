"""s6 evaluate: opens the test set and measures fidelity and memorisation; draws figures."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from governance.records.comparison import Control
from governance.records.dataset import DatasetIdentity
from governance.records.errors import EvidenceError
from governance.records.evaluation import (
    AuthenticityRecord,
    CopiedPartsRecord,
    DataCopyingRecord,
    EvaluationRecord,
    MemorisationRecord,
    NearestPair,
    Opening,
)
from governance.records.run import Figure
from governance.records.training import TrainingRecord
from governance.sealing.access_log import AccessLog
from governance.sealing.seal import Leaf, SealedTestSet
from medisynth.data.reading.contact_sheet import contact_sheet
from medisynth.data.reading.ingest import decode_bytes, to_square
from medisynth.data.reading.synthetic_mark import read_mark
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.metrics.controls import control_images
from medisynth.metrics.copying import authenticity, copied_parts, data_copying
from medisynth.metrics.membership import membership_attack
from medisynth.metrics.memorisation import memorisation
from pipelines.current_run.context import (
    SEALED_READS,
    RunContext,
    SplitImages,
    TrainedGenerator,
    add_figures,
    isolation_on_record,
)
from pipelines.finished_runs.lineage import baseline_of
from pipelines.steps import boundaries, external, further_extractors, usefulness
from pipelines.steps.fidelity import TestImages, levels_of, measure_fidelity, measured_or_note

_T = TypeVar("_T")
_NOT_GIVEN = "the images that the generator was trained on were not given"
_N_CONTROL = 24
_N_SHOWN = 8


def run(trained: TrainedGenerator, split: SplitImages, context: RunContext) -> EvaluationRecord:
    """Evaluate the images that are on record; errors as in `evaluate`.

    Raises:
        EvidenceError: Checkpoint or synthetic images are not those on record.
    """
    boundaries.samples_drawn(trained, context)
    return evaluate(trained, split, context)


def evaluate(
    trained: TrainedGenerator, split: SplitImages, context: RunContext
) -> EvaluationRecord:
    """Open the sealed test set, on record, and evaluate the synthetic images against it.

    Raises:
        SealError: A test image is not the one that was sealed.
    """
    training, tuning, sealed_test = split.training, split.tuning, split.sealed_test
    plan_sha256 = context.store.artifacts()["plan.json"]
    _close_access_log(split.access_log, context)
    opening, test = _open(sealed_test, trained, plan_sha256, training.pixels.shape[1], context)
    if note := sealed_test.take_note():
        context.console.warn(note)
    use = "its first use" if opening.number == 1 else f"use {opening.number}: read as exploratory"
    context.console.say(f"opened the sealed test set: {use}")
    made = context.folder.get(TrainingRecord)  # the self-test trains nothing
    is_known = made is None or made.knows_training

    def searched(what: str, measure: Callable[[], _T]) -> tuple[_T | None, tuple[str, ...]]:
        if is_known:
            return measured_or_note(what, measure)
        return None, (f"{what} was not evaluated: {_NOT_GIVEN}",)

    memory, memory_notes = searched(
        "memorisation",
        lambda: memorisation(
            trained.synthetic,
            trained.sample_paths,
            training.pixels,
            training.image_ids,
            tuning.pixels,
        ),
    )
    attack, attack_notes = searched(
        "membership",
        lambda: membership_attack(
            trained.synthetic,
            training.pixels,
            training.patient_ids,
            tuning.pixels,
            tuning.patient_ids,
            seed=context.config.seed,
        ),
    )
    copying = _Copying()
    copying_notes: tuple[str, ...] = (f"copied parts were not evaluated: {_NOT_GIVEN}",)
    if is_known:
        copying, copying_notes = _copying(trained, training, tuning, memory, context)
    fidelity = measure_fidelity(trained, split, test, context)
    n_patients_seen = len(set(test.patients) & {*training.patient_ids, *tuning.patient_ids})
    n_images_seen = _n_test_in(test, training, tuning)
    is_apart = not n_patients_seen and not n_images_seen
    record = EvaluationRecord(
        metrics=fidelity.metrics,
        memorisation=memory,
        controls=(*fidelity.controls, *_memorisation_control(training, tuning, memory, context)),
        opening=opening,
        n_synthetic_in_test=_n_synthetic_in_test(trained.synthetic, test),
        n_test_patients_in_training=n_patients_seen,
        n_test_images_in_training=n_images_seen,
        pretrained=fidelity.pretrained,
        notes=(*fidelity.notes, *memory_notes, *attack_notes, *copying_notes),
        extraction_s=fidelity.extraction_s,
        gaps=fidelity.gaps,
        least_patients=fidelity.least_patients,
        repeats=fidelity.repeats,
        robustness=fidelity.robustness,
        membership=attack,
        diversity=fidelity.diversity,
        external=fidelity.external or external.unmeasured(context),
        parts=copying.parts,
        authenticity=copying.authenticity,
        data_copying=copying.data_copying,
        extractors=further_extractors.measure(trained, split, test, is_apart, context),
    )
    context.store.write_document(record)
    levels = levels_of(split, [leaf.id for leaf in test.leaves])
    worth = usefulness.judge(
        test.pixels, test.patients, levels, context, extractor=fidelity.extractor
    )
    if worth is not None:
        context.store.write_document(worth)
    baseline = baseline_of(training, fidelity.training_features, fidelity.extractor, record)
    context.store.write_document(baseline)
    _write_figures(trained, training, record, context)
    return record


class _Copying(NamedTuple):
    parts: CopiedPartsRecord | None = None
    authenticity: AuthenticityRecord | None = None
    data_copying: DataCopyingRecord | None = None


def _copying(
    trained: TrainedGenerator,
    training: ImageView,
    tuning: ImageView,
    memory: MemorisationRecord | None,
    context: RunContext,
) -> tuple[_Copying, tuple[str, ...]]:
    """Measure what the search by whole images cannot see; return it with notes on what lacks."""
    seed, images = context.config.seed, trained.synthetic
    parts, notes = measured_or_note(
        "the search for copied parts",
        lambda: copied_parts(
            images,
            trained.sample_paths,
            training,
            tuning,
            memorised_below=memory.threshold if memory else 0.0,
            seed=seed,
            progress=lambda done, total: context.console.progress(
                "searching for copied parts", done, total
            ),
        ),
    )
    nearer, more = measured_or_note("authenticity", lambda: authenticity(images, training, tuning))
    score, last = measured_or_note("C_T", lambda: data_copying(images, training, tuning, seed=seed))
    return _Copying(parts, nearer, score), (*notes, *more, *last)


def _close_access_log(access_log: AccessLog, context: RunContext) -> None:
    access_log.stop()
    journal = context.store.journal
    if isolation_on_record(journal) is None:
        raise EvidenceError(
            f"{journal.path}: no proof of the training process's isolation is on record; start a "
            "new run"
        )
    journal.append(SEALED_READS, {"n_sealed_reads": access_log.n_opens})


def _open(
    sealed_test: SealedTestSet,
    trained: TrainedGenerator,
    plan_sha256: str,
    size_px: int,
    context: RunContext,
) -> tuple[Opening, TestImages]:
    done = 0

    def read(data: bytes, leaf: Leaf) -> tuple[Leaf, Pixels, bool]:
        nonlocal done
        image = decode_bytes(data, leaf.path)
        done += 1
        context.console.progress("reading test images", done, sealed_test.record.n_images)
        square = to_square(image.grey, size_px, context.config.data.fit)
        return leaf, square, read_mark(data) is not None

    opening, items = sealed_test.open(
        purpose="evaluation of the released checkpoint",
        plan_sha256=plan_sha256,
        model_sha256=trained.checkpoint_sha256,
        read=read,
    )
    return opening, TestImages(
        leaves=tuple(leaf for leaf, _, _ in items),
        pixels=np.stack([square for _, square, _ in items]),
        has_mark=tuple(mark for _, _, mark in items),
    )


def _n_synthetic_in_test(synthetic: Pixels, test: TestImages) -> int:
    """Count test images that have a synthetic mark or equal a synthetic image of this run."""
    drawn = set(_digests(synthetic))
    equal = (digest in drawn for digest in _digests(test.pixels))
    return sum(mark or same for mark, same in zip(test.has_mark, equal, strict=True))


def _n_test_in(test: TestImages, *views: ImageView) -> int:
    """Count test images whose pixels are in one of the views, under any name and patient."""
    seen = {digest for view in views for digest in _digests(view.pixels)}
    return sum(digest in seen for digest in _digests(test.pixels))


def _digests(images: Pixels) -> Iterator[bytes]:
    return (hashlib.sha256(pixels.tobytes()).digest() for pixels in images)


def _memorisation_control(
    training: ImageView, tuning: ImageView, memory: MemorisationRecord | None, context: RunContext
) -> tuple[Control, ...]:
    """Try the memorisation check on copies of training images, which it must flag."""
    if memory is None:
        return ()
    copies = control_images("copycat", training.pixels, _N_CONTROL, context.config.seed)
    names = [str(number) for number in range(len(copies))]
    audit = memorisation(copies, names, training.pixels, training.image_ids, tuning.pixels)
    return (
        Control(
            name="copycat",
            metric_id="memorisation-flagged-fraction",
            value=audit.n_flagged / audit.n_synthetic,
            meaning="training images themselves: the memorisation check must flag all, 1.0",
            ci95=audit.share_ci95,
            n_images=audit.n_synthetic,
        ),
    )


def _write_figures(
    trained: TrainedGenerator, training: ImageView, record: EvaluationRecord, context: RunContext
) -> None:
    store, seed = context.store, context.config.seed
    rng = np.random.default_rng(seed)
    n = min(_N_SHOWN, len(training))
    real = training.pixels[np.sort(rng.choice(len(training), n, replace=False))]
    n_drawn = min(3 * n, len(trained.synthetic))
    drawn = np.sort(rng.choice(len(trained.synthetic), n_drawn, replace=False))
    source = _source(context)
    rows: list[tuple[str, Sequence[Pixels], Sequence[str]]] = [
        (f"{source.upper()}: training images, drawn at random", list(real), ())
    ]
    for first in range(0, n_drawn, n):
        numbers = drawn[first : first + n]
        title = "SYNTHETIC: drawn at random, none picked by hand" if first == 0 else "SYNTHETIC"
        rows.append((title, list(trained.synthetic[numbers]), [f"no. {k}" for k in numbers]))
    store.write_bytes("figures/samples.png", contact_sheet(rows))
    figures = [
        Figure(
            path="figures/samples.png",
            title=f"{source.capitalize()} and synthetic images",
            caption=f"First row: {source} training images. Other rows: synthetic images, drawn "
            f"at random with seed {seed}, no hand-picking.",
        )
    ]
    if record.memorisation is not None:
        threshold = record.memorisation.threshold
        figures.append(
            _pairs_figure(
                _Sheet(
                    "figures/nearest_training.png",
                    "Nearest training images",
                    "The synthetic images closest to a training image, each above its neighbour. "
                    "Distance is relative to that of a typical neighbour; at or below "
                    f"{threshold:.3f} an image is flagged as a possible copy.",
                    ("the images nearest to any training image", "the nearest training image"),
                    [f"distance {pair.distance:.3f}" for pair in record.memorisation.closest],
                ),
                record.memorisation.closest,
                trained,
                training,
                context,
            )
        )
    if record.parts is not None:
        figures.append(
            _pairs_figure(
                _Sheet(
                    "figures/copied_parts.png",
                    "Training images that synthetic ones agree with in parts",
                    "The synthetic images that agree best with a training image or a part of one, "
                    "mirrored, moved or enlarged if need be, each above that image. From an agreement "
                    f"of {record.parts.threshold:.3f} an image is flagged, from "
                    f"{record.parts.confirmed_from:.3f} it is a confirmed copy.",
                    ("the images that agree best in a part", "the training image"),
                    [f"agreement {1 - pair.distance:.3f}" for pair in record.parts.closest],
                ),
                record.parts.closest,
                trained,
                training,
                context,
            )
        )
    add_figures(figures, store)


def _source(context: RunContext) -> str:
    """Return "simulated" for phantoms, else "real"."""
    return "simulated" if context.folder.need(DatasetIdentity).is_simulated else "real"


class _Sheet(NamedTuple):
    """Words of a sheet of pairs; `rows` are those above the synthetic and the real images."""

    path: str
    title: str
    caption: str
    rows: tuple[str, str]
    captions: Sequence[str]


def _pairs_figure(
    sheet: _Sheet,
    pairs: Sequence[NearestPair],
    trained: TrainedGenerator,
    training: ImageView,
    context: RunContext,
) -> Figure:
    shown = pairs[:_N_SHOWN]
    by_name = {path: k for k, path in enumerate(trained.sample_paths)}
    by_id = {image_id: k for k, image_id in enumerate(training.image_ids)}
    synthetic = [trained.synthetic[by_name[pair.synthetic]] for pair in shown]
    nearest = [training.pixels[by_id[pair.training_id]] for pair in shown]
    above, below = sheet.rows
    rows: list[tuple[str, Sequence[Pixels], Sequence[str]]] = [
        (f"SYNTHETIC: {above}", synthetic, sheet.captions[:_N_SHOWN]),
        (f"{_source(context).upper()}: {below} of each", nearest, ()),
    ]
    context.store.write_bytes(sheet.path, contact_sheet(rows))
    return Figure(path=sheet.path, title=sheet.title, caption=sheet.caption)
