"""One run as its user follows it: its events go to listeners, and an interruption leaves the best there is.

A tool's ``main`` is a ``Session``'s work. Each picture of it is made by ``follow``, which tells the listeners of the
start, the iterations and the end: the progress bar, a log, a curve, snapshots, reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from engine.optimize import Iteration, Result
from engine.stylize import Job, shares
from tools.cli.command_line import EXIT_INTERRUPTED, tell
from tools.cli.progress import Progress

Facts = dict[str, Any]
"""What came of a run, as logs, tables and pictures tell it: see ``facts_of``."""


class Session:
    """One call of a tool, and what an interruption leaves of it.

    Parameters
    ----------
    tool : its name, before each line.
    nothing : what an interruption says while there is nothing to keep.

    Attributes
    ----------
    keep : called on an interruption; writes the best there is and returns what to say of it. To be replaced as there is
        something better.
    """

    def __init__(self, tool: str, nothing: str = "interrupted") -> None:
        self.tool = tool
        self.keep: Callable[[], str] = lambda: nothing

    def run(self, work: Callable[[], int]) -> int:
        """Return the exit code of the work, or that of an interruption; a further one, of ``keep``, is raised."""
        try:
            return work()
        except KeyboardInterrupt:
            tell(f"{self.tool}: {self.keep()}")
            return EXIT_INTERRUPTED


class Listener:
    """Takes the events of a run; of its own, it does nothing about them."""

    def start(self, job: Job) -> None:
        """Hear that a run is about to begin; its first image has been evaluated."""

    def iteration(self, state: Iteration) -> None:
        """Hear of an iteration."""

    def end(self, result: Result, facts: Facts) -> None:
        """Hear that the run is over; what is added to the facts is there for those who listen before this one."""


class Bar(Listener):
    """Moves a progress bar by a step for each iteration.

    Parameters
    ----------
    name : of the picture, where the bar is one for several.
    """

    def __init__(self, progress: Progress, name: str = "") -> None:
        self.progress = progress
        self._name = f"{name}, " if name else ""
        self._followed = 0

    def iteration(self, state: Iteration) -> None:
        """Move on, with the loss beside the bar."""
        self._followed += 1
        self.progress.update(1, f"{self._name}loss {state.value:.4g}")

    def complete(self, iterations: int, note: str) -> None:
        """Move on to where so many iterations would have come, for the next picture to begin there."""
        self.progress.update(iterations - self._followed, note)
        self._followed = 0


def follow(
    job: Job,
    listeners: Sequence[Listener],
    began: float,
    made: Callable[[Result, Facts], None] | None = None,
    *,
    resumable: bool = False,
    state: Mapping[str, NDArray[Any]] | None = None,
) -> tuple[Result, Facts]:
    """Run a job for those who listen; return what came of it.

    They hear of the start and of each iteration in their order, and of the end in reverse.

    Parameters
    ----------
    began : when the picture did, by ``time.perf_counter``.
    made : called before anyone hears of the end, where there is a picture to keep.
    resumable, state : as for ``minimize``.

    Raises KeyboardInterrupt for a run that was interrupted before its first iteration: there is no picture of it.
    """
    for listener in listeners:
        listener.start(job)

    def told(state: Iteration) -> None:
        for listener in listeners:
            listener.iteration(state)

    result = job.run(told, resumable=resumable, state=state)
    facts = facts_of(result, began)
    there = is_made(result)
    if there and made is not None:
        made(result, facts)
    for listener in reversed(listeners):
        listener.end(result, facts)
    if not there:
        raise KeyboardInterrupt
    return result, facts


def is_made(result: Result) -> bool:
    """Tell whether a run has come to a picture: an interruption before its first iteration leaves none."""
    return result.stop != "interrupted" or result.iterations > 0


def facts_of(result: Result, began: float) -> Facts:
    """Return how a run ended; ``began`` as in ``follow``."""
    return {
        "loss": result.value,
        "initial_loss": result.initial_value,
        "iterations": result.iterations,
        "evaluations": result.evaluations,
        "stop": result.stop,
        "stop_reason": result.stop_reason,
        "seconds": seconds_since(began),
    }


def standing(job: Job, image: NDArray[Any]) -> Facts:
    """Return the weighted terms at an image, and their shares of loss and gradient."""
    found = job.objective.standing(image)
    return {
        "terms": found.terms,
        "loss_shares": shares(found.terms),
        "gradient_shares": shares(found.gradient_norms),
    }


def standing_at_end(job: Job, result: Result) -> Facts | None:
    """Return the standing at a result, or None where the run broke off."""
    if result.stop in ("interrupted", "non-finite"):
        return None
    return standing(job, result.image)


def seconds_since(began: float) -> float:
    """Return the time that has passed, to the millisecond."""
    return round(time.perf_counter() - began, 3)
