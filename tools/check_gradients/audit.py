"""An audit of published formulas against the exact derivative.

A formula is a gradient or a value. A gradient is compared with the derivative of the loss that it is given for, which
is taken from that loss's value alone, by a complex step in each element of F; a value is compared with that loss. Where
they differ it is found out what the formula is instead: a multiple of it, the derivative of another loss in
``LOSSES``, or of none at all, when its own Jacobian is not symmetric. Nothing of this is written down in ``FORMULAS``:
all of it follows from the numbers, at sizes whose prime factors tell N from M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import numpy as np

from engine.gradcheck.measures import COMPLEX_STEP
from engine.ops import Array
from tools.check_gradients.formulas import (
    FORMULAS,
    GRAM,
    IMAGE_CHANNELS,
    IMAGE_POSITIONS,
    LOSSES,
    WEIGHT,
    Formula,
    Layer,
    Loss,
    random_layer,
)

# Odd primes that differ from each other and from the image's 3 and 17: a product of their powers names its factors.
_SIZES = ((5, 11), (13, 7))
_SQUARE = (6, 6)
_POINTS = 3

# Rounding of sums of a hundred terms leaves 1e-15. A fault smaller than the first of these would pass; none here is
# smaller than 1e-1. A factor counts as constant, and a Jacobian as symmetric, to the second.
_EXACT = 1e-12
_CONSTANT = 1e-9


@dataclass(frozen=True)
class Verdict:
    """What a formula turned out to be.

    Parameters
    ----------
    name, source, claim, loss, is_gradient : as in ``Formula``.
    right : whether it is what it is given for.
    derivative_of : the loss in ``LOSSES``, or the multiple of its own, whose derivative it is (of a value: which it is
        itself), or why there is none.
    factor : of a formula that is wrong by a constant factor only: that factor, at N = 5, M = 11.
    factor_text : the same in letters, which hold at all sizes; C_0 and M_0 are the image's channels and positions.
    cosine : of the angle to what it should be, the least of all trials; None for values, and where shapes do not fit.
    error : relative error (L2), the largest of all trials; None where shapes do not fit.
    counter_example : where it is wrong, with the numbers found.
    """

    name: str
    source: str
    claim: str
    loss: str
    is_gradient: bool
    right: bool
    derivative_of: str
    factor: float | None
    factor_text: str | None
    cosine: float | None
    error: float | None
    counter_example: str


def audit(seed: int = 0, formulas: Sequence[Formula] = FORMULAS) -> tuple[Verdict, ...]:
    """Evaluate formulas on random matrices and say what each of them is.

    Parameters
    ----------
    seed : of the matrices; the verdicts do not depend on it, the numbers of the counter-examples do.
    formulas : what to audit.
    """
    random = np.random.default_rng(seed)
    trials = [_Trial(random_layer(N, M, random)) for N, M in (*_SIZES, _SQUARE) for _ in range(_POINTS)]
    return tuple(_verdict(formula, trials) for formula in formulas)


class _Trial:
    """One set of matrices, with the exact values and derivatives there, each taken when first asked for."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._exact: dict[tuple[str, bool], Array] = {}

    def exact(self, loss: str, is_gradient: bool) -> Array:
        """Return the value of a loss in ``LOSSES``, or its derivative with respect to F."""
        if (loss, is_gradient) not in self._exact:
            of = LOSSES[loss]
            value = self._jacobian(of) if is_gradient else np.asarray(of(self.layer))
            self._exact[loss, is_gradient] = value.reshape(self.layer.F.shape) if is_gradient else value
        return self._exact[loss, is_gradient]

    def asymmetry(self, formula: Formula) -> float:
        """Return ``|J - J'| / |J|`` for the Jacobian J of a gradient: 0 for the derivative of any function at all."""
        jacobian = self._jacobian(formula.evaluate)
        size = max(np.linalg.norm(jacobian), np.finfo(float).tiny)
        return float(np.linalg.norm(jacobian - jacobian.T) / size)

    def _jacobian(self, function: Loss) -> Array:
        """Return the derivatives of a function's values (columns) in each element of F (rows), by complex steps."""
        layer, rows = self.layer, []
        for index in np.ndindex(layer.F.shape):
            F = layer.F.astype(np.complex128)
            F[index] += 1j * COMPLEX_STEP
            rows.append(np.ravel(np.imag(function(replace(layer, F=F))) / COMPLEX_STEP))
        return np.array(rows)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A formula's result beside what it should be.

    Parameters
    ----------
    error : relative, in the L2 norm.
    ratio : the factor that brings it nearest.
    remainder : the relative error that this factor leaves.
    """

    trial: _Trial
    found: Array
    expected: Array
    error: float
    ratio: float
    remainder: float

    @property
    def place(self) -> str:
        return f"N = {self.trial.layer.N}, M = {self.trial.layer.M}"


def _compared(formula: Formula, trial: _Trial, loss: str) -> _Comparison | None:
    """Return the comparison with the value or derivative of a loss, or None where the shapes differ."""
    found, expected = np.asarray(formula.evaluate(trial.layer)), trial.exact(loss, formula.is_gradient)
    if found.shape != expected.shape:
        return None
    size = float(np.linalg.norm(expected))
    ratio = float(np.vdot(expected, found)) / size**2
    error, remainder = (float(np.linalg.norm(found - factor * expected)) / size for factor in (1.0, ratio))
    return _Comparison(trial, found, expected, error, ratio, remainder)


def _verdict(formula: Formula, trials: Sequence[_Trial]) -> Verdict:
    # Square matrices, which a transposed shape fits, are for the formulas that fit nowhere else.
    oblong = [trial for trial in trials if trial.layer.N != trial.layer.M]
    square = [trial for trial in trials if trial.layer.N == trial.layer.M]
    compared = [comparison for trial in oblong if (comparison := _compared(formula, trial, formula.loss))]
    fits = len(compared) == len(oblong)
    if not fits:
        compared = [comparison for trial in square if (comparison := _compared(formula, trial, formula.loss))]
    right = fits and max(comparison.error for comparison in compared) < _EXACT
    factor, factor_text = (None, None) if right or not fits else _factor(compared)
    cosine = min((_cosine(comparison) for comparison in compared), default=None) if formula.is_gradient else None
    return Verdict(
        name=formula.name,
        source=formula.source,
        claim=formula.claim,
        loss=formula.loss,
        is_gradient=formula.is_gradient,
        right=right,
        derivative_of=formula.loss if right else _origin(formula, oblong, fits, factor_text),
        factor=factor,
        factor_text=factor_text,
        cosine=cosine,
        error=max((comparison.error for comparison in compared), default=None),
        counter_example="" if right else _counter_example(formula, oblong[0], compared, fits, factor),
    )


def _cosine(comparison: _Comparison) -> float:
    """Return the cosine of the angle between the two; that of zero with anything is 0."""
    a, b = comparison.found.ravel(), comparison.expected.ravel()
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), np.finfo(float).tiny))


def _factor(compared: Sequence[_Comparison]) -> tuple[float, str] | tuple[None, None]:
    """Return the constant factor at the first size and in letters, or None where it is not constant."""
    ratios: dict[tuple[int, int], list[float]] = {}
    for comparison in compared:
        if not comparison.ratio or comparison.remainder > _EXACT * abs(comparison.ratio):
            return None, None
        ratios.setdefault((comparison.trial.layer.N, comparison.trial.layer.M), []).append(comparison.ratio)
    for of_size in ratios.values():
        if max(of_size) - min(of_size) > _CONSTANT * abs(of_size[0]):
            return None, None
    first = {size: of_size[0] for size, of_size in ratios.items()}
    return next(iter(first.values())), _in_letters(first)


@cache
def _exponents() -> Array:
    """Return exponents of 2, N, M, C_0, M_0 and s, simplest first: the factors that can be written in letters."""
    ranges = (range(-3, 4), range(-4, 5), range(-4, 5), (-2, 0, 2), (-2, 0, 2), (-1, 0, 1))
    every = np.array(list(product(*ranges)))
    return every[np.argsort(abs(every).sum(axis=1), kind="stable")]


def _in_letters(ratios: dict[tuple[int, int], float]) -> str:
    """Write a factor as a product of powers that holds at every size, or as its numbers where there is none."""
    every = _exponents()
    fits = np.ones(len(every), bool)
    for (N, M), ratio in ratios.items():
        logarithms = np.log([2, N, M, IMAGE_CHANNELS, IMAGE_POSITIONS, WEIGHT])
        fits &= abs(every @ logarithms - np.log(abs(ratio))) < _CONSTANT
    signs = {np.sign(ratio) for ratio in ratios.values()}
    if not fits.any() or len(signs) > 1:
        return ", ".join(f"{ratio:.6g} at N = {N}, M = {M}" for (N, M), ratio in ratios.items())
    two, *exponents = (int(exponent) for exponent in every[fits][0])
    letters = list(zip(("N", "M", "C_0", "M_0", "s"), exponents, strict=True))
    above = [_power(letter, exponent) for letter, exponent in letters if exponent > 0]
    below = [_power(letter, -exponent) for letter, exponent in letters if exponent < 0]
    if two:
        (above if two > 0 else below).insert(0, str(2 ** abs(two)))
    text = " ".join(above) or "1"
    if below:
        text += "/" + (below[0] if len(below) == 1 else f"({' '.join(below)})")
    return ("-" if -1.0 in signs else "") + text


def _power(letter: str, exponent: int) -> str:
    return letter if exponent == 1 else f"{letter}^{exponent}"


def _origin(formula: Formula, trials: Sequence[_Trial], fits: bool, factor_text: str | None) -> str:
    """Say which loss a formula belongs to that is not what it is given for."""
    for loss in LOSSES:
        compared = [_compared(formula, trial, loss) for trial in trials if not formula.is_gradient or loss != GRAM]
        if compared and all(comparison is not None and comparison.error < _EXACT for comparison in compared):
            return loss
    if factor_text is not None:
        return f"{factor_text} times {formula.loss}"
    if not fits:
        return "nothing: its shape does not fit"
    if not formula.is_gradient:
        return "none of the losses here"
    asymmetry = trials[0].asymmetry(formula)
    if asymmetry > _CONSTANT:
        return f"nothing: its Jacobian is not symmetric (by {asymmetry:.2g})"
    return "none of the losses here, though its Jacobian is symmetric"


def _counter_example(
    formula: Formula, trial: _Trial, compared: Sequence[_Comparison], fits: bool, factor: float | None
) -> str:
    """Describe where a formula is wrong, with numbers."""
    text = ""
    if not fits:
        shapes = (np.shape(formula.evaluate(trial.layer)), trial.exact(formula.loss, formula.is_gradient).shape)
        found, expected = (f"the shape {shape}" if shape else "a single number" for shape in shapes)
        text = f"N = {trial.layer.N}, M = {trial.layer.M}: gives {found}, expected {expected}"
        if not compared:
            return text
        text += "; "
    first = compared[0]
    what = "the derivative is" if formula.is_gradient else "expected"
    if not first.expected.shape:
        return text + f"{first.place}: gives {first.found:.6g}, {what} {first.expected:.6g}"
    index = np.unravel_index(int(abs(first.found - first.expected).argmax()), first.expected.shape)
    where = ", ".join(str(int(i)) for i in index)
    text += f"{first.place}: element ({where}) is {first.found[index]:.6g}, {what} {first.expected[index]:.6g}"
    if (
        fits
        and factor is None
        and all(comparison.remainder < _EXACT * abs(comparison.ratio) for comparison in compared)
    ):
        ratios = [f"{comparison.ratio:.6g}" for comparison in compared[:_POINTS]]
        text += f"; parallel to it, by a factor that changes with F: {', '.join(ratios)}"
    return text
