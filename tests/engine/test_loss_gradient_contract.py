"""Value and gradient belong together, whatever is chosen: every option that the program ships is a line of ``OPTIONS``.

A new option joins by one line; until it has one, the tests at the end of this file fail.
"""

import dataclasses
import inspect
import itertools

import numpy as np
import pytest
import scipy.optimize

import engine.optimizers.l_bfgs
from engine.device import DEVICES, DTYPES
from engine.load import CONVOLUTIONS, POOLINGS, load_network
from engine.objective import Objective
from engine.onnx.writer import write_onnx
from engine.optimize import LEARNING_RATES, METHODS, minimize
from engine.preprocessing import PREPROCESSING
from engine.regions import Region
from engine.selection import PAPER_STYLE_LAYERS
from engine.stylize import INITS, Settings, prepare
from engine.targets import at_scales
from tests.engine import models
from tests.engine.test_terms import Square
from tools.cli.options import Options

DOUBLE, STEPPED, SINGLE = "float64", "complex128", "float32"
STEP = 1e-30

# All that the paper's layers need of a VGG-16, with channels enough for every algorithm of the convolutions.
BLOCKS = models.parameters((2, 2, 3, 3, 1), (16, 16, 24, 24, 32))
SIZE = (21, 27)
STYLE = models.random_image(*SIZE, seed=2)
LARGER, SMALLER = models.random_image(38, 29, seed=3), models.random_image(16, 19, seed=4)

# Content and style pull at the image with about the same force.
BASE = {"content_weight": 1e-4, "style_weight": 3e-5}

LEFT = np.zeros(SIZE)
LEFT[:, :12] = 1.0
REGIONS = (Region(LEFT, STYLE), Region(1 - LEFT, [(LARGER, 1.0), (SMALLER, 3.0)]))
RAMP = np.broadcast_to(np.linspace(0, 1, SIZE[1]), SIZE)
BLENDED = (Region(RAMP, STYLE), Region(1 - RAMP, SMALLER), Region(0.5 * LEFT, LARGER))
FACE = np.random.default_rng(8).uniform(0, 3, SIZE)

SUMS = {"gram": 0.3, "means": 2.0, "covariance": 1.0, "wasserstein": 0.5, "shifted": 3.0}
MIXED = SUMS | {"sliced": 1.5}

SCALES = at_scales(STYLE, [(LARGER, 1.0), (SMALLER, 2.0)], PAPER_STYLE_LAYERS)

