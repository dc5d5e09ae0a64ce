"""What a picture records of how it was made."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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


def origin(tool: str, with_paths: bool = False, command: Sequence[str] | None = None) -> dict[str, str]:
    """Return what every picture says of itself: the program, and how it was called.

    Parameters
    ----------
    with_paths : with the folders of the files that were given; a picture that is handed on need not tell of them.
    command : the arguments, where they are others than those that the program was called with.
    """
    arguments = sys.argv[1:] if command is None else command
    given = arguments if with_paths else [_without_folders(argument) for argument in arguments]
    return {"Software": PROJECT, "Command": shlex.join(["python", "-m", f"tools.{tool}", *given])}


def file_name(path: str | os.PathLike[str], with_path: bool = False) -> str:
    """Return how a picture names a file: without its folders, unless they are asked for."""
    return str(path) if with_path else Path(path).name or str(path)


def _without_folders(argument: str) -> str:
    """Return an argument of a command line with each file in it, of several between commas, by its name alone."""
    # --output=FILE, -oFILE, --rows=style=FILE,FILE, style=FILE,FILE
    before = re.match(r"(--[\w-]+=|-\w(?=[/~.]))?([\w-]+=)?", argument)
    option = before.group() if before else ""
    given = argument.removeprefix(option)
    return option + ",".join(file_name(part) if _is_path(part) else part for part in given.split(","))


def _is_path(text: str) -> bool:
    """Say whether a text is a file with folders before it, and not a layer's name with slashes in it."""
    path = Path(text)
    if len(path.parts) < 2:
        return False
    with contextlib.suppress(OSError):  # a name that is too long is none
        return path.is_absolute() or text.startswith(("~", ".")) or path.parent.exists()
    return False


def finite(value: Any) -> Any:
    """Return a value as JSON knows it: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(name): finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parsed_json(text: str) -> Any:
    """Return what a text in JSON stands for, or None where it is damaged, or nested more deeply than any record."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def fits(value: Any, form: Any) -> bool:
    """Tell whether something out of JSON has a form.

    Parameters
    ----------
    form : a type, where ``float`` is any number that a float can hold; ``[form]``, a list of such; ``{str: form}``,
        such under any names; ``{"name": form, ...}``, these names and perhaps others.
    """
    if isinstance(form, list):
        return isinstance(value, list) and all(fits(one, form[0]) for one in value)
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return False
        if str in form:
            return all(fits(one, form[str]) for one in value.values())
        return all(name in value and fits(value[name], part) for name, part in form.items())
    if form is float:
        return isinstance(value, float) or (type(value) is int and abs(value) < 1 << 63)
    return type(value) is form
