"""Weight files of other programs, written by hand as those programs write them, and damaged ones."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from tools.models.weights.tensor import Tensor

NOWHERE = 2**64 - 1


# ---- HDF5, in the layout of h5py's libver="earliest" ----

FLOATS = {2: (10, 5, 0, 10, 15), 4: (23, 8, 0, 23, 127), 8: (52, 11, 0, 52, 1023)}

Texts = Mapping[str, Mapping[str, Sequence[str] | str]]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    body = padded(body)
    return struct.pack("<HHB3x", kind, len(body), flags) + body


def dataspace(shape: tuple[int, ...]) -> bytes:
    return struct.pack("<BBB5x", 1, len(shape), 0) + struct.pack(f"<{len(shape)}Q", *shape)


def number_type(dtype: np.dtype[Any]) -> bytes:
    size, big = dtype.itemsize, dtype.byteorder == ">"
    if dtype.kind == "f":
        head = struct.pack("<4BI", 0x11, 0x20 | big, 8 * size - 1, 0, size)
        return head + struct.pack("<HH4BI", 0, 8 * size, *FLOATS[size])
    if dtype.kind == "V":
        return struct.pack("<4BI", 0x15, 0, 0, 0, size)
    return struct.pack("<4BI", 0x10, big | 8 * (dtype.kind == "i"), 0, 0, size) + struct.pack("<HH", 0, 8 * size)


class Hdf5Writer:
    """An HDF5 file under way.

    Parameters
    ----------
    texts : attributes by the path of their object; lists become fixed-length strings, tuples those of variable length.
    leaf, fan_out : names in a symbol table node, children in a node of a tree.
    """

    def __init__(self, texts: Texts | None = None, leaf: int = 8, fan_out: int = 32) -> None:
        self.texts, self.leaf, self.fan_out = texts or {}, leaf, fan_out
        self.data = bytearray(96)

    def put(self, data: bytes) -> int:
        self.data += bytes(-len(self.data) % 8)
        self.data += data
        return len(self.data) - len(data)

    def header(self, messages: Sequence[bytes], split: int | None = None) -> int:
        """Put an object header, the messages from ``split`` on in a continuation block."""
        rest = b"".join(messages[split:]) if split is not None else b""
        first = list(messages if split is None else messages[:split])
        if rest:
            first.append(message(0x10, struct.pack("<QQ", self.put(rest), len(rest))))
        count = len(messages) + bool(rest)
        return self.put(struct.pack("<BxHII4x", 1, count, 1, len(b"".join(first))) + b"".join(first))

    def attributes(self, path: str) -> list[bytes]:
        found = []
        for name, value in self.texts.get(path, {}).items():
            values = [text.encode() for text in ([value] if isinstance(value, str) else value)]
            space = dataspace(() if isinstance(value, str) else (len(values),))
            if isinstance(value, list):
                size = max((len(text) for text in values), default=1)
                kind = struct.pack("<4BI", 0x13, 0, 0, 0, size)
                body = b"".join(text.ljust(size, b"\0") for text in values)
            else:
                heap = b"".join(struct.pack("<HHIQ", n, 0, 0, len(v)) + padded(v) for n, v in enumerate(values, 1))
                heap = (heap + struct.pack("<8xQ", 4080 - len(heap))).ljust(4080, b"\0")  # the rest is free
                address = self.put(b"GCOL" + struct.pack("<B3xQ", 1, 16 + len(heap)) + heap)
                kind = struct.pack("<4BI", 0x19, 1, 0, 0, 16) + struct.pack("<4BI", 0x13, 0, 0, 0, 1)
                body = b"".join(struct.pack("<IQI", len(v), address, n) for n, v in enumerate(values, 1))
            sizes = len(name) + 1, len(kind), len(space)
            head = struct.pack("<BxHHH", 1, *sizes)
            found.append(message(0x0C, head + padded(name.encode() + b"\0") + padded(kind) + padded(space) + body))
        return found

    def array(self, path: str, values: NDArray[Any]) -> int:
        where = self.put(values.tobytes()) if values.size else NOWHERE
        layout = struct.pack("<BBQQ", 3, 1, where, values.nbytes)
        parts = [message(0x01, dataspace(values.shape)), message(0x03, number_type(values.dtype))]
        return self.header([*parts, message(0x08, layout), *self.attributes(path)])

    def group(self, path: str, members: Mapping[str, Any]) -> int:
        links = [(name, self.any(f"{path}/{name}" if path else name, members[name])) for name in sorted(members)]
        return self.linked(path, links)

    def linked(self, path: str, links: Sequence[tuple[str, int]]) -> int:
        """Put a group of objects that are there."""
        names, entries = bytearray(8), []
        for name, address in links:
            entries.append((len(names), struct.pack("<QQ24x", len(names), address)))
            names += padded(name.encode() + b"\0")
        segment = self.put(bytes(names))
        heap = self.put(b"HEAP" + struct.pack("<4xQQQ", len(names), 1, segment))
        nodes = []  # each with where its last name is, by which HDF5's own library finds names
        for at in range(0, len(entries), self.leaf):
            piece = entries[at : at + self.leaf]
            body = b"SNOD" + struct.pack("<BxH", 1, len(piece)) + b"".join(entry for _, entry in piece)
            nodes.append((piece[-1][0], self.put(body.ljust(8 + 40 * 8, b"\0"))))
        level = 0
        while level == 0 or len(nodes) > 1:
            upper = []
            for at in range(0, max(len(nodes), 1), self.fan_out):
                part = nodes[at : at + self.fan_out]
                body = b"TREE" + struct.pack("<BBHQQQ", 0, level, len(part), NOWHERE, NOWHERE, 0)
                body += b"".join(struct.pack("<QQ", node, last) for last, node in part)
                upper.append((part[-1][0] if part else 0, self.put(body.ljust(24 + 16 * 32 + 8, b"\0"))))
            nodes, level = upper, level + 1
        (_, tree), *_ = nodes
        return self.header([message(0x11, struct.pack("<QQ", tree, heap)), *self.attributes(path)])

    def any(self, path: str, value: Any) -> int:
        return self.group(path, value) if isinstance(value, Mapping) else self.array(path, np.asarray(value))

    def finished(self, root: int, version: int = 0) -> bytes:
        """Return the file whose root group has its header at ``root``."""
        start = b"\x89HDF\r\n\x1a\n" + struct.pack("<8BHHI", version, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0)
        start += struct.pack("<QQQQ", 0, NOWHERE, len(self.data), NOWHERE) + struct.pack("<QQ24x", 0, root)
        return start + bytes(self.data[96:])


def hdf5(members: Mapping[str, Any], texts: Texts | None = None, leaf: int = 8, fan_out: int = 32) -> bytes:
    """Return an HDF5 file of nested groups (mappings) and arrays."""
    writer = Hdf5Writer(texts, leaf, fan_out)
    return writer.finished(writer.group("", members))


# ---- Keras ----


def keras_legacy(layers: Mapping[str, Mapping[str, NDArray[Any]]], backend: str = "tensorflow") -> bytes:
    """Return a .h5 of weights as Keras 1 and 2 wrote it; names of arrays may have a folder, as "conv/kernel:0"."""
    members: dict[str, Any] = {}
    texts: dict[str, dict[str, list[str] | tuple[str, ...] | str]] = {"": {"layer_names": list(layers)}}
    texts[""]["backend"] = backend
    for layer, arrays in layers.items():
        members[layer] = nested(arrays)
        texts[layer] = {"weight_names": tuple(arrays)}
    return hdf5(members, texts)


def keras_3(layers: Sequence[Sequence[NDArray[Any]]]) -> dict[str, Any]:
    """Return the groups of a .weights.h5 of convolutions, to be given to ``hdf5``."""
    names = [f"conv2d_{index}" if index else "conv2d" for index in range(len(layers))]
    held = [{"vars": {str(number): array for number, array in enumerate(arrays)}} for arrays in layers]
    return {"layers": dict(zip(names, held, strict=True)) | {"input_layer": {"vars": {}}}}


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays by path as groups within groups."""
    groups: dict[str, Any] = {}
    for path, array in arrays.items():
        *above, name = path.split("/")
        group = groups
        for part in above:
            group = group.setdefault(part, {})
        group[name] = array
    return groups


