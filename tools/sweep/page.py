"""The page of a sweep: one HTML file with its pictures, their facts and their losses, that needs no other file."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.multiscale import fit
from tools.media.grid import Grid, Record
from tools.media.images import load_image
from tools.media.picture import resize
from tools.media.record import finite
from tools.media.saving import encoded_image

STYLE, SCRIPT = (Path(__file__).with_name(name).read_text("utf-8") for name in ("page.css", "page.js"))

MOST_BYTES = 40_000_000
"""Pictures of more than this together are embedded as reduced JPEGs: browsers are slow with pages of that size."""

MOST_NUMBERS = 1_000_000
"""Of the curves of all cells; of longer ones the lowest and the highest losses are kept."""


def sweep_page(grid: Grid) -> str:
    """Return a sweep as one HTML page, the same each time for the same cells.

    The labeled pictures open large beside their facts, and from there the neighbors can be reached: two settings can
    be compared in place. Below are the losses of all cells.

    Parameters
    ----------
    grid : what came of the cells so far; their pictures are read.

    Raises ValueError when a picture cannot be read.
    """
    pictures = {place: record.picture for place, record in grid.records.items() if record.picture is not None}
    side = _reduced_side(list(pictures.values()))
    common, differing = _compared({place: _settings_of(record) for place, record in grid.records.items()})
    numbers = sum(len(point) for record in grid.records.values() for point in record.facts.get("curve") or ())
    data = {
        "title": grid.title,
        "rowName": grid.row_name,
        "columnName": grid.column_name,
        "rows": list(grid.rows),
        "columns": list(grid.columns),
        "common": list(common.items()),
        "cells": [
            {
                "row": row,
                "column": column,
                "file": record.picture.name if record.picture is not None else None,
                "failed": record.failed,
                "differing": list(differing[row, column].items()),
                **_facts(record, min(1.0, MOST_NUMBERS / max(numbers, 1))),
            }
            for (row, column), record in sorted(grid.records.items())
        ],
    }
    notes = [_summary(grid)]
    if side is not None:
        notes.append(f"The pictures together are large: here they are reduced to at most {side} pixels.")
    if numbers > MOST_NUMBERS:
        notes.append("Of the many losses, the lowest and highest are kept, so that every rise can be seen.")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing but this file: the browser holds the page to it.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{_escaped(grid.title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{_escaped(grid.title)}</h1>{''.join(f'<p>{_escaped(note)}</p>' for note in notes)}"
        f"<noscript><p>Zoom, facts and curves need JavaScript.</p></noscript>"
        f"{_table(grid, pictures, side)}{_overview(grid)}{_settings(common)}{_VIEWER}"
        f'<script type="application/json" id="data">{_json(data)}</script><script>{SCRIPT}</script></body></html>\n'
    )


# ---- the parts of the page ----


def _summary(grid: Grid) -> str:
    total = len(grid.rows) * len(grid.columns)
    failed = sum(record.failed is not None for record in grid.records.values())
    parts = [f"{len(grid.records) - failed} of {total} pictures made"]
    if failed:
        parts.append(f"{failed} failed")
    if len(grid.records) < total:
        parts.append(f"{total - len(grid.records)} not made yet")
    ways = ((grid.row_name, "row to row"), (grid.column_name, "column to column"))
    axes = [f"{name} from {way}" for name, way in ways if name]
    return ", ".join(parts) + (f"; {' and '.join(axes)}." if axes else ".")


def _table(grid: Grid, pictures: Mapping[tuple[int, int], Path], side: int | None) -> str:
    tile = min(max(1200 // len(grid.columns), 110), 320) if grid.columns else 320
    with_labels = bool(grid.row_name) or any(grid.rows)
    head = "".join(f'<th scope="col">{_label(grid.column_name, label)}</th>' for label in grid.columns)
    if not grid.column_name and not any(grid.columns):
        head = ""
    elif with_labels:
        head = f'<td class="corner"></td>{head}'
    rows = []
    for row, label in enumerate(grid.rows):
        cells = [f'<th scope="row">{_label(grid.row_name, label)}</th>'] if with_labels else []
        for column in range(len(grid.columns)):
            content = _cell(grid, row, column, pictures.get((row, column)), side)
            cells.append(f'<td id="cell-{row}-{column}">{content}</td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<p class="controls"><label>Size of the pictures '
        f'<input type="range" id="tile" min="60" max="640" value="{tile}"></label>'
        '<span class="soft">A picture opens large with a click or Enter.</span></p>'
        '<div class="scroll" role="region" aria-label="Pictures" tabindex="0">'
        f'<table id="grid" style="--tile: {tile}px">{f"<thead><tr>{head}</tr></thead>" if head else ""}'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _label(name: str, label: str) -> str:
    return f'<span class="name">{_escaped(name)}</span> {_escaped(label)}' if name else _escaped(label)


def _cell(grid: Grid, row: int, column: int, picture: Path | None, side: int | None) -> str:
    record = grid.records.get((row, column))
    if record is None:
        return '<div class="blank">not made yet</div>'
    if record.failed is not None or picture is None:
        return f'<div class="blank failed">failed: {_escaped(record.failed or "there is no picture")}</div>'
    name = _name(grid, row, column)
    return (
        f'<button type="button" class="picture"><img alt="{_escaped(name)}" loading="lazy" decoding="async" '
        f'src="{_embedded(picture, side)}"></button>{_line(record)}'
    )


def _name(grid: Grid, row: int, column: int) -> str:
    parts = [f"{grid.row_name} {grid.rows[row]}".strip(), f"{grid.column_name} {grid.columns[column]}".strip()]
    return ", ".join(part for part in parts if part) or grid.title


def _line(record: Record) -> str:
    """Return what came of a cell in a line."""
    facts = record.facts
    loss = facts.get("loss")
    parts = [f"loss <b>{_number(loss)}</b>" if loss is not None and math.isfinite(loss) else "no finite loss"]
    end = facts.get("end")
    if end:
        share = sum(end["loss_shares"].get("content", {}).values())
        parts.append(f"content {100 * share:.0f} %" if share >= 0.01 or share == 0 else f"content {100 * share:.1g} %")
    if "iterations" in facts:
        parts.append(f"{facts['iterations']} iteration{'' if facts['iterations'] == 1 else 's'}")
    line = f"<p>{', '.join(parts)}</p>"
    if facts.get("stop", "iterations") != "iterations":
        kind = ' class="failed"' if facts["stop"] == "non-finite" else ""
        line += f"<p{kind}>{_escaped(facts.get('stop_reason') or facts['stop'])}</p>"
    return line


def _overview(grid: Grid) -> str:
    choice = ""
    if len(grid.rows) > 1 and len(grid.columns) > 1:
        choice = (
            f'<label>colors by <select id="color-by"><option value="row">{_escaped(grid.row_name or "row")}</option>'
            f'<option value="column">{_escaped(grid.column_name or "column")}</option></select></label>'
        )
    return (
        '<h2>Losses</h2><figure id="overview"><p class="controls"><label>over <select id="over">'
        f"<option>iterations</option><option>evaluations</option></select></label>{choice}</p>"
        '<svg id="overview-chart" viewBox="0 0 1000 420" role="img" aria-label="Losses"></svg>'
        '<ul class="legend"></ul><p class="reading soft"></p></figure>'
    )


def _settings(common: Mapping[str, str]) -> str:
    if not common:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{_escaped(name)}</th><td>{_escaped(text)}</td></tr>' for name, text in common.items()
    )
    return f'<h2>Settings that all cells share</h2><table class="facts words" id="common"><tbody>{rows}</tbody></table>'


_VIEWER = (
    '<dialog id="viewer" class="screen" aria-labelledby="which"><div id="bar"><h2 id="which" aria-live="polite"></h2>'
    + "".join(
        f'<button type="button" id="{name}" aria-label="{label}" title="{label} ({key})">{text}</button>'
        for name, label, key, text in (
            ("left", "cell to the left", "left arrow", "◀"),
            ("right", "cell to the right", "right arrow", "▶"),
            ("up", "cell above", "up arrow", "▲"),
            ("down", "cell below", "down arrow", "▼"),
            ("out", "smaller", "-", "−"),
            ("in", "larger", "+", "+"),
        )
    )
    + '<button type="button" id="whole" title="the whole picture (0)">Fit</button>'
    '<button type="button" id="actual" title="a pixel of the picture for each of the screen (1)">1:1</button>'
    '<span id="percent"></span><button type="button" id="close" title="close (Escape)">Close</button></div>'
    '<div id="stage" tabindex="0" role="group" aria-label="Picture: plus and minus zoom, shift and arrows move it, '
    'arrows go to the neighboring cell"><img alt="" draggable="false"><p></p></div>'
    '<div id="side" tabindex="0" role="region" aria-label="Facts and losses"><div id="facts"></div>'
    '<figure id="curves"><h3>Losses</h3>'
    '<svg id="curves-chart" viewBox="0 0 480 340" role="img" aria-label="Losses"></svg>'
    '<ul class="legend"></ul><p class="reading soft"></p>'
    '<p class="controls"><label><input type="checkbox" id="same" checked> the same axes for all cells</label></p>'
    '</figure><div id="more"></div></div></dialog>'
)


# ---- pictures ----


def _reduced_side(pictures: Sequence[Path]) -> int | None:
    """Return the long side to which pictures are reduced, or None where they are embedded as they are."""
    try:
        total = sum(path.stat().st_size for path in pictures)
    except OSError as error:
        raise ValueError(f"cannot read {str(error.filename)!r}: {error.strerror or error}") from None
    if total <= MOST_BYTES:
        return None
    # A pixel of a JPEG of quality 95 takes about two bytes, its color profile is another 600.
    return max(32, min(512, math.isqrt(max(MOST_BYTES // len(pictures) - 600, 0) // 2)))


def _embedded(path: Path, side: int | None) -> str:
    """Return a picture as a data URL: as it is, or as a JPEG with this long side at most."""
    if side is None:
        try:
            return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        except OSError as error:
            raise ValueError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
    picture = load_image(path)
    height, width, _ = picture.pixels.shape
    picture = resize(picture, *fit(height, width, min(side, max(height, width))))
    tile = encoded_image(".jpg", picture.pixels, picture.alpha)
    return f"data:image/jpeg;base64,{base64.b64encode(tile).decode()}"


# ---- data ----


def _facts(record: Record, kept: float) -> dict[str, Any]:
    """Return a cell's facts for the page; of its curve, the part ``kept``, and then which iterations those are."""
    facts = finite(record.facts)
    curve = facts.get("curve") or []
    places = _extremes([point[1] for point in curve], max(4, int(kept * len(curve))))
    if len(places) == len(curve):
        return {"facts": facts, "iterations": None}
    facts["curve"] = [curve[place] for place in places]
    return {"facts": facts, "iterations": [place + 1 for place in places]}


