from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from tests.tools.models.weights.writers import cells, cut, damaged, matconvnet, padded, settles
from tools.models.weights.matconvnet_file import read_matconvnet

RANDOM = np.random.default_rng(0)


def floats(*shape: int, dtype: str = "<f4") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


# One small array that is kept, one of 147 kB that is read when it is asked for.
LAYERS = {"conv1_1": [floats(3, 3, 3, 64), floats(1, 64)], "conv1_2": [floats(3, 3, 64, 64), floats(64, 1)]}
COLOR = np.array([[[123.68, 116.779, 103.939]]], np.float32)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "imagenet-vgg.mat"


def read(file: Path, data: bytes) -> dict[str, np.ndarray]:
    file.write_bytes(data)
    return {name: tensor.read() for name, tensor in read_matconvnet(file).items()}


def saved(variables: dict[str, object], compressed: bool = True) -> bytes:
    opened = io.BytesIO()
    scipy.io.savemat(opened, variables, do_compression=compressed)
    return opened.getvalue()


# ---- by hand: what SciPy does not write ----


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + padded(data)


def small(kind: int, data: bytes, order: str = "<") -> bytes:
    """Return an element of at most four bytes in its short form."""
    return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")


def array(
    kind: int, shape: tuple[int, ...], *parts: bytes, name: bytes = b"", flags: int = 0, order: str = "<"
) -> bytes:
    head = element(6, struct.pack(f"{order}II", kind | flags << 8, 0), order)
    head += element(5, struct.pack(f"{order}{len(shape)}i", *shape), order) + element(1, name, order)
    return element(14, head + b"".join(parts), order)


def struct_of(fields: dict[str, bytes], name: bytes = b"") -> bytes:
    names = b"".join(field.encode().ljust(32, b"\0") for field in fields)
    return array(2, (1, 1), small(5, struct.pack("<i", 32)), element(1, names), *fields.values(), name=name)


def text(value: str) -> bytes:
    return array(4, (1, len(value)), element(16, value.encode()))


def numbers(values: np.ndarray, kind: int = 7, stored: int = 7) -> bytes:
    return array(kind, values.shape, element(stored, values.tobytes(order="F")))


def network(*layers: bytes, name: bytes = b"layers") -> bytes:
    return header() + array(1, (1, len(layers)), *layers, name=name)


def header(version: int = 0x0100, order: str = "<") -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", version) + (b"IM" if order == "<" else b"MI")


def layer(weight: bytes, name: str = "a") -> bytes:
    return struct_of({"name": text(name), "weights": array(1, (1, 1), weight)})


# ---- what is read ----


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("generation", ["oldest", "beta16", "new"])
def test_the_weights_of_every_generation_are_read(file, generation, compressed):
    image = COLOR if generation == "new" else floats(8, 9, 3)
    found = read(file, matconvnet(LAYERS, image, generation, compressed))
    assert list(found) == ["conv1_1/0", "conv1_1/1", "conv1_2/0", "conv1_2/1", "normalization/averageImage"]
    for name, values in found.items():
        if name == "normalization/averageImage":
            expected = image
        else:
            expected = LAYERS[name.partition("/")[0]][int(name[-1])]
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        assert values.flags.writeable
        np.testing.assert_array_equal(values, expected, strict=True)


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_may_be_read_in_any_order_and_again(file, compressed):
    layers = {f"conv{index}": [floats(3, 3, 64, 64), floats(1, 64)] for index in range(4)}
    file.write_bytes(matconvnet(layers, compressed=compressed))
    tensors = read_matconvnet(file)
    for name in [*reversed(layers), *layers]:
        assert tensors[f"{name}/0"].shape == (3, 3, 64, 64)
        np.testing.assert_array_equal(tensors[f"{name}/0"].read(), layers[name][0])


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_that_has_changed_since_is_refused(file, compressed):
    data = matconvnet(LAYERS, compressed=compressed)
    file.write_bytes(data)
    tensor = read_matconvnet(file)["conv1_2/0"]
    file.write_bytes(data[:8000])
    with pytest.raises(ValueError, match=f"^{file}: (the file ends within an array|its compressed data have changed)"):
        tensor.read()


def test_the_order_of_fields_does_not_matter(file):
    weights = cells([floats(3, 3, 3, 2), floats(1, 2)])
    one = {"weights": weights, "pad": 1.0, "name": "a", "type": "conv"}
    two = {"type": "conv", "name": "b", "weights": weights, "precious": True}
    assert list(read(file, saved({"other": 5.0, "layers": cells([one, two])}))) == ["a/0", "a/1", "b/0", "b/1"]


