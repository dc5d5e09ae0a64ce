"""Convolution, ReLU, pooling and Gram matrices in NumPy, each with its input gradient."""

from kernels.cpu.affine import affine, affine_input_gradient
from kernels.cpu.conv import conv, conv_input_gradient, flip_weight
from kernels.cpu.conv_block import conv_block, conv_block_input_gradient
from kernels.cpu.gram import gram, gram_product
from kernels.cpu.pool import (
    average_pool,
    average_pool_input_gradient,
    max_pool,
    max_pool_input_gradient,
)
from kernels.cpu.relu import relu, relu_input_gradient, relu_sign
from kernels.cpu.threads import SERIAL, Workers
from kernels.cpu.winograd import transform_weight

__all__ = [
    "SERIAL",
    "Workers",
    "affine",
    "affine_input_gradient",
    "average_pool",
    "average_pool_input_gradient",
    "conv",
    "conv_block",
    "conv_block_input_gradient",
    "conv_input_gradient",
    "flip_weight",
    "gram",
    "gram_product",
    "max_pool",
    "max_pool_input_gradient",
    "relu",
    "relu_input_gradient",
    "relu_sign",
    "transform_weight",
]
