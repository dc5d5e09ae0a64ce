"""An evening sky with a low sun and two layers of clouds."""

from __future__ import annotations

import numpy as np

from tools.drawing.colors import light, mix
from tools.drawing.daylight import Daylight
from tools.drawing.fields import Field, fractal, look_up, smoothstep
from tools.drawing.terrain import Camera

_GLOW: Field = np.array([1.0, 0.55, 0.2], np.float32)
_SUN: Field = np.array([8, 5.2, 2.2], np.float32)


def sky(camera: Camera, daylight: Daylight, random: np.random.Generator) -> Field:
    """Return the sky, shape (H, W, 3) in linear light; below the horizon it goes on as it is there."""
    thick = fractal(random, np.linspace(0, 9, 900), np.linspace(0, 11, 1100), 7, 0.55)
    thin = fractal(random, np.linspace(0, 7, 500), np.linspace(0, 3, 500), 6, 0.6)
    u, elevation = camera.directions()
    e, u = np.maximum(elevation, 0)[:, None], u[None, :]
    everywhere = np.zeros((e.size, u.size), np.float32)

    near_sun = np.exp(-(((u - daylight.u) / 0.6) ** 2))
    low = mix(light("c9b3b4"), light("ffc27a"), near_sun)
    colors = mix(light("34609f"), light("9cbbd8"), np.exp(-e / 0.22) + everywhere)
    colors = mix(colors, low, 0.95 * np.exp(-e / 0.09) + everywhere)
    away = np.hypot(u - daylight.u, e - daylight.elevation)
    colors = colors + (0.5 * np.exp(-away / 0.09) + 0.30 * np.exp(-away / 0.32))[..., None] * _GLOW

    # A layer of clouds is a plane overhead: it gathers towards the horizon.
    depth = 1 / (e + 0.1)
    rows, columns = depth * 90 + everywhere, u * depth * 62 + 550
    here = look_up(thick, rows, columns)
    towards_sun = look_up(thick, rows + 5, columns + 12 * daylight.side)
    cover = smoothstep(-0.1, 1.2, here + 0.25 * smoothstep(0.0, 0.2, e) - 0.1) * smoothstep(0.0, 0.05, e)
    # Lit is what has less cloud on the way to the sun than it has itself.
    lining = np.clip(0.5 + 0.55 * (here - towards_sun), 0, 1) * (1 - 0.45 * cover)
    body = mix(light("7c83a0"), mix(light("ffe9d0"), light("ffb877"), near_sun), lining)
    body = body + (0.9 * np.exp(-away / 0.16) * (1 - 0.6 * cover))[..., None] * _GLOW
    colors = mix(colors, body, cover * 0.88)
    veil = smoothstep(0.2, 2.0, look_up(thin, depth * 42 + everywhere, u * depth * 30 + 250))
    veil = veil * smoothstep(0.03, 0.2, e) * (1 - cover)
    colors = mix(colors, mix(light("f4e6dc"), light("ffcf9a"), near_sun), veil * 0.5)

    disc = smoothstep(0.017, 0.013, away) * (1 - 0.5 * cover)
    result: Field = (colors + disc[..., None] * _SUN).astype(np.float32)
    return result
