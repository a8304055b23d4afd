import copy

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from governance.records.errors import TrainingError
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.enlarging.description import describe
from medisynth.models.enlarging.images import bilinear, blurred, reduced, to_pixels, to_unit
from medisynth.models.enlarging.networks import Doubling, Enlarger, Noise, PatchCritic
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.models.enlarging.stage import EnlargingStage, enlarged, new_enlarger
from medisynth.training.loop import torch_generator

SETTINGS = EnlargingSettings(
    to=32,
    channels=8,
    blocks=2,
    discriminator_channels=8,
    crop=24,
    steps=80,
    batch_size=8,
    learning_rate=5e-3,
    ema=0.8,
)


def edges(n, size, seed=0):
    """Sharp bright rings on grey with speckle: what bilinear enlargement smears."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    radius = generator.uniform(0.2, 0.45, (n, 1, 1)) * size
    ring = np.abs(np.hypot(rows, columns) - radius) < 1.0
    return (np.where(ring, 210, 40) + generator.integers(0, 40, ring.shape)).astype(np.uint8)


def view(pixels, partition):
    ids = tuple(str(i) for i in range(len(pixels)))
    blank = ("",) * len(pixels)
    return ImageView(partition, pixels, ids, ids, blank, blank)


def small_stage(settings=SETTINGS, seed=0, factor=2):
    context = TrainingContext(seed, "cpu", lambda *_: None, lambda *_: None, lambda: False)
    training, tuning = view(edges(24, 32), "training"), view(edges(10, 32, seed=1), "tuning")
    return EnlargingStage(settings, factor, training, tuning, context, "fp32")


def noise_of(seed):
    return lambda row: torch_generator("cpu", seed, "test", row)


def other(**fields):
    return SETTINGS.model_copy(update=fields)


@pytest.fixture(scope="module")
def trained():
    stage = small_stage()
    for step in range(SETTINGS.steps):
        stage.step(step)
    return stage


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_an_untrained_enlarger_is_bilinear_enlargement(factor):
    small = torch.rand(2, 1, 8, 12)
    network = Enlarger(8, 1, factor)

    large = network(small, torch.randn(2, network.n_noise(8, 12)))

    expected = functional.interpolate(
        small, scale_factor=factor, mode="bilinear", align_corners=False
    )
    assert torch.equal(large, expected)


@pytest.mark.parametrize(("factor", "expected"), [(2, 64 * 6), (4, 64 * 26), (8, 64 * 106)])
def test_noise_is_one_value_for_each_pixel_of_every_block_and_every_doubling(factor, expected):
    assert Enlarger(8, 2, factor).n_noise(8, 8) == expected


def test_noise_is_weighted_by_a_gain_of_each_channel():
    layer, x, noise = Noise(2), torch.randn(3, 2, 4, 4), torch.randn(3, 1, 4, 4)
    with torch.no_grad():
        layer.gain.copy_(torch.tensor([0.0, 0.5]).reshape(2, 1, 1))

    result = layer(x, noise)

    assert torch.equal(result[:, 0], x[:, 0])
    assert torch.allclose(result[:, 1], x[:, 1] + 0.5 * noise[:, 0])


def test_the_four_pixels_that_come_from_one_start_alike():
    small = torch.rand(1, 8, 3, 3)

    large = Doubling(8, 4)(small, torch.zeros(1, 1, 6, 6))

    alike = large[..., ::2, ::2].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.allclose(large, alike, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_every_factor_trains_and_makes_whole_images_between_0_and_1(factor):
    stage = small_stage(other(steps=2), factor=factor)
    for step in range(2):
        stage.step(step)
    small = torch.rand(3, 1, 32 // factor, 32 // factor)

    large = enlarged(stage.final, small, noise_of(0))

    assert large.shape == (3, 1, 32, 32)
    assert 0 <= large.min() <= large.max() <= 1
    assert stage.preview().shape == (8, 32, 32)


def test_all_weights_of_both_networks_are_trained():
    stage = small_stage(other(steps=4))
    networks = (stage.enlarger, stage.discriminator)
    before = [[p.detach().clone() for p in network.parameters()] for network in networks]

    for step in range(4):
        stage.step(step)

    for network, old in zip(networks, before, strict=True):
        pairs = zip(network.named_parameters(), old, strict=True)
        still = {name for (name, p), q in pairs if torch.equal(p, q)}
        # What is added to every score cancels between a crop and its enlargement; the penalty on
        # scores alone moves it.
        assert still == set()


def test_the_critic_scores_patches_of_two_sizes_and_sees_the_enlargement():
    critic, images = PatchCritic(8), torch.rand(3, 1, 32, 48)

    near, far = critic(images, images)
    other_near, _ = critic(images, torch.rand(3, 1, 32, 48))

    assert (near.shape, far.shape) == ((3, 1, 16, 24), (3, 1, 8, 12))
    assert not torch.equal(near, other_near)


@pytest.mark.parametrize(("which", "n_pixels"), [(0, 14), (1, 32)])
def test_a_score_sees_a_patch_of_the_size_that_is_said(which, n_pixels):
    critic, images = PatchCritic(8), torch.rand(1, 1, 96, 96, requires_grad=True)
    scores = critic(images, images.detach())[which]
    middle = scores.shape[-1] // 2

    (gradient,) = torch.autograd.grad(scores[0, 0, middle, middle], images)

    rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == n_pixels


def test_the_discriminator_loss_pairs_each_crop_with_its_own_enlargement():
    stage = small_stage()
    (part,) = stage._parts(0)
    with torch.no_grad():
        on_real = stage.discriminator(part.real, part.smooth)
        on_made = stage.discriminator(part.smooth, part.smooth)  # untrained: bilinear
    expected = np.mean(
        [functional.softplus(m - r).mean().item() for r, m in zip(on_real, on_made, strict=True)]
    )

    numbers = stage.step(0)

    assert numbers["discriminator loss"] == pytest.approx(expected, rel=1e-5)
    assert numbers["content loss of the reduced image (L1)"] == pytest.approx(
        (reduced(part.smooth, 12) - part.small).abs().mean().item(), rel=1e-5
    )


def test_a_few_dozen_updates_fit_four_crops_better_than_bilinear_enlargement():
    pixels = edges(4, 32)
    undisturbed = {"blur_px": 0.0, "grain": 0.0}
    alone = {"adversarial_weight": 0.0, "reduced_weight": 0.0}
    settings = other(crop=32, batch_size=4, ema=0.0, **alone, **undisturbed)
    context = TrainingContext(0, "cpu", lambda *_: None, lambda *_: None, lambda: False)
    both = view(pixels, "training"), view(pixels, "tuning")
    stage = EnlargingStage(settings, 2, *both, context, "fp32")

    for step in range(60):
        stage.step(step)
    numbers = stage.evaluate(60)

    plain = numbers["tuning content loss of bilinear enlargement"]
    assert numbers["tuning content loss"] < 0.75 * plain


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [({"blur_px": 0.0, "grain": 0.0}, True), ({"blur_px": 0.0}, False), ({"grain": 0.0}, False)],
)
def test_small_crops_are_blurred_and_grained_in_training(changes, is_same):
    pixels = edges(4, 32)
    context = TrainingContext(0, "cpu", lambda *_: None, lambda *_: None, lambda: False)
    both = view(pixels, "training"), view(pixels, "tuning")
    settings = other(crop=32, batch_size=4, **changes)

    (part,) = EnlargingStage(settings, 2, *both, context, "fp32")._parts(1)

    clean = reduced(part.real, 16)
    assert torch.equal(part.small, clean) is is_same
    assert (part.small - clean).abs().max() < 0.7
    assert torch.equal(part.smooth, bilinear(part.small, 2))


def test_a_blur_keeps_the_mean_and_a_flat_image():
    images = torch.zeros(1, 1, 9, 9)
    images[0, 0, 4, 4] = 1.0

    soft = blurred(images, 0.8)

    assert soft.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert soft[0, 0, 4, 4].item() < 0.5
    assert torch.allclose(blurred(torch.full((1, 1, 9, 9), 0.3), 1.5), torch.tensor(0.3))


def test_reduced_again_the_result_is_near_the_small_image(trained):
    small = reduced(to_unit(edges(10, 32, seed=2), "cpu"), 16)
    large = enlarged(trained.final, small, noise_of(0))

    distance = (reduced(large, 16) - small).abs().mean()

    assert distance < (reduced(bilinear(small, 2), 16) - small).abs().mean()
    assert distance < 0.02


def test_two_draws_differ_and_the_same_seed_repeats_however_images_are_batched(trained):
    small = reduced(to_unit(edges(20, 32, seed=2), "cpu"), 16)

    one, again, third = (
        to_pixels(enlarged(trained.final, small, noise_of(seed))) for seed in (0, 0, 1)
    )
    alone = [
        to_pixels(enlarged(trained.final, small[i : i + 1], lambda row, i=i: noise_of(0)(i)))
        for i in range(20)
    ]

    assert np.array_equal(one, again)
    assert np.array_equal(one, np.concatenate(alone))
    assert (one != third).mean() > 0.01


def test_the_bilinear_yardstick_is_its_own_error():
    stage = small_stage()
    real = to_unit(edges(10, 32, seed=1), "cpu")
    expected = (bilinear(reduced(real, 16), 2) - real).abs().mean().item()

    numbers = stage.evaluate(1)

    assert numbers["tuning content loss of bilinear enlargement"] == pytest.approx(expected)
    assert numbers["tuning content loss"] == pytest.approx(expected)  # untrained


def test_a_step_depends_on_its_number_and_not_on_what_was_drawn_before():
    one, second = small_stage(), small_stage()
    torch.rand(1000)
    second._order.batch(7)

    assert one.step(70) == second.step(70)


def test_four_steps_are_two_steps_saved_and_loaded_and_two_steps_bit_by_bit():
    whole, first, second = (small_stage() for _ in range(3))
    numbers = [whole.step(step) for step in range(4)]
    for step in range(2):
        first.step(step)

    tensors, facts = first.state()
    second.load_state(checkpoint.decode(checkpoint.encode(tensors, {}))[0], facts)
    later = [second.step(step) for step in range(2, 4)]

    assert later == numbers[2:]
    states = [checkpoint.encode(stage.state()[0], {}) for stage in (whole, second)]
    assert states[0] == states[1]
    assert np.array_equal(whole.preview(), second.preview())


def test_micro_batches_make_the_update_of_the_whole_batch():
    one, parts = small_stage(), small_stage(other(accumulate=2))

    for step in range(3):
        assert parts.step(step) == pytest.approx(one.step(step), rel=2e-3, abs=2e-4)


def test_bf16_trains_to_finite_numbers_and_repeats():
    context = TrainingContext(0, "cpu", lambda *_: None, lambda *_: None, lambda: False)
    both = view(edges(24, 32), "training"), view(edges(10, 32, seed=1), "tuning")
    stages = [EnlargingStage(SETTINGS, 2, *both, context, "bf16") for _ in range(2)]

    numbers = [[stage.step(step) for step in range(3)] for stage in stages]

    assert numbers[0] == numbers[1]
    assert np.isfinite(list(numbers[0][2].values())).all()


def test_initial_weights_come_from_the_seed():
    def flat(seed):
        network = new_enlarger(SETTINGS, 2, seed)
        return torch.cat([p.detach().flatten() for p in network.parameters()])

    assert torch.equal(flat(1), flat(1))
    assert not torch.equal(flat(1), flat(2))


def test_the_learning_rate_is_half_a_cosine_unless_constant():
    rates = [
        [small_stage(other(schedule=name)).step(step)["learning rate"] for step in (0, 40)]
        for name in ("half cosine", "constant")
    ]

    assert rates == [[5e-3, pytest.approx(2.5e-3)], [5e-3, 5e-3]]


def test_a_saturated_discriminator_stops_the_training():
    stage = small_stage()
    for _ in range(199):
        stage._guard.observe(0, on_real=9.0, on_synthetic=-9.0, loss=1e-6)
    stage._guard._seen.append((9.0, -9.0, 1e-6))

    with pytest.raises(TrainingError, match="super-resolution, step 5: the discriminator is sat"):
        stage._guard.observe(4, on_real=9.0, on_synthetic=-9.0, loss=1e-6)


def test_values_that_are_not_finite_are_noticed_in_enlarging():
    network = copy.deepcopy(small_stage().final)
    with torch.no_grad():
        network.out.bias.fill_(float("inf"))

    with pytest.raises(TrainingError, match="super-resolution network gave values that are not"):
        enlarged(network, torch.rand(1, 1, 4, 4), noise_of(0))


def test_a_view_of_one_image_is_enough():
    context = TrainingContext(0, "cpu", lambda *_: None, lambda *_: None, lambda: False)
    stage = EnlargingStage(
        SETTINGS, 2, view(edges(1, 32), "training"), view(edges(1, 32), "tuning"), context, "fp32"
    )

    assert np.isfinite(list(stage.step(0).values())).all()
    assert stage.preview().shape == (1, 32, 32)


def test_the_description_says_what_was_trained_in_words_with_numbers():
    fields = describe(SETTINGS, 2, small_stage())

    assert set(fields) == {"architecture", "losses", "optimiser", "schedule", "augmentation"}
    assert "2-fold pixel shuffle and noise of learned strength" in fields["architecture"]
    assert "0.015 x relativistic softplus" in fields["losses"]
    assert "80 steps of 8 crops of 24 x 24" in fields["schedule"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"to": 64, "crop": 72}, "crop is 72; allowed are 16 to 64"),
        ({"crop": 36}, "multiple of 8"),
        ({"batch_size": 6, "accumulate": 4}, r"accumulate is 4; allowed are divisors of .* \(6\)"),
        ({"speckle": 0.1}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        EnlargingSettings(**fields)
