"""Model files: ``python -m tools.models {list,fetch,convert,inspect,random}``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from engine.errors import ModelError, unknown_name
from engine.front import front_of
from engine.graph import Graph
from engine.load import resolve_preprocessing
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import Conv
from engine.preprocessing import (
    PREPROCESSING,
    Preprocessing,
    metadata_preprocessing,
    named_preprocessing,
    preprocessing_metadata,
)
from engine.vgg import (
    CONTENT_WEIGHT,
    CONVOLUTIONS,
    KNOWN_FILES,
    KnownFile,
    architecture,
    known_file,
    known_weights,
    layer_names,
)
from tools.cli.command_line import Parser, add_shared, given_path, natural_int, positive_float, positive_int, run
from tools.cli.text_table import aligned
from tools.media.files import byte_count, check_writable, replacing
from tools.models.cache import (
    DRAFT,
    DRAFT_FILE,
    cache_entry,
    fetch_whole,
    is_as_recorded,
    is_foreign,
    model_file,
    model_names,
    record,
    resolve_model,
)
from tools.models.folder import default_cache
from tools.models.originals import ORIGINALS, fetch_original
from tools.models.part import is_layer, write_part
from tools.models.random_vgg import random_vgg
from tools.models.table import layer_table, render
from tools.models.weights.convert import convert
from tools.models.weights.kind import kind_of
from tools.models.weights.places import found_weights

NAME = "models"


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog=NAME, description="Fetch models, convert them, look into them, or make one of random weights.")
    _add_shared(parser)
    parser.set_defaults(cache=None, quiet=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,fetch,convert,inspect,random}")

    command = commands.add_parser("list", help="show the models that have a name", description=_list.__doc__)
    command.set_defaults(run=_list)
    _add_shared(command)

    command = commands.add_parser("fetch", help="download a model", description=_fetch.__doc__)
    command.set_defaults(run=_fetch)
    command.add_argument("name", metavar="NAME", help=", ".join(model_names()))
    command.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="URL",
        help="an address of the file to try first, such as a mirror's; may be given several times",
    )
    command.add_argument(
        "--exact",
        action="store_true",
        help="vgg19: the published weights to the bit, 80 MB, instead of 8-bit tables, 18.5 MB",
    )
    command.add_argument(
        "--keep", action="store_true", help="keep the whole download beside its convolution part (of an ONNX file)"
    )
    _add_shared(command)

    command = commands.add_parser(
        "convert", help="make an ONNX file of another program's weights", description=_convert.__doc__
    )
    command.set_defaults(run=_convert)
    command.add_argument(
        "file",
        type=given_path,
        metavar="FILE",
        help="PyTorch .pth or .pt, .safetensors, Keras .h5 or .keras, Caffe .caffemodel, MatConvNet .mat",
    )
    command.add_argument("-o", "--output", type=given_path, required=True, metavar="PATH", help="ONNX file to write")
    command.add_argument(
        "--preprocessing", choices=tuple(PREPROCESSING), help="what the network takes, where its weights are not known"
    )
    _add_shared(command)

    command = commands.add_parser("inspect", help="show what a model is made of", description=_inspect.__doc__)
    command.set_defaults(run=_inspect)
    command.add_argument("model", metavar="PATH_OR_NAME", help="a weight file, ONNX or other, or a name in the cache")
    command.add_argument(
        "-s", "--size", type=positive_int, default=512, metavar="N", help="side of the image in pixels (default 512)"
    )
    _add_shared(command)

    command = commands.add_parser("random", help="make a VGG of random weights", description=_random.__doc__)
    command.set_defaults(run=_random)
    command.add_argument("architecture", choices=tuple(CONVOLUTIONS), help="the network")
    command.add_argument("-o", "--output", type=given_path, required=True, metavar="PATH", help="ONNX file to write")
    command.add_argument("--seed", type=natural_int, default=0, metavar="N", help="of the random numbers (default 0)")
    command.add_argument(
        "--width", type=positive_float, default=1.0, metavar="X", help="factor on the numbers of channels (default 1)"
    )
    command.add_argument(
        "--preprocessing", choices=tuple(PREPROCESSING), default="caffe", help="input to state (default caffe)"
    )
    _add_shared(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands; return the exit code."""
    arguments = build_parser().parse_args(argv)
    arguments.run(arguments)
    return 0


def _add_shared(parser: argparse.ArgumentParser) -> None:
    """Add what all commands take, before or behind the command's name."""
    add_shared(parser, threads=None, shown="errors and what was asked for", suppressed=True)


