"""A generator that cannot draw eight images it is shown will draw none from noise."""

import numpy as np
import pytest
import torch

from medisynth.data.phantom import PhantomSettings, simulate_image
from medisynth.data.phantom.cohort import plan_cohort
from medisynth.data.reading.decode import to_square
from medisynth.models.adversarial.images import to_signed
from medisynth.models.adversarial.layers import doubled
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training.loop import learning_rate, seeded_weights
from pipelines.config.model import load_config

N_PAIRS, N_UPDATES, N_WARM_UP = 8, 60, 2
WINDOW = 8  # in the images, the sides of windows at 64 pixels and of single places at 8


def phantoms(size):
    """One phantom of each patient, -1 to 1, without the finest speckle: nothing fits it so soon."""
    settings = PhantomSettings(n_patients=N_PAIRS, seed=0, image_height_px=120)
    first = {image.patient: image for image in reversed(plan_cohort(settings))}
    greys = [to_square(simulate_image(settings, image), size // 2) for image in first.values()]
    return doubled(to_signed(np.stack(greys), "cpu"))


def laptop():
    config = load_config(preset="laptop", overrides=["model.name=tb-gan"])
    return TbGanSettings.model_validate(config.model.settings)


def fitted(settings, images):
    """What the generator draws for fixed numbers after a few updates at the preset's own rates."""
    with seeded_weights(0, "fit"):
        generator = StyleSwinGenerator(settings)
    generator_of_numbers = torch.Generator().manual_seed(0)
    numbers = torch.randn(N_PAIRS, generator.n_numbers, generator=generator_of_numbers)
    peak = settings.learning_rate
    optimiser = torch.optim.Adam(generator.parameters(), betas=(0.0, 0.99), fused=True)
    end = peak * settings.final_rate_share
    for step in range(N_UPDATES):
        optimiser.param_groups[0]["lr"] = end + learning_rate(
            peak - end, step, N_UPDATES, N_WARM_UP
        )
        with torch.autocast("cpu", torch.bfloat16):
            drawn = generator(numbers).float()
        optimiser.zero_grad()
        (drawn - images).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        return generator(numbers)


def edge_ratio(images):
    """Mean gradient across edges of windows over that elsewhere; about 1 where nothing shows."""
    at_edge = (torch.arange(images.shape[-1] - 1) + 1) % WINDOW == 0
    steps = [images.diff(dim=dim).abs().mean(dim=(0, 1, 5 - dim)) for dim in (2, 3)]
    return float(sum(s[at_edge].mean() for s in steps) / sum(s[~at_edge].mean() for s in steps))


def test_the_edge_ratio_of_blocks_is_large_and_of_a_slope_1():
    blocks = torch.arange(8.0).repeat_interleave(8).expand(1, 1, 64, 64)
    slope = torch.arange(64.0).expand(1, 1, 64, 64)

    assert edge_ratio(slope) == pytest.approx(1)
    assert edge_ratio(blocks + slope / 64) > 10


def test_the_laptop_generator_fits_eight_pairs_in_sixty_updates_without_showing_windows():
    settings = laptop()
    images = phantoms(settings.size)
    drawn = fitted(settings, images)

    assert float((drawn - images).square().mean()) <= 0.04
    assert edge_ratio(drawn) <= 1.5
