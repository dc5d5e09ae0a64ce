"""Pictures that fit into a memory, other edges, and tiles: what the command line makes of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.tools.calling import called
from tools.cli import memory, rendering
from tools.cli.options import memory_size
from tools.reconstruct import __main__ as reconstruct
from tools.stylize import __main__ as stylize

SMALL = ("-s", 160, "-n", 2, "--levels", 1, "--threads", 1, "-a", 0.01, "--history", 5)


@pytest.fixture
def call(folder, capsys):
    """Run ``stylize`` in the folder; return what it says."""

    def call(*arguments, code=0, output="out.png"):
        files = [str(part).replace("{}", str(folder)) for part in ("{}/photo.png", "{}/painting.png", *arguments)]
        return called(stylize.main, capsys, [*files, "-m", f"{folder}/model.onnx", "-o", f"{folder}/{output}"], code)[1]

    return call


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def free(monkeypatch, count):
    monkeypatch.setattr(rendering, "free_bytes", lambda device, allowed=None: count)


@pytest.fixture
def needed(monkeypatch):
    """Return the bytes that the pictures made so far were found to take."""
    found, fit = [], rendering.fit_memory

    def noted(*arguments):
        result = fit(*arguments)
        found.append(result[2])
        return result

    monkeypatch.setattr(rendering, "fit_memory", noted)
    return found


def test_a_picture_that_does_not_fit_is_made_in_pieces_and_is_the_same(folder, call, needed, monkeypatch):
    large = (*SMALL[:-2], "-s", 560, "--optimizer", "adam")
    free(monkeypatch, None)
    whole = call(*large)
    assert "pieces" not in whole
    assert "strips" not in whole
    free(monkeypatch, 0.95 * needed[-1])
    said = call(*large, output="cut.png")
    assert "strips of " in said or "pieces of " in said
    assert " up to conv" in said
    assert "pixels, about" in said
    assert np.abs(pixels(folder / "out.png") - pixels(folder / "cut.png")).max() <= 1


def test_what_fits_in_no_pieces_is_told(call, monkeypatch):
    free(monkeypatch, 1_000_000)
    said = call(*SMALL, code=2)
    assert "160x120 pixels need about" in said
    assert "1.0 MB are available: choose a smaller --size" in said
    assert "sliced" not in said
    said = call(*SMALL, "--style-statistics", "gram,sliced", code=2)
    assert "smaller --size, or leave out the statistic sliced, which is not computed in pieces" in said


def test_a_smaller_size_is_not_cut_for_the_larger_one_s_sake(call, needed, monkeypatch):
    large = (*SMALL[:-2], "-s", 560, "--optimizer", "adam", "--levels", 2)
    free(monkeypatch, None)
    call(*large)
    cut, right = [], rendering.prepare

    def noted(*arguments, **named):
        cut.append(named["piece"])
        return right(*arguments, **named)

    monkeypatch.setattr(rendering, "prepare", noted)
    free(monkeypatch, 0.95 * max(needed))
    call(*large)
    small, whole = cut
    assert small is None
    assert whole is not None


def test_memory_counts_what_the_program_has_taken_already(call):
    said = call(*SMALL, "--memory", "1M", code=2)
    assert "0 bytes are available: choose a smaller --size, or at least --memory " in said


def test_how_much_more_memory_would_do_is_told(monkeypatch):
    monkeypatch.setattr(memory, "kernel_bytes", lambda path, name: 241_000_000)
    monkeypatch.setattr(memory, "available_memory", lambda: 500_000_000)
    assert memory.more_memory(1, 311_800_000) == ", or at least --memory 560M"
    assert memory.more_memory(None, 311_800_000) == ""
    assert memory.more_memory(1, 500_000_001) == ""  # nor has the machine as much


def test_fewer_corrections_are_said(call, needed, monkeypatch):
    free(monkeypatch, None)
    call(*SMALL[:-2])
    free(monkeypatch, 0.75 * needed[-1])
    assert "corrections rather than 20, for want of memory" in call(*SMALL[:-2])


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4e9), ("800M", 8e8), ("1.5GB", 1.5e9), ("12000000", 12e6), ("2 gb", 2e9), ("1T", 1e12), ("64k", 64e3)],
)
def test_amounts_of_memory(text, size):
    assert memory_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "-1G", "0", "4X", "1e9", "G", "nan"])
def test_what_is_no_amount_is_one_line(call, text):
    assert "is no amount of memory such as 4G or 800M" in call(f"--memory={text}", code=2)


def test_a_tile_has_sides_that_divide_by_16_and_says_so(folder, call):
    said = call(*SMALL[2:], "-s", 75, "--tile")
    assert "the sides of a tile divide by 16: 80x64 pixels" in said
    assert pixels(folder / "out.png").shape == (64, 80, 3)
    with Image.open(folder / "out.png") as picture:
        assert json.loads(picture.text["Settings"])["edges"] == "wrap"
    assert "divide by 16" not in call(*SMALL[2:], "-s", 64, "--edges", "wrap")


def test_a_tile_of_two_sizes_in_pieces(folder, call, needed, monkeypatch):
    arguments = ("-s", 160, "-n", 2, "--threads", 1, "--tile", "--levels", 2, "--history", 5)
    free(monkeypatch, None)
    call(*arguments)
    free(monkeypatch, 0.9 * max(needed))
    said = call(*arguments, output="cut.png")
    assert "strips of " in said or "pieces of " in said
    assert np.abs(pixels(folder / "out.png") - pixels(folder / "cut.png")).max() <= 1


@pytest.mark.parametrize("edges", ["reflect", "repeat"])
def test_other_edges_change_the_picture(folder, call, edges):
    call(*SMALL)
    call(*SMALL, "--edges", edges, output="other.png")
    assert np.abs(pixels(folder / "out.png") - pixels(folder / "other.png")).max() > 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--edges", "mirror"), "unknown edges 'mirror'; choose from zero, reflect, repeat, wrap"),
        (("--edges", "reflect", "--tile"), "not allowed with argument"),
    ],
)
def test_wrong_edges_are_one_line(call, arguments, reason):
    assert reason in call(*arguments, code=2)


def test_textures_are_tiles_too(folder, capsys):
    arguments = [str(folder / "painting.png"), "-o", str(folder / "textures"), "-m", str(folder / "model.onnx")]
    arguments += ["--style", "conv1_1+conv3_1", "-s", "50", "-n", "2", "--threads", "1", "--tile"]
    _, said = called(reconstruct.main, capsys, arguments, 0)
    assert "the sides of a tile divide by 16: 32x48 pixels" in said
    (texture,) = (folder / "textures").glob("style-*.png")
    assert pixels(texture).shape == (48, 32, 3)
