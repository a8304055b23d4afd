"""Reading training images: packed uint8 memory map against decoding PNG files."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medisynth.data.phantom import PhantomSettings
from medisynth.data.phantom.cohort import plan_cohort
from medisynth.data.reading.views import ImageView, Pixels, load_view, save_view
from medisynth.models.dsr_gan.batches import Augmentation, augmentation_of, augmented
from medisynth.models.enlarging.images import reduced, to_unit
from tests.benchmarks.interleaved import interleaved, print_table
from tests.benchmarks.published_sizes import write_image

VIEW_SIZE, DIFFUSION_SIZE, BATCH_SIZE = 128, 64, 16
N_PASSES = 20  # over the packed view, which is read too fast to time once
PUBLISHED = Augmentation(flip=True, max_zoom=1.1, max_rotation_rad=0.1)


def loader(n_files: int, repeats: int) -> None:
    """Print images a second of each way, and what decoding alone takes against it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = _write_files(n_files, folder)
        save_view(_packed(paths), folder / "view")
        view = load_view(folder / "view", "training")
        ways: dict[str, tuple[Callable[[], object], int]] = {
            "PNG: decoded": (partial(_decode, paths), 1),
            "PNG: decoded, reduced to 128 x 128, batch of tensors": (partial(_batches, paths), 1),
            "packed: batch of tensors, 128 x 128": (
                partial(_packed_batches, view, _plain),
                N_PASSES,
            ),
            "packed: and reduced to 64 x 64": (partial(_packed_batches, view, _reduced), N_PASSES),
            "packed: and mirrored, zoomed, rotated, reduced to 64 x 64": (
                partial(_packed_batches, view, _augmented),
                N_PASSES,
            ),
        }
        times = interleaved({name: way for name, (way, _) in ways.items()}, repeats)
        sizes = sorted({f"{w} x {h}" for w, h in map(_size, paths)})
    seconds = {name: times[name].least / n / n_files for name, (_, n) in ways.items()}
    decoding, batches, *_ = seconds.values()
    rows = [
        [name, f"{1 / each:,.0f}", f"{decoding / each:.1f}", f"{batches / each:.1f}"]
        for name, each in seconds.items()
    ]
    header = ["one process", "images a second", "x decoding", "x decoding to batches"]
    print_table(f"Loader, {n_files} phantoms of {', '.join(sizes)} pixels", header, rows)


def _write_files(n: int, folder: Path) -> list[Path]:
    """Write phantoms at published sizes."""
    images = plan_cohort(PhantomSettings(n_patients=n, annotations=False))[:n]
    for image in images:
        write_image((image, folder))
    return sorted(folder.glob("*.png"))


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _decode(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as image:
            image.load()


def _batches(paths: list[Path]) -> None:
    for start in range(0, len(paths), BATCH_SIZE):
        pixels = np.stack([_small(path) for path in paths[start : start + BATCH_SIZE]])
        to_unit(pixels, "cpu")


def _small(path: Path) -> Pixels:
    with Image.open(path) as image:
        grey = image.convert("L").resize((VIEW_SIZE, VIEW_SIZE), Image.Resampling.BOX)
    return np.asarray(grey)


def _packed(paths: list[Path]) -> ImageView:
    names = tuple(path.stem for path in paths)
    nothing = ("",) * len(paths)
    return ImageView(
        "training", np.stack([_small(path) for path in paths]), names, names, nothing, nothing
    )


def _packed_batches(view: ImageView, prepare: Callable[[ImageView, list[int]], object]) -> None:
    """Batches in a drawn order, every image once a pass."""
    for seed in range(N_PASSES):
        order: list[int] = np.random.default_rng(seed).permutation(len(view)).tolist()
        for start in range(0, len(order), BATCH_SIZE):
            prepare(view, order[start : start + BATCH_SIZE])


def _plain(view: ImageView, rows: list[int]) -> torch.Tensor:
    return to_unit(view.pixels[rows], "cpu")


def _reduced(view: ImageView, rows: list[int]) -> torch.Tensor:
    return reduced(_plain(view, rows), DIFFUSION_SIZE)


def _augmented(view: ImageView, rows: list[int]) -> torch.Tensor:
    draws = [augmentation_of(PUBLISHED, 0, "benchmark", 0, row) for row in rows]
    moved, _ = augmented(_plain(view, rows), draws)
    return reduced(moved, DIFFUSION_SIZE)
