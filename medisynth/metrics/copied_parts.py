"""Search for training images of which a synthetic image shows the whole or a part.

Ultrasound speckle is as good as a fingerprint: where two images agree in it over a fair part of the
picture, one is a copy of the other. Two steps keep the search cheap. Every training image is moved
over the synthetic one, coarsely, by its Fourier transform; the best few are then compared closely,
window by window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from governance.records.errors import MetricUndefinedError
from medisynth.data.reading.alterations import enlarged
from medisynth.data.reading.views import Pixels
from medisynth.metrics.memorisation import area_means

SMALLEST_PX = 24  # side of the smallest images in which speckle can be told apart

_COARSE, _ZOOMED, _CLOSE = 48, 32, 96  # sides of the reduced images
_ZOOMS = (0.88, 1.14)  # with them a copy enlarged by 0.8 to 1.25 is at most 7 % off
_MIDDLE = 0.18  # standard deviation of the window on the middle, over the side
_WHITENING = 0.5
_REACH = 3  # pixels that the close comparison moves the windows by
_WINDOW, _STRIDE = 28, 8  # pixels of 96; smaller images get smaller windows
_PART = 0.15  # share of the windows with picture that must agree
_LEAST_WINDOWS = 4
_BLOCK = 16  # images at a time: bounds memory

Spectra = torch.Tensor


class Match(NamedTuple):
    """Training image of which an image shows the whole or a part, for each image.

    Attributes:
        source: Row of the training image, shape (n,).
        agreement: Correlation that the best 15 % of the windows with picture reach or exceed,
            shape (n,), -1 to 1: 1 is a copy.
    """

    source: NDArray[np.intp]
    agreement: NDArray[np.float64]


class _Detail(NamedTuple):
    """How an image is made comparable at one size."""

    side: int
    fine: float  # pixels: standard deviation of the blur taken away
    even: float  # pixels: of that by which contrast is evened out


@dataclass(frozen=True)
class _Level:
    """Training images at one size, for the coarse step."""

    detail: _Detail
    mean: torch.Tensor
    weights: torch.Tensor
    spectra: Spectra


class PartSearch:
    """Search among training images; made once, asked many times."""

    def __init__(
        self,
        training: Pixels,
        patients: Sequence[str],
        progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        """Prepare the training images.

        Args:
            training: Images, shape (t, size, size), uint8, t at least 2.
            patients: Patient of each, length t.
            progress: Called with the number of images searched so far, after each block of them.

        Raises:
            MetricUndefinedError: Fewer than two images, or smaller than 24 pixels.
        """
        if len(training) < 2 or min(training.shape[1:]) < SMALLEST_PX:
            raise MetricUndefinedError(
                f"a search for copied parts needs 2 training images of {SMALLEST_PX} pixels, got "
                f"{len(training)} of {min(training.shape[1:])}"
            )
        size = min(training.shape[1:])
        self._progress, self._done = progress, 0
        self._patients = np.asarray(patients, dtype=str)
        self._coarse = _level(training, _Detail(min(_COARSE, size), 1.5, 5.0))
        self._zoomed = _level(training, _Detail(min(_ZOOMED, size), 1.5, 4.0))
        self._close = _Detail(min(_CLOSE, size), 2.0, 10.0)
        self._references = _detail(training, self._close)

    def find(self, images: Pixels, not_of: Sequence[str] | None = None) -> Match:
        """Find the training image that agrees best with each image, or with a part of it.

        Copies are found as they are, mirrored left to right, moved, enlarged or reduced by up to a
        fifth, in other grey levels, and where only a half or the middle is a copy.

        Args:
            images: Shape (n, size, size), uint8, of the size of the training images.
            not_of: Patient of each image, whose training images are left out; None leaves out none.
        """
        found = []
        for start in range(0, len(images), _BLOCK):
            some = slice(start, start + _BLOCK)
            found.append(self._block(images[some], None if not_of is None else not_of[some]))
            self._done += len(images[some])
            self._progress(self._done)
        if not found:
            return Match(np.zeros(0, np.intp), np.zeros(0))
        return Match(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def _block(self, images: Pixels, not_of: Sequence[str] | None) -> Match:
        left_out = None
        if not_of is not None:
            own = np.asarray(not_of, dtype=str)[:, None] == self._patients[None, :]
            left_out = torch.from_numpy(own)
        index = np.zeros(len(images), np.intp)
        agreement = np.full(len(images), -1.0)
        for factor in (1.0, *_ZOOMS):
            views = images if factor == 1 else np.stack([enlarged(x, factor) for x in images])
            level = self._coarse if factor == 1 else self._zoomed
            coarse, close = _detail(views, level.detail), _detail(views, self._close)
            for flip in (False, True):
                part = coarse.flip(2) if flip else coarse
                query = close.flip(2) if flip else close
                # Best over the whole picture, and in its middle, where the head is.
                centred = [part - level.mean]
                if factor == 1:
                    centred.append(centred[0] * _middle(level.detail.side))
                for number, asked in enumerate(centred):
                    n_best = 2 if factor == 1 and number == 0 else 1
                    rows, shifts = _best_shifts(asked, level, n_best, left_out)
                    for best in range(n_best):
                        found = self._compare(query, rows[:, best], shifts[:, best], level)
                        better = found > agreement
                        agreement[better], index[better] = found[better], rows[better, best]
        return Match(index, agreement)

    def _compare(
        self, query: torch.Tensor, rows: NDArray[np.intp], shifts: torch.Tensor, level: _Level
    ) -> NDArray[np.float64]:
        scale = self._close.side / level.detail.side
        references = self._references[torch.from_numpy(rows)]
        moved = _moved(references, (shifts * scale).round().long())
        return _agreement(query, moved)


def _level(images: Pixels, detail: _Detail) -> _Level:
    shown = _detail(images, detail)
    mean = shown.mean(dim=0)
    spectra = _transformed(shown - mean)
    # Frequencies that all images are rich in say least about which image it is.
    typical = (spectra.abs() ** 2).mean(dim=0).sqrt()
    weights = 1 / typical.clamp_min(float(typical.max()) * 1e-3 + 1e-12) ** _WHITENING
    return _Level(detail, mean, weights, _unit(spectra * weights))


def _detail(images: Pixels, detail: _Detail) -> torch.Tensor:
    """Reduce images, remove their coarse brightness and even out their contrast."""
    from scipy.ndimage import gaussian_filter

    reduced = area_means(images, detail.side).astype(np.float32)

    def smooth(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
        return np.asarray(gaussian_filter(values, (0, sigma, sigma), mode="constant"), np.float32)

    fine = reduced - smooth(reduced, detail.fine)
    contrast = np.sqrt(np.maximum(smooth(fine * fine, detail.even), 0))
    return torch.from_numpy(fine / (contrast + 6.0))  # grey levels: black stays black


def _transformed(images: torch.Tensor) -> Spectra:
    spectra: torch.Tensor = torch.fft.rfft2(images - images.mean(dim=(1, 2), keepdim=True))
    return spectra


def _unit(spectra: Spectra) -> Spectra:
    length = (spectra.abs() ** 2).sum(dim=(1, 2), keepdim=True).sqrt()
    return spectra / length.clamp_min(1e-9)


def _middle(side: int) -> torch.Tensor:
    place = (torch.arange(side) - (side - 1) / 2) / (_MIDDLE * side)
    bell = torch.exp(-(place**2) / 2)
    return bell[:, None] * bell[None, :]


def _best_shifts(
    asked: torch.Tensor, level: _Level, n_best: int, left_out: torch.Tensor | None
) -> tuple[NDArray[np.intp], torch.Tensor]:
    """Return the training images that agree best, (n, n_best), and where, (n, n_best, 2)."""
    side = level.detail.side
    spectra = _unit(_transformed(asked) * level.weights)
    rows, places = [], []
    for number, spectrum in enumerate(spectra):
        maps = torch.fft.irfft2(spectrum.conj() * level.spectra, s=(side, side)).flatten(1)
        highest = maps.amax(dim=1)
        if left_out is not None:
            highest = highest.masked_fill(left_out[number], -1.0)
        best = highest.topk(n_best).indices
        place = maps[best].argmax(dim=1)
        rows.append(best)
        places.append(torch.stack([place // side, place % side], dim=1))
    shifts = (torch.stack(places) + side // 2) % side - side // 2
    return torch.stack(rows).numpy(), shifts


def _moved(images: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Move each image by (rows, columns); what comes in is 0."""
    side = images.shape[1]
    line = torch.arange(side)
    rows = line[None, :, None] + shifts[:, 0, None, None]
    columns = line[None, None, :] + shifts[:, 1, None, None]
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    number = torch.arange(len(images))[:, None, None]
    return images[number, rows.clamp(0, side - 1), columns.clamp(0, side - 1)] * inside


