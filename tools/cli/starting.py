"""What a tool holds to while its libraries are being loaded: a stop, a limit or a missing library ends it in one line.

It needs none of them: only the standard library.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from types import TracebackType
from typing import NoReturn

SIGNALS = {"SIGINT": 130, "SIGTERM": 143}
"""What stops a tool that has not begun, and the exit codes."""

LIBRARY_BYTES = 400_000_000
"""Of addresses, what Python and the libraries take: measured on Linux, Python 3.11, NumPy 2.4, SciPy 1.17."""

THREAD_BYTES = 60_000_000
"""The same for each of OpenBLAS's threads: its buffers and its stack."""


def begin(tool: str) -> None:
    """Take signals and exceptions until ``end``, and leave at once where the system's limits are too low."""
    for name, code in SIGNALS.items():
        # Not an exception: that could come up inside a library in C.
        signal.signal(getattr(signal, name), functools.partial(_stopped, tool, code))
    sys.excepthook = functools.partial(_failed, tool)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # OpenBLAS would wait without end for memory, and say for each of its threads that it could not be started.
    allowed, needed = allowed_bytes(), LIBRARY_BYTES + cores * THREAD_BYTES
    if allowed is not None and allowed < needed:
        _leave(
            f"{tool}: the memory is limited to {allowed / 1e6:.0f} MB, the libraries alone need {needed / 1e6:.0f}: "
            "raise the limit (ulimit -v)",
            2,
        )
    # Under a limit of addresses, trying would take some of them: each thread has a heap of its own.
    if allowed is None and not can_start(2 * cores):
        _leave(
            f"{tool}: the system allows no {2 * cores} further threads: end other programs or raise the limit "
            "(ulimit -u)",
            2,
        )


def end() -> None:
    """Let exceptions be shown as usual: from here on those of a user's making are taken by the tool itself."""
    if isinstance(sys.excepthook, functools.partial) and sys.excepthook.func is _failed:
        sys.excepthook = sys.__excepthook__


def allowed_bytes() -> int | None:
    """Return how many bytes of addresses this process may have, or None where there is no limit."""
    if sys.platform == "win32":
        return None
    import resource

    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)


def can_start(count: int) -> bool:
    """Tell whether this process may have so many further threads at a time."""
    done = threading.Event()
    threads = [threading.Thread(target=done.wait, daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError:
        return False
    finally:
        done.set()
    for thread in threads:
        thread.join()
    return True


def _stopped(tool: str, code: int, number: int, frame: object) -> NoReturn:
    _leave(f"{tool}: interrupted", code)


def _failed(tool: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, (ImportError, MemoryError, OSError)):
        sys.__excepthook__(kind, error, trace)
        return
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if issubclass(kind, ModuleNotFoundError):
        reason = f"{lines[-1]}: pip install ."
    elif issubclass(kind, MemoryError) or "failed to map segment" in str(error):
        reason = "out of memory"
    else:
        reason = lines[-1] if lines else kind.__name__
    _leave(f"{tool}: cannot load its libraries: {reason}", 2)


def _leave(line: str, code: int) -> NoReturn:
    try:
        os.write(2, f"{line}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(code)
