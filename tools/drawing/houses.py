"""Wooden houses with gable roofs, chimneys and lit windows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.drawing.colors import light, mix
from tools.drawing.daylight import SKYLIGHT, SUNLIGHT, Daylight
from tools.drawing.fields import Field, smoothstep
from tools.drawing.terrain import Camera

_LAMP = np.array([2.4, 1.35, 0.5], np.float32)

Paint = Callable[[Field, Field], tuple[Field, npt.NDArray[np.bool_]]]
"""From coordinates along a face's edges, 0 to 1 each: its colours (n, 3) and whether it is there (n,)."""


@dataclass(frozen=True, eq=False)
class House:
    """A house; lengths in metres.

    Attributes
    ----------
    place : x, y, z of the middle of its ground plan.
    turn : radians from the view's direction to the ridge's, from 0.2 to 1.3, away from the sun's side.
    long, wide, wall, roof : length along the ridge, width of the gable, height of walls and of the roof above them.
    color : of the planks, shape (3,), linear.
    daylight : the light it stands in.
    """

    place: tuple[float, float, float]
    turn: float
    long: float
    wide: float
    wall: float
    roof: float
    color: Field
    daylight: Daylight

    @property
    def distance(self) -> float:
        """Distance of the house, metres."""
        return self.place[2]

    def draw(self, picture: Field, camera: Camera) -> None:
        """Draw the house into the picture, shape (H, W, 3): a gable, a long wall, a roof and a chimney."""
        side = self.daylight.side
        # The ridge runs away from the camera and from the sun. Of the long walls one looks to the camera.
        ridge = np.array([-side * math.sin(self.turn), 0, math.cos(self.turn)])
        outwards = np.array([side * math.cos(self.turn), 0, math.sin(self.turn)])
        middle = np.array(self.place)
        if outwards @ middle > 0:
            outwards = -outwards
        up = np.array([0, 1.0, 0])
        wall_sun = 0.9 * max(0.0, float(outwards[0]) * side) + 0.08
        gable_sun = 0.5 * max(0.0, -float(ridge[0]) * side) + 0.06

        corner = middle - ridge * self.long / 2 + outwards * self.wide / 2
        self._face(picture, camera, corner, ridge * self.long, up * self.wall, self._wall(wall_sun))
        self._face(picture, camera, corner, -outwards * self.wide, up * (self.wall + self.roof), self._gable(gable_sun))

        # The roof reaches beyond the walls by a part of its width; above the gable one sees how thick it is.
        over, thick = 0.07, 0.42 * up
        slope = up * self.roof - outwards * self.wide / 2
        eave = corner - slope * 2 * over - ridge * self.long * over + up * self.wall
        slope = slope * (1 + 2 * over)
        self._face(picture, camera, eave, ridge * self.long * (1 + 2 * over), slope, self._roof(wall_sun))
        self._face(picture, camera, eave - thick, slope, thick, self._plain(light("3a302a"), 0.4))
        slope = up * self.roof + outwards * self.wide / 2
        eave = corner - outwards * self.wide - slope * 2 * over - ridge * self.long * over + up * self.wall
        self._face(picture, camera, eave - thick, slope * (1 + 2 * over), thick, self._plain(light("2b2522"), 0.25))

        across, along = outwards * self.wide * 0.12, ridge * self.wide * 0.12
        foot = middle + ridge * self.long * 0.18 + outwards * self.wide * 0.18 + up * (self.wall + self.roof * 0.62)
        tall, brick = up * self.roof * 0.62, light("8a5a48")
        self._face(picture, camera, foot - along / 2, -across, tall, self._plain(brick, 0.3))
        self._face(picture, camera, foot - along / 2, along, tall, self._plain(brick, 0.8))

    def _face(self, picture: Field, camera: Camera, origin: Field, along: Field, up: Field, paint: Paint) -> None:
        """Draw a parallelogram from a corner and two edges; so far away that perspective within it does not show."""
        corners = np.stack([origin, origin + along, origin + up, origin + along + up])
        row, column = camera.project(corners[:, 0], corners[:, 1], corners[:, 2])
        top, left = max(0, int(row.min())), max(0, int(column.min()))
        bottom, right = min(camera.height, int(row.max()) + 2), min(camera.width, int(column.max()) + 2)
        if top >= bottom or left >= right:
            return
        edges = np.array([[column[1] - column[0], column[2] - column[0]], [row[1] - row[0], row[2] - row[0]]])
        if abs(np.linalg.det(edges)) < 1e-6:
            return
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        a, b = np.tensordot(np.linalg.inv(edges), np.stack([x - column[0], y - row[0]]), axes=1)
        colors, there = paint(a, b)
        there = there & (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)
        window = picture[top:bottom, left:right]
        window[there] = colors[there]

    def _shine(self, sun: float) -> Field:
        result: Field = SUNLIGHT * np.float32(sun) + SKYLIGHT * np.float32(0.75)
        return result

    def _plain(self, tone: Field, sun: float) -> Paint:
        def paint(a: Field, b: Field) -> tuple[Field, npt.NDArray[np.bool_]]:
            return np.broadcast_to(tone * self._shine(sun), (*a.shape, 3)), np.ones(a.shape, bool)

        return paint

    def _wall(self, sun: float) -> Paint:
        def paint(a: Field, b: Field) -> tuple[Field, npt.NDArray[np.bool_]]:
            planks = 1 - 0.22 * (np.floor(b * 14) % 2) - 0.25 * smoothstep(0.8, 1.0, b)
            colors: Field = self.color * self._shine(sun) * planks[..., None].astype(np.float32)
            colors = np.where((b < 0.14)[..., None], light("77706a") * self._shine(sun), colors)
            return self._windows(colors, (a * 3) % 1, b, (0.5, 0.54), (0.15, 0.2)), np.ones(a.shape, bool)

        return paint

    def _gable(self, sun: float) -> Paint:
        share = self.wall / (self.wall + self.roof)

        def paint(a: Field, b: Field) -> tuple[Field, npt.NDArray[np.bool_]]:
            there = b < share + (1 - share) * (1 - np.abs(2 * a - 1))
            planks = 1 - 0.22 * (np.floor(a * 18) % 2)
            colors: Field = self.color * self._shine(sun) * planks[..., None].astype(np.float32)
            colors = np.where((b < 0.14 * share)[..., None], light("77706a") * self._shine(sun), colors)
            colors = self._windows(colors, (a * 2) % 1, b, (0.5, 0.54 * share), (0.17, 0.2 * share))
            return self._windows(colors, a, b, (0.5, share + 0.36 * (1 - share)), (0.09, 0.2 * (1 - share))), there

        return paint

    def _windows(self, colors: Field, a: Field, b: Field, at: tuple[float, float], half: tuple[float, float]) -> Field:
        x, y = (a - at[0]) / half[0], (b - at[1]) / half[1]
        frame = (np.abs(x) < 1.28) & (np.abs(y) < 1.2)
        pane = (np.abs(x) < 1) & (np.abs(y) < 1) & (np.abs(x) > 0.1)
        colors = np.where(frame[..., None], light("e4dccb") * self._shine(0.3), colors)
        glow = _LAMP * (1.15 - 0.35 * np.abs(x) - 0.3 * y)[..., None].astype(np.float32)
        return np.where(pane[..., None], glow, colors)

    def _roof(self, sun: float) -> Paint:
        def paint(a: Field, b: Field) -> tuple[Field, npt.NDArray[np.bool_]]:
            rows = 1 - 0.25 * ((b * 11) % 1) - 0.08 * (np.floor(a * 26 + np.floor(b * 11) * 0.5) % 2)
            tiles = mix(light("5a3a30"), light("7d5040"), smoothstep(0, 1, (np.sin(a * 37) * np.sin(b * 29) + 1) / 2))
            return tiles * self._shine(0.25 + sun) * rows[..., None].astype(np.float32), np.ones(a.shape, bool)

        return paint


def smoke(picture: Field, camera: Camera, house: House, daylight: Daylight) -> None:
    """Draw a thin plume of smoke above a house's chimney into the picture."""
    x, y, z = house.place
    scale = camera.focal / z
    rise = house.wall + house.roof * 1.5
    for k in range(26):
        t = k / 25
        drift = 0.5 * math.sin(9 * t) - 9 * t**1.6 * daylight.side
        row, column = (float(at) for at in camera.project(x + drift, y + rise + 11 * t, z))
        radius = scale * (0.35 + 1.9 * t)
        top, left = max(0, int(row - 2.5 * radius)), max(0, int(column - 2.5 * radius))
        window = picture[top : max(0, int(row + 2.5 * radius) + 1), left : max(0, int(column + 2.5 * radius) + 1)]
        if window.size:
            dy, dx = np.indices(window.shape[:2])
            away = ((dy + top - row) ** 2 + (dx + left - column) ** 2) / radius**2
            thin = 0.13 * np.exp(-away) * (1 - t) * (0.75 + 0.25 * np.sin(2.4 * k))
            window[:] = mix(window, light("d8cfc8"), thin.astype(np.float32))
