"""Reads the declarations file once, before a run begins; any fault refuses the run."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from governance.evidence.store import EvidenceStore
from governance.people.intended_use import INTENDED_USE, NO_SCOPE, Used, declared_scope, outside
from governance.people.rules import (
    MAY_BE_NOT_APPLICABLE,
    UNTOUCHED,
    RunFacts,
    is_placeholder,
    is_untouched,
    unlike,
    waiver_refusal,
    why_missing,
)
from governance.people.signature import check_entry_signature
from governance.records.errors import DeclarationsError, SigningKeyError
from governance.records.files import sha256_bytes, sha256_file
from governance.records.people import AppliesTo, Declaration, Declarations, Waiver
from governance.records.policy import Policy
from governance.records.run import RunIdentity
from governance.records.yaml_text import read_yaml
from governance.reports.card.fields import DECLARABLE_FIELDS
from governance.signing.keys import read_public_key
from medisynth.models.registry import load_generator
from pipelines.config.model import RunConfig
from pipelines.people.entries import DeclarationEntry, DeclarationsFile, WaiverEntry

COPY = "declarations.yaml"
_Place = tuple[int | str, ...]


class ReadDeclarations(BaseModel):
    """The bytes of the declarations file and its parsed content."""

    model_config = ConfigDict(frozen=True)

    data: bytes
    document: Declarations

    def put_on_record(self, store: EvidenceStore) -> None:
        """Write bytes and content into the run folder; call before the plan is frozen."""
        store.write_bytes(COPY, self.data)
        store.write_document(self.document)

    def warnings(
        self, identity: RunIdentity, today: date | None = None, used: Used | None = None
    ) -> tuple[str, ...]:
        """Return a sentence for each entry that will have no effect in this run.

        Args:
            identity: Identity of the run.
            today: Day to judge expiry by. Default: today (UTC).
            used: Facts of the run that the declared scope is compared with.
        """
        today = today or datetime.now(UTC).date()
        sentences = []
        n_untouched = 0
        for entry in self.document.declarations:
            fault = why_missing(entry, _facts(identity, entry.applies_to), today)
            n_untouched += fault == UNTOUCHED
            if fault and fault != UNTOUCHED:
                sentences.append(f"{self.document.file}: {entry.id} counts as missing: {fault}")
            sentences.extend(self._void_signature(entry, entry.id))
        if n_untouched:
            entries = f"{n_untouched} {'entry' if n_untouched == 1 else 'entries'}"
            sentences.append(f"{self.document.file}: {entries} not filled in, so missing")
        for waiver in self.document.waivers:
            fault = unlike(waiver.applies_to, _facts(identity, waiver.applies_to))
            if waiver.expires < today:
                fault = f"it expired on {waiver.expires}"
            if fault:
                sentences.append(f"{self.document.file}: waiver of {waiver.id} is void: {fault}")
            sentences.extend(self._void_signature(waiver, f"waiver of {waiver.id}"))
        return (*sentences, *self._scope_warnings(used or Used()))

    def _scope_warnings(self, used: Used) -> Iterator[str]:
        entries = [d for d in self.document.declarations if d.id == INTENDED_USE]
        scope = declared_scope(self.document)
        if scope is None and not all(is_untouched(entry) for entry in entries):
            yield f"{self.document.file}: {NO_SCOPE}; without it P1-01 is not evaluated"
        elif scope is not None and (names := outside(scope, used)):
            words = "outside the declared intended use, so P1-01 fails"
            yield f"{self.document.file}: {words}: {', '.join(names)}"

    def _void_signature(self, entry: Declaration | Waiver, name: str) -> tuple[str, ...]:
        found = check_entry_signature(entry)
        return (f"{self.document.file}: {name}: {found.words}",) if found.state == "void" else ()


def known_use(config: RunConfig) -> Used:
    """Return image size and output role, which are known before any image is read."""
    size = load_generator(config.model.name).image_size_px(config.generator_settings())
    return Used(image_size_px=size, output_role=config.output_role)


def _facts(identity: RunIdentity, applies_to: AppliesTo) -> RunFacts:
    """Return the facts of a run at its start; the data digest is assumed to be as declared."""
    return RunFacts(
        run=identity.run_id,
        config=identity.config_sha256,
        version=identity.tool_version,
        data=applies_to.data or None,
        model=identity.generator,
    )


def read_declarations(path: str, policy: Policy) -> ReadDeclarations:
    """Read a declarations file and check all that does not depend on a run.

    Args:
        path: File as the configuration names it; a relative path starts at the current folder.
        policy: Policy in force, whose items are declared and waived.

    Raises:
        DeclarationsError: The file cannot be read or used; every fault has its line and key.
    """
    file = Path(path).expanduser()
    read = read_yaml(
        file,
        path,
        what="declarations",
        hint="a relative path of the key declarations starts at the current folder, and "
        "`medisynth-gov init` writes a file to fill in",
        error=DeclarationsError,
        may_be_empty=True,
    )

    def at(place: _Place) -> str:
        return f"{path}:{read.line(place)}"

    try:
        parsed = DeclarationsFile.model_validate(read.content)
    except ValidationError as error:
        raise _refused(path, _shape_faults(error, read.content, at)) from error
    if faults := [*_declaration_faults(parsed, policy, at), *_waiver_faults(parsed, policy, at)]:
        raise _refused(path, faults)
    document = Declarations(
        file=path,
        sha256=sha256_bytes(read.data),
        read_utc=datetime.now(UTC),
        declarations=tuple(_declaration(entry, file.parent, path) for entry in parsed.declarations),
        waivers=tuple(_waiver(entry, file.parent, path) for entry in parsed.waivers),
    )
    return ReadDeclarations(data=read.data, document=document)


def _refused(path: str, faults: Sequence[str]) -> DeclarationsError:
    if len(faults) == 1:
        return DeclarationsError(faults[0])
    return DeclarationsError(f"{path}: {len(faults)} faults; mend each", findings=tuple(faults))


def _shape_faults(error: ValidationError, content: Any, at: Callable[[_Place], str]) -> list[str]:
    return [
        f"{at(fault['loc'])}: {_key(fault['loc'], content)}: {_problem(fault)}"
        for fault in error.errors(include_url=False)
    ]


def _problem(fault: Any) -> str:
    if fault["type"] == "missing":
        return "a value is required; add the key"
    if fault["type"] == "extra_forbidden":
        return "unknown key; remove it or mend its spelling"
    shown = repr(fault["input"])[:80]
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    quotes = "; put it in quotes" if fault["type"] == "string_type" else ""
    return f"{shown} cannot be used; {message}{quotes}"


def _key(place: _Place, content: Any) -> str:
    """Return the key of a fault with the item's id instead of a position: "P1-H1.expires"."""
    words: list[str] = []
    for part in place:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(part, int):
            item_id = content.get("id") if isinstance(content, dict) else None
            words.append(str(item_id or f"entry {part + 1}"))
        elif part not in ("declarations", "waivers") or len(place) == 1:
            words.append(str(part))
    return ".".join(words)


