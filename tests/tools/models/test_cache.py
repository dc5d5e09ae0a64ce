from __future__ import annotations

import hashlib
import os
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import tools.models.cache
import tools.models.part
from engine.errors import ModelError
from engine.graph import Node
from engine.load import load_network
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import Conv, MaxPool, Relu
from engine.preprocessing import PREPROCESSING
from engine.vgg import KNOWN_FILES
from kernels.geometry import Window
from tests.tools.models.model_files import (
    CAFFE,
    IMAGE,
    WIDTH,
    classifier,
    features,
    interrupted_vgg,
    publish,
    small_vgg,
)
from tools.models.cache import default_cache, resolve_model
from tools.models.random_vgg import random_vgg


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/neural-style-by-hand"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache/neural-style-by-hand"),
        ("linux", {"XDG_CACHE_HOME": "{}/xdg"}, "xdg/neural-style-by-hand"),
        ("darwin", {}, "home/Library/Caches/neural-style-by-hand"),
        ("win32", {}, "home/AppData/Local/neural-style-by-hand"),
        ("win32", {"LOCALAPPDATA": "{}/local"}, "local/neural-style-by-hand"),
    ],
)
def test_the_cache_lies_where_the_system_has_caches(tmp_path, monkeypatch, platform, variables, expected):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(sys, "platform", platform)
    assert default_cache() == tmp_path / expected
    assert list(tmp_path.iterdir()) == []


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_without_a_home_folder_only_the_cache_is_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 0)
    path = small_vgg(tmp_path / "model.onnx")
    assert resolve_model(str(path)) == path
    with pytest.raises(ValueError, match="home folder"):
        resolve_model("vgg19")


# ---- resolve_model ----


def test_a_file_that_exists_is_returned_and_nothing_cached(cache, tmp_path):
    path = small_vgg(tmp_path / "model.onnx")
    assert resolve_model(str(path)) == path
    assert not cache.exists()


def test_a_file_goes_before_a_name_and_a_name_before_a_folder(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache.mkdir(parents=True)
    cached = small_vgg(cache / "vgg16.onnx")
    (tmp_path / "vgg16").mkdir()
    assert resolve_model("vgg16") == cached
    (tmp_path / "vgg16").rmdir()
    small_vgg(tmp_path / "vgg16")
    assert resolve_model("vgg16") == Path("vgg16")


@pytest.mark.parametrize("name", ["vgg19", "vgg19-7", "vgg19-7.onnx", "vgg19.onnx"])
def test_a_name_stands_for_its_file_in_the_cache(cache, tmp_path, name):
    """The original weights and those that were trained anew have a name each."""
    for folder in (cache, tmp_path / "other"):
        folder.mkdir(parents=True)
        for stem in ("vgg19-7", "vgg19"):
            small_vgg(folder / f"{stem}.onnx", "vgg19")
    expected = f"{name.removesuffix('.onnx')}.onnx"
    assert resolve_model(name) == cache / expected
    assert resolve_model(name, tmp_path / "other") == tmp_path / "other" / expected


@pytest.mark.parametrize("name", ["vgg19", "vgg16", *(file.name for file in KNOWN_FILES)])
def test_a_name_that_is_not_cached_is_answered_with_the_command_that_fetches_it(cache, name):
    with pytest.raises(ValueError, match=rf"{name}' is not in the cache, .*: python -m tools.models fetch {name}$"):
        resolve_model(name)


def test_the_command_names_the_cache_it_was_looked_for_in(tmp_path):
    with pytest.raises(ValueError) as error:
        resolve_model("vgg16", tmp_path / "my models")
    command = shlex.split(str(error.value).split(": ")[1])
    assert command == ["python", "-m", "tools.models", "fetch", "vgg16", "--cache", str(tmp_path / "my models")]


def test_an_unknown_name_is_answered_with_the_nearest_and_that_there_is_no_such_file(cache):
    with pytest.raises(ValueError, match=r"unknown model 'vgg91'; did you mean 'vgg19'\?.*there is none of this name"):
        resolve_model("vgg91")


@pytest.mark.parametrize("name", ["./vgg19", "models/vgg19-7.onnx"])
def test_a_path_is_no_name(cache, name):
    with pytest.raises(ValueError, match=f"there is no model file '{name}'"):
        resolve_model(name)


def test_a_folder_is_left_to_the_reader_to_refuse(cache, tmp_path):
    assert resolve_model(str(tmp_path)) == tmp_path
    with pytest.raises(ModelError, match="is a directory"):
        load_network(resolve_model(str(tmp_path)))


@pytest.mark.parametrize("pooling", ["average", "model"])
def test_of_a_large_file_the_convolution_part_is_used_from_then_on(cache, tmp_path, monkeypatch, pooling):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 100_000)
    path = classifier(tmp_path / "big.onnx", CAFFE)
    part = resolve_model(str(path))
    assert part.is_relative_to(cache)
    assert part.stat().st_size < path.stat().st_size
    assert "Flatten" not in read_onnx(part).operators
    np.testing.assert_array_equal(features(part, pooling=pooling), features(path, pooling=pooling))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_onnx(part).metadata == CAFFE | {"source": f"big.onnx, SHA-256 {sha256}"}

    monkeypatch.setattr(tools.models.cache, "read_onnx", None)
    assert resolve_model(str(path)) == part
    monkeypatch.chdir(tmp_path)
    assert resolve_model("big.onnx") == part


