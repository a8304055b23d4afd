import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from governance.records.errors import DataError, TrainingError, WeightsError
from medisynth import checkpoint
from medisynth.data.phantom import PhantomSettings, simulate_image
from medisynth.data.phantom.cohort import plan_cohort
from medisynth.data.reading.decode import to_square
from medisynth.generator import StageState, StoppedError
from medisynth.models.adversarial.images import to_signed
from medisynth.models.adversarial.layers import doubled
from medisynth.models.adversarial.losses import discriminator_loss, generator_loss, penalised
from medisynth.models.tb_gan import TbGan
from medisynth.models.tb_gan.generator import StyleSwinGenerator
from medisynth.models.tb_gan.networks import new_networks
from medisynth.models.tb_gan.settings import TbGanSettings
from medisynth.training.loop import learning_rate, seeded_weights, train
from pipelines.config.model import load_config
from tests.medisynth.models.tb_gan.tiny_tb_gan import (
    STYLESWIN,
    Recorder,
    States,
    equal,
    fitted,
    settings,
    stage_of,
    view,
)


@pytest.fixture(scope="module")
def once():
    return fitted()


def test_settings_are_read_without_importing_torch():
    code = (
        "import sys; from medisynth.models.tb_gan import TbGan;"
        "print(TbGan.image_size_px(TbGan.Settings()), 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603

    assert out.stdout.split() == ["64", "False"]


def test_equal_seeds_give_equal_weights_and_another_seed_gives_others(once):
    again, _, _ = fitted()
    first, second = once[0].state(), again.state()
    other = new_networks(settings(), 1, "cpu").generator.state_dict()

    assert checkpoint.encode(first, {}) == checkpoint.encode(second, {})
    assert not torch.equal(other["start"], new_networks(settings(), 0, "cpu").generator.start)


def test_samples_are_grey_images_of_the_stated_size_and_repeatable(once):
    generator = once[0]
    images = generator.sample(35, Recorder().context())  # more than one batch

    assert images.shape == (35, 32, 32)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 35
    assert np.array_equal(generator.sample(35, Recorder().context()), images)
    # Up to rounding: another batch size is another order of sums.
    few = generator.sample(3, Recorder().context()).astype(int)
    assert np.abs(few - images[:3]).max() <= 1


def test_training_leaves_the_global_generators_as_they_were():
    before = torch.get_rng_state()
    stage_of(Recorder().context()).step(0)

    assert torch.equal(torch.get_rng_state(), before)


def test_training_changes_both_networks_and_the_average_follows():
    stage = stage_of(Recorder().context())
    names = ("generator", "discriminator", "averaged")
    before = {name: stage.state()[0] for name in names}["generator"]
    values = [stage.step(step) for step in range(3)]
    after = stage.state()[0]

    assert all(math.isfinite(value) for step in values for value in step.values())
    for name in names:
        changed = [k for k in before if k.startswith(f"module/{name}/")]
        assert any(not torch.equal(before[k], after[k]) for k in changed)


def test_the_average_is_the_moving_average_of_the_weights():
    stage = stage_of(Recorder().context(), ema=0.2)
    expected = stage.networks.generator.start.detach().clone()
    for step in range(3):
        stage.step(step)
        now = stage.networks.generator.start.detach()
        decay = 0.0 if step == 0 else min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * now

    assert torch.allclose(stage.networks.averaged.module.start, expected, atol=1e-6)


@pytest.mark.parametrize("kinds", [{}, STYLESWIN], ids=["recipe", "styleswin"])
@pytest.mark.parametrize("planes", [("",), ("a", "b")], ids=["unconditional", "conditional"])
def test_four_steps_are_two_steps_then_a_state_and_two_more_bit_by_bit(kinds, planes):
    context, training = Recorder().context(), view(16, planes=planes)
    whole, first, second = (stage_of(context, training, **kinds) for _ in range(3))
    for step in range(4):
        whole.step(step)
    whole.evaluate(4)
    for step in range(2):
        first.step(step)
    tensors, facts = first.state()
    second.load_state(tensors, facts)
    for step in (2, 3):
        second.step(step)
    second.evaluate(4)

    assert (facts["pseudo_real_probability"] > 0) == ("apa" in kinds)
    assert equal(whole.state()[0], second.state()[0])
    assert whole.state()[1] == second.state()[1]


def test_a_training_stopped_in_the_second_part_ends_as_if_it_had_not_been(once):
    schedule = ({"name": "first", "plane": "a", "steps": 3}, {"name": "then", "steps": 3})
    planes = ("a", "b")
    whole, report, recorder = fitted(schedule=schedule, planes=planes)
    states = States()
    stopped = Recorder(stop_after=4, states=states)
    with pytest.raises(StoppedError, match="then: stopped after 1 of 3 steps"):
        TbGan(settings(schedule=schedule)).fit(
            view(16, planes=planes), view(6, "tuning", planes=planes), stopped.context()
        )
    again, report_again, resumed = fitted(schedule=schedule, planes=planes, states=states)

    assert equal(whole.state(), again.state())
    assert report_again.selection.candidates == report.selection.candidates

    def curves(of):
        timing = {"images per second", "peak memory (GiB)"}
        return [(s, k, v) for s, k, v in of.logged if not timing & v.keys()]

    assert curves(resumed) == curves(recorder)


def test_a_state_of_other_settings_is_refused():
    tensors, facts = stage_of(Recorder().context()).state()
    other = stage_of(Recorder().context(), style_width=24)

    with pytest.raises(WeightsError, match="resume with the settings"):
        other.load_state(tensors, facts)


def test_accumulation_makes_the_same_update_up_to_rounding():
    # Groups of the minibatch standard deviation have 4 images, in a batch of 8 as in parts of 4.
    context = Recorder().context()
    changes = {"batch_size": 8}
    one, two = stage_of(context, **changes), stage_of(context, **changes, accumulate=2)
    first, second = one.step(0), two.step(0)

    assert first == pytest.approx(second, rel=1e-3)
    gradients = [
        [
            p.grad
            for p in (*s.networks.generator.parameters(), *s.networks.discriminator.parameters())
        ]
        for s in (one, two)
    ]
    for whole, parts in zip(*gradients, strict=True):
        assert torch.allclose(whole, parts, rtol=1e-2, atol=1e-4)


def test_it_trains_without_augmentation_and_on_pseudo_real_images_alone():
    apa = {"target": -1.0, "speed_images": 1}
    stage = stage_of(Recorder().context(), **STYLESWIN | {"diffaug": (), "apa": apa})
    values = [stage.step(step) for step in range(3)]

    assert [v["pseudo-real probability"] for v in values[1:]] == [1.0, 1.0]
    assert all(math.isfinite(number) for v in values for number in v.values())


def test_bf16_makes_finite_updates():
    stage = stage_of(Recorder().context())
    stage.precision = "bf16"

    assert all(math.isfinite(value) for value in stage.step(0).values())


def test_the_penalty_is_the_squared_gradient_of_the_score():
    class Quadratic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(3.0))

        def forward(self, images):
            return self.weight * images.square().sum(dim=(1, 2, 3))

    network, images = Quadratic(), torch.tensor([1.0, 2.0, 0.0, 1.0]).view(2, 1, 1, 2)
    scores, penalty = penalised(network, images)  # mean of |2 w x|²: 36 (5 + 1) / 2
    penalty.backward()

    assert scores.tolist() == [15, 3]
    assert float(penalty.detach()) == pytest.approx(108)
    assert float(network.weight.grad) == pytest.approx(2 * 108 / 3)


