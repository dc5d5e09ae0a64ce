"""What is made once for a whole test run, however many worker processes (pytest-xdist) share it."""

import contextlib
import os
import time


def shared_folder(tmp_path_factory, name):
    """Return a folder that all worker processes of this run have in common."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder /= name
    folder.mkdir(exist_ok=True)
    return folder


@contextlib.contextmanager
def alone(lock, seconds=900):
    """Wait until no other process holds ``lock``, a file that exists as long as it is held."""
    end = time.monotonic() + seconds
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            assert time.monotonic() < end, f"{lock} has been held for {seconds} seconds"
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.unlink()