def test_the_network_of_a_training_is_found_within_its_variable(file):
    net = {"layers": cells([{"name": "a", "weights": cells([floats(3, 3, 3, 2)])}])}
    net["meta"] = {"normalization": {"averageImage": COLOR}}
    assert list(read(file, saved({"net": net, "stats": {"train": 1.0}}))) == ["a/0", "normalization/averageImage"]


def test_a_layer_without_a_name_or_bias_is_numbered(file):
    found = read(file, network(struct_of({"weights": array(1, (1, 2), numbers(floats(1, 2)), numbers(floats(0, 0)))})))
    assert list(found) == ["layer1/0"]


def test_numbers_keep_their_places_when_one_is_not_read(file):
    """A complex weight must not make the bias a weight."""
    weights = array(
        1, (1, 2), array(7, (1, 1), element(7, bytes(4)), element(7, bytes(4)), flags=8), numbers(floats(1, 2))
    )
    assert list(read(file, network(struct_of({"name": text("a"), "weights": weights})))) == ["a/1"]


@pytest.mark.parametrize(
    ("kind", "stored", "dtype"),
    [(7, 2, "u1"), (6, 2, "u1"), (6, 3, "<i2"), (6, 7, "<f4"), (6, 9, "<f8"), (12, 1, "i1")],
)
def test_numbers_may_be_stored_in_a_smaller_type(file, kind, stored, dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    (found,) = read(file, network(layer(numbers(values, kind, stored)))).values()
    assert found.dtype == {6: np.float64, 7: np.float32, 12: np.int32}[kind]
    np.testing.assert_array_equal(found, values)


def test_elements_may_have_their_short_form(file):
    value = array(7, (1, 1), small(7, struct.pack("<f", 2.5)))
    name = array(4, (1, 2), small(4, "ab"[:1].encode("utf-16-le") + "c".encode("utf-16-le")))
    assert read(file, network(struct_of({"name": name, "weights": array(1, (1, 1), value)})))["ac/0"] == 2.5


def test_files_of_the_other_byte_order_are_read(file):
    values = floats(2, 3, dtype=">f4")
    one = array(7, values.shape, element(7, values.tobytes(order="F"), ">"), order=">")
    cell = array(1, (1, 1), one, order=">")
    names = small(5, struct.pack(">i", 8), ">") + element(1, b"weights\0", ">")
    inner = array(2, (1, 1), names, cell, order=">")
    data = header(order=">") + array(1, (1, 1), inner, name=b"layers", order=">")
    np.testing.assert_array_equal(read(file, data)["layer1/0"], values)


def test_what_no_network_needs_is_passed_over(file):
    empty_struct = array(2, (1, 1), small(5, struct.pack("<i", 1)), element(1, b""))
    others = {
        "opts": empty_struct,
        "function": array(16, (1, 1), element(1, b"whatever")),
        "object": array(3, (1, 1), element(1, b"class")),
        "sparse": array(5, (3, 3), element(5, bytes(8))),
        "nothing": element(14, b""),
        "long": array(4, (1, 100_000), element(16, b"x" * 100_000)),
        "structs": array(2, (1, 2), small(5, struct.pack("<i", 2)), element(1, b"a\0"), text("x"), text("y")),
    }
    data = network(struct_of(others | {"name": text("a"), "weights": array(1, (1, 1), numbers(floats(2, 2)))}))
    assert list(read(file, data + array(17, (1, 1), element(1, b"x"), name=b"opaque"))) == ["a/0"]


# ---- what is refused ----


def test_version_7_3_is_refused(file):
    for data in (
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n",
    ):
        with pytest.raises(
            ValueError, match=f"^{file}: it is a .mat file of version 7.3: load it in MATLAB and save it with"
        ):
            read(file, data)


def test_other_files_are_refused(file):
    for data in (b"", b"MATLAB 5.0 MAT-file", bytes(1000), header(0x0200) + bytes(100), bytes(4) * 5 + b"MATLAB" * 50):
        with pytest.raises(ValueError, match=f"^{file}: it is no .mat file of MATLAB's version 5"):
            read(file, data)


def test_other_variables_are_refused(file):
    with pytest.raises(
        ValueError, match=r"it has no cell array 'layers', its variables are 'x', 'y': this is no network"
    ):
        read(file, saved({"x": 1.0, "y": 2.0}))
    with pytest.raises(ValueError, match="its variables are none"):
        read(file, header())
    with pytest.raises(ValueError, match=r"it has no cell array 'layers'"):
        read(file, saved({"layers": 1.0}))
    with pytest.raises(ValueError, match="none of its layers has weights"):
        read(file, saved({"layers": cells([{"name": "relu"}])}))


@pytest.mark.parametrize("inside", [True, False])
def test_a_dagnn_is_refused(file, inside):
    net = {"layers": cells([{"name": "conv1"}]), "params": {"name": "conv1f", "value": floats(2, 2)}}
    with pytest.raises(ValueError, match=r"it is a DagNN \(params beside layers\), expected a simplenn network"):
        read(file, saved({"net": net} if inside else net))


def test_two_layers_of_one_name_are_refused(file):
    with pytest.raises(ValueError, match="it has two layers called 'a'"):
        read(file, network(layer(numbers(floats(1, 2))), layer(numbers(floats(1, 2)))))


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_matconvnet(tmp_path / "missing.mat")


# ---- damaged and hostile files ----


def compressed_variable(data: bytes, stated: int | None = None) -> bytes:
    """Return a compressed element; ``stated`` is the size that is found in it."""
    if stated is not None:
        data = data[:4] + struct.pack("<I", stated) + data[8:]
    packed = zlib.compress(data)
    return struct.pack("<II", 15, len(packed)) + packed


def test_a_bomb_is_not_unpacked(file):
    large = numbers(np.zeros((1000, 2000), np.float32))
    data = header() + compressed_variable(array(1, (1, 1), layer(large), name=b"layers"))
    assert len(data) < 20_000
    assert "more than weights do: if you trust it, load it in MATLAB and save it" in settles(
        read_matconvnet, file, data
    )


def test_sizes_within_compressed_data_are_not_taken_at_their_word(file):
    variable = array(1, (1, 1), layer(numbers(floats(3, 3, 64, 64))), name=b"layers")
    for stated in (0, 8, 56, len(variable) - 16, len(variable) + 8, 10**6, 2**32 - 1):
        assert settles(read_matconvnet, file, header() + compressed_variable(variable, stated)), stated
    assert settles(read_matconvnet, file, header() + compressed_variable(variable)) == ""


def test_compressed_data_are_checked_to_their_end(file):
    data = matconvnet(LAYERS)
    for place in (1000, 5000, len(data) - 2):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        assert settles(read_matconvnet, file, changed), place


@pytest.mark.parametrize(
    "shape",
    [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (0, 2**31 - 1), (-1, 1), (-1, -1), (1,) * 40, (2**31 - 1,) * 30, ()],
)
@pytest.mark.parametrize("kind", [1, 2, 4, 6, 7])
def test_a_shape_is_never_taken_at_its_word(file, shape, kind):
    settles(read_matconvnet, file, network(layer(array(kind, shape, element(7, bytes(8))))))
    settles(read_matconvnet, file, header() + array(kind, shape, element(7, bytes(8)), name=b"layers"))


def test_nesting_without_end_is_passed_over(file):
    inner = numbers(floats(1, 2))
    for _ in range(3000):
        inner = array(1, (1, 1), inner)
    data = network(layer(numbers(floats(1, 2))), inner)
    assert list(read(file, data)) == ["a/0"]


@pytest.mark.slow
def test_more_arrays_than_any_network_has_are_refused(file):
    nothing = struct.pack("<II", 14, 0)
    cell = array(1, (1, 15_000), nothing * 15_000)
    for data in (
        header() + array(1, (1, 10**6), nothing * 10**6, name=b"layers"),
        network(cell, cell),
        network(layer(numbers(floats(1, 2)))) + array(6, (0, 0), small(9, b""), name=b"x") * 100_000,
    ):
        assert "it has more than 20,000 arrays" in settles(read_matconvnet, file, data)
    structs = array(2, (1, 10**9), small(5, struct.pack("<i", 1)), element(1, b"abc"), name=b"layers")
    assert "it has 3,000,000,000 arrays where" in settles(read_matconvnet, file, header() + structs)


@pytest.mark.slow
def test_more_numbers_are_not_kept_than_any_network_has(file):
    """Arrays just small enough to be kept; compressed they would be nothing."""
    weights = array(1, (1, 1100), *[numbers(np.zeros((1, 16_000), np.float32))] * 1100)
    data = network(struct_of({"name": text("a"), "weights": weights}))
    assert "it has far more arrays than a network" in settles(read_matconvnet, file, data)


@pytest.mark.parametrize(
    "damage",
    [
        header() + struct.pack("<II", 14, 10**9),
        header() + struct.pack("<II", 15, 10**9),
        header() + struct.pack("<II", 9, 0),
        header() + struct.pack("<II", 15, 8) + b"no zlib!",
        header() + compressed_variable(element(9, bytes(100))),
        header() + element(15, zlib.compress(b"abc")),
        header() + array(1, (1, 1), element(9, bytes(8)), name=b"layers"),
        header() + array(1, (1, 2), layer(numbers(floats(1, 1))), name=b"layers"),
        header() + array(2, (1, 1), element(5, bytes(4)), element(1, b"abc"), name=b"layers"),
        header() + array(2, (1, 1), element(5, bytes(12)), element(1, b"abc"), name=b"layers"),
        header() + array(2, (1, 1), small(5, b"\1\0"), element(1, b"abc"), name=b"layers"),
        header() + array(2, (1, 1), small(5, struct.pack("<i", -5)), element(1, b"abc"), name=b"layers"),
        header() + element(14, element(6, bytes(4))),
        header() + element(14, element(6, bytes(7)) + element(5, bytes(8))),
        header() + element(14, element(6, bytes(8)) + element(5, bytes(4000)) + element(1, b"layers")),
        header() + element(14, element(6, bytes(8)) + element(5, bytes(8)) + element(1, bytes(4000))),
        network(layer(array(6, (1, 1), element(14, bytes(8))))),
        network(layer(array(6, (1, 3), element(9, bytes(16))))),
        network(layer(array(7, (1, 1), element(9, bytes(8))))),
        network(layer(array(12, (1, 1), element(9, bytes(8))))),
        network(layer(array(6, (1, 1), struct.pack("<II", 9, 2**32 - 8) + bytes(8)))),
        network(layer(array(6, (1, 1), struct.pack("<HH", 9, 60_000) + bytes(4)))),
        network(layer(array(6, (1, 1)))),
    ],
)
def test_damaged_elements_are_refused(file, damage):
    assert settles(read_matconvnet, file, damage)


def test_control_characters_in_names_do_not_reach_the_terminal(file):
    assert "'\\x1b[31mred'" in settles(read_matconvnet, file, header() + array(6, (0, 0), name=b"\x1b[31mred"))
    double = [layer(numbers(floats(1, 2)), name="\x1b[31m")] * 2
    assert "two layers called '\\x1b[31m'" in settles(read_matconvnet, file, network(*double))


def test_numbers_that_signal_are_read_without_a_word(file):
    values = np.array([[0x7F800001, 0xFF800001]], "<u4").view("<f4")
    assert np.isnan(read(file, network(layer(numbers(values, kind=6))))["a/0"]).all()


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_cut_off_anywhere_says_so(file, compressed):
    data = matconvnet({"a": [floats(3, 3, 3, 4), floats(1, 4)]}, COLOR, compressed=compressed)
    for piece in cut(data, 100):
        # Where one variable ends the file may end, too.
        assert settles(read_matconvnet, file, piece) or len(piece) > 1000


@pytest.mark.slow
@pytest.mark.parametrize(("compressed", "generation"), [(True, "new"), (False, "new"), (False, "oldest")])
def test_damaged_bytes_give_a_value_or_a_sentence(file, compressed, generation):
    data = matconvnet({"a": [floats(1, 1, 2, 2), floats(1, 2)]}, COLOR, generation, compressed)
    said = [settles(read_matconvnet, file, changed) for changed in damaged(data, 300)]
    assert any(said)


@pytest.mark.slow
def test_damaged_data_within_sound_compression_give_a_value_or_a_sentence(file):
    weight = numbers(floats(3, 3, 32, 64))
    variable = array(1, (1, 1), layer(weight), name=b"layers")
    for changed in damaged(variable, 150, first=400):
        settles(read_matconvnet, file, header() + compressed_variable(changed))


# ---- the real library ----


def test_it_agrees_with_scipy_on_files_of_matlab(file):
    """SciPy's own test files, which MATLAB 5 to 7.4 wrote, their variable taken for that of a layer's weight."""
    folder = Path(scipy.io.__file__).parent / "matlab" / "tests" / "data"
    compared = 0
    for name in ("testdouble", "testmatrix", "testminus", "test3dmatrix"):
        for path in sorted(folder.glob(f"{name}_[567]*.mat")):
            data = path.read_bytes()
            expected = scipy.io.loadmat(path)[name]
            if data[128] != 15 and data[126:128] == b"IM":
                (size,) = struct.unpack_from("<I", data, 132)
                variable = data[128 : 136 + size]
            elif data[126:128] == b"IM":
                variable = zlib.decompress(data[136:])
            else:
                continue
            np.testing.assert_array_equal(read(file, network(layer(variable)))["a/0"], expected)
            compared += 1
    if not compared:
        pytest.skip("SciPy came without its test files")
