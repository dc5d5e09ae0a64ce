"""Where a network computes: the CPU, or a GPU, and by which algorithm there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from engine.errors import unknown_name
from engine.layers import named_alike
from engine.network import Network
from engine.scaling import sample_picture, scaled_nodes
from kernels import Cuda
from kernels.cuda import opening

DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("float32", "float64", "complex128")
CUDA_DTYPES = ("float32", "float16", "tf32")
CUDA_CONVOLUTIONS = ("auto", "patches", "tensor", "hopper")
TENSOR_CAPABILITY = (8, 0)


def moved_to_cuda(network: Network, precision: str, gpu: Cuda | None = None) -> Network:
    """Return a float32 network of the CPU on the GPU; raises ValueError when it does not suit that.

    Parameters
    ----------
    precision : one of ``CUDA_DTYPES``.
    gpu : None opens the current one, its kernels compared with the CPU's.
    """
    gpu = opening.open_cuda() if gpu is None else gpu
    algorithm = _cuda_algorithm(gpu, network.convolution, precision)
    dtype = np.dtype("float16" if precision == "float16" else "float32")
    scales: Mapping[str, float] = {}
    nodes = network.nodes
    if dtype == np.float16:
        features = network.features(sample_picture(), network.layers)
        largest = {network.outputs[layer]: float(F.max()) for layer, F in features.items()}
        nodes, of_values = scaled_nodes(network.nodes, largest)
        of_layers = {layer: of_values[value] for layer, value in network.outputs.items()}
        scales = named_alike(network.outputs, of_layers)
    wrong = (algorithm == "hopper" and not opening.hopper_is_right(gpu)) or (
        algorithm == "tensor" and not opening.tensor_cores_are_right(gpu, precision)
    )
    algorithm = "patches" if wrong else algorithm
    tf32 = precision == "tf32" and algorithm == "tensor"
    if algorithm == "tensor" and dtype == np.float32:
        gpu = Cuda(gpu.backend, splits_products=True)  # Gram matrices go to the tensor cores too, and lose no digit
    if algorithm == "tensor" and precision == "float32":
        algorithm = "split"
    return replace(network, nodes=nodes, dtype=dtype, device=gpu, convolution=algorithm, scales=scales, tf32=tf32)


def _cuda_algorithm(gpu: Cuda, convolution: str, precision: str) -> str:
    """Return what ``convolution`` stands for on the GPU: ``"patches"``, ``"tensor"`` or ``"hopper"``.

    Raises ValueError where the GPU or the precision do not allow it.
    """
    if convolution == "hopper":
        if precision != "float16":
            raise ValueError(f"convolution 'hopper' is for dtype float16, not for {precision}")
        return convolution
    capability = gpu.capability
    named = "convolution 'tensor'" if convolution == "tensor" else "dtype 'tf32'" if precision == "tf32" else None
    if named and capability < TENSOR_CAPABILITY:
        found, least = (".".join(map(str, version)) for version in (capability, TENSOR_CAPABILITY))
        raise ValueError(f"{named} needs compute capability {least} or later, the GPU has {found}")
    if convolution == "auto":
        return "patches" if precision == "float32" or capability < TENSOR_CAPABILITY else "tensor"
    if convolution == "tensor":
        return convolution
    if precision == "tf32":
        raise ValueError(f"dtype 'tf32' is for convolution 'auto' or 'tensor', not for {convolution!r}")
    return "patches"


def choose_device(device: str, dtype: str = "float32") -> str:
    """Return the device that ``device`` stands for; raises ValueError if it is unavailable."""
    if device not in DEVICES:
        raise ValueError(unknown_name("device", device, DEVICES))
    if dtype not in DTYPES and device == "cpu":
        raise ValueError(f"dtype {dtype!r} needs a GPU, on 'cpu' choose one of {', '.join(DTYPES)}")
    if device == "cpu" or (device == "auto" and dtype not in CUDA_DTYPES):
        return "cpu"
    if dtype not in CUDA_DTYPES:
        raise ValueError(f"dtype {dtype!r} is for the CPU, on 'cuda' choose one of {', '.join(CUDA_DTYPES)}")
    reason = opening.unavailable()
    if reason is not None and (device == "cuda" or dtype not in DTYPES):
        needed = "device 'cuda'" if device == "cuda" else f"dtype {dtype!r} needs a GPU, which"
        raise ValueError(f"{needed} is not available: {reason}")
    return "cpu" if reason else "cuda"
