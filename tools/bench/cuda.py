"""Speed and precision on a GPU: ``python -m tools.bench --device cuda [--against torch]``.

Beside each time stands how much of the card's own limits it reaches: the rate of a large matrix product, as PyTorch
makes it, and the rate at which memory is copied. Times are wall-clock, from before the first launch to after a wait for
the device.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from engine.device import choose_device, moved_to_cuda
from engine.gradcheck.problem import in_precision
from engine.network import Network
from engine.ops import Array, PlacedConv
from engine.optimize import minimize
from kernels import Cuda
from kernels.cuda import opening, selftest
from tools.bench.programs import Evaluate, relative_difference
from tools.bench.rivals import RIVALS, evaluation, matrix_rates
from tools.bench.speed import seconds_each, time_in_turn
from tools.cli.memory import check_free
from tools.models.subject import LAYERS, build_objective


@dataclass(frozen=True)
class Variant:
    """A way to run the engine on a GPU.

    Parameters
    ----------
    precision : ``"float32"``, ``"tf32"`` or ``"16 bits"``: what it is compared at.
    dtype, convolution : as in ``engine.load_network``.
    replay : whether the launches are recorded and replayed.
    """

    precision: str
    dtype: str
    convolution: str
    replay: bool


VARIANTS: Mapping[str, Variant] = {
    "float32": Variant("float32", "float32", "auto", False),
    "float32, replayed": Variant("float32", "float32", "auto", True),
    "float32, tensor": Variant("float32", "float32", "tensor", False),
    "float32, tensor, replayed": Variant("float32", "float32", "tensor", True),
    "tf32": Variant("tf32", "tf32", "auto", False),
    "tf32, replayed": Variant("tf32", "tf32", "auto", True),
    "float16": Variant("16 bits", "float16", "auto", False),
    "float16, replayed": Variant("16 bits", "float16", "auto", True),
    "float16, patches": Variant("16 bits", "float16", "patches", False),
    "float16, hopper": Variant("16 bits", "float16", "hopper", False),
    "float16, hopper, replayed": Variant("16 bits", "float16", "hopper", True),
}
"""By name."""

LAUNCHES = 10
"""Launches of a layer that are timed together."""

ITERATIONS = 20
"""Of the optimizer's run."""

COPIED = 1 << 27
"""Numbers of 8 bytes that are copied to measure the memory: several times what the second-level cache holds."""


@dataclass(frozen=True)
class Card:
    """The GPU and its limits.

    Parameters
    ----------
    name : of the GPU.
    versions : of driver and libraries.
    distances : by kernel, its results' relative distance from the CPU's on a small problem.
    bandwidth : of a copy in bytes a second, those read and those written.
    rates : of a large matrix product in operations a second, by precision; empty without PyTorch.
    """

    name: str
    versions: Mapping[str, str]
    distances: Mapping[str, float]
    bandwidth: float
    rates: Mapping[str, float]

    def least_seconds(self, precision: str, operations: float, moved: float) -> float | None:
        """Return how long so much work takes at least, or None where the card's rate is not known."""
        if operations and precision not in self.rates:
            return None
        return max(operations / self.rates[precision] if operations else 0.0, moved / self.bandwidth)


@dataclass(frozen=True)
class LayerTime:
    """A layer's times in seconds, and its work in each direction.

    Parameters
    ----------
    variant, size : what was measured.
    layer : the node's label.
    forward, backward : seconds.
    operations : two for each multiply-add; 0 where there are none to speak of.
    moved : bytes of input and output.
    """

    variant: str
    size: int
    layer: str
    forward: float
    backward: float
    operations: int
    moved: int


