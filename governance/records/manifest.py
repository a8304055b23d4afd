"""The manifest: every file of a run with its digest."""

from typing import Literal

from pydantic import AwareDatetime, Field

from governance.records.base import Document, Sha256


class ManifestFile(Document):
    """Path, size and digest of one file of the run folder."""

    path: str
    n_bytes: int
    sha256: Sha256


class Manifest(Document):
    """Path, size and digest of every file of the run (manifest.json).

    Attributes:
        run_id: Run that it describes.
        tool_version: Version of medisynth-gov that wrote it.
        created_utc: When the evidence part was closed.
        evidence: All files that existed before the report step, sorted by path.
        evidence_root: Merkle root (RFC 6962 hashing) over them; card and report print it.
        journal_events: Events in the journal when the evidence was closed.
        journal_head: Digest of the last of them.
        previous_run: evidence_root of the run before, in the same workspace; None for the first.
        outputs: Card and report, added after they were written.
    """

    format: Literal["medisynth-gov/manifest/1"] = "medisynth-gov/manifest/1"
    run_id: str
    tool_version: str
    created_utc: AwareDatetime
    evidence: tuple[ManifestFile, ...]
    evidence_root: Sha256
    journal_events: int
    journal_head: Sha256
    previous_run: Sha256 | None = None
    outputs: tuple[ManifestFile, ...] = Field(default=())
