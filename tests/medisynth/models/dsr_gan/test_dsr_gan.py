import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from governance.records.errors import DataError, SettingsError, TrainingError, WeightsError
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import StageState, StoppedError, TrainingContext
from medisynth.models.dsr_gan import DsrGan, DsrGanSettings
from medisynth.models.enlarging.networks import Bicubic
from medisynth.models.registry import load_generator

TINY = {
    "precision": "fp32",
    "selection_every": 4,
    "diffusion": {
        "size": 8,
        "unshuffle": 1,
        "channels": (8, 16),
        "steps": 10,
        "warm_up_steps": 2,
        "batch_size": 4,
        "sampler_steps": 4,
    },
    "super_resolution": {
        "to": 16,
        "channels": 8,
        "blocks": 1,
        "discriminator_channels": 8,
        "crop": 16,
        "steps": 6,
        "batch_size": 4,
    },
}


class States:
    """As files hold them: encoded."""

    def __init__(self):
        self.kept = {}

    def latest(self, stage):
        if stage not in self.kept:
            return None
        step, data, facts = self.kept[stage]
        return StageState(stage, step, checkpoint.decode(data)[0], facts)

    def commit(self, state):
        self.kept[state.stage] = (state.step, checkpoint.encode(state.tensors, {}), state.facts)


class Recorder:
    def __init__(self, seed=0, stop_after=math.inf):
        self.logged = []
        self.progressed = []
        self.seed = seed
        self.stop_after = stop_after

    def context(self):
        return TrainingContext(
            seed=self.seed,
            compute_device="cpu",
            log=lambda stage, step, values: self.logged.append((stage, step, dict(values))),
            progress=lambda stage, done, total: self.progressed.append((stage, done, total)),
            should_stop=lambda: len(self.progressed) >= self.stop_after,
        )


def view(n, partition="training", size=16, seed=0):
    generator = np.random.default_rng((seed, n))
    pixels = generator.integers(0, 256, (n, size, size), dtype=np.uint8)
    ids = tuple(str(i) for i in range(n))
    return ImageView(partition, pixels, ids, ids, ("",) * n, ("",) * n)


def fitted(seed=0, settings=TINY):
    recorder = Recorder(seed)
    generator = DsrGan(DsrGanSettings.model_validate(settings))
    report = generator.fit(view(12), view(5, "tuning"), recorder.context())
    return generator, report, recorder


@pytest.fixture(scope="module")
def once():
    return fitted()


