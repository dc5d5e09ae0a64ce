from __future__ import annotations

import pytest

from engine.errors import ModelError
from engine.graph import Node
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import MaxPool
from kernels.geometry import Window
from tests.tools.models.model_files import classifier
from tools.models.part import convolution_part


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
