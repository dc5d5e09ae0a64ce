"""The kernel for Hopper's tensor cores, run with its copies, barriers and products as shim_hopper.cpp has them."""

import re
import warnings

import numpy as np
import pytest

from engine import Objective, load_network
from engine.ops import Conv, HopperConv
from kernels import cuda
from kernels.cuda import hopper, runtime, source, trust
from kernels.cuda.runtime import to_device, to_host
from kernels.cuda.source import FOLDER
from tests.engine import models
from tests.kernels.cuda.emulator import Emulator

WIDE = models.parameters((2, 2), (64, 128), seed=3)


def test_the_numbers_that_stand_in_the_source_too_are_the_same():
    text = (FOLDER / "hopper.cu").read_text()
    for name in ("TILE_WIDTH", "TILE_HEIGHT", "STAGES"):
        assert f"#define {name} {getattr(hopper, name)}\n" in text
    assert text.count(f"__launch_bounds__({hopper.THREADS}, 1)") == 2


def test_tiles_cover_the_image_once():
    for height in range(1, 40):
        for width in range(1, 40):
            covered = np.zeros((height, width), int)
            down, across = hopper.tiles(height, width)
            for tile in range(down * across):
                top, left = tile // across * hopper.TILE_HEIGHT, tile % across * hopper.TILE_WIDTH
                assert top < height
                assert left < width
                covered[top : top + hopper.TILE_HEIGHT, left : left + hopper.TILE_WIDTH] += 1
            assert (covered == 1).all()


@pytest.mark.parametrize(
    ("channels", "filters", "block"), [(64, 64, 64), (128, 64, 64), (64, 192, 64), (64, 128, 128), (512, 512, 128)]
)
def test_blocks_of_filters(channels, filters, block):
    assert hopper.suits(channels, filters)
    assert hopper.filters_of_block(filters) == block
    assert hopper.shared_bytes(block) <= 227 << 10
    for others in ((channels + 32, filters), (channels, filters + 1), (3, 64)):
        assert not hopper.suits(*others)


def whole_numbers(size, channels, filters):
    """Return a problem of small whole numbers and its result: every sum is exact in float32 and in 16 bits."""
    rng = np.random.default_rng(0)
    input = rng.integers(-2, 3, (*size, channels)).astype(np.float16)
    weight = rng.integers(-2, 3, (3, 3, channels, filters)) * (rng.random((3, 3, channels, filters)) < 0.2)
    bias = rng.integers(-3, 4, filters).astype(np.float32)
    padded = np.pad(input, ((1, 1), (1, 1), (0, 0))).astype(np.float64)
    expected = bias + sum(
        padded[ky : ky + size[0], kx : kx + size[1]] @ weight[ky, kx] for ky in range(3) for kx in range(3)
    )
    assert np.abs(expected).max() < 2048
    return input, weight.astype(np.float16), bias, expected


def on_device(size, channels, filters, relu=False):
    """Return what the kernel makes of ``whole_numbers``."""
    input, weight, bias, _ = whole_numbers(size, channels, filters)
    packed = cuda.pack_weight(to_device(weight))
    return to_host(cuda.hopper_conv(to_device(input), packed, to_device(bias), relu=relu))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(("channels", "filters"), [(64, 128), (128, 64)])
@pytest.mark.parametrize("size", [(8, 16), (1, 1), (9, 17), (19, 21)])
def test_whole_numbers_come_out_exactly(emulator, size, channels, filters, descending):
    emulator.descending = descending
    expected = whole_numbers(size, channels, filters)[-1]
    np.testing.assert_array_equal(on_device(size, channels, filters), expected)
    np.testing.assert_array_equal(on_device(size, channels, filters, relu=True), np.maximum(expected, 0))


