"""Steps of the first-order optimizers, in double precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's constants, as its authors recommend them."""


def scaled(values: Vector, factor: float, *, out: Vector | None = None) -> Vector:
    """Return ``values * factor``, written to ``out`` if that is given."""
    return np.multiply(np.asarray(values, np.float64), factor, out=out)


def zeros(shape: tuple[int, ...]) -> Vector:
    """Return an array of zeros."""
    return np.zeros(shape)


def adam_step(
    image: Vector, gradient: Vector, mean: Vector, square: Vector, t: int, rate: float, bounds: tuple[float, float]
) -> Vector:
    """Return the image after step ``t`` of Adam (Kingma and Ba 2015, algorithm 1), clipped to the bounds.

    Parameters
    ----------
    image, gradient : of one shape.
    mean, square : the running means of gradient and squared gradient, updated in place.
    t : number of the step, from 1.
    rate : learning rate.
    bounds : lowest and highest value.
    """
    mean += (1 - BETA_1) * (gradient - mean)
    square += (1 - BETA_2) * (gradient * gradient - square)
    step = mean / (1 - BETA_1**t) / (np.sqrt(square / (1 - BETA_2**t)) + EPSILON)
    return np.clip(image - rate * step, *bounds)


def momentum_step(
    image: Vector, gradient: Vector, velocity: Vector, momentum: float, rate: float, bounds: tuple[float, float]
) -> Vector:
    """Return the image after a step of gradient descent with momentum (Polyak 1964), clipped to the bounds.

    Parameters
    ----------
    image, gradient : of one shape.
    velocity : the last step, which is replaced by this one in place.
    momentum : the part of the last step that is kept.
    rate : learning rate.
    bounds : lowest and highest value.
    """
    velocity *= momentum
    velocity -= rate * gradient
    return np.clip(image + velocity, *bounds)
