"""Running a tool's command line as a person does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tools.cli.command_line import run


def called(
    main: Callable[[Sequence[str] | None], int],
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[object],
    code: int,
) -> tuple[str, str]:
    """Return what a tool prints on standard output and on standard error; it has to leave with this exit code."""
    with pytest.raises(SystemExit) as stop:
        run(main, [str(argument) for argument in arguments])
    output, errors = capsys.readouterr()
    assert stop.value.code == code, errors
    return output, errors
