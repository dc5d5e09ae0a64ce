"""What is to be made, from what and with what: all that is known before anything is computed."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.multiscale import Level
from engine.network import Network
from engine.stylize import Job, with_content_weight
from tools.cli.command_line import tell
from tools.cli.masks import Masks, load_masks
from tools.cli.memory import peak_memory
from tools.cli.notes import about_pictures, check_style, idle_options, idle_threads
from tools.cli.options import FIRST_DRAFT, STARTS, Options, check_blend, levels_of
from tools.cli.rendering import (
    Room,
    Size,
    about_tile,
    at_level,
    check_layers,
    decoded_bytes,
    first_picture,
    make_room,
    painting_sizes,
    picture_size,
    rendering,
    tell_notes,
    with_fitting_levels,
)
from tools.media.files import byte_count, sha256_of
from tools.media.images import load_image, load_painting
from tools.media.picture import Picture
from tools.media.saving import check_side
from tools.models.cache import DRAFT_FILE, announce_draft, resolve_model
from tools.models.loading import about_preprocessing, load, with_model
from tools.stylize.account import NAME
from tools.stylize.outputs import check_not_written


@dataclass(frozen=True, eq=False)
class Task:
    """One picture to make.

    Parameters
    ----------
    arguments : the command line.
    options : with the model's name and as many sizes as the network can look at.
    model, network : the file, and what was loaded from it.
    content, styles : the photograph and the paintings, at their own sizes.
    first : the picture to begin with, from ``first_picture``.
    masks : where each painting goes, and where the photograph is kept.
    coarse : the painting for the coarse layers, or None.
    size : (height, width) of the picture to make.
    needed : bytes that the program holds at its peak, estimated.
    room : how the picture fits into the memory.
    notes : what the user should know of what was given.
    inputs : the SHA-256 of ``content``, ``style`` and ``mask`` (lists), ``keep``, ``coarse_style`` and ``init`` (None
        where there is none) and ``model``.
    """

    arguments: argparse.Namespace
    options: Options
    model: Path
    network: Network
    content: Picture
    styles: Sequence[Picture]
    first: Picture | None
    masks: Masks
    coarse: Picture | None
    size: Size
    needed: int
    notes: Sequence[str]
    inputs: Mapping[str, Any]
    room: Room

    @property
    def begins_small(self) -> bool:
        """Whether another picture comes before that of the size that was asked for."""
        return self.arguments.preview or levels_of(self.options) > 1

    @property
    def introduction(self) -> list[str]:
        """What is known before anything is computed, the picture's size last."""
        options, network, (height, width) = self.options, self.network, self.size
        count = levels_of(options)
        levels = f", in {count} sizes of {options.iterations} iterations each" if count > 1 else ""
        return [
            f"model {options.model}, {network.preprocessing.name} input, {options.pooling} pooling; "
            f"{network.place}, {network.precision}",
            *network.notes,
            f"{width}x{height} pixels, about {byte_count(self.needed)} of memory"
            f"{self.room.in_pieces(self.size)}{levels}",
        ]

    @property
    def filled(self) -> Options:
        """The options with the content weight that is used."""
        return with_content_weight(self.options, self.network, self.options.size)

    def announce_draft(self) -> None:
        """Say so where nobody named a model and the draft network was chosen."""
        announce_draft(NAME, self.arguments.model, self.options.model, self.arguments.quiet)

    def say(self, line: str) -> None:
        """Print a line unless the tool is to be quiet."""
        if not self.arguments.quiet:
            tell(f"{NAME}: {line}")

    def tell_left_out(self, layers: Sequence[str]) -> None:
        """Say which layers the draft network does not have."""
        if layers:
            self.say(f"the draft network has no {', '.join(layers)}, which it leaves out")

    def rendering(self, level: Level, first: Picture | None) -> tuple[Picture, Job]:
        """Return the photograph at the size of a level, and the job that makes the picture from ``first``."""
        options = at_level(self.options, level)
        return rendering(self.network, options, self.content, self.styles, first, self.masks, self.coarse, self.room)


