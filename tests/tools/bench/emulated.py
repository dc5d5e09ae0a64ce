"""``python -m tools.bench`` with an emulated GPU: ``python -m tests.tools.bench.emulated FOLDER OPTIONS``.

The folder is for compiled sources.
"""

import sys

from kernels import Cuda
from kernels.cuda import opening
from tests.kernels.cuda.emulator import Emulator
from tools.bench import __main__ as bench

if __name__ == "__main__":
    gpu = Cuda(Emulator(sys.argv[1]))
    opening.connect = opening.open_cuda = lambda: gpu
    sys.exit(bench.main(sys.argv[2:]))
