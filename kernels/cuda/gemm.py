"""Matrix products by a kernel of the project's own: they need no library."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.cuda.geometry import HALF_TILE, TILE, split_product
from kernels.cuda.launcher import Array, Launcher

STAGES = 3
"""Steps in shared memory at a time in gemm_pieces.cu and gemm_split.cu."""


def gemm(
    gpu: Launcher,
    a: Array,
    b: Array,
    output: Array,
    *,
    transpose_a: bool = False,
    factor: float = 1.0,
    add: bool = False,
    bias: Array | None = None,
    relu: bool = False,
) -> Array:
    """Write ``factor * a @ b`` to ``output``, or add it there, and return ``output``.

    Products and sums are in single precision, where ``gpu.splits_products`` on tensor cores; but b in float32 is
    rounded to tf32 (11 bits) where a is float16 and tensor cores multiply the two. Sums over more than
    ``geometry.MOST_PART`` values are put together from parts in double precision.

    Parameters
    ----------
    a : (m, k), or (k, m) with ``transpose_a``; float32 or float16.
    b : (k, n), float32 or float16.
    output : (m, n), float32 or float16.
    bias : (n,), float32, added to every row, or None.
    relu : apply max(x, 0) at the end.
    """
    rows, inner = a.shape[::-1] if transpose_a else a.shape
    columns = b.shape[1]
    if b.shape[0] != inner or output.shape != (rows, columns) or (bias is not None and bias.shape != (columns,)):
        raise ValueError(f"a product of {a.shape} and {b.shape} does not fit {output.shape}")
    # Of Turing's tensor cores, which take smaller fragments, there is no use here.
    of_floats = gpu.splits_products and _whole_pieces(a, b) and a.dtype == b.dtype == output.dtype == np.float32
    tensor_cores = a.dtype == np.float16 and gpu.capability >= (8, 0)
    pieces = _in_pieces(a, b, transpose_a) if tensor_cores else None
    halves = tensor_cores and b.dtype == np.float16
    grid, part = split_product(rows, columns, inner, HALF_TILE if pieces or halves else TILE)
    splits = grid[2]
    target = output if splits == 1 else gpu.empty((splits, rows, columns), np.float32)
    shape = (rows, columns, inner, part)
    # Where there is no bias, any array does: it is not read.
    nothing = gpu.empty((1,), np.float32) if bias is None else bias
    finish = (factor, int(add), nothing, int(bias is not None), int(relu))
    last = finish if splits == 1 else (1.0, 0, nothing, 0, 0)
    arguments = (a, b, target, *shape, int(transpose_a), *last)
    types = {"REAL": a.dtype, "OTHER": b.dtype, "OUTPUT": target.dtype}
    if of_floats:
        name, of_pieces = f"gemm_split_{'gram' if transpose_a else 'plain'}", (a, b, target, *shape, *last)
        gpu.launch("gemm_split.cu", name, grid, (256, 1, 1), of_pieces, STAGES * 4 * TILE[2] * (TILE[0] + TILE[1]))
    elif pieces:
        file, of_pieces, memory = "gemm_pieces.cu", (a, b, target, *shape, *last), shared_bytes(b.dtype.itemsize)
        gpu.launch(file, pieces, grid, (256, 1, 1), of_pieces, memory, OUTPUT=target.dtype)
    elif halves:
        gpu.launch("gemm_half.cu", "gemm_half", grid, (256, 1, 1), arguments, OUTPUT=target.dtype)
    else:
        gpu.launch("gemm.cu", "gemm", grid, (256, 1, 1), arguments, **types)
    if splits > 1:
        sum_of_parts(gpu, target, output, finish)
    return output


def sum_of_parts(
    gpu: Launcher, parts: Array, output: Array, finish: tuple[Any, ...], mask: Array | None = None
) -> None:
    """Add up the parts of a product, and bring it to an end.

    Parameters
    ----------
    parts : (splits, rows, columns), float32.
    output : as many values, columns fastest.
    finish : factor, whether to add, bias, whether there is one, whether max(x, 0) is applied, as the kernel takes them.
    mask : from ``relu_mask`` of an array like ``output``: where its bit is 0, so is the result.
    """
    splits, columns = parts.shape[0], output.shape[-1]
    # Where there is no mask, any array does: it is not read.
    masks = gpu.empty((1,), np.uint8) if mask is None else mask
    arguments = (parts, output, output.size, columns, splits, *finish, masks, int(mask is not None))
    types = {"REAL": np.float32, "OTHER": np.float32, "OUTPUT": output.dtype}
    gpu.launch_for_each("gemm.cu", "sum_of_parts", output.size, arguments, **types)


def shared_bytes(b_itemsize: int) -> int:
    """Return the dynamic shared memory of a block of gemm_pieces.cu."""
    rows, columns, inner = HALF_TILE
    return STAGES * inner * (2 * rows + b_itemsize * columns)


def _in_pieces(a: Array, b: Array, transpose_a: bool) -> str | None:
    """Return the kernel of gemm_pieces.cu for a product with a in float16, or None where it has none.

    It copies whole pieces of 16 bytes of the arrays' rows.
    """
    if not _whole_pieces(a, b):
        return None
    if b.dtype == np.float16:
        return "gemm_pieces_gram" if transpose_a else "gemm_pieces_plain"
    return None if transpose_a else "gemm_pieces_mixed"


def _whole_pieces(a: Array, b: Array) -> bool:
    """Say whether rows of both factors are whole pieces of 16 bytes."""
    return not (a.shape[1] * a.dtype.itemsize % 16 or b.shape[1] * b.dtype.itemsize % 16)
