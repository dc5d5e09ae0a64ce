"""The whole job on arrays: from a content image and style images to the picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.errors import NonFiniteError, unknown_name
from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.optimize import (
    HISTORIES,
    LEARNING_RATES,
    DifferentiableFunction,
    Iteration,
    Result,
    minimize,
    usual_history,
)
from engine.optimizers import LBFGS, optimizer_of
from engine.optimizers.l_bfgs import LONG_HISTORY, LONG_RUN
from engine.regions import Region
from engine.saved import Saved
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STATISTICS, PAPER_STYLE_LAYERS, Layers, Statistics, layer_names
from engine.statistics import STATISTICS
from engine.tangent import EVERY, TangentLoss, deepest_layer, share_without
from engine.targets import Styles
from engine.terms import Term, Variation
from engine.transparency import split_alpha
from engine.vgg import CONTENT_WEIGHT, RECOMMENDED_SIZE

INITS = ("noise", "content", "style")

VARIATIONS = {"isotropic": 1.0, "squared": None}
"""Epsilon of each form of the total variation, in gray levels."""

REPLAYED_PIXELS = 1 << 20
"""Up to this size launching is expected to take longer than computing on a large GPU; not measured."""


def _by_method(defaults: Mapping[str, float]) -> str:
    """Return in words which optimizer has which default."""
    return ", ".join(f"{value:g} for {method}" for method, value in defaults.items())


@dataclass(frozen=True)
class Settings:
    """What a picture depends on besides its input images and its network; the command line's defaults are these.

    Examples
    --------
    >>> settings = Settings(init="noise", iterations=200)
    >>> settings.optimizer, settings.content_layers
    ('l-bfgs', ('conv4_2',))
    >>> replace(settings, content_weight=1e-3).content_weight
    0.001
    """

    content_layers: Layers = field(
        default=PAPER_CONTENT_LAYERS, metadata={"help": "layers that keep the photograph's content"}
    )
    style_layers: Layers = field(default=PAPER_STYLE_LAYERS, metadata={"help": "layers that take the painting's style"})
    content_weight: float | None = field(
        default=None,
        metadata={
            "help": "weight of the content loss, alpha (default: what suits the model's weights at the picture's size, "
            f"{CONTENT_WEIGHT:g} for the original VGG-19 at {RECOMMENDED_SIZE} pixels)"
        },
    )
    style_weight: float = field(default=1.0, metadata={"help": "weight of the style loss, beta"})
    style_statistics: Statistics = field(
        default=PAPER_STATISTICS,
        metadata={"help": f"what of a layer is the style: {', '.join(STATISTICS)}, each with an optional weight"},
    )
    variation_weight: float = field(
        default=0.0,
        metadata={"help": "weight of the total variation, which takes the grain away: 0.3 some of it, 1 all"},
    )
    variation: str = field(
        default="isotropic",
        metadata={"help": "total variation that is isotropic, which leaves edges, or squared, which softens them too"},
    )
    edges: str = field(
        default="zero",
        metadata={
            "help": "what the network sees beyond the picture's edges: zero as its own padding has it, the picture "
            "mirrored (reflect), its edge repeated, or its other side (wrap)"
        },
    )
    init: str = field(
        default="content", metadata={"help": "picture to begin with: noise, content, style or an image file"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the noise"})
    iterations: int = field(default=60, metadata={"help": "iterations at most, of each size"})
    change_tolerance: float = field(
        default=1.0,
        metadata={
            "help": "stop when ten iterations change the picture by less than this many gray levels, on average; 0 "
            "goes on"
        },
    )
    optimizer: str = field(default="l-bfgs", metadata={"help": "how the loss is minimized"})
    learning_rate: float | None = field(
        default=None, metadata={"help": f"step in gray levels (default {_by_method(LEARNING_RATES)})"}
    )
    deepest_every: int = field(
        default=EVERY,
        metadata={
            "help": "evaluations from one look at the deepest layer to the next; in between its loss is taken for its "
            "tangent, where that is off by little enough"
        },
    )
    history: int | None = field(
        default=None,
        metadata={
            "help": f"corrections that L-BFGS keeps (default {_by_method(HISTORIES)}, "
            f"on the CPU {LONG_HISTORY} in more than {LONG_RUN} iterations)"
        },
    )


AnySettings = TypeVar("AnySettings", bound=Settings)


@dataclass(frozen=True, eq=False)
class Job:
    """A picture about to be made: ``run`` makes it.

    Parameters
    ----------
    objective : the losses on this network and these images.
    initial : the image to begin with, (H, W, 3), float64.
    settings : with the content weight filled in.
    """

    objective: Objective
    initial: NDArray[np.float64]
    settings: Settings

    def run(
        self,
        callback: Callable[[Iteration], bool | None] | None = None,
        *,
        resumable: bool = False,
        state: Mapping[str, NDArray[Any]] | None = None,
    ) -> Result:
        """Minimize the objective; see ``engine.optimize.minimize``."""
        layer = self.tangent_layer
        if layer is None:
            return self._minimized(self.objective, callback, resumable, state)
        saved = None if state is None else Saved(state, self.objective.device)
        loss = TangentLoss(self.objective, layer, self.initial.shape, self.settings.deepest_every, saved)

        def told(now: Iteration) -> bool | None:
            return callback and callback(replace(now, state=lambda: {**now.state(), **loss.state()}))

        result = self._minimized(loss, told, resumable, state)
        if loss.is_exact or result.stop == "interrupted":
            return result
        return replace(result, value=float(self.objective.value(result.image)))

    @property
    def tangent_layer(self) -> str | None:
        """The layer that is looked at every ``deepest_every`` evaluations alone, or None: see ``engine.tangent``."""
        usual = self.settings.optimizer == LBFGS.method and self.settings.deepest_every > 1
        if not usual or self.objective.device.kind != "cpu":
            return None
        return deepest_layer(self.objective, *self.initial.shape[:2])

    @property
    def usual_share(self) -> float:
        """The work of most evaluations of a run, as a share of one of the whole objective."""
        layer = self.tangent_layer
        return 1.0 if layer is None else share_without(self.objective, layer, *self.initial.shape[:2])

    def _minimized(
        self,
        loss: DifferentiableFunction,
        callback: Callable[[Iteration], bool | None] | None,
        resumable: bool,
        state: Mapping[str, NDArray[Any]] | None,
    ) -> Result:
        on_device = optimizer_of(self.settings.optimizer).on_device
        return minimize(
            loss,
            self.objective.network.placed(self.initial) if on_device else self.initial,
            method=self.settings.optimizer,
            iterations=self.settings.iterations,
            history=self.settings.history,
            callback=callback,
            learning_rate=self.settings.learning_rate,
            change_tolerance=self.settings.change_tolerance,
            is_tile=self.settings.edges == "wrap",
            resumable=resumable,
            state=state,
        )


def prepare(
    network: Network,
    content: Array,
    style: Styles | None,
    settings: Settings | None = None,
    initial: Array | None = None,
    *,
    regions: Sequence[Region] = (),
    content_mask: Array | None = None,
    piece: tuple[int | None, int | None] | None = None,
    keep: Sequence[str] | None = None,
    waist: str | None = None,
) -> Job:
    """Set up a picture without beginning it.

    Parameters
    ----------
    network : from ``load_network``.
    content : the content image, (H, W, 3), RGB, 0..255, uint8 or floating.
    style : the style image, or a list of (image, weight), of any size; with an alpha, (H, W, 4), what is transparent
        does not count, see ``engine.transparency``. Or one for each layer, see ``engine.targets.at_scales``.
    settings : by default those of ``Settings``, with the content weight recommended for the network.
    initial : the first image, of the content image's shape; None makes it as ``settings.init`` says ("style" needs
        a style image of the content image's shape).

    regions, content_mask, piece, keep, waist : as for ``Objective``; with regions, the style is None.

    Raises ValueError for settings or images that do not fit.

    Examples
    --------
    >>> from engine import load_network
    >>> network = load_network("tools/models/draft.onnx")
    >>> random = np.random.default_rng(0)
    >>> content, style = random.uniform(0, 255, (32, 40, 3)), random.uniform(0, 255, (24, 24, 3))
    >>> job = prepare(network, content, style, Settings(init="noise", iterations=2))
    >>> job.initial.shape, job.objective.layers[-1]
    ((32, 40, 3), 'conv4_2')
    >>> job.run().iterations
    2
    """
    size = max(np.shape(content)[:2], default=1)
    settings = with_content_weight(settings or Settings(), network, size)
    if initial is None:
        style_image = first_style_image(regions[0].style if style is None and regions else style)
        initial = initial_image(settings.init, np.asarray(content), style_image, settings.seed)
    initial = checked_initial(network, initial, "content image", np.shape(content))
    objective = Objective(
        network,
        content,
        style,
        content_layers=settings.content_layers,
        style_layers=settings.style_layers,
        content_weight=content_weight_of(settings, network, size),
        style_weight=settings.style_weight,
        style_statistics=settings.style_statistics,
        further_terms=variation_terms(settings),
        regions=regions,
        content_mask=content_mask,
        replay=replays(network, *initial.shape[:2]),
        edges=settings.edges,
        piece=piece,
        keep=keep,
        waist=waist,
    )
    return Job(objective, initial, settings)


def variation_terms(settings: Settings) -> list[Term]:
    """Return the settings' total variation as a term, or none; raises ValueError for an unknown form."""
    if settings.variation not in VARIATIONS:
        raise ValueError(unknown_name("variation", settings.variation, VARIATIONS))
    if not settings.variation_weight:
        return []
    epsilon, wrap = VARIATIONS[settings.variation], settings.edges == "wrap"
    return [Variation(settings.variation_weight, epsilon, relative=True, wrap=wrap)]


