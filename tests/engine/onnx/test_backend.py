"""ONNX's own conformance cases, run by the engine.

``manifest.txt`` lists the cases that must pass, ``excluded.txt`` those that cannot and why. The tests of this
file hold the lists themselves: that each case exists and ran, that none of our operators' cases stands in neither list,
and that the cases would notice a kernel that is wrong.
"""

import functools
import re
import unittest
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.backend.base import BackendRep
from onnx.backend.test import BackendTest
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import BackendIsNotSupposedToImplementIt, Runner
from onnx.reference import ReferenceEvaluator

from engine.errors import ModelError
from engine.onnx.backend import EngineBackend, SkippedError
from engine.onnx.graph import load_graph
from engine.onnx.operators import OPERATORS, UnsupportedError
from kernels import Cpu
from tests.engine.onnx.models import KINDS, light_model, light_names, with_random_weights

HERE = Path(__file__).parent
INSTALLED = tuple(int(part) for part in onnx.__version__.split(".")[:2])

# The newest release of onnx that the lists were made with, and how many cases must pass in each.
NEWEST = (1, 23)
COUNTS = {(1, 17): 618, (1, 18): 629, (1, 19): 693, (1, 20): 697, (1, 21): 698, (1, 22): 720, (1, 23): 728}

# Values are compared with ONNX's own tolerance, and with this: the largest error by the largest value. ONNX's
# tolerance of 1e-3 is there for cases whose expected values were typed in, such as the one named here.
TOLERANCE = 1e-6
TYPED_IN = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 2e-4}


def manifest():
    """Return the names that must pass, each with the release that brought it."""
    since, names = (0, 0), {}
    for line in (HERE / "manifest.txt").read_text("utf-8").splitlines():
        if line.startswith("["):
            since = tuple(int(part) for part in line.strip("[]").split("."))
        elif line and not line.startswith("#"):
            assert line not in names, f"{line} is listed twice"
            names[line] = since
    return names


def exclusions():
    """Return the patterns of names that are left out, each with the reason."""
    lines = (HERE / "excluded.txt").read_text("utf-8").splitlines()
    pairs = [line.rsplit("|", 1) for line in lines if line and not line.startswith("#")]
    return {pattern.strip(): reason.strip() for pattern, reason in pairs}


MANIFEST = manifest()
LISTED = sorted(name for name, since in MANIFEST.items() if since <= INSTALLED)
EXCLUDED = exclusions()


@dataclass(frozen=True)
class Case:
    """One of ONNX's cases: a model and what it makes of some inputs."""

    kind: str
    model: onnx.ModelProto
    data_sets: list
    rtol: float
    atol: float

    @property
    def operators(self):
        return {node.op_type for node in self.model.graph.node}


@functools.cache
def cases():
    """Return the cases whose operators the engine has, by name, whichever way this release of onnx stores them."""
    found = {}
    # Importing the cases computes them: with warnings, and with the global random numbers set anew.
    state = np.random.get_state()  # noqa: NPY002  # onnx's own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in KINDS:
            for case in load_model_tests(kind=kind):
                model = case.model if case.model is not None else onnx.load(Path(case.model_dir) / "model.onnx")
                nodes = model.graph.node
                if any(node.domain not in ("", "ai.onnx") or node.op_type not in OPERATORS for node in nodes):
                    continue
                assert case.name not in found, f"two cases are called {case.name}"
                sets = case.data_sets if case.data_sets is not None else stored_data_sets(model, Path(case.model_dir))
                found[case.name] = Case(kind, model, sets, case.rtol, case.atol)
    np.random.set_state(state)  # noqa: NPY002
    return found


def stored_data_sets(model, folder):
    """Return the inputs and outputs that lie beside a model; none for types that are no arrays."""
    values = [*model.graph.input, *model.graph.output]
    if not all(value.type.HasField("tensor_type") for value in values):
        return []
    return [
        tuple(
            [onnx.load_tensor(part / f"{role}_{index}.pb") for index in range(len(list(part.glob(f"{role}_*.pb"))))]
            for role in ("input", "output")
        )
        for part in sorted(folder.glob("test_data_set*"))
    ]


