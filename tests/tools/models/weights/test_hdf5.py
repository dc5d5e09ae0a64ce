from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.tools.models.weights.writers import (
    NOWHERE,
    Hdf5Writer,
    cut,
    damaged,
    dataspace,
    hdf5,
    message,
    number_type,
    settles,
)
from tools.models.weights.byte_range import ByteRange, whole_file
from tools.models.weights.hdf5 import parse_hdf5, read_hdf5

RANDOM = np.random.default_rng(0)


def floats(*shape: int, dtype: str = "<f4") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "weights.h5"


def read(file: Path, data: bytes) -> dict[str, np.ndarray]:
    file.write_bytes(data)
    return {name: tensor.read() for name, tensor in read_hdf5(file).items()}


def one_array(layout: bytes, *more: bytes, shape: tuple[int, ...] = (3,), dtype: str = "<f4") -> bytes:
    """Return a file of one array, "a", with another layout message."""
    writer = Hdf5Writer()
    parts = [message(0x01, dataspace(shape)), message(0x03, number_type(np.dtype(dtype))), message(0x08, layout)]
    return writer.finished(writer.linked("", [("a", writer.header([*parts, *more]))]))


# ---- what is read ----


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "|i1", "|u1", "<i4", ">i4", "<i8", "<u8"])
def test_numbers_are_read_in_the_machines_byte_order(file, dtype):
    values = (
        (floats(3, 3, 2, 4) * 50).astype(dtype) if dtype[1] != "u" else np.arange(72).reshape(3, 3, 2, 4).astype(dtype)
    )
    (found,) = read(file, hdf5({"group": {"kernel:0": values}})).values()
    assert found.dtype == values.dtype.newbyteorder("=")
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, values)


def test_arrays_are_called_by_their_path_in_the_files_order(file):
    members = {"b": {"x": {"2": floats(2), "1": floats(1)}, "empty": {}}, "a": floats(3)}
    found = read(file, hdf5(members))
    assert list(found) == ["a", "b/x/1", "b/x/2"]
    np.testing.assert_array_equal(found["b/x/2"], members["b"]["x"]["2"])


@pytest.mark.parametrize(("leaf", "fan_out"), [(8, 32), (8, 2), (1, 2)])
def test_a_group_may_be_spread_over_several_nodes_and_levels(file, leaf, fan_out):
    members = {f"layer{index:02}": {"kernel:0": np.full(2, index, "<f4")} for index in range(20)}
    found = read(file, hdf5(members, leaf=leaf, fan_out=fan_out))
    assert [int(values[0]) for values in found.values()] == list(range(20))


def test_scalars_and_empty_arrays_have_their_shapes(file):
    found = read(file, hdf5({"scalar": np.float32(2.5), "empty": np.zeros((0, 3), "<f4")}))
    assert found["scalar"] == np.float32(2.5)
    assert found["scalar"].shape == ()
    assert found["empty"].shape == (0, 3)


def test_numbers_are_read_when_they_are_asked_for(file):
    values = floats(4)
    data = hdf5({"a": values, "b": floats(4)})
    file.write_bytes(data)
    tensors = read_hdf5(file)
    assert tensors["a"].shape == (4,)
    file.write_bytes(data.replace(values.tobytes(), (2 * values).tobytes()))
    np.testing.assert_array_equal(tensors["a"].read(), 2 * values)
    file.write_bytes(data[: data.index(values.tobytes())])
    with pytest.raises(ValueError, match="the file ends within an array"):
        tensors["a"].read()


def test_an_array_may_lie_in_its_header(file):
    values = floats(3)
    found = read(file, one_array(struct.pack("<BBH", 3, 0, 12) + values.tobytes()))
    np.testing.assert_array_equal(found["a"], values)


def test_a_header_may_go_on_elsewhere(file):
    values, writer = floats(3), Hdf5Writer()
    where = writer.put(values.tobytes())
    parts = [message(0x01, dataspace((3,))), message(0x03, number_type(values.dtype))]
    header = writer.header([*parts, message(0x08, struct.pack("<BBQQ", 3, 1, where, 12))], split=1)
    np.testing.assert_array_equal(read(file, writer.finished(writer.linked("", [("a", header)])))["a"], values)