def test_settings_are_read_without_importing_torch():
    code = (
        "import sys; from medisynth.models.registry import load_generator;"
        "g = load_generator('dsr-gan'); print(g.image_size_px(g.Settings()), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603

    assert out.stdout.split() == ["128", "False"]


def test_it_is_registered_by_name():
    assert load_generator("dsr-gan") is DsrGan


def test_equal_seeds_give_equal_bytes_and_another_seed_gives_others(once):
    again, _, _ = fitted()
    other, _, _ = fitted(seed=1)
    contexts = [Recorder(seed).context() for seed in (0, 0, 1)]
    first, second, third = (
        generator.sample(3, context)
        for generator, context in zip((once[0], again, other), contexts, strict=True)
    )

    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != third.tobytes()
    assert checkpoint.encode(once[0].state(), {}) == checkpoint.encode(again.state(), {})


def test_fitting_and_sampling_leave_the_global_generators_as_they_were():
    before = torch.get_rng_state()
    generator, _, _ = fitted()
    generator.sample(1, Recorder().context())

    assert torch.equal(torch.get_rng_state(), before)


def test_samples_are_grey_images_of_the_stated_size(once):
    generator = once[0]
    images = generator.sample(35, Recorder().context())  # more than one batch

    assert images.shape == (35, 16, 16)
    assert images.dtype == np.uint8
    assert images.std() > 1
    assert len({image.tobytes() for image in images}) == 35


def test_state_through_a_file_gives_the_same_samples(once):
    generator = once[0]
    tensors, _ = checkpoint.decode(checkpoint.encode(generator.state(), {"generator": "dsr-gan"}))
    restored = DsrGan(DsrGanSettings.model_validate(TINY))
    restored.load_state(tensors)

    expected = generator.sample(4, Recorder().context())
    assert np.array_equal(restored.sample(4, Recorder().context()), expected)
    assert restored.state().keys() == tensors.keys()


def test_the_report_counts_what_was_done(once):
    _, report, _ = once

    assert [(s.name, s.n_steps, s.batch_size, s.precision) for s in report.stages] == [
        ("diffusion", 10, 4, "fp32"),
        ("super-resolution", 6, 4, "fp32"),
    ]
    assert all(s.n_parameters > 100 and s.duration_s > 0 for s in report.stages)
    assert {one.fit_view_sha256 for one in report.fitted} == {view(12).digest}
    assert report.selection.view_sha256 == view(5, "tuning").digest


def test_the_chosen_step_is_the_candidate_with_the_lowest_tuning_loss(once):
    _, report, _ = once

    assert [one.step for one in report.selection.candidates] == [4, 8, 10]
    best = min(report.selection.candidates, key=lambda one: one.score)
    assert report.selection.chosen_step == best.step


def test_the_description_is_filled_and_in_words_with_numbers(once):
    _, report, _ = once
    n_diffusion = report.stages[0].n_parameters

    assert {"architecture", "losses", "optimiser", "schedule", "augmentation", "sampler"} <= set(
        report.description
    )
    assert all(report.description.values())
    assert f"{n_diffusion:,} parameters" in report.description["architecture"]
    assert report.description["conditioning"] == "unconditional"


def test_every_curve_is_logged_with_finite_numbers(once):
    _, _, recorder = once
    names = {(stage, name) for stage, _, values in recorder.logged for name in values}

    assert names >= {
        ("diffusion", "training loss"),
        ("diffusion", "tuning loss"),
        ("diffusion", "learning rate"),
        ("diffusion", "gradient norm"),
        ("super-resolution", "generator loss"),
        ("super-resolution", "discriminator loss"),
        ("super-resolution", "content loss (L1)"),
        ("super-resolution", "tuning content loss"),
    }
    assert all(math.isfinite(v) for _, _, values in recorder.logged for v in values.values())


def test_progress_names_every_step_of_every_stage(once):
    _, _, recorder = once
    expected = [("diffusion", i, 10) for i in range(1, 11)]
    expected += [("super-resolution", i, 6) for i in range(1, 7)]

    assert recorder.progressed == expected


def test_a_stop_in_training_leaves_the_generator_unfitted():
    recorder = Recorder(stop_after=3)
    generator = DsrGan(DsrGanSettings.model_validate(TINY))

    with pytest.raises(StoppedError, match="diffusion: stopped after 3 of 10 steps"):
        generator.fit(view(12), view(5, "tuning"), recorder.context())
    with pytest.raises(TrainingError, match="fit it or load a checkpoint first"):
        generator.sample(1, Recorder().context())


def test_a_stop_in_sampling_is_honoured(once):
    with pytest.raises(StoppedError, match="sampling: stopped after 0 images"):
        once[0].sample(2, Recorder(stop_after=0).context())


def test_weights_that_are_not_finite_are_noticed_in_sampling(once):
    tensors = dict(once[0].state())
    tensors["diffusion.network.out.bias"] = torch.full_like(
        tensors["diffusion.network.out.bias"], math.nan
    )
    generator = DsrGan(DsrGanSettings.model_validate(TINY))
    generator.load_state(tensors)

    with pytest.raises(TrainingError, match="diffusion network gave values that are not finite"):
        generator.sample(1, Recorder().context())


@pytest.mark.malformed("checkpoint")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("histograms"), "'histograms': expected shape"),
        (lambda t: t.pop("diffusion.gain"), r"'diffusion.gain': expected shape \(\), found no"),
        (lambda t: t.update(stranger=torch.zeros(1)), "'stranger': expected no such tensor"),
        (
            lambda t: t.update({"diffusion.mean_image": torch.zeros(1, 1, 9, 9)}),
            r"'diffusion.mean_image': expected shape \(1, 1, 8, 8\), found shape \(1, 1, 9, 9\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(once, change, message):
    tensors = dict(once[0].state())
    change(tensors)

    with pytest.raises(WeightsError, match=message):
        DsrGan(DsrGanSettings.model_validate(TINY)).load_state(tensors)


@pytest.mark.malformed("checkpoint")
def test_weights_of_other_settings_are_refused(once):
    wider = {**TINY, "super_resolution": {**TINY["super_resolution"], "channels": 16}}

    with pytest.raises(WeightsError, match="super_resolution"):
        DsrGan(DsrGanSettings.model_validate(wider)).load_state(once[0].state())


@pytest.mark.malformed("checkpoint")
def test_weights_from_before_noise_was_drawn_are_refused_with_the_version_that_reads_them(once):
    own = "super_resolution.network."
    tensors = {k: v for k, v in once[0].state().items() if not k.startswith("super_resolution.")}
    for name in ("stem.0.weight", "stem.1.weight", "after.weight", "out.weight"):
        tensors[own + name] = torch.zeros(1)

    with pytest.raises(WeightsError) as refused:
        DsrGan(DsrGanSettings.model_validate(TINY)).load_state(tensors)

    assert "written before the enlarging stage drew noise" in str(refused.value)
    assert "medisynth-gov 0.1.0 up to commit" in str(refused.value)
    assert str(refused.value).count(". ") == 0


@pytest.mark.malformed("checkpoint")
def test_weights_without_a_picture_window_are_refused_with_the_version_that_reads_them(once):
    tensors = {k: v for k, v in once[0].state().items() if k != "diffusion.window"}

    with pytest.raises(WeightsError, match=r"sample them with medisynth-gov 0\.1\.0 up to commit"):
        DsrGan(DsrGanSettings.model_validate(TINY)).load_state(tensors)


def test_an_image_four_times_larger_is_doubled_by_two_networks_in_turn():
    larger = {**TINY, "super_resolution": {**TINY["super_resolution"], "to": 32, "crop": 32}}
    generator = DsrGan(DsrGanSettings.model_validate(larger))

    report = generator.fit(view(12, size=32), view(5, "tuning", 32), Recorder().context())

    names = [stage.name for stage in report.stages]
    assert names == ["diffusion", "super-resolution to 16 px", "super-resolution"]
    assert report.description["architecture"].count("2 times, to 16 px and 32 px") == 1
    sides = {k.split(".")[1] for k in generator.state() if k.startswith("super_resolution.")}
    assert sides == {"to_16", "to_32"}
    images = generator.sample(3, Recorder().context())
    assert images.shape == (3, 32, 32)
    other = DsrGan(DsrGanSettings.model_validate(larger))
    other.load_state(generator.state())
    assert np.array_equal(other.sample(3, Recorder().context()), images)


REFINED = {
    **TINY,
    "selection_every": 2,
    "score_images": 4,
    "refining": {
        "n_samples": 6,
        "channels": 8,
        "blocks": 1,
        "discriminator_widths": [8, 8],
        "steps": 5,
        "warm_up_steps": 1,
        "batch_size": 4,
        "every": 2,
    },
    "super_resolution": {**TINY["super_resolution"], "to": 32, "crop": 32},
}


def refined(stop_after=math.inf, **also):
    recorder = Recorder(stop_after=stop_after)
    generator = DsrGan(DsrGanSettings.model_validate(REFINED))
    context = dataclasses.replace(recorder.context(), **also)
    return generator, generator.fit(view(12, size=32), view(5, "tuning", 32), context)


def test_the_refining_network_is_trained_last_and_chosen_by_whole_images():
    seen = []

    def score(images):
        seen.append(images)
        return [0.3, 0.1, 0.2][len(seen) - 1]

    generator, report = refined(score=score, score_name="KID")

    names = [stage.name for stage in report.stages]
    assert names == ["diffusion", "super-resolution", "refining"]
    assert [images.shape for images in seen] == [(4, 32, 32)] * 3
    scores = [(one.step, one.score) for one in report.selection.candidates]
    assert scores == [(2, 0.3), (4, 0.1), (5, 0.2)]
    assert report.selection.chosen_step == 4
    assert "relativistic softplus of whole images" in report.description["losses"]
    images = generator.sample(3, Recorder().context())
    other = DsrGan(DsrGanSettings.model_validate(REFINED))
    other.load_state(generator.state())
    assert np.array_equal(other.sample(3, Recorder().context()), images)
    assert not any(np.array_equal(images[0], drawn) for drawn in seen[0])


def test_a_training_that_was_stopped_while_refining_ends_with_the_same_bits():
    states = States()
    with pytest.raises(StoppedError):
        refined(stop_after=22, states=states, commit_every=2)
    assert 0 < states.latest("refining").step < 5

    generator, report = refined(states=states, commit_every=2)

    straight, of_straight = refined()
    assert checkpoint.encode(generator.state(), {}) == checkpoint.encode(straight.state(), {})
    assert report.selection.candidates == of_straight.selection.candidates


def test_the_refining_network_draws_other_images_than_the_untrained_one():
    generator, report = refined()

    assert report.selection.criterion.startswith("lowest energy distance")
    state = generator.state()
    assert float(state["super_resolution.to_16.out.weight"].abs().max()) > 0


def test_a_bicubic_last_doubling_trains_no_network_and_enlarges_what_refining_gives():
    settings = DsrGanSettings.model_validate(
        {**REFINED, "super_resolution": {**REFINED["super_resolution"], "last_doubling": "bicubic"}}
    )
    generator = DsrGan(settings)

    report = generator.fit(view(12, size=32), view(5, "tuning", 32), Recorder().context())

    assert [stage.name for stage in report.stages] == ["diffusion", "refining"]
    assert "last doubling bicubic" in report.description["architecture"]
    assert not any(name.startswith("super_resolution.to_32") for name in generator.state())
    images = generator.sample(3, Recorder().context())
    assert images.shape == (3, 32, 32)
    other = DsrGan(settings)
    other.load_state(generator.state())
    assert np.array_equal(other.sample(3, Recorder().context()), images)


def test_bicubic_doubling_keeps_even_grey_and_straight_slopes_but_for_a_trace():
    small = torch.linspace(0, 0.7, 8).expand(1, 1, 8, 8)

    large = Bicubic()(small, torch.zeros(1, 0))

    assert large.shape == (1, 1, 16, 16)
    inside = large[0, 0, 4, 4:-4]
    expected = torch.linspace(-0.025, 0.725, 16)[4:-4]
    assert torch.allclose(inside, expected, atol=1e-2)
    assert torch.allclose(
        Bicubic()(torch.full((1, 1, 4, 4), 0.3), torch.zeros(1, 0)), torch.tensor(0.3)
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"refining": {"discriminator_widths": [8]}}, "has 1 numbers; with diffusion.size 8"),
        ({"refining": {"steps": 5, "warm_up_steps": 5}}, "allowed are 0 to 4"),
        (
            {"super_resolution": {"to": 16, "crop": 16, "last_doubling": "bicubic"}},
            "it needs refining, and super_resolution.to of at least 4 times",
        ),
    ],
)
def test_refining_that_does_not_fit_is_refused_in_one_sentence(change, said):
    settings = {**REFINED, **change}
    if "refining" in change:
        settings["refining"] = {**REFINED["refining"], **change["refining"]}

    with pytest.raises(ValidationError, match=said):
        DsrGanSettings.model_validate(settings)


