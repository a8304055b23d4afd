import hashlib
import os
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.people.intended_use import Used
from governance.policy.load import load_policy
from governance.records.errors import DeclarationsError
from governance.records.people import DeclaredScope
from governance.records.run import RunIdentity
from pipelines.cli.app import app
from pipelines.people.read import ReadDeclarations, read_declarations

POLICY = load_policy()
A = "a" * 64
GOOD = """\
declarations:
  - id: P1-H1
    statement: For research; not a device.
    owner_name: Ada Beispiel
    owner_role: fetal medicine
    date: 2026-10-01
    reference: minutes.txt
    applies_to: {model: dsr-gan}
    meaning: approver
    expires: "2027-10-01"
"""
SCOPE = """\
    scope:
      planes: [Trans-thalamic]
      machines: any
      image_size_px: {min: 16, max: 128}
      output_roles: [research, training data]
"""
WAIVER = """\
waivers:
  - id: P5-01
    author: Ada Beispiel
    reason: Not published yet.
    expires: 2027-10-01
    applies_to: {model: dsr-gan}
"""
IDENTITY = RunIdentity(
    run_id="20261123T090000Z-abc",
    started_utc=datetime(2026, 11, 23, tzinfo=UTC),
    tool_version="0.1.0",
    code_commit=None,
    code_clean=None,
    command=("medisynth-gov", "run"),
    preset="smoke",
    generator="dsr-gan",
    seed=0,
    config_sha256=A,
)


def read(folder: Path, text: str | bytes) -> ReadDeclarations:
    path = folder / "declarations.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_declarations(str(path), POLICY)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(DeclarationsError) as caught:
        read(folder, text)
    assert caught.value.exit_code == 2
    return "\n".join((str(caught.value), *caught.value.findings))


def test_a_file_is_read_with_its_digest_and_days_in_either_spelling(tmp_path):
    text = GOOD + SCOPE + WAIVER
    found = read(tmp_path, text)

    assert found.document.sha256 == hashlib.sha256(text.encode()).hexdigest()
    entry = found.document.declarations[0]
    assert (entry.date, entry.expires) == (date(2026, 10, 1), date(2027, 10, 1))
    assert found.document.waivers[0].reason == "Not published yet."
    assert found.warnings(IDENTITY, date(2026, 11, 23)) == ()


@pytest.mark.parametrize("text", ["", "declarations:\nwaivers:\n", "declarations: []\n"])
def test_an_empty_file_declares_nothing(tmp_path, text):
    document = read(tmp_path, text).document

    assert (document.declarations, document.waivers) == ((), ())


def test_a_referenced_file_beside_the_declarations_is_digested(tmp_path):
    assert read(tmp_path, GOOD).document.declarations[0].reference_found is None
    (tmp_path / "minutes.txt").write_bytes(b"present: A, B")

    found = read(tmp_path, GOOD).document.declarations[0].reference_found

    assert found == hashlib.sha256(b"present: A, B").hexdigest()


@pytest.mark.parametrize("reference", ["../..", "a" * 290, '"a\\0b"', "see https://doi.org/10.1/2"])
def test_a_reference_that_is_no_file_is_kept_as_text(tmp_path, reference):
    found = read(tmp_path, GOOD.replace("minutes.txt", reference)).document.declarations[0]

    assert found.reference_found is None


def test_empty_values_are_kept_and_counted_as_missing_with_a_warning(tmp_path):
    text = GOOD.replace("owner_name: Ada Beispiel", "owner_name:").replace(
        "date: 2026-10-01", "date:"
    )
    found = read(tmp_path, text + SCOPE)

    assert found.warnings(IDENTITY, date(2026, 11, 23)) == (
        f"{tmp_path}/declarations.yaml: P1-H1 counts as missing: owner_name is empty; "
        "date is empty",
    )


