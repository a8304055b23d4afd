"""Simulation of a B-mode image of a head: echoes along beams, speckle, compression, sector.

Everything up to the grey map happens on a polar grid (depth by beam), as in a scanner, so the
lateral blur grows with depth and shadows run along the beams. All arithmetic is float64: a last-bit
difference between processors then changes a rounded grey value about once in 10**11 pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medisynth.data.phantom.anatomy import (
    Anatomy,
    Array,
    Harmonics,
    HeadMap,
    decibel,
    draw_head,
    sample_raster,
)
from medisynth.data.phantom.geometry import Beams, View, cover_with_beams
from medisynth.data.phantom.profiles import BodyMassEffect, MachineProfile, OperatorHabit

_TISSUE_ATTENUATION = 0.012  # per mm, amplitude, both ways; cancelled by the depth gain
_SKULL_ATTENUATION = 0.2
_GRAZING_ATTENUATION = 0.3  # refraction at the edges of the skull
_COMPOUNDING_DEG = 1.3
_BRAIN_ATTENUATION = 0.006


@dataclass(frozen=True)
class Skull:
    """The skull seen from outside.

    Attributes:
        distance: Distance from the middle of the skull, mm, negative inside.
        bearing: Direction from the centre, a complex number of length 1.
        band: Share of a sample filled by skull, 0 to 1.
        facing: Cosine between beam and skull surface.
        echo: Amplitude of the skull's echo.
    """

    distance: Array
    bearing: Harmonics
    band: Array
    facing: Array
    echo: Array


def simulate(
    anatomy: Anatomy,
    plane: str,
    machine: MachineProfile,
    view: View,
    habit: OperatorHabit,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """Simulate one frame.

    Returns:
        Grey image, shape (view.height_px, view.width_px), uint8; 0 outside the sector.
    """
    beams = cover_with_beams(machine, view)
    skull = _skull(anatomy, machine, beams)
    diffuse, specular, loss = _surroundings(anatomy, machine, beams, skull, view.body, rng)
    head = draw_head(anatomy, plane, rng)
    _insert_brain(head, anatomy, beams, skull, diffuse, specular)
    diffuse += _reverberation(skull, beams)
    specular += skull.echo
    arriving = decibel(-view.body.loss_db)
    diffuse *= arriving
    specular *= arriving
    shadowing = view.body.shadowing
    shown = receive(diffuse, specular, loss, beams, machine, rng, shadowing=shadowing)
    grey = _grey_map(shown, beams, machine, habit, view)
    return _scan_convert(grey, beams, machine, view)


def _skull(anatomy: Anatomy, machine: MachineProfile, beams: Beams) -> Skull:
    half_u, half_v = anatomy.ofd_mm / 2, anatomy.bpd_mm / 2
    s = beams.u / half_u
    t = beams.v / (half_v * (1 - anatomy.egg * s))
    rho = np.sqrt(s * s + t * t) + 1e-9
    bearing: Harmonics = s.astype(np.complex128)
    bearing.imag = t
    bearing /= rho
    gradient = np.sqrt((s / half_u) ** 2 + (t / half_v) ** 2) / rho + 1e-9
    distance = (rho - 1 + _around(bearing, anatomy.outline)) / gradient
    band = np.exp(-((distance / (0.5 * anatomy.skull_mm)) ** 2))
    # Cosine between beam and skull from the change of distance along the beam.
    facing = np.clip(np.abs(np.gradient(distance, beams.step_mm, axis=0)), 0, 1)
    level_db = machine.skull_db + _around(bearing, anatomy.skull_db)
    for suture in anatomy.sutures:
        level_db -= 11 * np.exp(250 * ((bearing * suture.conjugate()).real - 1))
    echo = _amplitude(level_db) * band * (0.03 + 0.97 * facing**3)
    return Skull(distance, bearing, band, facing, echo)


def _surroundings(
    anatomy: Anatomy,
    machine: MachineProfile,
    beams: Beams,
    skull: Skull,
    body: BodyMassEffect,
    rng: np.random.Generator,
) -> tuple[Array, Array, Array]:
    """Maps around the head (tissue, uterine wall, fluid): diffuse, specular, attenuation per mm."""
    patchy = _smooth_noise(skull.distance.shape, (5.0, 7.0), rng)
    streaky = _smooth_noise(skull.distance.shape, (1.0, 9.0), rng)
    below = np.clip(skull.distance / 30, 0, 1) * np.clip(beams.v / 20, 0, 1)
    level_db = 6.0 * patchy + 3.5 * streaky - 5 + rng.uniform(-10, 5) * below
    in_wall = _maternal_wall(level_db, machine, beams, patchy, body.wall_mm, rng)
    # Amniotic fluid lies in lobes between the head and the uterine wall.
    lobes = rng.uniform(2, 7, 3) * np.exp(1j * rng.uniform(-np.pi, np.pi, 3))
    width = anatomy.fluid_mm + rng.normal(0, 3) + _around(skull.bearing, np.append(0, lobes))
    outside = skull.distance - 0.5 * anatomy.skull_mm
    fluid = _sigmoid((width - outside) / 0.8) * (1 - in_wall)
    diffuse = _amplitude(level_db) * (1 - 0.99 * fluid)
    skin = np.exp(-(((width - outside) / 0.9) ** 2)) * _sigmoid(outside - 2) * (1 - in_wall)
    specular = 3.0 * skin * np.clip(patchy + 0.6, 0.1, 1)
    inside = _sigmoid(-skull.distance / 0.6)
    loss = _TISSUE_ATTENUATION * (1 - fluid)
    loss += inside * (_BRAIN_ATTENUATION - loss) + skull.band * (
        _SKULL_ATTENUATION + _GRAZING_ATTENUATION * (1 - skull.facing) ** 2
    )
    return diffuse, specular, loss


def _maternal_wall(
    level_db: Array,
    machine: MachineProfile,
    beams: Beams,
    patchy: Array,
    added_mm: float,
    rng: np.random.Generator,
) -> Array:
    """Add skin, fat and muscle parallel to the probe face, in place; return where they lie."""
    depth = beams.radius - machine.probe_radius_mm
    thickness = max(5.0, rng.uniform(8, 18) + added_mm)
    wave, phase = rng.uniform(18, 40), rng.uniform(0, 6)
    slopes, phases = rng.uniform(-0.03, 0.03, 3), rng.uniform(0, 6, 3)
    share = np.zeros_like(level_db)
    n = int(np.searchsorted(depth[:, 0], thickness + 12))  # no wall below these rows
    sideways = beams.radius[:n] * np.sin(beams.angle)
    share[:n] = _sigmoid((thickness + 2 * np.sin(sideways / wave + phase) - depth[:n]) / 1.2)
    layers = np.zeros_like(sideways)
    for k, wavelength in enumerate((2.2, 3.7, 6.5)):
        along = depth[:n] + slopes[k] * sideways + 0.7 * patchy[:n]
        layers += np.sin(2 * np.pi * along / wavelength + phases[k])
    level_db[:n] += share[:n] * (4 * layers + 1)
    return share


def _insert_brain(
    head: HeadMap,
    anatomy: Anatomy,
    beams: Beams,
    skull: Skull,
    diffuse: Array,
    specular: Array,
) -> None:
    """Draw the brain over everything inside the skull, in place."""
    inside = skull.distance < 0
    u, v, deep = beams.u[inside], beams.v[inside], -skull.distance[inside]
    # Bend the frame by a few tenths of a millimetre to 2 mm, since no brain has straight lines.
    bends = [
        size * np.sin((u * np.cos(way) + v * np.sin(way)) / wave + phase)
        for size, way, wave, phase in anatomy.warp
    ]
    at = head.index_of(u + bends[0] + bends[1], v + bends[2] + bends[3])
    weight = np.clip(deep / 1.5, 0, 1)
    # The brain ends before the skull does: a dark rim of fluid shows where the beam allows.
    rim = 1 - 0.7 * np.exp(-(((deep - 3.0) / 1.6) ** 2))
    # One lookup for both maps: diffuse in the real part, specular in the imaginary part.
    brain = sample_raster(head.diffuse + 1j * head.specular, *at)
    diffuse[inside] += weight * (brain.real * rim - diffuse[inside])
    facing = np.broadcast_to(0.12 + 0.88 * beams.along_v**6, skull.distance.shape)[inside]
    specular[inside] += weight * (brain.imag * facing - specular[inside])


def _reverberation(skull: Skull, beams: Beams) -> Array:
    """Haze below bright skull echoes, which veils the near hemisphere as in real frames."""
    from scipy.signal import lfilter

    keep = np.exp(-beams.step_mm / 11.0)  # haze fades over 11 mm
    haze: Array = lfilter([1 - keep], [1, -keep], skull.echo, axis=0)
    return 0.14 * haze


def receive(
    diffuse: Array,
    specular: Array,
    loss: Array,
    beams: Beams,
    machine: MachineProfile,
    rng: np.random.Generator,
    *,
    shadowing: float = 1.0,
) -> Array:
    """Echo envelope after attenuation, point spread, compounding, noise and depth gain."""
    from scipy.ndimage import gaussian_filter1d

    depth = beams.radius - machine.probe_radius_mm
    passed = np.exp(-np.cumsum(loss, axis=0) * beams.step_mm)
    # Each point is looked at from several directions, which softens every shadow.
    compound = np.radians(_COMPOUNDING_DEG) / beams.step_rad
    passed = gaussian_filter1d(passed, compound, axis=1, mode="nearest", truncate=3)
    passed *= np.exp(-_TISSUE_ATTENUATION * depth[0, 0]) * _contact(beams, shadowing, rng)
    lateral = np.radians(machine.lateral_deg) / beams.step_rad
    spread = (machine.axial_mm / beams.step_mm, float(lateral))
    # Unit noise power after the blur, so that levels do not depend on the point spread.
    restore = np.sqrt(2 * np.pi * spread[0] * spread[1])
    rough = (diffuse + 0.35 * specular) * passed * restore
    smooth = 0.8 * specular * passed
    focused = np.exp(-(((depth - machine.focus_mm) / 45.0) ** 2))
    floor = decibel(machine.noise_db) * np.sqrt(0.5)
    envelope = np.zeros_like(diffuse)
    for _ in range(machine.n_looks):
        real = _quadrature(rough, smooth, spread, focused, floor, rng)
        imaginary = _quadrature(rough, None, spread, focused, floor, rng)
        envelope += np.sqrt(real * real + imaginary * imaginary)
    envelope *= np.exp(_TISSUE_ATTENUATION * depth) / machine.n_looks
    return envelope


def _quadrature(
    rough: Array,
    smooth: Array | None,
    spread: tuple[float, float],
    focused: Array,
    floor: float,
    rng: np.random.Generator,
) -> Array:
    """Real or imaginary part of the received field: scatterers, reflectors, blur, noise."""
    from scipy.ndimage import gaussian_filter1d

    noise = rng.standard_normal(rough.shape)
    field = rough * noise
    if smooth is not None:
        field += smooth
    field = gaussian_filter1d(field, spread[0], axis=0, mode="nearest", truncate=3)
    narrow = gaussian_filter1d(field, spread[1], axis=1, mode="nearest", truncate=3)
    wide = gaussian_filter1d(narrow, 1.4 * spread[1], axis=1, mode="nearest", truncate=3)
    field = wide + focused * (narrow - wide)
    # Far away the same draw is independent of the speckle: it serves as thermal noise.
    aside = (rough.shape[0] // 2, rough.shape[1] // 2)
    field += floor * np.roll(noise, aside, axis=(0, 1))
    return field


def _contact(beams: Beams, shadowing: float, rng: np.random.Generator) -> Array:
    """Gain of each beam: uneven contact of the probe and, at times, a shadow at one side."""
    across = np.linspace(-1, 1, beams.angle.size)[None, :]
    level_db = np.zeros_like(across)
    for k in (1.5, 3.0, 5.0):
        level_db += rng.normal(0, 1.2) * np.sin(k * across * np.pi + rng.uniform(0, 6))
    edge = rng.choice([-1.0, 1.0]) * rng.uniform(0.45, 1.2)
    level_db -= (
        shadowing * rng.uniform(6, 22) * _sigmoid((across * np.sign(edge) - abs(edge)) / 0.09)
    )
    return _amplitude(level_db)


def _grey_map(
    envelope: Array, beams: Beams, machine: MachineProfile, habit: OperatorHabit, view: View
) -> Array:
    """Depth gain and log compression to 0 … 255."""
    from scipy.ndimage import gaussian_filter

    level_db = 20 * np.log10(envelope + 1e-6)
    below = np.clip((beams.radius - view.top_mm) / (view.bottom_mm - view.top_mm), 0, 1)
    level_db += habit.gain_db + view.gain_db + habit.tgc_db * below
    level_db = gaussian_filter(level_db, machine.smoothing_samples, mode="nearest")
    share = np.clip(1 + (level_db - machine.white_db) / machine.dynamic_range_db, 0, 1)
    grey: Array = 255 * share**machine.gamma
    return grey


def _scan_convert(
    grey: Array, beams: Beams, machine: MachineProfile, view: View
) -> NDArray[np.uint8]:
    """Bilinear resampling from beams to pixels; black outside the sector."""
    x = view.left_mm + (np.arange(view.width_px) + 0.5)[None, :] * view.mm_per_px
    y = view.top_mm + (np.arange(view.height_px) + 0.5)[:, None] * view.mm_per_px
    square = x * x + y * y
    shown = (square <= view.bottom_mm**2) & (square >= machine.probe_radius_mm**2)
    shown &= np.abs(x) <= y * np.tan(view.half_angle_rad)
    radius, angle = np.sqrt(square[shown]), np.arctan((x / y)[shown])
    rows = (radius - beams.radius[0, 0]) / beams.step_mm
    columns = (angle - beams.angle[0, 0]) / beams.step_rad
    image = np.zeros(square.shape, dtype=np.uint8)
    image[shown] = np.rint(sample_raster(grey, rows, columns)).astype(np.uint8)
    return image


def _smooth_noise(
    shape: tuple[int, ...], correlation: tuple[float, float], rng: np.random.Generator
) -> Array:
    """Unit-variance smooth noise; correlation in percent of each side's length."""
    from scipy.ndimage import gaussian_filter

    noise: Array = gaussian_filter(rng.standard_normal((100, 100)), correlation, mode="nearest")
    noise /= noise.std()
    for n in shape:  # stretch the rows, then the columns
        at = np.linspace(0, 98.999, n)
        low = at.astype(np.intp)
        part = (at - low)[:, None]
        noise = (noise[low] * (1 - part) + noise[low + 1] * part).T
    return noise


def _around(bearing: Harmonics, coefficients: Harmonics) -> Array:
    """Real periodic function of the bearing: Re(sum of c[k] * bearing**k)."""
    total = np.full_like(bearing, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= bearing
        total += coefficient
    return total.real


def _amplitude(level_db: Array) -> Array:
    amplitude: Array = np.exp(level_db * (np.log(10) / 20))
    return amplitude


def _sigmoid(x: Array) -> Array:
    y: Array = 0.5 + 0.5 * np.tanh(x / 2)
    return y
