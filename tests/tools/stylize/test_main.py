from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tools.stylize.picture
import tools.stylize.preview
import tools.stylize.task
from engine.color import match_colors
from engine.load import load_network
from engine.multiscale import stylize_coarse_to_fine
from engine.objective import Objective
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from engine.reconstruct import psnr
from engine.stylize import Job, Settings, first_evaluation, stylize
from tests.engine import models as form_models
from tests.engine.onnx import test_forms
from tests.tools.calling import called
from tests.tools.disk import full_disk
from tools.cli.options import PAPER, Options, levels_of
from tools.media.files import Lines, unfinished
from tools.media.images import load_image
from tools.media.picture import Picture, resize
from tools.models.cache import DRAFT_FILE
from tools.models.random_vgg import random_vgg
from tools.stylize import listeners
from tools.stylize.__main__ import main

CAFFE = preprocessing_metadata(PREPROCESSING["caffe"])


@pytest.fixture
def call(folder, capsys) -> Callable[..., str]:
    """Run a command line as a person does, ``{}`` standing for the folder; return what it says."""

    def call(*arguments: object, code: int = 0) -> str:
        output, errors = called(main, capsys, [str(part).replace("{}", str(folder)) for part in arguments], code)
        assert output == ""
        return errors

    return call


SMALL = ("{}/photo.png", "{}/painting.png", "-o", "{}/out.png", "-s", 48, "-n", 4)
WITH_MODEL = (*SMALL, "-m", "{}/model.onnx")


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def pixels(path: Path) -> np.ndarray:
    return np.asarray(opened(path).convert("RGB"))


def facts(path: Path, name: str) -> Any:
    return json.loads(opened(path).text[name])


# ---- the picture ----


def test_the_picture_is_what_the_engine_makes_of_the_files(folder, call):
    call(*WITH_MODEL, "--init", "content", "-a", 0.01, "--threads", 1)
    network = load_network(folder / "model.onnx", threads=1)
    photo = load_image(folder / "photo.png", long_side=48).pixels
    painting = load_image(folder / "painting.png", long_side=48).pixels
    result = stylize(network, photo, painting, Settings(init="content", content_weight=0.01, iterations=4))
    assert result.value < result.initial_value
    np.testing.assert_array_equal(pixels(folder / "out.png"), np.rint(result.image).astype(np.uint8))


@pytest.mark.parametrize("init", ["noise", "content", "style", "{}/other.png"])
def test_the_same_command_gives_the_same_pixels_at_any_number_of_threads(folder, call, init):
    pictures = []
    for threads in (1, 2, 3):
        call(*WITH_MODEL, "--init", init, "--threads", threads)
        pictures.append(pixels(folder / "out.png"))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_the_seed_changes_the_noise(folder, call):
    call(*WITH_MODEL, "--init", "noise")
    first = pixels(folder / "out.png")
    call(*WITH_MODEL, "--init", "noise", "--seed", 1)
    assert (first != pixels(folder / "out.png")).any()


@pytest.mark.parametrize("size", [48, 40, 33])
def test_the_long_side_is_as_asked_for(folder, call, size):
    call(*WITH_MODEL, "-s", size)
    assert opened(folder / "out.png").size == (size, round(size * 36 / 48))


@pytest.mark.parametrize("place", [0, 1, "--init"])
def test_an_address_in_place_of_a_picture_is_named_as_one(call, place):
    address = "https://example.org/art/star.jpg"
    arguments = [*WITH_MODEL, "--init", address] if place == "--init" else list(WITH_MODEL)
    if place != "--init":
        arguments[place] = address
    said = call(*arguments, code=2)
    assert f"cannot read '{address}': it is an address, not a file: download the picture first" in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_the_weights_of_two_paintings_count(folder, call):
    paintings = ("{}/photo.png", "{}/painting.png", "{}/other.png", *WITH_MODEL[2:], "--init", "content")
    pictures = []
    for blend in ("1,1", "2,2", "1,0", "0,1"):
        call(*paintings, "--blend", blend)
        pictures.append(pixels(folder / "out.png"))
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (pictures[2] != pictures[0]).any()
    assert (pictures[2] != pictures[3]).any()


def test_transparency_is_kept(folder, call):
    photo = opened(folder / "photo.png")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save(folder / "photo.png")
    call(*WITH_MODEL)
    np.testing.assert_array_equal(opened(folder / "out.png").getchannel("A"), photo.getchannel("A"))


# ---- what is said and recorded ----


def test_the_picture_carries_its_settings_and_losses(folder, call):
    said = call(*WITH_MODEL, "--style-layers", "conv1_1,conv2_1:3")
    settings, result = facts(folder / "out.png", "Settings"), facts(folder / "out.png", "Result")
    assert settings["size"] == 48
    assert settings["style_layers"] == {"conv1_1": 0.5, "conv2_1": 3.0}
    assert result["iterations"] == 4
    assert result["loss"] < result["initial_loss"]
    assert f"loss {result['initial_loss']:.4g} -> {result['loss']:.4g}" in said


