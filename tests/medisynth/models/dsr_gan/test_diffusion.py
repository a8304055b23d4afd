import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from governance.records.errors import DataError
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.dsr_gan.batches import Augmentation, augmentation_of, augmented, nothing_told
from medisynth.models.dsr_gan.diffusion import DiffusionStage
from medisynth.models.dsr_gan.diffusion import new_network as network_of
from medisynth.models.dsr_gan.fitted import (
    drawn_reference,
    fit_before_training,
    fit_mean_image,
    fit_scaling,
    histograms_of,
    matched,
)
from medisynth.models.dsr_gan.network import UNet
from medisynth.models.dsr_gan.objectives import (
    denoised,
    denoising_loss,
    noise_levels,
    preconditioning,
    sample_residuals,
)
from medisynth.models.dsr_gan.settings import DiffusionSettings, DsrGanSettings
from medisynth.models.enlarging.images import crop_of, reduced, reduced_pixels, to_pixels, to_unit

SETTINGS = DiffusionSettings(
    size=8,
    unshuffle=1,
    channels=(16, 16),
    steps=80,
    warm_up_steps=4,
    batch_size=16,
    sampler_steps=40,
    learning_rate=5e-3,
    ema=0.9,
    max_zoom=1.0,
    max_rotation_rad=0.0,
)


