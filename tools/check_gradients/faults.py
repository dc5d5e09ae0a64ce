"""The catalog of faults: the mistakes that people make in a hand-written gradient.

A fault is put in by replacing one function of the engine, see ``tools.check_gradients.fault_study``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine import losses, statistics, terms
from engine import objective as _objective
from engine import pieces as _pieces
from engine.gradcheck.definition import under_taps
from engine.objective import Objective
from engine.ops import Array, MaxPool
from engine.pieces import Cutter, Piece
from engine.plan import Plan
from engine.preprocessing import Preprocessing
from engine.statistics import Moments, Target
from kernels import Cpu, Device
from kernels import geometry as _geometry
from kernels.cpu import conv as _conv
from kernels.cpu import convolution as _convolution
from kernels.cpu import pool as _pool
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
    beyond : whether it is one of a control beyond the paper, with which the loss is made for it only.
    edges : what is beyond the image's edges, which the loss is made with for it only.
    waist : a layer up to which the image is computed in pieces, for it only; None computes the whole.
    """

    name: str
    places: tuple[tuple[Any, str, Replacement], ...]
    beyond: bool = False
    edges: str = "zero"
    waist: str | None = None


# Each function below makes a wrong function from a right one.


def _kernel_not_flipped(flip: Any) -> Any:
    return lambda weight, group=1: flip(np.ascontiguousarray(weight[::-1, ::-1]), group)


def _kernel_half_flipped(flip: Any) -> Any:
    return lambda weight, group=1: flip(np.ascontiguousarray(weight[:, ::-1]), group)


def _channels_not_swapped(flip: Any) -> Any:
    def faulty(weight: Array, group: int = 1) -> Array:
        square = weight.shape[2] == weight.shape[3]
        return np.ascontiguousarray(weight[::-1, ::-1]) if square else flip(weight, group)

    return faulty


def _kernel_flipped_in_forward(conv: Any) -> Any:
    def faulty(cpu: Cpu, input: Array, weight: Array, *rest: Any, **named: Any) -> Array:
        return conv(cpu, input, np.ascontiguousarray(weight[::-1, ::-1]), *rest, **named)

    return faulty


def _kernel_flipped_in_backward(gradient: Any) -> Any:
    def faulty(cpu: Cpu, g: Array, weight: Array, *rest: Any, **named: Any) -> Array:
        named["flipped"] = None
        return gradient(cpu, g, np.ascontiguousarray(weight[::-1, ::-1]), *rest, **named)

    return faulty


def _bias_dropped(conv: Any) -> Any:
    return lambda cpu, input, weight, bias, *rest, **named: conv(cpu, input, weight, None, *rest, **named)


def _padding_repeats_the_edge(conv: Any) -> Any:
    def faulty(cpu: Cpu, input: Array, weight: Array, bias: Any, window: Window, *rest: Any, **named: Any) -> Array:
        top, left, bottom, right = resolved_pads(window, *input.shape[:2])
        padded = np.pad(input, ((top, bottom), (left, right), (0, 0)), mode="edge")
        return conv(cpu, padded, weight, bias, Window(window.kernel), *rest, **named)

    return faulty


def _same_on_the_wrong_side(pads: Any) -> Any:
    def faulty(window: Window, height: int, width: int) -> Any:
        top, left, bottom, right = pads(window, height, width)
        same = window.auto_pad in ("SAME_UPPER", "SAME_LOWER")
        return (bottom, right, top, left) if same else (top, left, bottom, right)

    return faulty


def _padding_dropped_in_backward(gradient: Any) -> Any:
    def faulty(cpu: Cpu, g: Array, *rest: Any, **named: Any) -> Array:
        cut = g.copy()
        cut[[0, -1]] = 0
        cut[:, [0, -1]] = 0
        return gradient(cpu, cut, *rest, **named)

    return faulty


