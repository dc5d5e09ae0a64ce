"""The forms that exporters, quantizers and optimizers give a network: what comes out is what ONNX's operators give.

The right features are those of the project's own evaluator of whole models on the same file, or, where a form is
outside of ONNX's operators, those of the same network written plainly.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.errors import ModelError
from engine.load import load_network
from engine.onnx.graph import load_graph
from engine.onnx.reader import read_onnx
from engine.onnx.translate.quantized import QUANTIZED
from engine.vgg import KnownWeights, layer_hash
from tests.engine import models
from tests.engine.models import Builder

BLOCKS = models.parameters((2, 2, 1))
NAMES = models.names(BLOCKS)
HEIGHT, WIDTH = 20, 24
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
MEAN = np.array([103.939, 116.779, 123.68], np.float32)
RGB = IMAGE.astype(np.float32).transpose(2, 0, 1)[None]
INPUTS = {
    "caffe": RGB[:, ::-1] - MEAN.reshape(1, 3, 1, 1),
    "raw": RGB,
    "bgr": RGB[:, ::-1],
    "unit": RGB / np.float32(255),
}


def features(model, tmp_path, **arguments):
    """Return the network of a model, as it stands, and the features of its last layer."""
    network = load_network(models.save(model, tmp_path / "m.onnx"), "model", threads=1, **arguments)
    return network, network.features(IMAGE, network.layers[-1])[network.layers[-1]]


def evaluated(model, value):
    """Return what the evaluator of whole models makes of an input; (N_l, H_l, W_l)."""
    graph = load_graph(model)
    (output,) = graph.run({graph.inputs[0]: value}).values()
    return output[0] if output.ndim == 4 else output


def assert_close(found, expected, tolerance=1e-5):
    assert expected.std() > 0
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * abs(expected).max())


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return features(models.vgg(BLOCKS), tmp_path_factory.mktemp("plain"))[1]


# ---- weights in 8 bits ----


def of_bytes(weight):
    """Return a weight as uint8 with scale and zero point."""
    scale = np.float32(abs(weight).max() / 127)
    return (np.rint(weight / scale) + 128).astype(np.uint8), scale, np.uint8(128)


def cast_sub_mul(builder, value, weight, bias):
    stored, scale, zero = of_bytes(weight)
    numbers, offset = (builder.node("Cast", builder.weight(one), to=models.FLOAT) for one in (stored, zero))
    restored = builder.node("Mul", builder.node("Sub", numbers, offset), builder.weight(scale))
    return builder.node("Conv", value, restored, builder.weight(bias), pads=[1] * 4)


def sub_in_bytes(builder, value, weight, bias):
    """The difference is taken in uint8, where it wraps around."""
    stored, scale, zero = of_bytes(weight)
    difference = builder.node("Sub", builder.weight(stored), builder.weight(zero))
    numbers = builder.node("Cast", difference, to=models.FLOAT)
    restored = builder.node("Mul", numbers, builder.weight(np.float32(scale / 100)))
    return builder.node("Conv", value, restored, builder.weight(bias), pads=[1] * 4)


def cast_to_whole(builder, value, weight, bias):
    """A Cast to int32 cuts off what is behind the point."""
    numbers = builder.node("Cast", builder.weight(weight * 20), to=TensorProto.INT32)
    restored = builder.node("Cast", numbers, to=models.FLOAT)
    return builder.node("Conv", value, restored, builder.weight(bias), pads=[1] * 4)


def dequantized(per_channel):
    def conv(builder, value, weight, bias):
        axes = (1, 2, 3) if per_channel else None
        scale = (abs(weight).max(axis=axes) / 127).astype(np.float32)
        stored = np.rint(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
        zero = np.zeros(scale.shape, np.int8)
        inputs = [builder.weight(one) for one in (stored, scale, zero)]
        restored = builder.node("DequantizeLinear", *inputs, **({"axis": 0} if per_channel else {}))
        return builder.node("Conv", value, restored, builder.weight(bias), pads=[1] * 4)

    return conv


@pytest.mark.parametrize(
    ("conv", "from_plain"),
    [
        (cast_sub_mul, 5e-2),
        (sub_in_bytes, None),
        (cast_to_whole, None),
        (dequantized(True), 5e-2),
        (dequantized(False), 0.1),
    ],
    ids=["cast, sub, mul", "sub in uint8", "cast to int32", "by channel", "one scale"],
)
def test_weights_are_restored_in_the_types_that_are_declared(conv, from_plain, plain, tmp_path):
    model = models.vgg(BLOCKS, conv=conv)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert network.notes == ()
    assert_close(found, evaluated(model, INPUTS["caffe"]))
    if from_plain:
        assert_close(found, plain, from_plain)


class Quantizer:
    """Writes QuantizeLinear and DequantizeLinear between all operators, a ReLU as a zero point of -128."""

    def __init__(self):
        self.weights = dequantized(False)

    def conv(self, builder, value, weight, bias):
        if value == "image":
            value = self.through(builder, value, 2.0, 0)
        return self.weights(builder, value, weight, bias)

    def relu(self, builder, value):
        return self.through(builder, value, 4.0, -128)

    def pool(self, builder, value):
        return self.through(builder, models.plain_pool(builder, value), 4.0, -128)

    @staticmethod
    def through(builder, value, scale, zero):
        levels = [builder.weight(np.float32(scale)), builder.weight(np.int8(zero))]
        return builder.node("DequantizeLinear", builder.node("QuantizeLinear", value, *levels), *levels)


def test_quantized_activations_are_computed_in_floating_point_and_that_is_said(tmp_path):
    form = Quantizer()
    model = models.vgg(BLOCKS, conv=form.conv, relu=form.relu, pool=form.pool)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert network.notes == (QUANTIZED,)
    _, expected = features(models.vgg(BLOCKS, conv=form.weights), tmp_path)
    assert_close(found, expected)
    # The evaluator rounds them as the file says: near, not the same.
    rounded = evaluated(model, INPUTS["caffe"])
    assert 1e-3 < abs(rounded - found).max() / found.max() < 0.3


def test_convolutions_of_quantized_numbers_are_read(tmp_path):
    """QLinearConv, as quantizers for operators write it: images and features in 8 bits throughout."""
    levels = {"image": (2.0, 0)}

    def conv(builder, value, weight, bias):
        if value == "image":
            inputs = [builder.weight(np.float32(2.0)), builder.weight(np.int8(0))]
            value = builder.node("QuantizeLinear", value, *inputs)
            levels[value] = (2.0, 0)
        scale = np.float32(abs(weight).max() / 127)
        given = levels[value]
        output = f"{value}'"
        numbers = [np.float32(given[0]), np.int8(given[1]), np.rint(weight / scale).astype(np.int8), scale, np.int8(0)]
        numbers += [np.float32(4.0), np.int8(-128), np.rint(bias / given[0] / scale).astype(np.int32)]
        builder.node("QLinearConv", value, *map(builder.weight, numbers), outputs=[output], pads=[1] * 4)
        levels[output] = (4.0, -128)
        return output

    def pool(builder, value):
        pooled = models.plain_pool(builder, value)
        levels[pooled] = levels[value]
        return pooled

    def behind(builder, value):
        return builder.node("DequantizeLinear", value, *map(builder.weight, (np.float32(4.0), np.int8(-128))))

    model = models.vgg(BLOCKS, conv=conv, relu=models.unchanged, pool=pool, behind=behind)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert network.notes == (QUANTIZED,)
    _, expected = features(models.vgg(BLOCKS, conv=dequantized(False)), tmp_path)
    assert_close(found, expected, 1e-2)  # its biases are rounded


def dynamically_quantized(builder, value, weight, bias):
    """As ONNX Runtime's dynamic quantization writes a convolution: its input's scale is found from the input."""
    factor = np.float32(abs(weight).max() / 127)
    stored = np.rint(weight / factor).astype(np.int8)
    numbers, scale, zero = (f"{value}_{role}" for role in ("numbers", "scale", "zero"))
    builder.node("DynamicQuantizeLinear", value, outputs=[numbers, scale, zero])
    scales = builder.node("Mul", scale, builder.weight(factor))
    inputs = numbers, builder.weight(stored), zero, builder.weight(np.int8(0))
    product = builder.node("Cast", builder.node("ConvInteger", *inputs, pads=[1] * 4), to=models.FLOAT)
    return builder.node("Add", builder.node("Mul", product, scales), builder.weight(bias.reshape(1, -1, 1, 1)))


def test_dynamically_quantized_convolutions_are_read(tmp_path):
    model = models.vgg(BLOCKS, conv=dynamically_quantized)
    onnx.checker.check_model(model)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert network.notes == (QUANTIZED,)
    assert_close(found, features(models.vgg(BLOCKS, conv=dequantized(False)), tmp_path)[1])
    # Rounded as the file says, by ONNX's reference: near, not the same.
    (rounded,) = ReferenceEvaluator(model).run(None, {"image": INPUTS["caffe"]})
    assert 1e-4 < abs(rounded[0] - found).max() / found.max() < 0.1


def test_a_product_without_its_scale_is_not_taken_for_a_layer(tmp_path):
    def conv(builder, value, weight, bias):
        dynamically_quantized(builder, value, weight, bias)
        return builder.nodes[-3].output[0]  # of the Cast

    graph = read_onnx(models.save(models.vgg(BLOCKS, conv=conv), tmp_path / "m.onnx"))
    assert graph.rejected[0].reason == "Relu of quantized values is not supported"


def test_what_is_restored_by_other_numbers_than_it_was_rounded_by_is_refused(tmp_path):
    def relu(builder, value):
        value = builder.node("QuantizeLinear", value, *map(builder.weight, (np.float32(1), np.int8(-128))))
        return builder.node("DequantizeLinear", value, *map(builder.weight, (np.float32(2), np.int8(-128))))

    graph = read_onnx(models.save(models.vgg(BLOCKS, relu=relu), tmp_path / "m.onnx"))
    assert "with other numbers than the QuantizeLinear before it" in graph.rejected[0].reason


# ---- colors and axes inside the file ----


def centered(builder, value, mean=MEAN, shape=(1, 3, 1, 1)):
    return builder.node("Sub", value, builder.weight(mean.reshape(shape)))


def whole(*numbers):
    return np.array(numbers, np.int64)


def flipped_by_slice(builder, value):
    inputs = [builder.weight(whole(one)) for one in (-1, -(2**31), 1, -1)]
    return centered(builder, builder.node("Slice", value, *inputs))


def flipped_by_gather(builder, value):
    return centered(builder, builder.node("Gather", value, builder.weight(whole(2, 1, 0)), axis=1))


def flipped_by_split(builder, value):
    red, green, blue = (f"{value}_{color}" for color in "rgb")
    builder.node("Split", value, outputs=[red, green, blue], axis=1)
    return centered(builder, builder.node("Concat", blue, green, red, axis=1))


def centered_one_by_one(builder, value):
    """As a widespread TensorFlow VGG does it: each color split off, centered, and put together backwards."""
    parts = [f"{value}_{color}" for color in "rgb"]
    builder.node("Split", value, outputs=parts, axis=1)
    pairs = zip(parts, MEAN[::-1], strict=True)
    red, green, blue = (builder.node("Sub", part, builder.weight(np.float32(mean))) for part, mean in pairs)
    return builder.node("Concat", blue, green, red, axis=1)


def flipped_by_gather_nd(builder, value):
    places = np.array([[0, 2], [0, 1], [0, 0]])
    turned = builder.node("GatherND", value, builder.weight(places))
    return centered(builder, builder.node("Unsqueeze", turned, builder.weight(whole(0))))


def flipped_by_selection(builder, value):
    """As PyTorch's exporter writes image[..., [2, 1, 0]] of an image that has its colors last."""
    parts = []
    for channel in (2, 1, 0):
        one = builder.node("Gather", value, builder.weight(np.array(channel)), axis=3)
        parts.append(builder.node("Unsqueeze", one, builder.weight(whole(-1))))
    value = centered(builder, builder.node("Concat", *parts, axis=-1), shape=(1, 1, 1, 3))
    return builder.node("Transpose", value, perm=[0, 3, 1, 2])


