"""A generator of somebody else's goes through the whole flow, confined, and can be sampled."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.verify.folder import verify_run
from pipelines.cli.app import app
from tests.places import ROOT

PCA = "tests.plugins.pca_gaussian:PcaGaussian"
QUICK = (
    *("--preset", "smoke", "-o", "model.settings.size=32", "-o", "data.phantom.n_patients=16"),
    *("-o", "evaluation.extractor=none", "-o", "tracking.enabled=false"),
    *("-o", "audit.n_text_images=0", "-o", "evaluation.n_synthetic=20"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Run folder of the example plug-in, named by its path."""
    workspace = tmp_path_factory.mktemp("workspace")
    arguments = ["run", "--model", PCA, *QUICK, "-w", str(workspace), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.stdout, result.stderr
    return Path(json.loads(result.stdout)["run_dir"])


def read(run_dir: Path, name: str):
    return json.loads((run_dir / name).read_bytes())


def event_types(chain: Path) -> list[str]:
    return [json.loads(line)["type"] for line in chain.read_text("utf-8").splitlines()]


def test_it_is_trained_confined_and_evaluated(finished):
    assert read(finished, "outcome.json")["status"] == "finished"
    training = read(finished, "metrics/training.json")
    assert training["generator"] == PCA
    assert training["title"] == "PCA Gaussian (eigen-images)"
    assert training["selection"]["partition"] == "tuning"
    assert read(finished, "isolation.json")["n_sealed_reads"] == 0
    assert all(attempt["refused"] for attempt in read(finished, "isolation.json")["attempts"])
    assert verify_run(finished).is_intact


def test_training_that_keeps_no_state_leaves_nothing_to_repeat_and_says_so(finished):
    record = read(finished, "records/P2-06.json")

    assert record["status"] == "not evaluated"
    assert record["reason"].startswith("training kept no state after its first steps")


def test_its_guards_were_tried_before_its_first_step_and_touched_nothing_of_it(finished):
    assert read(finished, "records/P4-12.json")["status"] == "passed"
    assert all(trial["is_caught"] for trial in read(finished, "selftest.json")["trials"])
    page = (finished / "report.html").read_text("utf-8")
    assert "Has a guard ever caught anything?" in page
    assert "A patient with images in training and in the held-out test set" in page
    events = event_types(finished / "journal.jsonl")
    assert events.index("guards tried") < events.index("step started")
    (ledger,) = (finished.parents[1] / "ledger").glob("*.jsonl")
    assert event_types(ledger) == ["test set sealed", "test set opened"]


def test_its_checkpoint_draws_the_runs_own_images_again(finished, tmp_path):
    arguments = ["sample", str(finished), "-n", "20", "--out", str(tmp_path / "again")]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 0, result.output
    of_run = [pixels for _, _, pixels in read(finished, "samples/manifest.json")["files"]]
    drawn = [entry["pixel_sha256"] for entry in read(tmp_path / "again", "manifest.json")["files"]]
    assert drawn == of_run


@pytest.mark.slow
def test_an_installed_distribution_is_found_by_its_name(tmp_path):
    """In an environment of its own, whose packages are this one's and the plug-in."""
    venv = tmp_path / "venv"
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True
    )
    packages = next((venv / "lib").glob("python*/site-packages"))
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "base.pth").write_text(
        "".join(f"import site; site.addsitedir({path!r})\n" for path in here)
    )
    source = (ROOT / "tests" / "plugins" / "pca_gaussian.py").read_bytes()
    (packages / "pca_gaussian.py").write_bytes(source)
    info = packages / "pca_gaussian-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pca-gaussian\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(
        "[medisynth.models]\npca-gaussian = pca_gaussian:PcaGaussian\n"
    )

    def command(*arguments: str) -> str:
        done = subprocess.run(  # noqa: S603
            [str(venv / "bin" / "python"), "-m", "pipelines.cli.app", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.stdout

    ran = command("run", "--model", "pca-gaussian", *QUICK, "-w", "ws", "--json")
    run_dir = tmp_path / json.loads(ran)["run_dir"]
    command("sample", str(run_dir), "-n", "1", "--out", str(tmp_path / "drawn"))

    assert read(run_dir, "outcome.json")["status"] == "finished"
    code = read(tmp_path / "drawn", "manifest.json")["generator_code"]
    digest = hashlib.sha256(source).hexdigest()
    assert code == f"pca_gaussian:PcaGaussian (pca-gaussian 0.3, source sha256:{digest})"