def _list(arguments: argparse.Namespace) -> None:
    """Show the models that have a name: the size of the download, the input, and where the cache has it."""
    cache = arguments.cache or default_cache()
    lines = [
        ("name", "download", "input", "in the cache"),
        (DRAFT, "none", "caffe", f"comes with the program: {DRAFT_FILE} ({byte_count(DRAFT_FILE.stat().st_size)})"),
    ]
    for original in ORIGINALS:
        size = byte_count(original.sources[0].place.size)
        lines.append((original.name, size, "caffe", _where(cache_entry(original.name, cache))))
    for file in KNOWN_FILES:
        known = file.preprocessing or "by its weights"
        lines.append((file.name, byte_count(file.size), known, _where(cache_entry(file.name, cache))))
    print("\n".join(aligned(lines, "<><")))
    found = found_weights()
    places = "in the usual places of PyTorch, Keras and the Hugging Face hub"
    print(f"\nVGG weights {places}, to be used with --model FILE:{'' if found else ' none'}")
    for path in found:
        print(f"{path} ({byte_count(path.stat().st_size)})")


def _where(entry: Path) -> str:
    return f"{entry} ({byte_count(entry.stat().st_size)})" if entry.is_file() else "no"


def _fetch(arguments: argparse.Namespace) -> None:
    """Download a published model into the cache, verified; only its convolution part is kept.

    vgg19 and vgg16 are the original weights; the other names are files of the ONNX model zoo.
    """
    name = arguments.name.removesuffix(".onnx")
    if name == DRAFT:
        _say(arguments, f"{DRAFT} comes with the program, there is nothing to fetch: {DRAFT_FILE}")
        return
    if name not in model_names():
        raise ValueError(unknown_name("model", arguments.name, model_names()))
    cache = arguments.cache or default_cache()
    target = cache_entry(name, cache)
    there = target.is_file() and _is_fetched(name, target)
    if target.is_file() and not there:
        _say(arguments, f"{target} is not what was fetched as {name}: fetching it once more")
    rounded = there and read_onnx(target).metadata.get("precision", "exact") != "exact"
    if there and not (arguments.exact and rounded):
        which = ", in 8-bit tables; --exact gets the published weights" if rounded else ""
        _say(arguments, f"{name} is in the cache already: {target}{which}")
        return
    original = next((one for one in ORIGINALS if one.name == name), None)
    if original is not None:
        source = fetch_original(original, target, exact=arguments.exact, urls=arguments.url, quiet=arguments.quiet)
        record(target)
        _say(arguments, f"{name}: {target} ({byte_count(target.stat().st_size)}), from {source.title}")
    else:
        _fetch_published(arguments, next(file for file in KNOWN_FILES if file.name == name), cache)


def _is_fetched(name: str, target: Path) -> bool:
    """Tell whether the cache's file of a name is what was fetched; where nothing was recorded, by what is in it."""
    recorded = is_as_recorded(target)
    if recorded is not None:
        return recorded
    try:
        graph = read_onnx(target)
    except ValueError:
        return False
    known = next((file for file in KNOWN_FILES if file.name == name), None)
    if known is not None:
        is_it = known.sha256 in graph.metadata.get("source", "")
    else:
        names = list(layer_names(graph.nodes))
        architecture_there = architecture(names).replace("-", "").casefold() if names else ""
        is_it = known_weights(graph.nodes) is not None and architecture_there.startswith(name)
    if is_it:
        record(target)
    return is_it


def _fetch_published(arguments: argparse.Namespace, file: KnownFile, cache: Path) -> None:
    """Fetch a file of the ONNX model zoo."""
    target = cache_entry(file.name, cache)
    whole = fetch_whole(file, cache, arguments.url, arguments.quiet)
    graph = read_onnx(whole)
    write_part(graph, whole, target, f"{file.name}.onnx")
    record(target)
    if not arguments.keep:
        whole.unlink()
    _say(arguments, f"{file.name}: {target} ({byte_count(target.stat().st_size)})")
    if arguments.keep:
        _say(arguments, f"the whole download: {whole} ({byte_count(file.size)})")
    if file.preprocessing is None and metadata_preprocessing(graph.metadata) is None and not known_weights(graph.nodes):
        _say(arguments, "nothing tells which input it takes: choose one with --preprocessing where you use it")


def _convert(arguments: argparse.Namespace) -> None:
    """Make an ONNX file of the VGG in another program's weight file; nothing in that file is executed."""
    if arguments.output.suffix != ".onnx":
        raise ValueError(f"cannot write {str(arguments.output)!r}: a model's name ends in .onnx")
    check_writable(arguments.output)
    if kind_of(arguments.file) == "onnx":
        read_onnx(arguments.file)  # a broken one is told as such
        raise ValueError(f"{arguments.file} is an ONNX file already: use it with --model")
    given = None if arguments.preprocessing is None else named_preprocessing(arguments.preprocessing)
    vgg = convert(arguments.file, arguments.output, given)
    known = known_weights(vgg.nodes)
    layers = list(layer_names(vgg.nodes))
    title = known.title if known else "weights that are not known"
    size = byte_count(arguments.output.stat().st_size)
    called = architecture(layers) or "begins as a VGG does"
    _say(arguments, f"{arguments.output} ({size}): {called}, {layers[0]} to {layers[-1]}, {title}")
    if given is None and vgg.preprocessing is None:
        _say(arguments, "nothing tells which input it takes: choose one with --preprocessing, here or where you use it")


