"""Labels of plane and machine in the training view, and their numbers for the network."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from governance.records.errors import DataError, SettingsError, WeightsError
from medisynth.data.reading.views import ImageView
from medisynth.generator import Condition

AXES = ("plane", "machine")
NOTHING = 0  # the number of a label that is hidden, not recorded or not known
MOST_LABELS = 64  # of an axis: more are names of single images rather than of planes or machines

Pair = tuple[str, str]


@dataclass(frozen=True)
class Vocabulary:
    """The labels of the training images and how often each pair occurs.

    Attributes:
        pairs: (plane, machine) pairs in alphabetical order, "" where not recorded.
        counts: Training images of each pair.
        is_used: Whether the network may be told labels at all.
    """

    pairs: tuple[Pair, ...]
    counts: tuple[int, ...]
    is_used: bool

    def labels(self, axis: int) -> tuple[str, ...]:
        """Recorded labels of an axis (0 plane, 1 machine), in alphabetical order."""
        return tuple(sorted({pair[axis] for pair in self.pairs if pair[axis]}))

    @property
    def sizes(self) -> tuple[int, int]:
        """Number of labels of each axis that the network is told; 0 where there is no choice."""
        return self._size(0), self._size(1)

    @property
    def is_conditional(self) -> bool:
        """Whether the network is told any label."""
        return any(self.sizes)

    def numbers(self, pairs: Sequence[Pair], device: str) -> torch.Tensor | None:
        """Labels as numbers, shape (n, 2), 0 for no label; None where the network is told none."""
        if not self.is_conditional:
            return None
        known = [{label: i + 1 for i, label in enumerate(self.labels(axis))} for axis in (0, 1)]
        rows = [[known[axis].get(pair[axis], NOTHING) for axis in (0, 1)] for pair in pairs]
        return torch.tensor(rows, dtype=torch.long, device=device)

    def drawn(self, condition: Condition, generator: np.random.Generator) -> Pair:
        """Draw a pair by its frequency in training, given the labels that the condition fixes.

        Two fixed labels that never occur together in training are returned as they are.
        """
        wanted = (condition.plane, condition.machine)
        fits = [
            all(want is None or want == label for want, label in zip(wanted, pair, strict=True))
            for pair in self.pairs
        ]
        weights = np.array(self.counts) * np.array(fits)
        if not weights.any():
            return condition.plane or "", condition.machine or ""
        return self.pairs[int(generator.choice(len(self.pairs), p=weights / weights.sum()))]

    def require(self, condition: Condition) -> None:
        """Refuse a condition that the network cannot follow.

        Raises:
            SettingsError: No training image has the label, or the network was not told labels.
        """
        for axis, wanted in enumerate((condition.plane, condition.machine)):
            if wanted is None:
                continue
            known = self.labels(axis)
            if wanted not in known:
                raise SettingsError(
                    f"condition: {AXES[axis]}: expected one of {_listed(known)}, found {wanted!r}; "
                    "ask for a label that training images have"
                )
            # A single label is drawn anyway, even by a network that is told none.
            if self.sizes[axis] == 0 and (len(known) > 1 or any(not p[axis] for p in self.pairs)):
                raise SettingsError(
                    f"condition: {AXES[axis]} {wanted!r}: expected a generator that was told "
                    f"{AXES[axis]}s in training, found one that was not; sample without a "
                    'condition, or train with conditioning "auto" on a view with several'
                )

    def to_tensor(self) -> torch.Tensor:
        """Encode as UTF-8 bytes of canonical JSON, shape (k,), uint8."""
        facts = {"pairs": self.pairs, "counts": self.counts, "is_used": self.is_used}
        data = json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()
        return torch.tensor(list(data), dtype=torch.uint8)

    def _size(self, axis: int) -> int:
        n = len(self.labels(axis))
        return n if self.is_used and n > 1 else 0


def vocabulary_of(training: ImageView, conditioning: Literal["auto", "none"]) -> Vocabulary:
    """Count the pairs of labels of the training view.

    Raises:
        DataError: The network would be told more than `MOST_LABELS` planes or machines.
    """
    counted = sorted(Counter(zip(training.planes, training.machines, strict=True)).items())
    pairs, counts = zip(*counted, strict=True)
    vocabulary = Vocabulary(pairs, counts, is_used=conditioning == "auto")
    for axis, n_labels in zip(AXES, vocabulary.sizes, strict=True):
        if n_labels > MOST_LABELS:
            raise DataError(
                f"{training.partition} view: expected at most {MOST_LABELS} {axis} labels to tell "
                f"the network, found {n_labels} on {len(training)} images; merge labels, or set "
                'conditioning to "none"',
                code="D084",
            )
    return vocabulary


def vocabulary_from(tensor: torch.Tensor) -> Vocabulary:
    """Decode a vocabulary from the bytes of `Vocabulary.to_tensor`.

    Raises:
        WeightsError: The bytes are not a vocabulary.
    """
    try:
        if tensor.dtype != torch.uint8 or tensor.dim() != 1:
            raise ValueError(f"{tensor.dtype} of shape {tuple(tensor.shape)}")
        facts = json.loads(bytes(tensor.tolist()).decode())
        pairs = tuple((str(plane), str(machine)) for plane, machine in facts["pairs"])
        counts = tuple(int(count) for count in facts["counts"])
        if not pairs or len(pairs) != len(counts) or min(counts) < 1:
            raise ValueError("pairs and counts do not fit each other")
        return Vocabulary(pairs, counts, is_used=bool(facts["is_used"]))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            "weights: tensor 'vocabulary': expected the labels of the training images "
            f"as UTF-8 JSON, found something else ({error}); use an undamaged copy"
        ) from error


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(repr(label) for label in labels) if labels else "no label (none is recorded)"
