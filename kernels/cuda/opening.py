"""Opening the GPU: once a process, after its kernels have been compared with the CPU's."""

from __future__ import annotations

import warnings
from functools import cache

from kernels.cuda import selftest
from kernels.cuda.device import Cuda


def open_cuda() -> Cuda:
    """Return the current GPU through CuPy; raises ValueError with the reason if there is none.

    The first time, the kernels are compared with the CPU's; a GPU on which they are wrong is not used, and a warning
    says so.
    """
    found = _opened()
    if isinstance(found, str):
        raise ValueError(found)
    return found


def connect() -> Cuda:
    """Return the current GPU through CuPy, its kernels not compared; raises ValueError where there is none.

    What measures a GPU goes on where one kernel of many is wrong; all others call ``open_cuda``.
    """
    try:
        from kernels.cuda.cupy_backend import CupyBackend
    except ImportError as error:
        raise ValueError(f"CuPy cannot be loaded ({error}): pip install '.[cuda13]' or '.[cuda12]'") from None
    return Cuda(CupyBackend())


@cache
def _opened() -> Cuda | str:
    """Return the GPU, or the reason why none can be used."""
    try:
        gpu = connect()
    except ValueError as error:
        return str(error)
    wrong = selftest.wrong_kernels(gpu)
    if wrong:
        names = ", ".join(f"{name} by {distance:.1g}" for name, distance in wrong.items())
        reason = f"kernels give other results on {gpu.name} than on the CPU, relative: {names}"
        warnings.warn(f"the GPU is not used: {reason}", RuntimeWarning, stacklevel=3)
        return reason
    return gpu


def unavailable() -> str | None:
    """Return the reason why no GPU can be used, or None if one can."""
    try:
        open_cuda()
    except ValueError as error:
        return str(error)
    return None


def hopper_is_right(gpu: Cuda) -> bool:
    """Say whether the kernels for compute capability 9.0 give right results; a warning says when they do not.

    Raises ValueError for a GPU that is another.
    """
    if gpu.capability != (9, 0):
        found = ".".join(map(str, gpu.capability))
        raise ValueError(f"convolution 'hopper' needs compute capability 9.0, the GPU has {found}")
    right = selftest.hopper_is_right(gpu)
    if not right:
        warnings.warn(
            f"convolution 'hopper' is not used: its results on {gpu.name} are wrong", RuntimeWarning, stacklevel=2
        )
    return right


def tensor_cores_are_right(gpu: Cuda, precision: str) -> bool:
    """Say whether convolutions on tensor cores give right results; a warning says when they do not.

    Parameters
    ----------
    gpu : of compute capability 8.0 or later.
    precision : ``"float16"``, ``"tf32"``, or ``"float32"`` in three products of tf32.
    """
    right = selftest.implicit_gemm_is_right(gpu, precision)
    if not right:
        instead = ", it computes in float32 instead" if precision == "tf32" else ""
        warnings.warn(
            f"convolution 'tensor' is not used: its results in {precision} on {gpu.name} are wrong{instead}",
            RuntimeWarning,
            stacklevel=2,
        )
    return right
