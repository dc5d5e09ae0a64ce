"""Statistics of style beside the Gram matrix: by their definitions, at the painting itself, mixed, in regions."""

import itertools

import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from engine import NonFiniteError, Objective, Settings, load_network, stylize
from engine.graph import Node
from engine.ops import Conv
from engine.regions import Region, at_layer
from engine.selection import PAPER_STATISTICS
from engine.sliced import directions
from engine.statistics import FLATTEST, SHIFT, STATISTICS, Moments, Target, pairs_of, transport
from kernels.geometry import Window
from tests.engine import models
from tests.engine.test_network import by_hand

SIZE = (22, 18)
LAYERS = ("conv1_1", "conv2_1")
CONTENT, IMAGE = models.random_image(*SIZE, seed=1), models.random_image(*SIZE, seed=2)
PAINTING, OTHER = models.random_image(20, 25, seed=3), models.random_image(17, 16, seed=4)
LEFT = np.zeros(SIZE)
LEFT[:, :9] = 1.0


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.save(models.vgg(models.parameters((2, 2))), tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="module")
def network(path):
    return load_network(path, dtype="float64", threads=1)


def objective(network, statistics=PAPER_STATISTICS, style=PAINTING, **options):
    options = {"content_layers": ["conv2_1"], "style_layers": LAYERS, "content_weight": 1e-4} | options
    return Objective(network, CONTENT, style, style_statistics=statistics, **options)


# ---- slow, obvious twins: a list of vectors and of their weights ----


def listed(features, weights=None):
    """Return a layer's features, (N, H, W), as vectors and their weights, which sum to 1."""
    weights = np.ones(features.shape[1:]) if weights is None else weights
    return features.reshape(len(features), -1).T, weights.ravel() / weights.sum()


def mean_and_covariance(features, weights=None):
    vectors, shares = listed(features, weights)
    mean = sum(share * vector for share, vector in zip(shares, vectors, strict=True))
    return mean, sum(
        share * np.outer(vector - mean, vector - mean) for share, vector in zip(shares, vectors, strict=True)
    )


def gram(own, painting, weights=None):
    (vectors, shares), (others, of_others) = listed(own, weights), listed(painting)
    return np.square((vectors.T * shares) @ vectors - (others.T * of_others) @ others).sum() / (4 * len(own) ** 2)


def balance(painting):
    return gram(0 * painting, painting) / np.square(painting).mean()


def means(own, painting, weights=None):
    (mean, covariance), (of_mean, of_covariance) = mean_and_covariance(own, weights), mean_and_covariance(painting)
    least = FLATTEST * np.square(painting).mean()
    deviations, others = (np.sqrt(np.diag(C) + least) for C in (covariance, of_covariance))
    return balance(painting) * (np.square(mean - of_mean).mean() + np.square(deviations - others).mean())


def covariance(own, painting, weights=None):
    difference = mean_and_covariance(own, weights)[1] - mean_and_covariance(painting)[1]
    return np.square(difference).sum() / (4 * len(own) ** 2)


def wasserstein(own, painting, weights=None):
    (mean, C), (of_mean, of_covariance) = mean_and_covariance(own, weights), mean_and_covariance(painting)
    least = FLATTEST * np.square(painting).mean() * np.eye(len(mean))
    C, of_covariance = C + least, of_covariance + least
    root = scipy.linalg.sqrtm(of_covariance)
    between = scipy.linalg.sqrtm(root @ C @ root)
    distance = np.square(mean - of_mean).sum() + np.trace(C + of_covariance - 2 * between)
    return balance(painting) * distance.real / len(mean)


def shifted(own, painting, weights=None):
    total = 0.0
    for down, across in ((0, SHIFT), (SHIFT, 0)):
        found = [pair_matrix(own, weights, down, across), pair_matrix(painting, None, down, across)]
        if all(matrix is not None for matrix in found):
            total += np.square(found[0] - found[1]).sum() / (4 * len(own) ** 2) / 2
    return total


def pair_matrix(features, weights, down, across):
    _, height, width = features.shape
    weights = np.ones((height, width)) if weights is None else weights
    total, count = np.zeros((len(features),) * 2), 0.0
    for y, x in np.ndindex(max(height - down, 0), max(width - across, 0)):
        both = weights[y, x] * weights[y + down, x + across]
        total, count = total + both * np.outer(features[:, y, x], features[:, y + down, x + across]), count + both
    return total / count if count else None


