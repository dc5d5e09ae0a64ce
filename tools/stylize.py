"""Render a photograph in the style of a painting: ``python -m tools.stylize CONTENT STYLE -o OUT``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import unknown_name
from engine.network import Network
from engine.optimize import Iteration, Result
from engine.stylize import INITS, Job, shares
from tools.command_line import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    Parser,
    add_shared,
    describe,
    given_path,
    positive_int,
    run,
    tell,
)
from tools.curve import Curve
from tools.files import Lines, check_lines
from tools.images import Picture, check_output, load_image, resize, save_image
from tools.model_cache import DRAFT_FILE, announce_draft, default_model, resolve_model
from tools.options import Options, add_options, check_blend, options_from
from tools.plot import check_plot, plot_losses
from tools.preview import draft_settings, load_draft, preview, preview_path, preview_size
from tools.progress import Progress, byte_count, duration
from tools.record import PROJECT, versions
from tools.rendering import (
    check_layers,
    check_levels,
    check_memory,
    first_evaluation,
    first_picture,
    level_options,
    load,
    painting_sizes,
    picture_size,
    rendering,
)

NAME = "stylize"

# Seconds that an optimiser takes for itself, at the start and in each iteration, by value of the image. Measured at 512
# pixels on the machine that the README's figures are from.
OPTIMIZER_SECONDS = {"l-bfgs-b": (3e-6, 2.5e-7), "l-bfgs": (0.0, 4e-8), "adam": (0.0, 3e-8), "sgd": (0.0, 2e-8)}


def build_parser() -> Parser:
    """Return the parser of the command line; the options are those of ``tools.options``."""
    parser = Parser(prog=NAME, description="Render a photograph in the style of a painting.")
    parser.add_argument("content", type=given_path, metavar="CONTENT", help="the photograph")
    parser.add_argument("style", type=given_path, nargs="+", metavar="STYLE", help="the painting, or several")
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="OUT", help="picture to write")
    add_options(parser)
    parser.add_argument(
        "--preview",
        action="store_true",
        help="first make a small picture with the draft network, in seconds, beside OUT: OUT-preview",
    )
    parser.add_argument("--save-every", type=positive_int, metavar="N", help="also write a snapshot every N iterations")
    parser.add_argument(
        "--report-every", type=positive_int, default=50, metavar="N", help="report the terms' shares every N iterations"
    )
    parser.add_argument("--log", type=given_path, metavar="FILE.jsonl", help="write each iteration as a line of JSON")
    parser.add_argument(
        "--plot",
        type=given_path,
        metavar="FILE",
        help="draw the losses over the iterations (.svg or .png; needs matplotlib)",
    )
    add_shared(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make one picture; return the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return _make(arguments)
    except KeyboardInterrupt:
        tell(f"{NAME}: interrupted, {arguments.output} was not written")
        return EXIT_INTERRUPTED


def _make(arguments: argparse.Namespace) -> int:
    """Make the picture that was asked for; return the exit code. Raises KeyboardInterrupt where there is none yet."""
    options = options_from(arguments)
    _check_files(arguments)
    check_blend(options, len(arguments.style))
    content = load_image(arguments.content)
    styles = [load_image(path) for path in arguments.style]
    first = first_picture(options, styles)
    size = picture_size(content.size, options)
    style_sizes = painting_sizes([style.size for style in styles], options)

    chosen = options.model
    if chosen is None:
        chosen = default_model(arguments.cache)
        options = dataclasses.replace(options, model=chosen)
    model = resolve_model(chosen, arguments.cache)
    _check_not_written(arguments, model)
    _check_not_written(arguments, Path(chosen))  # a large file is replaced by its part in the cache
    network = load(options, model, arguments.threads)
    check_layers(network, options)
    needed = check_memory(network, options, size, style_sizes)
    check_levels(network, options, content.size, [style.size for style in styles])
    begins_early = arguments.preview or options.levels > 1
    if begins_early:
        announce_draft(NAME, arguments.model, chosen, arguments.quiet)
    if arguments.preview and _preview(arguments, options, model, network, content, styles, first):
        return EXIT_INTERRUPTED
    if options.levels > 1:
        first, stopped = _coarse_picture(arguments, options, network, content, styles, first)
        if stopped:
            return EXIT_INTERRUPTED
    photograph, job = rendering(network, options, content, styles, first)
    if not begins_early:
        announce_draft(NAME, arguments.model, chosen, arguments.quiet)

    with (
        contextlib.nullcontext() if arguments.log is None else Lines(arguments.log) as log,
        Progress(options.iterations, "iterations", NAME, quiet=arguments.quiet) as progress,
    ):
        session = _Session(arguments, options, job, photograph, progress, log)
        session.start(needed)
        result = job.run(session.iteration)
        return session.finish(result)


def _preview(
    arguments: argparse.Namespace,
    options: Options,
    model: Path,
    network: Network,
    content: Picture,
    styles: Sequence[Picture],
    first: Picture | None,
) -> bool:
    """Make the picture's preview; return whether it was interrupted, after which there is to be no picture either."""
    began = time.perf_counter()
    height, width = preview_size(content, options.size)
    if (height, width) == picture_size(content.size, options) and _same(model, DRAFT_FILE):
        if not arguments.quiet:
            tell(f"{NAME}: no preview: the picture itself is by the draft network, and no larger than one would be")
        return False
    small = resize(content, height, width)
    draft = load_draft(options.pooling, options.device, arguments.threads)
    settings = draft_settings(options, network, draft)
    # The paintings stand to the preview as they will stand to the picture.
    style_side = max(1, round((options.style_size or options.size) * max(height, width) / options.size))
    blended = list(zip(styles, options.blend or (1.0,) * len(styles), strict=True))
    path = preview_path(arguments.output)
    with Progress(settings.iterations, "iterations", "preview", quiet=arguments.quiet) as progress:
        result = preview(
            draft, small, blended, settings, style_side, first, lambda state: progress.update(1, f"{state.value:.4g}")
        )
        stopped = result.stop == "interrupted"
        if stopped and result.iterations == 0:
            raise KeyboardInterrupt
        save_image(
            path, result.image, small.alpha, {"Software": PROJECT, "Settings": json.dumps(dataclasses.asdict(settings))}
        )
        took = duration(time.perf_counter() - began)
        progress.write(
            f"{NAME}: preview by the draft network, {width}x{height} pixels, {result.iterations} iterations, {took}: "
            f"{path}{'; interrupted, so there is no picture' if stopped else ''}"
        )
    return stopped


