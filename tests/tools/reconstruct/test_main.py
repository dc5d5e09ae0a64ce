from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tools.reconstruct.__main__
from engine.load import load_network
from engine.objective import Objective
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.reconstruct import content_reconstruction, feature_errors, gram_errors, psnr, texture_synthesis
from engine.stylize import Settings
from tests.tools.calling import called
from tools.cli.session import Listener
from tools.media.images import load_image
from tools.models.random_vgg import random_vgg
from tools.reconstruct.__main__ import main

CAFFE = preprocessing_metadata(PREPROCESSING["caffe"])
PAPER = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")


@pytest.fixture
def folder(folder) -> Path:
    """The folder of all tools with two more models: VGG-16, and VGG-19 up to conv3_1."""
    write_onnx(folder / "vgg16.onnx", random_vgg("vgg16", width=0.05), CAFFE)
    nodes = random_vgg("vgg19", width=0.05)
    last = next(index for index, node in enumerate(nodes) if "conv3_1" in node.label)
    write_onnx(folder / "front.onnx", nodes[: last + 2], CAFFE)
    return folder


@pytest.fixture
def call(folder, capsys) -> Callable[..., tuple[str, str]]:
    """Run a command line as a person does, ``{}`` standing for the folder; return what it prints."""

    def call(*arguments: object, code: int = 0) -> tuple[str, str]:
        return called(main, capsys, [str(part).replace("{}", str(folder)) for part in arguments], code)

    return call


SMALL = ("{}/photo.png", "-o", "{}/out", "-m", "{}/model.onnx", "-s", 48, "-n", 4)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def pixels(path: Path) -> np.ndarray:
    return np.asarray(opened(path).convert("RGB"))


def facts(path: Path, name: str = "Result") -> Any:
    return json.loads(opened(path).text[name])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def pictures(path: Path) -> dict[str, np.ndarray]:
    return {one.name: pixels(one) for one in path.glob("*.png")}


def stamps(path: Path) -> dict[str, int]:
    return {one.name: one.stat().st_mtime_ns for one in path.glob("*-*.png")}


# ---- the pictures ----


@pytest.mark.slow
def test_without_flags_both_rows_of_the_papers_figure_are_made(folder, call):
    call(*SMALL)
    expected = {f"content-{name}.png" for name in PAPER}
    expected |= {f"style-{'+'.join(PAPER[: depth + 1])}.png" for depth in range(5)}
    assert {path.name for path in (folder / "out").iterdir()} == {*expected, "sheet.png", "table.csv"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "files"),
    [
        (["--content"], [f"content-{name}" for name in PAPER]),
        (["--content", "conv2_2,conv1_1"], ["content-conv1_1", "content-conv2_2"]),
        (["--style", "conv1_1..conv2_1"], ["style-conv1_1", "style-conv1_1+conv2_1"]),
        (["--style", "conv2_1+conv1_2,conv3_1"], ["style-conv2_1+conv1_2", "style-conv3_1"]),
        (["--style", "conv1_1:2+conv2_1:0.5"], ["style-conv1_1=2+conv2_1=0.5"]),
        (["--content", "conv1_1", "--style", "conv1_2"], ["content-conv1_1", "style-conv1_2"]),
    ],
)
def test_what_is_asked_for_is_made_and_nothing_else(folder, call, flags, files):
    call(*SMALL, *flags)
    assert sorted(path.stem for path in (folder / "out").glob("*-*.png")) == sorted(files)


