"""An interruption that waits for the end of an iteration, so that nothing of it is lost."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

from tools.cli.command_line import PATIENCE_SECONDS, SIGNALS

MOST_SECONDS = 5.0
"""An iteration that takes longer is broken off: a scheduler gives ten seconds or more until it kills."""


class Interruption:
    """Holds back Ctrl-C, and what else ends a run early, while it is entered and iterations are short.

    A second signal, unless it belongs to the first, is not held back. Nor is any outside the main thread, where there
    are none.

    Attributes
    ----------
    asked : whether a signal is held back: who iterates looks at the end of an iteration, and ends there.
    """

    def __init__(self) -> None:
        self.asked = False
        self._first = self._begun = 0.0
        self._waits = False
        self._handlers: dict[int, Any] = {}

    def iterated(self) -> None:
        """Hear of the end of an iteration, which is the beginning of the next."""
        now = time.monotonic()
        self._waits = self._begun > 0 and now - self._begun <= MOST_SECONDS
        self._begun = now

    def rest(self) -> None:
        """Hear that no iteration is being made, so that there is nothing to wait for."""
        self._waits, self._begun = False, 0.0

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
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._waits and not self.asked:
            self.asked, self._first = True, now
        elif not self.asked or now - self._first > PATIENCE_SECONDS:
            self._handlers[number](number, frame)
