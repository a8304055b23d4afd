"""Findings from pictures: effect of a black reference on FID, and source frames of pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from governance.records.errors import DataError
from medisynth.data.reading.decode import decode_bytes
from medisynth.data.reading.views import Pixels
from medisynth.metrics.features import Features
from medisynth.metrics.frechet import frechet_distance
from medisynth.studies.midl2023.findings import (
    CODE,
    PAPER,
    Finding,
    Value,
    Verdict,
    not_evaluated,
    number,
)
from medisynth.studies.midl2023.log_files import TB_FID_FILE, Logs

Extract = Callable[[Pixels], dict[int, Features]]

MAX_FRAMES = 200
FEWEST_FRAMES = 4
SIDE_PX = 256
THUMBNAIL_PX = (64, 48)
"""Width and height of the reduced pictures that are correlated to find copies."""

_WHITE = 255
_DISTANCE_RULE = (
    "frames to 256 x 256, pytorch-fid's Inception up to its first pooling (64 features, mean over "
    "the picture), Fréchet distance"
)


@dataclass(frozen=True)
class Frame:
    """One picture.

    Attributes:
        name: File name without its suffix.
        grey: Shape (height, width), uint8.
    """

    name: str
    grey: Pixels


@dataclass(frozen=True)
class Distances:
    """Fréchet distances of one folder of real frames, by feature size of the layer.

    Attributes:
        folder: Name of the folder.
        n_frames: Frames used.
        n_halves: Frames in each of the two halves.
        black: Distance between the frames and the frames as cast by the published code.
        halves: Distance of the two halves of the frames from each other.
    """

    folder: str
    n_frames: int
    n_halves: tuple[int, int]
    black: Mapping[int, float]
    halves: Mapping[int, float]


def read_frames(
    folder: Path, reduce: Callable[[Pixels], Pixels], largest: int | None = None
) -> tuple[Frame, ...]:
    """Read the PNG files of a folder, in order of name.

    Args:
        folder: Folder with PNG files; others are passed over.
        reduce: `square` or `thumbnail`, applied to each as it is read: thousands of whole frames
            would not fit into memory.
        largest: Most frames to read, evenly spaced; None reads all.

    Raises:
        DataError: The folder is missing or holds no PNG, or a file is damaged.
    """
    paths = sorted(folder.glob("*.png")) if folder.is_dir() else []
    if not paths:
        raise DataError(f"{folder.name}: is not a folder with PNG files", code="D105")
    if largest is not None and len(paths) > largest:
        places = np.linspace(0, len(paths) - 1, largest).round().astype(int)
        paths = [paths[place] for place in places]
    frames = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(
                f"{path.name}: cannot be read ({error.strerror}); check its permissions",
                code="D105",
            ) from error
        frames.append(Frame(path.stem, reduce(decode_bytes(data, path.name).grey)))
    return tuple(frames)


def cast_reference(pixels: Pixels) -> Pixels:
    """Cast real frames as the published code does: scale to 0 to 1, then cast to whole numbers.

    Pixels of the largest value become 1, all others 0.

    Args:
        pixels: Shape (n, height, width), uint8.

    Returns:
        The same shape, uint8, values 0 and 1.
    """
    return (pixels // _WHITE).astype(np.uint8)


def two_halves(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices of two halves that share no patient or examination.

    The part of the name before the first underscore is taken as patient or examination; these are
    dealt in order of name, to either half in turn.
    """
    groups = {group: i for i, group in enumerate(sorted({_group(name) for name in names}))}
    sides: tuple[list[int], list[int]] = ([], [])
    for place, name in enumerate(names):
        sides[groups[_group(name)] % 2].append(place)
    return sides


def _group(name: str) -> str:
    return name.split("_", 1)[0]


def distances(folder: str, frames: Sequence[Frame], extract: Extract) -> Distances | None:
    """Compute the distances of real frames from their cast versions and between their halves.

    Returns:
        None where a half would have fewer than two frames.
    """
    first, second = two_halves([frame.name for frame in frames])
    if min(len(first), len(second)) < FEWEST_FRAMES // 2:
        return None
    pixels = np.stack([square(frame.grey) for frame in frames])
    real, black = extract(pixels), extract(cast_reference(pixels))
    return Distances(
        folder,
        len(frames),
        (len(first), len(second)),
        {size: frechet_distance(black[size], real[size]) for size in real},
        {size: frechet_distance(real[size][first], real[size][second]) for size in real},
    )


