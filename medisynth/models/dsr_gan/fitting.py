"""Fitting of a DSR-GAN: all stages in order, choice of a checkpoint, report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import nn

from governance.records.errors import DataError
from governance.records.training import (
    Candidate,
    FitReport,
    FittedThing,
    PretrainedComponent,
    Selection,
    TrainingStage,
    training_stage,
)
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.generator import Condition, TrainingContext
from medisynth.models.dsr_gan.description import describe, describe_diffusion, describe_enlarging
from medisynth.models.dsr_gan.diffusion import STAGE as DIFFUSION_STAGE
from medisynth.models.dsr_gan.diffusion import DiffusionStage, new_network
from medisynth.models.dsr_gan.fitted import Fitted, fit_before_training
from medisynth.models.dsr_gan.objectives import Edm
from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.dsr_gan.super_resolution import (
    sides_of,
    sides_of_stages,
    stage_name,
    super_resolution_stage,
    untrained_enlarger,
)
from medisynth.models.dsr_gan.trained import IMAGES_AT_ONCE, Enlargers, Trained
from medisynth.models.enlarging.crop_training import CropTraining
from medisynth.models.enlarging.networks import EnlargingNetwork
from medisynth.models.enlarging.refining import ENERGY, RefiningStage
from medisynth.models.enlarging.refining import STAGE as REFINING_STAGE
from medisynth.training.loop import (
    Precision,
    choose_precision,
    derive_seed,
    n_parameters,
    require_finite,
    train,
)

CHOOSING, POOL = "choosing", "drawing to refine"
DENOISING_LOSS = "EMA denoising loss of the diffusion stage"

_Stage = TypeVar("_Stage", bound=DiffusionStage | CropTraining | RefiningStage)


@dataclass(frozen=True)
class Choice:
    """The chosen checkpoint.

    Attributes:
        trained: All networks.
        step: Training step of the chosen candidate.
        candidates: (step, score) of each, lower is better.
        criterion: The score that candidates were compared by.
        words: Sentence on the choice for the model card.
    """

    trained: Trained
    step: int
    candidates: tuple[tuple[int, float], ...]
    criterion: str
    words: str


def fit(
    settings: DsrGanSettings, training: ImageView, tuning: ImageView, context: TrainingContext
) -> tuple[Trained, FitReport]:
    """Train all stages on the training view; choose on the tuning view.

    A stage whose last state was committed is loaded and not trained again.

    Raises:
        DataError: A view is empty, has images of another size, or all images are equal.
        StoppedError: A stop was asked for.
        TrainingError: A loss or gradient was not finite, or a guard saw training fail.
        WeightsError: A committed state or the pre-trained weights do not fit.
    """
    for view in (training, tuning):
        require_usable(view, settings.super_resolution.to)
    fitted = fit_before_training(training, settings, context.seed, context.compute_device)
    diffusion, diffusion_report = train_stage(
        settings,
        settings.precision,
        DIFFUSION_STAGE,
        lambda precision: DiffusionStage(settings, training, tuning, context, precision, fitted),
        context,
    )
    reports = [diffusion_report]
    enlarging: dict[int, CropTraining] = {}
    for side in sides_of_stages(settings):
        enlarging[side], took = _train_super_resolution(settings, side, training, tuning, context)
        reports.append(took)
    network = new_network(settings, 0, fitted.vocabulary.sizes)
    enlargers: dict[int, EnlargingNetwork] = {
        side: stage.final for side, stage in enlarging.items()
    }
    refining: RefiningStage | None = None
    if settings.refining is None:
        trained = assembled(settings, fitted, network, diffusion.candidates.best, enlargers)
        choice = choose(trained, diffusion, context)
    else:
        # The refining stage trains on images of the diffusion model, which is chosen first.
        untrained = {side: untrained_enlarger(settings, side) for side in sides_of(settings)}
        for other in untrained.values():
            other.eval().requires_grad_(False)
        enlargers = untrained | enlargers
        trained = assembled(settings, fitted, network, diffusion.candidates.newest, enlargers)
        refining, took = _train_refining(trained, training, tuning, context)
        reports.append(took)
        choice = _best_refined(trained, refining, context)
    small = describe_diffusion(settings, diffusion)
    large = describe_enlarging(settings, list(enlarging.values()))
    description = describe(settings, fitted, small, large, refining)
    things = (
        f"grey value histograms ({len(fitted.histograms)} training images)",
        "labels and their frequencies",
        "mean image and intensity gain",
        "diffusion network",
        "super-resolution networks",
    )
    report = fit_report(settings, training, tuning, choice, description, reports, things)
    return choice.trained, report


def fit_report(
    settings: DsrGanSettings,
    training: ImageView,
    tuning: ImageView,
    choice: Choice,
    description: Mapping[str, str],
    stages: Sequence[TrainingStage],
    things: Sequence[str],
) -> FitReport:
    """Make the report of a training.

    Args:
        settings: Settings of the whole generator.
        training: View that everything was fitted on.
        tuning: View that the checkpoint was chosen on.
        choice: The chosen checkpoint.
        description: All fields of the description except the choice of the checkpoint.
        stages: Stages in order.
        things: Names of everything that was fitted.
    """
    return FitReport(
        description={**description, "checkpoint choice": choice.words},
        stages=tuple(stages),
        fitted=tuple(FittedThing(name=name, fit_view_sha256=training.digest) for name in things),
        selection=Selection(
            partition=tuning.partition,
            view_sha256=tuning.digest,
            criterion=f"lowest {choice.criterion} on the tuning view",
            candidates=tuple(
                Candidate(step=step, score=score) for step, score in choice.candidates
            ),
            chosen_step=choice.step,
        ),
        pretrained=_pretrained(settings),
    )


def require_usable(view: ImageView, size: int) -> None:
    """Refuse a view that cannot be trained on.

    Raises:
        DataError: The view is empty or has images of another size.
    """
    if len(view) == 0:
        raise DataError(
            f"{view.partition} view: expected at least 1 image, found 0; "
            "give more data or another split",
            code="D081",
        )
    if view.pixels.shape[1:] != (size, size):
        height, width = view.pixels.shape[1:]
        raise DataError(
            f"{view.partition} view: expected images of {size} x {size} pixels "
            f"(super_resolution.to), found {height} x {width}; pack the view again at that size",
            code="D082",
        )


def _train_super_resolution(
    settings: DsrGanSettings,
    side: int,
    training: ImageView,
    tuning: ImageView,
    context: TrainingContext,
) -> tuple[CropTraining, TrainingStage]:
    def stage_in(precision: Precision) -> CropTraining:
        return super_resolution_stage(settings, side, training, tuning, context, precision)

    setting = settings.super_resolution.precision or settings.precision
    return train_stage(settings, setting, stage_name(settings, side), stage_in, context)


def _train_refining(
    trained: Trained, training: ImageView, tuning: ImageView, context: TrainingContext
) -> tuple[RefiningStage, TrainingStage]:
    """Train the refining stage on images drawn from the diffusion model of `trained`."""
    settings = trained.settings
    own = settings.refining
    assert own is not None  # noqa: S101 - for the type checker
    pool = _small_images(trained, own.n_samples, POOL, context)
    held_back = _small_images(trained, settings.score_images, CHOOSING, context)
    apart = _apart(context, CHOOSING)

    def finish(images: torch.Tensor) -> torch.Tensor:
        return trained.enlarged(images, range(len(images)), apart)

    def stage_in(precision: Precision) -> RefiningStage:
        return RefiningStage(own, training, tuning, pool, held_back, finish, context, precision)

    return train_stage(settings, settings.precision, REFINING_STAGE, stage_in, context)


def _small_images(trained: Trained, n: int, purpose: str, context: TrainingContext) -> Pixels:
    """Draw images from the diffusion model under a seed of their own, (n, size, size), uint8."""
    apart = _apart(context, purpose)
    trained.diffusion.to(context.compute_device)
    batches = []
    for first in range(0, n, IMAGES_AT_ONCE):
        indices = range(first, min(first + IMAGES_AT_ONCE, n))
        batches.append(trained.small(indices, apart, Condition()))
        apart.progress(purpose, indices[-1] + 1, n)
    return np.concatenate(batches)


def _apart(context: TrainingContext, purpose: str) -> TrainingContext:
    """Return the context with a seed of the purpose's own, so that no images are drawn twice."""
    return replace(
        context,
        seed=derive_seed(context.seed, purpose),
        progress=lambda _stage, done, total: context.progress(purpose, done, total),
    )


