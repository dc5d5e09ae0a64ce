"""The loss by its definition: every operator and every equation a second time, written as directly as possible.

Shares nothing with the kernels, the network, the preprocessing and the losses but the numbers they are given: where a
window goes is worked out here once more. What is wrong there in value and gradient alike, a bias left out, padding on
the wrong side or colors in another order, shows only against this.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine.gradcheck.measures import Function
from engine.gradcheck.problem import Problem
from engine.network import Network
from engine.ops import Add, Affine, Array, AveragePool, Concat, Conv, MaxPool, Operator, Pad, Relu
from engine.preprocessing import Preprocessing
from engine.sliced import directions
from engine.terms import Variation
from kernels.geometry import Window


def defined(network: Network) -> bool:
    """Say whether all operators of a network have a definition here."""
    known = Conv | AveragePool | MaxPool | Relu | Affine | Add | Concat | Pad
    return all(isinstance(node.operator, known) for node in network.nodes)


def loss_by_definition(problem: Problem) -> Function:
    """Return the total loss as a function of an image, real or complex."""
    network, edges = problem.network, problem.edges
    of_style = "reflect" if edges == "wrap" else edges  # a style image cannot be tiled
    P = _seen(network, problem.content, problem.content_layers, edges) if problem.content_layers else {}
    masks = [region.mask for region in problem.regions] or [np.ones(problem.image.shape[:2])]
    styles = [region.style for region in problem.regions] or [problem.style]
    total_mask = sum(masks)
    targets = []
    for mask, style in zip(masks, styles, strict=True) if problem.style_layers else ():
        F_a = _seen(network, style, problem.style_layers, of_style)
        targets.append((mask / total_mask, F_a))
    counts = np.ones(problem.image.shape[:2]) if problem.content_mask is None else problem.content_mask

    def loss(image: Array) -> Any:
        F, total = _seen(network, image, problem.layers, edges), 0.0
        for layer in P:
            m = _by_area(counts, *F[layer].shape[:2])
            total = total + problem.content_weight * 0.5 * np.sum(m[..., None] * (F[layer] - P[layer]) ** 2)
        for mask, of_layers in targets:
            for layer, F_a in of_layers.items():
                t = _by_area(mask, *F[layer].shape[:2])
                for name, weight in problem.style_statistics.items():
                    E_l = _STYLES[name](F[layer], t, F_a, edges == "wrap")
                    total = total + problem.style_weight / len(of_layers) * t.mean() * weight * E_l
        if problem.variation is not None:
            total = total + problem.variation.weight * _mean_variation(image, problem.variation)
        return total

    return loss


_BORDER = 96
"""Pixels beyond the edges: more than any response sees of them, and a multiple of the poolings' strides."""


def _seen(network: Network, image: Array, layers: Sequence[str], edges: str) -> dict[str, Array]:
    """Return the activations at the image's own positions, with what its edges are continued by around them."""
    own = features_by_definition(network, image, layers)
    if edges == "zero":
        return own
    mode = {"reflect": "reflect", "repeat": "edge", "wrap": "wrap"}[edges]
    border = ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0))
    around = features_by_definition(network, np.pad(image, border, mode=mode), layers)  # type: ignore[call-overload]
    found = {}
    for layer, F in around.items():
        # One row of the layer for each so many of the image's.
        down = math.prod(stride for stride, _ in _strides(network, layer))
        across = math.prod(stride for _, stride in _strides(network, layer))
        height, width = own[layer].shape[:2]
        if edges == "wrap":
            height, width = image.shape[0] // down, image.shape[1] // across
        top, left = _BORDER // down, _BORDER // across
        found[layer] = F[top : top + height, left : left + width]
    return found


def _strides(network: Network, layer: str) -> list[tuple[int, int]]:
    """Return the strides of the windows on the way from the image to a layer."""
    found, value = [], network.outputs[layer]
    for node in reversed(network.nodes):
        if node.output == value:
            value = node.input
            if isinstance(node.operator, Conv | AveragePool | MaxPool):
                found.append(node.operator.window.strides)
    return found


