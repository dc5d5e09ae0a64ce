"""An order with its pictures and its network: all that is known before anything is computed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from engine.multiscale import Level
from engine.network import Network
from engine.stylize import INITS, Job, with_content_weight
from tools.cli.masks import Masks, load_masks
from tools.cli.memory import peak_memory
from tools.cli.notes import about_pictures, idle_options
from tools.cli.options import Options, levels_of
from tools.cli.rendering import (
    Size,
    at_level,
    check_layers,
    check_memory,
    decoded_bytes,
    first_picture,
    painting_sizes,
    picture_size,
    rendering,
    with_fitting_levels,
)
from tools.media.images import load_image, load_painting
from tools.media.picture import Picture
from tools.studio.networks import Networks
from tools.studio.order import Order
from tools.studio.shelf import Shelf


@dataclass(frozen=True)
class Plan:
    """What an order comes to, told from the sizes of its pictures.

    Parameters
    ----------
    options : with as many sizes as the network can look at, and the content weight that is used.
    network : the options' own.
    size : (height, width) of the picture.
    needed : bytes that the program holds at its peak, estimated.
    seconds : that the picture takes, estimated; None where the network has not been timed.
    """

    options: Options
    network: Network
    size: Size
    needed: int
    seconds: float | None


@dataclass(frozen=True, eq=False)
class Ready:
    """An order whose pictures have been read.

    Parameters
    ----------
    order : what is to be made.
    plan : of it.
    content, styles : the photograph and the paintings, at their own sizes.
    first : the picture to begin with, or None for one made of the photograph or of noise.
    masks : where each painting goes, and where the photograph is kept.
    notes : what its user should know.
    """

    order: Order
    plan: Plan
    content: Picture
    styles: tuple[Picture, ...]
    first: Picture | None
    masks: Masks
    notes: tuple[str, ...]

    @property
    def options(self) -> Options:
        """The options as the plan has them."""
        return self.plan.options

    def rendering(self, level: Level, image: Picture | None) -> tuple[Picture, Job]:
        """Return the photograph at the size of a level, and the job that makes the picture from an image or anew."""
        first = self.first if image is None else image
        return rendering(self.plan.network, at_level(self.options, level), self.content, self.styles, first, self.masks)


def plan_of(order: Order, shelf: Shelf, networks: Networks) -> Plan:
    """Return what an order comes to; raises ValueError for what does not fit together, or into the memory."""
    options = order.options
    for name in (*order.mask, *([] if order.keep is None else [order.keep])):
        shelf.size_of(name)  # those that have gone are told
    content, styles = shelf.size_of(order.content), [shelf.size_of(name) for name in order.style]
    network = networks.get(options)
    options = check_layers(network, dataclasses.replace(options, levels=levels_of(options)))
    size = picture_size(content, options)
    needed = peak_memory(
        network.device,
        check_memory(network, options, size, painting_sizes(styles, options, size)),
        decoded_bytes([content, *styles]),
    )
    options = with_fitting_levels(options, network, content, styles, order.options.levels)
    seconds = networks.seconds(options, content)
    return Plan(with_content_weight(options, network, options.size), network, size, needed, seconds)


def read_order(order: Order, shelf: Shelf, networks: Networks) -> Ready:
    """Read an order's pictures; raises ValueError for what does not fit together, or into the memory."""
    plan = plan_of(order, shelf, networks)
    content = load_image(shelf.input_path(order.content))
    styles = tuple(load_painting(shelf.input_path(name)) for name in order.style)
    init = plan.options.init
    with_file = plan.options if init in INITS else dataclasses.replace(plan.options, init=str(shelf.picture_path(init)))
    first = first_picture(with_file, styles)
    keep = None if order.keep is None else shelf.input_path(order.keep)
    masks = load_masks([shelf.input_path(name) for name in order.mask], keep, len(styles), content.size)
    pictures = [content, *styles, *([] if first is None or init == "style" else [first])]
    read = dict.fromkeys(picture.note for picture in pictures if picture.note)
    notes = (
        *read,
        *idle_options(order.options, len(styles)),
        *about_pictures(plan.options, content, styles, plan.size),
    )
    return Ready(order, plan, content, styles, first, masks, notes)
