"""The whole study: every check and every experiment on one problem, in order, as one result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.gradcheck.checks import (
    DIFFERENCES,
    TOLERANCES,
    Check,
    LayerReference,
    ObjectiveReference,
    check_layers,
    check_losses,
    check_objective,
)
from engine.gradcheck.gpu import LIMITS, GpuPrecision, gpu_precision
from engine.gradcheck.kinks import KinkLedger, kink_ledger
from engine.gradcheck.path import Station, path_study
from engine.gradcheck.precision import PrecisionStudy, precision_study
from engine.gradcheck.problem import Problem
from engine.gradcheck.steps import StepStudy, step_study
from tools.check_gradients.audit import Verdict, audit
from tools.check_gradients.confidence import Detection, detection_study
from tools.check_gradients.fault_study import CHECKS, USUAL, FaultRow, fault_study
from tools.check_gradients.faults import FAULTS, NO_FAULT, Fault

ORDER = (1.9, 2.1)
"""Between these the measured order of the central difference passes, with the decisions held."""

PRECISION_LIMIT = 2e-3
"""Largest relative L2 error of a float32 gradient that passes where a run begins."""


@dataclass(frozen=True)
class Plan:
    """How much is done.

    Parameters
    ----------
    directions : random directions of each check.
    steps : lengths of the step-size study, over twelve decades.
    kink_steps : lengths of the kink ledger, in gray levels.
    iterations : iterates at which the checks are repeated.
    fractions : shares of wrong coordinates in the study of confidence.
    trials : of its simulation.
    faults : that are put in, or None for all.
    gpu : also compare the GPU with float64.
    """

    directions: int = 4
    steps: tuple[float, ...] = tuple(float(step) for step in np.logspace(-10, 2, 37))
    kink_steps: tuple[float, ...] = (1e-6, 1e-4, 1e-2, 1.0)
    iterations: tuple[int, ...] = (0, 10, 100)
    fractions: tuple[float, ...] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
    trials: int = 2000
    faults: tuple[Fault, ...] | None = None
    gpu: bool = False

    @property
    def work(self) -> int:
        """How often ``on_step`` is called in a whole study."""
        faults = len(FAULTS if self.faults is None else self.faults) + 1
        return 6 + 4 * len(self.steps) + self.iterations[-1] + len(self.iterations) + faults


@dataclass(frozen=True)
class Study:
    """What was found.

    Parameters
    ----------
    checks : of operators, losses, single terms and the whole objective.
    steps : the step-size study.
    kinks : the decisions that change.
    precision : what float32 loses.
    gpu : what the GPU's precisions lose, if that was asked for.
    stations : the checks along a run.
    detection : what random directions notice.
    formulas : published formulas against the exact derivative.
    faults : which check notices which fault.
    false_alarms : share of coordinates in which the usual check fails without any fault.
    """

    checks: tuple[Check, ...]
    steps: tuple[StepStudy, ...]
    kinks: KinkLedger
    precision: tuple[PrecisionStudy, ...]
    gpu: tuple[GpuPrecision, ...]
    stations: tuple[Station, ...]
    detection: tuple[Detection, ...]
    formulas: tuple[Verdict, ...]
    faults: tuple[FaultRow, ...]
    false_alarms: float

    @property
    def all_checks(self) -> tuple[Check, ...]:
        """All comparisons, those along the run included."""
        return (*self.checks, *(check for station in self.stations for check in station.checks))

    def formula_summary(self) -> str:
        """Return in words what the audit found."""
        right = sum(verdict.right for verdict in self.formulas)
        return f"{right} of {len(self.formulas)} forms in circulation are what they are given for"

    def fault_summary(self) -> str:
        """Return in words what the study of faults found."""
        total = len(self.faults)
        caught = sum(row.caught for row in self.faults)
        rates = (f"{check} {sum(row.noticed[check] for row in self.faults)}" for check in CHECKS)
        usual = sum(row.usual for row in self.faults) / total
        return f"{caught} of {total} noticed ({', '.join(rates)}; {USUAL} {100 * usual:.0f} % on average)"

    def failures(self) -> list[str]:
        """Return one sentence for each thing that is not as it should be."""
        found = [
            f"{check.subject}: {check.method} differs by {check.agreement.error:.2g}, allowed are {check.tolerance:g}"
            + (f" (a factor {check.factor})" if check.factor else "")
            for check in self.all_checks
            if not check.passed
        ]
        low, high = ORDER
        for study in self.steps:
            if study.name.endswith("held") and study.name.startswith("float64") and not low <= study.order <= high:
                found.append(f"step-size study, {study.name}: order {study.order:.2f}, expected {low} to {high}")
        computed = [("", 1.0, one) for one in self.precision]
        computed += [
            (f"iterate {station.iteration}, ", station.allowed, one)
            for station in self.stations
            for one in station.precision
        ]
        for where, allowed, precision in computed:
            if not precision.gradient <= PRECISION_LIMIT * allowed:
                found.append(
                    f"{where}{precision.name}: the gradient differs from float64 by {precision.gradient:.2g}, allowed "
                    f"are {PRECISION_LIMIT * allowed:.2g}"
                )
        found += [
            f"the GPU in {one.name}: the gradient differs from float64 by {one.gradient:.2g}, allowed are "
            f"{LIMITS[one.name]:g}"
            for one in self.gpu
            if not one.passed
        ]
        found += [f"fault {row.name!r} was noticed by no check" for row in self.faults if not row.caught]
        return found

    def as_json(self) -> dict[str, Any]:
        """Return everything as numbers, lists and texts; what is not finite becomes a text."""
        plain: dict[str, Any] = _plain(asdict(self))
        plain["failures"] = self.failures()
        return plain


def run_study(
    problem: Problem,
    plan: Plan = Plan(),
    seed: int = 0,
    layer_reference: LayerReference | None = None,
    objective_reference: ObjectiveReference | None = None,
    on_step: Callable[[str], object] = lambda _: None,
) -> Study:
    """Check everything about one problem.

    Parameters
    ----------
    problem : in float64.
    plan : how much.
    seed : of all directions.
    layer_reference, objective_reference : another program's gradients, None without one.
    on_step : called with what is being done, ``plan.work`` times.
    """
    random = np.random.default_rng(seed)
    count = plan.directions
    checks = check_layers(problem, count, random, layer_reference)
    on_step("operators")
    checks += check_losses(problem, count, random)
    on_step("losses")
    for name, part in problem.parts().items():
        checks += check_objective(part, count, random, objective_reference, f"{name}, from the pixels")
    checks += check_objective(problem, count, random, objective_reference)
    on_step("whole objective")
    steps = step_study(problem, np.array(plan.steps), count, random, lambda: on_step("step sizes"))
    kinks = kink_ledger(problem, plan.kink_steps, count, random)
    precision = precision_study(problem)
    gpu = gpu_precision(problem) if plan.gpu else []
    on_step("kinks")
    stations = path_study(problem, plan.iterations, count, random, lambda: on_step("path"))
    gradient = problem.objective()(problem.image)[1]
    detection = detection_study(gradient, plan.fractions, TOLERANCES[DIFFERENCES], plan.trials, random)
    on_step("confidence")
    formulas = audit(seed)
    on_step("formulas")
    faults = fault_study(seed, plan.faults, lambda: on_step("faults"))
    (without_fault,) = fault_study(seed, (NO_FAULT,), lambda: on_step("faults"))
    return Study(
        tuple(checks),
        tuple(steps),
        kinks,
        tuple(precision),
        tuple(gpu),
        tuple(stations),
        tuple(detection),
        tuple(formulas),
        tuple(faults),
        without_fault.usual,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def by_subject(checks: Sequence[Check]) -> dict[str, dict[str, Check]]:
    """Return checks by what was checked, and there by method."""
    rows: dict[str, dict[str, Check]] = {}
    for check in checks:
        rows.setdefault(check.subject, {})[check.method] = check
    return rows
