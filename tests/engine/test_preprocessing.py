"""Input conventions: what they compute, their derivative, and how a model's is found out."""

import dataclasses
import hashlib

import numpy as np
import pytest

from engine import vgg
from engine.errors import ModelError
from engine.load import load_network
from engine.onnx.reader import read_onnx
from engine.preprocessing import (
    PREPROCESSING,
    Preprocessing,
    metadata_preprocessing,
    named_preprocessing,
    preprocessing_metadata,
)
from engine.vgg import KNOWN_WEIGHTS, KnownFile, KnownWeights, layer_hash
from kernels import Cpu
from tests.engine import models

CUSTOM = Preprocessing("custom", True, 1 / 255, (0.1, -0.2, 0.3), (0.5, 2.0, 1.5))
ALL = {**PREPROCESSING, "custom": CUSTOM}

# One pixel (R, G, B), written out.
FORMULAS = {
    "caffe": lambda r, g, b: (b - 103.939, g - 116.779, r - 123.68),
    "torch": lambda r, g, b: ((r / 255 - 0.485) / 0.229, (g / 255 - 0.456) / 0.224, (b / 255 - 0.406) / 0.225),
    "unit": lambda r, g, b: (r / 255, g / 255, b / 255),
    "raw": lambda r, g, b: (r, g, b),
    "bgr": lambda r, g, b: (b, g, r),
    "custom": lambda r, g, b: ((b / 255 - 0.1) / 0.5, (g / 255 + 0.2) / 2, (r / 255 - 0.3) / 1.5),
}


