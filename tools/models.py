"""Model files, fetched, looked into or made at random: ``python -m tools.models {list,fetch,inspect,random}``.

Of a classifier only the convolution part is of use here. Published files are therefore kept as that part alone, in a
cache folder: about 80 MB instead of 575, and read in a fraction of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import math
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError, unknown_name
from engine.graph import Graph, Node
from engine.load import resolve_preprocessing
from engine.onnx_reader import read_onnx
from engine.onnx_writer import MAX_WEIGHT_BYTES, write_onnx
from engine.ops import Affine, AveragePool, Conv, MaxPool, Operator, Relu, Shape
from engine.preprocessing import (
    PREPROCESSING,
    Preprocessing,
    metadata_preprocessing,
    named_preprocessing,
    preprocessing_metadata,
)
from engine.vgg import (
    CONVOLUTIONS,
    KNOWN_FILES,
    PAPER_CONTENT_WEIGHT,
    WIDTHS,
    KnownFile,
    architecture,
    known_file,
    known_weights,
    layer_names,
)
from kernels.geometry import Window
from tools.command_line import Parser, given_path, natural_int, positive_float, positive_int, run, tell
from tools.download import RemoteFile, download, verify
from tools.files import check_writable, make_folder, replacing, sha256_of
from tools.memory import available_memory
from tools.progress import Progress, byte_count

NAME = "models"

ALIASES = {"vgg19": "vgg19-7", "vgg16": "vgg16-7"}
"""What a network's bare name stands for."""

DRAFT = "draft"
"""The small network that comes with the program: VGG-19's layers at a quarter of the width, see docs/draft.md."""

DRAFT_FILE = Path(__file__).with_name("draft.onnx")

# The first address is inferred from the model zoo's announcement of July 2025, when its large files moved there; it
# has not been tried from the machine this was written on.
ADDRESSES = (
    "https://huggingface.co/onnxmodelzoo/legacy_models/resolve/main/validated/vision/classification/vgg/model/{name}.onnx",
    "https://github.com/onnx/models/raw/main/validated/vision/classification/vgg/model/{name}.onnx",
)

LARGE_FILE = 200_000_000
"""From this many bytes on, a file's convolution part is kept in the cache."""


# ---- the cache ----


def default_cache() -> Path:
    """Return the user's folder for cached models, whether it exists or not.

    ``~/.cache/neural-style-by-hand`` (below ``XDG_CACHE_HOME`` where that is set), on macOS and Windows the place for
    such files there. Raises ValueError where the user has no home folder.
    """
    try:
        home = Path.home()
    except RuntimeError:
        raise ValueError("the home folder, where the cache of models belongs, cannot be found: set HOME") from None
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = given if given.is_absolute() else home / ".cache"
    return base / "neural-style-by-hand"


def resolve_model(name_or_path: str, cache: Path | None = None) -> Path:
    """Return the file to load for a name or a path.

    Of a file above 200 MB the convolution part is written into the cache on first use and returned from then on, until
    the file changes. It gives the same features to the bit. Where that part cannot be written, the file itself is
    returned.

    Parameters
    ----------
    name_or_path : a file, ``draft`` for the network that comes with the program, or the name of a published model
        (``vgg19``, ``vgg16``, ``vgg19-7`` ...) in the cache. A file that exists goes before a name.
    cache : folder of the cached models; None means ``default_cache()``.

    Raises ValueError for a name that is not in the cache, with the command that fetches it, and for what is neither a
    name nor a file.
    """
    path = _located(name_or_path, cache)
    try:
        if path.stat().st_size > LARGE_FILE:
            return _cached_part(path, cache or default_cache())
    except (OSError, ValueError):
        # Whatever is wrong with the file, loading it will say; without a cache it only takes longer.
        pass
    return path


def default_model(cache: Path | None = None) -> str:
    """Return the model to use when none is named: ``vgg19`` where it has been fetched, else ``draft``."""
    try:
        _located("vgg19", cache)
    except ValueError:
        return DRAFT
    return "vgg19"


def announce_draft(tool: str, named: str | None, chosen: str | None, quiet: bool) -> None:
    """Say so, as the tool, where nobody named a model and the draft network was chosen."""
    if named is None and chosen == DRAFT and not quiet:
        tell(
            f"{tool}: no VGG-19 has been fetched, this uses the small draft network that comes with the program; "
            "get the real one with: python -m tools.models fetch vgg19"
        )


