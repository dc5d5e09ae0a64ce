"""The network: its graph run forward and backward on one image, keeping no more than the way back needs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import ModelError, unknown_name
from engine.onnx_reader import Graph, Node, Rejected, read_onnx
from engine.ops import Array, AveragePool, Conv, ConvBlock, MaxPool, Operator, Relu, Shape
from engine.plan import masked_by_readers, planned, planned_for_hopper
from engine.preprocessing import PREPROCESSING, Preprocessing, metadata_preprocessing, named_preprocessing
from engine.scaling import sample_picture, scaled_nodes
from engine.vgg import KNOWN_FILES, PAPER_CONTENT_WEIGHT, known_weights, layer_names
from kernels import gpu_name, gpu_unavailable, hopper_is_right, kernels_of, lives_on_cuda, to_cuda, to_host
from kernels.cpu.threads import Workers

POOLINGS = ("average", "max", "model")
DTYPES = ("float32", "float64", "complex128")
CUDA_DTYPES = ("float32", "float16")
CUDA_CONVOLUTIONS = ("auto", "hopper")
DEVICES = ("auto", "cpu", "cuda")
CONVOLUTIONS = ("auto", "direct")

LayerGradient = Callable[[Array | None], Array]
"""Returns a derivative with respect to a layer's features, (H_l, W_l, N_l), given the gradient that already flows into
them from the layers above, or None: the sum of both, which may be made in place."""

Observer = Callable[[str, Array], None]
"""Called with a node's label and its output, for looking into a run."""


@dataclass
class Tape:
    """What a forward pass leaves for the backward pass, which uses it up.

    Parameters
    ----------
    nodes : what was run, in order.
    features : by layer, (H_l, W_l, N_l), as asked for.
    saved : what each node's input gradient needs.
    gradient_scale : the factor on the gradients of a backward pass, a power of two; what comes out is divided by it.
    """

    nodes: tuple[Node, ...]
    features: dict[str, Array]
    saved: list[Any] = field(default_factory=list)
    gradient_scale: float = 1.0

    def copy(self) -> Tape:
        """Return a tape for one more backward pass over the same arrays."""
        return Tape(self.nodes, dict(self.features), list(self.saved), self.gradient_scale)