def _shifted_by_one(gradient: Any) -> Any:
    return lambda *rest, **named: np.ascontiguousarray(np.roll(gradient(*rest, **named), 1, axis=0))


def _mask_from_the_gradient(mask: Any) -> Any:
    return lambda cpu, g, kept, **named: mask(cpu, g, np.ascontiguousarray(g), **{**named, "out": None})


def _mask_from_both(mask: Any) -> Any:
    return lambda cpu, g, kept, **named: np.maximum(mask(cpu, g, kept, **named), 0)


def _mask_left_out(mask: Any) -> Any:
    return lambda cpu, g, kept, **named: g


def _mask_shifted(mask: Any) -> Any:
    def faulty(cpu: Cpu, g: Array, kept: Array, **named: Any) -> Array:
        shifted = np.roll(kept, 1, axis=-1) if kept.dtype != np.uint8 else np.roll(kept, 1)
        return mask(cpu, g, np.ascontiguousarray(shifted), **named)

    return faulty


def _mean_not_divided(gradient: Any) -> Any:
    def faulty(cpu: Cpu, g: Array, shape: Any, window: Window, **named: Any) -> Array:
        return gradient(cpu, g * (window.kernel[0] * window.kernel[1]), shape, window, **named)

    return faulty


def _mean_counts_what_is_outside(gradient: Any) -> Any:
    def faulty(cpu: Cpu, g: Array, shape: Any, window: Window, **named: Any) -> Array:
        result = np.zeros(shape, g.dtype)
        share = g / (window.kernel[0] * window.kernel[1])
        for y, x in np.ndindex(g.shape[:2]):
            result[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] += share[y, x]
        return result

    return faulty


def _last_odd_row_dropped(gradient: Any) -> Any:
    def faulty(cpu: Cpu, g: Array, shape: Any, window: Window, **named: Any) -> Array:
        result: Array = gradient(cpu, g, shape, window, **named)
        if shape[0] % 2:
            result[-1] = 0
        return result

    return faulty


def _input_remembered(forward: Any) -> Any:
    def faulty(self: MaxPool, device: Device, inputs: Any, *rest: Any) -> Any:
        output, (winners, shape) = forward(self, device, inputs, *rest)
        return output, (winners, shape, inputs[0], output)

    return faulty


def _gradient_to_all_equal_ones(gradient: Any) -> Any:
    """Look the winner up by its value, so that equal ones all get the whole gradient."""

    def faulty(self: MaxPool, device: Device, g: Array, kept: Any, saved: Any) -> Any:
        winners, shape, input, output = saved
        result = np.zeros(shape, g.dtype)
        for tap, seen in enumerate(under_taps(input, self.window, fill=-np.inf, beyond=-np.inf)):
            at_tap = np.where(seen == output, tap, len(self.window.taps)).astype(winners.dtype)
            result += gradient(self, device, g, kept, (at_tap, shape))[0]
        return [result]

    return faulty


def _gradient_to_the_middle(gradient: Any) -> Any:
    return lambda cpu, g, winners, *rest, **named: gradient(cpu, g, np.full_like(winners, 4), *rest, **named)


def _gradient_beside_the_winner(gradient: Any) -> Any:
    return lambda cpu, g, winners, *rest, **named: gradient(cpu, g, np.minimum(winners + 1, 8), *rest, **named)


def _style_weight(change: Callable[[float, Array], float]) -> Replacement:
    """Give the gradient of a style term another weight: what ``change`` makes of the right one, for features F."""

    def replacement(gradient: Any) -> Any:
        def faulty(
            device: Device, F: Array, G: Array, A: Array, M_a: Any = None, weight: float = 1.0, *rest: Any
        ) -> Array:
            return gradient(device, F, G, A, M_a, change(weight, F), *rest)

        return faulty

    return replacement


def _painting_scaled(gradient: Any) -> Any:
    return lambda device, F, G, A, *rest: gradient(device, F, G, 0.5 * A, *rest)