def _agreement(query: torch.Tensor, moved: torch.Tensor) -> NDArray[np.float64]:
    """Correlate windows, each moved by up to 3 pixels; return what the best 15 % reach."""
    side = query.shape[1]
    window = max(round(_WINDOW * side / _CLOSE), 4)
    stride = max(round(_STRIDE * side / _CLOSE), 2)
    mean = _windows(query, window, stride)
    energy = (_windows(query * query, window, stride) - mean * mean).clamp_min(0)
    padded = functional.pad(moved, (_REACH,) * 4)
    own_mean = _windows(padded, window, 1)
    own_energy = (_windows(padded * padded, window, 1) - own_mean * own_mean).clamp_min(0)
    best = torch.full_like(mean, -1.0)
    n_rows = mean.shape[1]
    for row in range(2 * _REACH + 1):
        for column in range(2 * _REACH + 1):
            at = (
                slice(None),
                slice(row, row + stride * (n_rows - 1) + 1, stride),
                slice(column, column + stride * (n_rows - 1) + 1, stride),
            )
            product = query * padded[:, row : row + side, column : column + side]
            both = _windows(product, window, stride) - mean * own_mean[at]
            scale = (energy * own_energy[at]).sqrt().clamp_min(0.02)
            best = torch.maximum(best, both / scale)
    shows = (energy > 0.1).flatten(1)  # windows that hold picture, not background
    sorted_best = best.flatten(1).masked_fill(~shows, -1.0).sort(dim=1, descending=True).values
    wanted = (_PART * shows.sum(dim=1)).long().clamp(_LEAST_WINDOWS, sorted_best.shape[1])
    found = sorted_best.gather(1, wanted[:, None] - 1)[:, 0].double()
    return np.asarray(found.numpy(), np.float64)


def _windows(images: torch.Tensor, window: int, stride: int) -> torch.Tensor:
    """Mean over square windows, shape (n, k, k)."""
    side = images.shape[1]
    start = torch.arange(0, side - window + 1, stride)[:, None]
    place = torch.arange(side)[None, :]
    # A product with this band matrix is several times faster than pooling.
    band = ((place >= start) & (place < start + window)).float() / window
    return band @ (images @ band.T)
