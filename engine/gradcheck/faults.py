"""The study of faults: the mistakes that people make, put in one at a time, and which check notices each.

A fault is put in by replacing one function of the engine for the time of the checks; the network and the loss are made
anew each time, so that nothing computed with it outlives it. The problem is small and awkward on purpose: odd sizes, an
average pooling with ``ceil_mode`` and a maximum pooling, a convolution that SAME pads on one side only, flat parts in
the image, layers with a loss between others, and one with two.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import kernels.cpu
from engine import losses
from engine.errors import NonFiniteError
from engine.gradcheck.checks import (
    ADJOINT,
    COMPLEX_STEP,
    DEFINED_VALUE,
    DEFINITION,
    DIFFERENCES,
    Check,
    check_layers,
    check_losses,
    check_objective,
)
from engine.gradcheck.definition import under_taps
from engine.gradcheck.problem import Problem
from engine.graph import Node
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array, AveragePool, Conv, MaxPool, Operator
from engine.preprocessing import Preprocessing
from kernels.cpu.threads import Workers
from kernels.geometry import Window, resolved_pads

Replacement = Callable[[Any], Any]
"""Makes the faulty function from the right one."""

OPERATORS_ADJOINT = "operators: adjoint"
OPERATORS = "operators: complex step"
LOSSES = "losses: complex step"
WHOLE = "whole: complex step"
WHOLE_DIFFERENCES = "whole: differences"
WHOLE_DEFINITION = "whole: definition"
CHECKS = (OPERATORS_ADJOINT, OPERATORS, LOSSES, WHOLE, WHOLE_DIFFERENCES, WHOLE_DEFINITION)
"""The columns of the table."""

USUAL = "one coordinate"
"""What is usually done: a central difference in one coordinate, with one step and one tolerance."""
_USUAL_STEP, _USUAL_TOLERANCE, _USUAL_TRIALS = 1e-3, 1e-2, 40


@dataclass(frozen=True)
class Fault:
    """One mistake.

    Parameters
    ----------
    name : what is wrong.
    places : the functions that are replaced, as (module or class, name, what makes the faulty one).
    """

    name: str
    places: tuple[tuple[Any, str, Replacement], ...]


@dataclass(frozen=True)
class FaultRow:
    """Which checks notice a fault.

    Parameters
    ----------
    name : of the fault.
    noticed : by check, whether it fails.
    usual : share of coordinates in which the usual check of one coordinate notices it.
    factor : the factor by which the whole gradient is wrong, where it is wrong by nothing else.
    """

    name: str
    noticed: dict[str, bool]
    usual: float
    factor: str | None

    @property
    def caught(self) -> bool:
        """Whether at least one of the checks notices it."""
        return any(self.noticed.values())


def fault_study(seed: int = 0, faults: tuple[Fault, ...] | None = None) -> list[FaultRow]:
    """Put in each fault and run all checks.

    Parameters
    ----------
    seed : of the network, the pictures and the directions.
    faults : which, all of ``FAULTS`` by default.

    Not to be run beside other work of this process: while it runs, the engine is wrong.
    """
    return [_row(fault, seed) for fault in (FAULTS if faults is None else faults)]


def awkward_problem(seed: int = 0) -> Problem:
    """Return the small problem that faults are looked for in."""
    random = np.random.default_rng(seed)
    network = _awkward_network(random)

    def picture(height: int, width: int) -> Array:
        image = random.uniform(0, 255, (height, width, 3))
        image[2:11, 3:14] = (180.0, 90.0, 40.0)  # flat: equal responses meet in the maximum pooling
        return image

    return Problem(
        network,
        picture(17, 21),
        picture(18, 22),
        picture(17, 21),
        content_layers=("conv2_2", "conv3_1"),
        style_layers=("conv1_1", "conv2_2", "conv3_1"),
        content_weight=1e-2,
    )


def _awkward_network(random: np.random.Generator) -> Network:
    """Return a network of five convolutions: more channels than the kernels treat as few, so that both ways are run."""
    nodes: list[Node] = []
    value = "image"

    def add(name: str, operator: Operator) -> None:
        nonlocal value
        nodes.append(Node(name, operator, value, name))
        value = name

    channels = 3
    for name, filters in (("conv1_1", 20), ("conv1_2", 20), ("conv2_1", 18), ("conv2_2", 18), ("conv3_1", 18)):
        window = Window((3, 3), pads=(1, 1, 1, 1))
        if name == "conv2_1":
            add("pool1", MaxPool(Window((3, 3), strides=(2, 2), pads=(1, 1, 1, 1))))
        if name == "conv3_1":
            add("pool2", AveragePool(Window((2, 2), strides=(2, 2), ceil_mode=True)))
            window = Window((2, 2), auto_pad="SAME_UPPER")
        scale = np.sqrt(2 / (len(window.taps) * channels))
        weight = random.standard_normal((*window.kernel, channels, filters)) * scale
        bias = random.uniform(-0.2, 0.4, filters)
        add(name, Conv(weight, bias, window, relu=True))
        channels = filters
    return Network(
        nodes=tuple(nodes),
        outputs={node.output: node.output for node in nodes if isinstance(node.operator, Conv)},
        preprocessing=Preprocessing("awkward", True, 1 / 255, (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)),
        dtype=np.dtype(np.float64),
        device="cpu",
        content_weight=1e-2,
        rejected=(),
        workers=Workers(1),
        convolution="direct",
    )


def _row(fault: Fault, seed: int) -> FaultRow:
    noticed = dict.fromkeys(CHECKS, False)
    usual, factor = 0.0, None
    with _put_in(fault):
        problem = awkward_problem(seed)
        groups: dict[str, Callable[[np.random.Generator], list[Check]]] = {
            "operators": lambda random: check_layers(problem, 2, random),
            "losses": lambda random: check_losses(problem, 2, random),
            "whole": lambda random: check_objective(problem, 3, random),
        }
        for group, run in groups.items():
            columns = [column for column in CHECKS if column.startswith(group)]
            try:
                checks = run(np.random.default_rng(seed))
            except (ValueError, IndexError, NonFiniteError):
                noticed.update(dict.fromkeys(columns, True))  # it does not even run
                continue
            for check in checks:
                if not check.passed:
                    noticed[_column(group, check.method)] = True
                if check.method == COMPLEX_STEP and group == "whole":
                    factor = check.factor
        with contextlib.suppress(ValueError, IndexError, NonFiniteError):
            usual = _usual_detection(problem, np.random.default_rng(seed))
    return FaultRow(fault.name, noticed, usual, factor)


def _column(group: str, method: str) -> str:
    """Return the column that a check of a group belongs to."""
    short = {
        ADJOINT: "adjoint",
        COMPLEX_STEP: "complex step",
        DIFFERENCES: "differences",
        DEFINED_VALUE: "definition",
        DEFINITION: "definition",
    }[method]
    column = f"{group}: {short}"
    # Differences of operators and losses find what the complex step finds there.
    return column if column in CHECKS else f"{group}: complex step"


def _usual_detection(problem: Problem, random: np.random.Generator) -> float:
    """Return the share of coordinates in which the usual check notices that something is wrong."""
    objective, x, noticed = problem.objective(), problem.image, 0
    gradient = objective(x)[1]
    for _ in range(_USUAL_TRIALS):
        place = tuple(int(random.integers(size)) for size in x.shape)
        moved = np.zeros_like(x)
        moved[place] = _USUAL_STEP
        quotient = (objective(x + moved)[0] - objective(x - moved)[0]) / (2 * _USUAL_STEP)
        scale = max(abs(quotient), abs(gradient[place]))
        noticed += bool(abs(quotient - gradient[place]) > _USUAL_TOLERANCE * scale)
    return noticed / _USUAL_TRIALS


@contextlib.contextmanager
def _put_in(fault: Fault) -> Iterator[None]:
    """Replace the fault's functions while this is open."""
    right = [(owner, name, getattr(owner, name)) for owner, name, _ in fault.places]
    try:
        for (owner, name, replacement), (_, _, original) in zip(fault.places, right, strict=True):
            setattr(owner, name, replacement(original))
        yield
    finally:
        for owner, name, original in right:
            setattr(owner, name, original)


