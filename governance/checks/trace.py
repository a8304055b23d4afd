"""Follow every link from a principle to the files that prove its items."""

from collections.abc import Iterator, Mapping, Sequence

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import CHECKS, check, counted, judge, listed
from governance.evidence.folder import RunFolder
from governance.records.base import ItemStatus
from governance.records.item import CheckResult, ItemRecord, Observed, TraceLine, TraceTable
from governance.records.policy import Criterion, Item, Policy
from governance.records.run import Figures
from governance.records.software import BillOfMaterials
from governance.records.training import SampleSet, TrainingRecord

TRACED = "P2-11"
"""The item that judges the table; its own record is written after the table."""

_WITHOUT_EVIDENCE = (ItemStatus.NOT_EVALUATED, ItemStatus.MISSING)

_Link = tuple[str, str]  # "principle to item", say; why it does not resolve, or ""


def trace(
    policy: Policy,
    records: Sequence[ItemRecord],
    folder: RunFolder,
    artifacts: Mapping[str, str],
) -> TraceTable:
    """Follow every link from principles to files.

    Args:
        policy: Policy in force.
        records: Records of all items but P2-11, already written.
        folder: What the run has left.
        artifacts: SHA-256 by path of every file of the run folder that is on record.
    """
    found = {record.id: record for record in records}
    lines: list[TraceLine] = []
    links: list[_Link] = []
    for principle in policy.principles:
        for item in principle.items:
            record = found.get(item.id)
            lines.append(_line(principle.id, item, record, artifacts))
            if item.id != TRACED:
                links += _links(principle.id, item, record, artifacts)
    links += _file_links(folder, artifacts)
    return TraceTable(
        lines=tuple(lines),
        n_links=len(links),
        broken=tuple(f"{what}: {fault}" for what, fault in links if fault),
    )


def _line(
    principle: str, item: Item, record: ItemRecord | None, artifacts: Mapping[str, str]
) -> TraceLine:
    registered = CHECKS.get(item.id) if item.kind == "computed" else None
    artifact = record.artifact if record else None
    path = _record_path(item.id)
    function = registered.function if registered else None
    return TraceLine(
        principle=principle,
        item_id=item.id,
        status=record.status.value if record else "",
        check=f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__}" if function else "",
        step=registered.step if registered else "",
        record=path if record else "",
        record_sha256=artifacts.get(path, "") if record else "",
        artifact=artifact.path if artifact else "",
        artifact_sha256=artifact.sha256 if artifact else "",
    )


def _links(
    principle: str, item: Item, record: ItemRecord | None, artifacts: Mapping[str, str]
) -> Iterator[_Link]:
    """Yield the links of one item: principle to item, item to record, record to evidence."""
    if record is None or record.principle != principle:
        yield f"{principle} to {item.id}", "the item has no record under this principle"
        return
    yield f"{principle} to {item.id}", ""
    path = _record_path(item.id)
    yield f"{item.id} to {path}", "" if path in artifacts else "there is no such file on record"
    if record.artifact is not None:
        what = f"{item.id} to {record.artifact.path}"
        yield what, _fault(record.artifact.path, record.artifact.sha256, artifacts)
    elif record.status not in _WITHOUT_EVIDENCE:
        yield f"{item.id} to its evidence", f"{record.status.value}, but no evidence is named"


def _file_links(folder: RunFolder, artifacts: Mapping[str, str]) -> Iterator[_Link]:
    """Yield links to files that documents name: checkpoint, images, figures, bill of materials."""
    named: list[tuple[str, str, str]] = []
    if training := folder.get(TrainingRecord):
        named.append(("training", training.checkpoint_path, training.checkpoint_sha256))
    if samples := folder.get(SampleSet):
        named += [("samples", path, sha256) for path, sha256, _ in samples.files]
    if materials := folder.get(BillOfMaterials):
        named.append(("bill of materials", materials.path, materials.sha256))
    if figures := folder.get(Figures):
        named += [("figures", figure.path, "") for figure in figures.figures]
    for source, path, sha256 in named:
        yield f"{source} to {path}", _fault(path, sha256, artifacts)


def _fault(path: str, sha256: str, artifacts: Mapping[str, str]) -> str:
    """Return why a link to a file is broken; "" when intact. Without a digest the path decides."""
    if path not in artifacts:
        return "there is no such file on record"
    return "the file on record has another digest" if sha256 not in ("", artifacts[path]) else ""


def _record_path(item_id: str) -> str:
    return f"records/{item_id}.json"


@check(TRACED, step="s7_evidence")
def every_link_resolves(documents: JudgedRun, criterion: Criterion) -> CheckResult:
    """Count the links from principle to item, record, evidence and file that are broken."""
    table = documents.need(TraceTable)
    items = counted(len(table.lines), "item")
    return judge(
        criterion,
        Observed(value=len(table.broken)),
        reason=listed(table.broken) or f"{counted(table.n_links, 'link')} of {items}, all resolve",
        method="each principle followed to its items, their records, the evidence that these name "
        "by digest, and the files that documents name",
        source=TraceTable,
        limitations=f"The record of {TRACED} itself is written after the table.",
    )
