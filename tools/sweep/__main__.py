"""Pictures over a grid of two settings, side by side: ``python -m tools.sweep CONTENT STYLE``.

By default the paper's Figure 3: more and more style layers from top to bottom, more and more weight on the content from
left to right. Cells that have been made are not made again, so that a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import functools
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.batch import run_batch
from engine.calibrate import Pilot
from engine.network import Network
from engine.selection import PAPER_STYLE_LAYERS
from engine.stylize import INITS
from engine.vgg import CONTENT_WEIGHT
from tools.cli.command_line import (
    EXIT_ERROR,
    Parser,
    add_shared,
    describe,
    given_path,
    positive_int,
    run,
    tell,
)
from tools.cli.disk import check_space, picture_bytes
from tools.cli.notes import IDLE_SEED, check_style, idle_options, idle_threads
from tools.cli.options import (
    FIRST_DRAFT,
    Options,
    add_options,
    argument,
    check_blend,
    check_history,
    levels_of,
    network_part,
    options_from,
)
from tools.cli.progress import Progress, counted, duration
from tools.cli.rendering import (
    check_layers,
    check_levels,
    check_memory,
    decoded_bytes,
    first_picture,
    painting_sizes,
    picture_size,
    tell_notes,
    work,
)
from tools.cli.session import Session
from tools.media.files import byte_count, sha256_of, write_text
from tools.media.images import load_image, load_painting, open_file, pictures_in
from tools.media.memory import available_memory
from tools.media.plot import check_matplotlib, plot_grid
from tools.media.saving import save_image
from tools.models.cache import announce_draft, resolve_model
from tools.models.loading import about_preprocessing, load, with_model
from tools.sweep.axes import (
    FILES,
    NO_AXIS,
    Axis,
    axis_names,
    number_axis,
    number_label,
    parse_axis,
    picture_axis,
    style_depth_axis,
)
from tools.sweep.cells import Cell, Outcome, make_cell, seconds_of_evaluation
from tools.sweep.folder import Folder
from tools.sweep.page import sweep_page
from tools.sweep.suggest import suggest
from tools.sweep.table import contact_sheet, entries, table
from tools.sweep.workers import Tell, Workers, dask_workers, local_workers

NAME = "sweep"

SUGGESTED = 4
"""How many content weights ``--suggest`` names, as many as the paper's Figure 3 has columns."""

MANY_CELLS = 10_000
"""More than these need ``--yes``."""

PAPER_RATIOS = (1e-5, 1e-4, 1e-3, 1e-2)
"""alpha / beta of the paper's Figure 3; other networks than the original VGG-19 take them in proportion."""

ASK_SECONDS = 10.0
"""A cluster that has had nothing to tell for so long is asked whether it is still there."""

PROCESS_BYTES = 100_000_000
"""What a worker's process takes up before it has a network: measured on Linux, Python 3.11."""

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
    files = _Files(arguments.cache)
    cells = _cells(arguments, options, rows, columns, files)
    costs = _check_cells(cells, files, arguments.quiet)
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
        idle = _notes(cells, files, arguments.threads if arguments.scheduler is None else None)
        for note in (*costs.notes, *idle):
            if not arguments.quiet:
                tell(f"{NAME}: {note}")
        sweep = _Sweep(arguments, options, folder, files, workers, costs)
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


# ---- the cells ----


class _Files:
    """The input files of a sweep by what is in them."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self.paths: dict[str, Path] = {}
        self.names: dict[str, str] = {}

    @functools.cache  # noqa: B019  # as long as the sweep
    def model(self, name: str) -> str:
        """Return the SHA-256 of the file to load for a model's name or path."""
        path = resolve_model(name, self._cache)
        if not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{path}: is no regular file, expected an ONNX file")
        return self._known(path)

    def picture(self, path: Path) -> str:
        """Return the SHA-256 of a picture's file."""
        with open_file(path):
            pass
        return self._known(path)

    @functools.cache  # noqa: B019  # as long as the sweep
    def _known(self, path: Path) -> str:
        sha256 = sha256_of(path)
        self.paths.setdefault(sha256, path)
        self.names.setdefault(sha256, str(path))
        return sha256