def test_a_picture_is_what_the_engine_makes_of_the_files(folder, call):
    call(*SMALL, "--content", "conv2_1", "--style", "conv1_1+conv2_1", "--seed", 3, "--threads", 1)
    network = load_network(folder / "model.onnx", threads=1)
    photo = load_image(folder / "photo.png", long_side=48).pixels
    settings = Settings(iterations=4, seed=3, optimizer="l-bfgs")
    content = content_reconstruction(network, photo, "conv2_1", settings).run()
    style = texture_synthesis(network, photo, ("conv1_1", "conv2_1"), settings).run()
    for result, name in ((content, "content-conv2_1"), (style, "style-conv1_1+conv2_1")):
        path = folder / "out" / f"{name}.png"
        np.testing.assert_array_equal(pixels(path), np.rint(result.image).astype(np.uint8))
        assert facts(path)["loss"] == result.value < result.initial_value
    measured = facts(folder / "out" / "content-conv2_1.png")
    assert measured["psnr"] == psnr(content.image, photo)
    assert measured["errors"] == feature_errors(network, content.image, photo, network.layers)
    measured = facts(folder / "out" / "style-conv1_1+conv2_1.png")
    assert measured["psnr"] is None
    assert measured["errors"] == gram_errors(network, style.image, photo, network.layers)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["model", "vgg16"])
def test_pooling_counts_behind_the_first_pooling_only(folder, call, model):
    made = []
    for pooling in ("average", "max", "model"):
        output = folder / pooling
        call(*SMALL, "-o", output, "-m", folder / f"{model}.onnx", "--pooling", pooling, "--content", "conv1_2,conv3_1")
        made.append(pictures(output))
    average, most, own = made
    np.testing.assert_array_equal(average["content-conv1_2.png"], most["content-conv1_2.png"])
    assert (average["content-conv3_1.png"] != most["content-conv3_1.png"]).any()
    np.testing.assert_array_equal(most["content-conv3_1.png"], own["content-conv3_1.png"])


def test_it_begins_with_another_picture_if_asked(folder, call):
    call(*SMALL, "--init", "{}/other.png", "--content", "conv5_1", "-n", 1)
    start = load_image(folder / "other.png", size=(36, 48)).pixels
    assert psnr(pixels(folder / "out" / "content-conv5_1.png"), start) > 30


def test_it_begins_with_gray_if_asked(folder, call):
    call(*SMALL, "--init", "gray", "--content", "conv1_1")
    photo = load_image(folder / "photo.png", long_side=48).pixels
    settings = Settings(iterations=4, optimizer="l-bfgs")
    network = load_network(folder / "model.onnx", threads=1)
    result = content_reconstruction(network, photo, "conv1_1", settings, np.full(photo.shape, 128.0)).run()
    assert facts(folder / "out" / "content-conv1_1.png")["loss"] == result.value


# ---- a model with fewer layers ----


def test_layers_that_the_model_lacks_are_left_out_and_named_in_one_line(folder, call):
    _, said = call(*SMALL, "-m", "{}/front.onnx")
    assert "the model does not have conv4_1, conv5_1: left out" in said.splitlines()[0]
    assert len(list((folder / "out").glob("content-*.png"))) == 3
    assert len(list((folder / "out").glob("style-*.png"))) == 3


def test_a_layer_that_was_asked_for_by_name_is_not_left_out_silently(folder, call):
    _, said = call(*SMALL, "-m", "{}/front.onnx", "--style", "conv1_1..conv4_1", code=2)
    assert "unknown layer 'conv4_1'" in said
    assert not (folder / "out").exists()


def test_without_a_fetched_network_the_draft_is_used(folder, call):
    _, said = call("{}/photo.png", "-o", "{}/out", "-s", 48, "-n", 1, "--content", "conv1_1")
    assert "draft network" in said.splitlines()[0]
    picture = folder / "out" / "content-conv1_1.png"
    assert facts(picture, "Names")["model"].endswith("draft.onnx")
    _, said = call("{}/photo.png", "-o", "{}/out", "-s", 48, "-n", 1, "--content", "conv1_1", "-q")
    assert said == ""


# ---- the table ----


