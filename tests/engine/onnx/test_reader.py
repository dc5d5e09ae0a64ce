"""The ONNX reader: whatever way an exporter writes the network, the features are the same; faults are named."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.load import load_network
from engine.onnx.reader import read_onnx
from engine.ops import Affine, AveragePool, Conv, MaxPool, Relu
from kernels.geometry import Window
from tests.engine import models
from tests.engine.models import Builder
from tests.kernels import naive

BLOCKS = models.parameters((2, 2, 3))
NAMES = models.names(BLOCKS)
IMAGE = models.random_image(13, 11)


def features(model, path, **arguments):
    """Return the network of a file and all its features of the common image."""
    network = load_network(models.save(model, path / "model.onnx"), threads=1, **arguments)
    return network, network.features(IMAGE, network.layers)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Features of the file with everything stated."""
    network, found = features(models.vgg(BLOCKS), tmp_path_factory.mktemp("plain"))
    assert network.layers == NAMES
    return found


def test_the_plain_file_equals_the_naive_network(plain):
    expected = models.naive_features(BLOCKS, IMAGE)
    for name in NAMES:
        assert plain[name].dtype == np.float32
        scale = abs(expected[name]).max()
        np.testing.assert_allclose(plain[name], expected[name], rtol=0, atol=2e-6 * scale, err_msg=name)
        assert 0.1 < (expected[name] > 0).mean() < 0.9, name


# ---- the ways of exporters ----


def sparse_conv(builder, value, weight, bias):
    """A Conv that states nothing but its padding."""
    return builder.node("Conv", value, builder.weight(weight), builder.weight(bias), pads=[1, 1, 1, 1])


def shuffled_conv(builder, value, weight, bias):
    models.plain_conv(builder, value, weight, bias)
    attributes = list(builder.nodes[-1].attribute)
    del builder.nodes[-1].attribute[:]
    builder.nodes[-1].attribute.extend(reversed(attributes))
    return builder.nodes[-1].output[0]


def same_conv(mode):
    def conv(builder, value, weight, bias):
        arguments = builder.weight(weight), builder.weight(bias)
        # pads beside auto_pad are deprecated and without meaning
        return builder.node("Conv", value, *arguments, auto_pad=mode, kernel_shape=[3, 3])

    return conv


def conv_of_constant_nodes(builder, value, weight, bias):
    tensors = [
        builder.node("Constant", value=numpy_helper.from_array(weight)),
        builder.node("Constant", value_floats=bias.tolist()),
    ]
    return builder.node("Conv", value, *tensors, pads=[1, 1, 1, 1])


def conv_of_moved_weights(builder, value, weight, bias):
    """TensorFlow's weight layout, turned in the file; the bias behind a Cast and an Identity."""
    turned = builder.node("Transpose", builder.weight(weight.transpose(2, 3, 1, 0)), perm=[3, 2, 0, 1])
    cast = builder.node("Cast", builder.weight(bias), to=models.FLOAT)
    return builder.node("Conv", value, turned, builder.node("Identity", cast), pads=[1, 1, 1, 1])


def bias_added(shape, constant_first=False, **attributes):
    def conv(builder, value, weight, bias):
        value = builder.node("Conv", value, builder.weight(weight), pads=[1, 1, 1, 1])
        pair = [value, builder.weight(bias.reshape(shape))]
        return builder.node("Add", *(reversed(pair) if constant_first else pair), **attributes)

    return conv


def padded_before(as_attribute, constant_value=False):
    def conv(builder, value, weight, bias):
        pads = [0, 0, 1, 0, 0, 0, 1, 0]
        if as_attribute:
            value = builder.node("Pad", value, pads=pads, mode="constant", value=0.0)
        else:
            zero = [builder.weight(np.float32(0))] if constant_value else []
            value = builder.node("Pad", value, builder.weight(np.array(pads)), *zero)
        # The columns are padded by the Conv itself: both paddings add up.
        return builder.node("Conv", value, builder.weight(weight), builder.weight(bias), pads=[0, 1, 0, 1])

    return conv


