"""The command line of the gradient study: verdict, exit code, report, and one line for wrong input."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from engine import losses
from engine.onnx.writer import write_onnx
from engine.ops import Conv
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from tests.engine.onnx.models import light_model, with_random_weights
from tools.check_gradients import __main__ as check_gradients
from tools.check_gradients.__main__ import main
from tools.check_gradients.fault_study import CHECKS, FaultRow
from tools.check_gradients.study import Plan
from tools.media.saving import save_image
from tools.models.random_vgg import random_vgg

SMALL = ["--size", "32", "--width", "0.1", "--directions", "2", "--iterations", "1", "--without-torch", "-q"]


@pytest.fixture
def quick(monkeypatch):
    """Fewer step lengths; the study of faults stays out, it has tests of its own."""
    monkeypatch.setattr(
        check_gradients, "Plan", lambda: Plan(steps=tuple(np.logspace(-8, 2, 11)), kink_steps=(1e-2,), trials=20)
    )
    row = FaultRow("a fault", dict.fromkeys(CHECKS, True), 0.5, None)
    monkeypatch.setattr("tools.check_gradients.study.fault_study", lambda seed, faults, on_step: [row])


@pytest.mark.slow
def test_passes_on_the_engine_as_it_is(quick, capsys):
    assert main(SMALL) == 0
    output = capsys.readouterr().out
    assert re.search(r"passed: \d+ checks", output)
    assert "Conv 'conv5_1'" in output
    assert "style conv5_1, from the pixels" in output


def test_a_wrong_gradient_fails_with_code_1_and_its_factor(quick, capsys, monkeypatch):
    right = losses.content_loss_gradient
    monkeypatch.setattr(
        losses, "content_loss_gradient", lambda device, F, P, w=1.0, *rest: right(device, F, P, 2 * w, *rest)
    )
    assert main(SMALL) == 1
    output = capsys.readouterr().out
    assert "FAILED: content loss of conv4_2: complex step differs by 1, allowed are 1e-12 (a factor 2)" in output
    assert "passed:" not in output


def test_a_gpu_is_compared_with_float64_too(quick, capsys, emulator):
    assert main([*SMALL, "--device", "cuda"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.partition("The GPU against float64")[2].splitlines()[2:5]]
    assert [row[0] for row in rows] == ["float32", "tf32", "float16"]
    assert all(0 < float(error) < 2e-2 for row in rows for error in row[1:])

    def spoil(results):
        results[0].values[...] *= 1.01

    emulator.faults["average_pool_of_relu_input_gradient"] = spoil
    assert main([*SMALL, "--device", "cuda"]) == 1
    assert "FAILED: the GPU in float32: the gradient differs from float64 by" in capsys.readouterr().out


def test_what_a_gpu_cannot_compute_in_is_said(quick, capsys, emulator):
    emulator.capability = (7, 5)
    assert main([*SMALL, "--device", "auto"]) == 0
    assert "tf32: dtype 'tf32' needs compute capability 8.0 or later, the GPU has 7.5" in capsys.readouterr().out


@pytest.mark.slow
def test_writes_one_page_and_the_numbers(quick, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "report"
    assert main([*SMALL, "--report", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "confidence.svg",
        "index.html",
        "precision.svg",
        "steps.svg",
        "study.json",
    ]
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert "Everything is as it should be" in text
    assert text.count("<svg") == 3
    # Nothing is loaded from elsewhere.
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:href", "href"))
    numbers = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert numbers["failures"] == []
    assert numbers["about"]["image"] == "32 x 32 pixels"
    assert "index.html" in capsys.readouterr().out


@pytest.mark.slow
def test_takes_pictures_and_layers(quick, tmp_path, capsys):
    random = np.random.default_rng(0)
    for name, size in (("photo.png", (40, 30)), ("painting.png", (25, 50))):
        pixels = random.integers(0, 256, (*size, 3)).astype(np.float64)
        save_image(tmp_path / name, pixels)
    code = main(
        [
            *SMALL,
            "--content",
            str(tmp_path / "photo.png"),
            "--style",
            str(tmp_path / "painting.png"),
            "--content-layers",
            "none",
            "--style-layers",
            "conv1_2,conv2_1",
            "--pooling",
            "max",
        ]
    )
    assert code == 0
    output = capsys.readouterr().out
    assert "image: 24 x 32 pixels" in output
    assert "layers: content none; style conv1_2, conv2_1" in output
    assert "MaxPool" in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nothing.onnx"], "nothing.onnx"),
        (["--model", "x.onnx", "--width", "0.5"], "--width changes the random network only"),
        (["--style-layers", "conv9_9"], "unknown layer 'conv9_9'"),
        (
            ["-m", "short.onnx"],
            "the model has no conv4_2, of the default --content-layers: name others, out of conv1_1",
        ),
        (
            ["-m", "short.onnx", "--content-layers", "conv1_1"],
            "the model has no conv4_1, of the default --style-layers",
        ),
        (["-m", "dead.onnx"], "there is nothing to check: the gradient is zero"),
        (["--report", "loop"], "it is a link that leads nowhere, give a folder"),
        (["--style-layers", "none", "--content-layers", "none"], "there is nothing to check"),
        (["--size", "8"], "too small for the network"),
        (["--size", "200000"], "needs about|too large|memory"),
        (["--directions", "1001"], "--directions must be at most 1000"),
        (["--iterations", "1" + 400 * "0"], "--iterations must be at most 100000"),
        (["--report", "/proc/report"], "cannot write ./proc/report"),
        (["--device", "cuda"], "'cuda' is not available"),
        (["--content", "no.png"], "no.png"),
        (["--report", "no/such/folder"], "does not exist"),
        (["--report", __file__], "is a file, give a folder"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metadata = preprocessing_metadata(PREPROCESSING["caffe"])
    nodes = random_vgg("vgg19", width=0.05)
    write_onnx(Path("short.onnx"), nodes[:8], metadata)
    for node in nodes:
        if isinstance(node.operator, Conv):
            node.operator.weight[:] = 0
    write_onnx(Path("dead.onnx"), nodes, metadata)
    Path("loop").symlink_to("loop")
    with pytest.raises((ValueError, OSError), match=message):
        main(["-q", *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "0"],
        ["--style-layers", "conv1_1,,"],
        ["--directions", "x"],
        ["--directions", "9" * 23],
        ["--pooling", "median"],
        ["--report", ""],
    ],
)
def test_wrong_options_end_with_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_report_needs_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setattr(check_gradients.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install '\.\[plot\]'"):
        main(["-q", "--report", str(tmp_path / "report")])


def test_a_network_with_branches_is_compared_with_pytorch_operator_by_operator(quick, tmp_path, capsys):
    pytest.importorskip("torch")
    onnx.save(with_random_weights(light_model("squeezenet")[0]), tmp_path / "squeezenet.onnx")
    arguments = ["-q", "-m", str(tmp_path / "squeezenet.onnx"), "--preprocessing", "torch", "--size", "32", "-n", "1"]
    assert main([*arguments, "--directions", "2", "--content-layers", "r13", "--style-layers", "r1,r8"]) == 0
    output = capsys.readouterr().out
    assert "PyTorch: compared operator by operator only: " in output
    assert "Concat" in output
