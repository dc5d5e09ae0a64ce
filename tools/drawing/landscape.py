"""A rendered photograph: a mountain lake at the end of the day."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tools.drawing.colors import light, to_bytes, to_srgb
from tools.drawing.daylight import Daylight
from tools.drawing.fields import Field, blur, check_size, fractal, relative_size, shrink, smoothstep
from tools.drawing.houses import House, smoke
from tools.drawing.meadow import meadow
from tools.drawing.shores import Spit, hills, mountain_heights, mountains, spit
from tools.drawing.sky import sky
from tools.drawing.terrain import Camera, see
from tools.drawing.trees import Tree, broadleaf, conifer
from tools.drawing.water import lake

_OVERSAMPLING = 2


def landscape(height: int = 480, width: int = 640, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return a picture like a photograph of a mountain lake, uint8, shape (height, width, 3).

    Parameters
    ----------
    height, width : in pixels, at least 64 each.
    seed : another one gives another place and light; the same one the same bits.
    """
    check_size(height, width)
    random = np.random.default_rng([seed, 0])
    tall, wide = height * _OVERSAMPLING, width * _OVERSAMPLING
    # In an upright picture all is smaller, so that as much of the place is in it.
    focal = 1.08 * tall * min(1.0, width / height) ** 0.5
    camera = Camera(tall, wide, focal, tall * random.uniform(0.47, 0.5), random.uniform(6.5, 8))
    u, _ = camera.directions()

    side = int(random.choice([-1, 1]))
    sun_u = side * float(u[-1]) * random.uniform(0.5, 0.75)
    at, heights = mountain_heights(camera, side, sun_u, random)
    crest = float(heights.max(axis=0)[np.abs(u - sun_u) < 0.05].max())
    daylight = Daylight(side, sun_u, max(0.085, crest + random.uniform(0.02, 0.035)))

    above = sky(camera, daylight, random)
    near = spit(camera, daylight, random)
    lands = [mountains(at, heights, u, daylight, random), hills(camera, daylight, random), near.land]
    things = _things(near, camera, daylight, random)
    for thing in things:
        _cast_shadow(thing, near, daylight)

    def view(camera: Camera, picture: Field) -> Field:
        """Return the picture with all that stands on land in front of it."""
        for land in lands:
            picture = see(land, camera, picture)
        for thing in things:
            thing.draw(picture, camera)
        smoke(picture, camera, [thing for thing in things if isinstance(thing, House)][-1], daylight)
        return picture

    # The sky is so far away that it is the same from below the water.
    water = lake(view(camera.mirrored(), above), camera, random.spawn(1)[0])
    above_horizon = (np.arange(tall) + 0.5 < camera.horizon)[:, None, None]
    picture = view(camera, np.where(above_horizon, above, water))
    rough = 0.014 * fractal(random, np.zeros(1), u * 7, 4)[0]
    towards_sun = side * u / u[-1]
    bank = tall * (0.925 - 0.05 * towards_sun - 0.03 * towards_sun * np.abs(towards_sun) + rough)
    meadow(picture, camera, bank, daylight, random.spawn(1)[0])
    return _developed(picture, random)


def _things(near: Spit, camera: Camera, daylight: Daylight, random: np.random.Generator) -> list[House | Tree]:
    """Return the houses and trees of the spit, the farthest first."""
    planks = random.permutation(np.stack([light(code) for code in ("a8452f", "c9b48a", "7d8a90", "8a6a48")]))
    houses = []
    for distance, inside, color in ((118.0, 0.20, planks[0]), (150.0, 0.36, planks[1])):
        x, y, z = near.place(distance, inside)
        size, turn = random.uniform(0.95, 1.15), random.uniform(0.5, 0.9)
        houses.append(House((x, y - 0.3, z), turn, 13 * size, 9 * size, 4.2 * size, 4.0 * size, color, daylight))
    things: list[House | Tree] = list(houses)
    for _ in range(110):
        place = near.place(float(np.exp(random.uniform(np.log(100), np.log(330)))), random.uniform(0.03, 0.6))
        # Nothing grows in a house, nor between it and the camera.
        if any(
            abs(place[0] / place[2] - house.place[0] / house.distance) < 11 / house.distance
            and place[2] < house.distance + 9
            for house in houses
        ):
            continue
        if random.uniform() < 0.62:
            things.append(conifer(place, 9 + 12 * random.uniform() ** 1.5, camera, daylight, random))
        else:
            leaf = light(str(random.choice(["5d6b2a", "8a7a2e", "a8702c"])))
            things.append(broadleaf(place, random.uniform(4, 10), leaf, camera, daylight, random))
    return sorted(things, key=lambda thing: -thing.distance)


def _cast_shadow(thing: House | Tree, near: Spit, daylight: Daylight) -> None:
    """Darken the spit where a house or a tree keeps the sun away."""
    if isinstance(thing, House):
        x, wide, tall = thing.place[0], 0.5 * thing.long, thing.wall + thing.roof
    else:
        x, wide, tall = float(np.median(thing.x)), 0.13 * float(np.ptp(thing.y)), float(np.ptp(thing.y))
    z = thing.distance
    first, last = np.searchsorted(near.land.distances, [z - 1.5 * wide, z + 1.5 * wide])
    metres = near.land.distances[first:last, None]
    # Along the shadow from the foot, 1 at its end, and across it.
    away = (x - near.u * metres) * daylight.side / (1.9 * tall)
    across = np.abs(metres - z) / (wide * np.clip(1.1 - 0.6 * away, 0.1, None))
    dark = smoothstep(1.1, 0.6, across) * smoothstep(1.0, 0.7, away) * smoothstep(-0.1, 0.02, away)
    # What is left is the sky's light, and bluer.
    near.land.colors[first:last] *= 1 - dark[..., None] * np.array([0.6, 0.54, 0.45], np.float32)


def _developed(picture: Field, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return linear light as a print of it: bloom around what is bright, a film's curve, fine grain."""
    picture = shrink(picture, _OVERSAMPLING)
    size = relative_size(*picture.shape[:2])
    bright = np.maximum(picture - 0.85, 0)
    picture = picture + 0.35 * blur(bright, 9 * size) + 0.25 * blur(bright, 2 * size)
    # Highlights roll off as on film instead of breaking off.
    picture = np.where(picture < 0.6, picture, 0.6 + 0.4 * (1 - np.exp(-(picture - 0.6) / 0.4)))
    values = to_srgb(picture)
    values = values + 0.4 * (values - 0.5) * (1 - values) * values
    grain = random.standard_normal(values.shape[:2], dtype=np.float32)
    return to_bytes(values + np.float32(0.006) * grain[..., None])
