"""Proves isolation by experiment: with other test pixels, training gives the same bits.

A small run goes through steps 1 to 5 twice, on simulated patients: once as they are, once with
every test image replaced by noise of the same size. Metadata, patients and configuration stay.
Views, statistics, choices and weights of training must be equal to the last bit, while the sealed
test set must differ. The steps and the confined training process are those of every run.

The noise is seeded by the pixels that it replaces: equal test images stay equal, so that exact
copies still group the same patients. See docs/isolation.md for what may depend on test pixels.
"""

import io
import shutil
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from governance.evidence.folder import RunFolder
from governance.evidence.store import EvidenceStore
from governance.policy.load import load_policy
from governance.records.errors import (
    InterruptedByUser,
    MachineError,
    MedisynthGovError,
    ProcessError,
)
from governance.records.files import canonical_json, sha256_bytes, write_atomic
from governance.records.training import TrainingRecord
from governance.sealing.seal import Leaf
from medisynth.data.phantom import PhantomSettings, write_phantoms
from pipelines.config.model import RunConfig, load_config
from pipelines.current_run.console import Console
from pipelines.current_run.context import RunContext, SplitImages, TrainedGenerator
from pipelines.current_run.identity import tool_version
from pipelines.steps import s1_ingest, s2_validate, s3_audit, s4_split, s5_train

MODELS = ("dsr-gan", "tb-gan")
RECORD = "non_interference.json"
_EXIT_INTERFERENCE = 4
_SHOWN_CHARACTERS = 12
_TEST_SET = "sealed test set"
_OF_TRAINING = (
    *("fitted statistics", "learning curves", "candidate scores", "chosen step"),
    *("checkpoint", "synthetic images"),
)
_PATIENTS = PhantomSettings(n_patients=16, max_images_per_patient=4, image_height_px=64)
_SETTINGS: dict[str, Any] = {
    "data.cache": "off",
    "data.adapter": "phantom",
    "audit.n_text_images": 0,
    "audit.n_resamples": 100,
    "split.source": "computed",  # so that the drawing of the split is compared as well
    "training.selection": "objective",
    "training.preview_every": 0,
    "evaluation.extractor": "none",
    "evaluation.n_synthetic": 16,
    "tracking.enabled": False,
    "compute_device": "cpu",
}
_SHORT: dict[str, dict[str, Any]] = {  # fewer steps than the preset's; every part still trains
    "dsr-gan": {
        "model.settings.diffusion.steps": 20,
        "model.settings.super_resolution.steps": 12,
    },
    "tb-gan": {
        "model.settings.schedule": [{"name": "adversarial", "plane": "all", "steps": 20}],
        "model.settings.selection_every": 10,
    },
}


@dataclass(frozen=True)
class Row:
    """One fact of both runs, compared.

    Attributes:
        what: Its name.
        original: Its SHA-256 in the run on unchanged images; for the chosen step the step number.
        noise: The same in the run on noise.
        must_be: Whether the proof needs equal or different values.
    """

    what: str
    original: str
    noise: str
    must_be: Literal["equal", "different"]

    @property
    def holds(self) -> bool:
        """Whether the values are equal or different as the proof needs."""
        return (self.original == self.noise) == (self.must_be == "equal")


@dataclass(frozen=True)
class Comparison:
    """Two runs of one generator with one seed.

    Attributes:
        seed: Seed of simulated patients, split and training.
        model: Generator.
        n_test_images: Test images, all replaced by noise.
        rows: Compared facts.
        fault: Why it proves nothing even if all rows hold; "" for no reason.
        duration_s: Time taken.
    """

    seed: int
    model: str
    n_test_images: int
    rows: tuple[Row, ...]
    fault: str
    duration_s: float

    @property
    def holds(self) -> bool:
        """Whether test pixels had no influence, and the test was able to show one."""
        return not self.fault and bool(self.rows) and all(row.holds for row in self.rows)


