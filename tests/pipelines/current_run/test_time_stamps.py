"""A time-stamp of the manifest, from an authority on 127.0.0.1 that misbehaves as it is told to."""

import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from governance.evidence import verify_run as script
from governance.evidence.manifest import read_manifest
from governance.records.errors import AnchorError, ConfigError
from governance.records.files import typed
from governance.records.people import SigningRecord
from governance.signing.timestamp import check_time_stamp, digest_line
from governance.verify.folder import verify_run
from governance.verify.signatures import read_anchors
from pipelines.cli.app import app
from pipelines.config.model import load_config
from pipelines.config.sections import SigningConfig
from pipelines.current_run.keys import open_signer, stamp_at_end
from tests.governance.signing.time_stamp_authority import local_authority, served
from tests.pipelines.finished_runs.finished_runs import finished

runner = CliRunner()


@pytest.fixture
def server(monkeypatch, socket_enabled):
    monkeypatch.setenv("NO_PROXY", "*")
    with served(local_authority()) as running:
        yield running


def stamped(tmp_path, server):
    """A finished run with a time-stamp, and the authority's certificate."""
    run_dir = finished(tmp_path)
    certificate = local_authority().certificate(tmp_path)
    config = SigningConfig(timestamp_url=server.address, timestamp_certificate=str(certificate))
    stamp_at_end(run_dir, config, pytest.fail)
    return run_dir, certificate


def test_a_stamped_run_verifies_and_shows_the_time_and_who_vouches_for_it(tmp_path, server):
    run_dir, certificate = stamped(tmp_path, server)

    unchecked = verify_run(run_dir)
    checked = verify_run(run_dir, read_anchors(tsa_certificate=certificate))

    assert (unchecked.faults, checked.faults) == ((), ())
    assert server.asked == [("POST", "application/timestamp-query")]
    said = "; authority not checked: --tsa-certificate FILE checks it"
    assert unchecked.time_stamp.startswith("says 20")
    assert unchecked.time_stamp.endswith(f"UTC{said}")
    assert checked.time_stamp.endswith(f"UTC, checked with the certificate in {certificate}")
    manifest = read_manifest(run_dir)
    listed = {file.path for file in (*manifest.evidence, *manifest.outputs)}
    assert not {"manifest.tsr", "manifest.tsr.sha256"} & listed


def test_the_command_prints_the_time_stamp_in_words_and_in_json(tmp_path, server):
    run_dir, certificate = stamped(tmp_path, server)

    plain = runner.invoke(app, ["verify", str(run_dir)])
    held = ["verify", str(run_dir), "--tsa-certificate", str(certificate), "--json"]
    as_json = runner.invoke(app, held)

    assert (plain.exit_code, as_json.exit_code) == (0, 0), plain.output + as_json.output
    assert "time-stamp    says 20" in plain.stdout
    assert '"time_stamp": "20' in as_json.stdout


def test_openssl_alone_can_check_the_time_stamp(tmp_path, server):
    tool = shutil.which("openssl")
    if tool is None:
        pytest.skip("openssl is not installed")
    run_dir, certificate = stamped(tmp_path, server)

    done = subprocess.run(  # noqa: S603
        [
            *(tool, "ts", "-verify", "-data", "manifest.json", "-in", "manifest.tsr"),
            *("-CAfile", str(certificate)),
        ],
        cwd=run_dir,
        capture_output=True,
        text=True,
    )

    assert "Verification: OK" in done.stdout


def test_a_token_of_another_authority_or_none_is_named_when_one_was_expected(tmp_path, server):
    run_dir, _ = stamped(tmp_path, server)
    foreign = local_authority("stranger").certificate(tmp_path, "stranger.pem")
    anchors = read_anchors(tsa_certificate=foreign)

    (fault,) = verify_run(run_dir, anchors).faults
    assert fault.startswith(f"manifest.tsr: is not by the authority {foreign} (")

    (run_dir / "manifest.tsr").unlink()
    (half,) = verify_run(run_dir).faults
    assert half == "manifest.tsr: missing, manifest.tsr.sha256 is there"
    (run_dir / "manifest.tsr.sha256").unlink()
    assert verify_run(run_dir).faults == ()
    (missing,) = verify_run(run_dir, anchors).faults
    assert missing.startswith("manifest.tsr: missing, expected a time-stamp by the authority")


def test_a_token_over_another_manifest_is_named(tmp_path, server):
    (tmp_path / "a").mkdir()
    run_dir, _ = stamped(tmp_path / "a", server)
    other = finished(tmp_path / "b", run_id="20260305T101112Z-b2c3d4e5")
    for name in ("manifest.tsr", "manifest.tsr.sha256"):
        shutil.copy(run_dir / name, other / name)

    assert verify_run(other).faults == ("manifest.tsr: is of other bytes than manifest.json",)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("status 503", "answers 503 Service Unavailable, expected a time-stamp"),
        ("to file:///etc/passwd", "answers 302 Found, expected a time-stamp"),
        ("to http://127.0.0.2/x", "sends on to 127.0.0.2, name that address instead"),
        ("long", "the answer is longer than 65536 bytes"),
        ("text", "the answer is no time-stamp (not in the form of RFC 3161)"),
        ("other question", "the answer is to another question (nonce)"),
    ],
)
def test_an_authority_that_fails_is_a_warning_and_nothing_is_kept(tmp_path, server, fault, said):
    run_dir = finished(tmp_path)
    before = sorted(path.name for path in run_dir.iterdir())
    warnings: list[str] = []
    server.fault = fault

    stamp_at_end(run_dir, SigningConfig(timestamp_url=server.address), warnings.append)

    (warning,) = warnings
    assert said in warning
    assert warning.startswith(f"no time-stamp: {server.address}: ")
    assert warning.endswith(f"later: medisynth-gov timestamp {typed(run_dir)}")
    assert sorted(path.name for path in run_dir.iterdir()) == before
    assert [method for method, _ in server.asked] == ["POST"]


