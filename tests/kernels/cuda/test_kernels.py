"""The kernels for CUDA, run on the CPU by the emulator: equal to the CPU's, or to the definition."""

import numpy as np
import pytest

from kernels import Cuda
from kernels.cuda import geometry, opening, pool, reductions
from kernels.cuda.gemm import gemm
from kernels.geometry import Window, output_size
from tests.kernels import naive, test_conv, test_pad, test_pool
from tests.kernels.cuda.emulator import Emulator
from tests.kernels.devices import cpu, cuda, to_device, to_host

REALS = [np.float32, np.float16]
# Relative distance to double precision: of a sum of some hundred products, and of what is rounded once.
TOLERANCE = {np.float32: 1e-6, np.float16: 1e-3}


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def relative(a, b):
    return np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b)


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def order(request, emulator):
    """Run the threads in both orders."""
    emulator.descending = request.param


def random_window(rng):
    kernel = tuple(int(n) for n in rng.integers(1, 5, 2))
    return Window(
        kernel,
        strides=tuple(int(n) for n in rng.integers(1, 4, 2)),
        pads=tuple(int(rng.integers(0, kernel[axis % 2] + 1)) for axis in range(4)),
        dilations=tuple(int(n) for n in rng.integers(1, 3, 2)),
        ceil_mode=bool(rng.integers(2)),
    )


def random_cases(count, seed):
    """Return shapes with channels, and windows that fit them."""
    rng, cases = np.random.default_rng(seed), []
    while len(cases) < count:
        shape, window = tuple(int(n) for n in rng.integers(1, 13, 3)), random_window(rng)
        try:
            output_size(window, *shape[:2])
        except ValueError:
            continue
        cases.append((shape, window))
    return cases


# ---- matrix products ----


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize(
    ("rows", "columns", "inner"), [(1, 1, 1), (130, 3, 27), (64, 70, 33), (129, 65, 16), (5, 200, 150)]
)
@pytest.mark.parametrize("transpose_a", [False, True])
def test_product(order, rows, columns, inner, transpose_a, dtype):
    a, b = normal((rows, inner), dtype), normal((inner, columns), dtype, 1)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    stored = np.ascontiguousarray(a.T) if transpose_a else a
    output = cuda.empty((rows, columns), dtype)
    result = gemm(cuda, to_device(stored), to_device(b), output, transpose_a=transpose_a)
    assert result is output
    assert relative(to_host(output), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("capability", [(7, 5), (8, 0)])
def test_products_of_16_bits_use_tensor_cores_where_they_are(order, emulator, capability):
    """Of whole numbers, whose sums are exact; split, transposed, added."""
    emulator.capability = capability
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-2, 3, shape).astype(np.float16) for shape in ((1100, 70), (1100, 65)))
    start = rng.integers(-9, 10, (70, 65)).astype(np.float32)
    output = to_device(start)
    gemm(cuda, to_device(a), to_device(b), output, transpose_a=True, factor=2.0, add=True)
    expected = start + 2 * a.T.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_array_equal(to_host(output), expected)
    assert emulator.launches == ["gemm_half" if capability >= (8, 0) else "gemm", "sum_of_parts"]


PIECES = {"gram": (np.float16, True), "plain": (np.float16, False), "mixed": (np.float32, False)}


@pytest.mark.parametrize("output", REALS)
@pytest.mark.parametrize(
    ("rows", "columns", "inner"), [(8, 8, 8), (136, 72, 40), (64, 128, 200), (16, 16, 1096), (264, 8, 24)]
)
@pytest.mark.parametrize("kind", PIECES)
def test_products_of_whole_pieces_are_exact_on_whole_numbers(order, emulator, kind, rows, columns, inner, output):
    """Tiles that are not full, several steps, parts; factor, sum with what was there, bias and ReLU."""
    other, transposed = PIECES[kind]
    rng = np.random.default_rng(inner)
    a, b = (rng.integers(-2, 3, shape) * (rng.random(shape) < 0.5) for shape in ((rows, inner), (inner, columns)))
    start, bias = rng.integers(-9, 10, (rows, columns)), rng.integers(-9, 10, columns).astype(np.float32)
    target = to_device(start.astype(output))
    given = to_device((a.T if transposed else a).astype(np.float16)), to_device(b.astype(other))
    gemm(cuda, *given, target, transpose_a=transposed, factor=0.5, add=True, bias=to_device(bias), relu=True)
    expected = np.maximum(start + 0.5 * (a @ b) + bias, 0)
    assert expected.max() < 1024
    np.testing.assert_array_equal(to_host(target), expected)
    parts = ["sum_of_parts"] if inner > 1024 else []
    assert emulator.launches == [f"gemm_pieces_{kind}", *parts]


