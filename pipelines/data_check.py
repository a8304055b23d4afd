"""Steps 1 to 4 without seal and training: is this data set fit to be used?

The audit of the listing comes first and needs no image. What an image-less or broken data set can
still show is then on the page, with the sentence that says what stops.
"""

import json
import tempfile
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from governance.audits.checks import CHECKS, Documents, evaluate
from governance.audits.rollup import short_title
from governance.evidence.record import ItemRecord
from governance.evidence.store import EvidenceStore
from governance.policies.load import load_policy, with_criteria
from governance.reports import formats
from governance.reports.data_check_page import DataCheckEvidence, write_data_check_html
from governance.reports.evidence import read_pictures
from medisynth.data.coverage import ALL, NOT_RECORDED, ListingSummary, listing_summary
from medisynth.errors import MedisynthError
from pipelines.audit_documents import audit_listing
from pipelines.check_memory import CheckedData, now
from pipelines.config import RunConfig
from pipelines.console import Console
from pipelines.context import RunContext
from pipelines.identity import tool_version
from pipelines.junit import junit_xml
from pipelines.steps import s1_ingest, s2_validate, s3_audit, s4_split

DATA_STEPS = ("s1_ingest", "s2_validate", "s3_audit", "s4_split")
_SHOWN_PAIRS = 20
_REASON_CHARACTERS = 220  # the whole reason stands in JSON and page


