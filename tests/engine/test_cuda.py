"""The engine on a GPU, emulated: the same features, values and gradients as on the CPU."""

import weakref

import numpy as np
import pytest

from engine import Objective, load_network
from engine.device import choose_device, moved_to_cuda
from engine.errors import NonFiniteError
from kernels.cuda import opening
from tests.engine import models, test_branches
from tests.engine.test_network import BRANCHING, ENDS, by_hand
from tests.engine.test_objective import CONTENT, IMAGE, SETTINGS, make
from tests.kernels.cuda.emulator import DeviceArray
from tests.kernels.devices import to_device, to_host

# Wide enough for the gradient by the flipped weight, and for more than one tile of a product.
WIDE = models.parameters((2, 2, 2), (20, 66, 24), seed=3)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "tiny": models.save(models.vgg(models.parameters((2, 2, 2))), folder / "tiny.onnx"),
        "wide": models.save(models.vgg(WIDE), folder / "wide.onnx"),
    }


@pytest.fixture
def load(paths, emulator):
    """Return a function that loads a network in float32 on the emulated GPU, and one on the CPU in float64."""

    def load(name="tiny", **options):
        return (
            load_network(paths[name], device="cuda", **options),
            load_network(paths[name], dtype="float64", threads=1, **options),
        )

    return load


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("name", ["tiny", "wide"])
def test_features_are_the_cpus_to_rounding(load, name, pooling):
    ours, theirs = load(name, pooling=pooling)
    found = ours.features(IMAGE, ours.layers)
    for layer, expected in theirs.features(IMAGE, theirs.layers).items():
        assert isinstance(found[layer], np.ndarray)
        assert found[layer].dtype == np.float32
        assert found[layer].shape == expected.shape
        assert relative(found[layer], expected) < 1e-6, layer


@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_value_and_gradient_are_the_cpus_to_rounding(load, setting, pooling):
    (value, gradient), (expected, of_cpu) = (
        make(network, **SETTINGS[setting])(IMAGE) for network in load(pooling=pooling)
    )
    assert value == pytest.approx(expected, rel=2e-6)
    assert isinstance(gradient, np.ndarray)
    assert gradient.dtype == np.float64
    assert relative(gradient, of_cpu) < 1e-5


def test_a_wider_network_gives_the_same(load):
    layers = {"content_layers": ["conv2_1"], "style_layers": ["conv1_1", "conv2_1", "conv3_2"]}
    (value, gradient), (expected, of_cpu) = (make(network, **layers)(IMAGE) for network in load("wide"))
    assert value == pytest.approx(expected, rel=2e-6)
    assert relative(gradient, of_cpu) < 1e-5


@pytest.mark.parametrize("build", ["residual", "fire", "inception", "three_way"])
def test_branches_give_the_same(emulator, build, tmp_path):
    layers = test_branches.Layers()
    output = getattr(test_branches, build)(layers)
    path = models.save(layers.builder.model(output), tmp_path / "branches.onnx")
    results = []
    for options in ({"device": "cuda"}, {"dtype": "float64"}):
        network = load_network(path, **options)
        image, style = models.random_image(14, 18), models.random_image(15, 14, seed=1)
        names = network.layers
        results.append(Objective(network, image[::-1].copy(), style, names[-1:], names)(image))
    (value, gradient), (expected, of_cpu) = results
    assert value == pytest.approx(expected, rel=2e-5)
    assert relative(gradient, of_cpu) < 1e-5


