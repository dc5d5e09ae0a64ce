"""What the tests of several tools begin with."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.onnx_writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from tools.models import random_vgg


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
