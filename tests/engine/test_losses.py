"""The paper's equations, each against loops over its indices, each gradient against a complex step."""

import numpy as np
import pytest

from engine import losses
from tests.kernels.devices import cpu

STEP = 1e-30
N, HEIGHT, WIDTH = 4, 3, 5
M = HEIGHT * WIDTH


def features(seed, height=HEIGHT, width=WIDTH, channels=N):
    """Return F in memory order (height, width, N_l): row i of the paper's F is ``F[:, :, i]``."""
    return np.random.default_rng(seed).standard_normal((height, width, channels))


def paper(F):
    """Return the paper's F, N_l x M_l."""
    return [[F[y, x, i] for y in range(F.shape[0]) for x in range(F.shape[1])] for i in range(F.shape[2])]


def gram_by_loops(F):
    rows = paper(F)
    return np.array([[sum(a * b for a, b in zip(i, j, strict=True)) for j in rows] for i in rows])


def content_by_loops(F, P):
    rows, other = paper(F), paper(P)
    return 0.5 * sum((rows[i][j] - other[i][j]) ** 2 for i in range(len(rows)) for j in range(len(rows[0])))


def style_by_loops(G, A, M_l, M_a):
    size = len(G)
    pairs = [(G[i, j] / M_l, A[i, j] / M_a) for i in range(size) for j in range(size)]
    return sum((g - a) ** 2 for g, a in pairs) / (4 * size**2)


# ---- gradients ----


def test_equation_2_is_the_complex_step_derivative_of_equation_1():
    F, P, direction = features(0), features(1), features(2)
    derivative = losses.content_loss(cpu, F + 1j * STEP * direction, P).imag / STEP
    gradient = losses.content_loss_gradient(cpu, F, P)
    assert np.vdot(gradient, direction) == pytest.approx(derivative, rel=1e-14)


@pytest.mark.parametrize("size_of_painting", [(HEIGHT, WIDTH), (7, 4)])
def test_equation_6_is_the_complex_step_derivative_of_equation_4(size_of_painting):
    F, direction, painting = features(0), features(2), features(1, *size_of_painting)
    A, M_a = losses.gram_matrix(cpu, painting), painting.shape[0] * painting.shape[1]
    stepped = losses.gram_matrix(cpu, F + 1j * STEP * direction)
    derivative = losses.style_layer_loss(cpu, stepped, A, M, M_a).imag / STEP
    gradient = losses.style_layer_loss_gradient(cpu, F, losses.gram_matrix(cpu, F), A, M_a)
    assert np.vdot(gradient, direction) == pytest.approx(derivative, rel=1e-14)


def test_equation_6_holds_element_by_element():
    F, A = features(0), losses.gram_matrix(cpu, features(1))
    G = losses.gram_matrix(cpu, F)
    gradient = losses.style_layer_loss_gradient(cpu, F, G, A)
    for index in np.ndindex(F.shape):
        nudged = F.astype(complex)
        nudged[index] += 1j * STEP
        derivative = losses.style_layer_loss(cpu, losses.gram_matrix(cpu, nudged), A, M).imag / STEP
        assert gradient[index] == pytest.approx(derivative, rel=1e-12, abs=1e-16)


