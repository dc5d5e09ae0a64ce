"""What a run tells of itself: in its pictures and in its log."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from engine.optimize import Iteration, Result
from engine.stylize import Job
from tools.cli.options import Options
from tools.cli.progress import Progress
from tools.cli.session import Facts, Listener, seconds_since
from tools.media.files import Lines
from tools.media.record import file_name, origin, versions

NAME = "stylize"


def settings_of(arguments: argparse.Namespace, options: Options) -> dict[str, Any]:
    """Return what a picture was made from and with; files by their names, unless ``--record-paths`` was given."""
    with_paths = arguments.record_paths
    settings = dataclasses.asdict(options)
    for name in ("model", "init"):
        if settings[name] is not None:
            settings[name] = file_name(settings[name], with_paths)
    return {
        "content": file_name(arguments.content, with_paths),
        "style": [file_name(path, with_paths) for path in arguments.style],
        "mask": [file_name(path, with_paths) for path in arguments.mask],
        **{
            name: None if path is None else file_name(path, with_paths)
            for name, path in (("keep", arguments.keep), ("coarse_style", arguments.coarse_style))
        },
        **settings,
    }


def start_of_log(arguments: argparse.Namespace, options: Options, needed: int) -> dict[str, Any]:
    """Return the log's first entry; ``needed`` are the bytes of memory, estimated."""
    settings = settings_of(arguments, options)
    return {"event": "start", "settings": settings, "versions": versions(), "estimated_bytes": needed}


def texts(
    arguments: argparse.Namespace, options: Options, inputs: Mapping[str, Any], facts: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return what a picture says of itself.

    Parameters
    ----------
    inputs : the files' SHA-256, see ``Task``.
    facts : what came of the run; None for a snapshot.
    """
    settings = {"Settings": json.dumps(settings_of(arguments, options)), "Inputs": json.dumps(inputs)}
    made = settings | {"Versions": json.dumps(versions())}
    texts = origin(NAME, arguments.record_paths, arguments.command) | made
    return texts if facts is None else texts | {"Result": json.dumps(facts)}


class Log:
    """The log, if there is one; one that breaks off after its first line does not stop the run.

    Parameters
    ----------
    lines : what it is written to, or None.
    start : the first entry.
    begun : whether that is written already, by a run that this one goes on from.
    """

    def __init__(self, lines: Lines | None, start: Mapping[str, Any], begun: bool = False) -> None:
        self._lines, self._start, self._begun = lines, start, begun

    @property
    def size(self) -> int | None:
        """How many bytes it has, or None where there is none."""
        return None if self._lines is None else self._lines.size

    def begin(self) -> None:
        """Write the first entry, once; raises ValueError where it cannot be written."""
        if self._lines is not None and not self._begun:
            self._lines.write(json.dumps(self._start))
            self._begun = True

    def write(self, entry: Mapping[str, Any], progress: Progress) -> None:
        """Write an entry; where that cannot be, say so and be silent from then on."""
        if self._lines is not None:
            try:
                self._lines.write(json.dumps(entry))
            except ValueError as error:
                self._lines = None
                progress.write(f"{NAME}: {error}; going on without a log")


class Entries(Listener):
    """Writes the events of a run into the log.

    Parameters
    ----------
    began : when it did, by ``time.perf_counter``.
    level : what its entries say of its size, one of several before the last.
    """

    def __init__(self, log: Log, progress: Progress, began: float, level: Mapping[str, Any] | None = None) -> None:
        self._log, self._progress, self._began, self._level = log, progress, began, level

    def start(self, job: Job) -> None:
        """Write the first entry, where this is the first run."""
        self._log.begin()

    def iteration(self, state: Iteration) -> None:
        """Write where the run stands."""
        level = {} if self._level is None else {"level": self._level["level"]}
        where = {"iteration": state.iteration, "evaluations": state.evaluations, "seconds": seconds_since(self._began)}
        terms = {"loss": state.value, "terms": state.terms}
        self.write({"event": "iteration", **level, **where, **terms})

    def end(self, result: Result, facts: Facts) -> None:
        """Write how it ended."""
        self.write({"event": "end", **facts} if self._level is None else {"event": "level", **self._level, **facts})

    def write(self, entry: Mapping[str, Any]) -> None:
        """Write an entry of another listener."""
        self._log.write(entry, self._progress)
