"""How work is cut into blocks, threads and chunks: integers only."""

from __future__ import annotations

THREADS = 256
"""Threads of a block of the element-wise kernels and of the sums (``SUM_THREADS`` in prelude.cu)."""

MOST_VALUES = 1 << 31
"""Kernels count values in 32 bits."""

MOST_PARTS = 512
"""Blocks of a sum at most: enough to fill a card, few enough for one block to add up their parts."""

CHUNK_BYTES = 32 << 20
"""Patches of a convolution that are made at a time: they should stay in a second-level cache (50 MB on Hopper)."""

CHUNK_PIXELS = 8192
"""Outputs of a chunk at least: fewer rows of a matrix product do not fill a card."""

Size = tuple[int, int, int]


def one_thread_each(count: int) -> tuple[Size, Size]:
    """Return grid and block with at least one thread for each of ``count`` values."""
    if not 1 <= count <= MOST_VALUES:
        raise ValueError(f"an array of {count} values is too large for the kernels, they take {MOST_VALUES} at most")
    return (-(-count // THREADS), 1, 1), (THREADS, 1, 1)


def parts_of_sum(count: int) -> int:
    """Return how many blocks add up ``count`` values: at least 16 values a thread, unless there are too many."""
    return min(MOST_PARTS, -(-count // (16 * THREADS)))


def chunk_rows(rows: int, columns: int, bytes_a_pixel: int) -> int:
    """Return how many rows of outputs go into one chunk of patches.

    Parameters
    ----------
    rows, columns : of all outputs.
    bytes_a_pixel : of the patches of one output.
    """
    pixels = max(CHUNK_BYTES // bytes_a_pixel, CHUNK_PIXELS)
    return min(rows, max(1, pixels // columns))


TILE = (128, 64, 16)
"""Rows, columns and inner values of a tile in gemm.cu."""

HALF_TILE = (128, 64, 32)
"""The same in gemm_half.cu."""

FILLING_BLOCKS = 264
"""Blocks of a product that keep a large card busy: two for each of an H100's 132 multiprocessors."""

LEAST_PART = 512
"""Inner values of a part of a product at least: below, the parts' sums cost more than the idle multiprocessors."""

MOST_PART = 8192
"""Inner values of a part at most: single precision loses digits in a longer sum."""


def split_product(rows: int, columns: int, inner: int, tile: Size = TILE) -> tuple[Size, int]:
    """Return the grid of a product by tiles and the length of a part of the inner dimension, a multiple of the tile's.

    It is split where its tiles are too few for a card, or where it is so long that a sum in single precision would
    lose digits.
    """
    tile_rows, tile_columns, tile_inner = tile
    down, across = -(-rows // tile_rows), -(-columns // tile_columns)
    wanted = max(1, min(FILLING_BLOCKS // (down * across), inner // LEAST_PART), -(-inner // MOST_PART))
    length = -(-inner // wanted)
    part = -(-length // tile_inner) * tile_inner
    return (down, across, -(-inner // part)), part
