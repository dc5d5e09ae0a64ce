"""A picture computed in pieces is the whole picture; other edges are pictures that go on."""

from __future__ import annotations

import weakref
from itertools import product

import numpy as np
import pytest

import engine.objective
from engine import pieces
from engine.errors import NonFiniteError
from engine.graph import Node
from engine.load import load_network
from engine.objective import Objective
from engine.ops import Conv
from engine.pieces import sources
from engine.plan import Plan
from engine.regions import Region
from engine.targets import at_scales
from engine.terms import Variation
from kernels.geometry import Window
from tests.engine import models, test_branches
from tests.engine.test_network import by_hand
from tests.engine.test_terms import Square
from tools.check_gradients.fault_study import awkward_problem

BLOCKS = models.parameters((2, 2, 3, 3, 1), (4, 4, 5, 5, 6))
SIZE = (147, 75)
"""Odd, and long enough for pieces that see no edge: the halo is some 80 rows."""

PHOTO, IMAGE, PAINTING = (models.random_image(*SIZE, seed=seed) for seed in (1, 2, 3))
OTHER = models.random_image(70, 93, seed=4)
RANDOM = np.random.default_rng(5)

CUTS = ((64, None), (32, None), (16, None))
BLOCK = (48, 32)

RAMP = np.broadcast_to(np.linspace(0, 1, SIZE[1]), SIZE)
TOP = (np.arange(SIZE[0])[:, None] < 60) * np.ones(SIZE)
MASK = RANDOM.uniform(0, 3, SIZE)
SEEN = np.dstack([OTHER, 255 * RANDOM.integers(0, 2, OTHER.shape[:2])])
STATISTICS = {"gram": 0.3, "means": 2.0, "covariance": 1.0, "wasserstein": 0.5, "shifted": 3.0}
STYLE_LAYERS = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")

WAIST = "conv3_1"
"""A style layer."""

CASES = {
    "as the paper": {"style": PAINTING},
    "content alone": {"style": None},
    "style alone": {"content": None, "style": OTHER},
    "every layer": {"style": OTHER, "content_layers": models.names(BLOCKS), "style_layers": models.names(BLOCKS)},
    "a painting with alpha": {"style": SEEN},
    "several paintings and all statistics": {"style": [(PAINTING, 2.0), (SEEN, 1.0)], "style_statistics": STATISTICS},
    "regions and all statistics": {
        "regions": (Region(RAMP, PAINTING), Region(1 - RAMP, OTHER), Region(TOP, SEEN)),
        "style_statistics": STATISTICS,
    },
    "a content mask": {"style": PAINTING, "content_mask": MASK},
    "total variation": {"style": PAINTING, "further_terms": (Variation(1e-2, 1.0), Square(weight=1e-6))},
    "two scales": {"style": at_scales(PAINTING, OTHER, STYLE_LAYERS)},
}


def overlapping_pool(builder, value):
    """Append windows that overlap, with padding, rounded up: the last ones lie beyond the edge."""
    return builder.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)


def rounded_up_pool(builder, value):
    return builder.node("AveragePool", value, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)


def mirrored_conv(builder, value, weight, bias):
    """Append a convolution whose padding is the network's own reflection."""
    pads = builder.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64))
    value = builder.node("Pad", value, pads, mode="reflect")
    names = builder.weight(weight), builder.weight(bias)
    return builder.node("Conv", value, *names, kernel_shape=[3, 3], pads=[0, 0, 0, 0])


def strided_conv(builder, value, weight, bias):
    """Append a convolution that sees further: every second row and column of five."""
    names = builder.weight(weight), builder.weight(bias)
    return builder.node("Conv", value, *names, kernel_shape=[3, 3], dilations=[2, 2], pads=[2, 2, 2, 2])


NETWORKS = {
    "plain": {},
    "overlapping": {"pool": overlapping_pool},
    "rounded up": {"pool": rounded_up_pool},
    "mirrored": {"conv": mirrored_conv},
    "dilated": {"conv": strided_conv},
}


