"""VGG's layer names by position, and the tables of what is published."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from engine import load_network, vgg
from engine.graph import Node
from engine.ops import AveragePool, Conv, MaxPool, Relu
from engine.preprocessing import PREPROCESSING
from engine.vgg import (
    CONVOLUTIONS,
    KNOWN_FILES,
    KNOWN_WEIGHTS,
    WIDTHS,
    KnownFile,
    architecture,
    known_file,
    known_weights,
    layer_hash,
    layer_names,
)
from kernels.geometry import Window

POOL = Window((2, 2), strides=(2, 2))


def conv(kernel=3, relu=True, dtype=np.float32, bias=True, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((kernel, kernel, 3, 4)).astype(dtype)
    return Conv(weight, rng.standard_normal(4).astype(dtype) if bias else None, Window((kernel, kernel)), relu=relu)


KINDS = {
    "c": conv(),
    "P": MaxPool(POOL),
    "A": AveragePool(POOL),
    "r": Relu(),
    "l": conv(relu=False),
    "1": conv(kernel=1),
}


def chain(letters):
    """Return nodes in a row: c a convolution with ReLU, P and A poolings, r a ReLU, l a Conv without, 1 a 1x1."""
    return [Node(f"node {n}", KINDS[letter], f"v{n}", f"v{n + 1}") for n, letter in enumerate(letters)]


def blocks(counts, pooling="P", ended=True):
    return pooling.join("c" * count for count in counts) + (pooling if ended else "")


def expected_names(letters):
    """Return names and values: b_i is the i-th convolution after b - 1 poolings."""
    names, block, place = {}, 1, 0
    for position, letter in enumerate(letters):
        if letter in "PA":
            block, place = block + 1, 0
        else:
            place += 1
            names[f"conv{block}_{place}"] = f"v{position + 1}"
    return names


@pytest.mark.parametrize("pooling", ["P", "A"])
@pytest.mark.parametrize("counts", [(2, 2, 3, 3, 3), (2, 2, 4, 4, 4)])
def test_every_beginning_of_a_vgg_has_its_names(counts, pooling):
    letters = blocks(counts, pooling)
    for length in range(1, len(letters) + 1):
        assert layer_names(chain(letters[:length])) == expected_names(letters[:length]), length


def test_the_papers_layers_are_where_the_paper_has_them():
    """Table 1 of Simonyan and Zisserman: 16 convolutions in column E, 13 in column D."""
    vgg19 = layer_names(chain(blocks((2, 2, 4, 4, 4))))
    assert len(vgg19) == 16
    assert list(vgg19)[-1] == "conv5_4"
    # Counted in the table: conv4_2 is the tenth convolution, behind three poolings.
    assert list(vgg19).index("conv4_2") == 9
    assert vgg19["conv4_2"] == f"v{10 + 3}"
    assert len(layer_names(chain(blocks((2, 2, 3, 3, 3))))) == 13


@pytest.mark.parametrize(
    "letters",
    [
        "",
        "P",
        "cP",
        "ccc",
        "cccP",
        "ccPcccP",
        "ccPccPccP",
        "ccPccPccccc",
        "ccPccPcccPcccc",
        "ccPccPccccPcccP",
        "ccPccPccccPccccPcccccP",
        "crcPcc",
        "clPcc",
        "l",
        "1c",
    ],
)
def test_a_network_of_another_shape_has_no_vgg_names(letters):
    assert layer_names(chain(letters)) == {}


@pytest.mark.parametrize("counts", [(2, 2, 3, 3, 3), (2, 2, 4, 4, 4)])
def test_what_follows_the_last_pooling_does_not_matter(counts):
    whole = blocks(counts)
    for classifier in ("c", "A", "A1r", "1r1", "l"):
        assert layer_names(chain(whole + classifier)) == layer_names(chain(whole))


def test_a_last_convolution_without_its_relu_is_no_layer():
    assert layer_names(chain("ccPccPccl")) == layer_names(chain("ccPccPcc"))


def test_a_network_that_branches_has_no_vgg_names():
    nodes = chain("ccP")
    nodes.append(Node("branch", KINDS["c"], "v1", "v9"))
    assert layer_names(nodes) == {}


@pytest.mark.parametrize(
    ("letters", "name"),
    [
        (blocks((2, 2, 4, 4, 4)), "VGG-19"),
        ("ccPccPcccc", "VGG-19"),
        ("ccPccPccccPc", "VGG-19"),
        (blocks((2, 2, 3, 3, 3)), "VGG-16"),
        ("ccPccPcccPc", "VGG-16"),
        ("ccPccPccc", "VGG"),
        ("ccPcc", ""),
        ("cc", ""),
    ],
)
def test_architecture_is_told_by_the_layers_present(letters, name):
    assert architecture(tuple(layer_names(chain(letters)))) == name


def test_layer_hash_is_the_git_blob_hash_of_weight_and_bias():
    layer = conv()
    data = b"".join(np.float32(number).tobytes() for number in [*layer.weight.ravel(), *layer.bias])
    assert layer_hash(layer) == hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


def test_layer_hash_depends_on_the_numbers_only():
    layer = conv()
    expected = layer_hash(layer)
    in_double = Conv(layer.weight.astype(np.float64), layer.bias.astype(np.float64), layer.window)
    elsewhere = Conv(np.asfortranarray(layer.weight), layer.bias, Window((3, 3), pads=(1, 1, 1, 1)), relu=False)
    big_endian = Conv(layer.weight.astype(">f4"), layer.bias.astype(">f4"), layer.window)
    for same in (in_double, elsewhere, big_endian):
        assert layer_hash(same) == expected
    weight, bias = layer.weight.copy(), layer.bias.copy()
    weight[1, 2, 0, 3] = np.nextafter(weight[1, 2, 0, 3], np.float32(9))
    bias[2] += 1
    for other in (Conv(weight, layer.bias, layer.window), Conv(layer.weight, bias, layer.window)):
        assert layer_hash(other) != expected


def test_layer_hash_takes_a_missing_bias_for_zeros():
    layer = conv(bias=False)
    assert layer_hash(layer) == layer_hash(Conv(layer.weight, np.zeros(4, np.float32), layer.window))


def test_known_weights_go_by_the_first_convolution(monkeypatch):
    first, second = conv(seed=1), conv(seed=2)
    entry = next(iter(KNOWN_WEIGHTS.values()))
    monkeypatch.setitem(KNOWN_WEIGHTS, layer_hash(first), entry)
    nodes = [Node("a", Relu(), "v0", "v1"), Node("b", first, "v1", "v2"), Node("c", second, "v2", "v3")]
    assert known_weights(nodes) is entry
    assert known_weights([nodes[0], nodes[2]]) is None
    assert known_weights(nodes[:1]) is None


def test_table_of_files_is_well_formed():
    assert len({file.name for file in KNOWN_FILES}) == len(KNOWN_FILES) > 0
    assert len({file.sha256 for file in KNOWN_FILES}) == len(KNOWN_FILES)
    for file in KNOWN_FILES:
        assert re.fullmatch("[0-9a-f]{64}", file.sha256), file.name
        assert file.architecture in CONVOLUTIONS, file.name
        assert file.name.startswith(file.architecture), file.name
        assert file.preprocessing is None or file.preprocessing in PREPROCESSING, file.name


def test_a_file_is_known_by_its_size_and_hash(tmp_path, monkeypatch):
    data = b"published"
    entry = KnownFile("test", "vgg16", hashlib.sha256(data).hexdigest(), len(data), None)
    monkeypatch.setattr(vgg, "KNOWN_FILES", (*KNOWN_FILES, entry))
    for name, content, expected in (
        ("copy", data, entry),
        ("as_long", b"PUBLISHED", None),
        ("longer", data + b"!", None),
    ):
        (tmp_path / name).write_bytes(content)
        assert known_file(tmp_path / name) is expected


def test_sizes_in_the_table_of_files_hold_the_parameters():
    """Weights and biases in float32, and less than a percent around them (4 numbers a channel with bn)."""
    for file in KNOWN_FILES:
        widths = [w for w, count in zip(WIDTHS, CONVOLUTIONS[file.architecture], strict=True) for _ in range(count)]
        count, channels = 0, 3
        for width in widths:
            count, channels = count + 9 * channels * width + width, width
        for inputs, outputs in ((7 * 7 * 512, 4096), (4096, 4096), (4096, 1000)):
            count += inputs * outputs + outputs
        assert 0 < file.size - 4 * count < 4e-3 * file.size, file.name


def test_table_of_weights_is_well_formed():
    for key, known in KNOWN_WEIGHTS.items():
        assert re.fullmatch("[0-9a-f]{40}", key), known.title
        assert known.preprocessing in PREPROCESSING, known.title
        assert known.content_weight > 0, known.title


def test_the_draft_network_is_known():
    draft = load_network(Path(__file__).parents[2] / "tools" / "models" / "draft.onnx", threads=1)
    assert known_weights(draft.nodes).title == "the draft network of this project"
