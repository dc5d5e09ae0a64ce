"""What each layer knows of a picture, the paper's Figure 1: ``python -m tools.reconstruct IMAGE -o FOLDER``.

Content: from noise, an image with the same responses at one layer. Style: from noise, an image with the same Gram
matrices at a set of layers. One picture each, one sheet of all, and a table of how exact they are. What is there
already is not made again, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import json
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import unknown_name
from engine.network import Network
from engine.objective import PAPER_STYLE_LAYERS
from engine.optimize import Iteration, Result
from engine.reconstruct import content_reconstruction, feature_errors, gram_errors, psnr, texture_synthesis
from tools.command_line import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    Parser,
    describe,
    given_name,
    given_path,
    run,
    tell,
    thread_count,
)
from tools.files import check_folder, check_writable, make_folder, replacing, sha256_of
from tools.images import Picture, load_image, read_text, resize, save_image
from tools.model_cache import announce_draft, default_model, resolve_model
from tools.options import Options, add_options, argument, options_from
from tools.progress import Progress, duration
from tools.record import PROJECT, versions
from tools.rendering import check_memory, first_evaluation, load, picture_size
from tools.sheet import Tile, draw_sheet
from tools.sweeping.axes import parse_axis
from tools.text_table import aligned

NAME = "reconstruct"

PAPER_LAYERS = PAPER_STYLE_LAYERS
"""The layers of Figure 1, a to e, for content and for style."""

DEFAULTS = Options(size=256, optimizer="l-bfgs")
_OF_LOSSES = ("content_layers", "style_layers", "content_weight", "style_weight")
UNUSED = (*_OF_LOSSES, "init", "style_size", "blend", "colors", "levels")
RECORDED = ("pooling", "size", "dtype", "optimizer", "learning_rate", "history", "iterations", "seed", "init")
"""The options that a picture depends on; model and image files count by what is in them."""

KINDS = ("content", "style")
INITS = ("noise", "grey")
GREY = 128.0
SHEET, TABLE = "sheet.png", "table.csv"

Sets = tuple[Mapping[str, float], ...]


@dataclass(frozen=True, eq=False)
class Target:
    """What one picture is to match.

    Parameters
    ----------
    kind : one of ``KINDS``.
    layers : with their weights.
    """

    kind: str
    layers: Mapping[str, float]

    @property
    def label(self) -> str:
        """The layers as a person writes them; the paper's sets by their ends."""
        names = tuple(self.layers)
        even = self.layers == _even(self.kind, names)
        if even and len(names) > 1 and names == PAPER_LAYERS[: len(names)]:
            return f"{names[0]} to {names[-1]}"
        return "+".join(name if even else f"{name}:{weight:g}" for name, weight in self.layers.items())

    @property
    def file(self) -> str:
        """The picture's file name."""
        even = self.layers == _even(self.kind, tuple(self.layers))
        parts = [name if even else f"{name}={weight:g}" for name, weight in self.layers.items()]
        name = re.sub(r"[^\w.+=-]", "-", "+".join(parts))
        if len(name) > 150:  # file systems end at 255 bytes
            name = f"{name[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return f"{self.kind}-{name}.png"


# ---- the command line ----


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
    parser.add_argument("--threads", type=thread_count, metavar="N", help="threads to use (default: all cores)")
    parser.add_argument("--cache", type=given_path, metavar="DIR", help="folder of the fetched models")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
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
    options = options_from(arguments)
    image = load_image(arguments.image)
    first = None
    if options.init not in INITS:
        if not Path(options.init).exists():
            raise ValueError(f"{unknown_name('init', options.init, INITS)}, or the path of an image file")
        first = load_image(Path(options.init))
    if options.model is None:
        options = dataclasses.replace(options, model=default_model(arguments.cache))
    model = resolve_model(str(options.model), arguments.cache)
    network = load(options, model, arguments.threads)
    targets, cut = _targets(arguments, network)
    size = picture_size(image.size, options)
    for target in targets:
        network.shapes(*size, target.layers)
        content, style = ((target.layers if kind == target.kind else ()) for kind in KINDS)
        check_memory(network, dataclasses.replace(options, content_layers=content, style_layers=style), size, [])
    folder = _Folder(arguments, options, network, model)
    folder.claim()
    announce_draft(NAME, arguments.model, options.model, arguments.quiet)

    small = resize(image, *size)
    initial = None if first is None else resize(first, *size).pixels
    if options.init == "grey":
        initial = np.full_like(small.pixels, GREY)
    session = _Session(arguments, options, network, folder, targets, small, initial)
    interrupted = session.make(cut)
    return session.finish(interrupted)


