"""Resizing, with alpha and without."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tools.media.test_images import noise
from tools.media.picture import Picture, resize, resize_tile


def test_resizing_to_the_same_size_gives_the_same_picture():
    picture = Picture(noise(3, 4, 3).astype(np.float32), None)
    assert resize(picture, 3, 4) is picture


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-1, 4)])
def test_resizing_to_nothing_is_refused(height, width):
    with pytest.raises(ValueError, match="expected at least 1 x 1"):
        resize(Picture(noise(3, 4, 3).astype(np.float32), None), height, width)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 3), (40, 55), (1, 60)])
def test_resizing_keeps_a_flat_color_and_stays_in_range(height, width):
    flat = Picture(np.full((12, 9, 3), [255, 0, 77.25], np.float32), None)
    resized = resize(flat, height, width).pixels
    assert resized.dtype == np.float32
    np.testing.assert_allclose(resized, np.full((height, width, 3), [255, 0, 77.25]), atol=1e-3)
    sharp = resize(Picture(np.float32(255) * (noise(12, 9, 3) > 127), None), height, width).pixels
    assert sharp.min() >= 0
    assert sharp.max() <= 255


def test_shrinking_averages_instead_of_skipping_pixels():
    stripes = np.zeros((32, 32, 3), np.float32)
    stripes[:, ::2] = 255
    np.testing.assert_allclose(resize(Picture(stripes, None), 8, 8).pixels[:, 2:-2], 127.5, atol=3)


def test_resizing_does_not_round_to_whole_numbers():
    ramp = np.linspace(100, 101, 16, dtype=np.float32)
    picture = Picture(np.broadcast_to(ramp[:, None, None], (16, 16, 3)), None)
    assert np.unique(resize(picture, 8, 8).pixels).size >= 8


def test_resizing_keeps_a_ramp_in_place():
    ramp = np.arange(64, dtype=np.float32) * 4
    picture = Picture(np.broadcast_to(ramp[None, :, None], (8, 64, 3)), None)
    np.testing.assert_allclose(resize(picture, 8, 32).pixels[0, 4:-4, 0], (ramp[::2] + 2)[4:-4], atol=0.2)


@pytest.mark.parametrize("side", [3, 7, 40])
def test_no_color_bleeds_from_transparent_pixels(side):
    pixels = np.zeros((20, 20, 3), np.float32)
    pixels[:, :9], pixels[:, 9:] = (200, 100, 0), (0, 0, 255)
    alpha = np.zeros((20, 20), np.float32)
    alpha[:, :9] = 1
    resized = resize(Picture(pixels, alpha), side, side)
    assert resized.alpha is not None
    assert resized.alpha.min() >= 0
    assert resized.alpha.max() <= 1
    visible = resized.alpha > 0.01
    assert (resized.alpha[visible] < 0.99).any(), "an edge is needed for anything to bleed over"
    np.testing.assert_allclose(resized.pixels[visible], np.full((visible.sum(), 3), [200, 100, 0]), atol=0.1)


def test_resizing_a_partly_transparent_picture_stays_in_range():
    pixels, alpha = np.float32(255) * (noise(12, 9, 3) > 127), np.float32(1) * (noise(12, 9, seed=1) > 127)
    resized = resize(Picture(pixels, alpha), 17, 25)
    assert resized.alpha is not None
    for values, top in ((resized.pixels, 255), (resized.alpha, 1)):
        assert values.dtype == np.float32
        assert values.min() == 0
        assert values.max() == top


def test_resizing_a_fully_transparent_picture_keeps_its_colors():
    resized = resize(Picture(np.full((6, 6, 3), 40, np.float32), np.zeros((6, 6), np.float32)), 3, 9)
    np.testing.assert_allclose(resized.pixels, 40, rtol=1e-5)
    np.testing.assert_array_equal(resized.alpha, np.zeros((3, 9)))


@pytest.mark.parametrize(("height", "width"), [(24, 64), (48, 32), (8, 16), (36, 40), (7, 11)])
def test_a_tile_is_resized_as_one_of_many(height, width):
    """What comes of it is the middle of nine, laid side by side."""
    tile = noise(24, 32, 3).astype(np.float32)
    nine = resize(Picture(np.tile(tile, (3, 3, 1)), None), 3 * height, 3 * width)
    found = resize_tile(Picture(tile, None), height, width)
    assert found.alpha is None
    np.testing.assert_allclose(found.pixels, nine.pixels[height : 2 * height, width : 2 * width], atol=2e-3)
    assert np.abs(found.pixels - resize(Picture(tile, None), height, width).pixels).max() > 1
