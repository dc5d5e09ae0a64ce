"""The light of an evening: where the sun stands, what it and the sky give, and what the air adds on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.drawing.colors import light, mix
from tools.drawing.fields import Field

SUNLIGHT: Field = np.array([1.55, 1.12, 0.72], np.float32)
"""What falls on a surface that faces the sun, linear red, green and blue; white paper in the shade has about 0.4."""

SKYLIGHT: Field = np.array([0.26, 0.36, 0.52], np.float32)
"""What falls from the whole sky on a surface that faces up."""


@dataclass(frozen=True)
class Daylight:
    """Where the light comes from.

    Attributes
    ----------
    side : of the picture that the sun is on, -1 (left) or 1.
    u, elevation : where the sun is seen, as X / Z and Y / Z.
    """

    side: int
    u: float
    elevation: float

    @property
    def to_sun(self) -> tuple[float, float, float]:
        """A direction to the sun (right, up, ahead) that models well.

        It is more from the side than where the sun is seen: from there all that one sees would be in the shade.
        """
        return 0.86 * self.side, 0.3, 0.22

    def lit(self, surface: Field, sun: Field | float, sky: Field | float) -> Field:
        """Return the light that leaves surfaces of colours (..., 3), given the parts of sun and sky that reach them."""
        sun, sky = np.asarray(sun)[..., None], np.asarray(sky)[..., None]
        result: Field = (surface * (sun * SUNLIGHT + sky * SKYLIGHT)).astype(np.float32)
        return result

    def through_air(self, colors: Field, heights: Field, distances: Field, u: Field) -> Field:
        """Return colours as they arrive through air that is thicker low down and brighter towards the sun.

        Parameters
        ----------
        colors, heights, distances : as in `tools.drawing.terrain.Land`.
        u : of the columns, shape (W,).
        """
        metres = distances[:, None]
        thickness = metres / 11500 * (0.35 + 0.65 * np.exp(-np.maximum(heights, 0) * metres / 900))
        clear = np.exp(-thickness).astype(np.float32)
        towards_sun = np.exp(-(((u - self.u) / 0.35) ** 2))
        haze = mix(light("7f9cc4"), light("f3c99a"), 0.15 + 0.75 * towards_sun)
        return mix(haze, colors, clear)
