"""The sections on limits, environment, plan, evidence files and verification."""

from governance.evidence.manifest import MANIFEST
from governance.records.base import ItemClass, ItemStatus
from governance.records.dataset import DatasetIdentity
from governance.records.item import TraceTable
from governance.records.manifest import ManifestFile
from governance.records.partition import IsolationRecord
from governance.records.people import SigningRecord
from governance.records.run import Environment, IntegrityRecord, Outcome, Plan
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
from governance.reports.items import GAPS, ItemView, by_weight, item_views
from governance.reports.sections.software import software_blocks, trace_sentence

_SAME_REASON = 4  # from this number on, items with the same reason are listed together
_PACKAGES_A_ROW = 4
_LISTED_TOGETHER = (("samples/", ".png"), ("records/", ".json"))
DRAFT_NOTE = (
    "The model card follows the example card of FDA's draft guidance 'AI-Enabled Device Software "
    "Functions: Lifecycle Management and Marketing Submission Recommendations' (January 2025, "
    "draft)."
)


def limits_section(evidence: ReportEvidence) -> Section:
    """List all that is failed, missing, not evaluated or absent, and limits of the results."""
    items = item_views(evidence)
    main: list[Block] = []
    blocks: list[Block] = []
    for status in (*GAPS, ItemStatus.NOT_APPLICABLE):
        own = tuple(item for item in items if item.status is status)
        (main if status is ItemStatus.FAILED else blocks).extend(_gaps(status, own))
        if own and status is not ItemStatus.FAILED:
            named = joined([item.id for item in by_weight(own)])
            n = formats.counted(len(own), "item")
            main.append(Text(f"{status.value.capitalize()}: {n}, {named}; reasons in the annex."))
    main.extend(_integrity_faults(evidence))
    main.extend(_absent(evidence))
    shown = limit_sentences(evidence, items)
    if shown:
        blocks.extend((Heading("What the results do not show"), Bullets(shown)))
    return Section("limits", "9", "Limits", blocks=tuple(blocks), main=tuple(main))


def _gaps(status: ItemStatus, items: tuple[ItemView, ...]) -> tuple[Block, ...]:
    title = f"{status.value.capitalize()}: {formats.counted(len(items), 'item')}"
    if not items:
        return (Heading(title),) if status is ItemStatus.FAILED else ()
    by_reason: dict[str, list[ItemView]] = {}
    for item in by_weight(items):
        by_reason.setdefault(item.reason, []).append(item)
    single = [m for members in by_reason.values() if len(members) < _SAME_REASON for m in members]
    blocks: list[Block] = [Heading(title)]
    if single:
        head = columns(("Item", 0.10), ("What must be shown", 0.38), ("Reason", 0.52))
        rows = tuple((cell(strong(i.id)), cell(i.title), cell(i.reason)) for i in single)
        blocks.append(Table(head, rows))
    for reason, members in by_reason.items():
        if len(members) >= _SAME_REASON:
            blocks.append(_by_principle(members, reason or "no reason given"))
    return tuple(blocks)


def _by_principle(items: list[ItemView], reason: str) -> Table:
    named: dict[str, list[str]] = {}
    for item in items:
        core = " (core)" if item.item_class is ItemClass.CORE else ""
        named.setdefault(item.principle, []).append(f"{item.id} {item.title}{core}")
    head = columns(("Principle", 0.10), (f"Reason: {reason}", 0.90))
    ordered = sorted(named, key=lambda principle: int(principle.removeprefix("P")))
    rows = tuple((cell(strong(p)), cell("; ".join(named[p]))) for p in ordered)
    return Table(head, rows)


def _integrity_faults(evidence: ReportEvidence) -> tuple[Block, ...]:
    record = evidence.get(IntegrityRecord)
    if record is None:
        return (Heading("Integrity"), Text("Files were not read again at the end of the run."))
    faults = (
        *(f"changed or vanished since it was written: {path}" for path in record.mismatches),
        *(f"in the run folder without a record: {path}" for path in record.unregistered),
        *(f"journal: {fault}" for fault in record.journal_faults),
    )
    checked = (
        f"{formats.counted(record.n_files, 'file')} read again at the end of the run, "
        f"{formats.counted(record.journal_events, 'journal event')} checked: "
        f"{formats.counted(len(faults), 'fault')}."
    )
    return (Heading("Integrity"), Text(checked), *((Bullets(faults),) if faults else ()))


