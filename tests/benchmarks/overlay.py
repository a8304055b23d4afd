"""Measure the overlay detector: milliseconds an image, and how often it speaks where it should.

    python tests/benchmarks/overlay.py [IMAGES ...]

Simulated heads with and without burned-in marks give recall and false alarms; each folder of
images given is counted as well, without a verdict, since only an eye knows what is in it.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medisynth.data.content.marks import find_overlay
from medisynth.data.phantom import MACHINES, OPERATORS, PhantomSettings, simulate_image
from medisynth.data.phantom.cohort import PhantomImage, draw_patient
from medisynth.data.phantom.overlay import draw_callipers
from medisynth.data.reading.statistics import OVERLAY_FRACTION, overlay_fraction
from medisynth.data.reading.views import Pixels

_N = 40


def main(folders: Sequence[str]) -> None:
    """Print one line a measurement."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (661, 959)).astype(np.uint8)
    _say(f"overlay_fraction, 959 x 661: {_fastest_ms(lambda: overlay_fraction(noise)):.2f} ms")
    plain = [_head(k, annotations=False) for k in range(_N)]
    marked = [_head(k, annotations=True) for k in range(_N)]
    measured = [draw_callipers(image) for image in plain]
    _say(f"find_overlay, heads of 600 rows: {_fastest_ms(lambda: find_overlay(marked[0])):.0f} ms")
    for name, images in (("plain", plain), ("with text", marked), ("with callipers", measured)):
        _report(f"simulated heads {name}", images)
    for folder in folders:
        paths = sorted(Path(folder).rglob("*.png"))
        _report(folder, [np.asarray(Image.open(path).convert("L")) for path in paths])


def _head(number: int, *, annotations: bool) -> Pixels:
    settings = PhantomSettings(image_height_px=600, annotations=annotations)
    image = PhantomImage(
        name=f"head{number}",
        person=draw_patient(settings, number + 1, is_training=True),
        number=0,
        brain_plane="Trans-thalamic",
        operator=OPERATORS[0],
        machine=MACHINES[number % len(MACHINES)],
        is_training=True,
    )
    return simulate_image(settings, image)


def _report(name: str, images: Sequence[Pixels]) -> None:
    found = [find_overlay(image) for image in images]
    n_quick = sum(overlay_fraction(image) >= OVERLAY_FRACTION for image in images)
    n_text = sum(bool(overlay.boxes) for overlay in found)
    n_callipers = sum(overlay.n_callipers > 0 or overlay.n_dots >= 10 for overlay in found)
    _say(
        f"{name}: {len(images)} images, {n_quick} with an overlay by the quick look, {n_text} with "
        f"lines of text, {n_callipers} with callipers"
    )


def _fastest_ms(action: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
