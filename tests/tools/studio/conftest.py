"""A studio with small pictures and a small network."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.studio.networks import Networks
from tools.studio.order import Order, order_from
from tools.studio.queue import Bell, Queue
from tools.studio.run import Run
from tools.studio.server import Site, server_on
from tools.studio.shelf import Shelf

SECONDS = 60.0


class Studio:
    """All of a studio but its page."""

    def __init__(self, folder: Path) -> None:
        self.shelf = Shelf(folder / "studio")
        self.networks = Networks(str(folder / "model.onnx"), None, 1)
        self.bell = Bell()
        self.said: list[str] = []
        self.queue = Queue(self.shelf, self.networks, self.bell, self.said.append)
        self.photo, self.painting, self.other = (
            self.shelf.bring_in(name, (folder / name).read_bytes())
            for name in ("photo.png", "painting.png", "other.png")
        )

    def form(self, **options: str) -> dict[str, Any]:
        given = {"model": self.networks.default, "size": "48", "iterations": "4", **options}
        return {"content": self.photo, "style": [self.painting], "mask": [], "keep": None, "options": given}

    def order(self, **options: str) -> Order:
        return order_from(self.form(**options), self.networks.names, self.shelf.has)

    def ended(self, run: Run) -> None:
        """Wait until a run has ended and its picture is on the shelf."""
        until(lambda: run is not self.queue.current and run not in self.queue.waiting)


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait for a condition; return what it came to."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)
    return value


@pytest.fixture
def studio(folder) -> Iterator[Studio]:
    """A studio whose queue does not work yet."""
    made = Studio(folder)
    yield made
    made.queue.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "queue"]


class Served:
    """A studio with its page, which works."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.server = server_on(0)
        port = self.server.server_port
        self.site = Site(studio.shelf, studio.networks, studio.queue, studio.bell, port, "the-token")
        self.server.set_app(self.site.app)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        studio.queue.open()

    def ask(
        self, method: str, path: str, content: Any = None, **headers: str | None
    ) -> tuple[int, Any, dict[str, str]]:
        """Return status, content and headers of an answer to what the page would send; None leaves a header out."""
        host = f"127.0.0.1:{self.site.port}"
        own: dict[str, str | None] = {"Host": host, "Cookie": f"studio-{self.site.port}=the-token"}
        body = content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
        if method == "POST":
            own |= {
                "Origin": f"http://{host}",
                "Content-Type": "application/json",
                "Content-Length": str(len(body or b"")),
            }
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=SECONDS)
        try:
            connection.putrequest(method, path, skip_host=True)
            for name, value in own.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            text = answer.read()
            told = dict(answer.getheaders())
            kind = told.get("Content-Type", "")
            return answer.status, json.loads(text) if kind.startswith("application/json") else text, told
        finally:
            connection.close()

    def post(self, path: str, content: Any = None) -> Any:
        status, told, _ = self.ask("POST", path, {} if content is None else content)
        assert status == 200, told
        return told

    def refusal(self, path: str, content: Any) -> str:
        """Return the one line that a request is refused with."""
        status, told, _ = self.ask("POST", path, content)
        assert status in (400, 411, 413, 415), told
        assert list(told) == ["error"]
        assert told["error"]
        assert "\n" not in told["error"]
        return told["error"]

    def close(self) -> None:
        self.site.closing.set()
        self.studio.bell.ring()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def page(studio) -> Iterator[Served]:
    """A studio that is served."""
    pytest.importorskip("bottle", reason="the page is served with bottle")
    made = Served(studio)
    yield made
    made.close()
