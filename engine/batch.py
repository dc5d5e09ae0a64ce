"""Many independent tasks on any ``concurrent.futures.Executor``: a worker that dies costs its task another try."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Hashable)

TRIES = 3
"""How often a task is given out before it is given up."""


def run_batch(
    function: Callable[..., Any],
    keys: Iterable[Key],
    arguments: Callable[[Key], tuple[Any, ...]],
    executor: Executor,
    ahead: int,
    waiting: Callable[[], None] | None = None,
    interval: float = 1.0,
) -> Iterator[tuple[Key, Any | BaseException]]:
    """Yield each key with the result of ``function(*arguments(key))``, in order of completion.

    Parameters
    ----------
    function : what a worker runs; it and its arguments are pickled where the workers are other processes. An
        exception from it counts as the worker's: it is tried again, ``TRIES`` times in all, and then yielded in place
        of a result. What is wrong with the task itself the function has to return.
    keys : the tasks, in the order in which they are given out.
    arguments : called anew for every try.
    executor : anything with ``concurrent.futures``' interface. It is not shut down.
    ahead : how many tasks are given out at a time; 1 for an executor that works in ``submit``.
    waiting : called at least every ``interval`` seconds while nothing is done.
    """
    if ahead < 1:
        raise ValueError(f"ahead must be at least 1, got {ahead}")
    todo = iter(keys)
    tries: dict[Key, int] = {}
    running: dict[Future[Any], Key] = {}

    def submit(key: Key) -> None:
        tries[key] = tries.get(key, 0) + 1
        try:
            future = executor.submit(function, *arguments(key))
        except Exception as error:  # the executor itself has come to an end: the same as a dead worker
            future = Future()
            future.set_exception(error)
        running[future] = key

    try:
        while True:
            while len(running) < ahead and (key := next(todo, None)) is not None:
                submit(key)
            if not running:
                return
            done, _ = wait(running, timeout=interval, return_when=FIRST_COMPLETED)
            if not done and waiting is not None:
                waiting()
            for future in sorted(done, key=lambda future: list(running).index(future)):
                key = running.pop(future)
                error = _error(future)
                if error is None:
                    yield key, future.result()
                elif tries[key] < TRIES:
                    submit(key)
                else:
                    yield key, error
    finally:
        for future in running:
            future.cancel()


def _error(future: Future[Any]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError as error:  # by the executor: its worker, or what the task needed there, is gone
        return error
