"""Networks on tensor cores, emulated: tf32, 16 bits, float32 in three products; where they are used and where not."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from engine import Objective, load_network
from engine.device import choose_device
from kernels.cuda import opening
from kernels.cuda.convolution import ImplicitGemmConvolution
from kernels.geometry import Window, output_size
from tests.engine import models
from tests.engine.test_objective import CONTENT, IMAGE, SETTINGS, STYLE, make
from tests.kernels.cuda.test_selftest import spoil
from tests.kernels.devices import to_device, to_host

# By piece of 16 bytes: 20 floats suit, 20 halves do not.
WIDE = models.parameters((2, 2, 2), (16, 24, 20), seed=3)

# Dtype, convolution, and how far value and gradient may be from float64.
WAYS = {
    "tf32": ("tf32", "auto", 5e-3, 2e-2),
    "split": ("float32", "tensor", 2e-6, 1e-5),
    "half": ("float16", "tensor", 1e-2, 2e-2),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.save(models.vgg(WIDE), tmp_path_factory.mktemp("models") / "wide.onnx")


def load(path, way):
    dtype, convolution, *_ = WAYS[way]
    return load_network(path, device="cuda", dtype=dtype, convolution=convolution)


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def kinds(network):
    """Return how each convolution is computed."""
    found = models.algorithms(network.plan(40, 40, network.layers).nodes)
    return [name for name in found if name.endswith("Convolution")]


PATCHES, TENSOR = ["PatchesConvolution"] * 6, ["PatchesConvolution", *5 * ["ImplicitGemmConvolution"]]
# Its sixth layer has 20 channels.
OF_HALVES = [*TENSOR[:5], PATCHES[5]]


@pytest.mark.parametrize(("setting", "pooling"), [("content and style", "average"), ("both kinds on one layer", "max")])
@pytest.mark.parametrize("way", WAYS)
def test_value_and_gradient_are_as_precise_as_promised(emulator, path, way, setting, pooling):
    dtype, convolution, of_value, of_gradient = WAYS[way]
    ours = load_network(path, pooling, "cuda", dtype, convolution=convolution)
    emulator.launches.clear()
    value, gradient = make(ours, **SETTINGS[setting])(IMAGE)
    assert any(name.startswith(f"implicit_gemm_{way}") for name in emulator.launches)
    expected, of_wide = make(load_network(path, pooling, dtype="float64"), **SETTINGS[setting])(IMAGE)
    assert value == pytest.approx(expected, rel=of_value)
    assert relative(gradient, of_wide) < of_gradient


@pytest.mark.parametrize("way", WAYS)
def test_both_directions_of_every_layer_that_suits_go_there(emulator, path, way):
    network = load(path, way)
    objective = Objective(network, CONTENT, STYLE, ["conv3_2"], ["conv1_1", "conv3_1"])
    emulator.launches.clear()
    objective(IMAGE)
    used = [name for name in emulator.launches if name.startswith("implicit_gemm")]
    # Forward five layers, back again as many; in 16 bits the sixth does not suit, nor the fifth's gradient.
    assert len(used) == (7 if way == "half" else 10)


def test_tf32_is_stored_in_float32_and_called_by_its_name(emulator, path):
    network = load(path, "tf32")
    assert (network.dtype, network.precision) == (np.float32, "tf32")
    assert network.forward(IMAGE, ["conv2_1"]).features["conv2_1"].dtype == np.float32
    exact = load_network(path, dtype="float64")
    assert exact.precision == "float64"
    found = network.features(IMAGE, network.layers)
    for layer, expected in exact.features(IMAGE, exact.layers).items():
        assert relative(found[layer], expected) < 2e-3
    assert load(path, "split").precision == "float32"
    assert load(path, "half").precision == "float16"


@pytest.mark.parametrize(
    ("dtype", "convolution", "capability", "expected"),
    [
        ("float32", "auto", (9, 0), PATCHES),
        ("float32", "tensor", (8, 0), TENSOR),
        ("float32", "patches", (9, 0), PATCHES),
        ("float32", "direct", (9, 0), PATCHES),
        ("float16", "auto", (8, 0), OF_HALVES),
        ("float16", "auto", (7, 5), PATCHES),
        ("float16", "tensor", (12, 0), OF_HALVES),
        ("float16", "patches", (8, 0), PATCHES),
        ("float16", "hopper", (9, 0), PATCHES),
        ("tf32", "auto", (8, 6), TENSOR),
        ("tf32", "tensor", (9, 0), TENSOR),
    ],
)
def test_what_computes_is_chosen_by_dtype_convolution_and_capability(
    emulator, path, dtype, convolution, capability, expected
):
    emulator.capability = capability
    network = load_network(path, device="cuda", dtype=dtype, convolution=convolution)
    assert kinds(network) == expected
    algorithms = [getattr(node.operator, "algorithm", None) for node in network.plan(40, 40, network.layers).nodes]
    assert {one.split for one in algorithms if isinstance(one, ImplicitGemmConvolution)} <= {dtype == "float32"}


def test_what_cannot_be_is_an_error_that_says_why(emulator, path):
    with pytest.raises(ValueError, match="dtype 'tf32' is for convolution 'auto' or 'tensor', not for 'patches'"):
        load_network(path, device="cuda", dtype="tf32", convolution="patches")
    with pytest.raises(ValueError, match="convolution 'hopper' is for dtype float16, not for tf32"):
        load_network(path, device="cuda", dtype="tf32", convolution="hopper")
    with pytest.raises(ValueError, match="dtype 'tf32' needs a GPU, on 'cpu' choose one of float32, float64, compl"):
        choose_device("cpu", "tf32")
    with pytest.raises(ValueError, match=r"convolution 'tensor' needs a GPU of compute capability 8\.0 or later$"):
        load_network(path, convolution="tensor")
    with pytest.raises(ValueError, match=r"convolution 'patches' needs a GPU$"):
        load_network(path, convolution="patches")
    emulator.capability = (7, 5)
    for device in ("cuda", "auto"):
        with pytest.raises(ValueError, match=r"dtype 'tf32' needs compute capability 8\.0 or later, the GPU has 7\.5"):
            load_network(path, device=device, dtype="tf32")
    with pytest.raises(ValueError, match=r"convolution 'tensor' needs compute capability 8\.0 or later, the GPU has 7"):
        load_network(path, device="cuda", convolution="tensor")


def test_without_a_gpu_tf32_is_an_error(monkeypatch):
    def missing():
        raise ValueError("CuPy finds no GPU")

    monkeypatch.setattr(opening, "open_cuda", missing)
    with pytest.raises(ValueError, match="dtype 'tf32' needs a GPU, which is not available: CuPy finds no GPU"):
        choose_device("auto", "tf32")
    with pytest.raises(ValueError, match="device 'cuda' is not available: CuPy finds no GPU"):
        choose_device("cuda", "tf32")


@pytest.mark.parametrize(("way", "filters"), [("half", 64), ("half", 128), ("tf32", 64), ("tf32", 128), ("split", 64)])
def test_where_results_are_wrong_patches_are_used_and_a_warning_says_so(emulator, path, way, filters):
    name = f"implicit_gemm_{way}_{filters}"
    dtype = WAYS[way][0]
    emulator.faults[name] = spoil
    message = f"convolution 'tensor' is not used: its results in {dtype} on emulated GPU are wrong"
    with pytest.warns(RuntimeWarning, match=message) as found:
        network = load(path, way)
    assert len(found) == 1
    assert ("it computes in float32 instead" in str(found[0].message)) == (way == "tf32")
    assert kinds(network) == PATCHES
    assert network.precision == {"tf32": "float32", "split": "float32", "half": "float16"}[way]
    with warnings.catch_warnings(action="error"):
        make(network, **SETTINGS["content and style"])(IMAGE)


def test_the_comparison_sees_digits_that_are_missing(emulator, monkeypatch):
    assert all(
        opening.tensor_cores_are_right(emulator.device, precision) for precision in ("float32", "tf32", "float16")
    )
    run = emulator.run

    def in_one_product(kernel, *rest):
        run(replace(kernel, name=kernel.name.replace("split", "tf32")), *rest)

    monkeypatch.setattr(emulator, "run", in_one_product)
    with pytest.warns(RuntimeWarning, match="its results in float32 on emulated GPU are wrong$"):
        assert not opening.tensor_cores_are_right(emulator.device, "float32")


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize(
    ("window", "filters"),
    [
        (Window((3, 3), strides=(2, 2), pads=(1, 1, 1, 1)), 24),  # a gradient that is no convolution with stride 1
        (Window((3, 2), dilations=(2, 1), pads=(0, 1, 1, 0)), 24),
        (Window((1, 1)), 24),
        (Window((3, 3), pads=(1, 1, 1, 1)), 7),  # the gradient's channels do not suit
        (Window((2, 2), auto_pad="SAME_UPPER"), 8),
        (Window((3, 3), pads=(3, 0, 0, 0)), 8),  # more padding than the gradient's window can mirror
    ],
)
@pytest.mark.parametrize("relu", [False, True])
def test_the_operator_is_the_convolution(emulator, window, filters, relu, split):
    rng = np.random.default_rng(0)
    bias = None if split else rng.standard_normal(filters).astype(np.float32)
    weight = rng.standard_normal((*window.kernel, 8, filters)).astype(np.float32)
    input = to_device(rng.standard_normal((9, 10, 8)).astype(np.float32))
    gpu = emulator.device
    plain = gpu.convolution(weight, bias, window, relu=relu)
    algorithm = gpu.convolution(weight, bias, window, relu=relu, algorithm="split" if split else "tensor")
    assert isinstance(algorithm, ImplicitGemmConvolution)
    shape = (*output_size(window, 9, 10), filters)
    flowing = rng.standard_normal(shape).astype(np.float32)
    for kept in (False, True):
        results = []
        for one in (algorithm, plain):
            output, saved = one.forward(input, kept)
            assert output.shape == shape
            gradient = one.input_gradient(to_device(flowing), output if kept else None, saved)
            results.append((to_host(output), to_host(gradient)))
        for found, expected in zip(*results, strict=True):
            # A value that rounding moves across zero takes its gradient with it.
            assert relative(found, expected) < (1e-6 if split else 1e-3 if not relu else 3e-2)


def test_only_what_suits_is_computed_so(emulator):
    weight, window = np.zeros((3, 3, 4, 8), np.float32), Window((3, 3), pads=(1, 1, 1, 1))
    for group, channels, suits in ((1, 4, True), (2, 4, False), (1, 3, False)):
        found = emulator.device.convolution(weight[:, :, :channels], None, window, group, algorithm="tensor")
        assert isinstance(found, ImplicitGemmConvolution) == suits


def test_recorded_evaluations_give_the_same_bits(emulator, path):
    network = load(path, "tf32")
    plain, recorded = (make(network, **SETTINGS["style alone"], replay=replay) for replay in (False, True))
    for image in (IMAGE, IMAGE[::-1].copy(), IMAGE):
        (value, gradient), (expected, of_plain) = recorded(image), plain(image)
        assert value == expected
        np.testing.assert_array_equal(gradient, of_plain)


def test_work_is_counted_as_before_and_memory_without_the_patches(emulator, path):
    network = load(path, "split")
    assert "ImplicitGemmConvolution" in kinds(network)
    plain = load_network(path, device="cuda")
    size = (40, 30, network.layers)
    assert network.multiply_adds(*size) == plain.multiply_adds(*size)
    patches = plain.plan(*size).nodes[1].operator.scratch_bytes((40, 30, 16))
    assert plain.memory(*size) - patches <= network.memory(*size) < plain.memory(*size)
    assert plain.weight_bytes(network.layers) < network.weight_bytes(network.layers)