def arrays(tensors):
    return [numpy_helper.to_array(one) if isinstance(one, onnx.TensorProto) else one for one in tensors]


def check(case):
    """Run a case; raises AssertionError where it fails, SkipTest where the engine lacks something."""
    prepared = EngineBackend.prepare(case.model, "CPU")
    assert case.data_sets
    errors = [0.0]
    for inputs, expected in case.data_sets:
        expected, outputs = arrays(expected), prepared.run(arrays(inputs))
        Runner.assert_similar_outputs(expected, outputs, case.rtol, case.atol)
        for one, other in zip(expected, outputs, strict=True):
            finite = np.isfinite(one) & (one.dtype.kind == "f")
            if finite.any():
                difference = np.abs(one[finite].astype(np.float64) - other[finite])
                errors.append(float(difference.max() / max(np.abs(one[finite]).max(), 1e-30)))
    return max(errors)


@pytest.mark.slow
@pytest.mark.parametrize("name", LISTED)
def test_case(name):
    assert name in cases(), f"onnx {onnx.__version__} has no such case, or it has new operators"
    try:
        error = check(cases()[name])
    except unittest.SkipTest as reason:
        pytest.fail(f"a case of the manifest is never skipped: {reason}")
    assert error <= TYPED_IN.get(name, TOLERANCE)


# ---- the lists ----


def test_the_manifest_is_complete():
    for release, count in COUNTS.items():
        assert sum(since <= release for since in MANIFEST.values()) == count
    assert len(LISTED) == COUNTS.get(INSTALLED, COUNTS[NEWEST])


@pytest.mark.slow
def test_each_case_of_our_operators_is_listed_or_excluded():
    names = set(cases())
    patterns = [re.compile(pattern) for pattern in EXCLUDED]
    excluded = {name for name in names if any(pattern.fullmatch(name) for pattern in patterns)}
    assert excluded.isdisjoint(MANIFEST)
    if INSTALLED <= NEWEST:
        assert names - excluded - set(LISTED) == set(), "new cases: list them, or exclude them with a reason"
    if INSTALLED == NEWEST:
        idle = [pattern.pattern for pattern in patterns if not any(map(pattern.fullmatch, names))]
        assert idle == ["test_cast(like)?_.*STRING.*"], "patterns without a case"


def test_what_is_excluded_is_refused_for_the_reason_given():
    for name, case in cases().items():
        reasons = [reason for pattern, reason in EXCLUDED.items() if re.fullmatch(pattern, name)]
        if reasons:
            with pytest.raises(SkippedError) as refusal:
                check(case)
            assert any(re.search(reason, str(refusal.value)) for reason in reasons), (name, str(refusal.value))


def test_each_operator_of_ours_has_a_case():
    of_cases = set().union(*(cases()[name].operators for name in LISTED))
    assert set(OPERATORS) - of_cases == set()


@pytest.mark.slow
def test_onnx_s_own_runner_agrees(tmp_path, monkeypatch):
    """It runs the same cases and the whole models, skips the rest, and counts as many as the manifest lists."""
    monkeypatch.setenv("ONNX_HOME", str(tmp_path))
    state = np.random.get_state()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = BackendTest(EngineBackend, __name__)
    np.random.set_state(state)  # noqa: NPY002
    for name in [*LISTED, *(f"test_{model}" for model in light_names())]:
        runner.include(f"^{name}_(cpu|cuda)$")
    outcome = unittest.TestResult()
    runner.test_suite.run(outcome)
    assert [str(case) for case, _ in outcome.failures + outcome.errors] == []
    skipped = {str(case) for case, reason in outcome.skipped if "_cpu " in str(case) and "include" not in reason}
    assert skipped == set()
    assert outcome.testsRun - len(outcome.skipped) == len(LISTED) + len(light_names())


# ---- what the cases notice ----


def rotated(conv):
    return lambda cpu, input, weight, *rest, **named: conv(cpu, input, weight[::-1, ::-1].copy(), *rest, **named)


def without_bias(conv):
    return lambda cpu, input, weight, bias, *rest, **named: conv(cpu, input, weight, None, *rest, **named)


