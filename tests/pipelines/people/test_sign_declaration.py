"""A person signs an entry with a key; what voids the signature, and what that changes."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from governance.people.rules import RunFacts, human_result
from governance.people.signature import check_entry_signature
from governance.policy.load import load_policy
from governance.records.base import ItemStatus
from governance.records.errors import DeclarationsError
from governance.records.run import RunIdentity
from governance.signing.keys import make_key_pair
from pipelines.cli.app import app
from pipelines.people.read import read_declarations

runner = CliRunner()
POLICY = load_policy()
TEXT = """\
# People's word.
declarations:
  # what for
  - id: P1-H1
    statement: >
      Research on image synthesis.
      Not for diagnosis: not a device, é.
    owner_name: Ada Beispiel   # a person
    owner_role: fetal medicine
    date: 2026-10-01
    reference: minutes 12
    applies_to: {model: dsr-gan}
    meaning: approver
    expires: 2999-10-01
    scope: {planes: any, machines: any, image_size_px: {min: 16, max: 512}, output_roles: [research]}
    card:
      intended_users: Researchers.
  - {id: P1-H2, statement: Roles, owner_name: Ada, owner_role: lead, date: 2026-10-01,
     reference: list, applies_to: {model: dsr-gan}, meaning: author, expires: 2999-10-01}
waivers:
  - id: P5-01
    author: Ada Beispiel
    reason: Not published yet.
    expires: 2999-12-31
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
TODAY = date(2026, 11, 1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return [make_key_pair(tmp_path_factory.mktemp(name)) for name in ("ada", "eve")]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "declarations.yaml"
    path.write_text(TEXT)
    return path


def sign(file: Path, item_id: str, key: Path):
    arguments = ["sign-declaration", str(file), "--id", item_id, "--key", str(key)]
    return runner.invoke(app, arguments)


def entries(file: Path):
    document = read_declarations(str(file), POLICY).document
    return {entry.id: entry for entry in (*document.declarations, *document.waivers)}


def result(file: Path, item_id: str = "P1-H1"):
    document = read_declarations(str(file), POLICY).document
    return human_result(POLICY.item(item_id), document, RunFacts(model="dsr-gan"), TODAY)


def warnings(file: Path):
    return read_declarations(str(file), POLICY).warnings(IDENTITY, TODAY)


@pytest.mark.parametrize("item_id", ["P1-H1", "P5-01"])
def test_signing_adds_one_line_and_the_signature_is_valid(file, keys, item_id):
    done = sign(file, item_id, keys[0].private_key)

    assert done.exit_code == 0, done.output
    found = check_entry_signature(entries(file)[item_id])
    assert (found.state, found.key_id) == ("valid", keys[0].key_id)
    assert found.words == f"signed by key id {keys[0].key_id}, identity not vouched for"
    lines = file.read_text().splitlines()
    (added,) = [line for line in lines if line not in TEXT.splitlines()]
    assert added.startswith("    signature: ed25519:")
    assert "\n".join(line for line in lines if line != added) + "\n" == TEXT
    assert warnings(file) == ()


def test_a_signed_item_is_declared_and_never_passed_and_its_record_names_the_key(file, keys):
    sign(file, "P1-H1", keys[0].private_key)

    shown = result(file)

    assert shown.status is ItemStatus.DECLARED
    assert f"signed by key id {keys[0].key_id}, identity not vouched for" in shown.method


def test_signing_again_replaces_the_own_signature_and_no_other(file, keys):
    sign(file, "P1-H1", keys[0].private_key)
    file.write_text(file.read_text().replace("Research on", "Studies of"))

    again = sign(file, "P1-H1", keys[0].private_key)
    other = sign(file, "P1-H1", keys[1].private_key)

    assert again.exit_code == 0
    assert file.read_text().count("signature:") == 1
    assert check_entry_signature(entries(file)["P1-H1"]).state == "valid"
    assert (other.exit_code, "already" in other.output) == (2, True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Research on", "Proof of"),
        ("Ada Beispiel   #", "Eve Beispiel   #"),
        ("fetal medicine", "statistics"),
        ("date: 2026-10-01\n    reference", "date: 2026-10-02\n    reference"),
        ("minutes 12", "minutes 13"),
        ("model: dsr-gan}\n    meaning", "model: dsr-gan, version: '1'}\n    meaning"),
        ("approver", "author"),
        ("2999-10-01\n    scope", "2999-10-02\n    scope"),
        ("Researchers.", "Everybody."),
    ],
)
def test_an_entry_that_was_changed_after_signing_counts_as_not_signed(file, keys, old, new):
    sign(file, "P1-H1", keys[0].private_key)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))

    words = "signature does not match the entry: counts as not given"
    assert f"{file}: P1-H1: {words}" in warnings(file)
    assert words in human_result_method(file)


