"""One picture of a sweep, made from files and options alone, on whatever machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.multiscale import Level, coarse_to_fine
from engine.network import Network
from engine.optimize import Iteration, Result
from engine.stylize import Job, first_evaluation
from tools.cli import estimate
from tools.cli.command_line import describe
from tools.cli.curve import Curve
from tools.cli.options import Options, network_part
from tools.cli.rendering import (
    at_level,
    check_levels,
    check_memory,
    finished,
    first_picture,
    painting_sizes,
    picture_levels,
    picture_size,
    rendering,
)
from tools.cli.session import Facts, Listener, follow, seconds_since, standing, standing_at_end
from tools.media.files import sha256_of
from tools.media.images import load_image, load_painting
from tools.media.picture import Picture, resize
from tools.media.record import file_name
from tools.models.loading import load
from tools.sweep.axes import FIXED

Content = Path | bytes
"""A file where it lies, or what is in it."""

_LOCK = threading.Lock()


@dataclass(frozen=True)
class Cell:
    """What a picture depends on.

    Parameters
    ----------
    options : with ``model`` and ``init`` as the user named them.
    files : SHA-256 by part: ``model``, ``content``, ``style 1``, ``style 2`` ..., ``init`` where that is a file.
    names : the files' names by SHA-256, for messages.
    """

    options: Options
    files: Mapping[str, str]
    names: Mapping[str, str]

    def settings(self) -> dict[str, Any]:
        """Return everything that the picture depends on, as JSON knows it; where it was made is not part of that.

        Files are named without their folders.
        """
        settings = {name: value for name, value in dataclasses.asdict(self.options).items() if name not in FIXED}
        settings |= {name: file_name(settings[name]) for name in ("model", "init") if settings[name] is not None}
        plain: dict[str, Any] = json.loads(json.dumps(settings | {"files": dict(self.files)}))
        return plain


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a cell.

    Parameters
    ----------
    image : (H, W, 3), RGB, 0..255, or None where it failed.
    alpha : the photograph's, (H, W), 0..1, or None.
    facts : as JSON knows them, see ``Record``; the times apart, they are the same wherever the cell was made.
    failed : the reason in one sentence, or None.
    """

    image: NDArray[np.float64] | None
    alpha: NDArray[np.float32] | None
    facts: dict[str, Any]
    failed: str | None


def make_cell(
    cell: Cell,
    files: Mapping[str, Content],
    threads: int,
    tell: Callable[[float], object] | None = None,
) -> Outcome:
    """Make one picture; what is wrong with its files or options comes back as the outcome's reason.

    Parameters
    ----------
    cell : what to make.
    files : by SHA-256.
    threads : to compute with; the picture does not depend on it.
    tell : called with the loss after each iteration, at each of its sizes.

    Raises KeyboardInterrupt where it was interrupted: a cell is made whole or not at all.
    """
    began = time.perf_counter()
    try:
        # A network's buffers and the threads of BLAS belong to the process: a worker with several threads waits.
        with _LOCK:
            return _make(cell, files, threads, [] if tell is None else [_Steps(tell)], began)
    except (ValueError, OSError, ArithmeticError) as error:
        reason = describe(error)
    except MemoryError:
        reason = "out of memory: try a smaller size or fewer workers"
    return Outcome(None, None, {"seconds": seconds_since(began)}, reason)


def seconds_of_evaluation(cell: Cell, files: Mapping[str, Content], threads: int) -> float | None:
    """Return how long an evaluation of a cell's loss takes here at its last size, or None where that cannot be told.

    Parameters
    ----------
    cell, files, threads : as in ``make_cell``.
    """
    with contextlib.suppress(ValueError, OSError, ArithmeticError, MemoryError), _LOCK:
        levels, prepared = _prepare(cell, files, threads)
        return estimate.seconds_of_evaluation(prepared(levels[-1], None)[1])[1]
    return None


