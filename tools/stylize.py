"""Render a photograph in the style of a painting: ``python -m tools.stylize CONTENT STYLE -o OUT``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import unknown_name
from engine.multiscale import Level, coarse_to_fine
from engine.network import Network
from engine.optimize import Iteration, Result
from engine.stylize import INITS, Job, shares, with_content_weight
from tools.command_line import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    Parser,
    add_record_paths,
    add_shared,
    describe,
    given_path,
    positive_int,
    run,
    tell,
)
from tools.curve import Curve
from tools.files import Lines, check_lines
from tools.images import Picture, check_output, load_image, load_painting, resize, save_image
from tools.model_cache import DRAFT_FILE, announce_draft, default_model, resolve_model
from tools.options import Options, add_options, add_paper, check_blend, levels_of, options_from, parsed
from tools.picture_files import address
from tools.plot import check_plot, plot_losses
from tools.preview import draft_settings, load_draft, preview, preview_path, preview_size
from tools.progress import Progress, byte_count, duration
from tools.rendering import (
    at_level,
    check_layers,
    check_memory,
    coloured,
    first_picture,
    load,
    painting_sizes,
    picture_levels,
    picture_size,
    rendering,
    tell_notes,
    with_fitting_levels,
)
from tools.stylizing.account import Log, facts_of, settings_of, standing, start_of_log, texts
from tools.stylizing.estimate import seconds_of_evaluation, seconds_of_run

NAME = "stylize"


def build_parser() -> Parser:
    """Return the parser of the command line; the options are those of ``tools.options``."""
    parser = Parser(prog=NAME, description="Render a photograph in the style of a painting.")
    parser.add_argument("content", type=given_path, metavar="CONTENT", help="the photograph")
    parser.add_argument("style", type=given_path, nargs="+", metavar="STYLE", help="the painting, or several")
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="OUT", help="picture to write")
    add_paper(parser)
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
    add_record_paths(parser)
    add_shared(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make one picture; return the exit code."""
    arguments = parsed(build_parser(), argv)
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
    styles = [load_painting(path) for path in arguments.style]
    first = first_picture(options, styles)
    tell_notes(NAME, [content, *styles, *([] if first is None else [first])], arguments.quiet)
    size = picture_size(content.size, options)
    style_sizes = painting_sizes([style.size for style in styles], options, size)

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
    options = with_fitting_levels(options, network, content.size, [style.size for style in styles], arguments.levels)
    if options.content_weight is None and not network.weights and not arguments.quiet:
        tell(
            f"{NAME}: the model's weights are not known, the content weight is a guess as for the original VGG-19; "
            "find one that suits with: python -m tools.sweep CONTENT STYLE --suggest"
        )
    begins_small = arguments.preview or levels_of(options) > 1
    if begins_small:
        announce_draft(NAME, arguments.model, chosen, arguments.quiet)
        if not arguments.quiet:
            for line in _introduction(options, network, size, needed):
                tell(f"{NAME}: {line}")
    if arguments.preview and _preview(arguments, options, model, network, content, styles, first):
        return EXIT_INTERRUPTED
    with contextlib.nullcontext() if arguments.log is None else Lines(arguments.log) as lines:
        log = Log(lines)
        filled = with_content_weight(options, network, options.size)
        if levels_of(options) > 1:
            log.write(start_of_log(arguments, filled, needed))

        def prepared(level: Level, image: NDArray[np.float32] | None) -> tuple[Picture, Job]:
            start = first if image is None else Picture(image, resize(content, *image.shape[:2]).alpha)
            return rendering(network, at_level(options, level), content, styles, start)

        # Until the last size has a picture of its own, that of the one before is the best there is.
        kept: tuple[Picture, dict[str, Any]] | None = None
        try:
            pictures = coarse_to_fine(picture_levels(options, network), prepared)
            level, (photograph, job) = next(pictures)
            while not level.is_last:
                result, facts = _small_picture(arguments, level, job, log)
                stopped = result.stop == "interrupted"
                if kept is not None or result.iterations or not stopped:
                    until = {"stop": "interrupted", "level": level.number, "levels": level.count}
                    kept = Picture(result.image.astype(np.float32), photograph.alpha), facts if stopped else until
                if stopped:
                    raise KeyboardInterrupt
                level, (photograph, job) = pictures.send(result)
            if not begins_small:
                announce_draft(NAME, arguments.model, chosen, arguments.quiet)
            with Progress(options.iterations, "iterations", NAME, quiet=arguments.quiet) as progress:
                session = _Session(arguments, filled, job, photograph, progress, log)
                session.start(needed, begins_small)
                return session.finish(job.run(session.iteration))
        except KeyboardInterrupt:
            if kept is None:
                raise
            _write_enlarged(arguments, filled, *kept, size)
            return EXIT_INTERRUPTED


