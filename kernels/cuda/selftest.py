"""Before a device is used for the first time, its kernels are compared with the CPU's on small random problems.

A compiler or a card that the project has not seen may be wrong, and wrong pictures look like pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from kernels.cpu.device import Cpu
from kernels.cuda.conv import pack_weight
from kernels.cuda.device import Cuda
from kernels.cuda.hopper import STAGES, Tiling, hopper_conv, pack_hopper_weight
from kernels.cuda.implicit_gemm import implicit_gemm_conv
from kernels.geometry import Window
from kernels.grids import Grids

TOLERANCE = 1e-4
"""Difference of two results in float32, relative to the largest value, from which on one of them is wrong.

Rounding is a hundred times less.
"""

HALF_TOLERANCE = 1e-3
"""The same for results in float16, which are rounded to 5e-4, or of factors in tf32, which are too."""

SPLIT_TOLERANCE = 1e-5
"""The same for products in three parts of tf32: with one of them missing the difference is ten times as much."""

_CONV = Window((3, 3), pads=(1, 1, 1, 1))
_STRIDED = Window((3, 2), strides=(2, 1), pads=(1, 0, 1, 1))
_POOL = Window((2, 2), strides=(2, 2))

_BOUNDS = (0.0, 255.0)

Check = Callable[[Any, Mapping[str, Any]], Any]


def _two_steps(step: Callable[..., Any], arrays: Mapping[str, Any], state: list[Any], settings: tuple[Any, ...]) -> Any:
    """Return the image after two steps: the second one shows what the first has left in ``state``."""
    image = step(arrays["image"], arrays["gradient"], *state, *settings, _BOUNDS)
    return step(image, arrays["later"], *state, *settings, _BOUNDS)


def _of_lbfgs(device: Any, arrays: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the inner products of one stored pair, and a direction made of it."""
    image, gradient = arrays["image"], arrays["gradient"]
    later = device.line_step(image, arrays["direction"], 2.0, _BOUNDS)
    grids, rows, listed = Grids(image.shape, (4, 8)), (1, 3), (1, 2, 3)
    vectors, slopes = device.empty((4, grids.length), np.float32), device.zeros((3,))
    products = device.zeros((len(grids.levels) * len(listed) * 3,))
    new, old = (later, arrays["later"]), (image, gradient)
    free = device.lbfgs_store(new, old, vectors, grids, rows, _BOUNDS, slopes)
    device.lbfgs_products(vectors, grids, listed, rows, products)
    factors = np.array([[0.5, -2.0, 1.0], [3.0, 1.0, -2.0], [-1.0, 0.5, 2.0]])
    return products, device.lbfgs_direction(vectors, grids, listed, factors, free)


CHECKS: Mapping[str, Check] = {
    "conv": lambda k, a: k.conv(a["input"], a["weight"], a["bias"], _CONV, relu=True),
    "conv_input_gradient": lambda k, a: k.conv_input_gradient(a["output"], a["weight"], (23, 21, 24), _CONV),
    "conv_input_gradient, strided": lambda k, a: k.conv_input_gradient(
        k.conv(a["input"], a["uneven"], None, _STRIDED), a["uneven"], (23, 21, 24), _STRIDED
    ),
    "average_pool": lambda k, a: k.average_pool(a["input"], _POOL),
    "average_pool_input_gradient": lambda k, a: k.average_pool_input_gradient(a["pooled"], (23, 21, 24), _POOL),
    "average_pool_of_relu": lambda k, a: k.average_pool_of_relu(a["input"], _POOL)[0],
    "average_pool_of_relu_input_gradient": lambda k, a: k.average_pool_of_relu_input_gradient(
        a["pooled"], k.average_pool_of_relu(a["input"], _POOL)[1], (23, 21, 24), _POOL
    ),
    "max_pool": lambda k, a: k.max_pool(a["input"], _STRIDED)[0],
    "max_pool_input_gradient": lambda k, a: k.max_pool_input_gradient(
        a["pooled"], k.max_pool(a["input"], _POOL)[1], (23, 21, 24), _POOL
    ),
    "relu": lambda k, a: k.relu(a["input"]),
    "relu_input_gradient": lambda k, a: k.relu_input_gradient(a["other"], k.relu_mask(a["input"])),
    "affine": lambda k, a: k.affine(a["input"], a["scale"], a["scale"]),
    "weigh_positions": lambda k, a: k.weigh_positions(a["input"], a["positions"]),
    "sum_positions": lambda k, a: k.sum_positions(a["input"], a["positions"]),
    "sum_positions_input_gradient": lambda k, a: k.sum_positions_input_gradient(
        a["scale"], a["positions"], add_to=k.relu(a["input"])
    ),
    "gram": lambda k, a: k.gram(a["input"]),
    "gram_product": lambda k, a: k.gram_product(a["matrix"], a["input"], factor=0.5),
    "shifted_gram": lambda k, a: k.shifted_gram(a["input"], 21, a["positions"]),
    "shifted_product": lambda k, a: k.shifted_product(
        a["matrix"], a["input"], 4, a["positions"], add_to=k.relu(a["input"])
    ),
    "weighted_difference": lambda k, a: k.weighted_difference(a["input"], a["other"], 0.5),
    "add": lambda k, a: k.add([a["input"], a["other"]]),
    "concat": lambda k, a: k.concat([a["input"], a["other"]]),
    "pad": lambda k, a: k.pad(a["input"], (1, 2, 3, 1), "reflect"),
    "pad_input_gradient": lambda k, a: k.pad_input_gradient(a["input"], (20, 18, 24), (1, 2, 2, 1), "reflect"),
    "normalize_pixels": lambda k, a: k.normalize_pixels(
        a["image"], True, 1.0, (1.0, 2.0, 3.0), (1.0, 2.0, 3.0), np.dtype(np.float32)
    ),
    "normalize_pixels_input_gradient": lambda k, a: k.normalize_pixels_input_gradient(
        a["three"], True, 1.0, (1.0, 2.0, 3.0)
    ),
    "squared_distance": lambda k, a: k.numbers([k.squared_distance(a["input"], a["other"], 2.0)]),
    "quotient_distance": lambda k, a: k.numbers([k.quotient_distance(a["input"], 3.0, a["other"], 7.0, 2.0)]),
    "number": lambda k, a: k.numbers([k.number(2.0)]),
    "adam_step": lambda k, a: _two_steps(k.adam_step, a, [k.zeros(a["image"].shape) for _ in range(2)], (1, 5.0)),
    "momentum_step": lambda k, a: _two_steps(k.momentum_step, a, [k.zeros(a["image"].shape)], (0.5, 5.0)),
    "lbfgs_products": lambda k, a: _of_lbfgs(k, a)[0],
    "lbfgs_direction": lambda k, a: _of_lbfgs(k, a)[1],
    "variation": lambda k, a: k.numbers([k.variation(a["image"], 2.0), k.variation(a["image"], 2.0, 1.0)]),
    "variation_gradient": lambda k, a: k.variation_gradient(
        a["image"], 0.5, 1.0, add_to=k.variation_gradient(a["image"], 0.5)
    ),
    "count_not_finite": lambda k, a: k.numbers([k.count_not_finite(a["bad"])]),
}
"""What is compared: calls that mean the same for the kernels of both devices."""