OPTIONS = {
    "as the paper": {},
    # Layers and weights.
    "one layer each": {"content_layers": ("conv2_2",), "style_layers": ("conv3_1",)},
    "layers by name": {"content_layers": "conv3_2", "style_layers": "conv1_2"},
    "several content layers": {"content_layers": ("conv1_2", "conv3_1", "conv4_2")},
    "several content layers with weights": {"content_layers": {"conv1_2": 0.5, "conv3_3": 2.0, "conv4_3": 7.0}},
    "style layers with weights": {"style_layers": {"conv1_1": 5.0, "conv2_2": 0.1, "conv4_3": 40.0}},
    "a style layer of weight zero": {"style_layers": {"conv1_1": 1.0, "conv3_1": 0.0}},
    "content and style on the same layers": {
        "content_layers": ("conv2_1", "conv4_1"),
        "style_layers": ("conv2_1", "conv4_1"),
    },
    "content below style": {"content_layers": ("conv1_1",), "style_layers": ("conv5_1",)},
    "every layer": {"content_layers": models.names(BLOCKS), "style_layers": models.names(BLOCKS)},
    "much content": {"content_weight": 10.0},
    "much style": {"style_weight": 10.0},
    "the content weight that the network brings": {"content_weight": None},
    "content weight zero": {"content_weight": 0.0},
    "style weight zero": {"style_weight": 0.0},
    "a further term on the image": {"further_terms": (Square(weight=1e-4),)},
    "further terms on a layer of the paper's and another": {"further_terms": (Square("conv3_1"), Square("conv1_2"))},
    "isotropic total variation": {"variation_weight": 1.0},
    "squared total variation": {"variation_weight": 0.01, "variation": "squared"},
    "means and deviations": {"style_statistics": "means"},
    "covariance": {"style_statistics": ("covariance",)},
    "Wasserstein distance": {"style_statistics": "wasserstein", "content_weight": 1e-5},
    "shifted Gram matrices": {"style_statistics": "shifted"},
    "sliced Wasserstein distance": {"style_statistics": "sliced", "content_weight": 1e-5},
    "all statistics, weighted": {"style_statistics": MIXED},
    "all statistics, several paintings": {"style": [(STYLE, 2.0), (LARGER, 1.0)], "style_statistics": MIXED},
    "all statistics in blended regions": {"style": None, "regions": BLENDED, "style_statistics": MIXED},
    "a region for each of two paintings": {"style": None, "regions": REGIONS},
    "three blended regions on several layers": {"style": None, "regions": BLENDED, "content": None},
    "a content mask": {"content_mask": FACE},
    # Images.
    "content alone": {"style": None},
    "style alone": {"content": None},
    "a larger painting": {"style": LARGER},
    "a smaller painting": {"style": SMALLER},
    "several paintings": {"style": [(STYLE, 2.0), (LARGER, 1.0), (SMALLER, 5.0)]},
    "a painting for the fine layers and two for the coarse": {"style": SCALES, "style_statistics": MIXED},
    "a painting of weight zero": {"style": [(STYLE, 0.0), (LARGER, 1.0)]},
    "a size that divides by 16": {"size": (32, 16)},
    "odd sizes": {"size": (35, 17)},
    "the smallest size": {"size": (16, 16)},
    "a wide strip": {"size": (16, 75)},
    # Edges and pieces.
    "mirrored edges": {"edges": "reflect"},
    "mirrored edges, all statistics": {"edges": "reflect", "style_statistics": MIXED, "size": (32, 27)},
    "repeated edges": {"edges": "repeat"},
    "a tile": {"edges": "wrap", "size": (32, 48)},
    "a tile, overlapping windows": {"edges": "wrap", "size": (48, 32), "model": "overlapping", "pooling": "max"},
    "a tile with all statistics and total variation": {
        "edges": "wrap",
        "size": (48, 32),
        "style_statistics": MIXED,
        "variation_weight": 1.0,
    },
    "a tile with statistics that are sums, in blocks": {
        "edges": "wrap",
        "size": (48, 32),
        "style_statistics": SUMS,
        "piece": (16, 16),
    },
    "strips": {"size": (107, 33), "piece": (16, None)},
    "strips, some layers kept": {"size": (107, 33), "piece": (16, None), "keep": ("conv3_1", "conv5_1")},
    "strips up to a waist": {"size": (107, 33), "piece": (16, None), "waist": "conv3_1"},
    "blocks up to a waist, statistics that are sums in blended regions": {
        "style": None,
        "regions": BLENDED,
        "style_statistics": SUMS,
        "piece": (8, 8),
        "waist": "conv2_2",
    },
    "blocks, statistics that are sums in blended regions": {
        "style": None,
        "regions": BLENDED,
        "style_statistics": SUMS,
        "piece": (16, 16),
    },
    # The network.
    "average pooling": {"pooling": "average"},
    "max pooling": {"pooling": "max"},
    "the model's pooling": {"pooling": "model"},
    "overlapping windows with padding, averaged": {"model": "overlapping", "pooling": "average"},
    "overlapping windows with padding": {"model": "overlapping", "pooling": "max"},
    "batch normalization": {"model": "normalized"},
    "caffe preprocessing": {"preprocessing": "caffe"},
    "torch preprocessing": {"preprocessing": "torch", "model": "small values", "style_weight": 2.0},
    "unit preprocessing": {"preprocessing": "unit", "model": "small values", "style_weight": 2.0},
    "raw preprocessing": {"preprocessing": "raw"},
    "bgr preprocessing": {"preprocessing": "bgr"},
    "preprocessing as the model says": {"preprocessing": None},
    "fast convolution": {"convolution": "auto"},
    "direct convolution": {"convolution": "direct"},
    "three threads": {"threads": 3},
    "device auto": {"device": "auto"},
    "device cpu": {"device": "cpu"},
}

