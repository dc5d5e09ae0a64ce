"""A page on this machine where pictures are made and steered: ``python -m tools.studio``."""

from __future__ import annotations

import argparse
import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path

from tools.cli.command_line import EXIT_INTERRUPTED, Parser, add_shared, given_name, given_path, natural_int, run, tell
from tools.media.files import exclusive
from tools.studio.networks import Networks
from tools.studio.queue import Bell, Queue
from tools.studio.server import Site, bottle_module, server_on
from tools.studio.shelf import Shelf

NAME = "studio"


MOST_PORTS = 65535


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog=NAME, description="Make and steer pictures on a page in the browser, on this machine.")
    parser.add_argument(
        "-m",
        "--model",
        type=given_name,
        metavar="NAME|FILE",
        help="the network to use first: vgg19, vgg16, draft or a weight file (default vgg19 if fetched, else draft)",
    )
    parser.add_argument(
        "--folder",
        type=given_path,
        default=Path("studio"),
        metavar="DIR",
        help="where photographs, paintings and pictures are kept (default studio)",
    )
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="of the page (default: any free one)")
    add_shared(parser)
    return parser


def _port(text: str) -> int:
    port = natural_int(text)
    if port > MOST_PORTS:
        raise argparse.ArgumentTypeError(f"{port} is no port, expected at most {MOST_PORTS}")
    return port


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    arguments = build_parser().parse_args(argv)

    def say(line: str) -> None:
        if not arguments.quiet:
            tell(f"{NAME}: {line}")

    # What may be missing or taken, before a folder is made.
    bottle_module()
    networks = Networks(arguments.model, arguments.cache, arguments.threads)
    with server_on(arguments.port) as server:
        shelf, bell = Shelf(arguments.folder), Bell()
        queue = Queue(shelf, networks, bell, say)
        site = Site(shelf, networks, queue, bell, server.server_port, secrets.token_urlsafe(24))
        server.set_app(site.app)
        with exclusive(shelf.folder / ".lock", f"another studio on {str(arguments.folder)!r}"):
            queue.open()
            tell(f"{NAME}: open {site.address}")
            say(f"pictures are kept in {arguments.folder}; Ctrl-C ends it")
            try:
                with contextlib.suppress(KeyboardInterrupt):
                    server.serve_forever()
            finally:
                site.closing.set()
                bell.ring()
                server.server_close()
                if queue.current is not None:
                    say("keeping the picture in hand as soon as its evaluation ends; Ctrl-C again gives it up")
                queue.close()
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    run(main)
