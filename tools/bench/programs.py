"""The programs that are compared: the engine, and PyTorch with each layout of its activations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from engine.network import Network
from engine.ops import Array
from kernels import Cpu
from tools.models.torch_vgg import LAYOUTS, TorchObjective, import_torch, torch_objective

ENGINE = "engine"

TORCH = {f"torch, {layout}": layout for layout in LAYOUTS}
"""PyTorch with each layout of its activations."""

AGREEMENT = 1e-2
"""Relative distance between two programs' results from which on they do not compute the same thing.

In float32 they differ by 1e-7, or up to 1e-3 where rounding puts a value on the other side of a ReLU; a wrong window
or weight makes them differ by about 1.
"""

Evaluate = Callable[[], object]


def threads_of(network: Network) -> int:
    """Return how many threads a network of the CPU computes with."""
    assert isinstance(network.device, Cpu)
    return network.device.count


def build_twin(
    network: Network, content: Array, style: Array, layout: str, content_weight: float | None = None
) -> TorchObjective:
    """Return the same in PyTorch, which gets the same number of threads; alpha is the network's unless given."""
    import_torch().set_num_threads(threads_of(network))
    alpha = network.content_weight if content_weight is None else content_weight
    return torch_objective(network, content, style, content_weight=alpha, layout=layout)


def evaluation(twin: TorchObjective, image: Array) -> Evaluate:
    """Return a call of PyTorch on its own kind of image: what its optimizer would hand it."""
    pixels = twin.tensor(image)
    return lambda: twin.evaluate(pixels)


def relative_difference(found: tuple[Any, Array], expected: tuple[Any, Array]) -> tuple[float, float]:
    """Return the relative distance of a value and of a gradient (L2) from what was expected."""
    (value, gradient), (expected_value, expected_gradient) = found, expected
    return (
        _relative(abs(value - expected_value), abs(expected_value)),
        _relative(np.linalg.norm(gradient - expected_gradient), np.linalg.norm(expected_gradient)),
    )


def check_agreement(program: str, size: int, value: float, gradient: float) -> None:
    """Raise ValueError when relative differences from the engine's value and gradient are not small."""
    if not (value < AGREEMENT and gradient < AGREEMENT):
        raise ValueError(
            f"{program} and the engine differ at {size} pixels by {value:.2g} in the value and {gradient:.2g} in the "
            f"gradient, more than {AGREEMENT:g}: one of them is wrong, their times say nothing"
        )


def _relative(distance: Any, size: Any) -> float:
    return float(distance / size) if size > 0 else math.inf if distance > 0 else 0.0
