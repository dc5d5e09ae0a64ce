"""The results of the first run: a page of all, and at most 100 lines for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.bench.first_run.running import Entry
from tools.bench.first_run.steps import STEPS
from tools.cli import text_table
from tools.media.files import write_text

MOST_LINES = 100

PAGE, NUMBERS = "first_run.md", "first_run.json"

_SORTED = {"compile": "seconds", "kernels": "distance", "hopper": "distance", "layers": "back ms"}
"""The column of which a step's largest are shown."""

_MOST_CHARACTERS = 90


def write(folder: Path, date: str, found: Mapping[str, Sequence[Entry]]) -> None:
    """Write what has been found so far, as a page and as numbers."""
    facts = {"date": date, "steps": {name: list(entries) for name, entries in found.items()}}
    write_text(folder / NUMBERS, json.dumps(facts, indent=2) + "\n")
    parts = ["# The first run on a GPU", "", date]
    for name, entries in found.items():
        parts += ["", f"## {STEPS[name].title}", "", f"{_summary(entries)}.", ""]
        header, rows = _table(entries)
        parts += text_table.markdown([header, *rows], "<" * len(header)) if rows else []
        told = dict.fromkeys(line for entry in entries for line in entry.get("warnings", ()))
        parts += ["", *(f"- warning: {line}" for line in told)] if told else []
    write_text(folder / PAGE, "\n".join(parts) + "\n")


def printed(folder: Path, found: Mapping[str, Sequence[Entry]]) -> str:
    """Return the table for the terminal, of at most ``MOST_LINES``."""
    lines = []
    for name, entries in found.items():
        lines.append(f"{STEPS[name].title}: {_summary(entries)}")
        header, rows = _table(entries, _SORTED.get(name))
        if rows:
            shown = [[cell[:_MOST_CHARACTERS] for cell in row] for row in [header, *rows[: STEPS[name].shown]]]
            lines += [f"  {line}" for line in text_table.aligned(shown, "<")]
    lines.append(f"all of it: {folder / PAGE}")
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 2], "...", lines[-1]]
    return "\n".join(lines)


def _summary(entries: Sequence[Entry]) -> str:
    """Return how many items ended how, and what they took."""
    states = [entry["state"] for entry in entries]
    counts = {state: states.count(state) for state in ("done", "wrong", "failed", "left out") if state in states}
    seconds = sum(entry.get("seconds", 0.0) for entry in entries)
    return ", ".join([*(f"{count} {state}" for state, count in counts.items()), f"{seconds:.0f} s"])


def _table(entries: Sequence[Entry], key: str | None = None) -> tuple[list[str], list[list[str]]]:
    """Return header and rows; what is not done comes first, then, with a key, what is largest in it."""
    flat: list[tuple[Entry, Mapping[str, Any]]] = []
    for entry in entries:
        flat += [(entry, row) for row in entry.get("rows") or [{}]]
    flat.sort(key=lambda pair: (pair[0]["state"] == "done", -float(pair[1].get(key, 0)) if key else 0.0))
    columns = list(dict.fromkeys(column for _, row in flat for column in row))
    notes = any(entry["state"] != "done" for entry, _ in flat)
    header = ["", *columns, *(["state"] if notes else [])]
    rows = []
    for entry, row in flat:
        note = ": ".join(filter(None, [entry["state"], entry.get("reason")])) if entry["state"] != "done" else ""
        rows.append([entry["item"], *(_cell(row.get(column, "")) for column in columns), *([note] if notes else [])])
    return header, rows


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1e5 else f"{value:.4g}"
    return str(value).replace("|", "/")
