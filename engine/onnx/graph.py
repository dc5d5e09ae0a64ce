"""An ONNX model run as it stands: any inputs, all outputs, and the gradients of outputs with respect to inputs.

``engine.network`` is for looking at images with what a style needs of a network, and fast. This is for whole models of
any shape, classifier included, and for ONNX's conformance tests.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from engine.errors import ModelError, printable, unknown_name
from engine.graph import label_of
from engine.onnx.file import OnnxFile, attributes_of, name_of, open_onnx, operator_of
from engine.onnx.operators import DTYPES, OPERATORS, Budget, Call, Operator, UnsupportedError
from engine.ops import Array
from kernels.cpu.threads import SERIAL, Workers

MAX_ELEMENTS = 1 << 27
"""What one value of a run may have in numbers in any case: 512 MB in single precision."""

MAX_GROWTH = 256
"""How many times the numbers of inputs and weights one value of a run may have."""


@dataclass(frozen=True, eq=False)
class GraphNode:
    """One use of an operator.

    Parameters
    ----------
    label : how messages call it.
    operator : what it computes.
    attributes : of the ONNX node; texts as ``str``, tensors as arrays.
    opset : version of the operator set.
    inputs, outputs : names of values, empty for what is left out.
    """

    label: str
    operator: Operator
    attributes: Mapping[str, Any]
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def call(self, workers: Workers) -> Call:
        """Return what the operator is told besides its inputs."""
        asked = [index for index, name in enumerate(self.outputs, 1) if name]
        return Call(self.attributes, self.opset, max(asked, default=0), workers, len(self.outputs))

    def forward(
        self, inputs: tuple[Array | None, ...], workers: Workers, budget: Budget | None = None
    ) -> dict[str, Array]:
        """Return the outputs by name.

        Raises ModelError, with the node's label, when the inputs do not fit, or the budget, where there is one, is not
        enough.
        """
        with self._labelled():
            call = self.call(workers)
            self.operator.check_number(inputs)
            if budget is not None:
                budget.spend(self.label, self.operator.name, call, inputs)
            outputs = self.operator.outputs(call, inputs)
        return {name: output for name, output in zip(self.outputs, outputs, strict=False) if name}

    def input_gradients(
        self,
        gradients: Mapping[str, Array],
        values: Mapping[str, Array],
        wanted: Collection[str],
        workers: Workers,
    ) -> Iterator[tuple[str, Array]]:
        """Yield the gradient with respect to each use of an input that is ``wanted``.

        Parameters
        ----------
        gradients : of values; at least one of the outputs has one.
        values : of the graph.
        """
        of_outputs = tuple(gradients.get(name) for name in self.outputs)
        outputs = tuple(values.get(name) for name in self.outputs)
        operator = self.operator
        if operator.input_gradients is None:
            raise UnsupportedError(f"{self.label}: {operator.name} has no gradient")
        if not operator.several and of_outputs[0] is None:
            return
        inputs = tuple(values[name] if name else None for name in self.inputs)
        given = (of_outputs, outputs) if operator.several else (of_outputs[0], outputs[0])
        with self._labelled():
            functions = operator.input_gradients(self.call(workers), *given, *inputs)
        for position, name in enumerate(self.inputs):
            if name not in wanted:
                continue
            function = functions[position] if position < len(functions) else None
            if function is None:
                raise UnsupportedError(
                    f"{self.label}: {operator.name} has no gradient with respect to its input {position + 1}, {name!r}"
                )
            with self._labelled():
                yield name, function()

    @contextlib.contextmanager
    def _labelled(self) -> Iterator[None]:
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
    """

    inputs: tuple[str, ...]
    defaults: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array]
    nodes: tuple[GraphNode, ...]

    def run(self, inputs: Mapping[str, Array], *, workers: Workers = SERIAL) -> dict[str, Array]:
        """Return the outputs by name.

        Parameters
        ----------
        inputs : by name, in ONNX's layout, real or complex numbers.
        workers : the threads that the kernels share.

        Raises ValueError when an input is missing or unknown, ModelError when a node cannot be run.
        """
        readers = Counter(name for node in self.nodes for name in node.inputs)
        readers.update(self.outputs)
        values = self._begun(inputs)
        budget = _budget(values)
        with workers.single_threaded_blas(), np.errstate(all="ignore"):  # infinities are values to ONNX
            for node in self.nodes:
                values |= node.forward(_inputs_of(node, values), workers, budget)
                for name in node.inputs:
                    readers[name] -= 1
                for name in {*node.inputs, *node.outputs}:
                    if name and not readers[name]:
                        values.pop(name, None)
        return self._outputs_among(values)

    def input_gradients(
        self,
        inputs: Mapping[str, Array],
        output_gradients: Mapping[str, Array],
        with_respect_to: Iterable[str] | None = None,
        *,
        workers: Workers = SERIAL,
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
        values = self._begun(inputs)
        budget = _budget(values, rounds=4)  # the way back takes several times as long, and keeps all values
        wanted = [name for name in self.inputs if _is_floating(values[name])]
        wanted = wanted if with_respect_to is None else list(with_respect_to)
        for name in wanted:
            if name not in values:
                raise ValueError(unknown_name("input", name, [*self.inputs, *self.defaults]))
            if not _is_floating(values[name]):
                raise ValueError(f"the input {name!r} is of type {values[name].dtype}, which has no gradient")
        with workers.single_threaded_blas(), np.errstate(all="ignore"):
            # What depends on the inputs that are asked for: only that needs gradients.
            moving, run = set(wanted), []
            for node in self.nodes:
                outputs = node.forward(_inputs_of(node, values), workers, budget)
                values |= outputs
                if moving & set(node.inputs):
                    moving.update(name for name, output in outputs.items() if _is_floating(output))
                    run.append(node)
            flowing = self._checked_gradients(output_gradients, values)
            for node in reversed(run):
                if not any(name in flowing for name in node.outputs):
                    continue
                for name, gradient in node.input_gradients(flowing, values, moving, workers):
                    # Never in place: what one reader handed on may be the same array, or a view, elsewhere.
                    flowing[name] = flowing[name] + gradient if name in flowing else gradient
                for name in node.outputs:
                    if name not in wanted:
                        flowing.pop(name, None)
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
        return {**self.constants, **{name: np.asarray(given) for name, given in inputs.items()}}

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
    )


