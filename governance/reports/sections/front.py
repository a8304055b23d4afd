"""Page one: verdict, sentence, and conditions for reading the rest."""

import re
from collections.abc import Sequence

from governance.records.base import TEST, Gate, ItemClass, ItemStatus, PrincipleStatus
from governance.records.dataset import DatasetIdentity
from governance.records.evaluation import EvaluationRecord, MetricResult
from governance.records.partition import IsolationRecord, SplitRecord
from governance.records.rollup import GateLine
from governance.records.run import IntegrityRecord, Outcome
from governance.records.training import TrainingRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Box,
    Bullets,
    Cell,
    Facts,
    Heading,
    Line,
    Table,
    Text,
    Tone,
    Verdict,
    cell,
    columns,
    joined,
    mono,
    small,
    status_line,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.items import ItemView, by_weight, item_views
from governance.reports.sections.data import missing_sentence
from governance.reports.sections.data_coverage import OFFICIAL_SPLIT_UNUSED, split_deviations
from governance.reports.sections.isolation import opening_words
from governance.reports.sections.people import declaration_words, waiver_blocks
from governance.verdict.boxes import Standing, VerdictBox, verdict_boxes
from governance.verdict.headline import in_one_line

_IDENTITY_ITEM = "P5-01"


def conditions(evidence: ReportEvidence) -> tuple[str, ...]:
    """List the conditions under which every other page must be read, one sentence each."""
    return (
        *_data_conditions(evidence),
        *_test_conditions(evidence),
        *_metric_conditions(evidence),
        *_principle_conditions(evidence),
        *_code_conditions(evidence),
    )


def _data_conditions(evidence: ReportEvidence) -> list[str]:
    sentences = []
    data, split = evidence.get(DatasetIdentity), evidence.get(SplitRecord)
    if data is None:
        sentences.append("The data set was not read, so nothing is known about it.")
    else:
        if data.is_simulated:
            sentences.append("Simulated data: no patient is behind any image.")
        if evidence.unit != "patient":
            sentences.append(
                f"The unit counted and never divided is the {evidence.unit}, not the patient."
            )
        if data.n_missing:
            sentences.append(missing_sentence(data))
        if data.pinned_sha256 is None and not _identity_stands_in_gate(evidence):
            sentences.append("The identity of the data set is not pinned in the configuration.")
    if split is None:
        return sentences + ["The data was not divided; no test set was sealed."]
    sentences.extend(_split_conditions(split))
    if split.dropped:
        n = formats.counted(len(split.dropped), "image")
        sentences.append(f"{n} taken out of training as copies of held-out images.")
    return sentences


def _identity_stands_in_gate(evidence: ReportEvidence) -> bool:
    """Whether the gate's table already says that the data set's content is not pinned."""
    return any(
        line.item_id == _IDENTITY_ITEM
        and line.status is not ItemStatus.PASSED
        and "pin" in line.reason
        for line in evidence.summary.gate_items
    )


def _split_conditions(split: SplitRecord) -> list[str]:
    """Say whether the official split was kept, and list each departure from it once."""
    told = split_deviations(split)
    unused = split.official_available and split.source != "official"
    if unused and not any(sentence.startswith(OFFICIAL_SPLIT_UNUSED) for sentence in told):
        told = (OFFICIAL_SPLIT_UNUSED, *told)
    return [
        formats.sentence(
            sentence
            if sentence.startswith(OFFICIAL_SPLIT_UNUSED)
            else f"deviation from the official split: {sentence}"
        )
        for sentence in told
    ]


def _test_conditions(evidence: ReportEvidence) -> list[str]:
    sentences = []
    isolation, evaluation = evidence.get(IsolationRecord), evidence.get(EvaluationRecord)
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
        if isolation.noticed:
            targets = sorted({attempt.target for attempt in isolation.noticed})
            sentences.append(
                f"The generator tried to reach what training must not: {', '.join(targets)}."
            )
    opening = evaluation.opening if evaluation else None
    if opening is None:
        sentences.append("The held-out test set was not opened.")
    else:
        sentences.append(formats.sentence(opening_words(evidence)))
    return sentences


