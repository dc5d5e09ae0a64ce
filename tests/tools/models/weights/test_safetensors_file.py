from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tools.models.weights.writers import cut, damaged, settles
from tools.models.weights.safetensors_file import read_safetensors

KINDS = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4",
    "U16": "u2", "U8": "u1", "BOOL": "b1",
}  # fmt: skip
NAMES = {np.dtype(dtype).str[1:]: name for name, dtype in KINDS.items()}


def with_header(header: Any, data: bytes, pad: int = 0) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode() + b" " * pad
    return struct.pack("<Q", len(text)) + text + data


def described(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    header, end = {}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype.str[1:]], "shape": [*array.shape], "data_offsets": [begin, end]}
    return header


def written(arrays: dict[str, np.ndarray]) -> bytes:
    data = b"".join(array.tobytes() for array in arrays.values())
    return with_header({"__metadata__": {"format": "pt"}, **described(arrays)}, data, 5)


RANDOM = np.random.default_rng(0)
ARRAYS = {
    "features.0.weight": RANDOM.standard_normal((4, 3, 3, 3)).astype("<f4"),
    "features.0.bias": RANDOM.standard_normal(4).astype("<f4"),
    "scale": np.array(2.5, "<f8"),
    "nothing": np.zeros((3, 0, 5), "<f4"),
}
FILE = written(ARRAYS)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.safetensors"


def refusal(path: Path, data: bytes) -> str:
    said = settles(read_safetensors, path, data)
    assert said
    return said.removeprefix(f"{path}: ")


def test_tensors_are_read_by_name_in_the_order_of_the_header(path):
    path.write_bytes(FILE)
    found = read_safetensors(path)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].name == name
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name].read(), array, strict=True)


@pytest.mark.parametrize("dtype", KINDS.values())
def test_all_types_of_numbers_are_read(path, dtype):
    array = (RANDOM.standard_normal((2, 3)) * 100).astype(dtype)
    path.write_bytes(written({"x": array}))
    found = read_safetensors(path)["x"].read()
    np.testing.assert_array_equal(found, array, strict=True)
    assert found.dtype.isnative
    assert found.flags.c_contiguous


