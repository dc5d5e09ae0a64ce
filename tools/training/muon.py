"""An optimiser for convolutions: momentum whose steps have all singular values near 1."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter

MOMENTUM = 0.95
DECAY = 0.01


class Muon:
    """Nesterov momentum, orthogonalised: each weight is seen as a matrix of (output channels, everything else).

    In the trials for the draft network it needed about half of AdamW's steps.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).

    Parameters
    ----------
    weights : convolutions' weights, (out, in, kh, kw).
    rate : length of a step.
    """

    def __init__(self, weights: Iterable[Parameter], rate: float) -> None:
        self.weights = list(weights)
        self.rate = rate
        self.momenta = [torch.zeros_like(weight) for weight in self.weights]

    def step(self, factor: float) -> None:
        """Take a step of ``factor`` times the rate and forget the gradients."""
        with torch.no_grad():
            for weight, momentum in zip(self.weights, self.momenta, strict=True):
                assert weight.grad is not None
                momentum.mul_(MOMENTUM).add_(weight.grad)
                direction = orthogonalised((weight.grad + MOMENTUM * momentum).flatten(1))
                rows, columns = direction.shape
                weight.mul_(1 - DECAY * self.rate * factor)
                step = self.rate * factor * max(1.0, rows / columns) ** 0.5
                weight.sub_(step * direction.reshape(weight.shape))
                weight.grad = None


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return a matrix of the same singular vectors with singular values between about 0.7 and 1.2.

    Five steps of a Newton-Schulz iteration whose polynomial is steep at 0, from the source of ``Muon``.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        square = wide @ wide.T
        wide = 3.4445 * wide + (-4.7750 * square + 2.0315 * square @ square) @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