def keras_zip(weights: bytes, method: int = zipfile.ZIP_STORED, name: str = "model.weights.h5") -> bytes:
    """Return a .keras file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", "{}")
        archive.writestr(name, weights)
    return file.getvalue()


# ---- MatConvNet ----


def cells(values: Sequence[Any]) -> NDArray[Any]:
    """Return a cell array of MATLAB's, 1 x n."""
    found = np.empty((1, len(values)), object)
    for index, value in enumerate(values):
        found[0, index] = value
    return found


def matconvnet(
    layers: Mapping[str, Sequence[NDArray[Any]]],
    image: NDArray[Any] | None = None,
    generation: str = "new",
    compressed: bool = True,
) -> bytes:
    """Return a .mat file of MatConvNet's "oldest", "beta16" or "new" form, written by SciPy."""
    found: list[Any] = []
    for name, arrays in layers.items():
        layer = {"stride": [[1, 1]], "name": name, "pad": [[1, 1, 1, 1]], "type": "conv"}
        if generation == "oldest":
            layer |= dict(zip(("filters", "biases"), arrays, strict=True))
        else:
            layer["weights"] = cells(arrays)
        found += [layer, {"type": "relu", "name": f"relu_{name}", "weights": np.empty((0, 0), object)}]
    variables: dict[str, Any] = {"layers": cells(found)}
    if image is not None:
        normalization = {"imageSize": [[224.0, 224.0, 3.0]], "averageImage": image}
        variables |= (
            {"meta": {"classes": {"name": cells(["n01440764"])}, "normalization": normalization}}
            if generation == "new"
            else {"normalization": normalization}
        )
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compressed)
    return file.getvalue()


