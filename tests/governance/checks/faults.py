"""Ways to spoil one document of the stored good run, for the tables of cases."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from governance.checks.judged_run import JudgedRun
from governance.checks.registry import CHECKS
from governance.evidence.folder import RunFolder
from governance.policy.load import load_policy, with_criteria
from governance.records.base import TEST, TRAINING, TUNING, Document, ItemStatus, document_kinds
from governance.records.comparison import TuningComparison
from governance.records.item import CheckResult
from tests.stored_run.stored import change, good

PASSED, FAILED = ItemStatus.PASSED, ItemStatus.FAILED
RECORDED, NOT_EVALUATED = ItemStatus.RECORDED, ItemStatus.NOT_EVALUATED
POLICY = load_policy()
A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
INCEPTION = "inception_pool3"
# Documents by the stem of their file, e.g. "evaluation".
PARTS: dict[str, type[Document]] = {
    PurePosixPath(path.removesuffix("/manifest.json")).stem: kind
    for path, kind in document_kinds().items()
    if good().get(kind)
}

Change = Callable[[JudgedRun], JudgedRun]


def but(part: str, **fields: Any) -> Change:
    """Change fields of one document, or of a record in it, as `change` does."""

    def apply(run: JudgedRun) -> JudgedRun:
        document = change(run.need(PARTS[part]), **fields)
        return replace(run, folder=run.folder.knowing(document))

    return apply


def without(*parts: str) -> Change:
    """Lose documents, or with "plan_sha256" the digest of the plan alone."""

    def apply(run: JudgedRun) -> JudgedRun:
        kept = (run.get(kind) for part, kind in PARTS.items() if part not in parts)
        digests = {} if {"plan", "plan_sha256"} & {*parts} else run.folder.digests
        return JudgedRun(RunFolder.of(*filter(None, kept), digests=digests))

    return apply


def both(*changes: Change) -> Change:
    """Make several changes, one after the other; none for no change."""

    def apply(run: JudgedRun) -> JudgedRun:
        for one in changes:
            run = one(run)
        return run

    return apply


def nothing() -> JudgedRun:
    """Return a run that left no document."""
    return JudgedRun(RunFolder.of())


def result(item_id: str, run: JudgedRun, limit: float | None = None) -> CheckResult:
    """Judge one item, by another limit than the policy's where one is given."""
    policy = POLICY if limit is None else with_criteria(POLICY, {item_id: limit})
    criterion = policy.item(item_id).criterion
    assert criterion is not None
    return CHECKS[item_id].function(run, criterion)


def of(part: str) -> Any:
    """Return a document of the good run."""
    return good().need(PARTS[part])


def entry(part: str, field: str, **fields: Any) -> Any:
    """Return the first entry of a list in a document of the good run, with other fields."""
    return change(getattr(of(part), field)[0], **fields)


def metric(family: str, **fields: Any) -> Any:
    """Return the overall metric of a family, e.g. "kid", with other fields."""
    found = (m for m in of("evaluation").metrics if m.id.split("-")[0] == family)
    return change(next(found), **fields)


def declaration(**fields: Any) -> Any:
    """Return the entry that declares the intended use, with other fields."""
    return entry("declarations", "declarations", **fields)


def comparison(value: float, **controls: float) -> TuningComparison:
    """Return KID of the generator and of controls on tuning images, each ± 0.02."""
    held = of("training").comparison

    def at(middle: float) -> dict[str, Any]:
        return {"value": middle, "ci95": (middle - 0.02, middle + 0.02)}

    beside = (change(held.controls[0], name=name, **at(v)) for name, v in controls.items())
    return change(held, **at(value), controls=tuple(beside))


def with_rules(rule: str, engine: str = "", **fields: Any) -> Change:
    """Change all results of one rule, or those of one engine alone."""
    rules = (
        change(r, **fields) if r.rule == rule and engine in ("", r.engine) else r
        for r in of("validation").rules
    )
    return but("validation", rules=tuple(rules))


def with_coverage(counts: dict[str, dict[str, tuple[int, int]]]) -> Change:
    """Attribute -> level -> patients in training and in the test set, two images each."""
    levels = tuple(
        entry(
            *("coverage", "levels"),
            **{"attribute": attribute, "level": level, "partition": partition},
            **{"n_patients": n, "n_images": 2 * n},
        )
        for attribute, by_level in counts.items()
        for level, (training, test) in by_level.items()
        for partition, n in (
            *(("all", training + test), (TRAINING, training), (TUNING, 9), (TEST, test)),
        )
    )
    completeness = dict.fromkeys(counts, 1.0)
    return but("coverage", attributes=tuple(counts), levels=levels, completeness=completeness)
