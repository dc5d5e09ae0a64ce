"""Learning a small network from a large one: part by part, first in closed form, then by gradients of the weights.

What style transfer sees of a layer are products of its positions: with activations f, the distance of two pictures'
Gram matrices is made of ``(f(p) . f(q))^2`` over pairs of positions, and the content loss of ``f(p) . f(q)``. So the
small network's activations F need not be the large one's, T; their products have to agree, ``F F^T`` with ``T T^T``.

The network is cut behind the layers that are looked at. Each part learns on what the parts before it, already learnt,
make of the pictures: so it is small, and errors do not pile up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from kernels.cpu.threads import Threads
from tools.draft.chain import Array, Chain, Layer, convolve, features, patches, pool, weight_gradients

Double = NDArray[np.float64]

WIDTHS = (16, 32, 64, 128, 128)
"""Channels of each block: a quarter of VGG-19's."""


@dataclass(frozen=True)
class Part:
    """Neighboring layers that learn together.

    Parameters
    ----------
    layers : their names.
    judged : those whose products have to agree with the teacher's; the last is one of them.
    batch : crops that a step looks at: the deeper the layer, the fewer positions a crop has.
    steps : how many.
    rate : of Adam, in units of the weights' root mean square.
    """

    layers: tuple[str, ...]
    judged: tuple[str, ...]
    batch: int
    steps: int
    rate: float


PARTS = (
    Part(("conv1_1",), ("conv1_1",), 4, 300, 0.01),
    Part(("conv1_2", "conv2_1"), ("conv2_1",), 4, 400, 0.005),
    Part(("conv2_2", "conv3_1"), ("conv3_1",), 6, 400, 0.003),
    Part(("conv3_2", "conv3_3", "conv3_4", "conv4_1", "conv4_2"), ("conv4_1", "conv4_2"), 12, 300, 0.002),
    Part(("conv4_3", "conv4_4", "conv5_1"), ("conv5_1",), 16, 200, 0.002),
)

FIRST = 0.2
"""The share of the steps that makes a network good enough to make pictures for practice."""

POSITIONS = 30_000
"""Positions that a layer's least squares are of."""

ROUNDS = 6
"""How often the least squares are repeated, counting only what a ReLU shows."""

RIDGE = 1e-6
"""Added to the least squares' normal equations, in units of their mean diagonal."""

HELD_BACK = 16
"""One crop in so many is not learnt from: on these the agreement is told."""


def parts_of(share: float) -> tuple[Part, ...]:
    """Return the parts with this share of the steps."""
    return tuple(replace(part, steps=max(1, int(part.steps * share))) for part in PARTS)


Lesson = tuple[Array, dict[str, Array]]
"""A part's input for a crop, and the teacher's T in the judged layers, (positions, channels)."""


@dataclass(frozen=True, eq=False)
class Learnt:
    """What came of it.

    Parameters
    ----------
    student : in the judged layers a position's mean square over the crops is the number of channels.
    sizes : by judged layer, what T was divided by for that.
    errors : by judged layer, ``|F F^T - T T^T|^2 / |T T^T|^2`` over the crops held back: before the steps and after.
    """

    student: Chain
    sizes: dict[str, float]
    errors: dict[str, tuple[float, float]]


def learn(
    teacher: Chain,
    images: Sequence[Array],
    threads: Threads,
    tell: Callable[[str], None] = lambda line: None,
    widths: Sequence[int] = WIDTHS,
    parts: Sequence[Part] = PARTS,
    seed: int = 0,
) -> Learnt:
    """Return a student of the teacher, learnt from images as the network takes them, (H, W, 3), float32.

    Raises ValueError for a teacher that lacks one of the layers.
    """
    of_teacher, of_student = list(images), list(images)
    by_name = {layer.name: layer for layer in teacher}
    missing = [name for part in parts for name in part.layers if name not in by_name]
    if missing:
        raise ValueError(f"the teacher has no {', '.join(missing)}: give a VGG-19")
    student: Chain = []
    sizes: dict[str, float] = {}
    errors: dict[str, tuple[float, float]] = {}
    for part in parts:
        chain: Chain = []
        begun = list(of_student)
        lessons: list[Lesson] = [(x, {}) for x in begun]
        for name in part.layers:
            layer = by_name[name]
            wanted = threads.map(functools.partial(convolve, layer), of_teacher)
            width = min(widths[int(name[4]) - 1], layer.weight.shape[3])
            fitted = _fitted(layer, wanted, of_student, width, threads)
            of_student = threads.map(functools.partial(_activations, fitted), of_student)
            chain.append(fitted)
            of_teacher = threads.map(_rectified, wanted)
            if name in part.judged:
                rows = [F.reshape(-1, F.shape[2]) for F in of_teacher]
                energy = sum(threads.map(_energy, rows))
                sizes[name] = float(np.sqrt(energy / (width * sum(map(len, rows)))))
                for lesson, F in zip(lessons, rows, strict=True):
                    lesson[1][name] = F / np.float32(sizes[name])
        held, taught = lessons[::HELD_BACK], [one for index, one in enumerate(lessons) if index % HELD_BACK]
        before = agreement(chain, held, threads)
        refine(chain, taught, threads, part, seed)
        after = agreement(chain, held, threads)
        for name in part.judged:
            errors[name] = (before[name], after[name])
            tell(f"{name}: {100 * before[name]:.2f} %, after {part.steps} steps {100 * after[name]:.2f} %")
        student += chain
        of_student = [values[-1] for values in threads.map(functools.partial(features, chain), begun)]
    return Learnt(student, sizes, errors)


