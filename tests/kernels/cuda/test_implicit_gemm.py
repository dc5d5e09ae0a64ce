"""Convolution as an implicit matrix product, emulated: exact on whole numbers, precise on others, cut right."""

import itertools
import re

import numpy as np
import pytest

from kernels import Cuda
from kernels.cuda import conv, geometry, implicit_gemm, opening, source
from kernels.geometry import Window, mirrored_window, output_size, resolved_pads
from tests.kernels import naive
from tests.kernels.cuda.emulator import Emulator
from tests.kernels.cuda.test_kernels import order, random_window, relative
from tests.kernels.devices import cuda, to_device, to_host

# Storage, whether it is split, and the relative distance to double precision that is allowed.
WAYS = {"half": (np.float16, False, 4e-4), "tf32": (np.float32, False, 4e-4), "split": (np.float32, True, 5e-7)}
VGG = Window((3, 3), pads=(1, 1, 1, 1))

__all__ = ["order"]  # a fixture


def whole_numbers(size, channels, filters, window, dtype, seed=0):
    """Return small ones, whose sums are exact in every precision, so that a wrong index shows."""
    rng = np.random.default_rng(seed)
    shape = (*window.kernel, channels, filters)
    input = rng.integers(-2, 3, (*size, channels))
    weight = rng.integers(-2, 3, shape) * (rng.random(shape) < 0.3)
    return input.astype(dtype), weight.astype(dtype), rng.integers(-3, 4, filters).astype(np.float32)


def run(input, weight, bias, window, **options):
    given = None if bias is None else to_device(bias)
    return to_host(
        implicit_gemm.implicit_gemm_conv(
            cuda, to_device(input), conv.pack_weight(cuda, to_device(weight)), given, window, **options
        )
    )


def defined(input, weight, bias, window):
    """Return the convolution in double precision, tap by tap."""
    (rows, columns), (top, left, *_) = output_size(window, *input.shape[:2]), resolved_pads(window, *input.shape[:2])
    (stride_y, stride_x), (dilation_y, dilation_x) = window.strides, window.dilations
    room = [rows * stride_y + window.extent[0], columns * stride_x + window.extent[1]]
    padded = np.pad(input.astype(np.float64), ((top, room[0]), (left, room[1]), (0, 0)))
    output = np.zeros((rows, columns, weight.shape[3])) + (0 if bias is None else bias)
    for ky, kx in window.taps:
        shifted = padded[ky * dilation_y :, kx * dilation_x :]
        output += shifted[: rows * stride_y : stride_y, : columns * stride_x : stride_x] @ weight[ky, kx].astype(float)
    return output


def test_the_definition_is_the_loops():
    for seed in range(20):
        window = random_window(np.random.default_rng(seed))
        input, weight, bias = whole_numbers((9, 11), 2, 3, window, np.float32)
        np.testing.assert_array_equal(
            defined(input, weight, bias, window), naive.conv(input.astype(np.float64), weight, bias, window, 1)
        )


def check_exact(way, size, channels, filters, window, seed=0):
    dtype, split, _ = WAYS[way]
    input, weight, bias = whole_numbers(size, channels, filters, window, dtype, seed)
    expected = defined(input, weight, bias, window)
    assert np.abs(expected).max() < 2048
    relu = bool(seed % 2)
    result = run(input, weight, bias, window, relu=relu, split=split)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, np.maximum(expected, 0) if relu else expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("size", "channels", "filters"),
    [
        ((1, 1), 8, 1),
        ((9, 17), 8, 66),  # steps of several taps; the last tile of pixels is not full, nor is that of filters
        ((8, 16), 64, 64),
        ((12, 11), 24, 128),
        ((5, 30), 40, 129),  # an odd number of filters, which are stored one by one
        ((3, 4), 256, 5),  # in parts
        ((7, 6), 136, 192),
    ],
)
def test_whole_numbers_come_out_exactly(order, way, size, channels, filters):
    check_exact(way, size, channels, filters, VGG, seed=filters)


