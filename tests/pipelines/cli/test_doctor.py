import json

from typer.testing import CliRunner

from pipelines.cli.app import app

runner = CliRunner()


def test_doctor_says_what_the_machine_can_do(tmp_path):
    result = runner.invoke(app, ["doctor", "-w", str(tmp_path), "--json"])

    assert result.exit_code == 0
    lines = {line["subject"]: line for line in json.loads(result.stdout)}
    assert lines["torch"]["mark"] == "ok"
    assert lines["torchvision import"]["mark"] == "ok"
    assert "level" in lines["confinement"]["finding"]
    assert {"FID weights", "disk", "compute device"} <= set(lines)


def test_doctor_for_people_is_aligned_text(tmp_path):
    result = runner.invoke(app, ["doctor", "-w", str(tmp_path)])

    assert result.exit_code == 0
    assert "GiB free" in result.output
