import shlex

import pytest

from pipelines.config.model import load_config
from pipelines.current_run import identity


def test_run_ids_sort_by_time_and_differ():
    first, second = identity.new_run_id(b"x"), identity.new_run_id(b"x")

    assert first != second
    assert first[:15] <= second[:15]
    assert first[8] == "T"


def test_an_installed_version_unlike_the_lock_is_named(tmp_path, monkeypatch):
    (tmp_path / "constraints.txt").write_text("# lock\npydantic==0.0.1\nno.such_package==1.0\n")
    monkeypatch.setattr(identity, "_SOURCE", tmp_path)

    found = identity.environment("cpu", identity.installed_packages())

    assert found.lock_file == "constraints.txt"
    assert any(text.startswith("pydantic: installed") for text in found.lock_differences)
    assert "no-such-package: installed not at all, locked 1.0" in found.lock_differences


def test_without_a_lock_file_nothing_is_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "_SOURCE", tmp_path)

    found = identity.environment("cpu", identity.installed_packages())

    assert found.lock_file is None
    assert found.lock_differences == ()
    assert identity.code_identity() == (None, None)


def test_the_test_plan_names_a_primary_endpoint_and_the_criteria():
    from governance.policy.load import load_policy

    plan = identity.test_plan(load_config(preset="smoke"), "0" * 64, load_policy())

    assert plan.primary_endpoint.startswith("KID")
    assert plan.policy["principles"]


def test_a_recorded_command_names_no_home_and_works_as_it_is_printed():
    words = [
        "/home/ann/.venv/bin/medisynth-gov",
        "run",
        "my runs/it's.yaml",
        "-o",
        "declarations=/home/ann/d.yaml",
        "--data",
        "/srv/data/",
        "caf\udce9",
        "x" * 20_000,
    ]

    recorded = identity.recorded_command(words)

    assert not any("/home" in word or "/srv" in word for word in recorded)
    assert shlex.split(" ".join(recorded))[:8] == [
        "medisynth-gov",
        "run",
        "my runs/it's.yaml",
        "-o",
        "declarations=…/d.yaml",
        "--data",
        "…/data",
        r"caf\udce9",
    ]
    assert len(recorded[8]) < 100
    assert " ".join(recorded).encode()


def test_a_checkout_that_git_refuses_is_not_called_no_checkout(monkeypatch):
    if identity.code_identity()[0] is None:
        pytest.skip("this is no git checkout that can be read")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")

    assert identity.code_identity() == (None, None)
    assert "safe.directory" in identity.code_absence()
    recorded = identity.run_identity("x", load_config(preset="smoke"), b"", [])
    assert "safe.directory" in recorded.why_no_commit


def test_without_git_that_is_said(monkeypatch, tmp_path):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(identity, "_SOURCE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert identity.code_absence() == "git is not installed here"
