"""The losses along a run, as plots and pages show them."""

from __future__ import annotations

from engine.objective import Objective
from engine.optimize import Iteration


class Curve:
    """Collects the losses of a run.

    Attributes
    ----------
    names : of the terms, ``"content conv4_2"``, ``"style conv1_1"``, ...
    points : of each iteration, the evaluations so far, the loss, and the weighted terms of the last evaluation.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.names = [f"{kind} {name}" for kind, names in objective.term_names.items() for name in names]
        self.points: list[list[float]] = []

    def follow(self, state: Iteration) -> None:
        """Note an iteration."""
        weighted = self._objective.weighted_terms()
        terms = [float(weighted[kind][name]) for kind, names in self._objective.term_names.items() for name in names]
        self.points.append([state.evaluations, float(state.value), *terms])
