"""The checks of gradients: they pass where the gradient is right, fail where it is not, and say by how much."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.gradcheck.checks import (
    ADJOINT,
    COMPLEX_STEP,
    DEFINED_VALUE,
    DEFINITION,
    DIFFERENCES,
    TOLERANCES,
    Check,
    check_layers,
    check_losses,
    check_objective,
)
from engine.gradcheck.definition import features_by_definition, loss_by_definition
from engine.gradcheck.kinks import decisions, held_objective, kink_ledger
from engine.gradcheck.measures import Agreement, agreement, central_difference, complex_step, random_directions
from engine.gradcheck.path import path_study
from engine.gradcheck.precision import precision_study
from engine.gradcheck.problem import in_precision, visits
from engine.gradcheck.steps import fit_steps, step_study
from engine.graph import Node
from engine.ops import Add, Affine, AveragePool, Concat, Conv, MaxPool, Pad, Relu
from engine.pieces import EDGES
from engine.preprocessing import PREPROCESSING
from kernels.geometry import Window
from tools.check_gradients import faults as faults_module
from tools.check_gradients.confidence import detection_study
from tools.check_gradients.fault_study import awkward_problem, fault_study, with_controls
from tools.check_gradients.faults import FAULTS, NO_FAULT, Fault
from tools.check_gradients.study import Plan, run_study


@pytest.fixture(scope="module")
def problem():
    return awkward_problem()


@pytest.fixture(scope="module")
def without_ties(problem):
    """An image without the flat part: which of several equal responses is the largest, float32's rounding decides."""
    return replace(problem, image=np.random.default_rng(8).uniform(0, 255, problem.image.shape))


# ---- measures ----


def test_agreement_tells_error_angle_and_length():
    found = agreement(np.array([3.0, 0.0]), np.array([0.0, 4.0]))
    assert found == Agreement(error=5 / 4, cosine=0.0, ratio=3 / 4)
    assert agreement(0.0, 0.0) == Agreement(0.0, 1.0, 1.0)
    assert agreement(1.0, 0.0).error == np.inf
    with pytest.raises(ValueError, match="shape"):
        agreement(np.zeros(3), np.zeros(4))


@pytest.mark.parametrize(
    ("factor", "name"), [(2.0, "2"), (-1.0, "-1"), (1 / 255, "1/255"), (77.0, "M_l"), (3.25, "3.25")]
)
def test_a_wrong_factor_is_named(factor, name):
    expected = np.random.default_rng(0).standard_normal(50)
    assert agreement(factor * expected, expected).factor({"M_l": 77.0}) == name


def test_no_factor_is_named_where_there_is_none():
    expected, other = np.random.default_rng(0).standard_normal((2, 50))
    assert agreement(expected, expected).factor() is None
    assert agreement(expected + 1e-3 * other, expected).factor() is None


def test_the_complex_step_is_exact_and_differences_have_the_second_order():
    x, d = np.random.default_rng(0).standard_normal((2, 30))
    exact = float((np.cos(x) * np.exp(np.sin(x)) * d).sum())

    def function(y):
        return np.exp(np.sin(y)).sum()

    assert complex_step(function, x, d) == pytest.approx(exact, rel=1e-15)
    coarse, fine = (central_difference(function, x, d, step) - exact for step in (2e-3, 1e-3))
    assert coarse / fine == pytest.approx(4, rel=1e-3)


# ---- the definition ----

WINDOWS = [
    Window((3, 3), pads=(1, 1, 1, 1)),
    Window((3, 2), strides=(2, 1), pads=(0, 1, 2, 0)),
    Window((3, 3), strides=(2, 2), dilations=(2, 1), pads=(2, 2, 2, 2)),
    Window((3, 3), strides=(2, 2), auto_pad="SAME_UPPER"),
    Window((2, 4), auto_pad="SAME_UPPER"),
    Window((2, 4), auto_pad="SAME_LOWER"),
    Window((2, 3), strides=(3, 2), pads=(1, 1, 1, 1), auto_pad="VALID"),
    Window((2, 2), strides=(2, 2), ceil_mode=True),
    Window((3, 3), strides=(2, 2), pads=(1, 1, 1, 1), ceil_mode=True),
]


