"""Declarations and waivers as a run read them, and the key that signs the run."""

from datetime import date as Date  # noqa: N812 - two fields are called `date`
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from governance.records.base import Document, Sha256

Meaning = Literal["author", "reviewer", "approver"]
WaiverState = Literal["in force", "unused", "expired", "other run"]
OutputRole = Literal["research", "training data", "education", "software testing"]
Names = tuple[str, ...] | Literal["any"]


class AppliesTo(Document):
    """The run that an entry applies to: every value given must match, "" matches any run.

    Attributes:
        run: Run id.
        config: SHA-256 of the resolved configuration, config.yaml.
        version: Version of medisynth-gov.
        data: SHA-256 of the selected images, as in data/dataset.json.
        model: Registered generator name.
    """

    run: str = ""
    config: str = ""
    version: str = ""
    data: str = ""
    model: str = ""


class DeclaredScope(Document):
    """Scope of a declared intended use, with which a run is compared.

    Attributes:
        planes: Planes or brain planes, or "any".
        machines: Machines, or "any".
        image_size_px: Smallest and largest side of the synthetic images.
        output_roles: Permitted purposes of the synthetic images.
    """

    planes: Names
    machines: Names
    image_size_px: tuple[int, int]
    output_roles: tuple[OutputRole, ...]


class Declaration(Document):
    """A person's declaration on one human item; an empty field makes the item missing.

    Attributes:
        id: Item id, e.g. "P1-H1".
        statement: What is declared, or why the item is not applicable.
        owner_name: Person who declares it.
        owner_role: Role of that person.
        date: Date of the declaration; None when the file gives none.
        reference: Where the proof lies: a document's name, or a file beside the declarations.
        applies_to: Runs to which it applies.
        meaning: Meaning of the signature, e.g. "approval"; "" when the file gives none.
        expires: Last day on which it holds; None when the file gives none.
        not_applicable: Whether it says that the item is not applicable.
        reference_sha256: Digest of the referenced file that the person gave; "" for none.
        reference_found: Digest of the referenced file as it was read; None when it is no file.
        signature: A person's signature over the entry; "" for none.
        key_file: File beside the declarations with the public key that must have signed; "" for
            any key.
        key_file_id: Id of the key in that file, as it was read.
        card: Text of model card fields, by field id.
        scope: Scope of the intended use; None where the entry gives none.
    """

    id: str
    statement: str
    owner_name: str
    owner_role: str
    date: Date | None
    reference: str
    applies_to: AppliesTo
    meaning: Meaning | Literal[""]
    expires: Date | None
    not_applicable: bool = False
    reference_sha256: str = ""
    reference_found: Sha256 | None = None
    signature: str = ""
    key_file: str = ""
    key_file_id: str | None = None
    card: dict[str, str] = Field(default_factory=dict)
    scope: DeclaredScope | None = None


class Waiver(Document):
    """A person accepts that one computed item has not passed; its status does not change.

    Attributes:
        id: Item id, e.g. "P5-01".
        author: Person who accepts it.
        reason: Why.
        expires: Last day on which it holds.
        applies_to: Runs to which it applies.
        signature: A person's signature over the entry; "" for none.
        key_file: File beside the declarations with the public key that must have signed.
        key_file_id: Id of the key in that file, as it was read.
    """

    id: str
    author: str
    reason: str
    expires: Date
    applies_to: AppliesTo
    signature: str = ""
    key_file: str = ""
    key_file_id: str | None = None


class Declarations(Document):
    """Declarations and waivers as read at the start, before the plan froze (declarations.json).

    Attributes:
        file: File it was read from, as the configuration names it.
        sha256: Digest of that file; its bytes are in declarations.yaml of the run folder.
        read_utc: When it was read.
    """

    PATH = "declarations.json"
    ABSENCE = "the configuration names no declarations file"

    file: str
    sha256: Sha256
    read_utc: AwareDatetime
    declarations: tuple[Declaration, ...] = ()
    waivers: tuple[Waiver, ...] = ()


class WaiverLine(Document):
    """A waiver, its state and its effect.

    Attributes:
        item_id: Waived item.
        title: Its title.
        author: Who waived it.
        reason: Why.
        expires: Last day on which the waiver holds.
        state: "in force", "unused" (the item needs none), "expired", or "other run".
        effect: What it changes, as a sentence part.
        signing: How its author signed; "" in runs of versions that did not record it.
    """

    item_id: str
    title: str
    author: str
    reason: str
    expires: Date
    state: WaiverState
    effect: str
    signing: str = ""


class SigningRecord(Document):
    """The public key that signs the run (signing.json); written by unsigned runs, too.

    Attributes:
        key_id: Id of the key; None for an unsigned run.
        key: Public key as securesystemslib writes it: keytype, scheme, keyval.
        source: Where the private key is kept: "file", or the scheme of its URI.
        identity: Name of the signer as configured; nobody has checked it.
        has_certificate: Whether a signed copy of the PDF is made with the same key.
        timestamp_url: Authority that is asked for a time-stamp of the manifest; None for none.
    """

    PATH = "signing.json"
    ABSENCE = "the evidence step did not run to its end"

    key_id: str | None = None
    key: dict[str, Any] | None = None
    source: str | None = None
    identity: str | None = None
    has_certificate: bool = False
    timestamp_url: str | None = None

    @property
    def sentence(self) -> str:
        """State by which key the run is signed, for reports and the command line."""
        if self.key_id is None:
            return "unsigned"
        named = f" as {self.identity!r}" if self.identity else ""
        return f"signed by key id {self.key_id}{named} ({self.made}, identity not vouched for)"

    @property
    def made(self) -> str:
        """Say whether the key was generated locally or where it is kept."""
        return "locally generated key" if self.source == "file" else f"key kept by {self.source}"