def test_a_compact_network_gives_the_same_bits(emulator):
    """Also where scales and shifts were not folded into convolutions, and are on the device already."""
    whole = moved_to_cuda(by_hand(BRANCHING, ENDS, "float32"), "float32")
    compact = whole.compact().compact(ENDS)
    for found, expected in zip(
        compact.features(IMAGE, ENDS).values(), whole.features(IMAGE, ENDS).values(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_terms_and_norms_are_the_cpus(load):
    ours, theirs = (make(network, **SETTINGS["both kinds on one layer"]) for network in load())
    for objective in (ours, theirs):
        objective(IMAGE)
    for kind in ("content", "style"):
        assert ours.terms[kind] == pytest.approx(theirs.terms[kind], rel=2e-6)
        assert all(isinstance(term, float) for term in ours.terms[kind].values())
        norms = theirs.gradient_norms(IMAGE)[kind]
        assert ours.gradient_norms(IMAGE)[kind] == pytest.approx(norms, rel=1e-5)


def test_an_image_on_the_device_gives_a_gradient_there_and_the_same_bits(load):
    network, _ = load()
    objective = make(network, **SETTINGS["content and style"])
    value, gradient = objective(IMAGE)
    on_device = to_device(IMAGE)
    again, there = objective(on_device)
    assert again == value
    assert isinstance(there, DeviceArray)
    np.testing.assert_array_equal(to_host(there), gradient)
    np.testing.assert_array_equal(to_host(on_device), IMAGE)
    with pytest.raises(ValueError, match="an image on the GPU must be float64, got float32"):
        objective(to_device(IMAGE.astype(np.float32)))


def test_an_evaluation_waits_for_the_device_once(load, emulator, monkeypatch):
    network, _ = load()
    image, waits = to_device(IMAGE), []
    objective = make(network, **SETTINGS["content and style"])
    download = emulator.download
    monkeypatch.setattr(emulator, "download", lambda array: waits.append(array.shape) or download(array))
    pending = objective.begin(image)
    assert waits == []
    pending.finish()
    # The terms, and how many values of the gradient are not finite.
    assert waits == [(5,)]


def test_bytes_and_lists_are_taken_as_the_same_floats(load):
    network, _ = load()
    objective = make(network, **SETTINGS["content and style"])
    image = IMAGE.astype(np.uint8)
    expected = objective(image.astype(np.float64))
    for given in (image, image.astype(float).tolist()):
        value, gradient = objective(given)
        assert value == expected[0]
        np.testing.assert_array_equal(gradient, expected[1])


def test_an_overflow_is_named_with_the_layer_where_it_began(load):
    network, _ = load()
    objective = make(network, **SETTINGS["content and style"])
    with pytest.raises(NonFiniteError, match=r"it began at the style loss of 'conv1_1'"):
        objective(IMAGE * 1e23)
    with pytest.raises(NonFiniteError, match=r"it began at Conv 'conv\d_\d' \(forward pass\)"):
        objective(np.full_like(IMAGE, 3e38))
    with pytest.raises(NonFiniteError, match=r"it began at Conv 'conv\d_\d' \(backward pass\)"):
        make(network, content=None, style_layers=["conv2_1"], style_weight=1e60)(IMAGE)


def test_the_device_is_said(load, paths):
    ours, theirs = load()
    assert (ours.device.kind, ours.place) == ("cuda", "cuda (emulated GPU)")
    assert (theirs.device.kind, theirs.place) == ("cpu", "cpu with 1 threads")
    assert load_network(paths["tiny"], device="auto").device.kind == "cuda"


def test_auto_takes_the_cpu_for_what_the_gpu_cannot(emulator):
    assert choose_device("auto", "float64") == "cpu"
    with pytest.raises(ValueError, match=r"dtype .float64. is for the CPU, on .cuda. choose one of float32, float16"):
        choose_device("cuda", "float64")


def test_without_a_gpu_auto_takes_the_cpu_and_cuda_says_why(paths, monkeypatch):
    def missing():
        raise ValueError("CuPy finds no GPU")

    monkeypatch.setattr(opening, "open_cuda", missing)
    assert opening.unavailable() == "CuPy finds no GPU"
    assert choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match=r"^device 'cuda' is not available: CuPy finds no GPU$"):
        load_network(paths["tiny"], device="cuda")


def test_content_that_is_the_image_has_no_loss(load):
    network, _ = load()
    objective = make(network, style=None, content_layers=["conv2_2"])
    assert objective(CONTENT)[0] == 0


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_recorded_evaluations_give_the_same_bits(paths, emulator, dtype, monkeypatch):
    """For images on either side and of several sizes, one after the other; nothing but launches is recorded."""
    network = load_network(paths["tiny"], device="cuda", dtype=dtype)
    settings = SETTINGS["style alone"]
    plain, recorded = make(network, **settings), make(network, **settings, replay=True)
    images = [IMAGE, models.random_image(23, 20, seed=9), IMAGE[::-1].copy(), to_device(IMAGE)]
    for image in [*images, *images]:
        (value, gradient), (expected, of_plain) = recorded(image), plain(image)
        assert value == expected
        assert recorded.terms == plain.terms
        np.testing.assert_array_equal(
            *(one if isinstance(one, np.ndarray) else to_host(one) for one in (gradient, of_plain))
        )
    kept = recorded(images[0])[1].copy(), recorded(to_device(images[0]))[1]
    recorded(images[2])
    np.testing.assert_array_equal(to_host(kept[1]), kept[0])


@pytest.mark.parametrize("fault", ["refuses", "differs"])
def test_where_recording_fails_the_launches_are_made_one_by_one(load, emulator, monkeypatch, fault):
    network, _ = load()
    plain, recorded = (make(network, **SETTINGS["style alone"], replay=replay) for replay in (False, True))
    record = emulator.record

    def faulty(function):
        if fault == "refuses":
            raise RuntimeError("no graphs today")
        result, again = record(function)
        return result, lambda: (again(), result[0].values.__imul__(1 + 1e-15))

    monkeypatch.setattr(emulator, "record", faulty)
    recorded(IMAGE)
    reason = "no graphs today" if fault == "refuses" else "other results"
    with pytest.warns(RuntimeWarning, match=f"launches are made one by one on emulated GPU: .*{reason}") as warned:
        found = [recorded(IMAGE * factor) for factor in (1.0, 0.5)]
    assert len(warned) == 1
    for (value, gradient), factor in zip(found, (1.0, 0.5), strict=True):
        expected, of_plain = plain(IMAGE * factor)
        assert value == expected
        np.testing.assert_array_equal(gradient, of_plain)


def test_a_recorded_overflow_is_found(load):
    network, _ = load()
    objective = make(network, **SETTINGS["content and style"], replay=True)
    objective(IMAGE)
    objective(IMAGE)
    with pytest.raises(NonFiniteError, match=r"it began at the style loss of 'conv1_1'"):
        objective(IMAGE * 1e23)
    assert np.isfinite(objective(IMAGE)[0])


# ---- memory ----


class Held:
    """Counts the bytes of the arrays on the device that are alive."""

    def __init__(self, emulator, monkeypatch):
        self.now = self.peak = 0
        # What the kernels compute is of no matter, and would take long.
        monkeypatch.setattr(emulator, "run", lambda *arguments: None)
        monkeypatch.setattr(emulator, "empty", self.empty)

    def empty(self, shape, dtype):
        array = DeviceArray.empty(shape, dtype)
        self.now += array.nbytes
        self.peak = max(self.peak, self.now)
        weakref.finalize(array._memory, self._free, array.nbytes)
        return array

    def _free(self, size):
        self.now -= size


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("channels", [(8, 8, 8), (32, 32, 32), (64, 128, 128)])
def test_estimated_memory_is_within_30_percent_of_what_is_allocated(
    emulator, monkeypatch, channels, pooling, dtype, tmp_path
):
    path = models.save(models.vgg(models.parameters((2, 2, 1), channels)), tmp_path / "m.onnx")
    network = load_network(path, pooling, device="cuda", dtype=dtype)
    layers = ("conv1_1", "conv2_1", "conv3_1")
    shapes = network.shapes(500, 600)
    held = Held(emulator, monkeypatch)
    functions = {name: lambda flowing, name=name: flowing or held.empty(shapes[name], dtype) for name in layers}
    for _ in range(2):  # the turned weights are made at the first run
        held.peak = held.now
        before = held.now
        network.backward(network.forward(network.placed(models.random_image(500, 600)), layers), functions)
    estimate = network.memory(500, 600, layers)
    assert 0.7 < estimate / (held.peak - before) < 1.3, (estimate, held.peak - before)
