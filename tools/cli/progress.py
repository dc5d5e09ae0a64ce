"""How far long work has come: a bar on a terminal, now and then a plain line everywhere else."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm

from tools.media.files import byte_count

LINE_PERCENT = 10
LINE_SECONDS = 15.0

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit} [{elapsed}, {remaining} left{postfix}]"
_BAR_BYTES = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}, {remaining} left, {rate_fmt}{postfix}]"


class Progress:
    """Report how far work has come; use it as a context manager or call `close`. Several threads may `update` it.

    Parameters
    ----------
    total
        The amount of work, counted in ``unit``; 0 or more.
    unit
        What is counted, in the plural (``"iterations"``); ``"bytes"`` are shown as kB, MB or GB.
    description
        What every line begins with.
    quiet
        Print nothing at all, not even what is given to `write`.
    stream
        Where to print, standard error if not given. A terminal gets a bar that is redrawn in place; anything else gets
        a line for each 10 % of the work and one whenever 15 s have passed without one.
    clock
        Returns the time in seconds; for tests (the bar on a terminal keeps its own time).

    Raises
    ------
    ValueError
        If ``total`` is negative.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        description: str,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if total < 0:
            raise ValueError(f"the amount of work cannot be negative, got {total}")
        self._total = total
        self._unit = unit
        self._description = description
        # Looked up here, not in the signature: standard error may have been replaced since this module was imported.
        self._stream = sys.stderr if stream is None else stream
        # Python without a console (pythonw) has no standard error.
        self._quiet = quiet or self._stream is None
        self._clock = clock
        self._closed = False
        self._lock = threading.Lock()
        self._note = ""
        self._started = self._printed_at = clock()
        self._done = self._printed = 0
        self._base: tuple[int, float] | None = None
        self._bar: tqdm[Any] | None = None
        if not self._quiet and self._stream.isatty():
            in_bytes = unit == "bytes"
            self._bar = tqdm(
                total=total,
                desc=description,
                unit="B" if in_bytes else unit,
                unit_scale=in_bytes,
                bar_format=_BAR_BYTES if in_bytes else _BAR,
                file=self._stream,
                dynamic_ncols=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def update(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more units as done; ``note`` (such as the loss) stands at the end of the line."""
        with self._lock:
            if self._base is None:
                self._base = (0, self._started)
            self._move(self._done + n, note)

    def shrink(self, n: int, note: str = "") -> None:
        """Take ``n`` units off the total: they are not going to be done, and are no speed."""
        with self._lock:
            self._total -= n
            if self._bar is not None:
                self._bar.total = self._total
            self._move(self._done, note)

    def reach(self, done: int, total: int) -> None:
        """Set the units done and the total; the shape of a callback that `tools.models.download.download` takes.

        The first call, and any call that goes back, says where the work starts: what a resumed download already had
        does not count as speed when the time left is worked out.
        """
        if self._base is None or done < self._done or total != self._total:
            self._total = total
            self._base = (done, self._clock())
            self._done = self._printed = done
            if self._bar is not None:
                self._bar.reset(total)
                self._bar.initial = self._bar.n = self._bar.last_print_n = done
                self._bar.refresh()
        else:
            self._move(done, self._note)

    def write(self, line: str) -> None:
        """Print ``line`` as a line of its own, above the bar if there is one."""
        if self._quiet:
            return
        if self._bar is None or self._closed:
            self._print(line)
            return
        try:
            self._bar.write(line, file=self._stream)
        except OSError:  # as in _print: tqdm takes care of its bar alone
            self._quiet = True

    def close(self) -> None:
        """Show where the work ended and stop reporting; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._bar is not None:
            self._bar.close()
        elif not self._quiet and self._done != self._printed:
            self._print_line()

    def _move(self, done: int, note: str) -> None:
        step = done - self._done
        self._done = done
        self._note = note
        if self._closed or self._quiet:
            return
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(step)
            return
        # The last tenth is complete with the work itself, also where the total is no multiple of ten.
        if (
            self._tenths(done) > self._tenths(self._printed)
            or done >= self._total > self._printed
            or self._clock() - self._printed_at >= LINE_SECONDS
        ):
            self._print_line()

    def _tenths(self, done: int) -> int:
        return min(done, self._total) * 100 // (LINE_PERCENT * self._total) if self._total else 0

    def _print_line(self) -> None:
        now = self._clock()
        self._printed, self._printed_at = self._done, now
        if self._unit == "bytes":
            amount = f"{byte_count(self._done)} of {byte_count(self._total)}"
        else:
            amount = f"{self._done}/{self._total} {self._unit}"
        parts = [amount, duration(max(0.0, now - self._started))]
        if self._base is not None and self._base[0] < self._done < self._total:
            base, since = self._base
            left = (now - since) * (self._total - self._done) / (self._done - base)
            parts.append(f"{duration(max(0.0, left))} left")
        if self._note:
            parts.append(self._note)
        self._print(f"{self._description}: {', '.join(parts)}")

    def _print(self, line: str) -> None:
        try:
            print(line, file=self._stream, flush=True)
        except OSError:
            # Nobody reads on (``| head``), or its disk is full: that is no reason to give up the work.
            self._quiet = True


def counted(number: int, what: str) -> str:
    """Return a number of things in words: ``1 picture``, ``3 pictures``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time in seconds as a person reads it: ``0.4 s``, ``38 s``, ``2 min 05 s``, ``1 h 12 min``.

    Raises
    ------
    ValueError
        If ``seconds`` is negative or not finite.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"a duration is a finite number of at least 0 s, got {seconds}")
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"
