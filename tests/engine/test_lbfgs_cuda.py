"""The optimizers with everything on a GPU, emulated: the same steps as on the CPU, and one wait an evaluation."""

import numpy as np
import pytest

from engine import Settings, load_network, minimize
from engine.lbfgs import History, l_bfgs
from engine.stylize import prepare
from tests.engine import models
from tests.engine.test_objective import IMAGE, SETTINGS, make
from tests.kernels.cuda.emulator import DeviceArray
from tests.kernels.devices import cpu, cuda, to_device, to_host

BOUNDS = (0.0, 255.0)


class OnHost:
    """A function of an image in NumPy, as ``l_bfgs`` takes it; remembers where it was asked."""

    def __init__(self, function):
        self.function, self.images = function, []

    def evaluate(self, image, launch):
        value, gradient = self.function(image)
        self.images.append(image)
        launch(gradient)
        return value, gradient


class OnDevice(OnHost):
    """The same of images that lie on the device."""

    def evaluate(self, image, launch):
        value, gradient = self.function(to_host(image))
        self.images.append(to_host(image))
        launch(to_device(gradient))
        return value, to_device(gradient)


def bowl(shape, seed=0, spread=2.0):
    """Return a quadratic function with its minimum outside the bounds in some values."""
    rng = np.random.default_rng(seed)
    scales, middle = 10 ** rng.uniform(-spread, 0, shape), rng.uniform(-100, 350, shape)
    return lambda image: (0.5 * float((scales * (image - middle) ** 2).sum()), scales * (image - middle))


def valley(image):
    """Rosenbrock's function of neighboring values, in units of a hundred gray levels: bent, with steps that fail."""
    x = image.ravel() / 100
    a, b = x[:-1], x[1:]
    value = float((100 * (b - a * a) ** 2 + (1 - a) ** 2).sum())
    gradient = np.zeros_like(x)
    gradient[:-1] += -400 * a * (b - a * a) - 2 * (1 - a)
    gradient[1:] += 200 * (b - a * a)
    return value, (gradient / 100).reshape(image.shape)


def walk(places, size, seed=0):
    """Return images within the bounds, some values at them, and gradients, one after the other."""
    rng = np.random.default_rng(seed)
    images = [np.clip(rng.uniform(-60, 315, size), *BOUNDS) for _ in range(places)]
    return [(image, (image - 100) * np.linspace(0.5, 2, size) + rng.normal(0, 5, size)) for image in images]


@pytest.mark.parametrize("size", [7, 4096, 9001])
def test_directions_are_the_cpus(emulator, size):
    """With pairs dropped, with a place proposed and not accepted before each that is, and after forgetting all."""
    ours, theirs = (History(device, 3, device.put(np.zeros(size)), BOUNDS) for device in (emulator.device, cpu))
    old = None
    for number, (image, gradient) in enumerate(walk(9, size)):
        emulator.descending = bool(number % 2)
        if number == 6:
            ours.clear()
            theirs.clear()
        ours.propose(to_device(image[::-1].copy()), to_device(-gradient))
        ours.fetch()
        ours.propose(to_device(image), to_device(gradient))
        theirs.propose(image, gradient)
        slopes = ours.fetch()
        assert slopes == pytest.approx(theirs.fetch(), rel=1e-12)
        assert ours.accept() == pytest.approx(theirs.accept(), rel=1e-12)
        if old is not None:
            assert slopes == pytest.approx((old[1] @ (image - old[0]), gradient @ (image - old[0])), rel=1e-12)
        old = image, gradient
        direction, slope = ours.direction()
        expected, expected_slope = theirs.direction()
        assert np.linalg.norm(to_host(direction) - expected) < 1e-4 * np.linalg.norm(expected)
        assert slope == pytest.approx(expected_slope, rel=1e-4)
        np.testing.assert_array_equal(to_host(direction) == 0, expected == 0)


