"""An abstract painting: flat planes in black outlines, some of them hatched or checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tools.drawing.colors import colors, mix, to_bytes
from tools.drawing.fields import Field, check_size, fractal, grid, shrink

_OVERSAMPLING = 2

# Light to dark, and last the outlines' black.
_PALETTES = (
    ("f5ead3", "f2b91d", "e4572e", "2f6fb5", "86bcc6", "1c2f52", "14110f"),
    ("f6ecd8", "edb345", "cb402e", "2a7f78", "e8a08c", "243b63", "15120f"),
    ("f3e7cf", "f0c33c", "d9482b", "47739e", "b5c7a0", "5a2438", "12100e"),
    ("f4ecdc", "f4a72c", "2c8c99", "d6403a", "f2c9b4", "2b2a56", "131013"),
)
# The plain ones and a pattern.
_PAINTS = 7
_LINE = 0.014


def shapes(height: int = 480, width: int = 640, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return an abstract painting of bold flat shapes, uint8, shape (height, width, 3).

    Parameters
    ----------
    height, width : in pixels, at least 64 each.
    seed : another one gives other shapes and colours; the same one the same bits.
    """
    check_size(height, width)
    random = np.random.default_rng([seed, 3])
    y, x = grid(height * _OVERSAMPLING, width * _OVERSAMPLING)
    # From the middle, half of the long side is 1.
    half = max(height, width) / height / 2
    y, x = (y - 0.5) / half, (x - width / height / 2) / half
    wood = fractal(random, (y + 1) * 3, (x + 1) * 3, 5) * 0.009 + fractal(random, (y + 1) * 70, (x + 1) * 70, 2) * 0.006
    # Hands draw no perfect lines.
    tremble = [0.0028 * fractal(random, (y + 1) * 5, (x + 1) * 5, 3) for _ in range(2)]
    palette = colors(*_PALETTES[random.integers(len(_PALETTES))])
    board = _Board(
        y + tremble[0], x + tremble[1], float(y[1, 0] - y[0, 0]), palette, np.zeros((*wood.shape, 3), np.float32)
    )
    top, right = float(-y[0, 0]), float(-x[0, 0])
    board = _partitioned(board, top, right, random)
    board = _with_motifs(board, top, right, random)
    return to_bytes(shrink(np.clip(board.picture + wood[..., None], 0, 1), _OVERSAMPLING))


@dataclass(frozen=True, eq=False)
class _Board:
    """The painting so far; a shape on it is an array (H, W): the distance from its outline, negative inside.

    Attributes
    ----------
    y, x : shape (H, W), coordinates of the pixels.
    pixel : their distance from each other.
    palette : shape (7, 3), sRGB from 0 to 1, the last for the outlines.
    picture : shape (H, W, 3), sRGB from 0 to 1.
    """

    y: Field
    x: Field
    pixel: float
    palette: Field
    picture: Field

    def filled(self, shape: Field, paint: Field) -> _Board:
        """Return the board with a shape filled with a colour, shape (3,), or colours, shape (H, W, 3)."""
        return replace(self, picture=mix(self.picture, paint, self.cover(-shape)))

    def outlined(self, shape: Field, width: float = _LINE) -> _Board:
        """Return the board with the outline of a shape."""
        return replace(self, picture=mix(self.picture, self.palette[-1], self.cover(width / 2 - np.abs(shape))))

    def cover(self, inside: Field) -> Field:
        """Return how much of each pixel is where ``inside`` is positive, 0 to 1."""
        result: Field = np.clip(0.5 + inside / self.pixel, 0, 1)
        return result

    def turned(self, at: tuple[float, float], angle: float) -> tuple[Field, Field]:
        """Return coordinates (v, u) around a point (y, x), u along ``angle`` and v across it."""
        dy, dx = self.y - at[0], self.x - at[1]
        return dy * math.cos(angle) - dx * math.sin(angle), dx * math.cos(angle) + dy * math.sin(angle)


def _wave(values: Field, period: float) -> Field:
    """Return a triangle wave of slope 1 through 0 with amplitude ``period`` / 4."""
    phase = values / period
    phase = phase - np.floor(phase)
    result: Field = period * (0.25 - np.abs(phase - 0.5))
    return result


