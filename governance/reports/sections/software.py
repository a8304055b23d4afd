"""Software of a run: bill of materials, vulnerabilities, tests; also repeat and trace."""

from governance.records.item import TraceTable
from governance.records.software import BillOfMaterials, SuiteReport, VulnerabilityScan
from governance.records.training import RepeatRecord
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Bullets,
    Cell,
    Facts,
    Heading,
    Table,
    Text,
    cell,
    columns,
    mono,
    small,
    strong,
)
from governance.reports.evidence import ReportEvidence

_SHOWN = 20


def software_blocks(evidence: ReportEvidence) -> tuple[Block, ...]:
    """Show bill of materials, known vulnerabilities and tests of the same commit."""
    return (
        Heading("Software bill of materials"),
        *_materials(evidence.get(BillOfMaterials)),
        Heading("Known vulnerabilities"),
        *_scan(evidence.get(VulnerabilityScan)),
        Heading("Tests of the framework"),
        *_tests(evidence.get(SuiteReport)),
    )


def _materials(record: BillOfMaterials | None) -> tuple[Block, ...]:
    if record is None:
        return (Text("No bill of materials was written."),)
    packages = formats.counted(record.n_packages, "package")
    weights = formats.counted(record.n_pretrained, "set of weights", "sets of weights")
    rows = (
        ("File", cell(mono(record.path), small(f"CycloneDX {record.spec_version}"))),
        ("Lists", cell(f"the framework, {packages}, {weights} made by others")),
        ("Without a declared licence", cell(formats.counted(record.n_without_licence, "package"))),
        ("Read back", cell("no fault" if not record.faults else "faults, see below")),
    )
    return (Facts(rows), *_bullets(record.faults))


def _scan(scan: VulnerabilityScan | None) -> tuple[Block, ...]:
    if scan is None:
        return (
            Text(
                "Not looked for: no database of vulnerabilities was there, and no result of a scan "
                "made elsewhere was given."
            ),
        )
    packages = formats.counted(len(scan.packages), "package")
    found = formats.counted(len(scan.vulnerabilities), "vulnerability", "vulnerabilities")
    facts = Facts(
        (
            ("Result", cell(scan.file, mono(formats.short(scan.sha256)))),
            ("Said", cell(f"{packages} scanned, {found} known")),
            ("Passed over", cell(", ".join(name for name, _ in scan.skipped) or "none")),
        )
    )
    if not scan.vulnerabilities:
        return (facts,)
    head = columns(("Package", 0.24), ("Vulnerability", 0.26), ("Severity", 0.14), ("Note", 0.36))
    rows = tuple(
        (
            cell(strong(entry.package), small(entry.version)),
            cell(entry.id, small(", ".join(entry.aliases))),
            cell(entry.severity or "not given"),
            cell(
                f"accepted: {entry.accepted}" if entry.accepted else "not accepted",
                small(
                    f"fixed in {', '.join(entry.fixed_in)}" if entry.fixed_in else "no fix named"
                ),
            ),
        )
        for entry in scan.vulnerabilities[:_SHOWN]
    )
    more = len(scan.vulnerabilities) - _SHOWN
    note = f"{formats.count(more)} more in software/vulnerabilities.json." if more > 0 else ""
    return (facts, Table(head, rows, note))


def _tests(suite: SuiteReport | None) -> tuple[Block, ...]:
    if suite is None:
        return (Text("No test result of the framework's commit was found on this machine."),)
    count = formats.count
    kinds = ", ".join(
        f"{m.kind} {count(m.n_passed)} of {count(m.n_passed + m.n_failed)}" for m in suite.malformed
    )
    state = "clean" if suite.clean else "with uncommitted changes"
    rows = (
        ("Commit tested", cell(mono(suite.commit), small(f"tree {state}"))),
        ("When", cell(f"{formats.utc(suite.finished_utc)}, Python {suite.python}")),
        ("Passed", cell(count(suite.n_passed))),
        ("Failed or with an error", cell(strong(count(suite.n_failed + suite.n_errors)))),
        (
            "Not run",
            cell(
                f"{count(suite.n_skipped)} skipped, {count(suite.n_deselected)} left out",
                small(f"run were: {suite.selection or 'all'}"),
            ),
        ),
        ("Malformed input refused", cell(kinds or "not tested")),
    )
    return (Facts(rows),)


def repeat_block(record: RepeatRecord | None) -> Block:
    """Show whether the first steps of training, made twice, gave the same state."""
    if record is None or record.problem:
        why = record.problem if record else "the training step did not run to its end"
        return Text(f"The first steps were not compared with a repeat: {why}.")
    rows: list[tuple[str, Cell]] = [
        ("Repeated", cell(f"{formats.counted(record.step, 'step')} of {record.stage}")),
        ("State of the training", cell(mono(formats.short(record.sha256 or formats.DASH)))),
        ("State of the repeat", cell(mono(formats.short(record.repeated_sha256 or formats.DASH)))),
        ("Equal bit by bit", cell("yes" if record.is_equal else "no")),
    ]
    if record.relative_difference is not None:
        apart = f"{record.relative_difference:.2g} (tolerance {record.tolerance:g})"
        rows.append(("Relative difference", cell(apart)))
    return Facts(tuple(rows))


def trace_sentence(table: TraceTable | None) -> str:
    """Say how many links from principles to files were followed, and how many are broken."""
    if table is None:
        return "Links from principles to evidence were not followed."
    broken = formats.counted(len(table.broken), "broken link")
    return (
        f"trace.json has a line for each item, from its principle to its record and evidence: "
        f"{formats.counted(table.n_links, 'link')} followed, {broken}."
    )


def _bullets(faults: tuple[str, ...]) -> tuple[Block, ...]:
    return (Bullets(faults[:_SHOWN]),) if faults else ()
