import json
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from medisynth.studies.midl2023.audit import Inputs, as_json, as_page, as_text, audit
from pipelines.cli.app import app
from pipelines.fetch.weights import find_weights
from tests.places import ROOT

SHARED = ROOT.parent / "shared" / "data"
PLANES = SHARED / "fetal_planes_db"
TABLE = PLANES / "FETAL_PLANES_DB_data.csv"
LOGS = SHARED / "midl2023_logs"
PAGE = ROOT / "docs" / "reproduction_audit.md"
PICTURES = (PLANES / "Images", PLANES / "trans_ventricular_480" / "images")
SYNTHETIC = SHARED / "synthetic_examples"
NEED_WEIGHTS = ("## 2.2 ", "## 3 ")

needs_data = pytest.mark.skipif(
    not (TABLE.is_file() and LOGS.is_dir()), reason="the public table and logs are not here"
)
runner = CliRunner()


def sections(page):
    """Each section of a page by its heading, less the overview before the first."""
    parts = page.decode().split("\n## ")[1:]
    return {f"## {part.splitlines()[0]}": part for part in parts}


@pytest.fixture
def small(tmp_path):
    """The least table and logs that can be audited: two images, three checkpoints."""
    table = tmp_path / "table.csv"
    rows = ["a_1;1;Fetal brain;Trans-thalamic;Op. 1;Voluson E6;1 "]
    rows += ["b_1;2;Fetal brain;Trans-cerebellum;Op. 1;Voluson E6;0 "]
    header = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
    table.write_text("\n".join([header, *rows]) + "\n")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "FID.csv").write_text("Epochs,FID\n0,7\n1,5\n2,6\n")
    losses = ["Epoch,Generator_Loss,Disciminator_Loss,FID", "0,0.5,1.0,7", "1,0.5,1.0,5"]
    (logs / "sr_gan_loss.csv").write_text("\n".join([*losses, "2,0.5,0.5,6"]) + "\n")
    for name, n in (("FID", 2), ("D_loss", 4), ("G_loss", 4)):
        np.save(logs / f"tc_200_2_{name}_log.npy", np.arange(n) + 1.0)
    return table, logs


def run(table, logs, *arguments):
    return runner.invoke(
        app, ["reproduction-audit", "--table", str(table), "--logs", str(logs), *arguments]
    )


def test_every_finding_has_claim_place_verdict_and_source(small):
    result = run(*small, "--json")
    facts = json.loads(result.output)

    assert result.exit_code == 0
    numbers = [finding["number"] for finding in facts["findings"]]
    assert numbers == ["1.1", "1.2", "2.1", "2.2", "3", "4", "5.1", "5.2", "5.3", "6.1", "6.2", "7"]
    for finding in facts["findings"]:
        assert all(finding[key] for key in ("claim", "where", "verdict", "because", "source"))
        assert all(value["rule"] for value in finding["values"])
    assert len(facts["files"]) == 6
    assert all(len(file["sha256"]) == 64 for file in facts["files"])


def test_what_is_missing_is_not_evaluated_with_the_reason(small):
    facts = json.loads(run(*small, "--json").output)
    missing = {f["number"]: f for f in facts["findings"] if f["verdict"] == "not evaluated"}

    assert {n: f["because"] for n, f in missing.items()} == {
        "3": "needs --images, folders of real frames",
        "5.3": "networks were not asked for; give --networks",
        "7": "needs --images and --synthetic",
    }
    assert all(not finding["values"] for finding in missing.values())


def test_without_weights_the_black_reference_is_not_evaluated(small, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setenv("MEDISYNTH_GOV_CACHE", str(tmp_path / "empty"))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a_1", "b_1"):
        Image.fromarray(np.full((20, 20), 9, np.uint8)).save(pictures / f"{name}.png")

    facts = json.loads(run(*small, "--images", str(pictures), "--json").output)

    found = {f["number"]: f for f in facts["findings"]}["3"]
    assert found["verdict"] == "not evaluated"
    assert "weights are not there" in found["because"]


def test_the_page_holds_no_path_and_is_the_same_every_time(small, tmp_path):
    first, second = tmp_path / "one.md", tmp_path / "deep" / "two.md"

    said = run(*small, "--out", str(first)).output
    run(*small, "--out", str(second))

    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path).encode() not in first.read_bytes()
    assert f"page  {first}" in said