def read_node(node: onnx.NodeProto, file: OnnxFile, opset: int | None = None) -> GraphNode:
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
    return GraphNode(label, operator, attributes, opset, tuple(node.input), tuple(node.output))


def check_numbers(array: Array, what: str) -> None:
    """Raise UnsupportedError unless an array is of one of NumPy's own types of numbers."""
    if array.dtype.kind not in "biufc" or array.dtype.isbuiltin != 1:
        raise UnsupportedError(f"{what} is of type {array.dtype}, which is not supported")


def _inputs_of(node: GraphNode, values: Mapping[str, Array]) -> tuple[Array | None, ...]:
    for name in node.inputs:
        if name and name not in values:
            raise ModelError(f"{node.label}: input {name!r} is not produced by any node before it")
    return tuple(values[name] if name else None for name in node.inputs)


def _is_floating(array: Array) -> bool:
    return array.dtype.kind in "fc"


def _number_array(file: OnnxFile, tensor: onnx.TensorProto, what: str) -> Array:
    array = file.array(tensor, what)
    check_numbers(array, what)
    return array


def _shown(error: Exception) -> str:
    """Return an error's text, in which there may be some out of the file, on one line."""
    return printable(str(error))


def _budget(values: Mapping[str, Array], rounds: int = 16) -> Budget:
    """Return how much a run on given inputs and weights may compute."""
    return Budget(sum(one.size for one in values.values()), value=MAX_ELEMENTS, growth=MAX_GROWTH, rounds=rounds)