HALF_CHECKS = ("conv", "gram", "gram_product")
"""Those that are compared in float16 too: products, which have separate kernels."""


Comparisons = dict[str, Callable[[], float]]
"""By name, what makes a comparison on the device and returns the distance, relative to the largest value."""


def wrong_kernels(gpu: Cuda) -> dict[str, float]:
    """Return the names in ``CHECKS`` whose results on the device differ from the CPU's, and by how much."""
    return {name: distance for name, distance in distances(gpu).items() if not distance < allowed(name)}


def distances(gpu: Cuda) -> dict[str, float]:
    """Return by how much each of ``CHECKS`` differs on the device from the CPU, relative to the largest value."""
    return {name: compare() for name, compare in comparisons(gpu).items()}


def allowed(name: str) -> float:
    """Return the distance from which on a result of one of ``comparisons`` is wrong."""
    return HALF_TOLERANCE if name.endswith(", float16") else TOLERANCE


def comparisons(gpu: Cuda) -> Comparisons:
    """Return the comparisons of ``CHECKS`` with the CPU, and of ``HALF_CHECKS`` with the same numbers in float32."""
    arrays, cpu = problem(), Cpu(1)
    on_device = {name: gpu.put(array) for name, array in arrays.items()}
    rounded = {name: arrays[name].astype(np.float16) for name in ("input", "weight")}
    halves = on_device | {name: gpu.put(array) for name, array in rounded.items()}
    wide = arrays | {name: array.astype(np.float32) for name, array in rounded.items()}

    def compare(check: Check, there: Mapping[str, Any], here: Mapping[str, Any]) -> float:
        return _distance(gpu, check(gpu, there), check(cpu, here))

    found: Comparisons = {name: partial(compare, check, on_device, arrays) for name, check in CHECKS.items()}
    return found | {f"{name}, float16": partial(compare, CHECKS[name], halves, wide) for name in HALF_CHECKS}


def hopper_is_right(gpu: Cuda) -> bool:
    """Say whether ``hopper_conv`` agrees with ``conv`` in 16 bits: each kind of kernel, with a sum in parts and not."""
    return all(compare() < HALF_TOLERANCE for compare in hopper_comparisons(gpu).values())


