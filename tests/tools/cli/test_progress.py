from __future__ import annotations

import io
import itertools
import sys
import threading

import pytest

from tools.cli.progress import Progress, counted, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ClosedTerminal(Terminal):
    """A terminal whose window was closed, after a moment."""

    closed_now = False

    def write(self, text: str) -> int:
        if self.closed_now:
            raise OSError(5, "Input/output error")
        return super().write(text)


def test_a_terminal_that_is_gone_ends_nothing():
    stream = ClosedTerminal()
    with Progress(3, "iterations", "stylize", stream=stream) as progress:
        progress.write("there is a terminal")
        stream.closed_now = True
        progress.update(1, "loss 3")
        progress.write("nobody reads this")
        progress.write("nor this")
    assert "there is a terminal" in stream.getvalue()


def test_things_are_counted_in_words():
    assert [counted(number, "picture") for number in (0, 1, 2)] == ["0 pictures", "1 picture", "2 pictures"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.42, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (38.2, "38 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (4320, "1 h 12 min"),
        (97_380, "27 h 03 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_duration_refuses_what_is_no_duration(seconds):
    with pytest.raises(ValueError, match="duration"):
        duration(seconds)


def test_a_line_for_each_tenth_with_elapsed_left_and_note():
    stream, clock = io.StringIO(), Clock()
    with Progress(500, "iterations", "stylize", stream=stream, clock=clock) as progress:
        for step in range(500):
            clock.now += 0.1
            progress.update(note=f"loss {500 - step:.2e}")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "stylize: 50/500 iterations, 5.0 s, 45 s left, loss 4.51e+02"
    assert lines[-1] == "stylize: 500/500 iterations, 50 s, loss 1.00e+00"


def test_what_several_threads_have_done_adds_up():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        stream = io.StringIO()
        with Progress(8001, "iterations", "sweep", stream=stream) as progress:
            threads = [threading.Thread(target=lambda: [progress.update() for _ in range(1000)]) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert stream.getvalue().splitlines()[-1].startswith("sweep: 8000/8001 iterations")


def test_slow_work_gets_a_line_about_every_15_seconds():
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, "iterations", "stylize", stream=stream, clock=clock) as progress:
        for _ in range(60):
            clock.now += 1.0
            progress.update()
    done = [int(line.split()[1].split("/")[0]) for line in stream.getvalue().splitlines()]
    assert done == [15, 30, 45, 60]


def test_what_is_not_going_to_be_done_is_no_speed():
    stream, clock = io.StringIO(), Clock()
    with Progress(300, "iterations", "sweep", stream=stream, clock=clock) as progress:
        clock.now += 10
        progress.update(100)
        clock.now += 1
        progress.shrink(100, "seed=2 failed")
        clock.now += 4
        progress.update(50)
        clock.now += 5
        progress.update(50)
    assert stream.getvalue().splitlines() == [
        "sweep: 100/300 iterations, 10 s, 20 s left",
        "sweep: 150/200 iterations, 15 s, 5.0 s left",
        "sweep: 200/200 iterations, 20 s",
    ]


def test_close_tells_where_work_stopped_once():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(100, "iterations", "stylize", stream=stream, clock=clock)
    progress.update(3)
    assert stream.getvalue() == ""
    clock.now += 6
    progress.close()
    progress.close()
    progress.update(50)
    assert stream.getvalue() == "stylize: 3/100 iterations, 6.0 s, 3 min 14 s left\n"


def test_no_line_if_nothing_was_done():
    stream = io.StringIO()
    with Progress(100, "iterations", "stylize", stream=stream):
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize("total", [0, 1, 3, 7, 13])
def test_small_totals_end_with_a_full_line(total):
    stream = io.StringIO()
    with Progress(total, "pictures", "read", stream=stream, clock=Clock()) as progress:
        for _ in range(total):
            progress.update()
    lines = stream.getvalue().splitlines()
    assert len(lines) == min(total, len(lines)) <= 10
    assert not total or lines[-1].startswith(f"read: {total}/{total} pictures")


def test_more_than_the_total_is_no_error():
    stream = io.StringIO()
    with Progress(2, "pictures", "read", stream=stream, clock=Clock()) as progress:
        progress.update(5)
    assert stream.getvalue() == "read: 5/2 pictures, 0.0 s\n"


def test_negative_total_is_refused():
    with pytest.raises(ValueError, match="negative"):
        Progress(-1, "bytes", "download")


def test_reach_does_not_take_what_was_there_for_speed():
    stream, clock = io.StringIO(), Clock()
    with Progress(0, "bytes", "download", stream=stream, clock=clock) as progress:
        progress.reach(80_000_000, 100_000_000)
        clock.now += 10
        progress.reach(90_000_000, 100_000_000)
        clock.now += 10
        progress.reach(100_000_000, 100_000_000)
    assert stream.getvalue().splitlines() == [
        "download: 90.0 MB of 100.0 MB, 10 s, 10 s left",
        "download: 100.0 MB of 100.0 MB, 20 s",
    ]


def test_reach_starts_again_when_it_goes_back():
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, "bytes", "download", stream=stream, clock=clock) as progress:
        for done in (0, 300, 600, 0, 50, 250):
            progress.reach(done, 1000)
            clock.now += 2
    assert stream.getvalue().splitlines() == [
        "download: 300 bytes of 1.0 kB, 2.0 s, 4.7 s left",
        "download: 600 bytes of 1.0 kB, 4.0 s, 2.7 s left",
        "download: 250 bytes of 1.0 kB, 10 s, 12 s left",
    ]


def test_quiet_prints_nothing():
    for stream in (io.StringIO(), Terminal()):
        with Progress(10, "iterations", "stylize", quiet=True, stream=stream) as progress:
            progress.update(10, note="loss 1")
            progress.write("a line")
            progress.reach(0, 10)
        assert stream.getvalue() == ""


def test_write_prints_a_line():
    stream = io.StringIO()
    with Progress(10, "iterations", "stylize", stream=stream) as progress:
        progress.write("wrote a.png")
    assert stream.getvalue() == "wrote a.png\n"


def test_standard_error_is_the_default(capsys):
    with Progress(1, "iterations", "stylize", clock=Clock()) as progress:
        progress.update()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "stylize: 1/1 iterations, 0.0 s\n"


def test_no_standard_error_is_quiet(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with Progress(1, "iterations", "stylize") as progress:
        progress.update()
        progress.write("a line")


def test_bar_on_a_terminal():
    stream = Terminal()
    with Progress(500, "iterations", "stylize", stream=stream) as progress:
        for _ in range(500):
            progress.update(note="loss 1.23e+04")
    last = stream.getvalue().rstrip("\n").split("\r")[-1]
    assert last.startswith("stylize: 100%|")
    assert "500/500 iterations" in last
    assert "left, loss 1.23e+04]" in last
    assert stream.getvalue().endswith("\n")


def test_bar_of_a_total_that_shrinks():
    stream = Terminal()
    with Progress(300, "iterations", "sweep", stream=stream) as progress:
        progress.update(100)
        progress.shrink(200)
    assert "100/100 iterations" in stream.getvalue().split("\r")[-1]


def test_bar_scales_bytes_and_starts_where_a_resumed_download_does():
    stream = Terminal()
    with Progress(0, "bytes", "download", stream=stream) as progress:
        progress.reach(80_000_000, 100_000_000)
        assert "80%" in stream.getvalue().split("\r")[-1]
        assert "80.0M/100M" in stream.getvalue().split("\r")[-1]
        progress.reach(100_000_000, 100_000_000)
        progress.reach(0, 100_000_000)
        assert " 0%" in stream.getvalue().split("\r")[-1]
        progress.reach(100_000_000, 100_000_000)
    assert "100M/100M" in stream.getvalue().split("\r")[-1]


def test_write_does_not_break_the_bar():
    stream = Terminal()
    with Progress(10, "iterations", "stylize", stream=stream) as progress:
        progress.update()
        progress.write("wrote a.png")
        progress.update(9)
    pieces = list(itertools.chain.from_iterable(line.split("\r") for line in stream.getvalue().split("\n")))
    assert "wrote a.png" in pieces
    assert pieces[-2].startswith("stylize: 100%|")
