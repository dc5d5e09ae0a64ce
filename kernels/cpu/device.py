"""The CPU as a device: its threads, their scratch memory, and the kernels as methods."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.cpu import affine as _affine
from kernels.cpu import branches as _branches
from kernels.cpu import conv as _conv
from kernels.cpu import convolution as _convolution
from kernels.cpu import gram as _gram
from kernels.cpu import lbfgs as _lbfgs
from kernels.cpu import optimizer_steps as _optimizer_steps
from kernels.cpu import pad as _pad
from kernels.cpu import pool as _pool
from kernels.cpu import positions as _positions
from kernels.cpu import preprocess as _preprocess
from kernels.cpu import reductions as _reductions
from kernels.cpu import relu as _relu
from kernels.cpu import shifted as _shifted
from kernels.cpu import transport as _transport
from kernels.cpu import variation as _variation
from kernels.cpu.threads import Threads

Array = NDArray[Any]


class Cpu(Threads):
    """Kernels in NumPy on a fixed number of threads; the results do not depend on it.

    Parameters
    ----------
    count : of threads, the calling one included; None means one for each available core.
    """

    kind = "cpu"

    conv = _conv.conv
    conv_input_gradient = _conv.conv_input_gradient
    flip_weight = staticmethod(_conv.flip_weight)
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
    add_to = staticmethod(_branches.add_to)
    concat = _branches.concat
    split = staticmethod(_branches.split)

    weigh_positions = _positions.weigh_positions
    sum_positions = _positions.sum_positions
    sum_positions_input_gradient = _positions.sum_positions_input_gradient

    gram = _gram.gram
    gram_product = _gram.gram_product
    shifted_gram = _shifted.shifted_gram
    shifted_product = _shifted.shifted_product
    quantiles = _transport.quantiles
    transport_residual = _transport.transport_residual

    squared_distance = staticmethod(_reductions.squared_distance)
    quotient_distance = staticmethod(_reductions.quotient_distance)
    count_not_finite = staticmethod(_reductions.count_not_finite)
    number = staticmethod(_reductions.number)
    numbers = staticmethod(_reductions.numbers)
    quotient_difference = staticmethod(_reductions.quotient_difference)
    weighted_difference = staticmethod(_reductions.weighted_difference)

    normalize_pixels = staticmethod(_preprocess.normalize_pixels)
    normalize_pixels_input_gradient = staticmethod(_preprocess.normalize_pixels_input_gradient)

    scaled = staticmethod(_optimizer_steps.scaled)
    zeros = staticmethod(_optimizer_steps.zeros)
    adam_step = staticmethod(_optimizer_steps.adam_step)
    momentum_step = staticmethod(_optimizer_steps.momentum_step)

    variation = _variation.variation
    variation_gradient = _variation.variation_gradient

    line_step = _lbfgs.line_step
    lbfgs_store = _lbfgs.lbfgs_store
    lbfgs_products = _lbfgs.lbfgs_products
    lbfgs_direction = _lbfgs.lbfgs_direction

    @property
    def name(self) -> str:
        """The device in words."""
        return f"{self.count} threads"

    @staticmethod
    def holds(array: object) -> bool:
        """Say whether ``array`` is NumPy's."""
        return isinstance(array, np.ndarray)

    @staticmethod
    def empty(shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a new array with undefined values."""
        return np.empty(shape, dtype)

    @staticmethod
    def put(array: Array) -> Array:
        """Return the array itself."""
        return array

    @staticmethod
    def put_parameter(array: Array, dtype: np.dtype[Any]) -> Array:
        """Return a bias, scale or shift for activations of ``dtype``."""
        return np.ascontiguousarray(array, dtype)

    @staticmethod
    def fetch(array: Array) -> Array:
        """Return the array itself."""
        return array
