"""The same losses in PyTorch, with its autograd: what ``tools.bench`` compares the engine with.

Nothing of the engine's arithmetic is used: only a network's weights and windows are taken over. PyTorch is imported
inside the functions, so that the project does not need it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.gradcheck.problem import Visit
from engine.graph import Node
from engine.network import Network
from engine.ops import Array, AveragePool, Conv, MaxPool, Relu
from engine.preprocessing import Preprocessing
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS

LAYOUTS = ("contiguous", "channels last")
"""How PyTorch's activations lie in memory: NCHW, or NHWC in its ``channels_last`` format."""

Tensor = Any
"""A ``torch.Tensor``; its type cannot be named without importing PyTorch."""


@dataclass(frozen=True, eq=False)
class Step:
    """One operator in PyTorch.

    Parameters
    ----------
    run : returns the output for an input (1, C, H, W).
    layers : the names that its output is known by; most often one or none.
    """

    run: Callable[[Tensor], Tensor]
    layers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TorchObjective:
    """The paper's total loss in PyTorch; made by ``torch_objective``.

    Parameters
    ----------
    preprocess : from an image (1, 3, H, W), RGB, 0..255, to the network's input.
    steps : the network as far as the losses need it.
    content : P of each content layer.
    style : A / M_a of each style layer.
    content_weight, style_weight : alpha and beta.
    dtype : of the images, a ``torch.dtype``.
    layout : one of ``LAYOUTS``.
    device : PyTorch's name of it.
    """

    preprocess: Callable[[Tensor], Tensor]
    steps: tuple[Step, ...]
    content: Mapping[str, Tensor]
    style: Mapping[str, Tensor]
    content_weight: float
    style_weight: float
    dtype: Any
    layout: str
    device: str = "cpu"

    def __call__(self, image: Array) -> tuple[float, NDArray[np.float64]]:
        """Return value and gradient as ``engine.Objective`` does, for an image (H, W, 3), RGB, 0..255."""
        value, gradient = self.evaluate(self.tensor(image))
        return value, gradient[0].permute(1, 2, 0).double().contiguous().cpu().numpy()

    def evaluate(self, pixels: Tensor) -> tuple[float, Tensor]:
        """Return value and gradient, (1, 3, H, W), for an image that ``tensor`` made."""
        total, gradient = loss_with_gradient(self.loss, pixels)
        return total.item(), gradient

    def loss(self, pixels: Tensor) -> Tensor:
        """Return the total loss; autograd can follow it."""
        features = _features(self.steps, self.preprocess(pixels))
        total: Tensor = 0.0
        for layer, P in self.content.items():
            total = total + self.content_weight * 0.5 * ((_wide(features[layer]) - P) ** 2).sum()
        for layer, A in self.style.items():
            E_l = ((_mean_gram(features[layer]) - A) ** 2).sum() / (4 * len(A) ** 2)
            total = total + self.style_weight / len(self.style) * E_l
        return total

    def tensor(self, image: Array) -> Tensor:
        """Return an image (H, W, 3), RGB, 0..255, as (1, 3, H, W) in the objective's dtype, layout and place."""
        return _tensor(image, self.dtype, self.layout).to(self.device)


@dataclass(frozen=True)
class TorchRun:
    """A minimization with one of PyTorch's optimizers.

    Parameters
    ----------
    values : the loss of each evaluation.
    seconds : of the whole run.
    evaluating : the part of it inside the evaluations.
    """

    values: list[float]
    seconds: float
    evaluating: float

    @property
    def initial_value(self) -> float:
        """The first loss."""
        return self.values[0]

    @property
    def value(self) -> float:
        """The lowest loss."""
        return min(self.values)

    @property
    def evaluations(self) -> int:
        """How many were made."""
        return len(self.values)


def torch_objective(
    network: Network,
    content: Array,
    style: Array,
    content_layers: Sequence[str] = PAPER_CONTENT_LAYERS,
    style_layers: Sequence[str] = PAPER_STYLE_LAYERS,
    content_weight: float = 1e-3,
    style_weight: float = 1.0,
    layout: str = "contiguous",
    dtype: str | None = None,
    device: str = "cpu",
) -> TorchObjective:
    """Return the losses of ``engine.Objective`` in PyTorch, on copies of the network's weights.

    Parameters
    ----------
    network : from ``load_network``, in float32 or float64.
    content, style : photograph and painting, (H, W, 3), RGB, 0..255.
    content_layers, style_layers : names; a style layer weighs 1 / (number of style layers).
    content_weight, style_weight : alpha and beta.
    layout : one of ``LAYOUTS``.
    dtype : of the activations, PyTorch's name; None means the network's. In 16 bits, the images, the Gram matrices and
        the losses stay in float32, whose range and digits they need.
    device : PyTorch's name of it.

    Raises ValueError when PyTorch is missing, and for a network that is not a chain of convolutions, ReLUs and
    poolings with windows that PyTorch has too.
    """
    torch = import_torch()
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; choose from {', '.join(LAYOUTS)}")
    if network.dtype.name not in ("float32", "float64"):
        raise ValueError(f"the PyTorch twin runs in float32 or float64, the network is in {network.dtype}")
    of_network = getattr(torch, dtype or network.dtype.name)
    of_images = getattr(torch, network.dtype.name)
    preprocess = _preprocess(network.preprocessing, of_images, of_network, device)
    steps = _steps(network, [*content_layers, *style_layers], layout, of_network, device)
    with torch.no_grad():
        of_content = _features(steps, preprocess(_tensor(content, of_images, layout).to(device)))
        P = {layer: _wide(of_content[layer]) for layer in content_layers}
        # Not all of the photograph's features while the painting's are computed: memory is measured too.
        del of_content
        of_style = _features(steps, preprocess(_tensor(style, of_images, layout).to(device)))
        A = {layer: _mean_gram(of_style[layer]) for layer in style_layers}
    return TorchObjective(preprocess, steps, P, A, content_weight, style_weight, of_images, layout, device)


