"""Array functions on one device: ``kernels.cpu`` (NumPy) and ``kernels.cuda`` (CuPy) with the same names in both.

Shapes: an activation is ``(H, W, C)``, channels last and C-contiguous, for one image; a convolution's weight is
``(kernel height, kernel width, input channels / group, output channels)``.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from kernels import cpu


def kernels_of(array: object) -> ModuleType:
    """Return the kernels of the device that ``array`` lives on."""
    if isinstance(array, np.ndarray):
        return cpu
    raise TypeError(f"no kernels for arrays of type {type(array).__name__}")
