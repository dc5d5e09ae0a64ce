"""Which pieces a picture is computed in, and how much an optimizer remembers, so that both fit into some memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from engine.network import Network
from engine.objective import layer_names
from engine.optimize import HISTORIES
from engine.pieces import Cutter
from engine.plan import Plan
from engine.statistics import SHIFT
from engine.stylize import AnySettings, Settings, memory_beside, optimizer_is_elsewhere, replays

PieceSize = tuple[int | None, int | None]
"""Height and width of a piece without its halo; None leaves the picture whole along that axis."""

MOST_COST = 1.5
"""Above this multiple of the whole's time, pieces become larger at the cost of what the optimizer remembers."""

LEAST_HISTORY = 3
"""Corrections without which L-BFGS is of little use."""

_COLUMNS = 12
"""Into how many columns a picture is cut at most: one of many is narrower than its halo."""


@dataclass(frozen=True)
class Pieces:
    """How a picture is computed.

    Parameters
    ----------
    size : of a piece, or None where the picture is computed as a whole.
    count : of the pieces.
    needed : bytes of one evaluation.
    cost : time of an evaluation as a multiple of that of the whole with the network's own edges, estimated.
    keep : the layers whose features are kept between the passes, or None for nothing: see ``Objective``.
    """

    size: PieceSize | None
    count: int
    needed: int
    cost: float
    keep: tuple[str, ...] | None = None


def whole(network: Network, height: int, width: int, settings: Settings) -> Pieces:
    """Return what it takes to compute a picture as a whole."""
    layers = _layers(settings)
    if settings.edges == "zero":
        return Pieces(None, 1, network.memory(height, width, layers), 1.0)
    return _Cut(network, _cutter(network, height, width, layers, settings)).pieces(None, None, None)


def fitting_pieces(network: Network, height: int, width: int, settings: Settings, room: float) -> Pieces:
    """Return the pieces that fit into some bytes and take the least time; the smallest where none fit.

    Strips have halos above and below; of a wide picture, blocks of less width have less halo in all. The more is kept
    between the passes, the less is computed again, and the smaller are the pieces.
    """
    found = whole(network, height, width, settings)
    if found.needed <= room:
        return found
    layers = sorted(_layers(settings), key=network.layers.index)
    cut = _Cut(network, _cutter(network, height, width, layers, settings))
    best: Pieces | None = None
    smallest = found
    for keep in (None, *(tuple(layers[count:]) for count in range(len(layers) + 1))):
        for columns in range(1, _COLUMNS + 1):
            one = cut.highest(columns, keep, room)
            smallest = min(smallest, one, key=lambda pieces: pieces.needed)
            if one.needed <= room and (best is None or one.cost < best.cost):
                best = one
    return best or smallest


