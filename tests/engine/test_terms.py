"""Summands of the loss beside the paper's: on a layer, on the image, alone and together."""

from __future__ import annotations

import doctest
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import engine.terms
from engine.load import load_network
from engine.objective import Objective
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.terms import VARIATION_UNIT, Content, Style, Term, Variation
from engine.view import View
from tools.models.random_vgg import random_vgg

RANDOM = np.random.default_rng(0)
PHOTO, PAINTING, IMAGE = (RANDOM.uniform(0, 255, (40, 48, 3)) for _ in range(3))
LAYERS = {"content_layers": ["conv3_1"], "style_layers": ["conv1_1", "conv3_1"]}


@dataclass(frozen=True)
class Square:
    """1/2 sum x^2 of the image, or of a layer's features."""

    layer: str | None = None
    weight: float = 0.25
    kind: str = "square"

    @property
    def name(self) -> str:
        return self.layer or "image"

    def _seen(self, view: Any) -> Any:
        return view.image if self.layer is None else view.features(self.layer)

    def value(self, view: Any) -> Any:
        return 0.5 * (self._seen(view) ** 2).sum()

    def gradient(self, view: Any) -> Any:
        return self._seen(view)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    write_onnx(path, random_vgg("vgg19", width=0.1), preprocessing_metadata(PREPROCESSING["caffe"]))
    return path


@pytest.fixture(scope="module")
def network(path):
    return load_network(path, dtype="float64", threads=1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_sums_over_an_image_are_in_double_precision_whatever_its_own(network, dtype):
    objective = Objective(network, further_terms=[Variation(1.0)])
    image = PHOTO.astype(dtype)
    value, gradient = objective(image)
    expected, of_expected = objective(image.astype(np.float64))
    assert (value, gradient.dtype) == (expected, np.float64)
    np.testing.assert_array_equal(gradient, of_expected)


TERMS = [
    (Square(),),
    (Square("conv2_1"),),
    (Square(), Square("conv3_1"), Square("conv1_2", kind="other")),
]


def images(kind: str) -> dict[str, Any]:
    return {"content": PHOTO, "style": PAINTING, **LAYERS} if kind == "with the paper's" else {}


@pytest.mark.parametrize("kind", ["alone", "with the paper's"])
@pytest.mark.parametrize("terms", TERMS)
def test_value_and_gradient_are_those_of_the_weighted_sum(network, terms, kind):
    further = Objective(network, **images(kind), further_terms=terms)
    value, gradient = further(IMAGE)
    if images(kind):
        paper, paper_gradient = Objective(network, **images(kind))(IMAGE)
    else:
        paper, paper_gradient = 0.0, 0.0
    expected, expected_gradient = paper, paper_gradient
    for term in terms:
        if term.layer is None:
            expected = expected + term.weight * 0.5 * (IMAGE**2).sum()
            expected_gradient = expected_gradient + term.weight * IMAGE
        else:
            # 1/2 sum F^2 is the content loss toward nothing.
            target = np.zeros_like(network.forward(IMAGE, [term.layer]).features[term.layer])
            only = Objective(network, PHOTO, content_layers=[term.layer], content_weight=term.weight)
            only.summands = (Content(term.layer, target),)
            one, one_gradient = only(IMAGE)
            expected, expected_gradient = expected + one, expected_gradient + one_gradient
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-10, atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize("terms", TERMS)
def test_the_gradient_is_the_complex_step_of_the_value(path, terms):
    network = load_network(path, dtype="complex128", threads=1)
    objective = Objective(network, PHOTO, PAINTING, **LAYERS, further_terms=terms)
    direction, step = np.random.default_rng(1).normal(size=IMAGE.shape), 1e-30
    value, _ = objective(IMAGE + 1j * step * direction)
    real = Objective(load_network(path, dtype="float64"), PHOTO, PAINTING, **LAYERS, further_terms=terms)
    _, gradient = real(IMAGE)
    assert value.imag / step == pytest.approx((gradient * direction).sum(), rel=1e-12)


def test_terms_are_told_by_kind_and_name_with_their_weights(network):
    objective = Objective(network, PHOTO, PAINTING, **LAYERS, content_weight=0.5, further_terms=TERMS[2])
    value, gradient = objective(IMAGE)
    assert list(objective.terms) == ["content", "style", "square", "other"]
    assert list(objective.terms["square"]) == ["image", "conv3_1"]
    weighted = objective.weighted_terms()
    assert weighted["other"]["conv1_2"] == 0.25 * objective.terms["other"]["conv1_2"]
    assert sum(part for kind in weighted.values() for part in kind.values()) == pytest.approx(value, rel=1e-13)
    norms = objective.gradient_norms(IMAGE)
    assert norms["square"]["image"] == pytest.approx(0.25 * np.linalg.norm(IMAGE), rel=1e-14)
    assert objective.layers == ("conv1_1", "conv3_1", "conv1_2")
    assert np.isfinite(gradient).all()


def test_the_paper_s_terms_stand_in_the_sum_by_layer(network):
    objective = Objective(network, PHOTO, PAINTING, **LAYERS, content_weight=0.5, style_weight=2.0)
    content, style = (
        {term.layer: objective.weight_of(term) for term in objective.summands if isinstance(term, kind)}
        for kind in (Content, Style)
    )
    assert (content, style) == ({"conv3_1": 0.5}, {"conv1_1": 1.0, "conv3_1": 1.0})
    assert all(isinstance(term, Term) for term in (*objective.summands, Square()))


def test_the_image_may_be_bytes(network):
    objective = Objective(network, further_terms=(Square(),))
    rounded = np.rint(IMAGE).astype(np.uint8)
    value, gradient = objective(rounded)
    assert value == pytest.approx(0.125 * (rounded.astype(float) ** 2).sum())
    np.testing.assert_array_equal(gradient, 0.25 * rounded.astype(float))


@pytest.mark.parametrize("layer", [None, "conv2_1"])
def test_a_terms_gradient_may_lie_in_memory_as_it_likes(network, layer):
    class Moved(Square):
        def gradient(self, view: Any) -> Any:
            return np.asfortranarray(super().gradient(view))

    expected = Objective(network, PHOTO, PAINTING, **LAYERS, further_terms=[Square(layer)])(IMAGE)
    found = Objective(network, PHOTO, PAINTING, **LAYERS, further_terms=[Moved(layer)])(IMAGE)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_terms_gradient_of_another_shape_is_refused(network):
    class Short(Square):
        def gradient(self, view: Any) -> Any:
            return np.ones(3)

    objective = Objective(network, PHOTO, PAINTING, **LAYERS, further_terms=[Short()])
    with pytest.raises(ValueError, match=r"the gradient of square 'image' has the shape \(3,\), what it looks at"):
        objective(IMAGE)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((Square(kind="style"),), "a further term is of the kind 'style', which is the paper's"),
        ((Square(), Square()), "two further terms have the same kind and name"),
        ((Square(weight=-1.0),), "the weight of square 'image' must be a finite number of at least 0"),
        ((Square("conv9_1"),), "unknown layer 'conv9_1'"),
        ((Square(weight=0.0),), "nothing to optimize: all weights are zero"),
        ((), "nothing to optimize: give a content or a style image"),
    ],
)
def test_terms_that_do_not_fit_are_refused(network, terms, message):
    with pytest.raises(ValueError, match=message):
        Objective(network, further_terms=terms)


