"""Checks of principle 6: the design of the model and what supports it."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import (
    LEAST_SEEDS,
    OUR_TRAINING,
    check,
    counted,
    estimated,
    judge,
    listed,
    not_evaluated,
    overall_metrics,
    seed_values,
    spread_words,
)
from governance.records.base import Document
from governance.records.comparison import MUST_BEAT, Control, not_beaten, overlap, to_beat
from governance.records.evaluation import EvaluationRecord
from governance.records.item import CheckResult, Observed
from governance.records.lineage import ChangeRecord, Lineage
from governance.records.partition import SealRecord
from governance.records.policy import Criterion
from governance.records.run import Hazards, Plan
from governance.records.training import Curve, TrainingRecord

AUGMENTATION = "augmentation"  # name of the control made by simple augmentation
_BASELINES = ("black", "noise", "blur", "pca", AUGMENTATION)
_FLOOR_IS_ONE = "fd_ratio"  # already a ratio to the floor, so it has none of its own
_METHOD = (
    "KID on tuning images and on the held-out test set beside that of controls; floors of all "
    "overall metrics; metrics of the parent run"
)
MODEL_FIELDS = (
    "architecture",
    "sizes",
    "losses",
    "optimiser",
    "schedule",
    "augmentation",
    "pre-training",
)


@dataclass(frozen=True)
class _Bout:
    """KID of the synthetic images beside the KID of the controls they must beat."""

    where: str
    value: float
    ci95: tuple[float, float] | None
    controls: tuple[Control, ...]
    source: type[Document]
    apart: tuple[str, ...]  # controls to beat with intervals apart

    @property
    def not_beaten(self) -> tuple[str, ...]:
        """Controls that are as near, or not clearly further away, where that is asked for."""
        near = not_beaten(self.value, self.controls)
        return tuple(c.name for c in self.controls if c.name in near or self._overlaps(c))

    def _overlaps(self, control: Control) -> bool:
        return control.name in self.apart and overlap(self.ci95, control.ci95)

    @property
    def words(self) -> str:
        """Say which controls are beaten or not, with their KID and intervals."""
        numbers = [f"KID {estimated(self.value, self.ci95)}"]
        numbers += [
            f"{control.name} {estimated(control.value, control.ci95)}"
            + (", intervals overlap" if overlap(self.ci95, control.ci95) else "")
            for control in self.controls
        ]
        names = self.not_beaten
        is_worse = bool(not_beaten(self.value, self.controls))
        worse = "no better than" if is_worse else "not better with intervals apart than"
        said = worse if names else "better than"
        whom = listed(names or [control.name for control in self.controls])
        return f"{said} {whom} on {self.where} ({'; '.join(numbers)})"


@check("P6-01", step="s5_train", needs=OUR_TRAINING)
def model_description(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count fields of the model description that are empty."""
    training = documents.need(TrainingRecord)
    filled = {_field(name) for name, text in training.description.items() if text.strip()}
    empty = [name for name in MODEL_FIELDS if name not in filled]
    empty += [
        name
        for name, text in training.description.items()
        if not text.strip() and _field(name) not in MODEL_FIELDS
    ]
    return judge(
        criterion,
        Observed(value=len(empty)),
        reason=f"empty: {listed(empty)}" if empty else f"filled: {', '.join(MODEL_FIELDS)}",
        method="fields of the description that the generator gives of itself",
        source=TrainingRecord,
        limitations="Completeness was checked, not quality.",
    )


