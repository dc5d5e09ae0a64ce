"""A style image with the content image's colors: the same mean and covariance, moved as little as that allows."""

import itertools

import numpy as np
import pytest

from engine.color import (
    FLATTEST,
    METHODS,
    in_gray,
    luminance,
    match_colors,
    match_luminance,
    with_luminance,
)

LINEAR = [method for method in METHODS if method != "histogram"]


def colors(seed, spread=1.0, mean=128.0, shape=(40, 50)):
    """Return an image whose colors are correlated: they vary by 20, 12 and 7 gray levels along three directions."""
    rng = np.random.default_rng(seed)
    mixing = np.diag([20.0, 12.0, 7.0]) @ np.linalg.qr(rng.standard_normal((3, 3)))[0] * spread
    return np.clip(rng.standard_normal((*shape, 3)) @ mixing + mean + rng.uniform(-20, 20, 3), 0, 255)


def moments(pixels):
    flat = pixels.reshape(-1, 3)
    return flat.mean(axis=0), np.cov(flat, rowvar=False, bias=True)


@pytest.mark.parametrize("method", LINEAR)
def test_mean_and_covariance_become_the_other_s(method):
    style, content = colors(0), colors(1, mean=100.0, shape=(30, 70))
    result = match_colors(style, content, method=method)
    assert (result.shape, result.dtype) == (style.shape, np.float32)
    for found, expected in zip(moments(result.astype(np.float64)), moments(content), strict=True):
        # The least variance that is assumed is added to both.
        np.testing.assert_allclose(found, expected, atol=2 * FLATTEST**2, rtol=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_keeps_its_own_colors(method):
    style = colors(2)
    np.testing.assert_allclose(match_colors(style, style, method=method), style, atol=1e-3)


def test_the_methods_are_maps_of_their_own():
    """Principal axes are turned with the colors; the Cholesky factors keep the first channel to itself."""
    style, content = colors(3), colors(4)
    results = [match_colors(style, content, method=method) for method in LINEAR]
    assert all(np.abs(one - other).max() > 1 for one, other in itertools.pairwise(results))
    red, other = style[..., 0].ravel().astype(float), results[2][..., 0].ravel().astype(float)
    assert np.corrcoef(red, other)[0, 1] > 1 - 1e-6
    with pytest.raises(ValueError, match="unknown color method 'pca'"):
        match_colors(style, content, method="pca")


def test_of_all_linear_maps_this_one_moves_the_colors_least():
    """Any other map with the same effect is this one after a rotation of the whitened colors."""
    style, content = colors(3), colors(4)
    (m, of_style), (n, of_content) = moments(style), moments(content)
    moved = np.square(match_colors(style, content) - style).mean()
    rng = np.random.default_rng(5)
    for _ in range(20):
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        other = (style - m) @ np.linalg.inv(np.linalg.cholesky(of_style)).T @ rotation @ np.linalg.cholesky(
            of_content
        ).T + n
        np.testing.assert_allclose(moments(other)[1], of_content, rtol=1e-6, atol=1e-6)
        assert np.square(other - style).mean() > 0.99 * moved


@pytest.mark.parametrize("gray", [0.0, 90.0])
def test_images_of_one_color_give_no_noise(gray):
    flat, content = np.full((8, 9, 3), gray), colors(6)
    np.testing.assert_allclose(
        match_colors(flat, content), np.broadcast_to(content.mean(axis=(0, 1)), flat.shape), rtol=1e-5
    )
    into_gray = match_colors(content, flat)
    assert np.abs(into_gray - gray).max() < 6 * FLATTEST


def test_a_gray_style_image_takes_the_content_image_s_colors_without_noise():
    gray = np.repeat(colors(7)[..., :1], 3, axis=2)
    result = match_colors(gray, colors(8)).astype(np.float64)
    # All its colors lie on one line, as before.
    assert np.linalg.matrix_rank(np.cov(result.reshape(-1, 3), rowvar=False), tol=1.0) == 1


def test_the_result_is_within_the_scale():
    result = match_colors(colors(9, spread=3), colors(10, spread=6, mean=200))
    assert result.min() >= 0
    assert result.max() <= 255


def by_rank(values, reference):
    """Replace each value by the reference's of the same rank, where both have as many and all differ."""
    result = np.empty_like(values)
    result[np.argsort(values)] = np.sort(reference)
    return result


def test_a_histogram_becomes_the_other_s_rank_by_rank():
    style, content = colors(11, shape=(12, 20)), colors(12, shape=(16, 15))
    result = match_colors(style, content, method="histogram")
    for channel in range(3):
        expected = by_rank(style[..., channel].ravel(), content[..., channel].ravel())
        np.testing.assert_allclose(result[..., channel].ravel(), expected, rtol=1e-6)


def test_equal_values_stay_equal_and_what_is_transparent_does_not_count():
    style, content = np.rint(colors(13) / 32) * 32, colors(14)
    alpha = np.ones(style.shape[:2])
    alpha[:20] = 0
    result = match_colors(style, content, alpha, "histogram")
    for value in np.unique(style[..., 0]):
        assert len(np.unique(result[style[..., 0] == value][:, 0])) == 1
    # What is seen has the photograph's mean; without its alpha the whole would have.
    np.testing.assert_allclose(result[20:].mean(axis=(0, 1)), content.mean(axis=(0, 1)), atol=2)


def test_luminance_gets_the_other_s_mean_and_deviation():
    style, content = colors(15), colors(16, spread=0.5, mean=100.0)
    alpha = np.random.default_rng(0).uniform(0, 1, style.shape[:2])
    for counts in (None, alpha):
        result = match_luminance(style, content, counts)
        assert (result.shape, result.dtype) == (style.shape, np.float32)
        assert (np.ptp(result, axis=2) == 0).all()
        mean = np.average(result[..., 0], weights=counts)
        deviation = np.sqrt(np.average((result[..., 0] - mean) ** 2, weights=counts))
        assert mean == pytest.approx(luminance(content).mean(), abs=0.1)
        assert deviation == pytest.approx(luminance(content).std(), rel=0.02)


def test_a_picture_s_luminance_in_a_photograph_s_colors():
    photo, picture = colors(17), colors(18)
    result = with_luminance(photo, picture)
    inside = (result > 0).all(axis=2) & (result < 255).all(axis=2)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(luminance(result)[inside], luminance(picture)[inside], atol=1e-9)
    # I and Q of YIQ are differences of colors, which stay.
    for one, other in ((0, 1), (1, 2)):
        before, after = (image[..., one] - image[..., other] for image in (photo, result))
        np.testing.assert_allclose(after[inside], before[inside], atol=1e-9)
    np.testing.assert_allclose(with_luminance(photo, photo), photo)
    np.testing.assert_allclose(luminance(in_gray(photo)), luminance(photo), rtol=1e-6)
