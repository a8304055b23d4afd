"""Draws more synthetic images from a finished run, each with its mark, and writes a manifest.

Needs the run folder only, neither data nor MLflow, and does not change it. The images go to a new
folder, which is complete or does not exist.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from governance.evidence.manifest import JOURNAL
from governance.records.base import Gate
from governance.records.errors import (
    ConfigError,
    MachineError,
    MedisynthGovError,
    ProcessError,
    ResourceError,
    first_line,
)
from governance.records.files import (
    WRITTEN_TOGETHER,
    sha256_bytes,
    working_name,
    write_atomic,
    write_together,
)
from governance.records.run import RunIdentity
from governance.records.training import TrainingRecord
from medisynth.data.reading.synthetic_mark import (
    LICENCE,
    SyntheticMark,
    burn_in,
    marked_png,
    read_mark,
)
from medisynth.data.reading.views import Pixels
from medisynth.generator import Condition, Generator, StoppedError, TrainingContext
from medisynth.models.registry import takes_condition
from pipelines.current_run.console import Console
from pipelines.current_run.identity import tool_version
from pipelines.current_run.places import refuse_in_data
from pipelines.finished_runs.find import find_run
from pipelines.finished_runs.released import ReleasedModel, read_run

SAMPLES_MANIFEST = "manifest.json"
_BYTES_BESIDE_PIXELS = 8192  # an upper bound of mark, chunk headers, entry and file system block
_NO_MEMORY = ("out of memory", "can't allocate memory")


@dataclass(frozen=True)
class SampleRequest:
    """Which images to draw, and where to write them.

    Attributes:
        run: Run folder, or id of a run of the workspace.
        n: Number of images.
        workspace: Workspace. Default: the one that holds the run folder, else the current folder.
        condition: Plane and machine that the images shall show.
        seed: Seed of the drawing. Default: the run's seed.
        out: New folder. Default: `<workspace>/samples/<run>-<time>`.
        visible_mark: Burn the word SYNTHETIC into the lower edge.
        compute_device: "cpu", "cuda" or "mps". Default: the one the run trained on, else "cpu".
    """

    run: str
    n: int
    workspace: Path | None = None
    condition: Condition = field(default_factory=Condition)
    seed: int | None = None
    out: Path | None = None
    visible_mark: bool = False
    compute_device: str | None = None


@dataclass(frozen=True)
class Sampled:
    """Result of a sampling.

    Attributes:
        folder: Folder of the images and their manifest.json.
        run_id: Run they were drawn from.
        n_images: Images written.
        n_marks_read_back: Marks read again from the files and found equal.
        seed: Seed of the drawing.
        manifest_sha256: Digest of manifest.json.
    """

    folder: Path
    run_id: str
    n_images: int
    n_marks_read_back: int
    seed: int
    manifest_sha256: str


def sample_run(request: SampleRequest, console: Console) -> Sampled:
    """Draw images from a run's released checkpoint.

    Args:
        request: Which images to draw.
        console: Shows progress; a stop request leaves nothing behind.

    Raises:
        ConfigError: The run, the number, the seed or the folder cannot be used.
        SettingsError: The generator cannot be loaded, or it knows no such plane or machine.
        EvidenceError: A file of the run is missing or is not the one on record.
        WeightsError: The checkpoint is not the one on record.
        ResourceError: Not enough disk space or memory.
        ProcessError: The generator's own code failed.
        InterruptedByUser: A stop was asked for.
    """
    _check_numbers(request)
    run = read_run(find_run(request.run, request.workspace))
    size = run.training.image_size_px
    out = _out_folder(request, run)
    _check_space(out, request.n, size)
    if request.visible_mark:
        burn_in(np.zeros((1, size, size), np.uint8))  # refuses small images before one is drawn
    state = run.checkpoint()
    if run.rollup.gate is not Gate.PASSED:
        console.warn(f"run {run.identity.run_id}: {run.rollup.verdict}")
    seed = run.identity.seed if request.seed is None else request.seed
    with _foreign_code(request.n, console):
        generator = run.generator_type(run.settings)
        generator.load_state(state)
        context = _context(seed, _device(request.compute_device, run.training), console)
        pixels = _draw(generator, request.n, context, request.condition)
    pixels = _checked(pixels, request.n, run)
    if request.visible_mark:
        pixels = burn_in(pixels)
    mark = SyntheticMark(
        generator=run.training.generator,
        run_id=run.identity.run_id,
        checkpoint_sha256=run.training.checkpoint_sha256,
        seed=seed,
        index=0,
        licence=LICENCE,
        plane=request.condition.plane,
        machine=request.condition.machine,
        visible=request.visible_mark,
    )
    return _write(out, pixels, mark, _facts(run, context.compute_device), console)


def _check_numbers(request: SampleRequest) -> None:
    if request.n < 1:
        raise ConfigError(f"-n: expected at least 1 image, found {request.n}")
    if request.seed is not None and not 0 <= request.seed < 2**32:
        raise ConfigError(f"--seed: expected 0 to {2**32 - 1}, found {request.seed}")


# ---------------------------------------------------------------- drawing


def _device(wanted: str | None, training: TrainingRecord) -> str:
    import torch

    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if wanted is None:
        return training.compute_device if available.get(training.compute_device) else "cpu"
    if not available.get(wanted):
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise ConfigError(f"--device: {wanted!a} is not available here; available: {there}")
    return wanted


def _context(seed: int, device: str, console: Console) -> TrainingContext:
    return TrainingContext(
        seed=seed,
        compute_device=device,
        log=lambda _stage, _step, _values: None,
        progress=console.progress,
        should_stop=lambda: console.stop.signal_number is not None,
    )


def _draw(generator: Generator, n: int, context: TrainingContext, condition: Condition) -> Pixels:
    if condition == Condition():
        return generator.sample(n, context)
    if not takes_condition(generator):
        raise ConfigError(f"{generator.name}: knows no condition; leave plane and machine out")
    return generator.sample(n, context, condition)


@contextmanager
def _foreign_code(n: int, console: Console) -> Iterator[None]:
    """Turn errors of a generator's own code into ResourceError or ProcessError."""
    try:
        yield
    except MedisynthGovError:
        raise
    except StoppedError:
        console.stop.check()
        raise
    except Exception as error:
        text = first_line(error)
        if isinstance(error, MemoryError) or any(words in text.lower() for words in _NO_MEMORY):
            smaller = f"try -n {max(1, n // 4)}" if n > 1 else "use a machine with more of it"
            raise ResourceError(
                f"not enough memory to draw {n:,} images ({text or 'the system refused'}); "
                f"{smaller}"
            ) from error
        raise ProcessError(
            f"the generator failed: {type(error).__name__}: {text}", code="T901"
        ) from error


