"""Convolution, ReLU, pooling and Gram matrices in NumPy, each with its input gradient."""

from kernels.cpu.affine import affine, affine_input_gradient
from kernels.cpu.conv import conv, conv_input_gradient, conv_scratch_bytes, flip_weight
from kernels.cpu.conv_block import conv_block, conv_block_input_gradient
from kernels.cpu.gram import gram, gram_product
from kernels.cpu.join import add, add_to, concat, split
from kernels.cpu.lbfgs import lbfgs_direction, lbfgs_products, lbfgs_store, line_step
from kernels.cpu.pad import pad, pad_input_gradient
from kernels.cpu.pixels import normalize_pixels, normalize_pixels_input_gradient
from kernels.cpu.pool import (
    average_pool,
    average_pool_input_gradient,
    max_pool,
    max_pool_input_gradient,
)
from kernels.cpu.relu import relu, relu_input_gradient, relu_sign
from kernels.cpu.steps import adam_step, empty, momentum_step, scaled, zeros
from kernels.cpu.sums import (
    count_not_finite,
    numbers,
    quotient_difference,
    square_sum,
    squared_distance,
    weighted_difference,
)
from kernels.cpu.threads import SERIAL, Workers
from kernels.cpu.winograd import transform_weight

__all__ = [
    "SERIAL",
    "Workers",
    "adam_step",
    "add",
    "add_to",
    "affine",
    "affine_input_gradient",
    "average_pool",
    "average_pool_input_gradient",
    "concat",
    "conv",
    "conv_block",
    "conv_block_input_gradient",
    "conv_input_gradient",
    "conv_scratch_bytes",
    "count_not_finite",
    "empty",
    "flip_weight",
    "gram",
    "gram_product",
    "lbfgs_direction",
    "lbfgs_products",
    "lbfgs_store",
    "line_step",
    "max_pool",
    "max_pool_input_gradient",
    "momentum_step",
    "normalize_pixels",
    "normalize_pixels_input_gradient",
    "numbers",
    "pad",
    "pad_input_gradient",
    "quotient_difference",
    "relu",
    "relu_input_gradient",
    "relu_sign",
    "scaled",
    "split",
    "square_sum",
    "squared_distance",
    "transform_weight",
    "weighted_difference",
    "zeros",
]
