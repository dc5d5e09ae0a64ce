"""An image's blocks: squares of pixels and, of those, squares again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Level:
    """A level of blocks: where it lies in a row, and its values' (height, width, channels)."""

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
class Blocks:
    """How a row holds a vector: first the values of the image's pixels, then a value of each block and channel.

    A block's value is the sum over its pixels, divided by the root of their number: an orthonormal basis of what is
    constant within blocks. So with M v the vector of the means over blocks, spread over their pixels again, the inner
    product <a, M b> is that of the blocks' values.

    Parameters
    ----------
    shape : of the image, (H, W, C); any other where there are no blocks.
    sides : of the blocks in pixels, from small to large, each a multiple of the one before. Those at the right and
        lower edges may be cut off.
    """

    shape: tuple[int, ...]
    sides: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many values the image has."""
        return math.prod(self.shape)

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The pixels, and the blocks of each side."""
        levels = [Level(0, self.shape)]
        for side in self.sides:
            height, width, channels = self.shape
            levels.append(Level(levels[-1].end, (-(-height // side), -(-width // side), channels)))
        return tuple(levels)

    @property
    def length(self) -> int:
        """How long a row is."""
        return self.levels[-1].end

    def step(self, level: int) -> int:
        """Return how many of the level below lie side by side in a block."""
        sides = (1, *self.sides)
        return sides[level] // sides[level - 1]

    def roots(self, level: int) -> NDArray[np.float32]:
        """Return the root of the number of pixels of each of a level's blocks, (height, width, 1)."""
        side = (1, *self.sides)[level]
        height, width = (np.diff(np.append(np.arange(0, length, side), length)) for length in self.shape[:2])
        return np.sqrt(np.outer(height, width))[..., None].astype(np.float32)
