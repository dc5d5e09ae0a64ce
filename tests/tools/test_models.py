from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engine.load
import engine.vgg
import tools.models
from engine.errors import ModelError
from engine.graph import Node
from engine.load import load_network
from engine.network import Network, Tape
from engine.onnx_reader import read_onnx
from engine.onnx_writer import write_onnx
from engine.ops import Add, AveragePool, Concat, Conv, MaxPool, Relu
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.vgg import KNOWN_FILES, KnownFile, KnownWeights
from kernels.geometry import Window
from tests.tools.calling import called
from tools.models import DRAFT_FILE, convolution_part, default_cache, layer_table, main, random_vgg, resolve_model
from tools.progress import Progress

WIDTH = 0.05
CAFFE = preprocessing_metadata(PREPROCESSING["caffe"])
IMAGE = np.random.default_rng(0).uniform(0, 255, (40, 48, 3))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache that is also the default one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "caches" / "neural-style-by-hand"


@pytest.fixture
def call(capsys, monkeypatch) -> Callable[..., str]:
    """Run a command line as a person does; return what it prints."""

    def call(*arguments: object, code: int = 0) -> str:
        output, errors = called(main, capsys, arguments, code)
        if code == 2:
            assert output == ""
            assert re.fullmatch(r"models[^\n]+\n", errors), errors
            return errors
        return output

    return call


def small_vgg(path: Path, name: str = "vgg16", metadata: dict[str, str] = CAFFE, **options: Any) -> Path:
    write_onnx(path, random_vgg(name, width=WIDTH), metadata, **options)
    return path


def classifier(path: Path, metadata: dict[str, str], channels: int = 26) -> Path:
    """A VGG-16 with pooling, a classifier and names of its own, as published ones are."""
    small_vgg(path, metadata=metadata)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = f"old_{node.name}"
    weights = np.zeros((channels, 10, 40), np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights.reshape(channels * 10, 40), "classes"))
    model.graph.node.extend(
        [
            helper.make_node("MaxPool", ["conv5_3"], ["pool5"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("Flatten", ["pool5"], ["flat"], name="flatten"),
            helper.make_node("MatMul", ["flat", "classes"], ["scores"]),
            helper.make_node("Relu", ["scores"], ["end"]),
        ]
    )
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.FLOAT, [1, 40]))
    onnx.save(model, path)
    return path


def interrupted_vgg(path: Path) -> Path:
    """A VGG-16 with an operator between conv2_1 and conv2_2 that the engine does not have."""
    small_vgg(path)
    model = onnx.load(path)
    index = next(index for index, node in enumerate(model.graph.node) if node.name == "conv2_2")
    model.graph.node[index].input[0] = "strange"
    model.graph.node.insert(index, helper.make_node("HardSwish", ["conv2_1"], ["strange"], name="swish"))
    model.opset_import[0].version = 14
    onnx.save(model, path)
    return path


def features(path: Path, layer: str = "conv3_1", **options: Any) -> np.ndarray:
    return load_network(path, **options).features(IMAGE, layer)[layer]


# ---- the cache ----


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
    monkeypatch.setattr(tools.models, "LARGE_FILE", 0)
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
    cached = small_vgg(cache / "vgg16-7.onnx")
    (tmp_path / "vgg16").mkdir()
    assert resolve_model("vgg16") == cached
    (tmp_path / "vgg16").rmdir()
    small_vgg(tmp_path / "vgg16")
    assert resolve_model("vgg16") == Path("vgg16")


@pytest.mark.parametrize("name", ["vgg19", "vgg19-7", "vgg19-7.onnx", "vgg19.onnx"])
def test_a_name_stands_for_its_file_in_the_cache(cache, tmp_path, name):
    for folder in (cache, tmp_path / "other"):
        folder.mkdir(parents=True)
        small_vgg(folder / "vgg19-7.onnx", "vgg19")
    assert resolve_model(name) == cache / "vgg19-7.onnx"
    assert resolve_model(name, tmp_path / "other") == tmp_path / "other" / "vgg19-7.onnx"


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
    monkeypatch.setattr(tools.models, "LARGE_FILE", 100_000)
    path = classifier(tmp_path / "big.onnx", CAFFE)
    part = resolve_model(str(path))
    assert part.is_relative_to(cache)
    assert part.stat().st_size < path.stat().st_size
    assert "Flatten" not in read_onnx(part).operators
    np.testing.assert_array_equal(features(part, pooling=pooling), features(path, pooling=pooling))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_onnx(part).metadata == CAFFE | {"source": f"big.onnx, SHA-256 {sha256}"}

    monkeypatch.setattr(tools.models, "read_onnx", None)
    assert resolve_model(str(path)) == part
    monkeypatch.chdir(tmp_path)
    assert resolve_model("big.onnx") == part


