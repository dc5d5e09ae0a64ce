"""Masks on the command line: where each painting goes, where the photograph is kept, and what does not fit."""

import json

import numpy as np
import pytest
from PIL import Image

from engine import load_network
from engine.regions import Region
from engine.stylize import Settings, prepare
from tests.tools.calling import called
from tools.cli.masks import KEPT
from tools.media.images import load_image
from tools.stylize.__main__ import main


@pytest.fixture
def call(folder, capsys):
    """Run a command line in the folder; return what it says."""
    left = np.zeros((36, 48), np.uint8)
    left[:, :20] = 255
    for name, mask in {"left.png": left, "right.png": 255 - left, "black.png": 0 * left, "tall.png": left.T}.items():
        Image.fromarray(mask).save(folder / name)

    def call(*arguments, code=0):
        files = [str(part).replace("{}", str(folder)) for part in arguments]
        return called(main, capsys, ["-m", f"{folder}/model.onnx", "-o", f"{folder}/out.png", *files], code)[1]

    return call


PICTURES = ("{}/photo.png", "{}/painting.png", "{}/other.png")
SMALL = (*PICTURES, "-s", 48, "-n", 2, "--levels", 1, "--threads", 1, "-a", 0.01)


def made(folder, masks, kept=None):
    """Return the picture that the engine makes."""
    network = load_network(folder / "model.onnx", threads=1)
    content = load_image(folder / "photo.png").pixels
    styles = [load_image(folder / name, long_side=48).pixels for name in ("painting.png", "other.png")]
    regions = [Region(mask, style) for mask, style in zip(masks, styles, strict=True)]
    counts = None if kept is None else 1 + (KEPT - 1) * kept
    settings = Settings(content_weight=0.01, iterations=2)
    job = prepare(network, content, None, settings, regions=regions, content_mask=counts)
    return np.rint(job.run().image).astype(np.uint8)


def halves():
    left = np.zeros((36, 48), np.float32)
    left[:, :20] = 1
    return left, 1 - left


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("masks", [("left.png", "right.png"), ("left.png",)])
def test_each_painting_goes_where_its_mask_is_white_and_the_last_takes_the_rest(folder, call, masks):
    call(*SMALL, "--mask", *("{}/" + name for name in masks))
    np.testing.assert_array_equal(pixels(folder / "out.png"), made(folder, halves()))
    with Image.open(folder / "out.png") as picture:
        assert json.loads(picture.text["Settings"])["mask"] == list(masks)


def test_the_photograph_is_kept_where_the_picture_is_white(folder, call):
    call(*SMALL, "--mask", "{}/left.png", "--keep", "{}/right.png")
    np.testing.assert_array_equal(pixels(folder / "out.png"), made(folder, halves(), halves()[1]))


def test_masks_go_through_preview_and_sizes(folder, call):
    masks = ("--mask", "{}/left.png", "--keep", "{}/left.png")
    said = call(*PICTURES, "-s", 96, "-n", 2, "--levels", 2, "--preview", *masks)
    assert "region 2" in said
    assert (folder / "out-preview.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--mask", "{}/left.png", "{}/left.png", "{}/left.png"],
            "--mask has 3 masks for 2 paintings: give one",
        ),
        (["--mask", "{}/black.png"], "black.png is black: white is what it chooses"),
        (
            ["--mask", "{}/tall.png"],
            "which is not the shape of the photograph, 48x36: give it the same proportions",
        ),
        (["--mask", "{}/left.png", "--blend", "1,2"], "--blend mixes paintings, --mask gives each a place of its own"),
        (["--keep", "{}/nowhere.png"], "nowhere.png': there is no such file"),
        (["--keep", "{}/out.png"], "is an input, it would be overwritten"),
    ],
)
def test_what_does_not_fit_is_one_line(call, folder, arguments, message):
    said = call(*SMALL, *arguments, code=2)
    assert message in said
    assert said.count("\n") == 1
    assert not (folder / "out.png").exists()


def test_masks_that_leave_nothing_to_the_last_painting_are_refused(folder, call):
    Image.fromarray(np.full((36, 48), 255, np.uint8)).save(folder / "white.png")
    assert "the masks leave nothing to the last painting" in call(*SMALL, "--mask", "{}/white.png", code=2)