def test_a_part_in_the_cache_that_was_exchanged_is_made_once_more(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 1000)
    path = small_vgg(tmp_path / "big.onnx")
    part = resolve_model(str(path))
    made = part.read_bytes()
    write_onnx(part, random_vgg("vgg16", seed=1, width=WIDTH), CAFFE)
    assert part.read_bytes() != made
    assert resolve_model(str(path)) == part
    assert part.read_bytes() == made


def test_of_a_large_file_in_float64_nothing_is_rounded(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 100_000)
    nodes = list(random_vgg("vgg16", width=WIDTH))
    weight = np.random.default_rng(0).standard_normal((3, 3, 3, 3))
    nodes[0] = Node("conv1_1", Conv(weight, None, Window((3, 3), pads=(1, 1, 1, 1)), relu=True), "image", "a")
    nodes[1] = Node("conv1_2", nodes[1].operator, "a", "conv1_2")
    path = tmp_path / "big.onnx"
    write_onnx(path, nodes, CAFFE, dtype="float64")
    part = resolve_model(str(path))
    assert part != path
    np.testing.assert_array_equal(features(part, dtype="float64"), features(path, dtype="float64"))


def test_a_large_file_that_changed_is_read_again_and_the_outdated_part_removed(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 1000)
    path, other = small_vgg(tmp_path / "big.onnx"), small_vgg(tmp_path / "other.onnx")
    first, unrelated = resolve_model(str(path)), resolve_model(str(other))
    write_onnx(path, random_vgg("vgg16", seed=1, width=WIDTH), CAFFE)
    os.utime(path, ns=(0, 1_000_000_000))
    second = resolve_model(str(path))
    np.testing.assert_array_equal(features(second), features(path))
    assert sorted(cache.rglob("*.onnx")) == sorted([second, unrelated])
    assert first not in (second, unrelated)


@pytest.mark.parametrize("obstacle", ["a file", "a read-only disk"])
def test_where_the_cache_cannot_be_written_the_file_itself_is_used(cache, tmp_path, monkeypatch, obstacle):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 1000)
    if obstacle == "a file":
        cache.parent.mkdir(parents=True)
        cache.write_text("in the way")
    else:

        def refuse(path: Path, *arguments: object, **options: object) -> None:
            raise OSError(30, "Read-only file system", str(path))

        monkeypatch.setattr(tools.models.part, "write_onnx", refuse)
    path = small_vgg(tmp_path / "big.onnx")
    assert resolve_model(str(path)) == path
    assert not list(cache.rglob("*.onnx"))


@pytest.mark.parametrize("content", [b"garbage" * 200, b"\x08\x08" * 600])
def test_what_is_wrong_with_a_large_file_is_left_to_loading_it(cache, tmp_path, monkeypatch, content):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 1000)
    path = tmp_path / "big.onnx"
    path.write_bytes(content)
    assert resolve_model(str(path)) == path
    assert not list(cache.rglob("*.onnx"))