def discs(n, size, seed=0):
    """Grey discs of drawn radius and brightness on black."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    radius = generator.uniform(0.2, 0.45, (n, 1, 1)) * size
    grey = generator.uniform(80, 250, (n, 1, 1))
    return np.where(np.hypot(rows, columns) < radius, grey, 0).astype(np.uint8)


def view(pixels, partition="training"):
    ids = tuple(str(i) for i in range(len(pixels)))
    blank = ("",) * len(pixels)
    return ImageView(partition, pixels, ids, ids, blank, blank)


def context(seed=0):
    return TrainingContext(seed, "cpu", lambda *_: None, lambda *_: None, should_stop=lambda: False)


def whole(settings, **other):
    enlarging = {"to": 16, "crop": 16}
    return DsrGanSettings(diffusion=settings, super_resolution=enlarging, **other)


def new_network(settings, seed):
    return network_of(whole(settings), seed, (0, 0))


def small_stage(settings=SETTINGS, seed=0, training=None, **other):
    training = training or view(discs(32, 16))
    everything = whole(settings, **other)
    return DiffusionStage(
        everything,
        training,
        view(discs(12, 16, seed=1), "tuning"),
        context(seed),
        "fp32",
        fit_before_training(training, everything, seed, "cpu"),
    )


def noisy_network():
    """A network that is not zero, so that equations are tested off their trivial point."""
    network = new_network(SETTINGS, seed=1)
    with torch.no_grad():
        network.out.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    return network


def test_preconditioning_is_table_1_of_karras_at_sigma_equal_to_sigma_data():
    c_skip, c_out, c_in, c_noise = preconditioning(torch.tensor([0.5]), sigma_data=0.5)

    assert c_skip.item() == pytest.approx(0.5)
    assert c_out.item() == pytest.approx(0.5 / math.sqrt(2))
    assert c_in.item() == pytest.approx(math.sqrt(2))
    assert c_noise.item() == pytest.approx(math.log(0.5) / 4)


def test_loss_is_the_weighted_error_of_the_denoised_image():
    network = noisy_network()
    generator = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(6, 1, 8, 8, generator=generator) for _ in range(2))
    sigma = torch.tensor([0.01, 0.1, 0.5, 1.0, 5.0, 50.0])
    told = nothing_told(6, "cpu")

    loss = denoising_loss(network, clean, noise, sigma, told, 0.5)

    estimate = denoised(network, clean + sigma[:, None, None, None] * noise, sigma, told, 0.5)
    weight = (sigma.square() + 0.25) / (sigma * 0.5).square()  # lambda(sigma), equation 8
    expected = (weight * (estimate - clean).square().mean((1, 2, 3))).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_network_that_knows_nothing_has_a_loss_of_one_at_every_noise_level():
    network = new_network(SETTINGS, seed=0)  # its last layer starts as zero
    generator = torch.Generator().manual_seed(1)
    for level in (0.01, 0.5, 20.0):
        clean = 0.5 * torch.randn(256, 1, 8, 8, generator=generator)
        noise = torch.randn(256, 1, 8, 8, generator=generator)
        sigma = torch.full((256,), level)

        loss = denoising_loss(network, clean, noise, sigma, nothing_told(256, "cpu"), 0.5)

        assert loss.item() == pytest.approx(1, abs=0.05)


def test_noise_levels_fall_from_the_largest_to_the_smallest_and_end_at_zero():
    levels = noise_levels(SETTINGS)

    assert len(levels) == SETTINGS.sampler_steps + 1
    assert levels[0] == pytest.approx(80.0)
    assert levels[-2:] == [pytest.approx(0.002), 0.0]
    assert all(a > b for a, b in pairwise(levels))


def test_heun_follows_the_closed_form_of_gaussian_data():
    # For data N(0, 0.5^2) the exact denoiser is c_skip * x, which is what a zero network gives,
    # and the solution is x(0) = x(sigma_max) * 0.5 / sqrt(0.5^2 + sigma_max^2).
    start = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    *_, end = sample_residuals(new_network(SETTINGS, seed=0), start, SETTINGS)

    exact = start * 80.0 * 0.5 / math.hypot(0.5, 80.0)
    assert torch.allclose(end, exact, rtol=0.015, atol=1e-4)  # 40 steps: about 1 per cent


def test_heun_converges_with_more_steps():
    start = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = start * 80.0 * 0.5 / math.hypot(0.5, 80.0)
    errors = []
    for steps in (10, 20, 40):
        settings = SETTINGS.model_copy(update={"sampler_steps": steps})
        *_, end = sample_residuals(new_network(settings, seed=0), start, settings)
        errors.append((end - exact).abs().max().item())

    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_mean_image_is_the_mean_of_the_training_view():
    pixels = np.stack([np.full((16, 16), grey, np.uint8) for grey in (0, 51, 255)])

    mean = fit_mean_image(view(pixels), "cpu")

    assert mean.shape == (1, 1, 16, 16)
    assert mean.unique().tolist() == pytest.approx([0.4])


def test_residuals_of_the_training_view_have_mean_zero_and_standard_deviation_sigma_data():
    training = view(discs(200, 16))
    scaling = fit_scaling(training, fit_mean_image(training, "cpu"), SETTINGS)
    images = reduced(to_unit(training.pixels, "cpu"), 8)

    residuals = scaling.to_residuals(images)

    assert residuals.mean(0).abs().max().item() < 1e-5
    assert residuals.square().mean().sqrt().item() == pytest.approx(0.5, abs=1e-4)
    assert torch.allclose(scaling.to_images(residuals), images, atol=1e-6)


def test_residuals_cover_the_rows_and_columns_that_hold_picture_alike_on_both_sides():
    pixels = np.zeros((4, 32, 32), np.uint8)
    pixels[:, 6:15, 4:20] = (
        np.arange(1, 5, dtype=np.uint8)[:, None, None] * 50
    )  # at 16: 3 to 7, 2 to 9
    training = view(pixels)
    settings = SETTINGS.model_copy(update={"size": 16, "unshuffle": 2, "channels": (8,)})

    scaling = fit_scaling(training, fit_mean_image(training, "cpu"), settings)

    assert scaling.window == (3, 9, 2, 14)
    assert scaling.shape == (6, 12)
    images = reduced(to_unit(training.pixels, "cpu"), 16)
    residuals = scaling.to_residuals(images)
    assert residuals.shape == (4, 1, 6, 12)
    assert torch.allclose(scaling.to_images(residuals), images, atol=1e-6)


def test_a_window_is_never_larger_than_the_image():
    training = view(discs(8, 16))

    scaling = fit_scaling(training, fit_mean_image(training, "cpu"), SETTINGS)

    top, bottom, left, right = scaling.window
    assert 0 <= top < bottom <= SETTINGS.size
    assert 0 <= left < right <= SETTINGS.size


def test_churn_draws_other_images_from_the_same_start_and_none_without_noise():
    settings = SETTINGS.model_copy(update={"churn": 8.0})
    network = new_network(SETTINGS, 0)
    torch.nn.init.normal_(network.out.weight, std=0.1)
    start = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def drawn(fresh):
        *_, last = sample_residuals(network, start, settings, fresh=fresh)
        return last

    plain = drawn(None)
    noisy = drawn(lambda step: torch.full_like(start, float(step % 2)))
    *_, without = sample_residuals(network, start, SETTINGS, fresh=torch.ones_like)

    assert not torch.allclose(noisy, plain, atol=1e-3)
    assert torch.equal(without, plain)


def test_equal_training_images_are_refused():
    training = view(np.full((5, 16, 16), 77, np.uint8))

    with pytest.raises(DataError, match="expected images that differ, found 5"):
        fit_scaling(training, fit_mean_image(training, "cpu"), SETTINGS)


@pytest.mark.parametrize(
    ("unshuffle", "channels", "layers", "attention", "size"),
    [(1, (8,), 1, False, 5), (4, (16, 32), 2, True, 32), (2, (24, 40, 72), 1, True, 16)],
)
def test_the_network_keeps_the_shape_and_trains_every_weight(
    unshuffle, channels, layers, attention, size
):
    network = UNet(unshuffle, channels, layers, attention=attention)
    for parameter in network.parameters():  # zeroed layers hide the gradient of others
        torch.nn.init.normal_(parameter, 0, 0.1)
    images = torch.randn(2, 1, size, size)

    result = network(images, torch.tensor([0.1, -1.0]), torch.ones(2, 4))
    result.square().mean().backward()

    assert result.shape == images.shape
    assert all(bool((p.grad != 0).any()) for p in network.parameters())


def test_training_lowers_the_tuning_loss_and_keeps_the_best_weights():
    stage = small_stage()
    scores = [stage.evaluate(0)["tuning loss"]]
    for step in range(SETTINGS.steps):
        numbers = stage.step(step)
        if (step + 1) % 20 == 0:
            scores.append(stage.evaluate(step + 1)["tuning loss"])

    assert set(numbers) == {"training loss", "gradient norm", "learning rate"}
    assert scores[0] == pytest.approx(1, abs=0.3)
    assert scores[-1] < 0.8 * scores[0]
    assert [score for _, score in stage.candidates.scores] == scores
    assert stage.candidates.best_step == stage.candidates.scores[int(np.argmin(scores))][0]


def test_the_tuning_loss_of_the_same_weights_is_the_same_number():
    stage = small_stage()

    assert stage.evaluate(1) == stage.evaluate(2)
    assert stage.candidates.best_step == 1


def test_a_step_depends_on_its_number_and_not_on_what_was_drawn_before():
    one, other = small_stage(), small_stage()
    torch.rand(1000)  # a foreign draw in between
    other._order.batch(5)

    assert one.step(3) == other.step(3)


def test_an_image_that_is_not_changed_stays_and_is_told_as_zeros():
    images = torch.rand(2, 1, 16, 16)

    same, told = augmented(images, [(1.0, 1.0, 0.0)] * 2)

    assert torch.allclose(same, images, atol=1e-5)
    assert not told.any()


def test_a_mirrored_image_is_the_image_mirrored():
    images = torch.rand(1, 1, 16, 16)

    mirrored, told = augmented(images, [(-1.0, 1.0, 0.0)])

    assert torch.allclose(mirrored, images.flip(3), atol=1e-5)
    assert told.tolist() == [[1, 0, 0, 0]]


def test_a_quarter_turn_is_a_quarter_turn():
    images = torch.rand(1, 1, 16, 16)

    turned, told = augmented(images, [(1.0, 1.0, math.pi / 2)])

    turns = [torch.allclose(turned, images.rot90(k, (2, 3)), atol=1e-4) for k in (1, 3)]
    assert any(turns)
    assert told[0].tolist() == pytest.approx([0, 0, 1, -1], abs=1e-6)


def test_zoom_enlarges_the_middle():
    images = torch.zeros(1, 1, 16, 16)
    images[..., 4:12, 4:12] = 1

    zoomed, told = augmented(images, [(1.0, 2.0, 0.0)])

    assert zoomed[..., 1:15, 1:15].min().item() == pytest.approx(1, abs=1e-5)
    assert told[0, 1].item() == pytest.approx(math.log(2))


def test_augmentation_stays_within_its_limits_and_repeats():
    limits = Augmentation(flip=True, max_zoom=1.2, max_rotation_rad=0.3)
    draws = [augmentation_of(limits, 0, "s", epoch, i) for epoch in (0, 1) for i in range(200)]

    mirrors, zooms, turns = zip(*draws, strict=True)
    assert 150 < sum(m == -1 for m in mirrors) < 250
    assert 1 <= min(zooms) < 1.02 < 1.18 < max(zooms) <= 1.2
    assert -0.3 <= min(turns) < -0.27
    assert 0.27 < max(turns) <= 0.3
    assert len(set(draws)) == 400
    assert augmentation_of(limits, 0, "s", 1, 199) == draws[-1]


def test_without_flip_zoom_and_rotation_nothing_is_changed():
    limits = Augmentation(flip=False, max_zoom=1.0, max_rotation_rad=0.0)

    assert {augmentation_of(limits, 0, "s", 0, i) for i in range(50)} == {(1.0, 1.0, 0.0)}


def test_reduction_is_the_mean_of_each_block():
    pixels = np.array([[[0, 10, 1, 1], [20, 30, 1, 1], [255, 255, 0, 0], [255, 255, 2, 4]]])

    small = reduced_pixels(pixels.astype(np.uint8), 2)

    assert small.tolist() == [[[15, 1], [255, 2]]]  # 1.5 is rounded to even


def test_pixels_survive_the_way_to_unit_scale_and_back():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)

    assert np.array_equal(to_pixels(to_unit(pixels, "cpu")), pixels)
    assert to_pixels(torch.tensor([[[[-0.5, 1.5]]]])).tolist() == [[[0, 255]]]


def test_reducing_a_crop_is_cropping_the_reduced_image():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    whole = reduced(to_unit(pixels[None], "cpu"), 16)[0, 0]
    corners = [(t, left) for t in range(0, 9) for left in range(0, 9)]
    parts = [whole[t : t + 8, left : left + 8] for t, left in corners]
    parts += [part.flip(1) for part in parts]

    for index in range(20):
        crop = crop_of(pixels, side=16, multiple=2, seed=0, stage="s", epoch=0, index=index)
        small = reduced(to_unit(crop[None], "cpu"), 8)[0, 0]
        assert any(torch.allclose(small, part, atol=1e-6) for part in parts)


def test_matching_tissue_to_its_own_histogram_changes_nothing():
    image = np.random.default_rng(0).integers(5, 256, (32, 32), dtype=np.uint8)

    assert np.array_equal(matched(image, histograms_of(image[None])[0]), image)


def test_a_darkened_image_gets_its_brightness_back():
    image = np.random.default_rng(0).integers(20, 256, (64, 64), dtype=np.uint8)

    result = matched(image // 2, histograms_of(image[None])[0])

    assert np.abs(result.astype(int) - image).max() <= 3


def test_the_black_background_stays_black_whatever_its_share():
    image = np.zeros((32, 32), np.uint8)
    image[:8] = np.random.default_rng(0).integers(50, 100, (8, 32))
    reference = np.random.default_rng(1).integers(150, 250, (32, 32), dtype=np.uint8)

    result = matched(image, histograms_of(reference[None])[0])

    assert not result[8:].any()
    assert result[:8].min() >= 150
    assert result[:8].mean() == pytest.approx(reference.mean(), abs=5)


def test_an_image_without_tissue_is_left_alone():
    black = np.zeros((16, 16), np.uint8)
    bright = np.full((16, 16), 200, np.uint8)

    assert np.array_equal(matched(black, histograms_of(bright[None])[0]), black)
    assert np.array_equal(matched(bright, histograms_of(black[None])[0]), bright)


def test_the_background_becomes_black():
    image = np.full((16, 16), 3, np.uint8)
    image[4:12, 4:12] = 100

    assert (
        matched(image, histograms_of(image[None])[0]).tolist()
        == np.where(image == 100, 100, 0).tolist()
    )


def test_of_the_drawn_histograms_the_nearest_is_taken():
    greys = np.arange(10, 250, 10)
    histograms = histograms_of(np.stack([np.full((8, 8), g, np.uint8) for g in greys]))
    image = np.full((8, 8), 92, np.uint8)

    taken = [
        int(drawn_reference(image, histograms, np.random.default_rng(seed)).argmax())
        for seed in range(40)
    ]

    assert max(set(taken), key=taken.count) == 90  # 92 is nearest to it, and it is often drawn
    assert len(set(taken)) > 1  # but not always
