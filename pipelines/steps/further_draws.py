"""Images that s5 draws for the evaluation alone: with other seeds, and level by level."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from governance.records.errors import EvidenceTamperedError, ProcessError
from governance.records.files import sha256_file
from medisynth.data.reading.views import ImageView, Pixels
from medisynth.models.elsewhere import NAME as ELSEWHERE
from pipelines.current_run.context import RunContext
from pipelines.fetch.weights import find_weights
from pipelines.training.messages import FurtherDraw
from pipelines.training.parent import FURTHER

DRAWN = "further images drawn"
_SEEDS_OF_SAMPLING = 3  # the run's own and two more
_N_BY_LEVEL = 64  # images drawn for each level of an attribute that the generator knows


def wanted(training: ImageView, context: RunContext) -> tuple[FurtherDraw, ...]:
    """Return what to draw for the evaluation alone: two more seeds, and each level with patients.

    Nothing is drawn where no feature could be extracted, or where images were made elsewhere. Levels are chosen by their training
    patients: what the test set holds is not told to the training process.
    """
    config = context.config.evaluation
    is_elsewhere = context.config.model.name == ELSEWHERE
    if is_elsewhere or config.extractor == "none" or find_weights() is None:
        return ()
    n, seed = min(config.n_synthetic, config.max_real), context.config.seed
    draws = [FurtherDraw(n, seed + more) for more in range(1, _SEEDS_OF_SAMPLING)]
    for attribute, labels in (("brain_plane", training.planes), ("machine", training.machines)):
        patients: dict[str, set[str]] = defaultdict(set)
        for label, patient in zip(labels, training.patient_ids, strict=True):
            patients[label].add(patient)
        levels = [x for x in sorted(patients) if x and len(patients[x]) >= config.least_patients]
        if len(levels) > 1:
            n_each = min(n, _N_BY_LEVEL)
            draws += [FurtherDraw(n_each, seed, attribute, level) for level in levels]
    return tuple(draws)


def put_on_record(draws: tuple[FurtherDraw, ...], context: RunContext) -> None:
    """Write into the journal what was drawn, and the digest of the file that holds it."""
    body = {"draws": [list(draw) for draw in draws], "sha256": sha256_file(_file(context))}
    context.store.journal.append(DRAWN, body)


def _file(context: RunContext) -> Path:
    return context.scratch / "work" / FURTHER


def read(
    shape: tuple[int, ...], context: RunContext
) -> tuple[dict[tuple[str, str], Pixels], dict[int, Pixels]]:
    """Return the images of further draws: by (attribute, level), and by seed.

    Raises:
        EvidenceTamperedError: The file is not the one that was drawn.
        ProcessError: The generator returned images of another form than asked for.
    """
    bodies = [e.body for e in context.store.journal.events() if e.type == DRAWN]
    if not bodies or not _file(context).is_file():
        return {}, {}
    if (found := sha256_file(_file(context))) != bodies[-1]["sha256"]:
        path, expected = _file(context), bodies[-1]["sha256"]
        raise EvidenceTamperedError(path, expected=expected, found=found)
    by_level: dict[tuple[str, str], Pixels] = {}
    by_seed: dict[int, Pixels] = {}
    with np.load(_file(context), allow_pickle=False) as file:
        for place, fields in enumerate(bodies[-1]["draws"]):
            if str(place) not in file:
                continue
            draw, images = FurtherDraw(*fields), file[str(place)]
            if images.shape != (draw.n, *shape) or images.dtype != np.uint8:
                raise ProcessError(
                    f"the generator drew {images.dtype} of shape {images.shape}, expected uint8 of "
                    f"{(draw.n, *shape)}; see docs/plugins.md",
                    code="T901",
                )
            if draw.attribute:
                by_level[draw.attribute, draw.level] = images
            else:
                by_seed[draw.seed] = images
    return by_level, by_seed
