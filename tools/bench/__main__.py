"""Measure speed, memory and precision, alone or beside PyTorch: ``python -m tools.bench [--against torch]``.

What is measured is one evaluation of the paper's loss and its gradient, as the optimizer asks for it some hundred
times for a picture. What a network computes does not depend on its weights, so random ones serve as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from engine.load import CONVOLUTIONS
from engine.network import Network
from engine.optimize import METHODS
from engine.stylize import Settings, content_weight_of, initial_image
from kernels.cpu.threads import available_cores
from tools.bench import race
from tools.bench.cuda import VARIANTS, CudaReport, measure_on_cuda
from tools.bench.cuda_report import as_json as cuda_as_json
from tools.bench.cuda_report import render_cuda
from tools.bench.first_run import page
from tools.bench.first_run.first_run import first_run
from tools.bench.first_run.running import perform
from tools.bench.first_run.steps import STEPS, Plan
from tools.bench.memory import Memory, measure_memory, memory_of_this_process
from tools.bench.optimizer import OptimizerRun, measure_run
from tools.bench.precision import PRECISION_IMAGES, Precision, measure_precision
from tools.bench.programs import ENGINE, TORCH, threads_of
from tools.bench.report import Report, as_json, heading, render, table
from tools.bench.rivals import RIVALS
from tools.bench.speed import Speed, measure_speed
from tools.cli.command_line import (
    Parser,
    add_shared,
    given_path,
    natural_int,
    positive_int,
    run,
)
from tools.cli.machine import cpu_name, measured_versions
from tools.cli.memory import check_free
from tools.cli.progress import Progress
from tools.cli.rendering import remedied
from tools.media.files import check_writable, write_text
from tools.media.images import load_image
from tools.media.plot import check_plot
from tools.models.subject import LAYERS, Setup, add_network, build_network, description, pictures, resolved, setup_from
from tools.models.torch_vgg import OPTIMIZERS, import_torch

NAME = "bench"


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog=NAME, description="Measure speed, memory and precision of one evaluation, or of whole runs.")
    add_network(parser)
    parser.add_argument(
        "-s",
        "--size",
        type=_sizes,
        metavar="N,N,...",
        help="sides in pixels (default 256,512; with --first-run 512,1024,2048)",
    )
    parser.add_argument("--convolution", choices=CONVOLUTIONS, default="auto", help="the engine's, default auto")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda times a GPU instead: see docs/gpu.md"
    )
    parser.add_argument(
        "--first-run",
        type=given_path,
        metavar="DIR",
        help="with --device cuda: everything that is to be known of a GPU on which this has not run, written to DIR",
    )
    parser.add_argument("--perform", choices=tuple(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=natural_int, default=0, metavar="N", help="of weights and images")
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="rounds to time (default 5)")
    parser.add_argument("--against", choices=("torch",), help="also measure the same in PyTorch")
    parser.add_argument("--memory", action="store_true", help="also the peak memory, each in a process of its own")
    parser.add_argument("--precision", action="store_true", help="also the distance of float32 from float64")
    parser.add_argument("--iterations", type=positive_int, metavar="N", help="also a whole run of N iterations")
    parser.add_argument("--optimizer", choices=METHODS, default=METHODS[0], help="of the whole run (default l-bfgs-b)")
    parser.add_argument(
        "--race",
        type=given_path,
        nargs=2,
        metavar=("CONTENT", "STYLE"),
        help="whole runs on two pictures, here and by PyTorch's optimizers, of --iterations evaluations (default 300)",
    )
    parser.add_argument("--init", choices=("content", "noise"), default="content", help="what a race begins with")
    parser.add_argument(
        "--rivals",
        choices=("all", "usual"),
        default="all",
        help=f"in a race, all of PyTorch's optimizers or the usual ones alone: {' and '.join(race.USUAL)}",
    )
    parser.add_argument("--plot", type=given_path, metavar="FILE", help="draw the race (.svg or .png)")
    parser.add_argument("--json", type=given_path, metavar="FILE", help="write all numbers")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    add_shared(parser, shown="the result and errors")
    parser.add_argument("--memory-of", choices=(ENGINE, *TORCH), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    given = sys.argv[1:] if argv is None else argv
    arguments = build_parser().parse_args(given)
    if arguments.size is None:
        arguments.size = (256, 512) if arguments.first_run is None else (512, 1024, 2048)
    if arguments.first_run is not None:
        return _first_run(arguments, given)
    setup = replace(setup_from(arguments), convolution=arguments.convolution)
    if arguments.memory_of is not None:
        print(json.dumps(asdict(memory_of_this_process(setup, arguments.size[0], arguments.memory_of))))
        return 0
    if arguments.json is not None:
        check_writable(arguments.json)
        if arguments.json.exists() and Path(arguments.model).exists() and arguments.json.samefile(arguments.model):
            raise ValueError(
                f"--json {str(arguments.json)!r} is the model, it would be overwritten: choose another name"
            )
    if arguments.race is None:
        others = {"--rivals": arguments.rivals != "all", "--init": arguments.init != "content"}
        of_a_race = {"--plot": arguments.plot, **others}
        idle = next((option for option, is_given in of_a_race.items() if is_given), None)
        if idle is not None:
            raise ValueError(f"{idle} is of a race: give --race too")
        if arguments.optimizer != METHODS[0] and arguments.iterations is None and arguments.device != "cuda":
            raise ValueError("--optimizer is that of a whole run: give --iterations too")
    elif arguments.plot is not None:
        check_plot(arguments.plot)
    if arguments.against is not None or arguments.race is not None:
        import_torch()
    setup = resolved(setup, arguments.cache)
    if arguments.race is not None:
        return _race(setup, arguments)
    if arguments.device == "cuda":
        on_cuda = _measure_on_cuda(setup, arguments)
        print(render_cuda(on_cuda, arguments.markdown))
        if arguments.json is not None:
            write_text(arguments.json, json.dumps(cuda_as_json(on_cuda), indent=2) + "\n")
        return 0
    report = measure(setup, arguments)
    print(render(report, arguments.markdown))
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(as_json(report), indent=2) + "\n")
    return 0


def _race(setup: Setup, arguments: argparse.Namespace) -> int:
    """Let whole runs race, and print; return the exit code."""
    if arguments.device == "cuda":
        raise ValueError("a race is run on the CPU: leave out --device cuda")
    network = build_network(setup)
    size, evaluations = arguments.size[-1], arguments.iterations or RACE_EVALUATIONS
    content, style = (load_image(path, size) for path in arguments.race)
    with remedied("--size"):
        network.shapes(*content.size, LAYERS)
    needed = 2 * (network.memory(*content.size, LAYERS) + network.weight_bytes(LAYERS))
    check_free(network.device, needed, content.size, "choose a smaller --size")
    initial = initial_image(arguments.init, content.pixels, style.pixels, setup.seed)
    alpha = content_weight_of(Settings(), network, size)
    begun = "the photograph" if arguments.init == "content" else "white noise"
    names = " in the style of ".join(path.stem for path in arguments.race)
    title = f"{names}, {content.size[1]}x{content.size[0]} pixels, from {begun}, content weight {alpha:.2g}"
    rivals = OPTIMIZERS if arguments.rivals == "all" else race.USUAL
    with Progress((1 + len(rivals)) * evaluations, "evaluations", NAME, quiet=arguments.quiet) as progress:
        images = content.pixels, style.pixels, initial
        found = race.run_race(
            network, images, title, alpha, evaluations, lambda racer: progress.update(1, racer), rivals
        )
    heads = heading(
        description(setup, network), _threads(network, True), _machine(), measured_versions(True), arguments.markdown
    )
    header, rows = race.rows_of(found)
    print("\n\n".join([heads, *table(title, header, rows, race.notes_of(found), arguments.markdown)]))
    if arguments.plot is not None:
        race.draw(found, arguments.plot)
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(race.as_json(found), indent=2) + "\n")
    return 0


def _first_run(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    """Make the first run on a GPU, or in a process that it has started one of its steps; return the exit code."""
    if arguments.device != "cuda":
        raise ValueError("--first-run is for a GPU: give --device cuda too")
    folder: Path = arguments.first_run
    if arguments.perform is not None:
        setup = resolved(setup_from(arguments), arguments.cache)
        iterations = arguments.iterations or 500
        plan = Plan(setup, arguments.size, arguments.repeats, iterations, folder, arguments.cache)
        return perform(plan, arguments.perform)
    with Progress(len(STEPS), "steps", NAME, quiet=arguments.quiet) as progress:
        found = first_run(folder, given, lambda step: progress.update(1, step))
    print(page.printed(folder, found))
    return 0


RACE_EVALUATIONS = 300
"""Of each run of a race, unless another number is given."""

OF_THE_CPU = ("memory", "precision", "iterations", "optimizer", "convolution")
"""Options that have no meaning where a GPU is timed: it is timed with all algorithms, precision and optimizer too."""


def _measure_on_cuda(setup: Setup, arguments: argparse.Namespace) -> CudaReport:
    parser = build_parser()
    given = [f"--{name}" for name in OF_THE_CPU if getattr(arguments, name) != parser.get_default(name)]
    if given:
        raise ValueError(f"{given[0]} is for the CPU, leave it out with --device cuda")
    against_torch = arguments.against is not None
    per_size = len(VARIANTS) + len(RIVALS) * against_torch + 1
    with Progress(2 + per_size * len(arguments.size), "steps", NAME, quiet=arguments.quiet) as progress:
        return measure_on_cuda(
            build_network(setup),
            arguments.size,
            lambda size: pictures(size, setup.seed),
            arguments.repeats,
            against_torch=against_torch,
            on_step=lambda what: progress.update(1, what),
        )


def measure(setup: Setup, arguments: argparse.Namespace) -> Report:
    """Measure what the command line asks for."""
    network = build_network(setup)
    _check_sizes(network, arguments)
    layouts = TORCH if arguments.against else {}
    programs = [ENGINE, *layouts]
    iterations = arguments.iterations or 0
    # The lighter of PyTorch's layouts is not known beforehand: memory and precision are measured for all.
    per_size = len(programs) * (1 + arguments.repeats)
    per_size += len(programs) * arguments.memory + PRECISION_IMAGES * (len(programs) + 1) * arguments.precision
    per_size += iterations * (1 + bool(layouts))
    speed: list[Speed] = []
    memory: list[Memory] = []
    precision: list[Precision] = []
    runs: list[OptimizerRun] = []
    with Progress(per_size * len(arguments.size), "steps", NAME, quiet=arguments.quiet) as progress:
        for size in arguments.size:

            def step(size: int = size) -> None:
                progress.update(1, f"{size} pixels")

            speed.append(measure_speed(network, size, setup.seed, layouts, arguments.repeats, step))
            if arguments.memory:
                for program in programs:
                    memory.append(measure_memory(setup, size, program))
                    step()
            if arguments.precision:
                precision += measure_precision(network, size, setup.seed, layouts, step)
            if iterations:
                opponent = speed[-1].opponent
                layout = None if opponent is None else layouts[opponent]
                runs += measure_run(network, size, setup.seed, layout, iterations, step, method=arguments.optimizer)
    return Report(
        setup=setup,
        network=description(setup, network),
        threads=_threads(network, bool(layouts)),
        machine=_machine(),
        versions=measured_versions(bool(layouts)),
        speed=speed,
        memory=memory,
        precision=precision,
        runs=runs,
    )


def _threads(network: Network, with_torch: bool) -> dict[str, int]:
    """Return how many threads each program computes with."""
    threads = {ENGINE: threads_of(network)}
    return {**threads, "torch": import_torch().get_num_threads()} if with_torch else threads


def _machine() -> dict[str, Any]:
    return {"cpu": cpu_name(), "cores": available_cores(), "system": platform.platform()}


def _check_sizes(network: Network, arguments: argparse.Namespace) -> None:
    """Raise ValueError for a size that is too small for the network or too large for the memory."""
    for size in arguments.size:
        with remedied("--size"):
            network.shapes(size, size, LAYERS)
        needed = network.memory(size, size, LAYERS) + network.weight_bytes(LAYERS)
        # Float64 takes twice as much; autograd keeps all that the engine recomputes or stores as bits.
        needed *= 2 if arguments.precision or arguments.against else 1
        check_free(network.device, needed, (size, size), "choose a smaller --size")


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(positive_int(part.strip()) for part in text.split(","))


if __name__ == "__main__":
    run(main)
