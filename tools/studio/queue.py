"""The pictures that are to be made, one at a time: a worker takes them in turn, whoever looks on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from engine.network import Network
from engine.stylize import Job
from tools.cli.command_line import describe
from tools.cli.options import Options
from tools.models.cache import DRAFT
from tools.studio.networks import Networks
from tools.studio.order import Order, command_of
from tools.studio.ready import Ready, read_order
from tools.studio.run import Outcome, Run
from tools.studio.shelf import Made, Shelf

MOST_WAITING = 100


class Bell:
    """Rings for everybody who waits; counts how often."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def ring(self) -> None:
        """Wake all who wait."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, heard: int, seconds: float) -> int:
        """Wait for a ring after those that have been heard, so long at most; return how many there were."""
        with self._condition:
            self._condition.wait_for(lambda: self._count > heard, seconds)
            return self._count


@dataclass(frozen=True)
class Failure:
    """A picture that could not be made.

    Parameters
    ----------
    number : of the run.
    reason : why, in one line.
    """

    number: int
    reason: str


class Queue:
    """Makes the pictures of orders, one at a time, in a thread of its own.

    Parameters
    ----------
    shelf : where the pictures go.
    networks : that they are made with.
    bell : rung whenever something has changed.
    say : told of each picture, in one line.
    """

    def __init__(self, shelf: Shelf, networks: Networks, bell: Bell, say: Callable[[str], None]) -> None:
        self._shelf, self._networks, self._bell, self._say = shelf, networks, bell, say
        self._condition = threading.Condition()
        self._waiting: list[Run] = []
        self._current: Run | None = None
        self._last: Run | None = None
        self._failures: list[Failure] = []
        self._count = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="queue", daemon=True)

    def open(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def current(self) -> Run | None:
        """The picture that is being made."""
        with self._condition:
            return self._current

    @property
    def waiting(self) -> list[Run]:
        """Those that wait, the next first."""
        with self._condition:
            return list(self._waiting)

    @property
    def failures(self) -> list[Failure]:
        """The last that could not be made."""
        with self._condition:
            return list(self._failures)

    def command(self, order: Order) -> str:
        """Return the command line that makes an order's picture."""
        return command_of(order, self._shelf.input_path, self._shelf.picture_path, self._networks.cache)

    def add(self, order: Order, *, first: bool = False) -> Run:
        """Have a picture made; raises ValueError where too many wait.

        Parameters
        ----------
        first : before all that wait.
        """
        with self._condition:
            if len(self._waiting) >= MOST_WAITING:
                raise ValueError(f"{MOST_WAITING} pictures wait already: let some be made first")
            self._count += 1
            run = Run(self._count, order, self._bell.ring)
            self._waiting.insert(0 if first else len(self._waiting), run)
            self._condition.notify_all()
        self._bell.ring()
        return run

    def remove(self, number: int) -> None:
        """Take a picture out of the queue; raises ValueError where it does not wait."""
        with self._condition:
            left = [run for run in self._waiting if run.number != number]
            if len(left) == len(self._waiting):
                raise ValueError("this picture does not wait any more")
            self._waiting = left
        self._bell.ring()

    def seen(self, number: int) -> Run:
        """Return the picture that is being made, or was the last; raises ValueError where it is neither."""
        with self._condition:
            run = self._current or self._last
        if run is None or run.number != number:
            raise ValueError("this picture is not being made any more")
        return run

    def running(self, number: int) -> Run:
        """Return the picture that is being made; raises ValueError where it is not the one of this number."""
        run = self.current
        if run is None or run.number != number:
            raise ValueError("this picture is not being made any more")
        return run

    def close(self) -> Made | None:
        """Stop, and keep what the picture in hand has come to when its evaluation ends; return that."""
        with self._condition:
            self._closed = True
            self._waiting.clear()
            run = self._current
            self._condition.notify_all()
        before = {made.number for made in self._shelf.pictures}
        if run is not None:
            run.stop()
        if self._thread.is_alive():
            self._thread.join()
        return next((made for made in self._shelf.pictures if made.number not in before), None)

    # ---- in the queue's own thread ----

    def _work(self) -> None:
        for model in dict.fromkeys([self._networks.default, DRAFT]):
            with contextlib.suppress(ValueError, ArithmeticError):  # whoever uses it hears what is wrong
                self._networks.try_out(Options(model=model))
            self._bell.ring()
        while (run := self._next()) is not None:
            self._make(run)
            with self._condition:
                self._current, self._last = None, run
            self._bell.ring()

    def _next(self) -> Run | None:
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return None
            self._current = self._waiting.pop(0)
            return self._current

    def _make(self, run: Run) -> None:
        def measured(job: Job, seconds: float) -> None:
            self._networks.measured(run.order.options, job, seconds)

        try:
            outcome = run.make(lambda order: read_order(order, self._shelf, self._networks), self._draft, measured)
            made = self._put(outcome)
            if run.then_larger is not None:
                self.add(outcome.order.larger(made.name, run.then_larger), first=True)
        except Exception as error:  # whatever it is, the pictures that wait are made
            failure = Failure(run.number, describe(error))
            with self._condition:
                self._failures = [*self._failures[-4:], failure]
            self._say(f"picture failed: {failure.reason}")

    def _draft(self, ready: Ready) -> Network:
        return self._networks.draft(ready.options)

    def _put(self, outcome: Outcome) -> Made:
        order = outcome.order
        made = self._shelf.put(
            outcome.pixels, outcome.alpha, order, outcome.facts, outcome.steered, self.command(order)
        )
        path, facts = self._shelf.picture_path(made.name), outcome.facts
        self._say(f"{facts['stop_reason']}, {facts['seconds']:.0f} s: {path}")
        return made
