"""Timing a GPU, emulated: everything is measured, and the results are compared with float64."""

import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from engine.device import moved_to_cuda
from kernels.cuda import opening, selftest
from tests.tools.bench.test_main import needs_torch
from tools.bench import __main__ as bench
from tools.bench.cuda import VARIANTS, Card, CudaReport, LayerTime, ProgramTime, Variant
from tools.bench.cuda_report import as_json, opponent, render_cuda
from tools.bench.programs import relative_difference
from tools.bench.rivals import RIVALS, evaluation, matrix_rates
from tools.models.subject import Setup, build_network, build_objective, pictures

SMALL = ["--device", "cuda", "--size", "16", "--width", "0.05", "--repeats", "1", "--quiet"]


@pytest.fixture
def quick(monkeypatch):
    for name, value in {"LAUNCHES": 1, "ITERATIONS": 1, "COPIED": 1000}.items():
        monkeypatch.setattr(f"tools.bench.cuda.{name}", value)


def test_everything_is_measured_and_right(emulator, tmp_path, capsys, quick):
    file = tmp_path / "report.json"
    assert bench.main([*SMALL, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["card"]["name"] == "emulated GPU"
    assert report["card"]["bandwidth"] > 0
    assert len(report["card"]["distances"]) == len(selftest.CHECKS) + len(selftest.HALF_CHECKS)
    assert max(report["card"]["distances"].values()) < 1e-3
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", report["date"])
    assert [one["program"] for one in report["programs"]] == list(VARIANTS)
    for one in report["programs"]:
        assert one["median_seconds"] > 0
        assert one["iteration"] > 0
        assert one["gradient"] < (1e-4 if one["precision"] == "float32" else 3e-2)
    # The convolutions up to conv5_1, four with the pooling behind them, of the variants that are not replayed.
    assert len(report["layers"]) == 13 * sum(not variant.replay for variant in VARIANTS.values())
    assert all(one["forward"] > 0 and one["backward"] > 0 for one in report["layers"])
    # As many operations, however a layer is computed.
    assert len({one["operations"] for one in report["programs"]}) == 1
    assert len({(one["layer"], one["operations"], one["moved"]) for one in report["layers"]}) == 2 * 13  # two dtypes
    of_one = [one["operations"] for one in report["layers"] if one["variant"] == "tf32"]
    assert 2 * sum(of_one) == report["programs"][0]["operations"]
    printed = capsys.readouterr().out
    assert printed.startswith("GPU: emulated GPU, 2")
    assert all(variant in printed for variant in VARIANTS)


def test_a_card_without_tensor_cores_of_its_kind_leaves_them_out(emulator, capsys, monkeypatch, quick):
    variants = {"float16, hopper": Variant("16 bits", "float16", "hopper", False)}
    monkeypatch.setattr("tools.bench.cuda.VARIANTS", variants)
    emulator.capability = (8, 6)
    assert bench.main(SMALL) == 0
    assert "float16, hopper: left out, convolution 'hopper' needs compute capability 9.0" in capsys.readouterr().out


def test_without_a_gpu_the_reason_is_said(monkeypatch):
    def missing():
        raise ValueError("CuPy finds no GPU")

    monkeypatch.setattr(opening, "open_cuda", missing)
    assert opening.unavailable()
    with pytest.raises(ValueError, match="device 'cuda' is not available: CuPy finds no GPU"):
        bench.main(SMALL)


def test_an_evaluation_makes_no_pass_that_another_can_make(emulator):
    """VGG-19 and the paper's layers: six are kept, three ReLUs are read by a convolution alone, four by a pooling."""
    network = moved_to_cuda(replace(build_network(Setup(width=0.125, threads=1)), convolution="tensor"), "tf32")
    content, style, image = pictures(16, 0)
    objective = build_objective(network, content, style)
    emulator.launches.clear()
    objective(network.placed(image))
    made = Counter(emulator.launches)
    assert (made["relu_input_gradient"], made["relu_mask"], made["relu_input_gradient_from_mask"]) == (6, 3, 0)
    assert made["average_pool_of_relu"] == made["average_pool_of_relu_input_gradient"] == 4
    # Five Gram matrices, each compared in one pass, and their gradients; six terms and a count of what is not finite.
    assert (made["gemm_split_gram"], made["gemm_split_plain"]) == (5, 5)
    assert (made["quotient_distance"], made["quotient_difference"], made["sum_parts"]) == (5, 5, 7)


# ---- beside PyTorch ----


@needs_torch
def test_pytorch_without_a_gpu_is_refused_at_once(emulator, quick):
    with pytest.raises(ValueError, match="PyTorch finds no GPU to be compared on: leave out --against torch"):
        bench.main([*SMALL, "--against", "torch"])


@pytest.fixture(scope="module")
def problem():
    """A network, its pictures, and value and gradient in float32."""
    network = build_network(Setup(width=0.1, threads=1))
    given = pictures(40, 0)
    return network, given, build_objective(network, *given[:2])(given[2])


def distances(problem, name):
    network, given, expected = problem
    value, gradient = evaluation(RIVALS[name], network, *given, device="cpu")()
    return relative_difference((value, gradient[0].permute(1, 2, 0).double().numpy()), expected)


@needs_torch
@pytest.mark.parametrize(("name", "most"), [("float32", 1e-4), ("tf32", 1e-4), ("bfloat16", 0.1), ("float16", 0.03)])
def test_rivals_compute_the_same(problem, name, most):
    """On a CPU, where PyTorch has no TF32."""
    value, gradient = distances(problem, f"torch {name}, eager")
    assert value < most / 4
    assert gradient < most


@needs_torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, while it loads its compiler
def test_a_compiled_rival_computes_the_same(problem):
    assert max(distances(problem, "torch float32, compiled")) < 1e-4


@needs_torch
def test_matrix_rates_are_operations_a_second():
    rates = matrix_rates(side=64, repeats=2, device="cpu")
    assert set(rates) == {variant.precision for variant in VARIANTS.values()}
    assert all(1e5 < rate < 1e14 for rate in rates.values())


# ---- the report ----

CARD = Card(
    "a card",
    {"CUDA driver": "13.0"},
    {"conv": 1e-7, "relu": 0.0},
    bandwidth=4e12,
    rates={"float32": 50e12, "16 bits": 800e12},
)


def time_of(program, precision, seconds, size=512):
    return ProgramTime(program, precision, size, seconds, None, 400_000_000_000, 1e-4, 5e-3)


REPORT = CudaReport(
    "2026-01-02",
    CARD,
    {"torch float16, graph": "RuntimeError: no"},
    [
        time_of("float32", "float32", [0.016, 0.018]),
        time_of("float16", "16 bits", [0.001, 0.002]),
        time_of("torch bfloat16, eager", "16 bits", [0.004, 0.004]),
        time_of("torch float16, eager", "16 bits", [0.002, 0.003]),
        time_of("torch float16, eager", "16 bits", [0.0001], size=256),
    ],
    [
        LayerTime("float16", 512, "Conv 'conv1_1'", 1e-3, 2e-3, 80_000_000_000, 1000),
        LayerTime("float16", 512, "AveragePool", 1e-3, 2e-3, 0, 400_000_000),
    ],
)


def test_a_time_is_compared_with_the_fastest_of_its_precision_and_size():
    name, ratio = opponent(REPORT, REPORT.programs[1])
    assert name == "torch float16, eager"
    assert (ratio.median, ratio.lowest, ratio.highest) == (1.75, 1.5, 2.0)
    assert opponent(REPORT, REPORT.programs[0]) is None
    assert opponent(REPORT, REPORT.programs[2]) is None
    entry = as_json(REPORT)["programs"][1]
    assert (entry["opponent"], entry["median_seconds"]) == ("torch float16, eager", 0.0015)


def test_limits_are_the_slower_of_arithmetic_and_memory():
    assert CARD.least_seconds("16 bits", 8e11, 1e9) == pytest.approx(1e-3)
    assert CARD.least_seconds("16 bits", 8e11, 4e10) == pytest.approx(1e-2)
    assert CARD.least_seconds("tf32", 8e11, 4e10) is None
    assert CARD.least_seconds("tf32", 0, 4e10) == pytest.approx(1e-2)


def test_the_tables():
    lines = render_cuda(REPORT).splitlines()
    assert lines[:5] == [
        "GPU: a card, 2026-01-02",
        "versions: CUDA driver 13.0",
        "kernels: 2 calls compared with the CPU's, the largest difference is 1.0e-07 (conv)",
        "copy: 4.00 TB/s, read and written",
        "matrix product: float32 50, 16 bits 800 TFLOP/s",
    ]
    rows = {" ".join(line.split()[:2]): line.split() for line in lines if re.search(r" 512 ", line)}
    # 4e11 operations: at 50 TFLOP/s 8 ms of 17, at 800 TFLOP/s 0.5 ms of 1.5.
    assert rows["float32 512"][2:6] == ["17.000", "23.5", "47", "%"]
    assert rows["float16 512"][2:6] == ["1.500", "266.7", "33", "%"]
    assert rows["float16 512"][-2:] == ["1.75", "(1.50-2.00)"]
    assert rows["float16 Conv"][3:] == ["512", "1.000", "80.0", "10", "%", "2.000", "40.0", "5", "%"]
    assert rows["float16 AveragePool"][2:] == ["512", "1.000", "10", "%", "2.000", "5", "%"]
    assert "torch float16, graph: left out, RuntimeError: no" in lines
    assert "| program | size |" in render_cuda(REPORT, markdown=True)


def test_every_way_of_pytorch_is_among_the_rivals():
    assert len(RIVALS) == 16
    assert {rival.precision for rival in RIVALS.values()} == {"float32", "tf32", "16 bits"}
    assert sum(rival.compiled and rival.graph for rival in RIVALS.values()) == 4
    assert np.unique([rival.dtype for rival in RIVALS.values()]).tolist() == ["bfloat16", "float16", "float32"]


@pytest.mark.parametrize(
    "option",
    [["--memory"], ["--precision"], ["--iterations", "5"], ["--optimizer", "adam"], ["--convolution", "direct"]],
)
def test_options_of_the_cpu_are_refused(option):
    with pytest.raises(ValueError, match=f"^{option[0]} is for the CPU, leave it out with --device cuda$"):
        bench.main([*SMALL, *option])


def test_what_does_not_fit_into_the_gpus_memory_is_left_out(emulator, capsys, quick):
    emulator.memory = 1000
    assert bench.main(SMALL) == 0
    output = capsys.readouterr().out
    for name in VARIANTS:
        assert f"{name}: left out, 16x16 pixels need about" in output