def _targets(arguments: argparse.Namespace, network: Network) -> tuple[list[Target], str]:
    """Return what to make, and what to say where the model does not have all of the paper's layers."""
    known = tuple(name for name in PAPER_LAYERS if name in network.layers)
    asked: dict[str, Sets | None] = {kind: getattr(arguments, kind) for kind in KINDS}
    if all(sets is None for sets in asked.values()):
        asked = dict.fromkeys(KINDS, ())
    targets, cut = [], ""
    for kind, sets in asked.items():
        if sets == ():
            if not known:
                raise ValueError(
                    f"the model has none of the paper's layers ({', '.join(PAPER_LAYERS)}), it has "
                    f"{', '.join(network.layers)}: name some with --content or --style"
                )
            missing = [name for name in PAPER_LAYERS if name not in known]
            cut = f"the model does not have {', '.join(missing)}: left out" if missing else ""
            depths = range(len(known))
            names = [known[depth : depth + 1] if kind == "content" else known[: depth + 1] for depth in depths]
            sets = tuple(_even(kind, layers) for layers in names)
        targets += [Target(kind, layers) for layers in sets or ()]
    for target in targets:
        network.checked(target.layers)
    if len({target.file for target in targets}) < len(targets):
        raise ValueError("two of the sets would have the same file: their weights are too near to each other")
    return targets, cut


def _even(kind: str, layers: Sequence[str]) -> dict[str, float]:
    """Return the weights that layers have where none are given."""
    return dict.fromkeys(layers, 1.0 if kind == "content" else 1 / len(layers))


# ---- the folder ----


class _Folder:
    """Where the pictures are kept; each tells in its own text what it was made of."""

    def __init__(self, arguments: argparse.Namespace, options: Options, network: Network, model: Path) -> None:
        self.path: Path = arguments.output
        inputs = {"image": arguments.image, "model": model}
        if options.init not in INITS:
            inputs["init"] = Path(options.init)
        self._names = {part: str(path) for part, path in inputs.items()}
        self.shared: dict[str, Any] = {name: getattr(options, name) for name in RECORDED}
        self.shared |= {
            "init": "file" if "init" in inputs else options.init,
            "preprocessing": network.preprocessing.name,
            "files": {part: sha256_of(path) for part, path in inputs.items()},
        }
        check_folder(self.path)
        for name in (SHEET, TABLE):
            for path in inputs.values():
                if (self.path / name).exists() and (self.path / name).samefile(path):
                    raise ValueError(f"{str(path)!r} is an input, it would be overwritten: give another --output")
        self._check_same()

    def claim(self) -> None:
        """Make the folder."""
        make_folder(self.path)
        check_writable(self.path / TABLE)

    def settings(self, target: Target) -> dict[str, Any]:
        """Return everything that a picture depends on, as JSON knows it."""
        return {"kind": target.kind, "layers": dict(target.layers), **self.shared}

    def facts(self, target: Target) -> dict[str, Any] | None:
        """Return what came of a picture that is there, finished or not; None where there is none."""
        text = _texts(self.path / target.file)
        if text is None or text.get("Settings") != self.settings(target):
            return None
        facts: dict[str, Any] = text.get("Result", {})
        return facts if {"stop", "psnr", "errors"} <= facts.keys() else None

    def save(self, target: Target, image: NDArray[np.float64], facts: Mapping[str, Any]) -> None:
        """Keep a picture with what came of it."""
        text = {
            "Software": PROJECT,
            "Command": shlex.join(["python", "-m", "tools.reconstruct", *sys.argv[1:]]),
            "Settings": json.dumps(self.settings(target)),
            "Names": json.dumps(self._names),
            "Versions": json.dumps(versions()),
            "Result": json.dumps(facts),
        }
        save_image(self.path / target.file, image, None, text)

    def _check_same(self) -> None:
        """Raise ValueError where the folder holds anything but pictures of the same image and settings."""
        pictures = sorted(path for kind in KINDS for path in self.path.glob(f"{kind}-*.png"))
        for path in pictures:
            text = _texts(path)
            if text is None or not isinstance(text.get("Settings"), dict):
                raise ValueError(f"{str(path)!r} was not made by this tool: give another --output")
            found, problem = text["Settings"], f"{str(self.path)!r} holds reconstructions"
            files, names = found.get("files", {}), text.get("Names") or {}
            for part, sha256 in self.shared["files"].items():
                if files.get(part) != sha256:
                    what = {"image": "of another image", "model": "by another model"}.get(part, "from another start")
                    named = f" ({names[part]})" if part in names else ""
                    raise ValueError(f"{problem} {what}{named}: give another --output")
            for name, value in self.shared.items():
                if found.get(name) != value:
                    raise ValueError(
                        f"{problem} with other settings ({name.replace('_', '-')} {found.get(name)} there, {value} "
                        "here): give another --output"
                    )
        for name in (SHEET, TABLE):
            if not pictures and (self.path / name).exists():
                raise ValueError(f"{str(self.path / name)!r} is there already, of other origin: give another --output")


