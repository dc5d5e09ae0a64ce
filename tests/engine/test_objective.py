"""The objective: value and gradient belong together, and the terms add up."""

import itertools

import numpy as np
import pytest

from engine.errors import NonFiniteError
from engine.load import load_network
from engine.objective import Objective
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS
from engine.view import View
from kernels.cpu.arena import Arena
from tests.engine import models

BLOCKS = models.parameters((2, 2, 2))
STEP = 1e-30
SIZE = (21, 18)
CONTENT = models.random_image(*SIZE, seed=1)
STYLE = models.random_image(*SIZE, seed=2)
OTHER = models.random_image(27, 14, seed=3)
IMAGE = models.random_image(*SIZE, seed=4)

# Values between 1e-2 and 1e2 for each term: neither drowns in the other.
ALPHA, BETA = 1e-4, 1e-6


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return models.save(models.vgg(BLOCKS), tmp_path_factory.mktemp("models") / "tiny.onnx")


@pytest.fixture(scope="module")
def load(path):
    """Return a function that loads the network, once for each set of arguments."""
    loaded = {}

    def load(dtype="float64", pooling="average"):
        if (dtype, pooling) not in loaded:
            loaded[dtype, pooling] = load_network(path, pooling, dtype=dtype, threads=1)
        return loaded[dtype, pooling]

    return load


SETTINGS = {
    "content and style": {"content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv2_1", "conv3_1"]},
    "content alone": {"style": None, "content_layers": ["conv3_1"]},
    "several content layers": {"style": None, "content_layers": {"conv1_2": 0.5, "conv2_1": 2.0, "conv3_2": 3.0}},
    "style alone": {"content": None, "style_layers": ["conv1_1", "conv3_2"]},
    "style of one layer": {"content": None, "style_layers": ["conv1_1"]},
    "both kinds on one layer": {"content_layers": ["conv2_1"], "style_layers": ["conv2_1"]},
    "both kinds on all layers": {"content_layers": models.names(BLOCKS), "style_layers": models.names(BLOCKS)},
    "style above content": {"content_layers": ["conv1_1"], "style_layers": ["conv3_2"]},
    "weights of layers": {"content_layers": {"conv3_1": 0.3}, "style_layers": {"conv1_2": 5.0, "conv2_2": 0.1}},
    "a weight of zero": {"content_layers": {"conv3_1": 0.0}, "style_layers": {"conv1_2": 5.0, "conv2_2": 0.0}},
    "style of another size": {"style": OTHER, "content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv3_1"]},
    "several styles": {
        "style": [(STYLE, 1.0), (OTHER, 3.0)],
        "content_layers": ["conv2_2"],
        "style_layers": ["conv1_1", "conv2_1"],
    },
    "a style with transparent parts": {
        "style": np.dstack([OTHER, np.linspace(-100, 300, 27 * 14).reshape(27, 14).clip(0, 255)]),
        "content_layers": ["conv2_2"],
        "style_layers": ["conv1_1", "conv3_1"],
    },
}


def make(network, **settings):
    arguments = {"content": CONTENT, "style": STYLE, "content_weight": ALPHA, "style_weight": BETA}
    return Objective(network, **(arguments | settings))


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_gradient_is_the_complex_step_derivative_of_the_value(setting, pooling, load):
    objective = make(load("float64", pooling), **SETTINGS[setting])
    stepped = make(load("complex128", pooling), **SETTINGS[setting])
    value, gradient = objective(IMAGE)
    assert isinstance(value, float)
    assert gradient.dtype == np.float64
    assert gradient.shape == IMAGE.shape
    rng = np.random.default_rng(0)
    for direction in (gradient / np.linalg.norm(gradient), *rng.standard_normal((2, *IMAGE.shape))):
        complex_value, _ = stepped(IMAGE + 1j * STEP * direction)
        assert complex_value.real == pytest.approx(value, rel=1e-13)
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(np.vdot(gradient, direction) - complex_value.imag / STEP) < 1e-14 * scale


def test_gradient_of_a_complex_network_is_analytic(load):
    """At a real image it is the real gradient: nothing in it is conjugated."""
    settings = SETTINGS["both kinds on all layers"]
    _, gradient = make(load(), **settings)(IMAGE)
    _, complex_gradient = make(load("complex128"), **settings)(IMAGE)
    assert abs(complex_gradient.imag).max() == 0
    np.testing.assert_allclose(complex_gradient.real, gradient, rtol=0, atol=1e-13 * abs(gradient).max())


