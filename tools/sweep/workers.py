"""Where the cells of a sweep are made: in this process, in local processes, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import queue
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from kernels.cpu.threads import available_cores
from tools.media.record import versions

ANSWER_SECONDS = 8.0
"""How long a Dask scheduler, or its first worker, may take to answer."""

SILENT_SECONDS = 20.0
"""A scheduler that does not answer for so long in the middle of the work is given up."""

PROCESS_BYTES = 100_000_000
"""What a worker's process takes up before it has a network: measured on Linux, Python 3.11."""

Sharing = Callable[[str, Path], Any]
"""Takes a file's SHA-256 and path; returns what reaches ``make_cell`` as its path or its content."""


class Tell:
    """A function among a task's arguments: the task calls it wherever it runs, and it is called in this process.

    By ``LocalProcesses`` in a thread of its own; on a cluster it does nothing.
    """

    def __init__(self, function: Callable[[Any], object] | None) -> None:
        self.function = function

    def __call__(self, what: Any) -> None:
        """Call the function, where there is one."""
        if self.function is not None:
            self.function(what)

    def __reduce__(self) -> Any:
        return Tell, (None,)  # the function stays where it is


@dataclass(frozen=True, eq=False)
class Workers:
    """Where tasks are run.

    Parameters
    ----------
    executor : runs them.
    count : how many are given out at a time.
    working : how many are worked on at a time.
    threads : of each.
    share : gives the workers a file, each worker once.
    alive : tells whether there are any left; raises ConnectionError where nothing answers any more.
    description : for the user.
    """

    executor: Executor
    count: int
    working: int
    threads: int
    share: Sharing
    alive: Callable[[], bool]
    description: str


# ---- on this machine ----


