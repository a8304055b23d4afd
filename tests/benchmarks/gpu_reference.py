"""Both generators of a preset on one device, for as many updates as fit into some minutes.

Run from the repository root, or by `scripts/gpu_reference`, which needs no network and no data:

    scripts/gpu_reference --minutes 9 --out FOLDER --device cuda
    scripts/gpu_reference --preset smoke --steps 2 --out FOLDER --device cpu

Phantoms are simulated on the spot. Each generator gets an equal share of the time and each of its
training stages an equal share of that; between two updates the clock is read, and what was trained
by then is what is sampled. Nothing is isolated, sealed or recorded: this measures the generators,
not a run. After each generator `gpu_reference.json` and `gpu_reference.md` are written anew, and
one sheet of samples; a last resort ends the process at the limit, whatever it is doing.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from governance.records.comparison import TuningComparison
from governance.records.errors import MedisynthGovError
from governance.records.training import FitReport
from medisynth.data.phantom import PhantomSettings, simulate_image
from medisynth.data.phantom.cohort import PhantomImage, plan_cohort
from medisynth.data.reading.contact_sheet import contact_sheet
from medisynth.data.reading.decode import to_square
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Generator, StageState, StoppedError, TrainingContext
from medisynth.metrics.tuning_distance import TuningDistance
from medisynth.models.registry import load_generator
from pipelines.config.model import load_config
from pipelines.fetch.weights import find_weights

GENERATORS = ("dsr-gan", "tb-gan")
N_SHOWN, N_COLUMNS, N_COMPARED = 48, 8, 128
FEW_IMAGES = 100  # simulated here; more are simulated by as many processes as there are cores
TUNING_SHARE = 0.2  # of the patients; the rest trains
FOR_SAMPLING = 0.25  # of a generator's share of the time: drawing, comparing, writing
LAST_RESORT_S = 5.0  # before the limit
NEVER = float("inf")

Now = Callable[[], float]
Settings = dict[str, Any]


@dataclass(frozen=True)
class StageFigures:
    """What one stage of training came to.

    Attributes:
        name: Stage.
        n_parameters: Weights that it trains, both networks of an adversarial stage.
        updates: Updates made; full_updates: those of the preset.
        updates_per_s: Rate; images_per_s: the same in training images.
        peak_memory_gib: Most memory at once; None where the device does not tell.
        projected_hours: Time that all updates of the preset would take at this rate.
        losses: Curve -> its last value.
    """

    name: str
    n_parameters: int
    updates: int
    full_updates: int
    updates_per_s: float
    images_per_s: float
    peak_memory_gib: float | None
    projected_hours: float
    losses: dict[str, float]


@dataclass(frozen=True)
class Figures:
    """What one generator came to; `fault` says what was not reached and why, "" for nothing."""

    generator: str
    size_px: int
    stages: tuple[StageFigures, ...] = ()
    projected_hours: float | None = None
    comparison: TuningComparison | None = None
    sheet: str = ""
    fault: str = ""


class MemoryStates:
    """Keeps the last state of each stage in memory, as a run folder keeps it on disk."""

    def __init__(self) -> None:
        self._states: dict[str, StageState] = {}

    def latest(self, stage: str) -> StageState | None:
        """The last state of a stage; None when it has none."""
        return self._states.get(stage)

    def commit(self, state: StageState) -> None:
        """Keep a copy: training goes on changing the tensors."""
        tensors = {name: tensor.detach().clone() for name, tensor in state.tensors.items()}
        facts = json.loads(json.dumps(state.facts))
        self._states[state.stage] = replace(state, tensors=tensors, facts=facts)


@dataclass
class Training:
    """One generator in training, stage after stage, each until its time is over.

    A stage whose time is over is resumed with one update more than it has made as its whole
    length, so that it ends as a stage ends: evaluated, its best weights chosen. Stages that share
    one section of the settings (networks that double the size in turn) make as many updates each.

    Attributes:
        name: Registered name of the generator.
        values: Its settings.
        device: torch device name.
        ends: When each stage has to end, by `now`.
        now: The clock.
        losses: Stage -> curve -> last value.
    """

    name: str
    values: Settings
    device: str
    ends: tuple[float, ...]
    now: Now = time.monotonic
    losses: dict[str, dict[str, float]] = field(default_factory=dict)
    _states: MemoryStates = field(default_factory=MemoryStates)
    _standing: dict[str, int] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)
    _cut: set[int] = field(default_factory=set)

    def fit(self, training: ImageView, tuning: ImageView) -> tuple[Generator, FitReport]:
        """Train to the end of the last stage's time; raises what the generator raises."""
        while True:
            self._standing.clear()
            self._finished.clear()
            generator = new_generator(self.name, self.values)
            try:
                return generator, generator.fit(training, tuning, self._context())
            except StoppedError:
                self._cut_short()

    def _context(self) -> TrainingContext:
        return TrainingContext(
            seed=0,
            compute_device=self.device,
            log=self._log,
            progress=self._progress,
            should_stop=self._is_over,
            states=self._states,
            commit_every=sys.maxsize,
        )

    def _log(self, stage: str, _step: int, values: Mapping[str, float]) -> None:
        self.losses.setdefault(stage, {}).update(values)

    def _progress(self, stage: str, done: int, total: int) -> None:
        self._standing[stage] = done
        if done == total:
            self._finished.add(stage)

    @property
    def _place(self) -> int:
        """Place of the section of the stage that is being trained; more stages share the last."""
        return min(len(self._finished), len(self.ends) - 1)

    def _is_over(self) -> bool:
        return self._place not in self._cut and self.now() > self.ends[self._place]

    def _cut_short(self) -> None:
        place = self._place
        done = [n for stage, n in self._standing.items() if stage not in self._finished]
        self.values = with_steps(self.values, place, (done[0] if done else 0) + 1)
        self._cut.add(place)