def test_of_a_large_file_in_float64_nothing_is_rounded(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models, "LARGE_FILE", 100_000)
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
    monkeypatch.setattr(tools.models, "LARGE_FILE", 1000)
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
    monkeypatch.setattr(tools.models, "LARGE_FILE", 1000)
    if obstacle == "a file":
        cache.parent.mkdir(parents=True)
        cache.write_text("in the way")
    else:

        def refuse(path: Path, *arguments: object, **options: object) -> None:
            raise OSError(30, "Read-only file system", str(path))

        monkeypatch.setattr(tools.models, "write_onnx", refuse)
    path = small_vgg(tmp_path / "big.onnx")
    assert resolve_model(str(path)) == path
    assert not list(cache.rglob("*.onnx"))


@pytest.mark.parametrize("content", [b"garbage" * 200, b"\x08\x08" * 600])
def test_what_is_wrong_with_a_large_file_is_left_to_loading_it(cache, tmp_path, monkeypatch, content):
    monkeypatch.setattr(tools.models, "LARGE_FILE", 1000)
    path = tmp_path / "big.onnx"
    path.write_bytes(content)
    assert resolve_model(str(path)) == path
    assert not list(cache.rglob("*.onnx"))


def test_a_part_does_not_tell_more_about_its_preprocessing_than_the_file(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models, "LARGE_FILE", 1000)
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
    monkeypatch.setattr(tools.models, "LARGE_FILE", 1000)
    path = classifier(tmp_path / "published.onnx", {})
    publish(monkeypatch, path, "torch")
    part = resolve_model(str(path))
    assert part != path
    assert load_network(part).preprocessing == PREPROCESSING["torch"]
    np.testing.assert_array_equal(features(part), features(path))


def test_a_large_file_cut_short_in_the_middle_keeps_telling_why(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models, "LARGE_FILE", 1000)
    path = interrupted_vgg(tmp_path / "big.onnx")
    assert resolve_model(str(path)) == path
    with pytest.raises(ValueError, match="HardSwish 'swish': operator HardSwish is not supported"):
        load_network(resolve_model(str(path))).features(IMAGE, "conv4_2")


def test_the_layers_of_a_large_file_that_is_no_vgg_keep_their_names(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.models, "LARGE_FILE", 1000)
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


def test_the_convolution_part_ends_with_the_last_layer_and_is_called_by_the_layers_names(tmp_path):
    nodes = convolution_part(read_onnx(classifier(tmp_path / "model.onnx", {})))
    assert nodes[-1].label == "Conv 'conv5_3'"
    assert [node.label for node in nodes if isinstance(node.operator, MaxPool)] == [
        f"MaxPool 'pool{number}'" for number in (1, 2, 3, 4)
    ]
    pools = [Node("p", MaxPool(Window((2, 2))), "image", "p")]
    write_onnx(tmp_path / "pools.onnx", pools, {})
    with pytest.raises(ModelError, match="no convolution followed by a ReLU"):
        convolution_part(read_onnx(tmp_path / "pools.onnx"))


# ---- list ----


def test_list_tells_size_input_and_place_of_every_model(cache, call):
    cache.mkdir(parents=True)
    cached = small_vgg(cache / "vgg16-7.onnx")
    header, draft, *lines = call("list").splitlines()
    assert header.split() == ["name", "short", "download", "input", "in", "the", "cache"]
    assert re.split(r"\s{2,}", draft)[0] == "draft"
    assert f"comes with the program: {DRAFT_FILE}" in draft
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert cells[0] == ["vgg19-7", "vgg19", "574.7 MB", "torch", "no"]
    assert cells[2] == ["vgg19-caffe2-9", "574.7 MB", "by its weights", "no"]
    assert cells[3][:4] == ["vgg16-7", "vgg16", "553.4 MB", "torch"]
    assert re.fullmatch(rf"{cached} \(\d+\.\d kB\)", cells[3][4])
    assert [line.split()[0] for line in lines] == [file.name for file in KNOWN_FILES]


