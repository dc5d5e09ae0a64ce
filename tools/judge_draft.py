"""Judge the draft network by networks that had no part in making it: ``python -m tools.judge_draft``.

Three contestants render the same pairs of a photograph and a painting: a full-width VGG-19 of random weights with
normalised channels, the draft network, and a slim VGG-19 distilled from the original. The content weight of the last
two is searched for each pair until all three have the same content distance, so that their style distances can be
compared.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from engine.errors import unknown_name
from engine.load import load_network
from engine.losses import gram_matrix, style_layer_loss
from engine.network import Network
from engine.objective import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS
from engine.onnx_writer import write_onnx
from engine.ops import Array
from engine.preprocessing import named_preprocessing, preprocessing_metadata
from engine.stylize import Settings, stylize
from tools.command_line import Parser, add_shared, given_path, positive_float, positive_int, run
from tools.files import make_folder, replacing, sha256_of
from tools.images import load_image, save_image
from tools.model_cache import DRAFT_FILE
from tools.progress import Progress, duration
from tools.random_vgg import random_vgg
from tools.training.pictures import FREE_PICTURES
from tools.training.scales import mean_responses, scaled, unit_scales

NAME = "judge_draft"

FRONT_LAYERS = ("conv1_1", "conv2_1", "conv3_1")
SLIM_LAYERS = ("conv3_1", "conv4_1", "conv5_1")
CONTENT_LAYER = "conv4_2"

CONTENTS = ("tubingen.jpg", "boston.jpg", "coffee.png", "chelsea.png")
STYLES = (
    "starry_night.jpg",
    "kandinsky_composition_vii.jpg",
    "water_lilies_monet_1919.jpg",
    "the_scream.jpg",
    "shipwreck.jpg",
)
UNSEEN = tuple(name for name in CONTENTS + STYLES if name not in FREE_PICTURES)
"""Pictures that the draft network was not trained on."""

CONTESTANTS = ("random", "draft", "slim")

RANDOM_WEIGHT = 3e-7
"""Content weight of the random network; its content distances are those that the others are brought to."""

TOLERANCE = 0.05
"""Relative difference of two content distances that counts as none."""

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """What the judges say of a picture.

    Parameters
    ----------
    style : geometric mean of ``styles``.
    styles : the paper's E_l against the painting, divided by the photograph's own, for the front's and the slim layers.
    content : squared difference to the photograph's responses over their own square, at the slim model's conv4_2.
    content_weight : that the picture was made with.
    runs : how many pictures were made until the content distance was right.
    seconds : these took.
    model : SHA-256 of the draft network's file; empty for the others.
    """

    style: float
    styles: tuple[float, ...]
    content: float
    content_weight: float
    runs: int = 1
    seconds: float = 0.0
    model: str = ""


@dataclass(frozen=True, eq=False)
class Judges:
    """The networks that judge: the original VGG-19 up to conv3_1 at least, and the slim one."""

    front: Network
    slim: Network

    def grams(self, picture: npt.NDArray[np.generic]) -> list[tuple[npt.NDArray[np.float64], int]]:
        """Return the Gram matrix of each judging layer and the size of its feature map."""
        matrices = []
        for network, layers in ((self.front, FRONT_LAYERS), (self.slim, SLIM_LAYERS)):
            features = network.features(picture, layers)
            for layer in layers:
                F = np.ascontiguousarray(np.moveaxis(features[layer], 0, 2))
                matrices.append((gram_matrix(F), F.shape[0] * F.shape[1]))
        return matrices


class Pair:
    """A photograph and a painting, (H, W, 3), 0..255, and what the judges see in them."""

    def __init__(self, judges: Judges, photo: Pixels, painting: Pixels) -> None:
        self.judges = judges
        self.photo = photo
        self.painting = painting
        self.wanted = judges.grams(painting)
        self.before = self._losses(photo)
        self.content = self._content(photo)

    def verdict(self, picture: npt.NDArray[np.generic], content_weight: float) -> Verdict:
        """Judge a picture of the photograph's shape, made with a content weight."""
        ratios = tuple(E_l / E_0 for E_l, E_0 in zip(self._losses(picture), self.before, strict=True))
        content = float(((self._content(picture) - self.content) ** 2).sum() / (self.content**2).sum())
        return Verdict(geometric_mean(ratios), ratios, content, content_weight)

    def _losses(self, picture: npt.NDArray[np.generic]) -> list[float]:
        return [
            float(style_layer_loss(G, A, M_l, M_a).real)
            for (G, M_l), (A, M_a) in zip(self.judges.grams(picture), self.wanted, strict=True)
        ]

    def _content(self, picture: npt.NDArray[np.generic]) -> Array:
        return self.judges.slim.features(picture, [CONTENT_LAYER])[CONTENT_LAYER]


