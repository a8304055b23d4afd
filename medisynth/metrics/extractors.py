"""Further feature extractors: the protocol, the registry, and two that are fitted in the run.

The FID network was trained on photographs. A distance that is to carry a verdict is measured with
another extractor as well. Third parties register theirs by the entry point group
`medisynth.extractors`; one is fitted, or reads its weights, in the confined training process.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError, SettingsError, WeightsError
from governance.records.training import Overlap
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.entry_points import import_point, registered, registered_names
from medisynth.metrics.features import Features

if TYPE_CHECKING:
    import torch
    from torch import nn

GROUP = "medisynth.extractors"
Tensors = Mapping[str, Any]  # name -> torch.Tensor; Any so that this module imports no torch
Progress = Callable[[int, int], None]
_METHODS = ("fit", "state", "load_state", "extract")
_TEXTS = ("name", "title", "resize", "training_data")


class Extractor(Protocol):
    """A feature extractor besides the FID network; made without arguments.

    Attributes:
        name: Registered name; part of the ids of its metrics.
        title: For people.
        resize: How images are brought to its size.
        training_data: What its weights were trained on before this run; "" where it is fitted to
            this run's training images alone.
        overlap: Whether `training_data` are known to hold images of the reference: "known", "none
            known", "unknown".
        n_features: Length of a feature vector, known once it is fitted or loaded.
    """

    name: str
    title: str
    resize: str
    training_data: str
    overlap: Overlap
    n_features: int

    def fit(self, training: ImageView, tuning: ImageView, seed: int, progress: Progress) -> str:
        """Fit to the training view, or read weights; return a sentence on what came of it.

        Raises:
            MetricUndefinedError: These images do not allow it, e.g. they have no labels.
        """
        ...

    def state(self) -> Tensors:
        """All tensors needed to extract again."""
        ...

    def load_state(self, tensors: Tensors) -> None:
        """Load what `state` gave; WeightsError if names or shapes do not fit."""
        ...

    def extract(self, pixels: Pixels) -> Features:
        """Return features, shape (n, n_features), of images, shape (n, height, width), uint8.

        The kernel distance takes inner products over their number, so values should be near 1.
        """
        ...


def extractor_names() -> tuple[str, ...]:
    """Names of all registered extractors, sorted."""
    return registered_names(GROUP)


def load_extractor(name: str) -> Extractor:
    """Return a new, unfitted extractor of a registered name.

    Raises:
        SettingsError: No extractor has this name, two have it, its module cannot be imported, or
            it lacks a member of the protocol.
    """
    key = "evaluation.further_extractors"
    point = registered(GROUP, name, key, "extractor")
    found = import_point(point, key)
    lacking = [f"no method {m}" for m in _METHODS if not callable(getattr(found, m, None))]
    lacking += [f"no text {t}" for t in _TEXTS if not isinstance(getattr(found, t, None), str)]
    if getattr(found, "overlap", None) not in ("known", "none known", "unknown"):
        lacking.append("no overlap of known, none known or unknown")
    if lacking or not isinstance(found, type):
        raise SettingsError(
            f"{key}: {point.value} is no extractor: {', '.join(lacking) or 'not a class'}; see "
            "medisynth.metrics.extractors.Extractor"
        )
    extractor: Extractor = found()
    return extractor


class PixelPca:
    """Principal components of the pixels of training images, at 32 x 32 pixels.

    It knows nothing but grey values: what all images have in common is seen, fine detail is not.
    """

    name = "pixel-pca"
    title = "Principal components of pixels"
    resize = "area mean to 32 x 32 px"
    training_data = ""
    overlap: Overlap = "none known"
    n_features = 0
    _SIDE, _LEAST_IMAGES, _MOST_IMAGES, _MOST_COMPONENTS = 32, 10, 2000, 64

    def __init__(self) -> None:
        self._state: dict[str, NDArray[np.float64]] = {}

    def fit(self, training: ImageView, tuning: ImageView, seed: int, progress: Progress) -> str:
        """Find the components of at most 2,000 training images."""
        flat = self._flat(_some(training.pixels, self._MOST_IMAGES, seed)[0])
        if len(flat) < self._LEAST_IMAGES:
            raise MetricUndefinedError(
                f"{len(flat)} training images; {self._LEAST_IMAGES} are needed"
            )
        mean = flat.mean(axis=0)
        _, widths, components = np.linalg.svd(flat - mean, full_matrices=False)
        kept = components[: min(self._MOST_COMPONENTS, len(flat) - 1)]
        share = float((widths[: len(kept)] ** 2).sum() / max((widths**2).sum(), 1e-300))
        scale = np.sqrt(((flat - mean) @ kept.T).var(axis=0).mean())
        if scale == 0:
            raise MetricUndefinedError("all training images are the same")
        self._set({"mean": mean, "components": kept / scale})
        progress(1, 1)
        return (
            f"{len(kept)} components hold {100 * share:.1f} % of the variance of {len(flat)} images"
        )

    def _set(self, state: dict[str, NDArray[np.float64]]) -> None:
        self._state, self.n_features = state, len(state["components"])

    def state(self) -> Tensors:
        """Mean and components, the latter divided so that features have a mean variance of 1."""
        import torch

        return {name: torch.from_numpy(values) for name, values in self._state.items()}

    def load_state(self, tensors: Tensors) -> None:
        """Load mean and components; WeightsError if they do not fit each other."""
        state = {name: tensor.numpy() for name, tensor in tensors.items()}
        shapes = {name: values.shape[-1] for name, values in state.items()}
        if shapes != {"mean": self._SIDE**2, "components": self._SIDE**2}:
            raise WeightsError(f"{self.name}: expected mean and components, found {sorted(state)}")
        self._set(state)

    def extract(self, pixels: Pixels) -> Features:
        """Return the coordinates of images along the components."""
        found: Features = (self._flat(pixels) - self._state["mean"]) @ self._state["components"].T
        return found

    def _flat(self, pixels: Pixels) -> NDArray[np.float64]:
        small = _at_side(pixels, self._SIDE, "area")
        return small.reshape(len(pixels), -1).double().numpy()


class DomainNetwork:
    """A small network that tells planes and machines of the training patients apart.

    Four convolutions of stride 2 at 64 x 64 pixels; features are the 64 pooled values before the
    heads, with mean 0 and standard deviation 1 over training images. It sees what the
    labels depend on: anatomy of the planes, grey map and speckle of the machines.
    """

    name = "domain"
    title = "Classifier of planes and machines, fitted in the run"
    resize = "bilinear with antialiasing to 64 x 64 px"
    training_data = ""
    overlap: Overlap = "none known"
    n_features = 64
    _SIDE, _MOST_IMAGES, _STEPS, _BATCH, _RATE = 64, 2000, 500, 32, 2e-3

    def __init__(self) -> None:
        self._network: nn.Sequential | None = None
        self._mean: torch.Tensor | None = None
        self._sd: torch.Tensor | None = None

    def fit(self, training: ImageView, tuning: ImageView, seed: int, progress: Progress) -> str:
        """Train on at most 2,000 training images for 500 updates: seconds on one core."""
        import torch
        from torch.nn.functional import cross_entropy

        pixels, rows = _some(training.pixels, self._MOST_IMAGES, seed)
        labels = {
            "plane": [training.planes[row] for row in rows],
            "machine": [training.machines[row] for row in rows],
        }
        levels = {what: sorted(set(own) - {""}) for what, own in labels.items()}
        levels = {what: found for what, found in levels.items() if len(found) > 1}
        if not levels:
            raise MetricUndefinedError("training images have no two planes and no two machines")
        targets = {what: _codes(labels[what], found) for what, found in levels.items()}
        images = _at_side(pixels, self._SIDE, "bilinear")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _network(self.n_features)
            heads = {what: torch.nn.Linear(self.n_features, len(x)) for what, x in levels.items()}
        parameters = [*network.parameters(), *(p for h in heads.values() for p in h.parameters())]
        optimiser = torch.optim.AdamW(parameters, self._RATE, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self._RATE, self._STEPS)
        random = np.random.default_rng([seed, 14])
        for step in range(self._STEPS):
            chosen = torch.from_numpy(random.integers(0, len(images), self._BATCH))
            batch = images[chosen]
            batch = batch.flip(-1) if random.random() < 0.5 else batch
            features = network(batch)
            loss = torch.stack(
                [
                    cross_entropy(head(features), targets[what][chosen], ignore_index=-1)
                    for what, head in heads.items()
                    if (targets[what][chosen] >= 0).any()
                ]
                or [0.0 * features.sum()]
            ).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            progress(step + 1, self._STEPS)
        self._network = network.eval()
        plain = torch.from_numpy(self._pooled(pixels))
        self._mean, self._sd = plain.mean(dim=0), plain.std(dim=0).clamp_min(1e-6)
        given = {"plane": tuning.planes, "machine": tuning.machines}
        words = [
            self._accuracy(head, tuning.pixels, _codes(given[what], levels[what]), what)
            for what, head in heads.items()
        ]
        return f"fitted to {len(rows)} training images; {'; '.join(words)}"

    def _accuracy(
        self, head: "nn.Module", pixels: Pixels, targets: "torch.Tensor", what: str
    ) -> str:
        import torch

        known = targets >= 0
        if not bool(known.any()):
            return f"{what} of no tuning image is known"
        with torch.inference_mode():
            guessed = head(torch.from_numpy(self._pooled(pixels)).float()).argmax(dim=1)
        right = (guessed == targets)[known].float().mean()
        return f"{what} right on {100 * float(right):.0f} % of {int(known.sum())} tuning images"

    def state(self) -> Tensors:
        """Weights of the network, mean and standard deviation of its features."""
        if self._network is None:
            raise MetricUndefinedError(f"{self.name}: not fitted")
        return {**self._network.state_dict(), "mean": self._mean, "sd": self._sd}

    def load_state(self, tensors: Tensors) -> None:
        """Load what `state` gave; WeightsError if names or shapes do not fit."""
        weights = dict(tensors)
        try:
            self._mean, self._sd = weights.pop("mean"), weights.pop("sd")
            network = _network(self.n_features)
            network.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            raise WeightsError(f"{self.name}: other weights than expected") from error
        self._network = network.eval()

    def extract(self, pixels: Pixels) -> Features:
        """Return pooled features less their mean over training images, over their deviation."""
        if self._mean is None or self._sd is None:
            raise MetricUndefinedError(f"{self.name}: not fitted")
        found: Features = (self._pooled(pixels) - self._mean.numpy()) / self._sd.numpy()
        return found

    def _pooled(self, pixels: Pixels) -> Features:
        import torch

        if self._network is None:
            raise MetricUndefinedError(f"{self.name}: not fitted")
        found = np.empty((len(pixels), self.n_features))
        with torch.inference_mode():
            for start in range(0, len(pixels), 64):
                part = _at_side(pixels[start : start + 64], self._SIDE, "bilinear")
                found[start : start + len(part)] = self._network(part).double().numpy()
        return found


def _network(width: int) -> "nn.Sequential":
    from torch import nn

    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64), (64, width)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _at_side(pixels: Pixels, side: int, mode: str) -> "torch.Tensor":
    """Return images as float32 from -1 to 1, shape (n, 1, side, side)."""
    import torch
    from torch.nn.functional import interpolate

    images = torch.from_numpy(np.array(pixels)).unsqueeze(1).float() / 127.5 - 1
    smooth = {"antialias": True} if mode == "bilinear" else {}
    return interpolate(images, size=(side, side), mode=mode, **smooth)


def _some(pixels: Pixels, n_most: int, seed: int) -> tuple[Pixels, NDArray[np.intp]]:
    rows = np.random.default_rng([seed, 13]).permutation(len(pixels))[:n_most]
    rows.sort()
    return np.asarray(pixels[rows]), rows


def _codes(labels: "list[str] | tuple[str, ...]", levels: list[str]) -> "torch.Tensor":
    """Return the number of each label's level; -1 for a label that is none of them."""
    import torch

    return torch.tensor([levels.index(x) if x in levels else -1 for x in labels])
