"""Generators for tests, each with a fault of its own."""

import os
import signal

import numpy as np

from tests.plugins.pca_gaussian import PcaGaussian


class NoMemory(PcaGaussian):
    def sample(self, n, context, condition=None):
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")


class WrongShape(PcaGaussian):
    def sample(self, n, context, condition=None):
        return np.zeros((n, 3, 3), np.uint8)


class Bug(PcaGaussian):
    def sample(self, n, context, condition=None):
        raise KeyError("lost")


class NoCondition(PcaGaussian):
    def sample(self, n, context):
        return super().sample(n, context)


class StoppedByUser(PcaGaussian):
    """Asks its own process to stop, as Ctrl-C does, and notices at the next step."""

    def sample(self, n, context, condition=None):
        os.kill(os.getpid(), signal.SIGINT)
        context.progress("drawing", 1, 2)
        return super().sample(n, context)


class NoReport(PcaGaussian):
    def fit(self, training, tuning, context):
        return super().fit(training, tuning, context).model_dump()


class NotAGenerator:
    name = "not a name"

    def fit(self, training, tuning, context):
        raise NotImplementedError
