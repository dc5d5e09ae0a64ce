"""A painting with the photograph's colours: the same mean and covariance, moved as little as that allows."""

import numpy as np
import pytest

from tools.colours import FLATTEST, with_colours_of


def colours(seed, spread=1.0, mean=128.0, shape=(40, 50)):
    """Return a picture whose colours are correlated: they vary by 20, 12 and 7 grey levels along three directions."""
    rng = np.random.default_rng(seed)
    mixing = np.diag([20.0, 12.0, 7.0]) @ np.linalg.qr(rng.standard_normal((3, 3)))[0] * spread
    return np.clip(rng.standard_normal((*shape, 3)) @ mixing + mean + rng.uniform(-20, 20, 3), 0, 255)


def moments(pixels):
    flat = pixels.reshape(-1, 3)
    return flat.mean(axis=0), np.cov(flat, rowvar=False, bias=True)


def test_mean_and_covariance_become_the_other_s():
    painting, photo = colours(0), colours(1, mean=100.0, shape=(30, 70))
    result = with_colours_of(painting, photo)
    assert (result.shape, result.dtype) == (painting.shape, np.float32)
    for found, expected in zip(moments(result.astype(np.float64)), moments(photo), strict=True):
        # The least variance that is assumed is added to both.
        np.testing.assert_allclose(found, expected, atol=2 * FLATTEST**2, rtol=0.01)


def test_a_picture_keeps_its_own_colours():
    painting = colours(2)
    np.testing.assert_allclose(with_colours_of(painting, painting), painting, atol=1e-3)


def test_of_all_linear_maps_this_one_moves_the_colours_least():
    """Any other map with the same effect is this one after a rotation of the whitened colours."""
    painting, photo = colours(3), colours(4)
    (m, of_painting), (n, of_photo) = moments(painting), moments(photo)
    moved = np.square(with_colours_of(painting, photo) - painting).mean()
    rng = np.random.default_rng(5)
    for _ in range(20):
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        other = (painting - m) @ np.linalg.inv(np.linalg.cholesky(of_painting)).T @ rotation @ np.linalg.cholesky(
            of_photo
        ).T + n
        np.testing.assert_allclose(moments(other)[1], of_photo, rtol=1e-6, atol=1e-6)
        assert np.square(other - painting).mean() > 0.99 * moved


@pytest.mark.parametrize("grey", [0.0, 90.0])
def test_pictures_of_one_colour_give_no_noise(grey):
    flat, photo = np.full((8, 9, 3), grey), colours(6)
    np.testing.assert_allclose(
        with_colours_of(flat, photo), np.broadcast_to(photo.mean(axis=(0, 1)), flat.shape), rtol=1e-5
    )
    into_grey = with_colours_of(photo, flat)
    assert np.abs(into_grey - grey).max() < 6 * FLATTEST


def test_a_grey_painting_takes_the_photograph_s_colours_without_noise():
    grey = np.repeat(colours(7)[..., :1], 3, axis=2)
    result = with_colours_of(grey, colours(8)).astype(np.float64)
    # All its colours lie on one line, as before.
    assert np.linalg.matrix_rank(np.cov(result.reshape(-1, 3), rowvar=False), tol=1.0) == 1


def test_the_result_is_within_the_scale():
    result = with_colours_of(colours(9, spread=3), colours(10, spread=6, mean=200))
    assert result.min() >= 0
    assert result.max() <= 255