def test_central_differences_converge_with_order_2(load):
    """Close enough to a point off the kinks, the error falls by a hundred for each tenth of the step."""
    objective = make(load(), **SETTINGS["style of one layer"])
    value, gradient = objective(IMAGE)
    assert value > 0
    direction = gradient / abs(gradient).max()
    slope = np.vdot(gradient, direction)
    errors = []
    for step in (1e-2, 1e-3):
        ahead, behind = (objective(IMAGE + sign * step * direction)[0] for sign in (1, -1))
        errors.append(abs((ahead - behind) / (2 * step) - slope) / slope)
    assert errors[0] < 1e-5
    assert errors[1] < errors[0] / 50


@pytest.mark.parametrize("setting", SETTINGS)
def test_float32_value_and_gradient_are_those_of_float64(setting, load):
    value, gradient = make(load(), **SETTINGS[setting])(IMAGE)
    single, single_gradient = make(load("float32"), **SETTINGS[setting])(IMAGE)
    assert single == pytest.approx(value, rel=1e-4)
    assert single_gradient.dtype == np.float64
    assert np.linalg.norm(single_gradient - gradient) < 1e-4 * np.linalg.norm(gradient)


# ---- the value ----


def loss_by_loops(features, content, style, alpha, beta, content_layers, style_layers):
    """Return the paper's total loss of features (N_l, H_l, W_l), each a dictionary by layer."""
    total = 0.0
    for layer, weight in content_layers.items():
        total += alpha * weight * 0.5 * ((features[layer] - content[layer]) ** 2).sum()
    for layer, weight in style_layers.items():
        F, P = (array[layer].reshape(len(array[layer]), -1) for array in (features, style))
        N_l, M_l = F.shape
        total += beta * weight * ((F @ F.T / M_l - P @ P.T / P.shape[1]) ** 2).sum() / (4 * N_l**2)
    return total


@pytest.mark.parametrize("style", [STYLE, OTHER], ids=["same size", "other size"])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_value_equals_the_paper_on_the_naive_network(pooling, style, load):
    content_layers, style_layers = {"conv2_2": 1.0, "conv3_1": 0.5}, {"conv1_1": 0.2, "conv2_1": 0.7}
    objective = make(load("float64", pooling), style=style, content_layers=content_layers, style_layers=style_layers)
    features = [models.naive_features(BLOCKS, image, pooling) for image in (IMAGE, CONTENT, style)]
    expected = loss_by_loops(*features, ALPHA, BETA, content_layers, style_layers)
    assert objective(IMAGE)[0] == pytest.approx(expected, rel=1e-12)


def test_names_alone_mean_one_for_content_and_equal_shares_for_style(load):
    names = {"content_layers": ["conv2_2", "conv3_1"], "style_layers": ("conv1_1", "conv2_1", "conv3_1")}
    weights = {
        "content_layers": {"conv2_2": 1, "conv3_1": 1},
        "style_layers": dict.fromkeys(("conv1_1", "conv2_1", "conv3_1"), 1 / 3),
    }
    by_names, by_weights = (make(load(), **layers)(IMAGE) for layers in (names, weights))
    assert by_names[0] == by_weights[0]
    np.testing.assert_array_equal(by_names[1], by_weights[1])


def test_one_name_may_come_without_a_list(load):
    objective = make(load(), content_layers="conv2_2", style_layers="conv1_1")
    assert objective.content_layers == {"conv2_2": 1.0}
    assert objective.style_layers == {"conv1_1": 1.0}


def test_the_defaults_are_the_papers():
    """Section 'Methods' and figure 2 of Gatys, Ecker and Bethge (2015)."""
    assert PAPER_CONTENT_LAYERS == ("conv4_2",)
    assert PAPER_STYLE_LAYERS == ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


def test_the_photograph_itself_has_no_content_loss_and_the_painting_no_style_loss(load):
    content = make(load(), style=None, content_layers=["conv3_1"])
    value, gradient = content(CONTENT)
    assert value == 0
    assert not gradient.any()
    style = make(load(), content=None, style_layers=["conv1_1", "conv3_1"])
    value, gradient = style(STYLE)
    assert value < 1e-25
    # Not moving a pixel: rounding of the Gram matrices is all there is.
    assert abs(gradient).max() < 1e-12 * abs(style(IMAGE)[1]).max()


def test_the_same_call_twice_gives_the_same_bits(load):
    objective = make(load("float32"), **SETTINGS["content and style"])
    first, second = objective(IMAGE), objective(IMAGE)
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])
    other = objective(CONTENT)[1]
    assert not np.shares_memory(first[1], other)


