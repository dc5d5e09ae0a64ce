"""The ONNX operators: their input gradients, and what ONNX's own cases do not reach.

Every operator with a gradient stands in ``GRADIENTS``. Each is checked against the complex step, which has no step size
to choose, and against central differences, which do not trust the forward function's way with complex numbers; the
linear ones also by the adjoint identity.
"""

import itertools
import math

import numpy as np
import pytest

from engine.onnx.operators import OPERATORS, Call, UnsupportedError
from kernels import Cpu
from kernels.geometry import Window
from tests.kernels import naive

STEP = 1e-30
RNG = np.random.default_rng(0)


def numbers(*shape, apart_from=(), positive=False):
    """Return random numbers, none of them near a value where a function has a kink."""
    array = RNG.uniform(0.3, 3, shape) if positive else RNG.standard_normal(shape)
    for kink in apart_from:
        array = np.where(np.abs(array - kink) < 0.02, array + 0.05, array)
    return array


def run(name, inputs, attributes=None, opset=25, outputs=1, device=None):
    """Return an operator's outputs."""
    call = Call(attributes or {}, opset, outputs, device or Cpu(1))
    return OPERATORS[name].outputs(call, tuple(None if one is None else np.asarray(one) for one in inputs))


def integers(*values):
    return np.array(values, np.int64)


X = numbers(2, 3, 5, 6)
FLAT = numbers(3, 4, apart_from=(0, -1, 1, -2.5, 2.5, -3, 3))
CHANNELS = [numbers(3) for _ in range(3)]
DISTINCT = RNG.permutation(np.linspace(-2, 2, 60)).reshape(3, 4, 5)