MODES = ("constant", "reflect", "edge")


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", ["conv", "groups", "average", "average with pads", "max", "relu", "affine", *MODES])
def test_the_definition_and_the_kernels_agree(problem, window, kind):
    random = np.random.default_rng(0)
    operator = {
        "conv": lambda: Conv(random.standard_normal((*window.kernel, 20, 6)), random.standard_normal(6), window),
        "groups": lambda: Conv(random.standard_normal((*window.kernel, 5, 8)), None, window, group=4, relu=True),
        "average": lambda: AveragePool(window),
        "average with pads": lambda: AveragePool(window, count_include_pad=True),
        "max": lambda: MaxPool(window),
        "relu": Relu,
        "affine": lambda: Affine(random.standard_normal(20), random.standard_normal(20)),
        **{mode: lambda mode=mode: Pad(window.pads, mode) for mode in MODES},
    }[kind]()
    first = replace(problem.network.nodes[0], operator=replace(problem.network.nodes[0].operator, relu=False))
    network = replace(
        problem.network,
        nodes=(first, Node("tested", operator, first.output, "tested")),
        outputs={"tested": "tested"},
    )
    expected = features_by_definition(network, problem.image, ["tested"])["tested"]
    found = network.forward(problem.image, ["tested"]).features["tested"]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_definition_of_the_loss_can_be_differentiated(problem):
    # Without flat parts: where responses are equal the maximum has no derivative.
    x, d = np.random.default_rng(0).uniform(0, 255, (2, *problem.image.shape))
    loss = loss_by_definition(problem)
    assert complex_step(loss, x, d) == pytest.approx(central_difference(loss, x, d, 1e-7), rel=1e-5)


# ---- checks ----


def test_everything_passes_on_the_right_engine_with_every_method(problem):
    random = np.random.default_rng(1)
    checks = check_layers(problem, 3, random) + check_losses(problem, 3, random) + check_objective(problem, 3, random)
    assert [check for check in checks if not check.passed] == []
    assert {check.method for check in checks} == {ADJOINT, COMPLEX_STEP, DIFFERENCES, DEFINED_VALUE, DEFINITION}
    linear = {check.subject for check in checks if check.method == ADJOINT}
    assert linear == {node.label for node in problem.network.nodes if not isinstance(node.operator, MaxPool)}


def test_each_term_alone_passes(problem):
    parts = problem.parts()
    assert list(parts) == [
        "content conv2_2", "content conv3_1", "style conv1_1", "style conv2_2", "style conv3_1"
    ]  # fmt: skip
    for name, part in parts.items():
        checks = check_objective(part, 2, np.random.default_rng(0), subject=name)
        assert all(check.passed for check in checks)


def test_a_network_with_branches_passes_and_its_junctions_are_checked(problem):
    random = np.random.default_rng(3)

    def convolution(label, channels, filters, source):
        weight = random.standard_normal((3, 3, channels, filters)) / np.sqrt(4.5 * channels)
        bias = random.uniform(-0.2, 0.4, filters)
        return Node(label, Conv(weight, bias, Window((3, 3), pads=(1, 1, 1, 1)), relu=True), source, label)

    nodes = (
        convolution("stem", 3, 18, "image"),
        convolution("left", 18, 18, "stem"),
        convolution("right", 18, 18, "stem"),
        Node("sum", Add(), "left", "sum", ("stem", "right")),
        Node("joined", Concat(), "sum", "joined", ("left",)),
        convolution("top", 36, 5, "joined"),
    )
    names = ("stem", "left", "right", "top")
    branching = replace(
        problem,
        network=replace(problem.network, nodes=nodes, outputs={name: name for name in names}),
        content_layers=("left",),
        style_layers=("stem", "top"),
    )
    checks = check_layers(branching, 3, random) + check_objective(branching, 3, random)
    assert [check for check in checks if not check.passed] == []
    assert {("Add 'sum'", ADJOINT), ("Concat 'joined'", ADJOINT)} <= {(check.subject, check.method) for check in checks}
    assert {check.method for check in checks} >= {DEFINED_VALUE, DEFINITION}


def test_a_reference_that_differs_fails_and_is_named(problem):
    def doubled(of):
        value, gradient = of.objective()(of.image)
        return value, gradient / 2

    (torch,) = [c for c in check_objective(problem, 1, np.random.default_rng(0), doubled) if c.method == "PyTorch"]
    assert not torch.passed
    assert torch.factor == "2"


def test_an_error_that_is_not_a_number_does_not_pass():
    assert not Check("x", COMPLEX_STEP, Agreement(float("nan"), 1.0, 1.0), TOLERANCES[COMPLEX_STEP]).passed


# ---- kinks ----