def test_opaque_numbers_that_are_marked_as_bfloat16_are_read_as_float32(file):
    values = floats(3, 4)
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    members = {"vars": {"0": halves.view("V2"), "1": halves.view("V2")}}
    file.write_bytes(hdf5(members, {"vars/0": {"dtype": "bfloat16"}}))
    tensors = read_hdf5(file)
    found = tensors["vars/0"].read()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), values.view(np.uint32) & 0xFFFF0000)
    with pytest.raises(ValueError, match=r"'vars/1' cannot be read: its type \(class 5, 2 bytes\) is none of float16"):
        tensors["vars/1"].read()


def test_texts_of_fixed_and_variable_length_are_read(file):
    texts = {"": {"layer_names": ["conv1", "block1_conv2"], "backend": "tensorflow"}, "a": {"weight_names": ("k", "")}}
    file.write_bytes(hdf5({"a": {"k": floats(1)}}, texts))
    found = parse_hdf5(whole_file(file)).texts
    assert found[""] == {"layer_names": ("conv1", "block1_conv2"), "backend": ("tensorflow",)}
    assert found["a"] == {"weight_names": ("k", "")}


def test_a_file_may_be_a_stretch_of_another_or_bytes_in_memory(file):
    values = floats(5)
    data = hdf5({"a": values})
    file.write_bytes(b"x" * 100 + data + b"y" * 100)
    for source in (ByteRange(file, 100, len(data)), ByteRange(file, 0, len(data), data)):
        np.testing.assert_array_equal(parse_hdf5(source).tensors["a"].read(), values)


def test_bytes_of_another_program_may_come_first(file):
    """A user block: addresses count from its end."""
    values = floats(5)
    data = bytearray(1024) + hdf5({"a": values})
    data[1024 + 24 : 1024 + 32] = struct.pack("<Q", 1024)
    data[1024 + 40 : 1024 + 48] = struct.pack("<Q", len(data))
    np.testing.assert_array_equal(read(file, bytes(data))["a"], values)


# ---- what is refused ----


def test_newer_layouts_are_refused(file):
    data = bytearray(hdf5({"a": floats(3)}))
    (root,) = struct.unpack_from("<Q", data, 64)
    data[root : root + 4] = b"OHDR"
    with pytest.raises(
        ValueError, match=r"an object is in HDF5's newer layout .*: save it again with Keras, or with h5py"
    ):
        read(file, bytes(data))
    for version in (2, 3):
        data[8] = version
        with pytest.raises(
            ValueError, match=rf"layout of libver='latest' \(superblock version {version}\): save it again"
        ):
            read(file, bytes(data))
    writer = Hdf5Writer()
    with pytest.raises(ValueError, match=r"the group '/' is in HDF5's newer layout: save it again"):
        read(file, writer.finished(writer.header([message(0x02, bytes(18))])))


@pytest.mark.parametrize(
    ("layout", "more", "sentence"),
    [
        (struct.pack("<BBB", 3, 2, 2), [], "it is stored in chunks, and this reader takes arrays in one piece: write"),
        (
            struct.pack("<BBB", 3, 2, 2),
            [message(0x0B, bytes(16))],
            "it is compressed, and this reader takes arrays in one",
        ),
        (struct.pack("<BBQ", 4, 3, 100), [], "it is a view of other arrays, and this reader"),
        (struct.pack("<BBQQ", 3, 1, 96, 12), [message(0x07, bytes(16))], "its numbers are in another file: save the"),
        (struct.pack("<BBQQ", 3, 1, NOWHERE, 12), [], "nothing was ever written to it"),
        (struct.pack("<BBQQ", 1, 1, 96, 12), [], "its layout has version 1, expected 3: save the file again"),
        (struct.pack("<BBQQ", 3, 1, 96, 11), [], r"it has 11 bytes, which does not fit its shape \(3,\): fetch"),
        (
            struct.pack("<BBQQ", 3, 1, 10**9, 12),
            [],
            "its numbers lie outside the file, which was cut off or is damaged",
        ),
        (struct.pack("<BBQQ", 3, 1, 96, 2**63), [], "its numbers lie outside the file"),
        (struct.pack("<BB", 3, 1), [], "cannot be read"),
    ],
)
def test_what_is_wrong_with_one_array_is_said_when_that_is_read(file, layout, more, sentence):
    file.write_bytes(one_array(layout, *more))
    tensor = read_hdf5(file)["a"]
    assert tensor.shape == (3,)
    with pytest.raises(
        ValueError, match=f"^{file}: 'a' cannot be read: .*{sentence}" if sentence[:3] != "can" else sentence
    ):
        tensor.read()