def padded_then_valid(builder, value, weight, bias):
    value = builder.node("Pad", value, builder.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    return builder.node("Conv", value, builder.weight(weight), builder.weight(bias), auto_pad="VALID")


def normalized(with_bias):
    """A Conv and a BatchNormalization that together are the convolution asked for."""

    def conv(builder, value, weight, bias):
        rng = np.random.default_rng(len(builder.nodes))
        scale, mean, variance = (
            rng.uniform(0.5, 2, bias.size),
            rng.normal(0, 9, bias.size),
            rng.uniform(1, 9, bias.size),
        )
        factor = scale / np.sqrt(variance + 1e-3)
        inner = rng.normal(0, 9, bias.size) if with_bias else np.zeros(bias.size)
        arguments = [builder.weight(weight / factor[:, None, None, None])]
        if with_bias:
            arguments.append(builder.weight(inner))
        value = builder.node("Conv", value, *arguments, pads=[1, 1, 1, 1])
        shift = bias - (inner - mean) * factor
        constants = [builder.weight(array) for array in (scale, shift, mean, variance)]
        return builder.node("BatchNormalization", value, *constants, epsilon=1e-3)

    return conv


def identity_before_conv(builder, value, weight, bias):
    return models.plain_conv(builder, builder.node("Identity", value), weight, bias)


def relu_with_identities(builder, value):
    return builder.node("Identity", models.plain_relu(builder, builder.node("Identity", value)))


def channels_last(operator):
    """An operator of a channels-last exporter: Transposes before and behind."""

    def wrapped(builder, value, *parameters):
        value = builder.node("Transpose", value, perm=[0, 3, 1, 2])
        return builder.node("Transpose", operator(builder, value, *parameters), perm=[0, 2, 3, 1])

    return wrapped


def channels_last_bias(builder, value, weight, bias):
    value = builder.node("Transpose", value, perm=[0, 3, 1, 2])
    value = builder.node("Conv", value, builder.weight(weight), pads=[1, 1, 1, 1])
    return builder.node("Add", builder.node("Transpose", value, perm=[0, 2, 3, 1]), builder.weight(bias))


def to_channels_first(builder, value):
    return builder.node("Transpose", value, perm=[0, 3, 1, 2])


def to_channels_last(builder, value):
    return builder.node("Transpose", value, perm=[0, 2, 3, 1])


def pool_with_dropout(builder, value):
    value = models.plain_pool(builder, value)
    return builder.node("Dropout", value, outputs=[f"{value}_kept", f"{value}_mask"])


def pool_with_dropout_and_an_empty_name(builder, value):
    value = models.plain_pool(builder, value)
    return builder.node("Dropout", value, outputs=[f"{value}_kept", ""])


def dropout_with_ratio(builder, value):
    ratio, training = builder.weight(np.float32(0.5)), builder.weight(np.array(False))
    return builder.node("Dropout", models.plain_pool(builder, value), ratio, training)


def pool_with_indices(builder, value):
    return builder.node(
        "MaxPool", value, outputs=[f"{value}_max", f"{value}_index"], kernel_shape=[2, 2], strides=[2, 2]
    )


def classifier(pooling=None, **attributes):
    def behind(builder, value):
        value = models.plain_pool(builder, value)
        if pooling:
            value = builder.node(pooling, value, **attributes)
        value = builder.node("Flatten", value)
        value = builder.node("Gemm", value, builder.weight(np.ones((7, 4))), builder.weight(np.ones(4)))
        value = builder.node("Dropout", builder.node("Relu", value))
        return builder.node("Softmax", builder.node("Gemm", value, builder.weight(np.ones((4, 2)))))

    return behind


VARIANTS = {
    "attributes left out": {"conv": sparse_conv},
    "attributes in another order": {"conv": shuffled_conv},
    "weights as Constant nodes": {"conv": conv_of_constant_nodes},
    "weights turned by nodes": {"conv": conv_of_moved_weights},
    "bias added behind": {"conv": bias_added((-1, 1, 1))},
    "bias added behind, four dimensions": {"conv": bias_added((1, -1, 1, 1))},
    "bias added in front": {"conv": bias_added((-1, 1, 1), constant_first=True)},
    "Identity everywhere": {"conv": identity_before_conv, "relu": relu_with_identities},
    "Pad before Conv, opset 13": {"conv": padded_before(as_attribute=False)},
    "Pad before Conv, value given": {"conv": padded_before(as_attribute=False, constant_value=True)},
    "Pad before Conv, auto_pad VALID": {"conv": padded_then_valid},
    "Dropout with unused mask": {"pool": pool_with_dropout},
    "Dropout with inputs": {"pool": dropout_with_ratio},
    "MaxPool with unused indices": {"pool": pool_with_indices},
    "channels-last image": {"front": to_channels_first, "behind": to_channels_last, "input_shape": ("N", "H", "W", 3)},
    "channels-last image, sizes open": {"front": to_channels_first, "input_shape": ("N", "H", "W", "C")},
    "channels-last throughout": {
        "conv": channels_last(models.plain_conv),
        "pool": channels_last(models.plain_pool),
        "input_shape": ("N", "H", "W", 3),
    },
    "channels-last bias": {
        "conv": channels_last_bias,
        "pool": channels_last(models.plain_pool),
        "input_shape": (1, 32, 32, 3),
    },
    "sizes fixed": {"input_shape": (1, 3, 32, 32)},
    "sizes open": {"input_shape": ("N", "C", "H", "W")},
    "shape left out": {"input_shape": None},
    "classifier behind": {"behind": classifier()},
    "classifier behind a global pooling": {"behind": classifier("GlobalAveragePool")},
}


def assert_same_bits(found, expected):
    for name in NAMES:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def assert_close(found, expected, tolerance):
    for name in NAMES:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=tolerance * abs(expected[name]).max(), err_msg=name
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_network_written_otherwise_gives_the_same_bits(variant, plain, tmp_path):
    model = models.vgg(BLOCKS, **VARIANTS[variant])
    if variant != "shape left out":
        onnx.checker.check_model(model)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert_same_bits(found, plain)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_auto_pad_of_3x3_windows_is_one_pixel_around(mode, plain, tmp_path):
    model = models.vgg(BLOCKS, conv=same_conv(mode))
    onnx.checker.check_model(model)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert_close(found, plain, 1e-6)


@pytest.mark.parametrize("with_bias", [False, True])
def test_batch_normalization_is_folded_into_the_convolution(with_bias, plain, tmp_path):
    model = models.vgg(BLOCKS, conv=normalized(with_bias))
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert all(isinstance(node.operator, Conv | AveragePool) for node in network.nodes)
    assert_close(found, plain, 1e-5)


@pytest.mark.parametrize("opset", range(6, 23))
def test_every_opset_from_6_to_22_is_read(opset, plain, tmp_path):
    builder = Builder(opset=opset, ir_version=3 if opset < 9 else 8)
    conv = padded_before(as_attribute=opset < 11)
    pool = pool_with_dropout if opset < 12 else dropout_with_ratio
    model = models.vgg(BLOCKS, conv=conv, pool=pool, builder=builder)
    weights = [name for name in builder.weights if opset < 9]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in builder.weights.items()
        if name in weights
    )
    onnx.checker.check_model(model)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert_same_bits(found, plain)


