"""Content of the first page: verdict, what failed or is unknown, conditions, identity."""

from collections.abc import Sequence

from governance.evidence.documents import TEST, GateLine, MetricResult
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Table,
    Text,
    Verdict,
    cell,
    columns,
    mono,
    status_line,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.items import CLASS_WORDS, ItemView, by_weight, item_views
from governance.statuses import Gate, ItemClass, ItemStatus, PrincipleStatus

STATEMENT = (
    "Not a medical device. Synthetic images, for research use. Evidence is mapped to the ten "
    "guiding principles of Good Machine Learning Practice (GMLP); the principles are not law, and "
    "this report is neither an approval nor a certificate."
)
_MOST_FAILED_ON_PAGE_ONE = 6
_TITLE_CHARACTERS, _REASON_CHARACTERS = 110, 180


def report_title(evidence: ReportEvidence) -> str:
    """Generator and data set, as far as the run came to know them."""
    model = evidence.training.title if evidence.training else evidence.run.generator
    title = f"{model} on {evidence.dataset.title}" if evidence.dataset else model
    return formats.clean(title, _TITLE_CHARACTERS)


def verdict(evidence: ReportEvidence) -> Verdict:
    """Say how the run ended and whether the gate passed."""
    outcome, summary = evidence.outcome, evidence.summary
    if outcome is None or outcome.status != "finished":
        step = outcome.stopped_at if outcome and outcome.stopped_at else "an unknown step"
        word = {"blocked": "Stopped", "failed": "Failed", "interrupted": "Interrupted"}
        how = word[outcome.status] if outcome and outcome.status in word else "Not finished"
        return Verdict(f"{how} at {step}; {_trained(evidence)}", "✗", "bad", summary.verdict)
    if summary.gate is Gate.PASSED:
        return Verdict("Gate passed", "✓", "good", summary.verdict)
    return Verdict("Gate not passed", "✗", "bad", summary.verdict)


def _trained(evidence: ReportEvidence) -> str:
    if evidence.training is not None:
        return "the model was trained"
    steps = evidence.outcome.steps if evidence.outcome else ()
    begun = any(step.step.startswith("s5") and step.status != "skipped" for step in steps)
    return "training did not finish" if begun else "nothing was trained"


def front_blocks(evidence: ReportEvidence) -> tuple[Block, ...]:
    """Blocks under the verdict, bad news first."""
    return (
        *_bad_news(evidence),
        Heading("Conditions to know before reading on"),
        Bullets(conditions(evidence)),
        Heading("Identity of this run"),
        Facts(identity_rows(evidence)),
    )


def _bad_news(evidence: ReportEvidence) -> tuple[Block, ...]:
    items = item_views(evidence)
    gate = [line for line in evidence.summary.gate_items if line.status is not ItemStatus.PASSED]
    blocks: list[Block] = [Heading("What failed or is unknown")]
    outcome = evidence.outcome
    if outcome is not None and outcome.status != "finished":
        if outcome.message.strip().rstrip(".") not in evidence.summary.verdict:
            blocks.append(Text(outcome.message))
        if outcome.error_code:
            blocks.append(Text(f"The run ended with error {outcome.error_code}."))
    if gate:
        blocks.append(_news_table("Gate", _gate_rows(gate)))
    else:
        n = formats.counted(len(evidence.summary.gate_items), "gate item")
        blocks.append(Text(f"No gate item failed: all {n} passed."))
    blocks.extend(_failed_outside_gate(items))
    blocks.append(Bullets(_unknown_sentences(items)))
    return tuple(blocks)


def _gate_rows(gate: list[GateLine]) -> list[tuple[Cell, ...]]:
    """Failed before unknown; items that share status and reason share a row."""
    shared: dict[tuple[ItemStatus, str], list[GateLine]] = {}
    for line in sorted(gate, key=lambda line: line.status is not ItemStatus.FAILED):
        shared.setdefault((line.status, line.reason), []).append(line)
    return [_gate_row(status, reason, lines) for (status, reason), lines in shared.items()]


