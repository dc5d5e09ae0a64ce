"""A minimization that goes on from a saved state ends as an unbroken one does, to the bit."""

import zlib

import numpy as np
import pytest

import engine.optimizers.setulb
from engine.lbfgs import History
from engine.optimize import METHODS, minimize
from engine.optimizers.setulb import Solver, check_solver
from kernels import Cpu
from tests.engine.test_optimize import FAR_TARGET, LINE_SEARCH, SHAPE, START, Quadratic, Valley


class Noisy(Valley):
    """A valley whose value has the rounding of a float32 network, exaggerated: line searches fail."""

    def __init__(self, seed=0):
        super().__init__()
        self.seed = seed

    def __call__(self, image):
        value, gradient = super().__call__(image)
        noise = np.random.default_rng((self.seed, zlib.crc32(image.tobytes()))).standard_normal()
        return value + 0.1 * abs(noise), gradient


OBJECTIVES = {
    "bounds": lambda: Quadratic(FAR_TARGET),
    "valley": Valley,
    "noise": Noisy,
    "converges": lambda: Quadratic(START + 1),
}


def same(first, second):
    np.testing.assert_array_equal(first.image, second.image)
    for name in ("value", "initial_value", "iterations", "evaluations", "stop", "stop_reason"):
        assert getattr(first, name) == getattr(second, name), name


def states_of(objective, method, iterations, **options):
    """Return the result of a run and its states, copied as a file would have them."""
    states = []

    def keep(told):
        states.append({name: np.array(array) for name, array in told.state().items()})

    return minimize(objective, START, method, iterations, callback=keep, resumable=True, **options), states


@pytest.mark.parametrize("case", OBJECTIVES)
@pytest.mark.parametrize("method", METHODS)
def test_from_every_iteration_the_end_is_that_of_an_unbroken_run(method, case):
    make = OBJECTIVES[case]
    history = {"history": 4} if method.startswith("l-bfgs") else {}
    unbroken = minimize(make(), START, method, 30, **history)
    kept, states = states_of(make(), method, 30, **history)
    same(kept, unbroken)
    assert len(states) == unbroken.iterations
    for state in states:
        same(minimize(make(), np.zeros(SHAPE), method, 30, state=state, **history), unbroken)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_ends_because_the_image_hardly_changes_ends_there_again(method):
    options = {"change_tolerance": 3.0, "learning_rate": 1.0}
    unbroken = minimize(Valley(), START, method, 300, **options)
    assert unbroken.stop == "converged"
    kept, states = states_of(Valley(), method, 300, **options)
    same(kept, unbroken)
    for state in states[:: len(states) // 7] + states[-2:]:
        same(minimize(Valley(), np.zeros(SHAPE), method, 300, state=dict(state), **options), unbroken)
    for name in ("seen", "change"):
        with pytest.raises(ValueError, match=f"its '{name}' is missing"):
            minimize(Valley(), START, method, 300, state=states[0] | {name: np.zeros(2)}, **options)


@pytest.mark.parametrize("method", LINE_SEARCH)
def test_a_run_that_had_begun_afresh_goes_on_to_the_same_end(method, monkeypatch):
    """Where a line search fails, the corrections are thrown away, and a state after that is no different."""
    begun = []
    for kind, name in ((History, "clear"), (Solver, "solve")):
        own = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *a, own=own: (begun.append(1), own(self, *a))[1])
    for seed in range(50):
        begun.clear()
        times = []
        minimize(
            Noisy(seed),
            START,
            method,
            40,
            history=4,
            callback=lambda _, times=times: times.append(len(begun)),
            resumable=True,
        )
        if len(set(times)) > 1:
            break
    assert len(set(times)) > 1
    unbroken, states = states_of(Noisy(seed), method, 40, history=4)
    for state in states:
        same(minimize(Noisy(seed), START, method, 40, history=4, state=state), unbroken)


@pytest.mark.parametrize("method", METHODS)
def test_a_first_image_outside_the_bounds_is_not_evaluated_again(method):
    first = np.full(SHAPE, 300.0)
    states = []
    unbroken = minimize(
        Quadratic(),
        first,
        method,
        6,
        callback=lambda told: states.append({k: v.copy() for k, v in told.state().items()}) and None,
        resumable=True,
    )
    same(minimize(Quadratic(), first, method, 6, state=states[2]), unbroken)


@pytest.mark.parametrize("method", METHODS)
def test_a_state_goes_on_at_any_thread_count(method):
    random = np.random.default_rng(3)
    start, target = random.uniform(0, 255, (2, 60, 1200, 3))
    states = []

    def keep(told):
        if told.iteration == 4:
            states.append({name: array.copy() for name, array in told.state().items()})

    ends = [minimize(Quadratic(target), start, method, 9, callback=keep, resumable=True, device=Cpu(2))]
    ends += [
        minimize(Quadratic(target), start, method, 9, state=dict(states[0]), device=Cpu(count)) for count in (1, 3)
    ]
    same(ends[1], ends[0])
    same(ends[2], ends[0])


@pytest.mark.parametrize("method", METHODS)
def test_a_state_of_something_else_is_an_error_that_says_so(method):
    _, states = states_of(Quadratic(), method, 5)
    for name, array in states[-1].items():
        for changed in (None, np.zeros(array.shape, np.float16), array[None]):
            state = {key: value for key, value in states[-1].items() if key != name}
            if changed is not None:
                state[name] = changed
            with pytest.raises(ValueError, match="the saved state does not fit the run"):
                minimize(Quadratic(), START, method, 8, state=state)
    with pytest.raises(ValueError, match="the saved state does not fit the run"):
        minimize(Quadratic(), np.zeros((3, 3, 3)), method, 8, state=dict(states[-1]))
    with pytest.raises(ValueError, match="that of iteration 5, more than 4"):
        minimize(Quadratic(), START, method, 4, state=dict(states[-1]))


@pytest.mark.parametrize("method", METHODS)
def test_a_state_is_used_up_so_that_it_is_not_in_memory_twice(method):
    _, states = states_of(Quadratic(), method, 5)
    sizes, left = dict(states[-1]), states[-1]
    minimize(Quadratic(), START, method, 8, state=left)
    assert [name for name in left if sizes[name].size >= START.size] == []


def test_numbers_that_scipy_s_solver_would_trust_are_looked_at():
    _, states = states_of(Quadratic(), "l-bfgs-b", 5)
    places = [("counters", place) for place in (3, 26, 27, 28, 37)] + [("places", 4), ("places", 64)]
    for name, place in places:
        for value in (-7, 1 << 30):
            state = {key: array.copy() for key, array in states[-1].items()}
            state[name][place] = value
            with pytest.raises(ValueError, match="does not fit the run"):
                minimize(Quadratic(), START, "l-bfgs-b", 8, state=state)


def test_scipy_s_solver_is_refused_where_it_is_another(monkeypatch):
    class Other:
        @staticmethod
        def setulb(*arguments):
            raise TypeError("function takes exactly 18 arguments (17 given)")

    check_solver.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(engine.optimizers.setulb.importlib, "import_module", lambda name: Other)
        with pytest.raises(ValueError, match=r"does not let its state be saved .*: choose --optimizer l-bfgs"):
            minimize(Quadratic(), START, "l-bfgs-b", 5, resumable=True)
    minimize(Quadratic(), START, "l-bfgs-b", 5, resumable=True)


def test_without_being_told_scipy_s_run_has_no_state():
    def ask(told):
        with pytest.raises(ValueError, match="begin it with resumable=True"):
            told.state()

    assert minimize(Quadratic(), START, "l-bfgs-b", 3, callback=ask).iterations == 3
