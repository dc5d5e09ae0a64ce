"""Measures of a gradient: distance from the expected one, random directions, difference quotients, complex steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops import Array

Function = Callable[[Array], Any]
"""A function of an array with a number as its value."""

COMPLEX_STEP = 1e-30
"""Length of a complex step: so small that its square vanishes next to any value; nothing is subtracted."""

SIMPLE_FACTORS = {"2": 2.0, "1/2": 0.5, "4": 4.0, "1/4": 0.25, "-1": -1.0, "255": 255.0, "1/255": 1 / 255}
"""Factors that people lose, by how they are written."""


@dataclass(frozen=True)
class Agreement:
    """The distance of a result from the expected one.

    Parameters
    ----------
    error : ``|found - expected| / |expected|`` in the L2 norm.
    cosine : of the angle between the two; 1 where only a factor is wrong.
    ratio : of the norms, found to expected.
    """

    error: float
    cosine: float
    ratio: float

    def factor(self, known: Mapping[str, float] | None = None) -> str | None:
        """Return the name of the factor that separates the two, or None where they differ by more, or not at all.

        Parameters
        ----------
        known : names and values to try besides ``SIMPLE_FACTORS``.
        """
        if not abs(self.cosine) > 1 - 1e-9 or self.error < 1e-6:
            return None
        signed = self.ratio if self.cosine > 0 else -self.ratio
        for name, value in {**SIMPLE_FACTORS, **(known or {})}.items():
            if abs(signed - value) < 1e-6 * abs(value):
                return name
        return f"{signed:.6g}"


def agreement(found: Array | float, expected: Array | float) -> Agreement:
    """Compare two arrays of the same shape, or two numbers."""
    a, b = np.ravel(np.asarray(found, np.float64)), np.ravel(np.asarray(expected, np.float64))
    if a.shape != b.shape:
        raise ValueError(f"found has the shape {np.shape(found)}, expected {np.shape(expected)}")
    size_a, size_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if size_a == 0 or size_b == 0:
        same = size_a == size_b
        return Agreement(0.0 if same else float("inf"), 1.0 if same else 0.0, 1.0 if same else float("inf"))
    error = float(np.linalg.norm(a - b)) / size_b
    return Agreement(error, float(a @ b) / (size_a * size_b), size_a / size_b)


def random_directions(shape: tuple[int, ...], count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return ``count`` directions whose elements are independent and normal: (count, *shape).

    Every coordinate takes part in every direction, so that a fault in a single one shows in all of them.
    """
    return random.standard_normal((count, *shape))


def along(gradient: Array, directions: Array) -> NDArray[np.float64]:
    """Return <gradient, d> for each direction d, in double precision: (count,)."""
    flat = np.asarray(gradient, np.float64).ravel()
    return np.array([flat @ direction.ravel() for direction in directions])


def complex_step(function: Function, x: Array, direction: Array, step: float = COMPLEX_STEP) -> float:
    """Return the derivative of ``function`` at ``x`` along ``direction``: Im f(x + i h d) / h.

    Exact to rounding for every small h, since nothing is subtracted (Squire and Trapp, "Using Complex Variables to
    Estimate Derivatives of Real Functions", 1998). The function must be analytic where it is smooth: plain transposes,
    no absolute values, branches by the real part.

    Parameters
    ----------
    function : takes complex128.
    x, direction : real arrays of the same shape.
    """
    return float(np.imag(function(x.astype(np.complex128) + 1j * step * direction)) / step)


def central_difference(function: Function, x: Array, direction: Array, step: float) -> float:
    """Return (f(x + h d) - f(x - h d)) / 2h: the derivative along d but for terms in h^2 and rounding / h."""
    return float((function(x + step * direction) - function(x - step * direction)) / (2 * step))