@dataclass(frozen=True)
class NonInterference:
    """The whole proof: one comparison for each generator and seed."""

    comparisons: tuple[Comparison, ...]

    @property
    def holds(self) -> bool:
        """Whether there are comparisons and all of them hold."""
        return bool(self.comparisons) and all(one.holds for one in self.comparisons)

    @property
    def exit_code(self) -> int:
        """Exit code: 0 if the proof holds, else 4."""
        return 0 if self.holds else _EXIT_INTERFERENCE

    @property
    def facts(self) -> dict[str, Any]:
        """The same as JSON data."""
        return {
            "holds": self.holds,
            "tool_version": tool_version(),
            "comparisons": [
                asdict(one)
                | {"holds": one.holds, "rows": [asdict(r) | {"holds": r.holds} for r in one.rows]}
                for one in self.comparisons
            ],
        }

    @property
    def text(self) -> str:
        """The proof as text for the screen: a block for each comparison, then the verdict."""
        n_held = sum(one.holds for one in self.comparisons)
        seconds = sum(one.duration_s for one in self.comparisons)
        n = len(self.comparisons)
        words = "no influence of any test pixel" if self.holds else "NOT SHOWN"
        verdict = f"non-interference: {words}; {n_held} of {n} comparisons hold; {seconds:.0f} s"
        return "\n".join([*map(_block, self.comparisons), verdict])


def prove(
    console: Console,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    models: Sequence[str] = MODELS,
    patients: PhantomSettings = _PATIENTS,
) -> NonInterference:
    """Compare a run on simulated patients with one whose test images are noise.

    Args:
        console: Where messages go; a stop request is obeyed.
        seeds: Seeds of patients, split and training, one comparison each.
        models: Generators, by registered name or `package.module:Class`.
        patients: Patients to simulate; the seed is replaced by each of `seeds`.

    Raises:
        ConfigError: A generator does not exist.
        MedisynthGovError: The run on unchanged images, the machine or a training process failed,
            so there is no verdict.
    """
    configs = {name: _config(name) for name in models}  # a mistyped name costs no time
    comparisons = []
    for seed in seeds:
        for name, config in configs.items():
            console.say(f"{name}, seed {seed}: images as they are, then noise for test images")
            with tempfile.TemporaryDirectory(prefix="medisynth-gov-") as folder:
                own = PhantomSettings(**{**asdict(patients), "seed": seed})
                comparisons.append(_compare(name, config, own, Path(folder), console))
    return NonInterference(tuple(comparisons))


def write_record(proof: NonInterference, folder: Path) -> Path:
    """Write the proof as JSON into a folder.

    Raises:
        RecordWriteError: It cannot be written.
    """
    path = folder / RECORD
    write_atomic(path, canonical_json(proof.facts) + b"\n")
    return path


@dataclass(frozen=True)
class _Left:
    """Result of a run: name -> digest, and the leaves of its sealed test set."""

    digests: dict[str, str]
    leaves: tuple[Leaf, ...]


def _config(model: str) -> RunConfig:
    flags = {**_SETTINGS, "model.name": model, **_SHORT.get(model, {})}
    return load_config(preset="smoke", flags=flags)


def _compare(
    model: str, config: RunConfig, patients: PhantomSettings, folder: Path, console: Console
) -> Comparison:
    started, seed = time.monotonic(), patients.seed
    write_phantoms(folder / "original", patients)
    run = partial(_run, config=config, seed=seed, console=console)
    first = run(folder / "original", folder / "first")
    shutil.copytree(folder / "original", folder / "noise")
    replace_by_noise(folder / "noise", first.leaves, seed)
    rows: tuple[Row, ...] = ()
    try:
        second = run(folder / "noise", folder / "second")
    except (MachineError, ProcessError, InterruptedByUser):
        raise
    except MedisynthGovError as error:
        fault = f"with noise for test images the run stopped: {error}"
    else:
        rows, fault = compare(first.digests, second.digests), _leaf_fault(first, second)
        if not fault and any(not row.holds and row.what in _OF_TRAINING for row in rows):
            again = run(folder / "original", folder / "again")
            changed = [n for n in _OF_TRAINING if again.digests[n] != first.digests[n]]
            if changed:
                fault = f"two runs on the same images differ, too ({', '.join(changed)})"
    duration_s = round(time.monotonic() - started, 1)
    return Comparison(seed, model, len(first.leaves), rows, fault, duration_s)


def compare(original: dict[str, str], noise: dict[str, str]) -> tuple[Row, ...]:
    """Pair the digests of both runs: all must be equal except the sealed test set.

    Args:
        original: Name -> digest in the run on unchanged images.
        noise: The same names for the run on noise.
    """
    return tuple(
        Row(what, value, noise[what], "different" if what == _TEST_SET else "equal")
        for what, value in original.items()
    )


def replace_by_noise(root: Path, leaves: Iterable[Leaf], seed: int) -> None:
    """Replace images of a data folder by noise: same file name, width, height and mode.

    Equal images become equal noise.

    Args:
        root: Data folder, a copy.
        leaves: Leaves of the images to replace.
        seed: Seed of the noise.
    """
    for leaf in leaves:
        path = root / leaf.path
        with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as image:
            mode = image.mode
        rng = np.random.default_rng([seed, int(leaf.pixel_sha256, 16)])
        grey = rng.integers(0, 256, (leaf.height, leaf.width), dtype=np.uint8)
        stored = io.BytesIO()
        Image.fromarray(grey, "L").convert(mode).save(stored, "PNG")
        path.write_bytes(stored.getvalue())


