import multiprocessing
from pathlib import Path

import pytest

from governance.records.errors import EvidenceError, RecordWriteError
from governance.sealing.ledger import Ledger, opening_label, read_ledgers

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


def test_openings_add_up_over_workspaces_that_share_the_ledgers_and_only_there(tmp_path):
    shared, own = tmp_path / "shared", tmp_path / "own"

    numbers = [
        Ledger(folder, DATASET).record_opening(run, ROOT, "evaluation", PLAN, MODEL)
        for run, folder in (("a/r1", shared), ("b/r1", shared), ("c/r1", own))
    ]

    assert [opening_label(number) for number in numbers] == [
        "confirmatory",
        "exploratory, opening 2",
        "confirmatory",
    ]


def test_a_torn_last_line_is_moved_aside_and_told_and_counts_as_nothing(tmp_path):
    first = Ledger(tmp_path, DATASET)
    first.record_opening("r1", ROOT, "evaluation", PLAN, MODEL)
    assert first.n_torn_bytes == 0
    with first.path.open("ab") as stream:
        stream.write(b'{"torn":')

    (before,) = read_ledgers(tmp_path)
    second = Ledger(tmp_path, DATASET)
    number = second.record_opening("r2", ROOT, "evaluation", PLAN, MODEL)
    (after,) = read_ledgers(tmp_path)

    assert number == 2
    assert second.n_torn_bytes == 8
    assert f"{DATASET}.jsonl: its last line was torn" in second.take_note()
    assert second.take_note() == first.take_note() == ""  # told once, by whoever moved it
    assert (tmp_path / f"{DATASET}.jsonl.torn").read_bytes() == b'{"torn":\n'
    assert (len(before.openings), len(after.openings)) == (1, 2)
    assert before.notes[0].startswith("torn last line of 8 bytes: not counted")
    assert after.notes == (f"torn lines were moved to {DATASET}.jsonl.torn; they are not counted",)


def test_reading_ledgers_writes_nothing_and_finds_all_data_sets(tmp_path):
    for digest in ("e" * 64, DATASET):
        Ledger(tmp_path, digest).record_seal("r1", ROOT)
    (tmp_path / "notes.txt").touch()
    with (tmp_path / f"{DATASET}.jsonl").open("ab") as stream:
        stream.write(b"torn")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    found = read_ledgers(tmp_path)

    assert [use.dataset_sha256 for use in found] == [DATASET, "e" * 64]
    assert [(len(use.seals), len(use.openings)) for use in found] == [(1, 0), (1, 0)]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_reading_a_broken_ledger_names_file_and_line(tmp_path):
    ledger = Ledger(tmp_path, DATASET)
    ledger.record_seal("r1", ROOT)
    ledger.path.write_bytes(ledger.path.read_bytes().replace(ROOT.encode(), b"b" * 64))

    with pytest.raises(EvidenceError, match=r"jsonl:1: the digest does not match"):
        read_ledgers(tmp_path)
    with pytest.raises(EvidenceError, match="no folder of ledgers"):
        read_ledgers(tmp_path / "missing")
