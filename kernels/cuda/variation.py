"""Total variation of an image and its gradient; the twin of ``kernels/cpu/variation.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cuda.launcher import Array, Launcher
from kernels.cuda.reductions import summed


def variation(gpu: Launcher, image: Array, divisor: float, epsilon: float | None = None, *, wrap: bool = False) -> Any:
    """Return the sum over all values of what the steps to the next row and column come to, over ``divisor``.

    Parameters
    ----------
    image : (H, W, C), float64.
    epsilon : None adds up ``(d_y^2 + d_x^2) / 2``, a number ``sqrt(d_y^2 + d_x^2 + epsilon^2) - epsilon``.
    wrap : whether the first row and column come behind the last ones; else the step there is 0.
    """
    after = (*image.shape, *_form(epsilon, wrap))
    return summed(gpu, "variation.cu", "variation", image.size, (image,), after, divisor)


def variation_gradient(
    gpu: Launcher,
    image: Array,
    factor: float,
    epsilon: float | None = None,
    *,
    wrap: bool = False,
    add_to: Array | None = None,
) -> Array:
    """Return ``factor`` times the gradient of ``variation`` (with divisor 1) with respect to the image.

    Parameters
    ----------
    image, epsilon, wrap : as in ``variation``.
    add_to : (H, W, C), float64, to which the gradient is added in place instead of going to a new array.
    """
    target = gpu.empty(image.shape, np.float64) if add_to is None else add_to
    arguments = (image, target, *image.shape, *_form(epsilon, wrap), factor, int(add_to is not None))
    gpu.launch_for_each("variation.cu", "variation_gradient", image.size, arguments)
    return target


def _form(epsilon: float | None, wrap: bool) -> tuple[int, int, float]:
    """Return whether the image goes on with its other side, whether the steps' squares are added up, and epsilon."""
    return (int(wrap), 1, 0.0) if epsilon is None else (int(wrap), 0, epsilon)
