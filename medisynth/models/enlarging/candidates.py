"""Candidates of a stage: all scores, and the weights of a few."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from governance.records.errors import WeightsError
from medisynth.generator import Tensors
from medisynth.training.loop import snapshot

PREFIX = "candidate/"


class Candidates:
    """Candidate weights and their scores, to choose from.

    Where scores are losses, keep the newest rather than those of the lowest loss: how well noise
    is removed from real images says little about how well images are drawn.

    Args of the constructor:
        n_kept: Number of candidates whose weights are kept.
        by_score: Whether the lowest scores are kept rather than the newest.

    Attributes:
        scores: (step, score) of every candidate so far, lower is better.
        weights: Step -> tensors, of the candidates that are kept.
    """

    def __init__(self, n_kept: int, *, by_score: bool = False) -> None:
        self._n_kept, self._by_score = n_kept, by_score
        self.scores: list[tuple[int, float]] = []
        self.weights: dict[int, dict[str, torch.Tensor]] = {}

    @property
    def best_step(self) -> int:
        """Step of the lowest score among those that are kept, the first of equals."""
        kept = [pair for pair in self.scores if pair[0] in self.weights]
        return min(kept, key=lambda pair: pair[1])[0]

    @property
    def newest(self) -> dict[str, torch.Tensor]:
        """Tensors of the last candidate that is kept."""
        return self.weights[max(self.weights)]

    @property
    def best(self) -> dict[str, torch.Tensor]:
        """Tensors of the lowest score."""
        return self.weights[self.best_step]

    def add(self, step: int, score: float, network: nn.Module) -> None:
        """Add a candidate; beyond `n_kept`, drop the oldest or the one with the highest score."""
        self.scores.append((step, score))
        self.weights[step] = snapshot(network)
        kept = [pair for pair in self.scores if pair[0] in self.weights]
        if self._by_score:
            kept = sorted(kept, key=lambda pair: pair[1])[: self._n_kept]
        steps = sorted(step for step, _ in kept)[-self._n_kept :]
        self.weights = {step: self.weights[step] for step in steps}

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return tensors under "candidate/STEP/NAME", and all scores."""
        tensors = {
            f"{PREFIX}{step}/{name}": value
            for step, weights in self.weights.items()
            for name, value in weights.items()
        }
        return tensors, {"candidates": [list(pair) for pair in self.scores]}

    def load_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

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
