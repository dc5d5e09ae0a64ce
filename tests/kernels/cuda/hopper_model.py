"""hopper.cu followed step by step in NumPy: what each copy fetches, where it lies, what each product reads.

Written from the PTX ISA's descriptions, not from the kernel: tiled copies with the 128-byte swizzle ("Tensor Copy",
"Swizzling modes"), matrix descriptors and register fragments of wgmma ("Asynchronous Warpgroup Level Matrix
Instructions"). Barriers are left out: one step follows the other.
"""

from dataclasses import dataclass

import numpy as np

STAGES, INPUT_BYTES = 4, 16 * 8 * 128
MOST_SHARED_BYTES = 227 << 10
"""Of a block of compute capability 9.0."""


@dataclass
class TensorMap:
    """What a tensor map says; sizes and box are given fastest dimension first."""

    array: object
    sizes: tuple
    steps: tuple
    box: tuple
    nbytes = 128

    def __post_init__(self):
        item = self.array.dtype.itemsize
        assert self.array.dtype == np.float16
        assert self.box[0] * item == 128, "a row of the box is as long as the swizzle"
        assert all(step % 16 == 0 for step in self.steps)
        assert all(1 <= side <= 256 for side in self.box)
        assert int(np.prod(self.sizes)) == self.array.size
        assert tuple(self.steps) == tuple(np.cumprod([item, *self.sizes[:-1]])[1:]), "the array is contiguous"

    def fetch(self, memory, place, origin):
        """Copy a box into shared memory, 16-byte pieces exchanged, zeros from outside; return how many bytes."""
        values = self.array.values.reshape(self.sizes[::-1])
        box = np.zeros(self.box[::-1], np.float16)
        of_values, of_box = [], []
        for first, side, size in zip(origin[::-1], self.box[::-1], self.sizes[::-1], strict=True):
            low, high = min(max(first, 0), size), max(min(first + side, size), 0)
            of_values.append(slice(low, max(low, high)))
            of_box.append(slice(low - first, max(low, high) - first))
        box[tuple(of_box)] = values[tuple(of_values)]
        rows = box.reshape(-1, self.box[0]).view(np.uint8).reshape(-1, 8, 16)
        assert place % 1024 == 0
        row, piece = np.arange(len(rows))[:, None], np.arange(8)[None, :]
        memory[place : place + rows.size].reshape(-1, 8, 16)[row, piece ^ row % 8] = rows
        return rows.size


def described(address):
    """Return the matrix descriptor that hopper.cu makes of an address."""
    return (address & 0x3FFFF) >> 4 | 1 << 16 | 64 << 32 | 1 << 62


def matrix(memory, descriptor, rows):
    """Return the 16 columns of 16-bit numbers that a K-major descriptor with the 128-byte swizzle stands for."""
    assert descriptor >> 62 == 1, "128-byte swizzle"
    start, group_step = (descriptor & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4
    row, column = np.arange(rows)[:, None], np.arange(16)[None, :]
    address = start + row // 8 * group_step + row % 8 * 128 + 2 * column
    address ^= (address >> 7 & 7) << 4
    return memory.view(np.float16)[address // 2]


def run_hopper(kernel, grid, block, arguments, shared_bytes):
    """Do what a launch of hopper_conv_64 or hopper_conv_128 does."""
    input, weight, bias, output, *numbers = arguments
    height, width, channels, filters, across, rectify = map(int, numbers)
    block_n = int(kernel.name.rpartition("_")[2])
    weight_bytes, blocks = block_n * 128, channels // 64
    assert block == (384, 1, 1)
    assert grid[1] * block_n == filters
    assert shared_bytes == STAGES * (INPUT_BYTES + weight_bytes) <= MOST_SHARED_BYTES
    written = np.zeros((height, width, filters), int)
    for tile in range(grid[0]):
        left, top = tile % across * 16, tile // across * 8
        for part in range(grid[1]):
            memory = np.full(shared_bytes, 0xFF, np.uint8)
            sums = np.zeros((2, 64, block_n), np.float32)
            for step in range(9 * blocks):
                tap, channel = step // blocks, step % blocks * 64
                place = step % STAGES * (INPUT_BYTES + weight_bytes)
                fetched = input.fetch(memory, place, (channel, left + tap % 3 - 1, top + tap // 3 - 1))
                fetched += weight.fetch(memory, place + INPUT_BYTES, (tap * channels + channel, part * block_n))
                assert fetched == INPUT_BYTES + weight_bytes, "what the barrier expects"
                for group in range(2):
                    a, b = described(place + group * (INPUT_BYTES // 2)), described(place + INPUT_BYTES)
                    for k in range(4):
                        of_a, of_b = matrix(memory, a + 2 * k, 64), matrix(memory, b + 2 * k, block_n)
                        sums[group] += of_a.astype(np.float32) @ of_b.astype(np.float32).T
            for group in range(2):
                store(sums[group], group, (left, top, part * block_n), output.values, bias.values, rectify, written)
    assert (written == 1).all(), "every output is written once"


def store(sums, group, place, output, bias, rectify, written):
    """Store a warpgroup's sums from the registers that hold them, thread by thread."""
    height, width, _ = output.shape
    left, top, first_filter = place
    warp, lane = np.arange(4)[:, None], np.arange(32)[None, :]
    for j in range(sums.shape[1] // 8):
        for h in range(2):
            for pair in range(2):
                # d[4 j + 2 h + pair] of each thread, as wgmma's fragment D has it.
                value = sums[16 * warp + lane // 4 + 8 * h, 8 * j + 2 * (lane % 4) + pair]
                # Where the kernel stores it.
                row = 64 * group + 16 * warp + lane // 4 + 8 * h
                filter = np.broadcast_to(first_filter + 8 * j + 2 * (lane % 4) + pair, row.shape)
                x, y = left + row % 16, top + row // 16
                value = value + bias[filter]
                value = np.where(value <= 0, 0, value) if rectify else value
                kept = (x < width) & (y < height)
                output[y[kept], x[kept], filter[kept]] = value[kept]
                np.add.at(written, (y[kept], x[kept], filter[kept]), 1)
