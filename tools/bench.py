"""Measure speed, memory and precision, alone or beside PyTorch: ``python -m tools.bench [--against torch]``.

What is measured is one evaluation of the paper's loss and its gradient, as the optimiser asks for it some hundred
times for a picture. What a network computes does not depend on its weights, so random ones serve as well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from engine.gradcheck.problem import in_precision
from engine.network import CONVOLUTIONS, POOLINGS, Network, load_network, with_pooling
from engine.objective import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS, Objective
from engine.ops import Array
from engine.optimize import METHODS, Iteration, minimize
from engine.preprocessing import PREPROCESSING, named_preprocessing
from engine.vgg import PAPER_CONTENT_WEIGHT, layer_names
from kernels.cpu.threads import Workers, available_cores
from tools.bench_cuda import measure_on_cuda, render_cuda
from tools.command_line import Parser, natural_int, positive_float, positive_int, run, thread_count
from tools.files import check_writable, replacing
from tools.memory import available_memory, kernel_bytes
from tools.models import random_vgg, resolve_model
from tools.progress import Progress, byte_count
from tools.torch_vgg import LAYOUTS, TorchObjective, import_torch, minimize_with_torch, torch_objective

NAME = "bench"

ENGINE = "engine"
TORCH = {f"torch, {layout}": layout for layout in LAYOUTS}
"""PyTorch with each layout of its activations."""

AGREEMENT = 1e-2
"""Relative distance between two programs' results from which on they do not compute the same thing.

In float32 they differ by 1e-7, or up to 1e-3 where rounding puts a value on the other side of a ReLU; a wrong window
or weight makes them differ by about 1.
"""

PRECISION_IMAGES = 5
"""Images that the precision is the median of: whether rounding crosses a ReLU differs from one to the next."""

COLUMNS = 100

PAUSE = 0.05
"""Seconds between two measurements: OpenMP's and OpenBLAS's threads keep their cores busy for a while after work."""

Evaluate = Callable[[], object]


# ---- what is measured ----


@dataclass(frozen=True)
class Setup:
    """The network that is measured, and what with.

    Parameters
    ----------
    model : ``"random"`` or an ONNX file.
    width : factor on the channels of the random network.
    pooling, preprocessing, convolution, threads : as in ``engine.load_network``.
    seed : of the random weights and images.
    """

    model: str = "random"
    width: float = 1.0
    pooling: str = "average"
    preprocessing: str | None = None
    convolution: str = "auto"
    threads: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Ratio:
    """How many times as long PyTorch took as the engine; above 1 the engine is faster.

    Parameters
    ----------
    median, lowest, highest : of the rounds' ratios.
    """

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Speed:
    """The times of one evaluation at one size.

    Parameters
    ----------
    size : side of the square image in pixels.
    multiply_adds : of the convolutions in one forward pass.
    seconds : by program, one for each round.
    differences : by program other than the engine, the relative distance of value and gradient from the engine's.
    """

    size: int
    multiply_adds: int
    seconds: Mapping[str, Sequence[float]]
    differences: Mapping[str, tuple[float, float]]

    def median(self, program: str) -> float:
        """Return the median time of a program in seconds."""
        return statistics.median(self.seconds[program])

    def gflops(self, program: str) -> float:
        """Return 10^9 operations a second.

        Two for each multiply-add, and as many again for the gradient with respect to the layer's input: the count of
        the plain algorithm, whatever the program really does. The rest of the work is not counted.
        """
        return 2 * 2 * self.multiply_adds / self.median(program) / 1e9

    @property
    def opponent(self) -> str | None:
        """The faster of the programs beside the engine, None when there is none."""
        others = [program for program in self.seconds if program != ENGINE]
        return min(others, key=self.median, default=None)

    @property
    def ratio(self) -> Ratio | None:
        """The engine's speed relative to the opponent's."""
        return None if self.opponent is None else speed_ratio(self.seconds[ENGINE], self.seconds[self.opponent])


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process that evaluates at one size, in bytes.

    Parameters
    ----------
    size : side of the square image in pixels.
    program : who.
    imports : after the imports, before anything is built.
    ready : with the weights and the losses' targets, before the first evaluation.
    peak : the largest during two evaluations, or, where ``whole_process``, since the process began.
    whole_process : whether the system tells the peak of the whole process only.
    estimate : what the engine's own estimate gives for ``peak - imports``; None for the others.
    """

    size: int
    program: str
    imports: int
    ready: int
    peak: int
    whole_process: bool
    estimate: int | None


