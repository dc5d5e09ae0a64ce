"""Files written so that a reader never sees half of one, hashed, and held against other processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

UNFINISHED = ".unfinished-"
"""What the names of temporary files begin with; one is left behind only by a program that was killed."""


def check_writable(path: Path) -> None:
    """Raise ValueError unless a file can be created or replaced at ``path``; nothing is left behind."""
    problem = f"cannot write {str(path)!r}"
    try:
        folder = (Path(os.path.realpath(path)) if path.is_symlink() else path).parent
        if path.is_dir():
            raise ValueError(f"{problem}: it is a directory, give a file name")
        if path.exists() and not path.is_file():
            raise ValueError(f"{problem}: it is a device or a pipe, give a file name")
        _check_unprotected(path)
        if not folder.is_dir():
            raise ValueError(f"{problem}: the folder {str(folder)!r} does not exist")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{problem}: {error.strerror or error}") from None


def check_lines(path: Path) -> None:
    """Raise ValueError unless ``Lines`` can be written to ``path``; nothing is left behind."""
    if path.is_file():
        _check_unprotected(path)
    elif not path.is_char_device():
        check_writable(path)


def check_folder(path: Path) -> None:
    """Raise ValueError where something else than a folder is in the way of one."""
    problem = f"cannot write to {str(path)!r}"
    try:
        if path.is_symlink() and not path.exists():
            raise ValueError(f"{problem}: it is a link that leads nowhere, give a folder")
        if path.exists() and not path.is_dir():
            raise ValueError(f"{problem}: it is a file, give a folder")
    except OSError as error:
        raise ValueError(f"{problem}: {error.strerror or error}") from None


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, where there is none; raise ValueError when that cannot be."""
    check_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {str(path)!r}: {error.strerror or error}") from None


@contextlib.contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is renamed over ``path``, on any failure removed.

    Parameters
    ----------
    durable : the file is on the disk before it is renamed, and its new name afterward: a machine that loses its power
        has the old file or the new one.

    Raises ValueError when the file cannot be written: OSErrors while it is are taken for its own.
    """
    with _finished_by(_replaced_durably if durable else os.replace, path) as temporary:
        yield temporary


def _replaced_durably(temporary: Path, path: Path) -> None:
    _synchronize(temporary)
    temporary.replace(path)
    with contextlib.suppress(OSError):  # Windows opens no folders, and some disks of a network have no such wish
        _synchronize(path.parent)


def _synchronize(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; raises ValueError as ``replacing`` does."""
    with replacing(path) as temporary:
        # What Unicode cannot encode, the stray bytes of a file name, is written as an escape.
        temporary.write_text(text, "utf-8", errors="backslashreplace")


