"""Which format a weight file is, by its first bytes: the names of files say little."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.models.weights.caffe_file import varint

MAX_DIRECTORY = 4 << 20
"""The largest table of contents that is read: pickle, zip directory, JSON; that of a large network has some 100 kB."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP_END = b"PK\5\6"
_ZIP_ENTRY = b"PK\1\2"
_TORCH_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"(\xb5/\xfd": "Zstandard",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
}
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:.*\n)?oid sha256:([0-9a-f]{64})\n")
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head)\b", re.IGNORECASE)
_LINK = re.compile(rb"(?:\.{1,2}/)+[\w./-]{1,200}\n?")
_PICKLE = re.compile(rb"\x80[\0-\5]|\([dl]p\d|[]}]q|c[A-Za-z_][\w.]*\n\w+\n[(p)]")

# Field numbers and wire types of a NetParameter. Source: BVLC/caffe src/caffe/proto/caffe.proto.
_CAFFE = {1: (2,), 2: (2,), 3: (2,), 4: (0, 2), 5: (0,), 6: (2,), 7: (0,), 8: (2,), 100: (2,)}
_CAFFE_LAYERS = {2, 100}


class UnknownKindError(ValueError):
    """A file that is none of the weight files, nor anything else that is known."""


@dataclass(frozen=True)
class Member:
    """One file in a zip archive, as its directory describes it.

    Parameters
    ----------
    header : where its local header begins.
    size : of its data in bytes.
    crc : of its data, 0 where it was not computed.
    plain : whether the data lie there as they are, neither compressed nor encrypted.
    """

    header: int
    size: int
    crc: int
    plain: bool


def kind_of(path: Path) -> str:
    """Return the format of a weight file: "onnx", "torch", "safetensors", "keras", "caffe" or "matlab".

    Only what is needed to tell is looked at: the file can still be damaged.

    Raises ValueError, naming the file and what it is instead, for any other file, and OSError when it cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: is {'a directory' if path.is_dir() else 'no regular file'}, expected a weight file")
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(0)
        head = file.read(8192)
        found = _binary_kind(file, head, length)
        if found is None:
            reason = _refusal(file, head)
            if reason is None:
                known = "ONNX, PyTorch, safetensors, Keras, Caffe or MatConvNet"
                raise UnknownKindError(f"{path}: is no weight file of {known}; it begins with {head[:8]!r}")
            raise ValueError(f"{path}: {reason}")
    if found == "zip":
        return _zip_kind(path)
    return found


def zip_members(path: Path) -> dict[str, Member]:
    """Return the files in a zip archive by name, in its order.

    Raises ValueError when the archive is damaged. Source: PKWARE's APPNOTE, sections 4.3.12 and 4.3.16.
    """
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(length - 22 - 0xFFFF, 0))
        tail = file.read()
        end = tail.rfind(_ZIP_END)
        if not 0 <= end <= len(tail) - 22:
            raise ValueError(f"{path}: is cut short: a zip archive without its directory at the end; download it again")
        size, start = struct.unpack_from("<II", tail, end + 12)
        if 0xFFFFFFFF in (size, start):
            raise ValueError(f"{path}: is a zip archive of more than 4 GB; save the network's state_dict alone")
        if size > MAX_DIRECTORY:
            raise ValueError(f"{path}: its zip directory has {size} bytes, more than any network needs")
        file.seek(start)
        directory = file.read(size)
    members = {}
    position = 0
    while position < size:
        if directory[position : position + 4] != _ZIP_ENTRY or position + 46 > len(directory):
            raise ValueError(f"{path}: its zip directory is damaged; download it again")
        flags, method = struct.unpack_from("<HH", directory, position + 8)
        crc, stored, unpacked, *lengths = struct.unpack_from("<IIIHHH", directory, position + 16)
        (header,) = struct.unpack_from("<I", directory, position + 42)
        name = directory[position + 46 : position + 46 + lengths[0]].decode(errors="backslashreplace")
        members[name] = Member(header, unpacked, crc, not method and not flags & 1 and stored == unpacked)
        position += 46 + sum(lengths)
    return members


def shown(name: str) -> str:
    """Return a name from a file for a message: quoted, not long, and nothing in it acts on a terminal."""
    return repr(name if len(name) <= 100 else f"{name[:100]}...")


def _binary_kind(file: BinaryIO, head: bytes, length: int) -> str | None:
    """Return the format by the signature at the file's start, "zip" for any zip archive, or None."""
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000:
        return "safetensors"
    if head.startswith((b"PK\3\4", _ZIP_END)):
        return "zip"
    if head[:1] == b"\x80" and _TORCH_LEGACY in head[:32]:
        return "torch"
    if head.startswith(_HDF5):
        return "keras"
    if head.startswith(b"MATLAB 5.0 MAT-file"):
        return "matlab"
    # The field ir_version, which all writers put first: a small number.
    if re.match(rb"\x08[\x01-\x3f]", head):
        return "onnx"
    return "caffe" if _CAFFE_LAYERS & set(_caffe_fields(file, length)) else None