@dataclass(frozen=True, eq=False)
class Network:
    """A convolutional network for looking at images; made by ``load_network``.

    Parameters
    ----------
    nodes : operators in running order.
    outputs : the value that each layer name stands for.
    preprocessing : the input convention.
    dtype : of the activations.
    device : ``"cpu"`` or ``"cuda"``: where the parameters are, and everything between image and gradient.
    content_weight : recommended alpha, see ``engine.vgg.KnownWeights``.
    rejected : what the file holds and the engine cannot run.
    workers : the threads that the kernels share.
    convolution : ``"auto"`` or ``"direct"``.
    scales : the factor on the stored features of each layer, see ``engine.scaling``; 1 where there is none.
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    preprocessing: Preprocessing
    dtype: np.dtype[Any]
    device: str
    content_weight: float
    rejected: tuple[Rejected, ...]
    workers: Workers
    convolution: str = "auto"
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, from the image upwards."""
        return tuple(self.outputs)

    def features(self, image: Array, layers: Sequence[str] | str) -> dict[str, Array]:
        """Return the responses of some layers after their ReLU.

        Parameters
        ----------
        image : (H, W, 3), RGB, 0..255, uint8 or floating.
        layers : names out of ``self.layers``.

        Returns
        -------
        By layer, a NumPy array (N_l, H_l, W_l): channels, height, width.
        """
        wanted = [layers] if isinstance(layers, str) else list(layers)
        tape = self.forward(image, wanted)
        found = {name: np.moveaxis(to_host(tape.features[name]), 2, 0) for name in wanted}
        return {name: F / np.float32(self.scales[name]) if name in self.scales else F for name, F in found.items()}

    def forward(self, image: Array, layers: Iterable[str], *, observe: Observer | None = None) -> Tape:
        """Run the network as far as the deepest of ``layers`` and return their features and a tape for ``backward``.

        Raises ValueError for an unknown layer or an image that does not fit.
        """
        wanted = self.checked(layers)
        image = self.checked_image(image)
        self.shapes(image.shape[0], image.shape[1], wanted)
        kept = {self.outputs[name] for name in wanted}
        nodes = self._plan(kept)
        readers = Counter(name for node in nodes for name in node.inputs)
        values = {self.nodes[0].input: self.preprocessing.apply(self.placed(image), self.dtype)}
        tape = Tape(nodes, {})
        with self.workers.single_threaded_blas():
            for node in nodes:
                output, saved = node.forward(values, node.output in kept, self.workers)
                tape.saved.append(saved)
                values[node.output] = output
                readers.subtract(node.inputs)
                for name in set(node.inputs):
                    if not readers[name] and name not in kept:
                        del values[name]
                if observe:
                    observe(node.label, output)
        tape.features = {name: values[self.outputs[name]] for name in wanted}
        return tape

    def backward(self, tape: Tape, gradients: Mapping[str, LayerGradient], *, observe: Observer | None = None) -> Array:
        """Return the gradient with respect to the image of what depends on the layers through ``gradients``.

        Parameters
        ----------
        tape : of ``forward``; it is used up.
        gradients : by layer, a function for the derivative with respect to its features. It is called when the backward
            pass gets there, so that not all of them take up memory at once.

        Returns
        -------
        (H, W, 3), RGB, per unit of 0..255, in double precision, on the network's device.
        """
        injected: dict[str, list[str]] = {}
        for name in gradients:
            injected.setdefault(self.outputs[name], []).append(name)
        layers_of = {self.outputs[name]: name for name in tape.features}
        flowing: dict[str, Array] = {}
        with self.workers.single_threaded_blas():
            while tape.saved:
                node, saved = tape.nodes[len(tape.saved) - 1], tape.saved.pop()
                for name in injected.get(node.output, ()):
                    flowing[node.output] = gradients[name](flowing.get(node.output))
                output = tape.features.pop(layers_of[node.output]) if node.output in layers_of else None
                if node.output not in flowing:
                    continue
                found = node.input_gradients(flowing.pop(node.output), output, saved, self.workers)
                for name, gradient in zip(node.inputs, found, strict=True):
                    if observe:
                        observe(node.label, gradient)
                    _accumulate(flowing, name, gradient)
        if not flowing:
            raise ValueError("no gradient flows to the image: give one for at least one layer")
        gradient = self.preprocessing.input_gradient(flowing[self.nodes[0].input])
        if tape.gradient_scale != 1:
            gradient = kernels_of(gradient).scaled(gradient, 1 / tape.gradient_scale)
        return gradient

    def checked(self, layers: Iterable[str]) -> list[str]:
        """Return ``layers`` as a list; raises ValueError for one that does not exist, with the nearest that does."""
        wanted = list(layers)
        for name in wanted:
            if name not in self.outputs:
                message = unknown_name("layer", name, self.layers)
                if self.rejected:
                    first = self.rejected[0]
                    message += f" (the model goes on with {first.label}: {first.reason})"
                raise ValueError(message)
        return wanted

    def checked_image(self, image: Array) -> Array:
        """Return ``image`` as an array; raises ValueError unless it is (H, W, 3), numeric and finite."""
        on_device = self.device == "cuda" and lives_on_cuda(image)
        image = image if on_device else np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image must have the shape (H, W, 3), got {image.shape}")
        if on_device:
            if image.dtype != np.float64:
                raise ValueError(f"an image on the GPU must be float64, got {image.dtype}")
            return image  # what is not finite shows in the loss: a look at it would be a wait for the device
        allowed = "fc" if self.dtype.kind == "c" else "f"
        if image.dtype != np.uint8 and image.dtype.kind not in allowed:
            raise ValueError(f"an image must be uint8 or floating, got {image.dtype}")
        if image.dtype.kind in "fc" and not np.isfinite(image).all():
            raise ValueError("the image has values that are infinite or not a number")
        return image

    def scale_of(self, layer: str) -> float:
        """Return how many times as large as they are a layer's features are stored."""
        return self.scales.get(layer, 1.0)

    def placed(self, image: Array) -> Array:
        """Return an image where the network computes: itself, or a copy in double precision on the GPU."""
        if self.device == "cpu" or lives_on_cuda(image):
            return image
        copy: Array = to_cuda(image.astype(np.float64))
        return copy

    @property
    def place(self) -> str:
        """The device in words."""
        if self.device == "cpu":
            return f"cpu with {self.workers.threads} threads"
        return f"cuda ({gpu_name()})"

    def shapes(self, height: int, width: int, layers: Iterable[str] | None = None) -> dict[str, Shape]:
        """Return each layer's (H_l, W_l, N_l) for an image of ``height`` x ``width``.

        Raises ValueError when the image is too small for ``layers`` (all by default).
        """
        wanted = self.checked(self.layers if layers is None else layers)
        try:
            return self._shapes(height, width, wanted)
        except ValueError as error:
            smallest = next((size for size in range(1, 4096) if self._fits(size, wanted)), None)
            if not smallest or min(height, width) >= smallest:
                # Branches may differ in size: each rounds odd ones in its own way.
                raise ValueError(f"an image of {width}x{height} pixels does not suit the network: {error}") from None
            raise ValueError(
                f"an image of {width}x{height} pixels is too small for the network, it needs at least "
                f"{smallest}x{smallest}: {error}"
            ) from None

    def _shapes(self, height: int, width: int, layers: Sequence[str]) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {self.nodes[0].input: (height, width, 3)}
        for node in self._leading_to({self.outputs[name] for name in layers}):
            try:
                shapes[node.output] = node.output_shape(shapes)
            except ValueError as error:
                raise ValueError(f"{node.label}: {error}") from None
        return {name: shapes[self.outputs[name]] for name in layers}

    def _fits(self, size: int, layers: Sequence[str]) -> bool:
        try:
            self._shapes(size, size, layers)
        except ValueError:
            return False
        return True

    def memory(self, height: int, width: int, layers: Iterable[str]) -> int:
        """Return the bytes that one forward and backward pass holds at its peak, estimated from the shapes.

        Counted are activations, their gradients, what is saved and the kept features; not counted are the weights, the
        losses' targets and the optimiser.
        """
        wanted = self.checked(layers)
        self.shapes(height, width, wanted)
        kept = {self.outputs[name] for name in wanted}
        nodes = self._plan(kept)
        image = self.nodes[0].input
        shapes: dict[str, Shape] = {image: (height, width, 3)}
        readers = Counter(name for node in nodes for name in node.inputs)
        held, peak, scratch = 0, 0, 0
        # What other branches still have to read: values on the way forward, gradients on the way back.
        waiting = {image}
        for node in nodes:
            shapes[node.output] = node.output_shape(shapes)
            around = waiting - {*node.inputs, *kept}
            peak = max(peak, held + sum(_bytes(shapes[name], self.dtype) for name in (*around, *node.values)))
            if isinstance(node.operator, ConvBlock):
                scratch = max(scratch, node.operator.scratch_bytes(shapes[node.input], self.workers.threads))
            held += _held_bytes(node, shapes, kept, self.dtype)
            readers.subtract(node.inputs)
            waiting = {name for name in (*waiting, node.output) if readers[name]}
        waiting = set()
        for node in reversed(nodes):
            output = _bytes(shapes[node.output], self.dtype) if node.output in kept else 0
            # An input that another reader has sent a gradient to is there twice until the two are added.
            around = waiting - {node.output}
            busy = sum(_bytes(shapes[name], self.dtype) for name in (*around, *node.values))
            peak = max(peak, held + busy + output)
            held -= _held_bytes(node, shapes, kept, self.dtype)
            waiting = {*waiting, *node.inputs} - {node.output}
        return peak + scratch

    def weight_bytes(self, layers: Iterable[str]) -> int:
        """Return the bytes of the parameters up to ``layers``, in both directions."""
        total = 0
        for node in self._plan({self.outputs[name] for name in self.checked(layers)}):
            # The weight itself and what the algorithm makes of it: turned, or transformed to 36 numbers for 9.
            total += node.operator.parameters * (5 if isinstance(node.operator, ConvBlock) else 2)
        return total * self.dtype.itemsize

    def multiply_adds(self, height: int, width: int, layers: Iterable[str]) -> int:
        """Return the multiplications of all convolutions of one forward pass up to ``layers``."""
        wanted = self.checked(layers)
        self.shapes(height, width, wanted)
        shapes: dict[str, Shape] = {self.nodes[0].input: (height, width, 3)}
        total = 0
        for node in self._leading_to({self.outputs[name] for name in wanted}):
            shapes[node.output] = node.output_shape(shapes)
            if isinstance(node.operator, Conv):
                rows, columns, _ = shapes[node.output]
                total += rows * columns * node.operator.weight.size
        return total

    def _plan(self, kept: set[str]) -> tuple[Node, ...]:
        """Return what is run to compute ``kept``."""
        nodes = self._leading_to(kept)
        if self.device == "cuda":
            return masked_by_readers(nodes, kept)
        return planned(nodes, kept) if self.convolution == "auto" else nodes

    def _leading_to(self, values: set[str]) -> tuple[Node, ...]:
        """Return the nodes that ``values`` depend on."""
        needed = set(values)
        chosen = []
        for node in reversed(self.nodes):
            if node.output in needed:
                chosen.append(node)
                needed.update(node.inputs)
        return tuple(reversed(chosen))


