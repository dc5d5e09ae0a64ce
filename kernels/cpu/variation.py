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


def variation(threads: Threads, image: Array, divisor: float, epsilon: float | None = None) -> Any:
    """Return the sum over all values of what the steps to the next row and column come to, over ``divisor``.

    Parameters
    ----------
    image : (H, W, C), floating or complex.
    epsilon : None adds up ``(d_y^2 + d_x^2) / 2``, a number ``sqrt(d_y^2 + d_x^2 + epsilon^2) - epsilon``. Beyond the
        last row and column the step is 0.
    """

    def strip(bounds: tuple[int, int]) -> Any:
        down, along = _steps(image, *bounds)
        squares = down * down + along * along
        if epsilon is None:
            return squares.sum().item() / 2
        return (np.sqrt(squares + epsilon**2) - epsilon).sum().item()

    return sum(threads.map(strip, _strips(image))) / divisor


def variation_gradient(
    threads: Threads, image: Array, factor: float, epsilon: float | None = None, *, add_to: Array | None = None
) -> Array:
    """Return ``factor`` times the gradient of ``variation`` (with divisor 1) with respect to the image.

    Each value gets what its own steps give with the opposite sign, and what the step to it from above and from the
    left gives.

    Parameters
    ----------
    image, epsilon : as in ``variation``.
    add_to : (H, W, C), to which the gradient is added in place instead of going to a new array.
    """
    gradient = np.zeros(image.shape, image.dtype) if add_to is None else add_to

    def strip(bounds: tuple[int, int]) -> None:
        top, bottom = bounds
        above = min(top, 1)
        down, along = _steps(image, top - above, bottom)
        if epsilon is not None:
            length = np.sqrt(down * down + along * along + epsilon**2)
            down, along = down / length, along / length
        own = -down[above:] - along[above:]
        own[:, 1:] += along[above:, :-1]
        own[1 - above :] += down[: bottom - top - 1 + above]
        gradient[top:bottom] += factor * own

    threads.map(strip, _strips(image))
    return gradient


def _steps(image: Array, top: int, bottom: int) -> tuple[Array, Array]:
    """Return the steps from some rows to the next row and to the next column, (bottom - top, W, C) each."""
    rows = image[top:bottom]
    down, along = np.zeros(rows.shape, image.dtype), np.zeros(rows.shape, image.dtype)
    following = image[top + 1 : bottom + 1]
    down[: len(following)] = following - rows[: len(following)]
    along[:, :-1] = rows[:, 1:] - rows[:, :-1]
    return down, along


def _strips(image: Array) -> list[tuple[int, int]]:
    return strips(len(image), max(1, _STRIP // max(1, image[0].size)))