def test_the_log_has_a_line_for_each_iteration_and_the_shares_add_up(folder, call):
    call(*WITH_MODEL, "--log", "{}/run.jsonl", "--report-every", 2)
    entries = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in entries] == [
        "start", "shares", "iteration", "iteration", "shares", "iteration", "iteration", "shares", "end",
    ]  # fmt: skip
    for entry in entries:
        if entry["event"] == "shares":
            for kind in ("loss_shares", "gradient_shares"):
                total = sum(share for layers in entry[kind].values() for share in layers.values())
                assert total == pytest.approx(1)


def test_the_shares_at_the_start_are_those_of_the_first_size(folder, call):
    said = call(*WITH_MODEL, "-s", 96, "--levels", 3, "--log", "{}/run.jsonl")
    entries = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in entries if entry["event"] != "iteration"] == [
        *("start", "shares", "level", "level", "shares", "end"),
    ]
    assert [line.split(":")[1] for line in said.splitlines() if "of which" in line] == [" start", " end"]


def drawn_lines(text: str) -> list[str]:
    """Return the paths of the lines in a plot, longest first."""
    return sorted(re.findall(r'id="line2d_\d+">\s*<path d="([^"]*)" clip-path', text), key=len, reverse=True)


@pytest.mark.slow
def test_the_plot_shows_the_loss_and_each_term_of_all_iterations(folder, call):
    pytest.importorskip("matplotlib")
    said = call(*WITH_MODEL, "--plot", "{}/losses.svg", "--style-layers", "conv1_1,conv2_1")
    assert "losses.svg" in said.splitlines()[-1]
    lines = drawn_lines((folder / "losses.svg").read_text("utf-8"))
    assert [line.count("\n") for line in lines[:4]] == [4, 4, 4, 4]
    call(*WITH_MODEL, "--plot", "{}/losses.png", "-q")
    assert opened(folder / "losses.png").width > 500


@pytest.mark.slow
def test_the_picture_does_not_depend_on_the_plot(folder, call):
    pytest.importorskip("matplotlib")
    call(*WITH_MODEL)
    plain = pixels(folder / "out.png")
    call(*WITH_MODEL, "--plot", "{}/losses.svg")
    np.testing.assert_array_equal(pixels(folder / "out.png"), plain)


def test_without_matplotlib_a_plot_is_refused_before_the_run(folder, call, monkeypatch):
    monkeypatch.setattr(tools.media.plot.importlib.util, "find_spec", lambda name: None)
    said = call(*WITH_MODEL, "--plot", "{}/losses.svg", code=2)
    assert said == "stylize: plots are drawn with matplotlib, which is missing: pip install '.[plot]'\n"
    assert not (folder / "out.png").exists()


def test_snapshots_are_called_after_the_picture(folder, call):
    call(*WITH_MODEL, "--save-every", 2)
    assert sorted(path.name for path in folder.glob("out*")) == ["out-2.png", "out.png"]


def test_quiet_says_nothing(folder, call):
    assert call(*WITH_MODEL, "-q") == ""
    assert call(*SMALL, "-q", "--preview") == ""


# ---- being interrupted ----


def interrupt(monkeypatch, after: int) -> None:
    """Press Ctrl-C behind the given iteration of the picture."""
    follow = listeners.Report.iteration

    def iteration(self, state):
        follow(self, state)
        if state.iteration == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(listeners.Report, "iteration", iteration)


def test_an_interrupted_run_keeps_the_best_picture(folder, call, monkeypatch):
    interrupt(monkeypatch, 2)
    call(*WITH_MODEL, code=130)
    assert facts(folder / "out.png", "Result")["iterations"] == 2


def test_interrupted_before_the_first_iteration_nothing_is_written_and_that_is_said(folder, call, monkeypatch):
    before = sorted(folder.iterdir())

    def stopped(*arguments):
        raise KeyboardInterrupt

    for name in ("task.load_image", "task.load", "task.rendering", "picture.seconds_of_evaluation"):
        with monkeypatch.context() as patch:
            patch.setattr(f"tools.stylize.{name}", stopped)
            said = call(*WITH_MODEL, "--log", "{}/run.jsonl", code=130)
        assert said.splitlines()[-1] == f"stylize: interrupted, {folder}/out.png was not written"
        assert sorted(folder.iterdir()) == before
    # In the first iteration itself: the second evaluation.
    evaluate, calls = Objective.begin, []

    def interrupted(self, image):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(self, image)

    monkeypatch.setattr(Objective, "begin", interrupted)
    said = call(*WITH_MODEL, code=130)
    assert said.splitlines()[-1] == f"stylize: interrupted, {folder}/out.png was not written"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("listener", "name"),
    [(listeners.Report, "_report"), (listeners.Pictures, "_save"), (listeners.Plot, "end")],
)
def test_a_picture_that_is_made_is_not_lost_to_an_interruption_at_the_end(folder, call, monkeypatch, listener, name):
    finish = getattr(listener, name)
    calls = []

    def interrupted(self, *arguments):
        if not arguments or arguments[0] != "start":
            calls.append(1)
            if len(calls) == 1:
                raise KeyboardInterrupt
        return finish(self, *arguments)

    monkeypatch.setattr(listener, name, interrupted)
    said = call(*WITH_MODEL, code=130)
    assert said.splitlines()[-1] == f"stylize: interrupted at the end; wrote {folder}/out.png"
    assert facts(folder / "out.png", "Result")["iterations"] == 4


