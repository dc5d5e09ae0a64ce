"""How sure a check can be: the chance that random directions notice a fault that touches few of the coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.ops import Array


@dataclass(frozen=True)
class Detection:
    """The chances of noticing one kind of fault.

    Parameters
    ----------
    fraction : share of the gradient's coordinates that are wrong.
    tolerance : relative error that the check lets pass.
    one_direction : chance that one random direction shows it, from the law of the error.
    simulated : the same, counted over trials on a real gradient.
    directions : how many are needed to miss it in no more than one case of a million.
    one_coordinate : chance that a difference quotient in one coordinate, chosen at random, shows it.
    coordinates : how many of those are needed for the same certainty.
    """

    fraction: float
    tolerance: float
    one_direction: float
    simulated: float
    directions: float
    one_coordinate: float
    coordinates: float


MISSED = 1e-6
"""The chance of missing a fault that is aimed at."""


def detection_study(
    gradient: Array,
    fractions: tuple[float, ...],
    tolerance: float,
    trials: int,
    random: np.random.Generator,
) -> list[Detection]:
    """Work out and simulate how faults of different extent are noticed; the wrong coordinates are taken to be 0.

    Along a direction with independent normal elements, the error <e, d> is normal with the deviation |e|, and it is
    noticed when it exceeds the tolerance times |gradient|. With a share p of the coordinates wrong |e| is about
    sqrt(p) |gradient|, so the chance is ``erfc(tolerance / sqrt(2 p))``: what matters is the size of the fault, not
    whether a coordinate happens to be hit. One coordinate shows it with the chance p.

    Parameters
    ----------
    gradient : a real one, for the simulation.
    fractions : shares p of wrong coordinates.
    tolerance : relative error that passes.
    trials : faults, with one direction each.
    """
    flat = np.asarray(gradient, np.float64).ravel()
    found = []
    for fraction in fractions:
        chance = math.erfc(tolerance / math.sqrt(2 * fraction))
        found.append(
            Detection(
                fraction,
                tolerance,
                chance,
                _simulated(flat, fraction, tolerance, trials, random),
                _needed(chance),
                fraction,
                _needed(fraction),
            )
        )
    return found


def _needed(chance: float) -> float:
    """Return how many independent trials leave no more than ``MISSED``; infinite where none ever succeeds."""
    if chance >= 1:
        return 1.0
    return math.inf if chance <= 0 else float(math.ceil(math.log(MISSED) / math.log1p(-chance)))


def _simulated(
    gradient: NDArray[np.float64], fraction: float, tolerance: float, trials: int, random: np.random.Generator
) -> float:
    """Return the share of trials in which a random fault shows along a random direction."""
    size, noticed = float(np.linalg.norm(gradient)), 0
    count = max(1, round(fraction * gradient.size))
    for _ in range(trials):
        wrong = random.choice(gradient.size, count, replace=False)
        # Only the wrong coordinates take part in the error, so only their elements of the direction are drawn.
        noticed += abs(float(gradient[wrong] @ random.standard_normal(count))) > tolerance * size
    return noticed / trials
