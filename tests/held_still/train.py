"""A short training of each generator by the smoke preset, and digests of what came out.

Equal digests are asked for on one build of torch and one kind of processor only: another one may
round otherwise. `build` names both.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from medisynth.data.reading.views import ImageView
from medisynth.generator import TrainingContext
from medisynth.models.registry import load_generator
from pipelines.config.model import load_config

STEPS = {
    "dsr-gan": (
        "model.settings.diffusion.steps=6",
        "model.settings.diffusion.warm_up_steps=2",
        "model.settings.super_resolution.steps=4",
    ),
    "tb-gan": (
        "model.settings.schedule=[{name: adversarial, plane: all, steps: 6}]",
        "model.settings.warm_up_steps=2",
        "model.settings.selection_every=3",
    ),
}
_N_TRAINING, _N_TUNING, _N_SAMPLES = 24, 8, 4


def build() -> str:
    """Version of torch and what it uses of the processor, e.g. "2.14.0+cpu, AVX512"."""
    return f"{torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def training_digests(generator: str) -> dict[str, str]:
    """SHA-256 of the tensors and of the pixels of a few samples after some steps on one thread."""
    overrides = [f"model.name={generator}", *STEPS[generator]]
    settings = load_config(preset="smoke", overrides=overrides).generator_settings()
    kind = load_generator(generator)
    model = kind(settings)
    context = TrainingContext(
        seed=0,
        compute_device="cpu",
        log=lambda *_: None,
        progress=lambda *_: None,
        should_stop=lambda: False,
        preview_every=0,
    )
    side = kind.image_size_px(settings)
    with _one_thread():
        model.fit(_view("training", _N_TRAINING, side), _view("tuning", _N_TUNING, side), context)
        samples = np.asarray(model.sample(_N_SAMPLES, context))
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        weights.update(f"{name} {values.shape} {values.dtype}\n".encode())
        weights.update(values.tobytes())
    pixels = hashlib.sha256(f"{samples.shape} {samples.dtype}\n".encode() + samples.tobytes())
    return {"weights": weights.hexdigest(), "samples": pixels.hexdigest()}


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _view(partition: str, n: int, side: int) -> ImageView:
    """Soft discs of several sizes on two machines; exact in whole numbers, so equal everywhere."""
    y, x = np.mgrid[:side, :side]
    far = (2 * y - side) ** 2 + (2 * x - side) ** 2
    pixels = np.stack(
        [np.clip(255 - far * (4 + i % 7) * 32 // side**2, 0, 255) for i in range(n)]
    ).astype(np.uint8)
    ids = tuple(f"{partition}-{i}" for i in range(n))
    planes = tuple(("Trans-thalamic", "Trans-cerebellum")[i % 2] for i in range(n))
    return ImageView(partition, pixels, ids, ids, planes, ("Voluson E6",) * n)
