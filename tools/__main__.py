"""All tools under one name: ``neural-style-by-hand TOOL ...``, or ``python -m tools TOOL ...``.

Where a folder called ``tools`` lies in the current one, ``python -m tools.stylize`` would run that instead.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import NoReturn

from tools.cli.command_line import Parser, run
from tools.media.record import PROJECT

TOOLS = {
    "stylize": "render a content image in the style of another",
    "sweep": "pictures over a grid of two settings, side by side",
    "studio": "a page where pictures are made and steered",
    "reconstruct": "what each layer knows of a picture",
    "models": "fetch, convert and inspect networks",
    "draft": "make the draft network, judge networks",
    "check-gradients": "check every gradient of a network",
    "bench": "measure speed and memory",
}


def main() -> NoReturn:
    """Run the tool that was named, and leave with its exit code."""
    parser = Parser(
        prog=PROJECT,
        description="Neural style by hand.",
        epilog="\n".join(f"  {name:<17}{text}" for name, text in TOOLS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tool", choices=list(TOOLS), metavar="TOOL", help="one of those below; TOOL --help tells more")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="the tool's own")
    given = parser.parse_args()
    name = given.tool.replace("-", "_")
    sys.argv = [name, *given.arguments]  # a picture records how its tool was called
    run(importlib.import_module(f"tools.{name}.__main__").main)


if __name__ == "__main__":
    main()