def test_the_table_has_what_the_pictures_say_of_themselves(folder, call):
    call(*SMALL, "--content", "conv1_1,conv3_1", "--style", "conv1_1+conv2_1")
    found = rows(folder / "out" / "table.csv")
    assert [(row["kind"], row["layers"]) for row in found] == [
        ("content", "conv1_1"), ("content", "conv3_1"), ("style", "conv1_1+conv2_1"),
    ]  # fmt: skip
    for row in found:
        result = facts(folder / "out" / row["picture"])
        own = row["layers"].split("+")
        assert float(row["error"]) == pytest.approx(max(result["errors"][name] for name in own), rel=1e-3)
        for name in ("conv1_1", "conv2_1", "conv3_1"):
            assert float(row[f"error {name}"]) == pytest.approx(result["errors"][name], rel=1e-3)
        assert "error conv4_1" not in row
        assert (row["iterations"], row["stop"]) == ("4", "iterations")
        assert int(row["evaluations"]) == result["evaluations"] >= 5
        assert float(row["loss"]) < float(row["initial_loss"])
    assert [bool(row["psnr"]) for row in found] == [True, True, False]
    assert float(found[0]["psnr"]) == pytest.approx(facts(folder / "out" / "content-conv1_1.png")["psnr"], abs=1e-3)


def test_the_printed_table_marks_the_layers_that_were_to_be_matched(call):
    output, _ = call(*SMALL, "--content", "conv1_1", "--style", "conv1_1..conv2_1")
    lines = output.splitlines()
    assert lines[0].split() == ["PSNR", "conv1_1", "conv2_1", "iterations", "evaluations", "stop"]
    assert [line.count("%*") for line in lines[1:4]] == [1, 1, 2]
    assert lines[1].startswith("content conv1_1 ")
    assert "dB" in lines[1]
    assert lines[3].startswith("style conv1_1 to conv2_1 ")
    assert "dB" not in lines[3]


# ---- the sheet ----


def stands_in(sheet: np.ndarray, shown: np.ndarray) -> list[tuple[int, int]]:
    height, width = shown.shape[:2]
    places = np.argwhere((sheet == shown[0, 0]).all(axis=-1))
    return [(y, x) for y, x in places.tolist() if np.array_equal(sheet[y : y + height, x : x + width], shown)]


@pytest.mark.slow
def test_the_sheet_has_all_pictures_in_the_papers_order(folder, call):
    call(*SMALL)
    made = pictures(folder / "out")
    sheet = made.pop("sheet.png")
    content = [stands_in(sheet, made[f"content-{name}.png"]) for name in PAPER]
    style = [stands_in(sheet, made[f"style-{'+'.join(PAPER[: depth + 1])}.png"]) for depth in range(5)]
    assert {len(places) for places in content + style} == {1}
    for row in (content, style):
        assert len({y for [(y, _)] in row}) == 1
        assert [x for [(_, x)] in row] == sorted(x for [(_, x)] in row)
    assert [x for [(_, x)] in content] == [x for [(_, x)] in style]
    assert content[0][0][0] < style[0][0][0]
    assert len(stands_in(sheet, pixels(folder / "photo.png"))) == 2


# ---- what is there already ----


def test_pictures_that_are_there_are_not_made_again(folder, call, monkeypatch):
    call(*SMALL, "--content", "conv1_1,conv2_1")
    before, made = stamps(folder / "out"), pictures(folder / "out")
    monkeypatch.setattr(tools.reconstruct.__main__._Pictures, "_run", None)
    _, said = call(*SMALL, "--content", "conv1_1,conv2_1", "--threads", 1)
    assert "2 of them there already" in said
    assert stamps(folder / "out") == before
    np.testing.assert_array_equal(pictures(folder / "out")["sheet.png"], made["sheet.png"])


def test_further_layers_of_the_same_picture_go_into_the_same_folder(folder, call):
    call(*SMALL, "--content", "conv1_1")
    before = stamps(folder / "out")
    call(*SMALL, "--content", "conv1_1,conv2_1", "--style", "conv1_1")
    after = stamps(folder / "out")
    assert len(after) == 3
    assert before.items() <= after.items()
    assert len(rows(folder / "out" / "table.csv")) == 3
    _, said = call(*SMALL, "--content", "conv1_2")
    assert "1 of 1 picture made" in said
    made = pictures(folder / "out")
    sheet = made.pop("sheet.png")
    assert len(made) == len(rows(folder / "out" / "table.csv")) == 4
    assert {len(stands_in(sheet, picture)) for picture in made.values()} == {1}