def sliced(own, painting, weights=None):
    """Along each direction, with a step wherever one of the two distributions has one."""
    (vectors, shares), (others, of_others) = listed(own, weights), listed(painting)
    total = 0.0
    for direction in directions(len(own)):
        ours, theirs = quantiles(vectors @ direction, shares), quantiles(others @ direction, of_others)
        steps = sorted({0.0, 1.0, *ours[1][:-1], *theirs[1][:-1]})
        for low, high in itertools.pairwise(steps):
            one, other = (values[np.searchsorted(ends[:-1], (low + high) / 2)] for values, ends in (ours, theirs))
            total += (high - low) * (one - other) ** 2
    return balance(painting) * total / len(own)


def quantiles(values, shares):
    """Return values in ascending order, and up to which part of all each is there."""
    order = np.argsort(values)
    return values[order], np.cumsum(shares[order])


TWINS = {
    "gram": gram,
    "means": means,
    "covariance": covariance,
    "wasserstein": wasserstein,
    "shifted": shifted,
    "sliced": sliced,
}


def test_every_statistic_has_its_twin():
    assert tuple(TWINS) == STATISTICS


@pytest.mark.parametrize("name", STATISTICS)
def test_a_statistic_is_its_definition(name, network):
    found = objective(network, {name: 2.0}, style_weight=3.0)
    value, _ = found(IMAGE)
    F, P = network.features(IMAGE, [*LAYERS]), network.features(PAINTING, [*LAYERS])
    expected = sum(TWINS[name](F[layer], P[layer]) / 2 for layer in LAYERS)
    content = 1e-4 * found.terms["content"]["conv2_1"]
    assert value - content == pytest.approx(3.0 * 2.0 * expected, rel=1e-11)


@pytest.mark.parametrize("name", STATISTICS)
def test_in_regions_positions_count_as_much_as_they_belong(name, network):
    masks = (LEFT, 1 - LEFT)
    regions = [Region(mask, style) for mask, style in zip(masks, (PAINTING, OTHER), strict=True)]
    found = objective(network, [name], None, regions=regions)
    value, _ = found(IMAGE)
    F, expected = network.features(IMAGE, [*LAYERS]), 0.0
    for mask, style in zip(masks, (PAINTING, OTHER), strict=True):
        P = network.features(style, [*LAYERS])
        for layer in LAYERS:
            t = at_layer(mask, *F[layer].shape[1:])
            expected += t.mean() * TWINS[name](F[layer], P[layer], t) / 2
    assert value - 1e-4 * found.terms["content"]["conv2_1"] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("name", STATISTICS)
def test_at_the_painting_itself_there_is_nothing_to_mend(name, network):
    found = Objective(network, style=PAINTING, style_layers=LAYERS, style_statistics=[name])
    value, gradient = found(PAINTING)
    away, far = found(models.random_image(20, 25, seed=9))
    assert abs(value) < 1e-12 * away
    assert np.linalg.norm(gradient) < 1e-9 * np.linalg.norm(far)


@pytest.mark.parametrize("name", ["means", "wasserstein", "sliced"])
def test_a_statistic_weighs_as_much_as_the_gram_matrix_where_there_are_no_features(name, network):
    (P,) = network.features(PAINTING, "conv2_1").values()
    assert TWINS[name](0 * P, P) == pytest.approx(gram(0 * P, P), rel=2 * FLATTEST**0.5)


def test_several_paintings_share_the_weight_by_their_losses(network):
    for name in STATISTICS[1:]:
        both = objective(network, [name], [(PAINTING, 3.0), (OTHER, 1.0)], content_weight=0.0)
        value, gradient = both(IMAGE)
        alone = [objective(network, [name], style, content_weight=0.0)(IMAGE) for style in (PAINTING, OTHER)]
        assert value == pytest.approx(0.75 * alone[0][0] + 0.25 * alone[1][0], rel=1e-12)
        np.testing.assert_allclose(gradient, 0.75 * alone[0][1] + 0.25 * alone[1][1], rtol=1e-8, atol=1e-14)


