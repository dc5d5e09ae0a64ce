from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tools.models.weights.writers import (
    blob,
    block,
    caffe,
    caffe_v1,
    cut,
    damaged,
    number,
    settles,
    unpacked,
    varint,
)
from tools.models.weights.caffe_file import read_caffe

RANDOM = np.random.default_rng(0)


def floats(*shape: int, dtype: str = "<f4") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


LAYERS = {"conv1_1": [floats(4, 3, 3, 3), floats(4)], "conv1_2": [floats(2, 4, 3, 3), floats(2)], "fc6": [floats(5, 8)]}


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "net.caffemodel"


def read(file: Path, data: bytes) -> dict[str, np.ndarray]:
    file.write_bytes(data)
    return {name: tensor.read() for name, tensor in read_caffe(file).items()}


def one_layer(*blobs: bytes, name: bytes = b"a") -> bytes:
    return block(100, block(1, name) + b"".join(block(7, one) for one in blobs))


# ---- what is read ----


@pytest.mark.parametrize("packed", [True, False])
def test_blobs_are_called_by_layer_and_number(file, packed):
    found = read(file, caffe(LAYERS, packed))
    assert list(found) == ["conv1_1/0", "conv1_1/1", "conv1_2/0", "conv1_2/1", "fc6/0"]
    for name, values in found.items():
        layer, _, index = name.partition("/")
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        assert values.flags.writeable
        np.testing.assert_array_equal(values, LAYERS[layer][int(index)])


@pytest.mark.parametrize("packed", [True, False])
def test_blobs_of_the_older_form_have_four_axes(file, packed):
    found = read(file, caffe_v1(LAYERS, packed))
    assert {name: values.shape for name, values in found.items()} == {
        "conv1_1/0": (4, 3, 3, 3),
        "conv1_1/1": (1, 1, 1, 4),
        "conv1_2/0": (2, 4, 3, 3),
        "conv1_2/1": (1, 1, 1, 2),
        "fc6/0": (1, 1, 5, 8),
    }
    for name, values in found.items():
        layer, _, index = name.partition("/")
        np.testing.assert_array_equal(values.ravel(), LAYERS[layer][int(index)].ravel())


@pytest.mark.parametrize("packed", [True, False])
def test_numbers_may_have_double_precision(file, packed):
    values = floats(2, 3, dtype="<f8")
    found = read(file, caffe({"a": [values]}, packed))["a/0"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, values)


def test_numbers_are_read_when_they_are_asked_for(file):
    data = caffe(LAYERS)
    weight = LAYERS["conv1_1"][0]
    file.write_bytes(data)
    tensor = read_caffe(file)["conv1_1/0"]
    assert tensor.shape == (4, 3, 3, 3)
    file.write_bytes(data.replace(weight.tobytes(), (2 * weight).tobytes()))
    np.testing.assert_array_equal(tensor.read(), 2 * weight)
    file.write_bytes(data[:100])
    with pytest.raises(ValueError, match=f"^{file}: it has become shorter since it was opened"):
        tensor.read()


