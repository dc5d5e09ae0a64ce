from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import os
import pathlib
import random
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

import tools.media.files
from tools.models.download import PAUSES, RemoteFile, download, verify

DATA = random.Random(0).randbytes(3_000_001)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 3000001\n"
PAGE = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"
TRIES = len(PAUSES) + 1


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        # Each response ends its connection, so that a body without a length has an end.
        self.close_connection = True
        path = self.path.split("?")[0]
        self.server.seen.append((path, self.headers["Range"]))
        self.server.requests.append((self.path, dict(self.headers)))
        answers = self.server.answers[path]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


class Site(ThreadingHTTPServer):
    """Serves scripted answers: one for each request to a path, the last of them again and again."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.over = threading.Event()

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def at(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self.server_port}{path}"


Answer = Callable[[Handler], None]


def requested_start(handler: Handler) -> int:
    match = re.fullmatch(r"bytes=(\d+)-", handler.headers["Range"] or "bytes=0-")
    assert match
    return int(match[1])


def serve(data: bytes = DATA, *, stop_at: int | None = None, hang: bool = False, ranges: bool = True) -> Answer:
    """Answer as a good server does; break the connection, or hang, when byte ``stop_at`` of the file is reached."""

    def answer(handler: Handler) -> None:
        start = requested_start(handler) if ranges else 0
        if start >= len(data):
            handler.head(416, Content_Range=f"bytes */{len(data)}", Content_Length=0)
            return
        if ranges and handler.headers["Range"]:
            content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
            handler.head(206, Content_Length=len(data) - start, Content_Range=content_range)
        else:
            handler.head(200, Content_Length=len(data))
        handler.wfile.write(data[start:stop_at])
        handler.wfile.flush()
        if hang:
            handler.server.over.wait(10)

    return answer


def status(code: int, body: bytes = PAGE, **headers: object) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(code, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return answer


def without_length(data: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(200, Connection="close")
        handler.wfile.write(data)

    return answer


def chunked(data: bytes) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(200, Transfer_Encoding="chunked")
        for i in range(0, len(data), 100_000):
            piece = data[i : i + 100_000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return answer


def partial(content_range: str | None, data: bytes) -> Answer:
    """Answer a request for a range with a 206 that is wrong, any other properly."""

    def answer(handler: Handler) -> None:
        if handler.headers["Range"]:
            extra = {} if content_range is None else {"Content_Range": content_range}
            handler.head(206, Content_Length=len(data), **extra)
            handler.wfile.write(data)
        else:
            serve()(handler)

    return answer


def hang_up(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def say_nonsense(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path) -> Path:
    return tmp_path / "model.onnx"


def part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def remote(*urls: str, data: bytes = DATA) -> RemoteFile:
    return RemoteFile("the model", hashlib.sha256(data).hexdigest(), len(data), urls)


def fetch(target: Path, *urls: str, **options) -> list[float]:
    """Download without waiting; return the pauses asked for."""
    pauses: list[float] = []
    download(remote(*urls), target, sleep=pauses.append, **options)
    assert target.read_bytes() == DATA
    assert names(target.parent) == [target.name]
    return pauses


def failure(target: Path, *urls: str, kept: int = 0, **options) -> str:
    """Download in vain; return the message after checking that only a partial file of ``kept`` bytes is left."""
    with pytest.raises(ValueError) as caught:
        download(remote(*urls), target, sleep=lambda _: None, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("cannot download the model (")
    left = {path.name: path.stat().st_size for path in target.parent.iterdir()}
    assert left == ({part_of(target).name: kept} if kept else {})
    if kept:
        assert message.endswith(f"kB in {str(part_of(target))!r}") or "MB in" in message
    else:
        assert message.endswith("check the network connection or give another address")
    return message


# One good server.


def test_whole_file(site, target):
    url = site.at("/m", serve())
    assert fetch(target, url) == []
    assert site.seen == [("/m", None)]
    assert site.requests[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("answer", [chunked(DATA), without_length(DATA)])
def test_body_of_unknown_length(site, target, answer):
    fetch(target, site.at("/m", answer))


def test_progress_begins_where_the_transfer_does(site, target):
    calls: list[tuple[int, int]] = []
    part_of(target).write_bytes(DATA[:1_000_000])
    fetch(target, site.at("/m", serve()), progress=lambda done, total: calls.append((done, total)))
    assert calls[0] == (1_000_000, len(DATA))
    assert calls[-1] == (len(DATA), len(DATA))
    assert calls == sorted(calls)
    assert len(calls) > 3


def test_an_old_destination_stays_until_the_new_one_is_complete(site, target):
    target.write_bytes(b"old")
    seen = set()
    fetch(target, site.at("/m", serve()), progress=lambda *_: seen.add(target.read_bytes()))
    assert seen == {b"old"}


def test_an_old_destination_survives_failure(site, target):
    target.write_bytes(b"old")
    with pytest.raises(ValueError):
        download(remote(site.at("/m", status(404))), target)
    assert target.read_bytes() == b"old"
    assert names(target.parent) == [target.name]


def test_file_has_the_rights_of_any_new_file(site, target):
    fetch(target, site.at("/m", serve()))
    usual = target.with_name("usual")
    usual.write_bytes(b"")
    assert target.stat().st_mode == usual.stat().st_mode


def test_redirects_are_followed_with_the_range(site, target):
    part_of(target).write_bytes(DATA[:5])
    there = site.at("/there", serve())
    fetch(target, site.at("/m", status(302, Location="/half")), site.at("/half", status(307, Location=there)))
    assert site.seen == [("/m", "bytes=5-"), ("/half", "bytes=5-"), ("/there", "bytes=5-")]


def test_addresses_are_quoted(site, target):
    site.at("/a%20b/%C3%A9%41", serve())
    fetch(target, f"http://127.0.0.1:{site.server_port}/a b/é%41?key=a b")
    assert site.requests[0][0] == "/a%20b/%C3%A9%41?key=a%20b"


# Resuming.


def test_a_partial_file_is_continued(site, target):
    part_of(target).write_bytes(DATA[:1_234_567])
    assert fetch(target, site.at("/m", serve())) == []
    assert site.seen == [("/m", "bytes=1234567-")]


def test_a_broken_connection_is_continued(site, target):
    url = site.at("/m", serve(stop_at=700_000), serve(stop_at=900_001), serve())
    assert fetch(target, url) == [PAUSES[0], PAUSES[1]]
    assert site.seen == [("/m", None), ("/m", "bytes=700000-"), ("/m", "bytes=900001-")]


def test_tries_count_anew_after_progress(site, target):
    stops = [700_000] * 3 + [1_800_000] * 3
    url = site.at("/m", *(serve(stop_at=stop) for stop in stops), serve())
    assert fetch(target, url) == [PAUSES[0], PAUSES[1], PAUSES[2], PAUSES[0], PAUSES[1], PAUSES[2]]


def test_breaks_without_an_end_give_up(site, target):
    message = failure(target, site.at("/m", serve(stop_at=1_000)), kept=1_000)
    assert len(site.seen) == TRIES
    assert f"connection lost after 1.0 kB of 3.0 MB, {TRIES} tries" in message
    assert f"run it again to continue after the 1.0 kB in {str(part_of(target))!r}" in message


def test_breaks_of_a_server_without_ranges_give_up(site, target):
    failure(target, site.at("/m", serve(stop_at=2_500_000, ranges=False)), kept=2_500_000)
    assert len(site.seen) == TRIES


def test_a_server_without_ranges_starts_again(site, target):
    part_of(target).write_bytes(b"x" * 1_000)
    calls: list[int] = []
    fetch(target, site.at("/m", serve(ranges=False)), progress=lambda done, total: calls.append(done))
    assert site.seen == [("/m", "bytes=1000-")]
    assert calls[0] == 0


@pytest.mark.parametrize(
    "answer",
    [
        partial(None, DATA[1000:]),
        partial("bytes 0-3000000/3000001", DATA),
        partial("bytes 999-3000000/3000001", DATA[999:]),
        partial("bytes 1000-3000000/3000001", DATA[1001:]),
        partial("bytes 1000-3000001/*", DATA[1000:] + b"x"),
        partial("1000-3000000", DATA[1000:]),
    ],
)
def test_a_wrong_range_starts_again(site, target, answer):
    part_of(target).write_bytes(DATA[:1000])
    assert fetch(target, site.at("/m", answer)) == []
    assert site.seen == [("/m", "bytes=1000-"), ("/m", None)]


def test_a_server_that_limits_ranges(site, target):
    part_of(target).write_bytes(DATA[:1000])
    url = site.at("/m", partial("bytes 1000-1999/3000001", DATA[1000:2000]), serve())
    fetch(target, url)
    assert site.seen == [("/m", "bytes=1000-"), ("/m", "bytes=2000-")]


def test_range_not_satisfiable_starts_again(site, target):
    part_of(target).write_bytes(DATA[:1000])
    fetch(target, site.at("/m", status(416), serve()))
    assert site.seen == [("/m", "bytes=1000-"), ("/m", None)]


def test_a_refused_range_is_not_asked_for_again_until_there_are_new_bytes(site, target):
    part_of(target).write_bytes(b"x" * 1000)
    fetch(target, site.at("/m", status(416), hang_up, serve(stop_at=500), serve()))
    assert [range_ for _, range_ in site.seen] == ["bytes=1000-", None, None, "bytes=500-"]


def test_a_shorter_file_on_the_server_leaves_the_partial_one(site, target):
    part_of(target).write_bytes(DATA[:2000])
    message = failure(target, site.at("/m", serve(DATA[:1500])), kept=2000)
    assert "it sends a file of 1,500 bytes, not 3,000,001 bytes" in message


def test_a_longer_file_on_the_server_is_refused_when_resuming(site, target):
    part_of(target).write_bytes(DATA[:2000])
    message = failure(target, site.at("/m", serve(DATA + b"x")), kept=2000)
    assert "it has a file of 3,000,002 bytes where 3,000,001 bytes are expected" in message


def test_a_complete_partial_file_needs_no_request(target):
    part_of(target).write_bytes(DATA)
    calls: list[tuple[int, int]] = []
    fetch(target, "http://127.0.0.1:1/m", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(len(DATA), len(DATA))]


@pytest.mark.parametrize("size", [len(DATA), len(DATA) + 1])
def test_a_partial_file_that_cannot_be_right_is_dropped(site, target, size):
    part_of(target).write_bytes(b"x" * size)
    fetch(target, site.at("/m", serve()))
    assert site.seen == [("/m", None)]


def test_a_wrong_beginning_is_not_held_against_the_address(site, target):
    part_of(target).write_bytes(b"x" * 1000)
    fetch(target, site.at("/m", serve()))
    assert site.seen == [("/m", "bytes=1000-"), ("/m", None)]


# Other addresses.


def test_the_next_address_continues(site, target):
    first = site.at("/first", serve(stop_at=1_000), status(404))
    fetch(target, first, site.at("/second", serve()))
    assert site.seen == [("/first", None), ("/first", "bytes=1000-"), ("/second", "bytes=1000-")]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
def test_a_refusal_is_not_repeated(site, target, code):
    assert fetch(target, site.at("/first", status(code)), site.at("/second", serve())) == []
    assert [path for path, _ in site.seen] == ["/first", "/second"]


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_repeated(site, target, code):
    assert fetch(target, site.at("/m", status(code), hang_up, say_nonsense, serve())) == list(PAUSES)


def test_wrong_bytes_are_dropped_and_the_next_address_starts_anew(site, target):
    wrong = DATA[:-1] + b"\0"
    fetch(target, site.at("/first", serve(wrong)), site.at("/second", serve()))
    assert site.seen == [("/first", None), ("/second", None)]


def test_wrong_bytes_of_one_address_are_completed_by_the_next_then_fetched_anew(site, target):
    first = site.at("/first", serve(b"x" * len(DATA), stop_at=1_000))
    fetch(target, first, site.at("/second", serve()))
    assert site.seen[TRIES:] == [("/second", "bytes=1000-"), ("/second", None)]


def test_every_failure_is_told(site, target):
    wrong = b"x" * len(DATA)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/m"
        message = failure(
            target,
            site.at("/missing", status(404)),
            closed,
            site.at("/busy", status(503)),
            site.at("/mute", hang_up),
            site.at("/odd", say_nonsense),
            site.at("/circle", status(302, Location="/circle")),
            site.at("/file", status(302, Location="file:///etc/passwd")),
            site.at("/ftp", status(302, Location="ftp://127.0.0.1/m")),
            site.at("/none", status(204, b"")),
            site.at("/zip", status(200, b"", Content_Encoding="gzip")),
            site.at("/wrong", serve(wrong)),
        )
    here = f"http://127.0.0.1:{site.server_port}"
    told = message[message.index("(") + 1 : message.rindex(")")].split("; ")
    assert told == [
        f"{here}/missing: 404 Not Found",
        f"{closed}: connection refused, {TRIES} tries",
        f"{here}/busy: 503 Service Unavailable, {TRIES} tries",
        f"{here}/mute: connection lost, {TRIES} tries",
        f"{here}/odd: its answer is not HTTP, {TRIES} tries",
        f"{here}/circle: it redirects in a circle or to something other than http(s)",
        f"{here}/file: it redirects in a circle or to something other than http(s)",
        f"{here}/ftp: unknown url type: ftp",
        f"{here}/none: unexpected answer 204 No Content",
        f"{here}/zip: it sends compressed data although the plain file was asked for",
        f"{here}/wrong: it sends something else: its SHA-256 is {hashlib.sha256(wrong).hexdigest()} "
        f"where {hashlib.sha256(DATA).hexdigest()} is expected",
    ]


@pytest.mark.parametrize("hang", [serve(stop_at=0, hang=True), lambda handler: handler.server.over.wait(10)])
def test_a_hanging_server_is_left(site, target, hang):
    message = failure(target, site.at("/m", hang), timeout=0.05)
    assert f"no answer within 0.05 s, {TRIES} tries" in message


@pytest.mark.slow
def test_what_came_before_a_hang_is_kept(site, target):
    fetch(target, site.at("/m", serve(stop_at=1_000, hang=True), serve()), timeout=0.5)
    assert site.seen == [("/m", None), ("/m", "bytes=1000-")]


def test_unknown_host(target, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = failure(target, "https://nowhere.invalid/m")
    assert f"https://nowhere.invalid/m: its host name cannot be resolved, {TRIES} tries" in message


def test_secure_connection_to_a_plain_server(site, target):
    message = failure(target, f"https://127.0.0.1:{site.server_port}/m")
    assert re.search(rf"/m: secure connection failed, [a-z ]+, {TRIES} tries", message)


def test_untrusted_certificate_is_not_tried_again(target, monkeypatch):
    tries = []

    def refuse(*args, **kwargs):
        tries.append(args)
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_message = "self-signed certificate"
        raise error

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "create_connection", refuse)
    message = failure(target, "https://127.0.0.1/m")
    assert "https://127.0.0.1/m: its certificate is not trusted, self-signed certificate)" in message
    assert len(tries) == 1


# Something else in place of the file.


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (POINTER, "a Git LFS pointer"),
        (PAGE, "a web page"),
        (b"\xef\xbb\xbf<HTML></HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error/>', "an XML document"),
        (b'<?xml version="1.0"?>\n<html></html>', "a web page"),
        (b"PK\x03\x04abcdefgh", "a ZIP archive"),
        (b"\x1f\x8b\x08abcdefgh", "a gzip archive"),
        (b"anything", "a file"),
        (b"", "a file"),
    ],
)
def test_what_came_instead_is_named(site, target, body, kind):
    for answer in (status(200, body), chunked(body)):
        message = failure(target, site.at("/m", answer))
        assert f"it sends {kind} of {len(body)} bytes, not 3,000,001 bytes)" in message
    assert len(site.seen) == 2


def test_a_page_without_length_is_named(site, target):
    assert f"it sends a web page of {len(PAGE)} bytes" in failure(target, site.at("/m", without_length(PAGE)))
    assert len(site.seen) == 1


def test_a_page_of_the_right_size_is_named(site, target):
    message = failure(target, site.at("/m", serve(PAGE.ljust(len(DATA)))))
    assert "is expected, it looks like a web page)" in message


def test_a_file_of_another_length_is_refused_before_it_comes(site, target):
    calls: list[object] = []
    message = failure(target, site.at("/m", serve(DATA + b"x")), progress=lambda *call: calls.append(call))
    assert "it sends a file of 3,000,002 bytes, not 3,000,001 bytes" in message
    assert calls == []


def test_too_much_data_of_unknown_length_is_cut_off(site, target, monkeypatch):
    largest = 0

    def endless(handler: Handler) -> None:
        handler.head(200, Connection="close")
        while not handler.server.over.is_set():
            handler.wfile.write(b"x" * 100_000)

    def watch(done: int, total: int) -> None:
        nonlocal largest
        largest = max(largest, done, part_of(target).stat().st_size if done else 0)

    message = failure(target, site.at("/m", endless), progress=watch)
    assert "it sends more than the expected 3,000,001 bytes" in message
    assert 2_500_000 < largest <= len(DATA)


# This side.


def test_interruption_keeps_the_partial_file(site, target):
    def interrupt(done: int, total: int) -> None:
        if done >= 1_000_000:
            raise KeyboardInterrupt

    url = site.at("/m", serve())
    with pytest.raises(KeyboardInterrupt):
        download(remote(url), target, progress=interrupt)
    assert names(target.parent) == [part_of(target).name]
    present = part_of(target).read_bytes()
    assert len(present) >= 1_000_000
    assert DATA.startswith(present)
    fetch(target, url)
    assert site.seen == [("/m", None), ("/m", f"bytes={len(present)}-")]


def test_two_downloads_at_once(site, target):
    url = site.at("/m", serve(stop_at=1_000, hang=True), serve())
    begun = threading.Event()
    first = threading.Thread(
        target=download,
        args=(remote(url), target),
        kwargs={"progress": lambda done, total: done and begun.set(), "sleep": lambda _: None},
    )
    first.start()
    assert begun.wait(5)
    with pytest.raises(ValueError, match="another download of the model is running, wait for it to end") as caught:
        download(remote(url), target)
    assert "\n" not in str(caught.value)
    site.over.set()
    first.join()
    assert site.seen == [("/m", None), ("/m", "bytes=1000-")]
    assert target.read_bytes() == DATA
    assert names(target.parent) == [target.name]


def test_many_downloads_at_once_leave_a_whole_file(site, target):
    url = site.at("/m", serve())
    outcomes: list[str] = []

    def attempt() -> None:
        try:
            download(remote(url), target)
            outcomes.append("done")
        except ValueError as error:
            outcomes.append(str(error)[:16])

    threads = [threading.Thread(target=attempt) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 12
    assert set(outcomes) <= {"done", "another download"}
    assert "done" in outcomes
    assert target.read_bytes() == DATA
    assert names(target.parent) == [target.name]


def test_a_lock_that_its_owner_has_just_removed_does_not_count(target, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    lock = part_of(target).with_name("model.onnx.part.lock")
    take = tools.media.files._lock_handle
    with contextlib.ExitStack() as stack:

        def late(handle: int) -> None:
            # Between opening and locking, one download ends and removes the file, and another begins with a new one.
            monkeypatch.setattr(tools.media.files, "_lock_handle", take)
            lock.unlink()
            fcntl.flock(stack.enter_context(lock.open("w")), fcntl.LOCK_EX)
            take(handle)

        monkeypatch.setattr(tools.media.files, "_lock_handle", late)
        with pytest.raises(ValueError, match="another download of the model is running"):
            download(remote("http://127.0.0.1:1/m"), target)


def test_a_folder_without_locks_is_told(target, monkeypatch):
    def unable(handle: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(tools.media.files, "_lock_handle", unable)
    with pytest.raises(ValueError, match="choose a folder on a local disk: No locks available"):
        download(remote("http://127.0.0.1:1/m"), target)


def test_a_killed_download_leaves_no_lock_behind(site, target):
    url = site.at("/m", serve(stop_at=1_000, hang=True), serve())
    program = (
        "import sys, pathlib\n"
        "from tools.models.download import RemoteFile, download\n"
        "url, digest, size, target = sys.argv[1:]\n"
        "show = lambda done, total: print(done, flush=True)\n"
        "download(RemoteFile('m', digest, int(size), (url,)), pathlib.Path(target), progress=show)\n"
    )
    wanted = remote(url)
    command = [sys.executable, "-c", program, url, wanted.digest, str(wanted.size), str(target)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "0\n"
        assert child.stdout.readline() == "1000\n"
        with pytest.raises(ValueError, match="another download"):
            download(wanted, target)
        child.kill()
    assert names(target.parent) == ["model.onnx.part", "model.onnx.part.lock"]
    fetch(target, url)
    assert site.seen == [("/m", None), ("/m", "bytes=1000-")]


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_what_a_partial_file_leads_to_is_not_written_over(site, target, tmp_path, link):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "precious.txt"
    other.write_bytes(b"mine")
    link(other, part_of(target))
    download(remote(site.at("/m", serve())), target)
    assert target.read_bytes() == DATA
    assert other.read_bytes() == b"mine"
    assert not target.is_symlink()


def test_a_partial_file_that_is_none_is_told_and_not_waited_for(site, target):
    os.mkfifo(part_of(target))
    with pytest.raises(ValueError, match=r"\.part' is in the way, and is no file: remove it"):
        download(remote(site.at("/m", serve())), target)


@pytest.mark.parametrize("where", ["body", "headers"])
def test_a_server_that_drips_is_left_for_another(site, target, where):
    """It is never silent for long, and would never be done."""

    def drip(handler: Handler) -> None:
        if where == "body":
            handler.head(200, Content_Length=len(DATA))
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        with contextlib.suppress(OSError):
            while not handler.server.over.wait(0.05):
                handler.wfile.write(b"x")
                handler.wfile.flush()

    slow, good = site.at("/slow", drip), site.at("/good", serve())
    download(remote(slow, good), target, timeout=0.3, sleep=lambda seconds: None)
    assert target.read_bytes() == DATA
    with pytest.raises(ValueError, match=r"only \d+ bytes? in \d+ s|no answer within 0\.3 s"):
        download(remote(slow), target, timeout=0.3, sleep=lambda seconds: None)


def test_full_disk_is_told_before_anything_is_asked(site, target, monkeypatch):
    part_of(target).write_bytes(DATA[:1_000_000])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_000))
    with pytest.raises(ValueError, match="not enough disk space in") as caught:
        download(remote(site.at("/m", serve())), target)
    assert str(caught.value).endswith("for the model: 2.0 MB needed, 2.0 MB free")
    assert site.seen == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_000_001))
    fetch(target, site.at("/m", serve()))


def test_a_failing_write_names_the_file_and_is_not_repeated(site, target, monkeypatch):
    class Full(io.FileIO):
        def write(self, data) -> int:
            if self.tell() >= 1_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[: 1_000 - self.tell()])

    plain = pathlib.Path.open

    def opened(self, mode="r", buffering=-1, **options):
        return Full(self, mode) if self == part_of(target) and "r" not in mode else plain(self, mode, buffering)

    monkeypatch.setattr(pathlib.Path, "open", opened)
    with pytest.raises(OSError, match="No space left") as caught:
        download(remote(site.at("/m", serve())), target)
    assert caught.value.filename == str(part_of(target))
    assert len(site.seen) == 1
    assert part_of(target).read_bytes() == DATA[:1_000]


def test_an_error_of_the_callback_is_passed_on(site, target):
    def fail(done: int, total: int) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError) as caught:
        download(remote(site.at("/m", serve())), target, progress=fail)
    assert caught.value.filename is None
    assert len(site.seen) == 1


def test_destination_must_be_writable(site, tmp_path):
    wanted = remote(site.at("/m", serve()))
    with pytest.raises(ValueError, match="does not exist"):
        download(wanted, tmp_path / "missing" / "model.onnx")
    with pytest.raises(ValueError, match="is a directory"):
        download(wanted, tmp_path)
    assert site.seen == []


# Secrets.


def test_a_login_goes_to_its_host_only(site, target):
    other = Site()
    thread = threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        there = other.at("/there", serve())
        site.at("/m", status(302, Location=there))
        fetch(target, f"http://name:p%40ss@127.0.0.1:{site.server_port}/m")
    finally:
        other.shutdown()
        thread.join()
        other.server_close()
    sent = base64.b64decode(site.requests[0][1]["Authorization"].removeprefix("Basic "))
    assert sent == b"name:p@ss"
    assert other.seen == [("/there", None)]
    assert "Authorization" not in other.requests[0][1]


def test_secrets_are_never_shown(site, target):
    place = f"name:s3cret@127.0.0.1:{site.server_port}"
    site.at("/m", status(403))
    site.at("/wrong", serve(b"x"))
    site.at("/away", status(302, Location="file://x/?sig=s3cret"))
    urls = [f"http://{place}/{path}?sig=s3cret#s3cret" for path in ("m", "wrong", "away")]
    message = failure(target, *urls)
    assert f"http://127.0.0.1:{site.server_port}/m: 403 Forbidden" in message
    assert "s3cret" not in message
    assert "s3cret" not in repr(remote(*urls))


# What a remote file can be, and local checks.


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/m",
        "/tmp/m",
        "http:///m",
        "https://name:s3cret@host:port/m",
        "https://name:s3cret#@host/m",
        "http://[s3cret/m",
        "",
    ],
)
def test_only_http_addresses(url):
    with pytest.raises(ValueError, match=r"address 2 of the model is not of the form http\(s\)://host/path") as caught:
        remote("https://host/m", url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("digest", "size", "urls", "message"),
    [
        ("0" * 63, 1, ("http://host/m",), "64 hexadecimal digits"),
        ("g" * 64, 1, ("http://host/m",), "64 hexadecimal digits"),
        ("0" * 64, 0, ("http://host/m",), "at least 1 byte"),
        ("0" * 64, 1, (), "no address"),
    ],
)
def test_impossible_remote_files(digest, size, urls, message):
    with pytest.raises(ValueError, match=message):
        RemoteFile("the model", digest, size, urls)


def test_verify(tmp_path):
    path = tmp_path / "model.onnx"
    wanted = remote("http://host/m")
    with pytest.raises(FileNotFoundError):
        verify(path, wanted)
    path.write_bytes(DATA)
    verify(path, wanted)
    verify(path, RemoteFile("the model", wanted.digest.upper(), wanted.size, wanted.urls))
    path.write_bytes(POINTER)
    expected = f"{str(path)!r} is not the model: it has {len(POINTER)} bytes where 3,000,001 bytes are expected"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}, it looks like a Git LFS pointer$"):
        verify(path, wanted)
    path.write_bytes(bytes(len(DATA)))
    found = hashlib.sha256(bytes(len(DATA))).hexdigest()
    with pytest.raises(ValueError, match=f"its SHA-256 is {found} where {wanted.digest} is expected$"):
        verify(path, wanted)
