import hashlib
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from governance.evidence.chain import EVIDENCE_CLOSED, NO_EVENT, RUN_RESUMED, Chain, make_empty
from governance.evidence.journal import Journal, read_journal
from governance.records.errors import EvidenceError, RecordWriteError
from governance.records.files import canonical_json


def new_journal(folder: Path, n_events: int = 0) -> Journal:
    journal = Journal.create(folder / "journal.jsonl", run_id="r1", tool_version="0.1.0")
    for number in range(n_events):
        journal.append("step finished", {"step": number, "loss": 0.5})
    return journal


def rewritten(line: bytes, **changes: object) -> bytes:
    """A line with other fields and a digest that fits them."""
    fields = {**json.loads(line), **changes}
    del fields["digest"]
    fields["digest"] = hashlib.sha256(canonical_json(fields)).hexdigest()
    return canonical_json(fields)


def test_each_line_carries_the_digest_of_its_other_fields_and_of_the_line_before(tmp_path):
    journal = new_journal(tmp_path, 3)

    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]

    assert [line["seq"] for line in lines] == [0, 1, 2]
    assert lines[0]["previous"] == "0" * 64
    for line in lines:
        digest = line.pop("digest")
        text = json.dumps(line, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == digest
        line["digest"] = digest
    assert [line["previous"] for line in lines[1:]] == [line["digest"] for line in lines[:-1]]
    assert journal.head == lines[-1]["digest"]
    assert journal.n_events == 3


def test_an_event_says_who_when_and_in_which_run(tmp_path):
    event = new_journal(tmp_path).append("run started", {"preset": "smoke", "n": 1e17, "x": -0.0})

    assert event.run == "r1"
    assert event.version == "0.1.0"
    assert event.actor
    assert event.time_utc.endswith("Z")
    assert len(event.time_utc) == len("2025-03-01T09:30:00.123Z")
    assert read_journal(tmp_path / "journal.jsonl").events == (event,)


def test_a_new_journal_is_empty_and_never_replaces_one(tmp_path):
    journal = new_journal(tmp_path)

    assert journal.head == NO_EVENT
    assert journal.n_events == 0
    assert read_journal(journal.path).faults == ()
    with pytest.raises(RecordWriteError, match="exists"):
        new_journal(tmp_path)


def test_a_journal_that_is_opened_again_continues_the_chain(tmp_path):
    new_journal(tmp_path, 2)

    again = Journal.open(tmp_path / "journal.jsonl", run_id="r1", tool_version="0.1.0")
    again.append("resumed", {})

    assert read_journal(again.path).faults == ()
    assert again.n_events == 3


def test_the_journal_of_another_run_is_not_opened(tmp_path):
    path = new_journal(tmp_path, 1).path

    with pytest.raises(EvidenceError, match="journal of run r1, expected r2"):
        Journal.open(path, run_id="r2", tool_version="0.1.0")


def test_a_torn_last_line_is_a_fault_and_is_moved_aside_not_dropped(tmp_path):
    path = new_journal(tmp_path, 2).path
    whole = path.read_bytes()
    torn = b'{"actor":"somebody","bo'
    path.write_bytes(whole + torn)

    assert read_journal(path).faults == (
        "journal.jsonl:3: torn last line of 23 bytes, no line end",
    )
    journal = Journal.open(path, run_id="r1", tool_version="0.1.0")

    assert path.read_bytes() == whole
    assert (tmp_path / "journal.jsonl.torn").read_bytes() == torn + b"\n"
    assert journal.n_events == 2


def test_two_objects_on_one_file_never_fork_the_chain(tmp_path):
    first = new_journal(tmp_path, 1)
    second = Journal.open(first.path, run_id="r1", tool_version="0.1.0")

    first.append("a", {})
    second.append("b", {})
    first.append("c", {})

    check = read_journal(first.path)
    assert check.faults == ()
    assert [event.type for event in check.events] == ["step finished", "a", "b", "c"]


def append_many(path: Path) -> None:
    journal = Journal.open(path, run_id="r1", tool_version="0.1.0")
    for number in range(20):
        journal.append("from a process", {"pid": os.getpid(), "number": number})


def test_processes_that_append_at_once_leave_one_whole_chain(tmp_path):
    path = new_journal(tmp_path).path
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=append_many, args=(path,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    check = read_journal(path)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert check.faults == ()
    assert len(check.events) == 60


def test_any_flipped_bit_of_any_byte_is_found_and_its_line_named(tmp_path):
    path = new_journal(tmp_path, 3).path
    data = path.read_bytes()
    for offset in range(len(data)):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        line = data[:offset].count(b"\n") + 1
        faults = read_journal(path).faults
        assert any(fault.startswith(f"journal.jsonl:{line}:") for fault in faults), offset


def test_a_line_that_is_removed_swapped_or_doubled_breaks_the_chain(tmp_path):
    path = new_journal(tmp_path, 4).path
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in ([0, 2, 3], [1, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3]):
        path.write_bytes(b"".join(lines[i] for i in kept))
        assert read_journal(path).faults, kept


def test_a_cut_tail_leaves_a_whole_chain_with_another_head(tmp_path):
    # Why count and head are printed elsewhere: the chain alone cannot show this.
    journal = new_journal(tmp_path, 3)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:2]))

    check = read_journal(journal.path)
    assert check.faults == ()
    assert check.head != journal.head
    with pytest.raises(EvidenceError, match="was cut"):
        journal.append("next", {})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"run": "r2"}, "belongs to run r2, expected r1"),
        ({"seq": 7}, "event number 7, expected 2"),
        ({"time_utc": "2001-01-01T00:00:00.000Z"}, "is before the event before"),
        ({"time_utc": "yesterday"}, "not an event: time_utc"),
        ({"previous": "1" * 64}, "'previous' is not the digest of the line before"),
        ({"extra": 1}, "not an event: extra"),
        ({"seq": "2"}, "not an event: seq"),
    ],
)
def test_a_rewritten_line_with_a_fitting_digest_is_still_found(tmp_path, changes, fault):
    path = new_journal(tmp_path, 3).path
    lines = path.read_bytes().splitlines()
    lines[2] = rewritten(lines[2], **changes)
    path.write_bytes(b"\n".join(lines) + b"\n")

    (found,) = read_journal(path).faults
    assert found.startswith("journal.jsonl:3: ")
    assert fault in found


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"a": 1}',
        b'{"a":NaN}',
        b'{"a":1,"a":1}',
        b'{"a":' + b"1" * 5000 + b"}",
        b'"\\ud800"',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_canonical_event_is_a_fault_not_an_exception(tmp_path, line):
    path = new_journal(tmp_path, 1).path
    whole = path.read_bytes()
    path.write_bytes(whole + line + b"\n")

    check = read_journal(path)

    assert check.faults[0].startswith("journal.jsonl:2: ")
    assert len(check.events) == 1


