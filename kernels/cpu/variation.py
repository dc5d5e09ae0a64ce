"""Total variation of an image, the steps between neighboring pixels, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import strips

Array = NDArray[Any]

# Values a strip: some rows, in cache together with what is made of them.
_STRIP = 1 << 16


def variation(
    threads: Threads, image: Array, divisor: float, epsilon: float | None = None, *, wrap: bool = False
) -> Any:
    """Return the sum over all values of what the steps to the next row and column come to, over ``divisor``.

    Parameters
    ----------
    image : (H, W, C), floating or complex.
    epsilon : None adds up ``(d_y^2 + d_x^2) / 2``, a number ``sqrt(d_y^2 + d_x^2 + epsilon^2) - epsilon``.
    wrap : whether the first row and column come behind the last ones; else the step there is 0.
    """

    def strip(bounds: tuple[int, int]) -> Any:
        down, along = _steps(image, *bounds, wrap)
        squares = down * down + along * along
        if epsilon is None:
            return squares.sum().item() / 2
        return (np.sqrt(squares + epsilon**2) - epsilon).sum().item()

    return sum(threads.map(strip, _strips(image))) / divisor


def variation_gradient(
    threads: Threads,
    image: Array,
    factor: float,
    epsilon: float | None = None,
    *,
    wrap: bool = False,
    add_to: Array | None = None,
) -> Array:
    """Return ``factor`` times the gradient of ``variation`` (with divisor 1) with respect to the image.

    Each value gets what its own steps give with the opposite sign, and what the step to it from above and from the
    left gives.

    Parameters
    ----------
    image, epsilon, wrap : as in ``variation``.
    add_to : (H, W, C), to which the gradient is added in place instead of going to a new array.
    """
    gradient = np.zeros(image.shape, image.dtype) if add_to is None else add_to

    def derivatives(top: int, bottom: int) -> tuple[Array, Array]:
        down, along = _steps(image, top, bottom, wrap)
        if epsilon is None:
            return down, along
        length = np.sqrt(down * down + along * along + epsilon**2)
        return down / length, along / length

    def strip(bounds: tuple[int, int]) -> None:
        top, bottom = bounds
        down, along = derivatives(top, bottom)
        own = -down - along
        own[:, 1:] += along[:, :-1]
        if wrap:
            own[:, 0] += along[:, -1]
        own[1:] += down[:-1]
        if top or wrap:
            above = (top - 1) % len(image)
            own[0] += derivatives(above, above + 1)[0][0]
        gradient[top:bottom] += factor * own

    threads.map(strip, _strips(image))
    return gradient


def _steps(image: Array, top: int, bottom: int, wrap: bool) -> tuple[Array, Array]:
    """Return the steps from some rows to the next row and to the next column, (bottom - top, W, C) each."""
    rows = image[top:bottom]
    down, along = np.zeros(rows.shape, image.dtype), np.zeros(rows.shape, image.dtype)
    following = image[top + 1 : bottom + 1]
    down[: len(following)] = following - rows[: len(following)]
    along[:, :-1] = rows[:, 1:] - rows[:, :-1]
    if wrap:
        along[:, -1] = rows[:, 0] - rows[:, -1]
        if bottom == len(image):
            down[-1] = image[0] - rows[-1]
    return down, along


def _strips(image: Array) -> list[tuple[int, int]]:
    return strips(len(image), max(1, _STRIP // max(1, image[0].size)))
