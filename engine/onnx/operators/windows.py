"""Sliding windows over batches: from ONNX's attributes to ``Window``, from ONNX's layout to the kernels' and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.onnx.operators.operator import Array, UnsupportedError
from kernels.geometry import Window

MAX_PADS = 1024
"""More padding on a side than any network has: around a small image it would be all there is to compute."""


def window_of(attributes: Mapping[str, Any], axes: int = 2) -> Window:
    """Return the attributes of a Conv or a pooling as a window; raises ValueError where they do not fit together.

    Parameters
    ----------
    attributes : ``kernel_shape`` and, where given, ``strides``, ``dilations``, ``pads``, ``auto_pad``, ``ceil_mode``.
    axes : how many axes the window slides along: 2, or 1, which gets a window of height 1.

    Source: ONNX Conv, AveragePool and MaxPool (opset 22).
    """
    values = {}
    for name, default in (("kernel_shape", ()), ("strides", (1,) * axes), ("dilations", (1,) * axes), ("pads", None)):
        expected = 2 * axes if name == "pads" else axes
        found = attributes.get(name) or default or (() if name == "kernel_shape" else (0,) * expected)
        if not isinstance(found, list | tuple) or not all(isinstance(number, int) for number in found):
            raise ValueError(f"{name} is {found!r}, expected whole numbers")
        if len(found) != expected:
            raise ValueError(f"{name} has {len(found)} values, expected {expected}")
        values[name] = tuple(found)
    if max(values["pads"], default=0) > MAX_PADS:
        raise ValueError(f"pads are {values['pads']}, more than {MAX_PADS}")
    auto_pad = attributes.get("auto_pad", "NOTSET")
    if not isinstance(auto_pad, str):
        raise ValueError(f"auto_pad is {auto_pad!r}, expected text")
    if axes == 1:
        values = {name: (0, given[0], 0, given[1]) if name == "pads" else (1, *given) for name, given in values.items()}
    return Window(
        kernel=values["kernel_shape"],
        strides=values["strides"],
        pads=values["pads"] if auto_pad in ("", "NOTSET") else (0, 0, 0, 0),
        dilations=values["dilations"],
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
        auto_pad=auto_pad or "NOTSET",
    )


def spatial_axes(X: Array, operator: str) -> int:
    """Return how many axes lie behind batch and channels: 1 or 2; raises UnsupportedError for others."""
    axes = X.ndim - 2
    if axes not in (1, 2):
        raise UnsupportedError(f"{operator} over {max(axes, 0)} axes is not supported, only over one or two")
    return axes


def each_image(function: Callable[..., Array], *batches: Array) -> Array:
    """Return what ``function`` makes of each image of some batches, as a batch.

    Parameters
    ----------
    function : from as many images as there are batches, (H, W, C) and C-contiguous, to one of any size.
    batches : (N, C, H, W), or (N, C, W), which is taken for images of height 1.

    Returns
    -------
    (N, C', H', W'), or (N, C', W') where the batches have three axes.
    """
    if not len(batches[0]):
        raise ValueError("the batch is empty")
    outputs = [function(*(_channels_last(image) for image in images)) for images in zip(*batches, strict=True)]
    batch = np.stack([output.transpose(2, 0, 1) for output in outputs])
    return batch[:, :, 0] if batches[0].ndim == 3 else batch


def _channels_last(image: Array) -> Array:
    image = image[:, None] if image.ndim == 2 else image
    return np.ascontiguousarray(image.transpose(1, 2, 0))
