"""Which pieces a picture is computed in, and how much an optimizer remembers, so that both fit into some memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import product

from engine.network import Network
from engine.optimize import usual_history
from engine.pieces import Cutter
from engine.plan import Plan
from engine.selection import layer_names, used_statistics
from engine.statistics import positions_ahead
from engine.stylize import AnySettings, Settings, memory_beside, optimizer_is_elsewhere, replays
from kernels import Cpu
from kernels.cpu.transport import transport_bytes

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
    waist : the layer up to which it is cut, or None where the pieces see all layers: see ``engine.stages``.
    """

    size: PieceSize | None
    count: int
    needed: int
    cost: float
    keep: tuple[str, ...] | None = None
    waist: str | None = None


def sorts_a_layer(settings: Settings) -> bool:
    """Say whether a term sorts all of a layer, so that the picture cannot be cut."""
    return bool(settings.style_layers) and "sliced" in used_statistics(settings.style_statistics)


def whole(network: Network, height: int, width: int, settings: Settings) -> Pieces:
    """Return what it takes to compute a picture as a whole."""
    return _Search(network, height, width, settings).whole


def fitting_pieces(
    network: Network, height: int, width: int, settings: Settings, room: float, *, with_waist: bool = True
) -> Pieces:
    """Return the pieces that fit into some bytes and take the least time; the smallest where none fit.

    Strips have halos above and below; of a wide picture, blocks of less width have less halo in all. The more is kept
    between the passes, the less is computed again, and the smaller are the pieces. Below a waist halos are narrow and
    little is computed again, but what lies behind it takes memory for all of the picture.

    Parameters
    ----------
    with_waist : whether there may be one, as for pictures; style images have none.
    """
    return _Search(network, height, width, settings, with_waist).fitting(room)


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
        pieces = search.fitting((room - beside) / evaluations)
        return pieces, own, beside + evaluations * pieces.needed

    search = _Search(network, height, width, settings)
    evaluations = 2 if replays(network, height, width) else 1  # a record keeps memory of its own
    found = with_history(settings.history)
    usual = usual_history(settings.optimizer, settings.iterations, network.device.kind)
    if usual is None or settings.history is not None or optimizer_is_elsewhere(network, settings):
        return found
    history, most = usual, MOST_COST * search.whole.cost
    while history > LEAST_HISTORY and (found[2] > room or found[0].cost > most):
        history = max(history - max(history // 4, 1), LEAST_HISTORY)
        found = with_history(history)
    return found


class _Search:
    """What a picture can be cut into, with each waist and with none."""

    def __init__(self, network: Network, height: int, width: int, settings: Settings, with_waist: bool = True) -> None:
        self._network, self._settings, self._image = network, settings, (height, width, 3)
        order = list(network.outputs.values())
        self._layers = sorted(network.checked(_layers(settings)), key=lambda layer: order.index(network.outputs[layer]))
        self._with_waist = with_waist and settings.edges == "zero"
        network.shapes(height, width, self._layers)  # what is too small is told as it is everywhere

    @cached_property
    def whole(self) -> Pieces:
        """What it takes to compute the picture as a whole."""
        if self._settings.edges == "zero":
            found = Pieces(None, 1, self._network.memory(*self._image[:2], self._layers), 1.0)
        else:
            found = self._cuts[0].pieces(None, None, None)
        return replace(found, needed=found.needed + self._sorted_bytes) if sorts_a_layer(self._settings) else found

    def fitting(self, room: float) -> Pieces:
        """Return ``fitting_pieces`` for some bytes."""
        if self.whole.needed <= room or sorts_a_layer(self._settings):
            return self.whole
        best: Pieces | None = None
        smallest = self.whole
        for cut in self._cuts:
            for keep, columns in product(cut.keeps, range(1, _COLUMNS + 1)):
                if best is not None and cut.least_cost(columns, keep) >= best.cost:
                    continue
                one = cut.highest(columns, keep, room, math.inf if best is None else best.cost)
                smallest = min(smallest, one, key=lambda pieces: pieces.needed)
                if one.needed <= room and (best is None or one.cost < best.cost):
                    best = one
        return best or smallest

    @property
    def _sorted_bytes(self) -> int:
        """What sorting takes: each layer's residual until the gradient is done, and what one is made from."""
        network = self._network
        plan = network.plan(*self._image[:2], layer_names(self._settings.style_layers))
        shapes = [plan.shapes[value] for value in plan.layers.values()]
        size, count = network.dtype.itemsize, network.device.count if isinstance(network.device, Cpu) else 1
        largest = max(size * math.prod(shape) + transport_bytes(shape[0] * shape[1], size, count) for shape in shapes)
        return size * sum(map(math.prod, shapes)) + largest

    @cached_property
    def _cuts(self) -> list[_Cut]:
        """Without a waist first, then with the waists from the image upwards."""
        network, settings, layers = self._network, self._settings, self._layers
        ahead = positions_ahead(layer_names(settings.style_layers), used_statistics(settings.style_statistics))
        work = network.multiply_adds(*self._image[:2], layers)
        cuts = [_Cut(network, network.cutter(self._image, layers, settings.edges, ahead), 1.0)]
        for waist in network.layers if self._with_waist else ():
            try:
                below, behind = network.divided(layers, waist)
            except ValueError:  # the network goes around it
                continue
            if all(network.outputs[layer] == network.outputs[waist] for layer in behind):
                continue
            cutter = network.cutter(self._image, [*below, waist], settings.edges, ahead)
            share = network.multiply_adds(*self._image[:2], cutter.outputs) / work
            cuts.append(_Cut(network, cutter, share, waist, network.plan(*self._image[:2], behind, waist)))
        return cuts


class _Cut:
    """The pieces that a picture can be cut into as far as some layers, and what each takes.

    Parameters
    ----------
    cutter : for those layers.
    share : of all multiplications, those that are made in pieces.
    waist : that the pieces go up to, or None.
    behind : how the rest of the network is run, of all of the waist's features.
    """

    def __init__(
        self, network: Network, cutter: Cutter, share: float, waist: str | None = None, behind: Plan | None = None
    ) -> None:
        self._network, self._cutter = network, cutter
        self._share, self._waist, self._behind = share, waist, behind
        self._behind_bytes = 0 if behind is None else behind.peak_bytes
        self._plans: dict[tuple[int, int], Plan] = {}
        self._work = network.multiply_adds(*cutter.image[:2], cutter.outputs)
        self._evaluation, self._copies = cache(self._evaluation_bytes), cache(self._copied_bytes)
        self._kept, self._again = cache(self._kept_bytes), cache(self._part_again)
        self._sizes = cache(cutter.sizes)

    @property
    def keeps(self) -> list[tuple[str, ...] | None]:
        """What may be kept: nothing, or some of the layers, those that take the longest first."""
        layers = list(self._cutter.outputs)
        return [None, *(tuple(layers[count:]) for count in range(len(layers) + 1))]

    def highest(self, columns: int, keep: tuple[str, ...] | None, room: float, most: float) -> Pieces:
        """Return the highest pieces, in some columns, that fit; or the smallest, where none do for less than ``most``.

        Lower pieces take less, until their halos take more than what is cut off.
        """
        width, across = self._cutter.image[1], self._cutter.strides[1]
        along = None if columns == 1 else _length(width, columns, across)
        found = self.pieces(None, along, keep)
        for height in self._heights:
            if found.needed <= room or found.cost >= most:
                break
            lower = self.pieces(height, along, keep)
            if lower.needed >= found.needed:
                break
            found = lower
        return found

    @cached_property
    def _heights(self) -> list[int]:
        """Of pieces, from half of the picture downwards, each by an eighth at most."""
        (height, _, _), (stride, _) = self._cutter.image, self._cutter.strides
        rows, found = 2, list[int]()
        while not found or found[-1] > stride:
            length = _length(height, rows, stride)
            if not found or length < found[-1]:
                found.append(length)
            rows += max(rows // 8, 1)
        return found

    def least_cost(self, columns: int, keep: tuple[str, ...] | None) -> float:
        """Return what pieces in some columns cost at least: without halos above and below."""
        width, across = self._cutter.image[1], self._cutter.strides[1]
        _, widths = self._sizes(None, None if columns == 1 else _length(width, columns, across))
        return self._cost(sum(widths) / width, columns, keep)

    def pieces(self, height: int | None, width: int | None, keep: tuple[str, ...] | None) -> Pieces:
        """Return what pieces of a size take: the network on the largest, copies of what is cut out, what is kept."""
        cutter = self._cutter
        heights, widths = self._sizes(height, width)
        largest, count = (max(heights), max(widths)), len(heights) * len(widths)
        computed = sum(heights) * sum(widths)
        kept, needed = 0, self._evaluation(largest)
        if len(widths) > 1 or cutter.edges != "zero":  # their own columns do not lie one behind the other
            needed += self._copies(largest)
        of_others = computed / math.prod(largest) - (self._behind is None)
        if keep is not None:
            kept = int(self._kept(largest, keep) * of_others)
        if self._behind is not None:
            # Beside a piece there are the waist's features, or their gradient; beside what lies behind it, no piece.
            features = math.prod(self._behind.shape) * self._behind.dtype.itemsize
            needed = max(features + needed, self._behind_bytes)
        cost = self._cost(computed / math.prod(cutter.image[:2]), count, keep)
        size = None if height is None and width is None and cutter.edges == "zero" else (height, width)
        if count == 1 and self._behind is None:
            keep = None
        return Pieces(size, count, needed + kept, cost, keep, self._waist)

    def _cost(self, computed: float, count: int, keep: tuple[str, ...] | None) -> float:
        """Return the time as a multiple of the whole's.

        Parameters
        ----------
        computed : pixels of all pieces with their halos, for one of the picture.
        """
        again = 1.0 if keep is None else self._again(keep)
        if self._behind is None:
            again *= (count - 1) / count  # of the last piece the forward pass is still there
        # An evaluation is a forward pass and a backward pass that takes as long.
        return self._share * computed * (1 + again / 2) + 1 - self._share

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


def _layers(settings: Settings) -> list[str]:
    return list(dict.fromkeys([*layer_names(settings.content_layers), *layer_names(settings.style_layers)]))
