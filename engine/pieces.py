"""Where a picture is cut so that each piece is computed alone, and what stands around its edges.

A piece is a part of the picture with a halo: all that the layers' responses at its own positions are computed from. Run
through the network by itself, it gives at those positions what the whole picture gives there; what the network computes
of a cut edge is looked at by nobody. The pieces begin at multiples of the network's total stride, so that pooling meets
the same windows, and the picture's own edges are padded by the network as they always were.

Sums over positions (Gram matrices, squared differences) are sums over the pieces. A loss that is a function of such
sums has at each position the derivative that follows from the sums of the whole. The gradients of overlapping pieces
are added up, which is the chain rule: a pixel moves the responses of each piece that it takes part in.

Other edges than the network's zeros are halos too: the picture goes on beyond its edge, mirrored, repeated, or from its
other side, so that it can be tiled. Only its own positions are looked at, and the gradient of what goes on beyond the
edge is added where that was taken from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from typing import Any

import numpy as np

from engine.errors import unknown_name
from engine.graph import Node, value_shapes
from engine.ops import Array, Shape
from kernels import Device

EDGES = ("zero", "reflect", "repeat", "wrap")
"""What the network sees beyond the picture's edges."""

Span = tuple[int, int]
"""Rows, or columns, from the first to before the last."""

Slices = tuple[slice, slice]

Run = tuple[int, int, int]
"""Rows that lie one behind the other both in a piece and in the picture: where there, where here, how many."""