def human_result_method(file: Path) -> str:
    facts = RunFacts(model="dsr-gan", version="1")
    document = read_declarations(str(file), POLICY).document
    shown = human_result(POLICY.item("P1-H1"), document, facts, TODAY)
    assert shown.status is ItemStatus.DECLARED  # the signature is void, the named word stands
    return shown.method


@pytest.mark.parametrize(
    "text", ["signed on paper", "ed25519:00:00", "ed25519:" + "0" * 64 + ":" + "0" * 128, "a:b"]
)
def test_a_malformed_signature_is_one_line_and_counts_as_not_given(file, text):
    file.write_text(TEXT.replace("  - id: P1-H1\n", f"  - id: P1-H1\n    signature: '{text}'\n"))

    (warning,) = warnings(file)

    assert warning.endswith(": counts as not given")
    assert warning.startswith(f"{file}: P1-H1: signature")
    assert result(file).status is ItemStatus.DECLARED


def test_a_foreign_key_is_named_when_the_entry_says_whose_must_sign(file, keys):
    sign(file, "P1-H1", keys[1].private_key)
    (file.parent / "ada.pub").write_bytes(keys[0].public_key.read_bytes())
    text = file.read_text()
    held = text.replace("  - id: P1-H1\n", "  - id: P1-H1\n    key_file: ada.pub\n")
    file.write_text(held)

    assert warnings(file) == (
        f"{file}: P1-H1: signature by key id {keys[1].key_id}, not by key id {keys[0].key_id} of "
        "ada.pub: counts as not given",
    )
    refused = sign(file, "P1-H1", keys[1].private_key)
    assert (refused.exit_code, "is to be signed with key id" in refused.output) == (2, True)
    assert sign(file, "P1-H1", keys[0].private_key).exit_code == 0
    assert warnings(file) == ()
    words = check_entry_signature(entries(file)["P1-H1"]).words
    assert words == f"signed by key id {keys[0].key_id} of ada.pub, identity not vouched for"


def test_a_named_key_file_that_is_none_is_refused_at_the_start(file):
    file.write_text(TEXT.replace("  - id: P1-H1\n", "  - id: P1-H1\n    key_file: gone.pub\n"))

    with pytest.raises(DeclarationsError, match=r"P1-H1\.key_file: .*cannot be read") as caught:
        read_declarations(str(file), POLICY)
    assert caught.value.exit_code == 2


def test_a_signature_of_one_entry_does_not_fit_another(file, keys):
    sign(file, "P1-H1", keys[0].private_key)
    sign(file, "P5-01", keys[0].private_key)
    mine, theirs = entries(file)["P1-H1"], entries(file)["P5-01"]

    swapped = theirs.model_copy(update={"signature": mine.signature})

    assert check_entry_signature(swapped).state == "void"


@pytest.mark.parametrize(
    ("item_id", "said", "code"),
    [
        ("P9-H9", "has no entry for 'P9-H9'; it has P1-H1, P1-H2, P5-01", 2),
        ("P1-H2", "write the entry with one key a line", 2),
    ],
)
def test_what_cannot_be_signed_is_one_line_and_the_file_stays(file, keys, item_id, said, code):
    done = sign(file, item_id, keys[0].private_key)

    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert file.read_text() == TEXT


def test_an_untouched_entry_is_not_signed(file, keys):
    blank = TEXT.replace("Ada Beispiel   # a person", "TODO")
    start, end = blank.index("statement: >"), blank.index("    owner_name: TODO")
    file.write_text(f"{blank[:start]}statement: TODO\n{blank[end:]}")

    done = sign(file, "P1-H1", keys[0].private_key)

    assert (done.exit_code, "still holds the template's placeholder" in done.output) == (2, True)


def test_a_key_that_others_can_read_or_that_is_missing_is_exit_7(file, keys, tmp_path):
    open_key = tmp_path / "open.pem"
    open_key.write_bytes(keys[0].private_key.read_bytes())
    open_key.chmod(0o644)

    for key, said in ((open_key, "can be read or written by others"), (tmp_path / "x", "--key: ")):
        done = sign(file, "P1-H1", key)
        assert (done.exit_code, said in done.output) == (7, True), done.output
        assert len(done.output.splitlines()) == 1
    assert file.read_text() == TEXT


def test_line_ends_and_a_missing_last_line_end_stay_as_they_are(file, keys):
    file.write_bytes(TEXT.replace("\n", "\r\n").rstrip().encode())

    assert sign(file, "P5-01", keys[0].private_key).exit_code == 0

    data = file.read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") == TEXT.count("\n")
    assert check_entry_signature(entries(file)["P5-01"]).state == "valid"
