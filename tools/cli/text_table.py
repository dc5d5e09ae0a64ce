"""Tables as text and as Markdown."""

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
    sides = _of_each(alignment, len(widths))
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


def markdown(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Return the lines of a table in Markdown.

    Parameters
    ----------
    rows : the header, then the others.
    alignment : as in ``aligned``.
    """
    header, *others = rows
    rule = ["---" if side == "<" else "---:" for side in _of_each(alignment, len(header))]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *others)]


def _of_each(alignment: str, columns: int) -> str:
    return alignment.ljust(columns, alignment[-1])