# ---- the faults: each function below makes a wrong function from a right one ----


def _kernel_not_turned(flip: Any) -> Any:
    return lambda weight, group=1: flip(np.ascontiguousarray(weight[::-1, ::-1]), group)


def _kernel_half_turned(flip: Any) -> Any:
    return lambda weight, group=1: flip(np.ascontiguousarray(weight[:, ::-1]), group)


def _channels_not_swapped(flip: Any) -> Any:
    def faulty(weight: Array, group: int = 1) -> Array:
        square = weight.shape[2] == weight.shape[3]
        result: Array = np.ascontiguousarray(weight[::-1, ::-1]) if square else flip(weight, group)
        return result

    return faulty


def _kernel_turned_in_forward(conv: Any) -> Any:
    def faulty(input: Array, weight: Array, *rest: Any, **named: Any) -> Array:
        result: Array = conv(input, np.ascontiguousarray(weight[::-1, ::-1]), *rest, **named)
        return result

    return faulty


def _kernel_turned_in_backward(gradient: Any) -> Any:
    def faulty(g: Array, weight: Array, *rest: Any, **named: Any) -> Array:
        named["flipped"] = None
        result: Array = gradient(g, np.ascontiguousarray(weight[::-1, ::-1]), *rest, **named)
        return result

    return faulty


