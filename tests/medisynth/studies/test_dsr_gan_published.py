import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from governance.records.errors import SettingsError
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.dsr_gan import DsrGan, DsrGanSettings
from medisynth.models.dsr_gan.batches import nothing_told
from medisynth.models.dsr_gan.fitted import histograms_of
from medisynth.models.dsr_gan.settings import DiffusionSettings
from medisynth.studies.midl2023.dsr_gan_published import DsrGanPublished, DsrGanPublishedSettings
from medisynth.studies.midl2023.dsr_gan_published.classic_srgan import ClassicBlock, new_networks
from medisynth.studies.midl2023.dsr_gan_published.classic_unet import ClassicAttention, ClassicUNet
from medisynth.studies.midl2023.dsr_gan_published.fitting import enlarging_stage
from medisynth.studies.midl2023.dsr_gan_published.noise_prediction import NoisePrediction
from medisynth.studies.midl2023.dsr_gan_published.settings import (
    FAULTS_OF_CLASSIC_SRGAN,
    NOT_REPRODUCED,
    DsrGanDeviations,
)
from medisynth.studies.midl2023.dsr_gan_published.trained import (
    matched_whole,
    mean_histogram,
    new_diffusion,
)
from medisynth.training.loop import n_parameters

PUBLISHED = DsrGanPublishedSettings()
TINY = {
    "precision": "fp32",
    "selection_every": 4,
    "diffusion": {
        "size": 16,
        "channels": (8, 8, 8, 8, 16),
        "layers": 1,
        "steps": 4,
        "batch_size": 2,
        "sampler_steps": 4,
        "learning_rate": 1e-3,
    },
    "super_resolution": {
        "to": 32,
        "channels": 8,
        "blocks": 1,
        "discriminator_channels": 8,
        "crop": 32,
        "steps": 3,
        "batch_size": 2,
    },
}


def view(n, partition="training", size=32, seed=0):
    pixels = np.random.default_rng((seed, n)).integers(0, 256, (n, size, size), dtype=np.uint8)
    ids = tuple(str(i) for i in range(n))
    return ImageView(partition, pixels, ids, ids, ("",) * n, ("",) * n)


def context(seed=0, logged=None):
    log = (lambda *_: None) if logged is None else (lambda *line: logged.append(line))
    return TrainingContext(seed, "cpu", log, lambda *_: None, should_stop=lambda: False)


def tiny(**deviations):
    return DsrGanPublishedSettings.model_validate(TINY | {"deviations": deviations})


@pytest.fixture(scope="module")
def once():
    generator = DsrGanPublished(tiny())
    return generator, generator.fit(view(6), view(3, "tuning"), context())


def test_the_published_unet_has_113_67_million_parameters():
    with torch.device("meta"):
        network = new_diffusion(PUBLISHED, 0, (0, 0))

    assert n_parameters(network) == 113_673_219
    assert round(n_parameters(network) / 1e6, 2) == 113.67


def test_the_published_super_resolution_networks_have_their_sizes():
    enlarger, discriminator = new_networks(PUBLISHED, seed=0)

    assert n_parameters(enlarger) == 565_768
    assert round(n_parameters(discriminator) / 1e6, 2) == 5.07


def share_without_gradient(settings):
    enlarger, _ = new_networks(settings, seed=0)
    enlarger(torch.rand(2, 1, 12, 12)).square().sum().backward()
    dead = sum(p.numel() for p in enlarger.parameters() if p.grad is None or not p.grad.any())
    return dead / n_parameters(enlarger)


def test_broken_residual_blocks_leave_65_4_per_cent_of_the_generator_without_gradient():
    mended = DsrGanPublishedSettings(deviations={"broken_residual_blocks": False})

    assert share_without_gradient(PUBLISHED) == pytest.approx(0.654, abs=5e-4)
    # Off, every weight learns but the biases that the next layer's normalisation takes away.
    assert share_without_gradient(mended) < 0.002


def test_a_broken_block_is_its_last_layer_alone():
    block = ClassicBlock(4, broken=True)
    x = torch.randn(2, 4, 5, 5)

    assert torch.equal(block(x), x + functional.batch_norm(x, None, None, training=True))


def test_every_deviation_is_on_by_default():
    names = set(DsrGanDeviations.model_fields)

    assert set(PUBLISHED.deviations.switched_on()) == names
    assert len(names) == 7


