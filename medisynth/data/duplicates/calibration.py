"""What the search finds in the data at hand: copies of its own images, changed in known ways.

How far a copy may be changed depends on the images: fine speckle on a small frame is lost when it
is resized, and a crop moves more of it. So the search is tried on the data set itself.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from governance.records.duplicates import CopyRecall
from medisynth.data.duplicates.search import find_duplicates
from medisynth.data.reading.alterations import grey, recompressed
from medisynth.data.reading.decode import to_thumbnail

Grey = NDArray[np.uint8]
Change = Callable[[Grey, np.random.Generator], Grey]

_LARGEST_PX = 512  # larger frames are reduced first, as the search reduces them far more


def _recompressed(image: Grey, _rng: np.random.Generator) -> Grey:
    return recompressed(image, 60)


def _resized(image: Grey, _rng: np.random.Generator) -> Grey:
    height, width = image.shape
    size = (max(1, round(0.5 * width)), max(1, round(0.5 * height)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _brighter(image: Grey, _rng: np.random.Generator) -> Grey:
    return grey(1.2 * 255 * (image / 255) ** 0.85 + 10)


def _next_frame(image: Grey, rng: np.random.Generator) -> Grey:
    from scipy.ndimage import gaussian_filter, shift

    reach = 0.006 * image.shape[1]
    moved = shift(image.astype(np.float32), rng.uniform(-reach, reach, 2), order=1, mode="nearest")
    noise = gaussian_filter(rng.standard_normal(image.shape), 1.2)
    changed: Grey = np.clip(moved * (1 + 0.2 * noise / noise.std()), 0, 255).astype(np.uint8)
    return changed


def mirrored(image: Grey, _rng: np.random.Generator) -> Grey:
    """Mirror left to right."""
    return image[:, ::-1]


def turned(image: Grey, _rng: np.random.Generator) -> Grey:
    """Turn by 180 degrees."""
    return image[::-1, ::-1]


def cropped(share: float) -> Change:
    """Cut a share of width and height away, divided at random between opposite sides."""

    def crop(image: Grey, rng: np.random.Generator) -> Grey:
        height, width = image.shape
        cut_y, cut_x = round(share * height), round(share * width)
        top, left = int(rng.integers(cut_y + 1)), int(rng.integers(cut_x + 1))
        return image[top : top + height - cut_y, left : left + width - cut_x]

    return crop


def cropped_all_round(share: float) -> Change:
    """Cut a share of width and height away on each of the four sides."""

    def crop(image: Grey, _rng: np.random.Generator) -> Grey:
        height, width = image.shape
        y, x = round(share * height), round(share * width)
        return image[y : height - y, x : width - x]

    return crop


def _rotated(image: Grey, _rng: np.random.Generator) -> Grey:
    turned = Image.fromarray(image).rotate(3, resample=Image.Resampling.BILINEAR)
    return np.asarray(turned, dtype=np.uint8)


CHANGES: dict[str, Change] = {
    "recompressed (JPEG 60)": _recompressed,
    "resized to half": _resized,
    "brighter, other gamma": _brighter,
    "next frame (moved up to 0.6 %, fresh speckle)": _next_frame,
    "mirrored left to right": mirrored,
    "turned by 180 degrees": turned,
    "3 % of width and height cropped": cropped(0.03),
    "8 % of width and height cropped": cropped(0.08),
    "8 % cropped on each side": cropped_all_round(0.08),
    "turned by 3 degrees": _rotated,
}


def chosen_rows(n_images: int, n_most: int, seed: int) -> list[int]:
    """Places of the images that are copied: at most `n_most`, without repetition, ascending."""
    rng = np.random.default_rng([seed, n_images])
    return sorted(rng.choice(n_images, min(n_most, n_images), replace=False).tolist())


def calibrate(frames: list[Grey], seed: int) -> tuple[CopyRecall, ...]:
    """Count how many changed copies of images the search pairs with their originals.

    Args:
        frames: Images at their own size, uint8; those of one grey level are left out, as no search
            tells their copies from one another.
        seed: Decides the random part of the changes.

    Returns:
        One count a kind of change. Optimistic in one way: only the copied images are searched, so
        that no copy is crowded out by more alike ones; that happens in sets of more than 64
        mutual copies alone. Empty without a frame.
    """
    frames = [_smaller(frame) for frame in frames if frame.min() != frame.max()]
    if not frames:
        return ()
    originals = np.stack([to_thumbnail(frame) for frame in frames])
    found = []
    for number, (kind, change) in enumerate(CHANGES.items()):
        copies = np.stack(
            [
                to_thumbnail(np.ascontiguousarray(change(frame, rng)))
                for k, frame in enumerate(frames)
                for rng in [np.random.default_rng([seed, number, k])]
            ]
        )
        found.append(_recall(kind, originals, copies))
    return tuple(found)


def _smaller(frame: Grey) -> Grey:
    factor = -(-max(frame.shape) // _LARGEST_PX)
    return frame if factor == 1 else np.asarray(Image.fromarray(frame).reduce(factor))


def _recall(kind: str, originals: Grey, copies: Grey) -> CopyRecall:
    n = len(originals)
    names = [f"original {k}" for k in range(n)] + [f"copy {k}" for k in range(n)]
    table = pd.DataFrame(dict.fromkeys(("image_id", "patient_id", "file_sha256"), names))
    table["pixel_sha256"] = names
    pairs = {
        frozenset((pair.left_id, pair.right_id))
        for pair in find_duplicates(table, np.concatenate([originals, copies])).pairs
    }
    n_found = sum(frozenset((f"original {k}", f"copy {k}")) in pairs for k in range(n))
    return CopyRecall(kind=kind, n_planted=n, n_found=n_found)
