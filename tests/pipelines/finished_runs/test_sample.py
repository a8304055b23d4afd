"""Drawing more images from a finished run, and reading what image files say about themselves."""

import hashlib
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel, ConfigDict
from typer.testing import CliRunner

from governance.records.errors import ConfigError, InterruptedByUser
from governance.verify.folder import verify_run
from medisynth.data.reading.synthetic_mark import burn_in, read_mark
from medisynth.generator import Condition
from pipelines.cli.app import app
from pipelines.current_run.console import Console
from pipelines.finished_runs.sample import SampleRequest, sample_run
from tests.places import ROOT
from tests.plugins.pca_gaussian import PcaGaussian
from tests.plugins.small_run import PCA, RUN_ID, write_run

runner = CliRunner()
FAULTY = "tests.plugins.faulty"


class OtherSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int


class WithOtherSettings(PcaGaussian):
    Settings = OtherSettings


@pytest.fixture
def workspace(tmp_path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def run_dir(workspace) -> Path:
    return write_run(workspace)


def draw(*arguments: object, out: Path) -> tuple[Path, dict]:
    result = runner.invoke(app, ["sample", *map(str, arguments), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out, json.loads((out / "manifest.json").read_bytes())


def refused(*arguments: object) -> tuple[int, str]:
    """Exit code and the one line of an error."""
    result = runner.invoke(app, ["sample", *map(str, arguments)])
    lines = [line for line in result.stderr.strip().splitlines() if line.startswith("error[")]
    assert len(lines) == 1, result.output
    assert "Traceback" not in result.output
    return result.exit_code, lines[0]


def test_every_file_carries_its_mark_and_stands_on_the_manifest(run_dir, tmp_path):
    out, manifest = draw(run_dir, "-n", 5, out=tmp_path / "new")

    training = json.loads((run_dir / "metrics" / "training.json").read_bytes())
    assert sorted(path.name for path in out.iterdir()) == [
        *(f"{k:05d}.png" for k in range(5)),
        "manifest.json",
    ]
    assert manifest["n_marks_read_back"] == manifest["n_images"] == 5
    for index, entry in enumerate(manifest["files"]):
        data = (out / entry["path"]).read_bytes()
        mark = read_mark(data)
        assert mark is not None
        assert (mark.run_id, mark.seed, mark.index) == (RUN_ID, 3, index)
        assert mark.generator == PCA
        assert mark.checkpoint_sha256 == training["checkpoint_sha256"]
        assert mark.licence == manifest["mark"]["licence"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        pixels = np.asarray(Image.open(out / entry["path"]))
        assert pixels.shape == (16, 16)
        assert hashlib.sha256(pixels.tobytes()).hexdigest() == entry["pixel_sha256"]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(run_dir, tmp_path):
    first, _ = draw(run_dir, "-n", 4, "--seed", 8, out=tmp_path / "first")
    again, _ = draw(run_dir, "-n", 4, "--seed", 8, out=tmp_path / "again")
    other, _ = draw(run_dir, "-n", 4, "--seed", 9, out=tmp_path / "other")

    def contents(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert contents(first) == contents(again)
    pixels = [np.asarray(Image.open(folder / "00000.png")) for folder in (first, other)]
    assert not np.array_equal(*pixels)


def test_the_run_folder_is_only_read(run_dir, workspace):
    result = runner.invoke(app, ["sample", RUN_ID, "-w", str(workspace), "-n", "2", "--json"])

    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert Path(facts["folder"]).parent == workspace / "samples"
    assert Path(facts["folder"]).name.startswith(f"{RUN_ID}-")
    assert facts["n_marks_read_back"] == 2
    assert verify_run(run_dir, is_ended=False).is_intact  # it has no card and no report


def test_without_out_a_run_given_by_its_folder_is_sampled_into_its_workspace(
    run_dir, workspace, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    for _ in range(2):  # within one second, too
        assert runner.invoke(app, ["sample", str(run_dir), "-n", "1"]).exit_code == 0

    assert len(list((workspace / "samples").iterdir())) == 2


def test_neither_mlflow_nor_the_data_is_needed(run_dir, tmp_path):
    code = (
        "import sys; sys.modules['mlflow'] = None; from pipelines.cli.app import app;"
        f"app(['sample', {str(run_dir)!r}, '-n', '1', '--out', {str(tmp_path / 'x')!r}])"
    )
    root = ROOT

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "1 marks read back" in done.stdout


def test_a_condition_reaches_the_generator_the_marks_and_the_manifest(workspace, tmp_path):
    run_dir = write_run(workspace, model="tests.plugins.two_planes:TwoPlanes")

    free, _ = draw(run_dir, "-n", 3, out=tmp_path / "free")
    asked, manifest = draw(run_dir, "-n", 3, "--plane", "Trans-thalamic", out=tmp_path / "asked")

    plain, brighter = (np.asarray(Image.open(f / "00002.png")) for f in (free, asked))
    assert np.array_equal(np.minimum(plain, 200) + 40, brighter)
    assert manifest["condition"] == {"plane": "Trans-thalamic", "machine": None}
    mark = read_mark((asked / "00002.png").read_bytes())
    assert mark is not None
    assert (mark.plane, mark.machine) == ("Trans-thalamic", None)


def test_the_visible_mark_is_in_pixels_and_mark(workspace, tmp_path):
    run_dir = write_run(workspace, settings={"size": 64})

    plain, _ = draw(run_dir, "-n", 2, out=tmp_path / "plain")
    marked, manifest = draw(run_dir, "-n", 2, "--visible-mark", out=tmp_path / "marked")

    before, after = (np.asarray(Image.open(f / "00001.png")) for f in (plain, marked))
    assert np.array_equal(burn_in(before[None])[0], after)
    assert manifest["mark"]["visible"]
    mark = read_mark((marked / "00001.png").read_bytes())
    assert mark is not None
    assert mark.visible


@pytest.mark.malformed("checkpoint")
def test_a_changed_checkpoint_is_refused_with_expected_and_found(run_dir, tmp_path):
    path = next((run_dir / "checkpoints").iterdir())
    data = bytearray(path.read_bytes())
    expected = hashlib.sha256(data).hexdigest()
    data[-1] ^= 1
    path.write_bytes(data)

    code, line = refused(run_dir, "-n", 1, "--out", tmp_path / "x")

    assert code == 5
    assert f"expected sha256:{expected}" in line
    assert f"found sha256:{hashlib.sha256(data).hexdigest()}" in line
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["config.yaml", "metrics/training.json", "run.json"])
def test_a_changed_record_is_refused(run_dir, tmp_path, name):
    path = run_dir / name
    path.write_bytes(path.read_bytes().replace(b"tests.plugins", b"tests.elsewhere"))
    with path.open("ab") as stream:
        stream.write(b"\n")

    code, line = refused(run_dir, "-n", 1, "--out", tmp_path / "x")

    assert code == 5
    assert name in line
    assert "recorded as" in line


def test_a_manifest_whose_entries_were_changed_is_refused(run_dir, tmp_path):
    path = run_dir / "manifest.json"
    text = path.read_text()
    digest = hashlib.sha256((run_dir / "config.yaml").read_bytes()).hexdigest()
    path.write_text(text.replace(digest, "0" * 64))

    code, line = refused(run_dir, "-n", 1, "--out", tmp_path / "x")

    assert code == 5
    assert "evidence root" in line


@pytest.mark.parametrize("missing", ["checkpoint", "manifest.json", "config.yaml"])
def test_a_missing_file_is_named(run_dir, tmp_path, missing):
    folder = run_dir / "checkpoints"
    path = next(folder.iterdir()) if missing == "checkpoint" else run_dir / missing
    path.unlink()

    code, line = refused(run_dir, "-n", 1, "--out", tmp_path / "x")

    assert code == 5
    assert path.name in line


def test_a_blocked_run_says_why_it_has_no_checkpoint(workspace):
    run_dir = write_run(workspace, is_blocked=True)

    code, line = refused(run_dir, "-n", 1)

    assert code == 2
    assert "no checkpoint" in line
    assert "blocked at s2_validate" in line


def test_an_unknown_run_gets_the_known_ones(run_dir, workspace):
    near = refused(RUN_ID[:-1] + "e", "-w", workspace, "-n", 1)
    far = refused("something", "-w", workspace, "-n", 1)
    none = refused("something", "-w", workspace / "elsewhere", "-n", 1)
    no_run = refused(workspace, "-n", 1)

    assert [code for code, _ in (near, far, none, no_run)] == [2, 2, 2, 2]
    assert f"did you mean '{RUN_ID}'?" in near[1]
    assert RUN_ID in far[1]
    assert "there is no run" in none[1]
    assert "not a run folder" in no_run[1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-n", "0"], 2, "at least 1"),
        (["-n", "-4"], 2, "at least 1"),
        (["-n", "1", "--seed", "-1"], 2, "--seed"),
        (["-n", "1", "--seed", str(2**32)], 2, "--seed"),
        (["-n", "1", "--plane", "x"], 2, "knows no condition"),
        (["-n", "1", "--device", "abacus"], 2, "available: cpu"),
        (["-n", str(10**15)], 7, "are free; try -n"),
        (["-n", "1", "--visible-mark"], 2, "at least 64 x 64"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(run_dir, workspace, arguments, code, said):
    assert_refused = refused(run_dir, *arguments)

    assert assert_refused[0] == code
    assert said in assert_refused[1]
    assert not (workspace / "samples").exists()


def test_an_unknown_plane_gets_the_known_ones(workspace):
    run_dir = write_run(workspace, model="tests.plugins.two_planes:TwoPlanes")

    code, line = refused(run_dir, "-n", 1, "--plane", "Femur")

    assert code == 2
    assert "known are Trans-cerebellum, Trans-thalamic" in line


def test_a_folder_with_something_in_it_is_refused_and_left_alone(run_dir, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")

    for name in ("full", "file"):
        code, line = refused(run_dir, "-n", 1, "--out", tmp_path / name)
        assert code == 2
        assert "exists already" in line
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious.txt"]


def test_an_empty_folder_is_used(run_dir, tmp_path):
    (tmp_path / "empty").mkdir()

    draw(run_dir, "-n", 1, out=tmp_path / "empty")


def test_nothing_is_written_into_a_run_folder(run_dir, workspace, tmp_path):
    (tmp_path / "link").symlink_to(run_dir)
    for out in (run_dir / "more", run_dir / "samples" / "x", tmp_path / "link" / "more"):
        code, line = refused(run_dir, "-n", 1, "--out", out)
        assert code == 2
        assert "is in the run folder" in line
    assert verify_run(run_dir, is_ended=False).is_intact  # it has no card and no report


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_of_the_machine(run_dir, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)

    code, line = refused(run_dir, "-n", 1, "--out", tmp_path / "locked" / "new")

    assert code == 7
    assert "cannot be made" in line


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ("NoMemory", 7, "not enough memory to draw 8 images"),
        ("WrongShape", 1, "expected images of shape (8, 16, 16) and uint8, found (8, 3, 3)"),
        ("Bug", 1, "the generator failed: KeyError: 'lost'"),
    ],
)
def test_a_fault_of_the_generators_code_is_one_sentence(workspace, tmp_path, fault, code, said):
    run_dir = write_run(workspace, model=f"{FAULTY}:{fault}")

    found = refused(run_dir, "-n", 8, "--out", tmp_path / "x")

    assert found[0] == code
    assert said in found[1]
    assert code != 7 or "try -n 2" in found[1]


def test_a_generator_whose_sample_takes_no_condition_is_told_from_one_that_does(workspace):
    run_dir = write_run(workspace, model=f"{FAULTY}:NoCondition")

    code, line = refused(run_dir, "-n", 1, "--machine", "Aloka")

    assert code == 2
    assert "knows no condition" in line


def test_ctrl_c_ends_the_drawing_and_leaves_nothing(workspace):
    run_dir = write_run(workspace, model=f"{FAULTY}:StoppedByUser")

    code, line = refused(run_dir, "-n", 4)

    assert code == 128 + signal.SIGINT
    assert "stopped by SIGINT" in line
    assert not (workspace / "samples").exists()


def test_a_stop_while_writing_leaves_nothing(run_dir, tmp_path):
    console = Console(json_lines=True)
    console.stream = (tmp_path / "messages").open("w")
    written = []

    def progress(task: str, done: int, total: int) -> None:
        written.append((task, done))
        if (task, done) == ("writing images", 2):
            console.stop.signal_number = signal.SIGTERM
        console.stop.check()

    console.progress = progress  # type: ignore[method-assign]
    with console.stream, pytest.raises(InterruptedByUser):
        sample_run(SampleRequest(str(run_dir), 4, out=tmp_path / "out" / "new"), console)

    assert written[-1] == ("writing images", 2)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_whose_generator_is_gone_is_refused(workspace, tmp_path, monkeypatch):
    plugin = tmp_path / "soon_gone.py"
    plugin.write_text("from tests.plugins.pca_gaussian import PcaGaussian\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    run_dir = write_run(workspace, model="soon_gone:PcaGaussian")
    plugin.unlink()
    monkeypatch.delitem(sys.modules, "soon_gone")
    importlib.invalidate_caches()

    code, line = refused(run_dir, "-n", 1)

    assert code == 2
    assert "soon_gone:PcaGaussian cannot be imported" in line


def test_settings_of_another_version_are_refused_with_both_versions(
    workspace, tmp_path, monkeypatch
):
    plugin = tmp_path / "changing.py"
    plugin.write_text("from tests.plugins.pca_gaussian import PcaGaussian as Model\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    run_dir = write_run(workspace, model="changing:Model")
    monkeypatch.setattr(sys.modules["changing"], "Model", WithOtherSettings)

    code, line = refused(run_dir, "-n", 1)

    assert code == 2
    assert "model.settings.components" in line
    assert "the run was made by version" in line


def test_a_run_that_failed_its_gate_can_be_sampled_with_a_warning(workspace, tmp_path):
    run_dir = write_run(workspace, is_gate_passed=False)

    result = runner.invoke(app, ["sample", str(run_dir), "-n", "1", "--out", str(tmp_path / "x")])

    assert result.exit_code == 0
    assert "warning: run" in result.stderr
    assert json.loads((tmp_path / "x" / "manifest.json").read_bytes())["gate_of_run"] == "failed"


def test_the_request_of_the_library_refuses_as_the_command_does(run_dir):
    with pytest.raises(ConfigError, match="at least 1"):
        sample_run(SampleRequest(str(run_dir), 0, condition=Condition()), Console())


# ---------------------------------------------------------------- the mark command


def test_mark_prints_the_origin_of_each_file(run_dir, tmp_path):
    out, manifest = draw(run_dir, "-n", 2, out=tmp_path / "new")
    files = [str(out / entry["path"]) for entry in manifest["files"]]

    result = runner.invoke(app, ["mark", *files])

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    digest = manifest["mark"]["checkpoint_sha256"]
    for index, (line, file) in enumerate(zip(lines, files, strict=True)):
        assert line.startswith(f"{file}: synthetic, generator {PCA}, run {RUN_ID}, ")
        assert f"checkpoint sha256:{digest}, seed 3, index {index}" in line


def test_mark_ends_with_3_when_a_file_has_no_mark_of_ours(run_dir, tmp_path):
    out, _ = draw(run_dir, "-n", 1, out=tmp_path / "new")
    marked, bare, other = out / "00000.png", tmp_path / "bare.png", tmp_path / "other.png"
    Image.open(marked).save(bare)
    damaged = marked.read_bytes().replace(b'"seed":3', b'"seed":x')
    other.write_bytes(damaged)
    (tmp_path / "text.png").write_text("not an image")

    files = [marked, bare, other, tmp_path / "text.png", tmp_path / "absent.png", tmp_path]
    result = runner.invoke(app, ["mark", *map(str, files), "--json"])

    kinds = [entry["kind"] for entry in json.loads(result.stdout)]
    assert kinds == ["mark", "none", "other", "none", "unreadable", "unreadable"]
    assert result.exit_code == 3
    assert runner.invoke(app, ["mark", str(marked)]).exit_code == 0
    assert "no synthetic mark" in runner.invoke(app, ["mark", str(bare)]).stdout


def test_control_characters_in_a_foreign_mark_do_not_reach_the_terminal(tmp_path):
    from medisynth.data.reading.synthetic_mark import SyntheticMark, marked_png

    mark = SyntheticMark("g\x1b[2J", "run", "a" * 64, 1, 0, "free")
    path = tmp_path / "hostile.png"
    path.write_bytes(marked_png(np.zeros((8, 8), np.uint8), mark))

    result = runner.invoke(app, ["mark", str(path)])

    assert "\x1b" not in result.stdout
    assert result.exit_code == 0
