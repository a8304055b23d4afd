"""Further extractors: found by name, fitted to labels, read back, and what they tell apart."""

from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError, SettingsError, WeightsError
from medisynth.data.reading.views import ImageView
from medisynth.metrics.extractors import (
    DomainNetwork,
    PixelPca,
    extractor_names,
    load_extractor,
)
from medisynth.metrics.kernel import kernel_distance


def frames(n, seed, *, machine_gain=1.0):
    """Frames with an ellipse whose height says the plane and whose texture says the machine."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    pixels, planes, machines = [], [], []
    for k in range(n):
        plane, machine = k % 2, (k // 2) % 2
        ring = np.abs(np.hypot(x / 0.7, y / (0.4 + 0.3 * plane)) - 1) < 0.15
        speckle = random.random((48, 48)) ** (1 + 2 * machine)
        pixels.append((40 + 150 * ring * speckle * machine_gain).clip(0, 255).astype(np.uint8))
        planes.append(f"plane {plane}")
        machines.append(f"machine {machine}")
    names = tuple(map(str, range(n)))
    return ImageView("training", np.stack(pixels), names, names, tuple(planes), tuple(machines))


def fitted(kind, training, tuning=None, seed=0):
    extractor = kind()
    words = extractor.fit(training, tuning or frames(40, 9), seed, lambda done, total: None)
    return extractor, words


@pytest.fixture(scope="module")
def domain():
    return fitted(DomainNetwork, frames(120, 1))


def test_both_built_in_extractors_are_registered():
    assert {"domain", "pixel-pca"} <= set(extractor_names())
    assert load_extractor("pixel-pca").name == "pixel-pca"


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'domain'"):
        load_extractor("domian")


def test_a_class_that_lacks_members_is_named_with_what_it_lacks(monkeypatch):
    point = EntryPoint("mine", "tests.medisynth.metrics.test_extractors:Lacking", "")
    monkeypatch.setattr("medisynth.metrics.extractors.registered", lambda *_: point)
    monkeypatch.setattr("medisynth.metrics.extractors.import_point", lambda *_: Lacking)
    with pytest.raises(SettingsError, match=r"no method extract.*no text training_data.*overlap"):
        load_extractor("mine")


class Lacking:
    name = title = resize = "x"

    def fit(self): ...

    def state(self): ...

    def load_state(self): ...


def test_the_network_learns_the_labels_of_unseen_images(domain):
    _, words = domain

    shares = [int(part.split(" %")[0].rsplit(" ", 1)[1]) for part in words.split("; ")[1:]]
    assert len(shares) == 2
    assert min(shares) >= 90


def test_it_tells_images_of_one_machine_from_those_of_two(domain):
    extractor, _ = domain
    real, other = frames(80, 2), frames(80, 3)
    one = other.pixels[[m == "machine 0" for m in other.machines]]

    near = kernel_distance(extractor.extract(real.pixels), extractor.extract(other.pixels))
    far = kernel_distance(extractor.extract(real.pixels), extractor.extract(one))
    assert far > 5 * max(near, 0.01)


@pytest.mark.parametrize("kind", [DomainNetwork, PixelPca])
def test_the_same_seed_gives_the_same_tensors_whatever_the_global_state(kind):
    import torch

    states = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        states.append(fitted(kind, frames(60, 1))[0].state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("kind", [DomainNetwork, PixelPca])
def test_what_was_fitted_extracts_the_same_once_it_is_read_back(kind):
    extractor, _ = fitted(kind, frames(60, 1))
    pixels = frames(70, 4).pixels
    again = kind()
    again.load_state(extractor.state())

    features = extractor.extract(pixels)
    assert features.shape == (70, extractor.n_features) == (70, again.n_features)
    assert np.array_equal(features, again.extract(pixels))
    assert np.allclose(features[:3], extractor.extract(pixels[:3]), atol=1e-4)


@pytest.mark.parametrize("kind", [DomainNetwork, PixelPca])
def test_training_features_have_a_variance_near_one(kind):
    training = frames(120, 1)
    features = fitted(kind, training)[0].extract(training.pixels)

    assert features.var(axis=0).mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("kind", [DomainNetwork, PixelPca])
def test_other_tensors_are_refused(kind):
    import torch

    with pytest.raises(WeightsError):
        kind().load_state({"mean": torch.zeros(3)})


def test_without_labels_there_is_no_domain_to_learn():
    view = frames(40, 1)
    bare = replace(view, planes=("",) * 40, machines=("one",) * 40)
    with pytest.raises(MetricUndefinedError, match="no two planes and no two machines"):
        fitted(DomainNetwork, bare)


def test_equal_images_have_no_components():
    view = frames(40, 1)
    flat = replace(view, pixels=np.repeat(view.pixels[:1], 40, axis=0))
    with pytest.raises(MetricUndefinedError, match="the same"):
        fitted(PixelPca, flat)
