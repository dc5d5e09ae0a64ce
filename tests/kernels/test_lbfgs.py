"""L-BFGS's array work on both devices, against its definition: rows, sums, free values, directions and steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from kernels import Cpu
from tests.kernels.devices import cpu, cuda, to_device, to_host

LOW, HIGH = 0.0, 255.0
ROWS = 10
# In the order of the coefficients, and with gaps: neither 3 and 4 nor 9 are in use.
LISTED = [0, 2, 6, 8, 1, 5, 7]


@dataclass(frozen=True)
class Case:
    """Two places, the stored vectors before the second, and which values were free at the first."""

    new: Any
    old: Any
    vectors: Any
    free: Any

    def on(self, place):
        return Case(tuple(map(place, self.new)), tuple(map(place, self.old)), place(self.vectors), place(self.free))


def case(shape=(20, 21, 3), seed=0):
    """Return a case with a third of the values at a bound; the rows that are not in use are not numbers."""
    rng = np.random.default_rng(seed)
    images = [np.clip(rng.uniform(-60, 315, shape), LOW, HIGH) for _ in range(2)]
    gradients = [rng.normal(0, 3, shape) for _ in range(2)]
    vectors = np.full((ROWS, images[0].size), np.nan, np.float32)
    vectors[LISTED] = rng.normal(0, 1, (len(LISTED), images[0].size))
    free = rng.integers(0, 2, images[0].size).astype(np.uint8)
    return Case((images[0], gradients[0]), (images[1], gradients[1]), vectors, free)


@pytest.fixture(params=["cpu", "cpu, threads", pytest.param("cuda", marks=pytest.mark.slow)])
def device(request, monkeypatch):
    """Return the kernels and what puts an array there; on the CPU with many short strips."""
    if request.param == "cuda":
        request.getfixturevalue("emulator")
        return cuda, to_device
    monkeypatch.setattr("kernels.cpu.lbfgs._STRIP", 100)
    monkeypatch.setattr("kernels.cpu.lbfgs._PIECE", 16)
    return Cpu(3) if request.param == "cpu, threads" else cpu, np.copy


@pytest.mark.parametrize("rows", [(7, 2), (-1, 0)])
@pytest.mark.parametrize("all_were_free", [False, True])
def test_store(device, rows, all_were_free):
    kernels, place = device
    given = case()
    there = given.on(place)
    output = place(np.zeros(3))
    was_free = None if all_were_free else there.free
    free, changed = kernels.lbfgs_store(there.new, there.old, there.vectors, was_free, rows, (LOW, HIGH), output)
    (x, g), (old_x, old_g) = [[array.ravel() for array in one] for one in (given.new, given.old)]
    expected = given.vectors.copy()
    expected[rows[1]] = g
    if rows[0] >= 0:
        expected[rows[0]], expected[rows[0] + 1] = x - old_x, g - old_g
    np.testing.assert_array_equal(to_host(there.vectors), expected)
    held = ((x == LOW) & (g >= 0)) | ((x == HIGH) & (g <= 0))
    assert 0.1 < held.mean() < 0.3
    np.testing.assert_array_equal(to_host(free), ~held)
    of_old = np.ones(x.size, np.uint8) if all_were_free else given.free
    assert to_host(changed).dtype == np.uint8
    np.testing.assert_array_equal(to_host(changed).view(np.int8), np.int8(~held) - np.int8(of_old))
    largest = abs(np.clip(x - g, LOW, HIGH) - x).max()
    np.testing.assert_allclose(to_host(output), [old_g @ (x - old_x), g @ (x - old_x), largest], rtol=1e-12)


@pytest.mark.parametrize("rows", [(5, 2), (-1, 2)])
def test_products(device, rows):
    kernels, place = device
    given, changed = case(), case(seed=1).free * np.uint8(255)
    changed[::3] = 1
    there, count = given.on(place), len(LISTED)
    output = place(np.full(5 * count + count**2, np.nan))
    kernels.lbfgs_products(there.vectors, LISTED, there.free, place(changed), rows, output)
    wide = given.vectors[LISTED].astype(np.float64)
    new = given.vectors[[rows[0], rows[0] + 1] if rows[0] >= 0 else [rows[1]] * 2].astype(np.float64)
    gradient = given.vectors[rows[1]].astype(np.float64)
    found = to_host(output)
    expected = np.concatenate([wide @ new.T, wide @ (given.free * [*new, gradient]).T], axis=1)
    np.testing.assert_allclose(found[: 5 * count].reshape(count, 5), expected, rtol=0, atol=1e-4)
    change = (wide * changed.view(np.int8)) @ wide.T
    np.testing.assert_allclose(found[5 * count :].reshape(count, count), change, rtol=0, atol=1e-4)


def test_direction(device):
    kernels, place = device
    given, factors = case(), np.linspace(-2, 3, len(LISTED))
    given.vectors[[row for row in range(len(given.vectors)) if row not in LISTED]] = np.nan  # as new memory may be
    there = given.on(place)
    found = to_host(kernels.lbfgs_direction(there.vectors, LISTED, factors, there.free))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, given.free * (factors @ given.vectors[LISTED]), rtol=0, atol=1e-5)
    assert not found[given.free == 0].any()


@pytest.mark.parametrize("length", [1.0, 0.37])
def test_step(device, length):
    kernels, place = device
    image, direction = case().new[0], 40 * case().vectors[0]
    found = kernels.line_step(place(image), place(direction), length, (LOW, HIGH))
    assert kernels.holds(found)
    expected = np.clip(image + length * direction.reshape(image.shape).astype(np.float64), LOW, HIGH)
    np.testing.assert_allclose(to_host(found), expected, rtol=1e-15)


def test_same_bits_at_any_thread_count(monkeypatch):
    monkeypatch.setattr("kernels.cpu.lbfgs._STRIP", 3000)
    results = []
    for kernels in (Cpu(1), Cpu(2), Cpu(5)):
        given, count = case((60, 50, 3)), len(LISTED)
        numbers = np.zeros(3 + 5 * count + count**2)
        free, changed = kernels.lbfgs_store(
            given.new, given.old, given.vectors, given.free, (7, 2), (LOW, HIGH), numbers[:3]
        )
        kernels.lbfgs_products(given.vectors, LISTED, free, changed, (7, 2), numbers[3:])
        direction = kernels.lbfgs_direction(given.vectors, LISTED, np.arange(7.0), free)
        image = kernels.line_step(given.new[0], direction, 0.5, (LOW, HIGH))
        results.append([array.tobytes() for array in (numbers, free, changed, given.vectors, direction, image)])
    assert results[0] == results[1] == results[2]