def test_losses_by_hand():
    real, synthetic = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0])

    def softplus(x):
        return math.log1p(math.exp(x))

    relativistic = (softplus(-1) + softplus(0)) / 2  # real less synthetic: 1 and 0
    against = (softplus(1) + softplus(0)) / 2
    logistic = (softplus(-2) + softplus(0) + softplus(1) + softplus(0)) / 2
    assert float(discriminator_loss("relativistic", real, synthetic)) == pytest.approx(relativistic)
    assert float(generator_loss("relativistic", synthetic, real)) == pytest.approx(against)
    assert float(discriminator_loss("logistic", real, synthetic)) == pytest.approx(logistic)
    alone = (softplus(-1) + softplus(0)) / 2
    assert float(generator_loss("logistic", synthetic, real)) == pytest.approx(alone)


def test_r2_penalises_synthetic_images_beside_real_ones():
    both, alone = (
        stage_of(Recorder().context(), r1={"gamma": 1.0, "every": 2, "r2": r2})
        for r2 in (True, False)
    )

    assert both.step(0)["gradient penalty"] > 1.1 * alone.step(0)["gradient penalty"]


def test_the_penalty_is_made_every_so_many_updates_and_never_without_gamma():
    stage = stage_of(Recorder().context())
    made = ["gradient penalty" in stage.step(step) for step in range(4)]
    assert made == [True, False, True, False]

    never = stage_of(Recorder().context(), r1={"gamma": 0.0})
    assert "gradient penalty" not in never.step(0)


