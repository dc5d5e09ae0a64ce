"""A backend for ``kernels.cuda.launcher`` that runs the very launches a GPU would get on the CPU.

The same sources, compiled by g++ behind shim.cpp and shim_warp.cpp, get the same grid, block and arguments. Arrays "on
the device" can do nothing but what the kernels rely on: arithmetic on them, or NumPy functions, raise. New memory is
filled with not-a-number, and lies between guards that are checked after each launch. It is slow, about 10^8 simple
operations a second, but a kernel that is right here has its indices, its bounds and its barriers right. Instructions
that no CPU has stand in functions of their own in a source; for those of hopper.cu, shim_hopper.cpp has the same
functions.
"""

import ctypes
import re
import subprocess
from pathlib import Path

import numpy as np

from kernels.cuda.source import FOLDER, TENSOR_MAP, TENSOR_MAP_BYTES, Kernel, program
from tests.sharing import alone

SHIMS = [Path(__file__).with_name(name) for name in ("shim.cpp", "shim_warp.cpp")]
FURTHER_SHIMS = {"hopper.cu": Path(__file__).with_name("shim_hopper.cpp")}
GUARD = 512


class DeviceArray:
    """Memory "on the device": a shape, a dtype, reshaping and slices of whole rows, as CuPy has them."""

    __array_ufunc__ = None

    def __init__(self, memory, values):
        self._memory = memory
        self.values = values
        self.shape, self.dtype, self.size = values.shape, values.dtype, values.size
        self.ndim, self.nbytes, self.flags = values.ndim, values.nbytes, values.flags

    @classmethod
    def empty(cls, shape, dtype):
        dtype = np.dtype(dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        memory = np.full(GUARD + size + GUARD, 0xFF, np.uint8)
        return cls(memory, memory[GUARD : GUARD + size].view(dtype).reshape(shape))

    def reshape(self, *shape):
        view = self.values.view()
        view.shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        return DeviceArray(self._memory, view)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        assert rows.step is None, "only whole rows, so that it stays contiguous"
        return DeviceArray(self._memory, self.values[rows])

    def __array__(self, *arguments, **options):
        raise TypeError("an array on the device is not converted to NumPy by itself")

    def __iter__(self):
        raise TypeError("an array on the device is not read value by value")

    def check_guards(self, kernel):
        for guard in (self._memory[:GUARD], self._memory[-GUARD:]):
            if not (guard == 0xFF).all():
                raise AssertionError(f"kernel {kernel.name!r} wrote beyond an array of shape {self.shape}")


class TensorMap:
    """A tensor map as shim_hopper.cpp reads it; sizes and box are given fastest dimension first."""

    nbytes = TENSOR_MAP_BYTES

    def __init__(self, array, sizes, steps, box):
        item = array.dtype.itemsize
        assert array.dtype == np.float16
        assert box[0] * item == 128, "a row of the box is as long as the swizzle"
        assert all(step % 16 == 0 for step in steps)
        assert all(1 <= side <= 256 for side in box)
        assert array.values.ctypes.data % 16 == 0
        assert int(np.prod(sizes)) == array.size
        assert tuple(steps) == tuple(np.cumprod([item, *sizes[:-1]])[1:]), "the array is contiguous"
        self.array = array
        memory = np.zeros(TENSOR_MAP_BYTES + 64, np.uint8)
        start = -memory.ctypes.data % 64
        self.words = memory[start : start + TENSOR_MAP_BYTES].view(np.uint64)
        self.words[:2] = array.values.ctypes.data, len(sizes)
        for first, numbers in ((2, sizes), (7, steps), (11, box)):
            self.words[first : first + len(numbers)] = numbers


class Emulator:
    """The backend.

    Parameters
    ----------
    folder : where compiled sources are kept.
    descending : run blocks and threads from the last to the first.

    Attributes
    ----------
    launches : the names of the kernels that were run.
    memory : the free bytes that the device claims to have.
    faults : by kernel, what to do with the arrays that it has written: for spoiling its results.
    """

    def __init__(self, folder, descending=False):
        self.folder, self.descending = Path(folder), descending
        self.launches = []
        self._libraries = {}
        self.faults = {}
        self.wrong, self.capability, self.multiprocessors = None, (9, 0), 132
        self.memory = 1 << 30
        self._recorded = None

    def describe(self):
        return "emulated GPU"

    def versions(self):
        return {"g++": "any"}

    def free_bytes(self):
        return self.memory

    def owns(self, array):
        return isinstance(array, DeviceArray)

    def empty(self, shape, dtype):
        return DeviceArray.empty(shape, dtype)

    def record(self, function):
        """Note the launches instead of making them, as a capture does; what needs the device's results is an error."""
        self._recorded = launches = []
        try:
            result = function()
        finally:
            self._recorded = None

        def replay():
            for launch in launches:
                self.run(*launch)

        return result, replay

    def upload(self, array):
        assert self._recorded is None, "nothing can be uploaded while launches are recorded"
        assert isinstance(array, np.ndarray)
        result = DeviceArray.empty(array.shape, array.dtype)
        result.values[...] = array
        return result

    def download(self, array):
        assert isinstance(array, DeviceArray)
        assert self._recorded is None, "nothing can be fetched while launches are recorded"
        return array.values.copy()

    def tensor_map(self, array, sizes, steps, box):
        return TensorMap(array, sizes, steps, box)

    def compile(self, kernel):
        self._library(kernel)
        return {}

    def run(self, kernel, grid, block, arguments, shared_bytes=0):
        if self._recorded is not None:
            self._recorded.append((kernel, grid, block, arguments, shared_bytes))
            return
        self.launches.append(kernel.name)
        self._run_compiled(kernel, grid, block, arguments, shared_bytes)
        written = []
        for parameter, argument in zip(kernel.parameters, arguments, strict=True):
            if parameter.pointer or parameter.type == TENSOR_MAP:
                array = argument if parameter.pointer else argument.array
                array.check_guards(kernel)
                if parameter.name == "output" or (parameter.pointer and not parameter.constant):
                    written.append(array)
        if kernel.name in self.faults:
            self.faults[kernel.name](written)

    def _run_compiled(self, kernel, grid, block, arguments, shared_bytes):
        library = self._library(kernel)
        library.reserve_shared_memory(shared_bytes)
        dimensions = [(ctypes.c_uint * 3)(*size) for size in (grid, block)]
        body = _body(kernel)
        barriers = re.search(r"\b(__syncthreads|block_sum|convolve|multiply_tiles)\b", body) is not None
        flags = ctypes.c_uint(shared_bytes), int(barriers), int(self.descending)
        failed = library[f"launch_{kernel.name}"](*dimensions, *flags, *map(_converted, arguments))
        fault = library.launch_fault() if failed else library.fault_of_launch()
        if fault is not None:
            raise AssertionError(f"kernel {kernel.name!r}: {fault.decode()}")

    def _library(self, kernel):
        key = (kernel.file, kernel.types)
        if key not in self._libraries:
            name = "_".join([kernel.file.replace(".", "_"), *(f"{macro}_{dtype}" for macro, dtype in kernel.types)])
            library = self.folder / f"{name}.so"
            with alone(library.with_suffix(".lock")):
                if not library.exists():
                    self._compile(kernel, library)
            self._libraries[key] = ctypes.CDLL(str(library))
            self._libraries[key].launch_fault.restype = ctypes.c_char_p
            self._libraries[key].fault_of_launch.restype = ctypes.c_char_p
        return self._libraries[key]

    def _compile(self, kernel, library):
        source = library.with_suffix(".cpp")
        wrappers = [_wrapper(Kernel(kernel.file, name, kernel.types)) for name in _names(kernel.file)]
        shims = [*SHIMS, FURTHER_SHIMS[kernel.file]] if kernel.file in FURTHER_SHIMS else SHIMS
        # The shim has the array of dynamic shared memory.
        text = re.sub(r"extern __shared__ [^;]*;", "", program(kernel.file, kernel.types))
        source.write_text("\n".join([*(shim.read_text() for shim in shims), text, *wrappers]))
        command = [
            "g++",
            "-std=c++20",
            "-O1",
            "-march=native",
            "-w",
            "-U_FORTIFY_SOURCE",
            "-ffp-contract=off",
            "-shared",
            "-fPIC",
        ]
        done = subprocess.run([*command, "-o", library, source], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def _names(file):
    return re.findall(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)', (FOLDER / file).read_text())


def _body(kernel):
    """Return a kernel's own lines, to its closing brace in the first column."""
    text = (FOLDER / kernel.file).read_text()
    begin = re.search(rf"__global__ void (?:__launch_bounds__\([^)]*\) )?{kernel.name}\(", text).start()
    return text[begin : text.index("\n}", begin)]


def _wrapper(kernel):
    """Return a C function that launches a kernel; its arguments are those of the kernel, pointers untyped."""
    names = {np.dtype(np.int32): "int", np.dtype(np.uint32): "unsigned", np.dtype(np.float32): "float"}
    names[np.dtype(np.float64)] = "double"
    taken, passed = [], []
    for parameter, dtype in zip(kernel.parameters, kernel.dtypes, strict=True):
        if parameter.pointer:
            taken.append(f"void* {parameter.name}")
            passed.append(f"({'const ' * parameter.constant}{parameter.type}*){parameter.name}")
        elif parameter.type == TENSOR_MAP:
            taken.append(f"const {TENSOR_MAP}* {parameter.name}")
            passed.append(f"*{parameter.name}")
        else:
            taken.append(f"{names[dtype]} {parameter.name}")
            passed.append(parameter.name)
    return (
        f'extern "C" int launch_{kernel.name}(const unsigned* grid, const unsigned* block, unsigned shared_bytes, '
        f"int barriers, int descending, {', '.join(taken)}) {{ "
        "return launch(grid, block, shared_bytes, barriers, descending, "
        f"[=] {{ {kernel.name}({', '.join(passed)}); }}); }}"
    )


def _converted(argument):
    if isinstance(argument, DeviceArray):
        return ctypes.c_void_p(argument.values.ctypes.data)
    if isinstance(argument, TensorMap):
        return ctypes.c_void_p(argument.words.ctypes.data)
    kinds = {"int32": ctypes.c_int, "uint32": ctypes.c_uint, "float32": ctypes.c_float, "float64": ctypes.c_double}
    return kinds[argument.dtype.name](argument.item())