def _declaration_faults(
    file: DeclarationsFile, policy: Policy, at: Callable[[_Place], str]
) -> list[str]:
    kinds = {item.id: item.kind for item in policy.items}
    counts = Counter(entry.id for entry in file.declarations)
    faults = []
    for place, entry in enumerate(file.declarations):
        where: _Place = ("declarations", place)
        line = f"{at((*where, 'id'))}: {entry.id}"
        if entry.id not in kinds:
            faults.append(f"{line}: the policy has no such item; mend the id")
        elif kinds[entry.id] != "human":
            faults.append(f"{line}: the run computes this item, nobody declares it; remove it")
        elif counts[entry.id] > 1:
            faults.append(f"{line}: declared {counts[entry.id]} times; an item has one entry")
        if entry.not_applicable and entry.id not in MAY_BE_NOT_APPLICABLE:
            only = " and ".join(sorted(MAY_BE_NOT_APPLICABLE))
            faults.append(
                f"{at((*where, 'not_applicable'))}: {entry.id}.not_applicable: only {only} may be "
                "marked so; remove the key"
            )
        if entry.scope is not None and entry.id != INTENDED_USE:
            faults.append(
                f"{at((*where, 'scope'))}: {entry.id}.scope: the scope belongs to the declaration "
                f"of intended use, {INTENDED_USE}; move it there"
            )
        faults.extend(
            f"{at((*where, 'card', key))}: {entry.id}.card.{key}: no field of the model card that "
            f"people fill; known are {', '.join(DECLARABLE_FIELDS)}"
            for key in entry.card
            if key not in DECLARABLE_FIELDS
        )
    return faults


