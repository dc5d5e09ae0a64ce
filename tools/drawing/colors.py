"""Colours: names in hexadecimal, mixing, and the way from linear light or sRGB values to bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tools.drawing.fields import Field


def color(code: str) -> Field:
    """Return ``"rrggbb"`` as sRGB values from 0 to 1, shape (3,)."""
    return np.array([int(code[k : k + 2], 16) for k in (0, 2, 4)], np.float32) / np.float32(255)


def colors(*codes: str) -> Field:
    """Return colours as `color` does, shape (len(codes), 3)."""
    return np.stack([color(code) for code in codes])


def light(code: str) -> Field:
    """Return ``"rrggbb"`` as linear light from 0 to 1, shape (3,)."""
    values = color(code)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def mix(first: Field, second: Field, part: Field | float) -> Field:
    """Return ``first`` where ``part`` is 0, ``second`` where it is 1.

    Parameters
    ----------
    first, second : shape (..., 3).
    part : a number, or shape (...) without the colours' axis.
    """
    weight = np.asarray(part, np.float32)[..., None]
    result: Field = first + (second - first) * weight
    return result


def ramp(stops: Sequence[float] | Field, codes: Field, values: Field) -> Field:
    """Return colours that go through ``codes``, shape (n, 3), as ``values``, shape (...), go through ``stops``."""
    return np.stack([np.interp(values, stops, codes[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def to_bytes(values: Field) -> npt.NDArray[np.uint8]:
    """Return sRGB values from 0 to 1 as bytes."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def to_srgb(values: Field) -> Field:
    """Return linear light, clipped to 0 to 1, as sRGB values."""
    values = np.clip(values, 0, 1)
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055).astype(np.float32)