def test_only_the_surroundings_of_the_numbers_are_read(file):
    """A file with a hole of 400 MB is opened within a fraction of a second."""
    size = 400 << 20
    head = block(1, b"net") + varint(100 << 3 | 2)
    shape = block(7, block(1, varint(size // 4)))
    inner = shape + varint(5 << 3 | 2) + varint(size)
    body = block(1, b"fc0") + varint(7 << 3 | 2) + varint(len(inner) + size) + inner
    with file.open("wb") as opened:
        opened.write(head + varint(len(body) + size) + body)
        opened.seek(size, 1)
        opened.write(caffe(LAYERS))
    tensors = read_caffe(file)
    assert tensors["fc0/0"].shape == (size // 4,)
    np.testing.assert_array_equal(tensors["conv1_1/0"].read(), LAYERS["conv1_1"][0])


def test_numbers_may_come_in_several_pieces(file):
    values = floats(1000)
    data = (
        block(5, values[:10].tobytes()) + unpacked(5, values[10:600]) + number(9999, 5) + unpacked(5, values[600:601])
    )
    data += block(5, b"") + block(5, values[601:].tobytes()) + block(7, block(1, varint(1000)))
    np.testing.assert_array_equal(read(file, one_layer(data))["a/0"], values)


def test_a_shape_may_be_unpacked_and_of_any_rank(file):
    values = floats(2, 3, 1, 1, 2)
    shape = b"".join(number(1, size) for size in values.shape)
    np.testing.assert_array_equal(read(file, one_layer(block(7, shape) + block(5, values.tobytes())))["a/0"], values)
    assert read(file, one_layer(block(7, b"") + block(5, values[0, 0, 0, 0, :1].tobytes())))["a/0"].shape == ()


def test_other_fields_are_passed_over(file):
    others = (
        number(5, 1)
        + block(3, b"data")
        + number(4, 224)
        + varint(999 << 3 | 1)
        + bytes(8)
        + varint(998 << 3 | 5)
        + bytes(4)
    )
    layer = (
        block(1, b"a") + others.replace(b"\x1a", b"\x22") + block(7, others[:0] + blob(floats(3)) + block(6, bytes(40)))
    )
    assert list(read(file, others + block(100, layer) + others)) == ["a/0"]


def test_the_four_sizes_go_before_a_shape_as_in_caffe(file):
    values = floats(4)
    old = b"".join(number(at, size) for at, size in enumerate((1, 1, 2, 2), 1))
    data = old + block(7, block(1, varint(4))) + block(5, values.tobytes())
    assert read(file, one_layer(data))["a/0"].shape == (1, 1, 2, 2)


# ---- what is refused ----


def test_layers_of_2013_are_refused(file):
    layer = block(1, block(1, b"conv1") + block(50, blob(floats(1, 1, 1, 1), old=True))) + block(2, b"data")
    with pytest.raises(
        ValueError, match=r"in Caffe's form of 2013 \(V0\): convert it with Caffe's upgrade_net_proto_binary"
    ):
        read(file, block(2, layer))


def test_a_network_without_weights_is_refused(file):
    for data in (b"", block(1, b"net"), one_layer(), block(2, block(4, b"conv1_1"))):
        with pytest.raises(ValueError, match=f"^{file}: it has no layer with weights: give the .caffemodel"):
            read(file, data)


def test_a_definition_is_refused(file):
    with pytest.raises(ValueError, match=r"at byte 0 there is no field that Caffe writes: this is no .caffemodel"):
        read(file, b'name: "VGG_ILSVRC_19_layers"\ninput: "data"\ninput_dim: 10\n')


def test_two_layers_of_one_name_are_refused(file):
    with pytest.raises(ValueError, match="it has two layers called 'a'"):
        read(file, one_layer(blob(floats(1))) * 2)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_caffe(tmp_path / "missing")


# ---- damaged and hostile files ----


@pytest.mark.parametrize(
    ("sizes", "count"),
    [
        ((3,), 4),
        ((0,), 1),
        ((2**62,), 1),
        ((2**32, 2**32), 1),
        ((0, 2**62), 0),
        ((2**64 - 1,), 1),
        ((1,) * 40, 1),
        ((), 0),
    ],
)
def test_a_shape_is_never_taken_at_its_word(file, sizes, count):
    data = block(7, block(1, b"".join(map(varint, sizes)))) + block(5, bytes(4 * count))
    with pytest.raises(ValueError, match=rf"^{file}: 'a/0' has {count} numbers, its shape is \("):
        read(file, one_layer(data))


@pytest.mark.parametrize(
    "data",
    [
        varint(100 << 3 | 2) + varint(2**63),
        varint(100 << 3 | 2) + varint(2**64 - 1),
        varint(100 << 3 | 2) + b"\xff" * 11,
        b"\xff" * 30,
        b"\0\0",
        varint(100 << 3 | 3),
        varint(100 << 3 | 4),
        varint(100 << 3 | 7),
        number(100, 5),
        varint(100 << 3 | 5) + bytes(4),
        block(100, number(7, 5)),
        block(100, block(7, number(7, 5))),
        block(100, block(7, block(5, bytes(5)))),
        block(100, block(7, varint(5 << 3 | 1) + bytes(8))),
        block(100, block(7, number(5, 5))),
        block(100, number(1, 5)),
        block(100, block(1, bytes(5000))),
        block(100, block(7, block(7, block(1, b"\xff")))),
        block(100, block(7, block(7, varint(1 << 3 | 5) + bytes(4)))),
        one_layer(varint(5 << 3 | 5) + bytes(3)),
        block(99, b"") + varint(1 << 3 | 1) + bytes(7),
        one_layer(blob(floats(1)))[:-1] + b"\x80",
    ],
)
def test_damaged_fields_are_refused(file, data):
    assert settles(read_caffe, file, data) or data.endswith(b"\x80")


@pytest.mark.slow
def test_more_fields_than_any_network_has_are_refused(file):
    for data in (
        number(3, 0) * 100_000,
        one_layer(number(3, 0) * 100_000),
        (number(3, 0) + varint(999 << 3 | 5) + bytes(4)) * 99_999,
    ):
        assert "it has more than 50,000 fields" in settles(read_caffe, file, data)


def test_floats_one_by_one_are_read_in_no_time(file):
    """Half a million keys, which count as one field."""
    values = floats(500_000)
    rows = np.zeros(len(values), [("key", "u1"), ("value", "<f4")])
    rows["key"], rows["value"] = 5 << 3 | 5, values
    data = one_layer(block(7, block(1, varint(len(values)))) + rows.tobytes())
    assert settles(read_caffe, file, data) == ""
    np.testing.assert_array_equal(read(file, data)["a/0"], values)


def test_control_characters_in_names_do_not_reach_the_terminal(file):
    data = one_layer(block(5, bytes(4)) + block(7, block(1, varint(2))), name=b"\x1b[31m\xff")
    assert "'\\x1b[31m\\\\xff/0' has 1 numbers" in settles(read_caffe, file, data)


@pytest.mark.parametrize("form", [caffe_v1, caffe])
def test_a_file_cut_off_anywhere_says_so(file, form):
    data = form({"a": [floats(2, 3, 3, 3), floats(2)]})
    whole = len(data)
    for piece in cut(data, 100):
        said = settles(read_caffe, file, piece)
        assert said or len(piece) > whole - 20  # the older form ends with a ReLU, which has no weights


@pytest.mark.parametrize(("form", "packed"), [(caffe_v1, True), (caffe, True), (caffe, False)])
def test_damaged_bytes_give_a_value_or_a_sentence(file, form, packed):
    data = form({f"conv{index}": [floats(1, 1, 2, 2), floats(1)] for index in range(4)}, packed)
    said = [settles(read_caffe, file, changed) for changed in damaged(data, 300)]
    assert any(said)


# ---- the real library ----


def test_it_agrees_with_protocol_buffers(file):
    """Numbers and shapes written by Google's own code, which comes with onnx."""
    descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    described = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, fields in {
        "BlobShape": [("dim", 1, field.TYPE_INT64)],
        "BlobProto": [("data", 5, field.TYPE_FLOAT), ("shape", 7, "BlobShape"), ("double_data", 8, field.TYPE_DOUBLE)],
        "LayerParameter": [("name", 1, field.TYPE_STRING), ("blobs", 7, "BlobProto"), ("phase", 10, field.TYPE_INT32)],
        "NetParameter": [("name", 1, field.TYPE_STRING), ("layer", 100, "LayerParameter")],
    }.items():
        message = described.message_type.add(name=name)
        for title, at, kind in fields:
            repeated = title in ("dim", "data", "double_data", "blobs", "layer")
            one = message.field.add(name=title, number=at, label=3 if repeated else 1)
            if isinstance(kind, str):
                one.type, one.type_name = field.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                one.type = kind
                if repeated:
                    one.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))(name="VGG")
    wanted = {"a/0": floats(4, 3, 3, 3), "a/1": floats(4, dtype="<f8"), "b/0": floats(300, 2)}
    for name, values in wanted.items():
        layer = net.layer[-1] if net.layer and net.layer[-1].name == name[0] else net.layer.add(name=name[0], phase=1)
        one = layer.blobs.add()
        one.shape.dim.extend(values.shape)
        (one.data if values.dtype == np.float32 else one.double_data).extend(values.ravel().tolist())
    found = read(file, net.SerializeToString())
    assert list(found) == list(wanted)
    for name, values in found.items():
        np.testing.assert_array_equal(values, wanted[name], strict=True)