def test_bytes_are_taken_as_the_same_floats(load):
    objective = make(load("float32"), **SETTINGS["content and style"])
    image = IMAGE.astype(np.uint8)
    from_bytes, from_floats = objective(image), objective(image.astype(np.float64))
    assert from_bytes[0] == from_floats[0]
    np.testing.assert_array_equal(from_bytes[1], from_floats[1])


def test_arguments_stay_as_they_are(load):
    images = [array.copy() for array in (CONTENT, STYLE, OTHER, IMAGE)]
    content, style, other, image = images
    objective = make(load(), content=content, style=[(style, 1), (other, 2)], **layers_of("content and style"))
    objective(image)
    objective.gradient_norms(image)
    for array, original in zip(images, (CONTENT, STYLE, OTHER, IMAGE), strict=True):
        np.testing.assert_array_equal(array, original)


def layers_of(setting):
    return {key: value for key, value in SETTINGS[setting].items() if key.endswith("layers")}


def test_the_images_given_may_be_changed_afterward(load):
    """The targets are their features, not the arrays themselves."""
    content, style = CONTENT.copy(), STYLE.copy()
    objective = make(load(), content=content, style=style, **layers_of("content and style"))
    before = objective(IMAGE)[0]
    content[:], style[:] = 0, 0
    assert objective(IMAGE)[0] == before


# ---- several paintings ----


def test_gradient_of_several_paintings_is_the_weighted_sum_of_theirs(load):
    layers, paintings = ["conv1_1", "conv2_2", "conv3_1"], [(STYLE, 2.0), (OTHER, 1.0), (CONTENT, 5.0)]
    together = make(load(), content=None, style=paintings, style_layers=layers)(IMAGE)[1]
    alone = [make(load(), content=None, style=image, style_layers=layers)(IMAGE)[1] for image, _ in paintings]
    expected = (2 * alone[0] + alone[1] + 5 * alone[2]) / 8
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-13 * abs(expected).max())


def test_only_the_ratio_of_the_paintings_weights_counts(load):
    layers = ["conv1_1", "conv2_2"]
    one, other = (
        make(load(), content=None, style=[(STYLE, factor), (OTHER, 3 * factor)], style_layers=layers)(IMAGE)
        for factor in (1.0, 0.25)
    )
    assert one[0] == pytest.approx(other[0], rel=1e-13)


def test_a_list_of_one_painting_is_that_painting(load):
    layers = ["conv1_1", "conv2_2"]
    alone = make(load(), content=None, style=OTHER, style_layers=layers)(IMAGE)
    for paintings in ([(OTHER, 0.3)], [(OTHER, 1.0), (STYLE, 0.0)]):
        listed = make(load(), content=None, style=paintings, style_layers=layers)(IMAGE)
        assert listed[0] == pytest.approx(alone[0], rel=1e-13)
        np.testing.assert_allclose(listed[1], alone[1], rtol=0, atol=1e-13 * abs(alone[1]).max())


# ---- terms ----


@pytest.mark.parametrize("setting", SETTINGS)
def test_weighted_terms_add_up_to_the_total(setting, load):
    objective = make(load(), **SETTINGS[setting])
    value, _ = objective(IMAGE)
    weighted = objective.weighted_terms()
    total = sum(itertools.chain.from_iterable(terms.values() for terms in weighted.values()))
    assert total == pytest.approx(value, rel=1e-13)
    assert set(weighted["content"]) == set(objective.terms["content"]) == set(objective.content_layers)
    assert set(weighted["style"]) == set(objective.terms["style"]) == set(objective.style_layers)
    for layer, w_l in objective.style_layers.items():
        assert weighted["style"][layer] == pytest.approx(BETA * w_l * objective.terms["style"][layer], rel=1e-14)
    for layer, weight in objective.content_layers.items():
        assert weighted["content"][layer] == pytest.approx(
            ALPHA * weight * objective.terms["content"][layer], rel=1e-14
        )


def test_terms_are_those_of_one_term_alone_without_any_weight(load):
    objective = make(load(), **SETTINGS["weights of layers"])
    objective(IMAGE)
    for layer, term in objective.terms["style"].items():
        alone = make(load(), content=None, style_layers={layer: 1.0}, style_weight=1.0)
        assert alone(IMAGE)[0] == pytest.approx(term, rel=1e-13)
    for layer, term in objective.terms["content"].items():
        alone = make(load(), style=None, content_layers={layer: 1.0}, content_weight=1.0)
        assert alone(IMAGE)[0] == pytest.approx(term, rel=1e-13)


