from __future__ import annotations

import numpy as np
import pytest

from tools.images import save_image
from tools.training.pictures import FREE_PICTURES, training_pictures


def test_free_pictures_come_in_two_sizes_and_samples_beside_them(tmp_path):
    for name in FREE_PICTURES:
        made = (tmp_path / name).with_suffix(".png")
        save_image(made, np.full((384, 512, 3), 99.0))
        made.rename(tmp_path / name)
    pictures = training_pictures(tmp_path)
    assert [picture.shape for picture in pictures[:4]] == [(330, 440, 3), (192, 256, 3)] * 2
    assert len(pictures) == 14 + 8
    assert all(picture.dtype == np.float32 for picture in pictures)


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(ValueError, match=FREE_PICTURES[0]):
        training_pictures(tmp_path)
