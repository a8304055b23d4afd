"""Every plant is caught by the guards of a run, and a guard taken away makes the self-test fail."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.checks import p8_testing
from governance.checks import registry as checks
from governance.checks.registry import CHECKS, RegisteredCheck, judge_items
from governance.evidence.store import EvidenceStore
from governance.records.base import ItemStatus
from governance.records.errors import IsolationError
from governance.records.files import canonical_json
from governance.records.item import CheckResult
from governance.records.selftest import SelftestRecord
from governance.sealing import seal
from governance.sealing.access_log import AccessLog
from governance.verify import folder as verify
from medisynth.data.content import scan as content_scan
from medisynth.data.duplicates import search as near_duplicates
from pipelines.cli.app import app
from pipelines.config import model as configuration
from pipelines.current_run import places
from pipelines.current_run.console import Console
from pipelines.selftest import trials
from pipelines.selftest.bench import INTEGRITY, LEAKAGE, TRAINS, Bench, Plant, silent, stopped_by
from pipelines.selftest.boundary_plants import BOUNDARY_PLANTS
from pipelines.selftest.trials import PLANTS, exit_code, try_guards, try_plant
from pipelines.steps import boundaries, s1_ingest, s4_split, s5_train, s6_evaluate
from pipelines.training import parent as training_process
from tests.pipelines.steps.test_seal_steps import new_context
from tests.places import ROOT

BY_NAME = {plant.name: plant for plant in PLANTS}
TRAINED = [plant.name for plant in PLANTS if plant.why_not_quick == TRAINS]


def new_bench(folder: Path) -> Bench:
    return Bench(folder.resolve(), Console(stream=io.StringIO()))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    bench = new_bench(tmp_path_factory.mktemp("bench"))
    yield bench
    bench.end()


@pytest.fixture
def fresh_bench(tmp_path):
    bench = new_bench(tmp_path)
    yield bench
    bench.end()


def record_of(*tried) -> SelftestRecord:
    return SelftestRecord(
        scope="full",
        started_utc="2026-01-01T00:00:00Z",
        trials=tried,
        not_planted=(),
        duration_s=1,
    )


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in TRAINED])
def test_the_plant_is_caught_and_its_control_is_clean(name, bench):
    trial = try_plant(BY_NAME[name], bench)

    assert trial.is_proof, trial
    alarms = {answer.guard for answer in trial.answers if answer.is_alarm}
    assert alarms == {*trial.expected}
    assert str(bench.folder) not in trial.model_dump_json()


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_the_plant_that_needs_training_is_caught_and_its_control_is_clean(name, bench):
    trial = try_plant(BY_NAME[name], bench)

    assert trial.is_proof, trial


def blind_check(item_id, monkeypatch):
    """Let a check of the policy say "passed" whatever it is given."""
    passed = CheckResult(status=ItemStatus.PASSED, observed=None, reason="all is well")
    monkeypatch.setitem(CHECKS, item_id, RegisteredCheck(lambda *_: passed, CHECKS[item_id].step))


def split_that_never_stops(monkeypatch):
    split = s4_split.split_images

    def lenient(*arguments, **settings):
        return split(*arguments, **settings | {"on_duplicate": "drop_training"})

    monkeypatch.setattr(s4_split, "split_images", lenient)


def recheck_that_sees_nothing(monkeypatch):
    recheck = EvidenceStore.recheck
    monkeypatch.setattr(
        EvidenceStore, "recheck", lambda self: recheck(self).model_copy(update={"mismatches": ()})
    )


def isolation_that_is_not_enforced(monkeypatch):
    judge = s5_train._Messages._isolation

    def lenient(self, message):
        try:
            judge(self, message)
        except IsolationError:
            return

    monkeypatch.setattr(s5_train._Messages, "_isolation", lenient)


def boundaries_that_pass_everything(monkeypatch):
    monkeypatch.setattr(boundaries, "_settle", lambda *_: None)


DISARMED = {
    "patient-in-both": (split_that_never_stops, LEAKAGE),
    "duplicate-file": (split_that_never_stops, LEAKAGE),
    "duplicate-pixels": (lambda patch: blind_check("P4-02", patch), LEAKAGE),
    "near-duplicate": (
        lambda patch: patch.setattr(near_duplicates, "NEAR_SIMILARITY", 1.1),
        LEAKAGE,
    ),
    "identifying-column": (
        lambda patch: patch.setattr(content_scan, "identifying_columns", lambda _: ()),
        LEAKAGE,
    ),
    "name-in-file": (
        lambda patch: patch.setattr(content_scan, "_metadata_of_files", lambda *_: {}),
        LEAKAGE,
    ),
    "password-in-setting": (
        lambda patch: patch.setattr(configuration, "credentials_in", lambda _: None),
        LEAKAGE,
    ),
    "workspace-in-data": (
        lambda patch: patch.setattr(places, "refuse_in_data", lambda *_: None),
        INTEGRITY,
    ),
    "label-swap": (
        lambda patch: patch.setattr(s1_ingest, "content_digest", lambda _: "0" * 64),
        INTEGRITY,
    ),
    **{
        plant.name: (boundaries_that_pass_everything, INTEGRITY)
        for plant in BOUNDARY_PLANTS
        if plant.name not in TRAINED
    },
    "open-confinement": (isolation_that_is_not_enforced, LEAKAGE),
    "early-read-by-run": (
        lambda patch: patch.setattr(AccessLog, "_hear", lambda *_: None),
        LEAKAGE,
    ),
    "test-image-in-training": (lambda patch: blind_check("P4-11", patch), LEAKAGE),
    "test-pixels-in-training": (
        lambda patch: patch.setattr(s6_evaluate, "_n_test_in", lambda *_: 0),
        LEAKAGE,
    ),
    "copycat": (lambda patch: blind_check("P6-04", patch), LEAKAGE),
    "tampered-record": (
        lambda patch: patch.setattr(verify, "_check_files", lambda *_: (0, [])),
        INTEGRITY,
    ),
    "hidden-file": (
        lambda patch: patch.setattr(verify, "scan_folder", lambda _: ((), ())),
        INTEGRITY,
    ),
    "document-changed": (recheck_that_sees_nothing, INTEGRITY),
    "edited-criterion": (
        lambda patch: patch.setattr(checks, "_refuse_other_policy", lambda *_: None),
        INTEGRITY,
    ),
    "rewritten-plan": (
        lambda patch: patch.setattr(p8_testing, "_plan_faults", lambda *_: []),
        INTEGRITY,
    ),
}


@pytest.mark.parametrize("name", DISARMED)
def test_a_guard_taken_away_fails_the_self_test_with_its_exit_code(name, bench, monkeypatch):
    assert bench.control.run_dir.is_dir()  # made by guards that are all there
    disarm, code = DISARMED[name]
    disarm(monkeypatch)

    trial = try_plant(BY_NAME[name], bench)

    assert not trial.is_caught, trial
    assert trial.is_control_clean, trial
    assert exit_code(record_of(trial)) == code


def test_a_seal_that_does_not_bind_labels_fails_the_self_test(fresh_bench, monkeypatch):
    def without_plane(leaf):
        return canonical_json(leaf.model_dump(exclude={"brain_plane"}))

    monkeypatch.setattr(seal, "leaf_bytes", without_plane)

    trial = try_plant(BY_NAME["sealed-label-swap"], fresh_bench)

    assert not trial.is_caught
    assert exit_code(record_of(trial)) == INTEGRITY


def disarm_child(guard, monkeypatch):
    environment = training_process._clean_environment
    monkeypatch.setattr(training_process, "_CHILD", "tests.plugins.disarmed_child")
    monkeypatch.setattr(
        training_process,
        "_clean_environment",
        lambda job: environment(job) | {"PYTHONPATH": str(ROOT), "DISARMED": guard},
    )


def test_a_training_process_that_is_not_confined_fails_the_self_test(fresh_bench, monkeypatch):
    disarm_child("confinement", monkeypatch)

    trial = try_plant(BY_NAME["early-read"], fresh_bench)

    assert not trial.is_caught
    assert "could read: sealed image" in trial.answers[0].sentence
    assert exit_code(record_of(trial)) == LEAKAGE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "guard", "code"),
    [
        ("packed-view-changed", "packed view", LEAKAGE),
        ("nan-loss", "finite loss", INTEGRITY),
    ],
)
def test_a_training_process_without_its_guard_fails_the_self_test(
    name, guard, code, fresh_bench, monkeypatch
):
    disarm_child(guard, monkeypatch)

    trial = try_plant(BY_NAME[name], fresh_bench)

    assert not trial.is_caught
    assert exit_code(record_of(trial)) == code


@pytest.mark.slow
def test_a_check_that_does_not_see_what_was_fitted_fails_the_self_test(bench, monkeypatch):
    blind_check("P4-07", monkeypatch)

    trial = try_plant(BY_NAME["statistics-on-test"], bench)

    assert not trial.is_caught
    assert exit_code(record_of(trial)) == LEAKAGE


def test_a_guard_that_stops_clean_data_too_is_no_proof(bench, monkeypatch):
    assert bench.control.run_dir.is_dir()
    failed = CheckResult(status=ItemStatus.FAILED, observed=None, reason="always")
    monkeypatch.setitem(CHECKS, "P4-01", RegisteredCheck(lambda *_: failed, "s4_split"))

    trial = try_plant(BY_NAME["patient-in-both"], bench)

    assert trial.is_caught
    assert not trial.is_control_clean
    assert exit_code(record_of(trial)) == LEAKAGE


def test_every_plant_has_a_guard_taken_away_in_these_tests():
    others = {"sealed-label-swap", "early-read", *TRAINED}

    assert {*DISARMED} | others == {*BY_NAME}


def fake(name="harmless", about="patient", *, catches=True, code=LEAKAGE) -> Plant:
    def trial(_bench, is_planted):
        if is_planted and catches:
            return stopped_by("G020", lambda: _raise(IsolationError("caught")))
        return (silent("G020", "did not stop it"),)

    return Plant(name, about, f"a {name} fault", ("G020",), code, trial)


def _raise(error: Exception) -> None:
    raise error


def test_leakage_decides_the_exit_code_where_both_kinds_are_missed(monkeypatch):
    plants = (fake("a", catches=False, code=INTEGRITY), fake("b", catches=False), fake("c"))
    monkeypatch.setattr(trials, "PLANTS", plants)

    result = CliRunner().invoke(app, ["selftest"])

    assert result.exit_code == LEAKAGE
    assert "NOT CAUGHT  a: a a fault" in result.stdout
    assert "1 of 3 planted faults caught" in result.stdout


def test_json_and_the_record_say_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(trials, "PLANTS", (fake(),))

    result = CliRunner().invoke(app, ["selftest", "--json", "--out", str(tmp_path / "new")])

    assert result.exit_code == 0, result.output
    record = SelftestRecord.model_validate_json((tmp_path / "new" / "selftest.json").read_bytes())
    assert SelftestRecord.model_validate_json(result.stdout) == record
    assert record.trials[0].is_proof


def test_a_folder_that_cannot_be_written_is_one_line_and_exit_7(monkeypatch, tmp_path):
    monkeypatch.setattr(trials, "PLANTS", (fake(),))
    (tmp_path / "file").write_text("")

    result = CliRunner().invoke(app, ["selftest", "--out", str(tmp_path / "file")])

    assert result.exit_code == 7
    assert result.stderr.splitlines()[-1].startswith("error[G040]")


def p4_12(context):
    (record,) = judge_items(
        context.policy,
        context.folder,
        now=context.folder.need(SelftestRecord).started_utc,
        artifacts=context.store.artifacts(),
        only=["P4-12"],
    )
    return record


def test_a_run_tries_patient_duplicate_and_early_read_and_its_ledger_stays_untouched(tmp_path):
    context = new_context(tmp_path, "r1")

    try_guards(context)

    record = p4_12(context)
    assert record.status is ItemStatus.PASSED, record
    written = json.loads((context.store.run_dir / "selftest.json").read_bytes())
    assert written["scope"] == "quick"
    tried = {trial["about"] for trial in written["trials"]}
    assert {"patient", "duplicate", "early read"} <= tried
    left_out = {entry["name"] for entry in written["not_planted"]}
    assert left_out == {plant.name for plant in PLANTS if plant.why_not_quick}
    assert all(entry["reason"] for entry in written["not_planted"])
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_run_whose_self_test_fails_names_the_plant_in_p4_12_and_goes_on(tmp_path, monkeypatch):
    plants = (
        fake("moved patient", catches=False),
        fake("copied file", "duplicate"),
        fake("peeking process", "early read"),
    )
    monkeypatch.setattr(trials, "PLANTS", plants)
    context = new_context(tmp_path, "r1")

    try_guards(context)

    record = p4_12(context)
    assert record.status is ItemStatus.FAILED
    assert record.observed.value == 1
    assert record.reason == "moved patient was not caught by G020"


def test_a_machine_without_room_leaves_the_item_not_evaluated_and_the_run_goes_on(
    tmp_path, monkeypatch
):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trials.tempfile, "TemporaryDirectory", full)
    context = new_context(tmp_path, "r1")
    console = Console(stream=io.StringIO())

    try_guards(replace(context, console=console))

    assert not (context.store.run_dir / "selftest.json").exists()
    assert "warning: the guards were not tried: self-test" in console.stream.getvalue()