def _content_weight_left_out(gradient: Any) -> Any:
    return lambda device, F, P, weight=1.0, *rest: gradient(device, F, P, 1.0, *rest)


def _content_sign(gradient: Any) -> Any:
    return lambda device, F, P, weight=1.0, *rest: gradient(device, F, P, -weight, *rest)


def _overwritten(gradient: Any) -> Any:
    return lambda device, F, P, weight=1.0, add_to=None, *rest: gradient(device, F, P, weight, None, *rest)


def _style_overwrites(gradient: Any) -> Any:
    def faulty(
        device: Device,
        F: Array,
        G: Array,
        A: Array,
        M_a: Any = None,
        weight: float = 1.0,
        add_to: Any = None,
        *rest: Any,
    ) -> Array:
        return gradient(device, F, G, A, M_a, weight, None, *rest)

    return faulty


def _added_twice(gradient: Any) -> Any:
    def faulty(device: Device, F: Array, P: Array, weight: float = 1.0, add_to: Any = None, *rest: Any) -> Array:
        once = gradient(device, F, P, weight, add_to, *rest)
        return once if add_to is None else gradient(device, F, P, weight, once, *rest)

    return faulty


def _guide(change: Callable[[Array], Array | None]) -> Replacement:
    """Give the gradient of a region's term another guide: what ``change`` makes of the right one."""

    def replacement(gradient: Any) -> Any:
        def faulty(*given: Any) -> Array:
            first, guide, rest = given[:7], given[7:8], given[8:]
            changed = [change(one) if one is not None else None for one in guide]
            return gradient(*first, *changed, *rest)

        return faulty

    return replacement


def _content_mask_left_out(gradient: Any) -> Any:
    return lambda *given: gradient(*given[:5])


def _mean_constant(gradient: Any) -> Any:
    """Leave out that the covariance changes with the mean."""
    return lambda own, target: (np.zeros_like(own.mu), gradient(own, target)[1])


def _variances_for_deviations(gradient: Any) -> Any:
    """Leave out the root's own derivative."""

    def faulty(own: Moments, target: Target) -> Any:
        of_mean, of_square = gradient(own, target)
        deviations = np.sqrt(np.diag(own.C) + target.moments.epsilon)
        return of_mean, of_square * deviations

    return faulty


def _transport_halved(gradient: Any) -> Any:
    """Take the factor 1/2 of a root's derivative without the 2 that stands before the root."""

    def faulty(own: Moments, target: Target) -> Any:
        N, (_, moved) = len(own.mu), own.transport(target)
        of_square = (np.eye(N) - moved / 2) / N
        return 2 / N * (own.mu - target.moments.mu) - 2 * of_square @ own.mu, of_square

    return faulty


def _of_moments(name: str, change: Replacement) -> Replacement:
    """Give one of the statistics of moments another gradient."""

    def replacement(known: Any) -> Any:
        value, gradient = known[name]
        return {**known, name: (value, change(gradient))}

    return replacement


def _pairs_across_the_edge(pairs: Any) -> Any:
    """Pair the end of a row with the beginning of the next."""

    def faulty(counts: Array, direction: str, *rest: Any) -> Any:
        return replace(found, weights=counts) if (found := pairs(counts, direction, *rest)).size else found

    return faulty


def _shifted_one_way(product: Any) -> Any:
    """Leave out what a position is as the second of its pair."""

    def faulty(cpu: Cpu, matrix: Array, features: Array, offset: int, weights: Array, *, add_to: Array) -> Array:
        before = add_to.copy()
        result: Array = product(cpu, matrix, features, offset, weights, add_to=add_to)
        rows, column = features.reshape(-1, features.shape[2]), weights.reshape(-1, 1)
        flat = before.reshape(rows.shape)
        flat[:-offset] += (column * np.roll(rows, -offset, axis=0))[:-offset] @ matrix.T
        result[...] = before
        return result

    return faulty


