"""Simple control images: whether they are in the expected order, and whether the generator is better."""

from collections.abc import Iterable, Sequence

from governance.records.base import Document
from governance.records.policy import ControlOrder

MUST_BEAT = ("pca", "blur")  # useful images are closer to real ones than these


class Control(Document):
    """The metric's value for a simple control, to compare a generator's value with.

    `ci95` is the 95 % interval, as for the generator's own value; None without one. `n_images`:
    images of the control; 0 in older runs.
    """

    name: str  # "black", "noise", "copycat" …
    metric_id: str
    value: float
    meaning: str
    ci95: tuple[float, float] | None = None
    n_images: int = 0

    @property
    def metric(self) -> str:
        """First word of the metric's id, e.g. "kid"."""
        return self.metric_id.partition("-")[0]


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


GENERATOR = "generator"
_HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage")


class ControlVerdict(Document):
    """Whether a control stands where the policy expects it, in one metric.

    Attributes:
        control: Name of the control.
        metric: First word of the metric's id.
        holds: None where an interval is missing that would have to lie apart.
        words: The expected order and the numbers.
    """

    control: str
    metric: str
    holds: bool | None
    words: str


def control_verdicts(
    controls: Sequence[Control], orders: Iterable[ControlOrder]
) -> tuple[ControlVerdict, ...]:
    """Judge the metrics by their own controls: every order that names no generator.

    An order whose control, or the control it is compared with, was not measured gives no verdict.
    """
    known = {(control.name, control.metric): control for control in controls}
    found = []
    for order in orders:
        for metric in order.metrics if order.than != GENERATOR else ():
            control = known.get((order.control, metric))
            other = known.get((str(order.than), metric))
            if control is None or (order.must_be != "at least" and other is None):
                continue
            found.append(
                ControlVerdict(
                    control=order.control,
                    metric=metric,
                    holds=_holds(order, control, other),
                    words=_words(order, control, other),
                )
            )
    return tuple(found)


def misbehaving(metric: str, verdicts: Iterable[ControlVerdict]) -> str:
    """Return which controls of a metric are out of order, with numbers; "" when none is.

    Args:
        metric: First word of the metric's id; a ratio of Fréchet distances goes by these.
        verdicts: Of all metrics.
    """
    family = "fid" if metric == "fd_ratio" else metric
    broken = [v.words for v in verdicts if v.metric == family and v.holds is False]
    return f"its own controls misbehave: {'; '.join(broken)}" if broken else ""


def to_beat(orders: Iterable[ControlOrder], metric: str) -> tuple[str, ...]:
    """Return the controls that a generator must beat with intervals apart; () for old policies."""
    return tuple(o.control for o in orders if o.than == GENERATOR and metric in o.metrics)


def _holds(order: ControlOrder, control: Control, other: Control | None) -> bool | None:
    if other is None:
        return control.value >= float(order.than)
    higher = control.metric in _HIGHER_IS_BETTER
    loss = other.value - control.value if higher else control.value - other.value
    if None in (control.ci95, other.ci95):
        # Far apart or not: without intervals only the wrong order is known.
        return (None if loss > 0 else False) if order.must_be == "worse" else None
    apart = not overlap(control.ci95, other.ci95)
    return (loss > 0 and apart) if order.must_be == "worse" else not (loss < 0 and apart)


def _words(order: ControlOrder, control: Control, other: Control | None) -> str:
    here = f"{control.name} {_estimate(control)}"
    if other is None:
        return f"{here} must be at least {order.than:g}"
    than = f"{other.name} {_estimate(other)}"
    apart = ", intervals apart" if order.must_be == "worse" else ""
    return f"{here} must be {order.must_be} than {than}{apart}"


def _estimate(control: Control) -> str:
    if control.ci95 is None:
        return f"{control.value:.3g}"
    return f"{control.value:.3g} [{control.ci95[0]:.3g} to {control.ci95[1]:.3g}]"
