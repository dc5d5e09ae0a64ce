"""From pictures and options to a job of the engine: sizes, memory, the picture to begin with."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.color import in_gray, match_colors, match_luminance, with_luminance
from engine.fitting import LEAST_HISTORY, Pieces, PieceSize, fitting_pieces, sorts_a_layer
from engine.fitting import fit as fit_memory
from engine.multiscale import Level, fit, levels_of_picture
from engine.network import Network
from engine.ops import Array
from engine.optimize import usual_history
from engine.pieces import style_edges
from engine.selection import layer_names
from engine.stylize import Job, content_weight_of, optimizer_is_elsewhere, optimizer_memory, prepare
from engine.targets import Styles, at_scales
from tools.cli.command_line import tell
from tools.cli.masks import NO_MASKS, Masks
from tools.cli.memory import check_free, free_bytes, more_memory
from tools.cli.options import COLORS, FIRST_DRAFT, LUMINANCE, TILED, Options, layers_called, levels_of
from tools.media.images import load_image
from tools.media.picture import Picture, resize, resize_tile

Size = tuple[int, int]

TILE_STRIDE = 16
"""That of a VGG's layers up to conv5_1: four poolings."""


def picture_size(content: Size, options: Options) -> Size:
    """Return (height, width) of the picture to be made from a photograph of this size."""
    height, width = fit(*content, options.size)
    return (tile_side(height), tile_side(width)) if options.edges == TILED else (height, width)


def about_tile(options: Options, content: Size, size: Size) -> list[str]:
    """Return a sentence where a picture that is to be tiled has another size than was asked for."""
    if options.edges != TILED or size == fit(*content, options.size):
        return []
    height, width = size
    return [f"the sides of a tile divide by {TILE_STRIDE}: {width}x{height} pixels"]


