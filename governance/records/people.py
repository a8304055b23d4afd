"""People's word as a run read it, and who signs the run."""

from datetime import date as Date  # noqa: N812 - two fields are called `date`
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from governance.records.base import Document, Sha256

Meaning = Literal["author", "reviewer", "approver"]
WaiverState = Literal["in force", "unused", "expired", "other run"]
OutputRole = Literal["research", "training data", "education", "software testing"]
Names = tuple[str, ...] | Literal["any"]


class AppliesTo(Document):
    """Which run a person's word is about: everything named must be this run's, "" names nothing.

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
    """What an intended use is declared for; a run is compared with it.

    Attributes:
        planes: Planes or brain planes, or "any".
        machines: Machines, or "any".
        image_size_px: Smallest and largest side of the synthetic images.
        output_roles: What the synthetic images may be for.
    """

    planes: Names
    machines: Names
    image_size_px: tuple[int, int]
    output_roles: tuple[OutputRole, ...]


class Declaration(Document):
    """What one person says about one human item; empty values are kept and make it missing.

    Attributes:
        id: Item id, e.g. "P1-H1".
        statement: What is declared, or why the item is not applicable.
        owner_name: Who says so.
        owner_role: In which role.
        date: When; None when the file gives none.
        reference: Where the proof lies: a document's name, or a file beside the declarations.
        applies_to: Which runs it is about.
        meaning: What the name stands for; "" when the file gives none.
        expires: Last day on which it holds; None when the file gives none.
        not_applicable: Whether it says that the item is not applicable.
        reference_sha256: Digest of the referenced file that the person gave; "" for none.
        reference_found: Digest of the referenced file as it was read; None when it is no file.
        signature: A person's signature over the entry; "" for none.
        key_file: File beside the declarations with the public key that must have signed; "" for
            any key.
        key_file_id: Id of the key in that file, as it was read.
        card: Text of model card fields, by field id.
        scope: What the intended use is declared for; None where the entry says nothing of it.
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
    """A person accepts that one computed item has not passed; its status stays what it is.

    Attributes:
        id: Item id, e.g. "P5-01".
        author: Who accepts it.
        reason: Why.
        expires: Last day on which it holds.
        applies_to: Which runs it is about.
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
    """People's word as it was when the run began, before the plan was frozen (declarations.json).

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
    """A waiver, and what came of it.

    Attributes:
        item_id: Waived item.
        title: Its title.
        author: Who waived it.
        reason: Why.
        expires: Last day on which the waiver holds.
        state: "in force", "unused" (the item needs none), "expired", or "other run".
        effect: What it changes, in words.
        signing: How its author signed, in words; "" in runs of versions that did not say.
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
        identity: Who signs, in the words of the configuration; nobody has checked them.
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
        """What reports and the command line say of it."""
        if self.key_id is None:
            return "unsigned"
        named = f" as {self.identity!r}" if self.identity else ""
        return f"signed by key id {self.key_id}{named} ({self.made}, identity not vouched for)"

    @property
    def made(self) -> str:
        """Where the key comes from."""
        return "locally generated key" if self.source == "file" else f"key kept by {self.source}"