@dataclass(frozen=True, eq=False)
class Given:
    """What several photographs have in common: paintings and network, as ``Task`` has them.

    Parameters
    ----------
    options : with the model's name and the layers as the network calls them.
    inputs : as ``Task`` has them, without the photograph's own.
    """

    options: Options
    styles: Sequence[Picture]
    coarse: Picture | None
    first: Picture | None
    model: Path
    network: Network
    inputs: Mapping[str, Any]

    @property
    def looked_at(self) -> list[Picture]:
        """All paintings, that for the coarse layers last."""
        return [*self.styles, *([] if self.coarse is None else [self.coarse])]


def read_given(arguments: argparse.Namespace, options: Options) -> Given:
    """Read paintings and network; raises ValueError for what does not fit together."""
    check_blend(options, len(arguments.style))
    check_style(options)
    styles = [load_painting(path) for path in arguments.style]
    coarse = None if arguments.coarse_style is None else load_painting(arguments.coarse_style)
    first = first_picture(options, styles)
    options = with_model(options, arguments.cache)
    model = resolve_model(str(options.model), arguments.cache)
    check_not_written(arguments, model)
    check_not_written(arguments, Path(str(options.model)))  # a large file is replaced by its part in the cache
    network = load(options, model, arguments.threads)
    inputs = {
        "coarse_style": None if coarse is None else sha256_of(arguments.coarse_style),
        "style": [sha256_of(path) for path in arguments.style],
        "init": _sha256_of_start(options.init),
        "model": sha256_of(model),
    }
    options = check_layers(network, options)
    network = network.compact([*options.content_layers, *options.style_layers])
    return Given(options, styles, coarse, first, model, network, inputs)


def read_task(arguments: argparse.Namespace, options: Options, given: Given | None = None) -> Task:
    """Read the inputs and the network; raises ValueError for what does not fit together.

    Parameters
    ----------
    given : what has been read of them for another photograph already.
    """
    content = load_image(arguments.content)
    masks = read_masks(arguments, content.size)
    told = [content]
    if given is None:
        given = read_given(arguments, options)
        told += [*given.looked_at, *([] if given.first is None else [given.first])]
    tell_notes(NAME, told, arguments.quiet)
    options, styles, first, model, network = given.options, given.styles, given.first, given.model, given.network
    size, style_shapes = picture_size(content.size, options), [style.size for style in given.looked_at]
    check_side(arguments.output, max(size))
    pictures = [content, *given.looked_at, *([] if first is None or options.init == "style" else [first])]
    room = make_room(network, options, size, painting_sizes(style_shapes, options, size))
    needed = peak_memory(network.device, room.needed, decoded_bytes(picture.size for picture in pictures))
    if options.init == FIRST_DRAFT and arguments.levels is None:
        options = dataclasses.replace(options, levels=1)  # the draft was from small to large
    options = with_fitting_levels(options, network, content.size, style_shapes, arguments.levels)
    notes = [
        *idle_options(options, len(styles)),
        *idle_threads(arguments.threads),
        *about_pictures(options, content, styles, size),
        *about_preprocessing(options, model),
        *room.notes(options),
        *about_tile(options, content.size, size),
    ]
    if arguments.save_every is not None and arguments.save_every >= options.iterations:
        notes.append(f"--save-every {arguments.save_every} writes nothing: there are {options.iterations} iterations")
    inputs = {
        "content": sha256_of(arguments.content),
        "mask": [sha256_of(path) for path in arguments.mask],
        "keep": None if arguments.keep is None else sha256_of(arguments.keep),
        **given.inputs,
    }
    return Task(
        arguments,
        options,
        model,
        network,
        content,
        styles,
        first,
        masks,
        given.coarse,
        size,
        needed,
        notes,
        inputs,
        room,
    )


def _sha256_of_start(init: str) -> str | None:
    """Return the hash of the file that the picture to begin with is, or is made by."""
    if init == FIRST_DRAFT:
        return sha256_of(DRAFT_FILE)
    return None if init in STARTS else sha256_of(Path(init))


def read_masks(arguments: argparse.Namespace, content: Size) -> Masks:
    """Read the masks; raises ValueError for what does not fit the other options."""
    if arguments.mask and arguments.blend is not None:
        raise ValueError("--blend mixes paintings, --mask gives each a place of its own: use one of them")
    return load_masks(arguments.mask, arguments.keep, len(arguments.style), content)