def mixed(builder, value):
    """A 1x1 convolution that turns the colors and takes them from 0..1 to 0..255 without their mean."""
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[[0, 1, 2], [2, 1, 0]] = 255
    return builder.node("Conv", value, builder.weight(weight), builder.weight(-MEAN))


def color_by_color(builder, value):
    """A 1x1 convolution of each color by itself."""
    weight = np.full((3, 1, 1, 1), 255, np.float32)
    return builder.node("Conv", value, builder.weight(weight), builder.weight(-MEAN[::-1]), group=3)


def mean_image(builder, value):
    image = np.broadcast_to(MEAN.reshape(1, 3, 1, 1), (1, 3, HEIGHT, WIDTH))
    return builder.node("Sub", value, builder.weight(image.copy()))


LAST = ("N", "H", "W", 3)
FRONTS = {
    "slice": (flipped_by_slice, models.DYNAMIC, "raw"),
    "gather": (flipped_by_gather, models.DYNAMIC, "raw"),
    "split and concat": (flipped_by_split, models.DYNAMIC, "raw"),
    "one by one": (centered_one_by_one, models.DYNAMIC, "raw"),
    "gather_nd": (flipped_by_gather_nd, models.DYNAMIC, "raw"),
    "selection, channels last": (flipped_by_selection, LAST, "raw"),
    "mean alone": (centered, models.DYNAMIC, "bgr"),
    "mean image": (mean_image, (1, 3, HEIGHT, WIDTH), "bgr"),
    "1x1 convolution": (mixed, models.DYNAMIC, "unit"),
}


