"""ReLU: value, sign bits and input gradient, with the edges where they could differ."""

import importlib

import numpy as np
import pytest

from kernels import Cpu
from tests.kernels.devices import cpu

relu_module = importlib.import_module("kernels.cpu.relu")

DTYPES = [np.float32, np.float64, np.complex128]
# Neither is divisible by 8; the last is longer than one strip.
SHAPES = [(1,), (7,), (3, 5, 3), (2, 4, 8), (211, 213, 3)]


def normal(shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if dtype is np.complex128:
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def unwritten(shape, dtype=float):
    """Stand in for ``np.empty``: memory that nobody writes to shows."""
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind in "fc" else np.iinfo(dtype).max, dtype)


def unwritten_like(array):
    return unwritten(array.shape, array.dtype)


def slow_relu(input):
    return np.array([value if value.real > 0 else 0 for value in input.ravel()], input.dtype).reshape(input.shape)


def slow_gradient(gradient, input):
    kept = [g if value.real > 0 else 0 for g, value in zip(gradient.ravel(), input.ravel(), strict=True)]
    return np.array(kept, gradient.dtype).reshape(input.shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_the_complex_step_derivative(dtype):
    input, direction = normal((5, 7, 3)), normal((5, 7, 3), seed=1)
    derivative = cpu.relu(input + 1e-30j * direction).imag / 1e-30
    gradient = cpu.relu_input_gradient(direction.astype(dtype), cpu.relu(input).astype(dtype))
    np.testing.assert_allclose(gradient, derivative, rtol=1e-15 if dtype is not np.float32 else 1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_definition(shape, dtype, monkeypatch):
    input, gradient = normal(shape, dtype), normal(shape, dtype, seed=1)
    monkeypatch.setattr(np, "empty", unwritten)
    monkeypatch.setattr(np, "empty_like", unwritten_like)
    output = cpu.relu(input)
    bits = cpu.relu_mask(output)
    from_output, from_bits = cpu.relu_input_gradient(gradient, output), cpu.relu_input_gradient(gradient, bits)
    monkeypatch.undo()
    np.testing.assert_array_equal(output, slow_relu(input))
    np.testing.assert_array_equal(from_output, slow_gradient(gradient, input))
    np.testing.assert_array_equal(from_bits, from_output)
    assert output.dtype == from_output.dtype == from_bits.dtype == dtype


@pytest.mark.parametrize("shape", SHAPES)
def test_sign_takes_one_bit_a_value_in_order(shape):
    output = cpu.relu(normal(shape))
    bits = cpu.relu_mask(output)
    assert bits.dtype == np.uint8
    assert bits.shape == (-(-output.size // 8),)
    expected = [int(value > 0) for value in output.ravel()] + [0] * (-output.size % 8)
    unpacked = [byte >> (7 - place) & 1 for byte in bits.tolist() for place in range(8)]
    assert unpacked == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradient_is_zero_at_exactly_zero_and_one_just_above(dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    input = np.array([0.0, -0.0, smallest, -smallest, 1.0, -1.0], dtype)
    output = cpu.relu(input)
    for kept in (output, cpu.relu_mask(output)):
        gradient = cpu.relu_input_gradient(np.full(6, 2.0, dtype), kept)
        np.testing.assert_array_equal(gradient, np.array([0, 0, 2, 0, 2, 0], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_a_number_stays(dtype):
    output = cpu.relu(np.array([1, np.nan, -1, np.inf, -np.inf], dtype))
    np.testing.assert_array_equal(output, np.array([1, np.nan, 0, np.inf, 0], dtype))


def test_complex_numbers_branch_on_the_real_part():
    input = np.array([1 - 5j, -1 + 5j, 0 + 5j, -0.0 - 5j, 1e-300 - 2j])
    output = cpu.relu(input)
    np.testing.assert_array_equal(output, np.array([1 - 5j, 0, 0, 0, 1e-300 - 2j]))
    for kept in (output, cpu.relu_mask(output)):
        gradient = cpu.relu_input_gradient(np.full(5, 3 + 4j), kept)
        np.testing.assert_array_equal(gradient, np.array([3 + 4j, 0, 0, 0, 3 + 4j]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_may_be_written_over_the_argument(dtype):
    input, gradient = normal((9, 5, 3), dtype), normal((9, 5, 3), dtype, seed=1)
    output = cpu.relu(input)
    back = cpu.relu_input_gradient(gradient, output)
    in_place = input.copy()
    assert cpu.relu(in_place, out=in_place) is in_place
    np.testing.assert_array_equal(in_place, output)
    in_place = gradient.copy()
    assert cpu.relu_input_gradient(in_place, cpu.relu_mask(output), out=in_place) is in_place
    np.testing.assert_array_equal(in_place, back)


def test_arguments_stay_as_they_are_when_no_place_is_given():
    input, gradient = normal((9, 5, 3)), normal((9, 5, 3), seed=1)
    output = cpu.relu(input)
    bits = cpu.relu_mask(output)
    arguments = (input, gradient, output, bits)
    copies = [array.copy() for array in arguments]
    cpu.relu(input)
    cpu.relu_mask(output)
    cpu.relu_input_gradient(gradient, output)
    cpu.relu_input_gradient(gradient, bits)
    for array, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("strip", [8, 64, 1 << 17])
def test_same_bits_at_any_thread_count_and_strip(strip, monkeypatch):
    input, gradient = normal((41, 43, 3)), normal((41, 43, 3), seed=1)
    whole = cpu.relu(input)
    expected = whole.tobytes() + cpu.relu_mask(whole).tobytes() + cpu.relu_input_gradient(gradient, whole).tobytes()
    monkeypatch.setattr(relu_module, "_STRIP", strip)
    monkeypatch.setattr(np, "empty", unwritten)
    monkeypatch.setattr(np, "empty_like", unwritten_like)
    for threads in (1, 2, 3, 5):
        workers = Cpu(threads)
        output = workers.relu(input)
        bits = workers.relu_mask(output)
        for kept in (output, bits):
            back = workers.relu_input_gradient(gradient, kept)
            assert output.tobytes() + bits.tobytes() + back.tobytes() == expected


LAYOUTS = {
    "C order": lambda array: array,
    "Fortran order": np.asfortranarray,
    "moved axes": lambda array: np.ascontiguousarray(array.transpose(2, 0, 1)).transpose(1, 2, 0),
    "flipped": lambda array: array[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "every other": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_in_memory_does_not_matter(layout):
    random = np.random.default_rng(0)
    array, gradient = random.standard_normal((2, 5, 7, 3))
    moved = LAYOUTS[layout]
    np.testing.assert_array_equal(cpu.relu(moved(array)), np.maximum(array, 0))
    for kept in (moved(cpu.relu(array)), cpu.relu_mask(cpu.relu(array))):
        np.testing.assert_array_equal(cpu.relu_input_gradient(moved(gradient), kept), gradient * (array > 0))


def test_a_place_that_is_no_row_in_memory_is_refused():
    array = np.ones((4, 3, 2))
    for function in (cpu.relu, lambda input, out: cpu.relu_input_gradient(input, input, out=out)):
        with pytest.raises(ValueError, match="copy"):
            function(array, out=np.empty_like(array, order="F"))
