from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from engine.errors import ModelError
from engine.graph import Node
from engine.load import load_network
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import Affine, AveragePool, Conv, MaxPool, Operator, Pad, Relu
from engine.preprocessing import PREPROCESSING, metadata_preprocessing, preprocessing_metadata
from kernels import Cpu
from kernels.geometry import Window
from tests.engine import models
from tests.engine.models import Builder


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def conv(filters: int, channels: int, window: Window, group: int = 1, relu: bool = True, bias: bool = True) -> Conv:
    weight = numbers(*window.kernel, channels // group, filters, seed=filters)
    return Conv(weight, numbers(filters, seed=1) if bias else None, window, group, relu)


def chain(*operators: Operator) -> list[Node]:
    """Nodes one behind the other, called op1, op2, ..."""
    values = ["image", *(f"op{number}" for number in range(1, len(operators) + 1))]
    return [
        Node(output, operator, input, output)
        for operator, input, output in zip(operators, values[:-1], values[1:], strict=True)
    ]


EVERY_OPERATOR = chain(
    Pad((1, 2, 0, 3), "reflect"),
    Affine(np.array([0.5, 1.5, -2], np.float32), np.array([1, 0, 3], np.float32)),
    conv(4, 3, Window((3, 5), (1, 2), (1, 2, 0, 1))),
    MaxPool(Window((2, 2), (2, 2))),
    Relu(),
    conv(6, 4, Window((3, 3), dilations=(2, 1), pads=(2, 1, 2, 1)), group=2, bias=False),
    Affine(numbers(6), numbers(6, seed=3)),
    AveragePool(Window((3, 2), (1, 2), (1, 0, 1, 0)), count_include_pad=True),
    AveragePool(Window((2, 2), (1, 1), (0, 0, 1, 1))),
    conv(5, 6, Window((1, 1)), relu=False),
)

ROUNDINGS = chain(
    conv(2, 3, Window((3, 3), (2, 2), auto_pad="SAME_UPPER")),
    conv(2, 2, Window((2, 2), auto_pad="SAME_LOWER")),
    MaxPool(Window((3, 3), (2, 2), ceil_mode=True)),
    MaxPool(Window((2, 2), auto_pad="VALID")),
    MaxPool(Window((2, 2), (2, 2), dilations=(2, 2))),
    AveragePool(Window((3, 3), (2, 2), ceil_mode=True)),
    AveragePool(Window((2, 2), auto_pad="SAME_UPPER")),
)


def parameters(operator: Operator) -> dict[str, Any]:
    return {name: value for name, value in vars(operator).items() if name != "flipped_weight"}


def assert_same(found: list[Node], expected: list[Node]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (type(one.operator), one.input, one.output) == (type(other.operator), other.input, other.output)
        for name, value in parameters(other.operator).items():
            back = getattr(one.operator, name)
            if isinstance(value, np.ndarray):
                assert back.shape == value.shape
                assert back.astype(value.dtype).tobytes() == value.tobytes(), (other.label, name)
                np.testing.assert_array_equal(back, value)
            else:
                assert back == value, (other.label, name)


def written(tmp_path: Path, nodes: list[Node], **options: Any) -> Path:
    path = tmp_path / "model.onnx"
    write_onnx(path, nodes, {}, **options)
    return path


@pytest.mark.parametrize("nodes", [EVERY_OPERATOR, ROUNDINGS], ids=["every operator", "roundings"])
def test_what_was_written_is_read_back_bit_for_bit(tmp_path, nodes):
    graph = read_onnx(written(tmp_path, nodes))
    assert_same(list(graph.nodes), nodes)
    assert graph.rejected == ()
    assert [node.label for node in graph.nodes] == [node.label for node in nodes]


@pytest.mark.parametrize("nodes", [EVERY_OPERATOR, ROUNDINGS], ids=["every operator", "roundings"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_file_is_valid_onnx(tmp_path, nodes, dtype):
    path = written(tmp_path, nodes, dtype=dtype)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (8, [("", 13)])
    (image,) = model.graph.input
    sizes = image.type.tensor_type.shape.dim
    assert image.name == "image"
    assert [size.dim_value or size.dim_param for size in sizes] == [1, 3, "height", "width"]
    assert all(tensor.HasField("raw_data") for tensor in model.graph.initializer)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_onnx_s_reference_computes_the_same_from_the_file(tmp_path):
    image = numbers(23, 26, 3).astype(np.float64)
    value = image
    for node in EVERY_OPERATOR:
        value, _ = node.operator.astype(np.dtype(np.float64)).forward(Cpu(1), [value], True)
    evaluator = ReferenceEvaluator(str(written(tmp_path, EVERY_OPERATOR, dtype="float64")))
    (expected,) = evaluator.run(None, {"image": image.transpose(2, 0, 1)[None]})
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(value, expected[0].transpose(1, 2, 0), rtol=1e-12, atol=1e-12)


def test_nodes_of_a_loaded_network_carry_their_layers_names(tmp_path):
    vgg = chain(*(conv(3, 3, Window((3, 3), pads=(1, 1, 1, 1))) for _ in range(2)))
    write_onnx(tmp_path / "first.onnx", vgg, preprocessing_metadata(PREPROCESSING["unit"]))
    network = load_network(tmp_path / "first.onnx")
    path = written(tmp_path, list(network.nodes))
    nodes = onnx.load(path).graph.node
    assert [node.name for node in nodes if node.op_type == "Conv"] == ["conv1_1", "conv1_2"]
    assert [node.output[0] for node in nodes if node.op_type == "Relu"] == ["op1", "op2"]
    assert [tensor.name for tensor in onnx.load(path).graph.initializer] == [
        "conv1_1.weight",
        "conv1_1.bias",
        "conv1_2.weight",
        "conv1_2.bias",
    ]


@pytest.mark.parametrize("name", PREPROCESSING)
def test_the_metadata_are_read_back(tmp_path, name):
    metadata = preprocessing_metadata(PREPROCESSING[name]) | {"source": "a test, höher"}
    write_onnx(tmp_path / "model.onnx", EVERY_OPERATOR, metadata)
    found = read_onnx(tmp_path / "model.onnx").metadata
    assert found == metadata
    assert metadata_preprocessing(found) == PREPROCESSING[name]


def test_float64_keeps_what_float32_would_round(tmp_path):
    weight = np.random.default_rng(0).standard_normal((3, 3, 3, 2))
    nodes = chain(Conv(weight, weight[0, 0, 0], Window((3, 3))), MaxPool(Window((2, 2))))
    assert_same(list(read_onnx(written(tmp_path, nodes, dtype="float64")).nodes), nodes)
    single = read_onnx(written(tmp_path, nodes, dtype="float32")).nodes[0].operator
    assert isinstance(single, Conv)
    assert single.weight.dtype == np.float32
    np.testing.assert_array_equal(single.weight, weight.astype(np.float32))


def test_the_same_nodes_give_the_same_bytes(tmp_path):
    metadata = {f"key {number}": str(number) for number in range(20)}
    for name in "ab":
        write_onnx(tmp_path / name, EVERY_OPERATOR, metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("conv'", '''Conv "conv'"'''),
        ('"quoted"', """Conv '"quoted"'"""),
        ("two words", "Conv 'two words'"),
        ("höher", "Conv 'höher'"),
    ],
)
def test_a_name_comes_back_whatever_is_in_it(tmp_path, name, label):
    nodes = [Node(name, conv(2, 3, Window((3, 3))), "image", "end")]
    assert nodes[0].label == label
    (found,) = read_onnx(written(tmp_path, nodes)).nodes
    assert (found.name, found.label) == (name, label)


def test_a_scale_is_called_the_same_whatever_operator_it_was_read_from(tmp_path):
    """A file's Mul is an Affine here, and is written as a BatchNormalization: all three have one label."""
    builder = Builder()
    value = builder.node("Mul", "image", builder.weight(np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)))
    model = builder.model(builder.node("Relu", value))
    model.graph.node[0].name = "scale"
    model.graph.node[1].name = ""
    first = read_onnx(models.save(model, tmp_path / "first.onnx"))
    again = read_onnx(written(tmp_path, list(first.nodes)))
    assert [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node] == ["BatchNormalization", "Relu"]
    assert [node.label for node in first.nodes] == ["Affine 'scale'", "Relu 'value1'"]
    assert [node.label for node in again.nodes] == [node.label for node in first.nodes]


def test_one_number_for_all_channels_comes_back_as_one_for_each(tmp_path):
    nodes = chain(MaxPool(Window((2, 2))), Affine(np.array([2.0]), np.array([-1.0])))
    affine = read_onnx(written(tmp_path, nodes)).nodes[1].operator
    assert isinstance(affine, Affine)
    assert affine.scale.tolist() == [2, 2, 2]
    assert affine.shift.tolist() == [-1, -1, -1]


def test_a_relu_behind_a_bare_convolution_is_folded_into_it(tmp_path):
    bare = conv(2, 3, Window((3, 3)), relu=False)
    (node,) = read_onnx(written(tmp_path, chain(bare, Relu()))).nodes
    assert isinstance(node.operator, Conv)
    assert node.operator.relu
    assert node.output == "op2"


def test_branches_are_kept(tmp_path):
    nodes = [
        Node("stem", conv(4, 3, Window((3, 3))), "image", "stem"),
        Node("left", conv(2, 4, Window((1, 1))), "stem", "left"),
        Node("right", MaxPool(Window((2, 2))), "stem", "right"),
    ]
    path = written(tmp_path, nodes)
    onnx.checker.check_model(str(path), full_check=True)
    assert_same(list(read_onnx(path).nodes), nodes)
    assert [value.name for value in onnx.load(path).graph.output] == ["left", "right"]


def test_names_that_would_collide_are_told_apart(tmp_path):
    nodes = [
        Node("same", conv(2, 3, Window((3, 3))), "data", "image"),
        Node("same", conv(2, 2, Window((3, 3))), "image", "same.weight"),
    ]
    path = written(tmp_path, nodes)
    onnx.checker.check_model(str(path), full_check=True)
    graph = read_onnx(path)
    assert [node.output for node in graph.nodes] == ["image", "same.weight"]
    assert [node.label for node in graph.nodes] == ["Conv 'same'", "Conv 'same_2'"]


HUGE = np.full((1, 1, 3, 1), 1e30)


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ([], {}, "without operators"),
        (chain(conv(2, 4, Window((3, 3)))), {}, "Conv 'op1': input has 3 channels, weight (2, 4, 3, 3) expects 4"),
        (chain(AveragePool(Window((2, 2), dilations=(2, 1)))), {}, "AveragePool 'op1': an AveragePool with dilations"),
        (chain(conv(2, 3, Window((3, 3), ceil_mode=True))), {}, "Conv 'op1': a Conv with ceil_mode"),
        (chain(Conv(HUGE, None, Window((1, 1)))), {"dtype": "float16"}, "Conv 'op1': its weights are not finite in"),
        (chain(Conv(HUGE * np.nan, None, Window((1, 1)))), {}, "Conv 'op1': its weights are not finite in float32"),
        (chain(Conv(HUGE * 1j, None, Window((1, 1)))), {}, "Conv 'op1': a weight of type complex128"),
        ([*chain(Relu()), Node("b", Relu(), "nowhere", "b")], {}, "Relu 'b': its input 'nowhere' is neither"),
        ([*chain(Relu()), Node("b", Relu(), "op1", "op1")], {}, "Relu 'b': its output 'op1' is there already"),
    ],
)
def test_what_onnx_cannot_hold_is_refused_by_name(tmp_path, nodes, options, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        written(tmp_path, nodes, **options)
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_protobuf_s_limit_are_refused_before_they_are_copied(tmp_path):
    weight = np.broadcast_to(np.float32(0), (3, 3, 3, 20_000_000))
    with pytest.raises(ModelError, match="2,160,000,000 bytes, one ONNX file holds at most 2,000,000,000"):
        written(tmp_path, chain(Conv(weight, None, Window((3, 3)))))


def test_an_unknown_dtype_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="unknown dtype 'float23'; did you mean 'float32'"):
        written(tmp_path, EVERY_OPERATOR, dtype="float23")


def test_a_path_that_cannot_be_written_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_onnx(tmp_path / "missing" / "model.onnx", EVERY_OPERATOR, {})