@pytest.fixture
def known(monkeypatch, tmp_path):
    """Let the weights of this file be known, as trained on "caffe"."""
    (first, *_) = read_onnx(models.save(models.vgg(BLOCKS), tmp_path / "known.onnx")).nodes
    entry = KnownWeights("weights of this test", "caffe", 1.0)
    monkeypatch.setattr("engine.vgg.KNOWN_WEIGHTS", {layer_hash(first.operator): entry})


@pytest.mark.parametrize("form", FRONTS)
@pytest.mark.parametrize("weights", ["known", "unknown"])
def test_arithmetic_on_the_image_is_part_of_the_network(form, weights, request, plain, tmp_path):
    """What is left for the input is worked out: from the weights, or from the mean that is subtracted."""
    front, shape, left = FRONTS[form]
    if weights == "known":
        request.getfixturevalue("known")
    model = models.vgg(BLOCKS, front=front, input_shape=shape, metadata={})
    onnx.checker.check_model(model)
    network, found = features(model, tmp_path)
    assert network.preprocessing.name == left
    assert network.layers == NAMES
    assert (network.weights != "") == (weights == "known")
    value = INPUTS[left] if shape != LAST else INPUTS[left].transpose(0, 2, 3, 1)
    assert_close(found, evaluated(model, value))
    assert_close(found, plain)