def test_statistics_are_mixed_by_their_weights(network):
    weights = dict(zip(STATISTICS, (0.5, 2.0, 1.0, 3.0, 0.25, 1.5), strict=True))
    mixed, gradient = objective(network, weights, content_weight=0.0)(IMAGE)
    parts = [objective(network, {name: weight}, content_weight=0.0)(IMAGE) for name, weight in weights.items()]
    assert mixed == pytest.approx(sum(value for value, _ in parts), rel=1e-12)
    np.testing.assert_allclose(gradient, sum(part for _, part in parts), rtol=1e-7, atol=1e-14)


def test_the_gram_matrix_alone_is_the_paper_to_the_bit(network):
    plain = Objective(network, CONTENT, PAINTING, ["conv2_1"], LAYERS, 1e-4)(IMAGE)
    for chosen in ("gram", ["gram"], {"gram": 1.0}):
        found = objective(network, chosen)(IMAGE)
        assert found[0] == plain[0]
        np.testing.assert_array_equal(found[1], plain[1])


def test_what_is_transparent_takes_no_part(network):
    painting = np.dstack([PAINTING, np.full(PAINTING.shape[:2], 255.0)])
    painting[:, 14:, 3] = 0
    hidden = painting.copy()
    hidden[:, 14:, :3] = 33.0
    for name in STATISTICS:
        one, other = (objective(network, [name], style)(IMAGE) for style in (painting, hidden))
        assert one[0] == other[0]
        assert one[0] != objective(network, [name])(IMAGE)[0]


@pytest.mark.parametrize("side", [SHIFT, SHIFT + 1])
def test_a_shift_longer_than_the_layer_has_nothing_to_say(network, side):
    """A picture of so few columns has no pairs across."""
    image = models.random_image(16, side, seed=5)
    found = Objective(network, style=PAINTING, style_layers=["conv1_1"], style_statistics="shifted")
    value, gradient = found(image)
    terms = found.terms["style"]
    assert (terms["conv1_1, shifted right"] == 0) == (side == SHIFT)
    assert terms["conv1_1, shifted down"] > 0
    assert np.isfinite(gradient).all()
    assert value > 0


def test_pairs_count_the_product_and_none_goes_round_the_edge():
    counts = np.random.default_rng(0).uniform(0, 1, (6, 7))
    for direction, step, (down, across) in (("right", SHIFT, (0, SHIFT)), ("down", 7 * SHIFT, (SHIFT, 0))):
        pairs = pairs_of(counts, direction)
        assert pairs.offset == step
        for y, x in np.ndindex(counts.shape):
            there = y + down < 6 and x + across < 7
            expected = counts[y, x] * counts[y + down, x + across] if there else 0.0
            assert pairs.weights[y, x] == expected
        assert pairs.size == pairs.weights.sum()


def test_features_that_never_change_have_a_finite_gradient(network):
    """A layer that does not respond has no variance, and its root no derivative."""
    flat = np.full((*SIZE, 3), 90.0)
    for name in STATISTICS:
        value, gradient = objective(network, [name])(flat)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", STATISTICS)
def test_a_style_image_without_features_asks_for_nothing(name):
    """A black one, of a layer without bias: then nothing is added to a variance that is 0."""
    rng = np.random.default_rng(0)
    conv = Conv(rng.standard_normal((3, 3, 3, 4)), np.zeros(4), Window((3, 3), pads=(1, 1, 1, 1)), relu=True)
    bare = by_hand((Node("a", conv, "image", "a"),), {"a": "a"})
    black = np.zeros((*SIZE, 3))
    looking = Objective(bare, CONTENT, black, ("a",), ("a",), content_weight=1.0, style_statistics=name)
    for image in (black, CONTENT, IMAGE):
        value, gradient = looking(image)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_the_transport_maps_one_covariance_to_the_other():
    random = np.random.default_rng(0)
    one, other = (matrix @ matrix.T / 9 for matrix in random.standard_normal((2, 6, 9)))
    target = Target(Moments(np.zeros(6), other))
    trace, moved = transport(one, target.root, target.moments.epsilon)
    np.testing.assert_allclose(moved @ one @ moved, target.root @ target.root, rtol=1e-9, atol=1e-12)
    assert trace == pytest.approx(np.trace(one @ moved), rel=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 64])
