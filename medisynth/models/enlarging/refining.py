"""Training of a doubling on a generator's own images against whole real ones.

A network trained on reductions of real images turns small faults of generated images into threads.
This one is trained on the images that it will enlarge: a pool of the generator's images, unpaired
with real ones. The discriminator judges whole images; the reduced result must stay near the small
image, so that the generator's content is kept.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Tensors, TrainingContext
from medisynth.models.adversarial.augment import augmented, draws_for
from medisynth.models.adversarial.images import coarse, energy_distance, mirrored
from medisynth.models.adversarial.losses import discriminator_loss, generator_loss, penalised
from medisynth.models.adversarial.residual_discriminator import ResidualDiscriminator
from medisynth.models.enlarging.candidates import Candidates
from medisynth.models.enlarging.images import reduced, reduced_pixels, to_pixels, to_unit
from medisynth.models.enlarging.networks import Enlarger
from medisynth.models.enlarging.settings import RefiningSettings
from medisynth.models.enlarging.stage import enlarged
from medisynth.training.loop import (
    DiscriminatorGuard,
    Order,
    Precision,
    accumulated_update,
    autocast,
    averaged,
    gather_state,
    learning_rate,
    pairwise_distance,
    require_diverse,
    require_finite,
    restore_state,
    seeded_weights,
    torch_generator,
    workers,
)

STAGE = "refining"
FACTOR = 2
BETAS = (0.0, 0.99)
POLICY = ("brightness", "translation")
BRIGHTNESS_SPAN = 0.3
DEQUANTISATION = 1 / 255  # width of the noise on real images, -1 to 1: half a grey level
N_PREVIEWED = 8
ENERGY = "energy distance of 16 x 16 images"

Losses = tuple[dict[str, torch.Tensor], torch.Tensor]


def new_refiner(settings: RefiningSettings, seed: int) -> Enlarger:
    """Build the generator with weights drawn from the seed."""
    with seeded_weights(seed, STAGE):
        network = Enlarger(settings.channels, settings.blocks, FACTOR)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class RefiningStage:
    """Training of a network that doubles; fulfils `medisynth.training.loop.Stage`.

    Args of the constructor:
        settings: Settings of the stage.
        training: Images of the final side, at least twice that of the pool.
        tuning: Images of the final side.
        pool: The generator's images to learn on, shape (n, size, size), uint8.
        held_back: Other images of the generator, on which candidates are scored.
        finish: Enlarges the averaged network's result to the final side, (b, 1, side, side), 0 to
            1; for whole images to score.
        context: Seed, device and score.
        precision: Precision of training.

    Attributes:
        name: "refining".
        n_steps: Updates of each network.
        batch_size: Images an update, over all processes together.
        enlarger: The generator in training.
        discriminator: The discriminator.
        candidates: Averaged weights that were scored, and the best of them.
    """

    name = STAGE

    def __init__(
        self,
        settings: RefiningSettings,
        training: ImageView,
        tuning: ImageView,
        pool: Pixels,
        held_back: Pixels,
        finish: Callable[[torch.Tensor], torch.Tensor],
        context: TrainingContext,
        precision: Precision,
    ) -> None:
        self.n_steps, self.batch_size = settings.steps, settings.batch_size
        self.candidates = Candidates(1, by_score=True)
        self._settings, self._context, self._finish = settings, context, finish
        self._seed, self._device = context.seed, context.compute_device
        self._precision: Precision = precision
        small_side = pool.shape[-1]
        self._real, self._pool = reduced_pixels(training.pixels, FACTOR * small_side), pool
        self._held_back, self._coarse = held_back, coarse(tuning.pixels)
        self._order = Order(len(training), settings.batch_size, context.seed, STAGE)
        self._pool_order = Order(len(pool), settings.batch_size, context.seed, f"{STAGE} pool")
        enlarger = new_refiner(settings, context.seed)
        with seeded_weights(context.seed, f"{STAGE} discriminator"):
            discriminator = ResidualDiscriminator(settings.discriminator_widths)
        discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.enlarger = workers().wrap(enlarger.to(self._device))
        self.discriminator = workers().wrap(discriminator.to(self._device))
        self._n_noise = enlarger.n_noise(small_side, small_side)
        self._averaged = averaged(self.enlarger, settings.ema)
        self._guard = DiscriminatorGuard(STAGE)
        self._optimisers = {
            name: torch.optim.Adam(network.parameters(), betas=BETAS, fused=True)
            for name, network in (("enlarger", self.enlarger), ("critic", self.discriminator))
        }

    @property
    def final(self) -> Enlarger:
        """Return the averaged generator."""
        return cast(Enlarger, self._averaged.module.eval())

    def step(self, step: int) -> Mapping[str, float]:
        """Update the discriminator, then the generator, then its average."""
        own = self._settings
        share = own.final_rate_share + (1 - own.final_rate_share) * learning_rate(
            1.0, step, own.steps, own.warm_up_steps
        )
        real, small, noise = self._batch(step)
        with autocast(self._device, self._precision):
            made = self.enlarger(small, noise)
        on_critic, on_real = self._update_discriminator(real, made, step, share)
        values = on_critic | self._update_generator(small, made, on_real, step, share)
        self._averaged.update_parameters(self.enlarger)
        self._guard.observe(
            step,
            on_real=values["discriminator on real"],
            on_synthetic=values["discriminator on synthetic"],
            loss=values["discriminator loss"],
        )
        return {**values, "learning rate": own.learning_rate * share}

    @torch.no_grad()
    def evaluate(self, step: int) -> Mapping[str, float]:
        """Score whole images of the averaged network; keep the best networks."""
        images = self._drawn(self._held_back, "selection")
        values = {ENERGY: energy_distance(self._coarse, coarse(images))}
        score = values[ENERGY]
        if self._context.score is not None:
            score = self._context.score(images)
            values["tuning score"] = score  # named in the checkpoint's criterion
        require_finite(values, stage=STAGE, step=step - 1)
        self.candidates.add(step, score, self.final)
        return values

    @torch.no_grad()
    def preview(self) -> Pixels:
        """Make a few whole images with the averaged network, always from the same small ones.

        Raises:
            TrainingError: After half of the steps or later, the images are all but one image.
        """
        images = self._drawn(self._held_back[:N_PREVIEWED], "preview")
        n_updates = int(self._averaged.n_averaged)
        if len(images) > 1 and 2 * n_updates >= self.n_steps:
            distance = pairwise_distance(self._real[:N_PREVIEWED])
            require_diverse(images, STAGE, n_updates, real_distance=distance)
        return images

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that training changes, as tensors and JSON facts."""
        kept, facts = self.candidates.state()
        tensors = gather_state(self._modules(), self._optimisers) | kept
        return tensors, {
            **facts,
            "precision": self._precision,
            "discriminator": self._guard.facts(),
        }

    def load_state(self, tensors: Tensors, facts: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            WeightsError: Names or shapes do not fit.
        """
        restore_state(self._modules(), self._optimisers, tensors)
        self.candidates.load_state(tensors, facts)
        self._guard.restore(facts["discriminator"])

    def _modules(self) -> dict[str, nn.Module]:
        return {
            "enlarger": self.enlarger,
            "discriminator": self.discriminator,
            "average": self._averaged,
        }

    def _drawn(self, small: Pixels, purpose: str) -> Pixels:
        def noise_of(row: int) -> torch.Generator:
            return torch_generator(self._device, self._seed, STAGE, purpose, row)

        images = enlarged(self.final, to_unit(small, self._device), noise_of)
        return to_pixels(self._finish(images))

    def _batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw this process's real images (-1 to 1), small images (0 to 1) and noise."""
        share, n = workers().share, self.batch_size
        batches = []
        for pixels, order, what in (
            (self._real, self._order, "real"),
            (self._pool, self._pool_order, "pool"),
        ):
            pairs = share(order.batch(step))
            chosen = pixels[[index for _, index in pairs]]
            batches.append(
                to_unit(mirrored(chosen, pairs, self._seed, f"{STAGE} {what}"), self._device)
            )
        generator = torch_generator(self._device, self._seed, STAGE, "noise", step)
        noise = torch.randn((n, self._n_noise), device=self._device, generator=generator)
        softening = torch.rand((n, *batches[0].shape[1:]), device=self._device, generator=generator)
        real = 2 * batches[0] - 1 + share(softening) * DEQUANTISATION
        return real, batches[1], share(noise)

    def _shown(self, images: torch.Tensor, step: int, what: str) -> torch.Tensor:
        """Augment images for the discriminator."""
        draws = draws_for(
            self.batch_size, self._device, workers(), self._seed, STAGE, "augmentation", step, what
        )
        return augmented(images, draws, POLICY, BRIGHTNESS_SPAN)

    def _update_discriminator(
        self, real: torch.Tensor, made: torch.Tensor, step: int, share: float
    ) -> tuple[dict[str, float], torch.Tensor]:
        """Make one update; return its numbers and the scores of the real images."""
        own = self._settings
        is_penalised = own.gamma > 0 and step % own.every == 0
        shown = [
            self._shown(real, step, "real"),
            self._shown(2 * made.detach() - 1, step, "synthetic"),
        ]
        kept: list[torch.Tensor] = []

        def losses_of(_: None) -> Losses:
            penalties = []
            if is_penalised:
                scores = []
                for images in shown:
                    found, penalty = penalised(self.discriminator, images)
                    scores.append(found)
                    penalties.append(penalty)
                on_real, on_made = scores
            else:
                with autocast(self._device, self._precision):
                    both = self.discriminator(torch.cat(shown), n_sets=2)
                on_real, on_made = both.float().chunk(2)
            kept.append(on_real.detach())
            loss = discriminator_loss("relativistic", on_real, on_made)
            losses = {
                "discriminator loss": loss,
                "discriminator on real": on_real.mean(),
                "discriminator on synthetic": on_made.mean(),
            }
            if not penalties:
                return losses, loss
            penalty = penalties[0] + penalties[1]
            losses["gradient penalty"] = penalty
            return losses, loss + penalty * (own.gamma / 2 * own.every)

        values = accumulated_update(
            self._optimisers["critic"],
            [None],
            losses_of,
            stage=STAGE,
            step=step,
            rate=own.discriminator_learning_rate * share,
            norm_limit=own.clip_norm,
        )
        values["discriminator gradient norm"] = values.pop("gradient norm")
        return values, kept[0]

    def _update_generator(
        self,
        small: torch.Tensor,
        made: torch.Tensor,
        on_real: torch.Tensor,
        step: int,
        share: float,
    ) -> dict[str, float]:
        own = self._settings

        def losses_of(_: None) -> Losses:
            shown = self._shown(2 * made - 1, step, "generator")
            with autocast(self._device, self._precision):
                scores = self.discriminator(shown)
            # Real images were scored a moment ago, before the discriminator's update.
            adversarial = generator_loss("relativistic", scores.float(), on_real)
            kept = functional.l1_loss(reduced(made, small.shape[-1]), small)
            total = adversarial + own.reduced_weight * kept
            return {
                "generator loss": total,
                "adversarial loss": adversarial,
                "content loss of the reduced image (L1)": kept,
            }, total

        # Frozen, so that no gradient of the discriminator's weights is computed in vain.
        self.discriminator.requires_grad_(False)
        values = accumulated_update(
            self._optimisers["enlarger"],
            [None],
            losses_of,
            stage=STAGE,
            step=step,
            rate=own.learning_rate * share,
            norm_limit=own.clip_norm,
        )
        self.discriminator.requires_grad_(True)
        return values