def _cells(
    arguments: argparse.Namespace, options: Options, rows: Axis, columns: Axis, files: _Files
) -> dict[tuple[int, int], Cell]:
    cells = {}
    for row, row_value in enumerate(rows.values):
        for column, column_value in enumerate(columns.values):
            changes = {rows.setting: row_value, columns.setting: column_value}
            changes.pop(NO_AXIS.setting, None)
            content = changes.pop("content", arguments.content)
            styles = [changes.pop("style")] if "style" in changes else arguments.style
            chosen = dataclasses.replace(options, **changes)
            check_history(chosen)
            check_blend(chosen, len(styles))
            check_style(chosen)
            if chosen.init == FIRST_DRAFT:
                raise ValueError(f"a sweep does not begin with a draft: choose {', '.join(INITS)} or give a picture")
            parts = {"model": files.model(str(chosen.model)), "content": files.picture(content)}
            parts |= {f"style {number}": files.picture(path) for number, path in enumerate(styles, 1)}
            if chosen.init not in INITS:
                parts["init"] = files.picture(Path(chosen.init))
            cells[row, column] = Cell(chosen, parts, {sha256: files.names[sha256] for sha256 in parts.values()})
    return cells


@dataclass(frozen=True)
class _Costs:
    """What the cells take.

    Parameters
    ----------
    needed : bytes of memory of the largest.
    devices : those that they would be made on here.
    work, pixels : of each cell: multiplications, by ``tools.cli.rendering.work``, and the number of its picture's
        pixels.
    notes : what is to be known of the models.
    """

    needed: int
    devices: set[str]
    work: Mapping[tuple[int, int], float]
    pixels: Mapping[tuple[int, int], int]
    notes: Sequence[str]


def _check_cells(cells: Mapping[tuple[int, int], Cell], files: _Files, quiet: bool) -> _Costs:
    """Return what the cells take; one that cannot be made takes nothing.

    Raises ValueError for what is wrong with every cell, and for layers that a model lacks. One picture of several that
    cannot be read or is too small is its cells' affair, and shown there.
    """

    @functools.lru_cache(maxsize=2)
    def loaded(options: Options, path: Path) -> Network:
        return load(options, path, None)

    @functools.cache
    def size(part: str, sha256: str) -> tuple[int, int]:
        picture = (load_painting if part == "style" else load_image)(files.paths[sha256])
        tell_notes(NAME, [picture], quiet)
        return picture.size

    pairs = {tuple(sha256 for part, sha256 in cell.files.items() if part != "model") for cell in cells.values()}
    one_pair = len(pairs) == 1
    needed = 0
    devices: set[str] = set()
    notes: dict[str, None] = {}
    works: dict[tuple[int, int], float] = {}
    pixels: dict[tuple[int, int], int] = {}
    broken: list[ValueError] = []
    for key, cell in cells.items():
        options = cell.options
        network = loaded(network_part(options), files.paths[cell.files["model"]])
        devices.add(network.device.kind)
        notes |= dict.fromkeys(network.notes)
        options = check_layers(network, options)
        try:
            sizes = {part: size(part.split()[0], sha) for part, sha in cell.files.items() if part != "model"}
            styles = [style for part, style in sizes.items() if part.startswith("style ")]
            cell_size = picture_size(sizes["content"], options)
            takes = check_memory(network, options, cell_size, painting_sizes(styles, options, cell_size))
            check_levels(network, options, sizes["content"], styles)
            needed = max(needed, takes + decoded_bytes(sizes.values()))
            works[key], pixels[key] = work(network, options, sizes["content"]), math.prod(cell_size)
        except ValueError as error:
            if one_pair:
                raise
            broken.append(error)
    if len(broken) == len(cells):
        raise broken[0]
    return _Costs(needed, devices, works, pixels, list(notes))


