"""The audit of published formulas: one verdict each, and that the audit itself can fail."""

import time
from dataclasses import replace

import numpy as np
import pytest

from engine import losses
from kernels import Cpu
from tools.check_gradients import formulas
from tools.check_gradients.audit import audit
from tools.check_gradients.formulas import (
    CLAMPED,
    COLUMNS,
    CONTENT,
    CONTENT_BEHIND_RELU,
    CONTENT_OF_ALL,
    COVARIANCE,
    FORMULAS,
    GRAM,
    HISTOGRAM,
    LOSSES,
    MEANS,
    POSITIONS,
    SLICED,
    SQUARES,
    STYLE,
    STYLE_BEHIND_RELU,
    TRIANGLE,
    VARIATION,
    WEIGHTED,
    Layer,
    random_layer,
)

# The first size of the audit, where its factors are given.
N, M = 5, 11
NO_LOSS = "nothing: its Jacobian is not symmetric"
NO_SHAPE = "nothing: its shape does not fit"

BY_NAME = {formula.name: formula for formula in FORMULAS}

RIGHT = {
    "equation 2, of the loss behind the ReLU": CONTENT_BEHIND_RELU,
    "equation 2 without its mask": CONTENT,
    "the plain derivative behind the ReLU's own": CONTENT_BEHIND_RELU,
    "equation 6, of the loss behind the ReLU": STYLE_BEHIND_RELU,
    "equation 6 without its mask": STYLE,
    "the plain style derivative behind the ReLU's own": STYLE_BEHIND_RELU,
    "the authors' texture code": STYLE,
    "4 (G - A) F for the plain sum": SQUARES,
    "the sum of squares as a trace": SQUARES,
    "its derivative with what flows down": CONTENT_OF_ALL,
    "G = F'F with F stored as M x N": GRAM,
    "means and deviations": MEANS,
    "the Gram matrix of centered features": COVARIANCE,
    "the Gram matrix of centered features, by its moments": COVARIANCE,
    "histograms, what they are matched to held constant": HISTOGRAM,
    "the sliced Wasserstein distance": SLICED,
}

# Wrong by a factor: what it is given for, the factor at N, M, and in letters.
FACTORS = {
    "4 (G - A) F for the paper's E_l": (STYLE, 4 * N**2 * M**2, "4 N^2 M^2"),
    "M_l taken as N_l x M_l": (STYLE, 1 / N**2, "1/N^2"),
    "G / (C H W), mean of squares": (STYLE, 4 / N**2, "4/N^2"),
    "G / (C H W), squared Frobenius norm": (STYLE, 4, "4"),
    "G / (H W), mean of squares": (STYLE, 4, "4"),
    "G as it is, mean of squares": (STYLE, 4 * M**2, "4 M^2"),
    "the image's channels and size in place of the layer's": (
        STYLE,
        N**2 * M**2 / (3**2 * 17**2),
        "N^2 M^2/(C_0^2 M_0^2)",
    ),
    "content as a mean of squares": (CONTENT, 2 / (N * M), "2/(N M)"),
    "content without the 1/2": (CONTENT, 2, "2"),
    "gradient of the scalar loss normalized": (WEIGHTED, 0.37, "s"),
}

# Wrong by more than a factor: what it is given for, and what it is instead.
OTHERS = {
    "equation 2, of equation 1 as printed": (CONTENT, CONTENT_BEHIND_RELU),
    "equation 6, of equation 4 as printed": (STYLE, NO_LOSS),
    "equation 6 with its indices in the other order": (STYLE, NO_SHAPE),
    "E_l as a row times a matrix": (SQUARES, NO_SHAPE),
    "E_l as a row times a matrix, closed by a column": (SQUARES, COLUMNS),
    "a content loss summed over all layers": (CONTENT, CONTENT_OF_ALL),
    "its derivative taken layer by layer": (CONTENT_OF_ALL, CONTENT),
    "G = F'F with F as N x M": (GRAM, NO_SHAPE),
    "the sum of squares with G = F'F": (SQUARES, POSITIONS),
    "smoothness in the gradient but not in the loss": (STYLE, VARIATION),
    "gradient divided by the sum of its magnitudes, loss as it is": (STYLE, NO_LOSS),
    "clamping behind the optimizer's back": (CLAMPED, NO_LOSS),
    "Gram backward with the diagonal doubled": (SQUARES, TRIANGLE),
    "the Gram matrix of centered features, the mean held constant": (COVARIANCE, NO_LOSS),
}