def _bias_dropped(conv: Any) -> Any:
    return lambda input, weight, bias, *rest, **named: conv(input, weight, None, *rest, **named)


def _padding_repeats_the_edge(conv: Any) -> Any:
    def faulty(input: Array, weight: Array, bias: Any, window: Window, *rest: Any, **named: Any) -> Array:
        top, left, bottom, right = resolved_pads(window, *input.shape[:2])
        padded = np.pad(input, ((top, bottom), (left, right), (0, 0)), mode="edge")
        result: Array = conv(padded, weight, bias, Window(window.kernel), *rest, **named)
        return result

    return faulty


def _same_on_the_wrong_side(pads: Any) -> Any:
    def faulty(window: Window, height: int, width: int) -> Any:
        top, left, bottom, right = pads(window, height, width)
        same = window.auto_pad in ("SAME_UPPER", "SAME_LOWER")
        return (bottom, right, top, left) if same else (top, left, bottom, right)

    return faulty


def _padding_dropped_in_backward(gradient: Any) -> Any:
    def faulty(g: Array, *rest: Any, **named: Any) -> Array:
        cut = g.copy()
        cut[[0, -1]] = 0
        cut[:, [0, -1]] = 0
        result: Array = gradient(cut, *rest, **named)
        return result

    return faulty


def _shifted_by_one(gradient: Any) -> Any:
    return lambda *rest, **named: np.ascontiguousarray(np.roll(gradient(*rest, **named), 1, axis=0))


def _mask_from_the_gradient(mask: Any) -> Any:
    return lambda g, kept, **named: mask(g, np.ascontiguousarray(g), **{**named, "out": None})


def _mask_from_both(mask: Any) -> Any:
    return lambda g, kept, **named: np.maximum(mask(g, kept, **named), 0)


def _mask_left_out(mask: Any) -> Any:
    return lambda g, kept, **named: g


def _mask_shifted(mask: Any) -> Any:
    def faulty(g: Array, kept: Array, **named: Any) -> Array:
        shifted = np.roll(kept, 1, axis=-1) if kept.dtype != np.uint8 else np.roll(kept, 1)
        result: Array = mask(g, np.ascontiguousarray(shifted), **named)
        return result

    return faulty


