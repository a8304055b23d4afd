"""What a generator tries that it must not: refused, noticed, and the end of its training."""

from pathlib import Path

import pytest

from governance.confinement.confine import landlock_abi
from governance.records.errors import IsolationError
from pipelines.training.messages import TrainingJob
from pipelines.training.parent import run_training
from tests.pipelines.training.test_training_process import changed, new_job
from tests.plugins.hostile import UNHEARD, WAYS

pytestmark = pytest.mark.skipif(landlock_abi() < 4, reason="this kernel has no Landlock with TCP")


def hostile(tmp_path: Path, **settings) -> tuple[TrainingJob, list[dict]]:
    job = new_job(tmp_path)
    image = tmp_path / "data" / "secret.png"
    values: dict[str, object] = {"size": 32, "components": 4, "image": str(image), **settings}
    return changed(job, generator="tests.plugins.hostile:Hostile", settings=values), []


def tried(messages: list[dict]) -> set[tuple[str, str]]:
    found = [m.found for m in messages if m.type == "attempt"]
    assert all(m.refused for m in found), found
    return {(m.target, m.way) for m in found}


def test_every_way_to_a_forbidden_image_is_refused_and_ends_the_training(tmp_path):
    job, messages = hostile(tmp_path)

    with pytest.raises(IsolationError, match="the system refused all of it") as caught:
        run_training(job, messages.append, lambda: None)

    assert caught.value.exit_code == 4
    logged = {k: v for m in messages if m.type == "log" for k, v in m.values.items()}
    assert {way: logged[way] for way in WAYS} == dict.fromkeys(WAYS, 1.0)
    assert tried(messages) == {
        ("sealed image", "open"),
        ("sealed image", "command"),
        ("sealed image", "symbolic link"),
        ("sealed image", "hard link"),
        ("sealed image", "move"),
        ("data folder", "open"),
        ("data folder", "list"),
        ("network", "connection"),
    }
    assert (tmp_path / "data" / "secret.png").read_bytes() == b"sealed"


def test_what_the_hook_does_not_hear_is_refused_but_not_noticed(tmp_path):
    job, messages = hostile(tmp_path, ways=list(UNHEARD))

    run_training(job, messages.append, lambda: None)

    logged = {k: v for m in messages if m.type == "log" for k, v in m.values.items()}
    assert {way: logged[way] for way in UNHEARD} == dict.fromkeys(UNHEARD, 1.0)
    assert not tried(messages)


def test_a_refusal_of_compiled_code_is_noticed_when_it_ends_the_training(tmp_path):
    job, messages = hostile(tmp_path, ways=["pyarrow"], after="raise")

    with pytest.raises(IsolationError, match=r"sealed image \(error that ended training\)"):
        run_training(job, messages.append, lambda: None)

    assert tried(messages) == {("sealed image", "error that ended training")}


def test_a_forked_process_of_the_generator_is_heard(tmp_path):
    job, messages = hostile(tmp_path, ways=["open", "list"], processes="fork")

    with pytest.raises(IsolationError):
        run_training(job, messages.append, lambda: None)

    assert tried(messages) == {("sealed image", "open"), ("data folder", "list")}


@pytest.mark.slow
def test_a_process_started_anew_is_refused_but_not_heard(tmp_path):
    job, messages = hostile(tmp_path, ways=["open", "list"], processes="spawn")

    run_training(job, messages.append, lambda: None)

    codes = [m.values["exit code"] for m in messages if "exit code" in getattr(m, "values", {})]
    assert codes == [0.0]  # it ran, and each of its tries was refused
    assert not tried(messages)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_of_several_is_confined_and_heard(tmp_path, rank):
    job, messages = hostile(tmp_path, ways=["open"], rank=rank)

    with pytest.raises(IsolationError):
        run_training(changed(job, processes=2), messages.append, lambda: None)

    assert messages[0].type == "isolation"
    assert all(attempt.refused for attempt in messages[0].attempts)
    assert tried(messages) == {("sealed image", "open")}
