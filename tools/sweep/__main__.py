"""Pictures over a grid of two settings, side by side: ``python -m tools.sweep CONTENT STYLE``.

By default the paper's Figure 3: more and more style layers from top to bottom, more and more weight on the content from
left to right. Cells that have been made are not made again, so that a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from engine.calibrate import Pilot
from engine.network import Network
from engine.selection import PAPER_STYLE_LAYERS
from engine.vgg import CONTENT_WEIGHT
from tools.cli.command_line import Parser, add_shared, given_path, positive_int, run, tell
from tools.cli.disk import check_space, picture_bytes
from tools.cli.options import Options, add_options, argument, check_blend, options_from
from tools.cli.rendering import check_layers, first_picture, tell_notes
from tools.cli.session import Session
from tools.media.files import byte_count
from tools.media.images import load_image, load_painting, pictures_in
from tools.media.memory import available_memory
from tools.media.plot import check_matplotlib
from tools.models.cache import announce_draft, resolve_model
from tools.models.loading import load, with_model
from tools.sweep.axes import (
    NO_AXIS,
    Axis,
    axis_names,
    number_axis,
    number_label,
    parse_axis,
    picture_axis,
    style_depth_axis,
)
from tools.sweep.folder import Folder
from tools.sweep.making import Sweep
from tools.sweep.plan import NAME, Files, cells_of, check_cells, notes_of
from tools.sweep.suggest import suggest
from tools.sweep.workers import PROCESS_BYTES, Workers, dask_workers, local_workers

SUGGESTED = 4
"""How many content weights ``--suggest`` names, as many as the paper's Figure 3 has columns."""

MANY_CELLS = 10_000
"""More than these need ``--yes``."""

PAPER_RATIOS = (1e-5, 1e-4, 1e-3, 1e-2)
"""alpha / beta of the paper's Figure 3; other networks than the original VGG-19 take them in proportion."""

DEFAULTS = Options(size=256, iterations=200, levels=1, change_tolerance=0.0)


