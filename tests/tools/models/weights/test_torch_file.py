from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.tools.models.weights.writers import cut, damaged, settles
from tools.models.weights.torch_file import read_torch

MAGIC, PROTOCOL = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)
SYSTEM = pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4}}, 2)


# ---- pickles by hand, as PyTorch writes them ----


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def many(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def whole(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if value < 1 << 31 else b"\x8a\x08" + struct.pack("<q", value)


def table(entries: dict[str | int, bytes]) -> bytes:
    keys = {key: text(key) if isinstance(key, str) else whole(key) for key in entries}
    return b"}(" + b"".join(keys[key] + value for key, value in entries.items()) + b"u"


def ordered(entries: dict[str, bytes]) -> bytes:
    """An OrderedDict as Python 3 writes it, with what a module's state_dict has besides: it is BUILD-ed."""
    head = b"ccollections\nOrderedDict\n)R(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"
    return head + table({"_metadata": table({"": table({"version": whole(1)})})}) + b"b"


def storage(key: str, count: int, kind: str = "torch\nFloat", view: bytes = b"") -> bytes:
    module, name = kind.split("\n")
    head = many(text("storage"), f"c{module}\n{name}Storage\n".encode(), text(key), text("cpu"), whole(count), view)
    return head + b"Q"


HOOKS = b"\x89ccollections\nOrderedDict\n)R"


def tensor(
    where: bytes, shape, stride=None, offset: int = 0, function: str = "_rebuild_tensor_v2", more=HOOKS
) -> bytes:
    if stride is None:
        stride = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    sizes = [many(*map(whole, values)) if values else b")" for values in (shape, stride)]
    return f"ctorch._utils\n{function}\n".encode() + many(where, whole(offset), *sizes, more) + b"R"


KINDS = {
    "f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char", "u1": "Byte",
    "b1": "Bool",
}  # fmt: skip


def kind_of_row(row: np.ndarray) -> str:
    return f"torch\n{KINDS[row.dtype.str[1:]]}"


def zipped(saved: bytes, rows: dict[str, np.ndarray], order: str = "", name: str = "vgg", pad: int = 40) -> bytes:
    """What torch.save writes since 1.6: members padded by their local headers, of which the directory knows nothing."""
    file = io.BytesIO()
    members = {"data.pkl": b"\x80\x02" + saved + b".", **({"byteorder": order.encode()} if order else {})}
    members |= {f"data/{key}": row.tobytes() for key, row in rows.items()} | {"version": b"3\n"}
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            info = zipfile.ZipInfo(f"{name}/{member}")
            info.extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
            archive.writestr(info, content)
            info.extra = b""
    return file.getvalue()


def stream(saved: bytes, rows: dict[str, np.ndarray], keys: list[str] | None = None) -> bytes:
    """What torch.save wrote before 1.6."""
    listed = keys or sorted(rows)
    data = b"".join(struct.pack("<q", rows[key].size) + rows[key].tobytes() for key in listed if key in rows)
    return MAGIC + PROTOCOL + SYSTEM + b"\x80\x02" + saved + b"." + pickle.dumps(listed, 2) + data


both = pytest.mark.parametrize("write", [zipped, stream])


def read(path: Path, data: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(data)
    tensors = read_torch(path)
    found = {name: one.read() for name, one in tensors.items()}
    for name, array in found.items():
        assert tensors[name].name == name
        assert tensors[name].shape == array.shape
        assert array.flags.c_contiguous
        assert array.dtype.isnative
    return found


def refusal(path: Path, data: bytes) -> str:
    said = settles(read_torch, path, data)
    assert said
    return said.removeprefix(f"{path}: ")


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "weights.pth"


RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((4, 3, 3, 3)).astype("<f4")
BIAS = RANDOM.standard_normal(4).astype("<f4")
ROWS = {"94108": WEIGHT, "9411": BIAS}
LAYER = {
    "features.0.weight": tensor(storage("94108", 108), WEIGHT.shape),
    "features.0.bias": tensor(storage("9411", 4), BIAS.shape),
}
OLD_LAYER = {
    "features.0.weight": tensor(storage("94108", 108, view=b"N"), WEIGHT.shape),
    "features.0.bias": tensor(storage("9411", 4, view=b"N"), BIAS.shape),
}
FILES = {zipped: zipped(ordered(LAYER), ROWS), stream: stream(ordered(OLD_LAYER), ROWS)}


# ---- what is read ----


@both
def test_a_state_dict_is_read_by_name_in_its_order(path, write):
    found = read(path, FILES[write])
    assert list(found) == ["features.0.weight", "features.0.bias"]
    np.testing.assert_array_equal(found["features.0.weight"], WEIGHT, strict=True)
    np.testing.assert_array_equal(found["features.0.bias"], BIAS, strict=True)


@both
@pytest.mark.parametrize("dtype", KINDS)
def test_all_types_of_numbers_are_read(path, write, dtype):
    row = (RANDOM.standard_normal(6) * 100).astype(dtype)
    found = read(path, write(table({"x": tensor(storage("0", 6, kind_of_row(row)), (2, 3))}), {"0": row}))
    np.testing.assert_array_equal(found["x"], row.reshape(2, 3), strict=True)


@both
def test_bfloat16_becomes_float32(path, write):
    stored = (np.array([1.5, -2, 0, 1e30], np.float32).view(np.uint32) >> 16).astype("<u2")
    found = read(path, write(table({"x": tensor(storage("0", 4, "torch\nBFloat16"), (4,))}), {"0": stored}))
    assert found["x"].dtype == np.float32
    np.testing.assert_allclose(found["x"], [1.5, -2, 0, 1e30], rtol=0.01)


@both
def test_views_of_one_storage_are_read_by_their_offsets_and_strides(path, write):
    row = np.arange(60, dtype="<f4")
    block = row.reshape(3, 4, 5)
    where = storage("0", 60)
    saved = {
        "transposed": tensor(where, (5, 3, 4), (1, 20, 5)),
        "slice": tensor(where, (2, 3), (10, 1), 21),
        "repeated": tensor(where, (2, 3), (0, 1), 57),
        "overlapping": tensor(where, (4, 4), (1, 1), 3),
        "one": tensor(where, (1, 1, 2), (60, 7, 5), 4),
        "all": tensor(where, (3, 4, 5)),
    }
    found = read(path, write(table(saved), {"0": row}))
    np.testing.assert_array_equal(found["transposed"], block.transpose(2, 0, 1))
    np.testing.assert_array_equal(found["slice"], block[1, ::2, 1:4])
    np.testing.assert_array_equal(found["repeated"], [row[57:], row[57:]])
    np.testing.assert_array_equal(found["overlapping"], np.add.outer(range(4), range(3, 7)))
    np.testing.assert_array_equal(found["one"], [[[4, 9]]])
    np.testing.assert_array_equal(found["all"], block)


@both
def test_scalars_and_tensors_without_numbers_keep_their_shape(path, write):
    empty = tensor(storage("1", 0), (3, 0, 5), (5, 1 << 40, 1))
    saved = table({"scalar": tensor(storage("0", 1), ()), "empty": empty})
    found = read(path, write(saved, {"0": np.float32([2.5]), "1": np.float32([])}))
    assert found["scalar"].shape == ()
    assert found["scalar"] == 2.5
    assert found["empty"].shape == (3, 0, 5)


@both
def test_parameters_are_tensors(path, write):
    function = b"ctorch._utils\n_rebuild_parameter\n"
    with_state = b"ctorch._utils\n_rebuild_parameter_with_state\n"
    x = tensor(storage("0", 2), (2,))
    saved = table({"x": function + many(x, HOOKS) + b"R", "y": with_state + many(x, HOOKS, table({})) + b"R"})
    assert list(read(path, write(saved, {"0": np.float32([1, 2])}))) == ["x", "y"]


@both
def test_nested_dictionaries_and_lists_are_joined_by_dots_and_what_is_no_tensor_is_left_out(path, write):
    x = tensor(storage("0", 1), (1,))
    inner = {"weight": x, "epoch": whole(3), "name": text("vgg"), "none": b"N", "rate": b"G" + struct.pack(">d", 0.1)}
    # A key that is a number; a list in parts, as long ones are written; a tuple.
    saved = {
        "state_dict": table(inner),
        7: x,
        "list": b"]" + x + b"a(" + b"\x88" + x + b"e",
        "pair": many(x, table({"a": x})),
    }
    found = read(path, write(table(saved), {"0": np.float32([5])}))
    assert list(found) == ["state_dict.weight", "7", "list.0", "list.2", "pair.0", "pair.1.a"]


@both
def test_a_bare_list_of_tensors_is_named_by_its_indices(path, write):
    saved = b"](" + tensor(storage("0", 1), (1,)) * 2 + b"e"
    assert list(read(path, write(saved, {"0": np.float32([5])}))) == ["0", "1"]


@both
def test_files_of_newer_pickle_protocols_are_read(path, write):
    short = b"\x8c\x01x"
    function = b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93\x94"
    kind = b"\x8c\x05torch\x8c\x0cFloatStorage\x93\x94"
    where = many(b"\x8c\x07storage", kind, b"\x8c\x010", b"\x8c\x03cpu", b"K\x02") + b"Q"
    x = function + many(where, b"K\x00", b"K\x02\x85", b"K\x01\x85", HOOKS) + b"R\x94"
    # The second tensor is taken from the memory, where it has the number two.
    saved = b"\x95" + bytes(8) + b"}(" + short + x + b"\x8c\x01yh\x02u"
    assert {name: list(array) for name, array in read(path, write(saved, {"0": np.float32([1, 2])})).items()} == {
        "x": [1, 2],
        "y": [1, 2],
    }


def test_a_file_that_python_2_and_the_first_pytorch_wrote_is_read(path):
    """Four arguments, texts as bytes, entries given to OrderedDict at once, storages of a GPU and views of storages."""

    def old(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    row = np.arange(24, dtype="<f4")
    where = storage("100", 24, "torch.cuda\nFloat", b"N")
    view = storage("100", 24, "torch.cuda\nFloat", many(text("7"), whole(10), whole(9)))
    x = tensor(where, (2, 3), offset=4, function="_rebuild_tensor", more=b"")
    y = tensor(view, (4,), (2,), 1, function="_rebuild_tensor", more=b"")
    pairs = b"](" + b"".join(b"](" + old(name) + value + b"e" for name, value in [("x", x), ("y", y)]) + b"e"
    found = read(path, stream(b"ccollections\nOrderedDict\n" + pairs + b"\x85R", {"100": row}))
    np.testing.assert_array_equal(found["x"], row[4:10].reshape(2, 3))
    np.testing.assert_array_equal(found["y"], [11, 13, 15, 17])


def test_a_stream_holds_its_storages_in_the_order_of_its_own_list(path):
    rows = {key: np.full(int(key), int(key), np.float32) for key in ("3", "10", "2")}
    saved = table({key: tensor(storage(key, int(key), view=b"N"), (int(key),)) for key in rows})
    for keys in (["3", "10", "2"], ["10", "2", "3"]):
        found = read(path, stream(saved, rows, keys))
        assert [(name, len(array), array[0]) for name, array in found.items()] == [
            ("3", 3, 3),
            ("10", 10, 10),
            ("2", 2, 2),
        ]


@pytest.mark.parametrize("dtype", ["f4", "f2", "i8", "u1"])
def test_a_zip_of_a_big_endian_machine_is_read(path, dtype):
    row = np.arange(6).astype(dtype)
    saved = table({"x": tensor(storage("0", 6, kind_of_row(row)), (6,))})
    found = read(path, zipped(saved, {"0": row.astype(f">{dtype}")}, order="big"))
    np.testing.assert_array_equal(found["x"], row, strict=True)
    read(path, zipped(saved, {"0": row}, order="little"))
    assert "its byte order is b'middle'" in refusal(path, zipped(saved, {"0": row}, order="middle"))


@both
def test_numbers_are_read_when_they_are_asked_for(path, write):
    path.write_bytes(FILES[write])
    tensors = read_torch(path)
    data = bytearray(FILES[write])
    at = data.index(BIAS.tobytes())
    data[at : at + 16] = bytes(16)
    path.write_bytes(data)
    np.testing.assert_array_equal(tensors["features.0.weight"].read(), WEIGHT)
    if write is stream:
        np.testing.assert_array_equal(tensors["features.0.bias"].read(), np.zeros(4))
    path.write_bytes(data[:200])
    with pytest.raises(ValueError, match=f"{path}: "):
        tensors["features.0.weight"].read()


def test_a_checksum_that_does_not_fit_is_found_and_none_is_needed(path):
    data = bytearray(FILES[zipped])
    at = data.index(BIAS.tobytes())
    data[at] ^= 1
    assert "the numbers of 'features.0.bias' are damaged" in refusal(path, bytes(data))
    # torch.serialization.set_crc32_options(False) leaves zeros.
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    while not data[entry + 46 :].startswith(b"vgg/data/9411"):
        entry = data.index(b"PK\1\2", entry + 4)
    data[entry + 16 : entry + 20] = bytes(4)
    assert not settles(read_torch, path, bytes(data))


# ---- what is refused ----


@both
@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("torchvision.models.vgg\nVGG", "torchvision.models.vgg.VGG"),
        ("posix\nsystem", "posix.system"),
        ("os\nsystem", "os.system"),
        ("builtins\neval", "builtins.eval"),
        ("torch\nload", "torch.load"),
        ("torch.nn\nStorage", "torch.nn.Storage"),
        ("collections\nOrderedDict.__init__", "collections.OrderedDict.__init__"),
    ],
)
def test_a_file_that_wants_to_run_something_is_refused_by_name(path, write, function, name):
    ways = [f"c{function}\n".encode(), b"".join(text(part) for part in function.split("\n")) + b"\x93"]
    for way in ways:
        saved = table({"a": tensor(storage("0", 1), (1,)), "b": way + many(text("x")) + b"R"})
        said = refusal(path, write(saved, {"0": np.float32([1])}))
        assert said == f"wants to run {name!r}, which is not a tensor; save its state_dict instead"


@both
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_nothing_is_executed(tmp_path, path, write, protocol):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    saved = pickle.dumps(Evil(), protocol)[:-1]
    assert refusal(path, write(saved, {})).startswith(f"wants to run '{os.mkdir.__module__}.mkdir', ")
    assert not (tmp_path / "executed").exists()


ONE = tensor(storage("0", 4), (4,))


def rows_of(saved: bytes) -> dict[str, np.ndarray]:
    """The storages: a stream may have only those that what was saved names."""
    return {"0": np.arange(4, dtype="<f4")} if b"Storage" in saved else {}


@both
@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (table({}), "holds no tensors, expected a state_dict"),
        (table({"a": whole(1)}), "holds no tensors, expected a state_dict"),
        (ONE, "holds a tensor without a name, expected a state_dict"),
        (table({"a": tensor(storage("0", 4, "torch\nComplexFloat"), (4,))}), "has numbers of the type 'ComplexFloat'"),
        (table({"a": tensor(storage("0", 4, "torch\nQInt8"), (4,))}), "has numbers of the type 'QInt8'"),
        (table({"a.b": ONE, "a": table({"b": ONE})}), "has two tensors with the name 'a.b'"),
        (
            table({"a": tensor(storage("0", 4), (4,), more=HOOKS + table({"neg": b"\x88"}))}),
            "whose sign is still to be",
        ),
        (
            table({"a": tensor(storage("0", 4), (4,), function="_rebuild_qtensor")}),
            "made by 'torch._utils._rebuild_qtensor'",
        ),
        (b"}" + many(text("a"), text("b")) + ONE + b"s", "a key that is neither text nor number"),
        (table({"a": ONE, "b": b"\x8f"}), "the instruction b'\\x8f', which no state_dict needs"),
        (table({"k" * 501: ONE}), "has a key of more than 500 characters"),
        (table({"a": tensor(storage("0", 4), (2, 2, 1 << 20), (2, 1, 0))}), "'a' would have more bytes than its file"),
    ],
)
def test_what_is_no_plain_state_dict_is_refused(path, write, saved, said):
    assert said in refusal(path, write(saved, rows_of(saved)))


