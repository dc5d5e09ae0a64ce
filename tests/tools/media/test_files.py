from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.disk import full_disk
from tools.media import files
from tools.media.files import (
    Lines,
    byte_count,
    check_folder,
    check_lines,
    check_writable,
    creating,
    exclusive,
    make_folder,
    replacing,
    sha256_of,
    write_text,
)

# ---- files that appear whole ----


@pytest.mark.parametrize("write", [replacing, creating])
def test_a_file_that_does_not_fit_leaves_nothing_and_is_named(tmp_path, write):
    path = tmp_path / "a.txt"
    with full_disk(100), pytest.raises(ValueError, match=f"cannot write '{path}': ") as error, write(path) as temporary:
        temporary.write_text("x" * 1000)
    assert os.strerror(errno.EFBIG) in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="files have no such rights there")
def test_a_file_that_is_replaced_keeps_its_rights_and_a_new_one_has_those_of_any(tmp_path):
    path = tmp_path / "a.txt"
    mask = os.umask(0o027)
    try:
        with replacing(path) as temporary:
            temporary.write_text("first")
        assert path.stat().st_mode & 0o777 == 0o640
        for rights in (0o600, 0o666, 0o755):
            path.chmod(rights)
            with replacing(path) as temporary:
                temporary.write_text("again")
            assert path.stat().st_mode & 0o777 == rights
        (tmp_path / "link").symlink_to(path)
        path.chmod(0o600)
        with replacing(tmp_path / "link") as temporary:
            temporary.write_text("through a link")
        assert (path.read_text(), path.stat().st_mode & 0o777) == ("through a link", 0o600)
    finally:
        os.umask(mask)


def test_a_file_that_is_protected_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("mine")
    # Not by its mode alone: for the superuser nothing is protected.
    monkeypatch.setattr(os, "access", lambda found, mode: not (Path(found) == path and mode == os.W_OK))
    for check in (check_writable, check_lines, Lines):
        with pytest.raises(ValueError, match=f"cannot write '{path}': it is protected against writing"):
            check(path)
    assert path.read_text() == "mine"


def test_a_file_that_is_replaced_keeps_its_rights(tmp_path):
    path = tmp_path / "private.txt"
    write_text(path, "mine")
    assert stat.S_IMODE(path.stat().st_mode) != 0o600
    path.chmod(0o600)
    write_text(path, "still mine")
    assert (stat.S_IMODE(path.stat().st_mode), path.read_text()) == (0o600, "still mine")


def test_a_link_is_looked_at_where_it_leads(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "missing" / "a.txt")
    with pytest.raises(ValueError, match=f"cannot write '{link}': the folder '.*missing' does not exist"):
        check_writable(link)
    (tmp_path / "missing").mkdir()
    check_writable(link)
    with replacing(link) as temporary:
        temporary.write_text("x")
    assert link.is_symlink()
    assert (tmp_path / "missing" / "a.txt").read_text() == "x"


@pytest.mark.parametrize("check", [check_folder, make_folder])
def test_what_is_in_the_way_of_a_folder_is_told(tmp_path, check):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("missing")
    for name, message in {
        "file": "is a file",
        "loop": "a link that leads nowhere",
        "dangling": "leads nowhere",
    }.items():
        with pytest.raises(ValueError, match=f"cannot write to '{tmp_path / name}': .*{message}.*, give a folder"):
            check(tmp_path / name)


def together(*functions: Callable[[], None]) -> list[BaseException]:
    """Run functions in threads that start at the same time; return what they raised."""
    ready, raised = threading.Barrier(len(functions)), []

    def run(function: Callable[[], None]) -> None:
        ready.wait()
        try:
            function()
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_of_several_that_create_a_file_one_succeeds(tmp_path):
    path = tmp_path / "a.txt"
    all_written = threading.Barrier(8)

    def create(text: str) -> None:
        with creating(path) as temporary:
            temporary.write_text(text)
            all_written.wait()

    raised = together(*(lambda text=str(number) * 1000: create(text) for number in range(8)))
    assert [type(error) for error in raised] == [FileExistsError] * 7
    assert len(set(path.read_text())) == 1
    assert len(path.read_text()) == 1000
    assert list(tmp_path.iterdir()) == [path]