def _gate_row(status: ItemStatus, reason: str, lines: list[GateLine]) -> tuple[Cell, ...]:
    if len(lines) == 1:
        name, titles = lines[0].item_id, [lines[0].title]
    else:
        name, titles = f"{len(lines)} items", [f"{line.item_id} {line.title}" for line in lines]
    return cell(status_line(status)), cell(strong(name)), cell(*titles), cell(_cut(reason))


def _failed_outside_gate(items: tuple[ItemView, ...]) -> tuple[Block, ...]:
    failed = by_weight(tuple(i for i in items if i.status is ItemStatus.FAILED and not i.is_gate))
    if not failed:
        return (Text("No item outside the gate failed."),)
    rows = [
        (cell(status_line(i.status)), cell(strong(i.id)), cell(i.title), cell(_found(i)))
        for i in failed[:_MOST_FAILED_ON_PAGE_ONE]
    ]
    more = len(failed) - len(rows)
    note = f"and {formats.count(more)} more, listed under Limits" if more > 0 else ""
    return (_news_table("Outside the gate", rows, note),)


def _news_table(title: str, rows: Sequence[tuple[Cell, ...]], note: str = "") -> Table:
    head = columns((title, 0.17), ("Item", 0.08), ("What must be shown", 0.33), ("Why", 0.42))
    return Table(head, tuple(rows), note)


def _found(item: ItemView) -> str:
    seen = f"observed {item.value}" if item.value else ""
    return "; ".join(part for part in (_cut(item.reason), seen) if part)


def _cut(reason: str) -> str:
    return formats.clean(reason, _REASON_CHARACTERS)


def _unknown_sentences(items: tuple[ItemView, ...]) -> tuple[str, ...]:
    unknown = [i for i in items if i.status is ItemStatus.NOT_EVALUATED]
    missing = [i for i in items if i.status is ItemStatus.MISSING]
    sentences = []
    if unknown:
        sentences.append(
            f"{formats.counted(len(unknown), 'item')} of {formats.count(len(items))} not evaluated"
            f"{_core(unknown)}: unknown is neither zero nor a pass."
        )
    if missing:
        sentences.append(
            f"{formats.counted(len(missing), 'item')} missing{_core(missing)}: "
            "statements that only named people can give."
        )
    if not sentences:
        sentences.append("No item is missing or was left unevaluated.")
    return tuple(sentences)


def _core(items: list[ItemView]) -> str:
    n = sum(item.item_class is ItemClass.CORE for item in items)
    return f", {formats.count(n)} of them {CLASS_WORDS[ItemClass.CORE]}" if n else ""


def conditions(evidence: ReportEvidence) -> tuple[str, ...]:
    """What changes how every other page is read, each in one sentence."""
    return (
        *_data_conditions(evidence),
        *_test_conditions(evidence),
        *_metric_conditions(evidence),
        *_principle_conditions(evidence),
        *_code_conditions(evidence),
    )


def _data_conditions(evidence: ReportEvidence) -> list[str]:
    sentences = []
    data, split = evidence.dataset, evidence.split
    if data is None:
        sentences.append("The data set was not read, so nothing is known about it.")
    else:
        if data.is_simulated:
            sentences.append("Simulated data: no patient is behind any image.")
        if data.n_missing and data.missing_policy == "drop":
            sentences.append(
                f"{formats.count(data.n_missing)} of {formats.count(data.n_listed)} listed images "
                "are missing and were dropped, as the configuration asks."
            )
        elif data.n_missing:
            sentences.append(
                f"{formats.count(data.n_missing)} of {formats.count(data.n_listed)} listed images "
                "are missing."
            )
        if data.pinned_sha256 is None:
            sentences.append("The identity of the data set is not pinned in the configuration.")
    if split is None:
        return sentences + ["The data was not divided; no test set was sealed."]
    if split.official_available and split.source != "official":
        sentences.append("The official split of the data set was not used.")
    sentences.extend(
        formats.sentence(f"deviation from the official split: {d}") for d in split.deviations
    )
    if split.dropped:
        n = formats.counted(len(split.dropped), "image")
        sentences.append(f"{n} taken out of training as copies of held-out images.")
    return sentences


