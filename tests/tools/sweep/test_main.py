from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.load import load_network
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.stylize import Settings, stylize
from engine.vgg import CONTENT_WEIGHT
from tests.tools.calling import called
from tests.tools.sweep.test_workers import ROOT, appeared
from tools.media.files import UNFINISHED
from tools.media.images import load_image
from tools.models.random_vgg import random_vgg
from tools.sweep import __main__ as sweep
from tools.sweep import cells as one_cell
from tools.sweep import making
from tools.sweep.__main__ import main
from tools.sweep.folder import Folder
from tools.sweep.workers import Workers


@pytest.fixture
def call(folder, capsys) -> Callable[..., str]:
    """Run a command line as a person does, ``{}`` standing for the folder; return what it says."""

    def call(*arguments: object, code: int = 0) -> str:
        return called(main, capsys, [str(part).replace("{}", str(folder)) for part in arguments], code)[1]

    return call


PAIR = ("{}/photo.png", "{}/painting.png", "-m", "{}/model.onnx", "-o", "{}/out", "-s", 48, "-n", 3)
NOISE = ("--init", "noise")
TWO_BY_TWO = (*PAIR, "--rows", "seed=0,1", "--columns", "content-weight=1e-3..1e-2")


def cells(folder: Path, name: str = "out") -> dict[str, bytes]:
    """Return the pictures' files by name."""
    return {path.name: path.read_bytes() for path in sorted((folder / name / "cells").glob("*.png"))}


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def pixels(path: Path) -> np.ndarray:
    return np.asarray(opened(path).convert("RGB"))