def fit(
    network: Network, height: int, width: int, settings: AnySettings, room: float
) -> tuple[Pieces, AnySettings, int]:
    """Return pieces, settings and the bytes that a run takes, within ``room`` bytes where that can be.

    Where the optimizer's corrections leave too little for the pieces, fewer of them are kept, unless their number was
    asked for.

    Parameters
    ----------
    height, width : of the picture.
    """

    def with_history(history: int | None) -> tuple[Pieces, AnySettings, int]:
        own = replace(settings, history=history)
        beside = memory_beside(network, height, width, own)
        pieces = fitting_pieces(network, height, width, own, (room - beside) / evaluations)
        return pieces, own, beside + evaluations * pieces.needed

    evaluations = 2 if replays(network, height, width) else 1  # a record keeps memory of its own
    found = with_history(settings.history)
    usual = HISTORIES.get(settings.optimizer)
    if usual is None or settings.history is not None or optimizer_is_elsewhere(network, settings):
        return found
    history, most = usual, MOST_COST * whole(network, height, width, settings).cost
    while history > LEAST_HISTORY and (found[2] > room or found[0].cost > most):
        history = max(history - max(history // 4, 1), LEAST_HISTORY)
        found = with_history(history)
    return found


class _Cut:
    """The pieces that a picture can be cut into, and what each takes."""

    def __init__(self, network: Network, cutter: Cutter) -> None:
        self._network, self._cutter = network, cutter
        self._plans: dict[tuple[int, int], Plan] = {}
        self._work = network.multiply_adds(*cutter.image[:2], cutter.outputs)
        self._evaluation, self._copies = cache(self._evaluation_bytes), cache(self._copied_bytes)
        self._kept, self._again = cache(self._kept_bytes), cache(self._part_again)

    def highest(self, columns: int, keep: tuple[str, ...] | None, room: float) -> Pieces:
        """Return the highest pieces, in some columns, that fit; or those of one stride, the smallest."""
        (height, width, _), (stride, across) = self._cutter.image, self._cutter.strides
        along = None if columns == 1 else _length(width, columns, across)
        low, high = 1, max(height // stride, 1)  # rows of pieces: the fewest that fit
        while low < high:
            rows = (low + high) // 2
            if self.pieces(_length(height, rows, stride), along, keep).needed <= room:
                high = rows
            else:
                low = rows + 1
        return self.pieces(_length(height, low, stride) if low > 1 else None, along, keep)

    def pieces(self, height: int | None, width: int | None, keep: tuple[str, ...] | None) -> Pieces:
        """Return what pieces of a size take: the network on the largest, copies of what is cut out, what is kept."""
        cutter = self._cutter
        heights, widths = cutter.sizes(height, width)
        largest, count = (max(heights), max(widths)), len(heights) * len(widths)
        computed = sum(heights) * sum(widths)
        needed = self._evaluation(largest)
        if len(widths) > 1 or cutter.edges != "zero":  # their own columns do not lie one behind the other
            needed += self._copies(largest)
        again = 1.0
        if keep is not None:
            needed += int(self._kept(largest, keep) * (computed / math.prod(largest) - 1))
            again = self._again(keep)
        # An evaluation is a forward and a backward pass; of the last piece the former is still there.
        cost = computed / math.prod(cutter.image[:2]) * (1 + again * (count - 1) / count / 2)
        size = None if height is None and width is None and cutter.edges == "zero" else (height, width)
        return Pieces(size, count, needed, cost, keep if count > 1 else None)

    def _plan(self, size: tuple[int, int]) -> Plan:
        if size not in self._plans:
            self._plans[size] = self._network.plan(*size, self._cutter.outputs)
        return self._plans[size]

    def _evaluation_bytes(self, size: tuple[int, int]) -> int:
        # The piece itself and its gradient, each twice while it is made.
        return self._plan(size).peak_bytes + 4 * math.prod(size) * 3 * 8

    def _copied_bytes(self, size: tuple[int, int]) -> int:
        plan = self._plan(size)
        largest = max(math.prod(plan.shapes[value]) for value in plan.layers.values())
        return 2 * largest * plan.dtype.itemsize

    def _kept_bytes(self, size: tuple[int, int], keep: tuple[str, ...]) -> int:
        return self._plan(size).bytes_kept(keep)

    def _part_again(self, keep: tuple[str, ...]) -> float:
        """Return which part of a forward pass is made again where some layers are kept."""
        left_out = [layer for layer in self._cutter.outputs if layer not in keep]
        height, width, _ = self._cutter.image
        return self._network.multiply_adds(height, width, left_out) / self._work if left_out else 0.0


def _length(size: int, count: int, stride: int) -> int:
    """Return the length of ``count`` parts about as long as each other, a multiple of the stride."""
    return math.ceil(size / count / stride) * stride


def _cutter(network: Network, height: int, width: int, layers: Sequence[str], settings: Settings) -> Cutter:
    ahead = dict.fromkeys(layer_names(settings.style_layers), SHIFT) if "shifted" in _names(settings) else {}
    return network.cutter((height, width, 3), layers, settings.edges, ahead)


def _names(settings: Settings) -> list[str]:
    statistics: str | Iterable[str] = settings.style_statistics
    return [statistics] if isinstance(statistics, str) else list(statistics)


def _layers(settings: Settings) -> list[str]:
    return list(dict.fromkeys([*layer_names(settings.content_layers), *layer_names(settings.style_layers)]))