def _coarse_picture(
    arguments: argparse.Namespace,
    options: Options,
    network: Network,
    content: Picture,
    styles: Sequence[Picture],
    first: Picture | None,
) -> tuple[Picture | None, bool]:
    """Make the smaller pictures, one begun with the other.

    Returns what the picture itself begins with, and whether it was interrupted: then that has been written, enlarged.
    Raises KeyboardInterrupt where there is nothing to write.
    """
    for number, level in enumerate(level_options(options, network)[:-1], 1):
        began = time.perf_counter()
        photograph, job = rendering(network, level, content, styles, first)
        with Progress(level.iterations, "iterations", f"level {number}", quiet=arguments.quiet) as progress:
            result = job.run(_shown(progress))
            height, width = photograph.size
            progress.write(
                f"{NAME}: level {number} of {options.levels}, {width}x{height} pixels: {result.iterations} iterations, "
                f"loss {result.initial_value:.4g} -> {result.value:.4g}, {duration(time.perf_counter() - began)}"
            )
        first = Picture(result.image.astype(np.float32), photograph.alpha)
        if result.stop == "interrupted":
            if number == 1 and result.iterations == 0:
                raise KeyboardInterrupt
            enlarged = resize(first, *picture_size(content.size, options))
            settings = json.dumps(dataclasses.asdict(level))
            save_image(arguments.output, enlarged.pixels, enlarged.alpha, {"Software": PROJECT, "Settings": settings})
            tell(f"{NAME}: interrupted at level {number} of {options.levels}; wrote its picture, {arguments.output}")
            return first, True
    return first, False


def _shown(progress: Progress) -> Callable[[Iteration], None]:
    return lambda state: progress.update(1, f"loss {state.value:.4g}")