def write_part(graph: Graph, source: Path, target: Path, name: str) -> None:
    """Write the convolution part of a model file, whole or not at all.

    The file's metadata go along, completed by its preprocessing where that is known; ``source`` states ``name`` and
    the SHA-256. The weights are stored in float32 where that holds them exactly, else in float64.

    Parameters
    ----------
    graph, source : what ``read_onnx`` gave for which file.
    target : the file to write.
    name : what to call the model in the metadata.

    Raises ModelError when the model has no such part, ValueError or OSError when ``target`` cannot be written.
    """
    nodes = convolution_part(graph)
    metadata = dict(graph.metadata)
    # Where the preprocessing is unknown or contradictory it stays so: the part must not tell more than its model.
    with contextlib.suppress(ModelError):
        metadata |= preprocessing_metadata(resolve_preprocessing(source, graph))
    metadata["source"] = f"{name}, SHA-256 {sha256_of(source)}"
    with replacing(target) as temporary:
        write_onnx(temporary, nodes, metadata, dtype="float32" if _single_precision(nodes) else "float64")


def convolution_part(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes up to the last layer, called by their layers' names.

    Raises ModelError when there is no layer.
    """
    nodes = _called_by_layer(graph)
    behind = [index + 1 for index, node in enumerate(nodes) if _is_layer(node)]
    if not behind:
        raise ModelError("the network has no convolution followed by a ReLU")
    return nodes[: behind[-1]]


def _located(name_or_path: str, cache: Path | None) -> Path:
    """Return the file that a name or a path stands for; raises ValueError when there is none."""
    path = Path(name_or_path)
    if name_or_path and path.is_file():
        return path
    if name_or_path == DRAFT:
        return DRAFT_FILE
    file = _known(name_or_path)
    if file is not None:
        cached = _cache_entry(file, cache or default_cache())
        if cached.is_file():
            return cached
        command = f"python -m tools.models fetch {name_or_path}"
        if cache is not None:
            command += f" --cache {shlex.quote(str(cache))}"
        raise ValueError(f"the model {name_or_path!r} is not in the cache, fetch it with: {command}")
    if name_or_path and path.exists():
        # A folder or a device: the reader says what is wrong with it.
        return path
    if os.path.dirname(name_or_path):  # noqa: PTH120  # a Path drops the leading ./
        raise ValueError(f"there is no model file {name_or_path!r}")
    raise ValueError(
        f"{unknown_name('model', name_or_path, [DRAFT, *_names()])}, or give a file (there is none of this name)"
    )


def _names() -> list[str]:
    return [*ALIASES, *(file.name for file in KNOWN_FILES)]


def _known(name: str) -> KnownFile | None:
    """Return the published file that a name, with or without ``.onnx``, stands for."""
    name = name.removesuffix(".onnx")
    name = ALIASES.get(name, name)
    return next((file for file in KNOWN_FILES if file.name == name), None)


def _cache_entry(file: KnownFile, cache: Path) -> Path:
    return cache / f"{file.name}.onnx"


def _cached_part(path: Path, cache: Path) -> Path:
    """Return the convolution part of a file, from the cache if it is there and the file has not changed since."""
    path = path.resolve()
    state = path.stat()
    folder = cache / "parts"
    of_path = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    of_state = hashlib.sha256(f"{state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]
    part = folder / f"{of_path}-{of_state}-{path.stem}.onnx"
    if part.is_file():
        return part
    graph = read_onnx(path)
    if _left_out(graph):
        # Cut short in the middle: only the file itself tells why, when one of the missing layers is asked for.
        return path
    folder.mkdir(parents=True, exist_ok=True)
    write_part(graph, path, part, path.name)
    for outdated in folder.glob(f"{of_path}-*.onnx"):
        if outdated != part:
            with contextlib.suppress(OSError):
                outdated.unlink()
    return part


def _single_precision(nodes: Sequence[Node]) -> bool:
    """Tell whether float32 holds all weights exactly."""
    for node in nodes:
        for values in vars(node.operator).values():
            if isinstance(values, np.ndarray) and not np.array_equal(values.astype(np.float32), values):
                return False
    return True


# ---- what a network is made of ----


@dataclass(frozen=True)
class Row:
    """One operator of a network as ``inspect`` shows it.

    Parameters
    ----------
    name : of the layer, or of the operator where it is none.
    is_layer : whether losses can look at it.
    operator : kind, window and ReLU.
    shape : (height, width, channels) of the output, or None where the image is too small for it.
    field : receptive field: how many rows and columns of the image one output value depends on.
    stride : rows and columns of the image from one output value to the next.
    parameters : weights and biases.
    multiply_adds : of its convolution for the whole output; None where the shape is.
    """

    name: str
    is_layer: bool
    operator: str
    shape: Shape | None
    field: tuple[int, int]
    stride: tuple[int, int]
    parameters: int
    multiply_adds: int | None


def layer_table(graph: Graph, height: int, width: int) -> tuple[list[Row], str]:
    """Return a row for each operator, for an image of ``height`` x ``width`` pixels, and what keeps it from running.

    The second is empty where nothing does; else the shapes behind that operator are None.
    """
    rows: list[Row] = []
    obstacle = ""
    shapes: dict[str, Shape | None] = {graph.input: (height, width, 3)}
    reach = {graph.input: ((1, 1), (1, 1))}
    for node in _called_by_layer(graph):
        operator = node.operator
        shape: Shape | None = None
        input_shapes = {name: known for name in node.inputs if (known := shapes[name]) is not None}
        if len(input_shapes) == len(set(node.inputs)):
            try:
                shape = node.output_shape(input_shapes)
            except ValueError as error:
                obstacle = obstacle or f"an image of {width}x{height} pixels does not get past {node.label}: {error}"
        # Where branches meet, the one that sees the most tells.
        fields, strides = zip(*(reach[name] for name in node.inputs), strict=True)
        field, stride = _pair(map(max, *fields, (0, 0))), _pair(map(max, *strides, (0, 0)))
        window = getattr(operator, "window", Window((1, 1)))
        field = _pair(f + (extent - 1) * s for f, extent, s in zip(field, window.extent, stride, strict=True))
        stride = _pair(s * step for s, step in zip(stride, window.strides, strict=True))
        multiply_adds = None
        if shape is not None:
            multiply_adds = shape[0] * shape[1] * operator.weight.size if isinstance(operator, Conv) else 0
        shapes[node.output], reach[node.output] = shape, (field, stride)
        rows.append(
            Row(
                node.name,
                _is_layer(node),
                _description(operator),
                shape,
                field,
                stride,
                operator.parameters,
                multiply_adds,
            )
        )
    return rows, obstacle


def random_vgg(name: str, seed: int = 0, width: float = 1.0) -> tuple[Node, ...]:
    """Return the convolution part of a VGG with random weights, up to the last convolution's ReLU.

    Parameters
    ----------
    name : ``"vgg16"`` or ``"vgg19"``.
    seed : of the random numbers; the same seed gives the same weights.
    width : factor on the numbers of channels, at least one of which is left.

    The weights are normal with mean 0 and variance 2 / (inputs of one output), in float32; the biases are zero.

    Source: He, Zhang, Ren and Sun, "Delving Deep into Rectifiers" (2015), equation 10.
    """
    random = np.random.default_rng(seed)
    nodes: list[Node] = []
    value, channels = "image", 3
    _check_width(name, width)
    for block, (count, full_width) in enumerate(zip(CONVOLUTIONS[name], WIDTHS, strict=True), 1):
        if block > 1:
            label = f"pool{block - 1}"
            nodes.append(Node(label, MaxPool(Window((2, 2), (2, 2))), value, label))
            value = label
        filters = _scaled(full_width, width)
        for number in range(1, count + 1):
            label = f"conv{block}_{number}"
            weight = random.standard_normal((3, 3, channels, filters), dtype=np.float32)
            weight *= np.float32(math.sqrt(2 / (9 * channels)))
            conv = Conv(weight, np.zeros(filters, np.float32), Window((3, 3), pads=(1, 1, 1, 1)), relu=True)
            nodes.append(Node(label, conv, value, label))
            value, channels = label, filters
    return tuple(nodes)


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _check_width(name: str, width: float) -> None:
    """Raise ValueError, before any number is drawn, where the weights do not fit into one file."""
    parameters, channels = 0.0, 3.0
    for count, full_width in zip(CONVOLUTIONS[name], WIDTHS, strict=True):
        for _ in range(count):
            parameters += 9 * channels * full_width * width
            channels = full_width * width
    if 4 * parameters > MAX_WEIGHT_BYTES:
        raise ValueError(
            f"--width {width:g} makes {parameters:.3g} weights, one ONNX file holds at most {MAX_WEIGHT_BYTES // 4:.3g}"
        )
    # The weights themselves, their float64 draft layer by layer, and the file's message and bytes.
    free = available_memory()
    if free is not None and 16 * parameters > free:
        raise ValueError(
            f"--width {width:g} needs about {byte_count(int(16 * parameters))} of memory, "
            f"{byte_count(free)} are available"
        )


def _called_by_layer(graph: Graph) -> tuple[Node, ...]:
    """Return the nodes with a VGG's convolutions and poolings called by position, others' layers by their output."""
    names = {value: name for name, value in layer_names(graph.nodes).items()}
    called, pools = [], 0
    for node in graph.nodes:
        name = ""
        if names and isinstance(node.operator, MaxPool | AveragePool):
            pools += 1
            name = f"pool{pools}"
        elif names:
            name = names.get(node.output, "")  # none for a convolution cut off from its ReLU
        elif _is_layer(node):
            name = node.output
        called.append(replace(node, name=name) if name else node)
    return tuple(called)


def _is_layer(node: Node) -> bool:
    return isinstance(node.operator, Relu) or (isinstance(node.operator, Conv) and node.operator.relu)


def _left_out(graph: Graph) -> int:
    """Return how many of the file's convolutions the engine cannot get to."""
    return graph.operators.get("Conv", 0) - sum(isinstance(node.operator, Conv) for node in graph.nodes)


def _description(operator: Operator) -> str:
    text = type(operator).__name__
    window = getattr(operator, "window", None)
    if window is not None:
        text += f" {_sides(window.kernel, always=True)}"
        text += f" / {_sides(window.strides)}" if window.strides != (1, 1) else ""
        text += f" dilated {_sides(window.dilations)}" if window.dilations != (1, 1) else ""
    if isinstance(operator, Conv):
        text += f" in {operator.group} groups" if operator.group > 1 else ""
        text += ", ReLU" if operator.relu else ""
    if isinstance(operator, Affine):
        text += " (scale, shift)"
    return text


def _pair(numbers: Any) -> tuple[int, int]:
    first, second = numbers
    return first, second


def _sides(pair: tuple[int, int], always: bool = False) -> str:
    return str(pair[0]) if pair[0] == pair[1] and not always else f"{pair[0]}x{pair[1]}"


# ---- the command line ----


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog=NAME, description="Fetch models, look into them, or make one of random weights.")
    _add_shared(parser)
    parser.set_defaults(cache=None, quiet=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,fetch,inspect,random}")

    command = commands.add_parser("list", help="show the models that have a name", description=_list.__doc__)
    command.set_defaults(run=_list)
    _add_shared(command)

    command = commands.add_parser("fetch", help="download a model", description=_fetch.__doc__)
    command.set_defaults(run=_fetch)
    command.add_argument("name", metavar="NAME", help=", ".join(_names()))
    command.add_argument(
        "--url",
        action="append",
        default=[],
        metavar="URL",
        help="an address of the file to try first, such as a mirror's; may be given several times",
    )
    command.add_argument("--keep", action="store_true", help="keep the whole download beside its convolution part")
    _add_shared(command)

    command = commands.add_parser("inspect", help="show what a model is made of", description=_inspect.__doc__)
    command.set_defaults(run=_inspect)
    command.add_argument("model", metavar="PATH_OR_NAME", help="an ONNX file, or a name out of the cache")
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
    # Suppressed: a command's own default would overwrite what was given before its name.
    parser.add_argument(
        "--cache",
        type=given_path,
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="folder of the fetched models (default: one in the user's cache folder)",
    )
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print neither progress nor messages, only errors and what was asked for",
    )


