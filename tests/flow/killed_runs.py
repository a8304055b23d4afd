"""Whole runs that are killed at random moments and started again; what must hold after every kill.

`python -m tests.flow.killed_runs FOLDER --kills 40 --seed 1` (`--preset` for the whole smoke preset)
prints one line a kill, then the counts. Each process that is started is the next start after the
kill before it, so it shows that this start works, and is killed in its turn: a new run, or the
killed one taken up again. Half of the moments are spread evenly over the time that a whole run
takes; the others over what it writes (bytes of its journal) and over its end, report and mirror, so
that no part is missed on a machine whose speed wanders.
"""

import argparse
import fcntl
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from governance.evidence.chain import check_chain
from governance.evidence.folder import is_ended
from governance.records.files import sha256_file
from governance.sealing.ledger import read_ledgers
from governance.verify.folder import verify_run
from pipelines.finished_runs import sync as outbox
from pipelines.finished_runs.seal import seal_status
from pipelines.finished_runs.sync import is_worked_on
from tests.places import ROOT

TINY = (
    *("-o", "data.phantom={n_patients: 16, image_height_px: 64}"),
    *("--model", "tests.plugins.slow_toy:SlowToy"),
    *("-o", "model.settings={steps: 30, pause_ms: 25, size: 32}", "-o", "training.commit_every=5"),
    *("-o", "training.preview_every=20", "-o", "evaluation.n_synthetic=16"),
    *("-o", "evaluation.extractor=none", "-o", "evaluation.n_bootstrap=50"),
)
FINISHED = (0, 9)  # the gate passed, or an item of it is open
RUNS_A_WORKSPACE = 6  # then a fresh one, so that making the store and the phantoms is killed, too
_CHILDREN_END_S = 20.0


@dataclass
class Victim:
    """One process of ours and what it was asked to do.

    Attributes:
        process: It.
        resumes: Run that it takes up again; None for a new run.
        log: Its standard error.
        known: Run folders that were there before.
    """

    process: "subprocess.Popen[bytes]"
    resumes: str | None
    log: Path
    known: frozenset[str]

    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")


@dataclass
class Count:
    """What was seen.

    Attributes:
        kills: Kills by the step that was under way.
        finished: Processes that came to their end, by what they did.
        torn: Journals whose torn last line was found.
        orphans: Kills after which the training process lived on for a while.
    """

    kills: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    torn: int = 0
    orphans: int = 0

    def __str__(self) -> str:
        by_step = ", ".join(f"{step} {n}" for step, n in sorted(self.kills.items()))
        ends = ", ".join(f"{what} {n}" for what, n in sorted(self.finished.items()))
        return (
            f"{self.kills.total()} kills ({by_step}); {self.orphans} with the training process "
            f"left alive, {self.torn} torn journals; came to their end: {ends}"
        )


