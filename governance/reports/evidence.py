"""Evidence as reports read it: only files on the manifest, and only if their digest matches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from governance.evidence.folder import D, RunFolder
from governance.records.base import document_kinds
from governance.records.dataset import DatasetIdentity
from governance.records.errors import EvidenceError
from governance.records.item import ItemRecord
from governance.records.manifest import Manifest
from governance.records.policy import Policy
from governance.records.rollup import RollUp
from governance.records.run import Figures, Plan, RunIdentity

_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
_LARGEST_PICTURE_PIXELS = 25_000_000


@dataclass(frozen=True)
class PictureFile:
    """A picture of the run folder: its bytes, media type and size in pixels."""

    data: bytes
    media_type: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Evidence:
    """The evidence from which reports, and the pages on a data set, are written.

    Attributes:
        documents: Documents of the run; `get` reads them.
        policy: Policy that was in force; None when neither plan nor caller gave one.
        records: Item records by item id.
        pictures: Picture files by path.
    """

    documents: RunFolder
    policy: Policy | None
    records: Mapping[str, ItemRecord]
    pictures: Mapping[str, PictureFile]

    def get(self, kind: type[D]) -> D | None:
        """Return the document of a kind; None when the step that writes it did not run."""
        return self.documents.get(kind)

    @property
    def unit(self) -> str:
        """Unit of counting and splitting: "patient", or what the data set records instead."""
        dataset = self.get(DatasetIdentity)
        return dataset.split_unit if dataset else "patient"


@dataclass(frozen=True)
class ReportEvidence(Evidence):
    """The evidence of a run from which card and report are written.

    Attributes:
        manifest: Files, digests, evidence root and journal head.
        summary: Statuses and gate.
    """

    manifest: Manifest
    summary: RollUp

    @property
    def run(self) -> RunIdentity:
        """Identity of the run."""
        return self.get(RunIdentity) or self.documents.identity

    @property
    def digests(self) -> Mapping[str, str]:
        """SHA-256 of every file on record by path."""
        return self.documents.digests


def load_evidence(run_dir: Path, policy: Policy | None = None) -> ReportEvidence:
    """Read a run's evidence through its manifest, every document at once.

    Args:
        run_dir: Run folder that holds manifest.json.
        policy: Policy to use when the run was stopped before it froze one in plan.json.

    Raises:
        EvidenceTamperedError: A file's digest differs from the manifest's.
        EvidenceError: A listed file is missing, unreadable or does not fit its kind.
    """
    folder = RunFolder.closed(run_dir)
    for kind in document_kinds().values():
        folder.get(kind)
    return _read(folder, folder.manifest, folder.need(RollUp), folder.records(), policy)


def draft_evidence(
    folder: RunFolder,
    manifest: Manifest,
    *,
    summary: RollUp,
    records: Sequence[ItemRecord],
    policy: Policy,
) -> ReportEvidence:
    """Read the evidence of a run that is not closed yet, for a draft of card and report.

    Args:
        folder: The run folder, as far as it is on record.
        manifest: A provisional manifest; its root and journal head are not final.
        summary: Roll-up so far.
        records: Item records so far.
        policy: Policy to use when the run was stopped before it froze one.

    Raises:
        EvidenceError: A picture or the policy cannot be used; other files are read when
            the draft asks for them.
    """
    return _read(folder, manifest, summary, {record.id: record for record in records}, policy)


def _read(
    folder: RunFolder,
    manifest: Manifest,
    summary: RollUp,
    records: Mapping[str, ItemRecord],
    policy: Policy | None,
) -> ReportEvidence:
    return ReportEvidence(
        documents=folder,
        policy=_policy(folder) or policy,
        records=records,
        pictures=read_pictures(folder),
        manifest=manifest,
        summary=summary,
    )


def _policy(folder: RunFolder) -> Policy | None:
    plan = folder.get(Plan)
    if plan is None:
        return None
    try:
        return Policy.model_validate(plan.policy)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "policy"
        raise EvidenceError(
            f"{folder.path / plan.PATH}: not a readable policy: {where}: {fault['msg']}"
        ) from error


def read_pictures(folder: RunFolder) -> dict[str, PictureFile]:
    """Return the pictures that a run lists, by path.

    Raises:
        EvidenceError: A file is not on record, or not a readable PNG or JPEG picture.
    """
    figures = folder.get(Figures)
    pictures = {}
    for figure in figures.figures if figures else ():
        data = folder.read(figure.path)
        if data is None:
            raise EvidenceError(
                f"{folder.path / Figures.PATH}: {figure.path!r} is not in manifest.json"
            )
        pictures[figure.path] = _picture(folder.path / figure.path, data)
    return pictures


def _picture(path: Path, data: bytes) -> PictureFile:
    try:
        with Image.open(BytesIO(data), formats=list(_MEDIA_TYPES)) as image:
            width, height, kind = image.width, image.height, image.format or ""
            if width * height > _LARGEST_PICTURE_PIXELS:
                raise EvidenceError(
                    f"{path}: {width} x {height} pixels, at most {_LARGEST_PICTURE_PIXELS:,}"
                )
            image.load()
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
    ) as error:
        raise EvidenceError(f"{path}: not a readable PNG or JPEG picture ({error})") from error
    return PictureFile(data, _MEDIA_TYPES[kind], width, height)
