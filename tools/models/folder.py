"""The folder in which fetched and converted models are kept."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tools.media.files import make_folder, remove_unfinished


def default_cache() -> Path:
    """Return the user's folder for cached models, whether it exists or not.

    ``~/.cache/neural-style-by-hand`` (below ``XDG_CACHE_HOME`` where that is set), on macOS and Windows the place for
    such files there. Raises ValueError where the user has no home folder.
    """
    try:
        home = Path.home()
    except RuntimeError:
        raise ValueError("the home folder, where the cache of models belongs, cannot be found: set HOME") from None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = given if given.is_absolute() else home / ".cache"
    return base / "neural-style-by-hand"


def make_cache(cache: Path) -> None:
    """Make the folder of the cache where there is none; raises ValueError where that cannot be."""
    try:
        make_folder(cache)
        remove_unfinished(cache)
    except ValueError as error:
        raise ValueError(f"the cache, choose another with --cache: {error}") from None
