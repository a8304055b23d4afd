"""A trained TB-GAN: sampling from it, its conversion to tensors and back, weights of former versions."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from governance.records.errors import WeightsError
from medisynth.data.reading.views import Pixels
from medisynth.generator import Condition, StoppedError, Tensors, TrainingContext
from medisynth.models.adversarial.images import IMAGES_AT_ONCE
from medisynth.models.conditioning import vocabulary_from
from medisynth.models.enlarging.networks import Bicubic, EnlargingNetwork
from medisynth.models.enlarging.stage import new_enlarger
from medisynth.models.tb_gan.drawing import Drawing
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.settings import ENLARGING_FACTOR, TbGanSettings
from medisynth.training.loop import seeded_weights, snapshot

_OF_FORMER = "levels.0.to_image.weight"  # image skips have had a layer of their own since


def require_present(names: Collection[str], prefix: str, what: str) -> None:
    """Refuse tensors of the former generator, which added a fixed position grid at a fixed gain.

    Args:
        names: Names of all tensors.
        prefix: Prefix of the generator's own names.
        what: Name of the tensors for the message.

    Raises:
        WeightsError: They are of the former architecture.
    """
    if prefix + _OF_FORMER in names:
        raise WeightsError(
            f"{what}: expected a generator with learned positions, found one of the architecture "
            "before them, in which positions had a fixed position_gain; read it with a version of "
            "medisynth-gov whose settings of tb-gan still have position_gain, or train again"
        )


STAGE = "sampling"
GENERATOR, ENLARGER = "generator.", "enlarger."
VOCABULARY = "vocabulary"


@dataclass(frozen=True)
class Trained:
    """The fitted generator.

    Attributes:
        drawing: Generator of the chosen step, labels, and the enlarger where there is one.
    """

    drawing: Drawing

    def state(self) -> dict[str, torch.Tensor]:
        """All tensors needed to sample again."""
        return state_of(self.drawing)

    def sample(self, n: int, context: TrainingContext, condition: Condition) -> Pixels:
        """Draw images; image i depends on (seed, i) alone, up to rounding on other devices.

        Args:
            n: Number of images, at least 1.
            context: Seed, device, progress and stop flag.
            condition: Plane and machine; labels left open are drawn as often as in training.

        Returns:
            Shape (n, side, side), uint8.

        Raises:
            SettingsError: No training image has the label, or the networks were not told labels.
            StoppedError: A stop was asked for.
            TrainingError: A network gave a value that is not finite.
        """
        self.drawing.vocabulary.require(condition)
        for network in (self.drawing.generator, self.drawing.enlarger):
            if network is not None:
                network.to(context.compute_device).eval()
        return np.concatenate(list(self._batches(n, context, condition)))

    def _batches(self, n: int, context: TrainingContext, condition: Condition) -> Iterator[Pixels]:
        device, place = context.compute_device, (context.seed, STAGE)
        for first in range(0, n, IMAGES_AT_ONCE):
            if context.should_stop():
                raise StoppedError(f"{STAGE}: stopped after {first} of {n} images")
            indices = range(first, min(first + IMAGES_AT_ONCE, n))
            yield self.drawing.pixels(indices, condition, device, *place)
            context.progress(STAGE, indices[-1] + 1, n)


def state_of(drawing: Drawing) -> dict[str, torch.Tensor]:
    """Tensors of all networks, and the vocabulary, by name."""
    tensors = {VOCABULARY: drawing.vocabulary.to_tensor()}
    for prefix, network in ((GENERATOR, drawing.generator), (ENLARGER, drawing.enlarger)):
        if network is not None:
            tensors |= {prefix + name: value for name, value in snapshot(network).items()}
    return tensors


def trained_from(settings: TbGanSettings, tensors: Tensors) -> Trained:
    """Rebuild from the tensors of `Trained.state`.

    Raises:
        WeightsError: Names or shapes do not fit the settings, or they are of the former
            architecture.
    """
    require_present(tensors, GENERATOR, "weights of tb-gan")
    if VOCABULARY not in tensors:
        raise WeightsError(
            _misfit(VOCABULARY, "the labels of the training images", "no such tensor")
        )
    vocabulary = vocabulary_from(tensors[VOCABULARY])
    with seeded_weights(0, "tb-gan"):
        generator = StyleSwinGenerator(settings, vocabulary.sizes)
    enlarger: EnlargingNetwork | None = None
    own = settings.enlarging
    if own is not None:
        is_plain = own.last_doubling == "bicubic"
        enlarger = Bicubic() if is_plain else new_enlarger(own, ENLARGING_FACTOR, 0)
    drawing = Drawing(generator, vocabulary, enlarger)
    expected = {k: tuple(v.shape) for k, v in state_of(drawing).items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            wanted, given = _shape(expected.get(name)), _shape(found.get(name))
            raise WeightsError(_misfit(name, wanted, given))
    for prefix, network in ((GENERATOR, generator), (ENLARGER, enlarger)):
        if network is not None:
            part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            network.load_state_dict(part)
            network.eval().requires_grad_(False)
    return Trained(drawing)


def _misfit(name: str, expected: str, found: str) -> str:
    return (
        f"weights of tb-gan: tensor {name!r}: expected {expected}, found {found}; use weights that "
        "were trained with these settings"
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {shape}"
