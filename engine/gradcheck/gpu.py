"""What a GPU computes against float64, in each of its precisions."""

from __future__ import annotations

from dataclasses import dataclass

from engine.device import moved_to_cuda
from engine.gradcheck.measures import agreement
from engine.gradcheck.problem import Problem, in_precision

LIMITS = {"float32": 1e-4, "tf32": 2e-2, "float16": 2e-2}
"""Largest relative L2 error of the gradient that passes, by precision."""


@dataclass(frozen=True)
class GpuPrecision:
    """One precision of the GPU against float64.

    Parameters
    ----------
    name : of the precision.
    value, gradient : relative errors of the total and of the gradient with respect to the pixels (L2); None where the
        GPU or the network does not allow the precision.
    reason : why not.
    """

    name: str
    value: float | None
    gradient: float | None
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the gradient is as close as it should be; true without a GPU result."""
        return self.gradient is None or self.gradient <= LIMITS[self.name]


def gpu_precision(problem: Problem) -> list[GpuPrecision]:
    """Compare the GPU with float64 on the CPU, at the problem's image; there must be one."""
    value, gradient = problem.objective()(problem.image)
    single = in_precision(problem.network, "float32", "auto")
    found = []
    for precision in LIMITS:
        try:
            on_gpu = problem.objective(moved_to_cuda(single, precision))(problem.image)
        except ValueError as error:
            found.append(GpuPrecision(precision, None, None, str(error)))
            continue
        of_value = abs(on_gpu[0] - value) / abs(value) if value else abs(on_gpu[0])
        found.append(GpuPrecision(precision, float(of_value), agreement(on_gpu[1], gradient).error))
    return found
