"""A weight file of another program as an ONNX file, which is what the engine reads."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelError
from engine.graph import Node
from engine.load import resolve_preprocessing
from engine.onnx.reader import read_onnx
from engine.onnx.writer import write_onnx
from engine.ops import Conv
from engine.preprocessing import PREPROCESSING, Preprocessing, preprocessing_metadata
from engine.vgg import NORMALIZED, is_normalized, known_weights, parameter_bytes
from tools.media.files import replacing, sha256_of
from tools.models.part import convolution_part, single_precision
from tools.models.weights.caffe_file import read_caffe
from tools.models.weights.keras_file import read_keras
from tools.models.weights.kind import kind_of
from tools.models.weights.matconvnet_file import read_matconvnet
from tools.models.weights.safetensors_file import read_safetensors
from tools.models.weights.tensor import Tensor
from tools.models.weights.torch_file import read_torch
from tools.models.weights.vgg import vgg_from

READERS: dict[str, Callable[[Path], Mapping[str, Tensor]]] = {
    "torch": read_torch,
    "safetensors": read_safetensors,
    "keras": read_keras,
    "caffe": read_caffe,
    "matlab": read_matconvnet,
}
"""The readers by the kind of file."""

# The first digits of the SHA-256 of torchvision's VGG-19 and VGG-16, without and with batch normalization, which their
# names end with. Source: torchvision/models/vgg.py.
_TORCHVISION = ("dcbb9e9d", "397923af", "c79401a0", "6c64b313")

TORCHVISION_BYTES = 500_000_000
"""All of these files are larger; others need no hash."""

# Of the sixteen layers one after another, each its kernel (height, width, in, out) and its bias in little-endian
# float32: the git blob SHA-1 of each 4 MiB. Source: the file records of paulsp94/tfjs_vgg19_imagenet, a conversion to
# TensorFlow.js.
_ORIGINAL_VGG19 = (
    "bd5e1c3eee2381f3858abc58ed785aeb3946ed48",
    "5859ce588543576b220d0d2b30ca1012233a5082",
    "6fca29b5aa3617fdc0e46b02c6d5facc983e6086",
    "02a8a0b5874bfdb287a8d5a7c76061dd8fe65cf1",
    "1993c370bc8ef592991a79f41d4df13bc7a85acf",
    "d3c37ae7d5e8e408e3dace56be01e8a572b3d291",
    "db528613fb2bb6ee4dd57875afc39c8b08663c05",
    "c1628d3b6b80692cbf306108ccfccfb1d6ea8589",
    "aaf2041995b59ad62fc6356399afdd0f25087c06",
    "a53159356b2b10bf924fd6131f412a269d6fe59f",
    "aaec1149a1ff802cfa1323e9e4c0749d425e3390",
    "da22ac42e843c6ebd3f454203145168e0fdc4b68",
    "2a3fa6bafd385cbe36d8005e40b3852af4debb4b",
    "e3915cf1a367dbb2437379ac47bfbcfc48ee7207",
    "1428fed1cfa3346304a478004dd139821d43ab90",
    "f9f3930ac5ba1cb6dd8447dd3655544ecb60d71b",
    "cfc9de7f101cf933b29e4c44e7555d67c60a0e2e",
    "5546f7decc6646ac3ba9cf035937476234bed436",
    "255b89ebd48bcde9f61a3274314f0c12c52e8537",
    "46443247a0a8c97f5698c8b9a69f20a91b0b2c74",
)


@dataclass(frozen=True)
class Vgg:
    """What a weight file holds.

    Parameters
    ----------
    nodes : of the network up to its last convolution's ReLU.
    preprocessing : its input convention, or None where nothing tells.
    normalized : whether batch normalizations were folded into the convolutions.
    """

    nodes: tuple[Node, ...]
    preprocessing: Preprocessing | None
    normalized: bool = False


def read_vgg(path: Path) -> Vgg:
    """Return the VGG in a file of any program.

    The input convention is the file's own where it states one, else that of weights or a file that are known; where
    nothing tells it is left open, for a guess would give worse pictures without a word.

    Raises ValueError, naming the file, when it cannot be read or its tensors are not those of a VGG; OSError when it
    cannot be opened.
    """
    kind = kind_of(path)
    if kind == "onnx":
        graph = read_onnx(path)
        preprocessing = None
        with contextlib.suppress(ModelError):
            preprocessing = resolve_preprocessing(path, graph)
        return Vgg(convolution_part(graph), preprocessing, is_normalized(graph))
    tensors = READERS[kind](path)
    try:
        nodes, preprocessing = vgg_from(kind, tensors)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from None
    if preprocessing is None:
        known = known_weights(nodes)
        if known is not None:
            preprocessing = PREPROCESSING[known.preprocessing]
        elif kind == "torch" and _is_torchvisions(path):
            preprocessing = PREPROCESSING["torch"]
    return Vgg(nodes, preprocessing, any(name.endswith(".running_var") for name in tensors))


def convert(
    path: Path,
    target: Path,
    preprocessing: Preprocessing | None = None,
    facts: Mapping[str, str] | None = None,
    check: Callable[[Vgg], object] = lambda vgg: None,
) -> Vgg:
    """Write the VGG of a weight file as ONNX, whole or not at all, and return it.

    Parameters
    ----------
    path, target : the weight file, and the ONNX file to write.
    preprocessing : the input convention to state; None takes what ``read_vgg`` finds out.
    facts : further metadata for the ONNX file.
    check : raises ValueError for a network that is not to be written.

    Raises ValueError and OSError as ``read_vgg`` does, and where ``target`` cannot be written.
    """
    vgg = read_vgg(path)
    check(vgg)
    stated = preprocessing or vgg.preprocessing
    metadata = {} if stated is None else preprocessing_metadata(stated)
    if vgg.normalized:
        metadata[NORMALIZED] = "folded in"
    known = known_weights(vgg.nodes)
    if known is not None:
        metadata["weights"] = known.title
    metadata |= {"source": f"{path.name}, SHA-256 {sha256_of(path)}"} | dict(facts or {})
    with replacing(target) as temporary:
        write_onnx(temporary, vgg.nodes, metadata, dtype="float32" if single_precision(vgg.nodes) else "float64")
    return vgg


def is_original_vgg19(nodes: Sequence[Node]) -> bool:
    """Say whether all sixteen convolutions are, bit for bit, those that Simonyan and Zisserman published."""
    data = bytearray()
    for conv in (node.operator for node in nodes):
        if isinstance(conv, Conv):
            data += parameter_bytes(conv)
    pieces = [bytes(data[begin : begin + (4 << 20)]) for begin in range(0, len(data), 4 << 20)]
    hashes = [hashlib.sha1(b"blob %d\0" % len(piece) + piece, usedforsecurity=False).hexdigest() for piece in pieces]
    return tuple(hashes) == _ORIGINAL_VGG19


def _is_torchvisions(path: Path) -> bool:
    return path.stat().st_size > TORCHVISION_BYTES and sha256_of(path)[:8] in _TORCHVISION
