"""How long a run takes, told from one evaluation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import starmap

from engine.optimizers import OPTIMIZERS
from engine.stylize import Job, Settings, first_evaluation

# An evaluation that takes longer is not made a second time only to be timed.
_LONG_SECONDS = 3.0

# A report of the terms' shares is a forward pass, and a backward pass for each term: about this many evaluations.
_REPORT_EVALUATIONS = 2.7

# What does not grow with the picture, such as reading the weights, takes as long as this many of its pixels.
_FIXED_PIXELS = 13_000


def work(height: int, width: int) -> int:
    """Return how much work an evaluation of an image is, in pixels of a large one."""
    return height * width + _FIXED_PIXELS


def seconds_of_evaluation(job: Job) -> tuple[float, float]:
    """Return the loss of the first image and the time of most evaluations of a run.

    Raises ValueError as ``first_evaluation``.
    """
    before = time.perf_counter()
    value = first_evaluation(job)
    seconds = time.perf_counter() - before
    if job.objective.network.device.kind == "cuda":
        again = 2  # there the first compiles, and the second may record
    else:
        again = 1 if seconds < _LONG_SECONDS else 0  # the first takes memory from the system
    for _ in range(again):
        before = time.perf_counter()
        job.objective(job.initial)
        seconds = time.perf_counter() - before
    return value, seconds * job.usual_share


def seconds_of_run(job: Job, options: Settings, seconds: float, reports: int) -> float:
    """Return how long a run takes if an evaluation takes ``seconds``."""
    optimizer = OPTIMIZERS[options.optimizer]
    start, each = optimizer.seconds_per_value
    if job.objective.network.device.kind == "cuda" and optimizer.on_device:
        start, each = 0.0, 0.0  # on the GPU as well, in a small part of an evaluation's time
    of_steps = job.initial.size * (start + each * options.iterations)
    return float(seconds * (options.iterations + _REPORT_EVALUATIONS * reports) + of_steps)


def seconds_of_paintings(job: Job, sizes: Sequence[tuple[int, int]], seconds: float) -> float:
    """Return how long looking at paintings of these sizes takes, if an evaluation takes ``seconds``.

    Each is a forward pass, about half of an evaluation of as many pixels.
    """
    return seconds / 2 * sum(starmap(work, sizes)) / work(*job.initial.shape[:2])
