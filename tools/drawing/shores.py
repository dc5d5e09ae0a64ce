"""The land around the lake: mountains far behind, wooded hills on the far shore, a spit of grass in the lake."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.drawing.colors import light, mix
from tools.drawing.daylight import Daylight
from tools.drawing.fields import Field, fractal, smooth_noise, smoothstep
from tools.drawing.terrain import UNDER_WATER, Camera, Land, distances, hollows, normals, sunlit


def mountain_heights(camera: Camera, side: int, sun_u: float, random: np.random.Generator) -> tuple[Field, Field]:
    """Return the distances, shape (D,), and heights, shape (D, W), of two ranges that leave the sun its place.

    Parameters
    ----------
    camera : whose columns and whose picture's upper edge count.
    side, sun_u : as in `Daylight`; the highest summit stands on the other side.
    """
    at = distances(3600, 15000, 460)
    w, (u, _) = np.log(at), camera.directions()
    peak = -side * float(u[-1]) * random.uniform(0.1, 0.4)
    swell = 0.02 * smooth_noise(random, np.zeros(1), u * 3)
    heights = np.zeros((at.size, u.size), np.float32)
    for centre, deep, base, tall in ((np.log(10500), 0.3, 0.095, 0.145), (np.log(5200), 0.24, 0.05, 0.06)):
        crest = base + tall * np.exp(-(((u - peak) / 0.3) ** 2)) + 0.03 * np.exp(-(((u + side * 0.5) / 0.2) ** 2))
        # Where the sun sets the ranges are low.
        crest = (crest + swell) * (1 - 0.5 * np.exp(-(((u - sun_u) / 0.2) ** 2)))
        peak = peak - side * 0.35
        body = np.exp(-(((w[:, None] - centre) / deep) ** 2))
        rough = fractal(random, w / 0.32, (u + 2) / 0.26, 8, 0.52, ridged=True)
        heights = np.maximum(heights, (crest * body).astype(np.float32) * np.clip(1 + 0.36 * rough, 0.1, 1.9))
    # The highest summit stays in the picture.
    return at, heights * min(1.0, 0.8 * camera.horizon / camera.focal / float(heights.max()))


def mountains(at: Field, heights: Field, u: Field, daylight: Daylight, random: np.random.Generator) -> Land:
    """Return mountains of given heights with rock, snow and woods on them."""
    w = np.log(at)
    right, up, ahead = normals(heights, at, u)
    to_right, to_up, to_ahead = daylight.to_sun
    sun = np.maximum(right * to_right + up * to_up + ahead * to_ahead, 0)
    sun = sun * sunlit(heights, at, u, daylight.to_sun, 0.35)
    sky = (0.55 + 0.45 * up) * np.clip(1 - 9 * np.maximum(hollows(heights, u.size / 90), 0), 0.35, 1)
    detail = fractal(random, w * 30, (u + 2) * 60, 3)
    layers = fractal(random, w * 5, (u + 2) * 12, 3)
    surface = mix(light("6d655f"), light("9a8c7e"), smoothstep(-1, 1.5, layers + 0.8 * detail))
    metres = heights * at[:, None]
    snow = smoothstep(-150, 350, metres - 900 - 180 * layers + 60 * detail) * smoothstep(0.50, 0.72, up + 0.05 * detail)
    surface = mix(surface, light("f2f4f8"), snow)
    woods = smoothstep(650, 350, metres + 90 * detail + 60 * layers) * smoothstep(0.45, 0.7, up)
    surface = mix(surface, light("3b4a35"), woods)
    return Land(at, heights, daylight.through_air(daylight.lit(surface, sun, sky), heights, at, u))


def hills(camera: Camera, daylight: Daylight, random: np.random.Generator) -> Land:
    """Return the far shore with its wooded hills and clearings."""
    at = distances(560, 3600, 300)
    w, (u, _) = np.log(at), camera.directions()
    shore = np.log(700) + 0.12 * smooth_noise(random, np.zeros(1), (u + 2) * 4)
    beyond = w[:, None] - shore
    rolling = fractal(random, w / 0.5, (u + 2) / 0.3, 5, 0.5)
    rise = 0.030 * (1 - np.exp(-np.maximum(beyond, 0) * 2.2)) * (1.3 + 0.5 * rolling - 0.8 * daylight.side * u / u[-1])
    trees = np.abs(fractal(random, w * 40, (u + 2) * 120, 2)) * 0.0022 * smoothstep(0, 0.1, beyond)
    ground = np.where(beyond > 0, np.maximum(rise, 0.0004) + trees, 0).astype(np.float32)
    right, _, ahead = normals(ground, at, u)
    sun = np.clip(0.35 + 1.1 * right * daylight.side + 0.1 * ahead, 0, 1.2) * sunlit(
        ground, at, u, daylight.to_sun, 0.3
    )
    patches = fractal(random, w * 9, (u + 2) * 18, 4)
    detail = fractal(random, w * 60, (u + 2) * 180, 2)
    surface = mix(light("1f2b1c"), light("45542c"), smoothstep(-1.5, 1.5, patches * 0.5 + detail))
    clearings = smoothstep(0.9, 1.3, patches - 2.5 * beyond + 0.4) * smoothstep(0.0, 0.08, beyond)
    surface = mix(surface, light("8a9150"), clearings)
    surface = mix(surface, light("8f8672"), smoothstep(0.012, 0.0, beyond))
    colors = daylight.through_air(daylight.lit(surface, sun, 0.8), ground, at, u)
    return Land(at, np.where(beyond > 0, ground, np.float32(UNDER_WATER)), colors)


@dataclass(frozen=True, eq=False)
class Spit:
    """A low spit of grass that reaches into the lake on the side away from the sun.

    Attributes
    ----------
    land : what is seen of it.
    inland : shape (D, W), how far, in units of u, each place is from the spit's shore; negative in the water.
    u : of the columns, shape (W,).
    """

    land: Land
    inland: Field
    u: Field

    def place(self, distance: float, inside: float) -> tuple[float, float, float]:
        """Return x, y, z in metres of the ground at a distance, ``inside`` units of u from the shore."""
        row = int(np.abs(self.land.distances - distance).argmin())
        column = int(np.abs(self.inland[row] - inside).argmin())
        height = max(float(self.land.heights[row, column]), 0.0)
        return float(self.u[column] * distance), height * distance, distance


def spit(camera: Camera, daylight: Daylight, random: np.random.Generator) -> Spit:
    """Return the spit."""
    at = distances(70, 520, 300)
    w, (u, _) = np.log(at), camera.directions()
    edge = float(u[-1])
    tongue = np.exp(-(((w - np.log(135)) / 0.42) ** 2))[:, None]
    inland = edge * random.uniform(0.95, 1.15) * 0.95 * tongue - edge - daylight.side * u
    inland = (inland + 0.035 * fractal(random, w * 3, (u + 2) * 5, 3)).astype(np.float32)
    bumps = 0.002 * fractal(random, w * 8, (u + 2) * 14, 3) * smoothstep(0, 0.1, inland)
    ground = np.where(inland > 0, np.maximum(0.030 * np.sqrt(np.clip(inland, 0, 1)) + bumps, 0.0005), 0)
    right, _, _ = normals(ground, at, u)
    blades = fractal(random, w * 90, (u + 2) * 120, 3)
    patches = fractal(random, w * 8, (u + 2) * 8, 3)
    sun = np.clip(0.42 + 1.2 * right * daylight.side + 0.10 * blades, 0, 1.3)
    surface = mix(light("46532a"), light("85853f"), smoothstep(-1.5, 1.5, patches + 0.6 * blades))
    surface = mix(surface, light("7f7460"), smoothstep(0.018, 0.002, inland + 0.003 * blades))
    colors = daylight.through_air(daylight.lit(surface, sun, 0.8), ground, at, u)
    heights = np.where(inland > 0, ground, UNDER_WATER).astype(np.float32)
    return Spit(Land(at, heights, colors), inland, u)