def features_by_definition(network: Network, image: Array, layers: Iterable[str]) -> dict[str, Array]:
    """Return the activations of some layers, (H_l, W_l, N_l)."""
    wanted = {network.outputs[name]: name for name in layers}
    values = {network.nodes[0].input: _preprocess(network.preprocessing, image)}
    found = {}
    for node in network.nodes:
        values[node.output] = _apply(node.operator, [values[name] for name in node.inputs])
        if node.output in wanted:
            found[wanted.pop(node.output)] = values[node.output]
        if not wanted:
            break
    return found


def _mean_gram(F: Array, t: Array | None = None) -> Array:
    """Return 1 / M sum_k t_k F_ik F_jk, M the sum of t; None is 1 everywhere."""
    t = np.ones(F.shape[:2]) if t is None else t
    return np.einsum("hw,hwi,hwj->ij", t, F, F) / t.sum()


def _gram_style(F: Array, t: Array, F_a: Array, tiled: bool = False) -> Any:
    return np.sum((_mean_gram(F, t) - _mean_gram(F_a)) ** 2) / (4 * F.shape[2] ** 2)


def _means_style(F: Array, t: Array, F_a: Array, tiled: bool = False) -> Any:
    (mean, covariance), (of_mean, of_covariance) = _moments(F, t), _moments(F_a)
    total: Any = 0.0
    for i in range(len(mean)):
        deviations = [np.sqrt(C[i, i] + _least(F_a)) for C in (covariance, of_covariance)]
        total += (mean[i] - of_mean[i]) ** 2 + (deviations[0] - deviations[1]) ** 2
    return _balance(F_a) * total / len(mean)


def _covariance_style(F: Array, t: Array, F_a: Array, tiled: bool = False) -> Any:
    return np.sum((_moments(F, t)[1] - _moments(F_a)[1]) ** 2) / (4 * F.shape[2] ** 2)


def _wasserstein_style(F: Array, t: Array, F_a: Array, tiled: bool = False) -> Any:
    """Take the root of the product of both covariances, which has the same trace, by Denman and Beavers' iteration."""
    (mean, covariance), (of_mean, of_covariance) = _moments(F, t), _moments(F_a)
    floor = _least(F_a) * np.eye(len(mean))
    own, other = covariance + floor, of_covariance + floor
    root, inverse = own @ other, np.eye(len(mean))
    for _ in range(50):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    distance = np.sum((mean - of_mean) ** 2) + np.trace(own) + np.trace(other) - 2 * np.trace(root)
    return _balance(F_a) * distance / len(mean)


def _shifted_style(F: Array, t: Array, F_a: Array, tiled: bool = False) -> Any:
    """Pairs are four positions apart, across and down, each of the two half of the loss."""
    total: Any = 0.0
    for down, across in ((0, 4), (4, 0)):
        around = (down, across) if tiled else (0, 0)
        own = _shifted(_going_on(F, *around), _going_on(t, *around), down, across)
        other = _shifted(F_a, np.ones(F_a.shape[:2]), down, across)
        if own is not None and other is not None:
            total += np.sum((own - other) ** 2) / (4 * F.shape[2] ** 2) / 2
    return total


def _sliced_style(F: Array, t: Array, F_a: Array, tiled: bool = False) -> Any:
    """Go along u from one of both functions' steps to the next."""
    N, total = F.shape[2], 0.0
    V, positions = directions(N), F_a.shape[0] * F_a.shape[1]
    means, share = _overlaps(min(1024, positions), positions), t.ravel() / t.sum()
    for n in range(N):
        own, other = (np.einsum("i,hwi->hw", V[n], one).ravel() for one in (F, F_a))
        order = np.argsort(own.real)
        T = means @ np.sort(other)
        ends = np.concatenate([np.cumsum(share[order])[:-1], np.arange(1, len(T)) / len(T), [0, 1]])
        u = np.sort(ends)
        middle = (u[1:] + u[:-1]) / 2
        P = own[order][np.searchsorted(np.cumsum(share[order])[:-1], middle)]
        total = total + np.sum(np.diff(u) * (P - T[np.minimum((middle * len(T)).astype(int), len(T) - 1)]) ** 2)
    return _balance(F_a) * total / N


