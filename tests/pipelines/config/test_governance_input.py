"""Bad keys, declarations, waivers, criteria and policies: one clear line each, the right code."""

import re
from datetime import UTC, date, datetime
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.policy.load import load_policy
from governance.records.errors import PolicyError
from governance.records.run import RunIdentity
from governance.signing.keys import make_key_pair
from pipelines.cli.app import app
from pipelines.people.read import read_declarations
from tests.governance.signing.signed_run import make_signed_run

runner = CliRunner()
ENTRY = """\
declarations:
  - id: P1-H1
    statement: For research; not a device.
    owner_name: Ada Beispiel
    owner_role: fetal medicine
    date: 2026-10-01
    reference: minutes
    applies_to: {model: dsr-gan}
    meaning: approver
    expires: 2027-10-01
    scope: {planes: any, machines: any, image_size_px: {min: 16, max: 512}, output_roles: [research]}
"""
WAIVER = """\
waivers:
  - id: P5-01
    author: Ada Beispiel
    reason:
    expires: 2027-10-01
    applies_to: {model: dsr-gan}
"""
IDENTITY = RunIdentity(
    run_id="r",
    started_utc=datetime(2026, 11, 1, tzinfo=UTC),
    tool_version="0",
    code_commit=None,
    code_clean=None,
    command=("run",),
    preset="smoke",
    generator="dsr-gan",
    seed=0,
    config_sha256="0" * 64,
)


def refused(workspace: Path, *overrides: str) -> tuple[int, str]:
    """Exit code and the one line that a run ends with before it has written anything."""
    options = [part for override in overrides for part in ("-o", override)]
    done = runner.invoke(app, ["run", "--preset", "smoke", "-w", str(workspace), *options])
    (line,) = done.output.splitlines()
    assert not workspace.exists()
    return done.exit_code, line


def test_a_missing_key_a_key_of_others_and_a_foreign_certificate_are_exit_7(tmp_path):
    mine, other = make_key_pair(tmp_path / "mine"), make_key_pair(tmp_path / "other")
    shared = tmp_path / "shared.pem"
    shared.write_bytes(mine.private_key.read_bytes())
    shared.chmod(0o640)
    key = f"signing.key={mine.private_key}"
    cases = {
        f"signing.key: {tmp_path / 'gone.pem'} cannot be read": (
            f"signing.key={tmp_path / 'gone.pem'}",
        ),
        f"signing.key: {shared} can be read or written by others (mode 640), expected 600": (
            f"signing.key={shared}",
        ),
        f"{other.certificate}: the certificate is of another key than signing.key": (
            key,
            f"signing.certificate={other.certificate}",
        ),
        f"{other.public_key}: not the public key of {mine.private_key}": (
            key,
            f"signing.public_key={other.public_key}",
        ),
    }

    for said, overrides in cases.items():
        code, line = refused(tmp_path / "ws", *overrides)
        assert (code, line.startswith(f"error[G041] {said}")) == (7, True), line


def test_a_run_signed_by_a_foreign_key_is_exit_5(tmp_path):
    from governance.signing.keys import load_signer

    mine, other = make_key_pair(tmp_path / "mine"), make_key_pair(tmp_path / "other")
    run_dir = make_signed_run(tmp_path / "runs", load_signer(str(mine.private_key)))

    done = runner.invoke(app, ["verify", str(run_dir), "--key", str(other.public_key)])

    first, line = done.output.splitlines()
    assert done.exit_code == 5
    assert first == "NOT VERIFIED: 1 fault"
    assert line.startswith(f"error[G031] manifest.sig: by key {mine.key_id}, expected key")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("expires: 2027-10-01", "expires: 2026-10-31", "it expired on 2026-10-31"),
        ("Ada Beispiel", "<name>", "owner_name is a placeholder"),
        ("Ada Beispiel", "", "owner_name is empty"),
        ("date: 2026-10-01", "date: 2026-11-02", "its date, 2026-11-02, is in the future"),
    ],
)
def test_a_declaration_that_does_not_count_is_one_warning_and_leaves_the_item_missing(
    tmp_path, old, new, said
):
    path = tmp_path / "d.yaml"
    path.write_text(ENTRY.replace(old, new))

    read = read_declarations(str(path), load_policy())

    assert read.warnings(IDENTITY, date(2026, 11, 1)) == (
        f"{path}: P1-H1 counts as missing: {said}",
    )


def test_a_waiver_without_a_reason_is_exit_2(tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text(WAIVER)

    code, line = refused(tmp_path / "ws", f"declarations={path}")

    assert code == 2
    assert line.startswith(
        f"error[C010] {path}:4: waiver of P5-01: reason is empty or a placeholder"
    )


@pytest.mark.parametrize(
    ("criteria", "said"),
    [
        ('{P3-03: "~ 5"}', "error[C000] criteria.P3-03: '~ 5' cannot be used; expected a number"),
        ("{P3-03: {operator: '!=', value: 3}}", "the operator is the policy's, only its limit can"),
        ("{P3-03: .nan}", "error[G010] criteria.P3-03: expected a finite number, found nan"),
        ("{P4-01: 5}", "has no limit that can be set; remove it"),
        ("{P99-01: 5}", "error[G010] criteria.P99-01: the policy has no such item"),
    ],
)
def test_a_criterion_with_another_operator_or_no_number_is_exit_2(tmp_path, criteria, said):
    code, line = refused(tmp_path / "ws", f"criteria={criteria}")

    assert (code, said in line) == (2, True), line


def policy_file(folder: Path, old: str, new: str) -> Path:
    text = (resources.files("governance.policy") / "gmlp.yaml").read_text("utf-8")
    changed = re.sub(old, new, text, count=1, flags=re.DOTALL)
    assert changed != text
    path = folder / "policy.yaml"
    path.write_text(changed)
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (r"      - id: P2-01\n.*?(?=      - id: P2-02)", "", "P2-01: core item is missing; add"),
        ('operator: ">=", value: 30', 'operator: "~", value: 30', "P3-03.criterion.operator: "),
    ],
)
def test_a_policy_that_drops_a_core_item_or_has_an_unknown_operator_is_exit_2(
    tmp_path, old, new, said
):
    path = policy_file(tmp_path, old, new)

    with pytest.raises(PolicyError) as caught:
        load_policy(path)

    assert caught.value.exit_code == 2
    (line,) = str(caught.value).splitlines()
    assert said in line
    assert line.startswith(f"{path}: ")


def test_a_run_has_no_key_for_a_policy_of_its_own(tmp_path):
    code, line = refused(tmp_path / "ws", "policy=mine.yaml")

    assert (code, line.startswith("error[C000] policy: unknown key")) == (2, True)
