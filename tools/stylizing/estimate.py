"""How long a run takes, told from one evaluation."""

from __future__ import annotations

import time

from engine.stylize import Job, Settings, first_evaluation

# Seconds that an optimiser takes for itself, at the start and in each iteration, by value of the image. Measured at 512
# pixels on the machine that the README's figures are from.
OPTIMIZER_SECONDS = {"l-bfgs-b": (3e-6, 2.5e-7), "l-bfgs": (0.0, 4e-8), "adam": (0.0, 3e-8), "sgd": (0.0, 2e-8)}


# An evaluation that takes longer is not made a second time only to be timed.
_LONG_SECONDS = 3.0


def seconds_of_evaluation(job: Job) -> tuple[float, float]:
    """Return the loss of the first image and the time of an evaluation; raises ValueError as ``first_evaluation``."""
    before = time.perf_counter()
    value = first_evaluation(job)
    seconds = time.perf_counter() - before
    if job.objective.network.device == "cuda":
        again = 2  # there the first compiles, and the second may record
    else:
        again = 1 if seconds < _LONG_SECONDS else 0  # the first transforms the weights
    for _ in range(again):
        before = time.perf_counter()
        job.objective(job.initial)
        seconds = time.perf_counter() - before
    return value, seconds


def seconds_of_run(job: Job, options: Settings, seconds: float, reports: int) -> float:
    """Return how long a run takes if an evaluation takes ``seconds``."""
    start, each = OPTIMIZER_SECONDS.get(options.optimizer, (0.0, 0.0))
    if job.objective.network.device == "cuda" and options.optimizer != "l-bfgs-b":
        start, each = 0.0, 0.0  # on the GPU as well, in a small part of an evaluation's time
    # A report is a backward pass for each term, of which most are short: about as long as two evaluations.
    return float(seconds * (options.iterations + 2 * reports) + job.initial.size * (start + each * options.iterations))