def permuted(conv):
    return lambda cpu, input, weight, *rest, **named: conv(cpu, input, weight[:, :, ::-1].copy(), *rest, **named)


def undilated(conv):
    def mutant(cpu, input, weight, bias, window, *rest, **named):
        dense = np.array(window.dilations) * (np.array(window.kernel) - 1) + 1
        spread = np.zeros((*dense, *weight.shape[2:]), weight.dtype)
        spread[: window.kernel[0], : window.kernel[1]] = weight
        whole = type(window)(tuple(map(int, dense)), window.strides, window.pads, auto_pad=window.auto_pad)
        return conv(cpu, input, spread, bias, whole, *rest, **named)

    return mutant


def counting_padding(average_pool):
    return lambda cpu, input, window, *, count_include_pad, **named: average_pool(
        cpu, input, window, count_include_pad=True, **named
    )


def absolute(relu):
    return lambda cpu, input, **named: np.abs(input)


def last_of_equals(max_pool):
    def mutant(cpu, input, window, **named):
        output, winners = max_pool(cpu, input, window, **named)
        return output, winners + 1

    return mutant


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "mutant", "of_one_node", "of_models"),
    [
        ("conv", rotated, 0, 17),
        ("conv", without_bias, 0, 18),
        ("conv", permuted, 0, 15),
        ("conv", undilated, 0, 2),
        ("average_pool", counting_padding, 5, 0),
        ("relu", absolute, 1, 1),
        ("max_pool", last_of_equals, 2, 0),
    ],
)
def test_a_wrong_kernel_is_noticed(kernel, mutant, of_one_node, of_models, monkeypatch):
    """By so many cases. A rotated kernel is not seen by those of a single Conv: theirs are of one repeated value."""
    operator = {"conv": "Conv", "average_pool": "AveragePool", "relu": "Relu", "max_pool": "MaxPool"}[kernel]
    monkeypatch.setattr(Cpu, kernel, mutant(getattr(Cpu, kernel)))
    failed = {True: 0, False: 0}
    for name in LISTED:
        case = cases()[name]
        if case.operators == {operator} or (operator in case.operators and case.kind != "node"):
            try:
                check(case)
            except AssertionError:
                failed[case.kind == "node"] += 1
    assert (failed[True], failed[False]) == (of_one_node, of_models)


# ---- whole models ----


@pytest.mark.slow
@pytest.mark.parametrize("name", light_names())
def test_a_light_model_gives_the_stored_output(name):
    """All their weights are alike, so that this tests that the model can be read and run, and little else."""
    model, expected = light_model(name)
    graph = load_graph(model)
    values = next(value for value in model.graph.input if value.name == graph.inputs[0])
    image = Runner.generate_dummy_data(values)
    (output,) = graph.run({graph.inputs[0]: image}, device=Cpu(2)).values()
    np.testing.assert_allclose(output, expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_a_light_model_with_random_weights_gives_what_onnx_s_reference_gives(name):
    model = with_random_weights(light_model(name)[0])
    image = np.random.default_rng(1).standard_normal((1, 3, 224, 224), np.float32)
    graph = load_graph(model)
    (output,) = graph.run({graph.inputs[0]: image}, device=Cpu(2)).values()
    (expected,) = ReferenceEvaluator(model).run(None, {graph.inputs[0]: image})
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert output.std() > 0.1 * np.abs(output).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["squeezenet", "shufflenet", "resnet50", "inception_v1", "inception_v2", "densenet121"]
)
def test_the_gradient_through_a_light_model_with_random_weights(name):
    """Against the complex step: branches, concatenations and sums are all on the way."""
    graph = load_graph(with_random_weights(light_model(name)[0]))
    rng = np.random.default_rng(2)
    image, direction = rng.standard_normal((2, 1, 3, 224, 224))
    (of_input,), (of_output,) = graph.inputs, graph.outputs
    device, step = Cpu(2), 1e-30
    stepped = graph.run({of_input: image + 1j * step * direction}, device=device)[of_output]
    gradient = rng.standard_normal(stepped.shape)
    outputs, gradients = graph.input_gradients({of_input: image}, {of_output: gradient}, device=device)
    np.testing.assert_allclose(outputs[of_output], stepped.real, rtol=1e-9)
    derivative = (gradient * stepped.imag).sum() / step
    scale = np.linalg.norm(gradients[of_input]) * np.linalg.norm(direction)
    assert abs((gradients[of_input] * direction).sum() - derivative) < 1e-12 * scale


