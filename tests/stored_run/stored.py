"""One stored run, and how a test takes it and changes what the test is about.

`run/` is the folder of a finished run as the tool writes it, without what is derived from it: the
records, the roll-up, journal and manifest are made anew by `write_run`. `records.json` holds what
the items of that run observed. `good.json` holds the fields in which a run that has nothing to
complain about differs; no run that a laptop makes is like that. Numbers and pictures are made up,
so that each page of the reports has something to say, and agree with each other.

A field that a document gained is written into the stored files by

    python -m tests.stored_run.stored
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pydantic import BaseModel

from governance.checks.judged_run import JudgedRun
from governance.evidence.folder import RunFolder
from governance.evidence.manifest import close_evidence, merkle_root
from governance.evidence.store import EvidenceStore
from governance.people.rules import NO_FILE
from governance.policy.load import load_policy
from governance.records.base import Document, ItemClass, ItemStatus, document_kinds
from governance.records.dataset import DatasetIdentity, Findings, ValidationRecord
from governance.records.errors import Finding
from governance.records.evaluation import EvaluationRecord
from governance.records.files import canonical_json, sha256_bytes
from governance.records.item import Artifact, FrozenCriterion, ItemRecord, Observed
from governance.records.partition import SealRecord
from governance.records.people import SigningRecord, WaiverLine
from governance.records.run import Environment, Outcome, Plan, RunIdentity
from governance.reports.audit_report import renderer
from governance.reports.evidence import ReportEvidence
from governance.verdict.rollup import roll_up

HERE = Path(__file__).resolve().parent
RUN, GOOD, RECORDS = HERE / "run", HERE / "good.json", HERE / "records.json"
START = datetime(2026, 3, 4, 10, 11, 12, tzinfo=UTC)
RUN_ID = "20260304T101112Z-a1b2c3d4"
VERSION = "0.1.0"
D = "d" * 64  # digest of the plan of a good run
HOSTILE = (
    '<b>bold</b> <img src="/etc/passwd"> & Ångström Жанна 胎児 \u202eevil\u202c a|b `c` *d* [e](f)'
)
LONG = "extraordinarily-long-name-without-any-blank-" * 6
PIN_LINE = f"data.digest: {hashlib.sha256(b'content').hexdigest()}"
UNPINNED = {
    "status": ItemStatus.NOT_EVALUATED,
    "reason": f"not pinned; if it is the one you mean, put this line into it: `{PIN_LINE}`",
}
# Names and words of people in the stored documents; `Variant.odd` is put behind each.
GIVEN_NAMES = (
    *("Common maternal fetal planes", "Voluson E6", "Op. 3", "parous", "booking record"),
    *("Patient00011_Plane3_1_of_1", "Patient00010_Plane3_1_of_1", "Patient00017_Plane3_2_of_3"),
    *("Patient00000_Plane3", "Patient00001_Plane3", "Exam_date", "two fetuses", "scan.json"),
    *("PYSEC-2026-1", "training images themselves", "planes ", "first of each patient"),
    *("Patient00002_Plane3", "Patient00003_Plane3", "Voluson S10", "No patient."),
    *("gestational age, ethnicity and site are not recorded", "the lock says 2.6.0"),
)
# What a run that is stopped in validation still leaves, and the items that it can judge.
_BEFORE_THE_STOP = ("run.json", "environment.json", "software/", "data/dataset", "data/validation")
_JUDGED_WHEN_STOPPED = ("P2-01", "P2-02", "P2-07", "P2-08", "P2-12")

M = TypeVar("M", bound=BaseModel)


def change(record: M, **fields: Any) -> M:
    """Return a record with other fields, checked like any record.

    Args:
        record: A document or a part of one.
        fields: New values. A dictionary for a field that holds a record changes fields of that
            record: `change(evaluation, opening={"number": 2})`.

    Raises:
        TypeError: The record has no such field.
        pydantic.ValidationError: A value does not fit.
    """
    for name, value in fields.items():
        if name not in type(record).model_fields:
            near = get_close_matches(name, type(record).model_fields, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{type(record).__name__} has no field {name!r}{hint}")
        held = getattr(record, name)
        if isinstance(value, dict) and isinstance(held, BaseModel):
            fields[name] = change(held, **value)
    return type(record).model_validate({**dict(record), **fields})


def showing(evidence: ReportEvidence, *documents: Document) -> ReportEvidence:
    """Return the same evidence with these documents in place of the run's."""
    return replace(evidence, documents=evidence.documents.knowing(*documents))