def test_the_shared_options_stand_before_or_behind_the_command(tmp_path, call):
    (tmp_path / "here").mkdir()
    cached = small_vgg(tmp_path / "here" / "vgg16-7.onnx")
    assert str(cached) in call("list", "--cache", tmp_path / "here", "--quiet")
    assert str(cached) in call("--cache", tmp_path / "here", "-q", "list")
    assert call("--quiet", "random", "vgg16", "-o", tmp_path / "a.onnx", "--width", WIDTH) == ""
    assert call("random", "vgg16", "-o", tmp_path / "a.onnx", "--width", WIDTH, "--quiet") == ""
    assert call("random", "vgg16", "-o", tmp_path / "a.onnx", "--width", WIDTH) != ""


# ---- fetch ----


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Range"]))
        data = self.server.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        start = int((self.headers["Range"] or "bytes=0-")[6:-1])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : self.server.stall_at])
        self.wfile.flush()
        if self.server.stall_at is not None:
            self.server.over.wait(10)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Site(ThreadingHTTPServer):
    """Serves ``files``; with ``stall_at`` it falls silent after that many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.stall_at: int | None = None
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    """A server on this machine; the addresses that fetch knows lead there too."""
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(
            tools.models, "ADDRESSES", (site.url("/first/{name}.onnx"), site.url("/second/{name}.onnx"))
        )
        monkeypatch.setattr("tools.download.PAUSES", ())
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield site
        site.over.set()
        site.shutdown()
        thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, path: Path, preprocessing: str | None) -> bytes:
    """Make a file a published model called ``tiny-1``."""
    data = path.read_bytes()
    file = KnownFile("tiny-1", "vgg16", hashlib.sha256(data).hexdigest(), len(data), preprocessing)
    for module in (tools.models, engine.vgg):
        monkeypatch.setattr(module, "KNOWN_FILES", (file, *KNOWN_FILES))
    return data


@pytest.fixture
def published(tmp_path, monkeypatch, site) -> Path:
    path = classifier(tmp_path / "published.onnx", {})
    site.files["/second/tiny-1.onnx"] = publish(monkeypatch, path, "torch")
    return path


def test_fetch_keeps_the_convolution_part_alone(cache, published, site, call):
    printed = call("fetch", "tiny-1")
    assert [path.name for path in cache.iterdir()] == ["tiny-1.onnx"]
    part = cache / "tiny-1.onnx"
    assert str(part) in printed
    assert part.stat().st_size < published.stat().st_size
    assert resolve_model("tiny-1") == part
    assert load_network(part).preprocessing == PREPROCESSING["torch"]
    np.testing.assert_array_equal(features(part, "conv5_3"), features(published, "conv5_3"))
    graph = read_onnx(part)
    assert graph.metadata["source"] == f"tiny-1.onnx, SHA-256 {hashlib.sha256(published.read_bytes()).hexdigest()}"
    assert graph.operators == {"Conv": 13, "Relu": 13, "MaxPool": 4}
    onnx.checker.check_model(str(part), full_check=True)


def test_fetch_tries_the_mirrors_given_before_the_known_addresses(cache, published, site, call):
    site.files["/mine/b"] = b"a page"
    call("fetch", "tiny-1", "--url", site.url("/mine/a"), "--url", site.url("/mine/b"), "--cache", cache)
    assert [path for path, _ in site.seen] == ["/mine/a", "/mine/b", "/first/tiny-1.onnx", "/second/tiny-1.onnx"]
    site.files["/mine/a"] = published.read_bytes()
    site.seen.clear()
    call("fetch", "tiny-1", "--url", site.url("/mine/a"), "--cache", cache / "other")
    assert [path for path, _ in site.seen] == ["/mine/a"]


def test_the_known_addresses_are_the_zoo_s_new_and_old_place():
    paths = [address.format(name="vgg19-7").partition("://")[2] for address in tools.models.ADDRESSES]
    inside = "validated/vision/classification/vgg/model/vgg19-7.onnx"
    assert paths == [
        f"huggingface.co/onnxmodelzoo/legacy_models/resolve/main/{inside}",
        f"github.com/onnx/models/raw/main/{inside}",
    ]


def test_fetch_of_what_is_in_the_cache_says_so_and_asks_nobody(cache, published, site, call):
    call("fetch", "tiny-1")
    before = (cache / "tiny-1.onnx").stat().st_mtime_ns
    site.seen.clear()
    assert "in the cache already" in call("fetch", "tiny-1")
    assert call("fetch", "tiny-1", "--quiet") == ""
    assert site.seen == []
    assert (cache / "tiny-1.onnx").stat().st_mtime_ns == before


def test_fetch_with_keep_leaves_the_download_and_uses_it_again(cache, published, site, call):
    printed = call("fetch", "tiny-1", "--keep")
    (whole,) = set(cache.iterdir()) - {cache / "tiny-1.onnx"}
    assert whole.read_bytes() == published.read_bytes()
    assert str(whole) in printed
    (cache / "tiny-1.onnx").unlink()
    site.seen.clear()
    call("fetch", "tiny-1", "--keep")
    assert site.seen == []
    assert (cache / "tiny-1.onnx").is_file()

    (cache / "tiny-1.onnx").unlink()
    whole.write_bytes(b"damaged")
    call("fetch", "tiny-1", "--keep")
    assert whole.read_bytes() == published.read_bytes()


def test_ctrl_c_leaves_the_beginning_and_the_next_fetch_goes_on_from_there(cache, published, site, call, monkeypatch):
    site.stall_at = 50_000

    def interrupt(progress: Progress, done: int, total: int) -> None:
        if done == site.stall_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "reach", interrupt)
        call("fetch", "tiny-1", code=130)
    (part,) = [path for path in cache.iterdir() if path.suffix == ".part"]
    assert part.read_bytes() == published.read_bytes()[:50_000]
    assert not (cache / "tiny-1.onnx").exists()
    site.stall_at = None
    site.seen.clear()
    call("fetch", "tiny-1")
    assert site.seen[-1] == ("/second/tiny-1.onnx", "bytes=50000-")
    assert [path.name for path in cache.iterdir()] == ["tiny-1.onnx"]


def test_an_interruption_while_the_part_is_written_leaves_the_download(cache, published, site, call, monkeypatch):
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tools.models, "write_onnx", interrupt)
        call("fetch", "tiny-1", code=130)
    (whole,) = cache.iterdir()
    assert whole.read_bytes() == published.read_bytes()
    site.seen.clear()
    call("fetch", "tiny-1")
    assert site.seen == []
    assert [path.name for path in cache.iterdir()] == ["tiny-1.onnx"]


def test_fetch_says_when_nothing_tells_the_preprocessing(cache, tmp_path, site, call, monkeypatch):
    path = classifier(tmp_path / "silent.onnx", {})
    site.files["/first/tiny-1.onnx"] = publish(monkeypatch, path, None)
    assert "--preprocessing" in call("fetch", "tiny-1")
    assert set(read_onnx(cache / "tiny-1.onnx").metadata) == {"source"}


def test_fetch_states_the_preprocessing_that_the_weights_tell(cache, tmp_path, site, call, monkeypatch):
    path = classifier(tmp_path / "known.onnx", {})
    site.files["/first/tiny-1.onnx"] = publish(monkeypatch, path, None)
    for module in (tools.models, engine.load):
        monkeypatch.setattr(module, "known_weights", lambda nodes: KnownWeights("weights of this test", "raw", 1.0))
    assert "--preprocessing" not in call("fetch", "tiny-1")
    monkeypatch.undo()
    assert load_network(cache / "tiny-1.onnx").preprocessing == PREPROCESSING["raw"]


def test_fetch_reports_progress_and_is_silent_with_quiet(cache, published, site, capfd):
    main(["fetch", "tiny-1"])
    assert "fetch tiny-1: " in capfd.readouterr().err
    main(["fetch", "tiny-1", "--cache", str(cache / "other"), "--quiet"])
    assert capfd.readouterr() == ("", "")


def test_fetch_of_something_else_is_an_error_and_caches_nothing(cache, published, site, call):
    site.files["/second/tiny-1.onnx"] = published.read_bytes()[:-1] + b"!"
    message = call("fetch", "tiny-1", "--quiet", code=2)
    assert "cannot download tiny-1.onnx" in message
    assert "404 Not Found" in message
    assert "SHA-256" in message
    assert list(cache.iterdir()) == []


# ---- inspect ----


def facts(printed: str) -> dict[str, str]:
    """What stands above the table, by its name."""
    lines = printed.split("\n\n")[0].splitlines()
    return {line[:15].strip(): line[16:] for line in lines if line[:15].strip()}


def table(printed: str) -> dict[str, list[str]]:
    """The cells of the table's lines by their first."""
    lines = [re.split(r"\s{2,}", line) for line in printed.split("\n\n")[1].splitlines()[:-1]]
    return {line[0]: line[1:] for line in lines}


