"""The draft network: ``python -m tools.draft learn`` makes it, ``python -m tools.draft judge`` compares networks."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from engine.load import load_network
from engine.onnx.writer import write_onnx
from engine.preprocessing import preprocessing_metadata
from engine.stylize import content_weight_at
from engine.vgg import CONTENT_WEIGHT, RECOMMENDED_SIZE
from kernels.cpu.threads import Threads
from tools.cli.command_line import Parser, add_shared, given_path, natural_int, positive_float, positive_int, run, tell
from tools.draft import judge
from tools.draft.chain import chain_of, nodes_of
from tools.draft.learn import FIRST, learn, parts_of
from tools.draft.pictures import crops
from tools.draft.practice import PRACTICE_BALANCE, network_of, practiced, scaled
from tools.media.files import byte_count, check_writable, replacing, sha256_of
from tools.media.images import load_image, pictures_in
from tools.models.cache import resolve_model

NAME = "draft"

SIDES = (256, 384, 192)
"""Long sides in pixels at which every picture is learnt from."""

CROP = 96
"""Side of a crop in pixels."""

PRACTICE_SIDE = 160
"""Long side of the pictures made for practice."""

SOURCE = "the draft network of neural-style-by-hand, learnt from VGG-19: see docs/draft.md"
LICENSE = "CC BY 4.0: learnt from VGG-19 by Simonyan and Zisserman (2014), whose weights are CC BY 4.0"


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog=NAME, description="Make the draft network, or judge networks by the original VGG-19.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("learn", help="learn a small network from VGG-19", description=_learn.__doc__)
    command.set_defaults(run=_learn)
    command.add_argument("photographs", type=given_path, metavar="PHOTOGRAPHS", help="folder of pictures")
    command.add_argument("paintings", type=given_path, metavar="PAINTINGS", help="folder of pictures")
    command.add_argument(
        "-o", "--output", type=given_path, required=True, metavar="FILE", help="the ONNX file to write"
    )
    command.add_argument("--crops", type=positive_int, default=160, metavar="N", help="crops of them (default 160)")
    command.add_argument(
        "--practice", type=natural_int, default=12, metavar="N", help="pictures made for practice (default 12)"
    )
    command.add_argument(
        "--steps", type=positive_float, default=1.0, metavar="X", help="factor on the gradient steps (default 1)"
    )
    command.add_argument("--seed", type=natural_int, default=0, metavar="N", help="of the random numbers (default 0)")
    _add_teacher(command)

    command = commands.add_parser("judge", help="compare networks' pictures", description=_judge.__doc__)
    command.set_defaults(run=_judge)
    command.add_argument(
        "networks", nargs="+", metavar="NETWORK", help="names or files; the first sets the content distance"
    )
    command.add_argument("--pictures", type=given_path, required=True, metavar="DIR", help="folder of the pictures")
    for kind, names in (("photographs", judge.PHOTOGRAPHS), ("paintings", judge.PAINTINGS)):
        command.add_argument(
            f"--{kind}",
            nargs="+",
            default=names,
            metavar="NAME",
            help=f"files without ending (default {' '.join(names)})",
        )
    command.add_argument("--unseen", nargs="*", default=(), metavar="NAME", help="pictures not learnt from: marked")
    command.add_argument("--size", type=positive_int, default=256, metavar="PX", help="long side (default 256)")
    command.add_argument("--iterations", type=positive_int, default=150, metavar="N", help="of L-BFGS (default 150)")
    command.add_argument(
        "--content-weight", type=positive_float, metavar="X", help="of the first (default: what is recommended for it)"
    )
    command.add_argument(
        "--record", type=given_path, metavar="FILE", help="keep verdicts there, go on with what it has"
    )
    _add_teacher(command)
    return parser


def _add_teacher(command: argparse.ArgumentParser) -> None:
    command.add_argument("--teacher", default="vgg19", metavar="NAME|FILE", help="the original network (default vgg19)")
    add_shared(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; return the exit code."""
    arguments = build_parser().parse_args(argv)
    arguments.run(arguments)
    return 0


