"""What the cells of a sweep are made from and what they take, before anything is made."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.network import Network
from engine.stylize import INITS
from tools.cli.notes import IDLE_SEED, check_style, idle_options, idle_threads
from tools.cli.options import FIRST_DRAFT, Options, check_blend, check_history, network_part
from tools.cli.rendering import (
    check_layers,
    check_levels,
    check_memory,
    decoded_bytes,
    painting_sizes,
    picture_size,
    tell_notes,
    work,
)
from tools.media.files import sha256_of
from tools.media.images import load_image, load_painting, open_file
from tools.models.cache import resolve_model
from tools.models.loading import about_preprocessing, load
from tools.sweep.axes import NO_AXIS, Axis
from tools.sweep.cells import Cell

NAME = "sweep"


class Files:
    """The input files of a sweep by what is in them."""

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self.paths: dict[str, Path] = {}
        self.names: dict[str, str] = {}

    @functools.cache  # noqa: B019  # as long as the sweep
    def model(self, name: str) -> str:
        """Return the SHA-256 of the file to load for a model's name or path."""
        path = resolve_model(name, self._cache)
        if not path.is_file():  # a pipe would be waited for
            raise ValueError(f"{path}: is no regular file, expected an ONNX file")
        return self._known(path)

    def picture(self, path: Path) -> str:
        """Return the SHA-256 of a picture's file."""
        with open_file(path):
            pass
        return self._known(path)

    @functools.cache  # noqa: B019  # as long as the sweep
    def _known(self, path: Path) -> str:
        sha256 = sha256_of(path)
        self.paths.setdefault(sha256, path)
        self.names.setdefault(sha256, str(path))
        return sha256


def cells_of(
    content: Path, styles: Sequence[Path], options: Options, rows: Axis, columns: Axis, files: Files
) -> dict[tuple[int, int], Cell]:
    """Return the cells of a grid by row and column.

    Parameters
    ----------
    content, styles : photograph and paintings, where no axis goes over them.
    options : of all cells, where no axis goes over them.
    files : gets to know the cells' input files.

    Raises ValueError for options that do not fit together, and for a file that cannot be opened.
    """
    cells = {}
    for row, row_value in enumerate(rows.values):
        for column, column_value in enumerate(columns.values):
            changes = {rows.setting: row_value, columns.setting: column_value}
            changes.pop(NO_AXIS.setting, None)
            photograph = changes.pop("content", content)
            paintings = [changes.pop("style")] if "style" in changes else styles
            chosen = dataclasses.replace(options, **changes)
            check_history(chosen)
            check_blend(chosen, len(paintings))
            check_style(chosen)
            if chosen.init == FIRST_DRAFT:
                raise ValueError(f"a sweep does not begin with a draft: choose {', '.join(INITS)} or give a picture")
            parts = {"model": files.model(str(chosen.model)), "content": files.picture(photograph)}
            parts |= {f"style {number}": files.picture(path) for number, path in enumerate(paintings, 1)}
            if chosen.init not in INITS:
                parts["init"] = files.picture(Path(chosen.init))
            cells[row, column] = Cell(chosen, parts, {sha256: files.names[sha256] for sha256 in parts.values()})
    return cells


@dataclass(frozen=True)
class Costs:
    """What the cells take.

    Parameters
    ----------
    needed : bytes of memory of the largest.
    devices : those that they would be made on here.
    work, pixels : of each cell: multiplications, by ``tools.cli.rendering.work``, and the number of its picture's
        pixels.
    notes : what is to be known of the models.
    """

    needed: int
    devices: set[str]
    work: Mapping[tuple[int, int], float]
    pixels: Mapping[tuple[int, int], int]
    notes: Sequence[str]


def check_cells(cells: Mapping[tuple[int, int], Cell], files: Files, quiet: bool) -> Costs:
    """Return what the cells take; one that cannot be made takes nothing.

    Raises ValueError for what is wrong with every cell, and for layers that a model lacks. One picture of several that
    cannot be read or is too small is its cells' affair, and shown there.
    """

    @functools.lru_cache(maxsize=2)
    def loaded(options: Options, path: Path) -> Network:
        return load(options, path, None)

    @functools.cache
    def size(part: str, sha256: str) -> tuple[int, int]:
        picture = (load_painting if part == "style" else load_image)(files.paths[sha256])
        tell_notes(NAME, [picture], quiet)
        return picture.size

    pairs = {tuple(sha256 for part, sha256 in cell.files.items() if part != "model") for cell in cells.values()}
    one_pair = len(pairs) == 1
    needed = 0
    devices: set[str] = set()
    notes: dict[str, None] = {}
    works: dict[tuple[int, int], float] = {}
    pixels: dict[tuple[int, int], int] = {}
    broken: list[ValueError] = []
    for key, cell in cells.items():
        options = cell.options
        network = loaded(network_part(options), files.paths[cell.files["model"]])
        devices.add(network.device.kind)
        notes |= dict.fromkeys(network.notes)
        options = check_layers(network, options)
        try:
            sizes = {part: size(part.split()[0], sha) for part, sha in cell.files.items() if part != "model"}
            styles = [style for part, style in sizes.items() if part.startswith("style ")]
            cell_size = picture_size(sizes["content"], options)
            takes = check_memory(network, options, cell_size, painting_sizes(styles, options, cell_size))
            check_levels(network, options, sizes["content"], styles)
            needed = max(needed, takes + decoded_bytes(sizes.values()))
            works[key], pixels[key] = work(network, options, sizes["content"]), math.prod(cell_size)
        except ValueError as error:
            if one_pair:
                raise
            broken.append(error)
    if len(broken) == len(cells):
        raise broken[0]
    return Costs(needed, devices, works, pixels, list(notes))


def notes_of(cells: Mapping[tuple[int, int], Cell], files: Files, threads: int | None) -> list[str]:
    """Return what is to be known: of options that do nothing in any cell, and inputs that contradict a model."""
    of_cells = []
    for cell in cells.values():
        of_cells.append(idle_options(cell.options, sum(part.startswith("style ") for part in cell.files)))
    everywhere = [note for note in of_cells[0] if all(note in others for others in of_cells)]
    if len({cell.options.seed for cell in cells.values()}) > 1 and not any(
        cell.options.init == "noise" for cell in cells.values()
    ):
        everywhere.append(IDLE_SEED)
    models = {(cell.options.preprocessing, cell.files["model"]): cell for cell in cells.values()}
    contradictions = [
        note for cell in models.values() for note in about_preprocessing(cell.options, files.paths[cell.files["model"]])
    ]
    return list(dict.fromkeys([*everywhere, *idle_threads(threads), *contradictions]))
