"""PyTorch on a GPU in all the ways that its users have to make it fast: what the engine there is compared with.

Its activations lie channels last throughout, the layout that its tensor-core convolutions want.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from engine.network import Network
from engine.ops import Array
from tools.bench.speed import seconds_each
from tools.models.torch_vgg import Tensor, TorchObjective, import_torch, loss_with_gradient, torch_objective


@dataclass(frozen=True)
class Rival:
    """A way to run PyTorch.

    Parameters
    ----------
    precision : ``"float32"``, ``"tf32"`` or ``"16 bits"``: what it is compared at.
    dtype : of the activations, PyTorch's name.
    compiled : whether torch.compile makes kernels of the loss and its gradient.
    graph : whether the launches are recorded as a CUDA graph and replayed.
    """

    precision: str
    dtype: str
    compiled: bool
    graph: bool


_WAYS = {"eager": (False, False), "graph": (False, True), "compiled": (True, False), "compiled, graph": (True, True)}
_PRECISIONS = {
    "float32": ("float32", "float32"),
    "tf32": ("tf32", "float32"),
    "bfloat16": ("16 bits", "bfloat16"),
    "float16": ("16 bits", "float16"),
}

RIVALS: Mapping[str, Rival] = {
    f"torch {name}, {way}": Rival(precision, dtype, compiled, graph)
    for name, (precision, dtype) in _PRECISIONS.items()
    for way, (compiled, graph) in _WAYS.items()
}
"""By name."""

Evaluation = Callable[[], tuple[float, Tensor]]
"""Returns the loss as a number and its gradient, (1, 3, H, W), which the next call may overwrite."""


def evaluation(
    rival: Rival, network: Network, content: Array, style: Array, image: Array, device: str = "cuda"
) -> Evaluation:
    """Return what evaluates the engine's loss and its gradient in PyTorch.

    Parameters
    ----------
    network : of the CPU, in float32.
    content, style, image : (H, W, 3), RGB, 0..255.
    device : PyTorch's name of it.

    Raises ValueError for a network that PyTorch cannot run.
    """
    torch = import_torch()
    _allow_tf32(rival.precision != "float32")
    torch.backends.cudnn.benchmark = True
    objective = torch_objective(
        network,
        content,
        style,
        content_weight=network.content_weight,
        layout="channels last",
        dtype=rival.dtype,
        device=device,
    )
    pixels = objective.tensor(image)
    if rival.graph and not rival.compiled:
        return _recorded(objective, pixels)
    # With "reduce-overhead" the compiler records graphs of its own.
    loss: Callable[[Tensor], Tensor] = objective.loss
    if rival.compiled:
        loss = torch.compile(objective.loss, mode="reduce-overhead" if rival.graph else "default")

    def evaluate() -> tuple[float, Tensor]:
        _allow_tf32(rival.precision != "float32")  # others may have been called since
        total, gradient = loss_with_gradient(loss, pixels)
        return total.item(), gradient

    return evaluate


def _allow_tf32(allowed: bool) -> None:
    torch = import_torch()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def _recorded(objective: TorchObjective, pixels: Tensor) -> Evaluation:
    torch = import_torch()
    # On a stream of its own first, as the documentation of torch.cuda.graph asks for.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            loss_with_gradient(objective.loss, pixels)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total, gradient = loss_with_gradient(objective.loss, pixels)

    def evaluate() -> tuple[float, Tensor]:
        graph.replay()
        return total.item(), gradient

    return evaluate


def matrix_rates(side: int = 8192, repeats: int = 10, device: str = "cuda") -> dict[str, float]:
    """Return the operations a second of PyTorch's own matrix product on random numbers, by precision.

    Parameters
    ----------
    side : of the square matrices.
    repeats : products that are timed together.
    device : PyTorch's name of it.

    Raises ValueError where PyTorch has no GPU.
    """
    torch = import_torch()
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("PyTorch finds no GPU to be compared on: leave out --against torch")
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    rates = {}
    for precision, dtype in (("float32", "float32"), ("tf32", "float32"), ("16 bits", "bfloat16")):
        _allow_tf32(precision != "float32")
        a, b = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
        product = partial(torch.matmul, a, b)
        for _ in range(3):
            product()
        rates[precision] = 2 * side**3 / seconds_each(product, wait, repeats)
    return rates


def _nothing() -> None:
    """Wait for a device that does all work at once."""