@contextlib.contextmanager
def creating(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``, which must not exist: of several that try at once, one succeeds.

    Raises FileExistsError, with the file as it was, for those who come too late, and ValueError as ``replacing`` does.
    """
    with _finished_by(_linked, path) as temporary:
        yield temporary


@contextlib.contextmanager
def _finished_by(finish: Callable[[Path, Path], None], path: Path) -> Iterator[Path]:
    check_writable(path)
    target = Path(os.path.realpath(path))  # a link stays, the file that it names is replaced
    try:
        with unfinished(target) as (_, temporary):
            yield temporary
            temporary.chmod(_rights_of(target))
            finish(temporary, target)
    except FileExistsError:
        raise
    except OSError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def _rights_of(path: Path) -> int:
    """Return the rights that a file there gets: those of the one that it replaces, else those of any new file.

    ``mkstemp`` makes files private to their owner.
    """
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextlib.contextmanager
def unfinished(target: Path) -> Iterator[tuple[int, Path]]:
    """Give the handle and the path of an empty file beside ``target``, which is removed in the end if still there.

    It is locked, so that ``remove_unfinished`` tells it from what a program that was killed has left. On Windows the
    handle is closed already: there others could not write to it.
    """
    handle, temporary = _locked_file(target)
    while handle is None:
        handle, temporary = _locked_file(target)
    try:
        yield handle, temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if sys.platform != "win32":
            os.close(handle)


def _locked_file(target: Path) -> tuple[int | None, Path]:
    """Return an empty file beside ``target``; None for its handle where another process took it for a dead one's."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=UNFINISHED, suffix=target.suffix)
    temporary = Path(name)
    if sys.platform == "win32":
        os.close(handle)
        return handle, temporary
    with contextlib.suppress(OSError):  # a disk without locks: nobody will take it
        try:
            _lock_handle(handle)
            if os.path.samestat(os.fstat(handle), temporary.stat()):
                return handle, temporary
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(handle)
        return None, temporary
    return handle, temporary


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that programs have left in a folder which were killed while they wrote."""
    if sys.platform == "win32":  # nothing tells there whether one is in use
        return
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if not stat.S_ISREG(path.lstat().st_mode):
                    continue
                handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
                try:
                    _lock_handle(handle)
                    path.unlink()
                finally:
                    os.close(handle)


def _linked(temporary: Path, path: Path) -> None:
    """Give a file a name that must be free."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without hard links, such as a memory stick's: here two at the very same time are not told apart.
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.replace(path)


class Lines:
    """A text file that grows line by line and can be read at any time; use it as a context manager.

    Opening it empties it. It may be a device, such as a terminal. A file that has remained empty is removed in the end
    where it was not there before.

    Parameters
    ----------
    path : the file to write.
    kept : how many of its bytes stay, for what follows them; of a file that is shorter, all.

    Attributes
    ----------
    size : bytes so far.

    Raises ValueError when it cannot be written.
    """

    def __init__(self, path: Path, kept: int = 0) -> None:
        self._path = path
        self._new = not path.exists()
        check_lines(path)
        try:
            # Without a buffer: what a full disk has not taken shall not be tried again when the file is closed.
            self._file = path.open("ab" if kept else "wb", buffering=0)
            self.size = min(kept, path.stat().st_size) if path.is_file() else 0
            if self.size:
                self._file.truncate(self.size)
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
            if self._new and not self.size and self._path.is_file():
                self._path.unlink()

    def write(self, line: str) -> None:
        """Add a line, whole or not at all; raises ValueError when the disk is full."""
        left = memoryview(f"{line}\n".encode("utf-8", "backslashreplace"))
        size = self.size + len(left)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self.size)
            raise self._unwritable(error) from None
        self.size = size

    def _unwritable(self, error: OSError) -> ValueError:
        return ValueError(f"cannot write {str(self._path)!r}: {error.strerror or error}")


def _check_unprotected(path: Path) -> None:
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"cannot write {str(path)!r}: it is protected against writing")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 lower-case hexadecimal digits, reading it in pieces.

    Raises OSError if the file cannot be read.
    """
    return digest_of(path, "sha256")


def digest_of(path: Path, algorithm: str) -> str:
    """Return a file's digest as lower-case hexadecimal digits, reading it in pieces.

    Parameters
    ----------
    algorithm : ``"sha256"`` or ``"md5"``.

    Raises OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def exclusive(lock: Path, holder: str) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends.

    Parameters
    ----------
    lock : the file that is locked; it is there only while somebody holds it.
    holder : what messages call another process that holds it, as "another download of FILE".

    Raises ValueError if another process holds the lock or the folder cannot have one.
    """
    handle = _take_lock(lock, holder)
    while handle is None:
        handle = _take_lock(lock, holder)
    try:
        yield
    finally:
        if sys.platform == "win32":
            # An open file cannot be removed there; one that another process has just opened stays and harms nothing.
            os.close(handle)
            with contextlib.suppress(OSError):
                lock.unlink()
        else:
            # Removed while still locked: afterward it could be the next process' lock.
            with contextlib.suppress(OSError):
                lock.unlink()
            os.close(handle)


def _take_lock(lock: Path, holder: str) -> int | None:
    """Return the handle of the locked file, or None if its last owner removed it meanwhile."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock_handle(handle)
        there = lock.stat()
        if os.path.samestat(os.fstat(handle), there):
            return handle
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"{holder} is running, wait for it to end ({str(lock)!r})") from None
    except FileNotFoundError:
        pass
    except OSError as error:
        os.close(handle)
        raise ValueError(
            f"cannot lock {str(lock)!r}, choose a folder on a local disk: {error.strerror or error}"
        ) from None
    os.close(handle)
    return None


if sys.platform == "win32":
    import msvcrt

    def _lock_handle(handle: int) -> None:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from None

else:
    import fcntl

    def _lock_handle(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def byte_count(count: int) -> str:
    """Return a number of bytes as a person reads it, in powers of 1000: ``130 bytes``, ``574.7 MB``."""
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    value = count / 1000
    for unit in ("kB", "MB", "GB"):
        if value < 999.95:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