@pytest.mark.parametrize("way", WAYS)
def test_every_window_comes_out_exactly(emulator, way):
    rng, seen = np.random.default_rng(1), 0
    while seen < 40:
        window, size = random_window(rng), tuple(int(n) for n in rng.integers(1, 14, 2))
        channels, filters = 8 * int(rng.integers(1, 5)), int(rng.integers(1, 20))
        try:
            output_size(window, *size)
        except ValueError:
            continue
        check_exact(way, size, channels, filters, window, seed=seen)
        seen += 1
    for auto_pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        check_exact(way, (6, 7), 16, 9, Window((2, 3), strides=(2, 1), auto_pad=auto_pad))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("channels", "filters"), [(32, 20), (32, 128), (256, 9)])
def test_where_the_mask_is_not_the_result_is_zero(order, way, channels, filters):
    """Blocks of either kind, and a sum in parts; bytes of the mask that two pixels share."""
    dtype, split, _ = WAYS[way]
    input, weight, bias = whole_numbers((9, 7), channels, filters, VGG, dtype)
    below = np.random.default_rng(1).standard_normal((9, 7, filters)).astype(np.float32)
    mask = cuda.relu_mask(to_device(below))
    found = run(input, weight, bias, VGG, split=split, mask=mask)
    np.testing.assert_array_equal(found, np.where(below > 0, run(input, weight, bias, VGG, split=split), 0))
    with pytest.raises(ValueError, match="mask must have"):
        run(input, weight, bias, VGG, split=split, mask=cuda.relu_mask(to_device(below[1:])))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("channels", [32, 256])
def test_other_numbers_come_out_in_their_precision(emulator, way, channels):
    """Channels enough for a single part, and for several."""
    dtype, split, tolerance = WAYS[way]
    rng = np.random.default_rng(0)
    input, weight = (rng.standard_normal(shape).astype(dtype) for shape in ((9, 8, channels), (3, 3, channels, 20)))
    bias = rng.standard_normal(20).astype(np.float32)
    emulator.launches.clear()
    result = run(input, weight, bias, VGG, split=split)
    assert ("sum_of_parts" in emulator.launches) == (channels == 256)
    assert relative(result, defined(input, weight, bias, VGG)) < tolerance


def test_what_is_not_a_number_stays(emulator):
    input, weight, bias = whole_numbers((4, 4), 8, 8, VGG, np.float32)
    input[2, 2] = np.nan
    for split in (False, True):
        result = run(input, weight, bias, VGG, relu=True, split=split)
        assert np.isnan(result[1:4, 1:4]).any()
        assert np.isfinite(result[0]).all()


@pytest.mark.parametrize("way", WAYS)
def test_the_transposed_convolution_is_one_too(emulator, way):
    dtype, split, _ = WAYS[way]
    for window in (VGG, Window((3, 2), pads=(0, 1, 2, 0), dilations=(2, 1)), Window((1, 1))):
        size = (9, 8)
        _, weight, _ = whole_numbers(size, 16, 8, window, dtype)
        gradient = np.random.default_rng(2).integers(-2, 3, (*output_size(window, *size), 8)).astype(dtype)
        flipped = conv.pack_weight(cuda, cuda.flip_weight(to_device(weight)))
        mirrored = mirrored_window(window, *size)
        result = to_host(
            implicit_gemm.implicit_gemm_conv(cuda, to_device(gradient), flipped, None, mirrored, split=split)
        )
        expected = naive.conv_input_gradient(
            gradient.astype(np.float64), weight.astype(np.float64), (*size, 16), window, 1
        )
        np.testing.assert_array_equal(result, expected)
    for window in (Window((3, 3), strides=(1, 2)), Window((3, 3), pads=(3, 0, 0, 0))):
        assert mirrored_window(window, 9, 8) is None


def test_results_are_the_same_bits_in_either_order(compiled_kernels, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((9, 8, 256), (3, 3, 256, 20))]
    results = []
    for descending in (False, True):
        emulated = Emulator(compiled_kernels, descending)
        gpu = Cuda(emulated)
        monkeypatch.setattr(opening, "open_cuda", lambda gpu=gpu: gpu)
        results.append(run(*arrays, None, VGG).tobytes())
    assert results[0] == results[1]


