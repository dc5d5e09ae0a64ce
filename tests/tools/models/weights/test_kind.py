from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from engine.onnx.writer import write_onnx
from tests.tools.models.weights.writers import block, caffe, caffe_v1, cut, damaged, hdf5, number
from tools.models.random_vgg import random_vgg
from tools.models.weights.kind import kind_of, zip_members

KINDS = ("onnx", "torch", "safetensors", "keras", "caffe", "matlab")
HDF5 = b"\x89HDF\r\n\x1a\n"
ONE = {"conv1_1": [np.ones((2, 3, 3, 3), np.float32), np.ones(2, np.float32)]}


def archive(*names: str, data: bytes = b"x", method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name in names:
            made.writestr(name, data)
    return file.getvalue()


def tar(*names: str, form: int = tarfile.GNU_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 700
            made.addfile(entry, io.BytesIO(bytes(700)))
    return file.getvalue()


def onnx_file(path: Path) -> bytes:
    write_onnx(path, random_vgg("vgg16", width=0.05), {})
    return path.read_bytes()


def mat_file(path: Path) -> bytes:
    savemat(path, {"layers": np.ones(3)})
    return path.read_bytes()


@pytest.fixture
def path(tmp_path) -> Path:
    # The name says something else than what is in the file.
    return tmp_path / "weights.png"


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ValueError) as error:
        kind_of(path)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    return said.removeprefix(f"{path}: ")


def legacy(protocol: int) -> bytes:
    return b"".join(pickle.dumps(value, protocol) for value in (0x1950A86A20F9469CFC6C, 1001, {}))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (archive("vgg19/data.pkl", "vgg19/byteorder", "vgg19/data/0", "vgg19/version"), "torch"),
        (archive("archive/data.pkl", "archive/data/0"), "torch"),
        (legacy(2), "torch"),
        (legacy(4), "torch"),
        (struct.pack("<Q", 2) + b"{}", "safetensors"),
        (struct.pack("<Q", 0x80) + b'{"' + bytes(200), "safetensors"),
        (HDF5 + bytes(100), "keras"),
        (hdf5({"conv": {"kernel": np.ones(3, np.float32)}}), "keras"),
        (archive("metadata.json", "config.json", "model.weights.h5"), "keras"),
        (archive("metadata.json", "config.json", "model.weights.h5", method=zipfile.ZIP_DEFLATED), "keras"),
        (caffe(ONE), "caffe"),
        (caffe_v1(ONE), "caffe"),
        (
            block(1, b"net") + block(3, b"data") + b"".join(number(4, n) for n in (10, 3, 9, 9)) + block(2, b"x"),
            "caffe",
        ),
        (block(2, b"x"), "caffe"),
        (block(100, b"x"), "caffe"),
    ],
)
def test_the_format_is_told_by_the_content(path, data, kind):
    path.write_bytes(data)
    assert kind_of(path) == kind


@pytest.mark.parametrize(("write", "kind"), [(onnx_file, "onnx"), (mat_file, "matlab")])
def test_the_format_is_told_of_files_that_others_write(path, tmp_path, write, kind):
    path.write_bytes(write(tmp_path / "model.mat"))
    assert kind_of(path) == kind


def test_a_caffe_file_that_was_cut_short_is_one_still(path):
    path.write_bytes(caffe(ONE)[:60])
    assert kind_of(path) == "caffe"