def _partitioned(board: _Board, top: float, right: float, random: np.random.Generator) -> _Board:
    """Return the board cut into planes by shapes that overlap, each plane painted flat, and all outlines.

    A plane is known by the set of shapes that it lies in. Each shape has a number that is not 0; the sum of those of a
    plane, modulo a prime number of paints, is its paint. Two planes that touch along a line differ by one shape, and
    so never have the same paint.
    """
    cuts = _cuts(board, top, right, random)
    numbers = random.permutation([1, 2, 3, 4, 5, 6, 1, 3, 5, 2, 4, 6])[: len(cuts)]
    inside = [np.where(shape < 0, number, 0) for shape, number in zip(cuts, numbers, strict=True)]
    paint = (np.sum(inside, axis=0) + random.integers(_PAINTS)) % _PAINTS
    pattern = _pattern(board, random)
    plain = board.palette[np.minimum(paint, _PAINTS - 2)]
    board = replace(board, picture=np.where((paint == _PAINTS - 1)[..., None], pattern, plain).astype(np.float32))
    for shape in cuts:
        board = board.outlined(shape)
    return board


def _pattern(board: _Board, random: np.random.Generator) -> Field:
    """Return lines, checks or dots in two colours over the whole board, shape (H, W, 3)."""
    ink, paper = ((5, 0), (6, 1), (2, 4), (3, 0), (6, 0))[random.integers(5)]
    v, u = board.turned((0, 0), random.uniform(0, math.pi))
    kind = random.integers(3)
    if kind == 0:  # lines
        shape = np.abs(_wave(v, 0.042)) - 0.0058
    elif kind == 1:  # a chessboard: 0 on all edges, and of slope 1 across each but for the corners
        a, b = _wave(v, 0.12), _wave(u, 0.12)
        shape = np.sign(a * b) * np.minimum(np.abs(a), np.abs(b))
    else:
        a, b = v / 0.075, u / 0.075
        shape = 0.020 - 0.075 * np.hypot(a - np.rint(a), b - np.rint(b))
    return mix(board.palette[paper], board.palette[ink], board.cover(shape))


def _cuts(board: _Board, top: float, right: float, random: np.random.Generator) -> list[Field]:
    """Return shapes that together leave no large part of the board whole."""
    cuts: list[Field] = []
    lean = random.choice([-1, 1])
    # Two long bands or lines give the direction, a wave answers them.
    angle = lean * random.uniform(0.5, 0.95)
    v, _ = board.turned((random.uniform(-0.15, 0.15) * top, random.uniform(-0.3, 0.3) * right), angle)
    cuts.append(v)
    v, u = board.turned((0, lean * random.uniform(0.3, 0.6) * right), -lean * random.uniform(0.9, 1.3))
    cuts.append(np.abs(v + 0.08 * u * u) - random.uniform(0.07, 0.12))
    swing, pace = random.uniform(0.1, 0.18), random.uniform(3.2, 4.8)
    phase = random.uniform(0, 2 * math.pi)
    v, u = board.turned((random.uniform(0.2, 0.4) * top, 0), random.uniform(-0.2, 0.2))
    cuts.append((v - swing * np.sin(pace * u + phase)) / np.sqrt(1 + (swing * pace * np.cos(pace * u + phase)) ** 2))
    # One large shape to each part of the board, in an order of its own.
    places = [(-0.45, -0.6), (-0.35, 0.5), (0.5, -0.15), (0.45, 0.65), (0.0, 0.05), (0.35, -0.75)]
    kinds = random.permutation(6)
    for (down, across), kind in zip(places, kinds, strict=True):
        at = (
            (down + random.uniform(-0.15, 0.15)) * top,
            (across + random.uniform(-0.12, 0.12)) * right * lean,
        )
        cuts.append(_shape(board, int(kind), at, random))
    return cuts


