"""Pooling: equal to its definition; the average's gradient is its transpose, the maximum's goes to the winner."""

import importlib
import itertools

import numpy as np
import pytest

from kernels import Cpu
from kernels.geometry import Window, output_size
from tests.kernels import naive
from tests.kernels.devices import cpu

pool_module = importlib.import_module("kernels.cpu.pool")

# (input H, W, C), window
CASES = {
    "vgg": ((8, 6, 5), Window((2, 2), strides=(2, 2))),
    "vgg, odd size": ((7, 9, 3), Window((2, 2), strides=(2, 2))),
    "rounded up": ((7, 9, 3), Window((2, 2), strides=(2, 2), ceil_mode=True)),
    "rounded up, padded": ((7, 6, 4), Window((3, 3), strides=(2, 2), pads=(1, 1, 1, 1), ceil_mode=True)),
    "rounded up, beyond the padding": ((6, 6, 2), Window((3, 2), strides=(3, 3), pads=(1, 0, 1, 1), ceil_mode=True)),
    "overlapping": ((9, 8, 3), Window((3, 3), strides=(2, 2))),
    "overlapping, stride 1": ((6, 5, 3), Window((3, 2))),
    "uneven padding": ((6, 5, 3), Window((3, 3), strides=(2, 1), pads=(2, 0, 1, 1))),
    "windows of padding only": ((4, 5, 2), Window((2, 2), pads=(3, 2, 2, 4))),
    "dilated": ((9, 11, 3), Window((3, 2), strides=(2, 1), pads=(1, 0, 2, 1), dilations=(2, 3))),
    "stride beyond the kernel": ((10, 11, 3), Window((2, 1), strides=(3, 4))),
    "same, upper": ((7, 6, 2), Window((3, 2), strides=(2, 2), auto_pad="SAME_UPPER")),
    "same, lower": ((7, 6, 2), Window((4, 3), strides=(2, 1), auto_pad="SAME_LOWER")),
    "whole image": ((5, 4, 3), Window((5, 4))),
    "one pixel": ((1, 1, 9), Window((1, 1))),
    "more than 256 taps": ((19, 18, 2), Window((17, 17))),
}
DTYPES = [np.float32, np.float64, np.complex128]
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-15, np.complex128: 1e-15}


def normal(rng, shape, dtype):
    values = rng.standard_normal(shape)
    if dtype is np.complex128:
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


def make(case, dtype=np.float64, seed=0):
    """Return an input, the window, and a gradient of the output's shape."""
    shape, window = CASES[case]
    rng = np.random.default_rng(seed)
    return normal(rng, shape, dtype), window, normal(rng, (*output_size(window, *shape[:2]), shape[2]), dtype)


def with_ties(case, dtype):
    """Return an input of three different values, and the rest as ``make``."""
    input, window, gradient = make(case, dtype)
    input = np.random.default_rng(3).integers(-1, 2, input.shape).astype(dtype)
    if dtype is np.complex128:
        input += 1j * np.random.default_rng(4).standard_normal(input.shape)
    return input, window, gradient


def unwritten(shape, dtype=float):
    """Stand in for ``np.empty``: memory that nobody writes to shows."""
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind in "fc" else np.iinfo(dtype).max, dtype)


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def scattered(gradient, position, valid, shape):
    """Return the gradient of a maximum by its definition: each output's goes where its value came from."""
    result = np.zeros(shape, gradient.dtype)
    for y, x, c in np.ndindex(gradient.shape):
        if valid[y, x, c]:
            result[(*position[y, x, c], c)] += gradient[y, x, c]
    return result


def positions(winners, window, top_left):
    """Return the input row and column that each winning tap reads."""
    rows, columns = np.indices(winners.shape[:2])
    ky, kx = np.divmod(winners.astype(int), window.kernel[1])
    return np.stack(
        [
            rows[:, :, None] * window.strides[0] + ky * window.dilations[0] - top_left[0],
            columns[:, :, None] * window.strides[1] + kx * window.dilations[1] - top_left[1],
        ],
        axis=-1,
    )


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_average_gradient_is_the_adjoint(case, count_include_pad):
    input, window, gradient = make(case)
    output = cpu.average_pool(input, window, count_include_pad=count_include_pad)
    transposed = cpu.average_pool_input_gradient(gradient, input.shape, window, count_include_pad=count_include_pad)
    scale = np.linalg.norm(gradient) * np.linalg.norm(output)
    assert abs(np.vdot(gradient, output) - np.vdot(transposed, input)) < 5e-15 * scale


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_average_and_its_gradient_equal_the_definition(case, count_include_pad, dtype, monkeypatch):
    input, window, gradient = make(case, dtype)
    weights = naive.average_weights(window, *input.shape[:2], count_include_pad)
    monkeypatch.setattr(np, "empty", unwritten)
    output = cpu.average_pool(input, window, count_include_pad=count_include_pad)
    back = cpu.average_pool_input_gradient(gradient, input.shape, window, count_include_pad=count_include_pad)
    monkeypatch.undo()
    assert output.dtype == back.dtype == dtype
    np.testing.assert_allclose(
        output, np.einsum("yxvu,vuc->yxc", weights, input), rtol=0, atol=4 * TOLERANCE[dtype] * abs(input).max()
    )
    assert relative(back, np.einsum("yxvu,yxc->vuc", weights, gradient)) < TOLERANCE[dtype]


