"""The runs of a workspace in a list, and where a digest stands on record."""

import hashlib
import json
import os
import sys

import pytest
from typer.testing import CliRunner

from governance.evidence.folder import RunFolder
from governance.records.evaluation import EvaluationRecord
from governance.verdict.headline import kid_of
from pipelines.cli.app import app
from pipelines.current_run import console
from pipelines.finished_runs.listing import (
    duration_of_one_like,
    find_digest,
    list_runs,
)
from tests.pipelines.finished_runs.finished_runs import finished

runner = CliRunner()


def test_a_list_shows_finished_damaged_and_unended_runs_and_never_stops_at_one(tmp_path):
    run = finished(tmp_path)
    cut_short = tmp_path / "runs" / "20990101T000000Z-00000000"
    cut_short.mkdir()
    (cut_short / "journal.jsonl").write_bytes((run / "journal.jsonl").read_bytes())
    (cut_short / "run.json").write_bytes((run / "run.json").read_bytes())
    damaged = tmp_path / "runs" / "20980101T000000Z-00000000"
    damaged.mkdir()
    for name in ("journal.jsonl", "manifest.json"):
        (damaged / name).write_bytes(b"not a record")

    lines = {line.run_id: line for line in list_runs(tmp_path)}

    assert list(lines) == [cut_short.name, damaged.name, run.name]  # newest first
    assert lines[cut_short.name].state == "not ended"
    assert lines[damaged.name].state == "unreadable"
    assert "manifest.json" in lines[damaged.name].note
    whole = lines[run.name]
    assert (whole.state, whole.gate) == ("finished", "passed")
    assert whole.kid == kid_of(RunFolder.finished(run).get(EvaluationRecord)).value


def test_the_command_prints_a_line_for_each_run_and_json_on_request(tmp_path):
    run = finished(tmp_path)

    text = runner.invoke(app, ["runs", "-w", str(tmp_path)])
    facts = runner.invoke(app, ["runs", "-w", str(tmp_path), "--json"])

    assert (text.exit_code, facts.exit_code) == (0, 0)
    assert run.name in text.output.splitlines()[1]
    assert json.loads(facts.stdout)[0]["run_id"] == run.name


def test_a_workspace_without_runs_says_so_and_one_that_is_missing_is_exit_2(tmp_path):
    assert "no run" in runner.invoke(app, ["runs", "-w", str(tmp_path)]).output
    assert runner.invoke(app, ["runs", "-w", str(tmp_path / "no")]).exit_code == 2


def test_a_digest_is_found_as_file_and_as_root_by_its_first_digits(tmp_path):
    run = finished(tmp_path)
    folder = RunFolder.finished(run)
    digest = hashlib.sha256((run / "model_card.md").read_bytes()).hexdigest()

    places, n_unread = find_digest(tmp_path, digest[:12].upper())
    roots, _ = find_digest(tmp_path, f"sha256:{folder.manifest.evidence_root}")

    assert [(p.run_id, p.what) for p in places] == [(run.name, "model_card.md")]
    assert [(p.run_id, p.what) for p in roots] == [(run.name, "evidence root")]
    assert n_unread == 0


@pytest.mark.parametrize(
    ("digest", "code"), [("0" * 64, 3), ("abc", 2), ("not-a-digest", 2), ("", 2)]
)
def test_an_unknown_digest_is_exit_3_and_what_is_none_is_exit_2(tmp_path, digest, code):
    finished(tmp_path)

    result = runner.invoke(app, ["lineage", "--digest", digest, "-w", str(tmp_path)])

    assert result.exit_code == code


def test_the_time_of_an_earlier_run_is_known_for_its_preset_and_generator_alone(tmp_path):
    run = RunFolder.finished(finished(tmp_path))
    identity = run.identity

    assert duration_of_one_like(tmp_path, identity.preset, identity.generator) is not None
    assert duration_of_one_like(tmp_path, "paper", identity.generator) is None
    assert duration_of_one_like(tmp_path, identity.preset, "tb-gan") is None


def test_a_command_is_printed_with_its_folder_where_it_is_not_on_the_path(tmp_path, monkeypatch):
    script = tmp_path / "bin" / "medisynth-gov"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(script.parent / "python"))
    monkeypatch.chdir(tmp_path)

    monkeypatch.setenv("PATH", os.devnull)
    assert console.program() == "bin/medisynth-gov"

    monkeypatch.setenv("PATH", str(script.parent))
    assert console.program() == "medisynth-gov"
