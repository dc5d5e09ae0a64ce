"""The device as the kernels see it: arrays and launches. Launches are checked before they are made.

Kernels and engine use an array on the device by its ``shape``, ``dtype``, ``size``, ``reshape`` and nothing else; all
arithmetic is done by the kernels of this folder. What does it is the ``Backend``: CuPy's, or in the tests one that runs
the same sources on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.geometry import Size, one_thread_each
from kernels.cuda.source import Kernel

Array = Any
"""An array on the device."""

Result = TypeVar("Result")


class Backend(Protocol):
    """What runs the kernels."""

    wrong: Mapping[str, float] | None
    """The kernels that were found to be wrong, see kernels/cuda/trust.py; None before they have been compared."""

    def describe(self) -> str:
        """Return the device's name."""
        ...

    def owns(self, array: object) -> bool:
        """Say whether ``array`` is one of the device's."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return a new array with undefined values."""
        ...

    def upload(self, array: NDArray[Any]) -> Array:
        """Return a copy on the device, C-contiguous."""
        ...

    def download(self, array: Array) -> NDArray[Any]:
        """Return a copy in NumPy, after all work so far is done."""
        ...

    def record(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Call a function that only launches, and return its result and what makes the same launches again.

        Whether the launches of the call itself are made is open. The arrays that they read and write stay the same.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Return the versions of what the kernels are compiled and run by."""
        ...

    def free_bytes(self) -> int:
        """Return how much memory can still be allocated."""
        ...

    @property
    def capability(self) -> tuple[int, int]:
        """The device's compute capability."""
        ...

    @property
    def multiprocessors(self) -> int:
        """How many multiprocessors the device has."""
        ...

    def tensor_map(self, array: Array, sizes: Sequence[int], steps: Sequence[int], box: Sequence[int]) -> Any:
        """Return the tensor map of a float16 array, for a kernel's argument of that type.

        Parameters
        ----------
        array : C-contiguous; it must live as long as the map is used.
        sizes : of the dimensions, the fastest first.
        steps : bytes from one to the next in all dimensions but the first.
        box : what one copy fetches; rows of 128 bytes, with the 128-byte swizzle; zeros from outside.
        """
        ...

    def run(self, kernel: Kernel, grid: Size, block: Size, arguments: Sequence[Any], shared_bytes: int = 0) -> None:
        """Launch a kernel with arguments that have been checked, and dynamic shared memory."""
        ...


@cache
def backend() -> Backend:
    """Return CuPy's backend; raises ValueError with the reason where there is none."""
    try:
        from kernels.cuda.cupy_backend import CupyBackend
    except ImportError as error:
        raise ValueError(f"CuPy cannot be loaded ({error}): pip install '.[cuda13]' or '.[cuda12]'") from None
    return CupyBackend()


def unavailable() -> str | None:
    """Return why nothing can be run, or None when it can.

    The first time, the kernels are compared with the CPU's; a device on which they are wrong is not used, and a warning
    says so.
    """
    try:
        device = backend()
    except ValueError as error:
        return str(error)
    if device.wrong is None:
        from kernels.cuda.trust import wrong_kernels

        device.wrong = {}  # for the comparison itself
        device.wrong = wrong_kernels()
        if device.wrong:
            warnings.warn(f"the GPU is not used: {_wrong_results(device)}", RuntimeWarning, stacklevel=2)
    return _wrong_results(device) if device.wrong else None


def _wrong_results(device: Backend) -> str:
    names = ", ".join(f"{name} by {distance:.1g}" for name, distance in (device.wrong or {}).items())
    return f"kernels give other results on {device.describe()} than on the CPU, relative: {names}"


def describe() -> str:
    """Return the device's name."""
    return backend().describe()


def versions() -> dict[str, str]:
    """Return the versions of what the kernels are compiled and run by."""
    return backend().versions()


def free_bytes() -> int:
    """Return how much of the device's memory can still be allocated."""
    return backend().free_bytes()


def owns(array: object) -> bool:
    """Say whether ``array`` lives on the device."""
    # Whoever holds such an array has CuPy loaded; to others this must not be a reason to load it.
    foreign = hasattr(array, "dtype") and not isinstance(array, np.ndarray | np.generic)
    return foreign and unavailable() is None and backend().owns(array)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return a new array on the device with undefined values."""
    return backend().empty(shape, np.dtype(dtype))


def to_device(array: NDArray[Any]) -> Array:
    """Return a copy of a NumPy array on the device, C-contiguous."""
    return backend().upload(np.ascontiguousarray(array))


def to_host(array: Array) -> NDArray[Any]:
    """Return a copy of an array on the device in NumPy, after all work so far is done."""
    return backend().download(array)


def record(function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
    """Record what a function launches, and return its result and what makes the same launches again."""
    return backend().record(function)


def launch(
    file: str,
    name: str,
    grid: Size,
    block: Size,
    arguments: Sequence[Any],
    **types: np.dtype[Any] | type,
) -> None:
    """Launch a kernel.

    Parameters
    ----------
    file, name : of the source and the kernel in it.
    grid, block : blocks, and threads of each.
    arguments : in the order of the declaration: arrays on the device and numbers.
    types : element type of each macro of the source.

    Raises TypeError or ValueError when the arguments do not fit the declaration.
    """
    _launch(_kernel(file, name, tuple(types.items())), grid, block, arguments)


def launch_with_memory(
    file: str,
    name: str,
    grid: Size,
    block: Size,
    arguments: Sequence[Any],
    shared_bytes: int,
    **types: np.dtype[Any] | type,
) -> None:
    """Launch a kernel that takes dynamic shared memory; see ``launch``."""
    _launch(_kernel(file, name, tuple(types.items())), grid, block, arguments, shared_bytes)


@cache
def _kernel(file: str, name: str, types: tuple[tuple[str, Any], ...]) -> Kernel:
    return Kernel(file, name, tuple(sorted((macro, np.dtype(dtype)) for macro, dtype in types)))


def _launch(kernel: Kernel, grid: Size, block: Size, arguments: Sequence[Any], shared_bytes: int = 0) -> None:
    backend().run(kernel, grid, block, kernel.checked(grid, block, arguments), shared_bytes)


def launch_for_each(file: str, name: str, count: int, arguments: Sequence[Any], **types: np.dtype[Any] | type) -> None:
    """Launch a kernel of which each thread owns one of ``count`` values; see ``launch``."""
    grid, block = one_thread_each(count)
    launch(file, name, grid, block, arguments, **types)