def square(grey: Pixels) -> Pixels:
    """Stretch a picture to 256 x 256, bilinear, as the published code does."""
    return np.asarray(Image.fromarray(grey).resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


def layer_scales(measured: Sequence[Distances]) -> tuple[Value, ...]:
    """FID of one pair of sets at both layers, to show their different scales."""
    values = []
    for found in measured:
        for what, by_layer in (("black against real", found.black), ("two halves", found.halves)):
            low, high = by_layer[64], by_layer[192]
            values.append(
                Value(
                    f"{found.folder}, {what}, 64 and 192 features",
                    high / low if low else None,
                    f"{low:.2f} and {high:.2f}" + (f", ratio {high / low:.2f}" if low else ""),
                    "Fréchet distance of the same sets at both layers",
                )
            )
    return tuple(values)


def black_reference(logs: Logs, measured: Sequence[Distances]) -> Finding:
    """Compare FID on 64 features against a black reference with the logged mean."""
    mean = float(logs.tb_fid.mean())
    values = [number("mean of TB-GAN's FID log", mean, f"mean of {len(logs.tb_fid)} values")]
    for found in measured:
        values += _black_values(found)
    nearer = all(abs(mean - found.black[64]) < abs(mean - found.halves[64]) for found in measured)
    return Finding(
        "3",
        "Reference of TB-GAN's FID",
        '"average 36.02", a distance between synthesised and original images',
        f"{PAPER}, abstract and section 2.3 Image Quality Assessment",
        tuple(values),
        Verdict.UNDECIDED,
        "The stored reference is not public. The logged mean is "
        + (
            "nearer to what real frames score against black than to what they score against other "
            "real frames, in every folder."
            if nearer
            else "not nearer to black against real than to real against real in every folder."
        ),
        f"{TB_FID_FILE}, the images",
        "the reference is made from values in 0 to 1 cast to whole numbers "
        f"({CODE}, notebooks/style-swin-gan/data_preprocessing.ipynb)",
    )


def _black_values(found: Distances) -> list[Value]:
    a, b = found.n_halves
    return [
        number(
            f"{found.folder}: black against {found.n_frames} real frames",
            found.black[64],
            f"{_DISTANCE_RULE}; black is the same frames, each value divided by 255 and cut to a "
            "whole number",
        ),
        number(
            f"{found.folder}: {a} against {b} other real frames",
            found.halves[64],
            f"{_DISTANCE_RULE}; patients, by the name before the first underscore, dealt in turn",
        ),
    ]


def black_reference_missing(reason: str) -> Finding:
    """Return finding 3 as not evaluated, for lack of images or weights."""
    return not_evaluated(
        "3",
        "Reference of TB-GAN's FID",
        claim='"average 36.02", a distance between synthesised and original images',
        where=f"{PAPER}, abstract and section 2.3 Image Quality Assessment",
        reason=reason,
        source=TB_FID_FILE,
    )


def source_named(synthetic: str, real: Sequence[str]) -> str | None:
    """Return the real frame whose name a synthetic picture's name ends with, or None."""
    ends = [name for name in real if synthetic.endswith(f"_of_{name}")]
    return max(ends, key=len) if ends else None


def correlation(a: Pixels, b: Pixels) -> float:
    """Pearson correlation of two pictures reduced to 64 x 48 pixels; 0 for a constant one."""
    x, y = _centred(thumbnail(a)), _centred(thumbnail(b))
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0


def thumbnail(grey: Pixels) -> Pixels:
    """Stretch a picture to 64 x 48, Lanczos; one of that size stays as it is."""
    return np.asarray(Image.fromarray(grey).resize(THUMBNAIL_PX, Image.Resampling.LANCZOS))


def _centred(small: Pixels) -> NDArray[np.float64]:
    values: NDArray[np.float64] = small.astype(np.float64).ravel()
    values -= values.mean()
    return values


def known_positive(synthetic: Sequence[Frame], real: Sequence[Frame]) -> Finding:
    """Check whether a picture made from a named real frame is nearest to that frame."""
    pairs = [(s, n) for s in synthetic if (n := source_named(s.name, [r.name for r in real]))]
    if not pairs:
        return known_positive_missing(
            "no synthetic picture is named …_of_NAME after one of the real frames given"
        )
    picture, source = pairs[0]
    scored = [(correlation(picture.grey, frame.grey), frame.name) for frame in real]
    own = max(value for value, name in scored if name == source)
    others = [(value, name) for value, name in scored if name != source]
    rank = 1 + sum(value > own for value, _ in others)
    rule = "Pearson correlation of both pictures, grey, reduced to 64 x 48 (Lanczos)"
    values = [
        number(f"correlation with {source}", own, rule),
        Value("its rank", rank, f"{rank} of {len(scored)}", "1 is the most similar"),
    ]
    if others:
        value, nearest = max(others)
        values.append(number(f"next most similar frame, {nearest}", value, rule))
    return Finding(
        "7",
        "A synthetic picture made from a named patient's frame",
        f"image-to-image output whose name ends in {source}",
        "file name; github.com/13204942/Ultra-Lora",
        tuple(values),
        Verdict.REPRODUCED if rank == 1 else Verdict.NOT_AS_STATED,
        "The frame that the name gives is the most similar of all: a positive for checks that look "
        "for copies of patients."
        if rank == 1
        else "Another frame is more similar than the one that the name gives.",
        f"{picture.name}.png, {len(scored)} real frames",
    )


def known_positive_missing(reason: str) -> Finding:
    """Return finding 7 as not evaluated, for lack of pictures."""
    return not_evaluated(
        "7",
        "A synthetic picture made from a named patient's frame",
        claim="image-to-image output whose name gives the real frame that it was made from",
        where="file name; github.com/13204942/Ultra-Lora",
        reason=reason,
        source="none",
    )
