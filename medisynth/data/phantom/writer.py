"""Writes a set of phantoms in the published layout of FETAL_PLANES_DB, whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import DataError, ResourceError
from governance.records.files import working_name
from medisynth.data.phantom.acquisition import simulate
from medisynth.data.phantom.anatomy import Anatomy, draw_anatomy
from medisynth.data.phantom.cohort import (
    IMAGE_STREAM,
    PATIENT_STREAM,
    PERSON_COLUMNS,
    PhantomImage,
    SimulatedPatient,
    plan_cohort,
    stream,
)
from medisynth.data.phantom.geometry import draw_view
from medisynth.data.phantom.overlay import annotate, encode_png
from medisynth.data.phantom.planted_leaks import (
    IDENTIFYING_COLUMN,
    LeakPlan,
    plan_leaks,
    plant_in_files,
)
from medisynth.data.phantom.profiles import MACHINE_PROFILES, OPERATOR_HABITS, body_mass_effect
from medisynth.data.phantom.settings import (
    SIMULATOR_VERSION,
    PhantomReport,
    PhantomSettings,
    PlantedLeak,
    phantom_key,
)

METADATA_FILE = "FETAL_PLANES_DB_data.csv"
IMAGES_FOLDER = "Images"
PARAMETERS_FILE = "phantom.json"

_COLUMNS = ("Image_name", "Patient_num", "Plane", "Brain_plane", "Operator", "US_Machine")
_STATEMENT = "Simulated images: no patient, no scanner and no examination is behind any of them."


def write_phantoms(
    root: Path,
    settings: PhantomSettings,
    progress: Callable[[int, int], None] | None = None,
    *,
    n_workers: int | None = None,
) -> PhantomReport:
    """Simulate a data set and write it to a folder, whole or not at all.

    Equal settings give equal bytes, whatever the number of workers (PNG and JPEG encoding as well
    as the random streams are those of the installed Pillow and numpy).

    Args:
        root: Folder to make; it may exist if it is empty.
        settings: What to simulate.
        progress: Called in this thread with images done and images in all.
        n_workers: Threads; None means one a processor. It does not change the result.

    Returns:
        A report of the folder, with every planted fault.

    Raises:
        SettingsError: Too few patients for the faults asked for.
        DataError: `root` is a file or a folder that holds something.
        ResourceError: The folder cannot be written or the disk is full.
    """
    plan = plan_leaks(plan_cohort(settings), settings)
    _refuse_occupied(root)
    temporary: Path | None = None
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        temporary = working_name(root)
        temporary.mkdir()
        _fill(temporary, plan, settings, progress, n_workers)
        temporary.rename(root)
        temporary = None
    except OSError as error:
        raise ResourceError(
            f"{root}: phantoms cannot be written ({error.strerror or error}); "
            "check permission and free space, or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    n_patients = len({image.patient for image in plan.images})
    return PhantomReport(root, len(plan.images), n_patients, plan.leaks)


def plant_in_copy(clean: Path, root: Path, settings: PhantomSettings) -> PhantomReport:
    """Copy a set of phantoms and plant faults in the copy: quicker than simulating it anew.

    Args:
        clean: Folder that `write_phantoms` wrote with the same settings and no leaks.
        root: Folder to make.
        settings: What `clean` was written with, and the faults to plant.

    Raises:
        SettingsError: Too few patients for the faults asked for.
        ResourceError: The folder cannot be written or the disk is full.
    """
    plan = plan_leaks(plan_cohort(settings), settings)
    try:
        shutil.copytree(clean / IMAGES_FOLDER, root / IMAGES_FOLDER)
        _plant_and_describe(root, plan, settings)
    except OSError as error:
        raise ResourceError(
            f"{root}: phantoms cannot be copied ({error.strerror or error}); "
            "check permission and free space, or choose another folder"
        ) from error
    n_patients = len({image.patient for image in plan.images})
    return PhantomReport(root, len(plan.images), n_patients, plan.leaks)


def simulate_image(settings: PhantomSettings, image: PhantomImage) -> NDArray[np.uint8]:
    """Simulate one image of a planned set.

    Returns:
        Grey image, shape (height, width), uint8; the same wherever and whenever it is computed.
    """
    return _simulate(settings, image, _anatomy(settings, image.person))


def _fill(
    folder: Path,
    plan: LeakPlan,
    settings: PhantomSettings,
    progress: Callable[[int, int], None] | None,
    n_workers: int | None,
) -> None:
    images = folder / IMAGES_FOLDER
    images.mkdir()
    # Images are simulated as if no fault were planted, so that a fault changes only what it names.
    _write_images(images, plan_cohort(settings), settings, progress, n_workers)
    _plant_and_describe(folder, plan, settings)


def _plant_and_describe(folder: Path, plan: LeakPlan, settings: PhantomSettings) -> None:
    """Plant the faults in images already written, then write table and parameters."""
    plant_in_files(folder / IMAGES_FOLDER, plan.leaks)
    (folder / METADATA_FILE).write_bytes(_metadata(plan.images, settings))
    (folder / PARAMETERS_FILE).write_bytes(_parameters(plan.images, plan.leaks, settings))


def _refuse_occupied(root: Path) -> None:
    if root.is_dir():
        if any(root.iterdir()):
            raise DataError(
                f"{root}: the folder is not empty; expected a new or empty one, "
                "nothing was written: choose another folder or remove this one",
                code="D040",
            )
    elif root.exists() or root.is_symlink():
        raise DataError(f"{root}: not a folder; expected a new or empty one", code="D041")


def _write_images(
    folder: Path,
    images: Sequence[PhantomImage],
    settings: PhantomSettings,
    progress: Callable[[int, int], None] | None,
    n_workers: int | None,
) -> None:
    """Simulate and write all images, one task a patient.

    Threads suffice: nearly all time is spent in numpy and scipy, which let other threads run.
    """
    by_patient = [list(group) for _, group in groupby(images, key=lambda image: image.patient)]
    # Freeing one large block tells the C library to keep memory of this size instead of returning
    # it to the system after every array operation: a quarter of the time saved.
    np.empty(3 << 20)
    pool = ThreadPoolExecutor(n_workers or _n_processors(), thread_name_prefix="phantom")
    try:
        tasks = [pool.submit(_write_patient, folder, group, settings) for group in by_patient]
        n_done = 0
        for task in as_completed(tasks):
            n_done += task.result()
            if progress is not None:
                progress(n_done, len(images))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _write_patient(folder: Path, images: list[PhantomImage], settings: PhantomSettings) -> int:
    anatomy = _anatomy(settings, images[0].person)
    for image in images:
        path = folder / f"{image.name}.png"
        path.write_bytes(encode_png(_simulate(settings, image, anatomy)))
    return len(images)


def _anatomy(settings: PhantomSettings, person: SimulatedPatient) -> Anatomy:
    rng = stream(settings.seed, PATIENT_STREAM, person.number, 1)
    return draw_anatomy(person.gestational_age_weeks, rng)


def _simulate(
    settings: PhantomSettings, image: PhantomImage, anatomy: Anatomy
) -> NDArray[np.uint8]:
    rng = stream(settings.seed, IMAGE_STREAM, image.patient, image.number)
    machine, habit = MACHINE_PROFILES[image.machine], OPERATOR_HABITS[image.operator]
    body = body_mass_effect(image.person.body_mass_index)
    view = draw_view(anatomy, machine, habit, body, settings.image_height_px, rng)
    grey = simulate(anatomy, image.brain_plane, machine, view, habit, rng)
    if not settings.annotations:
        return grey
    depth_cm = (view.bottom_mm - machine.probe_radius_mm) / 10
    lines = (
        f"{rng.integers(14, 32)}Hz/{depth_cm:.1f}cm",
        f"Gn {habit.gain_db + view.gain_db:.0f}",
        f"DR {machine.dynamic_range_db:.0f}",
        f"{rng.integers(1, 400)}/{rng.integers(400, 600)}",
    )
    return annotate(grey, machine.label, wedge=machine.wedge, lines=lines)


def _metadata(images: Sequence[PhantomImage], settings: PhantomSettings) -> bytes:
    """Encode the table as published: `;`, LF, last column "Train ", whose values end in a blank.

    The columns on the patient, which the published table lacks, stand before it.
    """
    named = "identifying-column" in settings.leaks
    head = (*_COLUMNS, *PERSON_COLUMNS, *((IDENTIFYING_COLUMN,) if named else ()), "Train ")
    lines = [";".join(head)]
    for image in images:
        fields = [image.name, str(image.patient), "Fetal brain", image.brain_plane]
        fields += [image.operator, image.machine, *image.person.recorded()]
        fields += [f"Simulated Person {image.patient}"] if named else []
        lines.append(";".join([*fields, f"{int(image.is_training)} "]))
    return ("\n".join(lines) + "\n").encode("ascii")


def _parameters(
    images: Sequence[PhantomImage], leaks: Sequence[PlantedLeak], settings: PhantomSettings
) -> bytes:
    described = {
        "statement": _STATEMENT,
        "simulator": "medisynth phantom",
        "simulator_version": SIMULATOR_VERSION,
        "key": phantom_key(settings),
        "settings": asdict(settings),
        "machines": {name: asdict(MACHINE_PROFILES[name]) for name in settings.machines},
        "operators": {name: asdict(OPERATOR_HABITS[name]) for name in settings.operators},
        "n_images": len(images),
        "n_patients": len({image.patient for image in images}),
        "planted_leaks": [asdict(leak) for leak in leaks],
    }
    return (json.dumps(described, indent=2, ensure_ascii=True) + "\n").encode("ascii")


def _n_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
