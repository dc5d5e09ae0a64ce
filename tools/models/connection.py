"""Connections over HTTP that cannot hang: what they lead to, when they are given up, and why in words."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NoReturn


class LostError(Exception):
    """A try ended early; another may do better."""


class RefusedError(Exception):
    """An address does not have the file; trying it again does not help."""


def opened(request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
    """Return the answer to a request, redirects followed.

    Parameters
    ----------
    timeout
        Longest silence of the server in seconds.

    Raises
    ------
    urllib.error.HTTPError
        For an answer that is an error.
    LostError, RefusedError
        If there is no answer.
    """
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        _raise_failure(error, timeout)
    return response


def read_some(response: http.client.HTTPResponse, count: int, timeout: float) -> bytes:
    """Return what has arrived of an answer's body, up to ``count`` bytes; nothing at its end. Raises as ``opened``."""
    try:
        # read1, not read: it hands over what has arrived, so that a break loses nothing.
        return response.read1(count)
    except (OSError, http.client.HTTPException) as error:
        _raise_failure(error, timeout)


def _raise_failure(error: BaseException, timeout: float) -> NoReturn:
    """Raise LostError or RefusedError for what urllib raised; the text never holds an address."""
    while isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, TimeoutError):
        raise LostError(f"no answer within {timeout:g} s") from None
    if isinstance(error, ssl.SSLCertVerificationError):
        raise RefusedError(f"its certificate is not trusted, {error.verify_message}") from None
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "unknown reason").replace("_", " ").lower()
        raise LostError(f"secure connection failed, {reason}") from None
    if isinstance(error, socket.gaierror):
        raise LostError("its host name cannot be resolved") from None
    if isinstance(error, ConnectionRefusedError):
        raise LostError("connection refused") from None
    if isinstance(error, (ConnectionError, http.client.IncompleteRead)):
        raise LostError("connection lost") from None
    if isinstance(error, http.client.BadStatusLine):
        raise LostError("its answer is not HTTP") from None
    if isinstance(error, urllib.error.URLError):
        raise RefusedError(_one_line(str(error.reason))) from None
    if isinstance(error, OSError):
        raise LostError(_one_line(error.strerror or str(error))) from None
    if isinstance(error, http.client.InvalidURL) or not isinstance(error, http.client.HTTPException):
        raise RefusedError("the address is not valid") from None
    raise LostError(f"its answer is not proper HTTP, {type(error).__name__}") from None


class _Watched(http.client.HTTPConnection):
    """A connection whose answer has to be there, with its headers, before the time for a silence is over."""

    def connect(self) -> None:
        with self._watched():
            super().connect()

    def getresponse(self) -> http.client.HTTPResponse:
        with self._watched():
            return super().getresponse()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        late = threading.Event()

        def cut() -> None:
            late.set()
            if self.sock is not None:
                with contextlib.suppress(OSError):
                    self.sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self.timeout or 0, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException):
            if late.is_set():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
        if late.is_set():
            raise TimeoutError


class _WatchedSecure(_Watched, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Watched, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_WatchedSecure, req)


def _opener() -> urllib.request.OpenerDirector:
    """Return urllib's usual opener without ftp:, file: and data:, to which a redirect or a mirror could lead."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        _Http(),
        _Https(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _one_line(text: str) -> str:
    return " ".join(text.split())
