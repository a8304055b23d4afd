"""What an outage of the tracking server costs a run, and whether anything is lost or doubled.

    python -m tests.benchmarks.tracking_outage FOLDER --case stopped|frozen|end|start

A local MLflow server on PostgreSQL (`tracking_server.py`). A run of some 80 s, most of it asleep in
training, is made twice: with the server up all the time, and with an outage of 60 s:

    stopped   from the start of s2 on the server is gone for 60 s; its port refuses connections
    frozen    the same, but the server hangs: connections are taken and never answered
    end       it is gone from the middle of training until the run has ended
    start     it is gone before the run begins

Then `sync` runs twice. All points on record are counted in the database, by name and step.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.tracking_server import Server, postgres

OUTAGE_S = 60.0
STEPS, PAUSE_MS = 40, 700  # two stages
Places = dict[str, "list[tuple[str, int]]"]


def arguments(workspace: Path, uri: str) -> list[str]:
    toy = f"{{steps: {STEPS}, pause_ms: {PAUSE_MS}, size: 32}}"
    return [
        *("run", "--preset", "smoke", "-w", str(workspace), "-o", f"tracking.uri={uri}"),
        *("--model", "tests.plugins.slow_toy:SlowToy", "-o", f"model.settings={toy}"),
        *("-o", "data.phantom={n_patients: 16, image_height_px: 64}"),
        *("-o", "training.commit_every=5", "-o", "evaluation.n_synthetic=16"),
        *("-o", "evaluation.extractor=none", "-o", "evaluation.n_bootstrap=50"),
    ]


def command(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli.app", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path[1:]])},
    )


def run(workspace: Path, uri: str, at: str, what: Callable[[], None]) -> tuple[float, int, str]:
    """Seconds, exit code and messages of a run; `what` is called when a line begins with `at`."""
    started = time.monotonic()
    process = command(*arguments(workspace, uri))
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if at and line.startswith(at):
            what()
            at = ""
    return time.monotonic() - started, process.wait(), "".join(said)


def outage(server: Server, case: str) -> "threading.Thread":
    """Begin an outage now and end it after 60 s."""

    def back() -> None:
        time.sleep(OUTAGE_S)
        server.thaw() if case == "frozen" else server.start()

    server.freeze() if case == "frozen" else server.stop()
    thread = threading.Thread(target=back)
    thread.start()
    return thread


def on_record(run_dir: Path) -> set[tuple[str, int]]:
    """Name and step of every point that a run's folder holds, as MLflow names them."""
    from pipelines.tracking import metric_name

    training = json.loads((run_dir / "metrics" / "training.json").read_bytes())
    points = {
        (metric_name(f"{curve['stage']}/{curve['name']}"), step)
        for curve in training["curves"]
        for step in curve["steps"]
    }
    evaluation = json.loads((run_dir / "metrics" / "evaluation.json").read_bytes())
    for metric in evaluation["metrics"]:
        if metric["value"] is None:
            continue
        key = " ".join(filter(None, (f"evaluation/{metric['id']}", metric["subgroup"])))
        more = [" ci95 low", " ci95 high"] if metric["ci95"] else []
        more += [" floor"] if metric["floor"] is not None else []
        points |= {(metric_name(key + end), 0) for end in ["", *more]}
    return points


def in_store(store: str, run_id: str) -> str:
    """What the database holds of a run: points lost and doubled, models, data sets, statuses."""
    import sqlalchemy as sa

    engine = sa.create_engine(store)
    with engine.connect() as connection:

        def rows(text: str, **values: str) -> list[tuple[object, ...]]:
            return [tuple(row) for row in connection.execute(sa.text(text), values)]

        parents = rows(
            "SELECT r.run_uuid, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            "WHERE t.key = 'medisynth.run_id' AND t.value = :run AND r.lifecycle_stage = 'active'",
            run=run_id,
        )
        uuid = str(parents[0][0])
        points = rows("SELECT key, step FROM metrics WHERE run_uuid = :u", u=uuid)
        steps = rows(
            "SELECT r.name, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
            "WHERE t.key = 'mlflow.parentRunId' AND t.value = :u AND r.lifecycle_stage = 'active'",
            u=uuid,
        )
        models = rows("SELECT status FROM logged_models WHERE source_run_id = :u", u=uuid)
        data_sets = rows("SELECT destination_id FROM inputs WHERE destination_id = :u", u=uuid)
    engine.dispose()
    return json.dumps(
        {
            "points": points,
            "parent_runs": [status for _, status in parents],
            "steps": sorted(f"{name} {status}" for name, status in steps),
            "models": [status for (status,) in models],
            "data_sets": len(data_sets),
        }
    )


def report(store: str, run_dir: Path) -> str:
    held = json.loads(in_store(store, run_dir.name))
    points = [(str(name), int(step)) for name, step in held.pop("points")]
    wanted = on_record(run_dir)
    doubled = len(points) - len(set(points))
    return (
        f"{len(wanted)} points on record, {len(wanted - set(points))} lost, {doubled} doubled; "
        f"{json.dumps(held)}"
    )


def sync(workspace: Path) -> str:
    """The run is named, so that it is compared and completed anew whether it waits or not."""
    started = time.monotonic()
    process = command("sync", only_run(workspace).name, "-w", str(workspace))
    _, said = process.communicate()
    return f"exit {process.returncode} after {time.monotonic() - started:.1f} s {said.strip()}"


def only_run(workspace: Path) -> Path:
    (found,) = (workspace / "runs").iterdir()
    return found


def measure(folder: Path, case: str, store: str) -> None:
    server = Server(folder, store)
    server.start()
    up_s, code, _ = run(folder / "up", server.uri, "", lambda: None)
    print(f"server up: {up_s:.1f} s, exit {code}; {report(store, only_run(folder / 'up'))}")
    threads: list[threading.Thread] = []
    if case == "end":
        words, what = "  first: ", server.stop
    else:
        words, what = "s2_validate", lambda: threads.append(outage(server, case))
    down_s, code, said = run(folder / "down", server.uri, words, what)
    print(f"server {case}: {down_s:.1f} s, exit {code}, ratio {down_s / up_s:.3f}")
    print("".join(f"  > {line}\n" for line in said.splitlines() if "MLflow" in line), end="")
    for thread in threads:
        thread.join()
    if case == "end":
        print(f"sync while the server is away: {sync(folder / 'down')}")
        server.start()
    for attempt in ("after the run", "after sync", "after a second sync"):
        if attempt != "after the run":
            print(f"sync: {sync(folder / 'down')}")
        try:
            print(f"{attempt}: {report(store, only_run(folder / 'down'))}")
        except IndexError:
            print(f"{attempt}: the store knows nothing of this run")
    server.stop()


def away_from_the_start(folder: Path) -> None:
    server = Server(folder, "")
    seconds, code, said = run(folder / "start", server.uri, "", lambda: None)
    print(f"server away from the start: exit {code} after {seconds:.1f} s: {said.strip()}")
    print(f"run folders: {len(list((folder / 'start' / 'runs').iterdir()))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--case", choices=("stopped", "frozen", "end", "start"), default="stopped")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    folder = given.folder.resolve()
    if given.case == "start":
        away_from_the_start(folder)
        return
    with postgres(folder) as store:
        measure(folder, given.case, store)


if __name__ == "__main__":
    main()
