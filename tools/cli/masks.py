"""Masks from picture files: where each painting's style goes, and where the photograph is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.regions import Region
from tools.media.images import load_image
from tools.media.picture import Picture, resize

KEPT = 10.0
"""How much more the content counts where a picture is white that says what to keep."""

_SHAPES_DIFFER = 0.02
"""By how much the ratio of a mask's sides may differ from the photograph's: by that of rounded sizes."""

Mask = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Masks:
    """What was drawn, (H, W) each, 0..1.

    Parameters
    ----------
    regions : one for each painting, or none.
    kept : where the photograph is kept, or None.
    """

    regions: tuple[Mask, ...] = ()
    kept: Mask | None = None

    def regions_at(self, height: int, width: int, styles: Sequence[Any]) -> list[Region]:
        """Return the regions at a size, one for each style."""
        return [Region(_resized(mask, height, width), style) for mask, style in zip(self.regions, styles, strict=True)]

    def content_at(self, height: int, width: int) -> Mask | None:
        """Return how much each position of the content counts at a size."""
        if self.kept is None:
            return None
        return 1 + np.float32(KEPT - 1) * _resized(self.kept, height, width)


NO_MASKS = Masks()


def load_masks(regions: Sequence[Path], kept: Path | None, paintings: int, content: tuple[int, int]) -> Masks:
    """Read masks; white is 1.

    Parameters
    ----------
    regions : files, one for each painting; of one fewer, the last painting takes what the others leave.
    kept : the file that says where the photograph is kept, or None.
    paintings : how many there are.
    content : (height, width) of the photograph.

    Raises ValueError for another number of masks, and for one that is empty or of another shape than the photograph.
    """
    masks = [_load(path, content) for path in regions]
    if regions and len(regions) == paintings - 1:
        masks.append(np.clip(1 - sum(_resized(mask, *content) for mask in masks), 0, 1))
        if not masks[-1].any():
            raise ValueError("the masks leave nothing to the last painting")
    elif regions and len(regions) != paintings:
        given, of = _counted(len(regions), "mask"), _counted(paintings, "painting")
        raise ValueError(f"--mask has {given} for {of}: give one for each, or one fewer")
    return Masks(tuple(masks), None if kept is None else _load(kept, content))


def _load(path: Path, content: tuple[int, int]) -> Mask:
    picture = load_image(path)
    height, width = picture.size
    if abs(np.log(height * content[1] / (width * content[0]))) > _SHAPES_DIFFER:
        raise ValueError(
            f"the mask {path} has {width}x{height} pixels, which is not the shape of the photograph, "
            f"{content[1]}x{content[0]}: give it the same proportions"
        )
    mask: Mask = picture.pixels.mean(axis=2) / 255
    mask = mask if picture.alpha is None else mask * picture.alpha
    if not mask.any():
        raise ValueError(f"the mask {path} is black: white is what it chooses")
    return mask


def _resized(mask: Mask, height: int, width: int) -> Mask:
    gray = Picture(np.repeat(255 * mask[..., None], 3, axis=2), None)
    resized: Mask = np.clip(resize(gray, height, width).pixels[..., 0] / 255, 0, 1)
    return resized


def _counted(count: int, of: str) -> str:
    return f"{count} {of}{'' if count == 1 else 's'}"
