"""The kernels for CUDA mirror those for the CPU, name for name; told without CuPy and without a GPU."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

from kernels import Cpu, Cuda
from kernels.cpu.threads import Threads
from kernels.cuda import opening
from kernels.cuda.launcher import Launcher
from tests.kernels.devices import cpu, to_device


def kernels_of(device):
    """Return the names of a device's kernels: what is neither its threads' nor its launcher's."""
    own = {name for base in (Threads, Launcher) for name in dir(base)} | {"name", "holds", "put", "fetch", "empty"}
    return {name for name in vars(device) if not name.startswith("_")} - own - {"kind", "put_parameter"}


def public(device):
    return {name for name in dir(device) if not name.startswith("_")}


def test_the_names_are_the_same():
    assert kernels_of(Cpu) == kernels_of(Cuda)
    # Beyond the kernels a device can be asked the same.
    assert public(Cpu) - public(Cuda) == {"map", "scratch", "output"}


@pytest.mark.parametrize(
    "name",
    sorted(kernels_of(Cuda) | {"put", "fetch", "holds", "empty", "put_parameter", "computing", "arena", "reusing"}),
)
def test_the_signatures_are_the_same(name, emulator):
    ours, theirs = (inspect.signature(getattr(device, name)) for device in (emulator.device, cpu))
    assert list(ours.parameters) == list(theirs.parameters)
    for one, other in zip(ours.parameters.values(), theirs.parameters.values(), strict=True):
        assert (one.kind, one.default) == (other.kind, other.default) or one.name == "algorithm", one


@pytest.mark.slow
def test_loading_them_loads_no_cupy():
    program = "import sys, kernels.cuda, engine; assert not [name for name in sys.modules if name.startswith('cupy')]"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_cupy_the_reason_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "kernels.cuda.cupy_backend", raising=False)
    opening._opened.cache_clear()
    reason = opening.unavailable()
    opening._opened.cache_clear()
    assert reason.startswith("CuPy cannot be loaded (")
    assert reason.endswith("): pip install '.[cuda13]' or '.[cuda12]'")


def test_a_device_knows_its_own_arrays(emulator):
    array = np.zeros(3)
    assert cpu.holds(array)
    assert not emulator.device.holds(array)
    assert emulator.device.holds(to_device(array))
    assert not cpu.holds(to_device(array))
    for other in ([1.0], 2.0, None):
        assert not cpu.holds(other)
        assert not emulator.device.holds(other)
