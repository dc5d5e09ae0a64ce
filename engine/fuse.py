"""Fusion of what exporters write as several operators: convolution, scale and shift, ReLU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.graph import Node
from engine.ops import Affine, Conv, Relu


def fused(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Fold scale-and-shift and Relu into the convolution before them, where nothing else reads its output.

    The convolution keeps its name and outputs the value of the last operator that was folded into it.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    producer: dict[str, int] = {}
    result: list[Node] = []
    for node in nodes:
        index = producer.get(node.input)
        before = result[index] if index is not None else None
        operator = node.operator
        if before and isinstance(before.operator, Conv) and not before.operator.relu and readers[node.input] == 1:
            merged: Conv | None = None
            if isinstance(operator, Relu):
                merged = replace(before.operator, relu=True)
            elif isinstance(operator, Affine) and operator.scale.size in (1, before.operator.weight.shape[3]):
                merged = _fold(before.operator, operator)
            if merged is not None and index is not None:
                result[index] = replace(before, operator=merged, output=node.output)
                producer[node.output] = index
                continue
        producer[node.output] = len(result)
        result.append(node)
    return tuple(result)


def _fold(conv: Conv, affine: Affine) -> Conv:
    """Return the convolution that computes ``affine`` after ``conv``."""
    bias = np.zeros(conv.weight.shape[3]) if conv.bias is None else conv.bias.astype(np.float64)
    # A bias alone leaves the weights as they are, to the bit.
    weight = conv.weight if (affine.scale == 1).all() else conv.weight * affine.scale
    return replace(conv, weight=weight, bias=bias * affine.scale + affine.shift)
