from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.conftest import ROOT
from tools.cli.command_line import (
    MAX_COUNT,
    MAX_THREADS,
    add_shared,
    given_name,
    given_path,
    natural_int,
    positive_float,
    positive_int,
    thread_count,
    weight,
)

FULL = Path("/dev/full")


@pytest.mark.parametrize("parse", [positive_int, thread_count, natural_int, positive_float, weight])
@pytest.mark.parametrize("text", ["nan", "-inf", "-1", "", "0x", "1e400", "9" * 5000 + "x", "-" + "9" * 4000])
def test_a_number_that_is_none_is_told_in_one_short_sentence(parse, text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        parse(text)
    assert len(str(error.value)) < 130
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["0", str(MAX_COUNT + 1), "9" * 23, "9" * 5000])
def test_counts_are_from_one_to_what_libraries_can_count(text):
    assert positive_int(str(MAX_COUNT)) == MAX_COUNT
    with pytest.raises(argparse.ArgumentTypeError) as error:
        positive_int(text)
    assert len(str(error.value)) < 130


def test_threads_are_counted_up_to_their_own_limit():
    assert thread_count(str(MAX_THREADS)) == MAX_THREADS
    with pytest.raises(argparse.ArgumentTypeError, match="is more than 1,024"):
        thread_count("9" * 23)


def test_a_name_that_is_empty_is_not_the_folder_where_one_is():
    assert given_path("a b/c") == Path("a b/c")
    for parse in (given_name, given_path):
        with pytest.raises(argparse.ArgumentTypeError, match="the name is empty"):
            parse("")


PRINTING = """
import sys
from tools.cli.command_line import run, tell
def main(argv):
    print("made", sys.argv[1])
    tell(f"tool: wrote {sys.argv[1]}")
    raise ValueError(f"cannot read {sys.argv[1]!r}")
run(main)
"""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437", "utf-8"])
@pytest.mark.parametrize("name", ["日本 – ż.png", os.fsdecode(b"stray \xff byte.png"), "ä\u202e.png"])
def test_a_file_name_that_the_console_cannot_show_is_spelled_out(encoding, name):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": f"{encoding}:strict"}
    command = [sys.executable, "-c", PRINTING, name]
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    assert result.stdout.startswith(b"made ")
    assert result.stdout.rstrip().endswith(b".png")
    assert [line[:12] for line in result.stderr.splitlines()] == [b"tool: wrote ", b"tool: cannot"]


# ---- what most tools have ----


def test_shared_options_are_none_unless_given_and_left_out_where_that_is_asked_for():
    for suppressed, expected in ((False, {"threads": None, "cache": None, "quiet": False}), (True, {})):
        parser = argparse.ArgumentParser()
        add_shared(parser, suppressed=suppressed)
        assert vars(parser.parse_args([])) == expected
        given = parser.parse_args(["--threads", "2", "--cache", "a", "-q"])
        assert vars(given) == {"threads": 2, "cache": Path("a"), "quiet": True}


def test_a_tool_without_threads_or_models_has_no_such_options():
    parser = argparse.ArgumentParser()
    add_shared(parser, threads=None, cache=False)
    assert vars(parser.parse_args([])) == {"quiet": False}


# ---- where output goes ----


def called(code: str, **streams: object) -> subprocess.CompletedProcess[str]:
    """Run a tool whose main has this body, with Python's usual buffers."""
    program = f"from tools.cli.command_line import run, tell\ndef main(argv):\n    {code}\n    return 0\nrun(main)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, env={}, check=False, **pipes)


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
def test_output_that_a_full_disk_does_not_take_is_an_error_in_one_line():
    with FULL.open("w") as full:
        ended = called("print('result')", stdout=full)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "cannot write the output: " in ended.stderr


@pytest.mark.skipif(not FULL.exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(("code", "expected"), [("tell('a notice')", 0), ("raise ValueError('wrong')", 2)])
def test_messages_that_nobody_can_read_change_nothing(code, expected):
    with FULL.open("w") as full:
        ended = called(f"print('result'); {code}", stderr=full)
    assert ended.returncode == expected
    assert ended.stdout == "result\n"


@pytest.mark.parametrize("closed", [1, 2])
def test_a_stream_that_is_closed_is_done_without(closed):
    ended = called("print('result'); tell('a notice')", preexec_fn=lambda: os.close(closed))
    assert ended.returncode == 0
    assert (ended.stdout, ended.stderr) == (("", "a notice\n") if closed == 1 else ("result\n", ""))


@pytest.mark.parametrize(
    ("text", "expected"), [("~/a b", "{}/a b"), ("a/~", "a/~"), ("~nobody-of-that-name/x", "~nobody-of-that-name/x")]
)
def test_a_path_may_begin_with_the_home_folder(text, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given_path(text) == Path(expected.format(tmp_path))
