"""The question put to the draft network in training, which two of the crops show the same place in the same way.

Each place is shown in two variants of two views each. The views of a variant differ in position, size, angle and
brightness, which the network shall not mind. The variants differ in what it shall see: a quarter turn, exchanged
colours, a defect such as noise or shuffled tiles. A network blind to a defect cannot answer, and pictures made with it
would be full of that defect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as nn
from torch import Tensor

from tools.training.pictures import Window

SIDE = 64
"""Height and width of a crop, in pixels."""

VIEWS = 4
"""Crops of one place in a batch: two variants of two views."""

CHANNEL_ORDERS = ((0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0))


@dataclass(frozen=True, eq=False)
class Batch:
    """Crops to compare.

    Parameters
    ----------
    crops : (n, 3, SIDE, SIDE), RGB, 0..255, float32; the views of a variant follow each other.
    orders : (n,), which of CHANNEL_ORDERS the colours are in.
    defects : (n,), which of DEFECTS the crop has.
    """

    crops: Tensor
    orders: Tensor
    defects: Tensor


def draw_batch(pictures: Sequence[Tensor], places: Sequence[Window], size: int, random: np.random.Generator) -> Batch:
    """Return ``size`` crops, a multiple of VIEWS, of pictures of shape (3, H, W)."""
    crops, orders, defects = [], [], []
    for place in random.integers(0, len(places), size // VIEWS):
        for _ in range(2):
            turns = int(random.integers(4)) if random.random() < 0.5 else 0
            order = int(random.integers(len(CHANNEL_ORDERS))) if random.random() < 0.5 else 0
            defect = int(random.integers(1, len(DEFECTS))) if random.random() < 0.5 else 0
            seed = int(random.integers(2**31))
            for _ in range(VIEWS // 2):
                crop = _crop(pictures, places[place], random)
                crop = torch.rot90(crop, turns, (1, 2))[list(CHANNEL_ORDERS[order])]
                # How strong the defect is belongs to the variant, where its grains lie to the view.
                grains = torch.Generator().manual_seed(int(random.integers(2**31)))
                crop = DEFECTS[defect](crop, np.random.default_rng(seed), grains)
                crops.append(crop.clamp(0, 255))
                orders.append(order)
                defects.append(defect)
    return Batch(torch.stack(crops), torch.tensor(orders), torch.tensor(defects))


def _crop(pictures: Sequence[Tensor], place: Window, random: np.random.Generator) -> Tensor:
    picture = pictures[place.picture]
    height, width = picture.shape[1:]
    zoom, angle = math.exp(random.uniform(-0.3, 0.3)), random.normal(0, 0.2)
    mirror = 1 if random.random() < 0.5 else -1
    y, x = place.y + random.uniform(-14, 14), place.x + random.uniform(-14, 14)
    along, across = zoom * math.cos(angle) * SIDE, zoom * math.sin(angle) * SIDE
    matrix = torch.tensor(
        [
            [along * mirror / width, -across / width, 2 * x / width - 1],
            [across * mirror / height, along / height, 2 * y / height - 1],
        ],
        dtype=torch.float32,
    )
    grid = nn.affine_grid(matrix[None], [1, 3, SIDE, SIDE], align_corners=False)
    crop = nn.grid_sample(picture[None], grid, padding_mode="reflection", align_corners=False)[0]
    tint = random.uniform(-12, 12) + random.normal(0, 3, (3, 1, 1))
    return crop * random.uniform(0.85, 1.15) + torch.tensor(tint, dtype=torch.float32)


# ---- the defects: (crop, its variant's random numbers, its view's random numbers) -> crop ----

Defect = Callable[[Tensor, np.random.Generator, torch.Generator], Tensor]


def _none(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    return crop


def _noise(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    return crop + torch.randn(crop.shape, generator=grains) * variant.uniform(8, 30)


def _coarse_noise(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    coarse = torch.randn((1, 3, SIDE // 2, SIDE // 2), generator=grains) * variant.uniform(6, 40)
    return crop + nn.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")[0]


def _blur(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    reach = 3
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / variant.uniform(0.6, 2)) ** 2)
    bell = bell / bell.sum()
    padded = nn.pad(crop[:, None], (reach,) * 4, mode="reflect")
    return nn.conv2d(padded, (bell[:, None] * bell)[None, None])[:, 0]


def _scrambled_phases(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    phases = torch.fft.rfft2(torch.randn((1, SIDE, SIDE), generator=grains))
    return torch.fft.irfft2(torch.fft.rfft2(crop) * phases / phases.abs().clamp(min=1e-6), (SIDE, SIDE))


def _shuffled_pixels(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    """Move the pixels about inside tiles, in every tile alike."""
    tile = int(variant.choice([2, 4, 8, 16]))
    tiles = _tiles(crop, tile)
    return _joined(tiles[:, :, torch.randperm(tile * tile, generator=grains)], tile)


def _shuffled_tiles(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    tile = int(variant.choice([4, 8, 16]))
    tiles = _tiles(crop, tile)
    return _joined(tiles[:, torch.randperm(tiles.shape[1], generator=grains)], tile)


def _checkerboard(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    cell = 1 if variant.random() < 0.5 else 2
    steps = torch.arange(SIDE) // cell
    board = (steps[:, None] + steps) % 2 * 2.0 - 1.0
    return crop + board * torch.randn((3, 1, 1), generator=grains) * variant.uniform(4, 25)


def _posterised(crop: Tensor, variant: np.random.Generator, grains: torch.Generator) -> Tensor:
    step = variant.uniform(10, 60)
    return torch.round(crop / step) * step


DEFECTS: tuple[Defect, ...] = (
    _none,
    _noise,
    _coarse_noise,
    _blur,
    _scrambled_phases,
    _shuffled_pixels,
    _shuffled_tiles,
    _checkerboard,
    _posterised,
)


def _tiles(crop: Tensor, tile: int) -> Tensor:
    """Return a crop as (3, number of tiles, pixels of a tile)."""
    count = SIDE // tile
    return crop.reshape(3, count, tile, count, tile).permute(0, 1, 3, 2, 4).reshape(3, count * count, tile * tile)


def _joined(tiles: Tensor, tile: int) -> Tensor:
    count = SIDE // tile
    return tiles.reshape(3, count, count, tile, tile).permute(0, 1, 3, 2, 4).reshape(3, SIDE, SIDE)