def test_names_from_the_file_do_not_act_on_the_terminal(path):
    said = refusal(
        path, zipped(table({"\x1b[2J": tensor(storage("\x1b[2J", 4), (5,))}), {"\x1b[2J": np.zeros(4, "<f4")})
    )
    assert "'\\x1b[2J'" in said
    assert "wants to run '\\x1b" in refusal(path, zipped(b"c\x1b[2J\nx\n", {}))
    assert len(refusal(path, zipped(b"c" + b"x" * 100_000 + b"\nx\n", {}))) < 300


def test_a_file_of_another_format_is_named(path):
    assert refusal(path, b"MATLAB 5.0 MAT-file") == "is a file of the format matlab, expected one of PyTorch"


# ---- hostile files ----

BIG = (1 << 47) - 1
TWICE = b"}(" + text("a") + b"h\0" + text("b") + b"h\0uq\0"


@pytest.mark.slow
@both
@pytest.mark.parametrize(
    "saved",
    [
        table({"a": tensor(storage("0", 4), (5,))}),
        table({"a": tensor(storage("0", 4), (4,), offset=1)}),
        table({"a": tensor(storage("0", 4), (2, 2), (3, 1))}),
        table({"a": tensor(storage("0", 4), (4,), (-1,), 3)}),
        table({"a": tensor(storage("0", 4), (-4,))}),
        table({"a": tensor(storage("0", 4), (BIG, BIG), (0, 0))}),
        table({"a": tensor(storage("0", 4), (0, BIG, BIG), (1, 1, 1))}),
        table({"a": tensor(storage("0", 4), (1,) * 70, (1,) * 70)}),
        table({"a": tensor(storage("0", 4), (4,), (1, 1))}),
        table({"a": tensor(storage("0", BIG), (BIG,), (1,))}),
        table({"a": tensor(storage("0", 5), (4,))}),
        table({"a": tensor(storage("1", 4), (4,))}),
        table({"a": tensor(storage("../../0", 4), (4,))}),
        table({"a": tensor(storage("0", 4, view=many(text("v"), whole(2), whole(4))), (4,))}),
        table({"a": ONE, "b": tensor(storage("0", 4, "torch\nDouble"), (4,))}),
        table({"a": tensor(text("0"), (4,))}),
        table({"a": tensor(storage("0", 4), (4,), more=b"")[:-1] + b"b"}),
        b"X\xff\xff\xff\xffabc",
        b"T\xff\xff\xff\xffabc",
        b"r\xff\xff\xff\xff",
        b"j\xff\xff\xff\xff",
        b"}r\xff\xff\xff\x7f",
        b"]a",
        b"u",
        b"(u",
        b"](e(a",
        b"}(Nu",
        b"\x87",
        b"R",
        b"ccollections\nOrderedDict\nR",
        b"ccollections\nOrderedDict\n](]ee\x85R",
        b"ccollections\nOrderedDict\n](NNe\x85R",
        b"ctorch\nSize\n)R",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"ctorch\nFloatStorage\n)R",
        b"cunfinished",
        b")Q",
        b"NQ",
        # A dictionary that contains itself, and those that contain the last one twice.
        b"}q\0" + text("a") + b"h\0s",
        table({"x": ONE}) + b"q\0" + TWICE * 25,
        table({}) + b"q\0" + TWICE * 25,
        table({}) + b"q\0" + TWICE * 10_000,
        b"]" * 90_000 + b"a" * 89_999,
        b"]" + b"q\0]h\0a" * 1000,
        b"}" + b"q\0}X\1\0\0\0xh\0s" * 30_000,
        b")" + b"\x85" * 90_000,
        b"(" * 90_000,
        b"}" + b")" + b"\x85" * 90_000 + b"Ns",
        b"]" * 1_000_000,
        # A long list, in a list a thousand times.
        b"](" + b"N" * 100_000 + b"eq\0](" + b"h\0" * 100_000 + b"e",
        # One tensor in a list, that in a list a thousand times and so on.
        b"](" + ONE + b"eq\0](" + b"h\0" * 1000 + b"eq\0](" + b"h\0" * 1000 + b"e",
        # A key that makes the names of those below it long.
        table({"k" * 400: table({"k" * 400: table({"k": ONE})})}),
    ],
)
def test_hostile_pickles_are_refused(path, write, saved):
    assert refusal(path, write(saved, rows_of(saved)))


