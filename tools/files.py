"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def check_writable(path: Path) -> None:
    """Raise ValueError unless a file can be created or replaced at ``path``; nothing is left behind."""
    if path.is_dir():
        raise ValueError(f"cannot write {str(path)!r}: it is a directory, give a file name")
    if path.exists() and not path.is_file():
        raise ValueError(f"cannot write {str(path)!r}: it is a device or a pipe, give a file name")
    folder = path.parent
    if not folder.is_dir():
        raise ValueError(f"cannot write {str(path)!r}: the folder {str(folder)!r} does not exist")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, where there is none; raise ValueError when that cannot be."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"cannot write to {str(path)!r}: it is a file, give a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {str(path)!r}: {error.strerror or error}") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is renamed over ``path``, on any failure removed."""
    check_writable(path)
    path = Path(os.path.realpath(path))  # a link stays, the file that it names is replaced
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private to their owner; a result has the rights of any other new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
