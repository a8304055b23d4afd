"""Finished run folders with card and reports, for tests of what is done with such runs."""

import atexit
import shutil
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from governance.records.people import WaiverLine
from governance.signing.keys import RunSigner, load_signer, make_key_pair
from pipelines.steps import s8_report
from tests.stored_run.stored import RUN_ID, Variant, write_run

NO_TRACKING = b"preset: laptop\nseed: 7\ntracking:\n  enabled: false\n"


def finished(workspace: Path, **example: Any) -> Path:
    """A run folder in a workspace; rendered once for each kind of run, then copied."""
    wanted = Variant(**{"config": NO_TRACKING, **example})
    return Path(shutil.copytree(_built(wanted), workspace / "runs" / wanted.run_id))


def releasable(workspace: Path, **example: Any) -> Path:
    """A signed run folder of which all that a release asks for holds."""
    return finished(
        workspace, releasable=True, signing=_signer().record.model_dump_json(), **example
    )


@cache
def _signer() -> RunSigner:
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return load_signer(str(make_key_pair(folder / "keys").private_key))


@cache
def _built(example: Variant) -> Path:
    folder = Path(mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run_dir = write_run(folder / "runs", example)
    s8_report.write_report(run_dir, _signer() if example.signing else None)
    return run_dir


def waiver(today: date, days_left: int = 30) -> WaiverLine:
    """A waiver of the data set's pin that was in force when the run was judged."""
    return WaiverLine(
        item_id="P5-01",
        title="Data set pinned",
        author="Ada Beispiel",
        reason="The phantoms are drawn anew.",
        expires=today + timedelta(days=days_left),
        state="in force",
        effect="the gate does not ask for it; the item stays not evaluated",
    )


__all__ = ["NO_TRACKING", "RUN_ID", "finished", "releasable", "waiver"]
