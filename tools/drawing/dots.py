"""A painting in dots of pure colour: a sunlit river with sails, poplars and people in the grass."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tools.drawing.colors import color, colors, mix, ramp, to_bytes
from tools.drawing.dabs import dotted
from tools.drawing.fields import Field, check_size, fractal, grid, look_up, relative_size, smoothstep


def dots(height: int = 480, width: int = 640, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return a painting in tens of thousands of dots on canvas, uint8, shape (height, width, 3).

    Parameters
    ----------
    height, width : in pixels, at least 64 each.
    seed : another one gives another river, other people and boats; the same one the same bits.
    """
    check_size(height, width)
    random = np.random.default_rng([seed, 2])
    picture = _river(height, width, random)
    return to_bytes(dotted(picture, relative_size(height, width), random))


def _river(height: int, width: int, random: np.random.Generator) -> Field:
    """Return what is painted, shape (height, width, 3), sRGB."""
    y, x = grid(height, width)
    aspect = width / height
    side = random.choice([-1, 1])
    horizon = random.uniform(0.36, 0.42)

    clouds = smoothstep(0.1, 1.5, fractal(random, y * 7, x * 3, 5))
    sky = ramp([0, 0.6, 1], colors("6fa3dc", "b4d3ea", "f8e6bc"), y / horizon + 0 * x)
    picture = mix(sky, color("fff2dc"), clouds * 0.9)

    # The far bank: hills, trees in sun and shade, and houses.
    hills = horizon - 0.05 - 0.03 * fractal(random, np.zeros(1), x * 1.6, 2)
    hill_tone = ramp([-1.5, 1.5], colors("7f93c8", "b9c4a8"), fractal(random, y * 20, x * 12, 3))
    picture = mix(picture, hill_tone, smoothstep(0, 0.008, y - hills))
    crowns = horizon - 0.035 - 0.035 * np.clip(fractal(random, np.zeros(1), x * 5, 2), -0.8, 2)
    crowns = crowns - 0.012 * np.abs(fractal(random, np.zeros(1), x * 30, 2))
    leaves = fractal(random, y * 40, x * 28, 3) + 2.2 * (0.5 - (y - crowns) / 0.07)
    bank = ramp([-2, 0, 2], colors("2b4a7c", "4f9a52", "e2dc62"), leaves)
    picture = mix(picture, bank, smoothstep(0, 0.006, y - crowns))
    for centre in random.uniform(0.15, 0.85, 3) * aspect:
        picture = _house(picture, y, x, float(centre), horizon, float(random.uniform(0.035, 0.06)))
    picture = _poplars(picture, y, x, aspect, horizon, side, random)
    picture = _sails(picture, y, x, aspect, horizon, random)

    # The river gives back what is above it, drawn out downwards and broken by ripples.
    below = np.clip((y - horizon) / (1 - horizon), 0, 1)
    wave = fractal(random, y * 60, x * 7, 3)
    source = (horizon - (y - horizon) * (0.9 - 0.2 * below) + 0.012 * wave) * height
    mirrored = look_up(picture, source + 0 * x, (x + 0.006 * wave) * height)
    water = mix(mirrored, color("4f86c6"), 0.30 + 0.12 * np.clip(wave, -1, 1))
    water = mix(water, color("fff0c0"), smoothstep(1.5, 2.1, fractal(random, y * 90, x * 12, 2)) * 0.8)
    picture = mix(picture, water, smoothstep(0, 0.004, y - horizon + 0 * x))
    return _lawn(picture, y, x, aspect, horizon, side, random)


def _house(picture: Field, y: Field, x: Field, centre: float, foot: float, size: float) -> Field:
    dy, dx = (foot - y) / size, (x - centre) / size
    wall = (np.abs(dx) < 0.7) & (dy > 0) & (dy < 0.8)
    roof = (np.abs(dx) < 0.85 - 1.1 * (dy - 0.8)) & (dy >= 0.8) & (dy < 1.35)
    window = (np.abs(np.abs(dx) - 0.35) < 0.12) & (np.abs(dy - 0.42) < 0.17)
    picture = np.where(wall[..., None], np.where((dx > 0.1)[..., None], color("c9b8d8"), color("fff0cf")), picture)
    picture = np.where(window[..., None], color("4a5fa8"), picture)
    return np.where(roof[..., None], np.where((dx > 0.1)[..., None], color("a8486a"), color("ea7a48")), picture)