def tile_side(side: int) -> int:
    """Return the side of a tile, which divides by the network's total stride, nearest to ``side``."""
    return max((side + TILE_STRIDE // 2) // TILE_STRIDE, 1) * TILE_STRIDE


def painting_sizes(styles: Sequence[Size], options: Options, picture: Size) -> list[Size]:
    """Return (height, width) at which each painting is looked at.

    Parameters
    ----------
    styles : (height, width) of the paintings.
    picture : the same of the picture to be made.
    """
    if isinstance(options.style_size, str):
        return [picture for _ in styles]
    return [fit(*style, options.style_size or options.size) for style in styles]


@dataclass(frozen=True)
class Room:
    """How a picture fits into the memory.

    Parameters
    ----------
    size : (height, width) of the picture.
    pieces : that it is computed in.
    options : with as many corrections of L-BFGS as there is memory for.
    needed : bytes that making the picture takes, or looking at a larger painting.
    free : bytes that there were for it; None where the system does not tell.
    """

    size: Size
    pieces: Pieces
    options: Options
    needed: int
    free: int | None

    def in_pieces(self, size: Size) -> str:
        """Return in words how a picture of a size, (height, width), is cut; empty where it is not."""
        if self.pieces.size is None or self.pieces.count == 1:
            return ""
        height, width = (own or whole for own, whole in zip(self.pieces.size, size, strict=True))
        strips = f"{self.pieces.count} strips of {height} rows"
        cut = strips if self.pieces.size[1] is None else f"{self.pieces.count} pieces of {width}x{height}"
        return f", in {cut}" if self.pieces.waist is None else f", in {cut} up to {self.pieces.waist}"

    def notes(self, asked: Options) -> list[str]:
        """Return what is to be said beside that."""
        if self.options.history == asked.history:
            return []
        usual = usual_history(asked.optimizer, asked.iterations)
        return [f"L-BFGS keeps {self.options.history} corrections rather than {usual}, for want of memory"]


def make_room(
    network: Network, options: Options, size: Size, style_sizes: Sequence[Size], free: int | None = None
) -> Room:
    """Return how a picture and its paintings fit into the memory; raise ValueError where they do not.

    On the CPU, what does not fit as a whole is computed in pieces.

    Parameters
    ----------
    size, style_sizes : (height, width) of the picture and of the paintings, as they are looked at.
    free : bytes that there are, None to ask the system.
    """
    free = free_bytes(network.device, options.memory) if free is None else free
    room = math.inf if free is None or network.device.kind == "cuda" else float(free)
    is_sorted = sorts_a_layer(options)

    def check(needed: int, size: Size, option: str, end: str = "") -> None:
        more = more_memory(options.memory, needed)
        check_free(network.device, needed, size, f"choose a smaller {option}{more}{end}", free)

    if not optimizer_is_elsewhere(network, options) and not is_sorted:
        # Where the fewest vectors do not fit, no pieces are looked for.
        few = dataclasses.replace(options, history=options.history or LEAST_HISTORY)
        weights = network.weight_bytes_to_come([*options.content_layers, *options.style_layers])
        check(weights + optimizer_memory(*size, few), size, "--size")
    with remedied("--size"):
        pieces, fitted, needed = fit_memory(network, *size, options, room)
    unsorted = ", or leave out the statistic sliced, which is not computed in pieces" if is_sorted else ""
    check(needed, size, "--size", unsorted)
    if optimizer_is_elsewhere(network, options):
        advice = "choose a smaller --size, or --optimizer l-bfgs, which stays on the GPU"
        check_free(None, optimizer_memory(*size, options), size, advice, free_bytes(None, options.memory))
    looked_at = dataclasses.replace(options, content_layers=(), edges=style_edges(options.edges))
    weights = network.weight_bytes_to_come(layer_names(options.style_layers))
    for style_size in style_sizes:
        with remedied("--size" if options.style_size is None else "--style-size", "a painting: "):
            of_style = fitting_pieces(network, *style_size, looked_at, room - weights, with_waist=False)
        check(of_style.needed, style_size, "--style-size")
        needed = max(needed, of_style.needed + weights)
        if of_style.size is not None:
            pieces = dataclasses.replace(pieces, size=_smaller(pieces.size, of_style.size))
    return Room(size, pieces, fitted, needed, free)


def _smaller(size: PieceSize | None, other: PieceSize) -> PieceSize:
    """Return the size of pieces that are no larger than either."""
    if size is None:
        return other
    sides = zip(size, other, strict=True)
    height, width = (min((side for side in both if side is not None), default=None) for both in sides)
    return height, width


def check_memory(network: Network, options: Options, size: Size, style_sizes: Sequence[Size]) -> int:
    """Return the bytes that making the picture takes, or looking at a larger painting; raise ValueError for fewer."""
    return make_room(network, options, size, style_sizes).needed


@contextlib.contextmanager
def remedied(option: str, of_what: str = "") -> Iterator[None]:
    """Add to the ValueError for an image that is too small which option makes it larger, and what it is before it."""
    try:
        yield
    except ValueError as error:
        if "too small" not in str(error):
            raise
        raise ValueError(f"{of_what}{error}; choose a larger {option}") from None


def decoded_bytes(sizes: Iterable[Size]) -> int:
    """Return the bytes of pictures of these sizes, (height, width), that have been read."""
    return sum(height * width * 3 * 4 for height, width in sizes)


def work(network: Network, options: Options, content: Size) -> float:
    """Return the multiplications of all forward passes that making a picture takes, in all its sizes."""
    layers = dict.fromkeys([*options.content_layers, *options.style_layers])
    return float(
        sum(
            options.iterations * network.multiply_adds(*picture_size(content, at_level(options, level)), layers)
            for level in picture_levels(options, network)
        )
    )


def first_picture(options: Options, styles: Sequence[Picture]) -> Picture | None:
    """Return the picture to begin with at any size, or None where it is made of the photograph, of noise or a draft."""
    if options.init in ("noise", "content", FIRST_DRAFT):
        return None
    return styles[0] if options.init == "style" else load_image(Path(options.init))


def tell_notes(tool: str, pictures: Sequence[Picture], quiet: bool) -> None:
    """Print what is to be said of how pictures' files were read, each sentence once."""
    for note in dict.fromkeys(picture.note for picture in pictures if picture.note and not quiet):
        tell(f"{tool}: {note}")


def picture_levels(options: Options, network: Network) -> list[Level]:
    """Return the sizes of the picture, from the smallest to the one that is asked for."""
    return levels_of_picture(options.size, levels_of(options), content_weight_of(options, network, options.size))


def at_level(options: Options, level: Level) -> Options:
    """Return the options of the picture at one of its sizes."""
    style_size = options.style_size
    return dataclasses.replace(
        options,
        levels=1,
        size=level.size,
        style_size=level.divided(style_size) if isinstance(style_size, int) else style_size,
        content_weight=level.content_weight,
    )


def with_fitting_levels(
    options: Options, network: Network, content: Size, styles: Sequence[Size], asked: int | None
) -> Options:
    """Return the options with as many sizes as the network can look at, from those that suit the picture downwards.

    Parameters
    ----------
    asked : how many were asked for; None where nobody did.

    Raises ValueError where fewer than asked for would be left.
    """
    while True:
        try:
            _check_levels(network, options, content, styles)
        except ValueError:
            if asked is not None:
                check_levels(network, options, content, styles)
            options = dataclasses.replace(options, levels=levels_of(options) - 1)
        else:
            return options


def check_levels(network: Network, options: Options, content: Size, styles: Sequence[Size]) -> None:
    """Raise ValueError when the smallest picture, or a painting beside it, is too small for the network."""
    try:
        _check_levels(network, options, content, styles)
    except ValueError as error:
        fewer = dataclasses.replace(options, levels=levels_of(options) - 1)
        fitting = with_fitting_levels(fewer, network, content, styles, None)
        raise ValueError(f"{error}; give at most --levels {levels_of(fitting)}") from None


def _check_levels(network: Network, options: Options, content: Size, styles: Sequence[Size]) -> None:
    if levels_of(options) == 1:
        return
    divided = 1 << (levels_of(options) - 1)
    style_size = options.style_size if isinstance(options.style_size, int) else divided
    try:
        if min(options.size, style_size) < divided:
            raise ValueError("nothing is left")
        smallest = at_level(options, picture_levels(options, network)[0])
        picture = picture_size(content, smallest)
        for size, layers in (
            (picture, [*options.content_layers, *options.style_layers]),
            *((size, list(options.style_layers)) for size in painting_sizes(styles, smallest, picture)),
        ):
            network.shapes(*size, layers)
    except ValueError as error:
        raise ValueError(f"--levels {levels_of(options)} begins at 1/{divided} of the size: {error}") from None


def rendering(
    network: Network,
    options: Options,
    content: Picture,
    styles: Sequence[Picture],
    first: Picture | None,
    masks: Masks = NO_MASKS,
    coarse: Picture | None = None,
    room: Room | None = None,
) -> tuple[Picture, Job]:
    """Return the photograph at the picture's size, and the job that makes the picture, for ``finished``.

    Parameters
    ----------
    network : the options' own.
    content, styles : the photograph and the paintings at any size, the latter from ``load_painting``.
    first : from ``first_picture``.
    masks : where each painting goes, and where the photograph is kept.
    coarse : a painting for the coarse layers, from ``load_painting``, or None.
    room : from ``make_room``, for the largest of the picture's sizes; None asks the system what is free.

    Raises ValueError for options or pictures that do not fit.
    """
    options = with_layers_of(network, options)
    height, width = picture_size(content.size, options)
    content = resize(content, height, width)
    blend = options.blend or (1.0,) * len(styles)
    looked_at = [*styles, *([] if coarse is None else [coarse])]

    def painted(style: Picture) -> Array:
        (size,) = painting_sizes([style.size], options, (height, width))
        return colored(resize(style, *size), content, options).array

    paintings = [painted(painting) for painting in styles]
    blended = list(zip(paintings, blend, strict=True))
    style: Styles = blended
    placed: list[Styles] = list(paintings)
    if coarse is not None:
        layers = sorted(layer_names(options.style_layers), key=network.layers.index)
        of_coarse = painted(coarse)
        style = at_scales(blended, of_coarse, layers)
        placed = [at_scales(painting, of_coarse, layers) for painting in paintings]
    resized = resize_tile if options.edges == TILED else resize
    initial = None if first is None else resized(first, height, width).pixels
    pixels = content.pixels
    if options.colors == LUMINANCE:
        pixels, initial = in_gray(pixels), None if initial is None else in_gray(initial)
    regions = masks.regions_at(height, width, placed) if masks.regions else []
    content_mask = masks.content_at(height, width)
    if room is None or room.size != (height, width):
        # A smaller size may need no pieces.
        sizes = painting_sizes([painting.size for painting in looked_at], options, (height, width))
        room = make_room(network, options, (height, width), sizes, None if room is None else room.free)
    return content, prepare(
        network,
        pixels,
        None if regions else style,
        dataclasses.replace(options, history=room.options.history),
        initial,
        regions=regions,
        content_mask=content_mask,
        piece=room.pieces.size,
        keep=room.pieces.keep,
        waist=room.pieces.waist,
    )


def colored(style: Picture, content: Picture, options: Options) -> Picture:
    """Return a painting in the colors that the options want: its own, the photograph's, or gray."""
    if options.colors == LUMINANCE:
        return Picture(match_luminance(style.pixels, content.pixels, style.alpha), style.alpha)
    method = COLORS[options.colors]
    if method is None:
        return style
    return Picture(match_colors(style.pixels, content.pixels, style.alpha, method), style.alpha)


def finished(image: Array, content: Picture, options: Options) -> Array:
    """Return what is shown of an image that a job came to: all of it, or its luminance in the photograph's colors.

    Parameters
    ----------
    image : (H, W, 3), 0..255.
    content : the photograph at its size, in its own colors, as ``rendering`` returns it.
    """
    return with_luminance(content.pixels, image) if options.colors == LUMINANCE else image


def check_layers(network: Network, options: Options) -> Options:
    """Return the options with the layers called as the network calls them.

    Raises ValueError for layers that it lacks; of those that nobody named, it says so.
    """
    options = with_layers_of(network, options)
    for name in ("content_layers", "style_layers"):
        layers = getattr(options, name)
        missing = [layer for layer in layers if layer not in network.layers]
        if missing and layers == getattr(Options, name):
            behind = [f" (it goes on with {one.label}: {one.reason})" for one in network.rejected[:1]]
            raise ValueError(
                f"the model has no {missing[0]}, of the default --{name.replace('_', '-')}: name others, out of "
                f"{', '.join(network.layers)}{''.join(behind)}"
            )
        network.checked(layers)
    return options


def with_layers_of(network: Network, options: Options) -> Options:
    """Return the options with the layers called as the network calls them, see ``layers_called``."""
    content = layers_called(options.content_layers, network.outputs, 1.0)
    count = max(len(list(options.style_layers)), 1)
    style = layers_called(options.style_layers, network.outputs, 1 / count)
    return dataclasses.replace(options, content_layers=content, style_layers=style)