def unpadded_conv(builder, value, weight, bias):
    return builder.node("Conv", value, builder.weight(weight), builder.weight(bias), kernel_shape=[3, 3])


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: models.save(models.vgg(BLOCKS, **hooks), folder / f"{name}.onnx") for name, hooks in NETWORKS.items()}


def network(paths, name="plain", dtype="float64", pooling="average", **options):
    return load_network(paths[name], pooling, dtype=dtype, threads=1, **options)


def objective(network, options, **further):
    given = {"content": PHOTO, "content_weight": 1e-4, "style_weight": 3e-5} | options | further
    return Objective(network, **given)


def assert_same(cut_up, whole, image=IMAGE, value=1e-12, gradient=1e-10):
    (found, of_found), (expected, of_expected) = cut_up(image), whole(image)
    assert found == pytest.approx(expected, rel=value)
    assert np.linalg.norm(of_found - of_expected) < gradient * np.linalg.norm(of_expected)
    assert np.linalg.norm(of_expected) > 0
    for kind, terms in whole.terms.items():
        assert cut_up.terms[kind] == pytest.approx(terms, rel=max(10 * value, 1e-10))


def count(made):
    return len(made.pieces(IMAGE.shape))


# ---- pieces ----


@pytest.mark.parametrize(
    ("name", "waist"), [*((name, waist) for name in CASES for waist in (None, WAIST)), ("as the paper", "conv2_2")]
)
def test_pieces_are_the_whole(name, waist, paths):
    """Strips of three heights for the paper's loss and for all statistics in regions; for the others one and blocks.

    Of the waists one is a style layer, with content behind it; the other is looked at by no term, but where every
    layer is.
    """
    own = network(paths)
    whole = objective(own, CASES[name])
    every = name in ("as the paper", "regions and all statistics")
    for cut in (*CUTS, BLOCK, (None, 16)) if every else (CUTS[1], BLOCK):
        cut_up = objective(own, CASES[name], piece=cut, waist=waist)
        assert_same(cut_up, whole)
        assert count(cut_up) > 1


@pytest.mark.parametrize("waist", models.names(BLOCKS))
def test_every_layer_of_a_vgg_can_be_a_waist(waist, paths):
    """In pieces, and in one, which is run twice to let its features go in between."""
    own, options = network(paths), CASES["several paintings and all statistics"]
    whole = objective(own, options)
    for cut in ((8, None), None):
        assert_same(objective(own, options, piece=cut, waist=waist), whole)


def test_halos_below_a_waist_are_narrow(paths):
    options = {"piece": (32, None)}
    without, narrow = (
        objective(network(paths), CASES["as the paper"], waist=waist, **options) for waist in (None, WAIST)
    )
    assert max(piece.size[0] for piece in without.pieces(IMAGE.shape)) > 32 + 80
    assert max(piece.size[0] for piece in narrow.pieces(IMAGE.shape)) < 32 + 32


@pytest.mark.parametrize("waist", [None, WAIST])
@pytest.mark.parametrize("keep", [(), ("conv5_1",), ("conv1_1", "conv3_1"), STYLE_LAYERS])
@pytest.mark.parametrize("name", ["as the paper", "several paintings and all statistics", "two scales"])
def test_what_is_kept_between_the_passes_changes_nothing(name, keep, waist, paths):
    """To the bit: what is left out is computed again by the same operators."""
    own, cut = network(paths), {"piece": BLOCK, "waist": waist}
    again, kept = objective(own, CASES[name], **cut), objective(own, CASES[name], **cut, keep=keep)
    for made in (again, kept):
        made(PHOTO)
    (value, gradient), (expected, of_expected) = kept(IMAGE), again(IMAGE)
    assert value == expected
    np.testing.assert_array_equal(gradient, of_expected)
    assert kept.gradient_norms(IMAGE) == again.gradient_norms(IMAGE)


