"""A fetal head in its own frame: skull, midline and the structures of three brain planes.

Axes of the head frame, in mm: u runs from occiput to forehead, v from the hemisphere near the probe to
the far one; the origin is the centre of the skull. Amplitudes are linear, 1 is mean maternal
tissue. Two maps are drawn: `diffuse` (speckle amplitude) and `specular` (smooth reflectors that
lie along u, brightest when the beam comes along v).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Harmonics = NDArray[np.complex128]
Samples = TypeVar("Samples", Array, Harmonics)
Window = tuple[slice, slice]

_YOUNGEST_WEEKS = 18.0
_STEP_MM = 0.45  # raster of the head frame; finer than any point spread used


@dataclass(frozen=True)
class Anatomy:
    """One patient's head.

    Attributes:
        bpd_mm: Biparietal diameter, outer to outer.
        ofd_mm: Occipitofrontal diameter, outer to outer.
        skull_mm: Thickness of the skull echo.
        egg: Widening towards the occiput, as a fraction of the width.
        outline: Harmonics 0 to 6 of the outline's departure from an ellipse, complex.
        skull_db: Harmonics 0 to 8 of the skull's level, complex.
        sutures: Directions in which the skull echo is interrupted, complex of length 1.
        csp: Cavum septi pellucidi: centre u, half length, half width as fractions of the half axes.
        thalamus: Centre u, half length, half width, as fractions.
        cerebellum: Centre u, half length, half width, as fractions.
        ventricle: Centre v, half width of the atrium, as fractions; length scale.
        brain_db: Level of the brain.
        fluid_mm: Mean width of amniotic fluid beside the head; may be negative (none).
        sulci: Centre u, centre v, half length (fractions), slope, bend, amplitude; shape (n, 6).
        warp: Four waves that bend the frame: size mm, direction, wave mm, phase; shape (4, 4).
    """

    bpd_mm: float
    ofd_mm: float
    skull_mm: float
    egg: float
    outline: Harmonics
    skull_db: Harmonics
    sutures: Harmonics
    csp: tuple[float, float, float]
    thalamus: tuple[float, float, float]
    cerebellum: tuple[float, float, float]
    ventricle: tuple[float, float, float]
    brain_db: float
    fluid_mm: float
    sulci: Array
    warp: Array


def mean_head_circumference_mm(weeks: float) -> float:
    """Mean fetal head circumference at a gestational age of 14 to 42 weeks, in mm.

    In centimetres -11.48 + 1.56 w - 0.0002548 w**3.

    Source:
        Hadlock et al. 1984, Radiology 152:497-501 (361 fetuses).
    """
    return 10 * (-11.48 + 1.56 * weeks - 0.0002548 * weeks**3)


def draw_anatomy(weeks: float, rng: np.random.Generator) -> Anatomy:
    """Draw one head of a gestational age, which decides its size and how far it has folded.

    Args:
        weeks: Gestational age, 18 to 39 weeks.
        rng: Randomness of this patient: heads of one age differ by 4 % in size.
    """
    maturity = min(max((weeks - _YOUNGEST_WEEKS) / 21, 0.0), 1.0)
    spread = float(np.clip(rng.normal(0, 0.04), -0.09, 0.09))
    circumference_mm = mean_head_circumference_mm(weeks) * (1 + spread)
    cephalic_index = float(rng.uniform(0.74, 0.84))  # width by length
    # The circumference of such an oval is pi / 2 times the sum of both diameters, within 1 %.
    bpd_mm = 2 * circumference_mm / np.pi * cephalic_index / (1 + cephalic_index)
    n_sulci = int(rng.integers(10, 16) + 17 * maturity)
    side = np.where(rng.random(n_sulci) < 0.5, -1.0, 1.0)
    sulci = np.column_stack(
        [
            rng.uniform(-0.72, 0.72, n_sulci),
            side * rng.uniform(0.12, 0.72, n_sulci),
            rng.uniform(0.04, 0.16, n_sulci),
            rng.normal(0, 0.25, n_sulci),
            rng.normal(0, 0.25, n_sulci),
            rng.uniform(0.25, 1.0, n_sulci) * (0.8 + 0.4 * maturity),
        ]
    )
    return Anatomy(
        bpd_mm=bpd_mm,
        ofd_mm=bpd_mm / cephalic_index,
        skull_mm=1.5 + bpd_mm / 60 + float(rng.uniform(-0.3, 0.5)),
        egg=float(rng.uniform(0.02, 0.14)),
        outline=_harmonics([0, 0, 0.004, 0.012, 0.008, 0.004, 0.003], rng),
        skull_db=_harmonics([0, 1.0, 1.5, 1.5, 1.2, 1.2, 1.0, 0.8, 0.8], rng),
        sutures=np.exp(1j * rng.uniform(-np.pi, np.pi, 4)),
        csp=(rng.uniform(0.36, 0.46), rng.uniform(0.09, 0.15), rng.uniform(0.06, 0.11)),
        thalamus=(rng.uniform(-0.06, 0.04), rng.uniform(0.17, 0.23), rng.uniform(0.15, 0.21)),
        cerebellum=(rng.uniform(-0.60, -0.54), rng.uniform(0.13, 0.18), rng.uniform(0.22, 0.29)),
        ventricle=(
            rng.uniform(0.30, 0.38),
            rng.uniform(0.08, 0.14) * (1.2 - 0.4 * maturity),  # their width in mm hardly grows
            rng.uniform(0.85, 1.15),
        ),
        brain_db=float(rng.uniform(-25, -16)),
        fluid_mm=float(rng.uniform(-6, 9)),
        sulci=sulci,
        warp=np.column_stack(
            [
                rng.uniform(0.2, 0.8, 4),
                rng.uniform(0, np.pi, 4),
                rng.uniform(2.5, 6, 4),
                rng.uniform(0, 2 * np.pi, 4),
            ]
        ),
    )


class HeadMap:
    """Raster of the brain in the head frame.

    Attributes:
        half_u: Half length of the skull, mm.
        half_v: Half width of the skull, mm.
        u: Coordinates, mm, shape (1, n_u).
        v: Coordinates, mm, shape (n_v, 1).
        diffuse: Speckle amplitude, shape (n_v, n_u).
        specular: Amplitude of smooth reflectors, shape (n_v, n_u).
    """

    def __init__(self, half_u: float, half_v: float, level: float) -> None:
        self.half_u, self.half_v = half_u, half_v
        n_u, n_v = (int(np.ceil(half / _STEP_MM)) for half in (half_u, half_v))
        self.u = np.arange(-n_u, n_u + 1)[None, :] * _STEP_MM
        self.v = np.arange(-n_v, n_v + 1)[:, None] * _STEP_MM
        self.diffuse: Array = np.full((2 * n_v + 1, 2 * n_u + 1), level)
        self.specular: Array = np.zeros_like(self.diffuse)

    def index_of(self, u: Array, v: Array) -> tuple[Array, Array]:
        """Fractional row and column of points given in mm."""
        return (v - self.v[0, 0]) / _STEP_MM, (u - self.u[0, 0]) / _STEP_MM

    def ellipse(
        self,
        centre: tuple[float, float],
        half: tuple[float, float],
        *,
        level: float | None = None,
        rim: float = 0.0,
        turn: float = 0.0,
    ) -> None:
        """Draw an oval: fill it with `level` and give it a smooth wall of amplitude `rim`.

        Args:
            centre: u and v as fractions of the half axes.
            half: Half length and half width as fractions of the half axes.
            level: Speckle amplitude inside; None leaves the inside alone.
            rim: Amplitude of the wall.
            turn: Rotation in radians, from u towards v.
        """
        cu, cv = centre[0] * self.half_u, centre[1] * self.half_v
        hu, hv = half[0] * self.half_u, half[1] * self.half_v
        window = self._window(cu, cv, max(hu, hv) + 3)
        du, dv = self.u[:, window[1]] - cu, self.v[window[0]] - cv
        cos, sin = np.cos(turn), np.sin(turn)
        s, t = (du * cos + dv * sin) / hu, (dv * cos - du * sin) / hv
        rho = np.sqrt(s * s + t * t) + 1e-9
        # First-order distance to the wall, mm; its gradient also gives the wall's direction.
        gradient = np.sqrt((s / hu) ** 2 + (t / hv) ** 2) / rho + 1e-9
        distance = (rho - 1) / gradient
        if level is not None:
            cover = np.clip(0.5 - distance / 0.9, 0, 1)
            self.diffuse[window] += cover * (level - self.diffuse[window])
            self.specular[window] *= 1 - cover
        if rim > 0:
            across = np.abs(t / hv) / (rho * gradient)
            wall = rim * np.exp(-((distance / 0.55) ** 2)) * (0.25 + 0.75 * across)
            np.maximum(self.specular[window], wall, out=self.specular[window])

    def stroke(
        self,
        centre: tuple[float, float],
        half_length: float,
        *,
        amplitude: float,
        slope: float = 0.0,
        bend: float = 0.0,
        width_mm: float = 0.6,
    ) -> None:
        """Draw a thin smooth reflector that runs along u.

        Args:
            centre: u and v as fractions of the half axes.
            half_length: Half length as a fraction of the long half axis.
            amplitude: Peak amplitude.
            slope: dv/du.
            bend: Rise of the ends in units of the half length.
            width_mm: Half width.
        """
        cu, cv = centre[0] * self.half_u, centre[1] * self.half_v
        length = half_length * self.half_u
        window = self._window(cu, cv, length * (1.3 + abs(slope) + abs(bend)) + 2)
        along = (self.u[:, window[1]] - cu) / length
        offset = self.v[window[0]] - cv - length * (slope * along + bend * along * along)
        ends = np.clip((1.15 - np.abs(along)) / 0.3, 0, 1)
        line = amplitude * ends * np.exp(-((offset / width_mm) ** 2))
        np.maximum(self.specular[window], line, out=self.specular[window])

    def _window(self, cu: float, cv: float, reach: float) -> Window:
        (row,), (column,) = (axis.ravel() for axis in self.index_of(np.array([cu]), np.array([cv])))
        n = int(reach / _STEP_MM) + 2
        return (
            slice(max(0, int(row) - n), max(0, int(row) + n + 1)),
            slice(max(0, int(column) - n), max(0, int(column) + n + 1)),
        )


def draw_head(anatomy: Anatomy, plane: str, rng: np.random.Generator) -> HeadMap:
    """Draw the brain of one image; `rng` decides how well the plane was hit.

    Args:
        anatomy: The patient's head.
        plane: One of `BRAIN_PLANES`.
        rng: Randomness of this image: structures shift a little, some are faint.

    Returns:
        The map; the skull is not in it, since its echo depends on the beam.
    """
    head = HeadMap(anatomy.ofd_mm / 2, anatomy.bpd_mm / 2, decibel(anatomy.brain_db))
    shift = float(rng.normal(0, 0.02))
    clarity = float(rng.uniform(0.6, 1.15))
    _rim_and_insula(head, clarity, rng)
    for u, v, half, slope, bend, amplitude in anatomy.sulci:
        seen = float(rng.uniform(0.25, 1.2))
        head.stroke((u + shift, v), half, amplitude=1.5 * amplitude * seen, slope=slope, bend=bend)
    if plane == "Trans-ventricular":
        _ventricles(head, anatomy, shift, clarity)
    else:
        _thalami(head, anatomy, shift, clarity)
    if plane == "Trans-cerebellum":
        _cerebellum(head, anatomy, shift, clarity)
    _midline(head, anatomy, plane, shift, clarity, rng)
    _roughen(head, rng)
    return head


def sample_raster(raster: Samples, rows: Array, columns: Array) -> Samples:
    """Bilinear values at fractional rows and columns; the edge value beyond the edge."""
    n_rows, n_columns = raster.shape
    rows, columns = np.clip(rows, 0, n_rows - 1.001), np.clip(columns, 0, n_columns - 1.001)
    low_row, low_column = rows.astype(np.intp), columns.astype(np.intp)
    down, across = rows - low_row, columns - low_column
    at, flat = low_row * n_columns + low_column, raster.ravel()
    upper = flat[at] + across * (flat[at + 1] - flat[at])
    at += n_columns
    lower = flat[at] + across * (flat[at + 1] - flat[at])
    value: Samples = upper + down * (lower - upper)
    return value


def decibel(level_db: float) -> float:
    """Linear amplitude of a level in dB."""
    return float(10 ** (level_db / 20))


def _harmonics(spread: list[float], rng: np.random.Generator) -> Harmonics:
    size = np.array(spread)
    return size * (rng.standard_normal(size.size) + 1j * rng.standard_normal(size.size))


def _roughen(head: HeadMap, rng: np.random.Generator) -> None:
    """Break the lines up and make the tissue uneven: no structure is seen whole."""
    from scipy.ndimage import gaussian_filter

    for layer, size_mm, spread in (
        (head.diffuse, (1.1, 2.4), 0.45),
        (head.specular, (1.0, 2.0), 0.75),
    ):
        noise = gaussian_filter(
            rng.standard_normal(layer.shape), [mm / _STEP_MM for mm in size_mm], truncate=3
        )
        noise *= 2 * np.sqrt(np.pi * size_mm[0] * size_mm[1]) / _STEP_MM  # unit variance
        layer *= np.exp(spread * noise)


def _rim_and_insula(head: HeadMap, clarity: float, rng: np.random.Generator) -> None:
    for side in (-1, 1):
        v = side * float(rng.uniform(0.52, 0.60))
        bright = clarity * (1.5 if side > 0 else 0.7)
        head.stroke((0.02, v), 0.26, amplitude=bright, bend=-0.22 * side)
        head.stroke((0.10, v * 1.22), 0.14, amplitude=0.6 * bright, bend=-0.15 * side)


def _thalami(head: HeadMap, anatomy: Anatomy, shift: float, clarity: float) -> None:
    u, length, width = anatomy.thalamus
    dark = decibel(anatomy.brain_db - 6)
    for side in (-1, 1):
        centre = (u + shift, side * (width + 0.03))
        head.ellipse(centre, (length, width), level=dark, rim=0.7 * clarity, turn=0.35 * side)
        # Ambient cistern and hippocampal gyrus: a bright arc behind each thalamus.
        behind = (u + shift - length - 0.06, side * (width + 0.10))
        head.stroke(behind, 0.10, amplitude=1.4 * clarity, slope=-0.6 * side, bend=0.3 * side)
    head.ellipse((u + shift, 0), (0.8 * length, 0.012), level=decibel(-30), rim=1.0 * clarity)


def _cerebellum(head: HeadMap, anatomy: Anatomy, shift: float, clarity: float) -> None:
    u, length, width = anatomy.cerebellum
    u += shift
    head.ellipse((u - length - 0.10, 0), (0.13, 0.34), level=decibel(-38))  # cisterna magna
    for side in (-1, 1):
        centre = (u, side * (0.72 * width + 0.03))
        level = decibel(anatomy.brain_db - 1)
        head.ellipse(centre, (length, width), level=level, rim=2.4 * clarity, turn=-0.25 * side)
        for k in (-0.5, 0.0, 0.5):  # folia
            line = (u + 0.1 * length, centre[1] + k * width)
            head.stroke(line, 0.6 * length, amplitude=0.6 * clarity, bend=0.1 * side)
    head.ellipse((u - 0.02, 0), (0.8 * length, 0.07), level=decibel(-5), rim=0.8 * clarity)


def _ventricles(head: HeadMap, anatomy: Anatomy, shift: float, clarity: float) -> None:
    v, width, scale = anatomy.ventricle
    fluid = decibel(-38)
    for side in (-1, 1):
        bright = clarity if side > 0 else 0.5 * clarity
        front = (0.44 + shift, side * 0.15)
        head.ellipse(front, (0.13, 0.05), level=fluid, rim=1.6 * bright, turn=0.25 * side)
        atrium = (-0.28 + shift, side * v)
        half = (0.30 * scale, width)
        head.ellipse(atrium, half, level=fluid, rim=2.6 * bright, turn=-0.12 * side)
        # Choroid plexus: the brightest soft tissue, hanging in the atrium.
        plexus = (-0.20 + shift, side * (v + 0.01))
        level = decibel(-3 if side > 0 else -8)
        head.ellipse(plexus, (0.17 * scale, 0.72 * width), level=level, turn=-0.15 * side)


def _midline(
    head: HeadMap,
    anatomy: Anatomy,
    plane: str,
    shift: float,
    clarity: float,
    rng: np.random.Generator,
) -> None:
    csp_u, csp_length, csp_width = anatomy.csp
    csp_u += shift
    back = anatomy.cerebellum[0] + 0.25 if plane == "Trans-cerebellum" else -0.92
    edges = [back, -0.55, -0.28, csp_u - csp_length, csp_u + csp_length, 0.72, 0.94]
    for start, end in pairwise(edges):
        crosses_thalami = plane != "Trans-ventricular" and start == edges[2]
        if end <= start or start == edges[3] or crosses_thalami:
            continue
        bright = clarity * float(rng.uniform(1.6, 3.6))
        half = (end - start) / 2 * float(rng.uniform(0.8, 1.0))
        wobble = float(rng.normal(0, 0.006))
        head.stroke(((start + end) / 2, wobble), half, amplitude=bright, width_mm=0.7)
    head.ellipse((csp_u, 0), (csp_length, csp_width), level=decibel(-38))
    for side in (-1, 1):  # the box: two parallel walls
        wall = (csp_u, side * csp_width)
        head.stroke(wall, csp_length, amplitude=2.6 * clarity, bend=-0.06 * side)
