"""The baseline of a run: what later data and later runs are held against."""

from dataclasses import asdict

from governance.evidence.documents import (
    Baseline,
    Drift,
    EvaluationRecord,
    FeatureStatistics,
    ImageStatistic,
)
from governance.statuses import ItemStatus
from medisynth.data.views import ImageView
from medisynth.errors import MetricUndefinedError
from medisynth.metrics.features import ExtractorFacts, Features
from medisynth.metrics.fingerprint import (
    feature_fingerprint,
    histogram_distance,
    image_fingerprint,
)


def baseline_of(
    training: ImageView,
    features: Features | None,
    extractor: ExtractorFacts | None,
    evaluation: EvaluationRecord,
) -> Baseline:
    """Fingerprint of the training images and of the released generator.

    Args:
        training: Training view, at least one image.
        features: Features of training images, shape (n, d); None when they were not extracted.
        extractor: What made the features; None without them.
        evaluation: Metrics of the released generator.
    """
    summary, faults = None, []
    if features is not None and extractor is not None:
        try:
            summary = FeatureStatistics(
                extractor=extractor.name,
                extractor_sha256=extractor.weights_sha256,
                **asdict(feature_fingerprint(features)),
            )
        except MetricUndefinedError as error:
            faults.append(str(error))
    measured = tuple(m for m in evaluation.metrics if m.status is ItemStatus.RECORDED)
    faults += [m.reason for m in evaluation.metrics if m.status is not ItemStatus.RECORDED]
    return Baseline(
        partition=training.partition,
        view_sha256=training.digest,
        n_images=len(training),
        n_patients=len(set(training.patient_ids)),
        image_size_px=int(training.pixels.shape[1]),
        images=tuple(ImageStatistic(**asdict(one)) for one in image_fingerprint(training.pixels)),
        features=summary,
        metrics=measured,
        reason=faults[0] if faults and not (summary and measured) else "",
    )


def drift_between(before: Baseline | None, after: Baseline | None) -> tuple[Drift, ...]:
    """How far the image statistics moved; empty when a baseline lacks or is of another size."""
    if before is None or after is None or before.image_size_px != after.image_size_px:
        return ()
    known = {one.name: one for one in before.images}
    return tuple(
        Drift(
            name=one.name,
            distance=histogram_distance(known[one.name].counts, one.counts),
            n_before=before.n_images,
            n_after=after.n_images,
        )
        for one in after.images
        if one.name in known and (known[one.name].low, known[one.name].high) == (one.low, one.high)
    )
