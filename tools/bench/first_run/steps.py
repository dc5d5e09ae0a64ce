"""What the first run on a GPU does, in the order of what matters; a step is a list of items, done one after another."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from engine.device import moved_to_cuda
from engine.gradcheck.problem import in_precision
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.optimize import minimize
from kernels import Cuda
from kernels.cuda import opening, selftest, source
from tools.bench import cuda
from tools.bench.cuda import VARIANTS, Variant, time_layers
from tools.bench.programs import relative_difference
from tools.bench.rivals import RIVALS, evaluation, matrix_rates
from tools.bench.speed import seconds_each
from tools.models.cache import resolve_model
from tools.models.subject import LAYERS, Setup, build_network, build_objective, pictures

Row = Mapping[str, Any]
"""What an item found: numbers and words by the name of their column. ``"right": False`` is a wrong result."""


class LeftOutError(Exception):
    """There is no need, or no way, to do an item here."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Parameters
    ----------
    setup : the network.
    sizes : of the images in pixels; all ways are timed at the first, the others are for the large ones.
    repeats : rounds that are timed.
    iterations : of the whole run.
    folder : where results go.
    cache : folder of the fetched models; None for the user's.
    samples : a photograph and a painting.
    """

    setup: Setup
    sizes: tuple[int, ...]
    repeats: int
    iterations: int
    folder: Path
    cache: Path | None = None
    samples: tuple[Path, Path] = (Path("docs/samples/landscape.jpg"), Path("docs/samples/swirls.jpg"))

    @property
    def size(self) -> int:
        """The side at which all ways are timed."""
        return self.sizes[0]


@dataclass(frozen=True)
class Step:
    """A step of the first run.

    Parameters
    ----------
    title : what it finds out.
    items : returns the names of what is done.
    perform : does one of them.
    limit : seconds that one of them may take.
    shown : rows of it that are printed at the end; the page has all.
    """

    title: str
    items: Callable[[Bench], Sequence[str]]
    perform: Callable[[Bench, str], Row | Sequence[Row]]
    limit: float = 60.0
    shown: int = 12


@dataclass(frozen=True)
class Bench:
    """What the items of a step share: the GPU, networks and pictures, each made when it is first needed."""

    plan: Plan
    _moved: dict[str, Network] = field(default_factory=dict)

    @cached_property
    def gpu(self) -> Cuda:
        """The GPU, used whether its kernels are right or not: that is what is to be found out."""
        return opening.connect()

    @cached_property
    def network(self) -> Network:
        """The network on the CPU, in float32."""
        return build_network(self.plan.setup)

    @cached_property
    def small(self) -> tuple[tuple[Array, Array, Array], tuple[Any, Array]]:
        """Pictures of 64 pixels, or fewer, with value and gradient in float64."""
        given = self.pictures(min(64, self.plan.size))
        return given, build_objective(in_precision(self.network, "float64"), *given[:2])(given[2])

    def pictures(self, size: int) -> tuple[Array, Array, Array]:
        """Return photograph, painting and image of a size."""
        return pictures(size, self.plan.setup.seed)

    def moved(self, variant: Variant) -> Network:
        """Return the network as a variant computes it."""
        key = f"{variant.dtype}, {variant.convolution}"
        if key not in self._moved:
            network = replace(self.network, convolution=variant.convolution)
            self._moved[key] = moved_to_cuda(network, variant.dtype, self.gpu)
        return self._moved[key]

    def ready(self, way: str, size: int) -> tuple[Objective, Array]:
        """Return the objective of a way of ``VARIANTS`` and an image on the GPU; it has been called twice."""
        variant = VARIANTS[way]
        network = self.moved(variant)
        content, style, image = self.pictures(size)
        objective = build_objective(network, content, style, variant.replay)
        placed = network.placed(image)
        for _ in range(2):  # the second evaluation is the one that is recorded
            objective(placed)
        return objective, placed

    def wait(self) -> None:
        """Wait for the GPU."""
        self.gpu.fetch(self.gpu.put(np.zeros(1)))


class Counting:
    """A backend that counts the launches that another one makes."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.launches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def run(self, *arguments: Any) -> None:
        """Launch a kernel."""
        self.launches += 1
        self._backend.run(*arguments)


# ---- the items of the steps ----