@pytest.mark.parametrize("name", sorted(DsrGanDeviations.model_fields))
def test_each_deviation_is_set_by_name_and_says_what_it_did(name):
    # Two are faults of the published super-resolution networks: they come and go with those.
    needed = {"classic_srgan"} if name in FAULTS_OF_CLASSIC_SRGAN else set()
    gone = set(FAULTS_OF_CLASSIC_SRGAN) if name == "classic_srgan" else set()
    without = DsrGanPublishedSettings(deviations={name: False})
    off = dict.fromkeys(set(DsrGanDeviations.model_fields) - {name} - needed, False)
    alone = DsrGanPublishedSettings(deviations=off)

    on = set(DsrGanDeviations.model_fields) - {name} - gone
    assert set(without.deviations.switched_on()) == on
    assert set(alone.deviations.switched_on()) == {name} | needed
    assert len(alone.deviations.switched_on()[name]) > 40


@pytest.mark.parametrize("name", FAULTS_OF_CLASSIC_SRGAN)
def test_a_fault_of_the_published_networks_is_refused_without_them(name):
    message = f"deviations.{name} is on; allowed with deviations.classic_srgan alone"

    with pytest.raises(ValidationError, match=message):
        DsrGanPublishedSettings(deviations={name: True, "classic_srgan": False})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"refining": {}}, "refining is set; the published model has no such stage"),
        ({"diffusion": {"unshuffle": 4}}, "allowed is 1 with deviations.classic_unet"),
        ({"super_resolution": {"speckle": 0.1}}, "super_resolution.speckle belongs to"),
        ({"recipe": "published"}, r"recipe\n\s+Extra inputs"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_in_one_sentence(change, message):
    with pytest.raises(ValidationError, match=message):
        DsrGanPublishedSettings.model_validate(change)


def test_settings_of_the_built_in_generator_are_refused():
    with pytest.raises(SettingsError, match="expected DsrGanPublishedSettings"):
        DsrGanPublished(DsrGanSettings())


def test_without_any_deviation_it_is_the_built_in_generator():
    off = tiny(**dict.fromkeys(DsrGanDeviations.model_fields, False))
    same = DsrGanSettings.model_validate(off.model_dump(exclude={"deviations"}))
    one, other = DsrGanPublished(off), DsrGan(same)
    for generator in (one, other):
        generator.fit(view(6), view(3, "tuning"), context())

    assert checkpoint.encode(one.state(), {}) == checkpoint.encode(other.state(), {})
    assert np.array_equal(one.sample(3, context()), other.sample(3, context()))


def test_sizes_are_those_of_the_paper_unless_given():
    smaller = DsrGanPublishedSettings(diffusion={"steps": 5})

    assert PUBLISHED.diffusion.channels == (128, 128, 256, 256, 512, 512)
    assert (PUBLISHED.diffusion.steps, PUBLISHED.super_resolution.to) == (80_000, 256)
    assert (smaller.diffusion.steps, smaller.diffusion.size) == (5, 128)


def test_settings_survive_json():
    for settings in (PUBLISHED, tiny(classic_unet=False)):
        assert DsrGanPublishedSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_an_unknown_deviation_is_refused():
    with pytest.raises(ValidationError, match=r"deviations.no_such_fault\n\s+Extra inputs"):
        DsrGanPublishedSettings(deviations={"no_such_fault": True})


def test_it_trains_and_samples_and_repeats(once):
    generator, _ = once
    again = DsrGanPublished(tiny())
    again.fit(view(6), view(3, "tuning"), context())
    restored = DsrGanPublished(tiny())
    restored.load_state(generator.state())

    images = [g.sample(3, context()) for g in (generator, again, restored)]

    assert images[0].shape == (3, 32, 32)
    assert images[0].std() > 0
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


def test_the_description_lists_the_deviations_that_are_on_and_what_is_not_reproduced(once):
    listed = once[1].description["deviations from the corrected recipe"]
    generator = DsrGanPublished(tiny(classic_srgan=False))
    report = generator.fit(view(6), view(3, "tuning"), context())

    for name, what in PUBLISHED.deviations.switched_on().items():
        assert f"{name}: {what}" in listed
    assert all(name in listed for name in NOT_REPRODUCED)
    assert "classic_srgan" not in report.description["deviations from the corrected recipe"]
    assert once[1].description["recipe"].startswith("published")


def test_signal_left_is_that_of_linear_betas():
    kept = NoisePrediction(DiffusionSettings()).kept

    assert kept[0].item() == pytest.approx(1 - 1e-4)
    assert 0.07 < kept[500].item() < 0.08
    # log of the product: 1000 betas of mean 0.01005, and half the sum of their squares.
    assert kept[-1].item() == pytest.approx(4.04e-5, rel=0.01)


def test_noise_prediction_of_a_network_that_says_nothing_has_a_loss_of_one():
    class Silent(torch.nn.Module):
        def forward(self, x, noise_level, told, labels):
            return torch.zeros_like(x)

    objective = NoisePrediction(DiffusionSettings())
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(64, 1, 16, 16, generator=generator) for _ in range(2))
    steps = objective.training_levels(64, "cpu", generator)

    loss = objective.loss(Silent(), clean, noise, steps, nothing_told(64, "cpu"))

    assert loss.item() == pytest.approx(1, abs=0.03)
    assert 0 <= steps.min() < 100 < 900 < steps.max() < 1000


