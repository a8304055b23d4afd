"""A TB-GAN so small that a test may train it, and what watches it."""

import dataclasses
import math

import numpy as np
import torch

from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.conditioning import vocabulary_of
from medisynth.models.tb_gan import TbGan, TbGanSettings
from medisynth.models.tb_gan.networks import new_networks
from medisynth.models.tb_gan.training_stage import AdversarialStage

TINY = {
    "size": 32,
    "start": 4,
    "widths": (16, 16),
    "tail_width": 16,
    "style_width": 16,
    "depth": 1,
    "discriminator_widths": (16, 16, 16),
    "batch_size": 4,
    "precision": "fp32",
    "r1": {"gamma": 1.0, "every": 2},
    "warm_up_steps": 0,
    "selection_every": 2,
    "selection_images": 4,
    "schedule": ({"steps": 4},),
}
# StyleSwin's own kinds of layers, with APA that rises at once, so that resuming needs it.
STYLESWIN = {
    "widths": (16, 16, 16, 16),
    "whole_map_up_to": 0,
    "window": 4,
    "mlp_factor": 4,
    "activation": "gelu",
    "depthwise": False,
    "noise": False,
    "positions": "sinusoidal",
    "equalised": False,
    "modulated_images": False,
    "tail_width": 0,
    "discriminator": "wavelet",
    "loss": "logistic",
    "r1": {"gamma": 1.0, "every": 2, "r2": False},
    "apa": {"target": -1.0, "speed_images": 10},
    "gradient_clip": 5,
    "final_rate_share": 1,
}


class States:
    """Keeps every committed state in memory."""

    def __init__(self):
        self.committed = []

    def latest(self, stage):
        return next((s for s in reversed(self.committed) if s.stage == stage), None)

    def commit(self, state):
        tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
        self.committed.append(dataclasses.replace(state, tensors=tensors))


class Recorder:
    def __init__(self, seed=0, stop_after=math.inf, states=None, score=None):
        self.logged, self.progressed, self.previews = [], [], []
        self.seed, self.stop_after, self.states, self.score = seed, stop_after, states, score

    def context(self):
        return TrainingContext(
            seed=self.seed,
            compute_device="cpu",
            log=lambda stage, step, values: self.logged.append((stage, step, dict(values))),
            progress=lambda stage, done, total: self.progressed.append((stage, done, total)),
            should_stop=lambda: len(self.progressed) >= self.stop_after,
            states=self.states,
            commit_every=2,
            preview=lambda stage, step, images: self.previews.append((stage, step, images)),
            preview_every=4,
            score=self.score,
            score_name="KID",
        )


def settings(**changes):
    return TbGanSettings.model_validate({**TINY, **changes})


def view(n, partition="training", size=32, planes=("",), machines=("",)):
    pixels = np.random.default_rng(n).integers(0, 256, (n, size, size), dtype=np.uint8)
    ids = tuple(str(i) for i in range(n))
    labels = (tuple(names[i % len(names)] for i in range(n)) for names in (planes, machines))
    return ImageView(partition, pixels, ids, ids, *labels)


def fitted(seed=0, states=None, planes=("",), **changes):
    recorder = Recorder(seed, states=states)
    generator = TbGan(settings(**changes))
    views = view(16, planes=planes), view(6, "tuning", planes=planes)
    report = generator.fit(*views, recorder.context())
    return generator, report, recorder


def stage_of(context, training=None, **changes):
    chosen, training = settings(**changes), training or view(16)
    vocabulary = vocabulary_of(training, chosen.conditioning)
    networks = new_networks(chosen, context.seed, "cpu", vocabulary.sizes)
    tuning = view(6, "tuning")
    return AdversarialStage(
        chosen, chosen.schedule[0], training, tuning, context, "fp32", networks, vocabulary
    )


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