def test_learning_rates_rise_then_fall_along_half_a_cosine_to_a_share_of_the_largest():
    stage = stage_of(
        Recorder().context(),
        schedule=({"steps": 6},),
        warm_up_steps=2,
        final_rate_share=0.1,
        learning_rate=1e-3,
    )
    rates = [stage.step(step)["learning rate"] for step in range(6)]
    falling = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]

    assert rates == pytest.approx([1e-3 * share for share in (0.55, 1.0, *falling)])


def test_each_part_takes_the_networks_of_the_one_before():
    schedule = ({"name": "first", "plane": "a", "steps": 2}, {"name": "then", "steps": 1})
    states = States()
    _, report, _ = fitted(schedule=schedule, states=states, planes=("a", "b"))
    first, then = states.latest("first"), states.latest("then")
    key = "module/averaged/n_averaged"

    assert (int(first.tensors[key]), int(then.tensors[key])) == (2, 3)
    counters = [v for k, v in then.tensors.items() if k.startswith("optimiser/") and "step" in k]
    assert {float(v) for v in counters} == {1.0}  # optimisers anew
    assert [(s.name, s.n_steps) for s in report.stages] == [("first", 2), ("then", 1)]
    assert "first (plane a)" in report.description["pre-training"]


def test_a_plane_that_no_image_shows_is_refused_before_training():
    recorder = Recorder()
    generator = TbGan(settings(schedule=({"plane": "c", "steps": 1},)))

    with pytest.raises(DataError, match=r"plane 'c' in the training view, found 0; .* a, b"):
        generator.fit(view(16, planes=("a", "b")), view(6, "tuning"), recorder.context())
    assert recorder.progressed == []


@pytest.mark.parametrize(
    ("training", "message"),
    [(view(0), "found 0"), (view(4, size=16), "32 x 32 pixels .*found 16 x 16")],
)
def test_views_that_cannot_be_trained_on_are_refused(training, message):
    with pytest.raises(DataError, match=message):
        TbGan(settings()).fit(training, view(6, "tuning"), Recorder().context())


def test_state_through_a_file_gives_the_same_samples(once):
    generator = once[0]
    tensors, _ = checkpoint.decode(checkpoint.encode(generator.state(), {"generator": "tb-gan"}))
    restored = TbGan(settings())
    restored.load_state(tensors)
    context = Recorder().context()

    assert np.array_equal(restored.sample(4, context), generator.sample(4, context))


@pytest.mark.malformed("checkpoint")
@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_are_refused(once, change):
    tensors = dict(once[0].state())
    if change == "missing":
        del tensors["generator.start"]
    elif change == "unknown":
        tensors["generator.other"] = torch.zeros(1)
    else:
        tensors["generator.start"] = torch.zeros(4, 4, 8)

    with pytest.raises(WeightsError, match="use weights that were trained with these settings"):
        TbGan(settings()).load_state(tensors)


