"""Trees made of points: each is a spray of needles or some leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.drawing.colors import light, mix
from tools.drawing.daylight import SKYLIGHT, SUNLIGHT, Daylight
from tools.drawing.fields import Field
from tools.drawing.terrain import Camera


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree or bush as points in the plane across the view at its distance.

    Attributes
    ----------
    distance : of the tree, metres.
    x, y : shape (n,), metres; later points cover earlier ones.
    colors : shape (n, 3), linear light.
    """

    distance: float
    x: Field
    y: Field
    colors: Field

    def draw(self, picture: Field, camera: Camera) -> None:
        """Draw the tree into the picture, shape (H, W, 3)."""
        row, column = camera.project(self.x, self.y, self.distance)
        stamp(picture, row, column, self.colors)


def stamp(picture: Field, row: Field, column: Field, colors: Field) -> None:
    """Set the pixels of the picture, shape (H, W, 3), in which points lie to their colours, the later ones on top."""
    height, width = picture.shape[:2]
    row, column = np.floor(row).astype(np.int32), np.floor(column).astype(np.int32)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    picture[row[inside], column[inside]] = colors[inside]


def conifer(
    place: tuple[float, float, float], tall: float, camera: Camera, daylight: Daylight, random: np.random.Generator
) -> Tree:
    """Return a spruce of ``tall`` metres whose foot is at ``place`` (x, y, z)."""
    # What is drawn at random next must not depend on how many points this takes.
    random = random.spawn(1)[0]
    x0, y0, z = place
    pixels = tall * camera.focal / z
    slender = random.uniform(0.17, 0.24)
    count = int(np.clip(1.9 * slender * pixels**2, 40, 2_000_000))
    whorls = int(np.clip(pixels / 4, 7, 26))
    up = random.uniform(0, 1, count) ** 1.35
    level = (np.floor(up * whorls) + 0.5) / whorls
    # Each whorl has branches of its own length to either side.
    lengths = random.uniform(0.6, 1.1, (2, whorls + 1))
    right = random.integers(0, 2, count)
    reach = lengths[right, np.minimum((level * whorls).astype(int), whorls)] * slender * (1 - level) ** 0.85
    out = random.uniform(0, 1, count) ** 0.6
    across = np.where(right, 1, -1) * out * reach
    hang = 0.5 * reach * out**1.5 - 1.15 / whorls * (random.uniform(0, 1, count) - 0.35) * (1 - out * 0.45)
    height = np.clip(0.06 + 0.95 * level - hang + 0.25 / whorls, 0, 1.02)
    facing = daylight.side * across / slender + 0.35 * (random.uniform(-1, 1, count))
    sun = np.clip(0.05 + 0.75 * facing + 0.25 * (level - 0.4), 0, 1) * random.uniform(0.3, 1.1, count)
    green = mix(light("1c2b1d"), light("43552a"), random.uniform(0, 1, count).astype(np.float32))
    colors = green * random.uniform(0.75, 1.25) * (sun[:, None] * SUNLIGHT + (0.35 + 0.4 * out[:, None]) * SKYLIGHT)
    trunk = max(4, int(pixels * 0.12))
    trunk_x = random.uniform(-0.008, 0.008, trunk)
    trunk_y = random.uniform(0, 0.14, trunk)
    bark = light("3a2c22") * (np.where(trunk_x * daylight.side > 0, 0.8, 0.3)[:, None] * SUNLIGHT)
    order = np.argsort(out, kind="stable")
    return Tree(
        z,
        (x0 + tall * np.concatenate([trunk_x, across[order]])).astype(np.float32),
        (y0 + tall * np.concatenate([trunk_y, height[order]])).astype(np.float32),
        np.concatenate([bark, colors[order]]).astype(np.float32),
    )


def broadleaf(
    place: tuple[float, float, float],
    tall: float,
    tone: Field,
    camera: Camera,
    daylight: Daylight,
    random: np.random.Generator,
) -> Tree:
    """Return a round tree or bush of ``tall`` metres and leaves of colour ``tone`` whose foot is at ``place``."""
    # What is drawn at random next must not depend on how many points this takes.
    random = random.spawn(1)[0]
    x0, y0, z = place
    pixels = tall * camera.focal / z
    clumps = int(np.clip(pixels / 4, 7, 40))
    angle = random.uniform(0, 2 * np.pi, clumps)
    away = np.sqrt(random.uniform(0, 1, clumps))
    centre_x, centre_y = 0.30 * away * np.cos(angle), 0.6 + 0.30 * away * np.sin(angle)
    radius = random.uniform(0.09, 0.17, clumps)
    count = int(np.clip(0.75 * pixels**2, 40, 2_000_000))
    clump = random.integers(0, clumps, count)
    turn = random.uniform(0, 2 * np.pi, count)
    out = np.sqrt(random.uniform(0, 1, count)) * (1 + 0.12 * random.standard_normal(count))
    x = centre_x[clump] + radius[clump] * out * np.cos(turn)
    y = centre_y[clump] + radius[clump] * out * np.sin(turn)
    facing = daylight.side * (0.7 * out * np.cos(turn) + x / 0.4) * 0.55 + 0.4 * out * np.sin(turn) + 0.5 * (y - 0.6)
    sun = np.clip(0.18 + 0.7 * facing, 0, 1.1) * random.uniform(0.4, 1.15, count)
    leaf = tone * random.uniform(0.7, 1.25, (count, 1))
    colors = leaf * (sun[:, None] * SUNLIGHT + 0.55 * SKYLIGHT)
    # Clumps in front are drawn last, and lie lower.
    order = np.argsort(-centre_y[clump] + 0.02 * random.standard_normal(count), kind="stable")
    trunk = max(6, int(0.02 * pixels**2))
    trunk_y = random.uniform(0, 0.5, trunk)
    trunk_x = random.uniform(-1, 1, trunk) * (0.03 - 0.03 * trunk_y)
    bark = light("4a3a2c") * (np.where(trunk_x * daylight.side > 0, 0.9, 0.3)[:, None] * SUNLIGHT)
    return Tree(
        z,
        (x0 + tall * np.concatenate([trunk_x, x[order]])).astype(np.float32),
        (y0 + tall * np.concatenate([trunk_y, y[order]])).astype(np.float32),
        np.concatenate([bark, colors[order]]).astype(np.float32),
    )
