"""One part of the schedule: adversarial training of generator and discriminator on some planes."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from governance.records.errors import WeightsError
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Condition, TrainingContext
from medisynth.models.adversarial.augment import augmented
from medisynth.models.adversarial.images import IMAGES_AT_ONCE, coarse, energy_distance
from medisynth.models.adversarial.losses import discriminator_loss, generator_loss, penalised
from medisynth.models.conditioning import Vocabulary
from medisynth.models.enlarging.networks import EnlargingNetwork
from medisynth.models.tb_gan.batches import Batches, Part, moved_probability
from medisynth.models.tb_gan.drawing import Drawing
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.networks import Networks
from medisynth.models.tb_gan.settings import SchedulePart, TbGanSettings
from medisynth.models.tb_gan.trained import require_present
from medisynth.training.loop import (
    DiscriminatorGuard,
    Precision,
    accumulated_update,
    autocast,
    gather_state,
    learning_rate,
    pairwise_distance,
    require_diverse,
    require_finite,
    restore_state,
    snapshot,
)

BETAS = (0.0, 0.99)
CHOSEN = "chosen/"
N_PREVIEW = 16
N_DIVERSITY = 32
DIVERSITY_FROM_STEP = 1000  # before, a generator may well draw little more than a mean image
ENERGY = "tuning energy distance of 16 x 16 images"
N_SIGNS, SIGNS = "training images scored", "sum of their signs"


class AdversarialStage:
    """Training on the images of one part of the schedule.

    Args of the constructor:
        settings: Settings of the whole generator.
        part: The part of the schedule.
        training: Images of side `settings.size`.
        tuning: Images as large as samples are; candidates are scored against them.
        context: Seed, device, score.
        precision: Precision of training.
        networks: Networks to go on with.
        vocabulary: Labels that they are told.
        enlarger: Network that enlarges samples before they are scored or shown.

    Attributes:
        name: Name of the part.
        n_steps: Updates of each network.
        batch_size: Images an update, over all processes together.
        precision: Precision of training.
        networks: Networks in training.
        drawing: Draws samples of the averaged generator.
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
        vocabulary: Vocabulary,
        enlarger: EnlargingNetwork | None = None,
    ) -> None:
        self.name, self.n_steps, self.batch_size = part.name, part.steps, settings.batch_size
        self.networks = networks
        self.precision: Precision = precision
        self.candidates: list[tuple[int, float]] = []
        self.chosen: dict[str, torch.Tensor] = {}
        self.chosen_step = 0
        self._settings, self._context = settings, context
        average = cast(StyleSwinGenerator, networks.averaged.module)
        self.drawing = Drawing(average, vocabulary, enlarger)
        self._seed, self._device = context.seed, context.compute_device
        self._rates = settings.rates_of(part)
        self._batches = Batches(
            settings,
            part.name,
            training,
            vocabulary,
            networks.generator.n_numbers,
            context.seed,
            context.compute_device,
        )
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
        rates = tuple(self._rate_at(step, peak) for peak in self._rates)
        parts = [(part, self._kept(part)) for part in self._batches.parts(step, self._probability)]
        on_discriminator, on_real = self._update_discriminator(parts, step, rates[1])
        on_generator = self._update_generator(parts, on_real, step, rates[0])
        self.networks.averaged.update_parameters(self.networks.generator)
        self._guard.observe(
            step,
            on_real=on_discriminator["discriminator on real"],
            on_synthetic=on_discriminator["discriminator on synthetic"],
            loss=on_discriminator["discriminator loss"],
        )
        n_signs, signs = on_discriminator.pop(N_SIGNS), on_discriminator.pop(SIGNS)
        values = {
            **on_discriminator,
            **on_generator,
            "learning rate": rates[0],
            "discriminator learning rate": rates[1],
        }
        if self._settings.apa is not None:
            self._probability = moved_probability(
                self._probability,
                signs / n_signs if n_signs else None,
                target=self._settings.apa.target,
                batch_size=self.batch_size,
                speed_images=self._settings.apa.speed_images,
            )
            values["pseudo-real probability"] = self._probability
        return values

    def evaluate(self, step: int) -> Mapping[str, float]:
        """Score samples of the averaged generator; keep the best weights."""
        images = self._samples(self._n_selection, "selection")
        values = {ENERGY: energy_distance(self._coarse, coarse(images))}
        score = values[ENERGY]
        if self._context.score is not None:
            score = self._context.score(images)
            values["tuning score"] = score  # named in the checkpoint's criterion
        require_finite(values, stage=self.name, step=step - 1)
        if step >= DIVERSITY_FROM_STEP:
            require_diverse(images[:N_DIVERSITY], self.name, step, real_distance=self._diversity)
        if not self.candidates or score < min(found for _, found in self.candidates):
            self.chosen, self.chosen_step = snapshot(self.networks.averaged.module), step
        self.candidates.append((step, score))
        return values

    def preview(self) -> Pixels:
        """Draw a few samples of the averaged generator, always of the same latent vectors."""
        return self._samples(N_PREVIEW, "preview")

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that training changes, as tensors and JSON facts."""
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
        """Restore what `state` returned.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        require_present(tensors, "module/generator/", f"{self.name}: training state")
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

    def _rate_at(self, step: int, peak: float) -> float:
        """Learning rate: a warm-up, then half a cosine to a share of the largest."""
        end = peak * self._settings.final_rate_share
        return end + learning_rate(peak - end, step, self.n_steps, self._settings.warm_up_steps)

    def _samples(self, n: int, purpose: str) -> Pixels:
        device, place = self._device, (self._seed, self.name, purpose)
        firsts = range(0, n, IMAGES_AT_ONCE)
        batches = [range(first, min(first + IMAGES_AT_ONCE, n)) for first in firsts]
        return np.concatenate(
            [self.drawing.pixels(batch, Condition(), device, *place) for batch in batches]
        )

    def _kept(self, part: Part) -> torch.Tensor | None:
        """Draw synthetic images with gradients, to serve both updates; None if the batch is cut.

        Batches are cut into parts to save memory, so there each update draws them again.
        """
        return self._made(part) if self._settings.accumulate == 1 else None

    def _made(self, part: Part) -> torch.Tensor:
        with autocast(self._device, self.precision):
            return self.networks.generator(part.numbers, part.labels).float()

    def _update_discriminator(
        self, parts: Sequence[tuple[Part, torch.Tensor | None]], step: int, rate: float
    ) -> tuple[dict[str, float], list[torch.Tensor]]:
        """Make one update; return its numbers and the scores of the real images of every part."""
        settings = self._settings
        is_penalised = settings.r1.gamma > 0 and step % settings.r1.every == 0
        scores_of_real = []

        def losses_of(
            part_and_made: tuple[Part, torch.Tensor | None],
        ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            part, made = part_and_made
            on_real, on_synthetic, penalty = self._scores(
                part, *self._shown(part, made), is_penalised=is_penalised
            )
            scores_of_real.append(on_real.detach())
            loss = discriminator_loss(settings.loss, on_real, on_synthetic)
            is_training = torch.ones_like(on_real).index_fill(0, part.pseudo, 0.0)
            losses = {
                "discriminator loss": loss,
                "discriminator on real": on_real.mean(),
                "discriminator on synthetic": on_synthetic.mean(),
                N_SIGNS: is_training.sum(),
                SIGNS: (on_real.sign() * is_training).sum(),
            }
            if penalty is None:
                return losses, loss
            losses["gradient penalty"] = penalty
            return losses, loss + penalty * (settings.r1.gamma / 2 * settings.r1.every)

        values = accumulated_update(
            self._optimisers["discriminator"],
            parts,
            losses_of,
            stage=self.name,
            step=step,
            rate=rate,
            norm_limit=settings.clip_norm,
        )
        values["discriminator gradient norm"] = values.pop("gradient norm")
        return values, scores_of_real

    def _scores(
        self, part: Part, real: torch.Tensor, synthetic: torch.Tensor, *, is_penalised: bool
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return scores of real and of synthetic images, and the penalty where it is due."""
        discriminator, labels = self.networks.discriminator, part.labels

        def score(images: torch.Tensor) -> torch.Tensor:
            return discriminator(images, labels=labels)

        if not is_penalised:
            twice = None if labels is None else torch.cat([labels, labels])
            with autocast(self._device, self.precision):
                scores = discriminator(torch.cat([real, synthetic]), n_sets=2, labels=twice)
            return *scores.float().chunk(2), None
        on_real, penalty = penalised(score, real)
        if self._settings.r1.r2:
            on_synthetic, more = penalised(score, synthetic)
            return on_real, on_synthetic, penalty + more
        with autocast(self._device, self.precision):
            on_synthetic = score(synthetic).float()
        return on_real, on_synthetic, penalty

    @torch.no_grad()
    def _shown(self, part: Part, made: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment real (some pseudo-real) and synthetic images for the discriminator."""
        real = part.real
        if len(part.pseudo):
            with autocast(self._device, self.precision):
                pseudo = self.networks.generator(part.pseudo_numbers, part.pseudo_labels).float()
            real = real.index_copy(0, part.pseudo, pseudo)
        made = self._made(part) if made is None else made
        # Detached, since without a policy it is the very tensor that the generator's update needs.
        return self._augmented(real, part, 0), self._augmented(made.detach(), part, 1)

    def _augmented(self, images: torch.Tensor, part: Part, which: int) -> torch.Tensor:
        settings = self._settings
        return augmented(images, part.draws[which], settings.diffaug, settings.brightness_span)

    def _update_generator(
        self,
        parts: Sequence[tuple[Part, torch.Tensor | None]],
        scores_of_real: Sequence[torch.Tensor],
        step: int,
        rate: float,
    ) -> dict[str, float]:
        discriminator = self.networks.discriminator
        # Frozen, so that no gradient of the discriminator's weights is computed in vain.
        discriminator.requires_grad_(False).eval()

        def losses_of(
            everything: tuple[tuple[Part, torch.Tensor | None], torch.Tensor],
        ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
            (part, made), on_real = everything
            made = self._made(part) if made is None else made
            shown = self._augmented(made, part, 2)
            with autocast(self._device, self.precision):
                scores = discriminator(shown, labels=part.labels)
            # Real images were scored a moment ago, before the discriminator's update.
            loss = generator_loss(self._settings.loss, scores.float(), on_real)
            return {"generator loss": loss}, loss

        values = accumulated_update(
            self._optimisers["generator"],
            list(zip(parts, scores_of_real, strict=True)),
            losses_of,
            stage=self.name,
            step=step,
            rate=rate,
            norm_limit=self._settings.clip_norm,
        )
        discriminator.requires_grad_(True).train()
        values["generator gradient norm"] = values.pop("gradient norm")
        return values
