"""A device is compared with the CPU before it is used: a kernel that is wrong there is noticed and named."""

import warnings

import numpy as np
import pytest

from engine import load_network
from engine.device import choose_device
from kernels import cuda, gpu_unavailable
from kernels.cuda import runtime, trust
from tests.engine import models
from tests.kernels.cuda.test_mirror import CUDA_ONLY

# Moved, turned or copied by others of the comparison, bytes counted, or used by the optimisers alone.
NOT_COMPARED = {
    "add_to",
    "affine_input_gradient",
    "conv_scratch_bytes",
    "flip_weight",
    "numbers",
    "quotient_difference",
    "relu_sign",
    "split",
}
NOT_COMPARED |= {"empty", "lbfgs_store", "line_step", "scaled", "zeros"}


def spoil(results):
    """Change one value of a kernel's first result a little."""
    values = results[0].values.reshape(-1)
    values[len(values) // 2] += 0.1 * (1 + abs(values[len(values) // 2]))


def test_all_is_well_on_a_device_that_is_right(emulator):
    assert trust.wrong_kernels() == {}
    emulator.wrong = None
    assert gpu_unavailable() is None
    assert emulator.wrong == {}


def test_everything_that_the_network_uses_is_compared():
    compared = {name.partition(",")[0] for name in trust.CHECKS}
    assert set(cuda.__all__) - CUDA_ONLY - NOT_COMPARED == compared


@pytest.mark.parametrize(
    ("kernel", "named"),
    [
        ("patches", "conv"),
        ("product", "gram"),
        ("gather_patches", "conv_input_gradient, strided"),
        ("average_pool", "average_pool"),
        ("average_pool_input_gradient", "average_pool_input_gradient"),
        ("max_pool", "max_pool"),
        ("relu", "relu"),
        ("weighted_difference", "weighted_difference"),
        ("normalize_pixels", "normalize_pixels"),
        ("sum_parts", "square_sum"),
        ("copy_columns", "concat"),
        ("pad", "pad"),
        ("pad_input_gradient", "pad_input_gradient"),
        ("adam_step", "adam_step"),
        ("momentum_step", "momentum_step"),
        ("line_step", "lbfgs_products"),
        ("lbfgs_store", "lbfgs_products"),
        ("lbfgs_products", "lbfgs_products"),
        ("lbfgs_changed", "lbfgs_products"),
        ("lbfgs_direction", "lbfgs_direction"),
        ("product_half", "conv, float16"),
        ("product_pieces_gram", "gram, float16"),
        ("product_pieces_mixed", "gram_product, float16"),
    ],
)
def test_a_kernel_with_one_wrong_value_is_named(emulator, kernel, named):
    emulator.faults[kernel] = spoil
    assert named in trust.wrong_kernels()


def test_a_wrong_device_is_not_used_and_one_warning_says_so(emulator, tmp_path):
    path = models.save(models.vgg(models.parameters((2, 2))), tmp_path / "tiny.onnx")
    emulator.wrong, emulator.faults = None, {"average_pool": spoil}
    with pytest.warns(RuntimeWarning, match="the GPU is not used: kernels give other results on emulated GPU") as found:
        assert choose_device("auto") == "cpu"
    assert len(found) == 1
    with warnings.catch_warnings(action="error"):
        assert load_network(path, device="auto").device == "cpu"
        message = r"device 'cuda' is not available: kernels give .* relative: average_pool by 0\.0"
        with pytest.raises(ValueError, match=message):
            load_network(path, device="cuda")


def test_launches_can_be_recorded_and_made_again(emulator):
    values, output = runtime.to_device(np.arange(5.0)), runtime.empty((5,), np.float64)
    result, again = cuda.record(lambda: cuda.scaled(values, 2.0, out=output))
    assert result is output
    assert np.isnan(runtime.to_host(output)).all()
    for factor in (1.0, 3.0):
        cuda.scaled(runtime.to_device(factor * np.arange(5.0)), 1.0, out=values)
        again()
        np.testing.assert_array_equal(runtime.to_host(output), 2 * factor * np.arange(5.0))
    with pytest.raises(AssertionError, match="nothing can be fetched while launches are recorded"):
        cuda.record(lambda: runtime.to_host(output))
