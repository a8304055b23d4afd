import errno
import hashlib
import math
import os
import shlex
from pathlib import Path

import pytest

from governance.evidence.chain import make_empty
from governance.evidence.store import EvidenceStore
from governance.records.errors import RecordWriteError
from governance.records.files import (
    canonical_json,
    sha256_bytes,
    sha256_file,
    typed,
    unwritable,
    utf8_only,
    working_name,
    write_atomic,
)
from governance.signing.keys import make_key_pair
from pipelines.current_run.lock import folder_lock, run_lock


def test_the_digest_of_a_file_larger_than_one_block_is_that_of_its_bytes(tmp_path):
    data = bytes(range(256)) * 5000  # 1.28 MB: more than one block, and no whole number of blocks
    (tmp_path / "large").write_bytes(data)

    assert sha256_file(tmp_path / "large") == hashlib.sha256(data).hexdigest()


def test_the_digest_of_nothing_is_the_published_one(tmp_path):
    (tmp_path / "empty").touch()
    published = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    assert sha256_bytes(b"") == sha256_file(tmp_path / "empty") == published


def test_canonical_json_gives_the_example_of_rfc_8785():
    # Section 3.2.2 and 3.2.4 of the RFC.
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )

    assert canonical_json(value) == expected.encode()


def test_canonical_json_does_not_depend_on_the_order_of_keys_or_on_tuple_or_list():
    assert canonical_json({"b": (1, 2), "a": 1.0}) == canonical_json({"a": 1, "b": [1, 2]})


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, {1: 2}, {"a": object()}])
def test_canonical_json_refuses_what_json_cannot_hold(value):
    with pytest.raises(ValueError, match=r"."):
        canonical_json(value)


def test_an_atomic_write_makes_folders_replaces_the_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "a" / "b.json"
    write_atomic(target, b"old and longer")

    digest = write_atomic(target, b"new")

    assert target.read_bytes() == b"new"
    assert digest == hashlib.sha256(b"new").hexdigest()
    assert [path.name for path in target.parent.iterdir()] == ["b.json"]


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o002])
def test_files_and_folders_of_a_run_follow_the_umask_and_keys_are_private(umask, tmp_path):
    before = os.umask(umask)
    try:
        store = EvidenceStore.create(tmp_path / "runs", "run", tool_version="0")
        store.write_bytes("data/table.csv", b"1")
        make_empty(tmp_path / "ledger" / "one.jsonl")
        working_name(tmp_path / "samples").mkdir()
        with folder_lock(tmp_path / "outbox"), run_lock(store.run_dir):
            pass
        key = make_key_pair(tmp_path / "keys").private_key
    finally:
        os.umask(before)

    for path in tmp_path.rglob("*"):
        mode = path.stat().st_mode & 0o777
        if path == key:
            assert mode == 0o600
        elif path != key.parent:
            assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, f"{path}: {mode:o}"


def test_a_write_that_fails_keeps_the_old_file_and_names_it(tmp_path):
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()

    with pytest.raises(RecordWriteError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "below", b"data")
    with pytest.raises(RecordWriteError, match="folder: cannot be written"):
        write_atomic(tmp_path / "folder", b"data")

    assert (tmp_path / "file").read_bytes() == b"kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("name", ["plain", "my runs/it's mine", "-w", "a$b `c`", "ü"])
def test_a_path_in_a_printed_command_works_when_it_is_pasted(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)

    for path in (tmp_path / name, Path("/elsewhere") / name):
        (word,) = shlex.split(typed(path))
        assert Path(word).absolute() == path
        assert not word.startswith("-")


def test_a_full_disk_is_told_with_what_was_needed_and_what_is_free(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")

    text = str(unwritable(tmp_path / "a" / "states.safetensors", full, 123_456))

    assert "123,456 needed for this file" in text
    assert "bytes are free" in text
    assert "make room" in text


def test_what_is_no_utf8_is_written_out():
    value = {"caf\udce9": ["x\udce9", 1, None, ("\udce9",)]}

    assert utf8_only(value) == {r"caf\udce9": [r"x\udce9", 1, None, [r"\udce9"]]}
