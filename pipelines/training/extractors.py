"""Fits further feature extractors inside the training process, which never sees the test set."""

import traceback
from pathlib import Path

from governance.records.errors import MetricUndefinedError, first_line
from governance.records.files import write_atomic
from medisynth import checkpoint
from medisynth.data.reading.views import ImageView
from medisynth.generator import StoppedError, TrainingContext
from medisynth.metrics.extractors import load_extractor
from pipelines.training.parent import EXTRACTOR


def fit_extractors(
    names: tuple[str, ...],
    work: Path,
    training: ImageView,
    tuning: ImageView,
    context: TrainingContext,
) -> None:
    """Fit and write each extractor, as a file of tensors with a sentence on what came of it.

    Of one that cannot be fitted the file holds the reason alone: whatever code of others does here,
    the training that went before is not lost.

    Raises:
        StoppedError: The run was asked to stop.
    """
    for name in names:

        def progress(done: int, total: int, name: str = name) -> None:
            if context.should_stop():
                raise StoppedError("asked to stop while feature extractors were fitted")
            context.progress(f"fitting the feature extractor {name}", done, total)

        facts = {"extractor": name, "reason": "", "words": ""}
        state = {}
        try:
            extractor = load_extractor(name)
            facts["words"] = extractor.fit(training, tuning, context.seed, progress)
            state = dict(extractor.state())
        except StoppedError:
            raise
        except MetricUndefinedError as error:
            facts["reason"] = str(error)
        except Exception as error:  # noqa: BLE001 - foreign code
            traceback.print_exc()
            facts["reason"] = f"fitting failed with {type(error).__name__}: {first_line(error)}"
        write_atomic(work / EXTRACTOR.format(name), checkpoint.encode(state, facts))
