"""Which algorithm computes a layer's convolution on a GPU: patches, an implicit GEMM, or Hopper's tensor cores."""

from __future__ import annotations

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
    mirrored_window,
    pack_weight,
)
from kernels.cuda.hopper import PackedWeight, hopper_conv, hopper_suits, pack_hopper_weight
from kernels.cuda.implicit_gemm import implicit_gemm_conv, implicit_gemm_suits
from kernels.cuda.launcher import Array, Launcher
from kernels.cuda.relu import relu_input_gradient, relu_mask
from kernels.geometry import Window


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
        return ImplicitGemmConvolution(filters, algorithm == "split")
    return PatchesConvolution(filters)


@dataclass(frozen=True, eq=False)
class PatchesConvolution(Convolution):
    """Matrix products of patches: see ``kernels/cuda/conv.py``."""

    filters: Filters
    weight_copies: ClassVar[int] = 2  # itself, and flipped

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask."""
        of = self.filters
        output = conv(of.gpu, input, of.weight, of.bias, of.window, of.group, relu=of.relu)
        mask = relu_mask(of.gpu, output) if of.relu and not output_is_kept else None
        return output, (input.shape, mask)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input: back through the ReLU, then the transposed convolution."""
        of, (input_shape, mask) = self.filters, saved
        output_gradient = _behind_relu(of, output_gradient, output if mask is None else mask)
        return conv_input_gradient(
            of.gpu, output_gradient, of.weight, input_shape, of.window, of.group, flipped=of.flipped
        )

    def scratch_bytes(self, shape: Shape) -> int:
        """Return the bytes of intermediate values for an input of ``shape``."""
        of = self.filters
        return conv_scratch_bytes(shape, of.weight.shape, of.window, of.group, of.weight.dtype.itemsize)


@dataclass(frozen=True, eq=False)
class ImplicitGemmConvolution(Convolution):
    """A matrix product without patches in memory: see ``kernels/cuda/implicit_gemm.py``.

    Parameters
    ----------
    split : multiply float32 in three products of tf32 parts instead of one of rounded numbers.
    """

    filters: Filters
    split: bool = False
    weight_copies: ClassVar[int] = 3  # itself, and packed for either direction

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the input's shape and the ReLU mask."""
        of = self.filters
        output = implicit_gemm_conv(of.gpu, input, of.packed, of.bias, of.window, relu=of.relu, split=self.split)
        mask = relu_mask(of.gpu, output) if of.relu and not output_is_kept else None
        return output, (input.shape, mask)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input.

        Back through the ReLU, then the transposed convolution: by the same kernel where it is one with stride 1 and the
        filters suit.
        """
        of, ((height, width, _), mask) = self.filters, saved
        mirrored = mirrored_window(of.window, height, width)
        if mirrored is None or not implicit_gemm_suits(of.weight.shape[3], of.weight.dtype):
            return PatchesConvolution(of).input_gradient(output_gradient, output, saved)
        output_gradient = _behind_relu(of, output_gradient, output if mask is None else mask)
        return implicit_gemm_conv(of.gpu, output_gradient, of.packed_flipped, None, mirrored, split=self.split)


@dataclass(frozen=True, eq=False)
class HopperConvolution(Convolution):
    """The tensor cores of compute capability 9.0: see ``kernels/cuda/hopper.py``.

    Parameters
    ----------
    filters : with ``relu``.
    masks : whether the input is another one's output, which nothing else reads: the input gradient is then taken back
        through that one's ReLU in the same pass.
    masked : whether the reader of the output does so: the output gradient has then come through the ReLU already.
    """

    filters: Filters
    masks: bool = False
    masked: bool = False
    weight_copies: ClassVar[int] = 3  # itself, and packed for either direction

    def forward(self, input: Array, output_is_kept: bool) -> tuple[Array, Any]:
        """Return the output; the input gradient needs the ReLU mask, its own or the input's."""
        of = self.filters
        output = hopper_conv(of.gpu, input, of.hopper, of.bias, relu=True)
        own = None if output_is_kept or self.masked else relu_mask(of.gpu, output)
        return output, (own, relu_mask(of.gpu, input) if self.masks else None)

    def input_gradient(self, output_gradient: Array, output: Array | None, saved: Any) -> Array:
        """Return the gradient with respect to the input: back through the ReLU and the flipped weight."""
        of, (own, below) = self.filters, saved
        if not self.masked:
            output_gradient = _behind_relu(of, output_gradient, output if own is None else own)
        return hopper_conv(of.gpu, output_gradient, of.hopper_flipped, None, mask=below)

    def with_reader(self, reader: Convolution) -> tuple[Convolution, Convolution] | None:
        """Return the two so that the reader takes the gradient back through this one's ReLU."""
        if not isinstance(reader, HopperConvolution):
            return None
        return replace(self, masked=True), replace(reader, masks=True)


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


def _behind_relu(filters: Filters, output_gradient: Array, output_or_mask: Array | None) -> Array:
    """Return a gradient taken back through the ReLU, in place, if there is one."""
    if not filters.relu:
        return output_gradient
    return relu_input_gradient(filters.gpu, output_gradient, output_or_mask, out=output_gradient)
