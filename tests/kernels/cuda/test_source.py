"""The sources' declarations are read right, and a launch that does not fit them is refused."""

import numpy as np
import pytest

from kernels.cuda.source import FOLDER, Kernel, Parameter, declarations, declared, program, sources
from tests.kernels.devices import cuda

TEXT = """
// extern is a word of its own
extern "C" __global__ void __launch_bounds__(256) scale(const REAL* __restrict__ input,
                                                        REAL* output, unsigned int count, double factor) {
}
static void helper(int x) {}
extern "C" __global__ void fill(float *target, int value) { }
"""
SCALE = Kernel("reductions.cu", "weighted_difference", (("REAL", np.dtype(np.float32)),))


def test_declarations_are_read():
    assert declarations(TEXT) == {
        "scale": (
            Parameter("input", "REAL", True, True),
            Parameter("output", "REAL", True, False),
            Parameter("count", "unsigned int", False, False),
            Parameter("factor", "double", False, False),
        ),
        "fill": (Parameter("target", "float", True, False), Parameter("value", "int", False, False)),
    }


@pytest.mark.parametrize("file", sources())
def test_every_kernel_of_a_source_is_found_and_none_includes_a_header(file):
    text = (FOLDER / file).read_text()
    assert len(declared(file)) == text.count("__global__")
    assert "#include" not in text
    assert text.startswith("// "), "a header comment says what it is and who owns what"


def test_kernels_have_names_of_their_own():
    names = [name for file in sources() for name in declared(file)]
    assert len(names) == len(set(names)) >= 20


def test_the_program_names_its_types_and_begins_with_the_prelude():
    text = program("relu.cu", (("REAL", np.dtype(np.float16)),))
    assert text.startswith('#define REAL half\n#line 1 "prelude.cu"\n')
    assert text.index("struct half") < text.index('#line 1 "relu.cu"') < text.index("relu_mask")


def fitting():
    a, b, target = (cuda.empty((4, 5), np.float32) for _ in range(3))
    return [a, b, target, 1.5, 0, 20]


def test_numbers_come_in_their_declared_types(emulator):
    *_, weight, add, count = SCALE.checked((1, 1, 1), (256, 1, 1), fitting())
    assert (type(weight), type(add), type(count)) == (np.float32, np.int32, np.uint32)


@pytest.mark.parametrize(
    ("index", "value", "error", "message"),
    [
        (0, np.zeros((4, 5), np.float64), TypeError, "kernel 'weighted_difference': a must be float32, got float64"),
        (1, np.zeros((5, 4), np.float32).T, ValueError, "kernel 'weighted_difference': b must be C-contiguous"),
        (2, 3.0, TypeError, "target must be an array on the device, got float"),
        (3, "1", TypeError, "weight must be a number, got str"),
        (4, 0.5, ValueError, "add must be a whole number that fits int32, got 0.5"),
        (5, 1 << 32, ValueError, "count must be a whole number that fits uint32, got 4294967296"),
        (5, -1, ValueError, "count must be a whole number that fits uint32, got -1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(emulator, index, value, error, message):
    arguments = fitting()
    arguments[index] = value
    with pytest.raises(error, match=message):
        SCALE.checked((1, 1, 1), (256, 1, 1), arguments)


def test_too_few_arguments_and_impossible_launches_are_refused(emulator):
    with pytest.raises(TypeError, match="takes 6 arguments, got 5"):
        SCALE.checked((1, 1, 1), (256, 1, 1), fitting()[:-1])
    for grid, block in [((0, 1, 1), (1, 1, 1)), ((1, 70000, 1), (1, 1, 1))]:
        with pytest.raises(ValueError, match="cannot be launched"):
            SCALE.checked(grid, block, fitting())
    with pytest.raises(ValueError, match="more than 1024 threads"):
        SCALE.checked((1, 1, 1), (64, 32, 1), fitting())