def test_an_image_in_bytes_with_its_colors_last_and_no_batch_is_taken(known, plain, tmp_path):
    def front(builder, value):
        value = builder.node("Transpose", builder.node("Cast", value, to=models.FLOAT), perm=[2, 0, 1])
        return centered(builder, builder.node("Unsqueeze", value, builder.weight(whole(0))))

    model = models.vgg(BLOCKS, front=front, input_shape=("H", "W", 3), metadata={})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    network, found = features(model, tmp_path)
    assert network.preprocessing.name == "bgr"
    assert network.layers == NAMES
    assert_close(found, evaluated(model, np.ascontiguousarray(IMAGE[:, :, ::-1])))
    assert_close(found, plain)


def test_a_scale_that_no_convention_has_is_worked_out_from_known_weights(known, plain, tmp_path):
    """Blue first, of -1 .. 1."""

    def front(builder, value):
        return centered(builder, builder.node("Mul", value, builder.weight(np.float32(127.5))), MEAN - 127.5)

    network, found = features(models.vgg(BLOCKS, front=front, metadata={}), tmp_path)
    assert network.preprocessing.name == "what the model's own arithmetic leaves"
    assert network.preprocessing.bgr
    np.testing.assert_allclose(network.preprocessing.std, 127.5, rtol=1e-5)
    np.testing.assert_allclose(network.preprocessing.mean, 127.5, rtol=1e-5)
    assert_close(found, plain)


