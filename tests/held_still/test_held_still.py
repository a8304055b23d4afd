"""Stored runs of format 1 verify, are drawn, judged and sampled as on the day they were stored.

Help texts, error codes, schemas, phantoms and short trainings are the stored ones, too. Where a
check was changed on purpose, `answers/judged_otherwise.json` holds what it says instead.
"""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli.app import app
from tests.held_still import ask, train
from tests.held_still.ask import judged_otherwise, stored_records
from tests.held_still.corpus import HERE, NAMES, stored
from tests.held_still.make_corpus import PHANTOM_DIGEST

MISMATCH = 5


def test_both_verifiers_say_of_every_stored_run_what_they_said_when_it_was_stored(corpus):
    assert ask.verifications(corpus) == stored("verify")


def test_every_stored_run_is_intact_by_both():
    for name in NAMES:
        codes = {by: answer["exit_code"] for by, answer in stored("verify")[name].items()}
        assert set(codes.values()) == {0}, name


@pytest.mark.parametrize("name", NAMES)
def test_the_stand_alone_verifier_of_today_agrees_with_the_one_in_the_folder(name):
    answers = stored("verify")[name]
    then, today = answers["verify_run.py"], answers["verify_run.py of today"]

    assert today["exit_code"] == then["exit_code"]
    assert today["found"][0] == "OK: all is as recorded"
    assert [line for line in then["found"] if "root" in line or "head" in line] == [
        line for line in today["found"] if line.startswith(("evidence root", "journal head"))
    ]


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


@pytest.mark.parametrize("name", NAMES)
def test_card_and_reports_are_drawn_again_with_the_stored_bytes(corpus, tmp_path, name):
    found = ask.reports(corpus.copy(name, tmp_path), tmp_path / "again")

    assert found == stored("reports")[name]


@pytest.mark.parametrize("name", NAMES)
def test_items_principles_gate_and_verdict_are_the_stored_ones(corpus, name):
    assert judged_otherwise(corpus.run(name)) == stored("judged_otherwise")[name]


def test_the_stored_runs_show_every_status_that_a_run_can_reach(corpus):
    found = {r["status"] for name in NAMES for r in stored_records(corpus.run(name)).values()}

    assert found >= {"passed", "failed", "recorded", "not evaluated", "declared", "missing"}


def test_a_stored_run_draws_images_as_large_as_its_own(corpus, tmp_path):
    run_dir, out = corpus.run("finished"), tmp_path / "drawn"

    result = CliRunner().invoke(
        app, ["sample", str(run_dir), "-n", "3", "--out", str(out), "--json"]
    )

    assert "recipe: corrected" in (run_dir / "config.yaml").read_text("utf-8")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_marks_read_back"] == 3
    own, drawn = (
        np.asarray(Image.open(folder / "00000.png")) for folder in (run_dir / "samples", out)
    )
    assert own.shape == drawn.shape
    assert drawn.std() > 0


def test_every_document_of_a_run_folder_has_its_stored_schema():
    assert ask.document_schemas() == stored("document_schemas")


def test_every_command_has_its_stored_help_text():
    assert ask.help_texts() == stored("help")


def test_error_codes_and_exit_codes_are_the_stored_ones():
    assert ask.error_codes() == stored("error_codes")


def test_phantoms_are_the_stored_ones_pixel_by_pixel():
    assert ask.phantom_digests() == stored("phantoms")


def test_the_phantoms_of_the_stored_runs_had_the_digest_that_was_pinned(corpus):
    for name in ("finished", "signed", "resumed"):
        dataset = json.loads((corpus.run(name) / "data" / "dataset.json").read_bytes())
        assert dataset["content_sha256"] == PHANTOM_DIGEST, name


@pytest.mark.parametrize("generator", list(train.STEPS))
def test_a_short_training_gives_the_stored_weights_and_samples(generator):
    known = stored("training")
    if train.build() not in known:
        pytest.skip(
            f"no digests are stored for torch {train.build()}, only for {', '.join(known)}: "
            "another build or processor may round otherwise"
        )

    assert train.training_digests(generator) == known[train.build()][generator]
