"""What a sweep has on the disk, by which it goes on where it was."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.media.files import (
    UNFINISHED,
    check_folder,
    check_writable,
    creating,
    make_folder,
    remove_unfinished,
    sha256_of,
    write_text,
)
from tools.media.grid import Grid, Record
from tools.media.record import PROJECT, fits, parsed_json, versions
from tools.media.saving import save_image
from tools.sweep.axes import Axis, file_names
from tools.sweep.cells import Cell, Outcome

PLAN = "sweep.json"

LONGEST = 60
"""Characters of a difference that are shown."""

_STANDING = {name: {"content": {str: float}, "style": {str: float}} for name in ("terms", "loss_shares")}
_STANDING["gradient_shares"] = _STANDING["terms"]
_FACTS = {
    **dict.fromkeys(("loss", "initial_loss", "content_weight", "seconds"), float),
    **dict.fromkeys(("iterations", "evaluations"), int),
    **dict.fromkeys(("stop", "stop_reason"), str),
    "terms": [str],
    "curve": [[float]],
}


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
        check_folder(path)
        self._plan_there = self._plan
        if (path / PLAN).exists():
            self._take(_json(path / PLAN))
        elif path.is_dir() and any(not file.name.startswith(UNFINISHED) for file in path.iterdir()):
            raise ValueError(f"{str(path)!r} has other files in it: give another --output")

    def claim(self) -> None:
        """Make the folder, and note in it what it is for.

        What is noted there of cells that are yet to be made is brought up to date. Raises ValueError when another sweep
        has claimed the folder since it was looked at.
        """
        make_folder(self.path)
        plan = self.path / PLAN
        # The plan comes first, and whole: a sweep killed before it leaves nothing that would keep others away.
        if not plan.exists():
            with contextlib.suppress(FileExistsError), creating(plan) as temporary:
                temporary.write_text(json.dumps(self._plan), "utf-8")
        found = _json(plan)
        self._take(found)
        if self._plan_there != found:
            write_text(plan, json.dumps(self._plan_there))
        make_folder(self.path / "cells")
        for folder in (self.path, self.path / "cells"):
            remove_unfinished(folder)
        for path in (self.path / "sheet.png", self._file(next(iter(self.cells)), ".png")):
            check_writable(path)

    def record(self, key: tuple[int, int]) -> Record | None:
        """Return what came of a cell, or None where it is yet to be made."""
        return self._recorded(key, self.cells[key].settings())

    def _recorded(self, key: tuple[int, int], settings: Mapping[str, Any]) -> Record | None:
        # Before cells were called by their settings they were by row and column.
        return self._record(self._name(key), settings) or self._record(self._place(key), settings)

    def _record(self, name: str, settings: Mapping[str, Any]) -> Record | None:
        found = _json(self.path / "cells" / f"{name}.json")
        if not isinstance(found, dict) or _by_content(found.get("settings")) != _by_content(settings):
            return None
        facts: Any = found.get("facts")
        failed = found.get("failed")
        if isinstance(failed, str):
            return Record(None, facts, settings, failed) if fits(facts, {"seconds": float}) else None
        picture = self.path / "cells" / f"{name}.png"
        # A file that was damaged or exchanged is not the cell's picture, nor are its facts what came of the cell.
        if failed is not None or not _are_facts(facts) or not picture.is_file():
            return None
        return Record(picture, facts, settings, None) if found.get("sha256") == sha256_of(picture) else None

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
        return self.path / "cells" / (self._name(key) + suffix)

    def _name(self, key: tuple[int, int]) -> str:
        """Return what a cell's files are called: ``seed=1,content-weight=1e-3``.

        The plan's labels count, as they were when the sweep began: its files may be called otherwise now.
        """
        axes = (self._plan_there[part] for part in ("rows", "columns"))
        parts = [file_names(axis["axis"], tuple(axis["labels"]))[index] for axis, index in zip(axes, key, strict=True)]
        return ",".join(filter(None, parts)) or "picture"

    def _place(self, key: tuple[int, int]) -> str:
        digits = [len(str(len(axis.values))) for axis in (self.rows, self.columns)]
        return "-".join(f"{index + 1:0{count}d}" for index, count in zip(key, digits, strict=True))

    def _take(self, found: Any) -> None:
        """Go on with the plan that is there; raises ValueError, with the first difference, where it is another sweep's.

        Labels and files' names may differ, as long as they stand for the same. So may the files of a cell that is yet
        to be made: one that could not be read has been mended.
        """
        problem, advice = f"{str(self.path)!r} holds another sweep", "give another --output"
        damaged = f"{problem}, or a damaged one ({PLAN} cannot be read): {advice}"
        try:
            axes = {part: _axis_text(found[part]) for part in ("rows", "columns")}
            shape = [len(found[part]["labels"]) for part in axes]
            cells = [_by_content(cell) for cell in found["cells"]]
            plain = [part for axis in (found["rows"], found["columns"]) for part in (axis["axis"], *axis["labels"])]
        except (LookupError, TypeError):
            raise ValueError(damaged) from None
        if not fits(plain, [str]) or None in cells or len(cells) != math.prod(shape):
            raise ValueError(damaged)
        others = []
        if shape == [len(self.rows.values), len(self.columns.values)]:
            self._plan_there = found
            pairs = zip(self.cells, found["cells"], self._plan["cells"], strict=True)
            changed = [(key, there, own) for key, there, own in pairs if _by_content(there) != _by_content(own)]
            others = [
                (there, own)
                for key, there, own in changed
                if _but_files(there) != _but_files(own) or self._is_made(key, there)
            ]
            if not others:
                if changed:
                    self._plan_there = {**found, "cells": self._plan["cells"]}
                return
        for part, text in axes.items():
            if found[part] != self._plan[part]:
                difference = _there_and_here(text, _axis_text(self._plan[part]))
                raise ValueError(f"{problem}, its {part} are others ({difference}): {advice}")
        raise ValueError(f"{problem} ({_difference(*others[0])}): {advice}")

    def _is_made(self, key: tuple[int, int], settings: Mapping[str, Any]) -> bool:
        record = self._recorded(key, settings)
        return record is not None and record.failed is None


def _by_content(settings: Any) -> dict[str, Any] | None:
    """Return a cell's settings without the names of files, which their SHA-256 stands for; None for what are none."""
    if not isinstance(settings, dict) or not isinstance(settings.get("files"), dict):
        return None
    names = {"model", "init"} & settings["files"].keys()
    return {name: value for name, value in settings.items() if name not in names}