def _zip_kind(path: Path) -> str:
    names = list(zip_members(path))
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise ValueError(f"{path}: is a TorchScript program, which would have to run; save its state_dict instead")
    if any(re.fullmatch(r"(?:[^/]+/)?data\.pkl", name) for name in names):
        return "torch"
    if {"config.json", "model.weights.h5"} <= set(names):
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        raise ValueError(f"{path}: is an .npz file of NumPy, which has no layout of a network; save it as safetensors")
    raise ValueError(f"{path}: is a zip archive without a network's weights; unpack it and give the weight file in it")


def _refusal(file: BinaryIO, head: bytes) -> str | None:
    """Return what a file is that is none of the weight files, and what to do; None where that is not known."""
    if not head:
        return "is empty; download it again"
    if pointer := _LFS.match(head):
        digits = pointer[1].decode()
        return f"is a pointer of Git LFS, not the file itself; 'git lfs pull' gets that (oid sha256:{digits})"
    if _LINK.fullmatch(head):
        return f"is a link that was saved as a text, to {head.decode().strip()!r}; give the file that it leads to"
    if _PAGE.match(head):
        return "is a web page, not a weight file; download it again from a link to the file itself"
    for signature, program in _PACKED.items():
        if head.startswith(signature):
            return f"is compressed with {program}; unpack it and give the weight file in it"
    if head.startswith(b"MATLAB 7.3 MAT-file") or any(head[at : at + 8] == _HDF5 for at in (512, 1024, 2048, 4096)):
        return "is HDF5 behind a block of another program, as MATLAB 7.3 writes; save it there with the option '-v7'"
    if head.startswith(b"\x93NUMPY"):
        return "is an .npy file of NumPy, a single array; give the weight file of a network"
    if head[257:262] == b"ustar":
        names = set(_tar_names(file))
        if {b"storages", b"tensors", b"pickle"} & names:
            return "was saved by PyTorch before 0.1.10, as a tar archive; load it there and save its state_dict again"
        return "is a tar archive; unpack it and give the weight file in it"
    if _PICKLE.match(head):
        return "is a pickle, but none of torch.save; loading it would run programs; save its arrays as safetensors"
    return None


def _tar_names(file: BinaryIO) -> Iterator[bytes]:
    """Yield the names of the first files in a tar archive."""
    position = 0
    for _ in range(8):
        file.seek(position)
        header = file.read(512)
        size = header[124:136].strip(b" \0")
        if header[257:262] != b"ustar" or not size.isdigit() or set(size) - set(b"01234567"):
            return
        yield header[:100].rstrip(b"\0")
        position += 512 + (int(size, 8) + 511) // 512 * 512


def _caffe_fields(file: BinaryIO, length: int) -> Iterator[int]:
    """Yield the numbers of the first fields of a NetParameter, none where another field is among them."""
    fields: list[int] = []
    position = 0
    while position < length and len(fields) < 16:
        file.seek(position)
        start = file.read(20)
        try:
            key, size = varint(start, 0)
            field, wire = key >> 3, key & 7
            if wire not in _CAFFE.get(field, ()):
                return
            value, size = varint(start, size)
        except ValueError:
            break
        position += size + (value if wire == 2 else 0)
        # A file that was cut short is Caffe's all the same; a single field that runs past the end is anything.
        if position > length and not fields:
            return
        fields.append(field)
    yield from fields
