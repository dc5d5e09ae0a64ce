"""Losses, gradients and short runs as another implementation has recorded them.

REFERENCE_DIR names a folder with ``models/*.onnx``, ``models/variants/*.onnx``, and in ``reference/`` pairs of files
NAME.json (settings and values) and NAME.npz (arrays ``image``, ``content``, ``style`` and ``gradient``).
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from engine.load import load_network
from engine.objective import Objective
from engine.optimize import minimize

if not os.environ.get("REFERENCE_DIR"):
    pytest.skip("REFERENCE_DIR does not name a folder of recorded values", allow_module_level=True)

pytestmark = pytest.mark.reference

ROOT = Path(os.environ["REFERENCE_DIR"])
RECORDS = sorted(path.stem for path in (ROOT / "reference").glob("*.json"))
MODELS = sorted(path.relative_to(ROOT / "models").as_posix() for path in (ROOT / "models").rglob("*.onnx"))
VARIANTS = [name for name in MODELS if name.startswith("variants/")]
POOLING = {"avg": "average", "max": "max"}

# Of the total, each term, and the gradient (relative L2). In float32 the sums of a Gram matrix and of nine layers of
# convolutions each carry some rounding of 6e-8.
TOLERANCE = {"float64": (1e-10, 1e-9), "float32": (1e-4, 1e-4)}


def record(name):
    settings = json.loads((ROOT / "reference" / f"{name}.json").read_text("utf-8"))
    with np.load(ROOT / "reference" / f"{name}.npz") as arrays:
        return settings, dict(arrays)


@pytest.fixture
def model_of(request):
    """Return what gives the file of a record's model; the original VGG-19 is fetched."""

    def find(settings):
        if settings["model"] == "vgg19.onnx":
            return request.getfixturevalue("original_vgg19")
        return ROOT / "models" / settings["model"]

    return find


def objective_of(settings, arrays, dtype, model):
    network = load_network(model, POOLING[settings["pooling"]], dtype=dtype)
    return Objective(
        network,
        arrays.get("content"),
        arrays.get("style"),
        settings["content_layers"],
        dict(zip(settings["style_layers"], settings["style_layer_weights"], strict=True)),
        settings["content_weight"],
        settings["style_weight"],
    )


def test_the_folder_holds_records_and_models():
    assert RECORDS
    assert VARIANTS
    assert len(MODELS) > len(VARIANTS)
    # Both poolings, and a painting of another size, are among the records.
    records = [record(name) for name in RECORDS]
    assert {settings["pooling"] for settings, _ in records} == set(POOLING)
    assert any("style" in arrays and arrays["style"].shape != arrays["image"].shape for _, arrays in records)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", RECORDS)
def test_values_and_gradient_are_the_recorded_ones(name, dtype, model_of):
    settings, arrays = record(name)
    objective = objective_of(settings, arrays, dtype, model_of(settings))
    value, gradient = objective(arrays["image"])
    of_values, of_gradient = TOLERANCE[dtype]
    assert value == pytest.approx(settings["total"], rel=of_values)
    assert objective.terms["content"] == pytest.approx(settings["content_loss"], rel=of_values)
    assert objective.terms["style"] == pytest.approx(settings["style_loss"], rel=of_values)
    norm = np.linalg.norm(arrays["gradient"])
    assert norm == pytest.approx(settings["gradient_norm"], rel=1e-12)
    assert np.linalg.norm(gradient - arrays["gradient"]) < of_gradient * norm


@pytest.mark.parametrize("name", RECORDS)
def test_thirty_iterations_get_as_far_as_the_recorded_ones(name, model_of):
    settings, arrays = record(name)
    recorded = settings["after_30_lbfgsb_iterations"]
    objective = objective_of(settings, arrays, "float64", model_of(settings))
    result = minimize(objective, arrays["image"], "l-bfgs-b", iterations=30)
    assert result.iterations == 30
    assert result.value == pytest.approx(recorded["total"], rel=1e-2)
    assert abs(result.evaluations - recorded["evaluations"]) <= 5


@pytest.mark.parametrize("name", MODELS)
def test_every_model_loads_and_runs(name):
    network = load_network(ROOT / "models" / name, preprocessing="caffe")
    assert network.layers[:5] == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")
    features = network.features(np.full((48, 40, 3), 100, np.uint8), network.layers)
    for layer, values in features.items():
        assert np.isfinite(values).all(), layer
        assert values.any(), layer


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_computes_the_same_features(name):
    image = np.random.default_rng(0).uniform(0, 255, (50, 70, 3))
    plain, variant = (load_network(ROOT / "models" / file, preprocessing="caffe") for file in ("vgg19_slim.onnx", name))
    layers = plain.layers[: plain.layers.index("conv3_4") + 1]
    assert variant.layers[: len(layers)] == layers
    expected, found = plain.features(image, layers), variant.features(image, layers)
    tolerance = 1e-2 if "float16" in name else 1e-5
    for layer in layers:
        difference = np.linalg.norm(found[layer] - expected[layer])
        assert difference < tolerance * np.linalg.norm(expected[layer]), layer
