import numpy as np
import pytest
import torch

from governance.records.errors import MetricUndefinedError
from medisynth.models.adversarial.augment import BLACK, Draws, augmented, draws_for
from medisynth.models.adversarial.images import (
    coarse,
    energy_distance,
    mirrored,
    to_pixels,
    to_signed,
)
from medisynth.models.tb_gan.batches import moved_probability, pseudo_rows
from medisynth.models.tb_gan.drawing import numbers_of
from medisynth.training.workers import Workers

ALL = ("brightness", "contrast", "translation", "cutout")


def images(n=2, side=16, seed=0):
    return torch.rand((n, 1, side, side), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def draws(n=2, **named):
    numbers = dict.fromkeys(Draws.__dataclass_fields__, 0.5) | named
    return Draws(**{name: torch.full((n,), value) for name, value in numbers.items()})


def test_an_empty_policy_leaves_images_untouched():
    x = images()

    assert augmented(x, draws_for(2, "cpu", Workers(), 0, "s", 0), ()) is x


def test_middle_draws_change_neither_brightness_nor_contrast_nor_place():
    x = images()

    assert torch.allclose(augmented(x, draws(), ALL[:3]), x, atol=1e-6)


def test_brightness_is_added_and_contrast_stretches_about_the_mean():
    x = images()
    mean = x.mean(dim=(1, 2, 3), keepdim=True)

    assert torch.allclose(augmented(x, draws(brightness=0.9), ("brightness",)), x + 0.4, atol=1e-6)
    narrow = augmented(x, draws(brightness=0.9), ("brightness",), brightness_span=0.3)
    assert torch.allclose(narrow, x + 0.12, atol=1e-6)
    stretched = augmented(x, draws(contrast=1.0), ("contrast",))
    assert torch.allclose(stretched - mean, 1.5 * (x - mean), atol=1e-6)


@pytest.mark.parametrize(("number", "shift"), [(0.0, -2), (0.3, -1), (0.99, 2)])
def test_translation_moves_by_whole_pixels_and_moves_black_in(number, shift):
    x = images()
    moved = augmented(x, draws(down=number), ("translation",))
    expected = x.roll(shift, dims=2)
    if shift < 0:
        expected[:, :, shift:] = BLACK
    else:
        expected[:, :, :shift] = BLACK

    assert torch.allclose(moved, expected, atol=1e-6)


def test_cutout_blackens_a_square_of_half_the_side():
    cut = augmented(images(), draws(), ("cutout",))

    assert (cut[:, :, 4:12, 4:12] == BLACK).all()
    assert int((cut == BLACK).sum()) == 2 * 64


def test_gradients_pass_through_all_augmentations_but_not_what_was_cut_out():
    x = images().requires_grad_()
    augmented(x, draws(), ("translation", "cutout")).sum().backward()
    expected = torch.ones_like(x)
    expected[:, :, 4:12, 4:12] = 0

    assert torch.equal(x.grad, expected)


def test_the_same_place_draws_the_same_and_processes_share_what_one_would_draw():
    whole = draws_for(4, "cpu", Workers(), 0, "part", "augmentation", 3)
    second = draws_for(4, "cpu", Workers(1, 2), 0, "part", "augmentation", 3)
    other = draws_for(4, "cpu", Workers(), 0, "part", "augmentation", 4)

    assert torch.equal(second.down, whole.down[2:])
    assert not torch.equal(other.down, whole.down)


@pytest.mark.parametrize(
    ("now", "sign", "then"),
    [
        (0.5, 0.7, 0.5 + 8 / 1000),
        (0.5, 0.5, 0.5 - 8 / 1000),
        (0.5, 0.6, 0.5),
        (0.001, 0.0, 0.0),
        (0.999, 1.0, 1.0),
        (0.5, None, 0.5),
    ],
)
def test_the_pseudo_real_probability_moves_by_one_batch_towards_the_target(now, sign, then):
    moved = moved_probability(now, sign, target=0.6, batch_size=8, speed_images=1000)

    assert moved == pytest.approx(then)


def test_with_the_published_threshold_the_probability_stays_small():
    # A discriminator right on 97 % of training images: above 0.6, below 0.95.
    p = {0.6: 0.0, 0.95: 0.0}
    for _ in range(1000):
        for target, now in p.items():
            p[target] = moved_probability(
                now, 0.94, target=target, batch_size=24, speed_images=125_000
            )

    assert p[0.6] == pytest.approx(24_000 / 125_000)
    assert p[0.95] == 0.0


def test_pseudo_real_rows_are_as_frequent_as_the_probability_and_repeatable():
    chosen = pseudo_rows(0.25, 4000, 0, "part", 7)

    assert chosen.mean() == pytest.approx(0.25, abs=0.03)
    assert np.array_equal(chosen, pseudo_rows(0.25, 4000, 0, "part", 7))
    assert not pseudo_rows(0.0, 100, 0, "part", 7).any()
    assert pseudo_rows(1.0, 100, 0, "part", 7).all()


def test_pixels_to_signed_and_back_is_exact_for_every_grey_value():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)

    assert np.array_equal(to_pixels(to_signed(pixels, "cpu")), pixels)
    assert to_signed(pixels, "cpu").min() == -1
    assert to_signed(pixels, "cpu").max() == 1


def test_values_beyond_the_scale_are_clipped():
    assert to_pixels(torch.tensor([[[[-7.0, 7.0]]]])).tolist() == [[[0, 255]]]


def test_mirroring_depends_on_epoch_and_image_alone():
    pixels = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2)
    pairs = [(0, i) for i in range(40)]
    out = mirrored(pixels, pairs, 0, "part")
    turned = (out != pixels).any(axis=(1, 2))

    assert 5 < turned.sum() < 35
    assert np.array_equal(out[turned], pixels[turned][:, :, ::-1])
    assert np.array_equal(mirrored(pixels[5:6], pairs[5:6], 0, "part"), out[5:6])


def test_the_latent_vector_of_an_image_does_not_depend_on_its_batch():
    assert torch.equal(
        numbers_of([3, 4, 5], 8, "cpu", 0, "sampling")[1:],
        numbers_of([4, 5], 8, "cpu", 0, "sampling"),
    )


def test_coarse_images_are_area_means():
    pixels = np.zeros((1, 32, 32), np.uint8)
    pixels[0, :2, :2] = [[10, 20], [30, 40]]

    assert coarse(pixels)[0, 0] == 25
    assert coarse(pixels)[0, 1:].sum() == 0


def test_the_energy_distance_of_constant_sets_is_twice_their_distance():
    black, grey = torch.zeros(3, 4), torch.full((5, 4), 10.0)

    assert energy_distance(black, grey) == pytest.approx(20)
    assert energy_distance(black, torch.zeros(2, 4)) == 0


def test_the_energy_distance_by_hand():
    real, synthetic = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    # between: (1 + 5 + 1 + 3) / 4 = 2.5; within: 2 and 4
    assert energy_distance(real, synthetic) == pytest.approx(2 * 2.5 - 2 - 4)


def test_the_energy_distance_is_near_nothing_for_halves_of_one_set():
    x = torch.randn((400, 16), generator=torch.Generator().manual_seed(0))

    assert abs(energy_distance(x[:200], x[200:])) < 0.02
    assert energy_distance(x[:200], x[200:] + 1) > 0.5


def test_the_energy_distance_of_one_image_has_no_value():
    with pytest.raises(MetricUndefinedError, match="found 1 and 3"):
        energy_distance(torch.zeros(1, 4), torch.zeros(3, 4))
