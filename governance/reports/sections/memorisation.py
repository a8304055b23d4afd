"""The section on memorisation: whether synthetic images copy training images or give members away."""

from governance.records.evaluation import EvaluationRecord, MemorisationRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Cell,
    Facts,
    Heading,
    Histogram,
    Section,
    Table,
    Text,
    cell,
    cells,
    columns,
    small,
    strong,
)
from governance.reports.evidence import ReportEvidence


def memorisation_section(evidence: ReportEvidence) -> Section:
    """Show whether synthetic images copy training images."""
    evaluation = evidence.get(EvaluationRecord)
    record = evaluation.memorisation if evaluation else None
    if record is None:
        text = Text("Memorisation was not measured in this run: whether it copies is unknown.")
        return Section("memorisation", "8", "Memorisation", main=(text,))
    head = columns(
        ("Synthetic image", 0.42), ("Nearest training image", 0.38), ("Distance", 0.20, "right")
    )
    rows = tuple(
        cells(pair.synthetic, pair.training_id, formats.number(pair.distance))
        for pair in record.closest
    )
    chart = Histogram(
        title="Distance to the nearest training image",
        x_label="distance (unit of the method above)",
        y_label="share of images (%)",
        reference=("real tuning images (the null)", record.null_distances),
        subject=("synthetic images", record.synthetic_distances),
        threshold=(f"threshold {formats.number(record.threshold)}", record.threshold),
    )
    drawn = (chart,) if record.null_distances or record.synthetic_distances else ()
    return Section(
        "memorisation",
        "8",
        "Memorisation",
        main=(
            Facts(memorisation_rows(record)),
            *drawn,
            *_copying_facts(evidence),
            *_membership_blocks(evidence),
        ),
        blocks=(
            *_copying_blocks(evidence),
            Heading("Closest pairs"),
            Table(head, rows, "" if rows else "No pair is on record."),
        ),
    )


def _copying_facts(evidence: ReportEvidence) -> tuple[Block, ...]:
    """Show what the search for copied parts found."""
    evaluation = evidence.get(EvaluationRecord)
    rows = copying_rows(evaluation, evidence.unit) if evaluation else ()
    return (Heading("Copied parts"), Facts(rows)) if rows else ()


def _copying_blocks(evidence: ReportEvidence) -> tuple[Block, ...]:
    """Draw the agreements of the search for copied parts, and what it finds of planted copies."""
    evaluation = evidence.get(EvaluationRecord)
    parts = evaluation.parts if evaluation else None
    if evaluation is None or parts is None:
        return ()
    chart = Histogram(
        title="Agreement with a training image, or a part of one",
        x_label="agreement (1 is a copy)",
        y_label="share of images (%)",
        reference=("training images, other patients", parts.null_agreements),
        subject=("synthetic images", parts.synthetic_agreements),
        threshold=(f"threshold {formats.number(parts.threshold)}", parts.threshold),
    )
    planted = tuple(cells(found.kind, f"{found.n_found} of {found.n}") for found in parts.planted)
    pairs = tuple(
        cells(pair.synthetic, pair.training_id, formats.number(1 - pair.distance))
        for pair in parts.closest
    )
    return (
        Heading("Copied parts"),
        chart,
        Table(
            columns(("Training images copied and altered", 0.6), ("Found", 0.4, "right")),
            planted,
            "What the search finds of copies planted in this run.",
        ),
        Table(
            columns(
                ("Synthetic image", 0.42), ("Training image", 0.38), ("Agreement", 0.20, "right")
            ),
            pairs,
        ),
    )


def copying_rows(evaluation: EvaluationRecord, unit: str) -> tuple[tuple[str, Cell], ...]:
    """Return names and values of copied parts, authenticity and C_T; () where none was measured."""
    rows: list[tuple[str, Cell]] = []
    parts, nearer = evaluation.parts, evaluation.authenticity
    if parts is not None:
        found = (
            f"{formats.count(parts.n_flagged)} of {formats.count(parts.n_synthetic)} synthetic "
            f"images flagged, {formats.count(parts.n_confirmed)} confirmed"
        )
        of_one = f"most from one training {unit}: {formats.count(parts.n_of_one_patient)}"
        rows.append(("Parts of training images", cell(strong(found), small(of_one))))
        tried = (
            f"{formats.count(sum(p.n_found for p in parts.planted))} of "
            f"{formats.count(sum(p.n for p in parts.planted))} altered copies found, "
            f"{formats.count(parts.n_unseen_flagged)} of "
            f"{formats.counted(parts.n_unseen, 'tuning image')} flagged"
        )
        rows.append(("The search tried", cell(tried)))
        rows.append(("Method of the search", cell(parts.method)))
    if nearer is not None:
        share, interval = formats.estimate(nearer.share_nearer, nearer.ci95)
        control, control_interval = formats.estimate(nearer.control_share, nearer.control_ci95)
        rows.append(
            (
                "Nearer to a training image than its own nearest",
                cell(
                    f"{share} of synthetic images ({interval}), {control} of tuning images "
                    f"({control_interval})",
                    small(nearer.method),
                ),
            )
        )
    if evaluation.data_copying is not None:
        found_ct = evaluation.data_copying
        rows.append(("C_T", cell(formats.number(found_ct.value), small(found_ct.method))))
    return tuple(rows)


def _membership_blocks(evidence: ReportEvidence) -> tuple[Block, ...]:
    evaluation = evidence.get(EvaluationRecord)
    attack = evaluation.membership if evaluation else None
    if attack is None:
        return ()
    unit = evidence.unit
    value, interval = formats.estimate(attack.auc, attack.ci95)
    rows = (
        ("AUC", cell(strong(value), small(f"95 % interval {interval}; 0.5 is chance"))),
        (
            "Against each other",
            cell(
                f"{formats.counted(attack.n_training, f'training {unit}')}, "
                f"{formats.counted(attack.n_tuning, f'tuning {unit}')}"
            ),
        ),
        ("Method", cell(attack.method)),
    )
    return (Heading("Membership attack"), Facts(rows))


def memorisation_rows(record: MemorisationRecord) -> tuple[tuple[str, Cell], ...]:
    """Return names and values of the memorisation audit."""
    low, high = record.share_ci95
    share = (
        f"{formats.count(record.n_flagged)} of {formats.count(record.n_synthetic)} synthetic "
        f"images ({formats.percent(record.n_flagged, record.n_synthetic)}, 95 % interval "
        f"{formats.percent(low, 1)} to {formats.percent(high, 1)})"
    )
    return (
        ("Closer than the threshold", cell(strong(share), small(record.interval_method))),
        (
            "Threshold",
            cell(
                f"{formats.number(record.threshold)}: 1st percentile of the distances of "
                f"{formats.counted(record.n_null, 'real tuning image')} to their nearest "
                "training image"
            ),
        ),
        (
            "Median distance",
            cell(
                f"synthetic {formats.number(record.synthetic_median)}, real tuning images "
                f"{formats.number(record.null_median)}"
            ),
        ),
        ("Method", cell(record.method)),
    )
