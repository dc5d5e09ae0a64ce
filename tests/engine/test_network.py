"""The network: equal to the naive twins put one behind the other, forward and backward, and sparing with memory."""

import dataclasses
import gc
import math
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ModelError
from engine.gradcheck.problem import in_precision
from engine.graph import Node
from engine.load import load_network
from engine.network import Network
from engine.ops import Affine, AveragePool, Conv, MaxPool, Pad, Relu
from engine.preprocessing import PREPROCESSING
from kernels import Cpu
from kernels.geometry import Window
from tests.engine import models

BLOCKS = models.parameters((2, 2, 2))
NAMES = models.names(BLOCKS)
# Wide enough for the fast algorithms of float32.
WIDE = models.parameters((2, 2, 2), (16, 24, 32))
IMAGE = models.random_image(13, 11)
STEP = 1e-30


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "tiny": models.save(models.vgg(BLOCKS), folder / "tiny.onnx"),
        "wide": models.save(models.vgg(WIDE), folder / "wide.onnx"),
    }


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def random_gradients(network, image, layers, seed=5):
    """Return a derivative for each layer's features, (H_l, W_l, N_l), as functions."""
    rng = np.random.default_rng(seed)
    shapes = network.shapes(*image.shape[:2], layers)
    arrays = {name: rng.standard_normal(shapes[name]).astype(network.dtype) for name in layers}
    return arrays, {name: adding(arrays[name]) for name in layers}


def adding(array):
    """Return the function that adds ``array`` to the gradient that flows into a layer."""
    return lambda flowing: array.copy() if flowing is None else flowing + array


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "moved axes": lambda array: np.ascontiguousarray(array.transpose(2, 0, 1)).transpose(1, 2, 0),
    "flipped": lambda array: array[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "every other": lambda array: np.repeat(array, 2, axis=1)[:, ::2],
}


# ---- gradients ----


@pytest.mark.parametrize("size", [(13, 11), (16, 12)])
@pytest.mark.parametrize("layers", [NAMES[:1], NAMES[-1:], ("conv1_2", "conv2_1", "conv3_1"), NAMES])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_gradient_is_the_complex_step_derivative(pooling, layers, size, paths):
    image, direction = models.random_image(*size), np.random.default_rng(1).standard_normal((*size, 3))
    stepped = load_network(paths["tiny"], pooling, dtype="complex128", threads=1)
    network = load_network(paths["tiny"], pooling, dtype="float64", threads=1)
    arrays, functions = random_gradients(network, image, layers)
    gradient = network.backward(network.forward(image, layers), functions)
    features = stepped.forward(image + 1j * STEP * direction, layers).features
    derivative = sum((arrays[name] * features[name]).sum() for name in layers).imag / STEP
    scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
    assert abs(np.vdot(gradient, direction) - derivative) < 1e-14 * scale
    assert abs(derivative) > 1e-4 * scale


@pytest.mark.parametrize("preprocessing", PREPROCESSING)
def test_gradient_is_in_the_images_own_units(preprocessing, paths):
    direction = np.random.default_rng(1).standard_normal(IMAGE.shape)
    arguments = {"threads": 1, "preprocessing": preprocessing}
    stepped = load_network(paths["tiny"], dtype="complex128", **arguments)
    network = load_network(paths["tiny"], dtype="float64", **arguments)
    arrays, functions = random_gradients(network, IMAGE, ["conv2_1"])
    gradient = network.backward(network.forward(IMAGE, ["conv2_1"]), functions)
    feature = stepped.forward(IMAGE + 1j * STEP * direction, ["conv2_1"]).features["conv2_1"]
    derivative = (arrays["conv2_1"] * feature).sum().imag / STEP
    scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
    assert abs(np.vdot(gradient, direction) - derivative) < 1e-14 * scale


def by_hand(nodes, outputs, dtype="float64"):
    """Return a network of nodes that no reader has seen."""
    return Network(
        nodes=tuple(dataclasses.replace(node, operator=node.operator.astype(np.dtype(dtype))) for node in nodes),
        outputs=outputs,
        preprocessing=PREPROCESSING["raw"],
        dtype=np.dtype(dtype),
        device=Cpu(1),
        content_weight=1.0,
        rejected=(),
    )


