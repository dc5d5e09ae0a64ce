"""The checks of a gradient: operator by operator, loss by loss, and of the whole objective from pixels to total.

Five methods, strongest first. The *adjoint identity* <g, J x> = <J' g, x> holds to rounding for a linear operator and
its input gradient. The *complex step* gives a derivative exact to rounding of everything that is analytic between its
kinks. *The definition* is every operator and equation written once more without the engine's code, differentiated by a
complex step: it also notices what is wrong in value and gradient alike. *Central differences* know nothing of how a
function is computed, and are good to about half of the digits. *Another program's* gradient, PyTorch's, shares no code
with the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from engine import losses
from engine.gradcheck.definition import defined, loss_by_definition
from engine.gradcheck.kinks import Selection, held_objective, held_transport
from engine.gradcheck.measures import (
    Agreement,
    agreement,
    along,
    central_difference,
    complex_step,
    random_directions,
)
from engine.gradcheck.problem import Problem, Visit, in_precision, visits
from engine.ops import Array, Conv, MaxPool, Operator
from engine.terms import MomentStyle, ShiftedStyle, SlicedStyle
from engine.view import View
from kernels import Device

ADJOINT, COMPLEX_STEP, DIFFERENCES, TORCH = "adjoint identity", "complex step", "central differences", "PyTorch"
DEFINED_VALUE, DEFINITION = "definition, value", "definition, gradient"

TOLERANCES = {
    ADJOINT: 1e-13,
    COMPLEX_STEP: 1e-12,
    DEFINED_VALUE: 1e-11,
    DEFINITION: 1e-10,
    DIFFERENCES: 1e-5,
    TORCH: 1e-10,
}
"""Largest relative error with which a check passes, in float64."""

# Of the size of the values: linear operators have no truncation error, only rounding / h.
_DIFFERENCE_STEP = 1e-6
PIXEL_STEP = 1e-3
"""Length of the differences in gray levels: about where truncation and rounding are equal, see the step-size study."""

LayerReference = Callable[[Visit, Array], Array | None]
"""Another program's input gradient of an operator, for the gradient of its output; None where it has none like it."""

ObjectiveReference = Callable[[Problem], tuple[float, Array]]
"""Another program's value and gradient."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Parameters
    ----------
    subject : what was checked.
    method : how, one of ``TOLERANCES``.
    agreement : what was found.
    tolerance : the largest error that passes.
    factor : the factor by which the two differ, in words, where they differ by nothing else.
    """

    subject: str
    method: str
    agreement: Agreement
    tolerance: float
    factor: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; one that is not a number is not."""
        return self.agreement.error <= self.tolerance


def _check(subject: str, method: str, found: Agreement, factors: Mapping[str, float] | None = None) -> Check:
    return Check(subject, method, found, TOLERANCES[method], found.factor(factors))


# ---- operators ----


def check_layers(
    problem: Problem, count: int, random: np.random.Generator, reference: LayerReference | None = None
) -> list[Check]:
    """Check each operator's input gradient at the input that it gets from the image.

    Parameters
    ----------
    problem : in float64.
    count : random directions for each of the methods that take some.
    reference : of another program, None without one.
    """
    checks: list[Check] = []
    device = problem.network.device
    with device.computing():
        for visit in visits(problem.network, problem.image, problem.layers):
            checks += check_operator(visit, count, random, device, reference)
    return checks


def check_operator(
    visit: Visit,
    count: int,
    random: np.random.Generator,
    device: Device,
    reference: LayerReference | None = None,
) -> list[Check]:
    """Check one operator's input gradient."""
    if len(visit.inputs) > 1:
        return [_check_branches(visit, count, random, device)]
    operator, x, label = visit.node.operator, visit.input, visit.node.label
    g = random.standard_normal(visit.output.shape)
    directions = random_directions(x.shape, count, random)
    checks = []
    linear = operator.linear_part()
    if linear is not None:
        pulled = _pull_back(linear, x, g, device)
        worst = max((_adjoint(linear, direction, g, pulled, device) for direction in directions), key=_error)
        checks.append(_check(label, ADJOINT, worst))
    gradient = _pull_back(operator, x, g, device)
    complex_operator = operator.astype(np.dtype(np.complex128))

    def pushed(input: Array) -> complex:
        """Return <g, operator(input)>."""
        of = complex_operator if np.iscomplexobj(input) else operator
        return complex((g * of.forward(device, [input], True)[0]).sum())

    expected = [complex_step(pushed, x, direction) for direction in directions]
    checks.append(_check(label, COMPLEX_STEP, agreement(along(gradient, directions), np.array(expected))))
    # Differences are taken with the operator's decisions held: across a kink there is no derivative to compare with.
    fixed = _held_operator(operator, visit, device)
    step = _DIFFERENCE_STEP * float(np.sqrt(np.mean(x**2)) or 1.0)

    def fixed_push(input: Array) -> float:
        return float((g * fixed(input)).sum())

    quotients = [central_difference(fixed_push, x, direction, step) for direction in directions]
    checks.append(_check(label, DIFFERENCES, agreement(along(gradient, directions), np.array(quotients))))
    other = reference(visit, g) if reference else None
    if other is not None:
        checks.append(_check(label, TORCH, agreement(gradient, other)))
    return checks