def test_without_hard_links_a_file_that_is_there_is_still_left_alone(tmp_path, monkeypatch):
    def no_links(*names: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(files.os, "link", no_links)
    path = tmp_path / "a.txt"
    for text in ("first", "second"):
        with contextlib.suppress(FileExistsError), creating(path) as temporary:
            temporary.write_text(text)
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


# ---- files that grow ----


def test_lines_can_be_read_as_they_come(tmp_path):
    path = tmp_path / "log"
    path.write_text("an older one\n")
    with Lines(path) as lines:
        for number in range(3):
            lines.write(f"line {number}")
            assert path.read_text() == "".join(f"line {n}\n" for n in range(number + 1))


def test_a_line_that_does_not_fit_is_not_there_in_part_not_even_later(tmp_path):
    path = tmp_path / "log"
    with Lines(path) as lines:
        lines.write("fits")
        with full_disk(10), pytest.raises(ValueError, match=f"cannot write '{path}': "):
            lines.write("does not fit")
    assert path.read_text() == "fits\n"


def test_lines_that_remained_none_leave_no_file(tmp_path):
    path = tmp_path / "log"
    with Lines(path) as lines, full_disk(3), pytest.raises(ValueError, match="cannot write"):
        lines.write("does not fit")
    assert not path.exists()
    path.write_text("")
    with Lines(path):
        pass
    assert path.exists()


def test_lines_go_to_a_device_too():
    check_lines(Path(os.devnull))
    with Lines(Path(os.devnull)) as lines:
        lines.write("gone")


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing/log", "the folder '.*missing' does not exist"), (".", "it is a directory"), ("pipe", "or a pipe")],
)
def test_where_no_lines_can_be_written_is_told_before_and_does_not_wait(tmp_path, name, message):
    os.mkfifo(tmp_path / "pipe")
    for check in (check_lines, Lines):
        with pytest.raises(ValueError, match=f"cannot write '.*': .*{message}"):
            check(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


# ---- what is in a file, and who holds it ----


def test_the_hash_of_a_file(tmp_path):
    data = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_a_lock_is_held_by_one_at_a_time_and_its_file_goes_with_it(tmp_path):
    lock = tmp_path / "lock"
    message = re.escape(f"the other is running, wait for it to end ({str(lock)!r})")
    for _ in range(2):
        with exclusive(lock, "the first"):
            with pytest.raises(ValueError, match=f"^{message}$"), exclusive(lock, "the other"):
                pass
            assert lock.exists()
        assert not lock.exists()


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (574_673_361, "574.7 MB"),
        (3_200_000_000, "3.2 GB"),
        (5_000_000_000_000, "5.0 TB"),
    ],
)
def test_byte_count(count, text):
    assert byte_count(count) == text


def test_a_durable_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(tmp_path, monkeypatch):
    events, fsync, replace = [], os.fsync, Path.replace

    def synchronized(handle):
        status = os.fstat(handle)
        events.append("folder" if stat.S_ISDIR(status.st_mode) else ("file", status.st_size))
        fsync(handle)

    def renamed(self, target):
        events.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synchronized)
    monkeypatch.setattr(Path, "replace", renamed)
    with replacing(tmp_path / "a", durable=True) as temporary:
        temporary.write_bytes(b"12345")
    assert events == [("file", 5), "name", "folder"]
    assert (tmp_path / "a").read_bytes() == b"12345"


def test_lines_go_on_behind_those_that_are_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("first\nsecond\nthird, half")
    with Lines(path, kept=13) as lines:
        assert lines.size == 13
        lines.write("another")
    assert path.read_text() == "first\nsecond\nanother\n"
    with Lines(path, kept=1000) as lines:
        lines.write("last")
    assert path.read_text() == "first\nsecond\nanother\nlast\n"
