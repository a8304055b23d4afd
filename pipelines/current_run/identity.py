"""Identity, environment, plan and hazards of a run: its code, its machine, its criteria."""

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageMetadata, distributions, version
from pathlib import Path

from governance.policy.hazards import list_hazards
from governance.records.errors import first_line
from governance.records.policy import Policy
from governance.records.run import Environment, Hazard, Hazards, Package, Plan, RunIdentity
from pipelines.config.model import RunConfig

DISTRIBUTION = "medisynth-gov"
_SOURCE = Path(__file__).resolve().parents[2]
TEST_REPORTS = _SOURCE / ".test-report"
"""Folder where scripts/check leaves the result of the tests."""


def tool_version() -> str:
    """Return the version of the installed distribution."""
    return version(DISTRIBUTION)


def new_run_id(config_yaml: bytes) -> str:
    """Return UTC time and a short digest as id: sortable, and unique on one machine."""
    now = datetime.now(UTC)
    material = config_yaml + f"{time.time_ns()} {os.getpid()}".encode()
    return f"{now:%Y%m%dT%H%M%SZ}-{hashlib.sha256(material).hexdigest()[:8]}"


def code_identity() -> tuple[str | None, bool | None]:
    """Return the source's commit and whether its tree is clean; (None, None) if unknown."""
    return _code_identity()[:2]


def code_absence() -> str:
    """Return why the commit is unknown, and what to do; "" where it is known."""
    return _code_identity()[2]


def _code_identity() -> tuple[str | None, bool | None, str]:
    """Return commit, cleanness, and the reason where both are unknown."""
    git = shutil.which("git")
    if not (_SOURCE / ".git").exists():
        return None, None, "not run from a git checkout"
    if git is None:
        return None, None, "git is not installed here"
    try:
        commit = _git(git, "rev-parse", "HEAD").strip()
        changes = _git(git, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        if "dubious ownership" in str(said):
            words = "it belongs to another user; git config --global --add safe.directory"
            return None, None, f"git refuses this checkout: {words} {shlex.quote(str(_SOURCE))}"
        return None, None, f"git cannot read this checkout: {first_line(said)}"
    return commit, not changes.strip(), ""


def _git(git: str, *arguments: str) -> str:
    command = [git, "-C", str(_SOURCE), *arguments]
    return subprocess.run(  # noqa: S603 - fixed arguments
        command, capture_output=True, text=True, check=True, timeout=20
    ).stdout


_LONGEST_WORD = 80


def recorded_command(words: Sequence[str]) -> tuple[str, ...]:
    """Return a command line as it goes on record and into reports: each word quoted for a shell.

    The folders of absolute paths are left out: they say where somebody's home is, not which run
    this was; the configuration on record names every file. Long words are cut, and bytes that are
    no text are written out.
    """
    program = [Path(word).name for word in words[:1]]
    return tuple(shlex.quote(_short(word)) for word in (*program, *words[1:]))


def _short(word: str) -> str:
    key, equals, value = word.rpartition("=")
    if value.startswith(("/", "~")) and "/" in value.rstrip("/")[1:]:
        value = f"…/{value.rstrip('/').rpartition('/')[2]}"
    text = f"{key}{equals}{value}".encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST_WORD else f"{text[:_LONGEST_WORD]}…"


def run_identity(
    run_id: str, config: RunConfig, config_yaml: bytes, command: list[str]
) -> RunIdentity:
    """Return the run's identity: start, code, command, generator, seed and configuration digest."""
    commit, clean, absence = _code_identity()
    return RunIdentity(
        run_id=run_id,
        started_utc=datetime.now(UTC),
        tool_version=tool_version(),
        code_commit=commit,
        code_clean=clean,
        code_absence=absence,
        command=recorded_command(command),
        preset=config.preset,
        generator=config.model.name,
        seed=config.seed,
        config_sha256=hashlib.sha256(config_yaml).hexdigest(),
        output_role=config.output_role,
    )


def installed_packages() -> dict[str, PackageMetadata]:
    """Return package metadata by normalised name, sorted; of two versions the importable one."""
    found: dict[str, PackageMetadata] = {}
    for metadata in (dist.metadata for dist in distributions()):  # parsed at each access
        if metadata and metadata["Name"] and metadata["Version"]:
            found.setdefault(normal_name(metadata["Name"]), metadata)
    return dict(sorted(found.items()))


def environment(
    compute_device: str, packages: Mapping[str, PackageMetadata], renderer: str = ""
) -> Environment:
    """Describe machine and packages; compare versions with the lock file if there is one.

    Args:
        compute_device: Device trained on.
        packages: Installed packages.
        renderer: Digest of what draws card and reports.
    """
    lock_file = _SOURCE / "constraints.txt"
    locked = _read_lock(lock_file) if lock_file.is_file() else {}
    installed = {name: metadata["Version"] for name, metadata in packages.items()}
    differences = tuple(
        f"{name}: installed {installed.get(name, 'not at all')}, locked {wanted}"
        for name, wanted in sorted(locked.items())
        if installed.get(name, "").split("+")[0] != wanted
    )
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        cpu_count=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        compute_device=compute_device,
        packages=tuple(
            Package(name=name, version=found, locked=locked.get(name))
            for name, found in installed.items()
        ),
        lock_file=lock_file.name if locked else None,
        lock_differences=differences if locked else (),
        renderer=renderer,
    )


def _read_lock(path: Path) -> dict[str, str]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", path.read_text("utf-8"), re.MULTILINE)
    return {normal_name(name): wanted for name, wanted in pins}


def normal_name(name: str) -> str:
    """Return a distribution's name in the form that package indexes compare."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def test_plan(config: RunConfig, config_sha256: str, policy: Policy) -> Plan:
    """Return the criteria and test plan, which are frozen before any image is read."""
    return Plan(
        frozen_utc=datetime.now(UTC),
        config_sha256=config_sha256,
        policy=policy.model_dump(mode="json"),
        primary_endpoint="KID on Inception pool3 features, synthetic images against the "
        "held-out test set, with a 95 % interval by patient bootstrap",
        endpoints=(
            "FID on Inception pool3 features, with the real-against-real floor at the same n",
            "precision, recall, density and coverage, k = 5",
            "share of synthetic images nearer to a training image than the 1st percentile of "
            "real tuning images",
        ),
        subgroups=(
            *("plane", "brain plane", "machine", "operator", "site"),
            "each attribute that the data contract declares",
            f"levels with fewer than {config.evaluation.least_patients} patients are too few",
        ),
        statistics=f"two-sided 95 % percentile intervals, {config.evaluation.n_bootstrap} "
        "resamples of patients; exact intervals for shares, at the effective number of images by "
        "patient (Korn-Graubard); one-sided 95 % bounds by the rule of three for shares of 0 and 1",
        multiplicity="one primary endpoint; gaps between levels adjusted by Holm over all pairs of "
        "levels; all others are descriptive",
    )


def hazard_list(config: RunConfig) -> Hazards:
    """Return the project's and the configuration's hazards with the items that check them."""
    return Hazards(
        hazards=tuple(
            Hazard(
                id=one.id,
                hazard=one.hazard,
                harm=one.harm,
                items=one.items,
                set_by="project default" if one.is_default else "configuration",
            )
            for one in list_hazards(config.hazards)
        )
    )
