import pytest

from governance.checks.registry import judge_items
from governance.checks.trace import TRACED, trace
from governance.evidence.folder import RunFolder
from governance.records.base import document_kinds
from governance.records.item import Artifact, ItemRecord, TraceTable
from tests.governance.checks.faults import POLICY, A, B, C, but, of
from tests.stored_run.stored import good

NOW = of("declarations").read_utc
OTHERS = {item.id for item in POLICY.items} - {TRACED}
CHECKPOINT = of("training").checkpoint_path
FILES = dict.fromkeys(document_kinds(), A) | {
    CHECKPOINT: C,
    "sbom.cdx.json": of("bill_of_materials").sha256,
    "samples/0.png": B,
    **{f"figures/{name}.png": B for name in ("samples", "nearest", "worst")},
}


def documents() -> RunFolder:
    return but("samples", files=(("samples/0.png", B, C),))(good()).folder


def table(**changes: object) -> TraceTable:
    """Trace of a good run whose records were all written, unless changed."""
    found = {"documents": documents(), "files": FILES, "records": None} | changes
    records = found["records"] or written(found["files"])
    paths = {f"records/{record.id}.json": B for record in records}
    return trace(POLICY, records, found["documents"], {**paths, **found["files"]})


def written(files: dict[str, str]) -> tuple[ItemRecord, ...]:
    return judge_items(POLICY, documents(), now=NOW, artifacts=files, only=OTHERS)


def changed(item_id: str, **changes: object) -> tuple[ItemRecord, ...]:
    return tuple(
        record.model_copy(update=changes) if record.id == item_id else record
        for record in written(FILES)
    )


def test_every_item_has_a_line_with_its_check_record_and_evidence() -> None:
    lines = {line.item_id: line for line in table().lines}

    assert list(lines) == [item.id for item in POLICY.items]
    line = lines["P4-01"]
    assert (line.principle, line.check, line.step) == (
        "P4",
        "p4_independence.shared_patients",
        "s4_split",
    )
    assert (line.record, line.record_sha256) == ("records/P4-01.json", B)
    assert (line.artifact, line.artifact_sha256) == ("data/split.json", A)
    assert lines["P1-H1"].check == ""
    assert lines[TRACED].record == ""


def test_links_of_a_good_run_are_counted_and_all_resolve() -> None:
    found = table()
    n_evidence = sum(1 for record in written(FILES) if record.artifact)

    assert found.broken == ()
    # principle to item and item to record; record to evidence; checkpoint, bill, image, figures
    assert found.n_links == 2 * len(OTHERS) + n_evidence + 1 + 1 + 1 + 3


@pytest.mark.parametrize(
    ("changes", "broken"),
    [
        (
            {"records": changed("P4-01", artifact=Artifact(path="data/split.json", sha256=B))},
            "P4-01 to data/split.json: the file on record has another digest",
        ),
        (
            {"records": changed("P4-01", artifact=Artifact(path="data/gone.json", sha256=A))},
            "P4-01 to data/gone.json: there is no such file on record",
        ),
        (
            {"records": changed("P4-01", artifact=None)},
            "P4-01 to its evidence: passed, but no evidence is named",
        ),
        (
            {"records": changed("P4-01", principle="P5")},
            "P4 to P4-01: the item has no record under this principle",
        ),
        (
            {"records": tuple(r for r in written(FILES) if r.id != "P4-01")},
            "P4 to P4-01: the item has no record under this principle",
        ),
        (
            {"files": FILES | {"samples/0.png": A}},
            "samples to samples/0.png: the file on record has another digest",
        ),
        (
            {"files": {k: v for k, v in FILES.items() if k != "figures/worst.png"}},
            "figures to figures/worst.png: there is no such file on record",
        ),
        (
            {"files": FILES | {CHECKPOINT: A}},
            f"training to {CHECKPOINT}: the file on record has another digest",
        ),
    ],
)
def test_a_broken_link_is_named(changes: dict[str, object], broken: str) -> None:
    assert table(**changes).broken == (broken,)


def test_a_record_that_was_not_written_is_named() -> None:
    records = written(FILES)
    paths = {f"records/{record.id}.json": B for record in records if record.id != "P1-02"}

    found = trace(POLICY, records, documents(), {**paths, **FILES})

    assert found.broken == ("P1-02 to records/P1-02.json: there is no such file on record",)


def test_a_run_that_left_nothing_has_a_line_for_every_item_and_no_broken_link() -> None:
    nothing = RunFolder.of()
    records = judge_items(POLICY, nothing, now=NOW, artifacts={}, only=OTHERS)
    paths = {f"records/{record.id}.json": B for record in records}

    found = trace(POLICY, records, nothing, paths)

    assert (len(found.lines), found.broken) == (len(POLICY.items), ())
