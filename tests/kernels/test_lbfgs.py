"""L-BFGS's array work on both devices, against its definition: rows, sums, free values, directions and steps."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from kernels import Cpu
from kernels.grids import Grids
from tests.kernels.devices import cpu, cuda, to_device, to_host

LOW, HIGH = 0.0, 255.0
ROWS = 10
# In the order of the coefficients, and with gaps: neither 3 and 4 nor 9 are in use.
LISTED = [0, 2, 6, 8, 1, 5, 7]


@dataclass(frozen=True)
class Case:
    """Two places, the stored vectors before the second, the image's grids, and which values are free."""

    new: Any
    old: Any
    vectors: Any
    grids: Any
    free: Any

    def on(self, place):
        pairs = tuple(map(place, self.new)), tuple(map(place, self.old))
        return Case(*pairs, place(self.vectors), self.grids, place(self.free))


def of_nodes(grids, level):
    """Return the matrix of a level's nodes: its product with an image's values gives theirs."""
    height, width, channels = grids.shape
    side = (1, *grids.sides)[level]
    rows = []
    for y in range(0, height + side - 1, side):
        for x in range(0, width + side - 1, side):
            hat = np.zeros((height, width))
            for line, column in np.ndindex(height, width):
                hat[line, column] = max(1 - abs(line - y) / side, 0) * max(1 - abs(column - x) / side, 0)
            for channel in range(channels):
                row = np.zeros(grids.shape)
                row[..., channel] = hat / np.sqrt(hat.sum())
                rows.append(row.ravel())
    return np.array(rows)


def with_nodes(values, grids):
    """Return rows with their nodes' values, by definition."""
    return np.concatenate([values @ of_nodes(grids, level).T for level in range(len(grids.levels))], axis=-1)


def case(shape=(20, 21, 3), sides=(4, 8), seed=0):
    """Return a case with a third of the values at a bound; the rows that are not in use are not numbers."""
    rng = np.random.default_rng(seed)
    images = [np.clip(rng.uniform(-60, 315, shape), LOW, HIGH) for _ in range(2)]
    gradients = [rng.normal(0, 3, shape) for _ in range(2)]
    grids = Grids(shape, sides)
    vectors = np.full((ROWS, grids.length), np.nan, np.float32)
    vectors[LISTED] = rng.normal(0, 1, (len(LISTED), grids.length))
    free = rng.integers(0, 2, images[0].size).astype(np.uint8)
    return Case((images[0], gradients[0]), (images[1], gradients[1]), vectors, grids, free)


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
@pytest.mark.parametrize("sides", [(), (3,), (4, 8), (32,)])
def test_store(device, rows, sides):
    kernels, place = device
    given = case(sides=sides)
    there = given.on(place)
    output = place(np.zeros(3))
    free = kernels.lbfgs_store(there.new, there.old, there.vectors, given.grids, rows, (LOW, HIGH), output)
    (x, g), (old_x, old_g) = [[array.ravel() for array in one] for one in (given.new, given.old)]
    held = ((x == LOW) & (g >= 0)) | ((x == HIGH) & (g <= 0))
    assert 0.1 < held.mean() < 0.3
    np.testing.assert_array_equal(to_host(free), ~held)
    written = {rows[1]: g * ~held} | ({rows[0]: x - old_x, rows[0] + 1: g - old_g} if rows[0] >= 0 else {})
    found = to_host(there.vectors)
    for row, values in written.items():
        np.testing.assert_array_equal(found[row, : x.size], values.astype(np.float32))
        np.testing.assert_allclose(found[row], with_nodes(values, given.grids), rtol=1e-5, atol=1e-4)
    others = [row for row in range(ROWS) if row not in written]
    np.testing.assert_array_equal(found[others], given.vectors[others])
    largest = abs(np.clip(x - g, LOW, HIGH) - x).max()
    np.testing.assert_allclose(to_host(output), [old_g @ (x - old_x), g @ (x - old_x), largest], rtol=1e-12)


@pytest.mark.parametrize("rows", [(5, 2), (-1, 2)])
@pytest.mark.parametrize("sides", [(), (4, 8)])
def test_products(device, rows, sides):
    kernels, place = device
    given = case(sides=sides)
    grids, there = given.grids, given.on(place)
    output = place(np.full(3 * len(LISTED) * len(grids.levels), np.nan))
    kernels.lbfgs_products(there.vectors, grids, LISTED, rows, output)
    new = [rows[0], rows[0] + 1, rows[1]] if rows[0] >= 0 else [rows[1]] * 3
    wide = given.vectors.astype(np.float64)
    found = to_host(output).reshape(-1, len(LISTED), 3)
    for of_level, level in zip(found, grids.levels, strict=True):
        part = slice(level.start, level.end)
        np.testing.assert_allclose(of_level, wide[LISTED, part] @ wide[new, part].T, rtol=0, atol=1e-4)


