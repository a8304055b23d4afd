"""A stage of two networks small enough to be trained, killed and resumed hundreds of times."""

import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from medisynth.generator import StageState
from medisynth.training.loop import (
    DiscriminatorGuard,
    Order,
    accumulated_update,
    averaged,
    gather_state,
    in_parts,
    learning_rate,
    restore_state,
    seeded_weights,
    snapshot,
    torch_generator,
    update,
    workers,
)

STAGE = "toy GAN"
SIZE = 4


class ToyGan:
    """Generator, discriminator, moving average, two optimisers, a guard and a kept candidate."""

    name = STAGE

    def __init__(self, n_steps, *, batch_size=8, seed=3, accumulate=1):
        self.n_steps, self.batch_size = n_steps, batch_size
        self.n_images = 0
        self._seed, self._accumulate = seed, accumulate
        generator = torch_generator("cpu", seed, "images")
        self._images = torch.rand(40, 1, SIZE, SIZE, generator=generator)
        self._order = Order(len(self._images), batch_size, seed, STAGE)
        with seeded_weights(seed, STAGE):
            self.generator = nn.Sequential(
                nn.Conv2d(2, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1)
            )
            self.discriminator = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1)
            )
        for network in (self.generator, self.discriminator):
            network.to(memory_format=torch.channels_last)
            workers().wrap(network)
        self.average = averaged(self.generator, 0.9)
        self._optimisers = {
            name: torch.optim.AdamW(network.parameters(), betas=(0.0, 0.99), fused=True)
            for name, network in (("g", self.generator), ("d", self.discriminator))
        }
        self._guard = DiscriminatorGuard(STAGE, window=5)
        self._best, self._candidates = {}, []

    def step(self, step):
        places = self._order.batch(step)
        noise = torch.randn(
            len(places), 2, SIZE, SIZE, generator=torch_generator("cpu", self._seed, "noise", step)
        )
        real = workers().share(self._images[[index for _, index in places]])
        noise = workers().share(noise)
        self.n_images += len(real)
        rate = learning_rate(0.01, step, self.n_steps, 0)
        parts = list(
            zip(in_parts(real, self._accumulate), in_parts(noise, self._accumulate), strict=True)
        )
        values = accumulated_update(
            self._optimisers["d"], parts, self._judge, stage=STAGE, step=step, rate=rate
        )
        values["discriminator gradient norm"] = values.pop("gradient norm")
        self._guard.observe(
            step,
            on_real=values["on real"],
            on_synthetic=values["on synthetic"],
            loss=values["discriminator loss"],
        )
        self.discriminator.requires_grad_(False)
        loss = -self.discriminator(self.generator(noise)).mean()
        values |= update(
            self._optimisers["g"], {"loss": loss}, loss, stage=STAGE, step=step, rate=rate
        )
        self.discriminator.requires_grad_(True)
        self.average.update_parameters(self.generator)
        return values | {"learning rate": rate}

    def _judge(self, part):
        real, noise = part
        on_real = self.discriminator(real)
        on_synthetic = self.discriminator(self.generator(noise).detach())
        loss = functional.relu(1 - on_real).mean() + functional.relu(1 + on_synthetic).mean()
        numbers = {"on real": on_real.mean(), "on synthetic": on_synthetic.mean()}
        return {"discriminator loss": loss, **numbers}, loss

    @torch.no_grad()
    def _samples(self):
        noise = torch.randn(4, 2, SIZE, SIZE, generator=torch_generator("cpu", self._seed, "look"))
        return self.average.module(noise)

    def evaluate(self, step):
        score = float((self._samples().mean() - self._images.mean()).abs())
        if not self._candidates or score < min(score for _, score in self._candidates):
            self._best = snapshot(self.average.module)
        self._candidates.append((step, score))
        return {"score": score}

    def preview(self):
        return (255 * self._samples().squeeze(1).clamp(0, 1)).to(torch.uint8).numpy()

    def _modules(self):
        return {"g": self.generator, "d": self.discriminator, "average": self.average}

    def state(self):
        tensors = gather_state(self._modules(), self._optimisers)
        tensors |= {f"best/{name}": value for name, value in self._best.items()}
        facts = {"candidates": self._candidates, "guard": self._guard.facts()}
        return tensors, facts

    def load_state(self, tensors, facts):
        restore_state(self._modules(), self._optimisers, tensors)
        prefix = "best/"
        self._best = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        self._candidates = [tuple(candidate) for candidate in facts["candidates"]]
        self._guard.restore(facts["guard"])


class MemoryStates:
    """States in memory, as JSON data and copies, so that nothing is shared with the stage."""

    def __init__(self):
        self.committed = []

    def latest(self, stage):
        mine = [state for state in self.committed if state.stage == stage]
        return mine[-1] if mine else None

    def commit(self, state):
        tensors = {name: value.clone() for name, value in state.tensors.items()}
        facts = json.loads(json.dumps(dict(state.facts), allow_nan=False))
        self.committed.append(StageState(state.stage, state.step, tensors, facts))


def assert_same_tensors(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name].numpy(), value.numpy()), name
