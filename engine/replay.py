"""CUDA graphs: launches captured once and replayed, for images that take longer to launch than to compute."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.ops import Array
from kernels import Cuda

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

    A record is used only if it gives the same bits as the launches themselves; where it does not, or nothing can be
    recorded, a warning says so and the launches are made one by one.

    Parameters
    ----------
    gpu : that the launches go to.
    launch : does the evaluation of an image on the GPU without waiting for anything.
    """

    def __init__(self, gpu: Cuda, launch: Callable[[Array], Evaluation]) -> None:
        self._gpu, self._launch = gpu, launch
        self._records: dict[tuple[int, ...], _Record | None] = {}

    def __call__(self, image: Array) -> Evaluation:
        """Return the result of ``launch`` for an image on the GPU, float64."""
        if image.shape not in self._records:
            self._records[image.shape] = self._recorded(image)
        record = self._records[image.shape]
        if record is None:
            return self._launch(image)
        self._gpu.scaled(image, 1.0, out=record.image)
        record.again()
        gradient, terms, not_finite = record.result
        # The next evaluation overwrites the record's own gradient, which may still be in use then.
        return self._gpu.scaled(gradient, 1.0), terms, not_finite

    def _recorded(self, image: Array) -> _Record | None:
        place = self._gpu.scaled(image, 1.0)
        expected = self._launch(place)
        try:
            record = _Record(place, *self._gpu.record(lambda: self._launch(place)))
            record.again()
            if self._bits(record.result) == self._bits(expected):
                return record
            reason = "a record gives other results than the launches themselves"
        except (RuntimeError, MemoryError) as error:
            reason = f"nothing can be recorded ({error})"
        warnings.warn(f"launches are made one by one on {self._gpu.name}: {reason}", RuntimeWarning, stacklevel=2)
        return None

    def _bits(self, evaluation: Evaluation) -> tuple[bytes, bytes]:
        gradient, terms, not_finite = evaluation
        numbers = [*(term for of_kind in terms.values() for term in of_kind.values()), not_finite]
        return self._gpu.fetch(gradient).tobytes(), np.array(self._gpu.numbers(numbers)).tobytes()
