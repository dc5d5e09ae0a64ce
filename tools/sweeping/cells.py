"""One picture of a sweep, made from files and options alone, on whatever machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.multiscale import Level, coarse_to_fine
from engine.network import Network
from engine.optimize import Iteration, Result
from engine.stylize import Job, first_evaluation, shares
from tools.command_line import describe
from tools.curve import Curve
from tools.images import Picture, load_image, load_painting
from tools.options import Options, network_part
from tools.record import file_name
from tools.rendering import (
    at_level,
    check_levels,
    check_memory,
    first_picture,
    load,
    painting_sizes,
    picture_levels,
    picture_size,
    rendering,
)
from tools.sweeping.axes import FIXED

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
    facts : as JSON knows them, see ``_facts``; the times apart, they are the same wherever the cell was made.
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
    callback: Callable[[Iteration], bool | None] | None = None,
) -> Outcome:
    """Make one picture; what is wrong with its files or options comes back as the outcome's reason.

    Parameters
    ----------
    cell : what to make.
    files : by SHA-256.
    threads : to compute with; the picture does not depend on it.
    callback : called after each iteration.
    """
    began = time.perf_counter()
    try:
        # A network's buffers and the threads of BLAS belong to the process: a worker with several threads waits.
        with _LOCK:
            return _make(cell, files, threads, callback, began)
    except (ValueError, OSError, ArithmeticError) as error:
        reason = describe(error)
    except MemoryError:
        reason = "out of memory: try a smaller size or fewer workers"
    return Outcome(None, None, {"seconds": round(time.perf_counter() - began, 3)}, reason)


def _make(
    cell: Cell,
    files: Mapping[str, Content],
    threads: int,
    callback: Callable[[Iteration], bool | None] | None,
    began: float,
) -> Outcome:
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
    check_memory(network, options, size, painting_sizes(sizes, options, size))
    check_levels(network, options, content.size, sizes)

    def prepared(level: Level, image: NDArray[np.float32] | None) -> tuple[Picture, Job]:
        start = first if image is None else Picture(image, None)
        return rendering(network, at_level(options, level), content, styles, start)

    pictures = coarse_to_fine(picture_levels(options, network), prepared)
    level, (photograph, job) = next(pictures)
    while not level.is_last:
        result = job.run(callback)
        if result.stop == "interrupted":
            return Outcome(None, None, {"stop": result.stop}, None)
        level, (photograph, job) = pictures.send(result)
    curve = Curve(job.objective)
    first_evaluation(job)
    start = _standing(job, job.initial)

    def follow(state: Iteration) -> bool | None:
        curve.follow(state)
        return None if callback is None else callback(state)

    result = job.run(follow)
    facts = _facts(job, result, curve, start)
    facts["seconds"] = round(time.perf_counter() - began, 3)
    return Outcome(result.image, photograph.alpha, facts, None)


def _facts(job: Job, result: Result, curve: Curve, start: Mapping[str, Any]) -> dict[str, Any]:
    end = None
    if result.stop not in ("non-finite", "interrupted"):
        job.objective(result.image)
        end = _standing(job, result.image)
    return {
        "loss": result.value,
        "initial_loss": result.initial_value,
        "content_weight": job.settings.content_weight,
        "iterations": result.iterations,
        "evaluations": result.evaluations,
        "stop": result.stop,
        "stop_reason": result.stop_reason,
        "start": dict(start),
        "end": end,
        "terms": curve.names,
        "curve": curve.points,
    }


def _standing(job: Job, image: NDArray[np.float64]) -> dict[str, Any]:
    """Return the weighted terms at the image evaluated last, and their shares of loss and gradient."""
    terms = job.objective.weighted_terms()
    norms = job.objective.gradient_norms(image)
    return {"terms": terms, "loss_shares": shares(terms), "gradient_shares": shares(norms)}


@dataclass(frozen=True)
class _File:
    """A file, known by its content."""

    sha256: str
    name: str = field(compare=False)
    content: Content = field(compare=False, repr=False)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Path]:
        """Give a path to read it from; where there is none, a temporary one with the same suffix."""
        if isinstance(self.content, Path):
            yield self.content
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(self.name).name
            path.write_bytes(self.content)
            try:
                yield path
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), self.name)) from None


@functools.lru_cache(maxsize=2)
def _network(file: _File, options: Options, threads: int) -> Network:
    """Return a network; a worker keeps the last two."""
    with file.opened() as path:
        return load(options, path, threads)
