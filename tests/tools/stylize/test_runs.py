"""Runs that live on disk: checkpoints, going on from them, pictures made again, timelapses."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from PIL import Image

import engine.optimizers.setulb
import tools.stylize.__main__
import tools.stylize.checkpoint
from engine.optimize import METHODS
from engine.optimizers.run import Run
from engine.optimizers.setulb import check_solver
from tests.tools.conftest import ROOT
from tests.tools.disk import full_disk
from tests.tools.stylize.test_main import SMALL, WITH_MODEL, call, facts, interrupt, opened, pixels  # noqa: F401 (a fixture)
from tools.cli import interruption
from tools.cli.interruption import Interrupt, Postponement
from tools.cli.options import PAPER
from tools.media import archive
from tools.media.archive import read_archive, write_archive
from tools.stylize.__main__ import build_parser
from tools.stylize.checkpoint import Checkpoints
from tools.stylize.recorded import as_command

LEVELS = (*WITH_MODEL, "-s", 64, "--levels", 2, "-n", 5)
KEPT = (*LEVELS, "--checkpoint", "{}/run.npz", "--checkpoint-every", 1)


class Killed(BaseException):
    """What ends a process at once, as far as a test can do that to itself."""


@pytest.fixture
def kill(call, capsys):  # noqa: F811
    """Return what begins a run and kills it behind its n-th iteration, of all sizes together."""

    def kill(count: int, *arguments: object) -> None:
        write, done = Checkpoints.iteration, []

        def iteration(self, state):
            write(self, state)
            done.append(state)
            if len(done) == count:
                raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoints, "iteration", iteration)
            with pytest.raises(Killed):
                call(*arguments)
        capsys.readouterr()

    return kill


# ---- going on ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [2, 5, 8])
def test_a_killed_run_goes_on_to_the_same_picture(folder, call, kill, method, count):  # noqa: F811
    """Five iterations at each of two sizes: killed in the first, between the two, and in the second."""
    beside = ("--timelapse", "{}/out.webp", "--log", "{}/run.jsonl", "--save-every", 2)
    call(*LEVELS, "--optimizer", method, *beside)
    expected = {path.name: path.read_bytes() for path in folder.glob("out*.webp")}
    picture, result = pixels(folder / "out.png"), facts(folder / "out.png", "Result")
    entries = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    for path in (*folder.glob("out*"), folder / "run.jsonl"):
        path.unlink()
    kill(count, *KEPT, "--optimizer", method, *beside, "--threads", 1)
    assert read_archive(folder / "run.npz")[0]["level"] == 1 + (count > 5)
    said = call("--resume", "{}/run.npz", "--threads", 2)
    np.testing.assert_array_equal(pixels(folder / "out.png"), picture)
    told = facts(folder / "out.png", "Result")
    for name in ("loss", "initial_loss", "iterations", "evaluations", "stop_reason", "loss_shares"):
        assert told[name] == result[name]
    assert {path.name: path.read_bytes() for path in folder.glob("out*.webp")} == expected
    again = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    assert [(one["event"], one.get("iteration"), one.get("terms")) for one in again] == [
        (one["event"], one.get("iteration"), one.get("terms")) for one in entries
    ]
    assert sorted(path.name for path in folder.glob("out*.png")) == ["out-2.png", "out-4.png", "out.png"]
    assert ("iterations 4 to 5" in said) == (count == 8)
    assert not (folder / "run.npz").exists()
    assert not list(folder.glob(".unfinished-*"))


def test_how_often_says_nothing_without_a_checkpoint(folder, call):  # noqa: F811
    assert "--checkpoint-every does nothing without --checkpoint FILE" in call(
        *SMALL, "-m", "draft", "--checkpoint-every", 5
    )
    assert "--checkpoint-every" not in call(*SMALL, "-m", "draft")


def test_a_checkpoint_is_there_from_the_beginning(folder, call, kill):  # noqa: F811
    call(*LEVELS)
    picture = pixels(folder / "out.png")
    kill(1, *LEVELS, "--checkpoint", "{}/run.npz")
    assert read_archive(folder / "run.npz")[0]["iteration"] == 0
    call("--resume", "{}/run.npz")
    np.testing.assert_array_equal(pixels(folder / "out.png"), picture)


def test_an_interrupted_run_says_how_to_go_on_and_ends_as_if_it_had_not_been(folder, call, monkeypatch):  # noqa: F811
    call(*LEVELS)
    picture = pixels(folder / "out.png")
    write = Checkpoints.iteration

    def interrupted(self, state):
        write(self, state)
        if self._level.is_last and state.iteration == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "iteration", interrupted)
        said = call(*KEPT, code=130)
    assert (
        said.splitlines()[-1]
        == f"stylize: to go on from iteration 4 of level 2 of 2: python -m tools.stylize --resume {folder}/run.npz"
    )
    assert facts(folder / "out.png", "Result")["stop"] == "interrupted"
    call("--resume", "{}/run.npz")
    np.testing.assert_array_equal(pixels(folder / "out.png"), picture)


class Impatience:
    """Sends signals in the middle of an iteration, the first when so many are done at a size."""

    def __init__(self, patch, level, iterations, signals=(signal.SIGINT,), pause=0.0):
        self.at, self.asked = (1, 0), (level, iterations)
        begin, iterate, evaluate = Checkpoints.start, Checkpoints.iteration, Run.evaluate

        def start(checkpoints, job):
            self.at = (checkpoints._level.number, 0)
            begin(checkpoints, job)

        def iteration(checkpoints, state):
            self.at = (checkpoints._level.number, state.iteration)
            iterate(checkpoints, state)

        def evaluation(run, image, launch=None):
            found = evaluate(run, image, launch)
            if self.at == self.asked and run.evaluations > 1:
                self.at = (0, 0)
                for number in signals:
                    signal.raise_signal(number)
                    time.sleep(pause)
            return found

        patch.setattr(Checkpoints, "start", start)
        patch.setattr(Checkpoints, "iteration", iteration)
        patch.setattr(Run, "evaluate", evaluation)


RARELY = (*LEVELS, "--checkpoint", "{}/run.npz", "--checkpoint-every", 1000)
TWO = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def handled():
    """Have one handler for all signals, as a tool that is run has."""
    handler = Interrupt()
    before = {number: signal.signal(number, handler) for number in TWO}
    yield
    for number, one in before.items():
        signal.signal(number, one)


@pytest.mark.parametrize(
    ("at", "signals", "settings", "kept", "told"),
    [
        pytest.param((2, 3), TWO[:1], {}, (2, 4), "from iteration 5 of level 2 of 2", id="kept"),
        pytest.param((2, 1), TWO[:1], {}, (2, 2), "from iteration 3 of level 2 of 2", id="so is the second"),
        pytest.param((2, 0), TWO[:1], {}, (1, 0), "from iteration 1 of level 1 of 2", id="before the first is nothing"),
        pytest.param((1, 4), TWO[:1], {}, (1, 5), "behind level 1 of 2", id="the last of the first size"),
        pytest.param((2, 3), TWO, {}, (2, 4), "from iteration 5 of level 2 of 2", id="two that belong together"),
        pytest.param(
            *((2, 3), TWO, {"PATIENCE_SECONDS": -1.0}, (1, 0), "from iteration 1 of level 1 of 2"),
            id="a second is not held",
        ),
        pytest.param(
            *((2, 3), TWO[:1], {"MOST_SECONDS": 0.0}, (1, 0), "from iteration 1 of level 1 of 2"),
            id="long ones are broken off",
        ),
    ],
)
def test_ctrl_c_in_the_middle_of_an_iteration(
    folder,
    call,  # noqa: F811
    monkeypatch,
    handled,
    at,
    signals,
    settings,
    kept,
    told,
):
    """A checkpoint of a time is not due before the end."""
    call(*LEVELS)
    picture = pixels(folder / "out.png")
    with monkeypatch.context() as patch:
        for name, value in settings.items():
            patch.setattr(interruption, name, value)
        Impatience(patch, *at, signals)
        said = call(*RARELY, code=130)
    assert f"stylize: to go on {told}: " in said.splitlines()[-1]
    assert (folder / "out.png").exists()
    about = read_archive(folder / "run.npz")[0]
    assert (about["level"], about["iteration"]) == kept
    assert "iterations 6 to 5" not in call("--resume", "{}/run.npz")
    np.testing.assert_array_equal(pixels(folder / "out.png"), picture)


def test_ctrl_c_in_the_last_iteration_leaves_it_at_that(folder, call, monkeypatch, handled):  # noqa: F811
    call(*LEVELS)
    picture = pixels(folder / "out.png")
    with monkeypatch.context() as patch:
        Impatience(patch, 2, 4)
        call(*RARELY)
    assert facts(folder / "out.png", "Result")["stop"] == "iterations"
    np.testing.assert_array_equal(pixels(folder / "out.png"), picture)
    assert not (folder / "run.npz").exists()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
def test_an_iteration_that_turns_out_long_is_broken_off(folder, call, monkeypatch, handled):  # noqa: F811
    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(interruption, "MOST_SECONDS", 1.0)
        Impatience(patch, 2, 3, pause=60.0)
        call(*RARELY, code=130)
    assert time.monotonic() - began < 30
    assert facts(folder / "out.png", "Result")["iterations"] == 3


def test_a_signal_that_belongs_to_one_held_back_does_not_disturb_what_follows(handled):
    with Postponement() as postponement:
        postponement.begin()
        postponement.iterated()
        signal.raise_signal(signal.SIGINT)
    assert postponement.asked
    signal.raise_signal(signal.SIGTERM)  # of the same closing terminal, while the best is being written


def test_signals_in_close_succession_are_not_dropped_for_ever(monkeypatch):
    handler, now = Interrupt(), [0.0]
    monkeypatch.setattr(interruption.time, "monotonic", lambda: now[0])
    own = []
    for step in range(5):  # of a key that is held down
        now[0] = 10 + 0.3 * step
        own.append(handler.note())
    assert own == [True, False, True, False, True]


def test_a_checkpoint_that_another_run_writes_meanwhile_is_told(folder, call, kill, monkeypatch):  # noqa: F811
    kill(7, *KEPT)
    later = (folder / "run.npz").read_bytes()
    (folder / "run.npz").unlink()
    kill(3, *KEPT)
    read = tools.stylize.__main__.read_checkpoint

    def read_before(path):
        found = read(path)
        path.write_bytes(later)
        return found

    monkeypatch.setattr(tools.stylize.__main__, "read_checkpoint", read_before)
    assert "has been written anew since it was read" in call("--resume", "{}/run.npz", code=2).splitlines()[-1]


def test_the_plot_of_a_run_that_went_on_has_all_iterations(folder, call, kill, monkeypatch):  # noqa: F811
    pytest.importorskip("matplotlib")
    kill(3, *WITH_MODEL, "--checkpoint", "{}/run.npz", "--checkpoint-every", 1, "--plot", "{}/losses.svg")
    drawn = []
    monkeypatch.setattr(tools.stylize.listeners, "plot_losses", lambda path, names, points, title: drawn.extend(points))
    call("--resume", "{}/run.npz")
    assert len(drawn) == 4
    assert [evaluations for evaluations, *_ in drawn] == sorted({evaluations for evaluations, *_ in drawn})


def test_what_does_not_touch_the_picture_may_be_given_anew(folder, call, kill):  # noqa: F811
    kill(3, *KEPT)
    (folder / "run.npz").rename(folder / "moved.npz")
    (folder / "photo.png").rename(folder / "holiday.png")
    call(
        "--resume", "{}/moved.npz", "{}/holiday.png", "{}/painting.png", "-o", "{}/elsewhere.png", "--threads", 1, "-q"
    )
    call("{}/holiday.png", *LEVELS[1:])
    np.testing.assert_array_equal(pixels(folder / "elsewhere.png"), pixels(folder / "out.png"))
    assert not (folder / "moved.npz").exists()


def test_a_log_that_is_gone_begins_anew_and_another_file_in_its_place_is_left(folder, call, kill):  # noqa: F811
    kill(3, *KEPT, "--log", "{}/run.jsonl")
    (folder / "run.jsonl").write_text("a diary, longer than any log would be\n" * 500)
    said = call("--resume", "{}/run.npz", "-q", code=2)
    assert said == f"stylize: '{folder}/run.jsonl' is not the log of that run: give another --log\n"
    assert (folder / "run.jsonl").read_text().startswith("a diary")
    (folder / "run.jsonl").unlink()
    call("--resume", "{}/run.npz", "-q")
    events = [json.loads(line)["event"] for line in (folder / "run.jsonl").read_text().splitlines()]
    assert events[:2] == ["start", "iteration"]
    assert events[-1] == "end"


@pytest.mark.parametrize("every", ["2", "0.000001s", "3600s"])
def test_checkpoints_come_after_iterations_or_seconds(folder, call, monkeypatch, every):  # noqa: F811
    written = []
    monkeypatch.setattr(
        tools.stylize.checkpoint, "write_archive", lambda path, about, arrays: written.append(about["iteration"])
    )
    call(*WITH_MODEL, "--checkpoint", "{}/run.npz", "--checkpoint-every", every)
    assert written == {"2": [0, 2, 4], "0.000001s": [0, 1, 2, 3, 4], "3600s": [0]}[every]


def test_a_disk_that_fills_leaves_the_last_checkpoint_and_the_run_goes_on(folder, call, kill, monkeypatch):  # noqa: F811
    call(*WITH_MODEL)
    picture, calls = pixels(folder / "out.png"), []

    def filling(path, about, arrays):
        calls.append(about["iteration"])
        if len(calls) > 2:
            with full_disk(2000):
                return write_archive(path, about, arrays)
        return write_archive(path, about, arrays)

    arguments = (*WITH_MODEL, "--checkpoint", "{}/run.npz", "--checkpoint-every", 1)
    with monkeypatch.context() as patch:
        patch.setattr(tools.stylize.checkpoint, "write_archive", filling)
        said = call(*arguments)
        assert said.count("stylize: checkpoint left out, the one before it is kept: cannot write ") == 1
        np.testing.assert_array_equal(pixels(folder / "out.png"), picture)
        calls.clear()
        kill(3, *arguments)
    assert read_archive(folder / "run.npz")[0]["iteration"] == 1
    assert not list(folder.glob(".unfinished-*"))
    call("--resume", "{}/run.npz")
    np.testing.assert_array_equal(pixels(folder / "out.png"), picture)


def test_a_run_that_cannot_be_kept_is_told_before_it_begins(folder, call, monkeypatch):  # noqa: F811
    assert scipy.optimize.Bounds  # in memory before there is no importing any more
    monkeypatch.setattr(engine.optimizers.setulb.importlib, "import_module", lambda name: object())
    check_solver.cache_clear()
    said = call(*KEPT, "--optimizer", "l-bfgs-b", code=2)
    check_solver.cache_clear()
    assert "this scipy's L-BFGS-B does not let its state be saved" in said.splitlines()[-1]
    assert not (folder / "out.png").exists()
    assert not (folder / "run.npz").exists()


# ---- what is wrong with a checkpoint ----


def changed_about(**changes):
    def change(path: Path) -> None:
        about, arrays = read_archive(path)
        write_archive(path, about | changes, arrays)

    return change


def changed_arrays(change):
    def changed(path: Path) -> None:
        about, arrays = read_archive(path)
        write_archive(path, about, change(arrays))

    return changed


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def turned(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)


def repainted(path: Path) -> None:
    Image.new("RGB", (40, 30)).save(path.with_name("painting.png"))


def other_model(path: Path) -> None:
    (path.with_name("model.onnx")).write_bytes((ROOT / "tools/models/draft.onnx").read_bytes())


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (Path.unlink, (), "there is no such file"),
        (cut, (), "it is no checkpoint of this program, or is damaged"),
        (turned, (), "it is no checkpoint of this program, or is damaged"),
        (lambda path: path.write_bytes(b"text"), (), "it is no checkpoint of this program, or is damaged"),
        (lambda path: np.savez(path, image=np.zeros(3)), (), "it is no checkpoint of this program, or is damaged"),
        (changed_about(program="another"), (), "is no checkpoint of this program"),
        (changed_about(format=1), (), "is a checkpoint of format 1, this program reads 3"),
        (changed_about(versions={"numpy": "1.0"}), (), "was made with numpy 1.0, this is "),
        (changed_about(level=7), (), "was made in other sizes"),
        (changed_about(points="many"), (), "is a checkpoint that is damaged"),
        (changed_about(iteration=4), (), "is a checkpoint that is damaged"),
        (changed_about(arguments={"content": "", "style": [], "output": ""}), (), "-o/--output: the name is empty"),
        (changed_arrays(lambda arrays: {}), (), "is a checkpoint that is damaged"),
        (changed_arrays(lambda arrays: arrays | {"products": arrays["best"]}), (), "does not fit the run"),
        (changed_arrays(lambda arrays: arrays | {"best": arrays["best"][:9]}), (), "does not fit the run"),
        (changed_arrays(lambda arrays: arrays | {"image": arrays["image"] * np.nan}), (), "does not fit the run"),
        (repainted, (), "a painting is not the one that '{}/run.npz' was made with: its content has changed"),
        (other_model, (), "the model is not the one that '{}/run.npz' was made with"),
        (None, ("{}/other.png",), "the photograph is not the one that '{}/run.npz' was made with"),
        (None, ("-s", 48), "was made with --size 64, this is 48: leave it out"),
        (None, ("--optimizer", "adam"), "was made with --optimizer l-bfgs, this is adam: leave it out"),
        (None, ("--again", "{}/out.png"), "use one of them"),
        (None, ("--checkpoint", "{}/painting.png"), "exists: go on from it with --resume, or remove it first"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told_in_one_line(folder, call, kill, change, given, message):  # noqa: F811
    kill(3, *KEPT)
    if change is not None:
        change(folder / "run.npz")
    before = sorted(folder.iterdir())
    said = call("--resume", "{}/run.npz", "-q", *given, code=2)
    assert said.count("\n") == 1, said
    assert message.replace("{}", str(folder)) in said
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*SMALL, "--checkpoint", "{}/missing/run.npz"), "missing' does not exist"),
        ((*SMALL, "--checkpoint", "{}/out.png"), "--checkpoint '{}/out.png' is also a picture's name"),
        ((*SMALL, "--checkpoint", "{}/a", "--log", "{}/a"), "--checkpoint '{}/a' is also --log"),
        ((*SMALL, "--checkpoint", "{}/model.onnx"), "exists: go on from it with --resume, or remove it first"),
        ((*SMALL, "--checkpoint", "{}/a", "--checkpoint-every", "often"), "'often' is not a whole number, nor seconds"),
        ((*SMALL, "--checkpoint", "{}/a", "--checkpoint-every", "0s"), "'0' is not a finite number above 0"),
        ((*SMALL, "--timelapse", "{}/a.gif"), "the suffix is '.gif', expected .webp or .png"),
        ((*SMALL, "--timelapse", "{}/out.png"), "--timelapse '{}/out.png' is also a picture's name"),
        ((*SMALL, "--summary", "{}/a.json"), "--summary is for several photographs"),
        (("--again", "{}/photo.png"), "has no settings of a picture by this program's stylize"),
        (("--again", "{}/model.onnx"), "model.onnx"),
        (("--resume", "{}/model.onnx"), "it is no checkpoint of this program, or is damaged"),
        (("--resume", "{}/photo.png"), "it is no checkpoint of this program, or is damaged"),
        (("--resume",), "expected one argument"),
    ],
)
def test_wrong_arguments_are_answered_in_one_line(folder, call, arguments, message):  # noqa: F811
    before = sorted(folder.iterdir())
    said = call(*arguments, code=2)
    assert said.count("\n") == 1, said
    assert message.replace("{}", str(folder)) in said
    assert sorted(folder.iterdir()) == before


def test_what_a_command_line_says_is_what_it_is_written_as():
    """But for --paper, whose meaning is written out, all arguments come back from what they are recorded as."""
    given = ["/a/photo.png", "/b/one.png", "/b/two.png", "-o", "/c/out.png", "--mask", "/m/1.png", "--keep", "/k.png"]
    given += ["--coarse-style", "/b/three.png"]
    given += ["--content-layers", "conv4_2:0.1", "--style-layers", "conv1_1,conv2_1:3", "--style-size", "picture"]
    given += [
        "-a",
        "0",
        "-b",
        "1e-05",
        "--seed",
        "7",
        "--checkpoint-every",
        "30s",
        "--record-paths",
        "--save-every",
        "9",
    ]
    parser = build_parser()
    arguments = vars(parser.parse_args(given))
    defaults = {name: parser.get_default(name) for name in arguments}
    assert {name: str(value) for name, value in vars(parser.parse_args(as_command(arguments, defaults))).items()} == {
        name: str(value) for name, value in arguments.items()
    }


# ---- a picture made again ----


def test_a_picture_is_made_again_from_its_own_settings(folder, call, monkeypatch):  # noqa: F811
    options = ("--style-layers", "conv1_1,conv3_1:0.3", "--init", "noise", "--seed", 3, "--optimizer", "sgd", "-n", 7)
    call(*WITH_MODEL, *options)
    call("--again", "{}/out.png")
    np.testing.assert_array_equal(pixels(folder / "out-again.png"), pixels(folder / "out.png"))
    assert facts(folder / "out-again.png", "Settings") == facts(folder / "out.png", "Settings")
    command = opened(folder / "out-again.png").text["Command"]
    assert "photo.png painting.png" in command
    assert "--seed=3" in command
    assert str(folder) not in command


def test_a_picture_is_not_written_over_by_the_one_made_from_it(folder, call):  # noqa: F811
    call(*WITH_MODEL, "-n", 1, "-q")
    before = (folder / "out.png").read_bytes()
    said = call("--again", "{}/out.png", "-o", "{}/out.png", "-s", 24, code=2)
    assert "would be written over by the picture made from it: give another -o" in said
    assert (folder / "out.png").read_bytes() == before


def test_what_is_given_counts_more_than_what_was_recorded(folder, call):  # noqa: F811
    call(*WITH_MODEL, "--seed", 3, "--init", "noise", "-a", 0.01)
    call("--again", "{}/out.png", "{}/other.png", "-s", 24, "-n", 2, "-o", "{}/new.jpg")
    text = json.loads(json.loads(opened(folder / "new.jpg").getexif()[0x010E])["Settings"])
    assert (text["content"], text["style"]) == ("other.png", ["painting.png"])
    assert (text["size"], text["iterations"], text["seed"]) == (24, 2, 3)
    # A quarter of the pixels: the balance of content and style stays as it was.
    assert text["content_weight"] == pytest.approx(0.04)


def test_the_papers_settings_are_those_of_a_picture_made_again_with_them(folder, call):  # noqa: F811
    call(*WITH_MODEL, "-n", 7)
    call("--again", "{}/out.png", "--paper", "-n", 2, "-q")
    settings = facts(folder / "out-again.png", "Settings")
    assert {name: settings[name] for name in PAPER} == json.loads(json.dumps(PAPER | {"iterations": 2}))
    # And where a run by them goes on with them.
    call("{}/photo.png", "{}/painting.png", "-o", "{}/paper.png", "-m", "{}/model.onnx", "-s", 24, "--paper", "-n", 3)
    picture = pixels(folder / "paper.png")
    archive = ("--checkpoint", "{}/paper.npz", "--checkpoint-every", 1)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 2)
        call(*WITH_MODEL, "-s", 24, "--paper", "-n", 3, "-o", "{}/paper.png", *archive, "-q", code=130)
    call("--resume", "{}/paper.npz", "--paper", "-n", 3, "-q")
    np.testing.assert_array_equal(pixels(folder / "paper.png"), picture)


def test_another_size_has_as_many_sizes_on_the_way_as_suit_it(folder, call):  # noqa: F811
    call(*SMALL[:3], "{}/out.png", "-m", "{}/model.onnx", "-s", 48, "-n", 1, "-q")
    assert facts(folder / "out.png", "Settings")["levels"] == 1
    call("--again", "{}/out.png", "-s", 400, "-q")
    assert facts(folder / "out-again.png", "Settings")["levels"] == 3
    call("--again", "{}/out-again.png", "-s", 48, "-o", "{}/small.png", "-q")
    assert facts(folder / "small.png", "Settings")["levels"] == 1
    call("--again", "{}/out.png", "-s", 64, "--levels", 2, "-o", "{}/two.png", "-q")
    assert facts(folder / "two.png", "Settings")["levels"] == 2


def test_another_runs_checkpoint_is_left_alone(folder, call, kill):  # noqa: F811
    kill(3, *KEPT)
    (folder / "other.npz").write_bytes(b"another run's")
    said = call("--resume", "{}/run.npz", "--checkpoint", "{}/other.npz", "-q", code=2)
    assert "exists: go on from it with --resume" in said
    assert (folder / "other.npz").read_bytes() == b"another run's"


def test_files_are_found_in_the_present_folder_and_told_by_their_hashes(folder, call, monkeypatch, tmp_path):  # noqa: F811
    call(*WITH_MODEL)
    (folder / "pictures").mkdir()
    (folder / "out.png").rename(folder / "pictures/out.png")
    said = call("--again", "{}/pictures/out.png", code=2)
    assert said == (
        "stylize: the photograph 'photo.png' is neither beside out.png nor in the present folder: give it, "
        "--again out.png PHOTOGRAPH\n"
    )
    monkeypatch.chdir(folder)
    call("--again", "{}/pictures/out.png", "-q")
    Image.new("RGB", (48, 36)).save(folder / "pictures/photo.png")  # another one of that name is passed over
    call("--again", "{}/pictures/out.png", "-q")
    Image.new("RGB", (48, 36)).save(folder / "photo.png")
    said = call("--again", "{}/pictures/out.png", code=2)
    assert said.count("\n") == 1
    assert "is not what out.png was made from: give it, --again out.png PHOTOGRAPH" in said


def test_another_model_of_the_same_name_is_told(folder, call):  # noqa: F811
    call(*WITH_MODEL)
    other_model(folder / "run.npz")
    said = call("--again", "{}/out.png", "-q", code=2)
    assert said.count("\n") == 1
    assert "model.onnx" in said
    call("--again", "{}/out.png", "-q", "-m", "{}/model.onnx")


def test_with_recorded_paths_a_picture_finds_its_files_from_anywhere(folder, call):  # noqa: F811
    call(*WITH_MODEL, "--record-paths")
    (folder / "away").mkdir()
    (folder / "out.png").rename(folder / "away/out.png")
    call("--again", "{}/away/out.png", "-q")
    assert (folder / "away/out-again.png").exists()


# ---- timelapse ----


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_a_timelapse_shows_all_sizes_and_holds_its_ends(folder, call, suffix):  # noqa: F811
    call(*LEVELS, "--save-every", 2, "--timelapse", f"{{}}/lapse{suffix}")
    with Image.open(folder / f"lapse{suffix}") as lapse:
        times, frames = [], []
        for number in range(lapse.n_frames):
            lapse.seek(number)
            frames.append(np.asarray(lapse.convert("RGB")).astype(float))
            times.append(lapse.info["duration"])
    assert frames[0].shape == (48, 64, 3)
    # A WebP has frames that hardly differ but once, for longer.
    assert len(frames) == 1 + 2 + 2 + 1 or (suffix == ".webp" and 3 <= len(frames) < 6)
    assert sum(times) == pytest.approx(9000, abs=10)
    assert times[0] >= 1000
    assert times[-1] >= 2000
    last = np.abs(frames[-1] - pixels(folder / "out.png"))
    assert last.max() == 0 if suffix == ".png" else last.mean() < 10


def test_a_long_timelapse_is_thinned_out(folder, call, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tools.stylize.timelapse, "MOST_FRAMES", 6)
    call(*WITH_MODEL, "-n", 20, "--save-every", 1, "--timelapse", "{}/lapse.webp")
    with Image.open(folder / "lapse.webp") as lapse:
        assert 4 <= lapse.n_frames <= 7


def test_a_timelapse_that_cannot_be_written_does_not_cost_the_picture(folder, call, monkeypatch):  # noqa: F811
    write = tools.stylize.timelapse.write_animation

    def full(*arguments):
        with full_disk(100):
            write(*arguments)

    monkeypatch.setattr(tools.stylize.timelapse, "write_animation", full)
    said = call(*WITH_MODEL, "--timelapse", "{}/lapse.webp")
    assert "stylize: timelapse left out: cannot write" in said
    assert (folder / "out.png").exists()
    assert not (folder / "lapse.webp").exists()


# ---- kill -9 ----


def started(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tools.stylize", *(str(part).replace("{}", str(folder)) for part in arguments)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finished(process: subprocess.Popen[bytes]) -> str:
    said = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, said
    return said


def inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def killed_and_resumed(folder: Path, method: str, moments: random.Random) -> list[tuple[int, int]]:
    """Kill a run by SIGKILL up to three times, and check that nothing is lost.

    Returns the size and the iteration that the checkpoint had at each kill.
    """
    run = (*LEVELS, "-n", 40, "--optimizer", method, "-q", "--checkpoint-every", 1)
    finished(started(folder, *run, "-o", "{}/whole.png"))
    path, kills = folder / "run.npz", []
    process = started(folder, *run, "--checkpoint", "{}/run.npz")
    while len(kills) < 3:
        before = inode(path)
        while process.poll() is None and inode(path) in (None, before):
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.communicate()
        if not path.exists():  # the picture had been written
            break
        about, _ = read_archive(path)
        kills.append((about["level"], about["iteration"]))
        process = started(folder, "--resume", "{}/run.npz", "-q", "--threads", moments.choice((1, 2)))
    else:
        finished(process)
    np.testing.assert_array_equal(pixels(folder / "out.png"), pixels(folder / "whole.png"))
    assert not list(folder.glob(".unfinished-*"))
    assert not (folder / "run.npz").exists()
    (folder / "out.png").unlink()
    return kills


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_killed_again_and_again_comes_to_the_same_bits(folder, method):
    assert killed_and_resumed(folder, method, random.Random(0))


def test_the_archive_module_writes_what_numpy_reads(folder, call, kill):  # noqa: F811
    kill(2, *KEPT)
    with np.load(folder / "run.npz", allow_pickle=False) as file:
        assert archive.ABOUT in file
        assert file["counts"].tolist()[0] == 2
