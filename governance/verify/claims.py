"""Check that card, page and PDF agree with the evidence: digests, verdict, statuses, numbers.

The card's JSON file is compared with the documents of the run, value by value. The card for people,
the page and page 1 of the PDF must then hold the words and numbers of that file. Whether a report
is the same to the last byte is only known by drawing it again: `medisynth-gov report RUN`.
"""

import html
import json
import logging
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from io import BytesIO
from pathlib import Path
from typing import Any

from governance.evidence.manifest import MANIFEST, SIGNING
from governance.records.base import Gate
from governance.records.manifest import Manifest

CARD, CARD_TEXT, PAGE, PDF = "model_card.json", "model_card.md", "report.html", "report.pdf"
SUMMARY, OUTCOME, EVALUATION = "summary.json", "outcome.json", "metrics/evaluation.json"
_COUNTS = ("status", "n_passed", "n_computed", "n_declared", "n_human", "n_missing", "n_failed")
_NUMBERS = ("value", "ci95", "floor", "floor_ci95", "n_real", "n_synthetic", "n_patients")
_DIGESTS = (
    ("config", "run.json", "config_sha256"),
    ("commit", "run.json", "code_commit"),
    ("data_content", "data/dataset.json", "content_sha256"),
    ("checkpoint", "metrics/training.json", "checkpoint_sha256"),
)
_Json = dict[str, Any]


def check_claims(run_dir: Path, manifest: Manifest) -> list[str]:
    """List every difference of card, page and PDF from manifest and documents."""
    listed = {file.path for file in manifest.outputs}
    evidence = {file.path for file in manifest.evidence}
    documents = {
        path: _read_object(run_dir / path)
        for path in (SUMMARY, OUTCOME, EVALUATION, SIGNING, *(path for _, path, _ in _DIGESTS))
        if path in evidence
    }
    ids = {
        "run": manifest.run_id,
        "evidence root": manifest.evidence_root,
        "journal head": manifest.journal_head,
    }
    faults: list[str] = []
    facts: dict[str, str] = {}
    if CARD in listed and (run_dir / CARD).is_file():
        card = _read_object(run_dir / CARD)
        faults += _check_card(card, manifest, documents)
        facts = {} if SUMMARY not in documents else _facts(card)
    for name, read in ((CARD_TEXT, _plain_markdown), (PAGE, _plain_page), (PDF, _first_page)):
        data = _bytes(run_dir / name) if name in listed else None
        # A run that never came to a roll-up has no card and no PDF of ours, only a page at most.
        if data is None or (name != PAGE and not facts):
            continue
        text = read(data)
        if text is None:
            faults.append(f"{name}: its text cannot be read")
            continue
        faults += [
            f"{name}: does not name the {what} of {MANIFEST}, {value}"
            for what, value in ids.items()
            if value not in text
        ]
        faults += _missing(name, text, facts)
    return faults


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None  # missing or unreadable: reported when compared with the manifest


