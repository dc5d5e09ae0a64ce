from __future__ import annotations

import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest

from engine.batch import TRIES, run_batch


class Immediately(Executor):
    """Works in ``submit``, and remembers what was given out."""

    def __init__(self):
        self.given = []

    def submit(self, function, /, *arguments, **keywords):
        self.given.append(arguments)
        future = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


def results(*arguments, **keywords):
    return dict(run_batch(*arguments, **keywords))


def test_every_key_comes_back_with_its_result():
    with ThreadPoolExecutor(3) as executor:
        found = results(pow, range(20), lambda key: (key, 2), executor, ahead=3)
    assert found == {key: key**2 for key in range(20)}


def test_nothing_to_do_is_done_at_once():
    assert results(pow, [], lambda key: (key, 2), Immediately(), ahead=1) == {}


def test_the_caller_sees_each_result_before_the_next_task_is_given_out():
    executor = Immediately()
    batch = run_batch(lambda key: key, range(5), lambda key: (key,), executor, ahead=1)
    for count, _ in enumerate(batch, 1):
        assert len(executor.given) == count


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_tasks_are_out_than_allowed(ahead):
    lock, out, seen = threading.Lock(), set(), []

    def work(key):
        with lock:
            out.discard(key)

    def arguments(key):
        with lock:
            out.add(key)
            seen.append(len(out))
        return (key,)

    with ThreadPoolExecutor(8) as executor:
        results(work, range(30), arguments, executor, ahead=ahead)
    assert max(seen) <= ahead


def test_a_task_that_fails_is_given_out_again_with_new_arguments():
    tries = []

    def arguments(key):
        tries.append(key)
        return key, len(tries)

    def work(key, attempt):
        if attempt < TRIES:
            raise ConnectionError("the worker is gone")
        return attempt

    assert results(work, ["a"], arguments, Immediately(), ahead=1) == {"a": TRIES}
    assert tries == ["a"] * TRIES


def test_what_fails_every_time_comes_back_as_its_error_and_stops_nothing_else():
    def work(key):
        if key == 1:
            raise ConnectionError("the worker is gone")
        return key

    executor = Immediately()
    found = results(work, range(3), lambda key: (key,), executor, ahead=1)
    assert isinstance(found.pop(1), ConnectionError)
    assert found == {0: 0, 2: 2}
    assert executor.given.count((1,)) == TRIES


def test_a_canceled_task_is_given_out_again():
    class Canceling(Immediately):
        def submit(self, function, /, *arguments, **keywords):
            future = super().submit(function, *arguments, **keywords)
            if len(self.given) > 1:
                return future
            canceled = Future()
            canceled.cancel()
            canceled.set_running_or_notify_cancel()
            return canceled

    executor = Canceling()
    assert results(abs, [-3], lambda key: (key,), executor, ahead=1) == {-3: 3}
    assert len(executor.given) == 2


def test_an_executor_that_is_shut_down_is_an_error_of_the_task():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    found = results(abs, [-3], lambda key: (key,), executor, ahead=1)
    assert isinstance(found[-3], RuntimeError)


def test_the_caller_hears_while_nothing_is_done():
    calls, done = [], threading.Event()

    def waiting():
        calls.append(1)
        done.set()

    with ThreadPoolExecutor(1) as executor:
        found = results(done.wait, [10], lambda key: (key,), executor, ahead=1, waiting=waiting, interval=0.01)
    assert found == {10: True}
    assert calls


def test_leaving_early_cancels_what_has_not_begun():
    release = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        batch = run_batch(lambda key: key or release.wait(10), [1, 0, 2, 3], lambda key: (key,), executor, ahead=4)
        assert next(batch) == (1, 1)
        batch.close()
        release.set()
    with pytest.raises(ValueError, match="ahead must be at least 1"):
        next(run_batch(abs, [1], lambda key: (key,), executor, ahead=0))