def _leaf_fault(first: _Left, second: _Left) -> str:
    """Return why the runs prove nothing: other images or labels, or unchanged pixels; else ""."""
    pixels = {"file_sha256", "pixel_sha256"}
    if [one.model_dump(exclude=pixels) for one in first.leaves] != [
        one.model_dump(exclude=pixels) for one in second.leaves
    ]:
        return "the test sets hold other images, or other labels, not only other pixels"
    pairs = zip(first.leaves, second.leaves, strict=True)
    n_same = sum(one.pixel_sha256 == other.pixel_sha256 for one, other in pairs)
    return f"{n_same} test images kept their pixels, so nothing is proved" if n_same else ""


def _run(data: Path, workspace: Path, config: RunConfig, seed: int, console: Console) -> _Left:
    """Do steps 1 to 5 in a workspace of their own, which is removed afterwards."""
    values = {
        **{"workspace": str(workspace), "seed": seed},
        "data": config.data.model_copy(update={"path": str(data)}),
        "split": config.split.model_copy(update={"seed": seed}),
    }
    store = EvidenceStore.create(workspace / "runs", "proof", tool_version=tool_version())
    quiet = Console(stream=io.StringIO(), stop=console.stop)
    own = config.model_copy(update=values)
    context = RunContext(own, load_policy(), store, quiet, workspace)
    images = s2_validate.run(s1_ingest.run(context), context)
    audited = s3_audit.run(images, context)
    split = s4_split.run(images, audited, context)
    try:
        trained = s5_train.run(split, context)
    finally:
        split.access_log.stop()
    groups = zip(images.table["image_id"].astype(str), audited.groups.astype(str), strict=True)
    left = _Left(
        {
            "patients kept together": _digest(sorted(groups)),
            **_of_split(split),
            **_of_training(RunFolder.open(store), trained),
            _TEST_SET: split.sealed_test.record.merkle_root,
        },
        tuple(split.sealed_test.leaves),
    )
    shutil.rmtree(workspace)
    return left


def _of_split(split: SplitImages) -> dict[str, str]:
    views = (split.training, split.tuning)
    ids = {view.partition: view.image_ids for view in views}
    test_ids = tuple(leaf.id for leaf in split.sealed_test.leaves)
    return {
        "split": _digest({**ids, "test": test_ids}),
        **{f"{view.partition} view": view.digest for view in views},
    }


def _of_training(folder: RunFolder, trained: TrainedGenerator) -> dict[str, str]:
    """Return digests of all training results; fitted values are tensors of the checkpoint."""
    from medisynth.training.loop import IMAGES_PER_SECOND, PEAK_MEMORY  # imports torch

    record = folder.need(TrainingRecord).model_dump(mode="json")
    selection = record["selection"]
    of_machine = (IMAGES_PER_SECOND, PEAK_MEMORY)  # measurements of the machine
    curves = [curve for curve in record["curves"] if curve["name"] not in of_machine]
    return {
        "fitted statistics": _digest([record["fitted"], record["description"]]),
        "learning curves": _digest(curves),
        "candidate scores": _digest(selection["candidates"]),
        "chosen step": str(selection["chosen_step"]),
        "checkpoint": trained.checkpoint_sha256,
        "synthetic images": sha256_bytes(trained.synthetic.tobytes()),
    }


def _digest(value: Any) -> str:
    return sha256_bytes(canonical_json(value))


def _block(one: Comparison) -> str:
    word = "holds" if one.holds else "DOES NOT HOLD"
    lines = [
        f"{one.model}, seed {one.seed}: {word}; {one.n_test_images} test images replaced by noise "
        f"({one.duration_s:.0f} s)"
    ]
    for row in one.rows:
        found = "equal" if row.original == row.noise else "different"
        mark = "" if row.holds else f"  <- must be {row.must_be}"
        values = (value[:_SHOWN_CHARACTERS] for value in (row.original, row.noise))
        first, second = (f"{value:<{_SHOWN_CHARACTERS}}" for value in values)
        lines.append(f"  {row.what:<22}  {first}  {second}  {found}{mark}")
    if one.fault:
        lines.append(f"  {one.fault}")
    return "\n".join(lines) + "\n"
