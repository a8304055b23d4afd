"""The section on metrics."""

from collections.abc import Sequence

from governance.records.base import ItemStatus
from governance.records.comparison import Control, ControlVerdict, control_verdicts
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.policy import Policy
from governance.records.run import Plan
from governance.records.training import TrainingRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    RangeBars,
    Section,
    Table,
    Text,
    cell,
    cells,
    columns,
    joined,
    mono,
    small,
    status_line,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.sections.training import pretrained_block
from governance.reports.sections.usefulness import usefulness_section

_SYNTHETIC, _FLOOR = "synthetic images", "real training images (floor)"
_FLOOR_NOTE = (
    "Intervals are two-sided 95 % by {unit} bootstrap. The floor is the same metric between real "
    "training and real held-out images at the same numbers: what perfect images could be expected "
    "to reach."
)


def metrics_section(evidence: ReportEvidence) -> Section:
    """Show the metrics with intervals and floor, subgroups and controls."""
    plan = evidence.get(Plan)
    evaluation = evidence.get(EvaluationRecord)
    if evaluation is None:
        text = Text("The synthetic images were not evaluated in this run: every metric is unknown.")
        return Section("metrics", "7", "Metrics", main=(text,))
    overall = tuple(metric for metric in evaluation.metrics if not metric.subgroup)
    parts = tuple(metric for metric in evaluation.metrics if metric.subgroup)
    unit = evidence.unit
    main: list[Block] = [Text(comparison_sentence(evidence)), Text(_FLOOR_NOTE.format(unit=unit))]
    if plan:
        endpoint = formats.sentence(plan.primary_endpoint)
        main.append(Text(f"Primary endpoint, fixed before training: {endpoint}"))
    main.extend(_distance_charts(evaluation))
    main.append(metric_table(overall, unit))
    main.extend(_extractor_blocks(evaluation))
    main.extend(_gap_blocks(evaluation))
    main.extend(_external_blocks(evaluation))
    main.append(Heading("Test set and synthetic images"))
    main.append(Facts(provenance_rows(evaluation, unit)))
    blocks: list[Block] = [Heading("Subgroups")]
    blocks.extend(subgroup_blocks(evaluation, unit) if parts else _no_subgroup(evaluation))
    orders = Policy.model_validate(plan.policy).controls if plan else ()
    judged = control_verdicts(evaluation.controls, orders)
    blocks.extend(_judged_controls(evaluation, judged) if judged else _controls(evaluation))
    blocks.extend(_repeat_blocks(evaluation))
    blocks.extend(_robustness_blocks(evaluation))
    blocks.extend(_diversity_blocks(evaluation))
    blocks.append(Heading("Feature extractors made by others"))
    blocks.append(pretrained_block(evaluation.pretrained))
    if evaluation.notes:
        blocks.append(Bullets(evaluation.notes))
    worth = usefulness_section(evidence)
    parts_below = (worth,) if worth is not None else ()
    return Section(
        "metrics", "7", "Metrics", blocks=tuple(blocks), sections=parts_below, main=tuple(main)
    )


