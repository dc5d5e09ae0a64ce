from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.tools.models.weights.writers import cut, damaged, hdf5, keras_3, keras_legacy, keras_zip, settles
from tools.models.weights.keras_file import read_keras
from tools.models.weights.tensor import natural_order

RANDOM = np.random.default_rng(0)
MEMBER = b"model.weights.h5"


def kernel(index: int = 0) -> np.ndarray:
    return np.full((3, 3, 2, 2), index, "<f4")


def bias(index: int = 0) -> np.ndarray:
    return np.full(2, index, "<f4")


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "weights"


def order(file: Path, data: bytes) -> list[str]:
    """Return the names; the arrays are those of ``kernel`` and ``bias``, each with its layer's index in it."""
    file.write_bytes(data)
    tensors = read_keras(file)
    indices = [int(tensor.read().flat[0]) for tensor in tensors.values()]
    assert indices == sorted(indices), "the network's order"
    return list(tensors)


# ---- layers in the network's order ----


def test_keras_3_numbers_layers(file):
    names = order(file, hdf5(keras_3([[kernel(index), bias(index)] for index in range(12)])))
    assert names[:4] == [
        "layers/conv2d/vars/0",
        "layers/conv2d/vars/1",
        "layers/conv2d_1/vars/0",
        "layers/conv2d_1/vars/1",
    ]
    assert names[-1] == "layers/conv2d_11/vars/1"
    assert len(names) == 24


@pytest.mark.parametrize(
    "names", [("kernel:0", "bias:0"), ("conv_W_1:0", "conv_b_1:0"), ("conv/kernel:0", "conv/bias:0")]
)
def test_the_attributes_of_earlier_versions_tell_the_order(file, names):
    layers = {
        name: {names[0]: kernel(at), names[1]: bias(at)} for at, name in enumerate(["input", "b", "a", "c10", "c9"])
    }
    assert order(file, keras_legacy(layers)) == [f"{layer}/{name}" for layer in layers for name in names]


def test_layers_within_a_layer_have_the_order_of_its_weights(file):
    layers = {
        "vgg": {f"{name}/kernel:0": kernel(at) for at, name in enumerate(["z", "y", "x"])},
        "dense": {"k": kernel(9)},
    }
    assert order(file, keras_legacy(layers)) == ["vgg/z/kernel:0", "vgg/y/kernel:0", "vgg/x/kernel:0", "dense/k"]


def test_a_whole_model_has_its_weights_below_a_group(file):
    texts = {"model_weights": {"layer_names": ["b", "a"]}}
    members = {"model_weights": {"a": {"k": kernel(1)}, "b": {"k": kernel(0)}}}
    assert order(file, hdf5(members, texts)) == ["model_weights/b/k", "model_weights/a/k"]


def test_long_lists_of_layers_are_spread_over_several_attributes(file):
    texts = {"": {"layer_names0": ["c", "b"], "layer_names1": ["a"]}}
    members = {name: {"k": kernel(at)} for at, name in enumerate("cba")}
    assert order(file, hdf5(members, texts)) == ["c/k", "b/k", "a/k"]


def test_without_attributes_numbers_in_names_tell_the_order(file):
    members = {
        f"block{block}_conv{conv}": {"k": kernel(20 * block + conv)} for block in (1, 2, 10) for conv in (1, 2, 10)
    }
    assert order(file, hdf5(members))[:4] == [f"block1_conv{conv}/k" for conv in (1, 2, 10)] + ["block2_conv1/k"]


def test_numbers_in_names_are_compared_as_numbers():
    names = [
        "conv2d/vars/0",
        "conv2d/vars/10",
        "conv2d_1/vars/0",
        "conv2d_2/vars/0",
        "conv2d_10/vars/0",
        "conv2d_10a/x",
    ]
    backwards = names[::-1]
    assert sorted(backwards, key=natural_order) == names
    digits = "9" * 10_000
    assert sorted([f"a{digits}1", f"a{digits}", "a²", "a", ""], key=natural_order)[:2] == ["", "a"]


def test_the_state_of_an_optimizer_is_left_out(file):
    members = keras_3([[kernel(), bias()]]) | {
        "optimizer": {"vars": {"2": kernel()}},
        "optimizer_weights": {"m": kernel()},
    }
    assert order(file, hdf5(members)) == ["layers/conv2d/vars/0", "layers/conv2d/vars/1"]


def test_kernels_of_theano_are_refused(file):
    file.write_bytes(keras_legacy({"a": {"k": kernel()}}, backend="theano"))
    with pytest.raises(
        ValueError, match=f"^{file}: .* by Keras on Theano, which turns kernels by 180 degrees: load them"
    ):
        read_keras(file)