def _absent(evidence: ReportEvidence) -> tuple[Block, ...]:
    dataset = evidence.get(DatasetIdentity)
    absent = dataset.absent_attributes if dataset else ()
    if not absent:
        return ()
    sentences = tuple(f"{entry.name}: {entry.consequence}" for entry in absent)
    return (Heading("Attributes absent from the data"), Bullets(sentences))


def limit_sentences(evidence: ReportEvidence, items: tuple[ItemView, ...]) -> tuple[str, ...]:
    """List the recorded limits of results, isolation and data set."""
    dataset = evidence.get(DatasetIdentity)
    record = evidence.get(IsolationRecord)
    isolation = record.limits if record else ()
    sentences = [
        f"{item.id}: {item.limitations}"
        for item in items
        if item.limitations and not _says_all(item.limitations, isolation)
    ]
    sentences.extend(f"Isolation: {limit}" for limit in isolation)
    if dataset:
        sentences.extend(f"Data: {note}" for note in dataset.notes)
        if dataset.split_unit_note:
            sentences.append(f"Splitting: {dataset.split_unit_note}")
    return tuple(sentences)


def _says_all(text: str, limits: tuple[str, ...]) -> bool:
    """Whether a text only repeats limits that are listed one by one anyway."""
    return bool(limits) and all(limit.rstrip(".") in text for limit in limits)


def environment_section(evidence: ReportEvidence) -> Section:
    """Show machine, lock differences, step times, packages, and what is known of these."""
    return Section(
        "environment",
        "10",
        "Environment",
        blocks=(*_steps(evidence), *_environment(evidence), *software_blocks(evidence)),
    )


def _steps(evidence: ReportEvidence) -> tuple[Block, ...]:
    command = cell(mono(" ".join(evidence.run.command)))
    facts = Facts((("Command", command), ("Configuration", cell(mono(evidence.run.config_sha256)))))
    outcome = evidence.get(Outcome)
    if outcome is None:
        return (facts, Text("How the steps ended is not on record."))
    rows = tuple(
        cells(step.step, step.status, formats.duration(step.duration_s), step.message)
        for step in outcome.steps
    )
    head = columns(("Step", 0.22), ("Ended", 0.16), ("Time", 0.16, "right"), ("Message", 0.46))
    return (facts, Heading("Steps"), Table(head, rows))


def _environment(evidence: ReportEvidence) -> tuple[Block, ...]:
    record = evidence.get(Environment)
    if record is None:
        return (Text("The environment is not on record."),)
    memory = formats.NOT_AVAILABLE
    if record.memory_bytes is not None:
        memory = f"{formats.number(record.memory_bytes / 2**30, 1)} GiB"
    facts = (
        ("Python", cell(record.python)),
        ("System", cell(record.platform)),
        ("Processors", cell(formats.count(record.cpu_count))),
        ("Memory", cell(memory)),
        ("Compute device", cell(record.compute_device)),
        ("Lock file", cell(record.lock_file or "none found")),
    )
    differences: tuple[Block, ...] = (
        (Heading("Unlike the lock file"), Bullets(record.lock_differences))
        if record.lock_differences
        else (Text(_no_differences(record.lock_file)),)
    )
    names = [f"{package.name} {package.version}" for package in record.packages]
    rows = tuple(
        tuple(
            cell(small(name)) for name in (names[start:] + [""] * _PACKAGES_A_ROW)[:_PACKAGES_A_ROW]
        )
        for start in range(0, len(names), _PACKAGES_A_ROW)
    )
    title = f"{formats.counted(len(names), 'installed package')}"
    head = columns(
        *((title if place == 0 else "", 1 / _PACKAGES_A_ROW) for place in range(_PACKAGES_A_ROW))
    )
    return (Heading("Machine"), Facts(facts), *differences, Table(head, rows))


def _no_differences(lock_file: str | None) -> str:
    if lock_file is None:
        return "No lock file was found, so versions were compared with nothing."
    return "Installed versions equal the lock file."


def plan_section(evidence: ReportEvidence) -> Section:
    """Show the plan that was frozen before training."""
    plan = evidence.get(Plan)
    if plan is None:
        text = Text("No plan was frozen: the run stopped before criteria were fixed.")
        return Section("plan", "11", "Plan", blocks=(text,))
    facts = (
        ("Frozen", cell(formats.utc(plan.frozen_utc))),
        ("Digest", cell(mono(evidence.digests[Plan.PATH]))),
        ("Configuration", cell(mono(plan.config_sha256))),
        ("Primary endpoint", cell(plan.primary_endpoint)),
        ("Endpoints", cell(joined(plan.endpoints))),
        ("Subgroups", cell(joined(plan.subgroups))),
        ("Statistics", cell(plan.statistics)),
        ("Multiplicity", cell(plan.multiplicity)),
    )
    lead = Text("Criteria and test plan, written and hashed before the first training step.")
    return Section("plan", "11", "Plan", blocks=(lead, Facts(facts)))


