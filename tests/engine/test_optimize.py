"""The optimizers: they lower the loss within the bounds, keep the best image, and say why they stopped."""

import itertools
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from engine.errors import NonFiniteError
from engine.load import load_network
from engine.objective import Objective
from engine.optimize import METHODS, minimize
from engine.optimizers.run import reached
from kernels import Cpu
from tests.engine import models

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (4, 5, 3)
START = np.random.default_rng(0).uniform(100, 150, SHAPE)
TARGET = np.random.default_rng(1).uniform(60, 200, SHAPE)
# Beyond both bounds in places.
FAR_TARGET = np.random.default_rng(2).uniform(-200, 455, SHAPE)

FIRST_ORDER = [method for method in METHODS if not method.startswith("l-bfgs")]
LINE_SEARCH = [method for method in METHODS if method.startswith("l-bfgs")]


class Quadratic:
    """1/2 sum c (x - target)^2 with curvatures c from 1 to 10; remembers where it was asked."""

    def __init__(self, target=TARGET, scale=1.0, offset=0.0):
        self.target, self.scale, self.offset = target, scale, offset
        self.curvature = np.linspace(1, 10, target.size).reshape(target.shape)
        self.images = []

    def value(self, image):
        return self.scale * float((self.curvature * (image - self.target) ** 2).sum() / 2 + self.offset)

    def __call__(self, image):
        self.images.append(image.copy())
        return self.value(image), self.scale * self.curvature * (image - self.target)


class Valley(Quadratic):
    """Rosenbrock's bent valley in all neighboring values, with its minimum at 100: steps are often too long."""

    def value(self, image):
        z = image.ravel() / 100
        return float((100 * (z[1:] - z[:-1] ** 2) ** 2 + (1 - z[:-1]) ** 2).sum())

    def __call__(self, image):
        self.images.append(image.copy())
        z = image.ravel() / 100
        gradient = np.zeros_like(z)
        gradient[:-1] = -400 * z[:-1] * (z[1:] - z[:-1] ** 2) - 2 * (1 - z[:-1])
        gradient[1:] += 200 * (z[1:] - z[:-1] ** 2)
        return self.value(image), gradient.reshape(image.shape) / 100


class FailsAt(Quadratic):
    """A quadratic whose n-th evaluation does something else."""

    def __init__(self, evaluation, failure):
        super().__init__()
        self.evaluation, self.failure = evaluation, failure

    def __call__(self, image):
        result = super().__call__(image)
        return self.failure(result) if len(self.images) == self.evaluation else result


def interrupt(result):
    raise KeyboardInterrupt


def report(result):
    raise NonFiniteError("the loss is not finite: it began at 'here'")


def not_a_number(result):
    return np.nan, result[1]


def infinite(result):
    return np.inf, np.full_like(result[1], np.nan)


def spoilt_gradient(result):
    return result[0], np.full_like(result[1], np.nan)


def best_of(objective, images):
    return min(images, key=objective.value)


# ---- where they get to ----


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_lowered(method):
    objective = Quadratic()
    result = minimize(objective, START, method, iterations=60)
    assert result.initial_value == objective.value(START)
    assert result.value < 0.05 * result.initial_value
    assert result.value == objective.value(result.image)
    assert result.image.dtype == np.float64
    assert result.image.shape == SHAPE


@pytest.mark.parametrize("method", LINE_SEARCH)
@pytest.mark.parametrize("target", [TARGET, FAR_TARGET])
def test_the_minimum_within_the_bounds_is_found(target, method):
    result = minimize(Quadratic(target), START, method, iterations=200, value_tolerance=1e-14)
    np.testing.assert_allclose(result.image, np.clip(target, 0, 255), rtol=0, atol=1e-3)


@pytest.mark.parametrize("method", LINE_SEARCH)
def test_the_end_of_a_bent_valley_is_found(method):
    result = minimize(Valley(), START, method, iterations=2000, value_tolerance=1e-300, gradient_tolerance=1e-9)
    np.testing.assert_allclose(result.image, 100, rtol=0, atol=1e-2)


