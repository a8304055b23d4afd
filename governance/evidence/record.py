"""The result of a check, and the immutable record that it becomes."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

from governance.policies.model import Criterion
from governance.statuses import ItemClass, ItemStatus

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Observed(_Closed):
    """What was measured.

    Attributes:
        value: The number, truth value or short text that the criterion is compared with.
        unit: Unit of the value; empty when it has none.
        ci95: Two-sided 95 % interval, (low, high), by patient; None when there is none.
        n_patients: Patients behind the value.
        n_images: Images behind the value.
        partition: Partition measured on, e.g. "held-out test set".
    """

    value: float | int | bool | str | None
    unit: str = ""
    ci95: tuple[float, float] | None = None
    n_patients: int | None = None
    n_images: int | None = None
    partition: str | None = None


class CheckResult(_Closed):
    """What a check says about one item.

    Attributes:
        status: PASSED, FAILED, RECORDED or NOT_EVALUATED.
        observed: What was measured; None when nothing was.
        reason: Why the status is what it is, one sentence. Required for NOT_EVALUATED.
        method: How it was measured, one sentence.
        artifact: Path in the run folder of the evidence behind it; None when there is none.
        limitations: What the result does not show; empty when nothing is to be said.
    """

    status: ItemStatus
    observed: Observed | None = None
    reason: str = ""
    method: str = ""
    artifact: str | None = None
    limitations: str = ""


class Artifact(_Closed):
    """A file of the run folder and its digest."""

    path: str
    sha256: Sha256


class FrozenCriterion(Criterion):
    """A criterion with the moment and the digest of the plan that froze it."""

    frozen_at: AwareDatetime
    frozen_sha256: Sha256


class ItemRecord(_Closed):
    """One immutable record that supports one item of the policy.

    Attributes:
        id: Item id, e.g. "P4-01".
        title: Item title.
        principle: Principle id, e.g. "P4".
        item_class: Core, required or informative.
        kind: "computed" or "human".
        status: How the item stands.
        criterion: Frozen criterion; None for human items or when the plan was never frozen.
        observed: What was measured; None when nothing was.
        method: How it was measured.
        artifact: Evidence behind it.
        reason: Why the status is what it is.
        limitations: What the result does not show.
        time_utc: Time of writing.
    """

    id: str
    title: str
    principle: str
    item_class: ItemClass
    kind: str
    status: ItemStatus
    criterion: FrozenCriterion | None = None
    observed: Observed | None = None
    method: str = ""
    artifact: Artifact | None = None
    reason: str = ""
    limitations: str = ""
    time_utc: AwareDatetime
