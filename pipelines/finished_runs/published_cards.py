"""Publishes model cards, one folder a model; never overwrites a different file."""

import re
from dataclasses import dataclass
from pathlib import Path

from governance.evidence.folder import RunFolder, model_name
from governance.records.dataset import DatasetIdentity
from governance.records.errors import EvidenceError, PromotionError
from governance.records.files import write_atomic
from governance.records.run import Outcome
from governance.records.training import TrainingRecord
from governance.reports.draw.markdown import markdown_text
from pipelines.finished_runs.verify import verify_all

CARD = "model_card.md"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_FRONT_MATTER = re.compile(r"---\n.*?\n---\n\n?", re.DOTALL)
_FAULTS_SHOWN = 3


@dataclass(frozen=True)
class ReferenceCard:
    """A published card and the evidence behind it.

    Attributes:
        path: The card.
        evidence_root: Root of the run's evidence, as verified now.
        journal_head: Digest of the run's last journal event, as verified now.
        is_new: Whether it was written now; False if the same card was there already.
    """

    path: Path
    evidence_root: str
    journal_head: str
    is_new: bool


def card_folder(run: RunFolder) -> str:
    """Return the name of the run's model, which names its folder among published cards.

    Raises:
        PromotionError: The run has no trained model, or its name cannot be a folder's.
    """
    record = run.get(TrainingRecord)
    if record is None:
        raise PromotionError(f"{run.path.name}: has no trained model; name a run that has one")
    name = model_name(record)
    if not _NAME.fullmatch(name):
        raise PromotionError(
            f"{run.path.name}: {name[:80]!a} cannot name a model; "
            "expected letters, digits, '.', '_' and '-'"
        )
    return name


def refuse_other_card(path: Path, card: bytes, run: RunFolder) -> None:
    """Raise EvidenceError when a different file is in the card's place."""
    if path.exists() and path.read_bytes() != card:
        raise EvidenceError(
            f"{path}: is not the card of run {run.path.name}; move it away and try again"
        )


def publish_card(path: Path, card: bytes, run: RunFolder) -> None:
    """Write a card; errors as in `refuse_other_card`."""
    refuse_other_card(path, card, run)
    write_atomic(path, card)


def publish_reference_card(run_dir: Path, folder: Path) -> ReferenceCard:
    """Verify a run and publish its card as `<folder>/<model>/<run id>.md`.

    One paragraph is added before the card's text: it is a reference run, of which preset and data,
    and its images are not for diagnosis.

    Args:
        run_dir: The run folder.
        folder: Folder of published cards.

    Raises:
        ConfigError: It is no finished run.
        EvidenceError: It does not verify, or another card lies there.
        PromotionError: It did not finish, or has no trained model.
        RecordWriteError: The card cannot be written.
    """
    run = RunFolder.finished(run_dir)
    verified = verify_all(run_dir)
    if verified.faults:
        named = "; ".join(verified.faults[:_FAULTS_SHOWN])
        raise EvidenceError(
            f"{run_dir.name}: does not verify ({named}), so its card is not published; "
            "restore the run folder"
        )
    outcome = run.need(Outcome)
    if outcome.status != "finished":
        raise PromotionError(
            f"{run_dir.name}: was {outcome.status} at {outcome.stopped_at}, so it is no reference; "
            "name a run that finished"
        )
    card = _with_paragraph((run.read(CARD) or b"").decode("utf-8"), _paragraph(run)).encode()
    path = folder / card_folder(run) / f"{run.identity.run_id}.md"
    is_new = not path.exists()
    publish_card(path, card, run)
    return ReferenceCard(path, verified.run.evidence_root, verified.run.journal_head, is_new)


def _paragraph(run: RunFolder) -> str:
    data, identity = run.get(DatasetIdentity), run.identity
    title = markdown_text(data.title if data else "unknown data")
    kind = "simulated" if data and data.is_simulated else "real"
    return (
        "**Reference run**, shown for what its preset reaches; this is no promotion: preset "
        f"{markdown_text(identity.preset)}, generator {markdown_text(identity.generator)}, "
        f"trained on {title} ({kind} images). The images it draws are synthetic and not for "
        "diagnosis. Evidence root "
        f"`{run.manifest.evidence_root}`.\n\n"
    )


def _with_paragraph(card: str, paragraph: str) -> str:
    """Insert the paragraph before the text but after the YAML front matter, which must be first."""
    matter = _FRONT_MATTER.match(card)
    place = matter.end() if matter else 0
    return card[:place] + paragraph + card[place:]