def test_weights_listed_among_the_inputs_are_not_taken_for_the_image(plain, tmp_path):
    builder = Builder(opset=7, ir_version=3)
    model = models.vgg(BLOCKS, builder=builder)
    image = model.graph.input[0]
    listed = [helper.make_tensor_value_info(name, models.FLOAT, array.shape) for name, array in builder.weights.items()]
    del model.graph.input[:]
    model.graph.input.extend([*listed, image])
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert_same_bits(found, plain)


def test_bias_with_broadcast_attributes_of_opset_6(plain, tmp_path):
    conv = bias_added((-1,), broadcast=1, axis=1)
    model = models.vgg(BLOCKS, conv=conv, builder=Builder(opset=6, ir_version=3))
    _, found = features(model, tmp_path)
    assert_same_bits(found, plain)


def test_float16_weights_are_read(plain, tmp_path):
    _, found = features(models.vgg(BLOCKS, builder=Builder(dtype=np.float16)), tmp_path)
    assert_close(found, plain, 1e-2)
    assert all(array.dtype == np.float32 for array in found.values())


def test_bfloat16_weights_are_read(plain, tmp_path):
    model = models.vgg(BLOCKS)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        rounded = helper.make_tensor(tensor.name, TensorProto.BFLOAT16, values.shape, values.ravel())
        tensor.CopyFrom(rounded)
    _, found = features(model, tmp_path)
    assert_close(found, plain, 5e-2)


def test_float64_weights_keep_their_precision(plain, tmp_path):
    blocks = [[(weight.astype(float) * (1 + 1e-12), bias) for weight, bias in block] for block in BLOCKS]
    model = models.vgg(blocks, builder=Builder(dtype=np.float64))
    network, found = features(model, tmp_path, dtype="float64")
    np.testing.assert_array_equal(network.nodes[0].operator.weight, blocks[0][0][0].transpose(2, 3, 1, 0))
    assert_close(found, plain, 1e-5)


def test_a_convolution_of_any_attributes_keeps_them(tmp_path):
    rng = np.random.default_rng(0)
    builder = Builder()
    value = builder.node(
        "Conv",
        "image",
        builder.weight(rng.standard_normal((6, 1, 2, 3)), "w"),
        strides=[2, 1],
        dilations=[1, 2],
        pads=[0, 1, 2, 3],
        group=3,
    )
    value = builder.node("MaxPool", value, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], ceil_mode=1)
    value = builder.node("AveragePool", value, kernel_shape=[2, 2], auto_pad="SAME_LOWER", count_include_pad=1)
    graph = read_onnx(models.save(builder.model(builder.node("Relu", value)), tmp_path / "m.onnx"))
    conv, maximum, average, relu = (node.operator for node in graph.nodes)
    assert isinstance(conv, Conv)
    assert conv.window == Window((2, 3), (2, 1), (0, 1, 2, 3), (1, 2))
    assert (conv.group, conv.bias, conv.relu) == (3, None, False)
    np.testing.assert_array_equal(conv.weight, builder.weights["w"].transpose(2, 3, 1, 0))
    assert maximum == MaxPool(Window((3, 2), (2, 1), (1, 0, 1, 1), ceil_mode=True))
    assert average == AveragePool(Window((2, 2), auto_pad="SAME_LOWER"), count_include_pad=True)
    assert isinstance(relu, Relu)


def test_the_graph_says_what_the_file_holds(tmp_path):
    model = models.vgg(BLOCKS, behind=classifier())
    graph = read_onnx(models.save(model, tmp_path / "m.onnx"))
    assert graph.input == "image"
    assert graph.metadata == models.CAFFE
    assert graph.operators == Counter(node.op_type for node in model.graph.node)
    assert [(node.label, node.reason) for node in graph.rejected] == [
        ("Flatten 'flatten1'", "operator Flatten is not supported")
    ]


