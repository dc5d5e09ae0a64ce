"""Matrix products by a kernel of the project's own: they need no library."""

from __future__ import annotations

import numpy as np

from kernels.cuda import runtime
from kernels.cuda.geometry import HALF_TILE, TILE, split_product
from kernels.cuda.runtime import Array


def product(
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

    Products and sums are in single precision; sums over more than ``geometry.MOST_PART`` values are put together from
    parts in double precision.

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
    # The tensor cores take 16-bit factors; of Turing's, which take smaller pieces, there is no use here.
    halves = a.dtype == np.float16 and b.dtype == np.float16 and runtime.backend().capability >= (8, 0)
    grid, part = split_product(rows, columns, inner, HALF_TILE if halves else TILE)
    splits = grid[2]
    target = output if splits == 1 else runtime.empty((splits, rows, columns), np.float32)
    shape = (rows, columns, inner, part, int(transpose_a))
    # Where there is no bias, any array does: it is not read.
    nothing = runtime.empty((1,), np.float32) if bias is None else bias
    finish = (factor, int(add), nothing, int(bias is not None), int(relu))
    last = finish if splits == 1 else (1.0, 0, nothing, 0, 0)
    arguments = (a, b, target, *shape, *last)
    types = {"REAL": a.dtype, "OTHER": b.dtype, "OUTPUT": target.dtype}
    if halves:
        runtime.launch("product_half.cu", "product_half", grid, (256, 1, 1), arguments, OUTPUT=target.dtype)
    else:
        runtime.launch("product.cu", "product", grid, (256, 1, 1), arguments, **types)
    if splits > 1:
        count = rows * columns
        types["OUTPUT"] = output.dtype
        runtime.launch_for_each(
            "product.cu", "sum_of_parts", count, (target, output, count, columns, splits, *finish), **types
        )
    return output
