import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from governance.records.errors import SettingsError
from medisynth import checkpoint
from medisynth.generator import TrainingContext
from medisynth.training.loop import TIMING_CURVES, train
from medisynth.training.workers import Workers, workers
from tests.medisynth.training.toy_gan import ToyGan, assert_same_tensors
from tests.medisynth.training.two_processes import N_STEPS, STOP_STEP
from tests.places import ROOT


def without_timing(logged):
    return [(step, values) for step, values in logged if not TIMING_CURVES & values.keys()]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What two processes, started by torchrun, found and trained."""
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("two_processes.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(  # noqa: S603 - our own script
        [*launch, str(script), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads((folder / f"found-{rank}.json").read_bytes()) for rank in (0, 1)]
    finals = [checkpoint.decode((folder / f"final-{rank}").read_bytes())[0] for rank in (0, 1)]
    return found, finals


@pytest.fixture(scope="module")
def of_one():
    """The same training in this process."""
    logged = []
    stage = ToyGan(N_STEPS, accumulate=2)
    context = TrainingContext(
        seed=3,
        compute_device="cpu",
        log=lambda _, step, values: logged.append((step, dict(values))),
        progress=lambda *_: None,
        should_stop=lambda: False,
    )
    train(stage, context, evaluate_every=10)
    return stage, logged


def test_two_processes_train_to_the_weights_of_one(of_one, of_two):
    expected = of_one[0].state()[0]
    (found, _) = of_two[1]

    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.allclose(found[name], value, rtol=0, atol=1e-5), name


def test_two_processes_hold_bitwise_equal_weights(of_two):
    assert_same_tensors(*of_two[1])


def test_two_processes_train_the_images_of_one_between_them(of_one, of_two):
    main, other = of_two[0]

    assert main["n_processes"] == 2
    assert [main["n_images"], other["n_images"]] == [N_STEPS * 4, N_STEPS * 4]
    assert of_one[0].n_images == N_STEPS * 8


def test_two_processes_log_the_curves_of_one(of_one, of_two):
    expected, found = without_timing(of_one[1]), without_timing(of_two[0][0]["logged"])

    assert [step for step, _ in found] == [step for step, _ in expected]
    for (_, numbers), (_, others) in zip(found, expected, strict=True):
        assert numbers == pytest.approx(others, abs=1e-5)


def test_process_0_alone_logs_commits_and_previews(of_two):
    main, other = of_two[0]

    assert (main["committed"], main["n_previews"], main["n_progress"]) == ([10, 20], 2, N_STEPS)
    assert (other["committed"], other["n_previews"], other["n_progress"]) == ([], 0, 0)
    assert other["logged"] == []


def test_a_stop_asked_of_one_process_stops_both_after_the_same_step(of_two):
    main, other = of_two[0]

    assert main["stopped"] == f"toy GAN: stopped after {STOP_STEP} of {N_STEPS} steps"
    assert other["stopped"] == main["stopped"]
    assert main["committed_at_stop"] == [STOP_STEP]


def test_processes_that_find_different_states_are_refused_together(of_two):
    for found in of_two[0]:
        assert found["refused_unequal"].startswith("WeightsError: toy GAN: expected every process")
        assert found["all_equal"] == [True, False]


def test_a_stage_whose_processes_train_each_for_itself_is_refused(of_two):
    for found in of_two[0]:
        assert "expected 2 processes with equal optimiser moments" in found["refused_alone"]


def test_one_process_gets_back_what_it_gave_and_no_group_is_made():
    alone, network = workers(), nn.Linear(2, 2)
    batch = [(0, 1), (0, 2), (0, 3)]

    assert (alone.rank, alone.n, alone.is_main) == (0, 1, True)
    assert alone.share(batch) is batch
    assert alone.wrap(network) is network
    assert alone.unwrap(network) is network
    assert alone.mean({"loss": 0.1}) == {"loss": 0.1}
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.all_equal(7)
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_shares_are_equal_and_together_the_batch(n):
    batch = [(0, index) for index in range(6)]
    shares = [Workers(rank, n).share(batch) for rank in range(n)]

    assert [place for share in shares for place in share] == batch
    assert {len(share) for share in shares} == {6 // n}


def test_noise_of_an_image_is_the_same_whatever_the_number_of_processes():
    noise = torch.randn(6, 1, 2, 2)

    assert torch.equal(torch.cat([Workers(rank, 3).share(noise) for rank in range(3)]), noise)


def test_a_batch_that_cannot_be_cut_into_equal_slices_is_refused():
    with pytest.raises(SettingsError, match=r"batch_size: expected a multiple .* \(4\), found 6"):
        Workers(0, 4).share(list(range(6)))