@pytest.mark.parametrize(
    "kind",
    [
        number_type(np.dtype("<f4"))[:-4] + struct.pack("<I", 128),  # another exponent
        struct.pack("<4BI", 0x11, 0x60, 31, 0, 4) + number_type(np.dtype("<f4"))[8:],  # VAX
        struct.pack("<4BI", 0x13, 0, 0, 0, 4),  # text
        struct.pack("<4BI", 0x10, 0, 0, 0, 3) + struct.pack("<HH", 0, 24),  # 24 bits
    ],
)
def test_other_types_than_numbers_are_refused(file, kind):
    writer = Hdf5Writer()
    parts = [message(0x01, dataspace((3,))), message(0x03, kind), message(0x08, struct.pack("<BBQQ", 3, 1, 0, 12))]
    file.write_bytes(writer.finished(writer.linked("", [("a", writer.header(parts))])))
    with pytest.raises(ValueError, match=r"its type .* is none of float16, float32, float64 and integers"):
        read_hdf5(file)["a"].read()


def test_a_shape_is_never_taken_at_its_word(file):
    for shape in [(2**62,), (2**40, 2**40), (0, 2**62, 2**62), (1,) * 200]:
        file.write_bytes(one_array(struct.pack("<BBQQ", 3, 1, 96, 12), shape=shape))
        with pytest.raises(ValueError, match="'a' cannot be read"):
            read_hdf5(file)["a"].read()