def test_a_part_does_not_tell_more_about_its_preprocessing_than_the_file(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 1000)
    path = small_vgg(tmp_path / "silent.onnx", metadata={"author": "A. N. Other"})
    part = resolve_model(str(path))
    assert part != path
    assert set(read_onnx(part).metadata) == {"author", "source"}
    with pytest.raises(ModelError, match="nothing tells which input"):
        load_network(part)

    contradictory = small_vgg(tmp_path / "wrong.onnx", metadata={"Image.BitmapPixelFormat": "Gray8"})
    part = resolve_model(str(contradictory))
    assert part != contradictory
    with pytest.raises(ModelError, match="Gray8"):
        load_network(part)


def test_a_part_keeps_the_preprocessing_that_only_its_file_s_hash_tells(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 1000)
    path = classifier(tmp_path / "published.onnx", {})
    publish(monkeypatch, path, "torch")
    part = resolve_model(str(path))
    assert part != path
    assert load_network(part).preprocessing == PREPROCESSING["torch"]
    np.testing.assert_array_equal(features(part), features(path))


def test_a_large_file_cut_short_in_the_middle_keeps_telling_why(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 1000)
    path = interrupted_vgg(tmp_path / "big.onnx")
    assert resolve_model(str(path)) == path
    with pytest.raises(ValueError, match="HardSwish 'swish': operator HardSwish is not supported"):
        load_network(resolve_model(str(path))).features(IMAGE, "conv4_2")


def test_the_layers_of_a_large_file_that_is_no_vgg_keep_their_names(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models.cache, "LARGE_FILE", 1000)
    weight = np.random.default_rng(0).standard_normal((5, 5, 3, 20)).astype(np.float32)
    nodes = [
        Node("a", Conv(weight, None, Window((5, 5)), relu=True), "x", "stem/out"),
        Node("b", MaxPool(Window((2, 2))), "stem/out", "pooled"),
        Node("c", Relu(), "pooled", "second"),
        Node("d", MaxPool(Window((2, 2))), "second", "end"),
    ]
    path = tmp_path / "big.onnx"
    write_onnx(path, nodes, CAFFE)
    part = resolve_model(str(path))
    assert part != path
    assert load_network(part).layers == load_network(path).layers == ("stem/out", "second")
    np.testing.assert_array_equal(features(part, "second"), features(path, "second"))


def test_the_known_addresses_are_the_zoo_s_new_places():
    paths = [address.format(name="vgg19-7").partition("://")[2] for address in tools.models.cache.ZOO_ADDRESSES]
    inside = "validated/vision/classification/vgg/model/vgg19-7.onnx"
    assert paths == [
        "huggingface.co/onnxmodelzoo/vgg19-7/resolve/main/vgg19-7.onnx",
        f"huggingface.co/onnxmodelzoo/legacy_models/resolve/main/{inside}",
    ]


# ---- what a file really is ----


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>", "is a web page, not a weight file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n",
            "a pointer of Git LFS",
        ),
        (b"\x1f\x8b\x08" + bytes(60), "is compressed with gzip"),
        (b"../../blobs/1111", "is a link that was saved as a text, to '../../blobs/1111'; give the file"),
        (b"", "is empty; download it again"),
    ],
)
def test_a_file_that_is_called_onnx_and_is_not_says_what_it_is(tmp_path, content, message):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        resolve_model(str(tmp_path / "model.onnx"))


def test_what_nothing_is_known_of_is_left_to_the_reader(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"garbage")
    assert resolve_model(str(path)) == path
    with pytest.raises(ModelError, match="not an ONNX file"):
        read_onnx(path)


@pytest.mark.parametrize("address", ["https://example.org/vgg19.onnx", "http://example.org/vgg19"])
def test_an_address_is_no_file(address):
    with pytest.raises(ValueError, match=r"the model 'http.*' is an address: download the file, and give its path"):
        resolve_model(address)