def _device(bench: Bench, item: str) -> Sequence[Row]:
    gpu = bench.gpu
    facts = {
        "name": gpu.name,
        "compute capability": ".".join(map(str, gpu.capability)),
        "multiprocessors": str(gpu.multiprocessors),
        "free memory, GB": f"{gpu.free_bytes() / 1e9:.1f}",
        **gpu.versions(),
        "Python, NumPy": f"{sys.version.partition(' ')[0]}, {np.__version__}",
    }
    driver = shutil.which("nvidia-smi")
    if driver:
        wanted = "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem,power.limit"
        done = subprocess.run([driver, wanted, "--format=csv,noheader"], capture_output=True, text=True, timeout=20)
        facts["driver, clocks, power limit"] = done.stdout.strip() or done.stderr.strip()
    values = gpu.put(np.zeros(cuda.COPIED))
    copy = partial(gpu.scaled, values, 1.0, out=gpu.empty(values.shape, values.dtype))
    copy()
    seconds = seconds_each(copy, bench.wait, cuda.LAUNCHES)
    facts["copy, TB/s read and written"] = f"{2 * values.nbytes / seconds / 1e12:.2f}"
    return [{"fact": name, "is": value} for name, value in facts.items()]


def _sources(bench: Bench) -> list[str]:
    return [
        ", ".join([file, *(f"{macro} {dtype}" for macro, dtype in types)])
        for file in source.sources()
        for types in source.variants(file)
    ]


def _compile(bench: Bench, item: str) -> Row:
    """Compile all kernels of a source for one choice of types."""
    file, *macros = item.split(", ")
    types = tuple((macro, np.dtype(dtype)) for macro, dtype in (one.split() for one in macros))
    if file == "hopper.cu" and bench.gpu.capability != (9, 0):
        raise LeftOutError("for compute capability 9.0 only")
    began = time.perf_counter()
    used = [bench.gpu.backend.compile(source.Kernel(file, name, types)) for name in source.declared(file)]
    largest = {key: max(one.get(key, 0) for one in used) for key in ("registers", "local bytes")}
    return {"kernels": len(used), "seconds": time.perf_counter() - began, **largest}


def _comparisons(bench: Bench) -> dict[str, tuple[Callable[[], float], float]]:
    """Return all comparisons of a kernel with another computation, and the distance from which on it is wrong."""
    found = {name: (compare, selftest.allowed(name)) for name, compare in selftest.comparisons(bench.gpu).items()}
    for precision in ("float16", "tf32", "float32"):
        most = selftest.allowed_of_tensor_cores(precision)
        for name, compare in selftest.implicit_gemm_comparisons(bench.gpu, precision).items():
            found[name] = compare, most
    return found


def _kernel(bench: Bench, item: str) -> Row:
    compare, most = _comparisons(bench)[item]
    return _judged(compare(), most)


def _hopper(bench: Bench, item: str) -> Row:
    return _judged(selftest.hopper_comparisons(bench.gpu)[item](), selftest.HALF_TOLERANCE)


def _hopper_kinds(bench: Bench) -> list[str]:
    if bench.gpu.capability != (9, 0):
        return []
    return list(selftest.hopper_comparisons(bench.gpu))


def _judged(distance: float, most: float) -> Row:
    return {"distance": distance, "allowed": most, "right": distance < most}


GRADIENT_ALLOWED = {"float32": 1e-4, "tf32": 2e-2, "16 bits": 2e-2}
"""Relative distance of a gradient from float64's, by precision, from which on it is wrong."""


def _objective(bench: Bench, item: str) -> Row:
    """Compare value and gradient with those in float64 on the CPU."""
    variant = VARIANTS[item]
    (content, style, image), expected = bench.small
    network = bench.moved(variant)
    value, gradient = relative_difference(build_objective(network, content, style)(image), expected)
    most = GRADIENT_ALLOWED[variant.precision]
    by = "by " + network.convolution
    return {"computed": by, "value": value, "gradient": gradient, "allowed": most, "right": gradient < most}


