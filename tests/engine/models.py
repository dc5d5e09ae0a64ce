"""Small VGG-like networks as ONNX files, in the ways that exporters write them.

``vgg`` puts the same parameters into a file by the hooks it is given, so that every variant computes the same features.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from kernels.geometry import Window
from tests.kernels import naive

CAFFE = preprocessing_metadata(PREPROCESSING["caffe"])
DYNAMIC = ("N", 3, "H", "W")


class Builder:
    """Collects the nodes and weights of one graph; values are named as they come."""

    def __init__(self, opset=13, ir_version=8, dtype=np.float32):
        self.opset, self.ir_version, self.dtype = opset, ir_version, dtype
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def node(self, op_type, *inputs, outputs=None, **attributes):
        """Append a node and return its first output."""
        outputs = outputs or [f"value{len(self.nodes)}"]
        label = f"{op_type.lower()}{sum(node.op_type == op_type for node in self.nodes) + 1}"
        self.nodes.append(helper.make_node(op_type, list(inputs), outputs, name=label, **attributes))
        return outputs[0]

    def weight(self, array, name=None):
        """Store a constant and return its name; floating numbers take the file's precision."""
        name = name or f"weight{len(self.weights)}"
        array = np.asarray(array)
        self.weights[name] = array.astype(self.dtype) if array.dtype.kind == "f" else array
        return name

    def model(self, output, input_shape=DYNAMIC, metadata=CAFFE, inputs=None):
        """Return the file's content."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("image", kind, input_shape), *(inputs or [])],
            [helper.make_tensor_value_info(output, kind, [None] * 4)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=self.ir_version
        )
        helper.set_model_props(model, dict(metadata))
        return model


def parameters(blocks=(2, 2, 2), widths=(5, 6, 7, 8, 9), seed=0, first=3):
    """Return random weights (K, C, 3, 3) and biases (K,) in float32, block by block."""
    rng = np.random.default_rng(seed)
    result, channels = [], first
    for count, width in zip(blocks, widths, strict=False):
        result.append([])
        for _ in range(count):
            weight = rng.standard_normal((width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
            bias = 10 * rng.standard_normal(width)
            result[-1].append((weight.astype(np.float32), bias.astype(np.float32)))
            channels = width
    return result


def plain_conv(builder, value, weight, bias):
    """Append a Conv with everything stated, and return its output."""
    return builder.node(
        "Conv",
        value,
        builder.weight(weight),
        builder.weight(bias),
        kernel_shape=[3, 3],
        strides=[1, 1],
        pads=[1, 1, 1, 1],
        dilations=[1, 1],
        group=1,
    )


def plain_relu(builder, value):
    """Append a Relu and return its output."""
    return builder.node("Relu", value)


def plain_pool(builder, value):
    """Append a MaxPool of 2x2 and return its output."""
    return builder.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])


def unchanged(builder, value):
    """Append nothing."""
    return value


def vgg(
    blocks,
    *,
    conv: Callable = plain_conv,
    relu: Callable = plain_relu,
    pool: Callable = plain_pool,
    front: Callable = unchanged,
    behind: Callable = unchanged,
    builder: Builder | None = None,
    **of_model,
):
    """Return an ONNX model of ``blocks`` (see ``parameters``), each part written by its hook."""
    builder = builder or Builder()
    value = front(builder, "image")
    for index, block in enumerate(blocks):
        if index:
            value = pool(builder, value)
        for weight, bias in block:
            value = relu(builder, conv(builder, value, weight, bias))
    return builder.model(behind(builder, value), **of_model)


def save(model, path: Path) -> Path:
    """Write a model and return its path."""
    path.write_bytes(model.SerializeToString())
    return path


def names(blocks):
    """Return the layers' names."""
    return tuple(f"conv{b}_{i}" for b, block in enumerate(blocks, 1) for i in range(1, len(block) + 1))


def random_image(height, width, seed=0):
    """Return an RGB image of 0..255 in float64."""
    return np.random.default_rng(seed).uniform(0, 255, (height, width, 3))


CONV = Window((3, 3), pads=(1, 1, 1, 1))
POOL = Window((2, 2), strides=(2, 2))


def naive_features(blocks, image, pooling="average", preprocess=None):
    """Return every layer's features (N_l, H_l, W_l), computed by the naive twins in the image's precision."""
    caffe = np.array([103.939, 116.779, 123.68])
    value = image[:, :, ::-1] - caffe if preprocess is None else preprocess(image)
    features = {}
    for b, block in enumerate(blocks, 1):
        if b > 1 and pooling == "max":
            value, _ = naive.max_pool(value, POOL)
        elif b > 1:
            weights = naive.average_weights(POOL, *value.shape[:2], False)
            value = np.einsum("yxvu,vuc->yxc", weights, value)
        for i, (weight, bias) in enumerate(block, 1):
            value = naive.conv(value, weight.transpose(2, 3, 1, 0).astype(value.dtype), bias.astype(value.dtype), CONV)
            value = np.where(value.real > 0, value, 0)
            features[f"conv{b}_{i}"] = value.transpose(2, 0, 1)
    return features


FLOAT = TensorProto.FLOAT


def algorithms(nodes):
    """Return the algorithm of each convolution of a plan's nodes, and the class of every other operator, by name."""
    return [type(getattr(node.operator, "algorithm", node.operator)).__name__ for node in nodes]