def test_constants_of_a_classifier_are_not_read(plain, tmp_path):
    """Neither one that is no number nor one that is damaged: nobody asks for what stands behind them."""

    def behind(builder, value):
        damaged = numpy_helper.from_array(np.ones(3, np.float32))
        damaged.dims[0] = 4
        flat = builder.node("Flatten", value)
        builder.node("Gemm", flat, builder.node("Constant", value_string="text"))
        return builder.node("Gemm", flat, builder.node("Constant", value=damaged))

    path = models.save(models.vgg(BLOCKS, behind=behind), tmp_path / "m.onnx")
    assert [(node.label, node.reason) for node in read_onnx(path).rejected] == [
        ("Flatten 'flatten1'", "operator Flatten is not supported"),
    ]
    assert_same_bits(load_network(path, threads=1).features(IMAGE, NAMES), plain)


def test_dropout_with_its_second_output_left_empty_hides_nothing(plain, tmp_path):
    """ONNX writes an optional output that nobody wants as an empty name, and an optional input likewise."""

    def conv(builder, value, weight, bias):
        value = builder.node("Conv", value, builder.weight(weight), "", pads=[1, 1, 1, 1])
        return builder.node("Add", value, builder.weight(bias.reshape(-1, 1, 1)))

    model = models.vgg(BLOCKS, conv=conv, pool=pool_with_dropout_and_an_empty_name)
    onnx.checker.check_model(model)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert_same_bits(found, plain)


def test_torchvisions_pooling_of_1x1_before_the_classifier_hides_no_layer_names(tmp_path):
    """AdaptiveAvgPool2d((7, 7)) of a 7x7 map is exported as an AveragePool of 1x1 behind the last MaxPool."""
    blocks = models.parameters((2, 2, 4, 4, 4), widths=(3, 3, 3, 3, 7))
    model = models.vgg(blocks, behind=classifier("AveragePool", kernel_shape=[1, 1], strides=[1, 1]))
    network = load_network(models.save(model, tmp_path / "m.onnx"))
    assert network.layers == models.names(blocks)


def test_a_classifier_made_of_convolutions_hides_no_layer_names(tmp_path):
    blocks = models.parameters((2, 2, 4, 4, 4), widths=(3, 3, 3, 3, 7))

    def behind(builder, value):
        value = builder.node("Conv", models.plain_pool(builder, value), builder.weight(np.ones((4, 7, 7, 7))))
        value = builder.node("Dropout", builder.node("Relu", value))
        return builder.node("Softmax", builder.node("Conv", value, builder.weight(np.ones((2, 4, 1, 1)))))

    network = load_network(models.save(models.vgg(blocks, behind=behind), tmp_path / "m.onnx"))
    assert network.layers[: len(models.names(blocks))] == models.names(blocks)


def test_a_file_that_ends_with_a_convolution_before_its_relu_keeps_its_layer_names(tmp_path):
    def behind(builder, value):
        return models.plain_conv(builder, value, np.ones((7, 7, 3, 3), np.float32), np.ones(7, np.float32))

    network = load_network(models.save(models.vgg(BLOCKS, behind=behind), tmp_path / "m.onnx"))
    assert network.layers == NAMES


MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def scaled_by_nodes(builder, value):
    """Mean and deviation as nodes at the front, in three of the ways there are."""
    value = builder.node("Mul", builder.weight(np.float32(1 / 255)), value)
    value = builder.node("Sub", value, builder.weight(MEAN.reshape(1, 3, 1, 1)))
    return builder.node("Div", value, builder.weight(DEVIATION.reshape(3, 1, 1)))


def scaled_by_batch_normalization(builder, value):
    constants = [builder.weight(array) for array in (np.ones(3), np.zeros(3), 255 * MEAN, (255 * DEVIATION) ** 2)]
    return builder.node("BatchNormalization", value, *constants, epsilon=0.0)


FRONTS = [scaled_by_nodes, scaled_by_batch_normalization]


@pytest.mark.parametrize("front", FRONTS)
def test_mean_and_deviation_as_nodes_equal_the_preprocessing(front, tmp_path):
    _, expected = features(models.vgg(BLOCKS), tmp_path, preprocessing="torch")
    network, found = features(models.vgg(BLOCKS, front=front), tmp_path, preprocessing="raw")
    assert len(network.layers) == len(NAMES)
    by_position = dict(zip(NAMES, found.values(), strict=True))
    assert_close(by_position, expected, 1e-5)


@pytest.mark.parametrize("front", FRONTS)
def test_mean_and_deviation_as_nodes_hide_no_layer_names(front, tmp_path):
    network = load_network(models.save(models.vgg(BLOCKS, front=front), tmp_path / "m.onnx"), preprocessing="raw")
    assert network.layers == NAMES


