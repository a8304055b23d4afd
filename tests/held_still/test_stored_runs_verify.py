"""Run folders of format 1 verify, in the words of their day; one changed byte is named."""

import pytest

from tests.held_still import ask
from tests.held_still.corpus import HERE, NAMES, stored

MISMATCH = 5


def test_both_verifiers_say_of_every_stored_run_what_they_said_when_it_was_stored(corpus):
    assert ask.verifications(corpus) == stored("verify")


def test_every_stored_run_is_intact_by_both():
    for name in NAMES:
        codes = {by: answer["exit_code"] for by, answer in stored("verify")[name].items()}
        assert codes == {"verify": 0, "verify_run.py": 0}, name


@pytest.mark.parametrize("name", NAMES)
def test_the_stand_alone_verifier_of_today_agrees_with_the_one_in_the_folder(corpus, name):
    found = ask.verify_alone(corpus.run(name), ask.standalone_verifier())

    assert found == stored("verify")[name]["verify_run.py"]


@pytest.mark.parametrize(("name", "pattern"), ask.CHANGED)
def test_one_flipped_byte_is_named_by_all_in_the_stored_words(corpus, tmp_path, name, pattern):
    answer = ask.of_a_changed_byte(corpus, name, pattern, tmp_path)

    by = ("verify", "verify_run.py", "verify_run.py of today")
    assert [answer[one]["exit_code"] for one in by] == [MISMATCH] * 3
    changed = answer["path"]
    for faults in (answer["verify"]["found"]["faults"], *(answer[one]["found"] for one in by[1:])):
        assert any(fault.startswith((f"{changed}:", f"{changed} ")) for fault in faults), faults
    assert answer == stored("changed_bytes")[f"{name} {pattern}"]


def test_a_changed_ledger_is_named_although_the_run_folder_is_intact(corpus, tmp_path):
    run = corpus.copy("finished", tmp_path)
    for ledger in (tmp_path / "ledger").iterdir():
        ask.flip_middle_byte(ledger)

    assert ask.verify(run)["exit_code"] == MISMATCH
    assert ask.verify_alone(run)["exit_code"] == 0


def test_a_run_that_nobody_signed_or_stamped_is_refused_where_a_signer_or_authority_is_given():
    codes = {name: answer["verify"]["exit_code"] for name, answer in stored("verify").items()}

    assert codes["signed, its key given"] == 0
    assert codes["finished, that key given"] == MISMATCH
    assert codes["finished, an authority given"] == MISMATCH


def test_no_private_key_is_stored(corpus):
    folders = (HERE, corpus.workspace)
    files = [p for f in folders for p in f.rglob("*") if p.is_file() and p.suffix != ".py"]

    assert len(files) > 500
    assert [path for path in files if b"PRIVATE KEY" in path.read_bytes()] == []