@pytest.mark.parametrize(
    ("which", "content", "said"),
    [
        ("table.csv", None, "table.csv: is missing"),
        ("table.csv", b"<html><body>404</body></html>", "table.csv: is a web page"),
        ("table.csv", b"name;patient\nx;1\n", "column 'Image_name' is missing"),
        ("logs/FID.csv", None, "FID.csv: is missing"),
        ("logs/FID.csv", b"<html></html>", "expected a header that starts with Epochs,FID"),
        ("logs/sr_gan_loss.csv", b"<html></html>", "sr_gan_loss.csv: is a web page"),
        ("logs/tc_200_2_FID_log.npy", b"\x80\x04.", "is not an array in NumPy's format"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_3(small, which, content, said):
    table, logs = small
    path = table.parent / which
    path.unlink()
    if content is not None:
        path.write_bytes(content)

    result = run(table, logs)

    assert result.exit_code == 3
    assert said in result.output
    assert "Traceback" not in result.output


def test_a_missing_option_is_exit_code_2(small):
    result = runner.invoke(app, ["reproduction-audit", "--table", str(small[0])])

    assert result.exit_code == 2


def test_a_folder_without_pictures_is_exit_code_3(small, tmp_path):
    result = run(*small, "--images", str(tmp_path / "none"))

    assert result.exit_code == 3
    assert "none: is not a folder with PNG files" in result.output


def test_torch_and_mlflow_stay_out_unless_networks_are_asked_for(small):
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli.app import app;"
        f"r = CliRunner().invoke(app, ['reproduction-audit', '--table', {str(small[0])!r},"
        f" '--logs', {str(small[1])!r}]);"
        "heavy = {'torch', 'mlflow'} & set(sys.modules);"
        "sys.exit(f'{r.output} {heavy}' if heavy or r.exit_code else 0)"
    )

    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@needs_data
@pytest.mark.skipif(not SYNTHETIC.is_dir(), reason="the pictures are not here")
def test_the_committed_page_is_what_the_command_writes():
    made = audit(Inputs(TABLE, LOGS, PICTURES, SYNTHETIC, networks=True, weights=None))
    expected, found = sections(PAGE.read_bytes()), sections(as_page(made))

    for heading, text in found.items():
        if not heading.startswith(NEED_WEIGHTS):
            assert text == expected[heading], heading
    assert list(found) == list(expected)


@pytest.mark.slow
@needs_data
@pytest.mark.skipif(not SYNTHETIC.is_dir(), reason="the pictures are not here")
def test_the_committed_page_is_what_the_command_writes_with_weights():
    weights = find_weights()
    if weights is None:
        pytest.skip("the FID weights are not on this machine")

    made = audit(Inputs(TABLE, LOGS, PICTURES, SYNTHETIC, networks=True, weights=weights))

    assert as_page(made) == PAGE.read_bytes()
    found = {f.number: f for f in made.findings}
    black, real = found["3"].values[-2:]
    assert black.value == pytest.approx(35.84, abs=0.02)
    assert real.value == pytest.approx(0.16, abs=0.01)
    assert [round(v.value, 2) for v in found["7"].values] == [0.76, 1, 0.53]


@needs_data
def test_text_and_json_say_the_same_verdicts():
    made = audit(Inputs(TABLE, LOGS))
    verdicts = [
        f"{f['number']}  {f['title']}: {f['verdict']}"
        for f in json.loads(as_json(made))["findings"]
    ]

    assert [line for line in as_text(made).splitlines() if line in verdicts] == verdicts
