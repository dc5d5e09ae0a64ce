"""16-bit networks: powers of two keep values in range and change nothing else; the precision is what 11 bits allow."""

from dataclasses import replace

import numpy as np
import pytest

from engine import Objective, load_network
from engine.plan import Plan
from engine.scaling import LARGEST, sample_picture, scaled_nodes
from tests.engine import models, test_branches
from tests.engine.test_objective import CONTENT, IMAGE, SETTINGS, STYLE
from tests.kernels.devices import to_host

WIDE = models.parameters((2, 2, 2), (20, 24, 22), seed=3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    blocks = [[(weight * 30, bias) for weight, bias in block] for block in WIDE]
    return models.save(models.vgg(blocks), tmp_path_factory.mktemp("models") / "loud.onnx")


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


def objective(network, setting, content_weight=1e-12, style_weight=1e-20):
    arguments = {"content": CONTENT, "style": STYLE} | SETTINGS[setting]
    return Objective(network, **arguments, content_weight=content_weight, style_weight=style_weight)


def test_the_scaled_network_is_the_same_network(path):
    network = load_network(path, threads=1)
    features = network.features(sample_picture(), network.layers)
    largest = {network.outputs[layer]: float(F.max()) for layer, F in features.items()}
    assert max(largest.values()) > 65504
    nodes, powers = scaled_nodes(network.nodes, largest)
    scaled = replace(network, nodes=nodes, convolution="direct")
    plain = replace(network, convolution="direct")
    for layer, F in scaled.features(IMAGE, network.layers).items():
        power = powers[network.outputs[layer]]
        assert np.log2(power) == np.round(np.log2(power))
        np.testing.assert_array_equal(F, plain.features(IMAGE, layer)[layer] * np.float32(power))
    for layer, F in scaled.features(sample_picture(), network.layers).items():
        assert LARGEST / 2 < F.max() <= LARGEST, layer


def test_where_the_network_forks_each_branch_takes_the_power_of_its_own_input(tmp_path):
    layers = test_branches.Layers()
    first = layers.relu(layers.conv("image", 3, 6))
    branches = [layers.relu(layers.conv(first, 6, 8)) for _ in range(2)]
    # The engine does not multiply two activations: it keeps what leads to them.
    path = models.save(layers.builder.model(layers.builder.node("Mul", *branches)), tmp_path / "fork.onnx")
    network = load_network(path, threads=1, convolution="direct")
    assert len(network.layers) == 3
    # Other powers for all three: the last is not of what stands before it in the list.
    largest = dict(zip(network.outputs.values(), (1e3, 4e3, 6e4), strict=True))
    nodes, powers = scaled_nodes(network.nodes, largest)
    assert [powers[value] for value in network.outputs.values()] == [0.5, 0.125, 2.0**-7]
    scaled = type(network)(**{**vars(network), "nodes": nodes})
    for layer, F in scaled.features(IMAGE, network.layers).items():
        power = np.float32(powers[network.outputs[layer]])
        np.testing.assert_array_equal(F, network.features(IMAGE, layer)[layer] * power)


@pytest.mark.parametrize("setting", ["content and style", "both kinds on one layer", "several styles"])
@pytest.mark.parametrize("factor", [1.0, 1e-6])
def test_value_and_gradient_in_16_bits(emulator, path, setting, factor):
    """Also with weights that make gradients far smaller than 16 bits can tell from zero."""
    half = objective(load_network(path, device="cuda", dtype="float16"), setting, 1e-12 * factor, 1e-20 * factor)
    wide = objective(load_network(path, dtype="float64"), setting, 1e-12 * factor, 1e-20 * factor)
    (value, gradient), (expected, of_wide) = half(IMAGE), wide(IMAGE)
    assert value == pytest.approx(expected, rel=1e-2)
    assert gradient.dtype == np.float64
    assert relative(gradient, of_wide) < 2e-2
    for kind, norms in wide.gradient_norms(IMAGE).items():
        assert half.gradient_norms(IMAGE)[kind] == pytest.approx(norms, rel=2e-2)


def test_the_sizes_of_gradients_are_foreseen(emulator, path, monkeypatch):
    """What the power of two is chosen by is what is then stored, whose largest is about one."""
    network, taken, backward = load_network(path, device="cuda", dtype="float16"), {}, Plan.backward
    for setting, kind in (("content alone", "content"), ("style of one layer", "style")):
        whole = objective(network, setting)

        def spy(plan, tape, gradients, *, kind=kind):
            copy = tape.copy()
            for injected in gradients.values():
                stored = to_host(injected(None))
                assert stored.dtype == np.float16
                taken[kind] = np.sqrt(np.mean(stored.astype(np.float64) ** 2))
            return backward(plan, copy, gradients)

        monkeypatch.setattr(Plan, "backward", spy)
        whole(IMAGE)
    assert all(0.7 < size < 1.5 for size in taken.values()), taken
    assert set(taken) == {"content", "style"}


def test_features_are_in_their_own_units_and_stored_in_16_bits(emulator, path):
    half, wide = load_network(path, device="cuda", dtype="float16"), load_network(path, dtype="float64")
    assert half.dtype == np.float16
    assert half.forward(IMAGE, half.layers).features["conv2_1"].dtype == np.float16
    found = half.features(IMAGE, half.layers)
    for layer, expected in wide.features(IMAGE, wide.layers).items():
        assert found[layer].dtype == np.float32
        assert relative(found[layer], expected) < 2e-3


def test_branches_are_refused(emulator, tmp_path):
    layers = test_branches.Layers()
    path = models.save(layers.builder.model(test_branches.fire(layers)), tmp_path / "fire.onnx")
    with pytest.raises(
        ValueError, match="dtype 'float16' is for networks of convolutions, ReLU, pooling and padding, n"
    ):
        load_network(path, device="cuda", dtype="float16")


def test_16_bits_need_a_gpu(path):
    with pytest.raises(ValueError, match="dtype 'float16' needs a GPU, on 'cpu' choose one of float32, float64"):
        load_network(path, dtype="float16")
