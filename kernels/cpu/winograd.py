"""Winograd's minimal filtering F(4x4, 3x3): a 3x3 convolution with stride 1 in a quarter of the multiplications.

A tile of 4x4 outputs reads a tile d of 6x6 inputs. With the one-dimensional transforms of ``toom_cook`` the outputs are

    Y = A^T [ (G g G^T) * (B^T d B) ] A          (* element by element)

for each pair of an input and an output channel. The sum over input channels moves inside the brackets, so that the
element-wise product becomes 36 matrix products, one for each of the 6x6 places: 36 multiplications an input channel for
16 outputs, where the definition takes 144. The transforms are matrix products too, along one axis after the other:
across tile by tile, where tiles overlap in memory, and down over all of a strip's tiles and channels at once.

Sources: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), section 4; Toom-Cook interpolation
for the matrices: Vincent et al., "On Improving the Numerical Stability of Winograd Convolutions" (2017). The points are
0, +-5/8, +-3/2 and infinity. Their powers stay near 1, which halves the rounding error of the usual 0, +-1, +-2,
infinity; and their transforms are exact in binary: rounded ones err alike at all places, which adds up in a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from kernels.cpu.threads import Threads
from kernels.geometry import blocks

Array = NDArray[Any]

Load = Callable[[slice, slice, Array], None]
"""Writes some rows and columns of the input, (rows, columns, C), to the array given."""

Store = Callable[[slice, slice, Array], None]
"""Takes some rows and columns of the output, (rows, columns, K); it may change the array given."""

OUTPUTS, TAPS = 4, 3
TILE = OUTPUTS + TAPS - 1
POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)

# While the transformed weight is no larger than this, it stays in a core's second-level cache and each strip of tiles
# goes through all steps at once. A larger one is read once for all tiles of a group instead, its 36 matrices shared
# among the threads.
_CACHED_WEIGHT_BYTES = 3 << 20
# Bytes of a strip's transformed tiles, and of a group's.
_STRIP_BYTES = 5 << 18
_GROUP_BYTES = 40 << 20


def toom_cook(outputs: int, taps: int, points: Sequence[float]) -> tuple[Array, Array, Array]:
    """Return the transforms (A^T, G, B^T) of one-dimensional minimal filtering F(outputs, taps), in float64.

    With n = outputs + taps - 1 and finite ``points`` p_1 .. p_(n-1) (infinity is the n-th): a polynomial product is
    evaluated at the points and interpolated; its transpose is the filter. A^T and G hold the powers of the points, G
    divided by prod_(j != i) (p_i - p_j), and B^T the coefficients of the polynomials prod_(j != i) (x - p_j).

    Returns
    -------
    A^T (outputs, n), G (n, taps) and B^T (n, n), so that ``A^T ((G g) * (B^T d))`` is the correlation of d (n values)
    with g (taps).
    """
    n = outputs + taps - 1
    finite = np.array(points, np.float64)
    if len(finite) != n - 1:
        raise ValueError(f"F({outputs}, {taps}) takes {n - 1} finite points, got {len(finite)}")
    a, g, b = np.zeros((outputs, n)), np.zeros((n, taps)), np.zeros((n, n))
    for i, p in enumerate(finite):
        others = np.delete(finite, i)
        a[:, i] = p ** np.arange(outputs)
        g[i] = p ** np.arange(taps) / np.prod(p - others)
        b[i, : n - 1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(finite)[::-1]
    return a, g, b


def _flipped(g: Array) -> tuple[Array, Array]:
    """Return the transforms A^T and B^T with which a weight transformed by ``g`` acts as if its taps were flipped.

    A polynomial read backwards is x^(taps - 1) g(1 / x): at the point 1 / p it is a multiple of g(p). So the flipped
    weight's transform with the points 1 / p, 0 and infinity exchanged, is that of the weight itself with the points p,
    each place multiplied by a number; the numbers go into B^T.
    """
    exchanged = [TILE - 1, *range(1, TILE - 1), 0]
    a, of_flipped, b = toom_cook(OUTPUTS, TAPS, [0.0, *(1 / p for p in POINTS[1:])])
    factor = (of_flipped[exchanged, ::-1] * g).sum(axis=1) / np.square(g).sum(axis=1)
    return a[:, exchanged], factor[:, None] * b[exchanged]


_A, _G, _B = toom_cook(OUTPUTS, TAPS, POINTS)
_A_FLIPPED, _B_FLIPPED = _flipped(_G)


def transform_weight(weight: Array) -> Array:
    """Return G g G^T for each pair of channels: (36, C, K), in the weight's dtype, from a weight of (3, 3, C, K)."""
    _, _, channels, filters = weight.shape
    transformed = np.empty((TILE * TILE, channels, filters), weight.dtype)
    transform = np.kron(_G, _G)
    for channel in range(channels):  # one at a time: double precision for all of them would take up twice the result
        transformed[:, channel] = transform @ weight[:, :, channel].reshape(TAPS * TAPS, filters).astype(np.float64)
    return transformed