@cache
def stored() -> dict[type[Document], Document]:
    """Return the documents of the stored run by class; its policy is the one of today."""
    found = {
        kind: kind.model_validate_json((RUN / path).read_bytes())
        for path, kind in document_kinds().items()
        if (RUN / path).is_file()
    }
    policy = load_policy().model_dump(mode="json")
    return found | {Plan: found[Plan].model_copy(update={"policy": policy})}


@cache
def good() -> JudgedRun:
    """Return a run in which all went well, as documents without a folder."""
    found, kinds = dict(stored()), document_kinds()
    for path, fields in json.loads(GOOD.read_bytes()).items():
        kind = kinds[path]
        before = found[kind].model_dump(mode="json") if kind in found else {}
        found[kind] = kind.model_validate(before | fields)
    return JudgedRun(RunFolder.of(*found.values(), digests={Plan.PATH: D}))


@dataclass(frozen=True)
class Variant:
    """How a run that `write_run` writes differs from the stored one.

    Attributes:
        blocked: It stopped in data validation: nothing was divided, trained or evaluated.
        gate_passed: Whether the content of the data set was pinned, without which P5-01 is open.
        fid: Whether FID could be measured.
        odd: Text put behind names that come from files and people, e.g. HOSTILE.
        openings: Number of its opening of the test set over all runs.
        run_id: Its id.
        config: Its configuration file.
        waivers: What became of each waiver.
        releasable: Whether the intended use is declared, simple controls are beaten, and no core
            item failed.
        signing: Public record of the key that signs it, as JSON; "" for an unsigned run.
    """

    blocked: bool = False
    gate_passed: bool = True
    fid: bool = True
    odd: str = ""
    openings: int = 1
    run_id: str = RUN_ID
    config: bytes = b"preset: laptop\nseed: 7\n"
    waivers: tuple[WaiverLine, ...] = ()
    releasable: bool = False
    signing: str = ""


def write_run(runs_dir: Path, variant: Variant | None = None) -> Path:
    """Write the stored run, or a variant of it, as a folder with closed evidence; return it.

    Card and reports are not in it. It passes `governance.verify.folder.verify_run`.
    """
    asked = variant or Variant()
    documents = _documents(asked)
    store = EvidenceStore.create(runs_dir, asked.run_id, tool_version=VERSION)
    store.write_bytes("config.yaml", asked.config)
    is_document = set(document_kinds())
    for file in sorted(path for path in RUN.rglob("*") if path.is_file()):
        path = file.relative_to(RUN).as_posix()
        if path not in is_document and (not asked.blocked or path.startswith("sbom")):
            store.write_bytes(path, file.read_bytes())
    plan = None
    if Plan in documents:
        plan = store.write_document(documents.pop(Plan)).sha256
        _write_opened(store, documents, plan)
    for document in documents.values():
        store.write_document(document)
    store.write_document(store.recheck())
    records = _records(asked, store.artifacts(), plan)
    store.write_records(records)
    outcome = documents[Outcome]
    assert isinstance(outcome, Outcome)
    store.write_document(roll_up(load_policy(), records, outcome, waivers=asked.waivers))
    close_evidence(
        store.run_dir,
        run_id=asked.run_id,
        tool_version=VERSION,
        journal=store.journal,
        previous_run=sha256_bytes(b"run before"),
        now=START + timedelta(minutes=9),
    )
    return store.run_dir


