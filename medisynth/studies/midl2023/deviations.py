"""Deviations of a published model from the built-in generator: what each is called and did."""

from pydantic import BaseModel, ConfigDict


class Deviations(BaseModel):
    """Switches, all on unless they are turned off by name; subclasses name them.

    The description of a field says what the published choice did; the model card lists those that
    are on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def switched_on(self) -> dict[str, str]:
        """Name to what it did, of those that are on."""
        return {
            name: str(field.description)
            for name, field in type(self).model_fields.items()
            if getattr(self, name)
        }
