"""What the draft network is fitted to: free pictures and the project's own samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tools.images import load_image
from tools.samples import SAMPLES

FREE_PICTURES = (
    "chelsea.png",
    "coffee.png",
    "astronaut.png",
    "rocket.jpg",
    "starry_night.jpg",
    "kandinsky_composition_vii.jpg",
    "water_lilies_monet_1919.jpg",
)
"""Photographs that are CC0 or in the public domain, and paintings whose painters died before 1945."""

SIZES = (440, 256)
"""Long sides, in pixels, at which a free picture is shown: strokes of more than one width."""

SAMPLE_SEEDS = (1, 2)
"""Seeds of the sample pictures; 0, that of the pictures in docs/samples, is left out."""

SAMPLE_SHAPE = (192, 256)
"""Height and width at which the samples are drawn."""

Pixels = npt.NDArray[np.float32]


def training_pictures(folder: Path) -> list[Pixels]:
    """Return all pictures, (H, W, 3), RGB, 0..255.

    Parameters
    ----------
    folder : has the files of FREE_PICTURES.

    Raises ValueError where one is missing or cannot be read.
    """
    pictures = [load_image(folder / name, long_side=size).pixels for name in FREE_PICTURES for size in SIZES]
    drawn = [draw(*SAMPLE_SHAPE, seed) for draw in SAMPLES.values() for seed in SAMPLE_SEEDS]
    return pictures + [picture.astype(np.float32) for picture in drawn]
