"""Correctness of the data: faults, data contract, step boundaries, suspected labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from governance.records.audit import LabelAudit, SuspectedLabel
from governance.records.base import ItemStatus
from governance.records.dataset import (
    BoundaryChecks,
    Findings,
    RuleResult,
    ValidationRecord,
)
from governance.records.errors import Finding
from governance.reports import formats
from governance.reports.blocks import (
    Block,
    Cell,
    Facts,
    Heading,
    Table,
    Text,
    cell,
    cells,
    columns,
    joined,
    small,
    status_line,
    strong,
)
from governance.reports.evidence import Evidence
from governance.reports.sections.data_tables import more, share_text

ENGINES = {"pandera": "pandera", "great_expectations": "Great Expectations"}
State = Literal["failed", "passed", "not evaluated", "not judged"]
_NOTE = (
    "A rule that says whether a column is there and of which kind is evaluated once, every other "
    "rule once an image. Where an attribute is recorded for no image its rules have nothing to "
    "evaluate: they are not evaluated, not passed."
)
_READING = (
    "The rules that the data must keep, judged by two programs independently. Failed rules stand "
    "first; look also for rules that found nothing to judge."
)
_SEVERITIES = ("critical", "warning", "info")


@dataclass(frozen=True)
class JudgedRule:
    """One rule of the contract with the result of each engine that judged it."""

    rule: str
    column: str
    severity: str
    results: dict[str, RuleResult]

    def state(self, engine: str) -> State:
        """Return how one engine judged the rule; without rows it is "not evaluated"."""
        result = self.results.get(engine)
        if result is None:
            return "not judged"
        if not result.passed:
            return "failed"
        return "passed" if result.n_evaluated else "not evaluated"

    @property
    def states(self) -> tuple[State, ...]:
        """State in each engine, in the order of `ENGINES`."""
        return tuple(self.state(engine) for engine in ENGINES)


def judged_rules(record: ValidationRecord) -> tuple[JudgedRule, ...]:
    """Return the contract's rules in their order, with the engines' results side by side."""
    found: dict[tuple[str, str], dict[str, RuleResult]] = {}
    for result in record.rules:
        found.setdefault((result.column, result.rule), {})[result.engine] = result
    return tuple(
        JudgedRule(rule, column, next(iter(results.values())).severity, results)
        for (column, rule), results in found.items()
    )


def validation_sentence(record: ValidationRecord) -> str:
    """Count the rules passed, failed and not evaluated, for each engine."""
    rules = judged_rules(record)
    parts = []
    for engine, name in ENGINES.items():
        states = [rule.state(engine) for rule in rules]
        version = record.engine_versions.get(engine, "of unknown version")
        counts = [
            f"{formats.count(states.count(state))} {state}"
            for state in ("passed", "failed", "not evaluated", "not judged")
            if state in ("passed", "failed") or state in states
        ]
        parts.append(f"{name} {version}: {', '.join(counts)}")
    return (
        f"Contract {record.contract}, version {record.contract_version}: "
        f"{formats.counted(record.n_rows, 'image')}, {formats.counted(len(rules), 'rule')}. "
        f"{'. '.join(parts)}."
    )


def validation_blocks(record: ValidationRecord | None) -> tuple[Block, ...]:
    """Return a sentence of counts, then one table for both engines."""
    heading = Heading("Data validation")
    if record is None:
        return (heading, Text("The data contract was not checked in this run."))
    return (
        heading,
        Text(_READING),
        Text(validation_sentence(record)),
        _table(judged_rules(record)),
        *_files(record),
    )


def _files(record: ValidationRecord) -> tuple[Block, ...]:
    """Name the files of the contract, and the file with one engine's own result."""
    named = [f"{name} ({formats.short(digest)})" for name, digest in record.contract_files]
    made = f"The contract is made of {', '.join(named)}. " if named else ""
    native = record.native_results
    kept = f"Great Expectations' own result is kept in {native}." if native else ""
    return (Text(f"{made}{kept}".strip(), "note"),) if made or kept else ()


