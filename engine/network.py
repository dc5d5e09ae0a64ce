"""The network: its graph run forward and backward on one image, keeping no more than the way back needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.errors import unknown_name
from engine.estimate import multiply_adds, peak_bytes, weight_bytes
from engine.graph import Node, Rejected, value_shapes
from engine.ops import Array, Shape
from engine.plan import masked_by_readers, planned
from engine.preprocessing import Preprocessing
from kernels import gpu_name, kernels_of, lives_on_cuda, to_cuda, to_host
from kernels.cpu.threads import Workers

LayerGradient = Array | Callable[[Array | None], Array]
"""A derivative with respect to a layer's features, (H_l, W_l, N_l), which is added to the gradient that already flows
into them from the layers above; or a function that is given that, or None, and returns the sum of both, perhaps made in
place."""

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
    convolution : as in ``load_network``.
    scales : the factor on the stored features of each layer, see ``engine.scaling``; 1 where there is none.
    tf32 : whether float32 numbers are rounded to tf32 where convolutions multiply them.
    weights : what the weights are, where they are known, see ``engine.vgg.KnownWeights``; else empty, and
        ``content_weight`` is a guess.
    notes : what is to be known of how the model is run, a sentence each.
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
        gradients : by layer, the derivative with respect to its features, or a function for it. That is called when the
            backward pass gets there, so that not all of them take up memory at once.

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
                    features, there = tape.features[layers_of[node.output]], flowing.get(node.output)
                    flowing[node.output] = _with_gradient(gradients[name], there, features, name)
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
        return to_cuda(image.astype(np.float64))

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
        shapes = value_shapes(self._leading_to({self.outputs[name] for name in layers}), (height, width, 3))
        return {name: shapes[self.outputs[name]] for name in layers}

    def _fits(self, size: int, layers: Sequence[str]) -> bool:
        try:
            self._shapes(size, size, layers)
        except ValueError:
            return False
        return True

    def memory(self, height: int, width: int, layers: Iterable[str]) -> int:
        """Return the bytes that one forward and backward pass holds at its peak on the device: see ``peak_bytes``."""
        kept = self._kept(height, width, layers)
        return peak_bytes(self._plan(kept), (height, width, 3), kept, self.dtype, self.workers.threads)

    def weight_bytes(self, layers: Iterable[str]) -> int:
        """Return the bytes of the parameters up to ``layers``, in both directions."""
        return weight_bytes(self._plan({self.outputs[name] for name in self.checked(layers)}), self.dtype)

    def multiply_adds(self, height: int, width: int, layers: Iterable[str]) -> int:
        """Return the multiplications of all convolutions of one forward pass up to ``layers``."""
        return multiply_adds(self._leading_to(self._kept(height, width, layers)), (height, width, 3))

    def _kept(self, height: int, width: int, layers: Iterable[str]) -> set[str]:
        """Return the values of ``layers``; raises ValueError where the image does not suit them."""
        wanted = self.checked(layers)
        self.shapes(height, width, wanted)
        return {self.outputs[name] for name in wanted}

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


def _with_gradient(given: LayerGradient, flowing: Array | None, features: Array, layer: str) -> Array:
    """Return what flows into a layer's features together with a derivative of one's own.

    Raises ValueError where that has another shape than the features.
    """
    total = given(flowing) if callable(given) else given
    if np.shape(total) != features.shape:
        raise ValueError(f"the gradient of {layer!r} has the shape {np.shape(total)}, its features {features.shape}")
    if isinstance(features, np.ndarray):
        # The kernels go through it as one row, in place: neither another order nor the caller's own array will do.
        own = total is not flowing and not callable(given)
        total = np.array(total, features.dtype, order="C") if own else np.ascontiguousarray(total, features.dtype)
    if flowing is not None and not callable(given):
        kernels_of(flowing).add_to(flowing, total)
        return flowing
    return total


def _accumulate(flowing: dict[str, Array], value: str, gradient: Array) -> None:
    """Add the gradient from one more reader of ``value`` to those from others."""
    if value in flowing:
        kernels_of(gradient).add_to(flowing[value], gradient)
    else:
        flowing[value] = gradient