WRONG = "its result is wrong"
FULL, EMPTY = "await(shared_address(&full[stage]), step / STAGES & 1);", "(step / STAGES + 1) & 1"
GIVE_BACK = """            products_wait<1>();
            if (step > 0 && threadIdx.x % 128 == 0) arrive(shared_address(&empty[(step - 1) % STAGES]));
"""
TOO_EARLY = """            if (threadIdx.x % 128 == 0) arrive(shared_address(&empty[stage]));
            products_wait<1>();
"""
STARVED = "deadlock, 256 wait for barrier 0, parity 0, 1 wait for barrier 1, parity 0"
OVERRUN = "too many arrivals at barrier 0"
FAULTS = {
    "data is not waited for": (FULL, "", OVERRUN),
    "data is waited for in the wrong phase": (FULL, FULL.replace("& 1", "+ 1 & 1"), OVERRUN),
    "a stage is filled before it is free": (f"await(shared_address(&empty[stage]), {EMPTY});", "", OVERRUN),
    "a stage is waited for in the first round": (EMPTY, "step / STAGES & 1", STARVED),
    "a stage is given back before its products are done": (GIVE_BACK, TOO_EARLY, WRONG),
    "a stage is given back by every thread": (" && threadIdx.x % 128 == 0", "", "deadlock"),
    "too few bytes are expected": ("STAGE_BYTES);", "8192);", "two copies"),
    "too many bytes are expected": ("STAGE_BYTES);", "STAGE_BYTES + 16);", STARVED),
    "products are not waited for at the end": ("products_wait<0>();", "", "ended before its products were done"),
    "registers are not fenced": ("products_fence();", "", "wgmma.fence is missing"),
    "the next 16 channels are sought in the next row": ("a + 2 * k, b", "a + 8 * k, b", "within the swizzle's pattern"),
    "the next 16 channels are sought too near": ("a + 2 * k, b", "a + k, b", WRONG),
    "groups of eight rows are too near": ("64ull << 32", "32ull << 32", WRONG),
    "the descriptor has another swizzle": ("1ull << 62", "2ull << 62", "not of the 128-byte swizzle"),
    "the weight is not aligned": ("place + INPUT_BYTES", "place + INPUT_BYTES - 512", "not aligned to 1024"),
    "barriers are not ready for the copies": ("barriers_are_ready();", "", "not for the copy engine"),
    "more registers are taken than given": ("give_registers<40>", "give_registers<48>", "128 wait for setmaxnreg 232"),
    "one warp takes no registers": ("take", "if (threadIdx.x % 128 < 96) take", "wait for setmaxnreg 232"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_source_is_found(emulator, tmp_path, monkeypatch, fault):
    """What the emulator is there to find, in one of the two orders of threads and copies at least."""
    before, after, message = FAULTS[fault]
    for path in FOLDER.glob("*.cu"):
        text = path.read_text()
        if path.name == "hopper.cu":
            instructions, end, kernel = text.partition("#endif\n")
            assert before in kernel
            text = instructions + end + kernel.replace(before, after)
        (tmp_path / path.name).write_text(text)
    monkeypatch.setattr(source, "FOLDER", tmp_path)
    monkeypatch.setattr("tests.kernels.cuda.emulator.FOLDER", tmp_path)
    found = []
    for descending in (False, True):
        faulty = Emulator(tmp_path, descending)
        faulty.wrong = {}
        monkeypatch.setattr(runtime, "backend", lambda device=faulty: device)
        try:
            right = np.array_equal(on_device((9, 17), 64, 64), whole_numbers((9, 17), 64, 64)[-1])
            found.append("" if right else WRONG)
        except AssertionError as error:
            found.append(str(error))
    assert any(re.search(message, one) for one in found), found


def test_arrays_that_do_not_fit_are_refused(emulator):
    def of(*shape, dtype=np.float16):
        return runtime.empty(shape, dtype)

    bias = of(64, dtype=np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        cuda.hopper_conv(of(4, 4, 64), of(64, 9 * 128), bias)
    with pytest.raises(ValueError, match="do not fit"):
        cuda.hopper_conv(of(4, 4, 32), of(64, 9 * 32), bias)
    with pytest.raises(TypeError, match="input and weight must be float16, got float32 and float16"):
        cuda.hopper_conv(of(4, 4, 64, dtype=np.float32), of(64, 9 * 64), bias)
    arguments = (of(2, 2), of(2, 2), bias, of(4, 4, 64), 4, 4, 64, 64, 1, 0)
    with pytest.raises(TypeError, match="kernel 'hopper_conv_64': input must be a tensor map, got DeviceArray"):
        runtime.launch("hopper.cu", "hopper_conv_64", (1, 1, 1), (384, 1, 1), arguments)


@pytest.fixture
def path(tmp_path):
    return models.save(models.vgg(WIDE), tmp_path / "wide.onnx")


# Two tiles in either direction.
SMALL = tuple(models.random_image(12, 17, seed) for seed in range(3))


def objective(network):
    return Objective(network, *SMALL[:2], ["conv2_1"], ["conv1_1", "conv1_2", "conv2_2"], 1e-6, 1e-9)


def kinds(network):
    return [type(node.operator) for node in network.nodes]


def test_a_network_asked_for_it_uses_it_and_gives_the_same(emulator, path):
    network = load_network(path, device="cuda", dtype="float16", convolution="hopper")
    # The first layer has three channels.
    assert kinds(network).count(HopperConv) == 3
    assert kinds(network)[0] is Conv
    emulator.launches.clear()
    value, gradient = objective(network)(SMALL[2])
    assert sum(name.startswith("hopper_conv") for name in emulator.launches) >= 6
    expected, of_wide = objective(load_network(path, dtype="float64"))(SMALL[2])
    assert value == pytest.approx(expected, rel=1e-2)
    assert np.linalg.norm(gradient - of_wide) < 3e-2 * np.linalg.norm(of_wide)
    assert HopperConv not in kinds(load_network(path, device="cuda", dtype="float16"))


def test_where_its_results_are_wrong_it_is_not_used_and_a_warning_says_so(emulator, path):
    assert trust.hopper_is_right()

    def spoil(results):
        results[0].values[..., 5] += 1

    emulator.faults["hopper_conv_64"] = spoil
    with pytest.warns(RuntimeWarning, match="convolution 'hopper' is not used: its results on emulated GPU are wrong"):
        network = load_network(path, device="cuda", dtype="float16", convolution="hopper")
    assert HopperConv not in kinds(network)
    with warnings.catch_warnings(action="error"):
        objective(network)(SMALL[2])


def test_it_is_for_16_bits_on_hopper(emulator, path):
    with pytest.raises(ValueError, match="convolution 'hopper' is for dtype float16, not for float32"):
        load_network(path, device="cuda", convolution="hopper")
    with pytest.raises(ValueError, match=r"convolution 'hopper' needs a GPU of compute capability 9\.0"):
        load_network(path, convolution="hopper")
    emulator.capability = (8, 9)
    with pytest.raises(ValueError, match=r"convolution 'hopper' needs compute capability 9\.0, the GPU has 8\.9"):
        load_network(path, device="cuda", dtype="float16", convolution="hopper")