def test_numbers_for_a_storage_that_no_tensor_has_are_refused(path):
    saved = table({"a": ONE})
    rows = {"0": np.arange(4, dtype="<f4")}
    assert "it has numbers of no tensor" in refusal(path, stream(saved, rows, ["0", "1"]))
    for listed in (3, ["0", 5], {"0": 1}, [["0"]]):
        data = MAGIC + PROTOCOL + SYSTEM + b"\x80\x02" + saved + b"." + pickle.dumps(listed, 2) + bytes(24)
        assert "is damaged: " in refusal(path, data)
    head = MAGIC + PROTOCOL + SYSTEM + b"\x80\x02" + saved + b"."
    assert "has no numbers for the tensor 'a'" in refusal(path, head + pickle.dumps([], 2))
    for count in (3, 5, -1, 1 << 62):
        data = head + pickle.dumps(["0"], 2) + struct.pack("<q", count) + bytes(16)
        assert "its storage '0' is not of the size in its pickle" in refusal(path, data)
    assert "of protocol 1001" in refusal(
        path, MAGIC + pickle.dumps(1002, 2) + SYSTEM + saved + b"." + pickle.dumps([], 2)
    )


def patched(data: bytes, member: str, **values: int) -> bytes:
    """A zip whose directory says something else about a member."""
    places = {"flags": (8, "<H"), "method": (10, "<H"), "stored": (20, "<I"), "size": (24, "<I"), "header": (42, "<I")}
    changed = bytearray(data)
    entry = data.rindex(member.encode()) - 46
    for name, value in values.items():
        struct.pack_into(places[name][1], changed, entry + places[name][0], value)
    return bytes(changed)


