"""What convolution and pooling have in common: a window that slides."""

from __future__ import annotations

from engine.ops.operator import Operator, Shape
from kernels.geometry import Window, resolved_pads, window_reach


class Windowed(Operator):
    """An operator whose window slides over the image."""

    window: Window

    @property
    def strides(self) -> tuple[int, int]:
        """The window's."""
        return self.window.strides

    def begins(self, shape: Shape) -> tuple[int, int]:
        """Return the rows of padding above an input of ``shape``, and the columns on its left."""
        top, left, _, _ = resolved_pads(self.window, *shape[:2])
        return top, left

    def reach(self, axis: int, size: int, rows: tuple[int, int]) -> tuple[int, int]:
        """Return which of an input's rows or columns some of the output's are computed from."""
        return window_reach(self.window, axis, size, rows)
