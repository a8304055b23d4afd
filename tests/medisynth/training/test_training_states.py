import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from governance.records.errors import ResourceError, TrainingError, WeightsError
from medisynth.generator import StageState
from medisynth.training import states as training_states
from medisynth.training.states import StateFolder, slug
from tests.medisynth.training.toy_gan import assert_same_tensors
from tests.places import ROOT

STAGE = "super-resolution"


class Journal:
    """The lines of a run's journal, and a folder that writes them."""

    def __init__(self, folder):
        self.folder, self.lines = folder, []

    def states(self, generator="toy", committed=None, write=Path.write_bytes):
        return StateFolder(
            self.folder,
            generator=generator,
            committed=committed,
            on_commit=lambda *line: self.lines.append(line),
            write=write,
        )

    @property
    def last(self):
        """What a resumed run is told."""
        return {stage: (name, digest) for stage, _, name, digest in self.lines}

    def files(self):
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "states")


def state(step, stage=STAGE, facts=None):
    tensors = {
        "weight": torch.full((2, 3), float(step)),
        "steps": torch.tensor(step),
        "half": torch.tensor([step + 0.5], dtype=torch.bfloat16),
    }
    return StageState(stage, step, tensors, facts or {"numbers": [0.1 + step, None], "a": {"b": 1}})


def assert_same(found, expected):
    assert (found.stage, found.step, found.facts) == (expected.stage, expected.step, expected.facts)
    assert_same_tensors(
        {k: v.float() for k, v in found.tensors.items()},
        {k: v.float() for k, v in expected.tensors.items()},
    )


def test_a_new_run_has_no_states(journal):
    assert journal.states(committed=None).latest(STAGE) is None


def test_the_last_own_commit_is_the_latest(journal):
    states = journal.states()
    for step in (1, 2):
        states.commit(state(step))
        assert_same(states.latest(STAGE), state(step))


def test_a_resumed_run_finds_what_the_journal_named_last_with_facts_bit_by_bit(journal):
    journal.states().commit(state(7, facts={"score": 0.1 + 0.2}))

    found = journal.states(committed=journal.last).latest(STAGE)

    assert_same(found, state(7, facts={"score": 0.1 + 0.2}))


def test_file_names_carry_stage_step_and_the_start_of_the_digest(journal):
    journal.states().commit(state(12))
    (_, step, name, digest) = journal.lines[0]

    assert step == 12
    assert name == f"state-super-resolution-00000012-{digest[:12]}.safetensors"
    assert journal.files() == [name]


def test_the_two_newest_of_each_stage_stay(journal):
    states = journal.states()
    for step in (1, 2, 3, 4):
        states.commit(state(step))
        states.commit(state(step, stage="super"))

    kept = [(name.rsplit("-", 2)[0], int(name.split("-")[-2])) for name in journal.files()]
    assert kept == [
        ("state-super", 3),
        ("state-super", 4),
        ("state-super-resolution", 3),
        ("state-super-resolution", 4),
    ]


def test_nothing_is_removed_before_the_new_state_is_on_record(journal):
    seen = []
    states = StateFolder(
        journal.folder,
        generator="toy",
        committed=None,
        on_commit=lambda *_: seen.append(len(journal.files())),
        write=Path.write_bytes,
    )
    for step in range(1, 5):
        states.commit(state(step))

    assert seen == [1, 2, 3, 3]


def test_a_file_that_no_journal_line_names_is_not_read_and_goes_later(journal):
    journal.states().commit(state(1))

    def killed(*_):
        raise KeyboardInterrupt

    dying = StateFolder(
        journal.folder,
        generator="toy",
        committed=journal.last,
        on_commit=killed,
        write=Path.write_bytes,
    )
    with pytest.raises(KeyboardInterrupt):
        dying.commit(state(2, facts={"took_s": 1.5}))
    (journal.folder / f".state-{STAGE}-00000002-x.part").write_bytes(b"half")
    assert len(list(journal.folder.iterdir())) == 3

    resumed = journal.states(committed=journal.last)
    assert_same(resumed.latest(STAGE), state(1))
    resumed.commit(state(2))

    assert journal.files() == sorted(name for _, _, name, _ in journal.lines)
    assert_same(resumed.latest(STAGE), state(2))


def test_the_same_state_twice_stays_one_file(journal):
    states = journal.states()
    for step in (1, 2, 2):
        states.commit(state(step))

    assert [int(name.split("-")[-2]) for name in journal.files()] == [1, 2]


@pytest.mark.malformed("checkpoint")
@pytest.mark.parametrize("place", [0, 200, -1])
def test_one_flipped_byte_is_refused_naming_file_expected_and_found(journal, place):
    journal.states().commit(state(1))
    (_, _, name, digest) = journal.lines[0]
    data = bytearray((journal.folder / name).read_bytes())
    data[place] ^= 1
    (journal.folder / name).write_bytes(data)

    with pytest.raises(WeightsError, match=f"{name}: expected sha256:{digest}, found sha256:"):
        journal.states(committed=journal.last).latest(STAGE)


@pytest.mark.malformed("checkpoint")
def test_a_state_of_another_generator_is_refused(journal):
    journal.states(generator="dsr-gan").commit(state(1))

    with pytest.raises(WeightsError, match="generator 'tb-gan', found 'dsr-gan'"):
        journal.states(generator="tb-gan", committed=journal.last).latest(STAGE)


