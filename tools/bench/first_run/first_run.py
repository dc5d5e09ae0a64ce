"""``python -m tools.bench --device cuda --first-run DIR``: all steps, in order, whatever becomes of each."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.bench.first_run import page
from tools.bench.first_run.running import TOTAL_SECONDS, Entry, run_step
from tools.bench.first_run.steps import STEPS
from tools.media.files import check_folder, make_folder

PROGRAM = (sys.executable, "-m", "tools.bench")


def check(folder: Path) -> None:
    """Raise ValueError for a folder that has something in it: results of two runs would be mixed."""
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"the folder {str(folder)!r} is not empty: give --first-run a new one")


def first_run(
    folder: Path,
    options: Sequence[str],
    on_step: Callable[[str], object] = lambda _: None,
    *,
    program: Sequence[str] = PROGRAM,
    steps: Sequence[str] = tuple(STEPS),
    seconds: float = TOTAL_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, list[Entry]]:
    """Do all steps and return what became of their items; each is written to the folder when it is over.

    Parameters
    ----------
    folder : new or empty.
    options : the command line, which each step's process gets too.
    on_step : called with each step that is over.
    program : that is started for a step.
    steps : names out of ``STEPS``.
    seconds : after which nothing new is begun.
    clock : in seconds.

    Raises ValueError where there is no GPU.
    """
    check(folder)
    make_folder(folder)
    deadline, date, found = clock() + seconds, time.strftime("%Y-%m-%d %H:%M"), dict[str, list[Entry]]()
    for name in steps:
        command = [*program, *options, "--perform", name]
        found[name] = run_step(folder, name, command, deadline, STEPS[name].limit, clock)
        page.write(folder, date, found)
        on_step(name)
        if name == "device" and all(entry["state"] == "failed" for entry in found[name]):
            raise ValueError(f"device 'cuda' is not available: {found[name][-1]['reason']}")
    return found
