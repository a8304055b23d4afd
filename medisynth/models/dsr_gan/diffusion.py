"""First stage: a diffusion model, conditioned on plane and machine where they are recorded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from governance.records.errors import WeightsError
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Condition, Tensors, TrainingContext
from medisynth.models.dsr_gan.batches import Augmentation, augmentation_of, augmented, nothing_told
from medisynth.models.dsr_gan.fitted import Fitted
from medisynth.models.dsr_gan.network import UNet
from medisynth.models.dsr_gan.objectives import Edm, Labels, Objective
from medisynth.models.dsr_gan.settings import DiffusionSettings, DsrGanSettings, PretrainedSettings
from medisynth.models.enlarging.candidates import Candidates
from medisynth.models.enlarging.images import reduced, reduced_pixels, to_pixels, to_unit
from medisynth.training.loop import (
    Order,
    Precision,
    accumulated_update,
    autocast,
    averaged,
    gather_state,
    in_parts,
    learning_rate,
    mean_of,
    numpy_generator,
    pairwise_distance,
    require_diverse,
    require_finite,
    restore_state,
    seeded_weights,
    torch_generator,
    workers,
)

STAGE = "diffusion"
ROWS_AT_ONCE = 64
N_PREVIEWED = 8
PREVIEW_STEPS = 8
NETWORK_PREFIX = "diffusion.network."  # of its tensors among those of a whole DSR-GAN
LABELS = "labels."

# Clean images, noise, noise levels, augmentation numbers and labels.
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Labels]


@dataclass(frozen=True)
class _Drawn:
    """Random draws of an update: (epoch, image), noise levels, noise and labels of each image."""

    places: list[tuple[int, int]]
    levels: torch.Tensor
    noise: torch.Tensor
    labels: Labels


def new_network(settings: DsrGanSettings, seed: int, label_sizes: tuple[int, int]) -> nn.Module:
    """Build the network with weights drawn from the seed."""
    d = settings.diffusion
    with seeded_weights(seed, STAGE):
        network = UNet(
            d.unshuffle, d.channels, d.layers, attention=d.attention, label_sizes=label_sizes
        )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def start_from(network: nn.Module, pretrained: PretrainedSettings) -> None:
    """Load a network's weights from a file of the network alone or a whole DSR-GAN checkpoint.

    Label weights in the file belong to other data and are ignored: the network starts as one
    without labels.

    Raises:
        WeightsError: The file cannot be read, has another digest, or does not fit.
    """
    tensors = checkpoint.load(Path(pretrained.path), pretrained.sha256)
    if any(name.startswith(NETWORK_PREFIX) for name in tensors):
        tensors = {
            name.removeprefix(NETWORK_PREFIX): value
            for name, value in tensors.items()
            if name.startswith(NETWORK_PREFIX)
        }
    own = network.state_dict()
    given = {name: value for name, value in tensors.items() if not name.startswith(LABELS)}
    given |= {name: value for name, value in own.items() if name.startswith(LABELS)}
    for name in sorted(own.keys() | given.keys()):
        found, expected = (_shape(of.get(name)) for of in (given, own))
        if found != expected:
            raise WeightsError(
                f"{pretrained.path}: tensor {name!r}: expected {expected}, found {found}; "
                "use weights of this network, or set diffusion's sizes to those of the file"
            )
    network.load_state_dict(given)


class DiffusionStage:
    """Training of the diffusion network; fulfils `medisynth.training.loop.Stage`.

    Args of the constructor:
        settings: Settings of the whole generator.
        training: Images of the final side.
        tuning: Images of the final side.
        context: Seed and device.
        precision: Precision of training.
        fitted: Parts that were fitted before training.
        network: Network to train; default: that of the settings.
        n_channels: Channels of the network; the image is grey all the same.
        objective: Builds the training objective from settings of the stage.
        constant_rate: Whether the learning rate is constant, with the second beta of Adam's
            authors; otherwise it rises and falls.

    Attributes:
        name: "diffusion".
        n_steps: Updates.
        batch_size: Images an update, over all processes together.
        network: The network that is trained.
        candidates: Averaged weights that were scored, and the best of them.
    """

    name = STAGE

    def __init__(
        self,
        settings: DsrGanSettings,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
        fitted: Fitted,
        *,
        network: nn.Module | None = None,
        n_channels: int = 1,
        objective: Callable[[DiffusionSettings], Objective] = Edm,
        constant_rate: bool = False,
    ) -> None:
        own = settings.diffusion
        self.n_steps, self.batch_size = own.steps, own.batch_size
        self.candidates = Candidates(settings.kept_candidates)
        self._settings, self._n_channels, self._is_constant = own, n_channels, constant_rate
        self._seed, self._device = context.seed, context.compute_device
        self._precision: Precision = precision
        self._objective_of, self._objective = objective, objective(own)
        self._view, self._fitted = training, fitted
        self._labels = fitted.vocabulary.numbers(
            list(zip(training.planes, training.machines, strict=True)), self._device
        )
        self._limits = Augmentation(own.flip, own.max_zoom, own.max_rotation_rad)
        self._order = Order(len(training), own.batch_size, context.seed, STAGE)
        if network is None:
            network = new_network(settings, context.seed, fitted.vocabulary.sizes)
        if settings.pretrained is not None:
            start_from(network, settings.pretrained)
        self.network = workers().wrap(network.to(self._device))
        self._averaged = averaged(self.network, own.ema)
        self._optimiser = torch.optim.AdamW(
            self.network.parameters(),
            betas=(0.9, 0.999 if self._is_constant else 0.99),
            weight_decay=0.0,
            fused=True,
        )
        self._tuning = list(self._tuning_batches(tuning))

    def step(self, step: int) -> Mapping[str, float]:
        """Make update `step` and return its losses."""
        everything = self._drawn(step)
        rows = workers().share(list(range(self.batch_size)))

        def losses_of(part: list[int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            batch = self._batch(everything, slice(part[0], part[-1] + 1))
            with autocast(self._device, self._precision):
                loss = self._objective.loss(self.network, *batch)
            return {"training loss": loss}, loss

        rate = self._rate(step)
        parts = in_parts(rows, self._settings.accumulate)
        values = accumulated_update(
            self._optimiser, parts, losses_of, stage=STAGE, step=step, rate=rate
        )
        self._averaged.update_parameters(self.network)
        return {**values, "learning rate": rate}

    @torch.no_grad()
    def evaluate(self, step: int) -> Mapping[str, float]:
        """Score the averaged weights on the tuning view with fixed noise; keep the best."""
        network = self._averaged.module.eval()
        loss = mean_of(
            (float(self._objective.loss(network, *batch)), len(batch[0])) for batch in self._tuning
        )
        require_finite({"tuning loss": loss}, stage=STAGE, step=step - 1)
        self.candidates.add(step, loss, network)
        return {"tuning loss": loss}

    def preview(self) -> Pixels:
        """Draw a few images of the averaged network with few steps, the same noise every time.

        Returns:
            Shape (8, size, size), uint8, without histogram matching and super-resolution.

        Raises:
            TrainingError: After half of the steps or later, the images are all but one image.
        """
        settings = self._settings
        few = min(PREVIEW_STEPS, settings.sampler_steps)
        quick = settings.model_copy(update={"sampler_steps": few, "guidance": 1.0})
        objective = self._objective_of(quick)
        shape = (N_PREVIEWED, self._n_channels, *self._fitted.scaling.shape)
        generator = torch_generator(self._device, self._seed, STAGE, "preview")
        start = torch.randn(shape, device=self._device, generator=generator)
        vocabulary = self._fitted.vocabulary
        draw = numpy_generator(self._seed, STAGE, "preview labels")
        pairs = [vocabulary.drawn(Condition(), draw) for _ in range(N_PREVIEWED)]
        labels = vocabulary.numbers(pairs, self._device)
        residuals = start
        for state in objective.states(self._averaged.module.eval(), start, labels):
            residuals = state
        images = to_pixels(self._fitted.scaling.to_images(residuals).mean(1, keepdim=True))
        n_updates = int(self._averaged.n_averaged)
        if 2 * n_updates >= self.n_steps:
            distance = self._real_distance()
            require_diverse(images, STAGE, n_updates, real_distance=distance)
        return images

    def _real_distance(self) -> float:
        """Mean pairwise distance of training images at the diffusion size."""
        n = max(2, min(N_PREVIEWED, len(self._view)))
        rows = torch.linspace(0, len(self._view) - 1, n).round().long().tolist()
        return pairwise_distance(reduced_pixels(self._view.pixels[rows], self._settings.size))

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that training changes, as tensors and JSON facts."""
        tensors = gather_state(self._modules(), {"adamw": self._optimiser})
        kept, facts = self.candidates.state()
        return tensors | kept, {**facts, "precision": self._precision}

    def load_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        restore_state(self._modules(), {"adamw": self._optimiser}, tensors)
        self.candidates.load_state(tensors, facts)

    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network, "average": self._averaged}

    def _rate(self, step: int) -> float:
        own = self._settings
        if self._is_constant:
            return own.learning_rate
        return learning_rate(own.learning_rate, step, own.steps, own.warm_up_steps)

    def _drawn(self, step: int) -> _Drawn:
        """Draw all random numbers of one update, for the whole batch of all processes together."""
        n = self.batch_size
        generator = torch_generator(self._device, self._seed, STAGE, "noise", step)
        levels = self._objective.training_levels(n, self._device, generator)
        shape = (n, self._n_channels, *self._fitted.scaling.shape)
        noise = torch.randn(shape, device=self._device, generator=generator)
        places = self._order.batch(step)
        return _Drawn(places, levels, noise, self._shown_labels(places, step))

    def _batch(self, drawn: _Drawn, rows: slice) -> Batch:
        clean, told = self._clean(drawn.places[rows])
        labels = None if drawn.labels is None else drawn.labels[rows]
        return clean, drawn.noise[rows], drawn.levels[rows], told, labels

    def _clean(self, places: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        images = to_unit(self._view.pixels[[index for _, index in places]], self._device)
        draws = [
            augmentation_of(self._limits, self._seed, STAGE, epoch, index)
            for epoch, index in places
        ]
        mean_image, scaling = self._fitted.mean_image, self._fitted.scaling
        # Moved at full size and reduced afterwards, so that the interpolation blurs nothing.
        if mean_image is None:
            moved, told = augmented(images, draws)
            clean = scaling.to_residuals(reduced(moved, self._settings.size))
        else:
            moved, told = augmented(images - mean_image, draws)
            clean = scaling.of_differences(reduced(moved, self._settings.size))
        return clean.expand(-1, self._n_channels, -1, -1), told

    def _shown_labels(self, places: list[tuple[int, int]], step: int) -> Labels:
        """Labels of a batch, some hidden at random so that the network learns to do without."""
        if self._labels is None:
            return None
        labels = self._labels[[index for _, index in places]]
        generator = torch_generator(self._device, self._seed, STAGE, "hidden labels", step)
        chance = torch.rand(len(labels), device=self._device, generator=generator)
        return labels.masked_fill((chance < self._settings.condition_dropout)[:, None], 0)

    def _tuning_batches(self, tuning: ImageView) -> Iterator[Batch]:
        """Yield tuning batches with the same images, noise and noise levels for every candidate."""
        settings, n = self._settings, min(len(tuning), self._settings.selection_images)
        chosen = torch.linspace(0, len(tuning) - 1, n).round().long().tolist()
        generator = torch_generator(self._device, self._seed, STAGE, "tuning")
        levels = self._objective.tuning_levels(n, self._device, generator)
        for start in range(0, n, ROWS_AT_ONCE):
            rows = chosen[start : start + ROWS_AT_ONCE]
            images = to_unit(tuning.pixels[rows], self._device)
            clean = self._fitted.scaling.to_residuals(reduced(images, settings.size))
            clean = clean.expand(-1, self._n_channels, -1, -1)
            noise = torch.randn(clean.shape, device=self._device, generator=generator)
            pairs = [(tuning.planes[row], tuning.machines[row]) for row in rows]
            labels = self._fitted.vocabulary.numbers(pairs, self._device)
            told = nothing_told(len(clean), self._device)
            yield clean, noise, levels[start : start + ROWS_AT_ONCE], told, labels


def _shape(tensor: torch.Tensor | None) -> str:
    return "no such tensor" if tensor is None else f"shape {tuple(tensor.shape)}"
