"""Winograd's algorithm: its transforms are exact, and it equals the direct convolution to rounding."""

import importlib

import numpy as np
import pytest

from kernels import Cpu
from kernels.cpu.winograd import POINTS, toom_cook, transform_weight, winograd_conv
from kernels.geometry import Window, output_size
from tests.kernels import naive
from tests.kernels.devices import cpu

winograd = importlib.import_module("kernels.cpu.winograd")

# (H, W, C), filters, pads
CASES = {
    "vgg": ((13, 18, 20), 24, (1, 1, 1, 1)),
    "whole tiles": ((8, 12, 16), 16, (1, 1, 1, 1)),
    "one pixel": ((1, 1, 3), 5, (1, 1, 1, 1)),
    "one row": ((1, 23, 4), 8, (1, 1, 1, 1)),
    "no padding": ((9, 7, 6), 7, (0, 0, 0, 0)),
    "uneven padding": ((6, 11, 5), 4, (2, 0, 1, 2)),
}


def make(case, dtype=np.float64):
    shape, filters, pads = CASES[case]
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(size) for size in (shape, (3, 3, shape[2], filters), (filters,))]
    return (*(array.astype(dtype) for array in arrays), pads)


def run(input, weight, bias, pads, threads, transposed=False):
    size = input.shape[0] + pads[0] + pads[2] - 2, input.shape[1] + pads[1] + pads[3] - 2
    output = np.full((*size, weight.shape[2 if transposed else 3]), np.nan, input.dtype)
    stored = np.zeros(size, int)

    def load(rows, columns, out):
        out[...] = input[rows, columns]

    def store(rows, columns, values):
        output[rows, columns] = values
        stored[rows, columns] += 1
        values[...] = np.nan  # it may be changed

    winograd_conv(threads, load, store, input.shape[:2], pads, transform_weight(weight), bias, transposed=transposed)
    assert (stored == 1).all()
    return output


@pytest.mark.parametrize(("outputs", "taps", "points"), [(4, 3, POINTS), (2, 3, (0, 1, -1)), (3, 2, (0, 2, -1))])
def test_transforms_give_the_correlation(outputs, taps, points):
    a, g, b = toom_cook(outputs, taps, points)
    rng = np.random.default_rng(0)
    signal, kernel = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    expected = [signal[i : i + taps] @ kernel for i in range(outputs)]
    np.testing.assert_allclose(a @ ((g @ kernel) * (b @ signal)), expected, rtol=0, atol=1e-14)


def test_transforms_are_exact_in_single_precision():
    a, _, b = toom_cook(4, 3, POINTS)
    for transform in (a, b):
        np.testing.assert_array_equal(transform.astype(np.float32), transform)


def test_wrong_number_of_points_is_an_error():
    with pytest.raises(ValueError, match=r"F\(4, 3\) takes 5 finite points, got 4"):
        toom_cook(4, 3, (0, 1, -1, 2))


@pytest.fixture(params=["strips", "groups", "small strips", "small groups"])
def way(request, monkeypatch):
    """Each way through the steps, also with the image cut into many pieces."""
    monkeypatch.setattr(winograd, "_CACHED_WEIGHT_BYTES", 0 if "groups" in request.param else 1 << 40)
    if "small" in request.param:
        monkeypatch.setattr(winograd, "_STRIP_BYTES", 1)
        monkeypatch.setattr(winograd, "_GROUP_BYTES", 1)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition(case):
    input, weight, bias, pads = make(case)
    expected = naive.conv(input, weight, bias, Window((3, 3), pads=pads))
    result = run(input, weight, bias, pads, Cpu(2))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("way")
def test_same_bits_at_any_thread_count():
    input, weight, bias, pads = make("vgg", np.float32)
    results = set()
    for threads in (1, 2, 3, 5):
        with Cpu.computing():
            results.add(run(input, weight, bias, pads, Cpu(threads)).tobytes())
    assert len(results) == 1


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("case", CASES)
def test_transposed_it_is_the_input_gradient(case):
    input, weight, _, pads = make(case)
    window = Window((3, 3), pads=pads)
    gradient = np.random.default_rng(1).standard_normal((*output_size(window, *input.shape[:2]), weight.shape[3]))
    expected = cpu.conv_input_gradient(gradient, weight, input.shape, window)
    mirrored = tuple(2 - pad for pad in pads)
    result = run(gradient, weight, None, mirrored, Cpu(2), transposed=True)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [64, 256])
def test_float32_error_stays_below_two_millionths(channels):
    rng = np.random.default_rng(0)
    input = rng.standard_normal((32, 32, channels))
    weight = rng.standard_normal((3, 3, channels, 64)) * np.sqrt(2 / (9 * channels))
    window = Window((3, 3), pads=(1, 1, 1, 1))
    exact = cpu.conv(input, weight, None, window)
    result = run(input.astype(np.float32), weight.astype(np.float32), None, window.pads, Cpu(2))
    assert np.linalg.norm(result - exact) / np.linalg.norm(exact) < 2e-6


def test_float32_errors_do_not_add_up():
    """Of features as smooth as a picture's; rounded transforms make the output smaller by 3e-8 everywhere."""
    rng = np.random.default_rng(0)
    input = (5 + 0.1 * rng.standard_normal((32, 32, 64))).astype(np.float32)
    weight = rng.uniform(0, 1, (3, 3, 64, 64)).astype(np.float32)
    exact = cpu.conv(input.astype(np.float64), weight.astype(np.float64), None, Window((3, 3)))
    result = run(input, weight, None, (0, 0, 0, 0), Cpu(2))
    assert abs((result * exact).sum() / np.square(exact).sum() - 1) < 1e-8
