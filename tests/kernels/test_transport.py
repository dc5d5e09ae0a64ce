"""Quantile functions and optimal transport: equal to their definitions, the residual to the derivative of the cost."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from kernels import Cpu
from tests.kernels.devices import cpu, cuda, to_device, to_host

STEP = 1e-30
RANDOM = np.random.default_rng(0)
SHAPES = ((1, 1, 1), (3, 5, 2), (9, 7, 19))


def ascending(channels, count, seed=1):
    return np.sort(np.random.default_rng(seed).standard_normal((channels, count)), axis=1)


def integral(values, weights, steps):
    """Go from each step of one of the two functions to the next."""
    order = np.argsort(values)
    ends, at = np.cumsum(weights[order]) / weights.sum(), np.arange(1, len(steps)) / len(steps)
    total = 0.0
    for low, high in itertools.pairwise(sorted([0.0, *ends[:-1], *at, 1.0])):
        middle = (low + high) / 2
        own = values[order][np.searchsorted(ends[:-1], middle)]
        total += (high - low) * (own - steps[int(middle * len(steps))]) ** 2
    return total


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 4, 35])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_cost_is_the_integral(shape, count, weighed):
    input, steps = RANDOM.standard_normal(shape), ascending(shape[2], count)
    weights = RANDOM.uniform(0.1, 2, shape[:2]) if weighed else None
    cost, _ = cpu.transport_residual(input, [(1.0, steps)], weights)
    counted = np.ones(shape[:2]) if weights is None else weights
    expected = [integral(input[..., c].ravel(), counted.ravel(), steps[c]) for c in range(shape[2])]
    np.testing.assert_allclose(cost, expected, rtol=1e-12, atol=1e-14)


def test_the_order_is_the_cheapest_of_all_assignments():
    values, steps = RANDOM.standard_normal((30, 1, 1)), ascending(1, 30)
    distances = np.square(values.reshape(-1, 1) - steps)
    chosen = linear_sum_assignment(distances)
    cost, residual = cpu.transport_residual(values, [(1.0, steps)])
    assert cost[0] == pytest.approx(distances[chosen].mean(), rel=1e-13)
    np.testing.assert_allclose(residual.ravel(), values.ravel() - steps[0, chosen[1]], atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighed", [False, True])
def test_the_residual_is_the_derivative(shape, weighed):
    input, steps = RANDOM.standard_normal(shape), ascending(shape[2], 11)
    weights = RANDOM.uniform(0, 2, shape[:2]) if weighed else None
    whole = input[..., 0].size if weights is None else weights.sum()
    _, residual = cpu.transport_residual(input, [(1.0, steps)], weights)
    direction = RANDOM.standard_normal(shape)
    moved, _ = cpu.transport_residual(input + 1j * STEP * direction, [(1.0, steps)], weights)
    np.testing.assert_allclose(
        2 / whole * (residual * direction).sum(axis=(0, 1)), moved.imag / STEP, rtol=1e-11, atol=1e-13
    )


def test_what_has_no_weight_has_no_part():
    input, steps, weights = RANDOM.standard_normal((6, 4, 3)), ascending(3, 5), np.ones((6, 4))
    weights[4:] = 0
    cost, residual = cpu.transport_residual(input, [(1.0, steps)], weights)
    of_seen, residual_of_seen = cpu.transport_residual(np.ascontiguousarray(input[:4]), [(1.0, steps)])
    np.testing.assert_allclose(cost, of_seen, rtol=1e-12)
    np.testing.assert_allclose(residual[:4], residual_of_seen, atol=1e-14)
    assert not residual[4:].any()


def test_of_several_targets_each_has_its_share():
    input, targets = RANDOM.standard_normal((6, 4, 3)), [ascending(3, 5), ascending(3, 7, seed=2)]
    cost, residual = cpu.transport_residual(input, list(zip((0.25, 0.75), targets, strict=True)))
    alone = [cpu.transport_residual(input, [(1.0, target)]) for target in targets]
    np.testing.assert_allclose(cost, 0.25 * alone[0][0] + 0.75 * alone[1][0], rtol=1e-13)
    np.testing.assert_allclose(residual, 0.25 * alone[0][1] + 0.75 * alone[1][1], atol=1e-13)


@pytest.mark.parametrize("positions", [7, 64, 2500])
def test_a_quantile_function_has_the_means_of_equal_parts(positions):
    random, count = np.random.default_rng(positions), min(positions, 64)
    input = random.standard_normal((1, positions, 11))
    found = cpu.quantiles(input, count)
    assert found.shape == (11, count)
    np.testing.assert_allclose(found.mean(axis=1), input.mean(axis=(0, 1)), atol=1e-14)
    weights = random.integers(0, 4, (1, positions))
    for counted in (np.ones((1, positions), int), weights):
        repeated = np.repeat(input[0], counted[0] * count, axis=0)
        expected = np.sort(repeated, axis=0).T.reshape(11, count, -1).mean(axis=2)
        np.testing.assert_allclose(cpu.quantiles(input, count, counted.astype(float)), expected, atol=1e-10)


def test_equal_values_and_any_number_of_threads_give_the_same_bits():
    input, target = np.maximum(RANDOM.standard_normal((40, 50, 21)), 0).astype(np.float32), ascending(21, 64)
    found = [Cpu(count).transport_residual(input, [(1.0, target)]) for count in (1, 2, 3, 2)]
    for cost, residual in found:
        assert cost.tobytes() == found[0][0].tobytes()
        assert residual.tobytes() == found[0][1].tobytes()
    assert len({Cpu(count).quantiles(input, 64).tobytes() for count in (1, 2, 3, 2)}) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_from_a_gpu_it_is_the_same(emulator, dtype):
    input, targets = RANDOM.standard_normal((9, 7, 19)).astype(dtype), [(0.5, ascending(19, 12))] * 2
    weights = RANDOM.uniform(0, 2, (9, 7)).astype(np.float32)
    for counted in (None, weights):
        placed = None if counted is None else to_device(counted)
        cost, residual = cuda.transport_residual(to_device(input), targets, placed)
        expected, of_cpu = cpu.transport_residual(input, targets, counted)
        np.testing.assert_array_equal(cost, expected)
        np.testing.assert_array_equal(to_host(residual), of_cpu)
        np.testing.assert_array_equal(cuda.quantiles(to_device(input), 8, placed), cpu.quantiles(input, 8, counted))
