"""What a picture records of how it was made."""

from __future__ import annotations

import contextlib
import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

PROJECT = "neural-style-by-hand"


def versions() -> dict[str, str]:
    """Return the versions that a picture depends on."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for package in (PROJECT, "scipy", "onnx", "pillow"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