def content_weight_at(content_weight: float, pixels: float, reference: float = 1.0) -> float:
    """Return the content weight at another number of pixels that leaves the balance of content and style as it is.

    The content loss is a sum over the pixels. The style loss is not, because each Gram matrix is divided by its M_l.
    So the weight grows as the number of pixels falls.

    Parameters
    ----------
    content_weight : as it suits ``reference`` pixels.
    pixels, reference : of the two images, in any unit: only their ratio counts.
    """
    return content_weight * reference / pixels


def content_weight_of(settings: Settings, network: Network, size: int) -> float:
    """Return the settings' content weight, or where none is given the one recommended for the network at this size.

    Parameters
    ----------
    size : long side of the picture in pixels.

    Raises ValueError for a picture without pixels.
    """
    if size < 1:
        raise ValueError(f"a picture has at least 1 pixel a side, got {size}")
    if settings.content_weight is not None:
        return settings.content_weight
    return content_weight_at(network.content_weight, size**2, RECOMMENDED_SIZE**2)


def with_content_weight(settings: AnySettings, network: Network, size: int) -> AnySettings:
    """Return the settings with the content weight filled in, as ``content_weight_of`` has it."""
    return replace(settings, content_weight=content_weight_of(settings, network, size))


def first_evaluation(job: Job) -> float:
    """Return the loss of a job's first image; raise ValueError when it is not finite, or its gradient is zero."""
    try:
        value, gradient = job.objective(job.initial)
    except NonFiniteError as error:
        raise ValueError(f"{error}: choose smaller weights of the losses, or look into the model") from None
    if not gradient.any():
        raise ValueError(
            "nothing to optimize: the gradient at the first image is zero, because no layer responds to it, "
            "the weights are too small, or it fits perfectly already"
        )
    return float(value)


