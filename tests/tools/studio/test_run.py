"""A run that is left alone is that of the command line; one that is steered hears its commands."""

from __future__ import annotations

import dataclasses
import shlex
import threading

import numpy as np
import pytest

from tests.tools.calling import called
from tests.tools.studio.conftest import until
from tools.media.images import load_image, read_text
from tools.media.saving import encoded_image
from tools.studio import run as module
from tools.studio.order import order_from
from tools.studio.ready import read_order
from tools.studio.run import Run
from tools.stylize.__main__ import main


class Steered:
    """A run in a thread, which can be held after an iteration."""

    def __init__(self, studio, order) -> None:
        self.run = Run(1, order, studio.bell.ring)
        self.outcome = self.error = None
        self.jobs = []
        self._studio = studio
        self.thread = threading.Thread(target=self._make)

    def _make(self) -> None:
        studio = self._studio
        try:
            self.outcome = self.run.make(
                lambda order: read_order(order, studio.shelf, studio.networks),
                lambda ready: studio.networks.draft(ready.options),
                lambda job, seconds: self.jobs.append(job),
            )
        except ValueError as error:
            self.error = error

    def paused_at(self, iteration: int):
        """Start, and wait until it has been paused at an iteration of the picture."""
        original = self.run._set

        def watched(**changes):
            original(**changes)
            state = self.run.state
            if changes.get("iteration", 0) == iteration and state.stage == "picture" and state.status == "running":
                self.run.pause()

        self.run._set = watched
        self.thread.start()
        until(lambda: self.run.state.status == "paused")
        self.run._set = original
        return self

    def end(self):
        self.run.resume()
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.outcome


