"""Where windows lie: every number against a search that follows the definition."""

import itertools

import numpy as np
import pytest

from kernels.geometry import Window, output_size, reaching, resolved_pads, strips


def starts_of_windows(size, extent, stride, begin, end, ceil_mode):
    """Return where each window begins, in the padded input, by trying all positions."""
    padded = begin + size + end
    starts = [start for start in range(0, padded, stride) if start + extent <= padded]
    beyond = len(starts) * stride
    # Rounding up adds the window that would take in what is left over, unless it begins behind the input.
    if ceil_mode and starts[-1] + extent < padded and beyond < begin + size:
        starts.append(beyond)
    return starts


def random_window(rng, **fixed):
    return Window(
        kernel=tuple(int(n) for n in rng.integers(1, 5, 2)),
        strides=tuple(int(n) for n in rng.integers(1, 5, 2)),
        dilations=tuple(int(n) for n in rng.integers(1, 4, 2)),
        **fixed,
    )


def with_pads(window, pads):
    return Window(window.kernel, window.strides, pads, window.dilations, window.ceil_mode, window.auto_pad)


def fits(window, size, pads):
    return all(size[axis] + pads[axis] + pads[axis + 2] >= window.extent[axis] for axis in range(2))


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_output_size_counts_the_windows_that_fit(ceil_mode):
    rng = np.random.default_rng(0)
    tried = 0
    while tried < 2000:
        window = random_window(rng, ceil_mode=ceil_mode)
        # Padding of a whole window or more makes windows that see nothing: no exporter rounds those up.
        limit = window.extent if ceil_mode else (9, 9)
        pads = tuple(int(rng.integers(0, limit[axis % 2])) for axis in range(4))
        size = tuple(int(n) for n in rng.integers(1, 14, 2))
        if not fits(window, size, pads):
            continue
        tried += 1
        window = with_pads(window, pads)
        expected = tuple(
            len(
                starts_of_windows(
                    size[axis], window.extent[axis], window.strides[axis], pads[axis], pads[axis + 2], ceil_mode
                )
            )
            for axis in range(2)
        )
        assert output_size(window, *size) == expected, (window, size)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_same_padding_is_the_least_that_gives_size_over_stride_outputs(auto_pad, ceil_mode):
    rng = np.random.default_rng(1)
    for _ in range(1000):
        window = random_window(rng, auto_pad=auto_pad, ceil_mode=ceil_mode)
        size = tuple(int(n) for n in rng.integers(1, 14, 2))
        pads = resolved_pads(window, *size)
        for axis in range(2):
            stride, extent = window.strides[axis], window.extent[axis]
            outputs = next(n for n in itertools.count() if n * stride >= size[axis])
            total = next(n for n in itertools.count() if (outputs - 1) * stride + extent <= size[axis] + n)
            begin, end = pads[axis], pads[axis + 2]
            assert begin + end == total, (window, size)
            assert (end - begin if auto_pad == "SAME_UPPER" else begin - end) == total % 2, (window, size)
            assert output_size(window, *size)[axis] == outputs, (window, size)


def test_valid_means_no_padding_whatever_pads_say():
    rng = np.random.default_rng(2)
    for _ in range(300):
        window = with_pads(random_window(rng, auto_pad="VALID"), (1, 2, 3, 4))
        size = tuple(int(n) for n in rng.integers(13, 20, 2))
        plain = Window(window.kernel, window.strides, (0, 0, 0, 0), window.dilations)
        assert resolved_pads(window, *size) == (0, 0, 0, 0)
        assert output_size(window, *size) == output_size(plain, *size)


def test_notset_takes_the_pads_as_they_are():
    assert resolved_pads(Window((3, 3), strides=(2, 2), pads=(1, 2, 3, 4)), 9, 9) == (1, 2, 3, 4)


def test_vgg_keeps_the_size_in_convolutions_and_halves_it_in_poolings():
    for height, width in [(2, 3), (17, 16), (224, 225)]:
        assert output_size(Window((3, 3), pads=(1, 1, 1, 1)), height, width) == (height, width)
        assert output_size(Window((2, 2), strides=(2, 2)), height, width) == (height // 2, width // 2)
        rounded_up = Window((2, 2), strides=(2, 2), ceil_mode=True)
        assert output_size(rounded_up, height, width) == ((height + 1) // 2, (width + 1) // 2)


@pytest.mark.parametrize(
    ("window", "size"),
    [
        (Window((3, 3)), (2, 9)),
        (Window((3, 3)), (9, 2)),
        (Window((2, 2), dilations=(1, 4)), (5, 4)),
        (Window((3, 3), pads=(1, 0, 0, 0)), (1, 9)),
        (Window((3, 3), strides=(2, 2), ceil_mode=True), (1, 9)),
        (Window((1, 1)), (0, 5)),
        (Window((3, 3), pads=(2, 2, 2, 2)), (0, 5)),
    ],
)
def test_an_input_smaller_than_the_window_is_refused(window, size):
    extent = f"{window.extent[0]}x{window.extent[1]}"
    with pytest.raises(ValueError, match=f"an input of {size[0]}x{size[1]} is smaller than the window of {extent}"):
        output_size(window, *size)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": (0, 3)}, r"kernel \(0, 3\), .* must be at least 1"),
        ({"kernel": (3, 3), "strides": (1, 0)}, r"strides \(1, 0\) .* must be at least 1"),
        ({"kernel": (3, 3), "dilations": (-1, 1)}, r"dilations \(-1, 1\) must be at least 1"),
        ({"kernel": (3, 3), "pads": (0, 0, -1, 0)}, r"pads \(0, 0, -1, 0\) must not be negative"),
        ({"kernel": (3, 3), "auto_pad": "SAME"}, "auto_pad 'SAME' is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER"),
    ],
)
def test_impossible_windows_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Window(**arguments)


def test_taps_run_row_by_row_and_span_the_extent():
    window = Window((2, 3), dilations=(4, 2))
    assert window.taps == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    offsets = [(ky * 4, kx * 2) for ky, kx in window.taps]
    assert window.extent == (max(y for y, _ in offsets) + 1, max(x for _, x in offsets) + 1)


def test_reaching_finds_exactly_the_outputs_that_read_the_range():
    for offset, stride, low, length, count in itertools.product(
        range(-7, 8), range(1, 5), range(-4, 6), range(5), range(6)
    ):
        high = low + length
        expected = [o for o in range(count) if low <= o * stride + offset < high]
        first, last = reaching(offset, stride, low, high, count)
        assert 0 <= first <= last <= count
        assert list(range(first, last)) == expected, (offset, stride, low, high, count)


def test_strips_cover_the_range_once_and_in_order():
    for count, length in itertools.product(range(20), range(1, 8)):
        cut = strips(count, length)
        assert [index for start, stop in cut for index in range(start, stop)] == list(range(count))
        assert all(stop - start == length for start, stop in cut[:-1])
        assert all(0 < stop - start <= length for start, stop in cut)
