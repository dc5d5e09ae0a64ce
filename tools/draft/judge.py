"""How near to a painting's style a network brings photographs, by the measure of another network.

The other is the original VGG-19. A picture's style distance is the paper's E_l over what it was for the photograph
itself, the geometric mean over the paper's five layers; its content distance the relative squared error at conv4_2. A
network can always buy style with content, so all are compared at the same content distance: the first runs with the
content weight given, for the others a weight is searched that ends as far from the photograph.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.network import Network
from engine.objective import Objective
from engine.ops import Array
from engine.optimize import minimize
from engine.selection import PAPER_CONTENT_LAYERS, PAPER_STYLE_LAYERS
from tools.media.images import load_image, pictures_in
from tools.media.record import fits, parsed_json

PHOTOGRAPHS = ("tubingen", "boston", "coffee", "chelsea")
PAINTINGS = ("starry_night", "kandinsky_composition_vii", "water_lilies_monet_1919", "the_scream", "shipwreck")

TOLERANCE = 0.05
"""How far content distances may be apart to be called equal, relatively."""

RUNS = 5
"""Content weights that are tried at most."""

_FORM = {
    **{"pair": str, "network": str, "settings": {}},
    **{"content": float, "weight": float, "layers": dict.fromkeys(PAPER_STYLE_LAYERS, float)},
}


@dataclass(frozen=True, eq=False)
class Pair:
    """A photograph and a painting, both (H, W, 3) of 0..255, and what the judge measures them by."""

    name: str
    photograph: Array
    painting: Array
    objective: Objective
    content_energy: float
    style_before: dict[str, float]


@dataclass(frozen=True)
class Verdict:
    """What the judge says of a picture.

    Parameters
    ----------
    content : relative squared error at conv4_2.
    layers : E_l over the photograph's own, by layer.
    weight : the content weight that the network was given.
    """

    content: float
    layers: dict[str, float]
    weight: float

    @property
    def style(self) -> float:
        """The geometric mean over the layers."""
        return geometric_mean(list(self.layers.values()))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean of positive numbers."""
    return math.exp(sum(math.log(max(value, 1e-300)) for value in values) / len(values))


def pair_of(judge: Network, name: str, photograph: Array, painting: Array) -> Pair:
    """Return a pair with the judge's measure for it."""
    objective = Objective(judge, photograph, painting)
    objective(photograph)
    (layer,) = PAPER_CONTENT_LAYERS
    energy = float((judge.features(photograph, layer)[layer].astype(np.float64) ** 2).sum())
    return Pair(name, photograph, painting, objective, energy, dict(objective.terms["style"]))


def judged(pair: Pair, picture: Array, weight: float = math.nan) -> Verdict:
    """Return what the judge says of a picture made from a pair."""
    pair.objective(picture)
    content = 2 * sum(pair.objective.terms["content"].values()) / pair.content_energy
    layers = {name: pair.objective.terms["style"][name] / pair.style_before[name] for name in PAPER_STYLE_LAYERS}
    return Verdict(content, layers, weight)


def rendered(network: Network, pair: Pair, weight: float, iterations: int) -> Verdict:
    """Return the judge's verdict on what a network makes of a pair, from the photograph by L-BFGS."""
    objective = Objective(network, pair.photograph, pair.painting, content_weight=weight)
    result = minimize(objective, pair.photograph, "l-bfgs", iterations)
    return judged(pair, result.image, weight)


def matched(network: Network, pair: Pair, content: float, weight: float, iterations: int) -> Verdict:
    """Return the verdict at the content weight whose picture is ``content`` away from the photograph, or the nearest.

    Parameters
    ----------
    weight : to begin with. The next is found on the line through the two nearest, in logarithms.
    """
    tried = [rendered(network, pair, weight, iterations)]
    while len(tried) < RUNS and abs(tried[0].content / content - 1) > TOLERANCE:
        tried.append(rendered(network, pair, _next_weight(tried, content), iterations))
        tried.sort(key=lambda verdict: abs(math.log(verdict.content / content)))
    return tried[0]


def _next_weight(tried: Sequence[Verdict], content: float) -> float:
    slope = -0.3  # of log content over log weight, until two verdicts tell
    if len(tried) > 1 and tried[0].weight != tried[1].weight:
        rise = math.log(tried[1].content / tried[0].content) / math.log(tried[1].weight / tried[0].weight)
        slope = min(rise, -0.03)
    step = math.log(content / tried[0].content) / slope
    return tried[0].weight * math.exp(min(max(step, -3.0), 3.0))


