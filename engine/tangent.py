"""The loss with the terms on its deepest layer replaced by their tangent, which is renewed from time to time.

With d the terms on that layer and n all others, between two renewals, of which the last was at the image x_0::

    f(x) = n(x) + d(x),   d(x) ~ d(x_0) + <grad d(x_0), x - x_0>

The layers that only d needs are then run at the renewals alone: of the paper's, conv4_3 to conv5_1, a fifth of an
evaluation. A renewal also tells by how much the tangent before was off. Where that is more than a thirtieth of what an
evaluation lowers the loss by, the loss is what it is from there on.

Source of a sum of which one part's gradient is delayed: Blatt, Hero and Gauchman, "A Convergent Incremental Gradient
Method with a Constant Step Size" (2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.objective import Objective
from engine.ops import Array
from engine.saved import Saved, State

EVERY = 50
"""Evaluations from one renewal to the next."""

FIRST = 4
"""The evaluation of the first. The next is after as many again, until these are ``EVERY``: at first much changes."""

OFF = 0.03
"""A tangent may be off by as much of what an evaluation lowers the loss by, the mean since the renewal before."""

_NEVER = -1


def deepest_layer(objective: Objective, height: int, width: int) -> str | None:
    """Return the layer without whose terms an evaluation of an image saves most; None where it saves nothing."""
    if len(objective.layers) < 2:
        return None
    work = {layer: _work(objective, height, width, layer) for layer in objective.layers}
    deepest = min(work, key=work.__getitem__)
    return deepest if work[deepest] < _work(objective, height, width) else None


def share_without(objective: Objective, layer: str, height: int, width: int) -> float:
    """Return the work of an evaluation of an image without a layer's terms, as a share of the work with them."""
    return _work(objective, height, width, layer) / _work(objective, height, width)


def _work(objective: Objective, height: int, width: int, left_out: str | None = None) -> int:
    layers = [layer for layer in objective.layers if layer != left_out]
    return objective.network.multiply_adds(height, width, layers)


class TangentLoss:
    """An objective on the CPU, the terms on one layer of which are looked at from time to time.

    Parameters
    ----------
    objective : the loss as it is.
    layer : whose terms are replaced, see ``deepest_layer``; there must be others.
    shape : of the images, (H, W, 3).
    every : evaluations from one renewal to the next.
    saved : what ``state`` returned, to go on from there.

    Attributes
    ----------
    terms : of the last call, as ``Objective.terms``. Those on the layer share what the tangent says of their sum as
        they did at the last renewal.

    Raises ValueError for the state of something else.
    """

    def __init__(
        self,
        objective: Objective,
        layer: str,
        shape: tuple[int, ...],
        every: int = EVERY,
        saved: Saved | None = None,
    ) -> None:
        self._objective, self._layer, self._every = objective, layer, every
        self._others = objective.without(layer)
        self.device = objective.device
        self.terms = objective.terms
        self._evaluations, self._last, self._renewal = 0, 0, FIRST
        # The lowest loss now and at the last renewal, and whether the tangent stands for the terms.
        self._lowest = self._lowest_before = np.inf
        self._in_use = False
        # d(x_0), its gradient, what the tangent is at the image 0, and all terms at x_0.
        self._value = self._at_zero = 0.0
        self._slope: NDArray[np.float64] | None = None
        self._kept: dict[str, dict[str, Any]] = {}
        if saved is not None:
            self._restore(saved, shape)

    @property
    def is_exact(self) -> bool:
        """Whether the next call's loss is the objective's own."""
        return not self._in_use

    def __call__(self, image: Array) -> tuple[Any, Array]:
        """Return the loss and its gradient as ``Objective`` does, or with the tangent."""
        self._evaluations += 1
        if self._evaluations == self._renewal:
            value, gradient = self._renewed(image)
        elif self._in_use:
            value, gradient = self._with_tangent(image)
        else:
            value, gradient = self._objective(image)
            self.terms = self._objective.terms
        self._lowest = min(self._lowest, value)
        return value, gradient

    def _tangent(self, image: Array) -> float:
        """Return what the tangent is at an image."""
        assert self._slope is not None
        return self._at_zero + float(np.vdot(self._slope, image))

    def _with_tangent(self, image: Array) -> tuple[Any, Array]:
        value, gradient = self._others(image)
        d = self._tangent(image)
        part, known = d / self._value if self._value else 1.0, self._others.terms
        self.terms = {
            kind: {name: known[kind][name] if name in known[kind] else part * self._kept[kind][name] for name in names}
            for kind, names in self._objective.term_names.items()
        }
        gradient += self._slope
        return value + d, gradient

    def _renewed(self, image: Array) -> tuple[Any, Array]:
        """Return the loss and its gradient, and take the tangent at this image from them."""
        told = None if self._slope is None else self._tangent(image)
        # One after the other, and no slope but one: both gradients of one forward pass would take more memory.
        self._slope = None
        _, slope = self._others(image)
        value, gradient = self._objective(image)
        np.subtract(gradient, slope, out=slope)
        self.terms = self._objective.terms
        weighted = self._objective.weighted_terms()
        on_layer = [term for term in self._objective.summands if term.layer == self._layer]
        d = float(sum(weighted[term.kind][term.name] for term in on_layer))
        lowest = min(self._lowest, value)
        if told is not None:
            lowered = (self._lowest_before - lowest) / (self._renewal - self._last)
            self._in_use = abs(d - told) <= OFF * lowered
            if not self._in_use:
                self._renewal = _NEVER
                return value, gradient
        self._lowest_before = lowest
        self._last, self._renewal = self._renewal, self._renewal + min(self._renewal, self._every)
        self._value, self._at_zero = d, d - float(np.vdot(slope, image))
        self._slope, self._kept = slope, self.terms
        return value, gradient

    def state(self) -> State:
        """Return what a loss that goes on from here takes as ``saved``."""
        state = {
            "tangent counts": np.array([self._evaluations, self._last, self._renewal, self._in_use], np.int64),
            "tangent lowest": np.array([self._lowest, self._lowest_before]),
        }
        if self._slope is None:
            return state
        kept = [self._kept[term.kind][term.name] for term in self._objective.summands]
        return {
            **state,
            "tangent values": np.array([self._value, self._at_zero, *kept]),
            "tangent slope": self._slope,
        }

    def _restore(self, saved: Saved, shape: tuple[int, ...]) -> None:
        summands = self._objective.summands
        counts, lowest = saved.host("tangent counts", (4,), np.int64), saved.host("tangent lowest", (2,))
        self._evaluations, self._last, self._renewal, in_use = (int(count) for count in counts)
        self._lowest, self._lowest_before = (float(value) for value in lowest)
        if self._renewal == _NEVER:
            return
        is_before = self._last == 0 and self._evaluations < FIRST
        is_behind = FIRST <= self._last <= self._evaluations < self._renewal
        if not (np.isfinite(self._lowest) and (is_before or is_behind)):
            raise saved.misfit("tangent counts")
        if is_before:
            return
        values = saved.host("tangent values", (2 + len(summands),))
        if not np.isfinite([*values, self._lowest_before]).all():
            raise saved.misfit("tangent values")
        self._value, self._at_zero = float(values[0]), float(values[1])
        self._kept = {kind: {} for kind in self._objective.term_names}
        for term, value in zip(summands, values[2:], strict=True):
            self._kept[term.kind][term.name] = float(value)
        self._slope, self._in_use = saved.array("tangent slope", shape), bool(in_use)