def test_arithmetic_with_constants_equals_numpy(tmp_path):
    rng = np.random.default_rng(0)
    a, b, c, d = rng.uniform(1, 2, (4, 3))

    def front(builder, value):
        value = builder.node("Sub", builder.weight(a.reshape(3, 1, 1)), value)
        value = builder.node("Mul", value, builder.weight(b.reshape(3, 1, 1)))
        value = builder.node("Div", value, builder.weight(c.reshape(3, 1, 1)))
        return builder.node("Add", builder.weight(d.reshape(3, 1, 1)), value)

    blocks = models.parameters((1,))
    model = models.vgg(blocks, front=front, builder=Builder(dtype=np.float64))
    network = load_network(models.save(model, tmp_path / "m.onnx"), preprocessing="raw", dtype="float64")
    expected = models.naive_features(blocks, IMAGE, preprocess=lambda image: (a - image) * b / c + d)
    np.testing.assert_allclose(
        network.features(IMAGE, network.layers)[network.layers[0]], expected["conv1_1"], rtol=0, atol=1e-11
    )


def test_a_convolution_that_two_nodes_read_is_not_folded(tmp_path):
    (weight, bias), (second, _) = models.parameters((1,), (3,))[0][0], models.parameters((1,), (4,), seed=1)[0][0]
    builder = Builder(dtype=np.float64)
    linear = models.plain_conv(builder, "image", weight, bias)
    rectified = builder.node("Relu", linear, outputs=["rectified"])
    both = [builder.node("Conv", value, builder.weight(second), pads=[1, 1, 1, 1]) for value in (linear, rectified)]
    outputs = [builder.node("Relu", value, outputs=[f"end{n}"]) for n, value in enumerate(both)]
    path = models.save(builder.model(outputs[1]), tmp_path / "m.onnx")
    network = load_network(path, dtype="float64", preprocessing="raw")
    found = network.features(IMAGE, ["rectified", "end0", "end1"])
    kernel = weight.transpose(2, 3, 1, 0)
    value = models.naive.conv(IMAGE, kernel.astype(float), bias.astype(float), models.CONV)
    turned = second.transpose(2, 3, 1, 0).astype(float)
    for name, twin in {
        "rectified": np.maximum(value, 0),
        "end0": np.maximum(models.naive.conv(value, turned, None, models.CONV), 0),
        "end1": np.maximum(models.naive.conv(np.maximum(value, 0), turned, None, models.CONV), 0),
    }.items():
        np.testing.assert_allclose(np.moveaxis(found[name], 0, 2), twin, rtol=0, atol=1e-11, err_msg=name)


# ---- external data ----


def with_external_data(path, location="weights.bin", **changes):
    """Write a model whose weights lie in a file beside it, each at its offset; return its path."""
    model = models.vgg(BLOCKS)
    data = bytearray()
    for tensor in model.graph.initializer:
        entries = {"location": location, "offset": str(len(data)), "length": str(len(tensor.raw_data))} | changes
        data += tensor.raw_data + bytes(-len(tensor.raw_data) % 64)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            if value is not None:
                tensor.external_data.add(key=key, value=value)
    return models.save(model, path / "model.onnx"), bytes(data)


def test_external_data_beside_the_model_is_read(plain, tmp_path):
    for location in ("weights.bin", "deeper/weights.bin"):
        path, data = with_external_data(tmp_path, location)
        (tmp_path / location).parent.mkdir(exist_ok=True)
        (tmp_path / location).write_bytes(data)
        network = load_network(path, threads=1)
        assert_same_bits(network.features(IMAGE, NAMES), plain)


