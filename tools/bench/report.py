"""All that was measured, as text, as Markdown and as JSON."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tools.bench.memory import Memory
from tools.bench.optimizer import OptimizerRun
from tools.bench.precision import PRECISION_IMAGES, Precision
from tools.bench.programs import ENGINE, TORCH
from tools.bench.speed import Speed
from tools.cli import text_table
from tools.media.files import byte_count
from tools.models.subject import Setup

COLUMNS = 100


@dataclass(frozen=True)
class Report:
    """All that was measured."""

    setup: Setup
    network: str
    threads: Mapping[str, int]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    speed: Sequence[Speed]
    memory: Sequence[Memory]
    precision: Sequence[Precision]
    runs: Sequence[OptimizerRun]


def as_json(report: Report) -> dict[str, Any]:
    """Return all numbers, those that follow from others included."""
    facts = asdict(report)
    for entry, speed in zip(facts["speed"], report.speed, strict=True):
        entry["median_seconds"] = {program: speed.median(program) for program in speed.seconds}
        entry["gflops"] = {program: speed.gflops(program) for program in speed.seconds}
        entry["opponent"] = speed.opponent
        entry["speed_ratio"] = None if speed.ratio is None else asdict(speed.ratio)
    for entry, one in zip(facts["runs"], report.runs, strict=True):
        entry["overhead"] = one.overhead
        entry["seconds_per_iteration"] = one.seconds / one.iterations if one.iterations else None
    for entry, distance in zip(facts["precision"], report.precision, strict=True):
        entry["median_value"] = statistics.median(distance.values)
        entry["median_gradient"] = statistics.median(distance.gradients)
    return facts


def render(report: Report, markdown: bool = False) -> str:
    """Return the report as text of at most ``COLUMNS`` columns, or as Markdown."""
    parts = [heading(report.network, report.threads, report.machine, report.versions, markdown)]
    for title, header, rows, notes in _tables(report):
        parts += table(title, header, rows, notes, markdown)
    return "\n\n".join(parts)


def heading(
    network: str,
    threads: Mapping[str, int],
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    markdown: bool = False,
) -> str:
    """Return what was measured, and on what, as lines of text or of Markdown."""
    of_each = " and ".join(f"{program} {count}" for program, count in threads.items())
    facts = [
        f"network: {network}",
        f"CPU: {machine['cpu']}, {machine['cores']} cores; threads: {of_each}",
        "versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()),
    ]
    if not markdown:
        facts = [textwrap.fill(fact, COLUMNS, subsequent_indent="  ") for fact in facts]
    return "\n".join(f"- {fact}" if markdown else fact for fact in facts)


def table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], markdown: bool = False
) -> list[str]:
    """Return a table with its title, and its notes if there are any, as paragraphs."""
    lines = (text_table.markdown if markdown else text_table.aligned)([header, *rows], alignment(header))
    paragraphs = ["\n".join([f"**{title}**\n" if markdown else title, *lines])]
    return [*paragraphs, "\n".join(notes)] if notes else paragraphs


def alignment(header: Sequence[str]) -> str:
    """Return how the columns of these titles are aligned: names to the left, numbers to the right."""
    return "".join("<" if title in _TEXT_COLUMNS else ">" for title in header)


_TEXT_COLUMNS = ("program", "layer")

Table = tuple[str, Sequence[str], list[list[str]], list[str]]


def _tables(report: Report) -> list[Table]:
    """Return title, header, rows and notes of each table that has rows."""
    tables = [_speed_table(report), _memory_table(report), _precision_table(report), _run_table(report)]
    return [table for table in tables if table[2]]


def _speed_table(report: Report) -> Table:
    programs = list(report.speed[0].seconds) if report.speed else []
    others = programs[1:]
    header = ["size", ENGINE, "GFLOP/s", *others]
    rows = []
    for speed in report.speed:
        row = [str(speed.size), _seconds(speed.median(ENGINE)), f"{speed.gflops(ENGINE):.0f}"]
        row += [_seconds(speed.median(program)) for program in others]
        if speed.opponent is not None and speed.ratio is not None:
            row.append(f"{speed.gflops(speed.opponent):.0f}")
            row.append(f"{speed.ratio.median:.2f}")
            row.append(f"{speed.ratio.lowest:.2f}-{speed.ratio.highest:.2f}")
        rows.append(row)
    rounds = len(report.speed[0].seconds[ENGINE]) if report.speed else 0
    notes = ["GFLOP/s: operations of the convolutions as defined, forward and backward, by the time"]
    if others:
        header += ["GFLOP/s", "speed ratio", "spread"]
        value, gradient = (
            max(difference[index] for speed in report.speed for difference in speed.differences.values())
            for index in range(2)
        )
        notes += [
            "speed ratio: time of the faster torch / time of the engine, above 1 the engine is faster",
            f"largest difference between them: value {value:.1e}, gradient {gradient:.1e} (relative)",
        ]
    return f"One value and gradient, median of {rounds}{' in turn' if others else ''}", header, rows, notes


def _memory_table(report: Report) -> Table:
    header = ["size", "program", "imports", "ready", "peak", "peak - imports", "estimated"]
    rows = [
        [
            str(one.size),
            one.program,
            *(byte_count(number) for number in (one.imports, one.ready, one.peak, one.peak - one.imports)),
            "" if one.estimate is None else byte_count(one.estimate),
        ]
        for one in report.memory
    ]
    notes = ["ready: with weights and targets; peak: of two evaluations"]
    if any(one.whole_process for one in report.memory):
        notes.append("this system tells the peak of the whole process only, building the network included")
    return "Resident memory of a process", header, rows, notes


def _precision_table(report: Report) -> Table:
    header = ["size", "program", "value", "gradient", "largest value", "largest gradient"]
    rows = [
        [
            str(one.size),
            one.program,
            *(f"{statistics.median(distances):.1e}" for distances in (one.values, one.gradients)),
            *(f"{max(distances):.1e}" for distances in (one.values, one.gradients)),
        ]
        for one in report.precision
    ]
    title = f"Relative distance of float32 from the engine in float64, median of {PRECISION_IMAGES} images"
    return title, header, rows, []


def _run_table(report: Report) -> Table:
    header = ["size", "program", "iterations", "calls", "time", "each", "optimizer", "its start", "loss"]
    rows = [
        [
            str(one.size),
            one.program,
            "" if one.iterations is None else str(one.iterations),
            str(one.evaluations),
            _seconds(one.seconds),
            _seconds(one.seconds / one.iterations) if one.iterations else "",
            _seconds(one.overhead),
            "" if one.starting is None else _seconds(one.starting),
            f"{one.value:.4g}",
        ]
        for one in report.runs
    ]
    notes = [
        "calls: evaluations; each: time an iteration; optimizer: time outside the evaluations, its start:",
        "the part of it until the end of the first iteration",
    ]
    first = {one.size: f"{one.initial_value:.4g}" for one in report.runs}
    notes.append("loss at the start: " + ", ".join(f"{value} at {size} pixels" for size, value in first.items()))
    if any(one.program in TORCH for one in report.runs):
        notes.append("torch.optim.LBFGS runs without bounds, the engine within 0..255")
    return "A whole run", header, rows, notes


def _seconds(seconds: float) -> str:
    """Return a time with three digits or more."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.1f} ms" if seconds < 0.0995 else f"{1000 * seconds:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 99.995 else f"{seconds:.0f} s"