# Settings that say how the loss is minimized and from where, with a value that is not the default.
NO_INFLUENCE = {
    "init": "noise",
    "seed": 7,
    "iterations": 3,
    "change_tolerance": 4.0,
    "optimizer": "adam",
    "learning_rate": 2.0,
    "history": 5,
    "deepest_every": 1,
}

# Options of the command line that reach the engine as images, another file or a precision: the lines that hold them.
ELSEWHERE = {
    "model": ("batch normalization",),
    "size": ("a size that divides by 16", "odd sizes"),
    "style_size": ("a larger painting", "a smaller painting"),
    "blend": ("several paintings", "a painting of weight zero"),
    # A painting with other colors is another painting; a smaller picture is one of another size.
    "colors": ("several paintings",),
    "levels": ("a size that divides by 16", "odd sizes"),
    "memory": ("strips", "a tile with statistics that are sums, in blocks"),
    "dtype": (),  # every line is checked in every precision
}

OF_NETWORK = set(inspect.signature(load_network).parameters)


def overlapping_pool(builder, value):
    return builder.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)


def normalized_conv(builder, value, weight, bias):
    """Append a convolution with batch normalization, as a VGG-BN has it."""
    rng = np.random.default_rng(len(bias))
    scale, variance = rng.uniform(0.5, 1.5, (2, len(bias)))
    shift, mean = rng.standard_normal((2, len(bias)))
    value = models.plain_conv(builder, value, weight, bias)
    return builder.node("BatchNormalization", value, *map(builder.weight, (scale, shift, mean, variance)))


def conv_for_small_values(builder, value, weight, bias):
    """Append a convolution whose bias does not drown an input of 0..1."""
    return models.plain_conv(builder, value, weight, bias / 255)


