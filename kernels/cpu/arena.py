"""Memory for the activations and gradients of one evaluation that is kept for the next.

The C library gives the memory of large arrays back to the system, which clears it when it is next asked for it: at
1024x768 pixels that was 7 % of an evaluation on one day and 19 % on another. CuPy keeps a GPU's memory in a like way.
"""

from __future__ import annotations

import contextlib
import math
import threading
from bisect import insort
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Places begin at multiples of this: a cache line.
_ALIGNMENT = 64
# Up to so many bytes the C library keeps by itself (glibc's M_TRIM_THRESHOLD, at most).
_WORTHWHILE = 64 << 20


class Arena:
    """A block of memory that arrays lie in side by side, each until nobody holds it or a view of it any more.

    A new array gets the first gap that is wide enough. What does not fit lies outside of the block; once all arrays are
    gone, the block is made as large as would have been enough for all. So an evaluation's arrays lie outside the first
    time, and inside from the second on. The block is let go with the arena and the last array in it.

    Parameters
    ----------
    worthwhile : bytes that must be needed at once before there is a block.
    """

    def __init__(self, worthwhile: int = _WORTHWHILE) -> None:
        self._worthwhile = worthwhile
        self._block = np.empty(0, np.uint8)
        self._needed = 0
        # Beginning and end of each place in use, in order; and the beginnings of those that are free again.
        self._used: list[tuple[int, int]] = []
        self._freed: deque[int] = deque()
        self._lock = threading.Lock()

    def give_back(self) -> None:
        """Let go of the block. The first array after all are gone makes it anew, the arrays until then lie outside."""
        with self._lock:
            self._block = np.empty(0, np.uint8)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return a new array with undefined values."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            while self._freed:
                freed = self._freed.popleft()
                self._used = [place for place in self._used if place[0] != freed]
            if not self._used and self._block.size < self._needed >= self._worthwhile:
                self._block = np.empty(0, np.uint8)  # not beside the larger one
                with contextlib.suppress(MemoryError):  # with their gaps they take more than each by itself
                    self._block = np.empty(self._needed, np.uint8)
            start = 0
            for begin, end in self._used:
                if start + size <= begin:
                    break
                start = end
            end = start + max(-(-size // _ALIGNMENT), 1) * _ALIGNMENT
            memory = self._block[start : start + size] if end <= self._block.size else np.empty(size, np.uint8)
            insort(self._used, (start, end))
            self._needed = max(self._needed, end)
        return np.asarray(_Place(self, start, memory)).view(dtype).reshape(shape)


class _Place:
    """What an array, and each view of it, holds on to: when it goes, so does the array's place."""

    def __init__(self, arena: Arena, start: int, memory: NDArray[np.uint8]) -> None:
        self._arena, self._start, self._memory = arena, start, memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        # Nothing but this: it may be called anywhere, also while the arena is looked at.
        self._arena._freed.append(self._start)
