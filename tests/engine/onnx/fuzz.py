"""Damaged and hostile models, and operators on whatever arrays: each must end with a result or one sentence.

A few of them are run by the tests. For more: ``python -m tests.engine.onnx.fuzz COUNT [SEED]``.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from engine.graph import GraphNode
from engine.load import load_network
from engine.onnx.graph import OnnxGraph, Use, load_graph
from engine.onnx.operators import OPERATORS
from tests.engine import models
from tests.engine.onnx import test_forms

LIMIT_SECONDS = 10

NUMBERS = (0, 1, -1, 2, 3, 7, 100, -(2**31), 2**31 - 1, 2**31, 2**40, -(2**63), 2**63 - 1)
TEXTS = ("", "a", "image", "\x1b[2J", "../../etc/passwd", "Ω" * 100, "NOTSET", "reflect", "SAME_UPPER")
REALS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"))
DTYPES = (np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.int8, np.bool_)

IMAGE = np.random.default_rng(0).integers(0, 256, (14, 12, 3), dtype=np.uint8)


class EscapedError(Exception):
    """What came out is neither a result nor a sentence, or came too late."""


def attempt(run: Callable[[], object]) -> str:
    """Return how a call ended: "result" or "refused"; raises EscapedError where it did in no other way, or too late."""

    def late(number: int, frame: object) -> None:
        raise EscapedError(f"no answer within {LIMIT_SECONDS} seconds")

    try:
        with _alarm(late):
            run()
    except ValueError as error:
        text = str(error)
        if not text or not text.replace("\n", " ").isprintable() or len(text) > 20_000:
            raise EscapedError(f"no sentence: {text!r}") from error
        return "refused"
    except EscapedError:
        raise
    except Exception as error:
        raise EscapedError(f"{type(error).__name__}: {error}") from error
    return "result"


@contextlib.contextmanager
def _alarm(late: Callable[[int, object], None]) -> Iterator[None]:
    """Call a function when the time is over, where the system has an alarm."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---- models ----