def test_external_data_written_by_onnx_itself_is_read(plain, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save_model(models.vgg(BLOCKS), path, save_as_external_data=True, location="all.bin", size_threshold=0)
    assert (tmp_path / "all.bin").stat().st_size > 1000
    assert_same_bits(load_network(path, threads=1).features(IMAGE, NAMES), plain)


def test_external_data_is_found_from_any_working_folder(plain, tmp_path, monkeypatch):
    path, data = with_external_data(tmp_path)
    (tmp_path / "weights.bin").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    assert_same_bits(load_network(path.name, threads=1).features(IMAGE, NAMES), plain)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert_same_bits(load_network("../model.onnx", threads=1).features(IMAGE, NAMES), plain)


@pytest.mark.parametrize("how", ["up", "up from below", "absolute", "symlink", "symlinked folder"])
def test_external_data_outside_the_models_folder_is_refused(how, tmp_path):
    folder = tmp_path / "model"
    (folder / "below").mkdir(parents=True)
    outside = tmp_path / "secret.bin"
    location = {
        "up": "../secret.bin",
        "up from below": "below/../../secret.bin",
        "absolute": str(outside),
        "symlink": "link.bin",
        "symlinked folder": "out/secret.bin",
    }[how]
    path, data = with_external_data(folder, location)
    outside.write_bytes(data)
    (folder / "link.bin").symlink_to(outside)
    (folder / "out").symlink_to(tmp_path)
    with pytest.raises(ModelError, match=r"Conv 'conv1': weight 'weight0': its data file .* lies outside the model's"):
        load_network(path)


def test_external_data_that_is_missing_is_named(tmp_path):
    path, _ = with_external_data(tmp_path)
    with pytest.raises(ModelError, match=r"weight 'weight0': its data file 'weights.bin' does not exist beside the"):
        load_network(path)


def test_external_data_that_is_too_short_is_named(tmp_path):
    path, data = with_external_data(tmp_path)
    (tmp_path / "weights.bin").write_bytes(data[:500])
    with pytest.raises(ModelError, match=r"500 bytes in 'weights.bin', expected 540 for shape \(5, 3, 3, 3\)"):
        load_network(path)


@pytest.mark.parametrize("length", ["536", "600"])
def test_external_data_of_another_length_than_the_shape_is_named(length, tmp_path):
    path, data = with_external_data(tmp_path, length=length)
    (tmp_path / "weights.bin").write_bytes(data)
    with pytest.raises(ModelError, match=rf"{length} bytes in 'weights.bin', expected 540 for shape \(5, 3, 3, 3\)"):
        load_network(path)


def test_external_data_without_offset_and_length_is_the_whole_file(tmp_path):
    blocks = models.parameters((1,))
    model = models.vgg(blocks)
    weight = model.graph.initializer[0]
    (tmp_path / "w.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    network = load_network(models.save(model, tmp_path / "m.onnx"))
    np.testing.assert_array_equal(network.nodes[0].operator.weight, blocks[0][0][0].transpose(2, 3, 1, 0))


# ---- faults ----


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.onnx: no such model file"):
        load_network(tmp_path / "nothing.onnx")


def test_a_directory_is_named(tmp_path):
    with pytest.raises(ModelError, match="is a directory, expected an ONNX file"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"This is no model.\n", b"\x89PNG\r\n\x1a\n" + bytes(100), b"\xff" * 300, b"PK\x03\x04" + bytes(range(256))],
    ids=["empty", "text", "PNG", "ones", "zip"],
)
def test_a_file_of_another_kind_is_not_onnx(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: not an ONNX file"):
        load_network(path)


def test_a_truncated_file_is_named_at_any_length(tmp_path):
    whole = models.vgg(BLOCKS).SerializeToString()
    path = tmp_path / "model.onnx"
    # What stands behind the graph is the opset and the metadata: without them a file is still a network.
    end_of_graph = whole.rindex(BLOCKS[-1][-1][1].tobytes())
    for length in [*range(1, 60), *range(60, end_of_graph, 997), end_of_graph]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=r"model\.onnx: not an ONNX file"):
            load_network(path)


def test_a_damaged_file_is_an_error_of_the_model_or_loads(tmp_path):
    """Whatever stands in a file, nothing but a ModelError comes out."""
    whole = models.vgg(models.parameters((2, 1)), behind=classifier()).SerializeToString()
    path, rng = tmp_path / "model.onnx", np.random.default_rng(0)
    outcomes = Counter()
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 6):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_network(path, preprocessing="raw")
            outcomes["loads"] += 1
        except ModelError:
            outcomes["error"] += 1
    assert min(outcomes["loads"], outcomes["error"]) > 20


def changed(change, behind=models.unchanged):
    """Return the plain model after ``change(graph, initializers by name)``."""
    model = models.vgg(BLOCKS, behind=behind)
    change(model.graph, {tensor.name: tensor for tensor in model.graph.initializer})
    return model


def replaced(name, array):
    def change(graph, tensors):
        tensors[name].CopyFrom(numpy_helper.from_array(np.asarray(array), name))

    return change


def without(name):
    def change(graph, tensors):
        graph.initializer.remove(tensors[name])

    return change


def with_attribute(number, name, value):
    def change(graph, tensors):
        node = graph.node[number]
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def with_few_bytes(graph, tensors):
    tensors["weight0"].raw_data = tensors["weight0"].raw_data[:-4]


def without_image(graph, tensors):
    del graph.input[:]


def with_flat_image(graph, tensors):
    del graph.input[0].type.tensor_type.shape.dim[3]


def with_unknown_input(graph, tensors):
    graph.node[2].input[0] = "nowhere"


NOT_A_NUMBER = np.full((5, 3, 3, 3), 1, np.float32)
NOT_A_NUMBER[2, 1, 0] = np.nan, np.inf, 0

