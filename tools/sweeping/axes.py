"""The two settings that a sweep goes over: ``style-layers=conv1_1..conv5_1``, ``content-weight=1e-5..1e-2``."""

from __future__ import annotations

import contextlib
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine.errors import unknown_name
from engine.objective import PAPER_STYLE_LAYERS
from engine.vgg import other_names
from tools.command_line import natural_int, positive_float
from tools.options import ARGUMENTS, layer_weights

PICTURES = ("content", "style")
"""Axes that are no options: the photograph and the painting."""

FILES = (*PICTURES, "model", "init")
"""Settings whose values are, or may be, files."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".gif", ".bmp", ".avif", ".jp2")
"""What counts as a picture in a folder."""

DECADES = ("content_weight", "style_weight", "learning_rate")
"""Options whose ranges go in steps of ten."""

MAX_RANGE = 100_000
"""Longer ranges of seeds are taken for a slip."""

FIXED = ("device",)
"""Options that change where the pictures are made, and not the pictures."""


@dataclass(frozen=True)
class Axis:
    """One setting and its values.

    Parameters
    ----------
    setting : the name of one of the ``Options``, or one of ``PICTURES``.
    values : as the option takes them; paths for ``PICTURES``.
    labels : of the values, for people.
    """

    setting: str
    values: tuple[Any, ...]
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """The setting as a person writes it."""
        return self.setting.replace("_", "-")


NO_AXIS = Axis("", (None,), ("",))
"""Of a grid with one row or one column only."""


def axis_names() -> tuple[str, ...]:
    """Return what an axis can go over."""
    options = [name.replace("_", "-") for name in ARGUMENTS if name not in FIXED]
    return (*options, *PICTURES)


def parse_axis(text: str) -> Axis:
    r"""Return the axis that ``NAME=VALUE,VALUE,...`` stands for.

    Layers of one value are joined by ``+``, and so are the weights of one blend. ``A..B`` stands for several values:
    all sets of the paper's style layers from the one up to ``A`` to the one up to ``B``, every whole number for seeds,
    steps of ten for weights and learning rates. A folder stands for its pictures. A comma in a file's name is written
    ``\,``.

    Raises ValueError for a name or a value that does not exist, for one that is given twice, and where there is none.
    """
    name, equals, listed = text.partition("=")
    name = name.strip()
    if not equals:
        raise ValueError(f"{text!r} is not NAME=VALUE,VALUE,...; NAME is one of {', '.join(axis_names())}")
    if name not in axis_names():
        raise ValueError(unknown_name("axis", name, axis_names()))
    setting = name.replace("-", "_")
    values: list[Any] = []
    labels: list[str] = []
    if setting in FILES:
        _check_commas(listed)
    for part in _split(listed):
        if not part:
            raise ValueError(f"{text!r} has an empty value" if listed.strip() else f"{text!r} has no values")
        for value, label in _values(setting, part):
            if value in values:
                raise ValueError(f"{text!r} has {label} twice")
            values.append(value)
            labels.append(label)
    return picture_axis(setting, values) if setting in PICTURES else Axis(setting, tuple(values), tuple(labels))


def picture_axis(setting: str, paths: Sequence[Path]) -> Axis:
    """Return an axis over pictures, labelled by the shortest of their names that tells them apart."""
    return Axis(setting, tuple(paths), distinct_names(paths))


def distinct_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return names for files: ``a``; else ``a.png``; else with as many of the folders as it takes: ``one/a``."""
    for parts in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        ends = [Path(*path.parts[-parts:]) for path in paths]
        for names in ([end.parent / end.stem for end in ends], ends):
            if len(set(names)) == len(names):
                return tuple(str(name) for name in names)
    return tuple(str(path) for path in paths)


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder by name; raise ValueError where there is none."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ValueError(f"{str(folder)!r} has no pictures ({', '.join(SUFFIXES)})")
    return found


def number_axis(setting: str, values: Sequence[float]) -> Axis:
    """Return an axis over numbers."""
    return Axis(setting, tuple(values), tuple(number_label(value) for value in values))


