"""Checkpoints: a run that lives on disk, and goes on from there to the same bits."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.multiscale import Level
from engine.optimize import Iteration, Result
from engine.optimizers import check_resumable
from engine.saved import State
from engine.stylize import Job
from tools.cli.command_line import positive_float, positive_int, tell
from tools.cli.curve import Curve
from tools.cli.interruption import Postponement
from tools.cli.machine import cpu_name
from tools.cli.options import STARTS, Options, levels_of
from tools.cli.progress import Progress
from tools.cli.session import Facts, Listener
from tools.media.archive import read_archive, write_archive
from tools.media.picture import Picture
from tools.media.record import PROJECT, fits, versions
from tools.stylize.account import NAME, Log
from tools.stylize.recorded import plain
from tools.stylize.task import Task
from tools.stylize.timelapse import Timelapse

LOG_BEGINS = b'{"event": "start"'

FORMAT = 3
"""Of the file; one that a later program changes gets the next number."""

_FORM = {
    "format": int,
    "program": str,
    "versions": {str: str},
    "processor": str,
    "arguments": {"content": str, "style": [str], "output": str},
    "settings": {"size": int},
    "inputs": {"content": str, "style": [str], "model": str},
    "device": str,
    "level": int,
    "levels": int,
    "iteration": int,
    "seconds": float,
    "points": [[float]],
    "timelapse": int,
}

_FRAME = "frame "

_INPUTS = {
    "content": "the photograph",
    "style": "a painting",
    "mask": "a mask",
    "keep": "the picture of --keep",
    "coarse_style": "the painting of --coarse-style",
    "init": "the first picture",
    "model": "the model",
}


@dataclass(frozen=True)
class Every:
    """How often something is done: after so many iterations, or seconds."""

    iterations: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.seconds:g}s" if self.iterations is None else str(self.iterations)


def every(text: str) -> Every:
    """Argument type: iterations, or seconds with an s behind them."""
    if text.endswith("s"):
        return Every(seconds=positive_float(text[:-1]))
    try:
        return Every(iterations=positive_int(text))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor seconds as 30s") from None


class Checkpoints(Listener):
    """Writes the checkpoints of a run, in all its sizes; tell it of each with ``at``.

    Parameters
    ----------
    timelapse : whose pictures are kept with the rest, or None.
    postponement : of an interruption, to the end of an iteration, which a last checkpoint keeps.
    """

    def __init__(self, task: Task, log: Log, timelapse: Timelapse | None, postponement: Postponement) -> None:
        self._postponement = postponement
        self._path: Path | None = task.arguments.checkpoint
        self._every: Every = task.arguments.checkpoint_every
        self._log, self._timelapse, self._optimizer = log, timelapse, task.options.optimizer
        self._written, self._iterations, self._failed = time.monotonic(), 0, False
        self._about = {
            "format": FORMAT,
            "program": PROJECT,
            "versions": versions(),
            "processor": cpu_name(),
            "arguments": {**plain(task.arguments), "model": plain_model(task)},
            "settings": settings_of(task.filled),
            "inputs": task.inputs,
            "device": task.network.device.kind,
            "levels": levels_of(task.options),
        }

    def begin(self) -> None:
        """Write a checkpoint of nothing yet, so that there is one from the beginning; raises ValueError."""
        if self._path is not None:
            check_resumable(self._optimizer)
            nothing = {"level": 1, "iteration": 0, "seconds": 0.0, "points": [], "log": None, "timelapse": 0}
            write_archive(self._path, self._about | nothing, {})

    def at(self, level: Level, progress: Progress, began: float, curve: Curve | None = None) -> Checkpoints:
        """Tell of a size that begins, and of what else there is to keep; return itself."""
        self._level, self._progress, self._began, self._curve = level, progress, began, curve
        return self

    def start(self, job: Job) -> None:
        """Hear that the first iteration begins."""
        self._last = job.settings.iterations
        self._postponement.begin()

    def iteration(self, state: Iteration) -> None:
        """Write a checkpoint, where one is due; raises KeyboardInterrupt behind it where the run is to end here."""
        self._iterations += 1
        if self._path is None:
            return
        ends = self._postponement.asked
        if self._every.iterations is not None:
            due = self._iterations >= self._every.iterations
        else:
            due = time.monotonic() - self._written >= (self._every.seconds or 0)
        if due or ends:
            self._write(self._path, state)
            self._iterations, self._written = 0, time.monotonic()
        if ends and state.iteration < self._last:
            raise KeyboardInterrupt
        self._postponement.iterated()

    def end(self, result: Result, facts: Facts) -> None:
        """Have an interruption wait no longer."""
        self._postponement.rest()

    def _write(self, path: Path, state: Iteration) -> None:
        frames, step = ([], 0) if self._timelapse is None else (self._timelapse.frames, self._timelapse.step)
        about = {
            **self._about,
            "level": self._level.number,
            "iteration": state.iteration,
            "seconds": time.perf_counter() - self._began,
            "points": [] if self._curve is None else self._curve.points,
            "log": self._log.size,
            "timelapse": step,
        }
        pictures = {f"{_FRAME}{number}": frame for number, frame in enumerate(frames)}
        try:
            write_archive(path, about, {**state.state(), **pictures})
            self._failed = False
        except ValueError as error:  # a full disk shall not cost the picture
            if not self._failed:
                kept = ", the one before it is kept" if path.exists() else ""
                self._progress.write(f"{NAME}: checkpoint left out{kept}: {error}")
            self._failed = True


def settings_of(options: Options) -> dict[str, Any]:
    """Return what a run's bits depend on, as JSON knows it; files are told by their hashes."""
    return decisive(json.loads(json.dumps(dataclasses.asdict(options))))