def test_ddim_finds_the_image_when_the_noise_is_known():
    clean = torch.linspace(-0.9, 0.9, 64).reshape(1, 1, 8, 8)
    objective = NoisePrediction(DiffusionSettings(sampler_steps=20))

    class Knowing(torch.nn.Module):
        def forward(self, x, noise_level, told, labels):
            kept = objective.kept[(noise_level * 1000).round().long()][:, None, None, None]
            return (x - kept.sqrt() * clean) / (1 - kept).sqrt()

    *_, end = objective.states(Knowing(), torch.randn(1, 1, 8, 8))

    assert torch.allclose(end, clean, atol=1e-4)


def test_ddim_takes_as_many_steps_as_asked_from_the_noisiest_to_the_cleanest():
    steps = NoisePrediction(DiffusionSettings(sampler_steps=100)).time_steps()

    assert steps == list(range(990, -1, -10))


def test_the_classic_network_keeps_the_shape_and_trains_every_weight():
    network = ClassicUNet((8, 8, 8, 8, 16), 1, label_sizes=(2, 3))
    labels = torch.tensor([[1, 0], [2, 3]])

    result = network(torch.randn(2, 3, 16, 16), torch.tensor([0.1, 0.9]), None, labels)
    result.square().mean().backward()

    assert result.shape == (2, 3, 16, 16)
    # A bias of keys shifts all weights of a softmax alike: it has no gradient but rounding.
    assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad.any() for name, p in network.named_parameters() if "to_qkv.bias" not in name)


def test_attention_of_the_classic_network_is_at_the_fifth_level_and_in_the_middle():
    with torch.device("meta"):
        network = ClassicUNet((8, 8, 8, 8, 16, 16), 2)
    attends = {
        name.rsplit(".", 2)[0]
        for name, module in network.named_modules()
        if isinstance(module, ClassicAttention)
    }

    # The way up starts at the sixth level, so that its second is the fifth.
    assert attends == {"down.4", "up.1", "middle_in"}


def test_the_saturating_loss_is_exactly_one_when_both_probabilities_are_equal():
    settings = tiny()
    to, tuning = settings.super_resolution.to, view(3, "tuning")
    stage = enlarging_stage(settings, to, view(6), tuning, context(), "fp32")
    with torch.no_grad():
        for parameter in stage.discriminator.parameters():
            parameter.zero_()
        stage.discriminator.layers[-1].bias.fill_(50.0)  # certain that everything is real

    numbers = stage.step(0)

    assert numbers["discriminator loss"] == 1.0
    assert numbers["discriminator on real"] == numbers["discriminator on synthetic"] == 1.0
    assert numbers["discriminator gradient norm"] == 0.0  # and so it stays


def test_the_mean_histogram_is_that_of_the_mean_of_sorted_pixels():
    images = np.array([[[0, 10], [20, 30]], [[130, 120], [110, 100]]], np.uint8)

    mean = mean_histogram(histograms_of(images))

    assert mean.shape == (1, 256)
    assert np.flatnonzero(mean[0]).tolist() == [50, 60, 70, 80]


def test_matching_to_one_average_gives_all_images_the_same_grey_values():
    bright = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(1, 16, 16)
    dark = bright // 4
    average = mean_histogram(histograms_of(np.concatenate([bright, dark])))[0]

    one, two = (matched_whole(image[0], average) for image in (bright, dark))

    assert bright.mean() - dark.mean() > 90
    assert one.mean() == pytest.approx(two.mean(), abs=2)


def test_a_constant_learning_rate_is_the_same_at_every_step():
    logged = []
    DsrGanPublished(tiny()).fit(view(6), view(3, "tuning"), context(logged=logged))
    rates = {
        (stage, values["learning rate"]) for stage, _, values in logged if "learning rate" in values
    }

    assert rates == {("diffusion", 1e-3), ("super-resolution", 2e-4)}
    assert all(math.isfinite(v) for _, _, values in logged for v in values.values())