def test_inspect_shows_the_network_with_its_costs(cache, tmp_path, call):
    path = classifier(tmp_path / "model.onnx", CAFFE)
    printed = call("inspect", path, "--size", 100)
    found = facts(printed)
    assert found["operators"] == "14 Relu, 13 Conv, 5 MaxPool, 1 Flatten, 1 MatMul"
    assert found["architecture"] == "VGG-16, 13 convolutions: conv1_1 .. conv5_3"
    assert found["weights"] == "not recognised"
    assert found["input"] == "caffe: BGR, 0..255, minus (103.939, 116.779, 123.68); stated in the file"
    assert found["content weight"].startswith("0.001 ")
    assert found["not supported"] == "Flatten 'flatten': operator Flatten is not supported"
    assert "out of the engine's reach" not in printed
    rows = table(printed)
    assert rows["layer"][1] == "output at 100x100"
    assert rows["conv1_1"] == ["Conv 3x3, ReLU", "3 x 100 x 100", "3", "1", "84", "810,000"]
    assert rows["(pool1)"] == ["MaxPool 2x2 / 2", "3 x 50 x 50", "6", "2", "0", "0"]
    assert rows["(pool5)"][1:4] == ["26 x 3 x 3", "212", "32"]
    network = load_network(path)
    layers = network.layers
    shapes = network.shapes(100, 100)
    assert [rows[name][1] for name in layers] == [f"{C} x {H} x {W}" for H, W, C in shapes.values()]
    assert rows["total"][-1] == f"{network.multiply_adds(100, 100, layers):,}"
    assert rows["total"][0] == f"{sum(node.operator.parameters for node in network.nodes):,}"