def new_generator(name: str, values: Settings) -> Generator:
    """A generator of these settings."""
    kind = load_generator(name)
    return kind(kind.Settings.model_validate(values))


def stage_lengths(values: Settings) -> tuple[int, ...]:
    """Updates of the stages of each section, in the order of the settings."""
    return tuple(stage["steps"] for stage in _stages(values))


def with_steps(values: Settings, place: int, n: int) -> Settings:
    """The same settings with another number of updates in one stage; warm-ups that fit it."""
    changed: Settings = json.loads(json.dumps(values))
    stage = _stages(changed)[place]
    stage["steps"] = n
    for part in (stage, changed):
        if "warm_up_steps" in part:
            part["warm_up_steps"] = min(part["warm_up_steps"], n - 1)
    return changed


def _stages(values: Settings) -> list[Settings]:
    """Sections with updates, depth first, in their order."""
    found: list[Settings] = []
    for value in values.values():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                found += [part] if "steps" in part else _stages(part)
    return found


def preset_settings(preset: str, name: str) -> Settings:
    """Every setting of a generator in a preset."""
    config = load_config(preset=preset, overrides=[f"model.name={name}"])
    return config.generator_settings().model_dump(mode="json")


def phantom_views(size: int, n_patients: int, height: int) -> tuple[ImageView, ImageView]:
    """Training and tuning views of simulated patients, divided by patient."""
    settings = PhantomSettings(n_patients=n_patients, image_height_px=height, annotations=False)
    plan = plan_cohort(settings)
    draw = partial(_square, settings, size)
    if len(plan) < FEW_IMAGES:
        pixels = np.stack([draw(image) for image in plan])
    else:  # spawned, since this process has threads
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
            pixels = np.stack(list(pool.map(draw, plan, chunksize=16)))
    tuning = [image.patient > n_patients * (1 - TUNING_SHARE) for image in plan]
    rows = [np.flatnonzero(np.array(tuning) == wanted) for wanted in (False, True)]
    first, second = (
        ImageView(
            name,
            pixels[chosen],
            tuple(plan[row].name for row in chosen),
            tuple(str(plan[row].patient) for row in chosen),
            tuple(plan[row].brain_plane for row in chosen),
            tuple(plan[row].machine for row in chosen),
        )
        for name, chosen in zip(("training", "tuning"), rows, strict=True)
    )
    return first, second


