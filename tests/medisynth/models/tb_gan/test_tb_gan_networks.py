import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from medisynth.models.adversarial.layers import (
    EqualisedLinear,
    blur_kernel,
    blurred,
    doubled,
    from_haar,
    haar,
    halved,
    linear,
    spectrally_normalised,
)
from medisynth.models.adversarial.residual_discriminator import variety
from medisynth.models.tb_gan.attention import (
    MASKED,
    PLAIN,
    SHIFTED,
    Attention,
    copy_windows,
    relative_index,
    shifted_mask,
)
from medisynth.models.tb_gan.generator import StyleSwinGenerator, position_grid
from medisynth.models.tb_gan.networks import WaveletDiscriminator, new_discriminator
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.models.tb_gan.style_block import AdaIn, DepthwiseResidual
from medisynth.models.tb_gan.tail import HaarTail, ModulatedConv
from pipelines.config.model import load_config

CPU = torch.device("cpu")
SMALL = TbGanSettings(
    size=32, start=4, widths=(16, 16), tail_width=16, style_width=16, mapping_layers=2, depth=1
)
STYLESWIN = TbGanSettings(
    size=32,
    start=4,
    widths=(16, 16, 16, 16),
    whole_map_up_to=0,
    mlp_factor=4,
    activation="gelu",
    depthwise=False,
    noise=False,
    positions="sinusoidal",
    equalised=False,
    modulated_images=False,
    tail_width=0,
    style_width=16,
    depth=1,
    discriminator="wavelet",
    discriminator_widths=(16, 16, 16),
)


def preset(name):
    config = load_config(preset=name, overrides=["model.name=tb-gan"])
    return TbGanSettings.model_validate(config.model.settings)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_published_widths_give_the_published_numbers_of_parameters():
    published = preset("paper")
    with torch.device("meta"):  # sizes without memory
        generator, discriminator = StyleSwinGenerator(published), new_discriminator(published)

    assert count(generator) == pytest.approx(32.1e6, rel=0.01)
    assert count(discriminator) == pytest.approx(27.2e6, rel=0.01)
    gains = [p for name, p in generator.named_parameters() if "position" in name]
    assert [gain.numel() for gain in gains] == [1] * 6  # one a level, none at 4 pixels


def test_the_published_heads_are_those_of_the_paper():
    heads = (16, 16, 16, 8, 4, 4, 4)

    assert preset("paper").heads_of_levels == heads
    assert preset("paper").model_copy(update={"heads": None}).heads_of_levels == heads


def test_the_laptop_preset_is_small_and_draws_64_pixels_from_two_levels():
    laptop = preset("laptop")
    generator = StyleSwinGenerator(laptop)

    assert count(generator) == pytest.approx(0.66e6, rel=0.01)
    assert count(new_discriminator(laptop)) == pytest.approx(0.87e6, rel=0.01)
    assert [level.side for level in generator.levels] == [8, 16]
    assert generator(normal(2, generator.n_numbers)).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("settings", [SMALL, STYLESWIN], ids=["recipe", "styleswin"])
def test_an_image_is_as_large_as_the_settings_say_and_a_score_is_one_number_an_image(settings):
    generator = StyleSwinGenerator(settings)
    images = generator(normal(3, generator.n_numbers))

    assert images.shape == (3, 1, 32, 32)
    assert new_discriminator(settings)(images).shape == (3,)


