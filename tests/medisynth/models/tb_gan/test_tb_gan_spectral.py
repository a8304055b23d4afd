import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from medisynth.models.adversarial.layers import spectrally_normalised
from medisynth.models.tb_gan.networks import WaveletDiscriminator
from medisynth.models.tb_gan.settings import TbGanSettings

WAVELET = TbGanSettings(
    size=32,
    start=4,
    widths=(16, 16),
    tail_width=16,
    discriminator="wavelet",
    discriminator_widths=(16, 16, 16),
)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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
