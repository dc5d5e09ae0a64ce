"""Convolution, ReLU, pooling, Gram matrices and losses on an NVIDIA GPU: the same names as in ``kernels.cpu``.

Loading this needs no CuPy; asking for the device does. What the CPU has beyond this are algorithms that only pay there.
"""

from kernels.cuda.affine import affine, affine_input_gradient
from kernels.cuda.conv import (
    conv,
    conv_input_gradient,
    conv_scratch_bytes,
    flip_weight,
    mirrored_window,
    pack_weight,
)
from kernels.cuda.gram import gram, gram_product
from kernels.cuda.hopper import hopper_conv, pack_hopper_weight
from kernels.cuda.hopper import suits as hopper_suits
from kernels.cuda.implicit_gemm import implicit_gemm_conv
from kernels.cuda.implicit_gemm import suits as implicit_gemm_suits
from kernels.cuda.join import add, add_to, concat, split
from kernels.cuda.lbfgs import lbfgs_direction, lbfgs_products, lbfgs_store, line_step
from kernels.cuda.pad import pad, pad_input_gradient
from kernels.cuda.pixels import normalize_pixels, normalize_pixels_input_gradient
from kernels.cuda.pool import (
    average_pool,
    average_pool_input_gradient,
    max_pool,
    max_pool_input_gradient,
)
from kernels.cuda.relu import relu, relu_input_gradient, relu_sign
from kernels.cuda.runtime import empty, record
from kernels.cuda.steps import adam_step, momentum_step, scaled, zeros
from kernels.cuda.sums import (
    count_not_finite,
    numbers,
    quotient_difference,
    square_sum,
    squared_distance,
    weighted_difference,
)

__all__ = [
    "adam_step",
    "add",
    "add_to",
    "affine",
    "affine_input_gradient",
    "average_pool",
    "average_pool_input_gradient",
    "concat",
    "conv",
    "conv_input_gradient",
    "conv_scratch_bytes",
    "count_not_finite",
    "empty",
    "flip_weight",
    "gram",
    "gram_product",
    "hopper_conv",
    "hopper_suits",
    "implicit_gemm_conv",
    "implicit_gemm_suits",
    "lbfgs_direction",
    "lbfgs_products",
    "lbfgs_store",
    "line_step",
    "max_pool",
    "max_pool_input_gradient",
    "mirrored_window",
    "momentum_step",
    "normalize_pixels",
    "normalize_pixels_input_gradient",
    "numbers",
    "pack_hopper_weight",
    "pack_weight",
    "pad",
    "pad_input_gradient",
    "quotient_difference",
    "record",
    "relu",
    "relu_input_gradient",
    "relu_sign",
    "scaled",
    "split",
    "square_sum",
    "squared_distance",
    "weighted_difference",
    "zeros",
]