def originals() -> list[onnx.ModelProto]:
    """Return small models of many forms."""
    blocks, form = models.parameters((2, 1), widths=(4, 5)), test_forms.Quantizer()
    found = [
        models.vgg(blocks),
        models.vgg(blocks, conv=test_forms.cast_sub_mul, behind=_classifier),
        models.vgg(blocks, conv=test_forms.dequantized(True)),
        models.vgg(blocks, conv=form.conv, relu=form.relu, pool=form.pool),
        models.vgg(blocks, conv=test_forms.padded("reflect")),
        models.vgg(blocks, conv=test_forms.dynamically_quantized),
        test_forms.with_function(
            [helper.make_node("Conv", ["x", "w", "b"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
        ),
    ]
    found += [models.vgg(blocks, front=front, input_shape=shape) for front, shape, _ in test_forms.FRONTS.values()]
    return found


def _classifier(builder: models.Builder, value: str) -> str:
    value = builder.node("GlobalAveragePool", value)
    value = builder.node("Reshape", value, builder.weight(np.array([0, -1])))
    value = builder.node("Gemm", value, builder.weight(np.ones((5, 4))), builder.weight(np.ones(4)))
    value = builder.node("LRN", builder.node("Unsqueeze", value, builder.weight(np.array([2]))), size=3)
    return builder.node("Softmax", value)


def damaged(original: onnx.ModelProto, rng: np.random.Generator) -> bytes:
    """Return a model with a few things changed: bytes, attributes, names, shapes, operators, values."""
    if rng.random() < 0.25:
        data = bytearray(original.SerializeToString())
        for place in rng.integers(0, len(data), rng.integers(1, 8)):
            data[place] = rng.integers(256)
        return bytes(data[: rng.integers(len(data))] if rng.random() < 0.1 else data)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    for _ in range(rng.integers(1, 4)):
        with contextlib.suppress(ValueError, TypeError), np.errstate(all="ignore"):  # what protobuf itself refuses
            _CHANGES[rng.integers(len(_CHANGES))](model, rng)
    return model.SerializeToString()


def _one(rng: np.random.Generator, choices):
    return choices[rng.integers(len(choices))]


def _attribute(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = _one(rng, model.graph.node)
    if node.attribute and rng.random() < 0.7:
        entry = _one(rng, node.attribute)
        if entry.ints and rng.random() < 0.7:
            entry.ints[rng.integers(len(entry.ints))] = _one(rng, NUMBERS)
            return
        name = entry.name
        node.attribute.remove(entry)
    else:
        name = _one(rng, ("axis", "axes", "pads", "group", "kernel_shape", "size", "to", "mode", "value", "block_size"))
    values = (
        _one(rng, NUMBERS),
        [_one(rng, NUMBERS) for _ in range(rng.integers(1, 6))],
        _one(rng, TEXTS),
        _one(rng, REALS),
    )
    node.attribute.append(helper.make_attribute(name, _one(rng, values)))


def _names(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = _one(rng, model.graph.node)
    field = node.input if rng.random() < 0.6 and node.input else node.output
    known = [name for other in model.graph.node for name in (*other.input, *other.output)]
    field[rng.integers(len(field))] = _one(rng, known) if rng.random() < 0.7 else _one(rng, TEXTS)


def _operator(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    _one(rng, model.graph.node).op_type = _one(rng, sorted(OPERATORS))


def _shape(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _one(rng, model.graph.initializer)
    if tensor.dims and rng.random() < 0.5:
        tensor.dims[rng.integers(len(tensor.dims))] = _one(rng, NUMBERS)
        return
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.resize(array, rng.integers(0, 5, rng.integers(0, 5))), tensor.name))


def _value(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _one(rng, model.graph.initializer)
    array = numpy_helper.to_array(tensor).astype(_one(rng, DTYPES))
    if array.size and array.dtype.kind == "i":
        array.flat[rng.integers(array.size)] = _one(rng, (0, -1, 5, 100))
    elif array.size and array.dtype.kind == "f":
        array.flat[rng.integers(array.size)] = _one(rng, REALS[:3])
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _large_number(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A shape, a pad or an index of 2^40."""
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT64]
    if tensors:
        tensor = _one(rng, tensors)
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[rng.integers(array.size)] = _one(rng, NUMBERS)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _input(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    kind = model.graph.input[0].type.tensor_type
    if rng.random() < 0.3:
        kind.elem_type = int(rng.integers(0, 24))
    elif kind.shape.dim:
        kind.shape.dim[rng.integers(len(kind.shape.dim))].dim_value = _one(rng, NUMBERS)


def _doubling(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """A constant that doubles at each of forty nodes, in size or in the number of times it is computed."""
    name, kind = _one(rng, model.graph.initializer).name, _one(rng, ("Add", "Concat", "Mul", "MatMul"))
    for number in range(40):
        attributes = {"axis": 0} if kind == "Concat" else {}
        model.graph.node.insert(number, helper.make_node(kind, [name, name], [f"doubled{number}"], **attributes))
        name = f"doubled{number}"
    node = _one(rng, model.graph.node)
    if len(node.input) > 1:
        node.input[1] = name


def _version(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    model.opset_import[0].version = int(_one(rng, (-1, 0, 1, 6, 7, 9, 10, 11, 12, 18, 21, 25, 2**40)))


_CHANGES = (_attribute, _attribute, _names, _operator, _shape, _value, _large_number, _input, _doubling, _version)


def use(path: Path, rng: np.random.Generator) -> Iterator[Callable[[], object]]:
    """Yield what can be done with a model: features of the image network, a run of the whole, its gradient."""

    def features() -> None:
        network = load_network(path, preprocessing="raw", threads=1)
        with np.errstate(all="ignore"):  # weights of 1e30 are no error of the file's
            network.features(IMAGE, network.layers[-1])

    def whole(gradient: bool) -> None:
        graph = load_graph(path)
        inputs = {name: rng.standard_normal((1, 3, *IMAGE.shape[:2])).astype(np.float32) for name in graph.inputs}
        outputs = graph.run(inputs)
        if gradient:
            graph.input_gradients(inputs, {name: np.ones_like(output) for name, output in outputs.items()})

    yield features
    yield lambda: whole(False)
    yield lambda: whole(True)


# ---- operators ----


def operator_call(rng: np.random.Generator) -> Callable[[], object]:
    """Return one use of an operator, of any inputs and attributes, and the gradient where it has one."""
    name = _one(rng, sorted(OPERATORS))
    operator = OPERATORS[name]
    least, most = operator.arity
    count = int(min(most, least + rng.integers(0, 3)))
    shape = tuple(int(size) for size in rng.integers(0 if rng.random() < 0.1 else 1, 6, rng.integers(0, 6)))
    names = [f"x{position}" for position in range(count)]
    inputs = {one: _input_array(rng, shape) for one in names}
    attributes = {}
    for attribute in rng.choice(_ATTRIBUTES, rng.integers(0, 5)):
        kind = rng.random()
        attributes[str(attribute)] = (
            _one(rng, NUMBERS)
            if kind < 0.4
            else [int(_one(rng, NUMBERS)) for _ in range(rng.integers(0, 5))]
            if kind < 0.8
            else _one(rng, (*TEXTS, *REALS))
        )
    outputs = tuple(f"y{number}" for number in range(rng.integers(1, 4) if rng.random() < 0.3 else 1))
    given = tuple(names) or ("",)
    use = Use(operator, attributes, int(rng.integers(1, 26)), given, len(outputs), name, len(outputs))
    node = GraphNode(name, use, given[0], outputs[0], given[1:], outputs[1:])
    graph = OnnxGraph(tuple(names), (), outputs[:1], {}, (node,))

    def call() -> None:
        found = graph.run(inputs)
        if operator.input_gradients is not None:
            graph.input_gradients(inputs, {one: np.ones_like(output) for one, output in found.items()})

    return call


_ATTRIBUTES = [
    *("axis", "axes", "pads", "group", "kernel_shape", "strides", "dilations", "size", "to", "mode", "value", "perm"),
    *("block_size", "keepdims", "num_outputs", "split", "alpha", "beta", "epsilon", "auto_pad", "ceil_mode", "shape"),
    *("batch_dims", "output_dtype", "starts", "ends", "steps", "transA", "transB", "allowzero"),
]


def _input_array(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if rng.random() < 0.3:  # shapes, axes, indices
        return np.array([_one(rng, NUMBERS[:8]) for _ in range(rng.integers(0, 5))], np.int64)
    if rng.random() < 0.2:
        shape = tuple(int(size) for size in rng.integers(1, 5, rng.integers(0, 5)))
    values = (5 * rng.standard_normal(shape)).clip(-100, 100)
    return (abs(values) if rng.random() < 0.3 else values).astype(_one(rng, DTYPES[:6]), casting="unsafe")


# ---- counts ----


def campaign(count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Try ``count`` models and ``20 * count`` calls of operators.

    Returns
    -------
    how often they ended in which way, and the cases that did in none that is allowed.
    """
    counts: Counter[str] = Counter()
    escaped: list[str] = []
    known, path = originals(), folder / "model.onnx"

    def tried(role: str, run: Callable[[], object], case: str) -> None:
        try:
            counts[f"{role}: {attempt(run)}"] += 1
        except EscapedError as error:
            escaped.append(f"{case} of seed {seed}: {error}")

    for number in range(count):
        rng = np.random.default_rng((seed, number))
        path.write_bytes(damaged(known[number % len(known)], rng))
        for role, run in zip(("features", "run", "gradient"), use(path, rng), strict=True):
            tried(role, run, f"model {number}, {role}")
    for number in range(20 * count):
        tried("operator", operator_call(np.random.default_rng((seed, 1, number))), f"operator call {number}")
    return counts, escaped


def main(count: int, seed: int = 0) -> None:
    """Print the counts, the time and the memory, and what escaped."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts, escaped = campaign(count, seed, Path(folder))
    import resource  # which not every system has

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print("\n".join(escaped))
    print(", ".join(f"{name} {number}" for name, number in sorted(counts.items())))
    print(
        f"{count} models and {20 * count} operator calls in {time.perf_counter() - began:.0f} s, {peak:.0f} MB at most"
    )
    sys.exit(bool(escaped))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