def test_an_answer_of_a_stranger_is_not_kept_when_the_certificate_is_configured(tmp_path, server):
    run_dir = finished(tmp_path)
    server.authority = local_authority("stranger")
    certificate = local_authority().certificate(tmp_path)
    warnings: list[str] = []

    config = SigningConfig(timestamp_url=server.address, timestamp_certificate=str(certificate))
    stamp_at_end(run_dir, config, warnings.append)

    assert f"the answer is not by the authority {certificate}" in warnings[0]
    assert not (run_dir / "manifest.tsr").exists()


def test_an_authority_that_is_away_is_a_warning(tmp_path, socket_enabled, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    run_dir = finished(tmp_path)
    warnings: list[str] = []

    stamp_at_end(run_dir, SigningConfig(timestamp_url="http://127.0.0.1:9/x"), warnings.append)

    assert "http://127.0.0.1:9/x: cannot be reached (Connection refused)" in warnings[0]
    assert verify_run(run_dir).faults == ()


def test_the_command_asks_later_and_only_once(tmp_path, server):
    run_dir = finished(tmp_path)
    asks = ["timestamp", str(run_dir), "--url", server.address]

    unnamed = runner.invoke(app, ["timestamp", str(run_dir)])
    first = runner.invoke(app, asks)
    again = runner.invoke(app, asks)
    wrong = runner.invoke(app, ["timestamp", str(run_dir), "--url", "ftp://x"])

    assert (unnamed.exit_code, "names no time-stamp authority" in unnamed.output) == (2, True)
    assert (first.exit_code, f"time-stamp by {server.address}" in first.output) == (0, True)
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    assert wrong.exit_code == 2
    assert verify_run(run_dir).time_stamp.startswith("says 20")


def test_away_in_the_command_is_exit_7_in_one_line(tmp_path, socket_enabled, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    run_dir = finished(tmp_path)

    result = runner.invoke(app, ["timestamp", str(run_dir), "--url", "http://127.0.0.1:9/x"])

    assert result.exit_code == 7
    (line,) = result.stderr.splitlines()
    assert line.startswith("error[G043] http://127.0.0.1:9/x: cannot be reached")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/passwd", "expected the http or https address"),
        ("ftp://tsa.example", "expected the http or https address"),
        ("tsa.example", "expected the http or https address"),
        ("http://", "expected the http or https address"),
        ("https://ada:secret@tsa.example", "no user name, password or token in an address"),
    ],
)
def test_an_address_that_is_none_is_refused_before_any_work(url, said):
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(preset="smoke", overrides=[f"signing.timestamp_url={url}"])

    assert "signing.timestamp_url" in str(caught.value)


def test_a_certificate_that_is_none_is_refused_before_any_work(tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate")

    for name, said in (("ca.pem", "no X.509 certificate"), ("gone.pem", "cannot be read")):
        with pytest.raises(AnchorError, match=said) as caught:
            open_signer(SigningConfig(timestamp_certificate=str(tmp_path / name)))
        assert caught.value.exit_code == 2


def test_what_was_asked_for_and_not_given_is_said(tmp_path):
    asked = SigningRecord(timestamp_url="https://tsa.example").timestamp_url

    words, faults = check_time_stamp(tmp_path, None, asked)

    assert faults == []
    assert words == (
        "no time-stamp: https://tsa.example was to be asked and gave none; medisynth-gov timestamp "
        "RUN asks again"
    )


def test_every_flipped_byte_of_token_and_digest_is_found_by_both_verifiers(tmp_path, server):
    run_dir, _ = stamped(tmp_path, server)
    for name in ("manifest.tsr", "manifest.tsr.sha256"):
        data = (run_dir / name).read_bytes()
        for offset in range(len(data)):
            changed = data[:offset] + bytes([data[offset] ^ 1 << offset % 8]) + data[offset + 1 :]
            (run_dir / name).write_bytes(changed)
            by_script: list[str] = []
            script.check_time_stamp(run_dir, by_script)
            assert by_script, (name, offset)
            assert check_time_stamp(run_dir, None, None)[1], (name, offset)
        (run_dir / name).write_bytes(data)
    assert check_time_stamp(run_dir, None, None)[1] == []


def test_a_changed_token_with_a_digest_to_fit_is_no_traceback(tmp_path, server):
    run_dir, certificate = stamped(tmp_path, server)
    authority = read_anchors(tsa_certificate=certificate).authority
    data = (run_dir / "manifest.tsr").read_bytes()
    n_found = 0
    offsets = range(0, len(data), 13)
    for offset in offsets:
        for changed in (data[:offset], data[:offset] + b"\x30\x80" + data[offset + 2 :]):
            (run_dir / "manifest.tsr").write_bytes(changed)
            (run_dir / "manifest.tsr.sha256").write_bytes(digest_line(changed))
            n_found += bool(check_time_stamp(run_dir, authority, None)[1])

    assert n_found > 0.6 * 2 * len(offsets)  # the rest lies in copies of certificates held here
