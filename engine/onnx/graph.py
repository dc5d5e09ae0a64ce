"""An ONNX model run as it stands: any inputs, all outputs, and the gradients of outputs with respect to inputs.

``engine.network`` is for looking at images with what a style needs of a network, and fast. This is for whole models of
any shape, classifier included, and for ONNX's conformance tests.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engine.errors import ModelError, printable, unknown_name
from engine.graph import GraphNode, backward, forward, label_of
from engine.onnx.file import OnnxFile, attributes_of, name_of, open_onnx, operator_of
from engine.onnx.operators import DTYPES, OPERATORS, Budget, Call, Operator, UnsupportedError
from engine.ops import Array
from kernels import Cpu, Device

MAX_ELEMENTS = 1 << 27
"""What one value of a run may have in numbers in any case: 512 MB in single precision."""

MAX_GROWTH = 256
"""How many times the numbers of inputs and weights one value of a run may have."""


@dataclass(frozen=True, eq=False)
class Use:
    """One use of an operator, as the sweeps of ``engine.graph`` run it.

    Parameters
    ----------
    operator : what it computes.
    attributes : of the ONNX node; texts as ``str``, tensors as arrays.
    opset : version of the operator set.
    inputs : names of its inputs, for messages.
    outputs : how many are asked for.
    label : how messages call it.
    named : how many outputs the node lists, with those that nobody asks for.
    budget : what a run may cost, or None.
    """

    operator: Operator
    attributes: Mapping[str, Any]
    opset: int
    inputs: tuple[str, ...]
    outputs: int
    label: str
    named: int
    budget: Budget | None = None

    @property
    def kind(self) -> str:
        """ONNX's name of the operator."""
        return self.operator.name

    def forward(
        self, device: Device, inputs: Sequence[Array | None], output_is_kept: bool = True
    ) -> tuple[tuple[Array, ...], Any]:
        """Return the outputs, and inputs and outputs for the gradients.

        Raises ModelError, with the label, when the inputs do not fit, or the budget, where there is one, is not enough.
        """
        given = tuple(inputs)
        while given and given[-1] is None:  # an input that is left out at the end is not there
            given = given[:-1]
        with self._labeled():
            call = self._call(device)
            self.operator.check_number(given)
            if self.budget is not None:
                self.budget.spend(self.label, self.operator.name, call, given)
            outputs = self.operator.outputs(call, given)
        return outputs, (given, outputs)

    def input_gradients(
        self, device: Device, output_gradient: Any, output: Any, saved: Any
    ) -> Sequence[Callable[[], Array]]:
        """Return, for each input, a function that computes the gradient with respect to it; raises as ``forward``."""
        operator, (inputs, outputs) = self.operator, saved
        if operator.input_gradients is None:
            raise UnsupportedError(f"{self.label}: {operator.name} has no gradient")
        of_outputs = output_gradient if isinstance(output_gradient, tuple) else (output_gradient,)
        if not operator.several and of_outputs[0] is None:
            return []
        given = (of_outputs, outputs[: len(of_outputs)]) if operator.several else (of_outputs[0], outputs[0])
        with self._labeled():
            functions = operator.input_gradients(self._call(device), *given, *inputs)
        functions = (*functions, *(None for _ in inputs[len(functions) :]))
        return [partial(self._gradient, position, function) for position, function in enumerate(functions)]

    def _gradient(self, position: int, function: Callable[[], Array] | None) -> Array:
        if function is None:
            raise UnsupportedError(
                f"{self.label}: {self.operator.name} has no gradient with respect to its input {position + 1}, "
                f"{self.inputs[position]!r}"
            )
        with self._labeled():
            return function()

    def _call(self, device: Device) -> Call:
        assert isinstance(device, Cpu)  # the operators run nowhere else
        return Call(self.attributes, self.opset, self.outputs, device, self.named)

    @contextlib.contextmanager
    def _labeled(self) -> Iterator[None]:
        """Put the node's label before what goes wrong inside."""
        try:
            yield
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.label}: {_shown(error)}") from None
        except ModelError:
            raise
        except KeyError as error:
            raise ModelError(f"{self.label}: {_shown(error)} is missing") from None
        except (TypeError, AttributeError, IndexError) as error:
            # An attribute of another kind than the operator's, an index that points nowhere.
            raise ModelError(f"{self.label}: its attributes or inputs do not fit: {_shown(error)}") from None
        except (ValueError, ArithmeticError, RuntimeError) as error:
            raise ModelError(f"{self.label}: {_shown(error)}") from None
        except MemoryError:
            raise ModelError(f"{self.label}: there is not enough memory for its outputs") from None


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """An ONNX model, ready to run; made by ``load_graph``.

    Parameters
    ----------
    inputs : names of the inputs that must be given.
    defaults : names of the inputs that the model holds a value for, which another may be given in place of.
    outputs : names of the outputs.
    constants : the model's stored values by name.
    nodes : in an order in which they can be run.
    order : the names of all inputs as the model lists them.
    """

    inputs: tuple[str, ...]
    defaults: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    nodes: tuple[GraphNode[Use], ...]
    order: tuple[str, ...] = ()

    def run(self, inputs: Mapping[str, Array], *, device: Cpu | None = None) -> dict[str, Array]:
        """Return the outputs by name.

        Parameters
        ----------
        inputs : by name, in ONNX's layout, real or complex numbers.
        device : whose threads the kernels share; by default the calling one alone.

        Raises ValueError when an input is missing or unknown, ModelError when a node cannot be run.
        """
        device, values = device or Cpu(1), self._begun(inputs)
        nodes = _within(_budget(values), self.nodes)
        with device.computing(), np.errstate(all="ignore"):  # infinities are values to ONNX
            forward(device, nodes, values, self.outputs)
        return self._outputs_among(values)

    def input_gradients(
        self,
        inputs: Mapping[str, Array],
        output_gradients: Mapping[str, Array],
        with_respect_to: Iterable[str] | None = None,
        *,
        device: Cpu | None = None,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the outputs, and the gradients with respect to inputs of what depends on values of the graph.

        Parameters
        ----------
        inputs : as in ``run``.
        output_gradients : by name of an output or of any other value that a node computes, the derivative with respect
            to it, of its shape.
        with_respect_to : names of floating-point inputs or stored values; None means all inputs of floating point.

        Returns
        -------
        outputs : by name.
        gradients : by name, zero where nothing depends on the input.

        Raises ValueError for names that do not exist and shapes that do not fit, UnsupportedError, a ModelError, where
        an operator on the way has no gradient.
        """
        device, values = device or Cpu(1), self._begun(inputs)
        budget = _budget(values, rounds=4)  # the way back takes several times as long, and keeps all values
        wanted = [name for name in self.inputs if _is_floating(values[name])]
        wanted = wanted if with_respect_to is None else list(with_respect_to)
        for name in wanted:
            if name not in values:
                raise ValueError(unknown_name("input", name, [*self.inputs, *self.defaults]))
            if not _is_floating(values[name]):
                raise ValueError(f"the input {name!r} is of type {values[name].dtype}, which has no gradient")
        every = {*values, *(name for node in self.nodes for name in node.outputs)}
        tape: list[Any] = []
        with device.computing(), np.errstate(all="ignore"):
            forward(device, _within(budget, self.nodes), values, every, tape)
            # What depends on the inputs that are asked for: only that needs gradients.
            moving, on_the_way = set(wanted), []
            for node, saved in zip(self.nodes, tape, strict=True):
                if moving & set(node.inputs):
                    moving.update(name for name in node.outputs if name and _is_floating(values[name]))
                    on_the_way.append((node, saved))
            flowing = self._checked_gradients(output_gradients, values)
            nodes, tape = [node for node, _ in on_the_way], [saved for _, saved in on_the_way]
            # Never added in place: what one reader handed on may be the same array, or a view, elsewhere.
            backward(device, nodes, tape, lambda _: None, flowing, operator.add, wanted=moving)
        gradients = {name: flowing.get(name, np.zeros_like(values[name])) for name in wanted}
        return self._outputs_among(values), gradients

    def _begun(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the values that are there before the first node runs."""
        known = [*self.inputs, *self.defaults]
        for name, given in inputs.items():
            if name not in known:
                raise ValueError(unknown_name("input", name, known))
            check_numbers(np.asarray(given), f"the input {name!r}")
        for name in self.inputs:
            if name not in inputs:
                raise ValueError(f"the input {name!r} is missing, the model takes {', '.join(self.inputs)}")
        values = {**self.constants, **{name: np.asarray(given) for name, given in inputs.items()}}
        there = set(values)
        for node in self.nodes:
            for name in node.inputs:
                if name and name not in there:
                    raise ModelError(f"{node.label}: input {name!r} is not produced by any node before it")
            there.update(node.outputs)
        return values

    def _outputs_among(self, values: Mapping[str, Array]) -> dict[str, Array]:
        for name in self.outputs:
            if name not in values:
                raise ModelError(f"the model's output {name!r} is not produced by any node")
        return {name: values[name] for name in self.outputs}

    def _checked_gradients(self, gradients: Mapping[str, Array], values: Mapping[str, Array]) -> dict[str, Array]:
        for name, gradient in gradients.items():
            if name not in values:
                raise ValueError(unknown_name("value", name, self.outputs))
            if np.shape(gradient) != values[name].shape:
                raise ValueError(
                    f"the gradient of {name!r} has the shape {np.shape(gradient)}, the value {values[name].shape}"
                )
        return {name: np.asarray(gradient) for name, gradient in gradients.items()}


def load_graph(model: str | Path | onnx.ModelProto) -> OnnxGraph:
    """Return an ONNX model, from its file or as it is, ready to run.

    Raises ModelError when it is missing, damaged or not ONNX, and UnsupportedError, which is one, when it has operators
    or types that the engine does not.
    """
    file = open_onnx(model)
    graph = file.graph
    if graph.sparse_initializer:
        raise UnsupportedError("sparse weights in a model are not supported")
    constants = {
        tensor.name: _number_array(file, tensor, f"the stored value {tensor.name!r}") for tensor in graph.initializer
    }
    # Until IR version 3 the weights are listed among the inputs too.
    names = [value.name for value in graph.input]
    for value in [*graph.input, *graph.output]:
        if not value.type.HasField("tensor_type"):
            raise UnsupportedError(f"{value.name!r} is no array, and only arrays are supported")
        kind = value.type.tensor_type.elem_type
        if kind not in DTYPES:
            kinds = onnx.TensorProto.DataType
            name = kinds.Name(kind) if kind in kinds.values() else f"number {kind}"
            raise UnsupportedError(f"{value.name!r} is of type {name}, and only NumPy's own types are supported")
    return OnnxGraph(
        inputs=tuple(name for name in names if name not in constants),
        defaults=tuple(name for name in names if name in constants),
        outputs=tuple(value.name for value in graph.output),
        constants=constants,
        nodes=tuple(read_node(node, file) for node in graph.node),
        order=tuple(names),
    )


def read_node(node: onnx.NodeProto, file: OnnxFile, opset: int | None = None) -> GraphNode[Use]:
    """Return one ONNX node; raises UnsupportedError where the engine does not have its operator.

    Parameters
    ----------
    file : the model it is in.
    opset : the version of the operator set, the model's by default.
    """
    label = label_of(node.op_type, name_of(node))
    operator = OPERATORS.get(operator_of(node))
    if operator is None:
        raise UnsupportedError(f"{label}: operator {operator_of(node)} is not supported")
    attributes = attributes_of(node, lambda tensor, what: _number_array(file, tensor, what))
    opset = file.opset if opset is None else opset
    inputs, outputs = tuple(node.input) or ("",), tuple(node.output)
    asked = max((index for index, name in enumerate(outputs, 1) if name), default=0)
    use = Use(operator, attributes, opset, inputs, asked, label, len(outputs))
    return GraphNode(name_of(node), use, inputs[0], outputs[0], inputs[1:], outputs[1:])


def check_numbers(array: Array, what: str) -> None:
    """Raise UnsupportedError unless an array is of one of NumPy's own types of numbers."""
    if array.dtype.kind not in "biufc" or array.dtype.isbuiltin != 1:
        raise UnsupportedError(f"{what} is of type {array.dtype}, which is not supported")


def _is_floating(array: Array) -> bool:
    return array.dtype.kind in "fc"


def _number_array(file: OnnxFile, tensor: onnx.TensorProto, what: str) -> Array:
    array = file.array(tensor, what)
    check_numbers(array, what)
    return array


def _shown(error: Exception) -> str:
    """Return an error's text, in which there may be some out of the file, on one line."""
    return printable(str(error))


def computed(node: GraphNode[Use], inputs: Sequence[Array | None], budget: Budget | None = None) -> dict[str, Array]:
    """Return one node's outputs by name; raises ModelError as ``Use.forward``."""
    device = Cpu(1)
    with device.computing(), np.errstate(all="ignore"):
        outputs, _ = replace(node.operator, budget=budget).forward(device, inputs)
    return {name: output for name, output in zip(node.outputs, outputs, strict=False) if name}


def _within(budget: Budget, nodes: Sequence[GraphNode[Use]]) -> list[GraphNode[Use]]:
    """Return nodes that spend what they cost out of one budget."""
    return [replace(node, operator=replace(node.operator, budget=budget)) for node in nodes]


def _budget(values: Mapping[str, Array], rounds: int = 16) -> Budget:
    """Return how much a run on given inputs and weights may compute."""
    return Budget(sum(one.size for one in values.values()), value=MAX_ELEMENTS, growth=MAX_GROWTH, rounds=rounds)
