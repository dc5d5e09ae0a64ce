from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.load import load_network
from engine.onnx.writer import write_onnx
from engine.preprocessing import PREPROCESSING, preprocessing_metadata
from kernels.cpu.threads import Threads
from tests.tools.calling import called
from tools.draft import chain as chains
from tools.draft.__main__ import main
from tools.draft.chain import chain_of, features, nodes_of, weight_gradients
from tools.draft.learn import PARTS, agreement, gradients_of, learn, pivots, rectified_least_squares
from tools.draft.practice import BALANCE, network_of, practiced, scaled
from tools.media.saving import save_image
from tools.models.random_vgg import random_vgg

WIDTHS = (3, 4, 5, 6, 6)
METADATA = preprocessing_metadata(PREPROCESSING["caffe"])
FEW_STEPS = tuple(dataclasses.replace(part, steps=12, batch=3, rate=0.01) for part in PARTS)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A VGG-19 of an eighth of the width with random weights, in a file and as a network."""
    path = tmp_path_factory.mktemp("teacher") / "vgg19.onnx"
    write_onnx(path, random_vgg("vgg19", width=1 / 8), METADATA)
    return load_network(path, threads=1)


@pytest.fixture(scope="module")
def crops():
    random = np.random.default_rng(0)
    blocks = [np.kron(random.normal(0, 40, (8, 8, 3)), np.ones((4, 4, 1))) for _ in range(8)]
    return [(block + random.normal(0, 10, block.shape)).astype(np.float32) for block in blocks]


def learnt(teacher, crops, threads):
    threads = Threads(threads)
    with threads.computing():
        return learn(chain_of(teacher.nodes), crops, threads, widths=WIDTHS, parts=FEW_STEPS)


@pytest.fixture(scope="module")
def student(teacher, crops):
    return learnt(teacher, crops, 1)


def test_a_chain_computes_what_the_engine_does(teacher):
    image = np.random.default_rng(0).uniform(0, 255, (33, 38, 3)).astype(np.float32)
    names = ["conv1_2", "conv3_1", "conv5_1"]
    found = teacher.features(image, names)
    chain = chain_of(teacher.nodes)
    values = features(chain, teacher.preprocessing.apply(teacher.device, image, np.dtype(np.float32)))
    for name in names:
        place = [layer.name for layer in chain].index(name) + 1
        expected = np.moveaxis(found[name], 0, 2)
        np.testing.assert_allclose(values[place], expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_weight_gradients_are_the_differences_of_the_loss(teacher):
    random = np.random.default_rng(1)
    chain = chain_of(teacher.nodes, "conv2_1")[:3]
    x = random.normal(0, 1, (7, 6, 3)).astype(np.float32)
    weights = [random.normal(0, 1, value.shape).astype(np.float32) for value in features(chain, x)]
    at = {1: weights[1], 3: weights[3]}

    def loss():
        values = features(chain, x)
        return sum(float((weights[place] * values[place]).sum(dtype=np.float64)) for place in at)

    gradients = weight_gradients(chain, features(chain, x), at)
    for array, gradient in zip([a for layer in chain for a in (layer.weight, layer.bias)], gradients, strict=True):
        assert gradient.shape == array.shape
        direction = gradient * np.float32(3e-4 / np.linalg.norm(gradient))
        start = array.copy()
        array[...] = start + direction
        above = loss()
        array[...] = start - direction
        below = loss()
        array[...] = start
        assert (above - below) / 2 == pytest.approx(float((gradient * direction).sum()), rel=0.02)


def test_the_agreement_is_that_of_the_products_of_positions(teacher, crops):
    chain = chain_of(teacher.nodes, "conv1_1")
    random = np.random.default_rng(2)
    F = [features(chain, crop)[-1].reshape(-1, 8) for crop in crops[:2]]
    R = [random.uniform(0, 20, (len(rows), 5)).astype(np.float32) for rows in F]
    lessons = [(crop, {"conv1_1": rows}) for crop, rows in zip(crops, R, strict=False)]
    of_student, of_teacher = (np.concatenate(rows).astype(np.float64) for rows in (F, R))
    products = of_teacher @ of_teacher.T
    difference = of_student @ of_student.T - products
    threads = Threads(2)
    found = agreement(chain, lessons, threads)
    assert found["conv1_1"] == pytest.approx((difference**2).sum() / (products**2).sum(), rel=1e-4)
    # The derivative with respect to the biases, from the definition.
    flowing = 4 * difference @ of_student / products.trace() ** 2
    expected = np.where(of_student > 0, flowing, 0).sum(axis=0)
    np.testing.assert_allclose(gradients_of(chain, lessons, threads)[1], expected, rtol=1e-3)


def test_pivots_are_those_of_a_qr_of_the_activations():
    from scipy.linalg import qr

    A = np.random.default_rng(3).normal(0, 1, (50, 9)) * np.arange(1, 10)
    assert list(pivots(A.T @ A, 5)) == list(qr(A, pivoting=True, mode="r")[1][:5])


def test_least_squares_count_only_what_a_relu_shows():
    random = np.random.default_rng(4)
    X = random.normal(0, 1, (400, 3))
    weights = np.array([[1.0], [-2.0], [0.5]])
    hidden = np.where(X @ weights > 0, X @ weights, -50.0)  # what is below 0 leads astray
    plain = np.linalg.lstsq(X, hidden, rcond=None)[0]
    found = rectified_least_squares(X, hidden)

    def error(solution):
        return ((np.maximum(X @ solution, 0) - np.maximum(hidden, 0)) ** 2).sum()

    assert error(found) < 0.5 * error(plain)


def test_learning_comes_nearer_and_gives_the_same_bits_with_any_number_of_threads(teacher, crops, student):
    assert sum(after for _, after in student.errors.values()) < sum(before for before, _ in student.errors.values())
    other = learnt(teacher, crops, 2)
    for one, two in zip(student.student, other.student, strict=True):
        assert one.weight.tobytes() + one.bias.tobytes() == two.weight.tobytes() + two.bias.tobytes()


def test_the_scaled_student_has_the_teachers_loss(teacher, crops, student):
    """A style layer's E_l is the teacher's, times the balance to the fourth, as far as the products agree."""
    chain = chain_of(teacher.nodes)
    plain = scaled(student.student, student.sizes, chain, dict.fromkeys(BALANCE, 1.0))
    network = network_of(plain, teacher)
    assert network.layers == tuple(layer.name for layer in chain)

    def energy(chain, place):
        return np.mean([(features(chain, x)[place] ** 2).mean() for x in crops])

    for name, size in (("conv1_1", 1), ("conv3_1", 5)):
        assert energy(plain, size) == pytest.approx(energy(chain, size), rel=0.3), name
    balanced = scaled(student.student, student.sizes, chain)
    assert energy(balanced, 1) == pytest.approx(BALANCE["conv1_1"] ** 2 * energy(plain, 1), rel=1e-3)
    assert energy(balanced, 10) == pytest.approx(energy(plain, 10), rel=1e-3)  # conv4_2: the content's


def test_practice_gives_pictures_of_the_photographs_sizes(teacher, student):
    network = network_of(scaled(student.student, student.sizes, chain_of(teacher.nodes)), teacher)
    random = np.random.default_rng(5)
    photographs = [random.uniform(0, 255, (32, 36, 3)).astype(np.float32), np.full((40, 32, 3), 99, np.float32)]
    made = practiced(network, photographs, photographs[::-1], 2, 1e-3, seed=0)
    assert [picture.shape for picture in made] == [photograph.shape for photograph in photographs]


def test_a_teacher_that_ends_early_is_refused(teacher):
    with pytest.raises(ValueError, match="no layer 'conv5_1'"):
        chain_of(tuple(node for node in teacher.nodes if not node.name.startswith("conv5")))


def test_a_chain_comes_back_from_its_nodes(teacher):
    chain = chain_of(teacher.nodes)
    again = chain_of(nodes_of(chain))
    assert [(layer.name, layer.pooled) for layer in again] == [(layer.name, layer.pooled) for layer in chain]


def test_the_gradient_of_pooling_leaves_out_an_odd_row():
    x = np.random.default_rng(6).normal(0, 1, (5, 4, 2)).astype(np.float32)
    g = np.ones((2, 2, 2), np.float32)
    assert chains.pool_gradient(g, x.shape)[4].max() == 0
    assert chains.pool_gradient(g, x.shape)[:4].min() == 0.25


def test_what_cannot_be_learnt_from_is_told_before_anything_is_learnt(teacher, crops, tmp_path, capsys):
    chain = [layer for layer in chain_of(teacher.nodes) if layer.name != "conv3_4"]  # as in a VGG-16
    with pytest.raises(ValueError, match=r"the teacher has no conv3_4: give a VGG-19"):
        learn(chain, crops, Threads(1), widths=WIDTHS, parts=FEW_STEPS)
    small = tmp_path / "pictures"
    small.mkdir()
    save_image(small / "narrow.png", np.zeros((40, 400, 3)))
    write_onnx(tmp_path / "teacher.onnx", random_vgg("vgg19", width=0.05), METADATA)
    command = ["learn", small, small, "--teacher", tmp_path / "teacher.onnx"]
    output = called(main, capsys, [*command, "-o", tmp_path / "missing/draft.onnx"], 2)[1]
    assert "missing' does not exist" in output
    output = called(main, capsys, [*command, "-o", tmp_path / "draft.onnx"], 2)[1]
    assert "no picture is large enough: with a long side of 384, the other has to have 96" in output