def test_a_picture_that_is_damaged_is_told(folder, call):
    call(*SMALL, "--content", "conv1_1,conv2_1")
    path = folder / "out" / "content-conv1_1.png"
    expected = pixels(path)
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot be read: remove it to have it made anew" in call(*SMALL, "--content", "conv1_1", code=2)[1]
    path.unlink()
    call(*SMALL, "--content", "conv1_1")
    np.testing.assert_array_equal(pixels(path), expected)


def test_weights_that_look_the_same_in_the_file_name_are_told_apart(folder, call):
    call(*SMALL, "--style", "conv1_1:2+conv2_1:1")
    call(*SMALL, "--style", "conv1_1:2.0000001+conv2_1:1")
    [path] = (folder / "out").glob("style-*.png")
    assert facts(path, "Settings")["layers"] == {"conv1_1": 2.0000001, "conv2_1": 1.0}


def interrupt(monkeypatch, target: str, after: int) -> None:
    """Press Ctrl-C behind the given iteration of a picture."""
    make = tools.reconstruct.__main__._Pictures._run

    def run(self, one, listeners, began):
        class Pressed(Listener):
            def iteration(self, state):
                if one.file == target and state.iteration == after:
                    raise KeyboardInterrupt

        return make(self, one, [*listeners, Pressed()], began)

    monkeypatch.setattr(tools.reconstruct.__main__._Pictures, "_run", run)


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_there_is_and_goes_on_to_the_same_result(folder, call, monkeypatch):
    asked = ("--content", "conv1_1,conv2_1,conv3_1", "--style", "conv1_1")
    call(*SMALL, *asked, "-o", "{}/unbroken")
    with monkeypatch.context() as patch:
        interrupt(patch, "content-conv2_1.png", 2)
        _, said = call(*SMALL, *asked, code=130)
    assert "interrupted, 1 of 4 pictures made" in said
    assert "goes on where it was" in said
    assert facts(folder / "out" / "content-conv2_1.png")["iterations"] == 2
    assert [row["stop"] for row in rows(folder / "out" / "table.csv")] == ["iterations", "interrupted", "", ""]
    before = stamps(folder / "out")
    call(*SMALL, *asked)
    after = stamps(folder / "out")
    assert after["content-conv1_1.png"] == before["content-conv1_1.png"]
    assert after["content-conv2_1.png"] > before["content-conv2_1.png"]
    unbroken, resumed = pictures(folder / "unbroken"), pictures(folder / "out")
    assert unbroken.keys() == resumed.keys()
    for name, expected in unbroken.items():
        np.testing.assert_array_equal(resumed[name], expected, err_msg=name)
    tables = [rows(folder / name / "table.csv") for name in ("unbroken", "out")]
    for row in (*tables[0], *tables[1]):
        del row["seconds"]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("evaluation", [1, 2, 3])
def test_interrupted_before_its_first_iteration_a_picture_is_not_written(folder, call, monkeypatch, evaluation):
    evaluate, calls = Objective.begin, []

    def interrupted(self, image):
        calls.append(1)
        if len(calls) == evaluation:
            raise KeyboardInterrupt
        return evaluate(self, image)

    monkeypatch.setattr(Objective, "begin", interrupted)
    _, said = call(*SMALL, code=130)
    assert "interrupted, 0 of 10 pictures made" in said
    assert list((folder / "out").iterdir()) == []


def test_a_picture_is_kept_when_the_interruption_comes_while_it_is_measured(folder, call, monkeypatch):
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return feature_errors(*arguments)

    monkeypatch.setattr(tools.reconstruct.__main__, "feature_errors", interrupted)
    _, said = call(*SMALL, code=130)
    assert "interrupted, 1 of 10 pictures made" in said
    assert facts(folder / "out" / "content-conv1_1.png")["stop"] == "iterations"


