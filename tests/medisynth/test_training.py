import math
import time

import pytest
import torch
from torch import nn

from medisynth.errors import TrainingError
from medisynth.generator import StoppedError, TrainingContext
from medisynth.training import (
    Order,
    averaged,
    choose_precision,
    derive_seed,
    learning_rate,
    mean_of,
    seeded_weights,
    snapshot,
    torch_generator,
    train,
    update,
)


class CountingStage:
    name = "counting"

    def __init__(self, n_steps):
        self.n_steps = n_steps
        self.steps = []

    def step(self, step):
        self.steps.append(step)
        return {"number": float(step)} | ({"late": 10.0 * step} if step >= 3 else {})

    def evaluate(self, step):
        return {"score": float(step)}


class Recorder:
    def __init__(self, stop_after=math.inf):
        self.logged = []
        self.progressed = []
        self.stop_after = stop_after

    def context(self):
        return TrainingContext(
            seed=0,
            compute_device="cpu",
            log=lambda stage, step, values: self.logged.append((stage, step, dict(values))),
            progress=lambda stage, done, total: self.progressed.append((stage, done, total)),
            should_stop=lambda: len(self.progressed) >= self.stop_after,
        )


def test_every_step_is_made_once_in_order_and_reported():
    stage, recorder = CountingStage(5), Recorder()

    duration_s = train(stage, recorder.context(), evaluate_every=100)

    assert stage.steps == [0, 1, 2, 3, 4]
    assert recorder.progressed == [("counting", done, 5) for done in range(1, 6)]
    assert duration_s > 0


def test_evaluation_comes_every_so_many_steps_and_after_the_last():
    recorder = Recorder()

    train(CountingStage(5), recorder.context(), evaluate_every=2)

    scores = [(step, values["score"]) for _, step, values in recorder.logged if "score" in values]
    assert scores == [(2, 2.0), (4, 4.0), (5, 5.0)]


def test_logged_numbers_are_means_over_the_steps_that_had_them():
    recorder = Recorder()

    train(CountingStage(400), recorder.context(), evaluate_every=1000)  # logged every 2 steps

    assert recorder.logged[0] == ("counting", 2, {"number": 0.5})
    assert recorder.logged[1] == ("counting", 4, {"number": 2.5, "late": 30.0})


def test_a_stop_is_honoured_between_two_steps():
    stage, recorder = CountingStage(5), Recorder(stop_after=3)

    with pytest.raises(StoppedError, match="counting: stopped after 3 of 5 steps"):
        train(stage, recorder.context(), evaluate_every=1)

    assert stage.steps == [0, 1, 2]


def test_learning_rate_rises_linearly_and_falls_by_half_a_cosine():
    rates = [learning_rate(1.0, step, n_steps=12, n_warm_up=4) for step in range(12)]

    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.5)
    assert rates[11] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))