def test_through_another_network_the_terms_stay_and_what_they_see_is_its(load):
    objective = make(load(), **SETTINGS["content and style"])
    before = objective(IMAGE)[0]
    other = load(pooling="max")
    through = objective.through(other)
    assert through.network is other
    assert through.summands == objective.summands
    # The definition: each term's value of a view of the other network's features.
    view = View(other, other.plan(*IMAGE.shape[:2], through.layers).forward(IMAGE))
    expected = sum(through.weight_of(term) * term.value(view) for term in through.summands)
    assert through(IMAGE)[0] == pytest.approx(expected, rel=1e-12)
    assert expected != pytest.approx(before, rel=1e-3)
    assert objective(IMAGE)[0] == before


def test_terms_are_of_the_last_call(load):
    objective = make(load(), **SETTINGS["content and style"])
    assert objective.terms == {"content": {}, "style": {}}
    objective(IMAGE)
    first = objective.terms
    objective(CONTENT)
    assert objective.terms["content"]["conv2_2"] == 0
    assert first["content"]["conv2_2"] > 0
    assert objective.evaluations == 2
    standing = objective.standing(IMAGE)
    assert objective.terms["content"]["conv2_2"] == 0
    assert objective.evaluations == 2
    objective(IMAGE)
    assert (standing.terms, standing.gradient_norms) == (objective.weighted_terms(), objective.gradient_norms(IMAGE))


# ---- the norms of the terms' gradients ----


@pytest.mark.parametrize("setting", SETTINGS)
def test_norms_of_the_terms_gradients_are_those_of_each_alone(setting, load):
    objective = make(load(), **SETTINGS[setting])
    norms = objective.gradient_norms(IMAGE)
    paintings = SETTINGS[setting].get("style", STYLE)
    for layer, weight in objective.style_layers.items():
        expected = 0.0
        if weight:
            alone = make(load(), content=None, style=paintings, style_layers={layer: weight})
            expected = np.linalg.norm(alone(IMAGE)[1])
        assert norms["style"][layer] == pytest.approx(expected, rel=1e-12)
    for layer, weight in objective.content_layers.items():
        expected = 0.0
        if weight:
            alone = make(load(), style=None, content_layers={layer: weight})
            expected = np.linalg.norm(alone(IMAGE)[1])
        assert norms["content"][layer] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("setting", SETTINGS)
def test_norms_of_the_terms_gradients_obey_the_triangle_inequality(setting, load):
    objective = make(load(), **SETTINGS[setting])
    total = np.linalg.norm(objective(IMAGE)[1])
    terms, evaluations = objective.terms, objective.evaluations
    norms = [norm for kind in objective.gradient_norms(IMAGE).values() for norm in kind.values()]
    assert 2 * max(norms) - sum(norms) <= total * (1 + 1e-12)
    assert total <= sum(norms) * (1 + 1e-12)
    # Asking for them is no call of the objective.
    assert objective.terms is terms
    assert objective.evaluations == evaluations


# ---- errors ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"content": None, "style": None}, "nothing to optimize: give a content or a style image"),
        ({"style": None, "content_layers": []}, "nothing to optimize: give a content or a style image"),
        ({"content_weight": 0, "style_weight": 0}, "nothing to optimize: all weights are zero"),
        ({"style": None, "content_layers": {"conv1_1": 0}}, "nothing to optimize: all weights are zero"),
        ({"content_layers": ["conv9_1"]}, "unknown layer 'conv9_1'; did you mean"),
        ({"style_layers": ["conv1_1", "conv12"]}, "unknown layer 'conv12'; did you mean 'conv1_2'"),
        ({"style_layers": ["conv1_1", "conv1_1"]}, "a style layer is named twice in conv1_1, conv1_1"),
        ({"content_layers": ["conv1_1", "conv1_1"]}, "a content layer is named twice in conv1_1, conv1_1"),
        ({"content_weight": -1}, "content_weight must be a finite number of at least 0, got -1"),
        ({"style_weight": float("nan")}, "style_weight must be a finite number of at least 0, got nan"),
        ({"style_weight": float("inf")}, "style_weight must be a finite number of at least 0, got inf"),
        ({"style_layers": {"conv1_1": -2}}, "the weight of 'conv1_1' must be a finite number of at least 0, got -2"),
        ({"style": []}, "the list of style images is empty"),
        ({"style": [(STYLE, 0.0), (OTHER, 0)]}, "the weights of the style images are all zero"),
        ({"style": [(STYLE, -1.0)]}, "the weight of a style image must be a finite number of at least 0, got -1"),
        (
            {"style": np.zeros((3, 3, 3))},
            "an image of 3x3 pixels is too small for the network, it needs at least 4x4: AveragePool 'maxpool2'",
        ),
        ({"content": np.zeros((9, 9))}, r"an image must have the shape \(H, W, 3\), got \(9, 9\)"),
        ({"style": [(np.zeros((9, 9, 5)), 1)]}, r"an image must have the shape \(H, W, 3\), got \(9, 9, 5\)"),
    ],
)
def test_a_wrong_argument_is_named(settings, message, load):
    arguments = {"content_layers": ["conv2_2"], "style_layers": ["conv1_1", "conv3_1"]} | settings
    with pytest.raises(ValueError, match=message):
        make(load(), **arguments)