def test_average_of_a_constant_image_is_the_constant_where_padding_does_not_count():
    for case, (shape, window) in CASES.items():
        if case != "windows of padding only":
            output = cpu.average_pool(np.full(shape, 3.0), window)
            np.testing.assert_allclose(output, 3.0, rtol=1e-15, err_msg=case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make_input", [make, with_ties])
@pytest.mark.parametrize("case", CASES)
def test_maximum_and_its_gradient_equal_the_definition(case, make_input, dtype, monkeypatch):
    input, window, gradient = make_input(case, dtype)
    expected, position = naive.max_pool(input, window)
    monkeypatch.setattr(np, "empty", unwritten)
    output, winners = cpu.max_pool(input, window)
    back = cpu.max_pool_input_gradient(gradient, winners, input.shape, window)
    monkeypatch.undo()
    np.testing.assert_array_equal(output, expected)
    assert output.dtype == back.dtype == dtype
    seen = np.isfinite(expected)
    pads = pool_module.resolved_pads(window, *input.shape[:2])
    np.testing.assert_array_equal(positions(winners, window, pads)[seen], position[seen])
    np.testing.assert_allclose(
        back, scattered(gradient, position, seen, input.shape), rtol=0, atol=10 * TOLERANCE[dtype]
    )


def test_the_cases_hold_ties_and_windows_of_padding_only():
    input, window, _ = with_ties("overlapping", np.float64)
    _, position = naive.max_pool(input, window)
    _, from_behind = naive.max_pool(input[::-1, ::-1], window)
    assert (position != input.shape[0] - 1 - from_behind[::-1, ::-1]).any()
    input, window, _ = make("windows of padding only")
    assert np.isneginf(naive.max_pool(input, window)[0]).any()


def test_among_equals_the_first_wins():
    output, winners = cpu.max_pool(np.ones((4, 4, 2)), Window((2, 2), strides=(2, 2)))
    assert (output == 1).all()
    assert (winners == 0).all()
    back = cpu.max_pool_input_gradient(np.ones((2, 2, 2)), winners, (4, 4, 2), Window((2, 2), strides=(2, 2)))
    expected = np.zeros((4, 4, 2))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(back, expected)


def test_complex_numbers_are_compared_by_their_real_part():
    input = np.array([[[1 + 9j], [2 - 5j]], [[-3 + 99j], [2 + 7j]]])
    output, winners = cpu.max_pool(input, Window((2, 2)))
    assert output.item() == 2 - 5j
    assert winners.item() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_not_a_number_wins_over_all(dtype):
    for where in itertools.product(range(2), range(2)):
        for filling in (-np.inf, 0.0, np.inf):
            input = np.full((2, 2, 1), filling, dtype)
            input[where] = np.nan
            output, winners = cpu.max_pool(input, Window((2, 2)))
            assert np.isnan(output).all()
            assert winners.item() == 2 * where[0] + where[1]


def test_the_first_not_a_number_wins():
    input = np.array([[[0.0], [np.nan]], [[np.nan], [5.0]]])
    assert cpu.max_pool(input, Window((2, 2)))[1].item() == 1


@pytest.mark.parametrize(("kernel", "dtype"), [((16, 16), np.uint8), ((16, 17), np.uint16)])
def test_winners_take_the_fewest_bytes_that_number_the_taps(kernel, dtype):
    input = np.zeros((*kernel, 1))
    input[-1, -1] = 1
    _, winners = cpu.max_pool(input, Window(kernel))
    assert winners.dtype == dtype
    assert winners.item() == kernel[0] * kernel[1] - 1


def run_all(input, window, gradient, workers):
    output, winners = workers.max_pool(input, window)
    return [
        workers.average_pool(input, window),
        workers.average_pool(input, window, count_include_pad=True),
        workers.average_pool_input_gradient(gradient, input.shape, window),
        output,
        winners,
        workers.max_pool_input_gradient(gradient, winners, input.shape, window),
    ]


@pytest.mark.parametrize("case", CASES)
def test_cutting_into_small_strips_changes_no_bit(case, monkeypatch):
    input, window, gradient = make(case)
    whole = run_all(input, window, gradient, Cpu(1))
    monkeypatch.setattr(np, "empty", unwritten)
    row = input.shape[1] * input.shape[2]
    for strip in (1, 2 * row, 5 * row):
        monkeypatch.setattr(pool_module, "_STRIP", strip)
        for cut, expected in zip(run_all(input, window, gradient, Cpu(1)), whole, strict=True):
            np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", [Window((2, 2), strides=(2, 2)), Window((3, 3), strides=(2, 1), pads=(1, 1, 1, 1))])
def test_same_bits_at_any_thread_count(window, dtype, monkeypatch):
    monkeypatch.setattr(pool_module, "_STRIP", 1 << 11)
    rng = np.random.default_rng(1)
    input = normal(rng, (101, 47, 16), dtype)
    gradient = normal(rng, (*output_size(window, 101, 47), 16), dtype)
    results = [
        b"".join(array.tobytes() for array in run_all(input, window, gradient, Cpu(threads)))
        for threads in (1, 2, 3, 5)
    ]
    assert len(set(results)) == 1


def test_arguments_stay_as_they_are():
    input, window, gradient = make("overlapping")
    _, winners = cpu.max_pool(input, window)
    arguments = (input, gradient, winners)
    copies = [array.copy() for array in arguments]
    run_all(input, window, gradient, Cpu(2))
    cpu.max_pool_input_gradient(gradient, winners, input.shape, window)
    for array, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
