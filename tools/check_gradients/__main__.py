"""Check the gradients of a model, by every means there is: ``python -m tools.check_gradients [-m MODEL]``.

The study itself is ``engine.gradcheck``; this is its command line. Exit code 0 when everything is as it should be, 1
when something is not, 2 for a wrong argument.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.device import DEVICES, choose_device
from engine.gradcheck.checks import TOLERANCES, Check
from engine.gradcheck.problem import Problem, in_precision
from engine.network import Network
from engine.ops import Array
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS
from tools.check_gradients.report import confidence_figure, page, precision_figure, steps_figure
from tools.check_gradients.study import Plan, Study, by_subject, run_study
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
from tools.cli.options import Options
from tools.cli.progress import Progress, duration
from tools.cli.rendering import check_layers, remedied
from tools.cli.text_table import aligned
from tools.media.files import check_folder, check_writable, write_text
from tools.media.images import load_image
from tools.media.plot import check_matplotlib
from tools.models.subject import Setup, add_network, build_network, pictures, resolved, setup_from
from tools.models.torch_vgg import operator_input_gradient, torch_objective

NAME = "check_gradients"

EXIT_FAILED = 1

WIDTH = 0.25
"""Of the random network: the factor on VGG-19's channels."""

MAX_DIRECTIONS, MAX_ITERATIONS = 1000, 100_000
"""More than these take days and tell nothing new."""

