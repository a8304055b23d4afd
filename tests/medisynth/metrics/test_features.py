import hashlib
import sys
import warnings

import numpy as np
import pytest

from governance.records.errors import MetricUndefinedError, WeightsError
from medisynth.metrics.features import InceptionPool3, check_reference
from medisynth.metrics.inception_weights import (
    INCEPTION_SHA256,
    Arrays,
    arrays_sha256,
    build_network,
    convert_pytorch_fid,
    convert_torchscript,
)
from medisynth.metrics.torchvision_guard import import_torchvision
from pipelines.fetch.weights import find_weights

WEIGHTS = find_weights()
needs_weights = pytest.mark.skipif(WEIGHTS is None, reason="FID weights are not in the cache")


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (9, 40, 56), dtype=np.uint8)


@pytest.fixture(scope="module")
def inception():
    return InceptionPool3.load(WEIGHTS)


def test_torchvision_can_be_imported_twice_and_says_how_it_stands():
    first, second = import_torchvision(), import_torchvision()

    assert first == second
    assert first in ("works", "works with two placeholder operators")
    assert "torchvision.models" in sys.modules


def test_a_placeholder_operator_never_pretends_to_work():
    import torch

    if import_torchvision() == "works":
        pytest.skip("torchvision's own operators are there")
    with pytest.raises(NotImplementedError):
        torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)


@needs_weights
def test_features_have_one_row_an_image_and_do_not_depend_on_neighbours(inception, frames):
    steps = []
    features = inception.extract(frames, lambda done, total: steps.append((done, total)))

    assert features.shape == (9, 2048)
    assert features.dtype == np.float64
    assert features.min() >= 0
    assert steps == [(8, 9), (9, 9)]
    assert np.abs(inception.extract(frames[8:]) - features[8:]).max() < 1e-5


@needs_weights
def test_features_are_those_of_pytorch_fids_network(inception, frames):
    import torch
    from safetensors.numpy import load_file

    network = build_network(load_file(WEIGHTS))
    scaled = torch.from_numpy(frames[:2] / np.float32(255)).unsqueeze(1).repeat(1, 3, 1, 1)
    with torch.inference_mode():
        theirs = network(scaled)[0].flatten(1).numpy()

    ours = inception.extract(frames[:2])

    assert np.abs(ours - theirs).max() < 1e-5 * theirs.max()


@needs_weights
def test_black_images_have_features_too(inception):
    assert np.isfinite(inception.extract(np.zeros((2, 32, 32), np.uint8))).all()


@needs_weights
def test_no_images_give_no_features(inception):
    assert inception.extract(np.zeros((0, 32, 32), np.uint8)).shape == (0, 2048)


@needs_weights
def test_floats_and_colour_images_are_refused(inception):
    for wrong in (np.zeros((2, 8, 8)), np.zeros((2, 8, 8, 3), np.uint8)):
        with pytest.raises(MetricUndefinedError, match="uint8 images of shape"):
            inception.extract(wrong)


@needs_weights
def test_the_extractor_says_what_it_is(inception):
    assert inception.name == "inception_pool3"
    assert inception.weights_sha256 == INCEPTION_SHA256
    assert inception.n_features == 2048
    assert "bilinear" in inception.resize


@pytest.mark.malformed("checkpoint")
@needs_weights
def test_other_weights_than_expected_are_refused():
    with pytest.raises(WeightsError, match="expected 000000000000"):
        InceptionPool3.load(WEIGHTS, "0" * 64)


@pytest.mark.malformed("checkpoint")
def test_a_missing_or_damaged_weights_file_is_refused_in_words(tmp_path):
    damaged = tmp_path / "weights.safetensors"
    damaged.write_bytes(b"not weights")
    for path in (damaged, tmp_path / "absent.safetensors"):
        with pytest.raises(WeightsError, match="weights fetch"):
            InceptionPool3.load(path)


@pytest.mark.malformed("checkpoint")
def test_weights_of_another_shape_do_not_fit_the_network():
    with pytest.raises(WeightsError, match="do not fit"):
        build_network({"Conv2d_1a_3x3.conv.weight": np.zeros((1, 3, 3, 3), np.float32)})


def test_the_digest_of_arrays_sees_names_shapes_and_values_but_not_order():
    one, two = np.arange(6, dtype=np.float32), np.ones(2, np.float32)
    digest = arrays_sha256({"a": one, "b": two})

    others: list[Arrays] = [
        {"a": one, "c": two},
        {"a": one.reshape(2, 3), "b": two},
        {"a": one + 1, "b": two},
        {"a": one},
    ]
    assert digest == arrays_sha256({"b": two, "a": one})
    assert digest not in [arrays_sha256(other) for other in others]


@pytest.mark.malformed("checkpoint")
@pytest.mark.parametrize("convert", [convert_torchscript, convert_pytorch_fid])
def test_a_file_that_is_not_the_pinned_one_is_not_opened(convert, tmp_path):
    path = tmp_path / "default_1.pt"
    path.write_bytes(b"PK\x03\x04 anything")

    with pytest.raises(WeightsError, match=r"default_1.pt: expected sha256:"):
        convert(path)


def test_of_pytorch_fids_file_the_classifier_and_the_counters_are_left_out(tmp_path, monkeypatch):
    import torch

    path = tmp_path / "small.pth"
    kept = {"Conv2d_1a_3x3.conv.weight": torch.ones(1, 3, 3, 3), "a.bn.weight": torch.ones(2)}
    left = {"a.bn.num_batches_tracked": torch.tensor(0), "fc.weight": torch.ones(4, 2)}
    torch.save(kept | left, path)
    pin = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr("medisynth.metrics.inception_weights.PYTORCH_FID_SHA256", pin)

    assert set(convert_pytorch_fid(path)) == set(kept)


@needs_weights
def test_converted_weights_compute_what_the_torchscript_program_computes(tmp_path):
    """Needs the other form of the network, beside the cached one under its own name."""
    original = WEIGHTS.parent / "default_1.pt"
    if not original.is_file():
        pytest.skip("default_1.pt is not in the cache")
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is going away
        program = torch.jit.load(original)
    network = build_network(convert_torchscript(original))
    images = torch.rand(2, 3, 299, 299, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = network(images)[0].flatten(1) - program(2 * images - 1)

    assert difference.abs().max() < 1e-5


def test_good_references_pass(frames):
    check_reference(frames, "held-out test set")
    check_reference(frames[:1], "held-out test set")


@pytest.mark.parametrize(
    ("pixels", "fault"),
    [
        ((np.random.default_rng(0).random((4, 8, 8))).astype(np.uint8), "brightest pixel is 0"),
        (np.ones((4, 8, 8), np.uint8), "brightest pixel is 1"),
        (np.random.default_rng(0).random((4, 8, 8)), "dtype is float64"),
        (np.full((4, 8, 8), 90, np.uint8), "4 of 4 images are one flat grey"),
        (
            np.tile(np.arange(64, dtype=np.uint8).reshape(8, 8), (4, 1, 1)),
            "all 4 images are the same",
        ),
        (np.zeros((0, 8, 8), np.uint8), "no images"),
    ],
)
def test_a_reference_that_became_black_or_flat_is_refused(pixels, fault):
    with pytest.raises(MetricUndefinedError, match=f"held-out test set: .*{fault}"):
        check_reference(pixels, "held-out test set")