def test_the_example_in_the_documentation_runs(network):
    assert doctest.testmod(engine.terms).failed == 0
    space: dict[str, Any] = {}
    example = doctest.DocTestParser().get_examples(engine.terms.__doc__)
    exec("".join(part.source for part in example), vars(engine.terms) | space, space)
    value, gradient = Objective(network, further_terms=[space["Darkness"]()])(IMAGE)
    assert value == pytest.approx(0.0005 * (IMAGE**2).sum())
    np.testing.assert_allclose(gradient, 1e-3 * IMAGE)


@pytest.mark.parametrize("statistic", ["gram", "wasserstein", "shifted", "sliced"])
def test_a_relative_total_variation_goes_with_the_style_of_no_features(network, statistic):
    """Features twice as large, by another network or painting, need no other weight of it."""
    given = Variation(2.0, 1.0, relative=True)
    options = {**LAYERS, "style_weight": 3.0, "style_statistics": statistic}
    objective = Objective(network, PHOTO, PAINTING, **options, further_terms=[given])
    objective(IMAGE)
    blank = 0.0
    for term in objective.summands:
        if term.kind == "style":
            view = View(network, network.forward(IMAGE, [term.layer]))
            nothing = {term.layer: np.zeros_like(view.features(term.layer))}
            view = View(network, replace(view.tape, features=nothing))
            blank += 3.0 * term.weight * float(term.value(view))
    (found,) = (term for term in objective.summands if term.kind == "variation")
    assert found.weight == pytest.approx(2.0 * VARIATION_UNIT * blank, rel=1e-12)
    assert objective.weighted_terms()["variation"]["image"] == found.weight * objective.terms["variation"]["image"]


@pytest.mark.parametrize("epsilon", [0.0, -1.0, np.nan, np.inf])
def test_a_total_variation_without_a_gradient_at_a_flat_image_is_refused(epsilon):
    with pytest.raises(ValueError, match="the epsilon of a total variation must be a finite number above 0"):
        Variation(1.0, epsilon)
