"""An image seen coarsely: grids of nodes, each with the mean of what lies around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Level:
    """A grid: where it lies in a row, and its values' (height, width, channels)."""

    start: int
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """Where it ends in a row."""
        return self.start + self.values


@dataclass(frozen=True)
class Grids:
    """How a row holds a vector: first the values of the image's pixels, then a value of each grid's nodes and channels.

    The nodes of a grid lie ``side`` pixels apart, the first at the image's corner and the last at its other edges or
    beyond. To a node belongs a hat: 1 there, falling to 0 at the neighboring nodes, linearly along rows and columns. So
    hats add up to 1 at every pixel, what has values at the nodes is interpolated between them without an edge, and the
    hats of one grid are sums of those of the grid below.

    A node's value is the sum of the pixels under its hat, each times the hat, divided by the root of the hat's own sum.
    With M v the vector in which each node has the mean under its hat, interpolated to the pixels, the inner product
    <a, M b> is then that of the nodes' values. M is symmetric, leaves a constant as it is and makes no vector longer;
    and of two grids <a, M a> is no larger for the coarser one.

    Parameters
    ----------
    shape : of the image, (H, W, C); any other where there are no grids.
    sides : from node to node in pixels, from small to large, each a multiple of the one before.
    """

    shape: tuple[int, ...]
    sides: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many values the image has."""
        return math.prod(self.shape)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The pixels, and the grids."""
        levels = [Level(0, self.shape)]
        for side in self.sides:
            height, width, channels = self.shape
            levels.append(Level(levels[-1].end, (nodes(height, side), nodes(width, side), channels)))
        return tuple(levels)

    @property
    def length(self) -> int:
        """How long a row is."""
        return self.levels[-1].end

    def step(self, level: int) -> int:
        """Return how many of the level below lie from one node to the next."""
        sides = (1, *self.sides)
        return sides[level] // sides[level - 1]

    def roots(self, level: int) -> Weights:
        """Return the root of the sum of each hat of a level, (height, width, 1)."""
        side = (1, *self.sides)[level]
        down, across = (_sums(length, side) for length in self.shape[:2])
        return np.sqrt(np.outer(down, across))[..., None].astype(np.float32)


def nodes(length: int, side: int) -> int:
    """Return how many nodes a row of pixels has."""
    return -(-(length - 1) // side) + 1


def hats(first: int, count: int, step: int) -> Weights:
    """Return what the hats are at some of the level below, (count, nodes): those that stand there, and the next.

    Parameters
    ----------
    first, count : which; the first node is that at ``first``, or the last before it.
    step : from node to node.
    """
    places = np.arange(first, first + count)[:, None] / step
    standing = np.arange(first // step, nodes(first + count, step))
    return np.maximum(1 - np.abs(places - standing), 0).astype(np.float32)


def _sums(length: int, side: int) -> NDArray[np.float64]:
    """Return the sum of each hat along a row of pixels."""
    places = side * np.arange(nodes(length, side))[:, None] + np.arange(1 - side, side)
    falling = 1 - np.abs(np.arange(1 - side, side)) / side
    sums: NDArray[np.float64] = ((places >= 0) & (places < length)) @ falling
    return sums
