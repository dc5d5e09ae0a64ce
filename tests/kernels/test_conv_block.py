"""Convolution, ReLU and pooling in one pass: equal to the three one after the other."""

import numpy as np
import pytest

from kernels import Cpu
from kernels.cpu.conv_block import conv_block, conv_block_input_gradient
from kernels.cpu.winograd import transform_weight
from kernels.geometry import Window
from tests.kernels.devices import cpu

POOL = Window((2, 2), strides=(2, 2))
SIZES = [(8, 12), (13, 18), (7, 9), (2, 3), (5, 3), (70, 6), (6, 75)]


def make(size, dtype=np.float64, pads=(1, 1, 1, 1)):
    rng = np.random.default_rng(5)
    input, weight, bias = (rng.standard_normal(shape) for shape in ((*size, 16), (3, 3, 16, 24), (24,)))
    return input.astype(dtype), weight.astype(dtype), bias.astype(dtype), Window((3, 3), pads=pads)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pool", [False, True])
def test_output_equals_the_operators_one_after_the_other(size, pool):
    input, weight, bias, window = make(size)
    expected = cpu.conv(input, weight, bias, window, relu=True)
    output, mask = conv_block(cpu, input, transform_weight(weight), bias, window.pads, pool=pool)
    np.testing.assert_array_equal(np.unpackbits(mask, axis=-1), expected > 0)
    np.testing.assert_allclose(output, cpu.average_pool(expected, POOL) if pool else expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 1, 2, 0)])
def test_input_gradient_equals_the_operators_one_after_the_other(size, pool, pads):
    input, weight, bias, window = make(size, pads=pads)
    response = cpu.conv(input, weight, bias, window, relu=True)
    output, mask = conv_block(cpu, input, transform_weight(weight), bias, window.pads, pool=pool)
    gradient = np.random.default_rng(2).standard_normal(output.shape)
    back = cpu.average_pool_input_gradient(gradient, response.shape, POOL) if pool else gradient
    expected = cpu.conv_input_gradient(cpu.relu_input_gradient(back, response), weight, input.shape, window)
    transformed = transform_weight(weight)
    result = conv_block_input_gradient(
        cpu, gradient, transformed, response.shape[:2], window.pads, pool=pool, mask=mask
    )
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)
    if not pool:
        by_output = conv_block_input_gradient(
            cpu, gradient, transformed, response.shape[:2], window.pads, output=output
        )
        np.testing.assert_array_equal(by_output, result)


def test_adjoint_of_the_linear_part():
    # With a large bias every response is positive, and what is left is linear.
    input, weight, _, window = make((13, 18))
    bias = np.full(24, 1e3)
    transformed = transform_weight(weight)
    output, mask = conv_block(cpu, input, transformed, bias, window.pads, pool=True)
    constant, _ = conv_block(cpu, np.zeros_like(input), transformed, bias, window.pads, pool=True)
    gradient = np.random.default_rng(2).standard_normal(output.shape)
    back = conv_block_input_gradient(cpu, gradient, transformed, input.shape[:2], window.pads, pool=True, mask=mask)
    linear = output - constant
    scale = np.linalg.norm(gradient) * np.linalg.norm(linear)
    assert abs(np.vdot(gradient, linear) - np.vdot(back, input)) < 1e-13 * scale


def test_not_a_number_is_passed_on():
    input, weight, bias, window = make((8, 8), np.float32)
    input[4, 4, 0] = np.nan
    output, _ = conv_block(cpu, input, transform_weight(weight), bias, window.pads, pool=True)
    assert np.isnan(output[2, 2]).all()


def test_gradient_without_signs_and_output_is_an_error():
    _, weight, _, window = make((8, 8))
    transformed = transform_weight(weight)
    with pytest.raises(ValueError, match="needs its output or its mask"):
        conv_block_input_gradient(cpu, np.ones((8, 8, 24)), transformed, (8, 8), window.pads)


@pytest.mark.parametrize("pool", [False, True])
def test_same_bits_at_any_thread_count(pool):
    input, weight, bias, window = make((61, 67), np.float32)
    results = set()
    for threads in (1, 2, 3, 5):
        device = Cpu(threads)
        with device.computing():
            output, mask = conv_block(device, input, transform_weight(weight), bias, window.pads, pool=pool)
            back = conv_block_input_gradient(
                device, output, transform_weight(weight), (61, 67), window.pads, pool=pool, mask=mask
            )
        results.add((output.tobytes(), mask.tobytes(), back.tobytes()))
    assert len(results) == 1
