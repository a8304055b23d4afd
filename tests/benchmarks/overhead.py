"""What governance costs a run: all its time but decoding, training, sampling and features.

    python -m tests.benchmarks.overhead RUN [--wall-s SECONDS]

RUN is the folder of a finished run that nothing interrupted; everything is read from its own
records. Without --wall-s the run counts from `started_utc` until its manifest had all outputs:
imports before it and the rest of the mirror after it are missing, so for a figure to report measure
the command as a whole, e.g. with `time`, and give its seconds.

Work is what a run without governance would do, too: reading and decoding images, training as the
generator timed it (with the scores of its candidates), drawing synthetic images, and features of
the metrics. Simulating phantoms is making data; it is shown and left out on both sides. Everything
else counts as overhead, also what is none: imports of torch in two processes, the metrics' numbers
and intervals, figures.
"""

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from governance.evidence.journal import read_journal


def read(run_dir: Path, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run_dir / name).read_bytes())
    return value


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def work(run_dir: Path) -> dict[str, tuple[str, float]]:
    """Kind of work -> the step that it was part of, and seconds."""
    decode_s = read(run_dir, "data/dataset.json")["decode_s"]
    extraction_s = read(run_dir, "metrics/evaluation.json")["extraction_s"]
    if decode_s is None or extraction_s is None:
        raise SystemExit(f"{run_dir}: made before these times were recorded")
    return {
        "decoding": ("s1_ingest", decode_s),
        "training": ("s5_train", read(run_dir, "metrics/training.json")["duration_s"]),
        "sampling": ("s5_train", read(run_dir, "samples/manifest.json")["duration_s"]),
        "features": ("s6_evaluate", extraction_s),
    }


def simulated(run_dir: Path) -> float:
    events = read_journal(run_dir / "journal.jsonl").events
    return sum(e.body["duration_s"] for e in events if e.type == "phantoms simulated")


def parts(run_dir: Path, wall_s: float | None) -> dict[str, float]:
    """Part of the run -> seconds, all together the whole run but the simulation of phantoms."""
    events = read_journal(run_dir / "journal.jsonl").events
    if any(event.type == "run resumed" for event in events):
        raise SystemExit(f"{run_dir}: was interrupted; measure a run that went through")
    outcome, started = read(run_dir, "outcome.json"), read(run_dir, "run.json")["started_utc"]
    first = next(event for event in events if event.type == "step started")
    closed = moment(events[-1].time_utc)
    found = {"start": moment(first.time_utc) - moment(started)}
    found |= {step["step"]: step["duration_s"] for step in outcome["steps"]}
    found["s1_ingest"] -= simulated(run_dir)
    last = next(e for e in reversed(events) if e.type.startswith("step "))
    found["s7_evidence"] = closed - moment(last.time_utc)
    found["s8_report"] = (run_dir / "manifest.json").stat().st_mtime - closed
    if wall_s is not None:
        named = "imports before, mirror after, between the steps"
        found[named] = wall_s - sum(found.values()) - simulated(run_dir)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--wall-s", type=float, help="seconds of the whole command")
    given = parser.parse_args()
    did, spent = work(given.run), parts(given.run, given.wall_s)
    whole_s = sum(spent.values())
    for _, (step, seconds) in did.items():
        spent[step] -= seconds
    print(f"{'work':<48}{'s':>8}")
    for name, (step, seconds) in did.items():
        print(f"{name + ' (' + step + ')':<48}{seconds:8.1f}")
    print(f"{'everything else':<48}{'s':>8}{'% of the run':>14}")
    for name, seconds in spent.items():
        print(f"{name:<48}{seconds:8.1f}{100 * seconds / whole_s:14.2f}")
    overhead_s = sum(spent.values())
    print(f"{'together':<48}{overhead_s:8.1f}{100 * overhead_s / whole_s:14.2f}")
    print(f"whole run {whole_s:.1f} s; simulating phantoms, left out: {simulated(given.run):.1f} s")


if __name__ == "__main__":
    main()
