"""Contact sheets: pictures in a grid, with the names of its rows and columns.

The text is drawn with the typeface that comes with Pillow, so that a sheet is the same on every machine. That is what
this module imports Pillow for; it knows no files, which are ``tools.media.images``'s.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from engine.multiscale import fit
from tools.media.picture import Picture, resize

MAX_SIDE = 4000
"""Longest side of a sheet in pixels, unless its tiles would become smaller than ``MIN_TILE``."""

MIN_TILE = 48
"""Tiles are not reduced below this many pixels."""

_EMPTY_TILE = 160  # where no picture tells how large a tile is
_TEXT = (13, 40)  # smallest and largest height of the letters, in pixels
_LABEL_LINES, _CAPTION_LINES, _TITLE_LINES = 4, 4, 3
_GROUND, _INK, _FAINT, _GRAY = (255, 255, 255), (20, 20, 20), (90, 90, 90), (222, 222, 222)

# What the typeface lacks and what stands for it; letters with accents lose these, the rest becomes a question mark.
_SPELLED = {
    "α": "alpha",
    "β": "beta",
    "–": "-",
    "—": "-",
    "−": "-",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "ß": "ss",
    "ø": "o",
}

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, eq=False)
class Tile:
    """One place of a sheet.

    Parameters
    ----------
    picture : of any size; what is transparent is laid on white. None where there is none.
    caption : stands below it.
    reason : why there is no picture; stands in the gray tile instead of it.
    """

    picture: Picture | None = None
    caption: str = ""
    reason: str = "no picture"


def draw_sheet(
    tiles: Sequence[Sequence[Tile]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    row_axis: str = "",
    column_axis: str = "",
    footer: str = "",
    tile_side: int | None = None,
    max_side: int = MAX_SIDE,
) -> NDArray[np.uint8]:
    """Draw pictures in a grid with labels.

    Parameters
    ----------
    tiles : the rows of the grid, from the top; each with one tile for every column, from the left.
    rows, columns : labels at the left and at the top; long ones are wrapped, what still does not fit is cut short.
    title : stands above everything.
    row_axis, column_axis : what the rows and the columns differ in.
    footer : small print below everything, such as the pictures' origin.
    tile_side : long side of a tile in pixels at most; a picture is reduced to it, never enlarged.
    max_side : longest side of the sheet in pixels: tiles are reduced further for it, but not below ``MIN_TILE``.

    Returns the sheet, (H, W, 3), RGB. The same arguments give the same pixels.

    Raises ValueError when the grid is empty or does not have the labels' numbers of rows and columns.
    """
    if not rows or not columns:
        raise ValueError(f"a sheet needs at least one row and one column, got {len(rows)} and {len(columns)}")
    if len(tiles) != len(rows) or any(len(row) != len(columns) for row in tiles):
        shape = f"{len(tiles)} rows of {sorted({len(row) for row in tiles})} tiles"
        raise ValueError(f"the grid has {shape}, its labels say {len(rows)} rows of {len(columns)}")
    sides = [max(tile.picture.pixels.shape[:2]) for row in tiles for tile in row if tile.picture is not None]
    side = max(sides, default=_EMPTY_TILE)
    side = side if tile_side is None else min(side, tile_side)
    texts = _Texts(rows, columns, title, row_axis, column_axis, footer)
    while True:
        layout = _Layout(tiles, texts, side)
        longest = max(layout.width, layout.height)
        if longest <= max_side or side <= MIN_TILE:
            return layout.draw()
        side = max(MIN_TILE, min(side - 1, side * max_side // longest))


@dataclass(frozen=True)
class _Texts:
    """Everything on a sheet that is written, less the captions."""

    rows: Sequence[str]
    columns: Sequence[str]
    title: str
    row_axis: str
    column_axis: str
    footer: str


@dataclass(frozen=True)
class _Block:
    """Lines of text in one size."""

    lines: Sequence[str]
    size: int

    @property
    def width(self) -> int:
        return max((_width(line, self.size) for line in self.lines), default=0)

    @property
    def height(self) -> int:
        return len(self.lines) * _line_height(self.size)


class _Layout:
    """Where everything on a sheet stands when no tile is longer than ``side``."""

    def __init__(self, tiles: Sequence[Sequence[Tile]], texts: _Texts, side: int) -> None:
        self.tiles, self.texts = tiles, texts
        size = min(max(round(side * 0.07), _TEXT[0]), _TEXT[1])
        self.small = max(round(size * 0.85), _TEXT[0] - 1)
        self.gap, self.margin = max(size // 2, 6), size

        # A picture's place is as high as the highest of its row and as wide as the widest of its column.
        shown = [[_shown_size(tile, side) for tile in row] for row in tiles]
        known = [found for row in shown for found in row if found] or [(side, side)]
        usual = max(height for height, _ in known), max(width for _, width in known)
        self.heights = [max((found[0] for found in row if found), default=usual[0]) for row in shown]
        across = zip(*shown, strict=True)
        self.widths = [
            max(MIN_TILE, max((found[1] for found in column if found), default=usual[1])) for column in across
        ]
        self.sizes = [
            [found or (height, width) for found, width in zip(row, self.widths, strict=True)]
            for row, height in zip(shown, self.heights, strict=True)
        ]

        self.captions = [
            [
                _block(tile.caption, self.small, width, _CAPTION_LINES)
                for tile, width in zip(row, self.widths, strict=True)
            ]
            for row in tiles
        ]
        self.row_labels = [
            _block(label, size, max(8 * size, usual[1] * 3 // 4), max(1, height // _line_height(size)))
            for label, height in zip(texts.rows, self.heights, strict=True)
        ]
        self.column_labels = [
            _block(label, size, width, _LABEL_LINES) for label, width in zip(texts.columns, self.widths, strict=True)
        ]

        grid_width = sum(self.widths) + self.gap * (len(self.widths) - 1)
        label_width = max(block.width for block in self.row_labels)
        axis_width = _line_height(size) + self.gap if texts.row_axis else 0
        self.label_x = self.margin + axis_width
        self.grid_x = self.label_x + (label_width + self.gap if label_width else 0)
        inner = self.grid_x - self.margin + grid_width
        large = min(max(round(size * 1.3), inner // 60), 2 * _TEXT[1])
        inner = max(inner, min(30 * size, _width(_spelled(texts.title), large)))
        self.width = inner + 2 * self.margin
        self.grid_width = grid_width

        self.title = _block(texts.title, large, inner, _TITLE_LINES)
        self.column_axis = _block(texts.column_axis, size, grid_width, 1)
        self.title_y = self.margin
        self.axis_y = self.title_y + (self.title.height + self.gap if texts.title else 0)
        self.columns_y = self.axis_y + self.column_axis.height
        y = self.columns_y + max(block.height for block in self.column_labels) + self.gap // 2
        self.rows_y = []
        for height, captions in zip(self.heights, self.captions, strict=True):
            self.rows_y.append(y)
            y += height + max(block.height for block in captions) + self.gap
        self.grid_bottom = y - self.gap
        self.row_axis = _block(texts.row_axis, size, self.grid_bottom - self.rows_y[0], 1)
        self.footer = _block(texts.footer, self.small, inner, _LABEL_LINES)
        self.height = self.grid_bottom + (self.gap + self.footer.height if texts.footer else 0) + self.margin

    def draw(self) -> NDArray[np.uint8]:
        sheet = Image.new("RGB", (self.width, self.height), _GROUND)
        pen = ImageDraw.Draw(sheet)
        _write(pen, self.title, self.margin, self.title_y)
        _write(pen, self.column_axis, self.grid_x, self.axis_y, self.grid_width, ink=_FAINT)
        _write(pen, self.footer, self.margin, self.grid_bottom + self.gap, ink=_FAINT)
        if self.texts.row_axis:
            self._draw_row_axis(sheet)
        lowest = max(block.height for block in self.column_labels)
        x = self.grid_x
        for column, width in enumerate(self.widths):
            label = self.column_labels[column]
            _write(pen, label, x, self.columns_y + lowest - label.height, width)
            for row, y in enumerate(self.rows_y):
                self._draw_tile(sheet, pen, row, column, x, y)
                _write(pen, self.captions[row][column], x, y + self.heights[row], width, ink=_FAINT)
            x += width + self.gap
        for label, y, height in zip(self.row_labels, self.rows_y, self.heights, strict=True):
            _write(pen, label, self.label_x, y + max(0, height - label.height) // 2)
        return np.array(sheet)

    def _draw_tile(self, sheet: Image.Image, pen: ImageDraw.ImageDraw, row: int, column: int, x: int, y: int) -> None:
        tile, (height, width) = self.tiles[row][column], self.sizes[row][column]
        # In the middle of its place, at its foot: the caption belongs to it.
        x += (self.widths[column] - width) // 2
        y += self.heights[row] - height
        if tile.picture is not None:
            sheet.paste(Image.fromarray(_on_white(resize(tile.picture, height, width))), (x, y))
            return
        pen.rectangle((x, y, x + width - 1, y + height - 1), fill=_GRAY)
        padding = self.small // 2
        room = max(1, (height - 2 * padding) // _line_height(self.small))
        reason = _block(tile.reason, self.small, width - 2 * padding, room)
        _write(pen, reason, x, y + max(0, height - reason.height) // 2, width)

    def _draw_row_axis(self, sheet: Image.Image) -> None:
        """Write the rows' axis upwards along the grid."""
        length = self.grid_bottom - self.rows_y[0]
        strip = Image.new("RGB", (length, self.row_axis.height), _GROUND)
        _write(ImageDraw.Draw(strip), self.row_axis, 0, 0, length, ink=_FAINT)
        sheet.paste(strip.transpose(Image.Transpose.ROTATE_90), (self.margin, self.rows_y[0]))


