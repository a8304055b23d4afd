import hashlib
from pathlib import Path

import pytest
import torch

from governance.records.errors import WeightsError
from pipelines.training.messages import Message, Repeated, Segment, TrainingJob
from pipelines.training.parent import run_training
from pipelines.training.segment import FILE, Comparison, Keeper, difference, encoded
from tests.pipelines.training.test_training_process import new_job


def state(weight: float = 1.0, **facts: object):
    """A stage's state of one tensor and its facts."""
    return lambda: ({"module/w": torch.full((4,), weight), "module/n": torch.tensor(3)}, facts)


def kept(folder: Path, **changes: object) -> tuple[Path, str, list[Segment]]:
    """Keep the segment of two stages; file, digest and what was told."""
    job = new_job(folder).model_copy(update={"work": str(folder), **changes})
    told: list[Segment] = []
    keeper = Keeper(job, told.append)
    for stage in ("first", "second"):
        keeper(stage, 4, state(loss=0.5))
    digest = told[0].sha256 if told else ""
    return folder / FILE, digest, told


def test_the_first_segment_is_kept_and_told_once(tmp_path):
    path, digest, told = kept(tmp_path)

    assert told == [Segment(stage="first", step=4, sha256=digest)]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_a_segment_that_an_earlier_process_kept_is_left_alone(tmp_path):
    path, _, told = kept(tmp_path, segment_kept=True)

    assert (told, path.exists()) == ([], False)


def test_an_equal_state_has_an_equal_digest_and_needs_no_file(tmp_path):
    digest = hashlib.sha256(encoded("first", 4, state(loss=0.5))).hexdigest()
    comparison = Comparison(tmp_path / "gone", digest)

    comparison("first", 4, state(loss=0.5))
    comparison("second", 4, state(2.0))

    assert comparison.found == Repeated(stage="first", step=4, sha256=digest)


def test_another_state_is_compared_number_by_number(tmp_path):
    path, digest, _ = kept(tmp_path)
    comparison = Comparison(path, digest)

    comparison("first", 4, state(1.5, loss=0.5))

    found = comparison.found
    assert found is not None
    assert found.sha256 != digest
    assert (found.largest, found.at) == (0.5, "module/w")
    assert found.relative == pytest.approx(0.5)  # four differences of 0.5 against four ones


def test_optimisers_far_apart_are_not_hidden_by_large_weights():
    kept = {"module/w": torch.full((4,), 1e6), "optimiser/m": torch.tensor([3.0, 4.0])}
    again = {"module/w": torch.full((4,), 1e6), "optimiser/m": torch.tensor([0.0, 0.0])}

    found = difference(kept, again)

    assert found == {"largest": 4.0, "at": "optimiser/m", "relative": 1.0}


def test_a_counter_that_differs_counts_as_a_difference_and_not_as_size():
    kept = {"optimiser/m": torch.tensor([3.0, 4.0]), "optimiser/step": torch.tensor(10.0)}
    again = kept | {"optimiser/step": torch.tensor(9.0)}

    assert difference(kept, again)["relative"] == pytest.approx(1 / 5)
    assert difference({"n": torch.tensor(10)}, {"n": torch.tensor(9)}) == {}


@pytest.mark.parametrize(("stage", "step"), [("second", 4), ("first", 3)])
def test_a_state_of_another_stage_or_step_is_not_compared(tmp_path, stage, step):
    path, digest, _ = kept(tmp_path)
    comparison = Comparison(path, digest)

    comparison(stage, step, state(loss=0.5))

    assert comparison.found is not None
    assert "relative" not in comparison.found


def test_a_changed_file_of_the_segment_is_refused(tmp_path):
    path, digest, _ = kept(tmp_path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")

    with pytest.raises(WeightsError, match="expected sha256"):
        Comparison(path, digest)("first", 4, state(2.0))


@pytest.mark.parametrize(
    "again",
    [
        {"w": torch.zeros(3)},
        {"w": torch.zeros(2, dtype=torch.float64)},
        {"v": torch.zeros(2)},
        {"w": torch.full((2,), torch.nan)},
    ],
)
def test_tensors_of_other_names_shapes_or_without_numbers_have_no_difference(again):
    assert difference({"w": torch.ones(2)}, again) == {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[TrainingJob, Segment, list[int]]:
    job = new_job(tmp_path_factory.mktemp("segment")).model_copy(update={"n_synthetic": 1})
    told: list[Message] = []
    run_training(job, told.append, lambda: None)
    (segment,) = [message for message in told if message.type == "segment"]
    before = [m.step for m in told if m.type in ("segment", "committed")]
    return job, segment, before


def repeat(job: TrainingJob, segment: Segment, folder: Path, **changes: object):
    file = Path(job.work) / FILE
    told: list[Message] = []
    of_its_own = {
        "work": str(folder / "work"),
        "checkpoints": str(folder / "checkpoints"),
        "readable": (str(file),),
        "repeats": (str(file), segment.sha256),
    }
    again = job.model_copy(update=of_its_own | changes)
    return run_training(again, told.append, lambda: None).repeated, told


def test_a_second_process_repeats_the_segment_to_the_same_bits_and_leaves_no_state(
    trained, tmp_path
):
    job, segment, steps = trained
    found, told = repeat(job, segment, tmp_path)

    assert (segment.stage, segment.step, steps[0]) == ("first", 4, 4)
    assert (found.stage, found.step) == ("first", 4)
    assert found.sha256 == segment.sha256
    kinds = {message.type for message in told}
    assert "isolation" in kinds
    assert not kinds & {"committed", "segment", "checkpoint"}
    assert list((tmp_path / "checkpoints").rglob("*.safetensors")) == []


def test_a_repeat_with_another_seed_is_found_to_differ_and_by_how_much(trained, tmp_path):
    job, segment, _ = trained
    found, _ = repeat(job, segment, tmp_path, seed=job.seed + 1)

    assert found.sha256 != segment.sha256
    assert found.relative > 0.1
