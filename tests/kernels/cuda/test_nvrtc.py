"""Every CUDA source compiles for every architecture it claims, and uses no more than a card has; without a GPU."""

import itertools

import numpy as np
import pytest

from kernels.cuda.source import MAX_THREADS, declared, program, sources
from tests.kernels.cuda import nvrtc

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="NVRTC is not installed: pip install 'nvidia-cuda-nvrtc==13.0.*'"
)

# Turing, Ampere (data centre and other), Ada, Hopper and Blackwell; NVRTC 13 has no 7.0 any more.
ARCHITECTURES = ["75", "80", "86", "89", "90", "90a", "120"]
TYPES = {
    "REAL": [np.float32, np.float16],
    "OUTPUT": [np.float32, np.float16],
    "TAP": [np.uint8, np.uint16],
}
# CuPy's own (cupy/cuda/compiler.py and cupy/_core/core.pyx, version 14.2).
OF_CUPY = ("-ftz=true",)


def variants(file):
    macros = sources()[file]
    return [
        tuple(zip(macros, map(np.dtype, types), strict=True)) for types in itertools.product(*map(TYPES.get, macros))
    ]


def check(file, types, architecture):
    code, log = nvrtc.compile_source(program(file, types), architecture, OF_CUPY)
    assert code[:4] == b"\x7fELF"
    used = nvrtc.uses(log)
    assert set(used) == set(declared(file))
    for name, use in used.items():
        assert (use.stack, use.spills) == (0, 0), (name, use)
        assert use.shared <= 48 << 10, (name, use)
        # Every kernel here is launched with 256 threads: two blocks must find room on a multiprocessor.
        assert 2 * 256 * use.registers <= 1 << 16, (name, use)
    assert "warning" not in log
    assert MAX_THREADS >= 256


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", sources())
def test_compiles_without_local_memory(file, architecture):
    check(file, variants(file)[0], architecture)


@pytest.mark.parametrize("file", [file for file in sources() if len(variants(file)) > 1])
def test_compiles_for_every_type(file):
    for types in variants(file)[1:]:
        check(file, types, "90")


def test_a_source_with_a_fault_does_not_compile():
    with pytest.raises(ValueError, match="nothing"):
        nvrtc.compile_source('extern "C" __global__ void faulty(int* x) { *x = nothing; }', "90")


def test_spills_and_local_memory_are_seen():
    """A run-time index into an array that does not fit into registers."""
    text = 'extern "C" __global__ void local(int* x, int n) { int v[99]; for (int i = 0; i < n; i++) v[i] = x[i * i];'
    _, log = nvrtc.compile_source(text + " x[0] = v[n / 2] + v[n / 3]; }", "90")
    assert nvrtc.uses(log)["local"].stack >= 396
