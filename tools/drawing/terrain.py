"""Land seen from above a lake: heights over a fan of rays, their light, and which of them a camera sees.

Land is kept on a fan: one column of samples to each direction u = X / Z, one row to each distance Z, the distances in
geometric progression. There X is to the right, Y up from the water and Z ahead, in metres. What is kept is not the
height Y but h = Y / Z, which is what one sees of it; noise in u and w = log Z then has the same grain everywhere in the
picture, for (u, w) is a conformal map of (X, Z) near the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.drawing.fields import Field, blur

UNDER_WATER = -1.0
"""The h of what is not to be seen, whatever its depth."""

_NOTHING = -3.0
_APART = 8.0


@dataclass(frozen=True)
class Camera:
    """Where a picture is taken from: looking along Z, level, over x = 0.

    Attributes
    ----------
    height, width : of the picture in pixels.
    focal : pixels to a unit of u.
    horizon : row of the horizon.
    eye : metres above the water; negative for the camera that sees what the water mirrors.
    """

    height: int
    width: int
    focal: float
    horizon: float
    eye: float

    def directions(self) -> tuple[Field, Field]:
        """Return u of the columns, shape (W,), and the elevation Y / Z of the rows, shape (H,)."""
        u = (np.arange(self.width, dtype=np.float32) + np.float32(0.5 - self.width / 2)) / np.float32(self.focal)
        elevation = (np.float32(self.horizon - 0.5) - np.arange(self.height, dtype=np.float32)) / np.float32(self.focal)
        return u, elevation

    def project(self, x: Field | float, y: Field | float, z: Field | float) -> tuple[Field, Field]:
        """Return row and column, in pixels, of points in metres."""
        row: Field = np.asarray(self.horizon - self.focal * (y - self.eye) / z)
        column: Field = np.asarray(self.width / 2 + self.focal * x / z)
        return row, column

    def mirrored(self) -> Camera:
        """Return the camera that sees, upright, what this one sees in the water."""
        return Camera(self.height, self.width, self.focal, self.horizon, -self.eye)


@dataclass(frozen=True, eq=False)
class Land:
    """Heights on a fan, ready to be seen.

    Attributes
    ----------
    distances : shape (D,), increasing, metres.
    heights : h, shape (D, W), or `UNDER_WATER`.
    colors : shape (D, W, 3), linear light that leaves the land and reaches the camera.
    """

    distances: Field
    heights: Field
    colors: Field


def distances(near: float, far: float, count: int) -> Field:
    """Return ``count`` distances from ``near`` to ``far`` in geometric progression."""
    return np.geomspace(near, far, count).astype(np.float32)


def normals(heights: Field, at: Field, u: Field) -> tuple[Field, Field, Field]:
    """Return the land's unit normals (to the right, up, ahead), each of shape (D, W).

    Parameters
    ----------
    heights : h, shape (D, W).
    at : the distances, shape (D,), in geometric progression.
    u : of the columns, shape (W,), evenly spaced.
    """
    slope_u = np.gradient(heights, float(u[1] - u[0]), axis=1)
    slope_w = np.gradient(heights, float(np.log(at[1] / at[0])), axis=0)
    # Y = Z h(X / Z, log Z): dY/dX = h_u, dY/dZ = h + h_w - u h_u.
    ahead = heights + slope_w - u * slope_u
    length = np.sqrt(1 + slope_u**2 + ahead**2)
    return -slope_u / length, 1 / length, -ahead / length


def sunlit(heights: Field, at: Field, u: Field, sun: tuple[float, float, float], reach: float) -> Field:
    """Return how much of the sun each place sees behind the land's own crests, shape (D, W), 0 to 1.

    Parameters
    ----------
    heights, at, u : as for `normals`.
    sun : the direction to the sun (to the right, up, ahead), not level.
    reach : how far a shadow may fall, relative to the distance.
    """
    right, up, ahead = sun
    level = float(np.hypot(right, ahead))
    right, ahead, climb = right / level, ahead / level, up / level
    step_u, step_w = float(u[1] - u[0]), float(np.log(at[1] / at[0]))
    covered = np.full(heights.shape, -1.0, np.float32)
    for part in np.geomspace(0.02, 1, 14) * reach:
        # A step of part * Z towards the sun, for a column in the middle of the picture.
        rows, columns = round(np.log1p(part * ahead) / step_w), round(part * right / (1 + part * ahead) / step_u)
        there = _moved(heights, rows, columns) * np.float32(1 + part * ahead)
        covered = np.maximum(covered, (there - heights) / np.float32(part) - np.float32(climb))
    result: Field = np.clip(0.5 - covered / 0.10, 0, 1)
    return result


def hollows(heights: Field, radius: float) -> Field:
    """Return how far each place lies below its surroundings of ``radius`` columns: h, shape (D, W)."""
    return blur(heights, radius) - heights


def see(land: Land, camera: Camera, picture: Field) -> Field:
    """Return the picture, shape (H, W, 3) in linear light, with the land before what was there."""
    _, elevation = camera.directions()
    count, width = land.heights.shape
    down = np.float32(camera.eye) / land.distances[:, None]
    covered = land.heights <= UNDER_WATER
    # From above one sees the water where the land is below it; from below one sees through.
    seen = np.where(covered, -down if camera.eye > 0 else _NOTHING, land.heights - down).astype(np.float32)
    # Along a ray away from the camera the highest so far hides the rest: a place is seen where that rises.
    crest = np.maximum.accumulate(seen, axis=0)
    rows = np.flatnonzero((elevation <= crest[-1].max()) & (elevation > seen[~covered].min(initial=_APART)))
    if not rows.size:
        return picture
    # One search for all columns: each is set apart from the last by more than heights can differ.
    apart = _APART * np.arange(width)[:, None]
    keys = (crest.T + apart).ravel()
    wanted = elevation[rows[::-1]][None, :] + apart
    found = np.searchsorted(keys, wanted.ravel()).reshape(wanted.shape) - np.arange(width)[:, None] * count
    hit = (found > 0) & (found < count)
    behind = np.clip(found, 1, count - 1)
    columns = np.broadcast_to(np.arange(width)[:, None], found.shape)
    low, high = crest[behind - 1, columns], crest[behind, columns]
    hit &= (low > _NOTHING) & ~covered[behind, columns]
    part = np.clip((elevation[rows[::-1]][None, :] - low) / np.maximum(high - low, 1e-9), 0, 1)[..., None]
    colors = land.colors[behind - 1, columns] * (1 - part) + land.colors[behind, columns] * part
    result = picture.copy()
    view = result[rows[0] : rows[-1] + 1]
    view[:] = np.where(hit.T[::-1, :, None], colors.transpose(1, 0, 2)[::-1], view)
    return result


def _moved(values: Field, rows: int, columns: int) -> Field:
    """Return values[i + rows, j + columns], the edges going on."""
    count, width = values.shape
    row = np.clip(np.arange(count) + rows, 0, count - 1)
    column = np.clip(np.arange(width) + columns, 0, width - 1)
    return values[row][:, column]
