"""Sealing and opening as the steps do it, on a few real files; nothing is trained."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from governance.confinement.confine import attempt_read
from governance.evidence.journal import Journal
from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy
from governance.records.base import TEST, TRAINING, TUNING
from governance.records.errors import IsolationError, SealError
from governance.records.partition import IsolationRecord, RefusedRead
from medisynth.data.reading.ingest import decode_bytes, to_square
from pipelines.config.model import load_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import (
    ATTEMPT,
    ISOLATION,
    SEALED_READS,
    ImageSet,
    RunContext,
    SplitImages,
    TrainedGenerator,
    isolation_on_record,
)
from pipelines.steps import s1_ingest, s4_split, s5_train, s6_evaluate

PLAN, MODEL = "b" * 64, "c" * 64


def new_context(workspace: Path, run_id: str) -> RunContext:
    flags = {
        "workspace": str(workspace),
        "data.cache": "off",
        "data.phantom.n_patients": 8,
        "data.phantom.image_height_px": 64,
        "seal.ledger_dir": str(workspace / "shared"),
    }
    config = load_config(preset="smoke", flags=flags)
    store = EvidenceStore.create(workspace / "runs", run_id, tool_version="0.1.0")
    console = Console(stream=io.StringIO())
    return RunContext(config, load_policy(), store, console, workspace)


def sealed_run(workspace: Path, run_id: str) -> tuple[RunContext, ImageSet, SplitImages]:
    context = new_context(workspace, run_id)
    images = s1_ingest.run(context)
    patients = sorted(set(images.table["patient_id"]))
    parts = dict.fromkeys(patients, TRAINING) | dict.fromkeys(patients[:2], TEST)
    parts[patients[2]] = TUNING
    partition = pd.Series(images.table["patient_id"].map(parts))
    return context, images, s4_split._views_and_seal(images, partition, context)


def trained() -> TrainedGenerator:
    return TrainedGenerator("checkpoints/x", MODEL, np.zeros((1, 32, 32), np.uint8), ("x",))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    made = sealed_run(tmp_path_factory.mktemp("workspace"), "r1")
    yield made
    made[2].access_log.stop()


def test_sealing_writes_vault_and_key_and_nothing_else_outside_the_run_folder(first):
    context, images, split = first
    workspace = context.workspace

    outside = {p.name for p in workspace.iterdir()} - {"runs", images.root.name, "data"}
    assert outside == {"vault", "keys", "shared"}
    assert split.sealed_test.record.encryption.startswith("AES-256-GCM")
    targets = ["vault of the sealed images", "key of the vault"]
    assert all(Path(split.must_refuse[target]).is_file() for target in targets)
    vault = context.vault.path.read_bytes()
    for leaf in split.sealed_test.leaves:
        assert (images.root / leaf.path).read_bytes()[:64] not in vault


def test_a_read_of_vault_key_or_original_before_the_opening_is_counted(first):
    context, images, split = first
    before = split.access_log.n_opens

    attempt_read(context.vault.path, "vault")
    attempt_read(context.vault.key_path, "key")
    attempt_read(images.root / split.sealed_test.leaves[0].path, "original")

    assert split.access_log.n_opens == before + 3


def test_a_resumed_run_opens_the_same_vault_to_the_same_pixels_without_the_originals(tmp_path):
    context, images, split = sealed_run(tmp_path, "r1")
    split.access_log.stop()
    leaves = split.sealed_test.leaves
    originals = [images.root / leaf.path for leaf in leaves]
    expected = [
        to_square(decode_bytes(path.read_bytes(), path.name).grey, 32, "pad") for path in originals
    ]
    store = EvidenceStore.reopen(context.store.run_dir, tool_version="0.1.0")
    store.resume({"reason": "killed"})
    resumed = RunContext(context.config, context.policy, store, context.console, tmp_path)
    for path in originals:
        path.unlink()

    again = s4_split.reload(images.root, resumed)
    opening, test = s6_evaluate._open(again.sealed_test, trained(), PLAN, 32, resumed)

    assert again.sealed_test.record == split.sealed_test.record
    assert again.training.digest == split.training.digest
    assert opening.label == "confirmatory"
    assert test.leaves == leaves
    assert np.array_equal(test.pixels, np.stack(expected))
    again.access_log.stop()


def test_a_second_run_on_the_same_data_opens_exploratorily_through_the_shared_ledger(tmp_path):
    labels = []
    for run_id in ("r1", "r2"):
        context, _, split = sealed_run(tmp_path, run_id)
        opening, _ = s6_evaluate._open(split.sealed_test, trained(), PLAN, 32, context)
        split.access_log.stop()
        labels.append((split.sealed_test.record.n_earlier_seals, opening.label))

    assert labels == [(0, "confirmatory"), (1, "exploratory, opening 2")]


def test_a_resumed_run_without_its_key_stops_before_anything_else(tmp_path):
    context, images, split = sealed_run(tmp_path, "r1")
    split.access_log.stop()
    context.vault.key_path.unlink()

    with pytest.raises(SealError, match=r"r1\.key: the key of the vault"):
        s4_split.reload(images.root, context)


def test_a_generator_that_asks_for_a_test_image_as_its_weights_is_refused(first, monkeypatch):
    context, images, split = first
    hidden = images.root / split.sealed_test.leaves[-1].path
    link = context.workspace / "weights.safetensors"
    link.symlink_to(hidden)

    class Asking:
        pretrained_files = staticmethod(lambda settings: (str(link),))

    monkeypatch.setattr(s5_train, "load_generator", lambda name: Asking)

    with pytest.raises(IsolationError, match=r"asks for it as weights .* \(data folder\)"):
        s5_train._job(split.must_refuse, context)


def test_a_run_cut_short_after_a_forbidden_attempt_does_not_go_on(first):
    context, _, split = first
    record = {
        "target": "sealed image",
        "way": "open",
        "refused": True,
        "error": "PermissionError 13",
    }
    context.store.journal.append(ATTEMPT, record)

    with pytest.raises(IsolationError, match="before this run was cut short"):
        s5_train.run(split, context)


def test_other_runs_vaults_and_keys_are_tried_as_well(first):
    context, _, split = first

    assert split.must_refuse["folder of vaults"] == str(context.workspace / "vault")
    assert split.must_refuse["folder of keys"] == str(context.workspace / "keys")


def test_what_is_known_of_the_isolation_adds_up_in_the_journal(tmp_path):
    journal = Journal.create(tmp_path / "journal.jsonl", run_id="r", tool_version="0.1.0")
    refused = RefusedRead(target="sealed image", refused=True, error="PermissionError 13")
    proof = IsolationRecord(
        level=4,
        level_name="encrypted",
        mechanism="Landlock ABI 7",
        attempts=(refused,),
        n_sealed_reads=0,
        limits=("some",),
    )
    tried = refused.model_copy(update={"way": "open"})

    assert isolation_on_record(journal) is None
    journal.append(ISOLATION, proof.model_dump(mode="json"))
    journal.append(ATTEMPT, tried.model_dump(mode="json"))
    journal.append(SEALED_READS, {"n_sealed_reads": 2})

    assert isolation_on_record(journal) == proof.model_copy(
        update={"noticed": (tried,), "n_sealed_reads": 2}
    )