def _field(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(" ", "-")


@check("P6-02", step="s5_train", needs=OUR_TRAINING)
def goals_frozen_before_training(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that the plan was frozen and hashed before the test set was sealed."""
    plan, seal = documents.need(Plan), documents.need(SealRecord)
    documents.need(TrainingRecord)
    if documents.plan_sha256 is None:
        return not_evaluated("the digest of the plan is not on record", source=Plan)
    return judge(
        criterion,
        Observed(value=plan.frozen_utc <= seal.sealed_utc),
        reason=f"plan {documents.plan_sha256[:12]} frozen {plan.frozen_utc:%Y-%m-%d %H:%M:%S} UTC, "
        f"test set sealed {seal.sealed_utc:%Y-%m-%d %H:%M:%S} UTC",
        method="time of the frozen plan compared with the sealing; training takes its images from "
        "the step that seals, so it starts later",
        source=Plan,
        limitations="Times are those of the machine's clock.",
    )


@check("P6-03", step="s6_evaluate")
def baselines(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that simple controls are beaten, and floor, baselines and parent are reported.

    Where feature extractors disagree on the former, the policy says what becomes of the item.
    """
    bouts = (*_bouts(documents), *_further_bouts(documents))
    rule = documents.policy.extractors
    split = _disputed(documents)
    if split and rule is not None and rule.on_disagreement == "not evaluated":
        words = "; ".join(bout.words for bout in bouts)
        return not_evaluated(
            f"the feature extractors disagree on {listed(split)}: {words}",
            method=_METHOD,
            source=EvaluationRecord,
        )
    worse = [bout for bout in bouts if bout.not_beaten]
    if worse:
        # A failed comparison counts even if others are missing.
        return judge(
            criterion,
            Observed(value=False),
            reason="; ".join(bout.words for bout in worse),
            method=_METHOD,
            source=worse[0].source,
        )
    return _reported(documents, criterion)


def _reported(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Check that floors, baselines and parent model are on record with intervals."""
    evaluation = documents.need(EvaluationRecord)
    overall = [m for m in overall_metrics(evaluation) if not m.id.startswith(_FLOOR_IS_ONE)]
    if not overall:
        reason = next((m.reason for m in evaluation.metrics if m.reason), "")
        return not_evaluated(f"no metric was evaluated: {reason}", source=EvaluationRecord)
    controls = {c.name: c for c in evaluation.controls if c.metric_id.startswith("kid")}
    found = [controls[name] for name in _BASELINES if name in controls]
    bare = [f"floor of {m.id}" for m in overall if m.floor is not None and m.floor_ci95 is None]
    bare += [f"control {control.name}" for control in found if control.ci95 is None]
    n_floors = sum(m.floor is not None for m in overall)
    gaps = [f"floor of {m.id}" for m in overall if m.floor is None]
    gaps += [f"control {name}" for name in _must_beat(documents) if name not in controls]
    if AUGMENTATION not in controls:
        gaps.append("simple augmentation of training images: no such control is on record")
    gaps += [*_not_compared(documents), *_previous_model(documents), *_no_second(documents)]
    names = ", ".join(control.name for control in found)
    against = "; ".join(b.words for b in (*_bouts(documents), *_further_bouts(documents)))
    if gaps and not bare:
        return not_evaluated(
            f"lacking: {listed(gaps)}; with intervals: real-against-real floor of "
            f"{counted(n_floors, 'metric')}, controls {names or 'none'}"
            + (f"; {against}" if against else ""),
            method=_METHOD,
            source=EvaluationRecord,
        )
    return judge(
        criterion,
        Observed(value=not bare),
        reason=f"without interval: {listed(bare)}"
        if bare
        else f"{against}; floor, controls ({names}) and previous model, all with intervals",
        method=_METHOD,
        source=EvaluationRecord,
    )


def _not_compared(documents: JudgedRun) -> list[str]:
    """Say which controls lack a comparison on tuning images, and why; empty if none does."""
    training = documents.get(TrainingRecord)
    comparison = training.comparison if training else None
    there = {control.name for control in comparison.controls} if comparison else set()
    missing = [name for name in _must_beat(documents) if name not in there]
    why = comparison.reason if comparison else ""
    what = f"comparison with {' and '.join(missing)} on tuning images"
    return [f"{what}: {why or 'not on record'}"] if missing else []


def _must_beat(documents: JudgedRun) -> tuple[str, ...]:
    """Return the controls that the generator must beat; of old policies, those of their day."""
    return _apart(documents) or MUST_BEAT


def _apart(documents: JudgedRun) -> tuple[str, ...]:
    return to_beat(documents.policy.controls, "kid")


def _previous_model(documents: JudgedRun) -> list[str]:
    """Return why there is no comparison with the parent run; empty if there is one."""
    if documents.need(Lineage).is_first:
        return ["previous model: this is a first run"]
    change = documents.get(ChangeRecord)
    fair = [
        m
        for m in (change.metrics if change else ())
        if not m.subgroup and not m.unfair and m.before_ci95 and m.after_ci95
    ]
    return [] if fair else ["previous model: no metric of it can be compared"]


def _bouts(documents: JudgedRun) -> tuple[_Bout, ...]:
    """Return the comparisons with controls on tuning images and on the held-out test set."""
    bouts, apart = [], _apart(documents)
    training = documents.get(TrainingRecord)
    evaluation = documents.get(EvaluationRecord)
    tuning = training.comparison if training else None
    if tuning is not None and tuning.value is not None and tuning.controls:
        bouts.append(
            _Bout(
                "tuning images",
                tuning.value,
                tuning.ci95,
                tuning.controls,
                TrainingRecord,
                apart,
            )
        )
    for metric in overall_metrics(evaluation) if evaluation else ():
        controls = tuple(
            control
            for control in (evaluation.controls if evaluation else ())
            if control.name in _must_beat(documents) and control.metric == "kid"
        )
        if metric.id.startswith("kid") and metric.value is not None and controls:
            where = "held-out test images"
            bouts.append(_Bout(where, metric.value, metric.ci95, controls, EvaluationRecord, apart))
    return tuple(bouts)


def _further_bouts(documents: JudgedRun) -> tuple[_Bout, ...]:
    """Return the comparisons by further extractors, each with the controls that it can tell.

    A control that an extractor cannot tell from training images is no worse than these to it, so
    that a generator need not beat it there.
    """
    evaluation = documents.get(EvaluationRecord)
    if evaluation is None or documents.policy.extractors is None:
        return ()
    apart, bouts = _apart(documents), []
    for one in evaluation.extractors:
        known = {control.name: control for control in one.controls}
        copies = known.get("copycat")
        controls = tuple(
            known[name]
            for name in _must_beat(documents)
            if name in known
            and copies is not None
            and known[name].value > copies.value
            and not overlap(known[name].ci95, copies.ci95)
        )
        if one.metric.value is not None and controls:
            where = f"held-out test images by the extractor {one.name}"
            bouts.append(
                _Bout(where, one.metric.value, one.metric.ci95, controls, EvaluationRecord, apart)
            )
    return tuple(bouts)


def _disputed(documents: JudgedRun) -> list[str]:
    """Return the controls that one feature extractor finds beaten and another does not.

    Empty where another control is not beaten by the word of every extractor that can tell it.
    """
    voices: dict[str, set[bool]] = {}
    own = _bouts(documents)
    for name in {control.name for bout in own for control in bout.controls}:
        voices[name] = {any(name in bout.not_beaten for bout in own)}
    for bout in _further_bouts(documents):
        for control in bout.controls:
            voices.setdefault(control.name, set()).add(control.name in bout.not_beaten)
    if any(said == {True} for said in voices.values()):
        return []
    return sorted(name for name, said in voices.items() if len(said) > 1)


def _no_second(documents: JudgedRun) -> list[str]:
    """Return why no second feature extractor has a say; empty where one has, or none was asked."""
    if documents.policy.extractors is None or _further_bouts(documents):
        return []
    extractors = documents.need(EvaluationRecord).extractors
    reasons = [f"{e.name}: {e.metric.reason}" for e in extractors if e.metric.reason]
    reasons += [
        f"{e.name} tells no control from training images"
        for e in extractors
        if e.metric.value is not None
    ]
    return [
        f"KID by a second feature extractor ({listed(reasons) if reasons else 'none was used'})"
    ]


@check("P6-06", step="s5_train", needs=OUR_TRAINING)
def overfitting(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Report the largest relative gap between a loss on tuning images and in training."""
    training = documents.need(TrainingRecord)
    gaps = _loss_gaps(training.curves)
    if not gaps:
        return not_evaluated(
            "the metric is missing: no curve holds one loss on both training and tuning images "
            "(a loss or the discriminator's output on tuning images)",
            source=TrainingRecord,
        )
    gap, words = max(gaps)
    return judge(
        criterion,
        Observed(value=gap, unit="fraction of the training loss"),
        reason=f"largest: {words}",
        method="last loss on tuning images less the mean training loss of the last tenth of "
        "steps, over the latter",
        source=TrainingRecord,
        limitations="The training loss is of single batches, before weights were averaged and "
        "with the augmentation in use; the loss on tuning images is of the averaged weights.",
    )


def _loss_gaps(curves: Sequence[Curve]) -> list[tuple[float, str]]:
    """Return each relative gap between tuning and training loss, with a sentence on it."""
    found = []
    for tuning in (c for c in curves if "tuning" in c.name and "loss" in c.name and c.values):
        for training in curves:
            if training.stage != tuning.stage or _loss(training) != _loss(tuning):
                continue
            if training is tuning or "tuning" in training.name or not training.values:
                continue
            tail = training.values[-max(1, len(training.values) // 10) :]
            before, after = fmean(tail), tuning.values[-1]
            if before > 0:
                words = (
                    f"{tuning.stage}, {_loss(tuning)}: training {before:.4g}, tuning {after:.4g}"
                )
                found.append(((after - before) / before, words))
    return found


def _loss(curve: Curve) -> str:
    """Return the name of a loss without its partition and bracketed text."""
    words = curve.name.split("(")[0].split()
    return " ".join(word for word in words if word not in ("training", "tuning"))


@check("P6-09", step="s7_evidence")
def stability(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count this configuration's seeds in the workspace and report the endpoint's spread."""
    lineage, training = documents.need(Lineage), documents.need(TrainingRecord)
    seeds = sorted({run.seed for run in lineage.seeds})
    runs = counted(lineage.n_runs, "run")
    trials = counted(len(training.selection.candidates), "checkpoint candidate")
    words = (
        f"{counted(len(seeds), 'seed')} of this configuration ({', '.join(map(str, seeds))}); "
        f"{spread_words(lineage)}; {runs} of this model on this data set, {trials} in this one"
    )
    method = "finished runs of the workspace that differ from this one in their seed alone"
    if len(seeds) >= LEAST_SEEDS and len(seed_values(lineage)) < LEAST_SEEDS:
        return not_evaluated(words, method=method, source=Lineage)
    return judge(
        criterion,
        Observed(value=len(seeds)),
        reason=words,
        method=method,
        source=Lineage,
        limitations="Runs of other workspaces, and runs that were deleted, are not counted.",
    )


@check("P6-10", step="start")
def hazards_are_linked(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count hazards that no item of the policy covers."""
    hazards = documents.need(Hazards).hazards
    if not hazards:
        return not_evaluated("the list of hazards is empty", source=Hazards)
    known = {item.id for item in documents.policy.items}
    loose = [
        f"{h.id} ({', '.join(i for i in h.items if i not in known) or 'no item'})"
        for h in hazards
        if not h.items or not known.issuperset(h.items)
    ]
    n_own = sum(h.set_by == "configuration" for h in hazards)
    return judge(
        criterion,
        Observed(value=len(loose)),
        reason=f"links that lead to no item: {listed(loose)}"
        if loose
        else f"0 of {counted(len(hazards), 'hazard')} without a check; {n_own} from the configuration",
        method="item ids of every listed hazard looked up in the frozen policy",
        source=Hazards,
        limitations="That the list is complete, and that an item is enough, is for people to "
        "judge; an item that looks at a hazard may itself be open.",
    )