def _table(rules: Sequence[JudgedRule]) -> Table:
    head = columns(
        ("Column and rules", 0.36),
        ("Severity", 0.20),
        *((name, 0.17) for name in ENGINES.values()),
        ("Evaluated", 0.10, "right"),
    )
    broken = [rule for rule in rules if "failed" in rule.states]
    grouped: dict[str, dict[tuple[State, ...], list[JudgedRule]]] = {}
    for rule in rules:
        if "failed" not in rule.states:
            grouped.setdefault(rule.column, {}).setdefault(rule.states, []).append(rule)
    rows = [_broken_row(rule) for rule in broken]
    for column, by_states in grouped.items():
        rows.extend(_group_row(column, members) for members in by_states.values())
    return Table(head, tuple(rows), _NOTE if rows else "No rule was judged by either engine.")


def _broken_row(rule: JudgedRule) -> tuple[Cell, ...]:
    """Return one broken rule in full: each engine's count, reasons and examples."""
    results = rule.results.values()
    said = dict.fromkeys(result.reason for result in results if result.reason)
    shown = dict.fromkeys(example for result in results for example in result.examples)
    examples = f"Examples: {', '.join(shown)}" if shown else ""
    breaks = [one.sentence for result in results for one in result.breaks]
    named = [small(examples)] if not breaks else [small(text) for text in breaks]
    name = strong(f"{rule.column}: {_own_name(rule)}" if rule.column else rule.rule)
    return (
        cell(name, *said, *named),
        cell(rule.severity),
        *(_engine_cell(rule.state(engine), rule.results.get(engine)) for engine in ENGINES),
        cell(_evaluated([rule])),
    )


def _group_row(column: str, rules: Sequence[JudgedRule]) -> tuple[Cell, ...]:
    """Return a row of the rules of one column that both engines judged alike, by name."""
    by_severity = {
        severity: [_own_name(rule) for rule in rules if rule.severity == severity]
        for severity in _SEVERITIES
    }
    used = [severity for severity, names in by_severity.items() if names]
    severity = cell(used[0])
    if len(used) > 1:
        # The severity of most rules needs no names; the others are named under it.
        most = max(used, key=lambda name: len(by_severity[name]))
        others = [f"{name}: {', '.join(by_severity[name])}" for name in used if name != most]
        severity = cell(most, *(small(text) for text in others))
    return (
        cell(strong(column or "whole table"), ", ".join(_own_name(rule) for rule in rules)),
        severity,
        *(_engine_cell(state) for state in rules[0].states),
        cell(_evaluated(rules)),
    )


def _engine_cell(state: State, result: RuleResult | None = None) -> Cell:
    if state == "not judged":
        return cell(formats.DASH, small("not a rule of this engine"))
    if state == "not evaluated":
        return cell(status_line(ItemStatus.NOT_EVALUATED), small("nothing recorded"))
    if state == "passed" or result is None:
        return cell(status_line(ItemStatus.PASSED))
    against = f"{formats.count(result.n_unexpected)} of {formats.count(result.n_evaluated)} against"
    return cell(status_line(ItemStatus.FAILED), small(against))


def _evaluated(rules: Sequence[JudgedRule]) -> str:
    """Return the numbers of rows that the rules were evaluated on; one number where all agree."""
    counts = {result.n_evaluated for rule in rules for result in rule.results.values()}
    return " or ".join(formats.count(n) for n in sorted(counts))


def _own_name(rule: JudgedRule) -> str:
    """Return the name of a rule without its column, underscores as spaces."""
    return rule.rule.removeprefix(f"{rule.column}_").replace("_", " ")


_FINDINGS_SHOWN = 20
_SUSPECTS_SHOWN = 20


def correctness_blocks(evidence: Evidence) -> tuple[Block, ...]:
    """Build the part on correctness, as far as a machine can check it."""
    return (
        *_findings(evidence.get(Findings)),
        *validation_blocks(evidence.get(ValidationRecord)),
        *_boundaries(evidence.get(BoundaryChecks)),
        *_labels(evidence.get(LabelAudit), evidence.unit),
    )


def _findings(record: Findings | None) -> tuple[Block, ...]:
    if record is None:
        return (Heading("Faults found in the data"), Text("Faults were not looked for."))
    findings = record.findings
    title = f"{formats.counted(len(findings), 'fault')} found in the data"
    if not findings:
        return (Heading(title), Text("Every file and row that was selected could be read."))
    shown = findings[:_FINDINGS_SHOWN]
    placed = any(found.row is not None or found.column for found in shown)
    rows = tuple(_finding_row(found, placed) for found in shown)
    places = (("Row", 0.08, "right"), ("Column", 0.14)) if placed else ()
    file = 0.22 if placed else 0.36
    head = columns(("Code", 0.10), ("File", file), *places, ("Fault", 0.46 if placed else 0.54))
    text = Text(
        "Rows and files that could not be used as they are; each must be mended or left out."
    )
    note = more(len(findings), len(rows), Findings.PATH)
    return (Heading(title), text, Table(head, rows, note))


