"""A stored run is sampled by later versions, although its settings have keys that are gone."""

import json

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from pipelines.cli.app import app


def test_a_stored_run_draws_images_as_large_as_its_own(corpus, tmp_path):
    run_dir, out = corpus.run("finished"), tmp_path / "drawn"

    result = CliRunner().invoke(
        app, ["sample", str(run_dir), "-n", "3", "--out", str(out), "--json"]
    )

    assert "recipe: corrected" in (run_dir / "config.yaml").read_text("utf-8")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_marks_read_back"] == 3
    own, drawn = (
        np.asarray(Image.open(folder / "00000.png")) for folder in (run_dir / "samples", out)
    )
    assert own.shape == drawn.shape
    assert drawn.std() > 0
