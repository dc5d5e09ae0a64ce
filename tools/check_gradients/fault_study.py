"""The study of faults: the mistakes that people make, put in one at a time, and which check notices each.

A fault is put in by replacing one function of the engine for the time of the checks; the network and the loss are made
anew each time, so that nothing computed with it outlives it. The problem is small and awkward on purpose: odd sizes, an
average pooling with ``ceil_mode`` and a maximum pooling, a convolution that SAME pads on one side only, flat parts in
the image, layers with a loss between others, and one with two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import NonFiniteError
from engine.gradcheck.checks import (
    ADJOINT,
    COMPLEX_STEP,
    DEFINED_VALUE,
    DEFINITION,
    DIFFERENCES,
    Check,
    check_layers,
    check_losses,
    check_objective,
)
from engine.gradcheck.problem import Problem
from engine.graph import Node
from engine.network import Network
from engine.ops import Array, AveragePool, Conv, MaxPool, Operator
from engine.preprocessing import Preprocessing
from engine.regions import Region
from engine.terms import Variation
from kernels import Cpu
from kernels.geometry import Window
from tools.check_gradients.faults import FAULTS, Fault

OPERATORS_ADJOINT = "operators: adjoint"
OPERATORS = "operators: complex step"
LOSSES = "losses: complex step"
WHOLE = "whole: complex step"
WHOLE_DIFFERENCES = "whole: differences"
WHOLE_DEFINITION = "whole: definition"
CHECKS = (OPERATORS_ADJOINT, OPERATORS, LOSSES, WHOLE, WHOLE_DIFFERENCES, WHOLE_DEFINITION)
"""The columns of the table."""

USUAL = "one coordinate"
"""What is usually done: a central difference in one coordinate, with one step and one tolerance."""
_USUAL_STEP, _USUAL_TOLERANCE, _USUAL_TRIALS = 1e-3, 1e-2, 40


@dataclass(frozen=True)
class FaultRow:
    """Which checks notice a fault.

    Parameters
    ----------
    name : of the fault.
    noticed : by check, whether it fails.
    usual : share of coordinates in which the usual check of one coordinate notices it.
    factor : the factor by which the whole gradient is wrong, where it is wrong by nothing else.
    """

    name: str
    noticed: dict[str, bool]
    usual: float
    factor: str | None

    @property
    def caught(self) -> bool:
        """Whether at least one of the checks notices it."""
        return any(self.noticed.values())


def fault_study(
    seed: int = 0, faults: tuple[Fault, ...] | None = None, on_step: Callable[[], object] = lambda: None
) -> list[FaultRow]:
    """Put in each fault and run all checks.

    Parameters
    ----------
    seed : of the network, the pictures and the directions.
    faults : which, all of ``FAULTS`` by default.
    on_step : called after each.

    Not to be run beside other work of this process: while it runs, the engine is wrong.
    """
    rows = []
    for fault in FAULTS if faults is None else faults:
        rows.append(_row(fault, seed))
        on_step()
    return rows


def awkward_problem(seed: int = 0) -> Problem:
    """Return the small problem that faults are looked for in."""
    random = np.random.default_rng(seed)
    network = _awkward_network(random)

    def picture(height: int, width: int) -> Array:
        image = random.uniform(0, 255, (height, width, 3))
        image[2:11, 3:14] = (180.0, 90.0, 40.0)  # flat: equal responses meet in the maximum pooling
        return image

    return Problem(
        network,
        picture(17, 21),
        picture(18, 22),
        picture(17, 21),
        content_layers=("conv2_2", "conv3_1"),
        style_layers=("conv1_1", "conv2_2", "conv3_1"),
        content_weight=1e-2,
    )


def with_controls(problem: Problem) -> Problem:
    """Return a problem with the controls beyond the paper: regions, a content mask, all statistics, total variation.

    Its image is not flat anywhere: equal features have no order, and there a sliced loss has no derivative.
    """
    height, width, _ = problem.image.shape
    ramp = np.linspace(0, 1, width) * np.ones((height, 1))
    regions = (Region(ramp, problem.style), Region(1 - ramp, problem.content))
    mask = 1 + 3 * ramp[::-1, ::-1] ** 2
    statistics = {"gram": 1.0, "means": 0.7, "covariance": 1.5, "wasserstein": 0.5, "shifted": 1.2, "sliced": 0.8}
    return replace(
        problem,
        image=problem.image + (ramp + ramp.cumsum(axis=0) / height)[..., None],
        regions=regions,
        content_mask=mask,
        style_statistics=statistics,
        variation=Variation(weight=1e-3),
    )


def with_edges(problem: Problem, edges: str) -> Problem:
    """Return a problem whose image goes on beyond its edges; one that is to be tiled has sides that divide by 4."""
    height, width = (side // 4 * 4 for side in problem.image.shape[:2])

    def cropped(array: Array) -> Array:
        return array[:height, :width].copy()

    variation, mask = problem.variation, problem.content_mask
    return replace(
        problem,
        image=cropped(problem.image),
        content=cropped(problem.content),
        edges=edges,
        regions=tuple(replace(region, mask=cropped(region.mask)) for region in problem.regions),
        content_mask=None if mask is None else cropped(mask),
        variation=None if variation is None else replace(variation, wrap=edges == "wrap"),
    )


def with_waist(problem: Problem, waist: str) -> Problem:
    """Return a problem whose image is computed in pieces of four rows up to a waist."""
    return replace(problem, piece=(4, None), waist=waist)


def _awkward_network(random: np.random.Generator) -> Network:
    """Return a network of five convolutions: more channels than the kernels treat as few, so that both ways are run."""
    nodes: list[Node] = []
    value = "image"

    def add(name: str, operator: Operator) -> None:
        nonlocal value
        nodes.append(Node(name, operator, value, name))
        value = name

    channels = 3
    for name, filters in (("conv1_1", 20), ("conv1_2", 20), ("conv2_1", 18), ("conv2_2", 18), ("conv3_1", 18)):
        window = Window((3, 3), pads=(1, 1, 1, 1))
        if name == "conv2_1":
            add("pool1", MaxPool(Window((3, 3), strides=(2, 2), pads=(1, 1, 1, 1))))
        if name == "conv3_1":
            add("pool2", AveragePool(Window((2, 2), strides=(2, 2), ceil_mode=True)))
            window = Window((2, 2), auto_pad="SAME_UPPER")
        scale = np.sqrt(2 / (len(window.taps) * channels))
        weight = random.standard_normal((*window.kernel, channels, filters)) * scale
        bias = random.uniform(-0.2, 0.4, filters)
        add(name, Conv(weight, bias, window, relu=True))
        channels = filters
    return Network(
        nodes=tuple(nodes),
        outputs={node.output: node.output for node in nodes if isinstance(node.operator, Conv)},
        preprocessing=Preprocessing("awkward", True, 1 / 255, (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)),
        dtype=np.dtype(np.float64),
        device=Cpu(1),
        content_weight=1e-2,
        rejected=(),
        convolution="direct",
    )


def _row(fault: Fault, seed: int) -> FaultRow:
    noticed = dict.fromkeys(CHECKS, False)
    usual, factor = 0.0, None
    with _put_in(fault):
        problem = awkward_problem(seed)
        if fault.beyond:
            problem = with_controls(problem)
        if fault.edges != "zero":
            problem = with_edges(problem, fault.edges)
        if fault.waist is not None:
            problem = with_waist(problem, fault.waist)
        groups: dict[str, Callable[[np.random.Generator], list[Check]]] = {
            "operators": lambda random: check_layers(problem, 2, random),
            "losses": lambda random: check_losses(problem, 2, random),
            "whole": lambda random: check_objective(problem, 3, random),
        }
        for group, run in groups.items():
            columns = [column for column in CHECKS if column.startswith(group)]
            try:
                checks = run(np.random.default_rng(seed))
            except (ValueError, IndexError, NonFiniteError):
                noticed.update(dict.fromkeys(columns, True))  # it does not even run
                continue
            for check in checks:
                if not check.passed:
                    noticed[_column(group, check.method)] = True
                if check.method == COMPLEX_STEP and group == "whole":
                    factor = check.factor
        with contextlib.suppress(ValueError, IndexError, NonFiniteError):
            usual = _usual_detection(problem, np.random.default_rng(seed))
    return FaultRow(fault.name, noticed, usual, factor)


def _column(group: str, method: str) -> str:
    """Return the column that a check of a group belongs to."""
    short = {
        ADJOINT: "adjoint",
        COMPLEX_STEP: "complex step",
        DIFFERENCES: "differences",
        DEFINED_VALUE: "definition",
        DEFINITION: "definition",
    }[method]
    column = f"{group}: {short}"
    # Differences of operators and losses find what the complex step finds there.
    return column if column in CHECKS else f"{group}: complex step"


def _usual_detection(problem: Problem, random: np.random.Generator) -> float:
    """Return the share of coordinates in which the usual check notices that something is wrong."""
    objective, x, noticed = problem.objective(), problem.image, 0
    gradient = objective(x)[1]
    for _ in range(_USUAL_TRIALS):
        place = tuple(int(random.integers(size)) for size in x.shape)
        moved = np.zeros_like(x)
        moved[place] = _USUAL_STEP
        quotient = (objective(x + moved)[0] - objective(x - moved)[0]) / (2 * _USUAL_STEP)
        scale = max(abs(quotient), abs(gradient[place]))
        noticed += bool(abs(quotient - gradient[place]) > _USUAL_TOLERANCE * scale)
    return noticed / _USUAL_TRIALS


@contextlib.contextmanager
def _put_in(fault: Fault) -> Iterator[None]:
    """Replace the fault's functions while this is open."""
    right = [(owner, name, getattr(owner, name)) for owner, name, _ in fault.places]
    try:
        for (owner, name, replacement), (_, _, original) in zip(fault.places, right, strict=True):
            setattr(owner, name, replacement(original))
        yield
    finally:
        for owner, name, original in right:
            setattr(owner, name, original)
