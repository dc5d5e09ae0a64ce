"""Damaged and hostile models and operator calls, a few of each: see ``tests.engine.onnx.fuzz`` for more of them."""

import itertools
import re

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engine.errors import ModelError, printable
from engine.load import load_network
from engine.onnx.constants import MAX_ELEMENTS, Constants
from engine.onnx.file import open_onnx
from engine.onnx.graph import load_graph
from engine.onnx.reader import read_onnx
from tests.engine import models
from tests.engine.onnx import fuzz

BLOCKS = models.parameters((1,), widths=(4,))


def test_nothing_ends_but_with_a_result_or_a_sentence(tmp_path):
    counts, escaped = fuzz.campaign(60, 0, tmp_path)
    assert escaped == []
    # Both happen, often enough that something is tried.
    for role in ("features", "run", "gradient", "operator"):
        assert min(counts[f"{role}: result"], counts[f"{role}: refused"]) > 10, counts


def test_a_fuzz_of_what_is_wrong_notices_it(tmp_path, monkeypatch):
    def broken(path, *arguments, **options):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(fuzz, "load_network", broken)
    _, escaped = fuzz.campaign(2, 0, tmp_path)
    assert escaped == [
        f"model {number}, features of seed 0: ZeroDivisionError: division by zero" for number in range(2)
    ]


