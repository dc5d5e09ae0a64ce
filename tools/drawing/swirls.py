"""A painting in thick strokes: a headland with a lighthouse under whirling evening clouds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.drawing.colors import color, colors, mix, ramp, to_bytes
from tools.drawing.fields import Field, check_size, fractal, grid, relative_size, shrink, smoothstep
from tools.drawing.strokes import Brush, Canvas, along, lit, paint

_OVERSAMPLING = 2

_SKY = colors("0b1a4a", "14367f", "2a63b0", "5b9bc9", "a9c6b8", "e8cf86", "f2b233", "f7d560")
_SEA = colors("071433", "0d2c5c", "17568a", "3d8f9e", "a7b877", "f0bd4a", "ffe59a")
_LAND = colors("130f2e", "2b2350", "3f4a3a", "6f7a33", "b98c2c", "e3b94d")


def swirls(height: int = 480, width: int = 640, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return a painting in thick strokes along a flow with vortices, uint8, shape (height, width, 3).

    Parameters
    ----------
    height, width : in pixels, at least 64 each.
    seed : another one gives another sky, coast and light; the same one the same bits.
    """
    check_size(height, width)
    random = np.random.default_rng([seed, 1])
    scene = _evening(height, width, random)
    scale = _OVERSAMPLING * relative_size(height, width)
    ground = mix(scene.picture * np.float32(0.7), color("3a2a1c"), 0.25)
    ground = ground.repeat(_OVERSAMPLING, axis=0).repeat(_OVERSAMPLING, axis=1)
    canvas = Canvas(ground, np.zeros(ground.shape[:2], np.float32))
    # From large to small; the small ones only where there is something to tell.
    for brush, where in (
        (Brush(15 * scale, 74 * scale, 3.4, 0.05), None),
        (Brush(8 * scale, 46 * scale, 2.2, 0.06), None),
        (Brush(4.2 * scale, 26 * scale, 2.6, 0.05), np.clip(0.22 + scene.detail, 0, 1)),
        (Brush(2.4 * scale, 9 * scale, 4.0, 0.03, 0.05), scene.detail),
    ):
        canvas = paint(canvas, scene.picture, scene.angle, brush, random, where)
    return to_bytes(shrink(lit(canvas), _OVERSAMPLING))


@dataclass(frozen=True, eq=False)
class _Scene:
    """What is to be painted.

    Attributes
    ----------
    picture : shape (H, W, 3), sRGB from 0 to 1.
    angle : shape (H, W), direction of the strokes in radians.
    detail : shape (H, W), 0 to 1, how much of it needs small strokes.
    """

    picture: Field
    angle: Field
    detail: Field

    def with_part(self, where: npt.NDArray[np.bool_], picture: Field, angle: Field | float) -> _Scene:
        """Return the scene with something in front of it; ``where`` is of shape (H, W)."""
        return _Scene(
            np.where(where[..., None], picture, self.picture),
            np.where(where, angle, self.angle).astype(np.float32),
            self.detail,
        )

    def with_detail(self, detail: npt.NDArray[Any]) -> _Scene:
        """Return the scene with more small strokes."""
        return _Scene(self.picture, self.angle, np.maximum(self.detail, detail).astype(np.float32))


def _evening(height: int, width: int, random: np.random.Generator) -> _Scene:
    y, x = grid(height, width)
    aspect = width / height
    side = int(random.choice([-1, 1]))  # of the land
    horizon = random.uniform(0.62, 0.7)
    sun = (horizon - random.uniform(0.1, 0.16), aspect * (0.5 - side * random.uniform(0.12, 0.3)))
    flow, spin, phase = _whirls(y, x, horizon, sun, random)
    swell = 0.16 * np.sin(x * 22 + 5 * np.sin(y * 30)) + 0.12 * fractal(random, y * 14, x * 6, 3)
    above = (y < horizon) & (x >= 0)
    away = np.hypot(y - sun[0], x - sun[1])
    angle = np.where(above, flow, swell)
    angle = np.where(above & (away < 0.1), np.arctan2(y - sun[0], x - sun[1]) + np.pi / 2, angle).astype(np.float32)
    streaks = along(angle, fractal(random, y * 9, x * 9, 5, 0.8), 40, relative_size(height, width))
    streaks = streaks / streaks.std()

    # Blue above and gold where the sun is; whirls are spirals of both.
    glow = np.exp(-(((x - sun[1]) / 0.5) ** 2) - ((y - sun[0]) / 0.28) ** 2)
    warm = 0.95 * glow + 0.5 * smoothstep(0.25, 0, np.abs(y - horizon)) - 0.35 + 0.30 * streaks
    warm = warm + spin * (0.38 + 0.5 * np.cos(phase))
    sky = ramp(np.linspace(-0.75, 1.15, len(_SKY)), _SKY, warm)
    sky = mix(sky, color("f08a24"), smoothstep(0.075, 0.062, away) * 0.8)
    sky = mix(sky, color("fff3b8"), smoothstep(0.056, 0.046, away))

    # Dark between the crests of the waves, the sun's road in gold.
    depth = np.clip((y - horizon) / (1 - horizon), 0, 1)
    road = np.exp(-(((x - sun[1]) / (0.07 + 0.2 * depth)) ** 2))
    crests = 0.5 * streaks + 0.9 * road + 0.35 * np.sin(depth**0.6 * 40 + 4 * np.sin(x * 6)) - 0.3 * depth
    sea = ramp(np.linspace(-1.0, 1.5, len(_SEA)), _SEA, crests)

    detail = np.maximum(0.8 * np.exp(-(((y - horizon) / 0.04) ** 2)), 0.5 * (away < 0.085)).astype(np.float32)
    scene = _Scene(np.where(above[..., None], sky, sea), angle, detail)
    return _with_headland(scene, y, x if side < 0 else aspect - x, side, horizon, streaks, random)