class _Session:
    """One run as its user sees it: reports, snapshots, the log and the picture."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: Options,
        job: Job,
        content: Picture,
        progress: Progress,
        log: Lines | None,
    ) -> None:
        self.arguments = arguments
        self.options = dataclasses.replace(options, content_weight=job.settings.content_weight)
        self.job = job
        self.content = content
        self.progress = progress
        self.log = log
        self.curve = Curve(job.objective)
        self.began = time.perf_counter()

    def start(self, needed: int) -> None:
        """Say what will be done, how long it will take and how the terms stand at the start."""
        network: Network = self.job.objective.network
        height, width = self.job.initial.shape[:2]
        before = time.perf_counter()
        value = first_evaluation(self.job)
        for _ in range(2 if network.device == "cuda" else 0):  # there the first compiles, and the second may record
            before = time.perf_counter()
            self.job.objective(self.job.initial)
        seconds = time.perf_counter() - before
        self._say(
            f"model {self.options.model}, {network.preprocessing.name} input, {self.options.pooling} pooling; "
            f"{network.place}, {network.precision}"
        )
        self._say(
            f"{width}x{height} pixels, about {byte_count(needed)} of memory, {seconds:.2g} s an evaluation: "
            f"about {duration(self._estimate(seconds))} for {self.options.iterations} iterations"
        )
        self._record(
            {"event": "start", "settings": self._settings(), "versions": versions(), "estimated_bytes": needed}
        )
        self._report("start", 0, value, self.job.initial)

    def _estimate(self, seconds: float) -> float:
        """Return how long the run takes if an evaluation takes ``seconds``."""
        iterations = self.options.iterations
        # A report is a backward pass for each term, of which most are short: about as long as two evaluations.
        reports = 2 + iterations // self.arguments.report_every
        start, each = OPTIMIZER_SECONDS.get(self.options.optimizer, (0.0, 0.0))
        if self.job.objective.network.device == "cuda" and self.options.optimizer != "l-bfgs-b":
            start, each = 0.0, 0.0  # on the GPU as well, in a small part of an evaluation's time
        values: int = self.job.initial.size
        return float(seconds * (iterations + 2 * reports) + values * (start + each * iterations))

    def iteration(self, state: Iteration) -> None:
        """Follow one iteration."""
        self._record(
            {
                "event": "iteration",
                "iteration": state.iteration,
                "evaluations": state.evaluations,
                "seconds": round(time.perf_counter() - self.began, 3),
                "loss": state.value,
                "terms": self.job.objective.terms,
            }
        )
        self.curve.follow(state)
        every = self.arguments.save_every
        if every and state.iteration % every == 0 and state.iteration < self.options.iterations:
            output: Path = self.arguments.output
            digits = len(str(self.options.iterations))
            try:
                self._save(output.with_stem(f"{output.stem}-{state.iteration:0{digits}d}"), state.image, {})
            except ValueError as error:  # a full disk shall not cost the picture itself
                self._say(f"snapshot left out: {describe(error)}")
        self.progress.update(1, f"loss {state.value:.4g}")
        if state.iteration % self.arguments.report_every == 0 and state.iteration < self.options.iterations:
            self._report(f"iteration {state.iteration}", state.iteration, state.value, state.image)

    def finish(self, result: Result) -> int:
        """Write the picture, say how it ended and return the exit code.

        Raises KeyboardInterrupt when there is no picture, for the run was interrupted before its first iteration.
        """
        self.progress.close()
        facts = {
            "loss": result.value,
            "initial_loss": result.initial_value,
            "iterations": result.iterations,
            "evaluations": result.evaluations,
            "stop": result.stop,
            "stop_reason": result.stop_reason,
            "seconds": round(time.perf_counter() - self.began, 3),
        }
        if result.stop == "interrupted" and result.iterations == 0:
            self._record({"event": "end", **facts})
            raise KeyboardInterrupt
        try:
            return self._finish(result, facts)
        except KeyboardInterrupt:
            # What has been made is not lost; a further Ctrl-C does end this.
            self._save(self.arguments.output, result.image, {"Result": json.dumps(facts)})
            tell(f"{NAME}: interrupted at the end; wrote {self.arguments.output}")
            return EXIT_INTERRUPTED

    def _finish(self, result: Result, facts: dict[str, Any]) -> int:
        if result.stop not in ("interrupted", "non-finite"):
            value, _ = self.job.objective(result.image)
            facts |= self._report("end", result.iterations, value, result.image)
        self._save(self.arguments.output, result.image, {"Result": json.dumps(facts)})
        self._record({"event": "end", **facts})
        self._say(
            f"{result.stop_reason}; loss {result.initial_value:.4g} -> {result.value:.4g} in {result.evaluations} "
            f"evaluations, {duration(time.perf_counter() - self.began)}; wrote {self.arguments.output}"
        )
        self._plot()
        if result.iterations and not result.value < result.initial_value:
            self._say("the loss never fell below that of the first image: try a smaller --learning-rate, or l-bfgs-b")
        if result.stop == "non-finite":
            tell(f"{NAME}: {result.stop_reason}; wrote the best image before that")
            return EXIT_ERROR
        return EXIT_INTERRUPTED if result.stop == "interrupted" else 0

    def _plot(self) -> None:
        """Draw the losses, if that was asked for."""
        path: Path | None = self.arguments.plot
        if path is None or not self.curve.points:
            return
        paintings = " and ".join(style.name for style in self.arguments.style)
        plot_losses(
            path, self.curve.names, self.curve.points, f"{self.arguments.content.name} in the style of {paintings}"
        )
        self._say(f"drew the losses in {path}")

    def _report(self, when: str, iteration: int, value: float, image: Any) -> dict[str, Any]:
        """Print and record the terms' shares of the loss and of the gradient."""
        loss = shares(self.job.objective.weighted_terms())
        gradient = shares(self.job.objective.gradient_norms(image))
        self._say(f"{when}: loss {value:.4g}, of which {_percentages(loss)}")
        self._say(f"{when}: gradient {_percentages(gradient)}")
        facts = {"loss_shares": loss, "gradient_shares": gradient}
        self._record({"event": "shares", "iteration": iteration, **facts})
        return facts

    def _save(self, path: Path, image: Any, text: Mapping[str, str]) -> None:
        command = ["python", "-m", "tools.stylize", *sys.argv[1:]]
        record = {
            "Software": PROJECT,
            "Command": shlex.join(command),
            "Settings": json.dumps(self._settings()),
            "Versions": json.dumps(versions()),
        }
        save_image(path, image, self.content.alpha, record | dict(text))

    def _settings(self) -> dict[str, Any]:
        return {
            "content": str(self.arguments.content),
            "style": [str(path) for path in self.arguments.style],
            **dataclasses.asdict(self.options),
        }

    def _record(self, entry: Mapping[str, Any]) -> None:
        if self.log is not None:
            try:
                self.log.write(json.dumps(entry))
            except ValueError as error:
                if entry["event"] == "start":
                    raise
                self.log = None
                self._say(f"{error}; going on without a log")

    def _say(self, line: str) -> None:
        self.progress.write(f"{NAME}: {line}")