# ---- the interface ----


def relu_model(kind=onnx.TensorProto.FLOAT, node=None, opset=14):
    values = [helper.make_tensor_value_info(name, kind, [2, 3]) for name in ("x", "y")]
    node = node or helper.make_node("Relu", ["x"], ["y"], name="rectifier")
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


X = np.array([[-1.0, 2.0, -3.0], [4.0, -5.0, 6.0]], np.float32)


@pytest.mark.parametrize("inputs", [X, [X], {"x": X}])
def test_outputs_come_by_position_and_by_name(inputs):
    prepared = EngineBackend.prepare(relu_model())
    assert isinstance(prepared, BackendRep)
    outputs = prepared.run(inputs)
    np.testing.assert_array_equal(outputs[0], np.maximum(X, 0))
    np.testing.assert_array_equal(outputs["y"], outputs.y)
    np.testing.assert_array_equal(EngineBackend.run_model(relu_model(), [X])[0], outputs[0])


def test_one_node_can_be_run_without_a_model():
    node = helper.make_node("Clip", ["x", "", "high"], ["y"])
    outputs = EngineBackend.run_node(node, [X, np.float32(1)])
    np.testing.assert_array_equal(outputs.y, np.minimum(X, 1))
    old = helper.make_node("Clip", ["x"], ["y"], max=1.0)
    np.testing.assert_array_equal(EngineBackend.run_node(old, [X], opset_version=6)[0], outputs[0])


def test_devices():
    assert EngineBackend.supports_device("CPU")
    assert EngineBackend.supports_device("CPU:0")
    for device in ("CUDA", "CUDA:1", "TPU", "CPU:x", ""):
        assert not EngineBackend.supports_device(device)
    with pytest.raises(ValueError, match="device 'CUDA' is not available: the ONNX operators run on the CPU"):
        EngineBackend.prepare(relu_model(), "CUDA")
    with pytest.raises(ValueError, match="device 'CUDA' is not available"):
        EngineBackend.run_node(relu_model().graph.node[0], [X], "CUDA")


def test_what_is_not_supported_is_skipped_and_not_passed():
    assert issubclass(SkippedError, unittest.SkipTest)
    assert issubclass(SkippedError, ModelError)
    # The runner takes this one for a pass.
    assert not issubclass(SkippedError, BackendIsNotSupposedToImplementIt)
    node = helper.make_node("Det", ["x"], ["y"], name="determinant")
    with pytest.raises(SkippedError, match=r"^Det 'determinant': operator Det is not supported$"):
        EngineBackend.prepare(relu_model(node=node))
    with pytest.raises(SkippedError, match="Det 'determinant': operator Det is not supported"):
        EngineBackend.run_node(node, [X])
    assert not EngineBackend.is_compatible(relu_model(node=node))
    assert EngineBackend.is_compatible(relu_model())
    assert not EngineBackend.is_compatible(relu_model(), "CUDA")
    assert not EngineBackend.is_compatible(relu_model(kind=onnx.TensorProto.BFLOAT16))
    with pytest.raises(UnsupportedError, match="operator Det"):
        load_graph(relu_model(node=node))


def test_a_damaged_model_is_onnx_s_error():
    with pytest.raises(onnx.checker.ValidationError):
        EngineBackend.prepare(relu_model(node=helper.make_node("Relu", ["nowhere"], ["y"])))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "0 inputs are given, the model takes 1"),
        ([X, X], "2 inputs are given, the model takes 1"),
        ({"z": X}, "unknown input 'z'; choose from x"),
        ({}, "the input 'x' is missing, the model takes x"),
        ([np.array(["text"])], "the input 'x' is of type <U4, which is not supported"),
    ],
)
def test_inputs_that_do_not_fit(inputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        EngineBackend.prepare(relu_model()).run(inputs)
