"""Space that is kept on a disk."""

import errno
import os

import numpy as np
import pytest

from tests.tools.disk import full_disk
from tools.cli.disk import Space, check_space, picture_bytes
from tools.media.saving import save_image


def test_space_is_taken_until_it_is_released_and_leaves_nothing(tmp_path):
    with Space(tmp_path / "out.png", 100_000) as space:
        (kept,) = tmp_path.iterdir()
        assert kept.stat().st_size == 100_000
        space.release()
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_space_that_is_not_there_is_told_and_leaves_nothing(tmp_path):
    with full_disk(1000), pytest.raises(ValueError, match=r"out\.png': its disk has no 100\.0 kB for it, "):
        Space(tmp_path / "out.png", 100_000)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_allocate_is_asked_how_much_is_free(tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    Space(tmp_path / "out.png", 1000).release()
    with pytest.raises(ValueError, match=r"not enough disk space in .* for out\.png: "):
        Space(tmp_path / "out.png", 1 << 60)
    assert list(tmp_path.iterdir()) == []


def test_space_for_a_folder_that_is_yet_to_be_made_is_looked_for_where_it_would_be(tmp_path):
    check_space(tmp_path / "a" / "b", "the pictures", 1000)
    with pytest.raises(ValueError, match="for the pictures: "):
        check_space(tmp_path / "a" / "b", "the pictures", 1 << 60)


def test_a_picture_of_noise_fits_into_the_space_that_is_kept_for_it(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for suffix in (".png", ".tif", ".webp", ".jpg"):
        path = tmp_path / f"noise{suffix}"
        save_image(path, noise)
        assert path.stat().st_size <= picture_bytes(300 * 300), suffix
