"""Make the draft network from scratch: ``python -m tools.train_draft --pictures DIR -o draft.onnx``.

Its filters are learned layer by layer, without gradients, from a few free pictures and what the project draws itself:
how stands in ``tools.training.filters``, and what came of it in docs/draft.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.load import load_network
from engine.onnx_writer import write_onnx
from engine.preprocessing import named_preprocessing, preprocessing_metadata
from kernels.cpu.threads import Workers
from tools.command_line import Parser, add_shared, given_path, natural_int, run
from tools.files import check_writable, replacing
from tools.images import load_image
from tools.progress import Progress, duration
from tools.training.network import LAYERS, fitted
from tools.training.pictures import FREE_PICTURES, training_pictures
from tools.training.recipe import GAIN, LAYER_WEIGHTS, Recipe
from tools.training.scales import mean_responses, scaled, unit_scales

NAME = "train_draft"


# ---- the command line ----


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog=NAME, description="Make the draft network from scratch.")
    parser.add_argument(
        "--pictures", type=given_path, required=True, metavar="DIR", help=f"folder that has {', '.join(FREE_PICTURES)}"
    )
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="PATH", help="ONNX file to write")
    parser.add_argument("--seed", type=natural_int, default=Recipe().seed, metavar="N", help="of all random numbers")
    add_shared(parser, cache=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make and write the network; return the exit code."""
    arguments = build_parser().parse_args(argv)
    check_writable(arguments.output)
    recipe = Recipe(seed=arguments.seed)
    began = time.perf_counter()
    pictures = training_pictures(arguments.pictures)
    with Progress(len(LAYERS), "layers", NAME, quiet=arguments.quiet) as progress:
        nodes = fitted(pictures, recipe, Workers(arguments.threads), progress)
    metadata = preprocessing_metadata(named_preprocessing("caffe"))
    metadata["source"] = f"the draft network of neural-style-by-hand, seed {recipe.seed}"
    calm = [load_image(arguments.pictures / name, long_side=256).pixels for name in FREE_PICTURES]
    with replacing(arguments.output) as temporary:
        write_onnx(temporary, nodes, metadata)
        means = mean_responses(load_network(temporary, threads=arguments.threads), calm)
        weights = {layer: LAYER_WEIGHTS[layer[:5]] * GAIN**4 for layer in means}
        write_onnx(temporary, scaled(nodes, unit_scales(means, weights)), metadata, dtype="float16")
    if not arguments.quiet:
        print(f"{arguments.output}: {len(pictures)} pictures, {duration(time.perf_counter() - began)}")
    return 0


if __name__ == "__main__":
    run(main)
