"""The folder: what is brought in, what was made, and what a restart finds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.tools.disk import full_disk
from tools.media.images import load_image, read_text
from tools.media.saving import encoded_image, save_image
from tools.studio.shelf import Shelf

FACTS = {"loss": 1.5, "iterations": 4, "seconds": 0.5, "stop": "iterations", "stop_reason": "reached 4 iterations"}

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)


def put(studio, shelf=None, **options):
    return (shelf or studio.shelf).put(PIXELS, None, studio.order(**options), FACTS, True, "python -m x")


def test_a_restart_finds_what_was_brought_in_and_made(studio):
    first, second = put(studio, seed="3", init="noise"), put(studio)
    again = Shelf(studio.shelf.folder)
    assert again.pictures == [second, first]
    assert [made.name for made in again.pictures] == ["0002.png", "0001.png"]
    assert again.size_of(studio.photo) == (36, 48)
    assert again.input_view(studio.photo)[:2] == b"\xff\xd8"
    assert np.array_equal(load_image(again.picture_path("0001.png")).pixels, PIXELS)
    assert put(studio, again).number == 3


def test_a_picture_tells_what_stylize_s_pictures_tell(studio):
    put(studio, seed="3", init="noise")
    text = read_text(studio.shelf.picture_path("0001.png"))
    settings = json.loads(text["Settings"])
    assert settings["content"] == studio.photo
    assert settings["style"] == [studio.painting]
    assert (settings["seed"], settings["init"], settings["iterations"]) == (3, "noise", 4)
    assert "options" not in settings
    assert {"Software", "Command", "Versions"} <= text.keys()


FORM = {"content": "a", "style": ["b"], "mask": [], "keep": None, "options": {}}
RECORD = {"number": 1, "form": FORM, "facts": FACTS, "steered": True}
WRONG = ({"number": 2}, {"form": {}}, {"form": FORM | {"options": [1]}}, {"facts": {}}, {"steered": 1})


@pytest.mark.parametrize("told", ["", "{", "[]", "[" * 100_000, *(json.dumps(RECORD | wrong) for wrong in WRONG)])
def test_what_the_studio_has_not_made_is_left_alone(studio, told):
    path = studio.shelf.picture_path("0001.png")
    save_image(path, PIXELS, None, {"Studio": told} if told else None)
    before = path.read_bytes()
    again = Shelf(studio.shelf.folder)
    assert again.pictures == []
    assert put(studio, again).number == 2
    assert path.read_bytes() == before


def test_a_damaged_file_on_the_shelf_hinders_nothing(studio):
    put(studio)
    for name in ("inputs/broken.png", "pictures/0002.png"):
        (studio.shelf.folder / name).write_bytes(b"\x89PNG nothing")
    again = Shelf(studio.shelf.folder)
    assert len(again.pictures) == 1
    with pytest.raises(ValueError, match=r"^there is no picture 'broken.png' here any more"):
        again.size_of("broken.png")


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("photo.JPG", "photo", ".jpg"),
        ("../../etc/passwd", "passwd", ""),
        ("C:\\pictures\\sea.png", "sea", ".png"),
        ("-o.png", "o", ".png"),
        ("雪.png", "picture", ".png"),
        ("a" * 300 + ".png", "a" * 40, ".png"),
        ("x;rm -rf $HOME\n.png", "x-rm-rf-HOME", ".png"),
        (".png", "picture", ".png"),
        ("", "picture", ""),
    ],
)
def test_whatever_a_file_is_called_its_name_here_is_plain(studio, name, stem, suffix):
    kept = studio.shelf.bring_in(name, encoded_image(".png", PIXELS))
    assert kept.startswith(f"{stem}-")
    assert kept.endswith(suffix)
    assert len(kept) == len(stem) + 11 + len(suffix)
    assert studio.shelf.input_path(kept).parent == studio.shelf.folder / "inputs"


def test_the_same_file_is_kept_once(studio):
    content = encoded_image(".png", PIXELS)
    names = {studio.shelf.bring_in("same.png", content) for _ in range(3)}
    assert len(names) == 1
    other = studio.shelf.bring_in("same.png", encoded_image(".png", 255 - PIXELS))
    assert other not in names


def test_a_wholly_transparent_painting_is_refused_and_a_photograph_is_not(studio, tmp_path):
    Image.new("RGBA", (20, 20)).save(tmp_path / "clear.png")
    content = (tmp_path / "clear.png").read_bytes()
    studio.shelf.bring_in("clear.png", content)
    with pytest.raises(ValueError, match=r"^cannot take the style of 'clear.png': it is wholly transparent$"):
        studio.shelf.bring_in("clear.png", content, painting=True)


def test_on_a_full_disk_a_file_that_is_brought_in_is_refused_in_one_line_and_leaves_nothing(studio):
    before = sorted(studio.shelf.folder.rglob("*"))
    with full_disk(1000), pytest.raises(ValueError, match=r"^cannot write '.*': File too large$"):
        studio.shelf.bring_in("new.png", encoded_image(".png", PIXELS))
    assert sorted(studio.shelf.folder.rglob("*")) == before