def _mean_not_divided(gradient: Any) -> Any:
    def faulty(g: Array, shape: Any, window: Window, **named: Any) -> Array:
        result: Array = gradient(g * (window.kernel[0] * window.kernel[1]), shape, window, **named)
        return result

    return faulty


def _mean_counts_what_is_outside(gradient: Any) -> Any:
    def faulty(g: Array, shape: Any, window: Window, **named: Any) -> Array:
        result = np.zeros(shape, g.dtype)
        share = g / (window.kernel[0] * window.kernel[1])
        for y, x in np.ndindex(g.shape[:2]):
            result[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] += share[y, x]
        return result

    return faulty


def _last_odd_row_dropped(gradient: Any) -> Any:
    def faulty(g: Array, shape: Any, window: Window, **named: Any) -> Array:
        result: Array = gradient(g, shape, window, **named)
        if shape[0] % 2:
            result[-1] = 0
        return result

    return faulty


def _input_remembered(forward: Any) -> Any:
    def faulty(self: MaxPool, input: Array, *rest: Any) -> Any:
        output, (winners, shape) = forward(self, input, *rest)
        return output, (winners, shape, input, output)

    return faulty


def _gradient_to_all_equal_ones(gradient: Any) -> Any:
    """Look the winner up by its value, so that equal ones all get the whole gradient."""

    def faulty(self: MaxPool, g: Array, kept: Any, saved: Any, workers: Workers) -> Array:
        winners, shape, input, output = saved
        result = np.zeros(shape, g.dtype)
        for tap, seen in enumerate(under_taps(input, self.window, fill=-np.inf, beyond=-np.inf)):
            at_tap = np.where(seen == output, tap, len(self.window.taps)).astype(winners.dtype)
            result += gradient(self, g, kept, (at_tap, shape), workers)
        return result

    return faulty


def _gradient_to_the_middle(gradient: Any) -> Any:
    return lambda g, winners, *rest, **named: gradient(g, np.full_like(winners, 4), *rest, **named)


def _gradient_beside_the_winner(gradient: Any) -> Any:
    return lambda g, winners, *rest, **named: gradient(g, np.minimum(winners + 1, 8), *rest, **named)


def _style_weight(change: Callable[[float, Array], float]) -> Replacement:
    """Give the gradient of a style term another weight: what ``change`` makes of the right one, for features F."""

    def replacement(gradient: Any) -> Any:
        def faulty(F: Array, G: Array, A: Array, M_a: Any = None, weight: float = 1.0, *rest: Any) -> Array:
            result: Array = gradient(F, G, A, M_a, change(weight, F), *rest)
            return result

        return faulty

    return replacement


def _painting_scaled(gradient: Any) -> Any:
    return lambda F, G, A, *rest: gradient(F, G, 0.5 * A, *rest)


def _content_weight_left_out(gradient: Any) -> Any:
    return lambda F, P, weight=1.0, add_to=None: gradient(F, P, 1.0, add_to)


def _content_sign(gradient: Any) -> Any:
    return lambda F, P, weight=1.0, add_to=None: gradient(F, P, -weight, add_to)


def _overwritten(gradient: Any) -> Any:
    return lambda F, P, weight=1.0, add_to=None: gradient(F, P, weight, None)


def _style_overwrites(gradient: Any) -> Any:
    def faulty(
        F: Array, G: Array, A: Array, M_a: Any = None, weight: float = 1.0, add_to: Any = None, *rest: Any
    ) -> Array:
        result: Array = gradient(F, G, A, M_a, weight, None, *rest)
        return result

    return faulty


def _added_twice(gradient: Any) -> Any:
    def faulty(F: Array, P: Array, weight: float = 1.0, add_to: Any = None) -> Array:
        once = gradient(F, P, weight, add_to)
        result: Array = once if add_to is None else gradient(F, P, weight, once)
        return result

    return faulty


