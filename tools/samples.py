"""Sample pictures drawn by arithmetic alone, to try the other tools on: ``python -m tools.samples``.

A rendered photograph for the content and three paintings for the style. Whoever has cloned the project has them without
a download, and at any size.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import unknown_name
from tools.command_line import Parser, add_shared, given_path, natural_int, positive_int, run
from tools.drawing.dots import dots
from tools.drawing.fields import SMALLEST_SIDE
from tools.drawing.landscape import landscape
from tools.drawing.shapes import shapes
from tools.drawing.swirls import swirls
from tools.files import make_folder
from tools.images import check_output, save_image

NAME = "samples"

SAMPLES: dict[str, Callable[[int, int, int], npt.NDArray[np.uint8]]] = {
    "landscape": landscape,
    "swirls": swirls,
    "dots": dots,
    "shapes": shapes,
}
"""The pictures by name: functions of height, width and seed that return uint8, shape (height, width, 3)."""

DEFAULT_SIZE = 640

QUALITY = 85
"""Of the JPEG files: half the size of 95, and no difference that the eye sees."""

# Drawing takes up to 930 bytes for each pixel: 3 GB at this size.
_LARGEST_SIZE = 2048


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        prog=NAME, description="Draw sample pictures: a landscape for the content, paintings for the style."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(SAMPLES)} (default: all of them)", default=[]
    )
    parser.add_argument(
        "-o",
        "--output",
        type=given_path,
        default=Path(NAME),
        metavar="DIR",
        help=f"folder to write to (default {NAME})",
    )
    parser.add_argument(
        "-s",
        "--size",
        type=_size,
        default=DEFAULT_SIZE,
        metavar="N",
        help=f"long side of the pictures in pixels (default {DEFAULT_SIZE})",
    )
    parser.add_argument(
        "--seed",
        type=natural_int,
        default=0,
        metavar="N",
        help="of the random numbers: another one, another picture (default 0)",
    )
    add_shared(parser, threads=None, cache=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the pictures; return the exit code."""
    arguments = build_parser().parse_args(argv)
    for name in arguments.names:
        if name not in SAMPLES:
            raise ValueError(unknown_name("sample", name, SAMPLES))
    paths = {name: arguments.output / f"{name}.jpg" for name in arguments.names or SAMPLES}
    make_folder(arguments.output)
    for path in paths.values():
        check_output(path)
    width, height = arguments.size, arguments.size * 3 // 4
    for name, path in paths.items():
        save_image(path, SAMPLES[name](height, width, arguments.seed), quality=QUALITY)
        if not arguments.quiet:
            print(f"{path}: {width}x{height} pixels, {path.stat().st_size / 1000:.0f} kB")
    return 0


def _size(text: str) -> int:
    """Argument type: the long side of a picture that can be drawn."""
    value = positive_int(text)
    # The short side is three quarters of the long one.
    smallest = -(-SMALLEST_SIDE * 4 // 3)
    if not smallest <= value <= _LARGEST_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} is not from {smallest} to {_LARGEST_SIZE}")
    return value


if __name__ == "__main__":
    run(main)