def train_stage(
    settings: DsrGanSettings,
    setting: Literal["auto", "fp32", "bf16"],
    name: str,
    stage_in: Callable[[Precision], _Stage],
    context: TrainingContext,
) -> tuple[_Stage, TrainingStage]:
    """Train a stage to its end.

    Args:
        settings: Settings of the whole generator.
        setting: The stage's precision setting.
        name: Name of the stage.
        stage_in: Builds the stage in a precision, before its first step.
        context: Where states are kept; stop flag, log, progress.

    Raises:
        StoppedError, TrainingError, WeightsError: As `medisynth.training.loop.train`.
    """
    precision = _precision(setting, name, stage_in, context)
    stage = stage_in(precision)
    took = train(stage, context, evaluate_every=settings.selection_every)
    networks = (
        (stage.network,)
        if isinstance(stage, DiffusionStage)
        else (stage.enlarger, stage.discriminator)
    )
    return stage, training_stage(
        name=stage.name,
        n_parameters=n_parameters(*networks),
        n_steps=stage.n_steps,
        batch_size=stage.batch_size,
        duration_s=took.duration_s,
        precision=precision,
        n_processes=took.n_processes,
        peak_memory_bytes=took.peak_memory_bytes,
    )


def _precision(
    setting: Literal["auto", "fp32", "bf16"],
    name: str,
    stage_in: Callable[[Precision], _Stage],
    context: TrainingContext,
) -> Precision:
    if setting != "auto":
        return setting
    # A resumed stage keeps its precision: timing again could choose another.
    begun = context.states.latest(name) if context.states else None
    used = begun.facts["stage"]["precision"] if begun else None
    if used is not None:
        return "bf16" if used == "bf16" else "fp32"
    trials = {name: stage_in(name) for name in ("fp32", "bf16")}

    def last_step(precision: Precision) -> None:  # the last one, where every network takes part
        stage = trials[precision]
        stage.step(stage.n_steps - 1)

    return choose_precision("auto", last_step, context.compute_device)


