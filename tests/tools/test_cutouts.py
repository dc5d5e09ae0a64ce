"""A cut-out painting gives the style of what is seen of it, in every tool that takes a style."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tools.calling import called
from tests.tools.media.test_images import bmp32
from tools.reconstruct import __main__ as reconstruct
from tools.stylize import __main__ as stylize
from tools.sweep import __main__ as sweep

HIDDEN = {"black": (0, 0, 0), "green": (0, 255, 0)}


@pytest.fixture
def cutouts(folder) -> Path:
    """A painting cut out twice, with other colors under its transparent parts; and one of which nothing is seen."""
    painting = np.asarray(Image.open(folder / "painting.png"))
    height, width, _ = painting.shape
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((y - height / 2) / height, (x - width / 2) / width)
    alpha = np.clip(np.rint((0.4 - distance) * 2000), 0, 255).astype(np.uint8)
    assert {0, 255} < set(alpha.flat), "an edge between the two is wanted"
    for name, color in HIDDEN.items():
        pixels = np.where(alpha[..., None] == 0, np.uint8(color), painting)
        Image.fromarray(np.dstack([pixels, alpha])).save(folder / f"{name}.png")
    Image.fromarray(np.dstack([painting, 0 * alpha])).save(folder / "hidden.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--init", "style"],
        ["--init", "style", "--levels", 2],
        ["--colors", "photograph"],
        ["--style-size", 30],
        ["--preview"],
    ],
    ids=str,
)
def test_what_is_hidden_does_not_change_a_bit_of_a_picture(cutouts, capsys, options):
    for name in (*HIDDEN, "painting"):
        arguments = [cutouts / "photo.png", cutouts / f"{name}.png", "-o", cutouts / f"of-{name}.png"]
        arguments += ["-m", cutouts / "model.onnx", "-s", 48, "-n", 3, *options]
        called(stylize.main, capsys, arguments, 0)
    for suffix in ("", "-preview") if "--preview" in options else ("",):
        black, green, opaque = (pixels(cutouts / f"of-{name}{suffix}.png") for name in (*HIDDEN, "painting"))
        np.testing.assert_array_equal(black, green)
        assert (black != opaque).any()


def test_what_is_hidden_does_not_change_a_cell_or_a_suggestion(cutouts, capsys):
    said = []
    for name in HIDDEN:
        pair = [cutouts / "photo.png", cutouts / f"{name}.png", "-m", cutouts / "model.onnx", "-s", 48, "-n", 2]
        called(sweep.main, capsys, [*pair, "--rows", "seed=0", "-o", cutouts / name], 0)
        said.append(called(sweep.main, capsys, [*pair, "--suggest", "-q"], 0))
    np.testing.assert_array_equal(*(pixels(cutouts / name / "cells" / "seed=0.png") for name in HIDDEN))
    assert said[0] == said[1]


def test_what_is_hidden_does_not_change_a_texture(cutouts, capsys):
    options = ["-m", cutouts / "model.onnx", "-s", 32, "-n", 2, "--style", "conv2_1", "--content", "conv1_1"]
    for name in HIDDEN:
        called(reconstruct.main, capsys, [cutouts / f"{name}.png", "-o", cutouts / name, *options], 0)
    np.testing.assert_array_equal(*(pixels(cutouts / name / "style-conv2_1.png") for name in HIDDEN))
    # A photograph is matched as it lies in the file.
    black, green = (pixels(cutouts / name / "content-conv1_1.png") for name in HIDDEN)
    assert (black != green).any()


def test_a_painting_of_which_nothing_is_seen_is_an_error_that_names_it(cutouts, capsys):
    model = ["-m", cutouts / "model.onnx", "-s", 32, "-n", 1]
    pair = [cutouts / "photo.png", cutouts / "hidden.png"]
    for main, arguments in (
        (stylize.main, [*pair, "-o", cutouts / "out.png"]),
        (sweep.main, [*pair, "-o", cutouts / "out"]),
        (sweep.main, [*pair, "--suggest"]),
        (reconstruct.main, [cutouts / "hidden.png", "--style", "-o", cutouts / "out"]),
    ):
        _, errors = called(main, capsys, [*arguments, *model], 2)
        assert f"cannot take the style of {str(cutouts / 'hidden.png')!r}: it is wholly transparent" in errors
        assert errors.count("\n") == 1
    assert not (cutouts / "out.png").exists()


def test_how_a_file_was_read_is_said_once(cutouts, capsys):
    path = cutouts / "clipboard.bmp"
    path.write_bytes(bmp32(pixels(cutouts / "photo.png"), np.zeros((36, 48))))
    model = ["-m", cutouts / "model.onnx", "-s", 48, "-n", 1]
    for main, name, arguments in (
        (stylize.main, "stylize", [path, path, "-o", cutouts / "out.png"]),
        (sweep.main, "sweep", [path, cutouts / "painting.png", "--rows", "seed=0,1", "-o", cutouts / "out"]),
        (reconstruct.main, "reconstruct", [path, "--style", "conv1_1", "-o", cutouts / "textures"]),
    ):
        _, errors = called(main, capsys, [*arguments, *model], 0)
        assert errors.count(f"{name}: {path}: its alpha is 0 everywhere, it is taken for opaque\n") == 1
    _, errors = called(stylize.main, capsys, [path, path, "-o", cutouts / "out.png", *model, "-q"], 0)
    assert errors == ""
