"""How work is cut for a GPU, against brute force."""

import itertools

import numpy as np
import pytest

from kernels.cuda import geometry
from kernels.cuda.gemm import STAGES
from kernels.cuda.geometry import chunk_rows, one_thread_each, parts_of_sum, split_product
from kernels.cuda.source import FOLDER


def test_every_value_has_a_thread_and_no_block_is_idle():
    for count in [*range(1, 1030), 10**6, 2**31]:
        (blocks, *_), (threads, *_) = one_thread_each(count)
        assert (blocks - 1) * threads < count <= blocks * threads
    for count in (0, 2**31 + 1):
        with pytest.raises(ValueError, match=f"an array of {count} values"):
            one_thread_each(count)


def test_sums_have_few_parts():
    for count in [*range(1, 10000, 7), 10**6, 2**31]:
        parts = parts_of_sum(count)
        assert 1 <= parts <= geometry.MOST_PARTS
        assert parts == geometry.MOST_PARTS or parts * 16 * geometry.THREADS < count + 16 * geometry.THREADS


def test_the_numbers_that_stand_in_the_sources_too_are_the_same():
    gemm, prelude = (FOLDER / "gemm.cu").read_text(), (FOLDER / "prelude.cu").read_text()
    halves, pieces = ((FOLDER / f"gemm_{name}.cu").read_text() for name in ("half", "pieces"))
    for text, tile in ((gemm, geometry.TILE), (halves, geometry.HALF_TILE), (pieces, geometry.HALF_TILE)):
        for name, value in zip(("ROWS", "COLUMNS", "INNER"), tile, strict=True):
            assert f"#define TILE_{name} {value}\n" in text
    assert f"#define STAGES {STAGES}\n" in pieces
    assert f"#define SUM_THREADS {geometry.THREADS}\n" in prelude


def test_chunks_stay_in_cache_unless_they_would_be_too_small():
    for rows, columns, size in itertools.product((1, 7, 512, 4000), (1, 33, 4096), (12, 2304, 18432)):
        length = chunk_rows(rows, columns, size)
        assert 1 <= length <= rows
        assert length == 1 or length * columns * size <= max(geometry.CHUNK_BYTES, geometry.CHUNK_PIXELS * size)
        if length < rows:
            assert (length + 1) * columns > geometry.CHUNK_PIXELS


def test_the_parts_of_a_product_cover_the_inner_dimension_once():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        rows, columns, inner = (int(2 ** rng.uniform(0, power)) for power in (20, 10, 20))
        tile = (geometry.TILE, geometry.HALF_TILE)[int(rng.integers(2))]
        (down, across, splits), part = split_product(rows, columns, inner, tile)
        assert (down - 1) * 128 < rows <= down * 128
        assert (across - 1) * 64 < columns <= across * 64
        covered = [min((index + 1) * part, inner) - index * part for index in range(splits)]
        assert min(covered) > 0
        assert sum(covered) == inner
        assert part % tile[2] == 0
        assert part <= geometry.MOST_PART
        assert splits == 1 or down * across * splits <= geometry.FILLING_BLOCKS or part > geometry.MOST_PART // 2 - 32


def test_a_gram_matrix_of_few_channels_is_split_to_fill_the_card():
    grid, _ = split_product(64, 64, 512 * 512)
    assert grid[0] * grid[1] * grid[2] >= 32
