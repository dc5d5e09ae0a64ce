"""What a network makes of pictures: those that it has to learn from too.

On a photograph a small network is soon right. But a run of style transfer goes where its loss is low, and where the
small network is wrong in the picture's favor it is low: it must learn from pictures that it has made itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from engine.graph import Node
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.optimize import minimize
from engine.selection import PAPER_CONTENT_LAYERS
from tools.draft.chain import Chain, Layer, nodes_of

BALANCE = {"conv1_1": 14.0, "conv2_1": 4.5, "conv3_1": 2.4, "conv4_1": 1.2, "conv5_1": 5.0}
"""How many times as large as the teacher's the activations of the style layers are: E_l grows with the fourth power."""

PRACTICE_BALANCE = {"conv1_1": 5.0, "conv2_1": 2.0, "conv3_1": 1.4, "conv4_1": 1.0, "conv5_1": 2.0}
"""That of the network that makes pictures for practice."""

WEIGHTS = (1.0, 0.2, 3.0)
"""Content weights of the pictures made for practice, in turn, in units of the recommended one."""

ITERATIONS = 60


def scaled(student: Chain, sizes: Mapping[str, float], teacher: Chain, balance: Mapping[str, float] = BALANCE) -> Chain:
    """Return the student with activations of the teacher's size, times ``balance``, which changes nothing else.

    In the style layers so that E_l has the teacher's size: it is divided by the number of channels twice, which
    differs. In the content layer so that the content loss has.

    Parameters
    ----------
    student, sizes : as learnt.
    """
    full = {layer.name: layer.weight.shape[3] for layer in teacher}
    result: Chain = []
    before = 1.0
    for layer in student:
        factor = sizes.get(layer.name, 1.0) * balance.get(layer.name, 1.0)
        if layer.name not in PAPER_CONTENT_LAYERS:
            factor *= (layer.weight.shape[3] / full[layer.name]) ** 0.5
        weight, bias = layer.weight * np.float32(factor / before), layer.bias * np.float32(factor)
        result.append(Layer(layer.name, weight, bias, layer.pooled))
        before = factor
    return result


def network_of(chain: Chain, teacher: Network) -> Network:
    """Return a chain as a network that takes images as the teacher does."""
    nodes: tuple[Node, ...] = nodes_of(chain)
    return replace(teacher, nodes=nodes, outputs={layer.name: layer.name for layer in chain}, weights="", notes=())


def practiced(
    network: Network,
    photographs: Sequence[Array],
    paintings: Sequence[Array],
    count: int,
    content_weight: float,
    seed: int,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Array]:
    """Return ``count`` pictures made by a network, every fourth from noise, the others from the photograph."""
    random = np.random.default_rng(seed)
    result: list[Array] = []
    for number in range(count):
        photograph, painting = photographs[number % len(photographs)], paintings[number % len(paintings)]
        weight = WEIGHTS[number // len(paintings) % len(WEIGHTS)]
        objective = Objective(network, photograph, painting, content_weight=content_weight * weight)
        start = photograph if number % 4 else random.uniform(0, 255, photograph.shape)
        run = minimize(objective, start, "l-bfgs", ITERATIONS)
        result.append(run.image.astype(np.float32))
        tell(f"practice picture {number + 1} of {count}")
    return result
