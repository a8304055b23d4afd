"""Plants in the data: patients or images on both sides, copies, labels, identifying columns."""

import io
from pathlib import Path

from PIL import Image

from medisynth.data.phantom import METADATA_FILE
from medisynth.data.phantom.writer import IMAGES_FOLDER
from pipelines.config.model import load_config
from pipelines.current_run.places import refuse_misplaced_folders
from pipelines.selftest.bench import INTEGRITY, LEAKAGE, LONGER, Answers, Bench, Plant, stopped_by

_REFUSED = "C000"  # code of a configuration that cannot be used
_EXIF_DESCRIPTION = 0x010E
_CROSSING = "L000"  # code of a group that crosses the split


def _split(bench: Bench, data: Path | None, item_id: str) -> Answers:
    """Run the steps up to the split on planted data; without data, use the clean control."""
    if data is None:
        stop = stopped_by(_CROSSING, lambda: bench.control)
        return stop if stop[0].is_alarm else (*stop, *bench.of_control(item_id))
    run = bench.new_run(data)
    return (*stopped_by(_CROSSING, run.prepare), *run.judge(item_id))


def patient_in_both(bench: Bench, is_planted: bool) -> Answers:
    """Plant: one patient has images in official training and held-out test set."""
    return _split(bench, bench.planted_data("patient-in-both") if is_planted else None, "P4-01")


def duplicate_file(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a byte-for-byte copy of a training file under a test patient."""
    data = bench.planted_data("duplicate-other-patient") if is_planted else None
    return _split(bench, data, "P4-02")


def duplicate_pixels(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a training image under a test patient, saved anew: other bytes, equal pixels."""
    if not is_planted:
        return _split(bench, None, "P4-02")
    data = bench.planted_data("duplicate-other-patient")
    by_content: dict[bytes, Path] = {}
    for path in sorted((data / IMAGES_FOLDER).iterdir()):
        content = path.read_bytes()
        if content in by_content:
            stored = io.BytesIO()
            with Image.open(io.BytesIO(content)) as image:
                image.save(stored, "PNG", compress_level=0)
            path.write_bytes(stored.getvalue())
        by_content[content] = path
    return _split(bench, data, "P4-02")


def near_duplicate(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a brighter, re-compressed copy with callipers under a test patient."""
    return _split(bench, bench.planted_data("near-duplicate") if is_planted else None, "P4-03")


def identifying_column(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a column with names in the metadata file."""
    if not is_planted:
        return bench.of_control("P2-13")
    run = bench.new_run(bench.planted_data("identifying-column"))
    run.audit()
    return run.judge("P2-13")


def name_in_file(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a made-up name and date of birth in the EXIF data of one image file."""
    if not is_planted:
        return bench.of_control("P2-13")
    data = bench.copied_data()
    path = min((data / IMAGES_FOLDER).iterdir())
    exif = Image.Exif()
    exif[_EXIF_DESCRIPTION] = "Patient: DOE^JANE 1980-02-01"
    with Image.open(path) as image:
        image.load()
    image.save(path, "PNG", exif=exif.tobytes())
    run = bench.new_run(data)
    run.audit()
    return run.judge("P2-13")


def password_in_setting(_bench: Bench, is_planted: bool) -> Answers:
    """Plant: a tracking server whose address carries a user name and a password."""
    login = "user:not-a-password@" if is_planted else ""
    flags = {"tracking.uri": f"http://{login}mlflow.invalid", "tracking.enabled": False}
    return stopped_by(_REFUSED, lambda: load_config(preset="smoke", flags=flags))


def workspace_in_data(bench: Bench, is_planted: bool) -> Answers:
    """Plant: a workspace that a symbolic link leads into the data folder."""
    data, link = bench.clean_data, bench.new_folder() / "link"
    if is_planted:
        link.symlink_to(data / IMAGES_FOLDER)
    flags = {"workspace": str(link), "data.path": str(data)}
    config = load_config(preset="smoke", flags=flags)
    return stopped_by(_REFUSED, lambda: refuse_misplaced_folders(config))


def label_swap(bench: Bench, is_planted: bool) -> Answers:
    """Plant: two images' labels swapped after the data set's digest was pinned."""
    pinned = bench.new_run().ingest().content_sha256
    data = bench.copied_data()
    if is_planted:
        _swap_labels(data / METADATA_FILE)
    run = bench.new_run(data, data__digest=pinned)
    run.ingest()
    return run.judge("P5-01")


def _swap_labels(table: Path) -> None:
    """Swap the brain plane of the first row with that of the first row that differs."""
    header, *rows = [line.split(";") for line in table.read_text("ascii").splitlines()]
    column = header.index("Brain_plane")
    other = next(row for row in rows if row[column] != rows[0][column])
    rows[0][column], other[column] = other[column], rows[0][column]
    table.write_text("\n".join(";".join(row) for row in (header, *rows)) + "\n", "ascii")


DATA_PLANTS = (
    Plant(
        "patient-in-both",
        "patient",
        "a patient with images in training and in the held-out test set",
        (_CROSSING, "P4-01"),
        LEAKAGE,
        patient_in_both,
    ),
    Plant(
        "duplicate-file",
        "duplicate",
        "a training image's file, byte by byte, under a test patient",
        (_CROSSING, "P4-02"),
        LEAKAGE,
        duplicate_file,
    ),
    Plant(
        "duplicate-pixels",
        "duplicate",
        "a training image with the same pixels in another file, under a test patient",
        (_CROSSING, "P4-02"),
        LEAKAGE,
        duplicate_pixels,
        LONGER,
    ),
    Plant(
        "near-duplicate",
        "near-duplicate",
        "a brighter, re-compressed copy of a training image, with callipers, under a test patient",
        (_CROSSING, "P4-03"),
        LEAKAGE,
        near_duplicate,
        LONGER,
    ),
    Plant(
        "identifying-column",
        "identity",
        "a column with made-up names in the metadata file",
        ("P2-13",),
        LEAKAGE,
        identifying_column,
        LONGER,
    ),
    Plant(
        "name-in-file",
        "identity",
        "a made-up name and date of birth in the EXIF data of one image file",
        ("P2-13",),
        LEAKAGE,
        name_in_file,
        LONGER,
    ),
    Plant(
        "password-in-setting",
        "identity",
        "a password in the address of the tracking server",
        (_REFUSED,),
        LEAKAGE,
        password_in_setting,
    ),
    Plant(
        "workspace-in-data",
        "data folder",
        "a workspace that a symbolic link leads into the data folder",
        (_REFUSED,),
        INTEGRITY,
        workspace_in_data,
    ),
    Plant(
        "label-swap",
        "label",
        "two images' plane labels exchanged after the data set was pinned",
        ("P5-01",),
        INTEGRITY,
        label_swap,
        LONGER,
    ),
)