def operator_input_gradient(visit: Visit, output_gradient: Array) -> Array | None:
    """Return what autograd gives for one operator at work, (H, W, C), or None where PyTorch has no operator like it.

    Parameters
    ----------
    visit : the operator and its input.
    output_gradient : of its output's shape.
    """
    torch = import_torch()
    try:
        function = _function(visit.node, "contiguous", torch.from_numpy(visit.input).dtype, "cpu")
    except ValueError:
        return None
    values = _tensor(visit.input, torch.from_numpy(visit.input).dtype, "contiguous").requires_grad_()
    pushed = function(values)
    (gradient,) = torch.autograd.grad(pushed, values, _tensor(output_gradient, pushed.dtype, "contiguous"))
    result: Array = gradient[0].permute(1, 2, 0).contiguous().numpy()
    return result


CLAMPED = "L-BFGS, lr 1, clamped"

OPTIMIZERS = ("L-BFGS, lr 1", CLAMPED, "L-BFGS, strong Wolfe", "Adam, lr 10")
"""PyTorch's optimizers as programs for style transfer use them: its L-BFGS without and with a line search, and Adam.

``CLAMPED`` is that of PyTorch's own tutorial, whose closure clamps the image to 0..255 behind the optimizer's back.
"""


def minimize_with_torch(
    objective: TorchObjective,
    initial: Array,
    evaluations: int,
    optimizer: str = "L-BFGS, strong Wolfe",
    history: int = 10,
    on_evaluation: Callable[[Tensor], object] = lambda pixels: None,
    clock: Callable[[], float] = time.perf_counter,
) -> TorchRun:
    """Minimize with one of ``OPTIMIZERS`` until ``evaluations`` have been made.

    The loss is scaled as ``engine.minimize`` does, by the largest element of the first gradient. PyTorch's optimizers
    have no bounds; all but ``CLAMPED`` leave 0..255. The first trial step of its L-BFGS is so small (1 in the L1 norm)
    that some evaluations go by before it gets on.

    Parameters
    ----------
    objective : from ``torch_objective``.
    initial : the image to begin with, (H, W, 3), RGB, 0..255.
    evaluations : how often the objective is called.
    optimizer : one of ``OPTIMIZERS``.
    history : corrections that L-BFGS keeps.
    on_evaluation : called after each evaluation, with the image there, (1, 3, H, W).
    clock : returns the time in seconds.
    """
    torch = import_torch()
    # The optimizer wants its vectors contiguous, whatever the layout of the network.
    pixels = objective.tensor(initial).contiguous().requires_grad_()
    memory_format = _memory_format(objective.layout)
    values: list[float] = []
    scale, evaluating = 1.0, 0.0

    def closure() -> float:
        nonlocal scale, evaluating
        if len(values) == evaluations:
            raise _EnoughError
        began = clock()
        if optimizer == CLAMPED:
            pixels.data.clamp_(0, 255)
        image = pixels.detach().contiguous(memory_format=memory_format)
        value, gradient = objective.evaluate(image)
        evaluating += clock() - began
        if not values:
            scale = 1 / (gradient.abs().max().item() or 1.0)
        values.append(value)
        pixels.grad = gradient.contiguous() * scale
        on_evaluation(image)
        return value * scale

    chosen: Any
    if optimizer == "Adam, lr 10":
        chosen = torch.optim.Adam([pixels], lr=10)
    else:
        chosen = torch.optim.LBFGS(
            [pixels],
            max_iter=evaluations,
            max_eval=20 * evaluations,
            tolerance_grad=0,
            tolerance_change=0,
            history_size=history,
            line_search_fn="strong_wolfe" if optimizer == "L-BFGS, strong Wolfe" else None,
        )
    began = clock()
    try:
        # A step of L-BFGS ends early when its line search finds nothing; the next one starts afresh.
        while True:
            chosen.step(closure)
    except _EnoughError:
        pass
    return TorchRun(values, clock() - began, evaluating)


