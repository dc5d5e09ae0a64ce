"""Brush strokes that follow a flow: a picture goes in, a painting of it comes out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.drawing.fields import Field, blur

_CHUNK = 3_000_000
"""How many points of strokes are held in memory at once."""


@dataclass(frozen=True)
class Brush:
    """A brush and how it is used; lengths in pixels.

    Attributes
    ----------
    width, length : of a stroke.
    cover : how often, on average, a place is painted over.
    variety : how much the colour changes from stroke to stroke (about this much in sRGB values).
    bristle : how strongly single bristles show.
    """

    width: float
    length: float
    cover: float
    variety: float = 0.05
    bristle: float = 0.09


@dataclass(frozen=True, eq=False)
class Canvas:
    """What has been painted so far.

    Attributes
    ----------
    colors : shape (H, W, 3), sRGB from 0 to 1.
    relief : shape (H, W), thickness of the paint in pixels.
    """

    colors: Field
    relief: Field


def paint(
    canvas: Canvas, picture: Field, angle: Field, brush: Brush, random: np.random.Generator, where: Field | None = None
) -> Canvas:
    """Return the canvas with one more layer of strokes.

    Parameters
    ----------
    canvas : as large as ``picture``, or a whole number of times as large.
    picture : shape (H, W, 3), sRGB: the strokes take their colours from it.
    angle : shape (H, W), radians; direction of the strokes, 0 to the right and pi / 2 downwards.
    brush : the brush of this layer; its lengths are in pixels of the canvas.
    where : shape (H, W), 0 to 1: the chance that a stroke which begins here is made; everywhere by default.
    """
    height, width = canvas.relief.shape
    times = height // angle.shape[0]
    count = max(8, round(brush.cover * height * width / (brush.width * brush.length)))
    middle = random.uniform(0, 1, (count, 2)).astype(np.float32) * np.array([height, width], np.float32)
    if where is not None:
        chance = where[_cells(middle, times, where)]
        middle = middle[random.uniform(0, 1, count) < chance]
    tone = picture[_cells(middle, times, angle)]
    colors, relief = canvas.colors.reshape(-1, 3).copy(), canvas.relief.ravel().copy()
    chunk = max(1, int(_CHUNK / (2 * brush.width * brush.length)))
    for start in range(0, len(middle), chunk):
        part = slice(start, start + chunk)
        _strokes(colors, relief, (height, width), middle[part], tone[part], angle, brush, random)
    return Canvas(colors.reshape(height, width, 3), relief.reshape(height, width))


def lit(canvas: Canvas, strength: float = 0.1) -> Field:
    """Return the canvas's colours, shape (H, W, 3), as they look in light from the upper left."""
    relief = blur(canvas.relief, 1)
    down, right = np.gradient(relief)
    shade: Field = np.asarray(np.clip(-(down + right) * strength, -0.22, 0.22))[..., None]
    result: Field = np.clip(canvas.colors * (1 + shade) + np.maximum(shade, 0) * 0.25, 0, 1)
    return result


def along(angle: Field, values: Field, steps: int, length: float = 1.0) -> Field:
    """Return values, shape (H, W), averaged along the flow, ``steps`` steps of ``length`` pixels to either side.

    Source: Cabral and Leedom, "Imaging vector fields using line integral convolution" (1993), with Euler steps.
    """
    height, width = angle.shape
    cosine, sine = np.cos(angle).ravel(), np.sin(angle).ravel()
    flat = values.ravel()
    total = flat.copy()
    for sign in (-length, length):
        y, x = (part.astype(np.float32).ravel() for part in np.indices(angle.shape))
        place = np.arange(flat.size)
        for _ in range(steps):
            x += np.float32(sign) * cosine[place]
            y += np.float32(sign) * sine[place]
            np.clip(x, 0, width - 1, out=x)
            np.clip(y, 0, height - 1, out=y)
            place = (y + 0.5).astype(np.int32) * width + (x + 0.5).astype(np.int32)
            total += flat[place]
    result: Field = (total / (2 * steps + 1)).reshape(angle.shape)
    return result


