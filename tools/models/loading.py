"""The network that a command line's options name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from engine.errors import ModelError
from engine.load import load_network
from engine.network import Network
from tools.cli.options import Options
from tools.models.cache import default_model


def with_model(options: Options, cache: Path | None) -> Options:
    """Return the options with a model: where none is named, ``default_model``."""
    return options if options.model is not None else dataclasses.replace(options, model=default_model(cache))


def load(options: Options, path: Path, threads: int | None) -> Network:
    """Return the options' network.

    Parameters
    ----------
    path : of the model, from ``tools.models.cache.resolve_model``.
    threads : to compute with; None means all cores.
    """
    try:
        return load_network(
            path,
            pooling=options.pooling,
            device=options.device,
            dtype=options.dtype,
            preprocessing=options.preprocessing,
            threads=threads,
        )
    except ModelError as error:
        # In the words of the command line: the file that was named, not what the cache has of it, and the option.
        message = str(error).replace(str(path), str(options.model)) if options.model else str(error)
        raise ModelError(message.replace("choose its preprocessing", "choose its --preprocessing")) from None