@pytest.mark.parametrize("name", ALL)
def test_gradient_is_the_complex_step_derivative(name):
    rng = np.random.default_rng(0)
    image, direction, gradient = rng.uniform(0, 255, (3, 4, 5, 3))
    output = ALL[name].apply(Cpu(1), image + 1e-30j * direction, np.dtype(np.complex128))
    derivative = (gradient * output).sum().imag / 1e-30
    assert np.vdot(ALL[name].input_gradient(Cpu(1), gradient), direction) == pytest.approx(derivative, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("name", ALL)
def test_equals_its_formula(name, dtype):
    image = models.random_image(3, 4)
    expected = [[FORMULAS[name](*pixel) for pixel in row] for row in image]
    output = ALL[name].apply(Cpu(1), image, np.dtype(dtype))
    assert output.dtype == dtype
    assert output.flags.c_contiguous
    np.testing.assert_allclose(output, expected, rtol=1e-6 if dtype is np.float32 else 1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ALL)
def test_takes_bytes_as_it_takes_floats(name):
    image = np.arange(256 * 3, dtype=np.int64).reshape(16, 16, 3) % 256
    from_bytes = ALL[name].apply(Cpu(1), image.astype(np.uint8), np.dtype(np.float32))
    np.testing.assert_array_equal(from_bytes, ALL[name].apply(Cpu(1), image.astype(np.float64), np.dtype(np.float32)))


@pytest.mark.parametrize("name", ALL)
def test_arguments_stay_as_they_are(name):
    image = models.random_image(3, 4)
    copy = image.copy()
    output = ALL[name].apply(Cpu(1), image, np.dtype(np.float64))
    gradient = ALL[name].input_gradient(Cpu(1), image)
    output += 1
    gradient += 1
    np.testing.assert_array_equal(image, copy)


def test_gradient_is_in_double_precision():
    gradient = PREPROCESSING["torch"].input_gradient(Cpu(1), np.ones((2, 2, 3), np.float32))
    assert gradient.dtype == np.float64
    np.testing.assert_allclose(gradient[0, 0], [1 / 255 / 0.229, 1 / 255 / 0.224, 1 / 255 / 0.225], rtol=1e-15)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown preprocessing 'cafe'; did you mean 'caffe'\? choose from caffe, to"):
        named_preprocessing("cafe")


# ---- metadata ----


@pytest.mark.parametrize("name", ALL)
def test_metadata_gives_the_same_convention_back(name):
    found = metadata_preprocessing(preprocessing_metadata(ALL[name]))
    assert dataclasses.replace(found, name=name) == ALL[name]
    if name in PREPROCESSING:
        assert found.name == name


def test_mean_and_deviation_may_be_left_out():
    metadata = {"Image.BitmapPixelFormat": "Rgb8", "Image.NominalPixelRange": "NominalRange_0_255"}
    assert metadata_preprocessing(metadata) == PREPROCESSING["raw"]


def test_metadata_about_something_else_states_nothing():
    assert metadata_preprocessing({}) is None
    assert metadata_preprocessing({"author": "nobody", "Image.ColorSpaceGamma": "SRGB"}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Image.BitmapPixelFormat": "Gray8"}, "Image.BitmapPixelFormat is 'Gray8', expected 'Bgr8' or 'Rgb8'"),
        ({"Image.BitmapPixelFormat": None}, "Image.BitmapPixelFormat is None, expected 'Bgr8' or 'Rgb8'"),
        ({"Image.NominalPixelRange": None}, "Image.NominalPixelRange is None, expected one of NominalRange_0_255"),
        ({"Image.NominalPixelRange": "Normalized_1_1"}, "Image.NominalPixelRange is 'Normalized_1_1', expected one of"),
        ({"mean": "1,2"}, "metadata mean is '1,2', expected three numbers"),
        ({"mean": "a,b,c"}, "metadata mean is 'a,b,c', expected three numbers"),
        ({"mean": "1,2,nan"}, "metadata mean is '1,2,nan', expected three finite numbers"),
        ({"std": "1,inf,1"}, "metadata std is '1,inf,1', expected three finite numbers"),
        ({"std": "1,0,1"}, "metadata std is '1,0,1', expected three numbers above 0"),
        ({"std": "1,1,-2"}, "metadata std is '1,1,-2', expected three numbers above 0"),
    ],
)
def test_contradictory_metadata_is_named(change, message, tmp_path):
    metadata = preprocessing_metadata(PREPROCESSING["caffe"]) | change
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with pytest.raises(ModelError, match=message):
        metadata_preprocessing(metadata)
    path = models.save(models.vgg(models.parameters((1,)), metadata=metadata), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        load_network(path)
    # Who says what the network takes is not asked for the metadata.
    assert load_network(path, preprocessing="unit").preprocessing == PREPROCESSING["unit"]


# ---- how a model's convention is found out ----


def unlabeled(path, seed=0):
    return models.save(models.vgg(models.parameters((2,), seed=seed), metadata={}), path / f"model{seed}.onnx")


def test_a_model_that_tells_nothing_is_refused_with_the_four_choices(tmp_path):
    message = 'nothing tells which input this model was trained on.*"caffe".*"torch".*"unit".*"raw"'
    with pytest.raises(ModelError, match=message):
        load_network(unlabeled(tmp_path))


@pytest.mark.parametrize("name", PREPROCESSING)
def test_the_convention_that_is_given_is_taken(name, tmp_path):
    assert load_network(unlabeled(tmp_path), preprocessing=name).preprocessing == PREPROCESSING[name]
    labeled = models.save(models.vgg(models.parameters((2,))), tmp_path / "labeled.onnx")
    assert load_network(labeled, preprocessing=name).preprocessing == PREPROCESSING[name]


def test_the_metadata_is_read(tmp_path):
    for name, convention in ALL.items():
        model = models.vgg(models.parameters((2,)), metadata=preprocessing_metadata(convention))
        found = load_network(models.save(model, tmp_path / "m.onnx")).preprocessing
        assert dataclasses.replace(found, name=name) == convention


def test_a_published_file_is_known_by_its_hash(tmp_path, monkeypatch):
    path, other = unlabeled(tmp_path), unlabeled(tmp_path, seed=1)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = KnownFile("test", "vgg16", digest, path.stat().st_size, "torch")
    monkeypatch.setattr(vgg, "KNOWN_FILES", (entry,))
    assert load_network(path).preprocessing == PREPROCESSING["torch"]
    assert other.stat().st_size == path.stat().st_size
    with pytest.raises(ModelError, match="nothing tells"):
        load_network(other)


def test_published_weights_are_known_by_their_first_layer(tmp_path, monkeypatch):
    path, other = unlabeled(tmp_path), unlabeled(tmp_path, seed=1)
    first = read_onnx(path).nodes[0].operator
    monkeypatch.setitem(KNOWN_WEIGHTS, layer_hash(first), KnownWeights("test", "unit", 0.125))
    network = load_network(path)
    assert network.preprocessing == PREPROCESSING["unit"]
    assert network.content_weight == 0.125
    with pytest.raises(ModelError, match="nothing tells"):
        load_network(other)


def test_the_metadata_goes_before_the_first_layer(tmp_path, monkeypatch):
    path = models.save(models.vgg(models.parameters((2,))), tmp_path / "m.onnx")
    first = read_onnx(path).nodes[0].operator
    monkeypatch.setitem(KNOWN_WEIGHTS, layer_hash(first), KnownWeights("test", "unit", 0.125))
    network = load_network(path)
    assert network.preprocessing == PREPROCESSING["caffe"]
    assert network.content_weight == 0.125