def test_a_missing_file_is_a_fault(tmp_path):
    check = read_journal(tmp_path / "journal.jsonl")

    assert check.faults == ("journal.jsonl: No such file or directory",)
    assert check.head == NO_EVENT


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, object()])
def test_a_body_that_json_cannot_hold_is_refused_and_writes_nothing(tmp_path, value):
    journal = new_journal(tmp_path, 1)
    before = journal.path.read_bytes()

    with pytest.raises(EvidenceError, match="not JSON data with finite numbers"):
        journal.append("metric", {"value": value})

    assert journal.path.read_bytes() == before


def test_text_that_is_no_utf8_is_written_out_and_keeps_nothing_from_the_record(tmp_path):
    journal = new_journal(tmp_path, 1)

    journal.append("step failed", {"message": "caf\udce9: no such file"})

    check = read_journal(journal.path)
    assert check.faults == ()
    assert check.events[-1].body["message"] == r"caf\udce9: no such file"


def test_nothing_follows_the_event_that_closes_the_evidence(tmp_path):
    journal = new_journal(tmp_path, 1)
    journal.append(EVIDENCE_CLOSED, {})
    again = Journal.open(journal.path, run_id="r1", tool_version="0.1.0")

    for closed in (journal, again):
        assert closed.is_closed
        with pytest.raises(EvidenceError, match="the evidence is closed"):
            closed.append("late", {})
    assert read_journal(journal.path).events[-1].type == EVIDENCE_CLOSED


def test_a_broken_journal_takes_no_further_event(tmp_path):
    path = new_journal(tmp_path, 3).path
    path.write_bytes(path.read_bytes().replace(b'"step":1', b'"step":9'))

    with pytest.raises(EvidenceError, match=r"journal\.jsonl:2: the digest does not match"):
        Journal.open(path, run_id="r1", tool_version="0.1.0")


def test_a_journal_that_was_replaced_or_removed_takes_no_further_event(tmp_path):
    journal = new_journal(tmp_path, 2)
    other = tmp_path / "other"
    other.mkdir()
    journal.path.write_bytes(new_journal(other, 5).path.read_bytes())
    with pytest.raises(EvidenceError, match="lines written by this run are gone"):
        journal.append("next", {})

    journal.path.unlink()
    with pytest.raises(EvidenceError, match="has been removed"):
        journal.append("next", {})


def test_a_symbolic_link_is_not_followed(tmp_path):
    make_empty(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")

    with pytest.raises(RecordWriteError, match="cannot be written"):
        Chain(tmp_path / "link").append("a", {}, run="r1", version="0")


def test_a_clock_that_is_set_back_does_not_break_the_chain(tmp_path):
    path = new_journal(tmp_path, 1).path
    line = path.read_bytes().splitlines()[0]
    path.write_bytes(rewritten(line, time_utc="2999-01-01T00:00:00.000Z") + b"\n")

    journal = Journal.open(path, run_id="r1", tool_version="0.1.0")
    event = journal.append("after the clock was set back", {})

    assert event.time_utc == "2999-01-01T00:00:00.000Z"
    assert read_journal(path).faults == ()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_told_with_the_file(tmp_path):
    chain = Chain(Path("/dev/full"))

    with pytest.raises(RecordWriteError, match="/dev/full: cannot be written"):
        chain.append("a", {}, run="r1", version="0")


def test_only_the_resuming_of_the_run_follows_the_closing_event(tmp_path):
    journal = new_journal(tmp_path, 1)
    journal.append(EVIDENCE_CLOSED, {})
    journal.append(RUN_RESUMED, {"reason": "interrupted"})
    journal.append("next", {})
    assert read_journal(journal.path).faults == ()

    lines = journal.path.read_bytes().splitlines()
    event = json.loads(lines[2]) | {"type": "next"}
    del event["digest"]
    digest = hashlib.sha256(canonical_json(event)).hexdigest()
    journal.path.write_bytes(
        b"\n".join([*lines[:2], canonical_json({**event, "digest": digest}), b""])
    )

    (fault,) = read_journal(journal.path).faults
    assert fault == "journal.jsonl:3: follows the event 'evidence closed' without 'run resumed'"