def convolution(seed, channels, filters, relu=True):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((3, 3, channels, filters)) / np.sqrt(9 * channels)
    return Conv(weight, rng.standard_normal(filters), Window((3, 3), pads=(1, 1, 1, 1)), relu=relu)


# Everything that can stand in a graph, with two values that several nodes read.
BRANCHING = (
    Node("front", Affine(np.array([0.5, -1.0, 2.0]), np.array([1.0, 2.0, 3.0])), "image", "a"),
    Node("stem", convolution(0, 3, 5, relu=False), "a", "b"),
    Node("left relu", Relu(), "b", "left"),
    Node("turned", Affine(np.array([-1.0]), np.array([0.5])), "b", "c"),
    Node("right relu", Relu(), "c", "right"),
    Node("left frame", Pad((2, 1, 0, 3), "reflect"), "left", "f"),
    Node("left pool", AveragePool(Window((2, 2), strides=(2, 2))), "f", "d"),
    Node("left conv", convolution(1, 5, 4), "d", "left end"),
    Node("right pool", MaxPool(Window((3, 3), strides=(2, 2), pads=(1, 1, 1, 1))), "right", "e"),
    Node("right conv", convolution(2, 5, 6), "e", "right end"),
    Node("again", convolution(3, 5, 3), "left", "third end"),
)
ENDS = {name: name for name in ("left", "right", "left end", "right end", "third end")}


@pytest.mark.parametrize(
    "layers", [("left", "right"), ("left end", "right end"), ("left", "left end", "third end"), tuple(ENDS)]
)
def test_gradients_of_a_value_that_several_nodes_read_are_summed(layers):
    direction = np.random.default_rng(1).standard_normal(IMAGE.shape)
    network, stepped = by_hand(BRANCHING, ENDS), by_hand(BRANCHING, ENDS, "complex128")
    arrays, functions = random_gradients(network, IMAGE, layers)
    gradient = network.backward(network.forward(IMAGE, layers), functions)
    features = stepped.forward(IMAGE + 1j * STEP * direction, layers).features
    derivative = sum((arrays[name] * features[name]).sum() for name in layers).imag / STEP
    scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
    assert abs(np.vdot(gradient, direction) - derivative) < 1e-14 * scale
    alone = []
    for name in layers:
        alone.append(network.backward(network.forward(IMAGE, layers), {name: functions[name]}))
    np.testing.assert_allclose(sum(alone), gradient, rtol=0, atol=1e-12 * abs(gradient).max())


def test_two_names_of_one_value_are_both_injected():
    network = by_hand(BRANCHING, {"left end": "left end", "alias": "left end"})
    layers = ("left end", "alias")
    arrays, functions = random_gradients(network, IMAGE, layers)
    gradient = network.backward(network.forward(IMAGE, layers), functions)
    total = sum(arrays.values())
    expected = network.backward(network.forward(IMAGE, ["left end"]), {"left end": adding(total)})
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-13 * abs(gradient).max())


def test_only_what_leads_to_the_layers_is_run():
    network = by_hand(BRANCHING, ENDS)
    names = {node.label: node.name for node in BRANCHING}
    seen = []
    tape = network.forward(IMAGE, ["right end"], observe=lambda label, output: seen.append(names[label]))
    assert seen == ["front", "stem", "turned", "right relu", "right pool", "right conv"]
    seen.clear()
    _, functions = random_gradients(network, IMAGE, ["right end"])
    network.backward(tape, functions, observe=lambda label, gradient: seen.append(names[label]))
    assert seen == ["right conv", "right pool", "right relu", "turned", "stem", "front"]


def test_the_backward_pass_changes_nothing_it_was_given(paths):
    network = load_network(paths["tiny"], dtype="float64", threads=1)
    image = IMAGE.copy()
    tape = network.forward(image, NAMES)
    features = dict(tape.features)
    copies = {name: array.copy() for name, array in features.items()}
    weights = [node.operator.weight.copy() for node in network.nodes if isinstance(node.operator, Conv)]
    _, functions = random_gradients(network, IMAGE, NAMES)
    network.backward(tape, functions)
    np.testing.assert_array_equal(image, IMAGE)
    for name in NAMES:
        np.testing.assert_array_equal(features[name], copies[name])
    convolutions = [node.operator for node in network.nodes if isinstance(node.operator, Conv)]
    for operator, weight in zip(convolutions, weights, strict=True):
        np.testing.assert_array_equal(operator.weight, weight)