@pytest.mark.parametrize("function", [bowl((5, 7, 3)), bowl((5, 7, 3), 1, 4.0), valley])
def test_the_same_minimum_in_as_many_evaluations(emulator, function):
    start = np.random.default_rng(2).uniform(0, 255, (5, 7, 3))
    objectives, values, outcomes = (OnDevice(function), OnHost(function)), ([], []), []
    for objective, seen, place in zip(objectives, values, (emulator.device, cpu), strict=True):
        outcomes.append(
            l_bfgs(
                place,
                objective.evaluate,
                lambda image, value, _, seen=seen: seen.append(value),
                place.put(start),
                BOUNDS,
                5,
                1e-9,
                1e-6,
            )
        )
    ours, theirs = values
    assert outcomes[0] == outcomes[1]
    assert ours[:8] == pytest.approx(theirs[:8], rel=1e-4)
    assert ours[-1] == pytest.approx(theirs[-1], rel=1e-6, abs=1e-6)
    assert len(objectives[0].images) <= 1.3 * len(objectives[1].images) + 3
    # Some steps were tried and not taken.
    assert function is not valley or len(objectives[0].images) > len(ours) + 1


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_search_that_ends_takes_the_best_that_it_tried(emulator, device):
    """Up to a cliff it falls ever more steeply, so that the search closes in on the cliff until it gives up."""

    def cliff(image):
        value = -float((image**1.5).sum()) if image.max() < 1000 else 1e9
        return value, -1.5 * image**0.5

    objective, start, found = OnHost(cliff), np.full(6, 1.0), []
    if device == "cuda":
        objective, start = OnDevice(cliff), to_device(start)

    def stop(image, value, _):
        found.append((to_host(image), value))
        if len(found) == 2:
            raise StopIteration

    place = emulator.device if device == "cuda" else cpu
    with pytest.raises(StopIteration):
        l_bfgs(place, objective.evaluate, stop, start, (0.0, np.inf), 4, 0.0, 0.0)
    image, value = found[1]
    assert value == min(cliff(tried)[0] for tried in objective.images) == cliff(image)[0]
    assert not np.array_equal(image, objective.images[-1])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_run_goes_on_from_the_lowest_that_a_search_tried(emulator, device, monkeypatch):
    """Told of values that do not belong to its slope, a search never finds its end; the third value is the lowest."""
    values, accepted = iter([10.0, 9.0, 5.0, *[6.0] * 100]), []
    accept = History.accept
    monkeypatch.setattr(
        History, "accept", lambda self: accepted.append(to_host(self._proposal.place[0])) or accept(self)
    )
    objective, start = OnHost(lambda image: (next(values), np.full(6, -1.0))), np.full(6, 1.0)
    if device == "cuda":
        objective, start = OnDevice(objective.function), to_device(start)
    found = []
    outcome = l_bfgs(
        emulator.device if device == "cuda" else cpu,
        objective.evaluate,
        lambda image, value, _: found.append((to_host(image), value)),
        start,
        (0.0, np.inf),
        4,
        0.0,
        0.0,
    )
    assert outcome == "stalled"
    assert [value for _, value in found] == [9.0, 5.0]
    for index in (1, 2):
        np.testing.assert_array_equal(found[index - 1][0], objective.images[index])
        np.testing.assert_array_equal(accepted[index], objective.images[index])


@pytest.fixture
def networks(emulator, tmp_path):
    path = models.save(models.vgg(models.parameters((2, 2, 2))), tmp_path / "tiny.onnx")
    return load_network(path, device="cuda"), load_network(path, threads=1)


@pytest.mark.parametrize("method", ["l-bfgs", "l-bfgs-b", "adam", "sgd"])
def test_a_run_on_the_device_is_the_cpus(networks, method):
    results, seen = [], []
    for network in networks:
        objective = make(network, **SETTINGS["content and style"])
        callback = (lambda state: seen.append(state)) if network.device.kind == "cuda" else None
        result = minimize(objective, network.placed(IMAGE), method, iterations=12, callback=callback)
        results.append(result)
    ours, theirs = results
    assert isinstance(ours.image, np.ndarray)
    assert (ours.stop, ours.iterations) == ("iterations", 12)
    assert ours.value == pytest.approx(theirs.value, rel=2e-3)
    assert ours.value < 0.65 * ours.initial_value
    assert objective_value(networks[0], ours.image) == pytest.approx(ours.value, rel=1e-6)
    assert all(isinstance(state.image, np.ndarray) for state in seen)
    assert isinstance(seen[-1].iterate, np.ndarray if method == "l-bfgs-b" else DeviceArray)


