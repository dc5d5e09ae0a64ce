"""What of a model does not depend on its inputs: stored values, and what its nodes compute from these.

Weights may be stored in 8 bits and restored by a chain of nodes, shapes may be put together from numbers. Each such
value is computed by the operators of ``engine.onnx.operators``, in the types that the file declares, when it is asked
for: most of what a classifier computes from constants nobody asks for here.
"""

from __future__ import annotations

import math
from collections import Counter

import onnx

from engine.errors import ModelError
from engine.onnx.file import OnnxFile, operator_of
from engine.onnx.graph import computed, read_node
from engine.onnx.operators import OPERATORS, Budget
from engine.ops import Array

MAX_ELEMENTS = 1 << 25
"""What one computed value may have in numbers, 128 MB in single precision, unless the file stores as many."""


class Constants:
    """The values of a file that do not depend on its inputs, by name."""

    def __init__(self, file: OnnxFile) -> None:
        self.file = file
        self._stored = {tensor.name: tensor for tensor in file.graph.initializer}
        self._nodes: dict[str, onnx.NodeProto] = {}
        self._computed: dict[str, Array] = {}
        # What several nodes read is kept: a value that each node takes twice would be computed 2^n times.
        self._readers = Counter(name for node in file.graph.node for name in node.input)
        stored = sum(_size(tensor) for tensor in file.graph.initializer)
        self._budget = Budget(stored, value=MAX_ELEMENTS, growth=1)

    def __contains__(self, name: str) -> bool:
        """Say whether a value is a constant."""
        return name in self._stored or name in self._nodes

    def takes(self, node: onnx.NodeProto) -> bool:
        """Say whether a node computes constants; it is noted then, and run when one of them is asked for."""
        inputs = [name for name in node.input if name]
        constant = bool(inputs) or node.op_type == "Constant"
        if operator_of(node) not in OPERATORS or not constant or not all(name in self for name in inputs):
            return False
        self._nodes.update((name, node) for name in node.output if name)
        return True

    def value(self, name: str, what: str) -> Array:
        """Return a constant; ``what`` is how messages call it.

        Raises ModelError where it cannot be read or computed, or would take more time or memory than any network's.
        """
        waiting = [name]
        values: dict[str, Array] = {}
        while waiting:
            one = waiting[-1]
            if one in values:
                waiting.pop()
            elif one in self._stored:
                values[one] = self.file.array(self._stored[one], what if one == name else f"the stored value {one!r}")
            elif one in self._computed:
                values[one] = self._computed[one]
            else:
                node = self._nodes[one]
                missing = [input for input in node.input if input and input not in values]
                if missing:
                    waiting += missing
                else:
                    self._run(node, values)
                    if one not in values:
                        raise ModelError(f"{what}: its node gives no output {one!r}")
        return values[name]

    def _run(self, node: onnx.NodeProto, values: dict[str, Array]) -> None:
        read = read_node(node, self.file)
        inputs = tuple(values[name] if name else None for name in read.inputs)
        outputs = computed(read, inputs, self._budget)
        values |= outputs
        self._computed |= {name: output for name, output in outputs.items() if self._readers[name] > 1}
        for name in {*node.input}:
            if self._readers[name] == 1:  # this node
                values.pop(name, None)


def _size(tensor: onnx.TensorProto) -> int:
    """Return how many numbers a tensor has, but no more than there are bits for."""
    bits = 8 * tensor.ByteSize() if tensor.data_location != onnx.TensorProto.EXTERNAL else 1 << 28
    return min(math.prod(max(size, 0) for size in tensor.dims), bits)