@pytest.mark.parametrize("model", ["tiny", "wide"])
def test_a_copied_tape_gives_the_same_gradient_once_more(model, paths):
    network = load_network(paths[model], threads=1)
    tape = network.forward(IMAGE, NAMES)
    copy = tape.copy()
    _, functions = random_gradients(network, IMAGE, NAMES)
    first = network.backward(copy, functions)
    np.testing.assert_array_equal(network.backward(tape, functions), first)
    assert not tape.saved
    assert not tape.features


def test_a_backward_pass_without_gradients_is_refused(paths):
    network = load_network(paths["tiny"], threads=1)
    with pytest.raises(ValueError, match="no gradient flows to the image: give one for at least one layer"):
        network.backward(network.forward(IMAGE, NAMES), {})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["array", "function", "only where something flows"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layers_gradient_may_lie_in_memory_as_it_likes(layout, how, dtype, paths):
    """A mask that is written through a view of a copy would be lost without a word."""
    network = load_network(paths["tiny"], dtype=dtype, threads=1)
    arrays, functions = random_gradients(network, IMAGE, NAMES)
    expected = network.backward(network.forward(IMAGE, NAMES), functions)
    moved = {name: LAYOUTS[layout](array) for name, array in arrays.items()}
    before = {name: array.copy() for name, array in moved.items()}
    given = {
        "array": moved,
        "function": {
            name: lambda flowing, own=array: own if flowing is None else LAYOUTS[layout](flowing + own)
            for name, array in moved.items()
        },
        "only where something flows": {
            name: moved[name] if index % 2 else functions[name] for index, name in enumerate(NAMES)
        },
    }[how]
    np.testing.assert_array_equal(network.backward(network.forward(IMAGE, NAMES), given), expected)
    for name, array in moved.items():
        np.testing.assert_array_equal(array, before[name], err_msg="it was changed")


def test_one_number_for_all_of_a_layer_may_be_broadcast(paths):
    network = load_network(paths["tiny"], dtype="float64", threads=1)
    shape = network.shapes(13, 11)["conv2_1"]
    gradients = [
        network.backward(network.forward(IMAGE, ["conv2_1"]), {"conv2_1": array})
        for array in (np.ones(shape), np.broadcast_to(1.0, shape))
    ]
    np.testing.assert_array_equal(*gradients)


def test_a_layers_gradient_of_another_shape_is_refused(paths):
    network = load_network(paths["tiny"], threads=1)
    with pytest.raises(ValueError, match=r"the gradient of 'conv2_1' has the shape \(1,\), its features \("):
        network.backward(network.forward(IMAGE, ["conv2_1"]), {"conv2_1": np.ones(1)})


def test_a_layers_gradient_is_asked_for_when_its_turn_comes(paths):
    network = load_network(paths["tiny"], threads=1)
    asked = []

    def gradient(name):
        asked.append(name)
        return np.ones(network.shapes(13, 11)[name], network.dtype)

    tape = network.forward(IMAGE, NAMES)
    network.backward(tape, {name: lambda flowing, name=name: gradient(name) for name in NAMES})
    assert asked == list(reversed(NAMES))


# ---- features ----


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13), ("complex128", 1e-13)])
@pytest.mark.parametrize("pooling", ["average", "max", "model"])
def test_features_equal_the_naive_network(pooling, dtype, tolerance, paths):
    image = IMAGE + 1j * models.random_image(13, 11, seed=1) if dtype == "complex128" else IMAGE
    network = load_network(paths["tiny"], pooling, dtype=dtype, threads=1)
    features = network.features(image, NAMES)
    expected = models.naive_features(BLOCKS, image, "average" if pooling == "average" else "max")
    for name in NAMES:
        assert features[name].dtype == dtype
        assert features[name].shape == expected[name].shape
        assert relative(features[name], expected[name]) < tolerance, name


