"""Render a photograph in the style of a painting: ``python -m tools.stylize CONTENT STYLE -o OUT``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from engine.optimize import LEARNING_RATES, Result
from tools.cli.command_line import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    Parser,
    add_record_paths,
    add_shared,
    given_path,
    positive_int,
    run,
    tell,
)
from tools.cli.options import add_options, add_paper, options_from, parsed
from tools.cli.session import Session
from tools.stylize.account import NAME
from tools.stylize.outputs import check_outputs
from tools.stylize.picture import make_picture
from tools.stylize.preview import make_preview
from tools.stylize.task import Task, read_task


def build_parser() -> Parser:
    """Return the parser of the command line; the options are those of ``tools.cli.options``."""
    parser = Parser(prog=NAME, description="Render a photograph in the style of a painting.")
    parser.add_argument("content", type=given_path, metavar="CONTENT", help="the photograph")
    parser.add_argument("style", type=given_path, nargs="+", metavar="STYLE", help="the painting, or several")
    parser.add_argument(
        "--mask",
        type=given_path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="where each painting's style goes: a picture for each, white there; of one fewer, the last gets the rest",
    )
    parser.add_argument(
        "--keep",
        type=given_path,
        metavar="FILE",
        help="where to keep the photograph, a face say: a picture, white there",
    )
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="OUT", help="picture to write")
    add_paper(parser)
    add_options(parser)
    parser.add_argument(
        "--preview",
        action="store_true",
        help="first make a small picture with the draft network, in seconds, beside OUT: OUT-preview",
    )
    parser.add_argument("--save-every", type=positive_int, metavar="N", help="also write a snapshot every N iterations")
    parser.add_argument(
        "--report-every", type=positive_int, default=50, metavar="N", help="report the terms' shares every N iterations"
    )
    parser.add_argument("--log", type=given_path, metavar="FILE.jsonl", help="write each iteration as a line of JSON")
    parser.add_argument(
        "--plot",
        type=given_path,
        metavar="FILE",
        help="draw the losses over the iterations (.svg or .png; needs matplotlib)",
    )
    add_record_paths(parser)
    add_shared(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Make one picture; return the exit code."""
    arguments = parsed(build_parser(), argv)
    session = Session(NAME, f"interrupted, {arguments.output} was not written")
    return session.run(lambda: _make(arguments, session))


def _make(arguments: argparse.Namespace, session: Session) -> int:
    """Make the picture that was asked for; return the exit code."""
    options = options_from(arguments)
    check_outputs(arguments)
    task = read_task(arguments, options)
    _announce(task)
    if arguments.preview and make_preview(task):
        return EXIT_INTERRUPTED
    result = make_picture(task, session)
    return _exit_code(result, arguments)


def _announce(task: Task) -> None:
    """Say what is known before anything is computed; of one size, that is said with the time that it takes."""
    for note in task.notes:
        task.say(note)
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
