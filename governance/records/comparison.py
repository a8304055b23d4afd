"""The generator beside simple controls: distances to real images, and a sentence about them."""

from governance.records.base import Document

MUST_BEAT = ("pca", "blur")  # useful images are closer to real ones than these


class Control(Document):
    """The metric's value for a simple control, to compare a generator's value with.

    `ci95` is the interval by patient bootstrap, as for the generator's own value; None without one.
    """

    name: str  # "black", "noise", "copycat" …
    metric_id: str
    value: float
    meaning: str
    ci95: tuple[float, float] | None = None


class TuningComparison(Document):
    """KID of the released checkpoint's images and of simple controls, to tuning images.

    Attributes:
        metric_id: Metric computed, e.g. "kid-inception_pool3-d2048-n96".
        value: KID of the synthetic images; None where nothing was compared.
        ci95: Its interval by patient bootstrap; None without one.
        controls: The same of each control, at as many images.
        n_real: Tuning images; n_patients: patients behind them; n_images: images of each other set.
        reason: Why nothing was compared; "" where it was.
    """

    metric_id: str = ""
    value: float | None = None
    ci95: tuple[float, float] | None = None
    controls: tuple[Control, ...] = ()
    n_real: int = 0
    n_patients: int = 0
    n_images: int = 0
    reason: str = ""

    @property
    def not_beaten(self) -> tuple[str, ...]:
        """Controls at least as close to real images as the synthetic images are."""
        return () if self.value is None else not_beaten(self.value, self.controls)

    @property
    def sentence(self) -> str:
        """Summarise the comparison for console, report and card; "" where nothing was compared."""
        if self.value is None or not self.controls:
            return ""
        numbers = ", ".join(
            f"{control.name} {control.value:.3f}{_overlap(self.ci95, control.ci95)}"
            for control in self.controls
        )
        names = self.not_beaten
        if len(names) == 1 < len(self.controls):
            said = f"no better than the simple control {names[0]}"
        else:
            said = f"{'no ' if names else ''}better than simple controls"
        return f"The images are {said} on the tuning images: KID {self.value:.3f}, {numbers}."


def not_beaten(value: float, controls: tuple[Control, ...]) -> tuple[str, ...]:
    """Return the controls whose distance to real images is no larger than a generator's.

    Args:
        value: The generator's distance; lower is closer.
        controls: The same distance of each control; equal counts as not beaten.
    """
    return tuple(control.name for control in controls if not value < control.value)


def _overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> str:
    return " (intervals overlap)" if overlap(one, other) else ""


def overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    """Whether two intervals are known and share a value."""
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]
