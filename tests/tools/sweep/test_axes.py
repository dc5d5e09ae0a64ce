from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from engine.selection import PAPER_STYLE_LAYERS
from tools.sweep.axes import (
    Axis,
    axis_names,
    distinct_names,
    file_names,
    number_axis,
    number_label,
    parse_axis,
    picture_axis,
    style_depth_axis,
)


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
        ("model=vgg19,../a..b.onnx", ("vgg19", "../a..b.onnx"), ("vgg19", "a..b")),
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
        ("seed=0..999999999", "has more than 100,000 numbers"),
        ("size=64..128", "size: '64..128' is not a whole number"),
        ("content-weight=1e-2..1e-5", "no range that goes up in steps of ten"),
        ("content-weight=0..1", "content-weight: '0' is not a finite number above 0"),
        ("learning-rate=0", "learning-rate: '0' is not a finite number above 0"),
        ("optimizer=sgd,adamm", "unknown optimizer 'adamm'; did you mean 'adam'?"),
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


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (("one/a.png", "two/b.png"), ("a", "b")),
        (("one/a.jpg", "one/a.png", "one/b.png"), ("a.jpg", "a.png", "b.png")),
        (("/x/one/a.png", "/x/two/a.png"), ("one/a", "two/a")),
        (("one/a.png", "one/a.jpg", "two/a.jpg"), ("one/a.png", "one/a.jpg", "two/a.jpg")),
        (("/x/one/a.png", "/y/one/a.png"), ("x/one/a", "y/one/a")),
        (("a.png", "one/a.png"), ("a", "one/a")),
        (("a.png.png", "a.png"), ("a.png", "a")),
        (("/a.png", "a.png"), ("/a", "a")),
        ((), ()),
    ],
)
def test_pictures_are_called_by_the_shortest_names_that_tell_them_apart(paths, names):
    assert distinct_names([Path(path) for path in paths]) == names
    assert picture_axis("style", [Path(path) for path in paths]).labels == names


def test_a_comma_in_a_files_name_is_written_with_a_backslash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("Smith, J.png", "a,b,c.png", "b.png"):
        Image.new("RGB", (4, 4)).save(name)
    axis = parse_axis(r"style=Smith\, J.png, b.png,a\,b\,c.png")
    assert axis.values == (Path("Smith, J.png"), Path("b.png"), Path("a,b,c.png"))
    assert axis.labels == ("Smith, J", "b", "a,b,c")
    assert parse_axis(r"init=Smith\, J.png,noise").values == ("Smith, J.png", "noise")
    for text, written in {
        "style=b.png,Smith, J.png": r"'Smith\, J.png'",
        "content=a,b,c.png": r"'a\,b\,c.png'",
        "init=noise,a,b,c.png": r"'a\,b\,c.png'",
    }.items():
        with pytest.raises(ValueError, match=re.escape(f"with a backslash, in quotes: {written}")):
            parse_axis(text)
    # Where the parts are files too, they are meant.
    Path("Smith").mkdir()
    Image.new("RGB", (4, 4)).save("Smith/x.png")
    Path("J.png").write_bytes(Path("b.png").read_bytes())
    assert parse_axis("style=Smith, J.png").values == (Path("Smith/x.png"), Path("J.png"))


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


def test_a_range_may_be_given_by_other_names_of_its_ends():
    assert parse_axis("style-layers=relu1_1..block3_conv1") == parse_axis("style-layers=conv1_1..conv3_1")


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("conv1_1", "conv1_1 to conv2_1"), ["x=conv1_1", "x=conv1_1-to-conv2_1"]),
        (("one/a", "../b", "Ü"), ["x=one-a", "x=b", "x=Ü"]),
        (("A.png", "a.png"), ["x=1-A.png", "x=2-a.png"]),
        (("\udcff", "?"), ["x=1-", "x=2-"]),
        (("y" * 60 + "1", "漢" * 60), ["x=" + "y" * 50, "x=" + "漢" * 16]),
    ],
)
def test_a_value_is_called_in_file_names_so_that_any_disk_takes_it(labels, names):
    assert file_names("x", labels) == names
    assert file_names("", ("",)) == [""]


def test_an_axis_in_file_names_leads_to_no_other_folder():
    assert file_names("../up", ("1",)) == ["up=1"]
