"""Options that do nothing beside the others, and inputs that are not what they seem."""

import dataclasses

import numpy as np
import pytest

from kernels.cpu.threads import available_cores
from tools.cli.notes import about_pictures, check_style, idle_options, idle_threads
from tools.cli.options import Options
from tools.media.images import Picture
from tools.models.cache import DRAFT_FILE
from tools.models.loading import about_preprocessing, load

OPTIONS = Options(model="draft")


def picture(height: int, width: int, value: float = 0.0) -> Picture:
    return Picture(np.full((height, width, 3), value, np.float32), None)


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"learning_rate": 3.0}, "--learning-rate"),
        ({"history": 5, "optimizer": "adam"}, "--history"),
        ({"history": 5, "optimizer": "sgd"}, "--history"),
        ({"blend": (2.0,)}, "--blend"),
        ({"seed": 3}, "the seed"),
        ({"learning_rate": 3.0, "optimizer": "adam"}, None),
        ({"history": 5, "optimizer": "l-bfgs-b"}, None),
        ({"seed": 3, "init": "noise"}, None),
        ({}, None),
    ],
)
def test_an_option_that_does_nothing_beside_the_others_is_named(given, option):
    notes = idle_options(dataclasses.replace(OPTIONS, **given), 1)
    assert [note.partition(" does nothing")[0] for note in notes] == ([] if option is None else [option])


def test_weights_of_several_paintings_do_something():
    assert idle_options(dataclasses.replace(OPTIONS, blend=(2.0, 1.0)), 2) == []


def test_more_threads_than_cores_are_said_to_do_no_more_and_are_not_started():
    cores = available_cores()
    assert idle_threads(None) == idle_threads(cores) == []
    assert f"--threads {cores}:" in idle_threads(cores + 1)[0]
    assert load(OPTIONS, DRAFT_FILE, 1000).place == load(OPTIONS, DRAFT_FILE, cores).place


def test_a_photograph_that_is_enlarged_is_said_to_be():
    styles = [picture(9, 9)]
    assert "has 1x1 pixels, it is enlarged to 64x48" in about_pictures(OPTIONS, picture(1, 1), styles, (48, 64))[0]
    assert about_pictures(OPTIONS, picture(96, 128), styles, (48, 64)) == []


def test_a_photograph_that_nobody_sees_is_said_to_be_none():
    clear = Picture(np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), np.float32))
    assert "wholly transparent" in about_pictures(OPTIONS, clear, [picture(9, 9, 2.0)], (9, 9))[0]


def test_a_photograph_that_is_its_own_painting_is_said_to_be():
    same, other = picture(9, 9, 1.0), picture(9, 9, 2.0)
    assert "are the same picture" in about_pictures(OPTIONS, same, [picture(9, 9, 1.0)], (9, 9))[0]
    noise = dataclasses.replace(OPTIONS, init="noise")
    assert about_pictures(noise, same, [same], (9, 9)) == []
    assert about_pictures(OPTIONS, same, [other], (9, 9)) == []


@pytest.mark.parametrize("given", [{"style_weight": 0.0}, {"style_layers": {"conv1_1": 0.0}}])
def test_without_style_a_picture_of_the_photograph_is_refused(given):
    with pytest.raises(ValueError, match="begins with the photograph: nothing would change"):
        check_style(dataclasses.replace(OPTIONS, **given))
    check_style(dataclasses.replace(OPTIONS, init="noise", **given))


@pytest.mark.parametrize(("preprocessing", "contradicts"), [("torch", True), ("caffe", False), (None, False)])
def test_an_input_that_contradicts_the_model_is_said_to(preprocessing, contradicts):
    notes = about_preprocessing(dataclasses.replace(OPTIONS, preprocessing=preprocessing), DRAFT_FILE)
    assert bool(notes) == contradicts
    assert all("takes caffe input" in note for note in notes)