@pytest.mark.parametrize("waist", [None, WAIST])
@pytest.mark.parametrize("pooling", ["model", "average"])
@pytest.mark.parametrize("name", NETWORKS)
def test_so_they_are_in_other_networks(name, pooling, waist, paths):
    own, options = network(paths, name, pooling=pooling), CASES["several paintings and all statistics"]
    whole = objective(own, options)
    for cut in (CUTS[1], BLOCK):
        assert_same(objective(own, options, piece=cut, waist=waist), whole)


@pytest.mark.parametrize("waist", [None, WAIST])
@pytest.mark.parametrize("size", [(96, 64), (97, 65), (95, 63)])
@pytest.mark.parametrize("name", ["plain", "overlapping", "rounded up"])
def test_at_any_size(name, size, waist, paths):
    own, (photo, painting, image) = network(paths, name), (models.random_image(*size, seed=seed) for seed in (6, 7, 8))
    options = {"content": photo, "style": painting}
    for cut in ((32, None), (16, 16)):
        assert_same(objective(own, options, piece=cut, waist=waist), objective(own, options), image)


@pytest.mark.parametrize("waist", [None, "conv2_1", "conv2_2"])
def test_so_they_are_with_windows_that_pad_one_side(waist):
    """The network of the study of faults: SAME padding at the end alone, two kinds of pooling."""
    problem = awkward_problem()
    options = {
        "content": problem.content,
        "style": problem.style,
        "content_layers": problem.content_layers,
        "style_layers": problem.style_layers,
    }
    for cut in ((8, None), (4, 4)):
        cut_up = objective(problem.network, options, piece=cut, waist=waist)
        assert_same(cut_up, objective(problem.network, options), problem.image)


@pytest.mark.parametrize("waist", [None, WAIST])
@pytest.mark.parametrize("cut", [CUTS[1], BLOCK])
def test_in_single_precision_they_agree_to_rounding(cut, waist, paths, tmp_path):
    """With channels enough for Winograd's algorithm, whose blocks lie elsewhere in a piece."""
    wide = models.parameters((2, 2, 3, 3, 1), (16, 16, 24, 24, 32))
    own = load_network(models.save(models.vgg(wide), tmp_path / "wide.onnx"), dtype="float32", threads=1)
    options = {"style": OTHER, "style_statistics": STATISTICS}
    cut_up = objective(own, options, piece=cut, waist=waist)
    assert_same(cut_up, objective(own, options), value=1e-5, gradient=3e-5)


@pytest.mark.parametrize("waist", [None, WAIST])
def test_the_result_does_not_depend_on_the_number_of_threads(waist, paths):
    results = []
    for threads in (1, 3):
        own = load_network(paths["plain"], dtype="float32", threads=threads)
        results.append(objective(own, CASES["as the paper"], piece=BLOCK, waist=waist)(IMAGE))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("waist", [None, WAIST])
@pytest.mark.parametrize("name", ["a content mask", "total variation"])
def test_each_term_s_own_gradient_is_that_of_the_whole(name, waist, paths):
    own, options = network(paths), CASES[name]
    whole, cut_up = objective(own, options).gradient_norms(IMAGE), objective(own, options, piece=BLOCK, waist=waist)
    for kind, norms in cut_up.gradient_norms(IMAGE).items():
        assert norms == pytest.approx(whole[kind], rel=1e-10)
    assert_same(cut_up, objective(own, options))


@pytest.mark.parametrize("waist", [None, WAIST])
def test_what_is_not_finite_is_located(waist, paths):
    own = network(paths)
    cut_up = objective(own, {"style": PAINTING, "style_weight": 1e308}, piece=BLOCK, waist=waist)
    with pytest.raises(NonFiniteError, match=r"not finite: it began at"):
        cut_up(1e3 * IMAGE)


