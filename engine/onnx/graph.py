"""An ONNX model run as it stands: any inputs, all outputs, and the gradients of outputs with respect to inputs.

``engine.network`` is for looking at images with what a style needs of a network, and fast. This is for whole models of
any shape, classifier included, and for ONNX's conformance tests.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.external_data_helper import load_external_data_for_model

from engine.errors import ModelError, unknown_name
from engine.graph import GraphNode, backward, forward, label_of
from engine.onnx.operators import DTYPES, OPERATORS, Call, Operator, UnsupportedError
from engine.ops import Array
from kernels import Cpu, Device


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
    """

    operator: Operator
    attributes: Mapping[str, Any]
    opset: int
    inputs: tuple[str, ...]
    outputs: int
    label: str

    @property
    def kind(self) -> str:
        """ONNX's name of the operator."""
        return self.operator.name

    def forward(
        self, device: Device, inputs: Sequence[Array | None], output_is_kept: bool = True
    ) -> tuple[tuple[Array, ...], Any]:
        """Return the outputs, and inputs and outputs for the gradients.

        Raises ModelError, with the label, when the inputs do not fit.
        """
        given = tuple(inputs)
        while given and given[-1] is None:  # an input that is left out at the end is not there
            given = given[:-1]
        with self._labelled():
            outputs = self.operator.outputs(self._call(device), given)
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
        with self._labelled():
            functions = operator.input_gradients(self._call(device), *given, *inputs)
        functions = (*functions, *(None for _ in inputs[len(functions) :]))
        return [partial(self._gradient, position, function) for position, function in enumerate(functions)]

    def _gradient(self, position: int, function: Callable[[], Array] | None) -> Array:
        if function is None:
            raise UnsupportedError(
                f"{self.label}: {self.operator.name} has no gradient with respect to its input {position + 1}, "
                f"{self.inputs[position]!r}"
            )
        with self._labelled():
            return function()

    def _call(self, device: Device) -> Call:
        assert isinstance(device, Cpu)  # the operators run nowhere else
        return Call(self.attributes, self.opset, self.outputs, device)

    @contextlib.contextmanager
    def _labelled(self) -> Iterator[None]:
        """Put the node's label before what goes wrong inside."""
        try:
            yield
        except UnsupportedError as error:
            raise UnsupportedError(f"{self.label}: {error}") from None
        except KeyError as error:
            raise ModelError(f"{self.label}: {error} is missing") from None
        except (TypeError, AttributeError, IndexError) as error:
            # An attribute of another kind than the operator's, an index that points nowhere.
            raise ModelError(f"{self.label}: its attributes or inputs do not fit: {error}") from None
        except ValueError as error:
            raise ModelError(f"{self.label}: {error}") from None


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
    nodes: tuple[GraphNode[Use], ...]

    def run(self, inputs: Mapping[str, Array], *, device: Cpu | None = None) -> dict[str, Array]:
        """Return the outputs by name.

        Parameters
        ----------
        inputs : by name, in ONNX's layout, real or complex numbers.
        device : whose threads the kernels share; by default the calling one alone.

        Raises ValueError when an input is missing or unknown, ModelError when a node cannot be run.
        """
        device, values = device or Cpu(1), self._begun(inputs)
        with device.computing(), np.errstate(all="ignore"):  # infinities are values to ONNX
            forward(device, self.nodes, values, self.outputs)
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
            forward(device, self.nodes, values, every, tape)
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
    if not isinstance(model, onnx.ModelProto):
        path = Path(model)
        model = parse_onnx(path)
        try:
            load_external_data_for_model(model, str(path.resolve().parent))
        except Exception as error:  # onnx raises many kinds for data that is missing or lies elsewhere
            raise ModelError(f"{path}: its external data cannot be read: {error}") from None
    graph = model.graph
    if model.functions or graph.sparse_initializer:
        raise UnsupportedError(f"{'functions' if model.functions else 'sparse weights'} in a model are not supported")
    opset = opset_of(model)
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    # Until IR version 3 the weights are listed among the inputs too.
    names = [value.name for value in graph.input]
    for value in [*graph.input, *graph.output]:
        if not value.type.HasField("tensor_type"):
            raise UnsupportedError(f"{value.name!r} is no array, and only arrays are supported")
        kind = value.type.tensor_type.elem_type
        if kind not in DTYPES:
            name = onnx.TensorProto.DataType.Name(kind)
            raise UnsupportedError(f"{value.name!r} is of type {name}, and only NumPy's own types are supported")
    return OnnxGraph(
        inputs=tuple(name for name in names if name not in constants),
        defaults=tuple(name for name in names if name in constants),
        outputs=tuple(value.name for value in graph.output),
        constants=constants,
        nodes=tuple(read_node(node, opset) for node in graph.node),
    )


def parse_onnx(path: Path) -> onnx.ModelProto:
    """Return the content of an ONNX file, without data that lies in files of its own; raises ModelError."""
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: is {'a directory' if path.is_dir() else 'no regular file'}, expected an ONNX file")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except DecodeError:
        raise ModelError(f"{path}: not an ONNX file, or a truncated one") from None
    if not model.ir_version or not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file: it holds no network")
    return model


def read_node(node: onnx.NodeProto, opset: int) -> GraphNode[Use]:
    """Return one ONNX node; raises UnsupportedError where the engine does not have its operator."""
    label = label_of(node.op_type, name_of(node))
    domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
    found = None if domain else OPERATORS.get(node.op_type)
    if found is None:
        raise UnsupportedError(f"{label}: operator {domain}{node.op_type} is not supported")
    attributes = {
        name: _array(value) if isinstance(value, onnx.TensorProto) else value
        for name, value in attributes_of(node).items()
    }
    inputs, outputs = tuple(node.input) or ("",), tuple(node.output)
    asked = max((index for index, name in enumerate(outputs, 1) if name), default=0)
    use = Use(found, attributes, opset, inputs, asked, label)
    return GraphNode(name_of(node), use, inputs[0], outputs[0], inputs[1:], outputs[1:])


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the operator set that a model was written for, 0 where it does not say."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def name_of(node: onnx.NodeProto) -> str:
    """Return an ONNX node's name, that of its first output where it has none."""
    return str(node.name or next(iter(node.output), ""))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return an ONNX node's attributes by name; texts as ``str``, tensors as they are stored."""
    values = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value for name, value in values.items()
    }


def check_numbers(array: Array, what: str) -> None:
    """Raise UnsupportedError unless an array is of one of NumPy's own types of numbers."""
    if array.dtype.kind not in "biufc" or array.dtype.isbuiltin != 1:
        raise UnsupportedError(f"{what} is of type {array.dtype}, which is not supported")


def _is_floating(array: Array) -> bool:
    return array.dtype.kind in "fc"


def _array(tensor: onnx.TensorProto) -> Array:
    what = f"the stored value {tensor.name!r}"
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:  # to_array raises many kinds on a damaged tensor
        raise ModelError(f"{what} cannot be read: {error}") from None
    check_numbers(array, what)
    return array