def test_expired_entries_and_those_of_other_runs_are_told_when_the_run_begins(tmp_path):
    other = WAIVER.replace("dsr-gan", "tb-gan")
    found = read(tmp_path, GOOD + SCOPE + other).warnings(IDENTITY, date(2027, 10, 2))

    assert [sentence.partition(": ")[2] for sentence in found] == [
        "P1-H1 counts as missing: it expired on 2027-10-01",
        "waiver of P5-01 is void: it expired on 2027-10-01",
    ]
    assert (
        read(tmp_path, other)
        .warnings(IDENTITY, date(2026, 11, 23))[0]
        .endswith("is void: it applies to generator tb-gan, this run's is dsr-gan")
    )


def test_a_scope_is_kept_and_what_is_already_outside_is_told_when_the_run_begins(tmp_path):
    found = read(tmp_path, GOOD + SCOPE)
    used = Used(image_size_px=256, output_role="education")

    assert found.document.declarations[0].scope == DeclaredScope(
        planes=("Trans-thalamic",),
        machines="any",
        image_size_px=(16, 128),
        output_roles=("research", "training data"),
    )
    assert found.warnings(IDENTITY, date(2026, 11, 23), used) == (
        f"{tmp_path}/declarations.yaml: outside the declared intended use, so P1-01 fails: "
        "image size 256 px (declared: 16 to 128 px), output role education",
    )


def test_an_intended_use_without_a_scope_is_told_when_the_run_begins(tmp_path):
    (found,) = read(tmp_path, GOOD).warnings(IDENTITY, date(2026, 11, 23))

    assert "P1-H1 names no scope to compare the run with" in found
    assert read(tmp_path, "declarations:\n").warnings(IDENTITY, date(2026, 11, 23)) == ()


