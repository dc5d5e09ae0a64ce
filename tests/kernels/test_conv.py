"""Convolution: equal to its definition, and its gradient its transpose."""

import importlib

import numpy as np
import pytest

from kernels import Cpu
from kernels.geometry import Window, output_size
from tests.kernels import naive
from tests.kernels.devices import cpu

# The package's attribute of this name is the function.
conv_module = importlib.import_module("kernels.cpu.conv")

# (input H, W, C), filters, window, group
CASES = {
    "vgg": ((7, 9, 20), 18, Window((3, 3), pads=(1, 1, 1, 1)), 1),
    "first layer": ((8, 7, 3), 6, Window((3, 3), pads=(1, 1, 1, 1)), 1),
    "pointwise": ((5, 6, 20), 4, Window((1, 1)), 1),
    "pointwise, padded at the bottom": ((4, 5, 3), 4, Window((1, 1), pads=(0, 0, 1, 0)), 1),
    "pointwise, padded at the right": ((4, 5, 20), 4, Window((1, 1), pads=(0, 0, 0, 5)), 1),
    "no padding": ((6, 7, 17), 3, Window((3, 3)), 1),
    "uneven padding": ((6, 5, 18), 3, Window((3, 2), pads=(2, 0, 1, 1)), 1),
    "padding beyond the window": ((4, 5, 18), 2, Window((2, 2), pads=(3, 2, 2, 4)), 1),
    "one pixel": ((1, 1, 17), 3, Window((3, 3), pads=(1, 1, 1, 1)), 1),
    "strided": ((9, 8, 5), 4, Window((3, 3), strides=(2, 3), pads=(1, 1, 1, 1)), 1),
    "stride beyond the kernel": ((9, 8, 5), 4, Window((2, 1), strides=(3, 2)), 1),
    "dilated": ((9, 11, 17), 3, Window((3, 2), pads=(2, 1, 2, 1), dilations=(2, 3)), 1),
    "grouped": ((5, 6, 40), 8, Window((3, 3), pads=(1, 1, 1, 1)), 2),
    "depthwise, strided": ((6, 7, 6), 12, Window((3, 3), strides=(2, 2), pads=(1, 1, 1, 1)), 6),
    "same, upper": ((6, 7, 5), 4, Window((4, 3), strides=(2, 2), auto_pad="SAME_UPPER"), 1),
    "same, lower": ((6, 7, 17), 4, Window((4, 4), auto_pad="SAME_LOWER"), 1),
    "tall kernel": ((11, 6, 17), 2, Window((7, 1), pads=(3, 0, 3, 0)), 1),
}
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14, np.complex128: 1e-14}


def make(case, dtype=np.float64, seed=0):
    shape, filters, window, group = CASES[case]
    rng = np.random.default_rng(seed)

    def normal(*size):
        values = rng.standard_normal(size)
        if dtype is np.complex128:
            values = values + 1j * rng.standard_normal(size)
        return values.astype(dtype)

    weight = normal(*window.kernel, shape[2] // group, filters)
    gradient = normal(*output_size(window, *shape[:2]), filters)
    return normal(*shape), weight, normal(filters), window, group, gradient


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_the_definition(case, dtype):
    input, weight, bias, window, group, _ = make(case, dtype)
    expected = naive.conv(input, weight, bias, window, group)
    result = cpu.conv(input, weight, bias, window, group)
    assert result.dtype == dtype
    assert relative(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_input_gradient_equals_the_definition(case, dtype):
    input, weight, _, window, group, gradient = make(case, dtype)
    expected = naive.conv_input_gradient(gradient, weight, input.shape, window, group)
    result = cpu.conv_input_gradient(gradient, weight, input.shape, window, group)
    assert result.dtype == dtype
    assert relative(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("case", CASES)
def test_input_gradient_is_the_adjoint(case):
    input, weight, _, window, group, gradient = make(case)
    output = cpu.conv(input, weight, None, window, group)
    transposed = cpu.conv_input_gradient(gradient, weight, input.shape, window, group)
    scale = np.linalg.norm(gradient) * np.linalg.norm(output)
    assert abs(np.vdot(gradient, output) - np.vdot(transposed, input)) < 5e-15 * scale


@pytest.mark.parametrize("case", ["vgg", "first layer", "dilated", "strided", "grouped"])
def test_cutting_into_small_strips_changes_nothing_but_rounding(case, monkeypatch):
    input, weight, bias, window, group, gradient = make(case)
    whole = (
        cpu.conv(input, weight, bias, window, group),
        cpu.conv_input_gradient(gradient, weight, input.shape, window, group),
    )
    monkeypatch.setattr(conv_module.np, "empty", nan_filled)
    for pixels in (1, 3, 10):
        monkeypatch.setattr(conv_module, "_STRIP_BYTES", 1)
        monkeypatch.setattr(conv_module, "_STRIP_PIXELS", pixels)
        output = cpu.conv(input, weight, bias, window, group)
        back = cpu.conv_input_gradient(gradient, weight, input.shape, window, group)
        np.testing.assert_allclose(output, whole[0], rtol=0, atol=1e-13)
        np.testing.assert_allclose(back, whole[1], rtol=0, atol=1e-13)


def nan_filled(shape, dtype=float):
    """Stand in for ``np.empty``: memory that nobody writes to shows."""
    return np.full(shape, np.nan, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_at_any_thread_count(dtype):
    rng = np.random.default_rng(1)
    input = rng.standard_normal((61, 67, 32)).astype(dtype)
    weight = rng.standard_normal((3, 3, 32, 48)).astype(dtype)
    gradient = rng.standard_normal((61, 67, 48)).astype(dtype)
    window = Window((3, 3), pads=(1, 1, 1, 1))
    results = []
    for threads in (1, 2, 3, 5):
        workers = Cpu(threads)
        with workers.computing():
            output = workers.conv(input, weight, None, window)
            back = workers.conv_input_gradient(gradient, weight, input.shape, window)
        results.append((output.tobytes(), back.tobytes()))
    assert len(set(results)) == 1


def test_relu_is_applied_to_the_sum_with_the_bias():
    input, weight, bias, window, group, _ = make("vgg")
    plain = cpu.conv(input, weight, bias, window, group)
    np.testing.assert_array_equal(cpu.conv(input, weight, bias, window, group, relu=True), np.maximum(plain, 0))


def test_arguments_stay_as_they_are():
    input, weight, bias, window, group, gradient = make("strided")
    copies = [array.copy() for array in (input, weight, bias, gradient)]
    cpu.conv(input, weight, bias, window, group, relu=True)
    cpu.conv_input_gradient(gradient, weight, input.shape, window, group)
    for array, copy in zip((input, weight, bias, gradient), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_flipping_twice_gives_the_weight_back():
    weight = np.random.default_rng(0).standard_normal((3, 2, 4, 6))
    for group in (1, 2):
        np.testing.assert_array_equal(cpu.flip_weight(cpu.flip_weight(weight, group), group), weight)
