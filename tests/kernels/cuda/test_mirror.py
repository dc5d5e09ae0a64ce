"""The kernels for CUDA mirror those for the CPU, name for name; told without CuPy and without a GPU."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

from kernels import cpu, cuda, kernels_of
from kernels.cuda import runtime

# Threads, and algorithms that pay on a CPU only.
CPU_ONLY = {"SERIAL", "Workers", "conv_block", "conv_block_input_gradient", "transform_weight"}
# Algorithms for tensor cores, and the recording of launches.
CUDA_ONLY = {"hopper_conv", "hopper_suits", "implicit_gemm_conv", "implicit_gemm_suits", "mirrored_window"}
CUDA_ONLY |= {"pack_hopper_weight", "pack_weight", "record"}


def test_the_names_are_the_same():
    assert set(cpu.__all__) - set(cuda.__all__) == CPU_ONLY
    assert set(cuda.__all__) - set(cpu.__all__) == CUDA_ONLY


@pytest.mark.parametrize("name", sorted(set(cuda.__all__) - CUDA_ONLY))
def test_the_signatures_are_the_same(name):
    ours, theirs = (inspect.signature(getattr(package, name)) for package in (cuda, cpu))
    assert list(ours.parameters) == list(theirs.parameters)
    for one, other in zip(ours.parameters.values(), theirs.parameters.values(), strict=True):
        assert (one.kind, one.default) == (other.kind, other.default), one


def test_loading_them_loads_no_cupy():
    program = "import sys, kernels.cuda, engine; assert not [name for name in sys.modules if name.startswith('cupy')]"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_cupy_the_reason_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "kernels.cuda.cupy_backend", raising=False)
    runtime.backend.cache_clear()
    reason = runtime.unavailable()
    runtime.backend.cache_clear()
    assert reason.startswith("CuPy cannot be loaded (")
    assert reason.endswith("): pip install '.[cuda13]' or '.[cuda12]'")


def test_each_array_goes_to_the_kernels_of_its_device(emulator):
    assert kernels_of(np.zeros(3)) is cpu
    assert kernels_of(runtime.to_device(np.zeros(3))) is cuda
    for other in ([1.0], 2.0, None):
        with pytest.raises(TypeError, match="no kernels for arrays of type"):
            kernels_of(other)