@pytest.fixture(scope="module")
def verdicts():
    return {verdict.name: verdict for verdict in audit()}


# ---- the verdicts ----


def test_every_formula_has_its_line_here():
    assert len(BY_NAME) == len(FORMULAS)
    assert {*RIGHT, *FACTORS, *OTHERS} == set(BY_NAME)
    assert len(RIGHT) + len(FACTORS) + len(OTHERS) == len(FORMULAS)


@pytest.mark.parametrize("name", RIGHT)
def test_a_formula_that_is_right(name, verdicts):
    verdict = verdicts[name]
    assert verdict.right
    assert verdict.loss == verdict.derivative_of == RIGHT[name]
    assert verdict.error < 1e-14
    assert verdict.factor is None
    assert verdict.factor_text is None
    assert verdict.counter_example == ""
    if verdict.is_gradient:
        assert verdict.cosine == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("name", FACTORS)
def test_a_formula_that_is_wrong_by_a_factor(name, verdicts):
    verdict, (loss, factor, letters) = verdicts[name], FACTORS[name]
    assert not verdict.right
    assert verdict.loss == loss
    assert verdict.factor == pytest.approx(factor, rel=1e-12)
    assert verdict.factor_text == letters
    assert verdict.counter_example.startswith(f"N = {N}, M = {M}: ")
    if verdict.is_gradient:
        assert verdict.cosine == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("name", OTHERS)
def test_a_formula_that_is_something_else(name, verdicts):
    verdict, (loss, origin) = verdicts[name], OTHERS[name]
    assert not verdict.right
    assert verdict.loss == loss
    assert verdict.derivative_of.startswith(origin)
    assert verdict.factor is None
    assert verdict.factor_text is None
    assert verdict.error is None or verdict.error > 0.1
    assert verdict.counter_example.startswith(f"N = {N}, M = {M}: ")


def test_a_factor_on_a_loss_is_named_as_what_the_formula_is(verdicts):
    assert verdicts["M_l taken as N_l x M_l"].derivative_of == f"1/N^2 times {STYLE}"
    # What is exactly another loss's derivative is said to be that.
    assert verdicts["4 (G - A) F for the paper's E_l"].derivative_of == SQUARES


def test_transposed_shapes_are_shown_where_n_differs_from_m(verdicts):
    verdict = verdicts["equation 6 with its indices in the other order"]
    assert "gives the shape (11, 5), expected the shape (5, 11)" in verdict.counter_example
    # At N = M, where the shapes fit, it is another matrix all the same.
    assert "; N = 6, M = 6: element" in verdict.counter_example
    assert verdict.cosine < 0.9
    assert "gives the shape (11, 11), expected the shape (5, 5)" in verdicts["G = F'F with F as N x M"].counter_example
    row = verdicts["E_l as a row times a matrix"]
    assert "gives the shape (5,), expected a single number" in row.counter_example
    assert row.error is None


def test_a_factor_that_changes_with_the_image_is_not_taken_for_one(verdicts):
    verdict = verdicts["gradient divided by the sum of its magnitudes, loss as it is"]
    assert verdict.cosine == pytest.approx(1, abs=1e-14)
    assert "parallel to it, by a factor that changes with F" in verdict.counter_example


