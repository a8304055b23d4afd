"""Write phantom PNGs with the published table and at the published sizes of FETAL_PLANES_DB.

    python tests/benchmarks/published_sizes.py FETAL_PLANES_DB_data.csv FOLDER [--n 12400]

One image for each row of the table (the first `--n` rows): `FOLDER/Images/<Image_name>.png`, and the
table itself beside them. Every image is a simulated head with its own view and speckle, anatomy
by patient, scanner and operator as the row says; every plane shows a head, as there are no other
phantoms. It is simulated at half the published height, enlarged to the published size, covered with fine
noise and annotated at full size, because simulation at full size takes four times as long.
The files resemble the published ones in what decoding costs: bytes per pixel, row filters and
chunks of 8 KiB. Files already there are kept, so an interrupted run can be started again.
"""

import argparse
import io
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from medisynth.data.phantom import BRAIN_PLANES, MACHINES, OPERATORS, PhantomSettings
from medisynth.data.phantom import simulate_image as simulate
from medisynth.data.phantom.cohort import PhantomImage, draw_patient
from medisynth.data.phantom.overlay import annotate, draw_callipers
from medisynth.data.reading import png
from medisynth.data.reading.csv_table import read_strict
from medisynth.data.reading.views import Pixels

SIZES = {  # the commonest published width and height of each scanner
    "Voluson E6": (959, 661),
    "Aloka": (640, 392),
    "Voluson S10": (1137, 787),
    "Other": (1137, 787),
}
TABLE = "FETAL_PLANES_DB_data.csv"
_SIMULATED_HEIGHT_PX = 330
_CHUNK_BYTES = 8192
_SETTINGS = PhantomSettings(
    n_patients=1, seed=2020, image_height_px=_SIMULATED_HEIGHT_PX, annotations=False
)


def main() -> int:
    """Write what is missing; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n", type=int, default=12_400)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    images = options.folder / "Images"
    images.mkdir(parents=True, exist_ok=True)
    lines = options.table.read_bytes().splitlines(keepends=True)
    (options.folder / TABLE).write_bytes(b"".join(lines[: options.n + 1]))
    jobs = [(row, images) for row in islice(_rows(options.folder / TABLE), options.n)]
    began = time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        for done, _ in enumerate(pool.map(write_image, jobs, chunksize=8), start=1):
            if done % 200 == 0 or done == len(jobs):
                seconds = time.monotonic() - began
                sys.stdout.write(f"{done} of {len(jobs)} images, {seconds:.0f} s\n")
                sys.stdout.flush()
    return 0


def write_image(job: tuple[PhantomImage, Path]) -> None:
    """Write the file of one row, whole or not at all, unless it is there."""
    image, folder = job
    target = folder / f"{image.name}.png"
    if not target.exists():
        part = target.with_suffix(".part")
        part.write_bytes(encode(picture(image)))
        part.replace(target)


def picture(image: PhantomImage) -> Pixels:
    """One annotated frame at the published size of its scanner, shape (height, width), uint8."""
    rng = np.random.default_rng([_SETTINGS.seed, image.patient, image.number])
    small = Image.fromarray(simulate(_SETTINGS, image))
    grey = np.asarray(small.resize(SIZES[image.machine], Image.Resampling.BICUBIC)).copy()
    # Fine noise, so that the files are about as long as published ones (0.34 bytes a pixel);
    # none on black, which is what compresses well in a frame.
    noise = rng.integers(0, 6, grey.size, dtype=np.uint8).reshape(grey.shape)
    np.maximum(grey, 3, out=grey, where=grey > 2)
    grey[grey > 2] = np.minimum(grey[grey > 2], 250) + noise[grey > 2] - (noise[grey > 2] // 2)
    lines = (f"{rng.integers(14, 32)}Hz/{rng.uniform(8, 18):.1f}cm", f"Gn {rng.integers(-9, 9)}")
    marked = annotate(grey, image.machine, wedge=image.machine != "Aloka", lines=lines)
    return draw_callipers(marked) if rng.random() < 0.1 else marked


def encode(grey: Pixels) -> bytes:
    """Encode a PNG whose pixel data stand in chunks of 8 KiB, as in the published files."""
    stream = io.BytesIO()
    # Run-length matching: several times faster to write than the default, and read as fast.
    Image.fromarray(grey).save(stream, "PNG", compress_type=zlib.Z_RLE)
    parts = list(png.chunks(stream.getvalue()))
    body = b"".join(content for kind, content in parts if kind == b"IDAT")
    chunks = [(b"IHDR", parts[0][1]), (b"tIME", struct.pack(">H5B", 2020, 1, 1, 0, 0, 0))]
    chunks += [
        (b"IDAT", body[start : start + _CHUNK_BYTES]) for start in range(0, len(body), _CHUNK_BYTES)
    ]
    return png.SIGNATURE + b"".join(_chunk(*part) for part in [*chunks, (b"IEND", b"")])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _rows(table: Path) -> Iterator[PhantomImage]:
    columns = ("Image_name", "Patient_num", "Brain_plane", "Operator", "US_Machine", "Train")
    for number, record in enumerate(read_strict(table, delimiter=";", required=columns).records):
        values = record.values
        plane, machine, operator = (values[c] for c in ("Brain_plane", "US_Machine", "Operator"))
        is_training = values["Train"] == "1"
        yield PhantomImage(
            name=values["Image_name"],
            person=draw_patient(_SETTINGS, int(values["Patient_num"]), is_training=is_training),
            number=number,
            brain_plane=plane if plane in BRAIN_PLANES else BRAIN_PLANES[number % 3],
            operator=operator if operator in OPERATORS else "Other",
            machine=machine if machine in MACHINES else "Other",
            is_training=is_training,
        )


if __name__ == "__main__":
    raise SystemExit(main())
