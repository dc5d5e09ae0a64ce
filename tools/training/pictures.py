"""What the draft network learns from: free pictures, the project's own samples, and textures made by rule."""

from __future__ import annotations

import math
from dataclasses import dataclass
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

SIZES = (1000, 620, 380, 240)
"""Long sides, in pixels, at which a free picture is shown, as far as it is that large: strokes of every width."""

SAMPLE_SEEDS = range(1, 8)
"""Seeds of the sample pictures; 0, that of the pictures in docs/samples, is left out."""

TEXTURE_SIDE = 384
LEAVES = 14
CLOUDS = 6

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Window:
    """A place in a picture: the centre of a crop, in pixels."""

    picture: int
    y: float
    x: float


def training_pictures(folder: Path, random: np.random.Generator) -> list[Pixels]:
    """Return all pictures, (H, W, 3), RGB, 0..255.

    Raises ValueError where one of the free pictures is missing from the folder.
    """
    pictures = []
    for name in FREE_PICTURES:
        whole = load_image(folder / name).pixels
        pictures += [
            load_image(folder / name, long_side=side).pixels for side in SIZES if side <= 1.05 * max(whole.shape)
        ]
    pictures += [draw(360, 480, seed).astype(np.float32) for seed in SAMPLE_SEEDS for draw in SAMPLES.values()]
    pictures += [clouds(TEXTURE_SIDE, random) for _ in range(CLOUDS)]
    pictures += [dead_leaves(TEXTURE_SIDE, random) for _ in range(LEAVES)]
    return pictures


def windows(pictures: list[Pixels], side: int, random: np.random.Generator) -> list[Window]:
    """Return places to crop squares of ``side`` from, between 20 and 140 a picture, by its area."""
    places = []
    for index, picture in enumerate(pictures):
        height, width, _ = picture.shape
        # A large picture overlaps itself 1.6 times; margins leave room for turned and shifted crops.
        count = min(140, max(20, round(1.6 * height * width / (1.5 * side) ** 2)))
        margin = 0.6 * side
        for _ in range(count):
            y, x = random.uniform(margin, height - margin), random.uniform(margin, width - margin)
            places.append(Window(index, y, x))
    return places


def clouds(side: int, random: np.random.Generator) -> Pixels:
    """Return coloured noise whose amplitude falls with a power of the frequency, as that of natural pictures does.

    Source: Baradad, Wulff, Wang, Isola and Torralba, "Learning to See by Looking at Noise" (2021), section 3.2.
    """
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1.0
    shape = (3, *frequency.shape)
    spectrum = (random.standard_normal(shape) + 1j * random.standard_normal(shape)) / frequency ** random.uniform(
        0.7, 1.6
    )
    spectrum[:, 0, 0] = 0.0
    planes = np.fft.irfft2(spectrum, (side, side))
    planes /= planes.std((1, 2), keepdims=True)
    # Colours go together as they do in pictures, not quite.
    mixing = 1.0 + 0.5 * np.eye(3) + random.standard_normal((3, 3)) / 2
    planes = np.einsum("ij,jyx->yxi", mixing, planes)
    planes *= random.uniform(30, 65) / planes.std()
    picture: Pixels = np.clip(planes + random.uniform(70, 180, 3), 0, 255).astype(np.float32)
    return picture


def dead_leaves(side: int, random: np.random.Generator) -> Pixels:
    """Return discs, boxes or flowers of all sizes that fell on each other, some striped: edges, corners, occlusion.

    The radii have the density r^-3 that makes such pictures look alike at every scale.

    Source: Lee, Mumford and Huang, "Occlusion Models for Natural Images" (2001).
    """
    picture = np.empty((side, side, 3))
    picture[:] = random.uniform(0, 255, 3)
    palette = random.uniform(0, 255, (random.integers(3, 12), 3))
    kind = random.integers(3)
    smallest, largest = random.uniform(3, 8), 90.0
    count = random.integers(150, 600)
    radii = (largest**-2 + random.random(count) * (smallest**-2 - largest**-2)) ** -0.5
    for radius in radii:
        cy, cx = random.uniform(-radius, side + radius, 2)
        top, bottom = max(0, int(cy - 2 * radius)), min(side, int(cy + 2 * radius) + 1)
        left, right = max(0, int(cx - 2 * radius)), min(side, int(cx + 2 * radius) + 1)
        if top >= bottom or left >= right:
            continue
        y, x = np.mgrid[top:bottom, left:right] - np.array([cy, cx])[:, None, None]
        angle, aspect = random.uniform(0, math.pi), random.uniform(0.15, 1.0)
        u = math.cos(angle) * x + math.sin(angle) * y
        v = (math.cos(angle) * y - math.sin(angle) * x) / aspect
        if kind == 0:
            outside = np.hypot(u, v) - radius
        elif kind == 1:
            outside = np.maximum(abs(u), abs(v)) - radius
        else:
            petals = random.integers(2, 7)
            outside = np.hypot(u, v) - radius * (1 + 0.25 * np.sin(petals * np.arctan2(v, u)))
        cover = np.clip(0.5 - outside, 0, 1)[..., None]
        colour = palette[random.integers(len(palette))] + random.normal(0, 12, 3)
        stripes = np.zeros_like(u)
        if random.random() < 0.4:
            stripes = np.sin(u * random.uniform(0.15, 1.5)) * random.uniform(5, 35)
        patch = picture[top:bottom, left:right]
        patch += cover * (colour + stripes[..., None] - patch)
    return np.clip(picture, 0, 255).astype(np.float32)
