"""A grid of pictures and what came of each, as sheets, pages, plots and tables show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Record:
    """What came of one cell.

    Parameters
    ----------
    picture : the PNG file, or None where there is none.
    facts : ``loss``, ``initial_loss``, ``content_weight``, ``iterations``, ``evaluations``, ``stop``, ``stop_reason``,
        ``seconds``; ``start`` and ``end`` (None for a loss that became infinite), each with ``terms`` (weighted),
        ``loss_shares`` and ``gradient_shares``, all three ``{"content": {layer: value}, "style": {layer: value}}``;
        ``terms``, the names of the curve's last columns (``"content conv4_2"``, ``"style conv1_1"``, ...), and
        ``curve``, of each iteration the evaluations so far, the loss and the weighted terms. Of a failed cell
        ``seconds`` only.
    settings : everything that the picture depends on.
    failed : the reason, or None.
    """

    picture: Path | None
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    failed: str | None


@dataclass(frozen=True)
class Grid:
    """The pictures of a sweep.

    Parameters
    ----------
    title : of the whole.
    row_name, column_name : what changes from row to row and from column to column; "" where there is only one.
    rows, columns : labels.
    records : by (row, column), each from 0; a cell that has not been made yet is left out.
    """

    title: str
    row_name: str
    column_name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    records: Mapping[tuple[int, int], Record]