@dataclass(frozen=True)
class Precision:
    """Relative distance of a program in float32 from the engine in float64.

    Parameters
    ----------
    size : side of the square images in pixels.
    program : who.
    values, gradients : the distances of the values and of the gradients (L2), one for each image.
    """

    size: int
    program: str
    values: Sequence[float]
    gradients: Sequence[float]


@dataclass(frozen=True)
class OptimiserRun:
    """A whole run of L-BFGS.

    Parameters
    ----------
    size : side of the square image in pixels.
    program : who.
    iterations : how many were made; None where the optimiser does not tell.
    evaluations : how many were made.
    seconds : of the run.
    evaluating : the part of it inside the evaluations; the rest is the optimiser's own.
    starting : the part of that rest before the end of the first iteration; None where the optimiser does not tell.
    initial_value, value : the first loss and the lowest.
    """

    size: int
    program: str
    iterations: int | None
    evaluations: int
    seconds: float
    evaluating: float
    starting: float | None
    initial_value: float
    value: float

    @property
    def overhead(self) -> float:
        """The seconds outside the evaluations."""
        return self.seconds - self.evaluating


@dataclass(frozen=True)
class Report:
    """All that was measured."""

    setup: Setup
    network: str
    threads: Mapping[str, int]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    speed: Sequence[Speed]
    memory: Sequence[Memory]
    precision: Sequence[Precision]
    runs: Sequence[OptimiserRun]


# ---- measuring ----


def speed_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio of each round's times, theirs / ours: the median, the lowest and the highest.

    Times of one round are measured one right after the other, so that what slows the machine for a while slows both.
    """
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def time_in_turn(
    programs: Mapping[str, Evaluate],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    on_call: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the times in seconds of each program, called in turn, ``repeats`` rounds.

    Parameters
    ----------
    programs : by name, what to call.
    repeats : how many rounds.
    clock, sleep : for tests.
    on_call : called after each measurement.
    """
    seconds: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(repeats):
        for program, evaluate in programs.items():
            sleep(PAUSE)
            began = clock()
            evaluate()
            seconds[program].append(clock() - began)
            on_call()
    return seconds


def relative_difference(found: tuple[Any, Array], expected: tuple[Any, Array]) -> tuple[float, float]:
    """Return the relative distance of a value and of a gradient (L2) from what was expected."""
    (value, gradient), (expected_value, expected_gradient) = found, expected
    return (
        _relative(abs(value - expected_value), abs(expected_value)),
        _relative(np.linalg.norm(gradient - expected_gradient), np.linalg.norm(expected_gradient)),
    )


def build_network(setup: Setup) -> Network:
    """Return the network in float32: a full VGG-19 with random weights, or one from a file."""
    if setup.model != "random":
        return load_network(
            setup.model,
            pooling=setup.pooling,
            preprocessing=setup.preprocessing,
            threads=setup.threads,
            convolution=setup.convolution,
        )
    nodes = tuple(with_pooling(node, setup.pooling) for node in random_vgg("vgg19", setup.seed, setup.width))
    return Network(
        nodes=nodes,
        outputs=layer_names(nodes),
        preprocessing=named_preprocessing(setup.preprocessing or "caffe"),
        dtype=np.dtype(np.float32),
        device="cpu",
        content_weight=PAPER_CONTENT_WEIGHT,
        rejected=(),
        workers=Workers(setup.threads),
        convolution=setup.convolution,
    )


