"""Images made elsewhere, in the place of a generator: nothing is trained, images are read."""

from hashlib import sha256
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from governance.records.errors import DataError, WeightsError
from governance.records.training import Candidate, FitReport, Selection
from medisynth.data.reading.decode import Fit, decode_bytes, to_square
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Condition, Tensors, TrainingContext

NAME = "made-elsewhere"
_UNKNOWN = "not known: the images were made elsewhere"
_FIELDS = (
    *("architecture", "sizes", "losses", "optimiser", "schedule", "augmentation"),
    *("pre-training", "sampler"),
)


class ElsewhereSettings(BaseModel):
    """Where the images lie and how they are read.

    Attributes:
        folder: Folder of PNG images, read with its sub-folders, in the order of their paths.
        digest: SHA-256 over the paths and bytes of the images, as `folder_digest` gives it.
        size: Side that images are brought to, in pixels.
        fit: How a frame becomes square.
        has_training: Whether the images that the generator was trained on were given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=16, le=4096)
    fit: Fit = "pad"
    has_training: bool = False


def image_files(folder: Path) -> list[Path]:
    """Return the PNG files of a folder and its sub-folders, sorted by their relative path."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() == ".png")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over relative path and bytes of every image of a folder, in order."""
    digest = sha256()
    for path in image_files(folder):
        name = path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape")
        digest.update(sha256(name).digest() + sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class MadeElsewhere:
    """The images of a folder, as if a generator drew them."""

    name = NAME
    title = "Images made elsewhere"
    Settings = ElsewhereSettings

    def __init__(self, settings: ElsewhereSettings) -> None:
        self._settings = settings

    @staticmethod
    def image_size_px(settings: ElsewhereSettings) -> int:
        """Side of the square images, in pixels."""
        return settings.size

    @staticmethod
    def pretrained_files(settings: ElsewhereSettings) -> tuple[str, ...]:
        """Return the folder that the confined process must read."""
        return (settings.folder,)

    def fit(self, training: ImageView, tuning: ImageView, context: TrainingContext) -> FitReport:
        """Train nothing; say that nothing is known.

        Raises:
            DataError: The images are not those that were given.
        """
        if folder_digest(Path(self._settings.folder)) != self._settings.digest:
            raise DataError(
                f"{self._settings.folder}: the synthetic images changed while they were assessed; "
                "assess them again"
            )
        selection = Selection(
            partition=tuning.partition,
            view_sha256=tuning.digest,
            criterion="none: nothing was chosen here",
            candidates=(Candidate(step=0, score=0.0),),
            chosen_step=0,
        )
        description = dict.fromkeys(_FIELDS, _UNKNOWN)
        return FitReport(description=description, stages=(), fitted=(), selection=selection)

    def sample(
        self, n: int, context: TrainingContext, condition: Condition | None = None
    ) -> Pixels:
        """Return the first n images, shape (n, size, size), uint8.

        Raises:
            DataError: There are fewer, or one cannot be read.
        """
        folder = Path(self._settings.folder)
        files = image_files(folder)[:n]
        if len(files) < n:
            raise DataError(f"{folder}: found {len(files):,} images, expected {n:,}")
        images = []
        for done, path in enumerate(files, start=1):
            grey = decode_bytes(path.read_bytes(), path.relative_to(folder).as_posix()).grey
            images.append(to_square(grey, self._settings.size, self._settings.fit))
            context.progress("reading synthetic images", done, n)
        return np.stack(images)

    def state(self) -> Tensors:
        """Return the digest of the images, which stands for the generator."""
        import torch

        return {"digest": torch.tensor(list(bytes.fromhex(self._settings.digest)))}

    def load_state(self, tensors: Tensors) -> None:
        """Check the digest.

        Raises:
            WeightsError: It is that of other images.
        """
        import torch

        own = self.state()["digest"]
        if set(tensors) != {"digest"} or not torch.equal(tensors["digest"], own):
            raise WeightsError("the checkpoint stands for other images than those of this folder")
