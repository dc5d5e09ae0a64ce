"""Render a photograph in the style of a painting: ``python -m tools.stylize CONTENT STYLE -o OUT``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence

from engine.optimize import LEARNING_RATES, Result
from tools.cli.command_line import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    Parser,
    add_record_paths,
    add_shared,
    given_name,
    given_path,
    positive_int,
    run,
    tell,
)
from tools.cli.options import STARTS, Options, add_options, add_paper, options_from, parsed
from tools.cli.session import Session
from tools.stylize.account import NAME
from tools.stylize.batch import make_batch
from tools.stylize.checkpoint import Every, Resumed, every, read_checkpoint
from tools.stylize.outputs import check_outputs
from tools.stylize.picture import make_picture
from tools.stylize.preview import preview_was_interrupted
from tools.stylize.recorded import as_command, given_on, goes_on, made_again, overridden
from tools.stylize.task import Task, read_task

EVERY_MINUTE = Every(seconds=60)


def build_parser(whole: bool = True) -> Parser:
    """Return the parser of the command line; the options are those of ``tools.cli.options``.

    Parameters
    ----------
    whole : photograph, painting and output have to be there; with ``--resume`` and ``--again`` they need not.
    """
    parser = Parser(prog=NAME, description="Render a photograph in the style of a painting.")
    one, several = (None, "+") if whole else ("?", "*")
    parser.add_argument("content", type=given_path, nargs=one, metavar="CONTENT", help="the photograph")
    parser.add_argument("style", type=given_path, nargs=several, metavar="STYLE", help="the painting, or several")
    parser.add_argument(
        "--mask",
        type=given_path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="where each painting goes: a picture for each, white there and black elsewhere; the last may be left out, "
        "and its painting gets the rest",
    )
    parser.add_argument(
        "--keep",
        type=given_path,
        metavar="FILE",
        help="what to keep of the photograph, such as a face: a picture, white where it is kept and black elsewhere",
    )
    parser.add_argument(
        "--coarse-style",
        type=given_path,
        metavar="FILE",
        help="a painting for the large shapes: the upper half of the style layers; STYLE then has the fine strokes",
    )
    parser.add_argument("-o", "--output", type=given_path, required=whole, metavar="OUT", help="picture to write")
    add_paper(parser)
    add_options(parser, leave_out=("init",))
    parser.add_argument(
        "--init",
        type=given_name,
        default=Options().init,
        metavar="|".join((*STARTS, "FILE")),
        help="picture to begin with: the photograph (content), noise, a painting, what the draft network makes of them "
        f"in seconds, or an image file (default {Options().init})",
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help="first make a small picture with the draft network, in seconds, beside OUT: OUT-preview",
    )
    parser.add_argument("--save-every", type=positive_int, metavar="N", help="also write a snapshot every N iterations")
    parser.add_argument(
        "--report-every",
        type=positive_int,
        default=100,
        metavar="N",
        help="report the terms' shares every N iterations (default 100), and at start and end",
    )
    parser.add_argument("--log", type=given_path, metavar="FILE.jsonl", help="write each iteration as a line of JSON")
    parser.add_argument(
        "--plot",
        type=given_path,
        metavar="FILE",
        help="draw the losses over the iterations (.svg or .png; needs matplotlib)",
    )
    parser.add_argument(
        "--more",
        type=given_path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="further photographs, or folders of them: as with a folder for CONTENT, OUT is a folder then",
    )
    parser.add_argument(
        "--summary", type=given_path, metavar="FILE.json", help="of several photographs, write what came of each"
    )
    parser.add_argument(
        "--timelapse", type=given_path, metavar="FILE", help="show how the picture came about, as .webp or .png"
    )
    parser.add_argument(
        "--checkpoint",
        type=given_path,
        metavar="FILE",
        help="keep the run itself in a file, for --resume to go on with",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=every,
        default=EVERY_MINUTE,
        metavar="N|Ns",
        help="iterations, or seconds, from one checkpoint to the next (default 60s)",
    )
    parser.add_argument(
        "--resume", type=given_path, metavar="FILE", help="go on from a checkpoint, to the same picture"
    )
    parser.add_argument(
        "--again",
        type=given_path,
        metavar="PICTURE",
        help="make a picture again with its own settings, and those given",
    )
    add_record_paths(parser)
    add_shared(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make one picture, or one of each photograph; return the exit code."""
    arguments, resumed, check = _read_command(sys.argv[1:] if argv is None else argv)
    if arguments.more or arguments.content.is_dir():
        return make_batch(arguments, options_from(arguments), check)
    if arguments.summary is not None:
        raise ValueError("--summary is for several photographs: give a folder of them, or --more")
    session = Session(NAME, f"interrupted, {arguments.output} was not written")
    code = session.run(lambda: _make(arguments, session, resumed, check))
    if code == EXIT_INTERRUPTED and arguments.checkpoint is not None and arguments.checkpoint.exists():
        where = read_checkpoint(arguments.checkpoint).where
        path = shlex.quote(str(arguments.checkpoint))
        tell(f"{NAME}: to go on {where}: python -m tools.stylize --resume {path}")
    return code