def _shown_size(tile: Tile, side: int) -> tuple[int, int] | None:
    """Return height and width of a picture on the sheet: its own, unless its long side is above ``side``."""
    if tile.picture is None:
        return None
    height, width = tile.picture.pixels.shape[:2]
    return (height, width) if max(height, width) <= side else fit(height, width, side)


def _on_white(picture: Picture) -> NDArray[np.uint8]:
    pixels = np.asarray(picture.pixels, np.float32)
    if picture.alpha is not None:
        pixels = 255 + (pixels - 255) * picture.alpha[..., None]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


# ---- text ----


def _block(text: str, size: int, width: int, lines: int) -> _Block:
    return _Block(wrap(text, size, width, lines), size)


def wrap(text: str, size: int, width: int, lines: int) -> list[str]:
    """Break a text into at most ``lines`` lines that are no wider than ``width`` pixels in letters of ``size`` pixels.

    Lines end at spaces and behind ``+``, ``,`` and ``/``, inside a word only where it does not fit alone. What is left
    over is cut, with an ellipsis for it. Characters that the typeface lacks are spelled in others.
    """
    wrapped: list[str] = []
    for paragraph in _spelled(text).strip().splitlines():
        line = ""
        for part in re.split(r"(?<=[ +,/])", " ".join(paragraph.split())):
            if line and _width((line + part).rstrip(), size) > width:
                wrapped.append(line.rstrip())
                line = ""
            line += part
            while _width(line.rstrip(), size) > width:
                fitting = _fitting(line, size, width)
                wrapped.append(line[:fitting])
                line = line[fitting:]
                if len(wrapped) > lines:
                    break
        wrapped.append(line.rstrip())
    if len(wrapped) > lines:
        last = wrapped[lines - 1] + "…"
        while _width(last, size) > width and len(last) > 1:
            last = last[:-2].rstrip() + "…"
        wrapped[lines - 1 :] = [last]
    return wrapped


