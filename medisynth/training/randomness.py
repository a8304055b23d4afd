"""Derived randomness: every draw comes from (seed, stage, position), never from what came before.

So step k is the same whether or not the training was interrupted, and no state of a random
generator need be kept.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray


def derive_seed(seed: int, *place: str | int) -> int:
    """Derive the seed of one place, e.g. (seed, "diffusion", "noise", step); below 2**63."""
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def torch_generator(device: str, seed: int, *place: str | int) -> torch.Generator:
    """Random generator of one place on a torch device."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *place))


def numpy_generator(seed: int, *place: str | int) -> np.random.Generator:
    """Random generator of one place."""
    return np.random.default_rng(derive_seed(seed, *place))


@contextmanager
def seeded_weights(seed: int, stage: str) -> Iterator[None]:
    """Draw initial weights from (seed, stage) on the CPU, then restore torch's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, stage, "weights"))
        yield


class Order:
    """The images of each batch: every image once an epoch, in an order from (seed, epoch).

    Attributes:
        n_images: Images in the view, at least 1.
        batch_size: Images a batch; a batch may cross the end of an epoch.
    """

    def __init__(self, n_images: int, batch_size: int, seed: int, stage: str) -> None:
        self.n_images = n_images
        self.batch_size = batch_size
        self._place = (seed, stage, "order")
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Pairs (epoch, image index) of batch `step`, over all processes together."""
        first = step * self.batch_size
        return [self._at(position) for position in range(first, first + self.batch_size)]

    def _at(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.n_images)
        if epoch != self._epoch:
            seed, *rest = self._place
            generator = numpy_generator(int(seed), *rest, epoch)
            self._permutation, self._epoch = generator.permutation(self.n_images), epoch
        return epoch, int(self._permutation[place])