def winograd_conv(
    threads: Threads,
    load: Load,
    store: Store,
    size: tuple[int, int],
    pads: tuple[int, int, int, int],
    transformed: Array,
    bias: Array | None = None,
    *,
    transposed: bool = False,
) -> None:
    """Convolve, tile by tile: input comes from ``load``, output goes to ``store``, so that both can do more on the way.

    Parameters
    ----------
    load, store : called by several threads at once, ``store`` once for each output.
    size : the input's height and width.
    pads : zeros at the top, left, bottom and right.
    transformed : (36, C, K), from ``transform_weight``.
    bias : (K,) or None.
    transposed : convolve with the taps flipped and the channels exchanged, which takes K channels to C:
        with ``pads`` of 2 minus the convolution's, that is its input gradient.
    """
    rows, columns = size[0] + pads[0] + pads[2] - TAPS + 1, size[1] + pads[1] + pads[3] - TAPS + 1
    across = -(-columns // OUTPUTS)
    tile_bytes = TILE * TILE * max(transformed.shape[1:]) * transformed.itemsize
    parts = blocks(-(-rows // OUTPUTS), across, max(1, _STRIP_BYTES // tile_bytes))
    job = _Convolution(load, store, size, pads, (rows, columns), transformed, bias, transposed, threads)
    if job.cached:
        threads.map(job.strip, parts)
        return
    group: list[_Block] = []
    tiles = 0
    for block in parts:
        group.append(block)
        tiles += _tiles(block)
        if tiles * tile_bytes >= _GROUP_BYTES or block is parts[-1]:
            job.group(group, tiles)
            group, tiles = [], 0


def scratch_bytes(rows: int, columns: int, transformed_shape: tuple[int, int, int], itemsize: int, threads: int) -> int:
    """Return the bytes of intermediate values that ``winograd_conv`` holds for an output of ``rows`` x ``columns``."""
    places, channels, filters = transformed_shape
    tiles = -(-rows // OUTPUTS) * -(-columns // OUTPUTS)
    both = places * (channels + filters) * itemsize
    of_strips = 2 * threads * min(tiles * both, 2 * _STRIP_BYTES)
    if places * channels * filters * itemsize <= _CACHED_WEIGHT_BYTES:
        return of_strips
    return of_strips + min(tiles * both, 2 * (_GROUP_BYTES + _STRIP_BYTES))


_Block = tuple[int, int, int, int]
"""A rectangle of tiles: first and last row, first and last column, ends excluded."""


def _tiles(block: _Block) -> int:
    return (block[1] - block[0]) * (block[3] - block[2])


class _Convolution:
    """One call of ``winograd_conv``: its steps on a block of tiles."""

    def __init__(
        self,
        load: Load,
        store: Store,
        size: tuple[int, int],
        pads: tuple[int, int, int, int],
        output_size: tuple[int, int],
        transformed: Array,
        bias: Array | None,
        transposed: bool,
        threads: Threads,
    ) -> None:
        self.load, self.store = load, store
        self.size, self.pads, self.output_size = size, pads, output_size
        self.bias, self.threads = bias, threads
        self.cached = transformed.nbytes <= _CACHED_WEIGHT_BYTES
        self.dtype = transformed.dtype
        self.transformed = transformed.transpose(0, 2, 1) if transposed else transformed
        if self.cached:
            # Matrix products as small as a strip's are slower with a transposed factor; larger ones are not.
            self.transformed = np.ascontiguousarray(self.transformed)
        self.input_transform = (_B_FLIPPED if transposed else _B).astype(self.dtype)
        self.output_transform = (_A_FLIPPED if transposed else _A).astype(self.dtype)
        # The bias is one more term of the last product's sums: a pass over the output less.
        ones = np.ones((OUTPUTS, 0 if bias is None else 1), self.dtype)
        self.last_transform = np.hstack([self.output_transform, ones])

    def strip(self, block: _Block) -> None:
        """Take a block through all steps."""
        _, channels, filters = self.transformed.shape
        tiles = _tiles(block)
        inputs = self.threads.scratch("b", (TILE * TILE, tiles, channels), self.dtype)
        self.input_step(block, inputs)
        products = self.threads.scratch("a", (TILE * TILE, tiles, filters), self.dtype)
        np.matmul(inputs, self.transformed, out=products)
        self.output_step(block, products)

    def group(self, members: Sequence[_Block], tiles: int) -> None:
        """Take several blocks through the steps one after the other, so that each weight is read once."""
        _, channels, filters = self.transformed.shape
        inputs = self.threads.scratch("inputs", (TILE * TILE, tiles, channels), self.dtype)
        products = self.threads.scratch("products", (TILE * TILE, tiles, filters), self.dtype)
        ends = np.cumsum([_tiles(block) for block in members])
        parts = [(block, slice(end - _tiles(block), end)) for block, end in zip(members, ends.tolist(), strict=True)]

        def transform_input(part: tuple[_Block, slice]) -> None:
            block, where = part
            self.input_step(block, inputs[:, where])

        def multiply(place: int) -> None:
            np.matmul(inputs[place], self.transformed[place], out=products[place])

        def transform_output(part: tuple[_Block, slice]) -> None:
            block, where = part
            self.output_step(block, products[:, where])

        self.threads.map(transform_input, parts)
        self.threads.map(multiply, range(TILE * TILE))
        self.threads.map(transform_output, parts)

    def input_step(self, block: _Block, out: Array) -> None:
        """Write B^T d B of a block's tiles to ``out``, (36, tiles, C)."""
        y0, y1, x0, x1 = block
        channels = self.transformed.shape[1]
        top, left = y0 * OUTPUTS - self.pads[0], x0 * OUTPUTS - self.pads[1]
        height, width = (y1 - y0) * OUTPUTS + TAPS - 1, (x1 - x0) * OUTPUTS + TAPS - 1
        region = self.threads.scratch("region", (height, width, channels), self.dtype)
        # What of the region lies inside the image; the rest is padding.
        first_row, last_row = min(max(-top, 0), height), max(min(self.size[0] - top, height), 0)
        first, last = min(max(-left, 0), width), max(min(self.size[1] - left, width), 0)
        region[:first_row] = 0
        region[last_row:] = 0
        region[first_row:last_row, :first] = 0
        region[first_row:last_row, last:] = 0
        if first_row < last_row and first < last:
            self.load(
                slice(top + first_row, top + last_row),
                slice(left + first, left + last),
                region[first_row:last_row, first:last],
            )
        # d B first, tile by tile: a tile's columns overlap with its neighbors'. B^T then takes whole rows.
        across = x1 - x0
        down, along, item = region.strides
        patches = as_strided(region, (height, across, TILE, channels), (down, OUTPUTS * along, along, item))
        rows = self.threads.scratch("c", (TILE, height, across, channels), self.dtype)
        np.matmul(self.input_transform, patches, out=rows.transpose(1, 2, 0, 3))
        place, down = rows.strides[:2]
        columns = as_strided(rows, (TILE, y1 - y0, TILE, across * channels), (place, OUTPUTS * down, down, item))
        by_place = out.reshape(TILE, TILE, y1 - y0, -1, copy=False)
        np.matmul(self.input_transform, columns, out=by_place.transpose(1, 2, 0, 3))

    def output_step(self, block: _Block, products: Array) -> None:
        """Hand A^T m A plus bias of a block's tiles to ``store``; ``products`` is m, (36, tiles, K)."""
        y0, y1, x0, x1 = block
        filters = self.transformed.shape[2]
        by_place = products.reshape(TILE, TILE, -1, copy=False)
        terms = self.last_transform.shape[1]
        columns = self.threads.scratch("b", (OUTPUTS, terms, y1 - y0, x1 - x0, filters), self.dtype)
        of_places = columns.reshape(OUTPUTS, terms, -1, copy=False)[:, :TILE]
        np.matmul(self.output_transform, by_place.transpose(1, 0, 2), out=of_places.transpose(1, 0, 2))
        if self.bias is not None:
            columns[:, TILE] = self.bias
        image = self.threads.scratch("region", ((y1 - y0) * OUTPUTS, (x1 - x0) * OUTPUTS, filters), self.dtype)
        by_tile = image.reshape(y1 - y0, OUTPUTS, x1 - x0, OUTPUTS, filters, copy=False)
        np.matmul(self.last_transform, columns.transpose(0, 2, 3, 1, 4), out=by_tile.transpose(1, 0, 2, 3, 4))
        top, left = y0 * OUTPUTS, x0 * OUTPUTS
        bottom, right = min(y1 * OUTPUTS, self.output_size[0]), min(x1 * OUTPUTS, self.output_size[1])
        self.store(slice(top, bottom), slice(left, right), image[: bottom - top, : right - left])