_STYLES = {
    "gram": _gram_style,
    "means": _means_style,
    "covariance": _covariance_style,
    "wasserstein": _wasserstein_style,
    "shifted": _shifted_style,
    "sliced": _sliced_style,
}
"""A layer's loss by its features, weights of their positions, the style image's features, and whether it is tiled."""


def _moments(F: Array, t: Array | None = None) -> tuple[Array, Array]:
    """Return mean and covariance, position by position."""
    t = np.ones(F.shape[:2]) if t is None else t
    mean = np.einsum("hw,hwi->i", t, F) / t.sum()
    return mean, np.einsum("hw,hwi,hwj->ij", t, F - mean, F - mean) / t.sum()


def _least(F_a: Array) -> float:
    """Return the least variance: a hundredth of the style image's mean square."""
    return float(np.mean(F_a**2)) / 100


def _balance(F_a: Array) -> float:
    """Return the loss of no features by Gram matrices over that by their mean square."""
    return float(_gram_style(0 * F_a, np.ones(F_a.shape[:2]), F_a) / np.mean(F_a**2))


def _going_on(array: Array, down: int, across: int) -> Array:
    """Return a tile's features or weights with rows and columns of its other side behind them."""
    return np.pad(array, [(0, down), (0, across), (0, 0)][: array.ndim], mode="wrap")


def _shifted(F: Array, t: Array, down: int, across: int) -> Array | None:
    """Return the mean of F_k F_l^T over the pairs of positions, l being ``down`` rows and ``across`` columns from k."""
    height, width, _ = F.shape
    weights, total = 0.0, np.zeros((F.shape[2], F.shape[2]), F.dtype)
    for y in range(height - down):
        for x in range(width - across):
            both = t[y, x] * t[y + down, x + across]
            weights += both
            total += both * np.outer(F[y, x], F[y + down, x + across])
    return total / weights if weights else None


def _by_area(mask: Array, height: int, width: int) -> Array:
    """Return a mask at another size: each value the mean over the area that it covers, as a sum over all of it."""
    down, along = _overlaps(height, mask.shape[0]), _overlaps(width, mask.shape[1])
    return down @ mask @ along.T


def _overlaps(size: int, of: int) -> Array:
    """Return which part of each of ``size`` equal intervals each of ``of`` equal ones covers."""
    ratio, one, other = of / size, np.arange(size)[:, None], np.arange(of)
    return np.maximum(np.minimum((one + 1) * ratio, other + 1) - np.maximum(one * ratio, other), 0) / ratio


def _mean_variation(image: Array, variation: Variation) -> Any:
    """Return what neighboring pixels' steps come to, pixel by pixel, over the number of values."""
    height, width, _ = image.shape
    epsilon, total = variation.epsilon, 0.0
    for y in range(height):
        for x in range(width):
            below = y + 1 if y + 1 < height else 0 if variation.wrap else y
            right = x + 1 if x + 1 < width else 0 if variation.wrap else x
            squares = (image[below, x] - image[y, x]) ** 2 + (image[y, right] - image[y, x]) ** 2
            total += np.sum(squares / 2 if epsilon is None else np.sqrt(squares + epsilon**2) - epsilon)
    return total / image.size


def _preprocess(preprocessing: Preprocessing, image: Array) -> Array:
    red, green, blue = (image[:, :, channel] * preprocessing.scale for channel in range(3))
    ordered = (blue, green, red) if preprocessing.bgr else (red, green, blue)
    planes = [
        (plane - mean) / std for plane, mean, std in zip(ordered, preprocessing.mean, preprocessing.std, strict=True)
    ]
    return np.stack(planes, axis=2)


