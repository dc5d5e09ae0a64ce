"""What a run tells of itself: in its pictures and in its log."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

from engine.optimize import Iteration, Result
from engine.stylize import Job
from tools.files import Lines
from tools.options import Options
from tools.record import file_name, origin, versions


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
        **settings,
    }


def texts(settings: Mapping[str, Any], facts: Mapping[str, Any] | None, with_paths: bool) -> dict[str, str]:
    """Return what a picture says of itself; ``facts`` are None for a snapshot."""
    texts = origin("stylize", with_paths) | {"Settings": json.dumps(settings), "Versions": json.dumps(versions())}
    return texts if facts is None else texts | {"Result": json.dumps(facts)}


def facts_of(result: Result, began: float) -> dict[str, Any]:
    """Return how a run ended, as a log and a picture tell it."""
    return {
        "loss": result.value,
        "initial_loss": result.initial_value,
        "iterations": result.iterations,
        "evaluations": result.evaluations,
        "stop": result.stop,
        "stop_reason": result.stop_reason,
        "seconds": round(time.perf_counter() - began, 3),
    }


def standing(job: Job, state: Iteration, began: float) -> dict[str, Any]:
    """Return where a run stands after an iteration.

    Parameters
    ----------
    began : when it did, by ``time.perf_counter``.
    """
    return {
        "iteration": state.iteration,
        "evaluations": state.evaluations,
        "seconds": round(time.perf_counter() - began, 3),
        "loss": state.value,
        "terms": job.objective.terms,
    }


def start_of_log(arguments: argparse.Namespace, options: Options, needed: int) -> dict[str, Any]:
    """Return the log's first entry."""
    settings = settings_of(arguments, options)
    return {"event": "start", "settings": settings, "versions": versions(), "estimated_bytes": needed}


class Log:
    """The log, if there is one; one that breaks off after its first line does not stop the run."""

    def __init__(self, lines: Lines | None) -> None:
        self._lines, self._begun = lines, False

    def write(self, entry: Mapping[str, Any]) -> str | None:
        """Write an entry; return why there are no more from now on, or None.

        Raises ValueError where not even the first can be written.
        """
        if self._lines is None:
            return None
        try:
            self._lines.write(json.dumps(entry))
        except ValueError as error:
            if not self._begun:
                raise
            self._lines = None
            return str(error)
        self._begun = True
        return None
