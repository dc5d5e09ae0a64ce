"""What ends a run early becomes one exception, which may wait for the end of an iteration."""

from __future__ import annotations

import math
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""What ends a run early: Ctrl-C, a scheduler's limit, a closed terminal."""

PATIENCE_SECONDS = 0.5
"""A second signal within this time of the first is taken for the same wish."""

MOST_SECONDS = 5.0
"""A signal is not held back for longer: a scheduler gives ten seconds or more until it kills."""


class Interrupt:
    """The handler of all signals: it raises KeyboardInterrupt, once for several that come together.

    A closing terminal sends several signals at once, an impatient hand several Ctrl-C: in the middle of another's
    clean-up an exception could come up inside a library's.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def note(self) -> bool:
        """Take a signal; tell whether it is a wish of its own."""
        now = time.monotonic()
        is_own = now - self._last > PATIENCE_SECONDS
        if is_own:
            self._last = now
        return is_own

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, unless the signal belongs to the one before."""
        if self.note():
            raise KeyboardInterrupt


class Postponement:
    """Holds a signal back while it is entered and iterations are short, so that nothing of one is lost.

    It is held for ``MOST_SECONDS`` at most, and a second one is not. Nor is any outside the main thread, where there
    are none.

    Attributes
    ----------
    asked : whether a signal is held back: who iterates looks at the end of an iteration, and ends there.
    """

    def __init__(self) -> None:
        self.asked = False
        self._begun = -math.inf
        self._waits = False
        self._handlers: dict[int, Any] = {}

    def begin(self) -> None:
        """Hear that the first iteration begins; while it lasts there is nothing to lose."""
        self._waits, self._begun = False, time.monotonic()

    def iterated(self) -> None:
        """Hear of the end of an iteration, which is the beginning of the next."""
        now = time.monotonic()
        self._waits, self._begun = now - self._begun <= MOST_SECONDS, now

    def rest(self) -> None:
        """Hear that no iteration is being made, so that there is nothing to wait for."""
        self._waits = False

    def __enter__(self) -> Self:
        """Take the signals that somebody takes by a function, as ``tools.cli.command_line.run`` does."""
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
            found = {number: signal.getsignal(number) for number in numbers}
            self._handlers = {number: handler for number, handler in found.items() if callable(handler)}
            for number in self._handlers:
                signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        self._set_timer(0)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers[number]
        if not self._waits or self.asked:
            handler(number, frame)
        elif not isinstance(handler, Interrupt) or handler.note():
            self.asked = True
            self._set_timer(MOST_SECONDS)

    def _set_timer(self, seconds: float) -> None:
        """Interrupt after so many seconds, where the system can; 0 does not."""
        if self._handlers and hasattr(signal, "setitimer"):
            if seconds:
                self._handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up) or signal.SIG_DFL
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if self._waits:
            raise KeyboardInterrupt
