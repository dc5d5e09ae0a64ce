"""Which content weights suit: found by small runs, for the picture's own size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.calibrate import ITERATIONS, KEPT, Pilot, crossing, pilot_settings, spread, suggest_content_weights
from engine.load import load_network
from engine.network import Network
from engine.objective import Objective
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.stylize import Settings, prepare
from tests.engine.test_multiscale import image
from tools.models.random_vgg import random_vgg

CONTENT, STYLE = image(1, 36, 48), image(2, 40, 32)


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Network:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    write_onnx(path, random_vgg("vgg19", width=0.05), preprocessing_metadata(PREPROCESSING["caffe"]))
    return load_network(path, threads=1)


def suggested(network, area=1.0, style=STYLE, count=4):
    """Return the weights suggested after three iterations each, and the small runs in order of weight."""
    small, pilots = pilot_settings(Settings(iterations=3)), []

    def prepare_pilot(weight):
        return prepare(network, CONTENT, style, replace(small, content_weight=weight))

    weights = suggest_content_weights(prepare_pilot, CONTENT, area, count, pilots.append)
    return weights, sorted(pilots, key=lambda pilot: pilot.content_weight)


def test_the_weights_go_from_the_style_to_the_content(network):
    weights, pilots = suggested(network)
    assert weights == sorted(set(weights))
    assert len(weights) == 4
    assert [pilot.kept for pilot in pilots] == sorted(pilot.kept for pilot in pilots)
    assert pilots[0].kept <= KEPT[0]
    assert pilots[0].missed < pilots[-1].missed


def test_a_larger_picture_gets_the_same_runs_and_less_weight_in_proportion(network):
    (_, pilots), (_, of_large) = suggested(network), suggested(network, 4.0)
    assert [pilot.kept for pilot in of_large] == [pilot.kept for pilot in pilots]
    assert [4 * pilot.content_weight for pilot in of_large] == [pilot.content_weight for pilot in pilots]


def test_a_style_that_is_the_content_image_s_own_and_one_weight_are_errors(network):
    with pytest.raises(ValueError, match="the content image fits the style already"):
        suggested(network, style=CONTENT)
    with pytest.raises(ValueError, match="count must be at least 2, got 1"):
        suggested(network, count=1)


def test_an_interruption_is_not_taken_for_a_small_run(network, monkeypatch):
    begin, calls = Objective.begin, []

    def interrupted(self, image):
        calls.append(1)
        if len(calls) == 12:  # in the first run: the one before has four evaluations, and two around it
            raise KeyboardInterrupt
        return begin(self, image)

    monkeypatch.setattr(Objective, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suggested(network)
    assert len(calls) == 12


def test_small_runs_have_no_more_iterations_than_the_picture():
    large = Settings(iterations=1000, optimizer="adam", learning_rate=3.0, seed=5)
    assert pilot_settings(large) == Settings(iterations=ITERATIONS, optimizer="l-bfgs", seed=5)
    assert pilot_settings(Settings(iterations=7)).iterations == 7


def test_between_two_runs_the_weight_is_read_off_a_straight_line_over_its_logarithm():
    pilots = [Pilot(1e-4, 0.05, 0.1), Pilot(1e-2, 0.25, 0.2), Pilot(1.0, 0.8, 0.5)]
    assert crossing(pilots, 0.15) == pytest.approx(1e-3)
    assert crossing(pilots, 0.01) == 1e-4
    assert crossing(pilots, 0.9) == 1.0


def test_the_numbers_have_one_digit_unless_they_are_too_near_to_each_other():
    assert spread(1e-6, 1e-3, 4) == [1e-6, 1e-5, 1e-4, 1e-3]
    near = spread(1.0, 1.1, 3)
    np.testing.assert_allclose(near, [1.0, 1.05, 1.1], rtol=5e-3)
    assert len(set(near)) == 3
