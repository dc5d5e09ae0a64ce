"""Many photographs with one painting: each a picture as by itself, with one progress for all."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.cli.command_line import EXIT_ERROR, EXIT_INTERRUPTED, describe, tell
from tools.cli.options import Options, levels_of
from tools.cli.progress import Progress, counted, duration
from tools.cli.session import Bar, Session, facts_of, seconds_since
from tools.media.files import check_writable, make_folder, remove_unfinished, write_text
from tools.media.images import pictures_in, read_text
from tools.media.record import fits, parsed_json
from tools.models.cache import announce_draft
from tools.stylize.account import NAME
from tools.stylize.checkpoint import decisive, settings_of
from tools.stylize.outputs import inputs_beside, is_snapshot, same_file
from tools.stylize.picture import make_picture
from tools.stylize.task import Given, Task, read_given, read_task

SUFFIX = ".png"
"""Of the pictures: what they record of themselves says next time whether they are there already."""

OF_ONE = ("preview", "log", "plot", "timelapse", "checkpoint")
"""Options that write a file of one picture's."""

FINISHED = ("iterations", "converged", "stalled")
"""How a run ends that leaves nothing to be done."""


@dataclass(frozen=True)
class Item:
    """One photograph, the picture of it, and what came of it.

    Parameters
    ----------
    state : ``"made"``, ``"skipped"`` (it was there), ``"failed"``, ``"interrupted"`` or ``"left"`` (it was not begun).
    facts : of a run, or the ``error``.
    """

    photograph: Path
    output: Path
    state: str = "left"
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """Return what the summary says of it."""
        return {"photograph": str(self.photograph), "output": str(self.output), "state": self.state, **self.facts}


def make_batch(arguments: argparse.Namespace, options: Options, check: Callable[[Task], None]) -> int:
    """Make a picture of each photograph; return the exit code.

    One that cannot be made is told, and the others are made. One that is there, made of the same files with the same
    settings, is left as it is.

    Parameters
    ----------
    check : raises ValueError where the inputs are not those of the picture that is made again.

    Raises ValueError for what concerns all of them.
    """
    for name in OF_ONE:
        if getattr(arguments, name):
            raise ValueError(f"--{name} is for one picture, and there are several photographs: leave it out")
    items = _items(arguments)
    if arguments.summary is not None:
        _check_summary(arguments, items)
    began = time.perf_counter()
    session = Session(NAME, "interrupted before the first picture")
    code = session.run(lambda: _make_all(arguments, options, check, session, items))
    counts = {state: sum(item.state == state for item in items) for state in ("made", "skipped", "failed", "left")}
    if not arguments.quiet:
        told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        took = duration(time.perf_counter() - began)
        tell(f"{NAME}: {counted(len(items), 'photograph')} in {took}: {told or 'interrupted'}")
    if arguments.summary is not None:
        ended = {"seconds": seconds_since(began), "exit_code": code}
        summary = {**counts, **ended, "photographs": [item.told() for item in items]}
        write_text(arguments.summary, json.dumps(summary, indent=1) + "\n")
    return code


def _items(arguments: argparse.Namespace) -> list[Item]:
    """Return the photographs and the names of their pictures; raise ValueError where two would have one name."""
    folder: Path = arguments.output
    if folder.is_file() or (folder.suffix and not folder.exists()):
        raise ValueError(f"several photographs are written to a folder: give one for -o, not {str(folder)!r}")
    given = [arguments.content, *arguments.more]
    listed = [found for path in given for found in (pictures_in(path) if path.is_dir() else [path])]
    photographs = list(dict.fromkeys(listed))
    if any(same_file(path.parent, folder) for path in photographs):
        raise ValueError(f"{str(folder)!r} is where the photographs are: give another folder for -o")
    stems = [path.stem for path in photographs]
    called = [path.stem if stems.count(path.stem) == 1 else path.name for path in photographs]
    items = [Item(path, folder / f"{name}{SUFFIX}") for path, name in zip(photographs, called, strict=True)]
    names: dict[str, Path] = {}
    for item in items:
        other = names.setdefault(item.output.name.lower(), item.photograph)
        if other != item.photograph:
            raise ValueError(
                f"{str(other)!r} and {str(item.photograph)!r} would both be {str(item.output)!r}: rename one of them"
            )
    every = arguments.save_every
    for item in items if every else ():
        photograph, _, number = item.output.stem.lower().rpartition("-")
        if number.isdigit() and (whole := names.get(f"{photograph}{SUFFIX}")) is not None:
            raise ValueError(
                f"a snapshot of {str(whole)!r} may be called {str(item.output)!r}, as another's picture: leave out "
                "--save-every, or rename one of them"
            )
    for path in inputs_beside(arguments):
        if any(same_file(path, item.output) or (every and is_snapshot(item.output, path)) for item in items):
            raise ValueError(f"{str(path)!r} is an input, it would be overwritten: choose another folder for -o")
    return items