def test_arithmetic_that_does_not_tell_is_asked_about(tmp_path):
    def front(builder, value):
        return builder.node("Mul", value, builder.weight(np.float32(2)))

    model = models.vgg(BLOCKS, front=front, metadata={})
    with pytest.raises(
        ModelError, match=r"beside its own arithmetic on the image, choose .* or \"bgr\" \(BGR, 0..255\)"
    ):
        features(model, tmp_path)
    assert features(model, tmp_path, preprocessing="bgr")[0].preprocessing.name == "bgr"


def test_a_convolution_of_each_color_by_itself_is_arithmetic_too(tmp_path):
    """Of 0..1, with the colors as they come and ImageNet's mean."""
    model = models.vgg(BLOCKS, front=color_by_color, metadata={})
    network, found = features(model, tmp_path)
    assert network.preprocessing.name == "unit"
    assert network.layers == NAMES
    assert_close(found, evaluated(model, INPUTS["unit"]))


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (lambda b, v: b.node("Slice", v, *(b.weight(whole(one)) for one in (0, 200, 2))), models.DYNAMIC),
        (lambda b, v: b.node("Gather", v, b.weight(np.arange(HEIGHT)), axis=2), models.DYNAMIC),
        (lambda b, v: b.node("Slice", v, *(b.weight(whole(one)) for one in (-1, -100, 3, -1))), (1, 3, HEIGHT, WIDTH)),
        (lambda b, v: b.node("Concat", v, v, axis=2), models.DYNAMIC),
        (
            lambda b, v: b.node("Sub", v, b.weight(np.arange(3 * HEIGHT * WIDTH).reshape(1, 3, HEIGHT, WIDTH) / 9)),
            models.DYNAMIC,
        ),
        (lambda b, v: b.node("Cast", v, to=TensorProto.UINT8), models.DYNAMIC),
    ],
    ids=["rows cut off", "rows gathered", "mirrored", "twice", "a mean that differs by pixel", "rounded"],
)
def test_what_does_more_than_turn_colors_and_axes_is_refused(node, shape, tmp_path):
    graph = read_onnx(models.save(models.vgg(BLOCKS, front=node, input_shape=shape), tmp_path / "m.onnx"))
    assert graph.nodes == ()
    assert len(graph.rejected) == 1
    assert "support" in graph.rejected[0].reason


# ---- pads ----


def padded(mode, pads=(0, 0, 1, 1, 0, 0, 1, 1), axes=None):
    def conv(builder, value, weight, bias):
        inputs = [builder.weight(whole(*pads))]
        if axes is not None:
            inputs += [builder.weight(np.float32(0)), builder.weight(whole(*axes))]
        value = builder.node("Pad", value, *inputs, mode=mode)
        return builder.node("Conv", value, builder.weight(weight), builder.weight(bias))

    return conv


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_pads_that_reflect_or_repeat_the_edge_are_run(mode, plain, tmp_path):
    model = models.vgg(BLOCKS, conv=padded(mode))
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert_close(found, evaluated(model, INPUTS["caffe"]))
    assert abs(found - plain).max() > 1e-2 * plain.max()


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("axes", [(2, 3), (-1, -2)])
def test_pads_of_some_axes_are_read(mode, axes, tmp_path):
    model = models.vgg(BLOCKS, conv=padded(mode, (1, 1, 1, 1), axes), builder=Builder(opset=18))
    onnx.checker.check_model(model)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    assert_close(found, evaluated(model, INPUTS["caffe"]))


