"""A person's signature under one entry of a declarations file.

It shows that the holder of a key signed exactly this entry. Nobody vouches for who that is, and a
declared item stays declared: a signature proves no statement.
"""

from dataclasses import dataclass
from typing import Literal

from securesystemslib.signer import Key, SSlibKey

from governance.records.errors import SigningKeyError
from governance.records.files import canonical_json
from governance.records.people import Declaration, Waiver
from governance.signing.keys import RunSigner, ed25519_public_key, is_signed_by

FORMAT = "medisynth-gov/entry-signature/1"
_KIND, _PUBLIC_BYTES, _SIGNATURE_BYTES = "ed25519", 32, 64
# Named one by one, so that a field that is added later does not void older signatures.
_DECLARED = (
    *("id", "statement", "owner_name", "owner_role", "date", "reference", "meaning", "expires"),
    *("not_applicable", "reference_sha256", "card"),
)
_WAIVED = ("id", "author", "reason", "expires")
_IGNORED = "counts as not given"


@dataclass(frozen=True)
class EntrySignature:
    """Whether an entry is signed, and by which key.

    Attributes:
        state: "none", "valid", or "void", which counts as not signed.
        words: The same for people, as a sentence part.
        key_id: Key that signed; "" unless it is valid.
    """

    state: Literal["none", "valid", "void"]
    words: str
    key_id: str = ""


def signed_bytes(entry: Declaration | Waiver) -> bytes:
    """Return the bytes a person signs: canonical JSON of the entry, without what a run adds."""
    is_declaration = isinstance(entry, Declaration)
    told = entry.model_dump(mode="json", include={*(_DECLARED if is_declaration else _WAIVED)})
    applies_to = {key: value for key, value in entry.applies_to.model_dump().items() if value}
    kind = "declaration" if is_declaration else "waiver"
    return canonical_json({"format": FORMAT, "kind": kind, **told, "applies_to": applies_to})


def sign_entry(entry: Declaration | Waiver, signer: RunSigner) -> str:
    """Return the value of the key `signature`: kind of key, public key, signature.

    Raises:
        SigningKeyError: The key is no Ed25519 key, or does not sign.
    """
    key = signer.record.key or {}
    if key.get("keytype") != _KIND:
        raise SigningKeyError(
            f"key {signer.record.key_id}: not an Ed25519 key; make one with medisynth-gov keygen"
        )
    return f"{_KIND}:{key['keyval']['public']}:{signer.sign(signed_bytes(entry)).hex()}"


def check_entry_signature(entry: Declaration | Waiver) -> EntrySignature:
    """Check the signature that an entry carries and return its state."""
    text = entry.signature.strip()
    if not text:
        return EntrySignature("none", "not signed")
    try:
        key, signature = _parsed(text)
    except ValueError:
        form = "not in the form that sign-declaration writes"
        return EntrySignature("void", f"signature given, {form}: {_IGNORED}")
    if entry.key_file_id is not None and entry.key_file_id != key.keyid:
        other = f"not by key id {entry.key_file_id} of {entry.key_file}"
        return EntrySignature("void", f"signature by key id {key.keyid}, {other}: {_IGNORED}")
    if not is_signed_by(key, signed_bytes(entry), signature):
        return EntrySignature("void", f"signature does not match the entry: {_IGNORED}")
    named = f" of {entry.key_file}" if entry.key_file_id is not None else ""
    words = f"signed by key id {key.keyid}{named}, identity not vouched for"
    return EntrySignature("valid", words, key.keyid)


def _parsed(text: str) -> tuple[Key, bytes]:
    kind, public, signature = text.split(":")
    key, signed = bytes.fromhex(public), bytes.fromhex(signature)
    written = f"{_KIND}:{key.hex()}:{signed.hex()}"  # only this one spelling is valid
    if (kind, len(key), len(signed), text) != (_KIND, _PUBLIC_BYTES, _SIGNATURE_BYTES, written):
        raise ValueError("not a signature")
    return SSlibKey.from_crypto(ed25519_public_key(key)), signed
