"""The network that a command line's options name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from engine.errors import ModelError
from engine.load import load_network, resolve_preprocessing
from engine.network import Network
from engine.onnx.reader import read_onnx
from engine.preprocessing import named_preprocessing
from kernels.cpu.threads import available_cores
from tools.cli.options import Options
from tools.models.cache import default_model


def with_model(options: Options, cache: Path | None) -> Options:
    """Return the options with a model: where none is named, ``default_model``."""
    return options if options.model is not None else dataclasses.replace(options, model=default_model(cache))


def load(options: Options, path: Path, threads: int | None) -> Network:
    """Return the options' network, for pictures alone: see ``Network.compact``.

    Parameters
    ----------
    path : of the model, from ``tools.models.cache.resolve_model``.
    threads : to compute with; None means all cores, more would only take memory.
    """
    try:
        network = load_network(
            path,
            pooling=options.pooling,
            device=options.device,
            dtype=options.dtype,
            preprocessing=options.preprocessing,
            threads=None if threads is None else min(threads, available_cores()),
        )
    except ModelError as error:
        # In the words of the command line: the file that was named, not what the cache has of it, and the option.
        message = str(error).replace(str(path), str(options.model)) if options.model else str(error)
        raise ModelError(message.replace("choose its preprocessing", "choose its --preprocessing")) from None
    return network.compact()


def about_preprocessing(options: Options, path: Path) -> list[str]:
    """Return a sentence where the options give a model another input than is known of it.

    Parameters
    ----------
    path : as in ``load``.
    """
    if options.preprocessing is None:
        return []
    try:
        known = resolve_preprocessing(path, read_onnx(path))
    except ModelError:
        return []
    if known == named_preprocessing(options.preprocessing):
        return []
    return [
        f"--preprocessing {options.preprocessing} contradicts the model, which takes {known.name} input: unless the "
        "model is wrong, the picture will be; leave it out"
    ]