def test_the_texture_of_image_i_depends_on_seed_and_i_alone(once):
    generator = once[0]
    many, few = (
        generator.sample(35, Recorder().context()),
        generator.sample(3, Recorder().context()),
    )

    assert np.array_equal(many[:3], few)


def test_a_view_of_another_size_is_refused():
    generator = DsrGan(DsrGanSettings.model_validate(TINY))

    with pytest.raises(DataError, match=r"tuning view: expected images of 16 x 16.*found 8 x 8"):
        generator.fit(view(4), view(4, "tuning", size=8), Recorder().context())


def test_an_empty_view_is_refused():
    generator = DsrGan(DsrGanSettings.model_validate(TINY))

    with pytest.raises(DataError, match="training view: expected at least 1 image, found 0"):
        generator.fit(view(0), view(4, "tuning"), Recorder().context())


def test_a_view_of_one_image_is_refused_because_nothing_differs():
    generator = DsrGan(DsrGanSettings.model_validate(TINY))

    with pytest.raises(DataError, match="expected images that differ, found 1"):
        generator.fit(view(1), view(1, "tuning"), Recorder().context())


def test_fewer_images_than_a_batch_are_enough():
    generator = DsrGan(DsrGanSettings.model_validate(TINY))

    report = generator.fit(view(2), view(1, "tuning"), Recorder().context())

    assert report.selection.chosen_step in {4, 8, 10}


