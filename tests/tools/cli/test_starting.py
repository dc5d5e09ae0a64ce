"""A tool that is stopped, or kept short, while its libraries are being loaded."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools.cli import starting

ROOT = Path(__file__).parents[3]


def started(prelude: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool's beginning in a process of its own, as ``python -m`` does, with something done before and after."""
    program = (
        f"import sys; sys.argv[0] = '-m'; sys.orig_argv[:] = ['python', '-m', 'tools.stylize']; {prelude}\n"
        f"import tools; {code}"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_during_the_imports_ends_in_one_line(name, code):
    done = started("import os, signal", f"os.kill(os.getpid(), signal.{name}); import time; time.sleep(50)")
    assert (done.returncode, done.stderr) == (code, "stylize: interrupted\n")


def test_a_limit_of_memory_below_the_libraries_is_told_at_once():
    pytest.importorskip("resource")
    limit = 150_000_000
    done = started(f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))", "import numpy")
    assert done.returncode == 2
    assert done.stderr.startswith("stylize: the memory is limited to 150 MB, the libraries alone need ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("MemoryError()", "out of memory"),
        ("ImportError('many\\nlines\\n\\nthe reason')", "the reason"),
        ("ImportError('x.so: failed to map segment from shared object')", "out of memory"),
        ("ModuleNotFoundError(\"No module named 'numpy'\")", "No module named 'numpy': pip install ."),
    ],
)
def test_what_goes_wrong_with_the_imports_is_one_line(error, said):
    done = started("", f"raise {error}")
    assert (done.returncode, done.stderr) == (2, f"stylize: cannot load its libraries: {said}\n")


def test_an_error_of_the_program_itself_has_a_traceback():
    assert "Traceback" in started("", "raise KeyError('a bug')").stderr


def test_a_limit_of_threads_is_told_in_one_line():
    prelude = """
import threading
start, left = threading.Thread.start, [1]
def limited(self):
    if not left:
        raise RuntimeError("can't start new thread")
    left.pop()
    start(self)
threading.Thread.start = limited
"""
    done = started(prelude)
    assert done.returncode == 2
    assert done.stderr.startswith("stylize: the system allows no ")
    assert done.stderr.count("\n") == 1


def test_the_threads_that_were_tried_are_gone_again():
    before = threading.active_count()
    assert starting.can_start(5)
    assert threading.active_count() == before


@pytest.mark.parametrize(("ignored", "code"), [(True, 0), (False, 130)])
def test_nohup_is_heeded_and_a_closed_terminal_interrupts(ignored, code):
    signal = pytest.importorskip("signal")
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("no SIGHUP on this system")
    program = (
        "import os, signal, time\nfrom tools.cli.command_line import run\n"
        f"if {ignored}: signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "def main(argv):\n    os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.2); return 0\nrun(main, [])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == code