def _introduction(options: Options, network: Network, size: tuple[int, int], needed: int) -> list[str]:
    """Return what is known before anything is computed."""
    height, width = size
    count = levels_of(options)
    levels = f", in {count} sizes of {options.iterations} iterations each" if count > 1 else ""
    return [
        f"model {options.model}, {network.preprocessing.name} input, {options.pooling} pooling; "
        f"{network.place}, {network.precision}",
        f"{width}x{height} pixels, about {byte_count(needed)} of memory{levels}",
    ]


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
    ratio = max(height, width) / options.size
    settings = draft_settings(options, network, draft, options.size, ratio)
    # The paintings stand to the preview as they will stand to the picture.
    style_size = options.style_size or options.size
    if isinstance(style_size, int):
        style_size = max(1, round(style_size * ratio))
    sizes = painting_sizes(
        [style.size for style in styles], dataclasses.replace(options, style_size=style_size), (height, width)
    )
    paintings = [coloured(style, small, options) for style in styles]
    blended = list(zip(paintings, options.blend or (1.0,) * len(styles), strict=True))
    path = preview_path(arguments.output)
    made_with = settings_of(arguments, options) | dataclasses.asdict(settings)
    made_with |= {"model": "draft", "size": max(height, width), "style_size": style_size, "levels": 1}
    made_with |= {"dtype": "float32"}
    with Progress(settings.iterations, "iterations", "preview", quiet=arguments.quiet) as progress:
        result = preview(
            draft, small, blended, settings, sizes, first, lambda state: progress.update(1, f"{state.value:.4g}")
        )
        stopped = result.stop == "interrupted"
        if stopped and result.iterations == 0:
            raise KeyboardInterrupt
        save_image(path, result.image, small.alpha, texts(made_with, facts_of(result, began), arguments.record_paths))
        took = duration(time.perf_counter() - began)
        progress.write(
            f"{NAME}: preview by the draft network, {width}x{height} pixels, {result.iterations} iterations, {took}: "
            f"{path}{'; interrupted, so there is no picture' if stopped else ''}"
        )
    return stopped


def _small_picture(arguments: argparse.Namespace, level: Level, job: Job, log: Log) -> tuple[Result, dict[str, Any]]:
    """Make the picture of a level before the last; return what came of it, and that as the log has it."""
    began = time.perf_counter()
    height, width = job.initial.shape[:2]
    name = f"level {level.number} of {level.count}, {width}x{height} pixels"
    iterations = job.settings.iterations
    with Progress(iterations, "iterations", f"level {level.number}", quiet=arguments.quiet) as progress:
        _, seconds = seconds_of_evaluation(job)
        took = seconds_of_run(job, job.settings, seconds, 0)
        # An evaluation takes four times as long from level to level.
        remaining = took * sum(4**more for more in range(level.count - level.number + 1))
        progress.write(
            f"{NAME}: {name}, {seconds:.2g} s an evaluation: about {duration(took)} for {iterations} "
            f"iterations, about {duration(remaining)} to the end"
        )
        result = job.run(_followed(progress, log, job, level.number, began))
        progress.write(
            f"{NAME}: {name}: {result.iterations} iterations, loss {result.initial_value:.4g} -> "
            f"{result.value:.4g}, {duration(time.perf_counter() - began)}"
        )
    facts = {"level": level.number, "levels": level.count, "width": width, "height": height}
    facts |= facts_of(result, began)
    log.write({"event": "level", **facts})
    return result, facts


