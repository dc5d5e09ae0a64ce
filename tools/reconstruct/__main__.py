"""What each layer knows of a picture, the paper's Figure 1: ``python -m tools.reconstruct IMAGE -o FOLDER``.

Content: from noise, an image with the same responses at one layer. Style: from noise, an image with the same Gram
matrices at a set of layers. One picture each, one sheet of all, and a table of how exact they are. What is there
already is not made again, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import unknown_name
from engine.network import Network
from engine.optimize import Result
from engine.reconstruct import content_reconstruction, feature_errors, gram_errors, psnr, texture_synthesis
from engine.stylize import first_evaluation
from tools.cli.command_line import (
    EXIT_ERROR,
    Parser,
    add_record_paths,
    add_shared,
    describe,
    given_name,
    given_path,
    run,
    tell,
)
from tools.cli.disk import check_space, picture_bytes
from tools.cli.notes import idle_options, idle_threads
from tools.cli.options import Options, add_options, argument, options_from
from tools.cli.progress import Progress, duration
from tools.cli.rendering import Room, about_tile, make_room, picture_size, remedied, tell_notes
from tools.cli.session import Bar, Facts, Listener, Session, follow, seconds_since
from tools.cli.value_lists import layer_sets, listed_values
from tools.media.files import write_text
from tools.media.images import load_image
from tools.media.picture import Picture, as_painting, resize
from tools.media.picture_files import address
from tools.media.record import origin
from tools.media.saving import save_image
from tools.media.sheet import Tile
from tools.models.cache import announce_draft, resolve_model
from tools.models.loading import about_preprocessing, load, with_model
from tools.reconstruct.folder import INITS, SHEET, TABLE, Folder, finished
from tools.reconstruct.sheet import draw
from tools.reconstruct.table import listing, measures, table
from tools.reconstruct.target import KINDS, Sets, Target, targets_of

NAME = "reconstruct"

DEFAULTS = Options(size=256, init="noise", iterations=500, levels=1, change_tolerance=0.0, deepest_every=1)
_OF_LOSSES = ("content_layers", "style_layers", "content_weight", "style_weight", "style_statistics")
_OF_SMOOTHNESS = ("variation_weight", "variation")
UNUSED = (*_OF_LOSSES, *_OF_SMOOTHNESS, "init", "style_size", "blend", "colors", "levels", "deepest_every")
GRAY = 128.0


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog=NAME,
        description="Show what each layer of a network knows of a picture: its content, its style.",
        epilog="Without --content and --style: both, at the paper's layers as far as the model has them.",
    )
    parser.add_argument("image", type=given_path, metavar="IMAGE", help="the photograph or painting")
    parser.add_argument(
        "-o", "--output", type=given_path, default=Path(NAME), metavar="DIR", help=f"folder to write (default {NAME})"
    )
    parser.add_argument(
        "--content",
        nargs="?",
        const=(),
        type=argument(functools.partial(_sets, "content")),
        metavar="LAYER,...",
        help="reconstruct from the responses at these layers, a picture each",
    )
    parser.add_argument(
        "--style",
        nargs="?",
        const=(),
        type=argument(functools.partial(_sets, "style")),
        metavar="SET,...",
        help="textures from sets of layers, a picture each; a set is conv1_1+conv2_1, and conv1_1..conv3_1 are the "
        "paper's from the first up to conv1_1 to the first up to conv3_1",
    )
    add_options(parser, DEFAULTS, UNUSED)
    parser.add_argument(
        "--init",
        type=given_name,
        default=INITS[0],
        metavar="noise|gray|FILE",
        help="picture to begin with (default noise)",
    )
    add_record_paths(parser)
    add_shared(parser)
    return parser


def _sets(kind: str, text: str) -> Sets:
    """Argument type: layers or sets of layers."""
    return tuple(layers for layers, _ in listed_values(text, text, functools.partial(layer_sets, f"{kind}_layers")))


def main(argv: Sequence[str] | None = None) -> int:
    """Make the pictures; return the exit code."""
    arguments = build_parser().parse_args(argv)
    session = Session(NAME)
    return session.run(lambda: _make(arguments, session))


def _make(arguments: argparse.Namespace, session: Session) -> int:
    options = options_from(arguments, DEFAULTS)
    image = load_image(arguments.image)
    tell_notes(NAME, [image], arguments.quiet)
    first = None
    if options.init not in INITS:
        if not Path(options.init).exists() and address(options.init) is None:
            raise ValueError(f"{unknown_name('init', options.init, INITS)}, or the path of an image file")
        first = load_image(Path(options.init))
    options = with_model(options, arguments.cache)
    model = resolve_model(str(options.model), arguments.cache)
    network = load(options, model, arguments.threads)
    targets, cut = targets_of({kind: getattr(arguments, kind) for kind in KINDS}, network)
    size = picture_size(image.size, options)
    rooms: dict[Target, Room] = {}
    for target in targets:
        with remedied("--size"):
            network.shapes(*size, target.layers)
        content, style = ((target.layers if kind == target.kind else ()) for kind in KINDS)
        of_target = dataclasses.replace(options, content_layers=content, style_layers=style)
        rooms[target] = make_room(network, of_target, size, [size] if style else [])
    folder = Folder(arguments.output, arguments.image, model, options, network, arguments.record_paths)
    folder.claim()
    check_space(arguments.output, "the pictures", 2 * len(targets) * picture_bytes(math.prod(size)))
    announce_draft(NAME, arguments.model, options.model, arguments.quiet)
    notes = [*idle_options(options, 1), *idle_threads(arguments.threads), *about_preprocessing(options, model)]
    notes += [
        *about_tile(options, image.size, size),
        *(note for room in rooms.values() for note in room.notes(options)),
    ]
    for note in dict.fromkeys(notes) if not arguments.quiet else ():
        tell(f"{NAME}: {note}")

    small = resize(image, *size)
    styled = any(target.kind == "style" for target in targets)
    painting = resize(as_painting(image, arguments.image), *size) if styled else small
    initial = None if first is None else resize(first, *size).pixels
    if options.init == "gray":
        initial = np.full_like(small.pixels, GRAY)
    pictures = _Pictures(arguments, options, network, folder, rooms, small, painting, initial, session)
    pictures.make(cut)
    return pictures.finish()


class _Pictures:
    """The pictures that were asked for, as their user sees them."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: Options,
        network: Network,
        folder: Folder,
        rooms: Mapping[Target, Room],
        image: Picture,
        painting: Picture,
        initial: NDArray[np.float32] | None,
        session: Session,
    ) -> None:
        self.arguments = arguments
        self.options = options
        self.network = network
        self.folder = folder
        self.targets, self.rooms = list(rooms), rooms
        self.image = image
        self.painting = painting
        self.initial = initial
        self.session = session
        self.failed: dict[Target, str] = {}
        self.measured = [name for name in network.layers if self._fits(name)]
        session.keep = self.stopped

    def _fits(self, layer: str) -> bool:
        try:
            self.network.shapes(*self.image.size, [layer])
        except ValueError:
            return False
        return True

    def make(self, cut: str) -> None:
        """Make what is left to make."""
        todo = [target for target in self.targets if not finished(self.folder.facts(target))]
        height, width = self.image.size
        network, there = self.network, len(self.targets) - len(todo)
        with Progress(len(todo) * self.options.iterations, "iterations", NAME, quiet=self.arguments.quiet) as progress:
            if cut:
                progress.write(f"{NAME}: {cut}")
            progress.write(
                f"{NAME}: {_count(len(self.targets))} of {width}x{height} pixels"
                f"{f', {there} of them there already' if there else ''}; model {self.options.model}, "
                f"{network.preprocessing.name} input, {self.options.pooling} pooling; {network.place}"
            )
            for note in network.notes:
                progress.write(f"{NAME}: {note}")
            for target in todo:
                self._make(target, progress)

    def _make(self, target: Target, progress: Progress) -> None:
        began = time.perf_counter()
        name = f"{target.kind} {target.label}"
        bar = Bar(progress, name)
        try:
            result, facts = self._run(target, [bar], began)
        except (ValueError, ArithmeticError) as error:
            self.failed[target] = describe(error)
            progress.write(f"{NAME}: {name}: failed: {self.failed[target]}")
            bar.complete(self.options.iterations, f"{name} failed")
            return

        def keep() -> str:
            self._keep(target, result, facts, began)
            return self.stopped()

        self.session.keep = keep
        measured = self._keep(target, result, facts, began)
        self.session.keep = self.stopped
        if result.stop == "interrupted":
            raise KeyboardInterrupt
        if result.stop == "non-finite":
            self.failed[target] = result.stop_reason
        progress.write(
            f"{NAME}: {name}: {', '.join(measures(target, measured))}; {result.stop_reason}, {result.evaluations} "
            f"evaluations, {duration(measured['seconds'])}"
        )
        bar.complete(self.options.iterations, f"{name} done")

    def _run(self, target: Target, listeners: Sequence[Listener], began: float) -> tuple[Result, Facts]:
        prepare = content_reconstruction if target.kind == "content" else texture_synthesis
        room = self.rooms[target]
        options = dataclasses.replace(self.options, history=room.options.history)
        job = prepare(
            self.network,
            self._matched(target),
            target.layers,
            options,
            self.initial,
            piece=room.pieces.size,
            keep=room.pieces.keep,
            waist=room.pieces.waist,
        )
        first_evaluation(job)
        return follow(job, listeners, began)

    def _matched(self, target: Target) -> NDArray[np.float32]:
        """Return the image to match: of style, what is seen of it."""
        return self.image.pixels if target.kind == "content" else self.painting.array

    def _keep(self, target: Target, result: Result, facts: Facts, began: float) -> Facts:
        """Measure and save a picture; return what came of it."""
        errors = feature_errors if target.kind == "content" else gram_errors
        measured: Facts = {
            "psnr": psnr(result.image, self.image.pixels) if target.kind == "content" else None,
            "errors": errors(self.network, result.image, self._matched(target), self.measured),
        }
        measured |= facts | {"seconds": seconds_since(began)}
        self.folder.save(target, result.image, measured)
        return measured

    # ---- what is made of them ----

    def stopped(self) -> str:
        """Write what there is; return what to say of a run that was interrupted."""
        return f"interrupted, {self._write()}; the same command goes on where it was"

    def finish(self) -> int:
        """Write what there is, say how it ended and return the exit code."""
        said = self._write()
        if self.failed:
            tell(f"{NAME}: {said}; the first failed for this reason: {next(iter(self.failed.values()))}")
            return EXIT_ERROR
        if not self.arguments.quiet:
            tell(f"{NAME}: {said}")
        return 0

    def _write(self) -> str:
        """Write sheet and table of all pictures in the folder, and print the listing; return how much has been made."""
        others = self.folder.others(self.targets)
        targets = self._in_order([*self.targets, *others]) if others else self.targets
        found = {target: facts for target in targets if (facts := self.folder.facts(target)) is not None}
        made = sum(finished(found.get(target)) for target in self.targets)
        said = f"{made} of {_count(len(self.targets))} made{f', {len(self.failed)} failed' if self.failed else ''}"
        if found:
            asked = {layer for target in targets for layer in target.layers}
            layers = [layer for layer in self.network.layers if layer in asked]
            write_text(self.folder.path / TABLE, table(targets, found, self.failed, layers))
            self._save_sheet(targets, found)
            said += f"; wrote {self.folder.path / SHEET} and {self.folder.path / TABLE}"
            if not self.arguments.quiet:
                print(listing(targets, found, layers))
        return said

    def _in_order(self, targets: Sequence[Target]) -> list[Target]:
        """Return targets by kind, and of each from the lowest layer to the highest, single ones before several."""
        layers = self.network.layers

        def place(target: Target) -> tuple[int, int, list[int]]:
            return KINDS.index(target.kind), len(target.layers), [layers.index(name) for name in target.layers]

        return sorted(targets, key=place)

    def _save_sheet(self, targets: Sequence[Target], found: Mapping[Target, Mapping[str, Any]]) -> None:
        height, width = self.image.size
        model, start = (Path(str(name)).stem for name in (self.options.model, self.options.init))
        pixels = draw(
            targets,
            found,
            self.failed,
            self.network.layers,
            self.folder.path,
            Tile(self.image, self.arguments.image.name),
            f"{self.arguments.image.stem} by layer: {model}, {self.options.pooling} pooling, "
            f"{width}x{height} pixels, {self.options.iterations} iterations from {start}",
        )
        save_image(self.folder.path / SHEET, pixels, None, origin(NAME, self.arguments.record_paths))


def _count(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


if __name__ == "__main__":
    run(main)
