"""Plots of the losses over the iterations, of one run and of a grid of them; they need matplotlib, extra ``plot``."""

from __future__ import annotations

import importlib.util
import itertools
import math
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.media.files import check_writable, replacing
from tools.media.grid import Grid, Record

Points = Sequence[Sequence[float]]
"""Of each iteration the evaluations so far, the loss and the weighted terms: ``Record.facts["curve"]``."""

SUFFIXES = (".svg", ".png")

# Terms are shown down to this part of the lowest loss: one that is next to nothing shall not flatten all others.
LEAST_TERM = 1e-6

# Small multiples up to here; a larger grid has a line for each cell and an axes for each row.
MOST_AXES = 60
MOST_COLUMNS = 10

# Where runs are compared by a loss, this many times it is the top of the plot.
FARTHEST = 4

_INK = "#444444"


@dataclass(frozen=True)
class Trace:
    """The losses of a run.

    Parameters
    ----------
    name : of the run, or of another look at one.
    seconds : since its beginning, of each evaluation.
    losses : so far, of each evaluation; None for what there is none of.
    of : the name of the run that this is another look at.
    """

    name: str
    seconds: Sequence[float]
    losses: Sequence[float | None]
    of: str = ""


def check_plot(path: Path) -> None:
    """Raise ValueError unless a plot can be drawn and written to ``path``: to be called before a long computation."""
    if path.suffix.lower() not in SUFFIXES:
        found = f"the suffix is {path.suffix!r}" if path.suffix else "there is no suffix"
        raise ValueError(f"cannot write {str(path)!r}: {found}, expected {' or '.join(SUFFIXES)}")
    check_writable(path)
    check_matplotlib()


