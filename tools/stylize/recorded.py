"""Command lines that were recorded: in a picture, to be made again, and in a checkpoint, to be gone on from.

What was recorded comes out of a file, so it is written as a command line, and parsed like one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.multiscale import usual_levels
from engine.stylize import content_weight_at
from tools.cli.command_line import Parser, tell
from tools.cli.options import PAPER, STARTS
from tools.media.files import sha256_of
from tools.media.images import read_text
from tools.media.record import PROJECT, fits, parsed_json
from tools.stylize.account import NAME
from tools.stylize.outputs import same_file

_FILES = {
    "content": "the photograph",
    "style": "the painting",
    "mask": "the mask",
    "keep": "the picture of --keep",
    "coarse_style": "the painting of --coarse-style",
}

_HOW = {
    "content": "PHOTOGRAPH",
    "style": "PHOTOGRAPH PAINTING",
    "mask": "--mask FILE",
    "keep": "--keep FILE",
    "coarse_style": "--coarse-style FILE",
    "init": "--init FILE",
}


_OF_A_CALL = ("resume", "again", "paper", "command")
_NOT_OPTIONS = (*_OF_A_CALL, "content", "style", "mask", "more")


def goes_on(argv: Sequence[str]) -> bool:
    """Tell whether a command line takes the rest from a file: with ``--resume`` or ``--again``."""
    return any(argument.partition("=")[0] in ("--resume", "--again") for argument in argv)


def given_on(parser: Parser, argv: Sequence[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return those of the arguments that stand on the command line, not those that have their defaults."""
    nothing = object()
    marked = parser.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(arguments), nothing)))
    given = {name: value for name, value in vars(marked).items() if value is not nothing}
    # Positional ones that may be left out are set in any case.
    return {name: value for name, value in given.items() if name not in ("content", "style") or value}


def overridden(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was recorded, and over it what was given, where ``--paper`` stands for the paper's settings."""
    return {**recorded, **(PAPER if given.get("paper") else {}), **given, "paper": False}


def as_command(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return arguments as a command line.

    Parameters
    ----------
    values : by name; what is None, False or empty is left out.
    defaults : of all arguments that there are; what has its default is left out.
    """
    files = [values.get("content"), *_listed(values.get("style"))]
    command = [_absolute(path) for path in files if path]
    for name in ("mask", "more"):
        if listed := _listed(values.get(name)):
            command += [f"--{name}", *map(_absolute, listed)]
    for name, default in defaults.items():
        value = values.get(name)
        if name in _NOT_OPTIONS or value is None or value is False or _written(value) == _written(default):
            continue
        flag = "--" + name.replace("_", "-")
        command.append(flag if value is True else f"{flag}={_written(value)}")
    return command


def plain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return arguments as JSON can hold them, files with their folders."""

    def written(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [written(name, one) for one in value]
        if isinstance(value, Path) or (name in ("model", "init") and value is not None and Path(value).exists()):
            return _absolute(value)
        return value if isinstance(value, str | int | float | dict | tuple | None) else str(value)

    return {name: written(name, value) for name, value in vars(arguments).items() if name not in _OF_A_CALL}


def _absolute(path: Any) -> str:
    return str(Path(str(path)).absolute())


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value] if value else []


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(name if weight is None else f"{name}:{weight!r}" for name, weight in value.items())
    if isinstance(value, list | tuple):
        return ",".join(one if isinstance(one, str) else repr(one) for one in value)
    return str(value)


# ---- a picture, made again ----


def made_again(picture: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], None]]:
    """Return the arguments that a picture was made with, under those that were given; and what checks the model.

    Files that are not given are looked for where they were recorded, beside the picture and in the present folder; the
    recorded hash tells whether they are the same.

    Raises ValueError for a picture that this program has not made, and for files that are missing or are others.
    """
    text = read_text(picture)
    settings, inputs = (parsed_json(text.get(name, "")) for name in ("Settings", "Inputs"))
    form = {"content": str, "style": [str], "size": int, "iterations": int, "optimizer": str}
    if text.get("Software") != PROJECT or not fits(settings, form) or not settings["style"]:
        raise ValueError(
            f"{str(picture)!r} has no settings of a picture by this program's stylize, so give them yourself"
        )
    if not fits(inputs, {"style": [str], "model": str}):
        tell(f"{NAME}: {picture} records no hashes of its inputs: files are taken by their names")
        inputs = {}
    find = _Finder(picture, inputs)
    found = dict(settings)
    for name in (*_FILES, "init"):
        recorded = settings.get(name)
        if name in given or not recorded or (name == "init" and recorded in STARTS):
            continue
        paths = [find(name, place, str(one)) for place, one in enumerate(_listed(recorded))]
        found[name] = paths if isinstance(recorded, list) else paths[0]
    if "model" not in given and settings.get("model"):
        found["model"] = find.model(str(settings["model"]))
    found["output"] = picture.with_stem(f"{picture.stem}-again")
    if "size" in given and settings.get("levels") == usual_levels(settings["size"]):
        del found["levels"]  # nobody need have asked for them: another size has as many as suit it
    arguments = overridden(found, given)
    if same_file(Path(arguments["output"]), picture):
        raise ValueError(f"{str(picture)!r} would be written over by the picture made from it: give another -o")
    if "content_weight" not in given and not given.get("paper"):
        arguments["content_weight"] = _weight_at(settings, given)
    return arguments, lambda now: _check_model(picture, given, inputs, now)


def _weight_at(settings: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Return the recorded content weight, as it suits another size; another model has its own."""
    weight: Any
    weight, size = settings.get("content_weight"), given.get("size", settings["size"])
    if "model" in given or not fits(weight, float):
        return None
    if size == settings["size"]:
        return weight
    return content_weight_at(float(weight), size**2, max(settings["size"], 1) ** 2)


def _check_model(picture: Path, given: Mapping[str, Any], inputs: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError where a model of the same name is another; ``now`` are the hashes of what is used."""
    if "model" not in given and inputs.get("model", now["model"]) != now["model"]:
        raise ValueError(f"the model that goes by that name is not the one that made {str(picture)!r}: give --model")


class _Finder:
    """Finds the files that a picture was made from.

    Parameters
    ----------
    inputs : the recorded hashes, or nothing.
    """

    def __init__(self, picture: Path, inputs: Mapping[str, Any]) -> None:
        self._picture, self._inputs = picture, inputs

    def __call__(self, name: str, place: int, recorded: str) -> Path:
        """Return the path of one of the files that an argument names."""
        hashes = _listed(self._inputs.get(name))
        expected = hashes[place] if place < len(hashes) else None
        there = self._candidates(recorded)
        for path in there:
            if expected is None or _hash(path) == expected:
                return path
        what, how = _FILES.get(name, "the first picture"), _HOW[name]
        call = f"--again {self._picture.name} {how}"
        if there:
            raise ValueError(
                f"{what} {str(there[0])!r} is not what {self._picture.name} was made from: give it, {call}"
            )
        raise ValueError(
            f"{what} {recorded!r} is neither beside {self._picture.name} nor in the present folder: give it, {call}"
        )

    def model(self, recorded: str) -> str:
        """Return the path of the model where it is a file that is found, else the name."""
        expected = self._inputs.get("model")
        found = (str(path) for path in self._candidates(recorded) if expected is None or _hash(path) == expected)
        return next(found, recorded)

    def _candidates(self, recorded: str) -> list[Path]:
        name = Path(recorded).name
        paths = [Path(recorded), self._picture.parent / name, Path(name)]
        return [path for path in dict.fromkeys(paths) if name and path.is_file()]


def _hash(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None
