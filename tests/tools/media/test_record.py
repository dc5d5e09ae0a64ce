"""A picture that is handed on tells how it was made, and not where its maker keeps what."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.tools.calling import called
from tools.media.record import file_name, origin
from tools.reconstruct import __main__ as reconstruct
from tools.stylize import __main__ as stylize
from tools.sweep import __main__ as sweep


@pytest.mark.parametrize(
    ("given", "recorded"),
    [
        (["photo.png", "art/star.png", "-o", "out/x.png"], ["photo.png", "star.png", "-o", "x.png"]),
        (["/home/me/a b.png", "../b.png", "~/c.png"], ["a b.png", "b.png", "c.png"]),
        (["--output=/home/me/x.png", "-o/home/me/x.png", "-o../x.png"], ["--output=x.png", "-ox.png", "-ox.png"]),
        (["--init", "/home/me/a.png", "--model=art/net.onnx"], ["--init", "a.png", "--model=net.onnx"]),
        (["--rows", "style=/home/me/a.png,art/b.png"], ["--rows", "style=a.png,b.png"]),
        (["--columns=content=/home/me/a.png"], ["--columns=content=a.png"]),
        (["--style-layers", "resnet/block1/Relu:0,resnet/block2/Relu:0:2"], None),
        (["--preprocessing", "torch", "-s", "96", "--rows=content-weight=1e-5..1e-2", "--blend", "1,2"], None),
        (["x" * 5000 + "/" + "y" * 5000], None),
    ],
)
def test_the_command_names_files_without_their_folders_and_leaves_the_rest(tmp_path, monkeypatch, given, recorded):
    (tmp_path / "art").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stylize.py", *given])
    assert shlex.split(origin("stylize")["Command"])[3:] == (recorded or given)
    assert shlex.split(origin("stylize", with_paths=True)["Command"])[3:] == given


def test_a_file_s_name_is_what_stands_behind_its_folders():
    assert [file_name(path) for path in ("a/b.png", Path("/a/b.png"), "vgg19", "/")] == ["b.png", "b.png", "vgg19", "/"]
    assert file_name("a/b.png", with_path=True) == "a/b.png"


def texts(path: Path) -> dict[str, str]:
    with Image.open(path) as image:
        return dict(image.text)


@pytest.mark.parametrize("asked", [False, True])
def test_a_picture_tells_the_folders_of_its_files_only_where_that_was_asked_for(folder, capsys, monkeypatch, asked):
    photo, painting = folder / "photo.png", folder / "painting.png"
    options = ["-m", folder / "model.onnx", "-s", 32, "-n", 1, *(["--record-paths"] if asked else [])]
    for main, arguments, made, telling in (
        (
            stylize.main,
            [photo, painting, "--init", folder / "other.png", "-o", folder / "out.png"],
            "out.png",
            {"Command", "Settings"},
        ),
        (
            reconstruct.main,
            [photo, "--style", "conv1_1", "-o", folder / "out"],
            "out/style-conv1_1.png",
            {"Command", "Names"},
        ),
    ):
        monkeypatch.setattr(sys, "argv", ["tool.py", *map(str, [*arguments, *options])])
        called(main, capsys, [*arguments, *options], 0)
        found = texts(folder / made)
        assert {name for name, text in found.items() if str(folder) in text} == (telling if asked else set())
        assert telling <= {name for name, text in found.items() if "photo.png" in text}
    settings = json.loads(texts(folder / "out.png")["Settings"])
    expected = [str(folder / name) if asked else name for name in ("photo.png", "other.png", "model.onnx")]
    assert [settings[name] for name in ("content", "init", "model")] == expected


def test_the_cells_of_a_sweep_tell_no_folders(folder, capsys):
    pair = [folder / "photo.png", folder / "painting.png", "-m", folder / "model.onnx", "-s", 32, "-n", 1]
    axis = f"init={folder / 'other.png'},noise"
    called(sweep.main, capsys, [*pair, "--rows", axis, "-o", folder / "out"], 0)
    for path in (folder / "out" / "cells").glob("*.png"):
        assert not [name for name, text in texts(path).items() if str(folder) in text]
    settings = json.loads(texts(folder / "out" / "cells" / "init=other.png")["Settings"])
    assert (settings["init"], settings["model"]) == ("other.png", "model.onnx")
