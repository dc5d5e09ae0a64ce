"""Which algorithm computes a layer's convolution on a GPU: patches, an implicit GEMM, or Hopper's tensor cores."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from kernels.convolution import Convolution, Shape
from kernels.cuda.conv import (
    conv,
    conv_input_gradient,
    conv_scratch_bytes,
    flip_weight,
    pack_weight,
)
from kernels.cuda.hopper import PackedWeight, hopper_conv, hopper_suits, pack_hopper_weight
from kernels.cuda.implicit_gemm import implicit_gemm_conv, implicit_gemm_suits
from kernels.cuda.launcher import Array, Launcher
from kernels.cuda.pool import average_pool_of_relu, average_pool_of_relu_input_gradient, relu_pool_suits
from kernels.cuda.relu import relu_input_gradient, relu_mask
from kernels.geometry import Window, mirrored_window, output_size


@dataclass(frozen=True, eq=False)
class Filters:
    """The parameters of a convolution, and its weight as each algorithm takes it; all on the GPU.

    Parameters
    ----------
    gpu : where they lie.
    weight : (kernel height, kernel width, C / group, K).
    bias : (K,), float32, or None.
    window, group : as in ``conv``.
    relu : whether max(x, 0) follows.
    """

    gpu: Launcher
    weight: Array = field(repr=False)
    bias: Array | None = field(repr=False)
    window: Window
    group: int
    relu: bool

    @cached_property
    def flipped(self) -> Array:
        """The weight of the transposed convolution."""
        return flip_weight(self.gpu, self.weight, self.group)

    @cached_property
    def packed(self) -> Array:
        """The weight as the implicit GEMM takes it."""
        return pack_weight(self.gpu, self.weight)

    @cached_property
    def packed_flipped(self) -> Array:
        """The same of the transposed convolution."""
        return pack_weight(self.gpu, flip_weight(self.gpu, self.weight))

    @cached_property
    def hopper(self) -> PackedWeight:
        """The weight as the kernel for compute capability 9.0 takes it."""
        return pack_hopper_weight(self.gpu, self.weight)

    @cached_property
    def hopper_flipped(self) -> PackedWeight:
        """The same of the transposed convolution."""
        return pack_hopper_weight(self.gpu, flip_weight(self.gpu, self.weight))


def convolution(
    gpu: Launcher,
    weight: Any,
    bias: Any,
    window: Window,
    group: int = 1,
    *,
    relu: bool = False,
    algorithm: str = "patches",
) -> Convolution:
    """Return a layer's convolution by an algorithm, or from patches where it does not suit that.

    Parameters
    ----------
    weight, bias, window, group, relu : see ``Filters``; arrays of NumPy's are copied to the GPU.
    algorithm : ``"patches"``, ``"tensor"``, ``"split"`` (``"tensor"`` in three products of tf32 parts, which keeps
        float32's precision) or ``"hopper"``.
    """
    on_gpu = None if bias is None else gpu.put(bias.astype(np.float32)) if isinstance(bias, np.ndarray) else bias
    filters = Filters(gpu, gpu.put(weight), on_gpu, window, group, relu)
    if algorithm == "hopper" and _suits_hopper(filters):
        return HopperConvolution(filters)
    channels, dtype = filters.weight.shape[2], filters.weight.dtype
    if algorithm in ("tensor", "split") and group == 1 and implicit_gemm_suits(channels, dtype):
        return ImplicitGemmConvolution(filters, split=algorithm == "split")
    return PatchesConvolution(filters)


@dataclass(frozen=True, eq=False)
class GpuConvolution(Convolution):
    """What the algorithms have in common: the way back through the ReLU, which a neighbor may take in its own pass.

    Parameters
    ----------
    filters : the parameters.
    masks : whether the input is another one's output, which nothing else reads: the input gradient is then taken back
        through that one's ReLU in the same pass.
    masked : whether the reader of the output does so: the output gradient has then come through the ReLU already.
    """

    filters: Filters
    masks: bool = False
    masked: bool = False

    @abstractmethod
    def convolved(self, input: Array) -> Array:
        """Return the output, the ReLU applied."""

    @abstractmethod
    def transposed(self, output_gradient: Array, input_shape: Shape, mask: Array | None) -> Array:
        """Return the gradient with respect to the input, 0 where the bits of a mask from ``relu_mask`` are."""

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask, its own or the input's."""
        of, output = self.filters, self.convolved(input)
        needed = of.relu and not (output_is_kept or self.masked)
        own = relu_mask(of.gpu, output) if needed else None
        return output, (input.shape, own, relu_mask(of.gpu, input) if self.masks else None)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input: back through the ReLU, then the transposed convolution."""
        of, (input_shape, own, below) = self.filters, saved
        if of.relu and not self.masked:
            behind = output if own is None else own
            output_gradient = relu_input_gradient(of.gpu, output_gradient, behind, out=output_gradient)
        return self.transposed(output_gradient, input_shape, below)

    def with_pool(self, window: Window) -> Convolution | None:
        """Return the convolution with an average pooling behind it that takes its gradient back through the ReLU."""
        if not self.filters.relu or not relu_pool_suits(window):
            return None
        return PooledConvolution(replace(self, masked=True), window)

    def with_reader(self, reader: Convolution) -> tuple[Convolution, Convolution] | None:
        """Return the two so that the reader takes the gradient back through this one's ReLU, in the same kernel."""
        if not self.filters.relu or not isinstance(reader, ImplicitGemmConvolution | HopperConvolution):
            return None
        return replace(self, masked=True), replace(reader, masks=True)


@dataclass(frozen=True, eq=False)
class PooledConvolution(Convolution):
    """A convolution with ReLU, and an average pooling that notes the ReLU's signs: see ``kernels/cuda/pool.py``.

    Parameters
    ----------
    convolution : whose gradient has come through the ReLU already.
    window : of the pooling.
    """

    convolution: GpuConvolution
    window: Window

    @property
    def weight_copies(self) -> int:  # type: ignore[override]
        """As many as the convolution's."""
        return self.convolution.weight_copies

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the pooled output; the input gradient needs the signs of what was pooled, and its shape."""
        output, saved = self.convolution.forward(input, False)
        pooled, signs = average_pool_of_relu(self.convolution.filters.gpu, output, self.window)
        return pooled, (saved, signs, output.shape)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input: back through pooling and ReLU at once, and the convolution."""
        of_convolution, signs, shape = saved
        gpu = self.convolution.filters.gpu
        flowing = average_pool_of_relu_input_gradient(gpu, output_gradient, signs, shape, self.window)
        return self.convolution.input_gradient(flowing, None, of_convolution)

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``: what is pooled, and the convolution's."""
        of = self.convolution.filters
        pooled = (*output_size(of.window, *shape[:2]), of.weight.shape[3])
        return math.prod(pooled) * of.weight.dtype.itemsize + self.convolution.scratch_bytes(shape)


@dataclass(frozen=True, eq=False)
class PatchesConvolution(GpuConvolution):
    """Matrix products of patches: see ``kernels/cuda/conv.py``."""

    weight_copies: ClassVar[int] = 2  # itself, and flipped

    def convolved(self, input: Array) -> Array:
        """Return the output, the ReLU applied."""
        of = self.filters
        return conv(of.gpu, input, of.weight, of.bias, of.window, of.group, relu=of.relu)

    def transposed(self, output_gradient: Array, input_shape: Shape, mask: Array | None) -> Array:
        """Return the gradient with respect to the input."""
        of = self.filters
        gradient = conv_input_gradient(
            of.gpu, output_gradient, of.weight, input_shape, of.window, of.group, flipped=of.flipped
        )
        return gradient if mask is None else relu_input_gradient(of.gpu, gradient, mask, out=gradient)

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        of = self.filters
        return conv_scratch_bytes(shape, of.weight.shape, of.window, of.group, of.weight.dtype.itemsize)


@dataclass(frozen=True, eq=False)
class ImplicitGemmConvolution(GpuConvolution):
    """A matrix product without patches in memory: see ``kernels/cuda/implicit_gemm.py``.

    Parameters
    ----------
    split : multiply float32 in three products of tf32 parts instead of one of rounded numbers.
    """

    split: bool = False
    weight_copies: ClassVar[int] = 3  # itself, and packed for either direction

    def convolved(self, input: Array) -> Array:
        """Return the output, the ReLU applied."""
        of = self.filters
        return implicit_gemm_conv(of.gpu, input, of.packed, of.bias, of.window, relu=of.relu, split=self.split)

    def transposed(self, output_gradient: Array, input_shape: Shape, mask: Array | None) -> Array:
        """Return the gradient with respect to the input: by the same kernel where it is a convolution that suits it."""
        of = self.filters
        mirrored = mirrored_window(of.window, *input_shape[:2])
        if mirrored is None or not implicit_gemm_suits(of.weight.shape[3], of.weight.dtype):
            return PatchesConvolution(of).transposed(output_gradient, input_shape, mask)
        return implicit_gemm_conv(
            of.gpu, output_gradient, of.packed_flipped, None, mirrored, mask=mask, split=self.split
        )


@dataclass(frozen=True, eq=False)
class HopperConvolution(GpuConvolution):
    """The tensor cores of compute capability 9.0, with ReLU: see ``kernels/cuda/hopper.py``."""

    weight_copies: ClassVar[int] = 3  # itself, and packed for either direction

    def convolved(self, input: Array) -> Array:
        """Return the output, the ReLU applied."""
        of = self.filters
        return hopper_conv(of.gpu, input, of.hopper, of.bias, relu=True)

    def transposed(self, output_gradient: Array, input_shape: Shape, mask: Array | None) -> Array:
        """Return the gradient with respect to the input."""
        of = self.filters
        return hopper_conv(of.gpu, output_gradient, of.hopper_flipped, None, mask=mask)


def _suits_hopper(filters: Filters) -> bool:
    window, (rows, columns, channels, outputs) = filters.window, filters.weight.shape
    return (
        filters.relu
        and filters.bias is not None
        and filters.group == 1
        and (rows, columns) == (3, 3)
        and window.strides == window.dilations == (1, 1)
        and window.pads == (1, 1, 1, 1)
        and window.auto_pad == "NOTSET"
        and filters.weight.dtype == np.float16
        and hopper_suits(channels, outputs)
    )
