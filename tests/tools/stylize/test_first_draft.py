"""A picture that begins with the draft network's: with which, and what is kept of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tools.models.drafting
from engine.load import load_network
from engine.stylize import Settings, stylize
from tests.tools.calling import called
from tools.media.files import sha256_of
from tools.media.images import load_image
from tools.models.cache import DRAFT_FILE
from tools.stylize.__main__ import main
from tools.stylize.checkpoint import Checkpoints
from tools.stylize.task import Task


@pytest.fixture
def call(folder, capsys, monkeypatch):
    """Run a command line, ``{}`` standing for the folder, with few iterations of the draft; return what it says."""
    monkeypatch.setattr(tools.models.drafting, "ITERATIONS", 3)

    def call(*arguments: object, code: int = 0) -> str:
        return called(main, capsys, [str(part).replace("{}", str(folder)) for part in arguments], code)[1]

    return call


MADE = ("{}/photo.png", "{}/painting.png", "-s", 48, "-m", "{}/model.onnx", "-o", "{}/out.png")
WITH_DRAFT = (*MADE, "-n", 3, "--init", "draft")


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def text(path: Path, name: str) -> Any:
    with Image.open(path) as picture:
        picture.load()
        return json.loads(picture.text[name])


def test_it_begins_with_what_the_draft_network_makes_of_the_pictures(folder, call, monkeypatch):
    begun, right = [], Task.rendering
    monkeypatch.setattr(Task, "rendering", lambda self, level, first: begun.append(first) or right(self, level, first))
    assert "begins with the draft network's picture, 48x36 pixels" in call(*WITH_DRAFT, "-a", 0.5)
    photo, painting = (load_image(folder / name, long_side=48).pixels for name in ("photo.png", "painting.png"))
    network, draft = load_network(folder / "model.onnx"), load_network(DRAFT_FILE)
    balanced = Settings(content_weight=0.5 / network.content_weight * draft.content_weight, iterations=3)
    np.testing.assert_allclose(begun[0].pixels, stylize(draft, photo, painting, balanced).image, rtol=0, atol=1e-3)


def test_a_preview_can_come_before_it_and_says_what_it_leaves_out(folder, call):
    said = call(*WITH_DRAFT, "--preview", "--style-layers", "conv1_1,conv5_4")
    assert said.count("the draft network has no conv5_4, which it leaves out") == 2
    assert (folder / "out-preview.png").exists()


def test_the_same_bits_at_any_number_of_threads(folder, call):
    made = []
    for threads in (1, 2):
        call(*WITH_DRAFT, "--threads", threads)
        made.append(pixels(folder / "out.png"))
    np.testing.assert_array_equal(*made)
    call(*MADE, "-n", 3)
    assert (made[0] != pixels(folder / "out.png")).any()


def test_the_draft_goes_through_the_sizes_and_the_network_does_not_unless_asked(folder, call):
    assert "sizes" not in call(*WITH_DRAFT, "-s", 200)
    said = call(*WITH_DRAFT, "-s", 64, "--levels", 2)
    assert "in 2 sizes of 3 iterations each" in said
    assert "begins with the draft network's picture, 32x24 pixels" in said


def test_what_it_was_made_by_is_recorded_and_made_again(folder, call):
    call(*WITH_DRAFT)
    assert text(folder / "out.png", "Settings")["init"] == "draft"
    assert text(folder / "out.png", "Inputs")["init"] == sha256_of(DRAFT_FILE)
    call("--again", "{}/out.png")
    np.testing.assert_array_equal(pixels(folder / "out.png"), pixels(folder / "out-again.png"))


@pytest.mark.parametrize("colors", ["painting", "luminance"])
def test_it_goes_with_masks_and_colors(folder, call, colors):
    Image.fromarray(np.tile(np.linspace(0, 255, 48).astype(np.uint8), (36, 1))).save(folder / "mask.png")
    call(
        *MADE[:2], "{}/painting.png", *MADE[2:], "-n", 3, "--init", "draft", "--mask", "{}/mask.png", "--colors", colors
    )
    assert pixels(folder / "out.png").shape == (36, 48, 3)


def test_a_run_goes_on_without_drafting_anew(folder, call, monkeypatch):
    call(*WITH_DRAFT)
    unbroken, write = pixels(folder / "out.png"), Checkpoints.iteration

    def stop(self, state):
        write(self, state)
        if state.iteration == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "iteration", stop)
        call(*WITH_DRAFT, "--checkpoint", "{}/run.npz", "--checkpoint-every", 1, code=130)
    assert "draft" not in call("--resume", "{}/run.npz").replace("run.npz", "")
    np.testing.assert_array_equal(pixels(folder / "out.png"), unbroken)


def test_what_is_no_start_is_named_with_those_there_are(call):
    said = call(*MADE, "--init", "drafts", code=2)
    assert "draft" in said
    assert said.count("\n") == 1


def test_a_run_that_was_killed_before_its_first_iteration_goes_on_with_the_draft(folder, call, monkeypatch):
    call(*WITH_DRAFT)
    picture = pixels(folder / "out.png")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "iteration", interrupted)
        call(*WITH_DRAFT, "--checkpoint", "{}/run.npz", code=130)
    (folder / "out.png").unlink()
    call("--resume", "{}/run.npz")
    np.testing.assert_array_equal(pixels(folder / "out.png"), picture)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