def _waiver_faults(
    file: DeclarationsFile, policy: Policy, at: Callable[[_Place], str]
) -> list[str]:
    counts = Counter(entry.id for entry in file.waivers)
    faults = []
    for place, entry in enumerate(file.waivers):
        where: _Place = ("waivers", place)
        if refusal := waiver_refusal(policy, entry.id):
            faults.append(f"{at((*where, 'id'))}: waiver of {entry.id}: {refusal}; remove it")
        elif counts[entry.id] > 1:
            faults.append(
                f"{at((*where, 'id'))}: waiver of {entry.id}: given twice; once is enough"
            )
        empty = [key for key in ("author", "reason") if is_placeholder(getattr(entry, key))]
        if entry.expires is None:
            empty.append("expires")
        if all(is_placeholder(text) for text in entry.applies_to.model_dump().values()):
            empty.append("applies_to")
        faults.extend(
            f"{at((*where, key))}: waiver of {entry.id}: {key} is empty or a placeholder; a waiver "
            "needs author, reason, expires and applies_to"
            for key in empty
        )
    return faults


def _declaration(entry: DeclarationEntry, folder: Path, name: str) -> Declaration:
    fields = entry.model_dump()
    fields["applies_to"] = AppliesTo.model_validate(fields["applies_to"])
    fields["scope"] = entry.scope.document() if entry.scope is not None else None
    given = fields["reference_sha256"]
    fields["reference_sha256"] = "" if is_placeholder(given) else given
    fields["reference_found"] = _reference_digest(entry, folder, name)
    fields["key_file_id"] = _key_file_id(entry, folder, name)
    return Declaration.model_validate(fields)


def _key_file_id(entry: DeclarationEntry | WaiverEntry, folder: Path, name: str) -> str | None:
    """Return the id of the key that must sign the entry; None if it names no key file."""
    if is_placeholder(entry.key_file):
        return None
    try:
        return str(read_public_key(folder / entry.key_file.strip()).keyid)
    except SigningKeyError as error:
        raise DeclarationsError(f"{name}: {entry.id}.key_file: {error}") from error


def _reference_digest(entry: DeclarationEntry, folder: Path, name: str) -> str | None:
    """Return the referenced file's digest; None if the reference names no regular file."""
    if is_placeholder(entry.reference):
        return None
    try:
        file = folder / Path(entry.reference.strip())
        is_there = file.is_file()
    except (OSError, ValueError):
        return None  # the reference is a sentence, not a path
    if not is_there:
        return None
    try:
        return sha256_file(file)
    except OSError as error:
        raise DeclarationsError(
            f"{name}: {entry.id}.reference: {entry.reference} cannot be read ({error.strerror}); "
            "make it readable or name another"
        ) from error


def _waiver(entry: WaiverEntry, folder: Path, name: str) -> Waiver:
    fields = entry.model_dump()
    fields["applies_to"] = AppliesTo.model_validate(fields["applies_to"])
    fields["key_file_id"] = _key_file_id(entry, folder, name)
    return Waiver.model_validate(fields)
