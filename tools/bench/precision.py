"""The distance of single precision from double precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.gradcheck.problem import in_precision
from engine.network import Network
from engine.ops import Array
from tools.bench.programs import ENGINE, build_twin, relative_difference
from tools.models.subject import build_objective, pictures

PRECISION_IMAGES = 5
"""Images that the precision is the median of: whether rounding crosses a ReLU differs from one to the next."""


@dataclass(frozen=True)
class Precision:
    """Relative distance of a program in float32 from the engine in float64.

    Parameters
    ----------
    size : side of the square images in pixels.
    program : who.
    values, gradients : the distances of the values and of the gradients (L2), one for each image.
    """

    size: int
    program: str
    values: Sequence[float]
    gradients: Sequence[float]


def measure_precision(
    network: Network, size: int, seed: int, layouts: Mapping[str, str], on_call: Callable[[], object]
) -> list[Precision]:
    """Compare value and gradient in float32 with the engine's in float64, on the same weights."""
    content, style, first = pictures(size, seed)
    images = [first, *(pictures(size, seed + number)[2] for number in range(1, PRECISION_IMAGES))]

    def results(function: Callable[[Array], tuple[Any, Array]]) -> list[tuple[Any, Array]]:
        found = []
        for image in images:
            found.append(function(image))
            on_call()
        return found

    exact = results(build_objective(in_precision(network, "float64"), content, style))
    measured = []
    for program in (ENGINE, *layouts):
        function: Callable[[Array], tuple[Any, Array]] = (
            build_objective(network, content, style)
            if program == ENGINE
            else build_twin(network, content, style, layouts[program])
        )
        differences = [relative_difference(*pair) for pair in zip(results(function), exact, strict=True)]
        values, gradients = zip(*differences, strict=True)
        measured.append(Precision(size, program, values, gradients))
    return measured
