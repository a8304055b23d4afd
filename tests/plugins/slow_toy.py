"""A generator that learns almost nothing, at a pace of its own: for tests of stops and kills.

Two stages train one small network each through the project's loop, so what is committed, found
again and resumed is what real generators commit; a pause after each step leaves time to stop it.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from governance.records.training import Candidate, FitReport, Selection, training_stage
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Condition, Tensors, TrainingContext
from medisynth.training.loop import (
    Order,
    averaged,
    gather_state,
    n_parameters,
    restore_state,
    seeded_weights,
    torch_generator,
    train,
    update,
    workers,
)


class SlowToySettings(BaseModel):
    """Settings: steps a stage, pause after each in ms, images an update, step that raises."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = 30
    pause_ms: int = 0
    batch_size: int = 4
    size: int = 16
    fails_at: int | None = None


class _Stage:
    def __init__(
        self, name: str, view: ImageView, settings: SlowToySettings, context: TrainingContext
    ) -> None:
        self.name, self.n_steps = name, settings.steps
        self._settings, self._context = settings, context
        self.batch_size = settings.batch_size
        pixels = torch.from_numpy(np.array(view.pixels)).float().flatten(1) / 255
        self._pixels, n = pixels, pixels.shape[1]
        with seeded_weights(context.seed, name):
            self.network = workers().wrap(nn.Linear(8, n))
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=0.01)
        self.average = averaged(self.network, 0.9)
        self._order = Order(len(view), settings.batch_size, context.seed, name)
        self.candidates: list[tuple[int, float]] = []

    def step(self, step: int) -> Mapping[str, float]:
        time.sleep(self._settings.pause_ms / 1000)
        if step == self._settings.fails_at:
            raise RuntimeError("a fault of the generator")
        noise = self._noise(step, self._settings.batch_size)
        rows = [row for _, row in workers().share(self._order.batch(step))]
        loss = (self.network(workers().share(noise)) - self._pixels[rows]).square().mean()
        losses = {"loss": loss}
        values = update(self._optimiser, losses, loss, stage=self.name, step=step, rate=0.01)
        self.average.update_parameters(self.network)
        return values

    def evaluate(self, step: int) -> Mapping[str, float]:
        if self._context.score is not None:
            score = self._context.score(self.preview())
        else:
            score = float(self.average(self._noise(0, 8)).var())
        self.candidates.append((step, score))
        return {"score": score}

    def preview(self) -> Pixels:
        return draw(self.average, self._noise(0, 8), self._settings.size)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        modules = {"network": self.network, "average": self.average}
        return gather_state(modules, {"adam": self._optimiser}), {"candidates": self.candidates}

    def load_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        modules = {"network": self.network, "average": self.average}
        restore_state(modules, {"adam": self._optimiser}, tensors)
        self.candidates = [(int(step), float(score)) for step, score in facts["candidates"]]

    def _noise(self, step: int, n: int) -> torch.Tensor:
        generator = torch_generator("cpu", self._context.seed, self.name, "noise", step)
        return torch.randn(n, 8, generator=generator)


def draw(network: nn.Module, noise: torch.Tensor, size: int) -> Pixels:
    """Images of noise, shape (n, size, size), uint8."""
    with torch.no_grad():
        images = (network(noise).clamp(0, 1) * 255).round().byte()
    return images.reshape(-1, size, size).numpy()


class SlowToy:
    """The generator; draws with the average of its second stage."""

    name = "slow-toy"
    title = "A toy that trains slowly"
    Settings = SlowToySettings

    def __init__(self, settings: SlowToySettings) -> None:
        self._settings = settings
        self._network = nn.Linear(8, settings.size**2)

    @staticmethod
    def image_size_px(settings: SlowToySettings) -> int:
        return settings.size

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        stages, reports = [], []
        for name in ("first", "second"):
            stage = _Stage(name, training, self._settings, context)
            trained = train(stage, context, evaluate_every=10)
            stages.append(stage)
            reports.append(
                training_stage(
                    name=name,
                    n_parameters=n_parameters(stage.network),
                    n_steps=stage.n_steps,
                    batch_size=self._settings.batch_size,
                    duration_s=trained.duration_s,
                    precision="fp32",
                    n_processes=trained.n_processes,
                    peak_memory_bytes=trained.peak_memory_bytes,
                )
            )
        self._network.load_state_dict(stages[-1].average.module.state_dict())
        return FitReport(
            description={"architecture": "one linear layer"},
            stages=tuple(reports),
            fitted=(),
            selection=Selection(
                partition=tuning.partition,
                view_sha256=tuning.digest,
                criterion=f"the last step ({context.score_name or 'own objective'})",
                candidates=tuple(Candidate(step=k, score=v) for k, v in stages[-1].candidates),
                chosen_step=self._settings.steps,
            ),
        )

    def sample(
        self, n: int, context: TrainingContext, condition: Condition | None = None
    ) -> Pixels:
        generator = torch_generator("cpu", context.seed, "sample")
        return draw(self._network, torch.randn(n, 8, generator=generator), self._settings.size)

    def state(self) -> Tensors:
        return self._network.state_dict()

    def load_state(self, tensors: Tensors) -> None:
        self._network.load_state_dict(dict(tensors))