def test_features_come_as_channels_height_width(paths):
    network = load_network(paths["tiny"], threads=1)
    features = network.features(IMAGE, NAMES)
    sizes = {1: (13, 11), 2: (6, 5), 3: (3, 2)}
    for name in NAMES:
        block = int(name[4])
        assert features[name].shape == (len(BLOCKS[block - 1][0][1]), *sizes[block])


def test_features_do_not_depend_on_what_else_is_asked_for(paths):
    for model in ("tiny", "wide"):
        network = load_network(paths[model], threads=1)
        together = network.features(IMAGE, NAMES)
        for name in NAMES:
            alone = network.features(IMAGE, name)
            assert list(alone) == [name]
            np.testing.assert_array_equal(alone[name], together[name], err_msg=f"{model} {name}")


def test_bytes_are_taken_as_the_same_floats(paths):
    network = load_network(paths["tiny"], threads=1)
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3), np.uint8)
    expected = network.features(image.astype(np.float64), ["conv3_1"])["conv3_1"]
    for given in (image, image.astype(np.float32), np.asfortranarray(image), image[:, ::-1][:, ::-1]):
        np.testing.assert_array_equal(network.features(given, ["conv3_1"])["conv3_1"], expected)


# ---- pooling ----


def test_every_pooling_is_replaced_with_its_window_kept(tmp_path):
    windows = iter([{"ceil_mode": 1, "pads": [1, 0, 0, 1]}, {"kernel_shape": [3, 3], "strides": [1, 2]}])

    def pool(builder, value):
        return builder.node("MaxPool", value, **({"kernel_shape": [2, 2], "strides": [2, 2]} | next(windows)))

    path = models.save(models.vgg(models.parameters((2, 2, 1)), pool=pool), tmp_path / "m.onnx")
    found = {
        pooling: [node.operator for node in load_network(path, pooling).nodes if not isinstance(node.operator, Conv)]
        for pooling in ("average", "max", "model")
    }
    expected = [Window((2, 2), (2, 2), (1, 0, 0, 1), ceil_mode=True), Window((3, 3), (1, 2))]
    assert found["average"] == [AveragePool(window, count_include_pad=False) for window in expected]
    assert found["max"] == found["model"] == [MaxPool(window) for window in expected]


def test_a_models_own_averages_stay_as_they_are_unless_maxima_are_asked_for(tmp_path):
    def pool(builder, value):
        return builder.node("AveragePool", value, kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)

    path = models.save(models.vgg(models.parameters((2, 1)), pool=pool), tmp_path / "m.onnx")
    window = Window((2, 2), pads=(1, 1, 1, 1))
    for pooling in ("average", "model"):
        assert load_network(path, pooling).nodes[2].operator == AveragePool(window, count_include_pad=True)
    assert load_network(path, "max").nodes[2].operator == MaxPool(window)


# ---- one form of each weight ----


