"""Whether there is enough memory, on the CPU and on a GPU."""

import dataclasses

import numpy as np
import pytest

from engine import load_network
from kernels import Cpu
from tests.engine import models
from tests.kernels.devices import cuda
from tools.cli import memory, rendering
from tools.cli.memory import check_free, peak_memory
from tools.cli.options import Options
from tools.models.cache import DRAFT_FILE


def test_too_little_memory_is_one_sentence_with_advice(emulator, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 5_000_000)
    emulator.memory = 7_000_000
    check_free(Cpu(1), 5_000_000, (30, 40), "do less")
    check_free(emulator.device, 7_000_000, (30, 40), "do less")
    said = r"^40x30 pixels need about 6.0 MB of memory beside the program itself, 5.0 MB are available: do less$"
    with pytest.raises(ValueError, match=said):
        check_free(Cpu(1), 6_000_000, (30, 40), "do less")
    with pytest.raises(ValueError, match=r"^40x30 pixels need about 8.0 MB of the GPU's memory, 7.0 MB are available"):
        check_free(emulator.device, 8_000_000, (30, 40), "do less")


def test_a_system_that_does_not_tell_is_trusted(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_free(Cpu(1), 1 << 60, (30, 40), "do less")


OPTIONS = dataclasses.replace(Options(), content_layers=("conv3_1",), style_layers=("conv1_1", "conv3_1"))


@pytest.fixture
def on_gpu(emulator, tmp_path):
    path = models.save(models.vgg(models.parameters((2, 2, 2))), tmp_path / "tiny.onnx")
    return load_network(path, device="cuda")


@pytest.mark.parametrize(("optimizer", "of_image"), [("l-bfgs", 26), ("adam", 12)])
def test_optimizers_on_the_gpu_count_as_its_memory(emulator, on_gpu, optimizer, of_image, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    options = dataclasses.replace(OPTIONS, optimizer=optimizer)
    emulator.memory = needed = rendering.check_memory(on_gpu, options, (100, 200), [(100, 200)])
    assert needed > of_image * 100 * 200 * 3 * 8
    emulator.memory = needed - 1
    with pytest.raises(ValueError, match=r"of the GPU's memory, .* are available: choose a smaller --size$"):
        rendering.check_memory(on_gpu, options, (100, 200), [])


def test_scipys_vectors_are_in_the_computers_memory(on_gpu, monkeypatch):
    options = dataclasses.replace(OPTIONS, optimizer="l-bfgs-b")
    vectors = (2 * 10 + 41) * 100 * 200 * 3 * 8
    monkeypatch.setattr(memory, "available_memory", lambda: vectors)
    needed = rendering.check_memory(on_gpu, options, (100, 200), [])
    others = rendering.check_memory(on_gpu, dataclasses.replace(options, optimizer="l-bfgs"), (100, 200), [])
    assert needed < others
    monkeypatch.setattr(memory, "available_memory", lambda: vectors - 1)
    with pytest.raises(ValueError, match=r"of memory beside .* choose a smaller --size, or --optimizer l-bfgs"):
        rendering.check_memory(on_gpu, options, (100, 200), [])


def test_a_painting_that_is_too_large_names_its_own_option(emulator, on_gpu):
    needed = rendering.check_memory(on_gpu, OPTIONS, (32, 32), [(32, 32)])
    emulator.memory = needed
    with pytest.raises(ValueError, match=r"^2000x1000 pixels need .* of the GPU's memory.* smaller --style-size$"):
        rendering.check_memory(on_gpu, OPTIONS, (32, 32), [(1000, 2000)])


def test_the_device_is_asked_for_its_free_memory(emulator):
    emulator.memory = 12345
    assert cuda.free_bytes() == 12345


def test_the_peak_counts_what_the_process_holds_already():
    """Decoded pictures, libraries, weights: an announcement without them is too small."""
    held = np.ones(40_000_000, np.uint8)
    assert peak_memory(Cpu(1), 1_000_000_000, held.nbytes) > 1_000_000_000 + held.nbytes


def test_a_painting_larger_than_the_picture_counts_in_the_memory():
    network = load_network(DRAFT_FILE)
    needed = [rendering.check_memory(network, OPTIONS, (32, 32), [(side, side)]) for side in (32, 512)]
    assert needed[1] > 10 * needed[0]