def test_the_directions_are_a_basis_and_its_own_inverse(count):
    V = directions(count)
    np.testing.assert_array_equal(V, V.T)
    np.testing.assert_allclose(V @ V, np.eye(count), atol=1e-13)
    assert count < 64 or np.abs(V).max() < 0.6  # none is a feature's own


def test_the_directions_do_not_depend_on_the_threads_of_whoever_asks_first():
    found = set()
    for count in (1, 2):
        directions.cache_clear()
        with threadpool_limits(count, user_api="blas"):
            found.add(directions(512).tobytes())
    assert len(found) == 1


def test_a_weight_of_zero_leaves_a_statistic_out(network):
    expected = objective(network, "gram")(IMAGE)
    found = objective(network, {"gram": 1.0, "sliced": 0.0}, piece=(8, None))
    assert found(IMAGE)[0] == pytest.approx(expected[0], rel=1e-12)


def test_what_sorts_a_layer_is_not_cut(network):
    message = "the statistic 'sliced' sorts all of a layer and cannot be computed in pieces: leave out one of both"
    for waist in (None, "conv2_1"):
        with pytest.raises(ValueError, match=message):
            objective(network, ["gram", "sliced"], piece=(8, None), waist=waist)


def test_small_matrices_are_computed_by_one_thread_like_all_else(network, monkeypatch):
    seen, right = [], np.linalg.eigh

    def watched(matrix):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return right(matrix)

    monkeypatch.setattr(np.linalg, "eigh", watched)
    with threadpool_limits(2, user_api="blas"):
        objective(network, "wasserstein")(IMAGE)
    assert seen
    assert set(seen) == {1}


def test_what_is_not_finite_is_named(network):
    for name in STATISTICS:
        with pytest.raises(NonFiniteError, match=r"it began at the style loss of 'conv1_1"):
            Objective(network, style=PAINTING, style_layers=LAYERS, style_statistics=name)(1e200 * IMAGE)
        with pytest.raises(NonFiniteError, match="it began at the style loss of"):
            Objective(network, style=1e200 * PAINTING, style_layers=LAYERS, style_statistics=name)(IMAGE)


@pytest.mark.parametrize("name", STATISTICS[1:])
def test_on_a_gpu_it_is_the_same(emulator, path, network, name):
    gpu = load_network(path, device="cuda")
    regions = [Region(LEFT, PAINTING), Region(1 - LEFT, OTHER)]
    for options in ({}, {"style": None, "regions": regions}):
        value, gradient = objective(gpu, [name], content_weight=1e-6, replay=True, **options)(IMAGE)
        expected, of_cpu = objective(network, [name], content_weight=1e-6, **options)(IMAGE)
        assert value == pytest.approx(expected, rel=1e-4)
        assert np.linalg.norm(gradient - of_cpu) < 1e-3 * np.linalg.norm(of_cpu)


@pytest.mark.parametrize("name", STATISTICS[1:])
def test_in_16_bits_on_a_gpu_it_is_about_the_same(emulator, path, network, name):
    gpu = load_network(path, device="cuda", dtype="float16")
    value, gradient = objective(gpu, [name], content_weight=0.0)(IMAGE)
    expected, of_cpu = objective(network, [name], content_weight=0.0)(IMAGE)
    assert value == pytest.approx(expected, rel=2e-2)
    assert np.linalg.norm(gradient - of_cpu) < 5e-2 * np.linalg.norm(of_cpu)


def test_a_picture_is_made_with_every_statistic(network):
    for name in STATISTICS:
        settings = Settings(
            style_statistics={name: 1.0},
            style_layers=LAYERS,
            content_layers=["conv2_1"],
            content_weight=0,
            iterations=3,
        )
        result = stylize(network, CONTENT, PAINTING, settings)
        assert result.value < result.initial_value


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ("grams", "unknown style statistic 'grams'"),
        ((), "a style consists of at least one statistic, none was given"),
        ({"means": -1.0}, "the weight of 'means' must be a finite number of at least 0"),
    ],
)
def test_what_is_no_statistic_is_named(network, statistics, message):
    with pytest.raises(ValueError, match=message):
        objective(network, statistics)