# Operator, inputs, attributes, operator set, positions of the inputs that have a gradient, and whether the operator is
# linear in each of them alone.
GRADIENTS = [
    ("Abs", [FLAT], {}, 13, [0], False),
    ("Add", [numbers(2, 3, 4), numbers(3, 1)], {}, 14, [0, 1], True),
    ("Add", [numbers(2, 3, 4), numbers(3)], {"broadcast": 1, "axis": 1}, 6, [0, 1], True),
    ("AveragePool", [X], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}, 22, [0], True),
    ("AveragePool", [X], {"kernel_shape": [2, 2], "count_include_pad": 1, "pads": [1, 1, 0, 0]}, 22, [0], True),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 22, [0], True),
    ("AveragePool", [X[:, :, 0]], {"kernel_shape": [3], "strides": [2]}, 22, [0], True),
    ("BatchNormalization", [X, *CHANNELS, numbers(3, positive=True)], {}, 15, [0], True),
    ("Cast", [FLAT], {"to": 11}, 13, [0], True),
    ("CastLike", [FLAT, np.zeros(1)], {}, 15, [0], True),
    ("Clip", [FLAT, np.float64(-1), np.float64(1)], {}, 13, [0], False),
    ("Clip", [FLAT], {"min": -1.0}, 6, [0], False),
    ("Concat", [numbers(2, 1, 3), numbers(2, 4, 3), numbers(2, 2, 3)], {"axis": -2}, 13, [0, 1, 2], True),
    ("Conv", [X, numbers(4, 3, 3, 2), numbers(4)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}, 22, [0], True),
    ("Conv", [numbers(2, 6, 7, 8), numbers(4, 3, 2, 3)], {"group": 2, "dilations": [2, 1]}, 22, [0], True),
    ("Conv", [numbers(1, 20, 5, 6), numbers(18, 20, 3, 3)], {"auto_pad": "SAME_UPPER"}, 22, [0], True),
    ("Conv", [X[:, :, 0], numbers(4, 3, 3)], {"pads": [1, 1], "dilations": [2]}, 22, [0], True),
    ("Div", [numbers(2, 3, 4), numbers(3, 1, positive=True)], {}, 14, [0, 1], False),
    ("Dropout", [FLAT], {}, 22, [0], True),
    ("Elu", [FLAT], {"alpha": 0.7}, 22, [0], False),
    ("Erf", [FLAT], {}, 13, [0], False),
    ("Exp", [FLAT], {}, 13, [0], False),
    ("Expand", [numbers(3, 1), integers(2, 3, 4)], {}, 13, [0], True),
    ("Flatten", [X], {"axis": 2}, 21, [0], True),
    ("Gather", [numbers(4, 5, 2), integers(3, 0, -1, 3)], {"axis": 1}, 13, [0], True),
    ("Gather", [numbers(3, 4), np.array([[0, 2], [2, 2], [1, -3]])], {}, 13, [0], True),
    ("GatherND", [numbers(3, 4, 2), np.array([[0, 1], [2, 3], [0, 1]])], {}, 13, [0], True),
    ("GatherND", [numbers(2, 3, 4), np.array([[[2]], [[0]]])], {"batch_dims": 1}, 13, [0], True),
    ("Gemm", [numbers(3, 4), numbers(4, 2), numbers(2)], {"alpha": 0.5, "beta": 2.0}, 13, [0, 1, 2], True),
    ("Gemm", [numbers(4, 3), numbers(2, 4), numbers(3, 1)], {"transA": 1, "transB": 1}, 13, [0, 1, 2], True),
    ("GlobalAveragePool", [X], {}, 22, [0], True),
    ("GlobalMaxPool", [X], {}, 22, [0], False),
    ("HardSigmoid", [FLAT], {}, 22, [0], False),
    ("HardSwish", [4 * FLAT], {}, 22, [0], False),
    ("Identity", [FLAT], {}, 25, [0], True),
    ("InstanceNormalization", [X, *CHANNELS[:2]], {}, 22, [0], False),
    ("LRN", [numbers(2, 6, 3, 2)], {"size": 3, "alpha": 0.4, "beta": 0.6, "bias": 1.5}, 13, [0], False),
    ("LRN", [numbers(2, 6, 3, 2)], {"size": 4, "alpha": 0.4}, 13, [0], False),
    ("LeakyRelu", [FLAT], {}, 16, [0], False),
    ("Log", [numbers(3, 4, positive=True)], {}, 13, [0], False),
    ("LogSoftmax", [numbers(2, 3, 4)], {"axis": 1}, 13, [0], False),
    ("LogSoftmax", [numbers(2, 3, 4)], {"axis": 1}, 11, [0], False),
    ("MatMul", [numbers(2, 1, 3, 4), numbers(5, 4, 2)], {}, 13, [0, 1], True),
    ("MatMul", [numbers(4), numbers(4, 2)], {}, 13, [0, 1], True),
    ("MatMul", [numbers(3, 4), numbers(4)], {}, 13, [0, 1], True),
    ("MatMul", [numbers(4), numbers(4)], {}, 13, [0, 1], True),
    ("MatMul", [numbers(2, 3, 4), numbers(4)], {}, 13, [0, 1], True),
    ("MatMul", [numbers(4), numbers(2, 4, 3)], {}, 13, [0, 1], True),
    ("Max", [DISTINCT[0], DISTINCT[1, 0], DISTINCT[2]], {}, 13, [0, 1, 2], False),
    ("MaxPool", [X], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 0, 1]}, 22, [0], False),
    ("MaxPool", [X[:, :, 0]], {"kernel_shape": [3], "dilations": [2]}, 22, [0], False),
    ("Mean", [numbers(2, 3), numbers(3), numbers(1, 1)], {}, 13, [0, 1, 2], True),
    ("Min", [DISTINCT[0], DISTINCT[1, 0], DISTINCT[2]], {}, 13, [0, 1, 2], False),
    ("Mul", [numbers(2, 3, 4), numbers(3, 1)], {}, 14, [0, 1], True),
    ("Neg", [FLAT], {}, 13, [0], True),
    ("PRelu", [FLAT, numbers(4)], {}, 16, [0, 1], False),
    ("PRelu", [numbers(2, 3, 4, apart_from=(0,)), numbers(3)], {}, 6, [0, 1], False),
    ("Pad", [numbers(2, 3, 4), integers(1, 0, 2, 0, 1, -1), np.float64(7)], {}, 21, [0], False),
    ("Pad", [numbers(4, 5), integers(2, -1, 3, 3)], {"mode": "reflect"}, 21, [0], True),
    ("Pad", [numbers(4, 5), integers(2, 1), None, integers(-1)], {"mode": "edge"}, 21, [0], True),
    ("Pad", [numbers(3, 2), integers(2, 5, 1, 4)], {"mode": "wrap"}, 21, [0], True),
    ("Pad", [numbers(3, 2)], {"pads": [2, 0, 1, 1]}, 2, [0], True),
    ("Pow", [numbers(3, 4, positive=True), numbers(4)], {}, 15, [0, 1], False),
    ("Reciprocal", [numbers(3, 4, positive=True)], {}, 13, [0], False),
    ("ReduceMax", [DISTINCT, integers(0, -1)], {}, 20, [0], False),
    ("ReduceMean", [numbers(2, 3, 4), integers(1)], {"keepdims": 0}, 18, [0], True),
    ("ReduceMean", [numbers(2, 3, 4)], {"axes": [0, 2]}, 13, [0], True),
    ("ReduceMin", [DISTINCT], {"keepdims": 0}, 20, [0], False),
    ("ReduceSum", [numbers(2, 3, 4), integers(-1, 0)], {"keepdims": 0}, 13, [0], True),
    ("ReduceSum", [numbers(2, 3, 4)], {"noop_with_empty_axes": 1}, 13, [0], True),
    ("Relu", [FLAT], {}, 14, [0], False),
    ("Reshape", [numbers(2, 3, 4), integers(0, -1, 2)], {}, 21, [0], True),
    ("Selu", [FLAT], {}, 22, [0], False),
    ("Sigmoid", [3 * FLAT], {}, 13, [0], False),
    ("Slice", [numbers(5, 6), integers(-1, 1), integers(-6, 5), integers(0, 1), integers(-2, 3)], {}, 13, [0], True),
    ("Slice", [numbers(5, 6)], {"starts": [1], "ends": [-1], "axes": [1]}, 9, [0], True),
    ("Softmax", [numbers(2, 3, 4)], {}, 13, [0], False),
    ("Softmax", [numbers(2, 3, 4)], {}, 11, [0], False),
    ("Softplus", [3 * FLAT], {}, 22, [0], False),
    ("Softsign", [FLAT], {}, 22, [0], False),
    ("Split", [numbers(2, 7), integers(1, 4, 2)], {"axis": 1}, 18, [0], True),
    ("Sqrt", [numbers(3, 4, positive=True)], {}, 13, [0], False),
    ("Squeeze", [numbers(1, 3, 1, 2), integers(2)], {}, 21, [0], True),
    ("Sub", [numbers(3, 1), numbers(2, 3, 4)], {}, 14, [0, 1], True),
    ("Sum", [numbers(2, 3), numbers(3), numbers(2, 1)], {}, 13, [0, 1, 2], True),
    ("Tanh", [FLAT], {}, 13, [0], False),
    ("Transpose", [numbers(2, 3, 4)], {"perm": [2, 0, 1]}, 21, [0], True),
    ("Transpose", [numbers(2, 3, 4)], {}, 21, [0], True),
    ("Unsqueeze", [numbers(3, 2), integers(0, -1)], {}, 21, [0], True),
    ("Where", [RNG.random((2, 3, 4)) < 0.5, numbers(3, 4), numbers(2, 1, 4)], {}, 16, [1, 2], True),
]
LABELS = [f"{name}-{index}" for index, (name, *_) in enumerate(GRADIENTS)]