def test_equation_6_equals_its_letters():
    F, A = features(0), losses.gram_matrix(cpu, features(1))
    G, rows = losses.gram_matrix(cpu, F), paper(F)
    gradient = paper(losses.style_layer_loss_gradient(cpu, F, G, A))
    for i in range(N):
        for j in range(M):
            expected = sum(rows[k][j] * (G - A)[k, i] for k in range(N)) / (N**2 * M**2)
            assert gradient[i][j] == pytest.approx(expected, rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("equation", [2, 6])
def test_behind_the_relu_the_gradient_is_the_papers_masked_one(equation):
    """Equations 2 and 6 are 0 where the pre-activation is negative: the ReLU's input gradient makes that zero."""
    pre, P, A = features(0), cpu.relu(features(1)), losses.gram_matrix(cpu, cpu.relu(features(1)))
    pre[0, 0, 0] = 0.0
    F = cpu.relu(pre)
    if equation == 2:
        plain = losses.content_loss_gradient(cpu, F, P)
    else:
        plain = losses.style_layer_loss_gradient(cpu, F, losses.gram_matrix(cpu, F), A)
    masked = cpu.relu_input_gradient(plain, F)
    np.testing.assert_array_equal(masked, np.where(pre > 0, plain, 0))
    assert (plain[pre <= 0] != 0).any() or equation == 6
    direction = features(2)
    stepped = cpu.relu(pre + 1j * STEP * direction)
    if equation == 2:
        loss = losses.content_loss(cpu, stepped, P)
    else:
        loss = losses.style_layer_loss(cpu, losses.gram_matrix(cpu, stepped), A, M)
    assert np.vdot(masked, direction) == pytest.approx(loss.imag / STEP, rel=1e-14)


def test_the_weight_multiplies_the_gradient():
    F, A = features(0), losses.gram_matrix(cpu, features(1))
    G = losses.gram_matrix(cpu, F)
    weighted = losses.style_layer_loss_gradient(cpu, F, G, A, weight=0.3)
    np.testing.assert_allclose(weighted, 0.3 * losses.style_layer_loss_gradient(cpu, F, G, A), rtol=1e-13, atol=1e-17)


# ---- values ----


def test_equation_1_equals_its_letters():
    F, P = features(0), features(1)
    assert losses.content_loss(cpu, F, P) == pytest.approx(content_by_loops(F, P), rel=1e-14)


def test_equation_3_equals_its_letters():
    F = features(0)
    np.testing.assert_allclose(losses.gram_matrix(cpu, F), gram_by_loops(F), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("M_a", [None, M, 28])
def test_equation_4_equals_its_letters(M_a):
    G, A = losses.gram_matrix(cpu, features(0)), losses.gram_matrix(cpu, features(1))
    expected = style_by_loops(G, A, M, M_a or M)
    assert losses.style_layer_loss(cpu, G, A, M, M_a) == pytest.approx(expected, rel=1e-14)


def test_equation_4_of_equal_sizes_is_the_papers():
    G, A = losses.gram_matrix(cpu, features(0)), losses.gram_matrix(cpu, features(1))
    expected = ((G - A) ** 2).sum() / (4 * N**2 * M**2)
    assert losses.style_layer_loss(cpu, G, A, M) == pytest.approx(expected, rel=1e-13)


def test_equations_5_and_7_equal_their_letters():
    E, w = {"a": 3.0, "b": 5.0}, {"a": 0.25, "b": 0.5, "c": 9.0}
    assert losses.style_loss(E, w) == 0.25 * 3 + 0.5 * 5
    assert losses.total_loss(7.0, 11.0, 0.001, 2.0) == 0.001 * 7 + 2 * 11


def test_style_does_not_see_where_things_are():
    F = features(0)
    shuffled = np.random.default_rng(3).permutation(F.reshape(M, N)).reshape(F.shape)
    assert losses.style_layer_loss(cpu, losses.gram_matrix(cpu, shuffled), losses.gram_matrix(cpu, F), M) < 1e-28
    assert losses.content_loss(cpu, shuffled, F) > 1


def test_a_painting_repeated_side_by_side_has_the_same_style():
    F, painting = features(0), features(1)
    G, A = losses.gram_matrix(cpu, F), losses.gram_matrix(cpu, painting)
    twice = losses.gram_matrix(cpu, np.concatenate([painting, painting], axis=1))
    once = losses.style_layer_loss(cpu, G, A, M)
    assert losses.style_layer_loss(cpu, G, twice, M, 2 * M) == pytest.approx(once, rel=1e-13)


def test_equal_images_have_no_loss_and_no_gradient():
    F = features(0)
    G = losses.gram_matrix(cpu, F)
    assert losses.content_loss(cpu, F, F) == losses.style_layer_loss(cpu, G, G, M) == 0
    assert not losses.content_loss_gradient(cpu, F, F).any()
    assert not losses.style_layer_loss_gradient(cpu, F, G, G).any()


def test_single_precision_features_are_summed_in_double():
    F, P = np.full((40, 50, 20), 0.1, np.float32), np.zeros((40, 50, 20), np.float32)
    # 20000 equal squares in a row: summed in float32 they would lose digits.
    expected = 0.5 * 40 * 50 * 20 * float(np.float32(0.1)) ** 2
    assert losses.content_loss(cpu, F, P) == pytest.approx(expected, rel=1e-13)
    assert isinstance(losses.content_loss(cpu, F, P), float)
    assert losses.gram_matrix(cpu, F).dtype == np.float64
    gradient = losses.style_layer_loss_gradient(cpu, F, losses.gram_matrix(cpu, F), np.zeros((20, 20)))
    assert gradient.dtype == np.float32


def test_arguments_stay_as_they_are():
    F, P = features(0), features(1)
    G, A = losses.gram_matrix(cpu, F), losses.gram_matrix(cpu, P)
    arguments = (F, P, G, A)
    copies = [array.copy() for array in arguments]
    losses.content_loss(cpu, F, P)
    losses.content_loss_gradient(cpu, F, P)
    losses.style_layer_loss(cpu, G, A, M, 7)
    losses.style_layer_loss_gradient(cpu, F, G, A, 7, 0.5)
    for array, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