class Workspace:
    """A workspace whose runs are killed.

    Attributes:
        folder: It.
        checkpoint: Digest that every finished run's checkpoint must have; empty until known.
    """

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.folder, self._options = folder, options
        self.checkpoint = ""
        self._n_started = 0

    def start(self, resume: str | None = None) -> Victim:
        what = ("--resume", resume) if resume else ("--preset", "smoke", *self._options)
        self._n_started += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"start-{self._n_started}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(  # noqa: S603 - the project's own command
                [sys.executable, "-m", "pipelines.cli.app", "run", *what, "-w", str(self.folder)],
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )
        return Victim(process, resume, log, frozenset(self.runs()))

    def runs(self) -> list[str]:
        folder = self.folder / "runs"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def run_of(self, victim: Victim) -> str | None:
        """The run that a process works or worked on; None when it did not come so far."""
        new = [run for run in self.runs() if run not in victim.known]
        return victim.resumes or (new[0] if new else None)

    def events(self, run: str) -> list[dict[str, object]]:
        path = self.folder / "runs" / run / "journal.jsonl"
        data = path.read_bytes() if path.exists() else b""
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]

    def _journal(self, victim: Victim) -> Path | None:
        run = self.run_of(victim)
        path = self.folder / "runs" / run / "journal.jsonl" if run else None
        return path if path is not None and path.exists() else None

    def journal_bytes(self, victim: Victim) -> int:
        journal = self._journal(victim)
        return journal.stat().st_size if journal else 0

    def is_closed(self, victim: Victim) -> bool:
        journal = self._journal(victim)
        if journal is None:
            return False
        with journal.open("rb") as stream:
            stream.seek(max(0, journal.stat().st_size - 2000))
            last = b"".join(stream.read().splitlines()[-1:])
            return b'"type":"evidence closed"' in last

    def step(self, run: str) -> str:
        """Where a run was, in words."""
        if is_ended(self.folder / "runs" / run):
            return "mirror, exit"
        events = self.events(run)
        if any(event["type"] == "evidence closed" for event in events[-1:]):
            return "report"
        steps = [e["body"]["step"] for e in events if e["type"] == "step started"]  # type: ignore[index]
        done = [e["body"]["step"] for e in events if e["type"] == "step finished"]  # type: ignore[index]
        if "s6_evaluate" in done:
            return "evidence"
        return str(steps[-1]) if steps else "start"

    def may_resume(self, run: str) -> bool:
        done = [e["body"]["step"] for e in self.events(run) if e["type"] == "step finished"]  # type: ignore[index]
        return "s4_split" in done and not is_ended(self.folder / "runs" / run)

    def statuses(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Run -> its status in MLflow and those of its steps."""
        path = self.folder / "mlflow" / "mlflow.db"
        if not path.exists():
            return {}
        with closing(sqlite3.connect(path)) as store:
            tags = store.execute("SELECT run_uuid, key, value FROM tags").fetchall()
            status = dict(store.execute("SELECT run_uuid, status FROM runs").fetchall())
        ours = {uuid: value for uuid, key, value in tags if key == "medisynth.run_id"}
        parent = {uuid: value for uuid, key, value in tags if key == "mlflow.parentRunId"}
        assert len(set(ours.values())) == len(ours), "a run is twice in MLflow"
        return {
            run: (status[uuid], tuple(status[child] for child, of in parent.items() if of == uuid))
            for uuid, run in ours.items()
        }

    # What must hold ----------------------------------------------------------------------------

    def check_record(self, run: str) -> bool:
        """Nothing half-written may pass for a record; return whether the journal has a torn tail."""
        folder = self.folder / "runs" / run
        journal = folder / "journal.jsonl"
        if not journal.exists():
            return False
        faults = check_chain(journal.read_bytes(), "journal").faults
        assert all("torn last line" in fault for fault in faults), faults
        for path, sha256 in self._on_record(run).items():
            self._check_file(folder / path, sha256)
        found = verify_run(folder)
        if is_ended(folder):
            assert found.is_intact, found.faults
        else:
            assert not found.is_intact, f"{run}: cut short, but verified"
            words = " ".join(found.faults)
            said = ("was cut short", "did not come to its end", "does not end with")
            assert any(part in words for part in said), words
        return bool(faults)

    def _on_record(self, run: str) -> dict[str, str]:
        bodies = [e["body"] for e in self.events(run) if e["type"] == "artifact written"]
        return {body["path"]: body["sha256"] for body in bodies}  # type: ignore[index]

    @staticmethod
    def _check_file(path: Path, sha256: str) -> None:
        staged = path.with_name(f".{path.name[:100]}.{sha256[:16]}.part")
        place = staged if staged.exists() else path
        assert sha256_file(place) == sha256, f"{place}: not what is on record"
        if path.suffix == ".json":
            json.loads(place.read_bytes())

    def check_shared(self) -> None:
        """Chains that runs share are whole, and every vault or key that was left is named."""
        if (self.folder / "ledger").is_dir():
            read_ledgers(self.folder / "ledger")
        left = [path for name in ("vault", "keys") for path in (self.folder / name).glob("*")]
        said = seal_status(self.folder).text if left else ""
        for path in left:
            assert path.name in said, f"seal status does not name {path.name}"

    def check_no_lock(self, run: str | None) -> None:
        for path in (self.folder / ".lock", *(self.folder / "data").glob(".lock")):
            if path.exists():
                with path.open() as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if run is not None:
            assert not is_worked_on(self.folder / "runs" / run), f"{run}: a lock is left"

    def check_named(self, victim: Victim, run: str, dead: Sequence[str]) -> None:
        """What the process that started anew said and did of runs that were cut short before."""
        said = victim.said()
        if victim.resumes is None:
            for earlier in [r for r in dead if not is_ended(self.folder / "runs" / r)][-3:]:
                assert f"run {earlier} was cut short" in said, f"{earlier} is not named: {said}"
        for other, (status, steps) in self.statuses().items():
            is_asked = victim.resumes is None or other == run
            if other != run and is_asked:
                assert "RUNNING" not in (status, *steps), f"{other}: {status}, {steps}"

    def check_finished(self, victim: Victim, run: str) -> None:
        assert victim.process.returncode in FINISHED, victim.said()[-2000:]
        folder = self.folder / "runs" / run
        assert verify_run(folder).is_intact, verify_run(folder).faults
        status, steps = self.statuses()[run]
        assert status == "FINISHED", status
        assert set(steps) <= {"FINISHED", "KILLED"}, steps
        # Evidence that was closed before a kill is closed again by the run that goes on.
        assert 8 <= steps.count("FINISHED") <= 8 + steps.count("KILLED"), steps
        assert run not in outbox.waiting(self.folder)
        training = json.loads((folder / "metrics" / "training.json").read_bytes())
        if self.checkpoint:
            assert training["checkpoint_sha256"] == self.checkpoint, "other weights"
        self.checkpoint = training["checkpoint_sha256"]


def kill(victim: Victim, *, all_of_it: bool) -> bool:
    """SIGKILL the run, with its training process or without; return whether that lived on."""
    pid = victim.process.pid
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in listing.read_text().split()] if listing.exists() else []
    os.killpg(pid, signal.SIGKILL)
    victim.process.wait()
    alive = [child for child in children if Path(f"/proc/{child}").exists()]
    for child in alive:
        if all_of_it:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:
                continue
    deadline = time.monotonic() + _CHILDREN_END_S
    while any(Path(f"/proc/{child}").exists() for child in alive):
        assert time.monotonic() < deadline, "the training process does not end by itself"
        time.sleep(0.02)
    return bool(alive) and not all_of_it


@dataclass
class Whole:
    """A run that nothing interrupts.

    Attributes:
        seconds: From its start to its exit.
        end_s: Of these, after its evidence was closed: report and mirror.
        n_bytes: Of its journal.
    """

    seconds: float
    end_s: float
    n_bytes: int


def whole_run(workspace: Workspace) -> Whole:
    started = time.monotonic()
    victim = workspace.start()
    victim.process.wait()
    seconds = time.monotonic() - started
    run = workspace.run_of(victim)
    assert run is not None, victim.said()
    workspace.check_finished(victim, run)
    journal = (workspace.folder / "runs" / run / "journal.jsonl").stat()
    return Whole(seconds, time.time() - journal.st_mtime, journal.st_size)


class Moments:
    """When to kill: each call waits for one moment, or for the end of the process."""

    def __init__(self, rng: random.Random, n: int, whole: Whole) -> None:
        self._rng, self.whole = rng, whole
        self._fractions = self._spread(n)
        self._kinds = itertools.cycle(("time", "journal", "time", "end", "time", "journal"))

    def _spread(self, n: int) -> Iterator[float]:
        """Fractions: one at random in each n-th part, in random order, again and again."""
        while True:
            parts = [(k + self._rng.random()) / n for k in range(n)]
            self._rng.shuffle(parts)
            yield from parts

    def wait(self, workspace: Workspace, victim: Victim) -> str:
        """Wait; returns what was waited for, in words."""
        fraction, kind = next(self._fractions), next(self._kinds)
        if kind == "time":
            seconds = fraction * self.whole.seconds
            with suppress(subprocess.TimeoutExpired):
                victim.process.wait(seconds)
            return f"after {seconds:.1f} s"
        if kind == "journal":
            n_bytes = int(fraction * self.whole.n_bytes)
            self._until(victim, lambda: workspace.journal_bytes(victim) >= n_bytes)
            time.sleep(self._rng.uniform(0, 0.02))
            return f"at byte {n_bytes:,} of the journal"
        self._until(victim, lambda: workspace.is_closed(victim))
        seconds = fraction * self.whole.end_s
        with suppress(subprocess.TimeoutExpired):
            victim.process.wait(seconds)
        return f"{seconds:.1f} s after its evidence was closed"

    @staticmethod
    def _until(victim: Victim, is_so: Callable[[], bool]) -> None:
        while victim.process.poll() is None and not is_so():
            time.sleep(0.005)


def kill_runs(
    folder: Path, n_kills: int, seed: int, options: Sequence[str] = TINY, say=lambda _: None
) -> Count:
    """Kill so many times; AssertionError says which promise was broken."""
    rng, count = random.Random(seed), Count()  # noqa: S311 - moments to kill at
    first = Workspace(folder / "whole", options)
    whole = whole_run(first)
    say(f"a whole run takes {whole.seconds:.1f} s, {whole.end_s:.1f} s of it report and mirror")
    moments, number = Moments(rng, min(n_kills, 25), whole), 0
    while count.kills.total() < n_kills:
        number += 1
        workspace = Workspace(folder / f"ws{number}", options)
        workspace.checkpoint = first.checkpoint
        n = min(RUNS_A_WORKSPACE, n_kills - count.kills.total())
        _kill_in(workspace, n, moments, rng, count, say)
    return count


def _kill_in(workspace: Workspace, n: int, moments: Moments, rng, count: Count, say) -> None:
    dead: list[str] = []
    resume: str | None = None
    before = count.kills.total()
    while count.kills.total() < before + n:
        victim = workspace.start(resume)
        when = moments.wait(workspace, victim)
        if victim.process.poll() is None:
            count.orphans += kill(victim, all_of_it=rng.random() < 0.5)
        run = workspace.run_of(victim)
        was_killed = victim.process.returncode == -signal.SIGKILL
        where = workspace.step(run) if run else "start"
        how = "killed" if was_killed else "ended before it was killed"
        say(f"{'resumed' if resume else 'new':7}  {run}  {how} {when}: {where}")
        _look(workspace, victim, run, dead, count)
        if was_killed:
            count.kills[where] += 1
        resume = None
        if was_killed and run is not None:
            dead = [*[r for r in dead if r != run], run]
            may = workspace.may_resume(run)
            resume = run if may and rng.random() < 0.6 else None
    victim = workspace.start(resume)
    victim.process.wait()
    run = workspace.run_of(victim)
    assert run is not None, victim.said()
    say(f"   to its end     {'resumed' if resume else 'new'}  {run}")
    _look(workspace, victim, run, dead, count)
    _sync_all(workspace, dead)


def _look(workspace: Workspace, victim: Victim, run: str | None, dead, count: Count) -> None:
    """Everything that must hold after a process is gone, however it went."""
    workspace.check_no_lock(run)
    workspace.check_shared()
    if run is None:
        assert victim.process.returncode == -signal.SIGKILL, victim.said()
        return
    count.torn += workspace.check_record(run)
    if any(event["type"] == "plan frozen" for event in workspace.events(run)):
        workspace.check_named(victim, run, dead)
    if victim.process.returncode != -signal.SIGKILL:
        workspace.check_finished(victim, run)
        count.finished["resumed runs" if victim.resumes else "new runs"] += 1


def _sync_all(workspace: Workspace, dead: Sequence[str]) -> None:
    """`sync` leaves nothing waiting, and every run that came to its end says so in MLflow."""
    outbox.sync(workspace.folder, lambda _: None)
    assert outbox.waiting(workspace.folder) == ()
    statuses = workspace.statuses()
    for run in dead:
        if run in statuses:
            ended = is_ended(workspace.folder / "runs" / run)
            assert statuses[run][0] == ("FINISHED" if ended else "KILLED"), (run, statuses[run])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--preset", action="store_true", help="the whole smoke preset")
    given = parser.parse_args()
    options = () if given.preset else TINY
    print(kill_runs(given.folder, given.kills, given.seed, options, lambda t: print(t, flush=True)))  # noqa: T201


if __name__ == "__main__":
    main()
