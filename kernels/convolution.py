"""A layer's convolution, ready to run: what the algorithms of both devices have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from kernels.geometry import Window

Array = Any
"""An array on the device."""

Shape = tuple[int, int, int]
"""Height, width and channels of one image's activation."""


class Convolution(ABC):
    """A convolution with its bias and ReLU, by one algorithm on one device; made by the device's ``convolution``.

    It holds the weight in the forms that the algorithm takes, each made when it is first needed.
    """

    weight_copies: ClassVar[int]
    """Numbers that it holds for each of the weight's, when both directions have been run."""

    @property
    def copies_made(self) -> int:
        """How many of ``weight_copies`` are in memory already, as far as that is told; the weight itself is not."""
        return 0

    @abstractmethod
    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output, (H', W', K), and what ``input_gradient`` needs besides it.

        ``output_is_kept`` says that the caller holds on to the output and will hand it to ``input_gradient``.
        """

    @abstractmethod
    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input; ``output_gradient`` may be overwritten."""

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        return 0

    def with_pool(self, window: Window) -> Convolution | None:
        """Return the convolution with an average pooling behind it, in one pass over memory; None if it has none."""
        return None

    def with_reader(self, reader: Convolution) -> tuple[Convolution, Convolution] | None:
        """Return this and the only convolution that reads its output, sharing work; None if they cannot."""
        return None