@pytest.mark.parametrize("settings", [SMALL, STYLESWIN], ids=["recipe", "styleswin"])
def test_every_weight_of_both_networks_gets_a_gradient(settings):
    generator, discriminator = (
        StyleSwinGenerator(settings, (2, 3)),
        new_discriminator(settings, (2, 3)),
    )
    labels = torch.tensor([[0, 3], [1, 2], [2, 1], [1, 0]])
    images = generator(normal(4, generator.n_numbers), labels)
    discriminator(images, labels=labels).square().sum().backward()

    for network in (generator, discriminator):
        silent = [name for name, p in network.named_parameters() if p.grad is None]
        assert silent == []
        assert all(bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_noise_and_positions_start_without_effect():
    generator = StyleSwinGenerator(SMALL).eval()
    numbers = normal(2, generator.n_numbers)
    other = torch.cat([numbers[:, :16], normal(2, generator.n_numbers - 16, seed=1)], dim=1)

    assert torch.equal(generator(numbers), generator(other))
    assert all(not level.position.any() for level in generator.levels)


def test_a_learned_gain_of_noise_changes_the_image_where_the_noise_does():
    generator = StyleSwinGenerator(SMALL).eval()
    numbers = normal(1, generator.n_numbers)
    with torch.no_grad():
        generator.tail.second.noise_gain.fill_(1.0)
    other = numbers.clone()
    other[0, -1] += 1  # the lower right pixel of the last map
    difference = (generator(other) - generator(numbers))[0, 0]

    assert difference[-2:, -2:].abs().min() > 0
    assert not difference[:-2].any()
    assert not difference[:, :-2].any()


def test_a_saturating_output_is_the_hyperbolic_tangent_of_the_linear_one():
    outputs = []
    for is_saturating in (False, True):
        torch.manual_seed(0)
        settings = SMALL.model_copy(update={"saturating_output": is_saturating})
        generator = StyleSwinGenerator(settings)
        outputs.append(generator(normal(2, generator.n_numbers)))

    assert torch.allclose(outputs[1], outputs[0].tanh())


def test_labels_change_image_and_score_and_hidden_ones_have_their_own():
    generator, discriminator = (
        network(SMALL, (2, 0)) for network in (StyleSwinGenerator, new_discriminator)
    )
    numbers = normal(1, generator.n_numbers)
    images = [generator(numbers, torch.tensor([[k, 0]])) for k in range(3)]
    scores = [
        float(discriminator(images[0], labels=torch.tensor([[k, 0]])).detach()) for k in range(3)
    ]

    assert not torch.allclose(images[0], images[1])
    assert not torch.allclose(images[1], images[2])
    assert len(set(scores)) == 3


def in_places(x):
    """From images (b, h, w, c) to places first, as the generator keeps them."""
    return x.permute(1, 2, 0, 3).contiguous()


def in_images(x):
    return x.permute(2, 0, 1, 3)


def assert_equal_with_gradients(ours, reference, inputs, parameters=(), atol=1e-5):
    """Two functions agree in their values and in the gradients by inputs and parameters."""
    results = []
    for function in (ours, reference):
        leaves = [x.clone().requires_grad_(True) for x in inputs]
        value = function(*leaves)
        weights = normal(*value.shape, seed=9)
        by = [*leaves, *parameters]
        results.append([value, *torch.autograd.grad((value * weights).sum(), by)])
    for our, their in zip(*results, strict=True):
        assert torch.allclose(our, their, atol=atol, rtol=1e-4)


def test_adain_gives_every_channel_the_mean_and_scale_of_the_style():
    layer = AdaIn(8, 4)
    with torch.no_grad():
        layer.style.weight.zero_()
        layer.style.bias.copy_(torch.arange(16.0))  # scales 0 to 7, shifts 8 to 15
    out = in_images(layer(in_places(5 + 3 * normal(2, 6, 6, 8)), normal(2, 4)))

    assert torch.allclose(out.mean(dim=(1, 2)), torch.arange(8.0, 16).expand(2, 8), atol=1e-4)
    deviation = out.std(dim=(1, 2), correction=0)
    assert torch.allclose(deviation, torch.arange(0.0, 8).expand(2, 8), atol=1e-3)


def test_adain_agrees_with_instance_normalisation():
    layer = AdaIn(8, 4)

    def reference(x, style):
        scale, shift = layer.style(style)[:, :, None, None].chunk(2, dim=1)
        return functional.instance_norm(x.permute(0, 3, 1, 2), eps=1e-8) * scale + shift

    def ours(x, style):
        return in_images(layer(in_places(x), style)).permute(0, 3, 1, 2)

    inputs = [normal(2, 6, 6, 8), normal(2, 4, seed=1)]
    assert_equal_with_gradients(ours, reference, inputs, list(layer.parameters()))


@pytest.mark.parametrize("half", [PLAIN, SHIFTED])
def test_windows_copied_back_are_the_map(half):
    places = normal(12, 12, 2, 3 * 2 * 5)  # three parts of two heads with five channels
    windows = torch.full((3, 2, 9, 2, 16, 5), math.nan)
    copy_windows(places, windows, half, back=False)
    shift = 0 if half == PLAIN else 2
    seen = places.roll((-shift, -shift), dims=(0, 1))[0:4, 4:8, 1]  # the second window
    expected = seen.unflatten(2, (3, 2, 5)).flatten(0, 1).permute(1, 2, 0, 3)

    assert torch.equal(windows[:, 1, 1], expected)
    again = torch.full_like(places, math.nan)
    copy_windows(again, windows, half, back=True)
    assert torch.equal(again, places)


def test_places_with_the_same_offset_share_a_bias():
    index = relative_index(2, CPU).view(4, 4)  # places (0,0) (0,1) (1,0) (1,1)

    assert len(set(index.diagonal().tolist())) == 1
    assert index[0, 1] == index[2, 3]  # one column to the right
    assert index[0, 2] == index[1, 3]  # one row down
    assert len(index.unique()) == 9


def test_a_shifted_window_does_not_attend_over_the_wrapped_edge():
    mask = shifted_mask(8, 4, CPU)[:, 0]

    assert mask.shape == (4, 16, 16)
    assert not mask[0].any()  # wholly inside
    # Top right: its left two columns and its right two, which came from the other edge.
    left = torch.tensor([0, 0, 1, 1] * 4)
    assert torch.equal(mask[1] == MASKED, left[:, None] != left[None])


def weights_of(layer):
    return layer.weight * getattr(layer, "scale", 1.0)


def reference_attention(layer, x):
    """Both halves by torch's own attention, a window at a time, places found by brute force."""
    width, side, window = x.shape[-1], layer.side, layer.window
    out = []
    for half, shift in ((0, 0), (1, window // 2)):
        part = slice(half * 3 * width // 2, (half + 1) * 3 * width // 2)
        qkv = functional.linear(x, weights_of(layer.qkv)[part], layer.qkv.bias[part])
        qkv = qkv.roll((-shift, -shift), dims=(1, 2))
        result = torch.empty(*x.shape[:3], width // 2)
        table = layer.bias_table[half][relative_index(window, CPU)]
        bias = table.view(window**2, window**2, -1).permute(2, 0, 1)
        for top in range(0, side, window):
            for left in range(0, side, window):
                rows = [(top + i + shift) // side for i in range(window) for _ in range(window)]
                columns = [(left + j + shift) // side for _ in range(window) for j in range(window)]
                crossed = torch.tensor([rows, columns]).T  # which edges each place came over
                near = (crossed[:, None] == crossed[None]).all(dim=2)
                part = qkv[:, top : top + window, left : left + window].flatten(1, 2)
                heads = part.unflatten(2, (3, layer.heads, -1)).permute(2, 0, 3, 1, 4)
                attended = functional.scaled_dot_product_attention(
                    *heads, attn_mask=bias.masked_fill(~near, -math.inf)
                )
                result[:, top : top + window, left : left + window] = (
                    attended.transpose(1, 2).flatten(2).unflatten(1, (window, window))
                )
        out.append(result.roll((shift, shift), dims=(1, 2)))
    return layer.out(torch.cat(out, dim=-1))


@pytest.mark.parametrize("is_equalised", [False, True])
@pytest.mark.parametrize(("side", "window"), [(12, 4), (8, 8), (4, 4)])
def test_double_attention_is_attention_in_plain_and_in_shifted_windows(side, window, is_equalised):
    layer = Attention(16, 4, side, window, is_whole=False, equalised=is_equalised)
    with torch.no_grad():
        layer.bias_table.normal_(generator=torch.Generator().manual_seed(2))

    assert_equal_with_gradients(
        lambda x: in_images(layer(in_places(x))),
        lambda x: reference_attention(layer, x),
        [normal(2, side, side, 16)],
        list(layer.parameters()),
    )


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_attention_over_the_whole_map_is_that_of_all_heads_in_one_window(heads):
    layer = Attention(24, heads, 6, 4, is_whole=True, equalised=True)
    with torch.no_grad():
        layer.bias_table.normal_(generator=torch.Generator().manual_seed(2))

    def reference(x):
        qkv = functional.linear(x.flatten(1, 2), weights_of(layer.qkv), layer.qkv.bias)
        parts = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        bias = layer.bias_table[0][relative_index(6, CPU)].view(36, 36, heads).permute(2, 0, 1)
        out = functional.scaled_dot_product_attention(*parts, attn_mask=bias[None])
        return layer.out(out.transpose(1, 2).reshape(x.shape))

    assert_equal_with_gradients(
        lambda x: in_images(layer(in_places(x))),
        reference,
        [normal(2, 6, 6, 24)],
        list(layer.parameters()),
    )


def test_the_depthwise_residual_is_a_convolution_of_each_channel_added_to_its_input():
    layer = DepthwiseResidual(8)

    def reference(x):
        images = x.permute(0, 3, 1, 2)
        met = functional.conv2d(images, layer.weight * 0.3, layer.bias, padding=1, groups=8)
        return (images + met).permute(0, 2, 3, 1)

    assert_equal_with_gradients(
        lambda x: in_images(layer(in_places(x))),
        reference,
        [normal(2, 6, 6, 8)],
        list(layer.parameters()),
    )


def test_a_modulated_convolution_scales_its_weights_by_the_style_and_keeps_the_variance():
    layer = ModulatedConv(6, 4, 5, noise=False)

    def reference(x, style):
        scale = layer.style(style)
        weight = (layer.conv.weight * layer.conv.scale)[None] * scale[:, None, :, None, None]
        weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        rows = x.reshape(1, -1, *x.shape[2:])
        out = functional.conv2d(rows, weight.flatten(0, 1), padding=1, groups=len(x))
        return out.view(len(x), 4, *x.shape[2:]) + layer.conv.bias[:, None, None]

    def ours(x, style):
        scales = layer.scales(style)
        return layer(x * scales[:, :, None, None], scales, None)

    assert_equal_with_gradients(
        ours,
        reference,
        [normal(3, 6, 8, 8), normal(3, 5, seed=1)],
        list(layer.parameters()),
        atol=1e-4,
    )


def test_the_tail_draws_four_times_the_side_of_the_last_level():
    tail = HaarTail(8, 16, 5, noise=True)
    noise = (normal(12, 12, 2, 1), normal(12, 12, 2, 1))

    assert tail(normal(6, 6, 2, 8), normal(2, 5), noise).shape == (2, 1, 24, 24)


def test_the_inverse_haar_transform_undoes_the_haar_transform():
    images = normal(2, 3, 8, 8)

    assert torch.allclose(from_haar(haar(images[:, :1])), images[:, :1], atol=1e-6)
    assert torch.allclose(from_haar(haar(images)), images, atol=1e-6)


def test_positions_differ_and_are_as_long_as_each_other():
    grid = position_grid(8, 16, CPU).flatten(0, 1)

    assert grid.shape == (64, 16)
    assert torch.allclose(grid.square().sum(dim=1), torch.full((64,), 8.0))  # sin² + cos²
    assert len({tuple(row) for row in grid.tolist()}) == 64


def test_an_equalised_layer_starts_with_unit_variance_whatever_its_rate():
    torch.manual_seed(0)
    out = EqualisedLinear(400, 300, rate_factor=0.01)(normal(64, 400, seed=1))

    assert float(out.detach().std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("is_equalised", [False, True])
def test_raw_and_equalised_layers_start_at_the_same_variance(is_equalised):
    torch.manual_seed(0)
    out = linear(400, 300, equalised=is_equalised, gain=0.5)(normal(64, 400, seed=1))

    assert float(out.detach().std()) == pytest.approx(0.5, abs=0.02)


def test_the_haar_transform_keeps_the_sum_of_squares_and_can_be_undone():
    images = normal(2, 3, 8, 8)
    bands = haar(images)
    mean, across, down, diagonal = bands.chunk(4, dim=1)
    back = torch.empty_like(images)
    back[..., ::2, ::2] = (mean + across + down + diagonal) / 2
    back[..., ::2, 1::2] = (mean - across + down - diagonal) / 2
    back[..., 1::2, ::2] = (mean + across - down - diagonal) / 2
    back[..., 1::2, 1::2] = (mean - across - down + diagonal) / 2

    assert torch.allclose(back, images, atol=1e-6)
    assert float(bands.square().sum()) == pytest.approx(float(images.square().sum()), rel=1e-5)


def test_the_haar_bands_of_an_edge_are_those_computed_by_hand():
    image = torch.tensor([[[[1.0, 3.0], [5.0, 11.0]]]])

    assert haar(image).flatten().tolist() == [10.0, -4.0, -6.0, 2.0]


def test_halving_is_the_strided_low_pass():
    images = normal(2, 3, 8, 8)

    assert torch.allclose(halved(images), blurred(images, padding=1, stride=2), atol=1e-6)


def test_the_low_pass_keeps_brightness_and_doubling_inverts_halving_of_a_flat_image():
    flat = torch.full((1, 1, 8, 8), 0.7)

    assert float(blur_kernel(CPU, torch.float32).sum()) == pytest.approx(1)
    assert torch.allclose(halved(flat)[..., 1:-1, 1:-1], torch.tensor(0.7))
    assert torch.allclose(doubled(flat), torch.tensor(0.7))


def test_doubling_is_zero_stuffing_and_the_same_low_pass_away_from_the_edge():
    images = normal(1, 1, 6, 6)
    kernel = 4 * blur_kernel(CPU, torch.float32)
    stuffed = functional.conv_transpose2d(images, kernel, stride=2, padding=1)

    assert torch.allclose(doubled(images)[..., 2:-2, 2:-2], stuffed[..., 2:-2, 2:-2], atol=1e-6)


def test_variety_of_equal_images_is_nothing_and_of_two_groups_their_own():
    x = torch.zeros(8, 2, 1, 1)
    x[4:, :, 0, 0] = torch.tensor([0.0, 2.0, 0.0, 2.0])[:, None]  # standard deviation 1

    assert variety(x, 8).flatten().tolist() == pytest.approx([1e-4] * 4 + [1.0] * 4, rel=1e-3)


@pytest.mark.parametrize("settings", [SMALL, STYLESWIN], ids=["residual", "wavelet"])
def test_the_variety_of_real_images_does_not_count_for_synthetic_ones(settings):
    torch.manual_seed(0)
    discriminator = new_discriminator(settings).eval()
    real, synthetic = normal(6, 1, 32, 32), normal(6, 1, 32, 32, seed=1)
    together = discriminator(torch.cat([real, synthetic]), n_sets=2)

    apart = torch.cat([discriminator(real), discriminator(synthetic)])
    assert torch.allclose(together, apart, atol=1e-5)


WAVELET = TbGanSettings(
    size=32,
    start=4,
    widths=(16, 16),
    tail_width=16,
    discriminator="wavelet",
    discriminator_widths=(16, 16, 16),
)


def test_spectral_normalisation_makes_every_layer_of_norm_one():
    torch.manual_seed(0)
    discriminator = WaveletDiscriminator(WAVELET)
    for _ in range(30):
        discriminator(normal(2, 1, 32, 32))
    layers = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    assert len(layers) == 3 + 4 + 3
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert float(norm.detach()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("kind", ["convolution", "linear"])
def test_spectral_normalisation_is_that_of_torch_in_value_gradient_and_state(kind, memory):
    layers = []
    for normalise in (spectrally_normalised, spectral_norm):
        torch.manual_seed(3)
        layer = nn.Conv2d(5, 7, 3) if kind == "convolution" else nn.Linear(5, 7)
        layer = normalise(layer)
        layers.append(layer.to(memory_format=memory) if kind == "convolution" else layer)
    x = normal(2, 5, 6, 6) if kind == "convolution" else normal(2, 5)

    for is_training in (True, True, False):
        ours, reference = (layer.train(is_training) for layer in layers)
        results = []
        for layer in (ours, reference):
            value = layer(x)
            gradients = torch.autograd.grad(value.square().sum(), list(layer.parameters()))
            results.append([value, *gradients, *layer.buffers()])
        for our, their in zip(*results, strict=True):
            assert torch.allclose(our, their, atol=1e-5, rtol=1e-4)
        assert list(ours.state_dict()) == list(reference.state_dict())


def test_the_largest_singular_value_is_estimated_in_fp32_under_autocast():
    layer = spectrally_normalised(nn.Linear(40, 30)).eval()
    inside = layer.weight.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.weight, inside)


def test_a_penalty_on_gradients_reaches_normalised_weights():
    torch.manual_seed(0)
    layers = [normalise(nn.Conv2d(2, 3, 3)) for normalise in (spectrally_normalised, spectral_norm)]
    layers[1].load_state_dict(layers[0].state_dict())
    found = []
    for layer in layers:
        x = normal(1, 2, 5, 5).requires_grad_(True)
        score = layer(x).tanh().sum()
        (slope,) = torch.autograd.grad(score, x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), list(layer.parameters())))

    for our, their in zip(*found, strict=True):
        assert torch.allclose(our, their, atol=1e-5, rtol=1e-4)
