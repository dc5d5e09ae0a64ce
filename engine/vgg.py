"""The VGG networks: their layers' names by position, and the published model files.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014), table 1,
columns D (VGG-16) and E (VGG-19).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.front import front_of
from engine.graph import Graph, Node
from engine.ops import Affine, AveragePool, Conv, MaxPool, Pad

CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""How many convolutions stand before each pooling."""

WIDTHS = (64, 128, 256, 512, 512)
"""Output channels of the convolutions in each block."""


@dataclass(frozen=True)
class KnownFile:
    """A published model file: its name, how to recognize it, and its input convention.

    Parameters
    ----------
    architecture : ``"vgg16"`` or ``"vgg19"``.
    preprocessing : its input convention, or None where only its weights tell.
    """

    name: str
    architecture: str
    sha256: str
    size: int
    preprocessing: str | None


# SHA-256 and size from the ONNX model zoo's records (github.com/onnx/models, validated/vision/classification/vgg);
# its README gives the input convention of the files without "caffe2" in their name.
KNOWN_FILES = (
    KnownFile(
        "vgg19-7", "vgg19", "692f9f927f1df1b89033787a77a73eac59fd9b3344f9ecdf0b13221e41c2046f", 574677321, "torch"
    ),
    KnownFile(
        "vgg19-bn-7", "vgg19", "ce0987dfa6228ad29708013f38b7f73cbc14ca6066a05fc22ee49b35871c63ed", 574774380, "torch"
    ),
    KnownFile(
        "vgg19-caffe2-9", "vgg19", "cfb97260b303ad3963999662456571b89c5f73dbdd2fd9dffd19fed7a90f766b", 574674712, None
    ),
    KnownFile(
        "vgg16-7", "vgg16", "f20805a3ecccaa88647bbab4ad011ff2412a9838485ea844de0fcbce349820b9", 553437328, "torch"
    ),
    KnownFile(
        "vgg16-12", "vgg16", "722c42f53ca03a5480296bf8f9c85a151de3eed9ec982d7d2302ff6e2900c67b", 553437752, "torch"
    ),
    KnownFile(
        "vgg16-bn-7", "vgg16", "4fdceabf1ef715c9ed3020fa2eac1cb2a448296c086b03633c80cf47e1c5afce", 553512191, "torch"
    ),
)


def known_file(path: Path) -> KnownFile | None:
    """Return the published file that a file is a copy of, by its size and SHA-256; raises OSError as reading does."""
    size = path.stat().st_size
    return next((file for file in KNOWN_FILES if file.size == size and file.sha256 == _sha256(path)), None)


@dataclass(frozen=True)
class KnownWeights:
    """Published weights, recognized by their first layer in whatever file they come.

    Parameters
    ----------
    title : what the weights are.
    preprocessing : their input convention.
    content_weight : alpha that gives the paper's look with beta = 1. It is not portable between networks: the content
        loss grows with the square of the activations, the style loss with their fourth power.
    """

    title: str
    preprocessing: str
    content_weight: float


PAPER_CONTENT_WEIGHT = 1e-3
"""alpha / beta of the paper's figure 2, where it is 1e-3 or 1e-4."""

CONTENT_WEIGHT = 5e-5
"""alpha that gives the paper's look with the original weights at ``RECOMMENDED_SIZE``, see docs/defaults.md."""

RECOMMENDED_SIZE = 512
"""Long side in pixels of the picture that a recommended content weight is for; ``engine.stylize`` has it for others."""

# By layer_hash of conv1_1. The hash of VGG-19's is also that of shard 1 of a published TensorFlow.js conversion
# (DavidCai1993/vgg19-tensorflowjs-model); the others were computed from the files by this function.
KNOWN_WEIGHTS = {
    "d5dc010d2591a1bba216ecaa7b17c3c4104ca570": KnownWeights(
        "VGG-19, original weights (Simonyan and Zisserman 2014)", "caffe", CONTENT_WEIGHT
    ),
    "326951fd96b0fbf51ac6bd8053a25122b4ecc41e": KnownWeights(
        "VGG-19, original weights (Simonyan and Zisserman 2014) in 8-bit tables", "caffe", CONTENT_WEIGHT
    ),
    "80dc8e9b4ccbb261ceba8b831d6bf36ee30a0e33": KnownWeights(
        "VGG-16, original weights (Simonyan and Zisserman 2014)", "caffe", CONTENT_WEIGHT
    ),
    "b6b7a457078ec01d0729f0f1a47f18859a8c001c": KnownWeights(
        "VGG-19 at a quarter of its width (Collaborative Distillation, Wang et al. 2020)", "caffe", 1e-5
    ),
    "f8d62ec04834cb460d7c69d90eaf862c745766ad": KnownWeights("the draft network of this project", "caffe", 2e-4),
}


