"""Array functions on one device: ``Cpu`` (NumPy) and ``Cuda`` (CuPy) have them as methods, name for name.

Shapes: an activation is ``(H, W, C)``, channels last and C-contiguous, for one image; a convolution's weight is
``(kernel height, kernel width, input channels / group, output channels)``.
"""

from kernels.cpu.device import Cpu
from kernels.cuda.device import Cuda

Device = Cpu | Cuda

__all__ = ["Cpu", "Cuda", "Device"]