OID = f"oid sha256:{'ab' * 32}"
POINTER = f"version https://git-lfs.github.com/spec/v1\n{{}}{OID}\nsize 80102481\n"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty; download it again"),
        (POINTER.format("").encode(), f"a pointer of Git LFS, not the file itself; 'git lfs pull' gets that ({OID})"),
        (POINTER.format("ext-0-foo sha256:12\n").encode(), OID),
        (b"<!DOCTYPE html>\n<html>", "is a web page, not a weight file; download it again from a link to"),
        (b"\xef\xbb\xbf\r\n  <HTML lang=en>", "is a web page"),
        (archive("a/data.pkl", "a/constants.pkl", "a/code/__torch__.py"), "is a TorchScript program, which would"),
        (archive("a/data.pkl", "a/code/__torch__/net.py"), "is a TorchScript program"),
        (archive("weight.npy", "bias.npy"), "is an .npz file of NumPy, which has no layout of a network"),
        (archive("vgg/vgg19.h5", "README"), "is a zip archive without a network's weights; unpack it"),
        (archive(), "is a zip archive without a network's weights"),
        (tar("sys_info", "pickle", "tensors", "storages"), "was saved by PyTorch before 0.1.10, as a tar archive"),
        (tar("storages", "tensors", "pickle", form=tarfile.USTAR_FORMAT), "was saved by PyTorch before 0.1.10"),
        (tar("vgg19.caffemodel"), "is a tar archive; unpack it and give the weight file in it"),
        (b"\x1f\x8b\x08\x00" + bytes(6), "is compressed with gzip; unpack it and give the weight file in it"),
        (b"BZh91AY&SY", "is compressed with bzip2"),
        (b"\xfd7zXZ\0\0", "is compressed with xz"),
        (b"MATLAB 7.3 MAT-file, Platform".ljust(512) + HDF5, "is HDF5 behind a block of another program, as MATLAB"),
        (bytes(1024) + HDF5, "is HDF5 behind a block of another program"),
        (b"\x93NUMPY\1\0", "is an .npy file of NumPy, a single array"),
        *[(pickle.dumps({"conv1_1": [1]}, protocol), "is a pickle, but none of torch.save") for protocol in range(6)],
        (b"cos\nsystem\n(S'ls'\ntR.", "is a pickle, but none of torch.save"),
        (pickle.dumps([np.ones(3)], 0), "is a pickle, but none of torch.save"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is no weight file of ONNX, PyTorch, safetensors, Keras, Caffe or Mat"),
        (b"\x1b[2J\x07\n", "it begins with b'\\x1b[2J\\x07\\n'"),
        (b"\nSome text that begins with an empty line.\n" * 9, "is no weight file of"),
        (b"\x0a\x03net", "is no weight file of"),
        (block(1, b"node") * 40, "is no weight file of"),
        (b"\x08", "is no weight file of"),
        (bytes(100), "is no weight file of"),
        (b"\xff" * 100, "is no weight file of"),
        (b"\x12" + b"\xff" * 9 + b"\x01", "is no weight file of"),
    ],
)  # fmt: skip
def test_what_is_no_weight_file_is_named(path, data, said):
    assert said in refusal(path, data)


def test_a_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a directory, expected a weight file"):
        kind_of(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in this system's folders")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="is no regular file, expected a weight file"):
        kind_of(tmp_path / "pipe")


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        kind_of(tmp_path / "missing.pth")


# ---- zip archives ----

ARCHIVE = archive("vgg/data.pkl", "vgg/data/0", data=b"12345")


def test_the_directory_of_a_zip_says_where_its_files_are(path):
    path.write_bytes(ARCHIVE)
    members = zip_members(path)
    assert list(members) == ["vgg/data.pkl", "vgg/data/0"]
    assert all(ARCHIVE[member.header :].startswith(b"PK\3\4") for member in members.values())
    assert [(member.size, member.plain) for member in members.values()] == [(5, True)] * 2
    path.write_bytes(archive("a", data=bytes(1000), method=zipfile.ZIP_DEFLATED))
    assert not zip_members(path)["a"].plain


def test_a_zip_may_have_a_comment(path):
    path.write_bytes(ARCHIVE[:-2] + b"\5\0hello")
    assert kind_of(path) == "torch"


END = len(ARCHIVE) - 22


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (12, 1 << 31, "its zip directory has 2147483648 bytes, more than any network needs"),
        (12, 1000, "its zip directory is damaged"),
        (12, 50, "its zip directory is damaged"),
        (12, 0, "is a zip archive without a network's weights"),
        (16, 0, "its zip directory is damaged"),
        (16, 0xFFFFFFF0, "its zip directory is damaged"),
        (16, 0xFFFFFFFF, "is a zip archive of more than 4 GB"),
    ],
)
def test_directories_of_a_zip_that_lie_are_found_out(path, place, value, said):
    data = bytearray(ARCHIVE)
    struct.pack_into("<I", data, END + place, value)
    if value == 50:
        # One entry has 58 bytes; what follows is none.
        data[data.index(b"PK\1\2") + 58] = 0
        struct.pack_into("<I", data, END + place, 100)
    assert said in refusal(path, bytes(data))


@pytest.mark.parametrize(
    "data", [ARCHIVE, tar("storages", "tensors"), caffe(ONE), legacy(2), POINTER.format("").encode(), HDF5 + bytes(99)]
)
def test_damaged_files_are_told_or_refused_in_one_sentence(path, data):
    for changed in [*cut(data, 50), *damaged(data, 100)]:
        path.write_bytes(changed)
        try:
            told = kind_of(path)
        except ValueError as error:
            told = str(error)
        assert told in KINDS or (told.startswith(f"{path}: ") and told.isprintable())
