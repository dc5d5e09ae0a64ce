"""Orders: a form, a picture's record and a command line say the same."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tools.cli.options import options_from, parsed
from tools.studio.order import Order, command_of, form_of, order_from
from tools.stylize.__main__ import build_parser

OPTIONS = [
    {},
    {"content_weight": "1e-5", "style_weight": "2"},
    {"content_weight": "0.1234567890123456"},
    {"style_layers": "conv1_1:0.1,conv3_1:0.30000000000000004", "content_layers": "conv4_2:2,conv2_2"},
    {"style_layers": "conv1_1,conv2_1:3"},
    {"init": "noise", "seed": "7", "levels": "1", "style_size": "picture"},
    {"style_size": "300", "colors": "cholesky", "pooling": "max", "optimizer": "sgd", "learning_rate": "0.5"},
    {"variation_weight": "1e20", "variation": "squared", "history": "5", "preprocessing": "caffe", "blend": "2,1"},
    {"init": "0003.png"},
]


def made(options, **form) -> Order:
    whole = {"content": "a.jpg", "style": ["b.jpg", "c.jpg"], "mask": [], "keep": None} | form
    return order_from(whole | {"options": {"model": "draft", **options}}, ["draft"], lambda name: name == "0003.png")


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("folder", ["/plain", '/my pictures/it\'s "$HOME" `x`\n;'])
def test_the_command_line_has_the_same_options_whatever_the_folder_is_called(options, folder):
    masks = {"mask": ["m.png"], "keep": "k.png"} if "blend" not in options else {}
    order = made(options, **masks)
    inputs, pictures = Path(folder) / "inputs", Path(folder) / "pictures"
    command = command_of(order, inputs.joinpath, pictures.joinpath, Path(folder) / "cache")
    arguments = parsed(build_parser(), shlex.split(command)[3:])
    given = options_from(arguments)
    expected = order.options
    if expected.init == "0003.png":
        assert given.init == str(pictures / "0003.png")
    for name in vars(expected):
        if name not in ("levels", "init"):
            assert getattr(given, name) == getattr(expected, name), name
    assert arguments.levels == expected.levels
    assert arguments.content == inputs / "a.jpg"
    assert arguments.style == [inputs / "b.jpg", inputs / "c.jpg"]
    assert arguments.mask == [inputs / name for name in order.mask]
    assert arguments.keep == (inputs / "k.png" if masks else None)
    assert arguments.cache == Path(folder) / "cache"


@pytest.mark.parametrize("options", OPTIONS)
def test_a_form_comes_back_as_it_was_meant(options):
    order = made(options)
    assert order_from(form_of(order), ["draft"], lambda name: True) == order
    assert form_of(order)["options"].keys() >= options.keys() - {"style_weight"}


def test_an_option_that_is_left_empty_has_its_default():
    assert made({"content_weight": " ", "size": ""}) == made({})


@pytest.mark.parametrize("size", [300, 1024])
def test_what_goes_on_at_another_size_keeps_the_balance_of_content_and_style(size):
    order = made({"size": "600", "content_weight": "0.01"})
    larger = order.larger("0003.png", size)
    # The content loss is a sum over the pixels, the style loss is not.
    assert larger.options.content_weight * size**2 == pytest.approx(0.01 * 600**2)
    assert made({}).larger("0003.png", size).options.content_weight is None
