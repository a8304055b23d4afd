"""Last stages of DSR-GAN: the enlarging stage that generators share, once for each doubling.

Where images become four times larger, two networks double one after the other, each trained by
itself: one network that enlarges four times at once turns speckle into threads (docs/dsr_gan.md has
the figures).
"""

from dataclasses import replace

from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.dsr_gan.settings import DsrGanSettings
from medisynth.models.enlarging.crop_training import STAGE
from medisynth.models.enlarging.images import reduced_pixels
from medisynth.models.enlarging.networks import Bicubic, EnlargingNetwork
from medisynth.models.enlarging.refining import new_refiner
from medisynth.models.enlarging.settings import EnlargingSettings
from medisynth.models.enlarging.stage import EnlargingStage, new_enlarger
from medisynth.training.loop import Precision


def sides_of(settings: DsrGanSettings) -> tuple[int, ...]:
    """Side of the images that each network makes, in pixels, the final one last."""
    n_doublings = settings.factor.bit_length() - 1
    return tuple(settings.super_resolution.to >> left for left in reversed(range(n_doublings)))


def sides_of_stages(settings: DsrGanSettings) -> tuple[int, ...]:
    """Sides, ascending, whose network `super_resolution_stage` trains; may be none."""
    first = settings.refining is not None
    last = None if settings.super_resolution.last_doubling == "network" else -1
    return sides_of(settings)[first:last]


def stage_name(settings: DsrGanSettings, side: int) -> str:
    """Name of the stage that makes images of a side."""
    return STAGE if side == settings.super_resolution.to else f"{STAGE} to {side} px"


def super_resolution_stage(
    settings: DsrGanSettings,
    side: int,
    training: ImageView,
    tuning: ImageView,
    context: TrainingContext,
    precision: Precision,
) -> EnlargingStage:
    """Build the untrained stage that makes images of one of `sides_of_stages`."""
    own, name = enlarging_settings(settings, side), stage_name(settings, side)
    views = [_at_side(view, side) for view in (training, tuning)]
    return EnlargingStage(own, 2, views[0], views[1], context, precision, name)


def enlarging_settings(settings: DsrGanSettings, side: int) -> EnlargingSettings:
    """Settings of the stage that makes images of a side."""
    own = settings.super_resolution
    return own.model_copy(update={"to": side, "crop": min(own.crop, side)})


def _at_side(view: ImageView, side: int) -> ImageView:
    if view.pixels.shape[-1] == side:
        return view
    return replace(view, pixels=reduced_pixels(view.pixels, side))


def untrained_enlarger(settings: DsrGanSettings, side: int) -> EnlargingNetwork:
    """Build the untrained network of a side, to load weights into."""
    if settings.refining is not None and side == sides_of(settings)[0]:
        return new_refiner(settings.refining, seed=0)
    own = enlarging_settings(settings, side)
    if own.last_doubling == "bicubic" and side == settings.super_resolution.to:
        return Bicubic()
    return new_enlarger(own, 2, seed=0)