def _accumulate(flowing: dict[str, Array], value: str, gradient: Array) -> None:
    """Add the gradient from one more reader of ``value`` to those from others."""
    if value in flowing:
        kernels_of(gradient).add_to(flowing[value], gradient)
    else:
        flowing[value] = gradient


def _bytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    return shape[0] * shape[1] * shape[2] * dtype.itemsize


def _held_bytes(node: Node, shapes: Mapping[str, Shape], kept: set[str], dtype: np.dtype[Any]) -> int:
    """Return the bytes that stay until the backward pass because of a node."""
    height, width, channels = shapes[node.output]
    values, operator = height * width * channels, node.operator
    if isinstance(operator, ConvBlock) and operator.pool:
        signs = 4 * values // 8
        return signs + (values * dtype.itemsize if node.output in kept else 0)
    if node.output in kept:
        return values * dtype.itemsize
    if isinstance(operator, Relu | ConvBlock) or (isinstance(operator, Conv) and operator.relu):
        return values // 8
    return values if isinstance(operator, MaxPool) else 0


def load_network(
    path: str | Path,
    pooling: str = "average",
    device: str = "cpu",
    dtype: str = "float32",
    preprocessing: str | None = None,
    *,
    threads: int | None = None,
    convolution: str = "auto",
) -> Network:
    """Load a network from an ONNX file.

    Parameters
    ----------
    path : the file.
    pooling : ``"average"`` replaces every MaxPool by the mean over the same window (padding not counted), as the paper
        recommends; ``"max"`` does the opposite; ``"model"`` leaves the file's.
    device : ``"cpu"``; ``"cuda"``, a GPU through CuPy; ``"auto"`` takes that if it can be used, else the CPU: see
        ``Network.place``.
    dtype : of the activations: ``"float32"``; on the CPU also ``"float64"`` or ``"complex128"``; on a GPU also
        ``"float16"``, with sums in float32, values kept in range by ``engine.scaling``.
    preprocessing : ``"caffe"``, ``"torch"``, ``"unit"`` or ``"raw"``; None finds out from the model's metadata, the
        table of published files, or its first layer's weights.
    convolution : ``"auto"`` takes the fastest algorithm for each layer, ``"direct"`` the definition's sums throughout.
        ``"hopper"`` with dtype float16 on a GPU of compute capability 9.0: tensor cores where they suit, once a
        comparison has shown that they give the right results.
    threads : how many the kernels use; None means all available cores. The result does not depend on it.

    Raises ModelError when the file cannot be used, ValueError for a wrong argument.
    """
    for kind, given, choices in (
        ("pooling", pooling, POOLINGS),
        ("dtype", dtype, dict.fromkeys([*DTYPES, *CUDA_DTYPES])),
        ("convolution", convolution, dict.fromkeys([*CONVOLUTIONS, *CUDA_CONVOLUTIONS])),
    ):
        if given not in choices:
            raise ValueError(unknown_name(kind, given, choices))
    chosen = choose_device(device, dtype)
    if convolution == "hopper" and chosen == "cpu":
        raise ValueError("convolution 'hopper' needs a GPU of compute capability 9.0")
    named = None if preprocessing is None else named_preprocessing(preprocessing)
    path = Path(path)
    graph = read_onnx(path)
    nodes, outputs = _layers(graph, path)
    known = known_weights(nodes)
    of_cpu = np.dtype("float32" if dtype == "float16" else dtype)
    nodes = tuple(_in_dtype(with_pooling(node, pooling), of_cpu) for node in nodes)
    network = Network(
        nodes=nodes,
        outputs=outputs,
        preprocessing=named or resolve_preprocessing(path, graph),
        dtype=of_cpu,
        device="cpu",
        content_weight=known.content_weight if known else PAPER_CONTENT_WEIGHT,
        rejected=graph.rejected,
        workers=Workers(threads),
        convolution=convolution,
    )
    _check_channels(network, path)
    return network if chosen == "cpu" else moved_to_cuda(network, np.dtype(dtype))


