"""The section on lineage: parent run, changes since then, and the baseline kept."""

from governance.records.evaluation import Baseline
from governance.records.lineage import ChangedMetric, ChangedValue, ChangeRecord, Lineage
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Section,
    Table,
    Text,
    cell,
    cells,
    columns,
    joined,
    mono,
    small,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.sections.data_tables import more

_VALUES_SHOWN = 30
_KINDS = (("config", "Configuration"), ("data", "Data"), ("code", "Code and criteria"))
_DIGEST_LETTERS = 64
_STATISTICS = {
    "mean_intensity": "Brightness (mean)",
    "std_intensity": "Contrast (standard deviation)",
    "black_fraction": "Share of black background",
    "log10_sharpness": "Sharpness",
}


def lineage_section(evidence: ReportEvidence) -> Section:
    """Show the origin of the model, changes since the parent run, and the baseline kept."""
    record = evidence.get(Lineage)
    if record is None:
        blocks: tuple[Block, ...] = (Text("No model was trained, so there is no lineage."),)
    else:
        blocks = (
            Facts(_lineage_rows(record)),
            *_changes(evidence.get(ChangeRecord)),
            *_baseline(evidence.get(Baseline)),
        )
    return Section("lineage", "13", "Lineage, changes and baseline", blocks=blocks)


def _lineage_rows(record: Lineage) -> tuple[tuple[str, Cell], ...]:
    parent = record.parent
    found = cell("none; this is a first run in this workspace")
    if record.fault:
        found = cell(f"cannot be read: {record.fault}")
    elif parent is not None:
        found = cell(strong(parent.run_id), mono(f"evidence root {parent.evidence_root}"))
    rows = [
        ("Model and data set", cell(f"{record.model} on {record.data}")),
        ("Parent run", found),
        ("Reason for this run", cell(record.reason or "nobody gave one")),
    ]
    if record.delta is not None:
        d = record.delta
        rows.append(
            (
                "Images against the parent",
                cell(
                    f"{formats.count(d.n_same)} as before, {formats.count(d.n_changed)} changed, "
                    f"{formats.count(d.n_added)} added, {formats.count(d.n_removed)} removed"
                ),
            )
        )
    if parent is not None:
        state = {"intact": "still there, digest as recorded", "changed": "digest differs"}
        words = state.get(parent.checkpoint, "no longer there")
        rows.append(("Parent's checkpoint", cell(words, mono(parent.checkpoint_sha256))))
    seeds = joined([str(seed) for seed in sorted({run.seed for run in record.seeds})])
    rows.append(("Seeds of this configuration", cell(seeds)))
    rows.append(("Runs of this model on this data set", cell(formats.count(record.n_runs))))
    if record.n_unreadable:
        rows.append(("Earlier runs that could not be read", cell(str(record.n_unreadable))))
    return tuple(rows)


def _changes(change: ChangeRecord | None) -> tuple[Block, ...]:
    if change is None:
        return (Heading("Changes"), Text("There is no parent run to compare this one with."))
    blocks: list[Block] = [Heading(f"Changes against {change.parent}")]
    for kind, title in _KINDS:
        values: tuple[ChangedValue, ...] = getattr(change, kind)
        if not values:
            blocks.append(Text(f"{title}: no difference."))
            continue
        head = columns((title, 0.36), ("Before", 0.32), ("This run", 0.32))
        shown = values[:_VALUES_SHOWN]
        rows = tuple((cell(v.name), _value(v.before), _value(v.after)) for v in shown)
        blocks.append(Table(head, rows, more(len(values), len(shown), ChangeRecord.PATH)))
    blocks.extend(_plan(change))
    blocks.extend(_drift(change))
    blocks.extend(_metrics(change))
    return tuple(blocks)


def _value(text: str) -> Cell:
    is_digest = len(text) == _DIGEST_LETTERS and not set(text) - set("0123456789abcdef")
    return cell(mono(formats.short(text))) if is_digest else cell(text)


def _plan(change: ChangeRecord) -> tuple[Block, ...]:
    if not change.plan:
        return (Text("The configuration names no change plan."),)
    where = f"outside: {joined(change.outside_plan)}" if change.outside_plan else "all inside"
    return (Text(f"Change plan {joined(change.plan)}: {where}."),)


def _drift(change: ChangeRecord) -> tuple[Block, ...]:
    """Show how far the training images moved; empty where no baseline could be compared."""
    if not change.drift:
        return ()
    rows = tuple(
        cells(_STATISTICS.get(line.name, line.name), formats.number(line.distance), "")
        for line in change.drift
    )
    head = columns(("Training images against the parent's", 0.40), ("Distance", 0.14, "right"))
    note = "Largest difference of the cumulative histograms: 0 is alike, 1 is apart."
    return (Table((*head, *columns(("", 0.46))), rows, note),)


def _metrics(change: ChangeRecord) -> tuple[Block, ...]:
    if not change.metrics:
        return ()
    head = columns(
        ("Metric", 0.36), ("Before", 0.18, "right"), ("This run", 0.18, "right"), ("Compared", 0.28)
    )
    rows = tuple(_metric_row(metric) for metric in change.metrics)
    unfair: tuple[Block, ...] = ()
    if change.unfair or change.cautions:
        words = "cannot be compared as wholes" if change.unfair else "can be compared with caution"
        unfair = (
            Text(f"Results of the two runs {words}:"),
            Bullets(tuple(map(formats.sentence, (*change.unfair, *change.cautions)))),
        )
    note = "Overlapping intervals are no test of equality."
    return (Heading("Metrics of both runs"), *unfair, Table(head, rows, note))


def _metric_row(metric: ChangedMetric) -> tuple[Cell, ...]:
    words = "; ".join(metric.unfair) or metric.intervals or formats.DASH
    return (
        cell(metric.name),
        _estimate(metric.before, metric.before_ci95),
        _estimate(metric.after, metric.after_ci95),
        cell(words),
    )


def _estimate(value: float | None, ci95: tuple[float, float] | None) -> Cell:
    if value is None:
        return cell("not evaluated")
    text, interval = formats.estimate(value, ci95)
    return cell(text, small(interval))


def _baseline(baseline: Baseline | None) -> tuple[Block, ...]:
    heading = Heading("Baseline kept for later runs and new data")
    if baseline is None:
        return (heading, Text("No baseline was kept: the run was not evaluated."))
    rows = tuple(
        cells(
            _STATISTICS.get(one.name, one.name),
            formats.number(one.mean),
            formats.number(one.sd),
            one.unit,
        )
        for one in baseline.images
    )
    head = columns(
        ("Image statistic", 0.30), ("Mean", 0.16, "right"), ("SD", 0.16, "right"), ("Unit", 0.38)
    )
    features = baseline.features
    kept = (
        f"Features of {formats.counted(features.n_images, 'image')} by {features.extractor}"
        if features
        else "No features"
    )
    metrics = formats.counted(len(baseline.metrics), "metric")
    lacking = f" ({baseline.reason})" if baseline.reason else ""
    text = (
        f"metrics/baseline.json: histograms over {formats.counted(baseline.n_images, 'image')} of "
        f"the {baseline.partition} partition, {baseline.image_size_px} px wide. {kept} and "
        f"{metrics} with intervals are in it{lacking}."
    )
    return (heading, Text(text), Table(head, rows))
