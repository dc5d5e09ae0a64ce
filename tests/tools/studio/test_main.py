"""The command: it says where the page is, ends with Ctrl-C, and keeps the picture in hand."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

import tools.studio.server
from tests.tools.calling import called
from tests.tools.conftest import ROOT
from tests.tools.studio.conftest import until
from tools.media.images import read_text
from tools.studio.__main__ import main


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent differently there")
def test_it_says_where_the_page_is_and_ctrl_c_keeps_the_picture(folder):
    pytest.importorskip("bottle", reason="the page is served with bottle")
    command = [sys.executable, "-m", "tools.studio", "--folder", folder / "my studio", "-m", folder / "model.onnx"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stderr.readline()
        found = re.fullmatch(r"studio: open http://127\.0\.0\.1:(\d+)/\?token=([\w-]{32})\n", line)
        assert found, line
        port, token = int(found[1]), found[2]

        def ask(method, path, content=b"", **more):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {"Cookie": f"studio-{port}={token}", "Origin": f"http://127.0.0.1:{port}"}
            connection.request(method, path, content, headers | {"Content-Type": "application/json"} | more)
            told = json.loads(connection.getresponse().read())
            connection.close()
            return told

        photo, painting = (
            ask("POST", "/inputs", (folder / name).read_bytes())["name"] for name in ("photo.png", "painting.png")
        )
        options = {"model": str(folder / "model.onnx"), "size": "48", "iterations": "1000000"}
        options |= {"optimizer": "adam", "change_tolerance": "0"}
        form = {"content": photo, "style": [painting], "mask": [], "keep": None, "options": options}
        number = ask("POST", "/runs", json.dumps(form).encode())["number"]
        until(lambda: "error" not in ask("POST", f"/run/{number}/resume", b"{}"))
        time.sleep(1)
        # A second one on the same folder would mix up its pictures.
        second = subprocess.run(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, timeout=60)
        assert second.returncode == 2
        assert second.stderr.startswith("studio: another studio on ")
        assert second.stderr.count("\n") == 1
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert "Traceback" not in rest
        assert "stopped, " in rest
    finally:
        process.kill()
        process.wait()
    assert "tools.stylize" in read_text(folder / "my studio" / "pictures" / "0001.png")["Command"]
    assert not list((folder / "my studio").rglob("*unfinished*"))


def test_what_is_wrong_is_told_in_one_line(folder, cache, capsys):
    (folder / "file").write_text("")
    for arguments, message in (
        (["-m", "vgg18"], "unknown model 'vgg18'"),
        (["-m", "vgg19"], "the model 'vgg19' is not in the cache, fetch it with: python -m tools.models fetch vgg19"),
        (["--folder", folder / "file"], f"cannot write to '{folder / 'file'}': it is a file, give a folder"),
        (["--port", "-1"], "argument --port: '-1' is negative"),
        (["--port", "x"], "argument --port: 'x' is not a whole number"),
        (["--port", "99999"], "argument --port: 99999 is no port, expected at most 65535"),
        (["--threads", "0"], "argument --threads: '0' is not at least 1"),
        (["photo.png"], "unrecognized arguments: photo.png"),
    ):
        output, errors = called(main, capsys, ["--folder", folder / "s", *arguments], 2)
        assert output == ""
        assert errors.startswith(f"studio: {message}"), errors
        assert errors.count("\n") == 1


def test_without_bottle_it_says_what_to_install(folder, cache, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "bottle", None)
    _, errors = called(main, capsys, ["--folder", folder / "s"], 2)
    assert errors == "studio: the page is served with bottle, which is missing: pip install '.[studio]'\n"
    assert not (folder / "s").exists()


def test_where_its_port_is_taken_no_folder_is_made(folder, cache, capsys):
    pytest.importorskip("bottle", reason="the page is served with bottle")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        _, errors = called(main, capsys, ["--folder", folder / "s", "--port", port], 2)
    assert errors.startswith(f"studio: cannot serve on port {port}: ")
    assert not (folder / "s").exists()


def test_the_page_s_files_are_packaged(folder):
    listed = re.search(r'"tools\.studio" = \[(.*)\]', (ROOT / "pyproject.toml").read_text())[1]
    there = {path.name for path in (ROOT / "tools" / "studio").iterdir() if path.suffix not in (".py", "")}
    assert set(re.findall(r'"([^"]+)"', listed)) == there
    assert tools.studio.server.__file__
