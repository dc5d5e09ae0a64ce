from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tools.training.pictures import Window, clouds  # noqa: E402
from tools.training.views import DEFECTS, SIDE, VIEWS, draw_batch  # noqa: E402

PICTURE = torch.from_numpy(clouds(160, np.random.default_rng(0)).transpose(2, 0, 1).copy())
PLACES = [Window(0, 80.0, 80.0), Window(0, 60.0, 100.0)]


def batch(seed: int, size: int = 32):
    return draw_batch([PICTURE], PLACES, size, np.random.default_rng(seed))


def test_a_batch_is_the_same_for_the_same_seed():
    first, again, other = batch(0), batch(0), batch(1)
    assert first.crops.shape == (32, 3, SIDE, SIDE)
    assert 0 <= first.crops.min() <= first.crops.max() <= 255
    assert torch.equal(first.crops, again.crops)
    assert not torch.equal(first.crops, other.crops)


def test_the_views_of_a_variant_share_colours_and_defect_but_are_not_the_same_crop():
    drawn = batch(2, 128)
    for values in (drawn.orders, drawn.defects):
        assert torch.equal(values[0::2], values[1::2])
        assert len(values.unique()) > 2
    assert all(not torch.equal(a, b) for a, b in zip(drawn.crops[0::2], drawn.crops[1::2], strict=True))
    assert len(drawn.crops) % VIEWS == 0


@pytest.mark.parametrize("defect", DEFECTS[1:], ids=lambda defect: defect.__name__)
def test_a_defect_changes_the_crop_and_repeats_with_its_seeds(defect):
    crop = PICTURE[:, :SIDE, :SIDE]

    def made(seed: int):
        return defect(crop, np.random.default_rng(seed), torch.Generator().manual_seed(seed))

    assert made(0).shape == crop.shape
    assert torch.equal(made(0), made(0))
    assert (made(0) - crop).abs().mean() > 1


@pytest.mark.parametrize("defect", [d for d in DEFECTS if d.__name__ in ("_shuffled_pixels", "_shuffled_tiles")])
def test_shuffling_keeps_every_value(defect):
    crop = PICTURE[:, :SIDE, :SIDE]
    made = defect(crop, np.random.default_rng(0), torch.Generator().manual_seed(0))
    assert torch.equal(made.flatten(1).sort(1).values, crop.flatten(1).sort(1).values)


def test_scrambled_phases_keep_the_spectrum():
    crop = PICTURE[:, :SIDE, :SIDE]
    scrambled = next(d for d in DEFECTS if d.__name__ == "_scrambled_phases")
    made = scrambled(crop, np.random.default_rng(0), torch.Generator().manual_seed(0))
    before, after = (torch.fft.rfft2(values).abs()[:, 1:, 1:-1] for values in (crop, made))
    assert torch.allclose(before, after, rtol=1e-2, atol=1.0)