def _list(arguments: argparse.Namespace) -> None:
    """Show the models that have a name: the size of the download, the input, and where the cache has it."""
    cache = arguments.cache or default_cache()
    aliases = {name: alias for alias, name in ALIASES.items()}
    lines = [
        ("name", "short", "download", "input", "in the cache"),
        (DRAFT, "", "none", "caffe", f"comes with the program: {DRAFT_FILE} ({byte_count(DRAFT_FILE.stat().st_size)})"),
    ]
    for file in KNOWN_FILES:
        entry = _cache_entry(file, cache)
        where = f"{entry} ({byte_count(entry.stat().st_size)})" if entry.is_file() else "no"
        known = file.preprocessing or "by its weights"
        lines.append((file.name, aliases.get(file.name, ""), byte_count(file.size), known, where))
    print(_columns(lines, "<<><<"))


def _fetch(arguments: argparse.Namespace) -> None:
    """Download a published model into the cache, verified; only its convolution part is kept."""
    if arguments.name == DRAFT:
        _say(arguments, f"{DRAFT} comes with the program, there is nothing to fetch: {DRAFT_FILE}")
        return
    file = _known(arguments.name)
    if file is None:
        raise ValueError(unknown_name("model", arguments.name, _names()))
    cache = arguments.cache or default_cache()
    target = _cache_entry(file, cache)
    if target.is_file():
        _say(arguments, f"{file.name} is in the cache already: {target}")
        return
    addresses = [*arguments.url, *(address.format(name=file.name) for address in ADDRESSES)]
    remote = RemoteFile(f"{file.name}.onnx", file.sha256, file.size, tuple(addresses))
    try:
        make_folder(cache)
    except ValueError as error:
        raise ValueError(f"the cache, choose another with --cache: {error}") from None
    whole = cache / f"{file.name}-whole.onnx"
    if not _is_there(whole, remote):
        with Progress(file.size, "bytes", f"fetch {file.name}", arguments.quiet) as progress:
            download(remote, whole, progress=progress.reach)
    graph = read_onnx(whole)
    write_part(graph, whole, target, remote.name)
    if not arguments.keep:
        whole.unlink()
    _say(arguments, f"{file.name}: {target} ({byte_count(target.stat().st_size)})")
    if arguments.keep:
        _say(arguments, f"the whole download: {whole} ({byte_count(file.size)})")
    if file.preprocessing is None and metadata_preprocessing(graph.metadata) is None and not known_weights(graph.nodes):
        _say(arguments, "nothing tells which input it takes: choose one with --preprocessing where you use it")


