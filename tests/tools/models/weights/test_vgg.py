"""What the tensors of a weight file make: the network's blocks, the axes' order, the input convention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import engine.vgg
from engine.fuse import fused
from engine.graph import Node
from engine.ops import Affine, AveragePool, Conv, MaxPool
from engine.preprocessing import PREPROCESSING
from engine.vgg import KnownWeights, layer_hash, layer_names
from kernels.geometry import Window
from tools.models.random_vgg import random_vgg
from tools.models.weights.tensor import Tensor
from tools.models.weights.vgg import vgg_from

WIDTH = 0.05


def tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    def tensor(name: str, array: np.ndarray) -> Tensor:
        return Tensor(name, array.shape, lambda: array)

    return {name: tensor(name, np.asarray(array)) for name, array in arrays.items()}


def convolutions(architecture: str = "vgg19", width: float = WIDTH) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Name, weight (out, in, height, width) and bias of a VGG's convolutions."""
    random = np.random.default_rng(1)
    found = []
    for node in random_vgg(architecture, width=width):
        if isinstance(node.operator, Conv):
            weight = node.operator.weight.transpose(3, 2, 0, 1)
            found.append((node.name, weight, random.normal(size=len(weight)).astype(np.float32)))
    return found


LAYERS = convolutions()
"""Of a VGG-19."""


def sequential(layers: list[tuple[str, np.ndarray, np.ndarray]], places: list[int], prefix: str = "features.") -> Any:
    named = {}
    for place, (_, weight, bias) in zip(places, layers, strict=False):
        named |= {f"{prefix}{place}.weight": weight, f"{prefix}{place}.bias": bias}
    return named


TORCHVISION = {
    "vgg19": [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34],
    "vgg16": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28],
}


def assert_holds(nodes: tuple[Node, ...], layers: list[tuple[str, np.ndarray, np.ndarray]]) -> None:
    """The nodes are these layers, each with its ReLU, pooled between the blocks."""
    found = [node for node in nodes if isinstance(node.operator, Conv)]
    assert [node.name for node in found] == [name for name, _, _ in layers]
    assert list(layer_names(nodes)) == [name for name, _, _ in layers]
    for node, (_, weight, bias) in zip(found, layers, strict=True):
        assert node.operator.relu
        np.testing.assert_array_equal(node.operator.weight, weight.transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(node.operator.bias, bias)


@pytest.mark.parametrize("architecture", ["vgg16", "vgg19"])
@pytest.mark.parametrize("kind", ["torch", "safetensors"])
@pytest.mark.parametrize("prefix", ["features.", "module.features.", ""])
def test_pytorchs_names_are_put_in_order_by_their_numbers(kind, architecture, prefix):
    layers = convolutions(architecture)
    named = sequential(layers, TORCHVISION[architecture], prefix)
    named["classifier.0.weight"], named["classifier.0.bias"] = np.zeros((4, 8), np.float32), np.zeros(4, np.float32)
    shuffled = dict(sorted(named.items()))  # 10 before 2
    nodes, preprocessing = vgg_from(kind, tensors(shuffled))
    assert_holds(nodes, layers)
    assert preprocessing is None


def test_layers_may_have_their_own_names():
    layers = convolutions()
    named = {}
    for name, weight, bias in layers:
        named |= {f"{name}.weight": weight, f"{name}.bias": bias}
    nodes, _ = vgg_from("torch", tensors(named))
    assert_holds(nodes, layers)


def test_batch_normalization_is_folded_as_the_onnx_reader_folds_it():
    layers = convolutions("vgg16")
    random, named, expected = np.random.default_rng(2), {}, []
    for index, (_, weight, bias) in enumerate(layers):
        place = 3 * index
        named |= {f"features.{place}.weight": weight, f"features.{place}.bias": bias}
        scale, shift, mean = random.normal(size=(3, len(weight))).astype(np.float32)
        variance = random.uniform(0.5, 2, len(weight)).astype(np.float32)
        parts = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
        named |= {f"features.{place + 1}.{part}": values for part, values in parts.items()}
        named[f"features.{place + 1}.num_batches_tracked"] = np.int64(7)
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + 1e-5)
        conv = Conv(np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), bias, Window((3, 3)))
        pair = [Node("c", conv, "a", "b"), Node("n", Affine(factor, shift - mean * factor), "b", "c")]
        expected.append(fused(pair)[0].operator)
    nodes, _ = vgg_from("torch", tensors(named))
    for node, wanted in zip((node for node in nodes if isinstance(node.operator, Conv)), expected, strict=True):
        np.testing.assert_array_equal(node.operator.weight, wanted.weight)
        np.testing.assert_array_equal(node.operator.bias, wanted.bias)