FILES = {
    "plain": {},
    "small values": {"conv": conv_for_small_values},
    "overlapping": {"pool": overlapping_pool},
    "normalized": {"conv": normalized_conv},
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Return the models' files, written by the project's own writer."""
    folder, paths = tmp_path_factory.mktemp("models"), {}
    for name, hooks in FILES.items():
        read = load_network(models.save(models.vgg(BLOCKS, **hooks), folder / "read.onnx"), "model", threads=1)
        paths[name] = folder / f"{name}.onnx"
        write_onnx(paths[name], read.nodes, models.CAFFE)
    return paths


def photograph(option):
    return models.random_image(*option.get("size", SIZE), seed=1)


def image_of(option):
    return models.random_image(*option.get("size", SIZE), seed=5)


def make(option, dtype, paths):
    """Return the objective of an option, made as the program makes it."""
    of_network = {"threads": 1} | {key: value for key, value in option.items() if key in OF_NETWORK}
    network = load_network(paths[option.get("model", "plain")], dtype=dtype, **of_network)
    images = {"content": photograph(option), "style": STYLE}
    images |= {key: value for key, value in option.items() if key in images}
    fields = {field.name for field in dataclasses.fields(Settings)}
    settings = BASE | {key: value for key, value in option.items() if key in fields}
    of_objective = {"further_terms", "regions", "content_mask", "piece", "keep", "waist"}
    unknown = set(option) - OF_NETWORK - set(images) - fields - {"size", "model"} - of_objective
    assert not unknown, unknown
    further = {key: value for key, value in option.items() if key in of_objective}
    if further or images["content"] is None or images["style"] is None:
        return Objective(network, **images, **settings, **further)
    return prepare(network, **images, settings=Settings(**settings), initial=image_of(option)).objective


def assert_belong_together(objective, stepped, image):
    """Compare the gradient of one with the complex step through the other, along itself and at random."""
    value, gradient = objective(image)
    size = np.linalg.norm(gradient)
    assert isinstance(value, float)
    assert gradient.dtype == np.float64
    assert gradient.shape == image.shape
    assert size > 0
    rng = np.random.default_rng(0)
    for direction in (gradient / size, *rng.standard_normal((2, *image.shape))):
        complex_value, _ = stepped(image + 1j * STEP * direction)
        assert complex_value.real == pytest.approx(value, rel=1e-12)
        error = abs(np.vdot(gradient, direction) - complex_value.imag / STEP)
        assert error < 1e-12 * size * np.linalg.norm(direction)


@pytest.mark.parametrize("name", OPTIONS)
def test_value_and_gradient_belong_together(name, paths):
    option = OPTIONS[name]
    assert_belong_together(make(option, DOUBLE, paths), make(option, STEPPED, paths), image_of(option))


@pytest.mark.parametrize("name", OPTIONS)
def test_so_they_do_in_single_precision(name, paths):
    """With the fast algorithms: as near to float64 as float32 is, and to its own difference quotients."""
    option, image = OPTIONS[name], image_of(OPTIONS[name])
    value, gradient = make(option, DOUBLE, paths)(image)
    objective = make(option, SINGLE, paths)
    single, single_gradient = objective(image)
    size = np.linalg.norm(gradient)
    assert single == pytest.approx(value, rel=1e-5)
    assert np.linalg.norm(single_gradient - gradient) < 5e-5 * size
    # Long enough for float32's rounding, short enough for the kinks of ReLU and max pooling.
    direction, step = single_gradient / np.linalg.norm(single_gradient), 0.5
    ahead, behind = (objective(image + sign * step * direction)[0] for sign in (1, -1))
    quotient = (ahead - behind) / (2 * step)
    assert quotient == pytest.approx(np.vdot(single_gradient, direction), rel=0.01)


def test_single_precision_takes_the_fast_path_unless_told_otherwise(paths):
    """What the test above compares with float64 is another algorithm, not the same in fewer digits."""
    operators = {}
    for name in ("fast convolution", "direct convolution"):
        objective = make(OPTIONS[name], SINGLE, paths)
        nodes = objective.network.forward(image_of({}), objective.layers).plan.nodes
        operators[name] = models.algorithms(nodes)
    assert "WinogradConvolution" in operators["fast convolution"]
    assert "WinogradConvolution" not in operators["direct convolution"]


# ---- the test can fail ----


def smoothness(image):
    """Return half of the squared steps between columns, and its derivative."""
    steps, gradient = np.diff(image, axis=1), np.zeros_like(image)
    gradient[:, 1:] += steps
    gradient[:, :-1] -= steps
    return (steps * steps).sum() / 2, gradient


def one_pixel(value, gradient, image):
    gradient[3, 4, 1] *= 1.001
    return value, gradient


FAULTS = {
    "a gradient a hair too large": lambda value, gradient, image: (value, gradient * (1 + 1e-11)),
    "a value a hair too large": lambda value, gradient, image: (value * (1 + 1e-11), gradient),
    "one pixel's gradient": one_pixel,
    "blue and red exchanged": lambda value, gradient, image: (value, gradient[:, :, ::-1]),
    "smoothness in the gradient but not in the value": lambda value, gradient, image: (
        value,
        gradient + 1e-9 * smoothness(image)[1],
    ),
    "smoothness in the value but not in the gradient": lambda value, gradient, image: (
        value + 1e-9 * smoothness(image)[0],
        gradient,
    ),
    "a gradient divided by its sum": lambda value, gradient, image: (value, gradient / abs(gradient).sum()),
    "no gradient": lambda value, gradient, image: (value, np.zeros_like(gradient)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_belong_together_is_noticed(fault, paths):
    objective, stepped = make({}, DOUBLE, paths), make({}, STEPPED, paths)
    assert_belong_together(objective, stepped, image_of({}))
    with pytest.raises(AssertionError):
        assert_belong_together(lambda image: FAULTS[fault](*objective(image), image), stepped, image_of({}))


# ---- what the optimizers are handed ----


class Quadratic:
    """c/2 sum k (x - target)^2 with curvatures k from 1 to 10; remembers what it returned."""

    def __init__(self, scale=1.0):
        self.scale = scale
        self.target = np.random.default_rng(1).uniform(60, 200, (4, 5, 3))
        self.curvature = np.linspace(1, 10, self.target.size).reshape(self.target.shape)
        self.returned = {}

    def __call__(self, image):
        gradient = self.scale * self.curvature * (image - self.target)
        value = self.scale * float((self.curvature * (image - self.target) ** 2).sum() / 2)
        self.returned[image.tobytes()] = value, gradient
        return value, gradient


class Recorded:
    """An objective that remembers what it returned."""

    def __init__(self, objective):
        self.objective, self.returned = objective, {}

    def __call__(self, image):
        result = self.objective(image)
        self.returned[image.tobytes()] = result
        return result


START = np.random.default_rng(0).uniform(100, 150, (4, 5, 3))


@pytest.fixture
def handed(monkeypatch):
    """Return the list of (image, value, gradient), flat, that the methods with a line search are handed."""
    records = []

    def recording(function):
        def evaluate(image, *launch):
            value, gradient = function(image, *launch)
            records.append((image.ravel().copy(), value, gradient.ravel().copy()))
            return value, gradient

        return evaluate

    scipys, own = scipy.optimize.minimize, engine.optimizers.l_bfgs.l_bfgs
    monkeypatch.setattr(scipy.optimize, "minimize", lambda function, *a, **k: scipys(recording(function), *a, **k))
    monkeypatch.setattr(
        engine.optimizers.l_bfgs, "l_bfgs", lambda device, function, *a: own(device, recording(function), *a)
    )
    return records


LINE_SEARCH = ("l-bfgs-b", "l-bfgs")


def assert_scaled_alike(returned, handed):
    """Value and gradient as handed on are those of the objective times one and the same number."""
    first_value, first_gradient = next(iter(returned.values()))
    scale = 1 / abs(first_gradient).max()
    assert len(handed) > 5
    for image, value, gradient in handed:
        own_value, own_gradient = returned[image.tobytes()]
        assert value == pytest.approx(scale * own_value, rel=1e-14)
        np.testing.assert_allclose(gradient, scale * own_gradient.ravel(), rtol=1e-14, atol=0)
    assert handed[0][1] == pytest.approx(scale * first_value, rel=1e-14)


@pytest.mark.parametrize("method", LINE_SEARCH)
@pytest.mark.parametrize("scale", [1.0, 1e-9, 3e7])
def test_scaled_value_and_gradient_belong_together(method, scale, handed):
    """Between two points of a quadratic the value changes by the mean of their gradients times the way, exactly."""
    objective = Quadratic(scale)
    minimize(objective, START, method, iterations=12)
    assert_scaled_alike(objective.returned, handed)
    assert abs(handed[0][2]).max() == pytest.approx(1, rel=1e-14)
    for (x, value, gradient), (other, other_value, other_gradient) in itertools.pairwise(handed):
        change = (gradient + other_gradient) @ (other - x) / 2
        assert other_value - value == pytest.approx(change, rel=1e-9, abs=1e-12 * handed[0][1])


@pytest.mark.parametrize("name", ["as the paper", "max pooling", "several paintings", "content alone"])
@pytest.mark.parametrize("method", LINE_SEARCH)
def test_the_real_objective_is_scaled_as_one(method, name, handed, paths):
    objective = Recorded(make(OPTIONS[name], SINGLE, paths))
    result = minimize(objective, image_of(OPTIONS[name]), method, iterations=6)
    assert_scaled_alike(objective.returned, handed)
    assert objective.returned[result.image.tobytes()][0] == result.value


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("power", [-40, 25])
def test_a_loss_times_a_power_of_two_takes_the_same_path(method, power):
    """To the bit: whatever the method sees of value and gradient, it is free of the loss's scale."""
    paths = []
    for scale in (1.0, 2.0**power):
        images = []
        objective = Quadratic(scale)
        minimize(objective, START, method, iterations=12, callback=lambda state, to=images: to.append(state.image))
        paths.append(np.array(images))
    assert len(paths[0]) == 12
    np.testing.assert_array_equal(*paths)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_reported_belongs_to_the_image_that_is_reported(method):
    """The callback and the result give the loss as it is, not as it is scaled for the method."""
    objective, states = Quadratic(1e-6), []
    result = minimize(objective, START, method, iterations=8, callback=states.append)
    assert len(states) == 8
    for state in states:
        assert state.value == objective(state.image)[0]
    assert result.value == objective(result.image)[0]
    assert result.initial_value == objective(START)[0]


def test_the_first_step_of_sgd_is_the_scaled_gradient():
    objective, states = Quadratic(1e5), []
    minimize(objective, START, "sgd", iterations=1, bounds=None, callback=states.append)
    _, gradient = objective(START)
    expected = -LEARNING_RATES["sgd"] * gradient / abs(gradient).max()
    np.testing.assert_allclose(states[0].image - START, expected, rtol=1e-10, atol=1e-12)


def test_the_first_step_of_adam_is_made_of_the_scaled_gradient():
    """Its step is g / (|g| + 1e-8): an element 1e-8 times the largest goes half of the way, which shows the scale."""
    objective, states = Quadratic(1e5), []
    objective.target[0, 0, 0] = START[0, 0, 0] + 1e-8 * 500 / objective.curvature[0, 0, 0]
    objective.target[0, 0, 1] = START[0, 0, 1] + 500 / objective.curvature[0, 0, 1]
    minimize(objective, START, "adam", iterations=1, bounds=None, callback=states.append)
    _, gradient = objective(START)
    scaled = gradient / abs(gradient).max()
    expected = -LEARNING_RATES["adam"] * scaled / (abs(scaled) + 1e-8)
    assert 2 < abs(expected[0, 0, 0]) < 8
    np.testing.assert_allclose(states[0].image - START, expected, rtol=1e-9)


# ---- every option has its line ----

CHOSEN = {key for option in OPTIONS.values() for key in option}


def values_of(key):
    return [option[key] for option in OPTIONS.values() if key in option]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Settings)])
