"""A device is compared with the CPU before it is used: a kernel that is wrong there is noticed and named."""

import functools
import sys
import types
import warnings

import numpy as np
import pytest

from engine import load_network
from engine.device import choose_device
from kernels import Cuda
from kernels.cuda import opening, selftest
from tests.engine import models
from tests.kernels.cuda.emulator import Emulator
from tests.kernels.cuda.test_mirror import kernels_of
from tests.kernels.devices import cuda, to_device, to_host

# Moved, flipped or copied by others of the comparison, bytes counted, used by the optimizers alone, or on the host.
NOT_COMPARED = {
    "add_to",
    "affine_input_gradient",
    "flip_weight",
    "numbers",
    "quantiles",
    "quotient_difference",
    "relu_mask",
    "split",
    "convolution",
    "lbfgs_store",
    "line_step",
    "scaled",
    "transport_residual",
    "zeros",
}


def spoil(results):
    """Change one value of a kernel's first result a little."""
    values = results[0].values.reshape(-1)
    values[len(values) // 2] += 0.1 * (1 + abs(values[len(values) // 2]))


def test_all_is_well_on_a_device_that_is_right(emulator):
    assert selftest.wrong_kernels(emulator.device) == {}
    assert opening.unavailable() is None


def test_everything_that_the_network_uses_is_compared():
    compared = {name.partition(",")[0] for name in selftest.CHECKS}
    assert kernels_of(Cuda) - NOT_COMPARED == compared


@pytest.mark.parametrize(
    ("kernel", "named"),
    [
        ("patches", "conv"),
        ("gemm", "gram"),
        ("gather_patches", "conv_input_gradient, strided"),
        ("average_pool", "average_pool"),
        ("average_pool_input_gradient", "average_pool_input_gradient"),
        ("max_pool", "max_pool"),
        ("relu", "relu"),
        ("weighted_difference", "weighted_difference"),
        ("normalize_pixels", "normalize_pixels"),
        ("sum_parts", "quotient_distance"),
        ("copy_columns", "concat"),
        ("pad", "pad"),
        ("pad_input_gradient", "pad_input_gradient"),
        ("adam_step", "adam_step"),
        ("momentum_step", "momentum_step"),
        ("line_step", "lbfgs_products"),
        ("lbfgs_store", "lbfgs_products"),
        ("lbfgs_products", "lbfgs_products"),
        ("fill_nodes", "lbfgs_products"),
        ("means_at_nodes", "lbfgs_direction"),
        ("lbfgs_direction", "lbfgs_direction"),
        ("gemm_half", "conv, float16"),
        ("gemm_pieces_gram", "gram, float16"),
        ("gemm_pieces_mixed", "gram_product, float16"),
    ],
)
def test_a_kernel_with_one_wrong_value_is_named(emulator, kernel, named):
    emulator.faults[kernel] = spoil
    assert named in selftest.wrong_kernels(emulator.device)


@pytest.mark.parametrize("kernel", ["gemm_split_gram", "gemm_split_plain", "implicit_gemm_split_64"])
def test_tensor_cores_with_one_wrong_value_are_not_used(emulator, kernel):
    assert opening.tensor_cores_are_right(emulator.device, "float32")
    emulator.faults[kernel] = spoil
    with pytest.warns(RuntimeWarning, match="convolution 'tensor' is not used: its results in float32"):
        assert not opening.tensor_cores_are_right(emulator.device, "float32")


def test_a_wrong_device_is_not_used_and_one_warning_says_so(compiled_kernels, monkeypatch, tmp_path):
    emulator = Emulator(compiled_kernels)
    backend = types.SimpleNamespace(CupyBackend=lambda: emulator)
    monkeypatch.setitem(sys.modules, "kernels.cuda.cupy_backend", backend)
    monkeypatch.setattr(opening, "_opened", functools.cache(opening._opened.__wrapped__))
    path = models.save(models.vgg(models.parameters((2, 2))), tmp_path / "tiny.onnx")
    emulator.faults = {"average_pool": spoil}
    with pytest.warns(RuntimeWarning, match="the GPU is not used: kernels give other results on emulated GPU") as found:
        assert choose_device("auto") == "cpu"
    assert len(found) == 1
    with warnings.catch_warnings(action="error"):
        assert load_network(path, device="auto").device.kind == "cpu"
        message = r"device 'cuda' is not available: kernels give .* relative: average_pool by 0\.0"
        with pytest.raises(ValueError, match=message):
            load_network(path, device="cuda")


def test_launches_can_be_recorded_and_made_again(emulator):
    values, output = to_device(np.arange(5.0)), cuda.empty((5,), np.float64)
    result, again = cuda.record(lambda: cuda.scaled(values, 2.0, out=output))
    assert result is output
    assert np.isnan(to_host(output)).all()
    for factor in (1.0, 3.0):
        cuda.scaled(to_device(factor * np.arange(5.0)), 1.0, out=values)
        again()
        np.testing.assert_array_equal(to_host(output), 2 * factor * np.arange(5.0))
    with pytest.raises(AssertionError, match="nothing can be fetched while launches are recorded"):
        cuda.record(lambda: to_host(output))
