"""Conversion of image files that are no plain 8-bit PNG: what may be converted, and how.

Nothing is converted unless a setting asks for it. A lossless file of 8-bit grey or RGB keeps its pixels; every
other conversion is named in words that go on record with the image.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

Format = Literal["jpeg", "tiff", "dicom"]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Window(BaseModel):
    """A window of values that become grey levels 0 to 255, as in DICOM PS3.3 C.11.2.1.2.

    Attributes:
        centre: Middle of the window, in the file's units (after rescaling).
        width: Its width, at least 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    centre: float
    width: float

    @model_validator(mode="after")
    def _is_a_window(self) -> Self:
        if self.width < 1:
            raise ValueError(f"expected a width of at least 1, found {self.width}")
        return self


class Conversion(BaseModel):
    """What may be converted when images are read; what is not named is refused.

    Attributes:
        read: Formats that are read besides PNG: "jpeg", "tiff", "dicom".
        window: How pixels of more than 8 bits become grey levels: "refuse", "full" (the whole range
            of the stored bits), "stored" (the window in the DICOM file), or `centre` and `width`.
        palette: "expand" replaces each pixel by its colour in the palette, without loss.
        alpha: What to do with transparent pixels: "drop" ignores transparency, "black" puts the
            image on black. An opaque alpha channel is always left out.
        region: "ultrasound" cuts a DICOM image to its first two-dimensional ultrasound region;
            "whole" keeps the frame.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    read: Annotated[tuple[Format, ...], BeforeValidator(_as_tuple)] = ()
    window: Literal["refuse", "full", "stored"] | Window = "refuse"
    palette: Literal["refuse", "expand"] = "refuse"
    alpha: Literal["refuse", "drop", "black"] = "refuse"
    region: Literal["whole", "ultrasound"] = "whole"

    @property
    def is_asked(self) -> bool:
        """Whether anything may be converted."""
        return self != Conversion()

    def over(self, base: "Conversion") -> "Conversion":
        """Return these settings, with those of a base where these are the default."""
        own = self.model_dump(exclude_defaults=True)
        return Conversion.model_validate({**base.model_dump(), **own})