def test_inspect_takes_512_pixels_unless_told(tmp_path, call):
    rows = table(call("inspect", small_vgg(tmp_path / "model.onnx", "vgg19")))
    assert rows["conv1_2"][1] == "3 x 512 x 512"
    assert rows["conv5_4"][1:4] == ["26 x 32 x 32", "252", "16"]


def test_inspect_finds_a_name_in_the_cache_and_tells_where_it_comes_from(cache, published, site, call):
    call("fetch", "tiny-1")
    found = facts(call("inspect", "tiny-1"))
    assert found["file"].startswith(f"{cache / 'tiny-1.onnx'} (")
    assert found["source"].startswith("tiny-1.onnx, SHA-256 ")
    assert found["input"].startswith("torch: RGB, 0..1, minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225);")


def test_inspect_tells_how_the_input_is_known(cache, published, tmp_path, call, monkeypatch):
    found = facts(call("inspect", published))
    assert found["published as"].startswith("tiny-1.onnx ")
    assert found["input"].endswith("; known of the published file")

    path = small_vgg(tmp_path / "silent.onnx", metadata={})
    found = facts(call("inspect", path))
    assert "published as" not in found
    assert found["input"].startswith("unknown: nothing tells which input")

    for module in (tools.models, engine.load):
        weights = KnownWeights("weights of this test", "unit", 0.25)
        monkeypatch.setattr(module, "known_weights", lambda nodes, weights=weights: weights)
    found = facts(call("inspect", path))
    assert found["weights"] == "weights of this test"
    assert found["input"] == "unit: RGB, 0..1; known of the weights"
    assert found["content weight"] == "0.25 (with style weight 1)"


def test_inspect_shows_a_convention_of_no_name_and_one_that_contradicts_itself(tmp_path, call):
    own = {"Image.BitmapPixelFormat": "Rgb8", "Image.NominalPixelRange": "NominalRange_0_255", "mean": "1,2,3"}
    found = facts(call("inspect", small_vgg(tmp_path / "own.onnx", metadata=own)))
    assert found["input"] == "RGB, 0..255, minus (1, 2, 3); stated in the file"
    wrong = facts(call("inspect", small_vgg(tmp_path / "wrong.onnx", metadata={"Image.BitmapPixelFormat": "Gray8"})))
    assert wrong["input"].startswith("unknown: metadata Image.BitmapPixelFormat is 'Gray8'")


def test_inspect_shows_what_stands_before_an_operator_that_is_not_supported(tmp_path, call):
    printed = call("inspect", interrupted_vgg(tmp_path / "model.onnx"))
    found = facts(printed)
    assert found["not supported"] == "HardSwish 'swish': operator HardSwish is not supported"
    assert "10 of 13 convolutions are out of the engine's reach" in printed
    assert found["architecture"] == "VGG, 3 convolutions: conv1_1 .. conv2_1"
    assert list(table(printed)) == ["layer", "conv1_1", "conv1_2", "(pool1)", "conv2_1", "total"]


