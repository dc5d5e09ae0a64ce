"""From small to large: the sizes, the content weight at each, and each picture begun with the one before."""

from __future__ import annotations

import numpy as np
import pytest

from engine.load import load_network
from engine.multiscale import (
    Level,
    coarse_to_fine,
    fit,
    levels_of_picture,
    stylize_coarse_to_fine,
    usual_levels,
)
from engine.network import Network
from engine.objective import Objective
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.stylize import Settings, content_weight_at, prepare, stylize
from tools.models.random_vgg import random_vgg


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Network:
    path = tmp_path_factory.mktemp("models") / "model.onnx"
    write_onnx(path, random_vgg("vgg19", width=0.05), preprocessing_metadata(PREPROCESSING["caffe"]))
    return load_network(path, threads=1)


def image(seed: int, height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 255, (height // 4, width // 4, 3))
    return coarse.repeat(4, axis=0).repeat(4, axis=1)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Take the nearest pixels."""
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), image.shape, strict=False))
    return image[rows][:, columns]


CONTENT, STYLE = image(1, 72, 96), image(2, 40, 60)

# ---- sizes and weights ----


def test_each_level_has_half_the_side_of_the_next_and_the_weight_of_its_pixels():
    levels = levels_of_picture(1001, 3, 1e-3)
    assert [(level.number, level.size, level.is_last) for level in levels] == [
        (1, 250, False), (2, 500, False), (3, 1001, True),
    ]  # fmt: skip
    np.testing.assert_allclose([level.content_weight / 1e-3 for level in levels], [4.004**2, 2.002**2, 1], rtol=1e-15)
    assert [level.divided(77) for level in levels] == [19, 38, 77]
    assert levels_of_picture(70, 1, 0.3) == [Level(1, 1, 70, 0.3)]


@pytest.mark.parametrize(("size", "count"), [(7, 4), (100, 0), (0, 1)])
def test_levels_of_nothing_are_an_error(size, count):
    with pytest.raises(ValueError, match=f"{count} levels of a picture of {size} pixels"):
        levels_of_picture(size, count, 1.0)


@pytest.mark.parametrize(("size", "levels"), [(48, 1), (191, 1), (192, 2), (383, 2), (384, 3), (2048, 3)])
def test_how_many_levels_are_usual_follows_the_size(size, levels):
    assert usual_levels(size) == levels


def test_the_balance_of_the_losses_is_the_same_at_each_size(network):
    """Of equal tiles, many have the losses of one with the weight of its pixels, but for the borders."""
    photo, style, noise = (image(seed, 48, 48) for seed in range(3))
    losses = []
    for tiles in (1, 4):
        weight = content_weight_at(1e-2, tiles**2)
        content, start = (np.tile(each, (tiles, tiles, 1)) for each in (photo, noise))
        objective = Objective(network, content, 0.1 * style, ("conv1_2",), ("conv1_1",), weight)
        objective(start)
        losses.append([*objective.weighted_terms()["content"].values(), *objective.weighted_terms()["style"].values()])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)


@pytest.mark.parametrize(
    ("height", "width", "long_side", "expected"),
    [
        (400, 300, 200, (200, 150)),
        (300, 400, 200, (150, 200)),
        (50, 50, 7, (7, 7)),
        (100, 75, 1000, (1000, 750)),
        (3, 1000, 100, (1, 100)),
        (1000, 1, 10, (10, 1)),
        (1000, 667, 500, (500, 334)),
        (1000, 665, 500, (500, 333)),
        (10, 10, 1, (1, 1)),
    ],
)
def test_fit_makes_the_longer_side_exact_and_rounds_the_other(height, width, long_side, expected):
    assert fit(height, width, long_side) == expected


@pytest.mark.parametrize("arguments", [(0, 5, 5), (5, 0, 5), (5, 5, 0), (5, 5, -3)])
def test_fit_refuses_sizes_below_one(arguments):
    with pytest.raises(ValueError, match="expected at least 1"):
        fit(*arguments)


# ---- the loop ----


def test_what_a_level_comes_to_is_what_the_next_begins_with(network):
    levels, begun = levels_of_picture(96, 3, 0.01), []

    def prepare_level(level, image):
        begun.append((level, image))
        content = resize(CONTENT, *fit(72, 96, level.size))
        initial = None if image is None else resize(image, *content.shape[:2])
        return prepare(network, content, STYLE, Settings(iterations=2, content_weight=level.content_weight), initial)

    pictures, results = coarse_to_fine(levels, prepare_level), []
    level, job = next(pictures)
    while not level.is_last:
        results.append(job.run())
        level, job = pictures.send(results[-1])
    assert [level for level, _ in begun] == levels
    assert begun[0][1] is None
    for (_, image), result in zip(begun[1:], results, strict=True):
        np.testing.assert_array_equal(image, result.image.astype(np.float32))


@pytest.mark.parametrize("init", ["noise", "content", "style"])
def test_a_picture_from_small_to_large_is_one_run_after_the_other(network, init):
    settings = Settings(init=init, iterations=2, content_weight=0.01)
    made = stylize_coarse_to_fine(
        network, CONTENT, [(STYLE, 2.0), (CONTENT, 1.0)], settings, resize=resize, size=80, style_size=60, levels=2
    )
    picture = None
    for size, style_side, weight in ((40, 30, 0.04), (80, 60, 0.01)):
        content, *styles = (
            resize(each, *fit(*each.shape[:2], side))
            for each, side in ((CONTENT, size), (STYLE, style_side), (CONTENT, style_side))
        )
        if picture is None and init == "style":
            picture = STYLE
        first = None if picture is None else resize(picture, *content.shape[:2])
        blend = list(zip(styles, (2.0, 1.0), strict=True))
        chosen = Settings(init=init, iterations=2, content_weight=weight)
        picture = np.float32(stylize(network, content, blend, chosen, first).image)
    np.testing.assert_array_equal(made.image.astype(np.float32), picture)


def test_an_interruption_ends_the_whole(network):
    calls = []

    def interrupted(state):
        calls.append(state.image.shape)
        raise KeyboardInterrupt

    made = stylize_coarse_to_fine(network, CONTENT, STYLE, resize=resize, levels=2, callback=interrupted)
    assert made.stop == "interrupted"
    assert calls == [(36, 48, 3)]