def test_the_mask_and_the_relus_own_gradient_are_the_same():
    """Equations 2 and 6 behind the ReLU equal the program's two steps, element by element."""
    layer = random_layer(5, 11, np.random.default_rng(1))
    assert (layer.F < 0).any()
    for masked, plain in (
        ("equation 2, of the loss behind the ReLU", "the plain derivative behind the ReLU's own"),
        ("equation 6, of the loss behind the ReLU", "the plain style derivative behind the ReLU's own"),
    ):
        one, other = (BY_NAME[name].evaluate(layer) for name in (masked, plain))
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-17)
        assert not one[layer.F < 0].any()
        assert one[layer.F > 0].all()


def test_a_difference_that_the_row_by_matrix_form_does_not_see():
    """G - A = [[1, -1], [-1, 1]]: its columns sum to 0, its squares to 4."""
    zero = np.zeros((2, 3))
    painting = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    F = np.array([[1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]])
    layer = Layer(F, zero, painting, np.eye(2), zero)
    difference = LOSSES[GRAM](layer) - layer.A
    np.testing.assert_array_equal(difference, [[1, -1], [-1, 1]])
    assert BY_NAME["E_l as a row times a matrix, closed by a column"].evaluate(layer) == 0
    assert LOSSES[SQUARES](layer) == BY_NAME["the sum of squares as a trace"].evaluate(layer) == 4


def test_the_gram_matrix_the_wrong_way_round_sees_where_things_are():
    layer = random_layer(5, 11, np.random.default_rng(2))
    shuffled = replace(layer, F=layer.F[:, np.random.default_rng(3).permutation(11)])
    assert LOSSES[SQUARES](shuffled) == pytest.approx(LOSSES[SQUARES](layer), rel=1e-13)
    assert abs(LOSSES[POSITIONS](shuffled) / LOSSES[POSITIONS](layer) - 1) > 1e-3


def test_the_audited_losses_are_the_programs():
    layer, cpu = random_layer(5, 11, np.random.default_rng(4)), Cpu(1)
    F, P = (array.T[np.newaxis].copy() for array in (layer.F, layer.P))
    assert LOSSES[CONTENT](layer) == pytest.approx(losses.content_loss(cpu, F, P), rel=1e-14)
    np.testing.assert_allclose(LOSSES[GRAM](layer), losses.gram_matrix(cpu, F), rtol=1e-13, atol=1e-14)
    assert LOSSES[STYLE](layer) == pytest.approx(
        losses.style_layer_loss(cpu, losses.gram_matrix(cpu, F), layer.A, 11), rel=1e-13
    )


# ---- the audit ----


def test_the_audit_is_the_same_every_time_and_takes_less_than_a_second():
    first = audit()
    begin = time.process_time()  # others may be at work on the machine
    assert audit() == first
    assert time.process_time() - begin < 1
    assert [verdict.name for verdict in first] == [formula.name for formula in FORMULAS]
    assert [(verdict.source, verdict.claim) for verdict in first] == [(f.source, f.claim) for f in FORMULAS]


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_verdicts_do_not_depend_on_the_seed(seed, verdicts):
    for verdict in audit(seed):
        first = verdicts[verdict.name]
        assert (verdict.right, verdict.factor_text) == (first.right, first.factor_text)
        assert verdict.derivative_of.partition("(by")[0] == first.derivative_of.partition("(by")[0]
        if not verdict.right:
            assert verdict.counter_example != first.counter_example or first.error is None


def judge(formula):
    """Return the verdict on one formula."""
    (verdict,) = audit(formulas=[formula])
    return verdict


def changed(formula, change):
    """Return a formula with its result changed."""
    return replace(formula, evaluate=lambda layer: change(np.asarray(formula.evaluate(layer))))


def one_element(result):
    copy = np.array(result)
    copy.flat[-1] *= 1 + 1e-6
    return copy