def _check_summary(arguments: argparse.Namespace, items: list[Item]) -> None:
    """Raise ValueError for a summary that cannot be written, or would be written over something."""
    check_writable(arguments.summary)
    model = [] if arguments.model is None else [Path(arguments.model)]
    others = [*inputs_beside(arguments), *model, *(path for item in items for path in (item.photograph, item.output))]
    if any(same_file(arguments.summary, path) for path in others):
        raise ValueError(f"--summary {str(arguments.summary)!r} is also a picture's name or an input: choose another")


def _make_all(
    arguments: argparse.Namespace,
    options: Options,
    check: Callable[[Task], None],
    session: Session,
    items: list[Item],
) -> int:
    """Make the pictures, and put what came of each into ``items``; return the exit code."""
    make_folder(arguments.output)
    remove_unfinished(arguments.output)
    given = read_given(arguments, options)
    each = levels_of(given.options) * given.options.iterations
    announce_draft(NAME, arguments.model, given.options.model, arguments.quiet)
    if not arguments.quiet:
        tell(f"{NAME}: {counted(len(items), 'photograph')}, model {given.options.model}, {given.network.place}")
    with Progress(len(items) * each, "iterations", NAME, quiet=arguments.quiet) as progress:
        for number, item in enumerate(items):
            bar = Bar(progress, f"{number + 1} of {len(items)}, {item.photograph.name}")
            items[number] = dataclasses.replace(item, state="interrupted")
            items[number] = done = _make_one(arguments, given, check, session, item, bar)
            bar.complete(each, "")
            if done.state == "interrupted":
                return EXIT_INTERRUPTED
            if done.state == "made":
                loss = f"loss {done.facts['initial_loss']:.4g} -> {done.facts['loss']:.4g}"
                progress.write(
                    f"{NAME}: {item.photograph}: {loss}, {duration(done.facts['seconds'])}; wrote {item.output}"
                )
            elif done.state == "skipped":
                progress.write(f"{NAME}: {item.photograph}: {item.output} is there, by the same settings")
            else:
                error = done.facts["error"]
                tell(f"{NAME}: {error}" if str(item.photograph) in error else f"{NAME}: {item.photograph}: {error}")
    return EXIT_ERROR if any(item.state == "failed" for item in items) else 0


def _make_one(
    arguments: argparse.Namespace,
    given: Given,
    check: Callable[[Task], None],
    session: Session,
    item: Item,
    bar: Bar,
) -> Item:
    """Make one picture; return the item with what came of it."""
    began = time.perf_counter()
    of_one = copy.copy(arguments)
    of_one.content, of_one.output, of_one.quiet = item.photograph, item.output, True
    session.keep = lambda: f"interrupted, {item.output} was not written"
    try:
        task = read_task(of_one, given.options, given)
        check(task)
        if is_done(task):
            return dataclasses.replace(item, state="skipped")
        result = make_picture(task, session, further=[bar])
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        return dataclasses.replace(item, state="failed", facts={"error": describe(error)})
    facts = facts_of(result, began)
    if result.stop == "interrupted":
        tell(f"{NAME}: interrupted; wrote the best picture so far, {item.output}")
        return dataclasses.replace(item, state="interrupted", facts=facts)
    if result.stop == "non-finite":
        return dataclasses.replace(item, state="failed", facts={**facts, "error": result.stop_reason})
    return dataclasses.replace(item, state="made", facts=facts)


def is_done(task: Task) -> bool:
    """Tell whether a task's picture is there: made of the same files, with the same settings, to the end."""
    try:
        text = read_text(task.arguments.output)
    except ValueError:
        return False
    settings, inputs, result = (parsed_json(text.get(name, "")) for name in ("Settings", "Inputs", "Result"))
    return (
        inputs == json.loads(json.dumps(task.inputs))
        and fits(settings, {})
        and decisive(settings) == settings_of(task.filled)
        and fits(result, {"stop": str})
        and result["stop"] in FINISHED
    )