def _shape(board: _Board, kind: int, at: tuple[float, float], random: np.random.Generator) -> Field:
    """Return one of six closed shapes around a point (y, x)."""
    angle = random.uniform(0, 2 * math.pi)
    v, u = board.turned(at, angle)
    size = random.uniform(0.85, 1.15)
    shape: Field
    if kind == 0:  # a large disc
        shape = np.hypot(v, u) - 0.36 * size
    elif kind == 1:  # a half disc
        shape = np.maximum(np.hypot(v, u) - 0.33 * size, v)
    elif kind == 2:  # a board with rounded corners
        dv, du = np.abs(v) - 0.13 * size, np.abs(u) - 0.36 * size
        shape = np.hypot(np.maximum(dv, 0), np.maximum(du, 0)) + np.minimum(np.maximum(dv, du), 0) - 0.03
    elif kind == 3:  # a triangle
        sides = [v * math.cos(turn) + u * math.sin(turn) for turn in (0, 2.2, -2.2)]
        shape = np.maximum(np.maximum(sides[0], sides[1]), sides[2]) - 0.17 * size
    elif kind == 4:  # the body of a guitar: two discs with a waist
        first, second = np.hypot(v, u - 0.2 * size) - 0.17 * size, np.hypot(v, u + 0.16 * size) - 0.24 * size
        melt = np.clip(0.5 + (second - first) / 0.24, 0, 1)
        shape = second + (first - second) * melt - 0.12 * melt * (1 - melt)
    else:  # a crescent
        shape = np.maximum(np.hypot(v, u) - 0.3 * size, 0.24 * size - np.hypot(v - 0.13 * size, u))
    return shape


def _with_motifs(board: _Board, top: float, right: float, random: np.random.Generator) -> _Board:
    """Return the board with some small, complete things on top: four of rings, a ladder, a chessboard, a fan, discs."""
    places = random.permutation([(-0.55, 0.1), (0.55, 0.25), (-0.1, -0.62), (0.1, 0.7)])
    mirror = random.choice([-1, 1])
    for (down, across), kind in zip(places, random.permutation(5), strict=False):
        at = (
            float(down + random.uniform(-0.1, 0.1)) * top,
            float(across + random.uniform(-0.08, 0.08)) * right * mirror,
        )
        board = _with_motif(board, int(kind), at, random)
    return board


def _with_motif(board: _Board, kind: int, at: tuple[float, float], random: np.random.Generator) -> _Board:
    """Return the board with one of five things around a point (y, x)."""
    light, black = board.palette[0], board.palette[-1]
    v, u = board.turned(at, random.uniform(0, 2 * math.pi))
    one, two, three = (board.palette[k] for k in random.permutation(6)[:3])
    if kind == 0:  # rings around a disc
        for radius, paint in ((0.17, one), (0.12, two), (0.065, three)):
            disc = np.hypot(v, u) - radius
            board = board.filled(disc, paint).outlined(disc)
        return board
    if kind == 1:  # a ladder
        body = np.maximum(np.abs(v) - 0.055, np.abs(u) - 0.3)
        return board.filled(body, light).filled(np.maximum(body, -_wave(u, 0.11)), black).outlined(body)
    if kind == 2:  # a chessboard in perspective
        half = 0.1 + 0.18 * u
        body = np.maximum(np.abs(v) - half, np.abs(u) - 0.2)
        squares = _wave(v / half * 0.1, 0.1) * np.sign(_wave(u, 0.133))
        return board.filled(body, light).filled(np.maximum(body, squares), black).outlined(body)
    if kind == 3:  # a fan of rays
        distance = np.hypot(v, u)
        body = np.maximum(distance - 0.24, np.abs(v) - u * 1.3)
        rays, handle = _wave(np.arctan2(v, u), 0.46) * distance, np.maximum(distance - 0.07, body)
        board = board.filled(body, one).filled(np.maximum(body, -rays), two).filled(handle, three)
        return board.outlined(handle).outlined(body)
    for place, radius, paint in ((-0.16, 0.07, one), (0.0, 0.05, two), (0.11, 0.032, three)):  # discs in a row
        disc = np.hypot(v, u - place) - radius
        board = board.filled(disc, paint).outlined(disc)
    return board
