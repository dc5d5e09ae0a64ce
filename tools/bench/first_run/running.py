"""Running steps: each in a process of its own, which is started anew behind an item that failed.

What an error leaves behind on a GPU may make all later calls of its process fail, and a kernel that does not end cannot
be interrupted from within: so the process ends, and the next one goes on with the next item. A process writes a line
when it begins an item and one when it has done it; that file is all that the two know of each other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tools.bench.first_run.steps import STEPS, Bench, LeftOutError, Plan
from tools.cli.command_line import describe

POLL_SECONDS = 0.05

START_SECONDS = 60.0
"""That a process may take until it begins its first item: it loads libraries and opens the GPU."""

TOTAL_SECONDS = 540.0
"""After which nothing new is begun: machines are often lent for ten minutes."""

FAILED = 3
"""Exit code of a process that is to be started anew."""

Entry = dict[str, Any]
"""An item's outcome: its name, ``state`` (``"done"``, ``"wrong"``, ``"left out"``, ``"failed"``), ``seconds``, and
``rows`` or ``reason``; ``warnings`` where there were any."""


def perform(plan: Plan, name: str) -> int:
    """Do what is left of a step, as far as the first item that fails; return the exit code."""
    step, bench, path = STEPS[name], Bench(plan), outcome_file(plan.folder, name)
    done = {one["item"] for one in read(path)}
    with path.open("a", encoding="utf-8") as file:
        for item in step.items(bench):
            if item in done:
                continue
            _write(file, {"item": item, "state": "begun"})
            entry = _outcome(bench, name, item)
            _write(file, entry)
            if entry["state"] == "failed":
                return FAILED
    return 0


def _outcome(bench: Bench, name: str, item: str) -> Entry:
    began = time.perf_counter()
    entry: Entry = {"item": item}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = STEPS[name].perform(bench, item)
            rows = [dict(found)] if isinstance(found, Mapping) else [dict(row) for row in found]
            right = not [row for row in rows if not row.pop("right", True)]
            entry |= {"state": "done" if right else "wrong", "rows": rows}
        except LeftOutError as reason:
            entry |= {"state": "left out", "reason": str(reason)}
        except Exception as error:  # whatever it is, the rest of the run is worth more
            entry |= {"state": "failed", "reason": f"{type(error).__name__}: {describe(error)}"[:500]}
    if told:
        entry["warnings"] = sorted({" ".join(str(one.message).split()) for one in told})
    return entry | {"seconds": time.perf_counter() - began}


def run_step(
    folder: Path, name: str, command: Sequence[str], deadline: float, limit: float, clock: Callable[[], float]
) -> list[Entry]:
    """Do a step in as many processes as it takes, and return what became of its items.

    Parameters
    ----------
    folder, name : where results go, and which step.
    command : starts a process that does what is left of the step.
    deadline : by the clock, when the whole run is over.
    limit : seconds that an item may take.
    clock : in seconds.
    """
    path = outcome_file(folder, name)
    while True:
        if clock() > deadline:
            _append(path, {"item": "the rest", "state": "left out", "reason": "the time for the whole run is over"})
            break
        before = len(read(path))
        with path.with_suffix(".log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
            late = _watch(process, path, limit, clock)
        if process.returncode == 0:
            break
        entries = read(path)
        if entries and entries[-1]["state"] == "begun":
            _append(path, {"item": entries[-1]["item"], "state": "failed", "reason": late or _ending(process)})
        elif len(entries) == before:  # it has begun nothing: another one would not either
            reason = late or f"{_ending(process)}: {_last_line(path.with_suffix('.log'))}"
            _append(path, {"item": "start", "state": "failed", "reason": reason})
            break
    return [entry for entry in read(path) if entry["state"] != "begun"]


def _watch(process: subprocess.Popen[bytes], path: Path, limit: float, clock: Callable[[], float]) -> str:
    """Wait for a process, and end it where an item takes too long; return a sentence then, else an empty one."""
    lines, since, begun = len(read(path)), clock(), False
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            now = len(read(path))
            if now != lines:
                lines, since, begun = now, clock(), True
            allowed = limit if begun else START_SECONDS
            if clock() - since > allowed:
                _kill(process)
                return f"it took more than {allowed:g} s"
    finally:
        if process.poll() is None:  # Ctrl-C
            _kill(process)
    return ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process with those that it has started: a tool that it waits for would go on."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)  # its own group, for it was started in a session of its own
    else:
        process.kill()
    process.wait()


def _ending(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")[:300]


def outcome_file(folder: Path, name: str) -> Path:
    """Return where a step's process writes what becomes of its items."""
    return folder / f"{name}.jsonl"


def read(path: Path) -> list[Entry]:
    """Return the whole lines of an outcome file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _write(file: TextIO, entry: Entry) -> None:
    file.write(json.dumps(entry) + "\n")
    file.flush()


def _append(path: Path, entry: Entry) -> None:
    with path.open("a", encoding="utf-8") as file:
        _write(file, entry)
