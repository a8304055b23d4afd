"""One fault at a time in design, testing, information and monitoring: what the item then says."""

from governance.records.base import ItemStatus
from governance.records.comparison import Control, TuningComparison
from governance.records.evaluation import EvaluationRecord, MetricResult, SubgroupGap
from governance.records.item import FoundWord
from governance.records.lineage import ChangedMetric
from governance.records.run import Hazard
from governance.records.training import Curve
from tests.governance.checks.faults import (
    FAILED,
    INCEPTION,
    NOT_EVALUATED,
    PASSED,
    RECORDED,
    Change,
    both,
    but,
    comparison,
    entry,
    metric,
    without,
)
from tests.stored_run.stored import good

PARENT = "20261001T090000Z-abc"
first_run = but("lineage", parent=None, delta=None, reason="first run")
damaged = but("lineage", parent=None, delta=None, fault="plan.json: recorded as sha256:1")
UNMEASURED = {
    "P6-08": "agreement with a plane classifier, and checks of sector and skull",
    "P7-02": "no command turing-test",
    "P7-03": "no command turing-test",
    "P8-04": "evaluation.utility is off",
}


def _controls(value: float = 1, **ci95: tuple[float, float] | None) -> Change:
    return but(
        "evaluation",
        controls=tuple(
            Control(name=n, metric_id=f"kid-{INCEPTION}", value=value, meaning="", ci95=c)
            for n, c in ci95.items()
        ),
    )


def _by_domain(value: float, **controls: float) -> Change:
    """KID of images and controls by the extractor `domain`, each 0.1 to either side."""
    (one,) = good().need(EvaluationRecord).extractors
    found = one.metric.model_copy(update={"value": value, "ci95": (value - 0.1, value + 0.1)})
    known = {"copycat": 0.1, **controls}
    beside = tuple(
        Control(name=n, metric_id=found.id, value=v, meaning="", ci95=(v - 0.1, v + 0.1))
        for n, v in known.items()
    )
    changed = one.model_copy(update={"metric": found, "controls": beside})
    return but("evaluation", extractors=(changed,))


# The FID network alone: what it finds is not disputed.
_alone = but("evaluation", extractors=())


def _on_tuning(value: float, **controls: float) -> Change:
    return but("training", comparison=comparison(value, **controls))


def _gaps(*gaps: SubgroupGap) -> Change:
    return but("evaluation", gaps=gaps)


def _overall_and(*parts: MetricResult) -> Change:
    """Fidelity overall, as in the complete run, and the parts given."""
    overall = (metric("kid"), metric("fid"), metric("precision", better="higher"))
    return but("evaluation", metrics=(*overall, *parts))


def _by(subgroup: str, **changes: object) -> tuple[MetricResult, ...]:
    return tuple(
        metric(family, subgroup=subgroup, **changes) for family in ("kid", "fid", "precision")
    )


def _too_few(subgroup: str) -> tuple[MetricResult, ...]:
    words = "too few: 12 patients, needs 30"
    return _by(subgroup, status="not evaluated", value=None, reason=words, n_patients=12)


def _drawn_again(*values: float) -> Change:
    drawn = (entry("evaluation", "repeats", seed=n, value=v) for n, v in enumerate(values))
    return but("evaluation", repeats=tuple(drawn))


def gap(**fields: object) -> SubgroupGap:
    """A gap between two machines that ends within the limit of 0.05, unless changed."""
    return entry("evaluation", "gaps", **fields)


def loss(alteration: str, **fields: object) -> object:
    """A loss under an alteration that ends within the limit of 0.05, unless changed."""
    return entry("evaluation", "robustness", alteration=alteration, **fields)


def curve(name: str, *values: float) -> Curve:
    return Curve(stage="diffusion", name=name, steps=tuple(range(len(values))), values=values)


def changed_metric(**fields: object) -> ChangedMetric:
    """KID of this run and of its parent, which can be compared unless changed."""
    return entry("change", "metrics", **fields)


def seed_run(seed: int, value: float | None = 0.05, n: int = 100) -> object:
    """A run of another seed."""
    fields = {"run_id": f"run-{seed}", "value": value, "metric_id": f"kid-n{n}"}
    return entry("lineage", "seeds", seed=seed, **fields)


def _of_kid(**changes: object) -> tuple[ChangedMetric, ...]:
    return (
        changed_metric(),
        changed_metric(name="KID machine=E6", subgroup="machine=E6", **changes),
    )


