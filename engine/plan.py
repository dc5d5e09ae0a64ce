"""What the network runs in place of its nodes where that gives the same and is faster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from engine.graph import Node
from engine.ops import AveragePool, Conv, ConvBlock, HopperConv, ImplicitGemmConv


def planned(nodes: Sequence[Node], kept: Collection[str]) -> tuple[Node, ...]:
    """Return ``nodes`` with convolutions replaced by ``ConvBlock`` where it suits, poolings taken in.

    A pooling is taken into the block before it unless the values between the two are in ``kept`` or read elsewhere.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    result: list[Node] = []
    for node in nodes:
        operator, before = node.operator, result[-1] if result else None
        if isinstance(operator, Conv) and ConvBlock.suits(operator):
            result.append(replace(node, operator=ConvBlock(operator)))
        elif (
            isinstance(operator, AveragePool)
            and ConvBlock.takes(operator)
            and before is not None
            and isinstance(before.operator, ConvBlock)
            and before.output == node.input
            and readers[node.input] == 1
            and node.input not in kept
        ):
            result[-1] = replace(before, operator=replace(before.operator, pool=True), output=node.output)
        else:
            result.append(node)
    return tuple(result)


def planned_for_hopper(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return ``nodes`` with convolutions replaced by ``HopperConv`` where it suits."""
    return tuple(
        replace(node, operator=HopperConv(node.operator))
        if isinstance(node.operator, Conv) and HopperConv.suits(node.operator)
        else node
        for node in nodes
    )


def planned_for_tensor_cores(nodes: Sequence[Node], split: bool) -> tuple[Node, ...]:
    """Return ``nodes`` with convolutions replaced by ``ImplicitGemmConv`` where it suits.

    Parameters
    ----------
    nodes : with their parameters on the GPU.
    split : keep float32's precision.
    """
    return tuple(
        replace(node, operator=ImplicitGemmConv(node.operator, split))
        if isinstance(node.operator, Conv) and ImplicitGemmConv.suits(node.operator)
        else node
        for node in nodes
    )


def masked_by_readers(nodes: Sequence[Node], kept: Collection[str]) -> tuple[Node, ...]:
    """Return ``nodes`` where one ``HopperConv`` takes the gradient back through the ReLU of another before it.

    Not where the values between the two are in ``kept``, for a loss may add to their gradient, or are read elsewhere.
    """
    readers = Counter(name for node in nodes for name in node.inputs)
    result: list[Node] = []
    for node in nodes:
        before = result[-1] if result else None
        if (
            isinstance(node.operator, HopperConv)
            and before is not None
            and isinstance(before.operator, HopperConv)
            and before.output == node.input
            and readers[node.input] == 1
            and node.input not in kept
        ):
            result[-1] = replace(before, operator=replace(before.operator, masked=True))
            node = replace(node, operator=replace(node.operator, masks=True))
        result.append(node)
    return tuple(result)