def test_the_products_of_a_level_are_those_of_the_means_under_its_hats(device):
    kernels, place = device
    given, rows = case(), (7, 2)
    there, output = given.on(place), place(np.zeros(3))
    kernels.lbfgs_store(there.new, there.old, there.vectors, given.grids, rows, (LOW, HIGH), output)
    products = place(np.zeros(3 * 3 * 3))
    kernels.lbfgs_products(there.vectors, given.grids, [2, 7, 8], rows, products)
    found = to_host(products).reshape(3, 3, 3)
    vectors = to_host(there.vectors)[[2, 7, 8], : given.free.size].astype(np.float64)
    for level in range(3):
        basis = of_nodes(given.grids, level)
        means = vectors @ basis.T @ basis  # the means, at every pixel
        np.testing.assert_allclose(found[level], (vectors @ means.T)[:, [1, 2, 0]], rtol=1e-5, atol=1e-2)


@pytest.mark.parametrize("sides", [(), (3,), (4, 8), (2, 4, 12)])
def test_direction(device, sides):
    kernels, place = device
    given = case(sides=sides)
    grids, there = given.grids, given.on(place)
    factors = np.random.default_rng(3).normal(0, 1, (len(grids.levels), len(LISTED)))
    found = to_host(kernels.lbfgs_direction(there.vectors, grids, LISTED, factors, there.free))
    assert found.dtype == np.float32
    expected = np.zeros(given.free.size)
    for number, level in enumerate(grids.levels):
        expected += factors[number] @ given.vectors[LISTED, level.start : level.end] @ of_nodes(grids, number)
    np.testing.assert_allclose(found, given.free * expected, rtol=0, atol=1e-5)
    assert not found[given.free == 0].any()


@pytest.mark.parametrize("length", [1.0, 0.37])
def test_step(device, length):
    kernels, place = device
    image, direction = case().new[0], 40 * case(sides=()).vectors[0]
    found = kernels.line_step(place(image), place(direction), length, (LOW, HIGH))
    assert kernels.holds(found)
    expected = np.clip(image + length * direction.reshape(image.shape).astype(np.float64), LOW, HIGH)
    np.testing.assert_allclose(to_host(found), expected, rtol=1e-15)


def test_same_bits_at_any_thread_count(monkeypatch):
    monkeypatch.setattr("kernels.cpu.lbfgs._STRIP", 3000)
    results = []
    for kernels in (Cpu(1), Cpu(2), Cpu(5)):
        given = case((60, 50, 3))
        grids, numbers = given.grids, np.zeros(3 + 3 * 3 * len(LISTED))
        free = kernels.lbfgs_store(given.new, given.old, given.vectors, grids, (7, 2), (LOW, HIGH), numbers[:3])
        kernels.lbfgs_products(given.vectors, grids, LISTED, (7, 2), numbers[3:])
        factors = np.arange(21.0).reshape(3, 7)
        direction = kernels.lbfgs_direction(given.vectors, grids, LISTED, factors, free)
        image = kernels.line_step(given.new[0], direction, 0.5, (LOW, HIGH))
        results.append([array.tobytes() for array in (numbers, free, given.vectors, direction, image)])
    assert results[0] == results[1] == results[2]


def test_what_is_coarse_in_a_direction_has_no_edges():
    """Between the nodes it is interpolated: a step from pixel to pixel is a side's part of that from node to node."""
    grids = Grids((64, 96, 3), (8, 32))
    vectors = np.random.default_rng(0).normal(0, 1, (1, grids.length)).astype(np.float32)
    for factors, side in (([[0.0], [1.0], [0.0]], 8), ([[0.0], [0.0], [1.0]], 32)):
        found = cpu.lbfgs_direction(vectors, grids, [0], np.array(factors), np.ones(grids.size, np.uint8))
        coarse = found.reshape(grids.shape)
        steps = np.abs(np.diff(coarse, axis=1)).max()
        assert 0 < steps <= np.ptp(coarse[:, ::side]) / side * 1.001
