"""From an RGB image of 0..255 to what a network was trained on, and back for the gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ModelError, unknown_name
from engine.ops import Array
from kernels import Device


@dataclass(frozen=True)
class Preprocessing:
    """``(value * scale - mean) / std``, channel by channel.

    Parameters
    ----------
    name : one of the names in ``PREPROCESSING``, or where it was read from.
    bgr : whether the network takes blue first.
    scale : factor on values of 0..255.
    mean, std : of the scaled values, in the network's channel order.
    """

    name: str
    bgr: bool
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, device: Device, image: Array, dtype: np.dtype[Any]) -> Array:
        """Return the network's input for an RGB image of 0..255: (H, W, 3), C-contiguous, of ``dtype``."""
        return device.normalize_pixels(image, self.bgr, self.scale, self.mean, self.std, dtype)

    def input_gradient(self, device: Device, output_gradient: Array) -> Array:
        """Return the gradient with respect to the RGB image, per unit of 0..255, in double precision."""
        return device.normalize_pixels_input_gradient(output_gradient, self.bgr, self.scale, self.std)


PREPROCESSING = {
    "caffe": Preprocessing("caffe", True, 1.0, (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "torch": Preprocessing("torch", False, 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": Preprocessing("unit", False, 1 / 255, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "raw": Preprocessing("raw", False, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "bgr": Preprocessing("bgr", True, 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""The input conventions that models are published with, by name."""


def named_preprocessing(name: str) -> Preprocessing:
    """Return a convention by its name; raises ValueError when there is none."""
    if name not in PREPROCESSING:
        raise ValueError(unknown_name("preprocessing", name, PREPROCESSING))
    return PREPROCESSING[name]


def metadata_preprocessing(metadata: Mapping[str, str]) -> Preprocessing | None:
    """Return the convention that a model's metadata states, or None when it states none.

    Reads ONNX's image metadata (``Image.BitmapPixelFormat``, ``Image.NominalPixelRange``) with ``mean`` and ``std``
    next to them, both in the network's channel order. Raises ModelError when they contradict themselves.
    """
    order, span = metadata.get("Image.BitmapPixelFormat"), metadata.get("Image.NominalPixelRange")
    if order is None and span is None:
        return None
    if order not in ("Bgr8", "Rgb8"):
        raise ModelError(f"metadata Image.BitmapPixelFormat is {order!r}, expected 'Bgr8' or 'Rgb8'")
    scales = {"NominalRange_0_255": 1.0, "Normalized_0_1": 1 / 255}
    if span not in scales:
        raise ModelError(f"metadata Image.NominalPixelRange is {span!r}, expected one of {', '.join(scales)}")
    mean, std = _three(metadata, "mean", "0,0,0"), _three(metadata, "std", "1,1,1")
    if min(std) <= 0:
        raise ModelError(f"metadata std is {metadata['std']!r}, expected three numbers above 0")
    found = Preprocessing("the model's metadata", order == "Bgr8", scales[span], mean, std)
    same = (known for known in PREPROCESSING.values() if _equal(known, found))
    return next(same, found)


def preprocessing_metadata(preprocessing: Preprocessing) -> dict[str, str]:
    """Return the metadata that ``metadata_preprocessing`` reads back."""
    return {
        "Image.BitmapPixelFormat": "Bgr8" if preprocessing.bgr else "Rgb8",
        "Image.NominalPixelRange": "NominalRange_0_255" if preprocessing.scale == 1 else "Normalized_0_1",
        "mean": ",".join(repr(value) for value in preprocessing.mean),
        "std": ",".join(repr(value) for value in preprocessing.std),
    }


def _three(metadata: Mapping[str, str], key: str, default: str) -> tuple[float, float, float]:
    text = metadata.get(key, default)
    try:
        first, second, third = (float(number) for number in text.split(","))
    except ValueError:
        raise ModelError(f"metadata {key} is {text!r}, expected three numbers") from None
    if not all(math.isfinite(number) for number in (first, second, third)):
        raise ModelError(f"metadata {key} is {text!r}, expected three finite numbers")
    return first, second, third


def _equal(first: Preprocessing, second: Preprocessing) -> bool:
    return (first.bgr, first.scale, first.mean, first.std) == (second.bgr, second.scale, second.mean, second.std)