def test_a_product_of_16_by_32_bits_rounds_to_tf32_on_tensor_cores(emulator):
    a, b = normal((70, 64), np.float16), normal((64, 40), seed=1)
    expected = a.astype(np.float64) @ b
    for capability, tolerance in (((8, 0), 4e-4), ((7, 5), 1e-6)):
        emulator.capability = capability
        result = to_host(gemm(cuda, to_device(a), to_device(b), cuda.empty((70, 40), np.float32)))
        assert relative(result, expected) < tolerance


@pytest.mark.parametrize(
    ("kind", "shape", "used"),
    [
        ("plain", (16, 16, 27), "gemm_half"),
        ("plain", (16, 12, 16), "gemm_half"),
        ("gram", (12, 16, 27), "gemm_half"),
        ("gram", (16, 16, 27), "gemm_pieces_gram"),
        ("mixed", (16, 12, 16), "gemm_pieces_mixed"),
        ("mixed", (16, 14, 16), "gemm"),
    ],
)
def test_rows_that_are_no_whole_pieces_go_another_way(emulator, kind, shape, used):
    (rows, columns, inner), (other, transposed) = shape, PIECES[kind]
    a, b = normal((rows, inner), np.float16), normal((inner, columns), other, 1)
    given = to_device(np.ascontiguousarray(a.T) if transposed else a), to_device(b)
    result = gemm(cuda, *given, cuda.empty((rows, columns), np.float32), transpose_a=transposed)
    assert emulator.launches == [used]
    assert relative(to_host(result), a.astype(np.float64) @ b.astype(np.float64)) < 4e-4


