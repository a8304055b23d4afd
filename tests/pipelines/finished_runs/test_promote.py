"""Promotion: refused while anything stands open, journalled outside the run folder, repeatable."""

import json
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.evidence.chain import check_chain
from governance.records.errors import ConfigError
from governance.verify.folder import verify_run
from pipelines.cli.app import app
from pipelines.finished_runs.promote import Request, promote
from pipelines.finished_runs.promotions import read_promotions
from tests.pipelines.finished_runs.finished_runs import (
    RUN_ID,
    finished,
    releasable,
    waiver,
)

runner = CliRunner()
OTHER_ID = "20260305T101112Z-b2c3d4e5"
TODAY = datetime.now(UTC).date()


def events(workspace: Path):
    return [json.loads(line) for line in (workspace / "promotions.jsonl").read_bytes().splitlines()]


def digests(run_dir: Path):
    return {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file()}


def run_promote(run_dir: Path, *more: str):
    return runner.invoke(app, ["promote", str(run_dir), *more])


RELEASE = ("--to", "released", "--by", "Ada Beispiel", "--reason", "Best of three seeds.")


def test_a_password_in_the_reason_is_refused_and_not_repeated(tmp_path):
    reason = "see https://alice:s3cretPW@wiki.example"
    result = run_promote(finished(tmp_path), "--to", "candidate", "--by", "Ada", "--reason", reason)

    assert result.exit_code == 2
    assert "s3cretPW" not in result.output
    assert not (tmp_path / "promotions.jsonl").exists()


def test_a_promotion_says_who_when_why_from_and_to_and_changes_nothing_in_the_run(tmp_path):
    run_dir = finished(tmp_path)
    before = digests(run_dir)

    result = run_promote(
        run_dir, "--to", "candidate", "--by", "Ada Beispiel", "--reason", "Best KID so far."
    )

    assert result.exit_code == 0, result.output
    (event,) = events(tmp_path)
    body = event["body"]
    assert (body["from"], body["to"], body["version"]) == ("none", "candidate", 1)
    assert (body["by"], body["by_is"], body["reason"]) == (
        *("Ada Beispiel", "as named"),
        "Best KID so far.",
    )
    assert body["evidence_root"] == verify_run(run_dir).evidence_root
    assert event["run"] == RUN_ID
    assert event["time_utc"].endswith("Z")
    assert digests(run_dir) == before
    assert "promotions.jsonl is the record" in result.output
    assert not (tmp_path / "mlflow").exists()


def test_releasing_publishes_the_card_under_model_and_version(tmp_path):
    run_dir = releasable(tmp_path)

    assert run_promote(run_dir, "--to", "candidate").exit_code == 0
    assert not (tmp_path / "model_cards").exists()
    assert run_promote(run_dir, *RELEASE).exit_code == 0

    card = tmp_path / "model_cards" / "dsr-gan" / "1.md"
    assert card.read_bytes() == (run_dir / "model_card.md").read_bytes()
    assert [(e["body"]["from"], e["body"]["to"]) for e in events(tmp_path)] == [
        ("none", "candidate"),
        ("candidate", "released"),
    ]
    data = (tmp_path / "promotions.jsonl").read_bytes()
    assert check_chain(data, "promotions.jsonl", one_run=False).faults == ()


def test_the_next_run_gets_the_next_version_and_the_first_can_come_back_under_its_own(tmp_path):
    first, second = releasable(tmp_path), releasable(tmp_path, run_id=OTHER_ID)

    for run_dir in (first, second, first):
        assert run_promote(run_dir, *RELEASE).exit_code == 0

    lines = read_promotions(tmp_path)
    assert [line.version for line in lines] == [1, 2, 1]
    assert [line.replaces for line in lines] == ["", RUN_ID, OTHER_ID]
    assert sorted(p.name for p in (tmp_path / "model_cards" / "dsr-gan").iterdir()) == [
        *("1.md", "2.md"),
    ]


def test_promoting_twice_writes_one_line_and_says_so(tmp_path):
    run_dir = releasable(tmp_path)
    run_promote(run_dir, *RELEASE)

    again = run_promote(run_dir, *RELEASE)

    assert again.exit_code == 0
    assert "is released already" in again.output
    assert len(events(tmp_path)) == 1


