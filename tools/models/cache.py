"""The cache of fetched models, and what a model's name stands for.

Of a classifier only the convolution part is of use here. Published files are therefore kept as that part alone, in a
cache folder: about 80 MB instead of 575, and read in a fraction of the time. A weight file of another program is
converted there once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from engine.errors import unknown_name
from engine.onnx.reader import read_onnx
from engine.vgg import KNOWN_FILES, KnownFile
from tools.cli.command_line import tell
from tools.cli.progress import Progress
from tools.media.files import sha256_of, write_text
from tools.models.download import RemoteFile, download, verify
from tools.models.folder import default_cache, make_cache
from tools.models.originals import ORIGINALS, ZOO_ADDRESSES
from tools.models.part import write_part
from tools.models.weights.convert import convert
from tools.models.weights.kind import UnknownKindError, kind_of

DRAFT = "draft"
"""The small network that comes with the program: VGG-19's layers at a quarter of the width, see docs/draft.md."""

DRAFT_FILE = Path(__file__).with_name("draft.onnx")

LARGE_FILE = 200_000_000
"""From this many bytes on, a file's convolution part is kept in the cache."""


def resolve_model(name_or_path: str, cache: Path | None = None) -> Path:
    """Return the ONNX file to load for a name or a path.

    Of an ONNX file above 200 MB the convolution part is written into the cache on first use and returned from then on,
    until the file changes. It gives the same features to the bit. Where that part cannot be written, the file itself is
    returned. A weight file of another program is converted into the cache in the same way.

    Parameters
    ----------
    name_or_path : a file, ``draft`` for the network that comes with the program, or the name of a published model
        (``vgg19``, ``vgg16``, ``vgg19-7`` ...) in the cache. A file that exists goes before a name.
    cache : folder of the cached models; None means ``default_cache()``.

    Raises ValueError for a name that is not in the cache, with the command that fetches it, for what is neither a name
    nor a file, and for a weight file that cannot be converted.
    """
    path = model_file(name_or_path, cache)
    if path.is_file() and is_foreign(path):
        return _converted(path, cache)
    try:
        if path.stat().st_size > LARGE_FILE:
            return _cached_part(path, cache or default_cache())
    except (OSError, ValueError):
        # Whatever is wrong with the file, loading it will say; without a cache it only takes longer.
        pass
    return path


def is_foreign(path: Path) -> bool:
    """Tell whether a file has weights in the format of another program, whatever it is called.

    Raises ValueError, with what to do, for a file that is known and cannot be used. Of one called ``.onnx`` that is
    nothing known, its own reader says best what is wrong with it.
    """
    try:
        return kind_of(path) != "onnx"
    except UnknownKindError:
        if path.suffix == ".onnx":
            return False
        raise


def default_model(cache: Path | None = None) -> str:
    """Return the model to use when none is named: ``vgg19`` where it has been fetched, else ``draft``."""
    return "vgg19" if cache_entry("vgg19", cache or default_cache()).is_file() else DRAFT


def announce_draft(tool: str, named: str | None, chosen: str | None, quiet: bool) -> None:
    """Say so, as the tool, where nobody named a model and the draft network was chosen."""
    if named is None and chosen == DRAFT and not quiet:
        tell(
            f"{tool}: no VGG-19 has been fetched, this uses the small draft network that comes with the program; "
            "get the real one with: python -m tools.models fetch vgg19"
        )


def model_file(name_or_path: str, cache: Path | None) -> Path:
    """Return the file that a name or a path stands for; raises ValueError when there is none."""
    path = Path(name_or_path)
    if name_or_path and path.is_file():
        return path
    if re.match(r"(?:https?|ftp|hf|file)://", name_or_path):
        raise ValueError(f"the model {name_or_path!r} is an address: download the file, and give its path")
    if name_or_path == DRAFT:
        return DRAFT_FILE
    name = name_or_path.removesuffix(".onnx")
    if name in model_names():
        cached = cache_entry(name, cache or default_cache())
        command = f"python -m tools.models fetch {name_or_path}"
        if cache is not None:
            command += f" --cache {shlex.quote(str(cache))}"
        if cached.is_file():
            if is_as_recorded(cached) is False:
                raise ValueError(f"{cached} is not the file that was fetched, fetch it once more with: {command}")
            return cached
        raise ValueError(f"the model {name_or_path!r} is not in the cache, fetch it with: {command}")
    if name_or_path and path.exists():
        # A folder or a device: the reader says what is wrong with it.
        return path
    if os.path.dirname(name_or_path):  # noqa: PTH120  # a Path drops the leading ./
        raise ValueError(f"there is no model file {name_or_path!r}")
    raise ValueError(
        f"{unknown_name('model', name_or_path, [DRAFT, *model_names()])}, or give a file (there is none of this name)"
    )


