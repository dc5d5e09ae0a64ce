"""Train the draft network from scratch: ``python -m tools.train_draft --pictures DIR -o draft.onnx``.

Self-supervised, on a few free pictures and what the project draws itself. What is asked of the network stands in
``tools.training.views``, how it learns in ``tools.training.loop``, and what came of it in docs/draft.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.network import load_network
from engine.onnx_writer import write_onnx
from engine.preprocessing import named_preprocessing, preprocessing_metadata
from tools.command_line import Parser, natural_int, positive_int, run
from tools.files import check_writable, replacing
from tools.images import load_image
from tools.progress import Progress, duration
from tools.torch_vgg import import_torch
from tools.training.pictures import FREE_PICTURES, training_pictures
from tools.training.recipe import GAIN, LAYER_WEIGHTS, Recipe
from tools.training.scales import mean_responses, scaled, unit_scales

NAME = "train_draft"


# ---- the command line ----


def build_parser() -> Parser:
    """Return the parser of the command line."""
    recipe = Recipe()
    parser = Parser(prog=NAME, description="Train the draft network from scratch.")
    parser.add_argument(
        "--pictures", type=Path, required=True, metavar="DIR", help=f"folder that has {', '.join(FREE_PICTURES)}"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="PATH", help="ONNX file to write")
    parser.add_argument("--steps", type=positive_int, default=recipe.steps, metavar="N", help=f"default {recipe.steps}")
    parser.add_argument("--seed", type=natural_int, default=recipe.seed, metavar="N", help="of all random numbers")
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads to use (default: PyTorch's choice)")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Train and write the network; return the exit code."""
    arguments = build_parser().parse_args(argv)
    check_writable(arguments.output)
    torch = import_torch("training", "train")
    from tools.training.loop import train
    from tools.training.network import folded

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    recipe = Recipe(steps=arguments.steps, seed=arguments.seed)
    began = time.perf_counter()
    pictures = training_pictures(arguments.pictures, np.random.default_rng(recipe.seed))
    with Progress(recipe.steps, "steps", NAME, quiet=arguments.quiet) as progress:
        draft = train(pictures, recipe, progress)
    metadata = preprocessing_metadata(named_preprocessing("caffe"))
    metadata["source"] = f"the draft network of neural-style-by-hand, {recipe.steps} steps, seed {recipe.seed}"
    nodes = folded(draft)
    calm = [load_image(arguments.pictures / name, long_side=256).pixels for name in FREE_PICTURES]
    with replacing(arguments.output) as temporary:
        write_onnx(temporary, nodes, metadata)
        means = mean_responses(load_network(temporary, threads=arguments.threads), calm)
        weights = {layer: LAYER_WEIGHTS[layer[:5]] * GAIN**4 for layer in means}
        write_onnx(temporary, scaled(nodes, unit_scales(means, weights)), metadata, dtype="float16")
    if not arguments.quiet:
        print(
            f"{arguments.output}: {recipe.steps} steps of {recipe.batch} crops, {duration(time.perf_counter() - began)}"
        )
    return 0


if __name__ == "__main__":
    run(main)