def loss_with_gradient(loss: Callable[[Tensor], Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a loss and its gradient with respect to an image, without waiting for a device."""
    import torch

    pixels = pixels.detach().requires_grad_()
    total = loss(pixels)
    (gradient,) = torch.autograd.grad(total, pixels)
    return total.detach(), gradient


def import_torch() -> Any:
    """Return the module ``torch``; raises ValueError where it is missing, with what brings it."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(f"the comparison needs PyTorch: pip install '.[bench]' ({error})") from None
    return torch


class _EnoughError(Exception):
    """Leaves the optimizer when the evaluations are used up."""


def _steps(network: Network, layers: Sequence[str], layout: str, dtype: Any, device: str) -> tuple[Step, ...]:
    """Return the network as far as the deepest of ``layers``."""
    names: dict[str, list[str]] = {}
    for layer in network.checked(layers):
        names.setdefault(network.outputs[layer], []).append(layer)
    steps: list[Step] = []
    value = network.nodes[0].input
    for node in network.nodes:
        if node.inputs != (value,):
            raise ValueError(
                f"{node.label}: the PyTorch twin runs a chain of operators only, this network has branches"
            )
        steps.append(Step(_function(node, layout, dtype, device), tuple(dict.fromkeys(names.pop(node.output, ())))))
        value = node.output
        if not names:
            break
    return tuple(steps)


def _function(node: Node, layout: str, dtype: Any, device: str) -> Callable[[Tensor], Tensor]:
    """Return one operator in PyTorch, or raise ValueError where it has none like it."""
    import torch
    from torch.nn import functional

    operator = node.operator
    if isinstance(operator, Relu):
        rectify: Callable[[Tensor], Tensor] = functional.relu
        return rectify
    if not isinstance(operator, Conv | AveragePool | MaxPool):
        raise ValueError(f"{node.label}: the PyTorch twin has no {type(operator).__name__}")
    window = operator.window
    top, left, bottom, right = window.pads
    if (top, left) != (bottom, right) or window.auto_pad != "NOTSET":
        raise ValueError(f"{node.label}: the PyTorch twin pads both sides alike, got {window.pads}, {window.auto_pad}")
    if isinstance(operator, Conv):
        turned = np.ascontiguousarray(operator.weight.transpose(3, 2, 0, 1))
        weight = torch.from_numpy(turned).to(device, dtype).contiguous(memory_format=_memory_format(layout))
        bias = None if operator.bias is None else torch.from_numpy(operator.bias.copy()).to(device, dtype)
        group, relu = operator.group, operator.relu

        def convolve(input: Tensor) -> Tensor:
            output = functional.conv2d(input, weight, bias, window.strides, (top, left), window.dilations, group)
            # In place, as in torchvision's VGG: it is faster and takes less memory.
            return functional.relu_(output) if relu else output

        return convolve
    if isinstance(operator, MaxPool):
        return lambda input: functional.max_pool2d(
            input, window.kernel, window.strides, (top, left), window.dilations, window.ceil_mode
        )
    if window.dilations != (1, 1):
        raise ValueError(f"{node.label}: PyTorch's average pooling has no dilations, got {window.dilations}")
    count_include_pad = operator.count_include_pad
    return lambda input: functional.avg_pool2d(
        input, window.kernel, window.strides, (top, left), window.ceil_mode, count_include_pad
    )


def _preprocess(preprocessing: Preprocessing, dtype: Any, of_network: Any, device: str) -> Callable[[Tensor], Tensor]:
    """Return the network's input convention: computed in ``dtype``, handed on in ``of_network``."""
    import torch

    mean = torch.tensor(preprocessing.mean, dtype=dtype, device=device)[:, None, None]
    std = torch.tensor(preprocessing.std, dtype=dtype, device=device)[:, None, None]

    def preprocess(pixels: Tensor) -> Tensor:
        channels = pixels.flip(1) if preprocessing.bgr else pixels
        return ((channels * preprocessing.scale - mean) / std).to(of_network)

    return preprocess


def _features(steps: Sequence[Step], value: Tensor) -> dict[str, Tensor]:
    """Return the output of each step that has a layer's name."""
    features: dict[str, Tensor] = {}
    for step in steps:
        value = step.run(value)
        features.update(dict.fromkeys(step.layers, value))
    return features


def _tensor(image: Array, dtype: Any, layout: str) -> Tensor:
    import torch

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    return pixels.to(dtype).contiguous(memory_format=_memory_format(layout))


def _wide(features: Tensor) -> Tensor:
    """Return what is in 16 bits in float32, anything else as it is."""
    return features.float() if features.dtype.itemsize == 2 else features


def _mean_gram(features: Tensor) -> Tensor:
    """Return G / M of features (1, N, H, W): (N, N)."""
    import torch

    features = _wide(features)
    # Neither form moves the features: each is a view of them as they lie.
    if features.is_contiguous(memory_format=torch.channels_last):
        columns = features[0].permute(1, 2, 0).flatten(0, 1)
        return columns.T @ columns / len(columns)
    rows = features[0].flatten(1)
    return rows @ rows.T / rows.shape[1]


def _memory_format(layout: str) -> Any:
    import torch

    return torch.channels_last if layout == "channels last" else torch.contiguous_format
