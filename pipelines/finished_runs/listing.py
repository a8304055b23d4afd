"""The runs of a workspace, newest first, each in one line; and where a digest occurs in them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pandas as pd

from governance.evidence.folder import RunFolder, is_ended, model_name
from governance.evidence.manifest import JOURNAL
from governance.records.dataset import DatasetIdentity
from governance.records.errors import ConfigError, EvidenceError, NotRunError, first_line
from governance.records.evaluation import EvaluationRecord
from governance.records.rollup import RollUp
from governance.records.run import Outcome, RunIdentity
from governance.records.training import TrainingRecord
from governance.verdict.boxes import QUALITY
from governance.verdict.headline import headline, kid_of
from governance.verify.folder import SEAL_LEAVES
from pipelines.current_run.context import IMAGE_TABLE
from pipelines.finished_runs.promotions import aliases_of

LEAST_DIGITS = 8  # of a digest, to look it up
_MOST_LOOKED_AT = 20
_HEX = re.compile(rf"[0-9a-f]{{{LEAST_DIGITS},64}}")
_TITLES = (
    "run",
    "state",
    "generator",
    "preset",
    "data",
    "gate",
    "KID",
    "min",
    "stage",
    "images, or why not",
)


@dataclass(frozen=True)
class RunLine:
    """One run of a workspace.

    Attributes:
        run_id: Id of the run.
        state: "finished", "blocked", "failed", "interrupted", "not ended" or "unreadable".
        generator: Plain name of the generator; "" where nothing was trained.
        preset: Preset of its configuration.
        data: Title of the data set; "" where it was not read.
        gate: Gate of the verdict, "" before there is one.
        quality: Standing of the images in few words, e.g. "not acceptable".
        kid: KID to held-out images; None where it was not measured.
        duration_s: Seconds that the run took; None before its end.
        stages: Stages that it holds, e.g. ("released",).
        note: What stopped it, or why it cannot be read; "" for neither.
    """

    run_id: str
    state: str
    generator: str = ""
    preset: str = ""
    data: str = ""
    gate: str = ""
    quality: str = ""
    kid: float | None = None
    duration_s: float | None = None
    stages: tuple[str, ...] = ()
    note: str = ""


def list_runs(workspace: Path) -> tuple[RunLine, ...]:
    """Return every run of a workspace, newest first; one that cannot be read says why.

    Raises:
        ConfigError: The workspace is no folder.
    """
    return tuple(_line(folder) for folder in run_folders(workspace))


def run_folders(workspace: Path) -> tuple[Path, ...]:
    """Return the folders of the runs of a workspace, newest first.

    Raises:
        ConfigError: The workspace is no folder.
    """
    if not workspace.is_dir():
        raise ConfigError(f"--workspace: {workspace}: no such folder")
    runs = workspace.resolve() / "runs"
    there = sorted(runs.iterdir(), reverse=True) if runs.is_dir() else []
    return tuple(folder for folder in there if (folder / JOURNAL).is_file())


def _line(path: Path) -> RunLine:
    try:
        if not is_ended(path):
            identity = RunIdentity.model_validate_json((path / RunIdentity.PATH).read_bytes())
            return RunLine(path.name, "not ended", identity.generator, identity.preset)
        return _finished(RunFolder.finished(path))
    except (EvidenceError, NotRunError, OSError, ValueError) as error:
        return RunLine(path.name, "unreadable", note=first_line(error))


def _finished(folder: RunFolder) -> RunLine:
    identity, outcome = folder.identity, folder.need(Outcome)
    data, training = folder.get(DatasetIdentity), folder.get(TrainingRecord)
    kid = kid_of(folder.get(EvaluationRecord))
    boxes = headline(folder).boxes if outcome.status == "finished" else ()
    quality = [box.words for box in boxes if box.title == QUALITY]
    held = aliases_of(folder.workspace, folder.path.name)
    return RunLine(
        run_id=folder.path.name,
        state=outcome.status,
        generator=model_name(training) if training else identity.generator,
        preset=identity.preset,
        data=data.title if data else "",
        gate=folder.need(RollUp).gate.value,
        quality=quality[0] if quality else "",
        kid=kid.value if kid else None,
        duration_s=outcome.duration_s,
        stages=tuple(line.to for line in held),
        note=outcome.message,
    )


def duration_of_one_like(workspace: Path, preset: str, generator: str) -> float | None:
    """Return the seconds that the newest finished run of a preset and generator took; None if none.

    Only the newest `_MOST_LOOKED_AT` runs are looked at.
    """
    for path in run_folders(workspace)[:_MOST_LOOKED_AT]:
        try:
            folder = RunFolder.finished(path)
            identity, outcome = folder.identity, folder.need(Outcome)
        except (ConfigError, EvidenceError, NotRunError):
            continue
        is_like = (identity.preset, identity.generator) == (preset, generator)
        if is_like and outcome.status == "finished":
            return outcome.duration_s
    return None


def as_table(lines: Sequence[RunLine]) -> str:
    """Return the runs as aligned text with a line of titles."""
    rows = [_TITLES, *(_cells(line) for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES) - 1)]
    return "\n".join(
        "  ".join(
            [*(text.ljust(w) for text, w in zip(row, widths, strict=False)), row[-1]]
        ).rstrip()
        for row in rows
    )


def _cells(line: RunLine) -> tuple[str, ...]:
    minutes = "" if line.duration_s is None else f"{line.duration_s / 60:.1f}"
    verdict = line.quality if line.state == "finished" else line.note
    return (
        line.run_id,
        line.state,
        line.generator,
        line.preset,
        _cut(line.data, 28),
        line.gate,
        "" if line.kid is None else f"{line.kid:.3f}",
        minutes,
        ", ".join(line.stages),
        _cut(verdict, 60),
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


@dataclass(frozen=True)
class DigestPlace:
    """One place where a digest stands: a run, and what has that digest there."""

    run_id: str
    what: str


def find_digest(workspace: Path, digest: str) -> tuple[tuple[DigestPlace, ...], int]:
    """Return where a digest stands on record in the runs of a workspace, newest run first.

    Files, evidence roots, journal heads, and images of data sets (by file or by pixels) count. Also
    returns how many runs could not be searched, as they have not ended or are damaged.

    Args:
        workspace: Folder that holds runs/.
        digest: SHA-256, or its first hexadecimal digits, at least `LEAST_DIGITS`.

    Raises:
        ConfigError: The digest is none, or the workspace is no folder.
    """
    wanted = digest.strip().lower().removeprefix("sha256:")
    if not _HEX.fullmatch(wanted):
        raise ConfigError(
            f"--digest {digest[:80]!a}: expected {LEAST_DIGITS} to 64 hexadecimal digits, the "
            "SHA-256 of a file or image as a report prints it"
        )
    places: list[DigestPlace] = []
    n_unread = 0
    for path in run_folders(workspace):
        try:
            folder = RunFolder.finished(path)
            places += [DigestPlace(path.name, what) for what in _with_digest(folder, wanted)]
        except (ConfigError, EvidenceError, OSError, ValueError):
            n_unread += 1
    return tuple(places), n_unread


def _with_digest(folder: RunFolder, wanted: str) -> Iterator[str]:
    manifest = folder.manifest
    if manifest.evidence_root.startswith(wanted):
        yield "evidence root"
    if manifest.journal_head.startswith(wanted):
        yield "journal head"
    for path, digest in folder.digests.items():
        if digest.startswith(wanted):
            yield path
    table = folder.read(IMAGE_TABLE)
    if table is None:
        return
    images = pd.read_parquet(BytesIO(table), columns=["image_id", "file_sha256", "pixel_sha256"])
    sealed = folder.read(SEAL_LEAVES) or b""
    for column, kind in (("file_sha256", "image"), ("pixel_sha256", "pixels of image")):
        for row in images[images[column].str.startswith(wanted)].itertuples():
            is_sealed = str(row.file_sha256).encode() in sealed
            where = "held-out test set" if is_sealed else "not in the held-out test set"
            yield f"{kind} {row.image_id} ({where})"
