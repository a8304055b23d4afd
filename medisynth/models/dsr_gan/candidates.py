"""Candidates of a stage: every score is kept, the weights of the best few and of the newest."""

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

    Args of the constructor:
        n_best: How many of the lowest scores are kept.

    Attributes:
        scores: (step, score) of every candidate so far, lower is better.
        weights: Step to tensors of those that are kept: the best and the newest.
    """

    def __init__(self, n_best: int) -> None:
        self._n_best = n_best
        self.scores: list[tuple[int, float]] = []
        self.weights: dict[int, dict[str, torch.Tensor]] = {}

    @property
    def best_step(self) -> int:
        """Step of the lowest score, the first of equals."""
        return min(self.scores, key=lambda pair: pair[1])[0]

    @property
    def best(self) -> dict[str, torch.Tensor]:
        """Tensors of the lowest score."""
        return self.weights[self.best_step]

    def add(self, step: int, score: float, network: nn.Module) -> None:
        """Take a candidate and drop those that are neither among the best nor the newest."""
        self.scores.append((step, score))
        self.weights[step] = snapshot(network)
        ranked = sorted(self.scores, key=lambda pair: pair[1])
        keep = {step, *(step for step, _ in ranked[: self._n_best])}
        self.weights = {step: self.weights[step] for step in sorted(keep)}

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