def moved_to_cuda(network: Network, dtype: np.dtype[Any]) -> Network:
    """Return a float32 network of the CPU on the GPU, in ``dtype``; raises ValueError when it does not suit that."""
    scales: Mapping[str, float] = {}
    nodes = network.nodes
    if dtype == np.float16:
        features = network.features(sample_picture(), network.layers)
        largest = {network.outputs[layer]: float(F.max()) for layer, F in features.items()}
        nodes, of_values = scaled_nodes(network.nodes, largest)
        scales = {layer: of_values[value] for layer, value in network.outputs.items()}
    nodes = tuple(on_cuda(node, dtype) for node in nodes)
    if network.convolution == "hopper":
        if dtype != np.float16:
            raise ValueError(f"convolution 'hopper' is for dtype float16, not for {dtype}")
        if hopper_is_right():
            nodes = planned_for_hopper(nodes)
    return replace(network, nodes=nodes, dtype=dtype, device="cuda", scales=scales)


def choose_device(device: str, dtype: str = "float32") -> str:
    """Return the device that ``device`` stands for; raises ValueError where it is not to be had."""
    if device not in DEVICES:
        raise ValueError(unknown_name("device", device, DEVICES))
    if dtype == "float16" and device == "cpu":
        raise ValueError("dtype 'float16' needs a GPU, on 'cpu' choose one of float32, float64, complex128")
    if device == "cpu" or (device == "auto" and dtype not in CUDA_DTYPES):
        return "cpu"
    if dtype not in CUDA_DTYPES:
        raise ValueError(f"dtype {dtype!r} is for the CPU, on 'cuda' choose one of {', '.join(CUDA_DTYPES)}")
    reason = gpu_unavailable()
    if reason is not None and (device == "cuda" or dtype == "float16"):
        needed = "device 'cuda'" if device == "cuda" else "dtype 'float16' needs a GPU, which"
        raise ValueError(f"{needed} is not available: {reason}")
    return "cpu" if reason else "cuda"