def pictures(size: int, seed: int) -> tuple[Array, Array, Array]:
    """Return a photograph, a painting and an image to begin with, (size, size, 3), at random.

    Patches of different sizes and contrasts: between images that are all of one kind the losses would be almost zero,
    and rounding would look larger than it is.
    """
    random = np.random.default_rng(seed)

    def patches(side: int) -> Array:
        count = -(-size // side)
        return np.kron(random.uniform(0.0, 255.0, (count, count, 3)), np.ones((side, side, 1)))[:size, :size]

    return patches(16), patches(4) ** 2 / 255, patches(1)


def build_objective(network: Network, content: Array, style: Array) -> Objective:
    """Return the engine's objective on the paper's layers."""
    return Objective(network, content, style, content_weight=network.content_weight)


def build_twin(network: Network, content: Array, style: Array, layout: str) -> TorchObjective:
    """Return the same in PyTorch, which gets the same number of threads."""
    import_torch().set_num_threads(network.workers.threads)
    return torch_objective(network, content, style, content_weight=network.content_weight, layout=layout)


def measure_speed(
    network: Network, size: int, seed: int, layouts: Mapping[str, str], repeats: int, on_call: Callable[[], object]
) -> Speed:
    """Time one evaluation of the engine and of PyTorch in turn.

    Parameters
    ----------
    network : in float32.
    size : side of the square image in pixels.
    seed : of the images.
    layouts : of PyTorch, by program; empty for the engine alone.
    repeats : how many rounds, after one that is not counted.
    on_call : called after each evaluation.

    Raises ValueError when their results differ by more than ``AGREEMENT``.
    """
    content, style, image = pictures(size, seed)
    objective = build_objective(network, content, style)
    expected = objective(image)
    on_call()
    programs: dict[str, Evaluate] = {ENGINE: lambda: objective(image)}
    differences = {}
    for program, layout in layouts.items():
        twin = build_twin(network, content, style, layout)
        differences[program] = relative_difference(twin(image), expected)
        check_agreement(program, size, *differences[program])
        on_call()
        programs[program] = _evaluation(twin, image)
    seconds = time_in_turn(programs, repeats, on_call=on_call)
    return Speed(size, network.multiply_adds(size, size, objective.layers), seconds, differences)


def check_agreement(program: str, size: int, value: float, gradient: float) -> None:
    """Raise ValueError when relative differences from the engine's value and gradient are not small."""
    if not (value < AGREEMENT and gradient < AGREEMENT):
        raise ValueError(
            f"{program} and the engine differ at {size} pixels by {value:.2g} in the value and {gradient:.2g} in the "
            f"gradient, more than {AGREEMENT:g}: one of them is wrong, their times say nothing"
        )


def measure_precision(
    network: Network, size: int, seed: int, layouts: Mapping[str, str], on_call: Callable[[], object]
) -> list[Precision]:
    """Compare value and gradient in float32 with the engine's in float64, on the same weights."""
    content, style, first = pictures(size, seed)
    images = [first, *(pictures(size, seed + number)[2] for number in range(1, PRECISION_IMAGES))]

    def results(function: Callable[[Array], tuple[Any, Array]]) -> list[tuple[Any, Array]]:
        found = []
        for image in images:
            found.append(function(image))
            on_call()
        return found

    exact = results(build_objective(in_precision(network, "float64"), content, style))
    measured = []
    for program in (ENGINE, *layouts):
        function: Callable[[Array], tuple[Any, Array]] = (
            build_objective(network, content, style)
            if program == ENGINE
            else build_twin(network, content, style, layouts[program])
        )
        differences = [relative_difference(*pair) for pair in zip(results(function), exact, strict=True)]
        values, gradients = zip(*differences, strict=True)
        measured.append(Precision(size, program, values, gradients))
    return measured


def measure_run(
    network: Network,
    size: int,
    seed: int,
    layout: str | None,
    iterations: int,
    on_step: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
    method: str = "l-bfgs-b",
) -> list[OptimiserRun]:
    """Time a whole run of an optimiser, and PyTorch's L-BFGS with as many evaluations.

    Parameters
    ----------
    network : in float32.
    size : side of the square image in pixels.
    seed : of the images.
    layout : of PyTorch, None for the engine alone.
    iterations : of the engine's run.
    on_step : called ``iterations`` times in all for each program.
    clock : returns the time in seconds.
    method : of ``engine.optimize.minimize``.
    """
    content, style, image = pictures(size, seed)
    objective = build_objective(network, content, style)
    evaluating, starting = 0.0, 0.0

    def timed(image: Array) -> tuple[Any, Array]:
        nonlocal evaluating
        began = clock()
        result = objective(image)
        evaluating += clock() - began
        return result

    def callback(state: Iteration) -> None:
        nonlocal starting
        if state.iteration == 1:
            starting = clock() - began - evaluating
        on_step()

    began = clock()
    result = minimize(timed, image, method, iterations, callback=callback, workers=network.workers)
    seconds = clock() - began
    for _ in range(iterations - result.iterations):
        on_step()
    runs = [
        OptimiserRun(
            size,
            f"{ENGINE}, {method}",
            result.iterations,
            result.evaluations,
            seconds,
            evaluating,
            starting,
            result.initial_value,
            result.value,
        )
    ]
    if layout is not None:
        twin = build_twin(network, content, style, layout)
        twin(image)
        steps = _Shared(iterations, result.evaluations, on_step)
        theirs = minimize_with_torch(twin, image, result.evaluations, on_evaluation=steps.one, clock=clock)
        program = next(name for name, value in TORCH.items() if value == layout)
        runs.append(
            OptimiserRun(
                size,
                program,
                None,
                theirs.evaluations,
                theirs.seconds,
                theirs.evaluating,
                None,
                theirs.initial_value,
                theirs.value,
            )
        )
    return runs


def _evaluation(twin: TorchObjective, image: Array) -> Evaluate:
    """Return a call of PyTorch on its own kind of image: what its optimiser would hand it."""
    pixels = twin.tensor(image)
    return lambda: twin.evaluate(pixels)


def _relative(distance: Any, size: Any) -> float:
    return float(distance / size) if size > 0 else math.inf if distance > 0 else 0.0


class _Shared:
    """Calls ``on_step`` ``steps`` times, spread over ``calls`` calls of ``one``."""

    def __init__(self, steps: int, calls: int, on_step: Callable[[], object]) -> None:
        self.steps, self.calls, self.on_step = steps, calls, on_step
        self.called = 0

    def one(self) -> None:
        before, self.called = self.called, self.called + 1
        for _ in range(self.called * self.steps // self.calls - before * self.steps // self.calls):
            self.on_step()


# ---- memory: each program in a process of its own ----


def measure_memory(setup: Setup, size: int, program: str) -> Memory:
    """Evaluate in a new process and return its memory.

    Raises ValueError when that process fails, or the system tells nobody's memory.
    """
    command = [
        *(sys.executable, "-m", "tools.bench", "--memory-of", program, "--size", str(size), "--model", setup.model),
        *("--pooling", setup.pooling, "--convolution", setup.convolution, "--seed", str(setup.seed)),
        *(("--width", str(setup.width)) if setup.model == "random" else ()),
        *(() if setup.threads is None else ("--threads", str(setup.threads))),
        *(() if setup.preprocessing is None else ("--preprocessing", setup.preprocessing)),
    ]
    # The new process must find this package wherever it was imported from.
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode < 0:
        raise ValueError(
            f"the process that measures the memory of {program} at {size} pixels was killed by signal "
            f"{-done.returncode}: most likely there is not enough memory, choose a smaller --size"
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix(f"{NAME}: ")
        raise ValueError(f"the memory of {program} at {size} pixels cannot be measured: {reason}")
    return Memory(**json.loads(done.stdout))


def memory_of_this_process(setup: Setup, size: int, program: str) -> Memory:
    """Evaluate here and return this process's memory; what the new process of ``measure_memory`` runs."""
    if program != ENGINE:
        import_torch()
    imports = _resident_memory()
    network = build_network(setup)
    content, style, image = pictures(size, setup.seed)
    estimate = None
    evaluate: Evaluate
    if program == ENGINE:
        objective = build_objective(network, content, style)
        layers = objective.layers
        estimate = network.memory(size, size, layers) + network.weight_bytes(layers)
        evaluate = _evaluation_of_engine(objective, image)
    else:
        evaluate = _evaluation(build_twin(network, content, style, TORCH[program]), image)
    # PyTorch has copies of the weights, and a run would not keep the images.
    del network, content, style, image
    whole_process = not _forget_peak()
    ready = _resident_memory()
    # What is made once, such as the turned weights, is made in the first evaluation and there in the second.
    for _ in range(2):
        evaluate()
    return Memory(size, program, imports, ready, _peak_memory(), whole_process, estimate)


def _evaluation_of_engine(objective: Objective, image: Array) -> Evaluate:
    return lambda: objective(image)


def _forget_peak() -> bool:
    """Let the peak of this process begin anew; return whether the system can do that."""
    try:
        # Linux: "5" sets VmHWM back to VmRSS (man 5 proc).
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return kernel_bytes(Path("/proc/self/status"), "VmHWM") is not None


def _resident_memory() -> int:
    """Return the bytes this process has in memory, or its peak so far where the system tells that only."""
    resident = kernel_bytes(Path("/proc/self/status"), "VmRSS")
    return _peak_memory() if resident is None else resident


def _peak_memory() -> int:
    # Linux's ru_maxrss is of no use here: a process inherits that of the one it was started from (man 2 getrusage).
    peak = kernel_bytes(Path("/proc/self/status"), "VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        raise ValueError("this system does not tell how much memory a process takes") from None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


# ---- the machine ----


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model name."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown"


def versions(with_torch: bool) -> dict[str, str]:
    """Return the versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for package in ("neural-style-by-hand", "scipy", *(("torch",) if with_torch else ())):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for library in threadpool_info():
        # NumPy's: scipy may bring a copy of its own.
        if library["user_api"] == "blas" and "scipy.libs" not in library["filepath"]:
            found[library["internal_api"]] = f"{library['version']} {library.get('architecture') or ''}".strip()
    return found


# ---- the report ----


def as_json(report: Report) -> dict[str, Any]:
    """Return all numbers, those that follow from others included."""
    facts = asdict(report)
    for entry, speed in zip(facts["speed"], report.speed, strict=True):
        entry["median_seconds"] = {program: speed.median(program) for program in speed.seconds}
        entry["gflops"] = {program: speed.gflops(program) for program in speed.seconds}
        entry["opponent"] = speed.opponent
        entry["speed_ratio"] = None if speed.ratio is None else asdict(speed.ratio)
    for entry, one in zip(facts["runs"], report.runs, strict=True):
        entry["overhead"] = one.overhead
        entry["seconds_per_iteration"] = one.seconds / one.iterations if one.iterations else None
    for entry, distance in zip(facts["precision"], report.precision, strict=True):
        entry["median_value"] = statistics.median(distance.values)
        entry["median_gradient"] = statistics.median(distance.gradients)
    return facts


def render(report: Report, markdown: bool = False) -> str:
    """Return the report as text of at most ``COLUMNS`` columns, or as Markdown."""
    threads = " and ".join(f"{program} {count}" for program, count in report.threads.items())
    facts = [
        f"network: {report.network}",
        f"CPU: {report.machine['cpu']}, {report.machine['cores']} cores; threads: {threads}",
        "versions: " + ", ".join(f"{name} {number}" for name, number in report.versions.items()),
    ]
    if not markdown:
        facts = [textwrap.fill(fact, COLUMNS, subsequent_indent="  ") for fact in facts]
    parts = ["\n".join(f"- {fact}" if markdown else fact for fact in facts)]
    for title, header, rows, notes in _tables(report):
        table = markdown_table(header, rows) if markdown else aligned_table(header, rows)
        parts.append("\n".join([f"**{title}**\n" if markdown else title, *table]))
        parts.extend("\n".join(notes) for _ in range(bool(notes)))
    return "\n\n".join(parts)


def aligned_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in columns: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if title in _TEXT_COLUMNS else cell.rjust(width)
            for title, cell, width in zip(header, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    rule = ["---" if title in _TEXT_COLUMNS else "---:" for title in header]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]


_TEXT_COLUMNS = ("program",)

Table = tuple[str, Sequence[str], list[list[str]], list[str]]


def _tables(report: Report) -> list[Table]:
    """Return title, header, rows and notes of each table that has rows."""
    tables = [_speed_table(report), _memory_table(report), _precision_table(report), _run_table(report)]
    return [table for table in tables if table[2]]


def _speed_table(report: Report) -> Table:
    programs = list(report.speed[0].seconds) if report.speed else []
    others = programs[1:]
    header = ["size", ENGINE, "GFLOP/s", *others]
    rows = []
    for speed in report.speed:
        row = [str(speed.size), _seconds(speed.median(ENGINE)), f"{speed.gflops(ENGINE):.0f}"]
        row += [_seconds(speed.median(program)) for program in others]
        if speed.opponent is not None and speed.ratio is not None:
            row.append(f"{speed.gflops(speed.opponent):.0f}")
            row.append(f"{speed.ratio.median:.2f}")
            row.append(f"{speed.ratio.lowest:.2f}-{speed.ratio.highest:.2f}")
        rows.append(row)
    rounds = len(report.speed[0].seconds[ENGINE]) if report.speed else 0
    notes = ["GFLOP/s: operations of the convolutions as defined, forward and backward, by the time"]
    if others:
        header += ["GFLOP/s", "speed ratio", "spread"]
        value, gradient = (
            max(difference[index] for speed in report.speed for difference in speed.differences.values())
            for index in range(2)
        )
        notes += [
            "speed ratio: time of the faster torch / time of the engine, above 1 the engine is faster",
            f"largest difference between them: value {value:.1e}, gradient {gradient:.1e} (relative)",
        ]
    return f"One value and gradient, median of {rounds}{' in turn' if others else ''}", header, rows, notes


def _memory_table(report: Report) -> Table:
    header = ["size", "program", "imports", "ready", "peak", "peak - imports", "estimated"]
    rows = [
        [
            str(one.size),
            one.program,
            *(byte_count(number) for number in (one.imports, one.ready, one.peak, one.peak - one.imports)),
            "" if one.estimate is None else byte_count(one.estimate),
        ]
        for one in report.memory
    ]
    notes = ["ready: with weights and targets; peak: of two evaluations"]
    if any(one.whole_process for one in report.memory):
        notes.append("this system tells the peak of the whole process only, building the network included")
    return "Resident memory of a process", header, rows, notes


def _precision_table(report: Report) -> Table:
    header = ["size", "program", "value", "gradient", "largest value", "largest gradient"]
    rows = [
        [
            str(one.size),
            one.program,
            *(f"{statistics.median(distances):.1e}" for distances in (one.values, one.gradients)),
            *(f"{max(distances):.1e}" for distances in (one.values, one.gradients)),
        ]
        for one in report.precision
    ]
    title = f"Relative distance of float32 from the engine in float64, median of {PRECISION_IMAGES} images"
    return title, header, rows, []


def _run_table(report: Report) -> Table:
    header = ["size", "program", "iterations", "calls", "time", "each", "optimiser", "its start", "loss"]
    rows = [
        [
            str(one.size),
            one.program,
            "" if one.iterations is None else str(one.iterations),
            str(one.evaluations),
            _seconds(one.seconds),
            _seconds(one.seconds / one.iterations) if one.iterations else "",
            _seconds(one.overhead),
            "" if one.starting is None else _seconds(one.starting),
            f"{one.value:.4g}",
        ]
        for one in report.runs
    ]
    first = report.runs[0].initial_value if report.runs else 0.0
    notes = [
        "calls: evaluations; each: time an iteration; optimiser: time outside the evaluations, its start:",
        "the part of it until the end of the first iteration",
    ]
    if any(one.program != ENGINE for one in report.runs):
        notes.append("torch.optim.LBFGS runs without bounds, the engine within 0..255")
    return f"L-BFGS from a loss of {first:.4g}", header, rows, notes


def _seconds(seconds: float) -> str:
    """Return a time with three digits or more."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.0995 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"


# ---- the command line ----


def build_parser() -> Parser:
    """Return the parser of the command line."""
    defaults = Setup()
    parser = Parser(prog=NAME, description="Measure speed, memory and precision of one evaluation, or of whole runs.")
    parser.add_argument(
        "-m",
        "--model",
        default=defaults.model,
        metavar="random|NAME|FILE",
        help="a full VGG-19 with random weights, or a model as in tools.stylize (default random)",
    )
    parser.add_argument(
        "-s", "--size", type=_sizes, default=(256, 512), metavar="N,N,...", help="sides in pixels (default 256,512)"
    )
    parser.add_argument(
        "--width", type=positive_float, metavar="X", help="factor on the channels of the random network (default 1)"
    )
    parser.add_argument("--pooling", choices=POOLINGS, default=defaults.pooling, help="default average")
    parser.add_argument(
        "--convolution", choices=CONVOLUTIONS, default=defaults.convolution, help="the engine's algorithm, default auto"
    )
    parser.add_argument("--preprocessing", choices=PREPROCESSING, help="where the model itself does not tell")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda times a GPU instead: see docs/gpu.md"
    )
    parser.add_argument("--threads", type=thread_count, metavar="N", help="threads to use (default: all cores)")
    parser.add_argument("--seed", type=natural_int, default=defaults.seed, metavar="N", help="of weights and images")
    parser.add_argument("--repeats", type=positive_int, default=5, metavar="N", help="rounds to time (default 5)")
    parser.add_argument("--against", choices=("torch",), help="also measure the same in PyTorch")
    parser.add_argument("--memory", action="store_true", help="also the peak memory, each in a process of its own")
    parser.add_argument("--precision", action="store_true", help="also the distance of float32 from float64")
    parser.add_argument("--iterations", type=positive_int, metavar="N", help="also a whole run of N iterations")
    parser.add_argument("--optimizer", choices=METHODS, default=METHODS[0], help="of the whole run (default l-bfgs-b)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder of the fetched models")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but the result and errors")
    parser.add_argument("--memory-of", choices=(ENGINE, *TORCH), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.width is not None and arguments.model != "random":
        raise ValueError(f"--width changes the random network only, the model is {arguments.model!r}")
    setup = Setup(
        model=arguments.model,
        width=arguments.width or 1.0,
        pooling=arguments.pooling,
        preprocessing=arguments.preprocessing,
        convolution=arguments.convolution,
        threads=arguments.threads,
        seed=arguments.seed,
    )
    if arguments.memory_of is not None:
        print(json.dumps(asdict(memory_of_this_process(setup, arguments.size[0], arguments.memory_of))))
        return 0
    if arguments.json is not None:
        check_writable(arguments.json)
        if arguments.json.exists() and Path(arguments.model).exists() and arguments.json.samefile(arguments.model):
            raise ValueError(
                f"--json {str(arguments.json)!r} is the model, it would be overwritten: choose another name"
            )
    if arguments.against is not None:
        import_torch()
    if setup.model != "random":
        setup = replace(setup, model=str(resolve_model(setup.model, arguments.cache)))
    if arguments.device == "cuda":
        on_cuda = measure_on_cuda(
            build_network(setup), arguments.size, lambda size: pictures(size, setup.seed), arguments.repeats
        )
        print(render_cuda(on_cuda))
        if arguments.json is not None:
            with replacing(arguments.json) as temporary:
                temporary.write_text(json.dumps(asdict(on_cuda), indent=2) + "\n", encoding="utf-8")
        return 0
    report = measure(setup, arguments)
    print(render(report, arguments.markdown))
    if arguments.json is not None:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps(as_json(report), indent=2) + "\n", encoding="utf-8")
    return 0


def measure(setup: Setup, arguments: Any) -> Report:
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
    runs: list[OptimiserRun] = []
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
    threads = {ENGINE: network.workers.threads}
    if layouts:
        threads["torch"] = import_torch().get_num_threads()
    return Report(
        setup=setup,
        network=_description(setup, network),
        threads=threads,
        machine={"cpu": cpu_name(), "cores": available_cores(), "system": platform.platform()},
        versions=versions(bool(layouts)),
        speed=speed,
        memory=memory,
        precision=precision,
        runs=runs,
    )


def _check_sizes(network: Network, arguments: Any) -> None:
    """Raise ValueError for a size that is too small for the network or too large for the memory."""
    layers = dict.fromkeys([*PAPER_STYLE_LAYERS, *PAPER_CONTENT_LAYERS])
    free = available_memory()
    for size in arguments.size:
        network.shapes(size, size, layers)
        needed = network.memory(size, size, layers) + network.weight_bytes(layers)
        # Float64 takes twice as much; autograd keeps all that the engine recomputes or stores as bits.
        needed *= 2 if arguments.precision or arguments.against else 1
        if free is not None and needed > free:
            raise ValueError(
                f"{size}x{size} pixels need about {byte_count(needed)} of memory, {byte_count(free)} are available: "
                "choose a smaller --size"
            )


def _description(setup: Setup, network: Network) -> str:
    if setup.model == "random":
        model = "VGG-19 with random weights" + ("" if setup.width == 1 else f", {setup.width:g} of its width")
    else:
        model = Path(setup.model).name
    pooling = "the model's" if setup.pooling == "model" else setup.pooling
    direct = ", direct convolutions in the engine" if setup.convolution == "direct" else ""
    return f"{model}, {pooling} pooling, {network.precision}, the paper's layers{direct}"


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(positive_int(part.strip()) for part in text.split(","))


if __name__ == "__main__":
    run(main)
