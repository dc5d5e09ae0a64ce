"""The image for containers: what goes into it, what its command takes, and that it can be built."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.models.cache import cache_entry, default_model
from tools.stylize.__main__ import build_parser

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "Containerfile").read_text("utf-8")
# What an engine says of a machine that reaches no registry or no package index.
UNREACHABLE = r"dial tcp|no such host|Temporary failure|name resolution|i/o timeout|connection refused|toomanyrequests"
UNREACHABLE += r"|TLS handshake|x509|No matching distribution|pip finds no package index"


def test_its_command_takes_the_network_that_was_fetched(tmp_path):
    """Without ``--cache`` it would look in the user's own folder, which a new container has empty."""
    fetched = re.search(r"^RUN python -m tools\.models fetch (\w+) --cache (\S+)$", TEXT, re.MULTILINE)
    *program, option, folder = json.loads(re.search(r"^ENTRYPOINT (.*)$", TEXT, re.MULTILINE)[1])
    assert (program, option, folder) == (["python", "-m", "tools.stylize"], "--cache", fetched[2])
    arguments = build_parser().parse_args([option, str(tmp_path), "content.jpg", "style.jpg", "-o", "out.png"])
    assert default_model(arguments.cache) == "draft"
    cache_entry(fetched[1], tmp_path).touch()
    assert default_model(arguments.cache) == fetched[1] == "vgg19"


def test_what_the_program_is_built_from_goes_into_the_image_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    given = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert given == {"pyproject.toml", "README.md", "LICENSE", "engine", "kernels", "tools"}
    assert all((ROOT / name).exists() for name in given)


def test_the_image_is_built_and_has_the_network():
    """With podman or docker; the index that pip is set up for on this machine is not the container's."""
    engine = next(filter(None, map(shutil.which, ("podman", "docker"))), None)
    if engine is None:
        pytest.skip("neither podman nor docker is installed")
    able = subprocess.run([engine, "info"], capture_output=True, text=True, timeout=60)
    if able.returncode or re.search(r"Cannot connect|permission denied", able.stderr):
        pytest.skip(f"{engine} cannot build here: {(able.stderr or able.stdout).strip().splitlines()[-1]}")
    name = "neural-style-by-hand-test"
    command = [engine, "build", "-t", name, "-f", "docs/Containerfile", "."]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    if built.returncode and re.search(UNREACHABLE, built.stdout + built.stderr):
        pytest.skip(f"{engine} reaches no registry: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    try:
        program = (
            "from pathlib import Path; from tools.models.cache import default_model as d; print(d(Path('/models')))"
        )
        look = [engine, "run", "--rm", "--entrypoint", "python", name, "-c", program]
        taken = subprocess.run(look, capture_output=True, text=True, timeout=120)
        assert (taken.stdout, taken.stderr) == ("vgg19\n", "")
    finally:
        subprocess.run([engine, "rmi", "-f", name], capture_output=True, timeout=120)