# ---- how it is cut ----


def test_the_numbers_that_stand_in_the_source_too_are_the_same():
    text = (source.FOLDER / "implicit_gemm.cu").read_text()
    for name in ("TILE_PIXELS", "STEP_BYTES", "PIECE_BYTES"):
        assert f"#define {name} {getattr(implicit_gemm, name)}\n" in text
    stages = re.search(r"STAGES = FILTERS == 64 \? (\d) : (\d),", text)
    assert dict(zip((64, 128), map(int, stages.groups()), strict=True)) == implicit_gemm.STAGES
    assert text.count(f"__launch_bounds__({implicit_gemm.THREADS}, 2)") == len(source.declared("implicit_gemm.cu"))


def test_two_blocks_find_room_in_the_shared_memory_of_every_card():
    """100 KB a multiprocessor on 8.6, 8.9 and 12.0, of which each block takes one for the system."""
    for block in implicit_gemm.STAGES:
        assert 2 * (implicit_gemm.shared_bytes(block) + 1024) <= 100 << 10


def test_blocks_and_parts_cover_everything_once():
    rng = np.random.default_rng(0)
    for itemsize, split in itertools.product((2, 4), (False, True)):
        for _ in range(500):
            pixels, filters = int(2 ** rng.uniform(0, 24)), int(2 ** rng.uniform(0, 10))
            inner = int(rng.integers(1, 25)) * 16 // itemsize * int(rng.integers(1, 64))
            block = implicit_gemm.filters_of_block(filters, split)
            assert block == 64 or not split
            (blocks, _, splits), part = implicit_gemm.schedule(pixels, filters, inner, itemsize, block)
            across = -(-filters // block)
            down, rest = divmod(blocks, across)
            assert rest == 0
            assert (down - 1) * 128 < pixels <= down * 128
            # No more than 63 filters without work, whichever the block.
            assert across * block - filters < 64
            pieces = inner * itemsize // 16
            covered = [min((z + 1) * part, pieces) - z * part for z in range(splits)]
            assert min(covered) > 0
            assert sum(covered) == pieces
            assert splits == 1 or blocks * splits <= geometry.FILLING_BLOCKS or inner > geometry.MOST_PART


def test_what_does_not_fit_is_refused(emulator):
    def of(*shape, dtype=np.float16):
        return cuda.empty(shape, dtype)

    for dtype, taken, others in ((np.float16, (8, 64), (4, 12)), (np.float32, (4, 12), (3, 6)), (np.float64, (), (8,))):
        assert all(implicit_gemm.implicit_gemm_suits(channels, np.dtype(dtype)) for channels in taken)
        assert not any(implicit_gemm.implicit_gemm_suits(channels, np.dtype(dtype)) for channels in others)
    for input, packed, bias in (
        (of(4, 4, 16), of(5, 9 * 8), None),
        (of(4, 4, 4), of(5, 9 * 4), None),
        (of(4, 4, 8), of(5, 9 * 8), of(4, dtype=np.float32)),
    ):
        with pytest.raises(ValueError, match="do not fit"):
            implicit_gemm.implicit_gemm_conv(cuda, input, packed, bias, VGG)
    with pytest.raises(TypeError, match="must be float32, or float16 unless split, got float16, float32"):
        implicit_gemm.implicit_gemm_conv(cuda, of(4, 4, 8), of(5, 9 * 8, dtype=np.float32), None, VGG)
    with pytest.raises(TypeError, match="must be float32, or float16 unless split"):
        implicit_gemm.implicit_gemm_conv(cuda, of(4, 4, 8), of(5, 9 * 8), None, VGG, split=True)


# ---- what the emulation finds ----


@pytest.fixture
def spoiled(emulator, tmp_path, monkeypatch):
    """Return a function that puts something else in the place of a line of the source, and leaves one kernel."""
    texts = {name: (source.FOLDER / name).read_text() for name in (*source.COMMON, "implicit_gemm.cu")}
    packing = Emulator(emulator.folder)

    def spoil(kernel, *changes):
        spoiled = dict(texts)
        text, *kernels = texts["implicit_gemm.cu"].split('extern "C"')
        (kept,) = (one for one in kernels if f"{kernel}(" in one)
        spoiled["implicit_gemm.cu"] = text
        for line, other in changes:
            name = next(name for name in ("implicit_gemm.cu", *source.COMMON) if line in spoiled[name])
            assert spoiled[name].count(line) == 1, line
            spoiled[name] = spoiled[name].replace(line, other)
        spoiled["implicit_gemm.cu"] += 'extern "C"' + kept
        for name, text in spoiled.items():
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(source, "FOLDER", tmp_path)
        monkeypatch.setattr("tests.kernels.cuda.emulator.FOLDER", tmp_path)
        monkeypatch.setattr(emulator, "folder", tmp_path)
        source.declared.cache_clear()

    # The weight is packed by another source.
    monkeypatch.setattr(conv, "pack_weight", lambda gpu, weight: _packed(packing, weight))
    yield spoil
    source.declared.cache_clear()


def _packed(backend, weight):
    values = weight.values.reshape(-1, weight.shape[3]).T.copy()
    return backend.upload(values)


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("await_copies<STAGES - 2>();", ""),
        ("await_copies<STAGES - 2>();", "await_copies<STAGES - 1>();"),
        ("await_copies<0>();", ""),
        ("__syncthreads();", ""),
        ("        __syncthreads();", "        if (step + STAGES - 1 < steps) fetch(next); __syncthreads();"),
        ("(piece ^ row / 2 % 4) * PIECE_BYTES", "piece * PIECE_BYTES"),
        ("exchange = lane / 2 % 4", "exchange = 0"),
        ("copy_piece(to + i * ROWS_AT_ONCE", "copy_piece(8 + to + i * ROWS_AT_ONCE"),
    ],
)
def test_copies_that_are_not_waited_for_or_go_astray_are_found(spoiled, emulator, line, other):
    input, weight, bias = whole_numbers((8, 16), 72, 64, VGG, np.float16)
    expected = defined(input, weight, bias, VGG)
    assert np.array_equal(run(input, weight, bias, VGG), expected)
    emulator._libraries.clear()
    spoiled("implicit_gemm_half_64", (line, other))
    found = []
    for emulator.descending in (False, True):
        try:
            found.append(np.array_equal(run(input, weight, bias, VGG), expected))
        except AssertionError as error:
            assert re.search("is not waited for|is not a multiple of 16|meet in a bank", str(error))  # noqa: PT017
            found.append(False)
    assert not all(found)


