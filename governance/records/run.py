"""Documents on the run: identity, environment, plan, hazards, outcome, integrity."""

from typing import Any, Literal

from pydantic import AwareDatetime

from governance.records.base import Document, Sha256


class RunIdentity(Document):
    """Identity of the run: id, start, tool version, configuration (run.json, written first).

    Attributes:
        run_id: UTC time and short digest; sortable.
        started_utc: Start of the run.
        tool_version: Version of medisynth-gov.
        code_commit: Commit of the framework's source; None when it is unknown.
        code_clean: Whether the tree had no uncommitted change; None when unknown.
        command: Command line, one entry an argument, each quoted for a shell; folders of absolute
            paths are left out.
        preset: Preset name.
        generator: Registered generator name, e.g. "dsr-gan".
        seed: Seed of the run.
        config_sha256: Digest of config.yaml.
        output_role: Purpose of the synthetic images; "" where the run did not say.
        code_absence: Why the commit is unknown; "" where it is known or the run did not say.
    """

    PATH = "run.json"
    ABSENCE = "the identity of the run is not on record"

    run_id: str
    started_utc: AwareDatetime
    tool_version: str
    code_commit: str | None
    code_clean: bool | None
    command: tuple[str, ...]
    preset: str
    generator: str
    seed: int
    config_sha256: Sha256
    output_role: str = ""
    code_absence: str = ""

    @property
    def why_no_commit(self) -> str:
        """Why the commit is unknown, for a run that has none on record."""
        return self.code_absence or "not run from a git checkout"


class Package(Document):
    """One installed distribution, and the version in the lock file (None: not in it)."""

    name: str
    version: str
    locked: str | None = None


class Environment(Document):
    """Machine and software of the run (environment.json).

    Attributes:
        python: Version, e.g. "3.11.7".
        platform: Operating system and architecture.
        cpu_count: Logical processors available to the process.
        memory_bytes: Physical memory; None when unknown.
        compute_device: Device trained on, e.g. "cpu".
        packages: Installed distributions, sorted by name.
        lock_file: Name of the lock file compared with; None when none was found.
        lock_differences: Installed versions that differ from the lock; empty when equal.
        renderer: SHA-256 of the code and libraries that draw card and reports; "" in runs made
            before it was recorded.
    """

    PATH = "environment.json"
    ABSENCE = "the environment is not on record"

    python: str
    platform: str
    cpu_count: int
    memory_bytes: int | None
    compute_device: str
    packages: tuple[Package, ...]
    lock_file: str | None
    lock_differences: tuple[str, ...] = ()
    renderer: str = ""


class StepTiming(Document):
    """Duration and outcome of one step."""

    step: str
    status: Literal["finished", "blocked", "failed", "interrupted", "skipped"]
    duration_s: float
    message: str = ""


class Outcome(Document):
    """Outcome of the run before evidence and report (outcome.json)."""

    PATH = "outcome.json"
    ABSENCE = "the run has not ended yet"

    status: Literal["finished", "blocked", "failed", "interrupted"]
    stopped_at: str | None
    error_code: str | None
    message: str
    steps: tuple[StepTiming, ...]
    duration_s: float


class IntegrityRecord(Document):
    """Comparison of every file, read again at the end, with its digest (integrity.json).

    Attributes:
        n_files: Files whose digest was on record from the moment of writing.
        mismatches: Files that changed or vanished since, by path.
        unregistered: Files in the run folder that no step put on record.
        journal_events: Events in the journal when it was checked.
        journal_head: Digest of the last of them.
        journal_faults: Breaks of the chain, with line numbers; empty when it verifies.
    """

    PATH = "integrity.json"
    ABSENCE = "the evidence step did not run to its end"

    n_files: int
    mismatches: tuple[str, ...]
    unregistered: tuple[str, ...]
    journal_events: int
    journal_head: Sha256
    journal_faults: tuple[str, ...]


class Plan(Document):
    """Criteria and test plan, written and hashed before the first training step (plan.json)."""

    PATH = "plan.json"
    ABSENCE = "the plan was not frozen"

    frozen_utc: AwareDatetime
    config_sha256: Sha256
    policy: dict[str, Any]
    primary_endpoint: str
    endpoints: tuple[str, ...]
    subgroups: tuple[str, ...]
    statistics: str
    multiplicity: str


class Figure(Document):
    """A picture for the report, with the caption it must carry."""

    path: str
    title: str
    caption: str


class Figures(Document):
    """The pictures of the run, in the order of the report (figures/figures.json)."""

    PATH = "figures/figures.json"
    ABSENCE = "no figures were drawn"

    figures: tuple[Figure, ...]


class Hazard(Document):
    """One thing that could go wrong.

    Attributes:
        id: Id in the list, e.g. "HZ-01".
        hazard: What could go wrong.
        harm: What harm it could do; "" where nobody said.
        items: Ids of the items that cover it.
        set_by: "configuration" when the user added it, else "project default".
    """

    id: str
    hazard: str
    harm: str = ""
    items: tuple[str, ...]
    set_by: Literal["project default", "configuration"] = "project default"


class Hazards(Document):
    """The list of hazards, fixed before training (hazards.json)."""

    PATH = "hazards.json"
    ABSENCE = "the list of hazards is not on record"

    hazards: tuple[Hazard, ...]
