"""The time of one evaluation, of the programs in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.network import Network
from tools.bench.programs import ENGINE, Evaluate, build_twin, check_agreement, evaluation, relative_difference
from tools.models.subject import build_objective, pictures

PAUSE = 0.05
"""Seconds between two measurements: OpenMP's and OpenBLAS's threads keep their cores busy for a while after work."""


@dataclass(frozen=True)
class Ratio:
    """How many times as long PyTorch took as the engine; above 1 the engine is faster.

    Parameters
    ----------
    median, lowest, highest : of the rounds' ratios.
    """

    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Speed:
    """The times of one evaluation at one size.

    Parameters
    ----------
    size : side of the square image in pixels.
    multiply_adds : of the convolutions in one forward pass.
    seconds : by program, one for each round.
    differences : by program other than the engine, the relative distance of value and gradient from the engine's.
    """

    size: int
    multiply_adds: int
    seconds: Mapping[str, Sequence[float]]
    differences: Mapping[str, tuple[float, float]]

    def median(self, program: str) -> float:
        """Return the median time of a program in seconds."""
        return statistics.median(self.seconds[program])

    def gflops(self, program: str) -> float:
        """Return 10^9 operations a second.

        Two for each multiply-add, and as many again for the gradient with respect to the layer's input: the count of
        the plain algorithm, whatever the program really does. The rest of the work is not counted.
        """
        return 2 * 2 * self.multiply_adds / self.median(program) / 1e9

    @property
    def opponent(self) -> str | None:
        """The faster of the programs beside the engine, None when there is none."""
        others = [program for program in self.seconds if program != ENGINE]
        return min(others, key=self.median, default=None)

    @property
    def ratio(self) -> Ratio | None:
        """The engine's speed relative to the opponent's."""
        return None if self.opponent is None else speed_ratio(self.seconds[ENGINE], self.seconds[self.opponent])


def speed_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio of each round's times, theirs / ours: the median, the lowest and the highest.

    Times of one round are measured one right after the other, so that what slows the machine for a while slows both.
    """
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def time_in_turn(
    programs: Mapping[str, Evaluate],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
    on_call: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Return the times in seconds of each program, called in turn, ``repeats`` rounds.

    Parameters
    ----------
    programs : by name, what to call.
    repeats : how many rounds.
    clock, sleep : for tests.
    on_call : called after each measurement.
    """
    seconds: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(repeats):
        for program, evaluate in programs.items():
            sleep(PAUSE)
            began = clock()
            evaluate()
            seconds[program].append(clock() - began)
            on_call()
    return seconds


def seconds_each(
    call: Callable[[], object],
    wait: Callable[[], object],
    count: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the time in seconds of one of ``count`` calls whose work may go on after they return.

    Parameters
    ----------
    call : what is timed.
    wait : returns when all work is done.
    count : how many calls one wait is shared among.
    clock : for tests.
    """
    wait()
    began = clock()
    for _ in range(count):
        call()
    wait()
    return (clock() - began) / count


def measure_speed(
    network: Network, size: int, seed: int, layouts: Mapping[str, str], repeats: int, on_call: Callable[[], object]
) -> Speed:
    """Time one evaluation of the engine and of PyTorch in turn.

    Parameters
    ----------
    network : in float32.
    size : side of the square image in pixels.
    seed : of the images.
    layouts : of PyTorch, by program; empty for the engine alone.
    repeats : how many rounds, after one that is not counted.
    on_call : called after each evaluation.

    Raises ValueError when their results differ by more than ``AGREEMENT``.
    """
    content, style, image = pictures(size, seed)
    objective = build_objective(network, content, style)
    expected = objective(image)
    on_call()
    programs: dict[str, Evaluate] = {ENGINE: lambda: objective(image)}
    differences = {}
    for program, layout in layouts.items():
        twin = build_twin(network, content, style, layout)
        differences[program] = relative_difference(twin(image), expected)
        check_agreement(program, size, *differences[program])
        on_call()
        programs[program] = evaluation(twin, image)
    seconds = time_in_turn(programs, repeats, on_call=on_call)
    return Speed(size, network.multiply_adds(size, size, objective.layers), seconds, differences)
