"""The engine behind ONNX's common interface for backends, which its conformance tests run.

``EngineBackend.prepare(onnx.load("squeezenet.onnx")).run([image])`` gives the model's outputs.
"""

from __future__ import annotations

import contextlib
import unittest
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, Device, DeviceType, namedtupledict
from onnx.defs import onnx_opset_version

from engine.onnx.file import OnnxFile
from engine.onnx.graph import OnnxGraph, check_numbers, computed, load_graph, read_node
from engine.onnx.operators import UnsupportedError
from engine.ops import Array
from kernels import Cpu


class SkippedError(UnsupportedError, unittest.SkipTest):
    """What the engine cannot run; ONNX's test runner, which knows unittest's class, reports it as skipped.

    Its own ``BackendIsNotSupposedToImplementIt`` would do worse: the runner catches it and counts the case as passed.
    """


class PreparedModel(BackendRep):
    """A model that ``EngineBackend.prepare`` accepted."""

    def __init__(self, graph: OnnxGraph, on: Cpu | None) -> None:
        self.graph = graph
        self.on = on

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return the model's outputs, as a tuple that also takes their names.

        Parameters
        ----------
        inputs : a list of arrays in the model's order, a dictionary by name, or, where the model takes one, an array.

        Raises ValueError when they do not fit the model, SkippedError where the engine lacks something.
        """
        graph = self.graph
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            names = graph.inputs if len(inputs) <= len(graph.inputs) else graph.order
            if not len(graph.inputs) <= len(inputs) <= len(names):
                raise ValueError(f"{len(inputs)} inputs are given, the model takes {len(graph.inputs)}")
            inputs = dict(zip(names, inputs, strict=False))
        with _skipping():
            return _named(graph.run(inputs, device=self.on))


class EngineBackend(Backend):
    """``onnx.backend.base.Backend`` over ``engine.onnx.graph``."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Say whether the engine has the device and all operators of the model."""
        try:
            load_graph(model)
        except UnsupportedError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(
        cls, model: onnx.ModelProto, device: str = "CPU", *, on: Cpu | None = None, **kwargs: Any
    ) -> PreparedModel:
        """Return a model ready to run.

        Raises SkippedError for an operator that the engine does not have, ValueError for a device that it does not
        have, ModelError and onnx's ValidationError for a model that is damaged.
        """
        super().prepare(model, device, **kwargs)
        _check_device(device)
        with _skipping():
            return PreparedModel(load_graph(model), on)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Return the outputs of one node.

        Parameters
        ----------
        node : of the operator set ``opset_version`` (a keyword), by default the newest that onnx knows.
        inputs : a list of arrays, without those that the node leaves out.

        Raises as ``prepare`` does, and ModelError when the inputs do not fit.
        """
        super().run_node(node, inputs, device, outputs_info, **kwargs)
        _check_device(device)
        arrays = iter([np.asarray(one) for one in inputs])
        with _skipping():
            opset = int(kwargs.get("opset_version", onnx_opset_version()))
            read = read_node(node, OnnxFile(onnx.ModelProto(), (), "the node"), opset)
            placed = tuple(next(arrays, None) if name else None for name in read.inputs)
            for array in placed:
                if array is not None:
                    check_numbers(array, f"an input of {read.label}")
            return _named(computed(read, placed))

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Say whether the engine runs on a device in ONNX's terms, ``"CPU"`` or ``"CUDA:1"``: on the CPU."""
        try:
            return bool(Device(device).type == DeviceType.CPU)
        except (AttributeError, ValueError):
            return False


prepare = EngineBackend.prepare
run_model = EngineBackend.run_model
run_node = EngineBackend.run_node
supports_device = EngineBackend.supports_device
is_compatible = EngineBackend.is_compatible


def _named(outputs: dict[str, Array]) -> tuple[Any, ...]:
    return namedtupledict("Outputs", list(outputs))(*outputs.values())


def _check_device(device: str) -> None:
    if not EngineBackend.supports_device(device):
        raise ValueError(f"device {device!r} is not available: the ONNX operators run on the CPU")


@contextlib.contextmanager
def _skipping() -> Iterator[None]:
    """Turn what the engine does not have into something that test runners skip."""
    try:
        yield
    except UnsupportedError as error:
        raise SkippedError(str(error)) from None