def _fitting(text: str, size: int, width: int) -> int:
    """Return how many of the first characters fit, at least one."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _width(text[:middle], size) <= width else (low, middle - 1)
    return low


def _write(
    pen: ImageDraw.ImageDraw,
    block: _Block,
    x: int,
    y: int,
    width: int | None = None,
    ink: tuple[int, int, int] = _INK,
) -> None:
    """Write lines from (x, y) downwards; centered, where a width is given."""
    for line in block.lines:
        indent = 0 if width is None else max(0, width - _width(line, block.size)) // 2
        pen.text((x + indent, y), line, fill=ink, font=_font(block.size))
        y += _line_height(block.size)


@functools.cache
def _font(size: int) -> _Font:
    return ImageFont.load_default(size)


def _line_height(size: int) -> int:
    return size + max(4, size * 2 // 5)


def _width(text: str, size: int) -> int:
    return int(np.ceil(_font(size).getlength(text)))


def _spelled(text: str) -> str:
    return "".join(_glyphs(character) for character in text)


@functools.cache
def _glyphs(character: str) -> str:
    """Return a character as the typeface can show it."""
    if character.isspace() or _has_glyph(character):
        return character
    if character in _SPELLED:
        return _SPELLED[character]
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part))
    return plain if plain and plain != character and all(map(_has_glyph, plain)) else "?"


def _has_glyph(character: str) -> bool:
    return character.isprintable() and bytes(_font(20).getmask(character)) != bytes(_font(20).getmask("\uffff"))