def test_without_weights_it_says_what_to_do():
    with pytest.raises(TrainingError, match="fit it or load a checkpoint first"):
        TbGan(settings()).sample(1, Recorder().context())


def test_the_chosen_step_is_the_candidate_with_the_lowest_energy_distance(once):
    _, report, _ = once

    selection = report.selection
    assert [one.step for one in selection.candidates] == [2, 4]
    assert selection.chosen_step == min(selection.candidates, key=lambda one: one.score).step
    assert "energy distance" in selection.criterion
    assert selection.view_sha256 == view(6, "tuning").digest


def test_a_score_chooses_in_place_of_the_energy_distance():
    scores = iter([0.25, 0.5])
    recorder = Recorder(score=lambda images: next(scores) if images.shape == (4, 32, 32) else 9.0)
    report = TbGan(settings()).fit(view(16), view(6, "tuning"), recorder.context())

    assert [(one.step, one.score) for one in report.selection.candidates] == [(2, 0.25), (4, 0.5)]
    assert report.selection.chosen_step == 2
    assert "lowest KID" in report.selection.criterion


def test_samples_that_are_all_alike_stop_the_training(monkeypatch):
    monkeypatch.setattr("medisynth.models.tb_gan.training_stage.DIVERSITY_FROM_STEP", 1)
    stage = stage_of(Recorder().context())
    average = stage.networks.averaged.module
    with torch.no_grad():
        average.levels[0].position.zero_()
        for network in (*(level.skip.to_image for level in average.levels), average.tail.to_bands):
            network.linear.weight.zero_()

    with pytest.raises(TrainingError, match="the samples have collapsed"):
        stage.evaluate(1)


def test_every_curve_is_logged_with_finite_numbers_and_previews_are_drawn(once):
    _, _, recorder = once
    names = {name for _, _, values in recorder.logged for name in values}

    assert names >= {
        "generator loss",
        "discriminator loss",
        "discriminator on real",
        "discriminator on synthetic",
        "gradient penalty",
        "generator gradient norm",
        "discriminator gradient norm",
        "learning rate",
        "discriminator learning rate",
    }
    assert all(math.isfinite(v) for _, _, values in recorder.logged for v in values.values())
    assert [(s, k, images.shape) for s, k, images in recorder.previews] == [
        ("adversarial", 4, (16, 32, 32))
    ]


