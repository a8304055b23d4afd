"""Trains the toy GAN in the processes that torchrun started, to the end and up to a stop.

Argument: folder; every process writes found-RANK.json and final-RANK there.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from governance.records.errors import MedisynthGovError
from medisynth import checkpoint
from medisynth.generator import StageState, StoppedError, TrainingContext
from medisynth.training.loop import gather_state, train, workers
from medisynth.training.states import StateFolder
from tests.medisynth.training.kill_training import write_through
from tests.medisynth.training.toy_gan import ToyGan

N_STEPS = 20
STOP_STEP = 5


class Seen:
    """What one process was told while it trained."""

    def __init__(self, folder, should_stop):
        self.logged, self.committed, self.n_previews, self.n_progress = [], [], 0, 0
        self.context = TrainingContext(
            seed=3,
            compute_device="cpu",
            log=lambda _, step, values: self.logged.append([step, dict(values)]),
            progress=self._progress,
            should_stop=should_stop,
            states=StateFolder(
                folder,
                generator="toy",
                committed={},
                on_commit=lambda _, step, *__: self.committed.append(step),
                write=write_through,
            ),
            commit_every=10,
            preview=self._preview,
            preview_every=10,
        )

    def _progress(self, *_):
        self.n_progress += 1

    def _preview(self, *_):
        self.n_previews += 1


class UnequalStates:
    """Process 0 finds a state, process 1 does not: their folders are not the same."""

    def __init__(self):
        self.context = replace(Seen(Path("unused"), lambda: False).context, states=self)

    def latest(self, stage):
        return StageState(stage, 1, {}, {}) if workers().is_main else None


def alone_step(stage):
    """A step that forgets that there are other processes."""
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([weight])
    stage.state = lambda: (gather_state({}, {"adamw": optimiser}), {})

    def step(_):
        (weight * (1 + workers().rank)).sum().backward()
        optimiser.step()
        return {}

    return step


def refusal(stage, seen):
    """What training says when it must not go on."""
    try:
        train(stage, seen.context, evaluate_every=10)
    except MedisynthGovError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main():
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    rank = workers().rank

    stage, seen = ToyGan(N_STEPS, accumulate=2), Seen(folder / "states", lambda: False)
    trained = train(stage, seen.context, evaluate_every=10)
    write_through(folder / f"final-{rank}", checkpoint.encode(stage.state()[0], {}))

    other = ToyGan(N_STEPS)  # process 1 alone is asked to stop
    stopping = Seen(folder / "stopped", lambda: rank == 1 and other.n_images >= 4 * STOP_STEP)
    stopped = ""
    try:
        train(other, stopping.context, evaluate_every=10)
    except StoppedError as error:
        stopped = str(error)
    alone = ToyGan(2)  # makes its updates without the others
    alone.step = alone_step(alone)
    found = {
        "refused_alone": refusal(alone, Seen(folder / "alone", lambda: False)),
        "refused_unequal": refusal(ToyGan(2), UnequalStates()),
        "all_equal": [workers().all_equal(7), workers().all_equal(rank)],
        "n_processes": trained.n_processes,
        "n_images": stage.n_images,
        "logged": seen.logged,
        "committed": seen.committed,
        "n_previews": seen.n_previews,
        "n_progress": seen.n_progress,
        "stopped": stopped,
        "committed_at_stop": stopping.committed,
    }
    write_through(folder / f"found-{rank}.json", json.dumps(found).encode())


if __name__ == "__main__":
    main()