@pytest.mark.parametrize("name", ["summary.json", "model_card.md", "data/split.json"])
def test_a_run_that_does_not_verify_is_refused_with_the_file_named(tmp_path, name):
    run_dir = finished(tmp_path)
    path = run_dir / name
    path.write_bytes(path.read_bytes() + b" ")

    result = run_promote(run_dir, "--to", "candidate")

    assert result.exit_code == 5
    assert name in result.stderr
    assert not (tmp_path / "promotions.jsonl").exists()


def test_an_open_gate_item_is_refused_and_named(tmp_path):
    run_dir = finished(tmp_path, gate_passed=False)

    result = run_promote(run_dir, "--to", "candidate", "--accept-waivers", "--reason", "In a hurry")

    assert result.exit_code == 9
    assert "P5-01" in result.stderr
    assert "not evaluated" in result.stderr
    assert not (tmp_path / "promotions.jsonl").exists()


def test_a_blocked_run_is_refused_with_its_own_sentence(tmp_path):
    result = run_promote(finished(tmp_path, blocked=True), "--to", "candidate")

    assert result.exit_code == 9
    assert "the run was blocked at s2_validate" in result.stderr


def test_waived_items_stand_only_when_accepted_with_a_reason_and_are_on_record(tmp_path):
    run_dir = releasable(tmp_path, gate_passed=False, waivers=(waiver(TODAY),))

    refused = run_promote(run_dir, *RELEASE)
    without_reason = run_promote(run_dir, "--to", "released", "--accept-waivers")
    accepted = run_promote(run_dir, *RELEASE, "--accept-waivers")

    assert refused.exit_code == 9
    assert "waived by Ada Beispiel" in refused.stderr
    assert (without_reason.exit_code, "--reason" in without_reason.stderr) == (2, True)
    assert accepted.exit_code == 0, accepted.output
    (event,) = events(tmp_path)
    assert event["body"]["gate"] == "passed with waivers"
    assert event["body"]["accepted_waivers"][0].startswith("P5-01: waived by Ada Beispiel")


def test_a_waiver_that_has_expired_since_the_run_is_an_open_item(tmp_path):
    run_dir = finished(tmp_path, gate_passed=False, waivers=(waiver(date(2026, 3, 5), 1),))

    result = run_promote(run_dir, "--to", "released", "--accept-waivers", "--reason", "Why not")

    assert result.exit_code == 9
    assert "the waiver has expired" in result.stderr


def test_a_promoted_run_that_was_written_anew_is_refused_although_it_verifies(tmp_path):
    run_promote(finished(tmp_path), "--to", "candidate")
    (tmp_path / "runs" / RUN_ID).rename(tmp_path / "old")
    other = finished(tmp_path, odd="other")
    assert verify_run(other).is_intact

    result = run_promote(other, *RELEASE)

    assert result.exit_code == 5
    assert "evidence root" in result.stderr


def test_a_changed_line_of_the_promotions_is_found_before_anything_is_promoted(tmp_path):
    run_dir = finished(tmp_path)
    run_promote(run_dir, "--to", "candidate", "--by", "Ada Beispiel")
    path = tmp_path / "promotions.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Ada", b"Eve"))

    result = run_promote(run_dir, *RELEASE)

    assert result.exit_code == 5
    assert "promotions.jsonl:1" in result.stderr
    assert not (tmp_path / "model_cards").exists()


def test_another_card_in_the_place_of_this_one_is_not_overwritten(tmp_path):
    run_dir = releasable(tmp_path)
    run_promote(run_dir, *RELEASE)
    card = tmp_path / "model_cards" / "dsr-gan" / "1.md"
    card.write_text("mine")

    result = run_promote(run_dir, *RELEASE)

    assert result.exit_code == 5
    assert card.read_text() == "mine"


