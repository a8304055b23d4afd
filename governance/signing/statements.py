"""Signed statements of the files that each step of a run made (attestations/*.json).

In-toto statements with the link predicate: a step, the files it made (subjects) and the files it
used (materials), by digests that are also on the manifest. The envelope is DSSE.

Source:
    in-toto Attestation Framework, Statement v1 and Link predicate v0.3; DSSE v1.0.2.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key

from governance.evidence.manifest import VERIFIER
from governance.records.files import canonical_json
from governance.records.manifest import Manifest
from governance.signing.keys import RunSigner, is_signed_by

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT, LINK = "https://in-toto.io/Statement/v1", "https://in-toto.io/attestation/link/v0.3"
_SEAL = ("data/seal.json", "data/seal_leaves.json")
_SETUP = ("config.yaml", "run.json")


@dataclass(frozen=True)
class _Step:
    """Paths, or folders ending in a slash, of the files that a step made and used."""

    made: tuple[str, ...]
    used: tuple[str, ...]
    not_made: tuple[str, ...] = ()


_STEPS = {
    "data": _Step(("data/",), _SETUP, not_made=_SEAL),
    "seal": _Step(_SEAL, ("data/split.json",)),
    "train": _Step(
        ("checkpoints/", "metrics/training.json", "isolation.json"),
        (*_SETUP, "plan.json", "data/split.json", "data/seal.json"),
    ),
    "evaluate": _Step(
        ("samples/", "metrics/", "figures/"),
        ("checkpoints/", "plan.json", "data/seal.json"),
        not_made=("metrics/training.json",),
    ),
    "report": _Step((), ("records/", "summary.json", "integrity.json", "outcome.json", *_SETUP)),
}


def statement(
    step: str, manifest: Manifest, outputs: Mapping[str, str], command: tuple[str, ...]
) -> dict[str, Any] | None:
    """Return the statement of one step; None when the run did not come that far.

    Args:
        step: "data", "seal", "train", "evaluate" or "report".
        manifest: Evidence of the run.
        outputs: Card and reports: path -> SHA-256.
        command: Command line of the run.
    """
    evidence = {file.path: file.sha256 for file in manifest.evidence}
    rule = _STEPS[step]
    made = {
        path: digest
        for path, digest in evidence.items()
        if _is_one_of(path, rule.made) and not _is_one_of(path, rule.not_made)
    }
    if step == "report":
        made = {path: digest for path, digest in outputs.items() if path != VERIFIER}
    if not made:
        return None
    used = {path: digest for path, digest in evidence.items() if _is_one_of(path, rule.used)}
    return {
        "_type": STATEMENT,
        "subject": _resources(made),
        "predicateType": LINK,
        "predicate": {
            "name": step,
            "command": list(command),
            "materials": _resources(used),
            "byproducts": {
                "evidence_root": manifest.evidence_root,
                "journal_events": manifest.journal_events,
                "journal_head": manifest.journal_head,
            },
            "environment": {"run_id": manifest.run_id, "medisynth-gov": manifest.tool_version},
        },
    }


def _is_one_of(path: str, names: tuple[str, ...]) -> bool:
    return any(path == name or (name[-1] == "/" and path.startswith(name)) for name in names)


def _resources(digests: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": path, "digest": {"sha256": digests[path]}} for path in sorted(digests)]


def attestations(
    manifest: Manifest, outputs: Mapping[str, str], command: tuple[str, ...], signer: RunSigner
) -> dict[str, bytes]:
    """Return the signed statements of all steps that the run reached: path -> bytes.

    Raises:
        SigningKeyError: The key does not sign.
    """
    signed = {}
    for step in _STEPS:
        told = statement(step, manifest, outputs, command)
        if told is not None:
            signed[f"attestations/{step}.json"] = _envelope(canonical_json(told), signer)
    return signed


def _pre_authentication(payload: bytes) -> bytes:
    """Return the bytes that are signed, which bind the payload to its type (DSSE PAE)."""
    signed: bytes = Envelope(payload, PAYLOAD_TYPE, {}).pae()
    return signed


def _envelope(payload: bytes, signer: RunSigner) -> bytes:
    signature = signer.sign(_pre_authentication(payload))
    envelope = {
        "payload": b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {"keyid": signer.record.key_id, "sig": b64encode(signature).decode()},
        ],
    }
    return canonical_json(envelope) + b"\n"


def check_attestation(name: str, data: bytes, key: Key, manifest: Manifest) -> list[str]:
    """List faults of one signed statement: signature, digests that differ from the manifest."""
    try:
        envelope = json.loads(data)
        payload = b64decode(envelope["payload"], validate=True)
        (signature,) = envelope["signatures"]
        signed = b64decode(signature["sig"], validate=True)
        told = json.loads(payload)
        digests = {
            part["name"]: part["digest"]["sha256"]
            for part in (*told["subject"], *told["predicate"]["materials"])
        }
        kind, facts = envelope["payloadType"], told["predicate"]["byproducts"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [f"{name}: not a signed in-toto statement"]
    if kind != PAYLOAD_TYPE or not is_signed_by(key, _pre_authentication(payload), signed):
        return [f"{name}: not signed by key {key.keyid}"]
    listed = {file.path: file.sha256 for file in (*manifest.evidence, *manifest.outputs)}
    faults = [
        f"{name}: {str(path)[:200]!a} has another digest than in the manifest"
        for path, digest in digests.items()
        if listed.get(path) != digest
    ]
    if facts.get("evidence_root") != manifest.evidence_root:
        faults.append(f"{name}: is of evidence root {str(facts.get('evidence_root'))[:64]!a}")
    return faults