def on_cuda(node: Node, dtype: np.dtype[Any]) -> Node:
    """Return ``node`` with its parameters on the GPU: weights in ``dtype``, what is added in float32."""
    arrays = {
        item.name: to_cuda(value.astype(dtype if item.name == "weight" else np.float32))
        for item in fields(node.operator)  # type: ignore[arg-type]  # operators are dataclasses
        if isinstance(value := getattr(node.operator, item.name), np.ndarray)
    }
    return replace(node, operator=replace(node.operator, **arrays)) if arrays else node  # type: ignore[type-var]


def resolve_preprocessing(path: Path, graph: Graph) -> Preprocessing:
    """Return the input convention of a model: from its metadata, its hash, or its first layer.

    Raises ModelError when none of them tells: a guess would give worse pictures without a word.
    """
    stated = metadata_preprocessing(graph.metadata)
    if stated is not None:
        return stated
    size = path.stat().st_size
    for file in KNOWN_FILES:
        if file.preprocessing and file.size == size and file.sha256 == _sha256(path):
            return PREPROCESSING[file.preprocessing]
    known = known_weights(graph.nodes)
    if known is not None:
        return PREPROCESSING[known.preprocessing]
    raise ModelError(
        f"{path}: nothing tells which input this model was trained on, choose its preprocessing: "
        '"caffe" (BGR, 0..255, mean subtracted), "torch" (RGB, ImageNet mean and deviation), '
        '"unit" (RGB, 0..1) or "raw" (RGB, 0..255)'
    )