@dataclass(frozen=True)
class Part:
    """A piece's own positions at a layer.

    Parameters
    ----------
    inside : where they lie in the piece's features.
    ahead : those, and as far as the layer goes on, some rows and columns behind them.
    at, at_ahead : where both lie in the layer of the whole picture; behind the end of a tile, its beginning.
    """

    inside: Slices
    ahead: Slices
    at: Slices
    at_ahead: Slices


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of the picture with its halo.

    Parameters
    ----------
    size : height and width with the halo.
    rows, columns : where they are taken from.
    parts : its own positions, by layer.
    positions : of each layer in the whole picture: height and width.
    """

    size: tuple[int, int]
    rows: tuple[Run, ...]
    columns: tuple[Run, ...]
    parts: Mapping[str, Part]
    positions: Mapping[str, tuple[int, int]]

    def taken(self, device: Device, image: Array) -> Array:
        """Return the piece of an image, (H, W, 3): a new array on the device."""
        piece = device.empty((*self.size, image.shape[2]), image.dtype)
        for there, here in self._blocks():
            piece[there] = image[here]
        return piece

    def give_back(self, gradient: Array, total: Array) -> None:
        """Add the gradient of ``taken`` to that of the image, in place: each value where it was taken from.

        Parameters
        ----------
        gradient : of the piece's shape.
        total : (H, W, 3).
        """
        for there, here in self._blocks():
            total[here] += gradient[there]

    def _blocks(self) -> Iterator[tuple[Slices, Slices]]:
        for (top, row, height), (left, column, width) in product(self.rows, self.columns):
            there = slice(top, top + height), slice(left, left + width)
            yield there, (slice(row, row + height), slice(column, column + width))


@dataclass(frozen=True)
class _Along:
    """A piece along one axis: where it begins and ends in the picture, and its own positions at each layer."""

    span: Span
    own: Mapping[str, Span]


@dataclass(frozen=True, eq=False)
class Cutter:
    """How pictures of one size are cut for a network and some of its layers.

    Parameters
    ----------
    nodes : of the network as far as the layers, in running order, none joined.
    outputs : the value that each layer stands for.
    image : (H, W, 3).
    edges : of ``EDGES``.
    ahead : by how many rows and columns a layer is to be seen beyond a piece's own positions; 0 unless given.

    Raises ValueError for edges that there are none of, and for a size that cannot be tiled.
    """

    nodes: Sequence[Node]
    outputs: Mapping[str, str]
    image: Shape
    edges: str
    ahead: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.edges not in EDGES:
            raise ValueError(unknown_name("edges", self.edges, EDGES))
        for size, stride, side in zip(self.image, self.strides, ("height", "width"), strict=False):
            if self.edges == "wrap" and size % stride:
                raise ValueError(f"a picture that is to be tiled has a {side} that divides by {stride}, not {size}")

    @cached_property
    def strides(self) -> tuple[int, int]:
        """The total stride along each axis: what a piece's first row and column are multiples of."""
        down, across = (math.lcm(*jumps.values()) for jumps in self._jumps)
        return down, across

    @cached_property
    def positions(self) -> dict[str, tuple[int, int]]:
        """Each layer's height and width in the whole picture."""
        if self.edges != "wrap":
            return {layer: self._shapes[value][:2] for layer, value in self.outputs.items()}
        # What the other side is seen again for has no positions of its own.
        (height, width, _), (down, across) = self.image, self._jumps
        return {layer: (height // down[value], width // across[value]) for layer, value in self.outputs.items()}

    def cut(self, height: int | None = None, width: int | None = None) -> tuple[Piece, ...]:
        """Return the pieces, from top to bottom and from left to right.

        Parameters
        ----------
        height, width : of a piece without its halo at most, rounded down to multiples of the stride, but at least one
            of them; None leaves the picture whole along that axis.
        """
        axes = [self._along(axis, length) for axis, length in enumerate(self._lengths(height, width))]
        return tuple(self._piece(down, across) for down, across in product(*axes))

    def sizes(self, height: int | None, width: int | None) -> tuple[list[int], list[int]]:
        """Return the heights and the widths of the pieces of ``cut``, with their halos, or a little more."""
        down, across = (
            [span[1] - span[0] for span in (self._with_halo(axis, *own) for own in self._own(axis, length))]
            for axis, length in enumerate(self._lengths(height, width))
        )
        return down, across

    def _with_halo(self, axis: int, first: int, stop: int) -> Span:
        """Return some of the picture's rows with the halo that pieces have far from the edges."""
        size, stride, (above, below) = self.image[axis], self.strides[axis], self._halos[axis]
        low, high = (first - above) // stride * stride, stop + below
        return (max(low, 0), min(high, size)) if self.edges == "zero" else (low, high)

    @cached_property
    def _halos(self) -> tuple[Span, Span]:
        """The rows, and columns, that are needed before and behind a piece's own where no edge is near."""
        far, (height, width, channels) = [20 * side for side in self.strides], self.image
        inner = replace(self, image=(height + far[0], width + far[1], channels), edges="repeat")
        halos = []
        for axis in (0, 1):
            stride, jumps = self.strides[axis], self._jumps[axis]
            own = {}
            for layer, value in self.outputs.items():
                first = far[axis] // jumps[value]
                own[layer] = first, first + stride // jumps[value] + self.ahead.get(layer, 0)
            low, high = inner._needed(axis, own)
            halos.append((max(far[axis] - low, 0), max(high - far[axis] - stride, 0)))
        return halos[0], halos[1]

    def _lengths(self, height: int | None, width: int | None) -> list[int]:
        """Return how long a piece is along each axis, a multiple of the stride unless it is all of the picture."""
        sides = zip(self.image, self.strides, (height, width), strict=False)
        return [size if length is None else max(length // stride, 1) * stride for size, stride, length in sides]

    def _own(self, axis: int, length: int) -> list[Span]:
        """Return where the pieces along one axis begin and end, without their halos."""
        size, stride = self.image[axis], self.strides[axis]
        # A rest of less than the stride has positions of its own in no deep layer: it goes to the piece before. So does
        # what layers without padding leave over at the end.
        last = max(
            (sizes[axis] - 1) * self._jumps[axis][self.outputs[layer]] for layer, sizes in self.positions.items()
        )
        return list(pairwise([*range(0, min(max(size - stride, 0), last) + 1, length), size]))

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        """The shape of every value of the whole picture."""
        return value_shapes(self.nodes, self.image)

    @cached_property
    def _jumps(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many of the picture's rows, and columns, one of each value's stands for."""
        down, across = ({self.nodes[0].input: 1} for _ in range(2))
        for node in self.nodes:
            for jumps, stride in zip((down, across), node.operator.strides, strict=True):
                jumps[node.output] = jumps[node.input] * stride
        return down, across

    def _along(self, axis: int, length: int) -> list[_Along]:
        """Return the pieces along one axis, of ``length`` rows or columns of the picture at most."""
        size, stride, jumps = self.image[axis], self.strides[axis], self._jumps[axis]
        positions = {layer: sizes[axis] for layer, sizes in self.positions.items()}
        pieces = []
        for first, stop in self._own(axis, length):
            own = {}
            for layer, count in positions.items():
                jump = jumps[self.outputs[layer]]
                # What an odd size leaves over at the end goes to the last.
                own[layer] = min(first // jump, count), count if stop == size else min(stop // jump, count)
            looked_at = dict[str, Span]()
            for layer, (begin, end) in own.items():
                # One position at least, also of a layer of which the piece owns none: it must be large enough for all.
                begin = min(begin, positions[layer] - 1)
                looked_at[layer] = begin, max(self._end_ahead(layer, end, positions[layer]), begin + 1)
            low, high = self._needed(axis, looked_at)
            pieces.append(_Along((low // stride * stride, high), own))
        return pieces

    def _end_ahead(self, layer: str, stop: int, positions: int) -> int:
        """Return how far a piece is seen that ends at ``stop``: a tile goes on behind its last position."""
        ahead = stop + self.ahead.get(layer, 0)
        return ahead if self.edges == "wrap" else min(ahead, positions)

    def _needed(self, axis: int, layers: Mapping[str, Span]) -> Span:
        """Return which of the picture's rows some rows of the layers are computed from."""
        sizes = {value: shape[axis] for value, shape in self._shapes.items()}
        needed: dict[str, Span] = {}

        def add(value: str, rows: Span) -> None:
            if self.edges == "zero":  # beyond the edge there is padding only; what sees nothing else reaches the edge
                rows = min(max(rows[0], 0), sizes[value] - 1), max(min(rows[1], sizes[value]), 1)
            known = needed.get(value, rows)
            needed[value] = min(known[0], rows[0]), max(known[1], rows[1])

        for layer, rows in layers.items():
            add(self.outputs[layer], rows)
        for node in reversed(self.nodes):
            if node.output in needed:
                for name in node.inputs:
                    add(name, node.operator.reach(axis, sizes[name], needed[node.output]))
        return needed[self.nodes[0].input]

    def _piece(self, down: _Along, across: _Along) -> Piece:
        positions, parts = self.positions, {}
        for layer, value in self.outputs.items():
            axes = []
            for axis, along in enumerate((down, across)):
                start = along.span[0] // self._jumps[axis][value]
                first, stop = along.own[layer]
                end = self._end_ahead(layer, stop, positions[layer][axis])
                axes.append([slice(first - start, stop - start), slice(first - start, end - start)])
                axes[-1] += [slice(first, stop), slice(first, end)]
            parts[layer] = Part(*zip(*axes, strict=True))
        size = down.span[1] - down.span[0], across.span[1] - across.span[0]
        self._check_pads(size)
        rows, columns = (
            _runs(sources(range(*along.span), length, self.edges))
            for along, length in zip((down, across), self.image, strict=False)
        )
        return Piece(size, rows, columns, parts, positions)

    def _check_pads(self, size: tuple[int, int]) -> None:
        """Raise ValueError where an operator pads a piece's beginning by another number of rows than the picture's."""
        of_piece = value_shapes(self.nodes, (*size, self.image[2]))
        for node in self.nodes:
            pads = [node.operator.begins(shapes[node.input]) for shapes in (self._shapes, of_piece)]
            if pads[0] != pads[1]:
                raise ValueError(
                    f"{node.label} pads a piece of {size[1]}x{size[0]} pixels in another way than the whole picture: "
                    "it cannot be computed in pieces, nor with other edges"
                )


def style_edges(edges: str) -> str:
    """Return the edges of a style image beside those of the picture.

    They are the same, but that a style image has a seam where its other side begins: it is mirrored.
    """
    return "reflect" if edges == "wrap" else edges


def sources(places: Sequence[int], size: int, edges: str) -> list[int]:
    """Return which of a picture's rows stands at some places, which may lie before its first or behind its last row.

    Parameters
    ----------
    size : how many rows there are; mirrored, they come again after 2 size - 2.
    edges : ``"reflect"`` about the middle of the first and last row, ``"repeat"`` or ``"wrap"``.
    """
    last = size - 1
    rules: dict[str, Callable[[int], int]] = {
        "zero": lambda place: place,  # never beyond the edge
        "reflect": lambda place: last - abs(last - place % (2 * last)) if last else 0,
        "repeat": lambda place: min(max(place, 0), last),
        "wrap": lambda place: place % size,
    }
    return [rules[edges](place) for place in places]


def _runs(rows: Sequence[int]) -> tuple[Run, ...]:
    """Return rows as runs, so that they can be taken by slices."""
    runs: list[Run] = []
    for there, here in enumerate(rows):
        if runs and runs[-1][1] + runs[-1][2] == here:
            start, first, length = runs[-1]
            runs[-1] = start, first, length + 1
        else:
            runs.append((there, here, 1))
    return tuple(runs)


def contiguous(array: Any) -> Any:
    """Return an array, on any device, whose values lie one behind the other: itself, or a copy."""
    return array if array.flags.c_contiguous else array.copy()


def added_up(sums: dict[Any, Any], more: Mapping[Any, Any]) -> None:
    """Add to some sums those of one more piece, in place."""
    for key, one in more.items():
        sums[key] = sums[key] + one if key in sums else one


def zeros(device: Device, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array of zeros on the device."""
    array = device.empty(shape, dtype)
    array[...] = 0
    return array
