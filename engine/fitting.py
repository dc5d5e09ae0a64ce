"""Which pieces a picture is computed in, and how much an optimizer remembers, so that both fit into some memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from engine.network import Network
from engine.objective import layer_names
from engine.optimize import HISTORIES
from engine.pieces import Cutter
from engine.statistics import SHIFT
from engine.stylize import AnySettings, Settings, memory_beside, optimizer_is_elsewhere, replays

PieceSize = tuple[int | None, int | None]
"""Height and width of a piece without its halo; None leaves the picture whole along that axis."""

MOST_COMPUTED = 1.6
"""Pixels computed for each of the picture's: above that, pieces become larger at the cost of the optimizer's memory."""

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
    computed : pixels that are computed for each of the picture's: 1 and what the halos add.
    needed : bytes of one evaluation.
    """

    size: PieceSize | None
    count: int
    computed: float
    needed: int


def whole(network: Network, height: int, width: int, settings: Settings) -> Pieces:
    """Return what it takes to compute a picture as a whole."""
    layers = _layers(settings)
    if settings.edges == "zero":
        return Pieces(None, 1, 1.0, network.memory(height, width, layers))
    return _pieces(network, _cutter(network, height, width, layers, settings), None, None)


def fitting_pieces(network: Network, height: int, width: int, settings: Settings, room: float) -> Pieces:
    """Return the pieces that fit into some bytes with the fewest pixels computed twice; the smallest where none fit.

    Strips over the full width come first; of a wide picture, blocks of less width have less halo.
    """
    found = whole(network, height, width, settings)
    if found.needed <= room:
        return found
    cutter = _cutter(network, height, width, _layers(settings), settings)
    best: Pieces | None = None
    smallest = found
    for columns in range(1, _COLUMNS + 1):
        across = None if columns == 1 else _length(width, columns, cutter.strides[1])
        one = _highest(network, cutter, across, room)
        smallest = min(smallest, one, key=lambda pieces: pieces.needed)
        if one.needed <= room and (best is None or one.computed < best.computed):
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
    history = usual
    while history > LEAST_HISTORY and (found[2] > room or found[0].computed > MOST_COMPUTED):
        history = max(history - max(history // 4, 1), LEAST_HISTORY)
        found = with_history(history)
    return found


def _highest(network: Network, cutter: Cutter, across: int | None, room: float) -> Pieces:
    """Return the highest pieces of a width that fit, or those of one stride, the smallest."""
    height, stride = cutter.image[0], cutter.strides[0]
    low, high = 1, max(height // stride, 1)  # rows of pieces: the fewest that fit
    while low < high:
        rows = (low + high) // 2
        if _pieces(network, cutter, _length(height, rows, stride), across).needed <= room:
            high = rows
        else:
            low = rows + 1
    return _pieces(network, cutter, _length(height, low, stride) if low > 1 else None, across)


def _length(size: int, count: int, stride: int) -> int:
    """Return the length of ``count`` parts about as long as each other, a multiple of the stride."""
    return math.ceil(size / count / stride) * stride


def _pieces(network: Network, cutter: Cutter, height: int | None, width: int | None) -> Pieces:
    """Return what pieces of a size take: the network on the largest, and copies of what is cut out."""
    heights, widths = cutter.sizes(height, width)
    largest = max(heights), max(widths)
    needed = network.memory(*largest, cutter.outputs) + 4 * math.prod(largest) * 3 * 8
    if len(widths) > 1 or cutter.edges != "zero":  # their own columns do not lie one behind the other
        shapes = network.shapes(*largest, cutter.outputs)
        needed += 2 * max(math.prod(shape) for shape in shapes.values()) * network.dtype.itemsize
    computed = sum(heights) * sum(widths) / math.prod(cutter.image[:2])
    size = None if height is None and width is None and cutter.edges == "zero" else (height, width)
    return Pieces(size, len(heights) * len(widths), computed, needed)


def _cutter(network: Network, height: int, width: int, layers: Sequence[str], settings: Settings) -> Cutter:
    ahead = dict.fromkeys(layer_names(settings.style_layers), SHIFT) if "shifted" in _names(settings) else {}
    return network.cutter((height, width, 3), layers, settings.edges, ahead)


def _names(settings: Settings) -> list[str]:
    statistics: str | Iterable[str] = settings.style_statistics
    return [statistics] if isinstance(statistics, str) else list(statistics)


def _layers(settings: Settings) -> list[str]:
    return list(dict.fromkeys([*layer_names(settings.content_layers), *layer_names(settings.style_layers)]))
