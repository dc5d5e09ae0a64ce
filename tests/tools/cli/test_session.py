"""A run's events reach those who listen, and an interruption leaves the best there is."""

from __future__ import annotations

import time

import numpy as np
import pytest

from engine.network import Network
from engine.objective import Objective
from engine.stylize import Job, Settings, prepare
from tools.cli.session import Listener, Session, follow, standing_at_end
from tools.models.subject import Setup, build_network


@pytest.fixture(scope="module")
def network() -> Network:
    return build_network(Setup(width=0.05, threads=1))


@pytest.fixture
def job(network) -> Job:
    random = np.random.default_rng(0)
    content, style = random.uniform(0, 255, (2, 24, 24, 3))
    return prepare(network, content, style, Settings(iterations=3))


class Noted(Listener):
    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def start(self, job):
        self.notes.append((self.name, "start"))

    def iteration(self, state):
        self.notes.append((self.name, state.iteration))

    def end(self, result, facts):
        self.notes.append((self.name, "end", facts.get("by")))
        facts["by"] = self.name


class Pressed(Listener):
    """Ctrl-C behind an iteration."""

    def __init__(self, after):
        self.after = after

    def iteration(self, state):
        if state.iteration == self.after:
            raise KeyboardInterrupt


def test_all_hear_of_each_event_in_order_and_of_the_end_in_reverse(job):
    notes = []
    _, facts = follow(job, [Noted("a", notes), Noted("b", notes)], time.perf_counter())
    begun = [(name, event) for event in ("start", 1, 2, 3) for name in "ab"]
    assert notes == [*begun, ("b", "end", None), ("a", "end", "b")]
    assert (facts["by"], facts["iterations"], facts["stop"]) == ("a", 3, "iterations")


def test_what_an_interrupted_run_has_come_to_is_kept_before_anyone_hears_of_the_end(job):
    notes = []
    listeners = [Noted("a", notes), Pressed(2)]
    result, _ = follow(job, listeners, time.perf_counter(), lambda result, facts: notes.append(("made", result.stop)))
    assert (result.stop, result.iterations) == ("interrupted", 2)
    assert notes[-2:] == [("made", "interrupted"), ("a", "end", None)]


def test_of_a_run_interrupted_before_its_first_iteration_there_is_nothing_to_keep(job, monkeypatch):
    notes, calls, begin = [], [], Objective.begin

    def interrupted(self, image):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return begin(self, image)

    monkeypatch.setattr(Objective, "begin", interrupted)
    with pytest.raises(KeyboardInterrupt):
        follow(job, [Noted("a", notes)], time.perf_counter(), lambda result, facts: notes.append("made"))
    assert notes == [("a", "start"), ("a", "end", None)]


def test_a_run_that_broke_off_is_not_measured(job):
    whole, _ = follow(job, [], time.perf_counter())
    cut, _ = follow(job, [Pressed(1)], time.perf_counter())
    assert standing_at_end(job, cut) is None
    shares = standing_at_end(job, whole)["loss_shares"]
    assert sum(share for kind in shares.values() for share in kind.values()) == pytest.approx(1)


def test_an_interruption_writes_the_best_there_is_and_leaves_with_130(capsys):
    session, written = Session("tool", "nothing was written"), []

    def interrupted():
        raise KeyboardInterrupt

    def made():
        def keep():
            written.append("best")
            return "wrote the best"

        session.keep = keep
        raise KeyboardInterrupt

    assert session.run(lambda: 7) == 7
    assert session.run(interrupted) == 130
    assert session.run(made) == 130
    assert written == ["best"]
    assert capsys.readouterr().err == "tool: nothing was written\ntool: wrote the best\n"


def test_a_second_interruption_ends_the_writing():
    session = Session("tool")

    def interrupted():
        raise KeyboardInterrupt

    session.keep = interrupted
    with pytest.raises(KeyboardInterrupt):
        session.run(interrupted)
