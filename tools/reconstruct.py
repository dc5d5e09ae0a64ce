"""What each layer knows of a picture, the paper's Figure 1: ``python -m tools.reconstruct IMAGE -o FOLDER``.

Content: from noise, an image with the same responses at one layer. Style: from noise, an image with the same Gram
matrices at a set of layers. One picture each, one sheet of all, and a table of how exact they are. What is there
already is not made again, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import unknown_name
from engine.network import Network
from engine.optimize import Iteration, Result
from engine.reconstruct import content_reconstruction, feature_errors, gram_errors, psnr, texture_synthesis
from engine.stylize import first_evaluation
from tools.command_line import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    Parser,
    add_record_paths,
    add_shared,
    describe,
    given_name,
    given_path,
    run,
    tell,
)
from tools.files import replacing
from tools.images import Picture, as_painting, load_image, resize, save_image
from tools.model_cache import announce_draft, default_model, resolve_model
from tools.options import Options, add_options, argument, options_from
from tools.picture_files import address
from tools.progress import Progress, duration
from tools.reconstructing.folder import INITS, SHEET, TABLE, Folder, finished
from tools.reconstructing.sheet import draw
from tools.reconstructing.table import listing, measures, table
from tools.reconstructing.target import KINDS, Sets, Target, targets_of
from tools.record import origin
from tools.rendering import check_memory, load, picture_size, tell_notes
from tools.sheet import Tile
from tools.sweeping.axes import parse_axis

NAME = "reconstruct"

DEFAULTS = Options(size=256, init="noise", iterations=500, levels=1)
_OF_LOSSES = ("content_layers", "style_layers", "content_weight", "style_weight")
UNUSED = (*_OF_LOSSES, "init", "style_size", "blend", "colors", "levels")
GREY = 128.0


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
        metavar="noise|grey|FILE",
        help="picture to begin with (default noise)",
    )
    add_record_paths(parser)
    add_shared(parser)
    return parser


def _sets(kind: str, text: str) -> Sets:
    """Argument type: layers or sets of layers."""
    prefix = f"{kind}-layers="
    try:
        return parse_axis(prefix + text).values
    except ValueError as error:
        raise ValueError(str(error).replace(prefix, "")) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Make the pictures; return the exit code."""
    arguments = build_parser().parse_args(argv)
    options = options_from(arguments, DEFAULTS)
    image = load_image(arguments.image)
    tell_notes(NAME, [image], arguments.quiet)
    first = None
    if options.init not in INITS:
        if not Path(options.init).exists() and address(options.init) is None:
            raise ValueError(f"{unknown_name('init', options.init, INITS)}, or the path of an image file")
        first = load_image(Path(options.init))
    if options.model is None:
        options = dataclasses.replace(options, model=default_model(arguments.cache))
    model = resolve_model(str(options.model), arguments.cache)
    network = load(options, model, arguments.threads)
    targets, cut = targets_of({kind: getattr(arguments, kind) for kind in KINDS}, network)
    size = picture_size(image.size, options)
    for target in targets:
        network.shapes(*size, target.layers)
        content, style = ((target.layers if kind == target.kind else ()) for kind in KINDS)
        check_memory(network, dataclasses.replace(options, content_layers=content, style_layers=style), size, [])
    folder = Folder(arguments.output, arguments.image, model, options, network, arguments.record_paths)
    folder.claim()
    announce_draft(NAME, arguments.model, options.model, arguments.quiet)

    small = resize(image, *size)
    styled = any(target.kind == "style" for target in targets)
    painting = resize(as_painting(image, arguments.image), *size) if styled else small
    initial = None if first is None else resize(first, *size).pixels
    if options.init == "grey":
        initial = np.full_like(small.pixels, GREY)
    session = _Session(arguments, options, network, folder, targets, small, painting, initial)
    interrupted = session.make(cut)
    return session.finish(interrupted)