def _checked(pixels: Any, n: int, run: ReleasedModel) -> Pixels:
    size = run.training.image_size_px
    shape, kind = getattr(pixels, "shape", None), str(getattr(pixels, "dtype", "no array"))
    if shape != (n, size, size) or kind != "uint8":
        raise ProcessError(
            f"the generator failed: expected images of shape ({n}, {size}, {size}) and uint8, "
            f"found {shape} and {kind}",
            code="T901",
        )
    return np.asarray(pixels, np.uint8)


# ---------------------------------------------------------------- writing


def _out_folder(request: SampleRequest, run: ReleasedModel) -> Path:
    """Return the absolute path to write to; it must be new or empty, and in no run folder."""
    if request.out is None:
        parent = run.folder.parent
        inside = parent.parent if parent.name == "runs" else Path()
        samples = (request.workspace or inside).resolve() / "samples"
        return _unused(samples / f"{run.folder.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    out = request.out.expanduser().resolve()
    refuse_in_data("--out", out)
    for folder in (out, *out.parents):
        if (folder / JOURNAL).exists() and (folder / RunIdentity.PATH).exists():
            raise ConfigError(f"--out: {out} is in the run folder {folder}; name one outside it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out: {out} exists already; name a new or empty folder")
    return out


def _unused(path: Path) -> Path:
    candidates = (path if k == 1 else path.with_name(f"{path.name}-{k}") for k in range(1, 1000))
    return next(candidate for candidate in candidates if not candidate.exists())


def _check_space(out: Path, n: int, size: int) -> None:
    """Raise ResourceError if the images fit neither on the disk nor in half the memory."""
    there = next(folder for folder in (out, *out.parents) if folder.is_dir())
    each = size * size + _BYTES_BESIDE_PIXELS
    free = shutil.disk_usage(there).free
    if n * each > free:
        raise ResourceError(
            f"{out}: {n:,} images need up to {n * each:,} bytes, {free:,} are free; "
            f"try -n {max(1, free // each)} or another folder"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if n * size * size > memory // 2:
        raise ResourceError(
            f"not enough memory to draw {n:,} images at once ({memory:,} bytes); "
            f"try -n {max(1, memory // 4 // (size * size))} and another seed for more"
        )


def _facts(run: ReleasedModel, device: str) -> dict[str, Any]:
    """Return the manifest's other entries; without a time, so that the manifest is repeatable."""
    return {
        "tool_version": tool_version(),
        "tool_version_of_run": run.identity.tool_version,
        "generator_code": str(run.origin),
        "gate_of_run": run.rollup.gate.value,
        "compute_device": device,
    }


def _write(
    out: Path, pixels: Pixels, first: SyntheticMark, facts: dict[str, Any], console: Console
) -> Sampled:
    """Write images and manifest to a temporary folder, check the marks, move it into place."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = working_name(out)
        part.mkdir()
    except OSError as error:
        raise MachineError(
            f"{out}: cannot be made ({error.strerror or error}); name another folder with --out"
        ) from error
    try:
        files, n_read_back = _write_images(part, pixels, first, console)
        common = asdict(first)
        del common["index"]
        written = {
            **facts,
            "n_images": len(files),
            "image_size_px": int(pixels.shape[1]),
            "condition": {"plane": first.plane, "machine": first.machine},
            "n_marks_read_back": n_read_back,
            "mark": {"synthetic": True, **common},
            "files": files,
        }
        manifest_sha256 = write_atomic(part / SAMPLES_MANIFEST, _to_bytes(written))
        console.stop.check()
        part.rename(out)
    except OSError as error:
        raise MachineError(
            f"{out}: cannot be written ({error.strerror or error}); name another folder with --out"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Sampled(out, first.run_id, len(files), n_read_back, first.seed, manifest_sha256)


def _to_bytes(facts: dict[str, Any]) -> bytes:
    text = json.dumps(facts, sort_keys=True, indent=1, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _write_images(
    folder: Path, pixels: Pixels, first: SyntheticMark, console: Console
) -> tuple[list[dict[str, Any]], int]:
    """Write each image, read its mark back; return manifest entries and number of marks."""
    n_read_back = 0
    files: list[dict[str, Any]] = []
    for begin in range(0, len(pixels), WRITTEN_TOGETHER):
        images: dict[Path, bytes] = {}
        for index in range(begin, min(begin + WRITTEN_TOGETHER, len(pixels))):
            data = marked_png(pixels[index], replace(first, index=index))
            images[folder / f"{index:05d}.png"] = data
            console.progress("writing images", index + 1, len(pixels))
        write_together(images)
        for index, (path, data) in enumerate(images.items(), start=begin):
            n_read_back += read_mark(path.read_bytes()) == replace(first, index=index)
            drawn = np.ascontiguousarray(pixels[index]).tobytes()
            entry = {"path": path.name, "index": index, "sha256": sha256_bytes(data)}
            files.append(entry | {"pixel_sha256": sha256_bytes(drawn)})
    if n_read_back < len(files):
        raise MachineError(
            f"{len(files) - n_read_back:,} of {len(files):,} marks could not be read back from the "
            "files; nothing was kept: check the disk"
        )
    return files, n_read_back