def _check_branches(visit: Visit, count: int, random: np.random.Generator, device: Device) -> Check:
    """Check an operator that joins branches: it is linear in all of its inputs together."""
    operator, g = visit.node.operator, random.standard_normal(visit.output.shape)
    output, saved = operator.forward(device, visit.inputs, True)
    pulled = operator.input_gradients(device, g.copy(), output, saved)
    found = []
    for _ in range(count):
        xs = [random.standard_normal(input.shape) for input in visit.inputs]
        back = sum(float(np.vdot(gradient, x)) for gradient, x in zip(pulled, xs, strict=True))
        found.append(_adjoint_agreement(back, g, operator.forward(device, xs, True)[0]))
    return _check(visit.node.label, ADJOINT, max(found, key=_error))


def _error(found: Agreement) -> float:
    return found.error


def _pull_back(operator: Operator, x: Array, g: Array, device: Device) -> Array:
    """Return J' g at x."""
    output, saved = operator.forward(device, [x], True)
    return operator.input_gradients(device, g.copy(), output, saved)[0]


def _adjoint(operator: Operator, x: Array, g: Array, pulled: Array, device: Device) -> Agreement:
    """Compare <J' g, x> with <g, J x>, as fractions of |g| |J x|."""
    return _adjoint_agreement(float(np.vdot(pulled, x)), g, operator.forward(device, [x], True)[0])


def _adjoint_agreement(found: float, g: Array, pushed: Array) -> Agreement:
    scale, expected = float(np.linalg.norm(g) * np.linalg.norm(pushed)), float(np.vdot(g, pushed))
    compared = agreement(found, expected)
    return replace(compared, error=abs(found - expected) / scale if scale else abs(found - expected))


def _held_operator(operator: Operator, visit: Visit, device: Device) -> Callable[[Array], Array]:
    """Return the operator as a function, with its pattern at ``visit`` frozen."""
    positive: Array | float = visit.output > 0 if operator.ends_in_relu else 1.0
    before = operator
    if isinstance(operator, Conv):
        before = operator.before_relu()
    elif isinstance(operator, MaxPool):
        before = Selection(operator.forward(device, visit.inputs, True)[1][0], operator.window)
    elif operator.ends_in_relu:
        return lambda input: input * positive
    return lambda input: before.forward(device, [input], True)[0] * positive


# ---- losses ----


def check_losses(problem: Problem, count: int, random: np.random.Generator) -> list[Check]:
    """Check the gradient of each term with respect to its layer's features."""
    device, checks = problem.network.device, list[Check]()
    F = problem.network.forward(problem.image, problem.layers).features
    if problem.content_layers:
        P = problem.network.forward(problem.content, problem.content_layers).features
        for layer in problem.content_layers:
            checks += _check_loss(
                f"content loss of {layer}",
                lambda features, layer=layer: losses.content_loss(device, features, P[layer]),  # type: ignore[misc]
                losses.content_loss_gradient(device, F[layer], P[layer]),
                F[layer],
                count,
                random,
            )
    if problem.style_layers:
        F_a = problem.network.forward(problem.style, problem.style_layers).features
        for layer in problem.style_layers:
            A, M_a = losses.gram_matrix(device, F_a[layer]), _positions(F_a[layer])
            N_l, M_l = F[layer].shape[2], _positions(F[layer])

            def style(features: Array, A: Array = A, M_l: int = M_l, M_a: int = M_a) -> complex:
                return losses.style_layer_loss(device, losses.gram_matrix(device, features), A, M_l, M_a)

            checks += _check_loss(
                f"style loss of {layer}",
                style,
                losses.style_layer_loss_gradient(device, F[layer], losses.gram_matrix(device, F[layer]), A, M_a),
                F[layer],
                count,
                random,
                {"M_l": M_l, "1/M_l": 1 / M_l, "N_l": N_l, "1/N_l": 1 / N_l, "4 N_l^2 M_l^2": 4.0 * N_l**2 * M_l**2},
            )
    checks += _check_statistics(problem, count, random)
    if problem.variation is not None:
        epsilon, wrap = problem.variation.epsilon, problem.variation.wrap
        checks += _check_loss(
            "total variation",
            lambda image: losses.total_variation(device, image, epsilon, wrap=wrap),
            losses.total_variation_gradient(device, problem.image, epsilon, wrap=wrap),
            problem.image,
            count,
            random,
        )
    return checks


