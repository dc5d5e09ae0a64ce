"""How the draft network is made: every number that is a choice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How the filters are fitted to the pictures."""

    patches: int = 40_000
    """Patches that a layer's filters are fitted to, drawn from all pictures by their area."""
    floor: float = 1e-3
    """Part of the components' mean variance that is added to each before it is whitened, so that none is only noise."""
    seed: int = 0


LAYER_WEIGHTS = {"conv1": 100.0, "conv2": 30.0, "conv3": 5.0, "conv4": 1.0, "conv5": 1.0}
"""How much more a block weighs in the style loss than with all channels at a mean response of 1, as in VGG-19, whose
lower layers have the larger responses."""

GAIN = 30.0
"""Common factor on all responses, by which the paper's content weight of 1e-3 gives the paper's look."""
