"""What an installed distribution needs beside its modules, and what describes it."""

import tomllib
from fnmatch import fnmatch

import pytest
from ruamel.yaml import YAML

from tests.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = ("governance", "medisynth", "pipelines")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_that_is_no_module_goes_into_the_distribution(package):
    folder = ROOT / package
    files = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    ]
    patterns = PROJECT["tool"]["setuptools"]["package-data"][package]

    assert "py.typed" in files
    assert [f for f in files if not any(fnmatch(f, pattern) for pattern in patterns)] == []


def test_the_citation_names_the_version_and_licence_of_the_project():
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text("utf-8"))

    assert citation["version"] == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["cff-version"] == "1.2.0"
