import json
import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from governance.records.errors import SettingsError, TrainingError, WeightsError
from medisynth.generator import StoppedError, TrainingContext
from medisynth.training.loop import (
    TIMING_CURVES,
    DiscriminatorGuard,
    Order,
    accumulated_update,
    averaged,
    choose_precision,
    derive_seed,
    gather_state,
    in_parts,
    learning_rate,
    mean_of,
    pairwise_distance,
    require_diverse,
    restore_state,
    seeded_weights,
    snapshot,
    torch_generator,
    train,
    update,
)
from tests.medisynth.training.toy_gan import STAGE, MemoryStates, ToyGan, assert_same_tensors


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
        self.previews = []
        self.stop_after = stop_after

    def curves(self):
        return [point for point in self.logged if not TIMING_CURVES & point[2].keys()]

    def context(self, **more):
        return TrainingContext(
            seed=0,
            compute_device="cpu",
            log=lambda stage, step, values: self.logged.append((stage, step, dict(values))),
            progress=lambda stage, done, total: self.progressed.append((stage, done, total)),
            should_stop=lambda: len(self.progressed) >= self.stop_after,
            **more,
        )


def test_every_step_is_made_once_in_order_and_reported():
    stage, recorder = CountingStage(5), Recorder()

    trained = train(stage, recorder.context(), evaluate_every=100)

    assert stage.steps == [0, 1, 2, 3, 4]
    assert recorder.progressed == [("counting", done, 5) for done in range(1, 6)]
    assert trained.duration_s > 0
    assert trained.n_processes == 1
    assert trained.peak_memory_bytes is None or trained.peak_memory_bytes > 1 << 20


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


def run(stage, states, stop_after=math.inf, commit_every=3, **more):
    """Train; returns what was logged and whether the stage came to its end."""
    recorder = Recorder(stop_after)
    context = recorder.context(states=states, commit_every=commit_every, **more)
    try:
        train(stage, context, evaluate_every=4)
    except StoppedError:
        return recorder, False
    return recorder, True


@pytest.fixture(scope="module")
def uninterrupted():
    stage, states = ToyGan(12), MemoryStates()
    recorder, _ = run(stage, states)
    return stage, states, recorder


@pytest.mark.parametrize("stop_after", range(12))
def test_after_a_stop_at_any_step_tensors_facts_and_curves_are_bitwise_those_of_no_stop(
    uninterrupted, stop_after
):
    states = MemoryStates()
    assert not run(ToyGan(12), states, stop_after)[1]

    resumed = ToyGan(12)
    recorder, _ = run(resumed, states)

    expected, _, all_of_it = uninterrupted
    assert_same_tensors(resumed.state()[0], expected.state()[0])
    assert resumed.state()[1] == expected.state()[1]
    assert recorder.curves() == all_of_it.curves()


@pytest.mark.parametrize("n_kept", [1, 2, 3])
def test_after_a_kill_training_goes_on_from_the_last_committed_step(uninterrupted, n_kept):
    expected, committed, all_of_it = uninterrupted
    states = MemoryStates()
    states.committed = committed.committed[:n_kept]

    resumed = ToyGan(12)
    recorder, _ = run(resumed, states)

    assert resumed.n_images == (12 - 3 * n_kept) * 8
    assert_same_tensors(resumed.state()[0], expected.state()[0])
    assert recorder.curves() == all_of_it.curves()


def test_numbers_not_yet_averaged_survive_a_stop():
    whole, _ = run(CommittedCount(400), None)  # logged every 2 steps
    halves = MemoryStates()
    run(CommittedCount(400), halves, stop_after=7)
    assert halves.committed[-1].step == 7

    resumed, _ = run(CommittedCount(400), halves)

    assert resumed.curves() == whole.curves()


def test_states_are_committed_every_so_many_steps_and_after_the_last(uninterrupted):
    def steps(states):
        return [state.step for state in states.committed]

    assert steps(uninterrupted[1]) == [3, 6, 9, 12]
    states = MemoryStates()
    run(ToyGan(12), states, commit_every=5)
    assert steps(states) == [5, 10, 12]
    stopped = MemoryStates()
    run(ToyGan(12), stopped, stop_after=8, commit_every=5)
    assert steps(stopped) == [5, 8]