def test_eight_bit_weights_are_looked_up_in_their_tables():
    random, named, layers = np.random.default_rng(3), {}, []
    for name, weight, bias in convolutions():
        key = f"block{name[4]}_conv{name[6:]}"
        places = random.integers(0, 256, weight.shape).astype(np.uint8)
        table = random.normal(size=256).astype(np.float32)
        named |= {f"{key}_W_q": places, f"{key}_W_table": table, f"{key}_b": bias}
        layers.append((name, table[places], bias))
    nodes, _ = vgg_from("torch", tensors(named))
    assert_holds(nodes, layers)
    with pytest.raises(ValueError, match="the table of 256 values or the bias of 'block3_conv1' is missing"):
        vgg_from("torch", tensors({key: value for key, value in named.items() if key != "block3_conv1_W_table"}))


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [
        ("{0}/{0}_W_1:0", "{0}/{0}_b_1:0"),
        ("{0}/{0}/kernel:0", "{0}/{0}/bias:0"),
        ("layers/{0}/vars/0", "layers/{0}/vars/1"),
    ],
)
def test_keras_kernels_have_their_channels_last(kernel, bias):
    layers = convolutions()
    named = {}
    for name, weight, offset in layers:
        layer = f"block{name[4]}_conv{name[6:]}"
        named[kernel.format(layer)], named[bias.format(layer)] = weight.transpose(2, 3, 1, 0), offset
    nodes, _ = vgg_from("keras", tensors(named))
    assert_holds(nodes, layers)


def test_caffes_classifier_is_left_in_the_file():
    layers = convolutions()
    named = {f"{name}/{number}": array for name, *both in layers for number, array in enumerate(both)}
    named |= {"fc6/0": np.zeros((1, 1, 8, 16), np.float32), "fc6/1": np.zeros((1, 1, 1, 8), np.float32)}
    named = {key: value.reshape(1, 1, 1, -1) if key.endswith("/1") else value for key, value in named.items()}
    nodes, _ = vgg_from("caffe", tensors(named))
    assert_holds(nodes, layers)


@pytest.mark.parametrize("exchanged", [False, True])
def test_matconvnets_kernels_are_turned_until_the_first_is_known(monkeypatch, exchanged):
    layers = convolutions()
    first = Conv(np.ascontiguousarray(layers[0][1].transpose(2, 3, 1, 0)), layers[0][2], Window((3, 3)))
    monkeypatch.setitem(engine.vgg.KNOWN_WEIGHTS, layer_hash(first), KnownWeights("published", "caffe", 1e-4))
    named = {}
    for name, weight, bias in layers:
        kernel = weight.transpose(2, 3, 1, 0)
        kernel = kernel[:, :, ::-1] if name == "conv1_1" else kernel  # red first
        named |= {f"{name}/0": kernel.swapaxes(0, 1) if exchanged else kernel, f"{name}/1": bias.reshape(1, -1)}
    nodes, preprocessing = vgg_from("matlab", tensors(named))
    assert_holds(nodes, layers)
    assert preprocessing is None  # the weights tell


def test_unknown_matconvnet_weights_take_the_average_that_their_file_states():
    named = {f"{name}/0": weight.transpose(2, 3, 1, 0) for name, weight, _ in convolutions()}
    named["normalization/averageImage"] = np.full((4, 4, 3), (120.0, 110.0, 100.0))
    _, preprocessing = vgg_from("matlab", tensors(named))
    assert (preprocessing.bgr, preprocessing.scale, preprocessing.mean) == (False, 1.0, (120.0, 110.0, 100.0))


def color_convolution(matrix: np.ndarray, bias: Any) -> dict[str, np.ndarray]:
    named = sequential(convolutions(), [2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51], "")
    return {"0.weight": matrix.astype(np.float32)[:, :, None, None], "0.bias": np.float32(bias), **named}


