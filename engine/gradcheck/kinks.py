"""The loss's kinks: the activation pattern of ReLUs and max poolings, and the network with that pattern frozen.

The order of the features in a sliced style loss is a pattern too, and is frozen likewise.

Between two images with the same decisions the network is linear. What a difference quotient shows beyond its truncation
and its rounding comes from decisions that change between x - h d and x + h d.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.gradcheck.measures import along, central_difference, random_directions
from engine.gradcheck.problem import Problem, visits
from engine.graph import Node
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array, Conv, MaxPool, Operator, Shape, Windowed
from engine.sliced import directions
from engine.terms import SlicedStyle, Term
from engine.view import View
from kernels import Device
from kernels.geometry import Window, reaching, resolved_pads


@dataclass(frozen=True, eq=False)
class Mask(Operator):
    """A ReLU with its pattern frozen: its input times 1 or 0.

    Parameters
    ----------
    positive : (H, W, C), booleans.
    """

    positive: NDArray[np.bool_]
    kind: ClassVar[str] = "Mask"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the input's shape."""
        return shapes[0]

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the values that pass."""
        return inputs[0] * self.positive, None

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: None
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input: the same values pass."""
        return [output_gradient * self.positive]


@dataclass(frozen=True, eq=False)
class Selection(Windowed):
    """A max pooling with its winners frozen.

    Parameters
    ----------
    winners : (H', W', C), the winning tap of each output, as ``kernels`` number them.
    window : of the pooling.
    """

    winners: Array
    window: Window
    kind: ClassVar[str] = "Selection"

    def output_shape(self, shapes: Sequence[Shape]) -> Shape:
        """Return the output's (H', W', C)."""
        return MaxPool(self.window).output_shape(shapes)

    def forward(self, device: Device, inputs: Sequence[Array], output_is_kept: bool) -> tuple[Array, Any]:
        """Return the winners' values; the input gradient needs the input's shape."""
        (input,) = inputs
        height, width = input.shape[:2]
        rows, columns = self.winners.shape[:2]
        top, left = resolved_pads(self.window, height, width)[:2]
        output = np.zeros(self.winners.shape, input.dtype)
        for tap, (ky, kx) in enumerate(self.window.taps):
            (stride_y, stride_x), (dilation_y, dilation_x) = self.window.strides, self.window.dilations
            offset_y, offset_x = ky * dilation_y - top, kx * dilation_x - left
            y0, y1 = reaching(offset_y, stride_y, 0, height, rows)
            x0, x1 = reaching(offset_x, stride_x, 0, width, columns)
            y, x = np.arange(y0, y1) * stride_y + offset_y, np.arange(x0, x1) * stride_x + offset_x
            won = self.winners[y0:y1, x0:x1] == tap
            output[y0:y1, x0:x1] += input[np.ix_(y, x)] * won
        return output, input.shape

    def input_gradients(
        self, device: Device, output_gradient: Array, output: Array | None, saved: Shape
    ) -> Sequence[Array]:
        """Return the gradient with respect to the input: each output's goes to its winner."""
        return [device.max_pool_input_gradient(output_gradient, self.winners, saved, self.window)]


Decisions = dict[str, Array]
"""By the output of an operator that decides: where its ReLU is open, or which tap of each window has won."""


def decisions(network: Network, image: Array, layers: tuple[str, ...]) -> Decisions:
    """Return the activation pattern of a forward pass: all its decisions."""
    taken: Decisions = {}
    for visit in visits(network, image, layers):
        operator = visit.node.operator
        if operator.ends_in_relu:
            taken[visit.node.output] = visit.output.real > 0
        elif isinstance(operator, MaxPool):
            taken[visit.node.output] = network.device.max_pool(visit.input, operator.window)[1]
    return taken


def held(network: Network, taken: Decisions) -> Network:
    """Return the network with its pattern frozen: linear in its input, and equal where the pattern is the same."""
    nodes: list[Node] = []
    for node in network.nodes:
        operator, decided = node.operator, taken.get(node.output)
        if decided is None:
            nodes.append(node)
        elif isinstance(operator, MaxPool):
            nodes.append(replace(node, operator=Selection(decided, operator.window)))
        elif isinstance(operator, Conv):
            before = f"{node.output} before its ReLU"
            nodes.append(replace(node, operator=operator.before_relu(), output=before))
            nodes.append(replace(node, name=f"{node.name}, ReLU", operator=Mask(decided), input=before))
        else:
            nodes.append(replace(node, operator=Mask(decided)))
    return replace(network, nodes=tuple(nodes), convolution="direct")


@dataclass(frozen=True, eq=False)
class HeldTransport:
    """A sliced style loss with the order of the features held: where two change places, it has a kink.

    Parameters
    ----------
    term : the loss.
    V : (N, N), the directions.
    m : (H_l, W_l, 1), how much each position counts.
    aim : (H_l, W_l, N_l), what the features are transported to, along the directions, times m.
    blank : the loss of no features.
    """

    term: SlicedStyle
    V: Array
    m: Array
    aim: Array
    blank: float
    kind: ClassVar[str] = "style"

    @property
    def name(self) -> str:
        """The loss's own."""
        return self.term.name

    @property
    def layer(self) -> str:
        """The loss's own."""
        return self.term.layer

    @property
    def weight(self) -> float:
        """The loss's own."""
        return self.term.weight

    def value(self, view: View) -> Any:
        """Return what the transport costs, each feature to where it goes at the image that was held."""
        p = view.features(self.layer) @ self.V
        return (p * (self.m * p - 2 * self.aim)).sum() / (len(self.V) * self.m.sum()) + self.blank

    def gradient(self, view: View) -> Array:
        """Return its derivative with respect to the features."""
        p = view.features(self.layer) @ self.V
        return 2 / (len(self.V) * self.m.sum()) * (self.m * p - self.aim) @ self.V


