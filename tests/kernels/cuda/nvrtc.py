"""NVRTC without a driver and without CuPy: compiles a CUDA source to machine code and says what it uses.

Functions and their order of arguments: NVRTC's documentation, "Compilation" (nvrtcCreateProgram, nvrtcCompileProgram,
nvrtcGetProgramLog, nvrtcGetCUBIN).
"""

import ctypes
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Use:
    """What a kernel uses, as ptxas reports it: of registers a thread, the rest in bytes."""

    registers: int
    stack: int
    spills: int
    shared: int


def find(pattern):
    """Return the first file of NVIDIA's packages that matches, or None."""
    folders = [Path(folder) / "nvidia" for folder in sys.path if folder]
    return next((path for folder in folders for path in sorted(folder.glob(pattern))), None)


@cache
def library():
    """Return NVRTC, or None where it is not installed."""
    path, builtins = find("*/lib/libnvrtc.so.*[0-9]"), find("*/lib/libnvrtc-builtins.so.*[0-9]")
    if path is None or builtins is None:
        return None
    # NVRTC opens this one by its name alone, which succeeds once it is loaded.
    ctypes.CDLL(str(builtins))
    return ctypes.CDLL(str(path))


def version():
    """Return NVRTC's version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def compile_source(text, architecture, options=()):
    """Return the machine code for an architecture, as "90a", and the compiler's log; raises ValueError with the log."""
    nvrtc, handle = library(), ctypes.c_void_p()
    given = [f"-arch=sm_{architecture}", "-std=c++17", "-default-device", "--ptxas-options=-v", *options]
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(handle), text.encode(), b"kernels.cu", 0, None, None) == 0
    try:
        failed = nvrtc.nvrtcCompileProgram(handle, len(given), (ctypes.c_char_p * len(given))(*map(str.encode, given)))
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, handle).rstrip(b"\0").decode()
        if failed:
            raise ValueError(log)
        return _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, handle), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(handle))


def uses(log):
    """Return what each kernel of a log uses."""
    found = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        numbers = [
            re.search(pattern, part)
            for pattern in (
                r"Used (\d+) registers",
                r"(\d+) bytes stack frame",
                r"(\d+) bytes spill stores",
                r"(\d+) bytes smem",
            )
        ]
        found[part.partition("'")[0]] = Use(*(int(number[1]) if number else 0 for number in numbers))
    return found


def _text(size, content, handle):
    length = ctypes.c_size_t()
    assert size(handle, ctypes.byref(length)) == 0
    buffer = ctypes.create_string_buffer(length.value)
    assert content(handle, buffer) == 0
    return buffer.raw
