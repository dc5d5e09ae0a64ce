"""Dots of pure colour on canvas: a picture goes in, a painting that mixes to it in the eye comes out.

Source: what Paul Signac laid down in "D'Eugène Delacroix au néo-impressionnisme" (1899): pure pigments, divided,
side by side, their size in proportion to the painting's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tools.drawing.colors import color, colors, mix
from tools.drawing.fields import Field, blur, fractal, grid, look_up, shrink

_OVERSAMPLING = 2

# The pigments of the divisionists, pure and lightened with white, but no black and no earth.
_PIGMENTS = colors(
    "1b2a78", "2f4fb8", "5a86d6", "9dc0ea",  # ultramarine, cobalt
    "4a2a80", "8a62b8", "c4a6d8",  # violet
    "0f5c44", "2f8a4a", "74b350", "b4d36a",  # viridian, emerald, yellow green
    "f4e46a", "fbf2b4", "f2b632", "ee8430",  # cadmium yellow to orange
    "d8432e", "ee8a78", "c23a72", "f2b8c0",  # vermilion, madder, rose
    "fffaf0", "2aa0a8", "8ed0cc",  # white, turquoise
)  # fmt: skip

# Diameter in pixels of a picture of 640x480, and the dots' area together relative to the picture's. The large ones lay
# in the colours, the smaller ones correct what the eye will mix from them.
_LAYERS = ((6.8, 0.8), (5.4, 1.0), (4.0, 0.8))


def dotted(picture: Field, scale: float, random: np.random.Generator) -> Field:
    """Return a picture painted in dots, shape (H, W, 3), sRGB from 0 to 1.

    Parameters
    ----------
    picture : shape (H, W, 3), sRGB from 0 to 1: what the dots shall mix to.
    scale : size of the dots; with 1 they are 4 to 7 pixels wide.
    """
    painted = _canvas(picture.shape[0] * _OVERSAMPLING, picture.shape[1] * _OVERSAMPLING, scale, random)
    wanted = picture
    for diameter, cover in _LAYERS:
        painted = _layer(painted, wanted, diameter * scale, cover, random)
        seen = blur(shrink(painted, _OVERSAMPLING), 4 * scale)
        wanted = np.clip(picture + 0.9 * (picture - seen), -0.1, 1.1)
    return shrink(painted, _OVERSAMPLING)


def _layer(painted: Field, wanted: Field, diameter: float, cover: float, random: np.random.Generator) -> Field:
    """Return the painting with one more layer of dots.

    Parameters
    ----------
    painted : shape (k H, k W, 3) for an oversampling of k.
    wanted : shape (H, W, 3): the colours that the dots shall mix to.
    diameter : of a dot in pixels of ``wanted``.
    cover : area of all dots together relative to the picture's.
    """
    height, width = wanted.shape[:2]
    spacing = diameter * np.sqrt(np.pi / 4 / cover)
    rows, columns = int(height / spacing) + 1, int(width / spacing) + 1
    y, x = (part.ravel() for part in np.indices((rows, columns), np.float32))
    y = (y + 0.5 + random.uniform(-0.45, 0.45, y.size)) * spacing
    # Every other row is moved by half a step, or the rows would show.
    x = (x + 0.25 + 0.5 * (np.arange(y.size) // columns % 2) + random.uniform(-0.45, 0.45, x.size)) * spacing
    order = random.permutation(y.size)
    y, x = y[order], x[order]
    tone = look_up(wanted, y - 0.5, x - 0.5)
    pigment = _PIGMENTS[_choose(tone, random)]
    tint = mix(pigment, tone, random.uniform(0.12, 0.45, y.size).astype(np.float32))

    k = _OVERSAMPLING
    radius = (k * diameter / 2 * random.uniform(0.72, 1.12, y.size)).astype(np.float32)
    reach = int(np.ceil(k * diameter * 0.56)) + 1
    down, right = (part.ravel() for part in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    row, column = (k * y).astype(np.int32), (k * x).astype(np.int32)
    # Dabs are a little longer than wide.
    turn = random.uniform(0, np.pi, y.size).astype(np.float32)
    dy = (row[:, None] + down + np.float32(0.5)) - (k * y[:, None]).astype(np.float32)
    dx = (column[:, None] + right + np.float32(0.5)) - (k * x[:, None]).astype(np.float32)
    lengthwise = dx * np.cos(turn)[:, None] + dy * np.sin(turn)[:, None]
    distance = dx * dx + dy * dy - 0.3 * lengthwise * lengthwise
    inside = distance < 0.86 * (radius * radius)[:, None]
    which, offset = np.nonzero(inside)
    row, column = row[which] + down[offset], column[which] + right[offset]
    kept = (row >= 0) & (row < k * height) & (column >= 0) & (column < k * width)
    which = which[kept]
    place = row[kept] * (k * width) + column[kept]
    result = painted.reshape(-1, 3).copy()
    result[place] = tint[which]
    return result.reshape(painted.shape)


def _choose(tone: Field, random: np.random.Generator) -> npt.NDArray[np.intp]:
    """Return a pigment's index for each colour, shape (n, 3): a near one more often than a far one."""
    grey = tone.mean(axis=1, keepdims=True)
    vivid = grey + 1.25 * (tone - grey)
    distance = ((vivid[:, None, :] - _PIGMENTS) ** 2).sum(axis=2, dtype=np.float32)
    # The largest of (score + Gumbel noise) is a draw with probability proportional to exp(score).
    noise = -np.log(-np.log(random.uniform(1e-6, 1 - 1e-6, distance.shape)))
    result: npt.NDArray[np.intp] = np.argmax(-distance / 0.04 + noise, axis=1)
    return result


def _canvas(height: int, width: int, scale: float, random: np.random.Generator) -> Field:
    """Return primed linen, shape (height, width, 3)."""
    y, x = grid(height, width)
    threads = height / (3 * scale)
    weave = 0.018 * np.sin(np.pi * threads * y) * np.sin(np.pi * threads * x) + 0.012 * fractal(
        random, y * 60, x * 60, 2
    )
    result: Field = color("efe4cb") + weave[..., None].astype(np.float32)
    return result
