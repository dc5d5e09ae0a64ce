"""Weights that Keras has written: .weights.h5 and .keras of Keras 3, .h5 of all versions."""

from __future__ import annotations

import io
import itertools
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

from tools.models.weights.byte_range import ByteRange, whole_file
from tools.models.weights.hdf5 import parse_hdf5
from tools.models.weights.kind import zip_members
from tools.models.weights.tensor import Tensor, natural_order

_MEMBER = "model.weights.h5"

_NOT_LAYERS = ("optimizer/", "_optimizer/", "optimizer_weights/")
"""What the state of a training is below: its arrays have the shapes of weights."""

# A whole VGG-19 has 575 MB, and weights hardly shrink.
_LARGEST_MEMBER = 2**30
_MOST_COMPRESSED = 16

_PIECE = 2**20
_AGAIN = "fetch the file again"


def read_keras(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a Keras file by their path in it, a layer's together and layers in the network's order.

    Keras 3 calls them "layers/conv2d_1/vars/0" (kernel) and "/1" (bias), earlier versions
    "block1_conv1/block1_conv1/kernel:0" and the like, in files of whole models below "model_weights/". Kernels are
    (height, width, in, out). The state of an optimizer is left out.

    Parameters
    ----------
    path : a .weights.h5, .keras or .h5 file; its contents tell which.

    Raises ValueError when the file is damaged or of a kind that is not read, OSError. Source:
    keras/src/saving/saving_lib.py and keras/src/legacy/saving/legacy_h5_format.py of Keras 3.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    hdf5 = parse_hdf5(_member(path) if zipped else whole_file(path))
    layers, weights = _numbered(hdf5.texts, "layer_names"), _numbered(hdf5.texts, "weight_names")
    for name, attributes in hdf5.texts.items():
        if "layer_names" in attributes and attributes.get("backend") == ("theano",):
            raise ValueError(
                f"{path}: the weights in {name!r} were written by Keras on Theano, which turns kernels by 180 degrees: "
                "load them in Keras 2 on TensorFlow and save them again"
            )

    def place(name: str) -> tuple[float, float, object]:
        above = (layers[part] for part in itertools.accumulate(name.split("/"), "{}/{}".format) if part in layers)
        return min(above, default=math.inf), weights.get(name, math.inf), natural_order(name)

    names = [name for name in hdf5.tensors if not name.startswith(_NOT_LAYERS)]
    return {name: hdf5.tensors[name] for name in sorted(names, key=place)}


def _numbered(texts: Mapping[str, Mapping[str, tuple[str, ...]]], attribute: str) -> dict[str, int]:
    """Return the path of each child that an attribute of its group lists, with its place there.

    Long lists are spread over several attributes: layer_names0, layer_names1 ...
    """
    numbers: dict[str, int] = {}
    for group, attributes in texts.items():
        pieces = itertools.takewhile(bool, (attributes.get(f"{attribute}{index}") for index in itertools.count()))
        listed = attributes.get(attribute) or itertools.chain.from_iterable(piece or () for piece in pieces)
        for index, child in enumerate(listed):
            numbers.setdefault(f"{group}/{child}" if group else child, index)
    return numbers


# ---- the zip archive around ----


def _member(path: Path) -> ByteRange:
    """Return where the weights lie in a .keras file, or themselves when they are compressed there."""
    member = zip_members(path).get(_MEMBER)
    if member is None:
        raise ValueError(
            f"{path}: is a zip archive without {_MEMBER}: give a .keras file, or save the weights as .weights.h5"
        )
    with path.open("rb") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(member.header)
        head = file.read(30)
        # The lengths are the local header's own: the directory may have other extra fields.
        start = member.header + 30 + sum(int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
        if len(head) < 30 or not head.startswith(b"PK\3\4") or start + (member.size if member.plain else 0) > end:
            raise ValueError(f"{path}: {_MEMBER} lies outside the archive, which was cut off or is damaged: {_AGAIN}")
        if member.plain:
            return ByteRange(path, start, member.size)
        if head[6] & 1 or head[8:10] != b"\x08\0":
            raise ValueError(
                f"{path}: {_MEMBER} is encrypted or compressed unusually: unpack the archive and give that"
            )
        if member.size > min(_LARGEST_MEMBER, _MOST_COMPRESSED * end + 2**20):
            raise ValueError(
                f"{path}: {_MEMBER} would grow to {member.size:,} bytes, the archive has {end:,}: that is more than "
                "weights do, if you trust it, unpack the archive and give that file"
            )
        file.seek(start)
        try:
            content = _inflated(file, member.size)
        except MemoryError:
            raise ValueError(f"{path}: there is not enough memory to unpack {_MEMBER}: do that yourself") from None
        except zlib.error:
            content = b""
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise ValueError(f"{path}: the compressed {_MEMBER} is damaged: {_AGAIN}")
    return ByteRange(path, 0, member.size, content)


def _inflated(file: io.BufferedReader, size: int) -> bytes:
    """Return what a deflated stretch holds, hardly more than ``size`` bytes."""
    inflate, content = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO()
    while not inflate.eof and content.tell() <= size:
        data = inflate.unconsumed_tail or file.read(_PIECE)
        if not data:
            break
        content.write(inflate.decompress(data, _PIECE))
    return content.getvalue()
