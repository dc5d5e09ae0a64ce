"""The measuring tool: its arithmetic, its command line, and that PyTorch computes the same as the engine."""

from __future__ import annotations

import importlib.util
import json
import math
import mmap
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.objective import Objective
from engine.ops import Add, Affine, AveragePool, Conv, MaxPool, Relu
from kernels.geometry import Window
from tools.bench import __main__ as bench
from tools.bench import memory, race
from tools.bench.memory import Memory, measure_memory
from tools.bench.optimizer import OptimizerRun, measure_run
from tools.bench.precision import PRECISION_IMAGES, Precision, measure_precision
from tools.bench.programs import ENGINE, TORCH, build_twin, check_agreement, relative_difference
from tools.bench.race import Course, Race
from tools.bench.report import Report, as_json, render
from tools.bench.speed import Speed, measure_speed, speed_ratio, time_in_turn
from tools.cli.machine import cpu_name
from tools.models import __main__ as models
from tools.models import torch_vgg
from tools.models.subject import Setup, build_network, pictures

SMALL = Setup(width=0.1, threads=1)
QUICK = ["--size", "32", "--width", "0.1", "--threads", "1", "--repeats", "1"]
CONTIGUOUS, CHANNELS_LAST = TORCH

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")


@pytest.fixture(scope="module")
def network():
    return build_network(SMALL)


@pytest.fixture
def without_torch(monkeypatch):
    # None in sys.modules makes the import fail as for a package that is not there.
    monkeypatch.setitem(sys.modules, "torch", None)


class Clock:
    """A clock that stands still but for `sleep` and what the programs under measurement take."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Ticking:
    """A clock that goes on by one second at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def exit_code(main, argv):
    with pytest.raises(SystemExit) as left:
        bench.run(main, argv)
    return left.value.code


# ---- times ----


def test_programs_are_timed_in_turn_and_alone():
    clock, order, steps = Clock(), [], []
    times = {"ours": iter([2.0, 4.0, 3.0]), "theirs": iter([3.0, 4.0, 6.0])}

    def program(name):
        def evaluate():
            order.append(name)
            clock.now += next(times[name])

        return evaluate

    seconds = time_in_turn(
        {name: program(name) for name in times}, 3, clock=clock, sleep=clock.sleep, on_call=lambda: steps.append(1)
    )
    assert order == ["ours", "theirs"] * 3
    # The pause before each is not counted.
    assert seconds == {"ours": pytest.approx([2.0, 4.0, 3.0]), "theirs": pytest.approx([3.0, 4.0, 6.0])}
    assert len(steps) == 6


def test_the_ratio_is_that_of_each_round():
    ratio = speed_ratio([2.0, 4.0, 3.0], [3.0, 4.0, 6.0])
    # The rounds' ratios are 1.5, 1 and 2; the ratio of the medians would be 4/3.
    assert (ratio.median, ratio.lowest, ratio.highest) == (1.5, 1.0, 2.0)


def test_the_engine_is_compared_with_the_faster_layout():
    speed = Speed(32, 10**9, {ENGINE: [1.0, 2.0, 3.0], "a": [4.0, 5.0, 6.0], "b": [3.0, 3.0, 9.0]}, {})
    assert speed.opponent == "b"
    assert (speed.ratio.median, speed.ratio.lowest, speed.ratio.highest) == (3.0, 1.5, 3.0)
    assert speed.median(ENGINE) == 2.0
    # Two operations a multiply-add, forward and backward: 4e9 in 2 s.
    assert speed.gflops(ENGINE) == pytest.approx(2.0)


def test_alone_there_is_no_opponent():
    speed = Speed(32, 1, {ENGINE: [1.0]}, {})
    assert speed.opponent is None
    assert speed.ratio is None


def test_measured_speed_counts_the_convolutions(network):
    calls = []
    speed = measure_speed(network, 32, 0, {}, 2, lambda: calls.append(1))
    assert len(speed.seconds[ENGINE]) == 2
    assert min(speed.seconds[ENGINE]) > 0
    assert len(calls) == 3
    pixels, expected = 32 * 32, 0
    for block, count in enumerate((2, 2, 4, 4, 1)):
        for index in range(count):
            weight = network.nodes[[node.output for node in network.nodes].index(f"conv{block + 1}_{index + 1}")]
            expected += pixels // 4**block * weight.operator.weight.size
    assert speed.multiply_adds == expected


