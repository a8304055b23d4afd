"""The training process with one guard taken away, to see that the self-test notices."""

import os
import sys

from governance.confinement import confine as confinement
from pipelines.training import child as training_child


def _unconfined(**_: object) -> confinement.Confinement:
    return confinement.Confinement(2, confinement.LEVEL_NAMES[2], "nothing", 0, False)


def _disarm(guard: str) -> None:
    if guard == "confinement":
        confinement.confine = _unconfined
    elif guard == "packed view":
        from medisynth.data.reading.views import load_view

        training_child._view = lambda job, partition: load_view(
            training_child.Path(job.views), partition
        )
    elif guard == "finite loss":
        from medisynth.training import loop as training
        from medisynth.training import update as training_update

        training_update.require_finite = lambda *_, **__: None
        training._Loop._commit = lambda _: None  # states refuse such numbers, too


if __name__ == "__main__":
    _disarm(os.environ["DISARMED"])
    sys.exit(training_child.main())