# What the study holds at once, in evaluations' worth of memory: every operator's output, in several precisions.
_MEMORY = 12


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog=NAME, description="Check the gradients of a model in every way, and print a verdict.")
    add_network(parser, WIDTH)
    parser.add_argument(
        "-s", "--size", type=positive_int, default=64, metavar="N", help="long side in pixels (default 64)"
    )
    parser.add_argument("--content", type=given_path, metavar="FILE", help="photograph (default: random patches)")
    parser.add_argument("--style", type=given_path, metavar="FILE", help="painting (default: random patches)")
    for kind, layers in (("content", PAPER_CONTENT_LAYERS), ("style", PAPER_STYLE_LAYERS)):
        parser.add_argument(
            f"--{kind}-layers",
            type=_layers,
            default=layers,
            metavar="LAYER,...",
            help=f"default {','.join(layers)}; none leaves them out",
        )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="cuda, or auto where there is one: also compare a GPU with float64",
    )
    parser.add_argument("--seed", type=natural_int, default=0, metavar="N", help="of pictures and directions")
    parser.add_argument(
        "--directions", type=positive_int, default=Plan().directions, metavar="N", help="for each check (default 4)"
    )
    parser.add_argument(
        "-n",
        "--iterations",
        type=natural_int,
        default=Plan().iterations[-1],
        metavar="N",
        help="of the run along which the checks are repeated (default 100)",
    )
    parser.add_argument(
        "--report", type=given_path, metavar="DIR", help="write index.html, its plots and study.json there"
    )
    parser.add_argument(
        "--without-torch", action="store_true", help="do not compare with PyTorch where it is installed"
    )
    add_shared(parser, shown="the result and errors")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; return the exit code."""
    arguments = build_parser().parse_args(argv)
    setup = setup_from(arguments, WIDTH)
    for name, most in (("directions", MAX_DIRECTIONS), ("iterations", MAX_ITERATIONS)):
        if getattr(arguments, name) > most:
            raise ValueError(f"--{name} must be at most {most}")
    gpu = choose_device(arguments.device) == "cuda"
    if arguments.report is not None:
        _check_folder(arguments.report)
        check_matplotlib()
    problem = build_problem(arguments, setup)
    plan = replace(Plan(), gpu=gpu, directions=arguments.directions, iterations=_stations(arguments.iterations))
    torch = importlib.util.find_spec("torch") is not None and not arguments.without_torch
    obstacle = _torch_obstacle(problem) if torch else None
    began = time.monotonic()
    with Progress(plan.work, "steps", NAME, quiet=arguments.quiet) as progress:
        study = run_study(
            problem,
            plan,
            arguments.seed,
            operator_input_gradient if torch else None,
            _torch_gradient if torch and obstacle is None else None,
            lambda doing: progress.update(1, doing),
        )
    about = describe(arguments, problem, torch, time.monotonic() - began, argv)
    if obstacle is not None:
        about["PyTorch"] = f"compared operator by operator only: {obstacle}"
    print(render(study, about))
    if arguments.report is not None:
        write_report(study, about, arguments.report)
        print(f"wrote {arguments.report / 'index.html'}, its plots and {arguments.report / 'study.json'}")
    return EXIT_FAILED if study.failures() else 0


def build_problem(arguments: argparse.Namespace, setup: Setup) -> Problem:
    """Return the problem that the command line describes; raises ValueError when it does not fit."""
    network = build_network(resolved(setup, arguments.cache))
    if not arguments.content_layers and not arguments.style_layers:
        raise ValueError("there is nothing to check: name at least one content or style layer")
    layers = tuple(dict.fromkeys([*arguments.style_layers, *arguments.content_layers]))
    check_layers(network, Options(content_layers=arguments.content_layers, style_layers=arguments.style_layers))
    _check_memory(network, arguments.size, arguments.size, layers)
    content, style, image = pictures(arguments.size, arguments.seed)
    if arguments.content is not None:
        content = _picture(arguments.content, arguments.size)
        # A step away from the photograph: there the content loss and its gradient would be exactly 0.
        noise = np.random.default_rng(arguments.seed).uniform(-20, 20, content.shape)
        image = np.clip(content + noise, 0, 255)
    if arguments.style is not None:
        style = _picture(arguments.style, arguments.size)
    for picture in (content, style):
        with remedied("--size"):
            network.shapes(picture.shape[0], picture.shape[1], layers)
    problem = Problem(
        in_precision(network, "float64"),
        content,
        style,
        np.asarray(image, np.float64),
        arguments.content_layers,
        arguments.style_layers,
        network.content_weight,
    )
    _, gradient = problem.objective()(problem.image)
    if not gradient.any():
        raise ValueError("there is nothing to check: the gradient is zero, for no layer responds to the image")
    return problem


def _picture(path: Path, size: int) -> Array:
    return np.asarray(load_image(path, long_side=size).pixels, np.float64)


def _check_memory(network: Network, height: int, width: int, layers: tuple[str, ...]) -> None:
    needed = _MEMORY * network.memory(height, width, layers) + 4 * network.weight_bytes(layers)
    check_free(network.device, needed, (height, width), "choose a smaller --size")


def _stations(iterations: int) -> tuple[int, ...]:
    """Return the iterates at which the checks are repeated: 0, a tenth, and the last."""
    return tuple(dict.fromkeys((0, iterations // 10, iterations)))


def _torch_obstacle(problem: Problem) -> str | None:
    """Return why PyTorch's twin cannot run the problem's network, or None."""
    try:
        _torch_gradient(problem)
    except ValueError as error:
        return str(error)
    return None


def _torch_gradient(problem: Problem) -> tuple[float, Array]:
    twin = torch_objective(
        problem.network,
        problem.content,
        problem.style,
        problem.content_layers,
        problem.style_layers,
        problem.content_weight,
        problem.style_weight,
    )
    return twin(problem.image)


# ---- what was found, on the terminal ----


def describe(
    arguments: argparse.Namespace, problem: Problem, torch: bool, seconds: float, argv: Sequence[str] | None
) -> dict[str, str]:
    """Return what was checked and where, as names and texts."""
    height, width, _ = problem.image.shape
    if arguments.model == "random":
        model = f"VGG-19 with random weights, {arguments.width or WIDTH:g} of its width"
    else:
        model = Path(arguments.model).name
    found = measured_versions(torch)
    return {
        "model": f"{model}, {arguments.pooling} pooling",
        "image": f"{width} x {height} pixels",
        "layers": f"content {', '.join(problem.content_layers) or 'none'}; "
        f"style {', '.join(problem.style_layers) or 'none'}",
        "seed": str(arguments.seed),
        "directions": str(arguments.directions),
        "machine": f"{cpu_name()}, {problem.network.device.name}",
        "versions": ", ".join(f"{name} {number}" for name, number in found.items()),
        "time": duration(seconds),
        "command": shlex.join(["python", "-m", f"tools.{NAME}", *(sys.argv[1:] if argv is None else argv)]),
    }


def render(study: Study, about: dict[str, str]) -> str:
    """Return the study as text for a terminal."""
    lines = [f"{key}: {about[key]}" for key in ("model", "image", "layers", "time", "PyTorch") if key in about]
    lines += ["", *_check_table(study.checks), "", "error: relative; x: above what is allowed", ""]
    lines += ["Step sizes: error = a h^order + b / h", *_step_table(study), ""]
    lines += ["Kinks: decisions that change between x - h d and x + h d", *_kink_table(study), ""]
    lines += ["Float32 against float64, gradient", *_precision_table(study), ""]
    if study.gpu:
        lines += ["The GPU against float64, gradient", *_gpu_table(study), ""]
    lines += ["Along a run: errors grow, and so does what is allowed, as the gradient shrinks", *_path_table(study), ""]
    lines += ["Random directions against single coordinates", *_detection_table(study), ""]
    lines += [f"Published formulas: {study.formula_summary()}", f"Faults: {study.fault_summary()}", ""]
    failures = study.failures()
    if failures:
        lines += [f"FAILED: {failure}" for failure in failures]
    else:
        lines.append(f"passed: {len(study.all_checks)} checks, largest error {_worst(study):.1e} of what is allowed")
    return "\n".join(lines)


def _worst(study: Study) -> float:
    return max(check.agreement.error / check.tolerance for check in study.all_checks)


def _check_table(checks: Sequence[Check]) -> list[str]:
    methods = [method for method in TOLERANCES if any(check.method == method for check in checks)]
    rows = [["", *methods]]
    for subject, found in by_subject(checks).items():
        rows.append([subject, *(_cell(found.get(method)) for method in methods)])
    return aligned(rows, "<>")


def _cell(check: Check | None) -> str:
    if check is None:
        return ""
    factor = f" factor {check.factor}" if check.factor and not check.passed else ""
    return f"{check.agreement.error:.1e}{'' if check.passed else ' x'}{factor}"


def _step_table(study: Study) -> list[str]:
    rows = [["", "order", "a", "b", "best h", "error there"]]
    for one in study.steps:
        rows.append(
            [
                one.name,
                f"{one.order:.2f}",
                f"{one.truncation:.1e}",
                f"{one.rounding:.1e}",
                f"{one.best_step:.1e}",
                f"{one.best_error:.1e}",
            ]
        )
    return aligned(rows, "<>")


def _kink_table(study: Study) -> list[str]:
    rows = [["h", "changes", "error without a change", "error with", "error, decisions held"]]
    for step in study.kinks.steps:
        rows.append(
            [
                f"{step.step:g}",
                f"{step.changed:.1f}",
                _or_none(step.error_without, step.directions_without),
                _or_none(step.error_with, step.directions_with),
                f"{step.error_held:.1e}",
            ]
        )
    return aligned(rows, "<>")


def _or_none(error: float | None, directions: int) -> str:
    return "-" if error is None else f"{error:.1e} ({directions} directions)"


def _precision_table(study: Study) -> list[str]:
    rows = [["", "value", "gradient"]]
    rows += [[one.name, f"{one.value:.1e}", f"{one.gradient:.1e}"] for one in study.precision]
    return aligned(rows, "<>")


def _gpu_table(study: Study) -> list[str]:
    rows = [["", "value", "gradient"]]
    for one in study.gpu:
        errors = ["-" if error is None else f"{error:.1e}" for error in (one.value, one.gradient)]
        rows.append([one.name, *errors])
    return [*aligned(rows, "<>"), *(f"{one.name}: {one.reason}" for one in study.gpu if one.reason)]


def _path_table(study: Study) -> list[str]:
    rows = [["iterate", "loss", "at bounds", *(check.method for check in study.stations[0].checks), "float32, fast"]]
    for station in study.stations:
        rows.append(
            [
                str(station.iteration),
                f"{station.value:.4g}",
                f"{100 * station.at_bounds:.1f} %",
                *(_cell(check) for check in station.checks),
                f"{station.precision[-1].gradient:.1e}",
            ]
        )
    return aligned(rows, "<>")


def _detection_table(study: Study) -> list[str]:
    rows = [["wrong coordinates", "one direction", "simulated", "directions", "coordinates"]]
    for one in study.detection:
        rows.append(
            [
                f"{100 * one.fraction:g} %",
                f"{one.one_direction:.5f}",
                f"{one.simulated:.5f}",
                f"{one.directions:g}",
                f"{one.coordinates:g}",
            ]
        )
    return aligned(rows, "<>")


# ---- the report ----


def write_report(study: Study, about: dict[str, str], folder: Path) -> None:
    """Write the page, the plots and the numbers."""
    folder.mkdir(exist_ok=True)
    write_text(folder / "study.json", json.dumps({"about": about, **study.as_json()}, indent=2) + "\n")
    files = {
        "index.html": page(study, about),
        "steps.svg": steps_figure(study),
        "precision.svg": precision_figure(study),
        "confidence.svg": confidence_figure(study),
    }
    for name, text in files.items():
        write_text(folder / name, text)


def _check_folder(folder: Path) -> None:
    """Raise ValueError unless the report can be written to ``folder``, which may not exist yet."""
    check_folder(folder)
    if not folder.exists() and not folder.parent.is_dir():
        raise ValueError(f"--report {str(folder)!r}: the folder {str(folder.parent)!r} does not exist")
    check_writable(folder / "index.html" if folder.exists() else folder)


def _layers(text: str) -> tuple[str, ...]:
    if text == "none":
        return ()
    names = tuple(part.strip() for part in text.split(","))
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name or names a layer twice")
    return names


if __name__ == "__main__":
    run(main)
