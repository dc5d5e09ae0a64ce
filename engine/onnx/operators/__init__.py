"""ONNX's operators on arrays of any batch size and rank, laid out as ONNX lays them out, channels second.

One family of operators a file; each operator's forward stands directly above the gradients with respect to its inputs.
Arguments carry the names that ONNX gives to inputs and attributes. Convolution, pooling and ReLU are those of
``kernels``, image by image. Arrays are never changed in place; a result may be a view of an input.
"""

from engine.onnx.operators import (
    activation,
    arithmetic,
    conv,
    elementary,
    linear,
    logic,
    normalization,
    pool,
    quantize,
    reduce,
    select,
    shape,
    value,
)
from engine.onnx.operators.cost import Budget
from engine.onnx.operators.operator import Call, Gradients, Operator, UnsupportedError
from engine.onnx.operators.value import DTYPES

_FAMILIES = (
    activation,
    arithmetic,
    conv,
    elementary,
    linear,
    logic,
    normalization,
    pool,
    quantize,
    reduce,
    select,
    shape,
    value,
)

OPERATORS = {operator.name: operator for family in _FAMILIES for operator in family.OPERATORS}
"""All operators by their ONNX name."""

__all__ = ["DTYPES", "OPERATORS", "Budget", "Call", "Gradients", "Operator", "UnsupportedError"]