@pytest.mark.parametrize("name", ["caffe", "torch", "unit", "raw"])
def test_a_convolution_of_1x1_in_front_is_the_input_convention(name):
    known = PREPROCESSING[name]
    matrix = np.diag(255 * known.scale / np.array(known.std))
    matrix = matrix[:, ::-1] if known.bgr else matrix
    nodes, preprocessing = vgg_from("torch", tensors(color_convolution(matrix, -np.array(known.mean) / known.std)))
    assert preprocessing is known
    assert_holds(nodes, convolutions())


def test_a_convolution_of_1x1_may_have_a_mean_of_its_own():
    _, found = vgg_from("torch", tensors(color_convolution(255 * np.eye(3)[:, ::-1], [-1, -2, -3])))
    assert (found.bgr, found.scale, found.mean) == (True, 1.0, (1.0, 2.0, 3.0))


@pytest.mark.parametrize("matrix", [np.ones((3, 3)), np.diag([1.0, 2.0, 3.0]), np.zeros((3, 3))])
def test_a_convolution_of_1x1_that_mixes_colors_is_refused(matrix):
    with pytest.raises(ValueError, match="the convolution of 1x1 in front, '0', mixes or scales colors"):
        vgg_from("torch", tensors(color_convolution(matrix, [0, 0, 0])))


@pytest.mark.parametrize(("count", "pools"), [(1, 0), (3, 1), (6, 2), (8, 2), (9, 3), (12, 3), (13, 4), (16, 4)])
def test_a_file_may_end_early(count, pools):
    layers = convolutions(width=0.1)[:count]
    nodes, _ = vgg_from("torch", tensors(sequential(layers, list(range(count)))))
    assert_holds(nodes, layers)
    assert sum(isinstance(node.operator, MaxPool | AveragePool) for node in nodes) == pools


def changed(place: int, name: str, value: Any) -> dict[str, Any]:
    named = sequential(convolutions(), TORCHVISION["vgg19"])
    named[f"features.{place}.{name}"] = value
    return named


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({}, "it has no convolution of 3x3"),
        ({"fc.weight": np.zeros((3, 3), np.float32)}, "it has no convolution of 3x3"),
        (
            changed(2, "weight", np.zeros((3, 9, 3, 3), np.float32)),
            "'features.2' takes 9 channels, but what .* gives 3",
        ),
        (changed(5, "bias", np.zeros(9, np.float32)), "'features.5' has 9 biases for 6 channels"),
        (changed(0, "bias", np.full(3, np.nan, np.float32)), "the bias of 'features.0' has values that are infinite"),
        (changed(0, "weight", np.zeros((3, 3, 3, 3), np.int32)), "the weight of 'features.0' has the type int32"),
        (changed(1, "running_mean", np.zeros(3, np.float32)), "it has 1 batch normalizations for 16 convolutions"),
        (
            sequential([("", np.zeros((3, 3, 3, 3), np.float32), np.zeros(3, np.float32))] * 14, list(range(14))),
            "14 conv",
        ),
    ],
)
def test_what_is_no_vgg_is_named(named, message):
    with pytest.raises(ValueError, match=message):
        vgg_from("torch", tensors(named))


def test_a_classifier_of_convolutions_has_no_normalization():
    """As in timm, whose fully connected layers are convolutions of 7x7 and 1x1."""
    named = {}
    for place, (_, weight, bias) in enumerate(convolutions("vgg16")):
        named |= {f"features.{3 * place}.weight": weight, f"features.{3 * place}.bias": bias}
        parts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        named |= {f"features.{3 * place + 1}.{part}": np.full_like(bias, value) for part, value in parts.items()}
    named["pre_logits.fc1.weight"] = np.zeros((8, len(bias), 7, 7), np.float32)
    named["pre_logits.fc2.weight"] = np.zeros((8, 8, 1, 1), np.float32)
    nodes, _ = vgg_from("torch", tensors(named))
    assert sum(isinstance(node.operator, Conv) for node in nodes) == 13
    without_scale = {name: one for name, one in named.items() if name != "features.4.weight"}
    with pytest.raises(ValueError, match=r"the batch normalization 'features.4' does not fit 'features.3'"):
        vgg_from("torch", tensors(without_scale))


