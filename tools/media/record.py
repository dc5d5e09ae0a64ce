"""What a picture records of how it was made."""

from __future__ import annotations

import contextlib
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

PROJECT = "neural-style-by-hand"

OF_A_PICTURE = ("scipy", "onnx", "pillow")
"""The packages that a picture depends on, besides NumPy and the project itself."""


def own_version() -> str:
    """Return the version of this program, or ``"unknown"`` where it runs without having been installed."""
    try:
        return version(PROJECT)
    except PackageNotFoundError:
        return "unknown"


def versions(packages: Sequence[str] = OF_A_PICTURE) -> dict[str, str]:
    """Return the versions of Python, NumPy, the project and those of the packages that are installed."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for package in (PROJECT, *packages):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def origin(tool: str) -> dict[str, str]:
    """Return what every picture says of itself: the program, and how it was called."""
    return {"Software": PROJECT, "Command": shlex.join(["python", "-m", f"tools.{tool}", *sys.argv[1:]])}