def _layers(graph: Graph, path: Path) -> tuple[tuple[Node, ...], dict[str, str]]:
    """Return the nodes worth keeping and the layers' names; the nodes of a VGG are called by their layer's name."""
    outputs = layer_names(graph.nodes)
    if outputs:
        names = {value: name for name, value in outputs.items()}
    else:
        names = {
            node.output: node.output
            for node in graph.nodes
            if isinstance(node.operator, Relu) or (isinstance(node.operator, Conv) and node.operator.relu)
        }
        outputs = dict(names)
    if not outputs:
        reason = f" ({graph.rejected[0].label}: {graph.rejected[0].reason})" if graph.rejected else ""
        raise ModelError(f"{path}: the network has no convolution followed by a ReLU{reason}")
    last = max(index for index, node in enumerate(graph.nodes) if node.output in names)
    nodes = tuple(
        replace(node, label=f"{type(node.operator).__name__} {names[node.output]!r}") if node.output in names else node
        for node in graph.nodes[: last + 1]
    )
    return nodes, outputs


def _in_dtype(node: Node, dtype: np.dtype[Any]) -> Node:
    """Return ``node`` in ``dtype``; raises ModelError when its weights are too large for that."""
    with np.errstate(over="ignore"):
        converted = node.operator.astype(dtype)
    for name in ("weight", "bias", "scale", "shift"):
        values = getattr(converted, name, None)
        if values is not None and not np.isfinite(values).all():
            raise ModelError(f"{node.label}: its {name} has values too large for {dtype}, use float64")
    return replace(node, operator=converted)


def with_pooling(node: Node, pooling: str) -> Node:
    """Return the node with its pooling replaced as asked for, and called by what it is now.

    Parameters
    ----------
    pooling : as in ``load_network``.
    """
    operator: Operator = node.operator
    if pooling == "average" and isinstance(operator, MaxPool):
        operator = AveragePool(operator.window, count_include_pad=False)
    elif pooling == "max" and isinstance(operator, AveragePool):
        operator = MaxPool(operator.window)
    else:
        return node
    label = node.label.replace(type(node.operator).__name__, type(operator).__name__, 1)
    return replace(node, label=label, operator=operator)


def _check_channels(network: Network, path: Path) -> None:
    """Raise ModelError when some operator's channels do not fit the one before it."""
    # Large enough for any window: what may fail is the channels.
    size = 1 << 20
    shapes: dict[str, Shape] = {network.nodes[0].input: (size, size, 3)}
    for node in network.nodes:
        try:
            shapes[node.output] = (size, size, node.output_shape(shapes)[2])
        except ValueError as error:
            raise ModelError(f"{path}: {node.label}: {error}") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