def table(folder: Path, name: str = "out") -> list[dict[str, str]]:
    with (folder / name / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def entries(folder: Path, name: str = "out") -> list[dict[str, Any]]:
    return json.loads((folder / name / "table.json").read_text())


# ---- the grid ----


@pytest.mark.slow
def test_by_default_the_grid_is_the_papers_figure_3(folder, call):
    said = call(*PAIR[:4], "-o", "{}/out", "-s", 48, "-n", 1)
    assert "20 of 20 cells made" in said
    found = entries(folder)
    assert [entry["row"] for entry in found[::4]] == ["conv1_1", *(f"conv1_1 to conv{n}_1" for n in range(2, 6))]
    network = load_network(folder / "model.onnx")
    weights = [entry["settings"]["content_weight"] for entry in found[:4]]
    np.testing.assert_allclose(weights, [1e-5, 1e-4, 1e-3, 1e-2])
    assert network.content_weight == CONTENT_WEIGHT, "as if the weights were the original ones"
    assert all(list(entry["settings"]["style_layers"]) == [f"conv{n}_1" for n in range(1, 6)] for entry in found[-4:])


@pytest.mark.slow
def test_each_cell_is_what_the_engine_makes_of_its_settings(folder, call):
    call(*TWO_BY_TWO, "--init", "noise")
    network = load_network(folder / "model.onnx", threads=1)
    photo = load_image(folder / "photo.png", long_side=48).pixels
    painting = load_image(folder / "painting.png", long_side=48).pixels
    for seed in (0, 1):
        for content_weight, weight in ((1e-3, "1e-3"), (1e-2, "1e-2")):
            name = f"seed={seed},content-weight={weight}"
            settings = Settings(seed=seed, content_weight=content_weight, iterations=3, init="noise")
            result = stylize(network, photo, painting, settings)
            made = pixels(folder / "out" / "cells" / f"{name}.png")
            np.testing.assert_array_equal(made, np.rint(result.image).astype(np.uint8))
            record = json.loads((folder / "out" / "cells" / f"{name}.json").read_text())
            assert record["facts"]["loss"] == result.value
            assert record["facts"]["evaluations"] == result.evaluations


@pytest.mark.slow
@pytest.mark.parametrize(
    "axis",
    [
        "model={}/model.onnx,{}/other.onnx",
        "pooling=average,max",
        "optimizer=l-bfgs-b,l-bfgs,adam,sgd",
        "style-layers=conv1_1..conv3_1",
        "content-layers=conv3_1,conv4_1+conv4_2:2",
        "init=noise,content,style,{}/other.png",
        "size=32,48",
        "style-size=32,48",
        "style-weight=1,2",
        "learning-rate=1,10",
        "style={}/painting.png,{}/other.png",
        "content={}/photo.png,{}/other.png",
        "blend=1+1,1+0",
        "dtype=float32,float64",
    ],
)
def test_any_setting_can_be_an_axis_and_makes_a_difference(folder, call, axis):
    write_onnx(folder / "other.onnx", random_vgg("vgg16", width=0.05), preprocessing_metadata(PREPROCESSING["caffe"]))
    extra = ["--optimizer", "adam"] if axis.startswith("learning") else []
    second = ["{}/other.png"] if axis.startswith("blend") else []
    call(*PAIR[:2], *second, *PAIR[2:], *extra, "--columns", axis)
    found = entries(folder)
    assert len(found) == axis.count(",") + 1 or axis.startswith("style-layers")
    losses = [entry["loss"] for entry in found]
    assert len(set(losses)) == len(losses), losses


@pytest.mark.slow
def test_a_folder_of_photographs_meets_a_folder_of_paintings(folder, call):
    for name, pictures in {"photos": ("photo", "other"), "paintings": ("painting", "photo", "other")}.items():
        (folder / name).mkdir()
        for picture in pictures:
            (folder / name / f"{picture}.png").write_bytes((folder / f"{picture}.png").read_bytes())
    call("{}/photos", "{}/paintings", *PAIR[2:])
    assert [(line["content"], line["style"]) for line in table(folder)] == [
        (photo, painting) for photo in ("other", "photo") for painting in ("other", "painting", "photo")
    ]
    call("{}/photo.png", "{}/paintings", *PAIR[2:4], "-o", "{}/row", "-s", 48, "-n", 1)
    assert [line["style"] for line in table(folder, "row")] == ["other", "painting", "photo"]


@pytest.mark.slow
def test_one_axis_is_a_row_or_a_column(folder, call):
    call(*PAIR, "--rows", "seed=0..2")
    assert sorted(cells(folder)) == ["seed=0.png", "seed=1.png", "seed=2.png"]
    call(*PAIR[:4], "-o", "{}/row", *PAIR[6:], "--columns", "seed=0..2")
    assert sorted(cells(folder, "row")) == ["seed=0.png", "seed=1.png", "seed=2.png"]
    for name in ("out", "row"):
        assert [entry["settings"]["seed"] for entry in entries(folder, name)] == [0, 1, 2]
    assert list(cells(folder).values()) == list(cells(folder, "row").values())
    assert len(set(cells(folder).values())) == 3
    heights = [opened(folder / name / "sheet.png").height for name in ("out", "row")]
    assert heights[0] > heights[1]


# ---- what it leaves ----


def test_the_table_has_losses_terms_shares_and_how_it_ended(folder, call):
    call(*TWO_BY_TWO)
    lines = table(folder)
    assert [(line["seed"], line["content-weight"]) for line in lines] == [
        ("0", "1e-3"),
        ("0", "1e-2"),
        ("1", "1e-3"),
        ("1", "1e-2"),
    ]
    for line, entry in zip(lines, entries(folder), strict=True):
        assert (folder / "out" / line["picture"]).is_file()
        assert float(line["loss"]) == entry["loss"] < float(line["initial_loss"])
        assert line["stop_reason"] == "reached 3 iterations"
        terms = {name: float(line[name]) for name in line if re.fullmatch(r"(content|style) conv\d_\d", name)}
        assert len(terms) == 6
        assert sum(terms.values()) == pytest.approx(entry["loss"], rel=1e-6)
        share = terms["content conv4_2"] / sum(terms.values())
        assert float(line["content's share of the loss at the end"]) == pytest.approx(share)
        for when in ("start", "end"):
            for what in ("loss", "gradient"):
                shares = entry[when][f"{what}_shares"]
                assert sum(value for kind in shares.values() for value in kind.values()) == pytest.approx(1)
        assert [point[0] for point in entry["curve"]] == sorted(point[0] for point in entry["curve"])
        assert entry["curve"][-1][1] == pytest.approx(entry["loss"])


def test_a_picture_carries_its_settings(folder, call):
    call(*TWO_BY_TWO)
    text = opened(folder / "out" / "cells" / "seed=1,content-weight=1e-3.png").text
    settings, result = json.loads(text["Settings"]), json.loads(text["Result"])
    assert (settings["seed"], settings["content_weight"], settings["size"]) == (1, 1e-3, 48)
    assert set(settings["files"]) == {"model", "content", "style 1"}
    assert result["stop"] == "iterations"


@pytest.mark.slow
def test_verbose_has_a_line_for_each_cell_and_quiet_has_none(folder, call):
    said = call(*TWO_BY_TWO, "--verbose")
    assert (
        len(re.findall(r"sweep: seed=[01], content-weight=1e-[23]: loss \S+ -> \S+, reached 3 iterations, ", said)) == 4
    )
    assert "left" in said
    assert call(*TWO_BY_TWO[:4], "-o", "{}/quiet", *TWO_BY_TWO[6:], "--quiet") == ""


@pytest.mark.slow
def test_there_are_a_sheet_a_page_and_if_asked_for_a_plot(folder, call):
    call(*TWO_BY_TWO)
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "cells",
        "sheet.html",
        "sheet.png",
        "sweep.json",
        "table.csv",
        "table.json",
    ]
    page = (folder / "out" / "sheet.html").read_text("utf-8")
    assert page.count("data:image/png") == 4
    pytest.importorskip("matplotlib")
    call(*TWO_BY_TWO, "--plot")
    assert "<svg" in (folder / "out" / "losses.svg").read_text("utf-8")


