"""Add, concatenate and split branches; the counterpart of ``kernels/cpu/branches.py``."""

from __future__ import annotations

from collections.abc import Sequence

from kernels.cuda.launcher import Array, Launcher


def add(gpu: Launcher, inputs: Sequence[Array]) -> Array:
    """Return the sum of arrays of one shape and dtype, added in their order, as a new array."""
    output = gpu.empty(inputs[0].shape, inputs[0].dtype)
    _copy(gpu, inputs[0], output)
    for other in inputs[1:]:
        add_to(gpu, output, other)
    return output


def add_to(gpu: Launcher, target: Array, other: Array) -> None:
    """Add ``other`` to ``target`` in place."""
    gpu.launch_for_each("branches.cu", "add", target.size, (target, other, target, target.size), REAL=target.dtype)


def concat(gpu: Launcher, inputs: Sequence[Array]) -> Array:
    """Return the channels of all ``inputs``, (H, W, C) each, one behind the other."""
    height, width, _ = inputs[0].shape
    output = gpu.empty((height, width, sum(one.shape[2] for one in inputs)), inputs[0].dtype)
    first = 0
    for one in inputs:
        copy_columns(gpu, one.reshape(-1, one.shape[2]), output.reshape(-1, output.shape[2]), target_first=first)
        first += one.shape[2]
    return output


def split(gpu: Launcher, input: Array, channels: Sequence[int]) -> list[Array]:
    """Return copies of the first ``channels[0]`` channels of ``input``, of the next ``channels[1]``, and so on."""
    height, width, _ = input.shape
    outputs, first = [], 0
    for count in channels:
        output = gpu.empty((height, width, count), input.dtype)
        copy_columns(gpu, input.reshape(-1, input.shape[2]), output.reshape(-1, count), source_first=first)
        outputs.append(output)
        first += count
    return outputs


def copy_columns(gpu: Launcher, source: Array, target: Array, *, source_first: int = 0, target_first: int = 0) -> Array:
    """Copy columns of a matrix to columns of another, as many as the narrower has, and return ``target``."""
    columns = min(source.shape[1], target.shape[1])
    count = source.shape[0] * columns
    arguments = (source, target, count, columns, source.shape[1], source_first, target.shape[1], target_first)
    gpu.launch_for_each("branches.cu", "copy_columns", count, arguments, REAL=source.dtype)
    return target


def _copy(gpu: Launcher, source: Array, target: Array) -> None:
    copy_columns(gpu, source.reshape(1, -1), target.reshape(1, -1))
