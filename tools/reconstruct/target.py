"""What a picture is to match: layers with their weights, for content or for style."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.network import Network
from engine.selection import PAPER_STYLE_LAYERS
from tools.cli.options import layers_called

PAPER_LAYERS = PAPER_STYLE_LAYERS
"""The layers of Figure 1, a to e, for content and for style."""

KINDS = ("content", "style")

Sets = tuple[Mapping[str, float], ...]


@dataclass(frozen=True)
class Target:
    """What one picture is to match.

    Parameters
    ----------
    kind : one of ``KINDS``.
    weighted : layers with their weights; a tuple, so that targets are compared and hashed by value.
    """

    kind: str
    weighted: tuple[tuple[str, float], ...]

    @property
    def layers(self) -> dict[str, float]:
        """The weights by layer."""
        return dict(self.weighted)

    @property
    def label(self) -> str:
        """The layers as a person writes them; the paper's sets by their ends."""
        names = tuple(self.layers)
        even = self.layers == even_weights(self.kind, names)
        if even and len(names) > 1 and names == PAPER_LAYERS[: len(names)]:
            return f"{names[0]} to {names[-1]}"
        return "+".join(name if even else f"{name}:{weight:g}" for name, weight in self.layers.items())

    @property
    def file(self) -> str:
        """The picture's file name."""
        even = self.layers == even_weights(self.kind, tuple(self.layers))
        parts = [name if even else f"{name}={weight:g}" for name, weight in self.layers.items()]
        name = re.sub(r"[^\w.+=-]", "-", "+".join(parts))
        if len(name) > 150:  # file systems end at 255 bytes
            name = f"{name[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return f"{self.kind}-{name}.png"


def targets_of(asked: Mapping[str, Sets | None], network: Network) -> tuple[list[Target], str]:
    """Return what to make, and what to say where the model does not have all of the paper's layers.

    Parameters
    ----------
    asked : by kind, the sets of layers; none stands for the paper's, None for no pictures of this kind. Where that is
        so of all kinds, each gets the paper's.

    Raises ValueError for layers that the model does not have, and for two sets of the same file.
    """
    known = tuple(name for name in PAPER_LAYERS if name in network.layers)
    if all(sets is None for sets in asked.values()):
        asked = dict.fromkeys(asked, ())
    targets, cut = [], ""
    for kind, sets in asked.items():
        if sets == ():
            if not known:
                raise ValueError(
                    f"the model has none of the paper's layers ({', '.join(PAPER_LAYERS)}), it has "
                    f"{', '.join(network.layers)}: name some with --content or --style"
                )
            missing = [name for name in PAPER_LAYERS if name not in known]
            cut = f"the model does not have {', '.join(missing)}: left out" if missing else ""
            depths = range(len(known))
            names = [known[depth : depth + 1] if kind == "content" else known[: depth + 1] for depth in depths]
            sets = tuple(even_weights(kind, layers) for layers in names)
        for layers in sets or ():
            called = layers_called(layers, network.outputs, 1.0 if kind == "content" else 1 / len(layers))
            targets.append(Target(kind, tuple(called.items())))
    for target in targets:
        network.checked(target.layers)
    if len({target.file for target in targets}) < len(targets):
        raise ValueError("two of the sets would have the same file: their weights are too near to each other")
    return targets, cut


def even_weights(kind: str, layers: Sequence[str]) -> dict[str, float]:
    """Return the weights that layers have where none are given."""
    return dict.fromkeys(layers, 1.0 if kind == "content" else 1 / len(layers))
