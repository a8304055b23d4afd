"""The one reader of a run folder: every file is compared with its digest when it is read."""

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import ValidationError

from governance.evidence.manifest import (
    JOURNAL,
    MANIFEST,
    OUTPUTS,
    evidence_root,
    is_safe_path,
    measure,
    read_manifest,
)
from governance.evidence.store import EvidenceStore
from governance.records.base import Document
from governance.records.errors import (
    ConfigError,
    EvidenceError,
    EvidenceTamperedError,
    NotRunError,
    first_line,
)
from governance.records.files import sha256_bytes, typed
from governance.records.item import ItemRecord
from governance.records.manifest import Manifest
from governance.records.run import RunIdentity
from governance.records.training import TrainingRecord
from governance.records.yaml_text import flatten, read_yaml

CONFIG = "config.yaml"
D = TypeVar("D", bound=Document)


class RunFolder:
    """The documents and other files on record of a run, checked as they are read.

    A file counts when its digest is on record: in the journal while the run is open, in the
    manifest once its evidence is closed. A document is parsed once.

    Attributes:
        path: The run folder.
        digests: SHA-256 of each file on record by path, evidence first.
    """

    def __init__(
        self,
        path: Path,
        digests: Mapping[str, str],
        *,
        manifest: Manifest | None = None,
        known: Mapping[type[Document], Document] | None = None,
    ) -> None:
        """Bind a folder to the digests that its files must have.

        Args:
            path: The run folder.
            digests: SHA-256 by path.
            manifest: Manifest that holds the digests; None when they are from the journal.
            known: Documents already parsed; they are not read again.
        """
        self.path, self.digests = path, digests
        self._manifest = manifest
        self._known: dict[type[Document], Document] = dict(known or {})

    @classmethod
    def open(cls, store: EvidenceStore, *, as_found: Collection[str] = ()) -> "RunFolder":
        """Read the folder of a run that is not closed yet, by the digests in its journal.

        Args:
            store: The folder.
            as_found: Files that are accepted as they are now, whatever the journal says: those
                found changed when a run ends and is to be judged all the same.
        """
        digests = store.artifacts()
        for path in set(as_found) & set(digests):
            del digests[path]
            if (store.run_dir / path).is_file():
                digests[path] = measure(store.run_dir, path).sha256
        return cls(store.run_dir, digests)

    @classmethod
    def listed(cls, path: Path, manifest: Manifest) -> "RunFolder":
        """Read a run folder by the digests of a manifest.

        Raises:
            EvidenceError: The identity of the run is missing, unreadable or that of another run.
        """
        files = (*manifest.evidence, *manifest.outputs)
        folder = cls(path, {file.path: file.sha256 for file in files}, manifest=manifest)
        found = folder.identity.run_id
        if found != manifest.run_id:
            raise EvidenceError(
                f"{path / RunIdentity.PATH}: is of run {found!r}, the manifest of "
                f"{manifest.run_id!r}; restore the right file"
            )
        return folder

    @classmethod
    def closed(cls, path: Path) -> "RunFolder":
        """Read the folder of a run whose evidence is closed.

        Raises:
            EvidenceError: The manifest is missing, damaged or not that of the files it lists, or
                the identity of the run is.
        """
        manifest = read_manifest(path)
        if evidence_root(manifest.evidence) != manifest.evidence_root:
            raise EvidenceError(
                f"{path / MANIFEST}: its evidence root is not that of the files it lists; "
                "restore the file"
            )
        return cls.listed(path, manifest)

    @classmethod
    def finished(cls, path: Path) -> "RunFolder":
        """Read the folder of a run that has ended, with card and reports.

        Raises:
            ConfigError: It is no run folder, or the run has not ended.
            EvidenceError: As in `closed`.
        """
        if not (path / JOURNAL).is_file() and not (path / MANIFEST).is_file():
            raise ConfigError(f"{path}: not a run folder; expected {JOURNAL} and {MANIFEST} in it")
        if not is_ended(path):
            raise ConfigError(
                f"{path.name}: this run did not come to its end; "
                f"wait for it, or go on with medisynth-gov run --resume {typed(path)}"
            )
        return cls.closed(path)

    @classmethod
    def of(cls, *documents: Document, digests: Mapping[str, str] | None = None) -> "RunFolder":
        """Return a run made of these documents alone; no file is read."""
        return cls(Path(), digests or {}).knowing(*documents)

    def knowing(self, *documents: Document) -> "RunFolder":
        """Return the same run with these documents in place of those in its folder."""
        known = self._known | {type(document): document for document in documents}
        return RunFolder(self.path, self.digests, manifest=self._manifest, known=known)

    @property
    def workspace(self) -> Path:
        """The folder that holds runs/, and so this run."""
        return self.path.parent.parent

    @property
    def manifest(self) -> Manifest:
        """The manifest; EvidenceError while the run is open."""
        if self._manifest is None:
            raise EvidenceError(f"{self.path}: its evidence is not closed; finish the run first")
        return self._manifest

    @property
    def identity(self) -> RunIdentity:
        """Identity of the run: id, time, tool version, configuration; errors as in `need`."""
        return self.need(RunIdentity)

    def get(self, kind: type[D]) -> D | None:
        """Return the document of a kind; None when the run has none; errors as in `read`."""
        if kind not in self._known:
            data = self.read(kind.PATH)
            if data is None:
                return None
            self._known[kind] = self._parse(kind.PATH, data, kind)
        document = self._known[kind]
        assert isinstance(document, kind)  # noqa: S101 - each document is kept under its class
        return document

    def need(self, kind: type[D]) -> D:
        """Return the document of a kind.

        Raises:
            NotRunError: The run has none; the message says why that may be.
            EvidenceError: As in `read`.
        """
        document = self.get(kind)
        if document is None:
            where = f"{self.path}: {JOURNAL if self._manifest is None else MANIFEST}"
            raise NotRunError(kind.ABSENCE, f"{where} lists no {kind.PATH}: {kind.ABSENCE}")
        return document

    def records(self) -> dict[str, ItemRecord]:
        """Return every item's record by id, sorted by path; errors as in `read`."""
        found = {}
        for path in sorted(self.digests):
            if path.startswith("records/") and path.endswith(".json"):
                record = self._parse(path, self.read(path) or b"", ItemRecord)
                found[record.id] = record
        return found

    def config(self) -> dict[str, Any]:
        """Return the configuration as nested sections; errors as in `read`."""
        data = self.read(CONFIG) or b""
        return read_yaml(
            data, str(self.path / CONFIG), may_be_empty=True, may_hold_credentials=True
        ).content

    def flat_config(self) -> dict[str, Any]:
        """Return every value of the configuration by its dotted key; errors as in `read`."""
        return flatten(self.config())

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; None when it is not on record.

        Raises:
            EvidenceTamperedError: Its digest is not the one on record.
            EvidenceError: It is missing, no regular file, unreadable or outside the folder, or, for
                a document, does not fit its kind.
        """
        if path not in self.digests:
            return None
        file = self.path / path
        if not is_safe_path(path) or self.path.resolve() not in file.resolve().parents:
            record = JOURNAL if self._manifest is None else MANIFEST
            raise EvidenceError(f"{self.path / record}: {path!r} lies outside the run folder")
        measure(self.path, path)  # a regular file that can be read
        data = file.read_bytes()
        found = sha256_bytes(data)
        if found != self.digests[path]:
            raise EvidenceTamperedError(file, expected=self.digests[path], found=found)
        return data

    def _parse(self, path: str, data: bytes, kind: type[D]) -> D:
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"])) or "document"
            advice = "rerun the step that wrote it"
            if self._manifest is not None:
                version = self._manifest.tool_version
                advice = f"the run was made by version {version}: use that version"
            raise EvidenceError(
                f"{self.path / path}: not a readable {kind.__name__}: {where}: "
                f"{first_line(fault['msg'])}; {advice}"
            ) from error


def is_ended(run_dir: Path) -> bool:
    """Whether a run has ended: it has a manifest, which lists card and reports."""
    try:
        return {*OUTPUTS} <= {file.path for file in read_manifest(run_dir).outputs}
    except EvidenceError:
        # A damaged manifest is a fault to be reported, not a run cut short.
        return (run_dir / MANIFEST).exists()


def model_name(record: TrainingRecord) -> str:
    """Return the plain name of the generator.

    One that the configuration names as "package.module:Class" takes its name from the file of its
    checkpoint, "<name>-<digest>.safetensors".
    """
    if ":" not in record.generator:
        return record.generator
    stem = PurePosixPath(record.checkpoint_path).stem
    return stem.removesuffix(f"-{record.checkpoint_sha256[:12]}")
