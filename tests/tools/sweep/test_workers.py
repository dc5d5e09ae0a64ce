from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest

from engine.batch import run_batch
from kernels.cpu.threads import available_cores
from tools.sweep.workers import InThisProcess, LocalProcesses, Tell, WorkerDiedError, dask_workers, local_workers

ROOT = Path(__file__).resolve().parent.parent.parent.parent


def work_until(folder: str, name: str, until: str) -> int:
    """Say in a file which process works on a task, and work until there is a file ``until``."""
    pid = os.getpid()
    (Path(folder) / f"{name}-{pid}").touch()
    while not (Path(folder) / until).exists():
        time.sleep(0.01)
    return pid


def count(tell: Tell, name: str, numbers: int) -> str:
    """Tell some numbers, one after the other."""
    for number in range(numbers):
        tell((name, number))
    return name


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def appeared(folder: Path, pattern: str, seconds: float = 30) -> Path:
    """Wait for a file."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := sorted(folder.glob(pattern)):
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"{pattern} did not appear: {sorted(folder.iterdir())}")


def gone(pid: int, seconds: float = 30) -> bool:
    """Wait until a process is no more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_one_worker_is_this_process_with_all_cores():
    with local_workers(1, None) as workers:
        assert isinstance(workers.executor, InThisProcess)
        assert workers.threads == available_cores()
        assert workers.executor.submit(os.getpid).result() == os.getpid()
        assert isinstance(workers.executor.submit(int, "x").exception(), ValueError)