def test_the_description_is_filled_and_counts_parameters(once):
    _, report, _ = once
    keys = {"architecture", "sizes", "losses", "optimiser", "schedule", "augmentation", "sampler"}

    assert keys | {"recipe", "pre-training", "conditioning", "normalisation"} <= set(
        report.description
    )
    assert all(report.description.values())
    numbers = [
        int(text.split()[-1].replace(",", ""))
        for text in report.description["architecture"].split(" parameters")[:-1]
    ]
    assert sum(numbers) == report.stages[0].n_parameters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 48}, "32, 64, 128 or 256"),
        ({"size": 64}, "widths has 2 numbers; size 64 needs 3, one for each level of 4 to 16"),
        ({"tail_width": 0}, "widths has 2 numbers; size 32 needs 4"),
        ({"heads": (4, 4, 4)}, "heads has 3 numbers"),
        ({"heads": (8, 8)}, "do not divide a width of 16"),
        ({"heads": (1, 1), "whole_map_up_to": 4}, "1 heads at 8 pixels; in windows"),
        ({"discriminator_widths": (16,)}, "needs 3, one for each level of 4 to 16 pixels"),
        ({"apa": {}}, "apa: expected none with the relativistic loss"),
        ({"warm_up_steps": 5}, "allowed are 0 to 4, the steps of schedule part 'adversarial'"),
        ({"accumulate": 3}, "divisors of batch_size"),
        ({"schedule": ({"name": "a"}, {"name": "a"})}, "names must differ"),
        ({"schedule": ({"name": "sampling"},)}, "is taken"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(changes, message):
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def test_a_loop_over_the_stage_alone_commits_its_last_step():
    states = States()
    recorder = Recorder(states=states)
    train(stage_of(recorder.context()), recorder.context(), evaluate_every=2)

    assert isinstance(states.committed[-1], StageState)
    assert [state.step for state in states.committed] == [2, 4]


@pytest.mark.malformed("checkpoint")
def test_weights_and_states_of_the_former_architecture_are_refused_with_what_reads_them(once):
    former = {
        "generator.start": torch.zeros(4, 4, 16),
        "generator.levels.0.to_image.weight": torch.zeros(1, 16),
    }
    with pytest.raises(
        WeightsError, match=r"weights of tb-gan.*architecture before.*position_gain"
    ):
        TbGan(settings()).load_state(former)

    stage = stage_of(Recorder().context())
    _, facts = stage.state()
    state = {"module/generator/levels.0.to_image.weight": torch.zeros(1, 16)}
    with pytest.raises(WeightsError, match=r"adversarial: training state.*position_gain"):
        stage.load_state(state, facts)


N_PAIRS, N_UPDATES, N_WARM_UP = 8, 60, 2
WINDOW = 8  # in the images, the sides of windows at 64 pixels and of single places at 8


def phantoms(size):
    """One phantom of each patient, -1 to 1, without the finest speckle: nothing fits it so soon."""
    settings = PhantomSettings(n_patients=N_PAIRS, seed=0, image_height_px=120)
    first = {image.patient: image for image in reversed(plan_cohort(settings))}
    greys = [to_square(simulate_image(settings, image), size // 2) for image in first.values()]
    return doubled(to_signed(np.stack(greys), "cpu"))


def laptop():
    config = load_config(preset="laptop", overrides=["model.name=tb-gan"])
    return TbGanSettings.model_validate(config.model.settings)


def drawn_after_a_fit(settings, images):
    """What the generator draws for fixed numbers after a few updates at the preset's own rates."""
    with seeded_weights(0, "fit"):
        generator = StyleSwinGenerator(settings)
    generator_of_numbers = torch.Generator().manual_seed(0)
    numbers = torch.randn(N_PAIRS, generator.n_numbers, generator=generator_of_numbers)
    peak = settings.learning_rate
    optimiser = torch.optim.Adam(generator.parameters(), betas=(0.0, 0.99), fused=True)
    end = peak * settings.final_rate_share
    for step in range(N_UPDATES):
        optimiser.param_groups[0]["lr"] = end + learning_rate(
            peak - end, step, N_UPDATES, N_WARM_UP
        )
        with torch.autocast("cpu", torch.bfloat16):
            drawn = generator(numbers).float()
        optimiser.zero_grad()
        (drawn - images).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        return generator(numbers)


def edge_ratio(images):
    """Mean gradient across edges of windows over that elsewhere; about 1 where nothing shows."""
    at_edge = (torch.arange(images.shape[-1] - 1) + 1) % WINDOW == 0
    steps = [images.diff(dim=dim).abs().mean(dim=(0, 1, 5 - dim)) for dim in (2, 3)]
    return float(sum(s[at_edge].mean() for s in steps) / sum(s[~at_edge].mean() for s in steps))


def test_the_edge_ratio_of_blocks_is_large_and_of_a_slope_1():
    blocks = torch.arange(8.0).repeat_interleave(8).expand(1, 1, 64, 64)
    slope = torch.arange(64.0).expand(1, 1, 64, 64)

    assert edge_ratio(slope) == pytest.approx(1)
    assert edge_ratio(blocks + slope / 64) > 10


def test_the_laptop_generator_fits_eight_pairs_in_sixty_updates_without_showing_windows():
    settings = laptop()
    images = phantoms(settings.size)
    drawn = drawn_after_a_fit(settings, images)

    assert float((drawn - images).square().mean()) <= 0.04
    assert edge_ratio(drawn) <= 1.5
