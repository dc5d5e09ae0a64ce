"""Fetching a file of known size and digest over HTTP: resumed, verified, and put in place whole or not at all."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.cli.disk import check_space
from tools.media.files import byte_count, check_writable, digest_of, exclusive
from tools.models.connection import LostError, RefusedError, opened, read_some

PAUSES = (1.0, 2.0, 4.0)
"""Seconds to wait before each further try at the same address."""

SLOWEST = 1000
"""Bytes a second; a server that is slower is left."""

_ALGORITHMS = {"sha256": (64, "SHA-256"), "md5": (32, "MD5")}
_CHUNK = 1 << 18
# A try that got this many bytes further than any before it makes the tries count from the beginning.
_PROGRESS = 1 << 20
_HEAD = 512
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

Report = Callable[[int, int], object]


@dataclass(frozen=True)
class RemoteFile:
    """A file to download and what it must turn out to be.

    Parameters
    ----------
    name
        What messages call it.
    digest
        Its SHA-256 as 64 hexadecimal digits, or what ``algorithm`` gives of it.
    size
        Its length in bytes, at least 1.
    urls
        The http or https addresses that have it, the preferred first. A name and password in an address
        (``https://name:password@host/file``) are sent as basic authentication, to that host only.
    algorithm
        ``"sha256"``, or ``"md5"`` where the publisher tells no other: two files of one MD5 can be made, so look inside.

    Raises
    ------
    ValueError
        If the hash, the size or an address cannot be one.
    """

    name: str
    digest: str
    size: int
    # Out of the representation: an address may hold a password.
    urls: tuple[str, ...] = field(repr=False)
    algorithm: str = "sha256"

    def __post_init__(self) -> None:
        digits, label = _ALGORITHMS[self.algorithm]
        if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", self.digest):
            raise ValueError(f"the {label} of {self.name} must be {digits} hexadecimal digits, got {self.digest!r}")
        if self.size < 1:
            raise ValueError(f"the size of {self.name} must be at least 1 byte, got {self.size}")
        if not self.urls:
            raise ValueError(f"{self.name} has no address to download it from")
        for number, url in enumerate(self.urls, start=1):
            try:
                parts = urllib.parse.urlsplit(url)
                usable = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
            except ValueError:
                usable = False
            if not usable:
                raise ValueError(f"address {number} of {self.name} is not of the form http(s)://host/path")


class _RangeError(Exception):
    """The server cannot continue where the partial file ends."""


def download(
    remote: RemoteFile,
    destination: Path,
    *,
    progress: Report | None = None,
    timeout: float = 30.0,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Download ``remote`` to ``destination``, which is replaced only by a complete and verified file.

    The bytes collect in ``destination`` + ``.part``. When the download is interrupted that file stays, and the next
    call continues it. Every address is tried in turn, each a few times if the connection breaks.

    Parameters
    ----------
    remote
        What to fetch, and from where.
    destination
        The file to write; its folder must exist.
    progress
        Called with the bytes present and the bytes in all: first where a transfer starts, then as data arrive.
    timeout
        Longest silence of a server in seconds.
    sleep
        Waits the given number of seconds between tries.

    Raises
    ------
    ValueError
        If ``destination`` cannot be written, the disk has not enough space, another download of it is running, or no
        address delivers the file; then the message gives the failure at every address.
    OSError
        If writing the partial file fails.
    """
    check_writable(destination)
    part = destination.with_name(destination.name + ".part")
    with exclusive(part.with_name(part.name + ".lock"), f"another download of {remote.name}"):
        _make_own(part)
        if _present(part) > remote.size:
            part.unlink()
        if not _complete_already(part, remote, progress):
            check_space(part.parent, remote.name, remote.size - _present(part))
            _fetch(remote, part, progress, timeout, sleep)
        part.replace(destination)


def verify(path: Path, remote: RemoteFile) -> None:
    """Check the size and the digest of a local file.

    Raises
    ------
    ValueError
        If either is not that of ``remote``; the message gives what was found and what was expected.
    OSError
        If the file cannot be read.
    """
    difference = _difference(path, remote)
    if difference:
        raise ValueError(f"{str(path)!r} is not {remote.name}: {difference}")


def _make_own(part: Path) -> None:
    """Remove a partial file that is a link, or has another name: what it leads to would be written over.

    Raises ValueError for what is no file.
    """
    try:
        there = part.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(there.st_mode) or (stat.S_ISREG(there.st_mode) and there.st_nlink > 1):
        part.unlink()
    elif not stat.S_ISREG(there.st_mode):
        raise ValueError(f"{str(part)!r} is in the way, and is no file: remove it")


def _fetch(
    remote: RemoteFile, part: Path, progress: Report | None, timeout: float, sleep: Callable[[float], object]
) -> None:
    """Leave the complete, verified file at ``part`` or raise ValueError with every address' failure."""
    failures = []
    for url in remote.urls:
        try:
            _fetch_from(url, remote, part, progress, timeout, sleep)
        except RefusedError as failure:
            failures.append(f"{_shown(url)}: {failure}")
        else:
            return
    present = _present(part)
    if present:
        advice = f"run it again to continue after the {byte_count(present)} in {str(part)!r}"
    else:
        part.unlink(missing_ok=True)
        advice = "check the network connection or give another address"
    raise ValueError(f"cannot download {remote.name} ({'; '.join(failures)}): {advice}")


def _fetch_from(
    url: str,
    remote: RemoteFile,
    part: Path,
    progress: Report | None,
    timeout: float,
    sleep: Callable[[float], object],
) -> None:
    """Complete ``part`` from one address; raise RefusedError if that cannot be done."""
    tries = 0
    furthest = _present(part)
    resume = True
    all_from_here = False
    while True:
        try:
            present = _present(part) if resume else 0
            response, start = _request(url, remote, present, timeout)
            all_from_here = all_from_here or start == 0
            with response:
                _receive(response, start, remote, part, progress, timeout)
        except _RangeError:
            resume = False
            continue
        except LostError as failure:
            if _present(part) >= furthest + _PROGRESS:
                furthest = _present(part)
                tries = 0
            if tries == len(PAUSES):
                raise RefusedError(f"{failure}, {tries + 1} tries") from None
            sleep(PAUSES[tries])
            tries += 1
            # Where the server refused to continue, what it has sent since then is its own and can be continued.
            resume = resume or all_from_here
            continue
        difference = _difference(part, remote)
        if not difference:
            return
        part.unlink()
        if all_from_here:
            raise RefusedError(f"it sends something else: {difference}")
        # The beginning came from an earlier run or another address: this address may well have the right file.


def _request(url: str, remote: RemoteFile, present: int, timeout: float) -> tuple[http.client.HTTPResponse, int]:
    """Ask for the file from byte ``present`` on; return the open response and the byte that it starts at."""
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = urllib.parse.quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit((parts.scheme, host, path, query, "")))
    request.add_header("User-Agent", "neural-style-by-hand")
    # With any other encoding neither the ranges nor the length would be those of the file.
    request.add_header("Accept-Encoding", "identity")
    if present:
        request.add_header("Range", f"bytes={present}-")
    if login:
        token = base64.b64encode(urllib.parse.unquote_to_bytes(login)).decode("ascii")
        # Unredirected: the host that a redirect leads to must not learn the password.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    try:
        response = opened(request, timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and present:
            raise _RangeError from None
        if 300 <= error.code < 400:
            # urllib's own text holds the address redirected to, which may be signed.
            raise RefusedError("it redirects in a circle or to something other than http(s)") from None
        message = f"{error.code} {http.client.responses.get(error.code, 'error')}"
        raise (LostError(message) if error.code in _PASSING else RefusedError(message)) from None
    try:
        return response, _start(response, remote, present)
    except BaseException:
        response.close()
        raise


def _start(response: http.client.HTTPResponse, remote: RemoteFile, present: int) -> int:
    """Return the byte that a response starts at."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise RefusedError("it sends compressed data although the plain file was asked for")
    if response.status == 206 and present:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if match is None:
            raise _RangeError
        first, last = int(match[1]), int(match[2])
        if match[3] != "*" and int(match[3]) != remote.size:
            raise RefusedError(f"it has a file of {_exactly(int(match[3]))} where {_exactly(remote.size)} are expected")
        if first != present or last >= remote.size or response.length not in (None, last - first + 1):
            raise _RangeError
        return present
    if response.status != 200:
        raise RefusedError(
            f"unexpected answer {response.status} {http.client.responses.get(response.status, '')}".rstrip()
        )
    return 0


def _receive(
    response: http.client.HTTPResponse,
    start: int,
    remote: RemoteFile,
    part: Path,
    progress: Report | None,
    timeout: float,
) -> None:
    """Write a response into ``part`` from byte ``start`` on; return when the file has its full size."""
    length = response.length
    if start == 0 and length not in (None, remote.size):
        # Nothing is written: what ``part`` holds may still be continued from another address.
        head = read_some(response, _HEAD, timeout)
        raise RefusedError(f"it sends {_kind(head) or 'a file'} of {_exactly(length)}, not {_exactly(remote.size)}")
    done = start
    if progress is not None:
        progress(done, remote.size)
    since, then = time.monotonic(), done
    # Unbuffered: nothing is left to be written, and to fail a second time, when the file is closed.
    with part.open("ab" if start else "wb", buffering=0) as file:
        while chunk := read_some(response, _CHUNK, timeout):
            if done + len(chunk) > remote.size:
                # Emptied, or the next address would continue it.
                file.truncate(0)
                raise RefusedError(f"it sends more than the expected {_exactly(remote.size)}")
            with _naming(part):
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]
            done += len(chunk)
            if progress is not None:
                progress(done, remote.size)
            # A server that sends a byte now and then is never silent, and never done.
            if (passed := time.monotonic() - since) > timeout:
                if done < remote.size and done - then < SLOWEST * passed:
                    raise LostError(f"only {_exactly(done - then)} in {passed:.0f} s")
                since, then = time.monotonic(), done
        if done == remote.size:
            with _naming(part):
                os.fsync(file.fileno())
    if done < remote.size:
        kind = _kind(_head(part)) if start == 0 else ""
        # Without a length the end of the connection is the only sign of the end, unless the body came in chunks.
        if start == 0 and length is None and (response.chunked or kind):
            part.unlink()
            raise RefusedError(f"it sends {kind or 'a file'} of {_exactly(done)}, not {_exactly(remote.size)}")
        raise LostError(f"connection lost after {byte_count(done)} of {byte_count(remote.size)}")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the path, which the system leaves out of an error of an open file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _complete_already(part: Path, remote: RemoteFile, progress: Report | None) -> bool:
    if _present(part) != remote.size:
        return False
    if _difference(part, remote):
        part.unlink()
        return False
    if progress is not None:
        progress(remote.size, remote.size)
    return True


def _difference(path: Path, remote: RemoteFile) -> str:
    """Return how a file differs from ``remote``, empty if it does not."""
    size = path.stat().st_size
    if size == remote.size:
        found, label = digest_of(path, remote.algorithm), _ALGORITHMS[remote.algorithm][1]
        if found == remote.digest.lower():
            return ""
        text = f"its {label} is {found} where {remote.digest.lower()} is expected"
    else:
        text = f"it has {_exactly(size)} where {_exactly(remote.size)} are expected"
    kind = _kind(_head(path))
    return f"{text}, it looks like {kind}" if kind else text


def _kind(head: bytes) -> str:
    """Return what a file is that often arrives in place of another, judged by its first bytes; else nothing."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs."):
        return "a Git LFS pointer"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if text.startswith(b"<?xml"):
        return "a web page" if b"<html" in text else "an XML document"
    if head.startswith(b"PK\x03\x04"):
        return "a ZIP archive"
    if head.startswith(b"\x1f\x8b"):
        return "a gzip archive"
    return ""


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _present(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _exactly(count: int | None) -> str:
    return f"{count:,} byte{'' if count == 1 else 's'}"


def _shown(url: str) -> str:
    """Return an address without name, password and query, any of which may be secret."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
