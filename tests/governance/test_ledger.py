import multiprocessing
from pathlib import Path

import pytest

from governance.errors import EvidenceError, RecordWriteError
from governance.isolation.ledger import Ledger

DATASET, ROOT, PLAN, MODEL = "d" * 64, "a" * 64, "b" * 64, "c" * 64


def test_openings_of_one_data_set_add_up_over_runs(tmp_path):
    numbers = [
        Ledger(tmp_path, DATASET).record_opening(run, ROOT, "evaluation", PLAN, MODEL)
        for run in ("r1", "r2", "r2", "r3")
    ]

    assert numbers == [1, 2, 3, 4]
    assert Ledger(tmp_path, DATASET).n_openings == 4
    assert Ledger(tmp_path, "e" * 64).n_openings == 0


def test_seals_and_openings_are_counted_apart(tmp_path):
    ledger = Ledger(tmp_path, DATASET)
    numbers = [ledger.record_seal("r1", ROOT), ledger.record_seal("r2", ROOT)]
    numbers.append(ledger.record_opening("r2", ROOT, "evaluation", PLAN, MODEL))

    assert numbers == [1, 2, 1]
    assert (ledger.n_seals, ledger.n_openings) == (2, 1)


def test_an_entry_says_which_run_opened_what_for_what_with_which_model(tmp_path):
    ledger = Ledger(tmp_path, DATASET)
    ledger.record_opening("r1", ROOT, "evaluation", PLAN, MODEL)

    (event,) = ledger.events()

    assert event.run == "r1"
    assert event.body == {
        "merkle_root": ROOT,
        "purpose": "evaluation",
        "plan_sha256": PLAN,
        "model_sha256": MODEL,
        "number": 1,
    }
    assert ledger.head == event.digest
    assert ledger.path == tmp_path / f"{DATASET}.jsonl"


def test_asking_a_ledger_that_does_not_exist_makes_no_file(tmp_path):
    ledger = Ledger(tmp_path / "ledger", DATASET)

    assert (ledger.n_seals, ledger.n_openings, ledger.events()) == (0, 0, ())
    assert not (tmp_path / "ledger").exists()


def open_many(folder: Path) -> None:
    ledger = Ledger(folder, DATASET)
    for _ in range(10):
        ledger.record_opening("r1", ROOT, "evaluation", PLAN, MODEL)


def test_runs_that_open_at_once_get_different_numbers(tmp_path):
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=open_many, args=(tmp_path,)) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()

    events = Ledger(tmp_path, DATASET).events()
    assert [event.body["number"] for event in events] == list(range(1, 31))


def test_a_changed_or_cut_ledger_is_not_counted_as_if_it_were_whole(tmp_path):
    ledger = Ledger(tmp_path, DATASET)
    for _ in range(3):
        ledger.record_opening("r1", ROOT, "evaluation", PLAN, MODEL)
    whole = ledger.path.read_bytes()

    ledger.path.write_bytes(whole.replace(b"evaluation", b"rehearsal_", 1))
    with pytest.raises(EvidenceError, match=r"jsonl:1: the digest does not match"):
        _ = Ledger(tmp_path, DATASET).n_openings
    ledger.path.write_bytes(b"".join(whole.splitlines(keepends=True)[:1]))
    with pytest.raises(EvidenceError, match="the file was cut"):
        ledger.record_opening("r1", ROOT, "evaluation", PLAN, MODEL)
    ledger.path.unlink()
    with pytest.raises(EvidenceError, match="has been removed"):
        _ = ledger.n_openings


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(RecordWriteError, match="file"):
        Ledger(tmp_path / "file", DATASET).record_seal("r1", ROOT)


@pytest.mark.parametrize("digest", ["", "../x", "D" * 64, "d" * 63])
def test_a_ledger_is_of_a_data_set_digest(tmp_path, digest):
    with pytest.raises(EvidenceError, match="no digest of a data set"):
        Ledger(tmp_path, digest)