def test_inspect_prints_what_it_can_of_a_network_without_layers(tmp_path, call):
    node = helper.make_node("Sigmoid", ["x"], ["y"], name="first")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    printed = call("inspect", tmp_path / "model.onnx")
    found = facts(printed)
    assert found["operators"] == "1 Sigmoid"
    assert found["architecture"] == "unknown: no convolution followed by a ReLU"
    assert found["not supported"] == "Sigmoid 'first': operator Sigmoid is not supported"
    assert "\n\n" not in printed


def test_inspect_shows_where_an_image_becomes_too_small(tmp_path, call):
    printed = call("inspect", small_vgg(tmp_path / "model.onnx"), "--size", 8)
    message = facts(printed)["does not run"]
    assert message.startswith("an image of 8x8 pixels does not get past MaxPool 'pool4': an input of 1x1 is smaller")
    rows = table(printed)
    assert rows["conv4_3"][1] == "26 x 1 x 1"
    assert rows["conv5_1"][1:4] == ["-", "132", "16"]
    assert rows["total"][-1] == "-"


def test_inspect_shows_channels_that_do_not_fit(tmp_path, call):
    path = small_vgg(tmp_path / "model.onnx")
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    weights["conv1_2.weight"].CopyFrom(numpy_helper.from_array(np.zeros((3, 7, 3, 3), np.float32), "conv1_2.weight"))
    onnx.save(model, path)
    printed = call("inspect", path)
    assert facts(printed)["does not run"].endswith(
        "Conv 'conv1_2': input has 3 channels, weight (3, 7, 3, 3) expects 7"
    )
    assert table(printed)["conv1_1"][1] == "3 x 512 x 512"


def test_a_network_that_is_no_vgg_is_shown_by_the_names_its_layers_are_asked_for(tmp_path, call):
    weight = np.ones((5, 3, 3, 4), np.float32)
    nodes = [
        Node("a", Conv(weight, None, Window((5, 3), (2, 1), dilations=(1, 2)), relu=True), "x", "stem/out"),
        Node("b", AveragePool(Window((3, 3), (2, 2))), "stem/out", "pooled"),
        Node("c", Relu(), "pooled", "second"),
    ]
    write_onnx(tmp_path / "model.onnx", nodes, CAFFE)
    printed = call("inspect", tmp_path / "model.onnx", "--size", 31)
    assert facts(printed)["architecture"].startswith("not a VGG")
    assert table(printed)["stem/out"] == [
        "Conv 5x3 / 2x1 dilated 1x2, ReLU",
        "4 x 14 x 27",
        "5",
        "2x1",
        "180",
        "68,040",
    ]
    assert list(table(printed)) == ["layer", "stem/out", "(b)", "second", "total"]
    assert set(load_network(tmp_path / "model.onnx").layers) == {"stem/out", "second"}


