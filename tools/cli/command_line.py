"""What every tool's command line shares: argument types, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tools.cli import starting
from tools.cli.interruption import SIGNALS, Interrupt
from tools.media.record import PROJECT, own_version

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

MAX_THREADS = 1024
"""More threads than any machine has cores for would only use up its memory."""

MAX_COUNT = 1_000_000_000
"""More pixels, iterations or workers than this are a slip of the finger; some libraries cannot count further."""

MAX_SHOWN = 60
"""Characters of a wrong number that its error repeats."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How the system says that a disk, or what a user may have of it, is full."""


class Parser(argparse.ArgumentParser):
    """An argument parser with ``--version``, whose errors are one line on standard error and exit code 2."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation would mean something else as soon as there is another option.
        super().__init__(allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=f"{PROJECT} {own_version()}")

    def error(self, message: str) -> NoReturn:
        """Print ``message`` on one line and exit with code 2."""
        self.exit(EXIT_ERROR, f"{self.prog}: {message} (--help lists the options)\n")


def add_shared(
    parser: argparse.ArgumentParser,
    *,
    threads: str | None = "threads to use (default: all cores)",
    cache: bool = True,
    shown: str = "errors",
    suppressed: bool = False,
) -> None:
    """Add the options that most tools have: ``--threads``, ``--cache`` and ``--quiet``.

    Parameters
    ----------
    threads : what the help says of them; None for a tool that has no choice.
    cache : whether the tool looks for models.
    shown : what is printed in spite of ``--quiet``.
    suppressed : leave what is not given out of the result. For a command behind a tool's own options: its defaults
        would overwrite what was given before its name.
    """
    nothing = argparse.SUPPRESS if suppressed else None
    if threads is not None:
        parser.add_argument("--threads", type=thread_count, default=nothing, metavar="N", help=threads)
    if cache:
        parser.add_argument(
            "--cache",
            type=given_path,
            default=nothing,
            metavar="DIR",
            help="folder of the fetched models (default: one in the user's cache folder)",
        )
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS if suppressed else False,
        help=f"print nothing but {shown}",
    )


def add_record_paths(parser: argparse.ArgumentParser) -> None:
    """Add ``--record-paths``: what a picture tells of its files is their names, unless their folders are asked for."""
    parser.add_argument(
        "--record-paths", action="store_true", help="have the picture's text name the files with their folders"
    )


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> NoReturn:
    """Run a tool's ``main`` and leave with its exit code; what a user can cause becomes one line, never a traceback."""
    # A file's name may have what the console cannot show: it is spelled out, and ends nothing.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    # From here on a Ctrl-C is an exception that the tool can take: see tools/cli/starting.py.
    # A closed terminal and a scheduler's limit shall keep the best picture just as well; nohup shall be heeded.
    starting.end()
    interrupt = Interrupt()
    for signal_name in SIGNALS:
        if hasattr(signal, signal_name) and not (signal_name == "SIGHUP" and _is_ignored(signal_name)):
            signal.signal(getattr(signal, signal_name), interrupt)
    module = main.__module__
    if module == "__main__":
        spec = sys.modules["__main__"].__spec__
        module = spec.name if spec else "tool"
    name = module.removesuffix(".__main__").rsplit(".", 1)[-1]
    try:
        code = main(argv)
        _flush_output()
    except KeyboardInterrupt:
        tell(f"{name}: interrupted")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough (``| head``)
        code = EXIT_ERROR
    except MemoryError as error:
        tell(f"{name}: out of memory: try a smaller --size ({error})")
        code = EXIT_ERROR
    except (ValueError, OSError, ArithmeticError) as error:
        tell(f"{name}: {describe(error)}")
        code = EXIT_ERROR
    except RuntimeError as error:
        if "start new thread" not in str(error):
            raise
        tell(f"{name}: the system allows no further threads: give fewer --threads, or raise the limit (ulimit -u)")
        code = EXIT_ERROR
    if main.__module__ == "__main__":  # the program ends: one more Ctrl-C shall not change how
        for signal_name in SIGNALS:
            if hasattr(signal, signal_name):
                signal.signal(getattr(signal, signal_name), signal.SIG_IGN)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            # Python would try once more when it closes the stream, complain, and leave with a code of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _is_ignored(signal_name: str) -> bool:
    return signal.getsignal(getattr(signal, signal_name)) == signal.SIG_IGN


def tell(line: str) -> None:
    """Print a line on standard error; where nobody can read it, the work goes on without."""
    if sys.stderr is not None:  # as it is where it was closed
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)


def _flush_output() -> None:
    """Bring out what has been printed: a full disk shows here, and not when Python has ended."""
    if sys.stdout is not None:
        sys.stdout.flush()


def describe(error: BaseException) -> str:
    """Return an error's message as one line."""
    if isinstance(error, OSError) and error.strerror:
        if error.filename:
            return f"{error.filename}: {error.strerror}"
        if error.errno in FULL:  # files are named where they are written: what is left is standard output
            return f"cannot write the output: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def positive_int(text: str) -> int:
    """Argument type: a whole number of at least 1."""
    return _count(text, MAX_COUNT)


def thread_count(text: str) -> int:
    """Argument type: how many threads to use."""
    return _count(text, MAX_THREADS)


def natural_int(text: str) -> int:
    """Argument type: a whole number of at least 0."""
    value = _number(text, int, "a whole number")
    if value < 0:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is negative")
    return int(value)


def positive_float(text: str) -> float:
    """Argument type: a finite number above 0."""
    value = _number(text, float, "a number")
    if not math.isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not a finite number above 0")
    return float(value)


def weight(text: str) -> float:
    """Argument type: a finite number of at least 0."""
    value = _number(text, float, "a number")
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not a finite number of at least 0")
    return float(value)


def given_name(text: str) -> str:
    """Argument type: a name, or the path of a file; an empty one is a variable of the shell that was not set."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def given_path(text: str) -> Path:
    """Argument type: the path of a file or a folder; ``~`` is the home folder, where the shell has left it as it is."""
    path = Path(given_name(text))
    try:
        return path.expanduser()
    except RuntimeError:  # nobody of that name
        return path


def _count(text: str, most: int) -> int:
    value = _number(text, int, "a whole number")
    if value < 1:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not at least 1")
    if value > most:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is more than {most:,}")
    return int(value)


def _number(text: str, kind: Callable[[str], float], name: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not {name}") from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}...")
