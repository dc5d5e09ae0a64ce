"""The crops that are learnt from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.preprocessing import Preprocessing
from kernels import Cpu
from tools.draft.chain import Array


def crops(pictures: Sequence[Array], preprocessing: Preprocessing, count: int, side: int, seed: int) -> list[Array]:
    """Return ``count`` square crops at random places of the pictures in turn, half of them mirrored.

    Parameters
    ----------
    pictures : (H, W, 3), RGB, 0..255; of at least ``side`` pixels on each side.

    Returns
    -------
    (side, side, 3), float32, as the network takes them.
    """
    device, random, result = Cpu(1), np.random.default_rng(seed), []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        y, x = (int(random.integers(0, length - side + 1)) for length in picture.shape[:2])
        crop = picture[y : y + side, x : x + side]
        if random.integers(2):
            crop = crop[:, ::-1]
        result.append(preprocessing.apply(device, np.ascontiguousarray(crop), np.dtype(np.float32)))
    return result
