"""A network: its layers by name, its input convention, and the device that it runs on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from engine.errors import unknown_name
from engine.graph import Node, Observer, Rejected, depending_on, leading_to, value_shapes
from engine.layers import named_alike
from engine.ops import Array, Operator, Shape
from engine.pieces import Cutter
from engine.plan import LayerGradient, Plan, Tape, joined
from engine.preprocessing import Preprocessing
from kernels import Device


@dataclass(frozen=True, eq=False)
class Network:
    """A convolutional feature extractor; made by ``load_network``.

    Parameters
    ----------
    nodes : operators in running order, their parameters in NumPy.
    outputs : the value that each layer name stands for.
    preprocessing : the input convention.
    dtype : of the activations.
    device : where everything between image and gradient is computed.
    content_weight : recommended alpha, see ``engine.vgg.KnownWeights``.
    rejected : the file's nodes that the engine cannot run.
    convolution : the algorithm of convolutions, as the device takes it.
    scales : the factor on the stored features of each layer, see ``engine.scaling``; 1 unless given.
    tf32 : whether float32 numbers are rounded to tf32 where convolutions multiply them.
    weights : the name of the weights if they are known, see ``engine.vgg.KnownWeights``; else empty, and
        ``content_weight`` is a guess.
    notes : what is to be known of how the model is run, a sentence each.

    Examples
    --------
    >>> from engine import load_network
    >>> network = load_network("tools/models/draft.onnx")
    >>> network.shapes(32, 40, ["conv1_1", "conv2_1"])
    {'conv1_1': (32, 40, 16), 'conv2_1': (16, 20, 32)}
    >>> plan = network.plan(32, 40, ["conv1_1"])
    >>> tape = plan.forward(np.zeros((32, 40, 3)))
    >>> plan.backward(tape, {"conv1_1": np.ones((32, 40, 16))}).shape  # with respect to the image
    (32, 40, 3)
    """

    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    preprocessing: Preprocessing
    dtype: np.dtype[Any]
    device: Device
    content_weight: float
    rejected: tuple[Rejected, ...]
    convolution: str = "auto"
    scales: Mapping[str, float] = field(default_factory=dict)
    tf32: bool = False
    weights: str = ""
    notes: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """What the network computes in, by the name that ``load_network`` takes: its dtype's, or ``"tf32"``."""
        return "tf32" if self.tf32 else self.dtype.name

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, from the image upwards."""
        return tuple(self.outputs)

    @cached_property
    def _placed(self) -> tuple[Node, ...]:
        """The nodes with their parameters on the device, once for all sizes."""
        return tuple(
            replace(node, operator=node.operator.placed(self.device, self.dtype, self.convolution))
            for node in self.nodes
        )

    def compact(self, layers: Iterable[str] | None = None) -> Network:
        """Return the network as far as some layers (all by default), to compute with: its weights are its algorithms'.

        Where the network itself is let go of, a weight goes as soon as it has been transformed for Winograd's algorithm
        or brought to a GPU; direct convolutions keep it. What is returned cannot be written to a file, moved to another
        device or precision, or compared with the definition.

        Raises ValueError for an unknown layer.
        """
        wanted = self.checked(self.layers if layers is None else layers)
        nodes = leading_to(self._placed, {self.outputs[name] for name in wanted})
        values = {node.output for node in nodes}
        outputs = {name: value for name, value in self.outputs.items() if value in values}
        return replace(self, nodes=nodes, outputs=named_alike(self.outputs, outputs))

    def plan(self, height: int, width: int, layers: Iterable[str], begin: str | None = None) -> Plan:
        """Return how the network is run for images of ``height`` x ``width`` as far as the deepest of ``layers``.

        Parameters
        ----------
        begin : a layer whose features stand in place of the image: what lies below it is not run, see ``divided``.

        Raises ValueError for an unknown layer or a size that does not suit.
        """
        wanted = self.checked(layers)
        self.shapes(height, width, wanted)
        values = {name: self.outputs[name] for name in wanted}
        first, shape = self.nodes[0].input, (height, width, 3)
        if begin is not None:
            first, shape = self.outputs[begin], self._shapes(height, width, [begin])[begin]
        nodes = joined(leading_to(self._placed, values.values(), first), values.values())
        preprocessing = self.preprocessing if begin is None else None
        return Plan(self.device, preprocessing, self.dtype, nodes, values, first, shape)

    def divided(self, layers: Iterable[str], waist: str) -> tuple[list[str], list[str]]:
        """Return which of some layers lie below a waist, and which are computed from its features, itself among them.

        Parameters
        ----------
        waist : a layer; all that lies behind it sees the image through its features alone.

        Raises ValueError for a layer that does not exist, and where the network goes around the waist.
        """
        wanted, (waist,) = self.checked(layers), self.checked([waist])
        value = self.outputs[waist]
        found = depending_on(self.nodes, value)
        behind = [name for name in wanted if self.outputs[name] in found]
        for name in behind:
            nodes = leading_to(self.nodes, {self.outputs[name]}, value)
            if any(input != value and input not in found for node in nodes for input in node.inputs):
                raise ValueError(f"{waist!r} is no waist: {name!r}, behind it, sees the image around it as well")
        return [name for name in wanted if name not in behind], behind

    def cutter(
        self, shape: Shape, layers: Iterable[str], edges: str = "zero", ahead: Mapping[str, int] | None = None
    ) -> Cutter:
        """Return how images of a shape, (H, W, 3), are cut into pieces for some layers: see ``engine.pieces``."""
        wanted = self.checked(layers)
        self.shapes(shape[0], shape[1], wanted)
        return Cutter(
            self._leading_to(wanted), {name: self.outputs[name] for name in wanted}, shape, edges, ahead or {}
        )

    def features(self, image: Array, layers: Sequence[str] | str) -> dict[str, Array]:
        """Return the activations of some layers after their ReLU.

        Parameters
        ----------
        image : (H, W, 3), RGB, 0..255, uint8 or floating.
        layers : names out of ``self.layers``.

        Returns
        -------
        By layer, a NumPy array (N_l, H_l, W_l): channels, height, width.

        Raises ValueError for an unknown layer or an image that does not fit.

        Examples
        --------
        >>> from engine import load_network
        >>> network = load_network("tools/models/draft.onnx")
        >>> features = network.features(np.zeros((32, 40, 3)), ["conv1_1", "conv4_2"])
        >>> features["conv4_2"].shape
        (128, 4, 5)
        """
        wanted = [layers] if isinstance(layers, str) else list(layers)
        tape = self.forward(image, wanted)
        found = {name: np.moveaxis(self.device.fetch(tape.features[name]), 2, 0) for name in wanted}
        return {name: F / np.float32(self.scales[name]) if name in self.scales else F for name, F in found.items()}

    def forward(self, image: Array, layers: Iterable[str], *, observe: Observer | None = None) -> Tape:
        """Run the network once and return the features of some layers and a tape for ``backward``: see ``Plan``.

        Raises ValueError for an unknown layer or an image that does not fit.
        """
        wanted = self.checked(layers)
        image = self.checked_image(image)
        return self.plan(image.shape[0], image.shape[1], wanted).forward(self.placed(image), observe=observe)

    def backward(self, tape: Tape, gradients: Mapping[str, LayerGradient], *, observe: Observer | None = None) -> Array:
        """Return the gradient with respect to the image of what depends on the layers: see ``Plan.backward``."""
        return tape.plan.backward(tape, gradients, observe=observe)

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
        on_gpu = self.device.kind == "cuda" and self.device.holds(image)
        image = image if on_gpu else np.asarray(image)
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image must have the shape (H, W, 3), got {image.shape}")
        if on_gpu:
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
        """Return the scale factor applied to a layer's stored features."""
        return self.scales.get(layer, 1.0)

    def placed(self, image: Array) -> Array:
        """Return an image where the network computes: itself, or a copy in double precision on the GPU."""
        if self.device.holds(image):
            return image
        return self.device.put(image.astype(np.float64))

    @property
    def place(self) -> str:
        """The device in words."""
        return f"cpu with {self.device.name}" if self.device.kind == "cpu" else f"cuda ({self.device.name})"

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
        shapes = value_shapes(self._leading_to(layers), (height, width, 3))
        return {name: shapes[self.outputs[name]] for name in layers}

    def _fits(self, size: int, layers: Sequence[str]) -> bool:
        try:
            self._shapes(size, size, layers)
        except ValueError:
            return False
        return True

    def memory(self, height: int, width: int, layers: Iterable[str]) -> int:
        """Return the bytes that one forward and backward pass holds at its peak on the device: see ``Plan``."""
        return self.plan(height, width, layers).peak_bytes

    def weight_bytes(self, layers: Iterable[str]) -> int:
        """Return the bytes of the parameters up to ``layers``, as each algorithm takes them in both directions.

        On the CPU those of a network that is not ``compact`` are in memory as they were read besides.
        """
        return sum(operator.parameters_held for operator in self._placed_to(layers)) * self.dtype.itemsize

    def weight_bytes_to_come(self, layers: Iterable[str]) -> int:
        """Return ``weight_bytes`` without what an evaluation before has made: what one more takes beside the rest."""
        of_layers = self._placed_to(layers)
        return sum(one.parameters_held - one.parameters_made for one in of_layers) * self.dtype.itemsize

    def _placed_to(self, layers: Iterable[str]) -> list[Operator]:
        nodes = leading_to(self._placed, {self.outputs[name] for name in self.checked(layers)})
        return [node.operator for node in nodes]

    def multiply_adds(self, height: int, width: int, layers: Iterable[str]) -> int:
        """Return the multiplications of all convolutions of one forward pass up to ``layers``."""
        nodes = self._leading_to(self.checked(layers))
        shapes = value_shapes(nodes, (height, width, 3))
        return sum(node.operator.multiply_adds(shapes[node.output]) for node in nodes)

    def _leading_to(self, layers: Iterable[str]) -> tuple[Node, ...]:
        return leading_to(self.nodes, {self.outputs[name] for name in layers})
