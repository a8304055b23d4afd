"""Who signs a run."""

from typing import Any

from governance.evidence.documents.base import Document


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