def test_with_decisions_held_the_loss_is_the_same_at_the_image_and_a_polynomial_around_it(problem):
    smooth, objective, x = held_objective(problem), problem.objective(), problem.image
    assert smooth(x)[0] == pytest.approx(objective(x)[0], rel=1e-14)
    np.testing.assert_allclose(smooth(x)[1], objective(x)[1], rtol=1e-10, atol=1e-18)
    d = np.random.default_rng(0).standard_normal(x.shape)
    # Of the fourth degree along a line: its fifth difference vanishes, however long the steps are.
    values = np.array([smooth(x + 50 * step * d)[0] for step in range(6)])
    assert abs(np.diff(values, 5)[0]) < 1e-10 * np.abs(values).max()
    kinked = np.array([objective(x + 50 * step * d)[0] for step in range(6)])
    assert abs(np.diff(kinked, 5)[0]) > 1e-6 * np.abs(kinked).max()


def test_with_the_order_held_a_sliced_loss_and_its_gradient_are_the_same_at_the_image(problem):
    sliced = replace(with_controls(problem), style_statistics={"sliced": 1.0})
    smooth, objective, x = held_objective(sliced), sliced.objective(), sliced.image
    assert smooth(x)[0] == pytest.approx(objective(x)[0], rel=1e-12)
    np.testing.assert_allclose(smooth(x)[1], objective(x)[1], rtol=1e-9, atol=1e-16)


def test_decisions_are_those_of_each_relu_and_maximum(problem):
    taken = decisions(problem.network, problem.image, problem.layers)
    assert set(taken) == {"conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "conv3_1"}
    for visit in visits(problem.network, problem.image, problem.layers):
        if isinstance(visit.node.operator, Conv):
            np.testing.assert_array_equal(taken[visit.node.output], visit.output > 0)


def test_the_ledger_counts_the_decisions_that_change(problem):
    ledger = kink_ledger(problem, (1e-9, 1.0, 30.0), 3, np.random.default_rng(0))
    small, middle, large = ledger.steps
    assert small.changed <= middle.changed < large.changed
    assert large.error_with > large.error_held
    assert small.directions_without + small.directions_with == 3
    assert [layer.label for layer in ledger.layers] == [
        node.label for node in problem.network.nodes if not isinstance(node.operator, AveragePool)
    ]
    for step in ledger.steps:
        assert sum(layer.changed[step.step] for layer in ledger.layers) == pytest.approx(step.changed)


def test_the_ledger_counts_inputs_that_are_exactly_zero(problem):
    first, *others = problem.network.nodes
    without_bias = replace(first, operator=replace(first.operator, bias=np.zeros(20)))
    black = replace(
        problem,
        network=replace(problem.network, nodes=(without_bias, *others), preprocessing=PREPROCESSING["raw"]),
        image=np.zeros_like(problem.image),
    )
    layers = kink_ledger(black, (1e-3,), 1, np.random.default_rng(0)).layers
    assert layers[0].at_zero == layers[0].count
    assert layers[1].at_zero == 0


# ---- step sizes ----


def test_the_fit_finds_the_law_that_errors_follow():
    steps = np.logspace(-10, 2, 37)
    noise = np.exp(0.2 * np.random.default_rng(0).standard_normal(37))
    study = fit_steps("law", steps, (3e-7 * steps**2 + 2e-14 / steps) * noise)
    assert study.order == pytest.approx(2, abs=0.05)
    assert study.truncation == pytest.approx(3e-7, rel=0.3)
    assert study.rounding == pytest.approx(2e-14, rel=0.3)
    assert study.fitted_step == pytest.approx((2e-14 / (2 * 3e-7)) ** (1 / 3), rel=0.3)


@pytest.mark.slow
def test_central_differences_of_the_objective_have_the_second_order_away_from_kinks(problem):
    calls = []
    steps = np.logspace(-10, 2, 25)
    studies = step_study(problem, steps, 3, np.random.default_rng(0), lambda: calls.append(0))
    by_name = {study.name: study for study in studies}
    assert len(calls) == 4 * 25
    assert 1.9 <= by_name["float64, decisions held"].order <= 2.1
    assert by_name["float64, decisions held"].best_error < 1e-8
    assert 1e-6 < by_name["float32, decisions held"].best_error < 1e-2
    # The kinks add to the error between rounding and truncation, and never take away from the best.
    assert by_name["float64"].best_error >= by_name["float64, decisions held"].best_error / 3


# ---- precision, path, confidence ----


def test_precision_is_measured_at_every_operator_both_ways(without_ties):
    direct, fast = precision_study(without_ties)
    assert [layer.label for layer in direct.layers] == [node.label for node in without_ties.network.nodes]
    for layer in direct.layers:
        assert 1e-9 < layer.forward < 1e-5
        assert 1e-9 < layer.backward < 1e-2
    assert direct.gradient < 1e-2
    assert fast.name == "float32, fast"
    assert 0 < fast.value < 1e-5


def test_in_precision_keeps_the_weights(problem):
    single = in_precision(problem.network, "float32", "auto")
    assert single.dtype == np.float32
    assert single.convolution == "auto"
    np.testing.assert_array_equal(
        single.nodes[0].operator.weight, problem.network.nodes[0].operator.weight.astype(np.float32)
    )


def test_the_checks_are_repeated_along_a_run(problem):
    steps = []
    stations = path_study(problem, (0, 2, 5), 2, np.random.default_rng(0), lambda: steps.append(0))
    assert [station.iteration for station in stations] == [0, 2, 5]
    assert len(steps) == 5 + 3
    assert stations[0].value > stations[1].value > stations[2].value
    assert all(check.passed for station in stations for check in station.checks)


@pytest.mark.slow
def test_random_directions_notice_small_faults_by_the_law():
    random = np.random.default_rng(0)
    gradient = random.standard_normal(20_000)
    for one in detection_study(gradient, (1.0, 1e-1, 1e-2), 3e-2, 4000, random):
        assert one.simulated == pytest.approx(one.one_direction, abs=0.03)
        assert one.one_coordinate == one.fraction
        missed = (1 - one.one_direction) ** one.directions if one.one_direction < 1 else 0.0
        assert missed <= 1.001e-6


def test_directions_reach_every_coordinate():
    assert np.all(random_directions((4, 5, 3), 2, np.random.default_rng(0)) != 0)


# ---- faults ----


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in fault_study()}