def narrower(needed):
    """Return halos that end a row too early."""

    def faulty(self, axis, layers):
        low, high = needed(self, axis, layers)
        return low, high - 1 if high < self.image[axis] else high

    return faulty


FAULTS = {
    "a halo one row too narrow": (pieces.Cutter, "_needed", narrower),
    "the sums of one piece for those of the whole": (
        engine.objective,
        "added_up",
        lambda add: lambda sums, more: sums.update(more),
    ),
    "the gradients of pieces that overlap not added": (
        pieces.Piece,
        "give_back",
        lambda give_back: lambda self, gradient, total: (total.fill(0), give_back(self, gradient, total)),
    ),
}


@pytest.mark.parametrize("waist", [None, WAIST])
@pytest.mark.parametrize("fault", FAULTS)
def test_pieces_that_are_not_the_whole_are_noticed(fault, waist, paths, monkeypatch):
    owner, name, faulty = FAULTS[fault]
    own, options = network(paths), CASES["as the paper"]
    whole = objective(own, options)
    whole(IMAGE)
    monkeypatch.setattr(owner, name, faulty(getattr(owner, name)))
    with pytest.raises(AssertionError):
        assert_same(objective(own, options, piece=(32, None), waist=waist), whole)


@pytest.mark.parametrize("waist", [None, "conv3_2"])
def test_a_term_that_is_no_sum_is_refused(waist, paths):
    options = {"style": PAINTING, "further_terms": (Square("conv3_1"),)}
    with pytest.raises(ValueError, match=r"the term square 'conv3_1' looks at a layer as a whole: it cannot be"):
        objective(network(paths), options, piece=BLOCK, waist=waist)


@pytest.mark.parametrize("layer", ["conv3_1", "conv3_3"])
def test_but_not_where_a_waist_gives_it_the_whole(layer, paths):
    own, options = network(paths), {"style": PAINTING, "further_terms": (Square(layer),)}
    assert_same(objective(own, options, piece=BLOCK, waist="conv3_1"), objective(own, options))


@pytest.mark.parametrize("length", [8, 16, 40])
def test_what_is_left_over_without_padding_goes_to_the_piece_before(length, tmp_path):
    """Ten convolutions leave 44 of 64 rows, so a last piece of the picture's rows may have no position in any layer."""
    shrinking = {"conv": unpadded_conv, "pool": models.unchanged}
    path = models.save(models.vgg(models.parameters((5, 5), (3, 4)), **shrinking), tmp_path / "unpadded.onnx")
    own = load_network(path, dtype="float64", threads=1)
    layers = dict.fromkeys(("content_layers", "style_layers"), own.layers[-1:])
    photo, image = (models.random_image(64, 64, seed=seed) for seed in (1, 2))
    cut_up, whole = (Objective(own, photo, photo[::-1], **layers, piece=piece) for piece in ((length, None), None))
    assert len(cut_up.pieces(photo.shape)) > 1
    assert_same(cut_up, whole, image)


@pytest.mark.parametrize("cut", [(16, None), (48, None), (64, 64)])
def test_a_piece_is_large_enough_also_for_layers_of_which_it_owns_nothing(cut, tmp_path):
    """Without padding, the last of a shallow layer's positions lie behind the last of a deep one's."""
    blocks = models.parameters((2, 2, 2, 1), (3, 4, 4, 4))
    path = models.save(models.vgg(blocks, conv=unpadded_conv), tmp_path / "unpadded.onnx")
    own = load_network(path, dtype="float64", threads=1)
    photo, image = (models.random_image(150, 130, seed=seed) for seed in (1, 2))
    layers = {"content_layers": own.layers[4:5], "style_layers": own.layers}
    cut_up, whole = (Objective(own, photo, photo[::-1], **layers, piece=piece) for piece in (cut, None))
    assert_same(cut_up, whole, image)