def test_no_images_asked_for_is_refused(once):
    with pytest.raises(SettingsError, match="expected at least 1, found 0"):
        once[0].sample(0, Recorder().context())


def test_histogram_references_are_training_images_alone(once):
    pixels = view(12).pixels.astype(float)
    blocks = pixels.reshape(12, 8, 2, 8, 2).mean((2, 4))

    histograms = once[0].state()["histograms"].numpy()

    assert histograms.shape == (12, 256)
    assert (histograms.sum(1) == 64).all()
    means = (histograms * np.arange(256)).sum(1) / 64
    assert means == pytest.approx(blocks.mean((1, 2)), abs=0.5)


def test_auto_precision_is_resolved_and_reported():
    _, report, _ = fitted(settings={**TINY, "precision": "auto"})

    assert {stage.precision for stage in report.stages} <= {"fp32", "bf16"}


def test_bf16_trains_and_repeats():
    settings = {**TINY, "precision": "bf16"}
    first, report, _ = fitted(settings=settings)
    second, _, _ = fitted(settings=settings)

    assert {stage.precision for stage in report.stages} == {"bf16"}
    images = [g.sample(2, Recorder().context()) for g in (first, second)]
    assert np.array_equal(*images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diffusion": {"size": 60}}, r"diffusion.size is 60; allowed are multiples of 8"),
        (
            {"super_resolution": {"to": 100, "crop": 48}},
            r"super_resolution.to is 100; allowed are 128, 256 and 512",
        ),
        (
            {"super_resolution": {"crop": 200}},
            r"super_resolution\n.*crop is 200; allowed are 16 to 128",
        ),
        ({"super_resolution": {"crop": 33}}, r"super_resolution.crop\n.*multiple of 8"),
        (
            {"super_resolution": {"speckle": 0.1}},
            r"super_resolution.speckle belongs to the enlarging stage before it drew noise",
        ),
        (
            {"diffusion": {"steps": 5, "warm_up_steps": 5}},
            r"diffusion.warm_up_steps is 5; allowed are 0 to 4",
        ),
        ({"diffusion": {"chanels": [64]}}, r"diffusion.chanels\n\s+Extra inputs"),
        ({"diffusion": {"channels": []}}, r"diffusion.channels\n.*at least 1 item"),
        ({"diffusion": {"channels": [12]}}, r"diffusion.channels.0\n.*multiple of 8"),
        ({"diffusion": {"unshuffle": 3}}, r"diffusion.unshuffle\n.*1, 2, 4 or 8"),
        ({"diffusion": {"learning_rate": 0}}, r"diffusion.learning_rate\n.*greater than 0"),
        (
            {"diffusion": {"batch_size": 6, "accumulate": 4}},
            r"diffusion.accumulate is 4; allowed are divisors of diffusion.batch_size \(6\)",
        ),
        (
            {"super_resolution": {"batch_size": 6, "accumulate": 4}},
            r"super_resolution\n.*accumulate is 4; allowed are divisors of batch_size \(6\)",
        ),
        ({"pretrained": {"path": "x", "sha256": "0" * 63}}, r"pretrained.sha256\n.*pattern"),
        ({"precision": "fp16"}, r"precision\n.*'auto', 'fp32' or 'bf16'"),
    ],
)
def test_a_setting_that_cannot_be_used_names_key_value_and_what_is_allowed(change, message):
    with pytest.raises(ValidationError, match=message):
        DsrGanSettings.model_validate(change)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        DsrGanSettings().precision = "bf16"


def test_settings_of_another_generator_are_refused():
    with pytest.raises(SettingsError, match="expected DsrGanSettings"):
        DsrGan(DsrGanSettings().diffusion)


def test_the_report_is_frozen(once):
    with pytest.raises(ValidationError, match="frozen"):
        once[1].selection.chosen_step = 0