class Subject:
    """One entry of ``GRADIENTS`` at work. All arrays are read-only, so that what writes into them fails."""

    def __init__(self, name, inputs, attributes, opset, positions, linear, dtype=np.float64):
        self.operator, self.positions, self.linear = OPERATORS[name], positions, linear
        count = 3 if name == "Split" else 1
        self.call = Call(attributes, opset, count)
        self.inputs = [
            None if one is None else np.asarray(one).astype(dtype if np.asarray(one).dtype == np.float64 else one.dtype)
            for one in inputs
        ]
        self.outputs = self.forward(self.inputs)
        # Another generator than that of the inputs: the gradients of one entry do not depend on the others.
        rng = np.random.default_rng(7)
        self.output_gradients = [rng.standard_normal(output.shape).astype(dtype) for output in self.outputs]
        for array in [*self.inputs, *self.outputs, *self.output_gradients]:
            if array is not None:
                array.flags.writeable = False

    def forward(self, inputs):
        return self.operator.outputs(self.call, tuple(inputs))[: self.call.outputs]

    def gradient(self, position):
        several = self.operator.several
        given = (tuple(self.output_gradients), tuple(self.outputs))
        given = given if several else (given[0][0], given[1][0])
        return self.operator.input_gradients(self.call, *given, *self.inputs)[position]()

    def pushed(self, outputs):
        """Return the product of some outputs with the outputs' gradients."""
        return sum((one * other).sum() for one, other in zip(self.output_gradients, outputs, strict=True))

    def moved(self, position, move):
        inputs = list(self.inputs)
        inputs[position] = np.asarray(inputs[position] + move)
        return self.forward(inputs)

    def cases(self):
        rng = np.random.default_rng(8)
        for position in self.positions:
            direction = rng.standard_normal(self.inputs[position].shape)
            gradient = self.gradient(position)
            yield (
                position,
                direction,
                (gradient * direction).sum(),
                np.linalg.norm(gradient) * np.linalg.norm(direction),
            )


