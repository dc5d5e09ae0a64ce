"""What a run writes, checked before anything is computed: that it can be written, and is none of its inputs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from engine.errors import unknown_name
from tools.cli.options import STARTS
from tools.media.animation import check_animation
from tools.media.files import check_lines, check_writable, remove_unfinished
from tools.media.picture_files import address
from tools.media.plot import check_plot
from tools.media.saving import check_output

_FILES = ("log", "plot", "checkpoint", "timelapse")
"""The arguments that name a file to be written, besides the pictures."""


def check_outputs(arguments: argparse.Namespace, resumed: Path | None = None) -> None:
    """Raise ValueError for an output that cannot be written, before anything is computed.

    Parameters
    ----------
    resumed : the checkpoint that is gone on from, the only one there may be.
    """
    if not arguments.content.exists() and address(arguments.content) is None:
        raise ValueError(f"cannot read {str(arguments.content)!r}: there is no such file")  # nor a folder of them
    check_output(arguments.output)
    remove_unfinished(arguments.output.parent)
    checkpoint: Path | None = arguments.checkpoint
    if checkpoint is not None:
        check_writable(checkpoint)
        remove_unfinished(checkpoint.parent)
        if checkpoint.exists() and not (resumed is not None and same_file(checkpoint, resumed)):
            raise ValueError(
                f"--checkpoint {str(checkpoint)!r} exists: go on from it with --resume, or remove it first"
            )
    if arguments.timelapse is not None:
        check_animation(arguments.timelapse)
    _check_different(arguments)
    if arguments.preview:
        check_output(preview_path(arguments.output))
    if arguments.init not in STARTS:
        first = Path(arguments.init)
        if not first.exists() and address(first) is None:  # of an address more is said where it is read
            if first.suffix or first.name != arguments.init:
                raise ValueError(f"--init: there is no picture {arguments.init!r}")
            raise ValueError(f"{unknown_name('init', arguments.init, STARTS)}, or the path of an image file")
    for path in (arguments.content, *inputs_beside(arguments)):
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


def _check_different(arguments: argparse.Namespace) -> None:
    """Raise ValueError where checkpoint or timelapse is also something else that is written."""
    for name in ("checkpoint", "timelapse"):
        path: Path | None = getattr(arguments, name)
        if path is None:
            continue
        others = {f"--{other}": getattr(arguments, other) for other in _FILES if other != name}
        for other, there in [*others.items(), *(("a picture's name", picture) for picture in _pictures(arguments))]:
            if there is not None and same_file(path, there):
                raise ValueError(f"--{name} {str(path)!r} is also {other}: choose another name for one of them")
        if _is_snapshot(arguments, path):
            raise ValueError(f"--{name} {str(path)!r} is also a picture's name: choose another")


def inputs_beside(arguments: argparse.Namespace) -> list[Path]:
    """Return the pictures that are read beside the photograph."""
    single = [path for path in (arguments.keep, arguments.coarse_style) if path is not None]
    first = [] if arguments.init in STARTS else [Path(arguments.init)]
    return [*arguments.style, *arguments.mask, *single, *first]


def check_not_written(arguments: argparse.Namespace, path: Path) -> None:
    """Raise ValueError when the run would write over ``path``, one of its inputs."""
    targets = [*_pictures(arguments), *(getattr(arguments, name) for name in _FILES if getattr(arguments, name))]
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


def is_snapshot(output: Path, path: Path) -> bool:
    """Say whether ``path`` is called as a snapshot of the picture ``output`` would be."""
    # Not Path.resolve, which raises on a loop of links.
    output, path = Path(os.path.realpath(output)), Path(os.path.realpath(path))
    number = path.stem.removeprefix(f"{output.stem}-")
    named = path.stem == f"{output.stem}-{number}" and number.isdigit() and path.suffix == output.suffix
    return named and path.parent == output.parent


def _is_snapshot(arguments: argparse.Namespace, path: Path) -> bool:
    return bool(arguments.save_every) and is_snapshot(arguments.output, path)