def check_matplotlib() -> None:
    """Raise ValueError where matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("plots are drawn with matplotlib, which is missing: pip install '.[plot]'")


def plot_losses(path: Path, names: Sequence[str], curve: Points, title: str) -> None:
    """Draw the loss and its weighted terms over the iterations of one run; the file appears whole or not at all.

    Parameters
    ----------
    path : a file name ending in .svg or .png.
    names : of the terms, as in ``Record.facts["terms"]``.
    curve : the evaluations so far, the loss and the terms of each iteration; what is not finite is left out, and so is
        0, which a log scale cannot show.
    title : of the plot.

    Raises ValueError when matplotlib is missing or the file cannot be written.
    """
    check_plot(path)
    rows = math.ceil((len(names) + 1) / 28)
    figure = _figure(8.5 + 1.5 * (rows - 1), 4.8)
    axes = figure.add_subplot()
    _title(axes, title, 80, fontsize=11)
    handles = _draw(axes, names, curve)
    _limits(axes, [curve])
    _label(axes)
    figure.legend(handles, ["loss", *names], loc="outside right upper", ncols=rows, fontsize=8, frameon=False)
    _save(figure, path)


def plot_grid(path: Path, grid: Grid) -> None:
    """Draw the losses of a grid's cells, all on the same scales; the file appears whole or not at all.

    Each cell has axes of its own, with its terms; in a large grid each row (or column, where there are fewer of
    them) has, and the cells are lines.

    Parameters
    ----------
    path : a file name ending in .svg or .png.
    grid : what came of the cells so far.

    Raises ValueError when matplotlib is missing or the file cannot be written.
    """
    check_plot(path)
    small = len(grid.rows) * len(grid.columns) <= MOST_AXES and len(grid.columns) <= MOST_COLUMNS
    _save(_multiples(grid) if small else _bundles(grid), path)


def plot_courses(path: Path, traces: Sequence[Trace], title: str, target: float) -> None:
    """Draw the losses of runs over their seconds and over their evaluations; the file appears whole or not at all.

    Parameters
    ----------
    path : a file name ending in .svg or .png.
    traces : of the runs; the first is drawn over the others.
    title : of the plot.
    target : a loss that all of them are compared by: a line, and what is far above it is left out. Infinite for none.

    Raises ValueError when matplotlib is missing or the file cannot be written.
    """
    check_plot(path)
    figure = _figure(9.5, 4.2)
    figure.suptitle(_wrapped(title, 110), fontsize=11, parse_math=False)
    styles = _trace_styles(traces)
    losses = [loss for trace in traces for loss in trace.losses if loss is not None and _is_shown(loss)]
    for axes, over in zip(figure.subplots(1, 2, sharey=True), ("seconds", "evaluations"), strict=True):
        for trace, style in zip(traces, styles, strict=True):
            shown = [one if _is_shown(one) else math.nan for one in trace.losses]
            places = trace.seconds if over == "seconds" else range(1, len(shown) + 1)
            axes.plot(places, shown, label=_shown(trace.name), **style)
        axes.set(yscale="log", xlabel=over)
        if losses and _is_shown(target):
            axes.axhline(target, color=_INK, linewidth=0.8, linestyle=":")
            axes.set_ylim(min(losses) / 1.05, min(max(losses) * 1.05, target * FARTHEST))
        _grid_lines(axes)
    figure.axes[0].set_ylabel("lowest loss so far")
    figure.axes[1].legend(fontsize=8, frameon=False)
    _save(figure, path)


def _trace_styles(traces: Sequence[Trace]) -> list[dict[str, Any]]:
    """Return how each of some traces is drawn: the first in black, and what shows a run otherwise dashed."""
    from matplotlib import colormaps

    runs = [trace.name for trace in traces if not trace.of]
    colors = {
        name: "#222222" if place == 0 else colormaps["tab10"]((place - 1) % 10) for place, name in enumerate(runs)
    }
    return [
        {
            "color": colors[trace.of or trace.name],
            "linestyle": "--" if trace.of else "-",
            "linewidth": 1.2 if place else 2.0,
            "zorder": 2 if place else 3,
        }
        for place, trace in enumerate(traces)
    ]


# ---- the two kinds of sheets ----


def _multiples(grid: Grid) -> Any:
    """Return a figure with axes for each cell."""
    rows, columns = len(grid.rows), len(grid.columns)
    figure = _figure(max(5.5, 2.4 * columns + 2.4), max(3.2, 1.8 * rows + 1))
    figure.suptitle(_wrapped(grid.title, 60), fontsize=12, parse_math=False)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    names = list(dict.fromkeys(name for record in grid.records.values() for name in record.facts.get("terms", ())))
    legend: dict[str, Any] = {}
    for row, column in itertools.product(range(rows), range(columns)):
        axes, record = panels[row][column], grid.records.get((row, column))
        if row == 0:
            _title(axes, _label_of(grid.column_name, grid.columns[column]), 26)
        if column == columns - 1 and _label_of(grid.row_name, grid.rows[row]):
            axes.yaxis.set_label_position("right")
            label = _wrapped(_label_of(grid.row_name, grid.rows[row]), 22)
            axes.set_ylabel(label, rotation=270, va="bottom", fontsize=9, parse_math=False)
        curve = _curve(record)
        if curve:
            assert record is not None
            handles = _draw(axes, record.facts["terms"], curve, names)
            legend |= dict(zip(("loss", *record.facts["terms"]), handles, strict=True))
        else:
            failed = "no losses" if record is None or record.failed is None else f"failed: {record.failed}"
            _remark(axes, "not made yet" if record is None else failed)
    _limits(panels[0][0], [_curve(record) for record in grid.records.values()])
    for axes in panels.flat:
        _grid_lines(axes)
        axes.tick_params(labelsize=8)
    figure.supxlabel("iteration", fontsize=10)
    figure.supylabel("loss and its weighted terms", fontsize=10)
    if legend:
        shown = [name for name in ("loss", *names) if name in legend]
        figure.legend([legend[name] for name in shown], shown, loc="outside right upper", fontsize=8, frameon=False,
                      ncols=math.ceil(len(shown) / 40))  # fmt: skip
    return figure


def _bundles(grid: Grid) -> Any:
    """Return a figure with axes for each row or column, whichever are fewer, and a line for each cell."""
    by_row = len(grid.rows) <= len(grid.columns)
    panel_name, panel_labels = (grid.row_name, grid.rows) if by_row else (grid.column_name, grid.columns)
    line_name, line_labels = (grid.column_name, grid.columns) if by_row else (grid.row_name, grid.rows)
    across = min(math.ceil(math.sqrt(len(panel_labels))), 4)
    down = math.ceil(len(panel_labels) / across)
    figure = _figure(max(7.0, 3.6 * across + 2), max(4.0, 2.4 * down + 1))
    figure.suptitle(_wrapped(grid.title, 70), fontsize=12, parse_math=False)
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat
    colors = _colors(len(line_labels))
    for index, axes in enumerate(panels):
        if index >= len(panel_labels):
            axes.set_axis_off()
            continue
        _title(axes, _label_of(panel_name, panel_labels[index]), 40)
        drawn = 0
        for line, color in enumerate(colors):
            curve = _curve(grid.records.get((index, line) if by_row else (line, index)))
            drawn += bool(curve)
            if curve:
                _line(axes, [point[1] for point in curve], color=color, linewidth=1)
        if drawn < len(line_labels):
            missing = len(line_labels) - drawn
            axes.text(0.98, 0.97, f"{missing} failed or not made yet", transform=axes.transAxes, ha="right", va="top",
                      fontsize=7, color=_INK)  # fmt: skip
        _grid_lines(axes)
        axes.tick_params(labelsize=8)
    _limits(panels[0], [[point[:2] for point in _curve(record)] for record in grid.records.values()])
    figure.supxlabel("iteration", fontsize=10)
    figure.supylabel("loss", fontsize=10)
    # A legend of more lines than this tells nobody anything: every so many of them show where the colors lead.
    every = math.ceil(len(line_labels) / 30)
    shown = range(0, len(line_labels), every)
    figure.legend(
        [_sample(colors[index]) for index in shown], [_shown(line_labels[index]) for index in shown],
        title=_shown(line_name).strip() or None, loc="outside right upper", fontsize=8, frameon=False,
    )  # fmt: skip
    return figure


# ---- building blocks ----


def _curve(record: Record | None) -> Points:
    return () if record is None or record.failed is not None else record.facts.get("curve", ())


def _draw(axes: Any, names: Sequence[str], curve: Points, all_names: Sequence[str] = ()) -> list[Any]:
    """Draw a run's loss and terms and return their lines; ``all_names`` are those that occur on the whole sheet."""
    styles = _term_styles(all_names or names)
    lines = [_line(axes, [point[1] for point in curve], color="#222222", linewidth=1.8, zorder=3)]
    for place, name in enumerate(names, start=2):
        lines.append(_line(axes, [point[place] for point in curve], linewidth=1, **styles[name]))
    return lines