def _is_there(path: Path, remote: RemoteFile) -> bool:
    """Tell whether an earlier run has left the whole file, before it could write the part or told to keep it."""
    if not path.is_file():
        return False
    try:
        verify(path, remote)
    except ValueError:
        return False
    return True


def _inspect(arguments: argparse.Namespace) -> None:
    """Show what a model is made of, what each layer looks at and costs, and what the engine makes of it."""
    path = _located(arguments.model, arguments.cache)
    graph = read_onnx(path)
    rows, obstacle = layer_table(graph, arguments.size, arguments.size)
    weights = known_weights(graph.nodes)
    file = known_file(path)
    facts = [("file", f"{path} ({byte_count(path.stat().st_size)})")]
    if file is not None:
        facts.append(("published as", f"{file.name}.onnx of the ONNX model zoo (same SHA-256)"))
    if "source" in graph.metadata:
        facts.append(("source", graph.metadata["source"]))
    counts = sorted(graph.operators.items(), key=lambda item: (-item[1], item[0]))
    facts += [
        ("operators", ", ".join(f"{count} {kind}" for kind, count in counts)),
        ("architecture", _architecture(graph)),
        ("weights", weights.title if weights else "not recognised"),
        ("input", _convention(path, graph, file)),
        ("content weight", _content_weight(weights.content_weight if weights else None)),
    ]
    for number, rejected in enumerate(graph.rejected):
        facts.append(("" if number else "not supported", f"{rejected.label}: {rejected.reason}"))
    if not graph.rejected:
        facts.append(("not supported", "nothing"))
    missing = _left_out(graph)
    if missing:
        facts.append(("", f"{missing} of {graph.operators['Conv']} convolutions are out of the engine's reach"))
    if obstacle:
        facts.append(("does not run", obstacle))
    print("\n".join(f"{name:<15} {text}" for name, text in facts))
    if rows:
        print()
        print(_table(rows, arguments.size))


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
        return f"{architecture(names)}, {len(names)} convolutions: {names[0]} .. {names[-1]}"
    if any(_is_layer(node) for node in graph.nodes):
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
    return f"{PAPER_CONTENT_WEIGHT:g} (with style weight 1; right for the original VGG-19, a guess for these weights)"