# ---- comparing results ----


def test_relative_difference():
    found = (3.0, np.array([3.0, 4.0]))
    expected = (2.0, np.array([3.0, 4.0]) * 2)
    assert relative_difference(found, expected) == (0.5, 0.5)
    nothing = (0.0, np.zeros(2))
    assert relative_difference(nothing, nothing) == (0.0, 0.0)
    assert relative_difference(found, nothing) == (np.inf, np.inf)


@pytest.mark.parametrize("differences", [(0.02, 0.0), (0.0, 0.02), (np.nan, 0.0), (0.0, np.inf)])
def test_programs_that_differ_are_not_compared(differences):
    with pytest.raises(ValueError, match=r"differ at 32 pixels by .*: one of them is wrong"):
        check_agreement(CONTIGUOUS, 32, *differences)


def test_programs_that_agree_are_compared():
    check_agreement(CONTIGUOUS, 32, 1e-6, 9e-3)


def test_pictures_have_the_size_and_come_from_the_seed():
    first, again, other = (np.array(pictures(33, seed)) for seed in (1, 1, 2))
    assert first.shape == (3, 33, 33, 3)
    assert 0 <= first.min() < first.max() <= 255
    assert np.array_equal(first, again)
    assert not np.isclose(first, other).all(axis=(1, 2, 3)).any()


# ---- the network ----


def test_the_random_network_is_a_vgg_19(network):
    assert network.layers[0] == "conv1_1"
    assert network.layers[-1] == "conv5_4"
    assert len(network.layers) == 16
    assert network.dtype == np.float32
    assert network.device.count == 1


@pytest.mark.parametrize(("pooling", "kind"), [("average", AveragePool), ("max", MaxPool), ("model", MaxPool)])
def test_the_random_network_has_the_pooling_asked_for(pooling, kind):
    nodes = build_network(replace(SMALL, pooling=pooling)).nodes
    found = [node.operator for node in nodes if not isinstance(node.operator, Conv)]
    assert len(found) == 4
    assert all(isinstance(operator, kind) for operator in found)


def test_the_random_network_comes_from_the_seed(network):
    def weight(seed):
        return build_network(replace(SMALL, seed=seed)).nodes[0].operator.weight

    assert np.array_equal(weight(0), network.nodes[0].operator.weight)
    assert not np.array_equal(weight(1), network.nodes[0].operator.weight)


def test_precision_is_that_of_single_precision(network):
    calls = []
    (measured,) = measure_precision(network, 32, 0, {}, lambda: calls.append(1))
    assert measured.program == ENGINE
    assert len(measured.values) == len(measured.gradients) == PRECISION_IMAGES
    assert len(calls) == 2 * PRECISION_IMAGES
    assert 0 < np.median(measured.values) < 1e-5
    assert 1e-9 < np.median(measured.gradients) < 1e-2


def test_a_run_separates_the_optimizer_from_the_evaluations(network):
    steps = []
    (one,) = measure_run(network, 32, 0, None, 3, lambda: steps.append(1), clock=Ticking())
    assert one.iterations == len(steps) == 3
    assert one.evaluations >= 4
    # Each evaluation looks at the clock twice, the run at its beginning, after its first iteration and at its end.
    assert one.evaluating == one.evaluations
    assert one.seconds == 2 * one.evaluations + 2
    assert one.overhead == one.evaluations + 2
    assert 0 < one.starting < one.overhead
    assert one.value < one.initial_value


# ---- the PyTorch twin ----


