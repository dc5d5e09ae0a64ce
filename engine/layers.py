"""The names of a network's layers, and other names that stand for the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value")


class LayerNames(Mapping[str, Value], Generic[Value]):
    """What belongs to each layer, by the layer's name; other names are understood, and not listed.

    Parameters
    ----------
    values : by the names that are listed.
    others : the listed name that each other name stands for.
    """

    def __init__(self, values: Mapping[str, Value], others: Mapping[str, str]) -> None:
        self._values, self.others = dict(values), dict(others)

    def __getitem__(self, name: str) -> Value:
        return self._values[self.listed(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def listed(self, name: str) -> str:
        """Return the listed name of a layer that may be called otherwise; a name that is unknown stays what it is."""
        return name if name in self._values else self.others.get(name, name)


def listed_name(layers: Mapping[str, Value], name: str) -> str:
    """Return the name by which layers list one that may be called otherwise."""
    return layers.listed(name) if isinstance(layers, LayerNames) else name


def named_alike(layers: Mapping[str, str], values: Mapping[str, Value]) -> Mapping[str, Value]:
    """Return values by layer that can be asked for by the other names of the layers too."""
    return LayerNames(values, layers.others) if isinstance(layers, LayerNames) else values