@pytest.fixture
def without_draft(monkeypatch):
    monkeypatch.setattr(module, "_begins_with_draft", lambda ready: False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "masks"),
    [
        ({}, 0),
        ({"size": "200", "iterations": "3", "colors": "photograph", "variation_weight": "0.1"}, 0),
        ({"size": "100", "iterations": "3", "colors": "luminance"}, 0),
        ({"init": "noise", "seed": "3", "style_layers": "conv1_1:0.3,conv2_1", "content_weight": "0.0001234"}, 0),
        ({"optimizer": "adam", "style_size": "40"}, 2),
    ],
)
def test_the_printed_command_line_makes_the_same_picture_bit_for_bit(studio, tmp_path, capsys, options, masks):
    form = studio.form(**options)
    if masks:
        height, width = studio.shelf.size_of(studio.photo)
        half = np.zeros((height, width, 3), np.uint8)
        half[:, : width // 3] = 255
        mask = studio.shelf.bring_in("mask.png", encoded_image(".png", half))
        form |= {"style": [studio.painting, studio.other], "mask": [mask], "keep": mask}
    order = order_from(form, studio.networks.names, studio.shelf.has)
    studio.queue.open()
    run = studio.queue.add(order)
    studio.ended(run)
    (made,) = studio.shelf.pictures
    path = studio.shelf.picture_path(made.name)
    assert not made.steered
    python, flag, tool, *arguments = shlex.split(read_text(path)["Command"])
    assert (python, flag, tool) == ("python", "-m", "tools.stylize")
    arguments[arguments.index("-o") + 1] = tmp_path / "by-hand.png"
    called(main, capsys, [*arguments, "--threads", 2], 0)
    assert np.array_equal(load_image(path).pixels, load_image(tmp_path / "by-hand.png").pixels)


def test_a_changed_weight_counts_from_the_next_iteration_on_and_the_iterations_stay_as_many(studio, without_draft):
    order = studio.order(iterations="9")
    steered = Steered(studio, order).paused_at(4)
    other = studio.order(iterations="9", content_weight="10", variation_weight="0.5")
    before = steered.run.shown
    steered.run.change(other)
    outcome = steered.end()
    assert len(steered.run.points()) == 9
    assert outcome.steered
    assert outcome.order == other
    assert [job.objective.content_weight for job in steered.jobs] == [
        pytest.approx(steered.jobs[0].objective.content_weight),
        10,
    ]
    assert steered.run.before is before
    # The second begins where the first was, with the float32 image; its curvature is its own.
    assert np.array_equal(steered.jobs[1].initial, before.pixels.astype(np.float32))
    assert "variation image" in steered.run.points()[-1]["shares"]
    assert "variation image" not in steered.run.points()[0]["shares"]
    assert [mark["kind"] for mark in steered.run.marks] == ["level", "changed"]
    assert steered.run.marks[1]["step"] == 4


def test_masks_and_colors_can_be_changed_too(studio, without_draft):
    steered = Steered(studio, studio.order()).paused_at(2)
    keep = studio.photo
    steered.run.change(dataclasses.replace(studio.order(colors="photograph", style_size="30"), keep=keep))
    outcome = steered.end()
    assert outcome.order.keep == keep
    assert steered.jobs[1].objective.summands[-1].m is not None


@pytest.mark.parametrize("name", ["size", "init", "seed", "optimizer", "levels", "pooling"])
def test_what_belongs_to_a_run_from_its_beginning_cannot_be_changed(studio, name):
    value = {"size": "64", "init": "noise", "seed": "1", "optimizer": "sgd", "levels": "1", "pooling": "max"}[name]
    run = Run(1, studio.order(), studio.bell.ring)
    with pytest.raises(ValueError, match=f"^{name} cannot be changed while the picture is being made"):
        run.change(studio.order(**{name: value}))
    with pytest.raises(ValueError, match=r"^pictures cannot be changed"):
        run.change(dataclasses.replace(studio.order(), content=studio.other))


def test_a_change_that_does_not_work_is_told_and_the_run_goes_on_without_it(studio, without_draft):
    order = studio.order(iterations="6")
    steered = Steered(studio, order).paused_at(2)
    steered.run.change(studio.order(iterations="6", style_layers="conv9_9:1"))
    outcome = steered.end()
    assert outcome.order == order
    assert not outcome.steered
    assert steered.run.state.note.startswith("this was not changed: ")
    assert "conv9_9" in steered.run.state.note
    assert len(steered.run.points()) == 6


@pytest.mark.parametrize("levels_before", [0, 1])
def test_a_painting_too_small_for_the_first_of_the_sizes_is_told_and_the_sizes_stay(
    studio, without_draft, levels_before
):
    order = studio.order(size="200", iterations="4")
    steered = Steered(studio, order)
    steps = steered.run._mark

    def changing(kind):
        steps(kind)
        if kind == "level" and steered.run.state.level == levels_before:
            steered.run.change(dataclasses.replace(order, options=dataclasses.replace(order.options, style_size=30)))

    steered.run._mark = changing
    steered.thread.start()
    outcome = steered.end()
    assert outcome.order == order
    assert "give at most --levels 1" in steered.run.state.note
    assert [job.initial.shape[1] for job in steered.jobs] == [100, 200]


def test_a_change_to_what_it_is_already_changes_nothing(studio, without_draft):
    steered = Steered(studio, studio.order()).paused_at(2)
    steered.run.change(studio.order())
    assert not steered.end().steered
    assert len(steered.jobs) == 1


def test_a_paused_run_waits_and_goes_on(studio, without_draft):
    steered = Steered(studio, studio.order(iterations="6")).paused_at(3)
    state = steered.run.state
    assert (state.iteration, state.iterations) == (3, 6)
    assert steered.run.shown.version == state.shown
    steered.thread.join(0.2)
    assert steered.run.state == state
    outcome = steered.end()
    assert outcome.facts["stop"] == "iterations"
    assert not outcome.steered


def test_stopping_keeps_the_best_picture(studio, without_draft):
    steered = Steered(studio, studio.order(iterations="50")).paused_at(3)
    steered.run.stop()
    outcome = steered.end()
    assert outcome.facts["stop"] == "stopped"
    assert outcome.facts["iterations"] in (3, 4)
    assert outcome.steered
    best = min(point["loss"] for point in steered.run.points())
    assert outcome.facts["loss"] <= best
    assert steered.jobs[0].objective(outcome.pixels)[0] == pytest.approx(outcome.facts["loss"])


def test_stopped_at_a_smaller_size_the_picture_is_enlarged(studio, without_draft):
    steered = Steered(studio, studio.order(size="96", levels="2", iterations="20")).paused_at(3)
    steered.run.stop()
    outcome = steered.end()
    assert outcome.pixels.shape == (72, 96, 3)
    assert outcome.facts["enlarged_from"] == [48, 36]


def test_a_draft_comes_first_and_leaves_the_picture_as_it_is(studio, monkeypatch):
    monkeypatch.setattr(module, "LONG_SIDE", 40)
    with_draft = Steered(studio, studio.order())
    with_draft.thread.start()
    drafted = with_draft.end()
    monkeypatch.setattr(module, "_begins_with_draft", lambda ready: False)
    without = Steered(studio, studio.order())
    without.thread.start()
    assert np.array_equal(drafted.pixels, without.end().pixels)
    assert [mark["kind"] for mark in with_draft.run.marks] == ["draft", "level"]
    assert [mark["kind"] for mark in without.run.marks] == ["level"]


def test_a_draft_that_cannot_be_made_does_not_cost_the_picture(studio, monkeypatch):
    """As of a photograph so wide that the draft's few pixels are too few."""
    steered = Steered(studio, studio.order())
    monkeypatch.setattr(module, "_begins_with_draft", lambda ready: True)
    minimize = Run._minimize

    def failing(self, ready, image, read, start, number, *further):
        if number == 0:
            raise ValueError("an image of 256x15 pixels is too small")
        return minimize(self, ready, image, read, start, number, *further)

    monkeypatch.setattr(Run, "_minimize", failing)
    steered.thread.start()
    outcome = steered.end()
    assert steered.error is None
    assert outcome.pixels.shape == (36, 48, 3)
    assert steered.run.state.note == "no draft: an image of 256x15 pixels is too small"


def test_a_change_during_the_draft_is_in_the_picture_as_if_it_had_been_there_before(studio, monkeypatch, without_draft):
    changed = studio.order(content_weight="5")
    plain = Steered(studio, changed)
    plain.thread.start()
    expected = plain.end().pixels
    monkeypatch.undo()
    steered = Steered(studio, studio.order())
    follower = steered.run._follower

    def changing(*arguments):
        steered.run.change(changed)
        return follower(*arguments)

    steered.run._follower = changing
    steered.thread.start()
    outcome = steered.end()
    assert outcome.order == changed
    assert np.array_equal(outcome.pixels, expected)


def test_a_larger_picture_goes_on_from_this_one(studio):
    order = studio.order(content_weight="0.004", style_size="30")
    larger = order.larger("0001.png", 96)
    assert (larger.options.init, larger.options.size, larger.options.levels) == ("0001.png", 96, 1)
    # The content loss is a sum over the pixels.
    assert larger.options.content_weight == pytest.approx(0.001)
    assert larger.options.style_size == 60