def _but_files(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's settings without what they say of its files."""
    return {name: value for name, value in settings.items() if name not in ("files", *settings["files"])}


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return the first difference between two cells' settings that are not the same by content."""
    common = [part for part in here["files"] if part in there["files"]]
    for part in common:
        if there["files"][part] != here["files"][part]:
            return f"another file for {part}"
    for name in {**here, **there}:
        if name not in ("files", *common) and there.get(name) != here.get(name):
            values = (json.dumps(settings.get(name)) for settings in (there, here))
            return f"{name.replace('_', '-')} {_there_and_here(*values)}"
    return "other files"


def _are_facts(facts: Any) -> bool:
    """Tell whether facts are those of a cell that was made: whole, and each of its kind."""
    if not fits(facts, _FACTS):
        return False
    standings = [facts[when] for when in ("start", "end") if facts.get(when) is not None]
    return (
        all(fits(standing, _STANDING) for standing in standings)
        and all(" " in name for name in facts["terms"])
        and all(len(point) == 2 + len(facts["terms"]) for point in facts["curve"])
    )


def _axis_text(axis: Mapping[str, Any]) -> str:
    return f"{axis['axis']}={','.join(axis['labels'])}" if axis["axis"] else "none"


def _there_and_here(there: str, here: str) -> str:
    """Return both texts, of long ones the part in which they differ."""
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(there, here, strict=False)))
    first = max(0, min(same - LONGEST // 2, max(len(there), len(here)) - LONGEST))

    def part(text: str) -> str:
        shown = text[first : first + LONGEST]
        return f"{'...' if first else ''}{shown}{'...' if len(text) > first + LONGEST else ''}"

    return f"{part(there)} there, {part(here)} here"


def _json(path: Path) -> Any:
    """Return what a file holds, or None where it is missing or damaged."""
    try:
        return parsed_json(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
