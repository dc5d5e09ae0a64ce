"""The page's server: on this machine only, for who has the token, one thread for each request.

Every request must name this server as its host, and have the token, in the address of the page the first time and in a
cookie from then on. One that comes from another site's page names that as its origin, and is refused.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import shlex
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tools.cli.command_line import describe
from tools.cli.options import COLORS, Options
from tools.media.files import byte_count
from tools.media.record import finite
from tools.models.cache import DRAFT
from tools.studio.networks import Networks
from tools.studio.order import LIVE, MAX_PAINTINGS, form_of, order_from
from tools.studio.queue import Bell, Queue
from tools.studio.ready import plan_of
from tools.studio.run import Run, Shown
from tools.studio.shelf import Made, Shelf, as_jpeg

HOST = "127.0.0.1"

MAX_UPLOAD = 100_000_000
"""Bytes of a picture that is brought in."""

MAX_SIDE = 8192
"""Long side of a picture that is made here: a slip of the finger shall not fill the queue with days of work."""

_MAX_FORM = 1_000_000
_ALIVE_SECONDS = 15.0
_EVENT_SECONDS = 0.1

_TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript"}
_TYPES |= {".jpg": "image/jpeg", ".png": "image/png"}

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RefusedError(Exception):
    """A request that is not answered; carries the status and a sentence."""


def bottle_module() -> Any:
    """Return bottle, which serves the page; raises ValueError where it is missing."""
    try:
        import bottle
    except ImportError:
        raise ValueError("the page is served with bottle, which is missing: pip install '.[studio]'") from None
    return bottle


class Site:
    """What the page asks for and sends, on a studio.

    Parameters
    ----------
    shelf, networks, queue, bell : the studio.
    port : that it is served on.
    token : whoever has it may use the page.

    Raises ValueError where bottle is missing.
    """

    def __init__(self, shelf: Shelf, networks: Networks, queue: Queue, bell: Bell, port: int, token: str) -> None:
        bottle = bottle_module()
        self.shelf, self.networks, self.queue, self.bell = shelf, networks, queue, bell
        self.port, self.token = port, token
        self.closing = threading.Event()
        self._bottle = bottle
        self.app = bottle.Bottle()
        self.app.install(self._guarded)
        self.app.default_error_handler = self._plain_error
        for method, path, answer in (
            ("GET", "/", self._page),
            ("GET", "/page.<suffix:re:css|js>", self._file),
            ("GET", "/about", self._about),
            ("GET", "/events", self._events),
            ("GET", "/inputs/<name>", self._input),
            ("GET", "/run/<number:int>/<which:re:now|before>.jpg", self._shown),
            ("GET", "/pictures/<number:int>.png", self._picture),
            ("GET", "/pictures/<number:int>.jpg", self._thumbnail),
            ("POST", "/inputs", self._bring_in),
            ("POST", "/estimate", self._estimate),
            ("POST", "/runs", self._start),
            ("POST", "/run/<number:int>/<command:re:pause|resume|stop|change|larger>", self._command),
            ("POST", "/queue/<number:int>/remove", self._remove),
            ("POST", "/pictures/<number:int>/<command:re:again|larger>", self._once_more),
        ):
            self.app.route(path, method, answer)

    @property
    def address(self) -> str:
        """The page's address, with the token."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    # ---- who may ask ----

    def _guarded(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        """Return an answer that is given only to who may have it, and whose errors are one line of JSON."""

        def guarded(**arguments: Any) -> Any:
            try:
                self._check()
                return answer(**arguments)
            except RefusedError as refused:
                status, reason = refused.args
            except (ValueError, ArithmeticError, OSError, MemoryError) as error:
                status, reason = 400, describe(error)
            return self._answer(json.dumps({"error": reason}), "application/json", status=status)

        return guarded

    def _check(self) -> None:
        request = self._bottle.request
        port = "" if self.port == 80 else f":{self.port}"  # as browsers have it
        own = {f"{HOST}{port}", f"localhost{port}"}
        if request.get_header("Host") not in own:
            raise RefusedError(403, "this is not the host that was asked for")
        origin = request.get_header("Origin")
        # A browser names the origin of whatever is not a plain look at a page.
        if origin not in {f"http://{host}" for host in own} and (origin is not None or request.method != "GET"):
            raise RefusedError(403, "this comes from another site's page")
        given = request.query.get("token") or self._token_of_cookie(request.get_header("Cookie") or "")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            raise RefusedError(403, "the token is missing: open the address that the studio has printed")

    def _token_of_cookie(self, header: str) -> str:
        """Return the token in a request's cookies, among those of other programs, whatever these may look like."""
        cookies = (part.strip().partition("=") for part in header.split(";"))
        return next((value.strip('"') for name, _, value in cookies if name == self._cookie), "")

    @property
    def _cookie(self) -> str:
        return f"studio-{self.port}"  # a cookie knows no ports

    def _answer(self, body: Any, kind: str, status: int = 200, **headers: str) -> Any:
        return self._bottle.HTTPResponse(
            body,
            status,
            headers={**_HEADERS, "Content-Type": kind, **{n.replace("_", "-"): v for n, v in headers.items()}},
        )

    def _json(self, value: Any) -> Any:
        return self._answer(json.dumps(finite(value)), "application/json")

    def _plain_error(self, error: Any) -> str:
        error.content_type = "application/json"
        if error.status_code == 500:
            return json.dumps({"error": f"the studio failed: {describe(error.exception or error)}"})
        return json.dumps({"error": "there is nothing here"})

    # ---- what can be asked for ----

    def _page(self) -> Any:
        answer = self._static(".html")
        answer.set_cookie(self._cookie, self.token, httponly=True, samesite="strict", path="/")
        return answer

    def _file(self, suffix: str) -> Any:
        return self._static(f".{suffix}")

    def _static(self, suffix: str) -> Any:
        return self._answer(Path(__file__).with_name(f"page{suffix}").read_bytes(), _TYPES[suffix])

    def _about(self) -> Any:
        """Tell what can be chosen, and how the real network is got where it is missing."""
        fetch = ["python", "-m", "tools.models", "fetch", "vgg19"]
        fetch += [] if self.networks.cache is None else ["--cache", str(self.networks.cache)]
        defaults = Options()
        return self._json(
            {
                "models": self.networks.names,
                "default": self.networks.default,
                "fetch": shlex.join(fetch) if self.networks.names == [DRAFT] else None,
                "colors": list(COLORS),
                "live": sorted(LIVE),
                "layers": list(defaults.style_layers),
                "size": defaults.size,
                "iterations": defaults.iterations,
                "largest": MAX_SIDE,
                "paintings": MAX_PAINTINGS,
                "upload": MAX_UPLOAD,
                "folder": str(self.shelf.folder),
            }
        )

    def _input(self, name: str) -> Any:
        return self._answer(
            self.shelf.input_view(unquote(name)), _TYPES[".jpg"], Cache_Control="private, max-age=86400"
        )

    def _shown(self, number: int, which: str) -> Any:
        run = self.queue.seen(number)  # the page may ask for its last pictures when it has just ended
        shown: Shown | None = run.shown if which == "now" else run.before
        if shown is None:
            raise RefusedError(404, "there is no picture yet")
        return self._answer(as_jpeg(shown.pixels, shown.alpha), _TYPES[".jpg"])

    def _picture(self, number: int) -> Any:
        made = self.shelf.picture(number)
        name = f'inline; filename="picture-{made.name}"'
        return self._answer(self.shelf.picture_path(made.name).read_bytes(), _TYPES[".png"], Content_Disposition=name)

    def _thumbnail(self, number: int) -> Any:
        return self._answer(self.shelf.thumbnail(self.shelf.picture(number)), _TYPES[".jpg"])

    def _events(self) -> Any:
        return self._answer(self._stream(), "text/event-stream")

    def _stream(self) -> Iterator[bytes]:
        """Yield where everything stands, whenever that has changed: what the page has already is left out."""
        heard, pictures, run, points = -1, -1, 0, 0
        while not self.closing.is_set():
            last, heard = heard, self.bell.wait(heard, _ALIVE_SECONDS)
            if heard == last:
                yield b": still here\n\n"
                continue
            current = self.queue.current
            if current is not None and current.number != run:
                run, points = current.number, 0
            new = [] if current is None else current.points(points)
            told: dict[str, Any] = {
                "run": None if current is None else self._run(current) | {"first": points, "points": new},
                "waiting": [self._order(waiting) for waiting in self.queue.waiting],
                "failures": [dataclasses.asdict(failure) for failure in self.queue.failures],
            }
            points += len(new)
            made = self.shelf.pictures
            if len(made) != pictures:
                pictures = len(made)
                told["pictures"] = [self._made(one) for one in made]
            yield f"data: {json.dumps(finite(told))}\n\n".encode()
            time.sleep(_EVENT_SECONDS)

    def _order(self, run: Run) -> dict[str, Any]:
        return {"number": run.number, "form": form_of(run.order)}

    def _run(self, run: Run) -> dict[str, Any]:
        state = dataclasses.asdict(run.state)
        try:
            command = self.queue.command(run.order)
        except ValueError:  # one of its files has gone meanwhile
            command = ""
        return self._order(run) | state | {"command": command, "marks": run.marks, "steered": run.steered}

    def _made(self, made: Made) -> dict[str, Any]:
        height, width = made.size
        return {
            "number": made.number,
            "form": made.form,
            "facts": made.facts,
            "steered": made.steered,
            "command": made.command,
            "width": width,
            "height": height,
        }

    # ---- what can be done ----

    def _bring_in(self) -> Any:
        request = self._bottle.request
        name = unquote(request.get_header("X-Name") or "picture")
        content = self._body(MAX_UPLOAD, "pictures")
        if not content:
            raise ValueError(f"{name!r} is empty")
        kept = self.shelf.bring_in(name, content, painting=request.query.get("as") == "painting")
        height, width = self.shelf.size_of(kept)
        return self._json({"name": kept, "width": width, "height": height})

    def _estimate(self) -> Any:
        order = order_from(self._form(), self.networks.names, self.shelf.has)
        plan = plan_of(order, self.shelf, self.networks)
        height, width = plan.size
        free = dataclasses.replace(order, options=dataclasses.replace(order.options, content_weight=None))
        recommended = plan_of(free, self.shelf, self.networks).options.content_weight
        return self._json(
            {
                "width": width,
                "height": height,
                "memory": byte_count(plan.needed),
                "seconds": plan.seconds,
                "levels": plan.options.levels,
                "content_weight": plan.options.content_weight,
                "recommended": recommended,
                "model": plan.options.model,
                "command": self.queue.command(order),
            }
        )

    def _start(self) -> Any:
        return self._add(self._form())

    def _add(self, form: Any) -> Any:
        order = order_from(form, self.networks.names, self.shelf.has)
        if order.options.size > MAX_SIDE:
            raise ValueError(f"{order.options.size} pixels are more than {MAX_SIDE}: use the command line for that")
        plan_of(order, self.shelf, self.networks)
        return self._json({"number": self.queue.add(order).number})

    def _command(self, number: int, command: str) -> Any:
        run = self.queue.running(number)
        if command == "pause":
            run.pause()
        elif command == "resume":
            run.resume()
        elif command == "stop":
            run.stop()
        elif command == "larger":
            size = self._size()
            plan_of(run.order.larger("", size), self.shelf, self.networks)  # before anything is stopped for it
            run.stop(then_larger=size)
        else:
            run.change(order_from(self._form(), self.networks.names, self.shelf.has))
        return self._json({"number": number, "form": form_of(run.order)})

    def _remove(self, number: int) -> Any:
        self.queue.remove(number)
        return self._json({"number": number})

    def _once_more(self, number: int, command: str) -> Any:
        made = self.shelf.picture(number)
        if command == "again":
            return self._add(made.form)
        order = order_from(made.form, self.networks.names, self.shelf.has).larger(made.name, self._size())
        plan_of(order, self.shelf, self.networks)
        return self._json({"number": self.queue.add(order).number})

    def _size(self) -> int:
        form = self._form()
        size = form.get("size") if isinstance(form, dict) else None
        if not isinstance(size, int) or not 1 <= size <= MAX_SIDE:
            raise ValueError(f"the size must be a whole number of 1 to {MAX_SIDE} pixels")
        return size

    def _form(self) -> Any:
        if self._bottle.request.content_type.partition(";")[0] != "application/json":
            raise RefusedError(415, "a form is sent as application/json")
        try:
            return json.loads(self._body(_MAX_FORM, "forms"))
        except (ValueError, RecursionError):
            raise ValueError("the form is damaged: load the page again") from None

    def _body(self, most: int, what: str) -> bytes:
        """Return the request's content; raises RefusedError for more than it may have, before it is read."""
        length = self._bottle.request.get_header("Content-Length") or ""
        if not length.isdigit():
            raise RefusedError(411, "the request does not tell its length")
        if int(length) > most:
            raise RefusedError(413, f"{byte_count(int(length))} are too much: {what} have at most {byte_count(most)}")
        content: bytes = self._bottle.request.body.read()
        if len(content) < int(length):
            raise ValueError("the file broke off on its way: try once more")
        return content


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke off."""


class _Handler(WSGIRequestHandler):
    timeout = 60

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


def server_on(port: int) -> WSGIServer:
    """Return a server that has its port; ``set_app`` tells it what to serve, and ``serve_forever`` does.

    Parameters
    ----------
    port : 0 for any that is free.

    Raises ValueError for a port that is taken.
    """
    try:
        return _Server((HOST, port), _Handler)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"cannot serve on port {port}: {reason}; choose another --port") from None
