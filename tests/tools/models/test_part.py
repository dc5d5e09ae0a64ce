from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ModelError
from engine.graph import Node
from engine.load import load_network
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import MaxPool
from kernels.geometry import Window
from tests.engine import models
from tests.tools.models.model_files import classifier
from tools.models.part import convolution_part, write_part


def test_the_convolution_part_ends_with_the_last_layer_and_is_called_by_the_layers_names(tmp_path):
    nodes = convolution_part(read_onnx(classifier(tmp_path / "model.onnx", {})))
    assert nodes[-1].label == "Conv 'conv5_3'"
    assert [node.label for node in nodes if isinstance(node.operator, MaxPool)] == [
        f"MaxPool 'pool{number}'" for number in (1, 2, 3, 4)
    ]
    pools = [Node("p", MaxPool(Window((2, 2))), "image", "p")]
    write_onnx(tmp_path / "pools.onnx", pools, {})
    with pytest.raises(ModelError, match="no convolution followed by a ReLU"):
        convolution_part(read_onnx(tmp_path / "pools.onnx"))


def test_a_part_calls_its_layers_as_its_model_does(tmp_path):
    """A mean that the model itself subtracts is written as a batch normalization, and counted as none."""
    builder = models.Builder()
    front = builder.node("Sub", "image", builder.weight(np.full((1, 3, 1, 1), 100.0)))
    model = models.vgg(models.parameters((2, 2)), front=lambda _, value: front, builder=builder)
    path = models.save(model, tmp_path / "whole.onnx")
    write_part(read_onnx(path), path, tmp_path / "part.onnx", "whole")
    whole, part = (load_network(tmp_path / f"{name}.onnx", "model", threads=1) for name in ("whole", "part"))
    for name in ("features.0", "features.2", "features.5"):
        assert whole.outputs[name] == part.outputs[name]