@pytest.mark.parametrize(
    ("pads", "message"),
    [
        (np.full(8, 1.5, np.float32), "its pads or axes are not whole numbers"),
        (np.ones(6, np.int64), "6 pads for 4 axes do not fit a value of 4 axes"),
        (np.array([0, 0, 1 << 40, 0, 0, 0, 0, 0]), "more than 1024"),
    ],
)
def test_pads_that_are_none_are_named(pads, message, tmp_path):
    def front(builder, value):
        return builder.node("Pad", value, builder.weight(pads), mode="reflect")

    with pytest.raises(ModelError, match=message):
        features(models.vgg(BLOCKS, front=front), tmp_path)


def test_what_would_make_the_image_as_large_as_a_file_likes_is_refused(tmp_path):
    """178 bytes, and the probe of 100,000 channels would take 50 GB."""

    def front(builder, value):
        chosen = builder.node("ConstantOfShape", builder.weight(np.array([100_000])), value=zero)
        return builder.node("Gather", value, chosen, axis=1)

    zero = numpy_helper.from_array(np.zeros(1, np.int64))
    graph = read_onnx(models.save(models.vgg(BLOCKS, front=front), tmp_path / "m.onnx"))
    assert graph.rejected[0].reason == "this Gather is not supported, only one of the image's channels or axes"


@pytest.mark.parametrize("kind", ["BOOL", "INT8"])
def test_bytes_are_not_cast_to_what_does_not_hold_them(kind, tmp_path):
    builder = Builder()
    narrow = builder.node("Cast", "image", to=getattr(TensorProto, kind))
    value = builder.node("Cast", narrow, to=models.FLOAT)
    model = models.vgg(BLOCKS, front=lambda *_: value, builder=builder)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    graph = read_onnx(models.save(model, tmp_path / "m.onnx"))
    assert graph.rejected[0].reason == "a Cast to a type that does not hold 0 to 255 is not supported"


def test_a_dropout_whose_last_input_is_left_out_is_read(plain, tmp_path):
    def relu(builder, value):
        return builder.node("Dropout", builder.node("Relu", value), builder.weight(np.float32(0.5)), "")

    np.testing.assert_array_equal(features(models.vgg(BLOCKS, relu=relu), tmp_path)[1], plain)


def test_names_of_the_file_s_own_values_are_not_taken_for_made_up_ones(plain, tmp_path):
    """The padding in front of the pooling becomes a value of its own, called as another in the file is."""
    blocks = models.parameters((1, 1))
    found = []
    for name in ("p/padded", "b"):
        builder = Builder()
        weight, bias = blocks[0][0]
        given = [builder.weight(weight), builder.weight(bias)]
        first = builder.node("Conv", "image", *given, pads=[1] * 4, outputs=[name])
        builder.node("Relu", first, outputs=["a"])
        pads = builder.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
        padded = builder.node("Pad", "a", pads, outputs=["p"])
        pooled = builder.node("MaxPool", padded, kernel_shape=[2, 2], strides=[2, 2])
        weight, bias = blocks[1][0]
        second = builder.node("Conv", pooled, builder.weight(weight), builder.weight(bias), pads=[1] * 4)
        found.append(features(builder.model(builder.node("Relu", second)), tmp_path)[1])
    np.testing.assert_array_equal(found[0], found[1])


# ---- fused operators and functions ----


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_weights_dequantized_by_either_domain_s_operator_are_read(domain, tmp_path):
    def conv(builder, value, weight, bias):
        stored, scale, zero = of_bytes(weight)
        restored = builder.node("DequantizeLinear", *(builder.weight(one) for one in (stored, scale, zero)))
        builder.nodes[-1].domain = domain
        return builder.node("Conv", value, restored, builder.weight(bias), pads=[1] * 4)

    network, found = features(models.vgg(BLOCKS, conv=conv), tmp_path)
    rounded = [
        [((of_bytes(w)[0].astype(np.float32) - 128) * of_bytes(w)[1], bias) for w, bias in block] for block in BLOCKS
    ]
    assert network.layers == NAMES
    assert_close(found, features(models.vgg(rounded), tmp_path)[1])


