"""What changes how every other page is read: one sentence each, for page 1 and the card."""

from governance.evidence.documents import TEST, MetricResult, SplitRecord
from governance.reports import formats
from governance.reports.data_pages import missing_sentence
from governance.reports.evidence import ReportEvidence
from governance.reports.partition_pages import OFFICIAL_SPLIT_UNUSED, split_deviations
from governance.statuses import ItemStatus, PrincipleStatus

_IDENTITY_ITEM = "P5-01"


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
    """Whether the gate's table already says that the identity is not pinned."""
    return any(
        line.item_id == _IDENTITY_ITEM
        and line.status is not ItemStatus.PASSED
        and "pin" in line.reason
        for line in evidence.summary.gate_items
    )


def _split_conditions(split: SplitRecord) -> list[str]:
    """Whether the official split was kept, and each departure from it, once."""
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
        if isolation.noticed:
            targets = sorted({attempt.target for attempt in isolation.noticed})
            sentences.append(
                f"The generator tried to reach what training must not: {', '.join(targets)}."
            )
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
    training = evidence.training
    compared = training.comparison.sentence if training and training.comparison else ""
    return [*([compared] if compared else []), *_unmeasured(evidence)]


def _unmeasured(evidence: ReportEvidence) -> list[str]:
    if evidence.evaluation is None:
        return ["No image quality was measured: FID and every other metric are not evaluated."]
    overall = [m for m in evidence.evaluation.metrics if not m.subgroup]
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
