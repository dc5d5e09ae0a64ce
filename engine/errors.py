"""The engine's errors: one sentence each, saying what was found, what was expected and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModelError(ValueError):
    """A model file, or what is asked of it, does not fit: the message names the node or the layer."""


class NonFiniteError(ArithmeticError):
    """A loss or a gradient became infinite or not a number: the message names the layer where it began."""


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> str:
    """Return the sentence for a name that does not exist, with the nearest one that does.

    Parameters
    ----------
    kind : what the name stands for, e.g. ``"layer"``.
    name : what was asked for.
    choices : the names that exist.
    """
    known = list(choices)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {name!r}; {hint}choose from {', '.join(known)}"


def printable(text: str | bytes) -> str:
    """Return a text out of a file so that it can be shown: one line, in which nothing acts on a terminal.

    Control characters, marks that turn the direction of writing, and bytes that are no UTF-8 come out as escapes.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="backslashreplace")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
