"""How the draft network is trained: every number that is a choice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How the network is trained."""

    steps: int = 2200
    batch: int = 64
    replays: int = 2
    """Steps with the same crops: the gradient of one makes the perturbation of the next."""
    perturbation: float = 2.5
    """Root mean square of the adversary's change of a crop, in grey levels, at its full strength."""
    quiet_part: float = 0.08
    """Part of the steps before the adversary begins."""
    ramp: float = 0.35
    """Part of the steps over which it reaches its full strength."""
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    temperature: float = 0.1
    seed: int = 0


LAYER_WEIGHTS = {"conv1": 100.0, "conv2": 30.0, "conv3": 5.0, "conv4": 1.0, "conv5": 1.0}
"""How much more a block weighs in the style loss than with all channels at a mean response of 1, as in VGG-19, whose
lower layers have the larger responses."""

GAIN = 30.0
"""Common factor on all responses, by which the paper's content weight of 1e-3 gives the paper's look."""