def _square(settings: PhantomSettings, size: int, image: PhantomImage) -> Pixels:
    return to_square(simulate_image(settings, image), size)


def measure(
    name: str,
    options: argparse.Namespace,
    views: tuple[ImageView, ImageView],
    end: float,
    keep: Callable[[Figures], None],
) -> Figures:
    """Train, draw and compare one generator; what fails is said and not raised.

    `keep` is called with the figures so far whenever there are more of them.
    """
    training, tuning = views
    full = preset_settings(options.preset, name)
    size = training.pixels.shape[1]
    values, lengths = full, stage_lengths(full)
    started = time.monotonic()
    stop_training = end - FOR_SAMPLING * (end - started)
    shares = np.linspace(started, stop_training, len(lengths) + 1)[1:]
    ends = tuple(float(share) for share in shares)
    if options.steps:
        ends = (NEVER,) * len(lengths)
        for place in range(len(lengths)):
            values = with_steps(values, place, options.steps)
    work = Training(name, values, options.device, ends)
    figures = Figures(name, size)
    try:
        generator, report = work.fit(training, tuning)
        figures = replace(figures, **_rates(report, lengths, work.losses))
        keep(figures)
        images = generator.sample(max(N_SHOWN, min(N_COMPARED, len(tuning))), _drawing(work, end))
        sheet = options.out / f"{name}.png"
        sheet.write_bytes(_sheet(images[:N_SHOWN], name, figures))
        figures = replace(figures, sheet=sheet.name)
        keep(figures)
        weights = find_weights()
        if weights is None:
            return replace(figures, fault="no KID: the FID weights are not on this machine")
        distance = TuningDistance(weights, tuning, options.device)
        compared = distance.compare(images, training.pixels, 0, _until(end, work.now))
        return replace(figures, comparison=compared, fault=compared.reason)
    except StoppedError:
        what = "compared" if figures.sheet else "drawn"
        return replace(figures, fault=f"time was over before all images were {what}")
    except MedisynthGovError as error:
        return replace(figures, fault=str(error))


def _until(end: float, now: Now) -> Callable[[int, int], None]:
    """Progress that ends what reports it once the time is over."""

    def progress(_done: int, _total: int) -> None:
        if now() > end:
            raise StoppedError

    return progress


def _drawing(work: Training, end: float) -> TrainingContext:
    """Draw until the generator's time is over."""
    return TrainingContext(
        seed=1,
        compute_device=work.device,
        log=lambda *_: None,
        progress=lambda *_: None,
        should_stop=lambda: work.now() > end,
    )


def _rates(
    report: FitReport, full: tuple[int, ...], losses: Mapping[str, dict[str, float]]
) -> dict[str, Any]:
    stages = []
    for place, stage in enumerate(report.stages):
        n = full[min(place, len(full) - 1)]
        rate = stage.n_steps / max(stage.duration_s, 1e-9)
        peak = stage.peak_memory_bytes
        stages.append(
            StageFigures(
                name=stage.name,
                n_parameters=stage.n_parameters,
                updates=stage.n_steps,
                full_updates=n,
                updates_per_s=rate,
                images_per_s=rate * stage.batch_size,
                peak_memory_gib=None if peak is None else peak / 2**30,
                projected_hours=n / rate / 3600,
                losses=losses.get(stage.name, {}),
            )
        )
    hours = sum(stage.projected_hours for stage in stages)
    return {"stages": tuple(stages), "projected_hours": hours}


def _sheet(images: Pixels, name: str, figures: Figures) -> bytes:
    updates = " + ".join(f"{stage.updates:,}" for stage in figures.stages)
    return contact_sheet(
        [
            (
                f"SYNTHETIC: {name}, {updates} updates, none picked" if first == 0 else "",
                list(images[first : first + N_COLUMNS]),
                (),
            )
            for first in range(0, len(images), N_COLUMNS)
        ]
    )