FAULTS = [
    (GOOD.replace("    meaning: approver\n", ""), ":2: P1-H1.meaning: a value is required"),
    (GOOD.replace("approver", "boss"), ":9: P1-H1.meaning: 'boss' cannot be used"),
    (GOOD.replace("date: 2026-10-01", "date: 1/10/2026"), ":6: P1-H1.date: '1/10/2026' cannot"),
    (GOOD.replace("date: 2026-10-01", "date: 2026-10-01T10:00:00"), "without a time"),
    (GOOD.replace("date: 2026-10-01", "date: 20261001"), ":6: P1-H1.date: 20261001 cannot be used"),
    (GOOD.replace("owner_role", "ownr_role"), ":5: P1-H1.ownr_role: unknown key"),
    (GOOD.replace("Ada Beispiel", "1.5"), ":4: P1-H1.owner_name: 1.5 cannot be used"),
    (GOOD.replace("Ada Beispiel", "1.5"), "put it in quotes"),
    (GOOD.replace("{model: dsr-gan}", "{config: 12ab}"), "P1-H1.applies_to.config: '12ab' cannot"),
    (GOOD.replace("P1-H1", "P1-H9"), ":2: P1-H9: the policy has no such item"),
    (GOOD.replace("P1-H1", "P4-01"), ":2: P4-01: the run computes this item, nobody declares it"),
    (GOOD + GOOD.removeprefix("declarations:\n"), ":11: P1-H1: declared 2 times"),
    (GOOD + "    not_applicable: true\n", ":11: P1-H1.not_applicable: only P10-H1 and P7-H1 may"),
    (GOOD + "    card: {weather: fine}\n", ":11: P1-H1.card.weather: no field of the model card"),
    (GOOD + "    card: {metrics: fine}\n", "P1-H1.card.metrics: no field of the model card"),
    ((GOOD + SCOPE).replace("P1-H1", "P1-H2"), ":11: P1-H2.scope: the scope belongs to the decla"),
    (GOOD + SCOPE.replace("max: 128", "max: 8"), ":14: P1-H1.scope.image_size_px: "),
    (GOOD + SCOPE.replace("training data", "diagnosis"), "'diagnosis' cannot be used"),
    (GOOD + SCOPE.replace("      machines: any\n", ""), "P1-H1.scope.machines: a value is req"),
    (GOOD + SCOPE.replace("any", "all"), "P1-H1.scope.machines"),
    (WAIVER.replace("Not published yet.", ""), ":4: waiver of P5-01: reason is empty"),
    (WAIVER.replace("Not published yet.", "TODO"), "waiver of P5-01: reason is empty or a plac"),
    (WAIVER.replace("Ada Beispiel", "n/a"), ":3: waiver of P5-01: author is empty"),
    (WAIVER.replace("2027-10-01", ""), ":5: waiver of P5-01: expires is empty"),
    (WAIVER.replace("{model: dsr-gan}", "{}"), ":6: waiver of P5-01: applies_to is empty"),
    (WAIVER.replace("    reason: Not published yet.\n", ""), "P5-01.reason: a value is required"),
    (WAIVER.replace("P5-01", "P4-01"), ":2: waiver of P4-01: independence and isolation of the"),
    (WAIVER.replace("P5-01", "P2-07"), ":2: waiver of P2-07: integrity is never waived"),
    (WAIVER.replace("P5-01", "P2-12"), "data that break their contract are never waived"),
    (WAIVER.replace("P5-01", "P1-H1"), "waiver of P1-H1: it asks for a person's word"),
    (WAIVER.replace("P5-01", "X"), "waiver of X: the policy has no such item"),
    (WAIVER + WAIVER.removeprefix("waivers:\n"), ":7: waiver of P5-01: given twice"),
    ("declarations: [1]", "entry 1: 1 cannot be used"),
    ("declarations: 7", "declarations: 7 cannot be used"),
    ("[1, 2]", "expected keys and values, found list"),
    ("a: 1\na: 2\n", ":2: found duplicate key"),
    ("a: &x 1\nb: *x\n", "anchors and aliases are not allowed"),
    ("a: [", "declarations.yaml:"),
    ("a: !!python/object:os.system x\n", "declarations.yaml:"),
    ("[" * 20_000, "more than 8 levels are not allowed"),
    (b"\xff\xfe", "not UTF-8 text"),
    ("#" * (64 * 1024 + 1), "larger than 64 kB"),
    ("a: 2026-99-99\n", "declarations.yaml"),
    ("\x00", "declarations.yaml"),
]


@pytest.mark.malformed("config")
@pytest.mark.parametrize(("text", "said"), FAULTS)
def test_each_fault_is_one_sentence_with_line_and_key(tmp_path, text, said):
    message = refusal(tmp_path, text)

    assert said in message
    assert "Traceback" not in message


@pytest.mark.malformed("config")
def test_several_faults_are_told_at_once_each_on_a_line(tmp_path):
    text = GOOD.replace("approver", "boss").replace("owner_role", "ownr_role")

    with pytest.raises(DeclarationsError, match="3 faults") as caught:
        read(tmp_path, text)

    assert len(caught.value.findings) == 3


@pytest.mark.malformed("config")
def test_what_is_no_readable_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    for name, said in (("gone.yaml", "cannot be read"), ("", "is a folder"), ("pipe", "regular")):
        with pytest.raises(DeclarationsError, match=said):
            read_declarations(str(tmp_path / name), POLICY)


@pytest.mark.malformed("config")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        (WAIVER.replace("P5-01", "P4-01"), "never waived"),
        (WAIVER.replace("Not published yet.", ""), "reason is empty"),
    ],
)
def test_a_run_with_an_unusable_file_ends_with_2_before_anything_is_written(tmp_path, text, said):
    path = tmp_path / "declarations.yaml"
    if text is not None:
        path.write_text(text)
    workspace = tmp_path / "ws"

    result = CliRunner().invoke(
        app, ["run", "--preset", "smoke", "-w", str(workspace), "-o", f"declarations={path}"]
    )

    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error[C010] ")
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not workspace.exists()