@pytest.mark.malformed("checkpoint")
def test_a_state_of_another_stage_is_refused(journal):
    journal.states().commit(state(1, stage="diffusion"))
    committed = {STAGE: journal.last["diffusion"]}

    with pytest.raises(WeightsError, match="stage 'super-resolution', found 'diffusion'"):
        journal.states(committed=committed).latest(STAGE)


@pytest.mark.malformed("checkpoint")
def test_a_missing_file_is_one_clear_error(journal):
    journal.states().commit(state(1))
    (journal.folder / journal.files()[0]).unlink()

    with pytest.raises(WeightsError, match="expected a weights file, found none"):
        journal.states(committed=journal.last).latest(STAGE)


@pytest.mark.malformed("checkpoint")
def test_a_name_that_leads_out_of_the_folder_is_refused(journal):
    with pytest.raises(WeightsError, match="expected a file name"):
        journal.states(committed={STAGE: ("../x.safetensors", "0" * 64)}).latest(STAGE)


def test_a_full_disk_is_told_before_writing_and_the_last_state_still_loads(journal, monkeypatch):
    states = journal.states()
    states.commit(state(1))
    free = training_states.ROOM_LEFT_BYTES + 100
    usage = type(shutil.disk_usage(ROOT))(free, 0, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(ResourceError, match="bytes of free space, found") as caught:
        states.commit(state(2))

    assert caught.value.exit_code == 7
    assert_same(states.latest(STAGE), state(1))


@pytest.mark.parametrize("n_written", [0, 1, 7, 8, 9, 64, 200, 300, 400, -1])
def test_a_disk_that_fills_up_at_any_size_leaves_the_last_state(journal, n_written):
    journal.states().commit(state(1))

    def full(path, data):
        path.with_name(f".{path.name}.part").write_bytes(data[:n_written])
        raise OSError(28, "No space left on device")

    states = journal.states(committed=journal.last, write=full)
    with pytest.raises(ResourceError, match="No space left on device"):
        states.commit(state(2))

    assert_same(states.latest(STAGE), state(1))
    assert_same(journal.states(committed=journal.last).latest(STAGE), state(1))
    assert len(journal.lines) == 1


@pytest.mark.parametrize("facts", [{"loss": float("nan")}, {"tensor": torch.ones(1)}])
def test_facts_that_are_no_json_data_are_refused(journal, facts):
    with pytest.raises(TrainingError, match="super-resolution, step 3: expected JSON data"):
        journal.states().commit(state(3, facts=facts))


def test_any_name_of_a_stage_makes_a_file_name_and_different_names_differ():
    names = ["diffusion", "Diffusion", "super-resolution", "../../etc", "a b", "a-b", "ä", "", "-"]
    names += ["x" * 60, "x" * 61]
    slugs = [slug(name) for name in names]

    assert slugs[0] == "diffusion"
    assert slugs[2] == "super-resolution"
    assert len(set(slugs)) == len(names)
    assert all(set(s) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for s in slugs)
    assert max(map(len, slugs)) < 60


def killed(tmp_path, n_kills, seed, subject="toy", steps=60):
    script = Path(__file__).with_name("kill_training.py")
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(script), str(tmp_path), str(n_kills), str(seed), str(steps), subject],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def assert_nothing_lost(found, n_kills):
    assert found["kills"] == n_kills
    assert not found["accelerate_imported"]  # one process pays for nothing
    assert not found["process_group"]
    assert found["differing"] == 0
    assert found["n_points"] == 60 + 9  # every step, and every seventh and the last evaluated
    assert found["n_files_left"] == 2
    assert found["largest_n_files"] <= 4  # two kept, one new, one unfinished
    assert len(set(map(tuple, found["steps_killed_at"]))) > n_kills // 8  # not all at one place


def test_8_kills_at_random_moments_leave_final_tensors_and_curves_bitwise_equal(tmp_path):
    assert_nothing_lost(killed(tmp_path, 8, seed=1), 8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_100_kills_at_random_moments_leave_final_tensors_and_curves_bitwise_equal(tmp_path, seed):
    assert_nothing_lost(killed(tmp_path, 100, seed), 100)


def assert_nothing_lost_of_a_generator(found, n_kills, n_stages):
    assert found["kills"] == n_kills
    assert found["differing"] == 0  # checkpoint, and every tensor of every stage's last state
    assert found["n_files_left"] == 2 * n_stages
    assert len(set(map(tuple, found["steps_killed_at"]))) > 1


@pytest.mark.parametrize("name", ["dsr-gan", "tb-gan"])
def test_4_kills_of_a_real_generator_leave_all_its_tensors_bitwise_equal(tmp_path, name):
    assert_nothing_lost_of_a_generator(killed(tmp_path, 4, 4, name, steps=16), 4, n_stages=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dsr-gan", "tb-gan"])
@pytest.mark.parametrize("seed", [5, 6])
def test_50_kills_of_a_real_generator_leave_all_its_tensors_bitwise_equal(tmp_path, name, seed):
    assert_nothing_lost_of_a_generator(killed(tmp_path, 50, seed, name, steps=24), 50, n_stages=2)
