"""Measure speed and precision on a GPU, layer by layer and as a whole: ``python -m tools.bench --device cuda``.

Times are wall-clock, from before the first launch to after a wait for the device, over several launches where one is
short. Nothing here has been run on a GPU yet.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from engine.gradcheck.problem import in_precision
from engine.network import Network, choose_device, convolution_of, moved_to_cuda
from engine.objective import Objective
from engine.ops import Array
from engine.optimize import minimize
from kernels import gpu_name, kernels_of, to_cuda, to_host

VARIANTS: Mapping[str, tuple[str, str, bool]] = {
    "float32": ("float32", "auto", False),
    "float32, replayed": ("float32", "auto", True),
    "float32, tensor": ("float32", "tensor", False),
    "tf32": ("tf32", "auto", False),
    "float16": ("float16", "auto", False),
    "float16, patches": ("float16", "patches", False),
    "float16, hopper": ("float16", "hopper", False),
    "float16, hopper, replayed": ("float16", "hopper", True),
}
"""The network's dtype, convolution and whether launches are replayed, by name."""

LAUNCHES = 10
"""Launches of a layer that are timed together."""

ITERATIONS = 20
"""Of the optimiser's run."""


@dataclass(frozen=True)
class LayerTime:
    """A layer's times in seconds and its arithmetic.

    Parameters
    ----------
    variant, size : what was measured.
    layer : the node's label.
    forward, backward : seconds.
    operations : of each, two for each multiply-add; 0 where there are none to speak of.
    """

    variant: str
    size: int
    layer: str
    forward: float
    backward: float
    operations: int


@dataclass(frozen=True)
class EvaluationTime:
    """The time of an evaluation, of an iteration of L-BFGS, and how right the result is.

    Parameters
    ----------
    variant, size : what was measured.
    seconds : median of an evaluation, the image on the GPU.
    iteration : of L-BFGS with everything on the GPU, over a run.
    operations : of the convolutions, forward and backward.
    value, gradient : relative distances from float64 on the CPU; None where that was not computed.
    """

    variant: str
    size: int
    seconds: float
    iteration: float
    operations: int
    value: float | None
    gradient: float | None


@dataclass(frozen=True)
class CudaReport:
    """All that was measured.

    Parameters
    ----------
    device : the GPU's name.
    left_out : why, by variant.
    evaluations, layers : the times.
    """

    device: str
    left_out: Mapping[str, str]
    evaluations: Sequence[EvaluationTime]
    layers: Sequence[LayerTime]


def measure_on_cuda(
    network: Network, sizes: Sequence[int], pictures: Callable[[int], tuple[Array, Array, Array]], repeats: int
) -> CudaReport:
    """Time all variants at all sizes.

    Parameters
    ----------
    network : of the CPU, in float32.
    sizes : sides of the square images; at the first one the results are compared with the CPU's in float64.
    pictures : makes photograph, painting and image of a size.
    repeats : how often an evaluation is timed.

    Raises ValueError where there is no GPU.
    """
    choose_device("cuda")
    evaluations, layers, left_out = [], [], {}
    expected: tuple[Any, Array] | None = None
    for size in sizes:
        content, style, image = pictures(size)
        if size == sizes[0]:
            expected = _objective(in_precision(network, "float64"), content, style)(image)
        for variant, (dtype, convolution, replay) in VARIANTS.items():
            try:
                moved = moved_to_cuda(replace(network, convolution=convolution), dtype)
            except ValueError as error:
                left_out[variant] = str(error)
                continue
            objective = _objective(moved, content, style, replay)
            evaluations.append(_time_evaluation(objective, variant, size, image, repeats, expected))
            if not replay:
                layers += _time_layers(moved, variant, size)
        expected = None
    return CudaReport(gpu_name(), left_out, evaluations, layers)


def _objective(network: Network, content: Array, style: Array, replay: bool = False) -> Objective:
    return Objective(network, content, style, content_weight=network.content_weight, replay=replay)