def _inspect(arguments: argparse.Namespace) -> None:
    """Show what a model is made of, what each layer looks at and costs, and what the engine makes of it."""
    named = model_file(arguments.model, arguments.cache)
    path = resolve_model(arguments.model, arguments.cache) if named.is_file() and is_foreign(named) else named
    graph = read_onnx(path)
    rows, obstacle = layer_table(graph, arguments.size, arguments.size)
    weights = known_weights(graph.nodes)
    file = known_file(path)
    facts = [("file", f"{path} ({byte_count(path.stat().st_size)})")]
    if file is not None:
        facts.append(("published as", f"{file.name}.onnx of the ONNX model zoo (same SHA-256)"))
    facts += [(key, graph.metadata[key]) for key in ("source", "license", "precision") if key in graph.metadata]
    counts = sorted(graph.operators.items(), key=lambda item: (-item[1], item[0]))
    facts += [
        ("operators", ", ".join(f"{count} {kind}" for kind, count in counts)),
        ("architecture", _architecture(graph)),
        ("weights", weights.title if weights else "not recognized"),
        ("input", _convention(path, graph, file)),
        ("content weight", _content_weight(weights.content_weight if weights else None)),
    ]
    for number, rejected in enumerate(graph.rejected):
        facts.append(("" if number else "not supported", f"{rejected.label}: {rejected.reason}"))
    if not graph.rejected:
        facts.append(("not supported", "nothing"))
    facts += [("note", note) for note in graph.notes]
    if graph.left_out:
        total = graph.left_out + sum(isinstance(node.operator, Conv) for node in graph.nodes)
        facts.append(("", f"{graph.left_out} of {total} convolutions are out of the engine's reach"))
    if obstacle:
        facts.append(("does not run", obstacle))
    print("\n".join(f"{name:<15} {text}" for name, text in facts))
    if rows:
        print()
        print(render(rows, arguments.size))


def _random(arguments: argparse.Namespace) -> None:
    """Write the convolution part of a VGG with random weights (He-normal, biases zero): for tests and timings."""
    if arguments.output.suffix != ".onnx":
        raise ValueError(f"cannot write {str(arguments.output)!r}: a model's name ends in .onnx")
    check_writable(arguments.output)
    nodes = random_vgg(arguments.architecture, arguments.seed, arguments.width)
    metadata = preprocessing_metadata(named_preprocessing(arguments.preprocessing))
    metadata["source"] = f"{arguments.architecture} of random weights, seed {arguments.seed}, width {arguments.width:g}"
    with replacing(arguments.output) as temporary:
        write_onnx(temporary, nodes, metadata)
    _say(arguments, f"{arguments.output} ({byte_count(arguments.output.stat().st_size)})")


def _say(arguments: argparse.Namespace, message: str) -> None:
    if not arguments.quiet:
        print(message)


def _architecture(graph: Graph) -> str:
    names = list(layer_names(graph.nodes))
    if names:
        called = architecture(names) or "begins as a VGG does"
        count = "one convolution" if len(names) == 1 else f"{len(names)} convolutions"
        return f"{called}, {count}: {names[0]} .. {names[-1]}"
    if any(is_layer(node) for node in graph.nodes):
        return "not a VGG: its layers are called by the name of their output"
    return "unknown: no convolution followed by a ReLU"


def _convention(path: Path, graph: Graph, file: KnownFile | None) -> str:
    """Return the input convention and where it was found."""
    try:
        preprocessing = resolve_preprocessing(path, graph)
        stated = metadata_preprocessing(graph.metadata) is not None
    except ModelError as error:
        return f"unknown: {str(error).removeprefix(f'{path}: ')}"
    if stated:
        origin = "stated in the file"
    elif file is not None and file.preprocessing is not None:
        origin = "known of the published file"
    elif front_of(graph.nodes):
        origin = "what the file's own arithmetic on the image leaves"
    else:
        origin = "known of the weights"
    return f"{_input(preprocessing)}; {origin}"


def _input(preprocessing: Preprocessing) -> str:
    parts = ["BGR" if preprocessing.bgr else "RGB", "0..255" if preprocessing.scale == 1 else "0..1"]
    if any(preprocessing.mean):
        parts.append(f"minus ({', '.join(f'{value:g}' for value in preprocessing.mean)})")
    if set(preprocessing.std) != {1.0}:
        parts.append(f"divided by ({', '.join(f'{value:g}' for value in preprocessing.std)})")
    text = ", ".join(parts)
    return f"{preprocessing.name}: {text}" if preprocessing.name in PREPROCESSING else text


def _content_weight(known: float | None) -> str:
    if known is not None:
        return f"{known:g} (with style weight 1)"
    return f"{CONTENT_WEIGHT:g} (with style weight 1; right for the original VGG-19, a guess for these weights)"


if __name__ == "__main__":
    run(main)