@contextlib.contextmanager
def local_workers(count: int, threads: int | None) -> Iterator[Workers]:
    """Give workers on this machine: this process for one, processes of their own for several.

    Parameters
    ----------
    count : how many.
    threads : of each; None shares the cores out.
    """
    each = max(1, available_cores() // count) if threads is None else threads
    described = f"{count} worker{'' if count == 1 else 's'} with {each} thread{'' if each == 1 else 's'}"
    executor = InThisProcess() if count == 1 else LocalProcesses(count)
    try:
        yield Workers(executor, count, count, each, lambda sha256, path: path, lambda: True, described)
    finally:
        executor.shutdown(cancel_futures=True)


class InThisProcess(Executor):
    """Runs a task as it is submitted."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Return what the task came to; Ctrl-C is raised at once."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


class WorkerDiedError(RuntimeError):
    """A worker's process ended in the middle of its task."""


class LocalProcesses(Executor):
    """Runs tasks in processes of their own; one that dies loses its task only, and is replaced.

    The standard library's process pool gives up all its tasks when one process dies.
    """

    def __init__(self, count: int) -> None:
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._all = {_Process() for _ in range(count)}
        for process in self._all:
            self._idle.put(process)
        # A thread waits for each process.
        self._threads = ThreadPoolExecutor(count, "worker")

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Give a task to the next process that is free; its exceptions come back as they are."""
        return self._threads.submit(self._run, function, arguments, keywords)

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        process = self._idle.get()
        try:
            return process.run(function, arguments, keywords)
        finally:
            self._idle.put(process)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes, also in the middle of a task when ``cancel_futures`` is set."""
        if cancel_futures:
            for process in self._all:
                process.end()
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for process in self._all:
            process.end()


class _Process:
    """A process that runs one task after the other, started with its first."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None
        self._ended = False
        self._lock = threading.Lock()

    def run(self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        with self._lock:
            if self._ended:
                raise WorkerDiedError("the workers have been shut down")
            if self._connection is None:
                # Not forked: the threads of a forked process hold locks that nobody will open.
                context = multiprocessing.get_context("spawn")
                self._connection, theirs = context.Pipe()
                self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
                self._process.start()
                theirs.close()
            connection = self._connection
        try:
            connection.send((function, arguments, keywords))
            while (message := connection.recv())[0] is not None:
                place, what = message
                arguments[place](what)
        except (EOFError, OSError):
            self._forget()
            raise WorkerDiedError("the worker's process ended in the middle of the task") from None
        _, result, error = message
        if error is not None:
            raise error
        return result

    def end(self) -> None:
        """Kill the process; a task that waits for it fails."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def _forget(self) -> None:
        with self._lock:
            assert self._process is not None
            assert self._connection is not None
            self._connection.close()
            self._process.kill()
            self._process.join()
            self._process = self._connection = None


def _serve(connection: Connection) -> None:
    """Run what comes until the other end is closed; a parent that was killed closes it as well."""
    # Ctrl-C in a terminal reaches all processes: the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    # A parent that is killed in the middle of a task takes its workers along.
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    while True:
        try:
            function, arguments, keywords = connection.recv()
        except EOFError:
            return
        for place, argument in enumerate(arguments):
            if isinstance(argument, Tell):
                argument.function = functools.partial(_tell, connection, place)
        answer: tuple[None, Any, Exception | None]
        try:
            answer = (None, function(*arguments, **keywords), None)
        except Exception as error:
            answer = (None, None, error)
        connection.send(answer)


def _tell(connection: Connection, place: int, what: Any) -> None:
    connection.send((place, what))


def _end_with(process: BaseProcess) -> None:
    process.join()
    os._exit(1)


# ---- on a cluster ----


@contextlib.contextmanager
def dask_workers(address: str, threads: int | None) -> Iterator[Workers]:
    """Give the workers of a running Dask cluster.

    Parameters
    ----------
    address : of its scheduler, ``tcp://host:port`` or ``host:port``.
    threads : of each task; None shares the cores of a machine out among its workers.

    Raises ValueError when ``distributed`` is not installed, when no scheduler or no worker answers, and when the
    workers cannot run this program.
    """
    try:
        import distributed
    except ImportError:
        raise ValueError("--scheduler needs Dask: pip install '.[cluster]'") from None
    fits = re.fullmatch(r"(?:tcp://)?(?:[^:/\s]+|\[[^\s]+\]):(\d{1,5})", address)
    if not fits or not 0 < int(fits[1]) < 65536:
        raise ValueError(f"{address!r} is no address of a Dask scheduler, which looks like tcp://HOST:PORT")
    try:
        client = distributed.Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"no Dask scheduler answers at {address!r}: {_first_line(error)}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER_SECONDS)
        except TimeoutError:
            raise ValueError(
                f"the scheduler at {address!r} has no workers: start some with: dask worker ADDRESS"
            ) from None
        try:
            found: Mapping[str, tuple[int, dict[str, str]]] = client.run(_machine)
        except Exception as error:  # whatever they raise, ModuleNotFoundError first of all
            raise ValueError(f"the workers cannot run this program, install it there: {_first_line(error)}") from None
        others = {name: there for name, (_, there) in found.items() if there != versions()}
        if others:
            name, there = next(iter(others.items()))
            raise ValueError(
                f"the worker {name} has other versions, which would give other pictures: {there}, here {versions()}"
            )
        hosts: dict[str, int] = {}
        information = client.scheduler_info(n_workers=-1)["workers"]
        for worker in information.values():
            hosts[worker["host"]] = hosts.get(worker["host"], 0) + 1
        cores = {information[name]["host"]: cores for name, (cores, _) in found.items() if name in information}
        each = threads or min(max(1, count // hosts[host]) for host, count in cores.items())
        yield Workers(
            client.get_executor(pure=False),
            # A worker gets its next cell while it is at the last one.
            2 * len(found),
            len(found),
            each,
            _Scattered(client),
            lambda: _has_workers(client, address),
            f"{len(found)} Dask worker{'' if len(found) == 1 else 's'}, {each} thread{'' if each == 1 else 's'} a cell",
        )


def _has_workers(client: Any, address: str) -> bool:
    """Tell whether a cluster has workers left; raises ConnectionError where its scheduler does not answer."""
    if client.status != "running":
        return False
    try:
        return bool(client.sync(client.scheduler.identity, n_workers=1, callback_timeout=SILENT_SECONDS)["workers"])
    except (OSError, TimeoutError):
        raise ConnectionError(f"the scheduler at {address!r} does not answer any more") from None


class _Scattered:
    """Files on a cluster, by content: each worker that needs one gets it once."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._there: dict[str, Any] = {}

    def __call__(self, sha256: str, path: Path) -> Any:
        # What lay only on a worker that died is sent again.
        if sha256 not in self._there or self._there[sha256].status != "finished":
            self._there[sha256] = self._client.scatter(path.read_bytes(), hash=True)
        return self._there[sha256]


def _machine() -> tuple[int, dict[str, str]]:
    """Return the cores and the versions of the machine that this runs on, with what a cell needs imported."""
    import tools.sweep.cells  # noqa: F401  # fails here, and not in the first cell

    return available_cores(), versions()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