def test_a_plot_without_matplotlib_is_refused_before_anything_is_made(folder, call, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install '.[plot]'" in call(*TWO_BY_TWO, "--plot", code=2)
    assert not (folder / "out").exists()


# ---- cells that are there, and cells that fail ----


def test_what_has_been_made_is_not_made_again(folder, call):
    call(*TWO_BY_TWO)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "out" / "cells").iterdir()}
    said = call(*TWO_BY_TWO)
    assert "4 of them there already" in said
    (folder / "out" / "cells" / "seed=0,content-weight=1e-2.png").unlink()
    (folder / "out" / "cells" / "seed=1,content-weight=1e-3.json").write_text("{")
    (folder / "out" / "cells" / "seed=1,content-weight=1e-2.png").write_bytes(
        before["seed=0,content-weight=1e-3.png"][0]
    )
    said = call(*TWO_BY_TWO)
    assert "1 of them there already" in said
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in (folder / "out" / "cells").iterdir()}
    assert after["seed=0,content-weight=1e-3.png"] == before["seed=0,content-weight=1e-3.png"]
    assert after["seed=0,content-weight=1e-3.json"] == before["seed=0,content-weight=1e-3.json"]
    assert {name: content for name, (content, _) in after.items() if name.endswith(".png")} == {
        name: content for name, (content, _) in before.items() if name.endswith(".png")
    }


def test_cells_of_a_folder_from_before_they_were_called_by_their_settings_are_kept(folder, call):
    call(*TWO_BY_TWO)
    made = folder / "out" / "cells"
    for (seed, weight), place in {
        (0, "1e-3"): "1-1",
        (0, "1e-2"): "1-2",
        (1, "1e-3"): "2-1",
        (1, "1e-2"): "2-2",
    }.items():
        for suffix in (".png", ".json"):
            (made / f"seed={seed},content-weight={weight}{suffix}").rename(made / f"{place}{suffix}")
    (made / "2-2.png").unlink()
    assert "3 of them there already" in call(*TWO_BY_TWO)
    assert [entry["picture"] for entry in entries(folder)] == [
        "cells/1-1.png", "cells/1-2.png", "cells/2-1.png", "cells/seed=1,content-weight=1e-2.png"
    ]  # fmt: skip


DAMAGES = {
    "no loss": lambda record: record["facts"].pop("loss"),
    "a loss that is a word": lambda record: record["facts"].update(loss="small"),
    "a loss beyond all floats": lambda record: record["facts"].update(loss=10**400),
    "no standing": lambda record: record["facts"].update(end={}),
    "shares that are none": lambda record: record["facts"]["end"].update(loss_shares={"content": [], "style": {}}),
    "a curve of points that are too short": lambda record: record["facts"].update(curve=[[1]]),
    "a term without a layer": lambda record: record["facts"].update(terms=["content"], curve=[]),
    "facts that are a list": lambda record: record.update(facts=[1]),
    "a failure that is a number": lambda record: record.update(failed=7),
    "a failure without a time": lambda record: record.update(failed="?", facts={}),
    "a picture's hash that is a list": lambda record: record.update(sha256=[]),
    "settings that are null": lambda record: record.update(settings=None),
}


@pytest.mark.parametrize("damage", ["nested", *DAMAGES])
def test_a_cell_whose_record_is_damaged_is_made_again(folder, call, damage):
    line = (*PAIR, "--rows", "seed=0,1", "--plot")
    call(*line)
    path = folder / "out" / "cells" / "seed=0.json"
    whole = json.loads(path.read_text())
    record = json.loads(path.read_text())
    if damage == "nested":
        path.write_text("[" * 200_000 + "]" * 200_000)
    else:
        DAMAGES[damage](record)
        path.write_text(json.dumps(record))
    assert "1 of them there already" in call(*line)
    assert json.loads(path.read_text())["sha256"] == whole["sha256"]


def test_a_plan_that_is_nested_without_end_is_a_damaged_one(folder, call):
    call(*TWO_BY_TWO)
    (folder / "out" / "sweep.json").write_text("[" * 200_000 + "]" * 200_000)
    assert "or a damaged one" in call(*TWO_BY_TWO, code=2)


def test_a_failed_cell_is_shown_and_stops_nothing_else_and_is_tried_again(folder, call):
    (folder / "photos").mkdir()
    for name in ("a", "c"):
        (folder / "photos" / f"{name}.png").write_bytes((folder / "photo.png").read_bytes())
    (folder / "photos" / "b.png").write_text("no picture at all")
    arguments = ("{}/photos", "{}/painting.png", *PAIR[2:])
    said = call(*arguments, code=2)
    assert re.search(r"sweep: b: failed: cannot read '.*b\.png': it is not a PNG", said)
    assert "2 of 3 cells made, 1 failed" in said
    lines = table(folder)
    assert [line["failed"] == "" for line in lines] == [True, False, True]
    assert lines[1]["picture"] == ""
    said = call(*arguments, code=2)
    assert "2 of them there already" in said
    assert sorted(cells(folder)) == ["content=a.png", "content=c.png"]
    said = call(*arguments, "--quiet", code=2)
    assert said.count("\n") == 1
    assert "1 failed, the first for this reason: cannot read" in said


