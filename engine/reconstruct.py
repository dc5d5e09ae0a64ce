"""What a layer knows of a picture: the paper's Figure 1.

Content reconstruction starts from white noise and matches the activations of a content image at a layer ("Methods",
equations 1 and 2); texture synthesis matches the Gram matrices of a style image (equations 3 to 6). Both minimize the
paper's total loss without its other half. The equations themselves are in ``engine.losses``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from engine.losses import gram_matrix
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.selection import Layers
from engine.stylize import Job, Settings, checked_initial, initial_image
from engine.transparency import area_average, split_alpha
from kernels import Cpu

PEAK = 255.0
"""Range of an image's values, for the signal-to-noise ratio."""


def content_reconstruction(
    network: Network,
    content: Array,
    layers: Layers,
    settings: Settings | None = None,
    initial: Array | None = None,
    *,
    piece: tuple[int | None, int | None] | None = None,
    keep: Sequence[str] | None = None,
    waist: str | None = None,
) -> Job:
    """Set up the search for an image that has a content image's activations.

    Parameters
    ----------
    network : from ``load_network``.
    content : the content image, (H, W, 3), RGB, 0..255.
    layers : usually one; several are matched together.
    settings : seed, iterations, optimizer, learning_rate, history and edges count.
    initial : the first image, of the content image's shape; None means uniform noise from the settings' seed.
    piece, keep, waist : as for ``engine.objective.Objective``.

    Raises ValueError for layers or images that do not fit.

    Examples
    --------
    >>> from engine import load_network
    >>> network = load_network("tools/models/draft.onnx")
    >>> content = np.random.default_rng(0).uniform(0, 255, (32, 40, 3))
    >>> job = content_reconstruction(network, content, "conv1_1", Settings(seed=1, iterations=3))
    >>> psnr(job.run().image, content) > psnr(job.initial, content)
    True
    """
    settings = settings or Settings()
    objective = Objective(
        network, content, None, layers, content_weight=1.0, edges=settings.edges, piece=piece, keep=keep, waist=waist
    )
    return _job(objective, content, settings, initial)


def texture_synthesis(
    network: Network,
    style: Array,
    layers: Layers,
    settings: Settings | None = None,
    initial: Array | None = None,
    *,
    piece: tuple[int | None, int | None] | None = None,
    keep: Sequence[str] | None = None,
    waist: str | None = None,
) -> Job:
    """Set up the search for an image that has a style image's size and Gram matrices.

    The arguments are those of ``content_reconstruction``; a layer's weight is 1 / (number of layers) unless given. A
    style with alpha, (H, W, 4), counts where it is seen, see ``engine.transparency``.

    Examples
    --------
    >>> from engine import load_network
    >>> network = load_network("tools/models/draft.onnx")
    >>> style = np.random.default_rng(0).uniform(0, 255, (32, 40, 3))
    >>> result = texture_synthesis(network, style, ["conv1_1", "conv2_1"], Settings(seed=1, iterations=3)).run()
    >>> result.value < result.initial_value
    True
    """
    settings = settings or Settings()
    colors, _ = split_alpha(style)
    objective = Objective(
        network, None, style, style_layers=layers, edges=settings.edges, piece=piece, keep=keep, waist=waist
    )
    return _job(objective, colors, settings, initial)


def psnr(image: Array, reference: Array) -> float:
    """Return the peak signal-to-noise ratio of an image in dB: ``10 log10(255^2 / mean (image - reference)^2)``.

    Both are clipped to 0..255 first, as a file would hold them, but not rounded. Infinite where they agree.

    Parameters
    ----------
    image, reference : (H, W, 3), 0..255, of the same shape; anything else raises ValueError.
    """
    if np.shape(image) != np.shape(reference):
        raise ValueError(f"the image has the shape {np.shape(image)}, the reference {np.shape(reference)}")
    difference = np.clip(np.asarray(image, np.float64), 0, PEAK) - np.clip(np.asarray(reference, np.float64), 0, PEAK)
    error = float(np.square(difference).mean())
    return float(10 * np.log10(PEAK**2 / error)) if error else np.inf


def feature_errors(network: Network, image: Array, reference: Array, layers: Iterable[str]) -> dict[str, float]:
    """Return ``||F - P|| / ||P||`` by layer: how far an image's activations are from a reference's.

    Parameters
    ----------
    image, reference : (H, W, 3), 0..255, of the same shape.
    layers : names of the network's layers; each is computed alone, so only one is held at a time.

    Where the reference's activations are all zero the error is infinite, or 0 if the image's are too.
    """
    errors = {}
    for layer, F, P in _responses(network, image, reference, layers):
        difference = of = 0.0
        for y in range(len(F)):  # row by row: no array of the layer's size is made in double precision
            row = P[y].astype(np.float64)
            difference += float(np.square(F[y] - row).sum())
            of += float(np.square(row).sum())
        errors[layer] = _ratio(difference**0.5, of**0.5)
    return errors


def gram_errors(network: Network, image: Array, reference: Array, layers: Iterable[str]) -> dict[str, float]:
    """Return ``||G / M - A / M_a|| / ||A / M_a||`` by layer: how far an image's Gram matrices are from a reference's.

    The arguments are those of ``feature_errors``; the images need not have the same size, and the reference may have
    an alpha, (H, W, 4).
    """
    errors = {}
    colors, alpha = split_alpha(reference)
    host = network.device if isinstance(network.device, Cpu) else Cpu(1)  # what is compared has been fetched
    for layer, F, P in _responses(network, image, colors, layers):
        m = np.ones(P.shape[:2]) if alpha is None else area_average(alpha, *P.shape[:2])
        with host.computing():
            G = gram_matrix(host, F) / F[..., 0].size
            A = gram_matrix(host, P, m=None if alpha is None else m) / m.sum()
        errors[layer] = _ratio(float(np.linalg.norm(G - A)), float(np.linalg.norm(A)))
    return errors


def _job(objective: Objective, reference: Array, settings: Settings, initial: Array | None) -> Job:
    reference = np.asarray(reference)
    if initial is None:
        initial = initial_image("noise", reference, reference, settings.seed)
    return Job(objective, checked_initial(objective.network, initial, "image to match", reference.shape), settings)


def _responses(
    network: Network, image: Array, reference: Array, layers: Iterable[str]
) -> Iterator[tuple[str, Array, Array]]:
    """Yield each layer's activations for both images, (H_l, W_l, N_l)."""
    for layer in network.checked(layers):
        F, P = (np.moveaxis(network.features(each, layer)[layer], 0, -1) for each in (image, reference))
        yield layer, F, P


def _ratio(length: float, of: float) -> float:
    return length / of if of else np.inf if length else 0.0
