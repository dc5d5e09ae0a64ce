"""Published formulas: every form of the paper's equations that people copy, and the losses that they are given for.

Letters are the paper's (``engine/losses.py``), on matrices in its shapes: F, P (N x M), A (N x N), ' for a transpose.
F is the variable and has elements of both signs, as before a ReLU; F+ is max(F, 0), as behind it. What each of them is
in truth ``tools.check_gradients.audit`` finds out; none of it is written down here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine import losses
from engine.ops import Array
from engine.sliced import directions
from engine.statistics import Moments, Target, covariance_loss_gradient
from kernels import Cpu

IMAGE_CHANNELS, IMAGE_POSITIONS = 3, 17
"""C_0 and M_0, an image's channels and positions, which some programs divide by."""

WEIGHT = 0.37
"""s, the weight of a term."""

_CLAMP = 0.8


@dataclass(frozen=True, eq=False)
class Layer:
    """Matrices to try a formula on, float64 (F also complex128).

    Parameters
    ----------
    F : (N, M), responses to the generated image, of both signs.
    P : (N, M), those to the photograph, behind a ReLU.
    painting : (N, M), those to the painting, behind a ReLU.
    W : (K, N), what makes the next layer's responses relu(W F) of them.
    P_next : (K, M), the photograph's there, behind a ReLU.
    """

    F: Array
    P: Array
    painting: Array
    W: Array
    P_next: Array

    @property
    def A(self) -> Array:
        """The painting's Gram matrix, (N, N)."""
        return _gram(self.painting)

    @property
    def N(self) -> int:
        """Number of feature maps."""
        return len(self.F)

    @property
    def M(self) -> int:
        """Their size."""
        return int(self.F.shape[1])


def random_layer(N: int, M: int, random: np.random.Generator) -> Layer:
    """Return matrices to try formulas on; see ``Layer``."""
    F, P, painting = random.standard_normal((3, N, M))
    W, above = random.standard_normal((N + 1, N)), random.standard_normal((N + 1, M))
    return Layer(F, _plus(P), _plus(painting), W, _plus(above))


Loss = Callable[[Layer], Any]


@dataclass(frozen=True)
class Formula:
    """A formula as it stands somewhere.

    Parameters
    ----------
    name : what it is called here.
    source : where it is from.
    claim : the formula.
    loss : what it is given for, a name in ``LOSSES``.
    evaluate : the formula itself; branches by the real part and transposes plainly, so that it can be differentiated.
    is_gradient : whether it is given for the loss's derivative, else for its value.
    """

    name: str
    source: str
    claim: str
    loss: str
    evaluate: Loss
    is_gradient: bool = True


# ---- the losses that formulas are given for, or turn out to belong to ----


def _plus(F: Array) -> Array:
    return np.where(F.real > 0, F, 0)


def _clamped(F: Array) -> Array:
    return np.where(abs(F.real) < _CLAMP, F, np.sign(F.real) * _CLAMP)


def _gram(F: Array) -> Array:
    return np.einsum("ik,jk->ij", F, F)


def _difference(layer: Layer) -> Array:
    """Return G - A."""
    return _gram(layer.F) - layer.A


def _content(layer: Layer) -> Any:
    return ((layer.F - layer.P) ** 2).sum() / 2


def _content_above(layer: Layer) -> Any:
    return ((_plus(layer.W @ layer.F) - layer.P_next) ** 2).sum() / 2


def _style(layer: Layer) -> Any:
    return (_difference(layer) ** 2).sum() / (4 * layer.N**2 * layer.M**2)


def _behind_relu(layer: Layer) -> Layer:
    return replace(layer, F=_plus(layer.F))


def _variation(layer: Layer) -> Any:
    """Return half of the squared steps from each position to the next: the smoothness term, in one dimension."""
    return (np.diff(layer.F) ** 2).sum() / 2


