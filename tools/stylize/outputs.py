"""What a run writes, checked before anything is computed: that it can be written, and is none of its inputs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from engine.errors import unknown_name
from engine.stylize import INITS
from tools.media.files import check_lines, remove_unfinished
from tools.media.picture_files import address
from tools.media.plot import check_plot
from tools.media.saving import check_output


def check_outputs(arguments: argparse.Namespace) -> None:
    """Raise ValueError for an output that cannot be written, before anything is computed."""
    check_output(arguments.output)
    remove_unfinished(arguments.output.parent)
    if arguments.preview:
        check_output(preview_path(arguments.output))
    kept = [] if arguments.keep is None else [arguments.keep]
    inputs = [arguments.content, *arguments.style, *arguments.mask, *kept]
    if arguments.init not in INITS:
        inputs.append(Path(arguments.init))
        if not inputs[-1].exists() and address(inputs[-1]) is None:  # of an address more is said where it is read
            if inputs[-1].suffix or inputs[-1].name != arguments.init:
                raise ValueError(f"--init: there is no picture {arguments.init!r}")
            raise ValueError(f"{unknown_name('init', arguments.init, INITS)}, or the path of an image file")
    for path in inputs:
        check_not_written(arguments, path)
    plot: Path | None = arguments.plot
    if plot is not None:
        check_plot(plot)
        if any(same_file(plot, picture) for picture in _pictures(arguments)) or _is_snapshot(arguments, plot):
            raise ValueError(f"--plot {str(plot)!r} is also a picture's name: choose another")
    log: Path | None = arguments.log
    if log is not None:
        if plot is not None and same_file(log, plot):
            raise ValueError(f"--log and --plot are both {str(log)!r}: choose another name for one of them")
        check_lines(log)
        if any(same_file(log, picture) for picture in _pictures(arguments)) or _is_snapshot(arguments, log):
            raise ValueError(f"--log {str(log)!r} is also a picture's name: choose another")


def check_not_written(arguments: argparse.Namespace, path: Path) -> None:
    """Raise ValueError when the run would write over ``path``, one of its inputs."""
    targets = [*_pictures(arguments), *(file for file in (arguments.log, arguments.plot) if file is not None)]
    if any(same_file(path, target) for target in targets) or _is_snapshot(arguments, path):
        raise ValueError(f"{str(path)!r} is an input, it would be overwritten: choose another name for the output")


def _pictures(arguments: argparse.Namespace) -> list[Path]:
    """Return the pictures that are written whatever happens, so without the snapshots."""
    output: Path = arguments.output
    return [output, preview_path(output)] if arguments.preview else [output]


def preview_path(output: Path) -> Path:
    """Return where the preview of the picture ``output`` is written: ``picture.png`` gives ``picture-preview.png``."""
    return output.with_stem(f"{output.stem}-preview")


def same_file(first: Path, second: Path) -> bool:
    """Say whether two paths name the same file, whether it is there or not."""
    if first.exists() and second.exists():
        return first.samefile(second)
    return os.path.realpath(first) == os.path.realpath(second)


def _is_snapshot(arguments: argparse.Namespace, path: Path) -> bool:
    """Say whether ``path`` is called as a snapshot would be."""
    # Not Path.resolve, which raises on a loop of links.
    output, path = Path(os.path.realpath(arguments.output)), Path(os.path.realpath(path))
    number = path.stem.removeprefix(f"{output.stem}-")
    named = path.stem == f"{output.stem}-{number}" and number.isdigit() and path.suffix == output.suffix
    return bool(arguments.save_every) and named and path.parent == output.parent