def _whirls(
    y: Field, x: Field, horizon: float, sun: tuple[float, float], random: np.random.Generator
) -> tuple[Field, Field, Field]:
    """Return the sky's direction, how much each place belongs to a whirl (0 to 1), and the phase of its spiral."""
    aspect = float(x.max())
    base = 0.25 * fractal(random, y * 2.5, x * 2.5, 2) - 0.15 * random.choice([-1, 1])
    right, down = np.cos(base), np.sin(base)
    spin, phase = np.zeros_like(right), np.zeros_like(right)
    count = max(2, round(3.2 * aspect))
    for k in range(count):
        # One whirl to each stretch of the sky, high and low in turn, so that they do not cover each other ...
        centre_x = aspect * (k + random.uniform(0.3, 0.7)) / count
        centre_y = horizon * (random.uniform(0.18, 0.36) if k % 2 else random.uniform(0.5, 0.7))
        radius, sense = random.uniform(0.085, 0.17), random.choice([-1, 1])
        # ... nor the sun.
        if np.hypot(centre_y - sun[0], centre_x - sun[1]) < 1.3 * radius + 0.14:
            centre_y = max(0.4 * radius, sun[0] - 1.3 * radius - 0.14)
        dy, dx = y - centre_y, x - centre_x
        distance = np.hypot(dy, dx) + 1e-4
        pull = 3.5 * np.exp(-((distance / radius) ** 2))
        right += pull * (-sense * dy + 0.25 * dx) / distance
        down += pull * (sense * dx + 0.25 * dy) / distance
        part = np.exp(-0.8 * (distance / radius) ** 2)
        phase = np.where(part > spin, 2 * sense * np.arctan2(dy, dx) - 18 * (distance / radius) ** 0.7, phase)
        spin = np.maximum(spin, part)
    return np.arctan2(down, right), spin, phase


def _with_headland(
    scene: _Scene, y: Field, inland: Field, side: int, horizon: float, streaks: Field, random: np.random.Generator
) -> _Scene:
    """Return the scene with a headland and its lighthouse; ``inland`` grows from its edge of the picture."""
    reach = float(inland.max()) * random.uniform(0.42, 0.55)
    rise = random.uniform(0.13, 0.2)
    part = np.clip(1 - inland / reach, 0, 1)
    top = horizon + 0.03 - rise * np.sqrt(part) + 0.018 * fractal(random, np.zeros(1), inland * 5, 4)
    foot = horizon + 0.05 + 0.16 * part**1.3 + 0.02 * np.sin(inland * 25)
    land = (y > top) & (y < foot) & (inland < reach)
    up = np.clip((foot - y) / np.maximum(foot - top, 1e-3), 0, 1)
    tone = 0.75 * (up - 0.45) + 0.3 * streaks + 0.25 * np.sin(inland * 17 + up * 6)
    slope = np.gradient(top[0], float(inland[0, 1] - inland[0, 0])) * -side
    # Grass lies along the top, the cliff's strokes hang.
    lie = np.arctan(slope) * up + (1 - up) * 1.1 * side
    scene = scene.with_part(land, ramp(np.linspace(-0.7, 0.9, len(_LAND)), _LAND, tone), lie)
    scene = scene.with_detail(np.exp(-(((y - top) / 0.012) ** 2)) * (inland < reach))

    place = reach * random.uniform(0.5, 0.68)
    ground = float(top[0, np.abs(inland[0] - place).argmin()]) + 0.02
    size = random.uniform(0.25, 0.31)
    return _with_lighthouse(scene, (ground - y) / size, (inland - place) / size)


def _with_lighthouse(scene: _Scene, up: Field, across: Field) -> _Scene:
    """Return the scene with a lighthouse; ``up`` goes from 0 to 1 along it, ``across`` grows towards the sun."""
    shade = np.clip(0.55 + across * 5.5, 0, 1) + 0 * up
    red, white = mix(color("5a2018"), color("d8573a"), shade), mix(color("6e7da6"), color("fff3d8"), shade)
    striped = np.where((np.floor(up * 5.2) % 2 == 0)[..., None], white, red)
    dark = color("171433")
    for low, high, half, tint in (
        (0.0, 0.78, 0.085 - 0.03 * up, striped),
        (0.78, 0.81, 0.085, dark),
        (0.81, 0.91, 0.045, color("ffe27a")),
        (0.91, 1.02, 0.07 * (1.02 - up) / 0.11, dark),
    ):
        scene = scene.with_part((np.abs(across) < half) & (up >= low) & (up < high), tint, np.pi / 2)
    return scene.with_detail((np.abs(across) < 0.13) & (up > -0.05) & (up < 1.06))
