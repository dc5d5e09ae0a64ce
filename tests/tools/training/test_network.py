from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.network import load_network  # noqa: E402
from engine.onnx_writer import write_onnx  # noqa: E402
from engine.preprocessing import PREPROCESSING, preprocessing_metadata  # noqa: E402
from tools.training.muon import Muon, orthogonalised  # noqa: E402
from tools.training.network import JUDGED, LAYERS, SCALE, Draft, Heads, colour_filters, edge_filters, folded  # noqa: E402

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.uniform(0, 255, (32, 48, 3)).astype(np.float32)


@pytest.fixture
def draft():
    """A network of random weights and random normalisations."""
    generator = torch.Generator().manual_seed(0)
    draft = Draft()
    for norm in draft.norms.values():
        norm.running_mean.uniform_(-0.5, 0.5, generator=generator)
        norm.running_var.uniform_(0.2, 2, generator=generator)
    return draft.eval()


def test_the_engine_computes_the_trained_network(draft, tmp_path):
    write_onnx(tmp_path / "draft.onnx", folded(draft), preprocessing_metadata(PREPROCESSING["caffe"]))
    network = load_network(tmp_path / "draft.onnx")
    assert network.layers == LAYERS
    features = network.features(IMAGE, JUDGED)
    with torch.no_grad():
        responses = draft(torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())[None])
    for layer in JUDGED:
        expected = responses[layer][0].numpy()
        np.testing.assert_allclose(features[layer], expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_the_given_channels_hold_the_colours_mean_and_second_moments():
    """Their Gram matrix fixes them, whatever the rest of the picture is: no colour can be mistaken for another."""
    weight, bias = colour_filters()
    mean = torch.tensor(PREPROCESSING["caffe"].mean[::-1])[:, None, None]
    image = torch.from_numpy(IMAGE.transpose(2, 0, 1).copy())
    with torch.no_grad():
        values = torch.nn.functional.conv2d(((image - mean) / SCALE)[None], weight, bias)
    F = torch.relu(values)[0].flatten(1).double().numpy()
    G = F @ F.T / F.shape[1]
    brightness, lack = F[:2]
    np.testing.assert_allclose(brightness + lack, 4, atol=1e-4)
    # E[x b] + E[x (4 - b)] = 4 E[x], for the brightness itself and for both sides of the opponent colours.
    np.testing.assert_allclose((G[0] + G[1]) / 4, F.mean(1), rtol=1e-4)
    plain = IMAGE.mean(2)
    bell = np.array([1, 2, 1]) / 4
    blurred = sum(bell[i] * bell[j] * plain[i : i + 30, j : j + 46] for i in range(3) for j in range(3))
    np.testing.assert_allclose(F[0], (blurred * 4 / 255).ravel(), rtol=1e-4)
    for side in (2, 4):
        opponent = values[0, side].flatten().double().numpy()
        assert G[side, side + 1] == 0
        np.testing.assert_allclose(G[side, side] + G[side + 1, side + 1], (opponent**2).mean(), rtol=1e-4)


def test_grey_has_no_opponent_colour_and_flat_pictures_no_edges():
    flat = torch.full((1, 3, 8, 8), 77.0)
    mean = torch.tensor(PREPROCESSING["caffe"].mean[::-1])[:, None, None]
    weight, bias = colour_filters()
    assert torch.nn.functional.conv2d((flat - mean) / SCALE, weight, bias)[0, 2:].abs().max() < 1e-5
    edges = torch.nn.functional.conv2d(flat, edge_filters(torch.Generator().manual_seed(0)))
    assert edges.abs().max() < 1e-4


def test_the_given_channels_do_not_learn(draft):
    answers = Heads()(draft(torch.rand((4, 3, 64, 64)) * 255))
    assert set(answers) == set(JUDGED)
    sum(part.sum() for parts in answers.values() for part in parts).backward()
    assert draft.given.weight.grad is None
    assert all(conv.weight.grad is not None for conv in draft.convs.values())


@pytest.mark.parametrize("shape", [(16, 27), (128, 1152), (64, 128), (40, 10)])
def test_orthogonalising_brings_the_singular_values_near_1(shape):
    made = orthogonalised(torch.from_numpy(RANDOM.standard_normal(shape)))
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_muon_goes_downhill():
    goal = torch.from_numpy(RANDOM.standard_normal((8, 4, 3, 3))).float() * 0.1
    weight = torch.nn.Parameter(torch.zeros(8, 4, 3, 3))
    muon = Muon([weight], rate=0.02)
    before = (weight - goal).square().sum().item()
    for _ in range(60):
        (weight - goal).square().sum().backward()
        muon.step(0.5)
    assert (weight - goal).square().sum().item() < 0.5 * before
