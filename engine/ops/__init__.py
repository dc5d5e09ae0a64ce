"""The operators, one family a file: shape rule, forward, and input gradient directly below it.

Every operator is a frozen dataclass (see ``Operator``). Its fields carry the names of the ONNX attributes; arrays are
laid out as the kernels want them, channels last.
"""

from engine.ops.affine import Affine
from engine.ops.branches import Add, Concat
from engine.ops.conv import Conv, PlacedConv
from engine.ops.operator import Array, Operator, Shape
from engine.ops.pad import Pad
from engine.ops.pool import AveragePool, MaxPool
from engine.ops.relu import Relu
from engine.ops.windowed import Windowed

__all__ = [
    "Add",
    "Affine",
    "Array",
    "AveragePool",
    "Concat",
    "Conv",
    "MaxPool",
    "Operator",
    "Pad",
    "PlacedConv",
    "Relu",
    "Shape",
    "Windowed",
]
