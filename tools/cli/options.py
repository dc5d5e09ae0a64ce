"""What a picture depends on beside its input files: the settings, as the command line takes them."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.device import DEVICES
from engine.errors import unknown_name
from engine.layers import listed_name
from engine.load import POOLINGS
from engine.multiscale import SMALLEST_LEVEL, USUAL_LEVELS, usual_levels
from engine.optimize import MAX_HISTORY, METHODS
from engine.pieces import EDGES
from engine.preprocessing import PREPROCESSING
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STATISTICS, PAPER_STYLE_LAYERS, checked_statistics
from engine.stylize import INITS, VARIATIONS, Settings
from engine.vgg import PAPER_CONTENT_WEIGHT
from tools.cli.command_line import Parser, describe, given_name, natural_int, positive_float, positive_int, weight
from tools.cli.progress import counted

MAX_LEVELS = 12
"""Of the largest picture that is read, the smallest level has a few pixels."""

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}

OF_PICTURE = "picture"
"""``style_size`` of paintings that get the height and the width of the picture."""

TILED = "wrap"
"""``edges`` of a picture that is laid beside itself."""

LUMINANCE = "luminance"
"""``colors`` of which only the luminance takes part in the style."""

COLORS = {
    "painting": None,
    "photograph": "optimal",
    "principal": "principal",
    "cholesky": "cholesky",
    "histogram": "histogram",
    LUMINANCE: None,
}
"""What a painting's colors are made: its own, or by one of ``engine.color.METHODS`` the photograph's."""

PRECISIONS = ("float32", "float64", "float16", "tf32")
"""What a picture may be computed in; the last two on a GPU only."""


@dataclass(frozen=True)
class Options(Settings):
    """The engine's settings, the network and the sizes."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "vgg19, vgg16, draft (small, comes with the program) or the path of a weight file: ONNX, .pth, "
            ".safetensors, .h5, .caffemodel, .mat (default vgg19 where it has been fetched, else draft)"
        },
    )
    pooling: str = field(
        default="average", metadata={"help": "average replaces the model's max pooling, max the opposite"}
    )
    preprocessing: str | None = field(
        default=None, metadata={"help": "what the model takes as input, where the model itself does not tell"}
    )
    size: int = field(default=512, metadata={"help": "long side of the picture in pixels"})
    style_size: int | str | None = field(
        default=None,
        metadata={
            "help": "long side of the painting in pixels, by default the picture's; picture gives it the picture's "
            "height and width, as in the paper"
        },
    )
    blend: tuple[float, ...] | None = field(
        default=None, metadata={"help": "weights of several paintings, one each: 2,1 (default: equal)"}
    )
    colors: str = field(
        default="painting",
        metadata={
            "help": "photograph gives the painting the photograph's colors beforehand, as do principal, cholesky and "
            "histogram by other maps; luminance leaves the photograph its own colors"
        },
    )
    levels: int | None = field(
        default=None,
        metadata={
            "help": "sizes: first a small picture, then one twice as large begun with it, and so on, -n each time "
            f"(default: as many as begin with {SMALLEST_LEVEL} pixels or more, at most {USUAL_LEVELS})"
        },
    )
    device: str = field(default="auto", metadata={"help": "where to compute"})
    memory: int | None = field(
        default=None,
        metadata={
            "help": "bytes that the program may take, such as 4G or 800M; a picture that would take more is computed "
            "in pieces, with the same result; sliced styles cannot be (default: what is free)"
        },
    )
    dtype: str = field(default="float32", metadata={"help": "precision of the network; float16 and tf32 need a GPU"})


PAPER: dict[str, Any] = {
    "init": "noise",
    "optimizer": "l-bfgs-b",
    "iterations": 500,
    "change_tolerance": 0.0,
    "levels": 1,
    "style_size": OF_PICTURE,
    "content_weight": PAPER_CONTENT_WEIGHT,
    "style_weight": 1.0,
    "content_layers": PAPER_CONTENT_LAYERS,
    "style_layers": PAPER_STYLE_LAYERS,
    "style_statistics": PAPER_STATISTICS,
    "pooling": "average",
    "colors": "painting",
}
"""What ``--paper`` means: the options as the paper has them; of the number of iterations it says nothing."""


FIRST_DRAFT = "draft"
"""To begin with the draft network's picture: what ``stylize`` takes besides ``INITS``."""

STARTS = (*INITS, FIRST_DRAFT)
"""What a picture of ``stylize`` can begin with, besides a file."""


def levels_of(options: Options) -> int:
    """Return the number of sizes: what was asked for, else what suits the picture's size."""
    return usual_levels(options.size) if options.levels is None else options.levels