def hopper_comparisons(gpu: Cuda) -> Comparisons:
    """Return the comparisons of ``hopper_conv`` with ``conv``, by lines and filters of a tile and parts of the sum."""
    rng = np.random.default_rng(1)
    # Last tiles that are not full, in both directions.
    input, weight, bias, below = (
        gpu.put(rng.standard_normal(shape).astype(dtype))
        for shape, dtype in (
            ((19, 11, 64), np.float16),
            ((3, 3, 64, 128), np.float16),
            ((128,), np.float32),
            ((19, 11, 128), np.float16),
        )
    )
    packed, mask = pack_hopper_weight(gpu, weight), gpu.relu_mask(below)
    expected = gpu.conv(input, weight, bias, _CONV, relu=True)
    rectified = gpu.fetch(expected)
    masked = gpu.fetch(gpu.relu_input_gradient(expected, mask))

    def compare(tiling: Tiling) -> float:
        found = hopper_conv(gpu, input, packed, bias, relu=True, tiling=tiling)
        of_mask = hopper_conv(gpu, input, packed, bias, relu=True, mask=mask, tiling=tiling)
        return max(_distance(gpu, found, rectified), _distance(gpu, of_mask, masked))

    return {
        f"hopper_conv, {kind[0]}x{kind[1]}, {splits} parts": partial(compare, Tiling(*kind, splits, blocks))
        for kind in STAGES
        # A block that does everything has more steps than stages.
        for splits, blocks in ((1, 1), (2, gpu.multiprocessors))
    }


def implicit_gemm_is_right(gpu: Cuda, precision: str) -> bool:
    """Say whether ``implicit_gemm_conv`` agrees with ``conv``, for each kind of block, the sums whole and in parts.

    Parameters
    ----------
    precision : as for ``opening.tensor_cores_are_right``.
    """
    most = allowed_of_tensor_cores(precision)
    return all(compare() < most for compare in implicit_gemm_comparisons(gpu, precision).values())


def allowed_of_tensor_cores(precision: str) -> float:
    """Return the distance from which on a result of ``implicit_gemm_comparisons`` is wrong."""
    return SPLIT_TOLERANCE if precision == "float32" else HALF_TOLERANCE


def implicit_gemm_comparisons(gpu: Cuda, precision: str) -> Comparisons:
    """Return the comparisons of ``implicit_gemm_conv`` with ``conv``, by sizes; see ``implicit_gemm_is_right``."""
    dtype = np.float16 if precision == "float16" else np.float32

    def compare(size: tuple[int, int], channels: int, filters: int) -> float:
        rng = np.random.default_rng(2)
        input, weight, bias = (
            gpu.put(rng.standard_normal(shape).astype(kind))
            for shape, kind in (
                ((*size, channels), dtype),
                ((3, 3, channels, filters), dtype),
                ((filters,), np.float32),
            )
        )
        expected = gpu.fetch(gpu.conv(input, weight, bias, _CONV, relu=True))
        packed, split = pack_weight(gpu, weight), precision == "float32"
        return _distance(gpu, implicit_gemm_conv(gpu, input, packed, bias, _CONV, relu=True, split=split), expected)

    def compare_products() -> float:
        """Compare a Gram matrix and the product of one, in three products of parts, with the tiled product's."""
        arrays, split = problem(), Cuda(gpu.backend, splits_products=True)
        features, matrix = gpu.put(arrays["input"]), gpu.put(arrays["matrix"])
        return max(
            _distance(gpu, split.gram(features), gpu.fetch(gpu.gram(features))),
            _distance(gpu, split.gram_product(matrix, features), gpu.fetch(gpu.gram_product(matrix, features))),
        )

    # The last tile is not full, of pixels and of filters.
    sizes = (((13, 11), 24, 72), ((5, 7), 24, 40), ((3, 5), 120, 40))
    found: Comparisons = {
        f"implicit_gemm_conv, {precision}, {height}x{width}, {channels} to {filters}": partial(
            compare, (height, width), channels, filters
        )
        for (height, width), channels, filters in sizes
    }
    return found if precision == "float16" else found | {f"gram and its product, {precision}": compare_products}


def _distance(gpu: Cuda, found: Any, expected: Any) -> float:
    """Return the largest difference, relative to the largest value: one wrong value among many shows."""
    found, expected = (one if isinstance(one, list) else gpu.fetch(one) for one in (found, expected))
    difference = np.asarray(found, np.float64) - np.asarray(expected, np.float64)
    return float(np.abs(difference).max() / np.abs(expected).max())


def problem() -> dict[str, Any]:
    """Return the arrays of the comparison, always the same."""
    rng = np.random.default_rng(0)
    shapes = {
        "input": (23, 21, 24),
        "other": (23, 21, 24),
        "weight": (3, 3, 24, 70),
        "uneven": (3, 2, 24, 5),
        "bias": (70,),
        "output": (23, 21, 70),
        "pooled": (11, 10, 24),
        "scale": (24,),
        "matrix": (24, 24),
        "three": (23, 21, 3),
        "bad": (500, 1),
    }
    arrays: dict[str, Any] = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    arrays["matrix"] += arrays["matrix"].T
    arrays["bad"][::7] = np.inf
    arrays["bad"][::11] = np.nan
    arrays["image"] = rng.uniform(-20, 275, (23, 21, 3)).clip(*_BOUNDS)  # some values stand at a bound
    arrays["gradient"], arrays["later"] = rng.standard_normal((2, 23, 21, 3))
    arrays["direction"] = rng.standard_normal(23 * 21 * 3).astype(np.float32)
    arrays["positions"] = rng.uniform(0, 1, (23, 21)).astype(np.float32)
    return arrays