def _positions(layer: Layer) -> Any:
    """Return the sum of the squared differences of the M x M matrices F'F."""
    return ((layer.F.T @ layer.F - layer.painting.T @ layer.painting) ** 2).sum()


def _centered(F: Array) -> Array:
    return F - F.mean(axis=1, keepdims=True)


def _covariance(F: Array) -> Array:
    return _gram(_centered(F)) / F.shape[1]


def _deviations(F: Array) -> Array:
    return np.sqrt((_centered(F) ** 2).mean(axis=1))


def _means_loss(layer: Layer) -> Any:
    means = layer.F.mean(axis=1) - layer.painting.mean(axis=1)
    return (means**2 + (_deviations(layer.F) - _deviations(layer.painting)) ** 2).sum() / layer.N


def _covariance_loss(layer: Layer) -> Any:
    return ((_covariance(layer.F) - _covariance(layer.painting)) ** 2).sum() / (4 * layer.N**2)


def _covariance_gradient(layer: Layer, F: Array) -> Array:
    """Return (C - C_S) F / (M N^2) of the F that is given."""
    return (_covariance(layer.F) - _covariance(layer.painting)) @ F / (layer.M * layer.N**2)


def _own_moments(layer: Layer, gradient: Any) -> Array:
    """Return the derivative with respect to F that the program makes of those with respect to the moments."""
    own, target = (Moments(F.mean(axis=1), _gram(F) / F.shape[1]) for F in (layer.F, layer.painting))
    of_mean, of_square = gradient(own, Target(target))
    return (2 * of_square @ layer.F + of_mean[:, None]) / layer.M


def _away(values: Array, others: Array) -> Array:
    """Return how far each value is from the other in its place, both in ascending order."""
    order, away = np.argsort(values.real), np.empty_like(values)
    away[order] = values[order] - np.sort(others)
    return away


def _matched(F: Array, others: Array) -> Array:
    """Return F - R(F), R giving each row the distribution of the other's."""
    return np.array([_away(*rows) for rows in zip(F, others, strict=True)])


def _sliced_loss(layer: Layer) -> Any:
    V = directions(layer.N)
    return (_matched(V @ layer.F, V @ layer.painting) ** 2).sum() / (layer.N * layer.M)


def _own_sliced(layer: Layer) -> Array:
    V = directions(layer.N)
    quantiles = _CPU.quantiles(_own_layout(V @ layer.painting), layer.M)
    _, residual = _CPU.transport_residual(_own_layout(V @ layer.F), [(1.0, quantiles)])
    return 2 / (layer.N * layer.M) * V @ residual[0].T


CONTENT = "L_content = 1/2 sum (F - P)^2"
CONTENT_BEHIND_RELU = "1/2 sum (F+ - P)^2"
CONTENT_OF_ALL = "sum_l 1/2 sum (F^l - P^l)^2"
STYLE = "E_l = 1/(4 N^2 M^2) sum (F F' - A)^2"
STYLE_BEHIND_RELU = "1/(4 N^2 M^2) sum (F+ F+' - A)^2"
SQUARES = "sum (F F' - A)^2"
TRIANGLE = "sum_{i<=j} (F F' - A)_ij^2"
COLUMNS = "sum_j (sum_i (F F' - A)_ij)^2"
WEIGHTED = "s E_l"
VARIATION = "E_l + s TV"
CLAMPED = "E_l of clamp(F)"
POSITIONS = "sum (F'F - S'S)^2 of M x M matrices"
GRAM = "G = F F'"
MEANS = "1/N sum (mu - mu_S)^2 + (sigma - sigma_S)^2"
COVARIANCE = "1/(4 N^2) sum (C - C_S)^2"
HISTOGRAM = "1/(N M) sum (sorted rows of F - those of S)^2"
SLICED = "1/(N M) sum (sorted rows of V F - those of V S)^2"

