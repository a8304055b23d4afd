"""The software of a run: its bill of materials in CycloneDX, and the result of the project's tests."""

import json
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageMetadata
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License, LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from pydantic import ValidationError

from governance.evidence.store import EvidenceStore
from governance.records.errors import first_line
from governance.records.files import sha256_bytes, write_atomic
from governance.records.run import RunIdentity
from governance.records.software import BillOfMaterials, SuiteReport
from governance.records.training import PretrainedComponent
from pipelines.current_run.identity import DISTRIBUTION, normal_name

PATH = "sbom.cdx.json"
_SPEC = SchemaVersion.V1_6
_UNKNOWN = "unknown"
_LONGEST_LICENCE = 100  # some packages put the whole text where its name belongs
_COMMIT, _TREE = f"{DISTRIBUTION}:commit", f"{DISTRIBUTION}:tree"


def write_bill_of_materials(
    identity: RunIdentity,
    installed: Mapping[str, PackageMetadata],
    pretrained: Sequence[PretrainedComponent],
    store: EvidenceStore,
) -> None:
    """Write the bill of materials and the result of reading it back.

    Args:
        identity: The run; its id and start give serial number and time, so that bytes repeat.
        installed: Metadata of installed packages, by normalised name.
        pretrained: Weights made by others that the run used.
        store: Evidence of the run.
    """
    data = bill_of_materials(identity, installed, pretrained)
    store.write_bytes(PATH, data)
    store.write_document(read_back(data, identity, installed, pretrained))


def bill_of_materials(
    identity: RunIdentity,
    installed: Mapping[str, PackageMetadata],
    pretrained: Sequence[PretrainedComponent],
) -> bytes:
    """Return CycloneDX JSON of framework, packages, dependencies and pretrained weights."""
    framework = _framework(identity)
    packages = {name: _package(name, metadata) for name, metadata in installed.items()}
    packages[DISTRIBUTION] = framework
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{DISTRIBUTION}/{identity.run_id}"))
    bom.metadata.timestamp = identity.started_utc
    bom.metadata.component = framework
    bom.components.update(part for part in packages.values() if part is not framework)
    bom.components.update(_weights(part) for part in {p.sha256: p for p in pretrained}.values())
    for name, metadata in installed.items():
        wanted = [packages[other] for other in _required(metadata) if other in packages]
        bom.register_dependency(packages[name], wanted)
    return make_outputter(bom, OutputFormat.JSON, _SPEC).output_as_string(indent=1).encode()


def read_back(
    data: bytes,
    identity: RunIdentity,
    installed: Mapping[str, PackageMetadata],
    pretrained: Sequence[PretrainedComponent],
) -> BillOfMaterials:
    """Validate a bill of materials and compare it with the installed packages and weights."""
    fault, content = _parsed(data)
    parts = content.get("components", [])
    packages = [part for part in parts if part["type"] == "library"]
    weights = [part for part in parts if part["type"] == "machine-learning-model"]
    faults = [fault] if fault else _differences(content, packages, identity, installed)
    if not fault:
        digests = {entry["content"] for part in weights for entry in part.get("hashes", ())}
        faults += [f"{p.name} is not listed" for p in pretrained if p.sha256 not in digests]
    return BillOfMaterials(
        path=PATH,
        sha256=sha256_bytes(data),
        spec_version=str(content.get("specVersion", "")),
        serial_number=str(content.get("serialNumber", "")),
        n_packages=len(packages),
        n_without_licence=sum(1 for part in packages if not part.get("licenses")),
        n_pretrained=len(weights),
        faults=tuple(faults),
    )


def _parsed(data: bytes) -> tuple[str, dict[str, Any]]:
    """Return (schema fault or "", parsed content or {})."""
    try:
        text = data.decode()
        content = json.loads(text)
    except ValueError:
        return "it is not JSON", {}
    fault = JsonStrictValidator(_SPEC).validate_str(text)
    if fault is not None:
        words = first_line(fault.data.message)
        return f"it is not CycloneDX {_SPEC.to_version()}: {words}", {}
    return "", content