def test_every_setting_has_a_line_or_cannot_influence_the_loss(field):
    assert (field in CHOSEN) != (field in NO_INFLUENCE)


def test_the_lines_leave_the_defaults():
    """A line that only repeats a setting's default would hold nothing."""
    for field in dataclasses.fields(Settings):
        if field.name not in NO_INFLUENCE:
            assert any(value != field.default for value in values_of(field.name)), field.name
        else:
            assert NO_INFLUENCE[field.name] != field.default


@pytest.mark.parametrize("field", NO_INFLUENCE)
def test_what_is_said_not_to_influence_the_loss_does_not(field, paths):
    network, image = load_network(paths["plain"], threads=1), image_of({})
    results = []
    for changes in ({}, {field: NO_INFLUENCE[field]}):
        objective = prepare(network, photograph({}), STYLE, Settings(**changes)).objective
        results.append(objective(image))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Options)])
def test_every_option_of_the_command_line_has_its_lines(field):
    if field in ELSEWHERE:
        assert set(ELSEWHERE[field]) <= set(OPTIONS)
    else:
        assert (field in CHOSEN) != (field in NO_INFLUENCE)


def test_every_argument_of_network_and_objective_has_a_line():
    assert {*OF_NETWORK} - CHOSEN == {"path", "dtype"}
    # What is recorded and replayed on a GPU: tests/engine/test_cuda.py.
    assert {*inspect.signature(Objective).parameters} - CHOSEN == {"network", "replay"}
    # None of the names is left over from an option that is gone.
    fields = {field.name for field in dataclasses.fields(Settings)}
    arguments = OF_NETWORK | {*inspect.signature(Objective).parameters} | fields | {"size", "model"}
    assert arguments >= CHOSEN
    assert {*NO_INFLUENCE} | {*ELSEWHERE} <= {field.name for field in dataclasses.fields(Options)}


@pytest.mark.parametrize(
    ("argument", "choices"),
    [
        ("pooling", POOLINGS),
        ("preprocessing", (*PREPROCESSING, None)),
        ("convolution", CONVOLUTIONS),
        ("device", [device for device in DEVICES if device != "cuda"]),
        ("model", [name for name in FILES if name != "plain"]),
    ],
)
def test_every_choice_has_a_line(argument, choices):
    assert set(values_of(argument)) == set(choices)


def test_every_precision_is_checked():
    assert {DOUBLE, STEPPED, SINGLE} == set(DTYPES)


def test_every_method_is_checked():
    assert {*LINE_SEARCH, "adam", "sgd"} == set(METHODS)
    assert set(INITS) == {"noise", "content", "style"}