def with_weight(*nodes, weights=(), name="w4"):
    """Return a model of one convolution whose weight is computed from ``W``, (4, 3, 3, 3)."""
    tensors = [numpy_helper.from_array(BLOCKS[0][0][0], "W"), *(numpy_helper.from_array(*one) for one in weights)]
    behind = [helper.make_node("Conv", ["x", name], ["c"]), helper.make_node("Relu", ["c"], ["out"])]
    values = [helper.make_tensor_value_info(one, models.FLOAT, [1, None, None, None]) for one in ("x", "out")]
    graph = helper.make_graph([*nodes, *behind], "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(kind, count, **attributes):
    """Return nodes that each take the one before twice."""
    names = ["W", *(f"a{number}" for number in range(count - 1)), "w4"]
    return [helper.make_node(kind, [one, one], [other], **attributes) for one, other in itertools.pairwise(names)]


HOSTILE = {
    "a size that doubles": (with_weight(*chain("Concat", 40, axis=0)), "more numbers than a network of this size"),
    "an attribute of 2^40 parts": (
        with_weight(helper.make_node("Split", ["W"], ["w4", "z"], axis=0, num_outputs=1 << 40)),
        "1099511627776 parts do not fit 2 outputs",
    ),
    "a mean of nothing": (
        with_weight(
            helper.make_node("ReduceMean", ["e"], ["w4"], axes=[0]), weights=[(np.zeros((0, 3, 3, 3), np.float32), "e")]
        ),
        r"ReduceMean 'w4': an input of the shape \(0, 3, 3, 3\) has no mean",
    ),
    "a shape of 2^40": (
        with_weight(helper.make_node("ConstantOfShape", ["s"], ["w4"]), weights=[(np.array([1 << 40, 3, 3, 3]), "s")]),
        "more numbers than a network of this size",
    ),
    "pads of 2^40": (
        with_weight(helper.make_node("Pad", ["W", "p"], ["w4"]), weights=[(np.array([0] * 7 + [1 << 40]), "p")]),
        "more numbers than a network of this size",
    ),
    "pads of a convolution": (
        with_weight(
            helper.make_node("Conv", ["W", "W3"], ["w4"], pads=[1 << 40] * 4),
            weights=[(np.ones((3, 3, 1, 1), np.float32), "W3")],
        ),
        r"pads are .*, more than 1024",
    ),
    "a value in a circle": (
        with_weight(helper.make_node("Neg", ["W"], ["w4"]), helper.make_node("Neg", ["w4"], ["W"])),
        "its output 'W' is there already",
    ),
    "a division of whole numbers by zero": (
        with_weight(
            helper.make_node("Div", ["i", "z"], ["q"]),
            helper.make_node("Reshape", ["W", "q"], ["w4"]),
            weights=[(np.array([4, 3, 3, 3]), "i"), (np.array([0, 1, 1, 1]), "z")],
        ),
        None,
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("load", ["network", "graph"])
def test_hostile_constants_end_in_a_sentence(kind, load, tmp_path):
    model, message = HOSTILE[kind]
    path = models.save(model, tmp_path / "m.onnx")

    def run():
        if load == "network":
            load_network(path, preprocessing="raw")
        else:
            load_graph(path).run({"x": np.ones((1, 3, 9, 9), np.float32)})

    if kind == "a value in a circle" and load == "graph":
        message = None  # each node takes what is there
    if message is None:
        assert fuzz.attempt(run) in ("result", "refused")
        return
    with pytest.raises(ModelError, match=message):
        run()


@pytest.mark.parametrize(("kind", "attributes"), [("Add", {}), ("Max", {}), ("Concat", {"axis": 0})])
def test_a_value_that_every_node_takes_twice_is_computed_once(kind, attributes, tmp_path):
    """Of 22 nodes, not 2^22; of 3000, without a word about recursion."""
    count = 3000 if kind == "Max" else 22 if kind == "Add" else 3
    path = models.save(with_weight(*chain(kind, count, **attributes)), tmp_path / "m.onnx")
    (conv,) = read_onnx(path).nodes
    found = conv.operator.weight.transpose(3, 2, 0, 1)
    expected = {
        "Add": BLOCKS[0][0][0] * 2**22,
        "Max": BLOCKS[0][0][0],
        "Concat": np.tile(BLOCKS[0][0][0], (8, 1, 1, 1)),
    }
    np.testing.assert_array_equal(found, expected[kind])


def test_a_size_of_2_to_the_40_neighbors_costs_no_more_than_all_channels(tmp_path):
    path = models.save(with_weight(helper.make_node("LRN", ["W"], ["w4"], size=1 << 40)), tmp_path / "m.onnx")
    (conv,) = read_onnx(path).nodes
    np.testing.assert_allclose(conv.operator.weight.transpose(3, 2, 0, 1), BLOCKS[0][0][0], rtol=1e-6)


def test_what_a_file_stores_may_be_computed_with(tmp_path):
    """The limit goes with the file: restored weights are no larger than what is stored."""
    stored = np.zeros(MAX_ELEMENTS + 1, np.int8)
    model = with_weight(helper.make_node("Cast", ["big"], ["numbers"], to=models.FLOAT), weights=[(stored, "big")])
    constants = Constants(open_onnx(model))
    assert constants.takes(model.graph.node[0])
    assert constants.value("numbers", "numbers").size == stored.size


NAMES = {
    b"\x1b[2J\x1b[31mOP\x1b[0m\nmodels: fake": r"\x1b[2J\x1b[31mOP\x1b[0m\nmodels: fake",
    b"Q\xffQQ": r"Q\xffQQ",
    "a\u202eb".encode(): r"a\u202eb",
    "größe".encode(): "größe",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_out_as_one_that_can_be_shown(name, tmp_path):
    """Terminal escapes, broken UTF-8, marks that turn the direction of writing; whatever is named."""
    model = with_weight(helper.make_node("Neg", ["W"], ["w4"]))
    model.graph.node.append(helper.make_node("@" * len(name), ["out"], ["&" * len(name)]))
    helper.set_model_props(model, {"source": "%" * len(name)})
    data = model.SerializeToString()
    for mark in b"@&%":
        data = data.replace(bytes([mark]) * len(name), name)
    (tmp_path / "m.onnx").write_bytes(data)
    graph = read_onnx(tmp_path / "m.onnx")
    shown = NAMES[name]
    assert graph.operators[shown] == 1
    assert graph.metadata == {"source": shown}
    assert graph.rejected[0].output == shown
    assert graph.rejected[0].reason == f"operator {shown} is not supported"
    with pytest.raises(ModelError, match=re.escape(f"operator {shown} is not supported")):
        load_graph(tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx").graph.node  # the file itself stays as it is


def test_a_text_is_one_line():
    assert printable("a\nb\tc\0") == r"a\nb\tc\x00"
    assert printable(b"\xff\xfeabc") == r"\xff\xfeabc"
    assert printable("日本 é") == "日本 é"
