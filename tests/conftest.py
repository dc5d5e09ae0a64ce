"""What tests of several packages share: a GPU that is emulated."""

import shutil

import pytest

from kernels.cuda import runtime
from tests.kernels.cuda.emulator import Emulator


@pytest.fixture(scope="session")
def compiled_kernels(tmp_path_factory):
    """A folder for compiled sources, kept for all tests."""
    if shutil.which("g++") is None:
        pytest.skip("kernels for CUDA are run on the CPU by way of g++, which is not installed")
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def emulator(compiled_kernels, monkeypatch):
    """A device for kernels.cuda and the engine."""
    emulated = Emulator(compiled_kernels)
    emulated.wrong = {}  # the comparison with the CPU has tests of its own
    monkeypatch.setattr(runtime, "backend", lambda: emulated)
    return emulated