def parameter_bytes(conv: Conv) -> bytes:
    """Return a convolution's weight (height, width, input, output) and bias as little-endian float32."""
    bias = np.zeros(conv.weight.shape[3]) if conv.bias is None else conv.bias
    return conv.weight.astype("<f4").tobytes() + bias.astype("<f4").tobytes()


def layer_hash(conv: Conv) -> str:
    """Return a convolution's fingerprint: the git blob SHA-1 of its parameters."""
    data = parameter_bytes(conv)
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def known_weights(nodes: Sequence[Node]) -> KnownWeights | None:
    """Return what is known of a network's weights, by its first convolution behind arithmetic on single pixels."""
    behind = nodes[len(front_of(nodes)) :]
    first = next((node.operator for node in behind if isinstance(node.operator, Conv)), None)
    return KNOWN_WEIGHTS.get(layer_hash(first)) if first is not None else None


def layer_names(nodes: Sequence[Node]) -> dict[str, str]:
    """Return the output of each VGG layer by its name, ``conv1_1`` .. ``conv5_4``, each behind its ReLU.

    The names go by position: the first number counts the poolings before the layer, the second the convolutions since.
    A file that ends early has fewer. Arithmetic on the image's pixels may stand before them, and a padding of its own
    before each. Returns an empty dictionary when the network is not a VGG (convolutions of 3x3
    with a ReLU each, in blocks of 2, 2, 3, 3, 3 or 2, 2, 4, 4, 4).
    """
    names: dict[str, str] = {}
    counts = [0]
    front = front_of(nodes)
    behind = nodes[len(front) :]
    value = front[-1].output if front else behind[0].input if behind else ""
    for node in behind:
        operator = node.operator
        # What follows the last pooling is a classifier; a last convolution may have been cut off from its ReLU.
        if len(counts) > len(WIDTHS) or (node is nodes[-1] and isinstance(operator, Conv) and not operator.relu):
            break
        if node.input != value:
            return {}
        if isinstance(operator, Pad):
            pass  # of the convolution behind it
        elif isinstance(operator, MaxPool | AveragePool):
            counts.append(0)
        elif isinstance(operator, Conv) and operator.relu and operator.window.kernel == (3, 3):
            counts[-1] += 1
            names[f"conv{len(counts)}_{counts[-1]}"] = node.output
        else:
            return {}
        value = node.output
    whole, last = counts[:-1], counts[-1]
    for blocks in CONVOLUTIONS.values():
        ended = len(whole) == len(blocks) and last == 0
        going_on = len(whole) < len(blocks) and last <= blocks[len(whole)]
        if tuple(whole) == blocks[: len(whole)] and (ended or going_on):
            return names
    return {}


def other_names(names: Sequence[str], normalized: bool) -> dict[str, str]:
    """Return the layer of a VGG that each name stands for by which other programs call it.

    The layer is what comes out of the ReLU: Caffe calls that ``relu4_2``, Keras ``block4_conv2``. In torchvision's
    networks, ``features.21``, convolution, ReLU and whatever stands between them have numbers of their own; each stands
    for the layer.

    Parameters
    ----------
    names : of the layers, as ``layer_names`` gives them.
    normalized : whether the network was trained with batch normalizations, which torchvision counts too.
    """
    others: dict[str, str] = {}
    number, block_before = 0, "1"
    for name in names:
        block, _, place = name.removeprefix("conv").partition("_")
        number += block != block_before  # the pooling
        block_before = block
        others |= {f"relu{block}_{place}": name, f"block{block}_conv{place}": name}
        for _ in range(3 if normalized else 2):
            others[f"features.{number}"] = name
            number += 1
    return others


NORMALIZED = "batch_normalization"
"""The key of a model's metadata that says that batch normalizations were folded into its convolutions."""


def is_normalized(graph: Graph) -> bool:
    """Say whether a model has batch normalizations, or had them until they were folded in.

    One among the first nodes, which compute from each pixel alone, is the model's own mean and scale of the image.
    """
    of_front = sum(isinstance(node.operator, Affine) for node in front_of(graph.nodes))
    return graph.operators.get("BatchNormalization", 0) > of_front or NORMALIZED in graph.metadata


def architecture(names: Sequence[str]) -> str:
    """Return ``"VGG-19"``, ``"VGG-16"`` or, where the layers present do not tell, ``"VGG"``.

    Of a network that ends within the first two blocks that is too much to say: it is ``""``.
    """
    if "conv3_1" not in names:
        return ""
    if any(name.endswith("_4") for name in names):
        return "VGG-19"
    # Block 4 begins only after block 3 has ended.
    return "VGG-16" if "conv4_1" in names else "VGG"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
