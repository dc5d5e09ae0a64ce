"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Return rows of equally many cells as lines, each column as wide as its widest cell.

    Parameters
    ----------
    rows : the header, where there is one, before the others.
    alignment : ``<`` for a column to the left, ``>`` for one to the right; the last one counts for all further columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = alignment.ljust(len(widths), alignment[-1])
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