FAULTS = {
    "missing weight": (without("weight2"), r"Conv 'conv2': weight 'weight2' is missing from the file"),
    "missing bias": (without("weight3"), r"Conv 'conv2': bias 'weight3' is missing from the file"),
    "three dimensions": (
        replaced("weight2", np.ones((5, 5, 3), np.float32)),
        r"Conv 'conv2': weight has the shape \(5, 5, 3\), expected four dimensions",
    ),
    "no filters": (
        replaced("weight2", np.ones((0, 5, 3, 3), np.float32)),
        r"Conv 'conv2': weight \(0, 5, 3, 3\) does not fit into 1 groups",
    ),
    "bias of another length": (
        replaced("weight3", np.ones(4, np.float32)),
        r"Conv 'conv2': bias has the shape \(4,\), weight \(5, 5, 3, 3\) expects \(?5",
    ),
    "bias of two dimensions": (
        replaced("weight3", np.ones((5, 1), np.float32)),
        r"Conv 'conv2': bias has the shape \(5, 1\), weight \(5, 5, 3, 3\) expects \(?5",
    ),
    "channels between layers": (
        replaced("weight2", np.ones((5, 4, 3, 3), np.float32)),
        r"Conv 'conv1_2': input has 5 channels, weight \(5, 4, 3, 3\) expects 4",
    ),
    "channels of the image": (
        replaced("weight0", np.ones((5, 1, 3, 3), np.float32)),
        r"Conv 'conv1_1': input has 3 channels, weight \(5, 1, 3, 3\) expects 1",
    ),
    "not a number": (
        replaced("weight0", NOT_A_NUMBER),
        r"Conv 'conv1': weight has 2 values that are infinite or not a number",
    ),
    "infinite bias": (
        replaced("weight1", np.full(5, np.inf, np.float32)),
        r"Conv 'conv1': bias has 5 values that are infinite or not a number",
    ),
    "integer weights": (
        replaced("weight0", np.ones((5, 3, 3, 3), np.int32)),
        r"Conv 'conv1': weight has the type int32, expected floating point",
    ),
    "text as weights": (
        replaced("weight0", np.full((5, 3, 3, 3), "a", object)),
        r"Conv 'conv1': weight has the type object, expected floating point",
    ),
    "too few bytes": (with_few_bytes, r"Conv 'conv1': weight 'weight0' cannot be read"),
    "kernel_shape against the weight": (
        with_attribute(0, "kernel_shape", [5, 5]),
        r"Conv 'conv1': kernel_shape \(5, 5\) does not fit weight \(5, 3, 3, 3\)",
    ),
    "groups": (with_attribute(0, "group", 2), r"Conv 'conv1': weight \(5, 3, 3, 3\) does not fit into 2 groups"),
    "two pads": (with_attribute(0, "pads", [1, 1]), r"Conv 'conv1': pads has 2 values, expected 4"),
    "one stride": (with_attribute(0, "strides", [1]), r"Conv 'conv1': strides has 1 values, expected 2"),
    "negative pads": (with_attribute(0, "pads", [-1, 0, 0, 0]), r"Conv 'conv1': pads .* must not be negative"),
    "stride of zero": (with_attribute(0, "strides", [0, 1]), r"Conv 'conv1': .* must be at least 1"),
    "pads that are not a list": (with_attribute(0, "pads", 1), r"Conv 'conv1': .*pads"),
    "auto_pad that is not text": (with_attribute(0, "auto_pad", 1), r"Conv 'conv1': .*auto_pad"),
    "unknown auto_pad": (with_attribute(0, "auto_pad", "SAME"), r"Conv 'conv1': auto_pad 'SAME' is not one of"),
    "no kernel_shape": (
        lambda graph, tensors: graph.node[4].ClearField("attribute"),
        r"MaxPool 'maxpool1': kernel_shape is missing",
    ),
    "no image": (without_image, r"the network has no image input"),
    "image of three dimensions": (with_flat_image, r"the image input 'image' has 3 dimensions, expected 4"),
    "unknown value": (with_unknown_input, r"Conv 'conv2': input 'nowhere' is not produced by any node before it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_file_is_named(fault, tmp_path):
    change, message = FAULTS[fault]
    path = models.save(changed(change), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=message):
        load_network(path)


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ((np.ones(5), np.ones(5), np.ones(5), -np.ones(5)), r"BatchNormalization 'batchnormalization1': .* negative"),
        ((np.ones(5), np.ones(5), np.ones(4), np.ones(5)), r"scale, B, input_mean and input_var differ in shape"),
        ((np.full(5, np.nan), np.ones(5), np.ones(5), np.ones(5)), r"scale has 5 values that are infinite or not"),
        ((np.ones(4), np.ones(4), np.ones(4), np.ones(4)), r"input has 5 channels, the scale has 4 values"),
    ],
)
def test_a_faulty_batch_normalization_is_named(constants, message, tmp_path):
    def conv(builder, value, weight, bias):
        value = models.plain_conv(builder, value, weight, bias)
        return builder.node("BatchNormalization", value, *(builder.weight(array) for array in constants))

    model = models.vgg(models.parameters((1,)), conv=conv)
    with pytest.raises(ModelError, match=message):
        load_network(models.save(model, tmp_path / "m.onnx"))


def test_division_by_zero_is_named(tmp_path):
    def front(builder, value):
        return builder.node("Div", value, builder.weight(np.zeros((3, 1, 1))))

    with pytest.raises(ModelError, match="Div 'div1': divides by zero"):
        load_network(models.save(models.vgg(BLOCKS, front=front), tmp_path / "m.onnx"))


# ---- operators that the engine does not have ----


def unsupported_pool(builder, value):
    """The second pooling is something else."""
    if any(node.op_type == "MaxPool" for node in builder.nodes):
        return builder.node("LpPool", value, kernel_shape=[2, 2], strides=[2, 2])
    return models.plain_pool(builder, value)