@pytest.mark.parametrize("name", ["tiny", "wide"])
def test_a_compact_network_gives_the_same_bits(name, paths):
    network, layers = load_network(paths[name], threads=1), ("conv1_1", "conv2_2")
    for compact in (network.compact(), network.compact(layers), network.compact().compact(layers)):
        assert compact.shapes(13, 11, layers) == network.shapes(13, 11, layers)
        assert compact.multiply_adds(13, 11, layers) == network.multiply_adds(13, 11, layers)
        assert compact.weight_bytes(layers) == network.weight_bytes(layers)
        results = []
        for one in (network, compact):
            tape = one.forward(IMAGE, layers)
            features = dict(tape.features)
            _, functions = random_gradients(one, IMAGE, layers)
            results.append([*features.values(), one.backward(tape, functions)])
        for found, expected in zip(*results, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_a_compact_network_goes_as_far_as_its_layers_do(paths):
    network = load_network(paths["tiny"], threads=1)
    compact = network.compact(["conv2_1"])
    assert compact.layers == NAMES[:3]
    with pytest.raises(ValueError, match="unknown layer 'conv3_1'"):
        compact.features(IMAGE, "conv3_1")
    assert network.compact().layers == network.layers
    with pytest.raises(ValueError, match="unknown layer 'conv9_1'"):
        network.compact(["conv9_1"])


def test_a_compact_network_has_no_weights_for_another_precision(paths):
    with pytest.raises(ValueError, match="a compact network has no weights to convert"):
        in_precision(load_network(paths["tiny"]).compact(), "float64")


@pytest.fixture
def no_garbage_collection():
    """Have what is in a circle of references stay."""
    gc.disable()
    yield
    gc.enable()


def test_a_compact_network_lets_go_of_weights_in_other_forms(paths, no_garbage_collection):
    network = load_network(paths["wide"], threads=1)
    weights = {
        node.name: weakref.ref(node.operator.weight) for node in network.nodes if isinstance(node.operator, Conv)
    }
    compact = network.compact(["conv2_2", "conv3_1"])
    del network
    # What no algorithm holds goes at once, the others with their first use; the direct one takes its own as it is.
    assert [name for name, weight in weights.items() if weight() is None] == ["conv3_2"]
    compact.features(IMAGE, "conv2_2")
    assert [name for name, weight in weights.items() if weight() is not None] == ["conv1_1", "conv3_1"]


# ---- the fast algorithms ----


@pytest.mark.parametrize("size", [(13, 11), (40, 37)])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_fast_convolutions_equal_the_direct_ones(pooling, size, paths):
    image = models.random_image(*size)
    fast = load_network(paths["wide"], pooling, threads=1)
    direct = load_network(paths["wide"], pooling, threads=1, convolution="direct")
    exact = load_network(paths["wide"], pooling, threads=1, dtype="float64")
    tape = fast.forward(image, NAMES[-1:])
    assert "WinogradConvolution" in models.algorithms(tape.plan.nodes)
    for network in (direct, exact):
        assert "WinogradConvolution" not in models.algorithms(network.forward(image, NAMES).plan.nodes)
    for layers in (NAMES[-1:], ("conv1_1", "conv2_1", "conv3_1"), NAMES):
        features = [network.features(image, layers) for network in (fast, direct, exact)]
        for name in layers:
            assert relative(features[0][name], features[2][name]) < 5e-6, name
            assert relative(features[1][name], features[2][name]) < 5e-6, name
        gradients = []
        for network in (fast, direct, exact):
            arrays, _ = random_gradients(exact, image, layers)
            functions = {name: adding(a.astype(network.dtype)) for name, a in arrays.items()}
            gradients.append(network.backward(network.forward(image, layers), functions))
        # A response within rounding of zero may fall on the other side of the ReLU.
        assert relative(gradients[0], gradients[2]) < 1e-3, layers
        assert relative(gradients[1], gradients[2]) < 1e-3, layers


def test_a_pooling_is_taken_into_the_convolution_unless_the_values_before_it_are_kept(paths):
    network = load_network(paths["wide"], threads=1)
    pooled = [
        node.label for node in network.forward(IMAGE, ["conv3_1"]).plan.nodes if getattr(node.operator, "pool", 0)
    ]
    assert pooled == ["Conv 'conv1_2'", "Conv 'conv2_2'"]
    kept = network.forward(IMAGE, ["conv1_2", "conv3_1"])
    pooled = [node.label for node in kept.plan.nodes if getattr(node.operator, "pool", 0)]
    assert pooled == ["Conv 'conv2_2'"]
    assert sum(isinstance(node.operator, AveragePool) for node in kept.plan.nodes) == 1


def test_a_pooling_is_taken_into_the_convolution_only_if_nothing_else_reads_the_values_before_it():
    pooling = AveragePool(Window((2, 2), strides=(2, 2)))
    nodes = (
        Node("first", convolution(0, 3, 16), "image", "a"),
        Node("second", convolution(1, 16, 16), "a", "b"),
        Node("pool", pooling, "b", "c"),
        Node("left", convolution(2, 16, 16), "c", "left"),
        Node("right", convolution(3, 16, 16), "b", "right"),
    )
    ends = {"left": "left", "right": "right"}
    fast, exact = by_hand(nodes, ends, "float32"), by_hand(nodes, ends)
    tape = fast.forward(IMAGE, ends)
    direct, winograd = "DirectConvolution", "WinogradConvolution"
    assert models.algorithms(tape.plan.nodes) == [direct, winograd, "AveragePool", winograd, winograd]
    for name, values in exact.forward(IMAGE, ends).features.items():
        assert relative(tape.features[name], values) < 5e-6
    # With only one of the two readers asked for, the pooling goes in.
    assert models.algorithms(fast.forward(IMAGE, ["left"]).plan.nodes) == [direct, winograd, winograd]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_same_bits_at_any_thread_count(pooling, dtype, paths):
    image = models.random_image(131, 117)
    layers = ("conv1_1", "conv2_1", "conv3_2")
    results = []
    for threads in (1, 2, 3, 5):
        network = load_network(paths["wide"], pooling, dtype=dtype, threads=threads)
        tape = network.forward(image, layers)
        features = b"".join(tape.features[name].tobytes() for name in layers)
        _, functions = random_gradients(network, image, layers)
        results.append((features, network.backward(tape, functions).tobytes()))
    assert len(set(results)) == 1


# ---- memory ----


def saved_by_name(network, layers):
    tape = network.forward(IMAGE, layers)
    return {node.name: saved for node, saved in zip(tape.plan.nodes, tape.saved, strict=True)}


def bits(height, width, channels):
    return -(-height * width * channels // 8)


def test_the_tape_holds_masks_and_shapes_and_no_activation(paths):
    saved = saved_by_name(load_network(paths["tiny"], threads=1), ["conv1_1", "conv3_1"])
    # A kept layer's own features tell the mask.
    assert saved["conv1_1"] == ((13, 11, 3), None)
    assert saved["conv3_1"] == ((3, 2, 6), None)
    assert saved["maxpool1"] == (13, 11, 5)
    for name, input_shape, output in (
        ("conv1_2", (13, 11, 5), (13, 11, 5)),
        ("conv2_1", (6, 5, 5), (6, 5, 6)),
        ("conv2_2", (6, 5, 6), (6, 5, 6)),
    ):
        shape, mask = saved[name]
        assert shape == input_shape
        assert mask.dtype == np.uint8
        assert mask.nbytes == bits(*output)


def test_the_tape_of_other_operators_holds_masks_and_shapes_and_no_activation():
    saved = saved_by_name(by_hand(BRANCHING, ENDS), ["left", "right end"])
    assert saved["front"] is saved["turned"] is None
    assert saved["left relu"] is None  # kept: its own features tell the mask
    assert saved["right relu"].nbytes == bits(13, 11, 5)
    assert saved["stem"] == ((13, 11, 3), None)


def test_the_fast_algorithms_tape_holds_masks_and_shapes_and_no_activation(paths):
    saved = saved_by_name(load_network(paths["wide"], threads=1), ["conv3_1"])
    assert len(saved) == 5  # the poolings are in the convolutions
    for name, output in (("conv1_2", (13, 11, 16)), ("conv2_1", (6, 5, 24)), ("conv2_2", (6, 5, 24))):
        _, mask = saved[name]
        assert mask.nbytes == bits(*output)
    assert saved["conv3_1"][1] is None


def test_a_maximums_tape_holds_a_byte_for_each_output(paths):
    saved = saved_by_name(load_network(paths["tiny"], "max", threads=1), ["conv3_1"])
    winners, shape = saved["maxpool1"]
    assert shape == (13, 11, 5)
    assert winners.shape == (6, 5, 5)
    assert winners.dtype == np.uint8


@pytest.mark.parametrize("model", ["tiny", "wide"])
def test_nothing_but_the_features_asked_for_outlives_the_forward_pass(model, paths):
    network = load_network(paths[model], threads=1)
    alive = []
    tape = network.forward(IMAGE, ["conv2_1"], observe=lambda label, output: alive.append(weakref.ref(output)))
    left = [array for array in (reference() for reference in alive) if array is not None]
    assert [id(array) for array in left] == [id(tape.features["conv2_1"])]
    # ... nor is it kept as the base of a view.
    assert tape.features["conv2_1"].base is None or tape.features["conv2_1"].base.nbytes == left[0].nbytes


@pytest.mark.parametrize("model", ["tiny", "wide"])
def test_features_are_let_go_as_the_backward_pass_comes_by(model, paths):
    network = load_network(paths[model], threads=1)
    tape = network.forward(IMAGE, NAMES)
    alive = {name: weakref.ref(array) for name, array in tape.features.items()}
    _, functions = random_gradients(network, IMAGE, NAMES)
    seen = {}

    def observe(label, gradient):
        seen[label] = [name for name, reference in alive.items() if reference() is not None]

    network.backward(tape, functions, observe=observe)
    for place, name in enumerate(NAMES):
        # The one whose turn it is may still be in use.
        assert seen[f"Conv {name!r}"] in (list(NAMES[:place]), list(NAMES[: place + 1]))


@pytest.mark.slow
@pytest.mark.parametrize("convolution", ["auto", "direct"])
@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("layers", [("conv3_1",), ("conv1_1", "conv2_1", "conv3_1")])
def test_estimated_memory_is_within_30_percent_of_what_is_allocated(layers, pooling, convolution, tmp_path):
    path = models.save(models.vgg(models.parameters((2, 2, 1), (32, 32, 32))), tmp_path / "m.onnx")
    network = load_network(path, pooling, threads=1, convolution=convolution)
    image = models.random_image(500, 600)
    shapes = network.shapes(500, 600)
    small = models.random_image(16, 16)
    functions = {name: adding(np.ones(shapes[name], network.dtype)) for name in layers}
    # Weights in the form of each algorithm, and the threads' own memory, are made at the first run.
    network.forward(small, layers)
    tracemalloc.start()
    try:
        network.backward(network.forward(image, layers), functions)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    estimate = network.memory(500, 600, layers)
    assert 0.7 < estimate / peak < 1.3, (estimate, peak)


def test_weights_and_multiplications_are_counted(paths):
    network = load_network(paths["tiny"], threads=1)
    first, second, third = BLOCKS[0][0], BLOCKS[0][1], BLOCKS[1][0]
    assert network.weight_bytes(["conv2_1"]) == 2 * (first[0].size + second[0].size + third[0].size) * 4
    assert network.weight_bytes_to_come(["conv2_1"]) == network.weight_bytes(["conv2_1"])
    expected = 13 * 11 * (first[0].size + second[0].size) + 6 * 5 * third[0].size
    assert network.multiply_adds(13, 11, ["conv2_1"]) == expected


@pytest.mark.parametrize("convolution", ["auto", "direct"])
def test_what_an_evaluation_has_made_of_the_weights_is_not_to_come_again(convolution, tmp_path):
    """Of a direct convolution the flipped weight is made, of Winograd's all that it holds."""
    blocks = models.parameters((2, 1), (16, 16))
    path = models.save(models.vgg(blocks), tmp_path / "m.onnx")
    network, layers = load_network(path, convolution=convolution, threads=1), ["conv1_1", "conv2_1"]
    sizes = [weight.size * 4 for block in blocks for weight, _ in block]
    held = network.weight_bytes(layers)
    assert held == (2 * sizes[0] + 4 * sum(sizes[1:]) if convolution == "auto" else 2 * sum(sizes))
    assert network.weight_bytes_to_come(layers) == held
    tape = network.forward(IMAGE, layers)
    network.backward(tape, {name: adding(np.ones_like(array)) for name, array in tape.features.items()})
    assert network.weight_bytes_to_come(layers) == (sizes[0] if convolution == "auto" else sum(sizes))
    assert network.weight_bytes(layers) == held
    assert network.compact(layers).weight_bytes_to_come(layers) == network.weight_bytes_to_come(layers)


# ---- what is asked of it ----


def test_shapes_are_those_of_the_features(paths):
    network = load_network(paths["tiny"], threads=1)
    tape = network.forward(IMAGE, NAMES)
    assert network.shapes(13, 11) == {name: tape.features[name].shape for name in NAMES}
    assert list(network.shapes(13, 11, ["conv3_1", "conv1_1"])) == ["conv3_1", "conv1_1"]


def test_an_image_that_is_too_small_is_refused_with_the_node_that_it_does_not_reach(paths):
    network = load_network(paths["tiny"], threads=1)
    message = (
        r"an image of 9x3 pixels is too small for the network, it needs at least \d+x\d+: AveragePool 'maxpool2': "
    )
    with pytest.raises(ValueError, match=message):
        network.features(np.zeros((3, 9, 3)), ["conv3_1"])
    # Layers before that are fine.
    assert network.features(np.zeros((3, 9, 3)), ["conv2_2"])["conv2_2"].shape == (6, 1, 4)
    with pytest.raises(
        ValueError, match="an image of 0x0 pixels is too small for the network, it needs at least 1x1: Conv 'conv1_1'"
    ):
        network.features(np.zeros((0, 0, 3)), ["conv1_1"])


@pytest.mark.parametrize("model", ["tiny", "wide"])
def test_the_smallest_image_runs_there_and_back(model, paths):
    network = load_network(paths[model], threads=1)
    image = models.random_image(4, 4)
    _, functions = random_gradients(network, image, NAMES)
    gradient = network.backward(network.forward(image, NAMES), functions)
    assert gradient.shape == (4, 4, 3)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8)), r"an image must have the shape \(H, W, 3\), got \(8, 8\)"),
        (np.zeros((8, 8, 4)), r"an image must have the shape \(H, W, 3\), got \(8, 8, 4\)"),
        (np.zeros((3, 8, 8)), r"an image must have the shape \(H, W, 3\), got \(3, 8, 8\)"),
        (np.zeros((1, 8, 8, 3)), r"an image must have the shape \(H, W, 3\), got \(1, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), int), "an image must be uint8 or floating, got int64"),
        (np.zeros((8, 8, 3), bool), "an image must be uint8 or floating, got bool"),
        (np.zeros((8, 8, 3), complex), "an image must be uint8 or floating, got complex128"),
        (np.full((8, 8, 3), np.nan), "the image has values that are infinite or not a number"),
        (np.full((8, 8, 3), np.inf, np.float32), "the image has values that are infinite or not a number"),
    ],
)
def test_what_is_no_image_is_refused(image, message, paths):
    network = load_network(paths["tiny"], threads=1)
    with pytest.raises(ValueError, match=message):
        network.features(image, ["conv1_1"])