def _total_variation_in_the_gradient_only(call: Any) -> Any:
    def faulty(self: Objective, image: Array) -> Any:
        value, gradient = call(self, image)
        if np.iscomplexobj(image):
            return value, gradient
        smoothing = np.zeros_like(image)
        smoothing[1:] += np.diff(image, axis=0)
        smoothing[:-1] -= np.diff(image, axis=0)
        return value, gradient + 1e-3 * np.abs(gradient).max() * smoothing / 255

    return faulty


def _normalised_gradient(call: Any) -> Any:
    def faulty(self: Objective, image: Array) -> Any:
        value, gradient = call(self, image)
        return value, gradient / np.abs(gradient).sum()

    return faulty


def _colours_swapped_in_the_gradient(gradient: Any) -> Any:
    return lambda self, g: np.ascontiguousarray(gradient(self, g)[:, :, ::-1])


def _colours_swapped(apply: Any) -> Any:
    return lambda self, image, dtype: apply(self, image[:, :, ::-1], dtype)


def _mean_in_the_wrong_order(apply: Any) -> Any:
    def faulty(self: Preprocessing, image: Array, dtype: Any) -> Array:
        wrong = Preprocessing(self.name, self.bgr, self.scale, self.mean[::-1], self.std)
        result: Array = apply(wrong, image, dtype)
        return result

    return faulty


def _scale_left_out(gradient: Any) -> Any:
    return lambda self, g: gradient(self, g) / self.scale


def _deviation_left_out(gradient: Any) -> Any:
    def faulty(self: Preprocessing, g: Array) -> Array:
        result: Array = gradient(Preprocessing(self.name, self.bgr, self.scale, self.mean, (1.0, 1.0, 1.0)), g)
        return result

    return faulty


def _lowest_layer_left_out(backward: Any) -> Any:
    def faulty(self: Network, tape: Any, gradients: Any, **named: Any) -> Array:
        first = next(iter(gradients))
        kept = {layer: gradient for layer, gradient in gradients.items() if layer != first or len(gradients) == 1}
        result: Array = backward(self, tape, kept, **named)
        return result

    return faulty


# The modules, not the functions of the same name in kernels.cpu.
_CPU, _CONV, _POOL = (
    kernels.cpu,
    importlib.import_module("kernels.cpu.conv"),
    importlib.import_module("kernels.cpu.pool"),
)

