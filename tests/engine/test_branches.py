"""Networks whose branches meet again, in a sum or in one row of channels: residual blocks, fire modules, Inception."""

import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import onnx
import pytest

from engine import Objective, load_network, minimize
from engine.errors import ModelError
from engine.graph import Node
from engine.network import Network
from engine.onnx.graph import load_graph
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import Add, AveragePool, Concat, Conv, MaxPool, Relu
from engine.preprocessing import PREPROCESSING
from kernels import Cpu
from kernels.geometry import Window
from tests.engine import models
from tests.engine.onnx.models import light_model, with_random_weights

STEP = 1e-30
IMAGE = models.random_image(14, 18)


class Layers:
    """Writes convolutions with random weights into a graph."""

    def __init__(self, seed=0):
        self.builder, self.rng = models.Builder(), np.random.default_rng(seed)

    def conv(self, value, channels, filters, size=3, stride=1, bias=True):
        weight = self.rng.standard_normal((filters, channels, size, size)) * np.sqrt(2 / (size * size * channels))
        names = [self.builder.weight(weight)]
        names += [self.builder.weight(self.rng.standard_normal(filters))] if bias else []
        pads, strides = [size // 2] * 4, [stride] * 2
        return self.builder.node("Conv", value, *names, kernel_shape=[size, size], pads=pads, strides=strides)

    def relu(self, value, name=None):
        return self.builder.node("Relu", value, outputs=[name] if name else None)

    def pool(self, value, kind="MaxPool", size=2, stride=2, pads=(0, 0, 0, 0)):
        return self.builder.node(kind, value, kernel_shape=[size] * 2, strides=[stride] * 2, pads=list(pads))

    def norm(self, value, channels):
        rng = self.rng
        values = [1 + 0.1 * rng.standard_normal(channels), *0.1 * rng.standard_normal((2, channels))]
        values.append(rng.uniform(0.5, 2, channels))
        return self.builder.node("BatchNormalization", value, *(self.builder.weight(one) for one in values))


def residual(layers):
    """Two residual blocks, the second with a projection, as in ResNet; the sum is read by both branches of the next."""
    stem = layers.relu(layers.norm(layers.conv("image", 3, 8, bias=False), 8), "stem")
    inner = layers.relu(layers.norm(layers.conv(stem, 8, 8, bias=False), 8), "inner")
    total = layers.builder.node("Add", layers.norm(layers.conv(inner, 8, 8, bias=False), 8), stem)
    first = layers.relu(total, "first")
    branch = layers.conv(layers.relu(layers.conv(first, 8, 6, 1, 2)), 6, 10)
    return layers.relu(layers.builder.node("Sum", branch, layers.conv(first, 8, 10, 1, 2)), "second")


def fire(layers):
    """Two fire modules, as in SqueezeNet, with a pooling between them."""
    value, channels = layers.relu(layers.conv("image", 3, 8), "stem"), 8
    for name in ("fire2", "fire3"):
        squeezed = layers.relu(layers.conv(value, channels, 4, 1), f"{name} squeezed")
        left = layers.relu(layers.conv(squeezed, 4, 5, 1), f"{name} left")
        right = layers.relu(layers.conv(squeezed, 4, 7), f"{name} right")
        value, channels = layers.builder.node("Concat", left, right, axis=1), 12
        value = layers.pool(value, size=3, stride=2) if name == "fire2" else value
    return layers.relu(layers.conv(value, channels, 6, 1), "last")


def inception(layers):
    """Four branches of one value, one of them pooled and one the value itself, which is a layer."""
    stem = layers.relu(layers.conv("image", 3, 8), "stem")
    branches = [
        layers.relu(layers.conv(stem, 8, 4, 1), "one"),
        layers.relu(layers.conv(layers.relu(layers.conv(stem, 8, 3, 1)), 3, 6), "three"),
        layers.relu(layers.conv(layers.pool(stem, "AveragePool", 3, 1, (1, 1, 1, 1)), 8, 2, 1), "pooled"),
        stem,
    ]
    return layers.relu(layers.conv(layers.builder.node("Concat", *branches, axis=-3), 20, 6), "end")


def three_way(layers):
    """A sum of three, two of which are the same value."""
    stem = layers.relu(layers.conv("image", 3, 6), "stem")
    return layers.relu(layers.builder.node("Sum", stem, layers.conv(stem, 6, 6), stem), "end")


def before_its_relu(layers):
    """A convolution whose output goes through a ReLU in one branch and as it is in the other."""
    stem = layers.relu(layers.conv("image", 3, 6), "stem")
    bare = layers.conv(stem, 6, 6)
    return layers.relu(layers.builder.node("Add", layers.relu(bare, "rectified"), bare), "end")


def rectified_sum(layers):
    """A sum whose branches both end in what overwrites its gradient: ReLUs."""
    stem = layers.relu(layers.conv("image", 3, 6), "stem")
    left, right = layers.pool(stem, size=3, stride=1), layers.pool(stem, "AveragePool", 3, 1)
    return layers.relu(layers.conv(layers.builder.node("Add", layers.relu(left), layers.relu(right)), 6, 5), "end")


GRAPHS = {
    function.__name__: function for function in (residual, fire, inception, three_way, before_its_relu, rectified_sum)
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Return each graph as a file."""
    folder = tmp_path_factory.mktemp("branches")
    found = {}
    for name, function in GRAPHS.items():
        layers = Layers()
        found[name] = models.save(layers.builder.model(function(layers)), folder / f"{name}.onnx")
    return found


def given(network, image, layers, seed=3):
    """Return random derivatives by layer, and the functions that the backward pass takes."""
    rng, shapes = np.random.default_rng(seed), network.shapes(*image.shape[:2])
    arrays = {name: rng.standard_normal(shapes[name]).astype(network.dtype) for name in layers}
    return arrays, {name: adding(array) for name, array in arrays.items()}


def adding(array):
    return lambda flowing: array.copy() if flowing is None else flowing + array


def choices(name, paths):
    """Return all layers, the last one, and each of the others alone and with the last."""
    layers = load_network(paths[name], threads=1).layers
    return [layers, layers[-1:], *((layer,) for layer in layers[:-1]), *((layer, layers[-1]) for layer in layers[:-1])]


# ---- values and gradients ----


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("name", GRAPHS)
def test_gradient_is_the_complex_step_derivative(name, pooling, paths):
    direction = np.random.default_rng(1).standard_normal(IMAGE.shape)
    network, stepped = (load_network(paths[name], pooling, dtype=d, threads=1) for d in ("float64", "complex128"))
    for layers in choices(name, paths):
        arrays, functions = given(network, IMAGE, layers)
        gradient = network.backward(network.forward(IMAGE, layers), functions)
        features = stepped.forward(IMAGE + 1j * STEP * direction, layers).features
        derivative = sum((arrays[layer] * features[layer]).sum() for layer in layers).imag / STEP
        scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
        assert abs(np.vdot(gradient, direction) - derivative) < 1e-14 * scale, layers
        assert abs(derivative) > 1e-6 * scale


@pytest.mark.parametrize("name", GRAPHS)
def test_the_objective_s_gradient_is_the_complex_step_derivative(name, paths):
    content, style = models.random_image(14, 18, 4), models.random_image(15, 13, 5)
    layers = load_network(paths[name], threads=1).layers
    objectives = [
        Objective(load_network(paths[name], dtype=d, threads=1), content, style, layers[-1:], layers)
        for d in ("float64", "complex128")
    ]
    direction = np.random.default_rng(1).standard_normal(IMAGE.shape)
    _, gradient = objectives[0](IMAGE)
    derivative = objectives[1](IMAGE + 1j * STEP * direction)[0].imag / STEP
    assert abs(np.vdot(gradient, direction) - derivative) < 1e-13 * np.linalg.norm(gradient) * np.linalg.norm(direction)


@pytest.mark.parametrize("name", GRAPHS)
def test_features_are_those_of_the_graph_run_as_onnx(name, paths):
    """By the other executor, which has operators of its own for all but convolution, pooling and ReLU."""
    network = load_network(paths[name], "model", dtype="float64", preprocessing="raw", threads=1)
    graph = load_graph(paths[name])
    values = replace(graph, outputs=network.layers).run({"image": np.moveaxis(IMAGE, 2, 0)[None]})
    for layer, features in network.features(IMAGE, network.layers).items():
        expected = values[layer][0]
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name", GRAPHS)
def test_gradients_of_several_layers_are_the_sum_of_each_alone(name, paths):
    network = load_network(paths[name], dtype="float64", threads=1)
    _, functions = given(network, IMAGE, network.layers)
    whole = network.backward(network.forward(IMAGE, network.layers), functions)
    alone = [network.backward(network.forward(IMAGE, [layer]), {layer: functions[layer]}) for layer in network.layers]
    np.testing.assert_allclose(sum(alone), whole, rtol=0, atol=1e-12 * np.abs(whole).max())


@pytest.mark.parametrize("name", GRAPHS)
def test_same_bits_at_any_thread_count(name, paths):
    results = set()
    for threads in (1, 2, 5):
        network = load_network(paths[name], threads=threads)
        tape = network.forward(IMAGE, network.layers)
        features = b"".join(array.tobytes() for array in tape.features.values())
        results.add((features, network.backward(tape, given(network, IMAGE, network.layers)[1]).tobytes()))
    assert len(results) == 1


@pytest.mark.parametrize("name", GRAPHS)
def test_a_copied_tape_gives_the_same_gradient_once_more(name, paths):
    network = load_network(paths[name], threads=1)
    tape = network.forward(IMAGE, network.layers)
    copy, (_, functions) = tape.copy(), given(network, IMAGE, network.layers)
    first = network.backward(copy, functions)
    np.testing.assert_array_equal(network.backward(tape, functions), first)


# ---- the operators ----


@pytest.mark.parametrize("operator", [Add(), Concat()])
def test_no_two_gradients_share_memory(operator):
    """Each goes down a branch in which it may be overwritten."""
    shapes = [(1, 1, 3)] * 3
    output_gradient = np.random.default_rng(0).standard_normal(operator.output_shape(shapes))
    expected = output_gradient.copy()
    _, saved = operator.forward(Cpu(1), [np.zeros(shape) for shape in shapes], False)
    gradients = operator.input_gradients(Cpu(1), output_gradient, None, saved)
    for index, gradient in enumerate(gradients):
        part = expected if isinstance(operator, Add) else expected[:, :, 3 * index : 3 * index + 3]
        np.testing.assert_array_equal(gradient, part)
        gradient[...] = np.nan


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("operator", [Add(), Concat()])
def test_where_branches_meet_is_linear_and_its_gradients_its_adjoint(operator, dtype):
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((5, 4, 3)).astype(dtype) for _ in range(3)]
    copies = [one.copy() for one in inputs]
    output, saved = operator.forward(Cpu(2), inputs, False)
    expected = sum(inputs) if isinstance(operator, Add) else np.concatenate(inputs, axis=2)
    np.testing.assert_array_equal(output, expected)
    assert output.dtype == dtype
    assert not any(np.shares_memory(output, one) for one in inputs)
    g = rng.standard_normal(output.shape).astype(dtype)
    pushed = (g * output).sum()
    gradients = operator.input_gradients(Cpu(1), g, None, saved)
    pulled = sum((gradient * one).sum() for gradient, one in zip(gradients, inputs, strict=True))
    assert abs(pushed - pulled) <= (1e-5 if dtype == "float32" else 1e-14) * np.linalg.norm(g) * np.linalg.norm(output)
    for one, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(one, copy)


@pytest.mark.parametrize("operator", [Add(), Concat()])
def test_alone_an_activation_stays_what_it_is(operator):
    values, device = np.random.default_rng(0).standard_normal((4, 5, 3)), Cpu(1)
    assert operator.output_shape([values.shape]) == values.shape
    output, saved = operator.forward(device, [values], False)
    np.testing.assert_array_equal(output, values)
    np.testing.assert_array_equal(operator.input_gradients(device, values.copy(), None, saved)[0], values)
    assert operator.astype(np.dtype(np.float32)) is operator
    assert operator.parameters == 0


def test_shapes_that_do_not_fit_are_listed():
    with pytest.raises(ValueError, match="inputs of the shapes 4x5x3, 4x5x2 cannot be added, they must be the same"):
        Add().output_shape([(4, 5, 3), (4, 5, 2)])
    message = "inputs of 4x5, 4x6 cannot be put together, they must be of one height and width"
    with pytest.raises(ValueError, match=message):
        Concat().output_shape([(4, 5, 3), (4, 6, 3)])
    assert Concat().output_shape([(4, 5, 3), (4, 5, 2), (4, 5, 1)]) == (4, 5, 6)


# ---- memory ----


def test_the_tape_of_a_concatenation_holds_no_activation(paths):
    network = load_network(paths["inception"], threads=1)
    tape = network.forward(IMAGE, network.layers[-1:])
    (saved,) = [s for node, s in zip(tape.plan.nodes, tape.saved, strict=True) if isinstance(node.operator, Concat)]
    assert saved == [4, 6, 2, 8]


@pytest.mark.parametrize("name", GRAPHS)
def test_values_are_let_go_after_their_last_reader(name, paths):
    network = load_network(paths[name], threads=1)
    last = network.layers[-1]
    alive, at_node = {}, []

    def observe(label, output):
        alive[label] = weakref.ref(output)
        at_node.append({key for key, reference in alive.items() if reference() is not None})

    tape = network.forward(IMAGE, [last], observe=observe)
    assert [key for key, reference in alive.items() if reference() is not None] == [tape.plan.nodes[-1].label]
    for index, node in enumerate(tape.plan.nodes):
        # What is there while a node runs is what it or a later one reads, and its output.
        needed = {value for later in tape.plan.nodes[index:] for value in later.inputs}
        expected = {one.label for one in tape.plan.nodes[:index] if one.output in needed} | {node.label}
        assert at_node[index] <= expected


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("name", ["residual", "fire", "inception"])
def test_estimated_memory_is_within_30_percent_of_what_is_allocated(name, pooling, paths):
    network = load_network(paths[name], pooling, threads=1, convolution="direct")
    image, small = models.random_image(400, 500), models.random_image(16, 16)
    for layers in (network.layers[-1:], network.layers):
        shapes = network.shapes(400, 500)
        functions = {layer: adding(np.ones(shapes[layer], network.dtype)) for layer in layers}
        network.forward(small, layers)
        tracemalloc.start()
        try:
            network.backward(network.forward(image, layers), functions)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert 0.7 < network.memory(400, 500, layers) / peak < 1.3, (layers, network.memory(400, 500, layers) / peak)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["narrow", "wide"])
def test_the_estimate_counts_what_waits_for_another_branch(first, tmp_path):
    """A value and, on the way back, its gradient; in the other order two gradients that are about to be added."""
    layers = Layers()
    stem = layers.relu(layers.conv("image", 3, 32))
    if first == "narrow":
        narrow = layers.conv(stem, 32, 4, 1, 2)
    wide = layers.conv(layers.conv(layers.pool(stem), 32, 128, 1), 128, 4, 1)
    if first == "wide":
        narrow = layers.conv(stem, 32, 4, 1, 2)
    layers.relu(layers.conv(layers.builder.node("Concat", wide, narrow, axis=1), 8, 4, 1), "end")
    network = load_network(models.save(layers.builder.model("end"), tmp_path / "m.onnx"), threads=1)
    image = models.random_image(800, 700)
    functions = {"end": adding(np.ones(network.shapes(800, 700)["end"], network.dtype))}
    network.forward(models.random_image(16, 16), ["end"])
    tracemalloc.start()
    try:
        network.backward(network.forward(image, ["end"]), functions)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.75 < network.memory(800, 700, ["end"]) / peak < 1.25


# ---- the fast algorithms ----


def test_blocks_stand_in_branches_too_and_give_the_same():
    def conv(seed, channels, filters):
        rng = np.random.default_rng(seed)
        weight = rng.standard_normal((3, 3, channels, filters)) / np.sqrt(9 * channels)
        return Conv(weight, rng.standard_normal(filters), Window((3, 3), pads=(1, 1, 1, 1)), relu=True)

    nodes = (
        Node("stem", conv(0, 3, 16), "image", "stem"),
        Node("left", conv(1, 16, 16), "stem", "left"),
        Node("pool", AveragePool(Window((2, 2), strides=(2, 2))), "left", "pooled"),
        Node("sum", Add(), "stem", "sum", ("left",)),
        Node("right", conv(2, 16, 16), "pooled", "right"),
        Node("next", AveragePool(Window((2, 2), strides=(2, 2))), "sum", "half"),
        Node("both", Concat(), "right", "both", ("half", "right")),
        Node("end", conv(3, 48, 16), "both", "end"),
    )
    networks = [
        Network(
            nodes=tuple(replace(node, operator=node.operator.astype(np.dtype(dtype))) for node in nodes),
            outputs={name: name for name in ("stem", "left", "right", "end")},
            preprocessing=PREPROCESSING["raw"],
            dtype=np.dtype(dtype),
            device=Cpu(1),
            content_weight=1.0,
            rejected=(),
        )
        for dtype in ("float32", "float64")
    ]
    fast, exact = networks
    found = models.algorithms(fast.forward(IMAGE, ["end"]).plan.nodes)
    # The pooling stays on its own: the sum reads what is before it.
    direct, winograd = "DirectConvolution", "WinogradConvolution"
    assert found == [direct, winograd, "AveragePool", "Add", winograd, "AveragePool", "Concat", winograd]
    for layers in (["end"], list(fast.layers)):
        gradients = []
        for network in networks:
            arrays, _ = given(exact, IMAGE, layers)
            functions = {name: adding(array.astype(network.dtype)) for name, array in arrays.items()}
            tape = network.forward(IMAGE, layers)
            gradients.append((tape.features["end"], network.backward(tape, functions)))
        for one, other in zip(*gradients, strict=True):
            assert np.linalg.norm(one - other) < 1e-4 * np.linalg.norm(other)


# ---- reading and writing ----


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_written_is_read_back(name, paths, tmp_path):
    graph = read_onnx(paths[name])
    assert graph.rejected == ()
    write_onnx(tmp_path / "again.onnx", graph.nodes, graph.metadata)
    again = read_onnx(tmp_path / "again.onnx")
    assert [(type(node.operator), len(node.inputs)) for node in again.nodes] == [
        (type(node.operator), len(node.inputs)) for node in graph.nodes
    ]
    onnx.checker.check_model(str(tmp_path / "again.onnx"), full_check=True)
    networks = [load_network(path, threads=1) for path in (paths[name], tmp_path / "again.onnx")]
    features = [network.features(IMAGE, network.layers[-1]) for network in networks]
    for one, other in zip(*(found.values() for found in features), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_writer_names_an_input_that_is_missing(tmp_path):
    nodes = [Node("a", Relu(), "image", "a"), Node("b", Add(), "a", "b", ("nowhere",))]
    message = "Add 'b': its input 'nowhere' is neither the image nor an earlier node's output"
    with pytest.raises(ModelError, match=message):
        write_onnx(tmp_path / "m.onnx", nodes, {})


def refused(node, tmp_path):
    """Return the reason why a graph's last node is left out; ``node`` writes it behind two layers."""
    layers = Layers()
    left, right = (layers.relu(layers.conv("image", 3, 4), name) for name in ("left", "right"))
    graph = read_onnx(models.save(layers.builder.model(node(layers.builder, left, right)), tmp_path / "m.onnx"))
    (found,) = graph.rejected
    return f"{found.label}: {found.reason}"


def turned(builder, value):
    return builder.node("Transpose", value, perm=[0, 2, 3, 1])


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (
            lambda b, x, y: b.node("Concat", x, y, axis=2),
            "Concat 'concat1': Concat along axis 2 is not supported, only",
        ),
        (lambda b, x, y: b.node("Concat", x, y, axis=9), "Concat 'concat1': Concat along axis 9 is not supported"),
        (
            lambda b, x, y: b.node("Concat", x, b.weight(np.ones((1, 4, 1, 1))), axis=1),
            "its input 'weight4' is a constant",
        ),
        (lambda b, x, y: b.node("Add", x, turned(b, y)), "Add 'add1': its inputs have the axes NCHW and NHWC"),
        (lambda b, x, y: b.node("Sum", x, b.weight(np.ones(1))), "Sum 'sum1': its input 'weight4' is a constant"),
        (lambda b, x, y: b.node("Sub", x, y), "Sub 'sub1': Sub of two computed values is not supported"),
        (lambda b, x, y: b.node("Mul", x, y), "Mul 'mul1': Mul of two computed values is not supported"),
    ],
)
def test_junctions_that_are_not_supported_are_left_out_with_the_reason(node, reason, tmp_path):
    assert reason in refused(node, tmp_path)