def test_an_update_moves_weights_against_the_gradient_and_returns_its_numbers():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimiser = torch.optim.SGD([weight], lr=123.0)
    loss = weight.square().sum() / 2  # gradient = weight, norm 5, clipped to 1

    values = update(optimiser, {"loss": loss}, loss, stage="s", step=0, rate=0.5)

    assert values == {"loss": 12.5, "gradient norm": 5.0}
    assert weight.detach().numpy() == pytest.approx([3 - 0.5 * 0.6, 4 - 0.5 * 0.8], abs=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_weights_change(bad):
    weight = nn.Parameter(torch.tensor([3.0]))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    loss = weight.sum() * bad

    with pytest.raises(TrainingError, match=r"diffusion, step 8: training loss is (nan|inf)") as e:
        update(optimiser, {"training loss": loss}, loss, stage="diffusion", step=7, rate=1.0)

    assert e.value.exit_code == 8
    assert weight.item() == 3.0


def test_a_gradient_that_is_not_finite_stops_though_the_loss_is_finite():
    weight = nn.Parameter(torch.tensor([0.0]))
    loss = weight.sqrt().sum()  # 0, with an infinite slope

    with pytest.raises(TrainingError, match=r"s, step 1: gradient norm is (nan|inf)"):
        update(torch.optim.SGD([weight], 1.0), {"loss": loss}, loss, stage="s", step=0, rate=1.0)

    assert weight.item() == 0.0


def test_seeds_differ_by_every_part_of_the_place_and_repeat():
    places = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a", 1, 0)]
    seeds = [derive_seed(*place) for place in places]

    assert len(set(seeds)) == len(places)
    assert seeds == [derive_seed(*place) for place in places]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_derived_seeds_never_change_between_versions():
    # printf 7/diffusion/noise/3 | sha256sum, first 16 digits, halved
    assert derive_seed(7, "diffusion", "noise", 3) == 7876859872326813695


def test_initial_weights_come_from_the_seed_and_leave_torch_as_it_was():
    before = torch.get_rng_state()
    with seeded_weights(1, "x"):
        first = nn.Linear(4, 4).weight
    with seeded_weights(1, "x"):
        again = nn.Linear(4, 4).weight
    with seeded_weights(2, "x"):
        other = nn.Linear(4, 4).weight

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_image_is_drawn_once_an_epoch_whatever_the_batch_size():
    order = Order(n_images=10, batch_size=4, seed=3, stage="s")
    places = [place for step in range(5) for place in order.batch(step)]

    assert sorted(places) == [(epoch, index) for epoch in (0, 1) for index in range(10)]
    assert places[:10] != places[10:]


def test_a_batch_does_not_depend_on_the_batches_before_it():
    walked = Order(10, 4, seed=3, stage="s")
    for step in range(7):
        walked.batch(step)

    assert Order(10, 4, seed=3, stage="s").batch(7) == walked.batch(7)


def test_moving_average_warms_up_and_then_keeps_its_decay():
    network = nn.Linear(1, 1, bias=False)
    average = averaged(network, decay=0.15)
    seen = []
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)
        seen.append(average.module.weight.item())

    second = 1.0 * 0.15 + 2.0 * 0.85  # warm-up would keep 2/11 = 0.18 of the old: decay is less
    third = second * 0.15 + 3.0 * 0.85
    assert seen == pytest.approx([1.0, second, third])


def test_moving_average_keeps_little_of_the_old_at_first():
    network = nn.Linear(1, 1, bias=False)
    average = averaged(network, decay=0.999)
    for value in (1.0, 2.0):
        nn.init.constant_(network.weight, value)
        average.update_parameters(network)

    assert average.module.weight.item() == pytest.approx(1.0 * 2 / 11 + 2.0 * 9 / 11)


def test_a_snapshot_does_not_follow_the_network():
    network = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    kept = snapshot(network)
    before = kept["weight"].clone()
    nn.init.zeros_(network.weight)

    assert torch.equal(kept["weight"], before)
    assert kept["weight"].is_contiguous()


@pytest.mark.parametrize("setting", ["fp32", "bf16"])
def test_a_stated_precision_is_taken_without_a_trial(setting):
    def trial(precision):
        raise RuntimeError(precision)

    assert choose_precision(setting, trial, "cpu") == setting


@pytest.mark.parametrize(("slow", "chosen"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_auto_takes_the_precision_whose_steps_are_faster(slow, chosen):
    def trial(precision):
        until = time.thread_time() + (0.02 if precision == slow else 0.002)
        while time.thread_time() < until:
            pass

    assert choose_precision("auto", trial, "cpu") == chosen


def test_auto_keeps_fp32_where_bf16_gains_nothing():
    def trial(precision):
        until = time.thread_time() + 0.01
        while time.thread_time() < until:
            pass

    assert choose_precision("auto", trial, "cpu") == "fp32"


def test_generators_of_one_place_repeat():
    draws = [torch.randn(3, generator=torch_generator("cpu", 1, "a", 2)) for _ in range(2)]

    assert torch.equal(*draws)


def test_batch_means_are_weighted_by_their_size():
    assert mean_of([(1.0, 3), (5.0, 1)]) == 2.0
