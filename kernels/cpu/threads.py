"""Sharing a kernel's strips among threads, so that the result does not depend on how many there are.

NumPy releases the interpreter lock inside matrix products, copies and element-wise functions, so plain Python threads
keep all cores busy. The strips are cut by the kernels, never by the number of threads, each strip is computed by one
thread with a single-threaded BLAS, and sums over strips are taken in their order: the same bits at any thread count.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import OpenBLASController, ThreadpoolController

from kernels.cpu.arena import Arena

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Blas:
    """The number of threads that BLAS uses, which is one number for the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._limit: Any = None

    @contextlib.contextmanager
    def single_threaded(self) -> Iterator[None]:
        """While this is open in any thread, BLAS uses one thread a call."""
        with self._lock:
            self._open += 1
            if self._open == 1:
                self._take_control()
                # Looked for each time: a library that has been loaded since may have brought a BLAS of its own.
                self._limit = ThreadpoolController().limit(limits=1, user_api="blas")
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    self._take_control()
                    self._limit.restore_original_limits()
                    self._take_control()

    @staticmethod
    def _take_control() -> None:
        """Let this thread change the limit: since threadpoolctl 3.8 only the one that changed it first may.

        The last to leave need not be the first that came; which of them it is, is counted here.
        """
        forget = getattr(OpenBLASController, "clear_controlling_thread", None)
        if forget is not None:
            forget(force=True)


_BLAS = _Blas()


class Threads:
    """A fixed number of threads that kernels share their strips among.

    Parameters
    ----------
    count : how many, the calling thread included; None means one for each available core.

    Raises ValueError for a number below 1 or one that is not whole.
    """

    def __init__(self, count: int | None = None) -> None:
        try:
            self.count = available_cores() if count is None else operator.index(count)
        except TypeError:
            raise ValueError(f"threads must be a whole number, got {count!r}") from None
        if self.count < 1:
            raise ValueError(f"threads must be at least 1, got {count}")
        self._pool = ThreadPoolExecutor(self.count - 1, "kernels") if self.count > 1 else None
        self._scratch = threading.local()
        self._within = threading.local()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return ``[function(item) for item in items]``, computed by all threads; the first error is raised.

        Called by ``function`` itself, it computes in the calling thread: the others may all be waiting for that one.
        """
        if self._pool is None or len(items) < 2 or getattr(self._within, "map", False):
            return [function(item) for item in items]
        results: list[Result | None] = [None] * len(items)
        # A shared iterator hands out the strips: next() on it is atomic under the interpreter lock, and so is append().
        todo = iter(range(len(items)))
        begun, ended, errors = list[None](), list[None](), list[BaseException]()
        changed = SimpleQueue[None]()

        def work() -> None:
            self._within.map = True
            try:
                for index in todo:
                    results[index] = function(items[index])
            except BaseException as error:
                errors.append(error)
            finally:
                self._within.map = False

        def help() -> None:
            begun.append(None)
            work()
            ended.append(None)
            changed.put(None)

        try:
            # Each with a copy of the caller's context: NumPy's treatment of overflow belongs to it.
            for _ in range(min(self.count, len(items)) - 1):
                self._pool.submit(contextvars.copy_context().run, help)
            work()
        except BaseException as error:
            errors.append(error)
        # No thread may still write when the caller goes on, also after an error or a Ctrl-C, here or while it waits.
        # What has not begun finds nothing to do.
        while True:
            try:
                for _ in todo:
                    pass
                while len(ended) < len(begun):
                    changed.get()
                break
            except KeyboardInterrupt as interruption:
                errors.append(interruption)
        if errors:
            try:
                raise errors[0]
            finally:
                errors.clear()  # else the error would hold on to this frame, and this frame to it
        return results  # type: ignore[return-value]  # every entry is filled

    def scratch(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return memory for a strip's intermediate values: the calling thread's, kept for next time, never cleared.

        It is good until the same thread asks for the same ``name`` again.
        """
        size = math.prod(shape) * dtype.itemsize
        held: dict[str, NDArray[np.uint8]] = self._scratch.__dict__
        if name not in held or held[name].size < size:
            held[name] = np.empty(size, np.uint8)
        return held[name][:size].view(dtype).reshape(shape)

    def output(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return a new array with undefined values for what a kernel returns, an activation or its gradient."""
        arena: Arena | None = getattr(self._within, "arena", None)
        return np.empty(shape, dtype) if arena is None else arena.empty(shape, dtype)

    @staticmethod
    def arena() -> Arena:
        """Return what ``reusing`` takes."""
        return Arena()

    @contextlib.contextmanager
    def reusing(self, arena: Arena | None) -> Iterator[None]:
        """While this is open, what kernels return to the calling thread lies in an arena, if there is one."""
        before = getattr(self._within, "arena", None)
        self._within.arena = arena
        try:
            yield
        finally:
            self._within.arena = before

    @staticmethod
    def computing() -> contextlib.AbstractContextManager[None]:
        """While this is open, BLAS uses one thread a call: a product split by BLAS itself would change its rounding."""
        return _BLAS.single_threaded()