@pytest.mark.parametrize("style", [(STYLE, 1.0), [STYLE, OTHER], [(STYLE, 1.0, 2.0)]], ids=["pair", "images", "triple"])
def test_paintings_that_are_not_pairs_of_image_and_weight_are_named(style, load):
    with pytest.raises(ValueError, match=r"style .*\(image, weight\)"):
        make(load(), content=None, style=style, style_layers=["conv1_1"])


def test_an_image_of_another_size_than_the_photograph_is_refused(load):
    objective = make(load(), **SETTINGS["content and style"])
    for call in (objective, objective.gradient_norms):
        with pytest.raises(ValueError, match=r"the image has the shape \(27, 14, 3\), the content image \(21, 18, 3\)"):
            call(OTHER)


def test_without_a_photograph_the_image_may_have_any_size(load):
    objective = make(load(), **SETTINGS["style alone"])
    for image in (IMAGE, OTHER):
        assert objective(image)[1].shape == image.shape


# ---- memory kept from one evaluation for the next ----


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("name", ["content and style", "both kinds on all layers", "style alone"])
def test_evaluations_in_the_same_memory_have_the_same_bits(name, pooling, load):
    images = [IMAGE, CONTENT, IMAGE + 1]
    expected = [make(load("float32", pooling), **SETTINGS[name])(image) for image in images]
    objective = make(load("float32", pooling), **SETTINGS[name])
    objective._arena = Arena(worthwhile=0)
    objective.value(IMAGE)
    found = [objective(image) for image in images]
    assert objective._arena._block.size > 0
    objective.standing(IMAGE)  # takes memory of its own
    assert objective._arena._block.size == 0
    found.append(objective(images[0]))
    expected.append(expected[0])
    for (value, gradient), (expected_value, expected_gradient) in zip(found, expected, strict=True):
        assert value == expected_value
        assert (gradient == expected_gradient).all()


def test_objectives_with_fewer_terms_share_the_memory(load):
    objective = make(load(), **SETTINGS["content and style"])
    assert objective.without("conv3_1")._arena is objective._arena is not None


def test_in_pieces_no_memory_is_kept(load):
    assert make(load(), **SETTINGS["content and style"], piece=(8, 12))._arena is None


# ---- values that are not finite ----


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_an_overflow_is_named_with_the_layer_where_it_began(load):
    objective = make(load("float32"), **SETTINGS["content and style"])
    # Squares of 1e25 are beyond float32, in the first Gram matrix that looks at them.
    with pytest.raises(NonFiniteError, match=r"not finite: it began at the style loss of 'conv1_1'"):
        objective(IMAGE * 1e23)
    # Products of weights and values of 1e38 already overflow in the forward pass.
    with pytest.raises(NonFiniteError, match=r"not finite: it began at Conv 'conv\d_\d' \(forward pass\)"):
        objective(np.full_like(IMAGE, 3e38))


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid")
def test_an_overflow_of_the_gradient_alone_is_named(load):
    objective = make(load("float32"), content=None, style_layers=["conv2_1"], style_weight=1e60)
    assert np.isfinite(objective.network.forward(IMAGE, ["conv2_1"]).features["conv2_1"]).all()
    with pytest.raises(NonFiniteError, match=r"not finite: it began at Conv 'conv\d_\d' \(backward pass\)"):
        objective(IMAGE)


def test_an_image_that_is_not_finite_is_refused(load):
    image = IMAGE.copy()
    image[3, 4, 1] = np.nan
    with pytest.raises(ValueError, match="the image has values that are infinite or not a number"):
        make(load(), **SETTINGS["content and style"])(image)
