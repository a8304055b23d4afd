"""Steps 1 to 3 alone: is this data set fit to be used? Nothing is trained, nothing is kept."""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from governance.evidence.store import EvidenceStore
from governance.policies.load import load_policy
from medisynth.data.coverage import ALL, NOT_RECORDED, ListingSummary, listing_summary
from medisynth.data.split import split_images
from medisynth.errors import MedisynthError
from pipelines.config import RunConfig
from pipelines.console import Console
from pipelines.context import AuditedImages, ImageSet, RunContext
from pipelines.identity import tool_version
from pipelines.steps import s1_ingest, s2_validate, s3_audit
from pipelines.steps.s4_split import split_source

_DOCUMENTS = (
    "data/dataset.json",
    "data/findings.json",
    "data/validation.json",
    "data/coverage.json",
    "data/duplicates.json",
)
_SHOWN_PAIRS = 20


@dataclass(frozen=True)
class CheckedData:
    """What was found.

    Attributes:
        text: For people.
        facts: The same for machines.
        error: Why the data set cannot be used as configured; None when it can.
        exit_code: 0, 3 or 4.
    """

    text: str
    facts: dict[str, Any]
    error: MedisynthError | None
    exit_code: int


def check_data(config: RunConfig, console: Console) -> CheckedData:
    """Ingest, validate and audit a data set.

    Raises:
        DataError: The folder or its metadata file cannot be read at all.
    """
    with tempfile.TemporaryDirectory(prefix="medisynth-gov-") as folder:
        store = EvidenceStore.create(Path(folder), "check", tool_version=tool_version())
        context = RunContext(config, load_policy(), store, console, Path(folder))
        listed = s1_ingest.list_data(context)
        summary = listing_summary(listed.listing)
        error: MedisynthError | None = None
        try:
            images = s2_validate.run(s1_ingest.run(listed, context), context)
            audited = s3_audit.run(images, context)
            _refuse_crossing(images, audited, context)
        except MedisynthError as caught:
            error = caught
        facts = _facts(store.run_dir, summary)
        return CheckedData(_text(facts, summary), facts, error, error.exit_code if error else 0)


def _refuse_crossing(images: ImageSet, audited: AuditedImages, context: RunContext) -> None:
    """Try the split that a run would make: a group on both sides is a leak."""
    split = context.config.split
    split_images(
        images.table,
        audited.groups,
        source=split_source(split.source, images.table["official_partition"]),
        test_fraction=split.test_fraction,
        tuning_fraction=split.tuning_fraction,
        seed=split.seed,
        on_duplicate=split.on_duplicate,
    )


def _facts(run_dir: Path, summary: ListingSummary) -> dict[str, Any]:
    """Everything found, as JSON data: the listing, and the documents of the steps that ran."""
    facts: dict[str, Any] = {"listing": asdict(summary)}
    for name in _DOCUMENTS:
        path = run_dir / name
        if path.exists():
            facts[path.stem] = json.loads(path.read_bytes())
    return facts


def _text(facts: dict[str, Any], summary: ListingSummary) -> str:
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
            f"pairs of identical images: {found['n_pairs']:,}, {found['n_pairs_across_patients']:,} "
            f"under different patients, {found['n_pairs_across_partitions']:,} across the split"
        )
        lines += [
            f"  {pair['left_id']} = {pair['right_id']}" for pair in found["pairs"][:_SHOWN_PAIRS]
        ]
    if facts["dataset"]["content_sha256"]:
        lines.append(f"data.digest: {facts['dataset']['content_sha256']}")
    return lines
