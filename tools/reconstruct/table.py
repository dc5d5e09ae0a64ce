"""How exact the pictures are: for people, and as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tools.cli.text_table import aligned
from tools.reconstruct.target import Target


def table(
    targets: Sequence[Target],
    found: Mapping[Target, Mapping[str, Any]],
    failed: Mapping[Target, str],
    layers: Sequence[str],
) -> str:
    """Return a line of comma-separated values for each picture.

    Parameters
    ----------
    targets : all that were asked for.
    found : what came of those that have been made.
    failed : the reasons of those that could not be made.
    layers : to list the errors at: relative, of the responses for content and of the Gram matrices for style.
    """
    plain = ("loss", "initial_loss", "iterations", "evaluations", "stop", "stop_reason", "seconds")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["kind", "layers", "picture", "psnr", "error", *(f"error {name}" for name in layers), *plain, "failed"]
    )
    for target in targets:
        facts = found.get(target)
        values: list[Any] = ["", "", "", *("" for _ in layers), *("" for _ in plain)]
        if facts is not None:
            decibels = "" if facts["psnr"] is None else f"{facts['psnr']:.3f}"
            errors = (_own_error(target, facts), *(facts["errors"].get(name, "") for name in layers))
            values = [target.file, decibels, *(_rounded(error) for error in errors), *(facts[name] for name in plain)]
        writer.writerow([target.kind, "+".join(target.layers), *values, failed.get(target, "")])
    return text.getvalue()


def listing(targets: Sequence[Target], found: Mapping[Target, Mapping[str, Any]], layers: Sequence[str]) -> str:
    """Return the table for people; the layers that were to be matched are marked with a star."""
    lines = [["", "PSNR", *layers, "iterations", "evaluations", "stop"]]
    for target in targets:
        facts = found.get(target)
        if facts is None:
            continue
        errors = [
            f"{100 * facts['errors'][name]:.3g} %{'*' if name in target.layers else ' '}"
            if name in facts["errors"]
            else ""
            for name in layers
        ]
        decibels = "" if facts["psnr"] is None else f"{facts['psnr']:.1f} dB"
        counts = [str(facts["iterations"]), str(facts["evaluations"]), facts["stop"]]
        lines.append([f"{target.kind} {target.label}", decibels, *errors, *counts])
    note = (
        "Relative errors by layer: of the responses for content, of the Gram matrices for style. * was to be matched."
    )
    return "\n".join([*aligned(lines, "<>"), note])


def measures(target: Target, facts: Mapping[str, Any]) -> list[str]:
    """Return how near a picture has come, for people."""
    decibels = [] if facts["psnr"] is None else [f"{facts['psnr']:.1f} dB"]
    percent = 100 * _own_error(target, facts)
    return [*decibels, f"error {percent:.0f} %" if percent >= 99.5 else f"error {percent:.2g} %"]


def _own_error(target: Target, facts: Mapping[str, Any]) -> float:
    """Return the largest of the relative errors at the layers that were to be matched."""
    return float(max(facts["errors"][layer] for layer in target.layers))


def _rounded(error: float | str) -> str:
    return error if isinstance(error, str) else f"{error:.4g}"
