from collections import Counter

import numpy as np
import pytest
import torch

from governance.records.errors import DataError, SettingsError, WeightsError
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import Condition, TrainingContext
from medisynth.models.conditioning import vocabulary_from, vocabulary_of
from medisynth.models.dsr_gan import DsrGan, DsrGanSettings
from medisynth.models.dsr_gan.diffusion import DiffusionStage, new_network
from medisynth.models.dsr_gan.fitted import fit_before_training
from medisynth.models.dsr_gan.objectives import Guided, guided

TINY = {
    "precision": "fp32",
    "diffusion": {
        "size": 8,
        "unshuffle": 1,
        "channels": (16,),
        "steps": 4,
        "warm_up_steps": 1,
        "batch_size": 8,
        "sampler_steps": 4,
        "flip": False,
        "max_zoom": 1.0,
        "max_rotation_rad": 0.0,
    },
    "super_resolution": {
        "to": 16,
        "channels": 8,
        "blocks": 1,
        "discriminator_channels": 8,
        "crop": 16,
        "steps": 1,
        "batch_size": 4,
    },
}


def settings(**diffusion):
    return DsrGanSettings.model_validate(TINY | {"diffusion": TINY["diffusion"] | diffusion})


def context(seed=0):
    return TrainingContext(seed, "cpu", lambda *_: None, lambda *_: None, should_stop=lambda: False)


def view(planes, machines=None, partition="training"):
    """Frames whose half is bright: the left one on plane "left", the right one on all others."""
    n = len(planes)
    generator = np.random.default_rng(n)
    pixels = generator.integers(20, 60, (n, 16, 16), dtype=np.uint8)
    for image, plane in zip(pixels, planes, strict=True):
        half = slice(None, 8) if plane == "left" else slice(8, None)
        image[:, half] += 150
    ids = tuple(str(i) for i in range(n))
    return ImageView(partition, pixels, ids, ids, tuple(planes), tuple(machines or [""] * n))


BOTH = ("left", "right") * 6


def fitted(training, **diffusion):
    generator = DsrGan(settings(**diffusion))
    report = generator.fit(training, view(BOTH, partition="tuning"), context())
    return generator, report


def test_a_label_for_every_image_is_refused_and_not_counted_where_the_network_is_told_none():
    training = view(["a"] * 70, [f"machine {i}" for i in range(70)])

    with pytest.raises(DataError, match=r"at most 64 machine labels .*, found 70 on 70 images"):
        vocabulary_of(training, "auto")
    assert vocabulary_of(training, "none").sizes == (0, 0)


def test_vocabulary_counts_pairs_and_survives_the_way_through_a_tensor():
    training = view(["Tálamo", "b", "b", ""], ["x", "y", "y", "y"])

    vocabulary = vocabulary_of(training, "auto")

    assert vocabulary.pairs == (("", "y"), ("Tálamo", "x"), ("b", "y"))
    assert vocabulary.counts == (1, 1, 2)
    assert vocabulary.labels(0) == ("Tálamo", "b")
    assert vocabulary.sizes == (2, 2)
    assert vocabulary.numbers([("b", "x"), ("", "y"), ("?", "")], "cpu").tolist() == [
        [2, 1],
        [0, 2],
        [0, 0],
    ]
    assert vocabulary_from(vocabulary.to_tensor()) == vocabulary
    assert vocabulary.to_tensor().dtype == torch.uint8


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1, 2, 3], dtype=torch.uint8),
        torch.zeros(3),
        torch.tensor(list(b'{"pairs": [], "counts": [], "is_used": true}'), dtype=torch.uint8),
        torch.tensor(list(b"[1]"), dtype=torch.uint8),
    ],
)
def test_a_damaged_vocabulary_is_refused(tensor):
    with pytest.raises(WeightsError, match="'vocabulary': expected the labels"):
        vocabulary_from(tensor)


@pytest.mark.parametrize(
    ("planes", "machines", "conditioning", "sizes"),
    [
        (("a", "a"), ("", ""), "auto", (0, 0)),
        (("", ""), ("", ""), "auto", (0, 0)),
        (("a", ""), ("m", "m"), "auto", (0, 0)),
        (("a", "b"), ("m", "m"), "auto", (2, 0)),
        (("a", "b"), ("m", "n"), "auto", (2, 2)),
        (("a", "b"), ("m", "n"), "none", (0, 0)),
    ],
)
def test_only_an_axis_with_several_labels_is_told(planes, machines, conditioning, sizes):
    vocabulary = vocabulary_of(view(planes, machines), conditioning)

    assert vocabulary.sizes == sizes
    assert (vocabulary.numbers([("a", "m")], "cpu") is None) == (sizes == (0, 0))


def test_without_several_labels_network_and_numbers_are_those_of_no_conditioning():
    alone, _ = fitted(view(["left"] * 12))
    generator = DsrGan(settings().model_copy(update={"conditioning": "none"}))
    generator.fit(view(["left"] * 12), view(BOTH, partition="tuning"), context())

    def weights(g):
        tensors = {k: v for k, v in g.state().items() if k != "vocabulary"}
        return checkpoint.encode(tensors, {})

    assert weights(alone) == weights(generator)
    assert not any("labels" in name for name in alone.state())