def stylize(
    network: Network,
    content: Array,
    style: Styles,
    settings: Settings | None = None,
    initial: Array | None = None,
    callback: Callable[[Iteration], bool | None] | None = None,
) -> Result:
    """Render a content image in the style of another: ``prepare`` and run.

    The arguments are those of ``prepare`` and, for ``callback``, of ``minimize``.

    Examples
    --------
    >>> from engine import load_network
    >>> network = load_network("tools/models/draft.onnx")
    >>> random = np.random.default_rng(0)
    >>> content, style = random.uniform(0, 255, (32, 40, 3)), random.uniform(0, 255, (24, 24, 3))
    >>> result = stylize(network, content, style, Settings(iterations=2))
    >>> result.image.shape, result.value < result.initial_value
    ((32, 40, 3), True)
    """
    return prepare(network, content, style, settings, initial).run(callback)


def first_style_image(style: Styles | None) -> Array | None:
    """Return the first of the style images, (H, W, 3); None where there is none."""
    first: Any = style
    if isinstance(first, Mapping):
        first = next(iter(first.values()), None)
    if first is not None and not isinstance(first, np.ndarray):
        first = first[0][0] if len(first) else None
    return None if first is None else split_alpha(first)[0]


def initial_image(init: str, content: Array, style: Array | None, seed: int) -> Array:
    """Return the image to begin with: ``"noise"`` (uniform in 0..255), ``"content"`` or ``"style"``."""
    if init == "noise":
        return np.random.default_rng(seed).uniform(0.0, 255.0, content.shape)
    if init == "content":
        return content
    if init == "style":
        if style is None:
            raise ValueError("init 'style' needs a painting, and there is none")
        if style.shape != content.shape:
            raise ValueError(
                f"init 'style' needs a painting of the photograph's shape {content.shape}, got {style.shape}"
            )
        return style
    raise ValueError(unknown_name("init", init, INITS))