def _differences(
    content: Mapping[str, Any],
    packages: Sequence[Mapping[str, Any]],
    identity: RunIdentity,
    installed: Mapping[str, PackageMetadata],
) -> list[str]:
    """Return the packages that are missing or differ, and a framework that differs."""
    versions = {normal_name(part["name"]): part.get("version") for part in packages}
    faults = [
        f"{name} {metadata['Version']} is installed and not listed"
        for name, metadata in installed.items()
        if name != DISTRIBUTION and versions.get(name) != metadata["Version"]
    ]
    framework = content.get("metadata", {}).get("component", {})
    properties = {entry["name"]: entry["value"] for entry in framework.get("properties", ())}
    found = (framework.get("version"), properties.get(_COMMIT))
    if found != (identity.tool_version, identity.code_commit or _UNKNOWN):
        faults.append("the framework is listed with another version or commit")
    return faults


def _framework(identity: RunIdentity) -> Component:
    states = {True: "clean", False: "has uncommitted changes", None: _UNKNOWN}
    return Component(
        type=ComponentType.APPLICATION,
        name=DISTRIBUTION,
        version=identity.tool_version,
        bom_ref=DISTRIBUTION,
        purl=PackageURL("pypi", name=DISTRIBUTION, version=identity.tool_version),
        properties=[
            Property(name=_COMMIT, value=identity.code_commit or _UNKNOWN),
            Property(name=_TREE, value=states[identity.code_clean]),
        ],
    )


def _package(name: str, metadata: PackageMetadata) -> Component:
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=metadata["Version"],
        bom_ref=name,
        purl=PackageURL("pypi", name=name, version=metadata["Version"]),
        licenses=_licences(metadata),
    )


def _licences(metadata: PackageMetadata) -> list[License]:
    """Return the declared licence: an SPDX expression or a name; empty if none is declared."""
    factory = LicenseFactory()
    declared = LicenseAcknowledgement.DECLARED
    keys = ("License-Expression", "License")
    for text in (text.strip() for key in keys for text in metadata.get_all(key) or ()):
        is_name = text.casefold() not in ("", _UNKNOWN) and "\n" not in text
        if is_name and len(text) <= _LONGEST_LICENCE:
            return [factory.make_from_string(text, license_acknowledgement=declared)]
    names = [
        text.rsplit(" :: ", 1)[-1]
        for text in metadata.get_all("Classifier") or ()
        if re.match(r"License :: .+ :: ", text)
    ]
    return [factory.make_with_name(name, acknowledgement=declared) for name in names]


def _required(metadata: PackageMetadata) -> list[str]:
    """Return the names of a package's requirements on this machine, without extras."""
    names = []
    for text in metadata.get_all("Requires-Dist") or ():
        try:
            requirement = Requirement(text)
            is_wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        except ValueError:  # a line that installers could not read either
            continue
        if is_wanted:
            names.append(normal_name(requirement.name))
    return names


def _weights(part: PretrainedComponent) -> Component:
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=part.name,
        bom_ref=f"sha256:{part.sha256}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)],
        licenses=[LicenseFactory().make_from_string(part.licence)],
        description=f"{part.used_for}; from {part.source}; trained on {part.training_data}",
    )


MAX_BYTES = 1 << 20


def report_name(commit: str, *, clean: bool) -> str:
    """Return the result's file name; a tree with changes has a name of its own."""
    return f"{commit}{'' if clean else '-changed'}.json"


def write_suite_report(report: SuiteReport, folder: Path) -> Path:
    """Write the result of the tests, replacing an earlier one of the same commit.

    Raises:
        RecordWriteError: The folder cannot be written.
    """
    path = folder / report_name(report.commit, clean=report.clean)
    write_atomic(path, report.model_dump_json(indent=1).encode() + b"\n")
    return path


def find_suite_report(
    commit: str | None, folder: Path, warn: Callable[[str], None]
) -> SuiteReport | None:
    """Return the test result of a commit, else that of the commit with changes, else None.

    Args:
        commit: Commit of the framework's source; None when it is unknown.
        folder: Where runs of the tests leave their results.
        warn: Called with a sentence when a result exists but cannot be read.
    """
    for clean in (True, False):
        path = folder / report_name(commit or "", clean=clean)
        if commit is None or not path.is_file():
            continue
        try:
            with path.open("rb") as stream:
                return SuiteReport.model_validate_json(stream.read(MAX_BYTES))
        except (OSError, ValidationError):
            warn(f"{path}: not a readable result of the tests; run make test again")
    return None