@pytest.mark.parametrize("cut", [(2, None), (3, None), (8, None), (8, 8)])
@pytest.mark.parametrize("layers", [(("a", "c"), ("a",)), (("a",), ("a", "c"))])
def test_a_piece_that_sees_padding_alone_reaches_the_edge(cut, layers):
    """Two paddings wider than their windows, behind each other: rows of the last layer are made of nothing else."""
    rng = np.random.default_rng(1)

    def conv(name, value, channels, side, pads):
        weight, bias = rng.standard_normal((side, side, channels, 2)), rng.uniform(0.5, 1, 2)
        return Node(name, Conv(weight, bias, Window((side, side), pads=pads), relu=True), value, name)

    nodes = (
        conv("a", "image", 3, 3, (1, 1, 1, 1)),
        conv("b", "a", 2, 1, (5, 0, 0, 0)),
        conv("c", "b", 2, 1, (3, 0, 0, 0)),
    )
    own = by_hand(nodes, {node.name: node.output for node in nodes})
    photo, image = rng.uniform(0, 255, (2, 24, 20, 3))
    cut_up, whole = (
        Objective(own, photo, photo[::-1, :15], *layers, content_weight=1.0, piece=piece) for piece in (cut, None)
    )
    assert_same(cut_up, whole, image)


@pytest.mark.parametrize("style", [PAINTING, [(PAINTING, 1.0), (OTHER, 1.0), (IMAGE, 1.0)]])
@pytest.mark.parametrize("piece", [None, (32, None)])
def test_features_of_one_part_of_a_painting_are_in_memory_at_a_time(style, piece, paths, monkeypatch):
    forward, made, there = Plan.forward, [], []

    def watched(self, *arguments, **options):
        there.append(sum(tape() is not None and bool(tape().features) for tape in made))
        tape = forward(self, *arguments, **options)
        made.append(weakref.ref(tape))
        return tape

    monkeypatch.setattr(Plan, "forward", watched)
    objective(network(paths), {"style": style, "style_statistics": STATISTICS}, piece=piece)
    assert len(there) > 1
    assert not any(there)


@pytest.mark.parametrize(
    ("waist", "reason"),
    [
        ("inner", r"'inner' is no waist: 'first', behind it, sees the image around it as well"),
        ("conv9_9", r"unknown layer 'conv9_9'"),
    ],
)
def test_a_waist_that_the_network_goes_around_is_refused(waist, reason, residual):
    with pytest.raises(ValueError, match=reason):
        Objective(residual, PHOTO, PAINTING, ("first",), ("inner", "second"), waist=waist)


@pytest.mark.parametrize("waist", ["stem", "first"])
def test_where_branches_meet_there_is_one(waist, residual):
    options = {"style": PAINTING, "content_layers": ("first",), "style_layers": ("inner", "second")}
    cut_up = objective(residual, options, piece=(16, None), waist=waist)
    assert_same(cut_up, objective(residual, options))


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """Return two residual blocks; ``first`` is read by both branches of the second."""
    layers = test_branches.Layers()
    model = layers.builder.model(test_branches.residual(layers))
    path = models.save(model, tmp_path_factory.mktemp("branches") / "residual.onnx")
    return load_network(path, dtype="float64", threads=1)


@pytest.mark.parametrize("edges", ["reflect", "wrap"])
def test_with_other_edges_there_is_no_waist(edges, paths):
    with pytest.raises(ValueError, match=rf"with the edges '{edges}' there is no waist: leave it out"):
        objective(network(paths), CASES["as the paper"], edges=edges, waist=WAIST)


@pytest.mark.parametrize("chosen", [{"piece": BLOCK}, {"edges": "reflect"}, {"waist": WAIST}])
def test_on_a_gpu_they_are_refused(chosen, paths, emulator):
    with pytest.raises(ValueError, match=r"are computed on the CPU alone: choose the device cpu"):
        objective(load_network(paths["plain"], device="cuda"), {"style": PAINTING}, **chosen)


