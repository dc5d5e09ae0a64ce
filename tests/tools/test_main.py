from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tools
from tools.__main__ import TOOLS
from tools.media.record import PROJECT, own_version


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools", *arguments]
    where = folder or Path(tools.__file__).parents[1]
    return subprocess.run(command, capture_output=True, text=True, cwd=where, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_has_a_command_line(tool):
    done = run(tool, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {tool.replace('-', '_')} ")


@pytest.mark.slow
def test_a_tool_is_run_by_its_name():
    done = run("models", "list", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert "comes with the program" in done.stdout


def test_the_version_is_told():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"{PROJECT} {own_version()}\n")
    assert run("stylize", "--version").stdout == done.stdout


def test_an_exit_code_and_an_error_go_through():
    done = run("stylize", "no.jpg", "neither.jpg", "-o", "out.png")
    assert done.returncode == 2
    assert done.stderr == "stylize: cannot read 'no.jpg': there is no such file\n"


@pytest.mark.parametrize("arguments", [[], ["paint"], ["--quiet", "stylize"]])
def test_what_is_no_tool_is_told_in_one_line(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{PROJECT}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_help_names_all_tools():
    assert all(tool in run("--help").stdout for tool in TOOLS)


def test_what_takes_long_to_load_is_loaded_only_where_it_is_used():
    """scipy.optimize and scipy.special take as long to load as all the rest: the default picture needs neither."""
    code = "import sys, tools.stylize.__main__; print([name for name in sys.modules if name.startswith('scipy.')])"
    where = Path(tools.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=where, check=True)
    assert not {"scipy.optimize", "scipy.special", "scipy.linalg"} & set(ast.literal_eval(done.stdout))