def _timed(bench: Bench, way: str, size: int) -> dict[str, Any]:
    """Time evaluations, one wait each, and how long the launches alone take the processor."""
    objective, placed = bench.ready(way, size)
    seconds, launching = [], []
    for _ in range(bench.plan.repeats):
        bench.wait()
        began = time.perf_counter()
        pending = objective.begin(placed)
        launching.append(time.perf_counter() - began)
        pending.finish()
        seconds.append(time.perf_counter() - began)
    operations = 2 * 2 * objective.network.multiply_adds(size, size, LAYERS)
    median = statistics.median(seconds)
    return {
        "computed": "by " + objective.network.convolution,
        "ms": 1e3 * median,
        "lowest ms": 1e3 * min(seconds),
        "to launch, ms": 1e3 * statistics.median(launching),
        "TFLOP/s": operations / median / 1e12,
    }


def _evaluation(bench: Bench, item: str) -> Row:
    found = _timed(bench, item, bench.plan.size)
    objective, placed = bench.ready(item, bench.plan.size)
    gpu = objective.device
    assert isinstance(gpu, Cuda)
    backend = gpu.backend
    counting = gpu.backend = Counting(backend)
    try:
        objective(placed)
    finally:
        gpu.backend = backend
    return found | {"launches": counting.launches}


def _replayed(bench: Bench, item: str) -> Row:
    return _timed(bench, item, bench.plan.size)


def _larger(bench: Bench, item: str) -> Row:
    way, _, size = item.rpartition(", ")
    return _timed(bench, way, int(size))


def _torch(bench: Bench, item: str) -> Row:
    """Time a way to run PyTorch, or its own matrix product."""
    try:
        import torch
    except ImportError:
        raise LeftOutError("PyTorch is not installed") from None
    if not torch.cuda.is_available():
        raise LeftOutError("PyTorch finds no GPU")
    if item == MATRIX_PRODUCT:
        return {f"{precision}, TFLOP/s": rate / 1e12 for precision, rate in matrix_rates().items()}
    way, _, size = item.rpartition(", ")
    evaluate = evaluation(RIVALS[way], bench.network, *bench.pictures(int(size)))
    for _ in range(3):  # some is compiled, or chosen, at the second call
        evaluate()
    seconds = []
    for _ in range(bench.plan.repeats):
        torch.cuda.synchronize()
        began = time.perf_counter()
        evaluate()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return {"ms": 1e3 * statistics.median(seconds), "lowest ms": 1e3 * min(seconds)}


def _layers(bench: Bench, item: str) -> list[Row]:
    """Time each node alone, forward and backward."""
    variant = VARIANTS[item]
    rows: list[Row] = []
    for one in time_layers(bench.moved(variant), item, bench.plan.size):
        rates = (f"{one.operations / seconds / 1e12:.3g}" for seconds in (one.forward, one.backward))
        forward, backward = rates if one.operations else ("", "")
        times = {"ms": 1e3 * one.forward, "TFLOP/s": forward, "back ms": 1e3 * one.backward, "back TFLOP/s": backward}
        rows.append({"layer": one.layer, **times})
    return rows


def _l_bfgs(bench: Bench, item: str) -> Row:
    """Say how much an iteration takes on top of its evaluations, image and history on the GPU."""
    each = _timed(bench, item, bench.plan.size)["ms"] / 1e3
    objective, placed = bench.ready(item, bench.plan.size)
    began = time.perf_counter()
    run = minimize(objective, placed, "l-bfgs", cuda.ITERATIONS)
    seconds = time.perf_counter() - began
    on_top = seconds / (run.evaluations * each) - 1
    return {"evaluation, ms": 1e3 * each, "iteration, ms": 1e3 * seconds / max(run.iterations, 1), "on top": on_top}


def _iterations(bench: Bench, item: str) -> Row:
    objective, placed = bench.ready(item, bench.plan.size)
    began = time.perf_counter()
    run = minimize(objective, placed, "l-bfgs", bench.plan.iterations)
    seconds = time.perf_counter() - began
    return {
        "iterations": run.iterations,
        "evaluations": run.evaluations,
        "seconds": seconds,
        "first loss": float(run.initial_value),
        "last loss": float(run.value),
        "right": bool(run.value < run.initial_value),
    }


