"""Trains in children that are killed at random moments; prints what was found as JSON.

Arguments: folder, kills, seed of the moments, steps, and what is trained: "toy", "dsr-gan" or
"tb-gan", the latter two as they are but tiny. Children are forked, so that one hundred kills pay for
one start of the interpreter; the kill is SIGKILL all the same.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.registry import load_generator
from medisynth.training.loop import TIMING_CURVES, train
from medisynth.training.states import StateFolder
from tests.medisynth.training.toy_gan import ToyGan

COMMIT_EVERY = 3
EVALUATE_EVERY = 7


def write_through(path, data):
    """Temporary file, sync, move, sync of the folder."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def journalled(folder):
    """Lines (stage, step, file name, sha256) of the journal; a torn last line does not count."""
    path = folder / "journal"
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def toy(context, n_steps):
    """Train the toy GAN; everything that training changes."""
    stage = ToyGan(n_steps)
    train(stage, context, evaluate_every=EVALUATE_EVERY)
    tensors, facts = stage.state()
    return checkpoint.encode(tensors, {"facts": json.dumps(facts)})


def generator(name, stages, settings_of):
    """Fit a whole generator: its checkpoint, and both networks, average and optimisers of each stage."""

    def fit(context, n_steps):
        kind = load_generator(name)
        model = kind(kind.Settings.model_validate(settings_of(n_steps)))
        model.fit(view("training", 12), view("tuning", 6), context)
        tensors = dict(model.state())
        for stage in stages:
            state = context.states.latest(stage).tensors
            tensors |= {f"{stage}/{key}": value for key, value in state.items()}
        return checkpoint.encode(tensors, {"generator": name})

    return fit


def view(partition, n):
    """Discs on black that differ in place and brightness."""
    random = np.random.default_rng([n])
    rows, columns = np.mgrid[:32, :32]
    middles, greys = random.uniform(12, 20, (n, 2)), random.integers(80, 250, n)
    pixels = np.stack(
        [
            np.where((rows - a) ** 2 + (columns - b) ** 2 < 64, grey, 0).astype(np.uint8)
            for (a, b), grey in zip(middles, greys, strict=True)
        ]
    )
    names = tuple(f"{partition}-{i}" for i in range(n))
    return ImageView(partition, pixels, names, names, ("",) * n, ("",) * n)


def dsr_gan(n_steps):
    return {
        "precision": "fp32",
        "selection_every": 7,
        "diffusion": {
            "size": 16,
            "unshuffle": 2,
            "channels": [16, 16],
            "steps": n_steps,
            "warm_up_steps": 2,
            "batch_size": 4,
            "sampler_steps": 4,
        },
        "super_resolution": {
            "to": 32,
            "channels": 8,
            "blocks": 1,
            "discriminator_channels": 8,
            "crop": 16,
            "steps": n_steps,
            "batch_size": 4,
        },
    }


def tb_gan(n_steps):
    return {
        "precision": "fp32",
        "size": 32,
        "start": 4,
        "widths": [16, 16],
        "tail_width": 16,
        "style_width": 16,
        "mapping_layers": 1,
        "depth": 2,
        "discriminator_widths": [16, 16, 16],
        "batch_size": 4,
        "warm_up_steps": 3,
        "r1": {"gamma": 1, "every": 4},
        "selection_every": 7,
        "selection_images": 4,
        "schedule": [
            {"name": "first", "steps": n_steps // 2},
            {"name": "second", "steps": n_steps - n_steps // 2},
        ],
    }


SUBJECTS = {
    "toy": toy,
    "dsr-gan": generator("dsr-gan", ("diffusion", "super-resolution"), dsr_gan),
    "tb-gan": generator("tb-gan", ("first", "second"), tb_gan),
}


def child(folder, n_steps, subject):
    """Train from the last committed states to the end; write what came out."""
    committed, steps = {}, {}
    for stage, step, name, digest in journalled(folder):
        committed[stage], steps[stage] = (name, digest), step

    def on_commit(stage, step, name, digest):
        with (folder / "journal").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps([stage, step, name, digest]) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    states = StateFolder(
        folder / "states",
        generator=subject,
        committed=committed,
        on_commit=on_commit,
        write=write_through,
    )
    for stage, step in steps.items():
        found = states.latest(stage)
        if found is None or found.step != step:
            raise SystemExit(f"{stage}: the journal says step {step}, the state says otherwise")
    curves = []

    def log(stage, step, values):
        if not TIMING_CURVES & values.keys():
            curves.append([stage, step, dict(values)])

    context = TrainingContext(
        seed=3,
        compute_device="cpu",
        log=log,
        progress=lambda *_: None,
        should_stop=lambda: False,
        states=states,
        commit_every=COMMIT_EVERY,
    )
    data = SUBJECTS[subject](context, n_steps)
    result = {"final": hashlib.sha256(data).hexdigest(), "curves": curves}
    write_through(folder / "result.json", json.dumps(result).encode())


def attempt(folder, n_steps, subject, n_commits=None, further_s=0.0):
    """Fork a child; kill it `further_s` seconds after its `n_commits`-th commit, unless it ends before.

    Counted in commits, so that a busy machine moves no kill to before the first of them. Returns whether
    the child was killed; without `n_commits` it runs to its end.
    """
    before = len(journalled(folder))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            child(folder, n_steps, subject)
            status = 0
        finally:
            os._exit(status)
    ended, status = 0, 0
    if n_commits is not None:
        while not ended and len(journalled(folder)) < before + n_commits:
            time.sleep(0.001)
            ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            time.sleep(further_s)
            os.kill(pid, signal.SIGKILL)
    if not ended:
        _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the child failed after {len(journalled(folder))} commits")
    return os.WIFSIGNALED(status)


def n_files(run):
    return len(list((run / "states").iterdir()))


def main():
    folder, n_kills, seed, n_steps = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    subject = sys.argv[5] if len(sys.argv) > 5 else "toy"
    torch.set_num_threads(1)
    ToyGan(1).step(0)  # what torch imports at a first step is not paid for in every child
    whole = folder / "whole"
    whole.mkdir()
    started = time.perf_counter()
    attempt(whole, n_steps, subject)
    took_s = time.perf_counter() - started
    expected = json.loads((whole / "result.json").read_bytes())

    n_commits = len(journalled(whole))
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    kills, runs, differing, largest_n_files, steps_killed_at = 0, 0, 0, 0, []
    while kills < n_kills:
        runs += 1
        run = folder / f"run-{runs}"
        run.mkdir()
        while not (run / "result.json").exists():
            last = kills >= n_kills
            after = None if last else moments.randint(0, max(1, n_commits // 3))
            if attempt(run, n_steps, subject, after, moments.uniform(0, took_s / n_commits)):
                kills += 1
                lines = journalled(run)
                steps_killed_at.append(lines[-1][:2] if lines else ())
            if (run / "states").exists():
                largest_n_files = max(largest_n_files, n_files(run))
        differing += json.loads((run / "result.json").read_bytes()) != expected
    found = {
        "kills": kills,
        "runs": runs,
        "differing": differing,
        "largest_n_files": largest_n_files,
        "steps_killed_at": steps_killed_at,
        "n_points": len(expected["curves"]),
        "n_files_left": n_files(run),
        "accelerate_imported": "accelerate" in sys.modules,
        "process_group": torch.distributed.is_initialized(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