def _texts(path: Path) -> dict[str, Any] | None:
    """Return what a picture says of itself, or None where there is none that can be read."""
    with contextlib.suppress(ValueError):
        text = read_text(path)
        found = {name: json.loads(text[name]) for name in ("Settings", "Names", "Result") if name in text}
        return {name: value for name, value in found.items() if isinstance(value, dict)}
    return None


def _finished(facts: Mapping[str, Any] | None) -> bool:
    return facts is not None and facts["stop"] not in ("interrupted", "non-finite")


# ---- the pictures ----


class _Session:
    """A run as its user sees it."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: Options,
        network: Network,
        folder: _Folder,
        targets: Sequence[Target],
        image: Picture,
        initial: NDArray[np.float32] | None,
    ) -> None:
        self.arguments = arguments
        self.options = options
        self.network = network
        self.folder = folder
        self.targets = targets
        self.image = image
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
        todo = [target for target in self.targets if not _finished(self.folder.facts(target))]
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
            f"{NAME}: {name}: {', '.join(_measures(target, facts))}; {result.stop_reason}, {result.evaluations} "
            f"evaluations, {duration(facts['seconds'])}"
        )
        progress.update(self.options.iterations - followed, f"{name} done")

    def _run(self, target: Target, follow: Callable[[Iteration], None]) -> Result:
        prepare = content_reconstruction if target.kind == "content" else texture_synthesis
        job = prepare(self.network, self.image.pixels, target.layers, self.options, self.initial)
        first_evaluation(job)
        return job.run(follow)

    def _keep(self, target: Target, result: Result, began: float) -> dict[str, Any]:
        """Measure and save a picture; return what came of it."""
        errors = feature_errors if target.kind == "content" else gram_errors
        facts = {
            "psnr": psnr(result.image, self.image.pixels) if target.kind == "content" else None,
            "errors": errors(self.network, result.image, self.image.pixels, self.measured),
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
        made = sum(_finished(facts) for facts in found.values())
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
        columns = sheet_columns(self.targets, self.network.layers)
        rows = [kind for kind in KINDS if any(target.kind == kind for target in self.targets)]
        tiles = []
        for kind in rows:
            tiles.append([Tile(self.image, self.arguments.image.name)])
            for label, places in columns:
                target = places.get(kind)
                tiles[-1].append(Tile(reason="not asked for") if target is None else self._tile(target, label, found))
        height, width = self.image.size
        model, start = (Path(str(name)).stem for name in (self.options.model, self.options.init))
        pixels = draw_sheet(
            tiles,
            rows,
            ["original", *(label for label, _ in columns)],
            f"{' and '.join(rows)} of {self.arguments.image.stem} by layer: {model}, {self.options.pooling} pooling, "
            f"{width}x{height} pixels, {self.options.iterations} iterations from {start}",
        )
        text = {"Software": PROJECT, "Command": shlex.join(["python", "-m", "tools.reconstruct", *sys.argv[1:]])}
        save_image(self.folder.path / SHEET, pixels, None, text)

    def _tile(self, target: Target, column: str, found: Mapping[Target, Mapping[str, Any]]) -> Tile:
        name = [] if column.endswith(f" {target.label}") else [target.label]
        if target not in found:
            return Tile(None, "".join(name), self.failed.get(target, "not made yet"))
        facts = found[target]
        end = [] if _finished(facts) else [f"{facts['stop']} after {facts['iterations']} iterations"]
        picture = load_image(self.folder.path / target.file)
        return Tile(picture, "\n".join([*name, *_measures(target, facts), *end]))


def sheet_columns(targets: Sequence[Target], layers: Sequence[str]) -> list[tuple[str, dict[str, Target]]]:
    """Return the sheet's columns: label, and target by kind.

    A set stands below its deepest layer's column, as in the paper; where that would put two into one place, the targets
    stand in the order in which they were asked for.
    """
    depth = {layer: index for index, layer in enumerate(layers)}
    places: dict[int, dict[str, Target]] = {}
    for target in targets:
        places.setdefault(max(depth[layer] for layer in target.layers), {})[target.kind] = target
    if sum(map(len, places.values())) == len(targets):
        return [(f"({_letter(number)}) {layers[index]}", places[index]) for number, index in enumerate(sorted(places))]
    rows = [[target for target in targets if target.kind == kind] for kind in KINDS]
    return [
        (f"({_letter(number)})", {row[number].kind: row[number] for row in rows if number < len(row)})
        for number in range(max(map(len, rows)))
    ]


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else str(number + 1)


def _own_error(target: Target, facts: Mapping[str, Any]) -> float:
    """Return the largest of the relative errors at the layers that were to be matched."""
    return float(max(facts["errors"][layer] for layer in target.layers))


def _measures(target: Target, facts: Mapping[str, Any]) -> list[str]:
    decibels = [] if facts["psnr"] is None else [f"{facts['psnr']:.1f} dB"]
    return [*decibels, f"error {100 * _own_error(target, facts):.2g} %"]


def table(
    targets: Sequence[Target],
    found: Mapping[Target, Mapping[str, Any]],
    failed: Mapping[Target, str],
    layers: Sequence[str],
) -> str:
    """Return a line of comma-separated values for each picture.

    Parameters
    ----------
    targets : all that were asked for.
    found : what came of those that have been made.
    failed : the reasons of those that could not be made.
    layers : to list the errors at: relative, of the responses for content and of the Gram matrices for style.
    """
    plain = ("loss", "initial_loss", "iterations", "evaluations", "stop", "stop_reason", "seconds")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["kind", "layers", "picture", "psnr", "error", *(f"error {name}" for name in layers), *plain, "failed"]
    )
    for target in targets:
        facts = found.get(target)
        values: list[Any] = ["", "", "", *("" for _ in layers), *("" for _ in plain)]
        if facts is not None:
            decibels = "" if facts["psnr"] is None else f"{facts['psnr']:.3f}"
            errors = (_own_error(target, facts), *(facts["errors"].get(name, "") for name in layers))
            values = [target.file, decibels, *(_rounded(error) for error in errors), *(facts[name] for name in plain)]
        writer.writerow([target.kind, "+".join(target.layers), *values, failed.get(target, "")])
    return text.getvalue()


def _rounded(error: float | str) -> str:
    return error if isinstance(error, str) else f"{error:.4g}"


def listing(targets: Sequence[Target], found: Mapping[Target, Mapping[str, Any]], layers: Sequence[str]) -> str:
    """Return the table for people; the layers that were to be matched are marked with a star."""
    lines = [["", "PSNR", *layers, "iterations", "evaluations", "stop"]]
    for target in targets:
        facts = found.get(target)
        if facts is None:
            continue
        errors = [
            f"{100 * facts['errors'][name]:.3g} %{'*' if name in target.layers else ' '}"
            if name in facts["errors"]
            else ""
            for name in layers
        ]
        decibels = "" if facts["psnr"] is None else f"{facts['psnr']:.1f} dB"
        counts = [str(facts["iterations"]), str(facts["evaluations"]), facts["stop"]]
        lines.append([f"{target.kind} {target.label}", decibels, *errors, *counts])
    note = (
        "Relative errors by layer: of the responses for content, of the Gram matrices for style. * was to be matched."
    )
    return "\n".join([*aligned(lines, "<>"), note])


if __name__ == "__main__":
    run(main)
