"""What a sweep has on the disk, by which it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.download import sha256_of
from tools.files import make_folder, replacing
from tools.images import save_image
from tools.record import PROJECT, versions
from tools.sweeping.axes import Axis
from tools.sweeping.cells import Cell, Outcome
from tools.sweeping.grid import Grid, Record

PLAN = "sweep.json"


class Folder:
    """What a sweep has on the disk: the plan, a picture and a record for each cell that has been made."""

    def __init__(self, path: Path, rows: Axis, columns: Axis, cells: Mapping[tuple[int, int], Cell]) -> None:
        self.path = path
        self.rows = rows
        self.columns = columns
        self.cells = cells
        self._plan: dict[str, Any] = {
            "rows": {"axis": rows.name, "labels": list(rows.labels)},
            "columns": {"axis": columns.name, "labels": list(columns.labels)},
            "cells": [cell.settings() for cell in cells.values()],
        }
        if path.exists() and not path.is_dir():
            raise ValueError(f"cannot write to {str(path)!r}: it is a file, give a folder")
        if (path / PLAN).exists():
            self._check_same(_json(path / PLAN))
        elif path.is_dir() and any(path.iterdir()):
            raise ValueError(f"{str(path)!r} has other files in it: give another --output")

    def claim(self) -> None:
        """Make the folder, and note in it what it is for."""
        make_folder(self.path / "cells")
        if not (self.path / PLAN).exists():
            write_text(self.path / PLAN, json.dumps(self._plan))

    def record(self, key: tuple[int, int]) -> Record | None:
        """Return what came of a cell, or None where it is yet to be made."""
        found = _json(self._file(key, ".json"))
        settings = self.cells[key].settings()
        if not isinstance(found, dict) or found.get("settings") != settings or not isinstance(found.get("facts"), dict):
            return None
        failed = found.get("failed")
        if failed is not None:
            return Record(None, found["facts"], settings, str(failed))
        picture = self._file(key, ".png")
        # A file that was damaged or exchanged is not the cell's picture.
        if not picture.is_file() or found.get("sha256") != sha256_of(picture):
            return None
        return Record(picture, found["facts"], settings, None)

    def save(self, key: tuple[int, int], outcome: Outcome) -> None:
        """Keep what came of a cell; the record is written last and says that the cell is done."""
        settings = self.cells[key].settings()
        if outcome.image is not None:
            result = {name: value for name, value in outcome.facts.items() if name not in ("seconds", "curve", "terms")}
            text = {
                "Software": PROJECT,
                "Settings": json.dumps(settings),
                "Versions": json.dumps(versions()),
                "Result": json.dumps(result),
            }
            save_image(self._file(key, ".png"), outcome.image, outcome.alpha, text)
        sha256 = None if outcome.image is None else sha256_of(self._file(key, ".png"))
        record = {"settings": settings, "failed": outcome.failed, "sha256": sha256, "facts": outcome.facts}
        write_text(self._file(key, ".json"), json.dumps(record))

    def grid(self, title: str) -> Grid:
        """Return what there is."""
        records = {key: record for key in self.cells if (record := self.record(key)) is not None}
        row_name = self.rows.name if len(self.rows.values) > 1 else ""
        column_name = self.columns.name if len(self.columns.values) > 1 else ""
        return Grid(title, row_name, column_name, self.rows.labels, self.columns.labels, records)

    def _file(self, key: tuple[int, int], suffix: str) -> Path:
        digits = [len(str(len(axis.values))) for axis in (self.rows, self.columns)]
        name = "-".join(f"{index + 1:0{count}d}" for index, count in zip(key, digits, strict=True))
        return self.path / "cells" / (name + suffix)

    def _check_same(self, found: Any) -> None:
        problem = f"{str(self.path)!r} holds another sweep"
        if not isinstance(found, dict):
            raise ValueError(f"{problem}, or a damaged one ({PLAN} cannot be read): give another --output")
        for part in ("rows", "columns"):
            if found.get(part) != self._plan[part]:
                raise ValueError(f"{problem}, its {part} are others: give another --output")
        cells = found.get("cells")
        if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
            raise ValueError(f"{problem}, or a damaged one ({PLAN} cannot be read): give another --output")
        for there, here in zip(cells, self._plan["cells"], strict=False):
            for name, value in here.items():
                if there.get(name) != value:
                    raise ValueError(
                        f"{problem} ({name.replace('_', '-')} {_short(there.get(name))} there, {_short(value)} here): "
                        "give another --output"
                    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _json(path: Path) -> Any:
    """Return what a file holds, or None where it is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary:
        # What Unicode cannot encode, the stray bytes of a file name, is written as an escape.
        temporary.write_text(text, "utf-8", errors="backslashreplace")
