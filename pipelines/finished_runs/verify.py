"""Verifies a run: its folder, its data set's ledger and, on request, its MLflow mirror."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from governance.evidence.folder import CONFIG, RunFolder
from governance.records.errors import ConfigError, EvidenceError, TrackingError
from governance.records.yaml_text import read_yaml
from governance.verify.folder import Verification, verify_run
from governance.verify.ledger import check_openings
from governance.verify.signatures import NOTHING_HELD, Anchors
from pipelines.finished_runs.promotions import PROMOTIONS, aliases_of

NOT_ASKED = "not compared: --mirror compares it"


@dataclass(frozen=True)
class Verified:
    """Result of a verification.

    Attributes:
        run: Result for the run folder by itself.
        ledger: Sentence on the comparison with the ledger.
        mirror: Sentence on the comparison with the MLflow mirror.
        stages: Stages that the run holds in its workspace, one sentence each, and why.
        faults: Every mismatch in folder, ledger, mirror and promotions.
    """

    run: Verification
    ledger: str
    mirror: str
    stages: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON data."""
        run = self.run
        return {
            "run_id": run.run_id,
            "verified": not self.faults,
            "n_files": run.n_files,
            "evidence_root": run.evidence_root,
            "journal_events": run.journal_events,
            "journal_head": run.journal_head,
            "signature": run.signature,
            "time_stamp": run.time_stamp,
            "outputs": run.outputs,
            "ledger": self.ledger,
            "mirror": self.mirror,
            "stages": list(self.stages),
            "faults": list(self.faults),
        }

    @property
    def text(self) -> str:
        """The result as text for the screen, for a run without faults."""
        run = self.run
        return (
            f"OK: {run.n_files:,} files and {run.journal_events:,} journal events are as recorded\n"
            f"evidence root {run.evidence_root}\njournal head  {run.journal_head}\n"
            f"signature     {run.signature}\ntime-stamp    {run.time_stamp}\n"
            f"card, reports {run.outputs}\n"
            f"ledger        {self.ledger}\nMLflow mirror {self.mirror}\n"
            f"not evidence  {', '.join(run.working) or 'nothing'}\n"
            f"promoted to   {'; '.join(self.stages) or 'nothing'}"
        )


def verify_all(
    run_dir: Path,
    anchors: Anchors = NOTHING_HELD,
    *,
    ledger_dir: Path | None = None,
    with_mirror: bool = False,
) -> Verified:
    """Verify a run folder and compare it with ledger and mirror.

    Args:
        run_dir: Folder of the run.
        anchors: Facts about the run held elsewhere, e.g. a key or an evidence root.
        ledger_dir: Folder of the ledgers; None takes the one that the run used.
        with_mirror: Whether to compare with MLflow, which is imported only then.

    Raises:
        ConfigError: `ledger_dir` is no folder.
        EvidenceError: It is no run folder.
        TrackingError: The mirror was asked for and cannot be read, or there is none.
    """
    if ledger_dir is not None and not ledger_dir.is_dir():
        raise ConfigError(f"--ledger: {ledger_dir}: no such folder")
    run = verify_run(run_dir, anchors)
    folders = _ledger_folders(run_dir) if ledger_dir is None else (ledger_dir,)
    ledger = check_openings(run_dir, folders)
    mirror, found = (NOT_ASKED, ()) if not with_mirror else _compare_mirror(run_dir, run)
    stages, broken = _stages(run_dir, run)
    faults = (*run.faults, *ledger.faults, *found, *broken)
    return Verified(run, ledger.words, mirror, stages, faults)


def _stages(run_dir: Path, run: Verification) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the stages that the run holds, and faults: other evidence than was promoted."""
    try:
        held = aliases_of(run_dir.resolve().parent.parent, run_dir.resolve().name)
    except EvidenceError as error:
        return (), (str(error),)
    changed = tuple(
        f"{PROMOTIONS}: promoted to {line.to} with evidence root {line.evidence_root[:12]}, now it "
        f"is {run.evidence_root[:12]}; restore the run folder"
        for line in held
        if run.evidence_root and line.evidence_root != run.evidence_root
    )
    return tuple(line.sentence for line in held), changed


def _ledger_folders(run_dir: Path) -> tuple[Path, ...]:
    """Return where the run's ledger may be: as configured, else in its workspace.

    Only absolute folders of the configuration are used: relative ones began at the folder of the
    command, which is not recorded.
    """
    try:
        config = read_yaml(run_dir / CONFIG, may_be_empty=True, may_hold_credentials=True).content
    except ConfigError:
        config = {}  # already reported as a changed or missing file
    seal = config.get("seal")
    named = seal.get("ledger_dir") if isinstance(seal, dict) else None
    if named is not None:
        folder = Path(str(named)).expanduser()
        return (folder,) if folder.is_absolute() else ()
    workspace = Path(str(config.get("workspace", "."))).expanduser()
    beside = run_dir.resolve().parent.parent / "ledger"
    return (beside, workspace / "ledger") if workspace.is_absolute() else (beside,)


def _compare_mirror(run_dir: Path, run: Verification) -> tuple[str, tuple[str, ...]]:
    if run.faults:
        return "not compared: the run folder itself does not verify", ()
    from pipelines.finished_runs.sync import tracking_config

    finished = RunFolder.finished(run_dir)
    config = tracking_config(finished)
    if not config.enabled:
        raise TrackingError(
            f"{run_dir.name}: has no MLflow mirror, its configuration asks for none "
            "(tracking.enabled); verify it without --mirror"
        )
    from pipelines.tracking.compare import compare_mirror

    return compare_mirror(finished, config)