@needs_torch
@pytest.mark.parametrize("layout", torch_vgg.LAYOUTS)
@pytest.mark.parametrize(("pooling", "preprocessing"), [("average", "caffe"), ("max", "torch")])
def test_the_twin_equals_the_engine_in_double_precision(layout, pooling, preprocessing):
    single = build_network(replace(SMALL, pooling=pooling, preprocessing=preprocessing))
    double = np.dtype(np.float64)
    nodes = tuple(replace(node, operator=node.operator.astype(double)) for node in single.nodes)
    network = replace(single, nodes=nodes, dtype=double)
    content, style, image = (picture[:, :37] for picture in pictures(48, 3))
    # The content layer is also a style layer, and the painting has another size.
    options = {
        "content_layers": ("conv2_2", "conv3_1"),
        "style_layers": ("conv1_1", "conv2_2", "conv4_1"),
        "content_weight": 0.5,
        "style_weight": 2.0,
    }
    objective = Objective(network, content, style[:40, :33], **options)
    twin = torch_vgg.torch_objective(network, content, style[:40, :33], layout=layout, **options)
    value, gradient = twin(image)
    assert gradient.shape == image.shape
    assert gradient.dtype == np.float64
    assert max(relative_difference((value, gradient), objective(image))) < 1e-9


@needs_torch
def test_the_twin_runs_biases_and_windows_of_its_own(network):
    random = np.random.default_rng(5)

    def normal(*shape):
        return random.standard_normal(shape)

    operators = [
        Conv(normal(3, 5, 3, 8), normal(8), Window((3, 5), (2, 1), (1, 2, 1, 2)), relu=True),
        AveragePool(Window((3, 3), (2, 2), (1, 1, 1, 1), ceil_mode=True)),
        Conv(normal(3, 3, 4, 6), None, Window((3, 3), dilations=(2, 1)), group=2, relu=True),
        MaxPool(Window((2, 2), (2, 2), ceil_mode=True)),
        Conv(normal(1, 1, 6, 5), normal(5), Window((1, 1)), relu=False),
        Relu(),
    ]
    nodes = tuple(
        replace(network.nodes[0], operator=operator, name=f"node {index}", input=str(index), output=str(index + 1))
        for index, operator in enumerate(operators)
    )
    odd = replace(network, nodes=nodes, outputs={"first": "1", "last": "6"}, dtype=np.dtype(np.float64))
    content, style, image = pictures(29, 0)
    layers = {"content_layers": ("last",), "style_layers": ("first", "last")}
    expected = Objective(odd, content, style, **layers)(image)
    assert max(relative_difference(torch_vgg.torch_objective(odd, content, style, **layers)(image), expected)) < 1e-9


@needs_torch
def test_the_twin_refuses_what_it_cannot_run(network):
    content, style, _ = pictures(32, 0)

    def build(**changes):
        first = replace(network.nodes[0], **changes)
        return torch_vgg.torch_objective(replace(network, nodes=(first, *network.nodes[1:])), content, style)

    conv = network.nodes[0].operator
    with pytest.raises(ValueError, match="'conv1_1': the PyTorch twin has no Affine"):
        build(operator=Affine(np.ones(1), np.ones(1)))
    with pytest.raises(ValueError, match="'conv1_1': the PyTorch twin pads both sides alike"):
        build(operator=replace(conv, window=Window((3, 3), pads=(1, 1, 0, 0))))
    with pytest.raises(ValueError, match="'conv1_1': PyTorch's average pooling has no dilations"):
        build(operator=AveragePool(Window((2, 2), dilations=(2, 2))))
    with pytest.raises(ValueError, match="'conv1_2': the PyTorch twin runs a chain"):
        build(output="elsewhere")
    with pytest.raises(ValueError, match="'conv1_1': the PyTorch twin runs a chain"):
        build(operator=Add(), others=(network.nodes[0].input,))
    with pytest.raises(ValueError, match="unknown layout 'NHWC'"):
        torch_vgg.torch_objective(network, content, style, layout="NHWC")
    with pytest.raises(ValueError, match="float32 or float64, the network is in complex128"):
        torch_vgg.torch_objective(replace(network, dtype=np.dtype(np.complex128)), content, style)


