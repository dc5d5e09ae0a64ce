from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageFont

from tools.media.picture import Picture, resize
from tools.media.sheet import MIN_TILE, Tile, draw_sheet, wrap

GRAY = (222, 222, 222)


def picture(height: int = 60, width: int = 80, seed: int = 0) -> Picture:
    """A picture of many colors, none of which is a gray that text has."""
    pixels = np.random.default_rng(seed).uniform(0, 90, (height, width, 3)).astype(np.float32)
    pixels[..., 1] += 150
    return Picture(np.rint(pixels), None)


def places(sheet: np.ndarray, shown: np.ndarray) -> list[tuple[int, int]]:
    """Return where on the sheet a picture stands, to the pixel."""
    height, width = shown.shape[:2]
    rows, columns = np.nonzero((sheet == shown[0, 0]).all(axis=-1))
    return [
        (int(y), int(x))
        for y, x in zip(rows, columns, strict=True)
        if np.array_equal(sheet[y : y + height, x : x + width], shown)
    ]


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of what is set."""
    rows, columns = np.nonzero(mask)
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


def same(sheet: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    return (sheet == color).all(axis=-1)


def shown(one: Picture) -> np.ndarray:
    return np.rint(one.pixels).astype(np.uint8)


def test_every_picture_stands_in_its_row_and_column_unchanged():
    pictures = [[picture(seed=3 * row + column) for column in range(3)] for row in range(2)]
    sheet = draw_sheet([[Tile(one) for one in row] for row in pictures], ["a", "b"], ["1", "2", "3"])
    found = [[places(sheet, shown(one)) for one in row] for row in pictures]
    assert all(len(place) == 1 for row in found for place in row)
    tops = [[place[0][0] for place in row] for row in found]
    lefts = [[place[0][1] for place in row] for row in found]
    assert [len(set(row)) for row in tops] == [1, 1]
    assert lefts[0] == lefts[1]
    assert tops[0][0] + 60 <= tops[1][0]
    assert all(left + 80 <= right for left, right in zip(lefts[0], lefts[0][1:], strict=False))


def test_the_same_arguments_give_the_same_sheet():
    arguments = ([[Tile(picture(), "a caption")]], ["row"], ["column"], "title", "rows", "columns", "footer")
    np.testing.assert_array_equal(draw_sheet(*arguments), draw_sheet(*arguments))


def test_pictures_of_different_sizes_keep_theirs_and_do_not_overlap():
    sizes = [[(60, 80), (100, 50)], [(20, 30), (64, 64)]]
    pictures = [[picture(*size, seed=index) for index, size in enumerate(row)] for row in sizes]
    sheet = draw_sheet([[Tile(one) for one in row] for row in pictures], ["a", "b"], ["1", "2"])
    covered = np.zeros(sheet.shape[:2], int)
    for row in pictures:
        for one in row:
            [(y, x)] = places(sheet, shown(one))
            height, width = one.pixels.shape[:2]
            covered[y : y + height, x : x + width] += 1
    assert covered.max() == 1


def test_tiles_are_reduced_to_the_side_asked_for():
    one = picture(120, 200)
    sheet = draw_sheet([[Tile(one)]], ["a"], ["1"], tile_side=100)
    assert len(places(sheet, shown(resize(one, 60, 100)))) == 1


@pytest.mark.parametrize(("rows", "columns"), [(1, 12), (12, 1), (7, 7)])
def test_a_sheet_stays_below_its_longest_side_by_reducing_the_tiles(rows, columns):
    tiles = [[Tile(picture(200, 200, row * columns + column), "loss 1.5") for column in range(columns)]
             for row in range(rows)]  # fmt: skip
    sheet = draw_sheet(tiles, ["row"] * rows, ["column"] * columns, "title", max_side=1200)
    assert 0.85 * 1200 <= max(sheet.shape) <= 1200


def test_tiles_are_not_reduced_until_nothing_can_be_seen():
    sheet = draw_sheet([[Tile(picture(200, 200))] * 30], ["a"], ["c"] * 30, max_side=300)
    assert sheet.shape[1] > 30 * MIN_TILE


def test_a_missing_picture_is_a_gray_tile_with_its_reason_inside():
    one = picture()
    filled, empty = ([[Tile(one), Tile(None, reason=reason)]] for reason in ("the loss is not finite", ""))
    with_reason = draw_sheet(filled, ["a"], ["1", "2"])
    without = draw_sheet(empty, ["a"], ["1", "2"])
    top, bottom, left, right = box(same(without, GRAY))
    assert (bottom - top, right - left) == (60, 80)
    assert same(without, GRAY)[top:bottom, left:right].all()
    changed = box((with_reason != without).any(axis=-1))
    assert top <= changed[0] < changed[1] <= bottom
    assert left <= changed[2] < changed[3] <= right


def test_a_sheet_without_any_picture_has_gray_tiles():
    sheet = draw_sheet([[Tile()], [Tile(reason="x " * 500)]], ["a", "b"], ["1"])
    assert same(sheet, GRAY).sum() > 2 * 100 * 100


@pytest.mark.parametrize(
    "part",
    ["title", "row_axis", "column_axis", "footer"],
)
def test_each_text_is_drawn_outside_the_pictures_and_inside_the_sheet(part):
    one = picture(120, 160)
    tiles = [[Tile(one)] * 2] * 2
    blank = draw_sheet(tiles, ["", ""], ["", ""])
    sheet = draw_sheet(tiles, ["", ""], ["", ""], **{part: "some words"})
    assert len(places(sheet, shown(one))) == 4
    top, bottom, left, right = box((sheet.min(axis=-1) < 128) & ~covered_by(sheet, one))
    assert top > 0
    assert left > 0
    assert bottom < sheet.shape[0]
    assert right < sheet.shape[1]
    assert sheet.shape != blank.shape


def covered_by(sheet: np.ndarray, one: Picture) -> np.ndarray:
    covered = np.zeros(sheet.shape[:2], bool)
    for y, x in places(sheet, shown(one)):
        covered[y : y + one.pixels.shape[0], x : x + one.pixels.shape[1]] = True
    return covered


def test_labels_and_captions_stand_at_their_rows_and_columns():
    one = picture(120, 160)
    plain = [[Tile(one), Tile(one)], [Tile(one), Tile(one)]]
    blank = draw_sheet(plain, ["mm", ""], ["mm", ""])
    places_of = sorted(places(blank, shown(one)))
    text = (blank.min(axis=-1) < 128) & ~covered_by(blank, one)
    left_of, above = text.copy(), text.copy()
    left_of[:, places_of[0][1] :] = False
    above[places_of[0][0] :] = False
    top, bottom, _, right = box(left_of)
    assert places_of[0][0] < top < bottom < places_of[0][0] + 120
    assert right < places_of[0][1]
    _, bottom, left, right = box(above)
    assert places_of[0][1] <= left < right <= places_of[0][1] + 160
    captioned = draw_sheet([[Tile(one), Tile(one, "mm")], plain[1]], ["mm", ""], ["mm", ""])
    spots = sorted(places(captioned, shown(one)))
    below = (captioned.min(axis=-1) < 128) & ~covered_by(captioned, one)
    below[: spots[1][0] + 120] = False
    below[:, : spots[0][1]] = False
    top, bottom, left, right = box(below)
    assert spots[1][1] <= left < right <= spots[1][1] + 160
    assert bottom <= spots[2][0]


def test_what_is_transparent_is_laid_on_white():
    one = Picture(np.zeros((50, 60, 3), np.float32), np.full((50, 60), 0.4, np.float32))
    assert same(draw_sheet([[Tile(one)]], [""], [""]), (153, 153, 153)).sum() == 50 * 60


@pytest.mark.parametrize(
    ("tiles", "rows", "columns"), [([], [], []), ([[]], ["a"], []), ([[Tile()]], ["a"], ["1", "2"]), ([], ["a"], ["1"])]
)
def test_a_grid_that_does_not_fit_its_labels_is_an_error(tiles, rows, columns):
    with pytest.raises(ValueError, match="row"):
        draw_sheet(tiles, rows, columns)


# ---- text ----


def width(line: str, size: int = 20) -> float:
    return ImageFont.load_default(size).getlength(line)


def test_text_is_broken_at_spaces_and_behind_plus_signs():
    assert wrap("conv1_1+conv2_1 and conv3_1", 20, round(width("conv1_1+")) + 2, 9) == [
        "conv1_1+", "conv2_1", "and", "conv3_1",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["word " * 40, "w" * 300, "conv1_1+" * 30, "a " + "b" * 90])
@pytest.mark.parametrize("room", [30, 100, 333])
def test_text_that_is_too_long_is_cut_with_an_ellipsis_and_stays_within_its_width(text, room):
    lines = wrap(text, 20, room, 3)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert max(width(line) for line in lines) <= room
    whole = wrap(text, 20, room, 1000)
    assert "".join(whole).replace(" ", "") == text.replace(" ", "")
    assert whole[:2] == lines[:2]


def test_a_width_that_not_even_one_letter_has_still_ends():
    assert wrap("words", 20, 1, 2) == ["w", "…"]


@pytest.mark.parametrize(
    ("text", "spelled"),
    [("Tübingen", "Tubingen"), ("α/β", "alpha/beta"), ("中", "?"), ("1–2", "1-2"), ("a\tb", "a b"), ("", "")],
)
def test_letters_that_the_typeface_lacks_are_spelled_in_others(text, spelled):
    assert " ".join(wrap(text, 20, 1000, 1)) == spelled


def test_the_typeface_has_the_letters_that_are_kept():
    missing = bytes(ImageFont.load_default(20).getmask("\uffff"))
    for character in "…·±" + "".join(map(chr, range(33, 127))):
        assert bytes(ImageFont.load_default(20).getmask(character)) != missing
        assert wrap(character, 20, 1000, 1) == [character]
