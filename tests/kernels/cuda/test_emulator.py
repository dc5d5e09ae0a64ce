"""What the tests of the kernels for CUDA rest on: the emulator finds the faults that it is there to find."""

import numpy as np
import pytest

from kernels.cuda import source
from tests.kernels.cuda.emulator import DeviceArray, Emulator
from tests.kernels.devices import cuda, to_device, to_host

FAULTY = """// Faults, one thread a value.
extern "C" __global__ void beyond(float* output, int count) { output[thread_number()] = 1; }

extern "C" __global__ void neighbor(const float* input, float* output) {
    __shared__ float values[64];
    values[threadIdx.x] = input[threadIdx.x];
    BARRIER
    output[threadIdx.x] = values[(threadIdx.x + 1) % 64];
}

extern "C" __global__ void leaves(float* output, int count) {
    if (threadIdx.x >= count) return;
    __syncthreads();
    output[threadIdx.x] = 1;
}

extern "C" __global__ void fills(int step) {
    extern __shared__ unsigned char block_memory[];
    block_memory[step * threadIdx.x] = 1;
}
"""


@pytest.fixture
def faulty(emulator, tmp_path, monkeypatch):
    monkeypatch.setattr(emulator, "folder", tmp_path)
    common = {name: (source.FOLDER / name).read_text() for name in source.COMMON}
    monkeypatch.setattr(source, "FOLDER", tmp_path)
    monkeypatch.setattr("tests.kernels.cuda.emulator.FOLDER", tmp_path)
    for name, text in common.items():
        (tmp_path / name).write_text(text)

    def write(barrier):
        (tmp_path / "faulty.cu").write_text(FAULTY.replace("BARRIER", barrier))
        source.declared.cache_clear()
        return tmp_path

    yield write
    source.declared.cache_clear()


def test_writing_beyond_an_array_is_found(faulty):
    faulty("")
    with pytest.raises(AssertionError, match="'beyond' wrote beyond an array of shape"):
        cuda.launch("faulty.cu", "beyond", (1, 1, 1), (64, 1, 1), (cuda.empty((63,), np.float32), 63))


def test_writing_beyond_dynamic_shared_memory_is_found(faulty):
    faulty("")
    cuda.launch("faulty.cu", "fills", (1, 1, 1), (64, 1, 1), (1,), 64)
    with pytest.raises(AssertionError, match="'fills': wrote beyond its dynamic shared memory"):
        cuda.launch("faulty.cu", "fills", (1, 1, 1), (64, 1, 1), (2,), 64)


def test_threads_that_leave_before_a_barrier_are_found(faulty):
    faulty("")
    with pytest.raises(AssertionError, match="'leaves': threads ended while others waited"):
        cuda.launch("faulty.cu", "leaves", (1, 1, 1), (64, 1, 1), (cuda.empty((64,), np.float32), 63))


@pytest.mark.parametrize("barrier", ["__syncthreads();", ""])
def test_a_missing_barrier_shows_in_one_of_the_two_orders(faulty, barrier):
    folder = faulty(barrier)
    values, found = np.arange(64, dtype=np.float32), []
    for descending in (False, True):
        emulated = Emulator(folder, descending)
        output = cuda.empty((64,), np.float32)
        kernel = source.Kernel("faulty.cu", "neighbor", ())
        emulated.run(kernel, (1, 1, 1), (64, 1, 1), (to_device(values), output))
        found.append(np.array_equal(to_host(output), np.roll(values, -1)))
    assert all(found) == bool(barrier)


def test_new_memory_is_not_a_number_and_arithmetic_needs_a_kernel():
    array = DeviceArray.empty((2, 3), np.float32)
    assert np.isnan(array.values).all()
    for misuse in (lambda: array + 1, lambda: np.asarray(array), lambda: 2 * array, lambda: list(array)):
        with pytest.raises(TypeError):
            misuse()