def _metric_conditions(evidence: ReportEvidence) -> list[str]:
    training = evidence.get(TrainingRecord)
    compared = training.comparison.sentence if training and training.comparison else ""
    side_by_side = in_one_line(evidence.get(EvaluationRecord))
    return [*filter(None, (compared, side_by_side)), *_unmeasured(evidence)]


def _unmeasured(evidence: ReportEvidence) -> list[str]:
    evaluation = evidence.get(EvaluationRecord)
    if evaluation is None:
        return ["No image quality was measured: FID and every other metric are not evaluated."]
    overall = [m for m in evaluation.metrics if not m.subgroup]
    unknown: dict[str, list[str]] = {}
    for metric in overall:
        if metric.status is ItemStatus.NOT_EVALUATED:
            unknown.setdefault(metric.reason, []).append(metric.title)
    sentences = [
        formats.sentence(f"{', '.join(dict.fromkeys(titles))} not evaluated: {reason}")
        for reason, titles in unknown.items()
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
        sentences.append(f"The commit of the framework is unknown ({evidence.run.why_no_commit}).")
    elif evidence.run.code_clean is False:
        sentences.append("The framework's source had uncommitted changes.")
    integrity = evidence.get(IntegrityRecord)
    if integrity is not None and (integrity.mismatches or integrity.journal_faults):
        n = len(integrity.mismatches) + len(integrity.journal_faults)
        sentences.append(
            f"{formats.counted(n, 'integrity fault')} found at the end of the run; see Limits."
        )
    return sentences


STATEMENT = (
    "Not a medical device. Synthetic images, for research use. Evidence is mapped to the ten "
    "guiding principles of Good Machine Learning Practice (GMLP); the principles are not law, and "
    "this report is neither an approval nor a certificate."
)
_MOST_FAILED_ON_PAGE_ONE = 6
_TITLE_CHARACTERS, _REASON_CHARACTERS = 110, 700
# The line to copy into the configuration must not be cut.
_LINE_TO_PIN = re.compile(r"`?(data\.digest: [0-9a-f]{64})`?")
_GATE_MARKS: dict[Gate, tuple[str, Tone]] = {
    Gate.PASSED: ("✓", "good"),
    Gate.WAIVED: ("◐", "unsure"),
    Gate.FAILED: ("✗", "bad"),
}
_BOX_MARKS: dict[Standing, tuple[str, Tone]] = {
    "met": ("✓", "good"),
    "unknown": ("◐", "unsure"),
    "not met": ("✗", "bad"),
}
_STRIP = ("Run", "Evidence root", "Journal head")


def report_title(evidence: ReportEvidence) -> str:
    """Return the short names of generator and data set, as far as they are known."""
    dataset = evidence.get(DatasetIdentity)
    training = evidence.get(TrainingRecord)
    model = training.title if training else evidence.run.generator
    title = _first_part(model, " (")
    if dataset:
        title = f"{title} on {_first_part(dataset.title, ':')}"
    return formats.clean(title, _TITLE_CHARACTERS)


def _first_part(text: str, mark: str) -> str:
    return text.split(mark)[0].strip() or text


def full_titles(evidence: ReportEvidence) -> str:
    """Return the full names of generator and data set."""
    dataset = evidence.get(DatasetIdentity)
    training = evidence.get(TrainingRecord)
    model = training.title if training else evidence.run.generator
    data = f"; data set: {dataset.title}" if dataset else "; no data set was read"
    return f"Generator: {model}{data}"


def verdict(evidence: ReportEvidence) -> Verdict:
    """Say how the run ended and whether the gate passed."""
    outcome, summary = evidence.get(Outcome), evidence.summary
    if outcome is None or outcome.status != "finished":
        step = outcome.stopped_at if outcome and outcome.stopped_at else "an unknown step"
        word = {"blocked": "Stopped", "failed": "Failed", "interrupted": "Interrupted"}
        how = word[outcome.status] if outcome and outcome.status in word else "Not finished"
        why = outcome.message.strip().rstrip(".") if outcome else ""
        sentence = f"{why}." if why else summary.verdict
        return Verdict(f"{how} at {step}; {_trained(evidence)}", "✗", "bad", sentence)
    headline = summary.gate.headline
    sentence = summary.verdict.removeprefix(f"{headline}: ")
    sentence = f"{sentence[:1].upper()}{sentence[1:]}"
    found = verdict_boxes(summary, evidence.records)
    worst = found[0].standing
    # No mark is better than that of the worst box, and none than that of the gate.
    mark, tone = _GATE_MARKS[summary.gate] if worst == "met" else _BOX_MARKS[worst]
    return Verdict(headline, mark, tone, sentence, tuple(map(_box, found)))


def _box(box: VerdictBox) -> Box:
    mark, tone = _BOX_MARKS[box.standing]
    return Box(box.title, Line(box.words, "mark", mark, tone), box.sentence)


def _trained(evidence: ReportEvidence) -> str:
    outcome = evidence.get(Outcome)
    if evidence.get(TrainingRecord) is not None:
        return "the model was trained"
    steps = outcome.steps if outcome else ()
    begun = any(step.step.startswith("s5") and step.status != "skipped" for step in steps)
    return "training did not finish" if begun else "nothing was trained"


def front_blocks(evidence: ReportEvidence) -> tuple[Block, ...]:
    """Return the blocks under the verdict: gate, conditions, other failures, identity.

    Gate and conditions come first, so that they are on page 1 however much failed.
    """
    items = item_views(evidence)
    rest = tuple(row for row in identity_rows(evidence) if row[0] not in _STRIP)
    return (
        *_bad_news(evidence, items),
        *waiver_blocks(evidence),
        Heading("Conditions to know before reading on"),
        Bullets(conditions(evidence)),
        *_failed_outside_gate(items),
        Heading("Identity of this run"),
        Facts(rest),
    )


def strip_rows(evidence: ReportEvidence) -> tuple[tuple[str, str], ...]:
    """Return run id, evidence root and journal head in full, for the strip under the verdict."""
    manifest = evidence.manifest
    values = (evidence.run.run_id, manifest.evidence_root, manifest.journal_head)
    return tuple(zip(_STRIP, values, strict=True))


def gate_sentences(evidence: ReportEvidence) -> tuple[str, ...]:
    """List each gate item that is not passed, with its whole reason; for the card."""
    return tuple(
        f"Gate item {line.item_id} {line.title}: {line.status.value}"
        f"{'; ' + line.reason.rstrip('.') if line.reason else ''}"
        f"{'; ' + line.waiver if line.waiver else ''}."
        for line in evidence.summary.gate_items
        if line.status is not ItemStatus.PASSED
    )


def _bad_news(evidence: ReportEvidence, items: tuple[ItemView, ...]) -> tuple[Block, ...]:
    gate = [line for line in evidence.summary.gate_items if line.status is not ItemStatus.PASSED]
    blocks: list[Block] = [Heading("What failed or is unknown")]
    outcome = evidence.get(Outcome)
    if outcome is not None and outcome.status != "finished" and outcome.error_code:
        blocks.append(Text(f"The run ended with error {outcome.error_code}."))
    if gate:
        blocks.append(_news_table("Gate item", _gate_rows(gate)))
    else:
        n = formats.counted(len(evidence.summary.gate_items), "gate item")
        blocks.append(Text(f"No gate item failed: all {n} passed."))
    blocks.append(Bullets((_failed_sentence(items), *_unknown_sentences(items))))
    return tuple(blocks)


def _failed_sentence(items: tuple[ItemView, ...]) -> str:
    failed = [item.id for item in by_weight(items) if _failed_alone(item)]
    if not failed:
        return "No item outside the gate failed."
    n = formats.counted(len(failed), "item")
    return f"{n} outside the gate failed: {joined(failed)}; reasons below."


def _failed_alone(item: ItemView) -> bool:
    return item.status is ItemStatus.FAILED and not item.is_gate


def _gate_rows(gate: list[GateLine]) -> list[tuple[Cell, ...]]:
    """Return rows, failed before unknown; items with equal status and reason share one."""
    shared: dict[tuple[ItemStatus, str], list[GateLine]] = {}
    for line in sorted(gate, key=lambda line: line.status is not ItemStatus.FAILED):
        shared.setdefault((line.status, line.reason), []).append(line)
    return [_gate_row(status, reason, lines) for (status, reason), lines in shared.items()]


def _gate_row(status: ItemStatus, reason: str, lines: list[GateLine]) -> tuple[Cell, ...]:
    if len(lines) == 1:
        name, shown, more = lines[0].item_id, lines[0].title, ""
    else:
        name, shown = f"{len(lines)} items", joined([line.item_id for line in lines])
        more = "; ".join(f"{line.item_id} {line.title}" for line in lines)
    waivers = [small(f"{line.item_id} {line.waiver}") for line in lines if line.waiver]
    why = (*_reason_cell(reason), *cell(small(more), *waivers))
    return cell(strong(name), status_line(status)), cell(shown), why


def _reason_cell(reason: str) -> Cell:
    """Return a cell with a reason; a line to copy from it is set apart and never cut."""
    found = _LINE_TO_PIN.search(reason)
    if found is None:
        return cell(formats.clean(reason, _REASON_CHARACTERS))
    before, after = reason[: found.start()].strip(), reason[found.end() :].strip(" .")
    limit = _REASON_CHARACTERS // 2
    return cell(formats.clean(before, limit), mono(found[1]), formats.clean(after, limit))


def _failed_outside_gate(items: tuple[ItemView, ...]) -> tuple[Block, ...]:
    failed = by_weight(tuple(item for item in items if _failed_alone(item)))
    if not failed:
        return ()
    rows = [
        (cell(strong(i.id), status_line(i.status)), cell(i.title), _found(i))
        for i in failed[:_MOST_FAILED_ON_PAGE_ONE]
    ]
    more = len(failed) - len(rows)
    note = f"and {formats.count(more)} more, listed under Limits" if more > 0 else ""
    return (Heading("Failed outside the gate"), _news_table("Item", rows, note))


def _news_table(title: str, rows: Sequence[tuple[Cell, ...]], note: str = "") -> Table:
    head = columns((title, 0.17), ("What must be shown", 0.17), ("Why", 0.66))
    return Table(head, tuple(rows), note)


def _found(item: ItemView) -> Cell:
    """Return reason and observed value; "yes" and "no" are left out, the status shows them."""
    seen = f"observed {item.value}" if item.value not in {"", "yes", "no"} else ""
    return (*_reason_cell(item.reason), *cell(small(seen)))


def _unknown_sentences(items: tuple[ItemView, ...]) -> tuple[str, ...]:
    unknown = [i for i in items if i.status is ItemStatus.NOT_EVALUATED]
    missing = [i for i in items if i.status is ItemStatus.MISSING]
    sentences = []
    if unknown:
        n = formats.counted(len(unknown), "check")
        sentences.append(f"{n} could not be run and count as unknown{_core(unknown)}.")
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
    return f", {formats.count(n)} of them {ItemClass.CORE.word}" if n else ""


def identity_rows(evidence: ReportEvidence) -> tuple[tuple[str, Cell], ...]:
    """Return names and values that identify run, data and evidence."""
    run, manifest = evidence.run, evidence.manifest
    clean = {True: "clean tree", False: "uncommitted changes", None: "tree state unknown"}
    commit = f"{run.code_commit}, {clean[run.code_clean]}" if run.code_commit else "unknown"
    data = evidence.get(DatasetIdentity)
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
        ("Declarations", declaration_words(evidence)),
        ("Evidence root", cell(mono(manifest.evidence_root))),
        ("Journal head", cell(mono(manifest.journal_head)) + cell(f"after {n_events}")),
        ("Previous run", cell(mono(manifest.previous_run or "none in this workspace"))),
    )