def _read_object(path: Path) -> _Json:
    """Return the JSON object of a file; empty when it has none (reported elsewhere)."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _check_card(card: _Json, manifest: Manifest, documents: Mapping[str, _Json]) -> list[str]:
    hashes = card.get("hashes")
    if not isinstance(hashes, dict) or "run_id" not in card:
        return [f"{CARD}: not a model card with its digests"]
    faults = _unlike(
        hashes,
        manifest.model_dump(mode="json"),
        ("evidence_root", "journal_head", "journal_events", "previous_run"),
        (CARD, MANIFEST),
    )
    for name, path, key in _DIGESTS:
        found, value = hashes.get(name), documents.get(path, {}).get(key)
        if found != value:
            faults.append(f"{CARD}: its {name} is {_shown(found)}, {path} has {_shown(value)}")
    if card["run_id"] != manifest.run_id:
        run_id = _shown(card["run_id"])
        faults.append(f"{CARD}: is of run {run_id}, {MANIFEST} of {manifest.run_id}")
    if SUMMARY in documents:
        try:
            faults += _check_verdict(card, documents[SUMMARY], documents.get(OUTCOME, {}))
            faults += _check_metrics(card, documents.get(EVALUATION, {}))
        except (KeyError, TypeError, AttributeError, ValueError):
            faults.append(f"{CARD}: verdict, principles or metrics are not in the form of a card")
    if "signing" in card:  # cards of earlier versions do not say who signs
        signing = documents.get(SIGNING, {})
        told = card["signing"] if isinstance(card["signing"], dict) else {}
        # Unusual characters of a name are escaped in the card.
        keys = ("key_id", "timestamp_url", "identity")
        is_plain = str(signing.get("identity")).isprintable()
        faults += _unlike(told, signing, keys if is_plain else keys[:2], (CARD, SIGNING))
    return faults


def _check_verdict(card: _Json, summary: _Json, outcome: _Json) -> list[str]:
    """Compare gate, principle statuses and waivers with summary.json."""
    verdict = card["verdict"]
    faults = _unlike(verdict, summary, ("gate", "exit_code"), (CARD, SUMMARY))
    headline = verdict["headline"]
    finished = outcome.get("status") == "finished"
    if finished and headline != Gate(summary["gate"]).headline:
        faults.append(f"{CARD}: says {_shown(headline)}, the gate of {SUMMARY} {summary['gate']!a}")
    if not finished and headline.startswith("Gate "):
        faults.append(f"{CARD}: says {_shown(headline)}, {OUTCOME} that the run did not finish")
    told = {line["id"]: line for line in card["principles"]}
    for line in summary["principles"]:
        mine, name = told.pop(line["id"], {}), f"{CARD}: principle {line['id']}:"
        faults += _unlike(mine, line, _COUNTS, (name, SUMMARY))
    waived = {line["item_id"]: line["state"] for line in summary.get("waivers", ())}
    if told or {line["item_id"]: line["state"] for line in card["waivers"]} != waived:
        faults.append(f"{CARD}: principles or waivers are not those of {SUMMARY}")
    return faults


def _check_metrics(card: _Json, evaluation: _Json) -> list[str]:
    """Compare every number, exact and as printed, and the label of the opening."""
    measured, told = evaluation.get("metrics", []), card["metrics"]
    if len(measured) != len(told):
        return [f"{CARD}: {len(told)} metrics, {EVALUATION} has {len(measured)}"]
    faults = []
    for mine, line in zip(told, measured, strict=True):
        name = f"{CARD}: metric {str(line['id'])[:80]!a} {str(line['subgroup'])[:80]!a}:"
        faults += _unlike(mine, line, _NUMBERS, (name, EVALUATION))
        if not _is_rounded(mine["printed"]["value"], line["value"]):
            printed = _shown(mine["printed"]["value"])
            faults.append(f"{name} prints {printed}, {EVALUATION} has {line['value']}")
    label = (evaluation.get("opening") or {}).get("label", "not opened")
    if not any(label in sentence for sentence in card["conditions"]):
        faults.append(f"{CARD}: its conditions do not say {label!a}, as {EVALUATION} does")
    return faults


def _is_rounded(printed: str, value: float | None) -> bool:
    """Whether a printed number is the value, rounded to the digits printed."""
    if value is None or not printed:
        return value is None and not printed
    try:
        shown = Decimal(printed.replace("\u2212", "-").replace(",", ""))
    except InvalidOperation:
        return False
    exponent = shown.as_tuple().exponent
    step = Decimal(1).scaleb(exponent) if isinstance(exponent, int) else Decimal(0)
    return abs(shown - Decimal(value)) <= step * Decimal("0.5001")


def _unlike(mine: _Json, theirs: _Json, keys: Sequence[str], names: tuple[str, str]) -> list[str]:
    """List keys whose values differ: `names` are the file compared and the reference."""
    who = names[0] if names[0].endswith(":") else f"{names[0]}:"
    return [
        f"{who} its {key} is {_shown(mine.get(key))}, {names[1]} has {_shown(theirs.get(key))}"
        for key in keys
        if mine.get(key) != theirs.get(key)
    ]


def _shown(value: Any) -> str:
    return f"{value[:80]!a}" if isinstance(value, str) else str(value)[:80]


def _facts(card: _Json) -> dict[str, str]:
    """Return facts that every rendering must hold: name -> pattern in plain text."""
    try:
        facts = {"verdict": re.escape(_plain(card["verdict"]["headline"]))}
        for sentence in card["conditions"]:
            if found := re.search(r"confirmatory|exploratory, opening \d+", sentence):
                facts["opening of the test set"] = re.escape(found[0])
        for line in card["principles"]:
            title, status = re.escape(_plain(line["title_n88"])), re.escape(line["status"])
            facts[f"status of principle {line['id']}"] = rf"{title}\W{{0,8}}{status}(?! with)\b"
        for metric in card["metrics"]:
            if metric["value"] is not None and not metric["subgroup"]:
                numbers = f"{metric['printed']['value']} {metric['printed']['ci95']}".strip()
                name = re.escape(_plain(metric["id"]))
                facts[f"metric {metric['id'][:80]}"] = rf"{name}.{{0,80}}? {re.escape(numbers)}"
    except (KeyError, TypeError, AttributeError):
        return {}  # no card: reported above
    return facts


def _missing(name: str, text: str, facts: Mapping[str, str]) -> list[str]:
    """List facts that a rendering lacks; page 1 of the PDF holds verdict and opening only."""
    wanted = facts
    if name == PDF:
        wanted = {key: facts[key] for key in ("verdict", "opening of the test set") if key in facts}
    return [
        f"{name}: does not give the {what} as {CARD} does"
        for what, pattern in wanted.items()
        if not re.search(pattern, text)
    ]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _plain_markdown(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    without = re.sub(r"\\([\\`*_\[\]|~!#])", r"\1", text.replace("<br>", " ").replace(" | ", " "))
    return _plain(html.unescape(without))


def _plain_page(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    text = re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", text)
    return _plain(html.unescape(re.sub(r"<[^>]*>", " ", text)))


def _first_page(data: bytes) -> str | None:
    """Return the text of page 1; None when the file cannot be read as a PDF."""
    from pypdf import PdfReader

    logging.getLogger("pypdf").addHandler(logging.NullHandler())
    try:
        return _plain(PdfReader(BytesIO(data)).pages[0].extract_text())
    except Exception:  # noqa: BLE001 - a damaged PDF fails in many ways
        return None