def _notes(cells: Mapping[tuple[int, int], Cell], files: _Files, threads: int | None) -> list[str]:
    """Return what is to be known: of options that do nothing in any cell, and inputs that contradict a model."""
    of_cells = []
    for cell in cells.values():
        of_cells.append(idle_options(cell.options, sum(part.startswith("style ") for part in cell.files)))
    everywhere = [note for note in of_cells[0] if all(note in others for others in of_cells)]
    if len({cell.options.seed for cell in cells.values()}) > 1 and not any(
        cell.options.init == "noise" for cell in cells.values()
    ):
        everywhere.append(IDLE_SEED)
    models = {(cell.options.preprocessing, cell.files["model"]): cell for cell in cells.values()}
    contradictions = [
        note for cell in models.values() for note in about_preprocessing(cell.options, files.paths[cell.files["model"]])
    ]
    return list(dict.fromkeys([*everywhere, *idle_threads(threads), *contradictions]))


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


def _iterations(options: Options) -> int:
    """Return the iterations of a cell, those of its smaller pictures included."""
    return levels_of(options) * options.iterations


# ---- the sweep ----


class _Sweep:
    """A sweep as its user sees it."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: Options,
        folder: Folder,
        files: _Files,
        workers: Workers,
        costs: _Costs,
    ) -> None:
        self.arguments = arguments
        self.folder = folder
        self.files = files
        self.workers = workers
        self.costs = costs
        self.title = _title(arguments, options, folder)
        self._heard = time.monotonic()
        self._followed: collections.Counter[tuple[int, int]] = collections.Counter()
        # What failed is tried again: the reason may be gone.
        self.todo = [key for key in folder.cells if (record := folder.record(key)) is None or record.failed]

    def make(self) -> str | None:
        """Make what is left to make; return what kept it from coming to the end, or None."""
        total = sum(_iterations(self.folder.cells[key].options) for key in self.todo)
        with Progress(total, "iterations", NAME, quiet=self.arguments.quiet) as progress:
            there = len(self.folder.cells) - len(self.todo)
            already = f", {there} of them there already" if there else ""
            memory = f"about {byte_count(self.costs.needed + PROCESS_BYTES)} of memory"
            each = memory if self.workers.working == 1 else f"{memory} each"
            progress.write(
                f"{NAME}: {counted(len(self.folder.cells), 'cell')}{already}; {self.workers.description}, {each}"
            )
            try:
                if not self.arguments.quiet and self.todo:
                    self._announce_time(progress)
                for key, outcome in self._outcomes(progress):
                    self._finish(key, outcome, progress)
            except ConnectionError as error:
                return str(error)
        return None

    def _announce_time(self, progress: Progress) -> None:
        """Say how long it will take, from an evaluation of the first cell's loss by a worker."""
        work = self.costs.work
        key = next((key for key in self.todo if work.get(key)), None)
        if key is None:
            return
        workers, options = self.workers, self.folder.cells[key].options
        seconds = None
        batch = run_batch(seconds_of_evaluation, [key], self._arguments, workers.executor, 1, self._check_answer)
        for _, found in batch:
            seconds = None if isinstance(found, BaseException) else found
        if seconds is not None:
            # Of a picture in several sizes the last has this share of the work.
            shares = sum(0.25**level for level in range(levels_of(options)))
            whole = seconds * options.iterations * shares
            takes = whole * sum(work.get(other, 0.0) for other in self.todo) / work[key]
            takes /= min(workers.working, sum(other in work for other in self.todo))
            progress.write(f"{NAME}: {seconds:.2g} s an evaluation: about {duration(takes)} for what is to be made")

    def _check_answer(self) -> None:
        """Now and then, raise ConnectionError where there is nobody left who works."""
        if time.monotonic() - self._heard > ASK_SECONDS:
            if not self.workers.alive():
                raise ConnectionError("the cluster has no workers left")
            self._heard = time.monotonic()

    def _arguments(self, key: tuple[int, int]) -> tuple[Any, ...]:
        cell, workers = self.folder.cells[key], self.workers
        files = {sha256: workers.share(sha256, self.files.paths[sha256]) for sha256 in cell.names}
        return cell, files, workers.threads

    def _outcomes(self, progress: Progress) -> Iterator[tuple[tuple[int, int], Outcome]]:
        workers = self.workers

        def follow(key: tuple[int, int], loss: float) -> None:
            self._followed[key] += 1
            progress.update(1, f"{self._called(key)}, loss {loss:.4g}")

        def arguments(key: tuple[int, int]) -> tuple[Any, ...]:
            if begun := self._followed.pop(key, 0):  # it is tried again, from its beginning
                progress.update(-begun)
            return (*self._arguments(key), Tell(functools.partial(follow, key)))

        def waiting() -> None:
            progress.update(0)
            self._check_answer()

        batch = run_batch(make_cell, self.todo, arguments, workers.executor, workers.count, waiting)
        for key, outcome in batch:
            if isinstance(outcome, BaseException):
                if not workers.alive():
                    raise ConnectionError("the cluster has no workers left")
                yield key, Outcome(None, None, {"seconds": 0.0}, f"its workers failed: {describe(outcome)}")
            else:
                yield key, outcome

    def _called(self, key: tuple[int, int]) -> str:
        """Return a cell's name for the user."""
        axes = zip((self.folder.rows, self.folder.columns), key, strict=True)
        labels = [(axis.name, axis.labels[index]) for axis, index in axes if axis.labels[index]]
        return ", ".join(label if axis in FILES else f"{axis}={label}" for axis, label in labels) or "the picture"

    def _finish(self, key: tuple[int, int], outcome: Outcome, progress: Progress) -> None:
        self.folder.save(key, outcome)
        name, facts = self._called(key), outcome.facts
        if outcome.failed is not None:
            progress.write(f"{NAME}: {name}: failed: {outcome.failed}")
        elif self.arguments.verbose:
            progress.write(
                f"{NAME}: {name}: loss {facts['initial_loss']:.4g} -> {facts['loss']:.4g}, {facts['stop_reason']}, "
                f"{duration(facts['seconds'])}"
            )
        ended = "done" if outcome.failed is None else "failed"
        left = _iterations(self.folder.cells[key].options) - self._followed.pop(key, 0)
        progress.update(left, f"{name} {ended}")

    def stopped(self, reason: str) -> str:
        """Write what there is; return what to say of a sweep that stopped before the end."""
        said, _ = self._write()
        return f"{reason}, {said}; the same command goes on where it was"

    def finish(self, lost: str | None) -> int:
        """Write what there is, say how it ended and return the exit code; ``lost`` as ``make`` returned it."""
        if lost is not None:
            tell(f"{NAME}: {self.stopped(lost)}")
            return EXIT_ERROR
        said, failed = self._write()
        if failed:
            wrote = "" if self.arguments.quiet else f"; wrote {self.folder.path / 'sheet.html'}"
            tell(f"{NAME}: {said}, the first for this reason: {failed}{wrote}")
        elif not self.arguments.quiet:
            tell(f"{NAME}: {said}; wrote {self.folder.path / 'sheet.html'}")
        return EXIT_ERROR if failed else 0

    def _write(self) -> tuple[str, str | None]:
        """Write the tables and the sheets; return how much has been made, and the first reason of what failed."""
        grid = self.folder.grid(self.title)
        path = self.folder.path
        write_text(path / "table.csv", table(grid))
        write_text(path / "table.json", json.dumps(entries(grid)))
        save_image(path / "sheet.png", contact_sheet(grid))
        write_text(path / "sheet.html", sweep_page(grid))
        if self.arguments.plot:
            plot_grid(path / "losses.svg", grid)
        reasons = [record.failed for record in grid.records.values() if record.failed is not None]
        said = f"{len(grid.records) - len(reasons)} of {len(self.folder.cells)} cells made"
        return said + (f", {len(reasons)} failed" if reasons else ""), reasons[0] if reasons else None


def _title(arguments: argparse.Namespace, options: Options, folder: Folder) -> str:
    """Return what all cells have in common."""
    swept = {axis.setting for axis in (folder.rows, folder.columns) if len(axis.values) > 1}
    content = "photographs" if "content" in swept else arguments.content.stem
    style = "paintings" if "style" in swept else " and ".join(path.stem for path in arguments.style)
    facts = []
    if "model" not in swept:
        facts.append(Path(str(options.model)).stem)
    facts += [
        f"{getattr(options, name)} {unit}"
        for name, unit in (("size", "px"), ("iterations", "iterations"))
        if name not in swept
    ]
    if "init" not in swept:
        facts.append(f"from {Path(options.init).stem}")
    return f"{content} in the style of {style}: {', '.join(facts)}"


if __name__ == "__main__":
    run(main)
