"""Two runs side by side: every difference is shown, and an unfair comparison is called so."""

import json
import subprocess
import sys

from typer.testing import CliRunner

from governance.records.base import ItemStatus
from governance.records.evaluation import MetricResult
from pipelines.cli.app import app
from pipelines.finished_runs.compare import MetricPair, compare_runs, why_unfair
from tests.pipelines.finished_runs.finished_runs import RUN_ID, finished

runner = CliRunner()
OTHER = b"preset: laptop\nseed: 8\ntracking:\n  enabled: false\n"


def metric(**changes) -> MetricResult:
    values = {
        "id": "kid-inception_pool3-d2048-n100",
        "title": "KID",
        "status": ItemStatus.RECORDED,
        "value": 0.05,
        "ci95": (0.04, 0.06),
        "n_real": 100,
        "n_synthetic": 100,
        "n_patients": 60,
        "extractor": "inception_pool3",
        "extractor_sha256": "d" * 64,
        "n_features": 2048,
    }
    return MetricResult.model_validate(values | changes)


def test_a_run_compared_with_a_copy_of_itself_differs_in_nothing_and_is_fair(tmp_path):
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b")

    found = compare_runs(a, b)

    assert (found.unfair, found.config, found.data, found.code, found.items) == ((),) * 5
    assert found.n_items > 100
    assert found.metrics
    assert {pair.intervals for pair in found.metrics} <= {"", "intervals overlap"}


def test_differences_of_configuration_and_items_stand_side_by_side(tmp_path):
    a = finished(tmp_path / "a")
    b = finished(tmp_path / "b", config=OTHER, gate_passed=False)

    found = compare_runs(a, b)

    assert [(d.name, d.a, d.b) for d in found.config] == [("seed", "7", "8")]
    assert ("P5-01", "passed", "not evaluated") in [(d.name, d.a, d.b) for d in found.items]
    assert ("gate", "passed", "failed") in [(d.name, d.a, d.b) for d in found.code]


def test_a_run_that_was_not_evaluated_is_no_fair_partner(tmp_path):
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b", blocked=True)

    found = compare_runs(a, b)

    assert any("was not evaluated" in reason for reason in found.unfair)
    assert {pair.unfair for pair in found.metrics} == {("measured in one run only",)}
    assert any("the held-out test sets differ" in reason for reason in found.unfair)


def test_a_later_opening_of_the_test_set_is_said(tmp_path):
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b", openings=2)

    (reason,) = compare_runs(a, b).unfair

    assert "exploratory, opening 2" in reason


def test_values_at_other_n_extractor_or_partition_are_not_comparable():
    a = metric()
    for changes, words in (
        ({"n_real": 99}, "other real images: 100 and 99"),
        ({"n_synthetic": 50}, "other synthetic images: 100 and 50"),
        ({"extractor": "radimagenet"}, "other extractor: inception_pool3 and radimagenet"),
        ({"extractor_sha256": "e" * 64}, "other extractor weights: dddddddddddd and eeeeeeeeeeee"),
        ({"partition": "tuning"}, "other reference partition: held-out test set and tuning"),
        ({"n_features": 64}, "other features: 2048 and 64"),
    ):
        assert why_unfair(a, metric(**changes)) == (words,)
    assert why_unfair(a, metric(value=0.07)) == ()


def test_a_metric_that_was_not_evaluated_is_named_with_its_reason():
    missing = metric(value=None, ci95=None, status=ItemStatus.NOT_EVALUATED, reason="no weights")

    assert why_unfair(metric(), missing) == ("not evaluated in run B: no weights",)
    assert why_unfair(None, missing) == ("measured in one run only",)


def test_intervals_are_compared_at_their_ends():
    low, touching, apart = (metric(ci95=ends) for ends in ((0, 1), (1, 2), (1.5, 2)))

    assert MetricPair("KID", low, touching, ()).intervals == "intervals overlap"
    assert MetricPair("KID", low, apart, ()).intervals == "intervals do not overlap"
    assert MetricPair("KID", low, metric(ci95=None), ()).intervals == ""


def test_the_command_needs_neither_torch_nor_mlflow_and_gives_json(tmp_path):
    a = finished(tmp_path / "a")
    b = finished(tmp_path / "b", config=OTHER)
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli.app import app;"
        f"result = CliRunner().invoke(app, ['compare', {str(a)!r}, {str(b)!r}, '--json']);"
        "heavy = {'torch', 'mlflow'} & set(sys.modules);"
        "print(result.output);"
        "sys.exit(f'{heavy}' if result.exit_code or heavy else 0)"
    )

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["a"] == facts["b"] == RUN_ID
    assert facts["is_fair"] is True
    assert facts["config"] == [{"name": "seed", "a": "7", "b": "8"}]


def test_a_changed_file_is_found_before_anything_is_compared(tmp_path):
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b")
    path = b / "metrics" / "evaluation.json"
    path.write_bytes(path.read_bytes() + b" ")

    result = runner.invoke(app, ["compare", str(a), str(b)])

    assert result.exit_code == 5
    assert "metrics/evaluation.json" in result.stderr


def test_the_text_says_plainly_what_is_not_comparable(tmp_path):
    a, b = finished(tmp_path / "a"), finished(tmp_path / "b", fid=False)

    result = runner.invoke(app, ["compare", str(a), str(b)])

    assert result.exit_code == 0
    assert "not comparable: not evaluated in run B" in result.stdout
    assert "configuration: no difference" in result.stdout