def _term_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return how each term is drawn: those of the content dashed in warm colors, the others in cold ones."""
    content = [name for name in names if name.startswith("content ")]
    style = [name for name in names if name not in content]
    warm = zip(content, _colors(len(content), "autumn", 0.6), strict=True)
    cold = zip(style, _colors(len(style)), strict=True)
    return {name: {"color": color, "linestyle": "--"} for name, color in warm} | {
        name: {"color": color} for name, color in cold
    }


def _line(axes: Any, values: Sequence[float | None], **style: Any) -> Any:
    """Draw the values of the iterations from 1; what a log scale cannot show interrupts the line."""
    there = [False, *map(_is_shown, values), False]
    shown = [value if _is_shown(value) else math.nan for value in values]
    # A point without neighbors makes no line: it is marked.
    alone = [index for index in range(len(values)) if there[index : index + 3] == [False, True, False]]
    marker = {"marker": "o", "markersize": 4, "markevery": alone} if alone else {}
    (line,) = axes.plot(range(1, len(shown) + 1), shown, **marker, **style)
    return line


def _is_shown(value: float | None) -> bool:
    # The ends of the range of float64 are out of bounds: matplotlib's ticks overflow there.
    return value is not None and 1e-200 < value < 1e200


def _limits(axes: Any, curves: Iterable[Points]) -> None:
    """Make the loss axis a log scale that shows all losses, and the terms as far as they are of any weight."""
    points = [point for curve in curves for point in curve]
    losses = [point[1] for point in points if _is_shown(point[1])]
    values = [value for point in points for value in point[1:] if _is_shown(value)]
    if not values:
        axes.set(ylim=(0.1, 10), yscale="log")
        _remark(axes, "no loss above 0")
        return
    low = max(min(values), LEAST_TERM * min(losses)) if losses else min(values)
    axes.set(ylim=(low / 1.25, max(values) * 1.25), yscale="log")


def _label(axes: Any) -> None:
    axes.set_xlabel("iteration")
    axes.set_ylabel("loss and its weighted terms")
    _grid_lines(axes)


def _grid_lines(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _remark(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, _wrapped(text, 30, 6), transform=axes.transAxes, ha="center", va="center", fontsize=8,
              color=_INK, parse_math=False)  # fmt: skip


def _title(axes: Any, text: str, width: int, fontsize: int = 9) -> None:
    axes.set_title(_wrapped(text, width), fontsize=fontsize, parse_math=False)


def _label_of(name: str, label: str) -> str:
    return f"{name} {label}".strip()


def _shown(label: str) -> str:
    """Return a label as a legend takes it: it leaves out those with an underscore in front, and sets $ as formulas."""
    return f" {_wrapped(label, 24)}".replace("$", r"\$")


def _wrapped(text: str, width: int, lines: int = 3) -> str:
    # Stray bytes and control characters of a file name can stand in no SVG.
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return textwrap.fill(plain, width, max_lines=lines, placeholder=" ...")


def _sample(color: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color)


def _colors(count: int, name: str = "viridis", top: float = 0.88) -> list[Any]:
    """Return colors in an order that can be seen; the palest of the map are left out."""
    from matplotlib import colormaps

    return [colormaps[name](top * index / max(count - 1, 1)) for index in range(count)]


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    """Write a figure, the same each time."""
    import matplotlib

    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Date": None} if kind == "svg" else {}
    # The labels are the user's: letters that the font lacks become boxes, and that is all there is to say about them.
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "losses", "svg.fonttype": "path"}):
        warnings.simplefilter("ignore", UserWarning)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata, dpi=120)
