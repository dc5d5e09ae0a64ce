"""An NVIDIA GPU as a device: its memory and launches, and the kernels as methods."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cuda import affine as _affine
from kernels.cuda import branches as _branches
from kernels.cuda import conv as _conv
from kernels.cuda import convolution as _convolution
from kernels.cuda import gram as _gram
from kernels.cuda import lbfgs as _lbfgs
from kernels.cuda import optimizer_steps as _optimizer_steps
from kernels.cuda import pad as _pad
from kernels.cuda import pool as _pool
from kernels.cuda import positions as _positions
from kernels.cuda import preprocess as _preprocess
from kernels.cuda import reductions as _reductions
from kernels.cuda import relu as _relu
from kernels.cuda import shifted as _shifted
from kernels.cuda import transport as _transport
from kernels.cuda import variation as _variation
from kernels.cuda.launcher import Array, Launcher


class Cuda(Launcher):
    """The kernels of ``Cpu`` under the same names; sums and parameters that are added are in float32.

    Parameters
    ----------
    backend, splits_products : see ``Launcher``.
    """

    kind = "cuda"

    conv = _conv.conv
    conv_input_gradient = _conv.conv_input_gradient
    flip_weight = _conv.flip_weight
    convolution = _convolution.convolution

    relu = _relu.relu
    relu_mask = _relu.relu_mask
    relu_input_gradient = _relu.relu_input_gradient

    average_pool = _pool.average_pool
    average_pool_input_gradient = _pool.average_pool_input_gradient
    average_pool_of_relu = _pool.average_pool_of_relu
    average_pool_of_relu_input_gradient = _pool.average_pool_of_relu_input_gradient
    max_pool = _pool.max_pool
    max_pool_input_gradient = _pool.max_pool_input_gradient

    pad = _pad.pad
    pad_input_gradient = _pad.pad_input_gradient

    affine = _affine.affine
    affine_input_gradient = _affine.affine_input_gradient

    add = _branches.add
    add_to = _branches.add_to
    concat = _branches.concat
    split = _branches.split

    weigh_positions = _positions.weigh_positions
    sum_positions = _positions.sum_positions
    sum_positions_input_gradient = _positions.sum_positions_input_gradient

    gram = _gram.gram
    gram_product = _gram.gram_product
    shifted_gram = _shifted.shifted_gram
    shifted_product = _shifted.shifted_product
    quantiles = _transport.quantiles
    transport_residual = _transport.transport_residual

    squared_distance = _reductions.squared_distance
    quotient_distance = _reductions.quotient_distance
    count_not_finite = _reductions.count_not_finite
    number = _reductions.number
    numbers = _reductions.numbers
    quotient_difference = _reductions.quotient_difference
    weighted_difference = _reductions.weighted_difference

    normalize_pixels = _preprocess.normalize_pixels
    normalize_pixels_input_gradient = _preprocess.normalize_pixels_input_gradient

    scaled = _optimizer_steps.scaled
    zeros = _optimizer_steps.zeros
    adam_step = _optimizer_steps.adam_step
    momentum_step = _optimizer_steps.momentum_step

    variation = _variation.variation
    variation_gradient = _variation.variation_gradient

    line_step = _lbfgs.line_step
    lbfgs_store = _lbfgs.lbfgs_store
    lbfgs_products = _lbfgs.lbfgs_products
    lbfgs_direction = _lbfgs.lbfgs_direction

    @staticmethod
    def computing() -> contextlib.AbstractContextManager[None]:
        """Nothing has to hold while kernels run."""
        return contextlib.nullcontext()

    @staticmethod
    def arena() -> None:
        """Return what ``reusing`` takes."""

    @staticmethod
    def reusing(arena: object) -> contextlib.AbstractContextManager[None]:
        """CuPy keeps the memory of arrays as it is."""
        return contextlib.nullcontext()

    def put_parameter(self, array: NDArray[Any], dtype: np.dtype[Any]) -> Array:
        """Return a bias, scale or shift on the GPU, in float32 whatever the activations are; itself if it is there."""
        return array if self.holds(array) else self.put(array.astype(np.float32))