def test_same_bits_at_any_thread_count():
    start, target = (np.random.default_rng(seed).uniform(0, 255, (130, 140, 3)) for seed in range(2))
    results = []
    for threads in (1, 2, 3, 5):
        result = minimize(Quadratic(target), start, "l-bfgs", iterations=15, device=Cpu(threads))
        results.append(result.image.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_style_transfer_is_under_way_within_a_few_iterations(method, tmp_path):
    path = models.save(models.vgg(models.parameters((2, 2, 1))), tmp_path / "m.onnx")
    content, style, initial = (models.random_image(16, 14, seed=seed) for seed in range(3))
    objective = Objective(
        load_network(path, threads=1),
        content,
        style,
        content_layers=["conv2_2"],
        style_layers=["conv1_1", "conv2_1"],
        content_weight=1e-4,
        style_weight=1e-6,
    )
    result = minimize(objective, initial, method, iterations=30)
    assert result.value < 0.5 * result.initial_value
    assert objective(result.image)[0] == result.value
    assert objective.evaluations == result.evaluations + 1


@pytest.mark.parametrize("method", METHODS)
def test_the_image_returned_is_the_best_that_was_evaluated(method):
    objective = Quadratic()
    # Steps this long go past the minimum and back.
    result = minimize(objective, START, method, iterations=25, learning_rate=60)
    best = best_of(objective, objective.images)
    assert result.value == objective.value(best)
    np.testing.assert_array_equal(result.image, best)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_last_step_counts(iterations, method):
    """No image that the run arrived at is better than the one it returns."""
    objective, arrived = Quadratic(), []
    result = minimize(objective, START, method, iterations, learning_rate=1, callback=lambda s: arrived.append(s.image))
    assert len(arrived) == iterations
    assert result.value <= objective.value(best_of(objective, arrived))
    assert result.value < result.initial_value


@pytest.mark.parametrize("method", METHODS)
def test_the_same_run_twice_gives_the_same_bits(method):
    first, second = (minimize(Quadratic(), START, method, iterations=15) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    assert first.value == second.value
    assert first.evaluations == second.evaluations


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [2.0**20, 2.0**-20])
def test_the_unit_of_the_loss_does_not_matter(factor, method):
    """A power of two is exact, so that the whole path is the same to the bit."""
    plain, scaled = Quadratic(), Quadratic(scale=factor)
    expected, result = (minimize(objective, START, method, iterations=12) for objective in (plain, scaled))
    assert len(plain.images) == len(scaled.images)
    for one, other in zip(plain.images, scaled.images, strict=True):
        np.testing.assert_array_equal(one, other)
    assert result.value == factor * expected.value
    assert result.stop == expected.stop


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_any_other_unit_of_the_loss_changes_nothing_but_rounding(factor, method):
    plain, scaled = Quadratic(), Quadratic(scale=factor)
    for objective in (plain, scaled):
        minimize(objective, START, method, iterations=8)
    assert len(plain.images) == len(scaled.images)
    np.testing.assert_allclose(scaled.images, plain.images, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_starting_at_the_minimum_stays_there(method):
    result = minimize(Quadratic(), TARGET, method, iterations=5)
    np.testing.assert_array_equal(result.image, TARGET)
    assert result.value == result.initial_value == 0


# ---- steps in gray levels ----


@pytest.mark.parametrize("method", FIRST_ORDER)
@pytest.mark.parametrize("rate", [0.5, 3.0])
def test_the_learning_rate_is_in_gray_levels(rate, method):
    objective = Quadratic(scale=1e-9)
    minimize(objective, START, method, iterations=2, learning_rate=rate, bounds=None)
    step = abs(objective.images[1] - START)
    # Adam's first step is the same for all pixels, gradient descent's is the rate where the gradient is largest.
    assert step.max() == pytest.approx(rate, rel=1e-3)
    if method == "adam":
        assert step.min() == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize("method", LINE_SEARCH)
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_first_trial_step_is_at_most_one_gray_level(scale, method):
    objective = Quadratic(scale=scale)
    minimize(objective, START, method, iterations=1)
    assert 0 < abs(objective.images[1] - START).max() <= 1 + 1e-12


def test_momentum_carries_on():
    without, with_momentum = Quadratic(), Quadratic()
    minimize(without, START, "sgd", iterations=3, learning_rate=1, momentum=0.0)
    minimize(with_momentum, START, "sgd", iterations=3, learning_rate=1, momentum=0.5)
    np.testing.assert_array_equal(with_momentum.images[1], without.images[1])
    # x2 = x1 + 1/2 (x1 - x0) - rate * gradient at x1, and without momentum only the last term.
    carried = with_momentum.images[2] - without.images[2]
    np.testing.assert_allclose(carried, 0.5 * (without.images[1] - START), rtol=1e-9)


# ---- bounds ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bounds", [(0, 255), (90.5, 180.25), (-10, 300)])
def test_no_image_is_outside_the_bounds(bounds, method):
    objective, arrived = Quadratic(FAR_TARGET), []
    low, high = bounds
    initial = np.clip(START, low, high)
    result = minimize(
        objective, initial, method, 40, bounds, callback=lambda state: arrived.append(state.image), learning_rate=20
    )
    for image in (*objective.images, *arrived, result.image):
        assert image.min() >= low
        assert image.max() <= high
    assert result.image.min() == low
    assert result.image.max() == high


@pytest.mark.parametrize("method", METHODS)
def test_without_bounds_the_image_may_go_anywhere(method):
    result = minimize(Quadratic(FAR_TARGET), START, method, 100, bounds=None, learning_rate=20)
    assert result.image.min() < -100
    assert result.image.max() > 355


@pytest.mark.parametrize("method", METHODS)
def test_an_initial_image_outside_the_bounds_is_clipped_to_them(method):
    initial = np.random.default_rng(3).uniform(-100, 400, SHAPE)
    # The minimum lies outside: what is best there is not to be had.
    objective = Quadratic(initial)
    result = minimize(objective, initial, method, iterations=5)
    assert result.initial_value == 0
    assert result.evaluations == len(objective.images)
    for image in (*objective.images[1:], result.image):
        assert image.min() >= 0
        assert image.max() <= 255
    assert result.value == objective.value(result.image) > 0


# ---- what is left alone ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_the_initial_image_stays_as_it_is(dtype, method):
    initial = START.astype(dtype)
    copy = initial.copy()
    result = minimize(Quadratic(), initial, method, iterations=5)
    np.testing.assert_array_equal(initial, copy)
    assert not np.shares_memory(result.image, initial)


@pytest.mark.parametrize("method", METHODS)
def test_the_callback_may_do_what_it_likes_with_its_image(method):
    def spoil(state):
        state.image[:] = 0

    plain, spoilt = Quadratic(), Quadratic()
    expected = minimize(plain, START, method, iterations=6)
    result = minimize(spoilt, START, method, iterations=6, callback=spoil)
    np.testing.assert_array_equal(result.image, expected.image)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_values_in_memory_does_not_matter(method):
    objective = Quadratic()

    def column_wise(image):
        value, gradient = objective(image)
        return value, np.asfortranarray(gradient)

    expected = minimize(objective, START, method, iterations=6)
    result = minimize(column_wise, np.asfortranarray(START), method, iterations=6)
    np.testing.assert_allclose(result.image, expected.image, rtol=0, atol=1e-9)


# ---- iterations ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_iterations_and_evaluations_are_counted(iterations, method):
    objective, seen = Quadratic(), []
    result = minimize(objective, START, method, iterations, callback=seen.append)
    assert [state.iteration for state in seen] == list(range(1, iterations + 1))
    assert result.iterations == iterations
    assert result.evaluations == len(objective.images)
    assert seen[-1].evaluations <= result.evaluations
    assert all(one.evaluations < other.evaluations for one, other in itertools.pairwise(seen))
    assert (result.stop, result.stop_reason) == ("iterations", reached(iterations))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("function", [Quadratic, Valley])
def test_the_callback_is_told_the_loss_of_the_image_it_gets(function, method):
    objective, seen = function(), []
    minimize(objective, START, method, iterations=60, learning_rate=2, callback=seen.append)
    assert [state.value for state in seen] == [objective.value(state.image) for state in seen]


@pytest.mark.parametrize("method", METHODS)
def test_the_callback_is_told_the_best_loss_so_far(method):
    objective, seen = Quadratic(), []

    def callback(state):
        seen.append((state.best_value, min(map(objective.value, objective.images))))

    minimize(objective, START, method, iterations=8, learning_rate=60, callback=callback)
    assert [best for best, _ in seen] == [lowest for _, lowest in seen]


# ---- reasons to stop ----


@pytest.mark.parametrize("method", METHODS)
def test_the_callback_can_stop_the_run(method):
    result = minimize(Quadratic(), START, method, 50, callback=lambda state: state.iteration == 3)
    assert result.iterations == 3
    assert (result.stop, result.stop_reason) == ("callback", "stopped by the callback after 3 iterations")
    assert result.value < result.initial_value


@pytest.mark.parametrize("method", METHODS)
def test_a_callback_that_returns_nothing_goes_on(method):
    assert minimize(Quadratic(), START, method, 4, callback=lambda state: None).stop == "iterations"


@pytest.mark.parametrize("method", METHODS)
def test_an_interruption_in_the_objective_returns_the_best_image(method):
    objective = FailsAt(4, interrupt)
    result = minimize(objective, START, method, learning_rate=1)
    assert result.stop == "interrupted"
    assert result.stop_reason == f"interrupted after {result.iterations} iterations"
    best = best_of(objective, objective.images[:3])
    np.testing.assert_array_equal(result.image, best)
    assert result.value == objective.value(best) < result.initial_value


@pytest.mark.parametrize("method", METHODS)
def test_an_interruption_in_the_callback_returns_the_best_image(method):
    objective = Quadratic()

    def callback(state):
        if state.iteration == 3:
            raise KeyboardInterrupt

    result = minimize(objective, START, method, learning_rate=1, callback=callback)
    assert (result.stop, result.stop_reason) == ("interrupted", "interrupted after 3 iterations")
    assert result.value == objective.value(best_of(objective, objective.images))


FAILURES = [report, not_a_number, infinite, spoilt_gradient]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_loss_that_is_not_finite_ends_the_run_with_the_best_image(failure, method):
    objective = FailsAt(3, failure)
    result = minimize(objective, START, method, iterations=20, learning_rate=1)
    assert result.stop == "non-finite"
    assert "not finite" in result.stop_reason
    assert len(objective.images) == 3
    best = best_of(objective, objective.images[:2])
    np.testing.assert_array_equal(result.image, best)
    assert result.value == objective.value(best) < result.initial_value


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("failure", FAILURES)
def test_a_first_loss_that_is_not_finite_is_raised(failure, method):
    with pytest.raises(NonFiniteError, match="not finite"):
        minimize(FailsAt(1, failure), START, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("failure", FAILURES)
def test_what_is_returned_has_been_evaluated_even_if_only_the_clipped_start_was(failure, method):
    # The first evaluation is of the image as given, for the scale; the second of the image within the bounds.
    initial = np.random.default_rng(3).uniform(-100, 400, SHAPE)
    with pytest.raises(NonFiniteError):
        minimize(FailsAt(2, failure), initial, method, iterations=5)
    objective = FailsAt(3, failure)
    result = minimize(objective, initial, method, iterations=5)
    np.testing.assert_array_equal(result.image, np.clip(initial, 0, 255))
    assert result.value == objective.value(result.image)
    assert result.initial_value == objective.value(initial)
    assert result.evaluations == 2


@pytest.mark.parametrize("method", METHODS)
def test_an_interruption_before_any_value_passes_through(method):
    with pytest.raises(KeyboardInterrupt):
        minimize(FailsAt(1, interrupt), START, method)
    result = minimize(FailsAt(2, interrupt), START, method)
    assert (result.stop, result.evaluations) == ("interrupted", 1)
    np.testing.assert_array_equal(result.image, START)


@pytest.mark.parametrize("method", METHODS)
def test_a_complex_loss_is_refused(method):
    with pytest.raises(ValueError, match="the loss must be real, got a complex one"):
        minimize(lambda image: (complex(Quadratic().value(image)), image), START, method)


@pytest.mark.parametrize("method", METHODS)
def test_other_errors_of_the_objective_come_through(method):
    with pytest.raises(ZeroDivisionError):
        minimize(FailsAt(3, lambda result: 1 / 0), START, method)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_ends_when_the_image_hardly_changes(method):
    """After the first ten iterations whose mean change is below the tolerance, and not before."""
    seen = [START]

    def keep(state):
        if state.iteration % 10 == 0:
            seen.append(state.image)

    result = minimize(Valley(), START, method, 1000, callback=keep, change_tolerance=2.0, learning_rate=1.0)
    changes = [np.abs(new - old).mean() for old, new in itertools.pairwise(seen)]
    assert changes[-1] < 2.0 <= min(changes[:-1])
    assert (result.stop, result.iterations) == ("converged", 10 * len(changes))
    assert result.stop_reason == "converged: the picture changed by less than 2 gray levels in 10 iterations"


@pytest.mark.parametrize("method", LINE_SEARCH)
def test_convergence_of_the_gradient_is_named(method):
    result = minimize(Quadratic(), START, method, value_tolerance=1e-300, gradient_tolerance=1e-3)
    assert result.stop == "converged"
    assert result.stop_reason == "converged: the gradient fell below 0.001 of the first gradient"
    objective = Quadratic()
    first, last = (abs(objective(image)[1]).max() for image in (START, result.image))
    assert last <= 1e-3 * first


@pytest.mark.parametrize("method", LINE_SEARCH)
def test_convergence_of_the_loss_is_named(method):
    # Far from zero, so that its changes become small beside it.
    result = minimize(Quadratic(offset=1e6), START, method, value_tolerance=1e-4, gradient_tolerance=1e-12)
    assert result.stop == "converged"
    assert result.stop_reason == "converged: the loss changed by less than 0.0001 of its value"
    assert result.iterations < 30


@pytest.mark.parametrize("method", LINE_SEARCH)
def test_a_wrong_gradient_stalls_and_does_not_hang(method):
    objective = Quadratic()

    def uphill(image):
        value, gradient = objective(image)
        return value, -gradient

    result = minimize(uphill, START, method, iterations=100)
    assert result.stop == "stalled"
    assert result.stop_reason == f"the line search found no lower loss after {result.iterations} iterations"
    assert len(objective.images) < 100
    np.testing.assert_array_equal(result.image, START)
    assert result.value == result.initial_value


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_of_few_digits_ends_and_keeps_what_was_gained(method):
    """The rounding of a float32 network, exaggerated: the line search cannot tell two near images apart."""
    objective = Quadratic()

    def rounded(image):
        value, gradient = objective(image)
        return float(np.float16(value / 1e3)), gradient / 1e3

    result = minimize(rounded, START, method, iterations=300)
    assert len(objective.images) < 21 * 300
    assert result.value < 0.01 * result.initial_value
    assert result.stop in ("iterations", "converged", "stalled")


def test_of_a_tile_it_does_not_matter_where_it_begins():
    """Its steps have no grids, which would begin and end somewhere, and leave a seam there."""

    def smoothness(image):
        steps = [image - np.roll(image, 1, axis) for axis in (0, 1)]
        gradient = sum(step - np.roll(step, -1, axis) for axis, step in enumerate(steps))
        far = (image - 120) / 100
        return sum((step**2).sum() for step in steps) / 2 + (far**4).sum() / 4, gradient + far**3 / 100

    start, moved = np.random.default_rng(5).uniform(60, 190, (48, 40, 3)), {}
    for is_tile in (True, False):
        here, there = (
            minimize(smoothness, image, "l-bfgs", 8, is_tile=is_tile).image
            for image in (start, np.roll(start, (12, 20), (0, 1)))
        )
        moved[is_tile] = np.abs(np.roll(here, (12, 20), (0, 1)) - there).max()
    assert moved[True] < 1e-3 < moved[False]


# ---- arguments ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lbfgs"}, r"unknown optimizer 'lbfgs'; did you mean 'l-bfgs"),
        ({"method": "Adam"}, r"unknown optimizer 'Adam'; did you mean 'adam'\?"),
        ({"iterations": 0}, "iterations must be a whole number of at least 1, got 0"),
        ({"iterations": 2.5}, "iterations must be a whole number of at least 1, got 2.5"),
        ({"iterations": 2.0}, "iterations must be a whole number of at least 1, got 2.0"),
        ({"iterations": np.inf}, "iterations must be a whole number of at least 1, got inf"),
        ({"iterations": "ten"}, "iterations must be a whole number of at least 1, got ten"),
        ({"history": 5.0}, "history must be a whole number of at least 1, got 5.0"),
        ({"history": 1001}, "history must be at most 1000, got 1001"),
        ({"value_tolerance": np.nan}, "value_tolerance must be a finite number of at least 0, got nan"),
        ({"value_tolerance": -1e-9}, "value_tolerance must be a finite number of at least 0, got -1e-09"),
        ({"gradient_tolerance": np.inf}, "gradient_tolerance must be a finite number of at least 0, got inf"),
        ({"gradient_tolerance": 1j}, "gradient_tolerance must be a finite number of at least 0, got 1j"),
        ({"change_tolerance": -1}, "change_tolerance must be a finite number of at least 0, got -1"),
        ({"learning_rate": "fast"}, "learning_rate must be a finite number above 0, got fast"),
        ({"momentum": np.nan}, "momentum must be at least 0 and below 1, got nan"),
        ({"history": 0}, "history must be a whole number of at least 1, got 0"),
        ({"method": "adam", "learning_rate": 0}, "learning_rate must be a finite number above 0, got 0"),
        ({"method": "adam", "learning_rate": np.nan}, "learning_rate must be a finite number above 0, got nan"),
        ({"method": "sgd", "momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
        ({"method": "sgd", "momentum": -0.1}, "momentum must be at least 0 and below 1, got -0.1"),
        ({"bounds": (255, 0)}, r"the lower bound must be below the upper one, got \(255, 0\)"),
        ({"bounds": (7, 7)}, r"the lower bound must be below the upper one, got \(7, 7\)"),
        ({"bounds": (np.nan, 7)}, "the lower bound must be below the upper one, got"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_evaluated(arguments, message):
    objective = Quadratic()
    with pytest.raises(ValueError, match=message):
        minimize(objective, START, **arguments)
    assert not objective.images


def test_the_value_reported_is_that_of_the_image_even_where_noise_uses_up_a_search():
    # A case in which a search ends with an earlier point than the last that it tried.
    random = np.random.default_rng(41)
    curvature, center = 10 ** random.uniform(-2, 2, (3, 3, 3)), random.uniform(0, 255, (3, 3, 3))
    start = random.uniform(0, 255, (3, 3, 3))
    values, first = {}, (curvature * (start - center) ** 2).sum() / 2

    def noisy(image):
        key = zlib.crc32(image.tobytes())
        noise = np.random.default_rng(key).standard_normal(image.shape)
        gradient = curvature * (image - center)
        value = float((gradient * (image - center)).sum() / 2) + 1e-6 * first * (key % 1000) / 1000
        values[image.tobytes()] = value
        return value, gradient + 1e-3 * np.abs(curvature * (start - center)).max() * noise

    seen = []
    minimize(noisy, start, "l-bfgs", 80, callback=seen.append, value_tolerance=1e-300, gradient_tolerance=1e-300)
    for state in seen:
        assert state.value == pytest.approx(values[state.image.tobytes()], rel=1e-15)


_THREADS_OF_BLAS = """
import numpy as np
from threadpoolctl import threadpool_info
from engine.optimize import minimize
from kernels import Cpu

with Cpu.computing():  # as where an Objective is made, before scipy's BLAS is there
    np.ones((8, 8)) @ np.ones((8, 8))
found = []
minimize(
    lambda x: ((x**2).sum(), 2 * x),
    np.full((8, 8, 3), 9.0),
    METHOD,
    iterations=2,
    callback=lambda _: found.extend(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"),
)
print(sorted(set(found)))
"""


@pytest.mark.parametrize("method", METHODS)
def test_no_library_s_blas_has_more_than_one_thread_in_a_run(method):
    """scipy has a BLAS of its own, which comes with the optimizer: it would round otherwise with other threads."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", _THREADS_OF_BLAS.replace("METHOD", repr(method))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    assert done.stdout.strip() == "[1]"