def test_layers_before_an_unsupported_operator_are_there_and_those_behind_name_it(plain, tmp_path):
    network, found = features(models.vgg(BLOCKS, pool=unsupported_pool), tmp_path)
    assert network.layers == NAMES[:4]
    for name in network.layers:
        np.testing.assert_array_equal(found[name], plain[name])
    with pytest.raises(ValueError, match=r"unknown layer 'conv3_1'.*LpPool 'lppool1': operator LpPool is not supp"):
        network.features(IMAGE, ["conv3_1"])


def test_an_unsupported_operator_at_the_front_is_named_when_loading(tmp_path):
    def front(builder, value):
        return builder.node("Sigmoid", value)

    with pytest.raises(ModelError, match=r"no convolution followed by a ReLU \(Sigmoid 'sigmoid1': operator Sigmoid "):
        load_network(models.save(models.vgg(BLOCKS, front=front), tmp_path / "m.onnx"))


def test_an_operator_of_another_domain_is_not_taken_for_onnxs(tmp_path):
    model = models.vgg(BLOCKS)
    model.graph.node[2].domain = "com.example"
    network = load_network(models.save(model, tmp_path / "m.onnx"))
    assert network.layers == ("conv1_1",)
    assert network.rejected[0].reason == "operator com.example.Conv is not supported"


def node_before_second_block(op_type, *constants, **attributes):
    def pool(builder, value):
        value = models.plain_pool(builder, value)
        return builder.node(op_type, value, *(builder.weight(array) for array in constants), **attributes)

    return pool


def fill(mode, *values):
    return node_before_second_block("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), *values, mode=mode)


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (fill("wrap"), "Pad with mode 'wrap' is not supported"),
        (fill("constant", np.float32(1)), "only a Pad of zeros, edges or reflections on the four"),
        (node_before_second_block("Pad", np.array([0, 1, 0, 0, 0, 0, 0, 0])), "only a Pad of zeros, edges or reflec"),
        (node_before_second_block("Pad", np.array([0, 0, -1, 0, 0, 0, 0, 0])), "only a Pad of zeros, edges or refle"),
        (
            node_before_second_block("Dropout", np.float32(0.5), np.array(True)),
            "Dropout in training mode is not supported",
        ),
        (
            node_before_second_block("BatchNormalization", *np.ones((4, 5)), training_mode=1),
            "BatchNormalization in training mode is not supported",
        ),
        (
            node_before_second_block("Add", np.arange(30.0).reshape(6, 5)),
            "constant that differs from pixel to pixel is not supported",
        ),
        (node_before_second_block("Transpose", perm=[0, 2, 3, 1]), "its input has the axes NHWC, expected NCHW"),
    ],
)
def test_a_form_of_an_operator_that_the_engine_does_not_have_is_named(pool, reason, tmp_path):
    network = load_network(models.save(models.vgg(BLOCKS, pool=pool), tmp_path / "m.onnx"))
    assert network.layers == NAMES[:2]
    assert reason in network.rejected[0].reason


def test_a_pad_before_a_pooling_is_run(tmp_path):
    def pool(builder, value):
        value = builder.node("Pad", value, builder.weight(np.array([0, 0, 1, 1, 0, 0, 0, 0])))
        return models.plain_pool(builder, value)

    network, found = features(models.vgg(BLOCKS, pool=pool), tmp_path, pooling="model")
    _, unpadded = features(models.vgg(BLOCKS), tmp_path, pooling="model")
    assert network.layers == NAMES
    before = np.pad(unpadded["conv1_2"], ((0, 0), (1, 0), (1, 0)))
    expected = [before[:, y : y + 12 : 2, x : x + 12 : 2] for y in (0, 1) for x in (0, 1)]
    pooled = np.max([one[:, :6, :6] for one in expected], axis=0)
    weight, bias = BLOCKS[1][0]
    again = naive.conv(pooled.transpose(1, 2, 0), weight.transpose(2, 3, 1, 0), bias, models.CONV)
    close = np.maximum(again, 0).transpose(2, 0, 1)
    np.testing.assert_allclose(found["conv2_1"][:, :5, :5], close[:, :5, :5], rtol=0, atol=1e-4 * close.max())


def test_weights_that_are_computed_are_named(tmp_path):
    def conv(builder, value, weight, bias):
        if len(builder.nodes) < 2:
            return models.plain_conv(builder, value, weight, bias)
        return builder.node("Conv", value, "value0", pads=[1, 1, 1, 1])

    network = load_network(models.save(models.vgg(BLOCKS, conv=conv), tmp_path / "m.onnx"))
    assert network.layers == ("conv1_1",)


def test_nothing_is_written_beside_the_model(tmp_path):
    path = models.save(models.vgg(BLOCKS), tmp_path / "m.onnx")
    load_network(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_scale_and_shift_where_no_convolution_stands_before_stay_a_node(tmp_path):
    model = models.vgg(BLOCKS, front=scaled_by_nodes)
    graph = read_onnx(models.save(model, tmp_path / "m.onnx"))
    assert [type(node.operator) for node in graph.nodes[:2]] == [Affine, Conv]