def test_the_cores_are_shared_out_among_workers():
    for count in (1, 2, 3, 1000):
        with local_workers(count, None) as workers:  # a process is started with its first task only
            assert workers.threads == max(1, available_cores() // count)
            assert workers.count == count
    with local_workers(2, 5) as workers:
        assert workers.threads == 5


@pytest.mark.slow
def test_tasks_run_in_processes_of_their_own_which_are_kept(tmp_path):
    executor = LocalProcesses(2)
    try:
        (tmp_path / "go").touch()
        futures = [executor.submit(work_until, str(tmp_path), str(task), "go") for task in range(6)]
        pids = {future.result(60) for future in futures}
        assert len(pids) <= 2
        assert os.getpid() not in pids
        with pytest.raises(ValueError, match="invalid literal"):
            executor.submit(int, "x").result(60)
        np.testing.assert_array_equal(executor.submit(np.arange, 3).result(60), [0, 1, 2])
    finally:
        executor.shutdown(cancel_futures=True)
    assert all(gone(pid) for pid in pids)


@pytest.mark.slow
def test_a_process_that_dies_loses_its_own_task_only(tmp_path):
    executor = LocalProcesses(2)
    try:
        other = executor.submit(work_until, str(tmp_path), "other", "go")
        appeared(tmp_path, "other-*")
        dying = executor.submit(die)
        with pytest.raises(WorkerDiedError):
            dying.result(60)
        # Its place is taken by a new process, and the other one has not noticed.
        assert not other.done()
        assert executor.submit(os.getpid).result(60) != os.getpid()
        (tmp_path / "go").touch()
        assert other.result(60) == int(appeared(tmp_path, "other-*").name.partition("-")[2])
    finally:
        executor.shutdown(cancel_futures=True)


def test_what_a_task_tells_is_heard_where_it_was_given_out():
    heard: list[tuple[str, int]] = []
    assert InThisProcess().submit(count, Tell(heard.append), "here", 3).result() == "here"
    assert heard == [("here", 0), ("here", 1), ("here", 2)]
    elsewhere = pickle.loads(pickle.dumps(Tell(heard.append)))
    elsewhere("nobody hears this")
    assert len(heard) == 3


@pytest.mark.slow
def test_what_tasks_in_other_processes_tell_is_heard_here_in_order():
    heard: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    by: set[int] = set()

    def hear(told: tuple[str, int]) -> None:
        by.add(os.getpid())
        heard[told[0]].append(told[1])

    executor = LocalProcesses(2)
    try:
        futures = [executor.submit(count, Tell(hear), name, 50) for name in heard]
        assert [future.result(60) for future in futures] == list(heard)
        with pytest.raises(TypeError):
            executor.submit(count, Tell(hear), "a", "no number").result(60)
    finally:
        executor.shutdown(cancel_futures=True)
    assert heard == {name: list(range(50)) for name in heard}
    assert by == {os.getpid()}


def kill_first_then_let_all_go(folder: Path) -> None:
    os.kill(int(appeared(folder, "0-*").name.partition("-")[2]), signal.SIGKILL)
    appeared(folder, "1-*")
    (folder / "go").touch()


@pytest.mark.slow
def test_a_batch_survives_a_killed_process(tmp_path):
    executor = LocalProcesses(2)
    try:
        keys = [str(task) for task in range(4)]
        batch = run_batch(work_until, keys, lambda key: (str(tmp_path), key, "go"), executor, ahead=2, interval=0.05)
        victim = threading.Thread(target=kill_first_then_let_all_go, args=(tmp_path,))
        victim.start()
        found = dict(batch)
        victim.join()
        assert sorted(found) == keys
        assert all(isinstance(pid, int) for pid in found.values())
        # Five processes have begun four tasks.
        assert len(list(tmp_path.glob("?-*"))) == 5
    finally:
        executor.shutdown(cancel_futures=True)


@pytest.mark.slow
def test_shutting_down_ends_processes_in_the_middle_of_their_tasks(tmp_path):
    executor = LocalProcesses(1)
    future = executor.submit(work_until, str(tmp_path), "long", "never")
    pid = int(appeared(tmp_path, "long-*").name.partition("-")[2])
    executor.shutdown(cancel_futures=True)
    assert gone(pid)
    wait([future], 10)
    assert isinstance(future.exception(0), WorkerDiedError)


@pytest.mark.slow
def test_a_killed_parent_takes_its_processes_along(tmp_path):
    code = (
        "from tests.tools.sweep.test_workers import work_until\n"
        "from tools.sweep.workers import LocalProcesses\n"
        "if __name__ == '__main__':\n"
        f"    LocalProcesses(1).submit(work_until, {str(tmp_path)!r}, 'child', 'never').result()\n"
    )
    (tmp_path / "parent.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], env=environment, cwd=ROOT)
    try:
        child = int(appeared(tmp_path, "child-*").name.partition("-")[2])
    finally:
        parent.kill()
        parent.wait()
    assert gone(child)


# ---- a cluster ----


@pytest.mark.parametrize(
    "address", ["", "nonsense", "tcp://", "host:", "host:port", "a b:1", "h:0", "h:99999", "http://h:80"]
)
def test_what_is_no_address_is_refused_at_once(address):
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match="no address of a Dask scheduler"), dask_workers(address, None):
        pass


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_an_error_within_ten_seconds():
    pytest.importorskip("distributed")
    began = time.monotonic()
    with pytest.raises(ValueError, match="no Dask scheduler answers at"), dask_workers("127.0.0.1:1", None):
        pass
    assert time.monotonic() - began < 10


def test_a_file_is_given_to_the_cluster_once_by_its_content(cluster, tmp_path):
    address, processes = cluster
    (tmp_path / "a").write_bytes(b"content")
    with dask_workers(address, None) as workers:
        first = workers.share("hash of a", tmp_path / "a")
        assert workers.share("hash of a", tmp_path / "a") is first
        lengths = [workers.executor.submit(len, first) for _ in range(6)]
        assert [length.result(30) for length in lengths] == [7] * 6
        assert workers.threads == max(1, available_cores() // 2)
        for process in processes:
            process.kill()
            process.wait()
        end = time.monotonic() + 30
        while workers.alive() and time.monotonic() < end:
            time.sleep(0.05)
        assert not workers.alive()


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"\[cluster\]"), dask_workers("127.0.0.1:1", None):
        pass