def as_markdown(facts: Mapping[str, Any], all_figures: list[Figures]) -> str:
    """One table of stages, then one line a generator."""
    lines = [f"{facts['preset']} on {facts['device']} ({facts['device_name']})", ""]
    head = ("generator", "stage", "parameters", "updates", "of", "updates/s", "images/s")
    lines += ["| " + " | ".join((*head, "peak GiB", "full preset, h")) + " |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for figures in all_figures:
        for stage in figures.stages:
            peak = "" if stage.peak_memory_gib is None else f"{stage.peak_memory_gib:.2f}"
            cells = (
                *(figures.generator, stage.name, f"{stage.n_parameters:,}"),
                *(f"{stage.updates:,}", f"{stage.full_updates:,}", f"{stage.updates_per_s:.3g}"),
                *(f"{stage.images_per_s:.3g}", peak, f"{stage.projected_hours:.2f}"),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {_in_words(figures)}" for figures in all_figures), ""])


def _in_words(figures: Figures) -> str:
    said = [f"{figures.generator}, {figures.size_px} px"]
    if figures.projected_hours is not None:
        said.append(f"full preset {figures.projected_hours:.2f} h")
    found = figures.comparison
    if found is not None and found.value is not None:
        others = ", ".join(f"{control.name} {control.value:.3f}" for control in found.controls)
        said.append(f"KID to {found.n_real} tuning phantoms {found.value:.3f}, {others}")
    if figures.sheet:
        said.append(f"samples in {figures.sheet}")
    return "; ".join([*said, figures.fault] if figures.fault else said)


def _write(out: Path, facts: Mapping[str, Any], all_figures: list[Figures]) -> None:
    whole = {**facts, "generators": [asdict(figures) for figures in all_figures]}
    text = json.dumps(whole, indent=1, default=lambda record: record.model_dump(mode="json"))
    (out / "gpu_reference.json").write_text(text, "utf-8")
    (out / "gpu_reference.md").write_text(as_markdown(facts, all_figures), "utf-8")


def _last_resort(seconds: float) -> threading.Timer:
    """End this process shortly before the limit, whatever it is doing; what is written stays."""

    def leave() -> None:
        with suppress(OSError):
            sys.stderr.write("the limit is near: ended; what was measured by then is written\n")
            sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(max(seconds, 0.0), leave)
    timer.daemon = True
    timer.start()
    return timer


def main(arguments: list[str] | None = None) -> int:
    """Measure both generators; 0 when each was trained and drawn, 2 without the device, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="limit of everything together")
    parser.add_argument("--out", type=Path, required=True, help="folder for figures and sheets")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--steps", type=int, default=0, help="updates a stage; 0: until time is up")
    parser.add_argument("--patients", type=int, default=200, help="simulated patients")
    options = parser.parse_args(arguments)
    limit = time.monotonic() + 60 * options.minutes
    timer = _last_resort(60 * options.minutes - LAST_RESORT_S)
    try:
        return _measure_all(options, limit)
    finally:
        timer.cancel()


def _measure_all(options: argparse.Namespace, limit: float) -> int:
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("--device cuda: this machine has no CUDA device; use --device cpu\n")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "preset": options.preset,
        "device": options.device,
        "device_name": torch.cuda.get_device_name() if options.device == "cuda" else "CPU",
        "torch": torch.__version__,
        "n_patients": options.patients,
    }
    all_figures: list[Figures] = []
    views: dict[int, tuple[ImageView, ImageView]] = {}
    for place, name in enumerate(GENERATORS):
        kind = load_generator(name)
        settings = kind.Settings.model_validate(preset_settings(options.preset, name))
        size = kind.image_size_px(settings)
        if size not in views:
            views[size] = phantom_views(size, options.patients, max(64, round(1.5 * size)))
        now = time.monotonic()
        share = (limit - 2 * LAST_RESORT_S - now) / (len(GENERATORS) - place)
        measured = list(all_figures)

        def keep(figures: Figures, before: list[Figures] = measured) -> None:
            _write(options.out, facts, [*before, figures])

        all_figures.append(measure(name, options, views[size], now + share, keep))
        _write(options.out, facts, all_figures)
    sys.stdout.write((options.out / "gpu_reference.md").read_text("utf-8"))
    return 0 if all(figures.sheet for figures in all_figures) else 1


if __name__ == "__main__":
    raise SystemExit(main())
