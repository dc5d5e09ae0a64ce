"""The studio's folder: photographs and paintings that were brought in, and the pictures that were made."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.multiscale import fit
from tools.cli.disk import save_somewhere
from tools.media.files import make_folder, remove_unfinished, replacing
from tools.media.images import extent, load_image, load_painting, read_text
from tools.media.picture import Picture, resize
from tools.media.record import PROJECT, fits, parsed_json, versions
from tools.media.saving import encoded_image, save_image
from tools.studio.order import Order, form_of

VIEW = 1280
"""Long side of what the page shows of an input, in pixels."""

THUMBNAIL = 360
"""The same of a picture on the strip."""

RECORD: dict[str, Any] = {
    "number": int,
    "form": {"content": str, "style": [str], "mask": [str], "options": {str: str}},
    "facts": {"loss": float, "iterations": int, "seconds": float, "stop": str, "stop_reason": str},
    "steered": bool,
}
"""The form of what a picture has under ``Studio`` in its text."""

_QUALITY = 88
_MAX_STEM = 40


@dataclass(frozen=True)
class Made:
    """A picture that has been made.

    Parameters
    ----------
    number : from 1.
    form : asks for the same once more.
    facts : what came of the run.
    steered : whether settings were changed while it was made: the form has the last ones.
    command : the command line that makes the form's picture.
    size : (height, width).
    """

    number: int
    form: Mapping[str, Any]
    facts: Mapping[str, Any]
    steered: bool
    command: str
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.number:04d}.png"


class Shelf:
    """A folder with ``inputs``, ``pictures`` and ``views``, which are what the page shows of them.

    Parameters
    ----------
    folder : made where there is none.

    Raises ValueError where it cannot be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        make_folder(self.folder)
        for name in ("inputs", "pictures", "views"):
            make_folder(self.folder / name)
            remove_unfinished(self.folder / name)
        self._lock = threading.Lock()
        self._sizes: dict[str, tuple[int, int]] = {}
        for path in sorted((self.folder / "inputs").iterdir()):
            with contextlib.suppress(ValueError):
                self._sizes[path.name] = _size(path)
        found = [_read(path) for path in sorted((self.folder / "pictures").glob("*.png"))]
        self._made = {made.name: made for made in found if made is not None}

    def bring_in(self, name: str, content: bytes, *, painting: bool = False) -> str:
        """Take a picture's file; return the name that it has here.

        Parameters
        ----------
        name : of the file, as its user calls it.
        painting : whether its style is to be taken, which a wholly transparent picture has none of.

        Raises ValueError, with the file's name, for what is no picture.
        """
        kept = f"{_stem(name)}-{hashlib.sha256(content).hexdigest()[:10]}{_suffix(name)}"
        path = self.folder / "inputs" / kept
        if kept not in self._sizes or painting or not path.is_file():
            trial = self.folder / "views" / f"trial-{kept}"
            try:
                with replacing(trial) as temporary:
                    temporary.write_bytes(content)
                picture = load_painting(trial) if painting else load_image(trial)
                self._view(picture, self._view_of(kept))
                trial.replace(path)
            except ValueError as error:
                raise ValueError(str(error).replace(str(trial), name)) from None
            except OSError as error:
                raise ValueError(f"cannot keep {name!r}: {error.strerror or error}") from None
            finally:
                trial.unlink(missing_ok=True)
            with self._lock:
                self._sizes[kept] = picture.size
        return kept

    def input_path(self, name: str) -> Path:
        """Return an input's file; raises ValueError where there is none of this name."""
        self.size_of(name)
        return self.folder / "inputs" / name

    def size_of(self, name: str) -> tuple[int, int]:
        """Return an input's (height, width); raises ValueError where there is none of this name."""
        if name not in self._sizes:
            raise ValueError(f"there is no picture {name!r} here any more: choose it again")
        return self._sizes[name]

    def input_view(self, name: str) -> bytes:
        """Return a JPEG that shows an input."""
        path, view = self.input_path(name), self._view_of(name)
        if not view.is_file():
            self._view(load_image(path), view)
        return view.read_bytes()

    def has(self, picture: str) -> bool:
        """Tell whether a picture of this name has been made."""
        return picture in self._made

    def picture(self, number: int) -> Made:
        """Return a picture that has been made; raises ValueError where there is none of this number."""
        made = self._made.get(f"{number:04d}.png")
        if made is None:
            raise ValueError(f"there is no picture {number}")
        return made

    def picture_path(self, name: str) -> Path:
        """Return the file of a picture that has been made."""
        return self.folder / "pictures" / name

    def thumbnail(self, made: Made) -> bytes:
        """Return a JPEG that shows a picture small."""
        view = self._view_of(made.name)
        if not view.is_file():
            self._view(load_image(self.picture_path(made.name)), view, THUMBNAIL)
        return view.read_bytes()

    @property
    def pictures(self) -> list[Made]:
        """What has been made, the latest first."""
        with self._lock:
            return sorted(self._made.values(), key=lambda made: -made.number)

    def put(
        self,
        pixels: npt.NDArray[Any],
        alpha: npt.NDArray[Any] | None,
        order: Order,
        facts: Mapping[str, Any],
        steered: bool,
        command: str,
    ) -> Made:
        """Write a picture; return what is on the strip of it.

        Raises ValueError where it cannot be written; it says where the picture is instead.
        """
        with self._lock:
            number = max((made.number for made in self._made.values()), default=0) + 1
            while self.picture_path(f"{number:04d}.png").exists():
                number += 1
            form = form_of(order)
            made = Made(number, form, facts, steered, command, (pixels.shape[0], pixels.shape[1]))
            told = {"number": number, "form": form, "facts": dict(facts), "steered": steered}
            text = {
                "Software": PROJECT,
                "Command": command,
                "Studio": json.dumps(told),
                "Settings": json.dumps(_settings_of(order)),
                "Versions": json.dumps(versions()),
            }
            save_somewhere(self.picture_path(made.name), pixels, alpha, text)
            self._made[made.name] = made
        with contextlib.suppress(ValueError):  # it is made when it is looked at
            self._view(Picture(np.asarray(pixels, np.float32), alpha), self._view_of(made.name), THUMBNAIL)
        return made

    def _view_of(self, name: str) -> Path:
        return self.folder / "views" / f"{name}.jpg"

    @staticmethod
    def _view(picture: Picture, path: Path, side: int = VIEW) -> None:
        small = resize(picture, *fit(*picture.size, min(side, max(picture.size))))
        save_image(path, small.pixels, small.alpha, quality=_QUALITY)


