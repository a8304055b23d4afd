"""The part of the configuration that says which run this one follows, and why."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

_CHANGE = re.compile(r"(config|data|code): \S.*")


class LineageConfig(BaseModel):
    """Which run this one follows, and why; nothing here changes what is learnt.

    Attributes:
        parent: "auto" is the latest finished run of the same model and data set in the workspace,
            "none" says that no run came before, anything else is the id of a run of the workspace.
        reason: Why the model is trained again, in words; a first run needs none.
        change_plan: What may change against the parent, as patterns of names, e.g. "config: seed",
            "config: training.*", "data: *"; empty for no plan.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    parent: str = Field(default="auto", min_length=1)
    reason: str = Field(default="", max_length=1_000)
    change_plan: tuple[str, ...] = ()

    @field_validator("change_plan", mode="before")
    @classmethod
    def _a_list_is_a_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("change_plan")
    @classmethod
    def _patterns_name_a_kind(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _CHANGE.fullmatch(text):
                raise ValueError(
                    f"expected 'config: NAME', 'data: NAME' or 'code: NAME', where * stands for "
                    f"anything, found {text[:80]!a}"
                )
        return value
