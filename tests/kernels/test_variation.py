"""Total variation: equal to its definition on both devices, its gradient the derivative, whole at any cut."""

import numpy as np
import pytest

from kernels import Cpu
from tests.kernels.devices import cpu, cuda, to_host

SHAPES = [(7, 9, 3), (1, 6, 3), (5, 1, 3), (1, 1, 3), (40, 31, 3)]
EPSILONS = [None, 1.0, 0.1]
WRAPS = [False, True]
STEP = 1e-30


def image(shape, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, shape)


def by_loops(values, epsilon, wrap):
    """The sum, step by step."""
    height, width, channels = values.shape
    total = 0.0
    for y, x, c in np.ndindex(height, width, channels):
        down = values[(y + 1) % height, x, c] - values[y, x, c] if wrap or y + 1 < height else 0.0
        along = values[y, (x + 1) % width, c] - values[y, x, c] if wrap or x + 1 < width else 0.0
        squares = down * down + along * along
        total += squares / 2 if epsilon is None else np.sqrt(squares + epsilon**2) - epsilon
    return total


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_its_definition(shape, epsilon, wrap):
    values = image(shape)
    found = cpu.variation(values, 2.0, epsilon, wrap=wrap)
    assert found == pytest.approx(by_loops(values, epsilon, wrap) / 2, rel=1e-13)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_the_derivative(shape, epsilon, wrap):
    values, gradient = image(shape), cpu.variation_gradient(image(shape), 1.0, epsilon, wrap=wrap)
    for direction in np.random.default_rng(1).standard_normal((3, *shape)):
        derivative = cpu.variation(values + 1j * STEP * direction, 1.0, epsilon, wrap=wrap).imag / STEP
        size = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(np.vdot(gradient, direction) - derivative) <= 1e-14 * size


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_a_tile_has_the_same_wherever_it_begins(epsilon):
    values = image((7, 9, 3))
    rolled = np.roll(values, (3, 4), (0, 1))
    one, other = (cpu.variation(tile, 1.0, epsilon, wrap=True) for tile in (values, rolled))
    assert one == pytest.approx(other, rel=1e-14)
    one, other = (cpu.variation_gradient(tile, 1.0, epsilon, wrap=True) for tile in (values, rolled))
    np.testing.assert_allclose(np.roll(one, (3, 4), (0, 1)), other, rtol=1e-12, atol=1e-12)


def test_one_color_has_none():
    flat = np.full((6, 5, 3), 77.0)
    for epsilon in EPSILONS:
        assert cpu.variation(flat, 1.0, epsilon) == 0
        assert not cpu.variation_gradient(flat, 1.0, epsilon).any()


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_gradient_is_added_in_place_where_asked(epsilon):
    values, there = image((7, 9, 3)), image((7, 9, 3), 1)
    expected = there + 0.5 * cpu.variation_gradient(values, 1.0, epsilon)
    assert cpu.variation_gradient(values, 0.5, epsilon, add_to=there) is there
    np.testing.assert_allclose(there, expected, rtol=1e-14)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_same_bits_at_any_thread_count_and_the_same_at_any_cut(epsilon, wrap, monkeypatch):
    values = image((61, 20, 3))
    whole = cpu.variation_gradient(values, 1.0, epsilon, wrap=wrap)
    for strip in (60, 240, 100000):
        monkeypatch.setattr("kernels.cpu.variation._STRIP", strip)
        found = {
            (
                device.variation(values, 1.0, epsilon, wrap=wrap),
                device.variation_gradient(values, 1.0, epsilon, wrap=wrap).tobytes(),
            )
            for device in map(Cpu, (1, 2, 5))
        }
        assert len(found) == 1
        np.testing.assert_array_equal(cpu.variation_gradient(values, 1.0, epsilon, wrap=wrap), whole)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("descending", [False, True])
def test_on_a_gpu_it_is_the_same(emulator, shape, epsilon, descending, wrap):
    emulator.descending = descending
    values, there, how = image(shape), image(shape, 1), {"epsilon": epsilon, "wrap": wrap}
    (found,) = cuda.numbers([cuda.variation(cuda.put(values), 3.0, **how)])
    assert found == pytest.approx(cpu.variation(values, 3.0, **how), rel=1e-13)
    target = cuda.put(there)
    assert cuda.variation_gradient(cuda.put(values), 0.5, **how, add_to=target) is target
    for result, start in ((target, there), (cuda.variation_gradient(cuda.put(values), 0.5, **how), 0.0)):
        expected = start + cpu.variation_gradient(values, 0.5, **how)
        np.testing.assert_allclose(to_host(result), expected, rtol=1e-12, atol=1e-11)
