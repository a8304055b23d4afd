import numpy as np
import pytest
from pydantic import ValidationError

from governance.records.errors import DataError, SettingsError, WeightsError
from medisynth import checkpoint
from medisynth.generator import Condition, StoppedError
from medisynth.models.tb_gan import TbGan
from tests.medisynth.models.tb_gan.tiny_tb_gan import (
    Recorder,
    States,
    equal,
    fitted,
    settings,
    view,
)

ENLARGED = {
    "size": 32,
    "enlarging": {
        "to": 64,
        "channels": 8,
        "blocks": 1,
        "discriminator_channels": 8,
        "crop": 32,
        "steps": 3,
        "batch_size": 2,
    },
}


def large_view(n, partition="training"):
    return view(n, partition, size=64, planes=("a", "b"), machines=("x", "x", "y"))


@pytest.fixture(scope="module")
def enlarged():
    return fitted_large(Recorder())


def fitted_large(recorder):
    scored = []

    def score(images):
        scored.append(images.shape)
        return float(images.mean())

    recorder.score = score
    generator = TbGan(settings(**ENLARGED))
    report = generator.fit(large_view(16), large_view(6, "tuning"), recorder.context())
    return generator, report, scored


def test_images_are_enlarged_and_candidates_scored_as_large_as_they_will_be(enlarged):
    generator, report, scored = enlarged
    images = generator.sample(3, Recorder().context())

    assert TbGan.image_size_px(settings(**ENLARGED)) == 64
    assert images.shape == (3, 64, 64)
    assert scored == [(4, 64, 64)] * 2
    assert [stage.name for stage in report.stages] == ["super-resolution", "adversarial"]
    assert "64 x 64 pixels after enlarging" in report.description["sizes"]
    assert "bilinear" in report.description["enlarging"]
    assert len(report.fitted) == 2
    assert np.array_equal(generator.sample(3, Recorder().context()), images)


def test_a_bicubic_last_doubling_trains_no_network_and_is_scored_as_large_as_images_will_be():
    plain = settings(**ENLARGED | {"enlarging": {"to": 64, "last_doubling": "bicubic"}})
    recorder, scored = Recorder(), []

    def score(images):
        scored.append(images.shape)
        return float(images.mean())

    recorder.score = score
    generator = TbGan(plain)
    report = generator.fit(large_view(16), large_view(6, "tuning"), recorder.context())

    assert [stage.name for stage in report.stages] == ["adversarial"]
    assert scored == [(4, 64, 64)] * 2
    assert report.description["enlarging"].startswith("last doubling bicubic")
    assert not any(name.startswith("enlarger") for name in generator.state())
    restored = TbGan(plain)
    restored.load_state(generator.state())
    images = restored.sample(3, Recorder().context())
    assert images.shape == (3, 64, 64)
    assert np.array_equal(images, generator.sample(3, Recorder().context()))


def test_a_state_with_enlarger_and_labels_gives_the_same_samples(enlarged):
    generator = enlarged[0]
    tensors, _ = checkpoint.decode(checkpoint.encode(generator.state(), {"generator": "tb-gan"}))
    restored = TbGan(settings(**ENLARGED))
    restored.load_state(tensors)
    context = Recorder().context()

    assert np.array_equal(restored.sample(4, context), generator.sample(4, context))
    with pytest.raises(WeightsError, match=r"'enlarger.*no such tensor"):
        TbGan(settings()).load_state(tensors)


def test_a_training_stopped_in_either_stage_ends_as_if_it_had_not_been(enlarged):
    states = States()
    with pytest.raises(StoppedError, match="super-resolution: stopped after 2 of 3 steps"):
        fitted_large(Recorder(stop_after=2, states=states))
    with pytest.raises(StoppedError, match="adversarial: stopped after 3 of 4 steps"):
        fitted_large(Recorder(stop_after=5, states=states))
    again, report, _ = fitted_large(Recorder(states=states))

    assert equal(enlarged[0].state(), again.state())
    assert report.selection.candidates == enlarged[1].selection.candidates


def test_samples_have_the_labels_that_are_asked_for_and_unknown_ones_are_refused(enlarged):
    generator, report, _ = enlarged
    context = Recorder().context()
    by_label = [
        generator.sample(4, context, Condition(plane, machine))
        for plane in ("a", "b")
        for machine in ("x", "y")
    ]

    assert report.description["conditioning"].startswith("plane (2 labels) and machine (2 labels)")
    for i, image in enumerate(generator.sample(4, context)):
        assert len({images[i].tobytes() for images in by_label}) == 4
        assert [np.array_equal(image, images[i]) for images in by_label].count(True) == 1
    with pytest.raises(SettingsError, match="plane: expected one of 'a', 'b', found 'c'"):
        generator.sample(1, context, Condition(plane="c"))
    with pytest.raises(SettingsError, match="machine: expected one of 'x', 'y', found 'z'"):
        generator.sample(1, context, Condition(machine="z"))


def test_it_is_told_no_labels_where_conditioning_is_none():
    generator, report, _ = fitted(planes=("a", "b"), conditioning="none", schedule=({"steps": 1},))

    assert report.description["conditioning"].startswith("unconditional")
    with pytest.raises(SettingsError, match="expected a generator that was told planes"):
        generator.sample(1, Recorder().context(), Condition(plane="a"))


def test_a_machine_for_every_image_is_refused_before_training():
    training = view(70, machines=tuple(f"machine {i}" for i in range(70)))
    recorder = Recorder()

    with pytest.raises(DataError, match="at most 64 machine labels"):
        TbGan(settings()).fit(training, view(6, "tuning"), recorder.context())
    assert recorder.progressed == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"enlarging": {"to": 128}}, "enlarging.to is 128; allowed is 64, 2 times size"),
        ({"schedule": ({"name": "super-resolution"},)}, "is taken"),
    ],
)
def test_enlarging_that_cannot_be_is_refused_in_words(changes, message):
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def test_it_draws_the_plane_it_was_fine_tuned_on_and_refuses_others():
    schedule = ({"name": "first", "steps": 1}, {"name": "then", "plane": "a", "steps": 1})
    generator, report, _ = fitted(schedule=schedule, planes=("a", "b"))
    context = Recorder().context()

    assert report.description["conditioning"].startswith("unconditional")
    assert len(generator.sample(1, context, Condition(plane="a"))) == 1
    with pytest.raises(SettingsError, match="plane: expected one of 'a', found 'b'"):
        generator.sample(1, context, Condition(plane="b"))