@pytest.mark.parametrize("member", ["vgg/data.pkl", "vgg/data/9411"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"method": 8}, "is compressed, which torch.save never does"),
        ({"flags": 1}, "is compressed"),
        ({"size": 1 << 30}, "is compressed"),
        ({"size": 1 << 30, "stored": 1 << 30}, "is damaged"),
        ({"size": 17, "stored": 17}, "damaged"),
        ({"header": 1}, "is damaged or cut short"),
        ({"header": 0xFFFFFFF0}, "is damaged or cut short"),
    ],
)
def test_zip_directories_that_lie_are_found_out(path, member, values, said):
    assert said in refusal(path, patched(FILES[zipped], member, **values))


def test_a_zip_bomb_is_not_unpacked(path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("vgg/data.pkl", bytes(1 << 25))
    assert "'vgg/data.pkl' is compressed" in refusal(path, file.getvalue())


def test_a_huge_pickle_is_not_read(path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("vgg/data.pkl", bytes((4 << 20) + 1))
    assert "more than any network needs" in refusal(path, file.getvalue())


@both
def test_a_file_that_was_cut_short_is_refused(path, write):
    for data in cut(FILES[write], 60):
        assert refusal(path, data)
    assert "is cut short: it has" in refusal(path, FILES[stream][:-1])
    assert "is cut short: a zip archive without its directory" in refusal(path, FILES[zipped][:-30])


@pytest.mark.slow
@both
def test_damaged_files_give_a_value_or_one_sentence(path, write):
    for data in damaged(FILES[write], 300):
        settles(read_torch, path, data)
    # Where the pickle is, every change matters.
    begin = FILES[write].index(b"OrderedDict") - 40
    for data in damaged(FILES[write][begin:], 300, 700, seed=1):
        settles(read_torch, path, FILES[write][:begin] + data)


# ---- PyTorch's own ----


@pytest.mark.parametrize("new", [True, False])
def test_what_torch_saves_is_read_as_torch_loads_it(path, new):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 1))
    saved = {
        "state_dict": net.state_dict(),
        "half": torch.randn(3).half(),
        "view": torch.arange(12.0).reshape(3, 4).T[1:],
    }
    torch.save(saved, path, _use_new_zipfile_serialization=new)
    expected = {**{f"state_dict.{name}": value for name, value in net.state_dict().items()}, **saved}
    del expected["state_dict"]
    found = read_torch(path)
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].read(), value.numpy(), strict=True)
