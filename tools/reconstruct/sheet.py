"""One sheet of all pictures, as in the paper's Figure 1: a row for content, a row for style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.media.images import load_image
from tools.media.sheet import Tile, draw_sheet
from tools.reconstruct.folder import finished
from tools.reconstruct.table import measures
from tools.reconstruct.target import KINDS, Target


def draw(
    targets: Sequence[Target],
    found: Mapping[Target, Mapping[str, Any]],
    failed: Mapping[Target, str],
    layers: Sequence[str],
    folder: Path,
    original: Tile,
    subject: str,
) -> NDArray[np.uint8]:
    """Return the pixels of the sheet, (H, W, 3).

    Parameters
    ----------
    targets, found, failed : as in ``tools.reconstruct.table.table``.
    layers : all of the model, by depth.
    folder : where the pictures are.
    original : stands before each row.
    subject : what the title calls the pictures of.
    """
    columns = sheet_columns(targets, layers)
    kinds = [kind for kind in KINDS if any(target.kind == kind for target in targets)]
    rows = []
    for kind in kinds:
        row = [original]
        for label, places in columns:
            target = places.get(kind)
            if target is None:
                row.append(Tile(reason="not asked for"))
            elif target not in found:
                row.append(Tile(None, _name(target, label), failed.get(target, "not made yet")))
            else:
                row.append(_tile(target, label, found[target], folder))
        rows.append(row)
    labels = ["original", *(label for label, _ in columns)]
    return draw_sheet(rows, kinds, labels, f"{' and '.join(kinds)} of {subject}")


def sheet_columns(targets: Sequence[Target], layers: Sequence[str]) -> list[tuple[str, dict[str, Target]]]:
    """Return the sheet's columns: label, and target by kind.

    A set stands below its deepest layer's column, as in the paper; where that would put two into one place, the targets
    stand in the order in which they were asked for.
    """
    depth = {layer: index for index, layer in enumerate(layers)}
    places: dict[int, dict[str, Target]] = {}
    for target in targets:
        places.setdefault(max(depth[layer] for layer in target.layers), {})[target.kind] = target
    if sum(map(len, places.values())) == len(targets):
        return [(f"({_letter(number)}) {layers[index]}", places[index]) for number, index in enumerate(sorted(places))]
    rows = [[target for target in targets if target.kind == kind] for kind in KINDS]
    return [
        (f"({_letter(number)})", {row[number].kind: row[number] for row in rows if number < len(row)})
        for number in range(max(map(len, rows)))
    ]


def _tile(target: Target, column: str, facts: Mapping[str, Any], folder: Path) -> Tile:
    name = [one for one in (_name(target, column),) if one]
    end = [] if finished(facts) else [f"{facts['stop']} after {facts['iterations']} iterations"]
    return Tile(load_image(folder / target.file), "\n".join([*name, *measures(target, facts), *end]))


def _name(target: Target, column: str) -> str:
    """Return what a picture is called below the name of its column, nothing where that says it."""
    return "" if column.endswith(f" {target.label}") else target.label


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else str(number + 1)
