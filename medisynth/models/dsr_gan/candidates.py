"""Candidates of a stage: every loss is kept, the weights of the newest few."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from medisynth.errors import WeightsError
from medisynth.generator import Tensors
from medisynth.training import snapshot

PREFIX = "candidate/"


class Candidates:
    """Weights to choose from.

    The newest are kept and not those of the lowest loss: how well noise is removed from a real
    image says little about how well images are drawn.

    Args of the constructor:
        n_kept: How many of the newest are kept.

    Attributes:
        scores: (step, score) of every candidate so far, lower is better.
        weights: Step to tensors of those that are kept.
    """

    def __init__(self, n_kept: int) -> None:
        self._n_kept = n_kept
        self.scores: list[tuple[int, float]] = []
        self.weights: dict[int, dict[str, torch.Tensor]] = {}

    @property
    def best_step(self) -> int:
        """Step of the lowest score among those that are kept, the first of equals."""
        kept = [pair for pair in self.scores if pair[0] in self.weights]
        return min(kept, key=lambda pair: pair[1])[0]

    @property
    def best(self) -> dict[str, torch.Tensor]:
        """Tensors of the lowest score."""
        return self.weights[self.best_step]

    def add(self, step: int, score: float, network: nn.Module) -> None:
        """Take a candidate and drop the oldest of those that were kept."""
        self.scores.append((step, score))
        self.weights[step] = snapshot(network)
        newest = sorted(self.weights)[-self._n_kept :]
        self.weights = {step: self.weights[step] for step in newest}

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors under "candidate/STEP/NAME", and all scores."""
        tensors = {
            f"{PREFIX}{step}/{name}": value
            for step, weights in self.weights.items()
            for name, value in weights.items()
        }
        return tensors, {"candidates": [list(pair) for pair in self.scores]}

    def load_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        """Take what `state` gave.

        Raises:
            WeightsError: The facts name no candidates.
        """
        try:
            self.scores = [(int(step), float(score)) for step, score in facts["candidates"]]
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"training state: expected the scores of all candidates, found none that can be "
                f"read ({type(error).__name__}); train again"
            ) from error
        self.weights = {}
        for full_name, value in tensors.items():
            if full_name.startswith(PREFIX):
                step, _, name = full_name.removeprefix(PREFIX).partition("/")
                self.weights.setdefault(int(step), {})[name] = value
        self.weights = dict(sorted(self.weights.items()))
