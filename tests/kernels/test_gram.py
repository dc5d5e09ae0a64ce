"""Gram matrices and the product of their gradient: equal to a sum over positions, in the precision they promise."""

import importlib

import numpy as np
import pytest

from kernels import Cpu
from tests.kernels.devices import cpu

gram_module = importlib.import_module("kernels.cpu.gram")

SHAPES = [(1, 1, 1), (5, 7, 3), (9, 4, 33), (1, 4099, 4), (70, 61, 16)]
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14, np.complex128: 1e-14}


def normal(shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if dtype is np.complex128:
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def symmetric(size, dtype=np.float64):
    matrix = normal((size, size), dtype, seed=9)
    return matrix + matrix.T


def wide(dtype):
    return np.result_type(dtype, np.float64)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def unwritten_like(array):
    """Stand in for ``np.empty_like``: memory that nobody writes to shows."""
    return np.full(array.shape, np.nan, array.dtype)


def test_the_product_is_half_of_the_derivative_of_the_gram_matrix():
    F, direction, matrix = normal((6, 5, 7)), normal((6, 5, 7), seed=1), symmetric(7)
    derivative = (matrix * cpu.gram(F + 1e-30j * direction)).sum().imag / 1e-30
    assert derivative == pytest.approx(2 * np.vdot(cpu.gram_product(matrix, F), direction), rel=1e-14)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_sum_over_positions(shape, dtype):
    features = normal(shape, dtype)
    result = cpu.gram(features)
    twin = features.astype(wide(dtype))
    assert result.dtype == wide(dtype)
    assert relative(result, np.einsum("yxi,yxj->ij", twin, twin)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_is_symmetric_to_the_bit(dtype):
    result = cpu.gram(normal((70, 61, 33), dtype))
    np.testing.assert_array_equal(result, result.T)


def test_complex_numbers_are_not_conjugated():
    features = np.array([[[1 + 2j, 3 - 1j]]])
    np.testing.assert_array_equal(cpu.gram(features), [[-3 + 4j, 5 + 5j], [5 + 5j, 8 - 6j]])


def test_strips_are_summed_in_double_precision(monkeypatch):
    monkeypatch.setattr(gram_module, "_SHORTEST", 1)
    monkeypatch.setattr(gram_module, "_LONGEST", 1)
    # 2^24 + 1 is not a float32: summed in single precision the ones would be lost.
    features = np.ones((1, 11, 1), np.float32)
    features[0, 0] = 4096
    assert cpu.gram(features).item() == 2**24 + 10


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_product_equals_the_sum_over_channels(shape, dtype, monkeypatch):
    features, matrix = normal(shape, dtype), symmetric(shape[2], wide(dtype).type)
    monkeypatch.setattr(np, "empty_like", unwritten_like)
    result = cpu.gram_product(matrix, features)
    assert result.dtype == dtype
    assert result.shape == shape
    expected = np.einsum("ij,yxj->yxi", matrix, features.astype(wide(dtype)))
    assert relative(result, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_at_any_thread_count(dtype, monkeypatch):
    monkeypatch.setattr(gram_module, "_SHORTEST", 500)
    monkeypatch.setattr(gram_module, "_LONGEST", 500)
    features, matrix = normal((67, 61, 48), dtype), symmetric(48)
    results = []
    for threads in (1, 2, 3, 5):
        workers = Cpu(threads)
        with workers.computing():
            matrix_bits = workers.gram(features).tobytes()
            results.append((matrix_bits, workers.gram_product(matrix, features).tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize("strip", [1, 7, 100])
def test_cutting_into_small_strips_changes_nothing_but_rounding(strip, monkeypatch):
    features, matrix = normal((9, 11, 5)), symmetric(5)
    whole = cpu.gram(features), cpu.gram_product(matrix, features)
    monkeypatch.setattr(gram_module, "_SHORTEST", strip)
    monkeypatch.setattr(gram_module, "_LONGEST", strip)
    monkeypatch.setattr(np, "empty_like", unwritten_like)
    np.testing.assert_allclose(cpu.gram(features), whole[0], rtol=0, atol=1e-13)
    np.testing.assert_allclose(cpu.gram_product(matrix, features), whole[1], rtol=0, atol=1e-13)


def test_arguments_stay_as_they_are():
    features, matrix = normal((9, 4, 6)), symmetric(6)
    copies = features.copy(), matrix.copy()
    cpu.gram(features)
    cpu.gram_product(matrix, features)
    np.testing.assert_array_equal(features, copies[0])
    np.testing.assert_array_equal(matrix, copies[1])
