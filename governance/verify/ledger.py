"""Check that a run and its data set's ledger agree on sealing and opening the test set.

The run folder records it three times (seal and evaluation documents, journal), the ledger once
more, outside the folder: an opening that one of them lacks was hidden or invented.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.evidence.chain import JournalEvent, check_chain
from governance.evidence.journal import RUN_RESUMED, read_journal
from governance.evidence.manifest import JOURNAL
from governance.records.files import sha256_file
from governance.sealing.ledger import OPENED, SEALED, opening_label

SEAL, EVALUATION = "data/seal.json", "metrics/evaluation.json"
PLAN, TRAINING = "plan.json", "metrics/training.json"
_OPENING = ("number", "label", "purpose", "plan_sha256", "model_sha256", "opened_utc", "n_images")
_SHARED = ("merkle_root", "purpose", "plan_sha256", "model_sha256", "number")
_Json = dict[str, Any]


@dataclass(frozen=True)
class LedgerCheck:
    """Result of comparing a run with its ledger.

    Attributes:
        words: A sentence: what agreed, or why nothing was compared.
        faults: Every contradiction, file first.
    """

    words: str
    faults: tuple[str, ...] = ()


def check_openings(run_dir: Path, folders: Sequence[Path]) -> LedgerCheck:
    """Compare seal and opening in the run folder with each other and with the ledger.

    Args:
        run_dir: Folder of the run.
        folders: Where its ledger may be, most likely first. Used is the first that has the run,
            else the first that exists: a workspace may have been copied or a run moved.
    """
    events = read_journal(run_dir / JOURNAL).events
    sealed = [event for event in events if event.type == SEALED]
    opened = [event for event in events if event.type == OPENED]
    if not sealed and not opened:
        return LedgerCheck("the run sealed no test set: nothing to compare")
    seal = _read(run_dir / SEAL)
    faults = _check_seal(seal, sealed) + _check_evaluation(run_dir, opened)
    name = str(sealed[0].body.get("ledger")) if sealed else ""
    if Path(name).name != name or not name.endswith(".jsonl"):
        return LedgerCheck("not compared", (*faults, f"{JOURNAL}: names no ledger: {name[:80]!a}"))
    paths = [folder / name for folder in folders]
    there = [path for path in paths if path.is_file()]
    if not there:
        where = " or ".join(map(str, paths)) or "any folder that the run names"
        words = f"ledger not found at {where}: not compared; --ledger DIR names its folder"
        return LedgerCheck(words, tuple(faults))
    path = next((path for path in there if _knows(path, events[0].run)), there[0])
    words, found = _check_ledger(path, seal or {}, events)
    return LedgerCheck(words, (*faults, *found))


def _knows(path: Path, run_id: str) -> bool:
    try:
        return run_id.encode() in path.read_bytes()
    except OSError:
        return False


def _read(path: Path) -> _Json | None:
    """Return a document; None without one. A damaged file is reported by its digest."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _check_seal(seal: _Json | None, sealed: Sequence[JournalEvent]) -> list[str]:
    """Compare number and ledger in seal.json and journal; the root is compared elsewhere."""
    if seal is None or len(sealed) != 1:
        return []
    body = sealed[0].body
    faults = []
    if seal.get("ledger") != body.get("ledger"):
        faults.append(f"{SEAL}: names another ledger than {JOURNAL}")
    if seal.get("n_earlier_seals") != _number(sealed[0]) - 1:
        faults.append(
            f"{SEAL}: n_earlier_seals is {seal.get('n_earlier_seals')}, {JOURNAL} calls it sealing "
            f"{_number(sealed[0])}"
        )
    return faults


def _number(event: JournalEvent) -> int:
    number = event.body.get("seal_number" if event.type == SEALED else "number")
    return number if isinstance(number, int) else 0