def _time_evaluation(
    objective: Objective, variant: str, size: int, image: Array, repeats: int, expected: tuple[Any, Array] | None
) -> EvaluationTime:
    value, gradient = objective(image)
    value_distance = gradient_distance = None
    if expected is not None:
        value_distance = float(abs(value - expected[0]) / abs(expected[0]))
        gradient_distance = float(np.linalg.norm(gradient - expected[1]) / np.linalg.norm(expected[1]))
    placed = objective.network.placed(image)
    objective(placed)  # the second evaluation is the one that is recorded
    seconds = [_seconds(lambda: objective(placed)) for _ in range(repeats)]
    began = time.perf_counter()
    run = minimize(objective, placed, "l-bfgs", ITERATIONS)
    iteration = (time.perf_counter() - began) / max(run.iterations, 1)
    operations = 2 * 2 * objective.network.multiply_adds(size, size, objective.layers)
    return EvaluationTime(
        variant, size, statistics.median(seconds), iteration, operations, value_distance, gradient_distance
    )


def _time_layers(network: Network, variant: str, size: int) -> list[LayerTime]:
    """Time each node alone, on random numbers."""
    rng = np.random.default_rng(0)
    shapes = {network.nodes[0].input: (size, size, 3)}
    times = []
    for node in network.nodes:
        operator, shape = node.operator, shapes[node.input]
        shapes[node.output] = node.output_shape(shapes)
        rows, columns, _ = shapes[node.output]
        given, flowing = (
            to_cuda(rng.standard_normal(one).astype(network.dtype)) for one in (shape, shapes[node.output])
        )
        _, saved = operator.forward(given, False, network.workers)
        operator.input_gradient(flowing, None, saved, network.workers)
        forward = _seconds_of_launches(partial(operator.forward, given, False, network.workers), given)
        backward = _seconds_of_launches(partial(operator.input_gradient, flowing, None, saved, network.workers), given)
        conv = convolution_of(operator)
        operations = 0 if conv is None else 2 * rows * columns * conv.weight.size
        times.append(LayerTime(variant, size, node.label, forward, backward, operations))
    return times


def _seconds_of_launches(launch: Callable[[], object], of_device: Array) -> float:
    """Return the time of one of ``LAUNCHES`` launches, a wait for the device shared among them."""
    began = time.perf_counter()
    for _ in range(LAUNCHES):
        launch()
    to_host(kernels_of(of_device).zeros((1,)))
    return (time.perf_counter() - began) / LAUNCHES


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def render_cuda(report: CudaReport) -> str:
    """Return the report as text."""
    lines = [f"GPU: {report.device}", ""]
    head = ("whole evaluation", "size", "ms", "TFLOP/s", "l-bfgs ms", "value", "gradient")
    lines.append("{:<28}{:>6}{:>10}{:>9}{:>11}{:>10}{:>10}".format(*head))
    for one in report.evaluations:
        rate = one.operations / one.seconds / 1e12
        times = f"{one.seconds * 1e3:>10.3f}{rate:>9.2f}{one.iteration * 1e3:>11.3f}"
        distances = ["-" if distance is None else f"{distance:.1e}" for distance in (one.value, one.gradient)]
        lines.append(f"{one.variant:<28}{one.size:>6}{times}{distances[0]:>10}{distances[1]:>10}")
    lines += [f"{variant}: left out, {reason}" for variant, reason in report.left_out.items()]
    lines += ["", f"{'layer':<44}{'size':>6}{'ms':>10}{'TFLOP/s':>9}{'back ms':>10}{'TFLOP/s':>9}"]
    for layer in report.layers:
        rates = [layer.operations / seconds / 1e12 for seconds in (layer.forward, layer.backward)]
        lines.append(
            f"{layer.variant + ': ' + layer.layer:<44}{layer.size:>6}{layer.forward * 1e3:>10.3f}{rates[0]:>9.2f}"
            f"{layer.backward * 1e3:>10.3f}{rates[1]:>9.2f}"
        )
    return "\n".join(lines)