def _left_in_order(transport: Any) -> Any:
    """Leave each residual where the order of the values has it."""

    def faulty(cpu: Cpu, input: Array, targets: Any, weights: Any = None) -> tuple[Array, Array]:
        cost, residual = transport(cpu, input, targets, weights)
        rows = input.reshape(-1, input.shape[2])
        ordered = np.take_along_axis(residual.reshape(rows.shape), np.argsort(rows.real, axis=0), axis=0)
        return cost, ordered.reshape(input.shape)

    return faulty


def _residual_alike(transport: Any) -> Any:
    """Count each position once in the gradient alone."""

    def faulty(cpu: Cpu, input: Array, targets: Any, weights: Any = None) -> tuple[Array, Array]:
        return transport(cpu, input, targets, weights)[0], transport(cpu, input, targets)[1]

    return faulty


def _positions_alike(gradient: Any) -> Any:
    return lambda cpu, g, weights, *, add_to: gradient(cpu, g, np.ones_like(weights), add_to=add_to)


def _variation_beyond_the_edge(gradient: Any) -> Any:
    """Step from the last row to the first, as rolling the image would."""

    def faulty(cpu: Cpu, image: Array, factor: float, epsilon: Any = None, **named: Any) -> Array:
        result: Array = gradient(cpu, image, factor, epsilon, **named)
        step = image[0] - image[-1]
        result[-1] -= factor * step / (1.0 if epsilon is None else np.sqrt(step**2 + epsilon**2))
        return result

    return faulty


def _without_wrap(gradient: Any) -> Any:
    def faulty(cpu: Cpu, image: Array, factor: float, epsilon: Any = None, **named: Any) -> Array:
        result: Array = gradient(cpu, image, factor, epsilon, **named | {"wrap": False})
        return result

    return faulty


def _nothing_behind_the_last(end: Any) -> Any:
    """Let a tile end where it ends, for what looks ahead."""
    return lambda cutter, layer, stop, positions: min(end(cutter, layer, stop, positions), positions)


def _variation_of_one_neighbor(gradient: Any) -> Any:
    """Leave out what a pixel adds to the steps that begin above it and on its left."""

    def faulty(cpu: Cpu, image: Array, factor: float, epsilon: Any = None, *, wrap: bool, add_to: Any = None) -> Array:
        down, along = (np.diff(image, axis=axis, append=image.take([-1], axis)) for axis in (0, 1))
        own = -factor * (down + along) / (1.0 if epsilon is None else np.sqrt(down**2 + along**2 + epsilon**2))
        return own if add_to is None else add_to + own

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
    return lambda self, device, g: np.ascontiguousarray(gradient(self, device, g)[:, :, ::-1])


def _colors_swapped(apply: Any) -> Any:
    return lambda self, device, image, dtype: apply(self, device, image[:, :, ::-1], dtype)


def _mean_in_the_wrong_order(apply: Any) -> Any:
    def faulty(self: Preprocessing, device: Device, image: Array, dtype: Any) -> Array:
        wrong = Preprocessing(self.name, self.bgr, self.scale, self.mean[::-1], self.std)
        return apply(wrong, device, image, dtype)

    return faulty


def _scale_left_out(gradient: Any) -> Any:
    return lambda self, device, g: gradient(self, device, g) / self.scale


def _deviation_left_out(gradient: Any) -> Any:
    def faulty(self: Preprocessing, device: Device, g: Array) -> Array:
        return gradient(Preprocessing(self.name, self.bgr, self.scale, self.mean, (1.0, 1.0, 1.0)), device, g)

    return faulty


def _lowest_layer_left_out(backward: Any) -> Any:
    def faulty(self: Plan, tape: Any, gradients: Any, **named: Any) -> Array:
        first = next(iter(gradients))
        kept = {layer: gradient for layer, gradient in gradients.items() if layer != first or len(gradients) == 1}
        return backward(self, tape, kept, **named)

    return faulty


