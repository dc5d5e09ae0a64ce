"""Render a photograph in the style of a painting: ``python -m tools.stylize CONTENT STYLE -o OUT``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from engine.errors import unknown_name
from engine.network import DEVICES, DTYPES, POOLINGS, Network, load_network
from engine.objective import layer_names
from engine.optimize import MAX_HISTORY, METHODS, Iteration, Result
from engine.preprocessing import PREPROCESSING
from engine.stylize import INITS, Job, Settings, memory, prepare, shares
from tools.command_line import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    Parser,
    describe,
    natural_int,
    positive_float,
    positive_int,
    run,
    weight,
)
from tools.images import Picture, check_output, fit, load_image, resize, save_image
from tools.memory import available_memory
from tools.models import DRAFT, default_model, resolve_model
from tools.preview import draft_settings, load_draft, preview, preview_path, preview_size
from tools.progress import Progress, byte_count, duration

NAME = "stylize"
PROJECT = "neural-style-by-hand"

# Seconds that an optimiser takes for itself, at the start and in each iteration, by value of the image. Measured at 512
# pixels on the machine that the README's figures are from.
OPTIMIZER_SECONDS = {"l-bfgs-b": (3e-6, 2.5e-7), "l-bfgs": (0.0, 4e-8), "adam": (0.0, 3e-8), "sgd": (0.0, 2e-8)}


@dataclass(frozen=True)
class Options(Settings):
    """What the picture depends on beside its input files: the engine's settings, the network and the sizes."""

    model: str | None = field(
        default=None,
        metadata={
            "help": "vgg19, vgg16, draft (small, comes with the program) or the path of an ONNX file "
            "(default vgg19 where it has been fetched, else draft)"
        },
    )
    pooling: str = field(
        default="average", metadata={"help": "average replaces the model's max pooling, max the opposite"}
    )
    preprocessing: str | None = field(
        default=None, metadata={"help": "what the model takes as input, where the model itself does not tell"}
    )
    size: int = field(default=512, metadata={"help": "long side of the picture in pixels"})
    style_size: int | None = field(
        default=None, metadata={"help": "long side of the painting in pixels, by default the picture's"}
    )
    blend: tuple[float, ...] | None = field(
        default=None, metadata={"help": "weights of several paintings, one each: 2,1 (default: equal)"}
    )
    device: str = field(default="auto", metadata={"help": "where to compute"})
    dtype: str = field(default="float32", metadata={"help": "precision of the network"})


def layer_weights(text: str) -> dict[str, float | None]:
    """Argument type: ``conv1_1,conv2_1:2`` as names with their weight, None where none is given."""
    layers: dict[str, float | None] = {}
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        if not name:
            raise ValueError(f"{text!r} has an empty layer name")
        if name in layers:
            raise ValueError(f"{name!r} is named twice")
        layers[name] = weight(number) if colon else None
    return layers