def _picture(bench: Bench, item: str) -> Row:
    """Make a picture as a user does, by the published VGG-19."""
    plan = bench.plan
    try:
        model = resolve_model("vgg19" if plan.setup.model == "random" else plan.setup.model, plan.cache)
    except ValueError as error:
        raise LeftOutError(str(error)) from None
    missing = [str(path) for path in plan.samples if not path.is_file()]
    if missing:
        raise LeftOutError(f"there is no {missing[0]}: start it in the clone's folder")
    output = plan.folder / f"picture-{item}.png"
    where = ["-o", str(output), "-m", str(model), "--size", str(plan.size), "--device", "cuda", "--dtype", item]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "tools.stylize", *map(str, plan.samples), *where])
    return {"seconds": time.perf_counter() - began, "file": output.name, "right": done.returncode == 0}


SANITIZED = ("--size", "32", "--width", "0.1", "--repeats", "1")
"""The tiny case that is run under compute-sanitizer."""


def _sanitizer(bench: Bench, item: str) -> Row:
    """Look for accesses beyond arrays, or races in shared memory, in an evaluation by every way of computing."""
    found = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if found is None:
        raise LeftOutError("compute-sanitizer is not on the PATH")
    folder = bench.plan.folder / item
    folder.mkdir()
    command = [found, "--tool", item, "--error-exitcode", "9", sys.executable, "-m", "tools.bench", "--device", "cuda"]
    options = ["--first-run", str(folder), "--perform", "objective", *SANITIZED]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    (bench.plan.folder / f"{item}.txt").write_text(done.stdout + done.stderr, "utf-8")
    summary = [line for line in (done.stdout + done.stderr).splitlines() if "SUMMARY" in line]
    return {"exit code": done.returncode, "summary": " ".join(summary), "right": done.returncode == 0}


# ---- their order ----

PLAIN = tuple(way for way, variant in VARIANTS.items() if not variant.replay)
REPLAYED = tuple(way for way, variant in VARIANTS.items() if variant.replay)
LAYERED = tuple(way for way in PLAIN if way != "float16, patches")
MATRIX_PRODUCT = "matrix product"
COMPILED = ("torch tf32, compiled, graph", "torch bfloat16, compiled, graph", "torch float16, compiled, graph")
LARGE_RIVALS = ("torch tf32, graph", "torch bfloat16, graph", "torch float16, graph")
PRECISIONS = ("float16", "tf32", "float32")


def _always(*names: str) -> Callable[[Bench], Sequence[str]]:
    return lambda bench: names


def _at(ways: Sequence[str], large: bool = False) -> Callable[[Bench], Sequence[str]]:
    def items(bench: Bench) -> list[str]:
        sizes = bench.plan.sizes[1:] if large else bench.plan.sizes[:1]
        return [f"{way}, {size}" for size in sizes for way in ways]

    return items


_SHORT_RIVALS = tuple(name for name, rival in RIVALS.items() if not rival.compiled)

STEPS: Mapping[str, Step] = {
    "device": Step("Device and versions", _always("facts"), _device),
    "compile": Step("Compiled", _sources, _compile, shown=3),
    "kernels": Step("Kernels, by relative distance", lambda bench: list(_comparisons(bench)), _kernel, 30, shown=4),
    "hopper": Step("Hopper's kernel, by relative distance", _hopper_kinds, _hopper, 30, shown=2),
    "objective": Step("Objective at 64 pixels, by relative distance from float64", _always(*PLAIN), _objective),
    "evaluation": Step("One evaluation", _always(*PLAIN), _evaluation),
    "torch": Step("PyTorch", lambda bench: [MATRIX_PRODUCT, *_at(_SHORT_RIVALS)(bench)], _torch, shown=9),
    "layers": Step("Layer by layer, the slowest", _always(*LAYERED), _layers, shown=6),
    "replay": Step("One evaluation, replayed", _always(*REPLAYED), _replayed),
    "l-bfgs": Step("An iteration of L-BFGS", _always(*REPLAYED), _l_bfgs),
    "iterations": Step("A whole run", _always(*reversed(REPLAYED)), _iterations),
    "larger": Step("One evaluation of large pictures", _at(PLAIN, large=True), _larger),
    "torch-larger": Step("PyTorch, large pictures", _at(LARGE_RIVALS, large=True), _torch, shown=6),
    "torch-compiled": Step("PyTorch, compiled", _at(COMPILED), _torch, 90, shown=3),
    "picture": Step("A picture by VGG-19", _always(*PRECISIONS), _picture),
    "sanitizer": Step("compute-sanitizer, 32 pixels", _always("memcheck", "racecheck"), _sanitizer, 90),
}
"""By name."""
