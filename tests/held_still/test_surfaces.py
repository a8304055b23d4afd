"""Schemas of documents, help texts, error codes and phantoms are the stored ones."""

import json

from tests.held_still import ask
from tests.held_still.corpus import stored
from tests.held_still.make_corpus import PHANTOM_DIGEST


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