_SUMS = ("float few[4] = {};", "float* few = d;"), ("d[j] += few[j]", "")


@pytest.mark.parametrize(
    ("way", "changes"),
    [
        ("tf32", [("b[i] = rounded_to_tf32(__int_as_float(b[i]))", "")]),
        ("split", [("multiply_tf32(few, a, low_b);", "")]),
        ("split", [("multiply_tf32(few, low_a, b);", "")]),
        ("split", _SUMS),
    ],
)
def test_lost_digits_are_found(spoiled, emulator, way, changes):
    """Rounding that is forgotten, a product that is left out, long sums on the tensor cores."""
    dtype, split, _ = WAYS[way]
    # Of positive numbers, whose errors show most if they all go one way, and least if they do not.
    tolerance = {"tf32": 5e-5, "split": 3e-7}[way]
    rng = np.random.default_rng(0)
    input, weight = (rng.random(shape).astype(dtype) for shape in ((9, 8, 56), (3, 3, 56, 20)))
    expected = defined(input, weight, None, VGG)
    assert relative(run(input, weight, None, VGG, split=split), expected) < tolerance
    emulator._libraries.clear()
    spoiled(f"implicit_gemm_{way}_64", *changes)
    assert relative(run(input, weight, None, VGG, split=split), expected) > 2 * tolerance
