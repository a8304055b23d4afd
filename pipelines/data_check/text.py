"""The result of a data check as text for the screen."""

from governance.evidence.folder import RunFolder
from governance.records.audit import CoverageAudit, ListingSummary
from governance.records.content import ContentScan
from governance.records.dataset import DatasetIdentity, ValidationRecord
from governance.records.duplicates import DuplicateAudit, DuplicatePair
from governance.records.item import ItemRecord
from governance.records.partition import SplitRecord
from governance.reports import formats
from governance.verdict.sentence import short_title
from medisynth.data.audit.coverage import ALL, NOT_RECORDED, classes_not_trained

_SHOWN_PAIRS = 20
_SHOWN_IMAGES = 3
_REASON_CHARACTERS = 220  # the whole reason stands in JSON and page


def check_text(
    documents: RunFolder,
    summary: ListingSummary,
    records: tuple[ItemRecord, ...],
    left_out: str,
) -> str:
    """Return what was found, step by step, and every item with its reason.

    Args:
        documents: Documents of the steps that ran.
        summary: The listing, counted.
        records: Judged items.
        left_out: Sentence on the rows that are not selected; "" where all are.
    """
    dataset = documents.need(DatasetIdentity)
    low, median, high = summary.images_per_patient
    lines = [
        dataset.title,
        f"{summary.n_images:,} rows, {summary.n_patients:,} {dataset.split_unit}s, "
        f"{low} to {high} images each (median {median:g})",
    ]
    partitions = [name for name in summary.images_per_partition if name != NOT_RECORDED]
    for name in partitions:
        lines.append(
            f"official {name}: {summary.images_per_partition[name]:,} images, "
            f"{summary.patients_per_partition[name]:,} patients"
        )
    if partitions:
        lines.append(f"patients in both official partitions: {summary.shared_patients}")
    lines += _level_table(summary, partitions)
    for attribute, level, partition in summary.one_sided:
        lines.append(f"only in {partition}: {attribute} {level}")
    if dataset.absent_attributes:
        lines.append(f"not recorded: {', '.join(a.name for a in dataset.absent_attributes)}")
    lines += [left_out] if left_out else []
    lines += dataset.unread or ()
    lines += _contract_lines(documents.get(ValidationRecord))
    if documents.get(SplitRecord) is not None:
        lines += classes_not_trained(documents.need(CoverageAudit).levels)
    lines += _duplicate_lines(documents.get(DuplicateAudit))
    lines += _content_lines(documents.get(ContentScan))
    if dataset.content_sha256:
        lines.append(f"data.digest: {dataset.content_sha256}")
    lines.append("")
    lines += [
        f"{record.id}  {record.status.value:<13}  {short_title(record.title)}: "
        f"{formats.clean(record.reason, _REASON_CHARACTERS)}"
        for record in records
    ]
    return "\n".join(lines)


def _level_table(summary: ListingSummary, partitions: list[str]) -> list[str]:
    columns = [*partitions, ALL]
    names = dict.fromkeys(
        (row.attribute, row.level) for row in summary.rows if row.level != NOT_RECORDED
    )
    if not names:
        return []
    width = max(len(f"{attribute}: {level}") for attribute, level in names)
    lines = [" " * width + "".join(f"  {name:>22}" for name in columns)]
    counted = {
        (row.attribute, row.level, row.partition): f"{row.n_images:,} ({row.n_patients:,})"
        for row in summary.rows
    }
    for attribute, level in names:
        cells = [counted.get((attribute, level, name), "0 (0)") for name in columns]
        counts = "".join(f"  {cell:>22}" for cell in cells)
        lines.append(f"{f'{attribute}: {level}':<{width}}{counts}")
    return [*lines, "images (patients)"]


def _contract_lines(validation: ValidationRecord | None) -> list[str]:
    if validation is None:
        return []
    rules = validation.rules
    judged = [rule for rule in rules if rule.n_evaluated]
    failed = [rule for rule in rules if not rule.passed]
    lines = [
        f"data contract: {len(judged) - len(failed)} of {len(judged)} rules hold; "
        f"{len(rules) - len(judged)} not evaluated, nothing recorded to judge"
    ]
    for rule in failed:
        lines.append(
            f"  {rule.severity}, {rule.engine}: {rule.rule} ({rule.n_unexpected:,} of "
            f"{rule.n_evaluated:,} rows)"
        )
        lines += [f"    {one.sentence}" for one in rule.breaks]
    return lines


def _duplicate_lines(found: DuplicateAudit | None) -> list[str]:
    if found is None:
        return []
    lines = [
        f"images that occur twice: {found.n_pairs:,} pairs, {found.n_near:,} of them "
        f"near-duplicates; {found.n_pairs_across_patients:,} under different patients, "
        f"{found.n_pairs_across_partitions:,} across the split"
    ]
    lines += [_pair_line(pair) for pair in found.pairs[:_SHOWN_PAIRS]]
    if found.n_pairs > _SHOWN_PAIRS:
        lines.append(f"  … and {found.n_pairs - _SHOWN_PAIRS:,} more")
    return lines + ([found.calibration_sentence] if found.calibration else [])


def _pair_line(pair: DuplicatePair) -> str:
    words = str(pair.kind)
    if pair.similarity is not None:
        words += f" {pair.similarity:.3f}"
    if pair.transform != "as is":
        words += f", {pair.transform}"
    return f"  {pair.left_id} = {pair.right_id} ({words})"


def _content_lines(found: ContentScan | None) -> list[str]:
    if found is None:
        return []
    lines = [
        f"burned-in text ({found.engine}): {found.n_scanned:,} of {found.n_images:,} "
        f"images looked at, {found.n_images_with_marks:,} with text that looks identifying; "
        f"{len(found.columns):,} columns that look identifying"
    ]
    for kind in found.file_metadata:
        more = ", …" if kind.n_images > _SHOWN_IMAGES else ""
        lines.append(
            f"  metadata in image files: {kind.kind} of {kind.n_images:,} images "
            f"({', '.join(kind.image_ids[:_SHOWN_IMAGES])}{more}): {kind.reason}"
        )
    return lines