def model_names() -> list[str]:
    """Return the names of the models that can be fetched."""
    return [*(original.name for original in ORIGINALS), *(file.name for file in KNOWN_FILES)]


def cache_entry(name: str, cache: Path) -> Path:
    """Return where the cache has the convolution part of a published model, or would have it."""
    return cache / f"{name}.onnx"


def record(path: Path) -> None:
    """Write down the SHA-256 of a file that the cache has just got, beside it, as ``sha256sum`` does."""
    write_text(_record_of(path), f"{sha256_of(path)}  {path.name}\n")


def is_as_recorded(path: Path) -> bool | None:
    """Tell whether a file in the cache is still the one that ``record`` saw; None where it saw none."""
    try:
        recorded = _record_of(path).read_text("utf-8", errors="replace").split()
    except OSError:
        return None
    return bool(recorded) and recorded[0] == sha256_of(path)


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def fetch_whole(file: KnownFile, cache: Path, urls: Sequence[str], quiet: bool) -> Path:
    """Download a published model whole into the cache, unless an earlier run has left it there; return its file.

    Parameters
    ----------
    file, cache : which model, and the folder to make where there is none.
    urls : addresses to try before the known ones.
    quiet : show no progress.

    Raises ValueError when the cache cannot be written or no address has the file.
    """
    addresses = [*urls, *(address.format(name=file.name) for address in ZOO_ADDRESSES)]
    remote = RemoteFile(f"{file.name}.onnx", file.sha256, file.size, tuple(addresses))
    make_cache(cache)
    whole = cache / f"{file.name}-whole.onnx"
    if not _is_there(whole, remote):
        with Progress(file.size, "bytes", f"fetch {file.name}", quiet) as progress:
            download(remote, whole, progress=progress.reach)
    return whole


def _is_there(path: Path, remote: RemoteFile) -> bool:
    """Tell whether an earlier run has left the whole file, before it could write the part or told to keep it."""
    if not path.is_file():
        return False
    try:
        verify(path, remote)
    except ValueError:
        return False
    return True


def _cached_part(path: Path, cache: Path) -> Path:
    """Return the convolution part of a file, from the cache if it is there and the file has not changed since."""
    path = path.resolve()
    part = _kept_for(path, cache / "parts")
    if part.is_file() and is_as_recorded(part):
        return part
    graph = read_onnx(path)
    if graph.left_out:
        # Cut short in the middle: only the file itself tells why, when one of the missing layers is asked for.
        return path
    part.parent.mkdir(parents=True, exist_ok=True)
    write_part(graph, path, part, path.name)
    record(part)
    _remove_outdated(path, part)
    return part


def _converted(path: Path, cache: Path | None) -> Path:
    """Return a weight file as ONNX, from the cache if it is there and the file has not changed since."""
    path = path.resolve()
    target = _kept_for(path, (cache or default_cache()) / "converted")
    if target.is_file() and is_as_recorded(target):
        return target
    make_cache(target.parent)
    convert(path, target)
    record(target)
    _remove_outdated(path, target)
    return target


def _kept_for(path: Path, folder: Path) -> Path:
    """Return where a folder of the cache keeps what was made of a file in its present state."""
    state = path.stat()
    of_state = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
    return folder / f"{_key(path)}-{of_state}-{path.stem}.onnx"


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _remove_outdated(path: Path, kept: Path) -> None:
    """Remove what was made of earlier states of a file."""
    for outdated in kept.parent.glob(f"{_key(path)}-*"):
        if outdated not in (kept, _record_of(kept)):
            with contextlib.suppress(OSError):
                outdated.unlink()
