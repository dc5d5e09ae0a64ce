"""The convolution part of a model: all that is of use here of a classifier, written as a file of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.errors import ModelError
from engine.graph import Graph, Node
from engine.load import resolve_preprocessing
from engine.onnx.writer import write_onnx
from engine.ops import AveragePool, Conv, MaxPool, Relu
from engine.preprocessing import preprocessing_metadata
from engine.vgg import NORMALIZED, is_normalized, layer_names
from tools.media.files import replacing, sha256_of


def write_part(graph: Graph, source: Path, target: Path, name: str) -> None:
    """Write the convolution part of a model file, whole or not at all.

    The file's metadata go along, completed by its preprocessing where that is known; ``source`` states ``name`` and
    the SHA-256. The weights are stored in float32 where that holds them exactly, else in float64.

    Parameters
    ----------
    graph, source : what ``read_onnx`` gave for which file.
    target : the file to write.
    name : what to call the model in the metadata.

    Raises ModelError when the model has no such part, ValueError or OSError when ``target`` cannot be written.
    """
    nodes = convolution_part(graph)
    metadata = dict(graph.metadata)
    # Where the preprocessing is unknown or contradictory it stays so: the part must not tell more than its model.
    with contextlib.suppress(ModelError):
        metadata |= preprocessing_metadata(resolve_preprocessing(source, graph))
    if is_normalized(graph):
        metadata[NORMALIZED] = "folded in"
    if graph.notes:
        metadata["note"] = "; ".join(graph.notes)
    metadata["source"] = f"{name}, SHA-256 {sha256_of(source)}"
    with replacing(target) as temporary:
        write_onnx(temporary, nodes, metadata, dtype="float32" if single_precision(nodes) else "float64")


def convolution_part(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes up to the last layer, called by their layers' names.

    Raises ModelError when there is no layer.
    """
    nodes = called_by_layer(graph)
    behind = [index + 1 for index, node in enumerate(nodes) if is_layer(node)]
    if not behind:
        raise ModelError("the network has no convolution followed by a ReLU")
    return nodes[: behind[-1]]


def called_by_layer(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes with a VGG's convolutions and poolings called by position, others' layers by their output."""
    names = {value: name for name, value in layer_names(graph.nodes).items()}
    called, pools = [], 0
    for node in graph.nodes:
        name = ""
        if names and isinstance(node.operator, MaxPool | AveragePool):
            pools += 1
            name = f"pool{pools}"
        elif names:
            name = names.get(node.output, "")  # none for a convolution cut off from its ReLU
        elif is_layer(node):
            name = node.output
        called.append(replace(node, name=name) if name else node)
    return tuple(called)


def is_layer(node: Node) -> bool:
    """Tell whether losses can look at a node's output: a ReLU's, or that of a convolution with one."""
    return isinstance(node.operator, Relu) or (isinstance(node.operator, Conv) and node.operator.relu)


def single_precision(nodes: Sequence[Node]) -> bool:
    """Tell whether float32 holds all weights exactly."""
    for node in nodes:
        for values in vars(node.operator).values():
            if isinstance(values, np.ndarray) and not np.array_equal(values.astype(np.float32), values):
                return False
    return True