def _poplars(
    picture: Field, y: Field, x: Field, aspect: float, horizon: float, side: int, random: np.random.Generator
) -> Field:
    """Put a row of slender trees on the far bank, on the side where the near bank is low."""
    count = random.integers(4, 7)
    for k in range(count):
        place = 0.09 + 0.075 * k + random.uniform(-0.012, 0.012)
        centre = aspect * (1 - place if side < 0 else place)
        size = random.uniform(0.22, 0.3) * (1 - 0.05 * k)
        up = (horizon + 0.004 - y) / size
        width = 0.024 * np.sqrt(np.clip(np.sin(np.pi * np.clip(up, 0, 1) ** 0.75), 0, 1)) + 1e-4
        ragged = 0.006 * fractal(random, y * 60, x * 30, 2)
        across = (x - centre + ragged) / width
        tone = 0.8 * across * side + 0.6 * fractal(random, y * 50, x * 50, 2)
        leaf = ramp([-1.3, 0, 1.3], colors("2a3f86", "3f8f50", "f0dc58"), tone)
        picture = mix(picture, leaf, smoothstep(1.1, 0.8, np.abs(across)) * (up > 0) * (up < 1))
    return picture


def _sails(picture: Field, y: Field, x: Field, aspect: float, horizon: float, random: np.random.Generator) -> Field:
    for k in range(3):
        size = random.uniform(0.1, 0.17)
        centre = aspect * (0.3 + 0.2 * k + random.uniform(-0.05, 0.05))
        dy, dx = (horizon + 0.012 - y) / size, (x - centre) / size
        main = (dx > 0.02) & (dx < 0.5 * (1 - dy)) & (dy > 0.12)
        jib = (dx < -0.02) & (-dx < 0.3 * (0.85 - dy)) & (dy > 0.14)
        hull = (np.abs(dx) < 0.42 - 0.6 * np.abs(dy - 0.1)) & (dy > -0.02) & (dy < 0.1)
        picture = np.where(main[..., None], color("fffbea"), picture)
        picture = np.where(jib[..., None], color("f6c9b0"), picture)
        picture = np.where(hull[..., None], color(str(random.choice(["8a2f3c", "2b3f8c", "2f6a58"]))), picture)
    return picture


def _lawn(
    picture: Field, y: Field, x: Field, aspect: float, horizon: float, side: int, random: np.random.Generator
) -> Field:
    """Put the near bank with its shadows, flowers, people and a large tree in front."""
    inland = (x if side < 0 else aspect - x) / aspect
    edge = (
        0.95 - 0.38 * (1 - inland) ** 1.4 + 0.012 * np.sin(inland * 21) + 0.006 * fractal(random, np.zeros(1), x * 9, 3)
    )
    depth = y - edge
    grass = fractal(random, y * 24, x * 9, 4)
    shade = smoothstep(-0.2, 0.5, fractal(random, y * 7, x * 2.2, 3) + 1.6 * (depth - 0.12) / 0.2)
    sunny = ramp([-2, 0, 2], colors("78b848", "c8d858", "fbec8c"), grass)
    shady = ramp([-2, 0, 2], colors("2a3a86", "2f7a5c", "5a9e58"), grass)
    lawn = mix(sunny, shady, shade)
    flowers = smoothstep(1.6, 1.9, fractal(random, y * 60, x * 40, 2)) * smoothstep(0.02, 0.1, depth)
    lawn = mix(lawn, color(str(random.choice(["f06a5a", "f4a0b0", "f8d840"]))), flowers)
    rim = np.exp(-((depth / 0.008) ** 2))
    lawn = mix(lawn, color("e8d8a0"), rim * 0.7)
    picture = mix(picture, lawn, smoothstep(0, 0.005, depth))
    for k in range(int(random.integers(2, 5))):
        place = 0.21 + 0.13 * k + random.uniform(-0.02, 0.02)
        column = np.abs(inland[0] - place).argmin()
        foot = float(edge[0, column]) + random.uniform(0.06, 0.16)
        picture = _figure(picture, y, x, float(x[0, column]), foot, 0.17 + 0.35 * (foot - 0.7), random)
    return _tree(picture, y, inland * aspect, side, random)