@pytest.mark.slow
def test_every_fault_is_noticed(rows):
    assert len(FAULTS) >= 38
    assert len(rows) == len(FAULTS)
    assert [name for name, row in rows.items() if not row.caught] == []


@pytest.mark.slow
def test_without_a_fault_nothing_is_noticed_but_by_the_usual_check():
    others = (replace(NO_FAULT, edges=edges) for edges in EDGES)
    beyond = (replace(NO_FAULT, beyond=True, edges=edges) for edges in ("zero", "wrap"))
    rows = fault_study(faults=(*others, *beyond, replace(NO_FAULT, waist="conv2_2")))
    for row in rows:
        assert not row.caught
        assert row.usual < 0.5
    assert rows[0].usual > 0


@pytest.mark.slow
def test_what_is_wrong_in_value_and_gradient_alike_is_noticed_by_the_definition_only(rows):
    for name in (
        "kernel flipped in both directions",
        "bias dropped",
        "SAME padding on the wrong side",
        "mean in the wrong order",
    ):
        assert [check for check, noticed in rows[name].noticed.items() if noticed] == ["whole: definition"]


@pytest.mark.slow
def test_the_usual_check_misses_more(rows):
    assert sum(row.usual < 0.9 for row in rows.values()) >= 8


@pytest.mark.slow
def test_a_wrong_scale_is_named(rows):
    assert rows["scale 1/255 missing in the gradient"].factor == "255"


@pytest.mark.slow
def test_the_engine_is_right_again_afterward(problem, rows):
    right = [getattr(owner, name) for fault in FAULTS for owner, name, _ in fault.places]
    fault_study(faults=FAULTS[:3])
    assert [getattr(owner, name) for fault in FAULTS for owner, name, _ in fault.places] == right
    with pytest.raises(ZeroDivisionError):
        fault_study(faults=(Fault("breaks", ((faults_module.losses, "gram_matrix", lambda _: lambda *a: 1 / 0),)),))
    assert all(check.passed for check in check_objective(problem, 1, np.random.default_rng(0)))


# ---- the whole study ----


@pytest.mark.slow
def test_a_whole_study_passes_and_can_be_written_as_json(without_ties):
    plan = Plan(
        directions=2,
        steps=tuple(np.logspace(-8, 2, 11)),
        kink_steps=(1e-3,),
        iterations=(0, 1),
        trials=50,
        faults=FAULTS[:2],  # the others are put in by the study of faults alone
    )
    doing = []
    study = run_study(without_ties, plan, on_step=doing.append)
    assert len(doing) == plan.work
    assert study.failures() == []
    read = json.loads(json.dumps(study.as_json()))
    assert read["failures"] == []
    assert [row["name"] for row in read["faults"]] == [fault.name for fault in FAULTS[:2]]
    assert read["checks"][0]["agreement"]["error"] < 1e-10
    wrong = replace(study.checks[0], agreement=Agreement(1.0, 1.0, 2.0), factor="2")
    broken = replace(study, checks=(wrong,), faults=(replace(study.faults[0], noticed={}),))
    first, second = broken.failures()
    assert "differs by 1, allowed are 1e-13 (a factor 2)" in first
    assert "was noticed by no check" in second
