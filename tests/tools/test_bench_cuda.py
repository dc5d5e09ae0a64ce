"""Timing a GPU, emulated: everything is measured, and the results are compared with float64."""

import json

import pytest

from kernels import gpu_unavailable
from kernels.cuda import runtime
from tools import bench
from tools.bench_cuda import VARIANTS

SMALL = ["--device", "cuda", "--size", "16", "--width", "0.05", "--repeats", "1", "--quiet"]


def test_everything_is_measured_and_right(emulator, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tools.bench_cuda.LAUNCHES", 1)
    monkeypatch.setattr("tools.bench_cuda.ITERATIONS", 1)
    file = tmp_path / "report.json"
    assert bench.main([*SMALL, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["device"] == "emulated GPU"
    assert [one["variant"] for one in report["evaluations"]] == list(VARIANTS)
    for one in report["evaluations"]:
        assert one["seconds"] > 0
        assert one["iteration"] > 0
        assert one["gradient"] < (1e-4 if one["variant"].startswith("float32") else 3e-2)
    # Sixteen convolutions and four poolings, of the variants that are not replayed.
    assert len(report["layers"]) == 20 * sum(not replay for *_, replay in VARIANTS.values())
    assert all(one["forward"] > 0 and one["backward"] > 0 for one in report["layers"])
    printed = capsys.readouterr().out
    assert printed.startswith("GPU: emulated GPU\n")
    assert all(variant in printed for variant in VARIANTS)


def test_a_card_without_tensor_cores_of_its_kind_leaves_them_out(emulator, capsys, monkeypatch):
    monkeypatch.setattr("tools.bench_cuda.VARIANTS", {"float16, hopper": ("float16", "hopper", False)})
    emulator.capability = (8, 6)
    assert bench.main(SMALL) == 0
    assert "float16, hopper: left out, convolution 'hopper' needs compute capability 9.0" in capsys.readouterr().out


def test_without_a_gpu_the_reason_is_said(monkeypatch):
    def missing():
        raise ValueError("CuPy finds no GPU")

    monkeypatch.setattr(runtime, "backend", missing)
    assert gpu_unavailable()
    with pytest.raises(ValueError, match="device 'cuda' is not available: CuPy finds no GPU"):
        bench.main(SMALL)