def _documents(asked: Variant) -> dict[type[Document], Document]:
    """Return the documents of a variant."""
    found = dict(stored())
    digest = sha256_bytes(asked.config)

    def put(kind: type[Document], **fields: Any) -> None:
        found[kind] = change(found[kind], **fields)

    put(RunIdentity, run_id=asked.run_id, config_sha256=digest)
    put(Plan, config_sha256=digest)
    put(Environment, renderer=renderer())
    if asked.blocked:
        found = {k: d for k, d in found.items() if k.PATH.startswith(_BEFORE_THE_STOP)}
        put(DatasetIdentity, content_sha256=None, pinned_sha256=None, missing_policy="error")
        found |= {type(document): document for document in _stop(found[ValidationRecord])}
    elif not asked.gate_passed:
        put(DatasetIdentity, pinned_sha256=None)
    if not asked.fid and not asked.blocked:
        kid, fid, *rest = found[EvaluationRecord].metrics
        unknown = dict.fromkeys(("value", "ci95", "floor", "floor_ci95"))
        words = "the Inception weights are not in the cache"
        fid = change(fid, status="not evaluated", reason=words, **unknown)
        put(EvaluationRecord, metrics=(kid, fid, *rest))
    if asked.openings > 1 and not asked.blocked:
        n = asked.openings
        put(EvaluationRecord, opening={"number": n, "label": f"exploratory, opening {n}"})
        put(SealRecord, n_earlier_seals=n - 1, n_earlier_openings=n - 1)
    if asked.signing:
        found[SigningRecord] = SigningRecord.model_validate_json(asked.signing)
    if asked.odd:
        for kind, document in found.items():
            found[kind] = kind.model_validate(_renamed(document.model_dump(), asked.odd))
        if not asked.blocked:
            (gap,) = found[EvaluationRecord].gaps
            gap = change(gap, attribute=f"{gap.attribute} {asked.odd}")
            put(EvaluationRecord, gaps=(gap,))
    return found


def _stop(validation: Any) -> tuple[Document, ...]:
    """Return what a run leaves that stopped in validation: 40 files lacking, one rule broken."""
    message = "listed in FETAL_PLANES_DB_data.csv but not in the folder"
    missing = tuple(
        Finding(
            **{"code": "D012", "where": f"Images/Patient{row:05d}_Plane1.png", "row": row},
            **{"column": "Image_name", "message": message},
        )
        for row in range(2, 42)
    )
    failed = {
        **{"passed": False, "n_unexpected": 3, "reason": "3 rows have no machine"},
        "examples": ("row 7: Voluson E6",),
    }
    rules = tuple(change(r, **failed) if r.column == "machine" else r for r in validation.rules)
    outcome = stored()[Outcome]
    ended = ("finished", "blocked", *["skipped"] * 4)
    few = "12,280 of 12,400 listed images are missing"
    steps = tuple(
        change(step, status=status, message=few if status == "blocked" else "")
        for step, status in zip(outcome.steps, ended, strict=True)
    )
    stop = {"status": "blocked", "stopped_at": "s2_validate", "error_code": "D012"}
    words = f"FETAL_PLANES_DB_data.csv: {few}; fetch them or set data.missing_images=drop"
    return (
        Findings(findings=missing),
        change(validation, rules=rules),
        change(outcome, **stop, message=words, steps=steps, duration_s=7.0),
    )


def _renamed(value: Any, odd: str) -> Any:
    """Return a document in which odd text stands behind the names that people and files gave."""
    if isinstance(value, str):
        for name in GIVEN_NAMES:
            value = value.replace(name, f"{name} {odd}")
        return value
    if isinstance(value, Mapping):
        named = {"largest_patient": f"{value.get('largest_patient')} {odd}"}
        found = {key: _renamed(inner, odd) for key, inner in value.items()}
        return found | {key: text for key, text in named.items() if key in value}
    if isinstance(value, list | tuple):
        return tuple(_renamed(inner, odd) for inner in value)
    return value


