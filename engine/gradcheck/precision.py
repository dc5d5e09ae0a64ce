"""Precision by depth: what float32 loses layer by layer, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.gradcheck.measures import agreement
from engine.gradcheck.problem import Problem, in_precision
from engine.network import Network
from engine.ops import Array


@dataclass(frozen=True)
class LayerPrecision:
    """The distance from float64 at one place of the network.

    Parameters
    ----------
    label : the operator.
    forward : relative L2 error of its output; None where a faster algorithm does not form it.
    backward : relative L2 error of the gradient with respect to its input; None likewise.
    """

    label: str
    forward: float | None
    backward: float | None


@dataclass(frozen=True)
class PrecisionStudy:
    """One way of computing against float64.

    Parameters
    ----------
    name : precision and algorithm.
    value, gradient : relative errors of the total and of the gradient with respect to the pixels (L2).
    layers : from the image upwards.
    """

    name: str
    value: float
    gradient: float
    layers: tuple[LayerPrecision, ...]


WAYS = {
    "float32, direct": ("float32", "direct"),
    "float32, fast": ("float32", "auto"),
}
"""Precision and convolution of each way of computing that is compared with float64."""


def precision_study(problem: Problem) -> list[PrecisionStudy]:
    """Compare every way of computing with float64, at the problem's image."""
    exact = _observed(problem, problem.network)
    studies = []
    for name, (dtype, convolution) in WAYS.items():
        found = _observed(problem, in_precision(problem.network, dtype, convolution))
        layers = []
        for node in problem.network.nodes:
            if node.output in exact.outputs:
                layers.append(
                    LayerPrecision(
                        node.label,
                        _distance(found.outputs.get(node.output), exact.outputs[node.output]),
                        _distance(found.gradients.get(node.label), exact.gradients[node.label]),
                    )
                )
        studies.append(
            PrecisionStudy(
                name,
                abs(found.value - exact.value) / abs(exact.value) if exact.value else abs(found.value),
                agreement(found.gradient, exact.gradient).error,
                tuple(layers),
            )
        )
    return studies


@dataclass(frozen=True, eq=False)
class _Observed:
    """One evaluation with all intermediate values: outputs by their name, input gradients by their operator's label.

    A convolution that was merged with what stands behind it keeps its label and its input, and has another output.
    """

    value: float
    gradient: Array
    outputs: dict[str, Array]
    gradients: dict[str, Array]


def _observed(problem: Problem, network: Network) -> _Observed:
    """Evaluate the objective and keep all activations and their gradients, in double precision."""
    objective = problem.objective(network)
    value, gradient = objective(problem.image)
    forward: list[Array] = []
    gradients: dict[str, Array] = {}
    tape = network.forward(problem.image, problem.layers, observe=lambda _, output: forward.append(output))
    outputs = {node.output: output.astype(np.float64) for node, output in zip(tape.plan.nodes, forward, strict=True)}
    network.backward(
        tape,
        objective.layer_gradients(tape),
        observe=lambda label, input_gradient: gradients.update({label: input_gradient.astype(np.float64)}),
    )
    return _Observed(float(value), gradient, outputs, gradients)


def _distance(found: Array | None, expected: Array) -> float | None:
    return None if found is None else agreement(found, expected).error