def build_parser() -> Parser:
    """Return the parser of the command line; names, defaults and help of the settings come from ``Options``."""
    parser = Parser(prog=NAME, description="Render a photograph in the style of a painting.")
    parser.add_argument("content", type=Path, metavar="CONTENT", help="the photograph")
    parser.add_argument("style", type=Path, nargs="+", metavar="STYLE", help="the painting, or several")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="picture to write")
    arguments: dict[str, dict[str, Any]] = {
        "model": {"flags": ["-m"], "metavar": "NAME|FILE"},
        "size": {"flags": ["-s"], "type": positive_int, "metavar": "N"},
        "iterations": {"flags": ["-n"], "type": positive_int, "metavar": "N"},
        "content_weight": {"flags": ["-a"], "type": weight, "metavar": "ALPHA"},
        "style_weight": {"flags": ["-b"], "type": weight, "metavar": "BETA"},
        "content_layers": {"type": _argument(layer_weights), "metavar": "LAYER[:WEIGHT],..."},
        "style_layers": {"type": _argument(layer_weights), "metavar": "LAYER[:WEIGHT],..."},
        "init": {"metavar": "noise|content|style|FILE"},
        "seed": {"type": natural_int, "metavar": "N"},
        "pooling": {"type": _choice("pooling", POOLINGS), "metavar": "|".join(POOLINGS)},
        "optimizer": {"type": _choice("optimiser", METHODS), "metavar": "|".join(METHODS)},
        "learning_rate": {"type": positive_float, "metavar": "X"},
        "history": {"type": positive_int, "metavar": "N"},
        "style_size": {"type": positive_int, "metavar": "N"},
        "blend": {"type": _argument(_weights), "metavar": "W,W,..."},
        "preprocessing": {"type": _choice("preprocessing", PREPROCESSING), "metavar": "|".join(PREPROCESSING)},
        "device": {"type": _choice("device", DEVICES), "metavar": "|".join(DEVICES)},
        "dtype": {"type": _choice("dtype", DTYPES[:2]), "metavar": "|".join(DTYPES[:2])},
    }
    fields = {item.name: item for item in dataclasses.fields(Options)}
    for name, keywords in arguments.items():
        default = fields[name].default
        shown = ",".join(default) if isinstance(default, tuple) else default
        suffix = "" if default is None else f" (default {shown})"
        flags = [*keywords.pop("flags", []), "--" + name.replace("_", "-")]
        parser.add_argument(*flags, default=default, help=fields[name].metadata["help"] + suffix, **keywords)
    parser.add_argument(
        "--preview",
        action="store_true",
        help="first make a small picture with the draft network, in seconds, beside OUT: OUT-preview",
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads to use (default: all cores)")
    parser.add_argument("--save-every", type=positive_int, metavar="N", help="also write a snapshot every N iterations")
    parser.add_argument(
        "--report-every", type=positive_int, default=50, metavar="N", help="report the terms' shares every N iterations"
    )
    parser.add_argument("--log", type=Path, metavar="FILE.jsonl", help="write each iteration as a line of JSON")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder of the fetched models")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make one picture; return the exit code."""
    arguments = build_parser().parse_args(argv)
    options = Options(**{item.name: getattr(arguments, item.name) for item in dataclasses.fields(Options)})
    options = _with_layer_weights(options)
    if options.history is not None and options.history > MAX_HISTORY:
        raise ValueError(f"--history must be at most {MAX_HISTORY}, got {options.history}")
    _check_files(arguments)

    if options.blend is not None and len(options.blend) != len(arguments.style):
        raise ValueError(f"--blend has {len(options.blend)} weights for {len(arguments.style)} paintings")
    content = load_image(arguments.content)
    height, width = _fitted(content, options.size)
    styles = [load_image(path) for path in arguments.style]
    style_sizes = [_fitted(style, options.style_size or options.size) for style in styles]

    chosen = options.model
    if chosen is None:
        chosen = default_model(arguments.cache)
        options = dataclasses.replace(options, model=chosen)
        if chosen == DRAFT and not arguments.quiet:
            print(
                f"{NAME}: no VGG-19 has been fetched, this uses the small draft network that comes with the program; "
                "get the real one with: python -m tools.models fetch vgg19",
                file=sys.stderr,
            )
    model = resolve_model(chosen, arguments.cache)
    _check_not_written(arguments, model)
    _check_not_written(arguments, Path(chosen))  # a large file is replaced by its part in the cache
    network = load_network(
        model,
        pooling=options.pooling,
        device=options.device,
        dtype=options.dtype,
        preprocessing=options.preprocessing,
        threads=arguments.threads,
    )
    needed = memory(network, height, width, options)
    _check_memory(needed, height, width, "--size")
    for rows, columns in style_sizes:
        _check_memory(network.memory(rows, columns, layer_names(options.style_layers)), rows, columns, "--style-size")
    blend = options.blend or (1.0,) * len(styles)
    if arguments.preview and _preview(arguments, options, network, content, list(zip(styles, blend, strict=True))):
        return EXIT_INTERRUPTED
    content = resize(content, height, width)
    styles = [resize(style, *size) for style, size in zip(styles, style_sizes, strict=True)]
    initial = _initial(options, arguments.style[0], height, width)
    paintings = [(painting.pixels, share) for painting, share in zip(styles, blend, strict=True)]
    job = prepare(network, content.pixels, paintings, options, initial)

    with (
        _log(arguments.log) as log,
        Progress(options.iterations, "iterations", NAME, quiet=arguments.quiet) as progress,
    ):
        session = _Session(arguments, options, job, content, progress, log)
        session.start(needed)
        result = job.run(session.iteration)
        return session.finish(result)


def _preview(
    arguments: Any, options: Options, network: Network, content: Picture, styles: Sequence[tuple[Picture, float]]
) -> bool:
    """Make the picture's preview; return whether it was interrupted, after which there is to be no picture either."""
    began = time.perf_counter()
    height, width = preview_size(content, options.size)
    small = resize(content, height, width)
    draft = load_draft(options.pooling, options.device, arguments.threads)
    settings = draft_settings(options, network, draft)
    # The paintings stand to the preview as they will stand to the picture.
    style_side = max(1, round((options.style_size or options.size) * max(height, width) / options.size))
    first = None
    if options.init not in ("noise", "content"):
        first = styles[0][0] if options.init == "style" else load_image(Path(options.init))
    path = preview_path(arguments.output)
    with Progress(settings.iterations, "iterations", "preview", quiet=arguments.quiet) as progress:
        result = preview(
            draft, small, styles, settings, style_side, first, lambda state: progress.update(1, f"{state.value:.4g}")
        )
        stopped = result.stop == "interrupted"
        if stopped and result.iterations == 0:
            print(f"{NAME}: interrupted before the preview's first iteration, nothing written", file=sys.stderr)
            return True
        save_image(
            path, result.image, small.alpha, {"Software": PROJECT, "Settings": json.dumps(dataclasses.asdict(settings))}
        )
        took = duration(time.perf_counter() - began)
        progress.write(
            f"{NAME}: preview by the draft network, {width}x{height} pixels, {result.iterations} iterations, {took}: "
            f"{path}{'; interrupted, so there is no picture' if stopped else ''}"
        )
    return stopped


class _Session:
    """One run as its user sees it: reports, snapshots, the log and the picture."""

    def __init__(
        self,
        arguments: Any,
        options: Options,
        job: Job,
        content: Picture,
        progress: Progress,
        log: TextIO | None,
    ) -> None:
        self.arguments = arguments
        self.options = dataclasses.replace(options, content_weight=job.settings.content_weight)
        self.job = job
        self.content = content
        self.progress = progress
        self.log = log
        self.began = time.perf_counter()

    def start(self, needed: int) -> None:
        """Say what will be done, how long it will take and how the terms stand at the start."""
        network: Network = self.job.objective.network
        height, width = self.job.initial.shape[:2]
        before = time.perf_counter()
        value, gradient = self.job.objective(self.job.initial)
        if not gradient.any():
            raise ValueError(
                "nothing to optimise: the gradient at the first image is zero, for no layer responds to it, "
                "the weights are too small, or it fits perfectly already"
            )
        seconds = time.perf_counter() - before
        self._say(
            f"model {self.options.model}, {network.preprocessing.name} input, {self.options.pooling} pooling; "
            f"{network.place}, {network.dtype}"
        )
        self._say(
            f"{width}x{height} pixels, about {byte_count(needed)} of memory, {seconds:.2g} s an evaluation: "
            f"about {duration(self._estimate(seconds))} for {self.options.iterations} iterations"
        )
        self._record(
            {"event": "start", "settings": self._settings(), "versions": _versions(), "estimated_bytes": needed}
        )
        self._report("start", 0, value, self.job.initial)

    def _estimate(self, seconds: float) -> float:
        """Return how long the run takes if an evaluation takes ``seconds``."""
        iterations = self.options.iterations
        # A report is a backward pass for each term, of which most are short: about as long as two evaluations.
        reports = 2 + iterations // self.arguments.report_every
        start, each = OPTIMIZER_SECONDS.get(self.options.optimizer, (0.0, 0.0))
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
        """Write the picture, say how it ended and return the exit code."""
        self.progress.close()
        if result.stop == "interrupted" and result.iterations == 0:
            print(f"{NAME}: interrupted before the first iteration, nothing written", file=sys.stderr)
            return EXIT_INTERRUPTED
        facts = {
            "loss": result.value,
            "initial_loss": result.initial_value,
            "iterations": result.iterations,
            "evaluations": result.evaluations,
            "stop": result.stop,
            "stop_reason": result.stop_reason,
            "seconds": round(time.perf_counter() - self.began, 3),
        }
        if result.stop not in ("interrupted", "non-finite"):
            value, _ = self.job.objective(result.image)
            facts |= self._report("end", result.iterations, value, result.image)
        self._save(self.arguments.output, result.image, {"Result": json.dumps(facts)})
        self._record({"event": "end", **facts})
        self._say(
            f"{result.stop_reason}; loss {result.initial_value:.4g} -> {result.value:.4g} in {result.evaluations} "
            f"evaluations, {duration(time.perf_counter() - self.began)}; wrote {self.arguments.output}"
        )
        if result.iterations and not result.value < result.initial_value:
            self._say("the loss never fell below that of the first image: try a smaller --learning-rate, or l-bfgs-b")
        if result.stop == "non-finite":
            print(f"{NAME}: {result.stop_reason}; wrote the best image before that", file=sys.stderr)
            return EXIT_ERROR
        return EXIT_INTERRUPTED if result.stop == "interrupted" else 0

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
            "Versions": json.dumps(_versions()),
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
                self.log.write(json.dumps(entry) + "\n")
                self.log.flush()
            except OSError as error:
                message = f"cannot write {str(self.arguments.log)!r}: {error.strerror or error}"
                if entry["event"] == "start":
                    raise ValueError(message) from None
                self.log = None
                self._say(f"{message}; going on without a log")

    def _say(self, line: str) -> None:
        self.progress.write(f"{NAME}: {line}")


def _argument(parse: Any) -> Any:
    """Return an argparse type whose ValueError messages reach the user."""

    def argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(describe(error)) from None

    return argument


def _choice(kind: str, choices: Any) -> Any:
    """Return an argparse type for one of ``choices``, with the nearest one named when there is none."""

    def choose(text: str) -> str:
        if text not in choices:
            raise ValueError(unknown_name(kind, text, choices))
        return text

    return _argument(choose)


def _weights(text: str) -> tuple[float, ...]:
    return tuple(weight(part.strip()) for part in text.split(","))


def _with_layer_weights(options: Options) -> Options:
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


def _check_files(arguments: Any) -> None:
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
    log: Path | None = arguments.log
    if log is not None:
        if log.is_dir():
            raise ValueError(f"cannot write {str(log)!r}: it is a directory, give a file name")
        if log.is_fifo():
            raise ValueError(f"cannot write {str(log)!r}: it is a pipe, give a file name")
        if any(_same(log, picture) for picture in _pictures(arguments)) or _is_snapshot(arguments, log):
            raise ValueError(f"--log {str(log)!r} is also a picture's name: choose another")


def _check_not_written(arguments: Any, path: Path) -> None:
    """Raise ValueError when the run would write over ``path``, one of its inputs."""
    targets = [*_pictures(arguments), *([arguments.log] if arguments.log is not None else [])]
    if any(_same(path, target) for target in targets) or _is_snapshot(arguments, path):
        raise ValueError(f"{str(path)!r} is an input, it would be overwritten: choose another name for the output")


def _pictures(arguments: Any) -> list[Path]:
    """Return the pictures that are written whatever happens, so without the snapshots."""
    output: Path = arguments.output
    return [output, preview_path(output)] if arguments.preview else [output]


def _same(first: Path, second: Path) -> bool:
    if first.exists() and second.exists():
        return first.samefile(second)
    return os.path.realpath(first) == os.path.realpath(second)


def _is_snapshot(arguments: Any, path: Path) -> bool:
    """Say whether ``path`` is called as a snapshot would be."""
    # Not Path.resolve, which raises on a loop of links.
    output, path = Path(os.path.realpath(arguments.output)), Path(os.path.realpath(path))
    number = path.stem.removeprefix(f"{output.stem}-")
    named = path.stem == f"{output.stem}-{number}" and number.isdigit() and path.suffix == output.suffix
    return bool(arguments.save_every) and named and path.parent == output.parent


def _check_memory(needed: int, height: int, width: int, option: str) -> None:
    """Raise ValueError when there is less memory than is needed."""
    free = available_memory()
    if free is not None and needed > free:
        raise ValueError(
            f"{width}x{height} pixels need about {byte_count(needed)} of memory, {byte_count(free)} are available: "
            f"choose a smaller {option}"
        )


def _fitted(picture: Picture, long_side: int) -> tuple[int, int]:
    height, width, _ = picture.pixels.shape
    return fit(height, width, long_side)


def _initial(options: Options, painting: Path, height: int, width: int) -> Any:
    """Return the picture to begin with where it comes from a file, else None."""
    if options.init in ("noise", "content"):
        return None
    path = painting if options.init == "style" else Path(options.init)
    return load_image(path, size=(height, width)).pixels


@contextlib.contextmanager
def _log(path: Path | None) -> Iterator[TextIO | None]:
    if path is None:
        yield None
        return
    file = path.open("w", encoding="utf-8")
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # what could not be written has been reported already
            file.close()


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


def _versions() -> dict[str, str]:
    """Return the versions that the result depends on."""
    versions = {"python": platform.python_version(), "numpy": np.__version__}
    for package in (PROJECT, "scipy", "onnx", "pillow"):
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


if __name__ == "__main__":
    run(main)
