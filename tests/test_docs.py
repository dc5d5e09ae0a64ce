"""The documentation: its links lead somewhere, its commands can be typed, and the library's walkthrough runs."""

import argparse
import ast
import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
REPOSITORY_PATH = re.compile(r"`((?:tests|engine|kernels|tools|docs)/[\w/.-]+)`")


def prose(page):
    """Return a page without its blocks of code."""
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page):
    """Return the anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_links(page):
    for target in LINK.findall(prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_every_local_link_and_path_exists(name):
    page = ROOT / name
    assert list(missing_links(page)) == []
    assert [path for path in REPOSITORY_PATH.findall(prose(page)) if not (ROOT / path).exists()] == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading: here\n\n[a](page.md#a-heading-here) ![b](#nowhere) [c](other.md) [d](https://x.y)\n")
    assert list(missing_links(page)) == ["#nowhere", "other.md"]


def test_every_page_of_docs_is_in_the_table_of_contents():
    listed = set(LINK.findall((ROOT / "docs" / "README.md").read_text("utf-8")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= listed


def test_every_picture_of_docs_is_shown():
    text = "".join(page.read_text("utf-8") for page in PAGES)
    pictures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in {".jpg", ".png", ".svg"}]
    assert [path.name for path in pictures if path.name not in text] == []


def test_the_readme_stays_short():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 160
    assert [line for line in lines if len(line) > 120] == []


# ---- commands ----


def commands(text):
    """Yield (tool, arguments) of each call of a tool that is written as code."""
    code = [body for language, body in FENCE.findall(text) if language in ("", "sh")]
    code += [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]
    for block in code:
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;(?=\s)", line):
                call = re.search(r"python3? -m tools\.(\w+)(.*)|neural-style-by-hand ([\w-]+) (.*)", part)
                if call:
                    tool, rest = (call[1], call[2]) if call[1] else (call[3].replace("-", "_"), call[4])
                    # Of a usage, the brackets and ellipses; a comment as the shell takes it.
                    yield tool, shlex.split(re.sub(r"\[|\]|\.\.\.(?= |$)", " ", rest), comments=True)


def options_of(tool):
    """Return the options that a tool's parser knows, those of its subcommands included."""
    parsers, found = [importlib.import_module(f"tools.{tool}.__main__").build_parser()], set()
    while parsers:
        for action in parsers.pop()._actions:
            found.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


REMOVED = {"samples", "train_draft", "judge_draft"}
"""Tools that the history has: named where it is told how a file was made."""


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_every_command_names_a_tool_and_options_that_exist(name):
    for tool, arguments in commands((ROOT / name).read_text("utf-8")):
        if tool in REMOVED:
            continue
        given = {re.split("=|,", argument)[0] for argument in arguments if re.match(r"--?[a-z]", argument)}
        assert given <= options_of(tool), (tool, arguments)


def test_commands_are_found_in_blocks_and_in_the_text():
    text = "`python -m tools.bench\n--size 5`\n```sh\n. x && python3 -m tools.sweep a b -o c  # --no\n```\n"
    assert list(commands(text)) == [("sweep", ["a", "b", "-o", "c"]), ("bench", ["--size", "5"])]
    assert sum(len(list(commands(page.read_text("utf-8")))) for page in PAGES) > 60


# ---- Python ----


def python_of(name):
    return "\n".join(body for language, body in FENCE.findall((ROOT / name).read_text("utf-8")) if language == "python")


@pytest.mark.parametrize("name", [name for name in PAGE_NAMES if python_of(name)])
def test_python_imports_what_exists(name):
    for node in ast.walk(ast.parse(python_of(name))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_readme_s_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    random = np.random.default_rng(0)
    names = {"photo": random.uniform(0, 255, (32, 32, 3)), "painting": random.uniform(0, 255, (32, 32, 3))}
    exec(compile(python_of("README.md"), "README.md", "exec"), names)
    assert names["result"].value < names["value"]


def test_the_library_s_walkthrough_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    """Each block of Python; what it prints is in the block of text behind it, if there is one."""
    page = ROOT / "docs" / "library.md"
    text = page.read_text("utf-8")
    for name in ("docs", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)  # what it writes is not left in the clone
    namespace, printed, count = {}, "", 0
    for block in FENCE.finditer(text):
        language, body = block.groups()
        if language == "python":
            lines_before = text[: block.start(2)].count("\n")  # so that a traceback shows the page's line
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile("\n" * lines_before + body, page, "exec"), namespace)
            printed, count = output.getvalue(), count + 1
        elif language == "text":
            assert printed == body
    assert count >= 10
    assert (tmp_path / "picture.png").exists()