def _test_conditions(evidence: ReportEvidence) -> list[str]:
    sentences = []
    isolation, evaluation = evidence.isolation, evidence.evaluation
    if isolation is None:
        sentences.append("Isolation of the held-out test set: no training process is on record.")
    else:
        sentences.append(
            f"Isolation level in force: {isolation.level} of 5, {isolation.level_name} "
            f"({isolation.mechanism})."
        )
        open_doors = sum(not attempt.refused for attempt in isolation.attempts)
        if open_doors:
            n = formats.counted(open_doors, "forbidden read")
            sentences.append(f"{n} of the training process succeeded: the test set was in reach.")
    opening = evaluation.opening if evaluation else None
    if opening is None:
        sentences.append("The held-out test set was not opened.")
    elif opening.number > 1:
        sentences.append(
            f"Test set use: {opening.label}; this test set was opened {formats.count(opening.number - 1)} "
            f"{'time' if opening.number == 2 else 'times'} before; repeated use inflates results."
        )
    else:
        sentences.append(f"First opening of this test set ({opening.label}).")
    return sentences


def _metric_conditions(evidence: ReportEvidence) -> list[str]:
    if evidence.evaluation is None:
        return ["No image quality was measured: FID and every other metric are not evaluated."]
    overall = [m for m in evidence.evaluation.metrics if not m.subgroup]
    sentences = [
        formats.sentence(f"{metric.title} not evaluated: {metric.reason}")
        for metric in overall
        if metric.status is ItemStatus.NOT_EVALUATED
    ]
    if not any(_is_fid(metric) for metric in overall):
        sentences.append("FID not evaluated: the evaluation holds no such metric.")
    return sentences


def _is_fid(metric: MetricResult) -> bool:
    return metric.id.lower().startswith("fid") and metric.partition == TEST


def _principle_conditions(evidence: ReportEvidence) -> list[str]:
    return [
        f"Principle {line.id.removeprefix('P')} ({line.title_n88}) is marked not applicable"
        f"{': ' + '; '.join(line.gaps) if line.gaps else ''}."
        for line in evidence.summary.principles
        if line.status is PrincipleStatus.NOT_APPLICABLE
    ]


def _code_conditions(evidence: ReportEvidence) -> list[str]:
    sentences = []
    if evidence.run.code_commit is None:
        sentences.append("The commit of the framework is unknown (not run from a git checkout).")
    elif evidence.run.code_clean is False:
        sentences.append("The framework's source had uncommitted changes.")
    integrity = evidence.integrity
    if integrity is not None and (integrity.mismatches or integrity.journal_faults):
        n = len(integrity.mismatches) + len(integrity.journal_faults)
        sentences.append(
            f"{formats.counted(n, 'integrity fault')} found at the end of the run; see Limits."
        )
    return sentences


def identity_rows(evidence: ReportEvidence) -> tuple[tuple[str, Cell], ...]:
    """Names and values that identify run, data and evidence."""
    run, manifest = evidence.run, evidence.manifest
    clean = {True: "clean tree", False: "uncommitted changes", None: "tree state unknown"}
    commit = f"{run.code_commit}, {clean[run.code_clean]}" if run.code_commit else "unknown"
    data = evidence.dataset
    n_events = formats.counted(manifest.journal_events, "event")
    return (
        ("Run", cell(mono(run.run_id))),
        ("Started", cell(formats.utc(run.started_utc))),
        (
            "Tool",
            cell(
                f"medisynth-gov {run.tool_version}; preset {run.preset}; generator "
                f"{run.generator}; seed {run.seed}"
            ),
        ),
        ("Commit", cell(commit)),
        (
            "Data set",
            cell(f"{data.title} ({data.name})" if data else "not read")
            + cell(mono(f"content {formats.short(data.content_sha256)}" if data else "")),
        ),
        ("Evidence root", cell(mono(manifest.evidence_root))),
        ("Journal head", cell(mono(manifest.journal_head)) + cell(f"after {n_events}")),
        ("Previous run", cell(mono(manifest.previous_run or "none in this workspace"))),
    )