FAULTS = (
    Fault(
        "kernel not turned in the input gradient",
        ((_CONV, "flip_weight", _kernel_not_turned), (_CPU, "flip_weight", _kernel_not_turned)),
    ),
    Fault(
        "kernel turned about one axis only",
        ((_CONV, "flip_weight", _kernel_half_turned), (_CPU, "flip_weight", _kernel_half_turned)),
    ),
    Fault(
        "input and output channels not exchanged",
        ((_CONV, "flip_weight", _channels_not_swapped), (_CPU, "flip_weight", _channels_not_swapped)),
    ),
    Fault(
        "kernel turned in both directions",
        ((_CPU, "conv", _kernel_turned_in_forward), (_CPU, "conv_input_gradient", _kernel_turned_in_backward)),
    ),
    Fault("bias dropped", ((_CPU, "conv", _bias_dropped),)),
    Fault("padding repeats the edge", ((_CPU, "conv", _padding_repeats_the_edge),)),
    Fault(
        "SAME padding on the wrong side",
        ((_CONV, "resolved_pads", _same_on_the_wrong_side), (_POOL, "resolved_pads", _same_on_the_wrong_side)),
    ),
    Fault(
        "border dropped in the convolution's gradient", ((_CPU, "conv_input_gradient", _padding_dropped_in_backward),)
    ),
    Fault("convolution's gradient shifted by one", ((_CPU, "conv_input_gradient", _shifted_by_one),)),
    Fault("ReLU mask from the output gradient", ((_CPU, "relu_input_gradient", _mask_from_the_gradient),)),
    Fault("ReLU mask from both (guided backpropagation)", ((_CPU, "relu_input_gradient", _mask_from_both),)),
    Fault("ReLU mask left out", ((_CPU, "relu_input_gradient", _mask_left_out),)),
    Fault("ReLU mask of the neighbouring channel", ((_CPU, "relu_input_gradient", _mask_shifted),)),
    Fault("average's gradient not divided", ((_CPU, "average_pool_input_gradient", _mean_not_divided),)),
    Fault(
        "average's gradient divided by the wrong count at the border",
        ((_CPU, "average_pool_input_gradient", _mean_counts_what_is_outside),),
    ),
    Fault("last row lost at odd sizes", ((_CPU, "average_pool_input_gradient", _last_odd_row_dropped),)),
    Fault("maximum's gradient to a fixed place", ((_CPU, "max_pool_input_gradient", _gradient_to_the_middle),)),
    Fault(
        "maximum's gradient one place beside the winner",
        ((_CPU, "max_pool_input_gradient", _gradient_beside_the_winner),),
    ),
    Fault(
        "maximum's gradient to more than one of equal values",
        ((MaxPool, "forward", _input_remembered), (MaxPool, "input_gradient", _gradient_to_all_equal_ones)),
    ),
    Fault(
        "Gram gradient twice too large",
        ((losses, "style_layer_loss_gradient", _style_weight(lambda weight, F: 2 * weight)),),
    ),
    Fault(
        "Gram gradient with the wrong sign",
        ((losses, "style_layer_loss_gradient", _style_weight(lambda weight, F: -weight)),),
    ),
    Fault(
        "1/M_l missing",
        ((losses, "style_layer_loss_gradient", _style_weight(lambda weight, F: weight * F.shape[0] * F.shape[1])),),
    ),
    Fault(
        "1/N_l missing", ((losses, "style_layer_loss_gradient", _style_weight(lambda weight, F: weight * F.shape[2])),)
    ),
    Fault(
        "w_l missing in the gradient", ((losses, "style_layer_loss_gradient", _style_weight(lambda weight, F: 1.0)),)
    ),
    Fault(
        "painting's Gram matrix scaled differently in the gradient",
        ((losses, "style_layer_loss_gradient", _painting_scaled),),
    ),
    Fault("alpha missing in the gradient", ((losses, "content_loss_gradient", _content_weight_left_out),)),
    Fault("P - F in place of F - P", ((losses, "content_loss_gradient", _content_sign),)),
    Fault("content gradient overwrites what flows", ((losses, "content_loss_gradient", _overwritten),)),
    Fault("style gradient overwrites what flows", ((losses, "style_layer_loss_gradient", _style_overwrites),)),
    Fault("gradient added twice at a branch", ((losses, "content_loss_gradient", _added_twice),)),
    Fault("first style layer left out on the way back", ((Network, "backward", _lowest_layer_left_out),)),
    Fault(
        "total variation in the gradient, not in the loss",
        ((Objective, "__call__", _total_variation_in_the_gradient_only),),
    ),
    Fault("gradient normalised, loss not", ((Objective, "__call__", _normalised_gradient),)),
    Fault("colours swapped in the gradient", ((Preprocessing, "input_gradient", _colours_swapped_in_the_gradient),)),
    Fault(
        "colours swapped in both directions",
        (
            (Preprocessing, "apply", _colours_swapped),
            (Preprocessing, "input_gradient", _colours_swapped_in_the_gradient),
        ),
    ),
    Fault("mean in the wrong order", ((Preprocessing, "apply", _mean_in_the_wrong_order),)),
    Fault("scale 1/255 missing in the gradient", ((Preprocessing, "input_gradient", _scale_left_out),)),
    Fault("deviation missing in the gradient", ((Preprocessing, "input_gradient", _deviation_left_out),)),
)
"""The mistakes, from convolution to pixels."""

NO_FAULT = Fault("nothing is wrong", ())