def test_a_stop_right_after_a_commit_does_not_commit_again():
    states = MemoryStates()
    run(ToyGan(12), states, stop_after=3)

    assert [state.step for state in states.committed] == [3]


def test_a_finished_stage_is_only_loaded(uninterrupted):
    expected, states, all_of_it = uninterrupted
    n_states = len(states.committed)
    stage = ToyGan(12)
    recorder, is_done = run(stage, states)

    assert is_done
    assert stage.n_images == 0
    assert_same_tensors(stage.state()[0], expected.state()[0])
    assert recorder.logged == all_of_it.logged  # the timing of then, not of now
    assert recorder.progressed == [(STAGE, 12, 12)]
    assert len(states.committed) == n_states


def test_duration_adds_up_over_interruptions():
    states = MemoryStates()
    first = CommittedCount(4, sleep_s=0.02)
    run(first, states, stop_after=2)
    context = Recorder().context(states=states)

    assert train(CommittedCount(4, sleep_s=0.02), context, evaluate_every=9).duration_s >= 0.08


def test_a_state_of_more_steps_than_the_stage_has_is_refused(uninterrupted):
    with pytest.raises(WeightsError, match="at most 10 steps, found one of 12"):
        run(ToyGan(10), uninterrupted[1])


def test_previews_come_every_so_many_steps_and_at_the_end_from_stages_that_have_them():
    shown = []
    more = {"preview": lambda *numbers: shown.append(numbers), "preview_every": 5}
    run(ToyGan(12), None, **more)
    run(CountingStage(12), None, **more)

    assert [(stage, step) for stage, step, _ in shown] == [(STAGE, 5), (STAGE, 10), (STAGE, 12)]
    assert all(images.shape == (4, 4, 4) and images.dtype == np.uint8 for _, _, images in shown)


def test_images_per_second_are_those_of_the_steps_alone():
    class Slow(CountingStage):
        batch_size = 6

        def step(self, step):
            time.sleep(0.02)
            return super().step(step)

        def evaluate(self, step):
            time.sleep(0.2)
            return super().evaluate(step)

    recorder = Recorder()
    train(Slow(3), recorder.context(), evaluate_every=1)

    rates = [
        values["images per second"]
        for *_, values in recorder.logged
        if len(values) == 1 and "images per second" in values
    ]
    assert len(rates) == 3
    assert all(30 < rate <= 300 for rate in rates)


class CommittedCount(CountingStage):
    """A counting stage whose state is the number of its steps."""

    def __init__(self, n_steps, sleep_s=0.0):
        super().__init__(n_steps)
        self.sleep_s = sleep_s

    def step(self, step):
        time.sleep(self.sleep_s)
        return super().step(step)

    def state(self):
        return {"n": torch.tensor(len(self.steps))}, {}

    def load_state(self, tensors, facts):
        self.steps = list(range(int(tensors["n"])))


def trained_networks(n_updates, seed=0):
    with seeded_weights(seed, "networks"):
        network = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    average = averaged(network, 0.9)
    optimiser = torch.optim.AdamW(network.parameters(), betas=(0.5, 0.99), fused=True)
    for step in range(n_updates):
        one_update(network, average, optimiser, step)
    return {"network": network, "average": average}, {"adamw": optimiser}


def one_update(network, average, optimiser, step):
    images = torch.randn(4, 2, 5, 5, generator=torch_generator("cpu", 0, "x", step))
    loss = network(images).square().mean()
    update(optimiser, {"loss": loss}, loss, stage="s", step=step, rate=0.1)
    average.update_parameters(network)


