"""Packed views: the only form in which a generator ever sees images."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from governance.records.errors import DataError

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class ImageView:
    """Images of one partition, decoded and packed.

    Attributes:
        partition: "training" or "tuning".
        pixels: Grey images, shape (n, size, size), uint8, 0 to 255.
        image_ids: Id of each image, length n.
        patient_ids: Patient of each image, length n.
        planes: Plane label of each image ("" when not recorded), length n.
        machines: Machine of each image ("" when not recorded), length n.
    """

    partition: str
    pixels: Pixels
    image_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    planes: tuple[str, ...]
    machines: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def digest(self) -> str:
        """SHA-256 over labels and pixels: equal views have equal digests."""
        digest = hashlib.sha256(self._labels())
        digest.update(np.ascontiguousarray(self.pixels).tobytes())
        return digest.hexdigest()

    def _labels(self) -> bytes:
        labels = {
            "partition": self.partition,
            "shape": list(self.pixels.shape),
            "image_ids": self.image_ids,
            "patient_ids": self.patient_ids,
            "planes": self.planes,
            "machines": self.machines,
        }
        return json.dumps(labels, sort_keys=True, separators=(",", ":")).encode()


def save_view(view: ImageView, folder: Path) -> None:
    """Write `<partition>.npy` (uint8) and `<partition>.json` (labels) into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{view.partition}.json").write_bytes(view._labels())
    np.save(folder / f"{view.partition}.npy", view.pixels, allow_pickle=False)


def load_view(folder: Path, partition: str) -> ImageView:
    """Read a view as a read-only memory map.

    Raises:
        DataError: A file is missing or pixels and labels do not fit each other.
    """
    try:
        labels = json.loads((folder / f"{partition}.json").read_bytes())
        pixels = np.load(folder / f"{partition}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot read the {partition} view ({error})") from error
    if list(pixels.shape) != labels.pop("shape"):
        raise DataError(f"{folder}: {partition} view has other pixels than its labels say")
    return ImageView(
        partition=labels.pop("partition"),
        pixels=pixels,
        **{key: tuple(value) for key, value in labels.items()},
    )
