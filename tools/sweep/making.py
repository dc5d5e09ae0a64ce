"""Making the cells of a sweep that are left to make, and writing what there is of it."""

from __future__ import annotations

import argparse
import collections
import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.batch import run_batch
from tools.cli.command_line import EXIT_ERROR, describe, tell
from tools.cli.options import Options, levels_of
from tools.cli.progress import Progress, counted, duration
from tools.media.files import byte_count, write_text
from tools.media.plot import plot_grid
from tools.media.saving import save_image
from tools.sweep.axes import FILES
from tools.sweep.cells import Outcome, make_cell, seconds_of_evaluation
from tools.sweep.folder import Folder
from tools.sweep.page import sweep_page
from tools.sweep.plan import NAME, Costs, Files
from tools.sweep.table import contact_sheet, entries, table
from tools.sweep.workers import PROCESS_BYTES, Tell, Workers

ASK_SECONDS = 10.0
"""A cluster that has had nothing to tell for so long is asked whether it is still there."""


class Sweep:
    """A sweep as its user sees it.

    Parameters
    ----------
    arguments, options : of the command line.
    folder : of the sweep, claimed.
    files : the cells' input files.
    workers : make the cells.
    costs : of the cells.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: Options,
        folder: Folder,
        files: Files,
        workers: Workers,
        costs: Costs,
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
        left = _iterations(self.folder.cells[key].options) - self._followed.pop(key, 0)
        if outcome.failed is None:
            progress.update(left, f"{name} done")
        else:
            progress.shrink(left, f"{name} failed")

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


def _iterations(options: Options) -> int:
    """Return the iterations of a cell, those of its smaller pictures included."""
    return levels_of(options) * options.iterations