@pytest.mark.parametrize("method", ["l-bfgs", "l-bfgs-b", "adam", "sgd"])
def test_a_run_on_the_device_goes_on_from_copies_of_its_arrays(networks, method):
    network, states = networks[0], []

    def keep(told):
        states.append({name: np.array(array) for name, array in told.state().items()})

    def run(**options):
        objective = make(network, **SETTINGS["content and style"])
        return minimize(objective, network.placed(IMAGE), method, iterations=7, history=3, **options)

    unbroken = run(callback=keep, resumable=True)
    for state in states[1:5:3]:
        resumed = run(state=state)
        np.testing.assert_array_equal(resumed.image, unbroken.image)
        assert (resumed.value, resumed.evaluations) == (unbroken.value, unbroken.evaluations)


def objective_value(network, image):
    return make(network, **SETTINGS["content and style"])(image)[0]


def test_jobs_put_the_image_on_the_device(networks, emulator):
    settings = Settings(
        content_layers=["conv2_2"],
        style_layers=["conv1_1", "conv2_1"],
        content_weight=1e-3,
        optimizer="l-bfgs",
        iterations=3,
    )
    job = prepare(networks[0], IMAGE, IMAGE[::-1].copy(), settings)
    assert isinstance(job.run().image, np.ndarray)
    assert "lbfgs_store" in emulator.launches


def test_an_iteration_waits_for_the_device_once(networks, emulator, monkeypatch):
    objective, events = make(networks[0], **SETTINGS["content and style"]), []
    download, run = emulator.download, emulator.run
    monkeypatch.setattr(emulator, "download", lambda array: events.append("fetch") or download(array))
    monkeypatch.setattr(emulator, "run", lambda *launch: events.append("launch") or run(*launch))
    result = minimize(objective, to_device(IMAGE), "l-bfgs", iterations=6)
    waits = [index for index, event in enumerate(events) if event == "fetch" and events[index - 1] == "launch"]
    # The start takes two more: for the scale, and for what the first gradient leaves free. The result is the last.
    assert len(waits) <= result.evaluations + 2
    events.clear()
    minimize(objective, to_device(IMAGE), "adam", iterations=6)
    waits = [index for index, event in enumerate(events) if event == "fetch" and events[index - 1] == "launch"]
    assert len(waits) <= 7 + 2


def test_an_iteration_uploads_a_list_of_rows_and_the_factors_of_a_direction(networks, emulator, monkeypatch):
    objective, uploads, upload = make(networks[0], **SETTINGS["content and style"]), [], emulator.upload
    image = to_device(IMAGE)
    monkeypatch.setattr(emulator, "upload", lambda array: uploads.append(array) or upload(array))
    result = minimize(objective, image, "l-bfgs", iterations=6)
    assert len(uploads) <= 1 + result.evaluations + result.iterations + 1  # the first: that all are free


def test_an_initial_image_beyond_the_bounds_is_clipped(networks):
    objective = make(networks[0], **SETTINGS["content and style"])
    result = minimize(objective, to_device(3 * IMAGE - 200), "adam", iterations=2)
    assert 0 <= result.image.min() <= result.image.max() <= 255


def test_steps_are_the_cpus(emulator):
    rng = np.random.default_rng(0)
    image, gradient, first, second = rng.uniform(0, 255, (4, 5, 6, 3))
    given = [to_device(array) for array in (image, gradient, first, second)]
    ours = cuda.adam_step(*given, 3, 40.0, BOUNDS)
    np.testing.assert_allclose(
        to_host(ours), cpu.adam_step(image, gradient, first, second, 3, 40.0, BOUNDS), rtol=1e-13
    )
    np.testing.assert_allclose(to_host(given[2]), first, rtol=1e-13)
    np.testing.assert_allclose(to_host(given[3]), second, rtol=1e-13)
    ours = cuda.momentum_step(given[0], given[1], given[2], 0.9, 2.0, BOUNDS)
    np.testing.assert_allclose(to_host(ours), cpu.momentum_step(image, gradient, first, 0.9, 2.0, BOUNDS), rtol=1e-13)
    np.testing.assert_allclose(to_host(given[2]), first, rtol=1e-13)
    assert (to_host(cuda.zeros((2, 3))) == cpu.zeros((2, 3))).all()
