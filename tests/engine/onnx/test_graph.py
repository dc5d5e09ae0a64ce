"""Whole graphs: running them, and gradients through branches."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.onnx.backend import PreparedModel
from engine.onnx.graph import load_graph
from engine.onnx.operators import UnsupportedError
from kernels import Cpu

STEP = 1e-30


def model(nodes, inputs=("x",), outputs=("y",), weights=None, opset=18, kind=TensorProto.DOUBLE, listed=False):
    """Return a model; a node is (operator, inputs, outputs, attributes)."""
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    values = [*inputs, *(tensor.name for tensor in tensors if listed)]
    graph = helper.make_graph(
        [
            helper.make_node(kind, read, written, name=f"node{index}", **(rest[0] if rest else {}))
            for index, (kind, read, written, *rest) in enumerate(nodes)
        ],
        "graph",
        [helper.make_tensor_value_info(name, kind, None) for name in values],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3 if listed else 8)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def assert_gradient(graph, inputs, given=None, with_respect_to=None, tolerance=1e-13):
    """Compare the gradients with the complex step, in a random direction of all inputs at once."""
    rng = np.random.default_rng(9)
    names = with_respect_to or [name for name in graph.inputs if inputs[name].dtype.kind == "f"]
    directions = {name: rng.standard_normal(inputs[name].shape) for name in names}
    stepped = {name: array + 1j * STEP * directions[name] if name in names else array for name, array in inputs.items()}
    moved = graph.run(stepped)
    given = given or {name: rng.standard_normal(array.shape) for name, array in moved.items()}
    outputs, gradients = graph.input_gradients(inputs, given, with_respect_to)
    assert list(gradients) == list(names)
    along = sum((gradients[name] * directions[name]).sum() for name in names)
    derivative = sum((given[name] * moved[name].imag).sum() for name in given) / STEP
    scale = sum(np.linalg.norm(gradients[name]) * np.linalg.norm(directions[name]) for name in names)
    assert abs(along - derivative) < tolerance * scale
    for name, array in graph.run(inputs).items():
        np.testing.assert_array_equal(outputs[name], array)
    return gradients


# ---- running ----


def test_all_outputs_come_by_name_and_in_order():
    graph = load_graph(
        model([("Relu", ["x"], ["a"]), ("Neg", ["a"], ["b"]), ("Exp", ["x"], ["c"])], outputs=("c", "a", "b"))
    )
    x = numbers(3, 2)
    outputs = graph.run({"x": x})
    assert list(outputs) == ["c", "a", "b"]
    np.testing.assert_array_equal(outputs["b"], -np.maximum(x, 0))


def test_a_stored_value_that_is_listed_as_input_may_be_replaced():
    graph = load_graph(model([("Add", ["x", "w"], ["y"])], weights={"w": np.array([1.0, 2.0])}, listed=True))
    assert (graph.inputs, graph.defaults) == (("x",), ("w",))
    x = np.zeros(2)
    np.testing.assert_array_equal(graph.run({"x": x})["y"], [1, 2])
    np.testing.assert_array_equal(graph.run({"x": x, "w": np.array([5.0, 6.0])})["y"], [5, 6])


def test_outputs_that_are_left_out_are_not_computed_or_kept():
    nodes = [("Split", ["x"], ["", "y", ""], {"axis": 0, "num_outputs": 3}), ("Dropout", ["y"], ["z", "mask"])]
    outputs = load_graph(model(nodes, outputs=("y", "z"))).run({"x": np.arange(6.0)})
    assert outputs["y"].tolist() == outputs["z"].tolist() == [2, 3]


def test_an_input_may_be_an_output():
    outputs = load_graph(model([("Neg", ["x"], ["y"])], outputs=("x", "y"))).run({"x": np.ones(2)})
    assert outputs["x"].tolist() == [1, 1]


def test_a_file_with_data_of_its_own(tmp_path):
    whole = model([("Add", ["x", "w"], ["y"])], weights={"w": numbers(300)})
    path = tmp_path / "model.onnx"
    onnx.save_model(whole, str(path), save_as_external_data=True, location="weights", size_threshold=0)
    np.testing.assert_array_equal(load_graph(path).run({"x": np.zeros(300)})["y"], numbers(300))
    (tmp_path / "weights").unlink()
    with pytest.raises(ModelError, match=r"the stored value 'w': its data file 'weights' does not exist"):
        load_graph(path)


def test_results_do_not_depend_on_the_threads():
    weights = {"w": numbers(16, 8, 3, 3), "b": numbers(16, seed=1)}
    nodes = [("Conv", ["x", "w", "b"], ["a"], {"pads": [1] * 4}), ("Relu", ["a"], ["y"])]
    graph = load_graph(model(nodes, weights=weights))
    x = numbers(2, 8, 40, 40)
    (one,), (three,) = (graph.run({"x": x}, device=Cpu(threads)).values() for threads in (1, 3))
    np.testing.assert_array_equal(one, three)


def test_infinities_are_values():
    nodes = [("Log", ["x"], ["a"]), ("Exp", ["a"], ["b"]), ("Div", ["x", "x"], ["y"])]
    outputs = load_graph(model(nodes, outputs=("a", "b", "y"))).run({"x": np.array([0.0])})
    assert outputs["a"][0] == -np.inf
    assert outputs["b"][0] == 0
    assert np.isnan(outputs["y"][0])


# ---- gradients ----

FIRE = [
    ("Conv", ["x", "w1"], ["s"], {}),
    ("Relu", ["s"], ["squeezed"]),
    ("Conv", ["squeezed", "w2"], ["left"], {}),
    ("Conv", ["squeezed", "w3"], ["right"], {"pads": [1, 1, 1, 1]}),
    ("Relu", ["left"], ["l"]),
    ("Relu", ["right"], ["r"]),
    ("Concat", ["l", "r"], ["y"], {"axis": 1}),
]
FIRE_WEIGHTS = {"w1": numbers(4, 3, 1, 1), "w2": numbers(5, 4, 1, 1, seed=1), "w3": numbers(6, 4, 3, 3, seed=2)}

RESIDUAL = [
    ("Conv", ["x", "w"], ["a"], {"pads": [1, 1, 1, 1]}),
    ("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"]),
    ("Add", ["b", "x"], ["c"]),
    ("Relu", ["c"], ["d"]),
    ("Sum", ["d", "x", "d"], ["e"]),
    ("GlobalAveragePool", ["e"], ["f"]),
    ("Flatten", ["f"], ["g"]),
    ("Gemm", ["g", "matrix"], ["logits"], {"transB": 1}),
    ("Softmax", ["logits"], ["y"]),
]
RESIDUAL_WEIGHTS = {
    "w": numbers(3, 3, 3, 3),
    "scale": numbers(3, seed=1),
    "shift": numbers(3, seed=2),
    "mean": numbers(3, seed=3),
    "variance": np.array([0.5, 1.0, 2.0]),
    "matrix": numbers(7, 3, seed=4),
}


@pytest.mark.parametrize(("nodes", "weights"), [(FIRE, FIRE_WEIGHTS), (RESIDUAL, RESIDUAL_WEIGHTS)])
def test_the_gradient_through_branches_is_the_sum(nodes, weights):
    assert_gradient(load_graph(model(nodes, weights=weights)), {"x": numbers(2, 3, 6, 5, seed=5)})


def test_one_value_that_a_node_reads_twice():
    graph = load_graph(model([("Add", ["x", "x"], ["a"]), ("Mul", ["a", "x"], ["b"]), ("Mul", ["b", "b"], ["y"])]))
    x = numbers(3)
    _, gradients = graph.input_gradients({"x": x}, {"y": np.ones(3)})
    np.testing.assert_allclose(gradients["x"], 16 * x**3, rtol=1e-14)


def test_the_gradient_of_several_outputs_and_of_values_in_between():
    graph = load_graph(model(FIRE, weights=FIRE_WEIGHTS, outputs=("y", "squeezed")))
    x = numbers(1, 3, 6, 5, seed=5)
    both = assert_gradient(graph, {"x": x})
    assert both["x"].any()
    g = numbers(1, 4, 6, 5, seed=6)
    inner = load_graph(model(FIRE, weights=FIRE_WEIGHTS)).input_gradients({"x": x}, {"squeezed": g})[1]["x"]
    np.testing.assert_allclose(inner, graph.input_gradients({"x": x}, {"squeezed": g})[1]["x"])


def test_the_gradient_with_respect_to_several_inputs_and_to_stored_values():
    nodes = [("MatMul", ["a", "b"], ["p"]), ("Add", ["p", "w"], ["q"]), ("Tanh", ["q"], ["y"])]
    graph = load_graph(model(nodes, inputs=("a", "b"), weights={"w": numbers(4)}, listed=True))
    inputs = {"a": numbers(2, 3), "b": numbers(3, 4), "w": numbers(4)}
    assert_gradient(graph, inputs)
    assert_gradient(graph, inputs, with_respect_to=["w", "b"])


def test_integers_on_the_way_stop_the_gradient_where_they_only_name_places():
    """Shape arithmetic, as exporters write it: the gradient goes by the values alone."""
    nodes = [
        ("Shape", ["x"], ["sizes"]),
        ("Gather", ["sizes", "zero"], ["batch"]),
        ("Unsqueeze", ["batch", "zeros"], ["b"]),
        ("Concat", ["b", "minus"], ["wanted"], {"axis": 0}),
        ("Reshape", ["x", "wanted"], ["y"]),
    ]
    weights = {"zero": np.int64(0), "zeros": np.array([0]), "minus": np.array([-1])}
    gradients = assert_gradient(load_graph(model(nodes, weights=weights)), {"x": numbers(2, 3, 4)})
    assert gradients["x"].shape == (2, 3, 4)


def test_what_nothing_depends_on_has_the_gradient_zero():
    graph = load_graph(model([("Neg", ["x"], ["y"]), ("Neg", ["z"], ["u"])], inputs=("x", "z"), outputs=("y", "u")))
    _, gradients = graph.input_gradients({"x": numbers(2), "z": numbers(3)}, {"y": np.ones(2)})
    assert gradients["z"].tolist() == [0, 0, 0]
    assert gradients["x"].tolist() == [-1, -1]


def test_parts_without_a_gradient_count_as_zero():
    nodes = [("Split", ["x"], ["a", "b", "c"], {"axis": 0, "num_outputs": 3}), ("Mul", ["a", "c"], ["y"])]
    gradients = assert_gradient(load_graph(model(nodes)), {"x": numbers(6)})
    assert gradients["x"][2:4].tolist() == [0, 0]


def test_nothing_given_is_changed():
    graph = load_graph(model(RESIDUAL, weights=RESIDUAL_WEIGHTS))
    x, g = numbers(1, 3, 6, 5), numbers(1, 7)
    for array in (x, g, *graph.constants.values()):
        if array.flags.owndata:
            array.flags.writeable = False
    copies = x.copy(), g.copy(), {name: array.copy() for name, array in graph.constants.items()}
    graph.input_gradients({"x": x}, {"y": g})
    np.testing.assert_array_equal(x, copies[0])
    np.testing.assert_array_equal(g, copies[1])
    for name, array in graph.constants.items():
        np.testing.assert_array_equal(array, copies[2][name])


# ---- what cannot be run ----


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("Det", ["x"], ["y"])], "Det 'node0': operator Det is not supported"),
        ([("Relu", ["nowhere"], ["y"])], "Relu 'node0': input 'nowhere' is not produced by any node before it"),
        ([("Relu", ["x"], ["z"])], "the model's output 'y' is not produced by any node"),
        ([("Reshape", ["x", "far"], ["y"])], "Reshape 'node0': cannot reshape array"),
        ([("Add", ["x", "w"], ["y"])], "Add 'node0': operands could not be broadcast together"),
        ([("LRN", ["x"], ["y"])], "LRN 'node0': 'size' is missing"),
        ([("Gather", ["x", "far"], ["y"])], "Gather 'node0': its attributes or inputs do not fit: index 9"),
        ([("Relu", ["x"], ["y", "more"])], "Relu 'node0': Relu with 2 outputs is not supported"),
        ([("Softmax", ["x"], ["y"], {"axis": 3})], "Softmax 'node0': axis 3 does not exist"),
    ],
)
def test_errors_name_the_node(nodes, message):
    with pytest.raises(ModelError, match=re.escape(message)):
        load_graph(model(nodes, weights={"w": numbers(7), "far": np.array(9)})).run({"x": numbers(2, 3)})


@pytest.mark.parametrize(
    ("inputs", "gradients", "wanted", "message"),
    [
        ({}, {}, None, "the input 'x' is missing, the model takes x, i"),
        ({"x": np.ones(2), "i": np.array(1), "w": np.ones(2)}, {}, None, "unknown input 'w'; choose from x, i"),
        ({"x": np.ones(2), "i": np.array(1)}, {"z": np.ones(2)}, None, "unknown value 'z'; choose from y"),
        (
            {"x": np.ones(2), "i": np.array(1)},
            {"y": np.ones(3)},
            None,
            "the gradient of 'y' has the shape (3,), the value",
        ),
        ({"x": np.ones(2), "i": np.array(1)}, {"y": np.ones(2)}, ["i"], "the input 'i' is of type int64, which has no"),
        ({"x": np.ones(2), "i": np.array(1)}, {"y": np.ones(2)}, ["q"], "unknown input 'q'; choose from x, i"),
    ],
)
def test_arguments_that_do_not_fit(inputs, gradients, wanted, message):
    nodes = [("Gather", ["x", "i"], ["a"]), ("Add", ["x", "a"], ["y"])]
    graph = load_graph(model(nodes, inputs=("x", "i"), weights={"w": np.ones(2)}))
    with pytest.raises(ValueError, match=re.escape(message)):
        graph.input_gradients(inputs, gradients, wanted)


def test_a_gradient_that_the_engine_does_not_have_is_refused_and_not_zero():
    """Of a convolution there is none with respect to its weight."""
    graph = load_graph(model([("Conv", ["x", "w"], ["y"])], inputs=("x", "w")))
    inputs = {"x": numbers(1, 2, 5, 5), "w": numbers(3, 2, 3, 3)}
    message = "Conv 'node0': Conv has no gradient with respect to its input 2, 'w'"
    with pytest.raises(UnsupportedError, match=message):
        graph.input_gradients(inputs, {"y": numbers(1, 3, 3, 3)})
    _, gradients = graph.input_gradients(inputs, {"y": numbers(1, 3, 3, 3)}, ["x"])
    assert list(gradients) == ["x"]


def test_types_and_parts_of_onnx_that_the_engine_does_not_have():
    with pytest.raises(UnsupportedError, match="'x' is of type BFLOAT16, and only NumPy's own types are supported"):
        load_graph(model([("Relu", ["x"], ["y"])], kind=TensorProto.BFLOAT16))
    foreign = model([("Relu", ["x"], ["y"])])
    foreign.graph.node[0].domain = "com.example"
    with pytest.raises(UnsupportedError, match=r"Relu 'node0': operator com\.example\.Relu is not supported"):
        load_graph(foreign)
    sparse = model([("Relu", ["x"], ["y"])])
    sparse.graph.sparse_initializer.add()
    with pytest.raises(UnsupportedError, match="sparse weights in a model are not supported"):
        load_graph(sparse)


def test_a_damaged_weight_is_named():
    broken = model([("Add", ["x", "w"], ["y"])], weights={"w": numbers(4)})
    broken.graph.initializer[0].raw_data = b"123"
    with pytest.raises(ModelError, match="the stored value 'w' cannot be read"):
        load_graph(broken)


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(ModelError, match="no such model file"):
        load_graph(tmp_path / "nothing.onnx")


def test_a_list_of_inputs_is_in_the_order_of_the_model():
    """Also where one of them has a value of its own, and may be left out."""
    subtraction = model([("Sub", ["a", "b"], ["y"])], inputs=("b", "a"), weights={"b": np.float64(7)})
    prepared = PreparedModel(load_graph(subtraction), None)
    assert prepared.run([np.float64(1), np.float64(5)])[0] == 4
    assert prepared.run([np.float64(5)])[0] == -2
