"""The state of a minimization between two iterations, as arrays that a file can hold."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.ops import Array
from kernels import Device

State = dict[str, NDArray[Any]]
"""Where a minimization stands after an iteration, in NumPy arrays: ``minimize(state=...)`` goes on from there.

They may be the optimizer's own, which it changes later: what is to last is copied or written at once.
"""


class Saved:
    """A ``State`` that a run goes on from: its arrays are looked at before they are used, for files can be damaged.

    Parameters
    ----------
    state : by name; an array is taken out of it when it is asked for, so that none stays in memory twice. Out of a
        mapping that does not let go of its arrays, they are copied.
    device : where the run's arrays live.
    """

    def __init__(self, state: Mapping[str, NDArray[Any]], device: Device) -> None:
        self._state: MutableMapping[str, NDArray[Any]] = state if isinstance(state, MutableMapping) else dict(state)
        self._device = device

    def host(self, name: str, shape: tuple[int, ...] | None, dtype: Any = np.float64) -> NDArray[Any]:
        """Return a copy of an array in NumPy; of any shape if that is None. Raises ValueError for another array."""
        array = self._state.pop(name, None)
        if array is None or array.dtype != dtype or (shape is not None and array.shape != shape):
            raise self.misfit(name)
        return array.copy()

    def array(self, name: str, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
        """Return a copy of an array on the run's device; raises ValueError for another array, and for no numbers."""
        array = self.host(name, shape, dtype)
        if not np.isfinite(array).all():
            raise self.misfit(name)
        return self._device.put(array)

    def number(self, name: str) -> float:
        """Return a number; raises ValueError where there is none."""
        return float(self.host(name, ()))

    def count(self, name: str, least: int, most: int) -> int:
        """Return a whole number; raises ValueError where there is none between the two."""
        number = int(self.host(name, (), np.int64))
        if not least <= number <= most:
            raise self.misfit(name)
        return number

    def misfit(self, name: str) -> ValueError:
        """Return the error for an array that cannot be the run's."""
        return ValueError(f"the saved state does not fit the run: its {name!r} is missing, or not what it must be")
