"""What comes of a sweep side by side: the contact sheet, and tables for people and for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.multiscale import fit
from tools.media.grid import Grid, Record
from tools.media.images import load_image
from tools.media.picture import resize
from tools.media.sheet import MAX_SIDE, MIN_TILE, Tile, draw_sheet
from tools.sweep.axes import number_label


def contact_sheet(grid: Grid) -> NDArray[np.uint8]:
    """Return all pictures side by side, labeled, (H, W, 3)."""
    # Read at the size that they have on the sheet: there may be thousands.
    side = max(MIN_TILE, MAX_SIDE // max(len(grid.rows), len(grid.columns)))

    def tile(record: Record | None) -> Tile:
        if record is None:
            return Tile(reason="not made yet")
        if record.picture is None:
            return Tile(reason=f"failed: {record.failed}")
        try:
            picture = load_image(record.picture)
        except ValueError as error:
            return Tile(reason=str(error))
        if max(picture.size) > side:
            picture = resize(picture, *fit(*picture.size, side))
        return Tile(picture, caption(record))

    rows, columns = range(len(grid.rows)), range(len(grid.columns))
    tiles = [[tile(grid.records.get((row, column))) for column in columns] for row in rows]
    return draw_sheet(
        tiles, grid.rows, grid.columns, title=grid.title, row_axis=grid.row_name, column_axis=grid.column_name
    )


def caption(record: Record) -> str:
    """Return what stands below a picture."""
    facts = record.facts
    text = "loss " + number_label(float(f"{facts['loss']:.3g}"))
    share = content_share(facts, "end", "loss")
    if share != "":
        text += f", content {share:.0%}"
    return text if facts["stop"] == "iterations" else f"{text}, {facts['stop']}"


def entries(grid: Grid) -> list[dict[str, Any]]:
    """Return everything about each cell that has been made or has failed, as JSON knows it."""
    return [
        {
            "row": grid.rows[row],
            "column": grid.columns[column],
            "picture": None if record.picture is None else f"cells/{record.picture.name}",
            "failed": record.failed,
            "settings": record.settings,
            **record.facts,
        }
        for (row, column), record in sorted(grid.records.items())
    ]


def table(grid: Grid) -> str:
    """Return a line of comma-separated values for each cell that has been made or has failed."""
    terms = list(dict.fromkeys(name for record in grid.records.values() for name in record.facts.get("terms", [])))
    plain = ("loss", "initial_loss", "content_weight", "iterations", "evaluations", "seconds", "stop", "stop_reason")
    ends = [
        f"content's share of the {what} at the {when}" for what in ("loss", "gradient") for when in ("start", "end")
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([grid.row_name or "row", grid.column_name or "column", "picture", "failed", *plain, *ends, *terms])
    for (row, column), record in sorted(grid.records.items()):
        facts = record.facts
        shares = [content_share(facts, when, what) for what in ("loss", "gradient") for when in ("start", "end")]
        weighted = (facts.get("end") or {}).get("terms", {})
        values = [weighted.get(kind, {}).get(layer, "") for kind, layer in (name.split(" ", 1) for name in terms)]
        picture = "" if record.picture is None else f"cells/{record.picture.name}"
        writer.writerow(
            [grid.rows[row], grid.columns[column], picture, record.failed or ""]
            + [facts.get(name, "") for name in plain]
            + shares
            + values
        )
    return text.getvalue()


def content_share(facts: Mapping[str, Any], when: str, what: str) -> float | str:
    """Return what part the content has in the ``"loss"`` or the ``"gradient"``, at the ``"start"`` or the ``"end"``.

    "" where that was not measured.
    """
    standing = facts.get(when)
    return sum(standing[f"{what}_shares"]["content"].values()) if standing else ""