def check_data(config: RunConfig, console: Console) -> CheckedData:
    """Ingest, validate, audit and divide a data set; nothing is kept but caches.

    Raises:
        DataError: The folder or its metadata file cannot be read at all.
        SettingsError: The contract or the target population cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="medisynth-gov-") as folder:
        store = EvidenceStore.create(Path(folder), "check", tool_version=tool_version())
        policy = with_criteria(load_policy(), config.criteria)
        context = RunContext(config, policy, store, console, Path(folder))
        listed = s1_ingest.list_data(context)
        summary = listing_summary(listed.listing)
        audit_listing(listed, context)
        error: MedisynthError | None = None
        read_sha256: dict[str, str] = {}
        try:
            images = s1_ingest.run(listed, context)
            read_sha256 = dict(zip(images.table["path"], images.table["file_sha256"], strict=True))
            s2_validate.run(images, context)
            s4_split.divide(images, s3_audit.run(images, context), context)
        except MedisynthError as caught:
            if caught.exit_code not in (3, 4):
                raise
            error = caught
        checked = _gather(context, summary, str(listed.root), error)
        return replace(checked, read_sha256=read_sha256)


def _gather(
    context: RunContext, summary: ListingSummary, folder: str, error: MedisynthError | None
) -> CheckedData:
    """Judge the data items and write what was found in four forms."""
    store = context.store
    documents = Documents.load(store.run_dir)
    records = evaluate(
        context.policy,
        documents,
        plan_sha256=None,
        now=datetime.now(UTC),
        artifacts=store.artifacts(),
        only=[item_id for item_id, check in CHECKS.items() if check.step in DATA_STEPS],
    )
    exit_code = error.exit_code if error else 0
    sentence = str(error) if error else "Nothing stops a run on this data set as configured."
    evidence = DataCheckEvidence(
        dataset=documents.dataset,
        findings=documents.findings,
        validation=documents.validation,
        boundaries=documents.boundaries,
        coverage=documents.coverage,
        audit=documents.audit,
        demographics=documents.demographics,
        duplicates=documents.duplicates,
        content=documents.content,
        labels=documents.labels,
        split=documents.split,
        figures=documents.figures,
        pictures=read_pictures(store.run_dir, documents.figures),
        records={record.id: record for record in records},
        tool_version=tool_version(),
        folder=folder,
        exit_code=exit_code,
        sentence=sentence,
        policy=context.policy,
    )
    facts = _facts(store.run_dir, summary, records, exit_code, sentence)
    return CheckedData(
        text=_text(facts, summary, records),
        facts=facts,
        html=write_data_check_html(evidence),
        junit=junit_xml(records, name=f"medisynth-gov data check {folder}", stopped_by=error),
        exit_code=exit_code,
        error_code=error.code if error else None,
        sentence=sentence,
        findings=tuple(str(finding) for finding in getattr(error, "findings", ())),
        checked_utc=now(),
    )


def _facts(
    run_dir: Path,
    summary: ListingSummary,
    records: tuple[ItemRecord, ...],
    exit_code: int,
    sentence: str,
) -> dict[str, Any]:
    """Everything found, as JSON data: the listing, the items, the documents of the steps that ran."""
    facts: dict[str, Any] = {
        "exit_code": exit_code,
        "sentence": sentence,
        "listing": asdict(summary),
        "items": [record.model_dump(mode="json") for record in records],
    }
    for path in sorted((run_dir / "data").glob("*.json")):
        if path.name != "great_expectations.json":
            facts[path.stem] = json.loads(path.read_bytes())
    return facts


def _text(facts: dict[str, Any], summary: ListingSummary, records: tuple[ItemRecord, ...]) -> str:
    lines = [
        f"{facts['dataset']['title']}",
        f"{summary.n_images:,} rows, {summary.n_patients:,} {facts['dataset']['split_unit']}s, "
        f"{summary.images_per_patient[0]} to {summary.images_per_patient[2]} images each "
        f"(median {summary.images_per_patient[1]:g})",
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
    absent = [attribute["name"] for attribute in facts["dataset"]["absent_attributes"]]
    if absent:
        lines.append(f"not recorded: {', '.join(absent)}")
    lines += _step_lines(facts)
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
    for attribute, level in names:
        cells = [summary.count(attribute, level, name) for name in columns]
        counts = "".join(f"  {f'{c.n_images:,} ({c.n_patients:,})':>22}" for c in cells)
        lines.append(f"{f'{attribute}: {level}':<{width}}{counts}")
    return [*lines, "images (patients)"]


def _step_lines(facts: dict[str, Any]) -> list[str]:
    lines = []
    if "validation" in facts:
        rules = facts["validation"]["rules"]
        judged = [rule for rule in rules if rule["n_evaluated"]]
        failed = [rule for rule in rules if not rule["passed"]]
        lines.append(
            f"data contract: {len(judged) - len(failed)} of {len(judged)} rules hold; "
            f"{len(rules) - len(judged)} not evaluated, nothing recorded to judge"
        )
        lines += [
            f"  {rule['severity']}, {rule['engine']}: {rule['rule']} ({rule['n_unexpected']:,} of "
            f"{rule['n_evaluated']:,} rows)"
            for rule in failed
        ]
    if "duplicates" in facts:
        found = facts["duplicates"]
        lines.append(
            f"images that occur twice: {found['n_pairs']:,} pairs, {found['n_near']:,} of them "
            f"near-duplicates; {found['n_pairs_across_patients']:,} under different patients, "
            f"{found['n_pairs_across_partitions']:,} across the split"
        )
        lines += [_pair_line(pair) for pair in found["pairs"][:_SHOWN_PAIRS]]
        if found["n_pairs"] > _SHOWN_PAIRS:
            lines.append(f"  … and {found['n_pairs'] - _SHOWN_PAIRS:,} more")
    if "content" in facts:
        found = facts["content"]
        lines.append(
            f"burned-in text ({found['engine']}): {found['n_scanned']:,} of {found['n_images']:,} "
            f"images looked at, {found['n_images_with_marks']:,} with text that looks identifying; "
            f"{len(found['columns']):,} columns that look identifying"
        )
    if facts["dataset"]["content_sha256"]:
        lines.append(f"data.digest: {facts['dataset']['content_sha256']}")
    return lines


def _pair_line(pair: dict[str, Any]) -> str:
    words = pair["kind"]
    if pair["similarity"] is not None:
        words += f" {pair['similarity']:.3f}"
    if pair["transform"] != "as is":
        words += f", {pair['transform']}"
    return f"  {pair['left_id']} = {pair['right_id']} ({words})"