def test_a_file_that_is_no_hdf5_is_refused(file):
    for data in (b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04" + bytes(5000), bytes(100_000)):
        with pytest.raises(ValueError, match=f"^{file}: not an HDF5 file: it lacks the signature"):
            read(file, data)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_hdf5(tmp_path / "missing.h5")


# ---- damaged and hostile files ----


def test_a_file_cut_off_anywhere_says_so(file):
    data = hdf5({f"layer{index}": {"kernel:0": floats(3, 3)} for index in range(10)}, {"": {"layer_names": ["layer0"]}})
    for piece in cut(data, 60):
        assert "cut off" in settles(read_hdf5, file, piece) or len(piece) < 96


@pytest.mark.parametrize("first", [None, 3000])
def test_damaged_bytes_give_a_value_or_a_sentence(file, first):
    members = {f"layer{index}": {"kernel:0": floats(3), "bias:0": floats(1, dtype="<f8")} for index in range(9)}
    texts = {"": {"layer_names": list(members)}, "layer1": {"weight_names": ("kernel:0", "bias:0")}}
    data = hdf5(members, texts, leaf=2, fan_out=2)
    said = [settles(read_hdf5, file, changed) for changed in damaged(data, 300, first)]
    assert any(said)


def test_groups_within_themselves_end(file):
    writer, later = Hdf5Writer(), 0x1234567812345678
    root = writer.linked("", [("loop", later)])
    data = writer.finished(root).replace(struct.pack("<Q", later), struct.pack("<Q", root))
    with pytest.raises(ValueError, match="the group 'loop' is within itself or too deep"):
        read(file, data)


def test_groups_nested_without_end_are_refused(file):
    writer = Hdf5Writer()
    inner = writer.group("", {})
    for _ in range(2000):
        inner = writer.linked("", [("g", inner)])
    said = settles(read_hdf5, file, writer.finished(inner))
    assert "is within itself or too deep" in said or "structures overlap" in said


def test_more_objects_than_any_network_has_are_refused(file):
    writer = Hdf5Writer(leaf=60_000, fan_out=60_000)
    one = writer.array("", floats(1))
    data = writer.finished(writer.linked("", [(f"{index:05}", one) for index in range(20_000)]))
    assert "it has more than 10,000 groups and arrays" in settles(read_hdf5, file, data)


def test_trees_that_lead_back_end(file):
    data = bytearray(hdf5({f"{index:02}": floats(1) for index in range(20)}, leaf=1, fan_out=2))
    trees = [index for index in range(len(data)) if data[index : index + 4] == b"TREE"]
    top = max(trees, key=lambda place: data[place + 5])
    for level in (0, 1, 255):
        changed = bytearray(data)
        changed[top + 5] = level
        changed[top + 32 : top + 40] = struct.pack("<Q", top)
        assert settles(read_hdf5, file, bytes(changed))
    for tree in trees:  # each the child of every other: two to the power of their levels ways down
        data[tree + 6 : tree + 8] = struct.pack("<H", 2)
        below = [place for place in trees if data[place + 5] == data[tree + 5] - 1]
        for place, key in zip((below * 2)[:2], (32, 48), strict=False):
            data[tree + key : tree + key + 8] = struct.pack("<Q", place)
    assert settles(read_hdf5, file, bytes(data))


def test_header_blocks_that_lead_back_end(file):
    writer = Hdf5Writer()
    place = len(writer.data)
    header = writer.put(struct.pack("<BxHII4x", 1, 65535, 1, 24) + message(0x10, struct.pack("<QQ", place + 16, 24)))
    assert "structures overlap" in settles(read_hdf5, file, writer.finished(header))


def test_counts_and_sizes_beyond_the_file_are_refused(file):
    data = hdf5({"a": {"b": floats(3)}}, {"": {"layer_names": ("a",)}})
    for signature, place, format_ in [
        (b"HEAP", 8, "<Q"),
        (b"HEAP", 24, "<Q"),
        (b"TREE", 6, "<H"),
        (b"SNOD", 6, "<H"),
        (b"SNOD", 8, "<Q"),
        (b"SNOD", 16, "<Q"),
        (b"GCOL", 8, "<Q"),
    ]:
        start = data.rindex(signature) + place
        for value in (2**63, 2**64 - 1, 2**32 + 1, 65535):
            changed = bytearray(data)
            struct.pack_into(format_, changed, start, min(value, 256 ** struct.calcsize(format_) - 1))
            assert settles(read_hdf5, file, bytes(changed)), (signature, place, value)


def test_many_references_to_one_long_text_are_refused(file):
    """Each of 4,000 names the same megabyte."""
    writer = Hdf5Writer()
    body = struct.pack("<HHIQ", 1, 0, 0, 2**20) + bytes(2**20)
    heap = writer.put(b"GCOL" + struct.pack("<B3xQ", 1, 16 + len(body)) + body)
    kind, space = struct.pack("<4BI", 0x19, 1, 0, 0, 16) + bytes(8), dataspace((4000,))
    head = struct.pack("<BxHHH", 1, 8, len(kind), len(space)) + b"texts\0\0\0" + kind + space
    attribute = message(0x0C, head + struct.pack("<IQI", 2**20, heap, 1) * 4000)
    assert "structures overlap" in settles(read_hdf5, file, writer.finished(writer.header([attribute])))


def test_control_characters_in_names_do_not_reach_the_terminal(file):
    name = "\x1b[31mred\x07"
    writer = Hdf5Writer()
    header = writer.header([message(0x01, dataspace((3,))), message(0x08, struct.pack("<BB", 3, 2))])
    data = writer.finished(writer.linked("", [(name, header)]))
    assert "\\x1b[31mred" in settles(read_hdf5, file, data)
    data = writer.finished(writer.linked("", [(name, header), (name, header)]))
    assert "two objects called '\\x1b[31mred" in settles(read_hdf5, file, data)


# ---- the real library ----


def test_it_agrees_with_h5py(file):
    h5py = pytest.importorskip("h5py")
    with h5py.File(file, "w") as opened:
        opened.attrs["layer_names"] = np.array([b"conv_1", b"conv_2"])
        opened.attrs["backend"] = "tensorflow"
        for index in range(40):
            for dtype in ("f2", "f4", "f8", ">f4", "i4"):
                opened[f"layer{index}/{dtype}/kernel:0"] = floats(3, 3, 2, 2).astype(dtype)
    parsed = parse_hdf5(whole_file(file))
    assert parsed.texts[""] == {"layer_names": ("conv_1", "conv_2"), "backend": ("tensorflow",)}
    assert len(parsed.tensors) == 200
    with h5py.File(file) as opened:
        for name, tensor in parsed.tensors.items():
            np.testing.assert_array_equal(tensor.read(), opened[name][()])


def test_h5py_reads_what_the_tests_write(file):
    h5py = pytest.importorskip("h5py")
    members = {f"layer{index:02}": {"kernel:0": floats(2, 3)} for index in range(40)}
    file.write_bytes(hdf5(members, {"": {"layer_names": list(members), "backend": "tensorflow", "more": ("a", "bc")}}))
    with h5py.File(file) as opened:
        assert [name.decode() for name in opened.attrs["layer_names"]] == list(members)
        assert opened.attrs["backend"] in ("tensorflow", b"tensorflow")
        for name, layer in members.items():
            np.testing.assert_array_equal(opened[name]["kernel:0"][()], layer["kernel:0"])