def layer_weights(text: str, separator: str = ",") -> dict[str, float | None]:
    """Return ``conv1_1,conv2_1:2`` as names with their weight, None where none is given.

    Raises ValueError for a name that is empty or given twice, argparse.ArgumentTypeError for a weight that is none.
    """
    layers: dict[str, float | None] = {}
    for part in text.split(separator):
        # A name may have colons itself: the last one counts, and whether it does, the model's layers tell later.
        name, colon, number = part.strip().rpartition(":")
        name = name if colon else number
        if not name:
            raise ValueError(f"{text!r} has an empty layer name")
        if name in layers:
            raise ValueError(f"{name!r} is named twice")
        layers[name] = weight(number) if colon else None
    return layers


def style_statistics(text: str, separator: str = ",") -> dict[str, float]:
    """Return ``gram,means:0.5`` as statistics with their weights, 1 where none is given.

    Raises ValueError for what is none of the statistics, argparse.ArgumentTypeError for a weight that is none.
    """
    other = {",": "+", "+": ","}[separator]
    statistics: dict[str, float] = {}
    for part in text.split(separator):
        name, colon, number = (piece.strip() for piece in part.partition(":"))
        if name in statistics:
            raise ValueError(f"{name!r} is named twice")
        if other in name:
            raise ValueError(f"several statistics are separated by {separator!r} here, not by {other!r}: {text!r}")
        statistics[name] = weight(number) if colon else 1.0
    return checked_statistics(statistics)


def layers_called(layers: Any, outputs: Mapping[str, str], default: float) -> Any:
    """Return layers as a network lists them: by their own names, and those with a colon told from their weights.

    Parameters
    ----------
    layers : names, or ``{name: weight}``: of ``Relu:0`` that is a layer ``Relu`` and a weight of 0, unless the network
        has a layer ``Relu:0``.
    outputs : of the network.
    default : the weight of a layer of which none was given.

    Raises ValueError where two names stand for one layer.
    """
    if not isinstance(layers, Mapping):
        return tuple(listed_name(outputs, name) for name in ([layers] if isinstance(layers, str) else layers))
    found: dict[str, float] = {}
    for name, given in layers.items():
        whole = f"{name}:{given:g}"
        is_whole = whole in outputs and name not in outputs
        called = listed_name(outputs, whole if is_whole else name)
        if called in found:
            raise ValueError(f"{called!r} is named twice")
        found[called] = default if is_whole else given
    return found


def network_part(options: Options) -> Options:
    """Return the options with everything at its default that the network does not depend on."""
    names = ("model", "pooling", "preprocessing", "device", "dtype")
    return Options(**{name: getattr(options, name) for name in names})


def with_layer_weights(options: Options) -> Options:
    """Fill in the weights that the command line left open: 1 for content, 1 / (number of layers) for style."""

    def filled(layers: Any, default: float) -> Any:
        if not isinstance(layers, dict):
            return layers
        return {name: default if given is None else given for name, given in layers.items()}

    count = len(list(options.style_layers))
    return dataclasses.replace(
        options,
        content_layers=filled(options.content_layers, 1.0),
        style_layers=filled(options.style_layers, 1.0 / count),
    )


# ---- on the command line ----


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return an argparse type whose ValueError messages reach the user."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(describe(error)) from None

    return parsed


def choice(kind: str, choices: Iterable[str]) -> Callable[[str], str]:
    """Return an argparse type for one of ``choices``, with the nearest one named when there is none."""
    known = tuple(choices)

    def choose(text: str) -> str:
        if text not in known:
            raise ValueError(unknown_name(kind, text, known))
        return text

    return argument(choose)


def _weights(text: str) -> tuple[float, ...]:
    return tuple(weight(part.strip()) for part in text.split(","))


