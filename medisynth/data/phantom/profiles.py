"""Profiles of the simulated scanners and operators, and the effect of the mother's body mass.

The values are chosen by eye so that the phantoms look like the published frames of each scanner;
they are no measurement of a device or a person.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class MachineProfile:
    """Appearance of one scanner.

    Attributes:
        aspect: Image width divided by height.
        height_scale: Image height divided by `PhantomSettings.image_height_px`.
        probe_radius_mm: Radius of the convex probe face.
        sector_deg: Full opening angle of the sector.
        axial_mm: Standard deviation of the point spread along the beam.
        lateral_deg: Standard deviation of the point spread across the beam, in focus.
        focus_mm: Depth of the focus; the beam is 1.7 times wider far from it.
        n_looks: Independent speckle patterns averaged (spatial compounding).
        smoothing_samples: Speckle reduction: Gaussian blur after compression, in samples.
        dynamic_range_db: Range between black and white.
        white_db: Level shown white; mean maternal tissue is 0 dB.
        gamma: Exponent of the grey map; above 1 darkens the mid-greys.
        noise_db: Electronic noise at the probe face.
        skull_db: Peak level of the skull at perpendicular incidence.
        label: Burned-in name.
        wedge: True for a broad grey wedge in the corner, False for a narrow grey bar.
    """

    aspect: float
    height_scale: float
    probe_radius_mm: float
    sector_deg: float
    axial_mm: float
    lateral_deg: float
    focus_mm: float
    n_looks: int
    smoothing_samples: float
    dynamic_range_db: float
    white_db: float
    gamma: float
    noise_db: float
    skull_db: float
    label: str
    wedge: bool


@dataclass(frozen=True)
class OperatorHabit:
    """How one operator places and magnifies the head.

    Attributes:
        fill: Head length divided by image width, lowest and highest.
        standoff_mm: Tissue between probe and head, lowest and highest.
        tilt_deg: Standard deviation of the long axis about horizontal.
        off_centre: Standard deviation of the head centre, as a fraction of image size.
        p_anterior_left: Share of images with the forehead to the left.
        gain_db: Overall gain relative to the machine's setting.
        tgc_db: Extra gain at the bottom of the image.
    """

    fill: tuple[float, float]
    standoff_mm: tuple[float, float]
    tilt_deg: float
    off_centre: float
    p_anterior_left: float
    gain_db: float
    tgc_db: float


@dataclass(frozen=True)
class BodyMassEffect:
    """How the mother's body mass changes an examination; none at 25 kg/m2.

    Attributes:
        standoff_mm: Added tissue between probe and head; negative for a slim mother.
        wall_mm: Added thickness of skin, fat and muscle.
        loss_db: Signal lost on the way; it brings the electronic noise nearer.
        gain_db: Gain that the operator adds, less than what was lost.
        shadowing: Factor on the depth of shadows from poor contact.
    """

    standoff_mm: float
    wall_mm: float
    loss_db: float
    gain_db: float
    shadowing: float


def body_mass_effect(body_mass_index: float) -> BodyMassEffect:
    """Return the effect of a body mass index, kg/m2; taken as constant below 17 and above 41."""
    more = min(max(body_mass_index, 17.0), 41.0) - 25.0
    return BodyMassEffect(
        standoff_mm=0.9 * more,
        wall_mm=0.6 * more,
        loss_db=0.4 * more,
        gain_db=0.2 * more,
        shadowing=1 + 0.035 * more,
    )


MACHINE_PROFILES = {
    "Voluson E6": MachineProfile(
        aspect=1.451, height_scale=1.0, probe_radius_mm=55, sector_deg=68,
        axial_mm=0.42, lateral_deg=0.50, focus_mm=70, n_looks=2, smoothing_samples=0.6,
        dynamic_range_db=62, white_db=24.5, gamma=1.55, noise_db=-48, skull_db=23,
        label="E6", wedge=False,
    ),
    "Aloka": MachineProfile(
        aspect=1.633, height_scale=0.85, probe_radius_mm=50, sector_deg=62,
        axial_mm=0.52, lateral_deg=0.68, focus_mm=60, n_looks=2, smoothing_samples=0.4,
        dynamic_range_db=56, white_db=23.5, gamma=1.30, noise_db=-44, skull_db=20,
        label="A7", wedge=True,
    ),
    "Voluson S10": MachineProfile(
        aspect=1.445, height_scale=1.1, probe_radius_mm=60, sector_deg=74,
        axial_mm=0.36, lateral_deg=0.42, focus_mm=80, n_looks=2, smoothing_samples=0.9,
        dynamic_range_db=66, white_db=27.5, gamma=1.6, noise_db=-50, skull_db=22,
        label="S10", wedge=False,
    ),
    "Other": MachineProfile(
        aspect=1.333, height_scale=0.9, probe_radius_mm=48, sector_deg=58,
        axial_mm=0.55, lateral_deg=0.70, focus_mm=65, n_looks=1, smoothing_samples=0.3,
        dynamic_range_db=50, white_db=23.5, gamma=1.35, noise_db=-38, skull_db=20,
        label="US", wedge=True,
    ),
}  # fmt: skip

OPERATOR_HABITS = {
    "Op. 1": OperatorHabit(
        fill=(0.62, 0.78), standoff_mm=(14, 30), tilt_deg=7, off_centre=0.02,
        p_anterior_left=0.8, gain_db=0, tgc_db=0,
    ),
    "Op. 2": OperatorHabit(
        fill=(0.55, 0.70), standoff_mm=(18, 36), tilt_deg=10, off_centre=0.03,
        p_anterior_left=0.5, gain_db=-3, tgc_db=2,
    ),
    "Op. 3": OperatorHabit(
        fill=(0.70, 0.92), standoff_mm=(15, 32), tilt_deg=5, off_centre=0.04,
        p_anterior_left=0.7, gain_db=1, tgc_db=-2,
    ),
    "Other": OperatorHabit(
        fill=(0.50, 0.88), standoff_mm=(12, 42), tilt_deg=13, off_centre=0.05,
        p_anterior_left=0.5, gain_db=2, tgc_db=4,
    ),
}  # fmt: skip
