"""A GPU as its kernels see it: memory, and launches that are checked before they are made.

Kernels and engine use an array on the GPU by its ``shape``, ``dtype``, ``size``, ``reshape`` and nothing else; all
arithmetic is done by the kernels of this folder. What runs them is the ``Backend``: CuPy's, or in the tests one that
runs the same sources on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kernels.cuda.geometry import Size, one_thread_each
from kernels.cuda.source import Kernel

Array = Any
"""An array on the GPU."""

Result = TypeVar("Result")


class Backend(Protocol):
    """What runs the kernels."""

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

    def compile(self, kernel: Kernel) -> dict[str, int]:
        """Compile a kernel and return what it uses, by name: registers, bytes of local memory; empty if not known."""
        ...

    def run(self, kernel: Kernel, grid: Size, block: Size, arguments: Sequence[Any], shared_bytes: int = 0) -> None:
        """Launch a kernel with arguments that have been checked, and dynamic shared memory."""
        ...


class Launcher:
    """One GPU: its memory and its launches.

    Parameters
    ----------
    backend : what runs them.
    splits_products : whether products of float32 numbers, such as Gram matrices, are made on tensor cores, in three
        products of tf32 parts; for compute capability 8.0 and later.
    """

    def __init__(self, backend: Backend, splits_products: bool = False) -> None:
        self.backend = backend
        self.splits_products = splits_products

    @property
    def name(self) -> str:
        """The GPU's name."""
        return self.backend.describe()

    @property
    def capability(self) -> tuple[int, int]:
        """Its compute capability."""
        return self.backend.capability

    @property
    def multiprocessors(self) -> int:
        """How many multiprocessors it has."""
        return self.backend.multiprocessors

    def versions(self) -> dict[str, str]:
        """Return the versions of what the kernels are compiled and run by."""
        return self.backend.versions()

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory can still be allocated."""
        return self.backend.free_bytes()

    def holds(self, array: object) -> bool:
        """Say whether ``array`` lies on the GPU."""
        return self.backend.owns(array)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a new array on the GPU with undefined values."""
        return self.backend.empty(shape, np.dtype(dtype))

    def put(self, array: Any) -> Array:
        """Return an array on the GPU: itself if it lies there, else a copy of a NumPy array, C-contiguous."""
        return array if self.holds(array) else self.backend.upload(np.ascontiguousarray(array))

    def fetch(self, array: Any) -> NDArray[Any]:
        """Return an array in NumPy: itself if it is one, else a copy, after all work so far is done."""
        return array if isinstance(array, np.ndarray) else self.backend.download(array)

    def record(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Record what a function launches; return its result and what makes the same launches again."""
        return self.backend.record(function)

    def tensor_map(self, array: Array, sizes: Sequence[int], steps: Sequence[int], box: Sequence[int]) -> Any:
        """Return the tensor map of a float16 array; see ``Backend.tensor_map``."""
        return self.backend.tensor_map(array, sizes, steps, box)

    def launch(
        self,
        file: str,
        name: str,
        grid: Size,
        block: Size,
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        **types: np.dtype[Any] | type,
    ) -> None:
        """Launch a kernel.

        Parameters
        ----------
        file, name : of the source and the kernel in it.
        grid, block : blocks, and threads of each.
        arguments : in the order of the declaration: arrays on the GPU and numbers.
        shared_bytes : dynamic shared memory of a block.
        types : element type of each macro of the source.

        Raises TypeError or ValueError when the arguments do not fit the declaration.
        """
        kernel = _kernel(file, name, tuple(types.items()))
        self.backend.run(kernel, grid, block, kernel.checked(grid, block, arguments), shared_bytes)

    def launch_for_each(
        self, file: str, name: str, count: int, arguments: Sequence[Any], **types: np.dtype[Any] | type
    ) -> None:
        """Launch a kernel of which each thread owns one of ``count`` values; see ``launch``."""
        grid, block = one_thread_each(count)
        self.launch(file, name, grid, block, arguments, 0, **types)


@cache
def _kernel(file: str, name: str, types: tuple[tuple[str, Any], ...]) -> Kernel:
    return Kernel(file, name, tuple(sorted((macro, np.dtype(dtype)) for macro, dtype in types)))