def number_label(number: float) -> str:
    """Return a number as a person writes it: ``1e-3``, ``0.25``, ``300``."""
    if number == 0 or 0.1 <= number < 10_000:
        return f"{number:g}"
    mantissa, exponent = f"{number:.5e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def style_depth_axis(first: str, last: str) -> Axis:
    """Return the axis over the sets of the paper's style layers, from that up to ``first`` to that up to ``last``."""
    # Numbers of torchvision's depend on the layers between these.
    others = {other: name for other, name in other_names(PAPER_STYLE_LAYERS, False).items() if "." not in other}
    first, last = others.get(first, first), others.get(last, last)
    for name in (first, last):
        if name not in PAPER_STYLE_LAYERS:
            raise ValueError(f"{unknown_name('style layer', name, PAPER_STYLE_LAYERS)} for a range")
    low, high = PAPER_STYLE_LAYERS.index(first), PAPER_STYLE_LAYERS.index(last)
    if low > high:
        raise ValueError(f"the range {first}..{last} is empty: {first} lies above {last}")
    sets = [PAPER_STYLE_LAYERS[: depth + 1] for depth in range(low, high + 1)]
    labels = [names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}" for names in sets]
    return Axis("style_layers", tuple({name: 1 / len(names) for name in names} for names in sets), tuple(labels))


def _split(listed: str) -> list[str]:
    """Return the parts between commas; one behind a backslash belongs to its part."""
    return [part.replace("\\,", ",").strip() for part in re.split(r"(?<!\\),", listed)]


def _check_commas(listed: str) -> None:
    """Raise ValueError where several parts together are a file's name, and the first of them alone is none."""
    parts = re.split(r"(?<!\\),", listed)
    for first, part in enumerate(parts):
        if _exists(part):
            continue
        for last in range(first + 2, len(parts) + 1):
            name = ",".join(parts[first:last])
            if _exists(name):
                written = name.strip().replace(",", "\\,")
                raise ValueError(f"the comma in the name of a file is written with a backslash, in quotes: '{written}'")


def _exists(name: str) -> bool:
    with contextlib.suppress(OSError):  # a name that is too long is none
        return Path(name.strip()).exists()
    return False


def _values(setting: str, text: str) -> list[tuple[Any, str]]:
    """Return the values, with their labels, that one part of the list stands for."""
    first, dots, last = (part.strip() for part in text.partition(".."))
    if setting in PICTURES:
        path = Path(text)
        paths = pictures_in(path) if path.is_dir() else [path]
        axis = picture_axis(setting, paths)
        return list(zip(axis.values, axis.labels, strict=True))
    if dots and setting == "style_layers":
        axis = style_depth_axis(first, last)
        return list(zip(axis.values, axis.labels, strict=True))
    if dots and setting == "seed":
        low, high = _typed(setting, natural_int, first), _typed(setting, natural_int, last)
        _check_range(low <= high <= low + MAX_RANGE, text, "whole numbers")
        return [(number, str(number)) for number in range(low, high + 1)]
    if dots and setting in DECADES:
        numbers = _decades(_typed(setting, positive_float, first), _typed(setting, positive_float, last), text)
        return [(number, number_label(number)) for number in numbers]
    if setting.endswith("_layers"):
        layers = _typed(setting, lambda listed: layer_weights(listed, "+"), text)
        default = 1.0 if setting == "content_layers" else 1 / len(layers)
        return [({name: default if given is None else given for name, given in layers.items()}, text)]
    if setting == "blend":
        return [(_typed(setting, ARGUMENTS[setting]["type"], text.replace("+", ",")), text)]
    return [(_typed(setting, ARGUMENTS[setting].get("type", str), text), text)]


def _decades(low: float, high: float, text: str) -> list[float]:
    """Return ``low``, ten times ``low`` ... up to ``high``, each as the number that a person would write."""
    _check_range(low <= high, text, "steps of ten")
    numbers = [Decimal(repr(low))]
    while numbers[-1] * 10 <= Decimal(repr(high)):
        numbers.append(numbers[-1] * 10)
    return [float(number) for number in numbers]


def _check_range(fits: bool, text: str, steps: str) -> None:
    if not fits:
        raise ValueError(f"{text!r} is no range that goes up in {steps}")


def _typed(setting: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ArgumentTypeError as error:
        raise ValueError(f"{setting.replace('_', '-')}: {error}") from None
