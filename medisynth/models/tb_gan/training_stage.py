"""One part of the schedule: adversarial training of generator and discriminator on some planes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from medisynth.data.views import ImageView, Pixels
from medisynth.errors import WeightsError
from medisynth.generator import TrainingContext
from medisynth.models.tb_gan.augment import Draws, augmented, draws_for
from medisynth.models.tb_gan.images import (
    IMAGES_AT_ONCE,
    coarse,
    drawn,
    energy_distance,
    latents_of,
    mirrored,
    to_signed,
)
from medisynth.models.tb_gan.networks import Networks, r1_penalty
from medisynth.models.tb_gan.pseudo_augmentation import moved_probability, pseudo_rows
from medisynth.models.tb_gan.settings import SchedulePart, TbGanSettings
from medisynth.training import (
    DiscriminatorGuard,
    Order,
    Precision,
    accumulated_update,
    autocast,
    gather_state,
    in_parts,
    pairwise_distance,
    require_diverse,
    require_finite,
    restore_state,
    snapshot,
    torch_generator,
    workers,
)

BETAS = (0.0, 0.99)
CHOSEN = "chosen/"
N_PREVIEW = 16
N_DIVERSITY = 32
DIVERSITY_FROM_STEP = 1000  # before, a generator may well draw little more than a mean image
ENERGY = "tuning energy distance of 16 x 16 images"
N_SIGNS, SIGNS = "training images scored", "sum of their signs"


@dataclass(frozen=True)
class Part:
    """Some images of a batch, and all that is drawn for them.

    Attributes:
        real: Training images, shape (b, 1, size, size), -1 to 1.
        pseudo: Rows that a pseudo-real image takes the place of.
        latents: Latent vectors of the synthetic images, shape (b, style_width).
        pseudo_latents: Latent vectors of the pseudo-real images, shape (pseudo rows, style_width).
        draws: Augmentation of real, of synthetic images, and of those in the generator's update.
        made: Synthetic images, where they are kept for both updates.
    """

    real: torch.Tensor
    pseudo: torch.Tensor
    latents: torch.Tensor
    pseudo_latents: torch.Tensor
    draws: tuple[Draws, Draws, Draws]
    made: torch.Tensor | None


class AdversarialStage:
    """Training on the images of one part of the schedule.

    Attributes:
        name: Name of the part.
        n_steps: Updates of each network.
        batch_size: Images an update, over all processes together.
        precision: Precision of training.
        networks: Networks in training.
        candidates: (step, score) of every candidate so far, lower is better.
        chosen: Averaged weights of the best candidate; empty before the first.
        chosen_step: Its step.
    """

    def __init__(
        self,
        settings: TbGanSettings,
        part: SchedulePart,
        training: ImageView,
        tuning: ImageView,
        context: TrainingContext,
        precision: Precision,
        networks: Networks,
    ) -> None:
        self.name, self.n_steps, self.batch_size = part.name, part.steps, settings.batch_size
        self.networks = networks
        self.precision: Precision = precision
        self.candidates: list[tuple[int, float]] = []
        self.chosen: dict[str, torch.Tensor] = {}
        self.chosen_step = 0
        self._settings, self._context = settings, context
        self._seed, self._device = context.seed, context.compute_device
        self._rates = settings.rates_of(part)
        self._pixels = training.pixels
        self._order = Order(len(training), settings.batch_size, context.seed, part.name)
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), lr=rate, betas=BETAS, fused=True)
            for name, network, rate in (
                ("generator", networks.generator, self._rates[0]),
                ("discriminator", networks.discriminator, self._rates[1]),
            )
        }
        self._probability = 0.0
        self._guard = DiscriminatorGuard(part.name)
        self._coarse = coarse(tuning.pixels)
        self._n_selection = min(max(2, len(tuning)), settings.selection_images)
        rows = np.linspace(0, len(training) - 1, min(len(training), N_DIVERSITY)).astype(int)
        self._diversity = pairwise_distance(training.pixels[rows]) if len(rows) > 1 else 0.0

    def step(self, step: int) -> Mapping[str, float]:
        """Update the discriminator, then the generator, then its average."""
        parts = self._parts(step)
        on_discriminator = self._update_discriminator(parts, step)
        on_generator = self._update_generator(parts, step)
        self.networks.averaged.update_parameters(self.networks.generator)
        self._guard.observe(
            step,
            on_real=on_discriminator["discriminator on real"],
            on_synthetic=on_discriminator["discriminator on synthetic"],
            loss=on_discriminator["discriminator loss"],
        )
        n_signs, signs = on_discriminator.pop(N_SIGNS), on_discriminator.pop(SIGNS)
        self._probability = moved_probability(
            self._probability,
            signs / n_signs if n_signs else None,
            target=self._settings.apa_target,
            batch_size=self.batch_size,
            speed_images=self._settings.apa.speed_images,
        )
        return {
            **on_discriminator,
            **on_generator,
            "pseudo-real probability": self._probability,
            "learning rate": self._rates[0],
            "discriminator learning rate": self._rates[1],
        }

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Score samples of the averaged generator; the best are kept."""
        images = self._samples(self._n_selection, "selection")
        values = {ENERGY: energy_distance(self._coarse, coarse(images))}
        score = values[ENERGY]
        if self._context.score is not None:
            score = self._context.score(images)
            values["tuning score"] = score  # what it is stands with the choice of the checkpoint
        require_finite(values, stage=self.name, step=step - 1)
        if step >= DIVERSITY_FROM_STEP:
            require_diverse(images[:N_DIVERSITY], self.name, step, real_distance=self._diversity)
        if not self.candidates or score < min(found for _, found in self.candidates):
            self.chosen, self.chosen_step = snapshot(self.networks.averaged.module), step
        self.candidates.append((step, score))
        return values

    def preview(self) -> Pixels:
        """A few samples of the averaged generator, always of the same latent vectors."""
        return self._samples(N_PREVIEW, "preview")

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that training changes."""
        tensors = gather_state(self._modules(), self._optimisers)
        tensors |= {CHOSEN + name: value for name, value in self.chosen.items()}
        facts = {
            "candidates": [[step, score] for step, score in self.candidates],
            "chosen_step": self.chosen_step,
            "pseudo_real_probability": self._probability,
            "discriminator": self._guard.facts(),
            "precision": self.precision,
        }
        return tensors, facts

    def load_state(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Take what `state` gave.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        chosen = {k.removeprefix(CHOSEN): v for k, v in tensors.items() if k.startswith(CHOSEN)}
        own = {k: tuple(v.shape) for k, v in self.networks.averaged.module.state_dict().items()}
        if chosen and {k: tuple(v.shape) for k, v in chosen.items()} != own:
            raise WeightsError(
                f"{self.name}: expected chosen weights of the generator of these settings, found "
                "other names or shapes; resume with the settings it was written with"
            )
        restore_state(self._modules(), self._optimisers, tensors)
        self.chosen = {name: value.clone() for name, value in chosen.items()}
        self.candidates = [(int(step), float(score)) for step, score in facts["candidates"]]
        self.chosen_step = int(facts["chosen_step"])
        self._probability = float(facts["pseudo_real_probability"])
        self._guard.restore(facts["discriminator"])
        self.precision = facts["precision"]

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "generator": self.networks.generator,
            "discriminator": self.networks.discriminator,
            "averaged": self.networks.averaged,
        }

    def _samples(self, n: int, purpose: str) -> Pixels:
        network = self.networks.averaged.module
        width = self._settings.style_width
        batches = [
            latents_of(
                range(first, min(first + IMAGES_AT_ONCE, n)),
                width,
                self._device,
                self._seed,
                self.name,
                purpose,
            )
            for first in range(0, n, IMAGES_AT_ONCE)
        ]
        return np.concatenate([drawn(network, latents) for latents in batches])

    def _parts(self, step: int) -> list[Part]:
        """This process's share of a batch, cut for gradient accumulation."""
        n, group = self.batch_size, workers()
        pairs = group.share(self._order.batch(step))
        pixels = self._pixels[[index for _, index in pairs]]
        if self._settings.flip:
            pixels = mirrored(pixels, pairs, self._seed, self.name)
        drawn_rows = pseudo_rows(self._probability, n, self._seed, self.name, step)
        pseudo = np.asarray(group.share(drawn_rows), dtype=np.bool_)
        latents, others = (
            group.share(self._normal(what, step)).to(self._device)
            for what in ("latent", "pseudo-real latent")
        )
        cut = in_parts(list(range(len(pairs))), self._settings.accumulate)
        return [
            self._part(slice(rows[0], rows[-1] + 1), pixels, pseudo, latents, others, step)
            for rows in cut
        ]

    def _part(
        self,
        rows: slice,
        pixels: Pixels,
        pseudo: NDArray[np.bool_],
        latents: torch.Tensor,
        others: torch.Tensor,
        step: int,
    ) -> Part:
        chosen = torch.from_numpy(np.flatnonzero(pseudo[rows])).to(self._device)
        draws = tuple(
            draws_for(
                self.batch_size,
                self._device,
                workers(),
                self._seed,
                self.name,
                "augmentation",
                step,
                what,
                rows=rows,
            )
            for what in ("real", "synthetic", "generator")
        )
        # Kept with their gradients, they serve both updates. Parts of a batch are cut to save
        # memory, so there they are drawn again from the same latent vectors.
        made = self._made(latents[rows]) if self._settings.accumulate == 1 else None
        real = to_signed(pixels[rows], self._device)
        return Part(
            real, chosen, latents[rows], others[rows][chosen], (draws[0], draws[1], draws[2]), made
        )

    def _normal(self, what: str, step: int) -> torch.Tensor:
        generator = torch_generator("cpu", self._seed, self.name, what, step)
        return torch.randn((self.batch_size, self._settings.style_width), generator=generator)

    def _made(self, latents: torch.Tensor) -> torch.Tensor:
        with autocast(self._device, self.precision):
            return self.networks.generator(latents).float()

    def _update_discriminator(self, parts: Sequence[Part], step: int) -> dict[str, float]:
        r1 = self._settings.r1
        is_penalised = self._settings.r1_gamma > 0 and step % r1.every == 0

        def losses_of(part: Part) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            real, synthetic = self._shown(part)
            with autocast(self._device, self.precision):
                scores = self.networks.discriminator(torch.cat([real, synthetic]), n_sets=2)
            on_real, on_synthetic = scores.float().chunk(2)
            loss = functional.softplus(-on_real).mean() + functional.softplus(on_synthetic).mean()
            is_training = torch.ones_like(on_real).index_fill(0, part.pseudo, 0.0)
            losses = {
                "discriminator loss": loss,
                "discriminator on real": on_real.mean(),
                "discriminator on synthetic": on_synthetic.mean(),
                N_SIGNS: is_training.sum(),
                SIGNS: (on_real.sign() * is_training).sum(),
            }
            total = loss
            if is_penalised:
                penalty = r1_penalty(self.networks.discriminator, real)
                losses["R1 penalty"] = penalty
                total = loss + penalty * (self._settings.r1_gamma / 2 * r1.every)
            return losses, total

        values = accumulated_update(
            self._optimisers["discriminator"],
            parts,
            losses_of,
            stage=self.name,
            step=step,
            rate=self._rates[1],
            norm_limit=self._settings.clip_norm,
        )
        values["discriminator gradient norm"] = values.pop("gradient norm")
        return values

    @torch.no_grad()
    def _shown(self, part: Part) -> tuple[torch.Tensor, torch.Tensor]:
        """Real (some pseudo-real) and synthetic images as the discriminator is shown them."""
        policy = self._settings.diffaug
        real = part.real
        if len(part.pseudo):
            real = real.index_copy(0, part.pseudo, self._made(part.pseudo_latents))
        made = self._made(part.latents) if part.made is None else part.made
        # Detached, since without a policy it is the very tensor that the generator's update needs.
        made = made.detach()
        return augmented(real, part.draws[0], policy), augmented(made, part.draws[1], policy)

    def _update_generator(self, parts: Sequence[Part], step: int) -> dict[str, float]:
        discriminator = self.networks.discriminator
        # Frozen, so that no gradient of the discriminator's weights is computed in vain.
        discriminator.requires_grad_(False).eval()

        def losses_of(part: Part) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            made = self._made(part.latents) if part.made is None else part.made
            shown = augmented(made, part.draws[2], self._settings.diffaug)
            with autocast(self._device, self.precision):
                scores = discriminator(shown)
            loss = functional.softplus(-scores.float()).mean()
            return {"generator loss": loss}, loss

        values = accumulated_update(
            self._optimisers["generator"],
            parts,
            losses_of,
            stage=self.name,
            step=step,
            rate=self._rates[0],
            norm_limit=self._settings.clip_norm,
        )
        discriminator.requires_grad_(True).train()
        values["generator gradient norm"] = values.pop("gradient norm")
        return values