def held_transport(term: Term, view: View) -> Term:
    """Return a term with the order of the features held as it is in a view, where the term depends on it."""
    if not isinstance(term, SlicedStyle):
        return term
    F, m = view.features(term.layer), view.counted(term)[..., None]
    V, (_, residual) = directions(F.shape[2]), view.transported(term, term.targets)
    return HeldTransport(term, V, m, m * (F @ V) - residual, term.blank(view.device))


def held_objective(problem: Problem) -> Objective:
    """Return the loss of an image by the network with its pattern frozen at ``problem.image``.

    The targets are those of the network as it is. Near the image it equals the loss; it is smooth everywhere.
    """
    # The decisions are held for the whole image, which no piece has the size of.
    objective, seen = replace(problem, piece=None, waist=None).objective(), problem.image
    (piece,) = objective.pieces(seen.shape)
    if piece is not None:  # other edges: what the network sees is the image going on beyond them
        seen = piece.taken(objective.device, seen)
    if any(isinstance(term, SlicedStyle) for term in objective.summands):
        view = View(problem.network, problem.network.forward(seen, problem.layers), piece=piece)
        objective.summands = tuple(held_transport(term, view) for term in objective.summands)
    return objective.through(held(problem.network, decisions(problem.network, seen, problem.layers)))


@dataclass(frozen=True)
class LayerKinks:
    """The decisions of one operator around an image.

    Parameters
    ----------
    label : the operator.
    count : how many decisions it takes.
    at_zero : how many of its inputs are exactly 0, where the paper's "0 if F < 0" does not say which side is taken.
    changed : by step h, how many change between x - h d and x + h d, mean over the directions.
    """

    label: str
    count: int
    at_zero: int
    changed: dict[float, float]


@dataclass(frozen=True)
class KinkStep:
    """Central differences of one length h.

    Parameters
    ----------
    step : h, in gray levels a pixel (root mean square).
    changed : decisions that change in the whole network, mean over the directions.
    error_without, error_with : relative error of the quotients along directions without a change and with at least
        one; None where there is no such direction.
    directions_without, directions_with : how many there are of each.
    error_held : relative error of the same quotients with all decisions held.
    """

    step: float
    changed: float
    directions_without: int
    directions_with: int
    error_without: float | None
    error_with: float | None
    error_held: float


@dataclass(frozen=True)
class KinkLedger:
    """The kinks around one image, layer by layer and step by step."""

    layers: tuple[LayerKinks, ...]
    steps: tuple[KinkStep, ...]


def kink_ledger(problem: Problem, steps: tuple[float, ...], count: int, random: np.random.Generator) -> KinkLedger:
    """Count the decisions that change within each step, and say what they do to difference quotients.

    Parameters
    ----------
    steps : lengths h, in gray levels a pixel.
    count : directions for each of them.
    """
    x = problem.image
    directions = random_directions(x.shape, count, random)
    objective, taken = problem.objective(), decisions(problem.network, x, problem.layers)
    smooth = held_objective(problem)
    slopes = along(objective(x)[1], directions)
    changed: dict[str, dict[float, float]] = {value: {} for value in taken}
    found: list[KinkStep] = []
    for step in steps:
        totals = np.zeros(count)
        quotients, smooth_quotients = np.zeros(count), np.zeros(count)
        for index, d in enumerate(directions):
            before = decisions(problem.network, x - step * d, problem.layers)
            after = decisions(problem.network, x + step * d, problem.layers)
            for value in taken:
                number = int(np.count_nonzero(before[value] != after[value]))
                changed[value][step] = changed[value].get(step, 0.0) + number / count
                totals[index] += number
            quotients[index] = central_difference(lambda image: objective(image)[0], x, d, step)
            smooth_quotients[index] = central_difference(lambda image: smooth(image)[0], x, d, step)
        scale = float(np.sqrt(np.mean(slopes**2)))
        with_change = totals > 0
        found.append(
            KinkStep(
                step,
                float(totals.mean()),
                int((~with_change).sum()),
                int(with_change.sum()),
                _rms((quotients - slopes)[~with_change], scale),
                _rms((quotients - slopes)[with_change], scale),
                _rms(smooth_quotients - slopes, scale) or 0.0,
            )
        )
    zeros, labels = _inputs_at_zero(problem), {node.output: node.label for node in problem.network.nodes}
    return KinkLedger(
        tuple(LayerKinks(labels[value], taken[value].size, zeros.get(value, 0), changed[value]) for value in taken),
        tuple(found),
    )


def _inputs_at_zero(problem: Problem) -> dict[str, int]:
    """Return how many inputs of each ReLU are exactly 0."""
    counts: dict[str, int] = {}
    for visit in visits(problem.network, problem.image, problem.layers):
        operator, before = visit.node.operator, visit.input
        if not operator.ends_in_relu:
            continue
        if isinstance(operator, Conv):
            before = operator.before_relu().forward(problem.network.device, visit.inputs, True)[0]
        counts[visit.node.output] = int(np.count_nonzero(before == 0))
    return counts


def _rms(errors: Array, scale: float) -> float | None:
    if not errors.size:
        return None
    size = float(np.sqrt(np.mean(errors**2)))
    return size / scale if scale else size
