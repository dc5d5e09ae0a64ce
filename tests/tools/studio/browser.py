"""A headless Chromium, driven by what ChromeDriver speaks: WebDriver, JSON over HTTP."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A session; every command of it is a request."""

    def __init__(self, driver: str, options: dict[str, Any]) -> None:
        self._driver = driver
        self._session = ""
        made = self.do("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self._session = f"/session/{made['sessionId']}"

    def do(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self._driver}{self._session}{path}", body, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.loads(error.read())["value"]["message"].splitlines()[0]) from None

    def go(self, address: str) -> None:
        """Open a page; a browser that has only just begun says so before it is there."""
        self.do("POST", "/url", {"url": address})
        there = "return location.href.startsWith(arguments[0]) && document.readyState === 'complete'"
        self.until(there, address.partition("?")[0])

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script returns."""
        return self.do("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        return self.do("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector: str) -> None:
        self.do("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        self.do("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def text(self, selector: str) -> str:
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def shown(self, selector: str) -> bool:
        return self.run("return Boolean(document.querySelector(arguments[0])?.checkVisibility())", selector)

    def set(self, selector: str, value: object) -> None:
        """Turn a slider, or choose, as a hand does: input while it moves, change when it is let go."""
        self.run(
            "const it = document.querySelector(arguments[0]); it.value = arguments[1];"
            "for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind, {bubbles: true}));",
            selector,
            value,
        )

    def until(self, script: str, *arguments: Any, seconds: float = 60) -> Any:
        """Wait until a script returns something; return that."""
        end = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < end, f"{script}: {self.run('return document.body.innerText')[:1500]}"
            time.sleep(0.03)
        return value

    def log(self) -> list[str]:
        """Return the errors of the pages so far."""
        return [
            entry["message"] for entry in self.do("POST", "/se/log", {"type": "browser"}) if entry["level"] == "SEVERE"
        ]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.do("GET", "/screenshot")))


@contextlib.contextmanager
def browser(folder: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Iterator[Browser]:
    """Give a browser; skip the test, with the reason, where there is none or it does not start."""
    driver = shutil.which("chromedriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if driver is None or chromium is None:
        pytest.skip("there is no Chromium with its ChromeDriver")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--disable-quic", "--disable-dev-shm-usage"]
    flags += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", "--hide-scrollbars"]
    flags += ["--force-dark-mode"] if dark else []
    options = {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": chromium, "args": flags},
        "goog:loggingPrefs": {"browser": "ALL"},
    }
    try:
        one = _started(f"http://127.0.0.1:{port}", options)
        one.do(
            "POST",
            "/goog/cdp/execute",
            {
                "cmd": "Emulation.setEmulatedMedia",
                "params": {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
            },
        )
        one.do(
            "POST",
            "/goog/cdp/execute",
            {
                "cmd": "Emulation.setDeviceMetricsOverride",
                "params": {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
            },
        )
        try:
            yield one
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                one.do("DELETE", "")
    finally:
        process.terminate()
        process.wait()


def _started(driver: str, options: dict[str, Any]) -> Browser:
    end = time.monotonic() + 20
    while True:
        try:
            return Browser(driver, options)
        except OSError:
            if time.monotonic() > end:
                pytest.skip("ChromeDriver does not answer")
            time.sleep(0.1)
        except RuntimeError as error:
            pytest.skip(f"the browser does not start: {error}")
