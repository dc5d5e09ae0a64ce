"""An ONNX file as a list of the engine's operators.

Exporters write the same network in many ways. What does not change the result is resolved here: constants, Identity,
Dropout, Cast, the order of axes and of the image's channels (nothing is moved), zeros padded before a convolution, bias
as a separate Add, BatchNormalization behind a convolution, Relu behind a convolution. Branches may meet again in an
Add, a Sum or a Concat of channels. An operator that the engine does not have is not an error as long as nothing behind
it is asked for: a classifier is simply left in the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx

from engine.errors import ModelError, printable
from engine.fuse import fused
from engine.graph import Graph, Rejected
from engine.onnx.file import attributes_of, open_onnx, operator_of
from engine.onnx.operators import UnsupportedError
from engine.onnx.scope import RefusedError, Scope, label
from engine.onnx.translate import arithmetic, layers, layout, quantized

_TRANSLATIONS: dict[str, Callable[[Scope, onnx.NodeProto, Mapping[str, Any]], None]] = {
    "Add": arithmetic.add,
    "AveragePool": layers.pool,
    "BatchNormalization": layers.batch_normalization,
    "Cast": layout.cast,
    "Concat": arithmetic.concat,
    "Conv": layers.conv,
    "ConvInteger": quantized.integer_conv,
    "DequantizeLinear": quantized.dequantize,
    "Div": arithmetic.with_constant,
    "Dropout": layout.same,
    "DynamicQuantizeLinear": quantized.quantize_dynamically,
    "Gather": layout.rearrange,
    "GatherND": layout.rearrange,
    "Identity": layout.same,
    "MaxPool": layers.pool,
    "Mul": quantized.multiply,
    "Pad": layout.pad,
    "QLinearConv": quantized.quantized_conv,
    "QuantizeLinear": quantized.quantize,
    "Relu": layers.relu,
    "Reshape": layout.rearrange,
    "Slice": layout.rearrange,
    "Split": layout.rearrange,
    "Squeeze": layout.rearrange,
    "Sub": arithmetic.with_constant,
    "Sum": arithmetic.add_up,
    "Transpose": layout.transpose,
    "Unsqueeze": layout.rearrange,
    "com.microsoft.FusedConv": layers.fused_conv,
}


def read_onnx(path: str | Path) -> Graph:
    """Read an ONNX file.

    Weights come out in float32 (float64 where the file has that or where a BatchNormalization was folded in), in the
    layout of ``kernels``. Only the weights of operators that the engine runs are converted.

    Raises ModelError when the file is missing, not ONNX, or its weights are missing, misshapen or not finite.
    """
    file = open_onnx(path)
    scope = Scope(file)
    for node in file.graph.node:
        _read(node, scope)
    metadata = {entry.key: entry.value for entry in file.model.metadata_props}
    # A part of a model that is kept as a file of its own says there what was to be known of the whole.
    notes = [*scope.notes, *([metadata["note"]] if "note" in metadata else [])]
    return Graph(
        input=scope.input,
        nodes=fused(scope.nodes),
        rejected=tuple(scope.rejected),
        metadata=metadata,
        operators=dict(Counter(node.op_type for node in file.graph.node)),
        notes=tuple(dict.fromkeys(notes)),
        left_out=scope.left_out,
    )


def _read(node: onnx.NodeProto, scope: Scope) -> None:
    """Read one node; what cannot be run is noted in ``rejected``."""
    for name in node.output:
        if name and (name in scope.views or name in scope.constants or name in scope.scales):
            raise ModelError(f"{label(node)}: its output {name!r} is there already")
    try:
        if any(name and name in scope.unavailable for name in node.input):
            # What stands behind a rejected node is left out with it, without a reason of its own.
            scope.leave_out(node)
            return
        if scope.constants.takes(node):
            return
        scope.begin(node)
        translate = _TRANSLATIONS.get(operator_of(node))
        if translate is None:
            raise RefusedError(f"operator {operator_of(node)} is not supported")
        translate(scope, node, attributes_of(node, scope.file.array))
    except (RefusedError, UnsupportedError) as refusal:
        scope.leave_out(node)
        reason = printable(str(refusal)).removeprefix(f"{label(node)}: ")
        scope.rejected.append(Rejected(label(node), node.output[0] if node.output else "", reason))
    except ModelError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise ModelError(f"{label(node)}: {printable(str(error))}") from None
    except (TypeError, AttributeError, IndexError, KeyError):
        # An attribute of another kind than the operator's, or an output that is not there.
        raise ModelError(f"{label(node)}: its attributes, inputs or outputs are damaged") from None