def test_a_convolution_fused_with_its_relu_is_read(plain, tmp_path):
    def conv(builder, value, weight, bias):
        value = builder.node(
            "FusedConv", value, builder.weight(weight), builder.weight(bias), pads=[1] * 4, activation="Relu"
        )
        builder.nodes[-1].domain = "com.microsoft"
        return value

    network, found = features(models.vgg(BLOCKS, conv=conv, relu=models.unchanged), tmp_path)
    assert network.layers == NAMES
    np.testing.assert_array_equal(found, plain)


def test_a_convolution_fused_with_a_sum_and_its_relu_is_read(tmp_path):
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((4, channels, 3, 3)).astype(np.float32) for channels in (3, 4))

    def residual(fused):
        builder = Builder()
        one = builder.node("Relu", builder.node("Conv", "image", builder.weight(first), pads=[1] * 4))
        if fused:
            end = builder.node("FusedConv", one, builder.weight(second), "", one, pads=[1] * 4, activation="Relu")
            builder.nodes[-1].domain = "com.microsoft"
        else:
            two = builder.node("Conv", one, builder.weight(second), pads=[1] * 4)
            end = builder.node("Relu", builder.node("Add", two, one))
        return builder.model(end)

    np.testing.assert_array_equal(features(residual(True), tmp_path)[1], features(residual(False), tmp_path)[1])


def with_function(body, name="conv_relu"):
    """Return the plain network with its convolutions as calls of a function."""

    def conv(builder, value, weight, bias):
        value = builder.node(name, value, builder.weight(weight), builder.weight(bias))
        builder.nodes[-1].domain = "local"
        return value

    model = models.vgg(BLOCKS, conv=conv, relu=models.unchanged)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    model.opset_import.append(opsets[1])
    model.functions.append(helper.make_function("local", name, ["x", "w", "b"], ["y"], body, opsets))
    return model