def _learn(arguments: argparse.Namespace) -> None:
    """Learn a VGG-19 of a quarter of the width from the real one, on pictures and on those that it makes itself."""
    began = time.perf_counter()

    def progress(line: str) -> None:
        if not arguments.quiet:
            print(f"{time.perf_counter() - began:6.0f} s  {line}", flush=True)

    check_writable(arguments.output)
    threads = Threads(arguments.threads)
    teacher = load_network(resolve_model(arguments.teacher, arguments.cache), threads=arguments.threads)
    chain = chain_of(teacher.nodes)
    folders = [pictures_in(folder) for folder in (arguments.photographs, arguments.paintings)]
    pictures = [
        picture.pixels
        for side in SIDES
        for path in (*folders[0], *folders[1])
        if min((picture := load_image(path, long_side=side)).size) >= CROP
    ]
    if not pictures:
        raise ValueError(f"no picture is large enough: with a long side of {max(SIDES)}, the other has to have {CROP}")
    photographs, paintings = (
        [load_image(path, long_side=PRACTICE_SIDE).pixels for path in folder] for folder in folders
    )
    seen = crops(pictures, teacher.preprocessing, arguments.crops, CROP, arguments.seed)
    with threads.computing():
        first = parts_of(arguments.steps * (FIRST if arguments.practice else 1.0))
        learnt = learn(chain, seen, threads, progress, parts=first, seed=arguments.seed)
        if arguments.practice:
            network = network_of(scaled(learnt.student, learnt.sizes, chain, PRACTICE_BALANCE), teacher)
            weight = content_weight_at(CONTENT_WEIGHT, PRACTICE_SIDE**2, RECOMMENDED_SIZE**2)
            made = practiced(network, photographs, paintings, arguments.practice, weight, arguments.seed, progress)
            made = [picture for picture in made if min(picture.shape[:2]) >= CROP]
            of_made = crops(made, teacher.preprocessing, arguments.crops, CROP, arguments.seed + 1)
            parts = parts_of(arguments.steps)
            learnt = learn(chain, [*seen, *of_made], threads, progress, parts=parts, seed=arguments.seed)
    metadata = {**preprocessing_metadata(teacher.preprocessing), "source": SOURCE, "license": LICENSE}
    with replacing(arguments.output) as path:
        write_onnx(path, nodes_of(scaled(learnt.student, learnt.sizes, chain)), metadata, dtype="float16")
    progress(f"{arguments.output}: {byte_count(arguments.output.stat().st_size)}")


def _judge(arguments: argparse.Namespace) -> None:
    """Render photographs in the style of paintings with several networks, and measure the pictures by the original."""
    files = [resolve_model(name, arguments.cache) for name in (arguments.teacher, *arguments.networks)]
    teacher, *networks = (load_network(path, threads=arguments.threads) for path in files)
    pixels = (arguments.size**2, RECOMMENDED_SIZE**2)
    weights = [content_weight_at(network.content_weight, *pixels) for network in networks]
    if arguments.content_weight is not None:
        weights[0] = arguments.content_weight
    names = [Path(name).stem for name in arguments.networks]
    if len(set(names)) < len(names):
        raise ValueError(f"the networks' files need names of their own, got {', '.join(names)}")
    verdicts = judge.judge_all(
        teacher,
        {name: (network, weight) for name, network, weight in zip(names, networks, weights, strict=True)},
        arguments.pictures,
        [(photograph, painting) for photograph in arguments.photographs for painting in arguments.paintings],
        arguments.size,
        arguments.iterations,
        arguments.record,
        {"teacher": sha256_of(files[0]), **dict(zip(names, map(sha256_of, files[1:]), strict=True))},
        lambda line: None if arguments.quiet else tell(line),
    )
    print("\n".join(judge.table(verdicts, arguments.unseen)))


if __name__ == "__main__":
    run(main)
