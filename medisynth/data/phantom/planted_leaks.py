"""Faults planted on purpose, to test the checks that should find them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from governance.records.errors import SettingsError
from medisynth.data.phantom.cohort import LEAK_STREAM, PhantomImage, stream
from medisynth.data.phantom.overlay import draw_callipers, encode_png
from medisynth.data.phantom.settings import LEAKS, PhantomSettings, PlantedLeak

IDENTIFYING_COLUMN = "Patient_name"


@dataclass(frozen=True)
class LeakPlan:
    """Plan of the faults to plant.

    Attributes:
        images: All rows, with the changes that faults require.
        leaks: The faults, in the order of `LEAKS`.
    """

    images: tuple[PhantomImage, ...]
    leaks: tuple[PlantedLeak, ...]


def plan_leaks(images: Sequence[PhantomImage], settings: PhantomSettings) -> LeakPlan:
    """Choose the images for each fault; no patient takes part in two faults.

    Raises:
        SettingsError: There are too few patients for the faults asked for.
    """
    planner = _Planner(images, settings.seed)
    leaks = tuple(planner.plant(leak) for leak in settings.leaks)
    return LeakPlan(tuple(planner.rows.values()), leaks)


def plant_in_files(folder: Path, leaks: Sequence[PlantedLeak]) -> None:
    """Damage or copy the image files that the faults name.

    Args:
        folder: Folder of the images, all of them written.
        leaks: Faults as planned.
    """
    for leak in leaks:
        paths = [folder / f"{name}.png" for name in leak.images]
        if leak.leak == "duplicate-other-patient":
            paths[1].write_bytes(paths[0].read_bytes())
        elif leak.leak == "near-duplicate":
            paths[1].write_bytes(_retouched(paths[0]))
        elif leak.leak == "truncated-file":
            whole = paths[0].read_bytes()
            paths[0].write_bytes(whole[: int(0.6 * len(whole))])
        elif leak.leak == "text-file":
            paths[0].write_text("This is text, not an image.\n", encoding="ascii", newline="\n")


class _Planner:
    """Plans faults so that no patient takes part in two."""

    def __init__(self, images: Sequence[PhantomImage], seed: int) -> None:
        self.rows = {image.name: image for image in images}
        self._seed = seed
        self._free = set(self.rows)

    def plant(self, leak: str) -> PlantedLeak:
        """Plan one fault and change the rows it concerns."""
        rng = stream(self._seed, LEAK_STREAM, LEAKS.index(leak))
        if leak == "identifying-column":
            note = f"column {IDENTIFYING_COLUMN!r} with made-up names added to every row"
            return PlantedLeak(leak, (), note)
        if leak == "patient-in-both":
            return self._patient_in_both(leak, rng)
        source = self._take(leak, rng, is_training=True)[0]
        if leak == "truncated-file":
            return PlantedLeak(leak, (source.name,), "file cut to 60 % of its length")
        if leak == "text-file":
            return PlantedLeak(leak, (source.name,), "file holds text, not an image")
        target = self._take(leak, rng, is_training=False)[0]
        # The same frame has the same plane, operator and machine under either patient.
        self.rows[target.name] = replace(
            target,
            brain_plane=source.brain_plane,
            operator=source.operator,
            machine=source.machine,
        )
        note = "byte-identical copy of a training image under a held-out test patient"
        if leak == "near-duplicate":
            note = (
                "brighter, re-compressed copy with callipers of a training image "
                "under a held-out test patient"
            )
        return PlantedLeak(leak, (source.name, target.name), note)

    def _patient_in_both(self, leak: str, rng: np.random.Generator) -> PlantedLeak:
        images = self._take(leak, rng, is_training=True, at_least=2)
        moved = sorted(images, key=lambda image: image.number)[-1]
        self.rows[moved.name] = replace(moved, is_training=False)
        names = tuple(image.name for image in images if image is not moved) + (moved.name,)
        note = "the last image of a training patient is listed in the held-out test set"
        return PlantedLeak(leak, names, note)

    def _take(
        self, leak: str, rng: np.random.Generator, *, is_training: bool, at_least: int = 1
    ) -> list[PhantomImage]:
        """Take a free patient of a partition; return its images, a random one first."""
        by_patient: dict[int, list[PhantomImage]] = {}
        for name in sorted(self._free):
            image = self.rows[name]
            if image.is_training is is_training:
                by_patient.setdefault(image.patient, []).append(image)
        fitting = [images for images in by_patient.values() if len(images) >= at_least]
        if not fitting:
            partition = "training" if is_training else "the held-out test set"
            some = "an image" if at_least == 1 else f"{at_least} images"
            raise SettingsError(
                f"phantom.leaks: {leak!r} needs one more patient with {some} in {partition}, "
                "none is left; raise n_patients or plant fewer leaks"
            )
        images = fitting[int(rng.integers(len(fitting)))]
        self._free -= {image.name for image in images}
        first = int(rng.integers(len(images)))
        return images[first:] + images[:first]


def _retouched(source: Path) -> bytes:
    with Image.open(source) as picture:
        grey = np.asarray(picture, dtype=np.uint8)
    brighter = np.clip(np.rint(grey * 1.08 + 6), 0, 255).astype(np.uint8)
    lossy = io.BytesIO()
    Image.fromarray(draw_callipers(brighter)).save(lossy, "JPEG", quality=85)
    with Image.open(lossy) as picture:
        recompressed = np.asarray(picture, dtype=np.uint8)
    return encode_png(recompressed)