def _figure(
    picture: Field, y: Field, x: Field, centre: float, foot: float, size: float, random: np.random.Generator
) -> Field:
    """Put somebody in a long dress with a parasol into the picture, and the shadow on the grass."""
    dy, dx = (foot - y) / size, (x - centre) / size
    shadow = np.exp(-(((dy + 0.02) / 0.05) ** 2) - ((dx - 0.25) / 0.3) ** 2)
    picture = mix(picture, color("27408c"), shadow * 0.75)
    dress, sash, shelter = (
        color(str(random.choice(choice)))
        for choice in (
            ["f4f0ff", "e06a4a", "5a6ac8", "c85a92", "f2c84a"],
            ["2b3f8c", "8a2f5c", "f2b632"],
            ["f0803a", "fff2c8", "d8434e", "3a9aa0"],
        )
    )
    skirt = (np.abs(dx + 0.02) < 0.19 - 0.26 * dy + 0.04 * np.sin(dy * 7)) & (dy > 0) & (dy < 0.45)
    torso = (np.abs(dx) < 0.075 + 0.035 * np.sin((dy - 0.42) * 9)) & (dy >= 0.42) & (dy < 0.68)
    head = np.hypot(dx, dy - 0.735) < 0.065
    hat = (np.hypot(dx / 1.7, (dy - 0.785) * 1.3) < 0.05) & (dy > 0.76)
    stick = (np.abs(dx - 0.1 - 0.12 * (dy - 0.55)) < 0.012) & (dy > 0.5) & (dy < 1)
    dome = (np.hypot(dx - 0.15, (dy - 0.88) * 1.5) < 0.24) & (dy > 0.88 + 0.02 * np.cos(dx * 60))
    lit = smoothstep(0.1, -0.1, dx)
    for part, tint in (
        (skirt, dress),
        (torso, sash),
        (head, color("f0b48c")),
        (hat, shelter),
        (stick, color("4a2a80")),
        (dome, shelter),
    ):
        colored = mix(tint * np.float32(0.62) + color("20307c") * np.float32(0.25), tint, lit)
        picture = np.where(part[..., None], colored, picture)
    return picture


def _tree(picture: Field, y: Field, inland: Field, side: int, random: np.random.Generator) -> Field:
    """Put a large tree at the edge, its crown reaching into the picture from above."""
    trunk_at = random.uniform(0.07, 0.12)
    bend = 0.03 * np.sin(y * 4 + random.uniform(0, 6))
    width = 0.022 + 0.02 * np.clip(y - 0.6, 0, 1) ** 1.5 * 3
    across = (inland - trunk_at - bend) / width
    bark = ramp(
        [-1, 0.2, 1], colors("5a3a8c", "8a4a5c", "f0a050"), across + 0.4 * fractal(random, y * 9, inland * 50, 2)
    )
    foot = 0.82 + 0.03 * np.abs(across)
    picture = mix(picture, bark, smoothstep(1.05, 0.85, np.abs(across)) * smoothstep(foot, foot - 0.02, y))
    crown = fractal(random, y * 6, inland * 6, 6, 0.68)
    reach = 1.2 - inland / 0.36 - 4 * np.clip(inland - 0.45, 0, 1) - np.clip(y - 0.13, 0, 1) / 0.13 + 0.55 * crown
    tone = fractal(random, y * 16, inland * 16, 3) + 0.7 * crown - 0.5 * reach - 3 * (y - 0.12)
    leaves = ramp([-2, -0.3, 1, 2], colors("1f2f7c", "2f7a50", "8cc04c", "f6e060"), tone)
    return mix(picture, leaves, smoothstep(0, 0.12, reach))