LOSSES: dict[str, Loss] = {
    CONTENT: _content,
    CONTENT_BEHIND_RELU: lambda layer: _content(_behind_relu(layer)),
    CONTENT_OF_ALL: lambda layer: _content(layer) + _content_above(layer),
    STYLE: _style,
    STYLE_BEHIND_RELU: lambda layer: _style(_behind_relu(layer)),
    SQUARES: lambda layer: (_difference(layer) ** 2).sum(),
    TRIANGLE: lambda layer: (np.triu(_difference(layer)) ** 2).sum(),
    COLUMNS: lambda layer: (_difference(layer).sum(axis=0) ** 2).sum(),
    WEIGHTED: lambda layer: WEIGHT * _style(layer),
    VARIATION: lambda layer: _style(layer) + WEIGHT * _variation(layer),
    CLAMPED: lambda layer: _style(replace(layer, F=_clamped(layer.F))),
    POSITIONS: _positions,
    GRAM: lambda layer: _gram(layer.F),
    MEANS: _means_loss,
    COVARIANCE: _covariance_loss,
    HISTOGRAM: lambda layer: (_matched(layer.F, layer.painting) ** 2).sum() / (layer.N * layer.M),
    SLICED: _sliced_loss,
}
"""Definitions by name. S are the painting's responses, s is a weight; ``GRAM`` is a matrix, compared as values are."""


# ---- the formulas ----


def _masked(gradient: Array, F: Array) -> Array:
    return np.where(F.real > 0, gradient, 0)


def _equation_6(layer: Layer) -> Array:
    """Return (G - A) F / (N^2 M^2)."""
    return _difference(layer) @ layer.F / (layer.N**2 * layer.M**2)


def _equation_6_behind_relu(layer: Layer) -> Array:
    return _masked(_equation_6(_behind_relu(layer)), layer.F)


_CPU = Cpu(1)


def _own_layout(F: Array) -> Array:
    """Return (N, M) as the program keeps it, (1, M, N)."""
    return np.ascontiguousarray(F.T)[np.newaxis]


def _own_content(layer: Layer) -> Array:
    F = _CPU.relu(_own_layout(layer.F))
    return _CPU.relu_input_gradient(losses.content_loss_gradient(_CPU, F, _own_layout(layer.P)), F)[0].T


def _own_style(layer: Layer) -> Array:
    F = _CPU.relu(_own_layout(layer.F))
    plain = losses.style_layer_loss_gradient(_CPU, F, losses.gram_matrix(_CPU, F), layer.A)
    return _CPU.relu_input_gradient(plain, F)[0].T


def _by_sum_of_magnitudes(gradient: Array) -> Array:
    return gradient / np.where(gradient.real > 0, gradient, -gradient).sum()


def _variation_gradient(layer: Layer) -> Array:
    steps = np.diff(layer.F)
    gradient = np.zeros_like(layer.F)
    gradient[:, 1:] += steps
    gradient[:, :-1] -= steps
    return gradient


def _doubled_diagonal(layer: Layer) -> Array:
    of_gram = 2 * _difference(layer)
    return (of_gram + np.diag(np.diag(of_gram))) @ layer.F


def _from_above(layer: Layer) -> Array:
    """Return what the next layer's content loss sends down."""
    responses = layer.W @ layer.F
    return layer.W.T @ _masked(_plus(responses) - layer.P_next, responses)


PAPER = "Gatys, Ecker and Bethge 2015 (arXiv:1508.06576)"
LECTURE = "a lecture on style transfer"
KERAS = "keras-team/keras, neural style example; titu1994/Neural-Style-Transfer"
MEAN_OF_SQUARES = "jcjohnson/neural-style, pytorch/tutorials, anishathalye/neural-style"