@pytest.mark.slow
def test_an_interrupted_run_draws_the_losses_so_far(folder, call, monkeypatch):
    pytest.importorskip("matplotlib")
    interrupt(monkeypatch, 3)
    call(*WITH_MODEL, "--plot", "{}/losses.svg", code=130)
    assert drawn_lines((folder / "losses.svg").read_text("utf-8"))[0].count("\n") == 3


# ---- which model ----


def test_without_a_fetched_network_the_draft_is_used_and_the_way_to_the_real_one_said_in_one_line(folder, call):
    said = call(*SMALL)
    first = said.splitlines()[0]
    assert "draft network" in first
    assert first.endswith("python -m tools.models fetch vgg19")
    assert facts(folder / "out.png", "Settings")["model"] == "draft"
    named = call(*SMALL, "-m", "draft")
    assert "fetch vgg19" not in named


def test_a_fetched_network_is_the_default(folder, call):
    cache = folder / "caches" / "neural-style-by-hand"
    cache.mkdir(parents=True)
    (cache / "vgg19.onnx").write_bytes((folder / "model.onnx").read_bytes())
    said = call(*SMALL)
    assert "draft" not in said
    assert facts(folder / "out.png", "Settings")["model"] == "vgg19"


def test_the_draft_network_has_the_papers_layers_and_is_small():
    network = load_network(DRAFT_FILE)
    assert network.layers[0] == "conv1_1"
    assert network.layers[-1] == "conv5_1"
    assert DRAFT_FILE.stat().st_size <= 2_500_000


# ---- the defaults, and the paper's settings instead ----


@pytest.mark.slow
def test_paper_is_what_the_paper_says(folder, call):
    call(*WITH_MODEL, "--paper")
    found = facts(folder / "out.png", "Settings")
    said = PAPER | {"iterations": 4}
    assert {name: tuple(one) if isinstance(one := found[name], list) else one for name in PAPER} == said
    network = load_network(folder / "model.onnx")
    photo = load_image(folder / "photo.png", long_side=48).pixels
    painting = resize(load_image(folder / "painting.png"), *photo.shape[:2]).pixels
    settings = Settings(init="noise", optimizer="l-bfgs-b", content_weight=1e-3, iterations=4)
    made = np.rint(stylize(network, photo, painting, settings).image).astype(np.uint8)
    np.testing.assert_array_equal(pixels(folder / "out.png"), made)


@pytest.mark.parametrize("place", [0, 99])
def test_other_options_count_beside_paper_wherever_they_stand(folder, call, place):
    arguments = [*WITH_MODEL, "--init", "content", "-a", "0.5"]
    arguments.insert(min(place, len(arguments)), "--paper")
    call(*arguments)
    found = facts(folder / "out.png", "Settings")
    assert (found["init"], found["content_weight"], found["optimizer"]) == ("content", 0.5, "l-bfgs-b")


@pytest.mark.parametrize(("size", "levels"), [(48, 1), (191, 1), (192, 2), (383, 2), (384, 3), (512, 3), (2048, 3)])
def test_how_many_sizes_there_are_follows_the_size(size, levels):
    assert levels_of(Options(size=size)) == levels
    assert levels_of(Options(size=size, levels=5)) == 5


def test_there_are_fewer_sizes_where_the_first_would_be_too_small_for_the_network(folder, call):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (36, 400, 3), dtype=np.uint8)).save(folder / "wide.png")
    arguments = ("{}/wide.png", *WITH_MODEL[1:], "-s", 400, "-n", 1)
    call(*arguments)
    assert facts(folder / "out.png", "Settings")["levels"] == 2
    assert "too small" in call(*arguments, "--levels", 3, code=2)


@pytest.mark.parametrize("size", [32, 48, 97])
def test_the_content_weight_keeps_its_balance_at_any_size(folder, call, size):
    """The content loss is a sum over the pixels, the style loss is not."""
    call(*WITH_MODEL, "-s", size, "-n", 1)
    recommended = load_network(folder / "model.onnx").content_weight
    settings = facts(folder / "out.png", "Settings")
    assert settings["content_weight"] == pytest.approx(recommended * (512 / size) ** 2)


