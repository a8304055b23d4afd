"""The shape of a declarations file, read strictly; the editors' JSON Schema is made from it."""

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from governance.people.rules import is_placeholder
from governance.records.people import DeclaredScope, OutputRole
from governance.records.policy import Policy

_LONG, _SHORT = 4_000, 300
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _empty(value: Any) -> Any:
    """Read a key without a value as empty text, which makes the item MISSING."""
    return "" if value is None else value


def _day(value: Any) -> Any:
    if value is None or (isinstance(value, str) and is_placeholder(value)):
        return None
    if isinstance(value, str):
        try:
            return date.fromisoformat(value.strip())
        except ValueError as error:
            raise ValueError("expected a day as YYYY-MM-DD") from error
    if isinstance(value, datetime) or not isinstance(value, date):
        raise ValueError("expected a day as YYYY-MM-DD, without a time")
    return value


def _list(value: Any) -> Any:
    return [] if value is None else value


def _section(value: Any) -> Any:
    return {} if value is None else value


def _digest_or_placeholder(value: Any) -> Any:
    if isinstance(value, str) and not is_placeholder(value) and not _DIGEST.fullmatch(value):
        raise ValueError("expected 64 lowercase hexadecimal digits")
    return _empty(value)


_ShortText = Annotated[str, BeforeValidator(_empty), Field(max_length=_SHORT)]
_LongText = Annotated[str, BeforeValidator(_empty), Field(max_length=_LONG)]
_Day = Annotated[date | None, BeforeValidator(_day)]
_DigestText = Annotated[str, BeforeValidator(_digest_or_placeholder)]
_Names = Literal["any"] | list[Annotated[str, Field(min_length=1, max_length=_SHORT)]]
_Meaning = Annotated[Literal["author", "reviewer", "approver", ""], BeforeValidator(_empty)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AppliesToEntry(_Closed):
    """Which runs an entry is about: everything named must be the run's."""

    run: _ShortText = ""
    config: _DigestText = ""
    version: _ShortText = ""
    data: _DigestText = ""
    model: _ShortText = ""


class SizeRangeEntry(_Closed):
    """Smallest and largest side of the synthetic images, in pixels."""

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class ScopeEntry(_Closed):
    """What the intended use is declared for; a run is compared with it."""

    planes: _Names
    machines: _Names
    image_size_px: SizeRangeEntry
    output_roles: list[OutputRole] = Field(min_length=1)

    def document(self) -> DeclaredScope:
        """Return the scope in the form that a run records."""
        fields = self.model_dump()
        size = fields.pop("image_size_px")
        return DeclaredScope.model_validate(fields | {"image_size_px": (size["min"], size["max"])})


_AppliesTo = Annotated[AppliesToEntry, BeforeValidator(_section)]


class DeclarationEntry(_Closed):
    """What one person says about one human item."""

    id: str
    statement: _LongText
    owner_name: _ShortText
    owner_role: _ShortText
    date: _Day
    reference: _ShortText
    applies_to: _AppliesTo
    meaning: _Meaning
    expires: _Day
    not_applicable: bool = False
    reference_sha256: _DigestText = ""
    signature: _ShortText = ""
    key_file: _ShortText = ""
    card: Annotated[dict[str, _LongText], BeforeValidator(_section)] = Field(default_factory=dict)
    scope: ScopeEntry | None = None


class WaiverEntry(_Closed):
    """A person accepts that one computed item has not passed."""

    id: str
    author: _ShortText
    reason: _LongText
    expires: _Day
    applies_to: _AppliesTo
    signature: _ShortText = ""
    key_file: _ShortText = ""


class DeclarationsFile(_Closed):
    """The whole file."""

    declarations: Annotated[list[DeclarationEntry], BeforeValidator(_list)] = []
    waivers: Annotated[list[WaiverEntry], BeforeValidator(_list)] = []


def json_schema(policy: Policy, card_fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the JSON Schema of the file, for editors.

    Args:
        policy: Policy whose human items may be declared.
        card_fields: Fields of the model card that people may fill.
    """
    schema = DeclarationsFile.model_json_schema()
    entry = schema["$defs"]["DeclarationEntry"]["properties"]
    entry["id"] |= {
        "oneOf": [
            {"const": item.id, "title": item.title} for item in policy.items if item.kind == "human"
        ]
    }
    entry["card"]["propertyNames"] = {"enum": list(card_fields)}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Declarations and waivers of a medisynth-gov run",
    }
    return head | {key: value for key, value in schema.items() if key != "title"}