def decisive(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of recorded settings that a picture's bits depend on, layers with their weights.

    A first picture out of a file counts by its hash, which is recorded elsewhere. What has other settings than a
    picture of this program comes out as it is, and equals none.
    """
    settings = dict(recorded)
    names = [field.name for field in dataclasses.fields(Options) if field.name not in ("model", "device")]
    if not (set(names) <= settings.keys() and fits(settings, {"size": int, "init": str})):
        return settings
    if settings["init"] not in STARTS:
        settings["init"] = "a file"
    for name, share in (("content_layers", 1.0), ("style_layers", None)):
        if fits(settings[name], [str]):
            settings[name] = dict.fromkeys(settings[name], share or 1 / max(len(settings[name]), 1))
    return {name: settings[name] for name in names}


def plain_model(task: Task) -> Any:
    """Return the name of the model as a later run shall find it, also where nobody named one."""
    return plain(argparse.Namespace(model=str(task.options.model)))["model"]


@dataclass(frozen=True, eq=False)
class Resumed:
    """A checkpoint to go on from.

    Parameters
    ----------
    path : of its file.
    about : what it says of the run, of the form that is expected.
    best : the best image so far, as ``minimize`` has it; None for a run that had made no iteration.
    frames : of the timelapse.
    """

    path: Path
    about: Mapping[str, Any]
    best: NDArray[Any] | None
    frames: list[NDArray[np.uint8]]

    def state(self) -> State | None:
        """Read the state for ``minimize``, as large as all that the run holds; None where it had made no iteration.

        Raises ValueError where the file is another by now.
        """
        about, arrays = read_archive(self.path, lambda name: not name.startswith(_FRAME))
        if about != self.about:
            raise ValueError(f"{str(self.path)!r} has been written anew since it was read: another run works on it")
        return arrays or None

    @property
    def level(self) -> int:
        """The number of the size that was being made."""
        return int(self.about["level"])

    @property
    def levels(self) -> int:
        """How many sizes the picture has."""
        return int(self.about["levels"])

    @property
    def iteration(self) -> int:
        """How many iterations of it there were."""
        return int(self.about["iteration"])

    @property
    def where(self) -> str:
        """Where the run goes on, in words."""
        of_level = f"level {self.level} of {self.levels}"
        if self.iteration >= self.about["settings"].get("iterations", self.iteration + 1):
            return f"behind {of_level}" if self.levels > 1 else "at its end"
        return f"from iteration {self.iteration + 1}" + (f" of {of_level}" if self.levels > 1 else "")

    @property
    def picture(self) -> Picture | None:
        """The best picture so far, at that size; None where there is none yet."""
        return None if self.best is None else Picture(self.best.astype(np.float32), None)

    def log_bytes(self, path: Path | None) -> int:
        """Return how many bytes of a log were written before the checkpoint; what follows is to be written anew.

        Raises ValueError where the file there is something else.
        """
        size: int | None = self.about.get("log")
        if path is None or not size or str(path.absolute()) != self.about["arguments"].get("log"):
            return 0
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(LOG_BEGINS)) not in (b"", LOG_BEGINS):
                    raise ValueError(f"{str(path)!r} is not the log of that run: give another --log")
        return size

    def check(self, task: Task) -> None:
        """Raise ValueError where a run would not come to the same end; say so where the machine is another."""
        for name, what in _INPUTS.items():
            if self.about["inputs"].get(name) != task.inputs[name]:
                raise ValueError(
                    f"{what} is not the one that {str(self.path)!r} was made with: its content has changed"
                )
        settings = settings_of(task.filled)
        # The content weight follows from others, which are to be named.
        for name, value in sorted(settings.items(), key=lambda item: item[0] == "content_weight"):
            recorded = self.about["settings"].get(name)
            if recorded != value:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{str(self.path)!r} was made with {option} {recorded}, this is {value}: leave it out")
        device = task.network.device.kind
        if self.about["device"] != device:
            raise ValueError(f"{str(self.path)!r} was made on {self.about['device']}, this is {device}")
        if self.levels != levels_of(task.options) or not 1 <= self.level <= self.levels:
            raise ValueError(f"{str(self.path)!r} was made in other sizes: make the picture anew")
        if self.about["processor"] != cpu_name() and not task.arguments.quiet:
            tell(f"{NAME}: the checkpoint was made on another processor: the end may differ in the last bits")


def read_checkpoint(path: Path) -> Resumed:
    """Return a checkpoint; raises ValueError for what is none, is damaged or was made by another version."""
    about, arrays = read_archive(path, lambda name: name in ("best", "counts") or name.startswith(_FRAME))
    if not fits(about, {"format": int, "program": str}) or about["program"] != PROJECT:
        raise ValueError(f"{str(path)!r} is no checkpoint of this program")
    if about["format"] != FORMAT:
        raise ValueError(f"{str(path)!r} is a checkpoint of format {about['format']}, this program reads {FORMAT}")
    best, counts = arrays.get("best"), arrays.get("counts")
    frames = [array for name, array in arrays.items() if name.startswith(_FRAME)]
    whole = fits(about, _FORM) and (about.get("log") is None or (fits(about["log"], int) and about["log"] >= 0))
    if not (whole and _is_state(best, counts, about["iteration"]) and _are_frames(frames, about["timelapse"])):
        raise ValueError(f"{str(path)!r} is a checkpoint that is damaged: make the picture anew")
    now = versions()
    for name, recorded in about["versions"].items():
        if name not in ("python", "onnx") and now.get(name) != recorded:
            raise ValueError(
                f"{str(path)!r} was made with {name} {recorded}, this is {now.get(name, 'none')}: with another version "
                "the end would be another, go on with that one or make the picture anew"
            )
    return Resumed(path, about, best, frames)


def _is_state(best: NDArray[Any] | None, counts: NDArray[Any] | None, iteration: int) -> bool:
    """Tell whether there is a picture, and as many iterations as were said; the rest is the optimizer's to look at."""
    if best is None or counts is None:
        return best is counts and iteration == 0
    return best.ndim == 3 and best.shape[2] == 3 and best.size > 0 and counts.size == 2 and counts.flat[0] == iteration


def _are_frames(frames: list[NDArray[np.uint8]], step: int) -> bool:
    """Tell whether all frames have one shape, and nothing is wrong with how far they are apart."""
    alike = all(frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape == frames[0].shape for frame in frames)
    return step >= 0 and (not frames or (alike and step > 0))