def _make(
    cell: Cell,
    files: Mapping[str, Content],
    threads: int,
    listeners: Sequence[Listener],
    began: float,
) -> Outcome:
    pictures = coarse_to_fine(*_prepare(cell, files, threads))
    level, (photograph, job) = next(pictures)
    while not level.is_last:
        level, (photograph, job) = pictures.send(_whole(job, listeners, began)[0])
    first_evaluation(job)
    result, facts = _whole(job, [_Account(), *listeners], began)
    head = {"loss": result.value, "initial_loss": result.initial_value, "content_weight": job.settings.content_weight}
    image = finished(result.image, photograph, cell.options)
    return Outcome(image, photograph.alpha, head | facts | {"seconds": seconds_since(began)}, None)


def _prepare(
    cell: Cell, files: Mapping[str, Content], threads: int
) -> tuple[list[Level], Callable[[Level, NDArray[np.float32] | None], tuple[Picture, Job]]]:
    """Return a cell's sizes, and what gives the photograph and the job of each, from the picture of the one before."""
    options = cell.options

    def part(name: str) -> _File:
        sha256 = cell.files[name]
        return _File(sha256, cell.names[sha256], files[sha256])

    with part("content").opened() as path:
        content = load_image(path)
    styles = []
    for name in cell.files:
        if name.startswith("style "):
            with part(name).opened() as path:
                styles.append(load_painting(path))
    with part("init").opened() if "init" in cell.files else contextlib.nullcontext() as first_path:
        first = first_picture(
            options if first_path is None else dataclasses.replace(options, init=str(first_path)), styles
        )
    network = _network(part("model"), network_part(options), threads)
    sizes = [style.size for style in styles]
    size = picture_size(content.size, options)
    try:
        check_memory(network, options, size, painting_sizes(sizes, options, size))
    except ValueError:
        # Another model's network may be what takes the room.
        _network.cache_clear()
        network = _network(part("model"), network_part(options), threads)
        check_memory(network, options, size, painting_sizes(sizes, options, size))
    check_levels(network, options, content.size, sizes)

    def prepared(level: Level, image: NDArray[np.float32] | None) -> tuple[Picture, Job]:
        start = first if image is None else Picture(image, resize(content, *image.shape[:2]).alpha)
        return rendering(network, at_level(options, level), content, styles, start)

    return picture_levels(options, network), prepared


class _Steps(Listener):
    """Tells the loss after each iteration."""

    def __init__(self, tell: Callable[[float], object]) -> None:
        self._tell = tell

    def iteration(self, state: Iteration) -> None:
        self._tell(float(state.value))


class _Account(Curve):
    """Tells how the terms stand before and after a run, and their curve."""

    def start(self, job: Job) -> None:
        super().start(job)
        self._job, self._start = job, standing(job, job.initial)

    def end(self, result: Result, facts: Facts) -> None:
        end = standing_at_end(self._job, result)
        facts |= {"start": self._start, "end": end, "terms": self.names, "curve": self.points}


def _whole(job: Job, listeners: Sequence[Listener], began: float) -> tuple[Result, Facts]:
    """Run a job; raises KeyboardInterrupt where it was interrupted."""
    result, facts = follow(job, listeners, began)
    if result.stop == "interrupted":
        raise KeyboardInterrupt
    return result, facts


@dataclass(frozen=True)
class _File:
    """A file, known by its content."""

    sha256: str
    name: str = field(compare=False)
    content: Content = field(compare=False, repr=False)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """Give a path to read it from; where there is none, a temporary one with the same suffix.

        Raises ValueError where it is not, or is no longer at the end, the file that it was when the sweep began.
        """
        self._check()
        if isinstance(self.content, Path):
            try:
                yield self.content
            except ValueError:  # what is wrong with it may be that it is another, or half of one
                self._check()
                raise
            self._check()
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(self.name).name
            path.write_bytes(self.content)
            try:
                yield path
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), self.name)) from None

    def _check(self) -> None:
        content = self.content
        try:
            found = sha256_of(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        except OSError as error:
            raise ValueError(f"cannot read {self.name!r} any more: {error.strerror or error}") from None
        if found != self.sha256:
            raise ValueError(
                f"{self.name!r} has changed since the sweep began: put the former file back and give the same command, "
                "or give another --output"
            )


@functools.lru_cache(maxsize=2)
def _network(file: _File, options: Options, threads: int) -> Network:
    """Return a network; a worker keeps the last two."""
    with file.opened() as path:
        return load(options, path, threads)
