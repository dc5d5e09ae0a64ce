"""What an optimizer knows of itself: name, defaults, memory, cost."""

import dataclasses

import pytest

from engine.optimize import HISTORIES, LEARNING_RATES, METHODS
from engine.optimizers import LBFGS, LBFGSB, OPTIMIZERS, Adam, Momentum, optimizer_of
from engine.stylize import Settings, optimizer_memory


def test_the_methods_are_the_optimizers_names():
    assert METHODS == ("l-bfgs-b", "l-bfgs", "adam", "sgd")
    assert [OPTIMIZERS[method].method for method in METHODS] == list(METHODS)


def test_a_default_stands_in_the_optimizer_alone():
    assert {"l-bfgs-b": LBFGSB().history, "l-bfgs": LBFGS().history} == HISTORIES
    assert {"adam": Adam().learning_rate, "sgd": Momentum().learning_rate} == LEARNING_RATES


def test_an_optimizer_takes_the_options_that_it_has():
    assert optimizer_of("l-bfgs", history=7, learning_rate=3.0, momentum=None) == LBFGS(history=7)
    assert optimizer_of("sgd", history=7, learning_rate=3.0, momentum=None) == Momentum(learning_rate=3.0)
    assert optimizer_of("adam", history=None, learning_rate=None) == Adam()


@pytest.mark.parametrize("method", METHODS)
def test_its_vectors_are_its_memory(method):
    settings = Settings(optimizer=method)
    of_pixel = optimizer_memory(1, 1, settings)
    assert of_pixel == (OPTIMIZERS[method]().vectors + 1) * 3 * 8  # and the image ten iterations ago
    assert optimizer_memory(1, 1, dataclasses.replace(settings, change_tolerance=0.0)) == of_pixel - 3 * 8
    assert optimizer_memory(20, 30, settings) == 600 * of_pixel
    more = optimizer_memory(1, 1, dataclasses.replace(settings, history=100))
    assert (more > of_pixel) == (method in HISTORIES)


@pytest.mark.parametrize("method", METHODS)
def test_its_own_time_is_told_by_value_of_the_image(method):
    start, each = OPTIMIZERS[method].seconds_per_value
    assert 0 <= start < 1e-4
    assert 0 < each < 1e-5