def _apply(operator: Operator, inputs: Sequence[Array]) -> Array:
    if isinstance(operator, Add):
        return sum(inputs[1:], inputs[0])
    if isinstance(operator, Concat):
        return np.concatenate(inputs, axis=2)
    (x,) = inputs
    if isinstance(operator, Conv):
        y = _correlation(operator, x)
        return _positive(y) if operator.relu else y
    if isinstance(operator, Relu):
        return _positive(x)
    if isinstance(operator, Affine):
        return x * operator.scale + operator.shift
    if isinstance(operator, Pad):
        top, left, bottom, right = operator.pads
        return np.pad(x, ((top, bottom), (left, right), (0, 0)), mode=operator.mode)  # type: ignore[call-overload]
    if isinstance(operator, AveragePool):
        counted = under_taps(np.ones((*x.shape[:2], 1)), operator.window, fill=float(operator.count_include_pad))
        return sum(under_taps(x, operator.window)) / np.maximum(sum(counted), 1)
    if isinstance(operator, MaxPool):
        # Padding never wins; the first of equal ones does.
        candidates = np.stack(under_taps(x, operator.window, fill=-np.inf, beyond=-np.inf))
        first = np.argmax(candidates.real, axis=0)
        return np.take_along_axis(candidates, first[None], axis=0)[0]
    raise ValueError(f"{type(operator).__name__} has no definition here")


def _correlation(conv: Conv, x: Array) -> Array:
    """Return the sum over taps and channels of input times weight, plus the bias."""
    kernel_height, kernel_width, per_group, filters = conv.weight.shape
    weight = conv.weight.reshape(kernel_height * kernel_width, per_group, filters)
    of_group, parts = filters // conv.group, []
    for group in range(conv.group):
        channels = slice(group * per_group, (group + 1) * per_group)
        chosen = slice(group * of_group, (group + 1) * of_group)
        taps = under_taps(x[:, :, channels], conv.window)
        parts.append(sum(np.einsum("hwc,ck->hwk", tap, weight[index, :, chosen]) for index, tap in enumerate(taps)))
    y = np.concatenate(parts, axis=2)
    return y if conv.bias is None else y + conv.bias


def _positive(x: Array) -> Array:
    """Return x where its real part is above 0, else 0."""
    return np.where(x.real > 0, x, 0)


def under_taps(x: Array, window: Window, fill: float = 0.0, beyond: float = 0.0) -> list[Array]:
    """Return, for each tap of the window, the values it sees, (H', W', C).

    Parameters
    ----------
    fill : what the padding holds.
    beyond : what a window sees that ``ceil_mode`` puts beyond the padding.
    """
    (rows, top, bottom), (columns, left, right) = (_placed(window, axis, x.shape[axis]) for axis in (0, 1))
    (stride_y, stride_x), (dilation_y, dilation_x) = window.strides, window.dilations
    padded = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
    reach_y = (rows - 1) * stride_y + (window.kernel[0] - 1) * dilation_y + 1
    reach_x = (columns - 1) * stride_x + (window.kernel[1] - 1) * dilation_x + 1
    missing = (max(reach_y - padded.shape[0], 0), max(reach_x - padded.shape[1], 0))
    padded = np.pad(padded, ((0, missing[0]), (0, missing[1]), (0, 0)), constant_values=beyond)
    return [
        padded[
            ky * dilation_y : ky * dilation_y + (rows - 1) * stride_y + 1 : stride_y,
            kx * dilation_x : kx * dilation_x + (columns - 1) * stride_x + 1 : stride_x,
        ]
        for ky, kx in np.ndindex(window.kernel)
    ]


def _placed(window: Window, axis: int, size: int) -> tuple[int, int, int]:
    """Return how many outputs there are along an axis of an input, and the padding before and behind it.

    Source: ONNX MaxPool (opset 22) for the sizes, Conv (opset 22) for SAME: the odd one is behind with SAME_UPPER.
    """
    stride, extent = window.strides[axis], (window.kernel[axis] - 1) * window.dilations[axis] + 1
    if window.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        count = math.ceil(size / stride)
        pads = max((count - 1) * stride + extent - size, 0)
        odd_one = pads % 2
        before = pads // 2 + (odd_one if window.auto_pad == "SAME_LOWER" else 0)
        return count, before, pads - before
    before, behind = (0, 0) if window.auto_pad == "VALID" else (window.pads[axis], window.pads[axis + 2])
    steps = (size + before + behind - extent) / stride
    count = (math.ceil(steps) if window.ceil_mode else math.floor(steps)) + 1
    # A window that rounding up lets start in the padding behind is ignored.
    if window.ceil_mode and (count - 1) * stride >= size + before:
        count -= 1
    return count, before, behind