# ---- the command line ----


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog=NAME,
        description="Make pictures over a grid of two settings and show them side by side.",
        epilog=f"AXIS is NAME=VALUE,VALUE,... with NAME one of {', '.join(axis_names())}. Layers and statistics of one "
        "value are joined by +. A..B is a range: style-layers=conv1_1..conv5_1 are the paper's, one more in each; "
        "seed=0..9 are all ten; content-weight=1e-5..1e-2, and so style-weight and learning-rate, go in steps of ten. "
        "A comma in a file's name is written \\, (with the axis in quotes).",
    )
    parser.add_argument(
        "content", type=given_path, metavar="CONTENT", help="the photograph, or a folder of photographs"
    )
    parser.add_argument("style", type=given_path, nargs="+", metavar="STYLE", help="the painting, several, or a folder")
    parser.add_argument(
        "-o", "--output", type=given_path, default=Path("sweep"), metavar="DIR", help="folder to write (default sweep)"
    )
    parser.add_argument(
        "--rows", type=argument(parse_axis), metavar="AXIS", help="what changes from row to row (default: style layers)"
    )
    parser.add_argument(
        "--columns", type=argument(parse_axis), metavar="AXIS", help="from column to column (default: content weight)"
    )
    add_options(parser, DEFAULTS)
    parser.add_argument(
        "--suggest",
        action="store_true",
        help="only find out, by small runs, which content weights suit the pair and the model",
    )
    parser.add_argument("--workers", type=positive_int, metavar="N", help="make N cells at a time (default 1)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="make the cells on a Dask cluster: tcp://HOST:PORT")
    parser.add_argument("--plot", action="store_true", help="also draw all losses, losses.svg (needs matplotlib)")
    parser.add_argument("--yes", action="store_true", help=f"allow more than {MANY_CELLS:,} cells")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each cell")
    add_shared(parser, threads="threads of each cell (default: shared out)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make the pictures of a sweep; return the exit code."""
    arguments = build_parser().parse_args(argv)
    if arguments.workers is not None and arguments.scheduler is not None:
        raise ValueError("--workers and --scheduler were both given, expected at most one of them")
    if arguments.plot:
        check_matplotlib()
    options = with_model(options_from(arguments), arguments.cache)
    if arguments.suggest:
        if arguments.rows is not None or arguments.columns is not None:
            raise ValueError("--suggest names content weights for a grid of yours: leave out --rows and --columns")
        of_a_grid = {"--plot": arguments.plot, "--workers": arguments.workers, "--scheduler": arguments.scheduler}
        idle = next((option for option, is_given in of_a_grid.items() if is_given), None)
        if idle is not None:
            raise ValueError(f"--suggest makes no grid: leave out {idle}")
        if arguments.content_weight is not None:
            raise ValueError("--suggest finds the content weight: leave out --content-weight")
        return _suggest(arguments, options)
    session = Session(NAME)
    return session.run(lambda: _sweep(arguments, options, session))


def _sweep(arguments: argparse.Namespace, options: Options, session: Session) -> int:
    """Make what is left to make of a grid; return the exit code."""
    rows, columns = _axes(arguments, options)
    count = len(rows.values) * len(columns.values)
    if count > MANY_CELLS and not arguments.yes:
        raise ValueError(f"{len(rows.values)} rows and {len(columns.values)} columns are {count:,} cells: give --yes")
    files = Files(arguments.cache)
    cells = cells_of(arguments.content, arguments.style, options, rows, columns, files)
    costs = check_cells(cells, files, arguments.quiet)
    if "cuda" in costs.devices and (arguments.workers or 1) > 1:
        raise ValueError(
            "a GPU makes one cell at a time: leave out --workers, or give --scheduler a worker for each GPU"
        )
    folder = Folder(arguments.output, rows, columns, cells)
    with _workers(arguments, count) as workers:
        if arguments.scheduler is None and workers.count > 1:
            _check_available(costs.needed, workers.count)
        folder.claim()
        if "model" not in (rows.setting, columns.setting):
            announce_draft(NAME, arguments.model, options.model, arguments.quiet)
        idle = notes_of(cells, files, arguments.threads if arguments.scheduler is None else None)
        for note in (*costs.notes, *idle):
            if not arguments.quiet:
                tell(f"{NAME}: {note}")
        sweep = Sweep(arguments, options, folder, files, workers, costs)
        # The page and the sheet have the pictures once more.
        pictures = sum(picture_bytes(costs.pixels.get(key, 0), 4) for key in sweep.todo)
        check_space(arguments.output, "the pictures", 3 * pictures)
        session.keep = lambda: sweep.stopped("interrupted")
        lost = sweep.make()
    return sweep.finish(lost)


def _axes(arguments: argparse.Namespace, options: Options) -> tuple[Axis, Axis]:
    """Return rows and columns: as given, over the folders' pictures, or those of the paper's Figure 3."""
    rows: Axis | None = arguments.rows
    columns: Axis | None = arguments.columns
    paper = rows is None and columns is None
    if arguments.content.is_dir():
        if rows is not None:
            raise ValueError(f"the rows are the photographs in {str(arguments.content)!r}: leave out --rows")
        rows, paper = picture_axis("content", pictures_in(arguments.content)), False
    for folder in (path for path in arguments.style if path.is_dir()):
        if len(arguments.style) > 1:
            raise ValueError(f"{str(folder)!r} is a folder, which stands alone: each of its paintings is a column")
        if columns is not None:
            raise ValueError(f"the columns are the paintings in {str(folder)!r}: leave out --columns")
        columns, paper = picture_axis("style", pictures_in(folder)), False
    if paper:
        network = load(options, resolve_model(str(options.model), arguments.cache), arguments.threads)
        known = _known_style_layers(network)
        rows = style_depth_axis(known[0], known[-1])
        unit = network.content_weight / CONTENT_WEIGHT * options.style_weight
        columns = number_axis("content_weight", [float(f"{unit * ratio:.6g}") for ratio in PAPER_RATIOS])
    # One axis alone is a grid of one row or one column.
    rows, columns = rows or NO_AXIS, columns or NO_AXIS
    given = [axis for axis in (rows, columns) if axis != NO_AXIS]
    if len(given) == 2 and rows.setting == columns.setting:
        raise ValueError(f"rows and columns both go over {rows.name}")
    for axis in given if paper else ():
        if getattr(arguments, axis.setting) != getattr(DEFAULTS, axis.setting):
            raise ValueError(f"the grid goes over {axis.name}: leave out --{axis.name}, or give --rows or --columns")
    return rows, columns


def _suggest(arguments: argparse.Namespace, options: Options) -> int:
    """Print which content weights are worth a column."""
    given = [str(path) for path in (arguments.content, *arguments.style) if path.is_dir()]
    if given:
        raise ValueError(f"--suggest takes one photograph and its paintings, {given[0]!r} is a folder")
    check_blend(options, len(arguments.style))
    content, styles = load_image(arguments.content), [load_painting(path) for path in arguments.style]
    first = first_picture(options, styles)
    tell_notes(NAME, [content, *styles], arguments.quiet)
    model = resolve_model(str(options.model), arguments.cache)
    network = load(options, model, arguments.threads)
    if options.style_layers == DEFAULTS.style_layers:
        options = dataclasses.replace(options, style_layers=_known_style_layers(network))
    options = check_layers(network, options)
    pilots: list[Pilot] = []

    def follow(pilot: Pilot) -> None:
        if not pilots:  # whatever is wrong with the weights, the run before has told
            announce_draft(NAME, arguments.model, options.model, arguments.quiet)
        pilots.append(pilot)
        if not arguments.quiet:
            tell(f"{NAME}: small run {len(pilots)}: {pilot.kept:.0%} of the photograph kept")

    weights = suggest(network, options, content, styles, first, SUGGESTED, follow)
    print(f"content weight   of the photograph kept   of the painting missed   ({options.size} px)")
    for pilot in sorted(pilots, key=lambda pilot: pilot.content_weight):
        content_weight = number_label(float(f"{pilot.content_weight:.1e}"))
        print(f"{content_weight:>14}{pilot.kept:21.0%}{pilot.missed:25.2%}")
    print(f"suggested: --columns content-weight={','.join(number_label(weight) for weight in weights)}")
    return 0


def _known_style_layers(network: Network) -> tuple[str, ...]:
    """Return those of the paper's style layers that a network has."""
    known = tuple(name for name in PAPER_STYLE_LAYERS if name in network.layers)
    if not known:
        raise ValueError("the model has none of the paper's style layers: name some of its own")
    return known


def _workers(arguments: argparse.Namespace, cells: int) -> contextlib.AbstractContextManager[Workers]:
    if arguments.scheduler is not None:
        return dask_workers(arguments.scheduler, arguments.threads)
    return local_workers(min(arguments.workers or 1, cells), arguments.threads)


def _check_available(needed: int, workers: int) -> None:
    free = available_memory()
    total = workers * (needed + PROCESS_BYTES)
    if free is not None and total > free:
        raise ValueError(
            f"{workers} workers need about {byte_count(total)} of memory, {byte_count(free)} are available: "
            "give fewer --workers or a smaller --size"
        )


if __name__ == "__main__":
    run(main)
