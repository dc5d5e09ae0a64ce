"""Options on the command line: their help, and layers by names with and without colons and weights."""

import pytest

from engine.layers import LayerNames
from tests.engine import models
from tests.engine.models import Builder
from tests.tools.calling import called
from tools.cli.options import layer_weights, layers_called
from tools.reconstruct.__main__ import build_parser as reconstruct_parser
from tools.stylize.__main__ import build_parser as stylize_parser
from tools.stylize.__main__ import main
from tools.sweep.__main__ import build_parser as sweep_parser

OUTPUTS = LayerNames(
    {"conv4_2": "a", "net/Relu:0": "b", "net/Relu:1": "c", "plain": "d"},
    {"relu4_2": "conv4_2", "block4_conv2": "conv4_2"},
)


@pytest.mark.parametrize("parser", [stylize_parser(), sweep_parser(), reconstruct_parser()], ids=lambda one: one.prog)
def test_the_help_of_an_option_tells_one_default(parser):
    told = {action.dest: (action.help or "").count("(default") for action in parser._actions}
    assert set(told.values()) == {0, 1}
    assert told["levels" if "levels" in told else "size"] == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("net/Relu:0", {"net/Relu:0": 0.5}),
        ("net/Relu:0:3", {"net/Relu:0": 3.0}),
        ("net/Relu:1,plain:2", {"net/Relu:1": 0.5, "plain": 2.0}),
        ("plain:0", {"plain": 0.0}),
        ("relu4_2:2", {"conv4_2": 2.0}),
        ("nothing:0", {"nothing": 0.0}),
    ],
)
def test_a_name_with_a_colon_is_tried_before_a_weight(text, found):
    given = {name: 0.5 if weight is None else weight for name, weight in layer_weights(text).items()}
    once = layers_called(given, OUTPUTS, 0.5)
    assert once == found
    assert layers_called(once, OUTPUTS, 0.5) == found


def test_names_alone_are_those_that_are_listed():
    assert layers_called(("block4_conv2", "plain"), OUTPUTS, 1.0) == ("conv4_2", "plain")
    assert layers_called("relu4_2", OUTPUTS, 1.0) == ("conv4_2",)


def test_two_names_of_one_layer_are_named():
    with pytest.raises(ValueError, match="'conv4_2' is named twice"):
        layers_called({"relu4_2": 1.0, "conv4_2": 1.0}, OUTPUTS, 1.0)


def test_a_picture_is_made_with_layers_that_have_a_colon(folder, capsys):
    """As TensorFlow calls them: net/relu1:0."""
    builder, value = Builder(), "image"
    for number, size in enumerate((3, 1, 3), 1):
        weight, bias = models.parameters((1,), widths=(4,), seed=number, first=3 if number == 1 else 4)[0][0]
        names = builder.weight(weight[:, :, :size, :size]), builder.weight(bias)
        value = builder.node("Conv", value, *names, auto_pad="SAME_UPPER")
        value = builder.node("Relu", value, outputs=[f"net/relu{number}:0"])
    models.save(builder.model("net/relu3:0"), folder / "tf.onnx")
    line = ["{}/photo.png", "{}/painting.png", "-o", "{}/out.png", "-s", "48", "-n", "2", "--report-every", "1"]
    line += ["-m", "{}/tf.onnx", "--content-layers", "net/relu3:0", "--style-layers", "net/relu1:0,net/relu2:0:3"]
    _, said = called(main, capsys, [part.replace("{}", str(folder)) for part in line], 0)
    assert "content 100 %" in said or "(net/relu3:0" in said
    assert "net/relu1:0" in said
    line[line.index("net/relu3:0")] = "net/relu4:0"
    _, said = called(main, capsys, [part.replace("{}", str(folder)) for part in line], 2)
    assert "unknown layer 'net/relu4'; did you mean 'net/relu" in said