def _check_evaluation(run_dir: Path, opened: Sequence[JournalEvent]) -> list[str]:
    """Check that results rest on the journal's last opening, of this run's plan and model."""
    evaluation = _read(run_dir / EVALUATION)
    if evaluation is None:
        return []
    told = evaluation.get("opening")
    if not isinstance(told, dict):
        if not opened:
            return []
        return [f"{EVALUATION}: no opening, {JOURNAL} has event {opened[-1].seq}, {OPENED!r}"]
    faults = []
    if told.get("label") != opening_label(told.get("number", 0)):
        faults.append(f"{EVALUATION}: opening {told.get('number')} is labelled {told.get('label')}")
    if not opened:
        return [*faults, f"{EVALUATION}: an opening, {JOURNAL} has no event {OPENED!r}"]
    for key, value in _plan_and_model(run_dir).items():
        if told.get(key) != value:
            faults.append(f"{EVALUATION}: {key} of the opening is not that of this run, {value}")
    body = opened[-1].body
    return faults + [
        f"{EVALUATION}: {key} of the opening is {str(told.get(key))[:80]}, event {opened[-1].seq} "
        f"of {JOURNAL} has {str(body.get(key))[:80]}"
        for key in _OPENING
        if told.get(key) != body.get(key)
    ]


def _plan_and_model(run_dir: Path) -> dict[str, Any]:
    """Return the digests of the frozen plan and of the judged model, as far as they exist."""
    found: dict[str, Any] = {}
    if (run_dir / PLAN).is_file():
        found["plan_sha256"] = sha256_file(run_dir / PLAN)
    if training := _read(run_dir / TRAINING):
        found["model_sha256"] = training.get("checkpoint_sha256")
    return found


def _check_ledger(path: Path, seal: _Json, events: Sequence[JournalEvent]) -> tuple[str, list[str]]:
    """Check that every sealing and opening of the run has an entry, and vice versa."""
    run_id = events[0].run
    ours = [event for event in events if event.type in (SEALED, OPENED)]
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror or error}): not compared", []
    whole = data[: data.rfind(b"\n") + 1]  # a torn last line is no entry
    chain = check_chain(whole, str(path), one_run=False)
    faults = list(chain.faults)
    faults += _check_numbers(path, chain.events)
    entries = {entry.digest: entry for entry in chain.events}
    for event in ours:
        entry = entries.pop(str(event.body.get("ledger_head")), None)
        faults += _check_entry(path, event, entry, run_id)
        if entry is not None and event.type == SEALED:
            before = _count(chain.events[: entry.seq], OPENED)
            told = seal.get("n_earlier_openings")
            if isinstance(told, int) and told > before:
                faults.append(f"{SEAL}: more earlier openings than the {before} of {path}")
    resumed = [event.time_utc for event in events if event.type == RUN_RESUMED]
    for entry in entries.values():
        # A kill between the writes to ledger and journal leaves such an entry; the run goes on.
        if entry.run == run_id and not any(time >= entry.time_utc for time in resumed):
            faults.append(
                f"{path}:{entry.seq + 1}: {entry.type!r} number {entry.body.get('number')} by this "
                f"run, {JOURNAL} does not know it"
            )
    counts = f"{_times(_count(ours, SEALED), 'sealing')}, {_times(_count(ours, OPENED), 'opening')}"
    over_all = _times(_count(chain.events, OPENED), "opening")
    return f"{path}: {counts} of this run compared; {over_all} over all runs so far", faults


def _count(events: Sequence[JournalEvent], kind: str) -> int:
    return sum(event.type == kind for event in events)


def _check_numbers(path: Path, entries: Sequence[JournalEvent]) -> list[str]:
    """Check that sealings and openings are each numbered from 1, without a gap."""
    faults = []
    for kind in (SEALED, OPENED):
        numbered = [entry for entry in entries if entry.type == kind]
        faults += [
            f"{path}:{entry.seq + 1}: {kind!r} has number {entry.body.get('number')}, expected {n}"
            for n, entry in enumerate(numbered, start=1)
            if entry.body.get("number") != n
        ]
    return faults


def _check_entry(
    path: Path, event: JournalEvent, entry: JournalEvent | None, run_id: str
) -> list[str]:
    where = f"event {event.seq} of {JOURNAL}, {event.type!r}"
    if entry is None or entry.run != run_id or entry.type != event.type:
        return [
            f"{path}: has no entry for {where} number {_number(event)} of run {run_id}; if the run "
            "came from another workspace, name its ledger's folder with --ledger DIR"
        ]
    told = event.body | {"number": _number(event)}
    return [
        f"{path}:{entry.seq + 1}: {key} is {str(entry.body.get(key))[:80]}, {where} has "
        f"{str(told.get(key))[:80]}"
        for key in _SHARED
        if key in entry.body and entry.body[key] != told.get(key)
    ]


def _times(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"
