"""Seconds from a stop signal to the end of a run, with its evidence and reports.

    python -m tests.benchmarks.clean_end FOLDER --at TEXT [--delay S] [--preset P] [-o KEY=VALUE]

Sends SIGTERM `--delay` seconds after the first line on the screen that contains TEXT, e.g.
"s2_validate", "isolation level" (training begins) or "opened the sealed" (evaluation begins).
FOLDER is the workspace: data that an earlier run simulated there are not simulated again.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--at", required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("-o", action="append", default=[])
    given = parser.parse_args()
    command = [sys.executable, "-m", "pipelines.cli.app", "run", "--preset", given.preset, "--json"]
    command += ["-w", str(given.folder), *(word for key in given.o for word in ("-o", key))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if given.at in line:
            break
    else:
        raise SystemExit(f"the run ended before it said {given.at!r}")
    time.sleep(given.delay)
    asked = time.monotonic()
    process.terminate()
    out, _ = process.communicate()
    seconds = time.monotonic() - asked
    run_dir = Path(json.loads(out)["run_dir"])
    outcome = json.loads((run_dir / "outcome.json").read_bytes())
    report_s = time.time() - (run_dir / "outcome.json").stat().st_mtime
    print(
        f"{given.preset}, {given.at!r} + {given.delay:g} s: exit {process.returncode} after "
        f"{seconds:.1f} s, {report_s:.1f} s of it evidence, reports and mirror; "
        f"{outcome['status']} at {outcome['stopped_at']}"
    )


if __name__ == "__main__":
    main()
