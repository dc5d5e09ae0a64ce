"""Convolution."""

from __future__ import annotations

import numpy as np

from engine.onnx.operators.operator import Array, Call, Gradients, Operator
from engine.onnx.operators.windows import each_image, spatial_axes, window_of
from kernels.geometry import Window


def conv(call: Call, X: Array, W: Array, B: Array | None = None) -> Array:
    """Return the convolution of each image with W, plus B. Source: ONNX Conv (opset 22).

    Parameters
    ----------
    X : (N, C, H, W) or (N, C, W).
    W : (M, C / group, kernel height, kernel width), or without height.
    B : (M,) or None.
    """
    window, weight, group = _prepared(call, X, W)
    if B is not None and B.shape != (len(W),):
        raise ValueError(f"B has the shape {B.shape}, W {W.shape} expects {(len(W),)}")
    # The kernels take one type; a model's float32 weights serve inputs in float64 too.
    dtype = np.result_type(X, W)
    weight = weight.astype(dtype, copy=False)
    return each_image(
        lambda image: call.device.conv(image, weight, B, window, group),
        X.astype(dtype, copy=False),
    )


def conv_input_gradients(
    call: Call, output_gradient: Array, output: Array, X: Array, W: Array, B: Array | None = None
) -> Gradients:
    """Return the gradient with respect to X: the transposed convolution. W and B do not move."""

    def of_x() -> Array:
        window, weight, group = _prepared(call, X, W)
        weight = weight.astype(np.result_type(output_gradient, W), copy=False)
        flipped = call.device.flip_weight(weight, group)
        shape = (X.shape[2] if X.ndim == 4 else 1, X.shape[-1], X.shape[1])
        return each_image(
            lambda gradient: call.device.conv_input_gradient(gradient, weight, shape, window, group, flipped=flipped),
            output_gradient,
        )

    return of_x, None, None


def _prepared(call: Call, X: Array, W: Array) -> tuple[Window, Array, int]:
    """Return window, weight in the kernels' layout, and group; raises ValueError when shapes do not fit."""
    axes = spatial_axes(X, "Conv")
    group = int(call.number("group", 1))
    if W.ndim != X.ndim or 0 in W.shape or group < 1 or len(W) % group:
        raise ValueError(f"W has the shape {W.shape}, which does not fit an input of {X.shape} in {group} groups")
    if X.shape[1] != W.shape[1] * group:
        raise ValueError(f"input has {X.shape[1]} channels, weight {W.shape} expects {W.shape[1] * group}")
    kernel_shape = call.integers("kernel_shape") or W.shape[2:]
    if kernel_shape != W.shape[2:]:
        raise ValueError(f"kernel_shape {kernel_shape} does not fit the weight {W.shape}")
    window = window_of({**call.attributes, "kernel_shape": kernel_shape}, axes)
    weight = W if axes == 2 else W[:, :, None]
    return window, np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), group


OPERATORS = (Operator("Conv", conv, conv_input_gradients),)