@pytest.mark.slow
def test_a_content_weight_that_is_a_guess_is_said_to_be_one(folder, call):
    guess = "the content weight is a guess as for the original VGG-19; find one that suits with: python -m tools.sweep"
    assert guess in call(*WITH_MODEL)
    assert "guess" not in call(*WITH_MODEL, "-a", "1e-5")
    assert "guess" not in call(*SMALL)  # the draft network's is known
    assert call(*WITH_MODEL, "-q") == ""


# ---- the preview ----


def test_a_preview_is_written_before_the_picture(folder, call, monkeypatch):
    monkeypatch.setattr(tools.stylize.preview, "LONG_SIDE", 40)
    said = call(*WITH_MODEL, "--preview")
    assert opened(folder / "out-preview.png").size == (40, 30)
    assert opened(folder / "out.png").size == (48, 36)
    assert said.index("out-preview.png") < said.index("out.png")
    assert "draft network, 40x30 pixels, 4 iterations" in said


def test_a_preview_that_cannot_be_made_does_not_cost_the_picture(folder, call):
    """The draft network lacks one of the two layers that two scales need."""
    layers = ("--style-layers", "conv1_1,conv5_4", "--coarse-style", "{}/other.png")
    said = call(*WITH_MODEL, *layers, "--preview")
    assert "no preview: two scales of style need two style layers at least" in said
    assert not (folder / "out-preview.png").exists()
    assert (folder / "out.png").exists()


def test_the_preview_of_a_tile_is_a_tile(folder, call, monkeypatch):
    monkeypatch.setattr(tools.stylize.preview, "LONG_SIDE", 40)
    said = call(*WITH_MODEL, "--preview", "--tile")
    width, height = opened(folder / "out-preview.png").size
    assert f"draft network, {width}x{height} pixels" in said
    assert (width % 16, height % 16) == (0, 0)


def test_the_picture_does_not_depend_on_its_preview(folder, call):
    call(*WITH_MODEL)
    plain = pixels(folder / "out.png")
    call(*WITH_MODEL, "--preview")
    np.testing.assert_array_equal(pixels(folder / "out.png"), plain)


def test_a_preview_takes_the_same_turn_of_the_content_weight(folder, call):
    """Twice what is recommended for the model is shown as twice what is recommended for the draft."""
    recommended = load_network(folder / "model.onnx").content_weight
    call(*WITH_MODEL, "--preview", "-a", 2 * recommended)
    settings = facts(folder / "out-preview.png", "Settings")
    assert settings["content_weight"] == pytest.approx(2 * load_network(DRAFT_FILE).content_weight)


def test_a_smaller_preview_has_more_content_weight_in_proportion_to_its_pixels(folder, call, monkeypatch):
    monkeypatch.setattr(tools.stylize.preview, "LONG_SIDE", 24)
    call(*WITH_MODEL, "--preview")
    settings = facts(folder / "out-preview.png", "Settings")
    assert settings["size"] == 24
    assert settings["content_weight"] == pytest.approx((512 / 24) ** 2 * load_network(DRAFT_FILE).content_weight)
    call(*WITH_MODEL, "--preview", "-a", "1e-5")
    share = 1e-5 / load_network(folder / "model.onnx").content_weight
    settings = facts(folder / "out-preview.png", "Settings")
    assert settings["content_weight"] == pytest.approx(4 * share * load_network(DRAFT_FILE).content_weight)


def test_a_preview_leaves_out_layers_that_the_draft_network_lacks(folder, call):
    call(*WITH_MODEL, "--preview", "--style-layers", "conv1_2:2,conv5_2", "--content-layers", "conv5_4", "-s", 48)
    settings = facts(folder / "out-preview.png", "Settings")
    assert settings["style_layers"] == {"conv1_2": 2.0}
    assert settings["content_layers"] == ["conv4_2"]


@pytest.mark.parametrize("init", ["style", "{}/other.png"])
def test_a_preview_begins_with_the_same_picture(folder, call, init):
    call(*WITH_MODEL, "--preview", "--init", init, "-n", 1)
    assert (folder / "out-preview.png").is_file()


def test_an_interrupted_preview_is_written_and_nothing_else(folder, call, monkeypatch):
    def stopped(self, state):
        raise KeyboardInterrupt

    monkeypatch.setattr(tools.stylize.preview.Bar, "iteration", stopped)
    said = call(*WITH_MODEL, "--preview", code=130)
    assert "interrupted, so there is no picture" in said
    assert sorted(path.name for path in folder.glob("out*")) == ["out-preview.png"]


@pytest.mark.slow
def test_a_preview_that_would_be_the_picture_itself_is_left_out_and_that_is_said(folder, call, monkeypatch):
    said = call(*SMALL, "--preview")
    assert "no preview: the picture itself is by the draft network" in said
    assert sorted(path.name for path in folder.glob("out*")) == ["out.png"]
    monkeypatch.setattr(tools.stylize.preview, "LONG_SIDE", 40)
    call(*SMALL, "--preview")
    assert sorted(path.name for path in folder.glob("out*")) == ["out-preview.png", "out.png"]


