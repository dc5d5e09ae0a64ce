from __future__ import annotations

import numpy as np
import pytest

from tools.training.pictures import FREE_PICTURES, clouds, dead_leaves, training_pictures, windows


@pytest.mark.parametrize("make", [clouds, dead_leaves])
def test_a_texture_is_a_picture_and_the_same_for_the_same_seed(make):
    first, again, other = (make(96, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first.shape == (96, 96, 3)
    assert first.dtype == np.float32
    assert 0 <= first.min() < first.max() <= 255
    assert first.std() > 10
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_power_of_clouds_falls_with_the_frequency():
    spectrum = np.abs(np.fft.rfft2(clouds(128, np.random.default_rng(0)).mean(2))) ** 2
    assert spectrum[1:4, 1:4].mean() > 30 * spectrum[30:34, 30:34].mean()


def test_windows_lie_inside_their_pictures_and_every_picture_has_some():
    pictures = [np.zeros((160, 240, 3), np.float32), np.zeros((700, 1000, 3), np.float32)]
    places = windows(pictures, 64, np.random.default_rng(0))
    counts = [sum(place.picture == index for place in places) for index in range(2)]
    assert counts[0] >= 20
    assert counts[1] > counts[0]
    for place in places:
        height, width, _ = pictures[place.picture].shape
        assert 32 <= place.y <= height - 32
        assert 32 <= place.x <= width - 32


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(ValueError, match=FREE_PICTURES[0]):
        training_pictures(tmp_path, np.random.default_rng(0))
