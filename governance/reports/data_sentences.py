"""What the data audit found, one sentence each, for the model card."""

from governance.evidence.documents import TEST, TRAINING, ContentScan, DuplicateAudit, LabelAudit
from governance.reports import formats
from governance.reports.blocks import joined
from governance.reports.data_evidence import DataEvidence, limit_of, share_text

_NAMED = 8


def limit_sentences_on_data(evidence: DataEvidence) -> tuple[str, ...]:
    """What the data cannot tell apart or does not hold: confounding, shift, one-sided levels."""
    return (*_confounding(evidence), *_shifts(evidence))


def _confounding(evidence: DataEvidence) -> tuple[str, ...]:
    limit = limit_of(evidence, "P3-07")
    pairs = evidence.audit.confounding if evidence.audit else ()
    return tuple(
        f"{pair.left} and {pair.right} go together (Cramér's V {pair.v:.2f}, p {pair.p_value:.3f}, "
        f"limit {limit:g}): an effect of one cannot be told from an effect of the other."
        for pair in sorted(pairs, key=lambda pair: -pair.v)
        if limit is not None and pair.v > limit
    )


def _shifts(evidence: DataEvidence) -> tuple[str, ...]:
    """Training against the held-out test set: shift above the limit, levels on one side only."""
    limit = limit_of(evidence, "P3-05")
    sentences = []
    for shift in evidence.audit.shifts if evidence.audit else ():
        if {shift.left, shift.right} != {TRAINING, TEST}:
            continue
        if limit is not None and shift.total_variation > limit:
            share = share_text(shift.total_variation, shift.ci95)
            sentences.append(
                f"{shift.attribute} differs between {TRAINING} and {TEST} by {share} of "
                f"{evidence.unit}s, limit {formats.percent(limit, 1)}."
            )
        if shift.one_sided:
            sentences.append(f"{shift.attribute}, on one side only: {_named(shift.one_sided)}.")
    return tuple(sentences)


def _named(words: tuple[str, ...]) -> str:
    hidden = len(words) - _NAMED
    tail = f" and {formats.count(hidden)} more" if hidden > 0 else ""
    return f"{joined(words[:_NAMED])}{tail}"


def quality_sentences(evidence: DataEvidence) -> tuple[str, ...]:
    """Copies found and dropped, suspected labels, content of the images."""
    sentences: list[str] = []
    if evidence.duplicates is not None:
        sentences.append(_duplicates(evidence.duplicates, evidence.unit))
    split = evidence.split
    if split is not None:
        equal = formats.count(sum(split.shared_content.values()))
        near = formats.count(sum(split.shared_near.values())) if split.shared_near else None
        sentences.append(f"Images with equal pixels in two partitions: {equal}.")
        sentences.append(f"Near-duplicate pairs across partitions: {near or 'not evaluated'}.")
        dropped = formats.counted(len(split.dropped), "image")
        sentences.append(f"Taken out of training as copies: {dropped}.")
    if evidence.labels is not None:
        sentences.append(_labels(evidence.labels, evidence.unit))
    if evidence.content is not None:
        sentences.append(_content(evidence.content))
    return tuple(sentences)


def _duplicates(audit: DuplicateAudit, unit: str) -> str:
    exact = formats.counted(audit.n_pairs - audit.n_near, "pair")
    return (
        f"Duplicates among {formats.counted(audit.n_images, 'image')}: {exact} of equal images, "
        f"{formats.counted(audit.n_near, 'near-duplicate pair')}; "
        f"{formats.count(audit.n_pairs_across_patients)} across {unit}s."
    )


def _labels(audit: LabelAudit, unit: str) -> str:
    if audit.balanced_accuracy is None:
        reason = audit.reason.rstrip(".") or "no reason is on record"
        return f"Suspected label errors: not evaluated; {reason}."
    share = audit.n_suspected / audit.n_images if audit.n_images else None
    return (
        f"Suspected label errors in {audit.label}: {formats.count(audit.n_suspected)} of "
        f"{formats.counted(audit.n_images, 'training image')} of "
        f"{formats.counted(audit.n_patients, unit)}, {share_text(share, audit.rate_ci95)}; found by "
        f"a model with a balanced accuracy of {formats.percent(audit.balanced_accuracy, 1)}; "
        f"reviewed {f'by {audit.reviewed}' if audit.reviewed else 'by nobody'}."
    )


def _content(scan: ContentScan) -> str:
    n = formats.counted(scan.n_scanned, "image")
    text = (
        f"text that looks identifying in {formats.count(scan.n_images_with_marks)} of {n} read"
        if scan.reads_text
        else "identifying text not evaluated, as this engine does not read letters"
    )
    columns = joined([column.column for column in scan.columns])
    return (
        f"Image content ({scan.engine}): {text}; burned-in overlay in "
        f"{formats.count(scan.n_with_overlay)} of {formats.counted(scan.n_images, 'image')}; "
        f"columns that look identifying: {columns}."
    )
