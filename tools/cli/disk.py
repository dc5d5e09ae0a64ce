"""Space on the disk for what a run will write, and a picture that finds none."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from tools.cli.command_line import FULL
from tools.media.files import byte_count, unfinished
from tools.media.saving import save_image

PICTURE_BYTES = 20_000
"""Of a picture beside its pixels: color profile, settings, and what compression adds to noise."""


def picture_bytes(pixels: int, channels: int = 3) -> int:
    """Return the bytes of a picture's file at most, about: of noise, which cannot be compressed."""
    return PICTURE_BYTES + pixels * channels * 102 // 100


def check_space(folder: Path, name: str, needed: int) -> None:
    """Raise ValueError where a folder's disk has less than the bytes needed for what ``name`` says.

    A folder that is yet to be made is looked at where it would be.
    """
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    free = shutil.disk_usage(there).free
    if free < needed:
        raise ValueError(
            f"not enough disk space in {str(folder)!r} for {name}: {byte_count(needed)} needed, {byte_count(free)} free"
        )


class Space:
    """Bytes on a disk that are kept for a file until it is written; use it as a context manager.

    Parameters
    ----------
    path : of the file, whose folder exists.
    needed : how many bytes.

    Raises ValueError where the disk does not have them.
    """

    def __init__(self, path: Path, needed: int) -> None:
        self._kept = contextlib.ExitStack()
        target = Path(os.path.realpath(path))
        try:
            handle, _ = self._kept.enter_context(unfinished(target))
            if not _allocated(handle, needed):
                check_space(target.parent, path.name, needed)
        except OSError as error:
            self.release()
            no_room = f"its disk has no {byte_count(needed)} for it, " if error.errno in FULL else ""
            raise ValueError(f"cannot write {str(path)!r}: {no_room}{error.strerror or error}") from None
        except ValueError:
            self.release()
            raise

    def release(self) -> None:
        """Give the bytes back, for the file itself."""
        self._kept.close()

    def __enter__(self) -> Space:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _allocated(handle: int, needed: int) -> bool:
    """Allocate bytes for a file; return False where disk or system cannot do that, other than for being full."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(handle, 0, needed)
    except OSError as error:
        if error.errno in FULL:
            raise
        return False
    return True


def save_somewhere(path: Path, pixels: NDArray[Any], alpha: NDArray[Any] | None, text: Mapping[str, str]) -> None:
    """Write a picture as ``save_image`` does; one that cannot be written there is written where it can be.

    Raises ValueError where it is not at ``path``, which says where it is.
    """
    try:
        save_image(path, pixels, alpha, text)
    except ValueError as error:
        for folder in _other_folders():
            saved = _saved_in(folder, path, pixels, alpha, text)
            if saved is not None:
                raise ValueError(f"{error}; the picture is in {saved!r} instead") from None
        raise


def _other_folders() -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield tempfile.gettempdir()
    with contextlib.suppress(RuntimeError):
        yield str(Path.home())


def _saved_in(
    folder: str, path: Path, pixels: NDArray[Any], alpha: NDArray[Any] | None, text: Mapping[str, str]
) -> str | None:
    try:
        handle, name = tempfile.mkstemp(path.suffix, f"{path.stem}-", folder)
    except OSError:
        return None
    os.close(handle)
    try:
        save_image(name, pixels, alpha, text)
    except ValueError:
        Path(name).unlink(missing_ok=True)
        return None
    return name
