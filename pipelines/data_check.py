"""Steps 1 to 3 alone: is this data set fit to be used? Nothing is trained, nothing is kept."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medisynth.data.coverage import listing_summary

from governance.evidence.store import EvidenceStore
from governance.policies.load import load_policy
from medisynth.errors import MedisynthError
from pipelines.config import RunConfig
from pipelines.console import Console
from pipelines.context import RunContext
from pipelines.identity import tool_version
from pipelines.steps import s1_ingest, s2_validate, s3_audit


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
