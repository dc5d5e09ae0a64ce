"""Small models, whole and damaged, for the tests of the tools that read and fetch model files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engine.vgg
import tools.models.__main__
import tools.models.cache
from engine.load import load_network
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.vgg import KNOWN_FILES, KnownFile
from tools.models.random_vgg import random_vgg

WIDTH = 0.05
CAFFE = preprocessing_metadata(PREPROCESSING["caffe"])
IMAGE = np.random.default_rng(0).uniform(0, 255, (40, 48, 3))


def small_vgg(path: Path, name: str = "vgg16", metadata: dict[str, str] = CAFFE, **options: Any) -> Path:
    write_onnx(path, random_vgg(name, width=WIDTH), metadata, **options)
    return path


def classifier(path: Path, metadata: dict[str, str], channels: int = 26) -> Path:
    """A VGG-16 with pooling, a classifier and names of its own, as published ones are."""
    small_vgg(path, metadata=metadata)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = f"old_{node.name}"
    weights = np.zeros((channels, 10, 40), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights.reshape(channels * 10, 40), "classes"))
    model.graph.node.extend(
        [
            helper.make_node("MaxPool", ["conv5_3"], ["pool5"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["pool5"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "classes"], ["scores"]),
            helper.make_node("Relu", ["scores"], ["end"]),
        ]
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.FLOAT, [1, 40]))
    onnx.save(model, path)
    return path


def interrupted_vgg(path: Path) -> Path:
    """A VGG-16 with an operator between conv2_1 and conv2_2 that the engine does not have."""
    small_vgg(path)
    model = onnx.load(path)
    index = next(index for index, node in enumerate(model.graph.node) if node.name == "conv2_2")
    model.graph.node[index].input[0] = "strange"
    model.graph.node.insert(index, helper.make_node("HardSwish", ["conv2_1"], ["strange"], name="swish"))
    model.opset_import[0].version = 14
    onnx.save(model, path)
    return path


def features(path: Path, layer: str = "conv3_1", **options: Any) -> np.ndarray:
    return load_network(path, **options).features(IMAGE, layer)[layer]


def publish(monkeypatch: pytest.MonkeyPatch, path: Path, preprocessing: str | None) -> bytes:
    """Make a file a published model called ``tiny-1``."""
    data = path.read_bytes()
    file = KnownFile("tiny-1", "vgg16", hashlib.sha256(data).hexdigest(), len(data), preprocessing)
    for module in (tools.models.__main__, tools.models.cache, engine.vgg):
        monkeypatch.setattr(module, "KNOWN_FILES", (file, *KNOWN_FILES))
    return data
