"""The principle matrix, and one section for each principle."""

import re

from governance.records.base import PrincipleStatus
from governance.records.policy import Principle
from governance.records.rollup import PrincipleLine
from governance.reports.blocks import (
    Block,
    Cell,
    Section,
    Table,
    Text,
    cell,
    columns,
    joined,
    small,
    status_line,
    strong,
)
from governance.reports.evidence import ReportEvidence
from governance.reports.items import GAPS, ItemView, by_weight, item_table, item_views

_HOW_TO_READ = (
    "Each principle is shown by items. Computed items are checked by this run; human items rest "
    "on a named person's word and can at best be declared. Core items decide whether a principle "
    "is satisfied or not; required items can hold it at partial; informative items change nothing. "
    "The gate is a separate list of items and never improves a status."
)


def tally(line: PrincipleLine) -> str:
    """Return the counts behind a principle's status, worded alike in every report."""
    return (
        f"verified by this run {line.n_passed}/{line.n_computed} · "
        f"declared {line.n_declared}/{line.n_human} · missing {line.n_missing} · "
        f"not evaluated {line.n_not_evaluated}"
    )


def principle_number(line: PrincipleLine) -> str:
    """Return the number of the 2021 principle, e.g. "4"."""
    return line.id.removeprefix("P")


def matrix_section(evidence: ReportEvidence) -> Section:
    """Build the matrix, a row for each principle: number, titles, status, counts."""
    lines = evidence.summary.principles
    head = columns(
        ("No.", 0.08, "right"),
        ("Title 2021, and title of N88 (2025)", 0.50),
        ("Status", 0.17),
        ("Items", 0.25),
    )
    table = Table(head, tuple(_matrix_row(line) for line in lines))
    name = f"{evidence.summary.policy} {evidence.summary.policy_version}"
    return Section(
        "principles",
        "1",
        "The ten principles at a glance",
        main=(
            Text(
                "Numbers and first titles: FDA, Health Canada and MHRA, October 2021. Second "
                f"titles: IMDRF/AIML WG/N88 FINAL:2025. Mapped by policy {name}."
            ),
            table,
            Text(_HOW_TO_READ, "note"),
        ),
    )


def _matrix_row(line: PrincipleLine) -> tuple[Cell, ...]:
    other = line.title_n88 if line.title_n88 != line.title_2021 else "same title in N88"
    counts = [f"failed {line.n_failed}"] if line.n_failed else []
    if line.n_not_applicable:
        counts.append(f"not applicable {line.n_not_applicable}")
    return (
        cell(strong(principle_number(line))),
        cell(line.title_2021, small(other)),
        cell(status_line(line.status)),
        cell(small(" · ".join([tally(line), *counts]))),
    )


def principle_sections(evidence: ReportEvidence) -> Section:
    """Build one section for each principle, inside section 2."""
    policy = {p.id: p for p in evidence.policy.principles} if evidence.policy else {}
    return Section(
        "items",
        "2",
        "Evidence, principle by principle",
        sections=tuple(
            _principle(evidence, line, policy.get(line.id)) for line in evidence.summary.principles
        ),
    )


def _principle(
    evidence: ReportEvidence, line: PrincipleLine, principle: Principle | None
) -> Section:
    items = tuple(item for item in item_views(evidence) if item.principle == line.id)
    blocks: list[Block] = [Text(tally(line), "lead")]
    if principle and principle.auditor_questions:
        blocks.append(Text(f"Auditors ask: {principle.auditor_questions}", "note"))
    if principle and principle.ceiling:
        blocks.append(Text(_at_best(principle.ceiling), "note"))
    if line.gaps and line.status is PrincipleStatus.NOT_APPLICABLE:
        blocks.append(Text(f"Not applicable: {'; '.join(line.gaps)}."))
    blocks.extend(_gaps(items))
    if items:
        blocks.append(item_table(items))
    else:
        blocks.append(Text("The run left no record for this principle."))
    return Section(
        f"principle-{line.id}",
        f"2.{principle_number(line)}",
        line.title_2021,
        subtitle=line.title_n88,
        status=status_line(line.status),
        blocks=tuple(blocks),
    )


def _at_best(ceiling: str) -> str:
    """Return the best status that the policy expects; policies of earlier runs word it otherwise."""
    found = re.fullmatch(r"Best reachable here is ([\w ]+?)([.;,].*|)", ceiling, re.DOTALL)
    return f'At best this tool can show "{found[1]}" here{found[2] or "."}' if found else ceiling


def _gaps(items: tuple[ItemView, ...]) -> tuple[Block, ...]:
    """List ids that are failed, missing or not evaluated, core items first."""
    parts = []
    for status in GAPS:
        names = [item.id for item in by_weight(items) if item.status is status]
        if names:
            parts.append(f"{status.value} {joined(names)}")
    return (Text(f"Gaps: {'; '.join(parts)}.", "note"),) if parts else ()