def evidence_section(evidence: ReportEvidence) -> Section:
    """List every evidence file with size and digest; samples and records in one row each."""
    manifest = evidence.manifest
    grouped: dict[str, list[ManifestFile]] = {}
    for entry in manifest.evidence:
        grouped.setdefault(_row_name(entry.path), []).append(entry)
    rows = tuple(_file_row(name, entries) for name, entries in grouped.items())
    head = columns(("File", 0.25), ("Bytes", 0.10, "right"), ("SHA-256", 0.65))
    text = (
        f"{formats.counted(len(manifest.evidence), 'file')}, closed "
        f"{formats.utc(manifest.created_utc)}. manifest.json lists each of them with its digest; "
        f"their Merkle root is the evidence root {manifest.evidence_root}. The manifest is "
        f"{_signature(evidence)}. {trace_sentence(evidence.get(TraceTable))}"
    )
    return Section("evidence", "A", "Evidence files", blocks=(Text(text), Table(head, rows)))


def _signature(evidence: ReportEvidence) -> str:
    signing = evidence.get(SigningRecord)
    return signing.sentence if signing else "unsigned"


def _row_name(path: str) -> str:
    """Return the row in which a file is listed: its own, or one shared with its kind."""
    for prefix, suffix in _LISTED_TOGETHER:
        if path.startswith(prefix) and path.endswith(suffix):
            return f"{prefix}*{suffix}"
    return path


def _file_row(name: str, entries: list[ManifestFile]) -> tuple[Cell, ...]:
    n_bytes = cell(formats.count(sum(entry.n_bytes for entry in entries)))
    if name == entries[0].path:
        return cell(mono(name)), n_bytes, cell(mono(entries[0].sha256))
    lists = "samples/manifest.json and manifest.json" if name.startswith("samples/") else MANIFEST
    files = formats.counted(len(entries), "file")
    return cell(mono(name), small(files)), n_bytes, cell(small(f"digests in {lists}"))


def _signature_hint(evidence: ReportEvidence) -> tuple[str, ...]:
    signing = evidence.get(SigningRecord)
    if signing is None or signing.key_id is None:
        return ("The run is unsigned: nothing shows who wrote this record.",)
    return (
        f"The manifest is {signing.sentence}. A key says no more than that its holder "
        "signed: compare it with a copy that the signer gave you, with verify RUN --key FILE.",
    )


def _time_stamp_hint(evidence: ReportEvidence) -> tuple[str, ...]:
    signing = evidence.get(SigningRecord)
    url = signing.timestamp_url if signing else None
    if url is None:
        return ()
    return (
        f"A time-stamp of the manifest was asked of {url}. verify says whether it came, and with "
        "--tsa-certificate FILE whether it is by the authority whose certificate you hold.",
    )


def verify_section(evidence: ReportEvidence) -> Section:
    """Explain how to check this report without trusting it."""
    run_id = evidence.run.run_id
    return Section(
        "verify",
        "B",
        "How to verify",
        main=(
            Bullets(
                (
                    f"medisynth-gov verify runs/{run_id} reads every file again, recomputes every "
                    "digest, the Merkle root and the journal chain, and names each mismatch.",
                    "Compare the evidence root and the journal head of page 1 with those that the "
                    "command prints, and with a copy kept by somebody else; --root and --head "
                    "compare them.",
                    "python verify_run.py, in the run folder, checks chain, digests, root and "
                    "manifest signature with Python's own library and the package cryptography "
                    "alone. In a folder that you do not trust, take that script from the release.",
                    *_signature_hint(evidence),
                    *_time_stamp_hint(evidence),
                    "verify also draws card and report again and compares every byte, and compares "
                    "this run with the ledger of its data set, where that is at hand; verify "
                    "--mirror compares what MLflow shows.",
                    "A chain alone cannot show that its owner rebuilt all of it: keep the journal "
                    "head where the owner of the machine cannot change it.",
                )
            ),
            Text(DRAFT_NOTE, "note"),
        ),
    )