def test_bfloat16_becomes_float32(path):
    stored = np.array([0x3FC0, 0xC000, 0x7F80], "<u2")
    header = {"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    path.write_bytes(with_header(header, stored.tobytes()))
    np.testing.assert_array_equal(read_safetensors(path)["x"].read(), np.float32([1.5, -2, np.inf]), strict=True)


def test_the_data_may_lie_in_another_order_than_the_header(path):
    x, y = np.arange(3, dtype="<f4"), np.arange(5, dtype="<f4")
    header = {
        "y": {"dtype": "F32", "shape": [5], "data_offsets": [12, 32]},
        "x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    }
    path.write_bytes(with_header(header, x.tobytes() + y.tobytes()))
    found = read_safetensors(path)
    assert list(found) == ["y", "x"]
    np.testing.assert_array_equal(found["y"].read(), y)


def test_numbers_are_read_when_they_are_asked_for(path):
    path.write_bytes(FILE)
    found = read_safetensors(path)
    at = FILE.index(ARRAYS["features.0.bias"].tobytes())
    path.write_bytes(FILE[:at] + bytes(16))
    np.testing.assert_array_equal(found["features.0.bias"].read(), np.zeros(4))
    with pytest.raises(ValueError, match=f"{path}: the file ends"):
        found["scale"].read()


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


BIG = 1 << 47


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"x": entry(offsets=[0, 4])}, "'x' takes 4 bytes, a tensor of F32 of the shape (2,) 8"),
        ({"x": entry(shape=[3])}, "'x' takes 8 bytes"),
        ({"x": entry(offsets=[8, 0])}, "'x' takes -8 bytes"),
        ({"x": entry(offsets=[0, 8, 16])}, "no lists of whole numbers"),
        ({"x": entry(offsets=[-8, 0])}, "no lists of whole numbers"),
        ({"x": entry(offsets=[0.0, 8.0])}, "no lists of whole numbers"),
        ({"x": entry(offsets=[False, 8])}, "no lists of whole numbers"),
        ({"x": entry(offsets={"0": 8})}, "no lists of whole numbers"),
        ({"x": entry(shape=8)}, "no lists of whole numbers"),
        ({"x": entry(shape=[-1, -2])}, "no lists of whole numbers"),
        ({"x": entry(shape=[1 << 70])}, "no lists of whole numbers"),
        ({"x": entry(shape=[1] * 100)}, "no lists of whole numbers"),
        ({"x": entry(shape=[BIG, BIG])}, "which no file can hold"),
        ({"x": entry(shape=[0, BIG, BIG], offsets=[0, 0])}, "which no file can hold"),
        ({"x": entry(shape=[BIG - 1], offsets=[0, 4 * BIG - 4])}, "no lists of whole numbers"),
        ({"x": entry(shape=[BIG // 8], offsets=[0, BIG // 2])}, "is cut short: it has 8 bytes of data"),
        ({"x": entry("F8_E4M3")}, "has numbers of another type than F64, F32"),
        ({"x": entry(["F32"])}, "has numbers of another type than"),
        ({"x": entry(None)}, "has numbers of another type than"),
        ({"x": {"dtype": "F32", "shape": [2]}}, "'x' is described without dtype, shape and data_offsets"),
        ({"x": [1, 2]}, "'x' is described without"),
        ({"x": entry(), "y": entry()}, "'y' begins at byte 0 of the data, expected 8"),
        ({"x": entry(shape=[1], offsets=[4, 8])}, "'x' begins at byte 4 of the data, expected 0"),
        ({"x": entry(shape=[1], offsets=[0, 4])}, "has 4 bytes behind its last tensor"),
        ({"x": entry(shape=[3], offsets=[0, 12])}, "is cut short: it has 8 bytes of data, its tensors 12"),
        ({"\x1b[2J\n": entry(["F32"])}, "'\\x1b[2J\\n' has"),
        ({"k" * 9999: entry(["F32"])}, "kkk...' has"),
        ('{"x": 1, "x": 1}', "its header names 'x' twice"),
        ('{"x": {"dtype": "F32", "dtype": "F32"}}', "its header names 'dtype' twice"),
        ("{" + '"x":[' * 100_000, "its header is damaged"),
        ("{" + '"x":{' * 100_000, "its header is damaged"),
        ('{"x": 1' + "0" * 10_000 + "}", "its header is damaged"),
        ("{]", "its header is damaged"),
        ("{} {}", "its header is damaged"),
    ],
)
def test_headers_that_do_not_fit_are_refused(path, header, said):
    assert said in refusal(path, with_header(header, bytes(8)))


def test_a_file_without_tensors_is_refused(path):
    assert (
        refusal(path, with_header({"__metadata__": {}}, b"")) == "holds no tensors, expected the weights of a network"
    )


def test_a_header_that_is_no_text_is_refused(path):
    assert "its header is damaged" in refusal(path, struct.pack("<Q", 4) + b'{"\xff}')


def test_a_header_longer_than_the_file_or_than_any_is_not_read(path):
    assert "is cut short: its header has 99999999 bytes" in refusal(path, struct.pack("<Q", 99_999_999) + b"{}")
    data = struct.pack("<Q", (4 << 20) + 1) + b"{" + b" " * ((4 << 20) + 1)
    assert "more than any network needs" in refusal(path, data)


def test_a_file_of_another_format_is_named(path):
    assert refusal(path, b"MATLAB 5.0 MAT-file") == "is a file of the format matlab, expected safetensors"


def test_a_file_that_was_cut_short_is_refused(path):
    for data in cut(FILE, 100):
        assert refusal(path, data)


@pytest.mark.slow
def test_damaged_files_give_a_value_or_one_sentence(path):
    for data in damaged(FILE, 300):
        settles(read_safetensors, path, data)
    for data in damaged(FILE, 300, len(FILE) - 450, seed=1):
        settles(read_safetensors, path, data)


def test_what_safetensors_writes_is_read_as_it_reads_it(path):
    library = pytest.importorskip("safetensors.numpy")
    library.save_file(ARRAYS, path, metadata={"format": "np"})
    expected = library.load_file(path)
    found = read_safetensors(path)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].read(), value, strict=True)