def test_a_picture_that_fails_is_shown_with_its_reason_and_the_rest_is_made(folder, call, monkeypatch):
    make = tools.reconstruct.__main__._Pictures._run

    def run(self, one, listeners, began):
        if one.label == "conv2_1":
            raise ArithmeticError("the loss is not finite")
        return make(self, one, listeners, began)

    with monkeypatch.context() as patch:
        patch.setattr(tools.reconstruct.__main__._Pictures, "_run", run)
        _, said = call(*SMALL, "--content", "conv1_1,conv2_1,conv3_1", code=2)
    assert "content conv2_1: failed: the loss is not finite" in said
    assert "2 of 3 pictures made, 1 failed" in said
    assert said.splitlines()[-1].endswith("; the first failed for this reason: the loss is not finite")
    found = rows(folder / "out" / "table.csv")
    assert [row["failed"] for row in found] == ["", "the loss is not finite", ""]
    assert [row["picture"] for row in found] == ["content-conv1_1.png", "", "content-conv3_1.png"]
    assert ((pixels(folder / "out" / "sheet.png") == 222).all(axis=-1)).sum() > 36 * 48 // 2
    call(*SMALL, "--content", "conv1_1,conv2_1,conv3_1")
    assert rows(folder / "out" / "table.csv")[1]["failed"] == ""


def test_nothing_to_optimize_is_said(call):
    _, said = call(*SMALL, "--init", "{}/photo.png", "--content", "conv1_1", code=2)
    assert "content conv1_1: failed: nothing to optimize" in said
    # What came to nothing leaves nothing that would be in the way of the next.
    call(*SMALL, "--content", "conv1_1")


# ---- what is said ----


def test_quiet_says_nothing(call):
    assert call(*SMALL, "-q", "--content", "conv1_1") == ("", "")


