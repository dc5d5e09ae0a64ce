"""The devices of the kernels' tests: one thread of the CPU, and the GPU that the ``emulator`` fixture has opened."""

from kernels import Cpu
from kernels.cuda import opening


class OpenedGpu:
    """Whatever GPU is open when it is used: each test has its own."""

    def __getattr__(self, name):
        return getattr(opening.open_cuda(), name)


cpu, cuda = Cpu(1), OpenedGpu()


def to_device(array):
    return cuda.put(array)


def to_host(array):
    return array if cpu.holds(array) else cuda.fetch(array)