def _check_statistics(problem: Problem, count: int, random: np.random.Generator) -> list[Check]:
    """Check the terms of other statistics than the Gram matrix, with respect to their layers' features."""
    network, checks = problem.network, list[Check]()
    tape = network.forward(problem.image, problem.layers)
    for term in problem.objective().summands:
        if not isinstance(term, MomentStyle | ShiftedStyle | SlicedStyle):
            continue

        def seen(features: Array, term: MomentStyle | ShiftedStyle | SlicedStyle = term) -> View:
            return View(network, replace(tape, features={term.layer: features}))

        F = tape.features[term.layer]
        fixed = held_transport(term, seen(F))
        value = lambda features, term=term, seen=seen: term.value(seen(features))  # noqa: E731
        smooth = lambda features, term=fixed, seen=seen: term.value(seen(features))  # noqa: E731
        checks += _check_loss(
            f"style loss of {term.name}", value, term.gradient(seen(F)), F, count, random, smooth=smooth
        )
    return checks


def _check_loss(
    subject: str,
    value: Callable[[Array], complex],
    gradient: Array,
    F: Array,
    count: int,
    random: np.random.Generator,
    factors: Mapping[str, float] | None = None,
    smooth: Callable[[Array], complex] | None = None,
) -> list[Check]:
    """Check a loss's gradient; differences are taken of ``smooth``, where the loss has kinks."""
    directions = random_directions(F.shape, count, random)
    expected = np.array([complex_step(value, F, direction) for direction in directions])
    # A style loss is of the fourth degree: this length balances its third derivative with rounding.
    step = 1e-4 * float(np.sqrt(np.mean(F**2)) or 1.0)
    quotients = np.array([central_difference(smooth or value, F, direction, step).real for direction in directions])
    found = along(gradient, directions)
    return [
        _check(subject, COMPLEX_STEP, agreement(found, expected), factors),
        _check(subject, DIFFERENCES, agreement(found, quotients), factors),
    ]


def _positions(features: Array) -> int:
    return int(features.shape[0] * features.shape[1])


# ---- the whole objective ----


def check_objective(
    problem: Problem,
    count: int,
    random: np.random.Generator,
    reference: ObjectiveReference | None = None,
    subject: str = "whole objective",
) -> list[Check]:
    """Check the gradient with respect to the pixels, by complex steps through the whole network.

    Parameters
    ----------
    problem : in float64.
    count : random directions.
    reference : of another program, None without one.
    subject : what the checks are called.
    """
    x = problem.image
    objective, analytic = problem.objective(), problem.objective(in_precision(problem.network, "complex128"))
    smooth = held_objective(problem)
    directions = random_directions(x.shape, count, random)
    value, gradient = objective(x)
    found = along(gradient, directions)
    expected = np.array([complex_step(lambda image: analytic(image)[0], x, d) for d in directions])
    quotients = np.array([central_difference(lambda image: smooth(image)[0], x, d, PIXEL_STEP) for d in directions])
    checks = [
        _check(subject, COMPLEX_STEP, agreement(found, expected)),
        _check(subject, DIFFERENCES, agreement(found, quotients)),
    ]
    if defined(problem.network):
        by_definition = loss_by_definition(problem)
        slopes = np.array([complex_step(by_definition, x, d) for d in directions])
        checks.append(_check(subject, DEFINED_VALUE, agreement(value, by_definition(x))))
        checks.append(_check(subject, DEFINITION, agreement(found, slopes)))
    if reference is not None:
        checks.append(_check(subject, TORCH, agreement(gradient, reference(problem)[1])))
    return checks