# ---- Caffe, protocol buffers ----


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, data: bytes) -> bytes:
    """Return a field of bytes, of text or of a message."""
    return varint(field << 3 | 2) + varint(len(data)) + data


def unpacked(field: int, values: NDArray[Any]) -> bytes:
    """Return a repeated float or double field with a key before each number."""
    kind = 5 if values.dtype.itemsize == 4 else 1
    return b"".join(varint(field << 3 | kind) + value.tobytes() for value in values.ravel())


def blob(values: NDArray[Any], old: bool = False, packed: bool = True) -> bytes:
    """Return a BlobProto in float32 or float64."""
    field = 5 if values.dtype == np.float32 else 8
    data = block(field, values.tobytes()) if packed else unpacked(field, values)
    if not old:
        return block(7, block(1, b"".join(varint(size) for size in values.shape))) + data
    return b"".join(number(at, size) for at, size in enumerate((1,) * (4 - values.ndim) + values.shape, 1)) + data


def caffe_v1(layers: Mapping[str, Sequence[NDArray[Any]]], packed: bool = True) -> bytes:
    """Return a .caffemodel of 2014, such as those of VGG."""
    net = block(1, b"VGG_ILSVRC_19_layers")
    for name, blobs in layers.items():
        body = block(2, b"data") + block(3, name.encode()) + block(4, name.encode()) + number(5, 4)
        net += block(2, body + b"".join(block(6, blob(one, True, packed)) for one in blobs) + block(10, number(1, 64)))
        net += block(2, block(4, b"relu_" + name.encode()) + number(5, 18))
    return net


def caffe(layers: Mapping[str, Sequence[NDArray[Any]]], packed: bool = True) -> bytes:
    """Return a .caffemodel of today's form."""
    net = block(1, b"net")
    for name, blobs in layers.items():
        body = block(1, name.encode()) + block(2, b"Convolution") + block(3, b"data")
        net += block(100, body + b"".join(block(7, blob(one, packed=packed)) for one in blobs))
    return net


# ---- damaged files ----

LONGEST_SECONDS = 5.0
"""Of computing time, for any damaged file: usually it is a tenth of a second, on a busy machine ten times as much."""


def cut(data: bytes, count: int) -> Iterator[bytes]:
    """Yield the file cut off at ``count`` places."""
    for end in np.linspace(0, len(data) - 1, count).astype(int):
        yield data[:end]


def damaged(data: bytes, count: int, first: int | None = None, seed: int = 0) -> Iterator[bytes]:
    """Yield the file with a few bytes changed, of the ``first`` bytes where given: the same files at each call."""
    random = np.random.default_rng(seed)
    interesting = np.array([0, 1, 2, 8, 127, 128, 254, 255], np.uint8)
    for _ in range(count):
        changed = np.frombuffer(data, np.uint8).copy()
        for place in random.integers(0, first or len(data), random.integers(1, 6)):
            match random.integers(3):
                case 0:
                    changed[place] ^= 1 << random.integers(8)
                case 1:
                    changed[place] = random.choice(interesting)
                case 2:
                    changed[place : place + 8] = random.integers(0, 256, len(changed[place : place + 8]))
        yield changed.tobytes()


def settles(read: Callable[[Path], Mapping[str, Tensor]], path: Path, data: bytes) -> str:
    """Read a file and all of its arrays; return what the ValueError says, or nothing.

    Any other exception passes; so does an assertion when it takes long or a message shows control characters.
    """
    path.write_bytes(data)
    start, said = time.process_time(), ""
    try:
        for tensor in read(path).values():
            try:
                assert tensor.read().shape == tensor.shape
            except ValueError as error:
                said = str(error)
    except ValueError as error:
        said = str(error)
    assert time.process_time() - start < LONGEST_SECONDS
    assert said.isprintable()
    assert said.startswith(f"{path}: ") or not said
    return said