def test_what_is_padded_otherwise_is_refused(tmp_path):
    def same_pool(builder, value):
        return builder.node("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")

    path = models.save(models.vgg(BLOCKS, pool=same_pool), tmp_path / "same.onnx")
    own = load_network(path, "model", dtype="float64", threads=1)
    with pytest.raises(ValueError, match=r"pads a piece of \d+x\d+ pixels in another way than the whole picture"):
        objective(own, CASES["as the paper"], edges="reflect")


# ---- edges ----

TILE = (64, 48)
BORDER = 96
MODES = {"reflect": "reflect", "repeat": "edge", "wrap": "wrap"}


def continued(image, edges, border=BORDER):
    return np.pad(image, ((border, border), (border, border), (0, 0)), mode=MODES[edges])


def by_definition(network, photo, painting, image, edges, alpha, beta):
    """Return value and gradient of content at conv3_2 and style at conv2_1 and conv4_1 of an image that goes on.

    The whole network runs on an image with more of it around than any response sees, the losses are written out, and
    the gradient of the border is added, value by value, where it was taken from.
    """
    layers, jumps = ("conv3_2", "conv2_1", "conv4_1"), {"conv3_2": 4, "conv2_1": 2, "conv4_1": 8}

    def inside(features, layer, like):
        begin, jump = BORDER // jumps[layer], jumps[layer]
        return features[begin : begin + like.shape[0] // jump, begin : begin + like.shape[1] // jump]

    def responses(picture, edges):
        tape = network.forward(continued(picture, edges), layers)
        return tape, {layer: inside(tape.features[layer], layer, picture).copy() for layer in layers}

    _, P = responses(photo, edges)
    _, of_style = responses(painting, "reflect" if edges == "wrap" else edges)
    tape, F = responses(image, edges)
    value = alpha * ((F["conv3_2"] - P["conv3_2"]) ** 2).sum() / 2
    found = {"conv3_2": alpha * (F["conv3_2"] - P["conv3_2"])}
    for layer in ("conv2_1", "conv4_1"):
        M, N = F[layer][..., 0].size, F[layer].shape[2]
        G = np.einsum("yxi,yxj->ij", F[layer], F[layer]) / M
        A = np.einsum("yxi,yxj->ij", of_style[layer], of_style[layer]) / of_style[layer][..., 0].size
        value += beta / 2 * ((G - A) ** 2).sum() / (4 * N**2)
        found[layer] = beta / 2 * np.einsum("ij,yxj->yxi", G - A, F[layer]) / (N**2 * M)
    gradients = {}
    for layer, gradient in found.items():
        gradients[layer] = np.zeros_like(tape.features[layer])
        inside(gradients[layer], layer, image)[...] = gradient
    of_border = network.backward(tape, gradients)
    places = np.arange(image[..., 0].size).reshape(image.shape[:2])
    from_where = np.pad(places, BORDER, mode=MODES[edges])
    folded = np.zeros((places.size, 3))
    np.add.at(folded, from_where.ravel(), of_border.reshape(-1, 3))
    return value, folded.reshape(image.shape)


@pytest.mark.parametrize("cut", [None, (32, None), (16, 16)])
@pytest.mark.parametrize("edges", MODES)
def test_other_edges_are_those_of_an_image_that_goes_on(edges, cut, paths):
    own = network(paths)
    photo, painting, image = (models.random_image(*TILE, seed=seed) for seed in (11, 12, 13))
    made = Objective(own, photo, painting, ("conv3_2",), ("conv2_1", "conv4_1"), 1e-4, 3e-5, edges=edges, piece=cut)
    value, gradient = made(image)
    expected, of_expected = by_definition(own, photo, painting, image, edges, 1e-4, 3e-5)
    assert value == pytest.approx(expected, rel=1e-12)
    assert np.linalg.norm(gradient - of_expected) < 1e-12 * np.linalg.norm(of_expected)


@pytest.mark.parametrize("edges", ["reflect", "repeat", "wrap"])
@pytest.mark.parametrize("name", ["as the paper", "regions and all statistics", "a content mask"])
def test_pieces_with_other_edges_are_the_whole_with_them(name, edges, paths):
    own, size = network(paths), (96, 64)
    image, options = models.random_image(*size, seed=14), dict(CASES[name])
    if options.get("content", PHOTO) is not None:
        options["content"] = models.random_image(*size, seed=15)
    if "regions" in options:
        options["regions"] = [Region(region.mask[: size[0], : size[1]], region.style) for region in options["regions"]]
    if "content_mask" in options:
        options["content_mask"] = MASK[: size[0], : size[1]]
    options["edges"] = edges
    assert_same(objective(own, options, piece=(16, 32)), objective(own, options), image)


@pytest.mark.parametrize(("statistic", "cut"), [*product(STATISTICS, (None, (16, None), (16, 16))), ("sliced", None)])
def test_the_loss_of_a_tile_does_not_depend_on_where_it_begins(statistic, cut, paths):
    own = network(paths)
    image = models.random_image(*TILE, seed=16)
    made = objective(
        own,
        {
            "content": None,
            "style": OTHER,
            "edges": "wrap",
            "piece": cut,
            "style_statistics": statistic,
            "further_terms": [Variation(1e-2, 1.0, wrap=True)],
        },
    )
    value, gradient = made(image)
    moved, of_moved = made(np.roll(image, (16, -32), axis=(0, 1)))
    assert moved == pytest.approx(value, rel=1e-12)
    expected = np.roll(gradient, (16, -32), axis=(0, 1))
    assert np.linalg.norm(of_moved - expected) < 1e-12 * np.linalg.norm(expected)


def test_that_of_the_network_s_own_edges_does(paths):
    """The test above can fail."""
    image = models.random_image(*TILE, seed=16)
    for edges in ("zero", "reflect", "repeat"):
        made = objective(network(paths), {"content": None, "style": OTHER, "edges": edges})
        assert abs(made(np.roll(image, 16, axis=0))[0] / made(image)[0] - 1) > 1e-6


@pytest.mark.parametrize("edges", MODES)
def test_a_picture_smaller_than_what_a_response_sees_goes_on_as_often_as_it_takes(edges, paths):
    own = network(paths)
    photo, image = models.random_image(16, 16, seed=17), models.random_image(16, 16, seed=18)
    made = objective(own, {"content": photo, "style": OTHER, "edges": edges})
    if edges == "wrap":  # a tile and four of it side by side look the same from everywhere
        four = objective(own, {"content": np.tile(photo, (2, 2, 1)), "style": OTHER, "edges": edges})
        made(image)
        four(np.tile(image, (2, 2, 1)))
        assert four.terms["style"] == pytest.approx(made.terms["style"], rel=1e-11)
        assert four.terms["content"]["conv4_2"] == pytest.approx(4 * made.terms["content"]["conv4_2"], rel=1e-11)
    assert np.isfinite(made(image)[0])


@pytest.mark.parametrize("size", [1, 2, 3, 10])
@pytest.mark.parametrize("edges", MODES)
def test_rows_beyond_the_edge_are_numpy_s(edges, size):
    expected = np.pad(np.arange(size), 25, mode=MODES[edges])
    assert sources(range(-25, size + 25), size, edges) == list(expected)


def test_a_tile_has_sides_that_divide_by_the_stride(paths):
    with pytest.raises(ValueError, match=r"a picture that is to be tiled has a height that divides by 16, not 70"):
        objective(network(paths), {"content": None, "style": OTHER, "edges": "wrap"})(OTHER)


def test_unknown_edges_are_refused(paths):
    with pytest.raises(ValueError, match=r"unknown edges 'mirror'"):
        objective(network(paths), {"style": OTHER, "edges": "mirror"})