def test_a_picture_tells_how_it_was_made(folder, call, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reconstruct.py", "my photo.png", "--style"])
    call(*SMALL, "--style", "conv1_1+conv2_1", "--pooling", "max")
    path = folder / "out" / "style-conv1_1+conv2_1.png"
    settings = facts(path, "Settings")
    assert settings["kind"] == "style"
    assert settings["layers"] == {"conv1_1": 0.5, "conv2_1": 0.5}
    assert (settings["pooling"], settings["size"], settings["iterations"]) == ("max", 48, 4)
    assert facts(path, "Names")["image"].endswith("photo.png")
    assert opened(path).text["Command"] == "python -m tools.reconstruct 'my photo.png' --style"


# ---- wrong input ----


def test_sets_that_would_share_a_file_are_refused(folder, call):
    sets = "conv1_1:0.12345671+conv2_1,conv1_1:0.12345672+conv2_1"
    assert "would have the same file" in call(*SMALL, "--style", sets, code=2)[1]
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "IMAGE"),
        (("{}/missing.png", *SMALL[1:]), "missing.png"),
        (("{}/model.onnx", *SMALL[1:]), "model.onnx"),
        ((*SMALL, "-m", "vgg91"), "unknown model 'vgg91'; did you mean 'vgg19'"),
        ((*SMALL, "--content", "conv1_11"), "unknown layer 'conv1_11'; did you mean 'conv1_1'"),
        ((*SMALL, "--style", "conv1_1+conv9_1"), "unknown layer 'conv9_1'"),
        ((*SMALL, "--content", ""), "'' has no values"),
        ((*SMALL, "--content", "conv1_1,,conv2_1"), "'conv1_1,,conv2_1' has an empty value"),
        ((*SMALL, "--style", "conv1_1+"), "'conv1_1+' has an empty layer name"),
        ((*SMALL, "--content", "conv1_1,conv1_1"), "has conv1_1 twice"),
        ((*SMALL, "--style", "conv3_1..conv1_1"), "is empty"),
        ((*SMALL, "-s", 8), "too small"),
        ((*SMALL, "-s", 0), "'0' is not at least 1"),
        ((*SMALL, "--init", "nose"), "unknown init 'nose'; did you mean 'noise'"),
        ((*SMALL, "--init", "{}/model.onnx"), "model.onnx"),
        ((*SMALL, "--optimizer", "lbfgs"), "did you mean 'l-bfgs'"),
        ((*SMALL, "-o", "{}/photo.png"), "it is a file, give a folder"),
        ((*SMALL, "-o", "{}/photo.png/out"), "photo.png/out"),
        ((*SMALL, "--history", "100000"), "--history must be at most"),
        ((*SMALL, "--device", "cuda"), "cuda"),
        ((*SMALL, "--style-statistics", "sliced"), "unrecognized arguments: --style-statistics sliced"),
        ((*SMALL, "--variation-weight", 1), "unrecognized arguments: --variation-weight 1"),
    ],
)
def test_wrong_input_is_answered_in_one_line(folder, call, arguments, message):
    before = sorted(folder.iterdir())
    output, said = call(*arguments, code=2)
    assert output == ""
    assert len(said.splitlines()) == 1, said
    assert said.startswith("reconstruct: ")
    assert message in said
    assert sorted(folder.iterdir()) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/other.png", *SMALL[1:]], "of another image"),
        ([*SMALL, "-m", "{}/vgg16.onnx"], "by another model"),
        ([*SMALL, "--init", "{}/other.png"], "another"),
        ([*SMALL, "-s", 40], "other settings (size 48 there, 40 here)"),
        ([*SMALL, "-n", 5], "other settings (iterations 4 there, 5 here)"),
        ([*SMALL, "--pooling", "max"], "other settings (pooling average there, max here)"),
        ([*SMALL, "--edges", "reflect"], "other settings (edges zero there, reflect here)"),
        ([*SMALL, "--change-tolerance", 0.5], "other settings (change-tolerance 0.0 there, 0.5 here)"),
        (["{}/out/sheet.png", *SMALL[1:]], "is an input, it would be overwritten"),
        (["{}/out/content-conv1_1.png", *SMALL[1:]], "of another image"),
    ],
)
def test_a_folder_of_other_reconstructions_is_left_alone(folder, call, arguments, message):
    call(*SMALL, "--content", "conv1_1")
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    _, said = call(*arguments, "--content", "conv1_1", code=2)
    assert len(said.splitlines()) == 1, said
    assert message in said
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before


@pytest.mark.parametrize("name", ["content-conv1_1.png", "style-mine.png", "sheet.png", "table.csv"])
def test_files_of_other_origin_are_not_overwritten(folder, call, name):
    (folder / "out").mkdir()
    (folder / "out" / name).write_bytes((folder / "photo.png").read_bytes())
    _, said = call(*SMALL, "--content", "conv1_1", code=2)
    assert name in said
    assert "give another --output" in said
    assert [path.name for path in (folder / "out").iterdir()] == [name]


# ---- on a GPU ----


@pytest.mark.parametrize("kind", [("--content", "conv1_1,conv2_1"), ("--style", "conv1_1+conv2_1")])
def test_on_a_gpu_it_comes_to_the_same(folder, call, emulator, kind):
    arguments = ("{}/photo.png", "-m", "{}/model.onnx", "-s", 16, "-n", 3, *kind)
    call(*arguments, "-o", "{}/cpu", "--device", "cpu")
    _, said = call(*arguments, "-o", "{}/gpu", "--device", "cuda")
    assert "cuda (" in said
    tables = [list(csv.DictReader((folder / name / "table.csv").read_text().splitlines())) for name in ("cpu", "gpu")]
    for on_cpu, on_gpu in zip(*tables, strict=True):
        assert float(on_gpu["loss"]) == pytest.approx(float(on_cpu["loss"]), rel=1e-2)
        assert float(on_gpu["error"]) == pytest.approx(float(on_cpu["error"]), rel=1e-2)