def assembled(
    settings: DsrGanSettings,
    fitted: Fitted,
    network: nn.Module,
    weights: Mapping[str, torch.Tensor],
    enlargers: Enlargers,
) -> Trained:
    """Put a generator together from its trained parts.

    Args:
        settings: Settings of the whole generator.
        fitted: Parts that were fitted before training.
        network: A diffusion network to load `weights` into.
        weights: Weights of a candidate.
        enlargers: Side of the images made -> trained enlarging network.
    """
    network.load_state_dict(weights)
    network.eval().requires_grad_(False)
    return Trained(
        settings,
        network,
        fitted.scaling,
        fitted.histograms,
        enlargers,
        fitted.vocabulary,
        Edm(settings.diffusion),
    )


def choose(trained: Trained, diffusion: DiffusionStage, context: TrainingContext) -> Choice:
    """Choose among the diffusion networks that were kept.

    Whole images tell more than the loss of one stage but cost more: only kept candidates draw any.
    """
    kept, n_images = diffusion.candidates.weights, trained.settings.score_images
    if context.score is None:
        losses = tuple(pair for pair in diffusion.candidates.scores if pair[0] in kept)
        words = _chosen(DENOISING_LOSS, len(losses), len(diffusion.candidates.scores))
        best_step = diffusion.candidates.best_step
        return Choice(trained, best_step, losses, DENOISING_LOSS, words)
    quiet = _apart(context, CHOOSING)
    scores = []
    for step, weights in kept.items():
        trained.diffusion.load_state_dict(weights)
        score = float(context.score(trained.sample(n_images, quiet)))
        require_finite({context.score_name or "score": score}, stage=CHOOSING, step=step - 1)
        scores.append((step, score))
    chosen_step = min(scores, key=lambda pair: pair[1])[0]
    trained.diffusion.load_state_dict(kept[chosen_step])
    criterion = context.score_name or "score"
    words = _chosen(criterion, len(scores), len(diffusion.candidates.scores))
    return Choice(trained, chosen_step, tuple(scores), criterion, words)


def _chosen(criterion: str, n_scored: int, n_all: int) -> str:
    of_what = "" if criterion == DENOISING_LOSS else " of whole images"
    return (
        f"lowest {criterion}{of_what} on the tuning view among the newest {n_scored} of {n_all} "
        "candidates"
    )


def _best_refined(trained: Trained, refining: RefiningStage, context: TrainingContext) -> Choice:
    """Choose the refining network with the best score, which was computed during training."""
    candidates = refining.candidates
    next(iter(trained.enlargers.values())).load_state_dict(candidates.best)
    criterion = ENERGY if context.score is None else context.score_name or "score"
    return Choice(
        trained,
        candidates.best_step,
        tuple(candidates.scores),
        criterion,
        f"lowest {criterion} of whole images on the tuning view among {len(candidates.scores)} "
        "refining networks; the diffusion network is the last one",
    )


def _pretrained(settings: DsrGanSettings) -> tuple[PretrainedComponent, ...]:
    given = settings.pretrained
    if given is None:
        return ()
    return (
        PretrainedComponent(
            name="diffusion network",
            used_for="start of its training",
            declared_by="the configuration",
            **given.model_dump(exclude={"path"}),
        ),
    )
