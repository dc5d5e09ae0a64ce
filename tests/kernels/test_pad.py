"""Padding: the definition is NumPy's, the input gradient its adjoint."""

import numpy as np
import pytest

from kernels import Cpu
from kernels.geometry import padded_size, padded_sources
from tests.kernels.devices import cpu

MODES = ("constant", "reflect", "edge")
CASES = [((5, 7, 3), (1, 2, 3, 4)), ((4, 4, 1), (3, 3, 3, 3)), ((6, 2, 2), (0, 1, 5, 0)), ((3, 9, 4), (0, 0, 0, 0))]


def normal(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "pads"), CASES)
def test_padding_is_numpys(shape, pads, mode, dtype):
    input = (normal(shape) + (1j * normal(shape, 1) if dtype is np.complex128 else 0)).astype(dtype)
    top, left, bottom, right = pads
    found = cpu.pad(input, pads, mode)
    assert found.dtype == dtype
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, np.pad(input, ((top, bottom), (left, right), (0, 0)), mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "pads"), CASES)
def test_input_gradient_is_the_adjoint(shape, pads, mode):
    input = normal(shape)
    output = cpu.pad(input, pads, mode)
    gradient = normal(output.shape, seed=2)
    pulled = cpu.pad_input_gradient(gradient, shape, pads, mode)
    scale = np.linalg.norm(gradient) * np.linalg.norm(output)
    assert abs(np.vdot(pulled, input) - np.vdot(gradient, output)) <= 5e-15 * scale


@pytest.mark.parametrize("mode", MODES)
def test_results_do_not_depend_on_the_threads(mode):
    shape, pads = (40, 31, 5), (9, 3, 2, 8)
    gradient = normal((51, 42, 5)).astype(np.float32)
    results = [
        (
            device.pad(normal(shape), pads, mode),
            device.pad_input_gradient(gradient, shape, pads, mode),
        )
        for device in (Cpu(1), Cpu(3))
    ]
    for one, three in zip(*results, strict=True):
        np.testing.assert_array_equal(one, three)


@pytest.mark.parametrize(
    ("size", "before", "behind", "mode", "message"),
    [
        (4, 4, 0, "reflect", "4 rows or columns of padding cannot be reflected from 4"),
        (4, -1, 0, "edge", "padding of -1 and 0 must not be negative"),
        (4, 1, 0, "wrap", "padding 'wrap' is not one of constant, reflect, edge"),
    ],
)
def test_padding_that_is_none_is_named(size, before, behind, mode, message):
    for function in (padded_size, padded_sources):
        with pytest.raises(ValueError, match=message):
            function(size, before, behind, mode)