def _style_size(text: str) -> int | str:
    if text == OF_PICTURE:
        return text
    try:
        return positive_int(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor {OF_PICTURE}") from None


def memory_size(text: str) -> int:
    """Return ``4G``, ``800M`` or ``1.5GB`` in bytes, in powers of 1000; raises ValueError for what is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip(), re.IGNORECASE)
    size = float(match[1]) * _UNITS[match[2].lower()] if match else 0
    if not 1 <= size < 1e18:
        raise ValueError(f"{text!r} is no amount of memory such as 4G or 800M")
    return int(size)


def _levels(text: str) -> int:
    levels = positive_int(text)
    if levels > MAX_LEVELS:
        raise argparse.ArgumentTypeError(f"{levels} is more than {MAX_LEVELS}")
    return levels


ARGUMENTS: dict[str, dict[str, Any]] = {
    "model": {"flags": ["-m"], "metavar": "NAME|FILE"},
    "size": {"flags": ["-s"], "type": positive_int, "metavar": "N"},
    "iterations": {"flags": ["-n"], "type": positive_int, "metavar": "N"},
    "change_tolerance": {"type": weight, "metavar": "GRAY"},
    "content_weight": {"flags": ["-a"], "type": weight, "metavar": "ALPHA"},
    "style_weight": {"flags": ["-b"], "type": weight, "metavar": "BETA"},
    "style_statistics": {"type": argument(style_statistics), "metavar": "NAME[:WEIGHT],..."},
    "variation_weight": {"type": weight, "metavar": "WEIGHT"},
    "variation": {"type": choice("variation", VARIATIONS), "metavar": "|".join(VARIATIONS)},
    "content_layers": {"type": argument(layer_weights), "metavar": "LAYER[:WEIGHT],..."},
    "style_layers": {"type": argument(layer_weights), "metavar": "LAYER[:WEIGHT],..."},
    "edges": {"type": choice("edges", EDGES), "metavar": "|".join(EDGES)},
    "init": {"type": given_name, "metavar": "content|noise|style|FILE"},
    "seed": {"type": natural_int, "metavar": "N"},
    "pooling": {"type": choice("pooling", POOLINGS), "metavar": "|".join(POOLINGS)},
    "optimizer": {"type": choice("optimizer", METHODS), "metavar": "|".join(METHODS)},
    "learning_rate": {"type": positive_float, "metavar": "X"},
    "history": {"type": positive_int, "metavar": "N"},
    "deepest_every": {"type": positive_int, "metavar": "N"},
    "style_size": {"type": _style_size, "metavar": "N|picture"},
    "blend": {"type": argument(_weights), "metavar": "W,W,..."},
    "colors": {"type": choice("colors", COLORS), "metavar": "|".join(COLORS)},
    "levels": {"type": _levels, "metavar": "N"},
    "preprocessing": {"type": choice("preprocessing", PREPROCESSING), "metavar": "|".join(PREPROCESSING)},
    "device": {"type": choice("device", DEVICES), "metavar": "|".join(DEVICES)},
    "memory": {"type": argument(memory_size), "metavar": "SIZE"},
    "dtype": {"type": choice("dtype", PRECISIONS), "metavar": "|".join(PRECISIONS)},
}
"""How the command line takes each of the ``Options``: further flags, type and metavar, in the order of the help."""


def add_paper(parser: Parser) -> None:
    """Add ``--paper``; ``parsed`` gives it its meaning."""
    parser.add_argument(
        "--paper",
        action="store_true",
        help="the paper's settings: from white noise, scipy's L-BFGS-B, one size, the painting resized to the "
        f"photograph, alpha {PAPER_CONTENT_WEIGHT:g}; other options count beside it",
    )


def parsed(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return what was given on the command line; with ``--paper``, the rest has the paper's values."""
    arguments = parser.parse_args(argv)
    if arguments.paper:
        parser.set_defaults(**PAPER)
        arguments = parser.parse_args(argv)
    return arguments


def add_options(parser: Parser, defaults: Options = Options(), leave_out: Container[str] = ()) -> None:
    """Add the options to a parser; names and help come from ``Options``."""
    fields = {item.name: item for item in dataclasses.fields(Options)}
    for name, keywords in ARGUMENTS.items():
        if name in leave_out:
            continue
        default = getattr(defaults, name)
        shown = ",".join(default) if isinstance(default, tuple) else default
        told = fields[name].metadata["help"]
        if default is not None:  # a tool's own default in place of what there is without one
            told = f"{told.partition(' (default')[0]} (default {shown})"
        flags = [*keywords.get("flags", []), "--" + name.replace("_", "-")]
        rest = {key: value for key, value in keywords.items() if key != "flags"}
        place: Any = parser.add_mutually_exclusive_group() if name == "edges" else parser
        place.add_argument(*flags, default=default, help=told, **rest)
        if name == "edges":
            place.add_argument(
                "--tile",
                action="store_const",
                const=TILED,
                default=default,
                dest="edges",
                help="make a texture that can be laid beside itself without a seam, or a picture of a photograph "
                "that can: the same as --edges wrap",
            )


def options_from(arguments: argparse.Namespace, defaults: Options = Options()) -> Options:
    """Return the options that were given on the command line, with the number of sizes filled in.

    Parameters
    ----------
    defaults : of the options that the tool does not take.

    Raises ValueError for a history that is too long.
    """
    given = {item.name: getattr(arguments, item.name) for item in dataclasses.fields(Options) if item.name in arguments}
    options = with_layer_weights(dataclasses.replace(defaults, **given))
    options = dataclasses.replace(options, levels=levels_of(options))
    check_history(options)
    return options


def check_history(options: Options) -> None:
    """Raise ValueError for more corrections than are of use."""
    if options.history is not None and options.history > MAX_HISTORY:
        raise ValueError(f"--history must be at most {MAX_HISTORY}, got {options.history}")


def check_blend(options: Options, paintings: int) -> None:
    """Raise ValueError unless there is one weight for each painting, or none at all."""
    if options.blend is not None and len(options.blend) != paintings:
        count = "one painting" if paintings == 1 else f"{paintings} paintings"
        raise ValueError(f"--blend has {counted(len(options.blend), 'weight')} for {count}")
