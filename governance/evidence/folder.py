"""The documents of a run folder, each compared with the digest on record."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from governance.evidence.manifest import (
    JOURNAL,
    MANIFEST,
    OUTPUTS,
    evidence_root,
    is_safe_path,
    measure,
    read_manifest,
)
from governance.records.base import Document
from governance.records.errors import ConfigError, EvidenceError, EvidenceTamperedError
from governance.records.files import sha256_bytes
from governance.records.run import RunIdentity
from governance.records.run_files import DOCUMENTS
from governance.records.training import TrainingRecord
from governance.records.verdict import ItemRecord
from governance.records.yaml_text import flatten, read_yaml

CONFIG = "config.yaml"
_D = TypeVar("_D", bound=Document)
_M = TypeVar("_M", bound=BaseModel)


class RunFiles:
    """The files of a run folder, each compared with its digest when it is read.

    Attributes:
        folder: The run folder.
        identity: Who, what, when.
    """

    def __init__(self, folder: Path, digests: Mapping[str, str], record: str) -> None:
        """Take the digests that count.

        Args:
            folder: The run folder.
            digests: SHA-256 of each file by path.
            record: What holds these digests, for messages, e.g. "manifest.json".

        Raises:
            EvidenceError: The identity of the run is missing, unreadable or not the one on record.
        """
        self.folder = folder
        self._digests, self._record = digests, record
        self.identity = self.required(RunIdentity)

    @property
    def workspace(self) -> Path:
        """Folder that holds runs/, and so this run."""
        return self.folder.parent.parent

    def paths(self) -> tuple[str, ...]:
        """Every file with a digest, evidence first."""
        return tuple(self._digests)

    def read(self, path: str) -> bytes | None:
        """A listed file's bytes; None when it is not listed.

        Raises:
            EvidenceError: It is missing or not the one on record.
        """
        if path not in self._digests:
            return None
        if not is_safe_path(path):
            raise EvidenceError(
                f"{self.folder / self._record}: {path!a} is no path in the run folder"
            )
        measure(self.folder, path)  # a regular file that can be read
        data = (self.folder / path).read_bytes()
        found = sha256_bytes(data)
        if found != self._digests[path]:
            raise EvidenceTamperedError(
                self.folder / path, expected=self._digests[path], found=found
            )
        return data

    def document(self, kind: type[_D]) -> _D | None:
        """A document of the run; None when the run has none; errors as in `read`."""
        name = next(name for name, known in DOCUMENTS.items() if known is kind)
        data = self.read(name)
        return None if data is None else self._parse(name, data, kind)

    def required(self, kind: type[_D]) -> _D:
        """A document that every run has; EvidenceError when it is not there."""
        document = self.document(kind)
        if document is None:
            name = next(name for name, known in DOCUMENTS.items() if known is kind)
            raise EvidenceError(
                f"{self.folder}: {self._record} lists no {name}; restore the folder"
            )
        return document

    def records(self) -> dict[str, ItemRecord]:
        """Every item's record, by id; errors as in `read`."""
        found = {}
        for path in self._digests:
            if path.startswith("records/") and path.endswith(".json"):
                record = self._parse(path, self.read(path) or b"", ItemRecord)
                found[record.id] = record
        return found

    def config(self) -> dict[str, Any]:
        """Keys and values of the configuration, as nested sections; errors as in `read`."""
        data = self.read(CONFIG) or b""
        return read_yaml(data, str(self.folder / CONFIG), may_be_empty=True).content

    def flat_config(self) -> dict[str, Any]:
        """Every value of the configuration by its dotted key; errors as in `read`."""
        return flatten(self.config())

    def _parse(self, path: str, data: bytes, kind: type[_M]) -> _M:
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"])) or "the file"
            raise EvidenceError(
                f"{self.folder / path}: {where}: {fault['msg'][:120]}; {self._advice()}"
            ) from error

    def _advice(self) -> str:
        return "rerun the step that wrote it"


class FinishedRun(RunFiles):
    """What a closed run folder says, read from its files alone.

    Attributes:
        manifest: Every file with its digest.
    """

    def __init__(self, folder: Path) -> None:
        """Open a run folder.

        Raises:
            ConfigError: It is no run folder, or the run did not come to its end.
            EvidenceError: The manifest is damaged or is not that of the files it lists.
        """
        if not (folder / JOURNAL).is_file() and not (folder / MANIFEST).is_file():
            raise ConfigError(
                f"{folder}: not a run folder; expected {JOURNAL} and {MANIFEST} in it"
            )
        if not is_ended(folder):
            raise ConfigError(
                f"{folder.name}: this run did not come to its end; "
                f"wait for it, or go on with medisynth-gov run --resume {folder.name}"
            )
        self.manifest = read_manifest(folder)
        if evidence_root(self.manifest.evidence) != self.manifest.evidence_root:
            raise EvidenceError(
                f"{folder / MANIFEST}: its evidence root is not that of the files it lists; "
                "restore the file"
            )
        files = (*self.manifest.evidence, *self.manifest.outputs)
        super().__init__(folder, {file.path: file.sha256 for file in files}, MANIFEST)

    def _advice(self) -> str:
        return f"the run was made by version {self.manifest.tool_version}: use that version"


def is_ended(run_dir: Path) -> bool:
    """Whether a run came to its end: its manifest is there, and card and reports are listed."""
    try:
        return {*OUTPUTS} <= {file.path for file in read_manifest(run_dir).outputs}
    except EvidenceError:
        # A manifest that is there but damaged is a fault to be named, not a run cut short.
        return (run_dir / MANIFEST).exists()


def model_name(record: TrainingRecord) -> str:
    """Plain name of the generator.

    One that the configuration names as "package.module:Class" has its own name in the file of its
    checkpoint, "<name>-<digest>.safetensors".
    """
    if ":" not in record.generator:
        return record.generator
    stem = PurePosixPath(record.checkpoint_path).stem
    return stem.removesuffix(f"-{record.checkpoint_sha256[:12]}")
