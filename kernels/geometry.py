"""Geometry of sliding windows: output sizes, padding and the reach of each tap. Integers only.

A *tap* is one position inside the window; along one axis, tap ``k`` of output ``o`` reads the input at
``o * stride + k * dilation - pad``. Source: ONNX operators Conv, AveragePool and MaxPool (opset 22).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A two-dimensional sliding window in the terms of ONNX.

    Parameters
    ----------
    kernel : height and width.
    strides : vertical and horizontal step.
    pads : rows and columns of padding: top, left, bottom, right (ignored unless ``auto_pad`` is ``"NOTSET"``).
    dilations : vertical and horizontal distance between taps.
    ceil_mode : round the output size up; a last window that would lie wholly in the end padding is dropped.
    auto_pad : ``"NOTSET"``, ``"VALID"``, ``"SAME_UPPER"`` or ``"SAME_LOWER"``.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    ceil_mode: bool = False
    auto_pad: str = "NOTSET"

    def __post_init__(self) -> None:
        if min(self.kernel + self.strides + self.dilations) < 1:
            raise ValueError(
                f"kernel {self.kernel}, strides {self.strides} and dilations {self.dilations} must be at least 1"
            )
        if min(self.pads) < 0:
            raise ValueError(f"pads {self.pads} must not be negative")
        if self.auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise ValueError(f"auto_pad {self.auto_pad!r} is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER")

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns from the first tap to the last."""
        (height, width), (dy, dx) = self.kernel, self.dilations
        return (height - 1) * dy + 1, (width - 1) * dx + 1

    @property
    def taps(self) -> tuple[tuple[int, int], ...]:
        """All taps, row by row."""
        return tuple((ky, kx) for ky in range(self.kernel[0]) for kx in range(self.kernel[1]))


def output_size(window: Window, height: int, width: int) -> tuple[int, int]:
    """Return the output's height and width for an input of ``height`` x ``width``.

    Raises ValueError when the padded input is smaller than the window; rounded up, when it is so by a stride or more.
    """
    pads = resolved_pads(window, height, width)
    sizes = []
    for axis, size in enumerate((height, width)):
        begin, end = pads[axis], pads[axis + 2]
        stride, extent = window.strides[axis], window.extent[axis]
        room = size + begin + end - extent
        if size < 1 or room < (1 - stride if window.ceil_mode else 0):
            raise ValueError(
                f"an input of {height}x{width} is smaller than the window of {window.extent[0]}x{window.extent[1]}"
            )
        count = -(-room // stride) + 1 if window.ceil_mode else room // stride + 1
        if window.ceil_mode and (count - 1) * stride >= size + begin:
            count -= 1
        sizes.append(count)
    return sizes[0], sizes[1]


def resolved_pads(window: Window, height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right padding for an input of ``height`` x ``width``.

    SAME_UPPER and SAME_LOWER give ceil(size / stride) outputs; an odd remainder goes to the end or to the beginning.
    """
    if window.auto_pad == "NOTSET":
        return window.pads
    if window.auto_pad == "VALID":
        return (0, 0, 0, 0)
    begins, ends = [], []
    for axis, size in enumerate((height, width)):
        stride, extent = window.strides[axis], window.extent[axis]
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if window.auto_pad == "SAME_UPPER" else large)
        ends.append(large if window.auto_pad == "SAME_UPPER" else small)
    return begins[0], begins[1], ends[0], ends[1]


def window_reach(window: Window, axis: int, size: int, rows: tuple[int, int]) -> tuple[int, int]:
    """Return which rows of an input some rows of the output are computed from, those in padding included.

    Parameters
    ----------
    axis : 0 for rows, 1 for columns.
    size : of the input along the axis.
    rows : of the output, from the first to before the last; the result alike.
    """
    first, stop = rows
    stride, begin = window.strides[axis], resolved_pads(window, size, size)[axis]
    return first * stride - begin, (stop - 1) * stride - begin + window.extent[axis]


def mirrored_window(window: Window, height: int, width: int) -> Window | None:
    """Return the window of the transposed convolution; None with strides, or where its padding would be negative.

    Parameters
    ----------
    window : of the convolution.
    height, width : of the convolution's input.
    """
    pads = resolved_pads(window, height, width)
    extent_y, extent_x = window.extent
    if window.strides != (1, 1) or max(pads[0], pads[2]) >= extent_y or max(pads[1], pads[3]) >= extent_x:
        return None
    return Window(
        window.kernel,
        pads=(extent_y - 1 - pads[0], extent_x - 1 - pads[1], extent_y - 1 - pads[2], extent_x - 1 - pads[3]),
        dilations=window.dilations,
    )


def reaching(offset: int, stride: int, low: int, high: int, count: int) -> tuple[int, int]:
    """Return the outputs whose tap falls into the input's ``[low, high)``, as a half-open range.

    Output ``o`` of ``count`` reads the input at ``o * stride + offset``. The range is empty (both ends equal) when
    there is none.
    """
    first = min(max(-((offset - low) // stride), 0), count)
    last = min(max(-((offset - high) // stride), first), count)
    return first, last


def strips(count: int, length: int) -> list[tuple[int, int]]:
    """Cut ``range(count)`` into half-open ranges of ``length`` (the last may be shorter)."""
    return [(start, min(start + length, count)) for start in range(0, count, length)]


def blocks(rows: int, columns: int, most: int) -> list[tuple[int, int, int, int]]:
    """Cut a grid into blocks (y0, y1, x0, x1) of ``most`` places: whole rows, or parts of one where it is too long."""
    if columns <= most:
        return [(y0, y1, 0, columns) for y0, y1 in strips(rows, most // columns)]
    length = -(-columns // -(-columns // most))
    return [(y, y + 1, x0, x1) for y in range(rows) for x0, x1 in strips(columns, length)]


def padded_size(size: int, before: int, behind: int, mode: str) -> int:
    """Return how many rows an input of ``size`` has with padding; columns alike.

    Parameters
    ----------
    before, behind : rows of padding.
    mode : ``"constant"``, ``"reflect"`` or ``"edge"``, as in ONNX Pad (opset 24).

    Raises ValueError for padding that is negative, and for reflections of more rows than there are behind the edge.
    """
    if mode not in ("constant", "reflect", "edge"):
        raise ValueError(f"padding {mode!r} is not one of constant, reflect, edge")
    if min(before, behind) < 0:
        raise ValueError(f"padding of {before} and {behind} must not be negative")
    if size < 1 or (mode == "reflect" and max(before, behind) >= size):
        raise ValueError(f"{max(before, behind)} rows or columns of padding cannot be reflected from {size}")
    return before + size + behind


def padded_sources(size: int, before: int, behind: int, mode: str) -> tuple[int, ...]:
    """Return which row of an input each row of the padded output is taken from, -1 for zeros; columns alike.

    Parameters and errors are those of ``padded_size``.
    """
    last, inside = size - 1, range(-before, padded_size(size, before, behind, mode) - before)
    if mode == "reflect":
        return tuple(last - abs(last - abs(place)) for place in inside)
    if mode == "edge":
        return tuple(min(max(place, 0), last) for place in inside)
    return tuple(place if 0 <= place <= last else -1 for place in inside)
