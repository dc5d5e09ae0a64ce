"""The kernels' slow, obvious twins: loops that follow the definitions, in the widest precision of their input."""

import numpy as np

from kernels.geometry import Window, output_size, resolved_pads


def _input_positions(window: Window, height: int, width: int):
    """Yield (output row, output column, tap row, tap column, input row, input column), padding included."""
    top, left = resolved_pads(window, height, width)[:2]
    rows, columns = output_size(window, height, width)
    for y in range(rows):
        for x in range(columns):
            for ky in range(window.kernel[0]):
                for kx in range(window.kernel[1]):
                    yield (
                        y,
                        x,
                        ky,
                        kx,
                        y * window.strides[0] + ky * window.dilations[0] - top,
                        x * window.strides[1] + kx * window.dilations[1] - left,
                    )


def conv(input, weight, bias, window, group=1):
    height, width, channels = input.shape
    filters, per_group = weight.shape[3], channels // group
    output = np.zeros((*output_size(window, height, width), filters), input.dtype)
    if bias is not None:
        output += bias
    for y, x, ky, kx, v, u in _input_positions(window, height, width):
        if 0 <= v < height and 0 <= u < width:
            for k in range(filters):
                first = (k // (filters // group)) * per_group
                output[y, x, k] += (input[v, u, first : first + per_group] * weight[ky, kx, :, k]).sum()
    return output


def conv_input_gradient(output_gradient, weight, input_shape, window, group=1):
    height, width, channels = input_shape
    filters, per_group = weight.shape[3], channels // group
    gradient = np.zeros(input_shape, output_gradient.dtype)
    for y, x, ky, kx, v, u in _input_positions(window, height, width):
        if 0 <= v < height and 0 <= u < width:
            for k in range(filters):
                first = (k // (filters // group)) * per_group
                gradient[v, u, first : first + per_group] += output_gradient[y, x, k] * weight[ky, kx, :, k]
    return gradient


def average_weights(window, height, width, count_include_pad):
    """Return the average pool as a dense map, (H', W', H, W)."""
    pads = resolved_pads(window, height, width)
    inside = np.zeros((*output_size(window, height, width), height, width))
    counted = np.zeros(output_size(window, height, width))
    for y, x, _, _, v, u in _input_positions(window, height, width):
        if 0 <= v < height and 0 <= u < width:
            inside[y, x, v, u] += 1
            counted[y, x] += 1
        elif count_include_pad and -pads[0] <= v < height + pads[2] and -pads[1] <= u < width + pads[3]:
            counted[y, x] += 1
    return inside / np.maximum(counted, 1)[:, :, None, None]


def max_pool(input, window):
    """Return the maxima and the input position (v, u) each came from, the first among equals."""
    height, width, channels = input.shape
    rows, columns = output_size(window, height, width)
    output = np.full((rows, columns, channels), -np.inf, input.dtype)
    position = np.zeros((rows, columns, channels, 2), int)
    for y, x, _, _, v, u in _input_positions(window, height, width):
        if 0 <= v < height and 0 <= u < width:
            for c in range(channels):
                if input[v, u, c].real > output[y, x, c].real:
                    output[y, x, c] = input[v, u, c]
                    position[y, x, c] = v, u
    return output, position