# ---- a log, and a full disk ----


def test_a_log_that_cannot_begin_stops_the_run_and_one_that_breaks_off_does_not(folder, call, monkeypatch):
    write = Lines.write

    def first_fails(self, line):
        with full_disk(100):
            write(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(Lines, "write", first_fails)
        said = call(*WITH_MODEL, "--log", "{}/run.jsonl", code=2)
    assert said.splitlines()[-1].startswith(f"stylize: cannot write '{folder}/run.jsonl': ")
    assert not (folder / "run.jsonl").exists()
    call(*WITH_MODEL, "--log", "{}/run.jsonl", "-q")
    whole = (folder / "run.jsonl").read_bytes()

    def last_two_fail(self, line):
        with full_disk(len(whole) // 2):
            write(self, line)

    monkeypatch.setattr(Lines, "write", last_two_fail)
    said = call(*WITH_MODEL, "--log", "{}/run.jsonl")
    assert said.count("going on without a log") == 1
    assert "wrote" in said.splitlines()[-1]
    lines = (folder / "run.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines[:3]] == ["start", "shares", "iteration"]
    assert 3 <= len(lines) < whole.count(b"\n")


def test_a_picture_that_will_not_fit_on_the_disk_is_told_before_the_run(folder, call, monkeypatch):
    before = sorted(folder.iterdir())
    monkeypatch.setattr(tools.stylize.picture, "coarse_to_fine", None)
    with full_disk(2000):
        said = call(*WITH_MODEL, "-q", code=2)
    assert re.fullmatch(rf"stylize: cannot write '{folder}/out\.png': its disk has no 2\d\.\d kB for it, .*\n", said)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("levels", [1, 2])
def test_a_picture_that_cannot_be_written_where_asked_is_saved_where_it_can_be(folder, call, monkeypatch, levels):
    """The folder is gone when the run ends; of two levels, the run is interrupted after the first."""
    (folder / "there").mkdir()
    (folder / "other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "other"))
    start = listeners.Report.start

    def gone(self, job):
        shutil.rmtree(folder / "there")
        if levels == 2:
            raise KeyboardInterrupt
        start(self, job)

    monkeypatch.setattr(listeners.Report, "start", gone)
    arguments = (*WITH_MODEL, "-s", 64, "--levels", levels, "-o", "{}/there/out.png")
    said = call(*arguments, code=2).splitlines()[-1]
    (saved,) = (folder / "other").glob("out-*.png")
    assert said.startswith(f"stylize: cannot write '{folder}/there/out.png': ")
    assert said.endswith(f"; the picture is in '{saved}' instead")
    assert opened(saved).size == (64, 48)


def test_snapshots_on_a_full_disk_do_not_cost_the_picture(folder, call, monkeypatch):
    """The disk is full from the first snapshot on, but for what is kept for the picture."""
    save = listeners.save_image

    def full(path, *arguments):
        with full_disk(100):
            save(path, *arguments)

    monkeypatch.setattr(tools.stylize.listeners, "save_image", full)
    said = call(*WITH_MODEL, "-n", 4, "--save-every", 2)
    assert "stylize: snapshot left out: cannot write" in said
    assert sorted(path.name for path in folder.glob("out*")) == ["out.png"]


def test_what_a_killed_run_left_unfinished_is_removed_by_the_next(folder, call):
    (folder / ".unfinished-abc.png").write_bytes(b"half of a picture")
    with unfinished(folder / "another.png") as (_, in_use):
        call(*WITH_MODEL)
        assert sorted(folder.glob(".unfinished-*")) == [in_use]


# ---- what is said of what was given ----


@pytest.mark.parametrize(
    ("given", "said", "unsaid"),
    [
        (("-a", 1e30), "so change -a or -b, or begin elsewhere (--init)", "l-bfgs-b"),
        (("-a", 1e30, "--optimizer", "adam"), "try another --learning-rate, or --optimizer l-bfgs", "change -a"),
        (("--save-every", 4), "--save-every 4 writes nothing: there are 4 iterations", "snapshot"),
        (("--learning-rate", 3), "--learning-rate does nothing", "never fell"),
    ],
)
def test_advice_is_something_else_than_what_is_in_use(folder, call, given, said, unsaid):
    text = call(*WITH_MODEL, *given)
    assert said in text
    assert unsaid not in text


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        (("-s", 10, "--levels", 1), "choose a larger --size"),
        (("--style-size", 4, "--levels", 1), "choose a larger --style-size"),
        (("--levels", 9), "give at most --levels 2"),
    ],
)
def test_a_size_that_is_too_small_comes_with_a_remedy(folder, call, given, remedy):
    assert call(*WITH_MODEL, *given, code=2).endswith(f"; {remedy}\n")


# ---- wrong input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{}/photo.png",), "STYLE"),
        (("{}/photo.png", "{}/painting.png"), "-o/--output"),
        ((*SMALL, "-m", "vgg91"), "unknown model 'vgg91'; did you mean 'vgg19'"),
        ((*SMALL, "-m", "drft"), "unknown model 'drft'; did you mean 'draft'"),
        ((*SMALL, "-m", "vgg19"), "not in the cache, fetch it with: python -m tools.models fetch vgg19"),
        ((*SMALL, "-m", "{}/photo.png"), "photo.png"),
        (("{}/missing.png", *SMALL[1:]), "missing.png"),
        ((SMALL[0], "{}/model.onnx", *SMALL[2:]), "model.onnx"),
        ((*SMALL[:2], "-o", "{}/out.txt"), "out.txt"),
        ((*SMALL[:2], "-o", "{}/missing/out.png"), "does not exist"),
        ((*SMALL[:2], "-o", "{}"), "it is a folder, give the name of a file such as '"),
        (("{}/missing/", SMALL[1], "-o", "{}/made"), "missing': there is no such file"),
        ((*SMALL, "-a", 0, "-b", 0), "nothing to optimize: all weights are zero"),
        (
            (*SMALL[:2], "-o", "{}/out.webp", "-s", 16384),
            "WEBP holds 16383 pixels a side at most, of the picture's 16384: choose a .png or a .tif",
        ),
        ((*SMALL, "--learning", 3), "unrecognized arguments: --learning 3"),
        ((*SMALL[:2], "-o", "{}/photo.png"), "is an input, it would be overwritten"),
        (("{}/out-preview.png", *SMALL[1:], "--preview"), "is an input, it would be overwritten"),
        ((*SMALL, "--log", "{}/out-preview.png", "--preview"), "is also a picture's name"),
        ((*SMALL, "--log", "{}/out.png"), "is also a picture's name"),
        ((*SMALL, "--plot", "{}/out.png"), "is also a picture's name"),
        ((*SMALL, "--plot", "{}/out-2.png", "--save-every", 2), "is also a picture's name"),
        ((*SMALL, "--plot", "{}/photo.png"), "is an input, it would be overwritten"),
        ((*SMALL, "--plot", "{}/a.svg", "--log", "{}/a.svg"), "--log and --plot are both"),
        ((*SMALL, "--plot", "{}/losses.pdf"), "the suffix is '.pdf', expected .svg or .png"),
        ((*SMALL, "--plot", "{}/missing/losses.svg"), "does not exist"),
        ((*SMALL, "--init", "nose"), "unknown init 'nose'; did you mean 'noise'"),
        ((*SMALL, "--optimizer", "lbfgs"), "unknown optimizer 'lbfgs'; did you mean 'l-bfgs'"),
        ((*SMALL, "--pooling", "avg"), "unknown pooling 'avg'"),
        ((*SMALL, "--blend", "1,2"), "--blend has 2 weights for one painting"),
        ((*SMALL, "--style-layers", "conv9_1"), "unknown layer 'conv9_1'; did you mean 'conv5_1'"),
        (
            (*SMALL, "-m", "{}/short.onnx"),
            "the model has no conv4_2, of the default --content-layers: name others, out of conv1_1, conv1_2, conv2_1",
        ),
        (
            (*SMALL, "-m", "{}/short.onnx", "--content-layers", "conv2_1"),
            "the model has no conv4_1, of the default --style-layers: name others, out of conv1_1",
        ),
        ((*SMALL, "-m", "{}/short.onnx", "--content-layers", "conv4_2"), "unknown layer 'conv4_2'"),
        ((SMALL[0], "{}", *SMALL[2:]), "it is a directory, give an image file"),
        ((*SMALL[:2], "{}", *SMALL[2:]), "it is a directory, give an image file"),
        (("{}", *SMALL[1:]), "several photographs are written to a folder: give one for -o, not "),
        ((*SMALL, "--log", "{}/missing/run.jsonl"), "missing' does not exist"),
        ((*SMALL, "--log", "{}"), "it is a directory, give a file name"),
        ((*SMALL, "--style-layers", "conv1_1,,"), "empty layer name"),
        ((*SMALL, "--style-layers", "conv1_1,conv1_1"), "named twice"),
        ((*SMALL, "-a", "-1"), "not a finite number of at least 0"),
        ((*SMALL, "-a", "0", "-b", "0"), "zero"),
        ((*SMALL, "-s", "0"), "'0' is not at least 1"),
        ((*SMALL, "-s", "8"), "8x6"),
        ((*SMALL, "-n", "many"), "'many' is not a whole number"),
        ((*SMALL, "-n", "9" * 23), "is more than 1,000,000,000"),
        ((*SMALL, "-a", "1e308"), "is not finite: it began at"),
        ((*SMALL, "-a", "0", "-b", "1e-320"), "the weights are too small"),
        ((*SMALL, "--history", "100000"), "--history must be at most"),
        ((*SMALL, "--device", "cuda"), "cuda"),
    ],
)
def test_wrong_input_is_answered_in_one_line(folder, call, arguments, message):
    opened(folder / "photo.png").save(folder / "out-preview.png")
    write_onnx(folder / "short.onnx", random_vgg("vgg19", width=0.05)[:8], CAFFE)
    before = sorted(folder.iterdir())
    said = call(*arguments, code=2)
    # Only an evaluation tells that the weights are too small or too large: there, the work has begun.
    begun = bool({"1e308", "1e-320"} & set(arguments))
    lines = said.splitlines()[begun:]
    assert len(lines) == 1, said
    assert re.match(r"stylize: ", lines[0])
    assert message in lines[0]
    assert sorted(folder.iterdir()) == before


