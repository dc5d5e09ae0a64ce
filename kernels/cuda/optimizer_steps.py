"""Steps of the first-order optimizers, in double precision; the counterpart of ``kernels/cpu/optimizer_steps.py``."""

from __future__ import annotations

import numpy as np

from kernels.cpu.optimizer_steps import BETA_1, BETA_2, EPSILON
from kernels.cuda.launcher import Array, Launcher


def scaled(gpu: Launcher, values: Array, factor: float, *, out: Array | None = None) -> Array:
    """Return ``values * factor``, written to ``out`` if that is given."""
    output = gpu.empty(values.shape, np.float64) if out is None else out
    gpu.launch_for_each("optimizer_steps.cu", "scaled", values.size, (values, output, values.size, factor))
    return output


def zeros(gpu: Launcher, shape: tuple[int, ...]) -> Array:
    """Return an array of zeros."""
    output = gpu.empty(shape, np.float64)
    gpu.launch_for_each("optimizer_steps.cu", "fill", output.size, (output, output.size, 0.0))
    return output


def adam_step(
    gpu: Launcher,
    image: Array,
    gradient: Array,
    mean: Array,
    square: Array,
    t: int,
    rate: float,
    bounds: tuple[float, float],
) -> Array:
    """Return the image after step ``t`` of Adam (Kingma and Ba 2015, algorithm 1), clipped to the bounds.

    Parameters
    ----------
    image, gradient : of one shape, float64.
    mean, square : the running means of gradient and squared gradient, updated in place.
    t : number of the step, from 1.
    rate : learning rate.
    bounds : lowest and highest value.
    """
    output = gpu.empty(image.shape, np.float64)
    numbers = (BETA_1, BETA_2, 1 - BETA_1**t, 1 - BETA_2**t, EPSILON, rate, *bounds)
    arguments = (image, gradient, mean, square, output, image.size, *numbers)
    gpu.launch_for_each("optimizer_steps.cu", "adam_step", image.size, arguments)
    return output


def momentum_step(
    gpu: Launcher,
    image: Array,
    gradient: Array,
    velocity: Array,
    momentum: float,
    rate: float,
    bounds: tuple[float, float],
) -> Array:
    """Return the image after a step of gradient descent with momentum (Polyak 1964), clipped to the bounds.

    Parameters
    ----------
    image, gradient : of one shape, float64.
    velocity : the last step, which is replaced by this one in place.
    momentum : the part of the last step that is kept.
    rate : learning rate.
    bounds : lowest and highest value.
    """
    output = gpu.empty(image.shape, np.float64)
    arguments = (image, gradient, velocity, output, image.size, momentum, rate, *bounds)
    gpu.launch_for_each("optimizer_steps.cu", "momentum_step", image.size, arguments)
    return output
