"""The loss with its deepest terms' tangent: beside its definition, two objectives and an inner product."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from engine.lbfgs import l_bfgs
from engine.load import load_network
from engine.objective import Objective
from engine.optimize import minimize
from engine.regions import Region
from engine.saved import Saved
from engine.stylize import Settings, prepare
from engine.tangent import EVERY, FIRST, OFF, TangentLoss, deepest_layer, share_without
from kernels import Cpu
from tests.engine import models

BLOCKS = models.parameters((2, 2, 3, 3, 1), (4, 4, 5, 6, 6))
SIZE = (66, 75)
PHOTO, PAINTING, OTHER = (models.random_image(*SIZE, seed=seed) for seed in (1, 2, 3))
TOP = (np.arange(SIZE[0])[:, None] < 30) * np.ones(SIZE)

DEEPEST = "conv5_1"
OTHERS = {"conv1_1": 0.3, "conv2_1": 0.2, "conv3_1": 0.2, "conv4_1": 0.3}
# Random weights leave little of a gradient that deep, and these are what they make of it.
FAINT = OTHERS | {DEEPEST: 0.3}
STRONG = OTHERS | {DEEPEST: 1e8}
CONTENT_WEIGHT = 1e-2

CASES = {
    "a painting": {"style": PAINTING},
    "regions": {"regions": (Region(TOP, PAINTING), Region(1 - TOP, OTHER))},
    "statistics": {"style": PAINTING, "style_statistics": ("gram", "means", "shifted")},
    "strips": {"style": PAINTING, "piece": (16, None)},
    "strips that are kept": {"style": PAINTING, "piece": (16, None), "keep": OTHERS},
    "a waist": {"style": PAINTING, "piece": (16, None), "waist": "conv3_1"},
    "a waist behind the others": {"style": PAINTING, "piece": (16, None), "waist": "conv4_2"},
    "mirrored edges": {"style": PAINTING, "edges": "reflect"},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.save(models.vgg(BLOCKS), tmp_path_factory.mktemp("model") / "model.onnx")


@functools.cache
def network_of(path, dtype, threads):
    return load_network(path, dtype=dtype, threads=threads)


def objective_of(path, layers=None, dtype="float64", threads=1, **options):
    network = network_of(path, dtype, threads)
    options = {"style_layers": FAINT if layers is None else layers, "content_weight": CONTENT_WEIGHT} | options
    return Objective(network, PHOTO, **options)


def way_down(path, iterations, **options):
    """Return the images of a run."""
    seen = []
    objective = objective_of(path, dtype="float32", **options)
    minimize(objective, OTHER, "l-bfgs", iterations, callback=lambda told: seen.append(told.image))
    return seen


@pytest.fixture(scope="module")
def walk(path):
    return way_down(path, 140, style=PAINTING)


def by_definition(objective, without, walk, renewals):
    """Yield value and gradient of each image of a walk, from n(x), d(x_0) and its gradient."""
    at = None
    for number, image in enumerate(walk, 1):
        (f, f_gradient), (n, n_gradient) = objective(image), without(image)
        if number in renewals:
            at = image, f - n, f_gradient - n_gradient
        if number <= 2 * FIRST:  # until a tangent has been found good enough
            yield f, f_gradient
        else:
            x_0, d, slope = at
            yield n + d + float((slope * (image - x_0)).sum()), n_gradient + slope


def near(ours, theirs):
    return np.linalg.norm(ours - theirs) <= 1e-10 * np.linalg.norm(theirs)


@pytest.mark.parametrize("case", CASES)
def test_it_is_what_its_definition_says(path, case):
    options = CASES[case]
    objective, itself, without = (objective_of(path, layers, **options) for layers in (FAINT, FAINT, OTHERS))
    assert deepest_layer(objective, *SIZE) == DEEPEST
    loss = TangentLoss(objective, DEEPEST, PHOTO.shape, every=10)
    renewals = {4, 8, 16, 26, 36}
    walk, exact = way_down(path, 40, **options), set()
    for number, (image, (value, gradient)) in enumerate(
        zip(walk, by_definition(itself, without, walk, renewals), strict=True), 1
    ):
        own_value, own_gradient = loss(image)
        assert own_value == pytest.approx(value, rel=1e-12)
        assert near(own_gradient, gradient)
        total = sum(sum(terms.values()) for terms in objective.weighted(loss.terms).values())
        assert total == pytest.approx(own_value, rel=1e-12)
        assert {kind: list(names) for kind, names in loss.terms.items()} == objective.term_names
        if own_value == itself.value(image):
            exact.add(number)
    assert exact == {*range(1, 2 * FIRST + 1), *renewals}


def test_it_is_renewed_less_and_less_often(path, walk):
    objective = objective_of(path, OTHERS | {DEEPEST: 0.01}, dtype="float32", style=PAINTING)
    loss, renewed = TangentLoss(objective, DEEPEST, PHOTO.shape), []
    for number, image in enumerate(walk, 1):
        before = objective.evaluations
        loss(image)
        if objective.evaluations > before and number >= 2 * FIRST:
            renewed.append(number)
    assert (FIRST, EVERY) == (4, 50)
    assert renewed == [8, 16, 32, 64, 114]


def test_where_the_deepest_terms_count_the_loss_is_what_it_is(path, walk):
    objective, same = (objective_of(path, STRONG, style=PAINTING) for _ in range(2))
    loss = TangentLoss(objective, DEEPEST, PHOTO.shape)
    for image in walk[:40]:
        (value, gradient), (own_value, own_gradient) = same(image), loss(image)
        assert own_value == value
        assert loss.is_exact
        assert loss.terms == objective.terms == same.terms
        np.testing.assert_array_equal(own_gradient, gradient)


def test_how_much_it_may_be_off_is_a_part_of_what_an_evaluation_lowers_the_loss_by(path, walk):
    """The weight of the deepest layer is put on either side of where it is off by that much at the second renewal."""
    walk = walk[: 2 * FIRST]

    def ratio(weight):
        objective = objective_of(path, OTHERS | {DEEPEST: weight}, style=PAINTING)
        without = objective.without(DEEPEST)
        values = [objective(image)[0] for image in walk]
        x_0, x = walk[FIRST - 1], walk[-1]
        slope = objective(x_0)[1] - without(x_0)[1]
        (d_0, d) = (objective(image)[0] - without(image)[0] for image in (x_0, x))
        off = d - d_0 - float((slope * (x - x_0)).sum())
        return abs(off) / ((min(values[:FIRST]) - min(values)) / FIRST)

    low, high = 1.0, 1e8
    assert ratio(low) < OFF < ratio(high)
    for _ in range(30):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if ratio(middle) < OFF else (low, middle)
    for weight, is_exact in ((0.99 * low, False), (1.01 * high, True)):
        loss = TangentLoss(objective_of(path, OTHERS | {DEEPEST: weight}, style=PAINTING), DEEPEST, PHOTO.shape)
        for image in walk:
            loss(image)
        assert loss.is_exact == is_exact


@pytest.mark.parametrize("case", CASES)
def test_without_a_layer_an_objective_is_one_of_the_others(path, walk, case):
    objective, image = objective_of(path, STRONG, **CASES[case]), walk[0]
    value, gradient = objective(image)
    assert objective.value(image) == value
    without, others = objective.without(DEEPEST), objective_of(path, OTHERS, **CASES[case])
    (own_value, own_gradient), (other_value, other_gradient) = without(image), others(image)
    assert own_value == other_value == others.value(image)
    np.testing.assert_array_equal(own_gradient, other_gradient)
    assert without.term_names == others.term_names
    assert objective(image)[0] == value
    np.testing.assert_array_equal(objective(image)[1], gradient)


def test_which_layer_is_the_deepest(path):
    def found(**options):
        return deepest_layer(objective_of(path, style=PAINTING, **options), *SIZE)

    assert found() == DEEPEST
    assert found(style_layers=OTHERS) == "conv4_2"
    assert found(style_layers=OTHERS, content_layers=(DEEPEST,)) == DEEPEST
    assert found(style_layers=OTHERS, content_layers=("conv3_1",)) == "conv4_1"
    # One layer alone, and two behind the same convolution, leave nothing to save.
    assert found(style_layers=("conv4_2",)) is None
    assert found(style_layers=("conv4_2",), content_layers=("relu4_2",)) is None


def test_the_share_of_most_evaluations_is_counted_in_multiplications(path):
    """Convolutions (channels in and out) by block, at the size that is left after the poolings before it."""
    blocks = [[(3, 4), (4, 4)], [(4, 4), (4, 4)], [(4, 5), (5, 5), (5, 5)], [(5, 6), (6, 6), (6, 6)], [(6, 6)]]
    height, width = SIZE
    work = []
    for number, block in enumerate(blocks):
        positions = (height >> number) * (width >> number)
        work += [9 * channels * filters * positions for channels, filters in block]
    share = sum(work[:-2]) / sum(work)
    assert share_without(objective_of(path, style=PAINTING), DEEPEST, *SIZE) == share
    assert job_of(path).usual_share == share
    assert job_of(path, deepest_every=1).usual_share == 1
    assert job_of(path, optimizer="adam").usual_share == 1


def settings(**changes):
    options = {"style_layers": FAINT, "content_weight": CONTENT_WEIGHT, "iterations": 40, "change_tolerance": 0.0}
    return Settings(**{**options, **changes})


def job_of(path, threads=1, **changes):
    network = network_of(path, "float32", threads)
    return prepare(network, PHOTO, PAINTING, settings(**changes), OTHER)


def same(first, second):
    np.testing.assert_array_equal(first.image, second.image)
    assert (first.value, first.initial_value) == (second.value, second.initial_value)
    assert (first.iterations, first.evaluations, first.stop) == (second.iterations, second.evaluations, second.stop)


def test_a_run_comes_to_as_low_a_loss_and_tells_it_as_it_is(path):
    job, exact = job_of(path), job_of(path, deepest_every=1)
    assert (job.tangent_layer, exact.tangent_layer) == (DEEPEST, None)
    result, other = job.run(), exact.run()
    assert result.value == job.objective(result.image)[0] == exact.objective(result.image)[0]
    assert result.value < 1.05 * other.value < 0.2 * other.initial_value
    assert not np.array_equal(result.image, other.image)
    same(other, minimize(exact.objective, OTHER, "l-bfgs", 40))


@pytest.mark.parametrize("method", ["l-bfgs-b", "adam", "sgd"])
def test_other_optimizers_get_the_loss_itself(path, method):
    job = job_of(path, optimizer=method, iterations=12)
    assert job.tangent_layer is None
    same(job.run(), minimize(job.objective, OTHER, method, 12))


def test_what_it_is_told_of_an_iteration_adds_up(path):
    told = []
    job = job_of(path)
    job.run(lambda state: told.append((state.value, state.terms, state.evaluations)))
    assert len(told) == 40
    for value, terms, _ in told:
        total = sum(sum(of_kind.values()) for of_kind in job.objective.weighted(terms).values())
        # A search may end at another image than its last.
        assert total == pytest.approx(value, rel=1e-5) or total > value


@pytest.mark.parametrize("layers", [FAINT, STRONG])
def test_from_every_iteration_the_end_is_that_of_an_unbroken_run(path, layers):
    states = []

    def keep(told):
        states.append({name: np.array(array) for name, array in told.state().items()})

    unbroken = job_of(path, style_layers=layers).run()
    same(job_of(path, style_layers=layers).run(keep, resumable=True), unbroken)
    assert len(states) == 40
    assert ("tangent slope" in states[-1]) == (layers is FAINT)
    for state in states:
        same(job_of(path, style_layers=layers).run(state=state), unbroken)


def test_the_bits_are_the_same_at_any_thread_count(path):
    same(job_of(path, threads=1).run(), job_of(path, threads=3).run())


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("tangent counts", None),
        ("tangent counts", np.array([20.0, 16.0, 32.0, 1.0])),
        ("tangent counts", np.array([33, 16, 32, 1], np.int64)),
        ("tangent counts", np.array([20, 0, 32, 1], np.int64)),
        ("tangent lowest", np.array([np.nan, 1.0])),
        ("tangent values", None),
        ("tangent values", np.zeros(3)),
        ("tangent values", np.full(8, np.nan)),
        ("tangent slope", np.zeros((3, 4, 3))),
        ("tangent slope", np.full(PHOTO.shape, np.inf)),
    ],
)
def test_a_state_of_something_else_is_an_error_that_says_so(path, walk, name, array):
    objective = objective_of(path, style=PAINTING)
    loss = TangentLoss(objective, DEEPEST, PHOTO.shape)
    for image in walk[:20]:
        loss(image)
    state = loss.state()
    TangentLoss(objective, DEEPEST, PHOTO.shape, saved=Saved(dict(state), Cpu(1)))
    del state[name]
    if array is not None:
        state[name] = array
    with pytest.raises(ValueError, match="the saved state does not fit the run: its 'tangent"):
        TangentLoss(objective, DEEPEST, PHOTO.shape, saved=Saved(state, Cpu(1)))


def test_a_search_begins_again_from_what_the_function_is_by_now():
    """A tangent that is renewed may raise the value where the search stands: nothing is lower than it was."""
    calls, ends = [], []

    def raised(image, launch):
        calls.append(1)
        value = ((image - 3) ** 2 * np.linspace(1, 50, image.size).reshape(image.shape)).sum()
        gradient = 2 * (image - 3) * np.linspace(1, 50, image.size).reshape(image.shape)
        launch(gradient)
        return value + (1e4 if len(calls) > 12 else 0), gradient

    outcome = l_bfgs(
        Cpu(1), raised, lambda image, value, state: ends.append(value), np.zeros((4, 5, 3)), (0, 9), 5, 1e-13, 1e-6
    )
    assert outcome in ("gradient", "value", "stalled")
    assert min(ends) < 1e4 <= ends[-1] < 1e4 + 1e-6