@pytest.mark.parametrize("n_updates", [0, 1, 3])
def test_gathered_state_goes_back_bit_by_bit_and_the_next_update_is_the_same(n_updates):
    modules, optimisers = trained_networks(n_updates)
    kept = gather_state(modules, optimisers)
    assert all(value.is_contiguous() and value.device.type == "cpu" for value in kept.values())
    assert ("optimiser/adamw/0/exp_avg_sq" in kept) == (n_updates > 0)

    others, their_optimisers = trained_networks(2, seed=1)
    restore_state(others, their_optimisers, kept)
    assert_same_tensors(gather_state(others, their_optimisers), kept)

    for these, optimiser in ((modules, optimisers), (others, their_optimisers)):
        one_update(these["network"], these["average"], optimiser["adamw"], n_updates)
    assert_same_tensors(gather_state(others, their_optimisers), gather_state(modules, optimisers))


def test_gathered_state_does_not_follow_the_networks():
    modules, optimisers = trained_networks(1)
    kept = gather_state(modules, optimisers)
    before = {name: value.clone() for name, value in kept.items()}
    one_update(modules["network"], modules["average"], optimisers["adamw"], 1)

    assert_same_tensors(kept, before)


def test_restored_moments_lie_in_memory_as_the_weights_do():
    modules, optimisers = trained_networks(1)
    others, their_optimisers = trained_networks(0)
    restore_state(others, their_optimisers, gather_state(modules, optimisers))
    weight = others["network"].weight

    assert their_optimisers["adamw"].state[weight]["exp_avg"].stride() == weight.stride()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("module/network/bias"), r"missing: module/network/bias"),
        (lambda t: t.update({"module/x/y": torch.ones(1)}), r"unknown: module/x/y"),
        (
            lambda t: t.update({"module/network/bias": torch.ones(4)}),
            r"module/network/bias: expected shape \(3,\) of torch.float32, found \(4,\)",
        ),
        (
            lambda t: t.update({"module/network/bias": torch.ones(3).double()}),
            r"found \(3,\) of torch.float64",
        ),
        (lambda t: t.update({"optimiser/x/0/exp_avg": torch.ones(1)}), "unknown: optimiser/x"),
        (lambda t: t.update({"optimiser/adamw/2/exp_avg": torch.ones(1)}), "unknown: optimiser"),
        (lambda t: t.update({"optimiser/adamw": torch.ones(1)}), "unknown: optimiser/adamw"),
        (
            lambda t: t.update({"optimiser/adamw/1/exp_avg": torch.ones(2)}),
            r"optimiser/adamw/1/exp_avg: expected shape \(3,\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    tensors = gather_state(*trained_networks(1))
    change(tensors)
    modules, optimisers = trained_networks(2, seed=1)
    before = gather_state(modules, optimisers)

    with pytest.raises(WeightsError, match=message):
        restore_state(modules, optimisers, tensors)

    assert_same_tensors(gather_state(modules, optimisers), before)


def test_tensors_beside_the_gathered_ones_are_left_to_the_stage():
    modules, optimisers = trained_networks(1)
    tensors = gather_state(modules, optimisers) | {"best/weight": torch.ones(1)}

    restore_state(modules, optimisers, tensors)


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


@pytest.mark.parametrize("n_parts", [1, 2, 3, 6])
def test_an_update_in_parts_is_that_of_the_whole_batch(n_parts):
    def updated(n):
        weight = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimiser = torch.optim.SGD([weight], lr=1.0)
        numbers = torch.arange(12.0).reshape(6, 2) / 10

        def losses_of(part):
            loss = (part @ weight).square().mean()
            return {"loss": loss}, loss

        parts = in_parts(numbers, n)
        values = accumulated_update(optimiser, parts, losses_of, stage="s", step=0, rate=0.1)
        return weight.detach().numpy(), values

    (whole, expected), (weights, values) = updated(1), updated(n_parts)
    assert weights == pytest.approx(whole, abs=1e-6)
    assert values == pytest.approx(expected, abs=1e-6)


def test_parts_of_a_batch_are_equal_and_in_order():
    assert in_parts([1, 2, 3, 4], 2) == [[1, 2], [3, 4]]
    assert [part.tolist() for part in in_parts(torch.arange(4), 4)] == [[0], [1], [2], [3]]


@pytest.mark.parametrize("n_parts", [3, 5, 8])
def test_a_batch_that_cannot_be_cut_into_equal_parts_is_refused(n_parts):
    with pytest.raises(SettingsError, match=f"accumulate: .* 4 images .* found {n_parts}"):
        in_parts([1, 2, 3, 4], n_parts)


@pytest.mark.parametrize(("limit", "length"), [(1.0, 0.5), (2.0, 1.0), (100.0, 2.5)])
def test_a_gradient_is_clipped_to_the_limit_asked_for(limit, length):
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    loss = weight.square().sum() / 2
    update(
        torch.optim.SGD([weight], 1.0),
        {"loss": loss},
        loss,
        stage="s",
        step=0,
        rate=0.5,
        norm_limit=limit,
    )

    assert torch.linalg.norm(weight.detach() - torch.tensor([3.0, 4.0])).item() == pytest.approx(
        length, abs=1e-5
    )


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


def observed(guard, rows):
    for step, (on_real, on_synthetic, loss) in enumerate(rows):
        guard.observe(step, on_real=on_real, on_synthetic=on_synthetic, loss=loss)


def test_a_discriminator_that_always_wins_at_the_floor_stops_training_with_its_numbers():
    with pytest.raises(TrainingError) as caught:
        observed(DiscriminatorGuard("fine", window=3, floor=0.01), [(2.0, -2.0, 0.01)] * 3)

    assert caught.value.exit_code == 8
    assert str(caught.value) == (
        "fine, step 3: the discriminator is saturated: largest loss 0.01 over the last 3 updates "
        "(now 2 on real, -2 on synthetic, loss 0.01); lower its learning rate and start again"
    )


@pytest.mark.parametrize(
    "rows",
    [
        [(2.0, -2.0, 0.01)] * 2,  # too few
        [(2.0, -2.0, 0.01), (2.0, -2.0, 0.011), (2.0, -2.0, 0.01)] * 4,  # one loss above the floor
        [(2.0, -2.0, 0.01), (2.0, 2.0, 0.01), (2.0, -2.0, 0.01)] * 4,  # fooled once in a while
        [(0.5, 0.4, 1.4)] * 20,  # alive
    ],
)
def test_a_discriminator_that_is_not_dead_goes_on(rows):
    observed(DiscriminatorGuard("fine", window=3, floor=0.01), rows)


def test_a_discriminator_that_scores_all_images_the_same_stops_training():
    with pytest.raises(TrainingError, match="step 4: the discriminator is blind"):
        observed(DiscriminatorGuard("s", window=3), [(0.5, 0.1, 1.0)] + [(0.3, 0.3, 1.0)] * 3)


def test_a_guard_remembers_over_an_interruption():
    before, after = DiscriminatorGuard("s", window=3), DiscriminatorGuard("s", window=3)
    observed(before, [(1.0, -1.0, 0.0)] * 2)
    after.restore(json.loads(json.dumps(before.facts())))

    with pytest.raises(TrainingError, match="saturated"):
        after.observe(2, on_real=1.0, on_synthetic=-1.0, loss=0.0)


def test_distance_of_images_is_the_mean_over_pairs_of_the_root_mean_square():
    images = np.zeros((3, 2, 2), np.uint8)
    images[1] = 10
    images[2, 0, 0] = 20

    pairs = [10.0, 10.0, math.sqrt((10**2 * 3 + 10**2) / 4)]
    assert pairwise_distance(images) == pytest.approx(sum(pairs) / 3)


def test_distance_does_not_wrap_around_at_the_end_of_uint8():
    assert pairwise_distance(np.array([[[0]], [[255]]], np.uint8)) == 255.0


def test_one_image_has_no_distance():
    with pytest.raises(SettingsError, match="expected at least 2 images, found 1"):
        pairwise_distance(np.zeros((1, 2, 2), np.uint8))


def test_samples_that_are_all_but_one_image_stop_training_and_others_do_not():
    images = np.zeros((2, 2, 2), np.uint8)
    images[1] = 5  # distance 5

    require_diverse(images, "s", 7, real_distance=100.0, least_share=0.05)
    with pytest.raises(TrainingError, match=r"s, step 7: the samples have collapsed.* 5 grey") as e:
        require_diverse(images, "s", 7, real_distance=100.1, least_share=0.05)
    assert e.value.exit_code == 8