def _rectified(z: Array) -> Array:
    return np.maximum(z, np.float32(0))


def _activations(layer: Layer, x: Array) -> Array:
    return _rectified(convolve(layer, x))


# ---- in closed form ----


def _fitted(layer: Layer, wanted: Sequence[Array], inputs: Sequence[Array], width: int, threads: Threads) -> Layer:
    """Return a layer of ``width`` of the teacher's channels, each as large as what it stands for.

    Parameters
    ----------
    layer : the teacher's.
    wanted : what stands before its ReLU, by crop.
    inputs : what the student has in place of its input.
    """
    channels = layer.weight.shape[3]
    rows = [z.reshape(-1, channels) for z in wanted]
    gram = np.zeros((channels, channels))
    for product in threads.map(lambda z: (F := _rectified(z)).T @ F, rows):
        gram += product
    positions = sum(map(len, rows))
    chosen = pivots(gram, width)
    ridge = 1e-9 * gram.trace() / channels * np.eye(width)
    share = np.linalg.solve(gram[np.ix_(chosen, chosen)] + ridge, gram[chosen])
    scale = np.sqrt((share**2).sum(axis=1))
    scale *= np.sqrt(width * positions / (scale**2 * gram.diagonal()[chosen]).sum())
    step = max(1, positions // POSITIONS)
    pooled = [pool(x) if layer.pooled else x for x in inputs]
    X = np.concatenate(threads.map(lambda x: patches(x)[step // 2 :: step], pooled)).astype(np.float64)
    X = np.concatenate([X, np.ones((len(X), 1))], axis=1)
    R = np.concatenate([z[step // 2 :: step, chosen] for z in rows]) * scale
    solution = rectified_least_squares(X, R).astype(np.float32)
    weight = solution[:-1].reshape(3, 3, -1, width)
    return Layer(layer.name, weight, solution[-1].copy(), layer.pooled)


def pivots(gram: Double, count: int) -> NDArray[np.intp]:
    """Return the channels whose activations span the others' best: the pivots of a QR of the activations.

    They are found from the Gram matrix, (N, N): the next is the one with most energy left.
    """
    left, free = gram.copy(), np.ones(len(gram), bool)
    chosen = np.empty(count, np.intp)
    for index in range(count):
        best = int(np.argmax(np.where(free, left.diagonal(), -np.inf)))
        chosen[index], free[best] = best, False
        if left[best, best] > 0:
            left -= np.outer(left[:, best], left[best]) / left[best, best]
    return chosen


def rectified_least_squares(X: Double, R: Double) -> Double:
    """Return the weights, (columns of X, columns of R), whose ``max(X w, 0)`` is nearest to ``max(R, 0)``.

    Least squares, again and again: where both are below 0 the ReLU hides how far, and there is nothing to mend.
    """
    normal = X.T @ X
    normal += RIDGE * normal.trace() / len(normal) * np.eye(len(normal))
    factor = cho_factor(normal)
    target = R
    for _ in range(ROUNDS):
        solution: Double = cho_solve(factor, X.T @ target)
        Y = X @ solution
        target = np.where((R <= 0) & (Y <= 0), Y, R)
    return solution


# ---- by gradients ----


def agreement(chain: Chain, lessons: Sequence[Lesson], threads: Threads) -> dict[str, float]:
    """Return how far the judged layers' products are from the teacher's: ``|F F^T - T T^T|^2 / |T T^T|^2``.

    It is over all pairs of positions, and made of small matrices: ``|F T^T|^2`` is the product of F^T F and T^T T.
    """
    values = threads.map(lambda lesson: features(chain, lesson[0]), lessons)
    result = {}
    for place, name in _judged(chain, lessons[0]):
        pairs = _pairs(place, name, values, lessons)
        own, cross, whole = (
            _summed(threads.map(functools.partial(_product, *sides), pairs)) for sides in ((0, 0), (1, 0), (1, 1))
        )
        result[name] = float((own**2).sum() - 2 * (cross**2).sum()) / float((whole**2).sum()) + 1
    return result


def gradients_of(chain: Chain, batch: Sequence[Lesson], threads: Threads) -> list[Array]:
    """Return the gradient of the sum of ``|F F^T - T T^T|^2 / |T|^4`` over the judged layers in weights and biases.

    The derivative with respect to F is ``4 (F F^T - T T^T) F``, which is made of small matrices too.
    """
    values = threads.map(lambda lesson: features(chain, lesson[0]), batch)
    at: list[dict[int, Array]] = [{} for _ in batch]
    for place, name in _judged(chain, batch[0]):
        pairs = _pairs(place, name, values, batch)
        own, cross = (_summed(threads.map(functools.partial(_product, *sides), pairs)) for sides in ((0, 0), (1, 0)))
        factor = 4 / sum(threads.map(lambda pair: _energy(pair[1]), pairs)) ** 2
        A, B = ((factor * matrix).astype(np.float32) for matrix in (own, cross))
        derivatives = threads.map(functools.partial(_derivative, A, B), pairs)
        for there, value, derivative in zip(at, values, derivatives, strict=True):
            there[place] = derivative.reshape(value[place].shape)
    of_crops = threads.map(lambda pair: weight_gradients(chain, *pair), list(zip(values, at, strict=True)))
    return [_summed(arrays).astype(np.float32) for arrays in zip(*of_crops, strict=True)]


def _judged(chain: Chain, lesson: Lesson) -> list[tuple[int, str]]:
    return [(place, layer.name) for place, layer in enumerate(chain, 1) if layer.name in lesson[1]]


def _pairs(
    place: int, name: str, values: Sequence[list[Array]], lessons: Sequence[Lesson]
) -> list[tuple[Array, Array]]:
    """Return F and T of each crop at a layer, (positions, channels)."""
    F = [value[place].reshape(-1, value[place].shape[2]) for value in values]
    return list(zip(F, [lesson[1][name] for lesson in lessons], strict=True))


def _product(first: int, second: int, pair: tuple[Array, Array]) -> Array:
    return pair[first].T @ pair[second]


def _energy(F: Array) -> float:
    return float(np.einsum("ij,ij->", F, F, dtype=np.float64))


def _derivative(A: Array, B: Array, pair: tuple[Array, Array]) -> Array:
    F, of_teacher = pair
    return F @ A - of_teacher @ B


def _summed(arrays: Sequence[Array]) -> Double:
    """Return the sum in double precision, in the order given."""
    total: Double = np.zeros(arrays[0].shape)
    for array in arrays:
        total += array
    return total


def refine(chain: Chain, lessons: Sequence[Lesson], threads: Threads, part: Part, seed: int) -> None:
    """Improve the weights in place by Adam (Kingma and Ba 2014), the rate falling to 0 along half a cosine."""
    random = np.random.default_rng(seed)
    parameters = [array for layer in chain for array in (layer.weight, layer.bias)]
    sizes = [float(np.sqrt(np.mean(layer.weight**2))) for layer in chain for _ in range(2)]
    first, second = ([np.zeros_like(array) for array in parameters] for _ in range(2))
    for step in range(1, part.steps + 1):
        chosen = random.choice(len(lessons), min(part.batch, len(lessons)), replace=False)
        gradients = gradients_of(chain, [lessons[index] for index in chosen], threads)
        rate = part.rate * 0.5 * (1 + np.cos(np.pi * step / part.steps)) * min(1.0, step / 20)
        for array, size, m, v, g in zip(parameters, sizes, first, second, gradients, strict=True):
            m += np.float32(0.1) * (g - m)
            v += np.float32(0.01) * (g * g - v)
            root = np.sqrt(v / np.float32(1 - 0.99**step)) + np.float32(1e-12)
            array -= np.float32(size * rate / (1 - 0.9**step)) * m / root
