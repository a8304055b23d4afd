"""The section on what synthetic images are worth to a task that is judged on real patients."""

from governance.records.utility import ADDED, AUROC, MACRO_F1, REAL, Arm, TaskMeasure, UtilityRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Cell,
    Facts,
    Heading,
    LineChart,
    Section,
    Series,
    Share,
    ShareBars,
    Table,
    Text,
    cell,
    columns,
    small,
    strong,
)
from governance.reports.evidence import ReportEvidence

_HOW = (
    "Each classifier is trained on other images and judged on the same held-out patients. What "
    "synthetic images add counts only beside what cheap additions give: altered copies, draws from "
    "a Gaussian, plain copies."
)
_CURVE = (
    "The generator itself was trained on all training patients, so its images bring patients to the "
    "left of the curve that the real images there lack."
)


def usefulness_section(evidence: ReportEvidence) -> Section | None:
    """Show the arms side by side and the learning curve; None where no task was evaluated."""
    record = evidence.get(UtilityRecord)
    if record is None:
        return None
    blocks: list[Block]
    if not record.arms:
        blocks = [Text(formats.sentence(f"Not evaluated: {record.reason}"))]
    else:
        blocks = [Text(verdict_sentence(record), "lead"), Text(_HOW), _bars(record), _table(record)]
        blocks += _curve(record)
        blocks += [Facts(_facts(record))]
    return Section("usefulness", "7.1", "Is it useful?", main=tuple(blocks))


def verdict_sentence(record: UtilityRecord) -> str:
    """Say whether synthetic images help, from the interval of the difference to real images alone."""
    arm = record.arm(ADDED)
    gain = arm.measure(MACRO_F1) if arm is not None else None
    if gain is None or gain.difference is None:
        return "Real images with synthetic ones besides were not compared with real images alone."
    what = f"{formats.clean(record.task).capitalize()}, {record.attribute.replace('_', ' ')}"
    low, high = gain.difference_ci95 or (None, None)
    shown = formats.estimate(gain.difference, gain.difference_ci95)
    words = f"macro F1 changes by {shown[0]} ({shown[1]})" if shown[1] else f"by {shown[0]}"
    if low is None or high is None:
        return f"{what}: {words}; without an interval nothing follows."
    if low > 0:
        better = [a.name for a in record.arms if _beats(a, gain)]
        than = f", but {' and '.join(better)} gives as much or more" if better else ""
        return f"{what}: synthetic images help{than}; {words}."
    if high < 0:
        return f"{what}: synthetic images harm; {words}."
    return f"{what}: no gain from synthetic images is shown; {words}."


def _beats(arm: Arm, gain: TaskMeasure) -> bool:
    if arm.name == ADDED or not arm.name.startswith(f"{REAL} + "):
        return False
    own = arm.measure(MACRO_F1).difference
    return own is not None and gain.difference is not None and own >= gain.difference


def _bars(record: UtilityRecord) -> ShareBars:
    rows = tuple(
        (arm.name, (Share(arm.measure(MACRO_F1).value, arm.measure(MACRO_F1).ci95),))
        for arm in record.arms
    )
    label = f"macro F1 in per cent, {formats.counted(record.n_test_patients, 'held-out patient')}"
    return ShareBars("Classifiers by their training images", label, ("macro F1",), rows)


def _table(record: UtilityRecord) -> Table:
    head = columns(
        ("Training images", 0.31),
        ("Macro F1", 0.17, "right"),
        ("Less real alone", 0.19, "right"),
        ("AUROC", 0.17, "right"),
        ("Images", 0.16, "right"),
    )
    rows = []
    for arm in record.arms:
        f1, auroc = arm.measure(MACRO_F1), arm.measure(AUROC)
        difference = ("", "")
        if f1.difference is not None:
            difference = formats.estimate(f1.difference, f1.difference_ci95)
        rows.append(
            (
                cell(strong(arm.name), small(arm.meaning)),
                _estimate(formats.estimate(f1.value, f1.ci95)),
                _estimate(difference),
                _estimate(formats.estimate(auroc.value, auroc.ci95)),
                cell(f"{arm.n_real:,} real", small(f"{arm.n_other:,} others")),
            )
        )
    return Table(head, tuple(rows))


def _estimate(shown: tuple[str, str]) -> Cell:
    return cell(shown[0], small(shown[1])) if shown[1] else cell(shown[0])


def _curve(record: UtilityRecord) -> list[Block]:
    """Draw macro F1 over the number of training patients, all of them last."""
    series = []
    for name in (REAL, ADDED):
        whole = record.arm(name)
        points = [(p.n_patients, p.value) for p in record.curve if p.arm == name]
        if whole is not None:
            points.append((record.n_training_patients, whole.measure(MACRO_F1).value))
        if len(points) > 1:
            x, y = zip(*sorted(points), strict=True)
            series.append(Series(name, tuple(float(n) for n in x), y))
    if not series:
        return []
    n_draws = max(len(point.values) for point in record.curve)
    chart = LineChart("Learning curve", "real training patients", "macro F1", tuple(series))
    note = f"Points left of the last are means over {formats.counted(n_draws, 'draw')} of patients."
    return [Heading("With fewer real patients"), chart, Text(f"{note} {_CURVE}", "note")]


def _facts(record: UtilityRecord) -> tuple[tuple[str, Cell], ...]:
    groups = [
        f"{level} ({formats.counted(n, 'patient')}): {formats.number(own, 3)} "
        f"{record.arms[0].name}, {formats.number(other, 3)} {arm.name}"
        for arm in record.arms
        if arm.name == ADDED
        for (level, n, own), (_, _, other) in zip(
            record.arms[0].subgroups, arm.subgroups, strict=True
        )
    ]
    rows = [
        (
            "Told apart",
            cell(
                ", ".join(record.levels),
                small(f"guessing reaches a macro F1 of about {1 / len(record.levels):.2f}"),
            ),
        ),
        ("Labels of synthetic images", cell(record.labels_from)),
        ("Method", cell(record.method)),
        ("Features", cell(f"{record.extractor}, {formats.short(record.extractor_sha256)}")),
    ]
    if groups:
        rows.append(("Macro F1 by subgroup", cell(*groups)))
    return tuple(rows)