@dataclass(frozen=True)
class ProgramTime:
    """The time of an evaluation, of an iteration of L-BFGS, and how right the result is.

    Parameters
    ----------
    program, precision, size : what was measured.
    seconds : of an evaluation, one for each round, the image on the GPU.
    iteration : seconds of an iteration of L-BFGS with everything on the GPU, over a run; None for PyTorch.
    operations : of the convolutions, forward and backward.
    value, gradient : relative distances from float64 on the CPU; None where that was not computed.
    """

    program: str
    precision: str
    size: int
    seconds: Sequence[float]
    iteration: float | None
    operations: int
    value: float | None
    gradient: float | None

    @property
    def median(self) -> float:
        """The median time of an evaluation in seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class CudaReport:
    """All that was measured.

    Parameters
    ----------
    date : of the measurement.
    card : the GPU.
    left_out : why, by program.
    programs, layers : the times.
    """

    date: str
    card: Card
    left_out: Mapping[str, str]
    programs: Sequence[ProgramTime]
    layers: Sequence[LayerTime]


def measure_on_cuda(
    network: Network,
    sizes: Sequence[int],
    pictures: Callable[[int], tuple[Array, Array, Array]],
    repeats: int,
    *,
    against_torch: bool = False,
    on_step: Callable[[str], object] = lambda _: None,
) -> CudaReport:
    """Time all variants at all sizes, and PyTorch in turn with them.

    Parameters
    ----------
    network : of the CPU, in float32.
    sizes : sides of the square images; at the first one the results are compared with the CPU's in float64.
    pictures : makes photograph, painting and image of a size.
    repeats : how many rounds.
    against_torch : also time PyTorch.
    on_step : called with what has just been prepared or measured.

    Raises ValueError where there is no GPU.
    """
    choose_device("cuda")
    gpu = opening.open_cuda()
    card = measure_card(gpu, against_torch)
    on_step("card")
    programs: list[ProgramTime] = []
    layers: list[LayerTime] = []
    left_out: dict[str, str] = {}
    for size in sizes:
        given = pictures(size)
        expected: tuple[Any, Array] | None = None
        if size == sizes[0]:
            expected = build_objective(in_precision(network, "float64"), *given[:2])(given[2])
            on_step("float64")
        ready: dict[str, tuple[ProgramTime, Evaluate]] = {}
        for name, variant in VARIANTS.items():
            try:
                moved = moved_to_cuda(replace(network, convolution=variant.convolution), variant.dtype)
                ready[name] = _prepared(moved, name, variant, given, expected)
                if not variant.replay:
                    layers += time_layers(moved, name, size)
            except ValueError as error:
                left_out[name] = str(error)
            on_step(f"{name}, {size}")
        for name in RIVALS if against_torch else ():
            try:
                ready[name] = _prepared_rival(network, name, given, expected)
            except Exception as error:  # of PyTorch's many kinds: what it cannot do is no reason to lose the rest
                left_out[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            on_step(f"{name}, {size}")
        seconds = time_in_turn({name: evaluate for name, (_, evaluate) in ready.items()}, repeats)
        programs += [replace(entry, seconds=seconds[name]) for name, (entry, _) in ready.items()]
        on_step(f"rounds, {size}")
    return CudaReport(time.strftime("%Y-%m-%d"), card, left_out, programs, layers)


def measure_card(gpu: Cuda, with_rates: bool) -> Card:
    """Return the GPU's name, versions, copy bandwidth and, from PyTorch, the rates of its matrix products."""
    source = gpu.put(np.zeros(COPIED))
    target = gpu.empty(source.shape, source.dtype)
    copy = partial(gpu.scaled, source, 1.0, out=target)
    copy()
    bandwidth = 2 * source.nbytes / seconds_each(copy, partial(_wait, gpu), LAUNCHES)
    rates = matrix_rates() if with_rates else {}
    return Card(gpu.name, gpu.versions(), selftest.distances(gpu), bandwidth, rates)


def _prepared(
    network: Network, name: str, variant: Variant, given: tuple[Array, Array, Array], expected: tuple[Any, Array] | None
) -> tuple[ProgramTime, Evaluate]:
    """Return what is known of a variant before its rounds, and what they call."""
    content, style, image = given
    height, width = image.shape[:2]
    needed = network.memory(height, width, LAYERS) + network.weight_bytes(LAYERS)
    check_free(network.device, needed, (height, width), "choose a smaller --size")
    objective = build_objective(network, content, style, variant.replay)
    entry = _entry(network, name, variant.precision, objective(image), expected, len(image))
    placed = network.placed(image)
    objective(placed)  # the second evaluation is the one that is recorded
    began = time.perf_counter()
    run = minimize(objective, placed, "l-bfgs", ITERATIONS)
    iteration = (time.perf_counter() - began) / max(run.iterations, 1)
    return replace(entry, iteration=iteration), partial(objective, placed)


def _prepared_rival(
    network: Network, name: str, given: tuple[Array, Array, Array], expected: tuple[Any, Array] | None
) -> tuple[ProgramTime, Evaluate]:
    """Return what is known of a way to run PyTorch before its rounds, and what they call."""
    evaluate = evaluation(RIVALS[name], network, *given)
    value, gradient = evaluate()
    as_engine = value, gradient[0].permute(1, 2, 0).double().cpu().numpy()
    evaluate()  # some is compiled at the second call
    return _entry(network, name, RIVALS[name].precision, as_engine, expected, len(given[2])), evaluate


def _entry(
    network: Network,
    name: str,
    precision: str,
    found: tuple[Any, Array],
    expected: tuple[Any, Array] | None,
    size: int,
) -> ProgramTime:
    operations = 2 * 2 * network.multiply_adds(size, size, LAYERS)
    value, gradient = (None, None) if expected is None else relative_difference(found, expected)
    return ProgramTime(name, precision, size, (), None, operations, value, gradient)


def time_layers(network: Network, variant: str, size: int) -> list[LayerTime]:
    """Time each node of an evaluation alone, on random numbers; a convolution with the pooling that is run with it."""
    rng, gpu = np.random.default_rng(0), network.device
    assert isinstance(gpu, Cuda)
    wait = partial(_wait, gpu)
    plan = network.plan(size, size, LAYERS)
    shapes = plan.shapes
    times = []
    for node in plan.nodes:
        operator, shape, kept = node.operator, shapes[node.output], node.output in plan.kept
        given, flowing = (
            gpu.put(rng.standard_normal(one).astype(network.dtype)) for one in (shapes[node.input], shape)
        )
        output, saved = operator.forward(gpu, [given], kept)
        going_back = partial(operator.input_gradients, gpu, flowing, output if kept else None, saved)
        going_back()
        forward = seconds_each(partial(operator.forward, gpu, [given], kept), wait, LAUNCHES)
        backward = seconds_each(going_back, wait, LAUNCHES)
        convolved = (
            replace(operator, pool=None).output_shape([shapes[node.input]])
            if isinstance(operator, PlacedConv)
            else shape
        )
        operations = 2 * operator.multiply_adds(convolved)
        moved = given.nbytes + flowing.nbytes
        times.append(LayerTime(variant, size, node.label, forward, backward, operations, moved))
    return times


def _wait(gpu: Cuda) -> None:
    """Wait for the GPU: what is fetched from it comes after all that was launched before."""
    gpu.fetch(gpu.put(np.zeros(1)))