def test_channels_last_in_the_file_are_put_together_along_the_last_axis(tmp_path):
    layers = Layers()
    left, right = (layers.relu(layers.conv("image", 3, filters), f"to {filters}") for filters in (4, 5))
    builder = layers.builder
    both = builder.node("Concat", turned(builder, left), turned(builder, right), axis=3)
    layers.relu(layers.conv(builder.node("Transpose", both, perm=[0, 3, 1, 2]), 9, 2), "end")
    graph = read_onnx(models.save(builder.model("end"), tmp_path / "m.onnx"))
    assert graph.rejected == ()
    network = load_network(tmp_path / "m.onnx", threads=1)
    assert network.shapes(8, 8)["end"] == (8, 8, 2)


def test_a_sum_of_one_is_the_value_itself(tmp_path):
    layers = Layers()
    stem = layers.relu(layers.conv("image", 3, 4))
    layers.relu(layers.conv(layers.builder.node("Sum", stem), 4, 2), "end")
    graph = read_onnx(models.save(layers.builder.model("end"), tmp_path / "m.onnx"))
    assert [type(node.operator) for node in graph.nodes] == [Conv, Conv]


def test_channels_that_cannot_be_added_are_found_when_the_model_is_loaded(tmp_path):
    layers = Layers()
    left, right = (layers.relu(layers.conv("image", 3, filters)) for filters in (4, 5))
    end = layers.relu(layers.builder.node("Add", left, right))
    path = models.save(layers.builder.model(end), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx: Add 'add1': inputs of the shapes .*x4, .*x5 cannot be added"):
        load_network(path)


def test_an_image_whose_branches_come_out_different_is_refused_with_the_node(tmp_path):
    layers = Layers()
    stem = layers.relu(layers.conv("image", 3, 4))
    halves = layers.pool(stem), layers.conv(stem, 4, 4, stride=2)
    end = layers.relu(layers.builder.node("Add", *halves), "end")
    network = load_network(models.save(layers.builder.model(end), tmp_path / "m.onnx"), threads=1)
    assert network.shapes(8, 8)["end"] == (4, 4, 4)
    message = "an image of 8x9 pixels does not suit the network: Add 'end': inputs of the shapes 4x4x4, 5x4x4"
    with pytest.raises(ValueError, match=message.replace("'end'", "'[a-z0-9]+'")):
        network.features(np.zeros((9, 8, 3)), ["end"])


# ---- published architectures ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "junction"), [("squeezenet", 26, Concat), ("resnet50", 49, Add), ("inception_v2", 69, Concat)]
)
def test_a_published_network_s_image_gradient(name, count, junction, tmp_path):
    """With random weights; against the graph run as ONNX, which knows nothing of the network's shortcuts."""
    model = with_random_weights(light_model(name)[0])
    path = models.save(model, tmp_path / "m.onnx")
    network = load_network(path, "model", dtype="float64", preprocessing="raw", threads=2)
    assert len(network.layers) == count
    assert any(isinstance(node.operator, junction) for node in network.nodes)
    image = np.random.default_rng(3).uniform(-1, 1, (64, 64, 3))
    layers = (network.layers[0], network.layers[count // 2], network.layers[-1])
    arrays, functions = given(network, image, layers)
    tape = network.forward(image, layers)
    features = dict(tape.features)
    gradient = network.backward(tape, functions)
    graph = load_graph(model)
    # As far as the last layer: a classifier behind it takes one size of image only.
    last = next(index for index, node in enumerate(graph.nodes) if network.outputs[layers[-1]] in node.outputs)
    graph = replace(graph, nodes=graph.nodes[: last + 1], outputs=tuple(network.outputs[layer] for layer in layers))
    (of_input,) = graph.inputs
    outputs, gradients = graph.input_gradients(
        {of_input: np.moveaxis(image, 2, 0)[None]},
        {network.outputs[layer]: np.moveaxis(arrays[layer], 2, 0)[None] for layer in layers},
    )
    for layer in layers:
        expected = outputs[network.outputs[layer]][0].transpose(1, 2, 0)
        np.testing.assert_allclose(features[layer], expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    expected = gradients[of_input][0].transpose(1, 2, 0)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_light_models_load_as_they_are(tmp_path):
    """Their weights are computed by the file itself, from a shape and one number."""
    path = models.save(light_model("squeezenet")[0], tmp_path / "m.onnx")
    graph = read_onnx(path)
    assert sum(isinstance(node.operator, Conv) for node in graph.nodes) == graph.operators["Conv"]
    assert sum(isinstance(node.operator, MaxPool) for node in graph.nodes) == graph.operators["MaxPool"]


@pytest.mark.parametrize("name", ["fire", "residual"])
def test_a_picture_can_be_optimized_through_branches(name, paths):
    network = load_network(paths[name], threads=1)
    layers = network.layers
    objective = Objective(network, models.random_image(16, 16), models.random_image(16, 16, 1), layers[-1:], layers)
    start = models.random_image(16, 16, 2)
    first, _ = objective(start)
    result = minimize(objective, start, iterations=5)
    assert result.value < 0.5 * first
