"""A network from an ONNX file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.device import CUDA_CONVOLUTIONS, CUDA_DTYPES, DTYPES, choose_device, moved_to_cuda
from engine.errors import ModelError, unknown_name
from engine.front import front_of, remaining_preprocessing
from engine.graph import Graph, Node
from engine.layers import LayerNames
from engine.network import Network
from engine.onnx.reader import read_onnx
from engine.ops import AveragePool, MaxPool, Operator, Shape
from engine.preprocessing import PREPROCESSING, Preprocessing, metadata_preprocessing, named_preprocessing
from engine.vgg import CONTENT_WEIGHT, is_normalized, known_file, known_weights, layer_names, other_names
from kernels import Cpu

POOLINGS = ("average", "max", "model")
CONVOLUTIONS = ("auto", "direct")


def load_network(
    path: str | Path,
    pooling: str = "average",
    device: str = "cpu",
    dtype: str = "float32",
    preprocessing: str | None = None,
    *,
    threads: int | None = None,
    convolution: str = "auto",
) -> Network:
    """Load a network from an ONNX file.

    Parameters
    ----------
    path : the file.
    pooling : ``"average"`` replaces every MaxPool by the mean over the same window (padding not counted), as the paper
        recommends; ``"max"`` does the opposite; ``"model"`` leaves the file's.
    device : ``"cpu"``; ``"cuda"``, a GPU through CuPy; ``"auto"`` takes that if it can be used, else the CPU: see
        ``Network.place``.
    dtype : of the activations: ``"float32"``; on the CPU also ``"float64"`` or ``"complex128"``; on a GPU also
        ``"float16"``, with sums in float32, values kept in range by ``engine.scaling``. ``"tf32"`` is float32, rounded
        to tf32 (11 bits) where convolutions multiply it, on a GPU of compute capability 8.0 or later.
    preprocessing : ``"caffe"``, ``"torch"``, ``"unit"``, ``"raw"`` or ``"bgr"``; None reads it from the model's
        metadata, the table of published files, or the first layer's weights and the arithmetic before it.
    convolution : ``"auto"`` takes the fastest algorithm for each layer, ``"direct"`` the definition's sums throughout.
        On a GPU also ``"patches"``, matrix products of patches; ``"tensor"``, implicit matrix products on the tensor
        cores of compute capability 8.0 and later, which in float32 keep its precision by products in three parts;
        ``"hopper"`` with dtype float16, the tensor cores of compute capability 9.0. Layers that do not suit these are
        computed from patches; so are all, after a warning, where a comparison shows that the results are wrong on this
        device, which makes dtype tf32 float32. There ``"auto"`` is ``"tensor"`` for float16, from 8.0 on, and tf32, and
        ``"patches"`` for float32.
    threads : how many the kernels use; None means all available cores. The result does not depend on it.

    Raises ModelError when the file cannot be used, ValueError for a wrong argument.

    Examples
    --------
    >>> network = load_network("tools/models/draft.onnx")  # the network that comes with the program
    >>> network.layers[:3]
    ('conv1_1', 'conv1_2', 'conv2_1')
    >>> network.preprocessing.name, network.precision
    ('caffe', 'float32')
    """
    for kind, given, choices in (
        ("pooling", pooling, POOLINGS),
        ("dtype", dtype, dict.fromkeys([*DTYPES, *CUDA_DTYPES])),
        ("convolution", convolution, dict.fromkeys([*CONVOLUTIONS, *CUDA_CONVOLUTIONS])),
    ):
        if given not in choices:
            raise ValueError(unknown_name(kind, given, choices))
    chosen = choose_device(device, dtype)
    if chosen == "cpu" and convolution not in CONVOLUTIONS:
        least = {"hopper": " of compute capability 9.0", "tensor": " of compute capability 8.0 or later"}
        raise ValueError(f"convolution {convolution!r} needs a GPU{least.get(convolution, '')}")
    named = None if preprocessing is None else named_preprocessing(preprocessing)
    path = Path(path)
    graph = read_onnx(path)
    nodes, outputs = _layers(graph, path)
    known = known_weights(nodes)
    of_cpu = np.dtype("float32" if dtype in CUDA_DTYPES else dtype)
    nodes = tuple(_in_dtype(with_pooling(node, pooling), of_cpu) for node in nodes)
    network = Network(
        nodes=nodes,
        outputs=LayerNames(outputs, other_names(tuple(layer_names(graph.nodes)), is_normalized(graph))),
        preprocessing=named or resolve_preprocessing(path, graph),
        dtype=of_cpu,
        device=Cpu(threads),
        content_weight=known.content_weight if known else CONTENT_WEIGHT,
        rejected=graph.rejected,
        convolution=convolution,
        weights=known.title if known else "",
        notes=graph.notes,
    )
    _check_channels(network, path)
    return network if chosen == "cpu" else moved_to_cuda(network, dtype)


def resolve_preprocessing(path: Path, graph: Graph) -> Preprocessing:
    """Return the input convention of a model: from its metadata, its hash, or its first layer and what stands before.

    A mean or a scale that the model itself has before its first layer is not in it.

    Raises ModelError if none of them tells: a wrong guess would quietly give worse pictures.
    """
    stated = metadata_preprocessing(graph.metadata)
    if stated is not None:
        return stated
    file = known_file(path)
    if file is not None and file.preprocessing is not None:
        return PREPROCESSING[file.preprocessing]
    known = known_weights(graph.nodes)
    trained_on = None if known is None else PREPROCESSING[known.preprocessing]
    front = front_of(graph.nodes)
    found = remaining_preprocessing(front, trained_on) if front else trained_on
    if found is not None:
        return found
    beside = " beside its own arithmetic on the image" if front else ""
    raise ModelError(
        f"{path}: nothing tells which input this model was trained on{beside}, choose its preprocessing: "
        '"caffe" (BGR, 0..255, mean subtracted), "torch" (RGB, ImageNet mean and deviation), '
        '"unit" (RGB, 0..1), "raw" (RGB, 0..255) or "bgr" (BGR, 0..255)'
    )


def _layers(graph: Graph, path: Path) -> tuple[tuple[Node, ...], dict[str, str]]:
    """Return the nodes worth keeping and the layers' names; the nodes of a VGG are called by their layer's name."""
    outputs = layer_names(graph.nodes)
    if outputs:
        names = {value: name for name, value in outputs.items()}
    else:
        names = {node.output: node.output for node in graph.nodes if node.operator.ends_in_relu}
        outputs = dict(names)
    if not outputs:
        reason = f" ({graph.rejected[0].label}: {graph.rejected[0].reason})" if graph.rejected else ""
        raise ModelError(f"{path}: the network has no convolution followed by a ReLU{reason}")
    last = max(index for index, node in enumerate(graph.nodes) if node.output in names)
    nodes = tuple(
        replace(node, name=names[node.output]) if node.output in names else node for node in graph.nodes[: last + 1]
    )
    return nodes, outputs


def _in_dtype(node: Node, dtype: np.dtype[Any]) -> Node:
    """Return ``node`` in ``dtype``; raises ModelError when its weights are too large for that."""
    with np.errstate(over="ignore"):
        converted = node.operator.astype(dtype)
    for name in ("weight", "bias", "scale", "shift"):
        values = getattr(converted, name, None)
        if values is not None and not np.isfinite(values).all():
            raise ModelError(f"{node.label}: its {name} has values too large for {dtype}, use float64")
    return replace(node, operator=converted)


def with_pooling(node: Node, pooling: str) -> Node:
    """Return the node with its pooling replaced as asked for.

    Parameters
    ----------
    pooling : as in ``load_network``.
    """
    operator: Operator = node.operator
    if pooling == "average" and isinstance(operator, MaxPool):
        operator = AveragePool(operator.window, count_include_pad=False)
    elif pooling == "max" and isinstance(operator, AveragePool):
        operator = MaxPool(operator.window)
    else:
        return node
    return replace(node, operator=operator)


def _check_channels(network: Network, path: Path) -> None:
    """Raise ModelError when some operator's channels do not fit the one before it."""
    # Large enough for any window: what may fail is the channels.
    size = 1 << 20
    shapes: dict[str, Shape] = {network.nodes[0].input: (size, size, 3)}
    for node in network.nodes:
        try:
            of_inputs = [shapes[name] for name in node.inputs]
            shapes[node.output] = (size, size, node.operator.output_shape(of_inputs)[2])
        except ValueError as error:
            raise ModelError(f"{path}: {node.label}: {error}") from None
