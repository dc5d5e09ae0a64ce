"""CuPy's arrays and launches. The only file that uses CuPy; loaded when a device is asked for.

Nothing here has been run on a GPU yet: see docs/gpu.md.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import cupy
import numpy as np
from numpy.typing import NDArray

from kernels.cuda.geometry import Size
from kernels.cuda.source import TENSOR_MAP_BYTES, Kernel, program

Result = TypeVar("Result")


class CupyBackend:
    """The current CUDA device through CuPy; raises ValueError with the reason if there is none."""

    def __init__(self) -> None:
        try:
            devices = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise ValueError(f"CuPy finds no usable GPU: {error}") from None
        if not devices:
            raise ValueError("CuPy finds no GPU")
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self.capability = int(properties["major"]), int(properties["minor"])
        if self.capability < (7, 0):
            version = ".".join(map(str, self.capability))
            raise ValueError(f"the GPU has compute capability {version}, the kernels need 7.0 or later")
        self.multiprocessors = int(properties["multiProcessorCount"])
        self.wrong: Mapping[str, float] | None = None
        self._name = str(properties["name"].decode())

    def describe(self) -> str:
        """Return the device's name."""
        return self._name

    def versions(self) -> dict[str, str]:
        """Return the versions of the driver's and the runtime's CUDA, of NVRTC and of CuPy."""
        numbers = {"driver": cupy.cuda.runtime.driverGetVersion(), "runtime": cupy.cuda.runtime.runtimeGetVersion()}
        found = {f"CUDA {name}": f"{number // 1000}.{number % 1000 // 10}" for name, number in numbers.items()}
        return found | {"NVRTC": ".".join(map(str, cupy.cuda.nvrtc.getVersion())), "cupy": cupy.__version__}

    def free_bytes(self) -> int:
        """Return what the driver has left, and what CuPy's pool keeps for later."""
        free, _ = cupy.cuda.runtime.memGetInfo()
        return int(free) + int(cupy.get_default_memory_pool().free_bytes())

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
        return cupy.asnumpy(array)

    def record(self, function: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Capture a function's launches as a CUDA graph; see ``Backend.record``.

        Everything is captured on a separate stream, because the default stream cannot be captured. Memory comes from a
        separate pool, so nobody else is given what the graph writes to; the pool lives as long as the graph. The
        function is called once beforehand, to fill the pool and compile everything.
        """
        pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
        cupy.cuda.Device().synchronize()
        with cupy.cuda.using_allocator(pool.malloc), stream:
            function()
            stream.synchronize()
            stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
            try:
                result = function()
            finally:
                graph = stream.end_capture()

        def replay() -> None:
            # The pool is named here so that it is kept.
            assert pool is not None
            graph.launch()

        return result, replay

    def tensor_map(self, array: Any, sizes: Sequence[int], steps: Sequence[int], box: Sequence[int]) -> Any:
        """Return what cuTensorMapEncodeTiled of the driver makes; see ``Backend.tensor_map``.

        Its codes (cuda.h): 6 is float16; interleave 0 is none; swizzle 3 is 128 bytes; promotion 2 is to 128 bytes of
        the second-level cache; fill 0 is zeros.
        """
        memory = np.zeros(TENSOR_MAP_BYTES + 64, np.uint8)
        start = -memory.ctypes.data % 64
        result = memory[start : start + TENSOR_MAP_BYTES]
        rank = len(sizes)
        error = _driver().cuTensorMapEncodeTiled(
            ctypes.c_void_p(result.ctypes.data),
            6,
            rank,
            ctypes.c_void_p(array.data.ptr),
            (ctypes.c_uint64 * rank)(*sizes),
            (ctypes.c_uint64 * (rank - 1))(*steps),
            (ctypes.c_uint32 * rank)(*box),
            (ctypes.c_uint32 * rank)(*([1] * rank)),
            0,
            3,
            2,
            0,
        )
        if error:
            raise ValueError(f"cuTensorMapEncodeTiled failed with the error {error}")
        # An array of one element goes to a kernel by value.
        return result.view(f"V{TENSOR_MAP_BYTES}")

    def compile(self, kernel: Kernel) -> dict[str, int]:
        """Compile and load a kernel; return the registers of a thread and its bytes of local memory."""
        found = _compiled(kernel).attributes
        return {"registers": int(found["num_regs"]), "local bytes": int(found["local_size_bytes"])}

    def run(self, kernel: Kernel, grid: Size, block: Size, arguments: Sequence[Any], shared_bytes: int = 0) -> None:
        """Launch a kernel on the current stream."""
        compiled = _compiled(kernel)
        if shared_bytes > 48 << 10:
            compiled.max_dynamic_shared_size_bytes = shared_bytes
        compiled(grid, block, tuple(arguments), shared_mem=shared_bytes)


@cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


@cache
def _compiled(kernel: Kernel) -> Any:
    """Return the kernel of the current device; CuPy keeps the compiled code in its cache folder."""
    options = ("-arch=sm_90a",) if kernel.file == "hopper.cu" else ()
    return cupy.RawKernel(program(kernel.file, kernel.types), kernel.name, options=options)