def test_pairs_are_drawn_as_often_as_in_training_and_as_the_condition_asks():
    planes, machines = ["a"] * 6 + ["b"] * 2, ["m"] * 3 + ["n"] * 3 + ["n"] * 2
    vocabulary = vocabulary_of(view(planes, machines), "auto")
    generator = np.random.default_rng(0)

    def share(condition):
        drawn = Counter(vocabulary.drawn(condition, generator) for _ in range(2000))
        return {pair: n / 2000 for pair, n in drawn.items()}

    assert share(Condition()) == pytest.approx(
        {("a", "m"): 3 / 8, ("a", "n"): 3 / 8, ("b", "n"): 2 / 8}, abs=0.04
    )
    assert share(Condition(machine="n")) == pytest.approx(
        {("a", "n"): 3 / 5, ("b", "n"): 2 / 5}, abs=0.04
    )
    assert share(Condition(plane="b")) == {("b", "n"): 1}
    assert share(Condition("b", "m")) == {("b", "m"): 1}  # never seen together: taken at its word


def test_a_label_that_no_training_image_has_is_refused_with_the_known_ones():
    generator, _ = fitted(view(BOTH))

    with pytest.raises(
        SettingsError, match="plane: expected one of 'left', 'right', found 'upper'"
    ):
        generator.sample(1, context(), Condition(plane="upper"))
    with pytest.raises(SettingsError, match=r"machine: expected one of no label .*found 'm'"):
        generator.sample(1, context(), Condition(machine="m"))


def test_a_generator_that_was_not_told_labels_refuses_to_choose_but_draws_the_only_one():
    blind = DsrGan(settings().model_copy(update={"conditioning": "none"}))
    blind.fit(view(BOTH), view(BOTH, partition="tuning"), context())
    alone, _ = fitted(view(["left"] * 12))

    with pytest.raises(SettingsError, match="found one that was not"):
        blind.sample(1, context(), Condition(plane="left"))
    same = alone.sample(2, context(), Condition(plane="left"))
    assert np.array_equal(same, alone.sample(2, context()))


def test_conditional_samples_repeat_through_a_file_and_depend_on_seed_and_index_alone():
    generator, report = fitted(view(BOTH))
    restored = DsrGan(settings())
    restored.load_state(checkpoint.decode(checkpoint.encode(generator.state(), {}))[0])

    four = generator.sample(4, context())

    assert np.array_equal(restored.sample(4, context()), four)
    assert np.abs(generator.sample(2, context()).astype(int) - four[:2]).max() <= 1
    assert "plane (2 labels)" in report.description["conditioning"]


def test_guidance_of_one_is_the_network_itself_and_others_follow_the_formula():
    network = new_network(settings(), 0, (2, 0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.1)
    x, level, told = torch.randn(2, 1, 8, 8), torch.zeros(2), torch.zeros(2, 4)
    labels = torch.tensor([[1, 0], [2, 0]])

    with_labels = network(x, level, told, labels)
    without = network(x, level, told, torch.zeros_like(labels))

    assert guided(network, 1.0, labels) is network
    assert guided(network, 3.0, None) is network
    assert torch.allclose(Guided(network, 0.0)(x, level, told, labels), without, atol=1e-6)
    assert torch.allclose(
        Guided(network, 3.0)(x, level, told, labels), 3 * with_labels - 2 * without, atol=1e-5
    )
    assert not torch.allclose(with_labels, without, atol=1e-3)


def test_labels_are_hidden_as_often_as_set_and_the_same_at_every_call():
    everything = settings(batch_size=400, condition_dropout=0.25)
    training = view(BOTH)
    fitted_things = fit_before_training(training, everything, 0, "cpu")
    tuning = view(BOTH, partition="tuning")
    stage = DiffusionStage(everything, training, tuning, context(), "fp32", fitted_things)

    first, again = stage._drawn(0).labels, stage._drawn(0).labels

    assert torch.equal(first, again)
    hidden = (first[:, 0] == 0).float().mean().item()
    assert hidden == pytest.approx(0.25, abs=0.06)
    own = [1 if training.planes[index] == "left" else 2 for _, index in stage._drawn(0).places]
    shown = first[:, 0] != 0
    assert torch.equal(first[:, 0][shown], torch.tensor(own)[shown])


def test_what_is_asked_for_is_drawn():
    generator, _ = fitted(
        view(BOTH * 4), steps=120, learning_rate=1e-2, ema=0.9, batch_size=16, p_mean=0.0
    )

    for guidance in (1.0, 2.0):
        drawn = DsrGan(settings(guidance=guidance, sampler_steps=12))
        drawn.load_state(generator.state())
        for plane, sign in (("left", 1), ("right", -1)):
            images = drawn.sample(8, context(), Condition(plane=plane)).astype(float)
            lead = sign * (images[:, :, :8].mean((1, 2)) - images[:, :, 8:].mean((1, 2)))
            assert (lead > 50).mean() >= 0.75