@needs_torch
@pytest.mark.parametrize("layout", torch_vgg.LAYOUTS)
def test_pytorchs_optimizer_makes_the_evaluations_it_is_given(network, layout):
    content, style, image = pictures(32, 0)
    twin = build_twin(network, content, style, layout)
    before, calls = image.copy(), []
    one = torch_vgg.minimize_with_torch(
        twin, image, 12, on_evaluation=lambda pixels: calls.append(pixels.shape), clock=Ticking()
    )
    assert one.evaluations == len(calls) == 12
    assert one.evaluating == 12
    # Two looks at the clock an evaluation, one at the beginning and one at the end.
    assert one.seconds == 25
    assert one.value < one.initial_value == pytest.approx(twin(image)[0])
    assert np.array_equal(image, before)


@needs_torch
def test_both_optimizers_get_the_same_number_of_evaluations(network):
    steps = []
    ours, theirs = measure_run(network, 32, 0, "channels last", 4, lambda: steps.append(1))
    assert theirs.program == CHANNELS_LAST
    assert theirs.evaluations == ours.evaluations
    assert theirs.initial_value == pytest.approx(ours.initial_value, rel=1e-4)
    assert len(steps) == 8


@needs_torch
def test_pytorch_gets_as_many_threads_as_the_engine(network):
    import torch

    content, style, _ = pictures(32, 0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        build_twin(network, content, style, "contiguous")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_without_pytorch_there_is_one_sentence(without_torch, capsys):
    assert exit_code(bench.main, [*QUICK, "--against", "torch"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "needs PyTorch: pip install '.[bench]'" in captured.err


# ---- the race ----


def course(racer, losses, each=2.0):
    return Course(racer, [each * (number + 1) for number in range(len(losses))], losses)


def test_a_course_knows_when_it_got_down_to_a_loss():
    one = course("engine", [9.0, 5.0, 7.0, 4.0, 4.0])
    assert one.lowest == [9, 5, 5, 4, 4]
    assert [one.reached(loss) for loss in (10, 9, 6, 5, 4.5, 4, 3.9)] == [1, 1, 2, 2, 4, 4, None]


def test_what_counts_of_a_run_without_bounds_is_its_loss_within_them():
    one = replace(course("torch", [9.0, 5.0, 4.0, 3.0, 2.0]), pictures={2: 7.0, 4: 8.0, 5: 6.5})
    assert one.as_picture == [None, 7.0, 7.0, 7.0, 6.5]
    assert course("engine", [9.0, 5.0, 6.0]).as_picture == [9.0, 5.0, 5.0]


def test_the_ratio_of_a_race_is_in_seconds_to_pytorchs_best_picture():
    usual = replace(course(f"torch, {race.USUAL[0]}", [9.0, 4.5, 4.0], each=5.0), pictures={2: 7.0, 3: 6.0})
    found = Race("a race", [course("engine, l-bfgs", [9.0, 5.0, 4.0]), usual, course("torch, Adam, lr 10", [9.0] * 3)])
    assert (found.target, found.ratio) == (6.0, 15 / 4)
    header, rows = race.rows_of(found)
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0][-2:] == ["4.0 s", "2"]
    assert rows[0][-3] == "4"
    assert rows[1][-3:] == ["6", "15.0 s", "3"]
    assert rows[2][-2:] == ["-", "-"]
    good = replace(found, courses=[*found.courses[:2], course("torch, Adam, lr 10", [9.0, 5.0, 5.0])])
    assert race.rows_of(good)[1][2][-2:] == ["4.0 s", "2"]
    assert "3.75 times as fast" in race.notes_of(found)[0]
    assert "reached its lowest loss, 4: after 6.0 s" in race.notes_of(found)[1]
    early = replace(found, courses=[found.courses[0], replace(usual, pictures={2: 6.0, 3: 6.5})])
    assert (early.target, early.ratio) == (6.0, 10 / 4)
    assert race.as_json(found)["ratio"] == found.ratio
    clamped = course(f"torch, {torch_vgg.CLAMPED}", [9.0, 5.5, 5.0], each=6.0)
    with_clamped = replace(found, courses=[*found.courses[:2], clamped])
    assert (with_clamped.target, with_clamped.ratio) == (5.0, 18 / 4)
    assert [row[-1] for row in race.rows_of(with_clamped)[1]] == ["2", "-", "3"]
    assert len(race.notes_of(with_clamped)) == 3
    blown_up = replace(usual, losses=[9.0, math.nan, math.nan], pictures={2: math.nan, 3: math.nan})
    assert replace(found, courses=[found.courses[0], blown_up]).ratio is None
    assert replace(usual, pictures={1: 7.0, 2: math.nan}).as_picture == [7.0, 7.0, 7.0]
    slow = replace(found, courses=[course("engine, l-bfgs", [9.0]), usual])
    assert slow.ratio is None
    assert "did not get there" in race.notes_of(slow)[0]


def test_a_race_is_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    race.draw(Race("a $race$", [course("engine, l-bfgs", [9.0, float("inf"), 4.0])]), tmp_path / "race.svg")
    assert b"<svg" in (tmp_path / "race.svg").read_bytes()
    torch = replace(course(f"torch, {race.USUAL[0]}", [9.0, 6.0, 5.0]), pictures={2: 7.0, 3: 6.0})
    drawn = []
    monkeypatch.setattr(race, "plot_courses", lambda *arguments: drawn.append(arguments))
    race.draw(Race("a race", [course("engine, l-bfgs", [9.0, 5.0, 4.0]), torch]), tmp_path / "race.svg")
    _, (ours, theirs, as_picture), _, target = drawn[0]
    assert target == 6.0
    assert (ours.losses, theirs.losses, as_picture.losses) == ([9.0, 5.0, 4.0], [9.0, 6.0, 5.0], [None, 7.0, 6.0])
    assert (ours.of, theirs.of, as_picture.of) == ("", "", theirs.name)


def test_all_racers_minimize_the_same_loss_from_the_same_image(network, capsys, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(race, "EVERY", 4)
    content, style, image = pictures(32, 0)
    steps = []
    found = race.run_race(network, (content, style, image), "a race", 1e-3, 6, steps.append, clock=Ticking())
    assert [one.racer for one in found.courses] == [
        "engine, l-bfgs",
        *(f"torch, {name}" for name in torch_vgg.OPTIMIZERS),
    ]
    for one in found.courses:
        assert len(one.seconds) == len(one.losses) == 6
        assert list(one.seconds) == sorted(one.seconds)
        assert one.losses[0] == pytest.approx(found.courses[0].losses[0], rel=1e-4)
        assert one.lowest[-1] < one.losses[0]
        is_bounded = one is found.courses[0] or one.racer == f"torch, {torch_vgg.CLAMPED}"
        assert list(one.pictures) == ([] if is_bounded else [4, 6])
        for evaluation, loss in one.pictures.items():
            assert loss == pytest.approx(one.losses[evaluation - 1], rel=0.5)
            assert loss != one.losses[evaluation - 1] or not one.racer.startswith(
                "torch, Adam"
            )  # 10 gray levels a step
    assert len(steps) == 30
    assert found.courses[2].losses != found.courses[1].losses
    seen = []
    evaluate = torch_vgg.TorchObjective.evaluate
    monkeypatch.setattr(
        torch_vgg.TorchObjective,
        "evaluate",
        lambda twin, pixels: seen.append((pixels.min().item(), pixels.max().item())) or evaluate(twin, pixels),
    )
    usual = race.run_race(
        network, (content, style, image), "a race", 1e-3, 6, steps.append, race.USUAL[:1], clock=Ticking()
    )
    assert [one.racer for one in usual.courses] == ["engine, l-bfgs", f"torch, {race.USUAL[0]}"]
    assert usual.courses[1].losses == found.courses[1].losses
    *evaluated, before, looked_at, _, _, last = seen[-8:]  # looked at behind the fourth evaluation and the sixth
    assert min(low for low, _ in [*evaluated, before]) < 0
    assert all(0 <= low <= high <= 255 for low, high in (looked_at, last))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--plot", "race.svg"], "--plot is of a race: give --race too"),
        (["--rivals", "usual"], "--rivals is of a race: give --race too"),
        (["--init", "noise"], "--init is of a race: give --race too"),
        (["--optimizer", "adam"], "--optimizer is that of a whole run: give --iterations too"),
        (["--race", "a.png", "b.png", "--plot", "race.txt"], "expected .svg or .png"),
        (["--race", "a.png", "b.png", "--device", "cuda"], "a race is run on the CPU"),
        (["--race", "missing.png", "b.png"], "missing.png"),
    ],
)
def test_what_is_wrong_with_a_race_is_one_sentence(given, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "import_torch", lambda: None)
    assert exit_code(bench.main, [*QUICK, *given]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert said in captured.err


# ---- memory ----


def touch(size):
    """Take fresh memory and give it back; an array's might lie where the process has had memory before."""
    with mmap.mmap(-1, size) as memory:
        for offset in range(0, size, mmap.PAGESIZE):
            memory[offset] = 1


@needs_proc
def test_the_peak_is_that_since_it_was_forgotten():
    megabytes = 80
    touch(megabytes * 1_000_000)
    if not memory._forget_peak():
        pytest.skip("the system does not let a process reset its peak")
    before, resident = memory._peak_memory(), memory._resident_memory()
    assert abs(before - resident) < 10e6
    touch(megabytes * 1_000_000)
    assert (megabytes - 10) * 1e6 < memory._peak_memory() - before < (megabytes + 10) * 1e6
    assert memory._resident_memory() - resident < 10e6


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(monkeypatch, tmp_path):
    # Neither the memory held here nor the current folder makes a difference there.
    ballast = np.ones(25_000_000)
    monkeypatch.chdir(tmp_path)
    one = measure_memory(SMALL, 32, ENGINE)
    assert (one.size, one.program) == (32, ENGINE)
    assert 10e6 < one.imports <= one.ready <= one.peak < ballast.nbytes + one.imports
    assert 0 < one.estimate < 50e6


@needs_torch
def test_the_memory_of_pytorch_is_measured_too():
    one = measure_memory(SMALL, 32, CONTIGUOUS)
    assert one.imports < one.ready <= one.peak
    assert one.estimate is None


@pytest.mark.slow
def test_a_measuring_process_that_fails_says_why():
    with pytest.raises(ValueError, match=r"the memory of engine at 8 pixels cannot be measured: .*too small") as caught:
        measure_memory(SMALL, 8, ENGINE)
    assert "\n" not in str(caught.value)


def test_a_measuring_process_that_is_killed_says_so(monkeypatch):
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: killed)
    with pytest.raises(ValueError, match=r"killed by signal 9: most likely there is not enough memory"):
        measure_memory(SMALL, 32, ENGINE)


# ---- the machine and the report ----


def test_the_processor_is_named(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nprocessor\t: 1\nmodel name\t: Other\n")
    assert cpu_name(cpuinfo) == "Some CPU @ 2.00GHz"
    assert cpu_name(tmp_path / "nothing") != ""


def full_report():
    seconds = {ENGINE: [123.456, 120.0], CONTIGUOUS: [110.0, 100.0], CHANNELS_LAST: [240.0, 250.0]}
    differences = {CONTIGUOUS: (1.2e-7, 3.4e-4), CHANNELS_LAST: (1.3e-7, 3.3e-4)}
    return Report(
        setup=Setup(),
        network="VGG-19 with random weights, average pooling, float32, the paper's layers",
        threads={ENGINE: 16, "torch": 16},
        machine={"cpu": "Intel(R) Xeon(R) Platinum 8480+ CPU @ 3.80GHz", "cores": 16, "system": "Linux"},
        versions={"python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0+cpu", "openblas": "0.3.31 SkylakeX"},
        speed=[Speed(2048, 10**14, seconds, differences), Speed(64, 10**9, seconds, differences)],
        memory=[Memory(2048, CHANNELS_LAST, 275_800_000, 913_000_000, 12_603_200_000, True, None)],
        precision=[Precision(2048, CHANNELS_LAST, [1e-7, 3e-7, 2e-7], [1e-4, 3e-4, 2e-4])],
        runs=[
            OptimizerRun(2048, ENGINE, 1000, 1100, 120_000.0, 110_000.0, 5.0, 1.757e6, 1.234e-5),
            OptimizerRun(2048, CHANNELS_LAST, None, 1100, 240_000.0, 230_000.0, None, 1.757e6, 1.334e-5),
        ],
    )


def test_the_report_fits_into_a_hundred_columns():
    lines = render(full_report()).splitlines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for part in ("engine 16 and torch 16", "0.86", "0.83-0.89", "1.3e-07", "12.6 GB", "2.0e-04", "3.0e-04", "100"):
        assert part in text


def test_the_report_is_markdown_when_asked_for():
    lines = render(full_report(), markdown=True).splitlines()
    tables = [line for line in lines if line.startswith("|")]
    assert len([line for line in tables if set(line) <= set("|-: ")]) == 4
    assert lines[0].startswith("- network: VGG-19")


def test_json_has_what_follows_from_the_numbers():
    facts = json.loads(json.dumps(as_json(full_report())))
    speed = facts["speed"][0]
    assert speed["opponent"] == CONTIGUOUS
    assert speed["speed_ratio"]["highest"] == pytest.approx(110 / 123.456)
    assert speed["median_seconds"][CHANNELS_LAST] == 245.0
    assert facts["precision"][0]["median_gradient"] == 2e-4
    assert facts["runs"][0]["overhead"] == 10_000.0
    assert facts["runs"][0]["seconds_per_iteration"] == 120.0
    assert facts["runs"][1]["seconds_per_iteration"] is None


# ---- the command line ----


def test_by_default_the_engine_is_measured_alone(capsys):
    assert bench.main(QUICK) == 0
    captured = capsys.readouterr()
    assert "GFLOP/s\n" in captured.out
    assert "torch" not in captured.out
    assert "bench: 2/2 steps" in captured.err


def test_quiet_prints_the_result_only(capsys):
    assert bench.main([*QUICK, "--quiet", "--precision", "--iterations", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "Relative distance of float32" in captured.out
    assert "A whole run" in captured.out


@needs_torch
def test_everything_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "measure_memory", lambda _, size, program: Memory(size, program, 1, 2, 3, False, None))
    path = tmp_path / "numbers.json"
    options = ["--against", "torch", "--memory", "--precision", "--iterations", "2", "--markdown", "--json", str(path)]
    assert bench.main([*QUICK, "--size", "32,48", *options]) == 0
    captured = capsys.readouterr()
    assert captured.out.count("| engine") == 2 * 3 + 1
    # All steps that were announced were made, and no more.
    last = captured.err.splitlines()[-1].split()[1].rstrip(",")
    done, total = last.split("/")
    assert done == total
    facts = json.loads(path.read_text())
    assert [entry["size"] for entry in facts["speed"]] == [32, 48]
    assert facts["threads"] == {"engine": 1, "torch": 1}
    assert {entry["program"] for entry in facts["memory"]} == {ENGINE, CONTIGUOUS, CHANNELS_LAST}
    assert all(max(pair) < 1e-2 for entry in facts["speed"] for pair in entry["differences"].values())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_model_from_a_file(tmp_path, capsys):
    path = tmp_path / "model.onnx"
    assert models.main(["random", "vgg19", "--width", "0.1", "-o", str(path), "-q"]) == 0
    options = ["--model", str(path), "--size", "32", "--threads", "1", "--repeats", "1", "--memory", "-q"]
    assert bench.main([*options, "--preprocessing", "raw"]) == 0
    assert "network: model.onnx, average pooling" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "0"], "'0' is not at least 1"),
        (["--size", "32,x"], "'x' is not a whole number"),
        (["--size", "8"], "too small for the network"),
        (["--size", "1000000"], "choose a smaller --size"),
        (["--width", "0"], "above 0"),
        (["--repeats", "0"], "not at least 1"),
        (["--iterations", "0"], "not at least 1"),
        (["--threads", "0"], "not at least 1"),
        (["--pooling", "median"], "invalid choice: 'median'"),
        (["--against", "jax"], "invalid choice: 'jax'"),
        (["--model", "vgg17"], "unknown model 'vgg17'"),
        (["--model", "vgg19", "--width", "0.5"], "--width changes the random network only"),
        (["--json", "no/such/folder/numbers.json"], "does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(options, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [] if "--model" in options or "--width" in options else ["--width", "0.1"]
    assert exit_code(bench.main, [*small, *options, "--quiet"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
