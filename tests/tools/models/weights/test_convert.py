"""A weight file of any program computes what the ONNX file of the same weights does, to the bit."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

import engine.vgg
from engine.load import load_network
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import Conv
from engine.preprocessing import PREPROCESSING
from engine.vgg import KnownWeights, layer_hash
from kernels.geometry import Window
from tests.tools.calling import called
from tests.tools.models.model_files import features
from tests.tools.models.weights.test_safetensors_file import written
from tests.tools.models.weights.test_torch_file import KINDS, ordered, storage, stream, tensor, zipped
from tests.tools.models.weights.test_vgg import LAYERS, TORCHVISION, sequential
from tests.tools.models.weights.writers import caffe, caffe_v1, hdf5
from tools.models.__main__ import main
from tools.models.cache import resolve_model
from tools.models.random_vgg import random_vgg
from tools.models.weights.convert import convert, is_original_vgg19, read_vgg

NAMES = [f"block{name[4]}_conv{name[6:]}" for name, _, _ in LAYERS]
FIRST = Conv(np.ascontiguousarray(LAYERS[0][1].transpose(2, 3, 1, 0)), LAYERS[0][2], Window((3, 3)))


def torch(write: Callable[..., bytes]) -> bytes:
    rows, entries = {}, {}
    for number, (name, array) in enumerate(sequential(LAYERS, TORCHVISION["vgg19"]).items()):
        rows[str(number)] = np.ascontiguousarray(array).ravel()
        kind = f"torch\n{KINDS[array.dtype.str[1:]]}"
        where = storage(str(number), array.size, kind, b"N" if write is stream else b"")
        entries[name] = tensor(where, array.shape)
    return write(ordered(entries), rows)


def keras_layers(kernel: str, bias: str) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    pairs = zip(NAMES, LAYERS, strict=True)
    return {
        key: {key: {kernel.format(key): np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), bias.format(key): offset}}
        for key, (_, weight, offset) in pairs
    }


def keras3() -> bytes:
    groups = {}
    for number, (_, weight, bias) in enumerate(LAYERS):
        name = f"conv2d_{number}" if number else "conv2d"
        groups[name] = {"vars": {"0": np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), "1": bias}}
    return hdf5({"layers": groups})


def keras_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", keras3())
    return file.getvalue()


def matconvnet() -> bytes:
    layers = np.empty((1, len(LAYERS)), object)
    for place, (name, weight, bias) in enumerate(LAYERS):
        kernel = weight.transpose(2, 3, 1, 0)
        weights = np.empty((1, 2), object)
        weights[0, 0] = kernel[:, :, ::-1] if name == "conv1_1" else kernel
        weights[0, 1] = bias.reshape(1, -1)
        layers[0, place] = {"name": name, "type": "conv", "weights": weights}
    file = io.BytesIO()
    savemat(file, {"layers": layers})
    return file.getvalue()


FORMATS: dict[str, Callable[[], bytes]] = {
    "zipped.pth": lambda: torch(zipped),
    "legacy.pth": lambda: torch(stream),
    "model.safetensors": lambda: written(sequential(LAYERS, TORCHVISION["vgg19"])),
    "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5": lambda: hdf5(keras_layers("{}_W_1:0", "{}_b_1:0")),
    "whole_model.h5": lambda: hdf5({"model_weights": keras_layers("kernel:0", "bias:0")}),
    "model.weights.h5": keras3,
    "model.keras": keras_zip,
    "v1.caffemodel": lambda: caffe_v1({name: [weight, bias] for name, weight, bias in LAYERS}),
    "new.caffemodel": lambda: caffe({name: [weight, bias] for name, weight, bias in LAYERS}),
    "imagenet-vgg-verydeep-19.mat": matconvnet,
}


@pytest.fixture(params=FORMATS)
def weights(request, tmp_path, monkeypatch) -> Path:
    """A weight file of each format, whose first layer is known."""
    path = tmp_path / request.param
    path.write_bytes(FORMATS[request.param]())
    monkeypatch.setitem(engine.vgg.KNOWN_WEIGHTS, layer_hash(FIRST), KnownWeights("of this test", "caffe", 0.5))
    return path


@pytest.fixture
def onnx_route(tmp_path) -> Path:
    """The same weights as an exporter would write them."""
    nodes, arrays = [], iter(LAYERS)
    for node in random_vgg("vgg19", width=0.05):
        if isinstance(node.operator, Conv):
            _, weight, bias = next(arrays)
            kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
            node = type(node)(node.name, Conv(kernel, bias, node.operator.window, 1, True), node.input, node.output)
        nodes.append(node)
    path = tmp_path / "route.onnx"
    write_onnx(path, nodes, {})
    return path


@pytest.fixture
def call(capsys) -> Callable[..., tuple[str, str]]:
    def call(*arguments: object, code: int = 0) -> tuple[str, str]:
        return called(main, capsys, arguments, code)

    return call


@pytest.mark.slow
def test_features_equal_those_of_the_onnx_route_to_the_bit(weights, onnx_route, tmp_path, call):
    output, _ = call("convert", weights, "-o", tmp_path / "out.onnx")
    assert output.endswith("VGG-19, conv1_1 to conv5_4, of this test\n")
    for layer in ("conv1_1", "conv4_2", "conv5_4"):
        found, expected = features(tmp_path / "out.onnx", layer), features(onnx_route, layer)
        np.testing.assert_array_equal(found, expected)
    network = load_network(tmp_path / "out.onnx")
    assert (network.preprocessing, network.content_weight, network.weights) == (
        PREPROCESSING["caffe"],
        0.5,
        "of this test",
    )
    found = read_onnx(tmp_path / "out.onnx").metadata
    assert re.fullmatch(rf"{re.escape(weights.name)}, SHA-256 [0-9a-f]{{64}}", found["source"])


def test_a_weight_file_is_converted_into_the_cache_once(weights, onnx_route, cache, monkeypatch):
    path = resolve_model(str(weights))
    assert path.parent == cache / "converted"
    np.testing.assert_array_equal(features(path), features(onnx_route))
    with monkeypatch.context() as patch:
        patch.setattr("tools.models.cache.convert", None)
        assert resolve_model(str(weights)) == path
    weights.write_bytes(weights.read_bytes()[:-40])  # another file by now, and a damaged one
    with pytest.raises(ValueError, match=re.escape(str(weights))):
        resolve_model(str(weights))


def test_unknown_weights_leave_their_input_open_unless_it_is_given(tmp_path, call):
    path = tmp_path / "unknown.safetensors"
    path.write_bytes(FORMATS["model.safetensors"]())
    output, _ = call("convert", path, "-o", tmp_path / "out.onnx")
    assert "nothing tells which input it takes: choose one with --preprocessing" in output
    with pytest.raises(ValueError, match="nothing tells which input this model was trained on"):
        load_network(tmp_path / "out.onnx")
    output, _ = call("convert", path, "-o", tmp_path / "out.onnx", "--preprocessing", "torch")
    assert "--preprocessing" not in output
    assert load_network(tmp_path / "out.onnx").preprocessing == PREPROCESSING["torch"]


def test_torchvisions_files_are_known_by_their_hash(tmp_path, monkeypatch):
    path = tmp_path / "vgg19.pth"
    path.write_bytes(FORMATS["zipped.pth"]())
    assert read_vgg(path).preprocessing is None
    monkeypatch.setattr("tools.models.weights.convert.TORCHVISION_BYTES", 1000)
    monkeypatch.setattr("tools.models.weights.convert.sha256_of", lambda path: "dcbb9e9d" + "0" * 56)
    assert read_vgg(path).preprocessing == PREPROCESSING["torch"]


def test_inspect_shows_a_weight_file(tmp_path, cache, call):
    path = tmp_path / "unknown.safetensors"
    path.write_bytes(FORMATS["model.safetensors"]())
    output, _ = call("inspect", path)
    assert "VGG-19, 16 convolutions: conv1_1 .. conv5_4" in output


def test_weights_of_another_program_that_are_called_onnx_are_converted(tmp_path, cache):
    path = tmp_path / "vgg19.onnx"
    path.write_bytes(FORMATS["zipped.pth"]())
    found = resolve_model(str(path))
    assert found.parent == cache / "converted"
    assert read_onnx(found).nodes


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("page.pth", b"<!DOCTYPE html><html></html>", "web page"),
        (
            "pointer.h5",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n",
            "pointer",
        ),
        ("empty.mat", b"", "empty"),
        ("short.safetensors", FORMATS["model.safetensors"]()[:-1], "short.safetensors"),
        ("text.caffemodel", b"hello, this is no model", "text.caffemodel"),
        ("resnet.safetensors", written({"conv1.weight": np.zeros((4, 3, 7, 7), np.float32)}), "no convolution of 3x3"),
        ("evil.pth", b"\x80\x02cposix\nsystem\n(X\x04\x00\x00\x00trueq\x00tq\x01R.", "evil.pth"),
    ],
)
def test_what_cannot_be_converted_is_told_in_one_line_and_leaves_nothing(tmp_path, cache, call, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    _, errors = call("convert", path, "-o", tmp_path / "out.onnx", code=2)
    assert re.fullmatch(r"models: [^\n]+\n", errors)
    assert message in errors
    assert sorted(each.name for each in tmp_path.iterdir()) == [name]


def test_an_onnx_file_needs_no_conversion(onnx_route, tmp_path, call):
    _, errors = call("convert", onnx_route, "-o", tmp_path / "out.onnx", code=2)
    assert "is an ONNX file already: use it with --model" in errors


def test_a_broken_onnx_file_is_told_as_such(onnx_route, tmp_path, call):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(onnx_route.read_bytes()[:-100])
    _, errors = call("convert", broken, "-o", tmp_path / "out.onnx", code=2)
    assert re.fullmatch(r"models: \S+broken\.onnx[^\n]+\n", errors)
    assert "already" not in errors


def test_a_check_that_fails_writes_nothing(tmp_path):
    path = tmp_path / "unknown.safetensors"
    path.write_bytes(FORMATS["model.safetensors"]())

    def refuse(vgg):
        raise ValueError("not these")

    with pytest.raises(ValueError, match=r"^not these$"):
        convert(path, tmp_path / "out.onnx", check=refuse)
    assert not (tmp_path / "out.onnx").exists()


def test_other_weights_are_not_the_original_ones(onnx_route):
    assert not is_original_vgg19(read_onnx(onnx_route).nodes)
