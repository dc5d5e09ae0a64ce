"""The options that look at a picture with the draft network first, as previews and drafts do."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping

from engine.network import Network
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS, Layers, layer_names
from engine.stylize import content_weight_at, content_weight_of
from tools.cli.options import FIRST_DRAFT, Options
from tools.models.cache import DRAFT

LONG_SIDE = 256
ITERATIONS = 100


def with_draft(options: Options, network: Network, draft: Network, size: int) -> Options:
    """Return the options that take the draft network where ``options`` take ``network``.

    The content weight keeps its distance to the one recommended for the network. Layers that the draft network does not
    have are left out, and if none is left, the paper's stand in.

    Parameters
    ----------
    size : long side of the preview in pixels. A draft cannot begin with a draft: it begins with the photograph.
    """
    ratio = size / options.size
    given = content_weight_of(options, network, options.size) / network.content_weight
    # The paintings stand to the preview as they will stand to the picture.
    style_size = options.style_size or options.size
    return dataclasses.replace(
        options,
        content_layers=_kept(options.content_layers, draft.outputs) or PAPER_CONTENT_LAYERS,
        style_layers=_kept(options.style_layers, draft.outputs) or PAPER_STYLE_LAYERS,
        content_weight=content_weight_at(draft.content_weight * given, ratio**2),
        iterations=min(options.iterations, ITERATIONS),
        optimizer="l-bfgs",
        learning_rate=None,
        history=None,
        init="content" if options.init == FIRST_DRAFT else options.init,
        model=DRAFT,
        dtype="float32",
        size=size,
        style_size=max(1, round(style_size * ratio)) if isinstance(style_size, int) else style_size,
        levels=1,
    )


def left_out(options: Options, draft: Network) -> list[str]:
    """Return the layers of some options that the draft network does not have."""
    names = dict.fromkeys([*layer_names(options.content_layers), *layer_names(options.style_layers)])
    return [name for name in names if name not in draft.outputs]


def _kept(layers: Layers, known: Container[str]) -> Layers:
    names = [name for name in layer_names(layers) if name in known]
    return {name: layers[name] for name in names} if isinstance(layers, Mapping) else names
