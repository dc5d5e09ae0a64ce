"""Sharing work among threads: everything once, results in order, errors out."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from kernels.cpu.threads import Threads, available_cores

COUNTS = [1, 2, 3, 5]


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("threads", COUNTS)
def test_results_come_in_the_order_of_the_items(threads):
    def slow_at_first(item):
        time.sleep(0.002 * (10 - item))
        return item * item

    assert Threads(threads).map(slow_at_first, range(10)) == [item * item for item in range(10)]


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_every_item_is_done_once(threads, count):
    done = []
    Threads(threads).map(done.append, range(count))
    assert sorted(done) == list(range(count))


def test_several_workerswork_at_the_same_time():
    # Each of the three waits for the other two: fewer threads would never get past it.
    barrier = threading.Barrier(3)
    names = Threads(3).map(lambda _: (barrier.wait(10), threading.current_thread().name)[1], range(3))
    assert len(set(names)) == 3
    assert threading.current_thread().name in names


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("bad", [0, 7, 19])
def test_an_error_in_any_item_is_raised(threads, bad):
    def fail(item):
        if item == bad:
            raise ZeroDivisionError(f"item {item}")

    with pytest.raises(ZeroDivisionError, match=f"item {bad}"):
        Threads(threads).map(fail, range(20))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
@pytest.mark.parametrize("interruptions", [1, 5])
def test_an_interruption_comes_after_all_threads_have_ended(interruptions):
    """One in the caller's item, or further ones while it waits for the other thread."""
    caller, at_work, wrote = threading.current_thread(), threading.Event(), []

    def item(_):
        if threading.current_thread() is caller:
            at_work.wait(10)
            time.sleep(10)
        else:
            at_work.set()
            time.sleep(0.5)
            wrote.append("all")

    def interrupt(number, frame):
        sent.append(number)
        if len(sent) == interruptions:
            signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt

    sent, before = [], signal.signal(signal.SIGALRM, interrupt)
    threads = Threads(2)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(KeyboardInterrupt):
            threads.map(item, range(50))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (wrote, len(sent)) == (["all"], interruptions)  # the strips that nobody had begun were left
    assert threads.map(str, range(5)) == list("01234")


def test_an_error_of_a_helper_thread_is_raised():
    caller = threading.current_thread()
    both = threading.Barrier(2)

    def fail_elsewhere(_):
        both.wait(10)
        if threading.current_thread() is not caller:
            raise ZeroDivisionError("in a helper")

    with pytest.raises(ZeroDivisionError, match="in a helper"):
        Threads(2).map(fail_elsewhere, range(2))


def test_no_thread_still_works_when_an_error_comes_out():
    caller, running = threading.current_thread(), threading.Barrier(2)
    finished = []

    def item(_):
        running.wait(10)
        if threading.current_thread() is caller:
            raise ZeroDivisionError("at once")
        time.sleep(0.05)
        finished.append(True)

    with pytest.raises(ZeroDivisionError, match="at once"):
        Threads(2).map(item, range(2))
    assert finished == [True]


def test_threads_go_on_after_an_error():
    workers = Threads(3)
    with pytest.raises(ZeroDivisionError):
        workers.map(lambda item: 1 // item, range(4))
    assert workers.map(str, range(4)) == ["0", "1", "2", "3"]


def test_one_thread_means_the_calling_thread():
    assert set(Threads(1).map(lambda _: threading.get_ident(), range(5))) == {threading.get_ident()}


@pytest.mark.parametrize("threads", [0, -2])
def test_fewer_than_one_thread_is_refused(threads):
    with pytest.raises(ValueError, match=f"threads must be at least 1, got {threads}"):
        Threads(threads)


def test_the_default_is_one_thread_for_each_core_the_process_may_use():
    assert Threads().count == available_cores()
    assert 1 <= available_cores() <= os.cpu_count()


def test_single_threaded_blas_holds_inside_and_is_restored_after():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = blas_threads()
    assert before
    for workers in (Threads(2), Threads(1)):
        with workers.computing():
            assert set(blas_threads()) == {1}
            with workers.computing():
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
        assert blas_threads() == before


def test_blas_is_restored_after_an_error():
    before = blas_threads()
    with pytest.raises(ZeroDivisionError), Threads(2).computing():
        raise ZeroDivisionError
    assert blas_threads() == before


def test_blas_is_restored_when_the_last_of_several_workersis_done():
    """Interleaved: the first to begin ends before the second does."""
    before = blas_threads()
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    seen = []

    def first():
        with Threads(1).computing():
            first_is_in.set()
            second_is_in.wait(10)
        seen.append(blas_threads())
        first_is_out.set()

    thread = threading.Thread(target=first)
    thread.start()
    first_is_in.wait(10)
    with Threads(1).computing():
        second_is_in.set()
        first_is_out.wait(10)
        seen.append(blas_threads())
    thread.join()
    assert [set(counts) for counts in seen] == [{1}, {1}]
    assert blas_threads() == before


def test_a_map_within_a_map_is_computed_by_the_calling_thread():
    workers = Threads(2)

    def inner(item):
        return workers.map(lambda other: (item, other, threading.get_ident()), range(3))

    results = workers.map(inner, range(4))
    assert [[(item, other) for item, other, _ in row] for row in results] == [
        [(item, other) for other in range(3)] for item in range(4)
    ]
    assert all(len({thread for _, _, thread in row}) == 1 for row in results)
    # Afterward they share the work again.
    together = threading.Barrier(2)
    workers.map(lambda _: together.wait(10), range(2))


@pytest.mark.parametrize("threads", [2.5, "2", 1.0])
def test_a_number_of_workersthat_is_not_whole_is_refused(threads):
    with pytest.raises(ValueError, match="threads must be a whole number, got"):
        Threads(threads)