def _border_forgotten(give_back: Any) -> Any:
    """Leave out the gradient of what goes on beyond the edges."""

    def faulty(self: Piece, gradient: Array, total: Array) -> None:
        rows, columns = (max(runs, key=lambda run: run[2]) for runs in (self.rows, self.columns))
        give_back(replace(self, rows=(rows,), columns=(columns,)), gradient, total)

    return faulty


def _mirrored_at_the_edge(sources: Any) -> Any:
    """Mirror about the edge itself, so that the last row comes twice."""

    def faulty(places: Any, size: int, edges: str) -> list[int]:
        if edges != "reflect":
            return sources(places, size, edges)
        turned = [place % (2 * size) for place in places]
        return [place if place < size else 2 * size - 1 - place for place in turned]

    return faulty


def _wrapped_one_short(sources: Any) -> Any:
    """Let the other side begin one row too late."""

    def faulty(places: Any, size: int, edges: str) -> list[int]:
        found: list[int] = sources(places, size, edges)
        return [here if 0 <= place < size else (here + 1) % size for place, here in zip(places, found, strict=True)]

    return faulty


def _handed_down_one_row_too_low(handed: Any) -> Any:
    return lambda view, layer, whole, flowing: handed(view, layer, np.roll(whole, 1, axis=0), flowing)


def _of_relu(replacement: Replacement) -> tuple[tuple[Any, str, Replacement], ...]:
    """Return both places of a ReLU's input gradient: behind a convolution, and alone."""
    return tuple((place, "relu_input_gradient", replacement) for place in (_convolution, Cpu))


