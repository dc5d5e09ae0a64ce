"""What was measured on a GPU, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tools.bench.cuda import VARIANTS, CudaReport, ProgramTime
from tools.bench.report import alignment
from tools.bench.rivals import RIVALS
from tools.bench.speed import Ratio, speed_ratio
from tools.cli import text_table


def opponent(report: CudaReport, one: ProgramTime) -> tuple[str, Ratio] | None:
    """Return the fastest PyTorch at a program's size and precision, and how many times as long it took."""
    rivals = [
        other
        for other in report.programs
        if other.program in RIVALS and (other.size, other.precision) == (one.size, one.precision)
    ]
    if one.program in RIVALS or not rivals:
        return None
    best = min(rivals, key=lambda rival: rival.median)
    return best.program, speed_ratio(one.seconds, best.seconds)


def as_json(report: CudaReport) -> dict[str, Any]:
    """Return all numbers, those that follow from others included."""
    facts = asdict(report)
    for entry, one in zip(facts["programs"], report.programs, strict=True):
        against = opponent(report, one)
        entry["median_seconds"] = one.median
        entry["opponent"], entry["speed_ratio"] = (None, None) if against is None else (against[0], asdict(against[1]))
    return facts


def render_cuda(report: CudaReport, markdown: bool = False) -> str:
    """Return the report as text, or as Markdown."""
    card = report.card
    rates = ", ".join(f"{precision} {rate / 1e12:.0f}" for precision, rate in card.rates.items())
    facts = [
        f"GPU: {card.name}, {report.date}",
        "versions: " + ", ".join(f"{name} {number}" for name, number in card.versions.items()),
        f"kernels: {len(card.distances)} calls compared with the CPU's, {_furthest(card.distances)}",
        f"copy: {card.bandwidth / 1e12:.2f} TB/s, read and written",
        f"matrix product: {rates} TFLOP/s" if rates else "matrix product: measured with --against torch only",
    ]
    notes = [f"{name}: left out, {reason}" for name, reason in report.left_out.items()]
    notes += [
        "of limit: what the measured matrix product, or the copy, would take for the same work, by the time",
        "ratio: time of the fastest PyTorch at the same precision by this time, above 1 the engine is faster",
        "value, gradient: relative distance from float64",
    ]
    table = text_table.markdown if markdown else text_table.aligned
    parts = [f"- {fact}" if markdown else fact for fact in facts]
    for title, (header, rows) in {
        "One value and gradient": _programs(report),
        "Layer by layer": _layers(report),
    }.items():
        parts += ["", f"**{title}**\n" if markdown else title, *table([header, *rows], alignment(header))]
    return "\n".join([*parts, "", *notes])


def _programs(report: CudaReport) -> tuple[list[str], list[list[str]]]:
    header = ["program", "size", "ms", "TFLOP/s", "of limit", "l-bfgs ms", "value", "gradient", "ratio"]
    rows = []
    for one in report.programs:
        against = opponent(report, one)
        rows.append(
            [
                one.program,
                str(one.size),
                _milliseconds(one.median),
                f"{one.operations / one.median / 1e12:.1f}",
                _share(report.card.least_seconds(one.precision, one.operations, 0), one.median),
                "" if one.iteration is None else _milliseconds(one.iteration),
                *("" if distance is None else f"{distance:.1e}" for distance in (one.value, one.gradient)),
                "" if against is None else _ratio(against[1]),
            ]
        )
    return header, rows


def _layers(report: CudaReport) -> tuple[list[str], list[list[str]]]:
    header = ["program", "layer", "size", "ms", "TFLOP/s", "of limit", "back ms", "TFLOP/s", "of limit"]
    rows = []
    for layer in report.layers:
        least = report.card.least_seconds(VARIANTS[layer.variant].precision, layer.operations, layer.moved)
        row = [layer.variant, layer.layer, str(layer.size)]
        for seconds in (layer.forward, layer.backward):
            rate = f"{layer.operations / seconds / 1e12:.1f}" if layer.operations else ""
            row += [_milliseconds(seconds), rate, _share(least, seconds)]
        rows.append(row)
    return header, rows


def _furthest(distances: Mapping[str, float]) -> str:
    name = max(distances, key=lambda name: distances[name])
    return f"the largest difference is {distances[name]:.1e} ({name})"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.lowest:.2f}-{ratio.highest:.2f})"


def _share(least: float | None, seconds: float) -> str:
    return "" if least is None else f"{100 * least / seconds:.0f} %"