# ---- .keras ----


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_weights_in_an_archive_are_read(file, method):
    layers = [[RANDOM.standard_normal((3, 3, 2, 2)).astype("<f4"), bias(index)] for index in range(3)]
    file.write_bytes(keras_zip(hdf5(keras_3(layers)), method))
    tensors = read_keras(file)
    for (weight, shift), name in zip(layers, ("conv2d", "conv2d_1", "conv2d_2"), strict=True):
        np.testing.assert_array_equal(tensors[f"layers/{name}/vars/0"].read(), weight)
        np.testing.assert_array_equal(tensors[f"layers/{name}/vars/1"].read(), shift)


def test_a_member_begins_where_its_own_header_says(file):
    """The directory's extra fields may be others."""
    weights = hdf5(keras_3([[kernel(5), bias(5)]]))
    data = bytearray(keras_zip(weights))
    at = data.index(weights)
    header = data.rindex(b"PK\3\4", 0, at)
    data[header + 28 : header + 30] = struct.pack("<H", 7)
    data[at:at] = b"\xfe\xca\3\0abc"
    directory = data.index(b"PK\1\2")
    struct.pack_into("<I", data, data.rindex(b"PK\5\6") + 16, directory)
    assert order(file, bytes(data)) == ["layers/conv2d/vars/0", "layers/conv2d/vars/1"]


def test_an_archive_without_weights_is_refused(file):
    file.write_bytes(keras_zip(b"x", name="model.weights.npz"))
    with pytest.raises(
        ValueError, match=f"^{file}: is a zip archive without model.weights.h5: give a .keras file, or save"
    ):
        read_keras(file)


def test_unusual_compression_is_refused(file):
    file.write_bytes(keras_zip(hdf5({}), zipfile.ZIP_BZIP2))
    with pytest.raises(ValueError, match=r"model.weights.h5 is encrypted or compressed unusually: unpack the archive"):
        read_keras(file)


def test_a_bomb_is_not_unpacked(file):
    file.write_bytes(keras_zip(bytes(50_000_000), zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match=r"would grow to 50,000,000 bytes, the archive has [\d,]+: that is more than"):
        read_keras(file)


def test_an_archive_that_understates_a_member_is_refused(file):
    data = bytearray(keras_zip(bytes(50_000_000), zipfile.ZIP_DEFLATED))
    entry = data.rindex(b"PK\1\2")
    for size in (0, 1000, 500_000):
        struct.pack_into("<I", data, entry + 24, size)
        assert "the compressed model.weights.h5 is damaged" in settles(read_keras, file, bytes(data))


def test_a_member_outside_the_archive_is_refused(file):
    data = bytearray(keras_zip(hdf5(keras_3([[kernel(), bias()]]))))
    entry = data.rindex(b"PK\1\2")
    for place, value in ((24, 10**9), (42, len(data) - 10), (42, 10**9)):
        changed = bytearray(data)
        struct.pack_into("<I", changed, entry + place, value)
        if place == 24:
            struct.pack_into("<I", changed, entry + 20, value)
        assert "model.weights.h5 lies outside the archive" in settles(read_keras, file, bytes(changed))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_archives_give_a_value_or_a_sentence(file, method):
    members = keras_3([[np.zeros((1, 1, 1, 2), "<f4"), bias()]])
    data = keras_zip(hdf5(members), method)
    start = data.index(MEMBER) - 30
    ends = data[start : start + 100], data[-300:]
    for changed in damaged(data, 150):
        settles(read_keras, file, changed)
    for changed in damaged(b"".join(ends), 150):  # the headers are what matters
        settles(read_keras, file, data[:start] + changed[:100] + data[start + 100 : -300] + changed[100:])
    for piece in cut(data, 50):
        assert settles(read_keras, file, piece)


def test_damaged_files_give_a_value_or_a_sentence(file):
    data = keras_legacy(
        {f"conv{index}": {"kernel:0": np.zeros((1, 1, 1, 1), "<f4"), "bias:0": bias()} for index in (1, 2)}
    )
    for changed in damaged(data, 300):
        settles(read_keras, file, changed)
    for piece in cut(data, 50):
        assert settles(read_keras, file, piece)


def test_lists_that_name_what_is_not_there_do_no_harm(file):
    texts = {
        "": {"layer_names": ["../..", "", "a", "a", "/", "x" * 1000, "\x1b[31m"]},
        "a": {"weight_names": ("", "k", "k")},
    }
    assert order(file, hdf5({"a": {"k": kernel()}}, texts)) == ["a/k"]


# ---- the real library ----


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_it_agrees_with_keras(tmp_path, suffix):
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Input((8, 8, 3))]
    layers += [keras.layers.Conv2D(4, 3, padding="same", bias_initializer="random_normal") for _ in range(12)]
    model = keras.Sequential(layers)
    file = tmp_path / f"model{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(file)
    tensors = list(read_keras(file).values())
    for tensor, weights in zip(tensors, model.get_weights(), strict=True):
        np.testing.assert_array_equal(tensor.read(), weights)
