"""The folder of the pictures, and what they tell of themselves."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.network import Network
from tools.cli.options import Options
from tools.media.files import check_folder, check_writable, make_folder, remove_unfinished, sha256_of
from tools.media.images import read_text
from tools.media.record import file_name, fits, origin, parsed_json, versions
from tools.media.saving import save_image
from tools.reconstruct.target import KINDS, Target

RECORDED = (
    *("pooling", "size", "edges", "dtype", "seed", "init"),
    *("optimizer", "learning_rate", "history", "iterations", "change_tolerance"),
)
"""The options that a picture depends on; model and image files count by what is in them."""

INITS = ("noise", "gray")
"""What a picture can begin with that is no file."""

SHEET, TABLE = "sheet.png", "table.csv"

_FACTS: dict[str, Any] = {
    **dict.fromkeys(("loss", "initial_loss", "seconds"), float),
    **dict.fromkeys(("iterations", "evaluations"), int),
    **dict.fromkeys(("stop", "stop_reason"), str),
}


class Folder:
    """Where the pictures are kept; each tells in its own text what it was made of.

    Parameters
    ----------
    path : of the folder, which need not exist yet.
    image, model : the files that the pictures are made from.
    options, network : what they are made with.
    with_paths : have the pictures tell the files' folders.

    Raises ValueError where the folder holds anything but pictures of the same image and settings, or an input would be
    overwritten.
    """

    def __init__(
        self, path: Path, image: Path, model: Path, options: Options, network: Network, with_paths: bool = False
    ) -> None:
        self.path = path
        inputs = {"image": image, "model": model}
        if options.init not in INITS:
            inputs["init"] = Path(options.init)
        self._names = {part: file_name(given, with_paths) for part, given in inputs.items()}
        self._with_paths = with_paths
        self.shared: dict[str, Any] = {name: getattr(options, name) for name in RECORDED}
        self.shared |= {
            "init": "file" if "init" in inputs else options.init,
            "preprocessing": network.preprocessing.name,
            "files": {part: sha256_of(given) for part, given in inputs.items()},
        }
        check_folder(self.path)
        for name in (SHEET, TABLE):
            for given in inputs.values():
                if (self.path / name).exists() and (self.path / name).samefile(given):
                    raise ValueError(f"{str(given)!r} is an input, it would be overwritten: give another --output")
        self._check_same()

    def claim(self) -> None:
        """Make the folder."""
        make_folder(self.path)
        remove_unfinished(self.path)
        check_writable(self.path / TABLE)

    def settings(self, target: Target) -> dict[str, Any]:
        """Return everything that a picture depends on, as JSON knows it."""
        return {"kind": target.kind, "layers": target.layers, **self.shared}

    def facts(self, target: Target) -> dict[str, Any] | None:
        """Return what came of a picture that is there, finished or not; None where there is none."""
        text = _texts(self.path / target.file)
        if text is None or text.get("Settings") != self.settings(target):
            return None
        facts: dict[str, Any] = text.get("Result", {})
        errors = dict.fromkeys(target.layers, float)
        whole = fits(facts, _FACTS | {"errors": {str: float}}) and fits(facts["errors"], errors)
        return facts if whole and (facts.get("psnr") is None or fits(facts["psnr"], float)) else None

    def others(self, targets: Sequence[Target]) -> list[Target]:
        """Return what further pictures of the same settings were made to match, by kind and in the order of names."""
        found = []
        for kind in KINDS:
            for path in sorted(self.path.glob(f"{kind}-*.png")):
                settings = (_texts(path) or {}).get("Settings") or {}
                if fits(settings, {"layers": {str: float}}):
                    target = Target(kind, tuple(settings["layers"].items()))
                    if target not in targets and target.file == path.name and finished(self.facts(target)):
                        found.append(target)
        return found

    def save(self, target: Target, image: NDArray[np.float64], facts: Mapping[str, Any]) -> None:
        """Keep a picture with what came of it."""
        text = {
            **origin("reconstruct", self._with_paths),
            "Settings": json.dumps(self.settings(target)),
            "Names": json.dumps(self._names),
            "Versions": json.dumps(versions()),
            "Result": json.dumps(facts),
        }
        save_image(self.path / target.file, image, None, text)

    def _check_same(self) -> None:
        """Raise ValueError where the folder holds anything but pictures of the same image and settings."""
        pictures = sorted(path for kind in KINDS for path in self.path.glob(f"{kind}-*.png"))
        for path in pictures:
            text = _texts(path)
            if text is None:
                raise ValueError(f"{str(path)!r} cannot be read: remove it to have it made anew")
            if not fits(text, {"Settings": {"files": {str: str}}}):
                raise ValueError(f"{str(path)!r} was not made by this tool: give another --output")
            found, problem = text["Settings"], f"{str(self.path)!r} holds reconstructions"
            files, names = found["files"], text.get("Names") or {}
            for part, sha256 in self.shared["files"].items():
                if files.get(part) != sha256:
                    what = {"image": "of another image", "model": "by another model"}.get(part, "from another start")
                    named = f" ({names[part]})" if part in names else ""
                    raise ValueError(f"{problem} {what}{named}: give another --output")
            for name, value in self.shared.items():
                if found.get(name) != value:
                    raise ValueError(
                        f"{problem} with other settings ({name.replace('_', '-')} {found.get(name)} there, {value} "
                        "here): give another --output"
                    )
        for name in (SHEET, TABLE):
            if not pictures and (self.path / name).exists():
                raise ValueError(f"{str(self.path / name)!r} is there already, of other origin: give another --output")


def finished(facts: Mapping[str, Any] | None) -> bool:
    """Tell whether a picture is there that another run would not change."""
    return facts is not None and facts["stop"] not in ("interrupted", "non-finite")


def _texts(path: Path) -> dict[str, Any] | None:
    """Return what a picture says of itself, or None where there is none that can be read."""
    with contextlib.suppress(ValueError):
        text = read_text(path)
        found = {name: parsed_json(text[name]) for name in ("Settings", "Names", "Result") if name in text}
        return {name: value for name, value in found.items() if isinstance(value, dict)}
    return None