def _strokes(
    colors: Field,
    relief: Field,
    size: tuple[int, int],
    middle: Field,
    tone: Field,
    angle: Field,
    brush: Brush,
    random: np.random.Generator,
) -> None:
    """Paint strokes, the later over the earlier, into ``colors``, shape (H * W, 3), and ``relief``, shape (H * W,)."""
    height, width = size
    count = len(middle)
    # Dense enough to leave no hole where a stroke bends.
    steps = max(4, round(brush.length / 0.8))
    hairs = max(3, round(brush.width / 0.7))
    path, heading = _paths(middle, angle, height // angle.shape[0], steps, brush.length / steps, random)
    s = np.linspace(-1, 1, steps, dtype=np.float32)
    t = np.linspace(-1, 1, hairs, dtype=np.float32)
    radius = (brush.width / 2 * random.uniform(0.7, 1.15, count)).astype(np.float32)
    half = radius[:, None] * np.sqrt(1 - 0.75 * s**6)
    offset = half[:, :, None] * t
    y = path[:, :, 0, None] + offset * np.cos(heading)[..., None]
    x = path[:, :, 1, None] - offset * np.sin(heading)[..., None]
    # Each hair leaves the canvas at another place: ragged ends.
    begin = -1 + random.uniform(0, 0.28, (count, 1, hairs)).astype(np.float32) ** 1.5
    end = 1 - random.uniform(0, 0.5, (count, 1, hairs)).astype(np.float32) ** 1.5
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    inside &= (s[:, None] >= begin) & (s[:, None] <= end)
    pixel = np.where(inside, y.astype(np.int32) * width + x.astype(np.int32), height * width)
    # Only what stays visible is worth a colour: an integer tells, for each pixel, the point that covers it last.
    top = np.full(height * width + 1, -1, np.int32)
    top[pixel.ravel()] = np.arange(pixel.size, dtype=np.int32)
    painted = np.flatnonzero(top[:-1] >= 0)
    point = top[painted]
    stroke, step, hair = point // (steps * hairs), point // hairs % steps, point % hairs

    streaks = random.standard_normal((count, hairs + 2)).astype(np.float32)
    streaks = (streaks[:, :-2] + 2 * streaks[:, 1:-1] + streaks[:, 2:]) / np.float32(np.sqrt(6))
    streak = streaks[stroke, hair]
    across = t[hair]
    # The brush picked up two colours, one at each side, and runs dry.
    shift = random.normal(0, brush.variety, (count, 1)) + random.normal(0, brush.variety * 0.7, (count, 3))
    slant = random.normal(0, brush.variety * 0.5, (count, 3))
    paint_color = (tone + shift)[stroke] + slant[stroke] * across[:, None]
    paint_color *= (1 + brush.bristle * streak * (0.7 + 0.3 * s[step]))[:, None]
    colors[painted] = np.clip(paint_color, 0, 1)
    thickness = np.float32(min(brush.width * 0.16, 2.4))
    body = 0.75 + 0.3 * across**4 - 0.5 * across**12 + 0.22 * streak
    relief[painted] = thickness * (body - 0.2 * s[step]) + 0.35 * relief[painted]


def _paths(
    middle: Field, angle: Field, times: int, steps: int, step: float, random: np.random.Generator
) -> tuple[Field, Field]:
    """Return the strokes' spines, shape (count, steps, 2) in pixels (y, x), and their directions, (count, steps)."""
    count = len(middle)
    path = np.empty((count, steps, 2), np.float32)
    heading = np.empty((count, steps), np.float32)
    # A hand is not a ruler.
    turn = random.normal(0, 0.08, count).astype(np.float32)
    half = steps // 2
    for sign, order in ((1, range(half, steps)), (-1, range(half - 1, -1, -1))):
        place = middle.copy()
        for k in order:
            direction = angle[_cells(place, times, angle)] + turn
            ahead = np.float32(sign * step) * np.stack([np.sin(direction), np.cos(direction)], axis=1)
            if sign < 0:
                place = place + ahead
            path[:, k], heading[:, k] = place, direction
            if sign > 0:
                place = place + ahead
    return path, heading


def _cells(places: Field, times: int, field: Field) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return row and column of a field for places, shape (n, 2), on a canvas ``times`` as large; edges go on."""
    height, width = field.shape[:2]
    row = np.clip(places[:, 0] / times, 0, height - 1).astype(np.int32)
    column = np.clip(places[:, 1] / times, 0, width - 1).astype(np.int32)
    return row, column