def _write_opened(store: EvidenceStore, documents: dict[Any, Any], plan: str) -> None:
    """Journal sealing and opening of the test set, and bind the evaluation to the plan."""
    seal = documents[SealRecord]
    leaves = json.loads((RUN / "data/seal_leaves.json").read_bytes())["leaves"]
    assert seal.merkle_root == merkle_root([canonical_json(leaf) for leaf in leaves])
    facts = {"merkle_root": seal.merkle_root, "n_images": seal.n_images, "ledger": seal.ledger}
    number = {"seal_number": seal.n_earlier_seals + 1, "ledger_head": sha256_bytes(b"sealing")}
    store.journal.append("test set sealed", facts | number)
    evaluation = change(documents[EvaluationRecord], opening={"plan_sha256": plan})
    opened = evaluation.opening.model_dump(mode="json")
    store.journal.append("test set opened", opened | {"ledger_head": sha256_bytes(b"opening")})
    documents[EvaluationRecord] = evaluation


def _records(asked: Variant, files: dict[str, str], plan: str | None) -> tuple[ItemRecord, ...]:
    """Return a record of each item of the policy, bound to the files of the run."""
    made = []
    for principle in load_policy().principles:
        for item in principle.items:
            fields = _observed(item.id, item.kind, asked)
            if path := fields.pop("artifact", ""):
                fields["artifact"] = Artifact(path=path, sha256=files[path])
            if item.criterion and plan:
                fields["criterion"] = FrozenCriterion(
                    **item.criterion.model_dump(),
                    frozen_at=START + timedelta(seconds=40),
                    frozen_sha256=plan,
                )
            record = ItemRecord(
                **{"id": item.id, "title": item.title, "principle": principle.id},
                **{"item_class": item.item_class, "kind": item.kind},
                time_utc=START + timedelta(minutes=8),
                **fields,
            )
            made.append(_met_for_release(record) if asked.releasable else record)
    return tuple(made)


def _observed(item_id: str, kind: str, asked: Variant) -> dict[str, Any]:
    """Return status, reason and what was observed of an item, with the path of its evidence."""
    if kind == "human":
        return {"status": ItemStatus.MISSING, "reason": NO_FILE}
    known = json.loads(RECORDS.read_bytes()).get(item_id)
    if known is None:
        return {"status": ItemStatus.NOT_EVALUATED, "reason": "not implemented yet"}
    if asked.blocked and item_id not in _JUDGED_WHEN_STOPPED:
        return {"status": ItemStatus.NOT_EVALUATED, "reason": "the run stopped at s2_validate"}
    if asked.blocked and item_id == "P2-12":
        words = "machine is never empty: 3 rows have no machine"
        found = Observed(value=2, unit="expectations")
        known |= {"status": "failed", "reason": words, "observed": found}
    if item_id == "P5-01" and not asked.gate_passed:
        return dict(UNPINNED)
    return dict(_renamed(known, asked.odd)) if asked.odd else dict(known)


def _met_for_release(record: ItemRecord) -> ItemRecord:
    """Return the record as it is in a run that may be released."""
    if record.id == "P1-H1":
        return record.model_copy(update={"status": ItemStatus.DECLARED, "reason": ""})
    is_open = record.item_class is ItemClass.CORE and record.status is ItemStatus.FAILED
    if not is_open and record.id != "P6-03":
        return record
    return change(record, status="passed", reason="", observed=Observed(value=True))


def renew() -> None:
    """Write every stored document as the classes of today write it."""
    with TemporaryDirectory() as folder:
        store = EvidenceStore.create(Path(folder), RUN_ID, tool_version=VERSION)
        for document in (stored() | {Plan: change(stored()[Plan], policy={})}).values():
            artifact = store.write_document(document)
            shutil.copyfile(store.run_dir / artifact.path, RUN / artifact.path)


if __name__ == "__main__":
    renew()