class _Session:
    """A run as its user sees it."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: Options,
        network: Network,
        folder: Folder,
        targets: Sequence[Target],
        image: Picture,
        painting: Picture,
        initial: NDArray[np.float32] | None,
    ) -> None:
        self.arguments = arguments
        self.options = options
        self.network = network
        self.folder = folder
        self.targets = targets
        self.image = image
        self.painting = painting
        self.initial = initial
        self.failed: dict[Target, str] = {}
        self.measured = [name for name in network.layers if self._fits(name)]

    def _fits(self, layer: str) -> bool:
        try:
            self.network.shapes(*self.image.size, [layer])
        except ValueError:
            return False
        return True

    def make(self, cut: str) -> bool:
        """Make what is left to make; return whether that was interrupted."""
        todo = [target for target in self.targets if not finished(self.folder.facts(target))]
        height, width = self.image.size
        network, there = self.network, len(self.targets) - len(todo)
        with Progress(len(todo) * self.options.iterations, "iterations", NAME, quiet=self.arguments.quiet) as progress:
            if cut:
                progress.write(f"{NAME}: {cut}")
            progress.write(
                f"{NAME}: {_pictures(len(self.targets))} of {width}x{height} pixels"
                f"{f', {there} of them there already' if there else ''}; model {self.options.model}, "
                f"{network.preprocessing.name} input, {self.options.pooling} pooling; {network.place}"
            )
            try:
                for target in todo:
                    self._make(target, progress)
            except KeyboardInterrupt:
                return True
        return False

    def _make(self, target: Target, progress: Progress) -> None:
        began = time.perf_counter()
        name = f"{target.kind} {target.label}"
        followed = 0

        def follow(state: Iteration) -> None:
            nonlocal followed
            followed += 1
            progress.update(1, f"{name}, loss {state.value:.4g}")

        try:
            result = self._run(target, follow)
        except (ValueError, ArithmeticError) as error:
            self.failed[target] = describe(error)
            progress.write(f"{NAME}: {name}: failed: {self.failed[target]}")
            progress.update(self.options.iterations - followed, f"{name} failed")
            return
        if result.stop == "interrupted" and not result.iterations:
            raise KeyboardInterrupt
        try:
            facts = self._keep(target, result, began)
        except KeyboardInterrupt:
            self._keep(target, result, began)  # what has been made is not lost; a second Ctrl-C does end this
            raise
        if result.stop == "interrupted":
            raise KeyboardInterrupt
        if result.stop == "non-finite":
            self.failed[target] = result.stop_reason
        progress.write(
            f"{NAME}: {name}: {', '.join(measures(target, facts))}; {result.stop_reason}, {result.evaluations} "
            f"evaluations, {duration(facts['seconds'])}"
        )
        progress.update(self.options.iterations - followed, f"{name} done")

    def _run(self, target: Target, follow: Callable[[Iteration], None]) -> Result:
        prepare = content_reconstruction if target.kind == "content" else texture_synthesis
        job = prepare(self.network, self._matched(target), target.layers, self.options, self.initial)
        first_evaluation(job)
        return job.run(follow)

    def _matched(self, target: Target) -> NDArray[np.float32]:
        """Return the image to match: of style, what is seen of it."""
        return self.image.pixels if target.kind == "content" else self.painting.array

    def _keep(self, target: Target, result: Result, began: float) -> dict[str, Any]:
        """Measure and save a picture; return what came of it."""
        errors = feature_errors if target.kind == "content" else gram_errors
        facts = {
            "psnr": psnr(result.image, self.image.pixels) if target.kind == "content" else None,
            "errors": errors(self.network, result.image, self._matched(target), self.measured),
            "loss": result.value,
            "initial_loss": result.initial_value,
            "iterations": result.iterations,
            "evaluations": result.evaluations,
            "stop": result.stop,
            "stop_reason": result.stop_reason,
            "seconds": round(time.perf_counter() - began, 3),
        }
        self.folder.save(target, result.image, facts)
        return facts

    # ---- what is made of them ----

    def finish(self, interrupted: bool) -> int:
        """Write sheet and table, say how it ended and return the exit code."""
        found = {target: facts for target in self.targets if (facts := self.folder.facts(target)) is not None}
        made = sum(finished(facts) for facts in found.values())
        said = f"{made} of {_pictures(len(self.targets))} made{f', {len(self.failed)} failed' if self.failed else ''}"
        if found or self.failed:
            asked = {layer for target in self.targets for layer in target.layers}
            layers = [layer for layer in self.network.layers if layer in asked]
            with replacing(self.folder.path / TABLE) as temporary:
                temporary.write_text(table(self.targets, found, self.failed, layers), "utf-8")
            self._save_sheet(found)
            said += f"; wrote {self.folder.path / SHEET} and {self.folder.path / TABLE}"
            if not self.arguments.quiet:
                print(listing(self.targets, found, layers))
        if interrupted:
            tell(f"{NAME}: interrupted, {said}; the same command goes on where it was")
            return EXIT_INTERRUPTED
        if self.failed:
            tell(f"{NAME}: {said}; the first failed for this reason: {next(iter(self.failed.values()))}")
            return EXIT_ERROR
        if not self.arguments.quiet:
            tell(f"{NAME}: {said}")
        return 0

    def _save_sheet(self, found: Mapping[Target, Mapping[str, Any]]) -> None:
        height, width = self.image.size
        model, start = (Path(str(name)).stem for name in (self.options.model, self.options.init))
        pixels = draw(
            self.targets,
            found,
            self.failed,
            self.network.layers,
            self.folder.path,
            Tile(self.image, self.arguments.image.name),
            f"{self.arguments.image.stem} by layer: {model}, {self.options.pooling} pooling, "
            f"{width}x{height} pixels, {self.options.iterations} iterations from {start}",
        )
        save_image(self.folder.path / SHEET, pixels, None, origin("reconstruct", self.arguments.record_paths))


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


if __name__ == "__main__":
    run(main)