def test_each_operator_with_a_gradient_is_checked():
    differentiable = {name for name, operator in OPERATORS.items() if operator.input_gradients is not None}
    assert differentiable == {name for name, *_ in GRADIENTS}


@pytest.mark.parametrize("entry", GRADIENTS, ids=LABELS)
def test_gradient_against_the_complex_step(entry):
    name = entry[0]
    subject = Subject(*entry)
    for position, direction, along, scale in subject.cases():
        if name in ("Cast", "CastLike"):
            continue  # they would cut the imaginary part off
        stepped = subject.moved(position, 1j * STEP * direction)
        derivative = subject.pushed([output.imag for output in stepped]) / STEP
        assert abs(along - derivative) <= 1e-12 * scale
        assert scale > 0


@pytest.mark.parametrize("entry", GRADIENTS, ids=LABELS)
def test_gradient_against_central_differences(entry):
    subject, step = Subject(*entry), 1e-5
    for position, direction, along, scale in subject.cases():
        above, below = (subject.moved(position, sign * step * direction) for sign in (1, -1))
        difference = subject.pushed([one - other for one, other in zip(above, below, strict=True)]) / (2 * step)
        assert abs(along - difference) <= 1e-7 * scale


@pytest.mark.parametrize("entry", [entry for entry in GRADIENTS if entry[-1]], ids=lambda entry: entry[0])
def test_gradient_of_a_linear_operator_is_its_adjoint(entry):
    """<g, K d> = <K^T g, d>, where K d = f(d) - f(0): what is added, such as a bias, drops out."""
    subject = Subject(*entry)
    for position, direction, along, scale in subject.cases():
        values = []
        for array in (direction, np.zeros_like(direction)):
            inputs = list(subject.inputs)
            inputs[position] = array
            values.append(subject.forward(inputs))
        linear = subject.pushed([one - other for one, other in zip(*values, strict=True)])
        assert abs(along - linear) <= 1e-13 * max(scale, abs(linear))


@pytest.mark.parametrize("entry", GRADIENTS, ids=LABELS)
def test_single_precision_stays_and_shapes_are_the_inputs(entry):
    subject = Subject(*entry, dtype=np.float32)
    if entry[0] != "Cast":
        assert {output.dtype for output in subject.outputs} == {np.dtype(np.float32)}
    for position in subject.positions:
        gradient = subject.gradient(position)
        assert (gradient.dtype, gradient.shape) == (np.dtype(np.float32), subject.inputs[position].shape)


# ---- convolution and pooling against their definitions ----


