"""The whole models that come with onnx, and the same with weights that tell one value from another."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from engine.onnx.file import open_onnx
from engine.onnx.graph import computed, read_node

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def light_names():
    """Return the models' names: ``squeezenet`` and others."""
    return sorted(path.stem.removeprefix("light_") for path in FOLDER.glob("light_*.onnx"))


def light_model(name):
    """Return a model and the output that is stored for it."""
    output = onnx.load_tensor(FOLDER / f"light_{name}_output_0.pb")
    return onnx.load(FOLDER / f"light_{name}.onnx"), numpy_helper.to_array(output)


def with_random_weights(model, seed=0):
    """Return a light model with stored random weights in place of its constants of one value.

    They are scaled by what reads them, so that values neither vanish nor grow on the way. A Softmax at the end is left
    out: it would round all but the largest value away.
    """
    rng = np.random.default_rng(seed)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    readers = {}
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            readers.setdefault(name, (node.op_type, position))
    del result.graph.node[:]
    file = open_onnx(model)
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            result.graph.node.append(node)
            if node.op_type == "BatchNormalization":
                # Below opset 14 onnx's reference mixes the image's own mean and variance in, unless this is 1.
                kept = [entry for entry in node.attribute if entry.name != "momentum"]
                del result.graph.node[-1].attribute[:]
                result.graph.node[-1].attribute.extend([*kept, onnx.helper.make_attribute("momentum", 1.0)])
            continue
        (array,) = computed(read_node(node, file), (stored[node.input[0]],)).values()
        numbers = rng.standard_normal(array.shape)
        reader = readers[node.output[0]]
        if reader == ("Conv", 1):
            numbers *= np.sqrt(2 / np.prod(array.shape[1:]))
        elif reader == ("Gemm", 1):
            numbers *= np.sqrt(1 / array.shape[-1])
        elif reader == ("BatchNormalization", 4):
            numbers = rng.uniform(0.5, 1.5, array.shape)
        elif reader in (("BatchNormalization", 1), ("Unsqueeze", 0)):
            numbers = 1 + 0.1 * numbers
        else:
            numbers *= 0.1
        result.graph.initializer.append(numpy_helper.from_array(numbers.astype(array.dtype), node.output[0]))
    last = result.graph.node[-1]
    if last.op_type == "Softmax":
        result.graph.output[0].name = last.input[0]
        del result.graph.node[-1]
    return result
