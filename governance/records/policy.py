"""The policy as data: it holds principles, a principle items, an item maybe a criterion."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from governance.records.base import ItemClass


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Criterion(_Closed):
    """Metric, operator and limit for an observed value, fixed before training starts.

    Attributes:
        metric: Quantity measured, e.g. "patients shared between partitions".
        operator: Comparison that must hold: observed OPERATOR value. "none" records only.
        value: Limit; a number or a boolean. None when the operator is "none", and when the
            configuration must set the limit and has not: such an item is never passed.
        unit: Unit of the value, e.g. "patients"; empty when it has none.
        set_by: "configuration" when the user set it, else "project default".
    """

    metric: str
    operator: Literal["==", "<=", ">=", "none"] = "none"
    value: float | int | bool | None = None
    unit: str = ""
    set_by: Literal["project default", "configuration"] = "project default"


class Item(_Closed):
    """One thing that a run must show.

    Attributes:
        id: Item id of the evidence map, e.g. "P4-01" (computed) or "P4-H1" (human).
        title: What must be shown, in a few words.
        item_class: Core, required or informative.
        kind: "computed" from the run, or "human": rests on a named person's word.
        criterion: What a computed item is compared with; None for human items.
        source: Where the evidence comes from, e.g. "partition manifest".
        when: Condition under which a human item is asked for; empty for always.
    """

    id: str = Field(pattern=r"^P(10|[1-9])-(H?\d{1,2})$")
    title: str
    item_class: ItemClass
    kind: Literal["computed", "human"]
    criterion: Criterion | None = None
    source: str = ""
    when: str = ""


class Principle(_Closed):
    """One GMLP principle.

    Attributes:
        id: "P1" to "P10", the numbers of the 2021 principles.
        title_2021: Title of FDA, Health Canada and MHRA, October 2021.
        title_n88: Title of IMDRF/AIML WG/N88 FINAL:2025.
        items: Evidence items, in the order of the evidence map.
        auditor_questions: Questions that an auditor asks here.
        ceiling: Best status a run on the built-in data sets can reach, and why; empty if open.
    """

    id: str = Field(pattern=r"^P(10|[1-9])$")
    title_2021: str
    title_n88: str
    items: tuple[Item, ...]
    auditor_questions: str = ""
    ceiling: str = ""


class GateItem(_Closed):
    """An item that the gate checks, and the exit code when it has not passed."""

    item_id: str
    exit_code: Literal[3, 4, 5, 9]


class ControlOrder(_Closed):
    """Expected place of a control: images whose metrics are known beforehand.

    Orders against another control judge the metric: one whose controls are out of order is not
    evaluated. Orders against the generator are what it must beat (P6-03).

    Attributes:
        control: Name of the control, e.g. "blur".
        metrics: First words of the metrics' ids, e.g. "kid"; "memorisation" for the flagged share.
        must_be: "worse": further from real images, intervals apart; "no better": not nearer with
            intervals apart; "at least": the value reaches a number.
        than: Another control, "generator", or the number.
    """

    control: str
    metrics: tuple[str, ...] = Field(min_length=1)
    must_be: Literal["worse", "no better", "at least"]
    than: str | float


class FidelityMinimum(_Closed):
    """How near to real images synthetic ones must be before copying and variety mean anything.

    Attributes:
        metric: First word of the metric's id.
        nearer_than: Controls that the images must be nearer than, intervals apart.
        reason: Why this is the minimum.
    """

    metric: str
    nearer_than: tuple[str, ...] = Field(min_length=1)
    reason: str


class CopyingLimits(_Closed):
    """When the search for copied parts is believed, and what C_T must not fall below.

    Attributes:
        least_recall: Share of planted altered copies that the search must find.
        most_unseen: Share of tuning images, which copy nobody, that it may flag.
        least_c_t: C_T below which synthetic images are shown to lie too near to training images.
        reason: Why these limits.
    """

    least_recall: float = Field(ge=0, le=1)
    most_unseen: float = Field(ge=0, le=1)
    least_c_t: float
    reason: str


class ExtractorRule(_Closed):
    """What P6-03 says where KID by several feature extractors leads to different verdicts.

    Attributes:
        on_disagreement: Status of P6-03 where one extractor finds the controls beaten and another
            does not; never a pass.
        reason: Why, and which extractors have a say.
    """

    on_disagreement: Literal["failed", "not evaluated"]
    reason: str


class Policy(_Closed):
    """All principles, the gate, and what controls must show.

    Attributes:
        name: Short name, e.g. "gmlp".
        version: Version of the policy text.
        principles: P1 to P10, in order.
        gate: Items whose failure stops the run or changes the exit code. The gate is configured
            apart from the statuses and can never improve one.
        controls: Expected order of the controls; empty in policies of older versions.
        fidelity_minimum: Below it, copying, membership and variety (P6-04, P6-05, P6-07) get no
            credit; None in policies of older versions.
        copying: Limits of the search for copied parts (P6-04); None in policies of older versions.
        extractors: What happens if feature extractors disagree (P6-03); None in policies of older
            versions, which knew one extractor.
    """

    name: str
    version: str
    principles: tuple[Principle, ...]
    gate: tuple[GateItem, ...]
    controls: tuple[ControlOrder, ...] = ()
    fidelity_minimum: FidelityMinimum | None = None
    copying: CopyingLimits | None = None
    extractors: ExtractorRule | None = None

    def item(self, item_id: str) -> Item:
        """Return the item with this id; KeyError when the policy has none."""
        for principle in self.principles:
            for item in principle.items:
                if item.id == item_id:
                    return item
        raise KeyError(item_id)

    @property
    def items(self) -> tuple[Item, ...]:
        """All items of all principles, in order."""
        return tuple(item for principle in self.principles for item in principle.items)