def judge_all(
    judge: Network,
    networks: Mapping[str, tuple[Network, float]],
    folder: Path,
    names: Sequence[tuple[str, str]],
    size: int,
    iterations: int,
    record: Path | None = None,
    hashes: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Verdict]]:
    """Return the verdict on each network for each pair, {pair: {network: verdict}}.

    Parameters
    ----------
    networks : with the content weight to begin with; the first keeps it, the others end as far from the content.
    folder, names : where the pictures are, and which photograph goes with which painting, without the files' ending.
    size : long side in pixels of both.
    record : a file with a line of JSON for each verdict; what it has is not made again.
    hashes : of the networks' files, by which the record tells that they are the same.

    Raises ValueError for a picture that is missing, and a record that is none or is of other settings.
    """
    files = {path.stem: path for path in pictures_in(folder)}
    for name in dict.fromkeys(name for pair in names for name in pair):
        if name not in files:
            raise ValueError(f"{folder} has no picture called {name!r}")
    first_weight = next(iter(networks.values()))[1]
    settings = {"size": size, "iterations": iterations, "content_weight": first_weight, "files": dict(hashes or {})}
    recorded = {} if record is None or not record.exists() else _recorded(record, settings)
    result: dict[str, dict[str, Verdict]] = {}
    ratios = dict.fromkeys(networks, 1.0)
    for of_pair in names:
        label = ", ".join(of_pair)
        there = result[label] = recorded.get(label, {})
        missing = [name for name in networks if name not in there]
        if missing:
            photograph, painting = (load_image(files[name], long_side=size).array[..., :3] for name in of_pair)
            pair = pair_of(judge, label, photograph, painting)
        for name, (network, weight) in networks.items():
            first = name == next(iter(networks))
            if name in missing and first:
                there[name] = rendered(network, pair, weight, iterations)
            elif name in missing:
                # What suited the pair before is a better guess for this one.
                content = there[next(iter(networks))].content
                there[name] = matched(network, pair, content, weight * ratios[name], iterations)
            ratios[name] = there[name].weight / weight
            if name in missing:
                verdict = there[name]
                tell(f"{label}: {name}, content {verdict.content:.3f}, style {verdict.style:.4f}")
                if record:
                    line = {"pair": label, "network": name, **asdict(verdict), "settings": settings}
                    with record.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
    return result


def _recorded(record: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Verdict]]:
    """Return the verdicts of a record."""
    result: dict[str, dict[str, Verdict]] = {}
    for number, line in enumerate(record.read_text("utf-8").splitlines(), 1):
        found = parsed_json(line)
        if not fits(found, _FORM):
            raise ValueError(f"{str(record)!r}, line {number}, is no verdict: remove it, or give another --record")
        if found["settings"] != settings:
            raise ValueError(f"{str(record)!r} has verdicts on other networks or settings: give another --record")
        verdict = Verdict(found["content"], found["layers"], found["weight"])
        result.setdefault(found["pair"], {})[found["network"]] = verdict
    return result


def table(verdicts: Mapping[str, Mapping[str, Verdict]], unseen: Sequence[str] = ()) -> list[str]:
    """Return the verdicts as the lines of a Markdown table, with geometric means; an asterisk marks what is unseen."""
    names = list(next(iter(verdicts.values())))
    head = f"| pair | content distance: {' / '.join(names)} | {' | '.join(names)} |"
    lines = [head, "|---|---|" + "---|" * len(names)]
    for pair, of_pair in verdicts.items():
        shown = ", ".join(name + (" *" if name in unseen else "") for name in pair.split(", "))
        contents = " / ".join(f"{verdict.content:.3f}" for verdict in of_pair.values())
        lines.append(f"| {shown} | {contents} | {' | '.join(f'{v.style:.4f}' for v in of_pair.values())} |")
    neither = [pair for pair in verdicts if set(pair.split(", ")) <= set(unseen)]
    groups = {"**all**": list(verdicts), "**learnt from neither**": neither}
    for label, chosen in groups.items():
        if chosen:
            means = [geometric_mean([verdicts[pair][name].style for pair in chosen]) for name in names]
            lines.append(f"| {label} | {len(chosen)} pairs | {' | '.join(f'{mean:.4f}' for mean in means)} |")
    return lines
