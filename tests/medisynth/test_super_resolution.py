import numpy as np
import pytest
import torch
from torch.nn import functional

from medisynth.data.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.dsr_gan.batches import reduced, to_unit
from medisynth.models.dsr_gan.enlarging_networks import Discriminator, Enlarger, ResidualBlock
from medisynth.models.dsr_gan.settings import DsrGanSettings, SuperResolutionSettings
from medisynth.models.dsr_gan.super_resolution import SuperResolutionStage, new_networks, speckled

SETTINGS = SuperResolutionSettings(
    to=32,
    channels=8,
    blocks=2,
    discriminator_channels=8,
    crop=24,
    steps=110,
    content_only_steps=100,
    batch_size=8,
    learning_rate=5e-3,
    speckle=0.0,
    ema=0.8,
)

DIFFUSION = {"size": 16, "unshuffle": 1, "channels": (8,)}


def edges(n, size, seed=0):
    """Sharp bright rings on grey: what bilinear enlargement smears."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    radius = generator.uniform(0.2, 0.45, (n, 1, 1)) * size
    ring = np.abs(np.hypot(rows, columns) - radius) < 1.0
    return np.where(ring, 250, 40).astype(np.uint8)


def view(pixels, partition):
    ids = tuple(str(i) for i in range(len(pixels)))
    blank = ("",) * len(pixels)
    return ImageView(partition, pixels, ids, ids, blank, blank)


def whole(settings, **other):
    return DsrGanSettings(diffusion=DIFFUSION, super_resolution=settings, **other)


def small_stage(settings=SETTINGS, seed=0, **other):
    context = TrainingContext(seed, "cpu", lambda *_: None, lambda *_: None, lambda: False)
    return SuperResolutionStage(
        whole(settings, **other),
        view(edges(24, 32), "training"),
        view(edges(10, 32, seed=1), "tuning"),
        context,
        "fp32",
    )


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_an_untrained_enlarger_is_bilinear_enlargement(factor):
    small = torch.rand(2, 1, 8, 8)

    large = Enlarger(8, 1, factor)(small)

    expected = functional.interpolate(
        small, scale_factor=factor, mode="bilinear", align_corners=False
    )
    assert torch.equal(large, expected)


def test_every_layer_of_a_residual_block_reads_the_layer_before_it():
    # The published block gave its input to every layer, so that only the last one mattered.
    block = ResidualBlock(4)
    x = torch.randn(1, 4, 6, 6)

    block(x).square().sum().backward()

    assert all(bool((p.grad != 0).any()) for p in block.parameters())


def test_all_weights_of_both_networks_are_trained():
    stage = small_stage(SETTINGS.model_copy(update={"content_only_steps": 0, "steps": 3}))
    networks = (stage.enlarger, stage.discriminator)
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]

    for step in range(3):
        stage.step(step)

    for network, old in zip(networks, before, strict=True):
        names = [name for name, _ in network.named_parameters()]
        pairs = zip(names, network.parameters(), old, strict=True)
        still = [name for name, p, q in pairs if torch.equal(p, q)]
        # The relativistic loss compares scores with the mean score of the other side: what is
        # added to every score cancels, so the last bias moves by rounding only, or not at all.
        last_bias = {names[-1]} if network is stage.discriminator else set()
        assert set(still) <= last_bias


def test_the_discriminator_scores_patches():
    assert Discriminator(8)(torch.rand(3, 1, 32, 48)).shape == (3, 1, 4, 6)


def test_the_discriminator_rests_while_the_generator_learns_content_alone():
    stage = small_stage()
    before = [p.detach().clone() for p in stage.discriminator.parameters()]

    first, late = stage.step(0), None
    unchanged = all(
        torch.equal(p, q) for p, q in zip(stage.discriminator.parameters(), before, strict=True)
    )
    late = stage.step(SETTINGS.content_only_steps)

    assert unchanged
    assert set(first) == {"generator loss", "content loss (L1)", "gradient norm", "learning rate"}
    assert first["generator loss"] == first["content loss (L1)"]
    assert set(late) - set(first) == {
        "discriminator loss",
        "discriminator on real",
        "discriminator on synthetic",
        "discriminator gradient norm",
    }


def test_the_hinge_loss_is_that_of_its_definition():
    stage = small_stage()

    numbers = stage.step(SETTINGS.content_only_steps)

    # An untrained discriminator scores within -1 and 1, where the hinge is linear.
    assert abs(numbers["discriminator on real"]) < 0.9
    expected = 2 - numbers["discriminator on real"] + numbers["discriminator on synthetic"]
    assert numbers["discriminator loss"] == pytest.approx(expected, abs=1e-4)


def test_training_beats_bilinear_enlargement_on_images_it_has_not_seen():
    stage = small_stage()

    for step in range(SETTINGS.steps):
        stage.step(step)
    numbers = stage.evaluate(SETTINGS.steps)

    plain = numbers["tuning content loss of bilinear enlargement"]
    assert numbers["tuning content loss"] < 0.8 * plain


def test_the_bilinear_yardstick_is_its_own_error():
    stage = small_stage()
    real = to_unit(edges(10, 32, seed=1), "cpu")
    smooth = functional.interpolate(
        reduced(real, 16), scale_factor=2, mode="bilinear", align_corners=False
    )

    numbers = stage.evaluate(1)

    expected = (smooth - real).abs().mean().item()
    assert numbers["tuning content loss of bilinear enlargement"] == pytest.approx(expected)
    assert numbers["tuning content loss"] == pytest.approx(expected)  # untrained


def test_a_step_depends_on_its_number_and_not_on_what_was_drawn_before():
    one, other = small_stage(), small_stage()
    torch.rand(1000)
    other._order.batch(7)

    assert one.step(105) == other.step(105)


def test_initial_weights_come_from_the_seed():
    def flat(seed):
        networks = new_networks(whole(SETTINGS), seed)
        return torch.cat([p.detach().flatten() for n in networks for p in n.parameters()])

    assert torch.equal(flat(1), flat(1))
    assert not torch.equal(flat(1), flat(2))


def test_speckle_grows_with_the_square_root_of_brightness_and_leaves_black_black():
    small = torch.tensor([0.0, 0.04, 0.25]).reshape(1, 1, 1, 3)
    ones = torch.ones_like(small)

    assert speckled(small, ones, 0.1).flatten().tolist() == pytest.approx([0, 0.06, 0.30])
    assert speckled(small, -9 * ones, 0.1).min().item() == 0
    assert torch.equal(speckled(small, ones, 0.0), small)


def test_speckle_in_sampling_is_that_of_training_unless_set():
    assert SuperResolutionSettings(speckle=0.2).speckle_in_sampling == 0.2
    assert SuperResolutionSettings(speckle=0.2, sampling_speckle=0.0).speckle_in_sampling == 0.0
