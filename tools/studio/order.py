"""What is to be made, as the page and the pictures tell it, and the command line that makes the same."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from engine.stylize import INITS, content_weight_at
from tools.cli.command_line import Parser
from tools.cli.notes import check_style
from tools.cli.options import ARGUMENTS, Options, add_options, check_blend, options_from
from tools.media.record import fits

LIVE = frozenset(
    {
        "content_weight",
        "style_weight",
        "content_layers",
        "style_layers",
        "variation_weight",
        "variation",
        "style_size",
        "colors",
        "blend",
        "iterations",
    }
)
"""The options that can be changed while a picture is being made; the masks can be as well."""

MAX_PAINTINGS = 12


@dataclass(frozen=True)
class Order:
    """One picture to make.

    Parameters
    ----------
    content, style : the photograph and the paintings, by their names in the folder's inputs.
    mask, keep : the masks, in the same way.
    options : as the command line has them; ``init`` may be the name of a picture that has been made.
    """

    content: str
    style: tuple[str, ...]
    mask: tuple[str, ...] = ()
    keep: str | None = None
    options: Options = field(default_factory=Options)

    def changed(self, other: Order) -> Order:
        """Return this order with what another one has and can be changed in a run; ValueError for anything else."""
        fixed = {name: getattr(self.options, name) for name in ARGUMENTS if name not in LIVE}
        differing = [name for name, value in fixed.items() if getattr(other.options, name) != value]
        if other.content != self.content or other.style != self.style:
            differing.insert(0, "pictures")
        if differing:
            raise ValueError(
                f"{differing[0].replace('_', ' ')} cannot be changed while the picture is being made: start another"
            )
        return other

    def larger(self, picture: str, size: int) -> Order:
        """Return the order that goes on from a picture of this one at another size; what is in pixels grows with it."""
        options, ratio = self.options, size / self.options.size
        alpha, style_size = options.content_weight, options.style_size
        return dataclasses.replace(
            self,
            options=dataclasses.replace(
                options,
                init=picture,
                size=size,
                levels=1,
                content_weight=None if alpha is None else content_weight_at(alpha, ratio**2),
                style_size=max(1, round(style_size * ratio)) if isinstance(style_size, int) else style_size,
            ),
        )


class _FormParser(Parser):
    """Reads the options of a form; what is wrong with them is a ValueError."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(re.sub(r"^argument (?:-\w/)?--([\w-]+)", lambda found: found[1].replace("-", " "), message))


def order_from(form: Any, models: Iterable[str], made: Callable[[str], bool]) -> Order:
    """Return the order that a form asks for.

    Parameters
    ----------
    form : out of JSON, ``{"content": name, "style": [name], "mask": [name], "keep": name or None, "options":
        {"content_weight": "1e-3"}}``; an option as the command line takes it, and left out where it is empty.
    models : the names that can be given as a model.
    made : whether a picture of this name has been made.

    Raises ValueError, in one sentence, for what is wrong.
    """
    if not fits(form, {"content": str, "style": [str], "mask": [str], "options": {str: str}}):
        raise ValueError("the form is damaged: load the page again")
    keep, given = form.get("keep") or None, {name: text for name, text in form["options"].items() if text.strip()}
    if keep is not None and not isinstance(keep, str):
        raise ValueError("the form is damaged: load the page again")
    if not form["content"]:
        raise ValueError("choose a photograph first")
    if not form["style"]:
        raise ValueError("choose a painting first")
    if len(form["style"]) > MAX_PAINTINGS:
        raise ValueError(f"{len(form['style'])} paintings are more than {MAX_PAINTINGS}")
    for name in given:
        if name not in ARGUMENTS or name in ("device", "dtype"):
            raise ValueError(f"there is no option {name!r}")
    options = parsed_options(given)
    if options.model not in (known := list(models)):
        raise ValueError(f"there is no model {options.model!r} here, but {', '.join(known)}")
    if options.init not in INITS and not made(options.init):
        raise ValueError(f"there is no picture {options.init!r} to begin with")
    if form["mask"] and options.blend is not None:
        raise ValueError("paintings either blend, or each has a place of its own: remove the weights or the masks")
    check_blend(options, len(form["style"]))
    check_style(options)
    return Order(form["content"], tuple(form["style"]), tuple(form["mask"]), keep, options)


def parsed_options(given: Mapping[str, str]) -> Options:
    """Return options from their texts; raises ValueError for a wrong one."""
    parser = _FormParser(prog="studio", add_help=False)
    add_options(parser)
    arguments = parser.parse_args([f"{_flag(name)}={text}" for name, text in given.items()])
    return dataclasses.replace(options_from(arguments), levels=arguments.levels)


def form_of(order: Order) -> dict[str, Any]:
    """Return the form that asks for an order."""
    return {
        "content": order.content,
        "style": list(order.style),
        "mask": list(order.mask),
        "keep": order.keep,
        "options": given_options(order.options),
    }


def given_options(options: Options) -> dict[str, str]:
    """Return the options that are not at their defaults, as the command line takes them."""
    defaults = Options()
    return {
        name: _text(value)
        for name in ARGUMENTS
        if (value := getattr(options, name)) is not None and value != getattr(defaults, name)
    }


def command_of(
    order: Order, input_path: Callable[[str], Path], picture_path: Callable[[str], Path], cache: Path | None = None
) -> str:
    """Return the command line that makes an order's picture, to the bit; quoted for a shell.

    Parameters
    ----------
    input_path, picture_path : the file of an input's name, and of a picture's.
    cache : of the models, where it is not the usual one.
    """
    options = order.options
    if options.init not in INITS:
        options = dataclasses.replace(options, init=str(picture_path(options.init)))
    parts = ["python", "-m", "tools.stylize", *(str(input_path(name)) for name in (order.content, *order.style))]
    if order.mask:
        parts += ["--mask", *(str(input_path(name)) for name in order.mask)]
    if order.keep is not None:
        parts += ["--keep", str(input_path(order.keep))]
    for name, text in given_options(options).items():
        parts += [f"{_flag(name)}={text}"] if text.startswith("-") else [_flag(name), text]
    if cache is not None:
        parts += ["--cache", str(cache)]
    return shlex.join([*parts, "-o", "picture.png"])


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _text(value: Any) -> str:
    """Return an option's value as the command line takes it; a number keeps all its digits."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{weight!r}" for name, weight in value.items())
    if isinstance(value, tuple):
        return ",".join(part if isinstance(part, str) else repr(part) for part in value)
    return repr(value) if isinstance(value, float) else str(value)
