"""Check that card and reports are those of the documents: they are drawn again and compared."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from governance.evidence.folder import RunFolder
from governance.evidence.manifest import MANIFEST
from governance.records.errors import EvidenceError, first_line
from governance.records.files import sha256_bytes
from governance.records.manifest import Manifest
from governance.records.rollup import RollUp
from governance.records.run import Environment
from governance.reports.audit_report import CARD, drawn_card, drawn_outputs, renderer

NOT_DRAWN = "not compared: the evidence itself does not verify"
_NOT_JUDGED = "no roll-up to draw from: only the names and digests of the run were compared"
_PAGE = "report.html"
_COMPARED = "drawn again from the documents: the same bytes"
_SHOWN_DIFFERENCES = 5
# What the card states of a run, whatever words and layout a version gives it.
_CLAIMS = frozenset(
    {
        *("run_id", "hashes", "verdict", "gate", "exit_code", "principles", "id", "status"),
        *("n_passed", "n_computed", "n_declared", "n_human", "n_missing", "n_failed"),
        *("waivers", "item_id", "state", "metrics", "subgroup", "value", "ci95", "floor"),
        *("floor_ci95", "n_real", "n_synthetic", "n_patients", "signing", "key_id"),
        *("evidence_root", "journal_head", "journal_events", "previous_run"),
        *("config", "commit", "data_content", "checkpoint"),
    }
)


def check_claims(run_dir: Path, manifest: Manifest) -> tuple[str, list[str]]:
    """Draw card and reports again and compare them with those listed.

    Bytes are compared if this code drew them. If another version did, what the card's JSON file
    claims of the run is compared: identity, digests, gate, statuses, waivers and metrics. The page
    must then name the run, and so must card and page of a run that was never judged.

    Args:
        run_dir: Folder of a run whose evidence has the digests on its manifest.
        manifest: Its manifest.

    Returns:
        A sentence on what was compared, and every difference.
    """
    listed = {file.path: file.sha256 for file in manifest.outputs}
    if CARD not in listed or RollUp.PATH not in {file.path for file in manifest.evidence}:
        return _NOT_JUDGED, [
            *(_name_faults(run_dir, manifest) if CARD in listed else ()),
            *(_page_faults(run_dir, manifest) if _PAGE in listed else ()),
        ]
    try:
        environment = RunFolder.closed(run_dir).get(Environment)
        drew = environment.renderer if environment else ""
        is_same = drew == renderer()
        drawn = drawn_outputs(run_dir) if is_same else {CARD: drawn_card(run_dir)}
    except EvidenceError as error:
        return NOT_DRAWN, [f"{CARD}: cannot be drawn again: {first_line(error)}"]
    if not is_same:
        faults = _card_faults(run_dir, drawn[CARD], claims_alone=True)
        return _another_version(drew), [
            *faults,
            *(_page_faults(run_dir, manifest) if _PAGE in listed else ()),
        ]
    faults = []
    for name, data in drawn.items():
        if name in listed and listed[name] != sha256_bytes(data):
            named = _card_faults(run_dir, data) if name == CARD else []
            faults += named or [f"{name}: is not what the documents of the run give, drawn again"]
    return _COMPARED, faults


def _another_version(drew: str) -> str:
    who = (
        f"another version ({drew[:12]}, this is {renderer()[:12]})" if drew else "an older version"
    )
    return (
        f"drawn by {who}, so their bytes cannot be compared; identity, digests, gate, statuses, "
        f"waivers and metrics of {CARD} were compared with the documents"
    )


def _name_faults(run_dir: Path, manifest: Manifest) -> Iterator[str]:
    """Yield where a card names another run or other digests than the manifest."""
    try:
        card = json.loads((run_dir / CARD).read_bytes())
    except OSError:
        return  # missing or unreadable: reported when compared with the manifest
    except (ValueError, RecursionError):
        card = None
    hashes = card.get("hashes") if isinstance(card, dict) else None
    if not isinstance(hashes, dict):
        yield f"{CARD}: not a model card with its digests"
        return
    told = {**hashes, "run_id": card.get("run_id")}
    for name in ("run_id", "evidence_root", "journal_head", "journal_events", "previous_run"):
        if told.get(name) != (true := getattr(manifest, name)):
            yield f"{CARD}: its {name} is {told.get(name)!a}, {MANIFEST} has {true!a}"


def _page_faults(run_dir: Path, manifest: Manifest) -> Iterator[str]:
    """Yield what a page does not name of its run."""
    try:
        page = (run_dir / _PAGE).read_bytes()
    except OSError:
        return  # as above
    named = {
        "run": manifest.run_id,
        "evidence root": manifest.evidence_root,
        "journal head": manifest.journal_head,
    }
    for what, value in named.items():
        if value.encode() not in page:
            yield f"{_PAGE}: does not name the {what} of {MANIFEST}, {value}"


def _card_faults(run_dir: Path, drawn: bytes, *, claims_alone: bool = False) -> list[str]:
    try:
        told = json.loads((run_dir / CARD).read_bytes())
    except OSError:
        return []  # missing or unreadable: reported when compared with the manifest
    except (ValueError, RecursionError):
        return [f"{CARD}: not a JSON file"]
    found = list(_differences(told, json.loads(drawn), claims_alone=claims_alone))
    shown = [f"{CARD}: {words}" for words in found[:_SHOWN_DIFFERENCES]]
    n_more = len(found) - len(shown)
    return [*shown, f"{CARD}: {n_more} more differences"] if n_more else shown


def _differences(told: Any, true: Any, at: str = "", *, claims_alone: bool) -> Iterator[str]:
    """Yield where a card says otherwise than the one drawn again, as JSON pointers."""
    if isinstance(told, dict) and isinstance(true, dict):
        names = (*true, *(name for name in told if name not in true))
        keys = [key for key in names if not claims_alone or key in _CLAIMS]
        for key in keys:
            inner = (told.get(key), true.get(key))
            yield from _differences(*inner, f"{at}/{key}", claims_alone=claims_alone)
    elif isinstance(told, list) and isinstance(true, list) and len(told) == len(true):
        for place, inner in enumerate(zip(told, true, strict=True)):
            yield from _differences(*inner, f"{at}/{place}", claims_alone=claims_alone)
    elif told != true:
        yield f"{at} is {_shown(told)}, the documents give {_shown(true)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    return f"{value[:80]!a}" if isinstance(value, str) else str(value)[:80]
