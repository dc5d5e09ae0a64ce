"""A look at where a picture is going before minutes are spent on it: the draft network at a small size."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.load import load_network
from engine.multiscale import fit
from engine.network import Network
from engine.objective import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS, Layers, layer_names
from engine.optimize import Iteration, Result
from engine.stylize import Settings, content_weight_at, content_weight_of, prepare
from tools.images import Picture, resize
from tools.model_cache import DRAFT_FILE

LONG_SIDE = 256
ITERATIONS = 100


def preview_path(output: Path) -> Path:
    """Return where the preview of the picture ``output`` is written: ``picture.png`` gives ``picture-preview.png``."""
    return output.with_stem(f"{output.stem}-preview")


def load_draft(pooling: str, device: str, threads: int | None) -> Network:
    """Return the draft network; the arguments are those of ``engine.load_network``."""
    return load_network(DRAFT_FILE, pooling=pooling, device=device, threads=threads)


def draft_settings(settings: Settings, network: Network, draft: Network, size: int, ratio: float) -> Settings:
    """Return the settings that take the draft network where ``settings`` take ``network``.

    The content weight keeps its distance to the one recommended for the network. Layers that the draft network does not
    have are left out, and if none is left, the paper's stand in.

    Parameters
    ----------
    size : long side of the picture in pixels.
    ratio : the preview's side by the picture's.
    """
    given = content_weight_of(settings, network, size) / network.content_weight
    content_weight = content_weight_at(draft.content_weight * given, ratio**2)
    return dataclasses.replace(
        settings,
        content_layers=_kept(settings.content_layers, draft.layers) or PAPER_CONTENT_LAYERS,
        style_layers=_kept(settings.style_layers, draft.layers) or PAPER_STYLE_LAYERS,
        content_weight=content_weight,
        iterations=min(settings.iterations, ITERATIONS),
        optimizer="l-bfgs",
        learning_rate=None,
        history=None,
    )


def preview_size(content: Picture, long_side: int) -> tuple[int, int]:
    """Return (height, width) of the preview of a picture that will have ``long_side``."""
    height, width, _ = content.pixels.shape
    return fit(height, width, min(long_side, LONG_SIDE))


def preview(
    draft: Network,
    content: Picture,
    styles: Sequence[tuple[Picture, float]],
    settings: Settings,
    sizes: Sequence[tuple[int, int]],
    initial: Picture | None,
    callback: Callable[[Iteration], bool | None] | None = None,
) -> Result:
    """Make the preview.

    Parameters
    ----------
    draft : from ``load_draft``.
    content : the photograph at the size of the preview.
    styles : the paintings at any size, with their weights.
    settings : from ``draft_settings``.
    sizes : (height, width) to which each painting is resized.
    initial : the picture to begin with at any size, where it comes from a file or is a painting.

    Raises ValueError for settings or pictures that do not fit.
    """
    height, width, _ = content.pixels.shape
    paintings = [
        (resize(painting, *size).array, weight) for (painting, weight), size in zip(styles, sizes, strict=True)
    ]
    first = None if initial is None else resize(initial, height, width).pixels
    return prepare(draft, content.pixels, paintings, settings, first).run(callback)


def _kept(layers: Layers, known: Sequence[str]) -> Layers:
    names = [name for name in layer_names(layers) if name in known]
    return {name: layers[name] for name in names} if isinstance(layers, Mapping) else names
