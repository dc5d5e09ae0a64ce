"""What one use of an operator costs, told from the shapes beforehand, and limits to it.

A file of a kilobyte can ask for any amount of memory and time: by attributes and shapes of 2^40, or by a value that
doubles at each of forty nodes. What a network needs is in proportion to its weights and its image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from engine.errors import ModelError
from engine.onnx.operators.operator import Array, Call, axis_of
from engine.onnx.operators.windows import spatial_axes, window_of
from kernels.geometry import output_size

PRODUCTS = 32
"""How many products of a convolution or of matrices take the time of one number that is written."""

OF_AN_IMAGE = 1 << 21
"""Products that take as long as it takes to begin with one image of a batch: the kernels go through them one by one."""


class Budget:
    """How much may be computed.

    Parameters
    ----------
    given : how many numbers there are to begin with: weights, inputs.
    value : how many numbers a single value may always have.
    growth : how many times those given it may have.
    rounds : how many such values may be written.
    """

    def __init__(self, given: int, *, value: int, growth: int, rounds: int = 16) -> None:
        self.largest = max(value, growth * given)
        self.left = rounds * self.largest

    def spend(self, label: str, name: str, call: Call, inputs: Sequence[Array | None]) -> None:
        """Take one use of an operator off; raises ModelError, with its label, where the rest is not enough for it."""
        elements, products = cost(name, call, inputs)
        self.left -= elements + products // PRODUCTS
        if elements > self.largest or self.left < 0:
            raise ModelError(f"{label}: would compute more numbers than a network of this size has use for")


def cost(name: str, call: Call, inputs: Sequence[Array | None]) -> tuple[int, int]:
    """Return how many numbers an operator writes, at most, and how many products it sums up.

    Raises ValueError where attributes and inputs do not fit together.
    """
    given = [one for one in inputs if one is not None]
    if rule := _RULES.get(name):
        return rule(call, given)
    return _elementwise(call, given)


def _elementwise(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    try:
        return math.prod(np.broadcast_shapes(*(one.shape for one in inputs))), 0
    except ValueError:
        return sum(one.size for one in inputs), 0


def _of_first(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    return inputs[0].size, 0


def _of_all(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    return sum(one.size for one in inputs), 0


def _constant_of_shape(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    return math.prod(call.integers("shape", inputs[0]) or ()), 0


def _expand(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    input, shape = inputs
    return math.prod(np.broadcast_shapes(input.shape, call.integers("shape", shape) or ())), 0


def _gather(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    data, indices = inputs
    axis = axis_of(int(call.number("axis", 0)), data.ndim)
    return indices.size * math.prod(data.shape[:axis] + data.shape[axis + 1 :]), 0


def _gather_nd(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    data, indices = inputs
    depth = indices.shape[-1] if indices.ndim else 1
    behind = data.shape[int(call.number("batch_dims", 0)) + depth :]
    return indices.size // max(depth, 1) * math.prod(behind), 0


def _pad(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    data = inputs[0]
    amounts = call.integers("pads" if call.opset > 1 else "paddings", inputs[1] if len(inputs) > 1 else None) or ()
    # Whichever axes they are for: as though each were for the smallest.
    added = sorted((max(begin, 0) + max(end, 0) for begin, end in _pairs(amounts)), reverse=True)
    sizes = sorted(data.shape)
    added += [0] * (len(sizes) - len(added))
    return math.prod(size + more for size, more in zip(sizes, added, strict=False)), 0


def _pairs(amounts: Sequence[int]) -> list[tuple[int, int]]:
    half = len(amounts) // 2
    return list(zip(amounts[:half], amounts[half:], strict=False))


def _matmul(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    A, B = inputs[:2]
    inner = max(A.shape[-1] if A.ndim else 1, 1)
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    rows = A.shape[-2] if A.ndim > 1 else 1
    columns = B.shape[-1] if B.ndim > 1 else 1
    elements = math.prod(batch) * rows * columns
    return elements, elements * inner


def _gemm(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    A, B = inputs[:2]
    if A.ndim != 2 or B.ndim != 2:
        return _of_all(call, inputs)
    rows, inner = reversed(A.shape) if call.flag("transA") else A.shape
    elements = rows * B.shape[0 if call.flag("transB") else 1]
    return elements, elements * inner


def _conv(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    X, W = inputs[:2]
    elements = len(X) * len(W) * _positions(call, X, W.shape[2:], "Conv")
    return elements, elements * math.prod(W.shape[1:]) + len(X) * OF_AN_IMAGE


def _pool(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    X = inputs[0]
    kernel = call.integers("kernel_shape") or ()
    elements = math.prod(X.shape[:2]) * _positions(call, X, kernel, "a pooling")
    return elements, elements * math.prod(kernel) * PRODUCTS + len(X) * OF_AN_IMAGE


def _positions(call: Call, X: Array, kernel: tuple[int, ...], operator: str) -> int:
    axes = spatial_axes(X, operator)
    window = window_of({**call.attributes, "kernel_shape": kernel}, axes)
    return math.prod(output_size(window, X.shape[2] if axes == 2 else 1, X.shape[-1]))


def _lrn(call: Call, inputs: Sequence[Array]) -> tuple[int, int]:
    X = inputs[0]
    neighbors = min(abs(int(call.attributes["size"])), 2 * X.shape[1])
    return X.size, X.size * neighbors * PRODUCTS


_RULES: dict[str, Callable[[Call, Sequence[Array]], tuple[int, int]]] = {
    "AveragePool": _pool,
    "BatchNormalization": _of_first,
    "Concat": _of_all,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "DequantizeLinear": _of_first,
    "Expand": _expand,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gemm": _gemm,
    "LRN": _lrn,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Pad": _pad,
    "QuantizeLinear": _of_first,
    "Reshape": _of_first,
    "Slice": _of_first,
    "Split": _of_first,
    "Squeeze": _of_first,
    "Unsqueeze": _of_first,
}