@pytest.mark.parametrize(
    ("kind", "more", "layer"),
    [
        ("caffe", {"bn1_1/0": (3,), "bn1_1/1": (3,), "bn1_1/2": (1,)}, "bn1_1"),
        ("caffe", {"scale1_1/0": (3,), "scale1_1/1": (3,)}, "scale1_1"),
        ("matlab", {"bnorm1_1/0": (3, 1), "bnorm1_1/1": (3, 1), "bnorm1_1/2": (3, 2)}, "bnorm1_1"),
        ("keras", {f"bn/bn/{part}:0": (3,) for part in ("gamma", "beta", "moving_mean", "moving_variance")}, "bn/bn"),
    ],
)
def test_batch_normalizations_that_cannot_be_read_are_not_left_out_silently(kind, more, layer):
    named = {}
    for name, weight, bias in convolutions():
        if kind == "keras":
            named |= {f"{name}/{name}/kernel:0": weight.transpose(2, 3, 1, 0), f"{name}/{name}/bias:0": bias}
        else:
            weight = weight.transpose(2, 3, 1, 0) if kind == "matlab" else weight
            named |= {f"{name}/0": weight, f"{name}/1": bias}
    vgg_from(kind, tensors(named))
    named |= {name: np.ones(shape, np.float32) for name, shape in more.items()}
    with pytest.raises(ValueError, match=f"'{layer}' is a batch normalization: with these, files of PyTorch"):
        vgg_from(kind, tensors(named))


def test_numbers_are_read_only_of_convolutions():
    def refuse() -> np.ndarray:
        raise AssertionError("read")

    named = tensors(sequential(convolutions(), TORCHVISION["vgg19"]))
    named["classifier.0.weight"] = Tensor("classifier.0.weight", (4096, 25088), refuse)
    vgg_from("torch", named)


def test_half_precision_becomes_single_and_double_stays():
    layers = convolutions()
    for dtype, expected in ((np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)):
        named = {name: array.astype(dtype) for name, array in sequential(layers, TORCHVISION["vgg19"]).items()}
        nodes, _ = vgg_from("torch", tensors(named))
        assert nodes[0].operator.weight.dtype == expected


def test_names_with_more_digits_than_a_number_takes_are_sorted_all_the_same():
    layers = convolutions()
    named = {}
    for place, (_, weight, bias) in enumerate(layers):
        key = "9" * 5000 + str(place)
        named |= {f"{key}.weight": weight, f"{key}.bias": bias}
    nodes, _ = vgg_from("torch", tensors(named))
    assert len(nodes) == 20


def keyed(layers: list[tuple[str, np.ndarray, np.ndarray]]) -> Any:
    """Return layers as Keras calls them, ``block4_conv2``."""
    named = {}
    for name, weight, bias in layers:
        block, layer = name.removeprefix("conv").split("_")
        folder = f"block{block}_conv{layer}"
        named |= {f"{folder}/kernel": weight.transpose(2, 3, 1, 0), f"{folder}/bias": bias}
    return named


@pytest.mark.parametrize("architecture", TORCHVISION)
@pytest.mark.parametrize("missing", [-2, -4, -5])
def test_a_convolution_that_is_missing_among_those_of_the_same_channels_is_noticed(architecture, missing):
    """In the fifth block, and in the fourth: the next would take its name."""
    layers, places = convolutions(architecture), list(TORCHVISION[architecture])
    whole = sequential(layers, places), keyed(layers)
    del layers[missing], places[missing]
    cut = sequential(layers, places), keyed(layers)
    for kind, named, complete in zip(("torch", "keras"), cut, whole, strict=True):
        with pytest.raises(ValueError, match=r"a convolution is missing before '(features\.\d+|block\d_conv\d)'"):
            vgg_from(kind, tensors(named))
        vgg_from(kind, tensors(complete))


def test_what_is_left_out_at_the_end_is_not_missing():
    vgg_from("torch", tensors(sequential(LAYERS[:10], TORCHVISION["vgg19"])))
    vgg_from("keras", tensors(keyed(LAYERS[:10])))
