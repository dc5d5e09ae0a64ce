"""Many photographs with one painting: each as by itself, what is there is left, what is bad does not stop the rest."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import tools.stylize.batch
from tests.tools.stylize.test_main import call, facts, interrupt, pixels  # noqa: F401 (a fixture)

OPTIONS = ("-m", "{}/model.onnx", "-s", 40, "-n", 4, "--threads", 1)
BATCH = ("{}/photos", "{}/painting.png", "-o", "{}/made", *OPTIONS)


@pytest.fixture
def photos(folder):
    """A folder of three photographs."""
    (folder / "photos").mkdir()
    random = np.random.default_rng(5)
    for name in ("a.png", "b.jpg", "c.png"):
        coarse = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 36)).save(folder / "photos" / name)
    return folder / "photos"


def summary(folder):
    return json.loads((folder / "all.json").read_text("utf-8"))


def states(folder):
    return [one["state"] for one in summary(folder)["photographs"]]


def test_each_picture_is_that_of_a_run_of_its_own(folder, photos, call):  # noqa: F811
    levels = ("-s", 64, "--levels", 2)
    said = call(*BATCH, *levels)
    assert sorted(path.name for path in (folder / "made").iterdir()) == ["a.png", "b.png", "c.png"]
    for name in ("a.png", "b.jpg"):
        call(f"{{}}/photos/{name}", "{}/painting.png", "-o", "{}/one.png", *OPTIONS, *levels)
        np.testing.assert_array_equal(pixels(folder / f"made/{name[0]}.png"), pixels(folder / "one.png"))
    assert said.count("; wrote ") == 3
    assert "24/24 iterations" in said
    assert said.splitlines()[-1].endswith(": 3 made")


def test_more_photographs_may_be_named(folder, photos, call):  # noqa: F811
    call("{}/photo.png", "{}/painting.png", "--more", "{}/other.png", "{}/photos", "-o", "{}/made", *OPTIONS, "-q")
    assert len(list((folder / "made").iterdir())) == 5


def test_what_is_there_is_left_unless_something_has_changed(folder, photos, call):  # noqa: F811
    given = (*BATCH, "--summary", "{}/all.json")
    call(*given)
    assert states(folder) == ["made"] * 3
    before = {path: path.stat().st_mtime_ns for path in (folder / "made").iterdir()}
    said = call(*given)
    assert states(folder) == ["skipped"] * 3
    assert said.count("is there, by the same settings") == 3
    assert {path: path.stat().st_mtime_ns for path in (folder / "made").iterdir()} == before

    Image.new("RGB", (48, 36), (200, 10, 10)).save(photos / "a.png")
    (folder / "made/b.png").unlink()
    (folder / "made/c.png").write_bytes((folder / "made/c.png").read_bytes()[:200])
    call(*given)
    assert states(folder) == ["made", "made", "made"]
    call(*given)
    assert states(folder) == ["skipped"] * 3
    call(*given, "-n", 5)
    assert states(folder) == ["made"] * 3
    call(*given, "-n", 5, "--init", "noise")
    assert states(folder) == ["made"] * 3
    call(*given, "-n", 5, "--init", "{}/other.png")
    assert states(folder) == ["made"] * 3
    (folder / "other.png").rename(folder / "renamed.png")
    call(*given, "-n", 5, "--init", "{}/renamed.png")
    assert states(folder) == ["skipped"] * 3
    Image.new("RGB", (40, 30), (10, 200, 10)).save(folder / "painting.png")
    call(*given, "-n", 5)
    assert states(folder) == ["made"] * 3


def test_one_that_is_bad_does_not_stop_the_rest(folder, photos, call):  # noqa: F811
    (photos / "b.jpg").write_bytes(b"nothing")
    said = call(*BATCH, "-q", "--summary", "{}/all.json", code=2)
    assert said.count("\n") == 1
    assert said.startswith(f"stylize: cannot read '{photos}/b.jpg': ")
    assert states(folder) == ["made", "failed", "made"]
    told = summary(folder)
    assert (told["made"], told["failed"], told["skipped"], told["exit_code"]) == (2, 1, 0, 2)
    assert "cannot read" in told["photographs"][1]["error"]
    assert told["photographs"][0]["loss"] == facts(folder / "made/a.png", "Result")["loss"]


def test_an_interruption_keeps_what_there_is_and_the_next_call_goes_on(folder, photos, call, monkeypatch):  # noqa: F811
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        said = call(*BATCH, "--summary", "{}/all.json", code=130)
    assert "interrupted; wrote the best picture so far" in said
    assert states(folder) == ["interrupted", "left", "left"]
    assert summary(folder)["exit_code"] == 130
    call(*BATCH, "--summary", "{}/all.json")
    assert states(folder) == ["made"] * 3


def test_photographs_are_made_again_as_a_picture_was(folder, photos, call):  # noqa: F811
    call("{}/photo.png", "{}/painting.png", "-o", "{}/out.png", *OPTIONS, "--optimizer", "adam", "-q")
    call("--again", "{}/out.png", "{}/photos", "-o", "{}/made", "-q")
    assert facts(folder / "made/b.png", "Settings")["optimizer"] == "adam"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (*BATCH, "-o", "{}/out.png"),
            "several photographs are written to a folder: give one for -o, not '{}/out.png'",
        ),
        ((*BATCH, "-o", "{}/photo.png"), "several photographs are written to a folder"),
        ((*BATCH, "-o", "{}/photos"), "'{}/photos' is where the photographs are: give another folder"),
        ((BATCH[0], "{}/c.png", "-o", "{}", *OPTIONS), "'{}/c.png' is an input, it would be overwritten"),
        ((*BATCH, "--log", "{}/run.jsonl"), "--log is for one picture, and there are several photographs"),
        ((*BATCH, "--checkpoint", "{}/run.npz"), "--checkpoint is for one picture"),
        ((*BATCH, "--summary", "{}/missing/a.json"), "missing' does not exist"),
        ((*BATCH, "--summary", "{}/made.json/"), "{}"),
        ((*BATCH, "--summary", "{}/painting.png"), "is also a picture's name"),
        ((*BATCH, "--summary", "{}/other.png", "--keep", "{}/other.png"), "is also a picture's name or an input"),
        ((*BATCH, "--summary", "{}/model.onnx"), "is also a picture's name or an input"),
        (
            (*BATCH, "--more", "{}/x/a-2.png", "--save-every", 1),
            "a snapshot of '{}/photos/a.png' may be called '{}/made/a-2.png', as another's picture",
        ),
        ((*BATCH, "--more", "{}/x/painting.png", "-o", "{}/made"), "would both be '{}/made/painting.png.png'"),
        (("{}/empty", *BATCH[1:]), "has no pictures"),
        ((BATCH[0], "{}/missing.png", *BATCH[2:]), "there is no such file"),
        ((*BATCH, "--content-layers", "conv9_9"), "unknown layer 'conv9_9'"),
    ],
)
def test_what_concerns_all_is_answered_in_one_line(folder, photos, call, arguments, message):  # noqa: F811
    (folder / "empty").mkdir()
    (folder / "x").mkdir()
    if "would both" in message:
        arguments = (*arguments, "--more", "{}/x/painting.png", "{}/y/painting.png")
    if message == "{}":
        (folder / "made.json").mkdir()
        message = "it is a directory, give a file name"
    said = call(*arguments, "-q", code=2)
    assert said.count("\n") == 1, said
    assert message.replace("{}", str(folder)) in said
    assert not (folder / "made").exists() or not list((folder / "made").iterdir())


def test_a_picture_that_broke_off_is_not_taken_for_made(folder, photos, call, monkeypatch):  # noqa: F811
    call(*BATCH, "-q")
    monkeypatch.setattr(tools.stylize.batch, "FINISHED", ("converged",))
    call(*BATCH, "-q", "--summary", "{}/all.json")
    assert states(folder) == ["made"] * 3
