from __future__ import annotations

import pytest
from PIL import Image

from engine.objective import PAPER_STYLE_LAYERS
from tools.sweeping.axes import Axis, axis_names, number_axis, number_label, parse_axis, picture_axis, style_depth_axis


@pytest.mark.parametrize(
    ("text", "values", "labels"),
    [
        ("seed=0..3", (0, 1, 2, 3), ("0", "1", "2", "3")),
        ("seed=7", (7,), ("7",)),
        ("size=64,128", (64, 128), ("64", "128")),
        ("content-weight=1e-5..1e-2", (1e-5, 1e-4, 1e-3, 1e-2), ("1e-5", "1e-4", "1e-3", "1e-2")),
        ("content-weight=0,2.5e-3", (0.0, 2.5e-3), ("0", "2.5e-3")),
        ("learning-rate=0.3..300", (0.3, 3.0, 30.0, 300.0), ("0.3", "3", "30", "300")),
        ("style-weight=2..50", (2.0, 20.0), ("2", "20")),
        ("optimizer=l-bfgs, adam ,sgd", ("l-bfgs", "adam", "sgd"), ("l-bfgs", "adam", "sgd")),
        ("pooling=average,max", ("average", "max"), ("average", "max")),
        ("model=vgg19,../a..b.onnx", ("vgg19", "../a..b.onnx"), ("vgg19", "../a..b.onnx")),
        ("init=noise,content", ("noise", "content"), ("noise", "content")),
        ("blend=1+2,1+0", ((1.0, 2.0), (1.0, 0.0)), ("1+2", "1+0")),
        ("content-layers=conv4_2,conv2_2+conv4_2:3", ({"conv4_2": 1.0}, {"conv2_2": 1.0, "conv4_2": 3.0}), None),
        ("style-layers=conv1_1+conv2_1:2,conv3_1", ({"conv1_1": 0.5, "conv2_1": 2.0}, {"conv3_1": 1.0}), None),
        ("style-layers=conv2_1..conv2_1", ({"conv1_1": 0.5, "conv2_1": 0.5},), ("conv1_1 to conv2_1",)),
    ],
)
def test_an_axis_has_the_values_that_a_person_means(text, values, labels):
    axis = parse_axis(text)
    assert axis.values == values
    assert axis.labels == (tuple(text.partition("=")[2].split(",")) if labels is None else labels)
    assert axis.name == text.partition("=")[0]


def test_the_paper_goes_from_one_style_layer_to_all_of_them():
    axis = parse_axis("style-layers=conv1_1..conv5_1")
    assert [tuple(layers) for layers in axis.values] == [PAPER_STYLE_LAYERS[:count] for count in range(1, 6)]
    assert all(sum(layers.values()) == pytest.approx(1) for layers in axis.values)
    assert axis == style_depth_axis("conv1_1", "conv5_1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed", "is not NAME=VALUE"),
        ("sed=1", "unknown axis 'sed'; did you mean 'seed'?"),
        ("device=cpu", "unknown axis 'device'"),
        ("seed=", "has no values"),
        ("seed=1,,2", "has an empty value"),
        ("seed=1,2,1", "has 1 twice"),
        ("content-weight=0.1,1e-1", "has 1e-1 twice"),
        ("seed=-1", "seed: '-1' is negative"),
        ("seed=3..1", "no range that goes up in whole numbers"),
        ("seed=0..999999999", "no range that goes up in whole numbers"),
        ("size=64..128", "size: '64..128' is not a whole number"),
        ("content-weight=1e-2..1e-5", "no range that goes up in steps of ten"),
        ("content-weight=0..1", "content-weight: '0' is not a finite number above 0"),
        ("learning-rate=0", "learning-rate: '0' is not a finite number above 0"),
        ("optimizer=sgd,adamm", "unknown optimiser 'adamm'; did you mean 'adam'?"),
        ("pooling=min", "unknown pooling 'min'"),
        ("style-layers=conv1_1..conv1_2", "unknown style layer 'conv1_2'"),
        ("style-layers=conv3_1..conv1_1", "is empty: conv3_1 lies above conv1_1"),
        ("style-layers=conv1_1+", "empty layer name"),
        ("style-layers=conv1_1:x", "'x' is not a number"),
        ("blend=1+x", "'x' is not a number"),
    ],
)
def test_what_is_no_axis_is_told_in_one_sentence(text, message):
    with pytest.raises(ValueError, match=r".+") as error:
        parse_axis(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_stands_for_its_pictures(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    (tmp_path / "c.png").mkdir()
    axis = parse_axis(f"style={tmp_path}")
    assert axis == picture_axis("style", [tmp_path / "a.JPG", tmp_path / "b.png"])
    assert axis.labels == ("a", "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="has no pictures"):
        parse_axis(f"content={tmp_path / 'empty'}")


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path):
    axis = picture_axis("content", [tmp_path / "one" / "a.png", tmp_path / "two" / "a.png"])
    assert axis.labels == (str(tmp_path / "one" / "a.png"), str(tmp_path / "two" / "a.png"))


@pytest.mark.parametrize(
    ("number", "label"),
    [(0, "0"), (1e-5, "1e-5"), (0.01, "1e-2"), (0.25, "0.25"), (300, "300"), (12345, "1.2345e4"), (2.5e-11, "2.5e-11")],
)
def test_numbers_are_written_as_people_write_them(number, label):
    assert number_label(number) == label
    assert float(label) == number
    assert number_axis("content_weight", [number]) == Axis("content_weight", (number,), (label,))


def test_every_option_but_the_device_can_be_an_axis():
    assert {"model", "size", "iterations", "content", "style", "init", "seed", "pooling"} <= set(axis_names())
    assert "device" not in axis_names()
