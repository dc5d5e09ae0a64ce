"""A painting for the fine strokes and another for the large shapes; a picture in the photograph's own colors."""

import json

import numpy as np
import pytest
from PIL import Image

from engine import load_network
from engine.color import in_gray, luminance, match_luminance, with_luminance
from engine.regions import Region
from engine.selection import PAPER_STYLE_LAYERS
from engine.stylize import Settings, prepare
from engine.targets import at_scales
from tests.tools.calling import called
from tools.media.images import load_image
from tools.stylize.__main__ import main

SMALL = ("-s", 48, "-n", 2, "--levels", 1, "--threads", 1, "-a", 0.01)


@pytest.fixture
def call(folder, capsys):
    """Run a command line in the folder; return what it says."""
    left = np.zeros((36, 48), np.uint8)
    left[:, :20] = 255
    Image.fromarray(left).save(folder / "left.png")

    def call(*arguments, code=0):
        files = [str(part).replace("{}", str(folder)) for part in arguments]
        return called(main, capsys, ["-m", f"{folder}/model.onnx", "-o", f"{folder}/out.png", *files], code)[1]

    return call


def pictures(folder):
    """Return photograph, painting and another one as the program reads them."""
    content = load_image(folder / "photo.png").pixels
    return content, *(load_image(folder / name, long_side=48).pixels for name in ("painting.png", "other.png"))


def made(folder, content, style, **options):
    network = load_network(folder / "model.onnx", threads=1)
    return prepare(network, content, style, Settings(content_weight=0.01, iterations=2), **options).run().image


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_coarse_painting_has_the_upper_half_of_the_layers(folder, call):
    content, painting, other = pictures(folder)
    call("{}/photo.png", "{}/painting.png", *SMALL, "--coarse-style", "{}/other.png")
    layers = {layer: painting if layer in ("conv1_1", "conv2_1") else other for layer in PAPER_STYLE_LAYERS}
    expected = np.rint(made(folder, content, layers)).astype(np.uint8)
    np.testing.assert_array_equal(pixels(folder / "out.png"), expected)
    with Image.open(folder / "out.png") as picture:
        assert json.loads(picture.text["Settings"])["coarse_style"] == "other.png"


def test_it_has_them_in_every_region(folder, call):
    content, painting, other = pictures(folder)
    call(
        "{}/photo.png",
        "{}/painting.png",
        "{}/other.png",
        *SMALL,
        "--coarse-style",
        "{}/photo.png",
        "--mask",
        "{}/left.png",
    )
    left = np.zeros((36, 48), np.float32)
    left[:, :20] = 1
    styles = [at_scales(style, content, PAPER_STYLE_LAYERS) for style in (painting, other)]
    regions = [Region(mask, style) for mask, style in zip((left, 1 - left), styles, strict=True)]
    expected = np.rint(made(folder, content, None, regions=regions)).astype(np.uint8)
    np.testing.assert_array_equal(pixels(folder / "out.png"), expected)


def test_it_goes_through_preview_and_sizes(folder, call):
    call(
        "{}/photo.png",
        "{}/painting.png",
        "-s",
        96,
        "-n",
        2,
        "--levels",
        2,
        "--preview",
        "--coarse-style",
        "{}/other.png",
    )
    assert (folder / "out-preview.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coarse-style", "{}/other.png", "--style-layers", "conv1_1"], "two scales of style need two style layers"),
        (["--coarse-style", "{}/nowhere.png"], "nowhere.png': there is no such file"),
        (["--coarse-style", "{}/out.png"], "is an input, it would be overwritten"),
        (["--style-statistics", "gram,mean"], "unknown style statistic 'mean'; did you mean 'means'?"),
        (["--style-statistics", "gram,gram:2"], "'gram' is named twice"),
        (
            ["--style-statistics", "gram+means"],
            "several statistics are separated by ',' here, not by '+': 'gram+means'",
        ),
        (["--style-statistics", "means:-1"], "'-1' is not a finite number of at least 0"),
        (["--style-statistics", "means:0"], "nothing would change"),
    ],
)
def test_what_does_not_fit_is_one_line(call, folder, arguments, message):
    said = call("{}/photo.png", "{}/painting.png", *SMALL, *arguments, code=2)
    assert message in said
    assert said.count("\n") == 1
    assert not (folder / "out.png").exists()


def test_statistics_reach_the_picture_and_its_text(folder, call):
    content, painting, _ = pictures(folder)
    call("{}/photo.png", "{}/painting.png", *SMALL, "--style-statistics", "means:0.5, shifted")
    network, chosen = load_network(folder / "model.onnx", threads=1), {"means": 0.5, "shifted": 1.0}
    settings = Settings(content_weight=0.01, iterations=2, style_statistics=chosen)
    expected = np.rint(prepare(network, content, painting, settings).run().image).astype(np.uint8)
    np.testing.assert_array_equal(pixels(folder / "out.png"), expected)
    with Image.open(folder / "out.png") as picture:
        assert json.loads(picture.text["Settings"])["style_statistics"] == chosen


def test_only_the_luminance_is_stylized(folder, call):
    content, painting, _ = pictures(folder)
    call("{}/photo.png", "{}/painting.png", *SMALL, "--colors", "luminance", "--save-every", 1)
    image = made(folder, in_gray(content), match_luminance(painting, content))
    expected = np.rint(with_luminance(content, image)).astype(np.uint8)
    np.testing.assert_array_equal(pixels(folder / "out.png"), expected)
    # Snapshots too are in the photograph's colors.
    snapshot = pixels(folder / "out-1.png").astype(float)
    inside = (snapshot > 0).all(axis=2) & (snapshot < 255).all(axis=2)
    moved = snapshot - content
    np.testing.assert_allclose(moved[inside], np.repeat(moved[inside].mean(axis=1)[:, None], 3, axis=1), atol=1.1)
    assert np.abs(luminance(snapshot) - luminance(content)).max() > 1


def test_luminance_goes_through_preview_and_sizes(folder, call):
    call("{}/photo.png", "{}/painting.png", "-s", 96, "-n", 2, "--levels", 2, "--preview", "--colors", "luminance")
    for name in ("out.png", "out-preview.png"):
        picture = pixels(folder / name)
        assert np.ptp(picture, axis=2).max() > 10
