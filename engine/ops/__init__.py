"""The operators, one family a file: shape rule, forward, and input gradient directly below it.

Every operator is a frozen dataclass with the same three methods (see ``Operator``); those of several inputs have three
more (see ``Junction``). Their fields carry the names of the ONNX attributes; arrays are laid out as the kernels want
them, channels last.
"""

from engine.ops.add import Add
from engine.ops.affine import Affine
from engine.ops.concat import Concat
from engine.ops.conv import Conv
from engine.ops.conv_block import ConvBlock
from engine.ops.hopper_conv import HopperConv
from engine.ops.implicit_gemm_conv import ImplicitGemmConv
from engine.ops.junction import Junction
from engine.ops.operator import Array, Operator, Shape
from engine.ops.pad import Pad
from engine.ops.pool import AveragePool, MaxPool
from engine.ops.relu import Relu

__all__ = [
    "Add",
    "Affine",
    "Array",
    "AveragePool",
    "Concat",
    "Conv",
    "ConvBlock",
    "HopperConv",
    "ImplicitGemmConv",
    "Junction",
    "MaxPool",
    "Operator",
    "Pad",
    "Relu",
    "Shape",
]
