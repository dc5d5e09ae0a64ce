"""The losses along a run, as plots and pages show them."""

from __future__ import annotations

from engine.optimize import Iteration
from engine.stylize import Job
from tools.cli.session import Listener


class Curve(Listener):
    """Collects the losses of a run.

    Attributes
    ----------
    names : of the terms, ``"content conv4_2"``, ``"style conv1_1"``, ...
    points : of each iteration, the evaluations so far, the loss, and the weighted terms of the last evaluation.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.points: list[list[float]] = []

    def start(self, job: Job) -> None:
        """Take the names of the terms."""
        self._weighted = job.objective.weighted
        self._terms = [(kind, name) for kind, names in job.objective.term_names.items() for name in names]
        self.names = [f"{kind} {name}" for kind, name in self._terms]

    def iteration(self, state: Iteration) -> None:
        """Note an iteration."""
        weighted = self._weighted(state.terms)
        terms = [float(weighted[kind][name]) for kind, name in self._terms]
        self.points.append([state.evaluations, float(state.value), *terms])
