"""The kernel for Hopper's tensor cores, run with its copies, barriers and products as shim_hopper.cpp has them."""

import itertools
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

from engine import Objective, load_network
from kernels import Cuda
from kernels.cuda import hopper, launcher, opening, source
from kernels.cuda.source import FOLDER
from tests.engine import models
from tests.kernels.cuda.emulator import Emulator
from tests.kernels.devices import cuda, to_device, to_host

WIDE = models.parameters((2, 2), (64, 128), seed=3)


KINDS = [f"hopper_conv_{height}_{block}" for height, block in hopper.STAGES]
H100 = 132
"""Multiprocessors of an H100 or H200 (SXM)."""
MOST_SHARED_BYTES = 227 << 10
"""Of a block of compute capability 9.0; the barriers lie in the first 1024."""


def test_the_numbers_that_stand_in_the_source_too_are_the_same():
    text = (FOLDER / "hopper.cu").read_text()
    assert f"#define TILE_WIDTH {hopper.TILE_WIDTH}\n" in text
    assert text.count(f"__launch_bounds__({hopper.THREADS}, 1)") == len(hopper.STAGES)
    for (height, block), stages in hopper.STAGES.items():
        assert f"convolve<{height}, {block}, {stages}>" in text


def test_every_tiling_fits_and_leaves_no_part_empty():
    for channels, filters in itertools.product((64, 128, 192, 256, 512), repeat=2):
        found = list(hopper.tilings(channels, filters, H100))
        assert {tiling.block for tiling in found} == ({64, 128} if filters % 128 == 0 else {64})
        assert {tiling.splits for tiling in found} >= {1, 3}
        for tiling in found:
            assert tiling.shared_bytes + 1024 <= MOST_SHARED_BYTES
            assert tiling.stage_bytes % 1024 == 0
            steps = hopper.steps_of(channels)
            part = -(-steps // tiling.splits)
            assert all(part * split < steps for split in range(tiling.splits))


def test_small_images_are_cut_finer_and_large_ones_are_not_split():
    # conv5_1 and conv4_2 of VGG at 512 pixels, conv2_2 at 1024.
    for size, channels, filters in ((32, 512, 512), (64, 512, 512), (512, 128, 128)):
        tiling = hopper.best_tiling(size, size, channels, filters, H100)
        items = tiling.items(size, size, filters)
        assert items / (-(-items // H100) * H100) > 0.9
        assert (tiling.splits > 1) == (size < 128)
        others = [other.clocks(size, size, channels, filters) for other in hopper.tilings(channels, filters, H100)]
        assert tiling.clocks(size, size, channels, filters) == min(others)
    assert hopper.best_tiling(512, 512, 128, 128, H100) == hopper.Tiling(32, 128, 1, H100)
    # With fewer multiprocessors 128 items would be more than one wave.
    assert hopper.best_tiling(64, 64, 512, 512, 114) != hopper.best_tiling(64, 64, 512, 512, H100)


@pytest.mark.parametrize(("channels", "filters"), [(64, 64), (128, 64), (64, 192), (64, 128), (512, 512)])
def test_what_suits(channels, filters):
    assert hopper.hopper_suits(channels, filters)
    for others in ((channels + 32, filters), (channels, filters + 1), (3, 64)):
        assert not hopper.hopper_suits(*others)


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


def on_device(size, channels, filters, **options):
    """Return what the kernel makes of ``whole_numbers``."""
    input, weight, bias, _ = whole_numbers(size, channels, filters)
    packed = hopper.pack_hopper_weight(cuda, to_device(weight))
    return to_host(hopper.hopper_conv(cuda, to_device(input), packed, to_device(bias), **options))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("kind", hopper.STAGES)
def test_whole_numbers_come_out_exactly(emulator, kind, splits, descending):
    emulator.descending = descending
    # Full tiles, one pixel, and tiles that are not full; a block to each item, and blocks that take several.
    for size, blocks in (((32, 8), 132), ((1, 1), 132), ((35, 9), 132), ((35, 9), 2)):
        expected, tiling = whole_numbers(size, 64, 128)[-1], hopper.Tiling(*kind, splits, blocks)
        np.testing.assert_array_equal(on_device(size, 64, 128, tiling=tiling), expected)
        rectified = on_device(size, 64, 128, tiling=tiling, relu=True)
        np.testing.assert_array_equal(rectified, np.maximum(expected, 0))


@pytest.mark.parametrize(("channels", "filters"), list(itertools.product((64, 128, 192, 256), repeat=2)))
def test_whole_numbers_come_out_exactly_for_all_channels(emulator, channels, filters):
    expected = whole_numbers((5, 9), channels, filters)[-1]
    np.testing.assert_array_equal(on_device((5, 9), channels, filters), expected)
    # More steps than stages, and the ring goes on from one item to the next.
    for kind in hopper.STAGES:
        if filters % kind[1] == 0:
            tiling = hopper.Tiling(*kind, 1, blocks=1)
            np.testing.assert_array_equal(on_device((5, 9), channels, filters, tiling=tiling), expected)


@pytest.mark.parametrize("splits", [1, 2])
@pytest.mark.parametrize("kind", hopper.STAGES)
def test_what_the_sign_has_no_bit_for_is_zero(emulator, kind, splits):
    size, tiling = (19, 21), hopper.Tiling(*kind, splits, H100)
    expected = whole_numbers(size, 64, 128)[-1]
    below = np.random.default_rng(1).integers(-1, 2, expected.shape).astype(np.float16)
    mask = cuda.relu_mask(to_device(below))
    np.testing.assert_array_equal(on_device(size, 64, 128, tiling=tiling, mask=mask), expected * (below > 0))


def test_it_is_its_own_adjoint_with_the_flipped_weight(emulator):
    """The sum of y * conv(x) is that of conv'(y) * x, exactly for whole numbers."""
    x, weight, _, _ = whole_numbers((9, 10), 64, 128)
    y = np.random.default_rng(2).integers(-2, 3, (9, 10, 128)).astype(np.float16)
    there = hopper.hopper_conv(cuda, to_device(x), hopper.pack_hopper_weight(cuda, to_device(weight)), None)
    back = hopper.hopper_conv(
        cuda, to_device(y), hopper.pack_hopper_weight(cuda, cuda.flip_weight(to_device(weight))), None
    )
    one, other = (np.vdot(a.astype(np.float64), b) for a, b in ((to_host(there), y), (to_host(back), x)))
    assert one == other != 0


def test_the_map_of_a_weight_is_made_once(emulator, monkeypatch):
    packed, made = hopper.pack_hopper_weight(cuda, to_device(whole_numbers((1, 1), 64, 128)[1])), []
    monkeypatch.setattr(emulator, "tensor_map", lambda *given: made.append(given) or object())
    assert packed.tensor_map(cuda, 64) is packed.tensor_map(cuda, 64) is not packed.tensor_map(cuda, 128)
    assert len(made) == 2


WRONG = "its result is wrong"
FULL, EMPTY = "await(shared_address(&full[place.stage]), place.parity);", "place.parity ^ 1"
GIVE_BACK = """                products_wait<1>();
                if (step > item.first && thread % 32 == 0) arrive(last_given);
"""
TOO_EARLY = """                if (thread % 32 == 0) arrive(shared_address(&empty[place.stage]));
                products_wait<1>();
"""
STARVED = "deadlock; 256 wait for barrier 0, 0; 1 wait for barrier 1, 0"
FAULTS = {
    "data is not waited for": (FULL, "", "too many arrivals"),
    "data is waited for in the wrong phase": (FULL, FULL.replace("parity", "parity ^ 1"), "too many arrivals"),
    "a stage is filled before it is free": (f"await(shared_address(&empty[place.stage]), {EMPTY});", "", "too many"),
    "a stage is waited for in the first round": (EMPTY, "place.parity", STARVED),
    "a stage is given back before its products are done": (GIVE_BACK, TOO_EARLY, "too many arrivals"),
    "the last stage of an item is not given back": (
        "            if (thread % 32 == 0) arrive(last_given);",
        "",
        "deadlock",
    ),
    "too few bytes are expected": ("STAGE_BYTES);", "INPUT_BYTES);", "two copies"),
    "too many bytes are expected": ("STAGE_BYTES);", "STAGE_BYTES + 16);", STARVED),
    "products are not waited for at the end": ("products_wait<0>();", "", "ended before its products"),
    "registers are not fenced": ("products_fence();", "", "wgmma.fence is missing"),
    "the next 16 channels are sought in the next row": ("16) + 2 * k,", "16) + 8 * k,", "within the swizzle's pattern"),
    "the next 16 channels are sought too near": ("16) + 2 * k,", "16) + k,", WRONG),
    "a line is sought in the one before": ("(8 * m + dy) *", "(8 * m) *", WRONG),
    "groups of eight rows are too near": ("64ull << 32", "32ull << 32", WRONG),
    "barriers are not ready for the copies": ("barriers_are_ready();", "", "not for the copy engine"),
    "more registers are taken than given": ("give_registers<40>", "give_registers<48>", "128 wait for setmaxnreg 232"),
    "one warp takes no registers": ("take", "if (thread < 96) take", "wait for setmaxnreg 232"),
    "writes are not ready for the store": ("writes_are_ready();", "", "not fenced"),
    "a store does not wait for other threads' writes": (
        "writes_are_ready();\n            warpgroup_barrier(1 + own);",
        "writes_are_ready();",
        "written again before it was read",
    ),
    "a store's memory is written too early": (
        "if (thread == 0) stores_wait_for_reads();\n            warpgroup",
        "warpgroup",
        "written again before it was read",
    ),
    "other threads write before a store has read": (
        "stores_wait_for_reads();\n            warpgroup_barrier(1 + own);",
        "stores_wait_for_reads();",
        "written again before it was read",
    ),
    "both warpgroups meet at one barrier": ("warpgroup_barrier(1 + own)", "warpgroup_barrier(1)", "a store reads"),
    "barriers are used before they are initialized": ("    __syncthreads();\n", "", "may not be initialized"),
    "one warpgroup is enough to free a stage": ("&empty[s]), 8)", "&empty[s]), 4)", "too many arrivals"),
    "a stage is full without its bytes": ("arrive_expecting(barrier, STAGE_BYTES)", "arrive(barrier)", "two copies"),
    "a block ends before its stores": (
        "        if (thread == 0) stores_wait_for_reads();\n    }",
        "    }",
        "a block ended",
    ),
}


class Faulty(Emulator):
    """Runs the kernel with one of the faults."""

    def __init__(self, folder, descending, fault):
        super().__init__(folder, descending)
        self.wrong, self.number = {}, list(FAULTS).index(fault)

    def run(self, kernel, *launch):
        if kernel.name in KINDS:
            kernel = replace(kernel, name=f"{kernel.name}_fault_{self.number}")
        super().run(kernel, *launch)


@pytest.fixture(scope="module")
def faulty_sources(tmp_path_factory):
    """The sources with all faults in one, each in a namespace of its own, which is quicker to compile."""
    folder = tmp_path_factory.mktemp("faulty")
    for path in FOLDER.glob("*.cu"):
        text = path.read_text()
        if path.name == "hopper.cu":
            instructions, end, kernels = text.partition("#endif\n")
            first, *others = re.split(r'(?=extern "C")', kernels)
            (one,) = (part for part in others if f" {KINDS[0]}(" in part)
            text = instructions + end + first + one + others[-1]
            for number, (before, after, _) in enumerate(FAULTS.values()):
                assert before in first + one
                faulty = (first + one.replace(KINDS[0], f"{KINDS[0]}_fault_{number}")).replace(before, after)
                text += f"namespace fault_{number} {{\n{faulty}\n}}\nusing namespace fault_{number};\n"
        (folder / path.name).write_text(text)
    return folder


@pytest.fixture
def faulty(faulty_sources, compiled_kernels, monkeypatch):
    monkeypatch.setattr(source, "FOLDER", faulty_sources)
    monkeypatch.setattr("tests.kernels.cuda.emulator.FOLDER", faulty_sources)
    source.declared.cache_clear()
    launcher._kernel.cache_clear()
    yield faulty_sources
    source.declared.cache_clear()
    launcher._kernel.cache_clear()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_source_is_found(faulty, monkeypatch, fault):
    """What the emulator is there to find, in one of the two orders of threads and copies at least."""
    found, size, tiling = [], (17, 9), hopper.Tiling(*next(iter(hopper.STAGES)), 1, blocks=1)
    for descending in (False, True):
        device = Faulty(faulty, descending, fault)
        gpu = Cuda(device)
        monkeypatch.setattr(opening, "open_cuda", lambda gpu=gpu: gpu)
        try:
            right = np.array_equal(on_device(size, 64, 128, tiling=tiling), whole_numbers(size, 64, 128)[-1])
            found.append("" if right else WRONG)
        except AssertionError as error:
            found.append(str(error))
    assert any(re.search(FAULTS[fault][-1], one) for one in found), found


def test_arrays_that_do_not_fit_are_refused(emulator):
    def of(*shape, dtype=np.float16):
        return cuda.empty(shape, dtype)

    packed, bias = hopper.pack_hopper_weight(cuda, of(3, 3, 128, 64)), of(64, dtype=np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        hopper.hopper_conv(cuda, of(4, 4, 64), packed, bias)
    with pytest.raises(ValueError, match="do not fit"):
        hopper.hopper_conv(cuda, of(4, 4, 128), packed, of(128, dtype=np.float32))
    with pytest.raises(ValueError, match="and no bias do not fit"):
        hopper.hopper_conv(cuda, of(4, 4, 64), packed, None)
    with pytest.raises(ValueError, match="do not fit"):
        hopper.hopper_conv(cuda, of(4, 4, 32), hopper.pack_hopper_weight(cuda, of(3, 3, 32, 64)), bias)
    with pytest.raises(ValueError, match=r"a weight of \(1, 3, 64, 64\) is not that of a 3x3 convolution"):
        hopper.pack_hopper_weight(cuda, of(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"mask must have 128 values, got \(64,\)"):
        hopper.hopper_conv(cuda, of(4, 4, 128), packed, bias, mask=of(64, dtype=np.uint8))
    with pytest.raises(TypeError, match="input must be float16, got float32"):
        hopper.hopper_conv(cuda, of(4, 4, 128, dtype=np.float32), packed, bias)
    arguments = (of(2, 2), of(2, 2), of(2, 2), bias, of(8, dtype=np.uint8), bias, 4, 4, 64, 64, 1, 0, 0, 0)
    with pytest.raises(TypeError, match="kernel 'hopper_conv_16_64': input must be a tensor map, got DeviceArray"):
        cuda.launch("hopper.cu", "hopper_conv_16_64", (1, 1, 1), (384, 1, 1), arguments)


@pytest.fixture
def path(tmp_path):
    return models.save(models.vgg(WIDE), tmp_path / "wide.onnx")


# Two tiles in either direction.
SMALL = tuple(models.random_image(12, 17, seed) for seed in range(3))


def objective(network, content=("conv2_1",), style=("conv1_1", "conv1_2", "conv2_2")):
    return Objective(network, *SMALL[:2], content, style, 1e-6, 1e-9)


def kinds(network):
    return models.algorithms(network.plan(12, 17, network.layers).nodes)


def test_a_network_asked_for_it_uses_it_and_gives_the_same(emulator, path):
    network = load_network(path, device="cuda", dtype="float16", convolution="hopper")
    # The first layer has three channels.
    assert kinds(network).count("HopperConvolution") == 3
    assert kinds(network)[0] == "PatchesConvolution"
    emulator.launches.clear()
    value, gradient = objective(network)(SMALL[2])
    assert sum(name.startswith("hopper_conv") for name in emulator.launches) >= 6
    expected, of_wide = objective(load_network(path, dtype="float64"))(SMALL[2])
    assert value == pytest.approx(expected, rel=1e-2)
    assert np.linalg.norm(gradient - of_wide) < 3e-2 * np.linalg.norm(of_wide)
    assert "HopperConvolution" not in kinds(load_network(path, device="cuda", dtype="float16"))


@pytest.mark.parametrize("splits", [1, 2])
def test_a_relu_that_only_the_next_convolution_sees_is_no_pass_of_its_own(emulator, path, monkeypatch, splits):
    monkeypatch.setattr(hopper, "best_tiling", lambda *shape: hopper.Tiling(16, 64, splits, H100))
    network = load_network(path, device="cuda", dtype="float16", convolution="hopper")
    exact, style = load_network(path, dtype="float64"), ["conv1_1"]
    # Whether conv2_1 is looked at, by the content's loss.
    for content, found, passes in (
        (["conv2_1", "conv2_2"], [(False, False)] * 2, 3),
        (["conv2_2"], [(False, True), (True, False)], 2),
    ):
        ran = [node.operator.algorithm for node in network.plan(12, 17, content).nodes if node.operator.kind == "Conv"][
            -2:
        ]
        assert [(operator.masks, operator.masked) for operator in ran] == found
        ours = objective(network, content, style)
        emulator.launches.clear()
        _, gradient = ours(SMALL[2])
        assert sum(name.startswith("relu_input_gradient") for name in emulator.launches) == passes
        _, of_wide = objective(exact, content, style)(SMALL[2])
        assert np.linalg.norm(gradient - of_wide) < 3e-2 * np.linalg.norm(of_wide)


@pytest.mark.parametrize("kind", KINDS)
def test_where_its_results_are_wrong_it_is_not_used_and_a_warning_says_so(emulator, path, kind):
    def spoil(results):
        results[0].values[..., 5] += 1

    emulator.faults[kind] = spoil
    with pytest.warns(RuntimeWarning, match="convolution 'hopper' is not used: its results on emulated GPU are wrong"):
        network = load_network(path, device="cuda", dtype="float16", convolution="hopper")
    assert "HopperConvolution" not in kinds(network)
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