@pytest.mark.parametrize(
    ("rows", "columns", "inner"), [(4, 4, 4), (136, 72, 40), (64, 128, 200), (16, 16, 1096), (260, 8, 24)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_products_in_three_parts_are_exact_on_whole_numbers(order, emulator, transposed, rows, columns, inner):
    """Tiles that are not full, several steps, parts; factor, sum with what was there, bias and ReLU."""
    rng = np.random.default_rng(inner)
    a, b = (rng.integers(-2, 3, shape) * (rng.random(shape) < 0.5) for shape in ((rows, inner), (inner, columns)))
    start, bias = rng.integers(-9, 10, (rows, columns)), rng.integers(-9, 10, columns).astype(np.float32)
    target = to_device(start.astype(np.float32))
    given = to_device((a.T if transposed else a).astype(np.float32)), to_device(b.astype(np.float32))
    split = Cuda(opening.open_cuda().backend, splits_products=True)
    ran = split.backend.launches
    ran.clear()
    gemm(split, *given, target, transpose_a=transposed, factor=0.5, add=True, bias=to_device(bias), relu=True)
    np.testing.assert_array_equal(to_host(target), np.maximum(start + 0.5 * (a @ b) + bias, 0))
    kind = "gram" if transposed else "plain"
    assert ran == [f"gemm_split_{kind}", *(["sum_of_parts"] if inner > 1024 else [])]


@pytest.mark.parametrize("transposed", [False, True])
def test_products_in_three_parts_have_single_precisions_digits(emulator, transposed):
    a, b = normal((72, 500)), normal((500, 40), seed=1)
    given = to_device(np.ascontiguousarray(a.T) if transposed else a), to_device(b)
    split = Cuda(emulator, splits_products=True)
    result = to_host(gemm(split, *given, cuda.empty((72, 40), np.float32), transpose_a=transposed))
    assert relative(result, a.astype(np.float64) @ b) < 5e-7


def test_a_long_product_is_split_and_put_together(order, emulator):
    a, b, start = normal((3000, 5)), normal((3000, 7), seed=1), normal((5, 7), seed=2)
    output = to_device(start)
    gemm(cuda, to_device(a), to_device(b), output, transpose_a=True, factor=-0.5, add=True)
    assert "sum_of_parts" in emulator.launches
    expected = start - 0.5 * (a.T.astype(np.float64) @ b)
    assert relative(to_host(output), expected) < 1e-6


@pytest.mark.parametrize("inner", [40, 3000])
@pytest.mark.parametrize("dtype", REALS)
def test_bias_and_relu_come_last_and_before_the_result_is_rounded(order, inner, dtype):
    """Whole or in parts. The product alone is beyond 16 bits, with the bias it is not."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-2, 3, shape).astype(dtype) for shape in ((9, inner), (inner, 70)))
    bias, start = np.linspace(-60000, 60000, 70).round().astype(np.float32), rng.integers(-9, 10, (9, 70)).astype(dtype)
    exact = 30000.0 * np.sign(bias) * -1 + bias
    ones = np.concatenate([a, np.ones((9, 1), dtype)], 1), np.concatenate([b, (exact - bias)[None].astype(dtype)])
    output = to_device(start)
    gemm(cuda, *map(to_device, ones), output, add=True, bias=to_device(bias), relu=True)
    expected = np.maximum(start + a.astype(np.float64) @ b.astype(np.float64) + exact, 0)
    np.testing.assert_array_equal(to_host(output), expected.astype(dtype))


def test_products_that_do_not_fit_are_refused(emulator):
    a, b = cuda.empty((3, 4), np.float32), cuda.empty((5, 6), np.float32)
    with pytest.raises(ValueError, match=r"a product of \(3, 4\) and \(5, 6\) does not fit \(3, 6\)"):
        gemm(cuda, a, b, cuda.empty((3, 6), np.float32))


# ---- convolution ----


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("case", test_conv.CASES)
def test_convolution_equals_the_definition(emulator, case, dtype):
    input, weight, bias, window, group, gradient = test_conv.make(case, np.float32)
    input, weight, gradient = (array.astype(dtype) for array in (input, weight, gradient))
    wide, of_weight = input.astype(np.float64), weight.astype(np.float64)
    for of_bias in (None, bias):
        for relu in (False, True):
            expected = naive.conv(wide, of_weight, of_bias, window, group)
            given = None if of_bias is None else to_device(of_bias)
            result = cuda.conv(to_device(input), to_device(weight), given, window, group, relu=relu)
            assert result.dtype == dtype
            assert relative(to_host(result), np.maximum(expected, 0) if relu else expected) < TOLERANCE[dtype]
    expected = naive.conv_input_gradient(gradient.astype(np.float64), of_weight, input.shape, window, group)
    result = cuda.conv_input_gradient(to_device(gradient), to_device(weight), input.shape, window, group)
    assert result.dtype == dtype
    assert relative(to_host(result), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("case", ["vgg", "strided", "grouped", "padding beyond the window", "first layer"])
def test_chunks_give_the_same_bits_as_the_whole(emulator, case, monkeypatch):
    input, weight, bias, window, group, gradient = test_conv.make(case, np.float32)

    def both():
        given = [to_device(array) for array in (input, weight, bias, gradient)]
        forward = cuda.conv(*given[:3], window, group, relu=True)
        backward = cuda.conv_input_gradient(given[3], given[1], input.shape, window, group)
        return to_host(forward).tobytes(), to_host(backward).tobytes()

    whole = both()
    of_whole, emulator.launches = emulator.launches, []
    monkeypatch.setattr(geometry, "CHUNK_BYTES", 1)
    monkeypatch.setattr(geometry, "CHUNK_PIXELS", 4)
    assert both() == whole
    assert len(emulator.launches) > len(of_whole)


@pytest.mark.parametrize("case", test_conv.CASES)
def test_the_flipped_weight_is_the_same(emulator, case):
    _, weight, _, _, group, _ = test_conv.make(case, np.float32)
    result = to_host(cuda.flip_weight(to_device(weight), group))
    np.testing.assert_array_equal(result, cpu.flip_weight(weight, group))


def test_a_flipped_weight_at_hand_is_used(emulator):
    input, weight, _, window, _, gradient = test_conv.make("vgg", np.float32)
    flipped = to_device(2 * cpu.flip_weight(weight))
    result = cuda.conv_input_gradient(to_device(gradient), to_device(weight), input.shape, window, flipped=flipped)
    assert relative(to_host(result), 2.0 * cpu.conv_input_gradient(gradient, weight, input.shape, window)) < 1e-6


# ---- pooling ----


@pytest.mark.parametrize("case", [*test_pool.CASES.values(), *random_cases(30, 5)], ids=str)
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_average_pool_gives_the_same_bits(emulator, case, count_include_pad):
    shape, window = case
    input, gradient = normal(shape), normal((*output_size(window, *shape[:2]), shape[2]), seed=1)
    option = {"count_include_pad": count_include_pad}
    np.testing.assert_array_equal(
        to_host(cuda.average_pool(to_device(input), window, **option)), cpu.average_pool(input, window, **option)
    )
    np.testing.assert_array_equal(
        to_host(cuda.average_pool_input_gradient(to_device(gradient), shape, window, **option)),
        cpu.average_pool_input_gradient(gradient, shape, window, **option),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("kernel", "shape"), [((2, 2), (8, 6, 5)), ((2, 2), (9, 7, 4)), ((1, 3), (4, 8, 3))])
def test_pooling_and_relu_go_back_at_once_with_the_same_bits(order, kernel, shape, dtype):
    """Rows and columns that no window covers included."""
    window = Window(kernel, strides=kernel)
    input = np.maximum(normal(shape), 0).astype(dtype)
    flowing = normal((*output_size(window, *shape[:2]), shape[2]), seed=1).astype(dtype)
    there, gradient = to_device(input), to_device(flowing)
    output, signs = cuda.average_pool_of_relu(there, window)
    found = cuda.average_pool_of_relu_input_gradient(gradient, signs, shape, window)
    np.testing.assert_array_equal(to_host(output), to_host(cuda.average_pool(there, window)))
    pooled = cuda.average_pool_input_gradient(gradient, shape, window)
    np.testing.assert_array_equal(to_host(found), to_host(cuda.relu_input_gradient(pooled, there)))
    of_cpu, of_signs = cpu.average_pool_of_relu(input.astype(np.float32), window)
    np.testing.assert_array_equal(to_host(signs), of_signs)
    np.testing.assert_allclose(to_host(output), of_cpu, rtol=1e-3)
    back = cpu.average_pool_of_relu_input_gradient(flowing.astype(np.float32), of_signs, shape, window)
    np.testing.assert_allclose(to_host(found), back, rtol=1e-3)


def test_only_windows_side_by_side_take_the_relus_signs():
    assert pool.relu_pool_suits(Window((2, 2), strides=(2, 2)))
    for window in (
        Window((3, 3), strides=(2, 2)),
        Window((3, 3), strides=(3, 3)),
        Window((2, 2), strides=(2, 2), pads=(0, 0, 1, 1)),
        Window((2, 2), strides=(2, 2), ceil_mode=True),
    ):
        assert not pool.relu_pool_suits(window)


@pytest.mark.parametrize("case", [*test_pool.CASES.values(), *random_cases(30, 6)], ids=str)
def test_max_pool_gives_the_same_bits_with_ties_and_not_a_number(emulator, case):
    shape, window = case
    rng = np.random.default_rng(3)
    input = rng.integers(-1, 2, shape).astype(np.float32)
    input[rng.random(shape) < 0.05] = np.nan
    output, winners = cpu.max_pool(input, window)
    result, result_winners = cuda.max_pool(to_device(input), window)
    np.testing.assert_array_equal(to_host(result), output)
    np.testing.assert_array_equal(to_host(result_winners), winners)
    assert result_winners.dtype == winners.dtype
    gradient = normal(output.shape, seed=1)
    np.testing.assert_array_equal(
        to_host(cuda.max_pool_input_gradient(to_device(gradient), result_winners, shape, window)),
        cpu.max_pool_input_gradient(gradient, winners, shape, window),
    )


# ---- value by value ----


@pytest.mark.parametrize("count", [1, 7, 8, 9, 255, 1000])
def test_relu_gives_the_same_bits(emulator, count):
    values, gradient = normal((count,)), normal((count,), seed=1)
    values[::5] = 0
    values[3:4] = np.nan
    expected = cpu.relu(values)
    output = cuda.relu(to_device(values))
    np.testing.assert_array_equal(to_host(output), expected)
    mask = cuda.relu_mask(output)
    np.testing.assert_array_equal(to_host(mask), cpu.relu_mask(expected))
    kept = cpu.relu_input_gradient(gradient, expected)
    for given in (output, mask):
        np.testing.assert_array_equal(to_host(cuda.relu_input_gradient(to_device(gradient), given)), kept)
    in_place = to_device(gradient)
    assert cuda.relu_input_gradient(in_place, mask, out=in_place) is in_place
    np.testing.assert_array_equal(to_host(in_place), kept)


@pytest.mark.parametrize("sizes", [(4, 4), (1, 4), (4, 1), (1, 1)])
def test_affine_gives_the_same_bits(emulator, sizes):
    input, scale, shift = normal((3, 5, 4)), normal(sizes[:1], seed=1), normal(sizes[1:], seed=2)
    given = [to_device(array) for array in (input, scale, shift)]
    np.testing.assert_array_equal(to_host(cuda.affine(*given)), cpu.affine(input, scale, shift))
    result = cuda.affine_input_gradient(*given[:2])
    np.testing.assert_array_equal(to_host(result), cpu.affine_input_gradient(input, scale))


def test_branches_meet_and_part(emulator):
    inputs = [normal((3, 4, channels), seed=channels) for channels in (2, 5, 1)]
    joined = cpu.concat(inputs)
    np.testing.assert_array_equal(to_host(cuda.concat([to_device(one) for one in inputs])), joined)
    for part, one in zip(cuda.split(to_device(joined), (2, 5, 1)), inputs, strict=True):
        np.testing.assert_array_equal(to_host(part), one)
    same = [normal((3, 4, 2), seed=seed) for seed in range(3)]
    given = [to_device(one) for one in same]
    np.testing.assert_array_equal(to_host(cuda.add(given)), cpu.add(same))
    np.testing.assert_array_equal(to_host(given[0]), same[0])


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("mode", test_pad.MODES)
@pytest.mark.parametrize(("shape", "pads"), test_pad.CASES)
def test_padding_gives_the_same_bits(emulator, shape, pads, mode, dtype):
    input = normal(shape, dtype)
    padded = cpu.pad(input, pads, mode)
    np.testing.assert_array_equal(to_host(cuda.pad(to_device(input), pads, mode)), padded)
    # Small whole numbers: their sums are exact in 16 bits too.
    gradient = np.random.default_rng(3).integers(-9, 10, padded.shape).astype(dtype)
    found = to_host(cuda.pad_input_gradient(to_device(gradient), shape, pads, mode))
    np.testing.assert_array_equal(found, cpu.pad_input_gradient(gradient, shape, pads, mode))


@pytest.mark.parametrize("bgr", [False, True])
def test_pixels(emulator, bgr):
    image = np.random.default_rng(0).uniform(0, 255, (5, 7, 3))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    expected = cpu.normalize_pixels(image, bgr, 1 / 255, mean, std, np.dtype(np.float32))
    result = to_host(cuda.normalize_pixels(to_device(image), bgr, 1 / 255, mean, std, np.dtype(np.float32)))
    np.testing.assert_array_equal(result, expected)
    result = to_host(cuda.normalize_pixels_input_gradient(to_device(expected), bgr, 1 / 255, std))
    np.testing.assert_array_equal(result, cpu.normalize_pixels_input_gradient(expected, bgr, 1 / 255, std))


# ---- sums ----


@pytest.mark.parametrize("count", [1, 255, 4097, 70001])
def test_sums(order, count):
    a, b = normal((count, 1)), normal((count, 1), seed=1)
    bad = a.copy()
    bad[::100] = np.inf
    bad[1::100] = np.nan
    sums = [
        cuda.squared_distance(to_device(a), to_device(b), 2.0),
        cuda.quotient_distance(to_device(a), 2.0, to_device(b), 7.0, 3.0),
        cuda.count_not_finite(to_device(bad)),
    ]
    distance, squares, wrong = cuda.numbers(sums)
    assert distance == pytest.approx(cpu.squared_distance(a, b, 2.0), rel=1e-13)
    # The quotients are rounded to single precision, on both.
    assert squares == pytest.approx(cpu.quotient_distance(a, np.float32(2), b, np.float32(7), 3.0), rel=1e-5)
    assert wrong == cpu.count_not_finite(bad) > 0


def test_no_numbers_need_no_device():
    assert reductions.numbers(None, []) == cpu.numbers([]) == []


def test_differences(emulator):
    a, b, flowing = normal((6, 7)), normal((6, 7), seed=1), normal((6, 7), seed=2)
    given = [to_device(array) for array in (a, b)]
    result = to_host(cuda.quotient_difference(given[0], 3.0, given[1], 7.0))
    np.testing.assert_array_equal(result, cpu.quotient_difference(a, np.float32(3), b, np.float32(7)))
    np.testing.assert_array_equal(to_host(cuda.weighted_difference(*given, 0.3)), cpu.weighted_difference(a, b, 0.3))
    target = to_device(flowing)
    assert cuda.weighted_difference(*given, 0.3, add_to=target) is target
    np.testing.assert_array_equal(to_host(target), cpu.weighted_difference(a, b, 0.3, add_to=flowing))


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (9, 4, 33), (40, 61, 16)])
def test_gram_matrices_are_float32_and_symmetric(order, shape, dtype):
    features = normal(shape, dtype)
    result = to_host(cuda.gram(to_device(features)))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, result.T)
    wide = features.astype(np.float64)
    assert relative(result, np.einsum("yxi,yxj->ij", wide, wide)) < 1e-6


def test_the_product_of_the_gram_gradient(emulator):
    features, flowing, matrix = normal((5, 6, 7)), normal((5, 6, 7), seed=1), normal((7, 7), seed=2)
    matrix += matrix.T
    given = to_device(matrix), to_device(features)
    expected = cpu.gram_product(matrix, features.astype(np.float64), factor=0.25)
    assert relative(to_host(cuda.gram_product(*given, factor=0.25)), expected) < 1e-6
    target = to_device(flowing)
    assert cuda.gram_product(*given, factor=0.25, add_to=target) is target
    assert relative(to_host(target), flowing + expected) < 1e-6


# ---- what holds for all ----


def test_gradients_are_adjoints(emulator):
    rng = np.random.default_rng(11)
    for shape, window in random_cases(25, 12):
        filters = int(rng.integers(1, 6))
        x, weight = normal(shape), normal((*window.kernel, shape[2], filters), seed=1)
        pairs = [
            (
                cuda.conv(to_device(x), to_device(weight), None, window),
                lambda g, weight=weight, shape=shape, window=window: cuda.conv_input_gradient(
                    g, to_device(weight), shape, window
                ),
            ),
            (
                cuda.average_pool(to_device(x), window),
                lambda g, shape=shape, window=window: cuda.average_pool_input_gradient(g, shape, window),
            ),
        ]
        for output, transpose in pairs:
            gradient = normal(output.shape, seed=2)
            forward = np.vdot(gradient.astype(np.float64), to_host(output))
            backward = np.vdot(to_host(transpose(to_device(gradient))).astype(np.float64), x)
            scale = np.linalg.norm(gradient) * np.linalg.norm(to_host(output)) + 1e-30
            assert abs(forward - backward) < 1e-6 * scale, (shape, window)


def test_arguments_are_not_changed(emulator):
    input, weight, bias, window, _, gradient = test_conv.make("vgg", np.float32)
    given = [to_device(array) for array in (input, weight, bias, gradient)]
    cuda.conv(*given[:3], window, relu=True)
    cuda.conv_input_gradient(given[3], given[1], input.shape, window)
    cuda.relu_input_gradient(given[3], cuda.relu_mask(given[3]))
    for array, original in zip(given, (input, weight, bias, gradient), strict=True):
        np.testing.assert_array_equal(to_host(array), original)


def test_results_do_not_depend_on_the_order_of_threads(compiled_kernels, monkeypatch):
    results = []
    for descending in (False, True):
        emulated = Emulator(compiled_kernels, descending)
        gpu = Cuda(emulated)
        monkeypatch.setattr(opening, "open_cuda", lambda gpu=gpu: gpu)
        features = to_device(normal((30, 40, 9)))
        results.append(
            (
                to_host(cuda.gram(features)).tobytes(),
                *cuda.numbers([cuda.quotient_distance(features, 1.0, features, 2.0, 1.0)]),
            )
        )
    assert results[0] == results[1]