# ---- from small to large, and colors ----


def test_levels_are_pictures_of_their_own_each_begun_with_the_last(folder, call):
    said = call(*WITH_MODEL, "-a", 0.01, "--threads", 1, "--levels", 3, "-s", 96, "--style-size", 128)
    assert "level 1 of 3, 24x18 pixels: 4 iterations, loss" in said
    assert "level 2 of 3, 48x36 pixels: 4 iterations, loss" in said
    network = load_network(folder / "model.onnx", threads=1)
    image = None
    for divided, weight in ((4, 0.16), (2, 0.04), (1, 0.01)):
        photo = load_image(folder / "photo.png", long_side=96 // divided)
        painting = load_image(folder / "painting.png", long_side=128 // divided)
        first = None if image is None else resize(Picture(np.float32(image), None), *photo.size).pixels
        settings = Settings(content_weight=weight, iterations=4)
        image = stylize(network, photo.pixels, painting.pixels, settings, first).image
    np.testing.assert_array_equal(pixels(folder / "out.png"), np.rint(image).astype(np.uint8))
    assert facts(folder / "out.png", "Settings")["levels"] == 3


def test_levels_are_those_of_the_library(folder, call):
    call(*WITH_MODEL, "-a", 0.01, "--threads", 1, "--levels", 3, "-s", 97, "--style-size", 99, "--init", "style")
    result = stylize_coarse_to_fine(
        load_network(folder / "model.onnx", threads=1),
        load_image(folder / "photo.png").pixels,
        load_image(folder / "painting.png").pixels,
        Settings(content_weight=0.01, iterations=4, init="style"),
        resize=lambda pixels, *size: resize(Picture(pixels, None), *size).pixels,
        size=97,
        style_size=99,
        levels=3,
    )
    np.testing.assert_array_equal(pixels(folder / "out.png"), np.rint(result.image).astype(np.uint8))


def test_an_interruption_at_a_level_leaves_its_picture_enlarged(folder, call, monkeypatch):
    run, jobs = Job.run, []

    def interrupted(job, callback, **options):
        jobs.append(job)

        def stop(state):
            callback(state)
            if len(jobs) == 2 and state.iteration == 2:
                raise KeyboardInterrupt

        return run(job, stop, **options)

    monkeypatch.setattr(Job, "run", interrupted)
    said = call(*WITH_MODEL, "--threads", 1, "-s", 96, "--levels", 3, "--log", "{}/log.jsonl", code=130)
    assert "interrupted; wrote the picture of level 2 of 3, enlarged, " in said
    assert opened(folder / "out.png").size == (96, 72)
    assert len(jobs) == 2
    # It says of itself what was asked for, and where that ended.
    settings, result = (facts(folder / "out.png", name) for name in ("Settings", "Result"))
    assert (settings["size"], settings["levels"], settings["content"]) == (96, 3, "photo.png")
    assert settings["content_weight"] == pytest.approx(5e-5 * (512 / 96) ** 2)
    assert (result["level"], result["stop"], result["iterations"]) == (2, "interrupted", 2)
    assert "tools.stylize" in opened(folder / "out.png").text["Command"]
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in entries if entry["event"] != "iteration"] == [
        *("start", "shares", "level", "level"),
    ]
    assert [entry["level"] for entry in entries if entry["event"] == "iteration"] == [1] * 4 + [2] * 2
    assert entries[0]["settings"] == settings


def test_an_interruption_before_the_last_size_has_begun_leaves_the_one_before(folder, call, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(listeners.Report, "start", interrupted)
    said = call(*WITH_MODEL, "--threads", 1, "-s", 96, "--levels", 2, code=130)
    assert "interrupted; wrote the picture of level 1 of 2, enlarged, " in said
    assert opened(folder / "out.png").size == (96, 72)
    assert facts(folder / "out.png", "Result")["stop"] == "interrupted"


def test_an_interruption_between_two_sizes_leaves_the_one_before(folder, call, monkeypatch):
    rendering, calls = tools.stylize.task.rendering, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rendering(*arguments)

    monkeypatch.setattr(tools.stylize.task, "rendering", interrupted)
    said = call(*WITH_MODEL, "--threads", 1, "-s", 96, "--levels", 3, code=130)
    assert "interrupted; wrote the picture of level 1 of 3, enlarged, " in said
    assert opened(folder / "out.png").size == (96, 72)


def test_the_time_to_the_end_grows_less_than_the_pixels(folder, call, monkeypatch):
    """What does not grow with them, such as reading the weights, is most of the time of these: 1.35 times, not 4."""
    monkeypatch.setattr(tools.stylize.picture, "seconds_of_evaluation", lambda job: (first_evaluation(job), 1.0))
    said = call(*WITH_MODEL, "--threads", 1, "-s", 96, "--levels", 2)
    assert "level 1 of 2, 48x36 pixels, 1 s an evaluation: about 4.0 s for 4 iterations, about 10 s to the end" in said


def test_what_is_known_beforehand_is_said_before_the_small_pictures(folder, call):
    said = call(*WITH_MODEL, "--threads", 1, "-s", 96, "--levels", 2, "--preview").splitlines()
    order = [
        "; cpu with 1 threads, float32",
        "of memory, in 2 sizes of 4 iterations each",
        "preview by the draft network",
    ]
    order += ["level 1 of 2, 48x36 pixels, ", " s an evaluation: about ", "wrote "]
    places = [next(place for place, line in enumerate(said) if part in line) for part in order]
    assert places == sorted(places)
    preview = facts(folder / "out-preview.png", "Settings")
    assert (preview["model"], preview["levels"], preview["size"]) == ("draft", 1, 96)
    assert preview["content_weight"] > 0
    assert facts(folder / "out-preview.png", "Result")["iterations"] == 4


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ("9" * 5000, "is not a whole number"),
        (13, "13 is more than 12"),
        (4, "begins at 1/8 of the size: an image of 6x5 pixels is too small"),
        (9, "nothing is left"),
    ],
)
def test_too_many_levels_are_refused_before_anything_is_made(folder, call, levels, reason):
    said = call(*WITH_MODEL, "--levels", levels, code=2)
    assert reason in said
    assert said.count("\n") == 1