def as_jpeg(pixels: npt.NDArray[Any], alpha: npt.NDArray[Any] | None) -> bytes:
    """Return what the page shows of a picture that is being made."""
    return encoded_image(".jpg", pixels, alpha, quality=_QUALITY)


def _read(path: Path) -> Made | None:
    """Return what a picture tells of itself; None where it is none of the studio's."""
    try:
        text, size = read_text(path), _size(path)
    except ValueError:
        return None
    told = parsed_json(text.get("Studio", ""))
    if not fits(told, RECORD) or path.name != f"{told['number']:04d}.png":
        return None
    return Made(told["number"], told["form"], told["facts"], told["steered"], text.get("Command", ""), size)


def _settings_of(order: Order) -> dict[str, Any]:
    """Return an order as ``stylize`` tells of it in its pictures."""
    told = dataclasses.asdict(order)
    options: dict[str, Any] = told.pop("options")
    return told | options


def _size(path: Path) -> tuple[int, int]:
    found = extent(path)
    return found.height, found.width


def _stem(name: str) -> str:
    """Return a file's name without its suffix in plain letters, whatever it was called."""
    last = re.split(r"[/\\]", name)[-1]
    stem = last[: len(last) - len(_suffix(last))]
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-")[:_MAX_STEM] or "picture"


def _suffix(name: str) -> str:
    found = re.search(r"\.[A-Za-z0-9]{1,5}$", name)
    return found.group().lower() if found else ""
