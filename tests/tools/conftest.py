"""What the tests of several tools begin with."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from tools.models.random_vgg import random_vgg

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with a photograph, a painting and a small model, and an empty cache of models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(sys, "platform", "linux")
    random = np.random.default_rng(0)
    for name, (height, width) in {"photo.png": (36, 48), "painting.png": (40, 30), "other.png": (32, 32)}.items():
        coarse = random.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(tmp_path / name)
    nodes = random_vgg("vgg19", width=0.05)
    write_onnx(tmp_path / "model.onnx", nodes, preprocessing_metadata(PREPROCESSING["caffe"]))
    return tmp_path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache that is also the default one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path / "caches" / "neural-style-by-hand"


@pytest.fixture
def cluster(tmp_path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two workers, each a process of its own, on this machine."""
    pytest.importorskip("distributed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    dask = [sys.executable, "-m", "dask"]
    options: dict[str, Any] = {"env": environment, "cwd": tmp_path}
    options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **options
    )
    start = [*dask, "worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard"]
    workers = [subprocess.Popen(start, **options) for _ in range(2)]
    try:
        from distributed import Client

        end = time.monotonic() + 60
        while True:
            try:
                with Client(address, timeout=5, set_as_default=False) as client:
                    client.wait_for_workers(2, timeout=30)
                break
            except (OSError, TimeoutError):
                assert time.monotonic() < end
        yield address, workers
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
