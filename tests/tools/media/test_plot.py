"""Plots of losses: every line is there, awkward numbers do no harm, and what is wrong is said before a long run."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from PIL import Image

from tools.media import plot
from tools.media.grid import Grid, Record
from tools.media.plot import FARTHEST, Trace, check_plot, plot_courses, plot_grid, plot_losses

NAMES = ["content conv4_2", "style conv1_1"]
CURVE = [[2, 90.0, 30.0, 60.0], [3, 50.0, 20.0, 30.0], [5, 9.0, 8.0, 1.0]]


@pytest.fixture(autouse=True)
def drawing():
    pytest.importorskip("matplotlib")


def lines(path: Path) -> list[list[tuple[float, float]]]:
    """Return the points of each line drawn in an SVG, those of the legend left out."""
    found = re.findall(r'id="line2d_\d+">\s*<path d="([^"]*)" clip-path="[^"]*" style="fill: none', path.read_text())
    points = [re.findall(r"[ML] (\S+) (\S+)", text) for text in found]
    # The lines of the axes' own grid are straight.
    return [[(float(x), float(y)) for x, y in line] for line in points if len(line) > 2]


def record(curve=CURVE, names=NAMES, failed=None) -> Record:
    facts = {"seconds": 1.0} if failed else {"terms": names, "curve": curve}
    return Record(None if failed else Path("cell.png"), facts, {}, failed)


def grid(height: int, width: int, **changes) -> Grid:
    records = {(row, column): record() for row in range(height) for column in range(width)}
    labels = {"rows": tuple(map(str, range(height))), "columns": tuple(map(str, range(width)))}
    return Grid(
        **({"title": "A sweep", "row_name": "seed", "column_name": "size", "records": records} | labels | changes)
    )


# ---- runs beside each other ----


def test_runs_are_told_apart_and_what_is_far_above_the_target_is_left_out(tmp_path):
    ours = Trace("ours", [1.0, 2.0, 3.0], [1e6, 12.0, 9.0])
    theirs = Trace("theirs", [2.0, 4.0, 6.0], [1e6, 20.0, 10.0])
    path = tmp_path / "race.svg"
    plot_courses(
        path, [ours, theirs, Trace("theirs, seen", [2.0, 4.0, 6.0], [None, 25.0, 11.0], "theirs")], "A race", 10.0
    )
    pattern = r'<path d="([^"]*)" clip-path="[^"]*" style="fill: none; ([^"]*)"'
    found = [
        (style, re.findall(r"[ML] (\S+) (\S+)", points)) for points, style in re.findall(pattern, path.read_text())
    ]
    drawn = [(style, [float(y) for _, y in points]) for style, points in found if "stroke-opacity" not in style]
    for of_axes in (drawn[:4], drawn[4:]):  # over seconds, and over evaluations
        (their_style, their_heights), (seen_style, _), (target_style, at_target), (our_style, _) = of_axes
        their_color, seen_color = (re.search(r"stroke: #\w+", style)[0] for style in (their_style, seen_style))
        assert their_color == seen_color
        assert their_color not in our_style
        assert ["dasharray" in style for style, _ in of_axes] == [False, True, True, False]
        assert "0.8,1.32" in target_style
        assert at_target == [their_heights[-1]] * 2
        # 20 lies as far above 10 as the top, 40, above 20; and what is at 1e6 is cut off.
        top = min(y for style, points in found if "stroke-opacity" in style for y in (float(y) for _, y in points))
        assert FARTHEST == 4
        assert their_heights[-2] - top == pytest.approx(their_heights[-1] - their_heights[-2], abs=1e-3)
        assert their_heights[0] < top


# ---- one run ----


def test_the_loss_and_each_term_are_drawn_on_a_log_scale(tmp_path):
    plot_losses(tmp_path / "losses.svg", NAMES, CURVE, "A run")
    drawn = lines(tmp_path / "losses.svg")
    assert len(drawn) == 3
    for column, line in zip((2, 3, 1), drawn, strict=True):  # the loss lies on top
        logarithms = [math.log(point[column]) for point in CURVE]
        heights = [y for _, y in line]
        # SVG counts from the top.
        expected = (logarithms[1] - logarithms[0]) / (logarithms[2] - logarithms[0])
        assert (heights[1] - heights[0]) / (heights[2] - heights[0]) == pytest.approx(expected, abs=1e-4)
        assert (heights[2] > heights[0]) == (logarithms[2] < logarithms[0])
        assert line[1][0] - line[0][0] == pytest.approx(line[2][0] - line[1][0], abs=1e-3)


@pytest.mark.slow
def test_the_same_run_gives_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg", "a.png", "b.png"):
        plot_losses(tmp_path / name, NAMES, CURVE, "A run")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.slow
@pytest.mark.parametrize(
    "curve",
    [
        [[1, 5.0, 2.0, 3.0]],
        [[1, 5.0, 0.0, 5.0], [2, 4.0, 0.0, 4.0], [3, 3.0, 1.0, 2.0]],
        [[1, 0.0, 0.0, 0.0], [2, 0.0, 0.0, 0.0]],
        [[1, math.inf, math.nan, 1.0], [2, None, 2.0, None], [3, 1e308, 1e-308, 5e-324]],
        [[1, -1.0, -2.0, 1.0], [2, 1.0, 1.0, 0.0]],
        [[1, 7.0, 7.0, 7.0], [2, 7.0, 7.0, 7.0]],
        [],
    ],
)
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_awkward_numbers_are_drawn_without_a_complaint(tmp_path, curve, suffix):
    plot_losses(tmp_path / f"losses{suffix}", NAMES, curve, "A run")
    plot_grid(tmp_path / f"grid{suffix}", grid(1, 2, records={(0, 0): record(curve)}))


def test_a_value_of_zero_interrupts_the_line_and_a_lonely_one_is_marked(tmp_path):
    values = [4.0, 3.0, 0.0, 2.0, 0.0, 1.0, 1.0]
    plot_losses(tmp_path / "losses.svg", [], [[index, value] for index, value in enumerate(values)], "A run")
    (line,) = lines(tmp_path / "losses.svg")
    assert len(line) >= 4
    assert (tmp_path / "losses.svg").read_text().count("<use") > 0


def test_next_to_nothing_does_not_flatten_the_rest(tmp_path):
    plot_losses(tmp_path / "losses.svg", ["style a"], [[1, 100.0, 1e-30], [2, 10.0, 1e-30], [3, 1.0, 1e-30]], "A run")
    loss = lines(tmp_path / "losses.svg")[-1]
    assert abs(loss[2][1] - loss[0][1]) > 60


@pytest.mark.slow
def test_many_layers_all_get_a_line_and_an_entry(tmp_path):
    names = [f"content conv{index}" for index in range(20)] + [f"style conv{index}" for index in range(40)]
    plot_losses(tmp_path / "losses.svg", names, [[index, *([9.0 - index] * 61)] for index in range(4)], "A run")
    assert len(lines(tmp_path / "losses.svg")) == 61
    for name in names:
        assert f"<!-- {name} -->" in (tmp_path / "losses.svg").read_text()


@pytest.mark.slow
def test_names_of_any_kind_are_taken_as_they_are(tmp_path):
    odd = "$x_$ \\frac _under 雪 <b> a.jpg"
    plot_losses(tmp_path / "losses.svg", NAMES, CURVE, odd)
    plot_grid(tmp_path / "grid.svg", grid(2, 2, title=odd, row_name=odd, rows=(odd, "_b"), columns=("_a", "$")))
    plot_grid(tmp_path / "many.svg", grid(2, 40, title=odd, column_name=odd, columns=(odd, "_a", "$", *["x"] * 37)))


# ---- a grid ----


@pytest.mark.slow
def test_each_cell_has_axes_of_its_own_with_its_terms(tmp_path):
    plot_grid(tmp_path / "grid.svg", grid(3, 4))
    assert len(lines(tmp_path / "grid.svg")) == 3 * 4 * 3
    text = (tmp_path / "grid.svg").read_text()
    for label in ("A sweep", "seed 0", "seed 2", "size 0", "size 3", "iteration", *NAMES):
        assert f"<!-- {label} -->" in text


@pytest.mark.slow
def test_failed_and_missing_cells_are_shown_as_such(tmp_path):
    some = grid(1, 3)
    records = {(0, 0): record(), (0, 1): record(failed="it went wrong")}
    plot_grid(tmp_path / "grid.svg", grid(1, 3, records=records))
    text = (tmp_path / "grid.svg").read_text()
    assert "<!-- failed: it went wrong -->" in text
    assert "<!-- not made yet -->" in text
    assert len(lines(tmp_path / "grid.svg")) == len(some.records)


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 5), (5, 1), (4, 30), (30, 4), (120, 1), (1, 120), (13, 12)])
def test_grids_of_any_shape_show_every_cell(tmp_path, rows, columns):
    names = {"row_name": "" if rows == 1 else "seed", "column_name": "" if columns == 1 else "size"}
    plot_grid(tmp_path / "grid.svg", grid(rows, columns, **names))
    each = 3 if rows * columns <= plot.MOST_AXES else 1
    assert len(lines(tmp_path / "grid.svg")) == rows * columns * each


@pytest.mark.slow
def test_an_empty_sweep_is_drawn_too(tmp_path):
    for columns in (3, 100):
        plot_grid(tmp_path / "grid.svg", grid(2, columns, records={}))


# ---- what is wrong ----


@pytest.mark.parametrize("name", ["losses.pdf", "losses", "missing/losses.svg", "."])
def test_a_file_that_cannot_be_written_is_refused(tmp_path, name):
    for write in (
        check_plot,
        lambda path: plot_losses(path, NAMES, CURVE, "A run"),
        lambda path: plot_grid(path, grid(1, 1)),
    ):
        with pytest.raises(ValueError, match="cannot write"):
            write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"matplotlib, which is missing: pip install '\.\[plot\]'"):
        check_plot(tmp_path / "losses.svg")
    assert list(tmp_path.iterdir()) == []
