"""Cards of reference runs: the run's own card under one paragraph, verified first, kept apart."""

import json

import pytest
from typer.testing import CliRunner

from governance.verify.folder import verify_run
from pipelines.cli.app import app
from tests.pipelines.finished_runs.finished_runs import RUN_ID, finished

runner = CliRunner()


@pytest.fixture
def run_dir(tmp_path):
    return finished(tmp_path)


def publish(run_dir, folder, *more):
    return runner.invoke(app, ["card", str(run_dir), "--to", str(folder), *more])


def test_the_card_says_first_that_it_is_of_a_reference_run_and_is_else_the_run_s_own(
    run_dir, tmp_path
):
    result = publish(run_dir, tmp_path / "cards")

    assert result.exit_code == 0, result.output
    root = verify_run(run_dir).evidence_root
    assert root in result.output
    card = (tmp_path / "cards" / "dsr-gan" / f"{RUN_ID}.md").read_text("utf-8")
    own = (run_dir / "model_card.md").read_text("utf-8")
    front, text = card[4:].split("\n---\n\n", 1)
    paragraph, rest = text.split("\n\n", 1)
    assert own == f"---\n{front}\n---\n\n{rest}"
    assert paragraph.startswith(
        "**Reference run**, shown for what its preset reaches; this is no promotion"
    )
    for word in ("preset laptop", "dsr-gan", "real images", "synthetic", "not for diagnosis", root):
        assert word in paragraph
    assert not (tmp_path / "promotions.jsonl").exists()


def test_the_same_card_twice_is_one_card(run_dir, tmp_path):
    first, second = (publish(run_dir, tmp_path / "cards", "--json") for _ in range(2))

    assert json.loads(first.stdout)["is_new"]
    assert not json.loads(second.stdout)["is_new"]
    assert json.loads(first.stdout)["path"] == json.loads(second.stdout)["path"]


def test_another_card_in_its_place_is_kept(run_dir, tmp_path):
    card = tmp_path / "cards" / "dsr-gan" / f"{RUN_ID}.md"
    card.parent.mkdir(parents=True)
    card.write_text("somebody's notes")

    result = publish(run_dir, tmp_path / "cards")

    assert result.exit_code == 5
    assert "is not the card of run" in result.output
    assert card.read_text() == "somebody's notes"


def test_a_run_that_does_not_verify_publishes_nothing(run_dir, tmp_path):
    (run_dir / "metrics" / "training.json").write_text("{}")

    result = publish(run_dir, tmp_path / "cards")

    assert result.exit_code == 5
    assert "metrics/training.json" in result.output
    assert not (tmp_path / "cards").exists()