def _finding_row(found: Finding, placed: bool) -> tuple[Cell, ...]:
    row = "" if found.row is None else str(found.row)
    places = (row, found.column or "") if placed else ()
    return cells(found.code, found.where, *places, found.message)


def _boundaries(record: BoundaryChecks | None) -> tuple[Block, ...]:
    heading = Heading("What one step hands to the next")
    if record is None or not record.checks:
        return (heading, Text("Nothing was checked between the steps."))
    head = columns(
        ("From step to step", 0.34),
        ("Images", 0.12, "right"),
        ("Rules", 0.10, "right"),
        ("Result", 0.44),
    )
    rows = tuple(
        (
            cell(check.boundary),
            cell(formats.count(check.n_rows)),
            cell(formats.count(check.n_rules)),
            cell(
                status_line(_boundary_status(check.n_rows, bool(check.failed))),
                small(f"broken: {joined(check.failed)}" if check.failed else ""),
                small("" if check.n_rows else "the table was empty"),
            ),
        )
        for check in record.checks
    )
    text = Text(
        "Rules tried on what each step receives from the one before. A rule that is broken here "
        "means that a step damaged the data on their way."
    )
    return (heading, text, Table(head, rows))


def _boundary_status(n_rows: int, broken: bool) -> ItemStatus:
    if broken:
        return ItemStatus.FAILED
    return ItemStatus.PASSED if n_rows else ItemStatus.NOT_EVALUATED


def _labels(record: LabelAudit | None, unit: str) -> tuple[Block, ...]:
    heading = Heading("Suspected label errors")
    if record is None:
        return (heading, Text("Label errors were not looked for."))
    if record.balanced_accuracy is None:
        reason = record.reason or "no reason is on record"
        return (heading, Text(f"Not evaluated: {reason.rstrip('.')}."))
    text = Text(
        "Training images that a model, trained on the images of other "
        f"{unit}s, would have labelled otherwise. Suspected is not wrong: a person must look at "
        "them, and the suspicion is only as good as the model's balanced accuracy."
    )
    return (heading, text, Facts(label_rows(record, unit)), *_suspects(record))


def label_rows(record: LabelAudit, unit: str) -> tuple[tuple[str, Cell], ...]:
    """Return names and values of the search for label errors, if it was carried out."""
    classes = ", ".join(f"{name} ({formats.count(n)})" for name, n in record.classes.items())
    share = record.n_suspected / record.n_images if record.n_images else None
    accuracy = record.balanced_accuracy
    rows = (
        ("Label", cell(record.label, small(f"classes (images): {classes}"))),
        (
            "Suspected",
            cell(
                strong(
                    f"{formats.count(record.n_suspected)} of "
                    f"{formats.counted(record.n_images, 'training image')} "
                    f"of {formats.counted(record.n_patients, unit)}"
                ),
                share_text(share, record.rate_ci95),
            ),
        ),
        (
            "Balanced accuracy of the model",
            cell("not computed" if accuracy is None else formats.percent(accuracy, 1)),
        ),
        ("What it can do to the results", cell(record.effect)),
        ("Reviewed", cell(record.reviewed or "by nobody")),
        ("Method", cell(record.method)),
    )
    return tuple(row for row in rows if row[1])


def _suspects(record: LabelAudit) -> tuple[Block, ...]:
    if not record.suspects:
        return ()
    head = columns(
        ("Image", 0.40),
        ("Label given", 0.20),
        ("Suggested", 0.20),
        ("Probability of the label given", 0.20, "right"),
    )
    shown = record.suspects[:_SUSPECTS_SHOWN]
    text = Text("Most suspect first: look at these images before anything is trained on them.")
    note = more(record.n_suspected, len(shown), LabelAudit.PATH)
    return (text, Table(head, tuple(_suspect(entry) for entry in shown), note))


def _suspect(entry: SuspectedLabel) -> tuple[Cell, ...]:
    probability = f"{entry.probability_of_given:.3f}"
    return cells(entry.image_id, entry.given, entry.suggested, probability)