def _check_files(arguments: argparse.Namespace) -> None:
    """Raise ValueError for an output that cannot be written, before anything is computed."""
    check_output(arguments.output)
    if arguments.preview:
        check_output(preview_path(arguments.output))
    inputs = [arguments.content, *arguments.style]
    if arguments.init not in INITS:
        inputs.append(Path(arguments.init))
        if not inputs[-1].exists():
            raise ValueError(f"{unknown_name('init', arguments.init, INITS)}, or the path of an image file")
    for path in inputs:
        _check_not_written(arguments, path)
    plot: Path | None = arguments.plot
    if plot is not None:
        check_plot(plot)
        if any(_same(plot, picture) for picture in _pictures(arguments)) or _is_snapshot(arguments, plot):
            raise ValueError(f"--plot {str(plot)!r} is also a picture's name: choose another")
    log: Path | None = arguments.log
    if log is not None:
        if plot is not None and _same(log, plot):
            raise ValueError(f"--log and --plot are both {str(log)!r}: choose another name for one of them")
        check_lines(log)
        if any(_same(log, picture) for picture in _pictures(arguments)) or _is_snapshot(arguments, log):
            raise ValueError(f"--log {str(log)!r} is also a picture's name: choose another")


def _check_not_written(arguments: argparse.Namespace, path: Path) -> None:
    """Raise ValueError when the run would write over ``path``, one of its inputs."""
    targets = [*_pictures(arguments), *(file for file in (arguments.log, arguments.plot) if file is not None)]
    if any(_same(path, target) for target in targets) or _is_snapshot(arguments, path):
        raise ValueError(f"{str(path)!r} is an input, it would be overwritten: choose another name for the output")


def _pictures(arguments: argparse.Namespace) -> list[Path]:
    """Return the pictures that are written whatever happens, so without the snapshots."""
    output: Path = arguments.output
    return [output, preview_path(output)] if arguments.preview else [output]


def _same(first: Path, second: Path) -> bool:
    if first.exists() and second.exists():
        return first.samefile(second)
    return os.path.realpath(first) == os.path.realpath(second)


def _is_snapshot(arguments: argparse.Namespace, path: Path) -> bool:
    """Say whether ``path`` is called as a snapshot would be."""
    # Not Path.resolve, which raises on a loop of links.
    output, path = Path(os.path.realpath(arguments.output)), Path(os.path.realpath(path))
    number = path.stem.removeprefix(f"{output.stem}-")
    named = path.stem == f"{output.stem}-{number}" and number.isdigit() and path.suffix == output.suffix
    return bool(arguments.save_every) and named and path.parent == output.parent


def _percentages(parts: Mapping[str, Mapping[str, float]]) -> str:
    """Return shares as ``content 12 % (conv4_2 12 %), style 88 % (conv1_1 3 %, ...)``."""
    kinds = []
    for kind, layers in parts.items():
        if layers:
            listed = ", ".join(f"{layer} {_percent(share)}" for layer, share in layers.items())
            kinds.append(f"{kind} {_percent(sum(layers.values()))} ({listed})")
    return ", ".join(kinds)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1g} %"


if __name__ == "__main__":
    run(main)