CHANGES = {
    "a hair too large": lambda result: result * (1 + 1e-9),
    "twice as large": lambda result: 2 * result,
    "of the other sign": lambda result: -result,
    "one element": one_element,
    "something added": lambda result: result + 1e-6,
    "nothing": lambda result: 0 * result,
    "the shape": lambda result: result.T[..., np.newaxis],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_right_formula_that_is_changed_is_found_wrong(change):
    for verdict in audit(formulas=[changed(BY_NAME[name], CHANGES[change]) for name in RIGHT]):
        assert not verdict.right, verdict.name
        assert verdict.counter_example, verdict.name


@pytest.mark.parametrize(("factor", "letters"), [(2, "2"), (-1, "-1"), (0.125, "1/8"), (0.37, "s"), (-0.74, "-2 s")])
def test_a_factor_put_into_a_right_formula_is_named(factor, letters):
    for verdict in audit(formulas=[changed(BY_NAME[name], lambda result: factor * result) for name in RIGHT]):
        assert verdict.factor == pytest.approx(factor, rel=1e-12)
        assert verdict.factor_text == letters


def test_a_factor_that_depends_on_the_size_is_named():
    formula = BY_NAME["equation 6 without its mask"]
    verdict = judge(replace(formula, evaluate=lambda layer: formula.evaluate(layer) * layer.M / layer.N**3))
    assert verdict.factor_text == "M/N^3"
    assert verdict.factor == pytest.approx(M / N**3, rel=1e-12)


def test_a_factor_without_a_name_is_told_in_numbers_at_each_size():
    verdict = judge(changed(BY_NAME["equation 6 without its mask"], lambda result: np.pi * result))
    assert verdict.factor == pytest.approx(np.pi, rel=1e-12)
    assert verdict.factor_text == "3.14159 at N = 5, M = 11, 3.14159 at N = 13, M = 7"


@pytest.mark.parametrize("name", [*FACTORS, *OTHERS])
def test_a_wrong_formula_is_found_right_for_what_it_really_is(name, verdicts):
    """The verdict follows from the numbers: the same formula, given for another loss, is right."""
    formula, origin = BY_NAME[name], verdicts[name].derivative_of
    if origin in LOSSES:
        assert judge(replace(formula, loss=origin)).right
    elif name in FACTORS:
        _, _, letters = FACTORS[name]
        assert origin == f"{letters} times {formula.loss}"
        mended = replace(formula, evaluate=lambda layer: formula.evaluate(layer) / factor_of(layer, letters))
        assert judge(mended).right
    else:
        assert origin.startswith("nothing")


def factor_of(layer, letters):
    """Return the number that a factor in letters stands for."""
    text = letters.replace("^", "**").replace(" ", "*")
    return eval(text, {"N": layer.N, "M": layer.M, "C_0": 3, "M_0": 17, "s": 0.37})


def test_a_wrong_formula_that_is_mended_is_found_right():
    lecture = BY_NAME["4 (G - A) F for the paper's E_l"]
    mended = replace(lecture, evaluate=lambda layer: lecture.evaluate(layer) / (4 * layer.N**2 * layer.M**2))
    assert judge(mended).right
    transposed = BY_NAME["equation 6 with its indices in the other order"]
    assert judge(replace(transposed, evaluate=lambda layer: transposed.evaluate(layer).T)).right


def test_a_loss_that_is_changed_makes_its_formulas_wrong(monkeypatch):
    """The exact derivative comes from the loss's value, not from a formula."""
    monkeypatch.setitem(formulas.LOSSES, STYLE, lambda layer: 1.001 * LOSSES[SQUARES](layer) / (4 * N**2 * M**2))
    verdict = judge(BY_NAME["equation 6 without its mask"])
    assert not verdict.right


def test_a_gradient_of_another_loss_is_told_from_one_of_none():
    cubes = replace(BY_NAME["equation 2 without its mask"], evaluate=lambda layer: layer.F**3)
    assert judge(cubes).derivative_of == "none of the losses here, though its Jacobian is symmetric"
    turned = replace(cubes, evaluate=lambda layer: np.roll(layer.F**3, 1, axis=1))
    assert judge(turned).derivative_of.startswith(NO_LOSS)