def _table(rows: Sequence[Row], size: int) -> str:
    """Return the operators as a table with a line of sums."""
    lines = [("layer", "operator", f"output at {size}x{size}", "field", "stride", "parameters", "multiply-adds")]
    for row in rows:
        shape = "-" if row.shape is None else f"{row.shape[2]} x {row.shape[0]} x {row.shape[1]}"
        cost = "-" if row.multiply_adds is None else f"{row.multiply_adds:,}"
        name = row.name if row.is_layer else f"({row.name})"
        field, stride = _sides(row.field), _sides(row.stride)
        lines.append((name, row.operator, shape, field, stride, f"{row.parameters:,}", cost))
    costs = [row.multiply_adds for row in rows]
    total = "-" if None in costs else f"{sum(cost or 0 for cost in costs):,}"
    lines.append(("total", "", "", "", "", f"{sum(row.parameters for row in rows):,}", total))
    note = "Output: channels x height x width. Field and stride in pixels of the image. In parentheses: no layer."
    return f"{_columns(lines, '<<>>>>>')}\n{note}"


def _columns(lines: Sequence[Sequence[str]], alignment: str) -> str:
    """Return lines of equally many cells as text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, alignment, widths, strict=True)).rstrip()
        for line in lines
    )


if __name__ == "__main__":
    run(main)