def _distance_charts(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    """Draw KID with its floor and every control on one axis, and below it that of each subgroup."""
    found = [m for m in evaluation.metrics if m.value is not None and m.id.startswith("kid-")]
    overall = [m for m in found if not m.subgroup]
    if not overall:
        return ()
    label = "KID (lower is better); stroke: value, line: 95 % interval"
    metric = overall[0]
    rows = [(_SYNTHETIC, metric.value, metric.ci95), (_FLOOR, metric.floor, metric.floor_ci95)]
    rows += [(c.name, c.value, c.ci95) for c in evaluation.controls if c.metric == "kid"]
    charts = [
        RangeBars("KID beside its floor and every control", label, _known(rows), is_wide=True)
    ]
    parts = [(m.subgroup, m.value, m.ci95) for m in found if m.subgroup]
    parts += [(f"{m.subgroup}, floor", m.floor, m.floor_ci95) for m in found if m.subgroup]
    if parts:
        charts.append(RangeBars("KID by subgroup", label, _known(sorted(parts)), is_wide=True))
    return tuple(charts)


def _known(
    rows: Sequence[tuple[str, float | None, tuple[float, float] | None]],
) -> tuple[tuple[str, tuple[float, float, float, float, float]], ...]:
    return tuple(
        (name, ((ci95 or (value, value))[0], value, value, value, (ci95 or (value, value))[1]))
        for name, value, ci95 in rows
        if value is not None
    )


def comparison_sentence(evidence: ReportEvidence) -> str:
    """Say whether the images are better than simple controls, on tuning images."""
    training = evidence.get(TrainingRecord)
    comparison = training.comparison if training else None
    if comparison is not None and comparison.sentence:
        return comparison.sentence
    why = comparison.reason if comparison else "an older version left no such record"
    return formats.sentence(f"Not compared with simple controls on the tuning images: {why}")


def provenance_rows(evaluation: EvaluationRecord, unit: str) -> tuple[tuple[str, Cell], ...]:
    """Return the counts that must be zero for an honest test."""
    n_seen = evaluation.n_test_images_in_training
    seen = "not compared" if n_seen is None else formats.count(n_seen)
    return (
        (
            "Synthetic images in the held-out test set",
            cell(formats.count(evaluation.n_synthetic_in_test)),
        ),
        (
            f"Held-out {unit}s in training",
            cell(formats.count(evaluation.n_test_patients_in_training)),
        ),
        ("Held-out images with equal pixels in training", cell(seen)),
    )


def metric_table(metrics: tuple[MetricResult, ...], unit: str) -> Table:
    """Return one row for each metric: value and floor with intervals, counts, reference."""
    head = columns(
        ("Metric", 0.28),
        ("Synthetic", 0.22, "right"),
        ("Real against real", 0.23, "right"),
        ("Measured on", 0.27),
    )
    methods: dict[str, list[str]] = {}
    for metric in metrics:
        methods.setdefault(_method(metric), []).append(metric.title)
    told = [
        f"{method} ({joined(titles)})" if len(methods) > 1 else method
        for method, titles in methods.items()
        if method
    ]
    note = f"Features: {'; '.join(told)}." if told else ""
    return Table(head, tuple(_metric_row(metric, unit) for metric in metrics), note)


def _method(metric: MetricResult) -> str:
    """Return extractor, its digest, and how images were resized for it; "" without one."""
    if not metric.extractor:
        return ""
    resize = f", resize {metric.resize}" if metric.resize else ""
    return f"{metric.extractor} {formats.short(metric.extractor_sha256 or None)}{resize}"


def _no_subgroup(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    known = any(m.status is ItemStatus.RECORDED for m in evaluation.metrics)
    why = ": no attribute has two levels" if known and evaluation.least_patients else ""
    return (Text(f"No subgroup was measured{why}."),)


def subgroup_blocks(evaluation: EvaluationRecord, unit: str) -> tuple[Block, ...]:
    """Show every metric of every subgroup, one row each."""
    by_subgroup: dict[str, list[MetricResult]] = {}
    for metric in evaluation.metrics:
        if metric.subgroup:
            by_subgroup.setdefault(metric.subgroup, []).append(metric)
    head = columns(("Subgroup", 0.27), ("Synthetic", 0.40), ("Real against real", 0.33))
    rows = tuple(_subgroup_row(name, own, unit) for name, own in by_subgroup.items())
    table = Table(head, rows)
    least = evaluation.least_patients
    note = (
        f"Levels with fewer than {least} held-out {unit}s are too few. A level for which images were "
        "drawn is compared with these, any other with all synthetic images; the floor takes "
        "training images in the same way."
        if least
        else ""
    )
    return (*((Text(note),) if note else ()), table)


def _subgroup_row(name: str, metrics: list[MetricResult], unit: str) -> tuple[Cell, Cell, Cell]:
    texts = {metric.title: metric_texts(metric) for metric in metrics}
    known = [metric for metric in metrics if metric.value is not None]
    values = [
        small(f"{title}: {value} {f'({interval})' if interval else ''}".strip())
        for title, (value, interval, _, _) in texts.items()
        if value
    ]
    floors = [
        small(f"{title}: {floor} {f'({interval})' if interval else ''}".strip())
        for title, (_, _, floor, interval) in texts.items()
        if floor
    ]
    unknown = dict.fromkeys(m.reason for m in metrics if m.value is None)
    facts = [small(metric_basis(known[0], unit)), small(known[0].synthetic_from)] if known else []
    lacking = [status_line(ItemStatus.NOT_EVALUATED)] if unknown else []
    return (
        cell(strong(name), *facts),
        cell(*values, *lacking, *map(small, unknown)),
        cell(*floors) or cell(formats.DASH),
    )


def _gap_blocks(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    if not evaluation.gaps:
        return ()
    rows = []
    for gap in sorted(evaluation.gaps, key=lambda gap: -gap.value):
        value, interval = formats.estimate(gap.value, gap.ci95)
        rows.append(
            (
                cell(strong(gap.attribute)),
                cell(gap.worst, small(f"against {gap.best}")),
                cell(value, small(interval)),
                cell(formats.number(gap.p_value)),
            )
        )
    head = columns(
        ("Attribute", 0.22), ("Worst level", 0.38), ("Gap", 0.22, "right"), ("p", 0.18, "right")
    )
    n = formats.counted(evaluation.gaps[0].n_comparisons, "pair")
    note = (
        "Gap: difference of KID above the floor, the largest of each attribute. p is adjusted by "
        f"Holm over {n} of levels."
    )
    return (Heading("Gaps between levels"), Table(head, tuple(rows), note))


def _extractor_blocks(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    """Show KID by every feature extractor, with what each was trained on."""
    if not evaluation.extractors:
        return ()
    own = next((m for m in evaluation.metrics if m.id.startswith("kid-") and not m.subgroup), None)
    rows = []
    if own is not None:
        known = {part.sha256: part for part in evaluation.pretrained}
        part = known.get(own.extractor_sha256)
        trained_on = part.training_data if part else "unknown"
        basis = (trained_on, part.overlap if part else "unknown")
        controls = [c for c in evaluation.controls if c.metric == "kid"]
        rows.append(_extractor_row("FID network", own, controls, basis))
    for one in evaluation.extractors:
        basis = (f"{one.trained_on}. {one.words}".strip(), one.overlap)
        rows.append(_extractor_row(one.title or one.name, one.metric, one.controls, basis))
    head = columns(
        ("Feature extractor", 0.30),
        ("KID", 0.22, "right"),
        ("Floor", 0.18, "right"),
        ("Controls", 0.30),
    )
    note = (
        "KID of different extractors has different units: compare each with its own floor and "
        "controls. Training overlap: whether the extractor was trained on held-out images."
    )
    return (Heading("KID by feature extractor"), Table(head, tuple(rows), note))


def _extractor_row(
    title: str, metric: MetricResult, controls: Sequence[Control], basis: tuple[str, str]
) -> tuple[Cell, ...]:
    value, interval, floor, floor_interval = metric_texts(metric)
    trained_on, overlap = basis
    unknown = status_line(ItemStatus.NOT_EVALUATED)
    return (
        cell(
            strong(title),
            mono(metric.id),
            small(f"trained on: {trained_on}"),
            small(f"training overlap: {overlap}"),
        ),
        cell(value or unknown, small(interval or metric.reason)),
        cell(floor or formats.DASH, small(floor_interval)),
        cell(
            *(
                small(f"{c.name}: {' '.join(filter(None, formats.estimate(c.value, c.ci95)))}")
                for c in controls
            )
        ),
    )


def _external_blocks(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    """Show the same images beside test sets from other sources."""
    if not evaluation.external:
        return ()
    blocks: list[Block] = [
        Heading("Test sets from other sources"),
        Text(
            "The floor is this run's real training images against the other source, so it holds "
            "what differs between the sources; images that this run's data hold as well were left "
            "out first."
        ),
    ]
    for one in evaluation.external:
        blocks.append(
            Facts(
                (
                    (one.name, cell(one.title, small(f"{one.adapter}; licence: {one.licence}"))),
                    (
                        "Images",
                        cell(
                            f"{formats.counted(one.n_images, 'image')} of "
                            f"{formats.counted(one.n_patients, one.unit)}",
                            small(f"{one.n_left_out:,} of {one.n_listed:,} left out"),
                            *map(small, one.left_out[:3]),
                        ),
                    ),
                )
            )
        )
        if one.reason:
            blocks.append(Text(formats.sentence(f"Not evaluated: {one.reason}")))
        else:
            blocks.append(metric_table(one.metrics, one.unit))
    return tuple(blocks)


def metric_texts(metric: MetricResult) -> tuple[str, str, str, str]:
    """Return value, its interval, floor, its interval, as every report writes them."""
    value = interval = floor = floor_interval = ""
    if metric.value is not None:
        value, interval = formats.estimate(metric.value, metric.ci95)
    if metric.floor is not None:
        floor, floor_interval = formats.estimate(metric.floor, metric.floor_ci95)
    return value, interval, floor, floor_interval


def metric_basis(metric: MetricResult, unit: str) -> str:
    """Return the counts behind a metric and the partition it is measured on."""
    return (
        f"{metric.partition}: {formats.counted(metric.n_real, 'real image')} of "
        f"{formats.counted(metric.n_patients, unit)}, "
        f"{formats.counted(metric.n_synthetic, 'synthetic image')}"
    )


def _metric_row(metric: MetricResult, unit: str) -> tuple[Cell, ...]:
    value, interval, floor, floor_interval = metric_texts(metric)
    unknown = metric.value is None
    goal = (
        "near the floor is better"
        if metric.better == "near floor"
        else (f"{metric.better} is better")
    )
    title = f"{metric.title}: {metric.subgroup}" if metric.subgroup else metric.title
    return (
        cell(
            strong(title),
            mono(metric.id),
            small(goal),
        ),
        cell(
            status_line(ItemStatus.NOT_EVALUATED) if unknown else value,
            small(interval),
            small(metric.interval_method),
        ),
        cell(floor or formats.DASH, small(floor_interval)),
        cell(
            "" if unknown else metric_basis(metric, unit),
            small(metric.reason),
        ),
    )


def _judged_controls(
    evaluation: EvaluationRecord, verdicts: tuple[ControlVerdict, ...]
) -> tuple[Block, ...]:
    """Show, metric by metric, every control and whether the metric can be believed."""
    titles = {m.id.partition("-")[0]: m.title for m in evaluation.metrics if not m.subgroup}
    titles |= {"memorisation": "Share flagged as possible copies"}
    rows = []
    for metric in dict.fromkeys(control.metric for control in evaluation.controls):
        own = [v for v in verdicts if v.metric == metric]
        values = [
            small(f"{c.name}: {' '.join(filter(None, formats.estimate(c.value, c.ci95)))}")
            for c in evaluation.controls
            if c.metric == metric
        ]
        rows.append((cell(strong(titles.get(metric, metric))), cell(*values), _verdict(own)))
    head = columns(("Metric", 0.24), ("Controls", 0.34), ("Verdict on the metric", 0.42))
    meanings = dict.fromkeys(f"{c.name}: {c.meaning}" for c in evaluation.controls)
    return (
        Heading("Controls"),
        Text(
            "Images whose result is known beforehand. The order that each must have is fixed in the "
            "policy; a metric that puts one out of order is not evaluated."
        ),
        Table(head, tuple(rows)),
        Bullets(tuple(formats.sentence(words) for words in meanings)),
    )


def _verdict(verdicts: list[ControlVerdict]) -> Cell:
    broken = [v.words for v in verdicts if v.holds is False]
    unknown = [v.words for v in verdicts if v.holds is None]
    if broken:
        return cell(strong("not evaluated: out of order"), *map(small, broken))
    if not verdicts:
        return cell("no order is fixed")
    said = (
        f"all {len(verdicts)} in order" if not unknown else f"{len(verdicts)} orders, none broken"
    )
    lacking = (
        f"{len(unknown)} cannot be shown without intervals" if unknown else "intervals considered"
    )
    return cell(strong(said), small(lacking))


def _controls(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    if not evaluation.controls:
        return ()
    rows = tuple(
        (
            cell(control.name),
            cell(mono(control.metric_id)),
            _control_value(control),
            cell(control.meaning),
        )
        for control in evaluation.controls
    )
    head = columns(("Control", 0.14), ("Metric", 0.34), ("Value", 0.17, "right"), ("Meaning", 0.35))
    return (Heading("Controls"), Table(head, rows))


def _control_value(control: Control) -> Cell:
    if control.ci95 is None:
        return cell(formats.number(control.value))
    value, interval = formats.estimate(control.value, control.ci95)
    return cell(value, small(interval))


def _repeat_blocks(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    if not evaluation.repeats:
        return ()
    rows = tuple(
        cells(str(repeat.seed), formats.number(repeat.value)) for repeat in evaluation.repeats
    )
    head = columns(("Seed of sampling", 0.5), ("KID", 0.5, "right"))
    return (Heading("Images drawn again"), Table(head, rows))


def _robustness_blocks(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    if not evaluation.robustness:
        return ()
    rows = []
    for loss in evaluation.robustness:
        value, interval = formats.estimate(loss.value, loss.ci95)
        rows.append((cell(loss.alteration), cell(value, small(interval))))
    head = columns(("Held-out images altered in", 0.5), ("Loss of KID", 0.5, "right"))
    note = (
        "Rise of KID above its floor when "
        f"{formats.counted(evaluation.robustness[0].n_images, 'held-out image')} are altered: 0 on "
        "average for images of the real distribution."
    )
    return (Heading("Robustness"), Table(head, tuple(rows), note))


def _diversity_blocks(evaluation: EvaluationRecord) -> tuple[Block, ...]:
    found = evaluation.diversity
    if found is None:
        return ()
    head = columns(("Variety", 0.5), ("Synthetic", 0.25, "right"), ("Real training", 0.25, "right"))
    rows = (
        cells(
            f"Vendi score: effective number of different images among {found.n_images}",
            formats.number(found.vendi),
            formats.number(found.vendi_real),
        ),
        cells(
            f"MS-SSIM of {found.n_pairs} pairs: 1 is equal",
            formats.number(found.ms_ssim),
            formats.number(found.ms_ssim_real),
        ),
    )
    return (Heading("Variety"), Table(head, rows))
