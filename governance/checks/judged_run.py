"""A run as checks see it: its documents and the moment of judgement."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property

from governance.evidence.folder import D, RunFolder
from governance.people.rules import RunFacts
from governance.records.dataset import DatasetIdentity
from governance.records.people import Declarations
from governance.records.policy import Policy
from governance.records.run import Plan, RunIdentity


@dataclass(frozen=True)
class JudgedRun:
    """The evidence a run has left so far, and the moment at which it is judged.

    Attributes:
        folder: The run folder.
        now: Moment of judgement, with a time zone; None before there is one.
    """

    folder: RunFolder
    now: datetime | None = None

    def get(self, kind: type[D]) -> D | None:
        """Return the document of a kind; None when the run has none."""
        return self.folder.get(kind)

    def need(self, kind: type[D]) -> D:
        """Return the document of a kind; if absent, the check that asks ends as NOT_EVALUATED."""
        return self.folder.need(kind)

    @cached_property
    def policy(self) -> Policy:
        """The frozen policy; without one the check that asks ends as NOT_EVALUATED."""
        return Policy.model_validate(self.need(Plan).policy)

    @property
    def plan_sha256(self) -> str | None:
        """Digest of the frozen plan; None when none was frozen."""
        return self.folder.digests.get(Plan.PATH)

    @property
    def today(self) -> date:
        """Day of judgement (UTC); before it is set, the day on which declarations were read."""
        declarations = self.get(Declarations)
        moment = self.now or (declarations.read_utc if declarations else None)
        return moment.astimezone(UTC).date() if moment else date.max  # then all expired

    @property
    def facts(self) -> RunFacts:
        """Identity of this run; a declaration or waiver counts only if it names the same."""
        run, dataset = self.get(RunIdentity), self.get(DatasetIdentity)
        return RunFacts(
            run=run.run_id if run else None,
            config=run.config_sha256 if run else None,
            version=run.tool_version if run else None,
            data=dataset.content_sha256 if dataset else None,
            model=run.generator if run else None,
        )

    @property
    def unit(self) -> str:
        """Unit of counting and splitting: "patient" or "examination"."""
        dataset = self.get(DatasetIdentity)
        return dataset.split_unit if dataset else "patient"