def _write_enlarged(
    arguments: argparse.Namespace, options: Options, level: Picture, facts: Mapping[str, Any], size: tuple[int, int]
) -> None:
    """Write the picture of a level at the size that was asked for, and say so."""
    enlarged = resize(level, *size)
    text = texts(settings_of(arguments, options), facts, arguments.record_paths)
    save_image(arguments.output, enlarged.pixels, enlarged.alpha, text)
    unwritten = "" if arguments.plot is None else "; nothing was drawn"
    tell(
        f"{NAME}: interrupted; wrote the picture of level {facts['level']} of {facts['levels']}, enlarged, "
        f"{arguments.output}{unwritten}"
    )


def _followed(progress: Progress, log: Log, job: Job, level: int, began: float) -> Callable[[Iteration], None]:
    """Return what shows and logs each iteration of a level."""

    def follow(state: Iteration) -> None:
        problem = log.write({"event": "iteration", "level": level, **standing(job, state, began)})
        if problem is not None:
            progress.write(f"{NAME}: {problem}; going on without a log")
        progress.update(1, f"loss {state.value:.4g}")

    return follow


class _Session:
    """One run as its user sees it: reports, snapshots, the log and the picture."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: Options,
        job: Job,
        content: Picture,
        progress: Progress,
        log: Log,
    ) -> None:
        self.arguments = arguments
        self.options = options
        self.job = job
        self.content = content
        self.progress = progress
        self.log = log
        self.curve = Curve(job.objective)
        self.began = time.perf_counter()

    def start(self, needed: int, introduced: bool) -> None:
        """Say what will be done, how long it will take and how the terms stand at the start."""
        value, seconds = seconds_of_evaluation(self.job)
        reports = 2 + self.options.iterations // self.arguments.report_every
        takes = duration(seconds_of_run(self.job, self.options, seconds, reports))
        time_needed = f"{seconds:.2g} s an evaluation: about {takes} for {self.options.iterations} iterations"
        if introduced:
            self._say(time_needed)
        else:
            height, width = self.job.initial.shape[:2]
            model, memory = _introduction(self.options, self.job.objective.network, (height, width), needed)
            self._say(model)
            self._say(f"{memory}, {time_needed}")
        if levels_of(self.options) == 1:
            self._record(start_of_log(self.arguments, self.options, needed))
        self._report("start", 0, value, self.job.initial)

    def iteration(self, state: Iteration) -> None:
        """Follow one iteration."""
        self._record({"event": "iteration", **standing(self.job, state, self.began)})
        self.curve.follow(state)
        every = self.arguments.save_every
        if every and state.iteration % every == 0 and state.iteration < self.options.iterations:
            output: Path = self.arguments.output
            digits = len(str(self.options.iterations))
            try:
                self._save(output.with_stem(f"{output.stem}-{state.iteration:0{digits}d}"), state.image, None)
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
        facts = facts_of(result, self.began)
        if result.stop == "interrupted" and result.iterations == 0:
            self._record({"event": "end", **facts})
            raise KeyboardInterrupt
        try:
            return self._finish(result, facts)
        except KeyboardInterrupt:
            # What has been made is not lost; a further Ctrl-C does end this.
            self._save(self.arguments.output, result.image, facts)
            tell(f"{NAME}: interrupted at the end; wrote {self.arguments.output}")
            return EXIT_INTERRUPTED

    def _finish(self, result: Result, facts: dict[str, Any]) -> int:
        if result.stop not in ("interrupted", "non-finite"):
            value, _ = self.job.objective(result.image)
            facts |= self._report("end", result.iterations, value, result.image)
        self._save(self.arguments.output, result.image, facts)
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

    def _save(self, path: Path, image: Any, facts: Mapping[str, Any] | None) -> None:
        text = texts(settings_of(self.arguments, self.options), facts, self.arguments.record_paths)
        save_image(path, image, self.content.alpha, text)

    def _record(self, entry: Mapping[str, Any]) -> None:
        problem = self.log.write(entry)
        if problem is not None:
            self._say(f"{problem}; going on without a log")

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
        if not inputs[-1].exists() and address(inputs[-1]) is None:  # of an address more is said where it is read
            if inputs[-1].suffix or inputs[-1].name != arguments.init:
                raise ValueError(f"--init: there is no picture {arguments.init!r}")
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