FAULTS = (
    Fault(
        "kernel not flipped in the input gradient",
        ((_conv, "flip_weight", _kernel_not_flipped), (_convolution, "flip_weight", _kernel_not_flipped)),
    ),
    Fault(
        "kernel flipped about one axis only",
        ((_conv, "flip_weight", _kernel_half_flipped), (_convolution, "flip_weight", _kernel_half_flipped)),
    ),
    Fault(
        "input and output channels not exchanged",
        ((_conv, "flip_weight", _channels_not_swapped), (_convolution, "flip_weight", _channels_not_swapped)),
    ),
    Fault(
        "kernel flipped in both directions",
        (
            (_convolution, "conv", _kernel_flipped_in_forward),
            (_convolution, "conv_input_gradient", _kernel_flipped_in_backward),
        ),
    ),
    Fault("bias dropped", ((_convolution, "conv", _bias_dropped),)),
    Fault("padding repeats the edge", ((_convolution, "conv", _padding_repeats_the_edge),)),
    Fault(
        "SAME padding on the wrong side",
        tuple((module, "resolved_pads", _same_on_the_wrong_side) for module in (_conv, _pool, _geometry)),
    ),
    Fault(
        "border dropped in the convolution's gradient",
        ((_convolution, "conv_input_gradient", _padding_dropped_in_backward),),
    ),
    Fault("convolution's gradient shifted by one", ((_convolution, "conv_input_gradient", _shifted_by_one),)),
    Fault("ReLU mask from the output gradient", _of_relu(_mask_from_the_gradient)),
    Fault("ReLU mask from both (guided backpropagation)", _of_relu(_mask_from_both)),
    Fault("ReLU mask left out", _of_relu(_mask_left_out)),
    Fault("ReLU mask of the neighboring channel", _of_relu(_mask_shifted)),
    Fault("average's gradient not divided", ((Cpu, "average_pool_input_gradient", _mean_not_divided),)),
    Fault(
        "average's gradient divided by the wrong count at the border",
        ((Cpu, "average_pool_input_gradient", _mean_counts_what_is_outside),),
    ),
    Fault("last row lost at odd sizes", ((Cpu, "average_pool_input_gradient", _last_odd_row_dropped),)),
    Fault("maximum's gradient to a fixed place", ((Cpu, "max_pool_input_gradient", _gradient_to_the_middle),)),
    Fault(
        "maximum's gradient one place beside the winner",
        ((Cpu, "max_pool_input_gradient", _gradient_beside_the_winner),),
    ),
    Fault(
        "maximum's gradient to more than one of equal values",
        ((MaxPool, "forward", _input_remembered), (MaxPool, "input_gradients", _gradient_to_all_equal_ones)),
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
    Fault("first style layer left out on the way back", ((Plan, "backward", _lowest_layer_left_out),)),
    Fault(
        "a region's guide left out in the gradient",
        ((losses, "style_layer_loss_gradient", _guide(lambda guide: None)),),
        beyond=True,
    ),
    Fault("a region's guide squared", ((losses, "style_layer_loss_gradient", _guide(np.square)),), beyond=True),
    Fault(
        "the content's mask left out in the gradient",
        ((losses, "content_loss_gradient", _content_mask_left_out),),
        beyond=True,
    ),
    Fault(
        "the mean taken as constant in the covariance's gradient",
        ((terms, "_OF_MOMENTS", _of_moments("covariance", _mean_constant)),),
        beyond=True,
    ),
    Fault(
        "the root left out in the deviations' gradient",
        ((terms, "_OF_MOMENTS", _of_moments("means", _variances_for_deviations)),),
        beyond=True,
    ),
    Fault(
        "half of the transport in the Wasserstein distance's gradient",
        ((terms, "_OF_MOMENTS", _of_moments("wasserstein", _transport_halved)),),
        beyond=True,
    ),
    Fault(
        "a region's guide left out in a mean's gradient",
        ((Cpu, "sum_positions_input_gradient", _positions_alike),),
        beyond=True,
    ),
    Fault(
        "a shifted Gram matrix's gradient to one of two positions",
        ((Cpu, "shifted_product", _shifted_one_way),),
        beyond=True,
    ),
    Fault(
        "a sliced loss's gradient left in the order of the values",
        ((Cpu, "transport_residual", _left_in_order),),
        beyond=True,
    ),
    Fault(
        "a region's guide left out in a sliced loss's gradient",
        ((Cpu, "transport_residual", _residual_alike),),
        beyond=True,
    ),
    Fault("shifts pair across the edge", ((statistics, "pairs_of", _pairs_across_the_edge),), beyond=True),
    Fault(
        "total variation steps from the last row to the first",
        ((Cpu, "variation_gradient", _variation_beyond_the_edge),),
        beyond=True,
    ),
    Fault(
        "total variation's gradient of one neighbor only",
        ((Cpu, "variation_gradient", _variation_of_one_neighbor),),
        beyond=True,
    ),
    Fault(
        "the gradient beyond a mirrored edge forgotten",
        ((Piece, "give_back", _border_forgotten),),
        edges="reflect",
    ),
    Fault("the gradient beyond a tile's edge forgotten", ((Piece, "give_back", _border_forgotten),), edges="wrap"),
    Fault(
        "a tile's total variation ends at its seam in the gradient",
        ((Cpu, "variation_gradient", _without_wrap),),
        beyond=True,
        edges="wrap",
    ),
    Fault(
        "a tile's shifted pairs end at its seam",
        ((Cutter, "_end_ahead", _nothing_behind_the_last),),
        beyond=True,
        edges="wrap",
    ),
    Fault(
        "mirrored about the edge in place of the last row",
        ((_pieces, "sources", _mirrored_at_the_edge),),
        edges="reflect",
    ),
    Fault("a tile's other side one row too late", ((_pieces, "sources", _wrapped_one_short),), edges="wrap"),
    Fault(
        "a waist's gradient one row too low",
        ((_objective, "_handed_down", _handed_down_one_row_too_low),),
        waist="conv2_2",
    ),
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
