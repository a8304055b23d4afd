import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from medisynth.models.tb_gan.attention import (
    MASKED,
    PLAIN,
    SHIFTED,
    DoubleAttention,
    copy_windows,
    relative_index,
    shifted_mask,
)
from medisynth.models.tb_gan.discriminator import WaveletDiscriminator, variety
from medisynth.models.tb_gan.generator import AdaIn, StyleSwinGenerator, position_grid
from medisynth.models.tb_gan.layers import EqualisedLinear
from medisynth.models.tb_gan.resampling import blur_kernel, blurred, doubled, haar, halved
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.models.tb_gan.spectral import spectrally_normalised

CPU = torch.device("cpu")
SMALL = TbGanSettings(size=32, widths=(16, 16, 16, 16), style_width=16, mapping_layers=2, depth=1)
PUBLISHED = TbGanSettings(
    size=256,
    widths=(512, 512, 512, 256, 128, 64, 32),
    discriminator_widths=(512, 512, 512, 512, 512, 256),
    style_width=512,
    mapping_layers=8,
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_published_widths_give_the_published_numbers_of_parameters():
    with torch.device("meta"):  # sizes without memory
        generator, discriminator = StyleSwinGenerator(PUBLISHED), WaveletDiscriminator(PUBLISHED)

    assert count(generator) == pytest.approx(32.1e6, rel=0.01)
    assert count(discriminator) == pytest.approx(27.2e6, rel=0.01)


def test_the_published_heads_are_those_of_the_paper():
    assert PUBLISHED.heads_of_levels == (16, 16, 16, 8, 4, 4, 4)


def test_an_image_is_as_large_as_the_settings_say_and_a_score_is_one_number_an_image():
    images = StyleSwinGenerator(SMALL)(normal(3, 16))

    assert images.shape == (3, 1, 32, 32)
    assert WaveletDiscriminator(SMALL)(images).shape == (3,)


def test_every_weight_of_both_networks_gets_a_gradient():
    generator, discriminator = StyleSwinGenerator(SMALL), WaveletDiscriminator(SMALL)
    discriminator(generator(normal(4, 16))).square().sum().backward()

    for network in (generator, discriminator):
        silent = [name for name, p in network.named_parameters() if p.grad is None]
        assert silent == []
        assert all(bool(p.grad.abs().sum() > 0) for p in network.parameters())


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


def reference_attention(layer, x):
    """Both halves by torch's own attention, a window at a time, places found by brute force."""
    width, side, window = x.shape[-1], layer.side, layer.window
    out = []
    for half, shift in ((0, 0), (1, window // 2)):
        part = slice(half * 3 * width // 2, (half + 1) * 3 * width // 2)
        qkv = functional.linear(x, layer.qkv.weight[part], layer.qkv.bias[part])
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
                heads = part.unflatten(2, (3, layer.half_heads, -1)).permute(2, 0, 3, 1, 4)
                attended = functional.scaled_dot_product_attention(
                    *heads, attn_mask=bias.masked_fill(~near, -math.inf)
                )
                result[:, top : top + window, left : left + window] = (
                    attended.transpose(1, 2).flatten(2).unflatten(1, (window, window))
                )
        out.append(result.roll((shift, shift), dims=(1, 2)))
    return layer.out(torch.cat(out, dim=-1))


@pytest.mark.parametrize(("side", "window"), [(12, 4), (8, 8), (4, 4)])
def test_double_attention_is_attention_in_plain_and_in_shifted_windows(side, window):
    layer = DoubleAttention(16, 4, side, window)
    with torch.no_grad():
        layer.bias_table.normal_(generator=torch.Generator().manual_seed(2))

    assert_equal_with_gradients(
        lambda x: in_images(layer(in_places(x))),
        lambda x: reference_attention(layer, x),
        [normal(2, side, side, 16)],
        list(layer.parameters()),
    )


def test_positions_differ_and_are_as_long_as_each_other():
    grid = position_grid(8, 16, CPU).flatten(0, 1)

    assert grid.shape == (64, 16)
    assert torch.allclose(grid.square().sum(dim=1), torch.full((64,), 8.0))  # sin² + cos²
    assert len({tuple(row) for row in grid.tolist()}) == 64


def test_an_equalised_layer_starts_with_unit_variance_whatever_its_rate():
    torch.manual_seed(0)
    out = EqualisedLinear(400, 300, rate_factor=0.01)(normal(64, 400, seed=1))

    assert float(out.detach().std()) == pytest.approx(1, abs=0.03)


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


def test_the_variety_of_real_images_does_not_count_for_synthetic_ones():
    torch.manual_seed(0)
    discriminator = WaveletDiscriminator(SMALL).eval()
    real, synthetic = normal(6, 1, 32, 32), normal(6, 1, 32, 32, seed=1)
    together = discriminator(torch.cat([real, synthetic]), n_sets=2)

    apart = torch.cat([discriminator(real), discriminator(synthetic)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_spectral_normalisation_makes_every_layer_of_norm_one():
    torch.manual_seed(0)
    discriminator = WaveletDiscriminator(SMALL)
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