def test_a_foreign_card_in_a_new_place_stops_the_promotion_before_it_is_written(tmp_path):
    card = tmp_path / "model_cards" / "dsr-gan" / "1.md"
    card.parent.mkdir(parents=True)
    card.write_text("mine")

    result = run_promote(releasable(tmp_path), *RELEASE)

    assert result.exit_code == 5
    assert "1.md" in result.stderr
    assert not (tmp_path / "promotions.jsonl").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--to", "production"],
        ["--to", "released", "--by", ""],
        ["--to", "released", "--by", "TODO"],
        ["--to", "released", "--reason", "x" * 2_001],
    ],
)
def test_an_incomplete_request_is_exit_2(tmp_path, arguments):
    result = run_promote(finished(tmp_path), *arguments)

    assert result.exit_code == 2
    assert arguments[-2] in result.stderr
    assert not (tmp_path / "promotions.jsonl").exists()


def test_a_folder_without_a_run_and_a_run_without_an_end_are_exit_2(tmp_path):
    with pytest.raises(ConfigError, match="not a run folder"):
        promote(tmp_path, Request("candidate"), lambda _: None)
    run_dir = finished(tmp_path)
    (run_dir / "manifest.json").unlink()

    result = run_promote(run_dir, "--to", "candidate")

    assert result.exit_code == 2
    assert "did not come to its end" in result.stderr


def test_promoting_a_run_without_tracking_imports_neither_torch_nor_mlflow(tmp_path):
    run_dir = finished(tmp_path)
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli.app import app;"
        f"result = CliRunner().invoke(app, ['promote', {str(run_dir)!r}, '--to', 'candidate']);"
        "heavy = {'torch', 'mlflow'} & set(sys.modules);"
        "sys.exit(f'{result.output} {heavy}' if result.exit_code or heavy else 0)"
    )

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_a_release_is_refused_with_the_list_of_what_it_lacks(tmp_path):
    result = run_promote(finished(tmp_path), "--to", "released")

    assert result.exit_code == 9
    for lacking in (
        *("P2-02", "P6-03", "simple controls", "P1-H1 intended use: not declared"),
        *("the run is not signed", "--by NAME", "--reason TEXT"),
    ):
        assert lacking in result.stderr, lacking
    assert not (tmp_path / "promotions.jsonl").exists()
    assert run_promote(finished(tmp_path / "other"), "--to", "candidate").exit_code == 0


@pytest.mark.parametrize("left_out", ["--by", "--reason"])
def test_a_release_needs_a_person_and_a_reason(tmp_path, left_out):
    place = RELEASE.index(left_out)
    arguments = RELEASE[:place] + RELEASE[place + 2 :]

    result = run_promote(releasable(tmp_path), *arguments)

    assert result.exit_code == 9
    assert f"give {left_out}" in result.stderr
    assert "1 condition is not met" in result.stderr


def test_a_failed_core_item_is_released_only_under_a_waiver_that_stays_on_record(tmp_path):
    of_core = waiver(TODAY).model_copy(update={"item_id": "P2-02", "title": "x"})
    run_dir = finished(tmp_path, waivers=(of_core,))

    refused = run_promote(run_dir, *RELEASE)
    accepted = run_promote(run_dir, *RELEASE, "--accept-waivers")

    assert "P2-02" in refused.stderr
    assert "accept with --accept-waivers" in refused.stderr
    assert "P2-02" not in accepted.stderr


def test_verify_says_which_stage_a_run_holds_since_when_by_whom_and_why(tmp_path):
    run_dir = releasable(tmp_path, gate_passed=False, waivers=(waiver(TODAY),))
    before = runner.invoke(app, ["verify", str(run_dir)])
    run_promote(run_dir, *RELEASE, "--accept-waivers")

    after = runner.invoke(app, ["verify", str(run_dir)])

    assert "promoted to   nothing" in before.output
    assert after.exit_code == 0, after.output
    assert "released as dsr-gan version 1" in after.output
    assert "by Ada Beispiel: Best of three seeds." in after.output
    assert "stands on waivers: P5-01: waived by Ada Beispiel" in after.output


def test_verify_finds_that_other_evidence_was_promoted(tmp_path):
    run_promote(finished(tmp_path), "--to", "candidate")
    (tmp_path / "runs" / RUN_ID).rename(tmp_path / "old")

    found = runner.invoke(app, ["verify", str(finished(tmp_path, odd="other"))])

    assert found.exit_code == 5
    assert "promoted to candidate with evidence root" in found.output