def geometric_mean(numbers: Sequence[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def balanced(make: Callable[[float], Verdict], content: float, first: float, most: int = 6) -> Verdict:
    """Search the content weight that gives a content distance and return the verdict on the picture nearest to it.

    Secant steps in the logarithms, kept inside what is known to be too much and too little.

    Parameters
    ----------
    make : makes a picture with a content weight and judges it; more weight gives less distance.
    content : the content distance wanted.
    first : content weight to begin with.
    most : pictures at most.
    """
    weight, slope = first, -0.35  # the slope where nothing is known yet: typical of the networks here
    tried: list[Verdict] = []
    low, high = -math.inf, math.inf
    while len(tried) < most:
        verdict = make(weight)
        tried.append(verdict)
        off = math.log(verdict.content / content)
        if abs(off) <= TOLERANCE:
            break
        here = math.log(weight)
        if off > 0:
            low = max(low, here)
        else:
            high = min(high, here)
        if len(tried) > 1:
            a, b = sorted(tried, key=lambda each: abs(math.log(each.content / content)))[:2]
            apart = math.log(a.content_weight / b.content_weight)
            slope = min(-0.05, max(-2.0, math.log(a.content / b.content) / apart)) if apart else slope
            here, off = math.log(a.content_weight), math.log(a.content / content)
        target = here - max(-4.0, min(4.0, off / slope))
        if not low < target < high:
            target = (low + high) / 2 if math.isfinite(low + high) else here
            if target == here:
                break
        weight = math.exp(target)
    best = min(tried, key=lambda each: abs(math.log(each.content / content)))
    return replace(best, runs=len(tried), seconds=sum(verdict.seconds for verdict in tried))


def gap_closed(random: Sequence[float], draft: Sequence[float], slim: Sequence[float]) -> float:
    """Return what part of the way in log style distance from the random network to the slim one the draft has gone."""
    start, here, end = (math.log(geometric_mean(styles)) for styles in (random, draft, slim))
    return (start - here) / (start - end)


def random_network(pictures: Sequence[Pixels], threads: int | None) -> Network:
    """Return a full-width VGG-19 up to conv5_1 of random weights whose channels respond with a mean of 1."""
    nodes = random_vgg("vgg19")
    nodes = nodes[: 1 + next(index for index, node in enumerate(nodes) if node.output == "conv5_1")]
    metadata = preprocessing_metadata(named_preprocessing("caffe"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "random.onnx"
        write_onnx(path, nodes, metadata)
        means = mean_responses(load_network(path, threads=threads), pictures)
        write_onnx(path, scaled(nodes, unit_scales(means, dict.fromkeys(means, 1.0))), metadata)
        return load_network(path, threads=threads)


# ---- the command line ----


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(prog=NAME, description="Judge the draft network beside a random one and a distilled one.")
    parser.add_argument("--front", type=given_path, required=True, metavar="FILE", help="original VGG-19, or its front")
    parser.add_argument("--slim", type=given_path, required=True, metavar="FILE", help="the distilled VGG-19")
    parser.add_argument("--pictures", type=given_path, required=True, metavar="DIR", help="photographs and paintings")
    parser.add_argument("-m", "--model", type=given_path, default=DRAFT_FILE, metavar="FILE", help="another draft")
    parser.add_argument("-o", "--output", type=given_path, required=True, metavar="DIR", help="for pictures, table")
    parser.add_argument("--contents", default=",".join(CONTENTS), metavar="FILE,...", help="photographs")
    parser.add_argument("--styles", default=",".join(STYLES), metavar="FILE,...", help="paintings")
    parser.add_argument(
        "--contestants", default=",".join(CONTESTANTS), metavar="NAME,...", help="who is judged now (default all)"
    )
    parser.add_argument("--random-weight", type=positive_float, default=RANDOM_WEIGHT, metavar="ALPHA")
    parser.add_argument("-s", "--size", type=positive_int, default=256, metavar="N", help="long side (default 256)")
    parser.add_argument("-n", "--iterations", type=positive_int, default=200, metavar="N", help="default 200")
    add_shared(parser, cache=False, shown="the table and errors")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Judge all pairs, those left from an interrupted run first; return the exit code."""
    arguments = build_parser().parse_args(argv)
    judges, draft = _networks(arguments)
    pairs = [(content, style) for content in arguments.contents.split(",") for style in arguments.styles.split(",")]
    pictures = {
        name: load_image(arguments.pictures / name, long_side=arguments.size).pixels
        for name in dict.fromkeys(name for pair in pairs for name in pair)
    }
    chosen = _contestants(arguments.contestants)
    make_folder(arguments.output)
    contest = _Contest(arguments, judges, draft, pictures, chosen)
    verdicts: dict[str, dict[str, Verdict]] = {}
    with Progress(len(pairs) * len(chosen), "pictures", NAME, quiet=arguments.quiet) as progress:
        for content, style in pairs:
            known = contest.judge(content, style, progress)
            if set(known) == set(CONTESTANTS):
                verdicts[_label(content, style)] = {name: known[name] for name in CONTESTANTS}
    if verdicts:
        print(table(verdicts))
    return 0


def _networks(arguments: argparse.Namespace) -> tuple[Judges, Network]:
    """Return the judges and the draft network; raises ValueError where one has not the layers that are needed."""
    front, slim, draft = (
        load_network(path, threads=arguments.threads) for path in (arguments.front, arguments.slim, arguments.model)
    )
    for path, network, layers in (
        (arguments.front, front, FRONT_LAYERS),
        (arguments.slim, slim, (*SLIM_LAYERS, CONTENT_LAYER)),
        (arguments.model, draft, (*PAPER_STYLE_LAYERS, *PAPER_CONTENT_LAYERS)),
    ):
        missing = [layer for layer in layers if layer not in network.layers]
        if missing:
            raise ValueError(f"{path} has no {missing[0]}, which is needed here")
    return Judges(front, slim), draft


def _contestants(text: str) -> list[str]:
    """Return the contestants named, the one that the others are compared with first."""
    chosen = text.split(",")
    for name in chosen:
        if name not in CONTESTANTS:
            raise ValueError(unknown_name("contestant", name, CONTESTANTS))
    return [name for name in CONTESTANTS if name in chosen]


def _label(content: str, style: str) -> str:
    return f"{Path(content).stem} {Path(style).stem}"


class _Contest:
    """The contestants, and where each pair's search begins: with the weight found for the pair before.

    Parameters
    ----------
    arguments : the command line.
    judges, draft : the networks given.
    pictures : by name, those of all pairs.
    chosen : who is judged now.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        judges: Judges,
        draft: Network,
        pictures: Mapping[str, Pixels],
        chosen: Sequence[str],
    ) -> None:
        self.judges = judges
        self.pictures = pictures
        self.chosen = chosen
        self.folder: Path = arguments.output
        self.iterations: int = arguments.iterations
        self.networks = {"draft": draft, "slim": judges.slim}
        if "random" in chosen:
            self.networks["random"] = random_network(list(pictures.values()), arguments.threads)
        self.weights = {name: network.content_weight for name, network in self.networks.items()}
        self.weights["random"] = arguments.random_weight
        self.models = dict.fromkeys(CONTESTANTS, "") | {"draft": sha256_of(arguments.model)}

    def judge(self, content: str, style: str, progress: Progress) -> dict[str, Verdict]:
        """Return the verdicts on a pair, those of earlier runs among them; what is new is kept in the folder."""
        entry = self.folder / f"{Path(content).stem}-{Path(style).stem}.json"
        known = {name: verdict for name, verdict in _read(entry).items() if verdict.model == self.models[name]}
        for name in self.chosen:
            if name not in known:
                if name != "random" and "random" not in known:
                    raise ValueError(f"{entry} has no verdict on the random network, which {name} is compared with")
                pair = Pair(self.judges, self.pictures[content], self.pictures[style])
                known[name], image = self._made(name, pair, None if name == "random" else known["random"].content)
                save_image(entry.with_name(f"{entry.stem}-{name}.png"), image)
                _write(entry, known)
            self.weights[name] = known[name].content_weight
            seconds = duration(known[name].seconds)
            progress.update(1, f"{_label(content, style)}: {name} style {known[name].style:.3g}, {seconds}")
        return known

    def _made(self, name: str, pair: Pair, content: float | None) -> tuple[Verdict, npt.NDArray[np.float64]]:
        """Return a contestant's picture and the verdict on it, at a content distance or, with None, at its weight."""
        make = _Maker(pair, self.networks[name], self.iterations)
        weight = self.weights[name]
        verdict = make(weight) if content is None else balanced(make, content, weight)
        return replace(verdict, model=self.models[name]), make.images[verdict.content_weight]


class _Maker:
    """Makes pictures of one pair with one network, judges and keeps them by their content weight."""

    def __init__(self, pair: Pair, network: Network, iterations: int) -> None:
        self.pair = pair
        self.network = network
        self.iterations = iterations
        self.images: dict[float, npt.NDArray[np.float64]] = {}

    def __call__(self, content_weight: float) -> Verdict:
        began = time.perf_counter()
        settings = Settings(
            init="content", iterations=self.iterations, content_weight=content_weight, optimizer="l-bfgs"
        )
        image = stylize(self.network, self.pair.photo, self.pair.painting, settings).image
        self.images[content_weight] = image
        verdict = self.pair.verdict(image, content_weight)
        return replace(verdict, seconds=time.perf_counter() - began)


def _read(entry: Path) -> dict[str, Verdict]:
    """Return the verdicts that an earlier run has kept of a pair."""
    if not entry.is_file():
        return {}
    stored = json.loads(entry.read_text())
    return {name: Verdict(**{**facts, "styles": tuple(facts["styles"])}) for name, facts in stored.items()}


def _write(entry: Path, verdicts: Mapping[str, Verdict]) -> None:
    with replacing(entry) as temporary:
        temporary.write_text(json.dumps({name: asdict(verdict) for name, verdict in verdicts.items()}, indent=1))


def table(verdicts: Mapping[str, Mapping[str, Verdict]]) -> str:
    """Return the verdicts as a Markdown table, a row for each pair and the means over all, seen and unseen ones."""
    unseen = {Path(name).stem for name in UNSEEN}
    lines = [
        "| photograph | painting | content distance | random | draft | slim | gap closed |",
        "|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[Mapping[str, Verdict]]] = {"all": [], "trained on neither": [], "trained on one or both": []}
    for label, row in verdicts.items():
        content, style = label.split(" ")
        groups["all"].append(row)
        groups["trained on neither" if {content, style} <= unseen else "trained on one or both"].append(row)
        marked = [f"{name} *" if name in unseen else name for name in (content, style)]
        contents = " / ".join(f"{verdict.content:.3f}" for verdict in row.values())
        styles = [row[name].style for name in ("random", "draft", "slim")]
        closed = gap_closed(*([number] for number in styles))
        numbers = " | ".join(f"{number:.4f}" for number in styles)
        lines.append(f"| {marked[0]} | {marked[1]} | {contents} | {numbers} | {100 * closed:.0f} % |")
    for name, rows in groups.items():
        if rows:
            columns = [[row[contestant].style for row in rows] for contestant in ("random", "draft", "slim")]
            means = " | ".join(f"{geometric_mean(column):.4f}" for column in columns)
            count = f"{len(rows)} {'pair' if len(rows) == 1 else 'pairs'}"
            lines.append(f"| **{name}** | {count} | | {means} | {100 * gap_closed(*columns):.0f} % |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