def test_the_painting_takes_the_photograph_s_colors_where_asked_to(folder, call):
    call(*WITH_MODEL, "-a", 0.01, "--threads", 1, "--colors", "photograph")
    network = load_network(folder / "model.onnx", threads=1)
    photo = load_image(folder / "photo.png", long_side=48).pixels
    painting = match_colors(load_image(folder / "painting.png", long_side=48).pixels, photo)
    result = stylize(network, photo, painting, Settings(content_weight=0.01, iterations=4))
    np.testing.assert_array_equal(pixels(folder / "out.png"), np.rint(result.image).astype(np.uint8))


# ---- on a GPU, emulated ----


@pytest.mark.parametrize(("dtype", "nearest"), [("float32", 60), ("tf32", 40), ("float16", 35)])
def test_a_picture_made_on_a_gpu_is_the_cpu_s_but_for_rounding(folder, call, emulator, dtype, nearest):
    small = (*WITH_MODEL, "-s", 32, "-n", 2, "--init", "content", "-a", 0.01, "--optimizer", "l-bfgs")
    call(*small, "--device", "cpu")
    expected = pixels(folder / "out.png").astype(float)
    said = call(*small, "--device", "cuda", "--dtype", dtype)
    assert f"cuda (emulated GPU), {dtype}" in said
    assert "of the GPU's memory" not in said
    assert psnr(pixels(folder / "out.png"), expected) > nearest
    assert facts(folder / "out.png", "Settings")["dtype"] == dtype


@pytest.mark.parametrize("dtype", ["tf32", "float16"])
def test_precisions_of_a_gpu_need_one(folder, call, dtype):
    assert f"dtype '{dtype}' needs a GPU" in call(*WITH_MODEL, "--dtype", dtype, code=2)
    assert not (folder / "out.png").exists()


@pytest.mark.parametrize("levels", [1, 2])
def test_what_is_to_be_known_of_a_model_is_said_before_it_is_run(folder, call, levels):
    """Activations in 8 bits: that they are computed in floating point."""
    form = test_forms.Quantizer()
    blocks = form_models.parameters((2, 1), widths=(4, 4))
    model = form_models.vgg(blocks, conv=form.conv, relu=form.relu, pool=form.pool)
    form_models.save(model, folder / "quantized.onnx")
    line = (
        *SMALL,
        "-m",
        "{}/quantized.onnx",
        "--content-layers",
        "relu1_2",
        "--style-layers",
        "block1_conv1",
        "--levels",
        levels,
    )
    said = call(*line)
    assert said.count(f"stylize: {test_forms.QUANTIZED}\n") == 1
    assert "(conv1_2 " in said
