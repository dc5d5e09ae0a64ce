from __future__ import annotations

import numpy as np
import pytest

from engine.load import load_network
from engine.losses import content_loss, style_layer_loss
from engine.network import Network
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.reconstruct import content_reconstruction, feature_errors, gram_errors, psnr, texture_synthesis
from engine.stylize import Settings, initial_image, prepare
from kernels import Cpu
from tools.models.random_vgg import random_vgg

LAYERS = ("conv1_1", "conv2_1", "conv3_1")


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Network:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    write_onnx(path, random_vgg("vgg19", width=0.2), preprocessing_metadata(PREPROCESSING["caffe"]))
    return load_network(path, dtype="float64", threads=1)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    coarse = np.random.default_rng(1).uniform(20, 235, (6, 8, 3))
    return coarse.repeat(4, axis=0).repeat(4, axis=1)


@pytest.fixture(scope="module")
def other() -> np.ndarray:
    return np.random.default_rng(2).uniform(0, 255, (20, 28, 3))


# ---- the measures ----


def test_psnr_is_that_of_the_formula():
    image = np.full((4, 5, 3), 100.0)
    worse = image.copy()
    worse[0, 0, 0] += 30
    assert psnr(worse, image) == pytest.approx(10 * np.log10(255**2 / (900 / 60)))
    assert psnr(image + 10, image) == pytest.approx(20 * np.log10(25.5))
    assert psnr(image, image) == np.inf


def test_psnr_takes_values_as_a_file_would_hold_them():
    reference = np.array([[[0.0, 255.0, 100.0]]])
    assert psnr(np.array([[[-40.0, 300.0, 100.0]]]), reference) == np.inf
    assert psnr(reference.astype(np.uint8), reference) == np.inf
    assert psnr(np.array([[[3, 255, 100]]], np.uint8), reference) == pytest.approx(10 * np.log10(255**2 / 3))


def test_psnr_of_different_shapes_is_an_error():
    with pytest.raises(ValueError, match=r"\(2, 2, 3\).*\(2, 3, 3\)"):
        psnr(np.zeros((2, 2, 3)), np.zeros((2, 3, 3)))


def test_feature_errors_are_those_of_the_definition(network, photo):
    image = initial_image("noise", photo, photo, 3)
    F, P = (network.features(one, LAYERS) for one in (image, photo))
    errors = feature_errors(network, image, photo, LAYERS)
    assert list(errors) == list(LAYERS)
    for layer, error in errors.items():
        assert error == pytest.approx(np.linalg.norm(F[layer] - P[layer]) / np.linalg.norm(P[layer]), rel=1e-12)
    assert set(feature_errors(network, photo, photo, LAYERS).values()) == {0.0}


def test_gram_errors_are_those_of_the_definition_at_any_sizes(network, photo, other):
    F, P = (network.features(one, LAYERS) for one in (other, photo))
    for layer, error in gram_errors(network, other, photo, LAYERS).items():
        G, A = (np.einsum("ixy,jxy->ij", R, R) / (R.shape[1] * R.shape[2]) for R in (F[layer], P[layer]))
        assert error == pytest.approx(np.linalg.norm(G - A) / np.linalg.norm(A), rel=1e-10)
    assert set(gram_errors(network, photo, photo, LAYERS).values()) == {0.0}


def test_the_error_where_nothing_responds_is_zero_or_infinite(tmp_path, photo):
    nodes = random_vgg("vgg19", width=0.05)[:2]
    nodes[0].operator.weight[...] = 1
    nodes[0].operator.bias[...] = 0
    write_onnx(tmp_path / "bright.onnx", nodes, preprocessing_metadata(PREPROCESSING["caffe"]))
    bright = load_network(tmp_path / "bright.onnx", threads=1)  # responds where it is brighter than the mean
    for errors in (feature_errors, gram_errors):
        assert errors(bright, np.full_like(photo, 20), np.zeros_like(photo), ["conv1_1"]) == {"conv1_1": 0.0}
        assert errors(bright, np.full_like(photo, 200), np.zeros_like(photo), ["conv1_1"]) == {"conv1_1": np.inf}


# ---- content ----


def test_the_loss_is_equation_1_alone(network, photo):
    job = content_reconstruction(network, photo, "conv2_1")
    F, P = (network.features(one, "conv2_1")["conv2_1"] for one in (job.initial, photo))
    assert job.objective(job.initial)[0] == pytest.approx(content_loss(Cpu(1), F, P), rel=1e-12)
    value, gradient = job.objective(photo)
    assert value == 0
    assert not gradient.any()