FORMULAS: tuple[Formula, ...] = (
    # Equation 2.
    Formula(
        "equation 2, of the loss behind the ReLU",
        PAPER,
        "dL/dF = F - P where F > 0, 0 where F < 0",
        CONTENT_BEHIND_RELU,
        lambda layer: _masked(layer.F - layer.P, layer.F),
    ),
    Formula(
        "equation 2, of equation 1 as printed",
        PAPER,
        "dL/dF = F - P where F > 0, 0 where F < 0",
        CONTENT,
        lambda layer: _masked(layer.F - layer.P, layer.F),
    ),
    Formula("equation 2 without its mask", PAPER, "dL/dF = F - P", CONTENT, lambda layer: layer.F - layer.P),
    Formula(
        "the plain derivative behind the ReLU's own",
        "engine/losses.py with kernels/cpu/relu.py",
        "dL/dF = relu'(F) (F+ - P)",
        CONTENT_BEHIND_RELU,
        _own_content,
    ),
    # Equation 6.
    Formula(
        "equation 6, of the loss behind the ReLU",
        PAPER,
        "dE/dF_ij = 1/(N^2 M^2) ((F+)' (G - A))_ji where F > 0, 0 where F < 0, G = F+ F+'",
        STYLE_BEHIND_RELU,
        _equation_6_behind_relu,
    ),
    Formula(
        "equation 6, of equation 4 as printed",
        PAPER,
        "dE/dF_ij = 1/(N^2 M^2) (F' (G - A))_ji where F > 0, 0 where F < 0, G = F F'",
        STYLE,
        lambda layer: _masked(_equation_6(layer), layer.F),
    ),
    Formula(
        "equation 6 without its mask",
        PAPER,
        "dE/dF_ij = 1/(N^2 M^2) (F' (G - A))_ji",
        STYLE,
        lambda layer: (layer.F.T @ _difference(layer)).T / (layer.N**2 * layer.M**2),
    ),
    Formula(
        "equation 6 with its indices in the other order",
        PAPER + ", miscopied",
        "dE/dF_ij = 1/(N^2 M^2) (F' (G - A))_ij",
        STYLE,
        lambda layer: layer.F.T @ _difference(layer) / (layer.N**2 * layer.M**2),
    ),
    Formula(
        "the plain style derivative behind the ReLU's own",
        "engine/losses.py with kernels/cpu/relu.py",
        "dE/dF = relu'(F) (G - A) F+ / (N^2 M^2)",
        STYLE_BEHIND_RELU,
        _own_style,
    ),
    Formula(
        "the authors' texture code",
        "leongatys/DeepTextures, LossFunctions.py",
        "dE/dF = (F' (G/M - A/M))' / (M N^2)",
        STYLE,
        lambda layer: (layer.F.T @ (_difference(layer) / layer.M)).T / (layer.M * layer.N**2),
    ),
    # A lecture's forms.
    Formula(
        "4 (G - A) F for the paper's E_l",
        LECTURE,
        "dE/dF = 4 (G - A) F",
        STYLE,
        lambda layer: 4 * _difference(layer) @ layer.F,
    ),
    Formula(
        "4 (G - A) F for the plain sum",
        LECTURE,
        "dE/dF = 4 (G - A) F",
        SQUARES,
        lambda layer: 4 * _difference(layer) @ layer.F,
    ),
    Formula(
        "E_l as a row times a matrix",
        LECTURE,
        "E = 1' (G - A) (G - A)'",
        SQUARES,
        lambda layer: np.ones(layer.N) @ _difference(layer) @ _difference(layer).T,
        is_gradient=False,
    ),
    Formula(
        "E_l as a row times a matrix, closed by a column",
        LECTURE,
        "E = 1' (G - A) (G - A)' 1",
        SQUARES,
        lambda layer: np.ones(layer.N) @ _difference(layer) @ _difference(layer).T @ np.ones(layer.N),
        is_gradient=False,
    ),
    Formula(
        "the sum of squares as a trace",
        "what the lecture's form should be",
        "E = tr (G - A) (G - A)'",
        SQUARES,
        lambda layer: np.trace(_difference(layer) @ _difference(layer).T),
        is_gradient=False,
    ),
    Formula(
        "M_l taken as N_l x M_l",
        LECTURE,
        "E = 1/(4 N^2 (N M)^2) sum (G - A)^2",
        STYLE,
        lambda layer: (_difference(layer) ** 2).sum() / (4 * layer.N**2 * (layer.N * layer.M) ** 2),
        is_gradient=False,
    ),
    Formula(
        "a content loss summed over all layers",
        LECTURE,
        "L_content = sum_l 1/2 sum (F^l - P^l)^2",
        CONTENT,
        lambda layer: _content(layer) + _content_above(layer),
        is_gradient=False,
    ),
    Formula(
        "its derivative taken layer by layer",
        LECTURE,
        "dL/dF^l = F^l - P^l",
        CONTENT_OF_ALL,
        lambda layer: layer.F - layer.P,
    ),
    Formula(
        "its derivative with what flows down",
        "engine/network.py, the backward pass",
        "dL/dF^l = F^l - P^l + W' relu'(F^(l+1)) (F^(l+1) - P^(l+1))",
        CONTENT_OF_ALL,
        lambda layer: layer.F - layer.P + _from_above(layer),
    ),
    Formula(
        "G = F'F with F as N x M",
        LECTURE,
        "G = F'F",
        GRAM,
        lambda layer: layer.F.T @ layer.F,
        is_gradient=False,
    ),
    Formula(
        "G = F'F with F stored as M x N",
        "channels-last programs",
        "G = F'F, F transposed",
        GRAM,
        lambda layer: np.ascontiguousarray(layer.F.T).T @ np.ascontiguousarray(layer.F.T),
        is_gradient=False,
    ),
    Formula(
        "the sum of squares with G = F'F",
        LECTURE,
        "E = sum (F'F - S'S)^2",
        SQUARES,
        _positions,
        is_gradient=False,
    ),
    # Other normalizations: the loss is another multiple of E_l, which shifts what a weight means.
    Formula(
        "G / (C H W), mean of squares",
        MEAN_OF_SQUARES,
        "E = 1/N^2 sum (G/(N M) - A/(N M))^2",
        STYLE,
        lambda layer: ((_difference(layer) / (layer.N * layer.M)) ** 2).mean(),
        is_gradient=False,
    ),
    Formula(
        "G / (C H W), squared Frobenius norm",
        "Johnson, Alahi and Fei-Fei 2016 (arXiv:1603.08155)",
        "E = ||G/(N M) - A/(N M)||_F^2",
        STYLE,
        lambda layer: ((_difference(layer) / (layer.N * layer.M)) ** 2).sum(),
        is_gradient=False,
    ),
    Formula(
        "G / (H W), mean of squares",
        "leongatys/PytorchNeuralStyleTransfer",
        "E = 1/N^2 sum (G/M - A/M)^2",
        STYLE,
        lambda layer: ((_difference(layer) / layer.M) ** 2).mean(),
        is_gradient=False,
    ),
    Formula(
        "G as it is, mean of squares",
        "mse_loss on plain Gram matrices",
        "E = 1/N^2 sum (G - A)^2",
        STYLE,
        lambda layer: (_difference(layer) ** 2).mean(),
        is_gradient=False,
    ),
    Formula(
        "the image's channels and size in place of the layer's",
        KERAS,
        "E = 1/(4 C_0^2 M_0^2) sum (G - A)^2",
        STYLE,
        lambda layer: (_difference(layer) ** 2).sum() / (4 * IMAGE_CHANNELS**2 * IMAGE_POSITIONS**2),
        is_gradient=False,
    ),
    Formula(
        "content as a mean of squares",
        MEAN_OF_SQUARES,
        "L_content = 1/(N M) sum (F - P)^2",
        CONTENT,
        lambda layer: ((layer.F - layer.P) ** 2).mean(),
        is_gradient=False,
    ),
    Formula(
        "content without the 1/2",
        KERAS,
        "L_content = sum (F - P)^2",
        CONTENT,
        lambda layer: ((layer.F - layer.P) ** 2).sum(),
        is_gradient=False,
    ),
    # Gradients that programs hand to the optimizer beside a value that they do not belong to.
    Formula(
        "smoothness in the gradient but not in the loss",
        "jcjohnson/neural-style (#219), andersbll/neural_artistic_style, apache/mxnet example",
        "value E_l, gradient dE/dF + s dTV/dF",
        STYLE,
        lambda layer: _equation_6(layer) + WEIGHT * _variation_gradient(layer),
    ),
    Formula(
        "gradient divided by the sum of its magnitudes, loss as it is",
        "jcjohnson/neural-style -normalize_gradients, crowsonkb/style_transfer, andersbll/neural_artistic_style",
        "value E_l, gradient (dE/dF) / ||dE/dF||_1",
        STYLE,
        lambda layer: _by_sum_of_magnitudes(_equation_6(layer)),
    ),
    Formula(
        "gradient of the scalar loss normalized",
        "ProGamerGov/neural-style-pt -normalize_gradients",
        "value s E_l, gradient s^2 dE/dF",
        WEIGHTED,
        lambda layer: WEIGHT**2 * _equation_6(layer),
    ),
    Formula(
        "clamping behind the optimizer's back",
        "pytorch/tutorials (#143)",
        "value and gradient of E_l at clamp(F), both reported for F",
        CLAMPED,
        lambda layer: _equation_6(replace(layer, F=_clamped(layer.F))),
    ),
    Formula(
        "Gram backward with the diagonal doubled",
        "happynear/caffe-windows (#178)",
        "dL/dF = (dL/dG, its diagonal twice) F",
        SQUARES,
        _doubled_diagonal,
    ),
    # Other statistics.
    Formula(
        "means and deviations",
        "Li, Wang, Liu and Hou 2017 (arXiv:1701.01036), differentiated",
        "dL/dF = 2/(N M) ((mu - mu_S) + (sigma - sigma_S)/sigma (F - mu))",
        MEANS,
        lambda layer: (
            2
            / (layer.N * layer.M)
            * (
                (layer.F - _centered(layer.F)).mean(axis=1, keepdims=True)
                - layer.painting.mean(axis=1, keepdims=True)
                + (1 - _deviations(layer.painting) / _deviations(layer.F))[:, None] * _centered(layer.F)
            )
        ),
    ),
    Formula(
        "the Gram matrix of centered features",
        "ProGamerGov/neural-style-pt (#11)",
        "dL/dF = 1/(M N^2) (C - C_S) (F - mu)",
        COVARIANCE,
        lambda layer: _covariance_gradient(layer, _centered(layer.F)),
    ),
    Formula(
        "the Gram matrix of centered features, by its moments",
        "engine/statistics.py",
        "dL/dF = 1/M (2 dL/dQ F + dL/dmu), dL/dQ = (C - C_S)/(2 N^2), dL/dmu = -2 dL/dQ mu",
        COVARIANCE,
        lambda layer: _own_moments(layer, covariance_loss_gradient),
    ),
    Formula(
        "the Gram matrix of centered features, the mean held constant",
        "equation 6 with C in place of G",
        "dL/dF = 1/(M N^2) (C - C_S) F",
        COVARIANCE,
        lambda layer: _covariance_gradient(layer, layer.F),
    ),
    Formula(
        "histograms, what they are matched to held constant",
        "Risser, Wilmot and Barnes 2017 (arXiv:1701.08893)",
        "dL/dF = 2/(N M) (F - R(F)), R(F) matched to the painting's histograms",
        HISTOGRAM,
        lambda layer: 2 / (layer.N * layer.M) * _matched(layer.F, layer.painting),
    ),
    Formula(
        "the sliced Wasserstein distance",
        "engine/sliced.py",
        "dL/dF = 2/(N M) V' residual, each position's from what it is transported to",
        SLICED,
        _own_sliced,
    ),
)
"""What is audited, in the order of the report."""
