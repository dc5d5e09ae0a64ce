"""The optimizers: each knows its defaults, its memory, its cost and its steps. See ``engine.optimize``."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from engine.errors import unknown_name
from engine.optimizers.first_order import Adam, Momentum
from engine.optimizers.l_bfgs import LBFGS
from engine.optimizers.l_bfgs_b import LBFGSB
from engine.optimizers.run import Run
from engine.optimizers.setulb import check_solver


class Optimizer(Protocol):
    """What minimizes an image.

    Attributes
    ----------
    method : its name.
    on_device : whether iterates and gradients stay where the network computes; else they are in NumPy.
    seconds_per_value : its own time by value of the image, at the start and in each iteration. Measured
        at 512 pixels on the machine that the README's figures are from.
    vectors : how many arrays of the image's size in float64 it holds, images and gradients among them.
    """

    @property
    def method(self) -> str:
        """Its name."""

    @property
    def on_device(self) -> bool:
        """Whether iterates and gradients stay where the network computes."""

    @property
    def seconds_per_value(self) -> tuple[float, float]:
        """Its own time at the start and in each iteration."""

    @property
    def vectors(self) -> int:
        """Its arrays of the image's size."""

    def minimize(self, run: Run, bounds: tuple[float, float]) -> None:
        """Evaluate images and finish iterations of the run, from its best image on, until that raises."""


OPTIMIZERS: dict[str, type[Any]] = {kind.method: kind for kind in (LBFGSB, LBFGS, Adam, Momentum)}
"""The optimizers by method."""


def optimizer_of(method: str, **options: Any) -> Optimizer:
    """Return the optimizer of a method with those of the options that it has; None leaves one at its default.

    Raises ValueError for a method that there is none of.
    """
    if method not in OPTIMIZERS:
        raise ValueError(unknown_name("optimizer", method, OPTIMIZERS))
    kind = OPTIMIZERS[method]
    names = {field.name for field in dataclasses.fields(kind)}
    optimizer: Optimizer = kind(
        **{name: value for name, value in options.items() if name in names and value is not None}
    )
    return optimizer


def check_resumable(method: str) -> None:
    """Raise ValueError, in a sentence, where a method keeps no state that a run can go on from."""
    if method == LBFGSB.method:
        check_solver()


def defaults_of(option: str) -> dict[str, Any]:
    """Return the default of an option by method, of those that have it."""
    return {
        method: field.default
        for method, kind in OPTIMIZERS.items()
        for field in dataclasses.fields(kind)
        if field.name == option
    }


__all__ = [
    "LBFGS",
    "LBFGSB",
    "OPTIMIZERS",
    "Adam",
    "Momentum",
    "Optimizer",
    "check_resumable",
    "defaults_of",
    "optimizer_of",
]
