"""What an ONNX operator is: a forward function on arrays, and the gradients with respect to its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from kernels import Cpu

Array = NDArray[Any]

Gradients = tuple[Callable[[], Array] | None, ...]
"""For each input a function that computes the gradient with respect to it, or None where there is none.

They are functions so that only what is asked for is computed: next to a large constant matrix, its own gradient would
take as much memory again.
"""


MAX_LIST = 10_000
"""The longest list of axes, sizes or places that is an input of a node."""


class UnsupportedError(ModelError):
    """An operator, or one of its options, that the engine does not have; the model itself may be right."""


@dataclass(frozen=True, eq=False)
class Call:
    """One use of an operator: all it is told besides its inputs.

    Parameters
    ----------
    attributes : of the node; texts as ``str``, tensors as arrays.
    opset : version of the operator set that the model was written for.
    outputs : how many outputs are asked for.
    device : whose kernels are used.
    named : how many outputs the node lists, with those that nobody asks for.
    """

    attributes: Mapping[str, Any]
    opset: int
    outputs: int = 1
    device: Cpu = field(default_factory=lambda: Cpu(1))
    named: int = 0

    def number(self, name: str, default: Any) -> Any:
        """Return an attribute that is one number or text."""
        return self.attributes.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an attribute that is 0 or 1."""
        return bool(self.attributes.get(name, default))

    def integers(self, name: str, given: Array | None = None) -> tuple[int, ...] | None:
        """Return a list of integers that is an input in newer operator sets and an attribute in older ones, or None.

        Raises ValueError for more of them than any array has axes or any node outputs.
        """
        if given is not None:
            if given.size > MAX_LIST:
                raise ValueError(f"{name} are {given.size:,} numbers, expected at most {MAX_LIST:,}")
            return tuple(int(number) for number in given.reshape(-1))
        found = self.attributes.get(name)
        return None if found is None else tuple(int(number) for number in found)


@dataclass(frozen=True)
class Operator:
    """An ONNX operator.

    Parameters
    ----------
    name : as in ONNX.
    forward : takes the call and the inputs, None for one that is left out; returns the output, or a tuple where there
        are several.
    input_gradients : takes the call, the gradient of the output, the output and the inputs; returns ``Gradients``. Of
        an operator with ``several`` outputs it takes tuples. None where the output does not depend on the inputs'
        values, or in steps only.
    several : whether more than the first output has a gradient.
    """

    name: str
    forward: Callable[..., Array | tuple[Array, ...]]
    input_gradients: Callable[..., Gradients] | None = None
    several: bool = False

    @cached_property
    def arity(self) -> tuple[int, float]:
        """The smallest and the largest number of inputs; of any number there is at least one."""
        inputs = list(inspect.signature(self.forward).parameters.values())[1:]
        least = sum(one.default is one.empty for one in inputs)
        endless = any(one.kind is one.VAR_POSITIONAL for one in inputs)
        return least, float("inf") if endless else len(inputs)

    def check_number(self, inputs: tuple[Array | None, ...]) -> None:
        """Raise ValueError when the number of inputs is wrong."""
        least, most = self.arity
        if not least <= len(inputs) <= most or any(one is None for one in inputs[:least]):
            wanted = (
                f"{least}" if least == most else f"{least} or more" if most == float("inf") else f"{least} to {most}"
            )
            raise ValueError(f"{sum(one is not None for one in inputs)} inputs are given, {self.name} takes {wanted}")

    def outputs(self, call: Call, inputs: tuple[Array | None, ...]) -> tuple[Array, ...]:
        """Return the outputs; raises ValueError when the number of inputs is wrong."""
        self.check_number(inputs)
        result = self.forward(call, *inputs)
        outputs = result if isinstance(result, tuple) else (result,)
        if len(outputs) < call.outputs:
            raise UnsupportedError(f"{self.name} with {call.outputs} outputs is not supported")
        # Arithmetic on arrays without axes gives NumPy's numbers, which are no arrays.
        return tuple(np.asarray(output) for output in outputs)


def summed_to(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Return a gradient summed over the axes along which an input of ``shape`` was repeated by broadcasting."""
    extra = gradient.ndim - len(shape)
    axes = (*range(extra), *(extra + axis for axis, size in enumerate(shape) if size == 1))
    repeated = tuple(axis for axis in axes if axis < extra or gradient.shape[axis] != 1)
    total: Array = gradient.sum(axis=repeated, keepdims=True) if repeated else gradient
    return total.reshape(shape)


def shared(gradient: Array, count: int) -> Array:
    """Return the gradient with respect to each of ``count`` values of the one with respect to their mean.

    The division is in single precision at least: half precision ends at 65,504, and there may be more values.
    """
    precision = np.result_type(gradient, np.float32)
    return (gradient.astype(precision, copy=False) / count).astype(gradient.dtype, copy=False)


def axis_of(axis: int, dimensions: int) -> int:
    """Return an axis counted from the front; raises ValueError when there is none of this number."""
    if not -dimensions <= axis < dimensions:
        raise ValueError(f"axis {axis} does not exist, the input has {dimensions} dimensions")
    return axis % dimensions


def at_axis(axis: int, values: Array, dimensions: int) -> Array:
    """Return one-dimensional ``values`` as an array that broadcasts along ``axis`` of ``dimensions``."""
    return values.reshape([-1 if at == axis else 1 for at in range(dimensions)])