def test_functions_of_a_model_are_written_out(plain, tmp_path):
    body = [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"])]
    model = with_function(body)
    network, found = features(model, tmp_path)
    assert network.layers == NAMES
    np.testing.assert_array_equal(found, plain)
    assert_close(evaluated(model, INPUTS["caffe"]), plain)


def test_functions_written_for_another_version_of_the_operators_are_refused(tmp_path):
    model = with_function([helper.make_node("Relu", ["x"], ["y"])])
    model.functions[0].opset_import[0].version = 18
    graph = read_onnx(models.save(model, tmp_path / "m.onnx"))
    assert graph.nodes == ()
    assert graph.rejected[0].reason == "operator local.conv_relu is not supported"


def test_functions_inside_of_branches_count_too(tmp_path):
    """Each calls the one before in both branches of an If: 2^30 nodes out of a few thousand bytes."""
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    model = with_function([helper.make_node("Relu", ["x"], ["y"])])
    for number in range(30):
        callee = f"f{number - 1}" if number else "conv_relu"
        branches = [
            helper.make_graph(
                [helper.make_node(callee, ["x", "w", "b"], [name], domain="local")],
                name,
                [],
                [helper.make_tensor_value_info(name, models.FLOAT, None)],
            )
            for name in ("then", "else")
        ]
        body = [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
            helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
        ]
        model.functions.append(helper.make_function("local", f"f{number}", ["x", "w", "b"], ["y"], body, opsets))
    model.graph.node[0].op_type = "f29"
    with pytest.raises(ModelError, match=r"its functions stand for more than 200,000 nodes"):
        read_onnx(models.save(model, tmp_path / "m.onnx"))


def test_functions_of_one_name_are_told_by_their_overloads(plain, tmp_path):
    body = [
        helper.make_node("Identity", ["x"], ["z"]),
        helper.make_node("conv_relu", ["z", "w", "b"], ["y"], domain="local", overload="plain"),
    ]
    model = with_function(body)
    model.ir_version = 10
    model.functions[0].overload = "through"
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    plainly = [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"])]
    model.functions.insert(
        0, helper.make_function("local", "conv_relu", ["x", "w", "b"], ["y"], plainly, opsets, overload="plain")
    )
    for node in model.graph.node:
        node.overload = "through" if node.domain == "local" else ""
    np.testing.assert_array_equal(features(model, tmp_path)[1], plain)


def test_functions_that_call_themselves_or_each_other_without_end_are_refused(tmp_path):
    itself = with_function([helper.make_node("conv_relu", ["x", "w", "b"], ["y"], domain="local")])
    doubling = with_function([helper.make_node("Relu", ["x"], ["y"])])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("local", 1)]
    for number in range(40):
        callee = f"f{number - 1}" if number else "conv_relu"
        inputs, names = ["x", "w", "b"], ["x", "w", "b"]
        body = [
            helper.make_node(callee, inputs, ["t"], domain="local"),
            helper.make_node(callee, ["t", "w", "b"], ["y"], domain="local"),
        ]
        doubling.functions.append(helper.make_function("local", f"f{number}", names, ["y"], body, opsets))
    doubling.graph.node[0].op_type = "f39"
    for model in (itself, doubling):
        for load in (read_onnx, load_graph):
            with pytest.raises(
                ModelError, match=r"its functions (stand for more than 200,000 nodes|cannot be .*[Cc]ycle)"
            ):
                load(models.save(model, tmp_path / "m.onnx"))


# ---- where the weights lie ----


def test_a_download_manager_s_cache_of_links_is_read(plain, tmp_path):
    """Links in one folder to files of other names in another, the data found through a link as well."""
    blobs, revision = tmp_path / "blobs", tmp_path / "snapshots" / "rev1"
    for folder in (blobs, revision):
        folder.mkdir(parents=True)
    model = models.vgg(BLOCKS)
    onnx.save_model(
        model, str(revision / "model.onnx"), save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    for name, blob in (("model.onnx", "1111"), ("model.onnx_data", "2222")):
        (revision / name).rename(blobs / blob)
        (revision / name).symlink_to(f"../../blobs/{blob}")
    network = load_network(revision / "model.onnx", "model", threads=1)
    np.testing.assert_array_equal(network.features(IMAGE, NAMES[-1])[NAMES[-1]], plain)
    assert load_graph(revision / "model.onnx").outputs
    (revision / "model.onnx_data").unlink()
    (revision / "model.onnx_data").symlink_to("/etc/hostname")
    for load in (read_onnx, load_graph):
        with pytest.raises(ModelError, match=r"its data file 'model\.onnx_data' lies outside the model's folder"):
            load(revision / "model.onnx")


# ---- 4-bit weights ----


def test_weights_in_four_bits_are_restored(tmp_path):
    def conv(builder, value, weight, bias):
        scale = (abs(weight).max() / 7).astype(np.float32)
        name = f"packed{len(builder.nodes)}"
        numbers = np.clip(np.rint(weight / scale), -8, 7).astype(int)
        packed.append(helper.make_tensor(name, TensorProto.INT4, weight.shape, numbers.ravel().tolist()))
        restored = builder.node("DequantizeLinear", name, builder.weight(scale))
        plain_weights.append((numbers * scale).astype(np.float32))
        return builder.node("Conv", value, restored, builder.weight(bias), pads=[1] * 4)

    packed, plain_weights = [], []
    model = models.vgg(BLOCKS, conv=conv, builder=Builder(opset=21, ir_version=10))
    model.graph.initializer.extend(packed)
    _, found = features(model, tmp_path)
    biases = [bias for block in BLOCKS for _, bias in block]
    rounded = iter(zip(plain_weights, biases, strict=True))
    blocks = [[next(rounded) for _ in block] for block in BLOCKS]
    assert_close(found, features(models.vgg(blocks), tmp_path)[1])
    assert numpy_helper.to_array(packed[0]).dtype.itemsize == 1
