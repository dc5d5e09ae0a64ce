"""What is measured: a network, and pictures for it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.load import POOLINGS, load_network, with_pooling
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.preprocessing import PREPROCESSING, named_preprocessing
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS
from engine.vgg import PAPER_CONTENT_WEIGHT, layer_names
from kernels import Cpu
from tools.cli.command_line import positive_float
from tools.models.cache import resolve_model
from tools.models.random_vgg import random_vgg

LAYERS = tuple(dict.fromkeys([*PAPER_STYLE_LAYERS, *PAPER_CONTENT_LAYERS]))
"""What the measured loss looks at."""


@dataclass(frozen=True)
class Setup:
    """The network that is measured, and what with.

    Parameters
    ----------
    model : ``"random"`` or an ONNX file.
    width : factor on the channels of the random network.
    pooling, preprocessing, convolution, threads : as in ``engine.load_network``.
    seed : of the random weights and images.
    """

    model: str = "random"
    width: float = 1.0
    pooling: str = "average"
    preprocessing: str | None = None
    convolution: str = "auto"
    threads: int | None = None
    seed: int = 0


def add_network(parser: argparse.ArgumentParser, width: float = 1.0) -> None:
    """Add the options that choose the network that is measured; ``width`` is the default of the random one's."""
    parser.add_argument(
        "-m",
        "--model",
        default="random",
        metavar="random|NAME|FILE",
        help="a VGG-19 with random weights, or a model as in tools.stylize (default random)",
    )
    parser.add_argument(
        "--width",
        type=positive_float,
        metavar="X",
        help=f"factor on the channels of the random network (default {width:g})",
    )
    parser.add_argument("--pooling", choices=POOLINGS, default="average", help="default average")
    parser.add_argument("--preprocessing", choices=PREPROCESSING, help="where the model itself does not tell")


def setup_from(arguments: argparse.Namespace, width: float = 1.0) -> Setup:
    """Return the network that the command line names; raises ValueError for a width of one that has its own."""
    if arguments.width is not None and arguments.model != "random":
        raise ValueError(f"--width changes the random network only, the model is {arguments.model!r}")
    return Setup(
        model=arguments.model,
        width=arguments.width or width,
        pooling=arguments.pooling,
        preprocessing=arguments.preprocessing,
        threads=arguments.threads,
        seed=arguments.seed,
    )


def resolved(setup: Setup, cache: Path | None) -> Setup:
    """Return the setup with the file of its model in place of the name."""
    return setup if setup.model == "random" else replace(setup, model=str(resolve_model(setup.model, cache)))


def build_network(setup: Setup) -> Network:
    """Return the network in float32: a full VGG-19 with random weights, or one from a file."""
    if setup.model != "random":
        return load_network(
            setup.model,
            pooling=setup.pooling,
            preprocessing=setup.preprocessing,
            threads=setup.threads,
            convolution=setup.convolution,
        )
    nodes = tuple(with_pooling(node, setup.pooling) for node in random_vgg("vgg19", setup.seed, setup.width))
    return Network(
        nodes=nodes,
        outputs=layer_names(nodes),
        preprocessing=named_preprocessing(setup.preprocessing or "caffe"),
        dtype=np.dtype(np.float32),
        device=Cpu(setup.threads),
        content_weight=PAPER_CONTENT_WEIGHT,
        rejected=(),
        convolution=setup.convolution,
    )


def description(setup: Setup, network: Network) -> str:
    """Return the network in words."""
    if setup.model == "random":
        model = "VGG-19 with random weights" + ("" if setup.width == 1 else f", {setup.width:g} of its width")
    else:
        model = Path(setup.model).name
    pooling = "the model's" if setup.pooling == "model" else setup.pooling
    direct = ", direct convolutions in the engine" if setup.convolution == "direct" else ""
    return f"{model}, {pooling} pooling, {network.precision}, the paper's layers{direct}"


def pictures(size: int, seed: int) -> tuple[Array, Array, Array]:
    """Return a photograph, a painting and an image to begin with, (size, size, 3), at random.

    Patches of different sizes and contrasts: between images that are all of one kind the losses would be almost zero,
    and rounding would look larger than it is.
    """
    random = np.random.default_rng(seed)

    def patches(side: int) -> Array:
        count = -(-size // side)
        return np.kron(random.uniform(0.0, 255.0, (count, count, 3)), np.ones((side, side, 1)))[:size, :size]

    return patches(16), patches(4) ** 2 / 255, patches(1)


def build_objective(network: Network, content: Array, style: Array, replay: bool = False) -> Objective:
    """Return the engine's objective on the paper's layers."""
    return Objective(network, content, style, content_weight=network.content_weight, replay=replay)