def by_image(function, X):
    """Return what a twin of channels-last images makes of each image of a batch."""
    return np.stack([np.moveaxis(function(np.moveaxis(image, 0, 2)), 2, 0) for image in X])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("group", "strides", "pads", "dilations"),
    [(1, (1, 1), (0, 0, 0, 0), (1, 1)), (2, (2, 1), (1, 2, 0, 1), (1, 2)), (4, (1, 3), (0, 1, 3, 0), (2, 1))],
)
def test_conv_of_a_batch_follows_the_definition(group, strides, pads, dilations, threads):
    rng = np.random.default_rng(3)
    X, W, B = rng.standard_normal((3, 4, 9, 8)), rng.standard_normal((8, 4 // group, 3, 2)), rng.standard_normal(8)
    attributes = {"group": group, "strides": list(strides), "pads": list(pads), "dilations": list(dilations)}
    window = Window((3, 2), strides, pads, dilations)
    expected = by_image(lambda image: naive.conv(image, W.transpose(2, 3, 1, 0), B, window, group), X)
    (output,) = run("Conv", [X, W, B], attributes, device=Cpu(threads))
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_a_one_dimensional_conv_is_a_two_dimensional_one_of_height_one():
    rng = np.random.default_rng(4)
    X, W = rng.standard_normal((2, 3, 9)), rng.standard_normal((5, 3, 3))
    attributes = {"strides": [2], "pads": [2, 1], "dilations": [2]}
    (output,) = run("Conv", [X, W], attributes)
    expected = np.zeros((2, 5, 4))
    padded = np.pad(X, ((0, 0), (0, 0), (2, 1)))
    for x, tap in itertools.product(range(4), range(3)):
        expected[:, :, x] += padded[:, :, 2 * x + 2 * tap] @ W[:, :, tap].T
    np.testing.assert_allclose(output, expected, atol=1e-13)


@pytest.mark.parametrize("storage_order", [0, 1])
@pytest.mark.parametrize(
    ("pads", "dilations"), [((0, 0, 0, 0), (1, 1)), ((1, 0, 2, 1), (2, 1)), ((0, 1, 0, 0), (1, 2))]
)
def test_max_pool_tells_where_the_maxima_stand(storage_order, pads, dilations):
    X = np.random.default_rng(5).standard_normal((2, 3, 7, 6))
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": list(pads), "dilations": list(dilations)}
    output, places = run("MaxPool", [X], {**attributes, "storage_order": storage_order}, outputs=2)
    window = Window((3, 2), (2, 1), pads, dilations)
    expected = by_image(lambda image: naive.max_pool(image, window)[0], X)
    np.testing.assert_array_equal(output, expected)
    flat = X.swapaxes(2, 3) if storage_order else X
    np.testing.assert_array_equal(flat.reshape(-1)[places], output)
    assert places.dtype == np.int64


@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_pool_of_a_batch_follows_the_definition(count_include_pad):
    X = np.random.default_rng(6).standard_normal((2, 3, 7, 6))
    attributes = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "ceil_mode": 1}
    window = Window((3, 2), (2, 1), (1, 0, 1, 1), ceil_mode=True)
    weights = naive.average_weights(window, 7, 6, bool(count_include_pad))
    (output,) = run("AveragePool", [X], {**attributes, "count_include_pad": count_include_pad})
    np.testing.assert_allclose(output, np.einsum("yxvu,ncvu->ncyx", weights, X), atol=1e-13)


def test_the_maxima_of_integers_are_integers():
    X = np.random.default_rng(7).integers(-128, 128, (1, 2, 5, 5)).astype(np.int8)
    (output,) = run("MaxPool", [X], {"kernel_shape": [2, 2]})
    expected = np.lib.stride_tricks.sliding_window_view(X, (2, 2), (2, 3)).max(axis=(4, 5))
    np.testing.assert_array_equal(output, expected)
    assert output.dtype == np.int8


# ---- others against loops ----


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_lrn_sums_over_the_channels_around(size):
    X = np.random.default_rng(8).standard_normal((2, 6, 2, 3))
    (output,) = run("LRN", [X], {"size": size, "alpha": 0.3, "beta": 0.6, "bias": 1.2})
    for channel in range(6):
        low, high = max(0, channel - math.floor((size - 1) / 2)), min(5, channel + math.ceil((size - 1) / 2))
        total = np.square(X[:, low : high + 1]).sum(axis=1)
        expected = X[:, channel] / (1.2 + 0.3 / size * total) ** 0.6
        np.testing.assert_allclose(output[:, channel], expected, rtol=1e-13)


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad_takes_each_element_from_where_the_mode_says(mode):
    data = np.arange(20.0).reshape(4, 5)
    pads = [2, -1, 1, 3]
    source = {
        "reflect": lambda place, size: abs(place) if place < size else 2 * (size - 1) - place,
        "edge": lambda place, size: min(max(place, 0), size - 1),
        "wrap": lambda place, size: place % size,
        "constant": lambda place, size: place if 0 <= place < size else None,
    }[mode]
    expected = np.empty((4 + 3, 5 + 2))
    for y, x in np.ndindex(*expected.shape):
        v, u = source(y - pads[0], 4), source(x - pads[1], 5)
        expected[y, x] = 9 if v is None or u is None else data[v, u]
    (output,) = run("Pad", [data, integers(*pads), np.float64(9)], {"mode": mode})
    np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("start", [-9, -3, -1, 0, 2, 5, 9])
@pytest.mark.parametrize("end", [-9, -2, 0, 3, 5, 9, np.iinfo(np.int64).max, np.iinfo(np.int64).min])
@pytest.mark.parametrize("step", [-3, -1, 1, 2])
def test_slice_counts_and_cuts_off_as_onnx_says(start, end, step):
    data = np.arange(5)
    (output,) = run("Slice", [data, integers(start), integers(end), integers(0), integers(step)])
    # The words of the specification: negative numbers count from the back, then both are cut off.
    first, last = (number + 5 if number < 0 else number for number in (start, end))
    if step > 0:
        first, last = min(max(first, 0), 5), min(max(last, 0), 5)
    else:
        first, last = min(max(first, 0), 4), min(max(last, -1), 4)
    assert output.tolist() == [data[place] for place in range(first, last, step)]


def test_division_of_integers_cuts_off_toward_zero():
    A, B = np.array([7, -7, 7, -7, 6, -6]), np.array([2, 2, -2, -2, 3, 3])
    (output,) = run("Div", [A, B])
    np.testing.assert_array_equal(output, [3, -3, -3, 3, 2, -2])


def test_softmax_before_opset_13_goes_over_all_axes_behind():
    X = np.random.default_rng(9).standard_normal((2, 3, 4))
    (old,) = run("Softmax", [X], {}, opset=11)
    np.testing.assert_allclose(old.sum(axis=(1, 2)), 1)
    (new,) = run("Softmax", [X], {})
    np.testing.assert_allclose(new.sum(axis=2), 1)


def test_large_numbers_do_not_overflow():
    """NumPy's warnings are errors here."""
    X = np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0])
    np.testing.assert_allclose(run("Sigmoid", [X])[0][[0, 2, 4]], [0, 0.5, 1])
    np.testing.assert_allclose(run("Softplus", [X])[0][[0, 4]], [0, 1000])
    np.testing.assert_allclose(run("Elu", [X], {"alpha": 1.0})[0][[0, 4]], [-1, 1000])
    np.testing.assert_allclose(run("Softmax", [X[None]])[0][0, [0, 4]], [0, 1])
    np.testing.assert_allclose(run("LogSoftmax", [X[None]])[0][0, [0, 4]], [-2000, 0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["GlobalAveragePool", "ReduceMean"])
def test_a_mean_of_more_than_half_precision_can_count(name, dtype):
    """90,000 values of 1.5: neither their sum nor their number is a number of half precision."""
    X = np.full((1, 1, 300, 300), 1.5, dtype)
    inputs = [X] if name == "GlobalAveragePool" else [X, integers(2, 3)]
    (mean,) = run(name, inputs, opset=22)
    assert (mean.dtype, mean.shape, mean.item()) == (dtype, (1, 1, 1, 1), 1.5)
    gradient = OPERATORS[name].input_gradients(Call({}, 22), np.ones_like(mean), mean, *inputs)[0]()
    assert (gradient.dtype, gradient.shape) == (dtype, X.shape)
    np.testing.assert_array_equal(gradient, dtype(1 / 90_000))


@pytest.mark.filterwarnings("error")
def test_a_power_of_nothing_does_not_depend_on_its_base():
    """x^0 is 1 everywhere, at x = 0 too; x^1 and x^2 have their derivatives there."""
    X, Y = np.array([0.0, 0.0, 0.0, -2.0, 3.0, 3.0]), np.array([0.0, 1.0, 2.0, 0.0, 0.0, 2.0])
    of_x, _ = OPERATORS["Pow"].input_gradients(Call({}, 15), np.ones(6), X**Y, X, Y)
    np.testing.assert_array_equal(of_x(), [0, 1, 0, 0, 0, 6])


def test_equal_values_share_or_give_way():
    """At a tie ReduceMax divides the gradient, Max and GlobalMaxPool give it to the first."""
    data = np.array([[2.0, 2.0, 1.0]])
    gradient = OPERATORS["ReduceMax"].input_gradients(Call({}, 20), np.ones((1, 1)), np.array([[2.0]]), data)[0]()
    np.testing.assert_array_equal(gradient, [[0.5, 0.5, 0]])
    first, second = OPERATORS["Max"].input_gradients(Call({}, 13), np.ones((1, 3)), data, data, data)
    np.testing.assert_array_equal(first(), 1)
    np.testing.assert_array_equal(second(), 0)
    X = data.reshape(1, 1, 1, 3)
    (of_x,) = OPERATORS["GlobalMaxPool"].input_gradients(Call({}, 22), np.ones((1, 1, 1, 1)), X.max(keepdims=True), X)
    np.testing.assert_array_equal(of_x().reshape(-1), [1, 0, 0])


# ---- older operator sets ----


def test_arithmetic_before_opset_7_aligns_at_an_axis():
    A, B = np.zeros((2, 3, 4, 5)), np.arange(12.0).reshape(3, 4)
    (output,) = run("Add", [A, B], {"broadcast": 1, "axis": 1}, opset=6)
    np.testing.assert_array_equal(output, A + B[:, :, None])


def test_dropout_before_opset_7_says_whether_it_is_a_test():
    X = np.ones((2, 3), np.float32)
    output, mask = run("Dropout", [X], {"is_test": 1, "ratio": 0.5}, opset=6, outputs=2)
    np.testing.assert_array_equal(output, X)
    assert mask.dtype == np.float32
    with pytest.raises(UnsupportedError, match="Dropout in training mode is not supported"):
        run("Dropout", [X], {"ratio": 0.5}, opset=6)


def test_split_before_opset_13_takes_its_sizes_from_an_attribute():
    parts = run("Split", [np.arange(6)], {"split": [2, 4]}, opset=11, outputs=2)
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3, 4, 5]]
    parts = run("Split", [np.arange(6)], {}, opset=11, outputs=3)
    assert [part.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]


