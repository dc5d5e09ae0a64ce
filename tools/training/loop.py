"""The training of the draft network, against an adversary.

Before every step the crops are changed a little in the direction that makes the answers worse. Without that the network
learns as well, but what it answers by can be changed by faint noise, and a picture optimised for such a network is the
photograph with faint noise on it.

Source of the adversary: Shafahi et al., "Adversarial Training for Free!" (2019), with perturbations bounded in L2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as nn

from tools.progress import Progress
from tools.training.muon import Muon
from tools.training.network import LAYERS, Draft, Heads, edge_filters
from tools.training.pictures import Pixels, windows
from tools.training.recipe import Recipe
from tools.training.views import SIDE, draw_batch


def train(pictures: Sequence[Pixels], recipe: Recipe, progress: Progress) -> Draft:
    """Return the trained network.

    Parameters
    ----------
    pictures : (H, W, 3), RGB, 0..255.
    progress : counts the steps.
    """
    random = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    torch.set_flush_denormal(True)
    planes = [torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1))) for picture in pictures]
    places = windows(list(pictures), SIDE, random)
    draft, heads = Draft(), Heads()
    with torch.no_grad():
        draft.convs[LAYERS[0]].weight.copy_(edge_filters(torch.Generator().manual_seed(recipe.seed)))
    draft.to(memory_format=torch.channels_last)
    muon = Muon((conv.weight for conv in draft.convs.values()), recipe.muon_rate)
    adam = torch.optim.AdamW(heads.parameters(), lr=recipe.adam_rate, weight_decay=0.03)
    shown: list[tuple[float, float]] = []
    for step in range(recipe.steps):
        part = step / recipe.steps
        factor = min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * part)) + 0.002
        strength = recipe.perturbation * min(1.0, max(0.0, part - recipe.quiet_part) / recipe.ramp)
        if step % recipe.replays == 0:
            batch = draw_batch(planes, places, recipe.batch, random)
            crops = batch.crops.contiguous(memory_format=torch.channels_last)
            change = torch.randn_like(crops) * strength
        changed = (crops + change).requires_grad_()
        loss, found = _loss(heads(draft(changed)), batch.orders, batch.defects, recipe.temperature)
        loss.backward()
        change = _worse(change, changed.grad, strength)
        for group in adam.param_groups:
            group["lr"] = recipe.adam_rate * factor
        muon.step(factor)
        adam.step()
        adam.zero_grad()
        shown.append((loss.item(), found))
        if (step + 1) % 50 == 0:
            mean_loss, mean_found = np.mean(shown[-50:], 0)
            progress.update(50, f"loss {mean_loss:.3f}, found {100 * mean_found:.0f} %")
    draft.eval()
    return draft


def _loss(
    answers: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    orders: torch.Tensor,
    defects: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, float]:
    """Return the sum over the layers and how often the deepest finds the other view, of all crops in the batch.

    Source of the main term: van den Oord, Li and Vinyals, "Representation Learning with Contrastive Predictive Coding"
    (2018), equation 4.
    """
    size = len(orders)
    partner = torch.arange(size) ^ 1
    total = torch.zeros(())
    found = 0.0
    for embedding, order, defect in answers.values():
        likeness = embedding @ embedding.T / temperature
        likeness = likeness.masked_fill(torch.eye(size, dtype=torch.bool), -1e4)
        # Each in units of what guessing costs.
        total = total + nn.cross_entropy(likeness, partner) / math.log(size)
        total = total + 0.3 * nn.cross_entropy(order, orders) / math.log(order.shape[1])
        total = total + 0.5 * nn.cross_entropy(defect, defects) / math.log(defect.shape[1])
        found = (likeness.argmax(1) == partner).float().mean().item()
    return total, found


def _worse(change: torch.Tensor, gradient: torch.Tensor | None, strength: float) -> torch.Tensor:
    """Return a change that makes the loss greater, of a root mean square of at most ``strength`` in each crop."""
    assert gradient is not None

    def size(values: torch.Tensor) -> torch.Tensor:
        return values.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12

    change = change + 1.5 * strength * gradient / size(gradient)
    return change * (strength / size(change)).clamp(max=1)
