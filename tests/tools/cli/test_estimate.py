"""How long a run takes, told from one evaluation."""

import pytest

from engine.load import load_network
from engine.stylize import Settings, prepare
from tests.engine import models
from tools.cli import estimate

SIZE = (40, 56)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    blocks = models.parameters((2, 2, 3, 3, 1), (4, 4, 5, 6, 6))
    return load_network(models.save(models.vgg(blocks), tmp_path_factory.mktemp("model") / "model.onnx"))


@pytest.fixture
def passes(monkeypatch):
    """Let each evaluation of a job's objective take as many seconds as the list says, by the clock."""

    def begin(job, seconds):
        now, real = [0.0], job.objective.__class__.__call__

        def evaluated(objective, image):
            now[0] += seconds.pop(0)
            return real(objective, image)

        monkeypatch.setattr(job.objective.__class__, "__call__", evaluated)
        monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])

    return begin


def job_of(network, **changes):
    layers = ("conv1_1", "conv4_1", "conv5_1")
    settings = Settings(style_layers=layers, content_layers=("conv4_2",), content_weight=1e-2, **changes)
    return prepare(network, models.random_image(*SIZE, seed=1), models.random_image(*SIZE, seed=2), settings)


@pytest.mark.parametrize(("seconds", "taken"), [([2.0, 1.0], 1.0), ([4.0], 4.0)])
def test_the_second_evaluation_counts_unless_the_first_is_long(network, passes, seconds, taken):
    job = job_of(network, optimizer="adam")
    passes(job, seconds)
    value, found = estimate.seconds_of_evaluation(job)
    assert found == taken
    assert seconds == []
    assert value == job_of(network).objective.value(job.initial)


def test_most_evaluations_of_a_run_are_without_the_deepest_layer(network, passes):
    job = job_of(network)
    passes(job, [2.0, 1.0])
    assert estimate.seconds_of_evaluation(job)[1] == job.usual_share < 0.99


def test_reports_and_the_optimizers_own_time_are_added(network):
    job = job_of(network, optimizer="sgd", iterations=10)
    assert estimate.seconds_of_run(job, job.settings, 0.5, 0) == pytest.approx(5.0, rel=0.01)
    assert estimate.seconds_of_run(job, job.settings, 0.5, 2) == pytest.approx(5.0 + 0.5 * 2 * 2.7, rel=0.01)
    own = estimate.seconds_of_run(job, Settings(optimizer="l-bfgs-b", iterations=100), 0.0, 0)
    assert own == pytest.approx(job.initial.size * (3e-6 + 100 * 2.5e-7))
