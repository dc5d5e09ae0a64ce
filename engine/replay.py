"""Launches on a GPU, recorded once and made again: for small images, which take longer to launch than to compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.ops import Array
from kernels import kernels_of

Evaluation = tuple[Array, dict[str, dict[str, Any]], Any]
"""The gradient with respect to the image, the terms, and how many values of the gradient are not finite."""


@dataclass(frozen=True)
class _Record:
    """A recorded evaluation: ``again`` reads ``image`` and writes the arrays of ``result``."""

    image: Array
    result: Evaluation
    again: Callable[[], None]


class Replay:
    """An evaluation whose launches are recorded, once for each shape of image. Not yet run on a GPU.

    Parameters
    ----------
    launch : does the evaluation of an image on the GPU without waiting for anything.
    """

    def __init__(self, launch: Callable[[Array], Evaluation]) -> None:
        self._launch = launch
        self._records: dict[tuple[int, ...], _Record] = {}

    def __call__(self, image: Array) -> Evaluation:
        """Return what ``launch`` does for an image on the GPU, float64."""
        kernels = kernels_of(image)
        if image.shape not in self._records:
            place = kernels.scaled(image, 1.0)
            self._records[image.shape] = _Record(place, *kernels.record(lambda: self._launch(place)))
        record = self._records[image.shape]
        kernels.scaled(image, 1.0, out=record.image)
        record.again()
        gradient, terms, not_finite = record.result
        # The next evaluation overwrites the record's own gradient, which may still be in use then.
        return kernels.scaled(gradient, 1.0), terms, not_finite