def test_an_unknown_layer_is_answered_with_the_nearest(paths):
    network = load_network(paths["tiny"], threads=1)
    with pytest.raises(
        ValueError, match=r"unknown layer 'conv21'; did you mean 'conv2_1'\? choose from conv1_1, conv1"
    ):
        network.features(IMAGE, ["conv21"])
    with pytest.raises(ValueError, match="unknown layer 'conv4_1'"):
        network.shapes(64, 64, ["conv4_1"])
    with pytest.raises(ValueError, match="unknown layer 'conv4_1'"):
        network.memory(64, 64, ["conv4_1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"pooling": "avarage"},
            r"unknown pooling 'avarage'; did you mean 'average'\? choose from average, max, model",
        ),
        ({"dtype": "float33"}, "unknown dtype 'float33'; did you mean 'float3?2?"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; .*choose from float32, float64, complex128"),
        ({"device": "gpu"}, "unknown device 'gpu'; .*choose from auto, cpu, cuda"),
        ({"preprocessing": "Caffe"}, r"unknown preprocessing 'Caffe'; did you mean 'caffe'\?"),
        ({"convolution": "directly"}, r"unknown convolution 'directly'; did you mean 'direct'\?"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_choices(arguments, message, paths):
    with pytest.raises(ValueError, match=message):
        load_network(paths["tiny"], **arguments)


def test_a_network_without_any_layer_is_refused(tmp_path):
    def pointless(builder, value):
        return models.plain_conv(builder, value, *models.parameters((1,))[0][0])

    builder = models.Builder()
    path = models.save(builder.model(pointless(builder, "image")), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx: the network has no convolution followed by a ReLU$"):
        load_network(path)


def test_paths_may_be_text(paths):
    assert load_network(str(paths["tiny"])).layers == load_network(Path(paths["tiny"])).layers == NAMES


def test_features_have_the_scale_their_random_weights_were_made_for():
    """What the tolerances above stand on: no layer dies out or explodes."""
    for blocks in (BLOCKS, WIDE):
        for name, values in models.naive_features(blocks, models.random_image(8, 8)).items():
            assert 1 < math.sqrt((values**2).mean()) < 1e4, name
