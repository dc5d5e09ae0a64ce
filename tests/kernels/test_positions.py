"""Sums over positions, and Gram matrices of shifted features: equal to their definitions on both devices."""

import numpy as np
import pytest

from kernels import Cpu
from tests.kernels.devices import cpu, cuda, to_device, to_host

SHAPES = [(7, 9, 5), (1, 1, 3), (60, 50, 8), (5, 6, 24)]
STEP = 1e-30


def problem(shape, dtype=np.float64, seed=0):
    """Return features, an array of their shape, and weights of the positions."""
    random = np.random.default_rng(seed)
    return (*random.standard_normal((2, *shape)).astype(dtype), random.uniform(0, 2, shape[:2]).astype(dtype))


def shifted_by_loops(features, offset, weights):
    """The sum over pairs, one by one."""
    rows, flat = features.reshape(-1, features.shape[2]), weights.ravel()
    pairs = (flat[k] * np.outer(rows[k], rows[k + offset]) for k in range(len(rows) - offset))
    return sum(pairs, np.zeros((features.shape[2],) * 2))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_sum_equals_its_definition_and_the_gradient_is_its_adjoint(shape):
    features, there, weights = problem(shape)
    found = cpu.sum_positions(features, weights)
    expected = sum(weights[place] * features[place] for place in np.ndindex(shape[:2]))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    g = np.random.default_rng(1).standard_normal(shape[2])
    before = there.copy()
    assert cpu.sum_positions_input_gradient(g, weights, add_to=there) is there
    assert np.vdot(there - before, features) == pytest.approx(np.vdot(g, found), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize(("shape", "offset"), [((7, 9, 5), 4), ((7, 9, 5), 36), ((60, 50, 8), 200), ((1, 2, 3), 1)])
def test_a_shifted_gram_matrix_equals_its_definition(shape, offset):
    features, _, weights = problem(shape)
    expected = shifted_by_loops(features, offset, weights)
    np.testing.assert_allclose(cpu.shifted_gram(features, offset, weights), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("shape", "offset"), [((7, 9, 5), 4), ((7, 9, 5), 36), ((60, 50, 8), 200), ((1, 2, 3), 1)])
def test_its_product_is_the_input_gradient(shape, offset):
    features, there, weights = problem(shape)
    matrix = np.random.default_rng(2).standard_normal((shape[2],) * 2)
    before = there.copy()
    assert cpu.shifted_product(matrix, features, offset, weights, add_to=there) is there
    gradient = there - before
    for direction in np.random.default_rng(3).standard_normal((3, *shape)):
        moved = cpu.shifted_gram(features + 1j * STEP * direction, offset, weights)
        slope = (matrix * moved.imag).sum() / STEP
        size = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(np.vdot(gradient, direction) - slope) < 1e-13 * size


def test_same_bits_at_any_thread_count():
    features, there, weights = problem((90, 70, 6), np.float32)
    matrix = np.random.default_rng(2).standard_normal((6, 6))
    results = {
        (
            device.sum_positions(features, weights).tobytes(),
            device.shifted_gram(features, 4, weights).tobytes(),
            device.shifted_product(matrix, features, 280, weights, add_to=there.copy()).tobytes(),
            device.sum_positions_input_gradient(matrix[0], weights, add_to=there.copy()).tobytes(),
        )
        for device in map(Cpu, (1, 2, 5))
    }
    assert len(results) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_on_a_gpu_they_are_the_same(emulator, shape, dtype):
    features, there, weights = problem(shape, np.float32)
    features, there = (array.astype(dtype) for array in (features, there))
    wide, wide_there = features.astype(np.float32), there.astype(np.float32)
    close = {"rtol": 1e-5, "atol": 1e-4} if dtype == np.float32 else {"rtol": 3e-3, "atol": 3e-2}
    g = np.random.default_rng(1).standard_normal(shape[2]).astype(np.float32)
    matrix = np.random.default_rng(2).standard_normal((shape[2],) * 2).astype(np.float32)
    placed, counts = to_device(features), to_device(weights)
    found = cuda.sum_positions(placed, counts)
    np.testing.assert_allclose(to_host(found), cpu.sum_positions(wide, weights), **close)
    found = cuda.sum_positions_input_gradient(to_device(g), counts, add_to=to_device(there))
    expected = cpu.sum_positions_input_gradient(g, weights, add_to=wide_there.copy())
    np.testing.assert_allclose(to_host(found), expected, **close)
    for offset in {1, 4 * shape[1]}:
        if offset >= shape[0] * shape[1]:
            continue
        found = cuda.shifted_gram(placed, offset, counts)
        np.testing.assert_allclose(to_host(found), cpu.shifted_gram(wide, offset, weights), **close)
        found = cuda.shifted_product(to_device(matrix), placed, offset, counts, add_to=to_device(there))
        expected = cpu.shifted_product(matrix, wide, offset, weights, add_to=wide_there.copy())
        np.testing.assert_allclose(to_host(found), expected, **close)


def test_a_number_from_elsewhere_is_told_with_the_others(emulator):
    values = np.arange(6.0).reshape(2, 3, 1)
    assert cpu.numbers([cpu.number(2.5), cpu.squared_distance(values, 0 * values, 1.0)]) == [2.5, 55.0]
    there = to_device(values)
    of_one = [cuda.number(2.5), 2.5, to_device(np.array([2.5]))]
    assert cuda.numbers([*of_one, cuda.squared_distance(there, to_device(0 * values), 1.0)]) == [2.5, 2.5, 2.5, 55.0]
