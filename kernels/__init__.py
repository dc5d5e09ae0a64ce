"""Array functions on one device: ``kernels.cpu`` (NumPy) and ``kernels.cuda`` (CuPy), alike in name and signature.

Shapes: an activation is ``(H, W, C)``, channels last and C-contiguous, for one image; a convolution's weight is
``(kernel height, kernel width, input channels / group, output channels)``.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import cpu


def kernels_of(array: object) -> ModuleType:
    """Return the kernels of the device that ``array`` lives on."""
    if isinstance(array, np.ndarray):
        return cpu
    if lives_on_cuda(array):
        from kernels import cuda

        return cuda
    raise TypeError(f"no kernels for arrays of type {type(array).__name__}")


def lives_on_cuda(array: object) -> bool:
    """Say whether ``array`` lies on the GPU."""
    from kernels.cuda import runtime

    return runtime.owns(array)


def to_host(array: Any) -> NDArray[Any]:
    """Return an array of any device in NumPy: itself, or a copy."""
    if isinstance(array, np.ndarray):
        return array
    from kernels.cuda import runtime

    return runtime.to_host(array)


def to_cuda(array: NDArray[Any]) -> Any:
    """Return a copy of a NumPy array on the GPU; raises ValueError where there is none."""
    from kernels.cuda import runtime

    return runtime.to_device(array)


def gpu_unavailable() -> str | None:
    """Return why there is no GPU to use, or None when there is one."""
    from kernels.cuda import runtime

    return runtime.unavailable()


def hopper_is_right() -> bool:
    """Say whether the kernels for compute capability 9.0 give right results; a warning says when they do not.

    Raises ValueError for a GPU that is another.
    """
    from kernels.cuda import runtime, trust

    capability = runtime.backend().capability
    if capability != (9, 0):
        raise ValueError(
            f"convolution 'hopper' needs compute capability 9.0, the GPU has {capability[0]}.{capability[1]}"
        )
    right = trust.hopper_is_right()
    if not right:
        warnings.warn(
            f"convolution 'hopper' is not used: its results on {runtime.describe()} are wrong",
            RuntimeWarning,
            stacklevel=2,
        )
    return right


def gpu_free_bytes() -> int:
    """Return how much of the GPU's memory can still be allocated; raises ValueError where there is none."""
    from kernels.cuda import runtime

    return runtime.free_bytes()


def gpu_versions() -> dict[str, str]:
    """Return the versions of the GPU's driver and libraries; raises ValueError where there is no GPU."""
    from kernels.cuda import runtime

    return runtime.versions()


def gpu_capability() -> tuple[int, int]:
    """Return the GPU's compute capability; raises ValueError where there is none."""
    from kernels.cuda import runtime

    return runtime.backend().capability


def tensor_cores_are_right(precision: str) -> bool:
    """Say whether convolutions on tensor cores give right results; a warning says when they do not.

    Parameters
    ----------
    precision : ``"float16"``, ``"tf32"``, or ``"float32"`` in three products of tf32. The GPU must have compute
        capability 8.0 or later.
    """
    from kernels.cuda import runtime, trust

    right = trust.implicit_gemm_is_right(precision)
    if not right:
        instead = ", it computes in float32 instead" if precision == "tf32" else ""
        warnings.warn(
            f"convolution 'tensor' is not used: its results in {precision} on {runtime.describe()} are wrong{instead}",
            RuntimeWarning,
            stacklevel=2,
        )
    return right


def gpu_distances() -> dict[str, float]:
    """Return by how much each kernel's results on the GPU differ from the CPU's, relative to the largest value.

    Raises ValueError where there is no GPU.
    """
    from kernels.cuda import trust

    return trust.distances()


def gpu_name() -> str:
    """Return the GPU's name; raises ValueError where there is none."""
    from kernels.cuda import runtime

    return runtime.describe()
