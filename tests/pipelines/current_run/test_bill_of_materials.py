import json
from datetime import UTC, datetime
from email.message import Message

import pytest

from governance.evidence.store import EvidenceStore
from governance.records.run import RunIdentity
from governance.records.software import BillOfMaterials
from governance.records.training import PretrainedComponent
from pipelines.current_run import software as sbom
from pipelines.current_run.identity import installed_packages

RUN = RunIdentity(
    run_id="20261123T090000Z-abc",
    started_utc=datetime(2026, 11, 23, 9, tzinfo=UTC),
    tool_version="0.1.0",
    code_commit="1" * 40,
    code_clean=True,
    command=("medisynth-gov", "run"),
    preset="smoke",
    generator="dsr-gan",
    seed=0,
    config_sha256="a" * 64,
)
WEIGHTS = PretrainedComponent(
    name="Inception v3",
    used_for="features",
    source="pytorch-fid",
    licence="Apache-2.0",
    sha256="d" * 64,
    training_data="photographs",
)


def package(name: str, version: str, **fields: str | list[str]) -> Message:
    message = Message()
    message["Name"], message["Version"] = name, version
    for key, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            message[key.replace("_", "-")] = value
    return message


INSTALLED = {
    "medisynth-gov": package("medisynth-gov", "0.1.0", Requires_Dist=["Numpy>=2", "gone"]),
    "numpy": package("numpy", "2.0", License_Expression="BSD-3-Clause AND MIT"),
    "odd": package(
        *("odd", "1.0"),
        License="Copyright\nwhole text",
        Classifier=["License :: OSI Approved :: MIT License", "Topic :: x"],
        Requires_Dist=["numpy ; python_version < '2'", "numpy (", "numpy ; extra == 'x'"],
    ),
    "bare": package("bare", "0", License="UNKNOWN", Requires_Dist="numpy>=1"),
}


@pytest.fixture(scope="module")
def content() -> dict:
    return json.loads(sbom.bill_of_materials(RUN, INSTALLED, [WEIGHTS, WEIGHTS]))


def part(content: dict, name: str) -> dict:
    (found,) = [entry for entry in content["components"] if entry["name"] == name]
    return found


def test_every_package_has_its_version_purl_and_licence(content):
    numpy = part(content, "numpy")

    assert (numpy["version"], numpy["purl"]) == ("2.0", "pkg:pypi/numpy@2.0")
    assert numpy["licenses"][0]["expression"] == "BSD-3-Clause AND MIT"
    assert part(content, "odd")["licenses"][0]["license"]["name"] == "MIT License"
    assert "licenses" not in part(content, "bare")
    assert len(content["components"]) == 4  # three packages and one set of weights


def test_the_framework_stands_with_its_commit_and_weights_with_their_digest(content):
    framework = content["metadata"]["component"]

    assert {p["name"]: p["value"] for p in framework["properties"]} == {
        "medisynth-gov:commit": "1" * 40,
        "medisynth-gov:tree": "clean",
    }
    weights = part(content, "Inception v3")
    assert weights["type"] == "machine-learning-model"
    assert weights["hashes"] == [{"alg": "SHA-256", "content": "d" * 64}]


def test_dependencies_are_those_that_are_installed_and_wanted_here(content):
    edges = {entry["ref"]: entry.get("dependsOn") for entry in content["dependencies"]}

    assert edges["medisynth-gov"] == ["numpy"]  # what is not installed is left out
    assert edges["bare"] == ["numpy"]
    assert edges["odd"] is None  # other Python, unreadable line, extra


def test_the_same_run_gives_the_same_bytes_and_another_run_another_serial_number():
    first = sbom.bill_of_materials(RUN, INSTALLED, [])
    other = RUN.model_copy(update={"run_id": "20261123T090000Z-def"})

    assert sbom.bill_of_materials(RUN, dict(reversed(INSTALLED.items())), []) == first
    serials = [json.loads(sbom.bill_of_materials(r, {}, []))["serialNumber"] for r in (RUN, other)]
    assert serials[0] != serials[1]


def test_what_is_installed_here_is_listed_without_a_fault(tmp_path):
    store = EvidenceStore.create(tmp_path, RUN.run_id, tool_version="0.1.0")
    installed = installed_packages()

    sbom.write_bill_of_materials(RUN, installed, [WEIGHTS], store)

    record = json.loads((store.run_dir / BillOfMaterials.PATH).read_bytes())
    assert record["faults"] == []
    assert record["sha256"] == store.artifacts()["sbom.cdx.json"]
    assert (record["n_packages"], record["n_pretrained"]) == (len(installed) - 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"{", b"", "it is not JSON"),
        (b'"type": "library"', b'"type": "thing"', "it is not CycloneDX 1.6"),
        (b'"version": "2.0"', b'"version": "2.1"', "numpy 2.0 is installed and not listed"),
        (b"d" * 64, b"e" * 64, "Inception v3 is not listed"),
        (b"1" * 40, b"2" * 40, "another version or commit"),
    ],
)
def test_a_file_that_says_something_else_is_found_when_it_is_read_back(old, new, said):
    data = sbom.bill_of_materials(RUN, INSTALLED, [WEIGHTS]).replace(old, new)

    faults = sbom.read_back(data, RUN, INSTALLED, [WEIGHTS]).faults

    assert len(faults) == 1
    assert said in faults[0]