def _read_command(argv: Sequence[str]) -> tuple[argparse.Namespace, Resumed | None, Callable[[Task], None]]:
    """Return the arguments, the checkpoint to go on from, and what checks that the inputs are those of the record."""
    parser = build_parser(whole=not goes_on(argv))
    arguments = parsed(parser, argv)
    arguments.command = None
    if arguments.resume is None and arguments.again is None:
        return arguments, None, lambda task: None
    if arguments.resume is not None and arguments.again is not None:
        raise ValueError("--resume goes on with a run, --again makes a picture anew: use one of them")
    given, resumed = given_on(parser, argv, arguments), None
    if arguments.resume is not None:
        resumed = read_checkpoint(arguments.resume)
        check: Callable[[Task], None] = resumed.check
        recorded = {**resumed.about["arguments"], "checkpoint": resumed.path, "preview": False}
        values = overridden(recorded, given)
    else:
        values, check_model = made_again(arguments.again, given)

        def check(task: Task) -> None:
            check_model(task.inputs)

    plain = build_parser()  # the one above may have the paper's defaults
    command = as_command(values, {name: plain.get_default(name) for name in vars(arguments)})
    arguments = parsed(build_parser(), command)
    arguments.command = command
    return arguments, resumed, check


def _make(
    arguments: argparse.Namespace, session: Session, resumed: Resumed | None, check: Callable[[Task], None]
) -> int:
    """Make the picture that was asked for; return the exit code."""
    options = options_from(arguments)
    check_outputs(arguments, None if resumed is None else resumed.path)
    task = read_task(arguments, options)
    check(task)
    _announce(task)
    if arguments.preview and preview_was_interrupted(task):
        return EXIT_INTERRUPTED
    result = make_picture(task, session, resumed)
    if arguments.checkpoint is not None and result.stop not in ("interrupted", "non-finite"):
        arguments.checkpoint.unlink(missing_ok=True)
    return _exit_code(result, arguments)


def _announce(task: Task) -> None:
    """Say what is known before anything is computed; of one size, that is said with the time that it takes."""
    for note in task.notes:
        task.say(note)
    if task.arguments.checkpoint is None and task.arguments.checkpoint_every != EVERY_MINUTE:
        task.say("--checkpoint-every does nothing without --checkpoint FILE")
    if task.options.content_weight is None and not task.network.weights:
        task.say(
            "the model's weights are not known, the content weight is a guess as for the original VGG-19; "
            "find one that suits with: python -m tools.sweep CONTENT STYLE --suggest"
        )
    if task.begins_small:
        task.announce_draft()
        for line in task.introduction:
            task.say(line)


def _exit_code(result: Result, arguments: argparse.Namespace) -> int:
    """Return the exit code, having said what was wrong with a run."""
    if result.stop != "interrupted" and not result.value < result.initial_value and not arguments.quiet:
        advice = (
            "try another --learning-rate, or --optimizer l-bfgs"
            if arguments.optimizer in LEARNING_RATES
            else "with these weights it is as good as it gets, so change -a or -b, or begin elsewhere (--init)"
        )
        tell(f"{NAME}: the loss never fell below that of the first image: {advice}")
    if result.stop == "non-finite":
        tell(f"{NAME}: {result.stop_reason}; wrote the best image before that")
        return EXIT_ERROR
    return EXIT_INTERRUPTED if result.stop == "interrupted" else 0


if __name__ == "__main__":
    run(main)
