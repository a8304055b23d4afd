"""Deviations of a published model from the built-in generator: name and effect of each."""

from pydantic import BaseModel, ConfigDict


class Deviations(BaseModel):
    """Switches defined by subclasses, all on unless turned off by name.

    The description of a field states the effect of the published choice; the model card lists the
    deviations that are on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def switched_on(self) -> dict[str, str]:
        """Map the name of each deviation that is on to its description."""
        return {
            name: str(field.description)
            for name, field in type(self).model_fields.items()
            if getattr(self, name)
        }