@pytest.mark.slow
def test_a_picture_that_was_mended_is_made_and_one_that_was_made_stays_as_it_was(folder, call):
    (folder / "photos").mkdir()
    for name in ("a", "b"):
        (folder / "photos" / f"{name}.png").write_bytes((folder / "photo.png").read_bytes())
    whole = (folder / "photos" / "b.png").read_bytes()
    (folder / "photos" / "b.png").write_bytes(whole[: len(whole) // 2])
    arguments = ("{}/photos", "{}/painting.png", *PAIR[2:])
    assert "1 of 2 cells made, 1 failed" in call(*arguments, code=2)
    (folder / "photos" / "b.png").write_bytes((folder / "other.png").read_bytes())
    (folder / "photos" / "a.png").write_bytes((folder / "other.png").read_bytes())
    assert "holds another sweep (another file for content)" in call(*arguments, code=2)
    assert sorted(cells(folder)) == ["content=a.png"]
    (folder / "photos" / "a.png").write_bytes(whole)
    said = call(*arguments)
    assert "1 of them there already" in said
    assert "2 of 2 cells made" in said
    (folder / "photos" / "b.png").write_bytes(whole)
    assert "holds another sweep (another file for content)" in call(*arguments, code=2)


@pytest.mark.parametrize(
    ("name", "axis"),
    [("photo.png", "seed=0..2"), ("painting.png", "seed=0..2"), ("second.onnx", "model={}/model.onnx,{}/second.onnx")],
)
def test_no_cell_is_made_of_a_file_that_was_exchanged_while_the_sweep_ran(folder, call, monkeypatch, name, axis):
    """Its hash stands in the records; with the former file put back, what is missing is made."""
    nodes = random_vgg("vgg19", seed=1, width=0.05)
    write_onnx(folder / "second.onnx", nodes, preprocessing_metadata(PREPROCESSING["caffe"]))
    line = (*PAIR[:4], "-s", 48, "-n", 3, *NOISE, "--columns", axis)
    former, make_cell, calls = (folder / name).read_bytes(), making.make_cell, []

    def exchanging(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            other = {".png": "other.png", ".onnx": "model.onnx"}[Path(name).suffix]
            (folder / name).write_bytes((folder / other).read_bytes())
        return make_cell(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(making, "make_cell", exchanging)
        said = call(*line, "-o", "{}/out", code=2)
    assert f"{name}' has changed since the sweep began" in said
    assert len(cells(folder)) == 1
    (folder / name).write_bytes(former)
    call(*line, "-o", "{}/out")
    call(*line, "-o", "{}/undisturbed")
    assert cells(folder) == cells(folder, "undisturbed")


def test_a_pair_that_fails_everywhere_is_an_error_at_once(folder, call):
    (folder / "photo.png").write_text("no picture at all")
    assert "it is not a PNG" in call(*TWO_BY_TWO, code=2)
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_an_interrupted_sweep_keeps_what_it_has_and_goes_on(folder, call, monkeypatch):
    call(*TWO_BY_TWO[:4], "-o", "{}/whole", *TWO_BY_TWO[6:])
    real, count = making.make_cell, 0

    def interrupted(*arguments, **keywords):
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(making, "make_cell", interrupted)
    said = call(*TWO_BY_TWO, code=130)
    assert "interrupted, 2 of 4 cells made; the same command goes on where it was" in said
    assert len(table(folder)) == 2
    assert (folder / "out" / "sheet.png").is_file()
    said = call(*TWO_BY_TWO)
    assert "2 of them there already" in said
    assert cells(folder) == cells(folder, "whole")


def command(folder: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "tools.sweep", *(str(part).replace("{}", str(folder)) for part in arguments)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_killed_in_the_middle_goes_on_where_it_was(folder, call, workers):
    grid = (*PAIR[:4], "-s", 48, "-n", 60, "--optimizer", "l-bfgs")
    grid += ("--rows", "seed=0..7", "--columns", "content-weight=1e-3..1e-2")
    call(*grid, "-o", "{}/whole")
    killed = subprocess.Popen(
        command(folder, *grid, "-o", "{}/out", "--workers", workers), cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        appeared(folder, "out/cells/[!.]*.json")
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    before = {path: path.stat().st_mtime_ns for path in (folder / "out" / "cells").glob("[!.]*.json")}
    assert 0 < len(before) < 16
    call(*grid, "-o", "{}/out", "--workers", workers)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert cells(folder) == cells(folder, "whole")


# ---- workers ----


def test_the_pictures_are_the_same_whoever_makes_them(folder, call, cluster):
    address, _ = cluster
    grid = (*PAIR[:4], "-s", 48, "-n", 5, "--rows", "seed=0..2", "--columns", "content-weight=1e-3..1e-2")
    call(*grid, "-o", "{}/one")
    said = call(*grid, "-o", "{}/two", "--workers", 2)
    assert "2 workers" in said
    said = call(*grid, "-o", "{}/dask", "--scheduler", address)
    assert "2 Dask workers" in said
    assert len(cells(folder, "one")) == 6
    assert cells(folder, "one") == cells(folder, "two") == cells(folder, "dask")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_is_followed_while_it_is_made(folder, call, workers):
    said = call(*PAIR[:6], "-s", 48, "-n", 10, "--rows", "seed=0,1", "--workers", workers)
    followed = re.findall(r"sweep: (\d+)/20 iterations, .* left, seed=([01]), loss \d", said)
    done = [int(number) for number, _ in followed]
    assert done == sorted(set(done))
    assert done[0] < 10
    assert {name for _, name in followed} == {"0", "1"}
    assert re.search(r"sweep: 20/20 iterations, ", said)


def test_a_worker_of_the_cluster_that_is_killed_costs_no_cell(folder, call, cluster):
    address, workers = cluster
    grid = (*PAIR[:4], "-s", 48, "-n", 60, "--rows", "seed=0..3", "--columns", "content-weight=1e-3..1e-2")
    running = subprocess.Popen(
        command(folder, *grid, "-o", "{}/out", "--scheduler", address), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        appeared(folder, "out/cells/[!.]*.json")
        workers[0].kill()
        _, said = running.communicate(timeout=100)
    finally:
        running.kill()
    assert running.returncode == 0, said
    assert "8 of 8 cells made" in said
    call(*grid, "-o", "{}/whole")
    assert cells(folder) == cells(folder, "whole")


def test_a_scheduler_that_falls_silent_ends_the_sweep_with_a_line(folder, call, monkeypatch):
    """It has been stopped: nothing comes back, and nothing fails."""

    class Silent(Executor):
        def submit(self, *arguments: Any, **keywords: Any) -> Future[Any]:
            return Future()

    def alive() -> bool:
        raise ConnectionError("the scheduler at 'tcp://x:1' does not answer any more")

    @contextlib.contextmanager
    def silent(address: str, threads: int | None) -> Iterator[Workers]:
        yield Workers(Silent(), 2, 1, 1, lambda sha256, path: path, alive, "1 Dask worker")

    monkeypatch.setattr(sweep, "dask_workers", silent)
    monkeypatch.setattr(making, "ASK_SECONDS", 0.5)
    said = call(*TWO_BY_TWO, "--scheduler", "tcp://x:1", code=2)
    assert "the scheduler at 'tcp://x:1' does not answer any more, 0 of 4 cells made; the same command goes on" in said


def test_memory_and_time_are_said_before_the_first_cell(folder, call):
    said = call(*TWO_BY_TWO, "--verbose", "--init", "noise").splitlines()
    assert re.fullmatch(r"sweep: 4 cells; 1 worker with \d+ threads?, about [\d.]+ MB of memory", said[0])
    assert re.fullmatch(r"sweep: [\d.e-]+ s an evaluation: about .* for what is to be made", said[1])
    assert not any("an evaluation" in line for line in call(*TWO_BY_TWO, "--init", "noise").splitlines()), "all is made"


def test_a_cluster_without_workers_is_an_error(folder, call, cluster):
    address, workers = cluster
    for worker in workers:
        worker.terminate()
        worker.wait()
    began = time.monotonic()
    assert "has no workers: start some with" in call(*TWO_BY_TWO, "--scheduler", address, code=2)
    assert time.monotonic() - began < 10
    assert not (folder / "out").exists()


# ---- what it refuses ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rows", "sed=1"), "unknown axis 'sed'; did you mean 'seed'?"),
        (("--rows", "seed="), "has no values"),
        (("--rows", "optimizer=adamm"), "did you mean 'adam'?"),
        (("--rows", "style-layers=conv9_1"), "conv9_1"),
        (("--rows", "init=nowhere.png"), "no such file"),
        (("--rows", "init=noise,draft"), "does not begin with a draft: choose noise, content, style or give a picture"),
        (("--init", "draft"), "does not begin with a draft"),
        (("--rows", "model=nowhere.onnx"), "nowhere.onnx"),
        (("--rows", "seed=0..1", "--columns", "seed=2..3"), "rows and columns both go over seed"),
        (("--rows", "seed=0..1", "--columns", "seed=2"), "rows and columns both go over seed"),
        (("--style-layers", "conv1_1"), "the grid goes over style-layers: leave out --style-layers"),
        (("--suggest", "--rows", "seed=1"), "leave out --rows and --columns"),
        (("--suggest", "--workers", 2), "--suggest makes no grid: leave out --workers"),
        (
            ("--rows", "seed=0..100", "--columns", "style-weight=1,2", "--rows", "seed=0..9999"),
            "20,000 cells: give --yes",
        ),
        (("--columns", "blend=1+2"), "2 weights for one painting"),
        (("--columns", "history=5,100000"), "--history must be at most"),
        (("--columns", "size=48,1000000"), "of memory"),
        (("--columns", "size=48,2"), "too small"),
        (("--workers", "2", "--scheduler", "h:1"), "--workers and --scheduler were both given"),
        (("--workers", "0"), "not at least 1"),
        (("--scheduler", "nonsense"), "no address of a Dask scheduler"),
        (("-o", "{}/photo.png"), "it is a file, give a folder"),
        (("-o", "{}/photo.png/below"), "photo.png"),
        (("-m", "{}/photo.png"), "photo.png"),
        (("-m", "{}/short.onnx"), "the model has no conv4_2, of the default --content-layers: name others, out of"),
        (("--rows", "init={}"), "it is a directory, give an image file"),
        (("--rows", "style={}/pipe"), "it is not a regular file"),
        (("--rows", "model={}/model.onnx,{}/pipe"), "is no regular file, expected an ONNX file"),
        (("--init", ""), "argument --init: the name is empty"),
        (("--rows", "content={}/photo.png,{}/Smith, J.png"), r"in quotes: '{}/Smith\, J.png'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(folder, call, arguments, message):
    if "--scheduler" in arguments and "nonsense" in arguments:
        pytest.importorskip("distributed")
    write_onnx(
        folder / "short.onnx", random_vgg("vgg19", width=0.05)[:8], preprocessing_metadata(PREPROCESSING["caffe"])
    )
    (folder / "Smith, J.png").write_bytes((folder / "other.png").read_bytes())
    os.mkfifo(folder / "pipe")
    said = call(*PAIR, *arguments, code=2)
    assert message.replace("{}", str(folder)) in said
    assert said.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_another_sweeps_folder_is_refused(folder, call):
    write_onnx(folder / "other.onnx", random_vgg("vgg16", width=0.05), preprocessing_metadata(PREPROCESSING["caffe"]))
    call(*TWO_BY_TWO)
    before = cells(folder)
    for changed, message in {
        ("-s", 40): "size 48 there, 40 here",
        ("-n", 9): "iterations 3 there, 9 here",
        ("--columns", "content-weight=1e-4..1e-3"): (
            "its columns are others (content-weight=1e-3,1e-2 there, content-weight=1e-4,1e-3 here)"
        ),
        ("--rows", "seed=0..2"): "its rows are others (seed=0,1 there, seed=0,1,2 here)",
        ("--rows", "seed=0,2"): "its rows are others (seed=0,1 there, seed=0,2 here)",
        ("-m", "{}/other.onnx"): "(another file for model)",
        ("--init", "{}/other.png"): 'init "content" there',
        ("--init", "noise"): 'init "content" there, "noise" here',
        ("--style-layers", "conv1_1:1e-2"): 'style-layers ["conv1_1", ',
    }.items():
        said = call(*TWO_BY_TWO, *changed, code=2)
        assert "holds another sweep" in said
        assert message in said
    (folder / "photo.png").write_bytes((folder / "other.png").read_bytes())
    assert "(another file for content)" in call(*TWO_BY_TWO, code=2)
    (folder / "out" / "sweep.json").write_text("[]")
    assert "holds another sweep, or a damaged one" in call(*TWO_BY_TWO, code=2)
    assert cells(folder) == before


@pytest.mark.slow
def test_a_folder_that_takes_no_pictures_is_told_before_one_is_made(folder, call, monkeypatch):
    call(*TWO_BY_TWO)
    (folder / "out" / "cells" / "seed=0,content-weight=1e-3.png").unlink()
    (folder / "out" / "cells" / "seed=0,content-weight=1e-3.png").mkdir()
    monkeypatch.setattr(making, "make_cell", None)
    assert call(*TWO_BY_TWO, code=2).startswith(
        f"sweep: cannot write '{folder}/out/cells/seed=0,content-weight=1e-3.png': "
    )


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["seed=0,1", "model={}/model.onnx", "init={}/other.png,noise"])
def test_a_file_by_another_name_is_the_same_sweep(folder, call, monkeypatch, axis):
    grid = (*PAIR, "--init", "{}/other.png") if axis.startswith("seed") else PAIR
    call(*grid, "--rows", axis)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "cells").iterdir()}
    (folder / "link.onnx").symlink_to("model.onnx")
    monkeypatch.chdir(folder)
    for model in ("model.onnx", "./link.onnx"):
        again = (
            part.replace("{}/model.onnx", model).replace("{}/", "../" + folder.name + "/") for part in map(str, grid)
        )
        said = call(*again, "--rows", axis.replace("{}/model.onnx", model).replace("{}/", ""))
        assert f"{axis.count(',') + 1} of them there already" in said
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "cells").iterdir()} == before


def test_of_two_sweeps_that_begin_together_in_a_new_folder_one_is_told_so(folder, call, monkeypatch):
    """Both find no folder; the other one claims it before this one does."""
    claim = Folder.claim

    def late(self):
        monkeypatch.setattr(Folder, "claim", claim)
        call(*PAIR, "--rows", "seed=0..2")
        claim(self)

    monkeypatch.setattr(Folder, "claim", late)
    said = call(*PAIR, "--rows", "seed=0,1", code=2)
    assert said.splitlines()[-1] == (
        f"sweep: '{folder}/out' holds another sweep, its rows are others (seed=0,1,2 there, seed=0,1 here): "
        "give another --output"
    )
    assert len(cells(folder)) == 3


@pytest.mark.slow
def test_sweeps_that_really_begin_together_leave_one_whole_plan(folder, call):
    grids = [(*PAIR, "--rows", f"seed={seed},{seed + 1}") for seed in range(3)]
    running = [subprocess.Popen(command(folder, *grid), cwd=ROOT, stderr=subprocess.PIPE, text=True) for grid in grids]
    ended = [(process.communicate(timeout=100)[1], process.returncode) for process in running]
    assert sorted(code for _, code in ended) == [0, 2, 2], ended
    for said, code in ended:
        if code:
            assert "holds another sweep, its rows are others" in said.splitlines()[-1]
    winner = next(index for index, (_, code) in enumerate(ended) if code == 0)
    assert [entry["settings"]["seed"] for entry in entries(folder)] == [winner, winner + 1]


def test_what_a_sweep_killed_at_its_beginning_leaves_blocks_nothing(folder, call):
    (folder / "out").mkdir()
    (folder / "out" / f"{UNFINISHED}x7.json").write_text('{"rows": ')
    call(*TWO_BY_TWO)
    assert len(cells(folder)) == 4


def test_a_folder_with_other_files_is_refused(folder, call):
    (folder / "out").mkdir()
    (folder / "out" / "mine.txt").write_text("mine")
    assert "has other files in it" in call(*TWO_BY_TWO, code=2)
    assert [path.name for path in (folder / "out").iterdir()] == ["mine.txt"]
    (folder / "out" / "mine.txt").unlink()
    call(*TWO_BY_TWO)


def test_folders_and_axes_that_contradict_each_other_are_refused(folder, call):
    (folder / "empty").mkdir()
    (folder / "photos").mkdir()
    (folder / "photos" / "a.png").write_bytes((folder / "photo.png").read_bytes())
    model = PAIR[2:]
    assert "has no pictures" in call("{}/empty", "{}/painting.png", *model, code=2)
    assert "leave out --rows" in call("{}/photos", "{}/painting.png", *model, "--rows", "seed=1", code=2)
    assert "leave out --columns" in call("{}/photo.png", "{}/photos", *model, "--columns", "seed=1", code=2)
    for paintings in (("{}/photos", "{}/photo.png"), ("{}/photo.png", "{}/photos")):
        assert "photos' is a folder, which stands alone" in call("{}/photo.png", *paintings, *model, code=2)


def test_more_workers_than_fit_into_memory_are_refused(folder, call, monkeypatch):
    monkeypatch.setattr(sweep, "available_memory", lambda: 50_000_000)
    assert "give fewer --workers" in call(*TWO_BY_TWO, "--workers", 1000, code=2)
    assert not (folder / "out").exists()


def test_where_memory_is_short_the_network_of_another_model_goes(folder, call, monkeypatch):
    nodes = random_vgg("vgg19", width=0.05, seed=1)
    write_onnx(folder / "second.onnx", nodes, preprocessing_metadata(PREPROCESSING["caffe"]))
    check, refused = one_cell.check_memory, []

    def short(*arguments):
        if one_cell._network.cache_info().currsize > 1:
            refused.append(1)
            raise ValueError("there is not enough memory")
        return check(*arguments)

    monkeypatch.setattr(one_cell, "check_memory", short)
    one_cell._network.cache_clear()
    said = call(*PAIR[:2], *PAIR[4:], "--columns", "model={}/model.onnx,{}/second.onnx")
    assert "2 of 2 cells made" in said
    assert refused == [1]


# ---- suggestions ----


def test_suggested_weights_go_from_the_painting_to_the_photograph(folder, call, capsys):
    arguments = [str(part).replace("{}", str(folder)) for part in (*PAIR, "--suggest", "--init", "content")]
    output, _ = called(main, capsys, arguments, 0)
    rows = [line.split() for line in output.splitlines() if re.match(r"\s+\d", line)]
    kept = {float(weight): float(share.rstrip("%")) for weight, share, _ in rows}
    assert [kept[weight] for weight in sorted(kept)] == sorted(kept.values())
    weights = [float(number) for number in output.rsplit("content-weight=", 1)[1].strip().split(",")]
    assert len(weights) == 4
    assert weights == sorted(set(weights))
    assert not (folder / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-b", "0"), "can only be suggested where content and style count: give --style-weight"),
        (("--content-layers", "conv4_2:0"), "can only be suggested where content and style count"),
        (("--style-layers", "conv1_1:0"), "can only be suggested where content and style count"),
        (("-b", "1e-320"), "the weights are too small"),
        (("-b", "1e-42"), "expected 1e-30 to 1e+30"),
        (("--content-layers", "conv4_2:1e-35"), "expected 1e-30 to 1e+30"),
        (("-b", "1e308"), "is not finite: it began at"),
        (("--content-layers", "conv4_2:1e-320"), "a content weight of inf only, expected 1e-30 to 1e+30"),
        (("--content-layers", "conv4_2:1e308"), "is not finite: it began at"),
        (("--style-layers", "conv1_1:1e308,conv2_1:1e308"), "is not finite: it began at"),
        (("--content-layers", "conv9_1"), "unknown layer 'conv9_1'"),
        (("-s", 8), "too small"),
    ],
)
def test_absurd_weights_are_told_instead_of_suggesting_others(folder, capsys, arguments, message):
    # With the draft network: what is said of it belongs to a suggestion, not to an error.
    given = (*PAIR[:2], *NOISE, "-s", 48, "-n", 3, "--suggest", *arguments)
    output, said = called(main, capsys, [str(part).replace("{}", str(folder)) for part in given], 2)
    assert output == ""
    assert said.count("\n") == 1, said
    assert message in said


@pytest.mark.slow
def test_a_style_weight_moves_the_suggested_weights_along(folder, capsys):
    arguments = [str(part).replace("{}", str(folder)) for part in (*PAIR, "--suggest", "--init", "content")]
    tables = [called(main, capsys, [*arguments, "-b", weight], 0)[0] for weight in ("1", "1e-20", "1e20")]
    suggested = [[float(number) for number in text.rsplit("=", 1)[1].split(",")] for text in tables]
    for weights, factor in zip(suggested, (1, 1e-20, 1e20), strict=True):
        np.testing.assert_allclose(weights, [factor * weight for weight in suggested[0]], rtol=1e-6)


def test_runs_that_are_too_short_for_the_photograph_do_not_drive_the_weight_up(folder, capsys):
    """From noise, two iterations bring some of the photograph and no weight brings more."""
    arguments = [str(part).replace("{}", str(folder)) for part in (*PAIR, *NOISE, "--suggest", "-n", 2)]
    output, _ = called(main, capsys, arguments, 0)
    rows = [line.split() for line in output.splitlines() if re.match(r"\s+\d", line)]
    shares = [float(share.rstrip("%")) for _, share, _ in rows]
    assert max(shares) < 90
    assert len(rows) <= 6
    weights = [float(number) for number in output.rsplit("content-weight=", 1)[1].strip().split(",")]
    assert weights[-1] <= 1.2 * float(rows[-1][0])


def test_suggestions_are_for_one_photograph(folder, call):
    assert "is a folder" in call("{}", "{}/painting.png", *PAIR[2:], "--suggest", code=2)


# ---- on a GPU ----


def test_on_a_gpu_it_comes_to_the_same(folder, call, emulator):
    grid = (*PAIR[:4], "-s", 16, "-n", 3, "--optimizer", "l-bfgs", "--content-layers", "conv3_1")
    grid += ("--style-layers", "conv1_1,conv2_1", "--columns", "content-weight=1e-3..1e-2")
    call(*grid, "-o", "{}/cpu", "--device", "cpu")
    call(*grid, "-o", "{}/gpu", "--device", "cuda")
    assert "a GPU makes one cell at a time" in call(*grid, "-o", "{}/two", "--device", "cuda", "--workers", 2, code=2)
    for on_cpu, on_gpu in zip(entries(folder, "cpu"), entries(folder, "gpu"), strict=True):
        assert on_gpu["loss"] == pytest.approx(on_cpu["loss"], rel=1e-3)
        assert on_gpu["start"]["gradient_shares"]["content"] == pytest.approx(
            on_cpu["start"]["gradient_shares"]["content"], rel=1e-3
        )


@pytest.mark.parametrize(
    ("seeds", "init", "told"), [("0,1", "content", True), ("0,1", "noise", False), ("1,2", "content", True)]
)
def test_seeds_that_do_nothing_are_told(folder, call, seeds, init, told):
    """Also where the first of them is the default, which does nothing by itself."""
    said = call("{}/photo.png", "{}/painting.png", *PAIR[2:], "--rows", f"seed={seeds}", "--init", init)
    assert ("the seed does nothing" in said) == told
