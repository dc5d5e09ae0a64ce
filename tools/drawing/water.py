"""A lake that mirrors what is above it, the more the flatter one looks, and breaks it by its ripples."""

from __future__ import annotations

import numpy as np

from tools.drawing.colors import light, mix
from tools.drawing.fields import Field, fractal, look_up, smoothstep
from tools.drawing.terrain import Camera

# Lengths of the waves in metres and deviations of their slopes.
_WAVES = ((0.5, 0.014), (1.6, 0.011), (6.0, 0.006))

# Quantiles of a normal distribution.
_SPREAD = (-1.6, -0.9, -0.45, 0.0, 0.45, 0.9, 1.6)

_TILE = 480


def lake(mirror: Field, camera: Camera, random: np.random.Generator) -> Field:
    """Return the water that a camera sees, shape (H, W, 3) in linear light, black above the horizon.

    Parameters
    ----------
    mirror : shape (H, W, 3), what ``camera.mirrored()`` sees.
    camera : above the water.
    """
    tiles = [fractal(random, np.linspace(0, 48, _TILE), np.linspace(0, 32, _TILE), 2) for _ in _WAVES]
    u, elevation = camera.directions()
    first = int(np.ceil(camera.horizon))
    down = -elevation[first:, None]
    metres = camera.eye / down
    x = u * metres
    row_metres = metres**2 / (camera.eye * camera.focal)
    slope = np.zeros((down.size, u.size), np.float32)
    rough = np.zeros_like(down)
    for tile, (length, steep) in zip(tiles, _WAVES, strict=True):
        # Waves too small to be seen singly roughen the mirror instead.
        seen = smoothstep(0.8, 0.2, row_metres / length)
        slope += steep * seen * look_up(tile, _folded(metres / length * 10 + 0 * x), _folded(x / length * 5 + 1e4))
        rough = np.hypot(rough, steep * (1 - seen))
    # Breaths of wind: bands of rougher and of calmer water.
    wind = look_up(tiles[-1], np.log(metres) * 55 + 0 * x, u * 40 + 200 + 0 * x)
    slope, rough = slope * np.clip(0.9 + 0.45 * wind, 0.25, 2), rough * np.clip(0.5 + 0.5 * wind, 0.1, 1.6)
    reflection = _reflected(mirror, camera, down, slope, rough, random)

    # Fresnel's law after Schlick, its fall softened as if the camera stood lower.
    grazing = np.clip(down + 1.3 * slope, 0.004, 1)
    part = 0.04 + 0.96 * (1 - grazing / np.hypot(1, grazing)) ** 3.6
    picture = np.zeros_like(mirror)
    picture[first:] = mix(0.8 * light("14313c"), 0.94 * reflection, part)
    return picture


def _reflected(
    mirror: Field, camera: Camera, down: Field, slope: Field, rough: Field, random: np.random.Generator
) -> Field:
    """Return the mean of the mirror's colours, shape (h, W, 3), over the slopes in each of the lake's pixels.

    Parameters
    ----------
    mirror, camera : as for `lake`.
    down : shape (h, 1), how far below the horizon the rows are, as Y / Z.
    slope, rough : shape (h, W), mean and deviation of the water's slopes.
    """
    height, width = mirror.shape[:2]
    columns = np.arange(width, dtype=np.float32) + np.float32(0.5)
    flat = mirror.reshape(-1, 3)
    total = np.zeros((*slope.shape, 3), np.float32)
    # Glints are wider than high.
    noise = random.standard_normal((len(slope), width + 4), dtype=np.float32)
    noise = sum((noise[:, k : k + width] for k in range(1, 5)), noise[:, :width]) / np.float32(5**0.5)
    for quantile, shift in zip(_SPREAD, random.integers(0, width, len(_SPREAD)), strict=True):
        # Each quantile is moved from pixel to pixel until they leave no gap.
        moved = np.roll(noise, (7 * shift, shift), axis=(0, 1))
        tilt = slope + rough * (np.float32(quantile) + np.float32(0.3) * moved)
        # A slope turns the reflected ray by twice its angle.
        row = camera.horizon - np.abs(down + 2 * tilt) * camera.focal
        column = columns + 0.35 * camera.focal * (slope + rough * moved)
        row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
        total += flat[row.astype(np.int32) * width + column.astype(np.int32)]
    result: Field = total / len(_SPREAD)
    return result


def _folded(values: Field) -> Field:
    """Return coordinates that run to and fro over a tile: it has no seam then."""
    phase = values % np.float32(2 * (_TILE - 2))
    result: Field = np.minimum(phase, 2 * (_TILE - 2) - phase)
    return result
