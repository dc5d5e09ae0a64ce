"""CuPy's arrays and launches. The only file that uses CuPy; loaded when a device is asked for.

Nothing here has been run on a GPU yet: see docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import cupy
import numpy as np
from numpy.typing import NDArray

from kernels.cuda.geometry import Size
from kernels.cuda.source import Kernel, program

Result = TypeVar("Result")


class CupyBackend:
    """The current CUDA device through CuPy; raises ValueError with the reason where there is none."""

    def __init__(self) -> None:
        try:
            devices = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise ValueError(f"CuPy finds no usable GPU: {error}") from None
        if not devices:
            raise ValueError("CuPy finds no GPU")
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        if properties["major"] < 7:
            version = f"{properties['major']}.{properties['minor']}"
            raise ValueError(f"the GPU has compute capability {version}, the kernels need 7.0 or later")
        self.wrong: Mapping[str, float] | None = None
        self._name = str(properties["name"].decode())

    def describe(self) -> str:
        """Return the device's name."""
        return self._name

    def owns(self, array: object) -> bool:
        """Say whether ``array`` is CuPy's."""
        return isinstance(array, cupy.ndarray)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """Return a new array from CuPy's pool."""
        return cupy.empty(shape, dtype)

    def upload(self, array: NDArray[Any]) -> Any:
        """Return a copy on the device."""
        return cupy.asarray(array, order="C")

    def download(self, array: Any) -> NDArray[Any]:
        """Return a copy in NumPy; waits for the device."""
        copy: NDArray[Any] = cupy.asnumpy(array)
        return copy

    def record(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Capture a function's launches as a CUDA graph; see ``Backend.record``.

        Everything is captured on a stream of its own, for the default stream cannot be. Memory comes from a pool of its
        own, so that nobody else is given what the graph writes to: the pool lives as long as the graph does. It is
        called once before, to fill the pool, for memory cannot be asked of the device during a capture.
        """
        pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
        cupy.cuda.Device().synchronize()
        with cupy.cuda.using_allocator(pool.malloc), stream:
            function()
            stream.synchronize()
            stream.begin_capture()
            try:
                result = function()
            finally:
                graph = stream.end_capture()

        def replay() -> None:
            # The pool is named here so that it is kept.
            assert pool is not None
            graph.launch()

        return result, replay

    def run(self, kernel: Kernel, grid: Size, block: Size, arguments: Sequence[Any]) -> None:
        """Launch a kernel on the current stream."""
        _compiled(kernel)(grid, block, tuple(arguments))


@cache
def _compiled(kernel: Kernel) -> Any:
    """Return the kernel of the current device; CuPy keeps the compiled code in its cache folder."""
    return cupy.RawKernel(program(kernel.file, kernel.types), kernel.name)
