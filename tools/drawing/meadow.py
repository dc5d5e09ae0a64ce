"""A meadow on the near bank: blades of grass, stalks with seed heads and flowers, each drawn point by point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.drawing.colors import light, mix
from tools.drawing.daylight import Daylight
from tools.drawing.fields import Field, relative_size, smooth_noise
from tools.drawing.terrain import Camera
from tools.drawing.trees import stamp

_GROUND = light("1d220e")
_FLOWERS = np.stack([light(code) for code in ("f4efe2", "f0c840", "a880d0", "f4efe2", "e0607a")])


def meadow(picture: Field, camera: Camera, edge: Field, daylight: Daylight, random: np.random.Generator) -> None:
    """Draw tall grass and flowers into the picture.

    Parameters
    ----------
    picture : shape (H, W, 3), linear light; it is changed.
    camera : whose picture it is.
    edge : shape (W,), the row in each column where the bank begins.
    daylight : for the side of the sun.
    """
    picture[np.arange(camera.height)[:, None] > edge] = _GROUND
    for draw, count, low, high in ((_grass, 19500, -0.03, 1.0), (_stalks, 150, 0.0, 0.8), (_flowers, 300, 0.03, 0.95)):
        # What is drawn at random next must not depend on how many points this takes.
        child = random.spawn(1)[0]
        count = round(count * camera.width / camera.height)
        draw(picture, _roots(camera, edge, count, (low, high), child), daylight, child)


@dataclass(frozen=True, eq=False)
class _Roots:
    """Where plants stand, the farthest first; all of shape (n,).

    Attributes
    ----------
    row, column : in pixels.
    scale : pixels to what is one pixel in a picture of 640x480 at its lower edge.
    down, across : ``row`` and ``column`` in heights of the picture.
    """

    row: Field
    column: Field
    scale: Field
    down: Field
    across: Field

    def kept(self, which: npt.NDArray[np.bool_]) -> _Roots:
        """Return some of them."""
        return _Roots(*(values[which] for values in (self.row, self.column, self.scale, self.down, self.across)))


def _roots(
    camera: Camera, edge: Field, count: int, between: tuple[float, float], random: np.random.Generator
) -> _Roots:
    """Return random places on the bank, ``between`` two parts of the way from its edge to below the picture."""
    column = random.uniform(-0.03, 1.03, count) * camera.width
    start = edge[np.clip(column, 0, camera.width - 1).astype(int)]
    bottom = camera.height * 1.12
    row = start + np.sort(random.uniform(*between, count).clip(0)) ** 1.1 * (bottom - start)
    order = np.argsort(row, kind="stable")
    row, column = row[order], column[order]
    scale = relative_size(camera.height, camera.width) * (row - camera.horizon) / (bottom - camera.horizon)
    return _Roots(row, column, scale, row / camera.height, column / camera.height)


def _grass(picture: Field, roots: _Roots, daylight: Daylight, random: np.random.Generator) -> None:
    count = roots.row.size
    tuft = _patches(random, roots.down * 9, roots.across * 9)
    dry = _patches(random, roots.down * 5, roots.across * 3)
    shade = np.clip(0.75 + 0.28 * _patches(random, roots.down * 4, roots.across * 1.6), 0.22, 1.15)
    length = 46 * roots.scale * random.uniform(0.45, 1.15, count) * np.clip(1 + 0.28 * tuft, 0.4, 1.8)
    lean = -0.22 * daylight.side + 0.30 * random.standard_normal(count) + 0.12 * tuft
    curve = 0.5 * lean * random.uniform(0.2, 1.6, count)
    youth = np.clip(0.5 + 0.35 * dry + 0.25 * random.standard_normal(count), 0, 1)
    tone = mix(light("3d5220"), light("7f8f35"), youth)
    tone[random.uniform(0, 1, count) < 0.10 + 0.06 * dry] = light("c2a862")

    blade, t = _points(length)
    across = (lean[blade] + curve[blade] * t) * t * length[blade]
    rise = t * length[blade] * (1 - 0.25 * np.abs(lean[blade]) * t)
    # Light comes through the tips and does not reach the ground.
    sun, sky = 0.95 * (0.10 + 0.9 * t**1.3) * shade[blade], 0.12 + 0.5 * t
    colors = daylight.lit(tone[blade], sun, sky)
    broad = (1.5 * roots.scale * random.uniform(0.5, 1.2, count))[blade] * (1 - t)
    for side in range(int(broad.max()) + 1):
        kept = broad >= side
        stamp(picture, (roots.row[blade] - rise)[kept], (roots.column[blade] + across + side)[kept], colors[kept])


def _stalks(picture: Field, roots: _Roots, daylight: Daylight, random: np.random.Generator) -> None:
    """Draw single tall stalks with seed heads, which stand out against the water."""
    clumps = _patches(random, roots.down * 2, roots.across * 3)
    roots = roots.kept(clumps > random.uniform(-0.6, 1.0, roots.row.size))
    count = roots.row.size
    length = 92 * roots.scale * random.uniform(0.7, 1.2, count)
    lean = -0.16 * daylight.side + 0.16 * random.standard_normal(count)
    stalk, t = _points(length)
    row = roots.row[stalk] - t * length[stalk]
    column = roots.column[stalk] + lean[stalk] * t * t * length[stalk]
    tone = mix(light("66702e"), light("d8b878"), np.clip(1.4 * t - 0.4, 0, 1))
    colors = daylight.lit(tone, 0.15 + 0.75 * t, 0.4)
    swell = 2.1 * roots.scale[stalk] * np.sin(np.pi * np.clip((t - 0.8) / 0.2, 0, 1) ** 0.8)
    reach = int(swell.max(initial=0))
    for side in range(-reach, reach + 1):
        kept = (abs(side) <= swell) & ((side == 0) | (random.uniform(0, 1, t.size) > 0.3))
        shine = 1 + 0.3 * daylight.side * side / max(1, reach)
        stamp(picture, row[kept], (column + side)[kept], colors[kept] * np.float32(shine))


def _flowers(picture: Field, roots: _Roots, daylight: Daylight, random: np.random.Generator) -> None:
    clumps = _patches(random, roots.down * 6, roots.across * 4)
    roots = roots.kept(clumps > random.uniform(-0.5, 1.2, roots.row.size))
    count = roots.row.size
    row = roots.row - 40 * roots.scale * random.uniform(0.7, 1.2, count)
    tone = _FLOWERS[random.integers(0, len(_FLOWERS), count)]
    radius = 2.5 * roots.scale * random.uniform(0.6, 1.1, count)
    reach = int(np.ceil(radius.max(initial=1)))
    down, right = (part.ravel() for part in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    # Seen from the side they are wider than high.
    which, offset = np.nonzero((down * 1.35) ** 2 + right**2 < radius[:, None] ** 2)
    sun = 0.62 * (0.75 + (0.35 * right[offset] * daylight.side - 0.2 * down[offset]) / radius[which])
    colors = daylight.lit(tone[which], sun, 0.5)
    stamp(picture, row[which] + down[offset], roots.column[which] + right[offset], colors)


def _points(length: Field) -> tuple[npt.NDArray[np.intp], Field]:
    """Return, for all points of curves that are ``length`` pixels long, which curve each is of, and how far along."""
    counts = np.maximum(4, (length * 1.3).astype(np.intp))
    which = np.repeat(np.arange(counts.size), counts)
    first = np.cumsum(counts) - counts
    return which, ((np.arange(which.size) - first[which]) / counts[which]).astype(np.float32)


def _patches(random: np.random.Generator, rows: Field, columns: Field) -> Field:
    """Return smooth noise at scattered points, coordinates in cells."""
    first = np.floor(np.array([rows.min(), columns.min()]))
    last = np.ceil(np.array([rows.max(), columns.max()])) + 1
    steps = 6
    axes = [np.arange(int((high - low) * steps) + 1) / steps for low, high in zip(first, last, strict=True)]
    table = smooth_noise(random, *axes)
    result: Field = table[((rows - first[0]) * steps).astype(int), ((columns - first[1]) * steps).astype(int)]
    return result
