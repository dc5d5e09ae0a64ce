"""The catalog of faults: the mistakes that people make in a hand-written gradient.

A fault is put in by replacing one function of the engine, see ``tools.check_gradients.fault_study``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import kernels.cpu
from engine import losses
from engine.gradcheck.definition import under_taps
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array, MaxPool
from engine.preprocessing import Preprocessing
from kernels.cpu.threads import Workers
from kernels.geometry import Window, resolved_pads

Replacement = Callable[[Any], Any]
"""Makes the faulty function from the right one."""


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


# Each function below makes a wrong function from a right one.


def _kernel_not_turned(flip: Any) -> Any:
    return lambda weight, group=1: flip(np.ascontiguousarray(weight[::-1, ::-1]), group)


def _kernel_half_turned(flip: Any) -> Any:
    return lambda weight, group=1: flip(np.ascontiguousarray(weight[:, ::-1]), group)


def _channels_not_swapped(flip: Any) -> Any:
    def faulty(weight: Array, group: int = 1) -> Array:
        square = weight.shape[2] == weight.shape[3]
        return np.ascontiguousarray(weight[::-1, ::-1]) if square else flip(weight, group)

    return faulty


def _kernel_turned_in_forward(conv: Any) -> Any:
    def faulty(input: Array, weight: Array, *rest: Any, **named: Any) -> Array:
        return conv(input, np.ascontiguousarray(weight[::-1, ::-1]), *rest, **named)

    return faulty


def _kernel_turned_in_backward(gradient: Any) -> Any:
    def faulty(g: Array, weight: Array, *rest: Any, **named: Any) -> Array:
        named["flipped"] = None
        return gradient(g, np.ascontiguousarray(weight[::-1, ::-1]), *rest, **named)

    return faulty


def _bias_dropped(conv: Any) -> Any:
    return lambda input, weight, bias, *rest, **named: conv(input, weight, None, *rest, **named)


def _padding_repeats_the_edge(conv: Any) -> Any:
    def faulty(input: Array, weight: Array, bias: Any, window: Window, *rest: Any, **named: Any) -> Array:
        top, left, bottom, right = resolved_pads(window, *input.shape[:2])
        padded = np.pad(input, ((top, bottom), (left, right), (0, 0)), mode="edge")
        return conv(padded, weight, bias, Window(window.kernel), *rest, **named)

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
        return gradient(cut, *rest, **named)

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
        return mask(g, np.ascontiguousarray(shifted), **named)

    return faulty


def _mean_not_divided(gradient: Any) -> Any:
    def faulty(g: Array, shape: Any, window: Window, **named: Any) -> Array:
        return gradient(g * (window.kernel[0] * window.kernel[1]), shape, window, **named)

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
            return gradient(F, G, A, M_a, change(weight, F), *rest)

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
        return gradient(F, G, A, M_a, weight, None, *rest)

    return faulty


def _added_twice(gradient: Any) -> Any:
    def faulty(F: Array, P: Array, weight: float = 1.0, add_to: Any = None) -> Array:
        once = gradient(F, P, weight, add_to)
        return once if add_to is None else gradient(F, P, weight, once)

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


def _normalized_gradient(call: Any) -> Any:
    def faulty(self: Objective, image: Array) -> Any:
        value, gradient = call(self, image)
        return value, gradient / np.abs(gradient).sum()

    return faulty


def _colors_swapped_in_the_gradient(gradient: Any) -> Any:
    return lambda self, g: np.ascontiguousarray(gradient(self, g)[:, :, ::-1])


def _colors_swapped(apply: Any) -> Any:
    return lambda self, image, dtype: apply(self, image[:, :, ::-1], dtype)


def _mean_in_the_wrong_order(apply: Any) -> Any:
    def faulty(self: Preprocessing, image: Array, dtype: Any) -> Array:
        wrong = Preprocessing(self.name, self.bgr, self.scale, self.mean[::-1], self.std)
        return apply(wrong, image, dtype)

    return faulty


def _scale_left_out(gradient: Any) -> Any:
    return lambda self, g: gradient(self, g) / self.scale


def _deviation_left_out(gradient: Any) -> Any:
    def faulty(self: Preprocessing, g: Array) -> Array:
        return gradient(Preprocessing(self.name, self.bgr, self.scale, self.mean, (1.0, 1.0, 1.0)), g)

    return faulty


def _lowest_layer_left_out(backward: Any) -> Any:
    def faulty(self: Network, tape: Any, gradients: Any, **named: Any) -> Array:
        first = next(iter(gradients))
        kept = {layer: gradient for layer, gradient in gradients.items() if layer != first or len(gradients) == 1}
        return backward(self, tape, kept, **named)

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
    Fault("ReLU mask of the neighboring channel", ((_CPU, "relu_input_gradient", _mask_shifted),)),
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
    Fault("gradient normalized, loss not", ((Objective, "__call__", _normalized_gradient),)),
    Fault("colors swapped in the gradient", ((Preprocessing, "input_gradient", _colors_swapped_in_the_gradient),)),
    Fault(
        "colors swapped in both directions",
        (
            (Preprocessing, "apply", _colors_swapped),
            (Preprocessing, "input_gradient", _colors_swapped_in_the_gradient),
        ),
    ),
    Fault("mean in the wrong order", ((Preprocessing, "apply", _mean_in_the_wrong_order),)),
    Fault("scale 1/255 missing in the gradient", ((Preprocessing, "input_gradient", _scale_left_out),)),
    Fault("deviation missing in the gradient", ((Preprocessing, "input_gradient", _deviation_left_out),)),
)
"""The mistakes, from convolution to pixels."""

NO_FAULT = Fault("nothing is wrong", ())