def _extremes(values: Sequence[float | None], most: int) -> list[int]:
    """Return the places of about ``most`` values: both ends, and the lowest and highest of each part between."""
    if len(values) <= most:
        return list(range(len(values)))
    parts = max(1, (most - 2) // 2)
    kept = {0, len(values) - 1}
    for part in range(parts):
        places = range(part * len(values) // parts, (part + 1) * len(values) // parts)
        # What is not finite is None here, and counts as the highest.
        ranked = sorted(places, key=lambda place: math.inf if (value := values[place]) is None else value)
        kept |= {ranked[0], ranked[-1]}
    return sorted(kept)


def _compared(
    settings: Mapping[tuple[int, int], Mapping[str, Any]],
) -> tuple[dict[str, str], dict[tuple[int, int], dict[str, str]]]:
    """Return the settings that all cells share, and of each cell the others, as text."""
    texts = {place: _texts(given) for place, given in sorted(settings.items())}
    names = list(dict.fromkeys(name for text in texts.values() for name in text))
    first: dict[str, str] = next(iter(texts.values()), {})
    # With one cell alone nothing differs, and all its settings are shared.
    common = {name: first[name] for name in names if {text.get(name) for text in texts.values()} == {first.get(name)}}
    differing = {
        place: {name: text[name] for name in names if name in text and name not in common}
        for place, text in texts.items()
    }
    return common, differing


def _settings_of(record: Record) -> dict[str, Any]:
    """Return a cell's settings, with the content weight that the model recommended where none was given."""
    settings = dict(record.settings)
    if settings.get("content_weight") is None and "content_weight" in record.facts:
        settings["content_weight"] = record.facts["content_weight"]
    return settings


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as a person reads them."""
    texts: dict[str, str] = {}
    for name, value in settings.items():
        if name == "files" and isinstance(value, Mapping):
            texts |= {f"SHA-256 of {part}": _text(sha256) for part, sha256 in value.items()}
        else:
            texts[name.replace("_", " ")] = _text(value)
    return texts


def _text(value: Any) -> str:
    if value is None:
        return "default"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Return a number to four digits, ``10420`` and not ``1.042e+04``, as the script does."""
    rounded = float(f"{value:.4g}")
    return f"{rounded:.15g}" if 1e-3 <= abs(rounded) < 1e6 else f"{rounded:g}"


def _json(data: Any) -> str:
    """Return data as JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _escaped(text: str) -> str:
    """Return a text for the page; the stray bytes of a file name, which UTF-8 cannot encode, as escapes."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())