def test_shapes_before_they_were_inputs():
    X = np.zeros((2, 3, 4))
    assert run("Reshape", [X], {"shape": [4, -1]}, opset=1)[0].shape == (4, 6)
    assert run("Squeeze", [X[:, None]], {"axes": [1]}, opset=11)[0].shape == X.shape
    assert run("Unsqueeze", [X], {"axes": [0, 4]}, opset=11)[0].shape == (1, 2, 3, 4, 1)


# ---- what cannot be run ----

IMAGE = np.zeros((1, 3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("name", "inputs", "attributes", "kind", "message"),
    [
        ("Conv", [IMAGE[..., None], IMAGE[..., None]], {}, UnsupportedError, "over 3 axes is not supported"),
        (
            "Conv",
            [IMAGE, np.zeros((4, 2, 3, 3))],
            {},
            ValueError,
            r"input has 3 channels, weight \(4, 2, 3, 3\) expects 2",
        ),
        ("Conv", [IMAGE, np.zeros((4, 3, 3))], {}, ValueError, r"W has the shape \(4, 3, 3\), which does not fit"),
        ("Conv", [IMAGE, np.zeros((4, 3, 3, 3)), np.zeros(3)], {}, ValueError, r"B has the shape \(3,\)"),
        ("Conv", [IMAGE, np.zeros((4, 3, 3, 3))], {"kernel_shape": [2, 2]}, ValueError, r"kernel_shape \(2, 2\)"),
        ("Conv", [IMAGE, np.zeros((4, 3, 9, 9))], {}, ValueError, "an input of 8x8 is smaller than the window of 9x9"),
        ("Conv", [IMAGE[:0], np.zeros((4, 3, 3, 3))], {}, ValueError, "the batch is empty"),
        ("Conv", [IMAGE], {}, ValueError, "1 inputs are given, Conv takes 2 to 3"),
        ("Conv", [IMAGE, None], {}, ValueError, "1 inputs are given, Conv takes 2 to 3"),
        ("Relu", [IMAGE, IMAGE], {}, ValueError, "2 inputs are given, Relu takes 1"),
        ("Concat", [], {}, ValueError, "0 inputs are given"),
        ("MaxPool", [IMAGE], {"kernel_shape": [2]}, ValueError, "kernel_shape has 1 values, expected 2"),
        ("MaxPool", [IMAGE], {}, ValueError, "kernel_shape has 0 values, expected 2"),
        ("Gemm", [np.zeros((2, 3)), np.zeros((2, 3))], {}, ValueError, "do not fit as matrices"),
        ("BatchNormalization", [IMAGE, *[np.zeros(2)] * 4], {}, ValueError, r"scale has the shape \(2,\)"),
        ("BatchNormalization", [IMAGE, *[np.zeros(3)] * 4], {"training_mode": 1}, UnsupportedError, "training mode"),
        ("Pad", [IMAGE, integers(1, 1)], {}, ValueError, r"pads are \(1, 1\), an input of .* expects 8 numbers"),
        (
            "Pad",
            [IMAGE, integers(*[1] * 8)],
            {"mode": "soft"},
            UnsupportedError,
            "Pad with mode 'soft' is not supported",
        ),
        ("Reshape", [IMAGE, integers(1, 1, 1, 1, 0)], {}, ValueError, "keeps an axis that an input"),
        ("Softmax", [IMAGE], {"axis": 4}, ValueError, "axis 4 does not exist, the input has 4 dimensions"),
        ("Split", [IMAGE, integers(1, 1)], {"axis": 1}, ValueError, r"parts of \(1, 1\) do not fit axis 1 of size 3"),
        ("Slice", [IMAGE, integers(0), integers(1, 2)], {}, ValueError, "differ in number"),
        ("Cast", [IMAGE], {"to": 16}, UnsupportedError, "Cast to the type 16 is not supported"),
        ("Constant", [], {"value_string": "text"}, UnsupportedError, "not a dense array of numbers"),
    ],
)
def test_what_cannot_be_run_is_refused(name, inputs, attributes, kind, message):
    with pytest.raises(kind, match=message):
        run(name, inputs, attributes)


def test_more_outputs_than_an_operator_has_here_are_refused():
    with pytest.raises(UnsupportedError, match="Relu with 2 outputs is not supported"):
        run("Relu", [IMAGE], outputs=2)


def test_before_opset_7_comparisons_begin_at_an_axis():
    A, B = np.array([[1.0, 1.0], [5.0, 5.0]]), np.array([0.0, 9.0])
    old = {"axis": 0, "broadcast": 1}
    np.testing.assert_array_equal(run("Greater", [A, B], old, opset=6)[0], [[True, True], [False, False]])
    np.testing.assert_array_equal(run("Greater", [A, B], opset=7)[0], [[True, False], [True, False]])


def test_until_opset_5_a_type_is_called_by_its_name_and_selu_has_other_constants():
    assert run("Cast", [numbers(2)], {"to": "FLOAT"}, opset=5)[0].dtype == np.float32
    assert run("Selu", [np.ones(1)], opset=5)[0] == 1.0507


@pytest.mark.parametrize(("size", "expected"), [(2, 1), (3, 1), (4, 2)])
def test_a_pooling_that_is_rounded_up_takes_an_input_smaller_than_its_window(size, expected):
    X = numbers(1, 1, size, size)
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2]}
    pooled = run("MaxPool", [X], {**attributes, "ceil_mode": 1})[0]
    assert pooled.shape == (1, 1, expected, expected)
    assert pooled[0, 0, 0, 0] == X[0, 0, :3, :3].max()
    if size < 3:
        with pytest.raises(ValueError, match="is smaller than the window of 3x3"):
            run("MaxPool", [X], attributes)
