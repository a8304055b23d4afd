"""Recipes of published models: what each deviation from the corrected recipe is called and did."""

from pydantic import BaseModel, ConfigDict


class Deviations(BaseModel):
    """Deviations from the corrected recipe, each on or off by name; subclasses name them.

    The description of a field says what the published choice did; the model card lists those that
    are on. Recipe "published" turns all on, "corrected" all off; one that is named keeps its value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def switched_on(self) -> dict[str, str]:
        """Name to what it did, of those that are on."""
        return {
            name: str(field.description)
            for name, field in type(self).model_fields.items()
            if getattr(self, name)
        }