def test_the_first_layer_gives_the_photograph_back_and_deeper_ones_less_and_less_of_it(network, photo):
    settings = Settings(iterations=150, optimizer="l-bfgs")
    found = [psnr(content_reconstruction(network, photo, layer, settings).run().image, photo) for layer in LAYERS]
    assert found[0] > 45
    assert found[0] > found[1] + 20
    assert found[1] > found[2] + 2


def test_several_layers_are_matched_together(network, photo):
    job = content_reconstruction(network, photo, {"conv1_1": 1.0, "conv2_1": 2.0})
    alone = [content_reconstruction(network, photo, layer).objective(job.initial)[0] for layer in LAYERS[:2]]
    assert job.objective(job.initial)[0] == pytest.approx(alone[0] + 2 * alone[1], rel=1e-12)


# ---- style ----


def test_the_loss_is_that_of_equations_4_and_5_alone(network, other):
    job = texture_synthesis(network, other, LAYERS)
    expected = 0.0
    for layer in LAYERS:
        F, P = (network.features(one, layer)[layer] for one in (job.initial, other))
        G, A = (np.einsum("ixy,jxy->ij", R, R) for R in (F, P))
        expected += style_layer_loss(Cpu(1), G, A, F.shape[1] * F.shape[2]) / 3
    assert job.objective(job.initial)[0] == pytest.approx(expected, rel=1e-10)
    assert job.objective(other)[0] == pytest.approx(0, abs=1e-20)


@pytest.mark.slow
def test_a_texture_has_the_paintings_gram_matrices_and_not_its_pixels(network, photo):
    job = texture_synthesis(network, photo, LAYERS[:2], Settings(iterations=150, optimizer="l-bfgs"))
    before = gram_errors(network, job.initial, photo, LAYERS[:2])
    image = job.run().image
    after = gram_errors(network, image, photo, LAYERS[:2])
    for layer in LAYERS[:2]:
        assert after[layer] < 0.02 < before[layer]
    assert psnr(image, photo) < 15


# ---- both ----


@pytest.mark.parametrize("make", [content_reconstruction, texture_synthesis])
def test_it_begins_with_noise_from_the_seed_or_with_the_image_given(network, photo, make):
    settings = Settings(seed=5, iterations=3, optimizer="adam")
    job = make(network, photo, "conv1_1", settings)
    np.testing.assert_array_equal(job.initial, np.random.default_rng(5).uniform(0, 255, photo.shape))
    start = np.full(photo.shape, 90, np.uint8)
    job = make(network, photo, "conv1_1", settings, start)
    np.testing.assert_array_equal(job.initial, start)
    result = job.run()
    assert result.iterations == 3
    assert result.value < result.initial_value
    np.testing.assert_array_equal(start, np.full(photo.shape, 90, np.uint8))


@pytest.mark.parametrize("make", [content_reconstruction, texture_synthesis])
def test_what_does_not_fit_is_an_error(network, photo, other, make):
    with pytest.raises(ValueError, match="did you mean 'conv1_1'"):
        make(network, photo, "conv11")
    with pytest.raises(ValueError, match=r"\(20, 28, 3\).*\(24, 32, 3\)"):
        make(network, photo, "conv1_1", None, other)
    with pytest.raises(ValueError, match="at least one layer"):
        make(network, photo, ())
    with pytest.raises(ValueError, match="too small"):
        make(network, photo[:2, :2], "conv4_1")


def test_the_first_image_is_checked_alike_for_every_job(network, photo, other):
    layer = ("conv1_1",)
    jobs = [
        ("content image", lambda first: prepare(network, photo, other, Settings(layer, layer), first)),
        ("image to match", lambda first: content_reconstruction(network, photo, layer, None, first)),
        ("image to match", lambda first: texture_synthesis(network, photo, layer, None, first)),
    ]
    broken = photo.copy()
    broken[3, 4, 1] = np.nan
    for name, make in jobs:
        with pytest.raises(ValueError, match=rf"initial image has the shape \(20, 28, 3\), the {name} \(24, 32, 3\)"):
            make(other)
        with pytest.raises(ValueError, match="not a number"):
            make(broken)
        assert not np.shares_memory(make(photo).initial, photo)