MODEL_CASES: list[tuple[str, Change, ItemStatus, str]] = [
    *(
        (item_id, lambda documents: documents, NOT_EVALUATED, words)
        for item_id, words in UNMEASURED.items()
    ),
    # P6 design
    (
        "P6-03",
        _controls(pca=(0.9, 1.1), blur=(0.9, 1.1)),
        NOT_EVALUATED,
        "simple augmentation of training images",
    ),
    (
        "P6-03",
        both(_alone, _on_tuning(0.364, pca=0.229, blur=0.352)),
        FAILED,
        "no better than pca, blur on tuning images (KID 0.364 [0.344 to 0.384]; pca 0.229 "
        "[0.209 to 0.249]; blur 0.352 [0.332 to 0.372], intervals overlap)",
    ),
    (
        "P6-03",
        both(_alone, _on_tuning(0.229, pca=0.229, blur=0.352)),
        FAILED,
        "no better than pca on tuning images",
    ),
    (
        "P6-03",
        both(first_run, _alone, _on_tuning(0.364, pca=0.229, blur=0.352)),
        FAILED,
        "no better than pca, blur on tuning images",
    ),
    (
        "P6-03",
        both(without("evaluation"), _on_tuning(0.364, pca=0.229, blur=0.352)),
        FAILED,
        "no better than pca, blur on tuning images",
    ),
    (
        "P6-03",
        both(_alone, _controls(0.04, pca=(0.03, 0.06), augmentation=(0.0, 0.1))),
        FAILED,
        "no better than pca on held-out test images (KID 0.050 [0.040 to 0.070]; pca 0.040 "
        "[0.030 to 0.060], intervals overlap)",
    ),
    (
        "P6-03",
        both(_alone, _on_tuning(0.21, pca=0.229, blur=0.352)),
        FAILED,
        "not better with intervals apart than pca on tuning images (KID 0.210 [0.190 to 0.230]; "
        "pca 0.229 [0.209 to 0.249], intervals overlap",
    ),
    (
        "P6-03",
        both(_alone, _controls(0.08, pca=(0.06, 0.1), blur=(0.2, 0.3), augmentation=(0.0, 0.1))),
        FAILED,
        "not better with intervals apart than pca on held-out test images",
    ),
    (
        "P6-03",
        _by_domain(1.0, pca=0.5, blur=3.0),
        NOT_EVALUATED,
        "the feature extractors disagree on pca: better than",
    ),
    (
        "P6-03",
        both(_on_tuning(0.2, pca=0.1, blur=0.352), _by_domain(0.3, pca=0.9, blur=3.0)),
        NOT_EVALUATED,
        "the feature extractors disagree on pca",
    ),
    (
        "P6-03",
        both(_on_tuning(0.2, pca=0.1, blur=0.352), _by_domain(1.0, pca=0.9, blur=3.0)),
        FAILED,
        "no better than pca on held-out test images by the extractor domain (KID 1.000",
    ),
    (
        "P6-03",
        both(_on_tuning(0.2, pca=0.1, blur=0.352), _by_domain(0.3, pca=0.15, blur=3.0)),
        FAILED,
        "no better than pca on tuning images",
    ),
    ("P6-03", _by_domain(0.3, pca=0.15, blur=3.0), PASSED, "better than blur on held-out"),
    (
        "P6-03",
        _by_domain(0.3, pca=0.15, blur=0.2),
        NOT_EVALUATED,
        "KID by a second feature extractor (domain tells no control from training images)",
    ),
    (
        "P6-03",
        but("evaluation", extractors=()),
        NOT_EVALUATED,
        "KID by a second feature extractor (none was used)",
    ),
    (
        "P6-04",
        _controls(0.06, pca=(0.055, 0.1), blur=(0.2, 0.3)),
        NOT_EVALUATED,
        "the images are too far from real ones for this to mean anything (KID 0.050",
    ),
    (
        "P6-04",
        both(
            _controls(0.06, pca=(0.055, 0.1), blur=(0.2, 0.3)),
            but("evaluation", memorisation={"n_flagged": 9, "share_ci95": (0.04, 0.16)}),
        ),
        FAILED,
        "9 of 100 flagged",
    ),
    ("P6-04", _controls(pca=(0.2, 0.4)), NOT_EVALUATED, "is unknown: no control blur"),
    ("P6-04", _controls(pca=None, blur=None), NOT_EVALUATED, "is unknown: no interval"),
    (
        "P6-04",
        but("evaluation", metrics=(metric("kid", value=None, status="not evaluated"),)),
        NOT_EVALUATED,
        "is unknown: no KID",
    ),
    (
        "P6-04",
        but(
            "evaluation",
            controls=(Control(name="copycat", metric_id="memorisation-x", value=0.9, meaning=""),),
        ),
        NOT_EVALUATED,
        "its own controls misbehave: copycat 0.9 must be at least 0.99",
    ),
    (
        "P6-07",
        _controls(0.06, pca=(0.055, 0.1), blur=(0.2, 0.3)),
        NOT_EVALUATED,
        "too far from real ones",
    ),
    (
        "P6-03",
        but("training", comparison=TuningComparison(reason="no FID weights")),
        NOT_EVALUATED,
        "comparison with pca and blur on tuning images: no FID weights",
    ),
    (
        "P6-03",
        but("training", comparison=None),
        NOT_EVALUATED,
        "comparison with pca and blur on tuning images: not on record",
    ),
    (
        "P6-03",
        _controls(pca=(0.9, 1.1), augmentation=(0.0, 0.1)),
        NOT_EVALUATED,
        "lacking: control blur",
    ),
    (
        "P6-03",
        _controls(pca=None, blur=(0.9, 1.1), augmentation=(0.9, 1.1)),
        FAILED,
        "without interval: control pca",
    ),
    (
        "P6-03",
        but("evaluation", metrics=(metric("kid", floor_ci95=None),)),
        FAILED,
        "without interval: floor of kid",
    ),
    (
        "P6-03",
        but("evaluation", metrics=(metric("kid", floor=None, floor_ci95=None),)),
        NOT_EVALUATED,
        "lacking: floor of kid",
    ),
    ("P6-03", first_run, NOT_EVALUATED, "previous model: this is a first run"),
    ("P6-03", but("change", metrics=()), NOT_EVALUATED, "no metric of it can be compared"),
    ("P6-03", but("evaluation", metrics=()), NOT_EVALUATED, "no metric was evaluated"),
    ("P6-06", but("training", curves=()), NOT_EVALUATED, "one loss on both training and tuning"),
    (
        "P6-06",
        but("training", curves=(curve("training loss", 1.0), curve("tuning score", 1.0))),
        NOT_EVALUATED,
        "one loss on both",
    ),
    (
        "P6-06",
        but(
            "training", curves=(curve("content loss (L1)", 0.5), curve("tuning content loss", 0.75))
        ),
        RECORDED,
        "diffusion, content loss: training 0.5, tuning 0.75",
    ),
    (
        "P6-05",
        but("evaluation", membership=None),
        NOT_EVALUATED,
        "AUC of a membership-inference",
    ),
    (
        "P6-05",
        but("evaluation", membership={"auc": 0.62, "ci95": (0.55, 0.69)}),
        FAILED,
        "AUC 0.620 [0.550 to 0.690], 80 training patients against 40 tuning patients",
    ),
    (
        "P6-05",
        but("evaluation", membership={"auc": 0.55, "ci95": (0.42, 0.68)}),
        NOT_EVALUATED,
        "no more than chance, but with so few patients a bound of 0.6 is not shown",
    ),
    (
        "P6-05",
        _controls(0.06, pca=(0.055, 0.1), blur=(0.2, 0.3)),
        NOT_EVALUATED,
        "too far from real ones",
    ),
    ("P6-07", but("evaluation", metrics=(metric("kid"),)), NOT_EVALUATED, "neither coverage"),
    (
        "P6-07",
        but("evaluation", diversity={"vendi": 4}),
        FAILED,
        "smallest: Vendi score (COVERAGE",
    ),
    (
        "P6-07",
        but("evaluation", diversity={"ms_ssim": 0.7}),
        FAILED,
        "smallest: difference of pairs (1 - MS-SSIM)",
    ),
    ("P6-07", but("evaluation", diversity=None), NOT_EVALUATED, "within the limit, but Vendi"),
    (
        "P6-07",
        but(
            "evaluation",
            metrics=(metric("recall", value=None, status="not evaluated", reason="no weights"),),
        ),
        NOT_EVALUATED,
        "no weights",
    ),
    ("P6-09", but("lineage", seeds=(seed_run(0),)), FAILED, "1 seed of this configuration (0)"),
    (
        "P6-09",
        but("lineage", seeds=(seed_run(0), seed_run(0), seed_run(1))),
        FAILED,
        "2 seeds of this configuration (0, 1)",
    ),
    (
        "P6-09",
        but("lineage", seeds=(seed_run(0, None), seed_run(1, None), seed_run(2))),
        NOT_EVALUATED,
        "no spread: the primary endpoint is known of 1 seed",
    ),
    (
        "P6-10",
        but("hazards", hazards=(Hazard(id="HZ-1", hazard="x", items=("P6-04", "P6-99")),)),
        FAILED,
        "HZ-1 (P6-99)",
    ),
    (
        "P6-10",
        but("hazards", hazards=(Hazard(id="HZ-1", hazard="x", items=()),)),
        FAILED,
        "HZ-1 (no item)",
    ),
    ("P6-10", but("hazards", hazards=()), NOT_EVALUATED, "is empty"),
    # P8 testing
    (
        "P8-03",
        _overall_and(),
        NOT_EVALUATED,
        "not evaluated: by machine",
    ),
    (
        "P8-03",
        _overall_and(*_by("plane=Fetal brain"), *_by("operator=Op. 1"), *_too_few("machine=E6")),
        NOT_EVALUATED,
        "by machine (too few: 12 patients, needs 30)",
    ),
    (
        "P8-03",
        _overall_and(
            *_by("plane=Fetal brain"),
            *_by("operator=Op. 1"),
            *_by("machine=E6"),
            *_too_few("machine=S10"),
            *_by("maternal age=30 to 35"),
        ),
        PASSED,
        "reported overall and by machine, plane, operator, maternal age",
    ),
    (
        "P8-03",
        both(but("coverage", levels=()), _overall_and()),
        NOT_EVALUATED,
        "no attribute with two levels is recorded",
    ),
    ("P8-05", _overall_and(), NOT_EVALUATED, "no metric by subgroup is on record"),
    (
        "P8-05",
        both(_overall_and(*_too_few("machine=E6"), *_too_few("machine=S10")), _gaps()),
        NOT_EVALUATED,
        "no attribute has two levels of 30 patients that could be compared; too few to judge: "
        "machine=E6, machine=S10",
    ),
    (
        "P8-05",
        _gaps(gap(), gap(attribute="plane", value=0.02, ci95=(0.0, 0.04))),
        PASSED,
        "largest: plane S10 is 0.020 [0.000 to 0.040] further from real images than E6",
    ),
    (
        "P8-05",
        _gaps(gap(value=0.2, ci95=(0.15, 0.25), p_value=0.001), gap(attribute="plane")),
        FAILED,
        "worst subgroup: machine S10 is 0.200 [0.150 to 0.250] further from real images than E6 "
        "(p 0.001, adjusted over 3 pairs)",
    ),
    (
        "P8-05",
        _gaps(gap(value=0.06, ci95=(-0.02, 0.14), p_value=0.3)),
        NOT_EVALUATED,
        "its interval reaches beyond the limit of 0.05 and the gap is not shown to be",
    ),
    (
        "P8-05",
        _gaps(gap(value=0.03, ci95=(0.0, 0.06), p_value=0.04)),
        NOT_EVALUATED,
        "more patients would tell",
    ),
    ("P8-06", but("evaluation", robustness=()), NOT_EVALUATED, "no result under changed gain"),
    (
        "P8-06",
        but("evaluation", robustness=(loss("gain", value=0.09, ci95=(0.06, 0.12)), loss("zoom"))),
        FAILED,
        "beyond the limit: gain 0.090 [0.060 to 0.120]; altered: gain, zoom",
    ),
    (
        "P8-06",
        but("evaluation", robustness=(loss("gain", value=0.06, ci95=(0.03, 0.09)),)),
        NOT_EVALUATED,
        "its interval reaches beyond the limit of 0.05 and holds it",
    ),
    ("P8-07", _drawn_again(0.05, 0.06, 0.055), PASSED, "KID over 3 seeds of sampling: mean 0.055"),
    ("P8-07", _drawn_again(0.05, 0.15, 0.1), FAILED, "SD 0.05"),
    (
        "P8-07",
        both(
            _drawn_again(0.05),
            but("lineage", seeds=(seed_run(1), seed_run(2, n=50), seed_run(0))),
        ),
        NOT_EVALUATED,
        "known of 2 seeds",
    ),
    ("P8-07", _drawn_again(), PASSED, "KID over 3 seeds: mean 0.05, SD 0.01"),
    ("P8-08", but("samples", n_asked=120), FAILED, "120 asked for, 100 drawn, 100 kept"),
    ("P8-08", but("samples", n_drawn=104), FAILED, "100 asked for, 104 drawn, 100 kept"),
    ("P8-08", but("samples", n_asked=None), NOT_EVALUATED, "not on record"),
    # P9 information
    ("P9-01", but("card_check", empty_fields=("a.b",)), FAILED, "empty: a.b"),
    ("P9-01", but("card_check", n_filled=0, n_reasoned=0), NOT_EVALUATED, "no field"),
    ("P9-02", but("card_check", untraced=("P8-02: observed 1",)), FAILED, "P8-02: observed 1"),
    ("P9-02", but("card_check", parts=()), NOT_EVALUATED, "print no number"),
    ("P9-04", but("card_check", unlisted=("P4-01 in the card",)), FAILED, "P4-01 in the card"),
    ("P9-04", without("card_check"), NOT_EVALUATED, "were not drafted"),
    ("P9-06", but("card_check", disagreements=("P4: status",)), FAILED, "P4: status"),
    ("P9-06", but("card_check", n_compared=0), NOT_EVALUATED, "nothing was compared"),
    ("P9-07", first_run, NOT_EVALUATED, "has no parent to be compared with"),
    ("P9-07", damaged, FAILED, "cannot be read: plan.json"),
    ("P9-07", without("change"), NOT_EVALUATED, "no change record"),
    (
        "P9-08",
        but(
            "card_check",
            words=(FoundWord(output="card", word="certified", context="a certified b"),),
        ),
        FAILED,
        "'certified' in card (a certified b)",
    ),
    # P10 monitoring
    ("P10-01", but("baseline", images=()), FAILED, "no image statistic"),
    (
        "P10-01",
        but("baseline", metrics=(metric("kid", ci95=None),)),
        FAILED,
        "metrics without interval: kid",
    ),
    (
        "P10-01",
        but("baseline", features=None, metrics=(), reason="no weights"),
        NOT_EVALUATED,
        "not evaluated: features, metrics (no weights)",
    ),
    ("P10-02", first_run, NOT_EVALUATED, "no earlier run"),
    ("P10-02", damaged, NOT_EVALUATED, "the parent run cannot be read"),
    (
        "P10-02",
        but("lineage", delta={"n_added": 0}),
        NOT_EVALUATED,
        f"no new data: the images are those of run {PARENT}",
    ),
    ("P10-02", but("lineage", delta=None), NOT_EVALUATED, "images of the parent run are not"),
    ("P10-02", but("change", drift=()), NOT_EVALUATED, "has no baseline"),
    ("P10-03", first_run, NOT_EVALUATED, "no earlier run"),
    (
        "P10-03",
        but("change", metrics=(changed_metric(),)),
        NOT_EVALUATED,
        "KID by subgroup in both runs; overall KID 0.06, then 0.05 (intervals overlap)",
    ),
    (
        "P10-03",
        but("change", unfair=("the data sets differ",)),
        NOT_EVALUATED,
        "not a fair comparison: the data sets differ",
    ),
    (
        "P10-03",
        but("change", metrics=_of_kid(unfair=("other real images",))),
        NOT_EVALUATED,
        "KID by subgroup",
    ),
    ("P10-03", but("change", metrics=_of_kid(after=0.1)), PASSED, "0.06, then 0.1"),
    ("P10-03", but("change", metrics=_of_kid(after=0.2)), FAILED, "largest loss: KID machine"),
    (
        "P10-03",
        but(
            "change",
            metrics=(
                *_of_kid(),
                changed_metric(name="KID machine=S10", subgroup="machine=S10", after=None),
            ),
        ),
        NOT_EVALUATED,
        "not comparable: machine=S10",
    ),
    (
        "P10-04",
        but("lineage", reason=" "),
        FAILED,
        "nobody said why the model was trained again",
    ),
    ("P10-04", but("lineage", delta=None), FAILED, "the parent's images are not on record"),
    ("P10-04", damaged, FAILED, "plan.json"),
    ("P10-04", first_run, PASSED, "first run of dsr-gan on fetal-planes-db"),
    ("P10-05", first_run, NOT_EVALUATED, "no earlier run"),
    ("P10-05", but("change", plan=()), NOT_EVALUATED, "names no change plan"),
    (
        "P10-05",
        but("change", outside_plan=("code: recipe",)),
        RECORDED,
        "not named by the plan: code: recipe",
    ),
    ("P10-06", but("lineage", parent={"checkpoint": "missing"}), FAILED, "is gone"),
    ("P10-06", but("lineage", parent={"checkpoint": "changed"}), FAILED, "has another digest"),
    ("P10-06", first_run, NOT_EVALUATED, "no earlier run"),
]