def test_where_branches_meet_the_one_that_sees_the_most_tells(tmp_path, call):
    def conv(channels, size, relu=False):
        weight = np.ones((size, size, channels, 4), np.float32)
        return Conv(weight, None, Window((size, size), pads=(size // 2,) * 4), relu=relu)

    nodes = [
        Node("stem", conv(3, 3, relu=True), "x", "stem"),
        Node("a", conv(4, 1), "stem", "a"),
        Node("b", conv(4, 5), "stem", "b"),
        Node("sum", Add(), "a", "sum", ("b", "stem")),
        Node("row", Concat(), "sum", "row", ("stem",)),
        Node("end", Relu(), "row", "end"),
    ]
    write_onnx(tmp_path / "model.onnx", nodes, CAFFE)
    rows = table(call("inspect", tmp_path / "model.onnx", "--size", 31))
    assert list(rows) == ["layer", "stem", "(a)", "(b)", "(sum)", "(row)", "end", "total"]
    assert [rows[name][2] for name in ("stem", "(a)", "(b)", "(sum)", "(row)", "end")] == ["3", "3", "7", "7", "7", "7"]
    assert rows["(sum)"][:2] == ["Add", "4 x 31 x 31"]
    assert rows["(row)"][:2] == ["Concat", "8 x 31 x 31"]


def support(network: Network, tape: Tape, layer: str, unit: tuple[int, int]) -> list[tuple[int, int]]:
    """First and one-past-last row and column of the image that one value of a layer depends on, by its gradient."""
    one = np.zeros_like(tape.features[layer])
    one[unit] = 1
    reached = (network.backward(tape.copy(), {layer: lambda flowing: one}) != 0).any(2)
    touched = [np.flatnonzero(reached.any(axis)) for axis in (1, 0)]
    return [(int(indices[0]), int(indices[-1]) + 1) for indices in touched]


def assert_reach_is_the_gradient_s(nodes: list[Node], path: Path, size: int) -> list[tuple[int, int]]:
    """Compare field and stride with the support of gradients; return the fields."""
    positive = [
        Node(node.name, Conv(np.abs(node.operator.weight), None, node.operator.window, relu=True), *values)
        if isinstance(node.operator, Conv)
        else node
        for node, values in ((node, (node.input, node.output)) for node in nodes)
    ]
    write_onnx(path, positive, preprocessing_metadata(PREPROCESSING["raw"]))
    rows, _ = layer_table(read_onnx(path), size, size)
    network = load_network(path, dtype="float64")
    tape = network.forward(np.ones((size, size, 3)), network.layers)
    for row in rows:
        if row.is_layer:
            assert row.shape is not None
            middle = (row.shape[0] // 2, row.shape[1] // 2)
            here = support(network, tape, row.name, middle)
            there = support(network, tape, row.name, (middle[0] + 1, middle[1] + 1))
            assert row.field == tuple(end - begin for begin, end in here), row.name
            assert row.stride == tuple(b[0] - a[0] for a, b in zip(here, there, strict=True)), row.name
    return [row.field for row in rows if row.is_layer]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vgg16", (3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196)),
        ("vgg19", (3, 5, 10, 14, 24, 32, 40, 48, 68, 84, 100, 116, 156, 188, 220, 252)),
    ],
)
def test_the_receptive_field_is_the_support_of_the_gradient(tmp_path, name, expected):
    nodes = list(random_vgg(name, width=1 / 64))
    fields = assert_reach_is_the_gradient_s(nodes, tmp_path / "model.onnx", 304)
    assert fields == [(size, size) for size in expected]


def test_the_receptive_field_counts_dilations_and_uneven_strides(tmp_path):
    weights = [np.ones((*kernel, channels, 1), np.float32) for kernel, channels in (((3, 5), 3), ((3, 2), 1))]
    nodes = [
        Node("a", Conv(weights[0], None, Window((3, 5), (2, 3), dilations=(2, 1)), relu=True), "x", "a"),
        Node("b", AveragePool(Window((2, 3), (1, 2))), "a", "b"),
        Node("c", Conv(weights[1], None, Window((3, 2), dilations=(1, 3)), relu=True), "b", "c"),
    ]
    fields = assert_reach_is_the_gradient_s(nodes, tmp_path / "model.onnx", 80)
    assert fields == [(5, 5), (11, 29)]


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x08", b"\x89PNG\r\n\x1a\n" * 50])
def test_inspect_of_garbage_is_one_line(tmp_path, call, content):
    (tmp_path / "model.onnx").write_bytes(content)
    assert "not an ONNX file" in call("inspect", tmp_path / "model.onnx", code=2)


# ---- random ----


@pytest.mark.parametrize(("name", "convolutions", "last"), [("vgg16", 13, "conv5_3"), ("vgg19", 16, "conv5_4")])
def test_a_random_vgg_has_the_full_size_and_he_s_variance(name, convolutions, last):
    nodes = random_vgg(name)
    convs = {node.output: node.operator for node in nodes if isinstance(node.operator, Conv)}
    assert len(convs) == convolutions
    assert nodes[-1].output == last
    assert [node.operator for node in nodes if not isinstance(node.operator, Conv)] == [
        MaxPool(Window((2, 2), (2, 2)))
    ] * 4
    assert sum(conv.parameters for conv in convs.values()) == {"vgg16": 14_714_688, "vgg19": 20_024_384}[name]
    for label, conv in convs.items():
        assert conv.weight.dtype == np.float32
        assert conv.window == Window((3, 3), pads=(1, 1, 1, 1))
        assert conv.relu
        assert conv.bias is not None
        assert not conv.bias.any()
        inputs = math.prod(conv.weight.shape[:3])
        # Five standard errors of a normal sample's mean and standard deviation.
        tolerance = 5 / math.sqrt(conv.weight.size)
        assert conv.weight.mean(dtype=float) == pytest.approx(0, abs=tolerance * math.sqrt(2 / inputs)), label
        assert conv.weight.std(dtype=float) == pytest.approx(math.sqrt(2 / inputs), rel=tolerance), label


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path, call):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        call("random", "vgg16", "-o", tmp_path / f"{name}.onnx", "--seed", seed, "--width", WIDTH)
    first, again, other = ((tmp_path / f"{name}.onnx").read_bytes() for name in "abc")
    assert first == again
    weights = [read_onnx(tmp_path / f"{name}.onnx").nodes[0].operator for name in "ac"]
    assert isinstance(weights[0], Conv)
    assert isinstance(weights[1], Conv)
    assert (weights[0].weight != weights[1].weight).all()
    assert len(first) > 10_000
    assert first != other


@pytest.mark.parametrize("preprocessing", [None, *PREPROCESSING])
def test_a_random_model_loads_and_computes(tmp_path, call, preprocessing):
    path = tmp_path / "model.onnx"
    options = [] if preprocessing is None else ["--preprocessing", preprocessing]
    assert str(path) in call("random", "vgg19", "-o", path, "--width", 0.1, *options)
    onnx.checker.check_model(str(path), full_check=True)
    network = load_network(path)
    assert network.preprocessing == PREPROCESSING[preprocessing or "caffe"]
    assert len(network.layers) == 16
    found = network.features(IMAGE, ["conv1_1", "conv3_4", "conv5_4"])
    assert [array.shape for array in found.values()] == [(6, 40, 48), (26, 10, 12), (51, 2, 3)]
    for array in found.values():
        # The variance is chosen so that neither vanishes nor explodes what goes through.
        assert np.isfinite(array).all()
        assert 1e-3 < array.std() / found["conv1_1"].std() < 1e3
        assert 0.1 < (array > 0).mean() < 0.9


def test_random_replaces_a_file_whole_or_not_at_all(tmp_path, call, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")

    def fail(path: Path, *arguments: object, **options: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(tools.models, "write_onnx", fail)
        assert "No space left" in call("random", "vgg16", "-o", path, "--width", WIDTH, code=2)
    assert path.read_bytes() == b"before"
    call("random", "vgg16", "-o", path, "--width", WIDTH)
    assert load_network(path).layers[-1] == "conv5_3"
    assert list(tmp_path.iterdir()) == [path]


# ---- wrong input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required"),
        (("lst",), "invalid choice"),
        (("list", "extra"), "unrecognized arguments: extra"),
        (("fetch",), "NAME"),
        (("fetch", "vgg91"), "unknown model 'vgg91'; did you mean 'vgg19'"),
        (("fetch", "vgg19", "--url", "ftp://example.org/vgg19-7.onnx"), "address 1 of vgg19-7.onnx is not of the form"),
        (
            ("fetch", "vgg19", "--cache", "{}/file/below"),
            "choose another with --cache: cannot write to '",
        ),
        (("fetch", "vgg19", "--cache", "{}/file"), "it is a file, give a folder"),
        (("inspect",), "PATH_OR_NAME"),
        (("inspect", ""), "unknown model ''"),
        (("inspect", "{}"), "is a directory, expected an ONNX file"),
        (("inspect", "{}/missing.onnx"), "there is no model file"),
        (("inspect", "vgg19"), "not in the cache, fetch it with: python -m tools.models fetch vgg19"),
        (("inspect", "x" * 5000), "File name too long"),
        (("inspect", "vgg19", "--size", "0"), "'0' is not at least 1"),
        (("inspect", "vgg19", "--size", "big"), "'big' is not a whole number"),
        (("random", "vgg19"), "-o"),
        (("random", "vgg11", "-o", "{}/a.onnx"), "invalid choice: 'vgg11'"),
        (("random", "vgg16", "-o", "{}"), "a model's name ends in .onnx"),
        (("random", "vgg16", "-o", "{}/missing/a.onnx"), "does not exist"),
        (("random", "vgg16", "-o", "{}/a.onnx", "--seed", "-1"), "'-1' is negative"),
        (("random", "vgg16", "-o", "{}/a.onnx", "--width", "0"), "'0' is not a finite number above 0"),
        (("random", "vgg16", "-o", "{}/a.onnx", "--width", "1000"), "--width 1000 makes 1.47e+13 weights"),
        (("random", "vgg16", "-o", "{}/a.onnx", "--preprocessing", "tf"), "invalid choice: 'tf'"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(cache, tmp_path, call, arguments, message):
    (tmp_path / "file").write_text("not a folder")
    given = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    assert message in call(*given, code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_it_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "tools.models", "inspect", "vgg19", "--cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(tools.models.__file__).parents[1])
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"models: the model 'vgg19' is not in the cache, [^\n]*\n", done.stderr)
