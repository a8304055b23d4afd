"""Geometry of probe, head, beams and image frame."""

from dataclasses import dataclass

import numpy as np

from medisynth.data.phantom.anatomy import Anatomy, Array
from medisynth.data.phantom.profiles import BodyMassEffect, MachineProfile, OperatorHabit


@dataclass(frozen=True)
class View:
    """Positions of probe, head and frame; mm, origin at the centre of the probe's curvature.

    Attributes:
        width_px: Image width.
        height_px: Image height.
        mm_per_px: Pixel size.
        left_mm: x of the image's left edge.
        top_mm: Depth coordinate y of the image's top edge.
        bottom_mm: Radius at which the sector ends.
        half_angle_rad: Half opening angle of the sector.
        head_mm: x and y of the head's centre.
        tilt_rad: Rotation of the head's long axis.
        mirrored: True when the forehead lies to the left.
        gain_db: Gain of this image relative to the operator's habit.
        body: Effect of the mother's body mass.
    """

    width_px: int
    height_px: int
    mm_per_px: float
    left_mm: float
    top_mm: float
    bottom_mm: float
    half_angle_rad: float
    head_mm: tuple[float, float]
    tilt_rad: float
    mirrored: bool
    gain_db: float
    body: BodyMassEffect


@dataclass(frozen=True)
class Beams:
    """The polar grid and the positions of its samples relative to the head.

    Attributes:
        radius: Distance from the centre of curvature, mm, shape (n_r, 1).
        angle: Beam angle, radians, shape (1, n_beams).
        u: Head coordinate along the long axis, mm, shape (n_r, n_beams).
        v: Head coordinate across it, mm, shape (n_r, n_beams).
        along_v: Cosine between beam and v axis, shape (1, n_beams).
    """

    radius: Array
    angle: Array
    u: Array
    v: Array
    along_v: Array

    @property
    def step_mm(self) -> float:
        """Sample spacing along a beam."""
        return float(self.radius[1, 0] - self.radius[0, 0])

    @property
    def step_rad(self) -> float:
        """Angle between beams."""
        return float(self.angle[0, 1] - self.angle[0, 0])


def draw_view(
    anatomy: Anatomy,
    machine: MachineProfile,
    habit: OperatorHabit,
    body: BodyMassEffect,
    base_height_px: int,
    rng: np.random.Generator,
) -> View:
    """Place probe, head and image frame as this operator would."""
    height_px = round(base_height_px * machine.height_scale)
    width_px = round(height_px * machine.aspect)
    fill = rng.uniform(*habit.fill)
    mm_per_px = anatomy.ofd_mm / (fill * width_px)
    height_mm, width_mm = height_px * mm_per_px, width_px * mm_per_px
    across = 0.5 + rng.normal(0, habit.off_centre)
    down = 0.52 + rng.normal(0, habit.off_centre)
    standoff = max(6.0, rng.uniform(*habit.standoff_mm) + body.standoff_mm)
    face = machine.probe_radius_mm
    # The frame never starts far above the probe: a shallow head is pushed deeper instead.
    depth = max(standoff + anatomy.bpd_mm / 2, down * height_mm - 6)
    head_x = float(rng.normal(0, 4))
    top_mm = face + depth - down * height_mm
    return View(
        width_px=width_px,
        height_px=height_px,
        mm_per_px=float(mm_per_px),
        left_mm=float(head_x - across * width_mm),
        top_mm=float(top_mm),
        bottom_mm=float(top_mm + height_mm * rng.uniform(0.94, 1.12)),
        half_angle_rad=float(np.radians(machine.sector_deg / 2 * rng.uniform(0.9, 1.06))),
        head_mm=(head_x, float(face + depth)),
        tilt_rad=float(np.radians(rng.normal(0, habit.tilt_deg))),
        mirrored=bool(rng.random() < habit.p_anterior_left),
        gain_db=float(rng.normal(0, 2.5)) + body.gain_db,
        body=body,
    )


def cover_with_beams(machine: MachineProfile, view: View) -> Beams:
    """Make the polar grid that covers exactly the part of the sector shown in the frame."""
    right = view.left_mm + view.width_px * view.mm_per_px
    lowest = view.top_mm + view.height_px * view.mm_per_px
    n_r, n_beams = round(0.92 * view.height_px), round(0.66 * view.height_px)
    widest = max(np.arctan2(-view.left_mm, view.top_mm), np.arctan2(right, view.top_mm))
    half = min(view.half_angle_rad, float(widest))
    near = max(machine.probe_radius_mm, view.top_mm)
    corner = float(np.hypot(lowest, max(-view.left_mm, right)))
    radius = np.linspace(near, min(view.bottom_mm, corner), n_r)[:, None]
    angle = np.linspace(-half, half, n_beams)[None, :]
    x = radius * np.sin(angle) - view.head_mm[0]
    y = radius * np.cos(angle) - view.head_mm[1]
    cos, sin = np.cos(view.tilt_rad), np.sin(view.tilt_rad)
    flip = -1.0 if view.mirrored else 1.0
    return Beams(
        radius=radius,
        angle=angle,
        u=flip * (x * cos + y * sin),
        v=y * cos - x * sin,
        along_v=np.abs(np.cos(angle) * cos - np.sin(angle) * sin),
    )