def checked_initial(network: Network, initial: Array, other: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a copy in float64 of the image to begin with, (H, W, 3), 0..255.

    Raises ValueError for what is no image, and for another shape than that of ``other``, which the message names.
    """
    initial = np.array(network.checked_image(np.asarray(initial)), np.float64)
    if initial.shape != shape:
        raise ValueError(f"the initial image has the shape {initial.shape}, the {other} {shape}")
    return initial


def memory_beside(network: Network, height: int, width: int, settings: Settings) -> int:
    """Return the bytes that a run holds where the network computes beside its evaluations, estimated.

    Counted are the network's parameters, as far as no evaluation before has made them what the kernels take, the
    losses' targets and the optimizer, unless that has its vectors elsewhere: see ``optimizer_is_elsewhere``.
    """
    content_layers, style_layers = layer_names(settings.content_layers), layer_names(settings.style_layers)
    layers = dict.fromkeys([*content_layers, *style_layers])
    shapes = network.shapes(height, width, layers)
    targets = sum(int(np.prod(shapes[layer])) for layer in content_layers)
    optimizer = _TRANSFERS * height * width * 3 * 8
    if not optimizer_is_elsewhere(network, settings):
        optimizer = optimizer_memory(height, width, settings, network.device.kind)
    return network.weight_bytes_to_come(layers) + targets * network.dtype.itemsize + optimizer


def replays(network: Network, height: int, width: int) -> bool:
    """Say whether a picture of this size is made from recorded launches: a small one on a GPU."""
    return network.device.kind == "cuda" and height * width <= REPLAYED_PIXELS


# What scipy's optimizer has on the GPU: the image, its gradient, and what becomes of them.
_TRANSFERS = 4


def optimizer_is_elsewhere(network: Network, settings: Settings) -> bool:
    """Say whether the optimizer's vectors are not where the network computes: scipy's stay on the CPU."""
    return network.device.kind == "cuda" and not optimizer_of(settings.optimizer).on_device


def optimizer_memory(height: int, width: int, settings: Settings, device: str = "cpu") -> int:
    """Return an estimate of the optimizer's vectors in bytes, on a kind of device."""
    history = settings.history
    if history is None:
        history = usual_history(settings.optimizer, settings.iterations, device)
    vectors = optimizer_of(settings.optimizer, history=history).vectors
    if settings.change_tolerance:
        vectors += 1  # the image ten iterations ago
    return vectors * height * width * 3 * 8


def shares(terms: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return each term's part of the sum of all, which is 1; all zero when the sum is."""
    total = sum(abs(value) for kind in terms.values() for value in kind.values())
    return {
        kind: {layer: abs(value) / total if total else 0.0 for layer, value in values.items()}
        for kind, values in terms.items()
    }
